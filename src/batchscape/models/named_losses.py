"""Keras losses by their names, and functions of the user as Keras losses."""

import functools
import inspect
import re
from collections.abc import Callable

import keras
from keras import ops

from batchscape.errors import unknown_name

CROSSENTROPIES = ("sparse_categorical_crossentropy", "categorical_crossentropy", "binary_crossentropy")
"""Losses that must know whether a model gives logits or probabilities."""


def from_name(name: str, *, dtype: str | None, from_logits: bool | None = None) -> keras.Loss:
    """A Keras loss by its name, `from_logits` as Keras has it unless it is given."""
    name, kind = class_of(name)
    options = {} if from_logits is None or name not in CROSSENTROPIES else {"from_logits": from_logits}
    return kind(dtype=dtype, **options)


def class_of(name: str) -> tuple[str, type[keras.Loss]]:
    """The full name of a Keras loss, and its class."""
    known = named_losses()
    if name not in known and (by_class := _names_of_classes().get(name)):
        return by_class, known[by_class]
    if name not in known:
        try:  # Keras knows short names, such as "mse", and class names.
            found = keras.losses.get(name)
        except ValueError:
            raise unknown_name("loss", name, known) from None
        name = getattr(found, "__name__", getattr(found, "name", name))
    if name not in known:
        raise unknown_name("loss", name, known)
    return name, known[name]


@functools.cache
def named_losses() -> dict[str, type[keras.Loss]]:
    """Keras' loss classes by their names, such as `mean_squared_error`."""
    classes = {kind for kind in vars(keras.losses).values() if inspect.isclass(kind) and issubclass(kind, keras.Loss)}
    return {inspect.signature(kind).parameters["name"].default: kind for kind in classes - {keras.Loss}}


@functools.cache
def _names_of_classes() -> dict[str, str]:
    """The names of losses by those of their classes in words, such as "huber" of `Huber`, which Keras takes too."""
    return {re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower(): name for name, kind in named_losses().items()}


class FunctionLoss(keras.Loss):
    """A user's function (y_true, y_pred) as a Keras loss."""

    def __init__(self, function: Callable, dtype: str | None):
        name = getattr(function, "__name__", "")
        super().__init__(name=name if name.isidentifier() else "loss", dtype=dtype)  # TensorFlow takes no "<lambda>".
        self.function = function

    def call(self, y_true, y_pred):
        """The values of the function."""
        return self.function(*_of_one_rank(y_true, y_pred))


def _of_one_rank(y_true, y_pred) -> tuple:
    """Targets and outputs that differ by a last axis of size one, as Keras gives them to a function.

    (n,) becomes (n, 1), or it would broadcast to (n, n) beside that; of more axes the last one goes, (n, t, 1) becomes (n, t).
    """
    difference = len(y_pred.shape) - len(y_true.shape)
    if difference == 1 and y_pred.shape[-1] == 1:
        larger, smaller = y_pred, y_true
    elif difference == -1 and y_true.shape[-1] == 1:
        larger, smaller = y_true, y_pred
    else:
        return y_true, y_pred
    if len(smaller.shape) == 1:
        smaller = ops.expand_dims(smaller, -1)
    else:
        larger = ops.squeeze(larger, -1)
    return (smaller, larger) if difference == 1 else (larger, smaller)
