"""The loss between the minima that two batch sizes found: lines over the paired runs of a store."""

import dataclasses
import os
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from batchscape import progress
from batchscape.config import Cell
from batchscape.errors import InvalidInput
from batchscape.minima.line import interpolate
from batchscape.minima.objective import objective_of
from batchscape.record import Record, Status
from batchscape.sweep.sources import Sources
from batchscape.sweep.store import Store


def pair_runs(
    store: Store,
    batch_a: int | str,
    batch_b: int | str,
    *,
    learning_rate: float | None = None,
    sources: Sources | None = None,
) -> list[tuple[Record, Record]]:
    """Complete runs that differ in their batch size alone, seeds paired.

    Args:
        store: The store.
        batch_a, batch_b: Batch sizes as the cells name them, int or `"full"`.
        learning_rate: Keep runs at this rate; needed where the store holds several.
        sources: Keep runs of this model and these data, where the store holds several versions of them.

    Raises:
        InvalidInput: If there is no pair, or pairs of more than one kind.
    """
    if batch_a == batch_b:
        raise InvalidInput(f"A line needs two batch sizes. Received: {batch_a} and {batch_b}")
    groups: dict[Cell, dict[int | str, Record]] = {}
    others = None
    for record in store.records():
        usable = record.status is Status.COMPLETE and record.final.get("reached") is not False
        if usable and learning_rate in (None, record.facts["learning_rate"]):
            if sources is not None and not sources.made(record, store):
                others = record
                continue
            alike = dataclasses.replace(record.cell, batch_size=1)
            groups.setdefault(alike, {})[record.cell.batch_size] = record
    pairs = [(group[batch_a], group[batch_b]) for group in groups.values() if batch_a in group and batch_b in group]
    kinds = {dataclasses.replace(first.cell, seed=0) for first, _ in pairs}
    if not pairs and others is not None:
        sources.check_run(others, store)
    if not pairs:
        found = sorted({str(batch) for group in groups.values() for batch in group}, key=lambda text: (len(text), text))
        raise InvalidInput(
            f"{store.path} must hold complete runs of both batch sizes with the same seed and all else equal. "
            f"Received: {batch_a} and {batch_b}; batch sizes there: {', '.join(found) or 'none'}"
        )
    if len(kinds) > 1:
        listed = "; ".join(f"{cell.model} on {cell.dataset} at η = {cell.learning_rate}" for cell in kinds)
        raise InvalidInput(
            f"Runs must be of one kind; choose a learning rate, or use another store. Received: {listed}"
        )
    return sorted(pairs, key=lambda pair: pair[0].cell.seed)


def lines_between(
    store: str | os.PathLike | Store,
    batch_a: int | str,
    batch_b: int | str,
    *,
    learning_rate: float | None = None,
    points: int = 61,
    build: Callable | None = None,
    data: Any = None,
    show_progress: bool = True,
) -> pd.DataFrame:
    """Loss and accuracy, on training and test data, along the lines from one batch size's minima to another's.

    Args:
        store: A folder, or a `Store`.
        batch_a, batch_b, learning_rate: See `pair_runs`; `batch_a` is at α = 0.
        points: Points on each line, α evenly from −1 to 2.
        build, data: What the sweep was given in place of the names in its cells.
        show_progress: Whether to show progress.

    Returns:
        One row a point: `seed`, `split`, `batch_a`, `batch_b`, `alpha`, `loss`, `accuracy`, and the `barrier` of its line.

    Raises:
        InvalidInput: If there is no pair, or the model or the data are not those of the runs.
    """
    store = Store.of(store).require()
    sources = Sources(build, data)
    pairs = pair_runs(store, batch_a, batch_b, learning_rate=learning_rate, sources=sources)
    cell = pairs[0][0].cell
    source = sources.local(cell)
    model, examples = source.build_model(cell.precision), source.load()
    objectives = {split: objective_of(model, examples, split, loss=cell.loss) for split in ("train", "test")}
    found = []
    with progress.report("lines", len(pairs) * len(objectives), show=show_progress) as advance:
        for first, second in pairs:
            ends = first.weights["final"], second.weights["final"]
            for split, f in objectives.items():
                line = interpolate(f, *ends, np.linspace(-1, 2, points))
                names = {"batch_a": first.facts["batch"], "batch_b": second.facts["batch"]}
                values = {"alpha": line.alphas, "loss": line.loss, "accuracy": line.accuracy, "barrier": line.barrier}
                found.append(pd.DataFrame({"seed": first.cell.seed, "split": split, **names, **values}))
                advance()
    return pd.concat(found, ignore_index=True)


def draw_lines(lines: pd.DataFrame, folder: str | os.PathLike, *, store: Store) -> pathlib.Path:
    """Draw lines as `lines_between` gives them; returns the PNG file."""
    from batchscape.draw import lines as drawing
    from batchscape.draw import style

    first, n = lines.iloc[0], int(lines["seed"].nunique())
    with style.paper():
        figure = drawing.interpolation(lines, **drawing.ends_of(lines))
    caption = style.Caption(
        finding=summarise_barriers(lines),
        shows=drawing.SHOWS,
        basis=f"Runs of {store.path.name}, n = {n} paired seeds.",
    )
    name = f"line_{first['batch_a']}_{first['batch_b']}"
    return style.save_figure(figure, name, folder, caption=caption, about={"n": n})["png"]


def summarise_barriers(lines: pd.DataFrame) -> str:
    """The heights of the barriers between the two minima, in one line."""
    heights = lines.groupby(["split", "seed"], sort=False)["barrier"].first().groupby("split", sort=False)
    parts = [f"{split} {group.mean():.3g} ({group.min():.3g} to {group.max():.3g})" for split, group in heights]
    first = lines.iloc[0]
    return f"Loss barrier between B = {first['batch_a']} and B = {first['batch_b']}, mean (range): {', '.join(parts)}."
