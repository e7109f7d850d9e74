"""What loky does not document, each behind one name with a test in `tests/test_private_names.py`."""

from typing import Any

import loky

KEEP_LARGE_PROCESSES = {"LOKY_MAX_MEMORY_LEAK_SIZE": "1e15"}
"""Environment in which loky lets a process grow: where psutil is installed, it replaces one that grew by 300 MB.

Relies on `loky.process_executor`, which reads it when it is imported. Without it workers are replaced between tasks: slower.
"""


def process_of(executor: loky.ProcessPoolExecutor) -> Any:
    """The process of an executor of one worker that has begun; None where there is none yet.

    Relies on `ProcessPoolExecutor._processes`. Without it: None, so that its memory is not looked at, how it ended is not
    known, and it is ended by `shutdown` alone.
    """
    return next(iter(getattr(executor, "_processes", {}).values()), None)
