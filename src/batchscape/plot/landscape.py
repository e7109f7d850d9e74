"""Planes and lines of the loss as files: a picture, its caption, and a surface to turn in a browser."""

import os
import pathlib
from typing import Any

import numpy as np
import pandas as pd

from batchscape.plot import lines as drawing
from batchscape.plot import style, surface, surface_page


def draw_plane(plane: Any, name: str, folder: str | os.PathLike, *, basis: str) -> list[pathlib.Path]:
    """Draw a plane as contours and as a surface to turn in a browser, and save it.

    Args:
        plane: A `Plane`.
        name: File name without ending.
        folder: Where to write; a relative folder starts from the project (or `BATCHSCAPE_HOME`).
        basis: Data, model and n, for the caption.

    Returns:
        The PNG, the HTML and the `.npz` file.
    """
    with style.paper():
        figure = surface.contours(plane)
    losses = plane.loss[np.isfinite(plane.loss)]
    caption = style.Caption(
        finding=f"The training loss on this plane goes from {losses.min():.3g} to {losses.max():.3g}.",
        shows="Distances in the space of weights; a plane hides all that happens off it.",
        basis=basis,
    )
    image = style.save_figure(figure, name, folder, caption=caption, about=plane.about)["png"]
    page = surface_page.surface_html(plane, image.with_suffix(".html"))
    return [image, page, plane.save(image.with_suffix(".npz"))]


def draw_lines(lines: pd.DataFrame, folder: str | os.PathLike, *, basis: str) -> pathlib.Path:
    """Draw loss and accuracy along the lines between minima.

    Args:
        lines: One row a point, as `lines_between` and `line_of_files` give it.
        folder: Where to write; a relative folder starts from the project (or `BATCHSCAPE_HOME`).
        basis: Data and model, for the caption.

    Returns:
        The PNG file.
    """
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
    """The heights of the loss barriers between two kinds of minima, in one line; see `draw_lines`."""
    heights = lines.groupby(["split", "seed"], sort=False)["barrier"].first().groupby("split", sort=False)
    parts = [f"{split} {group.mean():.3g} ({group.min():.3g} to {group.max():.3g})" for split, group in heights]
    ends = drawing.ends_of(lines)
    return f"Loss barrier between {ends['start']} and {ends['end']}, mean (range): {', '.join(parts)}."
