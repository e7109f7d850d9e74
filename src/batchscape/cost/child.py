"""A process of our own that may run out of memory: a fresh interpreter, watched, and killed at a limit.

Nothing of the caller's is touched: the child is started afresh (never forked), gets functions by value, so that those of
a notebook travel, and sends back what they return. One of `processes.start` would not do: we need to watch it from its
first moment, to know by which signal it died, and to have its last words.
"""

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

from batchscape import processes, usercode
from batchscape.cost import memory
from batchscape.errors import BatchscapeError, telling_line

SECONDS_BETWEEN_LOOKS = 0.004
"""How often the watch looks at the child; page faults fill a few megabytes in that time."""

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

    Attributes:
        limit: The same; it may be changed between calls.
        largest: The largest resident memory that the watch has seen.
    """

    def __init__(self, limit: int | None = None):
        self.limit, self.largest = limit, 0
        self._over = 0
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed by `stop`)
        code = f"from batchscape.cost import child; child.serve({os.getpid()})"
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        self._process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, "PYTHONPATH": path, "TF_CPP_MIN_LOG_LEVEL": "3"},
        )
        threading.Thread(target=self._watch, daemon=True).start()

    def call(self, function: str | Callable, *arguments: Any) -> Any:
        """Run a function in the child and return what it returns.

        Args:
            function: The function, or `"module:function"` where this process need not import its module.
            *arguments: What to call it with.

        Raises:
            BatchscapeError: What the function raised, if it is one.
            OutOfMemory: If it, or the whole child, ran out of memory.
            ChildDied: If the child died of something else.
            ChildFailed: If the function raised anything else.
        """
        try:
            _send(self._process.stdin, (function, arguments))
            outcome, value = _receive(self._process.stdout)
        except (EOFError, BrokenPipeError):
            raise self._death() from None
        if outcome == "value":
            return value
        raise value

    def stop(self) -> None:
        """End the child."""
        self._process.kill()
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
                self._process.kill()
                return
            time.sleep(SECONDS_BETWEEN_LOOKS)

    def _death(self) -> ChildFailed:
        """Why the child is gone, by how it died."""
        status = self._process.wait()
        if self._over:
            return OutOfMemory(f"killed by us at {memory.text(self._over)}, above the limit")
        name = signal.Signals(-status).name if status < 0 else f"exit status {status}"
        if status == -signal.SIGKILL and self.largest >= LARGE_SHARE * (self.limit or memory.available()):
            return OutOfMemory(f"killed by the system ({name}) at {memory.text(self.largest)}")
        self._errors.seek(0)
        lines = [line for line in self._errors.read().decode(errors="replace").splitlines() if line.strip()]
        return ChildDied(f"the process died ({name}){': ' + lines[-1].strip() if lines else ''}")


def serve(parent: int) -> None:
    """Run functions that come from the parent until it closes the line; what they print goes to stderr."""
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
            function, arguments = pickle.loads(request)
            if isinstance(function, str):
                function = usercode.resolve(function, kind="function")
            reply = "value", function(*arguments)
        except BatchscapeError as error:
            reply = "raised", error
        except Exception as error:
            kind = OutOfMemory if memory.ran_out(error) else ChildFailed
            reply = "raised", kind(f"{type(error).__name__}: {telling_line(error)[:300]}")
        _send(replies, reply)


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
