"""Figures of the main job, each with its caption."""

from matplotlib.figure import Figure

from batchscape.plot import lines, style
from batchscape.study import tables
from batchscape.study.captions import answer, basis, closed, loss_ratio
from batchscape.study.main import figures


def training_figure(study: tables.Tables) -> tuple[Figure, style.Caption]:
    """What the batch size did to training, with its caption."""
    missed = int((~study.runs["reached"].astype(bool)).sum())
    caption = style.Caption(
        finding=answer("Does a larger batch need more epochs?", "C24", study),
        shows=(
            "a–c: epochs, updates and training time (updates × measured time of an update) until the training loss first "
            "reaches the target; d: smallest validation loss along the run; e: test accuracy and f: distance from the "
            "initial weights at the target. Curves keep the learning rate η, or η/B, fixed; dots are seeds."
            + (f" {missed} runs that missed the target are left out." if missed else "")
        ),
        basis=basis(study),
    )
    return closed(figures.training, study.runs), caption


def line_figure(study: tables.Tables) -> tuple[Figure, style.Caption]:
    """The loss between the minima of the smallest and the largest batch, with its caption."""
    ends = lines.ends_of(study.lines)
    wide = study.lines[study.lines["split"] == "train"].pivot(index="seed", columns="alpha", values="loss")
    before, after = (loss_ratio(wide, *places) for places in ((0.0, -0.5), (1.0, 1.5)))
    caption = style.Caption(
        finding=(
            f"Half the distance between the minima outside of them, the training loss has grown {before} beyond "
            f"{ends['start']} and {after} beyond {ends['end']}."
        ),
        shows=lines.SHOWS,
        basis=basis(study),
    )
    return closed(lines.interpolation, study.lines, **ends), caption


def curvature_figure(study: tables.Tables) -> tuple[Figure, style.Caption]:
    """The curvature of the minima against batch size, with its caption."""
    caption = style.Caption(
        finding=answer("Do larger batches end in sharper minima?", "C42", study),
        shows=(
            "a: largest eigenvalue and b: trace of the Hessian of the training loss, each the mean over the weights at "
            "the first crossing of the target and three evaluations in the epoch after. Curves keep the learning rate η, "
            "or η/B, fixed; dots are seeds."
        ),
        basis=basis(study),
    )
    return closed(figures.curvature, study.runs), caption
