"""The main job: sweep the batch size, measure the minima, judge the statements, draw the figures."""

import os
import pathlib
import tempfile

import numpy as np
import pandas as pd

from batchscape.landscape.curvature import measure_curvature
from batchscape.landscape.of_runs import lines_between
from batchscape.study import columns, profiles
from batchscape.study import judge as claims
from batchscape.study.main.profile import Profile
from batchscape.study.tables import Tables
from batchscape.sweep.frames import load_results
from batchscape.sweep.measure import measure_runs
from batchscape.sweep.run import run_sweep
from batchscape.sweep.store import Store
from batchscape.system import paths
from batchscape.train.record import environment

CURVE_POINTS = 48
"""Evaluations of a run that its curve keeps in the tables, evenly spaced in the logarithm of the updates."""

CURVE_COLUMNS = ("hash", "epoch", "updates", "train_loss", "val_loss", "test_accuracy", "distance")


def folder_of(profile: str | Profile) -> pathlib.Path:
    """Return the folder of a profile: `runs/<profile>` in the project.

    The smoke profile has a temporary folder: `BATCHSCAPE_SMOKE`, so that processes may share it, else one of this process.
    """
    profile = profiles.find("main", profile)
    if profile.name == "smoke":
        here = pathlib.Path(tempfile.gettempdir()) / f"batchscape-smoke-{os.getpid()}"
        return pathlib.Path(os.environ.get("BATCHSCAPE_SMOKE", here))
    return paths.resolve(f"runs/{profile.name}")


def run_study(
    profile: str | Profile,
    store: str | os.PathLike | Store,
    *,
    executor: str = "auto",
    workers: int | None = None,
    show_progress: bool = True,
) -> Tables:
    """Train and measure the runs of the main job that the store does not hold yet.

    Args:
        profile: The name of a profile, or a `Profile`.
        store: A folder, or a `Store`.
        executor, workers, show_progress: See `run_sweep`.

    Returns:
        `Tables`: runs with their curvature, curves, and lines between minima.
    """
    profile = profiles.find("main", profile)
    store = Store.of(store)
    how = profiles.execution(profile, executor=executor, workers=workers, show_progress=show_progress)
    runs = run_sweep(profile.grid(), store=store, **how)
    curvature = measure_runs(store, runs["hash"], "curvature", measure_curvature, n_probes=profile.n_probes, **how)
    curves = load_results(store, curves=True)
    curves = curves[curves["hash"].isin(runs["hash"])]
    lines = lines_between(
        store,
        profile.batch_sizes[0],
        profile.batch_sizes[-1],
        learning_rate=profile.learning_rate,
        points=profile.n_alphas,
        show_progress=how["show_progress"],
    )
    frames = {
        "runs": columns.add_loss_after(runs.merge(curvature, on="hash", how="left"), curves),
        "curves": thin(curves)[list(CURVE_COLUMNS)],
        "lines": lines,
    }
    return Tables(frames, {"profile": profile.name, "description": claims.describe(runs), "environment": environment()})


def thin(curves: pd.DataFrame) -> pd.DataFrame:
    """At most `CURVE_POINTS` evaluations of each run, the first and the last among them."""
    kept = []
    for _, rows in curves.groupby("hash", sort=False):
        places = np.unique(np.geomspace(1, len(rows), min(CURVE_POINTS, len(rows))).round().astype(int) - 1)
        kept.append(rows.iloc[places])
    return pd.concat(kept)
