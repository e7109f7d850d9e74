"""Training in float16: the optimizer skips updates whose gradients overflow, and the record counts them."""

import dataclasses

import keras
import numpy as np
import pytest
from keras import layers, optimizers

import batchscape as bs
from batchscape.train.trainer import Trainer

CELL = bs.Cell(batch_size=10, epochs=8, precision="mixed_float16", evaluate_every=1, seed=3)
STEPS = 80


def build():
    """A net whose loss scale begins far too high, and is doubled again every 20 updates."""
    model = keras.Sequential([keras.Input((4,)), layers.Dense(8, "relu"), layers.Dense(3, dtype="float32")])
    inner = optimizers.SGD(0.05, momentum=0.9)
    scaled = optimizers.LossScaleOptimizer(inner, initial_scale=2.0**30, dynamic_growth_steps=20)
    model.compile(scaled, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    y = np.arange(123) % 3
    x = (rng.normal(size=(123, 4)) + y[:, None]).astype(np.float32)
    return bs.load_dataset(((x[:111], y[:111]), (x[111:], y[111:])))


@pytest.fixture(scope="module")
def updates_of_keras(data):
    """Updates that Keras makes by itself on the same batches, epoch by epoch."""
    model = bs.build_model(build, data, seed=CELL.seed, precision="mixed_float16")
    updates = [0]
    for epoch in range(8):
        order = bs.epoch_order(data.n_train, CELL.seed, epoch)
        model.fit(data.x_train[order], data.y_train[order], batch_size=10, shuffle=False, verbose=0)
        updates.append(int(model.optimizer.inner_optimizer.iterations))
    return updates


@pytest.mark.tensorflow
@pytest.mark.parametrize("engine", ["stock", "dataset", "fused"])
def test_skipped_updates_are_counted_as_keras_makes_them(engine, data, updates_of_keras):
    assert data.n_train == 100
    record = bs.fit_one(dataclasses.replace(CELL, engine=engine), build=build, data=data)
    assert record.status == "COMPLETE"
    assert record.curves["updates"] == updates_of_keras
    assert record.final["updates"] == updates_of_keras[-1] < STEPS
    assert record.curves["examples"] == [100 * epoch for epoch in range(9)]
    assert record.facts["skipped_updates"] == STEPS - updates_of_keras[-1]
    assert record.facts["skipped_share"] == (STEPS - updates_of_keras[-1]) / STEPS


@pytest.mark.tensorflow
def test_a_second_run_of_the_same_trainer_begins_to_count_anew(data, updates_of_keras):
    trainer = Trainer(CELL, data, build)
    runs = [trainer.run(CELL) for _ in range(2)]
    assert [run.facts["skipped_updates"] for run in runs] == [STEPS - updates_of_keras[-1]] * 2


def test_a_run_without_a_loss_scale_has_no_skipped_updates(data):
    record = bs.fit_one(bs.Cell(batch_size=10, epochs=1, optimizer="sgd"), build=build, data=data)
    assert record.final["updates"] == 10
    assert "skipped_updates" not in record.facts
