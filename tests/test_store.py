"""The store: a record exists or it does not, and what cannot be read is named."""

import errno
import json
import os
import subprocess

import numpy as np
import pandas as pd
import pytest

import batchscape as bs
from batchscape.config import Cell
from batchscape.errors import StoreError
from batchscape.record import Record, Status
from batchscape.sweep.measure import keep_table
from batchscape.sweep.results import load_results, summarise
from batchscape.sweep.store import Store


def make_record(name="aa11", **changes):
    weights = {
        stage: [np.arange(6.0, dtype=np.float32).reshape(2, 3) + i, np.zeros(3)]
        for i, stage in enumerate(("initial", "final"))
    }
    fields = {
        "cell": Cell(batch_size=8, optimizer="sgd", optimizer_options={"momentum": 0.9}, until_loss=0.1),
        "hash": name,
        "status": Status.COMPLETE,
        "curves": {"epoch": [0.0, 1.0], "train_loss": [2.3, float("nan")]},
        "final": {"epoch": 1.0, "updates": 160, "train_loss": 0.1, "reached": True, "val_loss": np.float32(0.25)},
        "facts": {"batch": 8, "n_train": 1280, "learning_rate": 0.1, "data": {"sha256": "d"}},
        "weights": weights,
    }
    return Record(**{**fields, **changes})


def test_a_record_comes_back_as_it_was_saved(tmp_path):
    store, record = Store(tmp_path), make_record()
    store.save(record)
    back = store.load("aa11")
    assert (back.cell, back.status, back.final["updates"]) == (record.cell, Status.COMPLETE, 160)
    assert back.curves["train_loss"] == [2.3, None]  # NaN is null in JSON, and NaN again in a frame.
    assert list(back.weights) == ["initial", "final"]
    for a, b in zip(back.weights["final"], record.weights["final"], strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.dtype == b.dtype
    json.loads((tmp_path / "aa11.json").read_text(), parse_constant=pytest.fail)  # Strict JSON.


@pytest.mark.parametrize("moment", ["write", "fsync", "replace"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES])
def test_a_disk_that_is_full_or_closed_leaves_nothing_half_written(tmp_path, monkeypatch, moment, code):
    store = Store(tmp_path)
    store.save(make_record("aa00"))
    before = sorted(tmp_path.iterdir())

    def fail(*args, **kwargs):
        raise OSError(code, os.strerror(code))

    if moment == "write":
        monkeypatch.setattr("builtins.open", fail)
    else:
        monkeypatch.setattr(os, moment, fail)
    with pytest.raises(StoreError, match=rf"aa11\.npz cannot be written: {os.strerror(code)}"):
        store.save(make_record("aa11"))
    monkeypatch.undo()
    assert sorted(tmp_path.iterdir()) == before
    assert store.hashes() == ["aa00"]


def test_an_interrupted_write_leaves_nothing_half_written(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        Store(tmp_path).save(make_record())
    assert not list(tmp_path.iterdir())


def test_what_a_killed_worker_left_half_written_goes_when_the_sweep_ends(tmp_path):
    killed = subprocess.Popen(["sleep", "60"])
    with Store(tmp_path).workspace():
        left = tmp_path / f"aa11.npz.{killed.pid}.tmp"
        left.write_bytes(b"half")
        Store(tmp_path).remove_leftovers()
        assert left.exists()  # Its writer lives.
        killed.kill()
        killed.wait()
    assert not list(tmp_path.iterdir())


def test_a_measurement_is_found_again_whatever_numbers_its_options_are_made_of(tmp_path):
    store = Store(tmp_path)
    for options in ({"sizes": np.array([1, 2])[0]}, {"bound": float("inf")}, {"sizes": (1, 2)}):
        store.save_measurement("aa11", "noise", options, {"value": 1.0})
        assert store.load_measurement("aa11", "noise", options) == {"value": 1.0}
        assert store.load_measurement("aa11", "noise", {"other": 1}) is None


def test_without_its_json_a_run_does_not_exist(tmp_path, monkeypatch):
    """The JSON is the commit mark: weights alone, left by a kill between the two files, are no run."""
    store = Store(tmp_path)
    real = os.replace
    monkeypatch.setattr(
        os, "replace", lambda a, b: real(a, b) if str(b).endswith(".npz") else (_ for _ in ()).throw(KeyboardInterrupt)
    )
    with pytest.raises(KeyboardInterrupt):
        store.save(make_record())
    assert (tmp_path / "aa11.npz").exists()
    assert store.status("aa11") is None
    assert store.hashes() == []


@pytest.mark.parametrize("content", ["", "{", "[]", '{"status": "COMPLETE"}', "\x00\xff"])
def test_a_corrupt_record_is_named(tmp_path, content):
    (tmp_path / "aa11.json").write_text(content)
    with pytest.raises(StoreError, match=r"aa11\.json is no readable record; delete it") as caught:
        load_results(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_record_of_another_schema_is_named_with_both_versions(tmp_path):
    Store(tmp_path).save(make_record())
    fields = json.loads((tmp_path / "aa11.json").read_text())
    (tmp_path / "aa11.json").write_text(json.dumps({**fields, "schema_version": 99}))
    with pytest.raises(StoreError, match=r"schema version 1.*Received: version 99"):
        Store(tmp_path).load("aa11")


@pytest.mark.parametrize("spoil", [lambda file: file.unlink(), lambda file: file.write_bytes(file.read_bytes()[:100])])
def test_weights_that_are_missing_or_cut_off_are_named_when_they_are_asked_for(tmp_path, spoil):
    Store(tmp_path).save(make_record())
    spoil(tmp_path / "aa11.npz")
    record = Store(tmp_path).load("aa11")
    with pytest.raises(StoreError, match=r"aa11\.npz is no readable file of weights; delete aa11\.json"):
        record.weights["final"]


def test_leftovers_of_dead_processes_are_removed_and_those_of_live_ones_kept(tmp_path):
    store = Store(tmp_path)
    dead, alive = tmp_path / "aa11.json.999999999.tmp", tmp_path / f"bb22.json.{os.getpid()}.tmp"
    for file in (dead, alive):
        file.write_text("half")
    store.remove_leftovers()
    assert not dead.exists()
    assert alive.exists()


def test_a_store_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        Store(tmp_path / "file" / "store").require_writable()
    with pytest.raises(StoreError, match="No store at"):
        load_results(tmp_path / "nothing")


def test_measurements_are_kept_by_their_options(tmp_path):
    store = Store(tmp_path)
    store.save_measurement("aa11", "curvature", {"n_probes": 8}, {"trace": 1.5, "bad": float("nan")})
    assert store.load_measurement("aa11", "curvature", {"n_probes": 8}) == {"trace": 1.5, "bad": None}
    assert store.load_measurement("aa11", "curvature", {"n_probes": 9}) is None
    assert store.load_measurement("aa12", "curvature", {"n_probes": 8}) is None
    assert store.hashes() == []


def test_results_are_one_tidy_frame_and_curves_another(tmp_path):
    store = Store(tmp_path)
    store.save(make_record("aa11"))
    store.save(make_record("bb22", status=Status.FAILED, reason="it broke", curves={}, final={}, facts={}, weights={}))
    frame = load_results(tmp_path).set_index("hash")
    assert frame.loc["aa11", ["batch", "learning_rate", "updates", "budget", "budget_amount"]].tolist() == [
        8,
        0.1,
        160,
        "until_loss",
        0.1,
    ]
    assert frame.loc["aa11", "optimizer_options"] == "momentum=0.9"
    assert frame.loc["bb22", ["status", "reason"]].tolist() == ["FAILED", "it broke"]
    curves = load_results(tmp_path, curves=True)
    assert curves["epoch"].tolist() == [0, 1]
    assert np.isnan(curves["train_loss"].iloc[1])


def test_a_summary_counts_what_became_of_the_runs(tmp_path):
    store = Store(tmp_path)
    store.save(make_record("aa11"))
    store.save(
        make_record(
            "bb22", cell=Cell(batch_size=8, seed=1), status=Status.DIVERGED, final={"reached": None, "epoch": 1.0}
        )
    )
    (row,) = summarise(load_results(tmp_path)).to_dict("records")
    assert (row["runs"], row["diverged"], row["reached"]) == (2, 1, 1)


def test_a_run_is_found_by_the_beginning_of_its_name(tmp_path):
    store = Store(tmp_path)
    store.save(make_record("aa11"))
    store.save(make_record("aa22"))
    assert store.find("aa1") == "aa11"
    for beginning, found in (("aa", 2), ("zz", 0)):
        with pytest.raises(StoreError, match=f"Received: {found} such runs"):
            store.find(beginning)


def test_relative_stores_stand_in_batchscape_home(tmp_path, monkeypatch):
    monkeypatch.setenv("BATCHSCAPE_HOME", str(tmp_path))
    assert bs.Store("runs/a").path == tmp_path / "runs" / "a"


def test_a_table_is_made_once_and_keeps_its_gaps(tmp_path):
    made = []

    def make():
        made.append(1)
        return pd.DataFrame({"seed": [0, 1], "width": [np.nan, np.nan], "way": ["a", "b"]})

    tables = [keep_table(Store(tmp_path), "aa11", "widths", {"n": n}, make) for n in (1, 1, 2)]
    assert len(made) == 2  # Other options are another table.
    for table in tables:
        assert table["width"].dtype == np.float64
        assert table["width"].isna().all()
        assert list(table["way"]) == ["a", "b"]
