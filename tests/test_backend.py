"""The choice of a backend, and what is said of a GPU that nobody uses."""

import os
import subprocess
import sys
import types

import pytest

from batchscape import backend
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
    with pytest.raises(InvalidInput, match=r"must be tensorflow or jax. Received: torch"):
        backend.name()
    monkeypatch.setattr("keras.backend.backend", lambda: "jax")
    with pytest.raises(InvalidInput, match=r"workers needs TensorFlow. Received: KERAS_BACKEND=jax"):
        backend.needs_tensorflow("workers")


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
