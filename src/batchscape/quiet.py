"""Importing Keras and its backend without their greetings.

TensorFlow's C++ side writes to the file descriptor of stderr before it reads TF_CPP_MIN_LOG_LEVEL, so nothing gentler helps.
"""

import contextlib
import logging
import os
import sys
from collections.abc import Iterator

from batchscape.backend import BACKENDS
from batchscape.errors import InvalidInput


def import_keras() -> None:
    """Import Keras and its backend with stderr turned away, and log errors alone from then on."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    saved, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        import keras  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name not in BACKENDS:
            raise
        raise InvalidInput(
            "Keras needs a backend: install batchscape[tensorflow], or batchscape[jax] and set KERAS_BACKEND=jax. "
            f"Received: no {error.name}"
        ) from error
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)


@contextlib.contextmanager
def without_warnings_of_programs() -> Iterator[None]:
    """Keep TensorFlow from taking our programs, one for each shape, some with loops, and on purpose, for a mistake."""
    logger = logging.getLogger("tensorflow")

    def passes(record: logging.LogRecord) -> bool:
        return not any(
            text in record.getMessage() for text in ("triggered tf.function retracing", "Using a while_loop")
        )

    logger.addFilter(passes)
    try:
        yield
    finally:
        logger.removeFilter(passes)
