"""The store: a folder with one JSON file and one `.npz` of weights a run.

Files are written to a temporary name, flushed to the disk and renamed; the `.npz` first, the JSON last, as the commit
mark. So a run exists or it does not, and killing the process at any moment loses at most the runs in progress.
"""

import contextlib
import dataclasses
import io
import json
import math
import os
import pathlib
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any, Self

import numpy as np

from batchscape import paths
from batchscape.config import Cell
from batchscape.errors import StoreError
from batchscape.record import SCHEMA_VERSION, Record, Status, Weights

TEMPORARY = ".tmp"


class Store:
    """A folder of records.

    Args:
        path: The folder; a relative one starts from the project (or `BATCHSCAPE_HOME`). It is made when first written.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = paths.resolve(path)

    @classmethod
    def of(cls, given: str | os.PathLike | Self) -> Self:
        """The store itself, or the one in a folder."""
        return given if isinstance(given, Store) else cls(given)

    def __repr__(self) -> str:
        return f"Store({self.path}: {len(self.hashes())} runs)"

    def require(self) -> Self:
        """This store, if there is one."""
        if not self.path.is_dir():
            raise StoreError(f"No store at {self.path}. Run a sweep with this store first.")
        return self

    def hashes(self) -> list[str]:
        """Names of all runs in the store."""
        return sorted(file.stem for file in self.path.glob("*.json"))

    def status(self, run: str) -> Status | None:
        """How a run ended; None where there is no such run, or its weights are gone."""
        if not self._file(run).exists():
            return None
        record = self.load(run)
        return record.status if self._file(run, ".npz").exists() or not record.weights else None

    def save(self, record: Record) -> None:
        """Write a record; one of the same name is replaced."""
        if record.weights:
            stages = {f"{stage}/{i:03d}": w for stage, arrays in record.weights.items() for i, w in enumerate(arrays)}
            buffer = io.BytesIO()
            np.savez(buffer, **stages)
            self._write(self._file(record.hash, ".npz"), buffer.getvalue())
        fields = {"schema_version": SCHEMA_VERSION}
        fields |= {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}
        fields["cell"] = dataclasses.asdict(record.cell)
        fields["weights"] = {stage: len(arrays) for stage, arrays in record.weights.items()}
        text = json.dumps(_without_nan(fields), allow_nan=False, separators=(",", ":"))
        self._write(self._file(record.hash), text.encode())

    def load(self, run: str) -> Record:
        """Read a record; its weights are read when they are asked for."""
        fields = self._read(run)
        try:
            weights = StoredWeights(self._file(run, ".npz"), fields.pop("weights"))
            del fields["schema_version"]
            cell, status = Cell(**fields.pop("cell")), Status(fields.pop("status"))
            return Record(cell=cell, status=status, weights=weights, **fields)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StoreError(f"{self._file(run)} is no readable record; delete it and its run is done anew.") from error

    def records(self) -> Iterator[Record]:
        """All records, in the order of their names."""
        return map(self.load, self.hashes())

    def find(self, run: str) -> str:
        """The full name of the run whose name begins with `run`."""
        found = [name for name in self.hashes() if name.startswith(run)]
        if len(found) != 1:
            raise StoreError(f"{self.path} must hold exactly one run {run!r}. Received: {len(found)} such runs")
        return found[0]

    def save_measurement(self, run: str, kind: str, options: Mapping[str, Any], result: Mapping[str, Any]) -> None:
        """Keep what was measured on a run, with the options it was measured with."""
        fields = {"schema_version": SCHEMA_VERSION, "options": options, "result": result}
        text = json.dumps(_without_nan(fields), allow_nan=False)
        self._write(self.path / "measurements" / f"{run}.{kind}.json", text.encode())

    def load_measurement(self, run: str, kind: str, options: Mapping[str, Any]) -> dict[str, Any] | None:
        """What was measured on a run with these options; None if it has not been."""
        file = self.path / "measurements" / f"{run}.{kind}.json"
        if not file.exists():
            return None
        fields = self._parse(file)
        return fields["result"] if fields["options"] == json.loads(json.dumps(_without_nan(options))) else None

    def remove_leftovers(self) -> None:
        """Delete temporary files that a killed process left behind."""
        for file in self.path.glob(f"**/*{TEMPORARY}"):
            with contextlib.suppress(OSError, ValueError, OverflowError, IndexError):
                if _is_alive(int(file.name.split(".")[-2])):
                    continue
                if file.is_dir():
                    shutil.rmtree(file)
                else:
                    file.unlink()

    def require_writable(self) -> None:
        """Make the folder, or say in one line why it cannot be."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            probe = self.path / f"probe.{os.getpid()}{TEMPORARY}"
            probe.write_bytes(b"")
            probe.unlink()
        except OSError as error:
            raise StoreError(f"The store {self.path} cannot be written: {error.strerror or error}") from error

    @contextlib.contextmanager
    def workspace(self) -> Iterator[pathlib.Path]:
        """A folder in the store for what workers share; it goes when they are done, with what killed ones left behind."""
        folder = self.path / f"shared.{os.getpid()}{TEMPORARY}"
        folder.mkdir(parents=True, exist_ok=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            self.remove_leftovers()

    def _file(self, run: str, ending: str = ".json") -> pathlib.Path:
        return self.path / f"{run}{ending}"

    def _write(self, file: pathlib.Path, content: bytes) -> None:
        temporary = file.with_name(f"{file.name}.{os.getpid()}{TEMPORARY}")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with open(temporary, "wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, file)
            _flush_folder(file.parent)
        except OSError as error:
            raise StoreError(f"{file} cannot be written: {error.strerror or error}") from error
        finally:  # Ctrl-C too can come in the middle of it.
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)

    def _read(self, run: str) -> dict[str, Any]:
        return self._parse(self._file(run))

    def _parse(self, file: pathlib.Path) -> dict[str, Any]:
        try:
            fields = json.loads(file.read_bytes())
            version = fields["schema_version"]
        except OSError as error:
            raise StoreError(f"{file} cannot be read: {error.strerror or error}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(f"{file} is no readable record; delete it and its run is done anew.") from error
        if version != SCHEMA_VERSION:
            raise StoreError(
                f"{file} must be of schema version {SCHEMA_VERSION}; choose another store, or delete this one. "
                f"Received: version {version}"
            )
        return fields


class StoredWeights(Mapping):
    """Weights by stage, read from the `.npz` file when asked for.

    Args:
        file: The `.npz` file.
        stages: Number of arrays by stage.
    """

    def __init__(self, file: pathlib.Path, stages: Mapping[str, int]):
        self._file, self._stages = file, stages

    def __getitem__(self, stage: str) -> Weights:
        count = self._stages[stage]
        try:
            with open(self._file, "rb") as stream, np.load(stream, allow_pickle=False) as arrays:
                return [arrays[f"{stage}/{i:03d}"] for i in range(count)]
        except (OSError, EOFError, TypeError, ValueError, KeyError, zipfile.BadZipFile) as error:
            name = self._file.with_suffix(".json").name
            raise StoreError(
                f"{self._file} is no readable file of weights; delete {name} and its run is done anew."
            ) from error

    def __iter__(self) -> Iterator[str]:
        return iter(self._stages)

    def __len__(self) -> int:
        return len(self._stages)


def _without_nan(value: Any) -> Any:
    """The same structure with null for NaN and infinity, which JSON does not know."""
    if isinstance(value, Mapping):
        return {str(key): _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    if isinstance(value, (np.integer, np.floating)):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _flush_folder(folder: pathlib.Path) -> None:
    """Make a rename survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
