"""The study of the learning rate: how it should follow the batch size."""

import os

from batchscape import profiles
from batchscape.data import load_dataset
from batchscape.judge.policies import by_policy
from batchscape.profiles import RatesProfile
from batchscape.record import environment
from batchscape.sweep.run import run_sweep
from batchscape.sweep.store import Store
from batchscape.tables import Tables

COLUMNS = (
    *("dataset", "model", "n_train", "budget", "budget_amount", "batch", "learning_rate", "seed", "status"),
    *("updates", "epoch", "train_loss", "best_val_loss", "best_val_epoch", "test_loss", "test_accuracy"),
)
"""Columns of the table `rates`."""


def run_rates_study(profile: str | RatesProfile, store: str | os.PathLike | Store, **how) -> Tables:
    """Train every batch size at every rate, for equal epochs and for equal updates.

    Args:
        profile: The name of a profile in `RATES_PROFILES`, or a `RatesProfile`.
        store: A folder, or a `Store`.
        **how: `executor`, `workers` and `show_progress`; see `run_sweep`.

    Returns:
        `Tables` with `rates` (one row a run) and `policies` (one row a budget, batch size, policy and seed; see
        `by_policy`).
    """
    profile = profiles.find(profile, profiles.RATES_PROFILES)
    how = profiles.execution(profile, how)
    data = load_dataset(profile.dataset, train_size=profile.train_size)
    rates = run_sweep(profile.grid(data.n_train), store=store, **how)[list(COLUMNS)]
    policies = by_policy(
        rates,
        base_batch_size=profile.base_batch_size,
        base_rate=profile.base_rate,
        chance=1 / data.meta["num_classes"],
    )
    description = f"{profile.dataset}, {profile.model}, N = {data.n_train}, SGD, {profile.epochs} epochs"
    return Tables(
        {"rates": rates, "policies": policies},
        {"profile": profile.name, "description": description, "environment": environment()},
    )
