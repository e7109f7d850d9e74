"""Training steps of one model at any batch size: timed, and their memory measured. This runs in a child process.

The steps are those of `model.fit`: real data, the model's own loss and optimizer with all its slots. Updates are timed
inside the epochs of `fit`; what lies between two epochs is timed apart, since it does not depend on the batch.
"""

import dataclasses
import math
import statistics
import time
from importlib import metadata
from typing import Any, NamedTuple

import keras
import numpy as np

from batchscape import backend
from batchscape.backend import tensorflow_private
from batchscape.config import Cell
from batchscape.cost.probe_input import ProbeInput
from batchscape.errors import BatchscapeError, InvalidInput, UserCodeError, reason_of
from batchscape.models import build, outputs
from batchscape.models.resolve_loss import loss_of
from batchscape.system import memory
from batchscape.train import engine, optimizers
from batchscape.train.evaluate import Evaluator
from batchscape.train.plan import Plan
from batchscape.train.trainer import run_fit

MOST_EPOCHS = 1 << 20
"""More epochs than any timing lasts."""

FEWEST_UPDATES = 3
"""Updates that are timed at least."""


class Timing(NamedTuple):
    """Seconds of an update, seconds between two epochs (NaN where there were not two), and updates timed."""

    update: float
    between_epochs: float
    updates: int


class Clock(keras.callbacks.Callback):
    """Times the updates of a call of `fit`, and ends it.

    The first update is left out: it may compile. The device is waited for where an epoch, or the timing, ends.

    Args:
        seconds: For how long to time, at least; what lies between epochs counts here.
        fewest: Updates to time, at least; with 0 the call ends after the first update.
    """

    def __init__(self, seconds: float, fewest: int = FEWEST_UPDATES):
        super().__init__()
        self._enough, self._fewest = seconds, fewest
        self._updates, self._timed, self._spent = 0, 0, 0.0
        self._begin = self._resumed = math.nan
        self._ended = self._since = math.nan
        self._gaps: list[float] = []
        self.first = math.nan

    def on_epoch_begin(self, epoch, logs=None):
        """Begin to count anew: updates of one epoch follow each other."""
        self._in_epoch = 0

    def on_train_batch_begin(self, batch, logs=None):
        """Start the clock with the first update of an epoch."""
        if self._in_epoch == 0:
            self._begin = time.perf_counter()
            self._gaps.append(self._begin - self._ended)

    def on_train_batch_end(self, batch, logs=None):
        """Stop it with the last one."""
        self._updates += 1
        self._in_epoch += 1
        if self._updates == 1:
            self._wait()
            self.first = time.perf_counter() - self._begin
            self._begin = self._ended = self._since = time.perf_counter()
            if not self._fewest:
                self.model.stop_training = True
            return
        self._timed += 1
        enough = self._timed >= self._fewest and time.perf_counter() - self._since >= self._enough
        if enough or self._in_epoch == self.params["steps"]:
            self._wait()
            self._ended = time.perf_counter()
            self._spent += self._ended - self._begin
        if enough:  # On JAX, to ask for the model is to fetch its variables.
            self.model.stop_training = True

    def timing(self) -> Timing:
        """What was found."""
        gaps = self._gaps[2:]  # The one before the first epoch is none, and the second epoch may compile.
        between = statistics.median(gaps) if gaps else math.nan
        return Timing(self._spent / max(1, self._timed), between, self._timed)

    def _wait(self) -> None:
        """Wait for the device, by reading the smallest weight that the update has written."""
        min(self.model.trainable_variables, key=lambda variable: math.prod(variable.shape)).numpy()


class Steps:
    """One compiled model, and the data it trains on.

    Args:
        source: What is trained.

    Attributes:
        facts: What was found out on the way: device, parameters, optimizer, loss, memory before training, ...
    """

    def __init__(self, source: ProbeInput):
        gpu = backend.own().first_gpu(source.device_limit)
        self._on_gpu = gpu is not None
        self._data = data = source.load()
        loaded = memory.resident()
        precision = source.precision or keras.config.dtype_policy().name
        self._model = model = build.build_model(source.build, data, seed=0, precision=precision)
        if not model.trainable_variables:
            raise InvalidInput(f"The model needs trainable weights. Received: none in {model.name}")
        was_compiled = getattr(model, "optimizer", None) is not None
        self._loss = loss = loss_of(model, data, source.loss)
        optimizer = optimizers.make(Cell(), model)
        fused = source.engine == "fused"
        if source.jit is False:
            backend.needs_tensorflow("jit=False")
        jit = "auto" if source.jit is None else source.jit
        loss.compile(model, optimizer, jit_compile=(not fused and jit) if engine.own().XLA_IS_OPTIONAL else True)
        model.optimizer.build(model.trainable_variables)
        self._fused_seconds: dict[int, float] = {}
        self._fused = engine.own().Fused(model, data, jit=source.jit) if fused else None
        self.facts = {
            "n_train": data.n_train,
            "data": data.meta["name"],
            "data_sha256": data.meta["sha256"],
            "model": model.name,
            "n_parameters": sum(math.prod(variable.shape) for variable in model.trainable_variables),
            "optimizer": type(model.optimizer).__name__,
            "learning_rate": _short(optimizers.default_learning_rate(optimizer)),
            "loss": loss.name,
            "was_compiled": was_compiled,
            "engine": source.engine,
            "jit": source.jit,
            "precision": model.dtype_policy.name,
            "device": gpu or "CPU",
            "forgets_peaks": gpu is not None and backend.own().FORGETS_PEAKS,
            "device_memory": backend.own().memory_of_gpu() if gpu else None,
            "loaded_bytes": loaded,
            "built_bytes": memory.resident(),
            "versions": {package: metadata.version(package) for package in ("batchscape", "keras", backend.name())},
        }

    def measure(self, batch_size: int, seconds: float) -> dict[str, float]:
        """Compile for a batch size, time a few updates, and look how much memory was taken.

        Returns:
            `compile_seconds` (the first update, less a later one), `seconds` an update, and `peak_bytes`: of a GPU for this
            batch; of this process since it began, so that only a batch larger than all before it shows.
        """
        if self._on_gpu:
            backend.own().forget_peak()
        first = self._run(batch_size, 0.0, fewest=0).first
        timing = self.time(batch_size, seconds)
        compile_seconds = max(0.0, first - timing.update)
        return {"compile_seconds": compile_seconds, "seconds": timing.update, "peak_bytes": self._peak()}

    def try_out(self, batch_size: int) -> int:
        """Train two updates; returns the peak in bytes, as `measure` does."""
        if self._on_gpu:
            backend.own().forget_peak()
        self._run(batch_size, 0.0, fewest=1)
        return self._peak()

    def evaluate(self) -> int:
        """Evaluate one pass of examples as a sweep does between epochs; returns the peak in bytes, as `measure` does."""
        if self._on_gpu:
            backend.own().forget_peak()
        n = outputs.examples_in_a_pass(self._model, self._data.x_train)
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(
            keras.tree.map_structure(lambda array: array[:n], self._data.examples("train"))
        )
        parts = {"x": x, "y": y, "sample_weight": sample_weight}
        fields = {f"{name}_{split}": part for name, part in parts.items() for split in ("train", "val", "test")}
        Evaluator(self._model, dataclasses.replace(self._data, **fields), self._loss, {})("train")
        return self._peak()

    def time(self, batch_size: int, seconds: float) -> Timing:
        """Time updates for some seconds."""
        timing = self._run(batch_size, seconds).timing()
        if self._fused is None:
            return timing
        updates = self._updates_in_block(batch_size, seconds)
        self._fused_seconds[batch_size] = timing.update / updates
        return Timing(timing.update / updates, 0.0, timing.updates * updates)

    def _run(self, batch_size: int, seconds: float, *, fewest: int = FEWEST_UPDATES) -> Clock:
        """Train by `model.fit`, in full batches, for a while."""
        clock = Clock(seconds, fewest)
        _trained(self._model, callbacks=[clock], **self._feed(batch_size, seconds))
        return clock

    def _feed(self, batch_size: int, seconds: float) -> dict[str, Any]:
        """Arguments of `fit`: what the user would give it, or blocks of updates."""
        data = self._data
        if self._fused is not None:
            plan = Plan.of(Cell(batch_size=batch_size, last_batch="drop"), data.n_train)
            counts = [1] + [self._updates_in_block(batch_size, seconds)] * FEWEST_UPDATES
            return {**self._fused.blocks_of(plan, counts), "epochs": 1}
        if data.pipeline is not None:
            batches = data.pipeline.batch(batch_size, drop_remainder=True)
            batches = tensorflow_private.with_cardinality(batches, data.n_train // batch_size)
            return {"x": batches, "shuffle": False, "epochs": MOST_EPOCHS}
        full = data.n_train // batch_size * batch_size
        examples = keras.tree.map_structure(lambda array: np.asarray(array[:full]), data.examples("train"))
        return {**outputs.as_arguments(examples), "batch_size": batch_size, "shuffle": False, "epochs": MOST_EPOCHS}

    def _updates_in_block(self, batch_size: int, seconds: float) -> int:
        """Updates in a block that lasts its share of the seconds; 1 where an update has not been timed yet."""
        share = seconds / FEWEST_UPDATES
        most = max(1, min(engine.TIMED_UPDATES, engine.TIMED_INDICES // batch_size))
        return int(min(most, max(1, share / self._fused_seconds.get(batch_size, math.inf))))

    def _peak(self) -> int:
        return backend.own().peak() if self._on_gpu else memory.peak()


def _trained(model: keras.Model, **arguments: Any) -> None:
    """Train; what the user's own layers raise, other than for want of memory, is named as theirs."""
    try:
        run_fit(model, **arguments)
    except BatchscapeError:
        raise
    except Exception as error:
        if memory.ran_out(error):
            raise
        raise UserCodeError(f"Training {model.name} raised {reason_of(error)}") from error


def _short(rate: float | None) -> float | None:
    """0.01, not 0.009999999776."""
    return None if rate is None else float(f"{rate:.7g}")


_steps: Steps | None = None
"""What this process measures."""


def prepare(source: ProbeInput) -> dict[str, Any]:
    """Build and compile; returns the facts."""
    global _steps
    _steps = Steps(source)
    return _steps.facts


def measure(batch_size: int, seconds: float) -> dict[str, float]:
    """See `Steps.measure`."""
    return _steps.measure(batch_size, seconds)


def try_out(batch_size: int) -> int:
    """See `Steps.try_out`."""
    return _steps.try_out(batch_size)


def evaluate() -> int:
    """See `Steps.evaluate`."""
    return _steps.evaluate()


def time_updates(batch_size: int, seconds: float) -> tuple[float, float]:
    """Seconds of an update, and seconds between two epochs; see `Steps.time`."""
    return tuple(_steps.time(batch_size, seconds)[:2])
