"""The figure of the study of the time to a target, with its caption."""

from matplotlib.figure import Figure

from batchscape.plot import style
from batchscape.study import judge, tables
from batchscape.study.captions import capitalise, closed
from batchscape.study.target import figures


def target_figure(study: tables.Tables) -> tuple[Figure, style.Caption]:
    """What a target costs at each batch size, with its caption."""
    found = judge.verdict("C32", study.arrivals)
    first = study.arrivals.iloc[0]
    several = study.arrivals.groupby("batch")["seed"].nunique()
    once = ", ".join(map(str, several.index[several == 1]))
    caption = style.Caption(
        finding=f"Is some batch size in between the fastest? {capitalise(found.word)}: {found.summary}.",
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
    return closed(figures.target, study.arrivals), caption
