"""A user's own unbatched `tf.data.Dataset`: fed to training as it is, read once for evaluation."""

import hashlib
from typing import Any

import numpy as np
import optree

from batchscape.data import splits
from batchscape.errors import InvalidInput, UserCodeError, reason_of


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


def sha256(pipeline: Any, arrays: list) -> str:
    """A digest that shuffling and random augmentation leave alone.

    It covers element types, the targets of each part in order of size and, unless a second pass over the training
    examples gives others (augmentation), the inputs of each part in the order of their digests.

    Args:
        pipeline: The training pipeline.
        arrays: One pass: x and y of the training, validation and test parts in turn.
    """
    digest = hashlib.sha256(str(pipeline.element_spec).encode())
    for y in arrays[1::2]:
        digest.update(np.sort(y, axis=0).tobytes())
    inputs = [_row_digests(x) for x in arrays[::2]]
    if inputs[0] == _row_digests(_stack(pipeline)[0]):
        digest.update(repr(inputs).encode())
    return digest.hexdigest()


def _row_digests(x: Any) -> list[str]:
    """A digest of each example, sorted."""
    leaves = optree.tree_leaves(x)
    return sorted(
        hashlib.sha256(b"".join(np.ascontiguousarray(leaf[row]).tobytes() for leaf in leaves)).hexdigest()
        for row in range(len(leaves[0]))
    )


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
    try:
        elements = list(pipeline.as_numpy_iterator())
    except Exception as error:
        raise UserCodeError(f"The tf.data.Dataset raised {reason_of(error)}") from error
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
