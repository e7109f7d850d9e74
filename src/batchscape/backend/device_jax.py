"""GPUs as JAX sees them."""

import jax

from batchscape.errors import InvalidInput

FORGETS_PEAKS = False
"""JAX counts its peak since it began: each batch size needs a process of its own."""


def first_gpu(limit: int | None = None) -> str | None:
    """The name of the first GPU; None without one."""
    device = jax.local_devices()[0]
    if device.platform != "gpu":
        return None
    if limit is not None:
        raise InvalidInput(
            f"memory_limit on a GPU needs TensorFlow; for JAX set XLA_PYTHON_CLIENT_MEM_FRACTION. Received: {limit} bytes"
        )
    return device.device_kind


def let_memory_grow() -> None:
    """Nothing: `backend.choose` has asked for it before JAX began."""


def memory_of_gpu() -> int:
    """Bytes that JAX may use of the first GPU."""
    return jax.local_devices()[0].memory_stats()["bytes_limit"]


def forget_peak() -> None:
    """Nothing; see `FORGETS_PEAKS`."""


def peak() -> int:
    """The most bytes of the GPU that were in use since the process began."""
    return jax.local_devices()[0].memory_stats()["peak_bytes_in_use"]
