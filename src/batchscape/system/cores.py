"""How many cores and threads there are to use."""

import functools
import os
from collections.abc import Callable


def cores() -> int:
    """Number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads() -> int:
    """Number of threads that TensorFlow uses in an operation: what the environment says, else one a core."""
    return int(os.environ.get("TF_NUM_INTRAOP_THREADS", 0)) or cores()


def one_blas_thread(function: Callable) -> Callable:
    """Let NumPy's BLAS have one thread while a function runs that goes to and fro between it and a model.

    Its threads, once woken, spin on the cores that the model wants next: Lanczos on the MLP of MNIST took 1.7 times as long.
    """

    @functools.wraps(function)
    def limited(*arguments, **options):
        from threadpoolctl import threadpool_limits

        with threadpool_limits(1, user_api="blas"):
            return function(*arguments, **options)

    return limited
