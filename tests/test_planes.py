"""Lines and planes, on probes whose loss is a known function of the weights, and on real nets."""

import dataclasses

import keras
import numpy as np
import pytest
from keras import layers

import batchscape as bs
from batchscape.errors import BatchscapeError, InvalidInput, StoreError
from batchscape.landscape import derivatives, files
from batchscape.landscape import plane as planes
from batchscape.landscape.line import Line, interpolate, slice_along
from batchscape.landscape.load import load_result
from batchscape.landscape.plane import evaluate_plane, plane_through
from tests.toys import probe

pytestmark = pytest.mark.x64

ORIGIN = [np.array([1.0, 2.0])]
AXES = np.eye(2)
GRIDS = [
    ([-1, 0, 1], [0, 2]),
    ([0, 1, 2, 3], [5]),
    ([3, 1, -2], [2, 1]),
    ([0], [0]),
    (np.linspace(0, 1, 40), np.linspace(-1, 0, 3)),
]


@pytest.mark.parametrize(("a", "b"), GRIDS)
def test_every_point_of_a_grid_is_where_it_says(a, b):
    f = probe(lambda w: 10 * w[0] + w[1] ** 2)
    plane = evaluate_plane(f, ORIGIN, AXES, a, b, show_progress=False)
    x, y = np.meshgrid(a, b)
    np.testing.assert_allclose(plane.loss, 10 * (1 + x) + (2 + y) ** 2, rtol=1e-12)
    assert plane.loss.shape == (len(b), len(a))
    assert plane.norms == (1, 1)
    assert plane.cosine == 0


def test_exact_zeros_and_losses_that_are_not_finite_stay():
    f = probe(lambda w: keras.ops.log(w[0]))
    plane = evaluate_plane(f, [np.ones(2)], AXES, [-2, -1, 0], [0, 1], show_progress=False)
    assert np.isnan(plane.loss[:, 0]).all()
    assert np.isneginf(plane.loss[:, 1]).all()
    assert (plane.loss[:, 2] == 0).all()
    assert "2 × 3" in repr(plane)


def test_a_plane_that_was_cut_off_goes_on(tmp_path, monkeypatch):
    f = probe(lambda w: w[0] * w[1])
    file = tmp_path / "plane.npz"
    whole = evaluate_plane(f, ORIGIN, AXES, [0, 1], [0, 1, 2], show_progress=False)
    real, calls = f.along, []

    def dies_at_the_third(*arguments):
        values_at = real(*arguments)

        def at(points):
            calls.append(points)
            if len(calls) == 3:
                raise KeyboardInterrupt
            return values_at(points)

        return at

    monkeypatch.setattr(f, "along", dies_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        evaluate_plane(f, ORIGIN, AXES, [0, 1], [0, 1, 2], file=file, show_progress=False)
    resumed = evaluate_plane(f, ORIGIN, AXES, [0, 1], [0, 1, 2], file=file, show_progress=False)
    assert len(calls) == 4  # One row was missing.
    np.testing.assert_array_equal(resumed.loss, whole.loss)
    assert [path.name for path in tmp_path.iterdir()] == ["plane.npz"]
    with pytest.raises(InvalidInput, match="another plane"):
        evaluate_plane(f, ORIGIN, 2 * AXES, [0, 1], [0, 1, 2], file=file, show_progress=False)


def test_a_plane_that_was_killed_goes_on_from_its_last_save(tmp_path, monkeypatch):
    """A kill leaves the file as it was last written: so it is copied in the middle."""
    f = probe(lambda w: w[0] * w[1])
    file, copy = tmp_path / "plane.npz", tmp_path / "copy.npz"
    real, calls = f.along, []

    def counted(*arguments):
        values_at = real(*arguments)

        def at(points):
            calls.append(points)
            if len(calls) == 3:
                copy.write_bytes(file.read_bytes())
            return values_at(points)

        return at

    monkeypatch.setattr(f, "along", counted)
    monkeypatch.setattr(planes, "SECONDS_BETWEEN_SAVES", 0.0)
    whole = evaluate_plane(f, ORIGIN, AXES, [0, 1], [0, 1, 2, 3], file=file, show_progress=False)
    resumed = evaluate_plane(f, ORIGIN, AXES, [0, 1], [0, 1, 2, 3], file=copy, show_progress=False)
    assert len(calls) == 4 + 2  # Two of four rows were missing.
    np.testing.assert_array_equal(resumed.loss, whole.loss)
    np.testing.assert_array_equal(load_result(copy).loss, whole.loss)


def test_a_quick_plane_is_written_once(tmp_path, monkeypatch):
    real, calls = files.save, []
    monkeypatch.setattr(files, "save", lambda *given, **arrays: calls.append(given) or real(*given, **arrays))
    f, file = probe(lambda w: w[0] * w[1]), tmp_path / "plane"
    evaluate_plane(f, ORIGIN, AXES, [0, 1], np.linspace(0, 1, 30), file=file, show_progress=False)
    evaluate_plane(f, ORIGIN, AXES, [0, 1], np.linspace(0, 1, 30), file=file, show_progress=False)
    assert len(calls) == 1


def test_a_file_that_cannot_hold_a_plane_is_refused_before_the_work(tmp_path, monkeypatch):
    f = probe(lambda w: w[0] * w[1])
    monkeypatch.setattr(f, "along", pytest.fail)
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        evaluate_plane(f, ORIGIN, AXES, [0], [0], file=tmp_path / "file" / "plane.npz", show_progress=False)
    np.savez(tmp_path / "plane.npz", json=np.array('{"schema_version": 1}'))
    with pytest.raises(StoreError, match="no readable result"):
        evaluate_plane(f, ORIGIN, AXES, [0], [0], file=tmp_path / "plane.npz", show_progress=False)


def test_results_come_back_as_they_were_saved(tmp_path):
    f = probe(lambda w: w[0] * w[1])
    plane = evaluate_plane(f, ORIGIN, AXES, [0, 1], [0], marks={"here": (0, 0)}, show_progress=False)
    back = load_result(plane.save(tmp_path / "plane"))
    for field in dataclasses.fields(plane):
        np.testing.assert_equal(getattr(back, field.name), getattr(plane, field.name))
    (tmp_path / "broken.npz").write_bytes(b"nothing")
    with pytest.raises(BatchscapeError, match="no readable result"):
        load_result(tmp_path / "broken.npz")


def test_a_plane_through_three_solutions_visits_them_and_keeps_distances():
    f = probe(lambda w: w[0] + 10 * w[1])
    solutions = {"a": [np.array([1.0, 1])], "b": [np.array([4.0, 1])], "c": [np.array([1.0, 3])]}
    plane = plane_through(f, solutions, points=31, margin=0.25, show_progress=False)
    assert plane.norms == pytest.approx((1, 1))
    assert plane.marks == {"a": (0, 0), "b": (3, 0), "c": (0, 2)}
    for (x, y), weights in zip(plane.marks.values(), solutions.values(), strict=True):
        i, j = np.abs(plane.b - y).argmin(), np.abs(plane.a - x).argmin()
        assert plane.loss[i, j] == pytest.approx(f(weights), abs=2)  # The nearest point of the grid.
        assert plane.loss[i, j] == pytest.approx(1 + plane.a[j] + 10 * (1 + plane.b[i]))
    with pytest.raises(InvalidInput, match="on one line"):
        plane_through(f, {"a": [np.zeros(2)], "b": [np.ones(2)], "c": [2 * np.ones(2)]}, show_progress=False)
    with pytest.raises(InvalidInput, match="points must be"):
        plane_through(f, {"a": [np.zeros(2)], "b": [np.eye(2)[0]], "c": [np.eye(2)[1]]}, points=1)


@pytest.mark.parametrize(
    ("directions", "coordinates", "message"),
    [(AXES, np.ones((3, 1)), "Coordinates"), (AXES, np.ones((0, 2)), "Coordinates"), (np.ones((2, 3)), [], "Vectors")],
)
def test_coordinates_and_directions_that_do_not_fit_are_refused(directions, coordinates, message):
    with pytest.raises(InvalidInput, match=message):
        probe(lambda w: w[0]).evaluate_along(ORIGIN, directions, coordinates)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((ORIGIN, AXES, [], [0]), "a must be"),
        ((ORIGIN, AXES, [0], [np.nan]), "b must be"),
        ((ORIGIN, AXES[:1], [0], [0]), "two directions"),
        ((ORIGIN, 0 * AXES, [0], [0]), "all zeros"),
        (([np.zeros(3)], AXES, [0], [0]), "shapes"),
    ],
)
def test_planes_that_are_none_are_refused(arguments, message):
    with pytest.raises(InvalidInput, match=message):
        evaluate_plane(probe(lambda w: w[0]), *arguments, show_progress=False)


def test_the_curved_path_runs_over_sine_and_cosine():
    f = probe(lambda w: w[0] + 100 * w[1])
    alphas = np.array([-1, 0, 0.5, 1, 2])
    line = interpolate(f, [np.array([1.0, 0])], [np.array([0.0, 1])], alphas, path="curved")
    np.testing.assert_allclose(line.loss, np.cos(alphas * np.pi / 2) + 100 * np.sin(alphas * np.pi / 2), atol=1e-9)
    assert line.end_losses == (1, 100)


def test_widths_of_a_parabola():
    f = probe(lambda w: 1 + w[0] ** 2)
    line = slice_along(f, [np.zeros(2)], np.array([2.0, 0]), np.linspace(-1, 1, 2001))
    assert line.distance == 2
    assert line.widths() == pytest.approx((0.5, 0.5), abs=1e-3)  # (2α)² = 1
    assert line.widths(level=1 + 4 * 0.09) == pytest.approx((0.3, 0.3), abs=1e-3)
    assert line.widths(level=9) == (np.inf, np.inf)
    assert np.isnan(line.widths(level=0.5)).all()


def test_the_width_to_one_side_ends_where_the_loss_is_no_number():
    line = Line(np.array([0, 1.0, 2]), np.array([1, np.nan, 1]), np.full(3, np.nan), (1.0, np.nan), 1.0)
    assert line.widths() == (np.inf, 1.0)


def normalised_net(data):
    stack = [layers.Conv2D(4, 3), layers.BatchNormalization(), layers.ReLU(), layers.Flatten(), layers.Dense(10)]
    return keras.Sequential([keras.Input(data.x_train.shape[1:]), *stack])


@pytest.mark.parametrize("policy", ["interpolate", "keep", "reestimate"])
def test_a_net_with_batch_norm_is_finite_everywhere(digits, policy):
    models = [bs.build_model(lambda data: normalised_net(data), digits, seed=seed) for seed in (0, 1)]
    rng = np.random.default_rng(0)
    ends = []
    for model in models:  # Moments that differ, as after training.
        weights = model.get_weights()
        ends.append([w * rng.uniform(0.05, 5, w.shape).astype(w.dtype) if w.ndim == 1 else w for w in weights])
    f = bs.Objective(models[0], digits.x_val, digits.y_val, batch_norm=policy, moments_from=(2, 100))
    for path in ("straight", "curved"):
        line = interpolate(f, *ends, np.linspace(-1, 2, 7), path=path)
        assert np.isfinite(line.loss).all()
    plane = evaluate_plane(f, ends[0], bs.random_directions(f, ends[0]), [-1, 1], [0, 1], show_progress=False)
    assert np.isfinite(plane.loss).all()


def test_moments_are_those_of_the_batches(digits):
    model = bs.build_model(lambda data: normalised_net(data), digits, seed=0)
    f = bs.Objective(model, digits.x_val, digits.y_val, batch_norm="reestimate", moments_from=(1, 10_000))
    weights = model.get_weights()
    before = np.asarray(model.layers[0](digits.x_val))
    exact = [*weights[:4], before.mean(axis=(0, 1, 2)), before.var(axis=(0, 1, 2)), *weights[6:]]
    kept = bs.Objective(model, digits.x_val, digits.y_val)
    assert f(weights) == pytest.approx(kept(exact), rel=1e-5)
    np.testing.assert_array_equal(model.get_weights()[4], weights[4])


def test_moments_keep_their_place_where_the_policy_says_so(digits):
    model = bs.build_model(lambda data: normalised_net(data), digits, seed=0)
    a, b = model.get_weights(), [weight + 1 for weight in model.get_weights()]
    points = {
        policy: bs.Objective(model, digits.x_val, digits.y_val, batch_norm=policy).between(
            [a, b], np.array([-0.5, 1.5])
        )
        for policy in ("keep", "interpolate")
    }
    np.testing.assert_array_equal(points["keep"][4], a[4])
    np.testing.assert_array_equal(points["interpolate"][4], b[4])  # Beyond the end: those of the end.
    np.testing.assert_allclose(points["keep"][0], a[0] + 1.5, rtol=1e-6)


NETS = {
    "mlp": (None, True),
    "lenet-like": (
        [layers.Conv2D(3, 3, activation="tanh"), layers.MaxPooling2D(), layers.Flatten(), layers.Dense(10)],
        True,
    ),
    "rescaled": ([layers.Rescaling(2.0), layers.Flatten(), layers.Dense(7, "relu"), layers.Dense(10)], True),
    "normalised first": ([layers.Flatten(), layers.BatchNormalization(), layers.Dense(10)], False),
    "not linear first": ([layers.DepthwiseConv2D(2), layers.Flatten(), layers.Dense(10)], False),
}


@pytest.mark.parametrize("name", NETS)
def test_what_the_first_layer_keeps_changes_nothing(digits, name, monkeypatch):
    monkeypatch.setattr(derivatives, "FEWEST_PRODUCTS", 1)
    stack, keeps = NETS[name]
    build = "mlp" if stack is None else (lambda data: keras.Sequential([keras.Input(data.x_train.shape[1:]), *stack]))
    model = bs.build_model(build, digits, seed=0)
    f = bs.Objective(model, digits.x_train, digits.y_train, batch_size=500)
    weights = f.weights
    directions = bs.random_directions(f, weights, biases=True, normalize="layer") + 0.01
    plane = evaluate_plane(f, weights, directions, [-0.3, 0, 0.5], [0, 1.2], show_progress=False)
    first = f._derivatives._first_layer
    assert (first is not None) == keeps
    start = f.flatten(weights)
    for i, b in enumerate(plane.b):
        for j, a in enumerate(plane.a):
            values = f.evaluate(f.unflatten(start + a * directions[0] + b * directions[1], weights))
            assert plane.loss[i, j] == pytest.approx(values["loss"], rel=1e-5)
            assert plane.accuracy[i, j] == pytest.approx(values["accuracy"], abs=2e-3)


def test_a_plane_makes_what_the_first_layer_keeps_once(digits, monkeypatch):
    f = bs.Objective(bs.build_model("mlp", digits, seed=0), digits.x_val, digits.y_val)
    real, calls = f._derivatives._linear_parts, []
    monkeypatch.setattr(f._derivatives, "_linear_parts", lambda *points: calls.append(points) or real(*points))
    evaluate_plane(f, f.weights, bs.random_directions(f, f.weights), [0, 1], [0, 1, 2], show_progress=False)
    assert len(calls) == 1


def test_a_first_layer_too_large_to_keep_is_made_anew(digits, monkeypatch):
    f = bs.Objective(bs.build_model("mlp", digits, seed=0), digits.x_val, digits.y_val)
    direction = np.ones(f.n_parameters)
    kept = slice_along(f, f.weights, direction, [0.01])
    assert f._derivatives._first_layer.size == 128
    monkeypatch.setattr(derivatives, "KEPT_BYTES", 1)
    anew = slice_along(f, f.weights, direction, [0.01])
    np.testing.assert_allclose(anew.loss, kept.loss, rtol=1e-5)
    weights = [np.array([*f.flatten(f.weights)]) for _ in range(2)]
    assert f._derivatives._linear_parts(np.array(weights), []) == []


def test_a_convolution_of_few_products_is_not_kept(digits):
    f = bs.Objective(bs.build_model("cnn", digits, seed=0), digits.x_val, digits.y_val)
    assert f._derivatives._first_layer.products == 9
    assert f._derivatives._linear_parts(np.array([f.flatten(f.weights)]), []) == []


class TwoDense(layers.Layer):
    """A cell of a recurrent layer whose weights are those of dense layers."""

    state_size = output_size = 6

    def __init__(self):
        super().__init__()
        self.old, self.new = layers.Dense(6), layers.Dense(6)

    def build(self, shape):
        self.old.build((None, 6))
        self.new.build(shape)

    def call(self, inputs, states):
        state = keras.ops.tanh(self.old(states[0]) + self.new(inputs))
        return state, [state]


def test_a_dense_layer_inside_a_loop_is_not_the_first(digits, monkeypatch):
    monkeypatch.setattr(derivatives, "FEWEST_PRODUCTS", 1)
    model = keras.Sequential([keras.Input((8, 8)), layers.RNN(TwoDense()), layers.Dense(10)])
    f = bs.Objective(model, digits.x_val[..., 0], digits.y_val)
    line = slice_along(f, f.weights, np.ones(f.n_parameters), [0.02])
    assert line.loss[0] == pytest.approx(f([weight + 0.02 for weight in f.weights]), rel=1e-5)
    assert f._derivatives._first_layer is None


def test_a_layer_that_is_used_twice_is_not_the_first(digits):
    inputs = keras.Input((4,))
    shared = layers.Dense(4)
    model = keras.Model(inputs, layers.Dense(2)(shared(shared(inputs))))
    x = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    f = bs.Objective(model, x, np.arange(20) % 2)
    line = slice_along(f, f.weights, np.ones(f.n_parameters), [0.5])
    assert line.loss[0] == pytest.approx(f([weight + 0.5 for weight in f.weights]), rel=1e-5)
    assert f._derivatives._first_layer is None


def test_a_first_layer_behind_moments_that_differ_is_worked_out_anew(monkeypatch):
    x = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    model = keras.Sequential([keras.Input((4,)), layers.BatchNormalization(center=False, scale=False), layers.Dense(2)])
    monkeypatch.setattr(derivatives, "FEWEST_PRODUCTS", 1)
    f = bs.Objective(model, x, np.arange(20) % 2)
    a, b = f.weights, [weight + 1 for weight in f.weights]
    assert f._derivatives._first_layer.moves
    line = interpolate(f, a, b, [0.25])
    assert line.loss[0] == pytest.approx(f([weight + 0.25 for weight in a]), rel=1e-5)


def test_the_layer_that_was_looked_at_is_left_alone(digits):
    model = bs.build_model("mlp", digits, seed=0)
    f = bs.Objective(model, digits.x_val, digits.y_val)
    slice_along(f, f.weights, np.ones(f.n_parameters), [0.5])
    assert not any("call" in vars(layer) for layer in model.layers)
