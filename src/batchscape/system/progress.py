"""How far a long job is: a bar on a terminal, one line updated in place in Jupyter, plain lines elsewhere."""

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import Protocol

SECONDS_BETWEEN_LINES = 10.0


class Advance(Protocol):
    """Reports that a share of the work is done."""

    def __call__(self, amount: float = 1.0, note: str = "") -> None:
        """Add `amount` to what is done, and show a note."""


@contextlib.contextmanager
def report(description: str, total: float, *, show: bool = True) -> Iterator[Advance]:
    """Show the progress of a job.

    Args:
        description: What is being done, one or two words.
        total: Amount of work, in any unit.
        show: False for silence.

    Yields:
        A function (amount, note) to call when some of the work is done.
    """
    if not show or total <= 0:
        yield lambda amount=1.0, note="": None
    elif _in_jupyter():
        yield from _lines(description, total, lambda text: print(f"\r{text:<100}", end="", flush=True), every=0.3)
        print()
    elif sys.stderr.isatty():
        yield from _bar(description, total)
    else:
        yield from _lines(description, total, lambda text: print(text, file=sys.stderr), every=SECONDS_BETWEEN_LINES)


def _in_jupyter() -> bool:
    """Whether this runs in a kernel; rich's live display would ask for ipywidgets there."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell is not None and hasattr(shell, "kernel")


def _bar(description: str, total: float) -> Iterator[Advance]:
    from rich import console, progress

    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.TaskProgressColumn(),
        progress.TimeElapsedColumn(),
        progress.TextColumn("left"),
        progress.TimeRemainingColumn(),
        progress.TextColumn("{task.fields[note]}"),
    )
    with progress.Progress(*columns, console=console.Console(stderr=True)) as bar:
        task = bar.add_task(description, total=total, note="")
        yield lambda amount=1.0, note="": bar.update(task, advance=amount, note=note)


def _lines(description: str, total: float, write, *, every: float) -> Iterator[Advance]:
    begin = last = time.monotonic()
    done = 0.0

    def advance(amount: float = 1.0, note: str = "") -> None:
        nonlocal done, last
        done += amount
        now = time.monotonic()
        if now - last >= every or done >= total:
            last = now
            left = (now - begin) * (total / done - 1) if done else float("inf")
            write(f"{description}: {done / total:4.0%}, {_clock(now - begin)} elapsed, {_clock(left)} left  {note}")

    yield advance


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(min(seconds, 359_999)), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
