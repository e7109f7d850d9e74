"""The command itself, and the options that commands share."""

from typing import Annotated

import typer

app = typer.Typer(
    name="batchscape",
    help="What does batch size do? Sweep it in Keras and measure the path, the minimum, the clock and the memory.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    epilog="Start with `batchscape reproduce`. Your own model: `--model module:function`.",
)

STUDIES = (
    "figures/data/digits",
    "figures/data/noise",
    "figures/data/mnist",
    "figures/data/definitions",
    "figures/data/minima",
    "figures/data/keskar-f1",
    "figures/data/keskar-c1",
    "figures/data/rates",
    "figures/data/rates-fashion",
    "figures/data/rates-cifar",
    "figures/data/rates-mnist",
    "figures/data/cost",
    "figures/data/target",
)
"""The committed tables."""

Folders = Annotated[
    list[str] | None, typer.Option(help="Folder with the tables of a study; the committed ones by default.")
]
Store = Annotated[str, typer.Option(help="Folder of the runs; a relative one starts from the project.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]
Workers = Annotated[int | None, typer.Option(help="Worker processes; one a core by default.")]
Tables = Annotated[str | None, typer.Option(help="With --study: folder for its tables.")]
Executor = Annotated[str, typer.Option(help="auto, serial or processes.")]
