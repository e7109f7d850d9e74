"""The built wheel, installed into an empty environment outside the checkout: it has all that the commands need."""

import ast
import os
import shutil
import site
import subprocess
import sys

import pytest

from tests.conftest import ROOT

pytestmark = [pytest.mark.long, pytest.mark.tensorflow]

TINY = """
import keras

def build():
    return keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10, "softmax")])
"""


def run(*command, cwd):
    """Run a command in a folder that knows nothing of the checkout, and return what it prints."""
    hidden = ("PYTHONPATH", "BATCHSCAPE_HOME", "VIRTUAL_ENV")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    done = subprocess.run([*map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder of the commands of an environment with the wheel, and a folder to be in.

    The packages that it depends on are those of the environment that runs the tests, by a path file: the line that puts the
    checkout on the path of that one is not read from there.
    """
    folder = tmp_path_factory.mktemp("wheel")
    source, environment, elsewhere = folder / "source", folder / "environment", folder / "elsewhere"
    source.mkdir()
    elsewhere.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "src", source / "src", ignore=shutil.ignore_patterns("*.egg-info", "__pycache__"))
    pip = sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"
    run(*pip, "wheel", "--no-deps", "--wheel-dir", folder, source, cwd=folder)
    run(sys.executable, "-m", "venv", "--without-pip", environment, cwd=folder)
    python = environment / "bin" / "python"
    (wheel,) = folder.glob("batchscape-*.whl")
    run(*pip, "--python", python, "install", "--no-deps", "--no-index", wheel, cwd=folder)
    where = run(python, "-c", "import site; print(site.getsitepackages()[0])", cwd=elsewhere).strip()
    with open(os.path.join(where, "dependencies.pth"), "w") as file:
        file.writelines(f"{path}\n" for path in site.getsitepackages())
    return environment / "bin", elsewhere


def test_the_package_is_that_of_the_wheel(installed):
    commands, elsewhere = installed
    where = run(commands / "python", "-c", "import batchscape; print(batchscape.__file__)", cwd=elsewhere)
    assert where.startswith(str(commands.parent))


def test_the_command_says_what_it_can(installed):
    commands, elsewhere = installed
    assert "sweep" in run(commands / "batchscape", "--help", cwd=elsewhere)
    code = "import batchscape, os; print(os.listdir(os.path.dirname(batchscape.__file__)))"
    assert {"py.typed", "__init__.pyi"} <= set(ast.literal_eval(run(commands / "python", "-c", code, cwd=elsewhere)))


def test_a_sweep_and_a_figure_of_it_are_made(installed):
    """The figure shows that the style file travels."""
    commands, elsewhere = installed
    (elsewhere / "tiny.py").write_text(TINY)
    sweep = "sweep --model tiny:build --batch-size 64,128 --seeds 1 --epochs 1 --learning-rate 0.1 --executor serial"
    run(commands / "batchscape", *sweep.split(), "--store", elsewhere / "runs", cwd=elsewhere)
    records = [*(elsewhere / "runs").rglob("*.json")]
    assert sum('"COMPLETE"' in record.read_text() for record in records) == 2
    line = "landscape --between 64 128 --model tiny:build --points 3 --out figures"
    run(commands / "batchscape", *line.split(), elsewhere / "runs", cwd=elsewhere)
    assert [*elsewhere.rglob("*.png")]


def test_the_statements_are_judged(installed):
    """The register travels; the committed tables, which are read here, do not."""
    commands, elsewhere = installed
    tables = ROOT / "figures" / "data" / "digits"
    assert "C42" in run(commands / "batchscape", "claims", "--tables", tables, cwd=elsewhere)
