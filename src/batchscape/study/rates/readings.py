"""Values of a seed in the tables of `run_rates_study`: policies, warm-up, optimizers.

Rows of `policies` are those of one budget, with all batch sizes or with two: the base, where the policies agree, and
another one, B. Rows of `warmups` are those of a batch size and rate, rows of `rules` those of a batch size, rows of
`growth` those of all schedules.
"""

import dataclasses

import numpy as np
import pandas as pd

from batchscape.study import readings

ABOUT = {
    "larger": lambda batch, base, n: batch > base,
    "one": lambda batch, base, n: batch == 1,
    "full": lambda batch, base, n: batch == n,
    "any": lambda batch, base, n: True,
}
"""Which batch sizes a question is about, from B, that of the base and N."""


@dataclasses.dataclass(frozen=True)
class AgainstBase:
    """A quantity at B under one policy, against that of the base under another.

    Attributes:
        quantity: A column.
        policy: At B.
        base: At the base.
        budget: `"epochs"` or `"updates"`; None for both.
        about: In `ABOUT`.
        difference: Whether it is B's value less that of the base, and not the ratio.
    """

    quantity: str
    policy: str
    base: str = "fixed"
    budget: str | None = "epochs"
    about: str = "larger"
    difference: bool = False

    def __call__(self, rows: pd.DataFrame) -> float | None:
        """The value; None where the question does not arise, NaN where a run diverged."""
        base_batch, n, budget = (rows[name].iat[0] for name in ("base_batch", "n_train", "budget"))
        others = set(rows["batch"]) - {base_batch}
        if len(others) != 1 or self.budget not in (None, budget):
            return None
        (batch,) = others
        values = dict(zip(zip(rows["policy"], rows["batch"], strict=True), rows[self.quantity], strict=True))
        if (self.policy, batch) not in values or not ABOUT[self.about](batch, base_batch, n):
            return None
        here, base = values[self.policy, batch], values[self.base, base_batch]
        found = here - base if self.difference else here / base if base else np.nan
        return float(found) if np.isfinite(found) else np.nan


LINEAR = AgainstBase("best_val_loss", "linear")
SQRT = AgainstBase("best_val_loss", "sqrt")
FIXED = AgainstBase("best_val_loss", "fixed")


def validation_of_sqrt_by_linear(rows: pd.DataFrame) -> float | None:
    """Smallest validation loss with a rate ∝ √B ÷ that with a rate ∝ B, after equal epochs."""
    of_sqrt, of_linear = SQRT(rows), LINEAR(rows)
    return None if of_sqrt is None or of_linear is None else of_sqrt / of_linear


def gap_closed_by_linear_scaling(rows: pd.DataFrame) -> float | None:
    """Share of the gap in the smallest validation loss, one rate against base, that a rate ∝ B closes; NaN without one."""
    return _gap_closed(rows, LINEAR)


def gap_closed_by_tuning(rows: pd.DataFrame) -> float | None:
    """The same of the tuned rate."""
    return _gap_closed(rows, AgainstBase("best_val_loss", "tuned"))


def _gap_closed(rows: pd.DataFrame, by: AgainstBase) -> float | None:
    fixed, scaled = FIXED(rows), by(rows)
    if fixed is None or scaled is None:
        return None
    return (fixed - scaled) / (fixed - 1) if fixed > 1 else np.nan


def accuracy_of_one(rows: pd.DataFrame) -> float | None:
    """Test accuracy at B = 1 and the rate of the base, after equal epochs."""
    asked = AgainstBase("test_accuracy", "fixed", about="one", difference=True)(rows)
    if asked is None:
        return None
    return float(rows.loc[(rows["policy"] == "fixed") & (rows["batch"] == 1), "test_accuracy"].iloc[0])


def spread_tuned_by_fixed(rows: pd.DataFrame) -> float | None:
    """Range over batch sizes of the log of the smallest validation loss, each at its tuned rate ÷ all at one rate."""
    if rows["batch"].nunique() <= 2:
        return None
    tuned, fixed = (
        np.log(rows.loc[rows["policy"] == policy, "best_val_loss"].replace(np.inf, np.nan).dropna())
        for policy in ("tuned", "fixed")
    )
    return float(np.ptp(tuned) / np.ptp(fixed))


def accuracy_from_warmup(rows: pd.DataFrame) -> float:
    """Test accuracy with warm-up less that without; a run that diverged counts as chance."""
    accuracy = rows.sort_values("warmup")["test_accuracy"]
    return float(accuracy.iloc[-1] - accuracy.iloc[0])


def rprop_by_sgd_in_full(rows: pd.DataFrame) -> float | None:
    """Training loss of Rprop ÷ that of gradient descent, full batch, each at its tuned rate, after equal updates."""
    return _by_sgd(rows, "Rprop") if rows["batch"].iloc[0] == rows["n_train"].iloc[0] else None


def rprop_by_sgd(rows: pd.DataFrame) -> float | None:
    """The same on mini-batches."""
    return _by_sgd(rows, "Rprop") if rows["batch"].iloc[0] < rows["n_train"].iloc[0] else None


def rmsprop_by_sgd(rows: pd.DataFrame) -> float | None:
    """The same of RMSprop on mini-batches; None where it was not asked for."""
    asked = "RMSprop" in set(rows["rule"]) and rows["batch"].iloc[0] < rows["n_train"].iloc[0]
    return _by_sgd(rows, "RMSprop") if asked else None


def grown_by_decayed(rows: pd.DataFrame) -> float:
    """Validation loss at the end where the batch grew ÷ where the rate decayed."""
    return _of_growth(rows, "val_loss", "rate decays")


def updates_of_grown_by_decayed(rows: pd.DataFrame) -> float:
    """Updates where the batch grew ÷ where the rate decayed."""
    return _of_growth(rows, "updates", "rate decays")


def grown_by_neither(rows: pd.DataFrame) -> float:
    """Validation loss at the end where the batch grew ÷ where neither changed."""
    return _of_growth(rows, "val_loss", "neither")


def grown_by_large(rows: pd.DataFrame) -> float:
    """Validation loss at the end where the batch grew ÷ where it was large at once."""
    return _of_growth(rows, "val_loss", "large at once")


def _of_growth(rows: pd.DataFrame, quantity: str, other: str) -> float:
    values = rows.set_index("schedule")[quantity]
    return float(values["batch grows"] / values[other])


def _by_sgd(rows: pd.DataFrame, rule: str) -> float:
    losses = rows.set_index("rule")["train_loss"]
    ratio = losses[rule] / losses["SGD"]
    return float(ratio) if np.isfinite(ratio) else np.nan


VALUES = {
    "grown_by_decayed": (grown_by_decayed, True),
    "updates_of_grown_by_decayed": (updates_of_grown_by_decayed, True),
    "grown_by_neither": (grown_by_neither, True),
    "grown_by_large": (grown_by_large, True),
    "accuracy_from_warmup": (accuracy_from_warmup, False),
    "rprop_by_sgd_in_full": (rprop_by_sgd_in_full, True),
    "rprop_by_sgd": (rprop_by_sgd, True),
    "rmsprop_by_sgd": (rmsprop_by_sgd, True),
    "training_of_linear_scaling": (AgainstBase("train_loss", "linear"), True),
    "training_of_sqrt_scaling": (AgainstBase("train_loss", "sqrt"), True),
    "validation_of_linear_scaling": (LINEAR, True),
    "validation_of_sqrt_by_linear": (validation_of_sqrt_by_linear, True),
    "gap_closed_by_linear_scaling": (gap_closed_by_linear_scaling, False),
    "gap_closed_by_tuning": (gap_closed_by_tuning, False),
    "accuracy_tuned": (AgainstBase("test_accuracy", "tuned", "tuned", None, "any", difference=True), False),
    "spread_tuned_by_fixed": (spread_tuned_by_fixed, True),
    "training_at_equal_updates": (AgainstBase("train_loss", "fixed", budget="updates"), True),
    "validation_at_equal_updates": (AgainstBase("best_val_loss", "fixed", budget="updates"), True),
    "training_of_full_batch": (AgainstBase("train_loss", "fixed", about="full"), True),
    "training_of_full_batch_tuned": (AgainstBase("train_loss", "tuned", "tuned", about="full"), True),
    "test_of_full_batch": (AgainstBase("test_loss", "fixed", budget=None, about="full"), True),
    "test_of_full_batch_tuned": (AgainstBase("test_loss", "tuned", "tuned", None, "full"), True),
    "accuracy_of_one": (accuracy_of_one, False),
    "accuracy_of_one_scaled": (AgainstBase("test_accuracy", "linear", about="one", difference=True), False),
    "rate_of_one": (AgainstBase("learning_rate", "best", "best", about="one"), True),
    "training_of_one_tuned": (AgainstBase("train_loss", "tuned", "tuned", about="one"), True),
    "deviation_of_one": (AgainstBase("deviation", "tuned", "tuned", about="one", difference=True), False),
}
"""By name: the function, and whether its value is a ratio, whose mean over seeds is geometric."""

readings.register(VALUES)
