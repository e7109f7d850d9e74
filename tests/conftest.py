"""What all tests share: one thread, quiet TensorFlow, and small data."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "agg")

import pathlib
import re
import sys

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[1]

ON_JAX = os.environ.get("KERAS_BACKEND", "tensorflow") != "tensorflow"

REASONS = {
    "tensorflow": "needs TensorFlow",
    "float64": "Keras computes activations and means in float32 on JAX, whatever their type",
    "jax": "`make test-jax` runs it",
}
"""Marks of tests that one of the backends skips."""

SKIPPED = {"tensorflow", "float64"} if ON_JAX else {"jax"}
"""Marks that this backend skips."""


def pytest_configure(config):
    config.addinivalue_line("markers", "xla: compiles with XLA where the rule says so, as users do")
    config.addinivalue_line("markers", "x64: a file whose float64 JAX is not to round to float32")
    for mark, reason in REASONS.items():
        config.addinivalue_line("markers", f"{mark}: {reason}")


def pytest_collection_modifyitems(items):
    for item in items:
        for mark in SKIPPED & {mark.name for mark in item.iter_markers()}:
            item.add_marker(pytest.mark.skip(reason=REASONS[mark]))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """In CI a check that was skipped, where no mark says that another run makes it, has failed."""
    report = yield
    marked = SKIPPED & {mark.name for mark in item.iter_markers()}
    if report.skipped and not marked and os.environ.get("CI") == "true" and not ON_JAX:
        report.outcome, report.longrepr = "failed", f"{item.nodeid} was skipped in CI: {report.longrepr}"
    return report


@pytest.fixture(scope="session", autouse=True)
def _graphs_as_they_are_traced():
    """TensorFlow's optimiser of graphs takes a tenth of a short training: it is off where XLA is, but in other processes."""
    if not ON_JAX and os.environ.get("BATCHSCAPE_XLA") == "0":
        import tensorflow as tf

        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})


@pytest.fixture(autouse=True)
def _xla_where_it_is_the_subject(request, monkeypatch):
    if request.node.get_closest_marker("xla"):
        monkeypatch.delenv("BATCHSCAPE_XLA", raising=False)


@pytest.fixture(autouse=True, scope="module")
def _float64_where_it_is_the_oracle(request):
    """In files with the mark `x64` JAX computes in float64 what is given in it, as TensorFlow does everywhere."""
    if not (ON_JAX and request.node.get_closest_marker("x64")):
        yield
        return
    import jax

    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


def intervals_in(text):
    """Every "value [low, high]" in a text."""
    return re.findall(r"-?[\d.]+ \[-?[\d.]+, -?[\d.]+\]", text)


def picture_numbers(pictures):
    """What planes show of a run, in words with intervals: means over seeds, by column of the table `pictures`."""
    from batchscape.stats.paired import mean_interval, with_interval

    shares = {name: pictures[name] for name in ("on_first_axis", "on_second_axis", "off_plane")}
    found = {name: with_interval(*mean_interval(values)) for name, values in shares.items()}
    for name in ("on_random_plane", "widest_by_narrowest"):
        found[name] = with_interval(*np.exp(mean_interval(np.log(pictures[name]))))
    return found


@pytest.fixture(scope="session")
def digits():
    """The embedded data set."""
    import batchscape as bs

    return bs.load_dataset("digits")


@pytest.fixture(scope="session")
def study():
    """The committed tables of the main job."""
    import batchscape as bs

    return bs.study.Tables.load(ROOT / "figures/data/digits")


@pytest.fixture(scope="session")
def committed_verdicts():
    """What the committed records say of all statements."""
    import batchscape as bs
    from batchscape.study.judge import verdicts_of
    from batchscape.study.tables import STUDIES

    tables = (bs.study.Tables.load(ROOT / name) for name in STUDIES)
    return verdicts_of(frame for table in tables for frame in table.frames.values())


@pytest.fixture(scope="session")
def measured(committed_verdicts):
    """Every "value [low, high]" that the committed records give: in verdicts, as noise scales, as critical batch size."""
    import batchscape as bs
    from batchscape.stats.paired import with_interval
    from batchscape.study.gradient.captions import mean_scale

    noise, mnist = (bs.study.Tables.load(ROOT / f"figures/data/{name}") for name in ("noise", "mnist"))
    scales = [
        mean_scale(frame, epoch)
        for frame in (noise.noise, mnist.mnist, mnist.first_epoch)
        for epoch in frame["epoch"].unique()
    ]
    found = bs.critical_batch_size(noise.targets)
    critical = with_interval(found.b_crit, found.low, found.high)
    seen = picture_numbers(bs.study.Tables.load(ROOT / "figures/data/minima").pictures).values()
    return {*intervals_in(" ".join(found.summary for found in committed_verdicts)), *scales, critical, *seen}


@pytest.fixture
def command(monkeypatch, capfd):
    """Runs the command line in this process; returns its exit status, standard output and standard error."""
    from batchscape import cli

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["batchscape", *map(str, arguments)])
        status = 0
        try:
            cli.main()
        except SystemExit as stop:
            status = stop.code or 0
        return status, *capfd.readouterr()

    return call


@pytest.fixture
def notebook():
    """Runs text as a cell of a notebook, and gives the functions and classes that it defines."""

    def run(text, /, **values):
        space = {"__name__": "__main__", **values}
        exec(compile(text, f"<cell {id(space)}>", "exec"), space)
        return space

    return run


@pytest.fixture
def blobs():
    """Three Gaussian classes in four dimensions, as `load` functions give them; 100 rows leave most batch sizes a tail."""
    rng = np.random.default_rng(0)
    y = np.arange(100) % 3
    return (rng.normal(size=(100, 4)) + y[:, None]).astype(np.float32), y
