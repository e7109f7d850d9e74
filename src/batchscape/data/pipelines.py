"""A user's own `tf.data.Dataset`: an unbatched one is fed to training as it is, and read once for evaluation."""

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import optree

from batchscape.backend import tensorflow_private
from batchscape.data import arrays, splits
from batchscape.errors import BatchscapeError, InvalidInput, UserCodeError, reason_of

MOST_EXAMPLES, MOST_BYTES = 10_000_000, 8 * 2**30
"""Where the reading of a Dataset stops that does not say how long it is: it may never end."""


def is_pipeline(value: Any) -> bool:
    """Whether `value` is a `tf.data.Dataset`, told without importing TensorFlow."""
    return hasattr(value, "element_spec") and hasattr(value, "as_numpy_iterator")


def is_batched(pipeline: Any) -> bool:
    """Whether a pipeline gives batches: its arrays have a first axis of no fixed length, or of that of its last `batch`.

    Raises:
        InvalidInput: If it gives anything but dense tensors of known rank.
    """
    import tensorflow as tf

    leaves = tf.nest.flatten(pipeline.element_spec)
    for leaf in leaves:
        _check_dense(leaf, tf)
    open_ended = [leaf.shape.rank > 0 and leaf.shape[0] is None for leaf in leaves]
    if any(open_ended) and not all(open_ended):
        raise InvalidInput(
            "Examples must have one length: batch them with padded_batch(...), or cut them to one. "
            f"Received: elements of {pipeline.element_spec}"
        )
    size = tensorflow_private.batch_size_of(pipeline)
    return all(open_ended) or all(leaf.shape.rank > 0 and leaf.shape[0] == size for leaf in leaves)


def _check_dense(spec: Any, tf: Any) -> None:
    remedies = {tf.RaggedTensorSpec: "map(lambda x: x.to_tensor())", tf.SparseTensorSpec: "map(tf.sparse.to_dense)"}
    for kind, remedy in remedies.items():
        if isinstance(spec, kind):
            raise InvalidInput(f"A tf.data.Dataset must give dense tensors: {remedy}. Received: {spec}")
    if not isinstance(spec, tf.TensorSpec):
        raise InvalidInput(f"A tf.data.Dataset must give tensors. Received: {spec}")
    if spec.shape.rank is None:
        raise InvalidInput(
            "A tf.data.Dataset must say the ranks of its tensors: give output_signature, or use tf.ensure_shape. "
            f"Received: {spec}"
        )


def read(given: tuple, rule: splits.Holdout, read_part: Callable):
    """Split what training is fed from an unbatched pipeline, without touching what it is fed.

    Of a (training, test) pair, half of the test examples become the validation set. Of a single pipeline, examples are held
    out for validation and test, and training is fed the pipeline without them.

    Args:
        given: One, two or three parts, the first an unbatched pipeline.
        rule: How examples are held out.
        read_part: Gives the arrays of any other part.

    Returns:
        (parts, pipeline): three parts (x, y, sample_weight) as arrays, and the training pipeline.
    """
    if len(given) == 3:
        return list(map(read_part, given)), given[0]
    if len(given) == 2:
        test = read_part(given[1])
        return [read_part(given[0]), *rule.hold_out(test, splits.count(test) // 2)], given[0]
    (pipeline,) = given
    everything = read_part(pipeline)
    if _order(everything) != _order(read_part(pipeline)):
        raise InvalidInput(
            "This tf.data.Dataset shuffles itself, so no fixed examples can be held out. Give a (training, test) pair "
            "of Datasets, or leave out shuffle(). Received: two passes in different orders"
        )
    size = rule.size(splits.count(everything))
    rest, test_rows = rule.rows(everything, size)
    train_rows, val_rows = (rest[rows] for rows in rule.rows(splits.take(everything, rest), size))
    parts = [splits.take(everything, rows) for rows in (train_rows, val_rows, test_rows)]
    return parts, _only(pipeline, np.isin(np.arange(splits.count(everything)), train_rows))


def _order(part: tuple) -> list[bytes]:
    """What two passes in the same order share: targets, and where there are none inputs, which may be augmented."""
    return [leaf.tobytes() for leaf in optree.tree_leaves(part[0] if part[1] is None else part[1])]


def sha256(pipeline: Any, parts: list[tuple]) -> str:
    """A digest that shuffling and random augmentation leave alone.

    It covers element types, the targets and sample weights of each part in order of size and, unless a second pass over the
    training examples gives others (augmentation), the inputs of each part in the order of their digests.

    Args:
        pipeline: The training pipeline.
        parts: One pass over the training, validation and test parts.
    """
    digest = hashlib.sha256(str(pipeline.element_spec).encode())
    for part in parts:
        for leaf in optree.tree_leaves(part[1:]):
            digest.update(np.sort(leaf, axis=0).tobytes())
    inputs = [sorted(arrays.row_digests(x)) for x, *_ in parts]
    if inputs[0] == sorted(arrays.row_digests(arrays.part_of(stack(pipeline))[0])):
        digest.update(repr(inputs).encode())
    return digest.hexdigest()


def stack(pipeline: Any) -> tuple:
    """One pass over an unbatched pipeline, as a part (x, y, sample_weight)."""
    rows = [element if isinstance(element, tuple) else (element,) for element in elements(pipeline)]
    if not rows:
        raise InvalidInput("A tf.data.Dataset must hold at least one example. Received: an empty one")
    if len(rows[0]) > 3:
        raise InvalidInput(
            f"A tf.data.Dataset must give x, (x, y) or (x, y, sample_weight). Received: {pipeline.element_spec}"
        )
    try:
        return arrays.part_of(optree.tree_map(lambda *leaves: np.stack(leaves), *rows))
    except BatchscapeError:
        raise
    except ValueError as error:
        raise InvalidInput(
            f"Examples must have equal shapes: batch them with padded_batch(...). Received: {pipeline.element_spec}"
        ) from error


def elements(pipeline: Any) -> Iterator:
    """The elements of a finite pipeline as NumPy; one that does not say its length may hold so many examples and bytes."""
    import tensorflow as tf

    cardinality = pipeline.cardinality()
    if cardinality == tf.data.INFINITE_CARDINALITY:
        raise InvalidInput(
            "A tf.data.Dataset must be finite: leave out repeat(), or give take(n) of it. Received: an infinite one"
        )
    batched, examples, size = is_batched(pipeline), 0, 0
    iterator = pipeline.as_numpy_iterator()
    while True:
        try:
            element = next(iterator)
        except StopIteration:
            return
        except Exception as error:
            raise UserCodeError(f"The tf.data.Dataset raised {reason_of(error)}") from error
        if cardinality == tf.data.UNKNOWN_CARDINALITY:
            leaves = [np.asarray(leaf) for leaf in optree.tree_leaves(element)]
            examples += len(leaves[0]) if batched else 1
            size += sum(leaf.nbytes for leaf in leaves)
            if examples > MOST_EXAMPLES or size > MOST_BYTES:
                raise InvalidInput(
                    "A tf.data.Dataset that does not say its length must end within "
                    f"{MOST_EXAMPLES:,} examples and {MOST_BYTES / 1e9:.1f} GB: give take(n) of it, or say its length with "
                    f"tf.data.experimental.assert_cardinality(n). Received: {examples:,} examples of {size / 1e9:.1f} GB so far"
                )
        yield element


def _only(pipeline: Any, keep: np.ndarray):
    """The elements of a pipeline whose position is marked in `keep`, bool, shape (n,)."""
    import tensorflow as tf

    mask = tf.constant(keep)
    return pipeline.enumerate().filter(lambda row, _: mask[row]).map(lambda _, element: element)
