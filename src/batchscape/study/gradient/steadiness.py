"""How steady training is from one evaluation to the next, and what the last batch of an epoch does."""

import numpy as np
import pandas as pd


def wobble(values: np.ndarray) -> float:
    """Standard deviation of the noise on a curve whose trend is nearly straight from one point to the next.

    Independent noise of variance σ² on a straight line has second differences of variance 6 σ².

    Args:
        values: The curve at equal distances, float, shape (points,).

    Returns:
        √(mean of squared second differences / 6); NaN with fewer than three points.

    Example:
        >>> float(wobble(np.arange(10.0)))
        0.0
    """
    return float(np.sqrt(np.mean(np.diff(values, 2) ** 2) / 6)) if len(values) > 2 else np.nan


def add_steadiness(runs: pd.DataFrame, curves: pd.DataFrame, *, after: float) -> pd.DataFrame:
    """The table of runs with how much their losses wobble, and with how far they went, in three measures.

    Args:
        runs: One row a run, of a budget of epochs.
        curves: One row an evaluation, one an epoch.
        after: Epoch after which a curve counts.

    Returns:
        `runs` with `train_wobble` and `val_wobble` (of the logarithm of the loss), `step_length` (mean ‖w_{t+1} − w_t‖),
        `path_per_epoch` (its sum over an epoch); their `distance` ‖w − w₀‖ they have already.
    """
    late = curves[curves["epoch"] > after].sort_values(["hash", "epoch"])
    losses = {name: np.log(late[f"{name}_loss"]).groupby(late["hash"]).apply(np.asarray) for name in ("train", "val")}
    return runs.assign(
        **{f"{name}_wobble": runs["hash"].map(found.map(wobble)) for name, found in losses.items()},
        step_length=runs["path_length"] / runs["updates"],
        path_per_epoch=runs["path_length"] / runs["epoch"],
    )


def effect_of_last_batches(curves: pd.DataFrame, *, per_epoch: int, epochs: int = 5) -> pd.DataFrame:
    """How the validation loss changes in the last update of an epoch, against the other ones.

    Args:
        curves: Evaluations after every update, one row each, of runs told apart by `seed`.
        per_epoch: Updates an epoch.
        epochs: Epochs that are taken together.

    Returns:
        One row a seed and group of epochs: `epoch` (the last one of the group), `last_change` and `other_change` (mean
        relative change of the validation loss in such an update), `last_size` and `other_size` (their root mean square).
    """
    rows = []
    for seed, run in curves.sort_values("updates").groupby("seed"):
        changes = np.diff(np.log(run["val_loss"].to_numpy()))
        updates = run["updates"].to_numpy()[1:].astype(int)
        group = -(-updates // (per_epoch * epochs)) * epochs
        for epoch in np.unique(group):
            inside, last = group == epoch, updates % per_epoch == 0
            parts = {"last": changes[inside & last], "other": changes[inside & ~last]}
            means = {f"{name}_change": part.mean() for name, part in parts.items()}
            sizes = {f"{name}_size": np.sqrt(np.mean(part**2)) for name, part in parts.items()}
            rows.append({"seed": seed, "epoch": float(epoch), **means, **sizes})
    return pd.DataFrame(rows)
