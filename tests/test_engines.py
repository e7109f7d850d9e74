"""The three engines train the same network: same order, same updates, same weights."""

import functools

import keras
import numpy as np
import pytest

import batchscape as bs
from batchscape.config import Cell
from batchscape.train.trainer import Trainer
from tests.toys import ENGINES, OneDense, tf

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


@functools.cache
def reference(build, optimizer):
    """The run under the engine `stock` that others are compared with."""
    return train("stock", build, optimizer)


def assert_equal_runs(one, other, tolerance=1e-6):
    for a, b in zip(one.weights["final"], other.weights["final"], strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance)
    for name in ("train_loss", "val_loss", "distance", "path_length"):
        assert one.final[name] == pytest.approx(other.final[name], rel=1e-4), name


@pytest.mark.parametrize(
    ("optimizer", "build"),
    [
        pytest.param("sgd", dense_net, id="sgd-dense", marks=pytest.mark.xla),
        pytest.param("momentum", dense_net, id="momentum-dense"),
        pytest.param("nesterov", dense_net, id="nesterov-dense"),
        pytest.param("adam", dense_net, id="adam-dense"),
        pytest.param("momentum", batchnorm_net, id="momentum-batchnorm"),
        pytest.param("adam", batchnorm_net, id="adam-batchnorm", marks=pytest.mark.xla),
    ],
)
def test_engines_agree_after_an_epoch_with_a_tail(optimizer, build):
    """Between `stock` and `dataset` the order of the data differs alone, so one optimizer a net tells."""
    stock = reference(build, optimizer)
    assert stock.facts["last_batch_size"] == 500 % 32
    both = (optimizer, build) in (("sgd", dense_net), ("adam", batchnorm_net))
    for engine in ENGINES[1:] if both else ["fused"]:
        assert_equal_runs(stock, train(engine, build, optimizer))


@pytest.mark.parametrize(
    "changes",
    [
        {"batch_size": "full", "epochs": 5},
        {"batch_size": 1, "epochs": 0.2},
        {"last_batch": "drop"},
        pytest.param({"batch_size": 300}, marks=pytest.mark.xla),
    ],
    ids=["full batch", "batch 1", "tail dropped", "tail in every second update"],
)
def test_engines_agree_at_the_ends_of_the_range(changes):
    stock = train("stock", dense_net, "sgd", **changes)
    for engine in ENGINES[1:]:
        assert_equal_runs(stock, train(engine, dense_net, "sgd", **changes))


@pytest.mark.xla
@pytest.mark.tensorflow
@pytest.mark.parametrize(("batch_size", "jit"), [(5, True), (250, False)])
def test_engines_agree_on_a_convolution_which_xla_gets_only_in_small_batches(batch_size, jit):
    fused = train("fused", conv_net, "momentum", batch_size=batch_size)
    assert fused.facts["jit"] is jit
    assert_equal_runs(train("stock", conv_net, "momentum", batch_size=batch_size), fused, tolerance=1e-5)


@pytest.mark.xla
@pytest.mark.tensorflow
def test_one_model_goes_to_and_fro_between_programs_without_mixing_them_up(digits):
    cells = [Cell(batch_size=batch_size, updates=5, learning_rate=0.1) for batch_size in (4, 256, 4)]
    trainer = Trainer(cells[0], digits, conv_net)
    first, middle, again = (trainer.run(cell) for cell in cells)
    assert [record.facts["jit"] for record in (first, middle, again)] == [True, False, True]
    assert middle.final["updates"] == 5
    for a, b in zip(first.weights["final"], again.weights["final"], strict=True):
        np.testing.assert_array_equal(a, b)


class Words(keras.layers.Layer):
    """An operation that XLA lacks: the length of the numbers written out, times 0."""

    def call(self, inputs):
        return inputs + 0.0 * tf.cast(tf.strings.length(tf.strings.as_string(inputs)), inputs.dtype)


def conv_net_without_xla(data):
    layers = keras.layers
    return keras.Sequential(
        [keras.Input((8, 8, 1)), Words(), layers.Conv2D(4, 3, activation="relu"), layers.Flatten(), layers.Dense(10)]
    )


@functools.cache
def weights_of_five_updates_by_xla():
    """Of `conv_net`, at B = 4."""
    cell = Cell(batch_size=4, updates=5, learning_rate=0.1, engine="fused")
    return bs.fit_one(cell, build=conv_net).weights["final"]


@pytest.mark.xla
@pytest.mark.tensorflow
@pytest.mark.parametrize("engine", ["auto", "fused"])
def test_a_model_that_xla_cannot_compile_is_fused_without_it_whenever_xla_would_come_up(digits, engine):
    cells = [Cell(batch_size=batch_size, updates=5, learning_rate=0.1, engine=engine) for batch_size in (256, 4, 256)]
    trainer = Trainer(cells[0], digits, conv_net_without_xla)
    records = [trainer.run(cell) for cell in cells]
    assert [(record.facts["engine"], record.facts["jit"]) for record in records] == [("fused", False)] * 3
    assert not records[0].facts["engine_note"]
    assert "unsupported operations" in records[1].facts["engine_note"]
    for a, b in zip(records[1].weights["final"], weights_of_five_updates_by_xla(), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)


@pytest.mark.xla
@pytest.mark.tensorflow
def test_a_dense_model_that_xla_cannot_compile_trains_and_is_evaluated():
    def build(data):
        return keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), Words(), keras.layers.Dense(10)])

    record = train("auto", build, "sgd")
    assert (record.facts["engine"], record.facts["jit"]) == ("fused", False)
    assert record.final["train_loss"] < record.curves["train_loss"][0]


def test_engines_agree_where_a_loss_target_is_crossed_and_on_the_weights_kept_after_it():
    stock, fused = (train(engine, dense_net, "sgd", until_loss=1.0, batch_size=64) for engine in ("stock", "fused"))
    assert stock.final["reached"]
    assert fused.final["updates"] == stock.final["updates"]
    assert list(fused.weights) == ["initial", "final", "after_1", "after_2", "after_3"]
    for stage in fused.weights:
        for a, b in zip(stock.weights[stage], fused.weights[stage], strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)


def test_a_mixed_precision_run_stays_close_to_float32():
    exact, mixed = (train("fused", dense_net, "sgd", precision=name) for name in ("float32", "mixed_bfloat16"))
    assert mixed.weights["final"][0].dtype == np.float32
    assert mixed.final["train_loss"] == pytest.approx(exact.final["train_loss"], rel=0.05)
    assert mixed.final["train_loss"] != exact.final["train_loss"]


def test_dropout_trains_under_every_engine_and_repeats_itself():
    def build(data):
        layers = keras.layers
        stack = [layers.Flatten(), layers.Dense(16, "relu"), layers.Dropout(0.5), layers.Dense(10)]
        return keras.Sequential([keras.Input((8, 8, 1)), *stack])

    for engine in ("stock", "fused"):
        first, second = (train(engine, build, "sgd") for _ in range(2))
        assert first.final["train_loss"] == second.final["train_loss"] < first.curves["train_loss"][0]


@pytest.mark.tensorflow
def test_a_model_that_cannot_be_fused_falls_back_and_the_record_says_why(blobs):
    class NotInLoops(OneDense):
        """A training step that works in a graph, but not inside a loop in it."""

        def train_step(self, data):
            if "while" in tf.compat.v1.get_default_graph().name:
                raise NotImplementedError("not inside a loop")
            return super().train_step(data)

    record = bs.fit_one(Cell(batch_size=9, epochs=1), build=NotInLoops, data=blobs)
    assert record.facts["engine"] == "dataset"
    assert record.facts["engine_note"] == "NotImplementedError: not inside a loop"
    with pytest.raises(NotImplementedError, match="not inside a loop"):
        bs.fit_one(Cell(batch_size=9, epochs=1, engine="fused"), build=NotInLoops, data=blobs)
