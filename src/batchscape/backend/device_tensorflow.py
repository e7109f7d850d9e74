"""GPUs as TensorFlow sees them."""

import contextlib
from collections.abc import Iterator

import tensorflow as tf

from batchscape.backend import tensorflow_private

FORGETS_PEAKS = True
"""Whether the peak of a GPU can be counted anew for each batch size."""

_GPU = "GPU:0"


def first_gpu(limit: int | None = None) -> str | None:
    """The name of the first GPU, with its memory limited to so many bytes; None without one."""
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return None
    if limit is not None:
        share = tf.config.LogicalDeviceConfiguration(memory_limit=max(1, limit // 2**20))
        tf.config.set_logical_device_configuration(gpus[0], [share])
    return tf.config.experimental.get_device_details(gpus[0]).get("device_name", gpus[0].name)


def let_memory_grow() -> None:
    """Take memory as it is needed, not all of it at once; where TensorFlow has begun, or a limit is set, that stays."""
    for gpu in tf.config.list_physical_devices("GPU"):
        with contextlib.suppress(RuntimeError, ValueError):
            tf.config.experimental.set_memory_growth(gpu, True)


@contextlib.contextmanager
def full_float32() -> Iterator[None]:
    """Have a GPU multiply float32 as such, for measurements: by itself it rounds to TF32, of ten bits."""
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)


def memory_of_gpu() -> int:
    """Bytes that TensorFlow may use of the first GPU."""
    return tensorflow_private.memory_limit_of_gpu()


def forget_peak() -> None:
    """Count the peak of the GPU from here on."""
    tf.config.experimental.reset_memory_stats(_GPU)


def peak() -> int:
    """The most bytes of the GPU that were in use."""
    return tf.config.experimental.get_memory_info(_GPU)["peak"]
