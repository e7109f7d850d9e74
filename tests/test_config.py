"""Cells and grids: what may be asked for, and that equal cells are equal."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import batchscape as bs
from batchscape.errors import InvalidInput
from batchscape.study.main.profile import PROFILES
from batchscape.train.record import run_hash


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
        ("model", "data.npz"),
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


OPTIONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.just("a"),
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=4,
)
"""Whatever JSON knows, and tuples."""


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    options=st.dictionaries(st.text(max_size=2), OPTIONS, max_size=3),
    steps=st.dictionaries(st.integers(1, 8), st.integers(1, 64)),
)
def test_cells_of_any_options_are_hashable_and_come_back_from_json(options, steps):
    cell = bs.Cell(optimizer_options=options, batch_steps=dict(sorted(steps.items())))
    again = bs.Cell.from_json(cell.to_json())
    assert again == cell
    assert hash(again) == hash(cell)
    assert bs.Cell(**dataclasses.asdict(cell)) == cell
    assert len(bs.Grid(optimizer_options=[options], seed=range(2))) == 2
    for name, value in dataclasses.asdict(cell).items():
        assert type(getattr(again, name)) is type(value)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    places=st.lists(st.integers(1, 99) | st.floats(0.5, 99), min_size=1, max_size=4, unique_by=float),
    metrics=st.lists(st.sampled_from(["accuracy", "mean_squared_error"]), max_size=2),
    kind=st.sampled_from([list, tuple, np.array]),
)
def test_places_and_metrics_are_kept_as_tuples_whatever_they_were_given_as(places, metrics, kind):
    places = sorted(places)
    cell = bs.Cell(decay="steps", decay_at=kind(places), metrics=kind(metrics))
    assert (cell.decay_at, cell.metrics) == (tuple(map(float, places)), tuple(metrics))
    again = bs.Cell.from_json(cell.to_json())
    assert (again, hash(again)) == (cell, hash(cell))
    assert [type(place) for place in again.decay_at] == [float] * len(places)


def test_options_may_be_lists_and_mappings_whatever_they_were_given_as():
    cell = bs.Cell(optimizer="rprop", optimizer_options={"etas": [0.5, 1.2], "more": {"b": [1], "a": np.arange(2)}})
    assert cell.optimizer_options == (("etas", (0.5, 1.2)), ("more", (("a", (0, 1)), ("b", (1,)))))
    assert bs.Cell(optimizer="Rprop", optimizer_options=[["etas", (0.5, 1.2)], *cell.optimizer_options]) == cell


def test_cells_that_differ_in_the_type_of_a_number_are_not_equal_and_so_have_two_names():
    one, same, other = (bs.Cell(optimizer_options={"momentum": value}) for value in (1.0, 1.0, True))
    assert one == same
    assert one != other
    assert one.to_json() != other.to_json()


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer_options": {"momentum": float("nan")}},
        {"optimizer_options": {"momentum": {0.9}}},
        {"optimizer_options": {"clip": print}},
        {"optimizer_options": [0.9]},
        {"optimizer_options": "momentum"},
        {"optimizer_options": {"etas": [1.0, [float("inf")]]}},
        {"loss": print},
        {"metrics": [["accuracy"]]},
        {"initial_weights": ["aa11"]},
        {"lr_policy": ["fixed"]},
        {"batch_steps": 5},
        {"batch_steps": [[1, [2]]]},
        {"learning_rate": 10**400},
        {"decay": "steps", "decay_at": [[1], 2]},
    ],
    ids=str,
)
def test_a_cell_of_what_json_does_not_know_is_refused_in_one_line(changes):
    with pytest.raises(InvalidInput, match="Received: ") as caught:
        bs.Cell(**changes)
    assert "\n" not in str(caught.value)


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
    assert run_hash(bs.Cell(), "data", "model") == "3183b17360c4bada"


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
