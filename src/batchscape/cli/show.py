"""What commands print."""

import dataclasses
from collections.abc import Mapping

from batchscape.system import atomic, paths


def require_writable(*folders) -> None:
    """Refuse folders that cannot be written, before the work whose tables and figures they are to hold; None is none."""
    for folder in folders:
        if folder is not None:
            atomic.require_writable(paths.resolve(folder) / "about.json")


def print_runs(frame) -> None:
    """One line for each batch size and rate: how many runs ended how, and means over seeds."""
    from batchscape.sweep.frames import summarise

    print(summarise(frame).to_string(index=False))


def print_missing(missing: Mapping, n_cells: int, store: str) -> None:
    """One line for each cell that a store has no result of, and how many they are."""
    print(f"{len(missing)} of {n_cells} runs are missing in {store}.")
    for cell, name in missing.items():
        print(f"{name}  {_described(cell)}")


def print_failures(records) -> None:
    """The cell, the reason and the traceback of each run that failed."""
    failed = [record for record in records if record.status == "FAILED"]
    for record in failed:
        print(f"{record.hash}  {_described(record.cell)}\n{record.reason}")
        print(f"{record.traceback}\n" if record.traceback else "")
    if not failed:
        print("No run failed.")


def _described(cell) -> str:
    """The fields of a cell that are not at their defaults, its data, model, batch size and seed."""
    always = ("dataset", "model", "batch_size", "seed")
    fields = {field.name: (getattr(cell, field.name), field.default) for field in dataclasses.fields(cell)}
    shown = {name: value for name, (value, default) in fields.items() if name in always or value != default}
    return ", ".join(f"{name}={value!r}" for name, value in shown.items())
