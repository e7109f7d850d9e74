"""Models with a `train_step` of their own: trained by `fit` as they are, and measured by what the user says."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import batchscape as bs
from batchscape.errors import InvalidInput
from batchscape.models import own_step

tf = pytest.importorskip("tensorflow")
pytestmark = pytest.mark.tensorflow

RNG = np.random.default_rng(0)
X = RNG.normal(size=(50, 4)).astype(np.float32)


class TwoPlayers(keras.Model):
    """Two nets and two optimizers, in the manner of a GAN; no `call`, and `compile` of its own."""

    def __init__(self):
        super().__init__()
        self.generator = keras.Sequential([keras.Input((2,)), layers.Dense(4)])
        self.critic = keras.Sequential([keras.Input((4,)), layers.Dense(5, "tanh"), layers.Dense(1)])
        self.built = True

    def compile(self, critic_optimizer, generator_optimizer):
        super().compile()
        self.critic_optimizer, self.generator_optimizer = critic_optimizer, generator_optimizer

    def train_step(self, data):
        latent = tf.reverse(data, [1])[:, :2]
        with tf.GradientTape(persistent=True) as tape:
            made = self.generator(latent)
            critic_loss = tf.reduce_mean(tf.nn.softplus(-self.critic(data)) + tf.nn.softplus(self.critic(made)))
            generator_loss = tf.reduce_mean(tf.nn.softplus(-self.critic(made)))
        for loss, net, optimizer in (
            (critic_loss, self.critic, self.critic_optimizer),
            (generator_loss, self.generator, self.generator_optimizer),
        ):
            optimizer.apply_gradients(
                zip(tape.gradient(loss, net.trainable_weights), net.trainable_weights, strict=True)
            )
        return {"critic_loss": critic_loss, "generator_loss": generator_loss}


def two_players():
    model = TwoPlayers()
    model.compile(keras.optimizers.Adam(0.01), keras.optimizers.Adagrad(0.02))
    return model


class Autoencoder(keras.Sequential):
    """Its own step, with the compiled optimizer and a metric of its own."""

    def __init__(self, *stack):
        super().__init__(*stack)
        self.mean_loss = keras.metrics.Mean(name="loss")

    @property
    def metrics(self):
        return [self.mean_loss]

    def train_step(self, data):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(self(data, training=True) - data))
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
        self.mean_loss.update_state(loss)
        return {"loss": self.mean_loss.result()}


def autoencoder():
    model = Autoencoder([keras.Input((4,)), layers.Dense(2, "tanh"), layers.Dense(4)])
    model.compile(keras.optimizers.SGD(0.1))
    return model


def reconstruction(model, x, y):
    return ops.mean(ops.square(model(x) - x), axis=-1)


CELL = bs.Cell(batch_size=16, epochs=3)
DATA = bs.Data(
    X, None, X[:10], None, X[:10], None, meta={"name": "x", "preprocessing": "", "loss": None, "sha256": "1"}
)


def literal(model, data):
    """The weights after `fit` in our order."""
    for epoch in range(int(CELL.epochs)):
        model.fit(data.x_train[bs.epoch_order(data.n_train, 0, epoch)], batch_size=16, shuffle=False, verbose=0)
    return model.get_weights()


@pytest.mark.parametrize("engine", ["auto", "stock"])
@pytest.mark.parametrize("build", [two_players, autoencoder])
def test_it_is_trained_as_fit_trains_it_and_its_logs_are_curves(build, engine):
    record = bs.fit_one(bs.Cell(batch_size=16, epochs=3, engine=engine), build=build, data=DATA)
    model = build()
    model.set_weights(record.weights["initial"])
    for ours, theirs in zip(record.weights["final"], literal(model, DATA), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    logs = {"fit_critic_loss", "fit_generator_loss"} if build is two_players else {"fit_loss"}
    assert {name for name in record.curves if name.startswith("fit_")} == logs
    for name in logs:
        assert np.isfinite(record.curves[name][1:]).all()
    assert record.facts["loss"] == "train_step"
    assert np.isnan(record.curves["train_loss"]).all()
    assert record.status == "COMPLETE"


def test_every_cell_of_a_sweep_starts_with_fresh_optimizers(tmp_path):
    grid = [bs.Cell(batch_size=16, epochs=2), bs.Cell(batch_size=16, epochs=3), bs.Cell(batch_size=25, epochs=2)]
    options = {"build": two_players, "data": DATA, "executor": "serial", "show_progress": False}
    runs = bs.run_sweep(grid, store=tmp_path, **options)
    assert set(runs["status"]) == {"COMPLETE"}
    assert np.isfinite(runs["fit_critic_loss"]).all()
    store = bs.Store(tmp_path)
    for name, cell in zip(runs["hash"], grid, strict=True):
        alone = bs.fit_one(cell, build=two_players, data=DATA)
        for ours, theirs in zip(store.load(name).weights["final"], alone.weights["final"], strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_what_its_own_optimizers_would_ignore_is_refused_in_one_line():
    assert list(own_step.own_optimizers(two_players())) == ["critic_optimizer", "generator_optimizer"]
    with pytest.raises(
        InvalidInput, match=r"has optimizers of its own, critic_optimizer, generator_optimizer: set their"
    ):
        bs.fit_one(bs.Cell(batch_size=16, epochs=1, learning_rate=0.1), build=two_players, data=DATA)
    with pytest.raises(InvalidInput, match="until_loss needs a loss that is measured"):
        bs.fit_one(bs.Cell(batch_size=16, until_loss=0.1), build=two_players, data=DATA)
    with pytest.raises(InvalidInput, match="needs an engine that keeps its logs"):
        bs.fit_one(bs.Cell(batch_size=16, epochs=1, engine="fused"), build=two_players, data=DATA)
    with pytest.raises(InvalidInput, match=r"give measure=\.\.\., a function \(model, x, y\) -> loss"):
        bs.Objective(two_players(), X)


def test_a_measure_is_the_loss_of_curves_and_of_the_landscape():
    record = bs.fit_one(CELL, build=autoencoder, data=DATA, measure=reconstruction)
    model = autoencoder()
    model.set_weights(record.weights["final"])
    expected = float(np.mean((model.predict(X, verbose=0) - X) ** 2))
    assert record.final["train_loss"] == pytest.approx(expected, rel=1e-5)
    assert record.facts["loss"].endswith("reconstruction")
    f = bs.Objective(model, X, measure=reconstruction)
    assert f(f.weights) == pytest.approx(expected, rel=1e-5)
    same = bs.Objective(model, X, X, "mse", metrics=())
    np.testing.assert_allclose(f.gradient(f.weights), same.gradient(f.weights), atol=1e-6)
    ours, theirs = (each.example_gradient_sums(f.weights)[1] for each in (f, same))
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-7)
    vector = np.ones(f.n_parameters)
    np.testing.assert_allclose(
        f.hessian_products(f.weights, vector), same.hessian_products(f.weights, vector), atol=1e-5
    )
    line = bs.interpolate(f, record.weights["initial"], record.weights["final"], np.linspace(0, 1, 5))
    assert line.loss[-1] == pytest.approx(expected, rel=1e-5)


def test_a_measure_is_part_of_the_name_of_a_run(tmp_path):
    options = {"build": autoencoder, "data": DATA, "executor": "serial", "show_progress": False, "store": tmp_path}
    plain = bs.run_sweep([CELL], **options)
    first = bs.run_sweep([CELL], measure=reconstruction, **options)
    again = bs.run_sweep([CELL], measure=reconstruction, **options)
    other = bs.run_sweep([CELL], measure=lambda model, x, y: ops.mean(ops.abs(model(x) - x)), **options)
    names = [frame["hash"].iloc[0] for frame in (plain, first, again, other)]
    assert names[1] == names[2]
    assert len(set(names)) == 3


def test_a_model_with_a_measure_is_found_again_and_has_lines(tmp_path):
    def measure(model, x, y):
        return keras.ops.mean(keras.ops.square(model(x)[:, 0] - keras.ops.cast(y, "float32")))

    labels = (X[:, 0] > 0).astype(np.int32)
    given = {"data": (X, labels), "show_progress": False}
    cells = [bs.Cell(batch_size=batch_size, epochs=1) for batch_size in (16, "full")]
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, "relu"), layers.Dense(2)])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    first = bs.run_sweep(cells, build=model, measure=measure, store=tmp_path, executor="serial", **given)
    assert bs.missing_runs(cells, build=model, measure=measure, data=(X, labels), store=tmp_path) == {}
    record = bs.Store(tmp_path).load(first["hash"][0])
    assert record.facts["starts_from"] == "weights of the model"
    lines = bs.lines_between(tmp_path, 16, "full", points=4, build=bs.with_measure(model, measure), **given)
    at_ends = lines.query("split == 'train' and alpha == 0")["loss"].iloc[0]
    assert at_ends == pytest.approx(first["train_loss"][0], rel=1e-5)
