"""Learning rates that change along a run: a gradual warm-up, then a decay.

Written in updates, which is what an optimizer counts, and stated in updates, examples or epochs, which is what a
comparison of batch sizes keeps fixed: at a schedule in epochs only the batch size moves, at one in updates the place in
the data moves with it.
"""

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from batchscape import backend
from batchscape.backend import keras_private
from batchscape.config import DECAYS, Cell
from batchscape.errors import InvalidInput, unknown_name
from batchscape.train.plan import Plan

__all__ = ["WarmupDecay", "of_cell"]

_LEFT = {
    "constant": lambda s, f: ops.ones_like(s),
    "linear": lambda s, f: 1 - (1 - f) * ops.minimum(s, 1.0),
    "cosine": lambda s, f: f + (1 - f) * (1 + ops.cos(math.pi * ops.minimum(s, 1.0))) / 2,
    "exponential": lambda s, f: ops.power(f, s),
    "inverse": lambda s, f: 1 / (1 + s * (1 / f - 1)),
}
"""What is left of the rate after the share s of the decay, where f is left at s = 1."""


@keras.saving.register_keras_serializable(package="batchscape")
class WarmupDecay(keras.optimizers.schedules.LearningRateSchedule):
    """A linear warm-up, then a decay; for any Keras optimizer.

    The rate of the update that follows t others is η(t) = η · w(t) · d(t) with

        w(t) = start + (1 − start) · min((t + 1) / warmup, 1)      the warm-up ends with its last update
        s    = max(t − warmup, 0) / over                           the share of the decay that is done
        d(t) = 1                                    "constant"
        d(t) = 1 − (1 − f) · min(s, 1)              "linear", down to f
        d(t) = f + (1 − f) · (1 + cos(π min(s, 1))) / 2    "cosine", down to f
        d(t) = fˢ                                   "exponential"
        d(t) = 1 / (1 + s · (1/f − 1))              "inverse"
        d(t) = f to the number of places in `at` that are ≤ t     "steps"

    so f is what is left of the rate after `over` updates, or what each step leaves.

    Args:
        learning_rate: η, the rate at the end of the warm-up, > 0.
        warmup: Length of the warm-up in updates, ≥ 0.
        start: Share of η that the warm-up starts from, in [0, 1].
        decay: A name in `config.DECAYS`.
        over: Length of the decay in updates, > 0; needed unless the decay is `"constant"` or `"steps"`.
        at: Updates before which `"steps"` come, rising.
        factor: f, > 0; 0 is allowed where the decay ends there (`"linear"`, `"cosine"`).

    Raises:
        InvalidInput: If a value is not admissible.

    Example:
        >>> schedule = WarmupDecay(0.8, warmup=4, decay="steps", at=[6, 8], factor=0.5)
        >>> [round(float(schedule(t)), 3) for t in range(10)]
        [0.2, 0.4, 0.6, 0.8, 0.8, 0.8, 0.4, 0.4, 0.2, 0.2]

    References:
        Goyal et al. (2017), Accurate, large minibatch SGD, section 2.2 (gradual warm-up).
        Loshchilov & Hutter (2017), SGDR, equation 5 (cosine).
    """

    def __init__(self, learning_rate, *, warmup=0.0, start=0.0, decay="constant", over=None, at=(), factor=0.1):
        if decay not in DECAYS:
            raise unknown_name("decay", decay, DECAYS)
        goes_on = decay not in ("constant", "steps")
        places = [float(place) for place in at]
        if not (
            np.isfinite([learning_rate, warmup, start, factor, *places]).all()
            and learning_rate > 0
            and warmup >= 0
            and 0 <= start <= 1
            and (not goes_on or (over is not None and 0 < over < math.inf))
            and (factor > 0 or (factor == 0 and decay in ("linear", "cosine")))
            and places == sorted(places)
            and bool(places) == (decay == "steps")
        ):
            raise InvalidInput(
                "A schedule needs learning_rate > 0, warmup ≥ 0, start in [0, 1], over > 0, factor > 0 and rising steps. "
                f"Received: learning_rate={learning_rate}, warmup={warmup}, start={start}, decay={decay!r}, over={over}, "
                f"at={tuple(at)}, factor={factor}"
            )
        self.learning_rate, self.warmup, self.start = float(learning_rate), float(warmup), float(start)
        self.decay, self.at, self.factor = decay, places, float(factor)
        self.over = float(over) if goes_on else None

    def __call__(self, step):
        """The rate of the update that follows `step` others; an array of them gives an array."""
        t = ops.cast(step, "float32")
        risen = self.start + (1 - self.start) * ops.minimum((t + 1) / max(self.warmup, 1.0), 1.0)
        if self.decay == "steps":
            passed = sum(ops.cast(t >= place, "float32") for place in self.at)
            return self.learning_rate * risen * ops.power(self.factor, passed)
        share = ops.maximum(t - self.warmup, 0.0) / (self.over or 1.0)
        return self.learning_rate * risen * _LEFT[self.decay](share, self.factor)

    def get_config(self) -> dict[str, Any]:
        """What makes an equal schedule."""
        names = ("learning_rate", "warmup", "start", "decay", "over", "at", "factor")
        return {name: getattr(self, name) for name in names}


MOST_UPDATES = 1 << 22
"""Entries of a table of rates (16 MB)."""


@keras.saving.register_keras_serializable(package="batchscape")
class RateTable(keras.optimizers.schedules.LearningRateSchedule):
    """The rate of every update, looked up: one compiled model trains under one table after the other.

    Why not the formula: inside a compiled loop of small updates a division, power or cosine an update becomes a kernel of
    its own, and at nine kernels XLA's CPU runtime hands them to its threads: in the small MLP at B = 1 an update then took
    70 µs and more instead of 18. A look-up costs nothing there.

    Args:
        rates: The rate of each update, shape (n ≥ 1,); the last one stays.
    """

    def __init__(self, rates):
        self._table = keras.Variable(np.zeros(MOST_UPDATES), dtype="float32", trainable=False, name="rates")
        self.assign(rates)

    def assign(self, rates) -> None:
        """Go on with other rates."""
        if len(rates) > MOST_UPDATES:
            raise InvalidInput(f"A schedule must end within {MOST_UPDATES:,} updates. Received: {len(rates):,} updates")
        self._rates = np.asarray(rates, np.float32)
        self._table.assign(np.pad(self._rates, (0, MOST_UPDATES - len(rates)), mode="edge"))

    def __call__(self, step):
        """The rate of the update that follows `step` others."""
        return ops.take(self._table, ops.minimum(ops.cast(step, "int32"), MOST_UPDATES - 1))

    def get_config(self) -> dict[str, Any]:
        """What makes an equal table."""
        return {"rates": self._rates.tolist()}


def of_cell(cell: Cell, n_train: int) -> WarmupDecay:
    """The schedule that a cell trains with, in updates, for a `model.fit` of your own.

    Args:
        cell: It names its `learning_rate`.
        n_train: Number of training examples.

    Example:
        >>> cell = Cell(batch_size=32, learning_rate=0.1, epochs=4, warmup=2, decay="linear", decay_factor=0)
        >>> schedule = of_cell(cell, n_train=320)
        >>> [round(float(schedule(t)), 3) for t in (0, 19, 20, 30, 39)]
        [0.005, 0.1, 0.1, 0.05, 0.005]
    """
    if cell.learning_rate is None:
        raise InvalidInput("A schedule needs a learning_rate in its cell. Received: learning_rate=None")
    return _in_updates(cell, Plan.of(cell, n_train), cell.learning_rate)


def attach(cell: Cell, optimizer: keras.Optimizer) -> RateTable | None:
    """Put an optimizer, before it is built, under a table of rates, to be filled for each cell; None without a schedule."""
    if not cell.scheduled:
        return None
    optimizer.learning_rate = table = RateTable([0.0])
    if backend.name() == "jax":  # What is no variable of the model or its optimizer is a constant to a compiled step.
        keras_private.track_variable(optimizer, table._table)
    return table


def rates(cell: Cell, plan: Plan, base_rate: float) -> np.ndarray:
    """The rate of every update that a run may make, float32, shape (updates + 1,).

    Args:
        cell: What is run.
        plan: Its updates.
        base_rate: The rate before the policy.
    """
    return np.asarray(_in_updates(cell, plan, base_rate)(np.arange(plan.total_updates + plan.updates_after + 1)))


def _in_updates(cell: Cell, plan: Plan, base_rate: float) -> WarmupDecay:
    """The schedule of a cell, which it states in its `schedule_unit`, in updates."""
    rate = cell.scale_learning_rate(base_rate, plan.batch_size)
    warmup = plan.updates_in(cell.warmup, cell.schedule_unit)
    rest = max(1.0, plan.total_updates - warmup)
    return WarmupDecay(
        rate,
        warmup=warmup,
        # Never above η: a batch smaller than the base has a rate below the base's.
        start=min(1.0, base_rate / rate) if cell.warmup_from == "base" else 0.0,
        decay=cell.decay,
        over=rest if cell.decay_over is None else plan.updates_in(cell.decay_over, cell.schedule_unit),
        at=[math.ceil(plan.updates_in(place, cell.schedule_unit) - 1e-6) for place in cell.decay_at],
        factor=cell.decay_factor,
    )
