"""Whole processes that are killed, interrupted or run in odd places, as users do it."""

import importlib
import os
import pathlib
import signal
import subprocess
import sys
import time

import psutil
import pytest

from batchscape.sweep.store import Store
from batchscape.workers import processes
from batchscape.workers.watched_process import Child

SCRIPT = """
import sys
import keras
import numpy as np
import batchscape as bs

def build():
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])

rng = np.random.default_rng(0)
data = rng.normal(size=(100, 4)).astype("float32"), np.arange(100) % 3
grid = bs.Grid(batch_size=[2, 10], epochs=40, learning_rate=0.1, seed=range(8))
frame = bs.run_sweep(grid, store=sys.argv[1], build=build, data=data, executor=sys.argv[2], workers=2)
print(len(frame), set(frame["status"]))
"""


@pytest.fixture
def script(tmp_path):
    """A plain script without a `__main__` guard, and its function defined in it."""
    file = tmp_path / "plain_script.py"
    file.write_text(SCRIPT)
    return file


def start(script, store, executor):
    command = [sys.executable, "-W", "ignore", str(script), str(store), executor]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=script.parent,
        preexec_fn=listen_to_ctrl_c,
    )


def listen_to_ctrl_c():
    """Background jobs of a shell ignore SIGINT, and so would all that they start."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def wait_for_records(store, count, process):
    deadline = time.monotonic() + 120
    while len(list(pathlib.Path(store).glob("*.json"))) < count:
        assert time.monotonic() < deadline, "the sweep made no progress"
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)


@pytest.mark.long
def test_ctrl_c_ends_a_sweep_at_once_and_leaves_a_clean_store(script, tmp_path):
    process = start(script, tmp_path / "store", "processes")
    wait_for_records(tmp_path / "store", 1, process)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert "KeyboardInterrupt" in errors
    assert process.returncode != 0
    time.sleep(1)
    assert not list((tmp_path / "store").glob("*.tmp"))
    for record in Store(tmp_path / "store").records():
        assert record.status == "COMPLETE"
        assert record.weights["final"]


def test_ctrl_c_on_the_command_line_says_what_is_kept(tmp_path):
    command = [sys.executable, "-W", "ignore", "-m", "batchscape", "sweep", "--batch-size", "1", "--epochs", "5"]
    process = subprocess.Popen(
        [*command, "--seeds", "4", "--store", str(tmp_path / "store"), "--executor", "serial", "-q"],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=listen_to_ctrl_c,
    )
    wait_for_records(tmp_path / "store", 1, process)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.splitlines()[-1].startswith("batchscape: interrupted; finished runs are kept")


@pytest.mark.long
def test_sigterm_ends_a_command_as_ctrl_c_does_with_all_its_processes(tmp_path):
    """A batch system, `docker stop` or `timeout` sends it, to the whole group or to the command alone."""
    command = [sys.executable, "-W", "ignore", "-m", "batchscape", "sweep", "--batch-size", "64", "--epochs", "9"]
    process = subprocess.Popen(
        [
            *command,
            "--seeds",
            "99",
            "--workers",
            "1",
            "--store",
            str(tmp_path / "store"),
            "--executor",
            "processes",
            "-q",
        ],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_for_records(tmp_path / "store", 1, process)
    workers = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143
    assert errors == "batchscape: terminated; finished runs are kept, the same command goes on from here\n"
    assert not list((tmp_path / "store").glob("*.tmp"))
    assert {record.status for record in Store(tmp_path / "store").records()} == {"COMPLETE"}
    _, alive = psutil.wait_procs(workers, timeout=30)
    assert all(worker.status() == psutil.STATUS_ZOMBIE for worker in alive)  # Whoever takes in orphans buries them.


@pytest.fixture
def shadows(tmp_path, monkeypatch):
    """The current folder, first on the path, with files named like modules of Python and of libraries."""
    for name in ("typing", "json", "keras", "numpy", "pandas", "loky", "psutil", "cloudpickle"):
        (tmp_path / f"{name}.py").write_text(f"raise RuntimeError('{name} of the current folder')")
    (tmp_path / "shadowed_data.py").write_text(
        "def load():\n    import keras, numpy\n    return keras.__file__, numpy.__file__"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.syspath_prepend("")
    return tmp_path


@pytest.mark.long
def test_files_of_the_current_folder_do_not_take_the_place_of_libraries_in_workers_and_probes(shadows):
    import keras
    import numpy as np

    def use_current_folder():
        import os
        import sys

        import shadowed_data

        return sys.path, os.environ.get("PYTHONSAFEPATH"), shadowed_data.load()

    expected = sys.path, None, (keras.__file__, np.__file__)
    worker, child = processes.Process({}, importlib.import_module, "batchscape.sweep.tasks"), Child()
    try:
        assert worker.submit(use_current_folder).result() == expected
        assert child.call("batchscape.backend:name") == keras.backend.backend()
        assert child.call(use_current_folder) == expected
    finally:
        worker.stop()
        child.stop()


def test_standard_streams_that_are_closed_are_opened_on_nothing_here_and_in_what_we_start(tmp_path):
    (tmp_path / "keras.py").write_text("")
    code = """
import os, subprocess, sys
from batchscape.backend.importing import import_keras
import_keras()
print("said", file=sys.stderr)
nothing = os.stat(os.devnull)
assert all(os.path.samestat(os.fstat(number), nothing) for number in (0, 2))
subprocess.run([sys.executable, "-c", "import os; os.fstat(0); os.fstat(2)"], check=True)
print("done")
"""
    command = ["bash", "-c", '"$0" -c "$1" <&- 2>&-', sys.executable, code]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "done\n")


def test_a_disk_that_fills_up_stops_the_sweep_with_one_line_and_keeps_what_is_whole(tmp_path):
    """A limit on the size of files stands in for a full disk: the weights do not fit, a JSON would."""
    command = (
        f"ulimit -f 40; exec {sys.executable} -W ignore -m batchscape sweep --batch-size 64 --epochs 1 --seeds 1 "
        f"--store {tmp_path / 'store'} --executor serial -q"
    )
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert "cannot be written: File too large" in line
    assert not list((tmp_path / "store").iterdir())


@pytest.mark.long
def test_a_notebook_defines_its_own_model_and_its_kernel_is_interrupted_and_goes_on(tmp_path):
    """After TensorFlow has started in the kernel; workers get the function by value."""
    from jupyter_client.manager import start_new_kernel

    manager, client = start_new_kernel(
        kernel_name="python3", cwd=str(tmp_path), env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    )
    try:
        fewer = SCRIPT.replace("epochs=40", "epochs=10").replace("range(8)", "range(4)")
        sweep = fewer.replace("sys.argv[1]", f"{str(tmp_path / 'store')!r}").replace("sys.argv[2]", "'processes'")
        setup, run = sweep.split("frame = ", maxsplit=1)
        run_cell(client, setup + "\nkeras.ops.ones(3) + 1")
        message = client.execute("frame = " + run)
        deadline = time.monotonic() + 120
        while not list(tmp_path.glob("store/*.json")):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        manager.interrupt_kernel()
        reply = client.get_shell_msg(timeout=60)
        while reply["parent_header"].get("msg_id") != message:
            reply = client.get_shell_msg(timeout=60)
        assert reply["content"]["status"] == "error"
        assert reply["content"]["ename"] == "KeyboardInterrupt"
        output = run_cell(client, "frame = " + run)
        assert "8 {'COMPLETE'}" in output
        assert "sweep:" in output  # Progress is plain text, in place: no widget state to store.
        assert "\r" in output
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def run_cell(client, code):
    """Run a cell and return what it printed."""
    printed = []

    def hook(message):
        if message["msg_type"] == "stream":
            printed.append(message["content"]["text"])
        assert message["msg_type"] != "display_data", "progress must not use display data"

    reply = client.execute_interactive(code, timeout=240, output_hook=hook)
    while reply["content"]["status"] == "aborted":  # A kernel drops what comes too soon after an error.
        time.sleep(0.5)
        reply = client.execute_interactive(code, timeout=240, output_hook=hook)
    assert reply["content"]["status"] == "ok", reply["content"]
    return "".join(printed)
