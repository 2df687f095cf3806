"""What becomes of files when a disk is full, a folder is closed, a signal comes or a reader goes away."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

PROGRAM = [sys.executable, "-m", "vggscope"]

WRITERS = {
    "x.json": ("summary", "A"),
    "x.svg": ("diagram", "A"),
    "x.py": ("build", "A"),
    "x.pth": ("build", "conv3-8 FC-10"),
    "x.safetensors": ("build", "conv3-8 FC-10"),
    "x.html": ("report", "A"),
}
"""A command for each way in which a file is written."""


def run(*words: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*PROGRAM, *words], capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]


def check_refused(code: int, err: str) -> None:
    assert code == 2
    assert err.startswith("vggscope: ")
    assert 1 <= err.count("\n") <= 2
    assert "defect" not in err


@pytest.mark.parametrize("name", WRITERS)
def test_a_folder_in_the_way_is_refused(name: str, vggscope, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    ran = vggscope(*WRITERS[name], "-o", str(tmp_path / name))
    check_refused(ran.code, ran.err)
    assert "is a folder" in ran.err
    assert list(tmp_path.iterdir()) == [tmp_path / name]
    assert list((tmp_path / name).iterdir()) == []


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_in_place_of_a_folder_is_refused(name: str, vggscope, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    ran = vggscope(*WRITERS[name], "-o", str(tmp_path / "file" / name))
    check_refused(ran.code, ran.err)
    assert (tmp_path / "file").read_text() == "old"


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_device_is_an_error(name: str, tmp_path: Path, vggscope) -> None:
    """The link's suffix says what is written, the device behind it is full."""
    link = tmp_path / name
    link.symlink_to("/dev/full")
    ran = vggscope(*WRITERS[name], "-o", str(link))
    check_refused(ran.code, ran.err)
    assert os.readlink(link) == "/dev/full"
    assert list(tmp_path.iterdir()) == [link]


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of a few kilobytes with an old file on it; skipped where none can be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", folder], capture_output=True, check=False)
    if made.returncode:
        pytest.skip("no tmpfs can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a tmpfs")
@pytest.mark.parametrize("name", ["x.json", "x.svg", "x.pth", "x.safetensors"])
def test_a_full_disk_keeps_the_old_file(name: str, full_disk: Path, vggscope) -> None:
    (full_disk / name).write_text("old")
    ran = vggscope(*WRITERS[name], "-o", str(full_disk / name))
    check_refused(ran.code, ran.err)
    assert (full_disk / name).read_text() == "old"
    assert list(full_disk.iterdir()) == [full_disk / name]


@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_to_is_refused(tmp_path: Path, vggscope) -> None:
    tmp_path.chmod(0o500)
    try:
        ran = vggscope("summary", "A", "-o", str(tmp_path / "x.json"))
    finally:
        tmp_path.chmod(0o700)
    check_refused(ran.code, ran.err)
    assert "permission denied" in ran.err


def test_a_name_that_is_too_long_is_refused(tmp_path: Path, vggscope) -> None:
    ran = vggscope("summary", "A", "-o", str(tmp_path / ("x" * 300 + ".json")))
    check_refused(ran.code, ran.err)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_several_processes_that_write_one_file_leave_one_whole(tmp_path: Path) -> None:
    target = tmp_path / "x.json"
    words = [[*PROGRAM, "summary", column, "-o", str(target)] for column in "ABDE"]
    for process in [subprocess.Popen(word, stderr=subprocess.PIPE) for word in words]:
        _, err = process.communicate(timeout=60)
        assert (process.returncode, err.startswith(b"wrote "), err.count(b"\n")) == (0, True, 1)
    assert target.read_text() in {run("summary", column, "-f", "json").stdout for column in "ABDE"}
    assert list(tmp_path.iterdir()) == [target]


def files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


SLOW_WRITE = """
import os, signal, time
from vggscope.cli.app import main

def pause(path, mode):
    print("writing", flush=True)
    # A single long sleep is not interrupted by a signal that arrives just before it begins.
    while True:
        time.sleep(0.01)

os.chmod = pause
# The children of a process in a shell's background ignore SIGINT.
signal.signal(signal.SIGINT, signal.default_int_handler)
main()
"""
"""The program, with a write that waits when the new content is written and before it replaces the old file."""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize(("number", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_signal_in_the_middle_of_a_write_keeps_the_old_file(number: str, code: int, tmp_path: Path) -> None:
    target = tmp_path / "x.pth"
    target.write_text("old")
    words = [sys.executable, "-c", SLOW_WRITE, "build", "conv3-8", "--force", "-o", str(target)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "writing\n"
            assert len(files(tmp_path)) == 2
            process.send_signal(getattr(signal, number))
            _, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, err) == (code, "")
    assert target.read_text() == "old"
    assert files(tmp_path) == [target]


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_signal_at_any_time_leaves_no_file(tmp_path: Path) -> None:
    """Sent at times that are spread over the whole of a run."""
    target = tmp_path / "x.json"
    started = time.monotonic()
    assert run("summary", "D", "-o", str(target)).returncode == 0
    whole, took = target.read_text(), time.monotonic() - started
    for part in range(8):
        target.write_text("old")
        process = subprocess.Popen([*PROGRAM, "summary", "D", "-o", str(target)], stderr=subprocess.DEVNULL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(took * (0.3 + part / 8))
        process.terminate()
        assert process.wait(60) in (0, 143, -signal.SIGTERM)
        assert target.read_text() in ("old", whole)
        assert files(tmp_path) == [target]


@pytest.mark.skipif(os.name != "posix", reason="a shell's pipes")
@pytest.mark.parametrize("words", ["--help", "summary --help", "list", "summary E -f json", "explain conv"])
def test_a_reader_that_is_gone_ends_it_quietly(words: str) -> None:
    command = f'"{sys.executable}" -m vggscope {words} | true; exit ${{PIPESTATUS[0]}}'
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(os.name != "posix", reason="a shell's pipes")
@pytest.mark.parametrize("words", ["--help", "--version", "list", "summary A"])
def test_a_full_or_closed_stdout_is_a_sentence(words: str) -> None:
    for where, codes in ((">/dev/full", (2,)), (">&-", (0, 2))):
        command = f'"{sys.executable}" -m vggscope {words} {where}'
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
        assert done.returncode in codes
        assert done.stderr.count("\n") <= 2
        assert "Traceback" not in done.stderr
        assert "defect" not in done.stderr


def test_a_closed_stderr_changes_no_exit_code() -> None:
    for words, code in (("summary A", 0), ("summary Z9", 2)):
        command = f'"{sys.executable}" -m vggscope {words} 2>&- >/dev/null'
        assert subprocess.run(["bash", "-c", command], check=False).returncode == code


def odd_files(folder: Path, suffix: str) -> Iterator[Path]:
    """What may lie where a file is expected."""
    for name, target in {
        "zero": "/dev/zero",
        "full": "/dev/full",
        "loop": "loop" + suffix,
        "folder": str(folder),
    }.items():
        (folder / f"{name}{suffix}").symlink_to(target)
        yield folder / f"{name}{suffix}"
    os.mkfifo(folder / f"fifo{suffix}")
    yield folder / f"fifo{suffix}"
    (folder / f"empty{suffix}").touch()
    yield folder / f"empty{suffix}"
    (folder / f"noise{suffix}").write_bytes(bytes(range(256)) * 4)
    yield folder / f"noise{suffix}"
    yield folder / f"nothing{suffix}"


INPUTS = {
    ".toml": ("summary", "{path}:x"),
    ".py": ("summary", "{path}:Net"),
    ".pth": ("inspect", "{path}"),
    ".safetensors": ("summary", "{path}"),
    ".npy": ("explain", "input", "--image", "{path}"),
    ".png": ("report", "A", "--image", "{path}", "-o", "{folder}/x.html"),
}
"""A command for each kind of file that is read."""


@pytest.mark.skipif(os.name != "posix", reason="devices and pipes")
@pytest.mark.parametrize("suffix", INPUTS)
def test_what_is_no_file_is_refused_and_never_waited_for(suffix: str, tmp_path: Path, vggscope) -> None:
    for path in odd_files(tmp_path, suffix):
        ran = vggscope(*(word.format(path=path, folder=tmp_path) for word in INPUTS[suffix]))
        assert ran.out == ""
        check_refused(ran.code, ran.err)


def test_an_array_that_promises_more_than_it_has_takes_no_memory(tmp_path: Path, vggscope) -> None:
    import io

    import numpy as np

    header = io.BytesIO()
    shape = {"descr": "<f4", "fortran_order": False, "shape": (10**6, 10**6, 3)}
    np.lib.format.write_array_header_1_0(header, shape)
    (tmp_path / "x.npy").write_bytes(header.getvalue() + bytes(100))
    np.savez(tmp_path / "several.npz", one=np.zeros(3))
    (tmp_path / "several.npz").rename(tmp_path / "several.npy")
    for name in ("x.npy", "several.npy"):
        ran = vggscope("explain", "input", "--image", str(tmp_path / name))
        check_refused(ran.code, ran.err)


@pytest.mark.parametrize(
    ("words", "start"), [(("diagram", "A"), b"<svg"), (("build", "A"), b'"""'), (("report", "A"), b"<!DOCTYPE html>")]
)
def test_stdout_as_a_file_has_no_suffix(words: tuple[str, ...], start: bytes) -> None:
    ran = subprocess.run([*PROGRAM, *words, "-o", "/dev/stdout"], capture_output=True, check=False)
    assert ran.returncode == 0
    assert ran.stdout.startswith(start)
    assert ran.stderr.startswith(b"wrote /dev/stdout")


def test_a_reader_of_stdout_as_a_file_may_go_away() -> None:
    """A page is larger than a pipe holds: writing goes on when nobody reads."""
    with subprocess.Popen(
        [*PROGRAM, "report", "A", "-o", "/dev/stdout"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as ran:
        assert ran.stdout is not None
        assert ran.stderr is not None
        ran.stdout.read(10)
        ran.stdout.close()
        assert (ran.wait(60), ran.stderr.read()) == (0, b"")


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/dev/fd"), reason="the system has no /dev/fd")
@pytest.mark.parametrize("target", ["/dev/stdout", "/dev/fd/1"])
@pytest.mark.parametrize(
    "words", [("summary", "FC-5", "--input", "8", "-f", "json"), ("build", "FC-5", "--input", "8"), ("diagram", "A")]
)
def test_stdout_that_is_a_file_is_written_where_it_stands(tmp_path: Path, target: str, words: tuple[str, ...]) -> None:
    with (tmp_path / "out").open("wb") as file:
        file.write(b"before\n")
        file.flush()
        ran = subprocess.run([*PROGRAM, *words, "-o", target], stdout=file, stderr=subprocess.PIPE, check=True)
        file.seek(0, os.SEEK_END)
        file.write(b"after\n")
    piped = subprocess.run([*PROGRAM, *words, "-o", "/dev/stdout"], capture_output=True, check=True)
    assert (tmp_path / "out").read_bytes() == b"before\n" + piped.stdout + b"after\n"
    assert ran.stderr.decode() == f"wrote {target}\n"
