"""The rooms: who imports whom, and what stays cheap."""

import ast
import graphlib
import pathlib
import re
import subprocess
import sys

import pytest

import batchscape

ROOT = pathlib.Path(__file__).parents[1]
SOURCE = ROOT / "src" / "batchscape"

ROOMS = {
    "errors": "",
    "system": "errors",
    "usercode": "errors system",
    "config": "errors",
    "stats": "errors",
    "backend": "errors system",
    "data": "backend config errors usercode",
    "models": "backend config data errors system usercode",
    "workers": "backend errors system",
    "train": "backend config data errors models system workers",
    "sweep": "backend config data errors models system train usercode workers",
    "landscape": "backend config data errors models sweep system train",
    "gradient": "data errors landscape models stats sweep train",
    "plot": "errors stats system",
    "cost": "backend config data errors gradient landscape models stats system train usercode workers",
    "study": "config cost data errors gradient landscape models plot stats sweep system train workers",
    "cli": "__init__ backend config cost data errors gradient landscape models plot stats study sweep system usercode",
    "__main__": "cli",
    "__init__": "backend",
}
"""Which rooms a room may import, functions and `TYPE_CHECKING` included."""

HEAVY = ("tensorflow", "keras", "pandas", "scipy", "matplotlib", "sklearn")


def module_of(file):
    parts = file.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_of(file): file for file in sorted(SOURCE.rglob("*.py"))}
"""Every file of the package, by the name of its module."""


def imports_of(file):
    """Names of all modules that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file} imports by a relative name"
            inside = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in FILES else node.module for name in inside)


def imported_by(file):
    """Our own modules that a file imports."""
    return {name for name in imports_of(file) if name in FILES and FILES[name] != file}


def room_of(module):
    return module.split(".")[1] if "." in module else "__init__"


def test_a_room_imports_only_the_rooms_below_it():
    wrong = [
        f"{module} imports {other}"
        for module, file in FILES.items()
        for other in imported_by(file)
        if room_of(other) not in {room_of(module), *ROOMS[room_of(module)].split()}
    ]
    assert not wrong


def test_only_its_commands_know_the_study():
    allowed = {"batchscape.cli.study"}
    outside = {module: file for module, file in FILES.items() if room_of(module) != "study"}
    assert {
        module for module, file in outside.items() if any(room_of(other) == "study" for other in imported_by(file))
    } <= allowed


def test_no_room_is_above_itself():
    """The allow lists themselves hold no circle."""
    graphlib.TopologicalSorter({room: below.split() for room, below in ROOMS.items()}).prepare()


def test_no_files_import_each_other_in_a_circle():
    """Imports in functions and under `TYPE_CHECKING` count, and so does what a folder's `__init__` imports."""
    below = {module: imported_by(file) for module, file in FILES.items()}
    graphlib.TopologicalSorter(below).prepare()


def test_judging_and_drawing_know_no_tensorflow():
    training = {"run.py", "count.py"}  # They train, and count what stock Keras does.
    rooms = ("stats", "plot", "study")
    files = [file for room in rooms for file in (SOURCE / room).rglob("*.py") if file.name not in training]
    assert len(files) > 40
    for file in files:
        assert not [name for name in imports_of(file) if name.split(".")[0] in ("tensorflow", "keras")]


def imported_at_once(file):
    """Packages that importing a file imports; what a function imports when it is called does not count."""
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module.split(".")[0]


def test_tensorflow_and_jax_are_imported_where_names_say_so():
    helpers = {"example_norms.py", "xla.py", "micro_batches.py", "data_parallel.py"}  # Of TensorFlow's files.
    for file in SOURCE.rglob("*.py"):
        packages = set(imported_at_once(file))
        assert "tensorflow" not in packages or file.stem.endswith("_tensorflow") or file.name in helpers, file
        assert "jax" not in packages or file.stem.endswith("_jax"), file


PRIVATE_FILES = {"keras_private.py", "tensorflow_private.py", "jax_private.py", "loky_private.py"}
"""Where names stand that other packages do not promise to keep; each has its test in `test_private_names.py`."""

PRIVATE_MODULES = ("keras.src", "tensorflow.python", "jax.core", "jax.experimental")
"""Modules of which they are part; those with an underscore are too."""

UNDOCUMENTED = {"train_function", "jax_state_sync", "device_lib", "make_jaxpr", "eqns", "idf_weights_const", "__get__"}
"""Such names without an underscore."""

OF_PYTHON = {"_exit", "_replace", "_fields", "_asdict"}
"""Names with one that Python documents."""


def defined_in(tree):
    """Every name that a file gives to a function, a class, a variable or an attribute."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, (ast.Name, ast.Attribute)) and isinstance(node.ctx, ast.Store):
            yield node.id if isinstance(node, ast.Name) else node.attr


def private_names_in(tree, ours):
    """What a file uses that other packages do not promise to keep; a name with one underscore is theirs if it is not ours."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            home = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
            names = [name for alias in node.names if not (name := home + alias.name).startswith("batchscape.")]
            yield from (name for name in names if f"{name}.".startswith(tuple(f"{one}." for one in PRIVATE_MODULES)))
            yield from (name for name in names if re.search(r"(^|\.)_[a-z]", name))
        name = ""
        if isinstance(node, ast.Attribute):
            name = node.attr
            if isinstance(node.value, ast.Name) and f"{node.value.id}.{name}" in PRIVATE_MODULES:
                yield f"{node.value.id}.{name}"
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in (
            "getattr",
            "hasattr",
            "setattr",
            "delattr",
        ):
            name = str(getattr(node.args[1], "value", ""))
        if name in UNDOCUMENTED or (re.match("_[a-z]", name) and name not in ours | OF_PYTHON):
            yield name


def test_private_names_of_other_packages_stand_in_their_files_alone():
    trees = {file: ast.parse(file.read_text()) for file in FILES.values()}
    ours = {name for tree in trees.values() for name in defined_in(tree)}
    assert {file.name for file in trees} >= PRIVATE_FILES
    for file, tree in trees.items():
        if file.name not in PRIVATE_FILES:
            assert not [*private_names_in(tree, ours)], file


@pytest.mark.parametrize(
    "line",
    [
        "model._flatten_layers()",
        'getattr(outputs, "_keras_mask", None)',
        "from keras.src import backend",
        "import tensorflow.python.client.device_lib",
        "from tensorflow.python.client import device_lib",
        "keras.src.backend.get_keras_mask(x)",
        "model.train_function = None",
        "type(model).train_step.__get__(model)",
        "isinstance(x, jax.core.Tracer)",
        "from jax import core",
    ],
)
def test_a_private_name_of_another_package_is_seen(line):
    assert [*private_names_in(ast.parse(line), ours={"_own"})]
    sound = "import batchscape._own; self._own; os._exit(1); keras.layers.Dense; row._replace(x=1); kind.__name__"
    assert not [*private_names_in(ast.parse(sound), ours={"_own"})]


def test_runs_call_model_fit_in_exactly_one_place():
    """`study/definitions` counts what stock `model.fit` does, and makes no run."""
    calls = [
        (file.name, node.lineno)
        for file in SOURCE.rglob("*.py")
        if file.parent.name != "definitions"
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "fit"
    ]
    assert [name for name, _ in calls] == ["trainer.py"]


def modules_after(statement):
    """Heavy modules that a fresh interpreter has loaded after a statement."""
    code = f"import sys; {statement}; print(*(name for name in {HEAVY} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_package_and_the_command_line_loads_nothing_heavy():
    assert (
        modules_after("import batchscape, batchscape.cli; batchscape.Cell, batchscape.Grid; dir(batchscape)") == set()
    )


def test_judging_and_drawing_start_without_tensorflow():
    loaded = modules_after("import batchscape.study.judge, batchscape.study.gallery, batchscape.sweep.frames")
    assert not loaded & {"tensorflow", "keras"}


PUBLIC = {"bs": batchscape, "bs.plot": batchscape.plot, "bs.study": batchscape.study}


@pytest.mark.parametrize("package", PUBLIC.values(), ids=PUBLIC)
def test_public_names_are_listed_all_of_them_load_and_every_function_says_what_it_does(package):
    assert len(dir(package)) > 10
    for name in dir(package):
        value = getattr(package, name)
        assert value is not None
        assert value.__doc__ or not callable(value), name


def test_a_name_that_is_none_is_refused_and_the_near_miss_is_offered():
    code = "import batchscape; batchscape.run_swep"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "module 'batchscape' has no attribute 'run_swep'. Did you mean: 'run_sweep'?" in done.stderr


def test_the_surface_is_what_design_promises():
    assert {"InvalidInput", "Plane", "Status", "run_sweep", "plot", "optimizers"} <= set(dir(batchscape))
    assert "contours" in dir(batchscape.plot)
    assert "reproduce" in set(dir(batchscape.study)) - set(dir(batchscape))
    assert not {"make", "attach", "RateTable"} & set(batchscape.optimizers.__all__ + batchscape.schedules.__all__)


def tracked_files():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    return [ROOT / name for name in listed]


def test_nothing_tracked_names_a_place_on_one_machine():
    pattern = re.compile(r"/(?:home|root|work|Users)/\w|/tmp/\w|https?://[\w.]*(?:pypi|proxy|mirror)[\w.]*")
    for file in tracked_files():
        if (
            file.suffix in (".py", ".md", ".toml", ".txt", ".ipynb", ".json", "")
            and file.is_file()
            and file != pathlib.Path(__file__)
        ):
            assert not pattern.search(file.read_text(errors="replace")), file


def test_requirements_pin_every_package_and_end_with_the_project():
    lines = (ROOT / "requirements.txt").read_text().split("\n")
    packages = [line for line in lines if line and not line.startswith("#")]
    assert packages[-1] == "-e ."
    assert all(re.fullmatch(r"[\w.\[\]-]+==[\w.+]+", line) for line in packages[:-1])


def test_each_dependency_has_its_reason():
    text = (ROOT / "pyproject.toml").read_text()
    entries = [line for line in text.splitlines() if re.match(r'\s+"[a-z][\w-]*>=', line)]
    assert len(entries) > 10
    assert all("#" in line for line in entries)
