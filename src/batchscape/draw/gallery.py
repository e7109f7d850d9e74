"""All stored figures, from tables: what `batchscape figures` draws."""

import os
import pathlib
from collections.abc import Callable

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from batchscape import tables
from batchscape.draw import cost_study, lines, minima, noise, rates, scale, style, sweeps, target
from batchscape.judge import claims
from batchscape.judge.stats import mean_interval, with_interval
from batchscape.noise.critical import critical_batch_size


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
        name = OF_PROFILE.get((name, study.about["profile"]), name)
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
        finding=f"Does the variance of the gradient fall as 1 / B? {_sentence(found.word)}: {found.summary}.",
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
    return _closed(scale.critical, study.targets, study.noise), caption


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
    return _closed(scale.descent, study.paths, study.planes), caption


def steadiness_figure(study: tables.Tables) -> tuple[Figure, style.Caption]:
    """How steady training is and how far it goes, with its caption."""
    found = claims.verdict("C19", study.epochs)
    caption = style.Caption(
        finding=f"Does a larger batch make training oscillate less? {_sentence(found.word)}: {found.summary}.",
        shows=(
            "a, b: standard deviation of the noise on the logarithm of the loss from epoch to epoch, over the last two "
            "thirds of the epochs; c: mean length of an update; d: of the path an epoch; e: distance from the start and "
            "f: validation loss at the end. Curves keep the learning rate η, or η/B, fixed; dots are seeds."
        ),
        basis=(
            f"{found.data}, n = {_seeds(study.epochs)} paired seeds, bands and brackets: 95 % (Student t), "
            f"profile {study.about['profile']}."
        ),
    )
    return _closed(sweeps.steadiness, study.epochs), caption


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
        basis=f"mnist, {first['model']}, n = {_seeds(study.mnist)} seeds, bands and brackets: 95 % (Student t of logs).",
    )
    return _closed(scale.mnist, study.mnist, study.first_epoch), caption


def sharpness_figure(study: tables.Tables) -> tuple[Figure, style.Caption]:
    """Six measures of sharpness against batch size, with their caption."""
    words = {id: claims.verdict(id, study.minima).word for id in ("C42b", "C42c", "C42d")}
    caption = style.Caption(
        finding=(
            f"Are larger batches sharper? By Keskar's metric: {words['C42b']}; by adaptive sharpness: {words['C42c']}; by the "
            f"average rise: {words['C42d']}."
        ),
        shows=(
            "At the first crossing of the same training loss. a: largest eigenvalue of the Hessian, dotted: 2/η, where full "
            "batch becomes unstable; b: Metric 2.1 in the full space, ε = 1e-3, ten iterations of L-BFGS-B; c: largest rise of "
            "the loss within 0.05 of the minimum and d: mean rise over Gaussian steps of 0.01 a weight; e and f: the same with "
            "steps in proportion to each weight. Curves keep the learning rate η, or η/B, fixed; dots are seeds."
        ),
        basis=(
            f"{claims.describe(study.minima)}, n = {_seeds(study.minima)} paired seeds, bands: 95 % (Student t), "
            f"profile {study.about['profile']}."
        ),
    )
    return _closed(sweeps.sharpness, study.minima), caption


def controls_figure(study: tables.Tables) -> tuple[Figure, style.Caption]:
    """What happens to minima when training goes on, weights are rescaled, or decay, with its caption."""
    went = claims.verdict("C46", study.escapes)
    decays = sorted(study.flip["weight_decay"].unique())
    caption = style.Caption(
        finding=f"Does the noise of a small batch lead from a sharp minimum to a flatter one? {_sentence(went.word)}.",
        shows=(
            f"a, b: largest eigenvalue and distance from the initial weights, where training goes on from minima of full batch "
            f"with B = {study.escapes['escaped_to'].iloc[0]} at the same η, at the same η/B, and with full batch for as many "
            "updates; c: measures after the first layer is multiplied, and the second divided, by α, which leaves the function "
            "alone (Dinh et al. 2017); d: width of the basin (loss ≤ 0.5) of the small batch ÷ that of the large one, in a net "
            f"with BatchNorm trained with a weight decay of {decays[0]:g} and {decays[-1]:g} (Li et al. 2018); dots are seeds."
        ),
        basis=(
            f"{went.data}; c: {study.rescaled['model'].iloc[0]}; d: {study.flip['model'].iloc[0]}; n = {_seeds(study.escapes)} "
            f"paired seeds, bands and bars: 95 % (Student t), profile {study.about['profile']}."
        ),
    )
    return _closed(minima.controls, study.escapes, study.rescaled, study.flip), caption


def spectra_figure(study: tables.Tables) -> tuple[Figure, style.Caption]:
    """The whole spectrum of the Hessian at small and large batches, with its caption."""
    found = "; ".join(f"{family}: {ratio}" for family, ratio in counted(study.spectra, COUNTED_ABOVE).items())
    caption = style.Caption(
        finding=(
            "Is it the largest eigenvalue alone that grows with the batch? "
            f"Eigenvalues above {COUNTED_ABOVE:g}, largest ÷ smallest batch: {found}."
        ),
        shows=(
            "At the first crossing of the same training loss: how many eigenvalues of the Hessian of the training loss exceed "
            "λ (lines), and how many are below −λ (dotted), at the smallest and the largest batch that keep the learning "
            "rate η, or η/B. Stochastic Lanczos quadrature with 4 random vectors of 60 steps; counts below one are those of "
            "an eigenvalue that the vectors hold too little of."
        ),
        basis=(
            f"{claims.describe(study.minima)}, n = {_seeds(study.spectra)} paired seeds, bands and brackets: 95 % "
            f"(Student t; brackets of logs), profile {study.about['profile']}."
        ),
    )
    return _closed(minima.spectra, study.spectra), caption


COUNTED_ABOVE = 0.1
"""The eigenvalue above which the others are counted, in nats per squared weight."""


def counted(spectra: pd.DataFrame, value: float) -> dict[str, str]:
    """Eigenvalues above a value at the largest batch ÷ at the smallest, by family: geometric mean over seeds with some."""
    found = {}
    for family, rows in spectra[np.isclose(spectra["value"], value)].groupby("family", sort=False):
        wide = rows.pivot(index="seed", columns="batch", values="above")
        wide = wide[(wide > 0).all(axis=1)]
        if len(wide) > 1:
            ratio = mean_interval(np.log(wide[max(wide)] / wide[min(wide)]))
            found[family] = f"× {with_interval(*np.exp(ratio))}"
    return found


def published_figure(study: tables.Tables) -> tuple[Figure, style.Caption]:
    """A published comparison of two batches, done again, with its caption."""
    first = study.published.iloc[0]
    also = " and at equal training loss" if study.published["budget"].nunique() > 1 else ""
    found = claims.verdict("C42m" if first["model"] == "keskar_c1" else "C42k", study.published)
    caption = style.Caption(
        finding=f"Is the large batch sharper, as published? {_sentence(found.word)}: {found.summary}.",
        shows=(
            "a: Metric 2.1 in the full space on all training examples; b: largest eigenvalue of the Hessian of "
            f"{study.about['hessian_examples']:,} of them; c: distance from the initial weights; d: test accuracy, with the "
            f"moments of BatchNorm as trained, after equal epochs{also}; dotted: published values. Dots are seeds."
        ),
        basis=(
            f"{first['source']}: {first['dataset']}, {first['model']}, N = {first['n_train']}, Adam, n = "
            f"{_seeds(study.published)} paired seeds, bars: 95 % (Student t)."
        ),
    )
    references = PUBLISHED.get(first["model"], {})
    return _closed(minima.published, study.published, references), caption


def rates_figure(study: tables.Tables) -> tuple[Figure, style.Caption]:
    """How the learning rate should follow the batch size, with its caption."""
    found = claims.verdict("C53", study.policies)
    edges = study.policies[(study.policies["policy"] == "tuned") & study.policies["at_edge"]]
    edge = (
        f"; circled where a tuned rate is at the edge of the grid (B = {', '.join(map(str, sorted(set(edges['batch']))))})"
        if len(edges)
        else ""
    )
    base = study.policies.iloc[0]
    caption = style.Caption(
        finding=f"Does scaling the rate close the gap between batch sizes? {_sentence(found.word)}: {found.summary}.",
        shows=(
            "a: smallest validation loss along the run against the learning rate, after equal epochs; b, c: the same against "
            f"batch size with the rate of B = {base['base_batch']} kept, scaled by √B and by B, and tuned (each seed on the "
            f"others); d: the tuned rate{edge}. Where a seed diverged nothing is drawn."
        ),
        basis=(
            f"{study.about['description']}, n = {_seeds(study.rates)} paired seeds, bands and brackets: 95 % (Student t), "
            f"profile {study.about['profile']}."
        ),
    )
    return _closed(rates.policies, study.rates, study.policies), caption


def gradual_figure(study: tables.Tables) -> tuple[Figure, style.Caption]:
    """Warm-up, and optimizers on mini-batches, with their caption."""
    warm, rprop = claims.verdict("C54", study.warmups), claims.verdict("C56", study.rules)
    lengths = sorted(study.warmups["warmup"].unique())
    caption = style.Caption(
        finding=f"Should the rate rise gradually? {_sentence(warm.word)}. Does Rprop fail on mini-batches? "
        f"{_sentence(rprop.word)}: {rprop.summary}.",
        shows=(
            f"a: test accuracy after equal epochs at multiples of a rate ∝ B, with {lengths[-1]:g} epochs of linear warm-up "
            "and without; runs that diverged count as chance; dots are seeds. b: training loss after equal updates, each "
            "optimizer at the rate that is best on the other seeds."
        ),
        basis=(
            f"{study.about['description']}, n = {_seeds(study.rules)} paired seeds, bars and bands: 95 % (Student t), "
            f"profile {study.about['profile']}."
        ),
    )
    return _closed(rates.gradual, study.warmups, study.rules), caption


def twins_figure(study: tables.Tables) -> tuple[Figure, style.Caption]:
    """Twins whose rate decays or whose batch grows, with their caption."""
    same, fewer = claims.verdict("C58", study.growth), claims.verdict("C58b", study.growth)
    caption = style.Caption(
        finding=(
            f"Is growing the batch as good as decaying the rate? {_sentence(same.word)}: {same.summary}; {fewer.summary}."
        ),
        shows=(
            "Validation loss at fixed weights against a: epochs and b: updates. η/B is the same in the first two twins at "
            "every epoch; the third changes neither, the fourth has the largest batch from the start, at the same rate."
        ),
        basis=f"{same.data}, n = {_seeds(study.growth)} paired seeds, bands and brackets: 95 % (Student t), "
        f"profile {study.about['profile']}.",
    )
    return _closed(rates.twins, study.growth_curves), caption


def cost_figure(study: tables.Tables) -> tuple[Figure, style.Caption]:
    """What a batch costs in time and memory, with its caption."""
    found = claims.verdict("C61", study.timings)
    plateau = claims.verdict("C61b", study.timings)
    caption = style.Caption(
        finding=(
            f"Does a larger batch make an epoch shorter? {_sentence(found.word)}: {found.summary}. Up to a plateau? "
            f"{_sentence(plateau.word)}."
        ),
        shows=(
            "a: examples a second of `model.fit`; b: time of an update, rounds as dots, lines a + b B through their medians, "
            "fitted with relative errors, dotted: the fixed cost a; c: largest resident memory of a process that trains two "
            "updates, less that of the line through it at B = 0, dotted: input and outputs of all layers; d: time of an "
            "epoch relative to that at the largest batch, beside the published table (one run each, other hardware)."
        ),
        basis=(
            f"{found.data}: {study.timings.groupby('net')['repeat'].nunique().max()} interleaved repeats in each, "
            f"n = {_seeds(study.timings)} rounds, bands and brackets: 95 % (Student t), profile {study.about['profile']}."
        ),
    )
    return _closed(cost_study.costs, study.timings, study.peaks), caption


PUBLISHED = {
    "keskar_f1": {"phi": {"small": 1.23, "large": 205.14}, "test_accuracy": {"small": 0.9803, "large": 0.9781}},
    "keskar_c1": {"phi": {"small": 28.58, "large": 707.23}, "test_accuracy": {"small": 0.8004, "large": 0.7726}},
}
"""Values of Keskar et al. 2017, tables 2 and 3, by model and column."""


def target_figure(study: tables.Tables) -> tuple[Figure, style.Caption]:
    """What a target costs at each batch size, with its caption."""
    found = claims.verdict("C32", study.arrivals)
    first = study.arrivals.iloc[0]
    several = study.arrivals.groupby("batch")["seed"].nunique()
    once = ", ".join(map(str, several.index[several == 1]))
    caption = style.Caption(
        finding=f"Is some batch size in between the fastest? {_sentence(found.word)}: {found.summary}.",
        shows=(
            f"a: epochs and b: seconds of training until the validation accuracy first reaches {first['target']:g} at the end "
            "of an epoch (Kaplan–Meier medians; bars: 95 %, sign test; crosses: fewer than half of the runs reached it); c: "
            "smallest validation error along the run; d: peak memory against b; filled and labelled with B: no other choice "
            "is as good in time, memory and error. The learning rate is the same at every batch size, or ∝ √B, or ∝ B."
            + (f" Open markers in a to c: one seed, B = {once}." if once else "")
        ),
        basis=(
            f"{found.data}, n = {int(several.max())} paired seeds, bands: 95 % (Student t), profile "
            f"{study.about['profile']}."
        ),
    )
    return _closed(target.target, study.arrivals), caption


FIGURES = {
    "fig01_sweep_training": ("runs", training_figure),
    "fig02_line_loss": ("lines", line_figure),
    "fig03_curvature_batch": ("runs", curvature_figure),
    "fig04_gradient_noise": ("noise", gradient_figure),
    "fig05_critical_batch": ("targets", critical_figure),
    "fig06_descent_paths": ("paths", descent_figure),
    "fig07_steadiness": ("epochs", steadiness_figure),
    "fig08_mnist_noise_scale": ("mnist", mnist_figure),
    "fig09_sharpness": ("minima", sharpness_figure),
    "fig10_minima_controls": ("escapes", controls_figure),
    "fig11_keskar": ("published", published_figure),
    "fig12_learning_rates": ("rules", rates_figure),
    "fig13_warmup_optimizers": ("warmups", gradual_figure),
    "fig14_twins": ("growth", twins_figure),
    "fig15_cost": ("timings", cost_figure),
    "fig16_time_to_target": ("arrivals", target_figure),
    "fig18_spectra": ("spectra", spectra_figure),
}
"""The figures in their order, each with the table it needs."""

OF_PROFILE = {("fig11_keskar", "keskar-c1"): "fig17_keskar_c1"}
"""Figures that have another name where they are of another profile."""


def _closed(draw: Callable[..., Figure], *arguments, **options) -> Figure:
    """A figure in the style of all, closed for pyplot, so that a notebook shows it once."""
    with style.paper():
        figure = draw(*arguments, **options)
    plt.close(figure)
    return figure


def _sentence(text: str) -> str:
    """A text with its first letter in upper case, and the others as they are."""
    return text[:1].upper() + text[1:]


def _seeds(frame: pd.DataFrame) -> int:
    replicates = [name for name in ("seed", "round") if name in frame]
    return int(frame[replicates[0]].nunique()) if replicates else 1


def picture_numbers(pictures: pd.DataFrame) -> dict[str, str]:
    """What planes show of a run, in words with intervals: means over seeds, by column of the table `pictures`."""
    shares = {name: pictures[name] for name in ("on_first_axis", "on_second_axis", "off_plane")}
    found = {name: with_interval(*mean_interval(values)) for name, values in shares.items()}
    for name in ("on_random_plane", "widest_by_narrowest"):
        found[name] = with_interval(*np.exp(mean_interval(np.log(pictures[name]))))
    return found


def mean_scale(noise: pd.DataFrame, epoch: float) -> str:
    """B_simple at an epoch: geometric mean over seeds, with its interval."""
    values = noise[noise["epoch"] == epoch].drop_duplicates("seed")["simple"]
    return with_interval(*np.exp(mean_interval(np.log(values))))


def _basis(study: tables.Tables) -> str:
    return (
        f"{claims.describe(study.runs)}, n = {_seeds(study.runs)} paired seeds, bands and brackets: 95 % (Student t), "
        f"profile {study.about['profile']}."
    )


def _answer(question: str, claim: str, study: tables.Tables) -> str:
    found = claims.verdict(claim, study.runs)
    return f"{question} {_sentence(found.word)}: {found.summary}."


def _growth(wide: pd.DataFrame, start: float, end: float) -> str:
    """The ratio of the losses at two positions, with its interval over seeds."""
    columns = [wide.columns[np.abs(wide.columns - place).argmin()] for place in (start, end)]
    mean, low, high = np.exp(mean_interval(np.log(wide[columns[1]] / wide[columns[0]])))
    return f"× {mean:.3g} [{low:.3g}, {high:.3g}]"
