"""Tuning on synthetic runs, where the best rate and the bias of choosing it are known."""

import numpy as np
import pandas as pd
import pytest

import batchscape as bs
from batchscape.errors import InvalidInput

RATES = (0.01, 0.03, 0.1, 0.3, 1.0)


def runs_of(value, *, batches=(8, 32), rates=RATES, seeds=10, diverges=lambda batch, rate: False, **columns):
    """One row a run; value(batch, rate, seed) is the validation loss, the test loss is 1 more."""
    rows = []
    for batch in batches:
        for rate in rates:
            for seed in range(seeds):
                loss = value(batch, rate, seed)
                status = "DIVERGED" if diverges(batch, rate) else "COMPLETE"
                loss = np.nan if status == "DIVERGED" else loss
                rows.append({"batch": batch, "learning_rate": rate, "seed": seed, "status": status,
                             "val_loss": loss, "test_loss": loss + 1.0, **columns})  # fmt: skip
    return pd.DataFrame(rows)


def bowl(batch, rate, seed):
    """Best at 0.1 for batch 8 and at 0.3 for batch 32; seeds shift all rates alike."""
    return (np.log(rate) - np.log(0.1 if batch == 8 else 0.3)) ** 2 + 0.01 * seed


def test_the_best_rate_of_each_batch_size_is_found_and_a_clear_choice_flatters_nothing():
    table = bs.tune_learning_rate(runs_of(bowl)).set_index("batch")
    assert table["learning_rate"].to_dict() == {8: 0.1, 32: 0.3}
    assert (table["edge"] == "").all()
    assert table[["n_rates", "n_seeds", "agreement", "diverged"]].to_numpy().tolist() == [[5, 10, 1, 0]] * 2
    assert table["chosen"].tolist() == pytest.approx([0.045, 0.045])
    assert table["optimism"].tolist() == pytest.approx([0, 0])
    assert table["reported"].tolist() == pytest.approx([1.045, 1.045])


def test_the_edges_of_the_grid_are_flagged_but_not_beside_rates_that_diverged():
    low, high = (bs.tune_learning_rate(runs_of(lambda b, r, s, k=k: k * r + 0.01 * s)) for k in (1, -1))
    assert set(low["edge"]) == {"lowest"}
    assert set(high["edge"]) == {"highest"}
    cut = bs.tune_learning_rate(runs_of(lambda b, r, s: -r, diverges=lambda b, r: r > 0.2))
    assert cut["learning_rate"].tolist() == [0.1, 0.1]
    assert set(cut["edge"]) == {""}


def test_one_diverged_seed_rules_a_rate_out_and_all_of_them_leave_none():
    runs = runs_of(bowl, batches=(8,))
    runs.loc[(runs["learning_rate"] == 0.1) & (runs["seed"] == 4), ["status", "val_loss"]] = "DIVERGED", 0.0
    table = bs.tune_learning_rate(runs).iloc[0]
    assert table["learning_rate"] == pytest.approx(0.03, rel=0.2) or table["learning_rate"] == 0.3
    tuned = bs.tuned_runs(runs).set_index("seed")
    assert tuned.loc[4, "learning_rate"] == 0.1  # The other nine never saw it diverge: an honest failure, counted.
    assert table["diverged"] == 1
    assert np.isnan(table["optimism"])
    none = bs.tune_learning_rate(runs_of(bowl, batches=(8,), diverges=lambda b, r: True)).iloc[0]
    assert np.isnan(none["learning_rate"])
    assert (none["diverged"], none["edge"]) == (10, "")


def test_the_optimism_of_the_best_of_k_is_what_pure_noise_makes_it():
    """All rates are alike, so the truth is 0 everywhere: what the choice shows is the minimum of K means of n."""
    rng, k, n, repeats = np.random.default_rng(0), 8, 5, 60
    rates = np.geomspace(0.01, 1, k)
    expected = rng.normal(size=(20_000, k)).min(axis=1).mean() / np.sqrt(n)
    found = pd.concat(
        bs.tune_learning_rate(runs_of(lambda b, r, s: rng.normal(), batches=(8,), rates=rates, seeds=n))
        for _ in range(repeats)
    )
    error = 4 / np.sqrt(repeats * n)
    assert found["chosen"].mean() == pytest.approx(expected, abs=error / 2)
    assert found["held_out"].mean() == pytest.approx(0, abs=error)
    assert found["optimism"].mean() == pytest.approx(-expected, abs=error)
    assert found["reported"].mean() == pytest.approx(1, abs=error)


def test_what_is_reported_for_a_seed_comes_from_the_rate_that_the_others_choose():
    """Seed 0 alone likes 1.0, and so strongly that the mean of all does."""
    runs = runs_of(lambda b, r, s: -100.0 * (r == 1.0) * (s == 0) + (r != 0.1), batches=(8,), seeds=4)
    assert bs.tune_learning_rate(runs)["learning_rate"].item() == 1.0
    assert bs.tuned_runs(runs).set_index("seed")["learning_rate"].to_dict() == {0: 0.1, 1: 1.0, 2: 1.0, 3: 1.0}
    assert bs.tune_learning_rate(runs)["agreement"].item() == 0.75


def test_accuracies_are_chosen_large():
    runs = runs_of(bowl).assign(val_accuracy=lambda t: 1 - t["val_loss"], test_accuracy=lambda t: 2 - t["val_loss"])
    how = {"choose": "val_accuracy", "report": "test_accuracy", "larger_is_better": True}
    table = bs.tune_learning_rate(runs, **how)
    assert table["learning_rate"].tolist() == [0.1, 0.3]
    assert table["chosen"].tolist() == pytest.approx([0.955, 0.955])
    assert table["reported"].tolist() == pytest.approx([1.955, 1.955])


def test_a_single_seed_chooses_for_itself_and_says_nothing_of_optimism():
    table = bs.tune_learning_rate(runs_of(bowl, seeds=1))
    assert table["learning_rate"].tolist() == [0.1, 0.3]
    assert table[["optimism", "held_out", "agreement", "reported_low"]].isna().all(axis=None)
    assert table["reported"].tolist() == pytest.approx([1.0, 1.0])


@pytest.mark.parametrize(
    "spoil",
    [
        lambda runs: runs.iloc[1:],
        lambda runs: pd.concat([runs, runs.iloc[:1]]),
        lambda runs: runs.assign(status="FAILED"),
        lambda runs: runs.drop(columns="val_loss"),
        lambda runs: runs.iloc[:0],
    ],
    ids=["missing", "twice", "failed", "no column", "none"],
)
def test_runs_that_cannot_be_compared_are_refused(spoil):
    with pytest.raises(InvalidInput, match="Received: "):
        bs.tune_learning_rate(spoil(runs_of(bowl)))


def test_rates_are_even_in_the_logarithm_and_a_draw_fills_every_gap():
    assert bs.log_rates(1e-3, 1, 4) == [0.001, 0.01, 0.1, 1.0]
    draw = np.sort(np.log10(bs.log_rates(1e-3, 1, 16, seed=5)))
    assert np.diff(draw).max() < 2.01 * 3 / 16
    assert bs.log_rates(1e-3, 1, 16, seed=5) != bs.log_rates(1e-3, 1, 16, seed=6)
    for bad in ((0, 1, 3), (1, 0.1, 3), (0.1, 1, 1)):
        with pytest.raises(InvalidInput, match="Received: low="):
            bs.log_rates(*bad)
