"""A batch size that grows within one `model.fit`: the updates it makes, one History, and going on after a stop."""

import itertools
import math

import keras
import numpy as np
import pytest

import batchscape as bs
from batchscape.errors import InvalidInput

N = 100
Schedule = bs.BatchSizeSchedule


def net(optimizer="adam"):
    keras.utils.set_random_seed(5)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "tanh"), keras.layers.Dense(3)])
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


class Diary(keras.callbacks.Callback):
    """Updates made by the end of each epoch, and batch numbers of each."""

    def __init__(self):
        super().__init__()
        self.updates, self.batches = [], []

    def on_train_batch_end(self, batch, logs=None):
        self.batches.append(batch)

    def on_epoch_end(self, epoch, logs=None):
        self.updates.append(int(self.model.optimizer.iterations))


SIZES = {
    "constant": (Schedule.constant(30), [30] * 6),
    "steps": (Schedule.steps({0: 7, 2: 33, 5: 100}), [7, 7, 33, 33, 33, 100]),
    "falling": (Schedule.steps({0: 50, 3: 9}), [50, 50, 50, 9, 9, 9]),
    "geometric": (Schedule.geometric(5, factor=1.5, every=2), [5, 5, 8, 8, 11, 11]),
}


@pytest.mark.parametrize(
    ("name", "last_batch"), [*((name, "keep") for name in SIZES), ("steps", "drop"), ("falling", "drop")]
)
def test_updates_are_those_of_the_closed_form_in_one_history(blobs, name, last_batch):
    (schedule, sizes), diary = SIZES[name], Diary()
    feed = schedule.feed(*blobs, seed=1, last_batch=last_batch)
    history = net().fit(feed, epochs=6, callbacks=[schedule, diary], verbose=0)
    counts = [math.ceil(N / size) if last_batch == "keep" else N // size for size in sizes]
    assert diary.updates == list(itertools.accumulate(counts))
    assert diary.batches == [batch for count in counts for batch in range(count)]
    assert history.epoch == list(range(6))
    assert history.history["batch_size"] == sizes
    assert len(history.history["loss"]) == 6


def test_every_epoch_is_the_literal_fit_at_its_batch_size_in_the_order_of_its_seed(blobs):
    x, y = blobs
    schedule = Schedule.steps({0: 9, 1: 30, 2: 100})
    grown, stock = net(), net()
    grown.fit(schedule.feed(x, y, seed=3), epochs=3, callbacks=[schedule], verbose=0)
    for epoch, size in enumerate((9, 30, 100)):
        order = bs.epoch_order(N, 3, epoch)
        stock.fit(x[order], y[order], batch_size=size, shuffle=False, verbose=0)
    for a, b in zip(grown.get_weights(), stock.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)


def test_the_progress_bar_follows(blobs, capsys):
    schedule = Schedule.steps({0: 20, 1: 50})
    net().fit(schedule.feed(*blobs), epochs=2, callbacks=[schedule], verbose=1)
    shown = capsys.readouterr().out
    assert "5/5" in shown
    assert "2/2" in shown


def test_a_run_resumed_in_the_middle_of_its_growth_equals_an_undisturbed_one(blobs, tmp_path):
    x, y = blobs

    def run(model, epochs, **how):
        schedule = Schedule.on_plateau(9, factor=3, patience=1, limit=81, min_delta=0.05)
        schedule.resume(how.pop("monitored", ()))
        fed = {"x": schedule.feed(x, y, seed=2), "validation_data": (x, y)}
        model.fit(**fed, epochs=epochs, callbacks=[schedule], verbose=0, **how)
        return schedule

    whole = net()
    sizes = run(whole, 5).batch_sizes
    assert sizes[0] < sizes[2] < sizes[4]
    first = net()
    half = run(first, 3)
    first.save(tmp_path / "half.keras")
    second = keras.models.load_model(tmp_path / "half.keras")
    rest = run(second, 5, initial_epoch=3, monitored=half.monitored)
    assert {**half.batch_sizes, **rest.batch_sizes} == sizes
    for a, b in zip(whole.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(InvalidInput, match=r"Received: 0 values before epoch 3"):
        run(second, 5, initial_epoch=3)


def test_keras_backs_up_and_restores_a_growing_run(blobs, tmp_path):
    def run(model, *more):
        schedule = Schedule.geometric(8, factor=2)
        backup = keras.callbacks.BackupAndRestore(str(tmp_path / "backup"), delete_checkpoint=False)
        feed = schedule.feed(*blobs, seed=4)
        return model.fit(feed, epochs=4, callbacks=[schedule, *([backup] if more else []), *more], verbose=0)

    class PowerCut(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    undisturbed, resumed = net(), net()
    run(undisturbed)
    with pytest.raises(KeyboardInterrupt):
        run(resumed, PowerCut())
    again = net()
    assert run(again, Diary()).history["batch_size"] == [32, 64]
    for a, b in zip(undisturbed.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_plateaus_are_counted_as_they_come():
    rule = Schedule.on_plateau(10, factor=2, patience=2, limit=50).rule
    seen = [5.0, 4.0, 4.0, 4.5, 3.0, 3.5, 3.0, 3.0, 3.0, 3.0]
    assert [rule(epoch, seen[:epoch]) for epoch in range(11)] == [10, 10, 10, 10, 20, 20, 20, 40, 40, 50, 50]


def test_a_batch_size_by_noise_scale_never_shrinks_and_ends_at_its_limit(blobs):
    scales = iter([12.4, 3.0, 40.0, math.inf])
    schedule = Schedule.by_noise_scale(8, measure=lambda model: next(scales), limit=90, share=2.0)
    history = net().fit(schedule.feed(*blobs), epochs=4, callbacks=[schedule], verbose=0)
    assert history.history["batch_size"] == [8, 25, 25, 80]
    assert schedule.rule(4, schedule.monitored) == 90


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Schedule.geometric(30, factor=2), r"from 1 to the number of training examples, 100.*120 in epoch 2"),
        (lambda: Schedule.steps({0: 0}), r"Received: 0 in epoch 0"),
        (lambda: Schedule.steps({0: 2.5}), r"Received: 2.5 in epoch 0"),
        (lambda: Schedule.steps({3: 8}), r"from epoch 0. Received: \{3: 8\}"),
        (lambda: Schedule.geometric(8, factor=0.5), r"Received: first=8, factor=0.5"),
        (lambda: Schedule.on_plateau(8, factor=2, limit=32, monitor="val_los"), r"Received: monitor='val_los'"),
        (lambda: Schedule.by_noise_scale(8, measure=len, limit=4), r"Received: first=8, limit=4"),
    ],
)
def test_a_schedule_that_cannot_be_followed_is_refused_in_one_line(blobs, make, message):
    def follow():
        schedule = make()
        net().fit(schedule.feed(*blobs), epochs=3, callbacks=[schedule], verbose=0)

    with pytest.raises(InvalidInput, match=message):
        follow()


def test_a_schedule_without_its_feed_is_refused(blobs):
    with pytest.raises(InvalidInput, match=r"schedule\.feed"):
        net().fit(*blobs, callbacks=[Schedule.constant(8)], verbose=0)


@pytest.mark.parametrize("limit", [None, 60])
def test_twins_have_one_noise_in_every_epoch_and_the_growing_one_makes_fewer_updates(limit):
    at, epochs = [2, 3, 5], 7
    both = bs.twins(0.4, 5, N, at=at, epochs=epochs, factor=3, limit=limit)
    noises = []
    for twin in both:
        sizes = [twin.batch_size.rule(epoch, ()) for epoch in range(epochs)]
        begins = np.cumsum([0, *(math.ceil(N / size) for size in sizes)])
        assert begins[-1] == twin.updates
        # The rate holds from the first update of an epoch to its last.
        rates = [[float(twin.learning_rate(t)) for t in (a, b - 1)] for a, b in itertools.pairwise(begins)]
        assert all(first == last for first, last in rates)
        noises.append([rate / size for (rate, _), size in zip(rates, sizes, strict=True)])
    assert noises[0] == pytest.approx(noises[1])
    assert noises[0] == pytest.approx([0.08 / 3 ** sum(epoch >= place for place in at) for epoch in range(epochs)])
    assert both[1].updates < both[0].updates == epochs * 20
    with pytest.raises(InvalidInput, match=r"Received: at=\[5, 3\]"):
        bs.twins(0.4, 5, N, at=[5, 3], epochs=epochs)


def grown(blobs, **changes):
    cell = bs.Cell(
        batch_size=9, batch_steps={2: 30}, epochs=4, learning_rate=0.1, optimizer="sgd",
        optimizer_options={"momentum": 0.9}, seed=3, **changes,
    )  # fmt: skip
    return bs.fit_one(cell, build=lambda: net("sgd"), data=blobs)


def test_a_cell_whose_batch_grows_is_the_literal_fit_in_one_record_under_every_engine(blobs):
    runs = {engine: grown(blobs, engine=engine) for engine in ("stock", "dataset", "fused")}
    stock = runs["stock"]
    n = stock.facts["n_train"]
    counts = [math.ceil(n / size) for size in (9, 9, 30, 30)]
    assert stock.curves["updates"] == [0, *itertools.accumulate(counts)]
    assert stock.curves["epoch"] == list(range(5))
    assert stock.curves["examples"] == [n * epoch for epoch in range(5)]
    data = bs.load_dataset(blobs)
    model = net(keras.optimizers.SGD(0.1, momentum=0.9))
    model.set_weights(stock.weights["initial"])
    schedule = Schedule.steps({0: 9, 2: 30})
    model.fit(schedule.feed(data.x_train, data.y_train, seed=3), epochs=4, callbacks=[schedule], verbose=0)
    for run in runs.values():
        assert run.curves["updates"] == stock.curves["updates"]
        for a, b in zip(model.get_weights(), run.weights["final"], strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_steps": {0: 8}}, r"rising epochs ≥ 1"),
        ({"batch_steps": {2: "full"}}, r"rising epochs ≥ 1"),
        ({"batch_steps": {10: 8}}, r"budget in epochs that is longer"),
        ({"batch_steps": {2: 8}, "updates": 50}, r"budget in epochs"),
        ({"batch_steps": {2: 8}, "warmup": 1}, r"no warm-up"),
    ],
)
def test_batch_steps_that_make_no_run_are_refused(changes, message):
    with pytest.raises(InvalidInput, match=rf"{message}.*Received: "):
        bs.Cell(**changes)


def test_batch_steps_travel_and_one_beyond_the_data_is_refused(blobs):
    cell = bs.Cell(batch_steps={2: np.int64(64), 5: 128})
    assert bs.Cell.from_json(cell.to_json()) == cell == bs.Grid(batch_steps={2: 64, 5: 128})[0]
    assert len(bs.Grid(batch_steps=[{2: 64}, {2: 128}, {}])) == 3
    with pytest.raises(InvalidInput, match=r"Received: batch_size=128"):
        bs.fit_one(cell, build=net, data=blobs)
