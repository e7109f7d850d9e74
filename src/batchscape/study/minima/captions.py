"""Figures of the study of minima, each with its caption."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from batchscape.plot import style
from batchscape.stats.paired import mean_interval, with_interval
from batchscape.study import judge, published, tables
from batchscape.study.captions import capitalise, closed, count_seeds
from batchscape.study.main import figures as main_figures
from batchscape.study.minima import figures

COUNTED_ABOVE = 0.1
"""The eigenvalue above which the others are counted, in nats per squared weight."""


def sharpness_figure(study: tables.Tables) -> tuple[Figure, style.Caption]:
    """Six measures of sharpness against batch size, with their caption."""
    words = {id: judge.verdict(id, study.minima).word for id in ("C42b", "C42c", "C42d")}
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
            f"{judge.describe(study.minima)}, n = {count_seeds(study.minima)} paired seeds, bands: 95 % (Student t), "
            f"profile {study.about['profile']}."
        ),
    )
    return closed(main_figures.sharpness, study.minima), caption


def controls_figure(study: tables.Tables) -> tuple[Figure, style.Caption]:
    """What happens to minima when training goes on, weights are rescaled, or decay, with its caption."""
    went = judge.verdict("C46", study.escapes)
    decays = sorted(study.flip["weight_decay"].unique())
    caption = style.Caption(
        finding=f"Does the noise of a small batch lead from a sharp minimum to a flatter one? {capitalise(went.word)}.",
        shows=(
            f"a, b: largest eigenvalue and distance from the initial weights, where training goes on from minima of full batch "
            f"with B = {study.escapes['escaped_to'].iloc[0]} at the same η, at the same η/B, and with full batch for as many "
            "updates; c: measures after the first layer is multiplied, and the second divided, by α, which leaves the function "
            "alone (Dinh et al. 2017); d: width of the basin (loss ≤ 0.5) of the small batch ÷ that of the large one, in a net "
            f"with BatchNorm trained with a weight decay of {decays[0]:g} and {decays[-1]:g} (Li et al. 2018); dots are seeds."
        ),
        basis=(
            f"{went.data}; c: {study.rescaled['model'].iloc[0]}; d: {study.flip['model'].iloc[0]}; n = "
            f"{count_seeds(study.escapes)} paired seeds, bands and bars: 95 % (Student t), profile {study.about['profile']}."
        ),
    )
    return closed(figures.controls, study.escapes, study.rescaled, study.flip), caption


def spectra_figure(study: tables.Tables) -> tuple[Figure, style.Caption]:
    """The whole spectrum of the Hessian at small and large batches, with its caption."""
    found = "; ".join(f"{family}: {ratio}" for family, ratio in counted(study.spectra, COUNTED_ABOVE).items())
    vectors, steps = study.spectra[["vectors", "steps"]].iloc[0]
    caption = style.Caption(
        finding=(
            "Is it the largest eigenvalue alone that grows with the batch? "
            f"Eigenvalues above {COUNTED_ABOVE:g}, largest ÷ smallest batch: {found}."
        ),
        shows=(
            "At the first crossing of the same training loss: how many eigenvalues of the Hessian of the training loss exceed "
            "λ (lines), and how many are below −λ (dotted), at the smallest and the largest batch that keep the learning "
            f"rate η, or η/B. Stochastic Lanczos quadrature with {vectors} random vectors of {steps} steps; counts below one "
            "are those of an eigenvalue that the vectors hold too little of."
        ),
        basis=(
            f"{judge.describe(study.minima)}, n = {count_seeds(study.spectra)} paired seeds, bands and brackets: 95 % "
            f"(Student t; brackets of logs), profile {study.about['profile']}."
        ),
    )
    return closed(figures.spectra, study.spectra), caption


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
    found = judge.verdict("C42m" if first["model"] == "keskar_c1" else "C42k", study.published)
    caption = style.Caption(
        finding=f"Is the large batch sharper, as published? {capitalise(found.word)}: {found.summary}.",
        shows=(
            "a: Metric 2.1 in the full space on all training examples; b: largest eigenvalue of the Hessian of "
            f"{study.about['hessian_examples']:,} of them; c: distance from the initial weights; d: test accuracy, with the "
            f"moments of BatchNorm as trained, after equal epochs{also}; dotted: published values. Dots are seeds."
        ),
        basis=(
            f"{first['source']}: {first['dataset']}, {first['model']}, N = {first['n_train']}, Adam, n = "
            f"{count_seeds(study.published)} paired seeds, bars: 95 % (Student t)."
        ),
    )
    references = published.KESKAR.get(first["model"], {})
    return closed(figures.published, study.published, references), caption
