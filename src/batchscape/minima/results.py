"""Results as files: one `.npz` with the arrays, and JSON for the rest."""

import dataclasses
import hashlib
import json
import os
import pathlib
import zipfile
from collections.abc import Iterable
from typing import Any

import numpy as np

from batchscape.errors import InvalidInput, StoreError

SCHEMA_VERSION = 1


def save(result: Any, file: str | os.PathLike, **arrays: np.ndarray) -> pathlib.Path:
    """Write a frozen record of arrays, numbers and texts as one `.npz` file, whole or not at all.

    Args:
        result: A dataclass instance.
        file: Where to; the ending `.npz` is added where it is missing.
        **arrays: Further arrays to keep with it.

    Returns:
        The file.
    """
    file = _npz(file)
    fields = {field.name: getattr(result, field.name) for field in dataclasses.fields(result)}
    arrays |= {name: value for name, value in fields.items() if isinstance(value, np.ndarray)}
    rest = {name: value for name, value in fields.items() if name not in arrays}
    text = json.dumps({"kind": type(result).__name__, "schema_version": SCHEMA_VERSION, **rest})
    temporary = file.with_name(f"{file.name}.{os.getpid()}.tmp")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as stream:
            np.savez_compressed(stream, json=np.array(text), **arrays)
        os.replace(temporary, file)
    except OSError as error:
        raise StoreError(f"{file} cannot be written: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)
    return file


def load_result(file: str | os.PathLike) -> Any:
    """Read what a result has saved: a `Plane`, a `Line`, a `SpectralDensity`, ... ."""
    from batchscape.minima import line, plane, spectrum, trajectory

    kinds = {kind.__name__: kind for kind in (line.Line, plane.Plane, spectrum.SpectralDensity, trajectory.Trajectory)}
    arrays, fields = _read(_npz(file))
    kind = kinds[fields.pop("kind")]
    known = {field.name: field.type for field in dataclasses.fields(kind)}
    values = {name: value for name, value in {**arrays, **fields}.items() if name in known}
    return kind(**{name: _tuples(value) for name, value in values.items()})


def rows_done(plane: Any, file: str | os.PathLike | None) -> np.ndarray:
    """Which rows of a plane a file holds, bool, shape (rows,); they are copied into the plane."""
    done = np.zeros(len(plane.b), bool)
    if file is None or not _npz(file).exists():
        return done
    arrays, fields = _read(_npz(file))
    kept = {name: np.asarray(arrays.get(name, fields.get(name))) for name in ("a", "b", "norms")}
    same = all(np.array_equal(value, np.asarray(getattr(plane, name))) for name, value in kept.items())
    if not same or fields.get("about") != json.loads(json.dumps(plane.about)):
        raise InvalidInput(
            f"{file} holds another plane (other coordinates, directions, weights or data); choose another file, or delete it."
        )
    done = arrays.get("done", np.ones(len(plane.b), bool)).copy()
    plane.loss[done], plane.accuracy[done] = arrays["loss"][done], arrays["accuracy"][done]
    return done


def digest(arrays: Iterable[np.ndarray]) -> str:
    """The first 16 hexadecimal digits of the sha256 of some arrays, shapes included."""
    found = hashlib.sha256()
    for array in arrays:
        found.update(f"{array.shape}{array.dtype}".encode())
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()[:16]


def _npz(file: str | os.PathLike) -> pathlib.Path:
    file = pathlib.Path(file)
    return file if file.suffix == ".npz" else file.with_name(f"{file.name}.npz")


def _read(file: pathlib.Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    try:
        with np.load(file, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        fields = json.loads(str(arrays.pop("json")))
    except OSError as error:
        raise StoreError(f"{file} cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise StoreError(f"{file} is no readable result of batchscape.") from error
    if fields.pop("schema_version", None) != SCHEMA_VERSION:
        raise StoreError(f"{file} must be of schema version {SCHEMA_VERSION}.")
    return arrays, fields


def _tuples(value: Any) -> Any:
    """Lists, which JSON makes of tuples, as tuples again."""
    if isinstance(value, list):
        return tuple(map(_tuples, value))
    return {key: _tuples(item) for key, item in value.items()} if isinstance(value, dict) else value
