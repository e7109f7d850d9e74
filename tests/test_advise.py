"""An advice: its arithmetic, its reasons, and what it says when something cannot be had."""

import contextlib
import itertools
import json
import math

import numpy as np
import pandas as pd
import pytest

import batchscape as bs
from batchscape.cost import advise, short_trainings
from batchscape.cost.limit import Limit
from batchscape.cost.line import fit_line
from batchscape.cost.probe_input import ProbeInput
from batchscape.cost.result import Probe
from batchscape.plot import advice, style

N = 1024


def probe_of(ms, *, epoch_ms=0.0, fails=None, batches=None, was_compiled=True):
    """A probe that found the times that a function of batch size gives."""
    batches = np.array(2 ** np.arange(11) if batches is None else batches)
    times = np.array([ms(batch) for batch in batches], np.float64)
    peaks = 7e8 + 5e3 * batches
    table = pd.DataFrame(
        {
            "batch": batches, "ms": times, "ms_low": 0.9 * times, "ms_high": 1.1 * times,
            "samples_per_second": 1e3 * batches / times,
            "epoch_seconds": (np.ceil(N / batches) * times + epoch_ms) / 1e3,
            "compile_seconds": 0.1, "peak_bytes": peaks, "outcome": "measured",
        }
    )  # fmt: skip
    facts = {
        "n_train": N, "data": "toy", "data_sha256": "0", "model": "net", "optimizer": "SGD", "loss": "mse",
        "engine": "stock", "device": "CPU", "was_compiled": was_compiled,
    }  # fmt: skip
    return Probe(
        table=table,
        time=fit_line(batches, times, relative=True),
        memory=fit_line(batches, peaks),
        limit=Limit(int(batches.max()), fails, math.inf),
        memory_limit=10**10,
        epoch_ms=epoch_ms,
        stopped="",
        about=facts,
    )


NOISE = advise.Noise(96.0, 48.0, math.inf, ({"epoch": 0, "simple": 96.0, "low": 48.0, "high": math.inf},))


def test_expected_times_are_updates_by_theory_times_measured_seconds():
    found = advise.join(probe_of(lambda batch: 1 + 0.01 * batch, epoch_ms=8.0), NOISE, 0.1, 0.4)
    for row in found.table.itertuples():
        updates = (1 + 96 / row.batch) / (1 + 96 / 32)
        seconds = (1 + 0.01 * row.batch) + 8 * row.batch / N
        assert row.updates == pytest.approx(updates)
        assert row.examples == pytest.approx(updates * row.batch / 32)
        assert row.seconds == pytest.approx(updates * seconds / (1 + 0.01 * 32 + 8 * 32 / N))
        assert row.seconds_low <= row.seconds <= row.seconds_high
        assert (row.fixed, row.sqrt, row.linear) == pytest.approx((0.1, 0.1 * (row.batch / 32) ** 0.5, row.batch / 320))


def test_the_default_is_the_best_of_the_closed_form():
    """With t = a + bB and S ∝ 1 + N / B the time is shortest at B = √(N a / b)."""
    a, b, noise = 1.0, 1 / 64, 64.0
    found = advise.join(probe_of(lambda batch: a + b * batch), advise.Noise(noise, 32.0, 128.0, ()), 0.1, 0.4)
    best = math.sqrt(noise * a / b)
    assert found.table["seconds"].idxmin() == int(math.log2(best))
    times = (1 + noise / found.table["batch"]) * (a + b * found.table["batch"])
    assert found.batch_size == found.table["batch"][times <= 1.1 * times.min()].min()
    inside = found.table["batch"][times <= 1.25 * times.min()]
    assert (found.low, found.high) == (inside.min(), inside.max())


def test_what_does_not_fit_is_not_advised():
    found = advise.join(probe_of(lambda batch: 10.0, fails=65, batches=[1, 8, 64, 512]), NOISE, 0.1, 0.4)
    assert found.table["batch"].tolist() == [1, 8, 64]
    assert found.batch_size == 64


def test_an_edge_of_the_sizes_is_pointed_out():
    found = advise.join(probe_of(lambda batch: 10.0, batches=[8, 32, 64]), NOISE, 0.1, 0.4)
    assert "B = 64 is at the edge of the sizes that were timed" in " ".join(found.reasons)


def test_without_noise_or_rate_the_advice_says_so():
    found = advise.join(
        probe_of(lambda batch: 1.0, was_compiled=False),
        None,
        None,
        None,
        why_not={"noise": "no luck", "rate": "a schedule"},
    )
    said = " ".join(found.reasons)
    assert "not available (no luck)" in said
    assert "No learning rate is advised: a schedule" in said
    assert "was not compiled: SGD and mse stood in" in said
    assert found.learning_rates is None
    assert np.isnan(found.table["seconds"]).all()
    assert "learning rate: none found" in repr(found)
    described = json.loads(found.to_json())
    assert described["noise"] is None
    assert described["table"][0]["seconds"] is None
    with style.paper():
        assert len(advice.advice_figure(found).axes) == 4


def test_a_rate_that_a_policy_drives_above_the_stable_one_is_pointed_out():
    found = advise.join(probe_of(lambda batch: 10.0), NOISE, 0.1, 0.4)
    assert found.batch_size > 128
    assert f"at B = {found.batch_size} linear would exceed it" in " ".join(found.reasons)


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        ([(0.1, 2.0), (1.0, 1.0), (10.0, math.nan)], (0.25, 1.0)),
        ([(0.1, 2.0), (1.0, 1.0), (2.0, 1.04), (4.0, 1.2)], (0.5, 2.0)),
        ([(0.1, 2.0), (1.0, 1.99), (10.0, 30.0)], (None, None)),
        ([(0.1, math.nan)], (None, None)),
        ([], (None, None)),
    ],
)
def test_the_rate_is_a_quarter_of_the_largest_before_the_loss_rose(rates, expected):
    assert advise.suggested_rate(rates) == expected


def test_noise_that_cannot_be_told_from_zero_is_none():
    assert advise.noise_of([{"epoch": 0, "simple": -3.0, "low": -math.inf, "high": math.inf}]) is None
    assert advise.noise_of([]) is None


def test_short_trainings_see_all_classes_of_data_that_are_sorted(monkeypatch):
    monkeypatch.setattr(short_trainings, "MOST_EXAMPLES", 200)
    y = np.repeat(np.arange(10), 100)
    data = bs.load_dataset((y[:, None].astype(np.float32), y))
    some = short_trainings._some(data)
    assert some.n_train == 200
    assert np.bincount(some.y_train, minlength=10).min() >= 8
    assert (some.x_train[:, 0] == some.y_train).all()


def test_an_advice_on_digits_joins_short_trainings_and_is_drawn(monkeypatch, tmp_path):
    """The trainings run in this process here, where TensorFlow is loaded; the probe is made up."""
    monkeypatch.setattr(advise, "probe_batch_sizes", lambda *_, **__: probe_of(lambda batch: 1 + 0.01 * batch))
    monkeypatch.setattr(short_trainings, "PAIRS", 8)
    called = []

    def here(_, name, *arguments):
        called.append(name)
        return getattr(short_trainings, name)(*arguments), ""

    monkeypatch.setattr(advise, "_a_child", contextlib.nullcontext)
    monkeypatch.setattr(advise, "_ask", here)
    found = advise.advise("mlp", "digits", show_progress=False)
    assert called == ["range_test", "noise_scales"]
    rate = found.learning_rates["fixed"]
    assert 0.02 < rate < 0.5  # The project's own sweeps train this net at 0.05 to 0.4.
    assert 5 < found.noise.simple < 500
    assert [place["epoch"] for place in found.noise.places] == [0, 1, 3]
    assert advice.draw(found, tmp_path).read_bytes()[:4] == b"\x89PNG"
    assert json.loads(found.save(tmp_path / "advice.json").read_text())["batch_size"] == found.batch_size
    drawn = json.loads((tmp_path / "advice.json").read_text())
    assert len(drawn["rates"]) > 20


@pytest.mark.parametrize(("why_no_rate", "children"), [("", [0, 0]), ("the process died", [0, 1])])
def test_short_trainings_share_a_process_unless_the_first_has_failed(monkeypatch, why_no_rate, children):
    monkeypatch.setattr(advise, "probe_batch_sizes", lambda *_, **__: probe_of(lambda batch: 1 + 0.01 * batch))
    numbers, asked = itertools.count(), []

    def answer(child, name, *_):
        asked.append(child)
        return None, why_no_rate if name == "range_test" else "no noise"

    monkeypatch.setattr(advise, "_a_child", lambda _: contextlib.nullcontext(next(numbers)))
    monkeypatch.setattr(advise, "_ask", answer)
    found = advise.advise("mlp", "digits", show_progress=False)
    assert asked == children
    assert found.noise is found.learning_rates is None


def scheduled():
    import keras

    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9)
    model.compile(keras.optimizers.SGD(schedule), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def test_a_model_with_a_schedule_keeps_it_and_gets_no_rate(blobs):
    assert short_trainings.range_test(ProbeInput(scheduled, blobs), 8) is None
    assert len(short_trainings.noise_scales(ProbeInput(scheduled, blobs), 8, None)) == 3
