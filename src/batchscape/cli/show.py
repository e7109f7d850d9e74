"""What commands print."""

import sys


def verdicts(folders: list[str] | tuple[str, ...], ids: list[str] | None = None) -> list:
    """What the tables in some folders say of statements."""
    from batchscape.judge import claims as register
    from batchscape.tables import Tables

    return register.verdicts_of((frame for folder in folders for frame in Tables.load(folder).frames.values()), ids)


def print_tables(found, tables, figures) -> None:
    """Keep the tables of a study, say what they say of statements, and draw them."""
    from batchscape.draw import gallery
    from batchscape.judge import claims as register

    written = found.save(tables)
    print_verdicts(register.verdicts_of(found.frames.values()))
    for file in gallery.draw_all(written, figures).values():
        print(file)


def print_runs(frame) -> None:
    """One line for each batch size and rate: how many runs ended how, and means over seeds."""
    from batchscape.sweep.results import summarise

    print(summarise(frame).to_string(index=False))


def print_verdicts(verdicts) -> None:
    """Verdicts, one table for each data set and budget."""
    from rich import box, console, table

    for data in dict.fromkeys(verdict.data for verdict in verdicts):
        shown = table.Table("id", "statement", "verdict", "evidence (95 % interval)", box=box.SIMPLE)
        for item in (verdict for verdict in verdicts if verdict.data == data):
            shown.add_row(item.claim.id, item.claim.statement, item.word, "\n".join(item.lines))
        console.Console(width=None if sys.stdout.isatty() else 160).print(shown)
        print(f"({data})")
