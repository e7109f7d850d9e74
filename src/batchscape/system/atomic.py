"""Files that are written whole or not at all: to a temporary name, flushed to the disk, then renamed."""

import contextlib
import errno
import os
import pathlib
import secrets
from collections.abc import Iterator

from batchscape.errors import StoreError
from batchscape.system.owner import Owner

TEMPORARY = ".tmp"
"""Ending of temporary files and folders: `NAME.OWNER.RANDOM.tmp`."""


def temporary_name(name: str) -> str:
    """A name for a temporary file of this process, used by nobody else."""
    return f"{name}.{Owner.me()}.{secrets.token_hex(4)}{TEMPORARY}"


@contextlib.contextmanager
def replacing(file: pathlib.Path) -> Iterator[pathlib.Path]:
    """A temporary path that takes the place of a file when the block ends, and vanishes when it raises.

    Args:
        file: The file; its folder is made if need be, and a file of that name is replaced.

    Yields:
        The path to write to, in the same folder.

    Raises:
        StoreError: If it cannot be written: a full disk, a folder without permission, ...

    Example:
        >>> with replacing(pathlib.Path(getfixture("tmp_path")) / "a.txt") as path:
        ...     _ = path.write_text("all of it")
        >>> (getfixture("tmp_path") / "a.txt").read_text()
        'all of it'
    """
    try:
        if file.exists() and not file.is_file():  # A device or a pipe, such as /dev/stdout, is written to as it is.
            yield file
            return
        file = file.resolve()  # A link stays a link.
    except OSError as error:
        raise StoreError(f"{file} cannot be written: {error.strerror or error}") from error
    temporary = file.with_name(temporary_name(file.name))
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _flush(temporary)
        os.replace(temporary, file)
        _flush(file.parent)
    except OSError as error:
        raise StoreError(f"{file} cannot be written: {error.strerror or error}") from error
    finally:  # Ctrl-C too can come in the middle of it.
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write(file: pathlib.Path, content: bytes | str) -> None:
    """Write a file, whole or not at all; text as UTF-8. See `replacing`."""
    with replacing(file) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def require_writable(file: pathlib.Path) -> None:
    """Refuse a file that cannot be written, before the work whose result it is to hold; nothing is made.

    Args:
        file: The file; its folder need not be there. For files whose names are not known yet, any name in their folder.

    Raises:
        StoreError: If it cannot be written.
    """
    if file.exists() and not file.is_file() and not file.is_dir():  # A device or a pipe.
        return
    probe = None
    try:
        if file.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        folder = next(parent for parent in file.absolute().parents if parent.exists())
        probe = folder / temporary_name("probe")
        probe.touch()
    except OSError as error:
        raise StoreError(f"{file} cannot be written: {error.strerror or error}") from error
    finally:
        if probe is not None:
            with contextlib.suppress(OSError):
                probe.unlink(missing_ok=True)


def _flush(path: pathlib.Path) -> None:
    """Make what was written, or a rename in a folder, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
