"""Who trains which run: claims, which are files in the store, so that sweeps that share it train each run once.

The first claim on a run is the file `RUN.claim`. It is made with O_EXCL, so only one process succeeds, and holds its owner
and a token that no other claim has. The owner renews its modification time while it trains, and deletes it when the record
is written. A claim expires when its owner is dead or, if the owner ran on another host, when it has not been renewed for
`EXPIRES_AFTER` seconds.

An expired claim is not deleted to make room: of two processes that do so the slower would delete the fresh claim of the
quicker. Instead the next claim is made beside it, with O_EXCL again, as `RUN.TOKEN.claim` with the token of the expired one.
So claims on a run form a chain from `RUN.claim` on, and the last one counts. Its owner alone deletes the chain, `RUN.claim`
first: a process that was slow to add to the old chain finds that its claim cannot be reached from there, and withdraws it.
"""

import contextlib
import dataclasses
import os
import pathlib
import re
import secrets
import threading
from typing import Self

from batchscape.errors import StoreError
from batchscape.system import owner
from batchscape.system.atomic import temporary_name
from batchscape.system.owner import Owner

RENEWED_EVERY = 15.0
"""Seconds between renewals of a claim."""

EXPIRES_AFTER = 180.0
"""Seconds without renewal after which a claim from another host expires; network file systems show times a minute late."""

NAME = re.compile(r"([0-9a-f]{16})(?:\.[0-9a-f]+)?\.claim", re.ASCII)
"""Names of the files of claims."""

_CONTENT = re.compile(rf"({owner.PATTERN}) ([0-9a-f]{{16}})\n", re.ASCII)

_held: set[pathlib.Path] = set()
"""Files of the claims that this process holds; others of its own were left by an interrupted sweep."""


@dataclasses.dataclass(frozen=True)
class _Claim:
    """One file of a chain; without an owner where its maker has not written it yet, or died before."""

    file: pathlib.Path
    owner: Owner | None
    token: str

    def is_expired(self) -> bool:
        if self.owner is None or not self.owner.is_local:
            return _seconds_since_renewal(self.file) > EXPIRES_AFTER
        return self.owner.is_dead or (self.owner.process == os.getpid() and self.file not in _held)


class Claims:
    """The claims of one task, to be used as a context: they are renewed inside of it, and released at its end.

    Args:
        store: Folder of the store.

    Example:
        >>> folder = getfixture("tmp_path")
        >>> with Claims(folder) as claims:
        ...     claims.take("00000000000000aa"), is_taken(folder, "00000000000000aa")
        (True, True)
        >>> is_taken(folder, "00000000000000aa")
        False
    """

    def __init__(self, store: pathlib.Path):
        self._store = store
        self._mine: dict[str, _Claim] = {}
        self._over = threading.Event()

    def __enter__(self) -> Self:
        threading.Thread(target=self._renew, daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self._over.set()
        for run in list(self._mine):
            self.release(run)

    def take(self, run: str) -> bool:
        """Claim a run; False where another process has it, or is claiming it at this moment.

        Raises:
            StoreError: If the store cannot be written.
        """
        chain, file = _chain(self._store, run)
        if chain and not chain[-1].is_expired():
            return False
        mine = _Claim(file, Owner.me(), secrets.token_hex(8))
        try:
            descriptor = os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        except FileExistsError:  # Another was quicker.
            return False
        except OSError as error:
            raise StoreError(f"{file} cannot be written: {error.strerror or error}") from error
        self._mine[run] = mine
        _held.add(file)
        try:
            os.write(descriptor, f"{mine.owner} {mine.token}\n".encode())
        except OSError as error:
            _delete(file)
            raise StoreError(f"{file} cannot be written: {error.strerror or error}") from error
        finally:
            os.close(descriptor)
        chain, _ = _chain(self._store, run)
        if chain and chain[-1] == mine and all(each.is_expired() for each in chain[:-1]):
            return True
        self._withdraw(run)  # The chain that it was added to has gone meanwhile.
        return False

    def release(self, run: str) -> None:
        """Let go of a run, if it is held."""
        if run not in self._mine:
            return
        chain, _ = _chain(self._store, run)
        if chain and chain[-1] == self._mine[run]:
            for each in chain[:-1]:
                _delete(each.file)
            self._withdraw(run)
        else:  # It expired while this process was suspended, and another process added its own, or has released both.
            _held.discard(self._mine.pop(run).file)

    def _withdraw(self, run: str) -> None:
        mine = self._mine.pop(run)
        if _read(mine.file, 0) == mine:
            _delete(mine.file)
        _held.discard(mine.file)

    def _renew(self) -> None:
        while not self._over.wait(RENEWED_EVERY):
            for claim in list(self._mine.values()):
                with contextlib.suppress(OSError):
                    os.utime(claim.file)


def is_taken(store: pathlib.Path, run: str) -> bool:
    """Whether a process holds a claim on a run."""
    chain, _ = _chain(store, run)
    return bool(chain) and not chain[-1].is_expired()


def remove_expired(store: pathlib.Path) -> None:
    """Delete the claims of processes that have died."""
    with contextlib.suppress(OSError, StoreError), Claims(store) as claims:
        for name in [name for name in os.listdir(store) if NAME.fullmatch(name)]:
            run = NAME.fullmatch(name)[1]
            if claims.take(run):
                claims.release(run)
            # What a process killed while it deleted a chain has left of it; no new chain can lead there.
            claim = _read(store / name, 0)
            chain, first = _chain(store, run)[0], f"{run}.claim"
            if claim and name != first and claim.is_expired() and claim.file not in [each.file for each in chain]:
                _delete(claim.file)


def _chain(store: pathlib.Path, run: str) -> tuple[list[_Claim], pathlib.Path]:
    """Claims on a run, the oldest first, and the file of the next one."""
    chain, file = [], store / f"{run}.claim"
    while (claim := _read(file, len(chain))) and claim not in chain:
        chain.append(claim)
        file = store / f"{run}.{claim.token}.claim"
    return chain, file


def _read(file: pathlib.Path, depth: int) -> _Claim | None:
    """The claim in a file; its depth in the chain stands for the token of an empty one. None if there is no such file."""
    try:
        written = _CONTENT.fullmatch(file.read_text(encoding="ascii", errors="replace"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(f"{file} cannot be read: {error.strerror or error}") from error
    return _Claim(file, Owner.parse(written[1]), written[2]) if written else _Claim(file, None, str(depth))


def _seconds_since_renewal(file: pathlib.Path) -> float:
    """Age of a file by the clock of its file system: those of hosts differ."""
    now = file.with_name(temporary_name("probe"))
    try:
        now.touch()
        return now.stat().st_mtime - file.stat().st_mtime
    except FileNotFoundError:  # Released meanwhile.
        return 0.0
    except OSError as error:
        raise StoreError(f"{file.parent} cannot be written: {error.strerror or error}") from error
    finally:
        _delete(now)


def _delete(file: pathlib.Path) -> None:
    with contextlib.suppress(OSError):
        file.unlink()
