"""The study of the minima on a small scale, and the numbers that its statements are judged by."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import batchscape as bs
from batchscape.stats import families as strata
from batchscape.study import columns, gallery, judge, readings
from batchscape.study.minima import readings as on_minima
from batchscape.study.minima import run
from batchscape.study.minima.profile import MINIMA_PROFILES, REPLICATIONS


@pytest.fixture(scope="module")
def store():
    """The runs of the notebooks."""
    return bs.study.folder_of("smoke") / "store"


@pytest.fixture(scope="module")
def tables(store):
    return run.run_minima_study("smoke", store, show_progress=False)


def test_the_study_measures_every_minimum_of_the_main_job(tables):
    profile = MINIMA_PROFILES["smoke"]
    assert len(tables.minima) == len(profile.main.grid())
    measured = tables.minima[["lambda_max", "trace", *profile.measures]]
    assert (measured[tables.minima["reached"].astype(bool)] > 0).all(axis=None)


def test_escapes_begin_where_full_batch_ended_and_move(tables):
    first = tables.escapes[tables.escapes["epoch"] == 0]
    for name, place in run.STARTS.items():
        np.testing.assert_allclose(first[place], first[f"start_{name}"])
    later = tables.escapes[tables.escapes["epoch"] > 0]
    assert set(later["arm"]) == set(run.ARMS.values())
    assert (later["moved"] > 0).all()
    noisy, quiet = (later.loc[later["arm"] == run.ARMS[arm], "moved"].mean() for arm in ("noisy", "quiet"))
    assert noisy > 3 * quiet  # Ten times the rate.


def test_a_rescaled_minimum_is_the_same_function(tables):
    for _, rows in tables.rescaled.groupby("seed"):
        np.testing.assert_allclose(rows["loss"], rows["loss"].iloc[0], rtol=1e-4)
        np.testing.assert_allclose(rows["adaptive_worst"], rows["adaptive_worst"].iloc[0], rtol=0.02)
        assert rows["lambda_max"].max() > 1.2 * rows["lambda_max"].min()


def test_widths_are_looked_at_three_ways(tables):
    assert set(tables.flip["way"]) == {"to the other", "none", "filter"}
    lengths = tables.flip.pivot(index=["seed", "weight_decay"], columns=["batch", "way"], values="distance")
    for way in ("to the other", "none"):  # One length for both batches.
        pair = lengths.xs(way, axis=1, level="way")
        np.testing.assert_allclose(pair.iloc[:, 0], pair.iloc[:, 1], rtol=1e-5)


def test_pictures_say_how_much_they_show(tables):
    seen = tables.pictures
    assert (seen["on_first_axis"] + seen["on_second_axis"]).between(0.5, 1).all()
    assert (seen["on_random_plane"] < 0.01).all()  # Two of 17,226 dimensions.
    assert (seen["widest_by_narrowest"] >= 1).all()


def test_spectra_fall_and_end_at_the_largest_eigenvalue(tables, store):
    main = MINIMA_PROFILES["smoke"].main
    assert set(tables.spectra["family"]) == {f"η = {main.learning_rate:g}"}
    data = bs.load_dataset(main.dataset, train_size=main.train_size)
    f = bs.Objective(bs.build_model(main.model, data), data.x_train, data.y_train)
    at_rate = [
        record
        for record in bs.Store(store).records()
        if record.cell.until_loss and record.cell.learning_rate == main.learning_rate and record.cell.batch_size != 32
    ]
    assert len(at_rate) == 2 * main.seeds
    for record in at_rate:
        rows = tables.spectra.query(f"seed == {record.cell.seed} and batch == {record.facts['batch']}")
        top = bs.hessian_eigenvalues(f, record.weights["final"]).values[0]
        assert (rows["above"].diff().dropna() <= 0).all()
        assert (rows["below"].diff().dropna() <= 0).all()
        np.testing.assert_array_equal(rows["above"] > 0, rows["value"] < top)


def test_the_tables_are_judged_and_drawn(tables, tmp_path):
    found = {verdict.claim.id: verdict for verdict in judge.verdicts_of(tables.frames.values())}
    assert {"C36", "C37", "C42b", "C42e", "C42h", "C44", "C46"} <= set(found)
    assert "fails" in found["C42h"].word
    drawn = gallery.draw_all(tables.save(tmp_path / "tables"), tmp_path / "figures")
    assert set(drawn) == {"fig09_sharpness", "fig10_minima_controls", "fig18_spectra"}


@pytest.mark.long
def test_a_replication_has_three_arms_and_two_budgets(tmp_path):
    found = run.run_replication("keskar-smoke", tmp_path, show_progress=False)
    profile = REPLICATIONS["keskar-smoke"]
    table = found.published
    assert len(table) == 3 * 2 * profile.seeds
    assert table["phi"].notna().all()
    assert {"lambda_max", "test_loss_reestimated", "train_accuracy_reestimated"} <= set(table)
    families = strata.families(table[table["budget"] == "epochs"], least=2)
    assert [family.stratum for family in families] == ["fixed rate", "fixed rate/batch"]
    assert all(family.batches == [profile.small, profile.large] for family in families)
    only_epochs = table[table["budget"] == "epochs"].assign(model="keskar_f1")
    assert judge.verdict("C42l", only_epochs).word == "not measured"
    verdict = judge.verdict("C42k", table.assign(model="keskar_f1"))
    assert len(verdict.comparisons) == 2
    found.frames["published"]["model"] = "keskar_f1"
    assert set(gallery.draw_all(found.save(tmp_path / "tables"), tmp_path / "figures")) == {"fig11_keskar"}


def family_of(measure, error):
    n = len(measure)
    return pd.DataFrame(
        {"phi": measure, "test_accuracy": 1 - np.asarray(error), "reached": True, "seed": 0, "batch": range(n)}
    )


def test_rank_correlations_are_spearmans():
    rng = np.random.default_rng(0)
    measure, error = rng.normal(size=9), rng.integers(0, 4, 9) / 10
    expected = stats.spearmanr(measure, error).statistic
    assert on_minima.error_with_phi(family_of(measure, error)) == pytest.approx(expected)
    assert np.isnan(on_minima.error_with_phi(family_of(measure, np.zeros(9))))
    rows = family_of(measure, error)
    rows["reached"] = [None] * 9
    assert np.isnan(on_minima.error_with_phi(rows))


def test_readings_of_an_escape_compare_with_where_it_began():
    rows = pd.DataFrame(
        {
            "arm": list(run.ARMS.values()),
            "epoch": 5,
            "train_loss": [0.2, 0.5, 0.8],
            "lambda_max": [2.0, 9.0, 10.0],
            "barrier": [0.3, 0.0, 0.0],
            "distance": [12.0, 10.1, 11.0],
            "start_loss": 1.0,
            "start_lambda_max": 8.0,
            "start_distance": 10.0,
        }
    )
    assert on_minima.loss_after_escape(rows) == pytest.approx(0.25)
    assert on_minima.barrier_of_escape(rows) == pytest.approx(0.3)
    assert on_minima.curvature_after_escape(rows) == pytest.approx(0.25)
    assert on_minima.curvature_after_quiet_escape(rows) == pytest.approx(9 / 8)
    assert on_minima.curvature_after_escape_by_control(rows) == pytest.approx(0.2)
    assert on_minima.distance_after_escape(rows) == pytest.approx(1.2)
    assert on_minima.loss_after_escape(rows.assign(epoch=0)) is None


def test_places_are_families_factors_and_weight_decays():
    minima = pd.DataFrame({"phi": 1.0, "batch": [1, 2, 4], "learning_rate": 0.1, "seed": 0})
    assert [place for place, _ in readings._places(minima)] == ["at fixed η = 0.1"]
    rescaled = pd.DataFrame({"factor": [0.5, 1.0, 2.0], "seed": 0, "lambda_max": [3.0, 1.0, 4.0]})
    values = [on_minima.curvature_of_rescaled(rows) for _, rows in readings._places(rescaled)]
    assert values == [3.0, 4.0]
    flip = pd.DataFrame(
        {
            "width": [2.0, 1.0, 1.0, 4.0],
            "weight_decay": [0, 0, 1, 1],
            "batch": [8, 64, 8, 64],
            "way": "filter",
            "seed": 0,
        }
    )
    assert [on_minima.width_filter_normalised(rows) for _, rows in readings._places(flip)] == [2.0, 0.25]


def test_distances_are_taken_at_equal_updates_and_epochs():
    runs = pd.DataFrame({"hash": ["a", "b", "c"]})
    curves = pd.DataFrame(
        {
            "hash": ["a", "a", "b", "b", "c"],
            "updates": [160, 320, 320, 640, 100],
            "epoch": [5, 10, 2.5, 5, 3],
            "distance": [1.0, 2.0, 3.0, 4.0, 5.0],
        }
    )
    found = columns.add_distances(runs, curves)
    np.testing.assert_array_equal(found["distance_after_320_updates"], [2, 3, np.nan])
    np.testing.assert_array_equal(found["distance_after_5_epochs"], [1, 4, np.nan])
