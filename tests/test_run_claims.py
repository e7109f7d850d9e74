"""Claims on runs: one process at a time trains a run, whoever dies, and no claim outlives its owner."""

import dataclasses
import os
import subprocess
import sys
import time

import pytest

from batchscape.errors import StoreError
from batchscape.sweep import claims
from batchscape.sweep.claims import Claims, is_taken, remove_expired
from batchscape.system import owner
from batchscape.system.owner import Owner

RUN = "aa11000000000000"


@pytest.fixture
def sleeper():
    """Another process of this host, which lives."""
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process
        process.kill()


def owner_of(process):
    return dataclasses.replace(Owner.me(), process=process.pid, start=owner._start_of(process.pid))


def plant(folder, by, name=f"{RUN}.claim", token="0" * 16, age=0.0):
    """A claim that another process made."""
    (folder / name).write_text(f"{by} {token}\n")
    then = time.time() - age
    os.utime(folder / name, (then, then))


def test_a_claim_of_a_living_process_is_respected_and_that_of_a_dead_one_taken_over(tmp_path, sleeper):
    plant(tmp_path, owner_of(sleeper), age=1e6)
    with Claims(tmp_path) as mine:
        assert is_taken(tmp_path, RUN)
        assert not mine.take(RUN)
        sleeper.kill()
        sleeper.wait()
        assert not is_taken(tmp_path, RUN)
        assert mine.take(RUN)
        with Claims(tmp_path) as another:
            assert not another.take(RUN)
        assert is_taken(tmp_path, RUN)
    assert not list(tmp_path.iterdir())


def test_a_claim_from_another_host_expires_when_it_is_not_renewed(tmp_path):
    elsewhere = dataclasses.replace(Owner.me(), host="0" * 8)
    plant(tmp_path, elsewhere, age=claims.EXPIRES_AFTER - 60)
    assert is_taken(tmp_path, RUN)
    plant(tmp_path, elsewhere, age=claims.EXPIRES_AFTER + 60)
    assert not is_taken(tmp_path, RUN)
    with Claims(tmp_path) as mine:
        assert mine.take(RUN)
    assert not list(tmp_path.iterdir())


def test_a_claim_that_its_maker_has_not_written_yet_is_respected_for_as_long(tmp_path):
    (tmp_path / f"{RUN}.claim").touch()
    with Claims(tmp_path) as mine:
        assert not mine.take(RUN)
        for depth in range(2):  # Two that died at that moment, one after the other.
            os.utime(tmp_path / f"{RUN}.claim", (0, 0))
            (tmp_path / f"{RUN}.{depth}.claim").touch()
            os.utime(tmp_path / f"{RUN}.{depth}.claim", (0, 0))
        assert mine.take(RUN)
        assert is_taken(tmp_path, RUN)
    assert not list(tmp_path.iterdir())


def test_a_claim_is_renewed_while_it_is_held(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "RENEWED_EVERY", 0.01)
    with Claims(tmp_path) as mine:
        assert mine.take(RUN)
        file = tmp_path / f"{RUN}.claim"
        os.utime(file, (0, 0))
        deadline = time.monotonic() + 20
        while file.stat().st_mtime == 0:
            assert time.monotonic() < deadline
            time.sleep(0.005)


def test_what_an_interrupted_sweep_of_this_very_process_left_is_taken_over(tmp_path):
    plant(tmp_path, Owner.me())
    with Claims(tmp_path) as mine:
        assert mine.take(RUN)


def test_a_process_that_lost_its_claim_leaves_that_of_the_next_alone(tmp_path, sleeper):
    """It was suspended for so long that a process of another host took over."""
    with Claims(tmp_path) as mine:
        assert mine.take(RUN)
        token = (tmp_path / f"{RUN}.claim").read_text().split()[1]
        plant(tmp_path, owner_of(sleeper), f"{RUN}.{token}.claim")
        mine.release(RUN)
        assert is_taken(tmp_path, RUN)
        assert mine.take("bb22000000000000")
        plant(
            tmp_path, owner_of(sleeper), "bb22000000000000.claim", "1" * 16
        )  # The next has come and gone, this is a third.
        mine.release("bb22000000000000")
        assert is_taken(tmp_path, "bb22000000000000")


def test_a_slow_thief_withdraws_when_what_it_steals_has_gone_meanwhile(tmp_path, sleeper, monkeypatch):
    """Between its look and its claim, another took the dead claim over, trained, released, and a third came."""
    dead = dataclasses.replace(Owner.me(), boot="0" * 8)
    plant(tmp_path, dead)
    real = claims._chain
    views = [real(tmp_path, RUN)]
    plant(tmp_path, owner_of(sleeper), token="2" * 16)
    monkeypatch.setattr(claims, "_chain", lambda *where: views.pop() if views else real(*where))
    with Claims(tmp_path) as mine:
        assert not mine.take(RUN)
    assert [file.name for file in tmp_path.iterdir()] == [f"{RUN}.claim"]
    assert is_taken(tmp_path, RUN)


def test_only_expired_claims_are_cleared_away_with_what_is_left_of_their_chains(tmp_path, sleeper):
    dead = dataclasses.replace(Owner.me(), boot="0" * 8)
    plant(tmp_path, dead)
    plant(tmp_path, dead, f"{RUN}.{'0' * 16}.claim", "1" * 16)
    plant(tmp_path, dead, f"{RUN}.{'5' * 16}.claim", "6" * 16)  # Cut off.
    plant(tmp_path, dead, "bb22000000000000.claim")
    plant(tmp_path, owner_of(sleeper), f"bb22000000000000.{'0' * 16}.claim", "1" * 16)
    plant(tmp_path, dead, "notes.claim")
    remove_expired(tmp_path)
    left = {file.name for file in tmp_path.iterdir()}
    assert left == {"bb22000000000000.claim", f"bb22000000000000.{'0' * 16}.claim", "notes.claim"}
    assert is_taken(tmp_path, "bb22000000000000")


def test_a_store_that_cannot_be_written_is_told_in_one_line(tmp_path):
    with (
        Claims(tmp_path / "nothing") as mine,
        pytest.raises(StoreError, match=r"claim cannot be written: No such file"),
    ):
        mine.take(RUN)


HAMMER = """
import dataclasses, os, pathlib, random, sys, time
from batchscape.sweep import claims
from batchscape.system.owner import Owner
folder, chance = pathlib.Path(sys.argv[1]), random.Random(int(sys.argv[2]))
runs, dead, deadline = [f"{i:016x}" for i in range(2)], dataclasses.replace(Owner.me(), boot="0" * 8), float(sys.argv[3])
look = claims._chain
def slow_look(*where):  # What was seen may have gone when it is acted upon.
    seen = look(*where)
    time.sleep(chance.choice([0, 0, 0.001, 0.005]))
    return seen
claims._chain = slow_look
while time.time() < deadline:
    with claims.Claims(folder) as mine:
        for run in filter(mine.take, runs):
            inside = os.open(folder / f"inside.{run}", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
            os.write(inside, f"+{os.getpid()} ".encode())
            time.sleep(chance.choice([0, 0.005]))
            os.write(inside, f"-{os.getpid()} ".encode())
            os.close(inside)
            end = chance.random()
            if end < 0.02:
                os._exit(9)  # As kill -9 does: its claims stay.
            if end < 0.6:  # As if it had.
                claim = mine._mine[run]
                (folder / f"{os.getpid()}.dead").write_text(f"{dead} {claim.token}\\n")
                os.replace(folder / f"{os.getpid()}.dead", claim.file)
            elif end < 0.8:
                mine.release(run)
"""


def test_processes_that_steal_from_the_dead_never_hold_a_run_together(tmp_path):
    """Entries and exits of a run alternate, each pair of one process, however slowly some act on what they saw."""
    deadline, seeds = time.time() + 7, iter(range(1, 1000))

    def start():
        return subprocess.Popen([sys.executable, "-c", HAMMER, str(tmp_path), str(next(seeds)), str(deadline)])

    running, killed = [start() for _ in range(4)], 0
    while running:
        for process in list(running):
            if process.poll() is not None:
                running.remove(process)
                assert process.returncode in (0, 9)
                killed += process.returncode == 9
                if time.time() < deadline - 1:
                    running.append(start())
        time.sleep(0.01)
    held = 0
    for file in tmp_path.glob("inside.*"):
        steps = file.read_text().split()
        held += len(steps) // 2
        for entry, leave in zip(steps[::2], steps[1::2], strict=True):
            assert (entry[0], leave[0], entry[1:]) == ("+", "-", leave[1:])
    assert killed >= 1
    assert held >= 20
    remove_expired(tmp_path)
    assert not list(tmp_path.glob("*.claim"))
