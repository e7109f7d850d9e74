"""Figures of the noise scale: along training, beside the critical batch size, and as paths over the error surface."""

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from batchscape.gradient.critical_batch_size import CriticalBatchSize, critical_batch_size
from batchscape.plot import style
from batchscape.stats.paired import mean_interval
from batchscape.study import published, subjects
from batchscape.study.gradient import figures as gradient_panels


def along_training(ax: Axes, noise: pd.DataFrame, **look) -> Axes:
    """B_simple against the epoch: geometric mean over seeds, 95 % interval (Student t), seeds as dots."""
    points = noise.drop_duplicates(["seed", "epoch"])
    summary = points.groupby("epoch")["simple"].apply(lambda values: mean_interval(np.log(values)))
    mean, low, high = np.exp(np.array(summary.tolist()).T)
    epochs = summary.index.to_numpy()
    ax.fill_between(epochs, low, high, color=look["color"], alpha=0.15, linewidth=0)
    ax.plot(epochs, mean, **look)
    ax.plot(points["epoch"], points["simple"], ".", color=look["color"], alpha=0.25, markersize=2.5, zorder=1)
    ax.set_xlabel("epoch")
    ax.set_ylabel(r"noise scale $B_{\mathrm{simple}}$ [examples]")
    style.log_axis(ax.yaxis)
    return ax


def mnist(noise: pd.DataFrame, first_epoch: pd.DataFrame) -> Figure:
    """Three panels: B_simple along 20 epochs, within the first one at a low rate, and relative error against B."""
    figure, axes = plt.subplots(1, 3, figsize=(style.PAGE, 2.6))
    along_training(axes[0], noise, **style.KINDS[0])
    axes[0].set_xscale("symlog", linthresh=1)
    axes[0].set_xticks([0, 1, 5, 20], ["0", "1", "5", "20"])
    for name, value in published.NOISE_SCALES.items():
        style.reference_line(axes[0], value, name)
    along_training(axes[1], first_epoch, **style.KINDS[1])
    style.reference_line(axes[1], 876, "mean of epoch 1, replicated")
    label = gradient_panels.PANELS["relative_error"]
    drawn = noise[noise["replacement"]]
    gradient_panels.against_batch_size(axes[2], drawn, "relative_error", label=label, log=True)
    axes[2].legend()
    style.letter_panels(axes)
    return figure


def critical(targets: pd.DataFrame, noise: pd.DataFrame) -> Figure:
    """Two panels: updates and examples to the target against batch size, each batch at its best rate, with the fit."""
    found = critical_batch_size(targets)
    best = targets[targets["learning_rate"] == targets["batch"].map(found.rates)]
    figure, axes = plt.subplots(1, 2, figsize=(style.PAGE, 2.9))
    batches = np.geomspace(targets["batch"].min(), targets["batch"].max(), 100)
    fits = {"updates": found.updates(batches), "examples": batches * found.updates(batches)}
    for ax, (quantity, label) in zip(axes, {"updates": "updates", "examples": "examples"}.items(), strict=True):
        ax.plot(best["batch"], best[quantity], ".", color=style.BLUE, alpha=0.4, markersize=3, label="seeds, best rate")
        ax.plot(batches, fits[quantity], color=style.VERMILLION, label="fit")
        style.log_axis(ax.yaxis)
        style.batch_axis(ax, sorted(targets["batch"].unique()))
        ax.set_ylabel(f"{label} to the target")
        _mark(ax, found, noise)
    style.letter_panels(axes)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure


def _mark(ax: Axes, found: CriticalBatchSize, noise: pd.DataFrame) -> None:
    """B_crit with its interval, and B_simple along training."""
    ax.axvspan(found.low, found.high, color=style.VERMILLION, alpha=0.15, linewidth=0)
    ax.axvline(found.b_crit, color=style.VERMILLION, linestyle="--", linewidth=0.8, label=r"$B_{\mathrm{crit}}$")
    points = noise.drop_duplicates(["seed", "epoch"])
    means = np.exp(np.log(points["simple"]).groupby(points["epoch"]).mean())
    shown = means[means <= ax.get_xlim()[1]]
    for shade, (epoch, value) in zip(np.linspace(0.25, 0.75, len(shown)), shown.items(), strict=True):
        place = "start" if epoch == 0 else subjects.count_of(epoch)
        name = rf"$B_{{\mathrm{{simple}}}}$, {place}"
        ax.axvline(value, color=str(shade), linestyle=":", linewidth=1.0, label=name)


ARTICLES = {"full": style.BLUE, "mini": style.GREEN, "single": style.VERMILLION}
"""The colours in which the articles draw full batch, mini-batch and single examples."""


def descent(paths: pd.DataFrame, planes: pd.DataFrame) -> Figure:
    """The ways of full batch, mini-batch and single examples over the loss of each net, as contours of a plane."""
    nets = list(paths["net"].unique())
    figure, axes = plt.subplots(1, len(nets), figsize=(style.PAGE, 3.2))
    for ax, net in zip(axes, nets, strict=True):
        way, plane = paths[paths["net"] == net], planes[planes["net"] == net]
        grid = plane.pivot(index="b", columns="a", values="loss")
        levels = np.geomspace(grid.min().min() * 1.01, grid.max().max(), 12)
        ax.contour(grid.columns, grid.index, grid, levels=levels, colors="0.75", linewidths=0.6)
        batches = sorted(way["batch"].unique())
        for (kind, color), batch, marker in zip(ARTICLES.items(), reversed(batches), "os^", strict=True):
            rows = way[way["batch"] == batch].sort_values("updates")
            name = {"full": "full batch", "mini": f"mini-batch, B = {batch}", "single": "single examples"}[kind]
            ax.plot(rows["a"], rows["b"], color=color, marker=marker, markersize=2, linewidth=0.9, label=name)
        start = way[way["updates"] == 0].iloc[0]
        ax.plot(start["a"], start["b"], "k*", markersize=7)
        ax.set_xlabel("first direction")
        ax.set_ylabel("second direction")
    style.letter_panels(axes)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


def surface(ax: Axes, table: pd.DataFrame) -> Axes:
    """What a paraboloid misses of the loss against the length of the step, one curve a net and place."""
    kinds = table.groupby(["net", "epoch"], sort=False)
    colors = mpl.colormaps["viridis"](np.linspace(0, 0.85, len(kinds)))
    for ((net, epoch), rows), color, marker in zip(kinds, colors, "os^Dv", strict=False):
        radii = np.array(sorted(rows["radius"].unique()))
        logs = [mean_interval(np.log(rows.loc[rows["radius"] == r, "residual"])) for r in radii]
        mean, low, high = np.exp(np.array(logs).T)
        place = "start" if epoch == 0 else f"after {subjects.count_of(epoch)}"
        ax.fill_between(radii, low, high, color=color, alpha=0.15, linewidth=0)
        ax.plot(radii, mean, color=color, marker=marker, markersize=3, label=f"{net}, {place}")
    ax.set_xscale("log")
    style.log_axis(ax.yaxis)
    ax.set_xlabel(r"length of the step ÷ $\|w\|_2$")
    ax.set_ylabel("missed by a paraboloid [share]")
    return ax
