"""Which learning rate goes with which batch size: rates that stay, grow as √B or as B, and the best one of a grid."""

import numpy as np
import pandas as pd

POLICIES = {"fixed": 0.0, "sqrt": 0.5, "linear": 1.0}
"""How the rate follows the batch size B: η ∝ Bᵖ, by name."""

TUNED, BEST = "tuned", "best"
"""The rate that is best on the validation data of the other seeds, and the one with the smallest training loss of this."""

RESULTS = ("train_loss", "best_val_loss", "test_loss", "test_accuracy")


def by_policy(runs: pd.DataFrame, *, base_batch_size: int, base_rate: float, chance: float = 0.1) -> pd.DataFrame:
    """What each policy makes of each batch size, from a sweep over batch sizes and learning rates.

    The rate of `"tuned"` is chosen for each seed by the mean validation loss of the *other* seeds, so that the choice does
    not flatter the seed that it is judged by: the best of K rates on one's own validation data looks better than it is. A
    rate at which one of them diverged is not chosen.

    Args:
        runs: One row a run, with `budget`, `batch`, `learning_rate`, `seed`, `status` and `RESULTS`.
        base_batch_size, base_rate: Where all policies but the last two agree.
        chance: Accuracy of runs that diverged; their losses are infinite.

    Returns:
        One row a budget, batch size, policy and seed: `learning_rate`, `RESULTS`, `at_edge` (the rate is the smallest or
        the largest of the grid), `flattery` (tuned on one's own validation data, smallest validation loss ÷ that of the
        rate chosen by the others) and `deviation` (|log of the test loss ÷ its median over seeds|). Policies whose rate is
        not on the grid are left out.
    """
    diverged = runs["status"] == "DIVERGED"
    runs = runs.assign(**{name: runs[name].where(~diverged, np.inf) for name in RESULTS if name.endswith("loss")})
    runs["test_accuracy"] = runs["test_accuracy"].where(~diverged, chance)
    found = []
    for (_, batch), rows in runs.groupby(["budget", "batch"]):
        rates = sorted(rows["learning_rate"].unique())
        chosen = {}
        for policy, power in POLICIES.items():
            rate = base_rate * (batch / base_batch_size) ** power
            nearest = min(rates, key=lambda other, rate=rate: abs(np.log(other / rate)))
            if np.isclose(nearest, rate, rtol=1e-3):
                chosen[policy] = dict.fromkeys(rows["seed"].unique(), nearest)
        chosen[TUNED] = _tuned(rows)
        chosen[BEST] = _argmin(rows.pivot(index="seed", columns="learning_rate", values="train_loss"))
        for policy, of_seeds in chosen.items():
            pairs = pd.DataFrame({"seed": list(of_seeds), "learning_rate": list(of_seeds.values())})
            picked = pairs.merge(rows, on=["seed", "learning_rate"])
            edge = picked["learning_rate"].isin([rates[0], rates[-1]])
            found.append(picked.assign(policy=policy, at_edge=edge, deviation=_deviation(picked["test_loss"])))
    table = pd.concat(found, ignore_index=True)
    own = runs.groupby(["budget", "batch", "seed"])["best_val_loss"].min().rename("own").reset_index()
    table = table.merge(own, on=["budget", "batch", "seed"])
    table["flattery"] = (table["own"] / table["best_val_loss"]).where(table["policy"] == TUNED)
    return table.drop(columns="own").assign(base_batch=base_batch_size)


def _tuned(rows: pd.DataFrame) -> dict[int, float]:
    """For each seed, the rate with the smallest mean validation loss of the other seeds."""
    losses = rows.pivot(index="seed", columns="learning_rate", values="best_val_loss").fillna(np.inf)
    if len(losses) == 1:
        return _argmin(losses)
    return {seed: losses.drop(index=seed).mean().idxmin() for seed in losses.index}


def _argmin(losses: pd.DataFrame) -> dict[int, float]:
    return losses.fillna(np.inf).idxmin(axis=1).to_dict()


def _deviation(losses: pd.Series) -> pd.Series:
    """|log x − median| of each value."""
    logs = np.log(losses.replace(np.inf, np.nan))
    return (logs - logs.median()).abs()
