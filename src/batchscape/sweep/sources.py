"""The data and the models behind the cells of a sweep, here and in worker processes."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterable
from typing import Any

import joblib
import keras

from batchscape import models, usercode
from batchscape.backend import BACKENDS
from batchscape.config import ARRAYS, Cell
from batchscape.data import Data, load_dataset
from batchscape.errors import DataNotFound, InvalidInput, UserCodeError
from batchscape.losses import loss_of, metric_functions
from batchscape.record import Record, Status, run_hash
from batchscape.sweep.store import Store
from batchscape.train import engine, optimizers, parts, replicas
from batchscape.train.fit import group_of
from batchscape.train.plan import Plan


@dataclasses.dataclass(frozen=True)
class Source:
    """Where a task finds its data and its model; small enough to travel with every task.

    Attributes:
        build: The name of a model, or the function that builds it.
        data: A `Data`, the file that holds one, or the function that gives a `tf.data` pipeline.
    """

    build: str | Callable
    data: Any

    def load(self) -> Data:
        """The data; from a file they are mapped into memory once, shared by all workers."""
        return _load_file(self.data) if isinstance(self.data, pathlib.Path) else load_dataset(self.data)

    def build_model(self, precision: str) -> keras.Model:
        """The model, freshly built."""
        return models.build_model(self.build, self.load(), seed=0, precision=precision)


@functools.lru_cache(maxsize=2)
def _load_file(file: pathlib.Path) -> Data:
    return joblib.load(file, mmap_mode="r")


class Sources:
    """The data and the models that the cells of one sweep name, each loaded or built once.

    Args:
        build: A function that builds the model, in place of the `model` of the cells.
        data: Anything `load_dataset` takes, in place of the `dataset` of the cells.
    """

    def __init__(self, build: Callable | None = None, data: Any = None):
        self._build = models.find_builder(build) if isinstance(build, str) else build
        self._given = data
        self._data: dict[tuple, Data] = {}
        self._fingerprints: dict[tuple, str] = {}
        self._own_rates: dict[tuple, float | None] = {}
        self._why_alone: dict[tuple, str] = {}

    def label(self, cell: Cell) -> Cell:
        """The cell under the names of the function and the data that take the place of its own."""
        changes = {}
        if self._build is not None:
            changes["model"] = usercode.name_of(self._build)
        if self._given is not None:
            name = self._given if isinstance(self._given, str) else ARRAYS
            changes["dataset"] = usercode.name_of(self._given) if callable(self._given) else name
        return dataclasses.replace(cell, **changes)

    def data_of(self, cell: Cell) -> Data:
        """The data of a cell."""
        key = cell.dataset, cell.train_size
        if key not in self._data:
            given = cell.dataset if self._given is None else self._given
            if isinstance(given, str) and given == ARRAYS:
                raise InvalidInput(
                    "These runs were made with arrays: give the same data=... as to run_sweep. Received: none"
                )
            self._data[key] = load_dataset(given, train_size=cell.train_size)
        return self._data[key]

    def check(self, cell: Cell, store: Store, on: str | None = None) -> str:
        """Look at everything that can be wrong with a cell, and return the name of its run, on this backend or another."""
        data, group = self.data_of(cell), group_of(cell)
        Plan.stages(cell, data.n_train)
        if cell.initial_weights and store.status(cell.initial_weights) is not Status.COMPLETE:
            raise InvalidInput(
                f"initial_weights must name a complete run in {store.path}. Received: {cell.initial_weights!r}"
            )
        if group not in self._fingerprints:
            model = self.local(cell).build_model(cell.precision)
            loss = loss_of(model, data, cell.loss)
            metric_functions(cell.metrics, model, data.x_train, data.y_train)
            optimizer = optimizers.make(cell, model)
            parts.tell(parts.check(cell, model, data, loss, optimizer))
            self._own_rates[group] = optimizers.own_rate(optimizer)
            if not model.trainable_variables:
                raise InvalidInput(f"The model needs trainable weights. Received: none in {model.name}")
            engine.check(cell, data)
            self._why_alone[group] = _refusal(replicas.check, cell, model, data, loss, optimizer)
            self._fingerprints[group] = models.fingerprint(model, models.find_builder(self._build or cell.model))
        optimizers.check_rate(cell, self._own_rates[group])
        return run_hash(cell, data.meta["sha256"], self._fingerprints[group], on)

    def why_alone(self, cell: Cell) -> str:
        """Why a cell that was checked cannot be trained beside other seeds; "" where it can."""
        if cell.initial_weights:
            return f"replicas start from their seeds. Received: initial_weights={cell.initial_weights!r}"
        return self._why_alone[group_of(cell)]

    def made(self, record: Record, store: Store) -> bool:
        """Whether a run was made with this model and these data; not if its model or data are gone."""
        if self.label(record.cell) != record.cell:
            return False
        try:
            on = next((name for name in BACKENDS if name in record.environment), None)
            return self.check(record.cell, store, on) == record.hash
        except (UserCodeError, DataNotFound):
            return False

    def check_run(self, record: Record, store: Store) -> None:
        """Refuse data or a model other than a run was made with; its weights would mean nothing there."""
        if not self.made(record, store):
            raise InvalidInput(
                f"The model or the data are not those of run {record.hash}: give the same build and data as to run_sweep, "
                f"unchanged since. Received: model {record.cell.model!r}, dataset {record.cell.dataset!r}"
            )

    def executor_for(self, cells: Iterable[Cell], executor: str) -> str:
        """The executor, `"serial"` in place of `"auto"` where the data of a cell cannot be sent to worker processes.

        Raises:
            InvalidInput: For `"processes"` there.
        """
        if all(map(self._travels, cells)):
            return executor
        if executor == "processes":
            raise InvalidInput(
                "A tf.data.Dataset cannot be sent to worker processes; give the function that makes it, or "
                'executor="serial". Received: executor="processes"'
            )
        return "serial"

    def _travels(self, cell: Cell) -> bool:
        """Whether worker processes can have the data of a cell: a `tf.data.Dataset` needs the function that makes it."""
        given = cell.dataset if self._given is None else self._given
        return self.data_of(cell).pipeline is None or callable(given) or isinstance(given, str)

    def local(self, cell: Cell) -> Source:
        """The source of a cell for a task in this process."""
        return Source(self._build or cell.model, self.data_of(cell))

    def packed(self, cell: Cell, folder: pathlib.Path) -> Source:
        """The source of a cell for tasks in other processes; arrays go into a file, once."""
        if self.data_of(cell).pipeline is not None:
            return Source(self._build or cell.model, cell.dataset if self._given is None else self._given)
        file = folder / f"{list(self._data).index((cell.dataset, cell.train_size))}.joblib"
        if not file.exists():
            joblib.dump(self.data_of(cell), file)
        return Source(self._build or cell.model, file)


def _refusal(check: Callable, *arguments: Any) -> str:
    """What a check says against its arguments."""
    try:
        check(*arguments)
    except InvalidInput as error:
        return str(error)
    return ""
