"""Models in files that Keras saved: `.keras` and `.h5`, loaded, and refused in one line with the cause."""

import contextlib
import json
import logging
import os
import pathlib
import shutil
import tempfile
import warnings
import zipfile
from collections.abc import Iterator
from typing import Any

from batchscape import usercode
from batchscape.errors import UserCodeError, telling_line

SUFFIXES = (".keras", ".h5", ".hdf5")
"""How the names of such files end."""

HDF5 = b"\x89HDF\r\n\x1a\n"
"""How a file of HDF5 begins."""


def is_file(model: Any) -> bool:
    """Whether a text names a file of a model."""
    return isinstance(model, str) and model.endswith(SUFFIXES)


def require_file(file: str | os.PathLike) -> None:
    """Refuse the name of a model where there is no such file."""
    if not os.path.isfile(file):
        raise UserCodeError(f"No such file; a model is a .keras or .h5 file that Keras saved. Received: {file}")


def load_model(file: str | os.PathLike, imports: tuple[str, ...] = ()) -> Any:
    """The model that Keras saved in a file, whichever of its two formats the file is of.

    Args:
        file: A `.keras` or an `.h5` file.
        imports: Modules to import first, since they register layers of the model.

    Raises:
        UserCodeError: If Keras cannot read it, say because it has layers of the user's own.
    """
    require_file(file)
    for name in imports:
        usercode.import_module(name, "import")
    written = _format_of(file)
    import keras

    # What Keras writes into an `.h5` file for a loss such as "mse" it does not find again.
    known = {name: keras.losses.get(name) for name in ALIASES} if written == ".h5" else {}
    try:
        with _named_as(file, written) as path, without_warnings():
            return keras.saving.load_model(path, custom_objects=known)
    except Exception as error:
        raise UserCodeError(_refusal(file, telling_line(error), _saved_by(file, written))) from error


ALIASES = ("mse", "mae", "mape", "msle", "MSE", "MAE", "MAPE", "MSLE")
"""Short names of losses and metrics."""

OF_THE_USER = ("Could not locate", "Unknown ", "whose `function` is a Python lambda")
"""What Keras says where a file needs code of the user's own, before it goes on with its advice."""


def _refusal(file: str | os.PathLike, cause: str, saved_by: str) -> str:
    """Why Keras could not load a file, in one line."""
    import keras

    own = ""
    if any(words in cause for words in OF_THE_USER):
        cause = cause.split(". ")[0]
        own = "; import the module that registers what it needs first (--import), or give the function that builds it"
    versions = f"; saved by Keras {saved_by}, this is {keras.__version__}" if saved_by else ""
    return f"{file} must be a .keras or .h5 file of a model that Keras can load{own}. Received: {cause.rstrip('.')}{versions}"


def _format_of(file: str | os.PathLike) -> str:
    """The suffix that goes with what is in a file; refused where it is no model."""
    with open(file, "rb") as opened:
        is_hdf5 = opened.read(len(HDF5)) == HDF5
    if str(file).endswith(".weights.h5") or (is_hdf5 and "model_config" not in _attributes_of(file)):
        raise UserCodeError(
            "A file of weights alone has no model: save the whole one (model.save), or give the function that builds it and "
            f"loads them. Received: {file}"
        )
    if not is_hdf5 and not zipfile.is_zipfile(file):
        raise UserCodeError(
            f"{file} must be a .keras or .h5 file that Keras saved: a zip archive or HDF5. Received: something else"
        )
    return ".h5" if is_hdf5 else ".keras"


@contextlib.contextmanager
def _named_as(file: str | os.PathLike, suffix: str) -> Iterator[str]:
    """A path to a file that ends as its content asks for: Keras goes by the name."""
    if pathlib.Path(file).suffix.replace(".hdf5", ".h5") == suffix:
        yield os.fspath(file)
        return
    with tempfile.TemporaryDirectory(prefix="batchscape-") as folder:
        yield shutil.copyfile(file, os.path.join(folder, f"model{suffix}"))


@contextlib.contextmanager
def without_warnings() -> Iterator[None]:
    """Leave out what Keras says of the state of optimizers, which no run starts from."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        log = logging.getLogger("absl")
        level = log.level
        log.setLevel(logging.ERROR)
        try:
            yield
        finally:
            log.setLevel(level)


def _attributes_of(file: str | os.PathLike) -> dict[str, Any]:
    import h5py

    try:
        with h5py.File(file, "r") as opened:
            return dict(opened.attrs)
    except OSError as error:
        raise UserCodeError(f"{file} must be a whole .keras or .h5 file. Received: {telling_line(error)}") from error


def _saved_by(file: str | os.PathLike, written: str) -> str:
    """The version of Keras that saved a file; "" where it does not say."""
    with contextlib.suppress(Exception):  # What is wrong with it, loading says.
        if written == ".h5":
            version = _attributes_of(file)["keras_version"]
            return version.decode() if isinstance(version, bytes) else str(version)
        with zipfile.ZipFile(file) as archive:
            return str(json.loads(archive.read("metadata.json"))["keras_version"])
    return ""
