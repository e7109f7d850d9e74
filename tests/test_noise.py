"""Gradients of examples and batches against loops in float64, closed forms and the laws they must obey."""

import itertools

import keras
import numpy as np
import pytest

import batchscape as bs
from batchscape.errors import InvalidInput
from batchscape.gradient import noise_scale, statistics
from batchscape.landscape import derivatives
from tests.toys import float64, tf

RNG = np.random.default_rng(0)
N = 40


def dense_net():
    return keras.Sequential([keras.Input((5,)), keras.layers.Dense(6, "tanh"), keras.layers.Dense(3)])


def conv_net():
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            layers.Conv2D(3, 3, activation="tanh"),
            layers.MaxPooling2D(),
            layers.BatchNormalization(),
            layers.Flatten(),
            layers.Dense(3),
        ]
    )


def conv_net_with_strides():
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((9, 8, 2)),
            layers.Conv2D(3, (3, 2), strides=2, padding="same", activation="tanh"),
            layers.Conv2D(4, 2, use_bias=False, activation="tanh"),
            layers.Flatten(),
            layers.Dense(3),
        ]
    )


def shared_net():
    shared, inputs = keras.layers.Dense(5, "tanh"), keras.Input((5,))
    return keras.Model(inputs, keras.layers.Dense(3)(shared(shared(inputs))))


def sequence_net():
    layers = keras.layers
    return keras.Sequential([keras.Input((4, 5)), layers.Dense(3, "tanh"), layers.GRU(3), layers.Dense(3)])


class Scale(keras.layers.Layer):
    """A weight that is used with a constant before it meets the data, and is as long as a small batch."""

    def build(self, shape):
        self.gain = self.add_weight(shape=(shape[-1],), initializer="ones")

    def call(self, inputs):
        return inputs * (1.0 + self.gain)


class ChannelsFirstBias(keras.layers.Layer):
    """A bias of channels that stand first."""

    def build(self, shape):
        self.bias = self.add_weight(shape=(shape[1],), initializer="ones")

    def call(self, inputs):
        return tf.nn.bias_add(inputs, self.bias, data_format="NCHW")


def scaled_net():
    return keras.Sequential([keras.Input((5,)), keras.layers.Dense(2), Scale(), keras.layers.Dense(3)])


def channels_first_net():
    layers = keras.layers
    return keras.Sequential([keras.Input((3, 4, 3)), ChannelsFirstBias(), layers.Flatten(), layers.Dense(3)])


NETS = {
    "a weight with a constant": (scaled_net, (N, 5)),
    "channels first": (channels_first_net, (N, 3, 4, 3)),
    "dense": (dense_net, (N, 5)),
    "convolution with BatchNorm": (conv_net, (N, 6, 6, 1)),
    "strided convolutions": (conv_net_with_strides, (N, 9, 8, 2)),
    "shared layer": (shared_net, (N, 5)),
    "sequences": (sequence_net, (N, 4, 5)),
}
BY_SLOPES = {"dense", "strided convolutions"}
"""Nets whose norms need no gradient of a single example."""


@pytest.fixture(
    params=[pytest.param(name, marks=pytest.mark.long if name == "sequences" else []) for name in NETS], scope="module"
)
def problem(request):
    """A model in float64, its data, the objective, and the gradients of all examples by a loop of tapes."""
    build, shape = NETS[request.param]
    model, x, y = float64(build), RNG.normal(size=shape).astype(np.float32), RNG.integers(0, 3, N)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, dtype="float64")
    rows = []
    for i in range(N):
        with tf.GradientTape() as tape:
            value = loss(y[i : i + 1], model(x[i : i + 1], training=False))
        gradients = tape.gradient(value, model.trainable_variables)
        rows.append(np.concatenate([np.ravel(gradient) for gradient in gradients]))
    f = bs.Objective(model, x, y, loss)
    return f, np.array(rows)


def test_statistics_match_a_loop_over_examples_whatever_the_block(problem, monkeypatch):
    f, rows = problem
    for block in (7, N):
        monkeypatch.setattr(derivatives, "BLOCK_BYTES", 8 * f.n_parameters * block)
        monkeypatch.setattr(f._derivatives, "_chunk", block)
        found = bs.gradient_statistics(f, f.weights)
        np.testing.assert_allclose(found.gradient, rows.mean(axis=0), atol=1e-12)
        np.testing.assert_allclose(found.norms, np.linalg.norm(rows, axis=1), rtol=1e-10)
        assert found.trace_cov == pytest.approx(np.trace(np.cov(rows.T, bias=True)), rel=1e-9)
        variances = [np.sum(part.var(axis=0)) for part in np.split(rows, _ends(f), axis=1)]
        np.testing.assert_allclose(found.layer_trace_covs, variances, atol=1e-12)
        assert found.layers == f.variable_names


@pytest.mark.parametrize("name", NETS)
def test_only_where_every_layer_is_known_are_norms_taken_from_slopes(name):
    build, shape = NETS[name]
    f = bs.Objective(float64(build), np.zeros((N, *shape[1:])), np.zeros(N, int))
    assert (f._derivatives._sizes_of_norms is not None) == (name in BY_SLOPES)


def _ends(f):
    return np.cumsum([part.size for part in f.split_by_variable(np.zeros(f.n_parameters))])[:-1]


def test_batch_gradients_are_means_of_their_examples_gradients(problem, monkeypatch):
    f, rows = problem
    monkeypatch.setattr(derivatives, "BLOCK_BYTES", 8 * f.n_parameters * 2)
    batches = RNG.integers(0, N, (5, 11))
    np.testing.assert_allclose(f.batch_gradients(f.weights, batches), rows[batches].mean(axis=1), atol=1e-12)
    found = bs.batch_gradients(f, f.weights, 11, n_batches=6, seed=4)
    drawn = np.random.default_rng(4)
    means = np.array([rows[drawn.choice(N, 11, replace=False)].mean(axis=0) for _ in range(6)])
    full = rows.mean(axis=0)
    np.testing.assert_allclose(found.relative_errors, np.sum((means - full) ** 2, axis=1) / np.sum(full**2), rtol=1e-9)
    cosines = means @ full / np.linalg.norm(means, axis=1) / np.linalg.norm(full)
    np.testing.assert_allclose(found.cosines, cosines, rtol=1e-9)
    between = [u @ v / np.linalg.norm(u) / np.linalg.norm(v) for u, v in itertools.pairwise(means)]
    np.testing.assert_allclose(np.cos(np.radians(found.angles)), between, atol=1e-9)


def test_the_model_is_left_as_it_was(problem):
    f, _ = problem
    before = f.weights
    moved = [weight + 1.0 for weight in before]
    bs.gradient_statistics(f, moved)
    bs.batch_gradients(f, moved, 3, n_batches=2)
    for a, b in zip(before, f.weights, strict=True):
        np.testing.assert_array_equal(a, b)


def linear_regression(n=2000, d=4, noise=0.5):
    """Y = x·w + ε with x and ε standard normal: at w + δ the gradient's mean and covariance are known."""
    x = RNG.normal(size=(n, d))
    w = np.arange(1.0, d + 1)
    y = x @ w + noise * RNG.normal(size=n)
    model = float64(lambda: keras.Sequential([keras.Input((d,)), keras.layers.Dense(1, use_bias=False)]))
    return bs.Objective(model, x, y[:, None], "mean_squared_error", metrics=()), w, noise


def test_noise_of_linear_regression_matches_its_closed_form():
    f, w, noise = linear_regression(n=20_000)
    delta = np.array([0.5, 0.0, -0.5, 1.0])
    found = bs.gradient_statistics(f, [(w + delta)[:, None]])
    # g = 2 x (x·δ − ε): E g = 2δ, E‖g‖² = 4 ((d + 2) ‖δ‖² + d σ²) for standard normal x.
    square = 4 * ((4 + 2) * delta @ delta + 4 * noise**2)
    expected = (square - 4 * delta @ delta) / (4 * delta @ delta)
    stderr = expected * 3 / np.sqrt(20_000)  # generous: fourth moments of a Gaussian
    assert found.simple == pytest.approx(expected, abs=5 * stderr)


def test_the_variance_of_a_batch_gradient_falls_as_one_over_the_batch_size():
    f, w, _ = linear_regression()
    weights = [(w + 0.3)[:, None]]
    exact = bs.gradient_statistics(f, weights)
    sizes = np.array([1, 4, 16, 64, 256])
    for replacement in (True, False):
        measured = [
            bs.batch_gradients(f, weights, size, n_batches=4000, replacement=replacement, statistics=exact)
            .relative_errors.mean()
            for size in sizes
        ]  # fmt: skip
        expected = [exact.relative_error(size, replacement=replacement) for size in sizes]
        np.testing.assert_allclose(measured, expected, rtol=0.1)  # 4,000 squared errors: 2 to 3 %
        if replacement:
            slope = np.polyfit(np.log(sizes), np.log(measured), 1)[0]
            assert slope == pytest.approx(-1, abs=0.02)


def test_a_batch_of_everything_is_the_full_gradient_and_all_orders_of_it_agree():
    f, w, _ = linear_regression(n=50)
    found = bs.batch_gradients(f, [w[:, None]], 50, n_batches=3)
    np.testing.assert_allclose(found.relative_errors, 0, atol=1e-20)
    np.testing.assert_allclose(found.cosines, 1)
    np.testing.assert_allclose(found.angles, 0, atol=1e-4)


def test_doubling_every_example_changes_neither_gradient_nor_noise():
    x, y = RNG.normal(size=(10, 5)), RNG.integers(0, 3, 10)
    model = float64(dense_net)
    once, twice = (
        bs.gradient_statistics(bs.Objective(model, np.tile(x, (k, 1)), np.tile(y, k)), model.get_weights())
        for k in (1, 2)
    )
    np.testing.assert_allclose(once.gradient, twice.gradient, atol=1e-12)
    assert once.simple == pytest.approx(twice.simple)


def test_competition_is_one_where_all_examples_agree_and_zero_where_they_cancel():
    model = float64(lambda: keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)]))
    x = np.ones((6, 1))
    agree = bs.Objective(model, x, np.full((6, 1), 5.0), "mean_squared_error", metrics=())
    found = bs.batch_gradients(agree, [np.zeros((1, 1))], 4, n_batches=3)
    np.testing.assert_allclose(found.competition, 1)
    cancel = bs.Objective(model, x[:2], np.array([[5.0], [-5.0]]), "mean_squared_error", metrics=())
    assert bs.batch_gradients(cancel, [np.zeros((1, 1))], 2, n_batches=1).competition[0] == pytest.approx(0)
    assert bs.gradient_statistics(cancel, [np.zeros((1, 1))]).simple == np.inf


def test_one_example_has_no_noise():
    f, w, _ = linear_regression(n=1)
    found = bs.gradient_statistics(f, [w[:, None] + 1])
    assert found.trace_cov == pytest.approx(0, abs=1e-9)
    assert found.variance(1) == pytest.approx(0, abs=1e-9)


def test_the_two_batch_estimate_is_unbiased_and_its_interval_covers():
    f, w, _ = linear_regression(n=500)
    weights = [(w + 0.4)[:, None]]
    exact = bs.gradient_statistics(f, weights)
    found = [bs.gradient_noise_scale(f, weights, small=8, big=128, n_pairs=30, seed=seed) for seed in range(60)]
    for name in ("trace_cov", "grad_sq_norm"):
        values = np.array([getattr(estimate, name) for estimate in found])
        stderr = values.std(ddof=1) / np.sqrt(len(values))
        assert abs(values.mean() - getattr(exact, name)) < 3.5 * stderr
    covered = np.mean([estimate.low <= exact.simple <= estimate.high for estimate in found])
    assert covered >= 0.85  # 95 % expected; 60 draws give it a standard error of 3 %


def test_the_two_batch_estimate_of_each_layer_is_that_of_all_gradients():
    x, y = RNG.normal(size=(N, 5)), RNG.integers(0, 3, N)
    f = bs.Objective(float64(dense_net), x, y)
    exact = bs.gradient_statistics(f, f.weights)
    found = bs.gradient_noise_scale(f, f.weights, small=10, big=N, n_pairs=600)
    assert list(found.by_layer) == list(exact.layers)
    np.testing.assert_allclose(
        list(found.by_layer.values()), exact.layer_trace_covs / exact.layer_grad_sq_norms, rtol=0.15
    )


def test_a_gradient_of_zero_gives_an_unbounded_interval_and_no_clamped_value():
    f, _, _ = linear_regression(n=500)
    model_optimum = np.linalg.lstsq(*_design(f), rcond=None)[0]
    found = [bs.gradient_noise_scale(f, [model_optimum], small=8, big=64, n_pairs=10, seed=seed) for seed in range(20)]
    assert any(estimate.simple < 0 for estimate in found)
    assert np.mean([np.isinf(estimate.high) for estimate in found]) > 0.8


def _design(f):
    x, y, _ = f._derivatives._examples
    return x.numpy(), y.numpy()


def test_a_ratio_that_may_be_zero_or_anything_has_no_bounds():
    rng = np.random.default_rng(3)
    shared = rng.normal(size=8)
    above, below = (0.3 + shared + 0.1 * rng.normal(size=8) for _ in range(2))
    assert noise_scale.ratio_interval(above, below)[0] == -np.inf


def test_ratio_intervals_are_fiellers():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        below = rng.normal(2.0, 1.0, 12)
        above = 3.0 * below + rng.normal(0.0, 1.0, 12)
        low, high = noise_scale.ratio_interval(above, below)
        covered += low <= 3.0 <= high
    assert covered / 400 == pytest.approx(0.95, abs=0.035)  # three standard errors
    assert noise_scale.ratio_interval([1.0], [1.0]) == pytest.approx((np.nan, np.nan), nan_ok=True)


def test_the_callback_follows_the_noise_scale_of_a_run(digits):
    model = bs.build_model("mlp", digits, seed=0)
    f = bs.Objective(model, digits.x_train, digits.y_train)
    follow = bs.NoiseScaleCallback(f, 32, small=8, big=128, cost=0.5)
    record = bs.fit_one(bs.Cell(batch_size=32, epochs=10, learning_rate=0.1, seed=0), callbacks=[follow])
    assert record.final["updates"] == 400
    assert len(follow.history) >= 5
    assert [row["updates"] for row in follow.history] == sorted({row["updates"] for row in follow.history})
    exact = bs.gradient_statistics(f, record.weights["final"])
    assert follow.history[-1]["trace_cov"] == pytest.approx(exact.trace_cov, rel=0.6)
    assert follow.history[-1]["grad_sq_norm"] < follow.history[0]["grad_sq_norm"] / 2  # the gradient fades


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f: bs.batch_gradients(f, f.weights, 0), "batch_size must be an integer in 1..50"),
        (lambda f: bs.batch_gradients(f, f.weights, 51), "Received: 51"),
        (lambda f: bs.batch_gradients(f, f.weights, 5, n_batches=0), "n_batches=0"),
        (lambda f: bs.gradient_noise_scale(f, f.weights, small=8, big=8), "small=8, big=8"),
        (lambda f: bs.gradient_noise_scale(f, f.weights, small=8, big=51), "big=51"),
        (lambda f: bs.gradient_noise_scale(f, f.weights, small=1, big=9, n_pairs=1), "n_pairs=1"),
        (lambda f: bs.gradient_statistics(f, [f.weights[0] * np.nan]), "finite gradients"),
        (lambda f: bs.gradient_statistics(f, f.weights[:0]), "Weights must have the shapes"),
        (lambda f: bs.gradient_noise_scale(f, f.weights, small=1.5, big=9), "integers 1 ≤ small < big ≤ 50"),
        (lambda f: bs.batch_gradients(f, f.weights, 5, n_batches=2.5), "n_batches=2.5"),
        (lambda f: bs.NoiseScaleCallback(f, 8, small=1, big=9, cost=0), "cost=0"),
        (lambda f: bs.NoiseScaleCallback(f, 0, small=1, big=9), "batch_size=0"),
    ],
)
def test_bad_input_is_one_clear_line(call, message):
    f, _, _ = linear_regression(n=50)
    with pytest.raises(InvalidInput, match=message):
        call(f)


def test_norms_in_half_precision_are_those_of_single_precision_up_to_its_rounding():
    found = []
    for precision in ("float32", "mixed_float16"):
        data = bs.load_dataset(((RNG.normal(size=(90, 300)) * 30, np.arange(90) % 3),) * 2)
        model = bs.build_model("mlp", data, seed=0, precision=precision)
        x = np.random.default_rng(1).normal(size=(N, 300)).astype(np.float32) * 30  # Σ x² is beyond half precision.
        f = bs.Objective(model, x, np.arange(N) % 3)
        found.append(bs.gradient_statistics(f, f.weights).norms)
    np.testing.assert_allclose(found[1], found[0], rtol=0.05, atol=1e-3)


def test_one_class_and_batch_norm_have_a_defined_noise():
    """One class is learnt at once: the noise scale exists. BatchNorm runs in inference mode, where examples are apart."""
    layers = keras.layers
    net = keras.Sequential([keras.Input((4,)), layers.Dense(3), layers.BatchNormalization(), layers.Dense(2)])
    x = RNG.normal(size=(30, 4)).astype(np.float32)
    f = bs.Objective(net, x, np.zeros(30, int))
    found = bs.gradient_statistics(f, f.weights)
    assert np.isfinite(found.simple)
    assert f.example_gradient_sums(f.weights)[0] / 30 == pytest.approx(f.gradient(f.weights), abs=1e-6)


def test_a_noise_share_is_the_textbook_formula_for_sampling_without_replacement():
    values = RNG.normal(size=12)
    means = [RNG.choice(values, 5, replace=False).mean() for _ in range(20_000)]
    expected = values.var() * statistics.noise_share(5, 12)
    assert np.var(means) == pytest.approx(expected, rel=0.05)
