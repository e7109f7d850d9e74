"""The three engines train the same network: same order, same updates, same weights."""

import keras
import numpy as np
import pytest

import batchscape as bs
from batchscape.config import Cell

OPTIMIZERS = {
    "sgd": ("sgd", {}, 0.1),
    "momentum": ("sgd", {"momentum": 0.9}, 0.05),
    "nesterov": ("sgd", {"momentum": 0.9, "nesterov": True}, 0.05),
    "adam": ("adam", {}, 1e-3),
}


def dense_net(data):
    return keras.Sequential(
        [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(16, "tanh"), keras.layers.Dense(10)]
    )


def batchnorm_net(data):
    # No bias before BatchNorm: its gradient is exactly zero, and Adam would scale the rounding errors up to full steps.
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(16, use_bias=False),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
            keras.layers.Dense(10),
        ]
    )


def conv_net(data):
    layers = keras.layers
    return keras.Sequential(
        [keras.Input((8, 8, 1)), layers.Conv2D(4, 3, activation="relu"), layers.Flatten(), layers.Dense(10)]
    )


def train(engine, build, optimizer, **changes):
    name, options, learning_rate = OPTIMIZERS[optimizer]
    budget = {} if {"until_loss", "updates", "examples"} & set(changes) else {"epochs": 1}
    cell = Cell(
        train_size=500, optimizer=name, optimizer_options=options, learning_rate=learning_rate, engine=engine, seed=3,
        **{"batch_size": 32, **budget, **changes},
    )  # fmt: skip
    return bs.fit_one(cell, build=build)


def assert_equal_runs(one, other, tolerance=1e-6):
    for a, b in zip(one.weights["final"], other.weights["final"], strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance)
    for name in ("train_loss", "val_loss", "distance", "path_length"):
        assert one.final[name] == pytest.approx(other.final[name], rel=1e-4), name


@pytest.mark.parametrize("build", [dense_net, batchnorm_net], ids=["dense", "batchnorm"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_engines_agree_after_an_epoch_with_a_tail(optimizer, build):
    stock = train("stock", build, optimizer)
    assert stock.facts["last_batch_size"] == 500 % 32
    for engine in ("dataset", "fused"):
        assert_equal_runs(stock, train(engine, build, optimizer))
