"""All stored figures, from tables: what `batchscape figures` draws."""

import os
import pathlib
from collections.abc import Callable

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from batchscape import tables
from batchscape.draw import lines, noise, style, sweeps
from batchscape.judge import claims
from batchscape.judge.stats import mean_interval


def draw_all(folder: str | os.PathLike, out: str | os.PathLike) -> dict[str, pathlib.Path]:
    """Draw the figures of a study.

    Args:
        folder: Where its tables are.
        out: Where to write.

    Returns:
        PNG files, by name.
    """
    study = tables.Tables.load(folder)
    files = {}
    for name, (table, compose) in FIGURES.items():
        if table not in study.frames:
            continue
        figure, caption = compose(study)
        about = {"profile": study.about["profile"], "n": _seeds(study.frames[table]), "records": tables.sha256(folder)}
        files[name] = style.save_figure(figure, name, out, caption=caption, about=about)["png"]
    return files


def training_figure(study: tables.Tables) -> tuple[Figure, style.Caption]:
    """What the batch size did to training, with its caption."""
    missed = int((~study.runs["reached"].astype(bool)).sum())
    caption = style.Caption(
        finding=_answer("Does a larger batch need more epochs?", "C24", study),
        shows=(
            "a–c: epochs, updates and training time (updates × measured time of an update) until the training loss first "
            "reaches the target; d: smallest validation loss along the run; e: test accuracy and f: distance from the "
            "initial weights at the target. Curves keep the learning rate η, or η/B, fixed; dots are seeds."
            + (f" {missed} runs that missed the target are left out." if missed else "")
        ),
        basis=_basis(study),
    )
    return _closed(sweeps.training, study.runs), caption


def line_figure(study: tables.Tables) -> tuple[Figure, style.Caption]:
    """The loss between the minima of the smallest and the largest batch, with its caption."""
    ends = lines.ends_of(study.lines)
    wide = study.lines[study.lines["split"] == "train"].pivot(index="seed", columns="alpha", values="loss")
    before, after = (_growth(wide, *places) for places in ((0.0, -0.5), (1.0, 1.5)))
    caption = style.Caption(
        finding=(
            f"Half the distance between the minima outside of them, the training loss has grown {before} beyond "
            f"{ends['start']} and {after} beyond {ends['end']}."
        ),
        shows=lines.SHOWS,
        basis=_basis(study),
    )
    return _closed(lines.interpolation, study.lines, **ends), caption


def curvature_figure(study: tables.Tables) -> tuple[Figure, style.Caption]:
    """The curvature of the minima against batch size, with its caption."""
    caption = style.Caption(
        finding=_answer("Do larger batches end in sharper minima?", "C42", study),
        shows=(
            "a: largest eigenvalue and b: trace of the Hessian of the training loss, each the mean over the weights at "
            "the first crossing of the target and three evaluations in the epoch after. Curves keep the learning rate η, "
            "or η/B, fixed; dots are seeds."
        ),
        basis=_basis(study),
    )
    return _closed(sweeps.curvature, study.runs), caption


def gradient_figure(study: tables.Tables) -> tuple[Figure, style.Caption]:
    """How true the gradient of a mini-batch is, with its caption."""
    found = claims.verdict("C17", study.noise)
    caption = style.Caption(
        finding=f"Does the variance of the gradient fall as 1 / B? {found.word.capitalize()}: {found.summary}.",
        shows=(
            "a: ‖g_B − G‖² / ‖G‖² and b: cosine with the full gradient G, dotted: B_simple / B and (1 + B_simple / B)^−½; "
            "c: angle between the gradients of successive batches at the same weights; d: norm of the gradient, which is "
            "that of an update at η = 1. Random batches drawn with replacement, at the weights before training and after "
            "so many epochs."
        ),
        basis=(
            f"{found.data}, n = {_seeds(study.noise)} seeds, bands and brackets: 95 % (Student t), "
            f"profile {study.about['profile']}."
        ),
    )
    return _closed(noise.gradients, study.noise), caption


FIGURES = {
    "fig01_sweep_training": ("runs", training_figure),
    "fig02_line_loss": ("lines", line_figure),
    "fig03_curvature_batch": ("runs", curvature_figure),
    "fig04_gradient_noise": ("noise", gradient_figure),
}
"""The figures in their order, each with the table it needs."""


def _closed(draw: Callable[..., Figure], *arguments, **options) -> Figure:
    """A figure in the style of all, closed for pyplot, so that a notebook shows it once."""
    with style.paper():
        figure = draw(*arguments, **options)
    plt.close(figure)
    return figure


def _seeds(frame: pd.DataFrame) -> int:
    return int(frame["seed"].nunique())


def _basis(study: tables.Tables) -> str:
    return (
        f"{claims.describe(study.runs)}, n = {_seeds(study.runs)} paired seeds, bands and brackets: 95 % (Student t), "
        f"profile {study.about['profile']}."
    )


def _answer(question: str, claim: str, study: tables.Tables) -> str:
    found = claims.verdict(claim, study.runs)
    return f"{question} {found.word.capitalize()}: {found.summary}."


def _growth(wide: pd.DataFrame, start: float, end: float) -> str:
    """The ratio of the losses at two positions, with its interval over seeds."""
    columns = [wide.columns[np.abs(wide.columns - place).argmin()] for place in (start, end)]
    mean, low, high = np.exp(mean_interval(np.log(wide[columns[1]] / wide[columns[0]])))
    return f"× {mean:.3g} [{low:.3g}, {high:.3g}]"
