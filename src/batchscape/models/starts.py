"""From which weights the training of a model that is given starts, and how that is told."""

import functools
import logging
from typing import Any

from batchscape import usercode
from batchscape.errors import warn

_log = logging.getLogger("batchscape")

FRESH = "fresh:"
"""What stands before the name of a file whose model is to begin from new weights."""

WEIGHTS, SEED = "weights of the model", "the seed"
"""From what a training starts: what records say."""


def announce(build: Any) -> None:
    """Log from which weights a training starts, where a model is given as an object or as a file."""
    if not isinstance(build, usercode.Builder):
        return
    if build.starts_from == SEED:
        _tell_once(f"{build.label.removeprefix(FRESH)}: training starts from new weights, drawn by the seed.")
    else:
        warn(
            f"{build.label}: training starts from its weights, the same for every seed, with the state of its optimizer begun "
            "anew; --fresh (in Python: batchscape.fresh) begins with new weights."
        )


@functools.cache
def _tell_once(sentence: str) -> None:
    _log.info(sentence)
