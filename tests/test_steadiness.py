"""Wobble, last batches, bowls, critical batch sizes and planes, each against a case whose answer is known."""

import keras
import numpy as np
import pandas as pd
import pytest

import batchscape as bs
from batchscape.errors import InvalidInput
from batchscape.gradient import critical_batch_size
from batchscape.study.gradient import descent, steadiness
from batchscape.study.gradient.timing import gradient_seconds
from tests.toys import float64

RNG = np.random.default_rng(0)


def test_wobble_is_the_deviation_of_noise_whatever_the_line_under_it():
    noise = RNG.normal(0, 0.3, 200_000)
    assert steadiness.wobble(noise) == pytest.approx(0.3, rel=0.01)
    assert steadiness.wobble(noise + 5 - 0.01 * np.arange(len(noise))) == pytest.approx(0.3, rel=0.01)
    assert np.isnan(steadiness.wobble(np.array([1.0, 2.0])))


def test_steadiness_of_runs_uses_their_late_epochs_and_their_path():
    losses = np.exp([9.0, 9.0, 0.0, 0.1, 0.0, 0.1])  # Second differences ±0.2 after epoch 2.
    curves = pd.DataFrame({"hash": "a", "epoch": np.arange(1.0, 7.0), "train_loss": losses, "val_loss": 2 * losses})
    runs = pd.DataFrame({"hash": ["a"], "path_length": [12.0], "updates": [24], "epoch": [6.0]})
    found = steadiness.add_steadiness(runs, curves, after=2).iloc[0]
    assert found["train_wobble"] == pytest.approx(0.2 / np.sqrt(6))
    assert found["val_wobble"] == pytest.approx(0.2 / np.sqrt(6))
    assert (found["step_length"], found["path_per_epoch"]) == (0.5, 2.0)


def test_the_effect_of_a_last_batch_is_told_from_that_of_the_others():
    per_epoch, epochs = 4, 10
    changes = np.tile([-0.1, -0.2, -0.3, 0.5], epochs)  # The last update of each epoch harms.
    curve = np.exp(np.concatenate([[1.0], 1.0 + np.cumsum(changes)]))
    curves = pd.DataFrame({"seed": 3, "updates": np.arange(len(curve)), "val_loss": curve})
    found = steadiness.effect_of_last_batches(curves, per_epoch=per_epoch, epochs=5)
    assert found["epoch"].tolist() == [5.0, 10.0]
    np.testing.assert_allclose(found["last_change"], 0.5)
    np.testing.assert_allclose(found["other_change"], -0.2)
    np.testing.assert_allclose(found["other_size"], np.sqrt((0.01 + 0.04 + 0.09) / 3))


def test_a_quadratic_loss_is_a_bowl_at_every_distance_and_a_net_only_nearby():
    x, y = RNG.normal(size=(60, 3)), RNG.normal(size=(60, 2))
    linear = float64(lambda: keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]))
    f = bs.Objective(linear, x, y, "mean_squared_error", metrics=())
    assert bs.taylor_residuals(f, f.weights, (0.01, 1.0, 100.0), n_directions=5).max() < 1e-9
    net = float64(lambda: keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, "tanh"), keras.layers.Dense(2)]))
    f = bs.Objective(net, x, y, "mean_squared_error", metrics=())
    near, nearer = bs.taylor_residuals(f, f.weights, (1e-2, 1e-3), n_directions=20)
    assert near / nearer == pytest.approx(10, rel=0.05)  # The cubic term over the quadratic one.
    for bad in ({"radii": (0.0,)}, {"radii": (0.1,), "n_directions": 0}):
        with pytest.raises(InvalidInput, match="radii > 0"):
            bs.taylor_residuals(f, f.weights, **bad)


def targets_of(b_crit, *, noise=0.0, cap=100_000, seeds=10):
    """Runs that follow the law, slower at every rate but the best, with noise on the logarithm of the updates."""
    rows = []
    for seed in range(seeds):
        for batch in (4, 16, 64, 256, 1024):
            for rate in (0.1, 0.2, 0.4):
                best = 0.2 if batch < 64 else 0.4
                updates = 50 * (1 + b_crit / batch) * (1 if rate == best else 2) * np.exp(noise * RNG.normal())
                row = {"seed": seed, "batch": batch, "learning_rate": rate, "max_updates": cap}
                rows.append({**row, "reached": updates < cap, "updates": min(updates, cap)})
    return pd.DataFrame(rows)


def test_a_critical_batch_size_is_found_with_its_rates_and_the_edge_of_the_grid():
    found = bs.critical_batch_size(targets_of(80))
    assert found.b_crit == pytest.approx(80, rel=1e-4)
    assert found.min_updates == pytest.approx(50, rel=1e-4)
    assert found.min_examples == pytest.approx(4000, rel=1e-4)
    assert found.updates(80) == pytest.approx(100, rel=1e-4)
    assert found.rates == {4: 0.2, 16: 0.2, 64: 0.4, 256: 0.4, 1024: 0.4}
    assert found.at_edge == (64, 256, 1024)
    assert "edge of the grid for B = 64" in repr(found)


def test_its_interval_covers_the_truth_nineteen_times_in_twenty():
    found = [bs.critical_batch_size(targets_of(80, noise=0.1)) for _ in range(60)]
    assert np.mean([fit.low <= 80 <= fit.high for fit in found]) > 0.87


def test_runs_that_were_given_up_pull_only_from_below():
    found = bs.critical_batch_size(targets_of(80, cap=700))  # At B = 4 every run needs 1,050 updates.
    assert found.censored == 10
    assert found.b_crit == pytest.approx(80, rel=1e-3)
    with pytest.raises(InvalidInput, match=r"none of \['reached'\]"):
        bs.critical_batch_size(targets_of(80).drop(columns="reached"))
    with pytest.raises(InvalidInput, match="three batch sizes"):
        bs.critical_batch_size(targets_of(80)[lambda runs: runs["batch"] < 64])
    assert 4 not in found.rates
    line = targets_of(80).assign(updates=lambda runs: 10_000 / runs["batch"])
    with pytest.raises(InvalidInput, match="must bend somewhere"):
        bs.critical_batch_size(line)
    one_lost = targets_of(80, seeds=3)
    one_lost["reached"] &= one_lost["seed"] != 1
    assert bs.critical_batch_size(one_lost).n == 2
    assert bs.critical_batch_size(one_lost).b_crit == pytest.approx(80, rel=1e-3)
    with pytest.raises(InvalidInput, match="0 runs that reached"):
        bs.critical_batch_size(targets_of(80, cap=10))


def test_the_exponent_of_a_law_comes_out_of_its_fit():
    batches = np.array([1, 8, 64, 512])
    log_s, log_b = critical_batch_size.fit(batches, 7 * (1 + 3 / batches), np.ones(4, bool))
    assert (np.exp(log_s), np.exp(log_b)) == pytest.approx((7, 3), rel=1e-5)


def test_a_plane_holds_points_that_lie_in_it_and_shows_the_loss_there():
    basis = np.linalg.qr(RNG.normal(size=(8, 2)))[0].T
    points = RNG.normal(size=(9, 2)) @ basis + 3.0
    plane = descent.plane_of(points)
    assert plane.share == pytest.approx(1.0)
    np.testing.assert_allclose(plane.center + plane.coordinates(points) @ plane.directions, points, atol=1e-9)
    x, y = RNG.normal(size=(20, 3)), RNG.normal(size=(20, 2))
    f = bs.Objective(
        float64(lambda: keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])), x, y, "mse", metrics=()
    )
    grid = descent.loss_on_plane(f, plane, f.weights, reach=[(-1, 1), (-2, 2)], points=3)
    middle = grid[(grid["a"] == 0) & (grid["b"] == 0)]["loss"].item()
    assert middle == pytest.approx(f(f.unflatten(plane.center, f.weights)))
    assert len(grid) == 9


def test_the_time_of_a_gradient_is_taken_in_turn_for_every_net_and_size():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    x, y = RNG.normal(size=(20, 4)), np.arange(20) % 3
    sizes = [bs.Objective(model, x[:n], y[:n]) for n in (10, 20)]
    found = gradient_seconds({"one": sizes, "other": sizes}, repeats=2)
    assert found.groupby(["seed", "net"])["n"].apply(list).tolist() == [[10, 20]] * 4
    assert (found["gradient_seconds"] > 0).all()
