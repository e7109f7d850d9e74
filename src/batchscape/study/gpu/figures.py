"""Figures of what `benchmarks/gpu.py` has measured on one device."""

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from batchscape.plot import lines, style
from batchscape.study.main.figures import against_batch_size

COLORS = ("#000000", style.BLUE, style.VERMILLION, style.GREEN)
"""Of up to four nets."""

PRECISIONS = {"float32": "-", "mixed_bfloat16": "--"}

CIFAR_PANELS = {
    "lambda_max": r"$\lambda_{\max}$ of the Hessian",
    "train_loss": "training loss [nats]",
    "test_accuracy": "test accuracy",
}


def loop(line: pd.DataFrame) -> Figure:
    """The loss between the minima of the smallest and the largest batch: a at one learning rate, b with the rate scaled.

    Args:
        line: Table `line` of the benchmark: one row a point, with `stratum`, `split`, `seed`, `alpha`, `loss`.
    """
    figure, axes = plt.subplots(1, 2, figsize=(style.PAGE, 2.6), sharey=True)
    ends = lines.ends_of(line)
    for ax, (stratum, points) in zip(axes, line.groupby("stratum", sort=False), strict=True):
        lines.along_line(ax, points, "loss", label="loss [nats]", log=True)
        ax.set_title(stratum, fontsize=8)
        for alpha, name in ((0, ends["start"]), (1, ends["end"])):
            ax.annotate(name, (alpha, 0.02), xycoords=("data", "axes fraction"), fontsize=7, color=style.GREY)
    axes[1].set_ylabel("")
    axes[0].legend(loc="upper center")
    style.letter_panels(axes)
    return figure


def cifar(runs: pd.DataFrame) -> Figure:
    """Three panels against batch size: λ_max, training loss and test accuracy, in both strata.

    Args:
        runs: Table `cifar` of the benchmark: one row a run.
    """
    figure, axes = plt.subplots(1, 3, figsize=(style.PAGE, 2.6))
    complete = runs[runs["status"] == "COMPLETE"]
    for ax, (quantity, label) in zip(axes, CIFAR_PANELS.items(), strict=True):
        against_batch_size(ax, complete, quantity, label=label, log=quantity != "test_accuracy")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    style.letter_panels(axes)
    return figure


def throughput(rows: pd.DataFrame) -> Figure:
    """Two panels against batch size: a examples a second, b peak memory with its line.

    Args:
        rows: Table `throughput` of the benchmark: one row a net, precision and batch size.
    """
    figure, axes = plt.subplots(1, 2, figsize=(style.PAGE, 2.9))
    measured = rows[rows["outcome"].str.startswith("measured")]
    for (net, precision), points in measured.groupby(["net", "precision"], sort=False):
        look = {"color": _color_of(net, measured), "linestyle": PRECISIONS[precision], "marker": "o", "markersize": 2.5}
        label = f"{net}, {precision.removeprefix('mixed_')}"
        axes[0].plot(points["batch"], points["samples_per_s"], label=label, **look)
        _memory(axes[1], points, look)
    for ax in axes:
        style.log_axis(ax.yaxis)
        style.batch_axis(ax, sorted(measured["batch"].unique()))
    axes[0].set_ylabel("examples a second")
    axes[1].set_ylabel("peak memory [GB]")
    if (limit := measured["device_bytes"].max()) > 0:
        style.reference_line(axes[1], limit / 1e9, "memory of the device")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=4, fontsize=7)
    style.letter_panels(axes)
    return figure


def _memory(ax: Axes, points: pd.DataFrame, look: dict) -> None:
    """Peaks as dots, and the line through the largest three."""
    ax.plot(points["batch"], points["peak_bytes"] / 1e9, look["marker"], color=look["color"], markersize=2.5)
    if len(points) < 3:
        return
    last = points.tail(3)
    slope, start = np.polyfit(last["batch"], last["peak_bytes"] / 1e9, 1)
    batches = np.geomspace(last["batch"].min(), last["batch"].max(), 50)
    ax.plot(batches, start + slope * batches, color=look["color"], linestyle=look["linestyle"], linewidth=0.8)


def speed(rows: pd.DataFrame) -> Figure:
    """Updates a second against batch size, a panel a net: devices by colour, engines by dash, bars the range over rounds.

    Args:
        rows: Tables `speed` of the benchmark, of one device or several.
    """
    updates = rows[rows["quantity"] == "updates"]
    nets = list(updates["net"].unique())
    figure, axes = plt.subplots(1, len(nets), figsize=(style.PAGE, 2.6), squeeze=False)
    for ax, net in zip(axes[0], nets, strict=True):
        groups = updates[updates["net"] == net].groupby(["device", "engine"], sort=False)
        for (device, engine), points in groups:
            number = list(updates["device"].unique()).index(device)
            look = {"color": style.KINDS[number]["color"], "marker": style.KINDS[number]["marker"], "markersize": 3}
            spread = np.abs(points[["low", "high"]].to_numpy().T - points["per_s"].to_numpy())
            dash = "-" if engine == "fused" else ":"
            ax.errorbar(points["batch"], points["per_s"], spread, label=f"{device}, {engine}", linestyle=dash, **look)
        style.log_axis(ax.yaxis)
        style.batch_axis(ax, sorted(updates["batch"].unique()))
        ax.set_title(net, fontsize=8)
    axes[0, 0].set_ylabel("updates a second")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2, fontsize=7)
    style.letter_panels(axes[0])
    return figure


def _color_of(net: str, rows: pd.DataFrame) -> str:
    return COLORS[list(rows["net"].unique()).index(net) % len(COLORS)]
