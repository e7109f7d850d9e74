"""The time to a target: when runs arrive, medians with runs that do not, the front of choices, and the study."""

import math

import numpy as np
import pandas as pd
import pytest

import batchscape as bs
from batchscape.errors import InvalidInput
from batchscape.study import gallery, judge, readings
from batchscape.study.published import LENET
from batchscape.study.target import readings as on_target
from batchscape.study.target.arrivals import choices, runs_to_target, table_of
from batchscape.study.target.profile import TARGET_PROFILES


def curves_of(name, values, *, batch=8, seed=0, status="COMPLETE", metric="val_accuracy"):
    """A run that is looked at after every epoch of ten updates."""
    epochs = np.arange(len(values))
    shared = {"hash": name, "batch": batch, "learning_rate": 0.1, "seed": seed, "status": status}
    costs = {"epoch": epochs, "updates": 10 * epochs, "examples": 80 * epochs, "seconds": 0.5 * epochs}
    return pd.DataFrame({**shared, **costs, metric: values})


def test_a_run_arrives_at_the_first_evaluation_that_reaches_the_target():
    curves = pd.concat(
        [
            curves_of("early", [0.1, 0.9, 0.7, 0.95]),
            curves_of("late", [0.1, 0.2, 0.3, 0.8], seed=1),
            curves_of("never", [0.1, 0.2, 0.3, 0.4], seed=2),
            curves_of("diverged", [0.1, np.nan], seed=3, status="DIVERGED"),
        ]
    )
    found = bs.time_to_target(curves, 0.8).set_index("hash")
    assert found["arrived"].tolist() == [True, True, False, False]
    assert found["epoch_to_target"].tolist() == [1, 3, math.inf, math.inf]
    assert found["updates_to_target"].tolist() == [10, 30, math.inf, math.inf]
    assert found["seconds_to_target"].tolist() == [0.5, 1.5, math.inf, math.inf]
    assert found["examples_watched"].tolist() == [240, 240, 240, math.inf]


def test_a_loss_is_reached_from_above():
    curves = curves_of("run", [2.0, 1.0, 0.5, 0.6], metric="train_loss")
    assert bs.time_to_target(curves, 0.5, metric="train_loss")["epoch_to_target"].tolist() == [2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metric": "val_loss"}, "no metric 'val_loss', but: val_accuracy"),
        ({"metric": "status"}, "no metric 'status', but: val_accuracy"),
        ({"target": math.nan}, "must be a finite number. Received: nan"),
    ],
)
def test_nonsense_is_refused(options, message):
    with pytest.raises(InvalidInput, match=message):
        bs.time_to_target(curves_of("run", [0.1, 0.9]), **{"target": 0.5, **options})
    with pytest.raises(InvalidInput, match="needs runs"):
        bs.time_to_target(pd.DataFrame(), 0.5)
    with pytest.raises(InvalidInput, match=r"a table without \['hash', 'updates'\]"):
        bs.time_to_target(curves_of("run", [0.1, 0.9]).drop(columns=["hash", "updates"]), 0.5)
    with pytest.raises(InvalidInput, match="Unknown cost"):
        bs.median_to_target(reached_of([1.0], 2.0), "money")
    with pytest.raises(InvalidInput, match="no runs"):
        bs.median_to_target(reached_of([], 2.0))


def reached_of(values, watched):
    values = np.asarray(values, np.float64)
    table = {"batch": 8, "learning_rate": 0.1, "arrived": np.isfinite(values)}
    return pd.DataFrame({**table, "epoch_to_target": values, "epoch_watched": watched})


def product_limit_median(values, watched):
    """The median by Kaplan and Meier's own product: the first time at which Π (1 − dᵢ / nᵢ) is a half or less."""
    ends = np.where(np.isfinite(values), values, watched)
    left = 1.0
    for time in np.unique(values[np.isfinite(values)]):
        left *= 1 - (values == time).sum() / (ends >= time).sum()
        if left <= 0.5 + 1e-12:
            return time
    return math.inf


def test_the_median_is_that_of_the_product_limit():
    rng = np.random.default_rng(0)
    for _ in range(50):
        n = rng.integers(3, 12)
        values = rng.integers(1, 8, n).astype(float)
        watched = rng.integers(1, 9, n).astype(float)
        values[values > watched] = math.inf
        watched[rng.random(n) < 0.1] = math.inf
        watched = np.where(np.isfinite(values), np.maximum(values, np.minimum(watched, 9)), watched)
        found = bs.median_to_target(reached_of(values, watched)).iloc[0]
        assert found["median"] == product_limit_median(values, watched)
        assert (found["runs"], found["arrived"]) == (n, np.isfinite(values).sum())


def test_without_censoring_it_is_the_lower_median_and_the_interval_covers():
    rng = np.random.default_rng(1)
    covered = []
    for _ in range(400):
        values = rng.lognormal(size=6)
        found = bs.median_to_target(reached_of(values, 99.0)).iloc[0]
        assert found["median"] == np.sort(values)[2]
        covered.append(found["low"] <= 1.0 <= found["high"])
    assert np.mean(covered) > 0.94  # 1 − 2 / 2⁶ = 0.969 by construction.
    assert np.isnan(bs.median_to_target(reached_of(values[:5], 99.0))["low"]).all()


def test_the_fastest_choice_depends_on_the_target():
    small = [curves_of(f"s{seed}", [0.1, 0.8, 0.85, 0.9], batch=8, seed=seed) for seed in range(3)]
    large = [curves_of(f"l{seed}", [0.1, 0.7, 0.75, 0.8], batch=64, seed=seed) for seed in range(3)]
    found = bs.fastest_by_target(pd.concat(small + large), pd.Series({8: 4.0, 64: 1.0}), [0.7, 0.8, 0.85, 0.95])
    assert found["batch"].tolist()[:3] == [64, 64, 8]  # 1 s against 4, 3 against 4, and never.
    assert found["seconds"].tolist()[:3] == [1.0, 3.0, 8.0]
    assert found["arrive"].tolist() == [2, 2, 1, 0]
    assert np.isnan(found["batch"][3])


def test_the_front_is_what_no_other_choice_beats():
    rng = np.random.default_rng(2)
    table = pd.DataFrame(rng.integers(0, 6, (60, 3)).astype(float), columns=["seconds", "error", "memory"])
    table.loc[0, "seconds"] = np.inf
    found = bs.pareto_front(table, list(table))
    for index, row in table.iterrows():
        beaten = any((other <= row).all() and (other < row).any() for _, other in table.iterrows())
        assert found[index] == (np.isfinite(row).all() and not beaten)
    with pytest.raises(InvalidInput, match="needs columns of the table"):
        bs.pareto_front(table, ["price"])


def arrivals_of(seconds, errors, *, seed=0, fastest=50, best=50, policy="fixed"):
    """One seed, one row a batch size; an infinite time is that of a run that was given up after 20 epochs."""
    batches = np.array(list(seconds))
    times = np.array(list(seconds.values()), np.float64)
    arrived = np.isfinite(times)
    return pd.DataFrame(
        {
            "batch": batches, "seed": seed, "policy": policy, "arrived": arrived, "seconds_to_target": times,
            "epoch_to_target": times / 2, "examples_to_target": 50 * times, "seconds_watched": 40.0, "epoch_watched": 20.0,
            "examples_watched": 2000.0, "best_val_error": [errors[batch] for batch in batches], "fastest_elsewhere": fastest,
            "best_elsewhere": best, "memory": 1e6 * batches, "dataset": "mnist", "model": "lenet", "n_train": 100,
            "epochs": 20, "target": 0.97,
        }
    )  # fmt: skip


def test_readings_say_what_their_names_say():
    seconds = {5: 30.0, 20: 12.0, 50: 10.0, 256: 15.0, 1000: math.inf, 5000: math.inf}
    errors = dict(zip(seconds, (0.03, 0.02, 0.025, 0.03, 0.06, 0.5), strict=True))
    rows = arrivals_of(seconds, errors, best=20)
    assert on_target.rank_of_epochs(rows) == pytest.approx(10 / math.sqrt(17.5 * 17))  # Ranks 4, 2, 1, 3, 5.5, 5.5.
    assert on_target.ends_by_fastest(rows) == 3.0  # 30 / 10; the other end took at least 40.
    assert on_target.published_by_fastest(rows) == 1.5
    assert on_target.excessive_by_fastest(rows) == 4.0  # At least.
    assert np.isnan(on_target.thousand_by_256(rows))  # "At least 40 / 15" would not tell whether it is 2 or more.
    assert on_target.seconds_of_256_by_20(rows) == on_target.examples_of_256_by_20(rows) == 1.25
    assert on_target.lean_by_fastest(rows) == 3.0
    assert on_target.share_of_bound_256(rows) == pytest.approx(math.log(1.5) / math.log(5.12))
    assert on_target.ends_less_best(rows) == pytest.approx(0.01)
    assert on_target.fifty_less_twenty(rows) == pytest.approx(0.005)


def test_what_did_not_arrive_is_no_denominator_and_what_is_not_there_is_no_question():
    seconds = {5: 30.0, 50: math.inf, 256: math.inf}
    rows = arrivals_of(seconds, dict.fromkeys(seconds, 0.1))
    assert np.isnan(on_target.ends_by_fastest(rows))
    assert np.isnan(on_target.share_of_bound_256(rows))
    assert on_target.excessive_by_fastest(rows) is None
    assert on_target.ends_by_fastest(rows.assign(fastest_elsewhere=0)) is None


def test_places_are_policies_with_the_batch_sizes_that_all_seeds_have():
    seconds = {5: 30.0, 20: 12.0, 50: 10.0, 256: 15.0}
    errors = dict.fromkeys(seconds, 0.1)
    table = pd.concat([arrivals_of(seconds, errors), arrivals_of({5: 20.0, 50: 10.0, 256: 15.0}, errors, seed=1)])
    places = dict(readings._places(table))
    assert list(places) == ["at one rate"]
    assert sorted(places["at one rate"]["batch"].unique()) == [5, 50, 256]
    assert judge.verdict("C32", table).word == "holds"  # × 1.5 in both seeds, at the largest.


def test_the_front_of_choices_trades_memory_for_time():
    seconds = {5: 30.0, 20: 12.0, 50: 10.0, 256: 15.0, 1000: math.inf}
    found = choices(arrivals_of(seconds, dict.fromkeys(seconds, 0.1))).set_index("batch")
    assert found["on_front"].to_dict() == {5: True, 20: True, 50: True, 256: False}


def test_the_critical_batch_size_is_found_from_runs_that_arrive_as_theory_says():
    """S = 100 (1 + 40 / B) updates at the rate of policy "linear", twice as many at one rate; two seeds more at one rate."""
    rows = [
        {
            "policy": policy, "batch": batch, "learning_rate": rate(batch), "seed": seed, "arrived": batch < 500,
            "updates_to_target": times * 100 * (1 + 40 / batch) if batch < 500 else math.inf,
            "updates": 5000 if batch < 500 else 50,
        }
        for policy, rate, times, seeds in (("fixed", lambda _: 0.1, 2, 6), ("linear", lambda batch: batch / 500, 1, 4))
        for seed in range(seeds) for batch in (5, 20, 80, 500)
    ]  # fmt: skip
    runs = runs_to_target(pd.DataFrame(rows))
    assert runs["seed"].max() == 3
    assert not runs.duplicated(["batch", "learning_rate", "seed"]).any()
    assert bs.critical_batch_size(runs).b_crit == pytest.approx(40, rel=1e-3)


def test_the_published_table_is_consistent_with_itself():
    """Its times to the target are epochs × (time of 200 epochs) / 200, in units of that of B = 256, within 3 %."""
    rows = LENET.dropna().set_index("batch")
    spent = rows["epoch_to_target"] * rows["time"]
    assert (spent / spent[256]).to_numpy() == pytest.approx(rows["time_to_target"].to_numpy(), rel=0.03)
    assert (LENET["updates"] == 50_000 // LENET["batch"] * 200 - 1).all()


def test_policies_agree_at_the_base_and_nowhere_else():
    profile = TARGET_PROFILES["paper"]
    grid = list(profile.grid())
    assert len(grid) == len(set(grid)) == 6 * (2 * 6 - 1) + 4 * (6 - 1) + 2 * 6
    assert profile.rate(5000, "sqrt") == pytest.approx(1.0)
    assert [profile.rate(200, policy) for policy in ("fixed", "sqrt", "linear")] == pytest.approx([0.1, 0.2, 0.4])


def test_a_policy_may_have_fewer_seeds_also_where_it_shares_the_run_of_the_others():
    profile = TARGET_PROFILES["paper"]
    assert [profile.is_tried(50, "sqrt", seed) for seed in (3, 4)] == [True, False]
    assert profile.is_tried(50, "fixed", 5)
    assert not profile.is_tried(10, "sqrt", 0)


def test_the_study_runs_and_is_drawn(tmp_path):
    study = bs.study.run_target_study("smoke", bs.study.folder_of("smoke") / "target", show_progress=False)
    rows = study.arrivals
    assert rows.groupby(["policy", "batch", "seed"]).size().eq(1).all()
    assert len(rows) == 3 * 3 * 2
    at_base = rows[rows["batch"] == 32].pivot(index="seed", columns="policy", values="best_val_error")
    assert (at_base["fixed"] == at_base["linear"]).all()
    assert rows["arrived"].any()
    arrived = rows[rows["arrived"]]
    assert (arrived["updates_to_target"] == arrived["epoch_to_target"] * -(-320 // arrived["batch"])).all()
    table = table_of(rows, "fixed")
    assert table.columns.tolist() == [320, 32, 8]
    assert table.loc["total iterations"].tolist() == ["8", "80", "320"]
    assert table.loc["time of all epochs"].min() == "1"
    at_08 = bs.time_to_target(study.accuracies, 0.8).sort_values(["batch", "learning_rate", "seed"])
    assert at_08["arrived"].sum() == rows.drop_duplicates(["batch", "learning_rate", "seed"])["arrived"].sum()
    study.save(tmp_path / "tables")
    assert set(gallery.draw_all(tmp_path / "tables", tmp_path / "figures")) == {"fig16_time_to_target"}
    again = bs.study.Tables.load(tmp_path / "tables").arrivals
    pd.testing.assert_frame_equal(again, rows, check_dtype=False, rtol=1e-7)
    assert {found.claim.id for found in judge.verdicts(again)} >= {"C24b", "C32", "C48", "C63", "C64"}


def test_the_command_reads_any_sweep(tmp_path, monkeypatch):
    from typer.testing import CliRunner

    from batchscape.cli import app

    cells = [bs.Cell(dataset="digits", train_size=128, batch_size=size, epochs=3, seed=0) for size in (8, 64)]
    bs.run_sweep(bs.Grid(cells), store=tmp_path, show_progress=False, executor="serial")
    said = CliRunner().invoke(app, ["target", str(tmp_path), "--at", "0.5"]).output
    assert "val_accuracy ≥ 0.5, reached by" in said
    assert "never" in CliRunner().invoke(app, ["target", str(tmp_path), "--at", "2"]).output
    assert "val_loss ≤" in CliRunner().invoke(app, ["target", str(tmp_path), "--metric", "val_loss"]).output
