"""Data sets: the embedded digits, Keras' own, `.npz` files, arrays and a user's `load` function, all as one `Data`."""

import contextlib
import dataclasses
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
from batchscape.data import arrays, batches, forms, pipelines, splits, weights
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
        return splits.count(self.x_train)

    def split(self, name: str) -> tuple[Any, Any]:
        """Inputs and targets of `"train"`, `"val"` or `"test"`."""
        _check_split(name)
        return getattr(self, f"x_{name}"), getattr(self, f"y_{name}")

    def examples(self, name: str) -> tuple:
        """`(x,)`, `(x, y)` or `(x, y, sample_weight)` of `"train"`, `"val"` or `"test"`: what there is, as `fit` takes it."""
        parts = *self.split(name), getattr(self, f"sample_weight_{name}")
        return tuple(part for part in parts if part is not None)

    def parts(self) -> list[tuple]:
        """(x, y, sample_weight) of the training, validation and test examples, None where there is none."""
        return [(*self.split(name), getattr(self, f"sample_weight_{name}")) for name in ("train", "val", "test")]

    def __repr__(self) -> str:
        shape = optree.tree_map(lambda array: array.shape[1:], self.x_train)
        train, val, test = (splits.count(x) for x in (self.x_train, self.x_val, self.x_test))
        sizes = f"{train} train, {val} validation, {test} test"
        return f"Data({self.meta['name']}: {sizes}; inputs {shape}; {self.meta['preprocessing']})"


def _check_split(name: str) -> None:
    if name not in ("train", "val", "test"):
        raise unknown_name("split", name, ("train", "val", "test"))


def load_dataset(
    source: Any = "digits",
    *,
    train_size: int | None = None,
    validation_split: float = 0.1,
    split: str = "stratified",
    class_weight: Mapping[int, float] | None = None,
) -> Data:
    """Load a data set and split it, always in the same way.

    Args:
        source: One of

            - a name: `"digits"` (1,797 handwritten digits shipped with scikit-learn; 1,280 / 257 / 260), `"mnist"`,
              `"fashion_mnist"` (50,000 / 10,000 / 10,000), `"cifar10"` (45,000 / 5,000 / 10,000), `"cifar10_5k"` (its
              first 5,000 training and 1,000 test images; 4,500 / 500 / 1,000);
            - the path of an `.npz` file in the layout of Keras' `mnist.npz`;
            - `(x, y)`, `(x, y, sample_weight)` or `x` alone, an array, a dict of arrays or `(x,)`; x and y may be dicts and
              lists of arrays, for several inputs and outputs, and x may hold strings (on TensorFlow);
            - a `tf.data.Dataset` of batches, a `keras.utils.PyDataset`, or anything else with a length that gives batches
              of these, such as a PyTorch `DataLoader`: read once into memory, and batched anew at each batch size;
            - an unbatched `tf.data.Dataset` of examples: training is fed from it as it is; of a pair of them, half of the
              test examples become the validation part;
            - a tuple of two of these, training and test, or of three, training, validation and test, as in
              `((x_train, y_train), (x_test, y_test))`;
            - a `Data`; a function, called without arguments, that returns any of these, or `"package.module:function"`.
        train_size: Number of training examples to keep, held out like the others (see `split`); None for all of them.
        validation_split: Share of the examples held out for validation, and for test, in (0, 0.5), where the source gives
            none.
        split: `"stratified"`, drawn at random, by label where the labels allow it; or `"last"`, for series in time: the last
            examples are the test part, those before them the validation part, and `train_size` keeps the last.
        class_weight: What the loss of an example counts, by label, for integer or one-hot labels of one output; others
            count 1. The weights apply to all parts, validation and test too, though `evaluate` has no such argument, and
            are multiplied with sample weights that were given.

    Returns:
        A `Data`. Images are float32 in [0, 1] (divided by 16 for digits, by 255 elsewhere), not standardised, with a
        channel axis; a user's arrays keep their values, with float64 made float32, and strings made UTF-8 bytes.

    Raises:
        InvalidInput: For unknown names, unequal lengths, NaN, labels too far apart to be classes, and sources without an end.
        DataNotFound: If the data are not here and cannot be downloaded; the message names the file to place.
        UserCodeError: If the user's function, or source, is missing or raises.

    Example:
        >>> load_dataset("digits")
        Data(digits: 1280 train, 257 validation, 260 test; inputs (8, 8, 1); pixels / 16, in [0, 1])
        >>> x = np.arange(20.0)[:, None]
        >>> load_dataset((x, 2 * x), split="last").x_test.ravel()
        array([18., 19.], dtype=float32)
    """
    rule = splits.Holdout(validation_split, split)
    data = _load(source, rule)
    if class_weight is not None:
        data = _weigh(data, class_weight)
    return data if train_size is None else _keep(data, train_size, rule)


def load_whole(source: Any = "digits") -> Data:
    """Load a data set for a model that is only measured: no example of the user's is held out of the training part.

    Args:
        source: Anything `load_dataset` takes.

    Returns:
        A `Data`. Where the source gives no other parts, validation and test are all examples too; data sets with fixed
        parts keep them.
    """
    return _load(source, splits.Whole())


def _load(source: Any, rule: splits.Holdout) -> Data:
    if isinstance(source, (str, os.PathLike)):
        return _load_named(str(source), rule)
    if is_function(source):
        return from_user(usercode.call(source, what="load"), rule, name=usercode.name_of(source))
    return from_user(source, rule, name=ARRAYS)


def is_function(source: Any) -> bool:
    """Whether a source of data is a function to call; a loader that can also be called is none."""
    return callable(source) and not batches.is_loader(source)


def function_of(source: Any) -> Callable | None:
    """The user's function that a source of data is or names; None for any other source."""
    if isinstance(source, str) and ":" in source and not source.endswith(".npz"):
        return usercode.resolve(source, kind="dataset")
    return source if is_function(source) else None


def _load_named(name: str, rule: splits.Holdout) -> Data:
    if name.endswith(".npz"):
        return _from_npz(pathlib.Path(name), rule)
    if ":" in name:
        return _load(usercode.resolve(name, kind="dataset"), rule)
    if name not in DATASETS:
        raise unknown_name("dataset", name, DATASETS)
    if rule not in (splits.Holdout(), splits.Whole()):
        raise InvalidInput(
            "validation_split and split are for data that come without fixed parts; leave them out for this one. "
            f"Received: {name!r} with validation_split={rule.fraction:g}, split={rule.how!r}"
        )
    if name == "digits":
        return _load_digits()
    n_val = {"mnist": 10_000, "fashion_mnist": 10_000, "cifar10": 5_000, "cifar10_5k": 500}[name]
    (x_train, y_train), (x_test, y_test) = _from_keras(name)
    train, test = (arrays.part_of((_as_images(x), y.ravel())) for x, y in ((x_train, y_train), (x_test, y_test)))
    parts = [*splits.Holdout().hold_out(train, n_val), test]
    return _finish(parts, name=name, preprocessing=PIXELS, loss=CROSSENTROPY)


def _load_digits() -> Data:
    from sklearn import datasets

    digits = datasets.load_digits()
    x = (digits.images / 16).astype(np.float32)[..., None]
    train, test = splits.Holdout().hold_out(arrays.part_of((x, digits.target)), 260)
    parts = [*splits.Holdout().hold_out(train, 257), test]
    return _finish(parts, name="digits", preprocessing="pixels / 16, in [0, 1]", loss=CROSSENTROPY)


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
        with open(file, "rb") as stream, np.load(stream, allow_pickle=False) as stored:
            if missing := [key for key in required if key not in stored]:
                raise InvalidInput(f"{file} must hold the arrays {', '.join(required)}. Missing: {', '.join(missing)}")
            x_train, y_train, x_test, y_test = (stored[key] for key in required)
    except BatchscapeError:
        raise
    except Exception as error:
        raise InvalidInput(f"{file} cannot be read as an .npz file of plain arrays: {error}") from error
    return (x_train, y_train), (x_test, y_test)


def _from_npz(file: pathlib.Path, rule: splits.Holdout) -> Data:
    (x_train, y_train), (x_test, y_test) = _read_npz(file)
    pixels = x_train.dtype == np.uint8 and x_train.ndim in (3, 4)
    prepare = _as_images if pixels else np.asarray
    train, test = (arrays.part_of((prepare(x), _flat_labels(y))) for x, y in ((x_train, y_train), (x_test, y_test)))
    arrays.check(train, "training", file.name)
    loss = CROSSENTROPY if np.issubdtype(train[1].dtype, np.integer) and train[1].ndim == 1 else None
    parts = [*rule.hold_out(train), test]
    return _finish(parts, name=file.name, preprocessing=PIXELS if pixels else "as given", loss=loss)


def _flat_labels(y: np.ndarray) -> np.ndarray:
    """Labels of shape (n, 1), as CIFAR stores them, as shape (n,)."""
    return y[:, 0] if y.ndim == 2 and y.shape[1] == 1 and np.issubdtype(y.dtype, np.integer) else y


def from_user(given: Any, rule: splits.Holdout, *, name: str) -> Data:
    """A `Data` from anything that a user's `load` may return."""
    if isinstance(given, Data):
        return _completed(given, name)
    parts, pipeline = forms.parts_of(given, rule, name)
    how = "as given" if pipeline is None else "as given, from tf.data"
    return _finish(parts, name=name, preprocessing=how, pipeline=pipeline)


def _completed(data: Data, name: str) -> Data:
    """A user's own `Data`, checked, with what its `meta` lacks."""
    parts = data.parts()
    if data.pipeline is None:
        parts = [optree.tree_map(np.asanyarray, part) for part in parts]  # What is mapped into memory stays so.
        for part, which in zip(parts, ("training", "validation", "test"), strict=True):
            arrays.check(part, which, name)
        arrays.check_structures(parts, name)
        arrays.check_shapes(parts, name)
        data = dataclasses.replace(data, **_fields(parts))
    meta = {"name": name, "preprocessing": "as given", "loss": None, **data.meta}
    if "num_classes" not in meta:
        meta["num_classes"] = arrays.num_classes([y for _, y, _ in parts])
    if data.pipeline is None or "sha256" not in meta:
        meta["sha256"] = _sha256(parts, data.pipeline)
    return dataclasses.replace(data, meta=meta)


def _as_images(pixels: np.ndarray) -> np.ndarray:
    images = pixels.astype(np.float32) / 255
    return images[..., None] if images.ndim == 3 else images


def _finish(parts: list[tuple], *, name: str, preprocessing: str, loss: str | None = None, pipeline=None) -> Data:
    """Check the three parts and describe them."""
    for part, which in zip(parts, ("training", "validation", "test"), strict=True):
        arrays.check(part, which, name)
    arrays.check_structures(parts, name)
    arrays.check_shapes(parts, name)
    parts = arrays.equal_widths(parts)
    meta = {
        "name": name,
        "preprocessing": preprocessing,
        "num_classes": arrays.num_classes([y for _, y, _ in parts]),
        "loss": loss,
        "sha256": _sha256(parts, pipeline),
    }
    return Data(**_fields(parts), meta=meta, pipeline=pipeline)


def _fields(parts: list[tuple]) -> dict[str, Any]:
    """The fields of a `Data` that hold arrays, from the three parts."""
    return {
        f"{field}_{split}": tree
        for split, part in zip(("train", "val", "test"), parts, strict=True)
        for field, tree in zip(("x", "y", "sample_weight"), part, strict=True)
    }


def _sha256(parts: list[tuple], pipeline: Any) -> str:
    return arrays.sha256(parts) if pipeline is None else pipelines.sha256(pipeline, parts)


def _weigh(data: Data, class_weight: Mapping[int, float]) -> Data:
    """The same data with the weights of classes in the sample weights."""
    if data.pipeline is not None:
        raise InvalidInput(
            "class_weight needs data in memory: batch the tf.data.Dataset, or let it give (x, y, sample_weight). "
            "Received: an unbatched tf.data.Dataset"
        )
    return _with_parts(data, weights.weigh(data.parts(), class_weight))


def _keep(data: Data, train_size: int, rule: splits.Holdout) -> Data:
    """The same data with a subset of the training examples."""
    if data.pipeline is not None:
        raise InvalidInput("train_size needs arrays; use take() on your tf.data.Dataset instead.")
    if not 1 <= train_size <= data.n_train:
        raise InvalidInput(f"train_size must be in 1..{data.n_train} for {data.meta['name']}. Received: {train_size}")
    if train_size == data.n_train:
        return data
    train, *others = data.parts()
    return _with_parts(data, [rule.hold_out(train, train_size)[1], *others])


def _with_parts(data: Data, parts: list[tuple]) -> Data:
    """The data with other arrays, and the digest of these."""
    return dataclasses.replace(data, **_fields(parts), meta={**data.meta, "sha256": arrays.sha256(parts)})
