"""Importing Keras and its backend without their greetings.

TensorFlow's C++ side writes to the file descriptor of stderr before it reads TF_CPP_MIN_LOG_LEVEL, so nothing gentler helps.
"""

import contextlib
import gc
import logging
import os
import sys
from collections.abc import Iterator

from batchscape import backend


def import_keras() -> None:
    """Import Keras and its backend with stderr turned away, and log errors alone from then on.

    File descriptor 2 of the whole process leads nowhere while they are imported: what other threads write there meanwhile is
    lost. `TF_CPP_MIN_LOG_LEVEL` is set to 3 where it is not set. So the command line and worker processes alone call this;
    `import batchscape`, and using it in a notebook or a script, does not.

    Raises:
        InvalidInput: If there is no backend, or one that we do not know.
    """
    backend.check()
    open_standard_streams()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    saved, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    collects = gc.isenabled()
    gc.disable()  # What an import makes stays; looking for garbage among it is a tenth of its time.
    try:
        import keras  # noqa: F401
    finally:
        if collects:
            gc.enable()
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)


def open_standard_streams() -> None:
    """Open what of stdin, stdout and stderr is closed, on nothing: else a file of ours would take its number."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            os.set_inheritable(number, True)
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115 (it stays open)


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
