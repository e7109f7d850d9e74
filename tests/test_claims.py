"""Verdicts: made-up tables of runs whose truth is known."""

import numpy as np
import pandas as pd
import pytest

from batchscape.errors import InvalidInput
from batchscape.stats import families as strata
from batchscape.study import columns, judge, readings

RNG = np.random.default_rng(0)


def runs_of(effect_at_rate, effect_at_ratio, *, noise=0.02, seeds=10):
    """Runs whose λ_max grows like B^effect in each stratum, with a little noise."""
    cells = [(8, 0.1, 0.0), (32, 0.1, effect_at_rate), (128, 0.1, 2 * effect_at_rate)]
    cells += [(32, 0.4, effect_at_ratio), (128, 1.6, 2 * effect_at_ratio)]
    rows = []
    for batch, rate, log_value in cells:
        for seed in range(seeds):
            rows.append(
                {
                    "hash": f"{batch}-{rate}-{seed}",
                    "status": "COMPLETE",
                    "reached": True,
                    "dataset": "digits",
                    "model": "mlp",
                    "budget": "until_loss",
                    "budget_amount": 0.01,
                    "last_batch": "keep",
                    "n_train": 1280,
                    "batch": batch,
                    "learning_rate": rate,
                    "seed": seed,
                    "train_loss": 0.01,
                    "updates_per_epoch": -(-1280 // batch),
                    "lambda_max": np.exp(log_value + RNG.normal(0, noise)),
                }
            )
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("at_rate", "at_ratio", "word"),
    [
        (0.5, 0.5, "holds"),
        (-0.5, -0.5, "reversed"),
        (0.0, 0.0, "no effect"),
        (0.5, 0.0, "holds at fixed rate only (no effect at fixed rate/batch)"),
        (0.5, -0.5, "holds at fixed rate only (reversed at fixed rate/batch)"),
        (0.0, 0.5, "no effect at fixed rate, holds at fixed rate/batch"),
    ],
)
def test_the_word_follows_the_truth_of_both_strata(at_rate, at_ratio, word):
    assert judge.verdict("C42", runs_of(at_rate, at_ratio)).word == word


def test_noise_that_hides_an_effect_is_not_shown_and_says_what_would_have_been_seen():
    found = judge.verdict("C42", runs_of(0.02, 0.02, noise=1.0, seeds=6))
    assert found.word == "not shown"
    assert all(comparison.detectable > 1.5 for comparison in found.comparisons)


def test_a_comparison_is_the_largest_batch_against_the_smallest_with_paired_seeds():
    found = judge.verdict("C42", runs_of(0.5, 0.0, noise=1e-6))
    first = found.comparisons[0]
    assert (first.stratum, first.small, first.large, first.n, first.left_out) == ("fixed rate", 8, 128, 10, 0)
    assert first.ratio == pytest.approx(np.e, rel=1e-4)
    assert first.p_value == 2 / 2**10


def test_runs_that_missed_their_target_or_diverged_are_counted_and_left_out():
    runs = runs_of(0.5, 0.0)
    runs["reached"] = runs["reached"].astype(object)
    runs.loc[(runs["batch"] == 8) & (runs["seed"] == 0), "reached"] = False
    runs.loc[(runs["batch"] == 128) & (runs["seed"] == 1), ["status", "reached"]] = ["DIVERGED", None]
    first = judge.verdict("C42", runs).comparisons[0]
    assert (first.n, first.left_out) == (8, 2)
    assert "2 left out" in str(first)


def test_a_stratum_in_which_nothing_can_be_compared_is_not_shown():
    runs = runs_of(0.5, 0.0)
    runs.loc[runs["learning_rate"] == 1.6, "reached"] = False
    found = judge.verdict("C42", runs)
    assert found.comparisons[1].n == 0
    assert "no pair to compare (10 left out)" in str(found.comparisons[1])
    assert found.word == "holds at fixed rate only (not shown at fixed rate/batch)"


def test_losses_that_do_not_match_are_flagged():
    runs = runs_of(0.5, 0.0)
    runs.loc[(runs["batch"] == 8) & (runs["seed"] < 3), "train_loss"] = 0.008
    assert "differ by more than 10% in 3 pairs" in judge.verdict("C42", runs).comparisons[0].note


def test_an_exact_count_holds_only_if_every_run_has_it():
    runs = runs_of(0.5, 0.0)
    assert judge.verdict("C22", runs).word == "holds"
    runs.loc[0, "updates_per_epoch"] += 1
    found = judge.verdict("C22", runs)
    assert found.word == "fails"
    assert found.summary == "49 of 50 runs have exactly this count"


def test_families_are_told_apart_by_rate_and_by_ratio():
    families = strata.families(runs_of(0.5, 0.0))
    assert [(family.stratum, family.label, family.batches) for family in families] == [
        ("fixed rate", "η = 0.1", [8, 32, 128]),
        ("fixed rate/batch", "η/B = 0.0125", [8, 32, 128]),
    ]


def test_the_loss_after_some_epochs_is_the_first_evaluation_from_there_on():
    runs = pd.DataFrame({"hash": ["a", "b"]})
    curves = pd.DataFrame({"hash": list("aaab"), "epoch": [4.9, 5.0, 6.0, 3.0], "train_loss": [0.4, 0.3, 0.2, 0.9]})
    added = columns.add_loss_after(runs, curves)["train_loss_after_5_epochs"]
    assert added.iloc[0] == 0.3
    assert np.isnan(added.iloc[1])


def test_every_statement_of_the_register_is_complete():
    register = judge.register()
    assert {"C22", "C23", "C24", "C42", "C43", "C45"} <= set(register)
    for claim in register.values():
        assert claim.statement.endswith(".")
        assert set(claim.articles) <= {"000", "001", "002", "003", "004"}
        compared = claim.quantity and claim.label and claim.predicted in ("larger", "smaller")
        read = claim.reading in readings.READINGS and claim.label and claim.between[0] < claim.between[1]
        assert [bool(claim.exact), bool(compared), bool(read), claim.subject == "words"].count(True) == 1
        assert claim.subject in judge.SUBJECTS


def test_the_time_to_the_target_is_that_of_undisturbed_updates():
    runs = pd.DataFrame({"updates": [10, 20], "seconds_per_update": [0.5, 0.1]})
    assert columns.add_seconds(runs)["seconds_to_target"].tolist() == [5.0, 2.0]
    assert "seconds_to_target" not in columns.add_seconds(runs.drop(columns="seconds_per_update"))


def test_an_unknown_statement_or_a_missing_column_is_refused():
    with pytest.raises(InvalidInput, match="Received: claim='C99'"):
        judge.verdict("C99", runs_of(0, 0))
    with pytest.raises(InvalidInput, match="needs the column 'distance'"):
        judge.verdict("C45", runs_of(0, 0))
    with pytest.raises(InvalidInput, match="needs runs"):
        judge.verdict("C42", pd.DataFrame())


def test_verdicts_become_one_table_with_a_row_a_comparison():
    table = judge.to_table([judge.verdict(claim, runs_of(0.5, 0.0)) for claim in ("C22", "C42")])
    assert table["id"].tolist() == ["C22", "C42", "C42"]
    assert table["ratio"].notna().tolist() == [False, True, True]
