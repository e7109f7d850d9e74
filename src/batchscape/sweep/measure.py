"""Measurements on finished runs, kept beside their records: what is missing is measured, the rest is read."""

import dataclasses
import inspect
import logging
import math
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pandas as pd

from batchscape.errors import DamagedRun, StoreError, unknown_name
from batchscape.models import fingerprint
from batchscape.sweep.inputs import SweepInputs, TaskInput
from batchscape.sweep.store import Store
from batchscape.system import progress
from batchscape.train.record import Status
from batchscape.train.trainer import group_of
from batchscape.usercode import name_of
from batchscape.workers import executors

_log = logging.getLogger("batchscape")


@dataclasses.dataclass(frozen=True)
class _Task:
    """One run to measure, as it travels to a worker."""

    run: str
    kind: str
    prepare: Callable
    options: Mapping[str, Any]
    code: str
    source: TaskInput
    store: Store


def measure_runs(
    store: str | os.PathLike | Store,
    runs: Iterable[str],
    kind: str,
    prepare: Callable,
    *,
    revision: int = 1,
    build: Callable | None = None,
    data: Any = None,
    executor: str = "auto",
    workers: int | None = None,
    show_progress: bool = True,
    **options: Any,
) -> pd.DataFrame:
    """Measure the trained models of a store, once each.

    Two calls at once measure the same runs twice, with the same results: measurements are not claimed as runs are.

    Args:
        store: A folder, or a `Store`.
        runs: Names of runs; those that diverged or failed are left out, and so, with a warning, are damaged ones and those
            of another model or other data.
        kind: Name of the measurement.
        prepare: (model, data, loss, **options) -> a function from a `Record` to a dict of results. Another function, or
            an edit of it or of what it imports, is another measurement; of a function of batchscape its revision counts.
        revision: Raise it to measure anew what the source of `prepare` does not tell, such as a program that it calls.
        build, data: What the sweep was given in place of the names in its cells.
        executor, workers, show_progress: See `run_sweep`.
        **options: Further arguments of `prepare`; other options are another measurement.

    Returns:
        One row a run, with `hash` and the results that are numbers.

    Raises:
        InvalidInput: If `prepare` does not take an option, or the runs are of another model or other data.
        StoreError: If the store cannot be read or written, or a worker process crashed.
    """
    _check_options(prepare, options)
    store, sources = Store.of(store), SweepInputs(build, data)
    code = code_of(prepare, revision)
    read = store.records(dict.fromkeys(runs), weights=True)
    complete = {record.hash: record for record in read if record.status is Status.COMPLETE}
    missing = [
        record for run, record in complete.items() if store.load_measurement(run, kind, options, code=code) is None
    ]
    missing.sort(key=lambda record: str(group_of(record.cell)))  # Runs of one model together.
    # Before the data, which the store may name, are looked at.
    if others := [record for record in missing if not sources.is_current(record, store)]:
        if len(others) == len(complete):
            sources.check_run(others[0], store)
        _log.warning(
            "%d of %d runs are left out: another model or other data, such as those of run %s",
            len(others), len(complete), others[0].hash,
        )  # fmt: skip
        for record in others:
            missing.remove(record)
            del complete[record.hash]
    executor = sources.executor_for([record.cell for record in missing], executor)
    executor, workers = executors.choose(executor, workers, len(missing) or 1)
    with store.workspace() as workspace:
        tasks = []
        for record in missing:
            source = sources.local(record.cell) if executor == "serial" else sources.for_workers(record.cell, workspace)
            tasks.append(_Task(record.hash, kind, prepare, options, code, source, store))
        _prepared.clear()
        try:
            with progress.report(kind, len(tasks), show=show_progress) as advance:
                for task, damage, died in executors.run(_measure, tasks, executor=executor, workers=workers):
                    if died:
                        raise StoreError(f"Measuring {kind} of run {task.run} failed: {died}")
                    if damage:
                        _log.warning("Run %s is left out: %s", task.run, damage)
                        del complete[task.run]
                    advance()
        finally:
            _prepared.clear()
    rows = [{"hash": run, **store.load_measurement(run, kind, options, code=code)} for run in complete]
    frame = pd.DataFrame(rows, columns=None if rows else ["hash"])
    return frame[[name for name in frame if not frame[name].map(lambda value: isinstance(value, (dict, list))).any()]]


def _check_options(prepare: Callable, options: Mapping[str, Any]) -> None:
    """Refuse an option that `prepare` does not take where it is typed, and not in a worker."""
    parameters = inspect.signature(prepare).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return
    by_position = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    known = [*by_position[3:], *(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)]
    ours = [p.name for p in inspect.signature(measure_runs).parameters.values() if p.kind is p.KEYWORD_ONLY]
    for name in options:
        if name not in known:
            raise unknown_name("option", name, [*known, *ours])


def code_of(prepare: Callable, revision: int = 1) -> str:
    """Digest of the code of a measuring function, part of the name of each measurement.

    Args:
        prepare: The function. One of batchscape counts by the number that `fingerprint.revision` marks it with.
        revision: A number that is raised to measure anew.
    """
    code = fingerprint.of(prepare, revision)
    if code.why_not:
        _log.warning("%s: what it measures is not used again, for %s", name_of(prepare), code.why_not)
    return code.name


def keep_table(
    store: Store,
    run: str,
    kind: str,
    options: Mapping[str, Any],
    make: Callable[[], pd.DataFrame],
    *,
    revision: int = 1,
) -> pd.DataFrame:
    """A table that is made once and kept in the store, beside a run.

    Args:
        store: The store.
        run: Name of the run.
        kind: Name of the table.
        options: What it depends on; other options are another table.
        make: Makes it.
        revision: That of the code that makes it; another revision is another table.
    """
    code = f"revision {revision}"
    if store.load_measurement(run, kind, options, code=code) is None:
        store.save_measurement(run, kind, options, {"rows": make().to_dict("records")}, code=code)
    rows = store.load_measurement(run, kind, options, code=code)["rows"]  # JSON has null for NaN.
    return pd.DataFrame({name: math.nan if value is None else value for name, value in row.items()} for row in rows)


_prepared: dict[tuple, Callable] = {}
"""The measuring function in use in this process; never more than one."""


def _measure(task: _Task) -> str:
    """Measure a run and keep the result; returns "", or what is wrong with the run."""
    record = task.store.load(task.run)
    key = (task.kind, task.code, str(task.options), group_of(record.cell), str(task.store.path))
    if key not in _prepared:
        _prepared.clear()
        data = task.source.load()
        _prepared[key] = task.prepare(
            task.source.build_model(record.cell.precision), data, record.cell.loss, **task.options
        )
    try:
        result = _prepared[key](record)
    except DamagedRun as error:  # What the sizes of its weights did not tell.
        return str(error)
    task.store.save_measurement(task.run, task.kind, task.options, result, code=task.code)
    return ""
