"""The command line: parse, call, print. Heavy imports happen inside the commands, so that `--help` is quick."""

import logging
import sys

import typer

from batchscape.cli import cost, measure, records, train
from batchscape.cli.app import STUDIES, app
from batchscape.errors import BatchscapeError

__all__ = ["STUDIES", "app", "cost", "main", "measure", "records", "train"]

UsageError = typer.BadParameter.__base__
"""What Typer raises for options and commands that it does not know."""

INTERRUPTED = 130
"""Exit status after Ctrl-C, which Typer catches itself."""


ORDER = (
    "reproduce",
    "sweep",
    "results",
    "rates",
    "target",
    "noise",
    "landscape",
    "sharpness",
    "probe",
    "advise",
    "claims",
    "figures",
)
"""In which the help lists the commands."""

app.registered_commands.sort(key=lambda command: ORDER.index(command.callback.__name__))


def main() -> None:
    """Run the command line; bad input ends in one line and exit status 2."""
    log = logging.getLogger("batchscape")
    log.addHandler(logging.StreamHandler())
    log.setLevel(logging.INFO)
    try:
        status = app(sys.argv[1:] or ["--help"], standalone_mode=False)
    except (BatchscapeError, UsageError) as error:
        message = error.format_message() if isinstance(error, UsageError) else str(error)
        print(f"batchscape: {' '.join(message.split())}", file=sys.stderr)
        sys.exit(2)
    except typer.Abort:  # Older versions of Typer.
        status = INTERRUPTED
    if status == INTERRUPTED:
        print("batchscape: interrupted; finished runs are kept, the same command goes on from here", file=sys.stderr)
    sys.exit(status if isinstance(status, int) else 0)
