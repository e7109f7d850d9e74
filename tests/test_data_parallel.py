"""Several devices share each batch: the run is that of one device at the batch of all of them."""

import dataclasses
import logging

import keras
import numpy as np
import pytest

import batchscape as bs
from batchscape import errors
from batchscape.config import Cell
from batchscape.errors import InvalidInput
from batchscape.sweep.store import Store
from batchscape.train import data_parallel, divided_batches
from tests.test_engines import assert_equal_runs

layers = keras.layers


def net():
    return keras.Sequential([keras.Input((4,)), layers.Dense(8, "tanh", kernel_regularizer="l2"), layers.Dense(3)])


@pytest.fixture(scope="module", autouse=True)
def process():
    """What a test started ends with the last one."""
    yield
    if data_parallel._process is not None:
        data_parallel._process.stop()


@pytest.fixture
def data(blobs):
    """With 81 training examples: three devices share a last partial batch of 21 too."""
    return blobs


THREE = {"batch_size": 10, "devices": 3, "learning_rate": 0.05, "epochs": 2, "seed": 1}


def test_three_devices_train_as_one_does_with_three_times_the_batch(data, caplog):
    cell = Cell(**THREE, optimizer="adam", weight_decay=0.1, warmup=1, decay="cosine", lr_policy="linear")
    shared = bs.fit_one(cell, build=net, data=data)
    alone = bs.fit_one(dataclasses.replace(cell, devices=1, batch_size=30), build=net, data=data)
    assert_equal_runs(alone, shared)
    assert not caplog.records  # Its loss is that of `evaluate`, too.
    for name in ("updates", "examples", "learning_rate"):
        assert shared.curves[name] == alone.curves[name]
    assert (shared.facts["batch"], shared.facts["batch_per_device"], shared.facts["last_batch_size"]) == (30, 10, 21)
    assert len(set(shared.facts["device_names"])) == 3
    assert shared.hash != alone.hash
    assert shared.facts["engine"] == "dataset"


def test_devices_are_an_axis_of_a_sweep_and_their_batch_is_that_of_all(data, tmp_path):
    momentum = {"optimizer": "sgd", "optimizer_options": {"momentum": 0.9}, "engine": "stock"}
    grid = bs.Grid(**{**THREE, "batch_size": ["full", 9], "devices": [1, 3], "epochs": 1, **momentum})
    grid += bs.Grid(**{**THREE, "batch_size": 27, "devices": 1, "epochs": 1, **momentum})
    frame = bs.run_sweep(grid, store=tmp_path, build=net, data=data, executor="serial", show_progress=False)
    assert set(frame["status"]) == {"COMPLETE"}
    assert frame["batch"].tolist() == [81, 81, 9, 27, 27]
    first, second = (
        [record.weights["final"] for record in Store(tmp_path).records() if record.facts["batch"] == batch]
        for batch in (27, 81)
    )
    for alone, shared in (first, second):
        for a, b in zip(alone, shared, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)


@pytest.mark.long
def test_a_process_that_dies_is_told_of_and_replaced(data):
    def fatal():
        import multiprocessing
        import os

        if multiprocessing.parent_process() is not None or data_parallel._strategy is not None:
            os._exit(1)
        return net()

    with pytest.raises(RuntimeError, match="process of the 3 devices exited with status 1"):
        bs.fit_one(Cell(**THREE), build=fatal, data=data)
    assert data_parallel._process is None


def test_batchnorm_is_warned_of_unless_it_is_synchronised(caplog):
    errors._warn_once.cache_clear()
    cell = Cell(**THREE)
    with caplog.at_level(logging.WARNING, logger="batchscape"):
        for synchronized in (True, False):
            norm = layers.BatchNormalization(synchronized=synchronized)
            model = keras.Sequential([keras.Input((4,)), norm, layers.Dense(3)])
            errors.warn(*divided_batches._caveats(cell, "devices=3", model, keras.optimizers.SGD()))
    (message,) = [record.getMessage() for record in caplog.records]
    assert message.startswith("BatchNorm with devices=3: each device normalises its share")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"devices": 0}, r"devices must be an integer ≥ 1. Received: devices=0"),
        ({"devices": 1.5}, r"devices must be an integer ≥ 1. Received: devices=1.5"),
        ({"batch_size": 30}, r"number of training examples, 81, for 3 devices together; .* Received: batch_size=30"),
        ({"devices": 2}, r'last_batch="drop".* Received: devices=2 for a batch of 1 examples'),
        ({"devices": 2, "batch_size": "full"}, r"another number. Received: devices=2 for a batch of 81 examples"),
        ({"engine": "fused"}, r"engines 'dataset' and 'stock'.*engine='fused'"),
        ({"micro_batch_size": 2}, r"without micro_batch_size"),
        ({"precision": "mixed_float16"}, r"use mixed_bfloat16"),
    ],
)
def test_devices_that_cannot_share_are_refused_before_a_process_starts(data, changes, message):
    before = data_parallel._process
    with pytest.raises(InvalidInput, match=message):
        bs.fit_one(Cell(**{**THREE, **changes}), build=net, data=data)
    assert data_parallel._process is before


def test_clipping_is_refused_and_so_are_callbacks(data, tmp_path):
    clipped = Cell(**THREE, optimizer="sgd", optimizer_options={"clipnorm": 0.5})
    with pytest.raises(InvalidInput, match=r"clips the gradient of each device.* Received: clipnorm=0.5"):
        bs.run_sweep(clipped, store=tmp_path, build=net, data=data, show_progress=False)
    with pytest.raises(InvalidInput, match=r"without callbacks. Received: 1"):
        bs.fit_one(Cell(**THREE), build=net, data=data, callbacks=[keras.callbacks.Callback()])


def test_cells_of_several_devices_come_back_from_json():
    assert Cell.from_json(Cell(devices=3).to_json()) == Cell(devices=np.int64(3))


def test_a_loss_of_the_models_own_is_not_divided_among_devices(data):
    class Own(keras.Sequential):
        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            return super().compute_loss(x, y, y_pred, sample_weight)

    def build():
        model = Own([keras.Input((4,)), layers.Dense(3)])
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        return model

    with pytest.raises(InvalidInput, match=r"devices=3 needs Keras' own compute_loss.*Received: Own.compute_loss"):
        bs.fit_one(Cell(**THREE), build=build, data=data)
