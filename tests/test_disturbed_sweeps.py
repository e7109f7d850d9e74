"""Sweeps that are killed again and again, between their first record and their last: nothing is lost, nothing done twice."""

import os
import random
import signal
import subprocess
import sys
import time

import psutil
import pytest

from batchscape.sweep.store import Store
from batchscape.train.record import Status
from tests.test_crash import SCRIPT
from tests.test_sweep import same_results

N_RUNS = 48
KILLS = 9
"""Three of a whole process group, three of a worker, three of the process that started them."""

MANY_RUNS = SCRIPT.replace("seed=range(8)", f"seed=range({N_RUNS // 2})")


@pytest.fixture
def script(tmp_path):
    file = tmp_path / "many_runs.py"
    file.write_text(MANY_RUNS)
    return file


def start(script, store, executor="processes"):
    """A sweep in a process group of its own."""
    command = [sys.executable, "-W", "ignore", str(script), str(store), executor]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=script.parent, start_new_session=True
    )


def finished(store):
    """The bytes of all finished runs, by file name."""
    store = Store(store)
    complete = [run for run in store.hashes() if store.status(run) is Status.COMPLETE]
    return {
        f"{run}{ending}": (store.path / f"{run}{ending}").read_bytes()
        for run in complete
        for ending in (".json", ".npz")
    }


def wait_for_more(store, more, process):
    """Wait until a sweep has written some more records; False if it has ended before."""
    target = len(list(store.glob("*.json"))) + more
    deadline = time.monotonic() + 300
    while len(list(store.glob("*.json"))) < target:
        assert time.monotonic() < deadline, "the sweep made no progress"
        if process.poll() is not None:
            return False
        time.sleep(0.01)
    return True


def end(process):
    """Wait for the end of a process and of its workers, and return what it printed on stderr."""
    errors = process.communicate(timeout=120)[1]
    deadline = time.monotonic() + 30
    while any(member.is_running() and member.status() != psutil.STATUS_ZOMBIE for member in members(process.pid)):
        assert time.monotonic() < deadline, "workers outlived their driver"
        time.sleep(0.05)
    return errors


def members(group):
    """Processes of a group that are there."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getpgid(process.pid) == group:
                found.append(process)
        except ProcessLookupError:
            continue
    return found


def workers_of(process):
    """Worker processes that train, and not those that watch over them."""
    children = psutil.Process(process.pid).children(recursive=True)
    return [child for child in children if child.memory_info().rss > 200e6]


@pytest.mark.long
@pytest.mark.tensorflow
def test_kills_lose_no_finished_run_and_train_none_twice(script, tmp_path):
    undisturbed, disturbed = tmp_path / "undisturbed", tmp_path / "disturbed"
    output, errors = start(script, undisturbed, "serial").communicate(timeout=600)
    assert output.strip() == f"{N_RUNS} {{'COMPLETE'}}", errors
    disturbed.mkdir()
    rng, seen, killed, process, said = random.Random(0), {}, [], None, ""
    while len(killed) < KILLS:
        if process is None:
            process = start(script, disturbed)
        assert wait_for_more(disturbed, rng.randint(1, 2), process), f"ended before the last kill; {killed}"
        time.sleep(rng.uniform(0, 0.3))
        kind = ("group", "worker", "driver")[len(killed) % 3]
        if kind == "worker":
            os.kill(rng.choice(workers_of(process)).pid, signal.SIGKILL)
        else:
            (os.killpg if kind == "group" else os.kill)(process.pid, signal.SIGKILL)
            said += end(process)
            process = None
        killed.append(kind)
        now = finished(disturbed)
        assert {name: now.get(name) == content for name, content in seen.items()} == dict.fromkeys(seen, True), killed
        seen = now
    assert 0 < len(seen) < 2 * N_RUNS, "all kills fell between the first and the last record"
    if process is not None:
        said += end(process)
    last = start(script, disturbed)
    output, errors = last.communicate(timeout=600)
    assert output.strip() == f"{N_RUNS} {{'COMPLETE'}}", errors
    now = finished(disturbed)
    assert all(now[name] == content for name, content in seen.items())
    assert "Traceback" not in said + errors
    assert {file.suffix for file in disturbed.iterdir()} == {".json", ".npz"}
    assert same_results(Store(undisturbed), Store(disturbed))


@pytest.mark.long
@pytest.mark.tensorflow
def test_signals_that_ask_to_end_leave_a_clean_store_at_any_moment(tmp_path):
    store, rng = tmp_path / "store", random.Random(1)
    command = ["-W", "ignore", "-m", "batchscape", "sweep", "--batch-size", "2", "--epochs", "2", "--seeds", "40", "-q"]
    for number, status in ((signal.SIGTERM, 143), (signal.SIGINT, 130)) * 2:
        process = subprocess.Popen(
            [sys.executable, *command, "--store", str(store), "--executor", "processes"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        store.mkdir(exist_ok=True)
        assert wait_for_more(store, 1, process)
        before = finished(store)
        time.sleep(rng.uniform(0, 1))
        process.send_signal(number)
        if number == signal.SIGINT:  # Twice, as people do.
            time.sleep(0.15)
            process.send_signal(number)
        errors = end(process)
        assert process.returncode == status
        assert len(errors.strip().splitlines()) == 1, errors
        assert {file.suffix for file in store.iterdir()} == {".json", ".npz"}
        now = finished(store)
        assert all(now[name] == content for name, content in before.items())
