"""Processes of our own, started afresh: never forked, since forking after TensorFlow has started can deadlock.

From loky: functions are sent by value, so that a notebook's own `build` travels and a script needs no `__main__` guard.
"""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from typing import Any

import loky
import psutil
from loky import process_executor

from batchscape.backend import importing
from batchscape.errors import reason_of
from batchscape.workers import loky_private

SECONDS_AFTER_SIGTERM = 10.0
"""A process that was asked to end does so this much later, unless its parent ends it: both may have been asked."""


class Process:
    """One long-lived process, Keras and its backend imported, that runs functions one after the other.

    Args:
        environment: Variables to set there.
        prepare: Called there first, with the arguments; the current folder does not stand before the libraries then.
        *arguments: What it is called with.

    Attributes:
        ready_at: When the process was ready for work, on the clock of `time.monotonic`; None before that.
    """

    def __init__(self, environment: Mapping[str, str], prepare: Callable | None = None, *arguments: Any):
        # Now, since a function that is sent may import TensorFlow before anything of ours runs there.
        level = {"TF_CPP_MIN_LOG_LEVEL": os.environ.get("TF_CPP_MIN_LOG_LEVEL", "3")}
        ours = os.getpid(), list(sys.path), os.environ.get(SAFE_PATH)
        self.ready_at: float | None = None
        self._largest = 0
        with _libraries_first():  # Making the executor starts a process too, which looks after semaphores.
            self._executor = loky.ProcessPoolExecutor(
                max_workers=1,
                timeout=None,
                env={**level, **environment, **loky_private.KEEP_LARGE_PROCESSES},
                initializer=_start,
                initargs=(*ours, prepare, arguments),
            )
            self._executor.submit(_do_nothing).add_done_callback(self._note_ready)
            self._process = loky_private.process_of(self._executor)

    def submit(self, function: Callable, *arguments: Any) -> futures.Future:
        """Run a function there; what it returns, or `futures.process.BrokenProcessPool` where the process ended."""
        try:
            return self._executor.submit(function, *arguments)
        except futures.process.BrokenProcessPool as error:  # It ended before.
            failed = futures.Future()
            failed.set_exception(error)
            return failed

    def look(self) -> None:
        """Note how much memory the process holds."""
        with contextlib.suppress(psutil.Error, AttributeError):  # It may have ended, even at once.
            self._largest = max(self._largest, psutil.Process(self._process.pid).memory_info().rss)

    def kill(self) -> None:
        """End the process, and those that it started, without waiting for it."""
        with contextlib.suppress(psutil.Error, AttributeError):  # It may have ended, even at once.
            process = psutil.Process(self._process.pid)
            for one in [*process.children(recursive=True), process]:
                one.kill()

    def stop(self) -> None:
        """End the process, and those that it started."""
        self._executor.shutdown(kill_workers=True)

    def how_it_ended(self, error: BaseException) -> str:
        """Stop, and return how the process ended: by which signal, or with which exit status, and its memory.

        Args:
            error: What its future raised.
        """
        self.stop()
        if not isinstance(error, process_executor.TerminatedWorkerError):
            return f"was stopped: {reason_of(error.__cause__ or error)}"
        held = f" when it held {self._largest / 1e9:.2g} GB" if self._largest else ""
        return f"{ending(getattr(self._process, 'exitcode', None))}{held}"

    def _note_ready(self, _: futures.Future) -> None:
        self.ready_at = time.monotonic()


def ending(exit_code: int | None) -> str:
    """How a process ended, by its exit code as Python gives it: negative for a signal.

    Example:
        >>> ending(3), ending(-11)
        ('exited with status 3', 'was ended by SIGSEGV (Segmentation fault)')
    """
    if exit_code is None:
        return "ended"
    if exit_code >= 0:
        return f"exited with status {exit_code}"
    if -exit_code == signal.SIGKILL:
        return "was ended by SIGKILL (by the system, out of memory? or by somebody)"
    try:
        return f"was ended by {signal.Signals(-exit_code).name} ({signal.strsignal(-exit_code)})"
    except ValueError:
        return f"was ended by signal {-exit_code}"


SAFE_PATH = "PYTHONSAFEPATH"
"""Variable that keeps Python from putting the current folder first on `sys.path`."""


@contextlib.contextmanager
def _libraries_first() -> Iterator[None]:
    """Let processes that start now look for modules in the current folder last.

    They get our `sys.path`, where the folder of a user's module may stand first; while they import the standard library and
    Keras, a `typing.py` there must not take the place of Python's. `_start` gives them the true order afterwards.
    """
    before, safe = list(sys.path), os.environ.get(SAFE_PATH)
    sys.path[:] = here_last(before)
    os.environ[SAFE_PATH] = "1"
    try:
        yield
    finally:
        sys.path[:] = before
        _set_safe_path(safe)


def _set_safe_path(value: str | None) -> None:
    os.environ.pop(SAFE_PATH, None)
    if value is not None:
        os.environ[SAFE_PATH] = value


def here_last(path: list[str]) -> list[str]:
    """The same folders, the current one last."""
    try:
        here = os.getcwd()
    except OSError:  # It was deleted.
        return path
    return [entry for entry in path if entry not in ("", here)] + [here]


def _start(parent: int, path: list[str], safe: str | None, prepare: Callable | None, arguments: tuple) -> None:
    """Prepare the process: the parent's modules, and a life that follows the parent's."""
    follow(parent)
    importing.import_keras()
    if prepare is not None:
        prepare(*arguments)
    _set_safe_path(safe)
    sys.path[:] = path


def _do_nothing() -> None:
    """Tell by its end that the process is ready."""


def follow(parent: int) -> None:
    """Leave Ctrl-C and SIGTERM to the parent process, and end when it does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end_later)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _end_later(*_: object) -> None:
    """End by SIGTERM after a while; the parent, if it was asked to end as well, ends us before."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    later = threading.Timer(SECONDS_AFTER_SIGTERM, os.kill, (os.getpid(), signal.SIGTERM))
    later.daemon = True
    later.start()
