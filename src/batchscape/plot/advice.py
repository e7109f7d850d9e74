"""Figures of what a batch costs: throughput, memory, and the time to a target."""

import os
import pathlib

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from batchscape.plot import style


def throughput(ax: Axes, probe) -> Axes:
    """Milliseconds an update against batch size: medians, the range over repeats, and the line a + b B."""
    rows = probe.measured
    errors = np.maximum(0, [rows["ms"] - rows["ms_low"], rows["ms_high"] - rows["ms"]])
    look = {"fmt": "o", "color": style.BLUE, "markersize": 3, "elinewidth": 0.8}
    ax.errorbar(rows["batch"], rows["ms"], errors, label="median, range", **look)
    if probe.time is not None:
        batches = np.geomspace(rows["batch"].min(), rows["batch"].max(), 100)
        line = probe.time(batches)
        ax.plot(batches[line > 0], line[line > 0], color=style.VERMILLION, linestyle="--", label="$a + bB$", zorder=1)
    style.log_axis(ax.yaxis)
    style.batch_axis(ax, rows["batch"].tolist())
    ax.set_ylabel("time of an update [ms]")
    return ax


def peaks(ax: Axes, probe) -> Axes:
    """Peak memory against batch size, with the line a + b B and the limit where it is near."""
    rows = probe.table.dropna(subset=["peak_bytes"])
    ax.plot(rows["batch"], rows["peak_bytes"] / 1e6, "o", color=style.BLUE, markersize=3, label="peak")
    if probe.memory is not None and len(rows):
        batches = np.geomspace(rows["batch"].min(), rows["batch"].max(), 100)
        ax.plot(
            batches, probe.memory(batches) / 1e6, color=style.VERMILLION, linestyle="--", label="$a + bB$", zorder=1
        )
        if probe.memory_limit < 3 * rows["peak_bytes"].max():
            style.reference_line(ax, probe.memory_limit / 1e6, "limit")
    ax.set_ylim(0, 1.3 * ax.get_ylim()[1])  # What there is without a batch is most of it, as a rule.
    style.batch_axis(ax, probe.measured["batch"].tolist())
    ax.set_ylabel("peak memory [MB]")
    return ax


def expected_time(ax: Axes, advice) -> Axes:
    """Expected time, updates and examples to a target, relative to the reference; the range that is advised is shaded."""
    table = advice.table
    ax.axvspan(advice.low, advice.high, color=style.GREEN, alpha=0.12, linewidth=0)
    ax.axvline(advice.batch_size, color=style.GREEN, linewidth=0.8)
    if advice.noise is None:
        ax.annotate("no noise scale", (0.5, 0.5), xycoords="axes fraction", ha="center", color=style.GREY)
    else:
        ax.fill_between(
            table["batch"], table["seconds_low"], table["seconds_high"], color=style.BLUE, alpha=0.15, linewidth=0
        )
        for kind, name in zip(style.KINDS, ("seconds", "updates", "examples"), strict=True):
            ax.plot(table["batch"], table[name], label=name, markersize=2.5, **kind)
        style.log_axis(ax.yaxis)
        style.reference_line(ax, 1.0, "")
        ax.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3, columnspacing=1.0, handlelength=1.6)
    style.batch_axis(ax, table["batch"].tolist())
    ax.set_ylabel(f"to a target, relative to B = {advice.reference}")
    return ax


def rates(ax: Axes, advice) -> Axes:
    """Training loss along the range test, with the rate advised and the largest before the loss rose."""
    if advice.rates:
        rate, loss = np.array(advice.rates).T
        shown = loss <= 1.5 * loss[0]
        ax.plot(rate[shown], loss[shown], color=style.BLUE, marker=".", markersize=2.5, label="loss")
    if advice.learning_rates:
        advised = advice.learning_rates["fixed"]
        ax.axvline(advised, color=style.GREEN, linewidth=0.8, label=f"advised, {advised:.2g}")
        ax.axvline(
            advice.stable_rate,
            color=style.VERMILLION,
            linewidth=0.8,
            linestyle="--",
            label=f"before it rose, {advice.stable_rate:.2g}",
        )
        ax.legend()
    ax.set_xscale("log")
    ax.set_xlabel(f"learning rate at B = {advice.reference}")
    ax.set_ylabel("training loss")
    return ax


def advice_figure(found) -> Figure:
    """Four panels: time of an update, memory, time to a target, range test."""
    figure, axes = plt.subplots(2, 2, figsize=(style.PAGE, 4.6))
    throughput(axes[0, 0], found.probe)
    peaks(axes[0, 1], found.probe)
    expected_time(axes[1, 0], found)
    rates(axes[1, 1], found)
    for ax in axes[0]:
        ax.legend()
    style.letter_panels(axes.ravel())
    return figure


def draw(found, folder: str | os.PathLike) -> pathlib.Path:
    """Draw an advice into a folder; returns the PNG file."""
    with style.paper():
        figure = advice_figure(found)
    facts = found.about
    rates = found.learning_rates or {}
    said = f" at a learning rate of {rates['fixed']:.2g} to {rates['linear']:.2g}" if rates else ""
    caption = style.Caption(
        finding=f"Begin with B = {found.batch_size}{said}; {found.low} to {found.high} are expected to do nearly as well.",
        shows=(
            "a: time of an update, medians and range over repeats. b: peak memory in processes of their own. c: expected "
            "time, updates and examples to a target, band from the interval of the noise scale; shaded: the range advised, "
            "green line: the default. d: range test."
        ),
        basis=(
            f"{facts['model']} on {facts['data']}, {facts['n_train']} examples, {facts['optimizer']}, {facts['device']}; "
            "one seed of a short training."
        ),
    )
    about = {name: facts[name] for name in ("data", "data_sha256", "n_train", "model", "engine", "device")}
    return style.save_figure(figure, "advice", folder, caption=caption, about=about)["png"]
