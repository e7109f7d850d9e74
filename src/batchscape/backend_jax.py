"""GPUs as JAX sees them."""

import jax

from batchscape.errors import InvalidInput


def first_gpu(limit: int | None = None) -> str | None:
    """The name of the first GPU; None without one."""
    device = jax.local_devices()[0]
    if device.platform != "gpu":
        return None
    if limit is not None:
        raise InvalidInput(
            f"JAX takes its share of a GPU when it starts: set XLA_PYTHON_CLIENT_MEM_FRACTION. Received: limit={limit}"
        )
    return device.device_kind


def let_memory_grow() -> None:
    """Nothing: JAX takes its share when it starts; XLA_PYTHON_CLIENT_PREALLOCATE=false makes it grow."""


def memory_of_gpu() -> int:
    """Bytes that JAX may use of the first GPU."""
    return jax.local_devices()[0].memory_stats()["bytes_limit"]


def forget_peak() -> None:
    """Nothing: JAX counts its peak since it began, so that only a batch larger than all before it shows."""


def peak() -> int:
    """The most bytes of the GPU that were in use since the process began."""
    return jax.local_devices()[0].memory_stats()["peak_bytes_in_use"]
