"""Files are written whole or not at all; a pipe that closes ends us quietly."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vggscope.errors import OutputError
from vggscope.files import open_whole

PROGRAM = [sys.executable, "-m", "vggscope"]


def test_a_failed_write_keeps_the_old_file_and_leaves_no_other(tmp_path: Path) -> None:
    target = tmp_path / "x.json"
    target.write_text("old")
    with pytest.raises(KeyError), open_whole(str(target)) as file:
        file.write(b"half" + {}["no such key"])
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_written_file_replaces_the_old_one_and_keeps_its_mode(tmp_path: Path) -> None:
    target = tmp_path / "x.json"
    target.write_text("old")
    target.chmod(0o640)
    with open_whole(str(target)) as file:
        file.write(b"new")
    assert target.read_text() == "new"
    assert target.stat().st_mode & 0o777 == 0o640
    assert list(tmp_path.iterdir()) == [target]


def test_a_new_file_gets_the_mode_that_the_umask_says(tmp_path: Path) -> None:
    mask = os.umask(0o027)
    try:
        with open_whole(str(tmp_path / "x")) as file:
            file.write(b"new")
    finally:
        os.umask(mask)
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o640


def test_a_link_is_followed(tmp_path: Path) -> None:
    target, link = tmp_path / "target.json", tmp_path / "link.json"
    target.write_text("old")
    link.symlink_to(target)
    with open_whole(str(link)) as file:
        file.write(b"new")
    assert link.is_symlink()
    assert target.read_text() == "new"


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="is a folder"), open_whole(str(tmp_path)):
        pass


def test_a_device_is_written_to_directly() -> None:
    done = subprocess.run([*PROGRAM, "summary", "A", "-o", "/dev/stdout"], capture_output=True, text=True, check=True)
    assert "132,863,336" in done.stdout
    full = subprocess.run([*PROGRAM, "summary", "A", "-o", "/dev/full"], capture_output=True, text=True, check=False)
    assert full.returncode == 2
    assert full.stderr.count("\n") <= 2
    assert "no space left" in full.stderr


def test_a_full_stdout_is_an_error() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run([*PROGRAM, "summary", "A"], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("vggscope: cannot write to stdout")


def test_a_closed_pipe_ends_quietly() -> None:
    done = subprocess.run(
        ["bash", "-c", f'set -o pipefail; "{sys.executable}" -m vggscope summary E -f json | head -n 1'],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "{\n", "")
