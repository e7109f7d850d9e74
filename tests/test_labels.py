"""Labels that are far apart, have gaps, or are no integers: one line, or the right result."""

import logging

import keras
import numpy as np
import pytest

import batchscape as bs
from batchscape import errors
from batchscape.errors import InvalidInput

FULL = bs.Cell(batch_size="full", epochs=1, engine="stock")


def data_with(labels, n=60):
    x = np.random.default_rng(0).normal(size=(n, 4)).astype(np.float32)
    return x, np.resize(np.asarray(labels), n)


@pytest.mark.parametrize(
    "labels",
    [[0, 2_000_000_000], np.array([0, 2_000_000_000], "uint64"), np.array([0, 2**32 - 1], "uint32"), [0, 100_000]],
)
def test_labels_far_apart_are_refused_before_anything_is_allocated(labels):
    message = (
        rf"Labels must be 0 … N − 1 with N ≤ 10,000; only 2 of them occur\. Received: labels from 0 to {labels[-1]:,}"
    )
    with pytest.raises(InvalidInput, match=message):
        bs.fit_one(FULL, data=data_with(labels))


@pytest.mark.parametrize("labels", [[0, 2**40], np.array([0, 2**40], "uint64"), np.array([0, 2**63], "uint64")])
def test_labels_beyond_32_bits_are_refused(labels):
    with pytest.raises(InvalidInput, match=f"Whole numbers must fit 32 bits. Received: values from 0 to {labels[-1]}"):
        bs.load_dataset(data_with(labels))


def test_numbers_far_apart_are_targets_of_a_regression_where_the_loss_says_so():
    def build():
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        model.compile("sgd", "mean_absolute_error")
        return model

    data = bs.load_dataset(data_with([200_000, 1_000_000]))
    assert data.meta["num_classes"] is None
    assert bs.fit_one(FULL, build=build, data=data).status == "COMPLETE"


def test_labels_with_gaps_are_told_of_once_and_train(caplog):
    errors._warn_once.cache_clear()
    with caplog.at_level(logging.WARNING, logger="batchscape"):
        for _ in range(2):
            record = bs.fit_one(FULL, data=data_with([0, 5]))
    assert record.status == "COMPLETE"
    (message,) = [one.getMessage() for one in caplog.records]
    assert message == "Labels of arrays lie in 0..5, but only 2 of these 6 classes occur."


@pytest.mark.parametrize("kind", ["float32", "bool"])
def test_labels_that_are_no_integers_are_told_to_be_made_so(kind):
    with pytest.raises(InvalidInput, match=r"make them so with y\.astype\(int\).* Received: " + kind):
        bs.fit_one(FULL, data=data_with(np.array([0, 1, 2 if kind == "float32" else 0], kind)))
