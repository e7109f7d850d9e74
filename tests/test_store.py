"""The store: a record exists or it does not, and what cannot be read is named."""

import dataclasses
import errno
import json
import os
import pathlib
import subprocess

import numpy as np
import pandas as pd
import pytest

import batchscape as bs
from batchscape.config import Cell
from batchscape.errors import InvalidInput, StoreError
from batchscape.sweep.frames import load_results, summarise
from batchscape.sweep.measure import keep_table
from batchscape.sweep.store import Store
from batchscape.system import owner
from batchscape.system.owner import Owner
from batchscape.train.record import Record, Status


def make_record(name="aa11000000000000", **changes):
    weights = {
        stage: [np.arange(6.0, dtype=np.float32).reshape(2, 3) + i, np.zeros(3)]
        for i, stage in enumerate(("initial", "final"))
    }
    fields = {
        "cell": Cell(batch_size=8, optimizer="sgd", optimizer_options={"momentum": 0.9}, until_loss=0.1),
        "hash": name,
        "status": Status.COMPLETE,
        "curves": {name: [0, 1] for name in ("epoch", "updates", "examples", "seconds")}
        | {"train_loss": [2.3, float("nan")]},
        "final": {"epoch": 1.0, "updates": 160, "train_loss": 0.1, "reached": True, "val_loss": np.float32(0.25)},
        "facts": {"batch": 8, "n_train": 1280, "learning_rate": 0.1, "data": {"sha256": "d"}},
        "weights": weights,
    }
    return Record(**{**fields, **changes})


def test_a_record_comes_back_as_it_was_saved(tmp_path):
    store, record = Store(tmp_path), make_record()
    store.save(record)
    back = store.load("aa11000000000000")
    assert (back.cell, back.status, back.final["updates"]) == (record.cell, Status.COMPLETE, 160)
    assert back.curves["train_loss"] == [2.3, None]  # NaN is null in JSON, and NaN again in a frame.
    assert list(back.weights) == ["initial", "final"]
    for a, b in zip(back.weights["final"], record.weights["final"], strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.dtype == b.dtype
    json.loads((tmp_path / "aa11000000000000.json").read_text(), parse_constant=pytest.fail)  # Strict JSON.


@pytest.mark.parametrize("moment", ["write", "fsync", "replace"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES])
def test_a_disk_that_is_full_or_closed_leaves_nothing_half_written(tmp_path, monkeypatch, moment, code):
    store = Store(tmp_path)
    store.save(make_record("aa00000000000000"))
    before = sorted(tmp_path.iterdir())

    def fail(*args, **kwargs):
        raise OSError(code, os.strerror(code))

    if moment == "write":
        monkeypatch.setattr(pathlib.Path, "write_bytes", fail)
    else:
        monkeypatch.setattr(os, moment, fail)
    with pytest.raises(StoreError, match=rf"aa11000000000000\.npz cannot be written: {os.strerror(code)}"):
        store.save(make_record("aa11000000000000"))
    monkeypatch.undo()
    assert sorted(tmp_path.iterdir()) == before
    assert store.hashes() == ["aa00000000000000"]


def test_an_interrupted_write_leaves_nothing_half_written(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        Store(tmp_path).save(make_record())
    assert not list(tmp_path.iterdir())


def owner_of(process):
    """A process as the owner of files."""
    return dataclasses.replace(Owner.me(), process=process.pid, start=owner._start_of(process.pid))


@pytest.fixture
def killed():
    """The owner that a process was which has been killed."""
    with subprocess.Popen(["sleep", "60"]) as process:
        was = owner_of(process)
        process.kill()
    return was


def test_what_a_killed_worker_left_half_written_goes_when_the_sweep_ends(tmp_path):
    with subprocess.Popen(["sleep", "60"]) as worker, Store(tmp_path).workspace():
        left = tmp_path / f"aa11000000000000.npz.{owner_of(worker)}.0123abcd.tmp"
        left.write_bytes(b"half")
        Store(tmp_path).remove_leftovers()
        assert left.exists()  # Its writer lives.
        worker.kill()
        worker.wait()
    assert not list(tmp_path.iterdir())


def test_a_measurement_is_found_again_whatever_numbers_its_options_are_made_of(tmp_path):
    store = Store(tmp_path)
    for options in ({"sizes": np.array([1, 2])[0]}, {"bound": float("inf")}, {"sizes": (1, 2)}):
        store.save_measurement("aa11000000000000", "noise", options, {"value": 1.0})
        assert store.load_measurement("aa11000000000000", "noise", options) == {"value": 1.0}
        assert store.load_measurement("aa11000000000000", "noise", {"other": 1}) is None


def test_without_its_json_a_run_does_not_exist(tmp_path, monkeypatch):
    """The JSON is the commit mark: weights alone, left by a kill between the two files, are no run."""
    store = Store(tmp_path)
    real = os.replace
    monkeypatch.setattr(
        os, "replace", lambda a, b: real(a, b) if str(b).endswith(".npz") else (_ for _ in ()).throw(KeyboardInterrupt)
    )
    with pytest.raises(KeyboardInterrupt):
        store.save(make_record())
    assert (tmp_path / "aa11000000000000.npz").exists()
    assert store.status("aa11000000000000") is None
    assert store.hashes() == []


def test_leftovers_of_dead_processes_are_removed_and_all_else_is_kept(tmp_path, killed):
    """By name, owner and place: a number alone names nobody, and of another host nobody here knows who lives."""
    elsewhere = dataclasses.replace(killed, host="0" * 8)
    ours = [
        f"aa11000000000000.json.{killed}.0123abcd.tmp",
        f"aa11000000000000.npz.{killed}.0123abcd.tmp",
        f"shared.{killed}.a_c0x1z9.tmp/data.x/0.npy",
        f"probe.{killed}.0123abcd.tmp",
        f"measurements/aa11000000000000.noise.json.{killed}.0123abcd.tmp",
    ]
    others = [
        f"aa11000000000000.json.{Owner.me()}.0123abcd.tmp",
        f"shared.{Owner.me()}.a_c0x1z9.tmp/data.x/0.npy",
        f"aa11000000000000.json.{elsewhere}.0123abcd.tmp",
        f"report.json.{killed}.0123abcd.tmp",
        f"mine/aa11000000000000.json.{killed}.0123abcd.tmp",
        f"mine/shared.{killed}.a_c0x1z9.tmp/kept",
        "aa11000000000000.json.99999999.tmp",
        "keep.99999999.tmp",
        "x.json.99999999.tmp/kept",
        "sub/report.99999999.tmp",
        "shared.99999999.tmp/kept",
        "package.json",
    ]
    for name in (*ours, *others):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    Store(tmp_path).remove_leftovers()
    left = {str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*") if file.is_file()}
    assert left == set(others)


def test_a_workspace_is_fresh_and_made_only_when_it_is_used(tmp_path):
    """Under its old name, by process number, data of a dead process were taken for those of a sweep that had its number."""
    stale = tmp_path / f"shared.{os.getpid()}.tmp"
    stale.mkdir()
    with Store(tmp_path).workspace() as one, Store(tmp_path).workspace() as other:
        assert list(tmp_path.iterdir()) == [stale]
        assert one.folder == one.folder
        assert len({stale, one.folder, other.folder}) == 3
        assert one.folder.stat().st_mode & 0o777 == 0o700
        assert not list(one.folder.iterdir())
    assert list(tmp_path.iterdir()) == [stale]


@pytest.mark.parametrize("path", ["", " ", pathlib.Path("")])
def test_an_empty_path_is_no_store(path):
    with pytest.raises(InvalidInput, match=r"Received: ") as caught:
        Store(path)
    assert "\n" not in str(caught.value)
    assert Store(".").path == Store(pathlib.Path.cwd()).path


def test_names_of_runs_are_16_hexadecimal_digits_and_other_files_no_runs(tmp_path):
    store = Store(tmp_path / "store")
    store.save(make_record())
    (tmp_path / "secret.json").write_text((store.path / "aa11000000000000.json").read_text())
    (store.path / "package.json").write_text("{}")
    assert store.hashes() == ["aa11000000000000"]
    assert len(load_results(store.path)) == 1
    for name in ("../secret", "package", "AA11000000000000", "aa11000000000000\n", "aa11"):
        assert store.status(name) is None
        with pytest.raises(StoreError, match="A run must be named by 16 hexadecimal digits"):
            store.load(name)
    with pytest.raises(StoreError, match="16 hexadecimal digits"):
        store.save(make_record("../secret"))


def test_a_store_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        Store(tmp_path / "file" / "store").require_writable()
    with pytest.raises(StoreError, match="No store at"):
        load_results(tmp_path / "nothing")


def test_measurements_are_kept_by_their_options(tmp_path):
    store = Store(tmp_path)
    store.save_measurement("aa11000000000000", "curvature", {"n_probes": 8}, {"trace": 1.5, "bad": float("nan")})
    assert store.load_measurement("aa11000000000000", "curvature", {"n_probes": 8}) == {"trace": 1.5, "bad": None}
    assert store.load_measurement("aa11000000000000", "curvature", {"n_probes": 9}) is None
    assert store.load_measurement("aa12000000000000", "curvature", {"n_probes": 8}) is None
    assert store.hashes() == []


def test_results_are_one_tidy_frame_and_curves_another(tmp_path):
    store = Store(tmp_path)
    store.save(make_record("aa11000000000000"))
    store.save(
        make_record(
            "bb22000000000000", status=Status.FAILED, reason="it broke", curves={}, final={}, facts={}, weights={}
        )
    )
    frame = load_results(tmp_path).set_index("hash")
    assert frame.loc["aa11000000000000", ["batch", "learning_rate", "updates", "budget", "budget_amount"]].tolist() == [
        8,
        0.1,
        160,
        "until_loss",
        0.1,
    ]
    assert frame.loc["aa11000000000000", "optimizer_options"] == "momentum=0.9"
    assert frame.loc["bb22000000000000", ["status", "reason"]].tolist() == ["FAILED", "it broke"]
    curves = load_results(tmp_path, curves=True)
    assert curves["epoch"].tolist() == [0, 1]
    assert np.isnan(curves["train_loss"].iloc[1])


def test_a_summary_counts_what_became_of_the_runs(tmp_path):
    store = Store(tmp_path)
    store.save(make_record("aa11000000000000"))
    store.save(
        make_record(
            "bb22000000000000",
            cell=Cell(batch_size=8, seed=1),
            status=Status.DIVERGED,
            final={"reached": None, "epoch": 1.0},
        )
    )
    (row,) = summarise(load_results(tmp_path)).to_dict("records")
    assert (row["runs"], row["diverged"], row["reached"]) == (2, 1, 1)


def test_relative_stores_stand_in_batchscape_home(tmp_path, monkeypatch):
    monkeypatch.setenv("BATCHSCAPE_HOME", str(tmp_path))
    assert bs.Store("runs/a").path == tmp_path / "runs" / "a"


def test_a_table_is_made_anew_when_the_revision_of_its_code_is_raised_and_the_old_one_stays(tmp_path):
    def kept(revision):
        make = lambda: pd.DataFrame({"revision": [revision]})  # noqa: E731
        return keep_table(Store(tmp_path), "aa11", "widths", {}, make, revision=revision)["revision"].item()

    assert [kept(revision) for revision in (1, 2, 1)] == [1, 2, 1]
    assert len(list((tmp_path / "measurements").iterdir())) == 2


def test_a_table_is_made_once_and_keeps_its_gaps(tmp_path):
    made = []

    def make():
        made.append(1)
        return pd.DataFrame({"seed": [0, 1], "width": [np.nan, np.nan], "way": ["a", "b"]})

    tables = [keep_table(Store(tmp_path), "aa11000000000000", "widths", {"n": n}, make) for n in (1, 1, 2)]
    assert len(made) == 2  # Other options are another table.
    for table in tables:
        assert table["width"].dtype == np.float64
        assert table["width"].isna().all()
        assert list(table["way"]) == ["a", "b"]
