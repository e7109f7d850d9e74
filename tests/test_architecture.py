"""The rooms: who imports whom, and what stays cheap."""

import ast
import pathlib
import re
import subprocess
import sys

import pytest

import batchscape

ROOT = pathlib.Path(__file__).parents[1]
SOURCE = ROOT / "src" / "batchscape"

MAY_IMPORT = {
    "config": {"errors"},
    "backend": {"errors"},
    "backend_tensorflow": set(),
    "backend_jax": {"errors"},
    "errors": set(),
    "paths": {"errors"},
    "profiles": {"config", "errors"},
    "quiet": {"backend", "errors"},
    "usercode": {"errors"},
    "progress": set(),
    "record": {"backend", "config", "cpu"},
    "tables": {"errors", "paths"},
    "data": {"config", "errors", "usercode"},
    "models": {"backend", "config", "data", "errors", "usercode"},
    "losses": {"data", "errors"},
    "processes": {"quiet"},
    "chunks": {"backend"},
    "definitions": set(),
    "cpu": set(),
    "xla": {"cpu"},
    "train": {
        "backend",
        "chunks",
        "config",
        "data",
        "errors",
        "losses",
        "models",
        "processes",
        "quiet",
        "record",
        "xla",
    },
    "sweep": {
        "backend",
        "config",
        "cpu",
        "data",
        "errors",
        "losses",
        "models",
        "paths",
        "processes",
        "progress",
        "quiet",
        "record",
        "train",
        "usercode",
    },
    "minima": {
        "backend",
        "backend_tensorflow",
        "chunks",
        "cpu",
        "data",
        "errors",
        "losses",
        "progress",
        "record",
        "xla",
    },
    "noise": {"data", "errors", "judge", "minima", "record"},
    "cost": {
        *("backend", "config", "data", "errors", "judge", "losses", "minima", "models", "noise", "paths", "progress"),
        *("processes", "train", "usercode"),
    },
    "judge": {"config", "errors"},
    "draw": {"definitions", "errors", "judge", "noise", "paths", "tables"},
}
"""Which rooms a room may import; what is not listed here (the main job, the command line) may import all of them."""

HEAVY = ("tensorflow", "keras", "pandas", "scipy", "matplotlib", "sklearn")


def room_of(file):
    return file.relative_to(SOURCE).parts[0].removesuffix(".py")


def imports_of(file):
    """Names of all modules that a file imports, at any depth."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("file", sorted(SOURCE.rglob("*.py")), ids=lambda file: str(file.relative_to(SOURCE)))
def test_a_room_imports_only_the_rooms_before_it(file):
    room = room_of(file)
    if room not in MAY_IMPORT:
        return
    inside = [name.split(".") for name in imports_of(file) if name.startswith("batchscape.")]
    known = set(MAY_IMPORT) | {"study", "landscape", "cli"}
    imported = {parts[1] for parts in inside if parts[1] in known} - {room}
    assert imported <= MAY_IMPORT[room], f"{file.name} imports {imported - MAY_IMPORT[room]}"


@pytest.mark.parametrize("room", ["judge", "draw"])
def test_judging_and_drawing_know_no_tensorflow(room):
    for file in (SOURCE / room).glob("*.py"):
        assert not [name for name in imports_of(file) if name.split(".")[0] in ("tensorflow", "keras")]


def imported_at_once(file):
    """Packages that importing a file imports; what a function imports when it is called does not count."""
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module.split(".")[0]


def test_tensorflow_and_jax_are_imported_where_names_say_so():
    helpers = {"example_norms.py", "chunks.py", "xla.py", "accumulate.py", "data_parallel.py"}  # Of TensorFlow's files.
    for file in SOURCE.rglob("*.py"):
        packages = set(imported_at_once(file))
        assert "tensorflow" not in packages or file.stem.endswith("_tensorflow") or file.name in helpers, file
        assert "jax" not in packages or file.stem.endswith("_jax"), file


def test_runs_call_model_fit_in_exactly_one_place():
    """`definitions` counts what stock `model.fit` does, and makes no run."""
    calls = [
        (file.name, node.lineno)
        for file in SOURCE.rglob("*.py")
        if file.name != "definitions.py"
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "fit"
    ]
    assert [name for name, _ in calls] == ["fit.py"]


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
    loaded = modules_after("import batchscape.judge.claims, batchscape.draw.gallery, batchscape.sweep.results")
    assert not loaded & {"tensorflow", "keras"}


def test_public_names_are_listed_and_all_of_them_load():
    assert "run_sweep" in dir(batchscape)
    for name in dir(batchscape):
        assert getattr(batchscape, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        batchscape.nothing  # noqa: B018


def test_every_public_function_says_what_it_does():
    for name in dir(batchscape):
        value = getattr(batchscape, name)
        if callable(value):
            assert value.__doc__, name


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
