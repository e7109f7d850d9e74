"""One compiled model that trains many cells, each from a `Cell` to a `Record`, through the one call of `model.fit`."""

import functools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from batchscape.backend import importing, keras_private
from batchscape.config import Cell
from batchscape.data import Data
from batchscape.errors import InvalidInput, reason_of
from batchscape.models import build as models
from batchscape.models import own_step
from batchscape.models.metrics import metric_functions
from batchscape.models.resolve_loss import all_targets, loss_of
from batchscape.train import engine, optimizers, schedules
from batchscape.train.caveats import caveats_of
from batchscape.train.compiled_metrics import CompiledMetrics
from batchscape.train.evaluate import Evaluator
from batchscape.train.plan import Plan
from batchscape.train.record import Record, Status, Weights, environment
from batchscape.train.recorder import Continued, Recorder

GROUP_FIELDS = (
    "dataset", "train_size", "model", "optimizer", "optimizer_options", "scheduled", "loss", "metrics",
    "weight_decay", "precision", "engine", "micro_batch_size",
    "devices",
)  # fmt: skip
"""Fields that cells trained by one compiled model have in common."""


def group_of(cell: Cell) -> tuple:
    """The values of `GROUP_FIELDS`, equal for cells that one `Trainer` trains."""
    return tuple(getattr(cell, name) for name in GROUP_FIELDS)


class Trainer:
    """One compiled model that trains many cells, re-seeded for each: faster than building anew, and memory stays flat.

    Args:
        cell: The first of the cells to train; the others share its `GROUP_FIELDS`.
        data: The data set.
        build: A model's name or the function that builds it.

    Attributes:
        caveats: What is to be told of this comparison of batch sizes.
    """

    def __init__(self, cell: Cell, data: Data, build: str | Callable):
        self._data, self._first = data, cell
        self._group = group_of(cell)
        build = models.find_builder(build)  # Once: what is edited meanwhile must not get into a later run.
        self._starts_from = models.start_of(build)
        self._build = functools.partial(models.build_model, build, data, precision=cell.precision)
        self._model = model = self._build(seed=cell.seed)
        self._loss = loss_of(model, data, cell.loss)
        self._metrics = metric_functions(cell.metrics, model, data.x_train, all_targets(data), self._loss)
        optimizer = optimizers.make(cell, model)
        self.caveats = caveats_of(cell, model, data, self._loss, optimizer)
        self._default_rate = optimizers.default_learning_rate(optimizer)
        optimizers.check_rate(cell, self._default_rate)
        self._rate_table = schedules.attach(cell, optimizer)
        compiled = CompiledMetrics(model, self._metrics) if model.compiled and cell.devices == 1 else None
        self._fitted = self._to_fit(optimizer, jit_compile=not engine.own().XLA_IS_OPTIONAL)
        model.optimizer = self._fitted.optimizer
        if not model.optimizer.built:
            model.optimizer.build(self._fitted.trainable_variables)
        self._fresh_slots = [variable.numpy() for variable in model.optimizer.variables]
        self._evaluate = Evaluator(model, data, self._loss, self._metrics, compiled)
        self._seconds_per_update: dict[tuple[int, ...], float | None] = {}
        self._engine = None
        self._engine_note = ""

    def _to_fit(self, optimizer: keras.Optimizer, *, jit_compile: bool) -> keras.Model:
        """What `fit` trains, compiled with this optimizer: the model itself, with the metrics that its own step may use."""
        model, options = self._model, {"jit_compile": jit_compile}
        if own_step.has_own_step(model) and model.compiled:
            metrics = keras_private.compiled_metrics(model)
            options |= dict(zip(("metrics", "weighted_metrics"), metrics, strict=True))
        self._loss.compile(model, optimizer, **options)
        return model

    def run(
        self,
        cell: Cell,
        *,
        initial_weights: Weights | None = None,
        callbacks: Sequence[keras.callbacks.Callback] = (),
    ) -> Record:
        """Train one cell of this trainer's group; see `fit_one`. The record has no name yet."""
        if group_of(cell) != self._group:
            raise InvalidInput(f"Cells of one Trainer share {', '.join(GROUP_FIELDS)}. Received: {cell}")
        plans = Plan.stages(cell, self._data.n_train)
        compile_seconds = self._compile(plans)
        self._reset(cell.seed, initial_weights)
        learning_rate = self._set_learning_rate(cell, plans[0])
        recorder = Recorder(cell, plans, self._evaluate, self._engine.updates_in_batch)
        recorder.start(self._model)
        self._train(plans, recorder, callbacks)
        facts = {"learning_rate": learning_rate, "compile_seconds": compile_seconds}
        if initial_weights is not None:
            facts["starts_from"] = "initial_weights"
        return self._record(cell, plans, recorder, facts)

    def _compile(self, plans: Sequence[Plan]) -> float:
        """Compile for some plans, and return the seconds it took; weights change."""
        # Every plan twice: compiling for a later plan can replace the program compiled for the first.
        return sum(self._warm_up(plan) for plan in [*plans, *plans])

    def _train(self, plans: Sequence[Plan], recorder, callbacks: Sequence[keras.callbacks.Callback] = ()) -> None:
        """Train until the plans, the recorder or a callback of the user end the run."""
        theirs = [Continued(callbacks, self._evaluate)] if callbacks else []
        for stage in plans:
            recorder.enter(stage)
            for arguments in self._engine.calls(stage, whole_epochs=bool(callbacks)):
                run_fit(self._fitted, callbacks=[recorder, *theirs], **arguments)
                if recorder.finished or self._fitted.stop_training:
                    break
            if recorder.finished or self._fitted.stop_training:
                break
        recorder.stop()
        for continued in theirs:
            continued.finish(recorder.weights["final"])
        self._check_updates(recorder.updates)

    def _record(self, cell: Cell, plans: Sequence[Plan], recorder: Recorder, facts: Mapping[str, Any]) -> Record:
        """What a recorder has seen, with further facts."""
        plan = plans[0]
        seconds_per_update = self._seconds_per_update[plan.shapes]
        if seconds_per_update is None or len(plans) > 1:
            seconds_per_update = recorder.seconds / max(1, recorder.updates)
        diverged = bool(recorder.diverged) and not recorder.reached
        return Record(
            cell=cell,
            hash="",  # Whoever knows where the data come from gives the name.
            status=Status.DIVERGED if diverged else Status.COMPLETE,
            reason=recorder.diverged if diverged else "",
            curves=_columns(recorder.rows),
            final={**recorder.final, "reached": recorder.reached, **_best_validation(recorder.rows)},
            facts={**self._facts(plan), **self._skipped(recorder), "seconds_per_update": seconds_per_update, **facts},
            environment=environment(),
            weights=recorder.weights,
        )

    def _skipped(self, recorder: Recorder) -> dict[str, float]:
        """How many steps of a run were no updates, and their share of all; nothing where no optimizer skips any."""
        if not optimizers.skips_overflows(self._model.optimizer):
            return {}
        return {"skipped_updates": recorder.skipped, "skipped_share": recorder.skipped / max(1, recorder.updates)}

    def seconds_per_update(self, cell: Cell) -> float | None:
        """Seconds that an update of a cell takes, by a few blocks of them; None where only the run itself can tell."""
        return self._timed(Plan.of(cell, self._data.n_train))

    def _timed(self, plan: Plan) -> float | None:
        self._warm_up(plan)
        return self._seconds_per_update[plan.shapes]

    def _check_updates(self, updates: int) -> None:
        """What we counted must be what the optimizer did, but for the steps that one for float16 skips."""
        if own_step.has_own_step(self._model):  # It may use another optimizer, or this one twice.
            return
        done = optimizers.updates_of(self._model.optimizer)
        skips = optimizers.skips_overflows(self._model.optimizer)
        if done > updates or (done < updates and not skips):
            raise RuntimeError(f"The optimizer made {done} updates, and we counted {updates}.")

    def _warm_up(self, plan: Plan) -> float:
        """Compile for the batch shapes of a plan, time an update, and return the seconds it took; weights change."""
        if plan.shapes in self._seconds_per_update:
            return 0.0
        begin = time.perf_counter()
        if self._engine is None or not self._still_runs(plan):
            self._seconds_per_update.clear()
            self._engine, self._engine_note = self._choose_engine(plan)
        self._evaluate("train", "val", "test")
        compile_seconds = time.perf_counter() - begin
        self._seconds_per_update[plan.shapes] = self._time_update(plan)
        return compile_seconds

    def _time_update(self, plan: Plan) -> float | None:
        return self._engine.time_update(plan)

    def _still_runs(self, plan: Plan) -> bool:
        """Whether the engine chosen for another plan runs this one: XLA, chosen for small updates only, may not."""
        try:
            self._warm_up_engine(self._engine, plan)
        except Exception:
            self._start_over()
            return False
        return True

    def _warm_up_engine(self, chosen, plan: Plan) -> None:
        for arguments in chosen.warm_up(plan):
            run_fit(self._fitted, callbacks=[], **arguments)

    def _choose_engine(self, plan: Plan):
        """The first engine that runs, and why the ones before it did not."""
        note = ""
        logs = bool(self._loss.why_unmeasured or own_step.own_optimizers(self._model))
        candidates = list(engine.candidates(self._first, self._fitted, self._data, logs=logs))
        for make in candidates:
            try:
                chosen = make()
                self._warm_up_engine(chosen, plan)
                return chosen, note
            except Exception as error:
                self._start_over()
                if make is candidates[-1]:
                    raise
                note = reason_of(error)
        raise AssertionError("candidates() is never empty")

    def _start_over(self) -> None:
        """Make the model usable again after a call of `fit` that failed: on JAX its variables are gone then."""
        engine.detach(self._fitted)
        self._reset(self._first.seed, None)
        self._fitted.reset_metrics()

    def _reset(self, seed: int, initial_weights: Weights | None) -> None:
        """Give the model the variables of a fresh build with this seed, bit for bit, and the optimizer empty slots."""
        fresh = self._build(seed=seed)
        for variable, value in zip(self._model.variables, fresh.variables, strict=True):
            variable.assign(value)
        if initial_weights is not None:
            models.set_weights(self._model, initial_weights)
        self._empty_slots()
        for name, optimizer in own_step.own_optimizers(self._model).items():
            optimizers.reset(optimizer, getattr(fresh, name))

    def _empty_slots(self) -> None:
        for variable, value in zip(self._model.optimizer.variables, self._fresh_slots, strict=True):
            variable.assign(value)

    def _set_learning_rate(self, cell: Cell, plan: Plan) -> float | None:
        """Set the rate that the policy gives at this batch size, and the schedule that it is the peak of.

        Returns:
            The rate; None where the optimizer's own schedule rules, or optimizers of the model's own train.
        """
        optimizers.check_rate(cell, self._default_rate)
        if self._default_rate is None or own_step.own_optimizers(self._model):
            return None
        base = self._default_rate if cell.learning_rate is None else cell.learning_rate
        rate = cell.scale_learning_rate(base, plan.batch_size)
        if self._rate_table is None:
            self._model.optimizer.learning_rate = rate
        else:
            self._rate_table.assign(schedules.rates(cell, plan, base))
        return rate

    def _facts(self, plan: Plan) -> dict[str, Any]:
        weights = self._model.trainable_weights
        return {
            "data": dict(self._data.meta),
            "n_train": plan.n_train,
            "batch": plan.batch_size,
            "updates_per_epoch": plan.updates_per_epoch,
            "last_batch_size": plan.tail or plan.batch_size,
            "engine": self._engine.name,
            "engine_note": self._engine_note,
            "jit": self._engine.jit,
            "optimizer": type(self._model.optimizer).__name__,
            "starts_from": self._starts_from,
            "loss": self._loss.name,
            "loss_depends_on_batch": self._loss.why_batch,
            "n_parameters": sum(int(np.prod(weight.shape)) for weight in weights),
        }


def run_fit(model: keras.Model, **arguments: Any) -> None:
    """The one place where a model is trained."""
    with importing.without_warnings_of_programs():
        model.fit(verbose=0, **arguments)


def _columns(rows: list[dict[str, float]]) -> dict[str, list[float]]:
    """Rows by column; NaN where a row lacks one, as the first lacks the logs of `fit`."""
    return {name: [row.get(name, math.nan) for row in rows] for name in rows[-1]}


def _best_validation(rows: list[dict[str, float]]) -> dict[str, float]:
    finite = [row for row in rows if math.isfinite(row["val_loss"])]
    best = min(finite or rows, key=lambda row: row["val_loss"])
    return {"best_val_loss": best["val_loss"], "best_val_epoch": best["epoch"]}
