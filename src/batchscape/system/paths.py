"""Where relative stores and figures live: in the project, wherever the kernel of a notebook stands."""

import os
import pathlib

from batchscape.errors import InvalidInput, StoreError


def home() -> pathlib.Path:
    """`BATCHSCAPE_HOME`, else the nearest folder above that holds this project, else the current folder."""
    if given := os.environ.get("BATCHSCAPE_HOME"):
        return pathlib.Path(given).expanduser().resolve()
    try:
        here = pathlib.Path.cwd()
    except FileNotFoundError as error:
        raise StoreError("The current folder is gone: go to another one, or give an absolute path.") from error
    for folder in (here, *here.parents):
        project = folder / "pyproject.toml"
        if project.is_file() and 'name = "batchscape"' in project.read_text(errors="replace"):
            return folder
    return here


def resolve(path: str | os.PathLike) -> pathlib.Path:
    """An absolute path; a relative one starts from `home()`.

    Raises:
        InvalidInput: If it is empty, as an unset variable of a shell is.
        StoreError: If it names the home folder of a user who is not known.
    """
    if not os.fspath(path).strip():
        raise InvalidInput(f"The path of a file or folder must not be empty. Received: {os.fspath(path)!r}")
    try:
        path = pathlib.Path(path).expanduser()
    except RuntimeError as error:
        raise StoreError(f"The home folder of {pathlib.Path(path).parts[0]} is not known. Received: {path}") from error
    return path if path.is_absolute() else home() / path


def make(path: str | os.PathLike) -> pathlib.Path:
    """The folder at a path, made if need be, or one line that says why it cannot be."""
    folder = resolve(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"The folder {folder} cannot be made: {error.strerror or error}") from error
    return folder
