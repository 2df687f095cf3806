"""Completion: the candidates, each shell's protocol, the modules that are loaded, and real shells at a terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import shutil
import struct
import subprocess
import sys
import termios
import time
from dataclasses import replace
from pathlib import Path

import pytest

from vggscope.cli.app import COMMANDS, app, run
from vggscope.cli.completion import COMPLETION_VARIABLE, answer
from vggscope.cli.completion.words import candidates
from vggscope.sources.cache import remembered
from vggscope.sources.resolve import resolve
from vggscope.vgg.options import BuildOptions

FREE = {
    *("--input", "--num-classes", "--batch", "--dpi", "--width", "--seed", "--unit", "--samples", "--accumulate"),
    *("--top", "--jobs"),
    *(
        "--gpus",
        "--title",
        "--caption",
        "--context",
        "--workspace",
        "--weight-decay",
        "--sizes",
        "--batches",
        "--size",
        "--kernel",
        "--stride",
        "--padding",
    ),
    *("--channels", "--shape", "--batch-axis"),
}
"""Options without candidates: their value is a number, a size or a place."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a file of each kind; the Python file makes the file `ran` if it is run."""
    (tmp_path / "my_vgg.py").write_text(
        "from pathlib import Path\n"
        "Path('ran').touch()\n"
        "from torch import nn\n"
        "class Net(nn.Module): pass\n"
        "class Other(nn.Module): pass\n"
        "class Plain: pass\n"
        "def make_net(): return Net()\n"
        "def _hidden(): pass\n"
    )
    (tmp_path / "columns.toml").write_text('[columns]\nsmall = "conv3-8 FC-10"\nlarge = "conv3-64 FC-10"\n')
    for name in (
        "weights/a.pth",
        "weights/b c.pt",
        "deep/only/x.safetensors",
        "notes.txt",
        "photo.jpg",
        "data.npy",
        "arch.json",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def asked(*words: str) -> list[str]:
    """The candidates for the last word, after the others."""
    return [value for value, _ in candidates(app, COMMANDS, words[:-1], words[-1])]


WORDS = [
    (("",), {"summary", "diff", "list"}, {"--help"}),
    (("su",), {"summary"}, {"diff"}),
    (("-",), {"--version", "--install-completion"}, {"summary"}),
    (
        ("summary", ""),
        {"A", "A-LRN", "vgg16", "vgg16_bn", "torchvision:", "my_vgg.py", "arch.json", "weights/"},
        {"notes.txt", "ran"},
    ),
    (("summary", "D_"), {"D_bn"}, {"D"}),
    (("summary", "tor"), {"torchvision:vgg16", "torchvision:resnet50"}, {"torchvision:"}),
    (("summary", "my"), {"my_vgg.py:Net", "my_vgg.py:make_net"}, {"my_vgg.py:Plain", "my_vgg.py:_hidden", "my_vgg.py"}),
    (("summary", "my_vgg.py:O"), {"my_vgg.py:Other"}, {"my_vgg.py:Net"}),
    (("summary", "columns.toml:"), {"columns.toml:small", "columns.toml:large"}, set()),
    (("summary", "deep"), {"deep/only/x.safetensors"}, {"deep/"}),
    (("summary", "weights/"), {"weights/a.pth", "weights/b c.pt"}, set()),
    (("inspect", ""), {"weights/", "deep/"}, {"my_vgg.py", "A"}),
    (("compare", "A", "v"), {"vgg19"}, {"A"}),
    (("rf", "D", "--at", ""), {"conv1_1", "pool5"}, {"features.0"}),
    (("rf", "D", "--at", "features.2"), {"features.2", "features.28"}, {"conv1_1"}),
    (("rf", "D", "--at", "conv5_1,conv5_"), {"conv5_1,conv5_2", "conv5_1,conv5_3"}, {"conv5_1,conv5_1", "conv5_2"}),
    (("rf", "torchvision:vgg11_bn", "--at", "conv5"), {"conv5_2"}, {"conv5_3"}),
    (("rf", "columns.toml:small", "--at", ""), {"conv1_1"}, {"conv1_2"}),
    (("rf", "D", "--input", "3x64x64", "--at", "conv1"), {"conv1_1", "conv1_2"}, set()),
    (("rf", "conv3-8 conv3-8 FC-10", "--at", ""), {"conv1_2"}, set()),
    (("build", "D", "--at", "fea"), {"features", "features.28"}, set()),
    (("explain", ""), {"conv", "why-tools-disagree", "D"}, set()),
    (("explain", "D", "conv3"), {"conv3_1", "conv3_3"}, {"conv1_1", "conv"}),
    (("explain", "D", "--head", "dense", "classifier"), {"classifier.0"}, set()),
    (("explain", "conv", ""), {"D"}, {"conv"}),
    (("diff", "A", "--ref", ""), {"torchvision", "timm", "paper", "D", "my_vgg.py", "arch.json"}, set()),
    (("diff", "A", "--ref=pa"), {"--ref=paper"}, set()),
    (("diff", "A", "--ignore", "names,"), {"names,dropout"}, {"names,names"}),
    (("summary", "D", "--columns", "layer,"), set(), {"layer,x"}),
    (("summary", "D", "--columns", "name,pa"), {"name,params", "name,padding"}, set()),
    (("summary", "D", "--format", ""), {"table", "json", "csv", "markdown"}, set()),
    (("summary", "D", "--gpu", "RTX 4"), {"RTX 4090", "RTX 4080"}, {"T4"}),
    (("diagram", "E", "--style", ""), {"blocks", "layers", "volumes", "table"}, set()),
    (("diagram", "E", "--theme", ""), {"light", "dark", "paper", "warm", "slides", "blueprint"}, set()),
    (("diagram", "E", "--heat", ""), {"macs"}, {"rule"}),
    (("diagram", "E", "--annotate", "shape,"), {"shape,rule"}, set()),
    (("diagram", "E", "-o", "vgg"), {"vgg.svg", "vgg.png", "vgg.pdf", "vgg.dot", "vgg.tex"}, {"vgg.json"}),
    (("diagram", "E", "-o", "vgg.s"), {"vgg.svg"}, {"vgg.png"}),
    (("summary", "D", "-o", "weights/x"), {"weights/x.json", "weights/x.csv", "weights/x.svg"}, {"weights/x.dot"}),
    (("memory", "D", "-o", "x"), {"x.json", "x.svg"}, set()),
    (("compare", "D", "-o", "x"), {"x.json", "x.svg"}, set()),
    (("report", "D", "-o", "x"), {"x.html"}, {"x.json"}),
    (("build", "D", "-o", "x"), {"x.py", "x.pth", "x.safetensors", "x.onnx"}, {"x.json"}),
    (("memory", "D", "--mode", ""), {"train", "inference", "finetune-head"}, set()),
    (("memory", "D", "--optimizer", "ad"), {"adam", "adamw"}, {"sgd"}),
    (("memory", "D", "--dtype", ""), {"amp", "bfloat16"}, set()),
    (("memory", "D", "--parallel", ""), {"ddp", "fsdp"}, set()),
    (("compare", "A", "--grid", "--modes", "train,"), {"train,inference"}, set()),
    (("explain", "input", "--image", ""), {"photo.jpg", "data.npy"}, {"notes.txt"}),
    (("summary", "D", "--"), {"--columns", "--input"}, {"-o"}),
    (("summary", "D", "--input", "3x32x32", "--in"), set(), {"--input"}),
    (("diagram", "D", "--no-"), {"--no-fold"}, set()),
    (("summary", "D", ""), {"--columns"}, {"A"}),
    (("nonsense", ""), set(), set()),
]


@pytest.mark.parametrize(("words", "offered", "not_offered"), WORDS, ids=[" ".join(words) for words, *_ in WORDS])
def test_candidates_at_the_cursor(folder, words, offered, not_offered) -> None:
    found = asked(*words)
    assert offered <= set(found)
    assert not not_offered & set(found)
    assert len(found) == len(set(found))
    assert all(value.startswith(words[-1]) for value in found)
    assert not (folder / "ran").exists()


def test_every_option_with_words_of_its_own_completes_them(folder) -> None:
    """Every option has candidates unless it is in FREE, so that a new option must name its completion."""
    from typer.main import get_command

    from vggscope.cli.app import app

    root = get_command(app)
    for name in COMMANDS:
        for param in root.get_command(None, name).params:
            if param.param_type_name == "argument":
                assert asked(name, "")
            elif not param.is_flag:
                option = max(param.opts, key=len)
                words = (name, option, "x" if option == "--output" else "")
                given = ("D",) if option in ("--at", "--of", "--only") else ()
                assert bool(asked(name, *given, *words[1:])) == (option not in FREE), f"{name} {option}"


@pytest.mark.parametrize(
    ("command", "option"),
    [
        *((("summary", "conv3-8 FC-10"), f"--{name}") for name in ("head", "dtype", "format", "count", "depth", "gpu")),
        *((("memory", "conv3-8 FC-10"), f"--{name}") for name in ("mode", "optimizer", "dtype", "parallel", "gpu")),
        (("summary", "conv3-8 FC-10"), "--columns"),
        (("diff", "D", "--ref", "D"), "--ignore"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_offered_values_are_accepted(vggscope, command, option) -> None:
    offered = asked(*command, option, "")
    assert offered
    for value in offered:
        ran = vggscope(*command, option, value)
        assert "unknown" not in ran.err
        assert ran.code == 0 or "no figure is known" in ran.err


@pytest.mark.parametrize("library", ["torchvision", "timm"])
def test_names_in_the_source_equal_the_librarys_models(library) -> None:
    from vggscope.sources.library_names import names_in

    pytest.importorskip(library)
    if library == "timm":
        from timm import list_models

        theirs = list_models()
    else:
        from torchvision import models

        theirs = models.list_models()
    assert set(names_in(library)) == set(theirs)


def test_layers_of_a_librarys_model_come_from_the_cache(tmp_path, monkeypatch) -> None:
    pytest.importorskip("torchvision")
    monkeypatch.setenv("VGGSCOPE_CACHE", str(tmp_path))
    assert asked("rf", "torchvision:squeezenet1_1", "--at", "") == []
    options = BuildOptions(input=(3, 64, 64), cache=False)
    network = resolve("torchvision:squeezenet1_1", options)
    remembered("torchvision:squeezenet1_1", replace(options, cache=True), lambda: network)
    assert "features.3.squeeze" in asked("rf", "torchvision:squeezenet1_1", "--at", "features.3.s")


# The protocol of each shell: its question and the answer.


def ask(monkeypatch, **environment: str) -> str:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return answer(app, COMMANDS)


def bash(monkeypatch, *words: str) -> list[str]:
    environment = {"COMP_WORDS": "\n".join(("vggscope", *words)), "COMP_CWORD": str(len(words))}
    return ask(monkeypatch, **{COMPLETION_VARIABLE: "complete_bash"}, **environment).split("\n")


def test_bash_splits_words_at_colons_and_equals_signs(folder, monkeypatch) -> None:
    assert "vgg16_bn" in bash(monkeypatch, "summary", "torchvision", ":", "vgg16")
    assert "alexnet" in bash(monkeypatch, "summary", "torchvision", ":")
    assert bash(monkeypatch, "summary", "my_vgg.py", ":", "N") == ["Net"]
    assert "torchvision:vgg16" in bash(monkeypatch, "summary", "torchvision:vgg1")  # where it does not part them
    assert bash(monkeypatch, "diff", "A", "--ref", "=", "pap") == ["paper"]
    assert "paper" in bash(monkeypatch, "diff", "A", "--ref", "=")
    assert "vgg11_bn" in bash(monkeypatch, "diff", "A", "--ref", "=", "torchvision", ":", "vgg1")
    assert "conv5_3" in bash(monkeypatch, "rf", "torchvision", ":", "vgg16", "--at", "conv5")


def test_bash_gets_blanks_escaped_unless_it_is_in_quotes(folder, monkeypatch) -> None:
    assert bash(monkeypatch, "summary", "D", "--gpu", "RTX\\ 409") == ["RTX\\ 4090"]
    assert bash(monkeypatch, "summary", "D", "--gpu", "'RTX 409") == ["RTX 4090"]
    assert bash(monkeypatch, "inspect", "weights/b") == ["weights/b\\ c.pt"]


HOSTILE = [
    "x$(touch ran).pth",
    "x`touch ran`.pth",
    "x;touch ran.pth",
    'x"y.pth',
    "x'y.pth",
    "x\\y.pth",
    "x!1.pth",
    "x:y.pt",
]


@pytest.fixture
def hostile(folder) -> list[str]:
    """Files in the folder whose names a shell could run or expand."""
    for name in HOSTILE:
        (folder / name).touch()
    (folder / "x\ny.pth").touch()  # a shell cannot show this name
    return HOSTILE


def test_bash_runs_nothing_in_a_file_name(folder, hostile, monkeypatch) -> None:
    """The inserted text expands to the name itself, inside and outside quotes, and runs nothing."""
    for quote, not_there in (("", "\n"), ('"', "!"), ("'", "'")):
        found = bash(monkeypatch, "inspect", f"{quote}x")
        typed = "\n".join(f"printf '%s\\n' {quote}{word}{quote}" for word in found)
        done = subprocess.run(["bash", "-c", typed], capture_output=True, text=True, check=True)
        assert sorted(done.stdout.splitlines()) == sorted(name for name in hostile if not_there not in name)
    assert not (folder / "ran").exists()


def test_zsh_runs_nothing_in_a_file_name(folder, hostile, monkeypatch) -> None:
    if shutil.which("zsh") is None:
        pytest.skip("no zsh here")
    reply = ask(monkeypatch, **{COMPLETION_VARIABLE: "complete_zsh"}, _TYPER_COMPLETE_ARGS="vggscope inspect x")
    (folder / "reply").write_text(reply)
    script = "_describe() { print -rl -- $found }; eval $(cat reply)"
    done = subprocess.run(["zsh", "-f", "-c", script], capture_output=True, text=True, check=True)
    assert sorted(re.sub(r"\\(.)", r"\1", line) for line in done.stdout.splitlines()) == sorted(hostile)
    assert not (folder / "ran").exists()


def test_the_answer_to_zsh_is_shell_code(folder, monkeypatch) -> None:
    def zsh(line: str) -> str:
        return ask(monkeypatch, **{COMPLETION_VARIABLE: "complete_zsh"}, _TYPER_COMPLETE_ARGS=line)

    assert "found=('torchvision\\:vgg19' 'torchvision\\:vgg19_bn')" in zsh("vggscope summary torchvision:vgg19")
    assert "'summary:shapes with the rule, " in zsh("vggscope ")
    assert zsh("vggscope rf D --unit ") == "_files"


def test_fish_gets_values_with_explanations(folder, monkeypatch) -> None:
    fish = {COMPLETION_VARIABLE: "complete_fish", "_TYPER_COMPLETE_ARGS": "vggscope diagram E --style "}
    found = ask(monkeypatch, **fish, _TYPER_COMPLETE_FISH_ACTION="get-args").split("\n")
    assert "blocks\ta stage a card, its layers listed in it" in found


def test_powershell_gets_values_with_explanations(folder, monkeypatch) -> None:
    def powershell(line: str, word: str) -> list[str]:
        environment = {"_TYPER_COMPLETE_ARGS": line, "_TYPER_COMPLETE_WORD_TO_COMPLETE": word}
        return ask(monkeypatch, **{COMPLETION_VARIABLE: "complete_powershell"}, **environment).split("\n")

    assert powershell("vggscope summary torchvision:vgg19", "torchvision:vgg19")[0] == "torchvision:vgg19::: "
    assert powershell("vggscope memory D --gpu", "")[0] == "'GTX Titan Black'::: "
    assert [line.split(":::")[0] for line in powershell("vggscope s", "s")] == ["summary"]


BROKEN = [
    {"COMP_WORDS": "vggscope\nsummary\nbroken.py\n:\n", "COMP_CWORD": "4"},
    {"COMP_WORDS": "vggscope\nrf\ncolumns.toml\n:\nx\n--at\n", "COMP_CWORD": "6"},
    {"COMP_WORDS": "vggscope\nrf\nQ9\n--at\n", "COMP_CWORD": "4"},
    {"COMP_WORDS": "vggscope\nrf\nD\n--input\nx\n--at\n", "COMP_CWORD": "6"},
    {"COMP_WORDS": "vggscope\nsummary\nno/such/folder/", "COMP_CWORD": "2"},
    {"COMP_WORDS": "vggscope\nsummary\n\x00", "COMP_CWORD": "2"},
    {"COMP_WORDS": "vggscope", "COMP_CWORD": "x"},
    {},
]


@pytest.mark.parametrize("environment", BROKEN, ids=lambda value: value.get("COMP_WORDS", "").replace("\n", " "))
def test_a_failure_prints_nothing(folder, monkeypatch, capfd, environment) -> None:
    (folder / "broken.py").write_text("class Net(:\n")
    (folder / "columns.toml").write_text("[columns\n")
    if "\x00" not in environment.get("COMP_WORDS", ""):
        assert ask(monkeypatch, **{COMPLETION_VARIABLE: "complete_bash"}, **environment) == ""
    assert ask(monkeypatch, **{COMPLETION_VARIABLE: "complete_tcsh"}) == ""
    assert capfd.readouterr() == ("", "")


ASKING = [
    "summary torchvision : vgg1",
    "summary timm : vgg1",
    "summary my_vgg.py : N",
    "rf D --at conv5",
    "rf torchvision : resnet50 --at la",
    "rf my_vgg.py : Net --at c",
    "rf weights/a.pth --at c",
    "explain D conv3",
    "diff A --ref t",
    "memory D --gpu R",
    "diagram E --style b",
    "compare A --grid --optimizers s",
    "report D --r",
    "verify D --f",
    "s",
]


@pytest.mark.parametrize("line", ASKING)
def test_no_completion_loads_a_heavy_package(folder, line) -> None:
    """Completion loads only the packages that any command loads, and runs no code of the user."""
    words = line.split(" ")
    code = "import sys, vggscope.cli.app as cli; from vggscope.cli.completion import answer;"
    code += " answer(cli.app, cli.COMMANDS); print(*sys.modules)"
    environment = {**os.environ, COMPLETION_VARIABLE: "complete_bash", "COMP_CWORD": str(len(words))}
    environment["COMP_WORDS"] = "\n".join(("vggscope", *words))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    names = {name.partition(".")[0] for name in done.stdout.split() if not name.startswith("_")}
    assert names - set(sys.stdlib_module_names) <= {"vggscope", "typer", "annotated_doc", "shellingham", "platformdirs"}
    assert not (folder / "ran").exists()


def test_an_unknown_shell_is_an_error(monkeypatch, capsys) -> None:
    import shellingham

    monkeypatch.setattr(shellingham, "detect_shell", lambda: ("tcsh", "/bin/tcsh"))
    assert run(["--install-completion"]) == 2
    assert capsys.readouterr().err.startswith("vggscope: no completion for tcsh\nthere is one for bash, zsh, fish")


# Real shells, at a terminal.


def typed(shell: list[str], keys: str, wanted: str, home: Path, folder: Path) -> str:
    """The text on a shell's terminal after `keys` are typed, once `wanted` appears or 30 seconds have passed."""
    environment = {
        "HOME": str(home),
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "TERM": "xterm",
        "PS1": "$ ",
        "LANG": "C.UTF-8",
    }
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(folder)
        os.execvpe(shell[0], shell, environment)
    # A wide terminal: a prompt with a long path must not wrap the line.
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 400, 0, 0))
    seen = ""
    try:
        seen = _until(terminal, ("$ ", "% ", "# ", "> "), seen)
        time.sleep(0.5)  # the shell reads keys shortly after it shows its prompt
        os.write(terminal, keys.encode())
        return _until(terminal, (wanted,), seen)
    finally:
        os.close(terminal)
        os.kill(pid, 9)
        os.waitpid(pid, 0)


def _until(terminal: int, wanted: tuple[str, ...], seen: str) -> str:
    end = time.monotonic() + 30
    while time.monotonic() < end and not any(text in seen for text in wanted):
        if select.select([terminal], [], [], 0.2)[0]:
            try:
                seen += re.sub(
                    r"\x1b\[[0-9;?]*[a-zA-Z]|\x1b[=>]|[\r\a]", "", os.read(terminal, 65536).decode(errors="replace")
                )
            except OSError:
                break
    return seen


SHELLS = {
    "bash": (["bash", "-i"], "~/.bash_completions/vggscope.sh"),
    "zsh": (["zsh", "-i"], "~/.zfunc/_vggscope"),
    "fish": (["fish", "-i"], "~/.config/fish/completions/vggscope.fish"),
}


@pytest.mark.slow
@pytest.mark.parametrize("shell", list(SHELLS))
def test_a_real_shell_completes_at_the_first_tab(folder, tmp_path_factory, shell) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    if not (Path(sys.executable).parent / "vggscope").exists():
        pytest.skip("vggscope is not installed as a program")
    home = tmp_path_factory.mktemp("home")
    (home / ".zshrc").touch()
    command, written = SHELLS[shell]
    install = "vggscope --install-completion; true"  # the second command keeps the shell running to be detected
    environment = {**os.environ, "HOME": str(home), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run([shell, "-c", install], env=environment, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert Path(written.replace("~", str(home))).exists()
    for keys, wanted in (
        ("vggscope summary my_vgg.py:O\t", "my_vgg.py:Other"),
        ("vggscope summary torchvision:vgg16_\t", "torchvision:vgg16_bn"),
        ("vggscope rf D --at conv1_1,fl\t", "conv1_1,flatten"),
        ("vggscope memory D --gpu=T4 --opt\t", "--optimizer"),
        ("vggscope inspect weights/a\t", "weights/a.pth"),
    ):
        assert wanted in typed(command, keys, wanted, home, folder)
