"""What all tests share: one thread, quiet TensorFlow, and small data."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "agg")

import numpy as np
import pytest


@pytest.fixture(scope="session")
def digits():
    """The embedded data set."""
    import batchscape as bs

    return bs.load_dataset("digits")


@pytest.fixture
def blobs():
    """Three Gaussian classes in four dimensions, as `load` functions give them; 100 rows leave most batch sizes a tail."""
    rng = np.random.default_rng(0)
    y = np.arange(100) % 3
    return (rng.normal(size=(100, 4)) + y[:, None]).astype(np.float32), y
