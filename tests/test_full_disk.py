"""A disk that is really full: every command ends in one line, and every finished run is as it was."""

import hashlib
import pathlib
import re
import shutil
import subprocess

import pytest

SWEEP = ["sweep", "--epochs", "1", "--executor", "serial", "-q", "--store"]
TAKES = 200_000
"""Bytes of one run of the built-in model, about; a figure takes as many."""


@pytest.fixture
def disk(tmp_path):
    """A file system of some 900 kB, room for four runs."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=900k", "tmpfs", folder], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"mounting is not possible here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.fixture
def run(command):
    """Runs a command in this process; returns its exit status and standard error."""

    def call(*arguments):
        status, _, error = command(*arguments)
        assert "Traceback" not in error, error
        return status, error

    return call


def digests(store):
    """What stands in each file of a folder."""
    return {
        str(file.relative_to(store)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in pathlib.Path(store).rglob("*")
        if file.is_file()
    }


def check_one_line(result):
    status, error = result
    assert status == 2, error
    (line,) = [line for line in error.splitlines() if line.startswith("batchscape: ")]
    assert re.search("cannot be written|cannot be made|No space left", line), line


@pytest.mark.long
def test_a_full_disk_costs_no_finished_run_and_leaves_nothing_half_written(disk, run):
    store = disk / "store"
    status, error = run(*SWEEP, store, "--batch-size", "320,full", "--seeds", "1")
    assert status == 0, error
    finished = digests(store)
    check_one_line(run(*SWEEP, store, "--batch-size", "320,full", "--seeds", "20"))
    grown = digests(store)
    assert finished.items() <= grown.items()
    assert not [name for name in grown if name.endswith(".tmp")]
    free = shutil.disk_usage(disk).free
    (disk / "filler").write_bytes(b"x" * (free - 4096))
    for command in (
        ["landscape", store, "--around", "full", "--points", "3", "-q"],
        ["landscape", store, "--between", "320", "full", "--points", "3", "-q"],
        ["probe", "--batch-size", "8,16", "--repeats", "1", "-q", "--json", disk / "probe.json"],
        ["noise", store, "--executor", "serial", "-q"],
    ):
        status, error = run(*command)
        if status != 0:  # What is small may still fit.
            check_one_line((status, error))
        whole = {name: digest for name, digest in digests(store).items() if not name.startswith(("figures/", "meas"))}
        assert whole == grown
        assert not [
            file for file in disk.rglob("*") if file.is_file() and (file.suffix == ".tmp" or not file.stat().st_size)
        ]
    (disk / "filler").unlink()
    subprocess.run(["mount", "-o", "remount,size=40m", disk], check=True)
    status, error = run(*SWEEP, store, "--batch-size", "320,full", "--seeds", "3")
    assert status == 0, error
    assert grown.items() <= digests(store).items()


@pytest.mark.long
def test_a_store_that_may_only_be_read_is_read_and_every_write_is_one_line(disk, run):
    store = disk / "store"
    assert run(*SWEEP, store, "--batch-size", "320,full", "--seeds", "1")[0] == 0
    before = digests(disk)
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    assert run("results", store)[0] == 0
    for command in (
        [*SWEEP, store, "--batch-size", "320", "--seeds", "2"],
        ["landscape", store, "--around", "full", "--points", "3", "-q"],
        ["noise", store, "--executor", "serial", "-q"],
        ["sharpness", store, "--executor", "serial", "-q"],
    ):
        status, error = run(*command)
        assert status == 2, error
        assert "Read-only file system" in error
    assert digests(disk) == before
