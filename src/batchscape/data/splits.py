"""Fixed splits: the same rows every time, stratified by label wherever the labels allow it."""

from typing import Any

import numpy as np
import optree
from sklearn import model_selection

from batchscape.errors import InvalidInput

SPLIT_SEED = 0
"""Seed of every split; runs never change it, so all seeds and batch sizes share one test set."""


def default_size(part: tuple[Any, np.ndarray]) -> int:
    """How many examples to hold out of a user's data: 10 %, at least one."""
    return max(1, round(0.1 * len(part[1])))


def hold_out(part: tuple[Any, np.ndarray], n_held_out: int):
    """Split examples into kept and held out.

    Args:
        part: (x, y): inputs, a tree of arrays of shape (n, ...), and targets, shape (n, ...).
        n_held_out: Number of examples to hold out, int in 1..n-1.

    Returns:
        (kept, held_out), each an (x, y) pair in the original order; see `split_rows`.
    """
    return tuple(
        optree.tree_map(lambda array, rows=rows: array[rows], part) for rows in split_rows(part[1], n_held_out)
    )


def split_rows(y: np.ndarray, n_held_out: int) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers to keep and to hold out, both sorted.

    Stratified when `y` holds class labels with at least two rows each and there is room for every class on both sides.
    """
    if not 1 <= n_held_out < len(y):
        raise InvalidInput(
            f"At least one example must stay on each side of a split. Received: {n_held_out} to hold out of {len(y)}"
        )
    labels, stratify = class_labels(y), None
    if labels is not None:
        counts = np.unique(labels, return_counts=True)[1]
        if counts.min() >= 2 and len(counts) <= min(n_held_out, len(y) - n_held_out):
            stratify = labels
    rows = np.arange(len(y))
    kept, held_out = model_selection.train_test_split(
        rows, test_size=n_held_out, random_state=SPLIT_SEED, stratify=stratify
    )
    return np.sort(kept), np.sort(held_out)


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
