"""What Windows and macOS have and lack, as far as Linux can show it: paths, encodings, ends of lines, functions.

The workflow in .github/workflows/check.yml runs the quick tests on these systems.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from vggscope.sources.code import parse
from vggscope.sources.resolve import SOURCES

ROOT = Path(__file__).parent.parent

WORDS = {
    r"C:\models\my_vgg.py:Net": "code",
    r"C:\models\my_vgg.py": "code",
    r"..\my_vgg.py:Net(num_classes=10)": "code",
    r"C:\models\nb.ipynb:Net": "code",
    r"C:\models\vgg16.pth": "checkpoint",
    r"C:\my models\weights.safetensors": "checkpoint",
    r"\\server\share\vgg16.pth": "checkpoint",
    r"C:vgg16.pth": "checkpoint",
    r"D:\columns.toml:small": "columns",
    r"D:\models\net.onnx": "onnx",
    r"E:\arch.json": "lock",
    "E:/arch.json": "lock",
    r"C:\caffe\deploy.prototxt": "caffe",
}
"""Words with paths of Windows, where a drive's letter is also a column of Table 1, and their sources."""


@pytest.mark.parametrize("word", WORDS)
def test_a_path_of_windows_is_of_its_kind(word: str) -> None:
    assert next(source.file for source in SOURCES if source.claims(word)) == WORDS[word]


def test_the_class_after_a_drive_s_colon_is_the_last_name() -> None:
    call = parse(r"C:\models\my_vgg.py:Net(num_classes=10)")
    assert (call.where, call.name, call.kwargs) == (r"C:\models\my_vgg.py", "Net", (("num_classes", 10),))


NET = """\
from torch import nn

class Net(nn.Sequential):
    "Größe: 3×3"
    def __init__(self):
        super().__init__(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
"""

COMMANDS = (
    ("summary", "D"),
    ("diagram", "E", "-o", "e.svg"),
    ("diff", "net.py:Net", "--ref", "conv3-8 maxpool", "-o", "diff.html"),
    ("diff", "net.py:Net", "--ref", "conv3-8/p0 maxpool", "--patch", "-o", "fix.diff"),
    ("compare", "A", "torchvision:alexnet", "--jobs", "1"),
    ("lock", "columns.toml:small", "-o", "arch.json"),
    ("report", "A", "-o", "a.html"),
)

CODE = """
import json, os, signal, sys, warnings
for module, names in json.loads(sys.argv[1]).items():
    for name in names:
        if hasattr(sys.modules[module], name):
            delattr(sys.modules[module], name)
for name in ("fcntl", "pwd", "grp", "resource", "termios", "tty", "pty"):
    sys.modules[name] = None
if hasattr(__builtins__, "EncodingWarning"):
    warnings.filterwarnings("error", category=EncodingWarning, module="vggscope")
from vggscope.cli.app import run
sys.exit(max(run(words) for words in json.loads(sys.argv[2])))
"""

MISSING = {
    "signal": ["SIGHUP", "SIGKILL", "SIGPIPE", "SIGALRM", "pthread_kill"],
    "os": [
        "sched_getaffinity",
        "sysconf",
        "getuid",
        "geteuid",
        "getgid",
        "fchmod",
        "chown",
        "O_NOFOLLOW",
        "O_NONBLOCK",
    ],
}
"""What Windows does not have."""


@pytest.mark.slow
def test_without_what_windows_lacks_and_with_its_encoding_commands_work(tmp_path: Path) -> None:
    """Ends of lines are those of Windows, text that is printed is in cp1252, and no file is opened in a system's own
    encoding.
    """
    (tmp_path / "net.py").write_bytes(NET.replace("\n", "\r\n").encode())
    (tmp_path / "columns.toml").write_bytes(b'[columns]\r\nsmall = "conv3-8 maxpool FC-10"\r\n')
    env = {**os.environ, "PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-X", "warn_default_encoding", "-c", CODE, json.dumps(MISSING), json.dumps(COMMANDS)]
    done = subprocess.run(command, capture_output=True, cwd=tmp_path, env=env, check=False)
    said = done.stderr.decode("cp1252")
    assert done.returncode == 1, said  # of diff: the padding differs
    assert "defect" not in said
    assert "vggscope: " not in said
    assert "─" not in done.stdout.decode("cp1252")
    written = sorted(path.name for path in tmp_path.iterdir() if path.is_file())
    assert written == ["a.html", "arch.json", "columns.toml", "diff.html", "e.svg", "fix.diff", "net.py"]
    assert (tmp_path / "diff.html").read_text(encoding="utf-8")
    assert b"\r\n" in (tmp_path / "fix.diff").read_bytes()  # a patch of lines that end so
    assert (tmp_path / "e.svg").read_text(encoding="utf-8").startswith("<")
