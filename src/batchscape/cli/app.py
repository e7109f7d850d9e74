"""The command itself, and the options that commands share."""

from typing import Annotated

import typer

app = typer.Typer(
    name="batchscape",
    help="What does batch size do? Sweep it in Keras and measure the path, the minimum, the clock and the memory.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    epilog="Start with `batchscape reproduce`. Your own model: `--model module:function`, or `--model net.keras`.",
)

Store = Annotated[str, typer.Option(help="Folder of the runs; a relative one starts from the project.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]
Workers = Annotated[int | None, typer.Option(help="Worker processes; one a core by default.")]
Fresh = Annotated[
    bool, typer.Option("--fresh", help="Begin a model of a file from new initial weights, drawn by the seed.")
]
Imports = Annotated[
    list[str] | None,
    typer.Option("--import", help="Module that registers layers of a model's file; may be given several times."),
]
Executor = Annotated[str, typer.Option(help="auto, serial or processes.")]
