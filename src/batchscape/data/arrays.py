"""Arrays as models take them: numbers in the types that Keras computes with, strings as bytes, all of them checked.

A part of the data, such as the training examples, is a tuple (x, y, sample_weight) of trees; y and sample_weight may be None.
"""

import hashlib
from typing import Any

import numpy as np
import optree

from batchscape import backend
from batchscape.data import splits
from batchscape.errors import InvalidInput, reason_of

NARROW = {"float64": "float32", "int64": "int32", "uint64": "int32"}
"""What Keras computes with by default, in place of what NumPy makes."""


def part_of(given: tuple) -> tuple:
    """The part (x, y, sample_weight) of what a user gives as (x,), (x, y) or (x, y, sample_weight)."""
    x, y, sample_weight = (*given, None, None)[:3]
    return (
        optree.tree_map(_inputs, x),
        optree.tree_map(_targets, y),
        optree.tree_map(lambda leaf: _numbers(leaf).astype(np.float32, copy=False), sample_weight),
    )


def _inputs(leaf: Any) -> np.ndarray:
    array = _array(leaf)
    if array.dtype.kind in "SUO" and (text := _text(array)) is not None:
        if backend.name() != "tensorflow":
            raise InvalidInput(
                f"Strings need TensorFlow: map them to integers first. Received: KERAS_BACKEND={backend.name()}, "
                f"dtype {array.dtype}, shape {array.shape}"
            )
        return text
    if _range_beyond_32_bits(array) and int(array.max()) < 2**63 and backend.name() == "tensorflow":
        return array.astype(np.int64, copy=False)
    return _numbers(array)


def _targets(leaf: Any) -> np.ndarray:
    array = _array(leaf)
    if array.dtype.kind in "SUO" and _text(array) is not None:
        raise InvalidInput(
            "Targets must be numbers: map them to integers, as in np.unique(y, return_inverse=True)[1]. "
            f"Received: strings such as {array.reshape(-1)[:1].tolist()}"
        )
    return _numbers(array)


def _numbers(leaf: Any) -> np.ndarray:
    """An array of numbers, float64 as float32, int64 and uint64 as int32."""
    array = _array(leaf)
    if array.dtype.kind not in "biuf":
        raise InvalidInput(
            "Data must be arrays of numbers, or of strings as inputs, one row an example; give columns of several types as "
            f"a dict of arrays. Received: dtype {array.dtype}, shape {array.shape}"
        )
    if bounds := _range_beyond_32_bits(array):
        raise InvalidInput("Whole numbers must fit 32 bits. Received: values from {} to {}".format(*bounds))
    return array.astype(NARROW.get(array.dtype.name, array.dtype), copy=False)


def _array(leaf: Any) -> np.ndarray:
    """A leaf as NumPy; what is no dense array is refused."""
    if hasattr(leaf, "toarray"):
        raise InvalidInput(f"Arrays must be dense: give x.toarray(). Received: a sparse {type(leaf).__name__}")
    if hasattr(leaf, "dense_shape"):
        raise InvalidInput(f"Arrays must be dense: give tf.sparse.to_dense(x). Received: a {type(leaf).__name__}")
    if hasattr(leaf, "row_splits"):
        raise InvalidInput(f"Arrays must be dense: give x.to_tensor(). Received: a {type(leaf).__name__}")
    try:
        array = np.asarray(leaf)
    except Exception as error:  # Of tensors on a GPU, or whose gradients are recorded.
        raise InvalidInput(
            f"Data must be what np.asarray takes. Received: {type(leaf).__name__}, {reason_of(error)}"
        ) from error
    if not array.ndim:
        raise InvalidInput(
            "Data must be arrays, one row an example; make arrays of lists of numbers or strings with np.asarray. "
            f"Received: {type(leaf).__name__}, dtype {array.dtype}, shape ()"
        )
    return array


def _text(array: np.ndarray) -> np.ndarray | None:
    """Strings as UTF-8 bytes; None where an array of objects holds anything else."""
    if array.dtype.kind == "S":
        return array
    if not array.size or not all(isinstance(value, (str, bytes)) for value in array.reshape(-1)):
        return None
    try:
        encoded = [value if isinstance(value, bytes) else value.encode() for value in array.reshape(-1)]
    except UnicodeEncodeError as error:
        raise InvalidInput(f"Strings must be text that UTF-8 can write. Received: {error.object[:20]!r}") from error
    return np.array(encoded, dtype="S").reshape(array.shape)


def _range_beyond_32_bits(array: np.ndarray) -> tuple[int, int] | None:
    """The least and the largest of whole numbers that do not fit 32 bits; None for any others."""
    if array.dtype.name not in ("int64", "uint64") or not array.size:
        return None
    least, most = int(array.min()), int(array.max())
    return None if least >= -(2**31) and most < 2**31 else (least, most)


def check(part: tuple, which: str, name: str) -> None:
    """Refuse a part whose examples cannot be trained on: unequal lengths, NaN, weights that fit no targets.

    Args:
        part: What `part_of` gives.
        which: `"given"`, `"training"`, `"validation"` or `"test"`, for the message.
        name: Of the data set, for the message.
    """
    kinds = dict(zip(("inputs", "targets", "sample weights"), part, strict=True))
    leaves = [(leaf, kind) for kind, tree in kinds.items() for leaf in optree.tree_leaves(tree)]
    if not leaves or leaves[0][1] != "inputs":
        raise InvalidInput(f"Data need at least one array of inputs. Received: none in the {which} data of {name}")
    if any(leaf is None for tree in part if tree is not None for leaf in optree.tree_leaves(tree, none_is_leaf=True)):
        raise InvalidInput(
            "Targets that are there must be arrays: leave out those of outputs without a loss. "
            f"Received: None among them in the {which} data of {name}"
        )
    lengths = [len(leaf) for leaf, _ in leaves]
    if len(set(lengths)) != 1:
        tuples = "" if not all(isinstance(tree, list) for tree in part[:2]) else (
            "; lists are several inputs and several targets: give tuples, as in ((x_train, y_train), (x_test, y_test)), "
            "for training and test parts"
        )  # fmt: skip
        raise InvalidInput(
            f"Inputs and targets must have equal lengths{tuples}. Received: {lengths} in the {which} data of {name}"
        )
    if lengths[0] == 0:
        raise InvalidInput(f"Data need at least one example. Received: none in the {which} data of {name}")
    for leaf, kind in leaves:
        _check_finite(leaf, f"{which} {kind} of {name}")
    _check_weights(*part[1:], f"the {which} data of {name}")


def _check_finite(leaf: np.ndarray, what: str) -> None:
    if leaf.dtype.kind == "f" and not np.isfinite(leaf).all():
        bad = np.count_nonzero(~np.isfinite(leaf.reshape(len(leaf), -1)).all(axis=1))
        raise InvalidInput(f"The {what} must be finite. Received: NaN or infinity in {bad} examples")


def _check_weights(y: Any, sample_weight: Any, where: str) -> None:
    if sample_weight is None:
        return
    if y is None:
        raise InvalidInput(f"Sample weights weigh the losses of targets: give (x, y, sample_weight). Received: {where}")
    if not isinstance(sample_weight, np.ndarray) and optree.tree_structure(sample_weight) != optree.tree_structure(y):
        raise InvalidInput(
            "Sample weights must be one array, or one for each output in the structure of the targets. "
            f"Received: {optree.tree_structure(sample_weight)} for {optree.tree_structure(y)} in {where}"
        )
    least = min(float(leaf.min()) for leaf in optree.tree_leaves(sample_weight))
    if least < 0:
        raise InvalidInput(f"Sample weights must be at least 0. Received: {least:g} in {where}")


def check_structures(parts: list[tuple], name: str) -> None:
    """Refuse parts, for training, validation and test, of different structures."""
    structures = [optree.tree_structure(part) for part in parts]
    if len(set(structures)) != 1:
        differ = " and ".join(dict.fromkeys(map(str, structures)))
        raise InvalidInput(
            "Training, validation and test parts must have the same inputs, targets and sample weights. "
            f"Received: {differ} in {name}"
        )


def check_shapes(parts: list[tuple], name: str) -> None:
    """Refuse parts whose examples have different shapes."""
    shapes = [[leaf.shape[1:] for leaf in optree.tree_leaves(part)] for part in parts]
    for other in shapes[1:]:
        if other != shapes[0]:
            raise InvalidInput(
                f"Training and test examples of {name} must have equal shapes. Received: {shapes[0]} and {other}"
            )


def equal_widths(parts: list[tuple]) -> list[tuple]:
    """Parts whose whole numbers all have 64 bits where those of one need them."""

    def widen(*leaves):
        wide = any(leaf.dtype == np.int64 for leaf in leaves)
        return [leaf.astype(np.int64, copy=False) if wide and leaf.dtype.kind in "iu" else leaf for leaf in leaves]

    columns = [optree.tree_leaves(part) for part in parts]
    rows = zip(*(widen(*leaves) for leaves in zip(*columns, strict=True)), strict=True)
    return [optree.tree_unflatten(optree.tree_structure(parts[0]), row) for row in rows]


def num_classes(targets: list) -> int | None:
    """Number of classes of integer or one-hot labels, given the targets of all parts; None for other targets."""
    if not all(isinstance(y, np.ndarray) for y in targets):
        return None
    if splits.is_one_hot(targets[0]):
        return targets[0].shape[1]
    if targets[0].dtype.kind not in "iu":
        return None
    y = np.concatenate([part.reshape(-1) for part in targets])
    if y.min() < 0 or splits.too_far_apart(y):  # Targets of a regression.
        return None
    return int(y.max()) + 1


def sha256(parts: list[tuple]) -> str:
    """A digest of all arrays, and of which are inputs, targets and sample weights."""
    digest = hashlib.sha256()
    for x, y, _ in parts:
        _add(digest, (x, y))
        if not isinstance(
            y, np.ndarray
        ):  # One array of targets adds nothing: runs of earlier versions keep their names.
            digest.update(f"targets {optree.tree_paths(y)}".encode())
    for *_, sample_weight in parts:
        if sample_weight is not None:
            digest.update(b"sample_weight")
            _add(digest, sample_weight)
    return digest.hexdigest()


def _add(digest, tree: Any) -> None:
    for leaf in optree.tree_leaves(tree):
        digest.update(f"{leaf.dtype}{leaf.shape}".encode())
        digest.update(np.ascontiguousarray(leaf).data)


def row_digests(tree: Any) -> list[str]:
    """A digest of each example, in the order of the examples."""
    leaves = optree.tree_leaves(tree)
    return [
        hashlib.sha256(b"".join(np.ascontiguousarray(leaf[row]).tobytes() for leaf in leaves)).hexdigest()
        for row in range(len(leaves[0]))
    ]
