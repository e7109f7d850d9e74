"""Losses and metrics, one value an example: they agree with Keras, whatever form labels and outputs have."""

import keras
import numpy as np
import pytest

import batchscape as bs
from batchscape.errors import InvalidInput
from batchscape.models import losses, metrics, outputs
from batchscape.models.resolve_loss import resolve_loss
from batchscape.train import engine
from batchscape.train.evaluate import Evaluator

RNG = np.random.default_rng(0)
X = RNG.normal(size=(50, 4)).astype(np.float32)
LABELS = (np.arange(50) % 3).astype(np.int32)
ONE_HOT = np.eye(3, dtype=np.float32)[LABELS]
BINARY = (np.arange(50) % 2).astype(np.int32)


def net(units, activation=None, *, by_layer=False):
    stack = [
        keras.Input((4,)),
        keras.layers.Dense(8, "tanh"),
        keras.layers.Dense(units, None if by_layer else activation),
    ]
    return keras.Sequential([*stack, keras.layers.Softmax()] if by_layer else stack)


class Subclassed(keras.Model):
    """No graph to read the last activation from."""

    def __init__(self, activation):
        super().__init__()
        self.dense = keras.layers.Dense(3)
        self.activate = keras.activations.get(activation)

    def call(self, inputs):
        return self.activate(self.dense(inputs))


CASES = {
    "integer labels, logits": (lambda: net(3), LABELS, "sparse_categorical_crossentropy", True),
    "integer labels, softmax": (lambda: net(3, "softmax"), LABELS, "sparse_categorical_crossentropy", False),
    "integer labels, softmax layer": (lambda: net(3, by_layer=True), LABELS, "sparse_categorical_crossentropy", False),
    "integer labels, subclassed logits": (
        lambda: Subclassed("linear"),
        LABELS,
        "sparse_categorical_crossentropy",
        True,
    ),
    "integer labels, subclassed softmax": (
        lambda: Subclassed("softmax"),
        LABELS,
        "sparse_categorical_crossentropy",
        False,
    ),
    "one-hot labels, logits": (lambda: net(3), ONE_HOT, "categorical_crossentropy", True),
    "binary labels, logit": (lambda: net(1), BINARY, "binary_crossentropy", True),
    "binary labels, sigmoid": (lambda: net(1, "sigmoid"), BINARY, "binary_crossentropy", False),
}


@pytest.mark.parametrize("case", CASES)
def test_the_loss_is_inferred_and_agrees_with_keras(case):
    build, y, name, from_logits = CASES[case]
    keras.utils.set_random_seed(0)
    model = build()
    model(X[:1])
    loss = resolve_loss(model, X, y)
    assert loss.name == name
    assert loss.compiled.get_config()["from_logits"] is from_logits
    y_keras = y[:, None] if name == "binary_crossentropy" else y
    each = loss.of_examples(y_keras, model(X))
    assert each.shape == (50,)
    reference = {True: "from logits", False: "from probabilities"}[from_logits]
    expected = float(type(loss.compiled)(from_logits=from_logits)(y_keras, model(X)))
    assert float(np.mean(each)) == pytest.approx(expected, rel=1e-6), reference


@pytest.mark.parametrize("case", CASES)
def test_accuracy_agrees_with_keras(case):
    build, y, name, from_logits = CASES[case]
    keras.utils.set_random_seed(1)
    model = build()
    model(X[:1])
    (accuracy,) = metrics.metric_functions(["accuracy"], model, X, y).values()
    ours = float(np.mean(accuracy(y, model(X))))
    outputs = keras.ops.convert_to_numpy(model(X))
    if name == "binary_crossentropy":
        expected = np.mean((outputs[:, 0] > (0 if from_logits else 0.5)) == (y == 1))
    else:
        expected = np.mean(outputs.argmax(axis=1) == (y.argmax(axis=1) if y.ndim == 2 else y))
    assert ours == pytest.approx(float(expected), abs=1e-7)


def test_a_sequence_output_is_averaged_over_time():
    y = RNG.integers(0, 5, (7, 11))
    y_pred = keras.ops.convert_to_tensor(RNG.normal(size=(7, 11, 5)).astype(np.float32))
    each = losses.example_losses(keras.losses.SparseCategoricalCrossentropy(from_logits=True), y, y_pred)
    assert each.shape == (7,)
    total = float(keras.losses.SparseCategoricalCrossentropy(from_logits=True)(y, y_pred))
    assert float(np.mean(each)) == pytest.approx(total, rel=1e-6)


def test_targets_of_shape_n_and_outputs_of_shape_n_1_are_not_broadcast_to_n_n():
    y, y_pred = (
        RNG.normal(size=9).astype(np.float32),
        keras.ops.convert_to_tensor(RNG.normal(size=(9, 1)).astype(np.float32)),
    )
    expected = np.square(y - keras.ops.convert_to_numpy(y_pred)[:, 0])

    def squared(y_true, y_pred):
        return keras.ops.mean(keras.ops.square(y_true - y_pred), axis=-1)

    model = net(1)
    for requested in ("mean_squared_error", squared):
        loss = resolve_loss(model, X[:9], y, requested)
        np.testing.assert_allclose(loss.of_examples(y, y_pred), expected, rtol=1e-6)


def test_the_order_is_argument_then_compiled_then_data():
    model = net(3)
    model.compile("sgd", keras.losses.CategoricalHinge())
    assert resolve_loss(model, X, ONE_HOT).name == "categorical_hinge"
    assert resolve_loss(model, X, ONE_HOT, "mean_absolute_error").name == "mean_absolute_error"
    assert resolve_loss(net(3), X, ONE_HOT, fallback="poisson").name == "poisson"


def test_names_that_are_unknown_are_offered_near_misses():
    with pytest.raises(InvalidInput, match="did you mean mean_squared_error"):
        resolve_loss(net(3), X, LABELS, "mean_square_error")
    with pytest.raises(InvalidInput, match="Received: metric='accurracy'"):
        metrics.metric_functions(["accurracy"], net(3), X, LABELS)


def test_a_named_metric_is_a_mean_over_examples():
    model = net(3)
    (function,) = metrics.metric_functions(["mean_absolute_error"], model, X, ONE_HOT).values()
    expected = np.abs(ONE_HOT - keras.ops.convert_to_numpy(model(X))).mean(axis=1)
    np.testing.assert_allclose(function(ONE_HOT, model(X)), expected, rtol=1e-6)


def two_headed(**compiled):
    inputs = keras.Input((4,))
    outputs = [keras.layers.Dense(3, name="kind")(inputs), keras.layers.Dense(2, "sigmoid", name="size")(inputs)]
    model = keras.Model(inputs, outputs)
    if compiled:
        model.compile("sgd", **compiled)
    return model


def test_losses_of_several_outputs_are_those_asked_for_and_each_output_has_metrics_of_its_own():
    asked = {"kind": "sparse_categorical_crossentropy", "size": "binary_crossentropy"}
    loss = resolve_loss(two_headed(), X, [LABELS, ONE_HOT[:, :2]], asked)
    assert [(term.name, term.loss.from_logits) for term in loss.terms] == [("kind", True), ("size", False)]
    assert loss.name == "sparse_categorical_crossentropy of kind + binary_crossentropy of size"
    model = two_headed(loss=asked, loss_weights={"kind": 2, "size": 1})
    loss = resolve_loss(model, X, [LABELS, ONE_HOT[:, :2]])
    assert [(term.weight, term.loss.from_logits) for term in loss.terms] == [(2, False), (1, False)]
    counted = metrics.metric_functions(["accuracy"], model, X, [LABELS, ONE_HOT[:, :2]], loss)
    assert list(counted) == ["kind_loss", "kind_accuracy", "size_loss"]


@pytest.mark.parametrize("labels", [BINARY.astype(np.float32), BINARY.astype(bool), BINARY[:, None]])
def test_zeros_and_ones_are_labels_whatever_their_type(labels):
    model = net(1, "sigmoid")
    loss = resolve_loss(model, X, labels, "binary_crossentropy")
    (accuracy,) = metrics.metric_functions(["accuracy"], model, X, labels, loss).values()
    expected = (keras.ops.convert_to_numpy(model(X))[:, 0] > 0.5) == np.ravel(labels)
    np.testing.assert_array_equal(accuracy(labels, model(X)), expected)


def test_numbers_that_happen_to_be_zero_and_one_are_no_labels_to_a_loss_of_numbers():
    model, numbers = net(1), BINARY.astype(np.float32)
    assert metrics.metric_functions(["accuracy"], model, X, numbers, resolve_loss(model, X, numbers, "mse")) == {}


def test_several_outputs_without_losses_are_refused_in_one_line():
    with pytest.raises(InvalidInput, match=r"must say what its loss is: compile it .* targets \(\d+,\), no loss"):
        resolve_loss(two_headed(), X, LABELS)


@pytest.mark.parametrize(
    ("name", "full"),
    [("mse", "mean_squared_error"), ("MeanSquaredError", "mean_squared_error"), ("kl_divergence", "kl_divergence")],
)
def test_every_spelling_that_keras_knows_is_understood(name, full):
    assert resolve_loss(net(3), X, ONE_HOT, name).name == full


def test_a_lambda_is_a_loss_and_one_that_takes_the_mean_itself_has_a_value_for_batches_alone():
    loss = resolve_loss(net(3), X, ONE_HOT, lambda y, y_pred: keras.ops.sum(keras.ops.abs(y - y_pred), axis=-1))
    assert loss.of_examples(ONE_HOT[:4], keras.ops.zeros((4, 3))).shape == (4,)
    mean = resolve_loss(net(3), X, ONE_HOT, lambda y, y_pred: keras.ops.mean(keras.ops.abs(y - y_pred)))
    assert (mean.by_example, mean.why_batch) == (False, "")


@pytest.mark.parametrize(
    ("y", "loss", "message"),
    [
        (RNG.normal(size=(50, 2)).astype(np.float32), "mean_squared_error", "shape of the outputs"),
        (LABELS + 0.5, "sparse_categorical_crossentropy", "Labels must lie in 0..2"),
        (LABELS - 1, "sparse_categorical_crossentropy", "from -1 to"),
        (ONE_HOT, "sparse_categorical_crossentropy", "does not take targets"),
    ],
)
def test_targets_that_do_not_fit_are_refused(y, loss, message):
    with pytest.raises(InvalidInput, match=message):
        resolve_loss(net(3), X, y, loss)


def test_labels_of_one_output_must_be_0_or_1():
    with pytest.raises(InvalidInput, match=r"0\.\.1 for binary_crossentropy. Received: labels from 1 to 2"):
        resolve_loss(net(1), X, LABELS % 2 + 1)


@pytest.mark.parametrize("activation", ["sigmoid", lambda x: keras.ops.sigmoid(x)], ids=["named", "lambda"])
def test_probabilities_are_told_from_logits_behind_a_reshape_and_an_unknown_activation(activation):
    layers = keras.layers
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, activation), layers.Reshape((3,))])
    assert not resolve_loss(model, X, ONE_HOT, "binary_crossentropy").compiled.get_config()["from_logits"]
    logits = keras.Sequential([keras.Input((4,)), layers.Dense(3), layers.Reshape((3,))])
    assert resolve_loss(logits, X, ONE_HOT, "binary_crossentropy").compiled.get_config()["from_logits"]


def test_whole_numbers_are_labels_only_where_the_model_has_that_many_outputs():
    counts = np.arange(50)
    assert metrics.metric_functions(["accuracy"], net(1), X, counts) == {}
    assert set(metrics.metric_functions(["accuracy"], net(3), X, LABELS)) == {"accuracy"}


def test_a_forward_pass_takes_fewer_examples_where_a_layer_gives_much():
    images = keras.Sequential([keras.Input((128, 128, 3)), keras.layers.Conv2D(32, 3, padding="same")])
    assert outputs.examples_in_a_pass(images, np.zeros((1, 128, 128, 3))) == 64
    assert outputs.examples_in_a_pass(net(3), X) == 2048
    of_any_size = keras.Sequential([keras.Input((None, None, 3)), keras.layers.Conv2D(32, 3, padding="same")])
    assert outputs.examples_in_a_pass(of_any_size, np.zeros((1, 128, 128, 3))) == 64


def test_an_evaluation_that_runs_out_of_memory_is_made_in_smaller_passes(monkeypatch):
    data, model = bs.load_dataset((X, LABELS)), net(3)
    loss, chunks = resolve_loss(model, X, LABELS), []
    compile_means = engine.own().compile_means

    def short_of_memory(*arguments, chunk):
        chunks.append(chunk)
        means = compile_means(*arguments, chunk=chunk)
        return means if chunk <= 512 else [lambda: (_ for _ in ()).throw(MemoryError("no room"))] * 3

    monkeypatch.setattr(engine.own(), "compile_means", short_of_memory)
    found = Evaluator(model, data, loss, {})("train", "test")
    assert chunks == [2048, 1024, 512]
    assert found["train_loss"] == pytest.approx(loss.mean(model, data.x_train, data.y_train), rel=1e-5)
