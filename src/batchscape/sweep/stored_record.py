"""The JSON file of a run: written, and checked field by field when it is read."""

import contextlib
import dataclasses
import functools
import json
import math
import pathlib
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from batchscape.config import Cell
from batchscape.errors import DamagedRun, OtherVersion, StoreError
from batchscape.system.damaged import DAMAGED
from batchscape.train.record import SCHEMA_VERSION, Record, Status

LARGEST = 2**63
"""Integers of a record are smaller in size than this, as those of a table must be."""

INTEGERS = ("batch", "n_train", "updates_per_epoch", "n_parameters")
NUMBERS = ("learning_rate", "compile_seconds", "seconds_per_update")
TEXTS = ("engine", "optimizer", "loss")
"""Facts that tables show or measurements read, by what they are."""

COSTS = ("epoch", "updates", "examples", "seconds")
"""Curves that every evaluation has a number in."""

OF_COMPLETE_RUNS = {
    "curves": COSTS,
    "final": ("epoch", "updates"),
    "facts": ("batch", "n_train", "learning_rate"),
    "weights": ("initial", "final"),
}
"""What the record of a complete run has to say."""


class StoredArray(NamedTuple):
    """What a record says of an array of its weights: type, shape, and the CRC-32 of its part of the `.npz` file."""

    dtype: str
    shape: tuple[int, ...]
    crc: int


Arrays = Mapping[str, list[StoredArray]]
"""The arrays of weights, by stage."""


class OtherSchema(Exception):
    """A record of another schema version; the version is its argument."""


@contextlib.contextmanager
def reading(file: pathlib.Path) -> Iterator[None]:
    """Turn what reading a file of a store raises into one line.

    Raises:
        DamagedRun: If the file is missing or damaged.
        OtherVersion: If it is of another schema version.
        StoreError: If it cannot be read.
    """
    try:
        yield
    except OtherSchema as error:
        raise OtherVersion(f"{file} was {written_by_another(error.args[0])}") from error
    except FileNotFoundError as error:
        raise DamagedRun(file, "it is missing") from error
    except OSError as error:
        raise StoreError(f"{file} cannot be read: {error.strerror or error}") from error
    except DAMAGED as error:
        tells = isinstance(error, (ValueError, zipfile.BadZipFile)) and str(error)
        raise DamagedRun(file, " ".join(str(error).split())[:200] if tells else type(error).__name__) from error


def written_by_another(version: Any) -> str:
    """What is wrong with a file of another schema version, and what to do."""
    return (
        f"written by another version of batchscape (schema {version}; this one reads {SCHEMA_VERSION}): "
        "update batchscape or choose another store"
    )


def to_json(record: Record, arrays: Arrays) -> str:
    """A record as text; of its weights only what `StoredArray` holds."""
    fields = {"schema_version": SCHEMA_VERSION}
    fields |= {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}
    fields["cell"] = json.loads(record.cell.to_json())
    fields["weights"] = arrays
    return json.dumps(without_nan(fields), allow_nan=False, separators=(",", ":"))


def from_json(content: bytes, run: str) -> tuple[dict[str, Any], Arrays]:
    """The fields of a `Record` but its weights, and what it says of these.

    Args:
        content: What the file holds.
        run: Name of the run.

    Raises:
        OtherSchema: For a record of another schema version.
        ValueError: With what is wrong with it; other exceptions of `system.damaged` too.
    """
    fields = parse(content)
    needed = {field.name for field in dataclasses.fields(Record)} - {"traceback"}
    if missing := sorted(needed - set(fields)):
        raise ValueError(f"{' and '.join(missing)} missing")
    cell, status = _cell(fields["cell"]), Status(fields["status"])
    _require(fields["hash"] == run, "it is the record of another run")
    for name in ("reason", "traceback"):
        _require(isinstance(fields.get(name, ""), str), f"{name} must be text")
    _check_curves(fields["curves"])
    _check_final(fields["final"])
    _check_facts(fields["facts"])
    _mapping("environment", fields["environment"])
    _mapping("weights", fields["weights"])
    if status is Status.COMPLETE:
        for field, names in OF_COMPLETE_RUNS.items():
            if missing := [name for name in names if name not in fields[field]]:
                raise ValueError(f"{field} lacks {' and '.join(missing)}")
        _require(fields["final"]["updates"] is not None, "updates must be a number")
        _require(fields["facts"]["batch"] is not None, "batch must be a number")
    arrays = {stage: _arrays(listed) for stage, listed in fields["weights"].items()}
    known = {name: fields[name] for name in (*needed - {"weights"}, "traceback") if name in fields}
    known = {name: value for name, value in known.items() if name in Record.__dataclass_fields__}
    return {**known, "cell": cell, "status": status}, arrays


def parse(content: bytes) -> dict[str, Any]:
    """The fields of a JSON file of ours; NaN and infinity, which JSON does not know, are None.

    Raises:
        OtherSchema: For a file of another schema version.
        ValueError: If it is none of ours; other exceptions of `system.damaged` too.
    """
    try:
        fields = json.loads(content, parse_constant=lambda _: None, parse_int=_integer)
    except json.JSONDecodeError as error:
        raise ValueError("it is no JSON") from error
    version = _mapping("it", fields).get("schema_version")
    _require(isinstance(version, int), "schema_version missing")
    if version != SCHEMA_VERSION:
        raise OtherSchema(version)
    return fields


def _integer(text: str) -> int:
    value = int(text) if len(text) < 20 else LARGEST
    _require(abs(value) < LARGEST, f"{text[:20]}... is too large a number")
    return value


def _cell(fields: Any) -> Cell:
    text = json.dumps(_mapping("cell", fields))
    cell = Cell.from_json(text)
    _require(json.loads(cell.to_json()) == json.loads(text), "cell is not what a sweep writes")
    return cell


def _check_curves(curves: Any) -> None:
    for name, values in _mapping("curves", curves).items():
        numbers = isinstance(values, list) and _are_numbers(values) and not (name in COSTS and None in values)
        _require(numbers, f"curve {name} must be a list of numbers")
    _require(len({len(values) for values in curves.values()}) <= 1, "curves differ in length")


def _check_final(final: Any) -> None:
    for name, value in _mapping("final", final).items():
        if name == "reached":
            _require(value in (True, False, None), "reached must be true, false or null")
        else:
            _require(_is_number(value), f"{name} must be a number or null")


def _check_facts(facts: Any) -> None:
    for name, value in _mapping("facts", facts).items():
        if name in INTEGERS:
            _require(value is None or (_is_number(value) and value >= 0), f"{name} must be a number ≥ 0")
        elif name in NUMBERS:
            _require(_is_number(value), f"{name} must be a number or null")
        elif name in TEXTS:
            _require(isinstance(value, str), f"{name} must be text")
    digest = _mapping("data", facts.get("data", {})).get("sha256", "")
    _require(isinstance(digest, str), "the digest of the data must be text")
    _require(facts.get("jit") in (True, False, None), "jit must be true, false or null")


def _arrays(listed: Any) -> list[StoredArray]:
    _require(isinstance(listed, list), "the weights of a stage must be a list of types, shapes and checksums")
    return [StoredArray(_dtype(name), tuple(map(_size, shape)), _size(crc)) for name, shape, crc in listed]


@functools.lru_cache(maxsize=32)
def _dtype(name: str) -> str:
    dtype = np.dtype(str(name))
    _require(dtype.kind in "biuf" and dtype.name == name, f"weights cannot be of type {name}")
    return name


def _size(value: Any) -> int:
    _require(isinstance(value, int) and value >= 0, "shapes and checksums of weights must be integers ≥ 0")
    return value


def _mapping(name: str, value: Any) -> dict[str, Any]:
    _require(isinstance(value, dict), f"{name} must be a mapping")
    return value


def _is_number(value: Any) -> bool:
    """Whether a value is a finite number or None, and not a bool."""
    return _are_numbers([value])


def _are_numbers(values: list) -> bool:
    """Whether all values are numbers; without a loop, for curves are long."""
    return {int, float, type(None)}.issuperset(map(type, values)) and {math.inf, -math.inf}.isdisjoint(values)


def _require(true: bool, otherwise: str) -> None:
    if not true:
        raise ValueError(otherwise)


def without_nan(value: Any) -> Any:
    """The same structure with null for NaN and infinity, which JSON does not know."""
    if isinstance(value, Mapping):
        return {str(key): without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(item) for item in value]
    if isinstance(value, (np.integer, np.floating, np.bool_)):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
