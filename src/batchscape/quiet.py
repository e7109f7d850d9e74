"""Importing TensorFlow without its greetings.

Its C++ side writes to the file descriptor of stderr before it reads TF_CPP_MIN_LOG_LEVEL, so nothing gentler helps.
"""

import os
import sys


def import_tensorflow() -> None:
    """Import TensorFlow and Keras with stderr turned away, and log errors alone from then on."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    saved, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        import keras  # noqa: F401
        import tensorflow  # noqa: F401
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)
