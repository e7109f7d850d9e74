"""Results as files: one `.npz` with the arrays, and JSON for the rest."""

import dataclasses
import json
import os
import pathlib
from typing import Any, Self

import numpy as np

from batchscape.errors import StoreError
from batchscape.system import atomic, paths
from batchscape.system.damaged import DAMAGED

SCHEMA_VERSION = 1


class Result:
    """A result that knows its origin and can be saved: the base of frozen dataclasses of arrays, numbers and texts.

    Attributes:
        about: Origin of the result: model, data and weights (digests), loss, policies, seeds, versions.
    """

    about: dict[str, Any]

    def save(self, file: str | os.PathLike) -> pathlib.Path:
        """Write the result as one `.npz` file, whole or not at all; `load`, or `load_result`, reads it.

        Args:
            file: Where to; the ending `.npz` is added where it is missing.

        Returns:
            The file.

        Raises:
            StoreError: If it cannot be written.
        """
        return save(self, file)

    @classmethod
    def load(cls, file: str | os.PathLike) -> Self:
        """Read a result of this class.

        Args:
            file: What `save` has written.

        Raises:
            StoreError: If the file cannot be read, is damaged, or holds something else.
        """
        arrays, fields = read(file)
        require_kind(cls.__name__, fields, file)
        known = {field.name for field in dataclasses.fields(cls)}
        values = {name: value for name, value in {**arrays, **fields}.items() if name in known}
        try:
            return cls(**{name: _tuples(value) for name, value in values.items()})
        except DAMAGED as error:
            raise StoreError(f"{file} is no readable result of batchscape.") from error


def save(result: Result, file: str | os.PathLike, **arrays: np.ndarray) -> pathlib.Path:
    """Write a result as one `.npz` file; see `Result.save`.

    Args:
        result: A dataclass instance.
        file: Where to.
        **arrays: Further arrays to keep with it.
    """
    file = npz(file)
    fields = {field.name: getattr(result, field.name) for field in dataclasses.fields(result)}
    arrays |= {name: value for name, value in fields.items() if isinstance(value, np.ndarray)}
    rest = {name: value for name, value in fields.items() if name not in arrays}
    text = json.dumps({**heading(result), **rest}, default=plain_number)
    with atomic.replacing(file) as temporary, open(temporary, "wb") as stream:
        np.savez_compressed(stream, json=np.array(text), **arrays)
    return file


def heading(result: Any) -> dict[str, Any]:
    """The fields that tell what a file holds: the class of the result, and the version of the schema."""
    return {"kind": type(result).__name__, "schema_version": SCHEMA_VERSION}


def plain_number(value: Any) -> Any:
    """A NumPy number as Python's, for JSON."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} is not JSON serializable")


def npz(file: str | os.PathLike) -> pathlib.Path:
    """The path of a file of a result: the ending `.npz` is added where it is missing."""
    file = pathlib.Path(file)
    return file if file.suffix == ".npz" else file.with_name(f"{file.name}.npz")


def read(file: str | os.PathLike) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read the arrays and the other fields of a saved result.

    Raises:
        StoreError: If the file cannot be read, is damaged, or of another schema version.
    """
    file = npz(file)
    try:
        with (
            open(file, "rb") as stream,
            np.load(stream, allow_pickle=False) as stored,
        ):  # NumPy leaves a damaged file open.
            arrays = {name: stored[name] for name in stored.files}
        fields = json.loads(str(arrays.pop("json")))
    except OSError as error:
        raise StoreError(f"{file} cannot be read: {error.strerror or error}") from error
    except DAMAGED as error:
        raise StoreError(f"{file} is no readable result of batchscape.") from error
    return arrays, _of_this_version(fields, file)


def read_json(file: str | os.PathLike) -> dict[str, Any]:
    """Read the fields of a result that is saved as JSON; raises as `read` does.

    Args:
        file: A relative file starts from the project (or `BATCHSCAPE_HOME`), as where it is saved.
    """
    file = paths.resolve(file)
    try:
        fields = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise StoreError(f"{file} cannot be read: {error.strerror or error}") from error
    except DAMAGED as error:
        raise StoreError(f"{file} is no readable result of batchscape.") from error
    return _of_this_version(fields, file)


def require_kind(kind: str, fields: dict[str, Any], file: str | os.PathLike) -> None:
    """Refuse a file of another class of results."""
    if fields.get("kind") != kind:
        raise StoreError(f"{file} must hold a result of the class {kind}. Received: {fields.get('kind')!r}")


def _of_this_version(fields: Any, file: str | os.PathLike) -> dict[str, Any]:
    if not isinstance(fields, dict):
        raise StoreError(f"{file} is no readable result of batchscape.")
    version = fields.pop("schema_version", None)
    if version != SCHEMA_VERSION:
        raise StoreError(f"{file} must be of schema version {SCHEMA_VERSION}. Received: version {version}")
    return fields


def _tuples(value: Any) -> Any:
    """Lists, which JSON makes of tuples, as tuples again."""
    if isinstance(value, list):
        return tuple(map(_tuples, value))
    return {key: _tuples(item) for key, item in value.items()} if isinstance(value, dict) else value
