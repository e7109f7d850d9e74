"""Metrics of a model, one value an example, so that means do not depend on the evaluation batch and its tail."""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from batchscape.data.splits import class_labels, is_one_hot
from batchscape.errors import unknown_name
from batchscape.models import outputs
from batchscape.models.losses import ModelLoss, Term, mean_per_example


def metric_functions(
    names: Sequence[str], model: keras.Model, x, y: Any, loss: ModelLoss | None = None
) -> dict[str, Callable]:
    """Functions (y_true, y_pred, sample_weight=None) -> one value an example, by name.

    `"accuracy"` counts right classes, whatever form the labels have; it is left out where targets are no labels. Of a model
    with several outputs, each output has its own under its name, as in Keras, `digit_accuracy`, and its loss, `digit_loss`.

    Args:
        names: Names of Keras metrics that are means over examples.
        model: A built Keras model.
        x: Inputs, a few are enough.
        y: Targets, shape (n, ...), or a tree of such arrays; None where there are none.
        loss: The loss, which says what target each output has; None for one of both.
    """
    terms = (Term("", None),) if loss is None else loss.terms
    functions: dict[str, Callable] = {}
    for term in terms if y is not None else ():
        several = f"{term.name}_" if len(terms) > 1 else ""
        if several and not loss.why_batch:  # Or no example has a loss of its own.
            functions[f"{several}loss"] = term.of_examples
        for name, function in _of_output(names, model, x, keras.tree.flatten(y)[term.target], term).items():
            functions[several + name] = functools.partial(_of_term, term, function)
    return functions


def _of_term(term: Term, function: Callable, y, y_pred, sample_weight=None):
    return function(*term.given(y, y_pred)[:2])


def _of_output(names: Sequence[str], model: keras.Model, x, y: np.ndarray, term: Term) -> dict[str, Callable]:
    """Functions (target, output) -> one value an example, by name, for one output."""
    seen = outputs.look(model, outputs.some_rows(x))
    predicted = seen.flat[term.output]
    functions: dict[str, Callable] = {}
    for name in names:
        function = getattr(keras.metrics, name, None)
        if name in ("accuracy", "acc"):
            # Of masked places Keras' own metric alone knows, which a model may be compiled with.
            if not seen.masked[term.output] and _are_classes(y, predicted, term.loss):
                one_hot = is_one_hot(y.reshape(-1, y.shape[-1])) and y.shape[1:] == predicted.shape[1:]
                functions["accuracy"] = _accuracy(model, x, term.output, one_hot=one_hot)
        elif inspect.isfunction(function) and name not in _NO_METRICS:
            functions[name] = functools.partial(_example_metric, function)
        else:
            known = [key for key, value in vars(keras.metrics).items() if inspect.isfunction(value)]
            known = [key for key in known if key not in _NO_METRICS]
            raise unknown_name("metric", name, ["accuracy", *known])
    return functions


_NO_METRICS = ("get", "serialize", "deserialize")


def _are_classes(y: np.ndarray, predicted: np.ndarray, loss: keras.Loss | None) -> bool:
    """Whether targets are labels of the classes that a model tells apart; whole numbers may be measured values too."""
    if y.shape[1:] == predicted.shape[1:] and y.shape[-1] > 1:
        return is_one_hot(y.reshape(-1, y.shape[-1]))
    if (
        y.dtype.kind in "bf" and predicted.shape[-1] == 1
    ):  # Zeros and ones are labels to a loss that takes them for that.
        return isinstance(loss, keras.losses.BinaryCrossentropy) and bool(np.isin(y, (0, 1)).all())
    labels = class_labels(y)
    if labels is None and y.dtype.kind in "iu" and predicted.shape[1:-1] == y.shape[1:]:  # One label a place.
        labels = y
    return labels is not None and labels.min() >= 0 and labels.max() < max(predicted.shape[-1], 2)


def _example_metric(function: Callable, y, y_pred):
    return mean_per_example(function(y, y_pred))


def _accuracy(model: keras.Model, x, output: int, *, one_hot: bool) -> Callable:
    threshold = 0.0 if outputs.gives_logits(model, x, output) else 0.5

    def accuracy(y, y_pred):
        if y_pred.shape[-1] == 1:
            predicted, y = y_pred > threshold, _shaped_like(y, y_pred)
        else:
            predicted = ops.argmax(y_pred, axis=-1)
            y = ops.argmax(y, axis=-1) if one_hot else _shaped_like(y, predicted)
        right = ops.equal(ops.cast(predicted, "int32"), ops.cast(y, "int32"))  # In TensorFlow == may give no shape.
        return mean_per_example(ops.cast(right, "float32"))

    return accuracy


def _shaped_like(y, other):
    """Labels in the shape of something with as many numbers."""
    sizes = other.shape[1:]
    return ops.reshape(y, ops.shape(other) if None in sizes else (-1, *sizes))
