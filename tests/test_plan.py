"""Plans: counts of updates and examples, and blocks that hold every sample of an epoch once."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import batchscape as bs
from batchscape.train.plan import TESTS_PER_EPOCH, Plan


def samples_in(plan, epochs):
    """The samples that the blocks of some epochs train on, update by update."""
    blocks = plan.blocks(epochs)
    updates = []
    for indices, count, tail, n_tail in zip(*blocks, strict=True):
        updates += [*indices[:count].tolist(), *([tail.tolist()] * n_tail)]
    return updates


@pytest.mark.parametrize(
    ("n", "batch_size", "last_batch", "updates", "last"),
    [
        (1000, 10, "keep", 100, 10),
        (1000, 500, "keep", 2, 500),
        (1050, 100, "keep", 11, 50),
        (1050, 100, "drop", 10, 100),
    ],
)
def test_updates_an_epoch_are_counted_as_keras_counts_them(n, batch_size, last_batch, updates, last):
    plan = Plan.of(bs.Cell(batch_size=batch_size, last_batch=last_batch), n)
    assert plan.updates_per_epoch == updates
    assert (plan.tail or plan.batch_size) == last


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    n=st.integers(1, 200),
    share=st.floats(0.0, 1.0),
    last_batch=st.sampled_from(["keep", "drop"]),
    budget=st.sampled_from([{"epochs": 3}, {"updates": 7}, {"examples": 111}, {"until_loss": 0.1, "max_updates": 9}]),
    evaluate_every=st.sampled_from([0.3, 1.0, 2.0, 5.0]),
)
def test_blocks_hold_exactly_the_updates_of_the_plan_in_the_order_of_the_epochs(
    n, share, last_batch, budget, evaluate_every
):
    batch_size = max(1, round(share * n))
    plan = Plan.of(bs.Cell(batch_size=batch_size, last_batch=last_batch, evaluate_every=evaluate_every, **budget), n)
    expected = []
    for epoch in range(plan.n_epochs):
        order = bs.epoch_order(n, 0, epoch)[: plan.examples_per_epoch].tolist()
        expected += [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    fed = plan.total_updates + plan.updates_after
    assert samples_in(plan, range(plan.n_epochs)) == expected[:fed]
    split = plan.n_epochs // 2 - plan.n_epochs // 2 % plan.epochs_per_block
    parts = samples_in(plan, range(split)) + samples_in(plan, range(split, plan.n_epochs))
    assert parts == expected[:fed]


@settings(max_examples=100, deadline=None, derandomize=True)
@given(n=st.integers(1, 5000), batch_size=st.integers(1, 5000), last_batch=st.sampled_from(["keep", "drop"]))
def test_a_loss_target_is_tested_at_least_sixteen_times_an_epoch_or_after_every_update(n, batch_size, last_batch):
    batch_size = min(batch_size, n)
    plan = Plan.of(bs.Cell(batch_size=batch_size, last_batch=last_batch, until_loss=0.1, max_updates=10**6), n)
    tests = len(plan.blocks(range(1)).updates)
    assert tests >= min(TESTS_PER_EPOCH, plan.updates_per_epoch)


@pytest.mark.parametrize(
    ("budget", "updates"),
    [({"examples": 1050}, 11), ({"examples": 1051}, 12), ({"examples": 150}, 2), ({"epochs": 0.5}, 6)],
)
def test_a_budget_becomes_a_number_of_updates(budget, updates):
    plan = Plan.of(bs.Cell(batch_size=100, **budget), 1050)
    assert plan.total_updates == updates


def test_examples_are_counted_with_the_tail():
    plan = Plan.of(bs.Cell(batch_size=100, epochs=2), 1050)
    assert [plan.examples_after(updates) for updates in (0, 1, 10, 11, 12, 22)] == [0, 100, 1000, 1050, 1150, 2100]


def test_blocks_have_one_shape_so_that_one_program_serves_them_all():
    blocks = Plan.of(bs.Cell(batch_size=8, until_loss=0.1), 1285).blocks(range(3))
    assert blocks.indices.shape[1:] == (10, 8)
    assert blocks.tails.shape[1:] == (5,)
    assert blocks.indices.dtype == np.int32
    assert blocks.updates.sum() == 3 * 161


@pytest.mark.parametrize("last_batch", ["keep", "drop"])
@pytest.mark.parametrize(("n", "batch_size"), [(500, 8), (1280, 8), (100, 30), (64, 64), (505, 8)])
def test_every_engine_looks_where_blocks_end_and_nobody_goes_past_the_cap(n, batch_size, last_batch):
    cell = bs.Cell(batch_size=batch_size, until_loss=0.1, max_updates=73, last_batch=last_batch)
    plan = Plan.of(cell, n)
    ends = []
    for first in range(0, plan.n_epochs, plan.epochs_per_block):
        epochs = range(first, min(first + plan.epochs_per_block, plan.n_epochs))
        ends += (first * plan.updates_per_epoch + np.cumsum(plan.blocks(epochs).updates)).tolist()
    assert 73 in ends
    assert ends == [update for update in range(1, ends[-1] + 1) if plan.is_evaluation(update)]


def test_a_share_of_an_epoch_is_not_rounded_up_by_a_rounding_error():
    assert Plan.of(bs.Cell(batch_size=1, epochs=0.07), 100).total_updates == 7
