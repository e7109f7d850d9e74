"""The way of training: what is kept along `fit`, and the plane that shows most of it, against singular values by SVD."""

import json

import keras
import numpy as np
import pytest
from keras import layers

import batchscape as bs
from batchscape.errors import InvalidInput
from batchscape.landscape.plane import evaluate_plane
from batchscape.landscape.trajectory import WeightsCallback, trajectory_plane
from tests.toys import probe

pytestmark = pytest.mark.x64


def bowl(n=8):
    """A loss with another curvature along each of its n weights."""
    return probe(lambda w: keras.ops.sum(w**2 * np.arange(1, n + 1)), n=n)


def random_runs(seed=0, n=8, lengths=(7, 4)):
    rng = np.random.default_rng(seed)
    return {f"run {i}": [[w] for w in rng.normal(size=(length, n)).cumsum(axis=0)] for i, length in enumerate(lengths)}


def stacked(runs, origin):
    return np.array([weights[0] - origin[0] for run in runs.values() for weights in run])


@pytest.mark.parametrize("seed", range(5))
def test_axes_and_shares_are_those_of_the_singular_value_decomposition(seed):
    runs = random_runs(seed)
    found = trajectory_plane(bowl(), runs)
    _, values, axes = np.linalg.svd(stacked(runs, runs["run 0"][-1]), full_matrices=False)
    np.testing.assert_allclose(np.abs(np.sum(found.directions * axes[:2], axis=1)), 1, rtol=1e-9)
    np.testing.assert_allclose(found.explained, values[:2] ** 2 / np.sum(values**2), rtol=1e-9)
    np.testing.assert_allclose(found.directions @ found.directions.T, np.eye(2), atol=1e-14)
    assert np.linalg.norm(found.distances) == pytest.approx(np.sqrt(np.sum(values[2:] ** 2)))


def test_a_second_axis_that_squares_would_drown_is_found():
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.normal(size=(8, 2)))[0].T
    places = rng.normal(size=(6, 2)) * [1, 1e-9]
    runs = {"thin": [[place @ axes] for place in places] + [[np.zeros(8)]]}
    found = trajectory_plane(bowl(), runs)
    _, _, exact = np.linalg.svd(stacked(runs, [np.zeros(8)]), full_matrices=False)
    assert abs(found.directions[1] @ exact[1]) == pytest.approx(1, abs=1e-5)
    assert abs(found.directions[0] @ found.directions[1]) < 1e-14


def test_no_plane_through_the_end_is_nearer_to_the_checkpoints():
    runs, f = random_runs(), bowl()
    least = np.sum(trajectory_plane(f, runs).distances ** 2)
    differences = stacked(runs, runs["run 0"][-1])
    rng = np.random.default_rng(1)
    for _ in range(50):
        axes = np.linalg.qr(rng.normal(size=(8, 2)))[0].T
        assert np.sum((differences - differences @ axes.T @ axes) ** 2) > least


def test_runs_in_one_plane_have_nothing_off_it_and_all_explained():
    rng = np.random.default_rng(3)
    axes, origin = rng.normal(size=(2, 8)), rng.normal(size=8)
    runs = {name: [[origin + place @ axes] for place in rng.normal(size=(5, 2))] for name in "ab"}
    f = bowl()
    found = trajectory_plane(f, runs, origin=[origin])
    assert sum(found.explained) == pytest.approx(1, abs=1e-12)
    assert found.distances.max() < 1e-12
    for name, run in runs.items():
        for place, weights, loss in zip(found.coordinates[name], run, found.losses[name], strict=True):
            np.testing.assert_allclose(origin + place @ found.directions, weights[0], atol=1e-12)
            at_place = evaluate_plane(f, [origin], found.directions, place[:1], place[1:], show_progress=False)
            assert at_place.loss[0, 0] == pytest.approx(loss, rel=1e-9)


def test_coordinates_and_distance_make_up_each_checkpoint():
    runs, f = random_runs(), bowl()
    found = trajectory_plane(f, runs)
    for name, run in runs.items():
        differences = stacked({name: run}, runs["run 0"][-1])
        np.testing.assert_allclose(found.coordinates[name], differences @ found.directions.T, atol=1e-12)
        squares = np.sum(found.coordinates[name] ** 2, axis=1) + found.off_plane[name] ** 2
        np.testing.assert_allclose(squares, np.sum(differences**2, axis=1), atol=1e-12)
    np.testing.assert_array_equal(found.coordinates["run 0"][-1], [0, 0])  # The origin.
    np.testing.assert_array_equal(found.off_plane["run 0"][-1], 0)


def test_losses_are_those_of_the_checkpoints_not_of_their_places():
    runs, f = random_runs(), bowl()
    found = trajectory_plane(f, runs)
    for name, run in runs.items():
        np.testing.assert_array_equal(found.losses[name], [f(weights) for weights in run])
    a, b = found.coordinates["run 0"][0]
    on_plane = f([runs["run 0"][-1][0] + a * found.directions[0] + b * found.directions[1]])
    assert found.off_plane["run 0"][0] > 0.1
    assert abs(on_plane - found.losses["run 0"][0]) > 0.1


def test_a_random_walk_has_most_on_two_axes():
    """81 % and 9 % seen from its end: eigenvalues of the kernel min(s, t) of Brownian motion, 4 / ((2k − 1)² π²)."""
    walk = np.random.default_rng(0).normal(size=(150, 5000)).cumsum(axis=0)
    found = trajectory_plane(probe(lambda w: w[0], n=5000), {"walk": [[w] for w in walk]})
    # The share of an axis spreads by about √(2/p) = 0.02 of itself, and 150 steps are 1/150 from many.
    np.testing.assert_allclose(found.explained, [8 / np.pi**2, 8 / (9 * np.pi**2)], rtol=0.06)


def test_checkpoints_on_a_line_get_a_second_axis_across_it():
    ends = [[np.zeros(8)], [np.arange(8.0)]]
    found = trajectory_plane(bowl(), {"line": ends})
    assert found.explained[0] == pytest.approx(1)
    assert found.explained[1] < 1e-20
    np.testing.assert_allclose(found.directions @ found.directions.T, np.eye(2), atol=1e-14)
    a, b = found.grids(points=5, margin=0)
    assert (len(a), len(b)) == (5, 3)
    assert np.diff(b) == pytest.approx(np.diff(a)[0])
    again = trajectory_plane(bowl(), {"line": ends})
    np.testing.assert_array_equal(found.directions, again.directions)


@pytest.mark.parametrize(("points", "margin"), [(25, 0.25), (3, 0), (40, 0.1)])
def test_grids_hold_all_runs_with_one_step(points, margin):
    found = trajectory_plane(bowl(), random_runs())
    grids = found.grids(points, margin)
    assert max(map(len, grids)) == points
    for values, grid in zip(found.points.T, grids, strict=True):
        beyond = margin * np.ptp(found.points, axis=0).max()
        assert grid[0] <= values.min() - beyond + 1e-9
        assert grid[-1] >= values.max() + beyond - 1e-9
        np.testing.assert_allclose(np.diff(grid), np.diff(grids[0])[0])
    with pytest.raises(InvalidInput, match=r"Received: points=2"):
        found.grids(2)


def test_it_is_saved_with_all_its_numbers_and_says_itself_shortly(tmp_path):
    found = trajectory_plane(bowl(), random_runs())
    with np.load(found.save(tmp_path / "way")) as stored:
        np.testing.assert_array_equal(stored["points"], found.points)
        np.testing.assert_array_equal(stored["directions"], found.directions)
        fields = json.loads(str(stored["json"]))
    assert (fields["kind"], fields["names"], fields["lengths"]) == ("Trajectory", ["run 0", "run 1"], [7, 4])
    assert repr(found).startswith("Trajectory(2 runs, 11 checkpoints, axes hold ")


def test_a_plane_of_a_trajectory_knows_that_it_is_one():
    runs, f = random_runs(), bowl()
    found = trajectory_plane(f, runs)
    plane = evaluate_plane(f, runs["run 0"][-1], found.directions, *found.grids(5), show_progress=False)
    assert plane.about == found.about


W = [np.arange(2.0)]


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ({}, "Received: no run"),
        ([W, W], "Received: list"),
        ({"a": []}, r"Received: \{'a': 0\}"),
        ({"a": [W], "b": []}, r"Received: \{'a': 1, 'b': 0\}"),
        ({"a": [W]}, r"Received: \{'a': 1\}"),
        ({"a": [W, W], "b": [W]}, "Received: 3 equal ones, of a, b"),
        ({"a": [W, [np.arange(3.0)]]}, r"Received: \[\(3,\)\]"),
        ({"a": [[np.array([np.nan, 0])], W]}, "Received: NaN or infinity, in 1 of 2"),
        ({"a": [W, [np.array([np.inf, 0])]]}, "The origin, or the end of the first run, must be finite"),
    ],
)
def test_runs_that_span_no_plane_are_refused(runs, message):
    with pytest.raises(InvalidInput, match=message) as caught:
        trajectory_plane(probe(lambda w: w[0] + w[1]), runs)
    assert "\n" not in str(caught.value)


def test_one_parameter_is_no_plane():
    with pytest.raises(InvalidInput, match="two or more parameters"):
        trajectory_plane(probe(lambda w: w[0], n=1), {"a": [[np.zeros(1)], [np.ones(1)]]})


class ByHand(keras.callbacks.Callback):
    """All weights, with the updates before each of them."""

    def __init__(self):
        super().__init__()
        self.kept = {}

    def on_train_begin(self, logs=None):
        self.kept[int(self.model.optimizer.iterations)] = self.model.get_weights()

    def on_train_batch_end(self, batch, logs=None):
        self.kept[int(self.model.optimizer.iterations)] = self.model.get_weights()


def net(stack=lambda: [layers.Dense(3)], **compile_options):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), *stack()])
    model.compile(
        "sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), **{"jit_compile": False, **compile_options}
    )
    return model


def fitted(blobs, *callbacks, model=None, **options):
    model = model or net()
    model.fit(*blobs, callbacks=list(callbacks), verbose=0, **{"batch_size": 10, **options})
    return model


def assert_same(kept, expected):
    for one, other in zip(kept, expected, strict=True):
        for weight, same in zip(one, other, strict=True):
            np.testing.assert_array_equal(weight, same)


THINNED = {
    (1, 100): [*range(31)],
    (1, 31): [*range(31)],
    (1, 30): [*range(0, 31, 2)],
    (1, 2): [0, 30],
    (1, 3): [0, 16, 30],
    (4, 100): [0, 4, 8, 12, 16, 20, 24, 28, 30],
    (4, 5): [0, 8, 16, 24, 30],
    (7, 4): [0, 14, 28, 30],
    (1000, 5): [0, 30],
    ("epoch", 32): [0, 10, 20, 30],
    ("epoch", 3): [0, 20, 30],
    ("epoch", 2): [0, 30],
}
"""Updates that callbacks of (every, most) keep of three epochs of ten."""


def test_kept_weights_are_those_kept_by_hand_thinned(blobs):
    by_hand, callbacks = ByHand(), {(every, most): WeightsCallback(every=every, most=most) for every, most in THINNED}
    model = fitted(blobs, by_hand, *callbacks.values(), epochs=3)
    for options, kept in callbacks.items():
        assert kept.updates == THINNED[options], options
        assert_same(kept.weights, [by_hand.kept[updates] for updates in kept.updates])
        assert_same([kept.weights[-1]], [model.get_weights()])


@pytest.mark.parametrize("epochs", [1, 5])
def test_the_first_and_the_last_are_always_among_at_most_so_many(blobs, epochs):
    callbacks = {most: WeightsCallback(every=1, most=most) for most in (2, 3, 4, 7, 11)}
    x, y = blobs
    fitted((x[:30], y[:30]), *callbacks.values(), epochs=epochs)
    for most, kept in callbacks.items():
        assert (kept.updates[0], kept.updates[-1]) == (0, 3 * epochs)
        assert min(most, 3 * epochs + 1) / 2 <= len(kept.updates) <= most
        assert np.all(np.diff(kept.updates[:-1]) == np.diff(kept.updates[:-1])[:1])  # Evenly spaced.


def test_what_is_kept_is_a_copy(blobs):
    kept = WeightsCallback(every=1, most=4)
    model = fitted(blobs, kept)
    before = [[weight.copy() for weight in weights] for weights in kept.weights]
    model.set_weights([weight + 1 for weight in model.get_weights()])
    for variable in model.weights:
        variable.assign(variable + 1)
    assert_same(kept.weights, before)
    after = model.get_weights()
    for weights in kept.weights:
        for weight in weights:
            weight += 5
    assert_same([model.get_weights()], [after])
    arrays = [weight for weights in kept.weights for weight in weights]
    for i, one in enumerate(arrays):
        assert not any(np.shares_memory(one, other) for other in arrays[:i])


def test_two_calls_of_fit_are_one_training(blobs):
    once, twice = WeightsCallback(every=3, most=50), WeightsCallback(every=3, most=50)
    fitted(blobs, once, epochs=2, shuffle=False)
    model = fitted(blobs, twice, epochs=1, shuffle=False)
    assert twice.updates == [0, 3, 6, 9, 10]
    fitted(blobs, twice, model=model, epochs=2, initial_epoch=1, shuffle=False)
    assert [update for update in twice.updates if update != 10] == once.updates
    assert_same([twice.weights[-1]], [once.weights[-1]])


def test_updates_within_one_execution_are_counted(blobs):
    kept = WeightsCallback(every=1, most=50)
    fitted(blobs, kept, model=net(steps_per_execution=4), epochs=2)
    assert kept.updates == [0, 4, 8, 10, 14, 18, 20]


def test_the_last_are_those_of_the_last_update_not_those_restored(blobs):
    class Worse(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs["watched"] = float(epoch)

    stop = keras.callbacks.EarlyStopping("watched", mode="min", patience=2, restore_best_weights=True)
    kept, by_hand = WeightsCallback(every=1000), ByHand()
    fitted(blobs, Worse(), stop, kept, by_hand, epochs=10)
    assert kept.updates == [0, 30]
    assert_same([kept.weights[-1]], [by_hand.kept[30]])


@pytest.mark.tensorflow
def test_a_model_that_trains_without_its_optimizer_counts_batches(blobs):
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(3)

        def call(self, inputs):
            return self.dense(inputs)

        def train_step(self, data):
            for variable in self.trainable_variables:
                variable.assign_add(keras.ops.ones_like(variable))
            return {"loss": 0.0}

    model = Own()
    model.dense.build((None, 4))  # The model itself is never called.
    model.compile(optimizer=None, jit_compile=False)
    kept = WeightsCallback(every=5, most=50)
    fitted(blobs, kept, model=model, epochs=2)
    assert kept.updates == [0, 5, 10, 15, 20]
    for updates, weights in zip(kept.updates, kept.weights, strict=True):
        np.testing.assert_allclose(weights[1], updates, atol=1e-5)


@pytest.mark.tensorflow
def test_a_model_that_has_no_weights_yet_is_refused(blobs):
    model = keras.Sequential([layers.Dense(3)])
    model.compile("sgd", "mse", jit_compile=False)
    with pytest.raises(InvalidInput, match=r"Received: sequential.*, not built"):
        fitted(blobs, WeightsCallback(), model=model)


@pytest.mark.parametrize("options", [{"every": 0}, {"every": "batch"}, {"every": 1.5}, {"most": 1}, {"most": 2.5}])
def test_options_that_make_no_sense_are_refused(options):
    with pytest.raises(InvalidInput, match="Received: "):
        WeightsCallback(**options)


def test_nets_with_moments_and_dropout_go_their_way(blobs):
    kept = {f"B = {size}": WeightsCallback() for size in (10, 50)}

    def stack():
        return [layers.Dense(6, "relu"), layers.BatchNormalization(), layers.Dropout(0.5), layers.Dense(3)]

    for name, callback in kept.items():
        model = fitted(blobs, callback, model=net(stack), epochs=3, batch_size=int(name[4:]))
    f = bs.Objective(model, *blobs)
    runs = {name: callback.weights for name, callback in kept.items()}
    found = trajectory_plane(f, runs)
    assert (found.names, found.lengths) == (("B = 10", "B = 50"), (4, 4))
    np.testing.assert_allclose(found.losses["B = 50"], [f(weights) for weights in runs["B = 50"]])
    np.testing.assert_allclose(found.coordinates["B = 10"][0], found.coordinates["B = 50"][0])  # One start.
    plane = evaluate_plane(f, runs["B = 10"][-1], found.directions, *found.grids(4), show_progress=False)
    assert np.isfinite(plane.loss).all()
