"""Our studies by name, and the main job from end to end: train, measure, judge, draw."""

import dataclasses
import os
import pathlib

from batchscape.study import gallery, judge, profiles
from batchscape.study.cost.run import run_cost_study
from batchscape.study.gradient.run import run_mnist_study, run_noise_study
from batchscape.study.main.profile import Profile
from batchscape.study.main.run import folder_of, run_study
from batchscape.study.minima.run import run_minima_study, run_replication
from batchscape.study.rates.run import run_rates_study
from batchscape.study.tables import Tables
from batchscape.study.target.run import run_target_study
from batchscape.sweep.store import Store
from batchscape.system import atomic, paths


@dataclasses.dataclass(frozen=True, repr=False)
class Reproduction:
    """The verdicts, figures and tables of the main job.

    Attributes:
        verdicts: The verdicts on the register.
        figures: PNG files, by name.
        tables: The folder with the tables behind both.
    """

    verdicts: list[judge.Verdict]
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
    profile = profiles.find("main", profile)
    out = paths.resolve(out or folder_of(profile))
    tables = run_study(profile, Store(out / "store"), executor=executor, workers=workers, show_progress=show_progress)
    folder = tables.save(out / "tables")
    found = judge.verdicts(tables.runs)
    atomic.write(out / "verdicts.csv", judge.to_table(found).to_csv(index=False))
    return Reproduction(found, gallery.draw_all(folder, out / "figures"), folder)


def run_study_of(
    study: str,
    profile: str,
    store: str | os.PathLike | Store,
    *,
    executor: str = "auto",
    workers: int | None = None,
    show_progress: bool = True,
) -> Tables:
    """Run a study by its name, or what is missing of it.

    Args:
        study: A key of `profiles.PROFILES`: `"main"`, `"gradient"`, ..., or `"replication"`.
        profile: The name of one of its profiles.
        store: A folder, or a `Store`; the study of costs keeps nothing there.
        executor, workers, show_progress: See `run_sweep`; the study of costs has processes of its own.

    Returns:
        Its `Tables`.
    """
    if study == "cost":
        return run_cost_study(profile, show_progress=show_progress)
    run = run_mnist_study if (study, profile) == ("gradient", "mnist") else RUNS[study]
    return run(profile, store, executor=executor, workers=workers, show_progress=show_progress)


RUNS = {
    "main": run_study,
    "gradient": run_noise_study,
    "minima": run_minima_study,
    "replication": run_replication,
    "rates": run_rates_study,
    "target": run_target_study,
}
"""What runs each study that trains."""
