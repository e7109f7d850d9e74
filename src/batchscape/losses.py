"""What is minimised and what is counted: losses and metrics, one value an example.

One value an example lets every mean be taken over examples, whatever the evaluation batch and its tail.
"""

import functools
import inspect
import logging
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from batchscape.data import Data
from batchscape.data.splits import class_labels, is_one_hot
from batchscape.errors import InvalidInput, UserCodeError, telling_line, unknown_name

_log = logging.getLogger("batchscape")

_CROSSENTROPIES = ("sparse_categorical_crossentropy", "categorical_crossentropy", "binary_crossentropy")
"""Losses that must know whether a model gives logits or probabilities."""


def resolve_loss(
    model: keras.Model, x, y: np.ndarray, requested: Any = None, *, fallback: str | None = None
) -> keras.Loss:
    """The loss to minimise: the requested one, else the compiled one, else the data's, else inferred from the labels.

    A cross-entropy by name takes logits or probabilities according to the model's last activation.

    Args:
        model: A built Keras model with one output.
        x: Inputs, shape (n, ...) or a tree of such arrays; a few are enough.
        y: All targets, shape (n, ...).
        requested: A Keras loss, its name, a function (y_true, y_pred), or None.
        fallback: The loss that goes with the data, by name.

    Returns:
        A `keras.Loss` whose call is a mean over examples.

    Raises:
        InvalidInput: If nothing says what the loss is, or labels lie outside the model's outputs.
    """
    outputs = _predict_some(model, x)
    chosen = requested or getattr(model, "loss", None) or fallback
    if chosen is None:
        chosen = _infer(y, outputs)
        _tell(chosen)
    dtype = "float64" if model.dtype == "float64" else None
    if isinstance(chosen, str):
        loss = _from_name(chosen, from_logits=_gives_logits(model, x), dtype=dtype)
    elif isinstance(chosen, keras.Loss):
        loss = chosen
    elif callable(chosen):
        loss = _FunctionLoss(chosen, dtype)
    else:
        raise InvalidInput(f"loss must be one Keras loss, its name or a function. Received: loss={chosen!r}")
    _check_targets(loss, y, outputs)
    return loss


def _check_targets(loss: keras.Loss, y: np.ndarray, outputs: np.ndarray) -> None:
    """Refuse targets that do not fit the loss and the outputs, which Keras would broadcast or take modulo something."""
    if "sparse" in loss.name:
        if not 0 <= y.min() <= y.max() < outputs.shape[-1] or (y != np.floor(y)).any():
            raise InvalidInput(
                f"Labels must lie in 0..{outputs.shape[-1] - 1} for a model with {outputs.shape[-1]} outputs. "
                f"Received: labels from {y.min():g} to {y.max():g}"
            )
    elif loss.name == "binary_crossentropy" and not 0 <= y.min() <= y.max() <= 1:
        raise InvalidInput(
            f"Labels must lie in 0..1 for binary_crossentropy. Received: labels from {y.min():g} to {y.max():g}"
        )
    shape = f"(n, {', '.join(map(str, outputs.shape[1:]))})"
    if loss.name in _named_losses() and "sparse" not in loss.name:
        fits = y.shape[1:] == outputs.shape[1:] or (outputs.shape[-1] == 1 and y.shape[1:] == outputs.shape[1:-1])
        if not fits:
            raise InvalidInput(
                f"Targets of {loss.name} must have the shape of the outputs, {shape}. Received: {y.shape}"
            )
    rows = min(len(y), len(outputs))
    try:
        values = example_losses(
            loss, keras.ops.convert_to_tensor(y[:rows]), keras.ops.convert_to_tensor(outputs[:rows])
        )
    except InvalidInput:
        raise
    except Exception as error:
        raise InvalidInput(
            f"The loss {loss.name} does not take targets of shape {y.shape} with outputs of shape {shape}. "
            f"Received: {type(error).__name__}: {telling_line(error)}"
        ) from error
    if values.shape != (rows,):
        raise InvalidInput(f"The loss {loss.name} must give one value an example. Received: shape {values.shape}")


@functools.cache
def _tell(loss: str) -> None:
    """Say once what was inferred."""
    _log.info("loss: %s, inferred from the labels and the outputs of the model", loss)


def loss_of(model: keras.Model, data: Data, requested: Any = None) -> keras.Loss:
    """The loss of a model on a data set; see `resolve_loss`."""
    targets = np.concatenate([data.y_train, data.y_val, data.y_test])
    return resolve_loss(model, data.x_train, targets, requested, fallback=data.meta["loss"])


def _predict_some(model: keras.Model, x) -> np.ndarray:
    some = keras.tree.map_structure(lambda array: array[:32], x)
    try:
        outputs = model(some, training=False)
    except Exception as error:
        shapes = keras.tree.map_structure(lambda array: array.shape, some)
        raise UserCodeError(
            f"The model {model.name} does not take these inputs: {telling_line(error)} Received: inputs of shape {shapes}"
        ) from error
    if not hasattr(outputs, "shape"):
        raise InvalidInput(f"The model must have one output. Received: {type(outputs).__name__} from {model.name}")
    if len(outputs.shape) < 2:
        raise InvalidInput(
            f"The output of the model must have shape (n, ...), such as (n, 1). Received: {tuple(outputs.shape)}"
        )
    return keras.ops.convert_to_numpy(outputs)


def _infer(y: np.ndarray, outputs: np.ndarray) -> str:
    if class_labels(y) is None:
        raise InvalidInput(
            "These targets are not class labels, so the loss must be named: compile the model, or give loss=... "
            '(--loss ...), such as "mean_squared_error". Received: no loss'
        )
    if outputs.shape[-1] == 1:
        return "binary_crossentropy"
    return "categorical_crossentropy" if is_one_hot(y) else "sparse_categorical_crossentropy"


def _from_name(name: str, *, from_logits: bool, dtype: str | None) -> keras.Loss:
    known = _named_losses()
    if name not in known:
        try:  # Keras knows short names, such as "mse", and class names.
            found = keras.losses.get(name)
        except ValueError:
            raise unknown_name("loss", name, known) from None
        name = getattr(found, "__name__", getattr(found, "name", name))
    if name not in known:
        raise unknown_name("loss", name, known)
    options = {"from_logits": from_logits} if name in _CROSSENTROPIES else {}
    return known[name](dtype=dtype, **options)


@functools.cache
def _named_losses() -> dict[str, type[keras.Loss]]:
    """Keras' loss classes by their names, such as `mean_squared_error`."""
    classes = {kind for kind in vars(keras.losses).values() if inspect.isclass(kind) and issubclass(kind, keras.Loss)}
    return {inspect.signature(kind).parameters["name"].default: kind for kind in classes - {keras.Loss}}


class _FunctionLoss(keras.Loss):
    """A user's function (y_true, y_pred) as a Keras loss."""

    def __init__(self, function: Callable, dtype: str | None):
        name = getattr(function, "__name__", "")
        super().__init__(name=name if name.isidentifier() else "loss", dtype=dtype)  # TensorFlow takes no "<lambda>".
        self._function = function

    def call(self, y_true, y_pred):
        if len(y_true.shape) == len(y_pred.shape) - 1 and y_pred.shape[-1] == 1:
            y_true = ops.expand_dims(y_true, -1)  # Or (n,) and (n, 1) would broadcast to (n, n).
        return self._function(y_true, y_pred)


def _gives_logits(model: keras.Model, x) -> bool:
    """Whether a model ends without softmax or sigmoid: by its last layer where that is known, else by its values.

    A few hundred times the inputs drive logits out of [0, 1], and leave probabilities there.
    """
    try:
        last = model.outputs[0]._keras_history.operation
    except (AttributeError, IndexError, TypeError):  # A subclassed model has no graph to look at.
        last = None
    if isinstance(last, keras.layers.Softmax):
        return False
    if (name := getattr(getattr(last, "activation", None), "__name__", "")) in _ACTIVATIONS:
        return name not in ("softmax", "sigmoid")
    some = keras.tree.map_structure(lambda array: array[:32], x)
    far = [keras.tree.map_structure(functools.partial(_times, factor), some) for factor in (-300, 300)]
    outputs = np.concatenate([_predict_some(model, inputs) for inputs in (some, *far)])
    return bool((outputs < 0).any() or (outputs > 1 + 1e-5).any())


_ACTIVATIONS = frozenset(name for name, value in vars(keras.activations).items() if inspect.isfunction(value))


def _times(factor: float, array: np.ndarray) -> np.ndarray:
    """A multiple of an array of floats; whole numbers, which may be tokens, stay."""
    return array * np.asarray(factor, array.dtype) if np.asarray(array).dtype.kind == "f" else array


def example_losses(loss: keras.Loss, y, y_pred):
    """The loss of each example, shape (batch,); further axes, such as time, are averaged."""
    each = object.__new__(type(loss))  # copy.copy would go through get_config, which forgets the dtype.
    vars(each).update(vars(loss), reduction=None)
    return _one_each(each(y, y_pred))


ONE_BY_ONE = (
    keras.losses.SparseCategoricalCrossentropy, keras.losses.CategoricalCrossentropy, keras.losses.BinaryCrossentropy,
    keras.losses.MeanSquaredError, keras.losses.MeanAbsoluteError,
)  # fmt: skip
"""Losses whose value for an example does not depend on the others in its batch; of other losses nobody knows."""


def _one_each(values):
    if not len(values.shape):
        raise InvalidInput("A loss must give one value an example, without taking their mean. Received: a single value")
    return values if len(values.shape) == 1 else ops.mean(ops.reshape(values, (ops.shape(values)[0], -1)), axis=1)


def metric_functions(names: Sequence[str], model: keras.Model, x, y: np.ndarray) -> dict[str, Callable]:
    """Functions (y_true, y_pred) -> one value an example, by name.

    `"accuracy"` counts right classes, whatever form the labels have; it is left out where targets are no labels.

    Args:
        names: Names of Keras metrics that are means over examples.
        model: A built Keras model.
        x: Inputs, a few are enough.
        y: Targets, shape (n, ...).
    """
    functions: dict[str, Callable] = {}
    for name in names:
        function = getattr(keras.metrics, name, None)
        if name in ("accuracy", "acc"):
            if _are_classes(y, _predict_some(model, x)):
                functions["accuracy"] = _accuracy(model, x, one_hot=is_one_hot(y))
        elif inspect.isfunction(function):
            functions[name] = functools.partial(_example_metric, function)
        else:
            known = [key for key, value in vars(keras.metrics).items() if inspect.isfunction(value)]
            raise unknown_name("metric", name, ["accuracy", *known])
    return functions


def _are_classes(y: np.ndarray, outputs: np.ndarray) -> bool:
    """Whether targets are labels of the classes that a model tells apart; whole numbers may be measured values too."""
    labels = class_labels(y)
    if labels is None and y.dtype.kind in "iu" and outputs.ndim == y.ndim + 1:  # One label a place of a sequence.
        labels = y
    return labels is not None and labels.min() >= 0 and labels.max() < max(outputs.shape[-1], 2)


def _example_metric(function: Callable, y, y_pred):
    return _one_each(function(y, y_pred))


def _accuracy(model: keras.Model, x, *, one_hot: bool) -> Callable:
    threshold = 0.0 if _gives_logits(model, x) else 0.5

    def accuracy(y, y_pred):
        if y_pred.shape[-1] == 1:
            predicted, y = y_pred > threshold, ops.reshape(y, ops.shape(y_pred))
        else:
            predicted = ops.argmax(y_pred, axis=-1)
            y = ops.argmax(y, axis=-1) if one_hot else ops.reshape(y, ops.shape(predicted))
        return _one_each(ops.cast(ops.cast(predicted, "int32") == ops.cast(y, "int32"), "float32"))

    return accuracy
