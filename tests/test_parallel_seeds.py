"""Seeds trained side by side: each has the record that it has alone."""

import dataclasses
import math
import random

import keras
import numpy as np
import pytest

import batchscape as bs
from batchscape.config import Cell
from batchscape.errors import InvalidInput
from batchscape.sweep import tasks
from batchscape.train import parallel_seeds
from batchscape.train.parallel_seeds import ParallelSeedsTrainer
from batchscape.train.trainer import Trainer
from batchscape.workers import executors
from tests.toys import OneDense

layers = keras.layers


def net(*stack):
    return lambda data: keras.Sequential([keras.Input((8, 8, 1)), *(make() for make in stack), layers.Dense(10)])


dense = net(layers.Flatten, lambda: layers.Dense(16, "tanh"))
batchnorm = net(
    layers.Flatten,
    lambda: layers.Dense(16, use_bias=False),
    lambda: layers.BatchNormalization(momentum=0.9),
    layers.ReLU,
)
dropout = net(layers.Flatten, lambda: layers.Dense(16, "relu"), lambda: layers.Dropout(0.5))
convolution = net(lambda: layers.Conv2D(4, 3, activation="relu"), layers.MaxPooling2D, layers.Flatten)
penalised = net(layers.Flatten, lambda: layers.Dense(16, "relu", kernel_regularizer=keras.regularizers.L2(0.01)))


def relative(y, y_pred):
    each = keras.losses.sparse_categorical_crossentropy(y, y_pred, from_logits=True)
    return keras.ops.square(each) / keras.ops.mean(each)


def coupled(data):
    model = dense(data)
    model.compile(loss=relative)
    return model


def both_ways(build, data, seeds=(3, 4, 5), **changes):
    """Records of seeds trained side by side, and of each alone."""
    cell = Cell(**{"train_size": 500, "batch_size": 32, "epochs": 1, "learning_rate": 0.05, **changes})
    data = bs.load_dataset(data, train_size=cell.train_size)
    cells = [dataclasses.replace(cell, seed=seed) for seed in seeds]
    alone = Trainer(cells[0], data, build)
    return ParallelSeedsTrainer(cells[0], data, build, len(cells)).run_together(cells), [
        alone.run(each) for each in cells
    ]


def assert_same_records(together, alone, tolerance=1e-6):
    for ours, theirs in zip(together, alone, strict=True):
        assert (ours.cell, ours.hash, ours.status) == (theirs.cell, theirs.hash, theirs.status)
        assert list(ours.weights) == list(theirs.weights)
        for stage in ours.weights:
            for a, b in zip(ours.weights[stage], theirs.weights[stage], strict=True):
                assert a.dtype == b.dtype
                np.testing.assert_allclose(a, b, rtol=0, atol=tolerance)
        assert list(ours.curves) == list(theirs.curves)
        for name in set(ours.curves) - {"seconds"}:
            np.testing.assert_allclose(ours.curves[name], theirs.curves[name], rtol=1e-4, atol=1e-6, err_msg=name)
        assert list(ours.final) == list(theirs.final)
        assert set(ours.facts) == {*theirs.facts, "parallel_seeds"}


CASES = {
    "momentum": (dense, {"optimizer": "sgd", "optimizer_options": {"momentum": 0.9}}),
    "adamw, schedule": (
        dense,
        {"optimizer": "adamw", "weight_decay": 0.01, "learning_rate": 1e-3, "warmup": 0.5, "decay": "cosine"},
    ),
    "rprop, full batch": (dense, {"optimizer": "rprop", "batch_size": "full", "epochs": 4, "learning_rate": 1e-3}),
    "growing batch": (dense, {"batch_steps": ((1, 100),), "epochs": 2}),
    "BatchNorm": (batchnorm, {}),
    "dropout": (dropout, {}),
    "convolution": (convolution, {"batch_size": 250, "epochs": 2}),
    "a loss that couples examples": (coupled, {"learning_rate": 0.005}),
    "regulariser": (penalised, {}),
    "loss target": (dense, {"until_loss": 1.0, "batch_size": 64, "epochs": None, "learning_rate": 0.2}),
}


MARKS = {
    **dict.fromkeys(("momentum", "BatchNorm", "dropout"), pytest.mark.xla),
    **dict.fromkeys(("adamw, schedule", "growing batch", "regulariser"), pytest.mark.long),
}


@pytest.mark.parametrize(
    ("build", "changes"), [pytest.param(*CASES[name], id=name, marks=MARKS.get(name, ())) for name in CASES]
)
def test_each_seed_has_the_record_that_it_has_alone(build, changes):
    together, alone = both_ways(build, "digits", **changes)
    assert_same_records(together, alone)
    assert {record.facts["engine"] for record in together} == {"fused"}
    assert {record.facts["parallel_seeds"] for record in together} == {3}
    finals = [record.weights["final"][0] for record in together]
    assert not np.allclose(finals[0], finals[1])


def test_a_seed_that_diverges_leaves_the_others_alone(blobs):
    def build():
        return keras.Sequential([keras.Input((4,)), Scaled(), layers.Dense(3)])

    together, alone = both_ways(build, blobs, seeds=range(4), train_size=None, batch_size=8, epochs=3)
    statuses = [str(record.status) for record in together]
    assert set(statuses) == {"COMPLETE", "DIVERGED"}
    assert statuses == [str(record.status) for record in alone]
    assert [record.reason for record in together] == [record.reason for record in alone]
    for ours, theirs in zip(together, alone, strict=True):
        assert ours.final["updates"] == theirs.final["updates"]
        if ours.status == "COMPLETE":
            assert_same_records([ours], [theirs])


class Scaled(layers.Layer):
    """A factor that is far too large for some seeds."""

    def build(self, _):
        self.factor = self.add_weight(shape=(), initializer=keras.initializers.Constant(random.choice([1.0, 1e30])))

    def call(self, inputs):
        return inputs * self.factor


def test_a_stacked_model_leaves_the_one_it_copies_alone_until_it_is_shown(digits):
    trainer = ParallelSeedsTrainer(Cell(batch_size=32, epochs=1), digits, dense, 2)
    before = trainer._model.get_weights()
    trainer.seconds_per_update(Cell(batch_size=32, epochs=1))
    for a, b in zip(trainer._model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_sweep_with_parallel_seeds_leaves_what_one_without_finds(tmp_path):
    grid = bs.Grid(batch_size=[32, 128], seed=range(3), train_size=300, epochs=1, learning_rate=0.1)
    plain = bs.run_sweep(grid, store=tmp_path / "plain", executor="serial", show_progress=False)
    beside = bs.run_sweep(grid, store=tmp_path / "beside", executor="serial", parallel_seeds=3, show_progress=False)
    assert list(beside["hash"]) == list(plain["hash"])
    np.testing.assert_allclose(beside["train_loss"], plain["train_loss"], rtol=1e-5)
    assert [record.facts["parallel_seeds"] for record in bs.Store(tmp_path / "beside").records()] == [3] * 6
    again = bs.run_sweep(grid, store=tmp_path / "plain", executor="serial", parallel_seeds=3, show_progress=False)
    assert list(again["train_loss"]) == list(plain["train_loss"])


@pytest.mark.long
def test_auto_trains_side_by_side_where_the_timed_probe_says_that_it_pays(tmp_path, monkeypatch):
    grid = bs.Grid(batch_size=32, seed=range(2), train_size=300, epochs=1, learning_rate=0.1)
    monkeypatch.setattr(tasks, "WORTH_SECONDS", 0.0)
    for share, expected in ((0.0, None), (math.inf, 2)):
        monkeypatch.setattr(tasks, "PAYS_BELOW", share)
        store = bs.Store(tmp_path / str(share))
        bs.run_sweep(grid, store=store, executor="serial", parallel_seeds="auto", show_progress=False)
        assert [record.facts.get("parallel_seeds") for record in store.records()] == [expected] * 2


def test_a_short_sweep_is_not_worth_a_probe(tmp_path):
    grid = bs.Grid(batch_size=32, seed=range(2), train_size=300, epochs=1, learning_rate=0.1)
    store = bs.Store(tmp_path)
    bs.run_sweep(grid, store=store, executor="serial", parallel_seeds="auto", show_progress=False)
    assert all("parallel_seeds" not in record.facts for record in store.records())


def test_what_fails_side_by_side_is_trained_alone_and_says_why(tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("no room for two")

    monkeypatch.setattr(ParallelSeedsTrainer, "run_together", fail)
    grid = bs.Grid(batch_size=32, seed=range(2), train_size=300, epochs=1, learning_rate=0.1)
    store = bs.Store(tmp_path)
    frame = bs.run_sweep(grid, store=store, executor="serial", parallel_seeds=2, show_progress=False)
    assert (frame["status"] == "COMPLETE").all()
    assert {record.facts["parallel_seeds_note"] for record in store.records()} == {"RuntimeError: no room for two"}


def test_many_tasks_go_to_processes_unless_there_is_a_gpu(monkeypatch):
    assert executors.choose("auto", 3, 12) == ("processes", 3)
    assert executors.choose("auto", None, 2)[0] == "serial"
    assert executors.choose("processes", 4, 2) == ("processes", 2)
    monkeypatch.setattr(executors.backend, "device", lambda: "a GPU")
    assert executors.choose("auto", 3, 12) == ("serial", 1)
    assert executors.choose("processes", 3, 12) == ("processes", 3)


def test_seeds_are_split_evenly_over_workers():
    cells = [Cell(batch_size=b, seed=seed, epochs=1) for b in (8, 32) for seed in range(10)]
    assert [len(part) for part in tasks.split(cells, 4, workers=1)] == [3, 4, 3] * 2
    assert [len(part) for part in tasks.split(cells, "auto", workers=1)] == [5, 5] * 2
    assert [len(part) for part in tasks.split(cells, "auto", workers=2)] == [5, 5] * 2
    assert [cell for part in tasks.split(cells, 4, workers=1) for cell in part] == cells


class OwnStep(OneDense):
    def train_step(self, *arguments):
        return super().train_step(*arguments)


class OwnLoss(OneDense):
    def compute_loss(self, *arguments, **options):
        return super().compute_loss(*arguments, **options)


def bounded(data):
    return keras.Sequential([keras.Input((4,)), layers.Dense(3, kernel_constraint=keras.constraints.MaxNorm(1.0))])


@pytest.mark.parametrize(
    ("build", "changes", "message"),
    [
        (OneDense, {"optimizer": "lamb"}, "Received: Lamb"),
        (OneDense, {"optimizer_options": {"clipnorm": 1.0}}, r"Received: SGD, clipnorm=1\.0"),
        (OneDense, {"engine": "stock"}, "parallel_seeds need engine='fused'"),
        (OneDense, {"precision": "mixed_bfloat16"}, "parallel_seeds need precision"),
        (OneDense, {"initial_weights": "of another run"}, "start from their seeds"),
        (OwnStep, {}, "train_step"),
        (OwnLoss, {}, "compute_loss"),
        (bounded, {}, "without constraints"),
    ],
    ids=["lamb", "clipnorm", "stock", "bfloat16", "start", "train_step", "compute_loss", "constraint"],
)
def test_what_would_not_train_as_alone_is_refused_before_anything_runs(tmp_path, blobs, build, changes, message):
    if "initial_weights" in changes:
        start = bs.run_sweep(Cell(batch_size=9, epochs=1), store=tmp_path, build=build, data=blobs, show_progress=False)
        changes = {"initial_weights": start["hash"].iloc[0]}
    grid = bs.Grid(**{"batch_size": 9, "epochs": 1, "seed": range(2), **changes})
    before = sorted(tmp_path.glob("*.json"))
    with pytest.raises(InvalidInput, match=message):
        bs.run_sweep(grid, store=tmp_path, build=build, data=blobs, parallel_seeds=np.int64(2), show_progress=False)
    assert sorted(tmp_path.glob("*.json")) == before


class Table(layers.Layer):
    def build(self, _):
        self.rows = self.add_weight(shape=(10, 3))

    def call(self, inputs):
        return keras.ops.mean(keras.ops.take(self.rows, keras.ops.cast(inputs, "int32") % 10, axis=0), axis=1)


@pytest.mark.tensorflow
def test_gradients_of_single_rows_are_for_plain_sgd_alone(blobs):
    x, y = np.abs(blobs[0]) // 1, blobs[1]

    def build():
        return keras.Sequential([keras.Input((4,)), Table()])

    same = both_ways(build, (x, y), batch_size=9, train_size=None, optimizer_options={"momentum": 0.9})
    assert_same_records(*same)
    for options in ({"optimizer": "adam"}, {"optimizer_options": {"clipvalue": 0.1}}):
        with pytest.raises(InvalidInput, match="parallel_seeds of an embedding need SGD without clipping"):
            both_ways(build, (x, y), batch_size=9, train_size=None, **options)


@pytest.mark.xla
@pytest.mark.tensorflow
def test_seeds_that_xla_cannot_compile_side_by_side_are_refused():
    """Another program would draw other random numbers."""
    import tensorflow as tf

    pooled = net(lambda: layers.Conv2D(4, 3), layers.GlobalMaxPooling2D, lambda: layers.Dropout(0.3))
    with pytest.raises(tf.errors.InvalidArgumentError, match="XLA compilation requires a fixed tensor list size"):
        both_ways(pooled, "digits", batch_size=4, epochs=0.1)


@pytest.mark.parametrize("value", [0, -1, 2.5, True, "many"])
def test_what_is_no_check_parallel_seeds_is_refused(tmp_path, value):
    with pytest.raises(InvalidInput, match='parallel_seeds must be an integer ≥ 1 or "auto"'):
        bs.run_sweep(Cell(epochs=1), store=tmp_path, parallel_seeds=value)


def test_parallel_seeds_are_cells_that_differ_in_the_seed_alone(digits):
    cell = Cell(batch_size=32, epochs=1)
    trainer = ParallelSeedsTrainer(cell, digits, dense, 2)
    for cells in ([cell], [cell, dataclasses.replace(cell, batch_size=64)]):
        with pytest.raises(InvalidInput, match="2 parallel seeds are cells that differ in the seed alone"):
            trainer.run_together(cells)


def test_a_plan_of_parallel_seeds_takes_the_order_of_each_seed():
    plans = [parallel_seeds.Plan.of(Cell(batch_size=32, epochs=2, seed=seed), 100) for seed in (3, 8)]
    blocks = parallel_seeds.ParallelSeedsPlan.together(plans).blocks(range(2))
    for number, plan in enumerate(plans):
        own = plan.blocks(range(2))
        np.testing.assert_array_equal(blocks.indices[:, :, number], own.indices)
        np.testing.assert_array_equal(blocks.tails[:, number], own.tails)
    np.testing.assert_array_equal(blocks.counts, own.counts)
