"""Files are whole or not there: a full or a closed disk ends in one line, whatever is written."""

import errno
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

from batchscape.cli import main
from batchscape.cost import result
from batchscape.errors import StoreError
from batchscape.landscape.load import load_result
from batchscape.landscape.plane import Plane
from batchscape.plot import style, surface_page
from batchscape.study.tables import Tables

CAPTION = style.Caption("A finding.", "A line.", "n = 1.")


def plane():
    side = np.array([-1.0, 0.0, 1.0])
    loss = 1.0 + side**2 + side[:, None] ** 2
    return Plane(side, side, loss, loss, (1.0, 1.0), 0.0)


def save_figure(folder):
    with style.paper():
        figure, ax = plt.subplots()
        ax.plot([0, 1], [0, 1])
        style.save_figure(figure, "fig", folder, caption=CAPTION, about={})


WRITERS = {
    "figure": save_figure,
    "tables": lambda folder: Tables({"runs": pd.DataFrame({"a": [1.0, 2.0]})}, {"profile": "smoke"}).save(folder),
    "plane": lambda folder: plane().save(folder / "plane.npz"),
    "surface": lambda folder: surface_page.surface_html(plane(), folder / "surface.html"),
    "text": lambda folder: result.save_text('{"a": 1}', folder / "probe.json"),
}


def fill(monkeypatch, moment):
    """Every call of a function of `os` fails from now on as on a full disk."""

    def fail(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, moment, fail)


@pytest.mark.parametrize("moment", ["fsync", "replace"])
@pytest.mark.parametrize("kind", WRITERS)
def test_a_disk_that_fills_up_leaves_nothing_half_written(tmp_path, monkeypatch, kind, moment):
    fill(monkeypatch, moment)
    with pytest.raises(StoreError, match="cannot be written: No space left on device"):
        WRITERS[kind](tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", WRITERS)
def test_a_disk_that_fills_up_leaves_the_old_file_as_it_was(tmp_path, monkeypatch, kind):
    WRITERS[kind](tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    fill(monkeypatch, "replace")
    with pytest.raises(StoreError):
        WRITERS[kind](tmp_path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


@pytest.mark.parametrize("kind", WRITERS)
def test_a_place_that_cannot_be_a_folder_is_one_line(tmp_path, kind):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot be (written|made)") as caught:
        WRITERS[kind](tmp_path / "file" / "folder")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "arguments",
    [
        ["landscape", "STORE", "--around", "8", "--out", "FILE"],
        ["landscape", "net.keras", "--out", "FILE"],
        ["advise", "--out", "FILE"],
        ["probe", "--json", "FILE/probe.json"],
        ["probe", "--json", "STORE"],
        ["reproduce", "--profile", "smoke", "--out", "FILE"],
        *(
            ["study", name, "--profile", "smoke", "--tables", "FILE"]
            for name in ("cost", "rates", "gradient", "minima")
        ),
        ["study", "keskar-smoke", "--tables", "FILE"],
        ["figures", "--out", "FILE"],
    ],
    ids=" ".join,
)
def test_an_output_that_cannot_be_written_is_refused_before_the_work(tmp_path, monkeypatch, capsys, arguments):
    (tmp_path / "store").mkdir()
    (tmp_path / "file").write_text("")
    places = {"STORE": str(tmp_path / "store"), "FILE": str(tmp_path / "file")}
    given = [item.replace("STORE", places["STORE"]).replace("FILE", places["FILE"]) for item in arguments]
    monkeypatch.setattr(sys, "argv", ["batchscape", *given])
    monkeypatch.setattr("batchscape.cost.probe.probe_batch_sizes", pytest.fail)
    monkeypatch.setattr("batchscape.cost.advise.advise", pytest.fail)
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "cannot be written" in line
    assert list((tmp_path / "store").iterdir()) == []


@pytest.mark.skipif(not pathlib.Path("/dev/full").exists(), reason="Linux has a device that is always full")
def test_a_full_disk_behind_standard_output_is_one_line():
    command = [sys.executable, "-m", "batchscape", "--help"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert done.stderr == "batchscape: Standard output cannot be written: No space left on device\n"


KINDS = [json.dumps({"kind": kind, "schema_version": 1}) for kind in ("Plane", ["x"], None)]


@pytest.mark.parametrize("text", ["[" * 100_000, "null", '{"kind": "Plane"}', *KINDS])
def test_a_damaged_result_is_one_line(tmp_path, text):
    np.savez(tmp_path / "plane.npz", json=np.array(text))
    with pytest.raises(StoreError):
        load_result(tmp_path / "plane.npz")


@pytest.mark.parametrize("text", ["[" * 100_000, "null", "7", json.dumps({"profile": "x"})])
def test_damaged_tables_are_one_line(tmp_path, text):
    (tmp_path / "about.json").write_text(text)
    (tmp_path / "runs.csv.gz").write_bytes(b"\x1f\x8b\x08\x00half")
    with pytest.raises(StoreError, match="must hold the tables of a study"):
        Tables.load(tmp_path)
