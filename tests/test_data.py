"""Data sets: what comes in, how it is split, and what is refused."""

import numpy as np
import pytest

import batchscape as bs
from batchscape.errors import DataNotFound, InvalidInput, UserCodeError


def test_digits_are_split_once_and_for_all(digits):
    assert [len(digits.split(name)[1]) for name in ("train", "val", "test")] == [1280, 257, 260]
    assert digits.x_train.dtype == np.float32
    assert digits.x_train.shape[1:] == (8, 8, 1)
    assert (digits.x_train.min(), digits.x_train.max()) == (0, 1)
    assert digits.meta["sha256"] == bs.load_dataset("digits").meta["sha256"]
    rows = {array.tobytes() for name in ("train", "val", "test") for array in digits.split(name)[0]}
    assert len(rows) == 1797  # No image is in two splits.


def test_splits_are_stratified(digits):
    shares = [
        np.bincount(digits.split(name)[1], minlength=10) / len(digits.split(name)[1])
        for name in ("train", "val", "test")
    ]
    assert np.abs(np.array(shares) - 0.1).max() < 0.01


def test_train_size_keeps_a_stratified_subset_and_changes_the_digest(digits):
    fewer = bs.load_dataset("digits", train_size=100)
    assert fewer.n_train == 100
    assert np.bincount(fewer.y_train).min() >= 9
    assert fewer.meta["sha256"] != digits.meta["sha256"]
    assert (fewer.y_test == digits.y_test).all()
    with pytest.raises(InvalidInput, match=r"1\.\.1280.*Received: 5000"):
        bs.load_dataset("digits", train_size=5000)


def test_arrays_are_held_out_ten_percent_each(blobs):
    data = bs.load_dataset(blobs)
    assert [len(data.split(name)[1]) for name in ("train", "val", "test")] == [81, 9, 10]
    assert data.meta["num_classes"] == 3
    assert data.meta["loss"] is None


def test_a_pair_of_pairs_keeps_its_test_set(blobs):
    x, y = blobs
    data = bs.load_dataset(((x[:80], y[:80]), (x[80:], y[80:])))
    np.testing.assert_array_equal(data.x_test, x[80:])
    assert (len(data.y_train), len(data.y_val)) == (72, 8)


def test_several_inputs_and_lists_travel_as_trees(blobs):
    x, y = blobs
    data = bs.load_dataset(({"a": x, "b": x[:, :2]}, y))
    assert data.x_train["b"].shape == (81, 2)


def test_float64_and_int64_become_what_keras_computes_with(blobs):
    x, y = blobs
    data = bs.load_dataset((x.astype(np.float64), y.astype(np.int64)))
    assert (data.x_train.dtype, data.y_train.dtype) == (np.float32, np.int32)


def test_an_npz_file_in_the_layout_of_mnist_is_scaled_like_mnist(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (60, 6, 6), dtype=np.uint8)
    labels = np.arange(60)[:, None] % 4
    np.savez(tmp_path / "small.npz", x_train=images, y_train=labels, x_test=images[:20], y_test=labels[:20])
    data = bs.load_dataset(tmp_path / "small.npz")
    assert data.x_train.shape == (54, 6, 6, 1)
    np.testing.assert_allclose(data.x_test[..., 0], images[:20] / 255, rtol=1e-6)
    assert data.y_test.shape == (20,)
    assert data.meta["loss"] == "sparse_categorical_crossentropy"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda x, y: (x[:-1], y), "equal lengths"),
        (lambda x, y: (x[:0], y[:0]), "at least one example"),
        (lambda x, y: (np.where(np.arange(100)[:, None] == 3, np.nan, x), y), "finite.*NaN or infinity in 1 examples"),
        (lambda x, y: (x, np.where(y == 0, np.inf, y)), "targets of arrays must be finite"),
        (lambda x, y: (x.astype(object), y), "dtype object"),
        (lambda x, y: "nothing", "Unknown dataset"),
        (lambda x, y: 7, "Data must come as"),
    ],
)
def test_data_that_cannot_be_trained_on_are_refused_in_one_line(blobs, spoil, message):
    with pytest.raises(InvalidInput, match=message) as caught:
        bs.load_dataset(spoil(*blobs))
    assert "\n" not in str(caught.value)


def test_a_file_that_is_missing_or_is_no_npz_is_named(tmp_path):
    with pytest.raises(DataNotFound, match=r"nothing\.npz"):
        bs.load_dataset(tmp_path / "nothing.npz")
    (tmp_path / "text.npz").write_text("no arrays")
    with pytest.raises(InvalidInput, match=r"text\.npz cannot be read"):
        bs.load_dataset(tmp_path / "text.npz")
    np.savez(tmp_path / "part.npz", x_train=np.zeros(3))
    with pytest.raises(InvalidInput, match="Missing: y_train, x_test, y_test"):
        bs.load_dataset(tmp_path / "part.npz")


def test_a_data_set_that_is_not_here_and_cannot_be_downloaded_names_the_file_to_place(monkeypatch):
    import keras

    def offline():
        raise OSError("no route to host")

    monkeypatch.setattr(keras.datasets.mnist, "load_data", offline)
    with pytest.raises(DataNotFound, match=r"Place mnist\.npz in .*datasets"):
        bs.load_dataset("mnist")


def test_a_user_function_is_called_and_its_errors_named(blobs):
    assert bs.load_dataset(lambda: blobs).n_train == 81

    def broken():
        raise KeyError("no column")

    with pytest.raises(UserCodeError, match=r"broken raised KeyError: 'no column'"):
        bs.load_dataset(broken)


def pipeline_of(x, y):
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices((x, y))


def test_a_single_pipeline_is_split_and_training_never_sees_what_is_held_out(blobs):
    data = bs.load_dataset(pipeline_of(*blobs))
    fed = {x.tobytes() for x, _ in data.pipeline.as_numpy_iterator()}
    assert len(fed) == 80
    held_out = {x.tobytes() for x in [*data.x_val, *data.x_test]}
    assert len(held_out) == 20
    assert not fed & held_out


def test_a_pair_of_pipelines_is_fed_as_it_is_and_its_digest_ignores_shuffling(blobs):
    x, y = blobs
    train = pipeline_of(x[:80], y[:80]).shuffle(80)
    digests = {bs.load_dataset((train, pipeline_of(x[80:], y[80:]))).meta["sha256"] for _ in range(2)}
    assert len(digests) == 1
    data = bs.load_dataset((train, pipeline_of(x[80:], y[80:])))
    assert (len(data.y_train), len(data.y_val), len(data.y_test)) == (80, 10, 10)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p.repeat(), "finite"),
        (lambda p: p.take(0), "at least one example"),
        (lambda p: p.shuffle(100), "shuffles itself"),
    ],
)
def test_a_pipeline_that_cannot_be_used_is_refused(blobs, change, message):
    with pytest.raises(InvalidInput, match=message):
        bs.load_dataset(change(pipeline_of(*blobs)))
