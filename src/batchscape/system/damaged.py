"""What reading a damaged or a hostile file can raise, besides `OSError`."""

import zipfile
import zlib

DAMAGED = (
    *(ValueError, LookupError, TypeError, AttributeError, ArithmeticError, EOFError),
    *(RecursionError, MemoryError, NotImplementedError, AssertionError, SyntaxError),
    *(zipfile.BadZipFile, zlib.error),
)
"""JSON nested too deep ends in `RecursionError`, an array of absurd size in `MemoryError`, a number in `OverflowError`."""
