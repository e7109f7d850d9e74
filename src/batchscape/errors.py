"""Every way a user's input can be wrong, as one family of exceptions.

The command line turns any of them into one line and exit status 2; anything else is a bug and keeps its traceback.
"""

import difflib
import functools
import logging
import os
import pathlib
import re
import traceback
from collections.abc import Iterable


class BatchscapeError(Exception):
    """Something the user can put right; the message says what is required and what was received."""


class InvalidInput(BatchscapeError, ValueError):
    """A value, name or array that does not fit."""


class DataNotFound(BatchscapeError, FileNotFoundError):
    """A data set that is neither here nor downloadable; the message names the file to place and where."""


class StoreError(BatchscapeError, RuntimeError):
    """A store that cannot be read or written; the message names the file."""


class DamagedRun(StoreError):
    """A run that cannot be used: its record or its weights are missing, damaged, or not what a sweep writes.

    Args:
        file: The file.
        why: What is wrong with it.
    """

    def __init__(self, file: object, why: str):
        super().__init__(file, why)
        self.file, self.why = file, why

    def __str__(self) -> str:
        return f"{self.file} is damaged: {self.why}"


class OtherVersion(StoreError):
    """A file of another schema version; the message says what to do."""


class UserCodeError(BatchscapeError, RuntimeError):
    """The user's own module is missing, raises, or returns the wrong thing."""


def unknown_name(kind: str, received: str, known: Iterable[str]) -> InvalidInput:
    """The error for a name that is not known, with the near misses offered."""
    known = sorted(known)
    near = difflib.get_close_matches(str(received), known, n=3, cutoff=0.5)
    offer = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known)}"
    return InvalidInput(f"Unknown {kind}; {offer} Received: {kind}={received!r}")


MOST_WORDS, MOST_TRACEBACK = 500, 8_000
"""Characters of a reason and of a traceback that are kept."""

_TERMINAL = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f]")
"""Colours and other codes of a terminal."""

_PREAMBLE = (
    "Graph execution error",
    "Detected at node",
    "<stack traces",
    "Exception encountered when calling",
    'File "',
)
"""How TensorFlow and Keras begin, before they say what went wrong."""

_CAUSE = re.compile(r"(?:Exception encountered|Error encountered during deserialization): ")
"""What Keras puts between the object that it could not load and the reason."""

_DETAILS = re.compile(
    r"Arguments received by|Call arguments received by|Full object config:|Stack trace for op|The op is created at:"
)
"""Where Keras and TensorFlow have said it, and go on with what they were given."""

_NODES = re.compile(
    r"\{\{function_node [^}]*\}\} ?|\[\[\{\{node [^}]*\}\}\]\]|\[Op:[^\]]*\](?: name: )?|, value=\[[^>]*(?=>)"
)
"""TensorFlow's names of operations, and the numbers inside of a variable."""


def telling_line(error: BaseException) -> str:
    """Return what an error says went wrong, in one line without terminal codes; the name of its type where it says nothing.

    Of an error of several lines the last ones, as many as `MOST_WORDS` characters hold, without what TensorFlow and Keras
    put before and after them.
    """
    words = _DETAILS.split(_CAUSE.split(_NODES.sub("", _text_of(error)))[-1])[0]
    lines = (" ".join(line.split()) for line in words.splitlines())
    telling = [line for line in lines if line and not line.startswith(_PREAMBLE)]
    while len(telling) > 1 and sum(map(len, telling)) + len(telling) - 1 > MOST_WORDS:
        del telling[0]
    return _shortened(" ".join(telling), MOST_WORDS, " … ") or type(error).__name__


def reason_of(error: BaseException) -> str:
    """Return the type of an error and what it says, in one line: the last words of a traceback."""
    words = telling_line(error)
    name = type(error).__name__
    return f"{name}: {'no message' if words == name else words}"


def traceback_of(error: BaseException) -> str:
    """Return the traceback of an error as text: the frames of the user's code, through all errors that led to it.

    Frames of this package, of Keras and of its backend are left out, but for the last one of an error that has no other.
    Terminal codes are left out too, and the middle of a text longer than `MOST_TRACEBACK` characters.
    """
    whole = traceback.TracebackException.from_exception(error, compact=True)
    links = [whole]
    while links:
        link = links.pop()
        theirs = [frame for frame in link.stack if not _is_framework(frame.filename)]
        link.stack = traceback.StackSummary.from_list(theirs or link.stack[-1:])
        links += [further for further in (link.__cause__, link.__context__, *(link.exceptions or ())) if further]
    text = _TERMINAL.sub("", "".join(whole.format()))
    return _shortened(_QUOTED_FRAME.sub("", text).strip(), MOST_TRACEBACK, "\n…\n")


_PACKAGE = str(pathlib.Path(__file__).parent)
_FRAMEWORKS = re.compile(r"[/\\](?:site|dist)-packages[/\\](?:keras|tensorflow|jax|jaxlib|loky)[/\\]|^<frozen ")
_QUOTED_FRAME = re.compile(rf'^ *File "[^"\n]*(?:{_FRAMEWORKS.pattern}|{re.escape(_PACKAGE)})[^\n]*\n\n', re.MULTILINE)
"""A frame as TensorFlow quotes it inside of a message."""


def _is_framework(file: str) -> bool:
    """Whether a file belongs to this package, to Keras, to its backend or to Python's import system."""
    return file.startswith(_PACKAGE + os.sep) or bool(_FRAMEWORKS.search(file))


def _text_of(error: BaseException) -> str:
    try:
        return _TERMINAL.sub("", str(error))
    except Exception:  # Of the user's own type, which cannot say itself.
        return ""


def _shortened(text: str, most: int, mark: str) -> str:
    """A text without its middle where it is too long."""
    half = (most - len(mark)) // 2
    return text if len(text) <= most else f"{text[:half]}{mark}{text[-half:]}"


def warn(*sentences: str) -> None:
    """Log sentences as warnings, each once in a process."""
    for sentence in sentences:
        _warn_once(sentence)


@functools.cache
def _warn_once(sentence: str) -> None:
    logging.getLogger("batchscape").warning(sentence)
