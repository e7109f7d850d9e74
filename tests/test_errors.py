"""What errors say: one line of their own words, and the frames of the user's code."""

import pathlib

import keras
import numpy as np
import pytest
from keras import layers

import batchscape as bs
from batchscape.errors import MOST_TRACEBACK, MOST_WORDS, UserCodeError, reason_of, telling_line, traceback_of
from batchscape.models.files import load_model


class Forgotten(layers.Layer):
    """A layer that Keras cannot find again when it loads a model."""

    def call(self, x):
        return x


class Unlucky(layers.Layer):
    """A layer that raises once it is built."""

    def call(self, x):
        if x.shape[0] is not None:
            raise ValueError("the sky\nis falling")
        return x


def raised_by(function, *arguments, **options):
    """The error that a call raises, of whatever type."""
    try:
        function(*arguments, **options)
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def test_what_keras_says_of_wrong_inputs_is_one_line_without_terminal_codes():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    line = telling_line(raised_by(model, np.zeros((2, 5))))
    assert line.startswith("Input 0 with name")
    assert line.endswith("received input with shape (2, 5)")


def test_the_words_of_a_users_layer_are_kept_and_its_arguments_left_out():
    assert reason_of(raised_by(Unlucky(), np.zeros((2, 5)))) == "ValueError: the sky is falling"


@pytest.mark.tensorflow
def test_what_tensorflow_says_inside_of_a_graph_is_its_last_words():
    import tensorflow as tf

    error = raised_by(tf.function(lambda rows: tf.gather(tf.zeros(3), rows)), tf.constant([7]))
    assert telling_line(error) == "indices[0] = 7 is not in [0, 3)"


def test_why_keras_could_not_load_a_model_is_said_and_not_what_it_tried(tmp_path):
    keras.Sequential([keras.Input((4,)), Forgotten()]).save(tmp_path / "net.keras")
    error = raised_by(load_model, tmp_path / "net.keras")
    assert isinstance(error, UserCodeError)
    assert "Could not locate class 'Forgotten'" in str(error)
    assert "config" not in str(error)


def test_a_file_that_is_no_keras_file_is_not_called_missing(tmp_path):
    (tmp_path / "net.keras").write_text("not a zip archive")
    with pytest.raises(UserCodeError, match=r"must be a \.keras or \.h5 file.*a zip archive"):
        load_model(tmp_path / "net.keras")


def test_a_reason_has_a_bounded_length_and_ends_with_the_last_words():
    reason = reason_of(RuntimeError("\n".join([*(f"line {i} of very many" for i in range(1000)), "the end"])))
    assert len(reason) <= MOST_WORDS + len("RuntimeError: ")
    assert reason.endswith("the end")
    assert len(reason_of(RuntimeError("x" * 10_000))) <= MOST_WORDS + len("RuntimeError: ")


def test_an_error_that_says_nothing_or_cannot_be_printed_is_named_by_its_type():
    class Mute(Exception):
        def __str__(self):
            raise RuntimeError

    assert reason_of(MemoryError()) == "MemoryError: no message"
    assert reason_of(Mute()) == "Mute: no message"


def test_a_traceback_has_the_frames_of_the_users_code_through_the_chain_of_errors(blobs):
    def look_up():
        return {}["missing"]

    def build():
        try:
            look_up()
        except KeyError as error:
            raise RuntimeError("\x1b[1mno model\x1b[0m") from error

    text = traceback_of(raised_by(bs.build_model, build, bs.load_dataset(blobs)))
    assert "in look_up" in text
    assert "in build\n" in text
    assert "The above exception was the direct cause" in text
    assert text.endswith(
        "UserCodeError: build function tests.test_errors:" + build.__qualname__ + " raised RuntimeError: no model"
    )
    assert str(pathlib.Path(bs.__file__).parent) not in text
    assert "\x1b" not in text


def test_a_traceback_leaves_the_frames_of_keras_out_and_has_a_bounded_length():
    text = traceback_of(raised_by(Unlucky(), np.zeros((2, 5))))
    assert "in call\n" in text
    assert "site-packages" not in text
    assert len(traceback_of(ValueError("x" * 100_000))) <= MOST_TRACEBACK
