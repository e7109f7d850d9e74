"""Processes of our own, started afresh: never forked, since forking after TensorFlow has started can deadlock.

From loky: functions are sent by value, so that a notebook's own `build` travels and a script needs no `__main__` guard.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping

from batchscape import quiet


def start(environment: Mapping[str, str], prepare: Callable | None = None, *arguments):
    """An executor with one long-lived process, Keras and its backend imported.

    Where psutil is installed, loky by itself replaces a process that has grown by 300 MB, which one compiled model does.

    Args:
        environment: Variables to set there.
        prepare: Called there first, with the arguments.
        *arguments: What it is called with.
    """
    import loky

    # Now, since a function that is sent may import TensorFlow before anything of ours runs there.
    level = {"TF_CPP_MIN_LOG_LEVEL": os.environ.get("TF_CPP_MIN_LOG_LEVEL", "3")}
    return loky.ProcessPoolExecutor(
        max_workers=1,
        timeout=None,
        env={**level, **environment, "LOKY_MAX_MEMORY_LEAK_SIZE": "1e15"},
        initializer=_start,
        initargs=(os.getpid(), sys.path, prepare, arguments),
    )


def _start(parent: int, path: list[str], prepare: Callable | None, arguments: tuple) -> None:
    """Prepare the process: the parent's modules, and a life that follows the parent's."""
    sys.path[:] = path
    follow(parent)
    quiet.import_keras()
    if prepare is not None:
        prepare(*arguments)


def follow(parent: int) -> None:
    """Leave Ctrl-C to the parent process, and end when it does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
