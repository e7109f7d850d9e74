"""What all tests share: one thread, quiet TensorFlow, and small data."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "agg")

import pathlib
import re

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[1]

REASONS = {
    "tensorflow": "needs TensorFlow",
    "float64": "Keras computes activations and means in float32 on JAX, whatever their type",
}
"""Marks of tests that another backend skips."""


def pytest_configure(config):
    for mark, reason in REASONS.items():
        config.addinivalue_line("markers", f"{mark}: {reason}")


def pytest_collection_modifyitems(items):
    if os.environ.get("KERAS_BACKEND", "tensorflow") != "tensorflow":
        for item in items:
            for mark in REASONS.keys() & {mark.name for mark in item.iter_markers()}:
                item.add_marker(pytest.mark.skip(reason=REASONS[mark]))


def intervals_in(text):
    """Every "value [low, high]" in a text."""
    return re.findall(r"-?[\d.]+ \[-?[\d.]+, -?[\d.]+\]", text)


@pytest.fixture(scope="session")
def digits():
    """The embedded data set."""
    import batchscape as bs

    return bs.load_dataset("digits")


@pytest.fixture(scope="session")
def study():
    """The committed tables of the main job."""
    import batchscape as bs

    return bs.Tables.load(ROOT / "figures/data/digits")


@pytest.fixture(scope="session")
def committed_verdicts():
    """What the committed records say of all statements."""
    import batchscape as bs
    from batchscape.cli import STUDIES
    from batchscape.judge.claims import verdicts_of

    tables = (bs.Tables.load(ROOT / name) for name in STUDIES)
    return verdicts_of(frame for table in tables for frame in table.frames.values())


@pytest.fixture(scope="session")
def measured(committed_verdicts):
    """Every "value [low, high]" that the committed records give: in verdicts, as noise scales, as critical batch size."""
    import batchscape as bs
    from batchscape.draw import gallery

    noise, mnist = (bs.Tables.load(ROOT / f"figures/data/{name}") for name in ("noise", "mnist"))
    scales = [
        gallery.mean_scale(frame, epoch)
        for frame in (noise.noise, mnist.mnist, mnist.first_epoch)
        for epoch in frame["epoch"].unique()
    ]
    found = bs.critical_batch_size(noise.targets)
    critical = gallery.with_interval(found.b_crit, found.low, found.high)
    seen = gallery.picture_numbers(bs.Tables.load(ROOT / "figures/data/minima").pictures).values()
    return {*intervals_in(" ".join(found.summary for found in committed_verdicts)), *scales, critical, *seen}


@pytest.fixture
def blobs():
    """Three Gaussian classes in four dimensions, as `load` functions give them; 100 rows leave most batch sizes a tail."""
    rng = np.random.default_rng(0)
    y = np.arange(100) % 3
    return (rng.normal(size=(100, 4)) + y[:, None]).astype(np.float32), y
