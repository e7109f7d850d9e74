"""Rprop: its rules, PyTorch's, and what Keras expects of an optimizer."""

import pathlib

import keras
import numpy as np
import pytest

import batchscape as bs
from batchscape.errors import InvalidInput
from tests.toys import ENGINES

pytestmark = pytest.mark.x64

FIXTURE = pathlib.Path(__file__).parent / "fixtures" / "rprop_torch.npz"
Rprop = bs.optimizers.Rprop


def written_rules(w, gradients, *, first=0.01, etas=(0.5, 1.2), bounds=(1e-6, 50.0)):
    """The rules, weight by weight, as the paper writes them; yields the weights after each update."""
    w, step, last = np.array(w, np.float64), np.full(len(w), first), np.zeros(len(w))
    for gradient in gradients:
        for i, g in enumerate(np.asarray(gradient, np.float64)):
            if last[i] * np.sign(g) > 0:
                step[i] = min(step[i] * etas[1], bounds[1])
            elif last[i] * np.sign(g) < 0:
                step[i] = max(step[i] * etas[0], bounds[0])
                g = 0.0
            w[i] -= np.sign(g) * step[i]
            last[i] = np.sign(g)
        yield w.copy()


def keras_path(optimizer, start, gradients, dtype="float64"):
    w = keras.Variable(np.asarray(start), dtype=dtype)
    for gradient in gradients:
        optimizer.apply([keras.ops.convert_to_tensor(gradient, dtype=dtype)], [w])
        yield w.numpy()


def random_gradients(rng, updates, n):
    """All magnitudes, both signs, and exact zeros."""
    sizes = 10.0 ** rng.uniform(-30, 30, (updates, n))
    return np.where(rng.random((updates, n)) < 0.2, 0.0, np.sign(rng.normal(size=(updates, n)) + 0.5) * sizes)


@pytest.mark.parametrize("options", [{}, {"etas": (0.25, 2.0)}, {"step_sizes": (0.004, 0.02)}])
def test_it_follows_the_written_rules_update_by_update(options):
    rng = np.random.default_rng(0)
    start, gradients = rng.normal(size=7), random_gradients(rng, 200, 7)
    rules = {"etas": options.get("etas", (0.5, 1.2)), "bounds": options.get("step_sizes", (1e-6, 50.0))}
    expected = written_rules(start, gradients, first=float(np.float32(0.01)), **rules)
    for found, wanted in zip(keras_path(Rprop(**options), start, gradients), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-12)


def test_it_agrees_with_pytorch_on_given_gradients_and_on_rosenbrock():
    peer = np.load(FIXTURE)
    found = list(keras_path(Rprop(), peer["start"], peer["gradients"]))
    np.testing.assert_allclose(found, peer["path"], rtol=1e-6, atol=1e-6)
    optimizer, w = Rprop(2.0**-7), keras.Variable(peer["valley_start"], dtype="float64")
    for wanted in peer["valley_path"]:
        x, y = w.numpy()
        optimizer.apply([keras.ops.convert_to_tensor([400 * x * (x * x - y) + 2 * (x - 1), 200 * (y - x * x)])], [w])
        np.testing.assert_allclose(w.numpy(), wanted, rtol=0, atol=1e-6)


def test_gradients_whose_product_is_zero_in_float32_still_count():
    found = list(keras_path(Rprop(0.5), [0.0], [[1e-30]] * 3, dtype="float32"))
    np.testing.assert_allclose(np.ravel(found), [-0.5, -1.1, -1.82], rtol=1e-6)


def test_a_gradient_that_is_not_a_number_reaches_the_weights():
    assert np.isnan(list(keras_path(Rprop(), [0.0, 0.0], [[1.0, 1.0], [np.nan, 1.0]]))[-1][0])


def test_the_sparse_gradient_of_an_embedding_moves_the_rows_it_names_and_no_other():
    words, targets = np.array([[1], [3], [1]]), np.ones((3, 1, 2), np.float32)
    layer = keras.layers.Embedding(5, 2, embeddings_initializer="zeros")
    model = keras.Sequential([keras.Input((1,)), layer])
    model.compile(Rprop(0.25), "mean_squared_error")
    model.fit(words, targets, epochs=2, verbose=0)
    rows = layer.get_weights()[0]
    np.testing.assert_allclose(rows[[1, 3]], 0.25 + 0.25 * 1.2, rtol=1e-6)
    assert not rows[[0, 2, 4]].any()


def net():
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "tanh"), keras.layers.Dense(3)])


def test_a_model_saved_in_the_middle_goes_on_identically(blobs, tmp_path):
    x, y = blobs
    model = net()
    model.compile(Rprop(0.005, etas=(0.4, 1.3)), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(x, y, batch_size=len(y), shuffle=False, epochs=7, verbose=0)
    model.save(tmp_path / "half.keras")
    loaded = keras.models.load_model(tmp_path / "half.keras")
    assert isinstance(loaded.optimizer, Rprop)
    assert loaded.optimizer.etas == (0.4, 1.3)
    losses = [
        one.fit(x, y, batch_size=len(y), shuffle=False, epochs=7, verbose=0).history["loss"] for one in (model, loaded)
    ]
    assert losses[0] == losses[1]
    for a, b in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_its_config_makes_an_equal_optimizer():
    one = Rprop(0.02, (0.4, 1.5), (1e-5, 2), weight_decay=0.1, clipnorm=1.0)
    other = keras.optimizers.deserialize(keras.optimizers.serialize(one))
    assert other.get_config() == one.get_config()


def train(blobs, **changes):
    given = {"optimizer": "rprop", "batch_size": "full", "epochs": 12, **changes}
    return bs.fit_one(bs.Cell(**given), build=net, data=blobs)


@pytest.mark.tensorflow
def test_cells_train_by_it_alike_under_every_engine(blobs):
    """In float64, where no rounding flips the sign of a gradient."""
    runs = [train(blobs, engine=engine, precision="float64") for engine in ENGINES]
    assert (runs[0].facts["optimizer"], runs[0].facts["learning_rate"]) == ("Rprop", pytest.approx(0.01))
    assert runs[0].final["train_loss"] < 0.8 * runs[0].curves["train_loss"][0]
    for run in runs[1:]:
        for a, b in zip(runs[0].weights["final"], run.weights["final"], strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)


def test_the_policy_scales_the_initial_step_also_under_mixed_precision(blobs):
    run = train(
        blobs, learning_rate=0.01, lr_policy="sqrt", base_batch_size=20, batch_size=80, epochs=None, updates=1,
        precision="mixed_float16",
    )  # fmt: skip
    assert run.weights["final"][0].dtype == np.float32
    moved = np.abs(run.weights["final"][0] - run.weights["initial"][0])
    np.testing.assert_allclose(moved[moved > 0], 0.02, rtol=1e-4)


@pytest.mark.parametrize(
    "options",
    [
        {"learning_rate": 0.0},
        {"learning_rate": keras.optimizers.schedules.CosineDecay(0.1, 10)},
        {"etas": (1.2, 0.5)},
        {"step_sizes": (0.0, 50.0)},
        {"step_sizes": (1.0, 0.5)},
    ],
)
def test_values_that_make_no_rprop_are_refused(options):
    with pytest.raises(InvalidInput, match=r"Received: learning_rate="):
        Rprop(**options)
