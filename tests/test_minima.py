"""The minima against dense oracles in float64: values, gradients, Hessians, eigenvalues, traces and lines."""

import keras
import numpy as np
import pytest
from scipy import linalg, special

import batchscape as bs
from batchscape.errors import InvalidInput
from batchscape.landscape import derivatives
from batchscape.landscape.hessian import hessian_eigenvalues, hessian_trace, hutchinson_trace, lanczos
from batchscape.landscape.line import interpolate
from batchscape.landscape.objective import Objective
from tests.toys import OneDense, float64, probe

pytestmark = pytest.mark.x64

RNG = np.random.default_rng(0)
X = RNG.normal(size=(37, 3)).astype(np.float32).astype(np.float64)  # keras.Input would round it to float32
Y = (np.arange(37) % 3).astype(np.int32)


def softmax_regression():
    return float64(lambda: keras.Sequential([keras.Input((3,)), keras.layers.Dense(3)]))


def small_mlp(activation="tanh"):
    layers = keras.layers
    return float64(lambda: keras.Sequential([keras.Input((3,)), layers.Dense(5, activation), layers.Dense(3)]))


def softmax_hessian(kernel, bias):
    """The dense Hessian of softmax regression: mean over samples of (diag(p) − ppᵀ) ⊗ zzᵀ with z = (x, 1), by hand."""
    z = np.hstack([X, np.ones((len(X), 1))])
    p = special.softmax(X @ kernel + bias, axis=1)
    blocks = np.einsum("ni,ij->nij", p, np.eye(3)) - np.einsum("ni,nj->nij", p, p)
    full = np.einsum("na,nb,nij->aibj", z, z, blocks) / len(X)  # Axes: input a, class i, input b, class j.
    return full.reshape(12, 12)  # Row-major (input, class): the kernel of Dense, then its bias.


def dense_hessian(f, weights):
    """Central differences of the gradient, in float64."""
    flat, step = f.flatten(weights), 1e-5
    columns = []
    for direction in np.eye(len(flat)):
        up, down = (f.gradient(f.unflatten(flat + sign * step * direction, weights)) for sign in (1, -1))
        columns.append((up - down) / (2 * step))
    return np.array(columns)


def test_loss_gradient_and_hessian_of_softmax_regression_match_the_closed_form():
    model = softmax_regression()
    f = Objective(model, X, Y)
    kernel, bias = weights = model.get_weights()
    p = special.softmax(X @ kernel + bias, axis=1)
    assert f(weights) == pytest.approx(-np.log(p[np.arange(37), Y]).mean(), rel=1e-12)
    assert f.evaluate(weights)["accuracy"] == pytest.approx((p.argmax(axis=1) == Y).mean())
    error = (p - np.eye(3)[Y]) / len(X)
    gradient = np.concatenate([(X.T @ error).ravel(), error.sum(axis=0)])
    np.testing.assert_allclose(f.gradient(weights), gradient, atol=1e-12)
    hessian = softmax_hessian(kernel, bias)
    np.testing.assert_allclose(f.hessian_products(weights, np.eye(12)), hessian, atol=1e-12)
    values = linalg.eigvalsh(hessian)[::-1]
    top = hessian_eigenvalues(f, weights, k=4, tolerance=1e-8)
    np.testing.assert_allclose(top.values, values[:4], rtol=1e-7)
    assert top.converged.all()


@pytest.mark.float64
def test_hessian_products_of_an_mlp_match_a_dense_hessian():
    model = small_mlp()
    f = Objective(model, X, Y)
    weights = model.get_weights()
    hessian = dense_hessian(f, weights)
    vectors = RNG.normal(size=(11, f.n_parameters))
    np.testing.assert_allclose(f.hessian_products(weights, vectors), vectors @ hessian, atol=1e-8)
    top = hessian_eigenvalues(f, weights, k=3, tolerance=1e-8)
    np.testing.assert_allclose(top.values, linalg.eigvalsh(hessian)[::-1][:3], rtol=1e-6)
    exact = hessian_trace(f, weights, n_probes=4000, seed=1)
    assert abs(exact.mean - np.trace(hessian)) < 4 * exact.stderr


@pytest.mark.parametrize("batch_size", [1, 5, 36, 37, 1000])
def test_nothing_depends_on_the_evaluation_batch(batch_size):
    model = small_mlp(keras.ops.square)  # In float64 on JAX too, where tanh is computed in float32.
    weights, vector = model.get_weights(), RNG.normal(size=(1, 38))
    whole, parts = Objective(model, X, Y), Objective(model, X, Y, batch_size=batch_size)
    assert parts.evaluate(weights) == pytest.approx(whole.evaluate(weights), rel=1e-12)
    np.testing.assert_allclose(parts.gradient(weights), whole.gradient(weights), atol=1e-13)
    np.testing.assert_allclose(
        parts.hessian_products(weights, vector), whole.hessian_products(weights, vector), atol=1e-12
    )


def test_the_model_is_never_touched_not_even_by_an_exception():
    layers = keras.layers
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((3,)), layers.Dense(5), layers.BatchNormalization(), layers.Dropout(0.5), layers.Dense(3)]
    )
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    model.fit(X, Y, epochs=1, verbose=0)
    before = [variable.numpy() for variable in [*model.variables, *model.optimizer.variables, *model.metrics_variables]]
    f = Objective(model, X, Y)
    other = [weight + 1 for weight in model.get_weights()]
    f.evaluate(other)
    f.gradient(other)
    f.hessian_products(other, np.ones((2, f.n_parameters)))
    with pytest.raises(InvalidInput, match="Weights must have the shapes"):
        f.evaluate(other[:-1])
    with pytest.raises(InvalidInput, match="Vectors must have shape"):
        f.hessian_products(other, np.ones((2, 3)))
    after = [variable.numpy() for variable in [*model.variables, *model.optimizer.variables, *model.metrics_variables]]
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_batchnorm_net_is_evaluated_with_the_moments_among_its_weights():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((3,)), keras.layers.BatchNormalization(), keras.layers.Dense(3)])
    weights = [weight + 0.5 for weight in model.get_weights()]
    f = Objective(model, X, Y)
    at_weights = f(weights)
    model.set_weights(weights)
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    assert at_weights == pytest.approx(model.evaluate(X, Y, verbose=0), rel=1e-6)


def test_several_inputs_are_one_tree():
    a, b = keras.Input((2,), name="a"), keras.Input((1,), name="b")
    model = keras.Model({"a": a, "b": b}, keras.layers.Dense(3)(keras.layers.Concatenate()([a, b])))
    one = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3)])
    one.set_weights(model.get_weights())
    several = Objective(model, {"a": X[:, :2].astype("f4"), "b": X[:, 2:].astype("f4")}, Y)
    assert several(several.weights) == pytest.approx(Objective(one, X.astype("f4"), Y)(one.get_weights()), rel=1e-6)


def test_an_embedding_and_a_recurrent_net_have_finite_hessian_products():
    layers = keras.layers
    tokens = RNG.integers(0, 9, (20, 6)).astype(np.int32)
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((6,), dtype="int32"), layers.Embedding(9, 4), layers.SimpleRNN(5), layers.Dense(3)]
    )
    f = Objective(model, tokens, Y[:20])
    assert np.isfinite(f.hessian_products(f.weights, RNG.normal(size=(2, f.n_parameters)))).all()


@pytest.mark.float64
def test_a_convolution_with_pooling_matches_differences_of_its_gradient():
    layers = keras.layers
    images = RNG.normal(size=(12, 6, 6, 1)).astype(np.float32)
    model = float64(
        lambda: keras.Sequential(
            [
                keras.Input((6, 6, 1)),
                layers.Conv2D(2, 3, activation="tanh"),
                layers.MaxPooling2D(),
                layers.Flatten(),
                layers.Dense(3),
            ]
        )
    )
    f = Objective(model, images, Y[:12])
    np.testing.assert_allclose(
        f.hessian_products(f.weights, np.eye(f.n_parameters)), dense_hessian(f, f.weights), atol=1e-7
    )


@pytest.mark.float64
@pytest.mark.parametrize("jit", [True, False])
def test_pooling_has_exact_second_derivatives_in_float32_too(jit):
    """XLA computes them in bfloat16, 2 % off, so it must not be used there."""
    layers = keras.layers
    images, labels = RNG.normal(size=(24, 8, 8, 1)).astype(np.float32), np.arange(24) % 3

    def build():
        pooled = [layers.Conv2D(4, 3), layers.ReLU(), layers.MaxPooling2D(), layers.Flatten(), layers.Dense(3)]
        return keras.Sequential([keras.Input((8, 8, 1)), *pooled])

    single, double = build(), float64(build)
    weights = double.get_weights()
    vectors = RNG.normal(size=(2, double.count_params()))
    products = []
    for model in (single, double):
        model.set_weights(weights)
        f = Objective(model, images, labels)
        f._derivatives = derivatives.derivatives(model, images, labels, f._loss, chunk=10, jit=jit)
        products.append(f.hessian_products(model.get_weights(), vectors))
    np.testing.assert_allclose(*products, rtol=1e-4, atol=1e-5 * np.abs(products[1]).max())


def test_nan_and_infinite_losses_stay_visible():
    model = softmax_regression()
    f = Objective(model, X, Y)
    kernel, bias = model.get_weights()
    assert np.isnan(f([kernel * np.nan, bias]))
    line = interpolate(f, [kernel, bias], [kernel * np.nan, bias], [0.0, 0.5])
    assert np.isfinite(line.loss[0])
    assert np.isnan(line.loss[1])
    with pytest.raises(InvalidInput, match="finite weights"):
        hessian_eigenvalues(f, [kernel * np.nan, bias])


def diagonal(values):
    return lambda vectors: vectors * np.asarray(values)


@pytest.mark.parametrize("n", [1, 2, 30, 400])
def test_lanczos_finds_the_top_of_a_known_spectrum(n):
    values = np.concatenate([[-50.0], np.linspace(-1, 10, n - 1)])[:n]
    k = min(3, n)
    top = lanczos(diagonal(values), n, k=k, tolerance=1e-7)
    np.testing.assert_allclose(top.values, np.sort(values)[::-1][:k], atol=1e-5)
    assert top.converged.all()
    np.testing.assert_allclose(top.vectors @ top.vectors.T, np.eye(k), atol=1e-6)


@pytest.mark.parametrize("noise", [0.0, 1e-7, 1e-3], ids=["exact", "float32", "coarse"])
def test_the_residuals_of_lanczos_bound_the_true_ones_closely_however_rough_the_products(noise):
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(60, 60))
    matrix = matrix + matrix.T
    rough = matrix + noise * rng.normal(size=(60, 60))  # Not quite symmetric, as rounded products are.
    calls = []

    def products(vectors):
        calls.append(len(vectors))
        return vectors @ rough.T

    found = lanczos(products, 60, k=4, tolerance=1e-3, max_steps=40)
    true = np.linalg.norm(found.vectors @ rough.T - found.values[:, None] * found.vectors, axis=1)
    assert (true <= found.residuals * (1 + 1e-9)).all()
    assert (found.residuals <= true + 60 * noise + 1e-12).all()
    assert found.n_products == sum(calls)


def test_lanczos_survives_an_invariant_subspace_and_finds_multiple_eigenvalues():
    top = lanczos(diagonal([2.0, 2.0, 2.0, 1.0]), 4, k=4, tolerance=1e-10)
    np.testing.assert_allclose(top.values, [2, 2, 2, 1], atol=1e-8)
    zero = lanczos(diagonal(np.zeros(5)), 5, k=2)
    np.testing.assert_allclose(zero.values, 0, atol=1e-12)


def test_lanczos_says_when_it_has_not_converged():
    top = lanczos(diagonal(np.linspace(0.99, 1, 500)), 500, k=3, tolerance=1e-9, max_steps=5)
    assert not top.converged.all()
    assert "NOT converged" in repr(top)


def test_the_trace_covers_the_truth_as_often_as_its_error_says():
    matrix = RNG.normal(size=(40, 40))
    matrix = matrix + matrix.T
    estimates = [hutchinson_trace(lambda z: z @ matrix, 40, n_probes=60, seed=seed) for seed in range(200)]
    scores = np.array([(estimate.mean - np.trace(matrix)) / estimate.stderr for estimate in estimates])
    assert abs(scores.mean()) < 4 / np.sqrt(200)  # Unbiased, within four standard errors of 200 scores.
    assert 0.8 < scores.std() < 1.25


@pytest.mark.parametrize(("call", "message"), [({"k": 0}, "k must be"), ({"k": 99}, "in 1..12")])
def test_a_number_of_eigenvalues_that_cannot_be_is_refused(call, message):
    f = Objective(softmax_regression(), X, Y)
    with pytest.raises(InvalidInput, match=message):
        hessian_eigenvalues(f, f.weights, **call)


def test_as_many_eigenvalues_come_back_as_were_asked_for():
    found = lanczos(diagonal(np.arange(20.0)), 20, k=5, max_steps=3)
    assert found.values.shape == found.converged.shape == (5,)
    assert not found.converged.all()


def test_two_probes_are_the_fewest():
    with pytest.raises(InvalidInput, match="n_probes=1"):
        hutchinson_trace(diagonal([1.0]), 1, n_probes=1)


@pytest.mark.parametrize("alphas", [[-1, 0, 0.25, 1, 2], [2, 1, 0], [0.0], np.linspace(0, 1, 7)])
def test_a_line_visits_exactly_the_positions_asked_for(alphas):
    a, b = [np.array([1.0, 10.0])], [np.array([3.0, 20.0])]
    line = interpolate(probe(lambda w: w[0]), a, b, alphas)
    np.testing.assert_allclose(line.loss, 1 + 2 * np.asarray(alphas), atol=1e-12)
    assert np.isnan(line.accuracy).all()
    assert line.end_losses == (1.0, 3.0)
    assert line.distance == pytest.approx(np.hypot(2, 10))
    between = any(0 < alpha < 1 for alpha in alphas)
    assert line.barrier == pytest.approx(0 if between else np.nan, nan_ok=True)


def test_the_barrier_is_the_height_above_the_chord():
    hill = probe(lambda w: 1 + w[0] + keras.ops.sin(np.pi * w[0]))
    line = interpolate(hill, [np.array([0.0, 0])], [np.array([1.0, 0])], np.linspace(-1, 2, 301))
    assert line.barrier == pytest.approx(1, abs=1e-6)


def test_the_ends_of_a_line_are_what_evaluate_gives(digits):
    models = [bs.build_model("mlp", digits, seed=seed).get_weights() for seed in (0, 1)]
    model = bs.build_model("mlp", digits)
    f = Objective(model, digits.x_test, digits.y_test)
    line = interpolate(f, *models, [0, 1])
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    for i, weights in enumerate(models):
        model.set_weights(weights)
        loss, accuracy = model.evaluate(digits.x_test, digits.y_test, verbose=0)
        assert line.loss[i] == pytest.approx(loss, rel=1e-5)
        assert line.accuracy[i] == pytest.approx(accuracy, abs=1e-6)


@pytest.mark.parametrize("alphas", [[], [np.nan], [0, np.inf]])
def test_positions_that_are_no_numbers_are_refused(alphas):
    with pytest.raises(InvalidInput, match="alphas must be"):
        interpolate(probe(lambda w: w[0]), [np.zeros(2)], [np.ones(2)], alphas)


def test_an_objective_needs_a_built_model():
    with pytest.raises(InvalidInput, match="built"):
        Objective(keras.Sequential([keras.layers.Dense(3)]), X, Y)


def test_a_model_whose_call_takes_no_training_argument_is_measured_all_the_same(blobs):
    data = bs.load_dataset(blobs)
    model = bs.build_model(OneDense, data, seed=0)
    f = Objective(model, data.x_train, data.y_train, "sparse_categorical_crossentropy")
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    assert f(f.weights) == pytest.approx(model.evaluate(data.x_train, data.y_train, verbose=0), rel=1e-6)
    assert hessian_eigenvalues(f, f.weights).converged.all()
    record = bs.fit_one(bs.Cell(batch_size=9, epochs=1), build=OneDense, data=data)
    assert record.status == "COMPLETE"
