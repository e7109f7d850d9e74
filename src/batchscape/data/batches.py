"""Sources that come in batches: read once into memory, so that batches can be made anew at each batch size.

They are a `tf.data.Dataset` of batches, a `keras.utils.PyDataset`, and anything else with a length that gives batches, such
as a PyTorch `DataLoader`.
"""

import itertools
import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import optree

from batchscape.data import arrays, pipelines, splits
from batchscape.errors import BatchscapeError, InvalidInput, UserCodeError, reason_of, warn

COMPARED = 100
"""Examples, or batches where there are fewer, of a second pass that tell whether a source shuffles itself."""

_log = logging.getLogger("batchscape")


def is_loader(value: Any) -> bool:
    """Whether `value` gives batches and says how many: no array, list, tuple, dict or string, nor `tf.data.Dataset`."""
    if isinstance(value, (str, bytes, list, tuple, set, frozenset, Mapping, type)) or pipelines.is_pipeline(value):
        return False
    if any(hasattr(value, name) for name in ("__array__", "dtype", "shape")):
        return False
    # Not of the value itself: a property may raise.
    counted = hasattr(value, "__len__") or hasattr(type(value), "num_batches")
    return counted and (hasattr(value, "__getitem__") or hasattr(value, "__iter__"))


def is_batched(value: Any) -> bool:
    """Whether `value` gives batches, and not single examples."""
    return pipelines.is_batched(value) if pipelines.is_pipeline(value) else is_loader(value)


def read(source: Any, *, ordered: bool) -> tuple:
    """One pass over a source of batches, as a part (x, y, sample_weight).

    Examples of a source that shuffles itself are put in the order of their digests, so that splits and names of runs are the
    same every time.

    Args:
        source: What `is_batched` accepts.
        ordered: Whether the order of the examples counts, so that a source that shuffles itself must be refused.
    """
    kind = _kind(source)
    batches = list(_passes(source))
    if not batches:
        raise InvalidInput(f"A source of batches must hold at least one. Received: an empty {kind}")
    part, batches = _join(batches, kind), batches[:COMPARED]  # The others would stay in memory beside their copy.
    n, size = splits.count(part), sum(leaf.nbytes for leaf in optree.tree_leaves(part))
    _log.info(
        "Read %s examples (%s MB) from %s into memory; batches are made anew at each batch size.",
        f"{n:,}", f"{size / 1e6:,.0f}" if size > 1e7 else f"{size / 1e6:.2g}", kind,
    )  # fmt: skip
    if not _differs(batches, _passes(source)):
        return part
    return _fixed(part, _join(list(_passes(source)), kind), kind, ordered=ordered)


def _fixed(part: tuple, second: tuple, kind: str, *, ordered: bool) -> tuple:
    """Examples in the order of their digests; as they are where a second pass gives others."""
    digests = arrays.row_digests(part)
    augmented = sorted(digests) != sorted(arrays.row_digests(second))
    if ordered and not (augmented and _same_targets(part, second)):
        raise InvalidInput(
            f'split="last" needs examples in a fixed order: leave out shuffling. Received: a {kind} that gives two passes '
            "in different orders"
        )
    if augmented:
        warn(
            f"The {kind} gives other examples at each pass (random augmentation): one pass was kept, and is trained on in "
            "every epoch. Put the augmentation into the model, or give an unbatched tf.data.Dataset (.unbatch()), which is "
            "fed as it is."
        )
        return part
    warn(
        f"The {kind} shuffles itself: its examples were put in a fixed order, so that splits and runs are the same every time."
    )
    return splits.take(part, np.argsort(digests, kind="stable"))


def _same_targets(part: tuple, second: tuple) -> bool:
    """Whether two passes have targets, and these in one order: then only inputs were disturbed."""
    pairs = list(zip(optree.tree_leaves(part[1]), optree.tree_leaves(second[1]), strict=False))
    return bool(pairs) and all(np.array_equal(ours, theirs) for ours, theirs in pairs)


def _differs(batches: list[tuple], again: Iterator[tuple]) -> bool:
    """Whether the first examples of a second pass are others than those of the first."""
    compared = 0
    for ours, theirs in zip(batches, again, strict=False):
        pairs = list(zip(optree.tree_leaves(ours), optree.tree_leaves(theirs), strict=False))
        if any(a.shape != b.shape or a.tobytes() != b.tobytes() for a, b in pairs):
            return True
        compared += splits.count(ours)
        if compared >= COMPARED:
            return False
    return False


def _tell(source: Any, moment: str) -> None:
    """Tell a source that a pass begins or ends, as `fit` does; shuffling between passes shows only then."""
    if hasattr(source, moment):
        getattr(source, moment)()


def _kind(source: Any) -> str:
    """What messages call a source."""
    return "tf.data.Dataset" if pipelines.is_pipeline(source) else type(source).__name__


def _passes(source: Any) -> Iterator[tuple]:
    """The batches of one pass, as parts (x, y, sample_weight)."""
    kind = _kind(source)
    try:
        _tell(source, "on_epoch_begin")
        for number, batch in enumerate(_batches(source)):
            part = arrays.part_of(_members(batch, kind, number))
            lengths = {len(leaf) for leaf in optree.tree_leaves(part)}
            if len(lengths) != 1:
                raise InvalidInput(
                    f"The arrays of a batch must have equal lengths. Received: {sorted(lengths)} in batch {number} of {kind}"
                )
            yield part
        _tell(source, "on_epoch_end")
    except BatchscapeError:
        raise
    except Exception as error:
        raise UserCodeError(f"The batches of {kind} raised {reason_of(error)}") from error


def _batches(source: Any) -> Iterable:
    if pipelines.is_pipeline(source):
        return pipelines.elements(source)
    length = _length(source)
    if hasattr(source, "__getitem__"):
        return (source[number] for number in range(length))
    return _exactly(source, length)


def _exactly(source: Any, length: int) -> Iterator:
    found = 0
    for batch in itertools.islice(source, length):
        found += 1
        yield batch
    if found != length:
        raise InvalidInput(
            f"A source of batches must give as many as its length says. Received: {found} of {length} from "
            f"{type(source).__name__}"
        )


def _length(source: Any) -> int:
    """Batches in a pass; `num_batches` comes before a length, as in `fit`."""
    length, reason = None, "no length"
    for ask in (lambda: getattr(source, "num_batches", None), lambda: len(source)):
        try:
            length = ask()
        except Exception as error:
            reason = reason_of(error)
        if length is not None:
            break
    if not isinstance(length, (int, np.integer)):
        raise InvalidInput(
            "A source of batches must say how many it gives: define __len__, or give a list of arrays. "
            f"Received: {type(source).__name__} with {reason}"
        )
    return int(length)


def _members(batch: Any, kind: str, number: int) -> tuple:
    """A batch as (x,), (x, y) or (x, y, sample_weight); like Keras, we take a list for a tuple."""
    members = tuple(batch) if isinstance(batch, (tuple, list)) else (batch,)
    if not 1 <= len(members) <= 3:
        raise InvalidInput(
            f"A batch must be x, (x, y) or (x, y, sample_weight). Received: {len(members)} parts in batch {number} of {kind}"
        )
    for leaf in optree.tree_leaves(members):
        if not len(leaf.shape if hasattr(leaf, "shape") else np.shape(leaf)):
            raise InvalidInput(
                f"{kind} must give batches, arrays of several examples: batch single examples, as a DataLoader does. "
                f"Received: {type(leaf).__name__} in batch {number}"
            )
    return members


def _join(batches: list[tuple], kind: str) -> tuple:
    """Batches one after the other, padded with zeros at the end where their later axes differ."""
    structures = {optree.tree_structure(batch) for batch in batches}
    if len(structures) != 1:
        raise InvalidInput(
            f"All batches must have one structure. Received: {' and '.join(map(str, structures))} in {kind}"
        )
    padded = pad(batches, f"Batches of {kind}")
    return optree.tree_map(lambda *leaves: np.concatenate(leaves), *padded)


def pad(parts: list[tuple], what: str) -> list[tuple]:
    """Parts whose arrays have equal shapes beyond the first axis, padded with zeros at the end to the longest."""
    columns = list(zip(*map(optree.tree_leaves, parts), strict=True))
    if any(len({leaf.ndim for leaf in column}) != 1 for column in columns):
        ranks = [sorted({leaf.ndim for leaf in column}) for column in columns]
        raise InvalidInput(f"Batches must have equal numbers of axes. Received: {ranks} axes in {what}")
    longest = [np.max([leaf.shape[1:] for leaf in column], axis=0) for column in columns]
    if all((leaf.shape[1:] == shape).all() for column, shape in zip(columns, longest, strict=True) for leaf in column):
        return parts
    warn(f"{what} have different lengths: shorter examples were padded with zeros at the end to the longest.")
    structure = optree.tree_structure(parts[0])
    return [optree.tree_unflatten(structure, list(map(_pad, optree.tree_leaves(part), longest))) for part in parts]


def _pad(leaf: np.ndarray, shape: np.ndarray) -> np.ndarray:
    missing = [(0, 0), *((0, int(most) - size) for size, most in zip(leaf.shape[1:], shape, strict=True))]
    return np.pad(leaf, missing) if leaf.dtype.kind != "S" else _pad_text(leaf, missing)


def _pad_text(leaf: np.ndarray, missing: list) -> np.ndarray:
    """Strings padded with empty ones; `np.pad` would write "0"."""
    padded = np.zeros([size + more for size, (_, more) in zip(leaf.shape, missing, strict=True)], leaf.dtype)
    padded[tuple(map(slice, leaf.shape))] = leaf
    return padded
