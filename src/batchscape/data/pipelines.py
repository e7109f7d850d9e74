"""A user's own unbatched `tf.data.Dataset`: fed to training as it is, read once for evaluation."""

import hashlib
from typing import Any

import numpy as np

from batchscape.data import splits
from batchscape.errors import InvalidInput


def is_pipeline(value: Any) -> bool:
    """Whether `value` is a `tf.data.Dataset`, told without importing TensorFlow."""
    return hasattr(value, "element_spec") and hasattr(value, "as_numpy_iterator")


def read(given: Any):
    """Split a pipeline, or a (training, test) pair of pipelines, without touching what training is fed.

    Of a pair, half of the test examples become the validation set. Of a single pipeline, 10 % of the examples each are
    held out for validation and test, and training is fed the pipeline without them.

    Returns:
        (train, val, test, pipeline): three (x, y) parts as arrays, and the training pipeline.
    """
    if not is_pipeline(given):
        test = _stack(given[1])
        val, test = splits.hold_out(test, len(test[1]) // 2)
        return _stack(given[0]), val, test, given[0]
    everything = _stack(given)
    if not np.array_equal(everything[1], _stack(given)[1]):
        raise InvalidInput(
            "This tf.data.Dataset shuffles itself, so no fixed examples can be held out. Give a (training, test) pair "
            "of Datasets, or leave out shuffle(). Received: two passes in different orders"
        )
    size = splits.default_size(everything)
    rest, test_rows = splits.split_rows(everything[1], size)
    train_rows, val_rows = (rest[rows] for rows in splits.split_rows(everything[1][rest], size))
    parts = (_take(everything, rows) for rows in (train_rows, val_rows, test_rows))
    return *parts, _only(given, np.isin(np.arange(len(everything[1])), train_rows))


def sha256(pipeline: Any, targets: list[np.ndarray]) -> str:
    """A digest that shuffling and augmentation leave alone: element types, and the targets of each part in order of size."""
    digest = hashlib.sha256(str(pipeline.element_spec).encode())
    for y in targets:
        digest.update(np.sort(y, axis=0).tobytes())
    return digest.hexdigest()


def _stack(pipeline: Any):
    """One pass over an unbatched pipeline of (x, y) elements, as arrays."""
    import tensorflow as tf

    spec = pipeline.element_spec
    if not isinstance(spec, tuple) or len(spec) != 2:
        raise InvalidInput(f"A tf.data.Dataset must give (x, y) pairs. Received: elements of {spec}")
    if any(part.shape.rank is None or None in part.shape.as_list()[:1] for part in tf.nest.flatten(spec)):
        raise InvalidInput(f"A tf.data.Dataset must be unbatched: the batch size is what we vary. Received: {spec}")
    if pipeline.cardinality() == tf.data.INFINITE_CARDINALITY:
        raise InvalidInput("A tf.data.Dataset must be finite; leave out repeat(). Received: an infinite one")
    elements = list(pipeline.as_numpy_iterator())
    if not elements:
        raise InvalidInput("A tf.data.Dataset must hold at least one example. Received: an empty one")
    return tf.nest.map_structure(lambda *rows: np.stack(rows), *elements)


def _take(part, rows: np.ndarray):
    import tensorflow as tf

    return tf.nest.map_structure(lambda array: array[rows], part)


def _only(pipeline: Any, keep: np.ndarray):
    """The elements of a pipeline whose position is marked in `keep`, bool, shape (n,)."""
    import tensorflow as tf

    mask = tf.constant(keep)
    return pipeline.enumerate().filter(lambda row, _: mask[row]).map(lambda _, element: element)
