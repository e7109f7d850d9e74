"""The main job: sweep the batch size, measure the minima, judge the statements, draw the figures."""

import dataclasses
import os
import pathlib
import tempfile

import numpy as np
import pandas as pd

from batchscape import paths, profiles
from batchscape.draw import gallery
from batchscape.judge import claims, strata
from batchscape.landscape import lines_between
from batchscape.minima.curvature import measure_curvature
from batchscape.profiles import Profile
from batchscape.record import environment
from batchscape.sweep.measure import measure_runs
from batchscape.sweep.results import load_results
from batchscape.sweep.run import run_sweep
from batchscape.sweep.store import Store
from batchscape.tables import Tables

CURVE_POINTS = 48
"""Evaluations of a run that its curve keeps in the tables, evenly spaced in the logarithm of the updates."""

CURVE_COLUMNS = ("hash", "epoch", "updates", "train_loss", "val_loss", "test_accuracy", "distance")


@dataclasses.dataclass(frozen=True, repr=False)
class Reproduction:
    """What the main job found.

    Attributes:
        verdicts: The verdicts on the register.
        figures: PNG files, by name.
        tables: The folder with the tables behind both.
    """

    verdicts: list[claims.Verdict]
    figures: dict[str, pathlib.Path]
    tables: pathlib.Path

    def __repr__(self) -> str:
        return "\n".join(map(repr, self.verdicts))


def reproduce(
    profile: str | Profile = "quick",
    *,
    out: str | os.PathLike | None = None,
    executor: str = "auto",
    workers: int | None = None,
    show_progress: bool = True,
) -> Reproduction:
    """Run the main job, or what is missing of it; a second call reads the store and takes seconds.

    Args:
        profile: `"smoke"`, `"quick"`, `"paper"`, or a `Profile` of your own.
        out: Folder for the store, the tables and the figures; `runs/<profile>` by default.
        executor, workers, show_progress: See `run_sweep`.

    Returns:
        A `Reproduction`; `verdicts.csv` and the figures stand in `out` too.
    """
    profile = profiles.find(profile)
    out = paths.resolve(out or folder_of(profile))
    tables = run_study(profile, Store(out / "store"), executor=executor, workers=workers, show_progress=show_progress)
    folder = tables.save(out / "tables")
    verdicts = claims.verdicts(tables.runs)
    claims.to_table(verdicts).to_csv(out / "verdicts.csv", index=False)
    return Reproduction(verdicts, gallery.draw_all(folder, out / "figures"), folder)


def folder_of(profile: str | Profile) -> pathlib.Path:
    """Where the main job keeps its runs: `runs/<profile>` in the project, a temporary folder for the smoke profile."""
    profile = profiles.find(profile)
    if profile.name == "smoke":
        return pathlib.Path(tempfile.gettempdir()) / f"batchscape-smoke-{os.getpid()}"
    return paths.resolve(f"runs/{profile.name}")


def run_study(profile: str | Profile, store: str | os.PathLike | Store, **how) -> Tables:
    """Train and measure all that a profile asks for and the store does not hold yet.

    Args:
        profile: The name of a profile, or a `Profile`.
        store: A folder, or a `Store`.
        **how: `executor`, `workers` and `show_progress`; see `run_sweep`.

    Returns:
        `Tables`: runs with their curvature, curves, and lines between minima.
    """
    profile = profiles.find(profile)
    store, how = Store.of(store), profiles.execution(profile, how)
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
        show_progress=how.get("show_progress", True),
    )
    frames = {
        "runs": strata.add_loss_after(runs.merge(curvature, on="hash", how="left"), curves),
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
