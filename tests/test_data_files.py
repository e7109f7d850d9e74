"""Data for other processes: arrays in files, nothing unpickled, and never others than a run is named by."""

import collections
import dataclasses
import os
import pickle
import stat

import cloudpickle
import keras
import numpy as np
import optree
import pytest

import batchscape as bs
from batchscape.cost.probe_input import ProbeInput, pack
from batchscape.data import files, load_dataset
from batchscape.errors import InvalidInput, StoreError
from batchscape.sweep import tasks
from batchscape.sweep.inputs import SweepInputs
from batchscape.sweep.store import Store
from batchscape.train.fit import fit_one
from batchscape.workers import executors

CELL = bs.Cell(batch_size=10, epochs=1, learning_rate=0.1, engine="stock")


def net():
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])


@pytest.fixture(autouse=True)
def nothing_mapped():
    """Each test maps its own files, as each worker process does."""
    files._load.cache_clear()


@pytest.mark.parametrize(
    "wrap",
    [
        lambda x: x,
        lambda x: {"b": x, "a": x[:, :1]},
        lambda x: [x, (x[:, :2], {"c": np.asfortranarray(x)})],
        lambda x: collections.OrderedDict(b=x, a=x[:, :1]),
        lambda x: collections.namedtuple("Pair", "one other")(x, x > 0),
    ],
)
def test_data_come_back_in_their_structure_to_the_bit_and_mapped_into_memory(tmp_path, blobs, wrap):
    x, y = blobs
    data = load_dataset((wrap(x), y))
    back = files.write(data, tmp_path).load()
    assert dict(back.meta) == dict(data.meta)
    for name in files.FIELDS:
        (given, as_given), (got, as_got) = (optree.tree_flatten(getattr(each, name)) for each in (data, back))
        assert as_given == as_got
        for a, b in zip(given, got, strict=True):
            np.testing.assert_array_equal(a, b, strict=True)
            assert isinstance(b, np.memmap)
            assert not b.flags.writeable


def test_files_are_read_and_checked_once(tmp_path, blobs, monkeypatch):
    stored = files.write(load_dataset(blobs), tmp_path)
    again = pickle.loads(pickle.dumps(stored))  # As it comes with the next task.
    assert stored.load() is again.load()


def change(file):
    array = np.load(file)
    array.flat[0] += 1
    np.save(file, array)


def put_a_pickle(file):
    np.save(file, np.array([object()], dtype=object), allow_pickle=True)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (change, "must be those that its runs are named by"),
        (put_a_pickle, "cannot be read"),
        (os.remove, "cannot be read"),
        (lambda file: os.truncate(file, 200), "cannot be read"),
        (lambda file: os.truncate(file, 0), "cannot be read"),
    ],
)
def test_changed_or_broken_files_are_refused_before_anything_is_trained(tmp_path, blobs, spoil, message):
    store, sources = Store(tmp_path), SweepInputs(net, blobs)
    cell = sources.label(CELL)
    name = sources.check(cell, store)
    with store.workspace() as workspace:
        source = sources.for_workers(cell, workspace)
        (file,) = workspace.folder.glob("*/1.npy")
        spoil(file)
        with pytest.raises(StoreError, match=message) as caught:
            tasks.train(tasks.Task({cell: name}, source, store, 1.0, 1, {name: None}))
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_pipeline_that_gives_other_data_in_a_worker_is_refused(blobs):
    from tests.toys import tf

    if tf is None:
        pytest.skip("needs TensorFlow")
    x, y = blobs
    given = [x]

    def load():
        return tf.data.Dataset.from_tensor_slices((given[0], y))

    sources = SweepInputs(net, load)
    cell = sources.label(CELL)
    source = sources.for_workers(cell, None)
    assert source.load().n_train == 80
    given[0] = x + 1
    with pytest.raises(StoreError, match="must be those that its runs are named by"):
        source.load()


def test_a_dead_process_with_our_number_leaves_no_data_to_us(tmp_path, blobs, monkeypatch):
    """Its workspace was used again: its 49 examples were trained on under the name of a run on 97, marked COMPLETE."""

    def run_here(function, tasks, **options):  # With what would travel to workers, whose start takes long.
        assert options["executor"] == "processes"
        assert all(isinstance(task.source.data, files.DataFiles) for task in tasks)
        return (executors.Outcome(task, function(cloudpickle.loads(cloudpickle.dumps(task)))) for task in tasks)

    monkeypatch.setattr(executors, "run", run_here)
    x, y = blobs
    left = tmp_path / f"shared.{os.getpid()}.tmp"
    left.mkdir()
    stale = load_dataset((x[:50], y[:50]))
    np.save(left / "0.npy", stale.x_train)
    (left / "0.joblib").write_bytes(pickle.dumps(stale))
    options = {"executor": "processes", "workers": 1, "show_progress": False}
    frame = bs.run_sweep([CELL], store=tmp_path, build=net, data=blobs, **options)
    assert frame[["status", "n_train"]].to_numpy().tolist() == [["COMPLETE", 81]]
    (record,) = Store(tmp_path).records()
    alone = fit_one(record.cell, build=net, data=blobs)
    assert alone.hash == record.hash
    for a, b in zip(alone.weights["final"], record.weights["final"], strict=True):
        np.testing.assert_array_equal(a, b)


def test_arrays_of_objects_are_refused_in_one_line(tmp_path, blobs):
    data = load_dataset(blobs)
    objects = dataclasses.replace(data, x_val=np.array([{}], dtype=object))
    with pytest.raises(InvalidInput, match="must hold numbers"):
        files.write(objects, tmp_path)


def test_a_full_disk_is_told_in_one_line(tmp_path, blobs, monkeypatch):
    def fail(*args, **options):
        raise OSError("2880 requested and 512 written")

    monkeypatch.setattr(np, "save", fail)
    with pytest.raises(StoreError, match=r"cannot be written: .*is the disk full\?"):
        files.write(load_dataset(blobs), tmp_path)


def test_a_probe_has_its_data_in_files_that_only_its_user_can_reach(tmp_path, blobs):
    data = load_dataset(blobs)
    packed = pack(blobs, data, tmp_path)
    assert stat.S_IMODE(packed.folder.stat().st_mode) == 0o700
    np.testing.assert_array_equal(ProbeInput(net, packed).load().x_train, data.x_train)
