"""Several sweeps on one store: each run is trained once, all return complete frames, and the dead are replaced."""

import collections
import contextlib
import errno
import inspect
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import keras
import numpy as np
import pytest

import batchscape as bs
from batchscape.sweep import run as sweeping
from batchscape.sweep import tasks
from batchscape.sweep.claims import Claims
from batchscape.sweep.inputs import SweepInputs
from batchscape.sweep.store import Store
from batchscape.train.record import Record, Status

GRID = bs.Grid(batch_size=[8, "full"], epochs=1, learning_rate=0.1, seed=range(4))
QUIET = {"executor": "serial", "show_progress": False}


def net():
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])


def complete(cell, name):
    """The record of a complete run, as short as it may be."""
    weights = {stage: [np.ones(9, "float32")] for stage in ("initial", "final")}
    curves = {"epoch": [0.0, 1.0], "updates": [0, 100], "examples": [0, 100], "seconds": [0.0, 1.0]}
    facts = {"batch": 1, "n_train": 100, "learning_rate": 0.1}
    return Record(cell, name, Status.COMPLETE, "", curves, {"epoch": 1.0, "updates": 100}, facts, weights=weights)


@pytest.fixture
def pretended(monkeypatch):
    """Training that takes no time and says what it trained: sweeps may then run in threads."""
    trained = collections.Counter()

    def records(job):
        for cell, name in job.names.items():
            trained[name] += 1
            yield complete(cell, name)

    monkeypatch.setattr(tasks, "_records", records)
    return trained


def names(store, blobs):
    sources = SweepInputs(net, blobs)
    return [sources.check(cell, store) for cell in map(sources.label, GRID)]


def start(function):
    """A thread, and where its result will stand."""
    results = []
    thread = threading.Thread(target=lambda: results.append(function()), daemon=True)
    thread.start()
    return thread, results


def wait_until(condition):
    deadline = time.monotonic() + 240
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_sweep_goes_on_past_what_another_trains_and_waits_for_it_at_the_end(tmp_path, blobs, pretended):
    store = Store(tmp_path)
    first, *rest = names(store, blobs)
    with Claims(tmp_path) as other:
        assert other.take(first)
        thread, frames = start(lambda: bs.run_sweep(GRID, store=tmp_path, build=net, data=blobs, **QUIET))
        wait_until(lambda: len(store.hashes()) == len(rest))
        assert not frames
        record = Record(cell=bs.Cell(batch_size=8), hash=first, status=Status.FAILED, reason="out of luck")
        store.save(record)
    thread.join(60)
    assert frames[0]["hash"].tolist() == [first, *rest]
    assert frames[0]["reason"].tolist() == ["out of luck"] + [""] * len(rest)  # Returned as it is, not tried again.
    assert pretended == dict.fromkeys(rest, 1)
    assert not list(tmp_path.glob("*.claim"))


def test_a_run_that_another_lets_go_without_a_record_is_trained_here(tmp_path, blobs, pretended):
    first, *rest = names(Store(tmp_path), blobs)
    with Claims(tmp_path) as other:
        assert other.take(first)
        thread, frames = start(lambda: bs.run_sweep(GRID, store=tmp_path, build=net, data=blobs, **QUIET))
        wait_until(lambda: len(pretended) == len(rest))
    thread.join(60)
    assert len(frames[0]) == len(GRID)
    assert pretended == dict.fromkeys([first, *rest], 1)


def test_a_failure_from_before_is_done_anew_once_however_many_sweeps_there_are(tmp_path, blobs, pretended):
    store = Store(tmp_path)
    for name in names(store, blobs):
        store.save(Record(cell=bs.Cell(), hash=name, status=Status.FAILED, reason="out of luck"))
    sweeps = [start(lambda: bs.run_sweep(GRID, store=tmp_path, build=net, data=blobs, **QUIET)) for _ in range(3)]
    for thread, _ in sweeps:
        thread.join(120)
    for _, (frame,) in sweeps:
        assert frame["status"].tolist() == ["COMPLETE"] * len(GRID)
    assert set(pretended.values()) == {1}
    assert len(pretended) == len(GRID)


def test_of_a_job_of_several_seeds_those_are_trained_that_nobody_has(tmp_path, blobs, monkeypatch):
    store, sources = Store(tmp_path), SweepInputs(net, blobs)
    cells = {cell: sources.check(cell, store) for cell in map(sources.label, GRID) if cell.batch_size == 8}
    one, another, *rest = cells.values()
    job = tasks.Task(cells, sources.local(next(iter(cells))), store, 8.0, 4, dict.fromkeys(cells.values()))
    trained = []

    def records(part):
        trained.append((list(part.names.values()), part.cost))
        for cell in part.names:
            yield Record(cell=cell, hash="", status=Status.DIVERGED)
            assert not list(tmp_path.glob(f"{part.names[cell]}*.claim"))

    monkeypatch.setattr(tasks, "_records", records)
    store.save(complete(bs.Cell(), another))
    with Claims(tmp_path) as other:
        assert other.take(one)
        statuses = tasks.train(job)
    assert statuses == {one: None, another: Status.COMPLETE} | dict.fromkeys(rest, Status.DIVERGED)
    assert trained == [(rest, 4.0)]
    assert not list(tmp_path.glob("*.claim"))


def test_a_crash_of_a_worker_is_recorded_for_its_own_cells_alone(tmp_path, blobs):
    store, sources = Store(tmp_path), SweepInputs(net, blobs)
    cells = {cell: sources.check(cell, store) for cell in map(sources.label, GRID) if cell.batch_size == 8}
    one, another, *rest = cells.values()
    job = tasks.Task(cells, sources.local(next(iter(cells))), store, 8.0, 4, dict.fromkeys(cells.values()))
    store.save(complete(bs.Cell(), another))
    with Claims(tmp_path) as other:
        assert other.take(one)
        statuses = sweeping._record_lost_cells(job, "it crashed")
    assert statuses == {one: None, another: Status.COMPLETE} | dict.fromkeys(rest, Status.FAILED)
    assert store.load(rest[0]).reason == "it crashed: batch 8, seeds 0, 1, 2, 3"


def test_an_interrupted_sweep_lets_go_of_its_claims(tmp_path, blobs, monkeypatch):
    def interrupt(job):
        assert len(list(tmp_path.glob("*.claim"))) == 1
        raise KeyboardInterrupt

    monkeypatch.setattr(tasks, "_records", interrupt)
    with pytest.raises(KeyboardInterrupt):
        bs.run_sweep(GRID, store=tmp_path, build=net, data=blobs, **QUIET)
    assert not list(tmp_path.iterdir())


def count_examples(model, data, loss):
    return lambda record: {"examples": float(data.n_train)}


def test_what_is_all_measured_is_read_from_a_store_that_cannot_be_written(tmp_path, blobs, pretended, monkeypatch):
    """A workspace was made, and the store written to, although there was nothing to measure."""
    runs = bs.run_sweep(GRID, store=tmp_path, build=net, data=blobs, **QUIET)["hash"]
    options = {"build": net, "data": blobs, "show_progress": False}
    before = bs.measure_runs(tmp_path, runs, "examples", count_examples, executor="serial", **options)

    def fail(*args, **kwargs):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    for module, name in ((os, "mkdir"), (os, "open"), (os, "unlink"), (os, "replace"), (pathlib.Path, "write_bytes")):
        monkeypatch.setattr(module, name, fail)
    for executor in ("auto", "serial", "processes"):
        again = bs.measure_runs(tmp_path, runs, "examples", count_examples, executor=executor, **options)
        assert again.equals(before)


SWEEPS = f"""
import os, time
import keras, numpy as np
import batchscape as bs
from batchscape.train.record import Record, Status
from batchscape.sweep import run, tasks  # All that takes long is imported once; TensorFlow has not started yet.
from batchscape.sweep.store import Store

{inspect.getsource(complete)}
"""
SWEEPS += """

def build():
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])

def tell(file, text):
    log = os.open(file, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    os.write(log, f"{text}\\n".encode())
    os.close(log)

def pretend(task):
    for cell in task.names:
        time.sleep(0.05)
        yield complete(cell, "")

def save_and_tell(self, record, save=Store.save):
    save(self, record)
    tell("trained", f"{record.hash} {os.getpid()}")

tasks._records, Store.save = pretend, save_and_tell
data = np.ones((100, 4), "float32"), np.arange(100) % 3
grid = bs.Grid(batch_size=1, epochs=1, learning_rate=0.01, seed=range(100))
for _ in range(3):
    if not os.fork():
        frame = bs.run_sweep(grid, store="store", build=build, data=data, executor="serial", show_progress=False)
        tell("frames", f"{len(frame)} {set(frame['status'])}")
        os._exit(0)
print(sorted(os.wait()[1] for _ in range(3)))
"""


def test_three_sweeps_at_once_train_each_run_once_and_replace_one_that_is_killed(tmp_path):
    """Killed while it trains: its claim is a dead one's, and one of the others trains that run."""

    def trained():
        return [line.split() for line in (tmp_path / "trained").read_text().splitlines()]

    def holds_a_claim(process):
        with contextlib.suppress(FileNotFoundError):  # Released meanwhile.
            return any(f"-{process}-" in file.read_text() for file in (tmp_path / "store").glob("*.claim"))

    command = [sys.executable, "-W", "ignore", "-c", SWEEPS]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as sweeps:
        wait_until((tmp_path / "trained").exists)
        victim = trained()[0][1]
        wait_until(lambda: holds_a_claim(victim))
        os.kill(int(victim), signal.SIGKILL)
        output, errors = sweeps.communicate(timeout=240)
    assert output.strip() == "[0, 0, 9]", errors
    assert (tmp_path / "frames").read_text() == "100 {'COMPLETE'}\n" * 2
    finished = collections.Counter(name for name, _ in trained())
    assert len(finished) == 100
    assert set(finished.values()) == {1}
    assert not list((tmp_path / "store").glob("*.claim"))
    assert not list((tmp_path / "store").glob("*.tmp"))
