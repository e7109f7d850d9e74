"""The choice of a backend, and what is said of a GPU that nobody uses."""

import importlib.util
import os
import subprocess
import sys
import types

import pytest

from batchscape import backend, cli
from batchscape.errors import InvalidInput


def backend_after(installed, environment):
    """KERAS_BACKEND after importing batchscape where only these packages are installed."""
    code = f"""
import importlib.util, os
real = importlib.util.find_spec
importlib.util.find_spec = lambda name: (name in {installed} or None) if name in ("tensorflow", "jax") else real(name)
import batchscape
print(os.environ.get("KERAS_BACKEND"))
"""
    given = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"} | environment
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=given)
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("installed", "environment", "chosen"),
    [
        (["jax"], {}, "jax"),
        (["tensorflow", "jax"], {}, "None"),
        (["tensorflow"], {}, "None"),
        ([], {}, "None"),
        (["jax"], {"KERAS_BACKEND": "tensorflow"}, "tensorflow"),
    ],
)
def test_jax_is_chosen_where_it_alone_is_installed_and_nothing_is_said(installed, environment, chosen):
    assert backend_after(installed, environment) == chosen


def test_another_backend_and_what_needs_tensorflow_are_refused_in_one_line(monkeypatch):
    monkeypatch.setattr("keras.backend.backend", lambda: "torch")
    with pytest.raises(InvalidInput, match=r"must run on tensorflow or jax. Received: KERAS_BACKEND=torch"):
        backend.name()
    monkeypatch.setattr("keras.backend.backend", lambda: "jax")
    with pytest.raises(InvalidInput, match=r"devices needs TensorFlow. Received: KERAS_BACKEND=jax"):
        backend.needs_tensorflow("devices")


@pytest.fixture
def keras_home(tmp_path, monkeypatch):
    """A function that writes keras.json into a folder of its own, where nothing else says what the backend is."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    return lambda text: (tmp_path / "keras.json").write_text(text)


@pytest.mark.parametrize(
    ("configuration", "chosen", "message"),
    [
        ("{}", "nonsense", "must run on tensorflow or jax. Received: KERAS_BACKEND=nonsense"),
        ("{}", "torch", "must run on tensorflow or jax. Received: KERAS_BACKEND=torch"),
        ('{"backend": "torch"}', "", "set KERAS_BACKEND to one of them. Received: backend 'torch' in "),
        ('{"backend": "numpy"}', "", "set KERAS_BACKEND to one of them. Received: backend 'numpy' in "),
        ('{"floatx": "float7"}', "", "keras.json must be float16 or float32 or float64. Received: floatx='float7'"),
        ('{"image_data_format": 3}', "", "must be channels_last or channels_first. Received: image_data_format=3"),
    ],
)
def test_a_backend_that_is_not_ours_is_refused_before_keras_is_imported(
    configuration, chosen, message, keras_home, monkeypatch
):
    keras_home(configuration)
    monkeypatch.setenv("KERAS_BACKEND", chosen)
    with pytest.raises(InvalidInput, match=message):
        backend.check()


@pytest.mark.tensorflow
def test_what_keras_can_run_with_passes(keras_home, monkeypatch):
    for configuration in ("{", "[1]", "{}", '{"backend": "tensorflow", "floatx": "float16"}'):
        keras_home(configuration)
        backend.check()
    keras_home('{"backend": "torch"}')
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    backend.check()


def test_a_backend_that_is_not_installed_is_named(keras_home, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InvalidInput, match="Received: KERAS_BACKEND=jax, and jax is not installed"):
        backend.check()


@pytest.mark.parametrize("chosen", ["nonsense", "torch"])
def test_python_code_gets_one_of_our_errors_for_a_backend_that_cannot_be_imported(chosen):
    code = """
import batchscape as bs
from batchscape.errors import BatchscapeError
try:
    bs.run_sweep
except BatchscapeError as error:
    print(error)
"""
    environment = os.environ | {"KERAS_BACKEND": chosen}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout.strip().endswith(f"Received: KERAS_BACKEND={chosen}")


@pytest.mark.parametrize("command", ["sweep", "probe", "advise", "noise", "sharpness net.keras", "reproduce"])
def test_every_command_that_trains_refuses_a_backend_in_one_line(command, monkeypatch, tmp_path, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KERAS_BACKEND", "nonsense")
    monkeypatch.setattr(sys, "argv", ["batchscape", *command.split()])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 2
    assert capfd.readouterr().err == (
        "batchscape: Keras must run on tensorflow or jax. Received: KERAS_BACKEND=nonsense\n"
    )


@pytest.mark.parametrize(
    ("listed", "used", "environment", "said"),
    [
        ("GPU 0: Some Model", None, {}, True),
        ("GPU 0: Some Model", "Some Model", {}, False),
        ("GPU 0: Some Model", None, {"CUDA_VISIBLE_DEVICES": "-1"}, False),
        ("No devices were found", None, {}, False),
    ],
)
def test_a_gpu_that_is_there_but_unused_is_told_of_once(tmp_path, monkeypatch, caplog, listed, used, environment, said):
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\necho '{listed}'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    grown = []
    own = types.SimpleNamespace(first_gpu=lambda: used, let_memory_grow=lambda: grown.append(True))
    monkeypatch.setattr(backend, "own", lambda: own)
    backend.prepare.cache_clear()
    backend.prepare()
    backend.prepare()
    backend.prepare.cache_clear()
    assert grown == [True]
    assert [record.levelname for record in caplog.records] == ["WARNING"] * said
    assert not said or "There is a GPU" in caplog.text
