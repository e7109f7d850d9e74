"""One run: what its record holds, how it ends, and that re-seeding one model equals building anew."""

import itertools

import keras
import numpy as np
import pytest

import batchscape as bs
from batchscape import errors
from batchscape.config import OPTIMIZERS
from batchscape.errors import InvalidInput, UserCodeError
from batchscape.train.plan import Plan
from batchscape.train.record import Status
from batchscape.train.trainer import Trainer
from tests.toys import OneDense


def net(data=None):
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(3)])


def test_a_re_seeded_model_equals_a_fresh_one_bit_for_bit(digits):
    """Weights, BatchNorm moments, dropout masks and Adam's slots: nothing of the run before is left."""

    def build(data):
        layers = keras.layers
        stack = [layers.Flatten(), layers.Dense(8), layers.BatchNormalization(), layers.Dropout(0.2), layers.Dense(10)]
        return keras.Sequential([keras.Input((8, 8, 1)), *stack])

    cells = [
        bs.Cell(optimizer="adam", learning_rate=0.01, epochs=1, batch_size=b, seed=s)
        for b, s in ((64, 0), (32, 1), (64, 2))
    ]
    trainer = Trainer(cells[0], digits, build)
    reused = [trainer.run(cell) for cell in cells][-1]
    fresh = bs.fit_one(cells[-1], build=build)
    for stage in ("initial", "final"):
        for a, b in zip(reused.weights[stage], fresh.weights[stage], strict=True):
            np.testing.assert_array_equal(a, b)
    assert {**reused.final, "seconds": 0} == {**fresh.final, "seconds": 0}


@pytest.fixture(scope="module")
def two_epochs():
    """A run of two epochs of 13 updates, the last of each on a partial batch."""
    return bs.fit_one(bs.Cell(batch_size=100, epochs=2, seed=0))


def test_seeds_are_paired_over_batch_sizes():
    runs = [bs.fit_one(bs.Cell(batch_size=batch, epochs=1, seed=4, train_size=100)) for batch in (10, "full")]
    for a, b in zip(*(run.weights["initial"] for run in runs), strict=True):
        np.testing.assert_array_equal(a, b)


def test_curves_are_taken_at_fixed_weights_and_agree_with_keras_evaluate(digits, two_epochs):
    run = two_epochs
    assert run.curves["epoch"] == [0, 1, 2]
    assert run.curves["updates"] == [0, 13, 26]
    assert run.curves["examples"] == [0, 1280, 2560]
    model = bs.build_model("mlp", digits, seed=0)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    for stage, row in (("initial", 0), ("final", 2)):
        model.set_weights(run.weights[stage])
        for split in ("train", "val", "test"):
            loss, accuracy = model.evaluate(*digits.split(split), batch_size=77, verbose=0)
            assert run.curves[f"{split}_loss"][row] == pytest.approx(loss, rel=1e-5)
            assert run.curves[f"{split}_accuracy"][row] == pytest.approx(accuracy, abs=1e-6)


def test_distance_path_and_norm_are_what_their_names_say(digits):
    cell = bs.Cell(batch_size="full", epochs=3, seed=1)
    trainer = Trainer(cell, digits, cell.model)
    run = trainer.run(cell)
    start, end = (np.concatenate([w.ravel() for w in run.weights[stage]]) for stage in ("initial", "final"))
    assert run.final["distance"] == pytest.approx(np.linalg.norm(end - start), rel=1e-6)
    assert run.final["weight_norm"] == pytest.approx(np.linalg.norm(end), rel=1e-6)
    shorter = [bs.Cell(batch_size="full", updates=updates, seed=1) for updates in (1, 2, 3)]
    steps = [trainer.run(cell).weights["final"] for cell in shorter]
    points = [start, *(np.concatenate([w.ravel() for w in weights]) for weights in steps)]
    path = sum(np.linalg.norm(b - a) for a, b in itertools.pairwise(points))
    assert run.final["path_length"] == pytest.approx(path, rel=1e-5)


def test_seconds_grow_and_leave_out_compilation(two_epochs):
    run = two_epochs
    assert 0 == run.curves["seconds"][0] < run.curves["seconds"][1] < run.curves["seconds"][2]
    assert run.facts["compile_seconds"] > run.final["seconds"]


def test_a_target_stops_the_run_at_its_first_crossing_and_three_looks_follow_within_an_epoch():
    run = bs.fit_one(bs.Cell(batch_size=32, learning_rate=0.2, until_loss=0.3, seed=0))
    assert run.final["reached"] is True
    assert run.final["train_loss"] <= 0.3
    at = run.curves["updates"].index(run.final["updates"])
    assert all(loss > 0.3 for loss in run.curves["train_loss"][:at])
    after = np.array(run.curves["updates"][at + 1 :]) - run.final["updates"]
    assert len(after) == 3
    assert after[-1] == pytest.approx(40, abs=2)
    # The run really did cross there and no test earlier: the loss one block before was above.
    assert run.curves["updates"][at] % Plan.of(run.cell, 1280).updates_per_block == 0


def test_a_target_that_is_missed_ends_at_its_cap_and_is_a_result():
    run = bs.fit_one(bs.Cell(batch_size="full", learning_rate=1e-3, until_loss=0.01, max_updates=20))
    assert (run.status, run.final["reached"], run.final["updates"]) == (Status.COMPLETE, False, 20)


def test_a_run_that_diverges_is_a_result_and_says_where():
    run = bs.fit_one(bs.Cell(batch_size=32, learning_rate=1e4, epochs=3, seed=0))
    assert run.status is Status.DIVERGED
    assert "nan" in run.reason or "inf" in run.reason
    assert run.final["updates"] <= 40
    assert "DIVERGED" in repr(run)


def test_the_best_validation_loss_is_kept_with_its_epoch():
    run = bs.fit_one(bs.Cell(batch_size=8, learning_rate=0.2, epochs=4, seed=0))
    losses = run.curves["val_loss"]
    assert run.final["best_val_loss"] == min(losses)
    assert run.final["best_val_epoch"] == run.curves["epoch"][losses.index(min(losses))]


def test_user_callbacks_see_every_epoch_and_the_model_they_train():
    class Watch(keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.epochs = []

        def on_epoch_end(self, epoch, logs=None):
            self.epochs.append((epoch, logs["loss"], self.model.count_params()))

    watch = Watch()
    bs.fit_one(bs.Cell(batch_size="full", epochs=4), callbacks=[watch])
    assert [epoch for epoch, *_ in watch.epochs] == [0, 1, 2, 3]
    assert watch.epochs[0][1] > watch.epochs[-1][1]
    assert watch.epochs[0][2] == 17_226


@pytest.mark.parametrize("engine", ["fused", "stock"])
def test_callbacks_see_what_keras_would_say_of_the_validation_data(engine, blobs, caplog):
    seen = []

    class Watch(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append(logs["val_loss"])

    errors._warn_once.cache_clear()
    stop = keras.callbacks.EarlyStopping("val_loss", patience=1, min_delta=1e3, restore_best_weights=True)
    record = fit(blobs, epochs=6, engine=engine, callbacks=[Watch(), stop])
    assert record.final["epoch"] == 2
    np.testing.assert_allclose(seen, record.curves["val_loss"][1:], rtol=1e-6)
    assert "A callback changed the weights when training ended" in caplog.text


def test_a_learning_rate_scheduler_works_through_the_fused_engine():
    callback = keras.callbacks.LearningRateScheduler(lambda epoch, rate: 0.1 / (epoch + 1))
    run = bs.fit_one(bs.Cell(batch_size=64, epochs=3, learning_rate=0.1), callbacks=[callback])
    assert run.facts["engine"] == "fused"
    assert run.curves["learning_rate"][1:] == pytest.approx([0.1, 0.05, 0.1 / 3])


def test_the_optimizer_and_the_loss_of_a_compiled_model_are_used_unless_told_otherwise(blobs):
    def build():
        model = net()
        model.compile(keras.optimizers.Adam(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        return model

    own = bs.fit_one(bs.Cell(batch_size=20, epochs=1), build=build, data=blobs)
    assert (own.facts["optimizer"], own.facts["learning_rate"]) == ("Adam", pytest.approx(0.01))
    told = bs.fit_one(bs.Cell(batch_size=20, epochs=1, optimizer="sgd", learning_rate=0.5), build=build, data=blobs)
    assert (told.facts["optimizer"], told.facts["learning_rate"]) == ("SGD", 0.5)


def test_a_schedule_of_a_compiled_model_is_kept_and_a_rate_beside_it_refused(blobs):
    def build():
        model = net()
        model.compile(keras.optimizers.SGD(keras.optimizers.schedules.ExponentialDecay(0.1, 1, 0.5)), "mse")
        return model

    run = bs.fit_one(bs.Cell(batch_size=81, epochs=3, loss="sparse_categorical_crossentropy"), build=build, data=blobs)
    assert run.facts["learning_rate"] is None
    assert run.curves["learning_rate"] == pytest.approx([0.1, 0.05, 0.025, 0.0125])
    with pytest.raises(InvalidInput, match="schedule"):
        bs.fit_one(
            bs.Cell(batch_size=81, epochs=1, learning_rate=0.1, loss="sparse_categorical_crossentropy"),
            build=build,
            data=blobs,
        )


def test_a_run_can_start_from_given_weights(blobs):
    first = bs.fit_one(bs.Cell(batch_size=20, epochs=2), build=net, data=blobs)
    second = bs.fit_one(
        bs.Cell(batch_size=20, epochs=1, seed=9), build=net, data=blobs, initial_weights=first.weights["final"]
    )
    for a, b in zip(first.weights["final"], second.weights["initial"], strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(InvalidInput, match="Weights must have the shapes"):
        bs.fit_one(bs.Cell(epochs=1), build=net, data=blobs, initial_weights=first.weights["final"][:-1])


def test_a_users_pipeline_is_trained_on_as_it_is(blobs):
    import tensorflow as tf

    x, y = blobs
    train = tf.data.Dataset.from_tensor_slices((x[:80], y[:80])).shuffle(80)
    test = tf.data.Dataset.from_tensor_slices((x[80:], y[80:]))
    run = bs.fit_one(bs.Cell(batch_size=16, epochs=3, learning_rate=0.1), build=net, data=(train, test))
    assert run.facts["engine"] == "dataset"
    assert run.final["updates"] == 15
    assert run.final["train_loss"] < run.curves["train_loss"][0]
    with pytest.raises(InvalidInput, match="engine 'dataset'"):
        bs.fit_one(bs.Cell(batch_size=16, epochs=1, engine="fused"), build=net, data=(train, test))


def test_the_global_random_state_of_the_user_is_given_back(blobs):
    np.random.seed(7)  # noqa: NPY002
    expected = np.random.RandomState(7).rand(3)
    bs.fit_one(bs.Cell(batch_size=20, epochs=1), build=net, data=blobs)
    np.testing.assert_array_equal(np.random.rand(3), expected)  # noqa: NPY002


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: 3, "must return a keras.Model. Received: int"),
        (lambda: 1 / 0, "raised ZeroDivisionError"),
        (lambda: keras.Sequential([keras.layers.Dense(3, activation="nope")]), "raised ValueError"),
        (
            lambda: keras.Sequential([keras.Input((7,)), keras.layers.Dense(3)]),
            r"does not take these inputs.* \(\d+, 4\)",
        ),
    ],
)
def test_a_build_function_that_gives_no_usable_model_is_named(blobs, build, message):
    with pytest.raises(UserCodeError, match=message):
        bs.fit_one(bs.Cell(epochs=1), build=build, data=blobs)


def test_labels_outside_the_outputs_of_the_model_are_refused(blobs):
    x, y = blobs
    with pytest.raises(InvalidInput, match=r"Labels must lie in 0\.\.2.*Received: labels from 0 to 5"):
        bs.fit_one(bs.Cell(epochs=1), build=net, data=(x, np.where(y == 2, 5, y)))


def test_a_regression_needs_its_loss_named(blobs):
    x, _ = blobs
    target = x.sum(axis=1)

    def build():
        return keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])

    with pytest.raises(InvalidInput, match="mean_squared_error"):
        bs.fit_one(bs.Cell(epochs=1), build=build, data=(x, target))
    run = bs.fit_one(
        bs.Cell(batch_size=8, epochs=40, learning_rate=0.05, loss="mean_squared_error"), build=build, data=(x, target)
    )
    assert run.final["train_loss"] < 1e-3
    assert "train_accuracy" not in run.final


def fit(blobs, build=net, **changes):
    given = {"batch_size": 9, "epochs": 1, "learning_rate": 0.1, "engine": "stock", **changes}
    callbacks = given.pop("callbacks", ())
    return bs.fit_one(bs.Cell(**given), build=build, data=blobs, callbacks=callbacks)


def test_a_cell_that_says_no_decay_has_none_for_adamw_too(blobs):
    plain, adamw = (fit(blobs, optimizer=name, learning_rate=0.01, epochs=5) for name in ("adam", "adamw"))
    decayed = fit(blobs, optimizer="adamw", learning_rate=0.01, epochs=5, weight_decay=0.5)
    assert plain.final["train_loss"] == pytest.approx(adamw.final["train_loss"], rel=1e-5)
    assert decayed.final["weight_norm"] < 0.9 * adamw.final["weight_norm"]


@pytest.mark.parametrize("option", [{"use_ema": True}, {"gradient_accumulation_steps": 4}])
def test_options_that_make_a_run_something_else_are_refused(blobs, option):
    with pytest.raises(InvalidInput, match=next(iter(option))):
        fit(blobs, optimizer="sgd", optimizer_options=option)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_offered_can_be_made(blobs, name):
    assert fit(blobs, optimizer=name, learning_rate=1e-3, engine="stock").status is Status.COMPLETE


def test_early_stopping_and_its_patience_reach_over_the_calls_of_fit(blobs):
    stop = keras.callbacks.EarlyStopping(monitor="loss", patience=2, min_delta=100.0)
    record = fit(blobs, epochs=12, callbacks=[stop])
    assert record.final["epoch"] == 3  # One epoch to compare with, and two without progress.
    assert record.weights["final"]
    slower = keras.callbacks.ReduceLROnPlateau(monitor="loss", patience=1, min_delta=100.0, factor=0.5)
    assert fit(blobs, epochs=4, callbacks=[slower]).final["learning_rate"] == pytest.approx(
        0.1 * 0.5**2
    )  # The third comes after the last row.


def test_a_callback_that_stops_in_the_middle_leaves_a_whole_record(blobs):
    class Stop(keras.callbacks.Callback):
        begun = ended = 0

        def on_train_begin(self, logs=None):
            Stop.begun += 1

        def on_train_batch_end(self, batch, logs=None):
            self.model.stop_training = True

        def on_train_end(self, logs=None):
            Stop.ended += 1

    record = fit(blobs, epochs=5, evaluate_every=0.25, callbacks=[Stop()])
    assert 1 <= record.final["updates"] < 10
    assert record.weights["final"]
    assert (Stop.begun, Stop.ended) == (1, 1)


def test_a_mixed_float16_run_and_a_training_step_without_a_loss_tracker_work(blobs):
    assert fit(blobs, precision="mixed_float16", epochs=3).final["train_loss"] < 1.1

    class Own(OneDense):
        def train_step(self, data):
            super().train_step(data)
            return {"mine": 1.0}

    assert fit(blobs, build=Own).status is Status.COMPLETE


def test_a_build_function_that_gives_the_same_model_twice_is_refused(blobs):
    model = net()
    with pytest.raises(UserCodeError, match="must make all variables anew at each call"):
        fit(blobs, build=lambda: model)
