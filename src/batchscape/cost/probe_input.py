"""The data and the model of a probe, and how they get into its process."""

import dataclasses
import inspect
import os
import pathlib
from collections.abc import Callable
from typing import Any

from batchscape.backend import keras_private
from batchscape.config import MODELS
from batchscape.data import Data, files, is_function, load_dataset
from batchscape.errors import InvalidInput, unknown_name
from batchscape.models.files import is_file
from batchscape.models.model_file import ModelFile


@dataclasses.dataclass(frozen=True)
class ProbeInput:
    """The data, the model and the options that a probe trains with, small enough to travel to another process.

    Attributes:
        build: The name of a model, `"package.module:function"`, or what builds it, which `to_send` gives.
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


def to_send(build: Any) -> str | Callable:
    """What builds a model, in the form in which it travels to another process; names are looked up there.

    Raises:
        InvalidInput: For a name that nothing goes by, before a process is started for it.
    """
    build = os.fspath(build) if isinstance(build, os.PathLike) else build
    if is_file(build):
        return ModelFile(build)
    if keras_private.is_layer(build) and not inspect.isclass(build):
        from batchscape.models.build import find_builder  # Imports Keras, which is here already.

        return find_builder(build)
    if callable(build):
        return build
    if not isinstance(build, str):
        raise InvalidInput(f"build must be a function or the name of a model. Received: {type(build).__name__}")
    if ":" not in build and build not in MODELS:
        raise unknown_name("model", build, MODELS)
    return build


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
