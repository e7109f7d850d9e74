"""Figures of the gradient: how true a mini-batch is, and how large its update."""

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from batchscape.plot import style
from batchscape.study import subjects

PANELS = {
    "relative_error": r"relative error $\|g_B - G\|^2 / \|G\|^2$",
    "cosine": r"cosine of $g_B$ with $G$",
    "angle": "angle between successive $g_B$ [°]",
    "norm": r"norm of the gradient $\|g_B\|$",
}

LOGARITHMIC = ("relative_error", "norm")


def against_batch_size(ax: Axes, noise: pd.DataFrame, quantity: str, *, label: str, log: bool = False) -> Axes:
    """A quantity of random batches against their size, one curve a place of training.

    Draws the mean over seeds with its 95 % interval (Student t), geometric where the axis is logarithmic, and, for the
    relative error and the cosine, the theory as a dotted line: B_simple / B and (1 + B_simple / B)^−½.

    Args:
        ax: Where to draw.
        noise: The noise table, of one way of drawing.
        quantity: The column.
        label: Text of the axis, with its unit.
        log: Whether the axis is logarithmic.

    Returns:
        The axes.
    """
    epochs = sorted(noise["epoch"].unique())
    colors = mpl.colormaps["viridis"](np.linspace(0, 0.85, len(epochs)))
    for epoch, color, marker in zip(epochs, colors, "os^Dv", strict=False):
        rows = noise[(noise["epoch"] == epoch) & (noise[quantity] > 0)]
        name = "start" if epoch == 0 else subjects.count_of(epoch)
        look = {"color": color, "marker": marker, "markersize": 2.5}
        batches = style.curve_with_band(ax, rows, quantity, log=log, label=name, **look)
        noise_share = np.exp(np.log(rows["simple"]).mean()) / np.array(batches)
        theory = {"relative_error": noise_share, "cosine": (1 + noise_share) ** -0.5}.get(quantity)
        if theory is not None:
            ax.plot(batches, theory, color=style.GREY, linestyle=":", linewidth=0.7, zorder=3)
    if log:
        style.log_axis(ax.yaxis)
    style.batch_axis(ax, sorted(noise["batch"].unique()))
    ax.set_ylabel(label)
    return ax


def gradients(noise: pd.DataFrame) -> Figure:
    """Four panels: relative error, cosine, angle between successive batches and norm, against batch size."""
    drawn = noise[noise["replacement"]]
    figure, axes = plt.subplots(2, 2, figsize=(style.PAGE, 4.4))
    for ax, (quantity, label) in zip(axes.ravel(), PANELS.items(), strict=True):
        against_batch_size(ax, drawn, quantity, label=label, log=quantity in LOGARITHMIC)
    style.letter_panels(axes.ravel())
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels))
    return figure
