"""Measurements on finished runs, kept beside their records: what is missing is measured, the rest is read."""

import dataclasses
import math
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pandas as pd

from batchscape import progress
from batchscape.errors import StoreError
from batchscape.record import Status
from batchscape.sweep import executors
from batchscape.sweep.sources import Source, Sources
from batchscape.sweep.store import Store
from batchscape.train.fit import group_of


@dataclasses.dataclass(frozen=True)
class _Job:
    """One run to measure, as it travels to a worker."""

    run: str
    kind: str
    prepare: Callable
    options: Mapping[str, Any]
    source: Source
    store: Store


def measure_runs(
    store: str | os.PathLike | Store,
    runs: Iterable[str],
    kind: str,
    prepare: Callable,
    *,
    build: Callable | None = None,
    data: Any = None,
    executor: str = "auto",
    workers: int | None = None,
    show_progress: bool = True,
    **options: Any,
) -> pd.DataFrame:
    """Measure complete runs of a store.

    Args:
        store: A folder, or a `Store`.
        runs: Names of runs; those that diverged or failed are left out.
        kind: Name of the measurement.
        prepare: (model, data, loss, **options) -> a function from a `Record` to a dict of results.
        build, data: What the sweep was given in place of the names in its cells.
        executor, workers, show_progress: See `run_sweep`.
        **options: Further arguments of `prepare`; other options are another measurement.

    Returns:
        One row a run, with `hash` and the results that are numbers.
    """
    store, sources = Store.of(store), Sources(build, data)
    complete = [run for run in dict.fromkeys(runs) if store.status(run) is Status.COMPLETE]
    missing = [store.load(run) for run in complete if store.load_measurement(run, kind, options) is None]
    missing.sort(key=lambda record: str(group_of(record.cell)))  # Runs of one model together.
    executor = sources.executor_for([record.cell for record in missing], executor)
    with store.workspace() as folder:
        jobs = []
        for record in missing:
            sources.check_run(record, store)
            source = sources.local(record.cell) if executor == "serial" else sources.packed(record.cell, folder)
            jobs.append(_Job(record.hash, kind, prepare, options, source, store))
        _prepared.clear()
        try:
            with progress.report(kind, len(jobs), show=show_progress) as advance:
                for job, _, died in executors.run(_measure, jobs, executor=executor, workers=workers):
                    if died:
                        raise StoreError(f"Measuring {kind} of run {job.run} failed: {died}")
                    advance()
        finally:
            _prepared.clear()
    rows = [{"hash": run, **store.load_measurement(run, kind, options)} for run in complete]
    frame = pd.DataFrame(rows, columns=None if rows else ["hash"])
    return frame[[name for name in frame if not frame[name].map(lambda value: isinstance(value, (dict, list))).any()]]


def keep_table(
    store: Store, run: str, kind: str, options: Mapping[str, Any], make: Callable[[], pd.DataFrame]
) -> pd.DataFrame:
    """A table that is made once and kept in the store, beside a run.

    Args:
        store: The store.
        run: Name of the run.
        kind: Name of the table.
        options: What it depends on; other options are another table.
        make: Makes it.
    """
    if store.load_measurement(run, kind, options) is None:
        store.save_measurement(run, kind, options, {"rows": make().to_dict("records")})
    rows = store.load_measurement(run, kind, options)["rows"]  # JSON has null for NaN.
    return pd.DataFrame({name: math.nan if value is None else value for name, value in row.items()} for row in rows)


_prepared: dict[tuple, Callable] = {}
"""The measuring function in use in this process; never more than one."""


def _measure(job: _Job) -> None:
    record = job.store.load(job.run)
    key = (job.kind, str(job.options), group_of(record.cell), str(job.store.path))
    if key not in _prepared:
        _prepared.clear()
        data = job.source.load()
        _prepared[key] = job.prepare(
            job.source.build_model(record.cell.precision), data, record.cell.loss, **job.options
        )
    job.store.save_measurement(job.run, job.kind, job.options, _prepared[key](record))
