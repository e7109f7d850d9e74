"""The data and the model of a probe, and how they get into its process."""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

from batchscape.data import Data, files, is_function, load_dataset
from batchscape.errors import InvalidInput


@dataclasses.dataclass(frozen=True)
class ProbeInput:
    """The data, the model and the options that a probe trains with, small enough to travel to another process.

    Attributes:
        build: The name of a model, `"package.module:function"`, a `.keras` file, or the function that builds it.
        data: A `Data` in files, or anything `load_dataset` takes.
        loss: A Keras loss by name, or None.
        precision: A Keras dtype policy, or None for that of Keras' configuration.
        engine: `"stock"` or `"fused"`.
        jit: Whether XLA compiles; None for what the engine does by itself.
        device_limit: Memory of a GPU that may be used, in bytes; None for all of it.
    """

    build: str | Callable
    data: Any
    loss: str | None = None
    precision: str | None = None
    engine: str = "stock"
    jit: bool | None = None
    device_limit: int | None = None

    def load(self) -> Data:
        """The data."""
        return self.data.load() if isinstance(self.data, files.DataFiles) else load_dataset(self.data)


def pack(given: Any, data: Data, folder: pathlib.Path) -> Any:
    """Data in the form in which they travel to another process: arrays in files, or the function that makes a pipeline."""
    if data.pipeline is not None:
        if not (is_function(given) or isinstance(given, str)):
            raise InvalidInput(
                "A tf.data.Dataset cannot be sent to the process of the probe; give the function that makes it. "
                f"Received: {type(given).__name__}"
            )
        return given
    return files.write(data, folder)
