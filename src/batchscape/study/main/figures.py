"""Figures of a sweep: what the batch size did to training, and to the curvature where it ended."""

from collections.abc import Sequence

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from batchscape.plot import style
from batchscape.stats import families as strata
from batchscape.study import columns

TRAINING_PANELS = {
    "epoch": "epochs to the target",
    "updates": "updates to the target",
    "seconds_to_target": "training time to the target [s]",
    "best_val_loss": "smallest validation loss [nats]",
    "test_accuracy": "test accuracy at the target",
    "distance": r"distance $\|w - w_0\|_2$",
}

CURVATURE_PANELS = {
    "lambda_max": r"largest Hessian eigenvalue $\lambda_{\max}$",
    "trace": "trace of the Hessian",
}

SHARPNESS_PANELS = {
    "lambda_max": r"largest eigenvalue $\lambda_{\max}$",
    "phi": r"Keskar's $\varphi$ [%]",
    "worst": r"worst rise, $\|\delta\| \leq 0.05$ [nats]",
    "average": "mean rise, steps of 0.01 [nats]",
    "adaptive_worst": r"worst rise, $\|\delta/w\| \leq 0.5$ [nats]",
    "adaptive_average": "mean rise, steps of 0.1 |w| [nats]",
}

STEADINESS_PANELS = {
    "train_wobble": "wobble of the training loss",
    "val_wobble": "wobble of the validation loss",
    "step_length": r"mean update $\|w_{t+1} - w_t\|_2$",
    "path_per_epoch": r"path an epoch $\Sigma\|w_{t+1} - w_t\|_2$",
    "distance": r"distance at the end $\|w - w_0\|_2$",
    "val_loss": "validation loss at the end [nats]",
}

LOGARITHMIC = (
    *("epoch", "updates", "seconds_to_target", "lambda_max", "trace"),
    *("train_wobble", "val_wobble", "step_length", "path_per_epoch"),
    *("phi", "worst", "average", "adaptive_worst", "adaptive_average"),
)


def against_batch_size(ax: Axes, runs: pd.DataFrame, quantity: str, *, label: str, log: bool = False) -> Axes:
    """A quantity against batch size, one curve a family: fixed η, or fixed η/B.

    Draws the mean over seeds (geometric where the axis is logarithmic), its 95 % interval (Student t) as a band, and
    the seeds as faint dots when there are at most 12.

    Args:
        ax: Where to draw.
        runs: One row a run, with `batch`, `learning_rate`, `seed` and the quantity.
        quantity: The column.
        label: Text of the axis, with its unit.
        log: Whether the axis is logarithmic.

    Returns:
        The axes.
    """
    families = strata.families(runs)
    for kind, family in zip(style.KINDS, families, strict=False):
        rows = family.runs.dropna(subset=[quantity])
        style.curve_with_band(ax, rows, quantity, log=log, label=f"fixed {family.label}", **kind)
        if rows["seed"].nunique() <= 12:
            ax.plot(rows["batch"], rows[quantity], ".", color=kind["color"], alpha=0.25, markersize=2.5, zorder=1)
    if log:
        style.log_axis(ax.yaxis)
    style.batch_axis(ax, sorted(runs["batch"].unique()))
    ax.set_ylabel(label)
    return ax


def training(runs: pd.DataFrame) -> Figure:
    """Six panels: epochs, updates and seconds to the loss target, validation loss, test accuracy, distance.

    The seconds are updates × the time of an update that nobody looks at: the tests of the target, 16 an epoch, would
    weigh more on large batches.
    """
    runs = columns.add_seconds(runs)
    figure, axes = plt.subplots(2, 3, figsize=(style.PAGE, 4.2))
    _panels(axes.ravel(), runs[runs["reached"].astype(bool)], TRAINING_PANELS)
    return figure


def curvature(runs: pd.DataFrame) -> Figure:
    """Two panels: λ_max and trace of the Hessian of the training loss, where the runs ended."""
    figure, axes = plt.subplots(1, 2, figsize=(style.PAGE, 2.7))
    _panels(axes, runs[runs["reached"].astype(bool)], CURVATURE_PANELS)
    return figure


def sharpness(minima: pd.DataFrame) -> Figure:
    """Six panels: six measures of sharpness at equal training loss; beside λ_max, 2/η at the fixed rate."""
    figure, axes = plt.subplots(2, 3, figsize=(style.PAGE, 4.4))
    reached = minima[minima["reached"].astype(bool)]
    _panels(axes.ravel(), reached, SHARPNESS_PANELS)
    at_rate = next(family for family in strata.families(reached) if family.stratum == strata.FIXED_RATE)
    style.reference_line(axes[0, 0], 2 / at_rate.fixed, rf"$2/\eta$ at $\eta$ = {at_rate.fixed:g}")
    return figure


def steadiness(runs: pd.DataFrame) -> Figure:
    """Six panels: wobble of both losses, length of an update, of an epoch's path and of it all, validation loss."""
    figure, axes = plt.subplots(2, 3, figsize=(style.PAGE, 4.2))
    _panels(axes.ravel(), runs[runs["status"] == "COMPLETE"], STEADINESS_PANELS)
    return figure


def _panels(axes: Sequence[Axes], runs: pd.DataFrame, panels: dict[str, str]) -> None:
    for ax, (quantity, label) in zip(axes, panels.items(), strict=True):
        against_batch_size(ax, runs, quantity, label=label, log=quantity in LOGARITHMIC)
    style.letter_panels(axes)
    axes[0].figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(style.KINDS))
