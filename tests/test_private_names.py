"""Names that Keras, TensorFlow, JAX, loky and Typer do not promise to keep: they are there, and do what we think.

One that fails names the file upstream to read. `backend/keras_private.py` and its like say what we do without each.
"""

import logging
import os
import subprocess
import sys
import tomllib
import types

import keras
import numpy as np
import pytest
import typer
from keras import layers, ops

from batchscape import backend
from batchscape.backend import importing, jax_private, keras_private, tensorflow_private
from batchscape.cli import UsageError
from batchscape.errors import BatchscapeError
from batchscape.landscape.filters import _own_weights
from batchscape.workers import loky_private
from tests.conftest import ON_JAX, ROOT

X, Y = np.ones((6, 3), np.float32), np.arange(6.0, dtype=np.float32).reshape(6, 1)


def small(**options):
    model = keras.Sequential([keras.Input((3,)), layers.Dense(1, name="first"), layers.Dropout(0.5), layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.01), "mean_squared_error", **options)
    return model


class Subclassed(keras.Model):
    """A model without a graph, whose `call` takes no `training`."""

    def __init__(self):
        super().__init__()
        self.inner = layers.Dense(1)

    def call(self, x):
        return self.inner(x)


def test_the_packages_are_those_that_were_tested():
    with open(ROOT / "pyproject.toml", "rb") as file:
        project = tomllib.load(file)["project"]
    extras = project["optional-dependencies"]
    stated = {*project["dependencies"], *extras["tensorflow"], *extras["jax"]}
    assert {module.TESTED for module in (keras_private, tensorflow_private, jax_private)} <= stated
    assert keras.__version__.startswith("3.15."), (
        "run this file on the new version, then raise TESTED and pyproject.toml"
    )


@pytest.mark.parametrize("takes_training", [True, False])
def test_a_models_own_compute_loss_is_called_with_what_it_takes(takes_training):
    """keras/src/trainers/trainer.py"""

    class Own(keras.Sequential):
        if takes_training:

            def compute_loss(self, x, y, y_pred, sample_weight, training=True):
                return ops.sum(y_pred) + (1.0 if training else 2.0)

        else:

            def compute_loss(self, x, y, y_pred, sample_weight=None):
                return ops.sum(y_pred) + 2.0

    model = Own([keras.Input((1,)), layers.Dense(1)])
    assert float(keras_private.compute_loss(model, X, Y, ops.convert_to_tensor(Y), None)) == Y.sum() + 2


def test_activity_regularizers_are_means_over_the_batch():
    """The reason for the floor of Keras; keras/src/layers/layer.py."""
    layer = layers.Dense(1, kernel_initializer="ones", activity_regularizer=keras.regularizers.L1(1.0))
    layer(X)
    assert float(layer.losses[0]) == pytest.approx(3.0)


def test_every_layer_of_a_model_is_found_once_outer_ones_first():
    """keras/src/layers/layer.py"""
    shared = layers.Dense(2)
    inner = keras.Sequential([shared, layers.Bidirectional(layers.LSTM(2))], name="inner")
    x = keras.Input((4, 3))
    model = keras.Model(x, inner(x))
    model.again = shared
    found = keras_private.layers_of(model)
    assert found[0] is model
    assert len(found) == len({id(layer) for layer in found})
    kinds = [type(layer).__name__ for layer in found]
    assert kinds.count("Bidirectional") == 1
    assert kinds.count("LSTM") == 2
    assert kinds.index("Sequential") < kinds.index("Bidirectional") < kinds.index("LSTM")
    assert keras_private.layers_of(model, include_self=False) == found[1:]
    assert keras_private.is_layer(model)
    assert keras_private.is_layer(layers.Dense)
    assert not keras_private.is_layer(X)


def test_the_weights_that_a_layer_has_itself_are_those_that_keras_lists():
    """`Layer._trainable_variables` in keras/src/layers/layer.py, which we do without."""
    x = keras.Input((4, 6))
    model = keras.Model(x, layers.Bidirectional(layers.LSTM(2))(layers.MultiHeadAttention(2, 3)(x, x)))
    for layer in keras_private.layers_of(model):
        expected = layer._trainable_variables + layer._non_trainable_variables
        assert [id(weight) for weight in _own_weights(layer)] == [id(weight) for weight in expected]


def test_operations_of_a_functional_model_are_listed():
    """keras/src/ops/function.py"""
    x = keras.Input((3,))
    model = keras.Model(x, layers.Dense(3)(x) + x)
    assert "Add" in [type(operation).__name__ for operation in keras_private.operations_of(model)]
    assert keras_private.operations_of(layers.Dense(1)) == []


def test_functional_and_model_stand_where_names_of_runs_say():
    """keras/src/models/functional.py and model.py"""
    x = keras.Input((3,))
    assert keras_private.library_name(type(keras.Model(x, x))) == ("keras.src.models.model", "Model")
    assert keras_private.library_name(keras.Model) == ("keras.src.models.model", "Model")
    assert keras_private.library_name(keras.Sequential)[1] == "Sequential"


def test_what_a_model_was_compiled_with_is_kept_as_given():
    """keras/src/trainers/compile_utils.py and trainer.py"""
    model = small(metrics=["mae"], weighted_metrics=["mse"], loss_weights=[2.0])
    assert keras_private.compiled_metrics(model) == [["mae"], ["mse"]]
    assert keras_private.compiled_loss_weights(model) == [2.0]
    plain = Subclassed()
    assert keras_private.compiled_metrics(plain) == [None, None]
    assert keras_private.compiled_loss_weights(plain) is None


@pytest.mark.tensorflow
def test_inverse_document_frequencies_are_found():
    """keras/src/layers/preprocessing/text_vectorization.py and index_lookup.py"""
    layer = layers.TextVectorization(output_mode="tf_idf")
    layer.adapt(["a b", "a c", "a"])
    assert len(np.asarray(keras_private.idf_weights(layer))) == layer.vocabulary_size()
    assert keras_private.idf_weights(layers.TextVectorization()) is None
    lookup = layers.StringLookup(vocabulary=["a", "b"], idf_weights=[1.0, 2.0], output_mode="tf_idf")
    assert np.asarray(keras_private.idf_weights(lookup))[1:].tolist() == [1.0, 2.0]


def test_whether_call_takes_training_is_known_and_else_read_from_its_signature(monkeypatch):
    """keras/src/layers/layer.py"""
    models = small(), Subclassed()
    assert [model._call_has_training_arg for model in models] == [True, False]
    assert [keras_private.takes_training(model) for model in models] == [True, False]
    for model in models:
        monkeypatch.delattr(model, "_call_has_training_arg")
    assert [keras_private.takes_training(model) for model in models] == [True, False]


def test_the_last_operation_is_known_and_else_none():
    """keras/src/ops/node.py"""
    model = small()
    assert keras_private.last_operation(model) is model.layers[-1]
    assert keras_private.last_operation(Subclassed()) is None
    assert keras_private.last_operation(types.SimpleNamespace(outputs=[X])) is None


def test_the_mask_of_an_output_is_found():
    """keras/src/backend/common/masking.py"""
    masked = layers.Embedding(5, 2, mask_zero=True)(np.array([[0, 1]]))
    assert np.asarray(keras_private.mask_of(masked)).tolist() == [[False, True]]
    assert keras_private.mask_of(layers.Dense(1)(X)) is None


def test_the_options_of_a_loss_are_known():
    """keras/src/losses/losses.py"""
    assert keras_private.loss_options(keras.losses.Huber(delta=0.3)) == {"delta": 0.3}


def test_a_mask_is_put_on_a_tensor():
    """keras/src/backend/common/masking.py"""
    output = keras.ops.convert_to_tensor(X)
    keras_private.set_mask(output, keras.ops.ones((6,), "bool"))
    assert keras_private.mask_of(output).shape == (6,)


def test_the_loss_that_fit_reports_is_counted_with_its_tracker_and_else_with_the_metric():
    """keras/src/trainers/trainer.py"""
    model = small()
    tracker = model._loss_tracker
    assert tracker is model.metrics[0]
    assert tracker.name == "loss"
    keras_private.update_loss_tracker(model, 1.0, 3)
    keras_private.update_loss_tracker(types.SimpleNamespace(metrics=[keras.metrics.Mean("mae"), tracker]), 5.0, 1)
    assert float(tracker.result()) == 2.0


def test_a_loss_without_reduction_gives_the_loss_of_each_example():
    """keras/src/losses/loss.py"""
    loss = keras.losses.MeanSquaredError(dtype="float16")
    each = keras_private.without_reduction(loss)(Y, 0 * Y)
    assert np.asarray(each).tolist() == [0, 1, 4, 9, 16, 25]
    assert keras.backend.standardize_dtype(each.dtype) == "float16"
    assert loss.reduction == "sum_over_batch_size"


def test_a_schedule_of_the_rate_is_seen_and_else_read_from_the_configuration():
    """keras/src/optimizers/base_optimizer.py"""
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9)
    optimizers = keras.optimizers.SGD(schedule), keras.optimizers.SGD(0.1)
    assert hasattr(optimizers[0], "_learning_rate")
    assert [keras_private.has_rate_schedule(one) for one in optimizers] == [True, False]
    scaled = [keras.optimizers.LossScaleOptimizer(one) for one in optimizers]
    assert [keras_private.has_rate_schedule(one) for one in scaled] == [True, False]
    without = [types.SimpleNamespace(get_config=one.get_config) for one in optimizers]
    assert [keras_private.has_rate_schedule(one) for one in without] == [True, False]


def test_the_metrics_of_compile_are_updated_and_named_by_keras():
    """keras/src/trainers/trainer.py"""
    model = keras.Sequential([keras.Input((3,)), layers.Dense(1)])
    model.compile("sgd", "mse", metrics=[keras.metrics.MeanAbsoluteError(name="mine")])
    compiled = keras_private.compile_metrics(model)
    compiled.update_state(Y, Y + 2)
    assert {name: float(value) for name, value in compiled.result().items()} == {"mine": 2.0}
    compiled.reset_state()
    plain = keras.Sequential([keras.Input((3,)), layers.Dense(1)])
    plain.compile("sgd", "mse")
    assert keras_private.compile_metrics(plain) is None


def test_weights_excluded_from_decay_are_known():
    """keras/src/optimizers/base_optimizer.py"""
    optimizer, other = keras.optimizers.AdamW(), keras.optimizers.AdamW()
    assert keras_private.excluded_from_weight_decay(optimizer) == {}
    bias = keras.Variable(np.zeros(2), name="bias")
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    excluded = keras_private.excluded_from_weight_decay(optimizer)
    assert list(excluded) == ["_exclude_from_weight_decay_pattern"]
    keras_private.exclude_from_weight_decay(other, excluded)
    for each in (optimizer, other):
        each.build([bias])
        assert not each._use_weight_decay(bias)
    assert keras_private.trained_variables(optimizer) == [bias]


def test_losses_of_outputs_are_given_targets_as_keras_gives_them():
    """keras/src/trainers/compile_utils.py"""
    y, y_pred = {"b": X, "a": Y}, [Y + 1, X + 1]
    model = types.SimpleNamespace(output_names=["a", "b"])
    found = keras_private.losses_of_outputs(model, {"a": "mse", "b": "mae"}, {"a": 1, "b": 2}, y, y_pred, [Y, X])
    assert [(each.name, each.loss, each.weight, each.target, each.output, each.sample_weight) for each in found] == [
        ("a", "mse", 1, 0, 0, 0),
        ("b", "mae", 2, 1, 1, 1),
    ]


def test_variables_of_an_optimizer_are_tracked_and_indexed():
    """keras/src/optimizers/base_optimizer.py"""
    optimizer, weights = keras.optimizers.SGD(0.1), [keras.Variable([1.0]), keras.Variable([2.0])]
    optimizer.build(weights)
    assert [keras_private.index_of(optimizer, weight) for weight in weights] == [0, 1]
    table = keras.Variable([0.1], trainable=False)
    keras_private.track_variable(optimizer, table)
    assert any(variable is table for variable in optimizer.variables)


def test_fit_calls_the_train_function_that_is_there():
    """keras/src/backend/*/trainer.py"""

    def on_tensorflow(iterator):
        return {"sum": ops.sum(next(iterator)[0])}

    def on_jax(state, iterator):
        next(iterator)
        return {"sum": ops.sum(X)}, ([value + 1 for value in state[0]], *state[1:])

    model = small()
    keras_private.set_train_function(model, on_jax if keras.backend.backend() == "jax" else on_tensorflow)
    for _ in range(2):
        assert float(model.fit(X, Y, batch_size=6, verbose=0).history["sum"][0]) == X.sum()
    keras_private.set_train_function(model, None)
    assert [*model.fit(X, Y, batch_size=6, verbose=0).history] == ["loss"]


@pytest.mark.jax
def test_variables_get_the_values_that_fit_holds_elsewhere():
    """keras/src/backend/jax/trainer.py"""
    model = small()
    model._jax_state = {"trainable_variables": [variable.value + 1 for variable in model.trainable_variables]}
    model._jax_state_synced = False
    keras_private.sync_state(model)
    assert np.asarray(model.trainable_variables[1]).tolist() == [1.0]


def test_a_layer_calls_what_it_is_given_meanwhile():
    """keras/src/layers/layer.py and ops/operation.py"""
    model, seen = small(), []
    layer = model.get_layer("first")
    plain = np.asarray(model(X))
    with keras_private.calling(layer, lambda inputs: seen.append(inputs.shape) or inputs[:, :1]):
        changed = np.asarray(model(X))
    assert seen
    assert not np.array_equal(changed, plain)
    assert np.array_equal(np.asarray(model(X)), plain)


GONE = {
    "Dense._flatten_layers": lambda: keras_private.layers_of(layers.Dense(1)),
    "Subclassed._compile_metrics": lambda: keras_private.compiled_metrics(Subclassed()),
    "Subclassed._compile_loss": lambda: keras_private.compiled_loss_weights(Subclassed()),
    "SGD._track_variable": lambda: keras_private.track_variable(keras.optimizers.SGD(), None),
    "SGD._learning_rate": lambda: keras_private.rate_schedule(keras.optimizers.SGD()),
    "SGD._trainable_variables": lambda: keras_private.trained_variables(keras.optimizers.SGD()),
    "SGD._get_variable_index": lambda: keras_private.index_of(keras.optimizers.SGD(), None),
    "keras.src.backend.common.masking.get_keras_mask": lambda: keras_private.mask_of(X),
    "keras.src.backend.common.masking.set_keras_mask": lambda: keras_private.set_mask(X, None),
}


@pytest.mark.parametrize("name", GONE)
def test_a_name_that_is_gone_without_a_public_one_is_told_in_one_line(name, monkeypatch):
    """As newer versions might be: the error says what to install."""
    attribute = name.rpartition(".")[2]

    def without(thing, asked, *default):
        if asked == attribute:
            raise AttributeError(asked)
        return getattr(thing, asked, *default)

    monkeypatch.setattr(keras_private, "getattr", without, raising=False)
    with pytest.raises(
        BatchscapeError, match=rf"^batchscape needs keras>=3.15,<3.16, which has {name}. Received: Keras 3"
    ):
        GONE[name]()


@pytest.mark.tensorflow
def test_a_pipeline_is_told_its_number_of_batches(monkeypatch):
    """tensorflow/python/data/experimental/ops/cardinality.py"""
    import tensorflow as tf

    batches = tf.data.Dataset.range(4).filter(lambda number: number >= 0)
    assert int(tensorflow_private.with_cardinality(batches, 4).cardinality()) == 4
    with pytest.raises(tf.errors.FailedPreconditionError):
        list(tensorflow_private.with_cardinality(batches, 5))
    monkeypatch.delattr(tf.data.experimental, "assert_cardinality")
    with pytest.raises(BatchscapeError, match=r"needs tensorflow>=.*assert_cardinality. Received: TensorFlow 2"):
        tensorflow_private.with_cardinality(batches, 4)


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("size", "change"),
    [
        (4, lambda p: p.batch(4, drop_remainder=True)),
        (4, lambda p: p.batch(4, drop_remainder=True, num_parallel_calls=2).map(lambda x: -x).cache().prefetch(1)),
        (4, lambda p: p.padded_batch(4, drop_remainder=True).shuffle(2).take(1)),
        (None, lambda p: p),
        (None, lambda p: p.batch(4).unbatch()),
        (None, lambda p: p.window(4).flat_map(lambda window: window.batch(4, drop_remainder=True))),
    ],
)
def test_the_batch_size_of_a_pipeline_is_that_of_its_last_batch(size, change):
    """tensorflow/python/data/ops/batch_op.py"""
    import tensorflow as tf

    assert tensorflow_private.batch_size_of(change(tf.data.Dataset.range(9))) == size


@pytest.mark.tensorflow
def test_a_pipeline_goes_without_tuning():
    """tensorflow/python/data/ops/options.py"""
    options = tensorflow_private.untuned()
    assert options.autotune.enabled is False
    assert options.experimental_optimization.apply_default_optimizations is False


@pytest.mark.tensorflow
def test_a_pipeline_keeps_its_own_optimizations_where_they_cannot_be_named(monkeypatch):
    import tensorflow as tf

    class Options:
        autotune = types.SimpleNamespace(enabled=True)

    monkeypatch.setattr(tf.data, "Options", Options)
    assert tensorflow_private.untuned().autotune.enabled is False


@pytest.mark.tensorflow
def test_the_memory_limits_of_devices_are_listed(monkeypatch):
    """tensorflow/python/client/device_lib.py"""
    from tensorflow.python.client import device_lib

    assert all(device.memory_limit >= 0 and device.device_type for device in device_lib.list_local_devices())
    gpu = types.SimpleNamespace(device_type="GPU", memory_limit=7)
    monkeypatch.setattr(device_lib, "list_local_devices", lambda: [types.SimpleNamespace(device_type="CPU"), gpu])
    assert tensorflow_private.memory_limit_of_gpu() == 7
    monkeypatch.setitem(sys.modules, "tensorflow.python.client.device_lib", None)
    with pytest.raises(BatchscapeError, match=r"needs tensorflow>=.*device_lib. Received: TensorFlow 2"):
        tensorflow_private.memory_limit_of_gpu()


@pytest.mark.tensorflow
def test_what_tensorflow_calls_experimental_of_a_gpu_is_there():
    """tensorflow/python/framework/config.py, as `backend/device_tensorflow.py` uses it."""
    import tensorflow as tf

    from batchscape.backend import device_tensorflow

    names = "get_device_details", "set_memory_growth", "reset_memory_stats", "get_memory_info"
    assert all(callable(getattr(tf.config.experimental, name)) for name in names)
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    with device_tensorflow.full_float32():
        assert not tf.config.experimental.tensor_float_32_execution_enabled()
    assert tf.config.experimental.tensor_float_32_execution_enabled() == before


@pytest.mark.tensorflow
def test_warnings_of_programs_have_the_words_by_which_we_know_them(caplog):
    """tensorflow/python/eager/polymorphic_function/polymorphic_function.py and ops/parallel_for/pfor.py"""
    import tensorflow as tf

    def warn():
        function = tf.function(lambda x: x + 1)
        for size in range(5):
            function(tf.zeros(size))
        tf.vectorized_map(lambda x: tf.while_loop(lambda i: i < x, lambda i: i + 1, [0])[0], tf.constant([1, 2]))

    logger = logging.getLogger("tensorflow")
    caplog.set_level(logging.WARNING, logger=logger.name)
    logger.addHandler(caplog.handler)
    try:
        with importing.without_warnings_of_programs():
            warn()
        assert not caplog.messages
        warn()
    finally:
        logger.removeHandler(caplog.handler)
    assert any("triggered tf.function retracing" in message for message in caplog.messages), caplog.messages


@pytest.mark.jax
def test_what_is_traced_is_told_from_numbers(monkeypatch):
    """jax/core.py"""
    import jax

    seen = []
    jax.jit(lambda x: seen.append(x) or x)(1.0)
    assert jax_private.is_traced(seen[0])
    assert not jax_private.is_traced(jax.numpy.ones(1))
    monkeypatch.delattr(jax.core, "Tracer")
    with pytest.raises(BatchscapeError, match=r"needs jax>=.*jax\.core\.Tracer\. Received: JAX 0"):
        jax_private.is_traced(seen[0])


@pytest.mark.jax
def test_outputs_depend_on_the_inputs_that_they_are_made_of(monkeypatch):
    """jax/_src/core.py, `Jaxpr`"""
    import jax

    def function(x, y, z):
        return [jax.jit(jax.numpy.sin)(x) + 1.0, x * y[0], jax.numpy.ones(())]

    found = jax_private.dependencies(function, 1.0, [2.0], 3.0)
    assert found == [[True, False, False], [True, True, False], [False, False, False]]
    monkeypatch.setattr(
        jax, "make_jaxpr", lambda function: lambda *_: types.SimpleNamespace(jaxpr=types.SimpleNamespace())
    )
    with pytest.raises(BatchscapeError, match=r"needs jax>=.*invars in a jaxpr. Received: JAX 0"):
        jax_private.dependencies(function, 1.0, [2.0], 3.0)


def test_the_process_of_an_executor_is_found():
    """loky/process_executor.py"""
    import loky

    executor = loky.ProcessPoolExecutor(max_workers=1)
    try:
        pid = executor.submit(os.getpid).result()
        assert loky_private.process_of(executor).pid == pid
    finally:
        executor.shutdown(kill_workers=True)
    assert loky_private.process_of(types.SimpleNamespace()) is None


def test_loky_reads_how_far_a_process_may_grow():
    """loky/process_executor.py"""
    code = "from loky import process_executor; print(process_executor._MAX_MEMORY_LEAK_SIZE)"
    environment = os.environ | loky_private.KEEP_LARGE_PROCESSES
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == "1000000000000000"


def test_typer_raises_our_usage_error_and_lists_the_commands():
    """typer/main.py, and `UsageError` in typer/_click/exceptions.py or click/exceptions.py"""
    app = typer.Typer()
    app.command()(lambda: None)
    assert len(app.registered_commands) == 1
    assert UsageError.__name__ == "UsageError"
    with pytest.raises(UsageError) as caught:
        app(["--unknown"], standalone_mode=False)
    assert "--unknown" in caught.value.format_message()


def test_the_backend_of_these_tests_is_the_one_that_was_asked_for():
    assert backend.name() == ("jax" if ON_JAX else "tensorflow")
