"""A batch size that changes during one `model.fit`: the feed that gives the batches, and the rules that size them.

A Keras callback cannot change the batch size, and `fit` caches `num_batches`. We therefore return an object whose value
changes with the epoch.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence

import keras
import numpy as np

from batchscape.data.order import epoch_order
from batchscape.errors import InvalidInput

Rule = Callable[[int, Sequence[float]], int]
"""Batch size of an epoch (zero-based), from its number and the monitored values of all epochs before it."""


class BatchSizeSchedule(keras.callbacks.Callback):
    """A Keras callback that changes the batch size between the epochs of one call of `model.fit`.

        schedule = BatchSizeSchedule.steps({0: 32, 30: 160, 60: 800})
        model.fit(schedule.feed(x, y, seed=0), epochs=90, callbacks=[schedule, ...])

    One call, so there is one History, and all callbacks (checkpoints, early stopping, `BackupAndRestore`) work as ever. The
    batch size of an epoch depends on its number, and for some rules on what was monitored before. So a run that was
    interrupted goes on with `initial_epoch` and the model loaded, and where the rule monitors, `schedule.resume(values)`.

    Args:
        rule: Batch size of an epoch, from its zero-based number and the monitored values of the epochs before.
        monitor: What the rule looks at, a key of the logs at the end of an epoch, or a function of the model that measures
            it there; None for nothing. History's `loss` is a mean over moving weights, and not comparable between batch
            sizes: prefer `"val_loss"`.

    Attributes:
        batch_sizes: Batch size of each epoch that has begun, by its number.
        monitored: The values of `monitor`, one an epoch.

    Raises:
        InvalidInput: From `fit`, if a batch size is no integer from 1 to the number of examples.

    Example:
        >>> [BatchSizeSchedule.geometric(8, factor=2, every=2).rule(epoch, ()) for epoch in range(6)]
        [8, 8, 16, 16, 32, 32]
    """

    def __init__(self, rule: Rule, *, monitor: str | Callable[[keras.Model], float] | None = None):
        super().__init__()
        self.rule, self.monitor = rule, monitor
        self.batch_sizes: dict[int, int] = {}
        self.monitored: list[float] = []
        self._feed: Feed | None = None

    @classmethod
    def constant(cls, batch_size: int) -> "BatchSizeSchedule":
        """The same batch size in every epoch."""
        return cls.steps({0: batch_size})

    @classmethod
    def steps(cls, batch_sizes: Mapping[int, int]) -> "BatchSizeSchedule":
        """The batch size from each epoch on, such as `{0: 32, 30: 160}`."""
        if 0 not in batch_sizes or min(batch_sizes) < 0:
            raise InvalidInput(f"Steps need epochs ≥ 0 and a batch size from epoch 0. Received: {dict(batch_sizes)}")
        epochs = sorted(batch_sizes)
        return cls(lambda epoch, _: batch_sizes[max(first for first in epochs if first <= epoch)])

    @classmethod
    def geometric(cls, first: int, *, factor: float, every: int = 1, limit: int | None = None) -> "BatchSizeSchedule":
        """A batch size that grows geometrically: first · factor^⌊epoch / every⌋, rounded, at most `limit`."""
        _require_growth(first, factor, every)
        return cls(lambda epoch, _: _limited(first * factor ** (epoch // every), limit))

    @classmethod
    def on_plateau(
        cls,
        first: int,
        *,
        factor: float,
        limit: int,
        patience: int = 3,
        min_delta: float = 0.0,
        monitor: str | Callable[[keras.Model], float] = "val_loss",
    ) -> "BatchSizeSchedule":
        """A batch size that is multiplied by `factor`, up to `limit`, on a plateau.

        A plateau is `patience` epochs in which `monitor` has not fallen by more than `min_delta`.
        """
        _require_growth(first, factor, patience)
        return cls(
            lambda _, seen: _limited(first * factor ** _plateaus(seen, patience, min_delta), limit), monitor=monitor
        )

    @classmethod
    def by_noise_scale(
        cls, first: int, *, measure: Callable[[keras.Model], float], limit: int, share: float = 1.0
    ) -> "BatchSizeSchedule":
        """A batch size of `share` times the last epoch's gradient noise scale, from `first` up to `limit`; it never shrinks.

        Args:
            first: Batch size of the first epoch, and the smallest.
            measure: Noise scale of the model in examples, such as
                `lambda model: gradient_noise_scale(f, model.get_weights()).simple`; one that is not finite counts as `limit`.
            limit: The largest batch size.
            share: Batch size as a share of the noise scale, > 0.
        """
        if first < 1 or share <= 0 or limit < first:
            raise InvalidInput(
                f"A batch size by noise scale needs 1 ≤ first ≤ limit and share > 0. "
                f"Received: first={first}, limit={limit}, share={share}"
            )
        return cls(
            lambda _, seen: _limited(
                max([first, *(share * value if math.isfinite(value) else limit for value in seen)]), limit
            ),
            monitor=measure,
        )

    def feed(self, x, y, *, seed: int = 0, last_batch: str = "keep") -> "Feed":
        """The training data, for `fit`: each epoch in `epoch_order`, in batches of the size of that epoch.

        Args:
            x: Inputs, an array of shape (n, ...) or a tree of such arrays.
            y: Targets, shape (n, ...).
            seed: Seed of the sample order.
            last_batch: `"keep"` or `"drop"` the last partial batch of an epoch.
        """
        self._feed = Feed(x, y, self._size_of(0, len(y)), seed=seed, last_batch=last_batch)
        return self._feed

    def resume(self, monitored: Sequence[float]) -> None:
        """Go on after epochs whose monitored values were these, such as `history["val_loss"]`."""
        self.monitored = [float(value) for value in monitored]

    def on_train_begin(self, logs=None):
        """Refuse what is wrong before the first update, as far as the rule can tell."""
        if self._feed is None:
            raise InvalidInput("BatchSizeSchedule sizes its own feed: fit(schedule.feed(x, y), ...). Received: no feed")
        if self.monitor is None:
            for epoch in range(self.params["epochs"]):
                self._size_of(epoch, self._feed.n)

    def on_epoch_begin(self, epoch, logs=None):
        """Size the batches of this epoch."""
        if self.monitor is not None and len(self.monitored) != epoch:
            raise InvalidInput(
                f"A batch size that follows what was monitored needs the values of all epochs before: schedule.resume(values). "
                f"Received: {len(self.monitored)} values before epoch {epoch}"
            )
        self.batch_sizes[epoch] = size = self._size_of(epoch, self._feed.n)
        self._feed.begin(epoch, size)

    def on_epoch_end(self, epoch, logs=None):
        """Keep what is monitored, and put the batch size into the History."""
        if logs is not None:
            logs["batch_size"] = self.batch_sizes[epoch]
        if self.monitor is None:
            return
        if not callable(self.monitor) and self.monitor not in logs:
            raise InvalidInput(f"monitor must be one of {', '.join(sorted(logs))}. Received: monitor={self.monitor!r}")
        self.monitored.append(float(self.monitor(self.model) if callable(self.monitor) else logs[self.monitor]))

    def _size_of(self, epoch: int, n: int) -> int:
        size = self.rule(epoch, self.monitored)
        if isinstance(size, bool) or not isinstance(size, (int, np.integer)) or not 1 <= size <= n:
            raise InvalidInput(
                f"A batch size must be an integer from 1 to the number of training examples, {n}. "
                f"Received: {size!r} in epoch {epoch}"
            )
        return int(size)


class Feed(keras.utils.PyDataset):
    """Training data in batches whose size may change between epochs; made by `BatchSizeSchedule.feed`."""

    def __init__(self, x, y, batch_size: int, *, seed: int, last_batch: str):
        super().__init__()
        if last_batch not in ("keep", "drop"):
            raise InvalidInput(f'last_batch must be "keep" or "drop". Received: last_batch={last_batch!r}')
        self.n, self._data, self._seed, self._keep = len(y), (x, y), seed, last_batch == "keep"
        self.begin(0, batch_size)

    def begin(self, epoch: int, batch_size: int) -> None:
        """Go to the order of an epoch, in batches of this size."""
        self._batch_size, self._order, self._next = batch_size, epoch_order(self.n, self._seed, epoch), 0

    @property
    def num_batches(self) -> "_Count":
        """Batches in the epoch that is running, now and later."""
        return _Count(self.count)

    def count(self) -> int:
        """Batches in the epoch that is running."""
        return math.ceil(self.n / self._batch_size) if self._keep else self.n // self._batch_size

    def __getitem__(self, _):
        """The next batch, whatever the index: `fit` shuffles the indices unless told not to, and the order is ours."""
        place, self._next = self._next, self._next + 1
        rows = self._order[place * self._batch_size : (place + 1) * self._batch_size]
        return keras.tree.map_structure(lambda array: array[rows], self._data)


@functools.total_ordering
class _Count:
    """A whole number that is asked for whenever it is used."""

    def __init__(self, ask: Callable[[], int]):
        self._ask = ask

    def __index__(self) -> int:
        return self._ask()

    __int__ = __hash__ = __index__

    def __float__(self) -> float:
        return float(self._ask())

    def __bool__(self) -> bool:
        return self._ask() > 0

    def __eq__(self, other) -> bool:
        return self._ask() == other

    def __lt__(self, other) -> bool:
        return self._ask() < other

    def __sub__(self, other):
        return self._ask() - other

    def __rtruediv__(self, other):
        return other / self._ask()


def _require_growth(first: int, factor: float, epochs: int) -> None:
    if first < 1 or not 1 <= factor < math.inf or epochs < 1:
        raise InvalidInput(
            "A growing batch needs a first size ≥ 1, factor ≥ 1 and a whole number of epochs ≥ 1. "
            f"Received: first={first}, factor={factor}, epochs={epochs}"
        )


def _limited(size: float, limit: int | None) -> int:
    return round(size if limit is None else min(size, limit))


def _plateaus(seen: Sequence[float], patience: int, min_delta: float) -> int:
    """How many times `patience` values in a row have not fallen below the best before them."""
    best, waited, found = math.inf, 0, 0
    for value in seen:
        if value < best - min_delta:
            best, waited = value, 0
        else:
            waited += 1
        if waited == patience:
            found, waited = found + 1, 0
    return found
