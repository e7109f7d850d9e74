"""The data and the models behind the cells of a sweep, here and in worker processes."""

import dataclasses
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import keras

from batchscape import usercode
from batchscape.backend import BACKENDS
from batchscape.config import ARRAYS, DATASETS, MODELS, Cell
from batchscape.data import Data, files, function_of, is_function, load_dataset
from batchscape.errors import DataNotFound, InvalidInput, UserCodeError, warn
from batchscape.models import build as models
from batchscape.models import fingerprint
from batchscape.models.copying import ModelCopy, StoredCopy
from batchscape.models.files import is_file
from batchscape.models.fingerprint import Fingerprint
from batchscape.models.losses import ModelLoss
from batchscape.models.metrics import metric_functions
from batchscape.models.resolve_loss import all_targets, loss_of
from batchscape.models.starts import announce
from batchscape.sweep.store import Store, Workspace
from batchscape.system import usermodules
from batchscape.train import engine, optimizers, parallel_seeds
from batchscape.train.caveats import caveats_of, disagreement
from batchscape.train.plan import Plan
from batchscape.train.record import Record, Status, run_hash
from batchscape.train.trainer import group_of

_log = logging.getLogger("batchscape")

CALLBACKS = "callbacks_code"
"""The fact of a record that holds what stands for the callbacks of a run in its name."""

FOLLOWED = "code_followed"
"""The fact of a record that holds the digest of what could be followed of its code, where not all could: it can be measured."""


@dataclasses.dataclass(frozen=True)
class TaskInput:
    """The data and the model of a task, small enough to travel with it.

    Attributes:
        build: The name of a model, or the function that builds it.
        data: A `Data`, one in files, or the function that gives a `tf.data` pipeline.
        sha256: Digest of the data that the names of the runs were made from.
        files: The sha256 of the files of the user's own modules that the names of the runs stand for, in other processes.
        facts: What records of its runs say of their code: `FOLLOWED`, `CALLBACKS`.
        callbacks: A function that makes the callbacks of a run anew; None for none.
    """

    build: str | Callable
    data: Any
    sha256: str
    files: Mapping[str, str] = dataclasses.field(default_factory=dict)
    facts: Mapping[str, str] = dataclasses.field(default_factory=dict)
    callbacks: Callable | None = None

    def load(self) -> Data:
        """The data; from files they are mapped into memory once, shared by all workers.

        Raises:
            StoreError: If they are not those that the names of the runs were made from.
        """
        if isinstance(self.data, files.DataFiles):
            return self.data.load()
        data = load_dataset(self.data)
        files.check_digest(data, self.sha256, data.meta["name"])
        return data

    def require_unedited(self) -> None:
        """Refuse files that were edited since the runs were named: what runs would not be what is named."""
        if edited := usermodules.differing(self.files):
            raise UserCodeError(f"{', '.join(edited)} was edited while the runs were made; call again for the others.")

    def build_model(self, precision: str) -> keras.Model:
        """The model, freshly built."""
        self.require_unedited()
        return models.build_model(self.build, self.load(), seed=0, precision=precision)


class SweepInputs:
    """The data and the models that the cells of one sweep name, each loaded or built once.

    Args:
        build: What builds the model, in place of the `model` of the cells: anything `find_builder` takes.
        data: Anything `load_dataset` takes, in place of the `dataset` of the cells.
        callbacks: A function that makes the callbacks of a run anew; None for none.
    """

    def __init__(
        self,
        build: str | os.PathLike | Callable | None = None,
        data: Any = None,
        callbacks: Callable[[], Sequence[keras.callbacks.Callback]] | None = None,
    ):
        is_name = build is None or (isinstance(build, str) and not is_file(build))
        self._build = build if is_name else models.find_builder(build)
        self._given, self._callbacks = data, callbacks
        followed = None if callbacks is None else fingerprint.of(callbacks)
        self._callbacks_code, self._callbacks_files = (followed.name, followed.files) if followed else ("", {})
        self._data: dict[tuple, Data] = {}
        self._files: dict[tuple, files.DataFiles] = {}
        self._builders: dict[str, Callable] = {}
        self._fingerprints: dict[tuple, Fingerprint] = {}
        self._names: dict[tuple, str] = {}
        self._default_rates: dict[tuple, float | None] = {}
        self._why_alone: dict[tuple, str] = {}

    def label(self, cell: Cell) -> Cell:
        """The cell under the names of the function and the data that take the place of its own."""
        changes = {}
        if self._build is not None:
            changes["model"] = self._build if isinstance(self._build, str) else usercode.name_of(self._build)
        if self._given is not None:
            name = self._given if isinstance(self._given, str) else ARRAYS
            changes["dataset"] = usercode.name_of(self._given) if is_function(self._given) else name
        return dataclasses.replace(cell, **changes)

    def data_of(self, cell: Cell) -> Data:
        """The data of a cell."""
        key = cell.dataset, cell.train_size
        if key not in self._data:
            given = cell.dataset if self._given is None else self._given
            if self._lacks_arrays(cell):
                raise InvalidInput(
                    "These runs were made with arrays: give the same data=... as to run_sweep. Received: none"
                )
            self._data[key] = load_dataset(given, train_size=cell.train_size)
        return self._data[key]

    def check(self, cell: Cell, store: Store, on: str | None = None, callbacks_code: str | None = None) -> str:
        """Look at everything that can be wrong with a cell, and return the name of its run.

        Args:
            cell: The cell.
            store: Where runs are.
            on: The name of the backend; None for this one.
            callbacks_code: What stands for the callbacks of the run in its name; None for those of this sweep.
        """
        data, group = self.data_of(cell), group_of(cell)
        Plan.stages(cell, data.n_train)
        if cell.initial_weights and store.status(cell.initial_weights) is not Status.COMPLETE:
            raise InvalidInput(
                f"initial_weights must name a complete run in {store.path}. Received: {cell.initial_weights!r}"
            )
        if group not in self._default_rates:
            model, loss, optimizer = self._parts_of(cell)
            metric_functions(cell.metrics, model, data.x_train, all_targets(data), loss)
            warn(*caveats_of(cell, model, data, loss, optimizer))
            if not model.trainable_variables:
                raise InvalidInput(f"The model needs trainable weights. Received: none in {model.name}")
            engine.check(cell, data)
            self._check_callbacks(cell)
            self._default_rates[group] = optimizers.default_learning_rate(optimizer)
        optimizers.check_rate(cell, self._default_rates[group])
        code = self._name_of_code(cell) + (self._callbacks_code if callbacks_code is None else callbacks_code)
        return run_hash(cell, data.meta["sha256"], code, on)

    def _check_callbacks(self, cell: Cell) -> None:
        """Refuse callbacks where none can be called, and what makes none."""
        if self._callbacks is None:
            return
        if cell.devices > 1:
            raise InvalidInput(f"callbacks need devices=1. Received: devices={cell.devices}")
        made = usercode.call(self._callbacks, what="callbacks") if callable(self._callbacks) else None
        if not isinstance(made, (list, tuple)) or not all(isinstance(one, keras.callbacks.Callback) for one in made):
            raise InvalidInput(
                "callbacks must be a function that makes a list of Keras callbacks anew for each run. "
                f"Received: {self._callbacks!r}"
            )

    def _code_key(self, cell: Cell) -> tuple:
        return cell.model, cell.dataset, cell.train_size, cell.precision

    def _name_of_code(self, cell: Cell) -> str:
        """What stands for the model and the functions behind it in the name of a run; never twice what cannot be followed."""
        key = self._code_key(cell)
        if key not in self._fingerprints:
            given = cell.dataset if self._given is None else self._given
            code = models.fingerprint(self._builder(cell), self.data_of(cell), cell.precision, function_of(given))
            self._fingerprints[key], self._names[key] = code, code.name
            if code.why_not:
                _log.warning("%s: its runs are not used again, for %s", cell.model, code.why_not)
        return self._names[key]

    def _builder(self, cell: Cell) -> Callable:
        """What builds the model of a cell, the same as long as this sweep runs."""
        build = self._build or cell.model
        if not isinstance(build, str):
            return build
        if build not in self._builders:
            self._builders[build] = models.find_builder(build)
        return self._builders[build]

    def announce(self, cell: Cell) -> None:
        """Log from which weights the training of a cell starts, where that is not the seed of a named model."""
        announce(self._builder(cell))

    def disagreement(self, cell: Cell) -> list[str]:
        """How the loss of a cell differs from that of `evaluate`; see `caveats.disagreement`."""
        return disagreement(cell, self.data_of(cell), self._builder(cell))

    def why_alone(self, cell: Cell) -> str:
        """Why a cell that was checked cannot be trained beside other seeds; "" where it can."""
        if cell.initial_weights:
            return f"parallel_seeds start from their seeds. Received: initial_weights={cell.initial_weights!r}"
        if self._callbacks is not None:
            return "parallel_seeds train several models at once, without callbacks. Received: callbacks"
        group = group_of(cell)
        if group not in self._why_alone:
            model, loss, optimizer = self._parts_of(cell)
            try:
                parallel_seeds.check(cell, model, self.data_of(cell), loss, optimizer)
                self._why_alone[group] = ""
            except InvalidInput as error:
                self._why_alone[group] = str(error)
        return self._why_alone[group]

    def _parts_of(self, cell: Cell) -> tuple[keras.Model, ModelLoss, keras.Optimizer]:
        """The model of a cell, its loss and its optimizer."""
        model = self.local(cell).build_model(cell.precision)
        return model, loss_of(model, self.data_of(cell), cell.loss), optimizers.make(cell, model)

    def is_current(self, record: Record, store: Store) -> bool:
        """Whether a run was made with this model and these data as they are now; not if its model or data are gone.

        Functions that a store names are called only where the caller gave the same names.
        """
        if self.label(record.cell) != record.cell or self._not_given(record.cell) or self._lacks_arrays(record.cell):
            return False
        try:
            on = next((name for name in BACKENDS if name in record.environment), None)
            name = self.check(record.cell, store, on, record.facts.get(CALLBACKS, ""))
        except (UserCodeError, DataNotFound):
            return False
        code = self._fingerprints[self._code_key(record.cell)]
        if (
            code.why_not
        ):  # Its runs have names of their own; a warning has said why. What could be followed must be the same.
            data = record.facts.get("data", {}).get("sha256")
            return record.facts.get(FOLLOWED) == code.digest and data == self.data_of(record.cell).meta["sha256"]
        return name == record.hash

    def check_run(self, record: Record, store: Store) -> None:
        """Refuse data or a model other than a run was made with; its weights would mean nothing there."""
        if names := self._not_given(record.cell):
            options = " ".join(f"--{option} {name}" for option, name in names.items())
            raise InvalidInput(
                f"This store names {' and '.join(map(repr, names.values()))}; pass {options} if you trust it (build=... or "
                "data=... in Python)"
            )
        if self._lacks_arrays(record.cell):
            self.data_of(record.cell)  # Says so.
        if not self.is_current(record, store):
            raise InvalidInput(
                f"The model or the data are not those of run {record.hash}: give the same build and data as to run_sweep, "
                f"unchanged since. Received: model {record.cell.model!r}, dataset {record.cell.dataset!r}"
            )

    def _lacks_arrays(self, cell: Cell) -> bool:
        """Whether a cell was run on arrays, and none were given."""
        return cell.dataset == ARRAYS and self._given is None

    def _not_given(self, cell: Cell) -> dict[str, str]:
        """The functions that a cell names and the caller did not, by the option that gives them."""
        names = {}
        if self._build is None and cell.model not in MODELS:
            names["model"] = cell.model
        if self._given is None and cell.dataset not in (*DATASETS, ARRAYS) and not cell.dataset.endswith(".npz"):
            names["data"] = cell.dataset
        return names

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
        return self.data_of(cell).pipeline is None or is_function(given) or isinstance(given, str)

    def local(self, cell: Cell) -> TaskInput:
        """The input of a cell for a task in this process."""
        data = self.data_of(cell)
        return TaskInput(self._builder(cell), data, data.meta["sha256"], {}, self._facts(cell), self._callbacks)

    def for_workers(self, cell: Cell, workspace: Workspace) -> TaskInput:
        """The input of a cell for tasks in other processes; arrays go into files of the workspace, once."""
        data = self.data_of(cell)
        if data.pipeline is not None:
            travels = cell.dataset if self._given is None else self._given
        else:
            key = cell.dataset, cell.train_size
            if key not in self._files:
                self._files[key] = files.write(data, workspace.folder)
            travels = self._files[key]
        build, files_of_code = self._build or cell.model, self._source_files(cell)
        build = self._builder(cell) if is_file(build) else build
        if isinstance(build, ModelCopy):
            build = StoredCopy.write(build, workspace.folder / "model.pickle")
        return TaskInput(build, travels, data.meta["sha256"], files_of_code, self._facts(cell), self._callbacks)

    def _facts(self, cell: Cell) -> dict[str, str]:
        """What records say of the code of their runs."""
        code = self._fingerprints.get(self._code_key(cell))
        followed = {FOLLOWED: code.digest} if code and code.why_not else {}
        return {**followed, **({CALLBACKS: self._callbacks_code} if self._callbacks_code else {})}

    def _source_files(self, cell: Cell) -> Mapping[str, str]:
        code = self._fingerprints.get(self._code_key(cell))
        return {**(code.files if code else {}), **self._callbacks_files}
