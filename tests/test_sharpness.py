"""Sharpness measures against closed forms, and the laws they keep or break."""

import keras
import numpy as np
import pytest
from keras import layers
from scipy import linalg, optimize

import batchscape as bs
from batchscape.errors import InvalidInput
from batchscape.landscape.hessian import hessian_eigenvalues, hessian_trace, hutchinson_trace, hutchpp_trace
from batchscape.landscape.sharpness import keskar_sharpness, rescale_relu, rho_sharpness
from batchscape.landscape.spectrum import lanczos_quadrature, spectral_density
from tests.toys import float64, probe

pytestmark = pytest.mark.x64

CURVATURES = np.array([8.0, 2.0, 0.5])


def bowl(**options):
    """½ Σ λᵢ wᵢ², with its minimum at zero."""
    return probe(lambda w: 0.5 * keras.ops.sum(keras.ops.convert_to_tensor(CURVATURES) * w * w), 3, **options)


def test_keskars_metric_of_a_bowl_is_that_of_a_corner_of_the_box():
    """At w = 0 the box is |y| ≤ ε, and a convex function is largest at a corner; beside it, at the farther corner."""
    f, epsilon = bowl(), 0.1
    found = keskar_sharpness(f, [np.zeros(3)], epsilon=epsilon, repeats=3)
    np.testing.assert_allclose(found.values, 100 * 0.5 * CURVATURES.sum() * epsilon**2, rtol=1e-9)
    assert found.converged
    w = np.array([0.5, -1.0, 2.0])
    corner = np.abs(w) + epsilon * (np.abs(w) + 1)
    start = 0.5 * np.sum(CURVATURES * w**2)
    exact = 100 * (0.5 * np.sum(CURVATURES * corner**2) - start) / (1 + start)
    assert keskar_sharpness(f, [w], epsilon=epsilon).value == pytest.approx(exact, rel=1e-9)


def test_keskars_metric_in_a_subspace_matches_a_search_by_another_method():
    f, epsilon, w = bowl(), 0.1, np.array([0.5, -1.0, 2.0])
    found = keskar_sharpness(f, [w], epsilon=epsilon, subspace=2, repeats=2, seed=4)
    for repeat in range(2):
        basis = np.random.default_rng([4, repeat]).standard_normal((3, 2), np.float32).astype(np.float64)
        box = epsilon * (np.abs(np.linalg.pinv(basis) @ w) + 1)
        corners = [w + basis @ (box * signs) for signs in ([1, 1], [1, -1], [-1, 1], [-1, -1])]
        start = 0.5 * np.sum(CURVATURES * w**2)
        exact = max(100 * (0.5 * np.sum(CURVATURES * corner**2) - start) / (1 + start) for corner in corners)
        assert found.values[repeat] <= exact * (1 + 1e-6)
        assert found.values[repeat] >= 0.3 * exact  # A corner, if not the farthest: the search is local.


def test_the_worst_case_of_a_bowl_is_half_lambda_rho_squared():
    f, w, rho = bowl(), np.full(3, 1e-6), 0.1
    found = rho_sharpness(f, [w], rho=rho)
    assert found.value == pytest.approx(0.5 * CURVATURES[0] * rho**2, rel=1e-3)
    assert found.converged


def test_the_worst_case_beside_the_minimum_solves_the_trust_region_problem():
    f, w, rho = bowl(), np.array([0.3, -0.4, 1.0]), 0.2
    found = rho_sharpness(f, [w], rho=rho, steps=200)
    ball = {"type": "ineq", "fun": lambda d: rho**2 - d @ d}
    best = min(
        optimize.minimize(
            lambda d: -0.5 * np.sum(CURVATURES * (w + d) ** 2), start, constraints=[ball], method="SLSQP"
        ).fun
        for start in 0.1 * np.random.default_rng(0).normal(size=(4, 3))
    )
    assert found.value == pytest.approx(-best - 0.5 * np.sum(CURVATURES * w**2), rel=1e-3)


def test_the_step_of_sam_is_along_the_gradient():
    f, w, rho = bowl(), np.array([0.3, -0.4, 1.0]), 0.2
    gradient = CURVATURES * w
    there = w + rho * gradient / np.linalg.norm(gradient)
    exact = 0.5 * np.sum(CURVATURES * (there**2 - w**2))
    assert rho_sharpness(f, [w], rho=rho, kind="sam").value == pytest.approx(exact, rel=1e-9)
    scale = np.abs(w) + 0.01
    there = w + rho * scale**2 * gradient / np.linalg.norm(scale * gradient)
    exact = 0.5 * np.sum(CURVATURES * (there**2 - w**2))
    found = rho_sharpness(f, [w], rho=rho, kind="sam", adaptive=True, eta=0.01)
    assert found.value == pytest.approx(exact, rel=1e-9)


def test_the_average_case_of_a_bowl_is_half_its_trace():
    f, w, rho = bowl(), np.array([0.3, -0.4, 1.0]), 0.2
    for adaptive, scale in ((False, np.ones(3)), (True, np.abs(w))):
        found = rho_sharpness(f, [w], rho=rho, kind="average", adaptive=adaptive, repeats=2000)
        exact = 0.5 * rho**2 * np.sum(CURVATURES * scale**2)
        assert abs(found.value - exact) < 4 * found.spread / np.sqrt(2000)


def test_subsets_of_all_examples_are_all_examples(digits):
    f = bs.Objective(bs.build_model("mlp", digits, seed=0), digits.x_val, digits.y_val)
    whole = rho_sharpness(f, f.weights, steps=5)
    parts = rho_sharpness(f, f.weights, steps=5, examples=f.n_examples, repeats=2)
    np.testing.assert_allclose(parts.values, whole.value, rtol=1e-4)
    some = rho_sharpness(f, f.weights, steps=5, examples=16, repeats=8)
    assert some.value > whole.value  # A maximum for each subset is at least as large as one for all.


@pytest.fixture(scope="module")
def relu_net():
    def build():
        hidden = [layers.Dense(6, "relu", bias_initializer="normal"), layers.Dense(5, "relu")]
        return keras.Sequential([keras.Input((4,)), *hidden, layers.Dense(3)])

    model = float64(build)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(50, 4)).astype(np.float32).astype(np.float64), np.arange(50) % 3
    model.compile(
        keras.optimizers.Adam(0.05), keras.losses.SparseCategoricalCrossentropy(from_logits=True, dtype="float64")
    )
    model.fit(x, y, epochs=60, verbose=0)
    return bs.Objective(model, x, y)


@pytest.mark.parametrize("alpha", [0.1, 10.0])
def test_a_rescaling_moves_plain_sharpness_and_leaves_the_adaptive_one(relu_net, alpha):
    f, weights = relu_net, relu_net.weights
    rescaled = rescale_relu(f, weights, alpha)
    assert f(rescaled) == pytest.approx(f(weights), rel=1e-12)
    sharp = {
        name: [rho_sharpness(f, w, steps=400, rho=0.1, adaptive=name == "adaptive").value for w in (weights, rescaled)]
        for name in ("plain", "adaptive")
    }
    assert abs(np.log(sharp["plain"][1] / sharp["plain"][0])) > np.log(1.5)
    assert sharp["adaptive"][1] == pytest.approx(sharp["adaptive"][0], rel=1e-3)
    eigenvalues = [hessian_eigenvalues(f, w).values[0] for w in (weights, rescaled)]
    assert abs(np.log(eigenvalues[1] / eigenvalues[0])) > np.log(1.5)


def test_a_rescaling_of_a_net_that_it_changes_is_refused():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(6, "tanh"), layers.Dense(3)])
    f = bs.Objective(model, np.ones((6, 4), np.float32), np.arange(6) % 3)
    with pytest.raises(InvalidInput, match="ReLU"):
        rescale_relu(f, f.weights, 5.0)
    with pytest.raises(InvalidInput, match="layer"):
        rescale_relu(f, f.weights, 5.0, layer=1)


@pytest.mark.parametrize(
    ("measure", "options", "message"),
    [
        (keskar_sharpness, {"epsilon": 0}, "epsilon"),
        (keskar_sharpness, {"subspace": 4}, "in 1..3"),
        (keskar_sharpness, {"repeats": 0}, "repeats"),
        (rho_sharpness, {"rho": -1}, "rho"),
        (rho_sharpness, {"kind": "wurst"}, "worst"),
        (rho_sharpness, {"examples": 2}, "in 1..1"),
    ],
)
def test_options_that_make_no_sense_are_refused(measure, options, message):
    with pytest.raises(InvalidInput, match=message):
        measure(bowl(), [np.ones(3)], **options)


def test_weights_whose_loss_is_no_number_are_refused():
    for measure in (keskar_sharpness, rho_sharpness):
        with pytest.raises(InvalidInput, match="finite loss"):
            measure(bowl(), [np.array([np.nan, 0, 0])])


def test_the_loss_and_its_gradient_on_some_rows_are_those_of_these_rows(relu_net):
    f, rows = relu_net, np.array([3, 1, 4, 15])
    x, y, _ = map(np.asarray, f._derivatives._examples)
    part = bs.Objective(f._model, x[rows], y[rows])
    loss, gradient = f.value_and_gradient(f.weights, rows)
    assert loss == pytest.approx(part(f.weights), rel=1e-12)
    np.testing.assert_allclose(gradient, part.gradient(f.weights), atol=1e-14)


def test_sample_weights_count_as_in_keras(relu_net):
    model = relu_net._model
    x, y, _ = map(np.asarray, relu_net._derivatives._examples)
    counts = np.random.default_rng(1).uniform(0, 3, len(y))
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True, dtype="float64"))
    expected = model.evaluate(x, y, sample_weight=counts, batch_size=50, verbose=0)
    f = bs.Objective(model, x, y, sample_weight=counts, batch_size=7)
    assert f(f.weights) == pytest.approx(expected, rel=1e-6)
    each, squares = f.example_gradient_sums(f.weights)
    np.testing.assert_allclose(each / len(y), f.gradient(f.weights), atol=1e-12)
    loop = bs.Objective(model, x[:1], y[:1], sample_weight=counts[:1]).gradient(f.weights)
    assert squares[0].sum() == pytest.approx(loop @ loop, rel=1e-5)
    with pytest.raises(InvalidInput, match="sample_weight"):
        bs.Objective(model, x, y, sample_weight=-counts)


def test_the_terms_of_regularisers_are_in_or_out():
    l2 = keras.regularizers.L2(0.1)
    model = float64(lambda: keras.Sequential([keras.Input((4,)), layers.Dense(3, kernel_regularizer=l2)]))
    x, y = np.random.default_rng(0).normal(size=(21, 4)), np.arange(21) % 3
    without, with_them = (bs.Objective(model, x, y, regularizers=on, batch_size=5) for on in (False, True))
    weights = without.weights
    penalty = 0.1 * np.sum(weights[0] ** 2)
    assert with_them(weights) - without(weights) == pytest.approx(penalty, rel=1e-7)  # Keras keeps the 0.1 in float32.
    difference = with_them.gradient(weights) - without.gradient(weights)
    np.testing.assert_allclose(difference, with_them.flatten([0.2 * weights[0], 0 * weights[1]]), atol=1e-7)
    total, squares = with_them.example_gradient_sums(weights)
    np.testing.assert_allclose(total / 21, with_them.gradient(weights), atol=1e-12)
    assert squares.shape == (21, 2)


def test_a_loss_with_regularisers_is_what_evaluate_gives(digits):
    stack = [
        layers.Flatten(),
        layers.Dense(10, kernel_regularizer="l2", activity_regularizer=keras.regularizers.L1(0.01)),
    ]
    model = keras.Sequential([keras.Input(digits.x_val.shape[1:]), *stack])
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    f = bs.Objective(model, digits.x_val, digits.y_val, regularizers=True)
    expected = model.evaluate(digits.x_val, digits.y_val, batch_size=len(digits.y_val), verbose=0)
    assert f(f.weights) == pytest.approx(expected, rel=1e-5)


def dense_hessian(f):
    return f.hessian_products(f.weights, np.eye(f.n_parameters))


def small_net():
    model = float64(lambda: keras.Sequential([keras.Input((3,)), layers.Dense(4, "tanh"), layers.Dense(3)]))
    x, y = np.random.default_rng(0).normal(size=(30, 3)).astype(np.float32), np.arange(30) % 3
    return bs.Objective(model, x.astype(np.float64), y)


def test_bottom_eigenvalues_and_blocks_match_the_dense_hessian():
    f = small_net()
    hessian = dense_hessian(f)
    bottom = hessian_eigenvalues(f, f.weights, k=3, which="bottom", tolerance=1e-9)
    np.testing.assert_allclose(bottom.values, linalg.eigvalsh(hessian)[:3], atol=1e-7)
    np.testing.assert_allclose(hessian @ bottom.vectors.T, bottom.vectors.T * bottom.values, atol=1e-6)
    name = f.variable_names[2]
    start, size = 16, 12  # After a kernel of 3 × 4 and a bias of 4.
    block = hessian[start : start + size, start : start + size]
    top = hessian_eigenvalues(f, f.weights, k=2, block=name, tolerance=1e-9)
    np.testing.assert_allclose(top.values, linalg.eigvalsh(block)[::-1][:2], atol=1e-7)
    assert not top.vectors[:, :start].any()
    found = hessian_trace(f, f.weights, block=name, n_probes=4000)
    assert abs(found.mean - np.trace(block)) < 4 * found.stderr
    layer = hessian_trace(f, f.weights, block=name.split("/")[0], n_probes=8)
    assert np.isfinite(layer.mean)
    with pytest.raises(InvalidInput, match="block"):
        hessian_trace(f, f.weights, block="nowhere")


def test_hutchpp_is_exact_on_what_it_sketches_and_unbiased_beyond():
    rng = np.random.default_rng(0)
    vectors = linalg.qr(rng.normal(size=(60, 60)))[0]
    low_rank = vectors[:, :5] @ np.diag([50.0, 30, 20, 10, 5]) @ vectors[:, :5].T
    found = hutchpp_trace(lambda z: z @ low_rank, 60, n_probes=30)
    assert found.mean == pytest.approx(115, rel=1e-9)
    matrix = vectors @ np.diag(1 / np.arange(1, 61) ** 2) @ vectors.T
    exact = np.trace(matrix)
    estimates = [hutchpp_trace(lambda z: z @ matrix, 60, n_probes=30, seed=seed) for seed in range(200)]
    errors = np.array([estimate.mean - exact for estimate in estimates])
    assert abs(errors.mean()) < 4 * errors.std() / np.sqrt(200)
    plain = [hutchinson_trace(lambda z: z @ matrix, 60, n_probes=30, seed=seed).mean - exact for seed in range(200)]
    assert errors.std() < 0.5 * np.std(plain)
    ratio = np.mean([estimate.stderr for estimate in estimates]) / errors.std()
    assert 0.7 < ratio < 1.4  # The standard error is the spread of the estimates.


def test_the_density_at_full_order_has_the_moments_of_the_spectrum():
    f = small_net()
    values = linalg.eigvalsh(dense_hessian(f))
    found = spectral_density(f, f.weights, n_vectors=400, steps=f.n_parameters)
    for function in (np.ones_like, np.square, lambda v: np.exp(v)):
        mean, stderr = found.mean_of(function)
        assert abs(mean - function(values).mean()) <= 4 * stderr + 1e-9
    assert found.nodes.max() == pytest.approx(values[-1], rel=1e-6)
    apart = np.flatnonzero(np.diff(values) > 1e-4 * values[-1])
    counts = len(values) - 1 - apart
    errors = found.n_above((values[apart] + values[apart + 1]) / 2) - counts
    assert (np.abs(errors) <= 4 * np.sqrt(2 * counts / 400)).all()
    grid = np.linspace(values[0] - 1, values[-1] + 1, 2000)
    assert np.trapezoid(found.density(grid, 0.05), grid) == pytest.approx(1, abs=1e-3)


def test_quadrature_is_exact_for_polynomials_and_survives_an_invariant_subspace():
    diagonal = np.array([1.0, 2, 3, 4, 5, 6])
    nodes, weights = lanczos_quadrature(lambda z: z * diagonal, 6, n_vectors=3, steps=3)
    for power in range(6):  # Of a degree up to 2 · 3 − 1.
        np.testing.assert_allclose(np.sum(weights * nodes**power, axis=1), np.mean(diagonal**power), rtol=1e-9)
    nodes, weights = lanczos_quadrature(lambda z: 2 * z, 6, n_vectors=2, steps=4)
    np.testing.assert_allclose(np.sum(weights * nodes, axis=1), 2, rtol=1e-9)
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-9)
