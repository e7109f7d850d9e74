"""Many runs: what is missing in a store is computed, the rest is read."""

import dataclasses
import logging
import os
from collections.abc import Callable, Iterable
from typing import Any

import pandas as pd

from batchscape import progress
from batchscape.config import Cell, Grid
from batchscape.errors import InvalidInput, StoreError
from batchscape.record import Record, Status
from batchscape.sweep import executors
from batchscape.sweep.results import to_frame
from batchscape.sweep.sources import Source, Sources
from batchscape.sweep.store import Store
from batchscape.train.fit import group_of, trainer_for
from batchscape.train.plan import Plan

_log = logging.getLogger("batchscape")


def run_sweep(
    grid: Grid | Iterable[Cell],
    *,
    store: str | os.PathLike | Store = "runs/sweep",
    build: Callable | None = None,
    data: Any = None,
    executor: str = "auto",
    workers: int | None = None,
    show_progress: bool = True,
) -> pd.DataFrame:
    """Train every cell of a grid that the store does not hold yet.

    Runs can be interrupted at any moment, Ctrl-C and kill −9 included; the next call goes on from there. Failed runs are
    done anew, diverged ones are results. Adding seeds or batch sizes later costs only what is new.

    Args:
        grid: A `Grid`, or cells.
        store: A folder, or a `Store`.
        build: A function that builds the model, in place of the `model` of the cells; it may stand in a notebook.
        data: Anything `load_dataset` takes, in place of the `dataset` of the cells.
        executor: `"serial"`, `"processes"` (one thread each), or `"auto"`.
        workers: Number of processes; one a core by default.
        show_progress: Whether to show a progress bar.

    Returns:
        The frame of `load_results`, for the cells of this grid, in their order.

    Raises:
        InvalidInput, DataNotFound, UserCodeError: If a cell, the data or a user's function are not usable; nothing has
            been run then.
        StoreError: If the store cannot be read or written.
    """
    store = Store.of(store)
    executors.check(executor, workers)
    sources = Sources(build, data)
    names = {
        cell: sources.check(cell, store) for cell in map(sources.label, [grid] if isinstance(grid, Cell) else grid)
    }
    if not names:
        raise InvalidInput("A sweep needs at least one cell. Received: none")
    store.require_writable()
    store.remove_leftovers()
    missing = {cell: name for cell, name in names.items() if store.status(name) in (None, Status.FAILED)}
    if missing:
        _train_all(missing, sources, store, executor, workers, show_progress)
    frame = to_frame(map(store.load, dict.fromkeys(names.values())))
    failed = frame[frame["status"] == Status.FAILED]
    if len(failed):
        _log.warning("%d of %d runs failed; the first: %s", len(failed), len(frame), failed["reason"].iloc[0])
    return frame


@dataclasses.dataclass(frozen=True)
class _Job:
    """One cell to train, as it travels to a worker."""

    cell: Cell
    name: str
    source: Source
    store: Store
    cost: float


def _train_all(missing: dict[Cell, str], sources: Sources, store: Store, executor: str, workers, show: bool) -> None:
    executor = sources.executor_for(missing, executor)
    with store.workspace() as folder:
        jobs = []
        for cell, name in missing.items():
            source = sources.local(cell) if executor == "serial" else sources.packed(cell, folder)
            jobs.append(_Job(cell, name, source, store, _cost(Plan.stages(cell, sources.data_of(cell).n_train))))
        # Cells of one compiled model together; among them the dearest first, so that no worker ends long after the rest.
        jobs.sort(key=lambda job: (str(group_of(job.cell)), -job.cost))
        _trainers.clear()
        try:
            with progress.report("sweep", sum(job.cost for job in jobs), show=show) as advance:
                for job, status, died in executors.run(_train, jobs, executor=executor, workers=workers):
                    if died:
                        store.save(Record(cell=job.cell, hash=job.name, status=Status.FAILED, reason=died))
                    advance(job.cost, f"batch {job.cell.batch_size}, seed {job.cell.seed}: {status or Status.FAILED}")
        finally:  # An interrupted sweep must not leave its model to the next one.
            _trainers.clear()


_COST_OF_AN_UPDATE = 64
"""Cost of an update besides its examples, in examples; for the order of jobs and the time left only."""


def _cost(plans: list[Plan]) -> float:
    return sum(plan.total_updates * (_COST_OF_AN_UPDATE + plan.batch_size) for plan in plans)


_trainers: dict[tuple, Any] = {}
"""The trainer in use in this process, by its group; never more than one."""


def _train(job: _Job) -> Status:
    """Train one cell and store its record; what the user's model raises is a record too."""
    try:
        start = job.store.load(job.cell.initial_weights).weights["final"] if job.cell.initial_weights else None
        record = _trainer_for(job).run(job.cell, initial_weights=start)
    except StoreError:
        raise
    except Exception as error:
        _trainers.clear()
        reason = f"{type(error).__name__}: {str(error).strip() or 'no message'}"
        record = Record(cell=job.cell, hash=job.name, status=Status.FAILED, reason=reason)
    job.store.save(dataclasses.replace(record, hash=job.name))
    return record.status


def _trainer_for(job: _Job):
    key = (group_of(job.cell), job.cell.dataset, job.cell.train_size, str(job.store.path))
    if key not in _trainers:
        _trainers.clear()
        _trainers[key] = trainer_for(job.cell, job.source.load(), job.source.build)
    return _trainers[key]
