"""All stored figures, from tables: what `make figures` draws."""

import os
import pathlib

import numpy as np
import pandas as pd

from batchscape import tables
from batchscape.draw import lines, style, sweeps
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
    about = {"profile": study.about["profile"], "records": tables.sha256(folder)}
    with style.paper():
        figures = {
            "fig01_sweep_training": (sweeps.training(study.runs), _training_caption(study)),
            "fig02_line_loss": (lines.interpolation(study.lines, **_ends(study)), _line_caption(study)),
            "fig03_curvature_batch": (sweeps.curvature(study.runs), _curvature_caption(study)),
        }
        return {
            name: style.save_figure(figure, name, out, caption=caption, about={**about, "n": _seeds(study)})["png"]
            for name, (figure, caption) in figures.items()
        }


def _seeds(study: tables.Tables) -> int:
    return int(study.runs["seed"].nunique())


def _ends(study: tables.Tables) -> dict[str, str]:
    first = study.lines.iloc[0]
    return {"start": f"B = {first['batch_a']}", "end": f"B = {first['batch_b']}"}


def _basis(study: tables.Tables) -> str:
    return (
        f"{claims.describe(study.runs)}, n = {_seeds(study)} paired seeds, bands and brackets: 95 % (Student t), "
        f"profile {study.about['profile']}."
    )


def _training_caption(study: tables.Tables) -> style.Caption:
    missed = int((~study.runs["reached"].astype(bool)).sum())
    return style.Caption(
        finding=_answer("Does a larger batch need more epochs?", "C24", study),
        shows=(
            "a–c: epochs, updates and training time (updates × measured time of an update) until the training loss first "
            "reaches the target; d: smallest validation loss along the run; e: test accuracy and f: distance from the "
            "initial weights at the target. Curves keep the learning rate η, or η/B, fixed; dots are seeds."
            + (f" {missed} runs that missed the target are left out." if missed else "")
        ),
        basis=_basis(study),
    )


def _curvature_caption(study: tables.Tables) -> style.Caption:
    return style.Caption(
        finding=_answer("Do larger batches end in sharper minima?", "C42", study),
        shows=(
            "a: largest eigenvalue and b: trace of the Hessian of the training loss, each the mean over the weights at the "
            "first crossing of the target and three evaluations in the epoch after. Curves keep the learning rate η, or "
            "η/B, fixed; dots are seeds."
        ),
        basis=_basis(study),
    )


def _line_caption(study: tables.Tables) -> style.Caption:
    ends = _ends(study)
    wide = study.lines[study.lines["split"] == "train"].pivot(index="seed", columns="alpha", values="loss")
    before, after = (_growth(wide, *places) for places in ((0.0, -0.5), (1.0, 1.5)))
    return style.Caption(
        finding=(
            f"Half the distance between the minima outside of them, the training loss has grown {before} beyond "
            f"{ends['start']} and {after} beyond {ends['end']}."
        ),
        shows="a: loss and b: accuracy at (1 − α)·w(start) + α·w(end); faint lines are seeds, bold ones their median.",
        basis=_basis(study),
    )


def _answer(question: str, claim: str, study: tables.Tables) -> str:
    found = claims.verdict(claim, study.runs)
    return f"{question} {found.word.capitalize()}: {found.summary}."


def _growth(wide: pd.DataFrame, start: float, end: float) -> str:
    """The ratio of the losses at two positions, with its interval over seeds."""
    columns = [wide.columns[np.abs(wide.columns - place).argmin()] for place in (start, end)]
    mean, low, high = np.exp(mean_interval(np.log(wide[columns[1]] / wide[columns[0]])))
    return f"× {mean:.3g} [{low:.3g}, {high:.3g}]"
