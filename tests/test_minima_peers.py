"""The minima against PyTorch packages, whose answers `benchmarks/peers/minima_fixture.py` has stored, in float64."""

import pathlib

import keras
import numpy as np
import pytest

import batchscape as bs
from tests.toys import float64

pytestmark = pytest.mark.x64

FIXTURE = pathlib.Path(__file__).parent / "fixtures" / "minima_peers.npz"


@pytest.fixture(scope="module")
def stored():
    with np.load(FIXTURE) as file:
        return {name: file[name] for name in file.files}


@pytest.fixture(scope="module")
def objective(stored):
    dense = keras.layers.Dense
    model = float64(lambda: keras.Sequential([keras.Input((6,)), dense(5, "tanh"), dense(4, "tanh"), dense(3)]))
    return bs.Objective(model, stored["x"], stored["y"])


def weights(stored, name):
    return [stored[f"{name}_{i}"] for i in range(6)]


@pytest.mark.float64
def test_losses_between_two_solutions_are_those_of_loss_landscapes(stored, objective):
    alphas, losses = stored["loss_landscapes_alphas"], stored["loss_landscapes_losses"]
    assert alphas[0] > 0  # It never evaluates the first end.
    line = bs.interpolate(objective, weights(stored, "start"), weights(stored, "end"), alphas)
    np.testing.assert_allclose(line.loss, losses, rtol=1e-11)
    assert line.end_losses[1] == pytest.approx(losses[-1], rel=1e-11)
    assert objective(weights(stored, "end")) == pytest.approx(losses[-1], rel=1e-11)


@pytest.mark.float64
def test_the_five_largest_eigenvalues_are_those_of_curvlinops(stored, objective):
    found = bs.hessian_eigenvalues(objective, weights(stored, "end"), k=5, tolerance=1e-8)
    assert found.converged.all()
    np.testing.assert_allclose(found.values, stored["curvlinops_top"], rtol=1e-9)


def test_the_largest_eigenvalue_is_that_of_pyhessian_as_far_as_its_vectors_have_unit_length(stored, objective):
    """It divides by the norm plus 1e-6, twice, so that its eigenvalues are too small by some 1e-6."""
    found = bs.hessian_eigenvalues(objective, weights(stored, "end"), tolerance=1e-8)
    assert found.values[0] == pytest.approx(stored["pyhessian_top"].item(), rel=1e-5)
    assert found.values[0] > stored["pyhessian_top"]


@pytest.mark.float64
def test_the_trace_is_that_of_curvlinops(stored, objective):
    end, trace = weights(stored, "end"), float(stored["curvlinops_trace"])
    hessian = objective.hessian_products(end, np.eye(objective.n_parameters))
    assert np.trace(hessian) == pytest.approx(trace, rel=1e-11)
    for method in ("hutchinson", "hutch++"):
        found = bs.hessian_trace(objective, end, n_probes=60, method=method, seed=0)
        assert abs(found.mean - trace) < 4 * found.stderr
