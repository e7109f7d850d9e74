"""The callback that watches a run: evaluates at fixed weights, tests the loss target, keeps weights, keeps time."""

import math
import time
from collections.abc import Callable, Mapping, Sequence

import keras
import numpy as np

from batchscape.config import Cell
from batchscape.errors import warn
from batchscape.train import optimizers
from batchscape.train.evaluate import Evaluator
from batchscape.train.plan import Plan

CHECKPOINTS_AFTER = 3
"""Evaluations, with weights kept, in the epoch that follows the first crossing of a loss target."""


class Recorder(keras.callbacks.Callback):
    """Records one run and decides when it ends.

    Args:
        cell: What is run.
        plans: When it is looked at, for each batch size it goes through.
        evaluator: Evaluates the model that is trained.
        updates_in_batch: Tells how many updates stand behind the batch that `fit` has just reported; None where the recorder
            is no callback itself and told by `advance`.

    Attributes:
        rows: One dict an evaluation.
        final: The row where the run ended.
        weights: Weights kept, by stage.
        reached: Whether the loss target was reached; None without one.
        diverged: Why the run diverged, or "".
        finished: Whether the run is over.
        updates, seconds: Training steps done, and the time spent in them alone.
        skipped: Steps at which the optimizer made no update, since a gradient overflowed in float16.
    """

    def __init__(
        self,
        cell: Cell,
        plans: Sequence[Plan],
        evaluator: Evaluator,
        updates_in_batch: Callable[[], int] | None = None,
    ):
        super().__init__()
        self._cell, self._plans, self._evaluate, self._updates_in_batch = cell, plans, evaluator, updates_in_batch
        self._plan, self._updates_before, self._examples_before = plans[0], 0, 0
        self.rows: list[dict[str, float]] = []
        self.final: dict[str, float] = {}
        self.weights: dict[str, list[np.ndarray]] = {}
        self.reached = None if cell.until_loss is None else False
        self.diverged = ""
        self.finished = False
        self.updates = self.skipped = self._row_at = 0
        self._next_row = self._plan.evaluate_every
        self._train: dict[str, float] = {}
        self._logs: dict[str, float] = {}
        self._checkpoints: list[int] = []
        self._path_length = 0.0
        self.seconds = 0.0

    def start(self, model: keras.Model) -> None:
        """Record the weights that the run starts from, and start the clock."""
        self.set_model(model)
        self._start = self._previous = _trainable(model)
        self.weights["initial"] = model.get_weights()
        self._resumed_at = time.perf_counter()
        self._look(mean_loss=0.0)
        self._resumed_at = time.perf_counter()

    def enter(self, plan: Plan) -> None:
        """Go on to the next plan of the run."""
        if plan is not self._plan:
            self._examples_before += self._plan.examples_after(self.updates - self._updates_before)
            self._plan, self._updates_before = plan, self.updates
            self._next_row = self.updates + plan.evaluate_every
            self._resumed_at = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        """Count the updates of a batch, or block, and look at the run."""
        self.advance(self._updates_in_batch(), time.perf_counter() - self._resumed_at, logs)
        self._resumed_at = time.perf_counter()

    def advance(self, updates: int, seconds: float, logs: Mapping[str, float]) -> None:
        """Count so many updates that took so long, and look at the run."""
        self.seconds += seconds
        self.updates += updates
        self._train = {}
        if not self._evaluate.is_measured:
            self._logs = {f"fit_{name}": float(value) for name, value in logs.items() if np.size(value) == 1}
        self._follow_path(logs)
        if self._plan.is_evaluation(self.updates - self._updates_before):
            losses = [float(logs.get("loss", 0.0)), *self._logs.values()]
            self._look(mean_loss=next((loss for loss in losses if not math.isfinite(loss)), losses[0]))

    def stop(self) -> None:
        """End the run here, because a callback of the user asked for it."""
        if not self.finished:
            self._end()
        self._count_skipped()

    def _follow_path(self, logs) -> None:
        if "path_length" in logs:  # The fused loop measures every update itself.
            self._path_length += float(logs["path_length"])
        else:
            now = _trainable(self.model)
            self._path_length += _norm(now - self._previous)
            self._previous = now

    def _look(self, *, mean_loss: float) -> None:
        """Evaluate if it is time to, and stop if it is over."""
        if not math.isfinite(mean_loss):
            self.diverged = f"training loss {mean_loss} by update {self.updates}"
        elif self._crosses():
            self._cross()
        elif self._checkpoints and self.updates >= self._checkpoints[0]:
            del self._checkpoints[0]
            self._keep(f"after_{CHECKPOINTS_AFTER - len(self._checkpoints)}")
        elif self.updates >= self._next_row or self.updates == 0:
            self._row()
        last = self._plan is self._plans[-1]
        out_of_updates = last and self.updates - self._updates_before >= self._plan.total_updates and not self.reached
        if self.diverged or out_of_updates or (self.reached and not self._checkpoints):
            self._end()
        self.model.stop_training = self.finished

    def _crosses(self) -> bool:
        if self.reached is not False:
            return False
        self._train = self._evaluate("train")
        return self._train["train_loss"] <= self._cell.until_loss

    def _cross(self) -> None:
        """Keep the first weights at or below the loss target, and look three more times in the epoch that follows."""
        self.reached = True
        self._keep("final")
        self.final = self.rows[-1]
        epoch = max(self._plan.updates_per_epoch, CHECKPOINTS_AFTER)
        self._checkpoints = [
            self.updates + math.ceil(part * epoch / CHECKPOINTS_AFTER) for part in range(1, CHECKPOINTS_AFTER + 1)
        ]

    def _keep(self, stage: str) -> None:
        self._row()
        self.weights[stage] = self.model.get_weights()

    def _end(self) -> None:
        self.finished = True
        if self._row_at != self.updates:
            self._row()
        if not self.final:
            self.final = self.rows[-1]
            self.weights["final"] = self.model.get_weights()

    def _row(self) -> None:
        while self._next_row <= self.updates:
            self._next_row += self._plan.evaluate_every
        self._row_at = self.updates
        self._count_skipped()
        weights, updates = _trainable(self.model), self.updates - self._updates_before
        row = {
            "epoch": self._plan.first_epoch + updates / self._plan.updates_per_epoch,
            "updates": self.updates - self.skipped,
            "examples": self._examples_before + self._plan.examples_after(updates),
            "seconds": self.seconds,
            **(self._train or self._evaluate("train")),
            **self._evaluate("val", "test"),
            "distance": _norm(weights - self._start),
            "path_length": self._path_length,
            "weight_norm": _norm(weights),
            "learning_rate": float(f"{optimizers.rate_of_model(self.model):.7g}"),  # 0.1, not 0.10000000149
            **self._logs,
        }
        self.rows.append(row)
        if self._evaluate.is_measured and not self.diverged and not math.isfinite(row["train_loss"]):
            self.diverged = f"training loss {row['train_loss']} at update {self.updates}"

    def _count_skipped(self) -> None:
        """Count the steps that were no updates: the wrapped optimizer counts updates, and we count steps."""
        if optimizers.skips_overflows(self.model.optimizer):
            self.skipped = self.updates - optimizers.updates_of(self.model.optimizer)


class Continued(keras.callbacks.Callback):
    """A user's callbacks, to which the many calls of `fit` are one training: it begins once and ends once.

    Their logs of an epoch hold the values of the validation data too, `val_loss` and the like, as `fit` with
    `validation_data` gives them.

    Args:
        callbacks: The callbacks.
        evaluator: Evaluates the model that is trained.
    """

    def __init__(self, callbacks: Sequence[keras.callbacks.Callback], evaluator: Evaluator):
        super().__init__()
        self._list, self._given, self._evaluate = None, list(callbacks), evaluator

    def on_train_begin(self, logs=None):
        """Begin, the first time."""
        if self._list is None:
            self._list = keras.callbacks.CallbackList(self._given, add_progbar=False, model=self.model, **self.params)
            self._list.on_train_begin(logs)

    def on_epoch_begin(self, epoch, logs=None):
        """Pass it on, as all that follows."""
        self._list.on_epoch_begin(epoch, logs)

    def on_epoch_end(self, epoch, logs=None):
        """See `on_epoch_begin`."""
        values = self._evaluate("val") if self._evaluate.is_measured else {}
        self._list.on_epoch_end(epoch, {**(logs or {}), **values})

    def on_train_batch_begin(self, batch, logs=None):
        """See `on_epoch_begin`."""
        self._list.on_train_batch_begin(batch, logs)

    def on_train_batch_end(self, batch, logs=None):
        """See `on_epoch_begin`."""
        self._list.on_train_batch_end(batch, logs)

    def finish(self, final: Sequence[np.ndarray]) -> None:
        """End; `final` are the weights of the record."""
        if self._list is None:
            return
        self._list.on_train_end()
        if not all(map(np.array_equal, self.model.get_weights(), final)):
            warn("A callback changed the weights when training ended; the record keeps those of the last update.")


def _trainable(model: keras.Model) -> np.ndarray:
    """All trainable weights as one float64 vector, shape (n,)."""
    return np.concatenate([np.ravel(variable.numpy()) for variable in model.trainable_variables]).astype(np.float64)


def _norm(vector: np.ndarray) -> float:
    """‖v‖₂ without BLAS, whose threads, once woken, spin on the core that training wants next."""
    return math.sqrt(np.sum(np.square(vector)))
