"""Names of TensorFlow that its documentation does not list, or calls experimental, each behind one function.

Those that concern a GPU and are public stand in `device_tensorflow`. `tests/test_private_names.py` has a test for each.
"""

import importlib
from typing import TYPE_CHECKING

from batchscape.errors import BatchscapeError

if TYPE_CHECKING:
    import tensorflow as tf

TESTED = "tensorflow>=2.20,<2.22"
"""What the tests have run on, as `pyproject.toml` has it."""


def memory_limit_of_gpu() -> int:
    """Bytes that TensorFlow may use of the first GPU.

    Relies on `tensorflow.python.client.device_lib`; no public function tells the limit. Without it: `BatchscapeError`.
    """
    try:
        device_lib = importlib.import_module("tensorflow.python.client.device_lib")
    except ImportError:
        raise _error("tensorflow.python.client.device_lib") from None
    return next(device.memory_limit for device in device_lib.list_local_devices() if device.device_type == "GPU")


def with_cardinality(batches: "tf.data.Dataset", n: int) -> "tf.data.Dataset":
    """The same pipeline, whose number of batches is known to be n; where it gives another number, it raises.

    Relies on `tf.data.experimental.assert_cardinality`, for which there is no other name. Without it: `BatchscapeError`.
    """
    import tensorflow as tf

    if not hasattr(tf.data.experimental, "assert_cardinality"):
        raise _error("tf.data.experimental.assert_cardinality")
    return batches.apply(tf.data.experimental.assert_cardinality(n))


def untuned() -> "tf.data.Options":
    """Options of a pipeline without a tuning thread, for whose end `fit` would wait, up to 0.6 s.

    Relies on `tf.data.Options.experimental_optimization`. Without it: TensorFlow's own optimizations stay on, which takes
    longer and gives the same batches.
    """
    import tensorflow as tf

    options = tf.data.Options()
    options.autotune.enabled = False
    if hasattr(options, "experimental_optimization"):
        options.experimental_optimization.apply_default_optimizations = False
    return options


_OTHER_ELEMENTS = ("Unbatch", "FlatMap", "Interleave", "Window", "Zip", "Group")
"""Steps of a pipeline behind which the batches of an earlier step are no more."""


def batch_size_of(dataset: "tf.data.Dataset") -> int | None:
    """Examples in each batch of a pipeline; None where it makes no batches.

    With `drop_remainder` the shapes of batches are those of examples with one axis more, so only the steps of a pipeline
    tell. Relies on `_input_dataset`, `_batch_size` and the names of classes. Without them: None.
    """
    import tensorflow as tf

    while dataset is not None:
        step = type(dataset).__name__
        if step == "_ZipDataset":
            sizes = {batch_size_of(part) for part in tf.nest.flatten(getattr(dataset, "_datasets", ()))}
            return sizes.pop() if len(sizes) == 1 else None
        if step.endswith("BatchDataset"):
            size = tf.get_static_value(getattr(dataset, "_batch_size", None))
            return None if size is None else int(size)
        if any(name in step for name in _OTHER_ELEMENTS):
            return None
        dataset = getattr(dataset, "_input_dataset", None)
    return None


def _error(name: str) -> BatchscapeError:
    import tensorflow as tf

    return BatchscapeError(f"batchscape needs {TESTED}, which has {name}. Received: TensorFlow {tf.__version__}")
