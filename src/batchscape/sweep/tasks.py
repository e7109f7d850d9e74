"""What one task of a sweep trains: a cell, or several that differ in the seed alone and may be trained side by side."""

import dataclasses
import itertools
import logging
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Self

import numpy as np

from batchscape import usercode
from batchscape.config import Cell
from batchscape.errors import InvalidInput, StoreError, reason_of, traceback_of
from batchscape.sweep import claims
from batchscape.sweep.inputs import TaskInput
from batchscape.sweep.store import Store
from batchscape.train.fit import trainer_for
from batchscape.train.parallel_seeds import ParallelSeedsTrainer, without_seed
from batchscape.train.plan import Plan
from batchscape.train.record import Record, Status
from batchscape.train.trainer import Trainer, group_of

_log = logging.getLogger("batchscape")

MOST_BY_ITSELF = 8
"""Most seeds that `"auto"` trains side by side; with more, the overhead of a launch hardly shrinks any further."""

PAYS_BELOW, WORTH_SECONDS = 0.9, 10.0
"""Seeds are trained side by side where that takes less than this share of the time, tried from so many seconds on."""

COST_OF_AN_UPDATE = 64
"""Cost of an update besides its examples, in examples; for the order of tasks and the time left only."""


@dataclasses.dataclass(frozen=True)
class Task:
    """Cells to train, as they travel to a worker.

    Attributes:
        names: The names of their runs, by cell.
        source: Their data and their model.
        store: Where the records go.
        cost: How long it takes, in arbitrary units.
        parallel_seeds: As `run_sweep` was given it.
        stamps: What stood in the store under these names when the sweep began, by `Store.stamp`.
    """

    names: Mapping[Cell, str]
    source: TaskInput
    store: Store
    cost: float
    parallel_seeds: int | str
    stamps: Mapping[str, Any]

    def __str__(self) -> str:
        cells = list(self.names)
        seeds = ", ".join(str(cell.seed) for cell in cells)
        return f"batch {cells[0].batch_size}, seed{'s' if len(cells) > 1 else ''} {seeds}"

    def only(self, cells: Iterable[Cell]) -> Self:
        """The task with some of its cells."""
        names = {cell: self.names[cell] for cell in cells}
        return dataclasses.replace(self, names=names, cost=self.cost * len(names) / len(self.names))

    def status(self, name: str) -> Status | None:
        """How a run has ended since the sweep began; None if it has not. A failure from before is done anew."""
        return self.store.status(name) if self.store.stamp(name) != self.stamps[name] else None


def check_parallel_seeds(parallel_seeds: int | str) -> int | str:
    """The number of seeds to train side by side, or `"auto"`; refused if it is neither."""
    whole = isinstance(parallel_seeds, (int, np.integer)) and not isinstance(parallel_seeds, bool)
    if parallel_seeds != "auto" and not (whole and parallel_seeds >= 1):
        raise InvalidInput(
            f'parallel_seeds must be an integer ≥ 1 or "auto". Received: parallel_seeds={parallel_seeds!r}'
        )
    return parallel_seeds if parallel_seeds == "auto" else int(parallel_seeds)


def split(cells: Iterable[Cell], parallel_seeds: int | str, workers: int) -> list[list[Cell]]:
    """Cells by task: those that differ in the seed alone together, in parts of equal size, at most so many in each.

    Args:
        cells: Cells.
        parallel_seeds: As `run_sweep` was given it; `"auto"` leaves a part to each of the workers.
        workers: Number of workers.
    """
    families: dict[Cell, list[Cell]] = {}
    for cell in cells:
        families.setdefault(without_seed(cell), []).append(cell)
    parts = []
    for family in families.values():
        most = min(MOST_BY_ITSELF, math.ceil(len(family) / workers)) if parallel_seeds == "auto" else parallel_seeds
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
"""The trainers in use in this process by the number of seeds side by side, by their group; never more than one group."""


def train(task: Task) -> dict[str, Status | None]:
    """Train the cells of a task and store each record; what the user's model raises is a record too.

    Each cell is claimed first, by the process that trains it, so that a claim ends with its process.

    Returns:
        How each run ended; None where another sweep has claimed it.
    """
    ended = {}
    with claims.Claims(task.store.path) as mine:
        # A record may have come between the last look and the claim.
        todo = [cell for cell, name in task.names.items() if mine.take(name) and task.status(name) is None]
        for record in _records(task.only(todo)) if todo else ():
            name = task.names[record.cell]
            facts = {**record.facts, **task.source.facts}
            task.store.save(dataclasses.replace(record, hash=name, facts=facts))
            mine.release(name)
            ended[name] = record.status
    return {name: ended.get(name) or task.status(name) for name in task.names.values()}


def _records(task: Task) -> Iterator[Record]:
    cells, note = list(task.names), {}
    if len(cells) > 1:
        try:
            if (trainer := _together(task, cells)) is not None:
                yield from trainer.run_together(cells)
                return
        except StoreError:
            raise
        except Exception as error:
            _trainers.clear()
            note = {"parallel_seeds_note": reason_of(error)}
            if task.parallel_seeds != "auto":
                _log.warning("%s: trained one by one, for together they fail: %s", task, note["parallel_seeds_note"])
    for cell in cells:
        record = _alone(task, cell)
        yield dataclasses.replace(record, facts={**record.facts, **note})


def _together(task: Task, cells: list[Cell]) -> ParallelSeedsTrainer | None:
    """What trains cells side by side; None where `"auto"` finds that it does not pay."""
    if task.parallel_seeds == "auto":
        alone = _trainer(task, cells[0])
        seconds = alone.seconds_per_update(cells[0])
        updates = sum(plan.total_updates for plan in Plan.stages(cells[0], task.source.load().n_train))
        if seconds is None or seconds * updates * len(cells) < WORTH_SECONDS:
            return None
        together = _trainer(task, cells[0], len(cells))
        return together if together.seconds_per_update(cells[0]) < PAYS_BELOW * seconds else None
    return _trainer(task, cells[0], len(cells))


def _alone(task: Task, cell: Cell) -> Record:
    try:
        start = task.store.load(cell.initial_weights).weights["final"] if cell.initial_weights else None
        make = task.source.callbacks
        callbacks = () if make is None else usercode.call(make, what="callbacks")
        return _trainer(task, cell).run(cell, initial_weights=start, callbacks=callbacks)
    except StoreError:
        raise
    except Exception as error:
        _trainers.clear()
        return Record(
            cell=cell,
            hash=task.names[cell],
            status=Status.FAILED,
            reason=reason_of(error),
            traceback=traceback_of(error),
        )


def _trainer(task: Task, cell: Cell, n_seeds: int = 1) -> Trainer:
    key = (group_of(cell), cell.dataset, cell.train_size, str(task.store.path))
    if key not in _trainers:
        _trainers.clear()
    trainers = _trainers.setdefault(key, {})
    if n_seeds not in trainers:
        task.source.require_unedited()
        parts = cell, task.source.load(), task.source.build
        trainers[n_seeds] = trainer_for(*parts) if n_seeds == 1 else ParallelSeedsTrainer(*parts, n_seeds)
    return trainers[n_seeds]
