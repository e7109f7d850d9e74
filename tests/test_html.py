"""What a notebook shows is text, never markup: names and reasons come from anybody's files."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from batchscape.config import Cell
from batchscape.cost import advise
from batchscape.cost.limit import Limit
from batchscape.cost.line import fit_line
from batchscape.cost.result import Probe
from batchscape.landscape.plane import Plane
from batchscape.plot import surface_page
from batchscape.study import judge
from batchscape.train.record import Record, Status

SCRIPT = "<script>alert(1)</script>"
LAMBDA = "mynet:make.<locals>.<lambda>"


def record():
    cell = Cell(model=LAMBDA, dataset=f"d:{SCRIPT}")
    return Record(cell=cell, hash="h", status=Status.FAILED, reason=SCRIPT, facts={SCRIPT: SCRIPT, "batch": 8})


def probe():
    batches = np.array([1, 2, 4, 8])
    table = pd.DataFrame({"batch": batches, "ms": 1.0 + batches, "samples_per_second": 1e3, "outcome": SCRIPT})
    facts = {"model": LAMBDA, "data": SCRIPT, "device": "CPU", "n_train": 100}
    line = fit_line(batches, 1.0 + batches)
    return Probe(table, line, line, Limit(8, 9, 9.0, reason=SCRIPT), 10**9, 0.0, SCRIPT, facts)


def advice():
    table = pd.DataFrame({"batch": [8], "advice": [SCRIPT]})
    return advise.Advice(8, 4, 16, None, 32, None, None, table, (SCRIPT, LAMBDA), (), probe())


def verdict():
    claim = dataclasses.replace(next(iter(judge.register().values())), statement=SCRIPT)
    return judge.Verdict(claim, SCRIPT, (), SCRIPT, f"{LAMBDA}, {SCRIPT}")


@pytest.mark.parametrize("make", [record, probe, advice, verdict])
def test_nothing_that_a_result_says_is_markup(make):
    shown = make()._repr_html_()
    assert "<script" not in shown
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in shown


@pytest.mark.parametrize("make", [record, probe, advice, verdict])
def test_the_names_of_nameless_functions_stay_visible(make):
    shown = make()._repr_html_()
    assert "make.&lt;locals&gt;.&lt;lambda&gt;" in shown


def test_what_a_surface_names_is_not_markup(tmp_path):
    side = np.array([-1.0, 0.0, 1.0])
    loss = np.array([[1.0, 2.0, np.nan]] * 3)
    plane = Plane(side, side, loss, loss, (1.0, 1.0), 0.0, marks={SCRIPT: (0.0, 0.0)})
    page = surface_page.surface_html(plane, tmp_path / "surface", unit=SCRIPT, title=SCRIPT).read_text()
    assert "<script>alert(1)" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_a_run_whose_losses_are_no_numbers_has_a_name():
    run = Record(Cell(), "h", Status.COMPLETE, final={"updates": 3, "train_loss": None, "val_loss": 0.5})
    assert "3 updates, val_loss 0.5" in repr(run)
