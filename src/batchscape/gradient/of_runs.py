"""The noise of the gradient along a run: at the weights it started from and at those it ended in."""

import math
import os
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import pandas as pd

from batchscape.data import Data
from batchscape.gradient.statistics import GradientStatistics, batch_gradients, gradient_statistics
from batchscape.landscape.objective import Objective, objective_of
from batchscape.models.fingerprint import revision
from batchscape.sweep.frames import load_complete
from batchscape.sweep.measure import measure_runs
from batchscape.sweep.store import Store
from batchscape.train.record import Record, Weights

STAGES = ("initial", "final")


@revision(1)  # Raise it when the numbers change: an estimator mended, another default.
def measure_noise(
    model: keras.Model,
    data: Data,
    loss: str | None = None,
    *,
    batch_sizes: Sequence[int] = (),
    n_batches: int = 100,
    start_of: float | None = None,
) -> Callable[[Record], dict[str, Any]]:
    """Make a function that measures the gradient noise of a run on its training data; for `measure_runs`.

    Args:
        model: The model of the runs.
        data: Their data; the training examples count.
        loss: The loss that their cells name.
        batch_sizes: Sizes of the random batches that are compared with the full gradient.
        n_batches: Batches of each size, with and without replacement.
        start_of: Measure the start of runs of this many epochs only; of all runs if None.

    Returns:
        A function from a `Record` to the numbers `simple`, `trace_cov` and `grad_sq_norm` at the end of the run,
        `simple_initial` at its start (NaN where it is left out), and `stages`: for each, the exact statistics and one
        dict a batch size and way of drawing.
    """
    f = objective_of(model, data, loss=loss)

    def measure(record: Record) -> dict[str, Any]:
        seed, wanted = record.cell.seed, STAGES if start_of in (None, record.cell.epochs) else ("final",)
        stages = {stage: _stage(f, record.weights[stage], batch_sizes, n_batches, seed) for stage in wanted}
        final = stages["final"]
        return {
            **{name: final[name] for name in ("simple", "trace_cov", "grad_sq_norm")},
            "simple_initial": stages["initial"]["simple"] if "initial" in stages else math.nan,
            "stages": stages,
        }

    return measure


def _stage(f: Objective, weights: Weights, batch_sizes: Sequence[int], n_batches: int, seed: int) -> dict[str, Any]:
    exact = gradient_statistics(f, weights)
    return {
        **{name: getattr(exact, name) for name in ("n", "simple", "trace_cov", "grad_sq_norm")},
        "batches": [
            _means(f, weights, exact, batch_size, n_batches=n_batches, replacement=replacement, seed=seed)
            for batch_size in batch_sizes
            for replacement in (False, True)
        ],
    }


def _means(
    f: Objective,
    weights: Weights,
    exact: GradientStatistics,
    batch_size: int,
    *,
    n_batches: int,
    replacement: bool,
    seed: int,
) -> dict[str, Any]:
    found = batch_gradients(
        f, weights, batch_size, n_batches=n_batches, replacement=replacement, seed=seed, statistics=exact
    )
    return {
        "batch": batch_size,
        "replacement": found.replacement,
        "relative_error": float(found.relative_errors.mean()),
        "expected_error": exact.relative_error(batch_size, replacement=found.replacement),
        "cosine": float(np.mean(found.cosines)),
        "angle": float(np.mean(found.angles)),
        "norm": float(found.norms.mean()),
        "competition": float(found.competition.mean()),
    }


def to_table(measured: Sequence[tuple[Record, dict[str, Any]]]) -> pd.DataFrame:
    """Measurements as one tidy frame, one row a run, stage, batch size and way of drawing; the start is epoch 0."""
    rows = []
    for record, result in measured:
        for stage, values in result["stages"].items():
            place = {"seed": record.cell.seed, "epoch": 0.0 if stage == "initial" else record.final["epoch"]}
            shared = {name: values[name] for name in ("n", "simple", "trace_cov", "grad_sq_norm")}
            rows += [{**place, **shared, **batch} for batch in values["batches"]]
    return pd.DataFrame(rows)


def noise_of_runs(
    store: str | os.PathLike | Store,
    *,
    build: Callable | None = None,
    data: Any = None,
    executor: str = "auto",
    workers: int | None = None,
    show_progress: bool = True,
) -> pd.DataFrame:
    """The exact gradient noise scale of every complete run of a store, at its first and at its last weights.

    Args:
        store: A folder, or a `Store`.
        build, data: What the sweep was given in place of the names in its cells.
        executor, workers, show_progress: See `run_sweep`.

    Returns:
        One row a run: `batch`, `learning_rate`, `seed`, `simple_initial`, and `simple`, `trace_cov`, `grad_sq_norm` at the
        end.
    """
    store = Store.of(store)
    runs = load_complete(store)
    measured = measure_runs(
        store,
        runs["hash"],
        "noise",
        measure_noise,
        build=build,
        data=data,
        executor=executor,
        workers=workers,
        show_progress=show_progress,
    )
    columns = ["batch", "learning_rate", "seed", "simple_initial", "simple", "trace_cov", "grad_sq_norm"]
    return runs.merge(measured, on="hash").sort_values(columns[:3]).reindex(columns=columns)
