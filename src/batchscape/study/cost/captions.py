"""The figure of the study of costs, with its caption."""

from matplotlib.figure import Figure

from batchscape.plot import style
from batchscape.study import judge, tables
from batchscape.study.captions import capitalise, closed, count_seeds
from batchscape.study.cost import figures


def cost_figure(study: tables.Tables) -> tuple[Figure, style.Caption]:
    """What a batch costs in time and memory, with its caption."""
    found = judge.verdict("C61", study.timings)
    plateau = judge.verdict("C61b", study.timings)
    caption = style.Caption(
        finding=(
            f"Does a larger batch make an epoch shorter? {capitalise(found.word)}: {found.summary}. Up to a plateau? "
            f"{capitalise(plateau.word)}."
        ),
        shows=(
            "a: examples a second of `model.fit`; b: time of an update, rounds as dots, lines a + b B through their medians, "
            "fitted with relative errors, dotted: the fixed cost a; c: largest resident memory of a process that trains two "
            "updates, less that of the line through it at B = 0, dotted: input and outputs of all layers; d: time of an "
            "epoch relative to that at the largest batch, beside the published table (one run each, other hardware)."
        ),
        basis=(
            f"{found.data}: {study.timings.groupby('net')['repeat'].nunique().max()} interleaved repeats in each, "
            f"n = {count_seeds(study.timings)} rounds, bands and brackets: 95 % (Student t), profile {study.about['profile']}."
        ),
    )
    return closed(figures.costs, study.timings, study.peaks), caption
