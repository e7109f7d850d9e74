"""Cells and grids: what may be asked for, and that equal cells are equal."""

import json

import numpy as np
import pytest

import batchscape as bs
from batchscape.errors import InvalidInput
from batchscape.profiles import PROFILES
from batchscape.record import run_hash


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("batch_size", 0),
        ("batch_size", -8),
        ("batch_size", 1.5),
        ("batch_size", True),
        ("batch_size", "half"),
        ("batch_size", None),
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("epochs", -1),
        ("epochs", float("inf")),
        ("updates", 0),
        ("examples", 2.5),
        ("until_loss", -0.1),
        ("max_updates", 0),
        ("seed", -1),
        ("train_size", 0),
        ("evaluate_every", 0),
        ("weight_decay", -1e-4),
        ("lr_policy", "quadratic"),
        ("last_batch", "pad"),
        ("engine", "fast"),
        ("precision", "float8"),
        ("optimizer", "sdg"),
        ("dataset", "mnits"),
        ("dataset", ""),
        ("model", "mpl"),
    ],
)
def test_a_value_that_is_not_admissible_is_named_with_what_was_received(field, value):
    with pytest.raises(InvalidInput, match=rf"(?s){field}.*Received: {field}="):
        bs.Cell(**{field: value})


def test_near_misses_of_a_name_are_offered():
    with pytest.raises(InvalidInput, match="did you mean mnist"):
        bs.Cell(dataset="mnits")


def test_exactly_one_budget_is_allowed_and_ten_epochs_is_the_default():
    with pytest.raises(InvalidInput, match=r"Received: epochs=2.0, until_loss=0.1"):
        bs.Cell(epochs=2, until_loss=0.1)
    assert bs.Cell().budget == ("epochs", 10.0)
    assert bs.Cell(updates=7).budget == ("updates", 7)


def test_json_gives_the_cell_back():
    cell = bs.Cell(
        batch_size="full", optimizer="sgd", optimizer_options={"nesterov": True, "momentum": 0.9}, until_loss=0.1
    )
    assert bs.Cell.from_json(cell.to_json()) == cell
    assert json.loads(cell.to_json())["optimizer_options"] == [["momentum", 0.9], ["nesterov", True]]


def test_equal_cells_have_equal_json_whatever_number_types_they_were_made_from():
    plain = bs.Cell(batch_size=8, learning_rate=1.0, seed=3, metrics=("accuracy",))
    numpy = bs.Cell(batch_size=np.int64(8), learning_rate=np.float64(1), seed=np.int32(3), metrics=["accuracy"])
    assert plain == numpy
    assert plain.to_json() == numpy.to_json()
    assert bs.Cell(learning_rate=1).to_json() == bs.Cell(learning_rate=1.0).to_json()


def test_the_hash_of_a_run_changes_with_cell_data_and_model_and_with_nothing_else():
    names = {run_hash(bs.Cell(seed=seed), data, model) for seed in (0, 1) for data in "ab" for model in "cd"}
    assert len(names) == 8
    assert run_hash(bs.Cell(), "a", "b") == run_hash(bs.Cell(), "a", "b")


def test_the_name_of_a_run_is_the_same_today_as_yesterday():
    """A pinned value: a change here orphans every store, so it must come with a new schema version."""
    assert run_hash(bs.Cell(), "data", "model") == "9d83f0011336ed18"


def test_full_is_all_examples_and_a_batch_larger_than_the_data_is_refused():
    assert bs.Cell(batch_size="full").resolve_batch_size(1280) == 1280
    with pytest.raises(InvalidInput, match=r"at most the number of training examples, 1280.*Received: batch_size=1281"):
        bs.Cell(batch_size=1281).resolve_batch_size(1280)


@pytest.mark.parametrize(("policy", "rate"), [("fixed", 0.1), ("sqrt", 0.2), ("linear", 0.4)])
def test_the_policy_scales_the_rate_from_the_base_batch_size(policy, rate):
    cell = bs.Cell(learning_rate=0.1, lr_policy=policy, base_batch_size=32, batch_size=128)
    assert cell.scale_learning_rate(0.1, 128) == pytest.approx(rate, rel=1e-12)


def test_a_grid_is_the_product_of_its_axes_in_their_order():
    grid = bs.Grid(
        batch_size=[8, "full"], learning_rate=np.array([0.1, 0.2]), seed=range(2), optimizer_options={"momentum": 0.9}
    )
    assert len(grid) == 8
    assert [(cell.batch_size, cell.learning_rate, cell.seed) for cell in grid][:3] == [
        (8, 0.1, 0),
        (8, 0.1, 1),
        (8, 0.2, 0),
    ]
    assert {cell.optimizer_options for cell in grid} == {(("momentum", 0.9),)}


def test_grids_add_up_and_keep_each_cell_once():
    assert len(bs.Grid(batch_size=[8, 32]) + bs.Grid(batch_size=[32, 128])) == 3


@pytest.mark.parametrize(
    ("axes", "message"), [({"batch_size": []}, "at least one value"), ({"batchsize": 8}, "batch_size")]
)
def test_an_empty_or_unknown_axis_is_refused(axes, message):
    with pytest.raises(InvalidInput, match=message):
        bs.Grid(**axes)


def test_each_profile_has_both_strata_and_no_cell_twice():
    for profile in PROFILES.values():
        grid = profile.grid()
        assert len(grid) == len(set(grid))
        for family in profile.families:
            assert len({round(rate / batch, 9) for batch, rate in family}) == 1, family
    assert PROFILES["quick"].seeds >= 6
    assert PROFILES["paper"].seeds >= 10
