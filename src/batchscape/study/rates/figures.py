"""Figures of the learning rate: every batch size at every rate, and rates that follow the batch size."""

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from batchscape.plot import style
from batchscape.stats.paired import mean_interval

POLICIES = {
    "fixed": {"color": style.BLUE, "linestyle": "-", "marker": "o", "label": r"fixed $\eta$"},
    "sqrt": {"color": style.GREY, "linestyle": ":", "marker": "D", "label": r"$\eta \propto \sqrt{B}$"},
    "linear": {"color": style.VERMILLION, "linestyle": "--", "marker": "s", "label": r"$\eta \propto B$"},
    "tuned": {"color": style.GREEN, "linestyle": "-.", "marker": "^", "label": r"tuned $\eta$"},
}
"""How each policy is drawn."""

TWINS = tuple(
    {"color": color, "linestyle": dash}
    for color, dash in ((style.BLUE, "-"), (style.VERMILLION, "--"), (style.GREEN, "-."), (style.GREY, ":"))
)
"""Looks of the runs of `growth_curves`."""

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
    axes[0, 0].set_xlabel(r"learning rate $\eta$, equal epochs")
    for ax, budget in ((axes[0, 1], "epochs"), (axes[1, 0], "updates")):
        ax.set_xlabel(f"batch size $B$ [examples], equal {budget}")
    bottom, top = zip(*(ax.get_ylim() for ax in (axes[0, 1], axes[1, 0])), strict=True)
    for ax in (axes[0, 1], axes[1, 0]):
        ax.set_ylim(min(bottom), max(top))
    style.letter_panels(axes.ravel())
    return figure


def gradual(warmups: pd.DataFrame, rules: pd.DataFrame) -> Figure:
    """Two panels: test accuracy with and without warm-up; training loss of each optimizer against batch size."""
    figure, axes = plt.subplots(1, 2, figsize=(style.PAGE, 2.8))
    with_and_without(axes[0], warmups)
    for kind, (rule, rows) in zip(style.KINDS, rules.groupby("rule"), strict=False):
        finite = rows[np.isfinite(rows["train_loss"])]
        style.curve_with_band(axes[1], finite, "train_loss", log=True, label=rule, **kind)
    style.log_axis(axes[1].yaxis)
    style.batch_axis(axes[1], sorted(rules["batch"].unique()))
    axes[1].set_ylabel("training loss at the end [nats]")
    axes[1].legend(fontsize=6)
    style.letter_panels(axes)
    return figure


def twins(curves: pd.DataFrame) -> Figure:
    """Two panels: validation loss along the runs of `growth_curves`, against epochs and against updates."""
    figure, axes = plt.subplots(1, 2, figsize=(style.PAGE, 2.8))
    for ax, position in zip(axes, ("epoch", "updates"), strict=True):
        for look, (twin, rows) in zip(TWINS, curves.groupby("twin", sort=False), strict=False):
            rows = rows[rows["epoch"] > 0]
            summary = rows.groupby("epoch").agg(
                x=(position, "mean"), loss=("val_loss", lambda v: [*mean_interval(np.log(v))])
            )
            mean, low, high = np.exp(np.array(summary["loss"].tolist()).T)
            ax.fill_between(summary["x"], low, high, color=look["color"], alpha=0.15, linewidth=0)
            ax.plot(summary["x"], mean, label=twin, **look)
        style.log_axis(ax.yaxis)
        ax.set_xlabel({"epoch": "epochs", "updates": "updates"}[position])
        ax.set_ylabel("validation loss [nats]")
    style.letter_panels(axes)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(TWINS))
    return figure


def with_and_without(ax: Axes, warmups: pd.DataFrame) -> Axes:
    """Test accuracy at each batch size and multiple of a rate ∝ B, with warm-up and without; dots are seeds, bars 95 %."""
    places = list(warmups.groupby(["batch", "times_linear"]).groups)
    lengths = sorted(warmups["warmup"].unique())
    for kind, length, shift in zip(style.KINDS, lengths, np.linspace(-0.15, 0.15, len(lengths)), strict=False):
        for place, (batch, multiple) in enumerate(places):
            here = (warmups["batch"] == batch) & (warmups["times_linear"] == multiple) & (warmups["warmup"] == length)
            rows = warmups[here]
            mean, low, high = mean_interval(rows["test_accuracy"])
            label = (f"warm-up of {length:g} epochs" if length else "none") if not place else None
            at = np.full(len(rows), place + shift)
            ax.plot(at, rows["test_accuracy"], ".", color=kind["color"], alpha=0.3, markersize=3)
            ax.errorbar(
                place + shift, mean, [[mean - low], [high - mean]], color=kind["color"], fmt=kind["marker"], label=label,
                markersize=4, capsize=2,
            )  # fmt: skip
    ax.set_xticks(range(len(places)), [f"{batch}\n× {multiple:g}" for batch, multiple in places])
    ax.set_xlabel(r"batch size and multiple of $\eta \propto B$")
    ax.set_ylabel("test accuracy")
    ax.legend(fontsize=6, loc="center right")
    return ax


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
    ax.set_ylim(top=4 * ax.get_ylim()[1])  # Room for the legend.
    ax.legend(fontsize=6, ncols=3, loc="upper left")
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
        ax.annotate(name, (batches[0], line[0]), color=style.GREY, fontsize=7, va="bottom")
    style.log_axis(ax.yaxis)
    style.batch_axis(ax, list(batches))
    ax.set_ylabel(r"best learning rate $\eta$")
    ax.legend(fontsize=6, loc="upper left")
    return ax
