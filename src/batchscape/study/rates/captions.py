"""Figures of the study of the learning rate, each with its caption."""

from matplotlib.figure import Figure

from batchscape.plot import style
from batchscape.study import judge, tables
from batchscape.study.captions import capitalise, closed, count_seeds
from batchscape.study.rates import figures


def rates_figure(study: tables.Tables) -> tuple[Figure, style.Caption]:
    """How the learning rate should follow the batch size, with its caption."""
    found = judge.verdict("C53", study.policies)
    edges = study.policies[(study.policies["policy"] == "tuned") & study.policies["at_edge"]]
    edge = (
        f"; circled where a tuned rate is at the edge of the grid (B = {', '.join(map(str, sorted(set(edges['batch']))))})"
        if len(edges)
        else ""
    )
    base = study.policies.iloc[0]
    caption = style.Caption(
        finding=f"Does scaling the rate close the gap between batch sizes? {capitalise(found.word)}: {found.summary}.",
        shows=(
            "a: smallest validation loss along the run against the learning rate, after equal epochs; b, c: the same against "
            f"batch size with the rate of B = {base['base_batch']} kept, scaled by √B and by B, and tuned (each seed on the "
            f"others); d: the tuned rate{edge}. Where a seed diverged nothing is drawn."
        ),
        basis=(
            f"{study.about['description']}, n = {count_seeds(study.rates)} paired seeds, bands and brackets: 95 % (Student t), "
            f"profile {study.about['profile']}."
        ),
    )
    return closed(figures.policies, study.rates, study.policies), caption


def gradual_figure(study: tables.Tables) -> tuple[Figure, style.Caption]:
    """Warm-up, and optimizers on mini-batches, with their caption."""
    warm, rprop = judge.verdict("C54", study.warmups), judge.verdict("C56", study.rules)
    lengths = sorted(study.warmups["warmup"].unique())
    caption = style.Caption(
        finding=f"Should the rate rise gradually? {capitalise(warm.word)}. Does Rprop fail on mini-batches? "
        f"{capitalise(rprop.word)}: {rprop.summary}.",
        shows=(
            f"a: test accuracy after equal epochs at multiples of a rate ∝ B, with {lengths[-1]:g} epochs of linear warm-up "
            "and without; runs that diverged count as chance; dots are seeds. b: training loss after equal updates, each "
            "optimizer at the rate that is best on the other seeds."
        ),
        basis=(
            f"{study.about['description']}, n = {count_seeds(study.rules)} paired seeds, bars and bands: 95 % (Student t), "
            f"profile {study.about['profile']}."
        ),
    )
    return closed(figures.gradual, study.warmups, study.rules), caption


def twins_figure(study: tables.Tables) -> tuple[Figure, style.Caption]:
    """Twins whose rate decays or whose batch grows, with their caption."""
    same, fewer = judge.verdict("C58", study.growth), judge.verdict("C58b", study.growth)
    caption = style.Caption(
        finding=(
            f"Is growing the batch as good as decaying the rate? {capitalise(same.word)}: {same.summary}; {fewer.summary}."
        ),
        shows=(
            "Validation loss at fixed weights against a: epochs and b: updates. η/B is the same in the first two twins at "
            "every epoch; the third changes neither, the fourth has the largest batch from the start, at the same rate."
        ),
        basis=f"{same.data}, n = {count_seeds(study.growth)} paired seeds, bands and brackets: 95 % (Student t), "
        f"profile {study.about['profile']}.",
    )
    return closed(figures.twins, study.growth_curves), caption
