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

from batchscape.config import DECAYS, Cell
from batchscape.errors import InvalidInput, unknown_name
from batchscape.train.plan import Plan

_FACTORS = {
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
        self.decay, self._n_steps = decay, len(at)
        # Constants are a variable, so that one compiled model trains under one schedule after the other.
        self._constants = keras.Variable(np.zeros(5 + len(at)), dtype="float32", trainable=False, name="schedule")
        self.assign(learning_rate=learning_rate, warmup=warmup, start=start, over=over, at=at, factor=factor)

    def assign(self, *, learning_rate, warmup=0.0, start=0.0, over=None, at=(), factor=0.1) -> None:
        """Go on with other constants; the kind of decay and the number of steps stay."""
        needs_length = self.decay not in ("constant", "steps")
        numbers = [learning_rate, warmup, start, over if needs_length and over is not None else 1.0, factor, *at]
        if not (
            np.isfinite(numbers).all()
            and learning_rate > 0
            and warmup >= 0
            and 0 <= start <= 1
            and (over is not None or not needs_length)
            and numbers[3] > 0
            and (factor > 0 or (factor == 0 and self.decay in ("linear", "cosine")))
            and len(at) == self._n_steps
            and list(at) == sorted(at)
            and bool(len(at)) == (self.decay == "steps")
        ):
            raise InvalidInput(
                "A schedule needs learning_rate > 0, warmup ≥ 0, start in [0, 1], over > 0, factor > 0 and rising steps. "
                f"Received: learning_rate={learning_rate}, warmup={warmup}, start={start}, decay={self.decay!r}, "
                f"over={over}, at={tuple(at)}, factor={factor}"
            )
        self._config = {
            "learning_rate": float(learning_rate), "warmup": float(warmup), "start": float(start), "decay": self.decay,
            "over": None if over is None else float(over), "at": [float(place) for place in at], "factor": float(factor),
        }  # fmt: skip
        self._constants.assign(numbers)

    def __call__(self, step):
        """The rate of the update that follows `step` others; an array of them gives an array."""
        t = ops.cast(step, "float32")
        rate, warmup, start, over, factor = ops.unstack(self._constants[:5], 5)
        risen = start + (1 - start) * ops.minimum((t + 1) / ops.maximum(warmup, 1.0), 1.0)
        if self.decay == "steps":
            passed = ops.sum(ops.cast(t[..., None] >= self._constants[5:], "float32"), axis=-1)
            return rate * risen * ops.power(factor, passed)
        return rate * risen * _FACTORS[self.decay](ops.maximum(t - warmup, 0.0) / over, factor)

    def get_config(self) -> dict[str, Any]:
        """What makes an equal schedule."""
        return dict(self._config)


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
    return WarmupDecay(decay=cell.decay, **constants(cell, Plan.of(cell, n_train), cell.learning_rate))


def attach(cell: Cell, optimizer: keras.Optimizer) -> WarmupDecay | None:
    """Put an optimizer, before it is built, under the schedule of a cell, constants still to come; None without one."""
    if not cell.scheduled:
        return None
    schedule = WarmupDecay(1.0, decay=cell.decay, over=1.0, at=range(len(cell.decay_at)))
    optimizer.learning_rate = schedule
    return schedule


def constants(cell: Cell, plan: Plan, base_rate: float) -> dict[str, Any]:
    """The constants of a cell's schedule in updates, as `WarmupDecay.assign` takes them.

    Args:
        cell: States them in its `schedule_unit`.
        plan: Its updates.
        base_rate: The rate before the policy.
    """
    rate = cell.scale_learning_rate(base_rate, plan.batch_size)
    warmup = plan.updates_in(cell.warmup, cell.schedule_unit)
    rest = max(1.0, plan.total_updates - warmup)
    return {
        "learning_rate": rate,
        "warmup": warmup,
        # Never above η: a batch smaller than the base has a rate below the base's.
        "start": min(1.0, base_rate / rate) if cell.warmup_from == "base" else 0.0,
        "over": rest if cell.decay_over is None else plan.updates_in(cell.decay_over, cell.schedule_unit),
        "at": [math.ceil(plan.updates_in(place, cell.schedule_unit) - 1e-6) for place in cell.decay_at],
        "factor": cell.decay_factor,
    }
