"""Every way a user's input can be wrong, as one family of exceptions.

The command line turns any of them into one line and exit status 2; anything else is a bug and keeps its traceback.
"""

import difflib
from collections.abc import Iterable


class BatchscapeError(Exception):
    """Something the user can put right; the message says what is required and what was received."""


class InvalidInput(BatchscapeError, ValueError):
    """A value, name or array that does not fit."""


class DataNotFound(BatchscapeError, FileNotFoundError):
    """A data set that is neither here nor downloadable; the message names the file to place and where."""


class StoreError(BatchscapeError, RuntimeError):
    """A store that cannot be read or written; the message names the file."""


class UserCodeError(BatchscapeError, RuntimeError):
    """The user's own module is missing, raises, or returns the wrong thing."""


def unknown_name(kind: str, received: str, known: Iterable[str]) -> InvalidInput:
    """The error for a name that is not known, with the near misses offered."""
    known = sorted(known)
    near = difflib.get_close_matches(str(received), known, n=3, cutoff=0.5)
    offer = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known)}"
    return InvalidInput(f"Unknown {kind}; {offer} Received: {kind}={received!r}")


_PREAMBLE = ("Graph execution error", "Detected at node", "<stack traces", "Exception encountered when calling")
"""How TensorFlow and Keras begin, before they say what went wrong."""


def telling_line(error: BaseException) -> str:
    """What went wrong, in the first line of an error that says so; the name of its type where none does."""
    lines = (line.strip() for line in str(error).splitlines())
    return next((line for line in lines if line and not line.startswith(_PREAMBLE)), type(error).__name__)
