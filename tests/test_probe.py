"""What a batch costs: lines, limits, the watched process, and a probe of a model whose memory is known."""

import json
import math
import os
import signal
import sys
import time

import keras
import numpy as np
import pytest
from scipy import optimize, stats

import batchscape as bs
from batchscape.cost import limit, probe
from batchscape.cost.line import fit_line
from batchscape.errors import InvalidInput, UserCodeError
from batchscape.system import memory
from batchscape.workers.watched_process import Child, ChildDied, ChildFailed, OutOfMemory

RNG = np.random.default_rng(0)


def test_a_line_and_its_intervals_are_those_of_scipy():
    x = 2.0 ** np.arange(8)
    y = 3 + 0.5 * x + RNG.normal(size=8)
    line, theirs = fit_line(x, y), stats.linregress(x, y)
    quantile = stats.t.ppf(0.975, 6)
    ours = (
        line.slope,
        line.intercept,
        line.r_squared,
        line.slope_high - line.slope,
        line.intercept_high - line.intercept,
    )
    expected = (
        theirs.slope,
        theirs.intercept,
        theirs.rvalue**2,
        quantile * theirs.stderr,
        quantile * theirs.intercept_stderr,
    )
    np.testing.assert_allclose(ours, expected, rtol=1e-9)


def test_a_line_with_relative_errors_is_that_of_weighted_least_squares():
    x = 2.0 ** np.arange(10)
    y = (2 + 0.1 * x) * (1 + 0.05 * RNG.normal(size=10))
    line = fit_line(x, y, relative=True)
    found, cov = optimize.curve_fit(lambda x, a, b: a + b * x, x, y, p0=(1, 1), sigma=y)
    np.testing.assert_allclose((line.intercept, line.slope), found, rtol=1e-5)
    half = stats.t.ppf(0.975, 8) * np.sqrt(np.diag(cov))
    np.testing.assert_allclose((line.intercept_high - line.intercept, line.slope_high - line.slope), half, rtol=1e-4)


def test_the_band_of_a_line_covers_further_measurements_as_often_as_it_says():
    inside = 0
    for _ in range(400):
        x = np.arange(6.0)
        low, high = fit_line(x, 1 + 2 * x + RNG.normal(size=6)).band(8.0)
        inside += low <= 17 + RNG.normal() <= high
    assert abs(inside / 400 - 0.95) < 3 * math.sqrt(0.95 * 0.05 / 400)


SHAPES = {
    "line": lambda batch: 7e8 + 5e3 * batch,
    "stairs": lambda batch: 7e8 + 5e6 * np.ceil(batch / 1000),
    "bent": lambda batch: 7e8 + 5e3 * batch + 0.02 * batch**2,
    "flat, then steep": lambda batch: 7e8 + 5e3 * max(0, batch - 2000),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bound", [7.2e8, 1e9, 4e9])
def test_a_limit_is_found_within_five_percent(shape, bound):
    needs = SHAPES[shape]
    most = 10**7
    truth = optimize.brentq(lambda batch: needs(batch) - bound, 0, most)
    tried = []

    def try_batch(batch):
        tried.append(batch)
        return needs(batch) if needs(batch) <= bound else "killed"

    found = limit.search(try_batch, {batch: needs(batch) for batch in (1, 512, 1024, 2048)}, None, most, bound)
    assert found.trials == len(tried) <= limit.MOST_TRIALS
    if shape in ("line", "stairs"):
        assert found.confirmed
        assert max(tried) < 1.3 * max(truth, 2048)
    assert found.fits <= max(truth, 2048)
    assert found.fails is None or found.fails >= truth * 0.999
    if found.confirmed:
        assert found.fits > truth / 1.06 or truth < 2048


def test_a_search_ends_at_all_examples_where_all_of_them_fit():
    found = limit.search(lambda batch: 7e8 + 5e3 * batch, {1: 7e8, 64: 7e8 + 32e4, 128: 7e8 + 64e4}, None, 1000, 1e12)
    assert (found.fits, found.fails, found.trials) == (1000, None, 1)


@pytest.mark.parametrize("given", [0, -1, "0", "0GB", "much", "2 XB", math.nan, math.inf, True, None, "1.2.3GB", [1]])
def test_a_memory_limit_that_is_none_is_refused(given):
    with pytest.raises(InvalidInput, match="memory_limit must be a number of bytes > 0"):
        memory.parse(given)


def test_what_this_process_holds_is_known():
    before = memory.resident()
    block = np.ones(60_000_000, np.uint8)
    assert abs(memory.resident() - before - block.nbytes) < 20e6
    assert memory.peak() >= memory.resident() - 5e6
    assert memory.available() > 1e8


@pytest.fixture
def child():
    children = []

    def start(limit=None):
        children.append(Child(limit))
        return children[-1]

    yield start
    for one in children:
        one.stop()


def test_a_child_runs_functions_by_value_and_tells_want_of_memory_by_type_alone(child):
    one, factor = child(), 3

    def shout():
        print("this must not end up among the replies")
        return os.getpid()

    def fail(error):
        raise error

    assert one.call(lambda value: factor * value, 14) == 42
    assert one.call(shout) != os.getpid()
    with pytest.raises(OutOfMemory, match="MemoryError"):
        one.call(fail, MemoryError("no room"))
    with pytest.raises(ChildFailed, match="ValueError") as caught:
        one.call(fail, ValueError("OOM: out of memory, ResourceExhaustedError"))
    assert not isinstance(caught.value, OutOfMemory)
    with pytest.raises(InvalidInput, match="yours"):
        one.call(fail, InvalidInput("yours"))
    assert one.call(lambda: "tensorflow" in sys.modules) is False
    with pytest.raises(ChildDied, match="SIGSEGV"):
        one.call(lambda: os.kill(os.getpid(), signal.SIGSEGV))


def test_a_child_that_takes_too_long_is_killed_with_what_it_has_started():
    one = Child(seconds=0.5)
    try:
        with pytest.raises(ChildDied, match=r"took longer than the time limit of 0\.5 s"):
            one.call(lambda: (os.fork(), time.sleep(600)))
    finally:
        one.stop()


def test_a_child_is_killed_at_its_limit_and_that_alone_is_want_of_memory(child):
    def grow(n_bytes):
        held = []
        while sum(map(len, held)) < n_bytes:
            held.append(np.ones(4_000_000, np.uint8))
        return len(held)

    assert child(400_000_000).call(grow, 100_000_000) == 25
    with pytest.raises(OutOfMemory, match="killed by us at"):
        child(400_000_000).call(grow, 10**12)
    with pytest.raises(ChildDied, match="SIGKILL"):
        child(4_000_000_000).call(lambda: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(ChildDied, match="exit status 3"):
        child().call(lambda: os._exit(3))


WIDTH, DEPTH = 64, 16


def deep():
    hidden = [keras.layers.Activation("tanh") for _ in range(DEPTH)]
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(WIDTH), *hidden, keras.layers.Dense(1)])


@pytest.mark.long
def test_memory_rises_as_activations_do_and_an_artificial_limit_is_met_from_both_sides(monkeypatch):
    """The backward pass of tanh needs the output of every layer: 4 · width · depth bytes an example.

    Beside it there may be the input and a gradient of each layer, where the allocator gives none of them back: thrice as much
    at most, with one more layer for the product of the first one and its sum with the bias. From the first size to the last,
    memory rises by 200 MB or more, which dwarfs the tens of MB by which processes differ.
    """
    monkeypatch.setattr("batchscape.cost.probe.PEAKS", 2)
    x = np.zeros((300_000, 4), np.float32)
    policy = keras.config.dtype_policy()
    found = bs.probe_batch_sizes(
        deep, (x, x[:, :1]), loss="mean_squared_error", batch_sizes=[16_384, 49_152], memory_limit="1.6GB", repeats=1,
        show_progress=False,
    )  # fmt: skip
    assert 0.8 * 4 * WIDTH * DEPTH < found.memory.slope < 3 * 4 * WIDTH * (DEPTH + 1)
    assert found.limit.confirmed
    assert found.limit.fails <= 1.05 * found.limit.fits + 1
    assert "killed by us" in found.limit.reason
    assert found.measured["batch"].tolist() == [16_384, 49_152]
    assert (found.measured[["ms", "samples_per_second", "peak_bytes"]] > 0).all().all()
    assert found.about["was_compiled"] is False
    described = json.loads(found.to_json())
    assert described["limit"]["fits"] == found.limit.fits
    assert [row["batch"] for row in described["table"]] == [16_384, 49_152]
    assert "B = " in repr(found)
    assert keras.config.dtype_policy() == policy


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_sizes": [0]}, "integers from 1 to the number of training examples, 1280. Received: 0"),
        ({"batch_sizes": []}, "Received: none"),
        ({"batch_sizes": [2048]}, "Received: 2048"),
        ({"batch_sizes": [2.5]}, "Received: 2.5"),
        ({"memory_limit": 0}, "memory_limit=0"),
        ({"memory_limit": "lots"}, "memory_limit='lots'"),
        ({"repeats": 0}, "repeats must be an integer ≥ 1"),
        ({"engine": "steam"}, "Unknown engine"),
        ({"precision": "float8"}, "Unknown precision"),
        ({"jit": "auto"}, "jit must be True, False or None"),
        ({"data": (np.zeros((0, 4)), np.zeros(0))}, "at least one example"),
        ({"data": "nothing"}, "Unknown dataset"),
        ({"build": "mpl"}, "did you mean mlp"),
        ({"build": "nothing.keras"}, "Received: nothing.keras"),
        ({"build": keras}, "build must be a function or the name of a model. Received: module"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, dict) else "",
)
def test_bad_input_is_refused_before_any_process_starts(options, message, monkeypatch):
    monkeypatch.setattr("batchscape.cost.probe.Child", None)
    options = {"build": "mlp", "data": "digits", **options}
    with pytest.raises((InvalidInput, UserCodeError), match=message.replace(".", r"\.").replace("(", r"\(")):
        bs.probe_batch_sizes(options.pop("build"), options.pop("data"), show_progress=False, **options)


def test_a_build_function_that_raises_is_reported_as_that_and_not_as_want_of_memory():
    def build():
        raise RuntimeError("OOM when allocating tensor: out of memory")

    with pytest.raises(UserCodeError, match=r"raised RuntimeError: OOM when allocating"):
        bs.probe_batch_sizes(build, "digits", show_progress=False)


def test_a_build_function_that_ends_its_process_leaves_ours_alone():
    with pytest.raises(UserCodeError, match=r"the process died \(SIGABRT\)"):
        bs.probe_batch_sizes(lambda: os.abort(), "digits", show_progress=False)


class PickyWorker:
    """Stands for the process of a probe, whose model trains at multiples of four alone, and takes a millisecond each."""

    facts = {"forgets_peaks": True, "n_train": 64}  # noqa: RUF012 (as the process answers)
    bound, asked = 1 << 30, None

    def __init__(self, works):
        self.works, self.started = works, 0

    def start(self):
        self.started += 1

    def call(self, name, batch=0, seconds=0.0):
        if name == "evaluate":
            return 5_000_000
        if not self.works(batch):
            raise UserCodeError(f"Training net raised ValueError: {batch} is no multiple")
        if name == "time_updates":
            return 1e-3 * batch, math.nan
        return {"compile_seconds": 0.0, "seconds": 1e-3 * batch, "peak_bytes": 1000 * batch}


def climb(works, sizes=(1, 2, 4, 8, 10, 12)):
    worker = PickyWorker(works)
    return worker, probe._Climb(worker, list(sizes), lambda *_: None, stops=False)


def test_sizes_that_a_model_cannot_train_at_are_skipped_with_their_reason():
    worker, one = climb(lambda batch: batch % 4 == 0)
    found = one.run(repeats=2)
    outcomes = found.table.set_index("batch")["outcome"]
    assert [batch for batch, outcome in outcomes.items() if outcome == "measured"] == [4, 8, 12]
    assert outcomes[10] == "failed: Training net raised ValueError: 10 is no multiple"
    assert worker.started == 3
    assert found.about["evaluation_bytes"] == 5_000_000
    assert "with an evaluation, which a sweep makes between epochs, the process takes 5 MB" in found.to_text()


def test_a_model_that_cannot_train_at_all_ends_the_probe_with_its_error():
    with pytest.raises(UserCodeError, match="4 is no multiple"):
        climb(lambda batch: False)[1].run(repeats=1)
