"""The record of one training run: its curves, final metrics, facts and weights."""

import dataclasses
import enum
import functools
import hashlib
import platform
import sys
from collections.abc import Mapping
from importlib import metadata
from typing import Any

import numpy as np

from batchscape import backend
from batchscape.config import Cell
from batchscape.system import cores, html

SCHEMA_VERSION = 2
"""Version of the records on disk; raised when their meaning changes."""

Weights = list[np.ndarray]
"""What `model.get_weights()` returns."""


class Status(enum.StrEnum):
    """How a run ended."""

    COMPLETE = "COMPLETE"
    DIVERGED = "DIVERGED"
    FAILED = "FAILED"


@dataclasses.dataclass(frozen=True, repr=False)
class Record:
    """The record of one training run: configuration, learning curves, final metrics and weights.

    Attributes:
        cell: What was run.
        hash: Name of the run: a digest of the cell, the data and the model.
        status: `COMPLETE`; `DIVERGED` when a loss became NaN or infinite (a result too); `FAILED` when the run raised.
        reason: Why a run diverged or failed, else "".
        curves: One column a quantity, one value an evaluation, at fixed weights: `epoch`, `updates`, `examples`,
            `seconds` (of training alone, compilation excluded), `train_loss`, `val_loss`, `test_loss` and the metrics
            likewise, `distance` ‖w − w₀‖₂, `path_length` Σ‖w_{t+1} − w_t‖₂, `weight_norm` ‖w‖₂, `learning_rate`.
        final: The same quantities where the run ended (with `until_loss`, at the first crossing), `reached` (whether the
            loss target was reached, None without one), and `best_val_loss` with its epoch.
        facts: What was found out on the way: batch size in examples, engine, XLA, parameters, compile seconds, ...; with
            `mixed_float16` also `skipped_updates` and `skipped_share`: steps at which a gradient overflowed, so that the
            optimizer made no update. They count for the budget, `epoch` and `examples`, and not for `updates`.
        environment: Versions, processor and threads.
        traceback: Where a run failed: the frames of the user's code, else "".
        weights: Stages (`"initial"`, `"final"`, and with `until_loss` `"after_1"` to `"after_3"`) to weights.
    """

    cell: Cell
    hash: str
    status: Status
    reason: str = ""
    curves: Mapping[str, list[float]] = dataclasses.field(default_factory=dict)
    final: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    environment: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    traceback: str = ""
    weights: Mapping[str, Weights] = dataclasses.field(default_factory=dict)

    def __repr__(self) -> str:
        kind, amount = self.cell.budget
        name = f"{self.cell.model} on {self.cell.dataset}, batch {self.cell.batch_size}, seed {self.cell.seed}"
        if self.status is not Status.COMPLETE:
            return f"Record({name}: {self.status}, {self.reason})"
        losses = {key: self.final.get(key) for key in ("train_loss", "val_loss")}  # None where it was no number.
        ended = " ".join(f"{key} {loss:.4g}" for key, loss in losses.items() if loss is not None)
        return f"Record({name}: {kind} {amount:g}, {self.final['updates']} updates, {ended})"

    def _repr_html_(self) -> str:
        rows = {"status": self.status, **self.facts, **self.final}
        return html.table({name: _short(value) for name, value in rows.items()}, repr(self))


def run_hash(cell: Cell, data_sha256: str, model_fingerprint: str, on: str | None = None) -> str:
    """The name of a run, 16 hexadecimal digits: the same for the same cell, data, model, schema and backend (`on`)."""
    named = "\n".join((str(SCHEMA_VERSION), cell.to_json(), data_sha256, model_fingerprint))
    on = on or backend.name()
    if on != "tensorflow":  # Its random numbers are others: the same seed gives another start.
        named += f"\n{on}"
    return hashlib.sha256(named.encode()).hexdigest()[:16]


def _short(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)


@functools.cache
def environment() -> dict[str, Any]:
    """Versions, device, processor and threads of this process."""
    packages = (backend.name(), "keras", "numpy", "batchscape")
    return {
        "python": platform.python_version(),
        **{package: metadata.version(package) for package in packages},
        "device": backend.device(),
        "platform": f"{sys.platform} {platform.machine()}",
        "cores": cores.cores(),
        "threads": cores.threads(),
    }
