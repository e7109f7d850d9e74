"""Many runs: what is missing in a store is computed, the rest is read."""

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
import pandas as pd

from batchscape.config import Cell, Grid
from batchscape.errors import InvalidInput, warn
from batchscape.models.measured import with_measure
from batchscape.sweep import claims, tasks
from batchscape.sweep.frames import to_frame
from batchscape.sweep.inputs import SweepInputs
from batchscape.sweep.store import Store
from batchscape.system import progress
from batchscape.train.plan import Plan
from batchscape.train.record import Record, Status
from batchscape.train.trainer import group_of
from batchscape.workers import executors

_log = logging.getLogger("batchscape")

FIRST_PAUSE, LONGEST_PAUSE = 0.05, 2.0
"""Seconds between looks at the runs that another sweep trains."""


def run_sweep(
    grid: Grid | Iterable[Cell],
    *,
    store: str | os.PathLike | Store = "runs/sweep",
    build: str | os.PathLike | Callable | None = None,
    data: Any = None,
    measure: Callable | None = None,
    callbacks: Callable[[], Sequence[keras.callbacks.Callback]] | None = None,
    executor: str = "auto",
    workers: int | None = None,
    parallel_seeds: int | str = 1,
    time_limit: float | None = None,
    show_progress: bool = True,
) -> pd.DataFrame:
    """Train a model for every cell of a grid, except for the runs that the store already holds.

    Runs can be interrupted at any moment, Ctrl-C and kill −9 included; the next call goes on from there. Failed runs are
    done anew, diverged ones are results. Adding seeds or batch sizes later costs only what is new. Several sweeps may share
    a store, from several hosts too: each run is trained by the first that claims it, and all return complete frames.

    Args:
        grid: A `Grid`, or cells.
        store: A folder, or a `Store`.
        build: A function that builds the model, in place of the `model` of the cells; it may stand in a notebook. Or a Keras
            model, compiled or not, or a `.keras` or `.h5` file: each run trains a copy, from its weights; `fresh(build)`
            begins anew.
        data: Anything `load_dataset` takes, in place of the `dataset` of the cells.
        measure: What the loss of a model with a `train_step` of its own is; see `with_measure`.
        callbacks: A function that makes a list of Keras callbacks anew for each run, such as
            `lambda: [keras.callbacks.EarlyStopping("val_loss", patience=3)]`.
        executor: `"serial"`, `"processes"` (one thread each), or `"auto"`.
        workers: Number of processes; one a core by default.
        parallel_seeds: How many seeds of one cell to train side by side, as one compiled model, with the records of each alone;
            `"auto"` times both ways and does so where it is quicker: on a GPU, seldom on a processor.
        time_limit: Seconds that a cell may take in its worker process, building and compiling included; one that takes
            longer is killed and FAILED. Needs processes, which `"auto"` then chooses.
        show_progress: Whether to show a progress bar.

    Returns:
        The frame of `load_results`, for the cells of this grid, in their order.

    Raises:
        InvalidInput, DataNotFound, UserCodeError: If a cell, the data or a user's function are not usable; nothing has
            been run then.
        StoreError: If the store cannot be read or written.
    """
    store = Store.of(store)
    executors.check(executor, workers, time_limit)
    parallel_seeds = tasks.check_parallel_seeds(parallel_seeds)
    sources = SweepInputs(with_measure(build, measure), data, callbacks)
    names = _names_of(grid, sources, store)
    if not store.path.is_dir():  # One that is there may be complete, and need not be writable.
        store.require_writable()
    store.require_version()
    stamps = {name: store.stamp(name) for name in names.values()}  # Before their status: a newer record is a result.
    missing = _missing(names, store)
    for damage in filter(None, map(store.damage, missing.values())):
        _log.warning("%s; its run is trained anew", damage)
    if missing:
        store.require_writable()
        store.remove_leftovers()
        _train_all(missing, stamps, sources, store, executor, workers, parallel_seeds, time_limit, show_progress)
    frame = to_frame(map(store.load, dict.fromkeys(names.values())))
    failed = frame[frame["status"] == Status.FAILED]
    if len(failed):
        _log.warning("%d of %d runs failed; the first: %s", len(failed), len(frame), failed["reason"].iloc[0])
    return frame


def missing_runs(
    grid: Grid | Iterable[Cell],
    *,
    store: str | os.PathLike | Store = "runs/sweep",
    build: str | os.PathLike | Callable | None = None,
    data: Any = None,
    measure: Callable | None = None,
    callbacks: Callable[[], Sequence[keras.callbacks.Callback]] | None = None,
) -> dict[Cell, str]:
    """Return the cells that `run_sweep` would train, with the names of their runs; nothing is trained or written.

    Args:
        grid: A `Grid`, or cells.
        store: A folder, or a `Store`; it need not be there.
        build, data, measure, callbacks: See `run_sweep`.

    Returns:
        Names of runs by cell, in the order of the grid: those without a record, and those that failed.

    Raises:
        InvalidInput, DataNotFound, UserCodeError, StoreError: See `run_sweep`.
    """
    store = Store.of(store)
    store.require_version()
    sources = SweepInputs(with_measure(build, measure), data, callbacks)
    return _missing(_names_of(grid, sources, store), store)


def _names_of(grid: Grid | Iterable[Cell], sources: SweepInputs, store: Store) -> dict[Cell, str]:
    """The names of the runs of a grid, by cell."""
    names = {}
    for cell in map(sources.label, [grid] if isinstance(grid, Cell) else grid):
        sources.announce(cell)
        names[cell] = sources.check(cell, store)
    if not names:
        raise InvalidInput("A sweep needs at least one cell. Received: none")
    return names


def _missing(names: dict[Cell, str], store: Store) -> dict[Cell, str]:
    """Those without a record, and those that failed."""
    return {cell: name for cell, name in names.items() if store.status(name) in (None, Status.FAILED)}


def _train_all(
    missing: dict[Cell, str],
    stamps: dict[str, Any],
    sources: SweepInputs,
    store: Store,
    executor: str,
    workers: int | None,
    parallel_seeds: int | str,
    time_limit: float | None,
    show: bool,
) -> None:
    if time_limit is not None:
        sources.executor_for(missing, "processes")  # Refuses data that cannot be sent there.
    for cell in missing:
        warn(*sources.disagreement(cell))
    executor, workers = executors.choose(sources.executor_for(missing, executor), workers, len(missing), time_limit)
    alone = dict.fromkeys(cell for cell in missing if parallel_seeds == 1 or sources.why_alone(cell))
    if alone and parallel_seeds not in (1, "auto"):
        raise InvalidInput(sources.why_alone(next(iter(alone))))
    beside = [cell for cell in missing if cell not in alone]
    with store.workspace() as workspace:
        todo = []
        for cells in [*([cell] for cell in alone), *tasks.split(beside, parallel_seeds, workers)]:
            source = sources.local(cells[0]) if executor == "serial" else sources.for_workers(cells[0], workspace)
            plans = Plan.stages(cells[0], sources.data_of(cells[0]).n_train)
            names = {cell: missing[cell] for cell in cells}
            seen = {name: stamps[name] for name in names.values()}
            todo.append(tasks.Task(names, source, store, len(cells) * tasks.cost(plans), parallel_seeds, seen))
        # Cells of one compiled model together; among them the dearest first, so that no worker ends long after the rest.
        todo.sort(key=lambda task: (str(group_of(next(iter(task.names)))), -task.cost))
        tasks.forget()
        try:
            with progress.report("sweep", sum(task.cost for task in todo), show=show) as advance:
                others, how = _Others(advance), {"executor": executor, "workers": workers, "time_limit": time_limit}
                while todo:
                    outcomes = executors.run(tasks.train, todo, size_of=lambda task: len(task.names), **how)
                    with contextlib.closing(outcomes):  # Ends the workers at once, whatever is raised here.
                        for task, statuses, died in outcomes:
                            others.leave(task, _record_lost_cells(task, died) if died else statuses)
                    todo = others.wait()
        finally:
            tasks.forget()


def _record_lost_cells(task: tasks.Task, died: str) -> dict[str, Status | None]:
    """Save a FAILED record for every cell whose worker process ended; those of another sweep are left to it."""
    ended = {}
    with claims.Claims(task.store.path) as mine:
        for cell, name in task.names.items():
            if mine.take(name) and task.status(name) is None:
                task.store.save(Record(cell=cell, hash=name, status=Status.FAILED, reason=f"{died}: {task}"))
                ended[name] = Status.FAILED
    return {name: ended.get(name) or task.status(name) for name in task.names.values()}


class _Others:
    """The runs of a sweep that another one has claimed.

    Args:
        advance: Shows progress.
    """

    def __init__(self, advance: progress.Advance):
        self._advance = advance
        self._tasks: dict[str, tasks.Task] = {}

    def leave(self, task: tasks.Task, statuses: dict[str, Status | None]) -> None:
        """Count what has ended of a task, and leave the rest to others."""
        if seen := sorted({status for status in statuses.values() if status}):
            ended = task.only(cell for cell, name in task.names.items() if statuses[name])
            self._advance(ended.cost, f"{ended}: {', '.join(seen)}")
        self._tasks |= {name: task.only([cell]) for cell, name in task.names.items() if not statuses[name]}
        while self._tasks and self._count(next(iter(self._tasks))):  # Others end in this order, too, by and large.
            pass

    def wait(self) -> list[tasks.Task]:
        """Wait for the runs that others train; return tasks for those that they let go without a record."""
        pause = FIRST_PAUSE
        while self._tasks:
            free = [name for name, task in self._tasks.items() if not claims.is_taken(task.store.path, name)]
            for name in list(self._tasks):  # After the claims: a record is there before its claim goes.
                self._count(name)
            if todo := [self._tasks.pop(name) for name in free if name in self._tasks]:
                return todo
            if self._tasks:
                count = len(self._tasks)
                self._advance(0.0, f"waiting for {count} run{'s' if count > 1 else ''} of another sweep")
                time.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
        return []

    def _count(self, name: str) -> bool:
        """Whether a run has ended, which is then counted."""
        task = self._tasks[name]
        if (status := task.status(name)) is None:
            return False
        self._advance(task.cost, f"{task}: {status}, by another sweep")
        del self._tasks[name]
        return True
