"""The loss around minima, and their sharpness: of stored runs and of saved models."""

import keras
import numpy as np
import pytest

import batchscape as bs
from batchscape.errors import InvalidInput
from batchscape.landscape import of_runs
from batchscape.landscape.objective import objective_of

QUIET = {"executor": "serial", "show_progress": False}


def build():
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(5, "relu"), keras.layers.Dense(3, "softmax")])


def arrays():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(90, 4)).astype(np.float32)
    return x, (x[:, 0] > 0).astype(np.int64) + (x[:, 1] > 0)


@pytest.fixture(scope="module")
def data():
    return bs.load_dataset(arrays())


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Runs of two batch sizes and two seeds."""
    folder = tmp_path_factory.mktemp("runs")
    grid = bs.Grid(batch_size=[8, "full"], epochs=2, learning_rate=0.1, seed=range(2))
    bs.run_sweep(grid, store=folder, build=build, data=arrays(), **QUIET)
    return bs.Store(folder)


@pytest.fixture(scope="module")
def models(tmp_path_factory, data):
    """Three models that Keras saved."""
    folder, saved = tmp_path_factory.mktemp("models"), {}
    for seed in range(3):
        model = bs.build_model(build, data, seed=seed)
        model.save(folder / f"net{seed}.keras")
        saved[folder / f"net{seed}.keras"] = model
    return saved


def test_a_plane_around_a_minimum_has_the_run_of_the_smallest_seed_in_its_middle(store):
    plane = of_runs.plane_around(store, 8, points=3, build=build, data=arrays(), show_progress=False)
    run = next(run for run in store.records() if run.cell.batch_size == 8 and run.cell.seed == 0)
    assert plane.loss.shape == (3, 3)
    assert plane.loss[1, 1] == pytest.approx(run.final["train_loss"], rel=1e-4)
    assert (np.delete(plane.loss.ravel(), 4) != plane.loss[1, 1]).all()
    assert plane.marks == {"B = 8": (0, 0)}
    assert plane.about["normalize"] == "filter"
    with pytest.raises(InvalidInput, match="must hold a complete run of that batch size and rate"):
        of_runs.plane_around(store, 16, build=build, data=arrays())
    with pytest.raises(InvalidInput, match="must hold a complete run of that batch size and rate"):
        of_runs.plane_around(store, 8, learning_rate=0.3, build=build, data=arrays())


def test_the_plane_around_a_saved_model_has_its_loss_in_the_middle(models, data):
    file, model = next(iter(models.items()))
    plane = of_runs.planes_of_files([file], data, points=3, show_progress=False)
    assert plane.marks == {"net0": (0, 0)}
    f = objective_of(model, data)
    assert plane.loss[1, 1] == pytest.approx(f(f.weights), rel=1e-5)
    # Filter-normalised: a direction is as long as the kernels, for biases are zero here.
    assert plane.norms == pytest.approx([np.linalg.norm(f.flatten(f.weights))] * 2, rel=1e-5)


def test_the_plane_through_three_saved_models_keeps_their_distances(models, data):
    plane = of_runs.planes_of_files(list(models), data, points=4, show_progress=False)
    assert list(plane.marks) == ["net0", "net1", "net2"]
    f = objective_of(next(iter(models.values())), data)
    ends = [f.flatten(model.get_weights()) for model in models.values()]
    places = np.array(list(plane.marks.values()))
    for i, j in ((0, 1), (0, 2), (1, 2)):
        distance = np.linalg.norm(ends[i] - ends[j])
        assert np.linalg.norm(places[i] - places[j]) == pytest.approx(distance, rel=1e-5)
    with pytest.raises(InvalidInput, match="goes through three solutions"):
        of_runs.planes_of_files(list(models)[:2], data)


def test_the_line_between_saved_models_starts_and_ends_at_their_losses(models, data):
    (a, b), (first, second) = list(models)[:2], list(models.values())[:2]
    lines = of_runs.line_of_files(a, b, data, points=7)
    assert set(lines["batch_a"]) == {"net0"}
    assert set(lines["batch_b"]) == {"net1"}
    for split in ("train", "test"):
        rows = lines[lines["split"] == split].set_index("alpha")
        assert len(rows) == 7
        for alpha, model in ((0.0, first), (1.0, second)):
            f = objective_of(model, data, split)
            assert rows.loc[alpha, "loss"] == pytest.approx(f(f.weights), rel=1e-5)
    assert (lines["barrier"] >= 0).all()


def test_the_lines_between_runs_and_between_saved_models_have_the_same_columns(store, models, data):
    of_files = of_runs.line_of_files(*list(models)[:2], data, points=3)
    between = bs.lines_between(store, 8, "full", points=3, build=build, data=arrays(), show_progress=False)
    assert list(of_files) == list(between)
    assert len(between) == 2 * 2 * 3


def test_sharpness_of_stored_runs_and_of_a_file_agree(store, data, tmp_path):
    table = bs.sharpness_of_runs(store, build=build, data=arrays(), **QUIET)
    of_run = table[table["batch"] == 8].iloc[0]
    model = bs.build_model(build, data)
    record = next(run for run in store.records(weights=True) if run.cell.batch_size == 8 and run.cell.seed == 0)
    model.set_weights(record.weights["final"])
    model.save(tmp_path / "net.keras")
    of_file = of_runs.sharpness_of_file(tmp_path / "net.keras", data).to_series()
    assert set(of_file.index) <= set(of_run.index)
    for name in ("train_loss", "lambda_max", "trace", "phi", "worst", "adaptive_average"):
        assert of_file[name] == pytest.approx(of_run[name], rel=1e-3), name


@pytest.mark.parametrize("measure", ["sharpness_of_runs", "noise_of_runs"])
def test_a_mistyped_keyword_is_refused_where_it_is_typed(store, measure):
    with pytest.raises(TypeError, match=rf"{measure}\(\) got an unexpected keyword argument 'worker'"):
        getattr(bs, measure)(store, worker=2)


def test_the_centre_of_a_saved_model_stands_beside_what_evaluate_says_of_all_rows(tmp_path):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", loss_weights=[0.5])
    model.save(tmp_path / "net.keras")
    x = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    expected = model.evaluate(x, x[:, :1], verbose=0)
    sentence = of_runs.centre_of_file(tmp_path / "net.keras", (x, x[:, :1]))
    assert sentence == f"net.keras: loss {expected:.6g} over 30 examples; evaluate says {expected:.6g}."
