"""Where relative stores and figures live: in the project, wherever the kernel of a notebook stands."""

import os
import pathlib

from batchscape.errors import StoreError


def home() -> pathlib.Path:
    """`BATCHSCAPE_HOME`, else the nearest folder above that holds this project, else the current folder."""
    if given := os.environ.get("BATCHSCAPE_HOME"):
        return pathlib.Path(given).expanduser().resolve()
    here = pathlib.Path.cwd()
    for folder in (here, *here.parents):
        project = folder / "pyproject.toml"
        if project.is_file() and 'name = "batchscape"' in project.read_text(errors="replace"):
            return folder
    return here


def resolve(path: str | os.PathLike) -> pathlib.Path:
    """An absolute path; a relative one starts from `home()`."""
    path = pathlib.Path(path).expanduser()
    return path if path.is_absolute() else home() / path


def make(path: str | os.PathLike) -> pathlib.Path:
    """The folder at a path, made if need be, or one line that says why it cannot be."""
    folder = resolve(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"The folder {folder} cannot be made: {error.strerror or error}") from error
    return folder
