"""Decay the learning rate or grow the batch: two schedules with the same η/B in every epoch."""

import dataclasses
import math

import numpy as np

from batchscape.errors import InvalidInput
from batchscape.train.batch_schedule import BatchSizeSchedule
from batchscape.train.schedules import WarmupDecay


@dataclasses.dataclass(frozen=True)
class Twin:
    """How one of two twins trains.

    Attributes:
        learning_rate: The schedule for its optimizer.
        batch_size: The schedule for its feed, and a callback.
        updates: Updates it makes in `epochs` epochs, the last partial batch of each included.
    """

    learning_rate: WarmupDecay
    batch_size: BatchSizeSchedule
    updates: int


def twins(
    learning_rate: float,
    batch_size: int,
    n_train: int,
    *,
    at: list[int],
    epochs: int,
    factor: int = 5,
    limit: int | None = None,
) -> tuple[Twin, Twin]:
    """Two schedules that divide η/B by `factor` at the same epochs: one divides the learning rate, one multiplies the batch.

    Smith et al. find the same curves over epochs from both, in fewer updates where the batch grows. Where B · factor would
    exceed `limit`, the growing twin divides its rate from there on, so that η/B stays the same in both.

    Args:
        learning_rate: η in the first epochs, > 0.
        batch_size: B in the first epochs, int ≥ 1.
        n_train: Number of training examples.
        at: Epochs before which η/B falls, rising, from 1 to `epochs` − 1.
        epochs: Length of the run in epochs.
        factor: By how much, int ≥ 2.
        limit: The largest batch size; `n_train` by default.

    Returns:
        (decaying, growing), each a `Twin`; a `schedule.feed` keeps the last partial batch.

    Raises:
        InvalidInput: If a value is not admissible.

    Example:
        >>> decaying, growing = twins(0.1, 10, 1000, at=[2, 4], epochs=6, factor=5)
        >>> decaying.updates, growing.updates
        (600, 248)
        >>> [growing.batch_size.rule(epoch, ()) for epoch in range(6)]
        [10, 10, 50, 50, 250, 250]

    References:
        Smith, Kindermans, Ying & Le (2017), Don't decay the learning rate, increase the batch size, arXiv:1711.00489.
    """
    limit = n_train if limit is None else limit
    places = [0, *at, epochs]
    whole = all(isinstance(value, (int, np.integer)) for value in (batch_size, factor, limit, *places))
    if not whole or places != sorted(set(places)) or factor < 2 or not 1 <= batch_size <= limit <= n_train:
        raise InvalidInput(
            "Twins need rising epochs within the run, an integer factor ≥ 2 and 1 ≤ batch_size ≤ limit ≤ n_train. "
            f"Received: at={list(at)}, epochs={epochs}, factor={factor}, batch_size={batch_size}, limit={limit}, "
            f"n_train={n_train}"
        )
    grown = [batch_size]
    for _ in at:
        grown.append(grown[-1] * factor if grown[-1] * factor <= limit else grown[-1])
    return tuple(_twin(learning_rate, sizes, places, n_train, factor) for sizes in ([batch_size] * len(grown), grown))


def _twin(learning_rate: float, sizes: list[int], places: list[int], n_train: int, factor: int) -> Twin:
    """The twin of these batch sizes, one from each place on: its rate falls where its batch does not grow."""
    lengths = np.diff(places) * [math.ceil(n_train / size) for size in sizes]
    begins = np.cumsum([0, *lengths])
    falls = [int(begins[i]) for i in range(1, len(sizes)) if sizes[i] == sizes[i - 1]]
    rate = WarmupDecay(learning_rate, decay="steps" if falls else "constant", at=falls, factor=1 / factor)
    return Twin(rate, BatchSizeSchedule.steps(dict(zip(places, sizes, strict=False))), int(begins[-1]))
