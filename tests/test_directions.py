"""Directions: the norms that each normalisation promises, for every kind of layer."""

import keras
import numpy as np
import pytest
from keras import layers

import batchscape as bs
from batchscape.errors import InvalidInput, unknown_name
from batchscape.landscape.directions import cosines, difference_directions, normalize_directions, random_directions

pytestmark = pytest.mark.x64

NETS = {
    "dense": ([keras.Input((3,)), layers.Dense(5), layers.Dense(2)], {"kernel": (0,)}),
    "conv": ([keras.Input((6, 6, 2)), layers.Conv2D(3, 2), layers.Flatten(), layers.Dense(2)], {"conv2d": (0, 1, 2)}),
    "transposed": (
        [keras.Input((4, 4, 2)), layers.Conv2DTranspose(3, 2), layers.Flatten(), layers.Dense(2)],
        {"transpose": (0, 1, 3)},
    ),
    "depthwise": (
        [keras.Input((4, 4, 3)), layers.DepthwiseConv2D(2, depth_multiplier=2), layers.Flatten(), layers.Dense(2)],
        {"depthwise": (0, 1)},
    ),
    "separable": (
        [keras.Input((4, 4, 3)), layers.SeparableConv2D(4, 2), layers.Flatten(), layers.Dense(2)],
        {"depthwise_kernel": (0, 1), "pointwise_kernel": (0, 1, 2)},
    ),
    "embedding": (
        [keras.Input((5,), dtype="int32"), layers.Embedding(7, 3), layers.GRU(4), layers.Dense(2)],
        {"embeddings": (1,), "gru_cell/kernel": (0,), "recurrent_kernel": (0,)},
    ),
    "einsum": (
        [keras.Input((5, 4)), layers.EinsumDense("abc,cde->abde", (5, 2, 3)), layers.Flatten(), layers.Dense(2)],
        {"einsum": (0,)},
    ),
    "normalised": (
        [keras.Input((4,)), layers.Dense(3), layers.BatchNormalization(), layers.LayerNormalization(), layers.Dense(2)],
        {},
    ),
}


def objective(name):
    stack, rules = NETS[name]
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            layer if not isinstance(layer, keras.Layer) else type(layer).from_config(layer.get_config())
            for layer in stack
        ]
    )
    shape = model.input_shape[1:]
    x = np.zeros((4, *shape), model.inputs[0].dtype)
    return bs.Objective(model, x, np.array([0, 1, 0, 1])), rules


def kernels(f, vector):
    """The variables of a vector, with their names and unit axes."""
    parts = f.split_by_variable(vector)
    for name, shape, axes, part in zip(f.variable_names, f.variable_shapes, f.unit_axes, parts, strict=True):
        yield name, axes, part.reshape(shape)


@pytest.mark.parametrize("name", NETS)
def test_filter_normalisation_gives_each_unit_the_norm_of_its_weights(name):
    f, rules = objective(name)
    weights = f.weights
    directions = random_directions(f, weights, 3, seed=5)
    for direction in directions:
        for (path, axes, part), (_, _, weight) in zip(
            kernels(f, direction), kernels(f, f.flatten(weights)), strict=True
        ):
            if weight.ndim < 2 or "bias" in path:
                assert axes is None
                assert not part.any(), path
                continue
            expected = next((rule for text, rule in rules.items() if text in path), (0,))
            assert axes == expected, path
            norms = [np.sqrt(np.sum(a**2, axis=expected)) for a in (part, weight)]
            np.testing.assert_allclose(*norms, rtol=1e-6)


@pytest.mark.parametrize("name", NETS)
def test_every_kind_of_layer_has_values_along_directions_and_a_hessian(name):
    f, _ = objective(name)
    weights = f.weights
    directions = random_directions(f, weights, 2, biases=True, normalize="layer")
    found = f.evaluate_along(weights, directions, np.array([[0.0, 0.0], [0.3, -0.2]]))
    moved = f.unflatten(f.flatten(weights) + [0.3, -0.2] @ directions, weights)
    np.testing.assert_allclose(found["loss"], [f(weights), f(moved)], rtol=1e-5)
    products = f.hessian_products(weights, directions)
    assert np.isfinite(products).all()
    np.testing.assert_allclose(products[0] @ directions[1], products[1] @ directions[0], rtol=1e-3, atol=1e-5)


def test_attention_has_a_norm_for_each_head_and_output():
    inputs = keras.Input((3, 4))
    outputs = layers.Flatten()(layers.MultiHeadAttention(2, 3)(inputs, inputs))
    model = keras.Model(inputs, layers.Dense(2)(outputs))
    f = bs.Objective(model, np.ones((2, 3, 4), np.float32), np.array([0, 1]))
    axes = dict(zip(f.variable_names, f.unit_axes, strict=True))
    assert {axes[name] for name in axes if "query/kernel" in name or "value/kernel" in name} == {(0,)}
    assert {axes[name] for name in axes if "attention_output/kernel" in name} == {(0, 1)}


def test_the_other_normalisations():
    f, _ = objective("dense")
    weights = f.weights
    raw = np.random.default_rng(0).normal(size=(1, f.n_parameters))
    np.testing.assert_array_equal(normalize_directions(f, weights, raw, normalize="none", biases=True), raw)
    layer = normalize_directions(f, weights, raw, normalize="layer")[0]
    for (_, axes, part), (_, _, weight) in zip(kernels(f, layer), kernels(f, f.flatten(weights)), strict=True):
        assert np.linalg.norm(part) == pytest.approx(np.linalg.norm(weight) if axes is not None else 0)
    by_weight = normalize_directions(f, weights, raw, normalize="weight", biases=True)
    np.testing.assert_allclose(by_weight[0], raw[0] * f.flatten(weights))


def test_biases_move_with_their_own_norm_when_they_are_let_in():
    f, _ = objective("dense")
    weights = [weight + 0.5 for weight in f.weights]
    direction = random_directions(f, weights, 1, biases=True)[0]
    for (_, axes, part), (_, _, weight) in zip(kernels(f, direction), kernels(f, f.flatten(weights)), strict=True):
        if axes is None:
            assert np.linalg.norm(part) == pytest.approx(np.linalg.norm(weight))


def test_units_of_zeros_stay_where_they_are():
    f, _ = objective("dense")
    weights = f.weights
    weights[0][:, 2] = 0
    direction = random_directions(f, weights, 1)[0]
    assert np.isfinite(direction).all()
    assert not f.split_by_variable(direction)[0].reshape(3, 5)[:, 2].any()


def test_cosines_of_known_directions():
    np.testing.assert_allclose(cosines(np.array([[1.0, 0], [1, 1]])), [[1, 0.5**0.5], [0.5**0.5, 1]])


def test_differences_lead_to_the_other_solutions():
    f, _ = objective("dense")
    start, end = f.weights, [weight + 1 for weight in f.weights]
    np.testing.assert_allclose(difference_directions(f, start, end), np.ones((1, f.n_parameters)), rtol=1e-6)
    with pytest.raises(InvalidInput, match="not all zeros"):
        difference_directions(f, start, start)


@pytest.mark.parametrize(
    ("directions", "message"),
    [(np.ones((1, 3)), "shape"), (np.zeros((1, 32)), "all zeros"), (np.full((1, 32), np.nan), "finite")],
)
def test_directions_that_are_none_are_refused(directions, message):
    f, _ = objective("dense")
    with pytest.raises(InvalidInput, match=message):
        normalize_directions(f, f.weights, directions)


def test_an_unknown_normalisation_is_named():
    f, _ = objective("dense")
    with pytest.raises(type(unknown_name("normalize", "fliter", ["filter"])), match="filter"):
        random_directions(f, f.weights, normalize="fliter")
