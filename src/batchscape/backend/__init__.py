"""Which backend Keras runs on. What differs between them stands in files that end in `_tensorflow` and `_jax`."""

import functools
import importlib
import importlib.util
import json
import logging
import os
import pathlib
import shutil
import subprocess
from types import ModuleType

from batchscape.backend import keras_private
from batchscape.errors import InvalidInput

CHUNK = 2048
"""Most examples in a forward pass outside training; fixed, so that no run is validated with its own batch size."""

_log = logging.getLogger("batchscape")

BACKENDS = ("tensorflow", "jax")


def choose() -> None:
    """Let Keras run on JAX where it alone is installed and nothing else is said, and JAX take memory as it needs it.

    `import batchscape` calls this, for Keras and JAX read both variables once, when they are imported, and a script may
    import them next. It sets `XLA_PYTHON_CLIENT_PREALLOCATE` to `false` where it is not set, and `KERAS_BACKEND` to `jax`
    where it is not set and TensorFlow is not installed; processes started later inherit them. It imports neither, and comes
    too late where either was imported before.
    """
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    if "KERAS_BACKEND" in os.environ:
        return
    has = {package: importlib.util.find_spec(package) is not None for package in BACKENDS}
    if has["jax"] and not has["tensorflow"]:
        os.environ["KERAS_BACKEND"] = "jax"


FLOATX = ("float16", "float32", "float64")
"""What Keras takes as `floatx`."""


def check() -> None:
    """Refuse, in one line, a backend or a configuration with which Keras cannot be imported, or we cannot run.

    Reads what Keras reads, `KERAS_BACKEND` and `keras.json`, and imports nothing.
    """
    file = keras_home() / "keras.json"
    configuration = _read_configuration(file)
    if chosen := os.environ.get("KERAS_BACKEND"):
        origin, remedy = f"KERAS_BACKEND={chosen}", ""
    else:
        chosen = configuration.get("backend", "tensorflow")
        origin = f"backend {chosen!r} in {file}" if "backend" in configuration else f"no {chosen}"
        remedy = "; set KERAS_BACKEND to one of them" if "backend" in configuration else ""
    if chosen not in BACKENDS:
        raise InvalidInput(f"Keras must run on tensorflow or jax{remedy}. Received: {origin}")
    if importlib.util.find_spec(chosen) is None:
        has = f"{origin}, and {chosen} is not installed" if not origin.startswith("no ") else origin
        raise InvalidInput(
            "Keras needs a backend: install batchscape[tensorflow], or batchscape[jax] and set KERAS_BACKEND=jax. "
            f"Received: {has}"
        )
    known = {"floatx": FLOATX, "image_data_format": ("channels_last", "channels_first")}
    for field, values in known.items():
        if field in configuration and configuration[field] not in values:
            raise InvalidInput(
                f"{field} in {file} must be {' or '.join(values)}. Received: {field}={configuration[field]!r}"
            )


def keras_home() -> pathlib.Path:
    """The folder in which Keras looks for its configuration and for data sets (`KERAS_HOME`, read once by Keras)."""
    return pathlib.Path(os.environ.get("KERAS_HOME") or os.path.join(os.path.expanduser("~"), ".keras"))


def _read_configuration(file: pathlib.Path) -> dict:
    """What `keras.json` says; nothing where Keras cannot read it either."""
    try:
        configuration = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    return configuration if isinstance(configuration, dict) else {}


def name() -> str:
    """The backend of Keras, one of `BACKENDS`."""
    import keras

    if (found := keras.backend.backend()) not in BACKENDS:
        raise InvalidInput(f"Keras must run on tensorflow or jax. Received: KERAS_BACKEND={found}")
    return found


def part_of(module: str) -> ModuleType:
    """The file of this backend beside a module: `batchscape.train.engine_jax` for `batchscape.train.engine`."""
    return importlib.import_module(f"{module}_{name()}")


def own() -> ModuleType:
    """What this backend knows of its GPUs: `device_tensorflow` or `device_jax`."""
    return part_of(f"{__name__}.device")


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


def use_float32() -> None:
    """Let Keras compute in float32 where no dtype policy says otherwise, whatever its configuration says.

    Its `floatx` is the type of losses and learning rates; with float16 runs of the same name would have other numbers.
    """
    import keras

    if (given := keras.config.floatx()) != "float32":
        _log.info("Keras' floatx was %s and is float32 from now on; the precision of a run is that of its cell.", given)
        keras.config.set_floatx("float32")


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


def stateless_call(model, trainable, other, x, *, training: bool | None, **options):
    """`model.stateless_call`, which tells `training` to a model whose `call` takes it, and to no other: as in `fit`."""
    if keras_private.takes_training(model):
        options["training"] = training
    return model.stateless_call(trainable, other, x, **options)
