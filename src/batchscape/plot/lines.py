"""Figures of the loss along lines between minima."""

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from batchscape.plot import style

SHOWS = "a: loss and b: accuracy at (1 − α)·w(start) + α·w(end); faint lines are seeds, bold ones their median."
"""What `interpolation` shows, for captions."""


def ends_of(lines: pd.DataFrame) -> dict[str, str]:
    """Names of the two ends of some lines, `start` and `end`."""
    first = lines.iloc[0]
    names = [first[end] if isinstance(first[end], str) else f"B = {first[end]}" for end in ("batch_a", "batch_b")]
    return dict(zip(("start", "end"), names, strict=True))


def along_line(ax: Axes, lines: pd.DataFrame, quantity: str, *, label: str, log: bool = False) -> Axes:
    """A quantity along the line between paired minima: seeds as faint lines, their median as a bold one.

    Args:
        ax: Where to draw.
        lines: One row a point, with `split` ("train" or "test"), `seed`, `alpha` and the quantity.
        quantity: The column.
        label: Text of the axis, with its unit.
        log: Whether the axis is logarithmic.

    Returns:
        The axes.
    """
    for kind, (split, points) in zip(style.KINDS, lines.groupby("split", sort=False), strict=False):
        wide = points.pivot(index="alpha", columns="seed", values=quantity).replace([np.inf, -np.inf], np.nan)
        look = {key: kind[key] for key in ("color", "linestyle")}
        ax.plot(wide.index, wide, **{**look, "linestyle": "-"}, alpha=0.2, linewidth=0.6)
        ax.plot(wide.index, wide.median(axis=1), label=split, **look)
    for alpha in (0, 1):
        ax.axvline(alpha, color=style.GREY, linewidth=0.7, linestyle=":", zorder=0)
    if log:
        style.log_axis(ax.yaxis)
    ax.set_xlabel(r"position $\alpha$ on the line")
    ax.set_ylabel(label)
    return ax


def interpolation(lines: pd.DataFrame, *, start: str, end: str) -> Figure:
    """Two panels, loss and accuracy, along the line from one minimum (α = 0) to another (α = 1).

    Args:
        lines: See `along_line`, with `loss` and `accuracy`.
        start, end: Names of the two ends.
    """
    figure, axes = plt.subplots(1, 2, figsize=(style.PAGE, 2.6))
    along_line(axes[0], lines, "loss", label="loss [nats]", log=True)
    along_line(axes[1], lines, "accuracy", label="accuracy")
    for ax in axes:
        for alpha, name in ((0, start), (1, end)):
            ax.annotate(
                name,
                (alpha, 1),
                xycoords=("data", "axes fraction"),
                ha="center",
                va="bottom",
                fontsize=7,
                color=style.GREY,
            )
    style.letter_panels(axes)
    axes[0].legend(loc="lower right")
    return figure
