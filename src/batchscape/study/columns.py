"""Columns that studies add to a table of runs."""

import numpy as np
import pandas as pd


def add_seconds(runs: pd.DataFrame) -> pd.DataFrame:
    """Add the training time of each run to its end, in seconds: updates × the time of an update without evaluations.

    Returns:
        The table with the column `seconds_to_target`; unchanged where the time of an update is not known.
    """
    if "seconds_per_update" not in runs:
        return runs
    return runs.assign(seconds_to_target=runs["updates"] * runs["seconds_per_update"])


def add_loss_after(runs: pd.DataFrame, curves: pd.DataFrame, *, epochs: int = 5) -> pd.DataFrame:
    """Add the training loss at the first evaluation after some epochs; NaN for shorter runs."""
    late = curves[curves["epoch"] >= epochs - 1e-9].sort_values("epoch")
    losses = late.groupby("hash")["train_loss"].first()
    return runs.assign(**{f"train_loss_after_{epochs}_epochs": runs["hash"].map(losses).astype(np.float64)})


def add_distances(runs: pd.DataFrame, curves: pd.DataFrame, *, updates: int = 320, epochs: int = 5) -> pd.DataFrame:
    """Add the distance from the initial weights after equal updates, and after equal epochs.

    A distance is NaN unless the run was evaluated at exactly this update (or epoch).
    """
    at_updates = curves[curves["updates"] == updates].groupby("hash")["distance"].first()
    at_epochs = curves[(curves["epoch"] - epochs).abs() < 1e-9].groupby("hash")["distance"].first()
    return runs.assign(
        **{
            f"distance_after_{updates}_updates": runs["hash"].map(at_updates).astype(np.float64),
            f"distance_after_{epochs}_epochs": runs["hash"].map(at_epochs).astype(np.float64),
        }
    )
