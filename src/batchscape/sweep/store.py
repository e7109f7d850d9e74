"""The store: a folder with one JSON file and one `.npz` of weights a run.

Files are written to a temporary name, flushed to the disk and renamed; the `.npz` first, the JSON last, as the commit
mark. So a run exists or it does not, and killing the process at any moment loses at most the runs in progress.
"""

import contextlib
import functools
import hashlib
import json
import logging
import os
import pathlib
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Self

from batchscape.errors import DamagedRun, InvalidInput, OtherVersion, StoreError
from batchscape.sweep import claims, stored_record, stored_weights
from batchscape.sweep.stored_record import reading, without_nan, written_by_another
from batchscape.sweep.stored_weights import StoredWeights
from batchscape.system import atomic, owner, paths
from batchscape.system.owner import Owner
from batchscape.train.record import SCHEMA_VERSION, Record, Status

_log = logging.getLogger("batchscape")

MEASUREMENTS = "measurements"
"""Folder of the measurements, in the store."""

_LEFTOVER = re.compile(
    rf"(?:shared|probe|[0-9a-f]{{16}}\.(?:npz|(?:.+\.)?json))\.({owner.PATTERN})\.[0-9a-z_]{{8}}\.tmp", re.ASCII
)
"""Names of the temporary files and folders in a store, with their owner."""


def is_name(run: str) -> bool:
    """Whether a text can be the name of a run."""
    return re.fullmatch("[0-9a-f]{16}", run) is not None


class Store:
    """A folder that holds the record and the weights of every run.

    Args:
        path: The folder; a relative one starts from the project (or `BATCHSCAPE_HOME`). It is made when first written.
    """

    def __init__(self, path: str | os.PathLike):
        if isinstance(path, pathlib.PurePath) and not path.parts:
            raise InvalidInput(
                "A store must be a folder; write Path.cwd() for the current one, since Path('.') cannot be told from "
                f"Path(''). Received: {path!r}"
            )
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
        return sorted(file.stem for file in self.path.glob("*.json") if is_name(file.stem))

    def status(self, run: str) -> Status | None:
        """How a run ended; None where there is no such run, or its record or its weights are damaged."""
        if not is_name(run):
            return None
        try:
            return self.load(run, weights=True).status
        except DamagedRun:
            return None

    def damage(self, run: str) -> str:
        """What is wrong with a run that is there; "" for one that is sound or not there."""
        try:
            if self._file(run).exists():
                self.load(run, weights=True)
        except DamagedRun as error:
            return str(error)
        return ""

    def require_version(self) -> None:
        """Refuse a store that another version of batchscape has written."""
        other = None
        for run in self.hashes():
            with contextlib.suppress(OSError), open(self._file(run), "rb") as stream:
                if found := re.match(rb'\s*\{\s*"schema_version":\s*(\d{1,9})\b', stream.read(100)):
                    if int(found[1]) == SCHEMA_VERSION:
                        return
                    other = int(found[1])
        if other is not None:
            raise OtherVersion(f"{self.path} was {written_by_another(other)}")

    def save(self, record: Record) -> None:
        """Write a record; one of the same name is replaced.

        The record names the checksums of its weights: killed between the two files, a replaced record is damaged.
        """
        content, arrays = stored_weights.to_bytes(record.weights)
        if record.weights:
            atomic.write(self._file(record.hash, ".npz"), content)
        atomic.write(self._file(record.hash), stored_record.to_json(record, arrays))

    def load(self, run: str, *, weights: bool = False) -> Record:
        """Read and check a record; its weights are read when they are asked for.

        Args:
            run: Name of the run.
            weights: Whether to look at the file of weights now, at the names and sizes in it.

        Raises:
            DamagedRun: If the record, or its weights, are missing or damaged.
            OtherVersion: If it is of another schema version.
            StoreError: If it cannot be read.
        """
        file = self._file(run)
        with reading(file):
            fields, arrays = stored_record.from_json(file.read_bytes(), run)
        finite = fields["status"] is Status.COMPLETE
        record = Record(**fields, weights=StoredWeights(self._file(run, ".npz"), arrays, finite=finite))
        if weights:
            record.weights.check()
        return record

    def records(self, runs: Iterable[str] | None = None, *, weights: bool = False) -> Iterator[Record]:
        """The records that can be read; each other one is named in a warning and left out.

        Args:
            runs: Names of runs; by default all, in the order of their names.
            weights: Whether to leave out those whose weights are missing or damaged too.

        Raises:
            OtherVersion: If there are records, and all of them are of another schema version.
        """
        read, others = 0, []
        for run in self.hashes() if runs is None else runs:
            try:
                record = self.load(run, weights=weights)
            except OtherVersion as error:
                others.append(error)
            except DamagedRun as error:
                _log.warning("%s is left out: %s", error.file, error.why)
            except StoreError as error:
                _log.warning("Left out: %s", error)
            else:
                read += 1
                yield record
        if others and not read:
            raise others[0]
        if others:
            more = f", and {len(others) - 1} more" if len(others) > 1 else ""
            _log.warning("Left out: %s%s", others[0], more)

    def save_measurement(
        self, run: str, kind: str, options: Mapping[str, Any], result: Mapping[str, Any], *, code: str = ""
    ) -> None:
        """Keep what was measured on a run, with the options it was measured with and what stands for its code."""
        fields = {"schema_version": SCHEMA_VERSION, "options": options, "code": code, "result": result}
        text = json.dumps(without_nan(fields), allow_nan=False)
        atomic.write(self._measurement(run, kind, options, code), text)

    def load_measurement(
        self, run: str, kind: str, options: Mapping[str, Any], *, code: str = ""
    ) -> dict[str, Any] | None:
        """What was measured on a run with these options by this code; None if it has not been."""
        file = self._measurement(run, kind, options, code)
        if not file.exists():
            return None
        try:
            with reading(file):
                fields = stored_record.parse(file.read_bytes())
                if not isinstance(fields["result"], dict):
                    raise ValueError("its result must be a mapping")
                return fields["result"] if fields["options"] == json.loads(json.dumps(without_nan(options))) else None
        except (DamagedRun, OtherVersion) as error:
            _log.warning("%s; it is measured anew", error)
            return None

    def remove_leftovers(self) -> None:
        """Delete temporary files, workspaces and claims that killed processes left behind, and nothing else."""
        with contextlib.suppress(OSError):
            for folder in (self.path, self.path / MEASUREMENTS):
                for file in list(folder.iterdir()) if folder.is_dir() else ():
                    left = _LEFTOVER.fullmatch(file.name)
                    if left and Owner.parse(left[1]).is_dead:
                        _remove(file)
            claims.remove_expired(self.path)

    def require_writable(self) -> None:
        """Make the folder, or say in one line why it cannot be."""
        probe = self.path / atomic.temporary_name("probe")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            probe.write_bytes(b"")
            probe.unlink()
        except OSError as error:
            raise StoreError(f"The store {self.path} cannot be written: {error.strerror or error}") from error

    @contextlib.contextmanager
    def workspace(self) -> Iterator["Workspace"]:
        """A place in the store for what workers share; it goes when they are done, with what killed ones left behind."""
        workspace = Workspace(self.path)
        try:
            yield workspace
        finally:
            workspace.remove()
            self.remove_leftovers()

    def stamp(self, run: str) -> tuple[int, int] | None:
        """What changes when a record is written anew; None where there is none."""
        try:
            found = self._file(run).stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ino

    def _measurement(self, run: str, kind: str, options: Mapping[str, Any], code: str) -> pathlib.Path:
        """The file of a measurement: one for each run, kind, set of options and code."""
        if not re.fullmatch(r"[\w-]+", kind):
            raise InvalidInput(f"kind must be letters, digits, _ and -, for it names a file. Received: kind={kind!r}")
        try:
            named = json.dumps([options, code], sort_keys=True, default=lambda value: value.item())
        except (AttributeError, TypeError, ValueError) as error:
            raise InvalidInput(
                f"Options of a measurement must be what JSON knows: numbers, words, lists. Received: {dict(options)!r}"
            ) from error
        digest = hashlib.sha256(named.encode()).hexdigest()[:16]
        return self.path / MEASUREMENTS / f"{run}.{kind}.{digest}.json"

    def _file(self, run: str, ending: str = ".json") -> pathlib.Path:
        if not is_name(run):
            raise StoreError(f"A run must be named by 16 hexadecimal digits. Received: {run!r}")
        return self.path / f"{run}{ending}"


class Workspace:
    """A folder for one sweep, made when it is first asked for; its name is never used again.

    Args:
        store: Folder of the store.
    """

    def __init__(self, store: pathlib.Path):
        self._store = store

    @functools.cached_property
    def folder(self) -> pathlib.Path:
        """The folder, which only this user may enter."""
        try:
            self._store.mkdir(parents=True, exist_ok=True)
            name = tempfile.mkdtemp(prefix=f"shared.{Owner.me()}.", suffix=atomic.TEMPORARY, dir=self._store)
        except OSError as error:
            raise StoreError(f"The store {self._store} cannot be written: {error.strerror or error}") from error
        return pathlib.Path(name)

    def remove(self) -> None:
        """Delete the folder, if it was made."""
        if "folder" in vars(self):
            _remove(self.folder)


def _remove(path: pathlib.Path) -> None:
    """Delete a file, or a folder with all that is in it, as far as it can be."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()
