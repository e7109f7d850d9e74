"""Models: the named ones by their published sizes, a user's own by its contract, and what makes two of them the same."""

import keras
import numpy as np
import pytest

import batchscape as bs
from batchscape.config import MODELS
from batchscape.errors import InvalidInput, UserCodeError
from batchscape.models import build as models
from batchscape.models import networks
from batchscape.models.fingerprint import of


def images(side, channels=1):
    x = np.zeros((30, side, side, channels), np.float32)
    return bs.load_dataset((x, np.arange(30) % 10))


@pytest.mark.parametrize(
    ("name", "side", "parameters"),
    [
        ("mlp", 8, 17_226),
        ("lenet", 28, 431_080),
        ("keskar_f1", 28, 1_462_794 + 5 * 2 * 512 - 5 * 2 * 512),
        ("cnn", 28, 9_098),
    ],
)
def test_a_named_model_has_its_published_number_of_parameters(name, side, parameters):
    model = bs.build_model(name, images(side))
    assert sum(int(np.prod(weight.shape)) for weight in model.trainable_weights) == parameters
    assert model.outputs[0].shape == (None, 10)


def test_the_list_of_names_is_the_list_of_builders():
    assert tuple(networks.BUILDERS) == MODELS


def test_a_model_that_needs_images_says_so(blobs):
    with pytest.raises(InvalidInput, match=r"'lenet' needs images.*Received: inputs of shape \(8, 8, 1\)"):
        bs.build_model("lenet", images(8))
    with pytest.raises(InvalidInput, match="'cnn' needs images"):
        bs.build_model("cnn", bs.load_dataset(blobs))


def test_the_seed_decides_the_weights(digits):
    first, again, other = (bs.build_model("mlp", digits, seed=seed).get_weights() for seed in (0, 0, 1))
    for a, b, c in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(a, b)
        assert not c.any() or (a != c).any()


def test_build_is_called_with_the_data_only_if_it_asks_for_them(digits):
    wants = bs.build_model(
        lambda data: keras.Sequential([keras.Input(data.x_train.shape[1:]), keras.layers.Flatten()]), digits
    )
    assert wants.input_shape == (None, 8, 8, 1)

    def with_default(width=3):
        return keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(width)])

    assert bs.build_model(with_default, digits).output_shape == (None, 3)


def test_a_model_without_an_input_layer_is_built_on_the_data(digits):
    model = bs.build_model(lambda: keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(10)]), digits, seed=0)
    assert model.count_params() == 650


def test_an_unknown_module_or_function_is_named(tmp_path, monkeypatch, digits):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "brokennet.py").write_text("def build():\n    return 1\nimport not_there\n")
    (tmp_path / "goodnet.py").write_text("def build():\n    return 1\n")
    for spec, message in {
        "nonet:build": "No module 'nonet'",
        "brokennet:build": "needs a module that is missing",
        "goodnet:make": "has no function 'make'; its functions: build",
        "goodnet:build": "must return a keras.Model",
        "goodnet:": "package.module:function",
    }.items():
        with pytest.raises((UserCodeError, InvalidInput), match=message) as caught:
            bs.build_model(spec, digits)
        assert "\n" not in str(caught.value)


def fingerprint(build, data):
    return models.fingerprint(models.find_builder(build), data, "float32").digest


def test_the_fingerprint_does_not_depend_on_how_many_models_were_built_before(digits):
    first = fingerprint("mlp", digits)
    for _ in range(3):
        keras.layers.Dense(2)
        bs.build_model("cnn", digits)
    assert fingerprint("mlp", digits) == first


def test_names_of_layers_that_are_words_of_configurations_too_do_not_change_the_fingerprint(digits):
    def build(data):
        layers = keras.layers
        stack = [layers.Flatten(), layers.Reshape((8, 8)), layers.GRU(3, "relu", dropout=0.1), layers.Dropout(0.2)]
        return keras.Sequential(
            [keras.Input((8, 8, 1)), *stack, layers.Activation("relu"), layers.Dense(10, "softmax")]
        )

    keras.backend.clear_session()  # So that the first are named "dropout", "activation" and "dense".
    assert len({fingerprint(build, digits) for _ in range(3)}) == 1


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("mlp", {"image_data_format": "channels_first"}),
        ("cnn", {"image_data_format": "channels_first"}),
        ("mlp", {"floatx": "float16"}),
    ],
)
def test_the_configuration_of_keras_changes_neither_the_numbers_nor_the_name_of_a_run(name, setting, monkeypatch):
    cell = bs.Cell(model=name, batch_size="full", epochs=2, train_size=64, engine="stock")
    usual = bs.fit_one(cell)
    monkeypatch.setattr("keras.src.backend.config._IMAGE_DATA_FORMAT", "channels_last")
    monkeypatch.setattr("keras.src.backend.config._FLOATX", "float32")
    keras.config.set_floatx(setting.get("floatx", "float32"))
    keras.config.set_image_data_format(setting.get("image_data_format", "channels_last"))
    configured = bs.fit_one(cell)
    assert {**configured.final, "seconds": 0} == {**usual.final, "seconds": 0}
    assert configured.hash == usual.hash


def test_the_fingerprint_sees_sizes_activations_and_source(digits):
    def small():
        return keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10)])

    def tanh():
        return keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10, "tanh")])

    def branched():
        inputs = keras.Input((8, 8, 1))
        flat = keras.layers.Flatten()(inputs)
        return keras.Model(inputs, keras.layers.Add()([keras.layers.Dense(10)(flat), keras.layers.Dense(10)(flat)]))

    assert len({fingerprint(build, digits) for build in ("mlp", "cnn", small, tanh, branched)}) == 5
    assert fingerprint(branched, digits) == fingerprint(branched, digits)


def test_editing_a_users_file_changes_the_fingerprint_of_its_functions(tmp_path):
    digests = []
    for body in ("return 1", "return 1  # edited"):
        file = tmp_path / "edited.py"
        file.write_text(f"def build():\n    {body}\n")
        namespace = {"__name__": "edited"}
        exec(compile(file.read_text(), str(file), "exec"), namespace)
        digests.append(of(namespace["build"]).digest)
    assert digests[0] != digests[1]
