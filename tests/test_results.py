"""Every result can be saved and read back: its numbers, its origin, its class; a damaged file is one line."""

import dataclasses
import math

import keras
import numpy as np
import pandas as pd
import pytest

import batchscape as bs
from batchscape.cost.advise import Advice, Noise, join
from batchscape.cost.limit import Limit
from batchscape.cost.line import fit_line
from batchscape.cost.result import Probe
from batchscape.errors import StoreError
from batchscape.gradient.critical_batch_size import CriticalBatchSize
from batchscape.gradient.noise_scale import NoiseScale
from batchscape.gradient.statistics import BatchGradients, GradientStatistics
from batchscape.landscape import load
from batchscape.landscape.hessian import Eigenvalues, TraceEstimate
from batchscape.landscape.line import Line
from batchscape.landscape.of_runs import ModelSharpness
from batchscape.landscape.plane import Plane
from batchscape.landscape.sharpness import Sharpness
from batchscape.landscape.spectrum import SpectralDensity
from batchscape.landscape.trajectory import Trajectory

ABOUT = {"data": "0123", "batch_norm": "keep", "seed": 3, "versions": {"keras": "3"}}
SOME, PAIR = np.array([0.1, np.inf, np.nan]), np.eye(2)


def probe():
    batches = np.array([1, 2, 4])
    table = pd.DataFrame({"batch": batches, "ms": [1.0, 1.5, np.nan], "outcome": ["measured", "measured", "failed: ü"]})
    table = table.assign(
        ms_low=1.0, ms_high=2.0, samples_per_second=batches / 3, epoch_seconds=1.0, peak_bytes=math.nan
    )
    about = {"n_train": 100, "model": "net", "data": "toy", "device": "CPU", "engine": "stock", "optimizer": "SGD"}
    about |= {"learning_rate": None, "was_compiled": True}
    two, three = fit_line(batches[:2], [1.0, 2.0]), fit_line(batches, [1.0, 1.9, 4.0], relative=True)
    return Probe(table, three, two, Limit(4, None, math.inf), 10**9, 0.0, "done", about)


def advice():
    places = ({"epoch": 0, "simple": 1 / 3, "low": -math.inf, "high": math.inf},)
    return join(probe(), Noise(1 / 3, 0.0, math.inf, places), 0.1, 0.4, ((0.01, 2.3), (0.1, math.nan), (1.0, math.inf)))


RESULTS = {
    "line": lambda: Line(SOME, SOME, SOME, (0.1, math.nan), 2.0, ABOUT),
    "plane": lambda: Plane(SOME, SOME[:2], PAIR, PAIR, (1.0, 2.0), 0.5, {"8": (0.0, 1.0)}, ABOUT),
    "trajectory": lambda: Trajectory(PAIR, (0.7, 0.2), ("a", "b"), (1, 1), PAIR, SOME[:2], SOME[:2], ABOUT),
    "eigenvalues": lambda: Eigenvalues(SOME[:2], PAIR, SOME[:2], np.array([True, False]), 7, ABOUT),
    "trace": lambda: TraceEstimate(1 / 3, math.nan, np.int64(5), ABOUT),
    "density": lambda: SpectralDensity(PAIR, PAIR, 2, ABOUT),
    "sharpness": lambda: Sharpness(SOME[:1], 0.3, "worst rise, ρ = 0.05", False, 3, ABOUT),
    "model": lambda: ModelSharpness(0.1, 1 / 3, math.inf, {"phi": math.nan}, ABOUT),
    "statistics": lambda: GradientStatistics(SOME, SOME, ("a/kernel",), SOME[:1], SOME[:1], ABOUT),
    "gradients": lambda: BatchGradients(np.int64(8), True, SOME, SOME, SOME[:2], SOME, SOME, ABOUT),
    "noise": lambda: NoiseScale(1 / 3, -math.inf, math.nan, 1.0, 2.0, 4, {"a/kernel": math.nan}, ABOUT),
    "critical": lambda: CriticalBatchSize(30.0, 20.0, math.nan, 1.0, 2.0, {8: 0.1, 16: math.nan}, (8,), 1, 3, ABOUT),
    "probe": probe,
    "advice": advice,
}


def saved(name, folder):
    return RESULTS[name]().save(folder / f"result.{'json' if name in ('probe', 'advice') else 'npz'}")


def equal(one, other):
    """Assert that two results are of one class and hold the same, NaN and infinity included."""
    assert type(one) is type(other)
    if isinstance(one, pd.DataFrame):
        pd.testing.assert_frame_equal(one, other)
    elif dataclasses.is_dataclass(one):
        for field in dataclasses.fields(one):
            equal(getattr(one, field.name), getattr(other, field.name))
    else:
        np.testing.assert_equal(one, other)


def test_every_class_of_results_is_here():
    assert {type(make()).__name__ for make in RESULTS.values()} == set(load.HOMES)


@pytest.mark.parametrize("name", RESULTS)
def test_a_result_comes_back_as_it_was_saved(tmp_path, name):
    result = RESULTS[name]()
    if name in ("trace", "gradients"):  # A number of NumPy comes back as Python's.
        field = "n_probes" if name == "trace" else "batch_size"
        result = dataclasses.replace(result, **{field: int(getattr(result, field))})
    file = saved(name, tmp_path)
    for back in (bs.load_result(file), type(result).load(file)):
        equal(back, result)
        assert back.about == result.about
        assert len(repr(back)) < 200


@pytest.mark.parametrize("name", RESULTS)
def test_a_damaged_file_of_a_result_is_one_line(tmp_path, name):
    file, result = saved(name, tmp_path), RESULTS[name]()
    whole = file.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"null", b'{"schema_version": 1}', None):
        file.unlink(missing_ok=True)
        if content is not None:
            file.write_bytes(content)
        for read in (bs.load_result, type(result).load):
            with pytest.raises(StoreError) as caught:
                read(file)
            assert "\n" not in str(caught.value)


def test_a_relative_file_is_read_where_it_was_written(tmp_path, monkeypatch):
    monkeypatch.setenv("BATCHSCAPE_HOME", str(tmp_path))
    assert probe().save("probe.json") == tmp_path / "probe.json"
    for read in (bs.load_result, Probe.load):
        equal(read("probe.json"), probe())


def test_a_file_of_another_class_is_refused(tmp_path):
    with pytest.raises(StoreError, match="must hold a result of the class Line"):
        Line.load(saved("plane", tmp_path))
    with pytest.raises(StoreError, match="must hold a result of the class Advice"):
        Advice.load(saved("probe", tmp_path))


def test_results_of_an_objective_say_where_they_come_from():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, "softmax")])
    x = np.random.default_rng(0).normal(size=(12, 2)).astype(np.float32)
    f = bs.Objective(model, x, np.arange(12) % 2, "sparse_categorical_crossentropy", batch_norm="keep")
    w = f.weights
    found = [
        bs.interpolate(f, w, w, [0.5]),
        bs.slice_along(f, w, np.ones(f.n_parameters), [0.5]),
        bs.hessian_eigenvalues(f, w, max_steps=1),
        bs.hessian_trace(f, w, n_probes=2),
        bs.spectral_density(f, w, n_vectors=1, steps=1),
        bs.rho_sharpness(f, w, kind="sam"),
        bs.keskar_sharpness(f, w, subspace=2, max_iterations=1),
        bs.gradient_statistics(f, w),
        bs.batch_gradients(f, w, 8, n_batches=2),
        bs.gradient_noise_scale(f, w, small=2, big=8, n_pairs=2),
    ]
    for result in found:
        assert result.about.items() >= f.about(w).items(), result
    assert f.about(w)["loss"] == "sparse_categorical_crossentropy"
    assert all("seed" in result.about for result in found[2:] if not isinstance(result, GradientStatistics))
