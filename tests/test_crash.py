"""Whole processes that are killed, interrupted or run in odd places, as users do it."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from batchscape.sweep.store import Store
from tests.test_sweep import same_results

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


def test_a_sweep_killed_at_any_moment_is_completed_by_the_next_and_equals_an_undisturbed_one(script, tmp_path):
    undisturbed, disturbed = tmp_path / "undisturbed", tmp_path / "disturbed"
    output, _ = start(script, undisturbed, "serial").communicate(timeout=300)
    assert output.strip() == "16 {'COMPLETE'}"
    for records in (1, 6, 9):
        process = start(script, disturbed, "processes")
        wait_for_records(disturbed, records, process)
        process.kill()
        process.communicate(timeout=30)  # Ends with the workers: they notice within a second that their parent is gone.
    output, errors = start(script, disturbed, "processes").communicate(timeout=300)
    assert output.strip() == "16 {'COMPLETE'}", errors
    assert not list(disturbed.glob("*.tmp"))
    assert same_results(Store(undisturbed), Store(disturbed))


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
    command = [sys.executable, "-W", "ignore", "-m", "batchscape", "sweep", "--batch-size", "1", "--epochs", "50"]
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


def test_a_notebook_defines_its_own_model_and_its_kernel_is_interrupted_and_goes_on(tmp_path):
    """After TensorFlow has started in the kernel; workers get the function by value."""
    from jupyter_client.manager import start_new_kernel

    manager, client = start_new_kernel(
        kernel_name="python3", cwd=str(tmp_path), env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    )
    try:
        sweep = SCRIPT.replace("sys.argv[1]", f"{str(tmp_path / 'store')!r}").replace("sys.argv[2]", "'processes'")
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
        assert "16 {'COMPLETE'}" in output
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
