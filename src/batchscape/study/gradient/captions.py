"""Figures of the study of the gradient, each with its caption."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from batchscape.gradient.critical_batch_size import critical_batch_size
from batchscape.plot import style
from batchscape.stats.paired import mean_interval, with_interval
from batchscape.study import judge, tables
from batchscape.study.captions import capitalise, closed, count_seeds
from batchscape.study.gradient import figures, scale_figures
from batchscape.study.main import figures as main_figures


def gradient_figure(study: tables.Tables) -> tuple[Figure, style.Caption]:
    """How true the gradient of a mini-batch is, with its caption."""
    found = judge.verdict("C17", study.noise)
    caption = style.Caption(
        finding=f"Does the variance of the gradient fall as 1 / B? {capitalise(found.word)}: {found.summary}.",
        shows=(
            "a: ‖g_B − G‖² / ‖G‖² and b: cosine with the full gradient G, dotted: B_simple / B and (1 + B_simple / B)^−½; "
            "c: angle between the gradients of successive batches at the same weights; d: norm of the gradient, which is "
            "that of an update at η = 1. Random batches drawn with replacement, at the weights before training and after "
            "so many epochs."
        ),
        basis=(
            f"{found.data}, n = {count_seeds(study.noise)} seeds, bands and brackets: 95 % (Student t), "
            f"profile {study.about['profile']}."
        ),
    )
    return closed(figures.gradients, study.noise), caption


def critical_figure(study: tables.Tables) -> tuple[Figure, style.Caption]:
    """The critical batch size beside the noise scale, with its caption."""
    found = critical_batch_size(study.targets)
    edge = (
        f" The best rate is at the edge of the grid for B = {', '.join(map(str, found.at_edge))}."
        if found.at_edge
        else ""
    )
    first = study.targets.iloc[0]
    caption = style.Caption(
        finding=(
            f"The critical batch size is {with_interval(found.b_crit, found.low, found.high)} examples: from there on a "
            "larger batch saves fewer updates than it costs examples."
        ),
        shows=(
            "a: updates and b: examples until the training loss first reaches the target, each batch size at its best rate; "
            "the fit is S = S_min (1 + B_crit / B). Dotted: the noise scale B_simple along training at B = "
            f"{study.noise['trained_at'].iloc[0]}, measured without any of these runs.{edge}"
        ),
        basis=(
            f"{first['dataset']}, {first['model']}, N = {first['n_train']}, until training loss ≤ {first['budget_amount']:g}, "
            f"n = {found.n} seeds, {study.targets['learning_rate'].nunique()} rates, brackets: 95 % (Student t of logs), "
            f"profile {study.about['profile']}."
        ),
    )
    return closed(scale_figures.critical, study.targets, study.noise), caption


def descent_figure(study: tables.Tables) -> tuple[Figure, style.Caption]:
    """Three ways down, with their caption."""
    last = study.paths["updates"].max()
    ends = study.paths[(study.paths["net"] == "net") & (study.paths["updates"] == last)].set_index("batch")["loss"]
    share = study.paths.set_index("net")["share"]["net"].iloc[0]
    losses = ", ".join(f"{loss:.3g} at B = {batch}" for batch, loss in ends.sort_index().items())
    caption = style.Caption(
        finding=f"Single examples wander, a mini-batch of 32 goes nearly the way of the full batch: loss {losses}.",
        shows=(
            f"The first {last} updates from one start (star) over contours of the training loss, joined at some of them. "
            "a: a linear neuron with two weights and squared error; b: the net, on the plane that holds "
            f"{share:.0%} of the spread of the three ways."
        ),
        basis=(
            f"digits, N = {study.paths['n'].iloc[0]}, SGD, η = {study.paths['learning_rate'].iloc[0]:g}, one seed: a picture, "
            "not a measurement."
        ),
    )
    return closed(scale_figures.descent, study.paths, study.planes), caption


def steadiness_figure(study: tables.Tables) -> tuple[Figure, style.Caption]:
    """How steady training is and how far it goes, with its caption."""
    found = judge.verdict("C19", study.epochs)
    caption = style.Caption(
        finding=f"Does a larger batch make training oscillate less? {capitalise(found.word)}: {found.summary}.",
        shows=(
            "a, b: standard deviation of the noise on the logarithm of the loss from epoch to epoch, over the last two "
            "thirds of the epochs; c: mean length of an update; d: of the path an epoch; e: distance from the start and "
            "f: validation loss at the end. Curves keep the learning rate η, or η/B, fixed; dots are seeds."
        ),
        basis=(
            f"{found.data}, n = {count_seeds(study.epochs)} paired seeds, bands and brackets: 95 % (Student t), "
            f"profile {study.about['profile']}."
        ),
    )
    return closed(main_figures.steadiness, study.epochs), caption


def mnist_figure(study: tables.Tables) -> tuple[Figure, style.Caption]:
    """The noise scale of MNIST beside published values, with its caption."""
    start, late = (mean_scale(study.mnist, epoch) for epoch in (study.mnist["epoch"].min(), study.mnist["epoch"].max()))
    first, other = study.mnist.iloc[0], study.first_epoch.iloc[0]
    caption = style.Caption(
        finding=f"The noise scale grows from {start} examples at the start to {late} after 20 epochs.",
        shows=(
            f"a: B_simple along training at B = {first['trained_at']}, η = 0.1, N = {first['n']:,}; dotted: published for "
            f"another net (McCandlish et al. 2018, table 1). b: within the first epoch at B = {other['trained_at']}, "
            f"η = 0.01, N = {other['n']:,}; dotted: the mean of an independent replication. c: relative error of random "
            "batches, dotted: B_simple / B; late in training a few examples hold most of the spread, which the few batches "
            "of one that were drawn often miss."
        ),
        basis=f"mnist, {first['model']}, n = {count_seeds(study.mnist)} seeds, bands and brackets: 95 % (Student t of logs).",
    )
    return closed(scale_figures.mnist, study.mnist, study.first_epoch), caption


def mean_scale(noise: pd.DataFrame, epoch: float) -> str:
    """B_simple at an epoch: geometric mean over seeds, with its interval."""
    values = noise[noise["epoch"] == epoch].drop_duplicates("seed")["simple"]
    return with_interval(*np.exp(mean_interval(np.log(values))))
