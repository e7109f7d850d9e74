"""The command line: what it prints, and that bad input is one line and exit status 2."""

import dataclasses
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

import batchscape as bs
from batchscape import cli
from batchscape.cli import cell_options, show

SMALL = [
    "--batch-size",
    "16,full",
    "--epochs",
    "1",
    "--seeds",
    "1",
    "--train-size",
    "64",
    "--executor",
    "serial",
    "--quiet",
]


OURS = ("main", "gradient", "minima", "rates", "cost", "target")

FRAGILE = """import keras

class Fragile(keras.Sequential):
    def train_step(self, data):
        raise ValueError("the sky is falling")

def build(data):
    return Fragile([keras.Input(data.x_train.shape[1:]), keras.layers.Flatten(), keras.layers.Dense(10)])
"""


@pytest.fixture
def run(command, tmp_path, monkeypatch):
    """Run the command line in this process, from an empty folder; returns (exit status, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BATCHSCAPE_HOME", raising=False)
    path = list(sys.path)

    yield command
    sys.path[:] = path
    for module in ("mynet", "mydata", "badnet", "badshape"):
        sys.modules.pop(module, None)


@pytest.fixture
def demo(run, tmp_path, tmp_path_factory):
    """The runs of `SMALL` in `runs/demo`, trained once for all tests that measure or draw some."""
    kept = tmp_path_factory.getbasetemp() / "demo"
    if not kept.exists():
        assert run("sweep", *SMALL, "--store", kept)[0] == 0
    shutil.copytree(kept, tmp_path / "runs/demo")


def test_a_sweep_prints_a_line_a_batch_size_and_a_second_one_reads_the_store(run, tmp_path):
    status, out, _ = run("sweep", *SMALL, "--store", "runs/demo")
    assert status == 0
    assert [line.split()[:2] for line in out.splitlines()[1:]] == [["16", "1"], ["64", "1"]]
    assert len(list((tmp_path / "runs/demo").glob("*.json"))) == 2
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "runs/demo").iterdir()}
    assert run("sweep", *SMALL, "--store", "runs/demo")[1] == out
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "runs/demo").iterdir()} == before
    assert run("results", "runs/demo")[1] == out
    table = run("results", "runs/demo", "--csv")[1].splitlines()
    assert len(table) == 3
    assert table[0].startswith("epoch,updates,examples,seconds,train_loss")
    assert len(run("results", "runs/demo", "--curves")[1].splitlines()) == 5


def test_the_runs_that_a_sweep_would_train_are_listed_and_nothing_is_written(run, tmp_path):
    options = [*SMALL[:-3], "--store", "runs/demo"]
    status, out, _ = run("missing", *options)
    assert status == 0
    assert not (tmp_path / "runs").exists()
    first, *cells = out.splitlines()
    assert first == "2 of 2 runs are missing in runs/demo."
    assert [cell.split("batch_size=")[1].split(",")[0] for cell in cells] == ["16", "'full'"]
    run("sweep", *SMALL, "--store", "runs/demo")
    assert sorted(cell.split()[0] for cell in cells) == sorted(file.stem for file in tmp_path.glob("runs/demo/*.json"))
    assert run("missing", *options)[:2] == (0, "0 of 2 runs are missing in runs/demo.\n")
    status, out, _ = run("missing", *options, "--seeds", "2")
    assert out.splitlines()[0] == "2 of 4 runs are missing in runs/demo."
    assert all(line.endswith("seed=1") for line in out.splitlines()[1:])


GIVEN = {
    "dataset": ("mnist", "mnist"),
    "train_size": ("64", 64),
    "model": ("cnn", "cnn"),
    "optimizer": ("adam", "adam"),
    "optimizer_options": ("beta_1=0.8,amsgrad=true", (("amsgrad", True), ("beta_1", 0.8))),
    "learning_rate": ("0.2", 0.2),
    "lr_policy": ("sqrt", "sqrt"),
    "base_batch_size": ("64", 64),
    "warmup": ("2", 2.0),
    "warmup_from": ("base", "base"),
    "decay": ("steps", "steps"),
    "decay_over": ("4", 4.0),
    "decay_at": ("3,5", (3.0, 5.0)),
    "decay_factor": ("0.5", 0.5),
    "schedule_unit": ("updates", "updates"),
    "batch_size": ("16", 16),
    "batch_steps": ("3:32,5:64", ((3, 32), (5, 64))),
    "micro_batch_size": ("8", 8),
    "devices": ("2", 2),
    "last_batch": ("drop", "drop"),
    "epochs": ("7", 7.0),
    "updates": ("70", 70),
    "examples": ("700", 700),
    "until_loss": ("0.1", 0.1),
    "max_updates": ("500", 500),
    "loss": ("mean_squared_error", "mean_squared_error"),
    "metrics": ("accuracy,mean_squared_error", ("accuracy", "mean_squared_error")),
    "weight_decay": ("0.1", 0.1),
    "initial_weights": ("0123456789abcdef", "0123456789abcdef"),
    "precision": ("float64", "float64"),
    "engine": ("stock", "stock"),
    "evaluate_every": ("0.5", 0.5),
    "seed": ("1", 0),
}
"""By field of a cell: what its option receives, and what the cell then holds."""

WITH = {
    "base_batch_size": ["--lr-policy", "linear"],
    "warmup_from": ["--warmup", "1", "--lr-policy", "linear"],
    "decay": ["--decay-at", "3"],
    "decay_over": ["--decay", "linear"],
    "decay_at": ["--decay", "steps"],
    "decay_factor": ["--decay", "linear"],
    "schedule_unit": ["--warmup", "1"],
    "max_updates": ["--until-loss", "0.1"],
    "micro_batch_size": ["--batch-size", "16"],
}
"""Options without which others would do nothing, and are refused."""


@pytest.mark.parametrize("field", dataclasses.fields(bs.Cell), ids=lambda field: field.name)
def test_every_field_of_a_cell_has_an_option_that_sets_it(run, monkeypatch, field):
    """A field that is added to `Cell` has an option at once; it needs a help text, and a line in `GIVEN`."""
    from batchscape.sweep import run as sweep

    option = cell_options.PARAMETERS[field.name]
    assert cell_options.HELP[option.name]
    text, value = GIVEN[option.name]
    grids = []
    monkeypatch.setattr(sweep, "missing_runs", lambda grid, **_: grids.append(grid) or {})
    (name, *_) = cell_options.NAMES.get(option.name, ("--" + option.name.replace("_", "-"),))
    status, _, err = run("missing", name, text, *WITH.get(option.name, []))
    assert status == 0, err
    assert getattr(grids[0][0], field.name) == value
    if field.name != "seed":
        assert value != field.default


def test_a_field_that_is_added_to_a_cell_gets_an_option():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Longer(bs.Cell):
        label_smoothing: float = 0.0

    option = cell_options.parameter_of(dataclasses.fields(Longer)[-1])
    assert (option.name, option.default) == ("label_smoothing", 0.0)
    assert "label_smoothing" not in cell_options.HELP  # And the test above then fails until it is explained.


def test_the_cell_the_reason_and_the_traceback_of_failed_runs_are_printed(run, tmp_path, capfd):
    (tmp_path / "mynet.py").write_text(FRAGILE)
    fragile = ["--model", "mynet:build", "--engine", "stock", *SMALL, "--batch-size", "full"]
    assert run("sweep", *fragile, "--store", "runs/demo")[0] == 1
    status, out, _ = run("results", "runs/demo", "--failed")
    assert status == 0
    cell, reason, head, *_, raised, line, last, _ = out.splitlines()
    assert "batch_size='full'" in cell
    assert "model='mynet:build'" in cell
    assert reason == last == "ValueError: the sky is falling"
    assert head == "Traceback (most recent call last):"
    assert raised.endswith('mynet.py", line 5, in train_step')
    assert line.strip() == 'raise ValueError("the sky is falling")'
    show.print_failures([])
    assert capfd.readouterr().out == "No run failed.\n"


def test_a_folder_without_runs_cannot_be_measured(run, tmp_path):
    (tmp_path / "empty").mkdir()
    for command in ("sharpness", "noise", "rates"):
        status, _, err = run(command, "empty")
        assert status == 2
        assert err == "batchscape: empty holds no runs yet; start with: batchscape sweep --store empty\n"


def test_the_version_is_printed(run):
    assert run("--version")[:2] == (0, f"batchscape {bs.__version__}\n")


def test_the_noise_scale_of_stored_runs_and_of_an_untrained_model_is_printed(run, demo):
    status, out, _ = run("noise", "runs/demo", "--executor", "serial", "-q")
    assert status == 0
    assert out.split()[:4] == ["batch", "learning_rate", "seed", "simple_initial"]
    assert [line.split()[0] for line in out.splitlines()[1:]] == ["16", "64"]
    status, out, _ = run("noise")
    assert status == 0
    assert "mlp on digits, untrained: GradientStatistics(1280 examples" in out


def test_a_line_between_minima_is_drawn_and_its_barrier_printed(run, demo, tmp_path):
    status, out, _ = run("landscape", "runs/demo", "--between", "16", "full", "--points", "5", "-q")
    assert status == 0
    assert "Loss barrier between B = 16 and B = 64" in out
    figure = pathlib.Path(out.splitlines()[-1])
    assert figure == tmp_path / "runs/demo/figures/line_16_64.png"
    assert figure.read_bytes()[:4] == b"\x89PNG"


def test_runs_of_a_model_that_is_gone_do_not_stand_in_the_way(run, demo, tmp_path):
    (tmp_path / "mynet.py").write_text(MYNET)
    (tmp_path / "mydata.py").write_text(MYDATA)
    theirs = ["--model", "mynet:build", "--data", "mydata:load", *SMALL[:6], *SMALL[8:]]
    assert run("sweep", *theirs, "--store", "runs/demo")[0] == 0
    (tmp_path / "mynet.py").unlink()
    sys.modules.pop("mynet")
    status, out, _ = run("landscape", "runs/demo", "--between", "16", "full", "--points", "3", "-q")
    assert status == 0
    assert "Loss barrier between B = 16 and B = 64" in out


def test_the_loss_around_minima_is_drawn_from_runs_and_from_files(run, demo, tmp_path, digits):
    status, out, _ = run("landscape", "runs/demo", "--around", "full", "--points", "3", "-q")
    assert status == 0
    assert out.startswith("Plane(3 × 3 points")
    assert sorted(file.suffix for file in (tmp_path / "runs/demo/figures").glob("plane_full.*")) == [
        *(".html", ".json", ".npz", ".pdf", ".png")
    ]
    for seed in range(3):
        bs.build_model("cnn_bn", digits, seed=seed).save(tmp_path / f"net{seed}.keras")
    status, out, _ = run("landscape", "net0.keras", "net1.keras", "--points", "3", "-q")
    assert status == 0
    assert "Loss barrier between net0 and net1" in out
    status, out, _ = run("landscape", "net0.keras", "net1.keras", "net2.keras", "--points", "3", "-q")
    assert status == 0
    through = bs.load_result(tmp_path / "figures/plane.npz")
    assert list(through.marks) == ["net0", "net1", "net2"]


def test_the_best_rate_of_each_batch_size_is_printed(run):
    assert run("sweep", *SMALL, "--learning-rate", "0.01,0.1", "--seeds", "2", "--store", "runs/rates", "-q")[0] == 0
    status, out, _ = run("rates", "runs/rates")
    assert status == 0
    heads, *rows = (line.split() for line in out.splitlines())
    assert heads[:2] == ["batch", "learning_rate"]
    assert [row[:3] for row in rows] == [["16", "0.1", "highest"], ["64", "0.1", "highest"]]


def test_sharpness_of_runs_and_of_a_file_is_printed(run, demo, tmp_path):
    status, out, _ = run("sharpness", "runs/demo", "--executor", "serial", "-q")
    assert status == 0
    assert [line.split()[0] for line in out.splitlines()] == ["batch", "16", "64"]
    assert {"lambda_max", "phi", "adaptive_worst"} <= set(out.splitlines()[0].split())
    (tmp_path / "broken.keras").write_text("nothing")
    status, _, err = run("sharpness", "broken.keras")
    assert status == 2
    assert "must be a .keras or .h5 file" in err


MYNET = """
import keras
def build():
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
"""

MYDATA = """
import numpy as np
def load():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 3)).astype("float32")
    return x, (x[:, 0] > 0).astype("int64")
"""


def test_a_users_model_and_data_in_two_small_files_of_the_current_folder(tmp_path):
    """From an empty folder, by the console script, which does not have that folder on its path by itself."""
    (tmp_path / "mynet.py").write_text(MYNET)
    (tmp_path / "mydata.py").write_text(MYDATA)
    script = pathlib.Path(sys.executable).with_name("batchscape")
    command = [script, "sweep", "--model", "mynet:build", "--data", "mydata:load", "--batch-size", "4,full"]
    command += ["--epochs", "2", "--seeds", "1", "--workers", "1", "--executor", "processes"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("TF_")}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 3
    assert "inferred from the labels" in done.stderr
    assert "oneDNN" not in done.stderr  # TensorFlow's greetings stay out of the way.
    assert len(list((tmp_path / "runs/sweep").glob("*.json"))) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sweep", "--seeds", "abc"], "Invalid value for '--seeds'"),
        (["sweep", "--nonsense", "3"], "No such option: --nonsense"),
        (["sweep", "--lerning-rate", "0.1"], "No such option: --lerning-rate (Possible options: --learning-rate)"),
        (["nosuch"], "No such command 'nosuch'"),
        (["swep"], "No such command 'swep'. Did you mean 'sweep'?"),
        (["landscape", "nowhere", "--between", "8", "full", "--points", "2"], "--points must be an integer ≥ 3"),
        (["noise", "nowhere"], "No store at"),
        (["sweep", "--model", "badshape:build", "--train-size", "64"], "does not take these inputs"),
        (["sweep", "--batch-size", ""], "--batch-size needs at least one value"),
        (["sweep", "--batch-size", "0"], "batch_size must be an integer ≥ 1. Received: batch_size=0"),
        (["sweep", "--batch-size", "-4"], "Received: batch_size=-4"),
        (["sweep", "--batch-size", "2.5"], "Received: '2.5'"),
        (["sweep", "--batch-size", "9999"], "at most the number of training examples, 1280"),
        (["sweep", "--learning-rate", "fast"], "--learning-rate must be a number. Received: 'fast'"),
        (["sweep", "--learning-rate", "nan"], "learning_rate must be a finite number > 0"),
        (["sweep", "--decay", "steps", "--decay-at", "2,x"], "--decay-at must be a number. Received: 'x'"),
        (["sweep", "--epochs", "2", "--warmup", "3"], "warmup must end within the run"),
        (
            ["sweep", "--batch-steps", "5-64"],
            "--batch-steps must be EPOCH:SIZE pairs, such as 30:160. Received: '5-64'",
        ),
        (["sweep", "--micro-batch-size", "0"], "micro_batch_size must be an integer ≥ 1. Received: micro_batch_size=0"),
        (["sweep", "--batch-steps", "5:9999"], "at most the number of training examples, 1280"),
        (["sweep", "--seeds", "0"], "--seeds must be an integer ≥ 1"),
        (["sweep", "--epochs", "1", "--until-loss", "0.1"], "Exactly one of"),
        (["sweep", "--model", "mpl"], "did you mean mlp?"),
        (["sweep", "--model", "nonet:build"], "No module 'nonet'"),
        (["sweep", "--model", "badnet:build"], "Importing badnet raised RuntimeError: not today"),
        (["sweep", "--dataset", "digitz"], "did you mean digits?"),
        (["sweep", "--dataset", "nothing.npz"], "No such file: nothing.npz"),
        (["sweep", "--dataset", "spoilt.npz"], "must be finite"),
        (["sweep", "--loss", "mean_squared"], "Unknown loss"),
        (["sweep", "--optimizer", "sdg"], "did you mean sgd?"),
        (["sweep", "--engine", "fastest"], "Unknown engine"),
        (["sweep", "--executor", "threads"], "Unknown executor"),
        (["sweep", "--store", "occupied/store"], "cannot be written"),
        (["results", "nowhere"], "No store at"),
        (["landscape", "nowhere", "--between", "8", "full"], "No store at"),
        (["landscape", "nowhere"], "landscape needs two batch sizes"),
        (["landscape", "nowhere", "--around", "8"], "No store at"),
        (["landscape", "nowhere", "--around", "8", "--between", "8", "full"], "around 8"),
        (["landscape", "nothing.keras"], "No such file"),
        (["landscape", *["net.keras"] * 4], "one, two or three .keras or .h5 files. Received: 4"),
        (["sharpness"], "sharpness needs the folder of a sweep, or a .keras or .h5 file. Received: none"),
        (["sharpness", "nowhere"], "No store at"),
        (["rates"], "rates needs the folder of a sweep"),
        (["target"], "target needs the folder of a sweep"),
        (["rates", "nowhere"], "No store at"),
        (["study"], "Missing argument 'NAME'"),
        (["study", "ratse"], "Unknown study; did you mean rates? Received: study='ratse'"),
        *((["study", name, "--profile", "huge"], "Received: profile='huge'") for name in OURS),
        (["study", "keskar-f1", "--profile", "quick"], "keskar-f1 has one size, without --profile"),
        (["study", "cost", "--workers", "2"], "without --executor and --workers. Received"),
        (["claims", "--tables", "nowhere"], "must hold the tables of a study"),
        (["figures", "--tables", "nowhere"], "must hold the tables of a study"),
        (["reproduce", "--profile", "huge"], "Unknown profile"),
        (["probe", "--memory-limit", "²"], "memory_limit must be a number of bytes > 0"),
        (["probe", "--memory-limit", "--5"], "memory_limit must be a number of bytes > 0"),
        (["probe", "--time-limit", "0"], "time_limit must be a number of seconds > 0"),
        (["sweep", "--parallel-seeds", "²"], "--parallel-seeds must be an integer"),
        (["sweep", "--precision", "float31"], "Unknown precision"),
        (["sweep", "--metrics", "accurcy"], "did you mean accuracy"),
        (["sweep", "--evaluate-every", "0"], "evaluate_every must be a finite number > 0"),
        (["sweep", "--initial-weights", "zz"], "initial_weights must name a complete run"),
        (["sweep", "--optimizer-options", "momentum"], "--optimizer-options must be NAME=VALUE pairs"),
        (["sweep", "--optimizer-options", "momentum=0,momentum=1"], "each name once"),
        (["sweep", "--optimizer-options", "{momentum"], "--optimizer-options must be a JSON object"),
        (["sweep", "--momentum", "0.9", "--optimizer-options", "momentum=0.5"], "The momentum must be given once"),
        (["missing", "--seeds", "0"], "--seeds must be an integer ≥ 1"),
        (["missing", "--model", "mpl"], "did you mean mlp?"),
        (["sweep", "--momentum", "nan"], "optimizer_options must be finite. Received"),
        (["sweep", "--executor", "serial", "--time-limit", "5"], 'time_limit needs executor="processes"'),
        (["results", "~nosuchuser/runs"], "The home folder of ~nosuchuser is not known"),
        (["probe", "--memory-limit", "0"], "memory_limit must be a number of bytes > 0"),
        (["probe", "--memory-limit", "-5"], "memory_limit must be a number of bytes > 0"),
        (["probe", "--batch-size", "0"], "batch_sizes must be integers from 1"),
        (["probe", "--batch-size", "full"], "A probe takes batch sizes as integers"),
        (["probe", "--batch-size", "2000"], "the number of training examples, 1280. Received: 2000"),
        (["probe", "--model", "badnet:nothing"], "Importing badnet raised RuntimeError: not today"),
        (["advise", "--model", "nothing.keras"], "No such file"),
        (["advise", "--data", "spoilt.npz"], "must be finite"),
        (["advise", "--repeats", "0"], "repeats must be an integer ≥ 1"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_line_and_exit_status_2(run, tmp_path, arguments, message):
    (tmp_path / "occupied").write_text("a file, not a folder")
    (tmp_path / "badnet.py").write_text("raise RuntimeError('not today')\n")
    (tmp_path / "badshape.py").write_text(MYNET)
    x = np.full((20, 3), np.nan, np.float32)
    np.savez(tmp_path / "spoilt.npz", x_train=x, y_train=np.arange(20) % 2, x_test=x, y_test=np.arange(20) % 2)
    before = {file.name for file in tmp_path.iterdir()}
    status, out, err = run(*arguments, *(["-q"] if arguments[0] in ("sweep", "landscape", "reproduce") else []))
    assert status == 2
    assert message in err
    assert len([line for line in err.splitlines() if line.startswith("batchscape:")]) == 1
    assert "Traceback" not in err + out
    assert {file.name for file in tmp_path.iterdir()} - before <= {"__pycache__"}


def test_a_probe_of_a_saved_model_prints_a_table_and_what_fits(run, tmp_path, digits):
    bs.build_model("mlp", digits, seed=0).save(tmp_path / "net.keras")
    status, out, _ = run(
        "probe", "--model", "net.keras", "--batch-size", "64", "--repeats", "1", "--json", "p.json", "-q"
    )
    assert status == 0
    assert out.splitlines()[0].split()[:3] == ["batch", "ms", "ms_low"]
    assert out.splitlines()[1].split()[0] == "64"
    assert "B = 64 fits into" in out
    assert (tmp_path / "p.json").read_text().startswith("{")


def test_the_study_of_the_cost_is_judged_drawn_and_kept(run, tmp_path, monkeypatch):
    from batchscape.study import main_job
    from tests import test_cost_study

    about = {"profile": "smoke", "description": "made up"}
    made_up = bs.study.Tables({"timings": test_cost_study.timings(), "peaks": test_cost_study.peaks()}, about)
    monkeypatch.setattr(main_job, "run_cost_study", lambda *_, **__: made_up)
    status, out, _ = run("study", "cost", "--profile", "smoke", "--tables", "mine", "-q")
    assert status == 0
    assert "C61" in out
    assert out.splitlines()[-1].endswith("fig15_cost.png")
    assert sorted(file.name for file in (tmp_path / "mine").iterdir()) == [
        "about.json",
        "peaks.csv.gz",
        "timings.csv.gz",
    ]
    status, _, err = run("study", "cost", "--profile", "smoky")
    assert status == 2
    assert "did you mean smoke?" in err


@pytest.fixture
def studies(monkeypatch):
    """Studies that train nothing; returns what each has been asked for: (study, profile, store)."""
    from batchscape.study import main_job

    asked = []
    about = {"profile": "made up", "description": "made up"}

    def stub(study):
        def run(profile, store=None, **_):
            asked.append((study, profile, store))
            return bs.study.Tables({"nothing": pd.DataFrame({"nothing": [0]})}, about)

        return run

    monkeypatch.setattr(main_job, "RUNS", {study: stub(study) for study in main_job.RUNS})
    monkeypatch.setattr(main_job, "run_mnist_study", stub("mnist"))
    monkeypatch.setattr(main_job, "run_cost_study", stub("cost"))
    return asked


@pytest.mark.parametrize(
    ("arguments", "asked", "store"),
    [
        (["main"], ("main", "quick"), "runs/quick/store"),
        (["main", "--profile", "paper"], ("main", "paper"), "runs/paper/store"),
        (["minima", "--profile", "paper"], ("minima", "paper"), "runs/paper/store"),
        (["gradient"], ("gradient", "quick"), "runs/quick/noise"),
        (["gradient", "--profile", "mnist"], ("mnist", "mnist"), "runs/mnist"),
        (["rates", "--profile", "fashion"], ("rates", "fashion"), "runs/rates-fashion"),
        (["target", "--profile", "full"], ("target", "full"), "runs/target-full"),
        (["keskar-f1"], ("replication", "keskar-f1"), "runs/keskar-f1"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_each_study_runs_by_its_name_in_a_folder_of_its_own(run, tmp_path, studies, arguments, asked, store):
    status, _, err = run("study", *arguments, "-q")
    assert status == 0, err
    assert studies == [(*asked, tmp_path / store)]
    assert len(list(tmp_path.glob("runs/**/nothing.csv.gz"))) == 1


def test_the_target_records_of_the_makefile_makes_every_committed_table(run, tmp_path, studies):
    from batchscape.study.tables import STUDIES

    makefile = (pathlib.Path(__file__).parents[1] / "Makefile").read_text()
    lines = [line.split()[2:] for line in makefile.splitlines() if "batchscape study " in line]
    for arguments in lines:
        status, _, err = run("study", *arguments)
        assert status == 0, err
    by_study = {folder for folder in STUDIES if (tmp_path / folder / "about.json").exists()}
    assert set(STUDIES) - by_study == {"figures/data/digits", "figures/data/definitions"}  # By lines of their own.


def test_an_advice_is_printed_drawn_and_kept(run, tmp_path, monkeypatch):
    from batchscape.cost import advise
    from tests import test_advise

    made_up = advise.join(test_advise.probe_of(lambda batch: 1 + 0.01 * batch), test_advise.NOISE, 0.1, 0.4)
    monkeypatch.setattr(advise, "advise", lambda *_, **__: made_up)
    status, out, _ = run("advise", "-q", "--out", "mine")
    assert status == 0
    assert f"Advice(batch_size={made_up.batch_size}" in out
    assert [pathlib.Path(line) for line in out.splitlines()[-2:]] == [
        tmp_path / "mine/advice.json",
        tmp_path / "mine/advice.png",
    ]


def test_every_command_shows_an_example_in_its_help(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    for command in cli.ORDER:
        status, out, _ = run(command, "--help")
        assert status == 0
        assert f"Example: batchscape {command}" in " ".join(out.replace("`", "").split()), command
