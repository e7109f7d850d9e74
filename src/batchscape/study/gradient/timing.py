"""What the gradient of all examples costs as their number grows."""

import time
from collections.abc import Mapping, Sequence

import pandas as pd

from batchscape.landscape.objective import Objective


def gradient_seconds(objectives: Mapping[str, Sequence[Objective]], *, repeats: int = 10) -> pd.DataFrame:
    """Seconds of a full gradient, all objectives in turn in every repeat, so that a drifting machine does not decide.

    Args:
        objectives: By name of the net, objectives on different numbers of examples.
        repeats: How often each is timed, after one pass that compiles.

    Returns:
        One row a repeat and objective: `seed` (the repeat), `net`, `n` and `gradient_seconds`.
    """
    rows = []
    for repeat in range(-1, repeats):
        for net, sizes in objectives.items():
            for f in sizes:
                weights = f.weights
                begin = time.perf_counter()
                f.gradient(weights)
                row = {"seed": repeat, "net": net, "n": f.n_examples, "gradient_seconds": time.perf_counter() - begin}
                rows += [row] if repeat >= 0 else []
    return pd.DataFrame(rows)
