"""One training run: from a `Cell` to a named `Record`."""

import dataclasses
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import keras

from batchscape.config import Cell
from batchscape.data import Data, function_of, load_dataset
from batchscape.errors import InvalidInput, warn
from batchscape.models import build as models
from batchscape.models import fingerprint
from batchscape.models.measured import with_measure
from batchscape.models.starts import announce
from batchscape.train import engine
from batchscape.train.caveats import disagreement
from batchscape.train.record import Record, Weights, run_hash
from batchscape.train.trainer import Trainer

if TYPE_CHECKING:
    from batchscape.train.data_parallel import ParallelTrainer


def fit_one(
    cell: Cell,
    *,
    build: str | os.PathLike | Callable | None = None,
    data: Any = None,
    initial_weights: Weights | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    measure: Callable | None = None,
) -> Record:
    """Train one model by `model.fit` and record the run.

    Args:
        cell: What to run.
        build: A function that builds the model, in place of `cell.model`; or a Keras model, or a `.keras` or `.h5` file, of
            which a copy is trained from its weights (`fresh(build)` begins anew).
        data: Anything `load_dataset` takes, in place of `cell.dataset`.
        initial_weights: What `model.get_weights()` returns, to start from; None for a fresh start from the seed.
        callbacks: Further Keras callbacks; with `fused` they see a block of updates as one batch. None beside `devices`,
            which train in a process of their own.
        measure: What the loss of a model with a `train_step` of its own is; see `with_measure`.

    Returns:
        The `Record`, with weights. A run whose loss becomes NaN or infinite is a result too, with status `DIVERGED`.

    Raises:
        InvalidInput, DataNotFound, UserCodeError: If the cell, the data or the user's functions are not usable.

    Example:
        >>> record = fit_one(Cell(batch_size="full", epochs=2, seed=0))
        >>> record.final["updates"], str(record.status)
        (2, 'COMPLETE')
    """
    if cell.initial_weights and initial_weights is None:
        raise InvalidInput("initial_weights names a run in a store; use run_sweep, or give fit_one the weights.")
    if not all(isinstance(callback, keras.callbacks.Callback) for callback in callbacks):
        raise InvalidInput(f"callbacks must be Keras callbacks. Received: {', '.join(map(repr, callbacks))}")
    loaded = load_dataset(data if data is not None else cell.dataset, train_size=cell.train_size)
    given = cell.model if build is None else build
    build = models.find_builder(given)
    announce(build)
    build = with_measure(build, measure)
    code = models.fingerprint(
        build, loaded, cell.precision, function_of(data if data is not None else cell.dataset)
    ).name
    if callbacks or initial_weights is not None:
        code += fingerprint.of(tuple(callbacks), initial_weights).name
    trainer = trainer_for(cell, loaded, build)
    warn(*disagreement(cell, loaded, given if isinstance(given, keras.Model) else build))
    try:
        record = trainer.run(cell, initial_weights=initial_weights, callbacks=callbacks)
        return dataclasses.replace(record, hash=run_hash(cell, loaded.meta["sha256"], code))
    finally:
        warn(*trainer.caveats)


def trainer_for(cell: Cell, data: Data, build: str | Callable) -> "Trainer | ParallelTrainer":
    """The trainer of a cell and others of its group: a `Trainer`, or one in a process of its own with several devices."""
    if cell.devices == 1:
        return Trainer(cell, data, build)
    engine.check(cell, data)
    from batchscape.train.data_parallel import ParallelTrainer  # Needs TensorFlow.

    return ParallelTrainer(cell, data, build)
