"""Owners of files, and files written whole or not at all."""

import dataclasses
import os
import subprocess
import sys

import pytest

from batchscape.errors import StoreError
from batchscape.system import atomic, owner
from batchscape.system.owner import Owner


def test_an_owner_survives_its_text():
    me = Owner.me()
    assert Owner.parse(str(me)) == me
    assert Owner.parse("4242") is None
    assert Owner.parse(f"{me}-1") is None


def test_a_process_is_alive_by_host_boot_number_and_start_time():
    me = Owner.me()
    assert me.is_local
    assert not me.is_dead
    assert dataclasses.replace(me, start=me.start - 60_000).is_dead, "a number that is used again is another process"
    assert dataclasses.replace(me, boot="0" * 8).is_dead
    elsewhere = dataclasses.replace(me, host="0" * 8, process=2**22 + 1)
    assert not elsewhere.is_dead, "nobody here can tell"


def test_a_process_that_has_ended_is_dead():
    code = "from batchscape.system.owner import Owner; print(Owner.me())"
    ended = Owner.parse(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip())
    assert ended.host == Owner.me().host
    assert ended.is_dead


def test_a_process_that_nobody_has_waited_for_is_dead():
    """In a container without an init process it keeps its number and start time for ever."""
    with subprocess.Popen(["sleep", "60"]) as process:
        was = Owner(*owner._machine(), process.pid, owner._start_of(process.pid))
        assert not was.is_dead
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # It has ended, and still has its number.
        assert was.is_dead


def test_a_number_beyond_all_processes_is_dead():
    assert dataclasses.replace(Owner.me(), process=2**70).is_dead


def test_the_start_time_is_read_alike_by_another_process():
    code = f"from batchscape.system import owner; print(owner._start_of({os.getpid()}))"
    seen = int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout)
    assert abs(seen - Owner.me().start) <= 1000 * owner.SAME_START


def test_a_file_that_fails_half_way_leaves_the_old_one_and_nothing_else(tmp_path):
    file = tmp_path / "folder" / "a.txt"
    atomic.write(file, "old")

    def half():
        with atomic.replacing(file) as path:
            path.write_text("ne")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        half()
    assert file.read_text() == "old"
    assert [f.name for f in file.parent.iterdir()] == ["a.txt"]


def test_a_device_and_a_pipe_are_written_to_and_a_link_stays_a_link(tmp_path):
    """As root, a rename would put a file in the place of /dev/null."""
    pipe, link, file = tmp_path / "pipe", tmp_path / "link", tmp_path / "file"
    os.mkfifo(pipe)
    link.symlink_to(file)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    for target in (pipe, link):
        atomic.require_writable(target)
        atomic.write(target, "all of it")
    assert os.read(reader, 100) == b"all of it"
    os.close(reader)
    assert pipe.is_fifo()
    assert link.is_symlink()
    assert file.read_text() == "all of it"


def test_asking_whether_a_file_can_be_written_makes_nothing(tmp_path):
    atomic.require_writable(tmp_path / "a" / "b" / "file.txt")
    assert not list(tmp_path.iterdir())
    (tmp_path / "a").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        atomic.require_writable(tmp_path / "a" / "b" / "file.txt")


def test_a_folder_that_is_a_file_is_told_in_one_line(tmp_path):
    (tmp_path / "a").write_text("")
    with pytest.raises(StoreError, match=r"a/b cannot be written: (Not a directory|File exists)"):
        atomic.write(tmp_path / "a" / "b", b"")
