"""The study of the time to a target: which batch size is fastest to a good model, and which is best."""

import math
import os

import numpy as np
import pandas as pd

from batchscape.config import LR_POLICIES
from batchscape.cost.probe import probe_batch_sizes
from batchscape.data import Data, load_dataset
from batchscape.models.fingerprint import revision
from batchscape.stats.time_to_target import of_all_seeds, time_to_target
from batchscape.study import profiles
from batchscape.study.tables import Tables
from batchscape.study.target.profile import TargetProfile
from batchscape.sweep.frames import to_frame
from batchscape.sweep.measure import keep_table
from batchscape.sweep.run import run_sweep
from batchscape.sweep.store import Store
from batchscape.train.record import environment


def run_target_study(
    profile: str | TargetProfile,
    store: str | os.PathLike | Store,
    *,
    executor: str = "auto",
    workers: int | None = None,
    show_progress: bool = True,
) -> Tables:
    """Train every batch size at a rate that follows it in three ways, and say when each reached a validation accuracy.

    Args:
        profile: The name of a profile in `TARGET_PROFILES`, or a `TargetProfile`.
        store: A folder, or a `Store`.
        executor, workers, show_progress: See `run_sweep`.

    Returns:
        `Tables` with `arrivals`, one row a policy and run: what the target cost (see `time_to_target`; seconds are epochs
        times the seconds of an epoch in `costs`), the smallest validation error and its epoch, the test error there, the
        smallest and the last test error, and the batch sizes that suit the *other* seeds best: `fastest_elsewhere` and
        `best_elsewhere`. `accuracies` has one row an evaluation. `costs` has one row a batch size: milliseconds of an
        update, seconds of an epoch and, of a few, peak memory in bytes, with the line of memory for the others.
    """
    profile = profiles.find("target", profile)
    how = profiles.execution(profile, executor=executor, workers=workers, show_progress=show_progress)
    data = load_dataset(profile.dataset, train_size=profile.train_size)
    runs = run_sweep(profile.grid(), store=store, **how)
    curves = to_frame(map(Store.of(store).load, runs["hash"]), curves=True)
    costs = _costs(profile, data, runs, Store.of(store), how)
    found = time_to_target(curves, profile.target).merge(_best(curves), on="hash")
    found = found.merge(costs[["batch", "epoch_seconds", "memory"]], on="batch")
    for name in ("to_target", "watched"):
        found[f"seconds_{name}"] = found[f"epoch_{name}"] * found["epoch_seconds"]
    # A run on which policies agree is a row of each of them.
    by_policy = [_of_policy(found, policy, profile) for policy in LR_POLICIES]
    arrivals = pd.concat([_with_choices(rows) for rows in by_policy], ignore_index=True)
    about = {"dataset": profile.dataset, "model": profile.model, "n_train": data.n_train, "target": profile.target}
    arrivals = arrivals.drop(columns="hash").assign(**about, epochs=profile.epochs)
    description = f"{profile.dataset}, {profile.model}, N = {data.n_train}, SGD, {profile.epochs} epochs"
    kept = ["hash", "batch", "learning_rate", "seed", "epoch", "updates", "examples", "seconds"]
    accuracies = curves[[*kept, "train_loss", "val_accuracy", "test_accuracy"]]
    return Tables(
        {"arrivals": arrivals, "accuracies": accuracies, "costs": costs},
        {"profile": profile.name, "description": description, "environment": environment()},
    )


def _best(curves: pd.DataFrame) -> pd.DataFrame:
    """One row a run: its smallest errors and where they were, its last test error, and the updates of all epochs."""
    rows = []
    for name, run in curves.groupby("hash", sort=False):
        trained = run[run["epoch"] > 0].dropna(subset=["val_accuracy"])
        if trained.empty:
            trained = run
        best = trained.loc[trained["val_accuracy"].idxmax()]
        rows.append(
            {
                "hash": name,
                "updates": run["updates"].max(),
                "best_val_error": 1 - best["val_accuracy"],
                "best_epoch": best["epoch"],
                "test_error_at_best": 1 - best["test_accuracy"],
                "best_test_error": 1 - trained["test_accuracy"].max(),
                "final_test_error": 1 - trained["test_accuracy"].iloc[-1],
            }
        )
    return pd.DataFrame(rows)


def _of_policy(found: pd.DataFrame, policy: str, profile: TargetProfile) -> pd.DataFrame:
    rates = found["batch"].map(lambda batch: profile.rate(batch, policy))
    rows = found[np.isclose(found["learning_rate"], rates, rtol=1e-6)].assign(policy=policy)
    tried = [profile.is_tried(row.batch, policy, row.seed) for row in rows.itertuples()]
    return rows[tried]


def _with_choices(rows: pd.DataFrame) -> pd.DataFrame:
    """Beside each run the batch sizes that the other seeds choose, among those that all seeds have; 0 if none arrives."""
    complete = of_all_seeds(rows)
    chosen = []
    for seed in rows["seed"]:
        others = complete[complete["seed"] != seed] if rows["seed"].nunique() > 1 else complete
        fastest = others.groupby("batch")["seconds_to_target"].median()
        best = others.groupby("batch")["best_val_error"].mean()
        arrived = np.isfinite(fastest.min())
        chosen.append((int(fastest.idxmin()) if arrived else 0, int(best.idxmin())))
    fastest, best = zip(*chosen, strict=True)
    return rows.assign(fastest_elsewhere=fastest, best_elsewhere=best)


def _costs(profile: TargetProfile, data: Data, runs: pd.DataFrame, store: Store, how: dict) -> pd.DataFrame:
    """What a batch costs, measured once in a process that does nothing else, and kept; or as the runs have it."""
    if not profile.repeats:
        return _recorded_costs(runs)
    sizes = sorted(profile.batch_sizes + profile.other_sizes)

    @revision(1)  # Raise it when the numbers change: an estimator mended, another default.
    def measure() -> pd.DataFrame:
        found = probe_batch_sizes(
            profile.model,
            data,
            batch_sizes=sizes,
            repeats=profile.repeats,
            engine="fused",
            show_progress=how["show_progress"],
        )
        return found.measured.assign(memory=lambda table: found.memory(table["batch"].to_numpy()))

    options = {"sizes": sizes, "repeats": profile.repeats}
    return keep_table(store, runs["hash"].iloc[0], "costs", options, measure, revision=measure.revision)


def _recorded_costs(runs: pd.DataFrame) -> pd.DataFrame:
    """What the runs say an update costs; memory is not in their records."""
    ms = 1e3 * runs.groupby("batch")["seconds_per_update"].median()
    updates = runs.groupby("batch")["updates_per_epoch"].first()
    costs = {
        "batch": ms.index,
        "ms": ms.to_numpy(),
        "epoch_seconds": (updates * ms).to_numpy() / 1e3,
        "memory": math.nan,
    }
    return pd.DataFrame(costs)
