"""Which backend Keras runs on. What differs between them stands in files that end in `_tensorflow` and `_jax`."""

import functools
import importlib
import importlib.util
import logging
import os
import shutil
import subprocess
from types import ModuleType

from batchscape.errors import InvalidInput

CHUNK = 2048
"""Examples per forward pass outside training; fixed, so that no run is validated with its own batch size."""

_log = logging.getLogger("batchscape")

BACKENDS = ("tensorflow", "jax")


def choose() -> None:
    """Let Keras run on JAX where it alone is installed and nothing else is said, and JAX take memory as it needs it.

    To be called before either is imported.
    """
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
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


def own() -> ModuleType:
    """What this backend knows of its GPUs: `backend_tensorflow` or `backend_jax`."""
    return part_of(__name__)


def device() -> str:
    """Where models train: the name of the first GPU, else "CPU"."""
    return own().first_gpu() or "CPU"


@functools.cache
def prepare() -> None:
    """Before the first model: a GPU gives memory as it is needed, and one that is there but unused is told of, once."""
    own().let_memory_grow()
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1") or os.environ.get("JAX_PLATFORMS") == "cpu"
    if not hidden and device() == "CPU" and _has_nvidia_gpu():
        package = {"tensorflow": "tensorflow[and-cuda]", "jax": "jax[cuda13]"}[name()]
        _log.warning("There is a GPU, and %s does not use it: install '%s'. Training on the CPU.", name(), package)


def _has_nvidia_gpu() -> bool:
    """Whether the driver's own tool lists a GPU."""
    if shutil.which("nvidia-smi") is None:
        return False
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return False
    return listed.returncode == 0 and b"GPU" in listed.stdout


def needs_tensorflow(what: str) -> None:
    """Refuse, on another backend, what only TensorFlow offers."""
    if name() != "tensorflow":
        raise InvalidInput(f"{what} needs TensorFlow. Received: KERAS_BACKEND={name()}")


def mode(model, *, training: bool | None) -> dict[str, bool | None]:
    """Arguments for `stateless_call`: whether this is training, unless the model's `call` does not take that, as in `fit`."""
    return {"training": training} if model._call_has_training_arg else {}
