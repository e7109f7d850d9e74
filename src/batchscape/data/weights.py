"""Sample weights from the weights of classes, as `fit(class_weight=...)` makes them."""

import math
import numbers
from collections.abc import Mapping
from typing import Any

import numpy as np
import optree

from batchscape.data import splits
from batchscape.errors import InvalidInput


def weigh(parts: list[tuple], class_weight: Mapping[int, float]) -> list[tuple]:
    """Multiply the sample weights of all parts with the weights of their classes.

    Args:
        parts: (x, y, sample_weight) of the training, validation and test parts; y holds integer or one-hot labels.
        class_weight: Weights by label; classes that it lacks count 1.
    """
    _check(class_weight)
    labels = [_labels(y) for _, y, _ in parts]
    one_hot = splits.is_one_hot(parts[0][1])
    classes = parts[0][1].shape[1] if one_hot else 1 + max(int(each.max()) for each in labels)
    known = {*range(classes), *(int(label) for each in labels for label in np.unique(each))}
    if unknown := [label for label in class_weight if label not in known]:
        raise InvalidInput(
            f"class_weight must name labels of the data, {min(known)} … {max(known)}. Received: {unknown[0]!r}"
        )
    return [_weigh(part, each, class_weight) for part, each in zip(parts, labels, strict=True)]


def _check(class_weight: Any) -> None:
    if not isinstance(class_weight, Mapping) or not class_weight:
        raise InvalidInput(f"class_weight must be a dict of weights by label. Received: {class_weight!r}")
    for weight in class_weight.values():
        if not isinstance(weight, numbers.Real) or not math.isfinite(weight) or weight < 0:
            raise InvalidInput(f"class_weight must hold finite weights of at least 0. Received: {weight!r}")


def _labels(y: Any) -> np.ndarray:
    """The labels of one output, shape (n,); 0 and 1 may be floats or bools, as binary targets often are."""
    if isinstance(y, np.ndarray):
        whole = y.dtype.kind == "b" or (y.dtype.kind == "f" and (y == np.floor(y)).all())
        labels = splits.class_labels(y.astype(np.int32) if whole else y)
        if labels is not None:
            return labels
    received = (
        f"targets of dtype {y.dtype}, shape {y.shape}" if isinstance(y, np.ndarray) else "targets of several outputs"
    )
    raise InvalidInput(
        "class_weight needs integer or one-hot labels of one output: give (x, y, sample_weight) instead. "
        f"Received: {'no targets' if y is None else received}"
    )


def _weigh(part: tuple, labels: np.ndarray, class_weight: Mapping[int, float]) -> tuple:
    x, y, sample_weight = part
    found, rows = np.unique(labels, return_inverse=True)
    weights = np.array([class_weight.get(int(label), 1.0) for label in found], np.float32)[rows]
    if sample_weight is not None:
        (given,) = optree.tree_leaves(sample_weight)
        weights = given * weights.reshape(-1, *[1] * (given.ndim - 1))
    return x, y, weights
