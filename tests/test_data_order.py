"""The order of the samples: different every epoch and seed, the same for every batch size, each sample once."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

import batchscape as bs

N = 40


class Spy(keras.layers.Layer):
    """Writes down the inputs it trains on, compiled or not."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def call(self, inputs, training=False):
        if training:
            tf.numpy_function(lambda rows: self.seen.append(rows.ravel().astype(int).tolist()), [inputs], [])
        return inputs


def batches_seen(fit, n=N):
    """The samples in every batch that `fit(model, x, y)` trains on; sample i has the input i."""
    spy = Spy()
    model = keras.Sequential([keras.Input((1,)), spy, keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    x = np.arange(n, dtype=np.float32)[:, None]
    fit(model, x, x)
    return spy.seen


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.integers(1, 300), st.integers(0, 5), st.integers(0, 5))
def test_an_epoch_visits_each_sample_once(n, seed, epoch):
    assert sorted(bs.epoch_order(n, seed, epoch).tolist()) == list(range(n))


def test_epochs_and_seeds_have_different_orders_and_the_same_pair_the_same_order():
    orders = {tuple(bs.epoch_order(100, seed, epoch).tolist()) for seed in range(5) for epoch in range(5)}
    assert len(orders) == 25
    assert (bs.epoch_order(100, 3, 4) == bs.epoch_order(100, 3, 4)).all()


@pytest.mark.parametrize("last_batch", ["keep", "drop"])
@pytest.mark.parametrize("batch_size", [1, 7, 8, N])
def test_the_pipeline_follows_the_order_whatever_the_batch_size(batch_size, last_batch):
    x = np.arange(N, dtype=np.float32)[:, None]
    pipeline = bs.make_dataset(x, x, batch_size=batch_size, seed=3, epoch=2, last_batch=last_batch)
    batches = [xb.numpy().ravel().astype(int).tolist() for xb, _ in pipeline]
    kept = N if last_batch == "keep" else N // batch_size * batch_size
    assert list(itertools.chain(*batches)) == bs.epoch_order(N, 3, 2)[:kept].tolist()
    assert {len(batch) for batch in batches[:-1]} <= {batch_size}


def test_keras_replays_one_order_in_every_epoch_when_arrays_are_shuffled_under_a_global_seed():
    """The trap that our own order avoids. If this fails, Keras has changed: notebook 03 must say so."""
    keras.utils.set_random_seed(0)
    seen = batches_seen(lambda model, x, y: model.fit(x, y, batch_size=8, epochs=3, shuffle=True, verbose=0))
    first, second, third = (seen[start : start + 5] for start in (0, 5, 10))
    assert first == second == third
    assert list(itertools.chain(*first)) != list(range(N))


def test_our_order_changes_from_epoch_to_epoch_in_the_literal_fit():
    def fit(model, x, y):
        for epoch in range(2):
            order = bs.epoch_order(N, 0, epoch)
            model.fit(x[order], y[order], batch_size=8, shuffle=False, initial_epoch=epoch, epochs=epoch + 1, verbose=0)

    seen = batches_seen(fit)
    assert seen[:5] != seen[5:]
    assert list(itertools.chain(*seen[:5])) == bs.epoch_order(N, 0, 0).tolist()


@pytest.mark.parametrize("engine", ["stock", "dataset", "auto"])
@pytest.mark.parametrize("batch_size", [8, 13])
def test_every_engine_feeds_the_order_of_the_seed_in_batches(engine, batch_size):
    spies = []

    def build():
        spies.append(Spy())
        return keras.Sequential([keras.Input((1,)), spies[-1], keras.layers.Dense(1)])

    x = np.arange(N, dtype=np.float32)[:, None]
    data = bs.load_dataset(((x, x), (x, x)))
    cell = bs.Cell(
        batch_size=batch_size, epochs=2, seed=5, engine=engine, loss="mean_squared_error", learning_rate=1e-4
    )
    record = bs.fit_one(cell, build=build, data=data)
    assert record.facts["engine"] == (engine if engine != "auto" else "fused")
    rows = data.x_train.ravel().astype(int)
    orders = [rows[bs.epoch_order(len(rows), 5, epoch)] for epoch in range(2)]
    expected = [part.tolist() for order in orders for part in np.split(order, range(batch_size, len(rows), batch_size))]
    (seen,) = [spy.seen for spy in spies if spy.seen]  # The other builds are compared, and named.
    assert seen[-len(expected) :] == expected  # Before them came the batches of the warm-up.
