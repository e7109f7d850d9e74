"""Which backend Keras runs on. What differs between them stands in files that end in `_tensorflow` and `_jax`."""

import importlib
import importlib.util
import os
from types import ModuleType

from batchscape.errors import InvalidInput

CHUNK = 2048
"""Examples per forward pass outside training; fixed, so that no run is validated with its own batch size."""

BACKENDS = ("tensorflow", "jax")


def choose() -> None:
    """Where nothing is said, and JAX is installed without TensorFlow, let Keras run on JAX; before Keras is imported."""
    if "KERAS_BACKEND" in os.environ:
        return
    has = {package: importlib.util.find_spec(package) is not None for package in BACKENDS}
    if has["jax"] and not has["tensorflow"]:
        os.environ["KERAS_BACKEND"] = "jax"


def name() -> str:
    """The backend of Keras, one of `BACKENDS`."""
    import keras

    if (found := keras.backend.backend()) not in BACKENDS:
        raise InvalidInput(f"KERAS_BACKEND must be tensorflow or jax. Received: {found}")
    return found


def part_of(module: str) -> ModuleType:
    """The file of this backend beside a module: `batchscape.train.engine_jax` for `batchscape.train.engine`."""
    return importlib.import_module(f"{module}_{name()}")


def needs_tensorflow(what: str) -> None:
    """Refuse, on another backend, what only TensorFlow offers."""
    if name() != "tensorflow":
        raise InvalidInput(f"{what} needs TensorFlow. Received: KERAS_BACKEND={name()}")
