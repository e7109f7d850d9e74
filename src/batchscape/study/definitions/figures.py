"""A picture of what the words mean: the updates of an epoch, as they were watched."""

from collections.abc import Mapping

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from batchscape.plot import style
from batchscape.study.definitions.count import Watched


def epochs(watched: Mapping[str, Watched]) -> Figure:
    """One row a way to learn, one box an update, as wide as the examples it used.

    Args:
        watched: What `watch_fit` saw, one epoch each, by the text of its row.

    Returns:
        The figure; a: the boxes, b: which example stood where in the epoch of the last row.
    """
    figure, (boxes, order) = plt.subplots(1, 2, figsize=(style.PAGE, 2.4), width_ratios=(2, 1))
    for row, seen in enumerate(reversed(watched.values())):
        ends = np.cumsum(seen.sizes)
        spans = list(zip(ends - seen.sizes, seen.sizes, strict=True))
        boxes.broken_barh(spans, (row - 0.35, 0.7), facecolors=[style.BLUE, "0.8"], linewidth=0)
        count = f"{seen.updates} update{'s' if seen.updates > 1 else ''}"
        boxes.annotate(f" {count}", (ends[-1], row), va="center", fontsize=7)
    boxes.set_yticks(range(len(watched)), list(reversed(watched)))
    boxes.set_xlim(0, 1.22 * ends[-1])
    boxes.set_xticks(np.linspace(0, ends[-1], 6))
    boxes.set_xlabel("examples used in the epoch")
    last = next(reversed(watched.values()))
    order.plot(np.concatenate(last.batches), ".", color=style.BLUE, markersize=2)
    order.set_xlabel("place in the epoch")
    order.set_ylabel("number of the example")
    style.letter_panels([boxes, order])
    return figure
