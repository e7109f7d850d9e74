"""Fixed splits: the same rows every time, stratified by label wherever the labels allow it."""

import dataclasses
import numbers
from typing import Any

import numpy as np
import optree
from sklearn import model_selection

from batchscape.errors import InvalidInput, unknown_name

SPLIT_SEED = 0
"""Seed of every split; runs never change it, so all seeds and batch sizes share one test set."""


@dataclasses.dataclass(frozen=True)
class Holdout:
    """How examples are held out where the source gives no validation or test part.

    Attributes:
        fraction: The share of the examples that is held out, in (0, 0.5); at least one example.
        how: `"stratified"`, drawn at random and by label where the labels allow it, or `"last"`, the last in their order.
    """

    fraction: float = 0.1
    how: str = "stratified"

    def __post_init__(self):
        if (
            isinstance(self.fraction, bool)
            or not isinstance(self.fraction, numbers.Real)
            or not 0 < self.fraction < 0.5
        ):
            raise InvalidInput(
                "validation_split must be a number between 0 and 0.5, the share held out for validation and for test. "
                f"Received: validation_split={self.fraction!r}"
            )
        if self.how not in ("stratified", "last"):
            raise unknown_name("split", self.how, ("stratified", "last"))

    def size(self, n: int) -> int:
        """How many of `n` examples to hold out."""
        return max(1, round(self.fraction * n))

    def hold_out(self, part: tuple, n_held_out: int | None = None) -> tuple[tuple, tuple]:
        """Split examples into kept and held out.

        Args:
            part: (x, y, sample_weight): trees of arrays of shape (n, ...); y and sample_weight may be None.
            n_held_out: Number of examples to hold out, int in 1..n-1; None for the fraction.

        Returns:
            (kept, held_out), each a part in the original order; see `rows`.
        """
        return tuple(take(part, rows) for rows in self.rows(part, n_held_out))

    def rows(self, part: tuple, n_held_out: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Row numbers to keep and to hold out, both sorted; see `hold_out`."""
        n = count(part)
        n_held_out = self.size(n) if n_held_out is None else n_held_out
        if not 1 <= n_held_out < n:
            raise InvalidInput(
                f"At least one example must stay on each side of a split. Received: {n_held_out} to hold out of {n}"
            )
        rows = np.arange(n)
        if self.how == "last":
            return rows[:-n_held_out], rows[-n_held_out:]
        kept, held_out = model_selection.train_test_split(
            rows, test_size=n_held_out, random_state=SPLIT_SEED, stratify=_strata(part[1], n_held_out)
        )
        return np.sort(kept), np.sort(held_out)


@dataclasses.dataclass(frozen=True)
class Whole(Holdout):
    """Holds nothing out, for a model that is only measured: its training, validation and test parts are all examples."""

    def rows(self, part: tuple, n_held_out: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """All rows, twice."""
        rows = np.arange(count(part))
        return rows, rows


def take(part: tuple, rows: np.ndarray) -> tuple:
    """Some rows of all arrays of a part."""
    return optree.tree_map(lambda array: array[rows], part)


def count(tree: Any) -> int:
    """Number of examples in an array, or in a tree of them."""
    return len(optree.tree_leaves(tree)[0])


def _strata(y: Any, n_held_out: int) -> np.ndarray | None:
    """Class labels to stratify by: where each has at least two rows and there is room for every class on both sides."""
    labels = class_labels(y) if isinstance(y, np.ndarray) else None
    if labels is None:
        return None
    counts = np.unique(labels, return_counts=True)[1]
    has_room = len(counts) <= min(n_held_out, len(y) - n_held_out)
    return labels if counts.min() >= 2 and has_room else None


def is_one_hot(y: np.ndarray) -> bool:
    """Whether `y`, shape (n, classes ≥ 2), holds one 1 a row and zeros."""
    return y.ndim == 2 and y.shape[1] > 1 and bool(np.isin(y, (0, 1)).all() and (y.sum(axis=1) == 1).all())


def most_classes(n_labels: int) -> int:
    """How many classes there may be where so many labels occur; beyond that labels are numbers, not classes."""
    return max(10_000, 100 * n_labels)


def too_far_apart(y: np.ndarray) -> str:
    """Why integers ≥ 0 cannot be labels of classes 0 … N − 1, since nearly all of these never occur; "" where they can."""
    if y.dtype.kind not in "iu" or not y.size:
        return ""
    occur, most = len(np.unique(y)), int(y.max())
    if y.min() < 0 or most < most_classes(occur):
        return ""
    return (
        f"Labels must be 0 … N − 1 with N ≤ {most_classes(occur):,}; only {occur:,} of them occur. "
        f"Received: labels from {int(y.min()):,} to {most:,}"
    )


def class_labels(y: np.ndarray) -> np.ndarray | None:
    """Class labels, shape (n,), from integer or one-hot targets; None for regression targets."""
    if is_one_hot(y):
        return y.argmax(axis=1)
    return y.reshape(-1) if y.dtype.kind in "iu" and y.size == len(y) else None
