"""Sentences that captions share, and figures drawn in the style of all."""

from collections.abc import Callable

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from batchscape.plot import style
from batchscape.stats.paired import mean_interval, with_interval
from batchscape.study import judge, tables


def closed(draw: Callable[..., Figure], *arguments, **options) -> Figure:
    """Return a figure drawn in the style of all, and closed for pyplot, so that a notebook shows it once."""
    with style.paper():
        figure = draw(*arguments, **options)
    plt.close(figure)
    return figure


def capitalise(text: str) -> str:
    """Return a text with its first letter in upper case, and the others as they are."""
    return text[:1].upper() + text[1:]


def count_seeds(frame: pd.DataFrame) -> int:
    """Return the number of replicates in a table: seeds, or rounds of a cost study; 1 where it has neither."""
    replicates = [name for name in ("seed", "round") if name in frame]
    return int(frame[replicates[0]].nunique()) if replicates else 1


def basis(study: tables.Tables) -> str:
    """Return the sentence of a caption on data, model, budget, number of seeds and profile of the main job."""
    return (
        f"{judge.describe(study.runs)}, n = {count_seeds(study.runs)} paired seeds, bands and brackets: 95 % (Student t), "
        f"profile {study.about['profile']}."
    )


def answer(question: str, claim: str, study: tables.Tables) -> str:
    """Return a question followed by the verdict on a statement, with its evidence."""
    found = judge.verdict(claim, study.runs)
    return f"{question} {capitalise(found.word)}: {found.summary}."


def loss_ratio(wide: pd.DataFrame, start: float, end: float) -> str:
    """Return the ratio of the losses at two positions on a line, with its interval over seeds."""
    columns = [wide.columns[np.abs(wide.columns - place).argmin()] for place in (start, end)]
    return f"× {with_interval(*np.exp(mean_interval(np.log(wide[columns[1]] / wide[columns[0]]))))}"
