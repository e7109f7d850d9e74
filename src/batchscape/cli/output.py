"""Standard output that says in one line why it cannot be written, such as a full disk behind `> runs.csv`."""

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO

from batchscape.errors import StoreError


@contextlib.contextmanager
def checked() -> Iterator[None]:
    """Check everything that is printed inside, to the last byte.

    Raises:
        StoreError: If it cannot be written; a closed pipe is left to Typer.
    """
    stream = sys.stdout or open(os.devnull, "w")  # noqa: SIM115 (None where standard output is closed)
    sys.stdout = output = _Output(stream)
    try:
        yield
        output.flush()
    finally:
        sys.stdout = stream


class _Output:
    """A text stream whose failures are errors of ours."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with self._telling():
            return self._stream.write(text)

    def flush(self) -> None:
        with self._telling():
            self._stream.flush()

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise
            nowhere = os.open(os.devnull, os.O_WRONLY)  # Or Python tries once more at its exit, and fails loudly.
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
            raise StoreError(f"Standard output cannot be written: {error.strerror or error}") from error
