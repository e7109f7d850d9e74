"""Figures of the learning rate: every batch size at every rate, and rates that follow the batch size."""

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from batchscape.draw import style

POLICIES = {
    "fixed": {"color": style.BLUE, "linestyle": "-", "marker": "o", "label": r"fixed $\eta$"},
    "sqrt": {"color": style.GREY, "linestyle": ":", "marker": "D", "label": r"$\eta \propto \sqrt{B}$"},
    "linear": {"color": style.VERMILLION, "linestyle": "--", "marker": "s", "label": r"$\eta \propto B$"},
    "tuned": {"color": style.GREEN, "linestyle": "-.", "marker": "^", "label": r"tuned $\eta$"},
}
"""How each policy is drawn."""

VALIDATION = "smallest validation loss [nats]"


def policies(rates: pd.DataFrame, chosen: pd.DataFrame) -> Figure:
    """Four panels: loss against the rate at each batch size, loss against batch size by policy, best rate against batch size.

    Args:
        rates: One row a run; see `run_rates_study`.
        chosen: The table of `by_policy`.
    """
    figure, axes = plt.subplots(2, 2, figsize=(style.PAGE, 4.8))
    against_rate(axes[0, 0], rates[rates["budget"] == "epochs"])
    by_batch_size(axes[0, 1], chosen[chosen["budget"] == "epochs"])
    by_batch_size(axes[1, 0], chosen[chosen["budget"] == "updates"])
    best_rate(axes[1, 1], chosen)
    for ax, budget in ((axes[0, 1], "epochs"), (axes[1, 0], "updates")):
        ax.annotate(f"equal {budget}", (0.98, 0.97), xycoords="axes fraction", ha="right", va="top", fontsize=7)
    bottom, top = zip(*(ax.get_ylim() for ax in (axes[0, 1], axes[1, 0])), strict=True)
    for ax in (axes[0, 1], axes[1, 0]):
        ax.set_ylim(min(bottom), max(top))
    style.letter_panels(axes.ravel())
    return figure


def against_rate(ax: Axes, rates: pd.DataFrame, quantity: str = "best_val_loss", *, label: str = VALIDATION) -> Axes:
    """A loss against the learning rate, one curve a batch size; rates at which a seed diverged are left out."""
    batches = sorted(rates["batch"].unique())
    shades = mpl.colormaps["viridis"](np.linspace(0, 0.85, len(batches)))
    for batch, color in zip(batches, shades, strict=True):
        wide = rates[(rates["batch"] == batch)].pivot(index="seed", columns="learning_rate", values=quantity)
        diverged = rates[(rates["batch"] == batch) & (rates["status"] == "DIVERGED")]["learning_rate"].unique()
        logs = np.log(wide.drop(columns=diverged))
        ax.plot(logs.columns, np.exp(logs.mean()), color=color, marker=".", markersize=4, label=f"$B$ = {batch}")
    style.log_axis(ax.xaxis)
    style.log_axis(ax.yaxis)
    ax.set_xlabel(r"learning rate $\eta$")
    ax.set_ylabel(label)
    ax.legend(fontsize=6, ncols=2)
    return ax


def by_batch_size(ax: Axes, chosen: pd.DataFrame, quantity: str = "best_val_loss", *, label: str = VALIDATION) -> Axes:
    """A loss against batch size, one curve a policy: geometric means with 95 % bands, where no seed diverged."""
    for policy, look in POLICIES.items():
        rows = chosen[chosen["policy"] == policy]
        whole = rows.groupby("batch")[quantity].transform(lambda values: np.isfinite(values).all())
        if whole.any():
            style.curve_with_band(ax, rows[whole], quantity, log=True, markersize=3, **look)
    style.log_axis(ax.yaxis)
    style.batch_axis(ax, sorted(chosen["batch"].unique()))
    ax.set_ylabel(label)
    ax.legend(fontsize=6, loc="upper left")
    return ax


def best_rate(ax: Axes, chosen: pd.DataFrame) -> Axes:
    """The tuned rate against batch size, one curve a budget; open markers where it is at the edge of the grid."""
    tuned = chosen[chosen["policy"] == "tuned"]
    for kind, (budget, rows) in zip(style.KINDS, tuned.groupby("budget"), strict=False):
        rates = np.exp(np.log(rows["learning_rate"]).groupby(rows["batch"]).mean())
        ax.plot(rates.index, rates, label=f"tuned, equal {budget}", **kind)
        at_edge = rates[rows.groupby("batch")["at_edge"].any()]
        ax.plot(at_edge.index, at_edge, linestyle="", marker="o", markersize=7, mfc="none", color=kind["color"])
    base = tuned["base_batch"].iloc[0]
    start = chosen[(chosen["policy"] == "fixed")]["learning_rate"].iloc[0]
    batches = np.array(sorted(tuned["batch"].unique()))
    for power, name in ((0.5, r"$\propto \sqrt{B}$"), (1.0, r"$\propto B$")):
        line = start * (batches / base) ** power
        ax.plot(batches, line, color=style.GREY, linestyle=":", linewidth=0.8)
        ax.annotate(name, (batches[-1], line[-1]), color=style.GREY, fontsize=7, ha="right", va="bottom")
    style.log_axis(ax.yaxis)
    style.batch_axis(ax, list(batches))
    ax.set_ylabel(r"best learning rate $\eta$")
    ax.legend(fontsize=6, loc="upper left")
    return ax
