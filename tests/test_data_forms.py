"""The forms in which data may come: each gives the arrays that it stands for, and what it cannot give is refused."""

import logging
import re

import keras
import numpy as np
import pytest
from keras import layers, ops

import batchscape as bs
from batchscape import errors
from batchscape.config import ARRAYS
from batchscape.data import load_whole, pipelines
from batchscape.errors import InvalidInput, UserCodeError
from batchscape.sweep.inputs import SweepInputs
from tests.toys import ENGINES, tf

needs_tensorflow = pytest.mark.tensorflow

N = 60
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, 4)).astype(np.float32)
Y = (np.arange(N) % 3).astype(np.int32)
W = (1 + np.arange(N) % 4).astype(np.float32)
WORDS = np.array(["a cat", "a dog", "the cat", "the ox"] * (N // 4))


@pytest.fixture(autouse=True)
def _told_anew():
    errors._warn_once.cache_clear()


def equal(ours, theirs):
    """Whether two `Data` hold the same arrays in the same structures."""
    ours, theirs = ours.parts(), theirs.parts()
    keras.tree.assert_same_structure(ours, theirs)
    for a, b in zip(keras.tree.flatten(ours), keras.tree.flatten(theirs), strict=True):
        np.testing.assert_array_equal(a, b)
    return True


def refusal_of(source, **options):
    """What the refusal of a source says, in one line that ends in what was received."""
    with pytest.raises(InvalidInput) as caught:
        bs.load_dataset(source, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert "Received: " in message
    return message


class Batches(keras.utils.PyDataset):
    """Arrays in batches of 7, shuffled and disturbed at each epoch where asked."""

    def __init__(self, *arrays, shuffle=False, noise=0.0):
        super().__init__()
        self.arrays, self.noise = arrays, noise
        self.rng = np.random.default_rng(1) if shuffle else None
        self.on_epoch_end()

    def __len__(self):
        return -(-self.n // 7)

    def __getitem__(self, index):
        rows = self.order[7 * index : 7 * index + 7]
        batch = keras.tree.map_structure(lambda array: array[rows], self.arrays)
        if self.noise:
            batch = batch[0] + self.noise * RNG.normal(size=batch[0].shape), *batch[1:]
        return batch

    def __call__(self):
        raise AssertionError("It is no function.")

    def on_epoch_end(self):
        self.n = len(keras.tree.flatten(self.arrays)[0])
        self.order = np.arange(self.n) if self.rng is None else self.rng.permutation(self.n)


class Loader:
    """Batches as PyTorch's `DataLoader` gives them: lists, by iteration alone, with a length."""

    def __init__(self, *arrays):
        self.arrays = arrays

    def __len__(self):
        return 6

    def __iter__(self):
        return ([array[10 * i : 10 * i + 10] for array in self.arrays] for i in range(100))


def batched(*arrays):
    return tf.data.Dataset.from_tensor_slices(arrays if len(arrays) > 1 else arrays[0]).batch(7)


def test_sample_weights_are_split_with_their_examples_and_change_the_digest():
    data, without = bs.load_dataset((X, Y, W)), bs.load_dataset((X, Y))
    assert equal(bs.load_dataset((X, Y)), without)
    for part in ("train", "val", "test"):
        x, y, sample_weight = data.examples(part)
        rows = [int(np.flatnonzero((row == X).all(axis=1))[0]) for row in x]
        np.testing.assert_array_equal(y, Y[rows])
        np.testing.assert_array_equal(sample_weight, W[rows])
    assert data.sample_weight_train.dtype == np.float32
    digests = {bs.load_dataset(source).meta["sha256"] for source in ((X, Y), (X, Y, W), (X, Y, 2 * W), X)}
    assert len(digests) == 4


def test_digests_without_weights_are_those_of_earlier_versions():
    """The names of runs hang on them."""
    assert (
        bs.load_dataset("digits").meta["sha256"] == "13efa6c64d8e462f1b9b7eda4036a5cdf63bf878aa6baa5780bcbc399e5a7c09"
    )
    x, y = np.arange(200.0).reshape(100, 2), np.arange(100) % 3
    tree = bs.load_dataset(({"a": x, "b": [x, x[:, 0]]}, y))
    assert tree.meta["sha256"] == "cb466cb7853a04662e186b4d75bafec52424e5a92849ccefdc9892a4b3681822"


@pytest.mark.parametrize("source", [X, (X,), (X, None), {"x": X}], ids=["array", "tuple", "None", "dict"])
def test_inputs_alone_need_no_targets(source):
    data = bs.load_dataset(source)
    assert [len(data.examples(part)) for part in ("train", "val", "test")] == [1, 1, 1]
    assert (data.n_train, data.meta["num_classes"]) == (49, None)


def test_lists_and_dicts_are_several_inputs_and_outputs():
    data = bs.load_dataset(([X, X[:, :2]], {"label": Y, "size": X[:, :1]}, {"label": W, "size": 2 * W}))
    assert [leaf.shape for leaf in data.x_train] == [(49, 4), (49, 2)]
    assert data.y_test["label"].shape == (6,)
    np.testing.assert_array_equal(data.sample_weight_val["size"], 2 * data.sample_weight_val["label"])
    assert data.meta["num_classes"] is None
    fewer = bs.load_dataset(([X, X], [Y, Y], W), train_size=10)
    assert [len(leaf) for leaf in keras.tree.flatten(fewer.examples("train"))] == [10] * 5


def test_two_parts_are_training_and_test_and_three_have_validation_between():
    first, second, third = ((X[rows], Y[rows], W[rows]) for rows in (slice(40), slice(40, 50), slice(50, 60)))
    data = bs.load_dataset((first, third))
    np.testing.assert_array_equal(data.x_test, X[50:])
    assert len(data.y_val) == 4
    data = bs.load_dataset((first, second, third))
    assert equal(data, bs.load_dataset((first, second, third), validation_split=0.3, split="last"))
    for part, rows in (("train", slice(40)), ("val", slice(40, 50)), ("test", slice(50, 60))):
        for ours, theirs in zip(data.examples(part), (X, Y, W), strict=True):
            np.testing.assert_array_equal(ours, theirs[rows])


def test_the_last_examples_are_held_out_in_order():
    data = bs.load_dataset((X, Y), validation_split=0.2, split="last")
    for part, rows in (("train", slice(38)), ("val", slice(38, 48)), ("test", slice(48, 60))):
        np.testing.assert_array_equal(data.split(part)[0], X[rows])
    given = bs.load_dataset(((X[:50], Y[:50]), (X[50:], Y[50:])), split="last")
    np.testing.assert_array_equal(given.x_val, X[45:50])
    fewer = bs.load_dataset(lambda: (X, Y), validation_split=0.2, split="last", train_size=8)
    np.testing.assert_array_equal(fewer.x_train, X[30:38])
    assert equal(bs.load_dataset((X, Y), split="last"), bs.load_dataset(Batches(X, Y), split="last"))


def test_fixed_parts_are_not_split_otherwise(tmp_path):
    assert "'digits' with validation_split=0.2" in refusal_of("digits", validation_split=0.2)
    assert "leave them out" in refusal_of("digits", split="last")
    assert "between 0 and 0.5" in refusal_of((X, Y), validation_split=0.5)
    assert "Unknown split" in refusal_of((X, Y), split="first")
    np.savez(tmp_path / "my.npz", x_train=X[:50], y_train=Y[:50], x_test=X[50:], y_test=Y[50:])
    data = bs.load_dataset(tmp_path / "my.npz", validation_split=0.2, split="last")
    np.testing.assert_array_equal(data.x_val, X[40:50])
    np.testing.assert_array_equal(data.x_test, X[50:])


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (([X[:50], Y[:50]], [X[50:], Y[50:]]), "give tuples, as in ((x_train, y_train), (x_test, y_test))"),
        ((X, {"a": Y, "b": Y[:-1]}), "equal lengths"),
        ((X, Y, W[:-1]), "equal lengths"),
        ((X, Y, -W), "at least 0"),
        ((X, Y, W * np.nan), "sample weights of arrays must be finite"),
        ((X, None, W), "weigh the losses of targets"),
        ((X, {"a": Y, "b": Y}, {"a": W}), "one for each output"),
        (((X, Y), (X, Y, W)), "the same inputs, targets and sample weights"),
        (((X, Y), (X[:, :2], Y)), "equal shapes"),
        (((X, Y), (X, Y), (X[:, :2], Y)), "equal shapes"),
        (((X, Y),) * 4, "a tuple of 4"),
        (((X, Y), (X * np.nan, Y), (X, Y)), "The validation inputs of arrays must be finite"),
        ((X, Y, W, W), "a tuple of 4"),
        ([X, Y], "give (x, y) as a tuple"),
        ((), "Data must come as"),
        (({}, Y), "at least one array of inputs"),
        ((X, list(Y)), "make arrays of lists"),
        ((X, WORDS), "np.unique(y, return_inverse=True)"),
        ((X, Y + np.int64(2**40)), "Whole numbers must fit 32 bits"),
        ((x for x in X), "A generator says no length"),
        (lambda: ((x, y) for x, y in zip(X, Y, strict=True)), "A generator says no length"),
        ((Batches(X), Y), "must be arrays"),
        (Batches(X, Y, W, W), "4 parts in batch 0"),
        (Loader(X, Y[:-1]), "The arrays of a batch must have equal lengths"),
        (Batches(X[:0], Y[:0]), "at least one"),
        (Batches(X, Y, shuffle=True), "leave out shuffling"),
    ],
)  # fmt: skip
def test_what_cannot_be_trained_on_is_refused_in_one_line(source, message):
    options = {"split": "last"} if "shuffling" in message else {}
    assert message in refusal_of(source, **options)


def test_a_function_that_yields_is_refused_like_its_generator():
    def load():
        yield X, Y

    assert "A generator says no length" in refusal_of(load)


def test_sparse_arrays_are_refused_with_the_way_to_make_them_dense():
    from scipy import sparse

    assert "x.toarray()" in refusal_of((sparse.csr_matrix(X), Y))


@needs_tensorflow
def test_ragged_and_sparse_tensors_are_refused_with_the_way_to_make_them_dense():
    ragged = tf.ragged.stack([X[0, :2], X[0]])
    sparse = tf.sparse.from_dense(X)
    for x, remedy in ((ragged, "to_tensor()"), (sparse, "tf.sparse.to_dense")):
        assert remedy in refusal_of((x, Y))
        dataset = tf.data.Dataset.from_tensor_slices(x)
        assert remedy in refusal_of(dataset)
        assert remedy in refusal_of(dataset.batch(2))


def test_the_weights_of_classes_are_those_of_fit():
    class_weight = {0: 1.0, 1: 5.0, 2: 0.25}
    data = bs.load_dataset((X, Y), class_weight=class_weight)
    np.testing.assert_array_equal(data.sample_weight_test, [class_weight[label] for label in data.y_test.tolist()])

    def build():
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        return model

    cell = bs.Cell(batch_size="full", epochs=1, learning_rate=0.1, engine="stock")
    record, model = bs.fit_one(cell, build=build, data=data), build()
    model.set_weights(record.weights["initial"])
    model.optimizer.learning_rate = 0.1
    model.fit(data.x_train, data.y_train, class_weight=class_weight, batch_size=data.n_train, verbose=0)
    for ours, theirs in zip(record.weights["final"], model.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_weights_of_classes_multiply_weights_of_examples_and_take_one_hot_labels():
    plain = bs.load_dataset((X, Y), class_weight={1: 5})
    assert set(plain.sample_weight_train[plain.y_train != 1]) == {1}
    one_hot = bs.load_dataset((X, np.eye(3, dtype=np.float32)[Y]), class_weight={1: 5})
    np.testing.assert_array_equal(one_hot.sample_weight_train, plain.sample_weight_train)
    both = bs.load_dataset((X, Y, W), class_weight={1: 5})
    given = bs.load_dataset((X, Y, W)).sample_weight_train
    np.testing.assert_array_equal(both.sample_weight_train, given * plain.sample_weight_train)
    assert bs.load_dataset("digits", class_weight={3: 2}).sample_weight_val.max() == 2
    assert bs.load_dataset(Batches(X, Y), class_weight={1: 5}).sample_weight_val.max() == 5
    binary = bs.load_dataset((X, (Y > 0).astype(np.float32)[:, None]), class_weight={1: 5})
    assert set(binary.sample_weight_train) == {1, 5}


@pytest.mark.parametrize(
    ("source", "class_weight", "message"),
    [
        ((X, Y), {7: 2}, "must name labels of the data, 0 … 2. Received: 7"),
        ((X, Y), {"a": 2}, "must name labels"),
        ((X, Y), {1: -1}, "at least 0"),
        ((X, Y), [1, 2, 3], "a dict of weights by label"),
        ((X, X), {1: 2}, "integer or one-hot labels"),
        ((X, [Y, Y]), {1: 2}, "one output"),
        (X, {1: 2}, "no targets"),
    ],
)
def test_weights_that_fit_no_class_are_refused(source, class_weight, message):
    assert message in refusal_of(source, class_weight=class_weight)


def test_a_data_that_says_little_of_itself_is_filled_in():
    parts = {f"{field}_{part}": array for part in ("train", "val", "test") for field, array in (("x", X), ("y", Y))}
    data = bs.load_dataset(bs.data.Data(**parts, meta={}), class_weight={0: 2})
    assert {"name", "preprocessing", "num_classes", "loss", "sha256"} <= set(data.meta)
    assert (data.meta["num_classes"], data.sample_weight_test.max()) == (3, 2)
    assert "60 train" in repr(data)
    cell = bs.Cell(model="mlp", epochs=1, engine="stock")
    build = lambda: keras.Sequential([keras.Input((4,)), layers.Dense(3)])  # noqa: E731
    assert bs.fit_one(cell, build=build, data=data).final["updates"] == 2


@pytest.mark.parametrize(
    "arrays", [(X,), (X, Y), (X, Y, W), ({"a": X, "b": X[:, :1]}, [Y, Y]), (X.astype(np.float64), Y.astype(np.int64))]
)
def test_batches_are_undone(arrays, caplog):
    expected = bs.load_dataset(arrays)
    with caplog.at_level(logging.INFO, logger="batchscape"):
        assert equal(bs.load_dataset(Batches(*arrays)), expected)
    assert re.search(r"Read 60 examples \(0\.\d+ MB\) from Batches into memory", caplog.text)
    assert bs.load_dataset(Batches(*arrays)).meta["sha256"] == expected.meta["sha256"]
    if tf and not isinstance(arrays[0], dict):
        assert equal(bs.load_dataset(batched(*arrays)), expected)
        assert equal(bs.load_dataset(Loader(*arrays)), expected)


def test_parts_may_come_in_batches():
    first, second = (X[:40], Y[:40]), (X[40:], Y[40:])
    assert equal(bs.load_dataset((Batches(*first), Batches(*second))), bs.load_dataset((first, second)))
    assert equal(bs.load_dataset((Batches(*first), second)), bs.load_dataset((first, second)))
    triple = (first, second, second)
    assert equal(bs.load_dataset([Batches(*part) for part in triple]), bs.load_dataset(triple))


def test_a_loader_must_give_as_many_batches_as_it_says():
    class Short(Loader):
        def __len__(self):
            return 101

    class Endless(keras.utils.PyDataset):
        num_batches = None

        def __getitem__(self, index):
            return X, Y

    class Broken(Batches):
        def __getitem__(self, index):
            raise OSError("no such image")

    class Rows(Loader):
        def __iter__(self):
            return zip(X, Y, strict=True)

    assert "Received: 100 of 101 from Short" in refusal_of(Short(X[:0], Y[:0]))
    assert "must say how many it gives" in refusal_of(Endless())
    assert "as a DataLoader does" in refusal_of(Rows())
    with pytest.raises(UserCodeError, match="The batches of Broken raised OSError: no such image"):
        bs.load_dataset(Broken(X, Y))


def test_batches_of_different_lengths_are_padded_at_the_end(caplog):
    lengths = 1 + np.arange(N) // 12

    class Padded(Batches):
        def __getitem__(self, index):
            x, y, length = super().__getitem__(index)
            return np.where(np.arange(5) < length[:, None], x, 0)[:, : length.max()], y

    x = np.concatenate([X, X[:, :1]], axis=1)
    expected = np.where(np.arange(5) < lengths[:, None], x, 0)
    assert equal(bs.load_dataset(Padded(x, Y, lengths)), bs.load_dataset((expected, Y)))
    assert caplog.text.count("Batches of Padded have different lengths") == 1
    first, second = ([array[rows] for array in (x, Y, lengths)] for rows in (slice(40), slice(40, 60)))
    data = bs.load_dataset((Padded(*first), Padded(*second)))
    assert equal(data, bs.load_dataset(((expected[:40], Y[:40]), (expected[40:], Y[40:]))))
    assert "Training and test examples have different lengths" in caplog.text


def test_a_source_that_shuffles_itself_is_put_in_one_order(caplog):
    source = Batches(X, Y, shuffle=True)
    first, second = bs.load_dataset(source), bs.load_dataset(source)
    assert equal(first, second)
    assert first.meta["sha256"] == second.meta["sha256"]
    rows = {(*x, y) for part in ("train", "val", "test") for x, y in zip(*first.split(part), strict=True)}
    assert rows == {(*x, y) for x, y in zip(X, Y, strict=True)}
    assert caplog.text.count("shuffles itself") == 1


def test_of_a_source_that_augments_one_pass_is_kept_and_told(caplog):
    assert bs.load_dataset(Batches(X, Y, shuffle=True, noise=0.1)).n_train == 49
    assert "random augmentation" in caplog.text
    assert ".unbatch()" in caplog.text
    assert bs.load_dataset(Batches(X, Y, noise=0.1), split="last").y_test.tolist() == Y[54:].tolist()


@needs_tensorflow
def test_datasets_of_batches_that_shuffle_keep_their_names():
    def source(seed):
        return tf.data.Dataset.from_tensor_slices((X, Y)).shuffle(N, seed=seed).batch(7)

    digests = {bs.load_dataset(source(seed)).meta["sha256"] for seed in (0, 1)}
    assert len(digests) == 1


@needs_tensorflow
def test_batches_of_a_fixed_size_are_undone_too():
    dataset = tf.data.Dataset.from_tensor_slices((X, Y))
    batches = dataset.batch(15, drop_remainder=True).prefetch(1)
    assert equal(bs.load_dataset(batches), bs.load_dataset((X, Y)))
    assert bs.load_dataset(batches).pipeline is None
    assert bs.load_dataset(batches.unbatch()).pipeline is not None


@needs_tensorflow
def test_padded_batches_of_words_are_padded_with_empty_ones():
    words = tf.ragged.constant([text.split() for text in WORDS] + [["one", "of", "three"]])
    dataset = tf.data.Dataset.from_tensor_slices((words, np.arange(N + 1)))
    dataset = dataset.map(lambda x, y: (x.to_tensor() if isinstance(x, tf.RaggedTensor) else x, y)).padded_batch(8)
    data = bs.load_dataset(dataset, split="last")
    assert data.x_test[-1].tolist() == [b"one", b"of", b"three"]
    assert data.x_train[0].tolist() == [b"a", b"cat", b""]


@needs_tensorflow
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p.batch(7).repeat(), "must be finite"),
        (lambda p: p.batch(7).take(0), "at least one"),
        (lambda p: p.window(5), "must give tensors"),
        (lambda p: p.map(lambda x, y: (tf.py_function(lambda x: x, [x], tf.float32), y)), "must say the ranks"),
        (lambda p: p.map(lambda x, y: (x[: y + 1], y)), "padded_batch"),
    ],
)
def test_datasets_without_fixed_examples_are_refused(change, message):
    dataset = tf.data.Dataset.from_tensor_slices((X, Y))
    assert message in refusal_of(change(dataset))


@needs_tensorflow
@pytest.mark.parametrize("limit", ["MOST_EXAMPLES", "MOST_BYTES"])
def test_a_dataset_of_unknown_length_is_read_up_to_a_limit(monkeypatch, limit):
    def endless():
        while True:
            yield X, Y

    spec = tf.TensorSpec((None, 4)), tf.TensorSpec((None,), tf.int32)
    dataset = tf.data.Dataset.from_generator(endless, output_signature=spec)
    assert equal(bs.load_dataset(dataset.take(1)), bs.load_dataset((X, Y)))
    monkeypatch.setattr(pipelines, limit, 1000)
    assert "must end within" in refusal_of(dataset)


@needs_tensorflow
def test_unbatched_pipelines_may_give_weights_or_inputs_alone():
    for arrays in ((X, Y, W), X):
        pipeline = tf.data.Dataset.from_tensor_slices(arrays)
        data = bs.load_dataset(pipeline, split="last")
        np.testing.assert_array_equal(data.x_test, X[54:])
        assert len(data.examples("train")) == (3 if isinstance(arrays, tuple) else 1)
        assert len(list(data.pipeline)) == 48
    weighed = bs.load_dataset((tf.data.Dataset.from_tensor_slices((X, Y, W)), (X, Y, W)))
    np.testing.assert_array_equal(weighed.sample_weight_train, W)
    assert weighed.pipeline is not None
    assert "in memory" in refusal_of(weighed, class_weight={1: 2})
    build = lambda: keras.Sequential([keras.Input((4,)), layers.Dense(3)])  # noqa: E731
    record = bs.fit_one(bs.Cell(epochs=1, loss="sparse_categorical_crossentropy"), build=build, data=weighed)
    assert record.facts["engine"] == "dataset"


def lookup(data):
    """A classifier of words that looks them up."""
    words = layers.TextVectorization(max_tokens=10, output_sequence_length=2)
    words.adapt(data.x_train)
    model = keras.Sequential([keras.Input((), dtype="string"), words, layers.Embedding(10, 4), layers.Flatten()])
    model.add(layers.Dense(3))
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


@needs_tensorflow
@pytest.mark.parametrize("engine", ["auto", *ENGINES])
@pytest.mark.parametrize("xla", [pytest.param(True, marks=pytest.mark.xla), False], ids=["XLA", "no XLA"])
def test_strings_train(engine, xla):
    cell = bs.Cell(batch_size=7, epochs=2, learning_rate=0.5, engine=engine)
    record = bs.fit_one(cell, build=lookup, data=(WORDS, Y))
    assert record.facts["engine"] == ("fused" if engine == "auto" else engine)
    assert not record.facts["jit"]
    assert record.curves["train_loss"][-1] < record.curves["train_loss"][0]


@needs_tensorflow
@pytest.mark.xla
def test_integers_that_are_looked_up_train_where_xla_is_on():
    def build(data):
        ids = layers.IntegerLookup(vocabulary=[2**40, 3, 5])
        model = keras.Sequential([keras.Input((1,), dtype="int64"), ids, layers.Embedding(4, 3), layers.Flatten()])
        model.add(layers.Dense(3))
        return model

    x = np.array([2**40, 3, 5])[Y][:, None]
    data = bs.load_dataset((x, Y))
    assert data.x_train.dtype == np.int64
    loss = "sparse_categorical_crossentropy"
    record = bs.fit_one(bs.Cell(epochs=2, loss=loss, learning_rate=0.5), build=build, data=data)
    assert (record.facts["engine"], record.facts["jit"]) == ("fused", False)


@needs_tensorflow
def test_strings_become_utf8_bytes_and_travel_in_files(tmp_path):
    given = [WORDS, WORDS.astype(object), np.char.encode(WORDS, "utf-8"), np.array(["Äpfel"] * N, object)]
    for x in given:
        data = bs.load_dataset((x, Y))
        assert data.x_train.dtype.kind == "S"
        stored = bs.data.files.write(data, tmp_path).load()
        np.testing.assert_array_equal(stored.x_train, data.x_train)
    assert data.x_train[0].decode() == "Äpfel"
    assert "dtype object" in refusal_of((np.array(["a", None] * (N // 2), object), Y))
    cell = bs.Cell(batch_size=20, epochs=1, engine="fused")
    frame = bs.run_sweep([cell], store=tmp_path / "store", build=lookup, data=(WORDS, Y), show_progress=False)
    assert frame["status"].tolist() == ["COMPLETE"]


@pytest.mark.jax
def test_strings_and_long_ids_are_refused_on_jax():
    assert "Strings need TensorFlow" in refusal_of((WORDS, Y))
    assert "must fit 32 bits" in refusal_of((Y.astype(np.int64) + 2**40, Y))


def test_a_source_that_can_be_called_is_no_function():
    inputs = SweepInputs(None, Batches(X, Y))
    cell = inputs.label(bs.Cell())
    assert cell.dataset == ARRAYS
    assert inputs.data_of(cell).n_train == 49
    assert bs.data.function_of(Batches(X, Y)) is None
    assert SweepInputs(None, lambda: (X, Y)).label(bs.Cell()).dataset.endswith("<lambda>")


def test_inputs_alone_train_what_makes_its_loss_itself():
    class Autoencoder(keras.Model):
        def __init__(self):
            super().__init__()
            self.code, self.back = layers.Dense(2), layers.Dense(4)

        def call(self, x):
            found = self.back(self.code(x))
            self.add_loss(ops.mean(ops.square(found - x)))
            return found

    def build(data):
        model = Autoencoder()
        model(data.x_train[:1])
        model.compile("sgd")
        return model

    record = bs.fit_one(bs.Cell(batch_size=10, epochs=3, learning_rate=0.1), build=build, data=Batches(X))
    assert record.curves["train_loss"][-1] < record.curves["train_loss"][0]


@pytest.mark.parametrize(
    ("source", "message"),
    [(X, "no targets from arrays"), ((X, [Y, Y]), "several outputs"), (({"x": X}, Y), "take one input array")],
)
def test_named_models_refuse_forms_that_they_have_no_output_for(source, message):
    with pytest.raises(InvalidInput, match=message):
        bs.fit_one(bs.Cell(model="mlp", epochs=1), data=source)


@pytest.mark.tensorflow
def test_pipelines_of_doubles_with_other_inputs_have_other_names():
    names = {
        bs.load_dataset(tf.data.Dataset.from_tensor_slices((x.astype(np.float64), Y))).meta["sha256"]
        for x in (X, X + 1, X.copy())
    }
    assert len(names) == 2


def test_a_model_that_is_only_measured_is_measured_on_all_rows_given():
    data = load_whole((X, Y))
    for split in ("train", "val", "test"):
        np.testing.assert_array_equal(data.split(split)[0], X)
    pair = load_whole(((X, Y), (X[:7], Y[:7])))
    assert (pair.n_train, len(pair.y_test)) == (len(Y), 7)
    assert load_whole("digits").meta["sha256"] == bs.load_dataset("digits").meta["sha256"]


def test_a_data_of_ones_own_is_checked():
    meta = {"name": "mine"}
    good = {"x_train": X, "y_train": Y, "x_val": X, "y_val": Y, "x_test": X, "y_test": Y, "meta": meta}
    assert bs.load_dataset(bs.Data(**good)).n_train == len(Y)
    for changes, message in (
        ({"y_train": Y[:5]}, "must have equal lengths"),
        ({"x_val": X[:, :1]}, "must have equal shapes"),
        ({"y_test": None}, "must have the same inputs, targets"),
        ({"x_train": np.full_like(X, np.nan)}, "must be finite"),
        ({"sample_weight_train": -W, "sample_weight_val": W, "sample_weight_test": W}, "must be at least 0"),
    ):
        with pytest.raises(InvalidInput, match=message):
            bs.load_dataset(bs.Data(**{**good, **changes}))


def test_targets_that_are_none_among_others_are_refused():
    assert "leave out those of outputs without a loss" in refusal_of((X, [None, Y]))


@pytest.mark.tensorflow
def test_batches_that_were_zipped_are_batches():
    parts = [tf.data.Dataset.from_tensor_slices(array).batch(4, drop_remainder=True) for array in (X, Y)]
    data = bs.load_dataset(tf.data.Dataset.zip(tuple(parts)))
    assert data.x_train.shape[1:] == X.shape[1:]
