"""A batch computed in micro-batches: the update is that of the whole batch, and only parts of it are in memory."""

import logging
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

import batchscape as bs
from batchscape import errors
from batchscape.config import Cell
from batchscape.errors import InvalidInput
from batchscape.train import divided_batches, engine_tensorflow
from batchscape.train.trainer import Trainer
from tests.test_engines import OPTIMIZERS, assert_equal_runs, batchnorm_net, conv_net, dense_net, reference, train

layers = keras.layers


def penalised_net(data):
    """Penalties on weights and outputs, which must count once, however many parts a batch has."""
    dense = layers.Dense(16, "tanh", kernel_regularizer=keras.regularizers.L2(0.05), activity_regularizer="l2")
    return keras.Sequential([keras.Input((8, 8, 1)), layers.Flatten(), dense, layers.Dense(10)])


@pytest.mark.parametrize(
    ("optimizer", "micro_batch_size"),
    [
        *(pytest.param(name, 12, id=name, marks=pytest.mark.long if name == "nesterov" else []) for name in OPTIMIZERS),
        pytest.param("adam", 8, id="32 divided"),
        pytest.param("adam", 1000, id="larger than the batch"),
    ],
)
def test_micro_batches_make_the_update_of_the_whole_batch(optimizer, micro_batch_size):
    stock = reference(dense_net, optimizer)
    assert stock.facts["last_batch_size"] == 500 % 32
    assert_equal_runs(stock, train("fused", dense_net, optimizer, micro_batch_size=micro_batch_size))


@pytest.mark.parametrize(
    ("build", "changes"),
    [
        (penalised_net, {"weight_decay": 0.1, "warmup": 0.5, "decay": "cosine"}),
        (dense_net, {"batch_size": "full", "epochs": 5}),
        (dense_net, {"batch_size": 60, "batch_steps": {1: 300}, "epochs": 2, "last_batch": "drop"}),
    ],
    ids=["penalties, weight decay and schedule", "full batch", "batch that grows, tail dropped"],
)
def test_everything_that_goes_by_updates_does_so(build, changes):
    whole, split = (train("fused", build, "momentum", micro_batch_size=size, **changes) for size in (None, 7))
    assert_equal_runs(whole, split)
    assert whole.curves["updates"] == split.curves["updates"]
    assert whole.curves["learning_rate"] == split.curves["learning_rate"]


def test_several_outputs_and_sample_weights_are_weighted_as_in_the_whole_batch(blobs):
    x, labels = blobs
    data = (x, {"kind": labels, "size": x[:, :1]}, (1 + np.arange(len(x)) % 4).astype(np.float32))

    def build():
        inputs = keras.Input((4,))
        hidden = layers.Dense(5, "tanh")(inputs)
        model = keras.Model(inputs, {"kind": layers.Dense(3, "softmax")(hidden), "size": layers.Dense(1)(hidden)})
        model.compile(
            "sgd", {"kind": "sparse_categorical_crossentropy", "size": "mse"}, loss_weights={"kind": 0.3, "size": 2}
        )
        return model

    whole, split = (
        bs.fit_one(Cell(batch_size=16, epochs=2, micro_batch_size=size), build=build, data=data) for size in (None, 5)
    )
    assert_equal_runs(whole, split)


def test_clipping_sees_the_gradient_of_the_whole_batch(blobs):
    def build(data):
        return keras.Sequential([keras.Input((4,)), layers.Dense(3)])

    cells = [
        Cell(
            batch_size=30, micro_batch_size=size, epochs=1, optimizer="sgd", learning_rate=0.5,
            optimizer_options={"global_clipnorm": 0.1},
        )
        for size in (None, 4)
    ]  # fmt: skip
    whole, split = (bs.fit_one(cell, build=build, data=blobs) for cell in cells)
    assert whole.final["path_length"] == pytest.approx(3 * 0.5 * 0.1, rel=1e-4)
    assert_equal_runs(whole, split)


@pytest.mark.parametrize("embedding", [False, True], ids=["not reached by the loss", "sparse gradient"])
def test_weights_without_a_plain_gradient_train_as_ever(embedding):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 9, (90, 5)), np.arange(90) % 3

    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.words, self.idle, self.out = layers.Embedding(9, 4), layers.Dense(2), layers.Dense(3)

        def call(self, inputs):
            features = self.words(inputs)
            self.idle(features[:, 0])
            return self.out(keras.ops.mean(features, axis=1) if embedding else keras.ops.cast(inputs, "float32"))

    cells = [
        Cell(
            batch_size=20, micro_batch_size=size, epochs=2, optimizer="sgd", learning_rate=0.1, engine="fused",
            optimizer_options={"momentum": 0.9},
        )
        for size in (None, 6)
    ]  # fmt: skip
    with pytest.warns(UserWarning, match="Gradients do not exist"):  # Keras says so of a whole batch.
        whole = bs.fit_one(cells[0], build=Net, data=(x, y))
    assert_equal_runs(whole, bs.fit_one(cells[1], build=Net, data=(x, y)))


@pytest.mark.parametrize("jit", [True, False])
def test_no_tensor_of_the_program_holds_more_than_a_micro_batch(digits, jit):
    batch_size, micro_batch_size, seen = 96, 8, []

    class Watch(layers.Layer):
        def call(self, inputs):
            seen.append(inputs.shape[0])
            return inputs

    net = dense_net(digits)
    model = keras.Sequential([keras.Input((8, 8, 1)), Watch(), *net.layers])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
    program = engine_tensorflow.fuse(model, digits.examples("train"), jit=jit, micro_batch_size=micro_batch_size)
    seen.clear()
    block = tf.zeros((2, batch_size), tf.int32), tf.constant(2)
    program(*block)
    assert set(seen) == {micro_batch_size}
    if jit:
        text = program.experimental_get_compiler_ir(*block, None, None)(stage="optimized_hlo")
        assert not re.findall(rf"f32\[{batch_size},", text)
        assert re.findall(rf"f32\[{micro_batch_size},", text)


@pytest.mark.xla
def test_a_convolution_in_large_batches_gets_xla_when_its_micro_batches_are_small():
    whole, split = (train("auto", conv_net, "sgd", batch_size=250, micro_batch_size=size) for size in (None, 5))
    assert (whole.facts["jit"], split.facts["jit"]) == (False, True)
    assert_equal_runs(whole, split, tolerance=1e-5)


def test_half_precision_with_loss_scaling_stays_close_to_the_whole_batch():
    whole, split = (train("fused", dense_net, "sgd", precision="mixed_float16", micro_batch_size=b) for b in (None, 8))
    assert split.final["train_loss"] == pytest.approx(whole.final["train_loss"], rel=0.02)
    assert split.final["train_loss"] < 0.9 * split.curves["train_loss"][0]


def test_batchnorm_trains_with_one_warning_that_says_what_it_means(caplog, digits):
    errors._warn_once.cache_clear()
    with caplog.at_level(logging.WARNING, logger="batchscape"):
        split = train("fused", batchnorm_net, "sgd", micro_batch_size=8)
        errors.warn(*Trainer(split.cell, digits, batchnorm_net).caveats)  # As a second run would.
        whole = train("fused", batchnorm_net, "sgd")
    (message,) = [record.getMessage() for record in caplog.records if record.name == "batchscape"]
    assert message.startswith("BatchNorm with micro_batch_size=8: each micro-batch is normalised by its own mean")
    assert split.final["train_loss"] != whole.final["train_loss"]
    assert split.final["train_loss"] < split.curves["train_loss"][0]


def test_an_embedding_is_warned_of_where_keras_squares_each_occurrence_of_a_row_by_itself(caplog):
    def update(gradient):
        rows = keras.Variable(np.ones((2, 1), "float32"))
        keras.optimizers.RMSprop(0.1).apply([gradient], [rows])
        return rows.numpy()[:, 0]

    twice = tf.IndexedSlices(tf.constant([[1.0], [3.0]]), tf.constant([0, 0]), tf.constant([2, 1]))
    assert update(twice)[0] != pytest.approx(update(tf.convert_to_tensor(twice))[0])

    model = keras.Sequential([keras.Input((5,)), layers.Embedding(9, 4), layers.Flatten(), layers.Dense(3)])
    for optimizer, n in ((keras.optimizers.SGD(), 0), (keras.optimizers.Adam(), 1)):
        errors._warn_once.cache_clear()
        with caplog.at_level(logging.WARNING, logger="batchscape"):
            errors.warn(*divided_batches._caveats(Cell(micro_batch_size=8), "micro_batch_size=8", model, optimizer))
        assert len(caplog.records) == n


class OwnStep(keras.Sequential):
    def train_step(self, data):
        return super().train_step(data)


def dense_with_own_step(data):
    return OwnStep([keras.Input((8, 8, 1)), layers.Flatten(), layers.Dense(10)])


def summed_loss(data):
    model = dense_net(data)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="sum"))
    return model


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (dense_with_own_step, r"needs Keras' own train_step.*Received: OwnStep.train_step"),
        (summed_loss, r"mean over examples. Received: sparse_categorical_crossentropy, but its reduction is 'sum'"),
    ],
)
def test_models_whose_batches_do_not_split_are_refused(build, message, tmp_path):
    for run in (
        lambda cell: bs.fit_one(cell, build=build),
        lambda cell: bs.run_sweep(cell, build=build, store=tmp_path, show_progress=False),
    ):
        with pytest.raises(InvalidInput, match=message):
            run(Cell(micro_batch_size=8, epochs=1))


def test_a_masked_output_is_refused():
    def build(data):
        stack = [layers.Embedding(9, 4, mask_zero=True), layers.Dense(1)]
        return keras.Sequential([keras.Input((5,), dtype="int32"), *stack])

    x = np.random.default_rng(0).integers(0, 9, (90, 5))
    with pytest.raises(InvalidInput, match=r"but it is a mean over places that are not masked"):
        bs.fit_one(
            Cell(micro_batch_size=8, epochs=1, loss="mean_squared_error"), build=build, data=(x, x[..., None] / 9.0)
        )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"micro_batch_size": 0}, r"integer ≥ 1. Received: micro_batch_size=0"),
        ({"micro_batch_size": 2.5}, r"integer ≥ 1. Received: micro_batch_size=2.5"),
        ({"micro_batch_size": "full"}, r"integer ≥ 1. Received: micro_batch_size='full'"),
        ({"micro_batch_size": 8, "engine": "stock"}, r"'fused' \(or 'auto'\). Received: engine='stock'"),
    ],
)
def test_micro_batches_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(InvalidInput, match=message):
        Cell(**changes)


def test_cells_with_micro_batches_come_back_from_json():
    assert Cell.from_json(Cell(micro_batch_size=8).to_json()) == Cell(micro_batch_size=np.int64(8))
