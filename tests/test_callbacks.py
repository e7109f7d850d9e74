"""Callbacks of the user in sweeps: made anew for each run, part of its name, and shown what Keras would show them."""

import keras
import numpy as np
import pytest

import batchscape as bs
from batchscape.errors import InvalidInput

CELLS = [bs.Cell(batch_size=batch_size, epochs=6, learning_rate=0.1) for batch_size in (8, 16)]


def net():
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "tanh"), keras.layers.Dense(3)])


def stop_early():
    return [keras.callbacks.EarlyStopping("val_loss", patience=1, min_delta=1e3)]


def stop_later():
    return [keras.callbacks.EarlyStopping("val_loss", patience=3, min_delta=1e3)]


@pytest.mark.parametrize("executor", ["serial", pytest.param("processes", marks=pytest.mark.long)])
def test_a_sweep_stops_early_where_keras_would(executor, blobs, tmp_path):
    given = {"build": net, "data": blobs, "store": tmp_path, "show_progress": False}
    runs = bs.run_sweep(CELLS, callbacks=stop_early, executor=executor, **given)
    assert list(runs["epoch"]) == [2, 2]
    assert bs.missing_runs(CELLS, build=net, data=blobs, store=tmp_path, callbacks=stop_early) == {}
    assert len(bs.missing_runs(CELLS, build=net, data=blobs, store=tmp_path)) == 2
    later = bs.run_sweep(CELLS, callbacks=stop_later, executor="serial", **given)
    assert list(later["epoch"]) == [4, 4]
    assert set(later["hash"]).isdisjoint(runs["hash"])


def test_runs_with_callbacks_are_measured_without_naming_them(blobs, tmp_path):
    given = {"build": net, "data": blobs, "show_progress": False}
    bs.run_sweep(CELLS, callbacks=stop_early, executor="serial", store=tmp_path, **given)
    lines = bs.lines_between(tmp_path, 8, 16, points=3, **given)
    assert np.isfinite(lines["loss"]).all()


def test_what_makes_no_callbacks_is_refused_in_one_line(blobs, tmp_path):
    given = {"build": net, "data": blobs, "store": tmp_path, "show_progress": False}
    with pytest.raises(InvalidInput, match=r"callbacks must be a function that makes a list of Keras callbacks"):
        bs.run_sweep(CELLS, callbacks=lambda: "stop", **given)
    with pytest.raises(InvalidInput, match=r"callbacks must be a function"):
        bs.run_sweep(CELLS, callbacks=stop_early(), **given)
    with pytest.raises(InvalidInput, match="callbacks need devices=1"):
        bs.run_sweep([bs.Cell(batch_size=4, devices=2, last_batch="drop")], callbacks=stop_early, **given)
    with pytest.raises(InvalidInput, match="without callbacks"):
        bs.run_sweep(
            [bs.Cell(batch_size=4, seed=seed) for seed in (0, 1)], callbacks=stop_early, parallel_seeds=2, **given
        )
