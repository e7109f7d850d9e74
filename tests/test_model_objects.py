"""Models given as objects and as files, wherever `build` is taken: copied, trained from their weights, or begun anew."""

import json
import shutil
import sys

import cloudpickle
import keras
import numpy as np
import pytest
from keras import layers

import batchscape as bs
from batchscape.cost import advise
from batchscape.errors import InvalidInput, UserCodeError
from batchscape.models import build as models

RNG = np.random.default_rng(0)
X = RNG.normal(size=(48, 4)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int64)
GRID = bs.Grid(batch_size=[16, "full"], epochs=1)
SCALE = np.float32(3)


class Shift(layers.Layer):
    """A layer that is not registered."""

    def __init__(self, by, **kwargs):
        super().__init__(**kwargs)
        self.by = by

    def get_config(self):
        return {**super().get_config(), "by": self.by}

    def call(self, x):
        return x + self.by


@keras.saving.register_keras_serializable("batchscape_tests")
class Net(keras.Model):
    """A model without a graph."""

    def __init__(self, width=4, **kwargs):
        super().__init__(**kwargs)
        self.width, self.inner, self.outer = width, layers.Dense(width, "relu"), layers.Dense(2)

    def get_config(self):
        return {"width": self.width}

    def call(self, x):
        return self.outer(self.inner(x))


class Forgets(layers.Layer):
    """A layer of which Keras would make one with the default."""

    def __init__(self, factor=1.0, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def get_config(self):
        return super().get_config()

    def call(self, x):
        return x * self.factor


def own_loss(y_true, y_pred):
    return keras.losses.sparse_categorical_crossentropy(y_true, y_pred, from_logits=True)


def compiled(model, **options):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    how = {"optimizer": keras.optimizers.Adam(0.02), "loss": loss, "metrics": ["accuracy"]}
    model.compile(**{**how, **options}, jit_compile=False)
    return model


def plain(*more):
    return compiled(keras.Sequential([keras.Input((4,)), *more, layers.Dense(3, "relu"), layers.Dense(2)]))


def sequential():
    """Adapted, normalised, with functions that are not registered and two lambdas, which close over their own numbers."""
    normal = layers.Normalization()
    normal.adapt(X)
    one, two = (layers.Lambda(lambda x, factor=factor: keras.ops.tanh(x) * factor * SCALE) for factor in (0.5, 2.0))
    model = plain(normal, one, layers.BatchNormalization(), two, Shift(0.5), layers.Dropout(0.1))
    return compiled(model, loss=own_loss), Y


def functional():
    """Two outputs, shared weights, and a base that is frozen but for its last layer."""
    base = keras.Sequential([keras.Input((4,)), layers.Dense(4), layers.Dense(4)])
    base.layers[0].trainable = False
    inputs, shared = keras.Input((4,)), layers.Dense(4)
    hidden = base(shared(shared(inputs)) + inputs)
    outputs = {"a": layers.Dense(2, name="a")(hidden), "b": layers.Dense(1, name="b")(hidden)}
    loss, weights = {"a": own_loss, "b": keras.losses.Huber(delta=0.5)}, {"a": 1.0, "b": 0.3}
    metrics = {"a": ["accuracy", keras.metrics.SparseCategoricalCrossentropy(from_logits=True)], "b": ["mae"]}
    model = compiled(keras.Model(inputs, outputs), loss=loss, loss_weights=weights, metrics=metrics)
    return model, {"a": Y, "b": X[:, :1]}


def subclassed():
    return compiled(Net(5), weighted_metrics=[keras.metrics.SparseCategoricalAccuracy("w")]), Y


class Plain(keras.Model):
    """A model as tutorials have it: Keras itself cannot make it anew."""

    def __init__(self):
        super().__init__()
        self.inner = layers.Dense(2)

    def call(self, x):
        return self.inner(x)


def tutorial():
    return compiled(Plain()), Y


def half():
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        return plain(), Y
    finally:
        keras.config.set_dtype_policy(policy)


def state_of(model):
    variables = [*model.variables, *model.optimizer.variables, *model.metrics_variables]
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]


class Examples:
    """What a builder takes of data."""

    x_train = X


@pytest.mark.parametrize("make", [sequential, functional, subclassed, tutorial, half])
def test_a_copy_evaluates_as_the_model_which_stays_as_it_is(make):
    model, y = make()
    model.fit(X, y, epochs=1, verbose=0)
    expected, before, function = (
        model.evaluate(X, y, verbose=0, return_dict=True),
        state_of(model),
        model.train_function,
    )
    build = models.find_builder(model)
    for builder in (build, cloudpickle.loads(cloudpickle.dumps(build))):
        copied = builder(Examples)
        copied.jit_compile = False
        received = copied.evaluate(X, y, verbose=0, return_dict=True)
        assert received == pytest.approx(expected, abs=1e-6)
        assert [weight.trainable for weight in copied.weights] == [weight.trainable for weight in model.weights]
        assert not {id(v) for v in copied.variables} & {id(v) for v in model.variables}
        assert type(copied.optimizer) is type(model.optimizer)
    copied.fit(X, y, verbose=0)
    bs.fresh(model)(Examples)
    assert model.train_function is function
    for value, now in zip(before, state_of(model), strict=True):
        np.testing.assert_array_equal(now, value)


@pytest.mark.tensorflow
def test_words_and_edges_that_layers_were_adapted_to_are_kept_even_where_weights_are_drawn_anew():
    lookup, edges = layers.StringLookup(), layers.Discretization(num_bins=3)
    lookup.adapt(np.array(["a", "b", "a"]))
    edges.adapt(np.arange(30.0))
    words, numbers = keras.Input((1,), dtype="string"), keras.Input((1,))
    both = [keras.ops.cast(layer(x), "float32") for layer, x in ((lookup, words), (edges, numbers))]
    model = keras.Model([words, numbers], layers.Concatenate()(both))
    import tensorflow as tf

    x = [tf.constant([["a"], ["b"], ["c"]]), tf.constant([[1.0], [15.0], [29.0]])]
    for build in (models.find_builder(model), bs.fresh(model)):
        np.testing.assert_array_equal(build()(x), model(x))


def test_a_model_that_cannot_be_copied_is_refused_in_one_line_and_left_as_it_is():
    def factor(x):
        return x

    model = plain(layers.Lambda(factor), Forgets(2.0))
    for given in (model, keras.Sequential([layers.Dense(2)])):
        with pytest.raises(
            UserCodeError, match=r"give the function that builds it.*Received: keras:Sequential"
        ) as caught:
            models.build_model(given, bs.load_dataset((X, Y)))
        assert "\n" not in str(caught.value)
    assert factor.__name__ == "factor"
    with pytest.raises(InvalidInput, match="a function decides itself"):
        bs.fresh(plain)


def test_a_sweep_of_a_model_starts_from_its_weights_and_is_found_again(tmp_path):
    model = plain()
    before = state_of(model)
    how = {"data": (X, Y), "store": tmp_path, "executor": "serial", "show_progress": False}
    frame = bs.run_sweep(GRID, build=model, **how)
    assert list(frame["status"]) == ["COMPLETE"] * 2
    assert not bs.missing_runs(GRID, build=model, data=(X, Y), store=tmp_path)
    assert len(bs.missing_runs(GRID, build=bs.fresh(model), data=(X, Y), store=tmp_path)) == 2
    record = bs.Store(tmp_path).load(frame["hash"][0], weights=True)
    assert record.facts["starts_from"] == "weights of the model"
    for weight, start in zip(model.get_weights(), record.weights["initial"], strict=True):
        np.testing.assert_array_equal(start, weight)
    for value, now in zip(before, state_of(model), strict=True):
        np.testing.assert_array_equal(now, value)
    model.set_weights([weight + 1 for weight in model.get_weights()])
    assert len(bs.missing_runs(GRID, build=model, data=(X, Y), store=tmp_path)) == 2


def test_a_model_begun_anew_starts_from_the_seed_as_an_object_and_as_a_file(tmp_path, caplog):
    caplog.set_level("INFO", "batchscape")
    model = plain()
    model.save(tmp_path / "net.keras")
    starts = []
    for build in (bs.fresh(model), bs.fresh(tmp_path / "net.keras"), f"fresh:{tmp_path / 'net.keras'}"):
        record = bs.fit_one(bs.Cell(epochs=1, seed=3), build=build, data=(X, Y))
        assert record.facts["starts_from"] == "the seed"
        starts.append(record.weights["initial"][0])
    assert (starts[0] != model.get_weights()[0]).any()
    np.testing.assert_array_equal(starts[1:], starts[:-1])
    assert "net.keras: training starts from new weights, drawn by the seed." in caplog.messages


def test_a_model_of_a_notebook_goes_to_worker_processes(tmp_path):
    model = plain(Shift(0.5))
    frame = bs.run_sweep(bs.Cell(epochs=1), build=model, data=(X, Y), store=tmp_path, executor="processes", workers=1)
    assert list(frame["status"]) == ["COMPLETE"], frame["reason"][0]


@pytest.mark.long
@pytest.mark.tensorflow
def test_a_model_goes_to_the_process_of_a_probe():
    probe = bs.probe_batch_sizes(plain(Shift(0.5)), (X, Y), batch_sizes=[8, 16], repeats=1, show_progress=False)
    assert probe.about["was_compiled"]


def legacy(model, file):
    """Save a model as Keras 2 did: strings and short names, and no modules."""
    import h5py

    model.save(file)
    with h5py.File(file, "a") as opened:
        config = json.loads(opened.attrs["model_config"])
        for layer in config["config"]["layers"]:
            inner = layer["config"]
            inner["dtype"] = "float32"
            if layer["class_name"] == "InputLayer":
                inner["batch_input_shape"] = inner.pop("batch_shape")
                inner.pop("optional")
            for name in ("kernel_initializer", "bias_initializer"):
                if name in inner:
                    kept = {"seed": None} if name[0] == "k" else {}
                    inner[name] = {"class_name": inner[name]["class_name"], "config": kept}
            for extra in ("quantization_config", "lora_rank"):
                inner.pop(extra, None)
        config["config"].pop("dtype", None)
        opened.attrs["model_config"] = json.dumps(config).encode()
        opened.attrs["keras_version"] = b"2.12.0"


@pytest.mark.parametrize("loss", ["mse", "mean_squared_error", "mae"])
def test_files_of_both_formats_are_loaded_whatever_their_names(tmp_path, loss):
    convolution = [layers.Reshape((2, 2, 1)), layers.Conv2D(2, 2), layers.Flatten()]
    model = keras.Sequential([keras.Input((4,)), *convolution, layers.Dense(1)])
    compiled(model, loss=loss, metrics=["mae"])
    model.save(tmp_path / "net.keras")
    legacy(model, tmp_path / "net.h5")
    shutil.copy(tmp_path / "net.keras", tmp_path / "zip.h5")
    shutil.copy(tmp_path / "net.h5", tmp_path / "hdf5.keras")
    expected = model.evaluate(X, X[:, :1], verbose=0)
    for name in ("net.keras", "net.h5", "zip.h5", "hdf5.keras"):
        loaded = models.find_builder(str(tmp_path / name))()
        assert loaded.evaluate(X, X[:, :1], verbose=0) == pytest.approx(expected, abs=1e-6)
        assert float(loaded.optimizer.learning_rate) == pytest.approx(0.02)


def test_a_file_that_cannot_be_loaded_is_refused_in_one_line_with_the_cause(tmp_path):
    model = plain()
    model.save_weights(tmp_path / "net.weights.h5")
    shutil.copy(tmp_path / "net.weights.h5", tmp_path / "weights.h5")
    (tmp_path / "text.h5").write_text("no")
    plain(Shift(1.0)).save(tmp_path / "own.keras")
    plain(Shift(1.0)).save(tmp_path / "own.h5")
    version = rf"saved by Keras {keras.__version__}, this is {keras.__version__}"
    for name, message in {
        "gone.keras": "No such file",
        "net.weights.h5": "A file of weights alone has no model",
        "weights.h5": "A file of weights alone has no model",
        "text.h5": "a zip archive or HDF5. Received: something else",
        "own.keras": f"--import.*Received: Could not locate class 'Shift'; {version}",
        "own.h5": f"--import.*Received: Unknown layer: 'Shift'; {version}",
    }.items():
        with pytest.raises(UserCodeError, match=message) as caught:
            models.find_builder(str(tmp_path / name))()
        assert "\n" not in str(caught.value)


def test_a_file_that_is_saved_anew_meanwhile_is_refused(tmp_path):
    model = plain()
    model.save(tmp_path / "net.keras")
    build = models.find_builder(tmp_path / "net.keras")
    build()
    compiled(keras.Sequential([keras.Input((4,)), layers.Dense(2)])).save(tmp_path / "net.keras")
    with pytest.raises(UserCodeError, match="must not change meanwhile; call again"):
        build()


def test_the_name_of_a_model_depends_on_its_weights_and_layers_and_not_on_the_process(tmp_path):
    data = bs.load_dataset((X, Y))

    def digest(build):
        return models.fingerprint(models.find_builder(build), data, "float32").digest

    def constant(value, width=3):
        kernel = keras.initializers.Constant(value)
        return keras.Sequential(
            [keras.Input((4,)), layers.Dense(width, kernel_initializer=kernel), layers.Dense(2, "relu")]
        )

    model = constant(1)
    model.set_weights([np.ones_like(weight) for weight in model.get_weights()])
    other = keras.models.clone_model(model)
    other.set_weights(model.get_weights())
    assert digest(model) == digest(other)
    other.set_weights([2 * weight for weight in model.get_weights()])
    assert len({digest(model), digest(other), digest(bs.fresh(model)), digest(constant(1, 4))}) == 4
    assert digest(bs.fresh(model)) == digest(bs.fresh(other))


OWN = """import keras

@keras.saving.register_keras_serializable("own")
class Scaled(keras.layers.Layer):
    def call(self, x):
        return 2.0 * x
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with data, `net.keras`, and `own.keras`, whose layer `ownlayers.py` registers."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BATCHSCAPE_HOME", raising=False)
    np.savez("d.npz", x_train=X, y_train=Y, x_test=X, y_test=Y)
    plain().save("net.keras")
    (tmp_path / "ownlayers.py").write_text(OWN)
    space = {"__name__": "ownlayers"}
    exec(OWN, space)
    keras.Sequential([keras.Input((4,)), space["Scaled"](), layers.Dense(2)]).save("own.keras")
    keras.saving.get_custom_objects().pop("own>Scaled")
    path = list(sys.path)
    yield tmp_path
    sys.path[:] = path
    sys.modules.pop("ownlayers", None)
    keras.saving.get_custom_objects().pop("own>Scaled", None)


RUNS = ("--data", "d.npz", "--batch-size", "16", "--epochs", "1", "--seeds", "1", "--store", "s")


def test_the_command_line_takes_files_and_the_modules_that_they_need(folder, command):
    status, _, err = command("sweep", *RUNS, "-q", "--executor", "serial", "--model", "own.keras")
    assert status == 2
    assert "--import" in err
    options = {
        "kept": ("--executor", "serial", "--model", "net.keras"),
        "own": ("--executor", "processes", "--workers", "1", "--model", "own.keras", "--import", "ownlayers"),
    }
    said = {}
    for name, given in options.items():
        status, _, said[name] = command("sweep", *RUNS, "-q", *given)
        assert status == 0, said[name]
        status, out, _ = command("missing", *RUNS, *given[given.index("--model") :])
        assert (status, "0 of 1" in out) == (0, True), out
    assert len(bs.load_results("s")) == 2
    assert "1 of 1" in command("missing", *RUNS, "--model", "net.keras", "--fresh")[1]
    assert said["kept"].startswith(
        "net.keras: training starts from its weights, the same for every seed, with the state of its optimizer begun "
        "anew; --fresh"
    )
    (folder / "ownlayers.py").write_text(OWN.replace("2.0", "3.0"))
    assert "1 of 1" in command("missing", *RUNS, "--model", "own.keras", "--import", "ownlayers")[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sweep", "--model", "gone.h5"], "No such file"),
        (["sweep", "--model", "mlp", "--fresh"], "--fresh and --import need --model with a .keras or .h5 file"),
        (["missing", "--model", "net.keras", "--import", "nothere"], "No module 'nothere'"),
        (["advise", "--model", "gone.keras"], "No such file"),
        (["sharpness", "gone.h5"], "No such file"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_line_and_exit_status_2(folder, command, arguments, message):
    status, _, err = command(*arguments)
    assert status == 2
    assert message in err
    assert err.count("\n") == 1


def test_advise_says_so_where_a_short_training_does_not_lower_the_loss_of_trained_weights():
    rates = [(1e-5, 0.2), (1e-4, 0.2), (1e-3, 0.9)]
    advise._require_untrained("mlp", rates)
    advise._require_untrained(bs.fresh(plain()), rates)
    with pytest.raises(
        InvalidInput, match=r"begin anew with batchscape\.fresh.*its trained weights, loss 0\.2 at first"
    ):
        advise._require_untrained(models.find_builder(plain()), rates)


def test_runs_are_named_by_what_a_loss_holds_though_its_configuration_forgets_it(tmp_path):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(1)])
    ends = []
    for delta in (0.05, 5.0):
        model.compile("sgd", keras.losses.Huber(delta=delta))
        given = {"build": model, "data": (X, 9 * X[:, :1]), "executor": "serial", "show_progress": False}
        ends.append(bs.run_sweep([bs.Cell(batch_size=16, epochs=1)], store=tmp_path, **given))
    assert ends[0]["hash"][0] != ends[1]["hash"][0]
    assert ends[1]["train_loss"][0] > 3 * ends[0]["train_loss"][0]
