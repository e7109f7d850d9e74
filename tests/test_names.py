"""Names of runs: they change with all that could change a result, with nothing else, and never with what was built before."""

import functools
import importlib
import logging
import pathlib
import subprocess
import sys
import threading
import tracemalloc
import types

import keras
import numpy as np
import pytest

import batchscape as bs
from batchscape import usercode
from batchscape.errors import InvalidInput, UserCodeError
from batchscape.models import build as models
from batchscape.models import fingerprint
from batchscape.sweep import tasks
from batchscape.sweep.inputs import SweepInputs
from batchscape.sweep.store import Store
from batchscape.system import usermodules
from batchscape.train.record import Status
from tests.toys import tf

SERIAL = {"executor": "serial", "show_progress": False}
CELLS = {"batch_size": 30, "epochs": 1, "learning_rate": 0.1, "engine": "stock"}

NET = """
import keras
from {package}losses import own_loss
from {package}parts import helper

class Scaled(keras.layers.Layer):
    def call(self, x):
        return 1 * x

class Build:
    width = 3

    def __init__(self, width=3):
        self.width = width

    def __call__(self):
        return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), Scaled(), helper.Shift()])

    def method(self):
        return self()

class Net(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(3)

    def call(self, x):
        return 1 * self.dense(x)

def build(rate=0.1):
    model = Build()()
    model.compile(keras.optimizers.SGD(rate), own_loss)
    return model

def load():
    import {package}rows
    return rows.rows()
"""
FILES = {
    "__init__": "",
    "net": NET,
    "parts/__init__": "",
    "parts/helper": """
import keras

class Shift(keras.layers.Layer):
    def call(self, x):
        from .. import far
        return x + far.SHIFT
""",
    "far": "SHIFT = 0\n",
    "losses": """
import keras

def own_loss(y_true, y_pred):
    return 1 * keras.losses.sparse_categorical_crossentropy(y_true, y_pred, from_logits=True)
""",
    "rows": """
import numpy as np

def rows():
    rng = np.random.default_rng(0)
    return rng.normal(size=(60, 4)).astype("float32"), np.arange(60) % 3
""",
    "unreached": "ANYTHING = 1\n",
}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A package of the user's own, `project.NAME`, whose files may be edited."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    name = f"mine_{tmp_path.name}".replace("-", "_")

    def write(file, text):
        path = tmp_path / name / f"{file}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def edit(file, old, new):
        text = (tmp_path / name / f"{file}.py").read_text()
        assert old in text
        write(file, text.replace(old, new))

    for file, text in FILES.items():
        write(file, text.replace("{package}losses", ".losses").replace("{package}parts", ".parts").replace(
            "import {package}rows", "from . import rows"
        ))  # fmt: skip
    yield types.SimpleNamespace(name=name, edit=edit, write=write, path=tmp_path / name)
    for module in [other for other in sys.modules if other.partition(".")[0] == name]:
        del sys.modules[module]


def digest(spec):
    """The digest of "module:name", as if in a new process."""
    root = spec.partition(".")[0]
    for module in [other for other in sys.modules if other.partition(".")[0] == root]:
        del sys.modules[module]
    importlib.invalidate_caches()
    return fingerprint.of(usercode.resolve(spec, kind="model")).digest


EDITS = {
    "class": ("net:Net", "net", "1 * self.dense", "5 * self.dense"),
    "layer": ("net:build", "net", "1 * x", "5 * x"),
    "helper": ("net:build", "parts/helper", "x + far", "x - far"),
    "what a helper imports in a function": ("net:build", "far", "SHIFT = 0", "SHIFT = 9"),
    "package": ("net:build", "parts/__init__", "", "ANYTHING = 1"),
    "loss in a second file": ("net:build", "losses", "1 * keras", "5 * keras"),
    "what load imports": ("net:load", "rows", "default_rng(0)", "default_rng(1)"),
}


@pytest.mark.parametrize(("function", "file", "old", "new"), EDITS.values(), ids=EDITS)
def test_an_edit_of_a_file_that_is_reached_is_another_name(project, function, file, old, new):
    before = digest(f"{project.name}.{function}")
    assert digest(f"{project.name}.{function}") == before
    project.edit("unreached", "1", "2")
    assert digest(f"{project.name}.{function}") == before
    project.edit(file, old, new) if old else project.write(file, new)
    assert digest(f"{project.name}.{function}") != before


def test_a_name_is_the_same_in_another_process_and_in_another_folder(project, tmp_path, monkeypatch):
    code = (
        "import sys; from batchscape import usercode; from batchscape.models import fingerprint;"
        f"print(fingerprint.of(usercode.resolve('{project.name}.rows:rows', kind='model')).digest)"
    )
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    project.path.rename(elsewhere / project.name)
    monkeypatch.chdir(elsewhere)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=elsewhere)
    (elsewhere / project.name).rename(project.path)
    assert done.stdout.strip() == digest(f"{project.name}.rows:rows")


def test_files_of_python_of_packages_of_environments_and_of_batchscape_are_not_the_users_own(tmp_path):
    environment = tmp_path / "project" / ".venv"
    environment.mkdir(parents=True)
    (environment / "pyvenv.cfg").write_text("")
    for theirs in (np.__file__, threading.__file__, bs.__file__, environment / "lib" / "python3.11" / "some.py"):
        assert not usermodules.is_own(theirs)
    for own in (__file__, tmp_path / "project" / "net.py", tmp_path / "project" / "src" / "net.py"):
        assert usermodules.is_own(own)
    assert usermodules.is_library("google.protobuf")
    assert not usermodules.is_library(__name__)


class Adds:
    """A callable object."""

    def __init__(self, number):
        self.number = number

    def __call__(self):
        return self.number

    def method(self):
        return self.number


class Slotted(dict):
    """An object without a `__dict__`, but with contents."""

    __slots__ = ("number",)


def closing_over(value):
    def build():
        return value

    return build


def with_default(value):
    def build(width=value, *, depth=value):
        return width, depth

    return build


def local_class(value):
    class Net:
        def call(self):
            return value

    return Net


def wrapped(value):
    @functools.lru_cache
    def build():
        return value

    return build


class Times:
    """A decorator with state."""

    def __init__(self, function, times):
        functools.update_wrapper(self, function)
        self.times = times

    def __call__(self):
        return self.times * self.__wrapped__()


def slotted(value):
    made = Slotted(a=1)
    made.number = value
    return made


class Grown(keras.losses.Loss):
    """A loss with state that is not in its configuration."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def call(self, y_true, y_pred):
        return self.factor * keras.ops.mean(y_pred)


def dense(value):
    layer = keras.layers.Dense(2, kernel_initializer=keras.initializers.Constant(value))
    layer.build((None, 2))
    return layer


def cached(value):
    class Net:
        width = functools.cached_property(closing_over(value))

    return Net


KINDS = {
    "closure": closing_over,
    "default": with_default,
    "partial": lambda value: functools.partial(closing_over, value=value),
    "method": lambda value: Adds(value).method,
    "callable object": Adds,
    "slots": slotted,
    "contents": lambda value: Slotted(a=value),
    "class in a function": local_class,
    "decorated": wrapped,
    "dispatched": lambda value: functools.singledispatch(closing_over(value)),
    "cached property": cached,
    "decorated by an object": lambda value: Times(closing_over(1), value),
    "function in a decorator": lambda value: Times(closing_over(value), 1),
    "array": lambda value: closing_over(np.full(3, value)),
    "nested": lambda value: closing_over({"a": [Adds(value), {1, value}]}),
    "state of a loss": Grown,
    "function in a layer": lambda value: keras.layers.Lambda(closing_over(value)),
    "weights": lambda value: closing_over(dense(value)),
    "lambda of one line": lambda value: (lambda: 1, lambda: 2)[value - 1],
}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_the_values_in_a_callable_are_part_of_its_name(kind):
    one, again, other = (fingerprint.of(kind(value)) for value in (1, 1, 2))
    assert one.why_not == ""
    assert one.digest == again.digest != other.digest


def test_what_is_set_from_outside_is_part_of_the_name(project, monkeypatch):
    build = usercode.resolve(f"{project.name}.net:build", kind="model")
    before = fingerprint.of(build).digest
    monkeypatch.setattr(sys.modules[f"{project.name}.net"].Build, "width", 9)
    assert fingerprint.of(build).digest != before


def test_what_is_set_from_outside_in_a_module_of_a_package_is_part_of_the_name(project, monkeypatch):
    project.write(
        "deep", f"import {project.name}.parts.helper\ndef build():\n    return {project.name}.parts.helper.RATE"
    )
    project.write("parts/helper", "RATE = 1")
    build = usercode.resolve(f"{project.name}.deep:build", kind="model")
    before = fingerprint.of(build).digest
    monkeypatch.setattr(sys.modules[f"{project.name}.parts.helper"], "RATE", 2)
    assert fingerprint.of(build).digest != before


MODULE = """
import argparse, dataclasses, functools, json, pathlib, threading, types
import keras
HERE = pathlib.Path(__file__).parent
READ = json.loads((HERE / "config.json").read_text())

@dataclasses.dataclass
class Config:
    rate: float

class Holder:
    CFG = Config(**READ)

CFG = {value}

def build():
    return CFG, HERE
"""
GLOBALS = {
    "object": "Config(**READ)",
    "namespace": "types.SimpleNamespace(**READ)",
    "arguments": "argparse.Namespace(**READ)",
    "partial": "functools.partial(keras.layers.Dropout, **READ)",
    "Keras": "keras.layers.Dropout(**READ)",
    "list of objects": "[Config(**READ)]",
    "attribute of a class": "Holder",
    "beside a lock": "Config((threading.Lock(), READ['rate']))",
}


@pytest.mark.parametrize("value", GLOBALS.values(), ids=GLOBALS)
def test_what_a_module_reads_when_it_is_imported_is_part_of_the_name(project, value):
    project.write("reads", MODULE.replace("{value}", value))
    found = []
    for rate in (0.1, 0.1, 0.2):
        (project.path / "config.json").write_text(f'{{"rate": {rate}}}')
        found.append(digest(f"{project.name}.reads:build"))
    assert found[0] == found[1] != found[2]
    assert fingerprint.of(usercode.resolve(f"{project.name}.reads:build", kind="model")).why_not == ""


@pytest.mark.parametrize(
    ("package", "line"), [("", "from .losses import own_loss"), (".parts", "from ..losses import own_loss")]
)
def test_a_relative_import_in_a_function_of_a_script_is_followed(project, notebook, package, line):
    build = notebook(f"def build():\n    {line}", __package__=project.name + package)["build"]
    assert f"{project.name}.losses" in fingerprint.of(build).files


def test_a_script_is_the_users_own_wherever_it_lies():
    def named(text):
        code = compile(f"lambda: {text}", np.__file__, "eval").co_consts[0]
        return fingerprint.of(types.FunctionType(code, {"__name__": "__main__"})).digest

    assert named("1 * 2") == named("1 * 2") != named("1 * 3")


CELL = """
import keras
from {module} import parts

class Shift(keras.layers.Layer):
    def call(self, x):
        return x + offset

def inner():
    return Shift()

def build():
    from {module}.net import Scaled
    return keras.Sequential([keras.Input((4,)), inner(), keras.layers.Dense(width), Scaled()])

def unrelated():
    return 1
"""


def test_functions_of_a_notebook_are_named_by_their_code_and_by_what_it_reaches(project, notebook):
    text = CELL.format(module=project.name)
    values = {"width": 3, "offset": 1}

    def named(text=text, **changes):
        return fingerprint.of(notebook(text, **values | changes)["build"])

    first = named()
    assert first.why_not == ""
    assert f"{project.name}.losses" in first.files
    same = [named(), named("\n\n" + text), named(text.replace("return 1", "return 2")), named(dense=object())]
    assert {other.digest for other in same} == {first.digest}
    edits = [named(text.replace("x + offset", "x - offset")), named(text.replace("Layer)", "Dense)")), named(width=4)]
    project.edit("net", "1 * x", "5 * x")
    usermodules.reload_edited(f"{project.name}.net")
    edits += [named(offset=2), named()]
    assert len({first.digest, *(other.digest for other in edits)}) == len(edits) + 1


def test_a_lambda_of_a_notebook_in_a_layer_does_not_bring_its_place_into_the_name(digits, notebook):
    text = "def build():\n    return keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Lambda(lambda x: {} * x),"
    text += " keras.layers.Flatten(), keras.layers.Dense(10)])"

    def named(factor):
        build = notebook(text.format(factor), keras=keras)["build"]
        return models.fingerprint(build, digits, "float32").digest

    assert named(1) == named(1) != named(2)


class FunctionalNet(keras.Model):
    """A subclass that is made from inputs and outputs: Keras then changes its bases."""

    def __init__(self):
        inputs = keras.Input((4,))
        super().__init__(inputs, keras.layers.Dense(3)(inputs))


def compiled(optimizer, loss=None):
    def build():
        model = keras.Sequential([keras.Input((4,)), keras.Sequential([keras.layers.Dense(3)])])
        model.compile(
            optimizer(), loss() if loss else "sparse_categorical_crossentropy", metrics=[keras.metrics.Mean()]
        )
        return model

    return build


def twice_a_layer():
    inputs = keras.Input((4,))
    both = keras.layers.Bidirectional(keras.layers.GRU(2))(keras.ops.expand_dims(inputs, -1))
    return keras.Model(inputs, keras.layers.Dense(3)(both))


def with_compiled_part():
    inner = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4)])
    inner.compile(keras.optimizers.Adam(), keras.losses.MeanSquaredError())
    return keras.Sequential([keras.Input((4,)), inner, keras.layers.Dense(3)])


class OwnSGD(keras.optimizers.SGD):
    """An optimizer of the user's own."""


NUMBERED = {
    "sequential": (compiled(keras.optimizers.SGD), "float32"),
    "adam": (compiled(keras.optimizers.Adam), "float32"),
    "own optimizer": (compiled(OwnSGD), "float32"),
    "own loss": (compiled(keras.optimizers.SGD, lambda: Grown(2)), "float32"),
    "mixed_float16": (compiled(keras.optimizers.Adam), "mixed_float16"),
    "functional subclass": (FunctionalNet, "float32"),
    "wrapped layer": (twice_a_layer, "float32"),
    "compiled part": (with_compiled_part, "float32"),
}


def test_models_and_optimizers_that_were_made_before_do_not_change_a_name(blobs):
    data = bs.load_dataset(blobs)

    def all_of_them():
        return {name: models.fingerprint(build, data, precision) for name, (build, precision) in NUMBERED.items()}

    keras.backend.clear_session()
    first = all_of_them()
    keras.optimizers.Adam()
    assert all_of_them() == first
    assert {found.why_not for found in first.values()} == {""}
    assert len({found.digest for found in first.values()}) == len(NUMBERED)


def test_weights_that_a_build_reads_from_a_file_are_part_of_the_name(tmp_path, blobs):
    file = tmp_path / "pretrained.npz"

    def build():
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4), keras.layers.Dense(3)])
        model.layers[0].set_weights([np.load(file)["kernel"], np.zeros(4)])
        return model

    data, found = bs.load_dataset(blobs), []
    for value in (1.0, 1.0, 2.0):
        np.savez(file, kernel=np.full((4, 4), value))
        found.append(models.fingerprint(build, data, "float32").digest)
    assert found[0] == found[1] != found[2]


def number():
    return float(pathlib.Path("number").read_text())


class Reads(keras.layers.Layer):
    """A layer that does nothing, with a part that depends on a file."""

    def __init__(self, make):
        super().__init__()
        self.part = make()

    def build(self, input_shape):
        self.built = True

    def call(self, x):
        return x


class Drops(keras.layers.Layer):
    """A layer with a layer, of which the configuration that Keras makes tells nothing."""

    def __init__(self):
        super().__init__()
        self.drop = keras.layers.Dropout(number() / 10)

    def call(self, x):
        return self.drop(x)


class ReadsNet(keras.Model):
    """A subclass, of which Keras knows no configuration."""

    def __init__(self):
        super().__init__()
        self.drop = keras.layers.Dropout(number() / 10)
        self.dense = keras.layers.Dense(3, kernel_regularizer=keras.regularizers.L2(number()))

    def call(self, x):
        return self.dense(self.drop(x))


class Weighted(keras.losses.Loss):
    """A loss with a tensor."""

    def __init__(self):
        super().__init__()
        self.weights = keras.ops.convert_to_tensor([number()])

    def call(self, y_true, y_pred):
        return keras.ops.mean(y_pred) * self.weights


def with_layer(make):
    return lambda: keras.Sequential([keras.Input((4,)), Reads(make), keras.layers.Dense(3)])


def compiled_with(**make):
    def build():
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        model.compile(**{"loss": "sparse_categorical_crossentropy"} | {name: part() for name, part in make.items()})
        return model

    return build


def frozen():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4), keras.layers.Dense(3)])
    model.layers[0].bias.trainable = number() > 1
    return model


READING = {
    "layers of a subclass": ReadsNet,
    "layer in a layer": lambda: keras.Sequential([keras.Input((4,)), Drops(), keras.layers.Dense(3)]),
    "tensor": with_layer(lambda: keras.ops.convert_to_tensor(number())),
    "functions in a list": with_layer(lambda: [closing_over(number())]),
    "functions in a dictionary": with_layer(lambda: {"a": closing_over(number())}),
    "tensor of a loss": compiled_with(loss=Weighted),
    "loss weights": compiled_with(loss_weights=lambda: [number()]),
    "frozen weight": frozen,
}


@pytest.mark.parametrize("build", READING.values(), ids=READING)
def test_what_a_build_reads_from_a_file_is_part_of_the_name(tmp_path, monkeypatch, blobs, build):
    monkeypatch.chdir(tmp_path)
    data, found = bs.load_dataset(blobs), []
    for text in "112":
        pathlib.Path("number").write_text(text)
        found.append(models.fingerprint(build, data, "float32"))
    assert found[0] == found[1]
    assert found[0].digest != found[2].digest
    assert found[0].why_not == ""


@pytest.mark.skipif(tf is None, reason="of TensorFlow")
def test_the_words_that_a_lookup_layer_was_adapted_to_are_part_of_the_name(tmp_path, monkeypatch, blobs):
    def table():
        layer = keras.layers.StringLookup()
        layer.adapt([str(number())])
        return layer

    test_what_a_build_reads_from_a_file_is_part_of_the_name(tmp_path, monkeypatch, blobs, with_layer(table))


def test_the_state_of_metrics_and_optimizers_is_not_in_the_name():
    metric, optimizer = keras.metrics.Mean(), OwnSGD(0.1, momentum=0.9)
    before = fingerprint.of(closing_over([metric, optimizer])).digest
    metric.update_state([1.0])
    weight = keras.Variable([1.0])
    optimizer.build([weight])
    optimizer.apply([keras.ops.ones(1)], [weight])
    assert fingerprint.of(closing_over([metric, optimizer])).digest == before


def test_a_large_array_is_not_copied_to_be_named(monkeypatch):
    array = np.arange(4_000_000.0).reshape(2000, 2000)
    names = {fingerprint.of(array).digest, fingerprint.of(array.T.copy().T).digest}
    monkeypatch.setattr(fingerprint, "SLICE", 1_000_000)
    tracemalloc.start()
    names |= {fingerprint.of(array).digest, fingerprint.of(array[::1]).digest}
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(names) == 1
    assert peak < array.nbytes / 4


def test_a_keras_file_is_named_by_its_content_wherever_it_is(tmp_path, blobs):
    data, found = bs.load_dataset(blobs), []
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    for name, factor in (("a", 1), ("b", 2)):
        model.set_weights([factor * np.ones((4, 3)), np.zeros(3)])
        file = tmp_path / f"{name}.keras"
        model.save(file)
        (tmp_path / f"copy_of_{name}.keras").write_bytes(file.read_bytes())
        for path in (file, tmp_path / f"copy_of_{name}.keras"):
            found.append(models.fingerprint(models.find_builder(str(path)), data, "float32").digest)
    assert found[0] == found[1] != found[2] == found[3]


UNFOLLOWED = {
    "lock": (lambda _: closing_over(threading.Lock()), "a value of type _thread.lock"),
    "file": (lambda _: closing_over(open(__file__)), "TextIOWrapper"),  # noqa: SIM115
    "generator": (lambda _: closing_over(i for i in range(3)), "generator"),
    "exec": (lambda notebook: notebook("def build():\n    exec(text)", text="1")["build"], r"build calls exec\(\)"),
    "import": (
        lambda notebook: notebook("def build():\n    return importlib.import_module(name)", importlib=importlib)[
            "build"
        ],
        r"calls import_module\(\)",
    ),
}
FOLLOWED = {
    "logger": logging.getLogger("mine"),
    "module": np,
    "built in": len,
    "NumPy": np.tanh,
    "Keras": keras.activations.relu,
    "type": dict[str, int],
    "generator of numbers": np.random.default_rng(0),
    "bound method of a library": [].append,
    "dispatcher of a library": tf.nn.gelu if tf else np.mean,
}


@pytest.mark.parametrize(("make", "reason"), UNFOLLOWED.values(), ids=UNFOLLOWED)
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # The open file of a closure is never closed.
def test_what_cannot_be_followed_is_said_and_has_no_name_twice(make, reason, notebook):
    found = fingerprint.of(make(notebook))
    assert len({found.name, found.name, found.digest}) == 3
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(found.why_not)


@pytest.mark.parametrize("value", FOLLOWED.values(), ids=FOLLOWED)
def test_what_a_library_offers_is_followed(value):
    assert fingerprint.of(closing_over(value)).why_not == ""


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("import importlib\nnet = importlib.import_module('.net'[1:])", r"calls import_module\(\)"),
        ("exec(open(__file__).read())", r"calls exec\(\)"),
        ("def half(:", "has no readable Python source"),
    ],
)
def test_a_file_that_hides_what_it_runs_cannot_be_followed(project, text, reason):
    project.write("far", text)
    assert [why for why in usermodules.reached([f"{project.name}.net"]).reasons if project.name in why]
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(usermodules.reached([f"{project.name}.net"]).reasons[0])
    project.write("far", "import importlib\nmodel = importlib.import_module('json').loads('{}').eval\nSHIFT = 0")
    assert usermodules.reached([f"{project.name}.net"]).reasons == ()


def test_runs_of_what_cannot_be_followed_are_not_used_again_and_a_line_says_why(tmp_path, blobs, caplog):
    lock = threading.Lock()

    def build():
        with lock:
            return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])

    grid = bs.Grid(seed=[0], **CELLS)
    for _ in range(2):
        frame = bs.run_sweep(grid, store=tmp_path, build=build, data=blobs, **SERIAL)
    assert len(Store(tmp_path).hashes()) == 2
    assert set(frame["status"]) == {"COMPLETE"}
    assert caplog.text.count("its runs are not used again, for a value of type _thread.lock cannot be followed") == 2

    def other():
        with lock:
            return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, use_bias=False)])

    given = tmp_path, frame["hash"], "curvature", bs.measure_curvature
    assert len(bs.measure_runs(*given, build=build, data=blobs, **SERIAL)) == 1  # What could be followed is the same.
    other.__qualname__ = build.__qualname__
    (tmp_path / "measurements").rename(tmp_path.parent / f"{tmp_path.name}_measured")
    with pytest.raises(InvalidInput, match="give the same build and data as to run_sweep"):
        bs.measure_runs(*given, build=other, data=blobs, **SERIAL)


def test_a_process_that_lives_on_runs_what_the_files_say_now(project):
    """The helper of a helper is edited while the module that is named is not: what runs must be what is named."""
    spec, x = f"{project.name}.net:build", np.zeros((1, 4), np.float32)

    def shift():
        model = usercode.resolve(spec, kind="model")()
        model.layers[0].set_weights([np.zeros((4, 3)), np.zeros(3)])
        return float(np.max(model(x)))

    given = usercode.resolve(spec, kind="model")
    assert shift() == 0.0
    project.edit("far", "SHIFT = 0", "SHIFT = 9")
    assert shift() == 9.0
    project.edit("parts/helper", "x + far", "x - far")
    assert shift() == -9.0
    assert fingerprint.of(given).digest == fingerprint.of(usercode.resolve(spec, kind="model")).digest
    project.edit("parts/helper", "x - far", "x * far")
    with pytest.raises(UserCodeError, match="helper was edited after it was imported: reload it"):
        fingerprint.of(given)
    assert fingerprint.of(usercode.resolve(spec, kind="model")).why_not == ""


def test_an_edited_loss_in_a_second_file_is_another_run_with_another_result(project, tmp_path):
    cell = bs.Cell(model=f"{project.name}.net:build", dataset=f"{project.name}.net:load", **CELLS)
    first, again = (bs.run_sweep(cell, store=tmp_path / "store", **SERIAL) for _ in range(2))
    project.edit("losses", "1 * keras", "5 * keras")
    edited = bs.run_sweep(cell, store=tmp_path / "store", **SERIAL)
    assert first["hash"].item() == again["hash"].item() != edited["hash"].item()
    assert edited["train_loss"].item() > 2 * first["train_loss"].item()
    assert bs.fit_one(cell).hash == edited["hash"].item()


def test_a_worker_process_does_not_run_what_was_edited_after_the_runs_were_named(project, blobs):
    cell = bs.Cell(model=f"{project.name}.net:build", **CELLS)
    sources, store = SweepInputs(None, blobs), Store(project.path.parent / "store")
    cell = sources.label(cell)
    sources.check(cell, store)
    with store.workspace() as workspace:
        source = sources.for_workers(cell, workspace)
        source.build_model("float32")
    project.edit("losses", "1 * keras", "5 * keras")
    with pytest.raises(UserCodeError, match="losses was edited while the runs were made"):
        source.build_model("float32")
    run = "aa11000000000000"
    assert tasks.train(tasks.Task({cell: run}, source, store, 1.0, 1, {run: None})) == {run: Status.FAILED}
    sources.local(cell).build_model("float32")  # In this process the functions are those that were named.


def test_a_run_that_a_callback_or_given_weights_change_has_a_name_of_its_own(blobs):
    def build():
        return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])

    weights = [np.ones((4, 3), np.float32), np.zeros(3, np.float32)]
    given = [{}, {"callbacks": [keras.callbacks.TerminateOnNaN()]}, {"initial_weights": weights}]
    assert len({bs.fit_one(bs.Cell(**CELLS), build=build, data=blobs, **more).hash for more in given}) == 3


def test_a_partial_stands_in_records_under_the_name_of_what_is_inside():
    assert usercode.name_of(functools.partial(functools.partial(closing_over), 1)) == f"{__name__}:closing_over"


def base():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(5, "relu")])
    model.set_weights([np.full((4, 5), 0.5), np.full(5, 0.25)])
    return model


SHARED = {
    "base": lambda given: lambda: keras.Sequential([given, keras.layers.Dense(3)]),
    "layer": lambda given: lambda: keras.Sequential([keras.Input((4,)), given.layers[0], keras.layers.Dense(3)]),
    "model": lambda given: lambda: given,
}


@pytest.mark.parametrize("wrap", SHARED.values(), ids=SHARED)
def test_builds_that_share_a_variable_are_refused_and_what_they_share_is_left_as_it_was(tmp_path, blobs, wrap):
    given = base()
    before = given.get_weights()
    for attempt in (
        lambda: bs.run_sweep(bs.Cell(**CELLS), store=tmp_path / "store", build=wrap(given), data=blobs, **SERIAL),
        lambda: bs.fit_one(bs.Cell(**CELLS), build=wrap(given), data=blobs),
    ):
        with pytest.raises(UserCodeError, match="must make all variables anew at each call: build or load inside it"):
            attempt()
    for a, b in zip(before, given.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not (tmp_path / "store").exists()


def test_an_adapted_normalization_may_stand_in_every_model_and_its_moments_are_in_the_name(tmp_path, blobs):
    """Training leaves it as it is, and Keras' guides adapt it once, before the model is made."""
    normalization = keras.layers.Normalization()

    def build():
        return keras.Sequential([keras.Input((4,)), normalization, keras.layers.Dense(3)])

    def names():
        return set(bs.run_sweep(bs.Cell(**CELLS), store=tmp_path / "store", build=build, data=blobs, **SERIAL)["hash"])

    normalization.adapt(np.asarray(blobs[0]))
    moments = normalization.get_weights()
    first = names()
    assert names() == first
    for a, b in zip(moments, normalization.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    normalization.adapt(3 * np.asarray(blobs[0]))
    assert not names() & first


@pytest.mark.long
def test_two_runs_of_one_cell_from_a_copied_base_are_equal_to_the_bit_in_one_process_and_in_two(tmp_path, blobs):
    given = base()
    before = given.get_weights()

    def build():
        copy = keras.models.clone_model(given)
        copy.set_weights(given.get_weights())
        return keras.Sequential([copy, keras.layers.Dropout(0.3), keras.layers.Dense(3)])

    grid = bs.Grid(seed=[3], **CELLS)
    here = {"executor": "serial", "show_progress": False}
    there = {"executor": "processes", "workers": 1, "show_progress": False}
    stores = [Store(tmp_path / name) for name in "abc"]
    for store, how in zip(stores, (here, here, there), strict=True):
        bs.run_sweep(grid, store=store, build=build, data=blobs, **how)
    for run in stores[0].hashes():
        records = [store.load(run) for store in stores]
        for weights in zip(*(record.weights["final"] for record in records), strict=True):
            np.testing.assert_array_equal(weights[0], weights[1])
            np.testing.assert_array_equal(weights[0], weights[2])
    for a, b in zip(before, given.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.skipif(tf is None, reason="of TensorFlow")
def test_a_function_that_tensorflow_compiles_is_named_by_the_function_inside():
    one, other = (tf.function(closing_over(value)) for value in (1, 2))
    assert fingerprint.of(one).digest != fingerprint.of(other).digest
