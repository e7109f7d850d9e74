"""Warm-up and decay: the closed forms, in updates and in examples, under every engine, and nothing left behind."""

import dataclasses
import math

import keras
import numpy as np
import pytest

import batchscape as bs
from batchscape.errors import InvalidInput
from batchscape.train.plan import Plan
from batchscape.train.record import run_hash
from batchscape.train.trainer import Trainer
from tests.toys import ENGINES

pytestmark = pytest.mark.x64

WarmupDecay = bs.schedules.WarmupDecay


def closed_form(t, *, rate, warmup=0.0, start=0.0, decay="constant", over=1.0, at=(), factor=0.1):
    """η(t) in float64, one t at a time."""
    risen = 1.0 if t + 1 >= warmup else start + (1 - start) * (t + 1) / warmup
    s = max(t - warmup, 0) / over
    left = {
        "constant": 1.0,
        "steps": factor ** sum(t >= place for place in at),
        "linear": 1 - (1 - factor) * min(s, 1),
        "cosine": factor + (1 - factor) * 0.5 * (1 + math.cos(math.pi * min(s, 1))),
        "exponential": factor**s if factor else math.nan,
        "inverse": 1 / (1 + s * (1 / factor - 1)) if factor else math.nan,
    }[decay]
    return rate * risen * left


KINDS = {
    "constant": {},
    "steps": {"at": (30, 45, 80)},
    "linear": {"over": 60.0, "factor": 0.0},
    "cosine": {"over": 70.5, "factor": 0.05},
    "exponential": {"over": 20.0},
    "inverse": {"over": 50.0, "factor": 0.25},
}


@pytest.mark.parametrize("warm", [{}, {"warmup": 12}, {"warmup": 7.5, "start": 0.25}], ids=["cold", "zero", "base"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_schedule_is_its_closed_form(kind, warm):
    schedule = WarmupDecay(0.3, decay=kind, **KINDS[kind], **warm)
    expected = [closed_form(t, rate=0.3, decay=kind, **KINDS[kind], **warm) for t in range(120)]
    np.testing.assert_allclose(schedule(np.arange(120)), expected, rtol=2e-6, atol=3e-8)  # 1 − s is taken in float32.
    again = keras.optimizers.schedules.deserialize(keras.optimizers.schedules.serialize(schedule))
    assert [float(again(t)) for t in (0, 40, 99)] == [float(schedule(t)) for t in (0, 40, 99)]


@pytest.mark.parametrize(
    "options",
    [
        {"learning_rate": 0.0},
        {"warmup": -1},
        {"decay": "linear"},
        {"decay": "steps"},
        {"decay": "steps", "at": (9, 3)},
        {"decay": "exponential", "over": 5, "factor": 0.0},
        {"decay": "cosin", "over": 5},
    ],
)
def test_a_schedule_that_means_nothing_is_refused(options):
    with pytest.raises(InvalidInput, match="Received: "):
        WarmupDecay(**{"learning_rate": 0.1, **options})


def test_a_schedule_in_epochs_or_examples_stays_in_its_place_when_the_batch_moves_and_one_in_updates_does_not():
    def rates(batch_size, places, **changes):
        cell = bs.Cell(batch_size=batch_size, learning_rate=0.1, epochs=8, decay="cosine", decay_factor=0, **changes)
        plan = Plan.of(cell, 640)
        schedule = bs.schedules.of_cell(cell, 640)
        return [float(schedule(int(plan.updates_in(place, "epochs")))) for place in places]

    after = (2, 3, 5, 7.5)
    expected = [0.1 * 0.5 * (1 + math.cos(math.pi * (place - 2) / 6)) for place in after]
    for batch_size in (8, 32, "full"):
        assert rates(batch_size, after[:3], warmup=2) == pytest.approx(expected[:3], rel=1e-5)
    assert rates(8, after, warmup=1280, schedule_unit="examples") == pytest.approx(expected, rel=1e-5)
    small, large = (rates(batch, (0,), warmup=8, schedule_unit="updates") for batch in (8, "full"))
    assert small == large == pytest.approx([0.1 / 8])


def test_examples_count_a_partial_batch_by_its_size():
    plan = Plan.of(bs.Cell(batch_size=32, epochs=3), 100)
    assert [plan.updates_in(examples, "examples") for examples in (0, 16, 64, 100, 132)] == [0, 0.5, 2, 4, 5]
    assert plan.updates_in(1.5, "epochs") == 6


def test_gradual_warm_up_starts_from_the_rate_before_the_policy():
    cell = bs.Cell(
        batch_size=320, base_batch_size=32, learning_rate=0.1, lr_policy="linear", warmup=5, warmup_from="base",
        epochs=6,
    )  # fmt: skip
    schedule = bs.schedules.of_cell(cell, 640)
    assert [float(schedule(t)) for t in (0, 4, 9, 11)] == pytest.approx([0.19, 0.55, 1.0, 1.0])
    small = dataclasses.replace(cell, batch_size=8)
    assert float(bs.schedules.of_cell(small, 640)(0)) == pytest.approx(0.025)


def net(data=None):
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "tanh"), keras.layers.Dense(3)])


SCHEDULED = bs.Cell(
    batch_size=9, learning_rate=0.1, epochs=3, warmup=0.75, decay="exponential", decay_over=1, decay_factor=0.5,
    evaluate_every=0.25, optimizer="sgd",
)  # fmt: skip


def rates_of_scheduled(run):
    u = run.facts["updates_per_epoch"]
    form = {"rate": 0.1, "warmup": 0.75 * u, "decay": "exponential", "over": u, "factor": 0.5}
    return [closed_form(t, **form) for t in run.curves["updates"]]


def test_engines_agree_under_a_schedule_and_record_its_closed_form_at_every_look(blobs):
    data = bs.load_dataset(blobs)
    runs = {
        engine: Trainer(cell, data, net).run(cell)
        for engine in ENGINES
        for cell in [dataclasses.replace(SCHEDULED, engine=engine)]
    }
    stock = runs.pop("stock")
    expected = rates_of_scheduled(stock)
    assert len(expected) > 8
    assert stock.curves["learning_rate"] == pytest.approx(expected, rel=1e-6)
    assert stock.facts["learning_rate"] == 0.1
    for run in runs.values():
        assert run.curves["learning_rate"] == stock.curves["learning_rate"]
        for a, b in zip(stock.weights["final"], run.weights["final"], strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)


def test_a_schedule_leaves_nothing_to_the_next_cell_of_one_compiled_model(blobs):
    data = bs.load_dataset(blobs)
    other = dataclasses.replace(SCHEDULED, learning_rate=0.5, warmup=0, decay_over=2, decay_factor=0.25, seed=1)
    trainer = Trainer(SCHEDULED, data, net)
    first, between, again = (trainer.run(cell) for cell in (SCHEDULED, other, SCHEDULED))
    alone = Trainer(other, data, net).run(other)
    for one, same in ((first, again), (between, alone)):
        assert one.curves["learning_rate"] == same.curves["learning_rate"]
        for a, b in zip(one.weights["final"], same.weights["final"], strict=True):
            np.testing.assert_array_equal(a, b)
    assert first.curves["learning_rate"] != between.curves["learning_rate"]


def test_mixed_float16_whose_optimizer_is_wrapped_follows_the_schedule_too(blobs):
    run = bs.fit_one(dataclasses.replace(SCHEDULED, precision="mixed_float16"), build=net, data=blobs)
    assert run.curves["learning_rate"] == pytest.approx(rates_of_scheduled(run), rel=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"warmup": -1}, r"warmup must be a finite number ≥ 0"),
        ({"decay": "cosin"}, r"did you mean cosine"),
        ({"decay": "steps"}, r"go together"),
        ({"decay_at": (2, 3)}, r"go together"),
        ({"decay": "steps", "decay_at": (3, 2)}, r"rising"),
        ({"decay": "steps", "decay_at": (2, 3), "decay_over": 4}, r"goes on"),
        ({"decay": "linear", "decay_over": 0}, r"decay_over must be a finite number > 0"),
        ({"decay": "exponential", "decay_factor": 0}, r"decay_factor must be > 0"),
        ({"decay": "cosine", "until_loss": 0.1}, r"give decay_over"),
        ({"warmup": 2, "warmup_from": "base"}, r"lr_policy"),
        ({"schedule_unit": "minutes"}, r"Unknown schedule_unit"),
    ],
)
def test_a_schedule_that_contradicts_itself_is_refused_in_one_line(changes, message):
    with pytest.raises(InvalidInput, match=rf"(?s){message}.*Received: "):
        bs.Cell(**changes)


def test_a_warm_up_longer_than_the_run_is_refused_before_anything_runs(tmp_path):
    with pytest.raises(InvalidInput, match=r"within the run, 80 updates .*Received: warmup=3 epochs, 120 updates"):
        bs.run_sweep(bs.Grid(epochs=2, warmup=3), store=tmp_path, executor="serial")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("changes", [{"optimizer": "rprop"}, {"optimizer": "ftrl"}, {"optimizer": None}])
def test_a_schedule_beside_what_knows_none_is_refused(blobs, changes):
    def build():
        model = net()
        model.compile(keras.optimizers.SGD(keras.optimizers.schedules.ExponentialDecay(0.1, 1, 0.5)), "mse")
        return model

    cell = bs.Cell(batch_size=9, epochs=2, warmup=1, loss="sparse_categorical_crossentropy", **changes)
    with pytest.raises(InvalidInput, match=r"Received: .*warmup=1\.0, decay='constant'"):
        bs.fit_one(cell, build=build, data=blobs)


def test_a_schedule_is_part_of_the_name():
    assert bs.Cell.from_json(bs.Cell().to_json()) == bs.Cell()
    names = {run_hash(bs.Cell(epochs=9, warmup=warmup), "data", "model") for warmup in (0, 1, 2)}
    assert len(names) == 3
    steps = bs.Cell(decay="steps", decay_at=[np.int64(2), 5], decay_factor=np.float64(0.5))
    assert bs.Cell.from_json(steps.to_json()) == steps
    assert [cell.decay_at for cell in bs.Grid(decay="steps", decay_at=[(2, 5), (3,)])] == [(2.0, 5.0), (3.0,)]
