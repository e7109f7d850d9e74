"""`benchmarks/gpu.py`: all of it at a small scale, on whichever device and backend is there; and its time limits."""

import json
import os
import pathlib
import subprocess
import sys
import time

import pandas as pd
import pytest

from batchscape.study import gallery
from batchscape.study.tables import Tables
from benchmarks import gpu, speed_table

TABLES = ("loop", "line", "seeds", "cifar", "speed", "throughput")


def python(code):
    return [sys.executable, "-c", code]


def test_a_part_over_its_limit_is_ended_with_all_that_it_started():
    sleep = "import time; time.sleep(60)"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {sleep!r}])"
    begin = time.perf_counter()
    outcome = gpu.run_part(python(code), 1.0)
    assert outcome.status == "over its limit"
    assert time.perf_counter() - begin < 10


def test_a_part_that_fails_leaves_its_last_words():
    outcome = gpu.run_part(python("raise ValueError('no such thing')"), 20.0)
    assert (outcome.status, outcome.reason) == ("failed", "ValueError: no such thing")


def test_a_part_without_time_is_not_started():
    assert gpu.run_part(["there is no such program"], 0.5).status == "no time left"


def test_the_parts_together_stay_within_eight_minutes():
    given = [limit for limit in gpu.LIMITS.values() if limit is not None]
    assert list(gpu.LIMITS)[-1] == "throughput"
    assert sum(given) + 100 <= gpu.TOTAL == 480


def cache(tmp_path_factory):
    """Variables by which a part on JAX finds the programs that those before it have compiled."""
    return {
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("programs")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    """The tables of a run at the small scale, as a user would start it."""
    folder = tmp_path_factory.mktemp("gpu")
    command = [sys.executable, pathlib.Path(gpu.__file__), "--small", "--record", folder]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | cache(tmp_path_factory))
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.jax
def test_every_part_runs_and_leaves_its_tables(record):
    about = json.loads((record / "about.json").read_text())
    assert {name: part["status"] for name, part in about["parts"].items()} == dict.fromkeys(gpu.LIMITS, "done")
    assert about["profile"] == "smoke"
    found = {name: pd.read_csv(record / f"cpu_{name}.csv.gz") for name in TABLES}
    assert all((table["device"] == "CPU").all() for table in found.values())
    assert (found["loop"].groupby("stratum")["batch"].count() == 2).all()
    at_ends = found["line"].query("alpha in (0, 1) and split == 'test'")["loss"]
    losses = found["loop"]["test_loss"]
    assert at_ends.tolist() == pytest.approx(losses.tolist(), rel=1e-3), "the line begins and ends at the minima"
    alone = found["seeds"].set_index("way").loc["alone"]
    assert alone["trainings"] == 2
    assert alone["largest_difference_of_weights"] < 1e-5
    assert set(found["cifar"]["stratum"]) == {"both", "fixed rate", "fixed rate/batch"}
    assert found["cifar"].query("status == 'COMPLETE'")["lambda_max"].gt(0).all()
    assert set(found["speed"]["quantity"]) == {"updates", "points", "Hessian-vector products"}
    assert set(found["throughput"]["precision"]) == {"float32", "mixed_bfloat16"}


@pytest.mark.jax
def test_figures_and_rows_appear_when_there_are_records_of_a_gpu(record, tmp_path):
    assert not gallery.draw_all(record, tmp_path / "none"), "those of a processor are no figures of their own"
    study = Tables.load(record)
    renamed = {name.replace("cpu_", "gpu_"): table.assign(device="H100") for name, table in study.frames.items()}
    both = Tables({**renamed, "cpu_speed": study.cpu_speed}, study.about).save(tmp_path / "both")
    drawn = gallery.draw_all(both, tmp_path / "figures")
    assert set(drawn) == {"fig19_gpu_loop", "fig20_gpu_cifar", "fig21_gpu_throughput", "fig22_gpu_speed"}
    captions = [json.loads(file.with_suffix(".json").read_text())["caption"]["basis"] for file in drawn.values()]
    assert all("H100" in basis for basis in captions)
    rows = speed_table.gpu(both)
    assert "on H100" in rows
    assert "1 × two CPU cores" in rows
    assert speed_table.gpu(tmp_path / "nowhere") == speed_table.NOT_YET
