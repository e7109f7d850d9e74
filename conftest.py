"""Notebooks run at smoke profile under pytest, unless PROFILE says otherwise, and all tests share one store of smoke runs.

XLA takes seconds to compile what tests run for milliseconds: it is off but in tests with the mark `xla`, and optimises little.
JAX, which always uses it, goes without the emitters of fusions, where it spends half of the time of compiling.
"""

import os
import shutil
import tempfile

os.environ.setdefault("PROFILE", "smoke")
os.environ.setdefault("BATCHSCAPE_XLA", "0")

FLAGS = "--xla_backend_optimization_level=0"
if os.environ.get("KERAS_BACKEND") == "jax":
    FLAGS += " --xla_cpu_use_fusion_emitters=false"
os.environ.setdefault("XLA_FLAGS", FLAGS)


def pytest_configure(config):
    """Make the store in the process that starts the others; these find it in their environment."""
    if "BATCHSCAPE_SMOKE" not in os.environ:
        folder = os.environ["BATCHSCAPE_SMOKE"] = tempfile.mkdtemp(prefix="batchscape-smoke-")
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
