"""The study of the learning rate: how it should follow the batch size."""

import os

import pandas as pd

from batchscape.data import load_dataset
from batchscape.stats.tuning import tuned_runs
from batchscape.study import profiles
from batchscape.study.rates.policies import by_policy, count_diverged
from batchscape.study.rates.profile import RatesProfile
from batchscape.study.tables import Tables
from batchscape.sweep.frames import to_frame
from batchscape.sweep.run import run_sweep
from batchscape.sweep.store import Store
from batchscape.train.record import environment

COLUMNS = (
    *("dataset", "model", "n_train", "budget", "budget_amount", "batch", "learning_rate", "seed", "status"),
    *("updates", "epoch", "train_loss", "best_val_loss", "best_val_epoch", "test_loss", "test_accuracy"),
)
"""Columns of the table `rates`."""


def run_rates_study(
    profile: str | RatesProfile,
    store: str | os.PathLike | Store,
    *,
    executor: str = "auto",
    workers: int | None = None,
    show_progress: bool = True,
) -> Tables:
    """Train every batch size at every rate, for equal epochs and for equal updates; with warm-up; by other optimizers.

    Args:
        profile: The name of a profile in `RATES_PROFILES`, or a `RatesProfile`.
        store: A folder, or a `Store`.
        executor, workers, show_progress: See `run_sweep`.

    Returns:
        `Tables` with `rates` (one row a run) and `policies` (one row a budget, batch size, policy and seed; see
        `by_policy`), and, where the profile asks for them, `warmups` (one row a run with or without warm-up) and `rules`
        (one row an optimizer, batch size and seed, at the rate with the smallest training loss of the other seeds), `growth`
        and `growth_curves` (one row a run, and one an evaluation, of twins whose rate decays or whose batch grows).
    """
    profile = profiles.find("rates", profile)
    how = profiles.execution(profile, executor=executor, workers=workers, show_progress=show_progress)
    data = load_dataset(profile.dataset, train_size=profile.train_size)
    rates = run_sweep(profile.grid(data.n_train), store=store, **how)[list(COLUMNS)].copy()
    rates["times_base"] = rates["learning_rate"] / profile.base_rate
    chance = 1 / data.meta["num_classes"]
    policies = by_policy(rates, base_batch_size=profile.base_batch_size, base_rate=profile.base_rate, chance=chance)
    frames = {"rates": rates, "policies": policies}
    if profile.warm_batches:
        frames["warmups"] = _warmups(profile, data.n_train, store, how, chance)
    if profile.rule_batches:
        frames["rules"] = _rules(profile, data.n_train, store, how, chance)
    if profile.grow_at:
        frames |= _growth(profile, store, how)
    description = f"{profile.dataset}, {profile.model}, N = {data.n_train}, SGD, {profile.epochs} epochs"
    return Tables(frames, {"profile": profile.name, "description": description, "environment": environment()})


def _warmups(profile: RatesProfile, n_train: int, store, how: dict, chance: float) -> pd.DataFrame:
    """Large batches at multiples of a rate ∝ B, with and without warm-up."""
    runs = run_sweep(profile.warm_grid(n_train), store=store, **how)
    linear = profile.base_rate * runs["batch"] / profile.base_batch_size
    found = runs[[*COLUMNS, "warmup"]].assign(times_linear=(runs["base_learning_rate"] / linear).round(6))
    return count_diverged(found, chance=chance)


def _rules(profile: RatesProfile, n_train: int, store, how: dict, chance: float) -> pd.DataFrame:
    """Every optimizer at every batch size, at its tuned rate."""
    runs = run_sweep(profile.rule_grid(n_train), store=store, **how)
    tuned = [tuned_runs(rows, choose="train_loss").assign(rule=rule) for rule, rows in runs.groupby("optimizer")]
    return count_diverged(pd.concat(tuned)[[*COLUMNS, "rule"]], chance=chance)


def _growth(profile: RatesProfile, store, how: dict) -> dict[str, pd.DataFrame]:
    """Twins: the rate decays, or the batch grows; beside them neither, and the largest batch at once."""
    runs, curves = [], []
    for schedule, grid in profile.grow_grids().items():
        done = run_sweep(grid, store=store, **how)
        runs.append(done[[*COLUMNS, "val_loss"]].assign(schedule=schedule))
        along = to_frame(map(Store.of(store).load, done["hash"]), curves=True)
        curves.append(along[["seed", "epoch", "updates", "train_loss", "val_loss"]].assign(twin=schedule))
    return {"growth": pd.concat(runs), "growth_curves": pd.concat(curves)}
