"""Which process owns a file: its host, boot, number and start time, as text that fits into a file name.

A process number alone names nobody: it is used again, in a container always as 1, and another host has the same numbers.
"""

import dataclasses
import functools
import hashlib
import os
import pathlib
import platform
import re
from typing import Self

import psutil

PATTERN = r"[0-9a-f]{8}-[0-9a-f]{8}-\d+-\d+"
"""How an owner looks in a file name."""

SAME_START = 1.0
"""Seconds by which two readings of one process' start time may differ: the system's clock is corrected now and then."""


@dataclasses.dataclass(frozen=True)
class Owner:
    """A process that owns files.

    Attributes:
        host: Digest of the host's name and number and of the namespace of its process numbers, 8 hexadecimal digits.
        boot: Digest of the host's running boot, 8 hexadecimal digits.
        process: Process number.
        start: When the process started, in milliseconds since 1970.
    """

    host: str
    boot: str
    process: int
    start: int

    @classmethod
    def me(cls) -> Self:
        """This process."""
        return cls(*_machine(), os.getpid(), _start_of(os.getpid()))

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """The owner that a text names; None if it names none."""
        if not re.fullmatch(PATTERN, text, re.ASCII):
            return None
        host, boot, process, start = text.split("-")
        return cls(host, boot, int(process), int(start))

    def __str__(self) -> str:
        return f"{self.host}-{self.boot}-{self.process}-{self.start}"

    @property
    def is_local(self) -> bool:
        """Whether the process runs, or ran, on this host; of others nobody here can tell whether they are alive."""
        return self.host == _machine()[0]

    @property
    def is_dead(self) -> bool:
        """Whether the process is known to have ended: it ran on this host, under another boot or start time, or is gone."""
        if not self.is_local:
            return False
        if self.boot != _machine()[1]:
            return True
        try:
            if (
                psutil.Process(self.process).status() == psutil.STATUS_ZOMBIE
            ):  # In a container nobody may ever wait for it.
                return True
            return abs(_start_of(self.process) - self.start) > 1000 * SAME_START
        except (psutil.NoSuchProcess, OverflowError, ValueError):
            return True
        except psutil.Error:  # It is there, and of another user.
            return False


def _start_of(process: int) -> int:
    return round(1000 * psutil.Process(process).create_time())


@functools.cache
def _machine() -> tuple[str, str]:
    """Digests of this host and of its boot."""
    try:
        namespace = str(pathlib.Path("/proc/self/ns/pid").readlink())
    except OSError:  # Not Linux.
        namespace = ""
    boot = _read("/proc/sys/kernel/random/boot_id") or f"{psutil.boot_time():.0f}"
    name = f"{platform.node()} {_read('/etc/machine-id')} {namespace}"
    return _short_digest(name), _short_digest(boot)


def _read(file: str) -> str:
    """What a file of the system says; "" where there is none."""
    try:
        return pathlib.Path(file).read_text()
    except OSError:
        return ""


def _short_digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
