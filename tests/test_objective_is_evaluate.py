"""What is measured is what `evaluate` gives of the model as it was compiled, and what `fit` trains."""

import logging
import re

import keras
import numpy as np
import pytest
from keras import layers, ops

import batchscape as bs
from batchscape import errors
from batchscape.backend import keras_private
from batchscape.errors import InvalidInput, UserCodeError
from batchscape.models import agreement, outputs
from batchscape.models.resolve_loss import resolve_loss
from batchscape.train import caveats
from batchscape.train.evaluate import Evaluator

RNG = np.random.default_rng(0)
N = 60
X = RNG.normal(size=(N, 6)).astype(np.float32)
LABELS = (np.arange(N) % 3).astype(np.int32)
NUMBERS = (X @ RNG.normal(size=(6, 1))).astype(np.float32)
TOKENS = np.where(np.arange(5) < RNG.integers(2, 6, N)[:, None], RNG.integers(1, 9, (N, 5)), 0).astype(np.int32)
TAGS = RNG.integers(0, 3, (N, 5)).astype(np.int32)


class AddsActivity(layers.Layer):
    """Three times the mean square of what passes."""

    def call(self, inputs):
        self.add_loss(3 * ops.mean(ops.square(inputs)))
        return inputs


class AddsSum(layers.Layer):
    """The sum of squares of what passes: another value for every batch size."""

    def call(self, inputs):
        self.add_loss(0.01 * ops.sum(ops.square(inputs)))
        return inputs


class FarFromFive(keras.Sequential):
    """A loss of its own."""

    def compute_loss(self, x, y, y_pred, sample_weight=None, training=True):
        return ops.mean(ops.square(y - y_pred)) + 5


class Beside(keras.Sequential):
    """The compiled loss, and something beside it."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return super().compute_loss(x, y, y_pred, sample_weight) + ops.mean(ops.square(y_pred))


class Centred(layers.Layer):
    """Outputs less their mean over the batch: examples that know of each other."""

    def call(self, inputs):
        return inputs - ops.mean(inputs, axis=0, keepdims=True)


def net(*stack, kind=keras.Sequential, **compiled):
    keras.utils.set_random_seed(0)
    model = kind([keras.Input((6,)), *stack])
    if compiled:
        model.compile("sgd", **compiled)
    return model


def tagger(**compiled):
    keras.utils.set_random_seed(0)
    stack = [layers.Embedding(9, 4, mask_zero=True), layers.LSTM(4, return_sequences=True), layers.Dense(3)]
    model = keras.Sequential([keras.Input((5,), dtype="int32"), *stack])
    model.compile("sgd", **compiled)
    return model


def dense(units=1, activation=None, **options):
    return layers.Dense(units, activation, **options)


def steps(*stack, **compiled):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((5, 3)), *stack])
    model.compile("sgd", **compiled)
    return model


def two_headed(as_dict=False, **compiled):
    """Two outputs, `digit` of three classes and `size`, a number, from one hidden layer."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,))
    hidden = layers.Dense(5, "tanh", kernel_regularizer=compiled.pop("penalty", None))(inputs)
    found = layers.Dense(3, name="digit")(hidden), layers.Dense(1, name="size")(hidden)
    model = keras.Model(inputs, dict(zip(("digit", "size"), found, strict=True)) if as_dict else list(found))
    if compiled:
        model.compile("sgd", **compiled)
    return model


class Headed(keras.Model):
    """Two outputs in a dict, of a class of its own."""

    def __init__(self):
        super().__init__()
        self.digit, self.size = layers.Dense(3), layers.Dense(1)

    def call(self, x):
        return {"digit": self.digit(x), "size": self.size(x)}


def headed(**compiled):
    keras.utils.set_random_seed(0)
    model = Headed()
    model(X[:1])
    model.compile("sgd", **compiled)
    return model


SCCE = keras.losses.SparseCategoricalCrossentropy
ONE_HOT = np.eye(3, dtype=np.float32)[LABELS]

STEPS = RNG.normal(size=(N, 5, 3)).astype(np.float32)
WEIGHTS = (1 + np.arange(N) % 4).astype(np.float32)
BOTH = {"digit": LABELS, "size": NUMBERS}
LOSSES = {"digit": SCCE(from_logits=True), "size": "mse"}

MEANS = {
    "plain": (lambda: net(dense(), loss="mse"), X, NUMBERS),
    "cross-entropy by name, of logits": (lambda: net(dense(3), loss="sparse_categorical_crossentropy"), X, LABELS),
    "cross-entropy by name, softmax": (
        lambda: net(dense(3, "softmax"), loss="sparse_categorical_crossentropy"), X, LABELS,
    ),
    "ce": (lambda: net(dense(3, "softmax"), loss="ce"), X, LABELS),
    "label smoothing": (
        lambda: net(dense(3), loss=keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1)), X, ONE_HOT,
    ),
    "weight of the loss": (lambda: net(dense(), loss="mse", loss_weights=[0.5]), X, NUMBERS),
    "a list of one": (lambda: net(dense(), loss=["mse"]), X, NUMBERS),
    "penalties of weights": (
        lambda: net(dense(8, "tanh", kernel_regularizer="l2"), dense(bias_regularizer="l2"), loss="mse"), X, NUMBERS,
    ),
    "penalties of activity": (
        lambda: net(dense(8, "tanh", activity_regularizer=keras.regularizers.L2(0.1)), dense(), loss="mse"), X, NUMBERS,
    ),
    "add_loss": (lambda: net(dense(4), AddsActivity(), dense(), loss="mse"), X, NUMBERS),
    "add_loss alone": (lambda: net(dense(4), AddsActivity(), loss=None), X, NUMBERS),
    "own compute_loss": (lambda: net(dense(), kind=FarFromFive, loss="mse"), X, NUMBERS),
    "own compute_loss beside the compiled": (
        lambda: net(dense(4, kernel_regularizer="l2"), dense(), kind=Beside, loss="mse"), X, NUMBERS,
    ),
    "a function that takes the mean": (
        lambda: net(dense(), loss=lambda y, y_pred: ops.mean(ops.square(y - y_pred)) + 1), X, NUMBERS,
    ),
    "two outputs": (lambda: two_headed(as_dict=True, loss=LOSSES, loss_weights={"digit": 0.3, "size": 2}), X, BOTH),
    "two outputs in a list, losses by name": (
        lambda: two_headed(penalty="l2", loss=LOSSES, loss_weights={"digit": 0.3, "size": 2}), X, [LABELS, NUMBERS],
    ),
    "two outputs, targets by name": (lambda: two_headed(loss=[LOSSES["digit"], "mae"]), X, BOTH),
    "two outputs, one without a loss": (lambda: two_headed(loss=[LOSSES["digit"], None]), X, LABELS),
    "two outputs, one loss for both": (lambda: two_headed(loss="mse"), X, [ONE_HOT, NUMBERS]),
    "two outputs of a class": (lambda: headed(loss=LOSSES), X, BOTH),
    "sample weights": (lambda: net(dense(3), loss=SCCE(from_logits=True)), X, LABELS, WEIGHTS),
    "sample weights and penalties": (
        lambda: net(dense(8, "tanh", kernel_regularizer="l2"), dense(), loss="mae"), X, NUMBERS, WEIGHTS,
    ),
    "sample weights for two outputs": (lambda: two_headed(as_dict=True, loss=LOSSES), X, BOTH, WEIGHTS),
    "sample weights for each of two outputs": (
        lambda: two_headed(as_dict=True, loss=LOSSES), X, BOTH, {"digit": WEIGHTS, "size": WEIGHTS[::-1].copy()},
    ),
    "a function of targets without the last axis of outputs": (
        lambda: steps(layers.Dense(1), loss=lambda y, y_pred: ops.sum(ops.square(y - y_pred), axis=-1)), STEPS, STEPS[:, :, 0],
    ),
    "targets with a last axis that outputs lack": (
        lambda: steps(layers.Dense(1), layers.Reshape((5,)), loss="mse"), STEPS, STEPS[:, :, :1],
    ),
    "huber by name": (lambda: net(dense(), loss="huber"), X, NUMBERS),
    "inputs alone": (lambda: net(dense(4), AddsActivity(), loss=None), X),
}  # fmt: skip
"""Losses that are means over examples: whatever the batch size of `evaluate`."""

BATCHES = {
    "sum": (lambda: net(dense(), loss=keras.losses.MeanSquaredError(reduction="sum")), X, NUMBERS),
    "masked": (lambda: tagger(loss=SCCE(from_logits=True)), TOKENS, TAGS),
    "ignored class": (lambda: net(dense(3), loss=SCCE(from_logits=True, ignore_class=1)), X, LABELS),
    "coupled examples": (lambda: net(dense(), Centred(), loss="mse"), X, NUMBERS),
    "coupled in the loss": (
        lambda: net(dense(), loss=lambda y, y_pred: ops.square(y - y_pred) * ops.mean(ops.abs(y_pred))), X, NUMBERS,
    ),
    "sum that a layer adds": (lambda: net(dense(4), AddsSum(), dense(), loss="mse"), X, NUMBERS),
    "divided by the sum of sample weights": (
        lambda: net(dense(), loss=keras.losses.MeanSquaredError(reduction="mean_with_sample_weight")), X, NUMBERS, WEIGHTS,
    ),
    "two outputs, one masked": (
        lambda: two_headed(loss=[SCCE(from_logits=True, ignore_class=1), "mse"]), X, [LABELS, NUMBERS],
    ),
}  # fmt: skip
"""Losses that depend on the batch."""


LESS_OFTEN = {
    "plain", "cross-entropy by name, softmax", "ce", "label smoothing", "a list of one", "add_loss alone", "own compute_loss",
    "a function that takes the mean", "masked", "ignored class", "coupled in the loss", "sum that a layer adds",
    "cross-entropy by name, of logits", "weight of the loss", "penalties of activity", "coupled examples",
    "two outputs", "two outputs, targets by name", "two outputs, one without a loss", "two outputs, one loss for both",
    "targets with a last axis that outputs lack", "huber by name",
    "two outputs of a class", "sample weights", "sample weights for two outputs", "inputs alone", "two outputs, one masked",
}  # fmt: skip
"""Cases whose values every run of the tests looks at, and whose derivatives and training only the long tests."""


def often(cases):
    """Cases as parameters of a test, some of them long."""
    return [pytest.param(case, marks=[pytest.mark.long] if case in LESS_OFTEN else []) for case in cases]


def evaluate(model, x, y=None, sample_weight=None, *, batch_size):
    given = {"x": x, "y": y, "sample_weight": sample_weight}
    return model.evaluate(**given, batch_size=batch_size, verbose=0, return_dict=True)["loss"]


def objective(model, x, y=None, sample_weight=None, **options):
    return bs.Objective(model, x, y, sample_weight=sample_weight, **options)


def rows(tree, which):
    return keras.tree.map_structure(lambda array: array[which], tree)


@pytest.mark.parametrize("case", MEANS)
def test_the_loss_is_that_of_evaluate(case):
    build, *examples = MEANS[case]
    model = build()
    f = objective(model, *examples)
    expected = evaluate(model, *examples, batch_size=7)
    assert evaluate(model, *examples, batch_size=25) == pytest.approx(expected, rel=1e-5)
    assert f(f.weights) == pytest.approx(expected, rel=1e-5)
    assert objective(model, *examples, batch_size=13)(f.weights) == pytest.approx(expected, rel=1e-5)
    assert f.about(f.weights)["batch_size"] is None


@pytest.mark.parametrize("case", BATCHES)
@pytest.mark.parametrize(
    "batch_size", [25, pytest.param(7, marks=pytest.mark.long), pytest.param(N, marks=pytest.mark.long)]
)
def test_a_loss_that_depends_on_the_batch_is_that_of_evaluate_with_the_same_batches(case, batch_size):
    build, *examples = BATCHES[case]
    model = build()
    f = objective(model, *examples, batch_size=batch_size)
    assert f(f.weights) == pytest.approx(evaluate(model, *examples, batch_size=batch_size), rel=1e-5)
    assert f.about(f.weights)["batch_size"] == batch_size


@pytest.mark.parametrize("case", ["masked", "two outputs, one masked"])
def test_curves_of_a_mean_over_places_are_those_of_all_examples_as_one_batch(case, monkeypatch):
    monkeypatch.setattr(outputs, "CHUNK", 16)
    build, *examples = BATCHES[case]
    data, model = bs.load_dataset(tuple(examples)), build()
    loss = resolve_loss(model, *examples)
    found = Evaluator(model, data, loss, {})("train", "test")
    for split in ("train", "test"):
        expected = evaluate(model, *data.examples(split), batch_size=N)
        assert found[f"{split}_loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("case", ["masked", "ignored class", "two outputs, one masked"])
def test_a_mean_over_places_that_count_is_had_in_parts(case, monkeypatch):
    monkeypatch.setattr(outputs, "CHUNK", 16)
    build, *examples = BATCHES[case]
    model = build()
    assert resolve_loss(model, *examples).is_ratio
    f = objective(model, *examples)
    w = f.weights
    whole = objective(model, *examples, batch_size=N)
    assert f(w) == pytest.approx(evaluate(model, *examples, batch_size=N), rel=1e-5)
    assert f.about(w)["batch_size"] == N
    vector = np.ones(f.n_parameters)
    np.testing.assert_allclose(f.gradient(w), whole.gradient(w), atol=1e-6)
    np.testing.assert_allclose(f.hessian_products(w, vector), whole.hessian_products(w, vector), atol=1e-5)
    batches = np.arange(40).reshape(2, 20)
    np.testing.assert_allclose(f.batch_gradients(w, batches), whole.batch_gradients(w, batches), atol=1e-6)


def test_coupled_examples_are_no_ratio_of_sums_whatever_is_masked():
    keras.utils.set_random_seed(0)
    centred = Centred()
    centred.supports_masking = True
    far = keras.initializers.RandomNormal(stddev=5.0)
    stack = [layers.Embedding(9, 4, mask_zero=True), layers.LSTM(4, return_sequences=True)]
    stack += [layers.Dense(3, kernel_initializer=far), centred]
    model = keras.Sequential([keras.Input((5,), dtype="int32"), *stack])
    model.compile("sgd", SCCE(from_logits=True, ignore_class=2))
    assert not resolve_loss(model, TOKENS, TAGS).is_ratio


@pytest.mark.parametrize(
    "case", often(sorted({*BATCHES, *MEANS} - {"cross-entropy by name, of logits"}))
)  # It has kinks.
def test_gradients_products_and_lines_are_those_of_this_loss(case):
    build, *examples = {**MEANS, **BATCHES}[case]
    model = build()
    f = objective(model, *examples, batch_size=25)
    w = f.weights
    direction = np.random.default_rng(1).normal(size=f.n_parameters) / np.sqrt(f.n_parameters)
    h = 3e-3
    places = np.array([[-h], [0.0], [h]])
    along = f.along(w, direction[None])(places)["loss"]
    assert along[1] == pytest.approx(f(w), rel=1e-5)
    slope = (along[2] - along[0]) / (2 * h)
    assert f.gradient(w) @ direction == pytest.approx(slope, rel=0.02, abs=2e-3)
    near = [f.gradient(f.unflatten(f.flatten(w) + c * direction, w)) for c in (-0.01, 0.01)]
    product = f.hessian_products(w, direction)[0]
    error = np.linalg.norm(product - (near[1] - near[0]) / 0.02) / max(1.0, np.linalg.norm(product))
    assert error < 0.05


@pytest.mark.parametrize("case", often([case for case in MEANS if case != "plain"]))
def test_gradients_of_examples_add_up_to_that_of_all(case):
    build, *examples = MEANS[case]
    f = objective(build(), *examples)
    total, squares = f.example_gradient_sums(f.weights)
    np.testing.assert_allclose(total / N, f.gradient(f.weights), atol=1e-5)
    one = f.batch_gradients(f.weights, np.arange(4)[:, None])
    np.testing.assert_allclose(squares[:4].sum(axis=1), (one**2).sum(axis=1), rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("case", often(BATCHES))
def test_where_no_example_has_a_loss_of_its_own_one_line_says_so_and_pairs_of_batches_give_the_noise(case):
    build, *examples = BATCHES[case]
    f = objective(build(), *examples)
    with pytest.raises(InvalidInput, match=r"batch_gradients compares batches. Received: .*, but .*") as caught:
        f.example_gradient_sums(f.weights)
    assert "\n" not in str(caught.value)
    estimate = bs.gradient_noise_scale(f, f.weights, small=4, big=20, n_pairs=5)
    assert np.isfinite(estimate.trace_cov)


def test_penalties_of_weights_are_left_out_when_asked():
    build, x, y = MEANS["penalties of weights"]
    model = build()
    without = bs.Objective(model, x, y, regularizers=False)
    mse = np.mean((model.predict(x, verbose=0) - y) ** 2)
    assert without(without.weights) == pytest.approx(mse, rel=1e-5)


# Keras says so of the output without a loss.
@pytest.mark.filterwarnings("ignore:Gradients do not exist for variables:UserWarning")
@pytest.mark.parametrize("case", often([*MEANS, *BATCHES]))
def test_training_and_its_curves_are_those_of_fit_and_evaluate(case):
    build, *examples = {**MEANS, **BATCHES}[case]
    data = bs.load_dataset(tuple(examples) if len(examples) > 1 else examples[0])
    cell = bs.Cell(batch_size=16, epochs=2, learning_rate=0.01, engine="fused", metrics=())
    record = bs.fit_one(cell, build=build, data=data)
    examples, n, model = data.examples("train"), data.n_train, build()
    model.set_weights(record.weights["initial"])
    assert record.curves["train_loss"][0] == pytest.approx(evaluate(model, *examples, batch_size=n), rel=1e-5)
    loss = {"loss": model.loss, "loss_weights": keras_private.compiled_loss_weights(model)}
    model.compile(keras.optimizers.SGD(0.01), **loss)
    for epoch in range(2):
        batch = outputs.as_arguments(rows(examples, bs.epoch_order(n, 0, epoch)))
        model.fit(**batch, batch_size=16, shuffle=False, verbose=0)
    for ours, theirs in zip(record.weights["final"], model.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert record.final["train_loss"] == pytest.approx(evaluate(model, *examples, batch_size=n), rel=1e-4)
    assert bool(record.facts["loss_depends_on_batch"]) == (case in BATCHES)


class DrawsAndSums(layers.Layer):
    """Noise, and a sum over the batch beside the loss."""

    def __init__(self):
        super().__init__()
        self.seeds = keras.random.SeedGenerator(0)

    def call(self, inputs):
        self.add_loss(0.1 * ops.sum(ops.square(inputs)))
        return inputs + 1e-3 * keras.random.normal(ops.shape(inputs), seed=self.seeds)


class Tiny(keras.Sequential):
    """A loss of small numbers, divided by something of the batch."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return 1e-5 * ops.mean(ops.square(y - y_pred)) / ops.mean(ops.square(y))


def test_a_loss_of_batches_is_known_in_spite_of_draws_and_of_its_scale():
    assert "on average" in resolve_loss(net(dense(4), DrawsAndSums(), dense(), loss="mse"), X, NUMBERS).why_batch
    assert resolve_loss(net(dense(), kind=Tiny, loss="mse"), X, NUMBERS).why_batch
    coupled = net(dense(), Centred(), loss="mse")
    assert resolve_loss(coupled, 1e-3 * X, 1e-3 * NUMBERS).why_batch


def test_what_an_objective_cannot_know_is_told_or_refused(caplog):
    class OwnTest(keras.Sequential):
        def test_step(self, data):
            return {"loss": 1 + super().test_step(data)["loss"]}

    errors._warn_once.cache_clear()
    bs.Objective(net(dense(), kind=OwnTest, loss="mse"), X, NUMBERS)
    assert "The own test_step of OwnTest decides what evaluate reports" in caplog.text
    with pytest.raises(InvalidInput, match="regularizers=False needs Keras' own compute_loss"):
        bs.Objective(net(dense(kernel_regularizer="l2"), kind=FarFromFive, loss="mse"), X, NUMBERS, regularizers=False)


def test_nothing_that_was_not_compiled_is_invented():
    model = net(dense(), loss=None)
    with pytest.raises(InvalidInput, match="was compiled without a loss, and its layers add none"):
        bs.Objective(model, X, NUMBERS)
    own = net(dense(), kind=FarFromFive, loss="mse")
    with pytest.raises(InvalidInput, match="own compute_loss of FarFromFive decides what is minimised"):
        bs.Objective(own, X, NUMBERS, "mae")
    with pytest.raises(InvalidInput, match=r"The losses of .* do not fit its outputs and the targets"):
        bs.Objective(two_headed(loss={"digit": "mse", "length": "mse"}), X, [NUMBERS, NUMBERS])
    with pytest.raises(InvalidInput, match="must say what its loss is: compile it with its losses"):
        bs.Objective(two_headed(), X, BOTH)
    with pytest.raises(InvalidInput, match="must be one number: give it a reduction"):
        bs.Objective(net(dense(), loss=keras.losses.MeanSquaredError(reduction=None)), X, NUMBERS)

    class Broken(keras.Sequential):
        def compute_loss(self, *_, **__):
            raise ValueError("no such thing")

    with pytest.raises(UserCodeError, match=r"cannot be had: .*no such thing"):
        bs.Objective(net(dense(), kind=Broken, loss="mse"), X, NUMBERS)


def test_looking_changes_no_variable_and_training_does_not_depend_on_how_often_a_run_is_looked_at():
    class Noisy(layers.Layer):
        """Draws, and counts, whenever it is called."""

        def __init__(self):
            super().__init__()
            self.seeds = keras.random.SeedGenerator(3)
            self.calls = self.add_weight(shape=(), initializer="zeros", trainable=False)

        def call(self, inputs):
            self.calls.assign_add(1.0)
            return inputs + 0.1 * keras.random.normal(ops.shape(inputs), seed=self.seeds)

    def build():
        return net(dense(4), Noisy(), dense(), loss="mse")

    ends = [
        bs.fit_one(
            bs.Cell(batch_size=10, epochs=2, learning_rate=0.01, evaluate_every=every, engine=engine),
            build=build,
            data=(X, NUMBERS),
        ).weights["final"]
        for every, engine in ((2, "fused"), (0.2, "fused"), (0.5, "stock"))
    ]
    for other in ends[1:]:
        for ours, theirs in zip(other, ends[0], strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-6)
    model = build()
    assert resolve_loss(model, X, NUMBERS).why_batch == ""
    before = [
        ops.convert_to_numpy(variable) for variable in (*model.trainable_variables, *model.non_trainable_variables)
    ]
    f = bs.Objective(model, X, NUMBERS)
    f.gradient(f.weights)
    f.hessian_products(f.weights, np.ones(f.n_parameters))
    for variable, value in zip((*model.trainable_variables, *model.non_trainable_variables), before, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(variable), value)


@pytest.mark.parametrize("case", often([*MEANS, *BATCHES]))
def test_the_check_finds_no_difference_where_there_is_none(case):
    build, *examples = {**MEANS, **BATCHES}[case]
    model, (x, *y) = build(), examples
    loss = resolve_loss(model, x, y[0] if y else None, sample_weight=y[1] if y[1:] else None)
    for theirs in (agreement.compute_loss_of(model), agreement.evaluate_with(model, loss)):
        assert agreement.disagreement(model, loss, examples, theirs) == ""


@pytest.mark.tensorflow
def test_what_differs_from_evaluate_is_told_in_one_line_with_the_numbers(caplog):
    class OwnTest(keras.Sequential):
        def test_step(self, data):
            return {"loss": 2 * super().test_step(data)["loss"], "of its own": ops.zeros(())}

    def build():
        return net(dense(), kind=OwnTest, loss="mse")

    errors._warn_once.cache_clear()
    with caplog.at_level(logging.WARNING, logger="batchscape"):
        bs.fit_one(bs.Cell(batch_size=16, epochs=1, engine="stock"), build=build, data=(X, NUMBERS))
        bs.fit_one(bs.Cell(batch_size=32, epochs=1, engine="stock"), build=build, data=(X, NUMBERS))
    (line,) = [record.getMessage() for record in caplog.records]
    found = re.fullmatch(r".*first 32 examples in batches of 32 is (\S+) by evaluate and (\S+) here \(ours\)\.", line)
    assert float(found[1]) == pytest.approx(2 * float(found[2]), rel=1e-5)


@pytest.mark.tensorflow
def test_a_model_that_is_random_in_inference_is_told_as_that():
    class Random(layers.Layer):
        def call(self, inputs):
            return inputs + keras.random.normal(ops.shape(inputs))

    model = net(Random(), dense(), loss="mse")
    loss = resolve_loss(model, X, NUMBERS)
    assert loss.why_batch == ""
    assert "random in inference" in agreement.disagreement(
        model, loss, (X, NUMBERS), agreement.evaluate_with(model, loss)
    )


def test_the_check_of_an_objective_changes_nothing_of_the_users_model():
    model = net(dense(4), layers.BatchNormalization(), dense(), loss="mse", metrics=["mae"])
    model.fit(X, NUMBERS, verbose=0)
    variables = [*model.variables, *model.metrics_variables, *model.optimizer.variables]
    before = [ops.convert_to_numpy(variable) for variable in variables]
    attributes = {name: value for name, value in vars(model).items() if name.endswith("_function")}
    bs.Objective(model, X, NUMBERS)
    for variable, value in zip(variables, before, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(variable), value)
    assert {name: value for name, value in vars(model).items() if name.endswith("_function")} == attributes


def test_a_compiled_schedule_and_a_loss_of_batches_are_told_of_where_batch_sizes_are_compared(caplog, tmp_path):
    def build():
        model = net(dense())
        rate = keras.optimizers.schedules.ExponentialDecay(0.01, 20, 0.5)
        model.compile(keras.optimizers.SGD(rate), keras.losses.MeanSquaredError(reduction="sum"))
        return model

    errors._warn_once.cache_clear()
    with caplog.at_level(logging.WARNING, logger="batchscape"):
        grid = bs.Grid(batch_size=[4, 48], seed=[0], epochs=1)
        bs.run_sweep(grid, build=build, data=(X, NUMBERS), store=tmp_path, executor="serial", show_progress=False)
    told = " ".join(record.getMessage() for record in caplog.records)
    assert "compiled with counts in updates" in told
    assert "its reduction is 'sum': different batch sizes minimise different things" in told


def test_a_run_has_the_dtype_policy_in_force_when_its_cell_is_made():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        cell = bs.Cell(batch_size=16, epochs=1)
    finally:
        keras.config.set_dtype_policy("float32")
    assert (cell.precision, bs.Cell().precision) == ("mixed_bfloat16", "float32")
    given = []

    def build():
        given.append(net(dense(), loss="mse"))
        return given[-1]

    bs.fit_one(cell, build=build, data=(X, NUMBERS))
    assert {model.compute_dtype for model in given} == {"bfloat16"}


METRICS = {
    "no means": (
        lambda: net(
            dense(1, "sigmoid"),
            loss="binary_crossentropy",
            metrics=[keras.metrics.AUC(name="auc"), keras.metrics.Precision(name="precision"), "mae"],
            weighted_metrics=[keras.metrics.Recall(name="recall")],
        ),
        X, (LABELS > 0).astype(np.int32), WEIGHTS,
    ),
    "of masked places": (lambda: tagger(loss=SCCE(from_logits=True), metrics=["accuracy"]), TOKENS, TAGS),
    "of two outputs": (
        lambda: two_headed(
            as_dict=True, loss=LOSSES, metrics={"digit": ["sparse_top_k_categorical_accuracy"], "size": ["mae"]}
        ),
        X, BOTH,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", METRICS)
def test_metrics_that_a_model_was_compiled_with_are_those_of_evaluate(case):
    build, *examples = METRICS[case]
    record = bs.fit_one(bs.Cell(batch_size=16, epochs=1), build=build, data=tuple(examples))
    data, model = bs.load_dataset(tuple(examples)), build()
    model.set_weights(record.weights["final"])
    for split in ("train", "test"):
        x, y, *sample_weight = data.examples(split)
        given = {"x": x, "y": y, **({"sample_weight": sample_weight[0]} if sample_weight else {})}
        # In one batch: Keras takes the loss of each output as a mean over batches, whatever their sizes.
        expected = model.evaluate(**given, batch_size=N, verbose=0, return_dict=True)
        assert len(expected) > 1
        for name, value in expected.items():
            assert record.final[f"{split}_{name}"] == pytest.approx(value, rel=1e-4), name


def test_compiled_metrics_beside_a_step_of_ones_own_are_told_of():
    class Own(keras.Sequential):
        def train_step(self, *arguments):
            return super().train_step(*arguments)

    given = ["mae", keras.metrics.MeanSquaredError(name="mine"), "accuracy"]
    model = net(dense(), kind=Own, loss="mse", metrics=given)
    data = bs.load_dataset((X, NUMBERS))
    loss = resolve_loss(model, X, NUMBERS)
    told = caveats.caveats_of(bs.Cell(metrics=("mae",)), model, data, loss, keras.optimizers.SGD())[-1:]
    assert told == [
        f"Of the metrics that {model.name} was compiled with, those that metrics=... names are recorded. "
        "Left out: mine, accuracy",
    ]
