"""How many cores and threads there are to use."""

import os


def cores() -> int:
    """Number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads() -> int:
    """Number of threads that TensorFlow uses in an operation: what the environment says, else one a core."""
    return int(os.environ.get("TF_NUM_INTRAOP_THREADS", 0)) or cores()
