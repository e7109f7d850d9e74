"""What a store says is checked before it is used: damaged runs are left out, and nothing that it names is called."""

import json
import logging
import os
import shutil
import sys

import keras
import numpy as np
import pytest

import batchscape as bs
from batchscape import cli
from batchscape.errors import InvalidInput
from batchscape.landscape import of_runs
from batchscape.sweep.inputs import SweepInputs
from batchscape.sweep.store import Store

QUIET = {"executor": "serial", "show_progress": False}

CALLED = """
import pathlib
pathlib.Path(__file__).with_name("imported").touch()

def build():
    pathlib.Path(__file__).with_name("called").touch()
    import keras
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])

def load():
    pathlib.Path(__file__).with_name("called").touch()
    import numpy as np
    y = np.arange(60) % 3
    return (np.random.default_rng(0).normal(size=(60, 4)) + y[:, None]).astype("float32"), y
"""


LABELS = np.arange(60) % 3
DATA = (np.random.default_rng(0).normal(size=(60, 4)) + LABELS[:, None]).astype(np.float32), LABELS


def net():
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])


def norm(model, data, loss):
    """A quick measurement."""
    return lambda record: {"norm": float(np.linalg.norm(record.weights["final"][0]))}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A store of two batch sizes and two seeds of a function's model, on arrays; not to be changed."""
    folder = tmp_path_factory.mktemp("trained") / "store"
    grid = bs.Grid(batch_size=[10, "full"], epochs=1, learning_rate=0.1, seed=range(2))
    bs.run_sweep(grid, store=folder, build=net, data=DATA, **QUIET)
    return folder


@pytest.fixture
def store(trained, tmp_path):
    """A copy of that store."""
    return Store(shutil.copytree(trained, tmp_path / "store"))


def rename(store, **names):
    """Let every record of a store name another model or other data."""
    for file in store.path.glob("*.json"):
        fields = json.loads(file.read_text())
        fields["cell"] |= names
        file.write_text(json.dumps(fields))


def readers(store, **given):
    """Everything that measures the runs of a store."""
    runs = store.hashes()
    return {
        "line": lambda: bs.lines_between(store, 10, "full", points=3, **given, show_progress=False),
        "plane": lambda: of_runs.plane_around(store, 10, points=3, **given, show_progress=False),
        "noise": lambda: bs.noise_of_runs(store, **given, **QUIET),
        "norm": lambda: bs.measure_runs(store, runs, "norm", norm, **given, **QUIET),
    }


@pytest.mark.parametrize("names", [{"model": "os:abort"}, {"dataset": "os:abort"}, {"model": "os:abort:.keras"}])
def test_a_function_that_a_store_names_is_not_called(store, names):
    """`os.abort` would end this process."""
    rename(store, **names)
    for read in readers(store).values():
        with pytest.raises(InvalidInput, match=r"This store names .*'os:abort") as caught:
            read()
        assert "\n" not in str(caught.value)


def test_a_module_that_a_store_names_is_not_even_imported_until_the_caller_names_it(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "trustnet.py").write_text(CALLED)

    monkeypatch.setattr(logging.getLogger("batchscape"), "handlers", [])

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["batchscape", *arguments])
        status = 0
        try:
            cli.main()
        except SystemExit as stop:
            status = stop.code or 0
        return status, capfd.readouterr()

    own = ["--model", "trustnet:build", "--data", "trustnet:load"]
    sizes = ["--batch-size", "10,full", "--epochs", "1", "--seeds", "1", "--executor", "serial", "-q"]
    assert run("sweep", *own, *sizes, "--store", "runs/x")[0] == 0
    del sys.modules["trustnet"]
    for name in ("imported", "called"):
        (tmp_path / name).unlink()
    line = ["landscape", "runs/x", "--between", "10", "full", "--points", "3", "-q"]
    noise = ["noise", "runs/x", "--executor", "serial", "-q"]
    commands = [
        line,
        noise,
        ["landscape", "runs/x", "--around", "10", "--points", "3", "-q"],
        ["sharpness", "runs/x", "--executor", "serial", "-q"],
    ]
    for command in commands:
        status, printed = run(*command)
        assert status == 2
        assert printed.err.strip().splitlines()[-1] == (
            "batchscape: This store names 'trustnet:build' and 'trustnet:load'; pass --model trustnet:build --data "
            "trustnet:load if you trust it (build=... or data=... in Python)"
        )
        status, printed = run(*command, "--model", "trustnet:build")
        assert status == 2
        assert "This store names 'trustnet:load'; pass --data trustnet:load" in printed.err
    assert not (tmp_path / "imported").exists()
    for command in (line, noise):
        status, printed = run(*command, *own)
        assert status == 0, printed.err
    assert (tmp_path / "called").exists()
    sys.modules.pop("trustnet", None)


def test_names_that_the_caller_gives_are_those_of_the_store():
    cell = bs.Cell(model="mynet:build", dataset="mydata:load")
    assert SweepInputs("mynet:build", "mydata:load").label(cell) == cell
    assert SweepInputs("mlp", "digits").label(bs.Cell()) == bs.Cell(), "built-in names too"


def lose(store, run):
    (store.path / f"{run}.npz").unlink()


def cut(store, run):
    os.truncate(store.path / f"{run}.npz", 300)


def blind(store, run):
    """Weights of NaN, written as a sweep writes them: seen when they are read."""
    record = store.load(run)
    weights = {stage: [np.full_like(array, np.nan) for array in record.weights[stage]] for stage in record.weights}
    fields = {name: getattr(record, name) for name in ("cell", "hash", "status", "curves", "final", "facts")}
    store.save(bs.Record(**fields, environment=record.environment, weights=weights))


def garble(store, run):
    (store.path / f"{run}.json").write_text("{")


@pytest.mark.parametrize("spoil", [lose, cut, blind, garble])
def test_a_damaged_run_is_named_and_the_others_are_measured(store, caplog, spoil):
    bad = next(record.hash for record in store.records() if (record.cell.batch_size, record.cell.seed) == (10, 0))
    spoil(store, bad)
    reading = readers(store, build=net, data=DATA)
    lines = reading["line"]()
    assert lines["seed"].unique().tolist() == [1]
    for name in ("norm", "plane") if spoil is blind else ("norm",):
        caplog.clear()
        found = reading[name]()
        assert np.isfinite(found.loss).all() if name == "plane" else len(found) == 3
        assert caplog.text.count(bad) >= 1
        assert "left out" in caplog.text
        assert "delete" not in caplog.text


def test_a_store_whose_runs_are_all_damaged_is_one_line(store):
    for run in store.hashes():
        blind(store, run)
    for name, read in readers(store, build=net, data=DATA).items():
        if name in ("line", "plane"):
            with pytest.raises(InvalidInput, match="sound"):
                read()
        else:
            assert len(read()) == 0
