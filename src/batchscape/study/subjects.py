"""Kinds of tables: how to tell them apart, where a value is read in each, and the words for the data behind them."""

import dataclasses
from collections.abc import Callable

import pandas as pd

from batchscape.stats import families
from batchscape.stats.time_to_target import of_all_seeds

Places = list[tuple[str, pd.DataFrame]]
"""Names of places and their rows, in order."""

POLICIES = {"fixed": "at one rate", "sqrt": "η ∝ √B", "linear": "η ∝ B"}
"""What policies of the learning rate are called as places."""


def describe(runs: pd.DataFrame) -> str:
    """Return data, model and budget of a table of runs, in words."""
    first = runs.iloc[0]
    budget = {
        "until_loss": f"until training loss ≤ {first['budget_amount']:g}",
        "epochs": f"{first['budget_amount']:g} epochs",
        "updates": f"{first['budget_amount']:g} updates",
        "examples": f"{first['budget_amount']:g} examples",
    }[first["budget"]]
    return f"{first['dataset']}, {first['model']}, N = {first['n_train']}, {budget}"


def count_of(epochs: float) -> str:
    """A number of epochs in words, such as "1 epoch"."""
    return f"{epochs:g} epoch{'s' if epochs > 1 else ''}"


def _along_training(table: pd.DataFrame) -> Places:
    return [
        ("at the start" if epoch == 0 else f"after {count_of(epoch)}", rows) for epoch, rows in table.groupby("epoch")
    ]


def _at_the_end(table: pd.DataFrame) -> Places:
    return [("at the end", table)]


def _beside_the_base(policies: pd.DataFrame) -> Places:
    """Each budget with all batch sizes, and with each of them beside the one where the policies agree."""
    found = []
    for budget, rows in policies.groupby("budget"):
        base = rows["base_batch"].iloc[0]
        others = sorted(set(rows["batch"]) - {base})
        if len(others) > 1:
            found.append((f"equal {budget}", rows))
        for batch in others:
            found.append((f"B = {batch} (equal {budget})", rows[rows["batch"].isin([base, batch])]))
    return found


def _at_multiples(warmups: pd.DataFrame) -> Places:
    """Each batch size at each multiple of a rate ∝ B."""
    return [
        (f"B = {batch} ({'' if multiple == 1 else f'{multiple:g} times '}η ∝ B)", rows)
        for (batch, multiple), rows in warmups.groupby(["batch", "times_linear"])
    ]


def _by_batch_size(rules: pd.DataFrame) -> Places:
    return [(f"B = {batch}", rows) for batch, rows in rules.groupby("batch")]


def _by_factor(rescaled: pd.DataFrame) -> Places:
    """Each factor, beside no rescaling."""
    factors = sorted(set(rescaled["factor"]) - {1.0})
    return [(f"α = {factor:g}", rescaled[rescaled["factor"].isin([1.0, factor])]) for factor in factors]


def _by_family(minima: pd.DataFrame) -> Places:
    return [(f"at fixed {family.label}", family.runs) for family in families.families(minima)]


def _by_decay(flip: pd.DataFrame) -> Places:
    return [(f"at a weight decay of {decay:g}", rows) for decay, rows in flip.groupby("weight_decay")]


def _beside_the_next(runs: pd.DataFrame) -> Places:
    """Each batch size beside the next one, at one rate: what K times as many workers make of it."""
    return [
        (f"B {small} → {large}", family.runs[family.runs["batch"].isin([small, large])])
        for family in families.families(runs)
        if family.stratum == families.FIXED_RATE
        for small, large in zip(family.batches, family.batches[1:], strict=False)
    ]


def _by_policy(arrivals: pd.DataFrame) -> Places:
    """Each policy, with the batch sizes that all seeds have."""
    present = set(arrivals["policy"])
    return [
        (called, of_all_seeds(arrivals[arrivals["policy"] == policy]))
        for policy, called in POLICIES.items()
        if policy in present
    ]


def _by_net(table: pd.DataFrame) -> Places:
    """Each net, and the narrowest beside the widest."""
    places = _nets_alone(table)
    for model, rows in table.groupby("model", sort=False):
        ends = rows[rows["width"].isin([rows["width"].min(), rows["width"].max()])]
        if ends["width"].nunique() > 1:
            places.append((f"{model}, width {ends['width'].min()} → {ends['width'].max()}", ends))
    return places


def _nets_alone(table: pd.DataFrame) -> Places:
    return [(net, table[table["net"] == net]) for net in table["net"].unique()]


def _net(table: pd.DataFrame) -> str:
    first = table.iloc[0]
    return f"{first['dataset']}, {first['model']}, N = {first['n']}"


def _net_along_training(table: pd.DataFrame) -> str:
    return f"{_net(table)}, along training at B = {table['trained_at'].iloc[0]}"


def _net_from_minima(table: pd.DataFrame) -> str:
    return f"{_net(table)}, from minima of B = N to B = {table['escaped_to'].iloc[0]}"


def _net_on_a_grid(table: pd.DataFrame) -> str:
    first = table.iloc[0]
    return f"{first['dataset']}, {first['model']}, N = {first['n_train']}, rates on a grid"


def _net_to_target(arrivals: pd.DataFrame) -> str:
    first = arrivals.iloc[0]
    return (
        f"{first['dataset']}, {first['model']}, N = {first['n_train']}, {first['epochs']} epochs, to a validation accuracy "
        f"of {first['target']:g}"
    )


def _rounds(table: pd.DataFrame) -> str:
    first = table.iloc[0]
    return f"{first['dataset']}, N = {first['n_train']}, {table['round'].nunique()} rounds of fresh processes, CPU"


def _sizes(table: pd.DataFrame) -> str:
    return f"{table['dataset'].iloc[0]}, N = {table['n'].min():,} to {table['n'].max():,}"


@dataclasses.dataclass(frozen=True)
class Subject:
    """What a table is about.

    Attributes:
        column: A column that tells it.
        called: What to call the table.
        places: Where a value is read in it, each place with its rows.
        describe: The data, the model and the budget behind it, in words.
        replicate: The column of what is repeated, over which means and intervals go.
    """

    column: str
    called: str
    places: Callable[[pd.DataFrame], Places] = _along_training
    describe: Callable[[pd.DataFrame], str] = _net_along_training
    replicate: str = "seed"


SUBJECTS = {
    "words": Subject("said", "the table of `count_definitions`"),
    "timings": Subject("milliseconds", "the table `timings` of a cost study", _by_net, _rounds, "round"),
    "peaks": Subject("activation_bytes", "the table `peaks` of a cost study", _nets_alone, _rounds, "round"),
    "counts": Subject("counted", "the table `counts` of a cost study", describe=describe),
    "gradients": Subject("relative_error", "the table `noise` of a study of gradients"),
    "last batches": Subject("last_change", "the table `tails` of a study of gradients"),
    "shape": Subject("residual", "the table `surface` of a study of gradients"),
    "cost": Subject("gradient_seconds", "the table `cost` of a study of gradients", describe=_sizes),
    "epochs": Subject("val_wobble", "the table `epochs` of a study of gradients", describe=describe),
    "target": Subject("epoch_to_target", "the table `arrivals` of a target study", _by_policy, _net_to_target),
    "policies": Subject("policy", "the table `policies` of a rates study", _beside_the_base, _net_on_a_grid),
    "warm-up": Subject("times_linear", "the table `warmups` of a rates study", _at_multiples, _net_on_a_grid),
    "optimizers": Subject("rule", "the table `rules` of a rates study", _by_batch_size, _net_on_a_grid),
    "growth": Subject("schedule", "the table `growth` of a rates study", _at_the_end, describe),
    "grid": Subject("times_base", "the table `rates` of a rates study"),
    "published": Subject("source", "the table `published` of a replication", _by_family, describe),
    "rescaled": Subject("factor", "the table `rescaled` of a minima study", _by_factor, _net),
    "minima": Subject("phi", "the table `minima` of a minima study", _by_family, describe),
    "escapes": Subject("arm", "the table `escapes` of a minima study", describe=_net_from_minima),
    "flip": Subject("width", "the table `flip` of a minima study", _by_decay, _net),
    "training": Subject("status", "a table of runs", _beside_the_next, describe),
}
"""All of them, by name; a table is about the first whose column it has."""


def subject_of(table: pd.DataFrame) -> str:
    """Return which kind of table this is, judged by its columns; `""` if no statement uses such a table."""
    return next((name for name, subject in SUBJECTS.items() if subject.column in table), "")
