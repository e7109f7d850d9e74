"""The command line: parse, call, print. Heavy imports happen inside the commands, so that `--help` is quick."""

import contextlib
import logging
import signal
import sys
from collections.abc import Iterator

import typer

from batchscape import __version__
from batchscape.backend.importing import open_standard_streams
from batchscape.cli import cost, measure, output, study, train
from batchscape.cli.app import app
from batchscape.errors import BatchscapeError

__all__ = ["app", "cost", "main", "measure", "study", "train"]

UsageError = typer.BadParameter.__base__
"""What Typer raises for options and commands that it does not know."""

INTERRUPTED, TERMINATED = 130, 143
"""Exit status after Ctrl-C, which Typer catches itself, and after SIGTERM."""


ORDER = (
    *("sweep", "results", "missing", "landscape", "sharpness", "noise", "rates", "target", "probe", "advise"),
    *("reproduce", "study", "claims", "figures"),
)
"""In which the help lists the commands."""

app.registered_commands.sort(key=lambda command: ORDER.index(command.callback.__name__))


def main() -> None:
    """Run the command line. Bad input, Ctrl-C and SIGTERM end in one line, with exit status 2, 130 and 143."""
    open_standard_streams()
    terminated = _interrupt_once()
    if sys.argv[1:] == ["--version"]:
        print(f"batchscape {__version__}")
        return
    try:
        with _log_on_standard_error(), output.checked():
            status = app(sys.argv[1:] or ["--help"], standalone_mode=False)
    except (BatchscapeError, UsageError) as error:
        message = error.format_message() if isinstance(error, UsageError) else str(error)
        print(f"batchscape: {' '.join(message.split())}", file=sys.stderr)
        sys.exit(2)
    except typer.Abort:  # Older versions of Typer.
        status = INTERRUPTED
    if status == INTERRUPTED:
        how = "terminated" if terminated else "interrupted"
        print(f"batchscape: {how}; finished runs are kept, the same command goes on from here", file=sys.stderr)
        status = TERMINATED if terminated else INTERRUPTED
    sys.exit(status if isinstance(status, int) else 0)


@contextlib.contextmanager
def _log_on_standard_error() -> Iterator[None]:
    """Print what batchscape logs, from the level of information on."""
    log, handler = logging.getLogger("batchscape"), logging.StreamHandler()
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)


def _interrupt_once() -> list[int]:
    """Let SIGTERM and the first Ctrl-C end the command; returns a list that holds SIGTERM once it has come."""
    came: list[int] = []

    def interrupt(number: int, _: object) -> None:
        if number == signal.SIGTERM:
            came.append(number)
        for one in listened:
            signal.signal(one, signal.SIG_IGN)  # A second one must not disturb the tidying up.
        raise KeyboardInterrupt

    listened = [one for one in (signal.SIGTERM, signal.SIGINT) if signal.getsignal(one) is not signal.SIG_IGN]
    with contextlib.suppress(ValueError):  # Only the main thread may.
        for one in listened:
            signal.signal(one, interrupt)
    return came
