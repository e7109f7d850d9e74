"""K devices that share each batch: Keras' own `fit` under `tf.distribute.MirroredStrategy`.

Each device takes its share of the batch, their gradients are averaged, and all make the same update. Devices cannot be
split once TensorFlow has started, so this happens in a process of its own, on K GPUs where there are so many and on K
parts of the processor otherwise; those show what K devices do, and not how fast they are.
"""

import atexit
import dataclasses
from collections.abc import Callable, Sequence
from concurrent import futures
from typing import Any

import tensorflow as tf

from batchscape.backend import device_tensorflow
from batchscape.config import Cell
from batchscape.data import Data
from batchscape.errors import InvalidInput
from batchscape.train import divided_batches as parts
from batchscape.train.plan import Plan
from batchscape.train.record import Record, Weights
from batchscape.train.trainer import Trainer
from batchscape.workers import processes

SECONDS_BETWEEN_LOOKS = 0.5
"""How often we look at how much memory the process of the devices holds."""


class ParallelTrainer:
    """A `Trainer` in a process whose devices share each batch.

    Args:
        cell: The first of the cells to train; the others share its `GROUP_FIELDS`.
        data: The data set, as arrays.
        build: A model's name or the function that builds it.

    Attributes:
        caveats: What is to be told of a batch that is computed in parts; known after the first run.
    """

    def __init__(self, cell: Cell, data: Data, build: str | Callable):
        if data.pipeline is not None:  # It cannot travel.
            raise parts.needs_arrays(parts.field_of(cell))
        Plan.stages(cell, data.n_train)
        self._given = cell, data, build
        self.caveats: list[str] = []

    def run(self, cell: Cell, *, initial_weights: Weights | None = None, callbacks: Sequence = ()) -> Record:
        """Train one cell; see `fit_one`. Facts of the record hold `device_names` and `batch_per_device`."""
        if callbacks:
            raise InvalidInput(
                f"devices train in another process, without callbacks. Received: {len(callbacks)} of them"
            )
        return self._process().call(_run, cell, initial_weights)

    def _process(self) -> "_Process":
        """The process of this trainer, started when it is first needed."""
        global _process
        if _process is None or _process.trainer is not self:
            if _process is not None:
                _process.stop()
            _process = _Process(self, self._given[0].devices)
            self.caveats = _process.call(_prepare, *self._given)
        return _process


class _Process:
    """The process whose devices share batches, for one trainer.

    A second one there may hang: TensorFlow 2.21 then stops for minutes where a distributed iterator is made, once the models
    before it have become garbage.
    """

    def __init__(self, trainer: ParallelTrainer, devices: int):
        self.trainer, self.devices = trainer, devices
        self._process = processes.Process({}, _split_devices, devices)
        atexit.register(self.stop)

    def call(self, function: Callable, *arguments: Any) -> Any:
        """What the function returns there; a process that ended, or is interrupted, is not used again."""
        try:
            future = self._process.submit(function, *arguments)
            while not future.done():
                futures.wait([future], timeout=SECONDS_BETWEEN_LOOKS)
                self._process.look()
            return future.result()
        except futures.process.BrokenProcessPool as error:
            how = self._process.how_it_ended(error)
            self.stop()
            raise RuntimeError(f"The process of the {self.devices} devices {how}") from None
        except KeyboardInterrupt:
            self.stop()
            raise

    def stop(self) -> None:
        """End the process."""
        global _process
        atexit.unregister(self.stop)
        self._process.stop()
        _process = None


_process: _Process | None = None
"""The one in use."""

_strategy: tf.distribute.Strategy | None = None
"""In the process itself: what mirrors weights over its devices."""

_trainer: Trainer | None = None
"""In the process itself: the trainer that it is for."""


def _split_devices(devices: int) -> None:
    """Give this process so many devices."""
    global _strategy
    gpus = tf.config.list_physical_devices("GPU")
    if len(gpus) >= devices:
        device_tensorflow.let_memory_grow()
        _strategy = tf.distribute.MirroredStrategy([f"GPU:{i}" for i in range(devices)])
        return
    tf.config.set_visible_devices([], "GPU")
    parts = [tf.config.LogicalDeviceConfiguration()] * devices
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], parts)
    _strategy = tf.distribute.MirroredStrategy(
        [f"CPU:{i}" for i in range(devices)], cross_device_ops=tf.distribute.ReductionToOneDevice()
    )


def _prepare(cell: Cell, data: Data, build: str | Callable) -> list[str]:
    global _trainer
    with _strategy.scope():
        _trainer = Trainer(cell, data, build)
    return _trainer.caveats


def _run(cell: Cell, initial_weights: Weights | None) -> Record:
    with _strategy.scope():
        record = _trainer.run(cell, initial_weights=initial_weights)
    more = {
        "batch_per_device": record.facts["batch"] // cell.devices,
        "device_names": list(_strategy.extended.worker_devices),
    }
    return dataclasses.replace(record, facts={**record.facts, **more})
