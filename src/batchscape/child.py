"""A process of its own, started afresh: never forked, since forking after TensorFlow has started can deadlock.

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
    """An executor with one long-lived process, TensorFlow imported.

    Args:
        environment: Variables to set there.
        prepare: Called there first, with the arguments.
        *arguments: What it is called with.
    """
    import loky

    return loky.ProcessPoolExecutor(
        max_workers=1,
        timeout=None,
        env=dict(environment),
        initializer=_start,
        initargs=(os.getpid(), sys.path, prepare, arguments),
    )


def _start(parent: int, path: list[str], prepare: Callable | None, arguments: tuple) -> None:
    """Prepare the process: the parent's modules, Ctrl-C left to the parent, and no life after the parent's."""
    sys.path[:] = path
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    quiet.import_tensorflow()
    if prepare is not None:
        prepare(*arguments)
