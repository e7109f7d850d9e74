"""Commands that read records: `claims`, `figures`."""

from typing import Annotated

import typer

from batchscape import paths
from batchscape.cli import show
from batchscape.cli.app import STUDIES, Folders, app


@app.command(epilog="Example: `batchscape claims C42 --tables figures/data/digits`")
def claims(
    ids: Annotated[list[str] | None, typer.Argument(help="Statements, such as C42; all of them by default.")] = None,
    tables: Folders = None,
) -> None:
    """Print what the records say of the statements in the register."""
    show.print_verdicts(show.verdicts(tables or STUDIES, ids))


@app.command(epilog="Example: `batchscape figures`")
def figures(
    tables: Folders = None,
    out: Annotated[str, typer.Option(help="Folder for the figures.")] = "figures",
) -> None:
    """Draw the figures from the committed tables, and write the verdicts with all their evidence."""
    from batchscape.draw import gallery
    from batchscape.judge import claims as register

    folders = tables or STUDIES
    for folder in folders:
        for file in gallery.draw_all(folder, out).values():
            print(file)
    file = paths.make(out) / "verdicts.md"
    file.write_text(f"# Verdicts\n\n{register.to_markdown(show.verdicts(folders))}\n", encoding="utf-8")
    print(file)
