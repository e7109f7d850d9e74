"""Our own work: `reproduce`, `study`, `claims`, `figures`. The only command file that knows the study."""

import pathlib
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from batchscape.backend.importing import import_keras
from batchscape.cli import show
from batchscape.cli.app import Executor, Quiet, Workers, app
from batchscape.errors import InvalidInput, unknown_name
from batchscape.system import atomic, paths

Folders = Annotated[
    list[str] | None, typer.Option(help="Folder with the tables of a study; the committed ones by default.")
]


@app.command(epilog="Example: `batchscape reproduce --profile quick`")
def reproduce(
    profile: Annotated[str, typer.Option(help="smoke (seconds), quick (minutes) or paper (five minutes).")] = "quick",
    out: Annotated[
        str | None, typer.Option(help="Folder for runs, tables and figures; runs/PROFILE by default.")
    ] = None,
    tables: Annotated[str | None, typer.Option(help="Write the tables to this folder as well.")] = None,
    executor: Executor = "auto",
    workers: Workers = None,
    quiet: Quiet = False,
) -> None:
    """Run the main job: sweep the batch size on digits, measure the minima, judge the statements, draw the figures."""
    from batchscape.study import profiles

    profiles.find("main", profile)
    show.require_writable(out, tables)
    import_keras()
    from batchscape.study.main_job import reproduce as run
    from batchscape.study.tables import Tables

    done = run(profile, out=out, executor=executor, workers=workers, show_progress=not quiet)
    if tables:
        Tables.load(done.tables).save(tables)
    _print_verdicts(done.verdicts)
    for file in done.figures.values():
        print(file)


@app.command(epilog="Example: `batchscape study rates --profile quick`, or `batchscape study keskar-f1`")
def study(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="main, gradient, minima, rates, cost or target; or a published comparison: keskar-f1, keskar-c1.",
        ),
    ],
    profile: Annotated[
        str | None,
        typer.Option(
            help="smoke (seconds), quick (minutes; the default) or paper (hours); or mnist (gradient), fashion, cifar, "
            "mnist (rates), full (target)."
        ),
    ] = None,
    tables: Annotated[str | None, typer.Option(help="Folder for its tables.")] = None,
    executor: Executor = "auto",
    workers: Workers = None,
    quiet: Quiet = False,
) -> None:
    """Run one of our studies, or what is missing of it: train, measure, judge the statements, draw the figures."""
    from batchscape.study import profiles

    replications = profiles.PROFILES["replication"]
    names = [study for study in profiles.PROFILES if study != "replication"]
    if name not in names and name not in replications:
        raise unknown_name("study", name, (*names, *replications))
    if name in replications and profile is not None:
        raise InvalidInput(f"{name} has one size, without --profile. Received: --profile {profile}")
    if name == "cost" and (executor != "auto" or workers is not None):
        raise InvalidInput(
            "The study of costs times one process after the other, without --executor and --workers. "
            f"Received: --executor {executor}, --workers {workers}"
        )
    kind, profile = ("replication", name) if name in replications else (name, profile or "quick")
    profiles.find(kind, profile)
    show.require_writable(tables)
    import_keras()
    from batchscape.study import gallery, judge
    from batchscape.study.main_job import run_study_of

    store, its_tables, figures = _folders(kind, profile)
    done = run_study_of(kind, profile, store, executor=executor, workers=workers, show_progress=not quiet)
    written = done.save(tables or its_tables)
    _print_verdicts(judge.verdicts_of(done.frames.values()))
    for file in gallery.draw_all(written, figures).values():
        print(file)


@app.command(epilog="Example: `batchscape claims C42 --tables figures/data/digits`")
def claims(
    ids: Annotated[list[str] | None, typer.Argument(help="Statements, such as C42; all of them by default.")] = None,
    tables: Folders = None,
) -> None:
    """Print what the records say of the statements in the register."""
    from batchscape.study.tables import STUDIES

    _print_verdicts(_verdicts(tables or STUDIES, ids))


@app.command(epilog="Example: `batchscape figures`")
def figures(
    tables: Folders = None,
    out: Annotated[str, typer.Option(help="Folder for the figures.")] = "figures",
) -> None:
    """Draw the figures from the committed tables, and write the verdicts with all their evidence."""
    from batchscape.study import gallery, judge
    from batchscape.study.tables import ON_GPU, STUDIES

    folders = tables or STUDIES
    show.require_writable(out)
    for folder in [*folders, *([ON_GPU] if not tables and paths.resolve(ON_GPU).is_dir() else [])]:
        for file in gallery.draw_all(folder, out).values():
            print(file)
    file = paths.resolve(out) / "verdicts.md"
    atomic.write(file, f"# Verdicts\n\n{judge.to_markdown(_verdicts(folders))}\n")
    print(file)


def _folders(study: str, profile: str) -> tuple[pathlib.Path, pathlib.Path, pathlib.Path]:
    """The folders of a study for its store, its tables and its figures; the minima are those of the main job."""
    from batchscape.study import profiles
    from batchscape.study.main.run import folder_of

    if study == "replication":
        folder = paths.resolve(f"runs/{profile}")
        return folder, folder / "minima", folder / "figures"
    if study in ("main", "minima"):
        folder = folder_of(profile)
        return folder / "store", folder / {"main": "tables", "minima": "minima"}[study], folder / "figures"
    called = {"gradient": "noise"}.get(study, study)
    if profile in profiles.PROFILES["main"]:
        folder = folder_of(profile) / called
    else:
        folder = paths.resolve(
            "runs/mnist" if (study, profile) == ("gradient", "mnist") else f"runs/{called}-{profile}"
        )
    return folder, folder / "tables", folder / "figures"


def _verdicts(folders: Sequence[str], ids: Sequence[str] | None = None) -> list:
    """What the tables in some folders say of statements."""
    from batchscape.study import judge
    from batchscape.study.tables import Tables

    return judge.verdicts_of((frame for folder in folders for frame in Tables.load(folder).frames.values()), ids)


def _print_verdicts(verdicts) -> None:
    """Verdicts, one table for each data set and budget."""
    from rich import box, console, table

    for data in dict.fromkeys(verdict.data for verdict in verdicts):
        shown = table.Table("id", "statement", "verdict", "evidence (95 % interval)", box=box.SIMPLE)
        for item in (verdict for verdict in verdicts if verdict.data == data):
            shown.add_row(item.claim.id, item.claim.statement, item.word, "\n".join(item.lines))
        console.Console(width=None if sys.stdout.isatty() else 160).print(shown)
        print(f"({data})")
