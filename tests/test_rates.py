"""Learning rates that follow the batch size: the table of policies, its readings, and the study."""

import re

import numpy as np
import pandas as pd
import pytest

import batchscape as bs
from batchscape.errors import InvalidInput
from batchscape.study import gallery, judge, readings
from batchscape.study.main import readings as on_training
from batchscape.study.rates import readings as on_rates
from batchscape.study.rates.policies import by_policy
from batchscape.study.rates.profile import RATES_PROFILES

RATES = 0.1 * 2.0 ** np.arange(-2, 5)


def losses(batch, rate, seed):
    """A bowl in log η, lowest where η ∝ B, with a seed's own level."""
    return np.exp((np.log2(rate / 0.1) - np.log2(batch / 32)) ** 2 / 10) * (1 + 0.01 * seed)


def sweep(loss=losses, batches=(16, 32, 128), seeds=4):
    rows = [
        {
            "dataset": "digits", "model": "mlp", "n_train": 128, "budget": budget, "batch": batch, "learning_rate": rate,
            "seed": seed, "status": "DIVERGED" if np.isnan(loss(batch, rate, seed)) else "COMPLETE",
            "train_loss": loss(batch, rate, seed), "best_val_loss": 2 * loss(batch, rate, seed),
            "test_loss": 3 * loss(batch, rate, seed), "test_accuracy": 0.9,
        }
        for budget in ("epochs", "updates") for batch in batches for rate in RATES for seed in range(seeds)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def chosen(runs):
    return by_policy(runs, base_batch_size=32, base_rate=0.1)


def test_policies_take_the_rates_that_they_name():
    table = chosen(sweep()).drop_duplicates(["batch", "policy"]).set_index(["policy", "batch"])["learning_rate"]
    assert table["fixed"].to_dict() == pytest.approx({16: 0.1, 32: 0.1, 128: 0.1})
    assert table["sqrt"].to_dict() == pytest.approx({32: 0.1, 128: 0.2})  # 0.1 / √2 is not on the grid.
    assert table["linear"].to_dict() == pytest.approx({16: 0.05, 32: 0.1, 128: 0.4})
    assert table["tuned"].to_dict() == pytest.approx({16: 0.05, 32: 0.1, 128: 0.4})


def test_a_rate_is_tuned_on_the_other_seeds():
    def loss(batch, rate, seed):  # Each seed has a rate that suits it alone.
        return 0.1 if rate == RATES[seed] else 1 + rate

    table = chosen(sweep(loss, seeds=4))
    tuned, best = (table[table["policy"] == policy] for policy in ("tuned", "best"))
    assert (best["learning_rate"].to_numpy() == RATES[best["seed"]]).all()
    assert not (tuned["learning_rate"].to_numpy() == RATES[tuned["seed"]]).any()


def test_a_rate_at_which_another_seed_diverged_is_not_chosen():
    def loss(batch, rate, seed):
        return np.nan if seed == 1 and rate > 0.15 else 1 / rate

    tuned = chosen(sweep(loss)).query("policy == 'tuned'").set_index(["budget", "batch", "seed"])["learning_rate"]
    assert tuned["epochs", 32].to_dict() == pytest.approx({0: 0.1, 1: 1.6, 2: 0.1, 3: 0.1})
    fixed = chosen(sweep(lambda *_: np.nan)).query("policy == 'fixed'")
    assert np.isinf(fixed["test_loss"]).all()
    assert (fixed["test_accuracy"] == 0.1).all()


def test_runs_without_what_policies_are_judged_by_are_refused():
    with pytest.raises(InvalidInput, match=r"Received: none of \['budget', 'test_loss'\]"):
        chosen(sweep().drop(columns=["budget", "test_loss"]))


def test_the_edge_of_the_grid_is_flagged():
    table = chosen(sweep(lambda batch, rate, seed: 1 / rate))
    assert table.query("policy == 'tuned'")["at_edge"].all()
    assert not table.query("policy == 'fixed'")["at_edge"].any()


def test_readings_compare_a_batch_size_with_the_base():
    table = chosen(sweep())
    places = dict(readings._places(table))
    assert list(places)[:3] == ["equal epochs", "B = 16 (equal epochs)", "B = 128 (equal epochs)"]
    of_seed = {place: rows[rows["seed"] == 1] for place, rows in places.items()}
    large, small, both = (
        of_seed[place] for place in ("B = 128 (equal epochs)", "B = 16 (equal epochs)", "equal epochs")
    )
    worse = np.exp(4 / 10)
    values = {name: function for name, (function, _) in on_rates.VALUES.items()}
    assert values["training_of_linear_scaling"](large) == pytest.approx(1)
    assert values["training_of_sqrt_scaling"](large) == pytest.approx(np.exp(1 / 10))
    assert values["validation_of_sqrt_by_linear"](large) == pytest.approx(np.exp(1 / 10))
    assert values["gap_closed_by_linear_scaling"](large) == pytest.approx(1)
    assert values["training_of_full_batch"](large) == pytest.approx(worse)
    assert values["training_of_full_batch_tuned"](large) == pytest.approx(1)
    assert values["accuracy_tuned"](small) == pytest.approx(0)
    assert values["spread_tuned_by_fixed"](both) == pytest.approx(0, abs=1e-9)
    assert values["training_of_linear_scaling"](small) is None  # It is about larger batches.
    assert values["training_of_linear_scaling"](both) is None
    assert values["training_at_equal_updates"](large) is None
    assert values["training_of_one_tuned"](large) is None


def test_values_at_a_batch_of_one():
    table = chosen(sweep(lambda batch, rate, seed: 1.0 if batch > 1 else np.nan if rate > 0.05 else 2.0, (1, 32)))
    rows = dict(readings._places(table))["B = 1 (equal epochs)"].query("seed == 0")
    values = {name: function(rows) for name, (function, _) in on_rates.VALUES.items() if "one" in name.split("_")}
    assert values["accuracy_of_one"] == 0.1
    assert values["training_of_one_tuned"] == pytest.approx(2)
    assert values["rate_of_one"] == pytest.approx(RATES[0] / RATES[0])


def test_a_statement_may_predict_a_value_outside_of_a_range():
    table = chosen(sweep())
    inside = judge.verdict("C49", table)
    assert inside.word == "fails"
    shifted = table.assign(test_accuracy=np.where(table["batch"] == 32, 0.8, 0.9) + 1e-4 * table["seed"])
    assert judge.verdict("C49", shifted).word == "holds"


def test_values_of_warm_up_and_of_optimizers():
    rows = pd.DataFrame({
        "dataset": "digits", "model": "mlp", "n_train": 128, "batch": 128, "times_linear": 2.0, "seed": 0,
        "warmup": [5.0, 0.0], "test_accuracy": [0.95, 0.1],
    })  # fmt: skip
    ((place, found),) = readings._places(rows)
    assert place == "B = 128 (2 times η ∝ B)"
    assert on_rates.accuracy_from_warmup(found) == pytest.approx(0.85)
    rules = pd.DataFrame({
        "dataset": "digits", "model": "mlp", "n_train": 128, "seed": 0, "batch": [32, 32, 32, 128, 128, 128],
        "rule": ["SGD", "Rprop", "RMSprop"] * 2, "train_loss": [0.1, np.inf, 0.3, 0.2, 0.1, 0.4],
    })  # fmt: skip
    (mini, of_mini), (full, of_full) = readings._places(rules)
    assert (mini, full) == ("B = 32", "B = 128")
    assert np.isnan(on_rates.rprop_by_sgd(of_mini))
    assert on_rates.rprop_by_sgd_in_full(of_mini) is None
    assert on_rates.rmsprop_by_sgd(of_mini) == pytest.approx(3)
    assert on_rates.rprop_by_sgd_in_full(of_full) == pytest.approx(0.5)
    assert on_rates.rprop_by_sgd(of_full) is None
    assert on_rates.rmsprop_by_sgd(of_full) is None


def test_the_grid_has_the_same_updates_for_every_batch_size():
    profile = RATES_PROFILES["paper"]
    grid = profile.grid(1280)
    assert len(grid) == 2 * 6 * 12 * 10
    assert {cell.updates for cell in grid if cell.updates} == {1200}
    assert {cell.evaluate_every for cell in grid if cell.updates and cell.batch_size == "full"} == {120}


def test_the_study_runs_and_is_drawn(tmp_path):
    study = bs.study.run_rates_study("smoke", bs.study.folder_of("smoke") / "rates", show_progress=False)
    assert len(study.rates) == len(RATES_PROFILES["smoke"].grid(320))
    assert sorted(study.warmups["warmup"]) == [0, 0, 0.5, 0.5]
    assert sorted(study.rules["rule"]) == ["Rprop", "Rprop", "SGD", "SGD"]
    study.save(tmp_path / "tables")
    judged = {found.claim.id: found.word for found in judge.verdicts(study.policies)}
    assert judged.keys() == {name for name, claim in judge.register().items() if claim.subject == "policies"}
    assert all(re.match("holds|fails|reversed|no effect|not shown|not measured", word) for word in judged.values())
    assert any(word != "not measured" for word in judged.values())
    files = gallery.draw_all(tmp_path / "tables", tmp_path / "figures")
    assert files["fig12_learning_rates"].stat().st_size > 10_000
    assert files["fig13_warmup_optimizers"].stat().st_size > 10_000


def test_the_share_of_the_bound_on_epochs():
    rows = pd.DataFrame({"batch": [64, 8], "epoch": [20.0, 10.0], "reached": True, "learning_rate": 0.1, "seed": 0})
    assert on_training.share_of_bound(rows) == pytest.approx(1 / 3)
    assert np.isnan(on_training.share_of_bound(rows.assign(reached=[True, False])))
