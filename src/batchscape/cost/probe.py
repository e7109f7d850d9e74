"""Time and memory of real training steps against batch size, measured in a process of their own."""

import dataclasses
import math
import os
import pathlib
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from batchscape import backend
from batchscape.config import PRECISIONS
from batchscape.cost import limit
from batchscape.cost.limit import Limit
from batchscape.cost.line import LineFit, fit_line
from batchscape.cost.probe_input import ProbeInput, pack, to_send
from batchscape.cost.result import COLUMNS, Probe
from batchscape.data import load_dataset
from batchscape.errors import BatchscapeError, InvalidInput, UserCodeError, unknown_name
from batchscape.system import memory, progress
from batchscape.workers.watched_process import SECONDS as SECONDS_OF_A_CALL
from batchscape.workers.watched_process import Child, ChildFailed, OutOfMemory

STEPS = "batchscape.cost.steps"
"""The module that the process of a probe runs; naming it keeps TensorFlow out of ours."""

ENGINES = ("stock", "fused")

SECONDS = 0.1
"""How long each timing lasts, at least."""

RISING = 1.05
"""Throughput rises while a batch size gives so many times what the best smaller one gave."""

SECOND_LOOKS = 3
"""Further timings of sizes that seem to give no more, of which the quickest counts."""

PEAKS = 3
"""The memory of so many of the largest batch sizes is measured, each in a process of its own, and of the smallest."""

SECONDS_OF_A_TRIAL = 20.0
"""A batch of which one update is predicted to take longer is not tried to find the limit."""


def probe_batch_sizes(
    build: str | os.PathLike | Callable,
    data: Any,
    *,
    batch_sizes: Sequence[int] | None = None,
    memory_limit: int | float | str | None = None,
    repeats: int = 5,
    loss: str | None = None,
    precision: str | None = None,
    engine: str = "stock",
    jit: bool | None = None,
    time_limit: float = SECONDS_OF_A_CALL,
    show_progress: bool = True,
) -> Probe:
    """Measure the time and memory of a training step at each batch size, and find the largest batch that fits.

    Real training steps run in a fresh process, which is watched and killed at the limit: nothing of the caller's is
    touched, so nothing has to be restored. Sizes are climbed in rising order; one that the line of memory predicts not
    to fit is not tried. Then all of them are timed again in rounds, each in a random order, so that a machine that
    drifts does not decide.

    Args:
        build: A function that builds a Keras model, a model's name, `"package.module:function"`, a `.keras` or `.h5` file, or
            a Keras model, of which copies are trained. A model that is not compiled gets plain SGD at a rate of 0.01 and the
            loss that goes with its labels.
        data: Anything `load_dataset` takes.
        batch_sizes: Sizes in examples, integers from 1 to the number of training examples; by default 1, 2, 4, ... until
            throughput stops rising or memory ends. With sizes, but no limit, nothing larger than them is tried.
        memory_limit: Bytes, or a text such as `"2GB"`; by default 80 % of what is free, or all of a GPU's. On a CPU it
            bounds the resident memory of the training process, TensorFlow's 0.6 GB and the data included.
        repeats: Rounds of timings, int ≥ 1.
        loss: A Keras loss by name, in place of the compiled one.
        precision: A Keras dtype policy such as `"mixed_bfloat16"`; by default the caller's.
        engine: `"stock"`, one update a call as `model.fit` does by itself, or `"fused"`, our blocks of updates.
        jit: Whether XLA compiles; by default as Keras, or our engine, chooses.
        time_limit: Seconds that building the model, or one measurement, may take before its process is killed.
        show_progress: Whether to show progress.

    Returns:
        A `Probe`.

    Raises:
        InvalidInput: For sizes, limits and options that make no sense, and where not even the smallest batch fits.
        UserCodeError: If the build function, or training, raises or ends the process; that is never taken for memory.
    """
    bound = None if memory_limit is None else memory.parse(memory_limit)
    _check(repeats, precision, engine, jit, time_limit)
    build = to_send(build)
    backend.check()
    loaded = load_dataset(data)
    ladder = _ladder(batch_sizes, loaded.n_train)
    with tempfile.TemporaryDirectory(prefix="batchscape-") as folder:
        source = ProbeInput(
            build=build,
            data=pack(data, loaded, pathlib.Path(folder)),
            loss=loss,
            precision=precision or _callers_precision(),
            engine=engine,
            jit=jit,
            device_limit=bound,
        )
        with (
            progress.report("probe", len(ladder) * (1 + repeats), show=show_progress) as advance,
            _Worker(source, bound, time_limit) as worker,
        ):
            return _Climb(worker, ladder, advance, stops=batch_sizes is None).run(repeats)


class _Worker:
    """The child process that trains, replaced when it has died.

    Args:
        source: What is trained.
        bound: The limit in bytes that was asked for, or None.
        seconds: What one of its calls may take.

    Attributes:
        facts: What the child found out about the model.
        asked, bound: The limit in bytes that was asked for, and the one in force.
    """

    def __init__(self, source: ProbeInput, bound: int | None, seconds: float):
        self._source, self.asked, self._seconds = source, bound, seconds
        self._child: Child | None = None
        self.facts: dict[str, Any] = {}
        self.bound = bound or 0

    def __enter__(self) -> "_Worker":
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._child is not None:
            self._child.stop()

    def start(self) -> None:
        """Start a fresh child, with the model built; until then what is free bounds it, not the limit asked for."""
        self.__exit__()
        free = int(memory.SHARE * memory.available())
        self._child = Child(free, self._seconds)
        try:
            self.facts = self._child.call(f"{STEPS}:prepare", self._source)
        except OutOfMemory as error:
            raise InvalidInput(
                f"The model and its data must fit into memory before any training. Received: {error}"
            ) from None
        except ChildFailed as error:
            raise UserCodeError(f"Building the model failed: {error}") from None
        if self.facts["device_memory"] is not None:
            self.bound = min(self.asked or math.inf, self.facts["device_memory"])
            return
        self.bound = self._child.limit = self.asked or free
        if self.bound <= self.facts["built_bytes"]:
            raise InvalidInput(
                f"memory_limit must be above the {memory.text(self.facts['built_bytes'])} that the backend, the data and the "
                f"model take before any training. Received: {memory.text(self.bound)}"
            )

    def call(self, name: str, *arguments: Any) -> Any:
        """Run a function of `steps` in the child."""
        return self._child.call(f"{STEPS}:{name}", *arguments)


MOST_FAILURES = 3
"""Sizes in a row that may fail other than for want of memory: a model may not train at 1, or at no multiple of 4 alone."""


class _Climb:
    """One probe: up the ladder, then rounds of timings, then the limit."""

    def __init__(self, worker: _Worker, ladder: list[int], advance: progress.Advance, *, stops: bool):
        self._worker, self._ladder, self._advance, self._stops = worker, ladder, advance, stops
        self._rows: dict[int, dict[str, Any]] = {}
        self._seconds: dict[int, list[float]] = {}
        self._peaks: dict[int, float] = {}
        self._climbed: dict[int, float] = {}
        self._fails: int | None = None
        self._failures = 0
        self._evaluation_bytes = math.nan
        self._reason = ""
        self._stopped = "the sizes asked for are done" if not stops else "a larger batch would need more examples"

    def run(self, repeats: int) -> Probe:
        """Do it all."""
        for batch in self._ladder:
            if not self._climb(batch):
                break
            self._advance(1, f"batch {batch}")
        if not self._seconds:
            raise InvalidInput(f"Not even the smallest batch fits, B = {self._ladder[0]}. Received: {self._reason}")
        skipped = len(self._ladder) - len(self._seconds)
        self._advance(skipped * (1 + repeats))
        gaps = self._time_in_rounds(repeats)
        self._measure_memory()
        return self._result(gaps, self._find_limit())

    def _climb(self, batch: int) -> bool:
        """Measure one size; whether to go on."""
        if self._predicted_not_to_fit(batch):
            return False
        try:
            found = self._worker.call("measure", batch, SECONDS)
        except OutOfMemory as error:
            self._fails, self._reason = batch, str(error)
            self._stopped = f"B = {batch} does not fit: {error}"
            self._rows[batch] = {"outcome": f"out of memory: {error}"}
            self._worker.start()
            return False
        except InvalidInput:
            raise
        except (ChildFailed, BatchscapeError) as error:
            self._failures += 1
            if not self._seconds and (self._failures == MOST_FAILURES or batch == self._ladder[-1]):
                raise (
                    error if isinstance(error, BatchscapeError) else UserCodeError(f"Training failed: {error}")
                ) from None
            self._stopped = f"B = {batch} failed: {error}"
            self._rows[batch] = {"outcome": f"failed: {error}"}
            self._worker.start()
            return self._failures < MOST_FAILURES
        self._failures = 0
        self._climbed[batch] = found["peak_bytes"]
        self._rows[batch] = {"compile_seconds": found["compile_seconds"], "outcome": "measured"}
        self._seconds[batch] = [found["seconds"]]
        return not (self._stops and self._has_stopped_rising())

    def _predicted_not_to_fit(self, batch: int) -> bool:
        if len(self._climbed) < 3:
            return False
        line = limit.line_of(self._climbed)
        needed = float(line(batch))
        if not line.rises or needed <= self._worker.bound:
            return False
        self._stopped = f"B = {batch} would need {memory.text(needed)} by the line of memory"
        self._rows[batch] = {"outcome": f"not tried: {memory.text(needed)} by the line of memory"}
        return True

    def _has_stopped_rising(self) -> bool:
        """Whether the last two sizes gave less than 5 % over the best before them, a second look included."""
        if len(self._seconds) < 4 or self._rises():
            return False
        for batch in list(self._seconds)[-2:] * SECOND_LOOKS:  # A busy machine must not end the climb.
            self._time(batch)
        if self._rises():
            return False
        self._stopped = "throughput stopped rising"
        return True

    def _rises(self) -> bool:
        speeds = [batch / min(seconds) for batch, seconds in self._seconds.items()]
        return max(speeds[-2:]) >= RISING * max(speeds[:-2])

    def _time_in_rounds(self, repeats: int) -> list[float]:
        """Time all sizes once a round, in a random order; returns the seconds between epochs that were seen."""
        rng, gaps = np.random.default_rng(0), []
        batches = list(self._seconds)
        self._seconds = {batch: [] for batch in batches}
        for _ in range(repeats):
            for batch in rng.permutation(batches).tolist():
                gaps.append(self._time(batch))
                self._advance(1, f"batch {batch}")
        return [gap for gap in gaps if math.isfinite(gap)]

    def _time(self, batch: int) -> float:
        """Time a size once more; returns the seconds between epochs, NaN where there were not two."""
        try:
            update, between = self._worker.call("time_updates", batch, SECONDS)
        except ChildFailed as error:
            raise UserCodeError(f"B = {batch} trained once, and then failed: {error}") from None
        self._seconds[batch].append(update)
        return between

    def _measure_memory(self) -> None:
        """Peaks of a few sizes, the large ones, where it shows, each in a fresh process unless the device tells them apart.

        In a process that has climbed, the allocator still holds what smaller batches left behind.
        """
        sizes = list(self._seconds)
        if self._worker.facts["forgets_peaks"]:
            self._peaks = dict(self._climbed)
            self._evaluate()
            return
        for batch in sorted({sizes[0], *sizes[-PEAKS:]}):
            outcome = self._try(batch)
            if batch == sizes[0] and not isinstance(outcome, str):
                self._evaluate()
            if isinstance(outcome, str):
                self._fails, self._reason = batch, outcome
                return
            self._peaks[batch] = outcome

    def _evaluate(self) -> None:
        """Note the peak of an evaluation, which a sweep makes between epochs, or of the smallest size where that is more."""
        try:
            self._evaluation_bytes = self._worker.call("evaluate")
        except OutOfMemory:
            self._evaluation_bytes = math.inf
        except ChildFailed:  # A step of the model's own may have no loss to evaluate.
            self._evaluation_bytes = math.nan

    def _find_limit(self) -> Limit:
        """Close in on the limit, unless all there is fits by the line."""
        if not self._peaks:
            return Limit(0, self._fails, math.nan, self._reason)
        line = limit.line_of(self._peaks) if len(self._peaks) > 2 else None
        n, largest, bound = self._worker.facts["n_train"], max(self._peaks), self._worker.bound
        slowest = self._line_of_time().solve(1e3 * SECONDS_OF_A_TRIAL) if len(self._seconds) > 1 else math.inf
        most = int(max(largest, min(n, slowest)))
        near = most <= 2 * largest and line is not None and line.band(most)[1] < bound
        unasked = not self._stops and not self._worker.asked
        if self._fails is None and (near or unasked or most == largest):
            return Limit(largest, None, line.solve(bound) if line is not None else math.nan)
        found = limit.search(self._try, self._peaks, self._fails, most, bound)
        return found if found.reason else dataclasses.replace(found, reason=self._reason)

    def _try(self, batch: int) -> float | str:
        """Peak memory of a batch size in a process that trains nothing else, or why it did not fit."""
        self._advance(0, f"memory of batch {batch}")
        self._worker.start()
        try:
            return self._worker.call("try_out", batch)
        except OutOfMemory as error:
            return str(error)
        except ChildFailed as error:
            raise UserCodeError(f"B = {batch} failed, though not for want of memory: {error}") from None

    def _line_of_time(self) -> LineFit:
        medians = [1e3 * float(np.median(seconds)) for seconds in self._seconds.values()]
        return fit_line(list(self._seconds), medians, relative=True)

    def _result(self, gaps: list[float], found: Limit) -> Probe:
        facts = self._worker.facts
        epoch_ms = 1e3 * float(np.median(gaps)) if gaps else 0.0
        rows = []
        for batch, row in sorted(self._rows.items()):
            if batch in self._seconds:
                ms = 1e3 * np.array(self._seconds[batch])
                middle = float(np.median(ms))
                updates = -(-facts["n_train"] // batch)
                row |= {
                    "ms": middle,
                    "ms_low": ms.min(),
                    "ms_high": ms.max(),
                    "samples_per_second": 1e3 * batch / middle,
                }
                row["peak_bytes"] = self._peaks.get(batch, math.nan)
                row["epoch_seconds"] = (updates * middle + epoch_ms) / 1e3
            rows.append({**dict.fromkeys(COLUMNS, math.nan), "batch": batch, **row})
        return Probe(
            table=pd.DataFrame(rows),
            time=self._line_of_time() if len(self._seconds) > 1 else None,
            memory=limit.line_of(self._peaks) if len(self._peaks) > 1 else None,
            limit=found,
            memory_limit=int(self._worker.bound),
            epoch_ms=epoch_ms,
            stopped=self._stopped,
            about={**facts, "evaluation_bytes": self._evaluation_bytes},
        )


def _check(repeats: int, precision: str | None, engine: str, jit: bool | None, time_limit: float) -> None:
    if not 0 < time_limit < math.inf:
        raise InvalidInput(f"time_limit must be a number of seconds > 0. Received: time_limit={time_limit}")
    if not isinstance(repeats, (int, np.integer)) or isinstance(repeats, bool) or repeats < 1:
        raise InvalidInput(f"repeats must be an integer ≥ 1. Received: repeats={repeats!r}")
    if precision is not None and precision not in PRECISIONS:
        raise unknown_name("precision", precision, PRECISIONS)
    if engine not in ENGINES:
        raise unknown_name("engine", engine, ENGINES)
    if jit not in (None, True, False):
        raise InvalidInput(f"jit must be True, False or None. Received: jit={jit!r}")


def _ladder(batch_sizes: Sequence[int] | None, n_train: int) -> list[int]:
    """The sizes to climb, rising."""
    if batch_sizes is None:
        return [2**power for power in range(n_train.bit_length()) if 2**power <= n_train]
    sizes = [size.item() if isinstance(size, np.integer) else size for size in batch_sizes]
    wrong = [size for size in sizes if not isinstance(size, int) or isinstance(size, bool) or not 1 <= size <= n_train]
    if wrong or not sizes:
        raise InvalidInput(
            f"batch_sizes must be integers from 1 to the number of training examples, {n_train}. "
            f"Received: {wrong[0] if wrong else 'none'}"
        )
    return sorted(set(sizes))


def _callers_precision() -> str | None:
    """The dtype policy in force in this process, if Keras is loaded here: a fresh process would not know it."""
    keras = sys.modules.get("keras")
    return keras.config.dtype_policy().name if keras is not None and hasattr(keras, "config") else None
