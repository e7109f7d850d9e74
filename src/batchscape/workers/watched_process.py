"""A process of our own that may run out of memory: a fresh interpreter, watched, and killed at a limit.

Nothing of the caller's is touched: the child is started afresh (never forked), gets functions by value, so that those of
a notebook travel, and sends back what they return. One of `processes.start` would not do: we need to watch it from its
first moment, to know by which signal it died, and to have its last words.
"""

import contextlib
import importlib
import math
import os
import pickle
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any, BinaryIO

import cloudpickle
import psutil

from batchscape.backend import importing
from batchscape.errors import BatchscapeError, reason_of
from batchscape.system import memory
from batchscape.workers import processes

SECONDS_BETWEEN_LOOKS = 0.004
"""How often the watch looks at the child; page faults fill a few megabytes in that time."""

SECONDS = 600.0
"""What a call may take, by default."""

LARGE_SHARE = 0.5
"""A child that somebody else killed ran out of memory if it held this share of what was to be had."""


class ChildFailed(Exception):
    """What was asked of the child came to nothing; the message says why."""


class OutOfMemory(ChildFailed):
    """It did not fit: the framework said so by the type of its exception, or the child was killed for its size."""


class ChildDied(ChildFailed):
    """The child is gone, and not for want of memory."""


class Child:
    """A fresh interpreter that runs functions for us, one at a time, and keeps what they leave in their modules.

    Args:
        limit: Resident memory, in bytes, at which it is killed; None for no watch.
        seconds: How long a call may take before it is killed, the import of Keras included.

    Attributes:
        limit: The same; it may be changed between calls.
        largest: The largest resident memory that the watch has seen.
    """

    def __init__(self, limit: int | None = None, seconds: float = SECONDS):
        self.limit, self.largest = limit, 0
        self._seconds, self._deadline = seconds, math.inf
        self._over, self._late = 0, False
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed by `stop`)
        path = list(map(os.fspath, sys.path))  # A `pathlib.Path` may stand there too.
        # Until our own modules are imported there the current folder stands last: its typing.py must not be Python's.
        code = (
            f"import sys; sys.path[:] = {processes.here_last(path)!r}; "
            f"from batchscape.workers import watched_process; watched_process.serve({os.getpid()}, {path!r})"
        )
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        )
        threading.Thread(target=self._watch, daemon=True).start()

    def call(self, function: str | Callable, *arguments: Any) -> Any:
        """Run a function in the child and return what it returns.

        Args:
            function: The function, or `"module:function"`, one of ours, where this process need not import its module.
            *arguments: What to call it with.

        Raises:
            BatchscapeError: What the function raised, if it is one.
            OutOfMemory: If it, or the whole child, ran out of memory.
            ChildDied: If the child died of something else, or took too long.
            ChildFailed: If the function raised anything else.
        """
        self._deadline = time.monotonic() + self._seconds
        try:
            # Our own module is imported there before what is the user's is unpickled.
            ours = function if isinstance(function, str) else None
            _send(self._process.stdin, (ours, cloudpickle.dumps((function, arguments))))
            outcome, value = _receive(self._process.stdout)
        except (EOFError, BrokenPipeError):
            raise self._death() from None
        finally:
            self._deadline = math.inf
        if outcome == "value":
            return value
        raise value

    def stop(self) -> None:
        """End the child."""
        self._kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            try:
                stream.close()
            except BrokenPipeError:
                continue

    def _watch(self) -> None:
        while self._process.poll() is None:
            held = memory.resident(self._process.pid)
            self.largest = max(self.largest, held)
            if self.limit is not None and held > self.limit:
                self._over = held
                self._kill()
                return
            if time.monotonic() > self._deadline:
                self._late = True
                self._kill()
                return
            time.sleep(SECONDS_BETWEEN_LOOKS)

    def _kill(self) -> None:
        """Kill the child and what it has started, which may hold its end of the line open."""
        with contextlib.suppress(psutil.Error):
            for descendant in psutil.Process(self._process.pid).children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    descendant.kill()
        self._process.kill()

    def _death(self) -> ChildFailed:
        """Why the child is gone, by how it died."""
        status = self._process.wait()
        if self._over:
            return OutOfMemory(f"killed by us at {memory.text(self._over)}, above the limit")
        if self._late:
            return ChildDied(f"took longer than the time limit of {self._seconds:g} s")
        name = signal.Signals(-status).name if status < 0 else f"exit status {status}"
        if status == -signal.SIGKILL and self.largest >= LARGE_SHARE * (self.limit or memory.available()):
            return OutOfMemory(f"killed by the system ({name}) at {memory.text(self.largest)}")
        self._errors.seek(0)
        lines = [line for line in self._errors.read().decode(errors="replace").splitlines() if line.strip()]
        return ChildDied(f"the process died ({name}){': ' + lines[-1].strip() if lines else ''}")


def serve(parent: int, path: list[str]) -> None:
    """Run functions that come from the parent until it closes the line; what they print goes to stderr.

    Args:
        parent: Process number of the parent.
        path: Its `sys.path`, which counts as soon as our own modules are imported.
    """
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    memory.offer_to_be_killed()
    processes.follow(parent)
    while True:
        try:
            request = _read_frame(sys.stdin.buffer)
        except EOFError:
            return
        try:
            name, payload = pickle.loads(request)
            ours = _find(name) if name else None
            sys.path[:] = path
            function, arguments = pickle.loads(payload)
            reply = "value", (ours or function)(*arguments)
        except BatchscapeError as error:
            reply = "raised", error
        except Exception as error:
            kind = OutOfMemory if memory.ran_out(error) else ChildFailed
            reply = "raised", kind(reason_of(error))
        _send(replies, reply)


def _find(name: str) -> Callable:
    """A function of ours by its name, `"module:function"`."""
    importing.import_keras()
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(module), function)


def _send(stream: BinaryIO, value: Any) -> None:
    frame = cloudpickle.dumps(value)
    stream.write(struct.pack("<Q", len(frame)) + frame)
    stream.flush()


def _receive(stream: BinaryIO) -> Any:
    return pickle.loads(_read_frame(stream))


def _read_frame(stream: BinaryIO) -> bytes:
    header = stream.read(8)
    if len(header) < 8:
        raise EOFError
    size = struct.unpack("<Q", header)[0]
    frame = stream.read(size)
    if len(frame) < size:
        raise EOFError
    return frame
