"""What one task of a sweep trains: a cell, or several that differ in the seed alone and may be trained side by side."""

import dataclasses
import itertools
import logging
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from batchscape.config import Cell
from batchscape.errors import InvalidInput, StoreError, telling_line
from batchscape.record import Record, Status
from batchscape.sweep.sources import Source
from batchscape.sweep.store import Store
from batchscape.train.fit import Trainer, group_of, trainer_for
from batchscape.train.plan import Plan
from batchscape.train.replicas import ReplicaTrainer, without_seed

_log = logging.getLogger("batchscape")

MOST_BY_ITSELF = 8
"""Replicas that `"auto"` tries at most; from there on a device has been told what to do often enough."""

PAYS_BELOW, WORTH_SECONDS = 0.9, 10.0
"""Seeds are trained side by side where that takes less than this share of the time, tried from so many seconds on."""

COST_OF_AN_UPDATE = 64
"""Cost of an update besides its examples, in examples; for the order of jobs and the time left only."""


@dataclasses.dataclass(frozen=True)
class Job:
    """Cells to train, as they travel to a worker.

    Attributes:
        names: The names of their runs, by cell.
        source: Their data and their model.
        store: Where the records go.
        cost: How long it takes, in arbitrary units.
        replicas: As `run_sweep` was given it.
    """

    names: Mapping[Cell, str]
    source: Source
    store: Store
    cost: float
    replicas: int | str

    def __str__(self) -> str:
        cells = list(self.names)
        seeds = ", ".join(str(cell.seed) for cell in cells)
        return f"batch {cells[0].batch_size}, seed{'s' if len(cells) > 1 else ''} {seeds}"


def number_of_replicas(replicas: int | str) -> int | str:
    """The number of replicas, or `"auto"`; refused if it is neither."""
    whole = isinstance(replicas, (int, np.integer)) and not isinstance(replicas, bool)
    if replicas != "auto" and not (whole and replicas >= 1):
        raise InvalidInput(f'replicas must be an integer ≥ 1 or "auto". Received: replicas={replicas!r}')
    return replicas if replicas == "auto" else int(replicas)


def split(cells: Iterable[Cell], replicas: int | str, workers: int) -> list[list[Cell]]:
    """Cells by task: those that differ in the seed alone together, in parts of equal size, at most so many in each.

    Args:
        cells: Cells.
        replicas: As `run_sweep` was given it; `"auto"` leaves a part to each of the workers.
        workers: Number of workers.
    """
    families: dict[Cell, list[Cell]] = {}
    for cell in cells:
        families.setdefault(without_seed(cell), []).append(cell)
    parts = []
    for family in families.values():
        most = min(MOST_BY_ITSELF, math.ceil(len(family) / workers)) if replicas == "auto" else replicas
        ends = np.linspace(0, len(family), math.ceil(len(family) / most) + 1).round().astype(int).tolist()
        parts += [family[a:b] for a, b in itertools.pairwise(ends)]
    return parts


def cost(plans: list[Plan]) -> float:
    """Cost of a run, in arbitrary units."""
    return sum(plan.total_updates * (COST_OF_AN_UPDATE + plan.batch_size) for plan in plans)


def forget() -> None:
    """Let go of the trainers in use: an interrupted sweep must not leave its model to the next one."""
    _trainers.clear()


_trainers: dict[tuple, dict[int, Any]] = {}
"""The trainers in use in this process by the number of replicas, by their group; never more than one group."""


def train(job: Job) -> set[Status]:
    """Train the cells of a job and store each record; what the user's model raises is a record too."""
    statuses = set()
    for record in _records(job):
        job.store.save(dataclasses.replace(record, hash=job.names[record.cell]))
        statuses.add(record.status)
    return statuses


def _records(job: Job) -> Iterator[Record]:
    cells, note = list(job.names), {}
    if len(cells) > 1:
        try:
            if (trainer := _together(job, cells)) is not None:
                yield from trainer.run_together(cells)
                return
        except Exception as error:
            _trainers.clear()
            note = {"replicas_note": f"{type(error).__name__}: {telling_line(error)[:200]}"}
            if job.replicas != "auto":
                _log.warning("%s: trained one by one, for together they fail: %s", job, note["replicas_note"])
    for cell in cells:
        record = _alone(job, cell)
        yield dataclasses.replace(record, facts={**record.facts, **note})


def _together(job: Job, cells: list[Cell]) -> ReplicaTrainer | None:
    """What trains cells side by side; None where `"auto"` finds that it does not pay."""
    if job.replicas == "auto":
        alone = _trainer(job, cells[0])
        seconds = alone.seconds_per_update(cells[0])
        updates = sum(plan.total_updates for plan in Plan.stages(cells[0], job.source.load().n_train))
        if seconds is None or seconds * updates * len(cells) < WORTH_SECONDS:
            return None
        together = _trainer(job, cells[0], len(cells))
        return together if together.seconds_per_update(cells[0]) < PAYS_BELOW * seconds else None
    return _trainer(job, cells[0], len(cells))


def _alone(job: Job, cell: Cell) -> Record:
    try:
        start = job.store.load(cell.initial_weights).weights["final"] if cell.initial_weights else None
        return _trainer(job, cell).run(cell, initial_weights=start)
    except StoreError:
        raise
    except Exception as error:
        _trainers.clear()
        reason = f"{type(error).__name__}: {str(error).strip() or 'no message'}"
        return Record(cell=cell, hash=job.names[cell], status=Status.FAILED, reason=reason)


def _trainer(job: Job, cell: Cell, n_replicas: int = 1) -> Trainer:
    key = (group_of(cell), cell.dataset, cell.train_size, str(job.store.path))
    if key not in _trainers:
        _trainers.clear()
    trainers = _trainers.setdefault(key, {})
    if n_replicas not in trainers:
        parts = cell, job.source.load(), job.source.build
        trainers[n_replicas] = trainer_for(*parts) if n_replicas == 1 else ReplicaTrainer(*parts, n_replicas)
    return trainers[n_replicas]
