"""Data sets: the embedded digits, Keras' own, `.npz` files, arrays and a user's `load` function, all as one `Data`."""

import contextlib
import dataclasses
import hashlib
import os
import pathlib
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import optree

from batchscape import usercode
from batchscape.backend import keras_home
from batchscape.config import ARRAYS, DATASETS
from batchscape.data import pipelines, splits
from batchscape.errors import BatchscapeError, DataNotFound, InvalidInput, unknown_name

PIXELS = "pixels / 255, in [0, 1]"
CROSSENTROPY = "sparse_categorical_crossentropy"


@dataclasses.dataclass(frozen=True, repr=False)
class Data:
    """Training, validation and test examples, ready for a model.

    Attributes:
        x_train, x_val, x_test: Inputs, arrays of shape (n, ...) or trees of such arrays.
        y_train, y_val, y_test: Targets, shape (n, ...), or trees of such arrays for several outputs; None where there are
            none, as for an autoencoder that makes its loss itself.
        meta: `name`, `preprocessing`, `num_classes` (None for regression), `loss` (None where the model must say),
            and `sha256` of all arrays.
        pipeline: An unbatched `tf.data.Dataset` of the training examples where the user gave one; training is then fed
            from it, in its own order, and `x_train`, `y_train` are one pass over it.
        sample_weight_train, sample_weight_val, sample_weight_test: What the loss of each example counts, shape (n,), or a
            tree of such arrays, one for each output; None where all count alike.
    """

    x_train: Any
    y_train: Any
    x_val: Any
    y_val: Any
    x_test: Any
    y_test: Any
    meta: Mapping[str, Any]
    pipeline: Any = None
    sample_weight_train: Any = None
    sample_weight_val: Any = None
    sample_weight_test: Any = None

    @property
    def n_train(self) -> int:
        """Number of training examples."""
        return n_examples(self.x_train)

    def split(self, name: str) -> tuple[Any, Any]:
        """Inputs and targets of `"train"`, `"val"` or `"test"`."""
        _check_split(name)
        return getattr(self, f"x_{name}"), getattr(self, f"y_{name}")

    def examples(self, name: str) -> tuple:
        """`(x,)`, `(x, y)` or `(x, y, sample_weight)` of `"train"`, `"val"` or `"test"`: what there is, as `fit` takes it."""
        parts = *self.split(name), getattr(self, f"sample_weight_{name}")
        return tuple(part for part in parts if part is not None)

    def __repr__(self) -> str:
        shape = optree.tree_map(lambda array: array.shape[1:], self.x_train)
        train, val, test = (n_examples(x) for x in (self.x_train, self.x_val, self.x_test))
        sizes = f"{train} train, {val} validation, {test} test"
        return f"Data({self.meta['name']}: {sizes}; inputs {shape}; {self.meta['preprocessing']})"


def _check_split(name: str) -> None:
    if name not in ("train", "val", "test"):
        raise unknown_name("split", name, ("train", "val", "test"))


def n_examples(tree: Any) -> int:
    """Number of examples in an array, or in a tree of them."""
    return len(optree.tree_leaves(tree)[0])


def load_dataset(source: Any = "digits", *, train_size: int | None = None) -> Data:
    """Load a data set and split it, always in the same way.

    Args:
        source: One of
            `"digits"` (1,797 handwritten digits shipped with scikit-learn; 1,280 / 257 / 260),
            `"mnist"`, `"fashion_mnist"` (50,000 / 10,000 / 10,000), `"cifar10"` (45,000 / 5,000 / 10,000),
            `"cifar10_5k"` (its first 5,000 training and 1,000 test images; 4,500 / 500 / 1,000),
            the path of an `.npz` file in the layout of Keras' `mnist.npz`,
            `"package.module:function"` or a function, called without arguments, or what such a function returns:
            `(x, y)`, `((x_train, y_train), (x_test, y_test))`, a `Data`, an unbatched `tf.data.Dataset` or a pair of
            them (training, test).
        train_size: Number of training examples to keep (stratified), or None for all of them.

    Returns:
        A `Data`. Images are float32 in [0, 1] (divided by 16 for digits, by 255 elsewhere), not standardised, with a
        channel axis; a user's arrays keep their values, with float64 made float32. Where no validation or test split is
        given, 10 % of the examples are held out for each.

    Raises:
        InvalidInput: For unknown names, unequal lengths, NaN, or labels that are not 0, 1, 2, ...
        DataNotFound: If the data are not here and cannot be downloaded; the message names the file to place.
        UserCodeError: If the user's function is missing or raises.

    Example:
        >>> load_dataset("digits")
        Data(digits: 1280 train, 257 validation, 260 test; inputs (8, 8, 1); pixels / 16, in [0, 1])
    """
    if isinstance(source, (str, os.PathLike)):
        data = _load_named(str(source))
    elif callable(source):
        data = from_user(usercode.call(source, what="load"), name=usercode.name_of(source))
    else:
        data = from_user(source, name=ARRAYS)
    return data if train_size is None else _keep(data, train_size)


def function_of(source: Any) -> Callable | None:
    """The user's function that a source of data is or names; None for any other source."""
    if isinstance(source, str) and ":" in source and not source.endswith(".npz"):
        return usercode.resolve(source, kind="dataset")
    return source if callable(source) else None


def _load_named(name: str) -> Data:
    if name.endswith(".npz"):
        return _from_npz(pathlib.Path(name))
    if ":" in name:
        return load_dataset(usercode.resolve(name, kind="dataset"))
    if name == "digits":
        return _load_digits()
    if name not in DATASETS:
        raise unknown_name("dataset", name, DATASETS)
    n_val = {"mnist": 10_000, "fashion_mnist": 10_000, "cifar10": 5_000, "cifar10_5k": 500}[name]
    (x_train, y_train), (x_test, y_test) = _from_keras(name)
    train, val = splits.hold_out((_as_images(x_train), y_train.ravel()), n_val)
    return _finish(train, val, (_as_images(x_test), y_test.ravel()), name=name, preprocessing=PIXELS, loss=CROSSENTROPY)


def _load_digits() -> Data:
    from sklearn import datasets

    digits = datasets.load_digits()
    x = (digits.images / 16).astype(np.float32)[..., None]
    train, test = splits.hold_out((x, digits.target), 260)
    train, val = splits.hold_out(train, 257)
    return _finish(train, val, test, name="digits", preprocessing="pixels / 16, in [0, 1]", loss=CROSSENTROPY)


def _from_keras(name: str):
    """((x_train, y_train), (x_test, y_test)) of a data set that Keras knows."""
    if name == "cifar10_5k":
        file = keras_home() / "datasets" / "cifar10-5k.npz"
        if file.exists():
            return _read_npz(file)
        (x, y), (x_test, y_test) = _from_keras("cifar10")
        return (x[:5000], y[:5000]), (x_test[:1000], y_test[:1000])
    import keras

    files = {"mnist": "mnist.npz", "fashion_mnist": "fashion-mnist/*.gz", "cifar10": "cifar-10-batches-py-target"}
    try:
        with contextlib.redirect_stdout(sys.stderr):  # Keras shows its download there, where results go.
            return getattr(keras.datasets, name).load_data()
    except Exception as error:
        raise DataNotFound(
            f"{name} is not here and could not be downloaded ({type(error).__name__}). "
            f"Place {files[name]} in {keras_home() / 'datasets'}, or set KERAS_HOME to a folder that holds datasets/."
        ) from error


def _read_npz(file: pathlib.Path):
    required = ("x_train", "y_train", "x_test", "y_test")
    if not file.exists():
        raise DataNotFound(f"No such file: {file}. Place an .npz file with the arrays {', '.join(required)} there.")
    try:
        with open(file, "rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            if missing := [key for key in required if key not in arrays]:
                raise InvalidInput(f"{file} must hold the arrays {', '.join(required)}. Missing: {', '.join(missing)}")
            x_train, y_train, x_test, y_test = (arrays[key] for key in required)
    except BatchscapeError:
        raise
    except Exception as error:
        raise InvalidInput(f"{file} cannot be read as an .npz file of plain arrays: {error}") from error
    return (x_train, y_train), (x_test, y_test)


def _from_npz(file: pathlib.Path) -> Data:
    (x_train, y_train), (x_test, y_test) = _read_npz(file)
    pixels = x_train.dtype == np.uint8 and x_train.ndim in (3, 4)
    prepare = _as_images if pixels else _plain
    train, test = ((prepare(x), _plain(_flat_labels(y))) for x, y in ((x_train, y_train), (x_test, y_test)))
    _check(*train, "training", file.name)
    train, val = splits.hold_out(train, splits.default_size(train))
    loss = CROSSENTROPY if np.issubdtype(train[1].dtype, np.integer) and train[1].ndim == 1 else None
    return _finish(train, val, test, name=file.name, preprocessing=PIXELS if pixels else "as given", loss=loss)


def _flat_labels(y: np.ndarray) -> np.ndarray:
    """Labels of shape (n, 1), as CIFAR stores them, as shape (n,)."""
    return y[:, 0] if y.ndim == 2 and y.shape[1] == 1 and np.issubdtype(y.dtype, np.integer) else y


def from_user(given: Any, *, name: str) -> Data:
    """A `Data` from anything that a user's `load` may return."""
    if isinstance(given, Data):
        return given if given.pipeline is not None else _with_digest(given, given.meta)
    if pipelines.is_pipeline(given) or _is_pair_of(given, pipelines.is_pipeline):
        train, val, test, pipeline = pipelines.read(given)
        return _finish(train, val, test, name=name, preprocessing="as given, from tf.data", pipeline=pipeline)
    if _is_pair_of(given, lambda part: isinstance(part, (tuple, list)) and len(part) == 2):
        if any(isinstance(part, list) for part in given):
            raise InvalidInput(
                "Lists are several inputs and several targets, of which a model may have one: give tuples, as in "
                "((x_train, y_train), (x_test, y_test)), for training and test parts. Received: two lists of two"
            )
        train, test = (_plain(tuple(part)) for part in given)
        _check(*train, "training", name)
    elif isinstance(given, (tuple, list)) and len(given) == 2:
        everything = _plain(tuple(given))
        _check(*everything, "given", name)
        train, test = splits.hold_out(everything, splits.default_size(everything))
    else:
        raise InvalidInput(
            "Data must come as (x, y), ((x_train, y_train), (x_test, y_test)), a batchscape Data, an unbatched "
            f"tf.data.Dataset or a pair of them. Received: {type(given).__name__} from {name}"
        )
    train, val = splits.hold_out(train, splits.default_size(train))
    return _finish(train, val, test, name=name, preprocessing="as given")


def _is_pair_of(given: Any, is_part: Callable[[Any], bool]) -> bool:
    return isinstance(given, (tuple, list)) and len(given) == 2 and all(is_part(part) for part in given)


def _as_images(pixels: np.ndarray) -> np.ndarray:
    images = pixels.astype(np.float32) / 255
    return images[..., None] if images.ndim == 3 else images


def _plain(tree: Any) -> Any:
    """Arrays as NumPy, float64 as float32, int64 and uint64 as int32: what Keras computes with by default."""

    def convert(leaf):
        array = np.asarray(leaf)
        if array.dtype.kind not in "biuf" or array.ndim == 0:
            raise InvalidInput(
                f"Data must be arrays of numbers, one row an example. Received: dtype {array.dtype}, shape {array.shape}"
            )
        if array.dtype.name in ("int64", "uint64") and array.size:
            least, most = int(array.min()), int(array.max())
            if least < -(2**31) or most >= 2**31:
                raise InvalidInput(f"Whole numbers must fit 32 bits. Received: values from {least} to {most}")
        narrow = {"float64": "float32", "int64": "int32", "uint64": "int32"}
        return array.astype(narrow.get(array.dtype.name, array.dtype), copy=False)

    return optree.tree_map(convert, tree)


def _finish(train, val, test, *, name: str, preprocessing: str, loss: str | None = None, pipeline=None) -> Data:
    """Check the three parts and describe them."""
    for part, which in ((train, "training"), (val, "validation"), (test, "test")):
        _check(*part, which, name)
    arrays = [_plain(array) for part in (train, val, test) for array in part]
    shapes = [
        [leaf.shape[1:] for leaf in optree.tree_leaves(part)] for part in zip(arrays[::2], arrays[1::2], strict=True)
    ]
    if shapes[0] != shapes[2]:
        raise InvalidInput(
            f"Training and test examples of {name} must have equal shapes. Received: {shapes[0]} and {shapes[2]}"
        )
    meta = {
        "name": name,
        "preprocessing": preprocessing,
        "num_classes": _num_classes([y for _, y in (train, val, test)]),
        "loss": loss,
        "sha256": _sha256(arrays) if pipeline is None else pipelines.sha256(pipeline, arrays),
    }
    return Data(*arrays, meta=meta, pipeline=pipeline)


def _keep(data: Data, train_size: int) -> Data:
    """The same data with a stratified subset of the training examples."""
    if data.pipeline is not None:
        raise InvalidInput("train_size needs arrays; use take() on your tf.data.Dataset instead.")
    if not 1 <= train_size <= data.n_train:
        raise InvalidInput(f"train_size must be in 1..{data.n_train} for {data.meta['name']}. Received: {train_size}")
    if train_size == data.n_train:
        return data
    _, (x_train, y_train) = splits.hold_out((data.x_train, data.y_train), train_size)
    return _with_digest(dataclasses.replace(data, x_train=x_train, y_train=y_train), data.meta)


def _with_digest(data: Data, meta: Mapping[str, Any]) -> Data:
    """The data with the digest of the arrays they hold now."""
    arrays = [array for split in ("train", "val", "test") for array in data.split(split)]
    return dataclasses.replace(data, meta={**meta, "sha256": _sha256(arrays)})


def _check(x: Any, y: np.ndarray, part: str, name: str) -> None:
    leaves = optree.tree_leaves(x)
    lengths = [len(leaf) for leaf in [*leaves, y]]
    if len(set(lengths)) != 1:
        raise InvalidInput(
            f"Inputs and targets must have equal lengths. Received: {lengths} in the {part} data of {name}"
        )
    if lengths[0] == 0:
        raise InvalidInput(f"Data need at least one example. Received: none in the {part} data of {name}")
    for leaf, what in [*((leaf, "inputs") for leaf in leaves), (y, "targets")]:
        if leaf.dtype.kind == "f" and not np.isfinite(leaf).all():
            bad = np.count_nonzero(~np.isfinite(leaf.reshape(len(leaf), -1)).all(axis=1))
            raise InvalidInput(
                f"The {part} {what} of {name} must be finite. Received: NaN or infinity in {bad} examples"
            )


def _num_classes(targets: list[np.ndarray]) -> int | None:
    """Number of classes of integer or one-hot labels, None for other targets."""
    if splits.is_one_hot(targets[0]):
        return targets[0].shape[1]
    if targets[0].dtype.kind not in "iu":
        return None
    y = np.concatenate([part.reshape(-1) for part in targets])
    if y.min() < 0 or splits.too_far_apart(y):  # Targets of a regression.
        return None
    return int(y.max()) + 1


def _sha256(arrays) -> str:
    digest = hashlib.sha256()
    for leaf in optree.tree_leaves(list(arrays)):
        digest.update(f"{leaf.dtype}{leaf.shape}".encode())
        digest.update(np.ascontiguousarray(leaf).data)
    return digest.hexdigest()
