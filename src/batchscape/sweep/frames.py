"""Records as tidy pandas frames."""

import dataclasses
import logging
import os
from collections.abc import Iterable
from typing import Any

import pandas as pd

from batchscape.config import BUDGETS, Cell
from batchscape.errors import InvalidInput
from batchscape.sweep.store import Store
from batchscape.train.record import Record, Status

_log = logging.getLogger("batchscape")

FACTS = (
    "batch",
    "n_train",
    "updates_per_epoch",
    "engine",
    "jit",
    "n_parameters",
    "compile_seconds",
    "seconds_per_update",
)
"""Facts of a record that become columns, next to the cell and the final quantities."""


def load_results(store: str | os.PathLike | Store, *, curves: bool = False) -> pd.DataFrame:
    """Load the runs of a store as one pandas frame, one row a run.

    Args:
        store: The folder, or a `Store`.
        curves: One row an evaluation instead of one row a run.

    Returns:
        A frame with the fields of `Cell`, `hash`, `status`, `reason`, `batch` (examples per update, a number also for
        `"full"`) and the quantities of `Record.final` (or, with `curves`, of `Record.curves`). `learning_rate` is the
        rate after the policy; what the cell asked for is `base_learning_rate`. Diverged and failed runs are rows too.

    Raises:
        StoreError: If there is no such store, or another version of batchscape has written it. A record that cannot be
            read is named in a warning and left out.
    """
    store = Store.of(store)
    return to_frame(store.require().records(), curves=curves)


def load_complete(store: str | os.PathLike | Store) -> pd.DataFrame:
    """The runs of a store that can be measured: complete, and with their weights; the others are told in a warning.

    Args:
        store: The folder, or a `Store`.

    Returns:
        The frame of `load_results`, for these runs.

    Raises:
        InvalidInput: If there is none.
    """
    store = Store.of(store)
    runs = list(store.require().records(weights=True))
    complete = [record for record in runs if record.status is Status.COMPLETE]
    if not complete:
        raise InvalidInput(f"{store.path} must hold complete runs with their weights. Received: none")
    if len(complete) < len(runs):
        _log.warning("%d of %d runs are left out: they diverged or failed", len(runs) - len(complete), len(runs))
    return to_frame(complete)


def to_frame(records: Iterable[Record], *, curves: bool = False) -> pd.DataFrame:
    """Records as one tidy frame; see `load_results`."""
    rows = [row for record in records for row in (_curve_rows(record) if curves else [_row(record)])]
    return pd.DataFrame(rows)


def _describe(record: Record) -> dict[str, Any]:
    cell = {field.name: getattr(record.cell, field.name) for field in dataclasses.fields(Cell)}
    for kind in BUDGETS:
        del cell[kind]
    cell["budget"], cell["budget_amount"] = record.cell.budget
    cell["optimizer_options"] = " ".join(f"{name}={value}" for name, value in cell["optimizer_options"])
    cell["metrics"] = " ".join(cell["metrics"])
    cell["batch_steps"] = " ".join(f"{epoch}:{size}" for epoch, size in cell["batch_steps"])
    cell["decay_at"] = " ".join(f"{place:g}" for place in cell["decay_at"])
    cell["base_learning_rate"] = cell["learning_rate"]
    cell["learning_rate"] = record.facts.get("learning_rate")
    cell |= {name: record.facts[name] for name in ("optimizer", "loss") if name in record.facts}
    facts = {name: record.facts.get(name) for name in FACTS}
    facts["data_sha256"] = record.facts.get("data", {}).get("sha256")
    return {"hash": record.hash, "status": str(record.status), "reason": record.reason, **cell, **facts}


def _row(record: Record) -> dict[str, Any]:
    return {**record.final, **_describe(record)}


def _curve_rows(record: Record) -> list[dict[str, Any]]:
    described = _describe(record)
    points = zip(*record.curves.values(), strict=True)
    return [{**described, **dict(zip(record.curves, point, strict=True))} for point in points]


def summarise(frame: pd.DataFrame) -> pd.DataFrame:
    """One row a batch size and learning rate: how the runs ended, and means over seeds.

    Args:
        frame: One row a run, as `load_results` gives it.

    Returns:
        A frame with `runs`, what became of them, and the means of the final quantities of those that completed.
    """
    keys = [name for name in ("dataset", "model", "batch", "batch_size", "learning_rate") if frame[name].nunique() > 1]
    rows = []
    for key, runs in frame.groupby(keys or ["batch"], dropna=False):
        done = runs[runs["status"] == "COMPLETE"]
        row = dict(zip(keys or ["batch"], key, strict=True)) | {"runs": len(runs)}
        row |= {word.lower(): n for word in ("DIVERGED", "FAILED") if (n := int((runs["status"] == word).sum()))}
        if "reached" in done and done["reached"].notna().any():
            row["reached"] = int((done["reached"] == True).sum())  # noqa: E712 (the column also holds None)
        means = done[[name for name in SUMMARISED if name in done]].mean(numeric_only=True)
        rows.append(row | {name: float(f"{value:.4g}") for name, value in means.items()})
    summary = pd.DataFrame(rows)
    summary = summary.drop(columns=[name for name in ("batch_size",) if name in summary])
    return summary.astype({name: object for name in summary if summary[name].isna().any()}).fillna("")


SUMMARISED = ("epoch", "updates", "seconds", "train_loss", "val_loss", "test_loss", "val_accuracy", "test_accuracy")
