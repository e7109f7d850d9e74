"""Figures of minima: where training goes on from them, and how they look after a rescaling or with weight decay."""

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from batchscape.plot import style
from batchscape.stats.paired import mean_interval

MEASURES = {
    "lambda_max": r"$\lambda_{\max}$",
    "phi": r"Keskar's $\varphi$",
    "adaptive_worst": "adaptive worst case",
}

WAYS = {"to the other": "line between\nthe two", "none": "random,\none length", "filter": "random, filter-\nnormalised"}


def controls(escapes: pd.DataFrame, rescaled: pd.DataFrame, flip: pd.DataFrame) -> Figure:
    """Four panels: λ_max and distance along an escape, measures after a rescaling, widths with and without weight decay."""
    figure, axes = plt.subplots(2, 2, figsize=(style.PAGE, 4.8))
    panels = axes.ravel()
    along_escape(panels[0], escapes, "lambda_max", label=r"largest eigenvalue $\lambda_{\max}$", log=True)
    along_escape(panels[1], escapes, "distance", label=r"distance $\|w - w_0\|_2$")
    panels[0].legend()
    after_rescaling(panels[2], rescaled)
    widths(panels[3], flip)
    style.letter_panels(panels)
    return figure


def spectra(table: pd.DataFrame) -> Figure:
    """A panel a family: how many eigenvalues exceed λ, and how many are below −λ, at its smallest and its largest batch."""
    families = table.groupby("family", sort=False)
    figure, axes = plt.subplots(1, len(families), figsize=(style.PAGE, 2.6), sharex=True, sharey=True, squeeze=False)
    for ax, (family, of_family) in zip(axes[0], families, strict=True):
        ends = of_family.groupby("batch")
        for look, name, (_, rows) in zip(style.KINDS, ("smallest", "largest"), ends, strict=False):
            beyond(ax, rows, "above", label=rf"{name} $B$: above $\lambda$", color=look["color"])
            beyond(ax, rows, "below", label=rf"{name} $B$: below $-\lambda$", color=look["color"], linestyle=":")
        ax.set(xlabel=r"eigenvalue $\lambda$", ylim=(0.5, None))
        style.log_axis(ax.xaxis)
        style.log_axis(ax.yaxis)
        text = f"{family}\nB = {' and '.join(f'{batch:,}' for batch, _ in ends)}"
        ax.annotate(text, (0.97, 0.97), xycoords="axes fraction", ha="right", va="top")
    axes[0, 0].set_ylabel("number of eigenvalues")
    axes[0, 0].set_xlim(table["value"].min(), 1.5 * table.loc[table["above"] > 0, "value"].max())
    style.letter_panels(axes[0])
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure


def beyond(ax: Axes, rows: pd.DataFrame, quantity: str, **look) -> Axes:
    """A count of eigenvalues against the value beyond which they lie; mean over seeds with a 95 % band."""
    wide = rows.pivot(index="seed", columns="value", values=quantity)
    mean, low, high = np.array([mean_interval(wide[value]) for value in wide]).T
    ax.fill_between(wide.columns, np.maximum(low, 1e-3), high, color=look["color"], alpha=0.15, linewidth=0)
    ax.plot(wide.columns, np.where(mean > 0, mean, np.nan), **look)
    return ax


def along_escape(ax: Axes, escapes: pd.DataFrame, quantity: str, *, label: str, log: bool = False) -> Axes:
    """A quantity against the epochs that training goes on from a minimum of full batch; means with 95 % bands."""
    for kind, (arm, rows) in zip(style.KINDS, escapes.groupby("arm", sort=False), strict=False):
        epochs = sorted(rows["epoch"].unique())
        forward, back = (np.log, np.exp) if log else (np.asarray, np.asarray)
        summary = [mean_interval(forward(rows.loc[rows["epoch"] == epoch, quantity])) for epoch in epochs]
        mean, low, high = back(np.array(summary).T)
        ax.fill_between(epochs, low, high, color=kind["color"], alpha=0.15, linewidth=0)
        ax.plot(epochs, mean, label=arm, **kind)
    ax.set_xscale("symlog", linthresh=1)
    ticks = [epoch for epoch in sorted(escapes["epoch"].unique()) if epoch in (0, 1, 5, 20, 50)] or epochs
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.minorticks_off()
    ax.set_xlabel(f"epochs of B = {escapes['escaped_to'].iloc[0]}, or as many updates")
    ax.set_ylabel(label)
    if log:
        style.log_axis(ax.yaxis)
    return ax


def after_rescaling(ax: Axes, rescaled: pd.DataFrame) -> Axes:
    """Measures after a rescaling that leaves the function alone, as multiples of those before; mean and 95 % band."""
    for kind, (measure, name) in zip(style.KINDS, MEASURES.items(), strict=True):
        wide = rescaled.pivot(index="seed", columns="factor", values=measure)
        ratios = wide.div(wide[1.0], axis=0)
        summary = np.exp(np.array([mean_interval(np.log(ratios[factor])) for factor in ratios]).T)
        ax.fill_between(ratios.columns, summary[1], summary[2], color=kind["color"], alpha=0.15, linewidth=0)
        ax.plot(ratios.columns, summary[0], label=name, **kind)
    ax.set_xscale("log")
    style.log_axis(ax.yaxis)
    ax.set_xticks(list(ratios.columns), [f"{factor:g}" for factor in ratios.columns])
    ax.minorticks_off()
    ax.set_xlabel(r"first layer × $\alpha$, second layer ÷ $\alpha$")
    ax.set_ylabel("sharpness, multiple of that before")
    ax.legend()
    return ax


def widths(ax: Axes, flip: pd.DataFrame) -> Axes:
    """Width of the basin of the small batch as a multiple of that of the large, three ways, at each weight decay."""
    decays = sorted(flip["weight_decay"].unique())
    for kind, decay, shift in zip(style.KINDS, decays, np.linspace(-0.1, 0.1, len(decays)), strict=False):
        at_decay = flip[flip["weight_decay"] == decay]
        for place, way in enumerate(WAYS):
            wide = at_decay[at_decay["way"] == way].pivot(index="seed", columns="batch", values="width")
            ratios = wide.iloc[:, 0] / wide.iloc[:, -1]
            mean, low, high = np.exp(mean_interval(np.log(ratios)))
            label = f"weight decay {decay:g}" if place == 0 else None
            look = {"color": kind["color"], "marker": kind["marker"], "linestyle": "none", "capsize": 2}
            ax.errorbar(place + shift, mean, yerr=[[mean - low], [high - mean]], label=label, **look)
            dots = np.full(len(ratios), place + shift + 0.06)
            ax.plot(dots, ratios, ".", color=kind["color"], alpha=0.25, markersize=2.5)
    small, large = sorted(flip["batch"].unique())
    style.log_axis(ax.yaxis)
    style.reference_line(ax, 1.0, "equally wide")
    ax.set_xlim(-0.5, len(WAYS) + 0.1)  # Room for the label of the line.
    ax.set_xticks(range(len(WAYS)), list(WAYS.values()))
    ax.set_ylabel(f"width of the basin, B = {small} ÷ B = {large}")
    ax.legend()
    return ax


BUDGETS = {"epochs": "equal epochs", "until_loss": "equal training loss"}

PUBLISHED_PANELS = {
    "phi": (r"Keskar's $\varphi$, $\varepsilon = 10^{-3}$ [%]", True),
    "lambda_max": (r"largest eigenvalue $\lambda_{\max}$", True),
    "distance": (r"distance $\|w - w_0\|_2$", True),
    "test_accuracy": ("test accuracy", False),
}


def published(runs: pd.DataFrame, references: dict[str, dict[str, float]]) -> Figure:
    """Four panels, one row a measure: the arms of a replication under both budgets, dots are seeds.

    Args:
        runs: The table `published` of a replication.
        references: Published values of the small and the large batch, by column.
    """
    figure, axes = plt.subplots(1, 4, figsize=(style.PAGE, 2.5))
    arms = arms_of(runs)
    for ax, (quantity, (label, log)) in zip(axes, PUBLISHED_PANELS.items(), strict=True):
        for kind, (budget, name) in zip(
            style.KINDS, {"epochs": "equal epochs", "until_loss": "equal loss"}.items(), strict=False
        ):
            for place, chosen in enumerate(arms.values()):
                values = runs.loc[chosen & (runs["budget"] == budget), quantity].dropna().to_numpy(np.float64)
                if len(values) < 2:
                    continue
                forward, back = (np.log, np.exp) if log else (np.asarray, np.asarray)
                mean, low, high = back(np.array(mean_interval(forward(values))))
                at = place + (-0.12 if budget == "epochs" else 0.12)
                look = {"color": kind["color"], "marker": kind["marker"], "linestyle": "none", "capsize": 2}
                ax.errorbar(at, mean, yerr=[[mean - low], [high - mean]], label=name if place == 0 else None, **look)
                ax.plot(np.full(len(values), at + 0.08), values, ".", color=kind["color"], alpha=0.3, markersize=2.5)
        for place, value in zip((0, 1), references.get(quantity, {}).values(), strict=False):
            ax.plot([place - 0.3, place + 0.3], [value, value], color=style.GREY, linestyle=":", linewidth=1)
        if log:
            style.log_axis(ax.yaxis)
        ax.set_xlim(-0.6, len(arms) - 0.4)
        ax.set_xticks(range(len(arms)), list(arms), fontsize=5)
        ax.set_ylabel(label)
    style.letter_panels(axes)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure


def arms_of(runs: pd.DataFrame) -> dict[str, pd.Series]:
    """Which runs belong to each arm of a replication: the small batch, the large one at its η, and at its η/B."""
    small, large = sorted(runs["batch"].unique())
    rate = runs.loc[runs["batch"] == small, "learning_rate"].iloc[0]
    same_rate = np.isclose(runs["learning_rate"], rate)
    return {
        f"B = {small}": runs["batch"] == small,
        f"{large}\nsame η": (runs["batch"] == large) & same_rate,
        f"{large}\nsame η/B": (runs["batch"] == large) & ~same_rate,
    }
