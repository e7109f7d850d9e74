"""Many runs: what is missing in a store is computed, the rest is read."""

import logging
import os
from collections.abc import Callable, Iterable
from typing import Any

import pandas as pd

from batchscape import progress
from batchscape.config import Cell, Grid
from batchscape.errors import InvalidInput
from batchscape.record import Record, Status
from batchscape.sweep import executors, jobs
from batchscape.sweep.results import to_frame
from batchscape.sweep.sources import Sources
from batchscape.sweep.store import Store
from batchscape.train.fit import group_of
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
    replicas: int | str = 1,
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
        replicas: How many seeds of one cell to train side by side, as one compiled model, with the records of each alone;
            `"auto"` times both ways and does so where it is quicker: on a GPU, seldom on a processor.
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
    replicas = jobs.number_of_replicas(replicas)
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
        _train_all(missing, sources, store, executor, workers, replicas, show_progress)
    frame = to_frame(map(store.load, dict.fromkeys(names.values())))
    failed = frame[frame["status"] == Status.FAILED]
    if len(failed):
        _log.warning("%d of %d runs failed; the first: %s", len(failed), len(frame), failed["reason"].iloc[0])
    return frame


def _train_all(
    missing: dict[Cell, str], sources: Sources, store: Store, executor: str, workers, replicas: int | str, show: bool
) -> None:
    executor, workers = executors.choose(sources.executor_for(missing, executor), workers, len(missing))
    alone = dict.fromkeys(cell for cell in missing if replicas == 1 or sources.why_alone(cell))
    if alone and replicas not in (1, "auto"):
        raise InvalidInput(sources.why_alone(next(iter(alone))))
    beside = [cell for cell in missing if cell not in alone]
    with store.workspace() as folder:
        tasks = []
        for cells in [*([cell] for cell in alone), *jobs.split(beside, replicas, workers)]:
            source = sources.local(cells[0]) if executor == "serial" else sources.packed(cells[0], folder)
            plans = Plan.stages(cells[0], sources.data_of(cells[0]).n_train)
            names = {cell: missing[cell] for cell in cells}
            tasks.append(jobs.Job(names, source, store, len(cells) * jobs.cost(plans), replicas))
        # Cells of one compiled model together; among them the dearest first, so that no worker ends long after the rest.
        tasks.sort(key=lambda job: (str(group_of(next(iter(job.names)))), -job.cost))
        jobs.forget()
        try:
            with progress.report("sweep", sum(job.cost for job in tasks), show=show) as advance:
                for job, statuses, died in executors.run(jobs.train, tasks, executor=executor, workers=workers):
                    if died:
                        statuses = _bury(job, died)
                    advance(job.cost, f"{job}: {', '.join(sorted(statuses))}")
        finally:
            jobs.forget()


def _bury(job: jobs.Job, died: str) -> set[Status]:
    """Records of the cells that the worker of a job died of."""
    lost = [cell for cell, name in job.names.items() if job.store.status(name) in (None, Status.FAILED)]
    for cell in lost:
        job.store.save(Record(cell=cell, hash=job.names[cell], status=Status.FAILED, reason=died))
    return {Status.FAILED}
