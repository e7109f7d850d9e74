"""The figure of what a batch costs: throughput, time of an update, memory, and a published table."""

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from batchscape.plot import style
from batchscape.study.cost import readings
from batchscape.study.published import LENET

MARKERS = "osDv"


def costs(timings: pd.DataFrame, peaks: pd.DataFrame) -> Figure:
    """Four panels: a examples a second, b time of an update with its line, c memory with its line, d time of an epoch.

    Args:
        timings, peaks: Tables of `run_cost_study`.
    """
    figure, axes = plt.subplots(2, 2, figsize=(style.PAGE, 5.0))
    looks = looks_of(timings)
    throughput(axes[0, 0], timings, looks)
    updates(axes[0, 1], timings, looks)
    memory(axes[1, 0], peaks, looks)
    epochs(axes[1, 1], timings, looks)
    style.letter_panels(axes.ravel())
    return figure


def looks_of(timings: pd.DataFrame) -> dict[str, dict]:
    """Widened nets from dark to light, for widths are ordered; any other net in vermillion, dashed."""
    widths = timings.groupby("net", sort=False)[["model", "width"]].first()
    ordered = widths[widths["model"] == "mlp"].index
    shades = mpl.colormaps["viridis"](np.linspace(0, 0.85, len(ordered)))
    looks = {
        net: {"color": mpl.colors.to_hex(color), "marker": marker, "linestyle": "-"}
        for net, color, marker in zip(ordered, shades, MARKERS, strict=False)
    }
    other = {"color": style.VERMILLION, "marker": "^", "linestyle": "--"}
    return {net: {**looks.get(net, other), "markersize": 3} for net in widths.index}


def throughput(ax: Axes, timings: pd.DataFrame, looks: dict[str, dict]) -> Axes:
    """Examples a second against batch size: geometric means over rounds, 95 % bands."""
    for net, look in looks.items():
        style.curve_with_band(ax, _medians(timings, net), "samples_per_second", log=True, label=net, **look)
    _batch_axis(ax, timings)
    style.log_axis(ax.yaxis)
    ax.set_ylabel("examples a second")
    ax.legend(fontsize=6, loc="lower right")
    return ax


def updates(ax: Axes, timings: pd.DataFrame, looks: dict[str, dict]) -> Axes:
    """Milliseconds of an update: medians of rounds as dots, and a + b B, with a dotted line at a."""
    for net, look in looks.items():
        rows = _medians(timings, net)
        ax.plot(rows["batch"], rows["milliseconds"], look["marker"], color=look["color"], markersize=2, alpha=0.4)
        a, b = readings.line_of_time(rows)
        batches = np.geomspace(rows["batch"].min(), rows["batch"].max(), 100)
        shape = {"color": look["color"], "linestyle": look["linestyle"]}
        ax.plot(batches, a + b * batches, label=f"{net}: {a:.2g} + {b:.2g} $B$", **shape)
        if a > 0:
            ax.axhline(a, color=look["color"], linestyle=":", linewidth=0.7, zorder=0)
    _batch_axis(ax, timings)
    style.log_axis(ax.yaxis)
    ax.set_ylabel("time of an update [ms]")
    ax.legend(fontsize=6, loc="upper left")
    return ax


def memory(ax: Axes, peaks: pd.DataFrame, looks: dict[str, dict]) -> Axes:
    """Peak memory above that of the line at B = 0: rounds as dots, the line, dotted what the activations alone would add."""
    for net, rows in peaks.groupby("net", sort=False):
        look = looks[net]
        start, slope, r_squared = readings.line_of_memory(rows)
        rows = rows[rows["batch"] > 1]
        batches = np.array(sorted(rows["batch"].unique()))
        grown = np.maximum(0, rows["peak_bytes"] - start) / 1e6
        ax.plot(rows["batch"], grown, look["marker"], color=look["color"], markersize=2, alpha=0.4)
        shape = {"color": look["color"], "linestyle": look["linestyle"]}
        ax.plot(batches, slope * batches / 1e6, label=f"{net}: $R^2$ = {r_squared:.3f}", **shape)
        activations = rows["activation_bytes"].iloc[0] * batches / 1e6
        ax.plot(batches, activations, color=look["color"], linestyle=":", linewidth=0.8)
    style.log_axis(ax.yaxis)
    style.batch_axis(ax, sorted(set(peaks["batch"]) - {1}))
    ax.set_ylabel("memory that the batch adds [MB]")
    ax.legend(fontsize=6, loc="upper left", ncols=2)
    ax.set_ylim(top=4 * ax.get_ylim()[1])  # Room for the legend.
    return ax


def epochs(ax: Axes, timings: pd.DataFrame, looks: dict[str, dict]) -> Axes:
    """Time of an epoch relative to the largest batch: one net, by default LeNet, beside the published table."""
    nets = [net for net in looks if net == "LeNet"] or list(looks)[-1:]
    for net in nets:
        seconds = timings[timings["net"] == net].groupby("round").apply(readings.seconds_of_epoch)
        relative = seconds.div(seconds.iloc[:, -1], axis=0).stack().rename("relative").reset_index()
        style.curve_with_band(ax, relative, "relative", log=True, label=f"{net}, here", **looks[net])
    style_of = {"color": style.GREY, "linestyle": ":", "marker": "o", "markersize": 3, "mfc": "none", "linewidth": 0.8}
    published = LENET.sort_values("batch")
    ax.plot(published["batch"], published["time"], label="published, LeNet", **style_of)
    _batch_axis(ax, timings[timings["net"].isin(nets)])
    style.log_axis(ax.yaxis)
    ax.set_ylabel("time of an epoch ÷ at the largest $B$")
    ax.legend(fontsize=6, loc="upper right")
    return ax


def _medians(timings: pd.DataFrame, net: str) -> pd.DataFrame:
    """The median over repeats in each round and batch size of a net."""
    rows = timings[timings["net"] == net]
    return rows.groupby(["round", "batch"], as_index=False)[["milliseconds", "samples_per_second"]].median()


def _batch_axis(ax: Axes, timings: pd.DataFrame) -> None:
    """Ticks at the batch sizes of the net with the fewest, so that there is room for them."""
    sizes = [sorted(rows["batch"].unique()) for _, rows in timings.groupby("net", sort=False)]
    style.batch_axis(ax, min(sizes, key=len))
