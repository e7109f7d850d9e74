"""The loss around and between minima: of the runs of a store, or of models that Keras saved."""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import pandas as pd

from batchscape import progress
from batchscape.config import Cell
from batchscape.data import load_dataset
from batchscape.errors import InvalidInput
from batchscape.minima.directions import random_directions
from batchscape.minima.line import interpolate
from batchscape.minima.objective import Objective, objective_of
from batchscape.minima.plane import Plane, evaluate_plane, plane_through
from batchscape.models import load_model
from batchscape.record import Record, Status, Weights
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


def plane_around(
    store: str | os.PathLike | Store,
    batch: int | str,
    *,
    learning_rate: float | None = None,
    points: int = 25,
    build: Callable | None = None,
    data: Any = None,
    show_progress: bool = True,
) -> Plane:
    """The training loss on a plane of two filter-normalised random directions around a minimum.

    Args:
        store: A folder, or a `Store`.
        batch: Batch size as the cells name it; of its complete runs the one of the smallest seed is taken.
        learning_rate: Take a run at this rate.
        points: Points along each axis, from −1 to 1: a direction has the norm of the weights, unit by unit.
        build, data: What the sweep was given in place of the names in its cells.
        show_progress: Whether to show progress.

    Returns:
        A `Plane`.
    """
    store = Store.of(store).require()
    sources = Sources(build, data)
    found = [
        record
        for record in store.records()
        if record.status is Status.COMPLETE
        and record.cell.batch_size == batch
        and learning_rate in (None, record.facts["learning_rate"])
    ]
    if not found:
        raise InvalidInput(f"{store.path} must hold a complete run of that batch size and rate. Received: {batch}")
    record = min(found, key=lambda record: (record.cell.seed, record.hash))
    sources.check_run(record, store)
    source = sources.local(record.cell)
    f = objective_of(source.build_model(record.cell.precision), source.load(), loss=record.cell.loss)
    name = f"B = {record.facts['batch']}"
    return _plane_around(f, record.weights["final"], name, points, show_progress=show_progress)


def planes_of_files(
    files: Sequence[str | os.PathLike], data: Any, *, points: int = 25, show_progress: bool = True
) -> Plane:
    """The training loss around a model that Keras saved, or on the plane through three of them.

    Args:
        files: One or three `.keras` files of one architecture.
        data: Anything `load_dataset` takes.
        points: Points along an axis.
        show_progress: Whether to show progress.

    Returns:
        A `Plane`; through three models, of true distances, with moments of BatchNorm estimated anew at each point.
    """
    models = [load_model(file) for file in files]
    examples = load_dataset(data)
    if len(files) == 1:
        f = objective_of(models[0], examples)
        return _plane_around(f, f.weights, pathlib.Path(files[0]).stem, points, show_progress=show_progress)
    f = objective_of(models[0], examples, batch_norm="reestimate" if _has_batch_norm(models[0]) else "interpolate")
    solutions = {pathlib.Path(file).stem: model.get_weights() for file, model in zip(files, models, strict=True)}
    return plane_through(f, solutions, points=points, show_progress=show_progress)


def line_of_files(file_a: str | os.PathLike, file_b: str | os.PathLike, data: Any, *, points: int = 61) -> pd.DataFrame:
    """Loss and accuracy on the line from one model that Keras saved to another; the columns of `lines_between`.

    Args:
        file_a, file_b: `.keras` files of one architecture, at α = 0 and at α = 1.
        data: Anything `load_dataset` takes.
        points: Points on the line, α evenly from −1 to 2.
    """
    first, second = (load_model(file) for file in (file_a, file_b))
    examples, found = load_dataset(data), []
    for split in ("train", "test"):
        line = interpolate(
            objective_of(first, examples, split), first.get_weights(), second.get_weights(), np.linspace(-1, 2, points)
        )
        values = {"alpha": line.alphas, "loss": line.loss, "accuracy": line.accuracy, "barrier": line.barrier}
        names = {"batch_a": pathlib.Path(file_a).stem, "batch_b": pathlib.Path(file_b).stem}
        found.append(pd.DataFrame({"seed": 0, "split": split, **names, **values}))
    return pd.concat(found, ignore_index=True)


def _plane_around(f: Objective, weights: Weights, name: str, points: int, *, show_progress: bool) -> Plane:
    directions = random_directions(f, weights, 2, seed=0)
    side = np.linspace(-1, 1, points)
    about = {"normalize": "filter", "biases": False, "seed": 0}
    return evaluate_plane(
        f, weights, directions, side, side, marks={name: (0.0, 0.0)}, about=about, show_progress=show_progress
    )


def _has_batch_norm(model: keras.Model) -> bool:
    return any(isinstance(layer, keras.layers.BatchNormalization) for layer in model._flatten_layers())


def draw_plane(plane: Plane, name: str, folder: str | os.PathLike, *, basis: str) -> list[pathlib.Path]:
    """Draw a plane as contours, as a surface to turn in a browser, and keep it; returns the PNG, the HTML and the `.npz`."""
    from batchscape.draw import style, surface, surface_html

    with style.paper():
        figure = surface.contour(plane)
    ends = plane.loss[np.isfinite(plane.loss)]
    caption = style.Caption(
        finding=f"The training loss on this plane goes from {ends.min():.3g} to {ends.max():.3g}.",
        shows="Distances in the space of weights; a plane hides all that happens off it.",
        basis=basis,
    )
    image = style.save_figure(figure, name, folder, caption=caption, about=plane.about)["png"]
    page = surface_html.surface_html(plane, image.with_suffix(".html"))
    return [image, page, plane.save(image.with_suffix(".npz"))]


def draw_lines(lines: pd.DataFrame, folder: str | os.PathLike, *, basis: str) -> pathlib.Path:
    """Draw lines as `lines_between` gives them; returns the PNG file."""
    from batchscape.draw import lines as drawing
    from batchscape.draw import style

    first, n = lines.iloc[0], int(lines["seed"].nunique())
    with style.paper():
        figure = drawing.interpolation(lines, **drawing.ends_of(lines))
    caption = style.Caption(
        finding=summarise_barriers(lines),
        shows=drawing.SHOWS,
        basis=f"{basis}, n = {n} paired seeds.",
    )
    name = f"line_{first['batch_a']}_{first['batch_b']}"
    return style.save_figure(figure, name, folder, caption=caption, about={"n": n})["png"]


def summarise_barriers(lines: pd.DataFrame) -> str:
    """The heights of the barriers between the two minima, in one line."""
    from batchscape.draw.lines import ends_of

    heights = lines.groupby(["split", "seed"], sort=False)["barrier"].first().groupby("split", sort=False)
    parts = [f"{split} {group.mean():.3g} ({group.min():.3g} to {group.max():.3g})" for split, group in heights]
    ends = ends_of(lines)
    return f"Loss barrier between {ends['start']} and {ends['end']}, mean (range): {', '.join(parts)}."
