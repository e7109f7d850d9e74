"""The command of the README, from sweep to figures, at smoke profile."""

import sys

import pandas as pd
import pytest

import batchscape as bs
from batchscape import cli


@pytest.fixture
def reproduce(monkeypatch, capsys, tmp_path):
    """Run `batchscape reproduce --profile smoke`; returns what it printed."""

    def run(*options):
        monkeypatch.setattr(sys, "argv", ["batchscape", "reproduce", "--profile", "smoke", "-q", *options])
        with pytest.raises(SystemExit) as left:
            cli.main()
        printed = capsys.readouterr()
        assert left.value.code == 0, printed.err
        return printed.out

    return run


def test_the_main_job_trains_judges_and_draws_and_a_second_call_trains_nothing(reproduce, tmp_path):
    out = bs.study.folder_of("smoke")
    printed = reproduce("--tables", str(tmp_path / "tables"))
    verdicts = pd.read_csv(out / "verdicts.csv")
    assert {"C22", "C42", "C43", "C45"} <= set(verdicts["id"])
    assert all(claim in printed for claim in verdicts["id"])
    pictures = sorted((out / "figures").glob("*.png"))
    assert [file.stem for file in pictures] == ["fig01_sweep_training", "fig02_line_loss", "fig03_curvature_batch"]
    assert all(file.stat().st_size > 10_000 and str(file) in printed for file in pictures)
    runs = bs.study.Tables.load(tmp_path / "tables").runs
    assert len(runs) == len(bs.study.PROFILES["smoke"].grid())
    records = [out / "store" / f"{name}.json" for name in runs["hash"]]
    before = [file.stat().st_mtime_ns for file in records]
    assert reproduce() == printed
    assert [file.stat().st_mtime_ns for file in records] == before
