"""Words that name the user's own code: what they give, what is said where they are wrong, and a stdout kept clean."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from vggscope.errors import OptionError, VggscopeError
from vggscope.graph import Network
from vggscope.sources.resolve import resolve, resolve_module
from vggscope.vgg.options import BuildOptions

NETS = str(Path(__file__).parent / "models" / "nets.py")
HEAD = "from torch import nn\n"


def ops(network: Network) -> list[str]:
    return [node.op.name for node in network.nodes]


def written(folder: Path, text: str, name: str = "net.py") -> str:
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


def refused(word: str, options: BuildOptions | None = None) -> VggscopeError:
    with pytest.raises(VggscopeError) as caught:
        resolve(word, options)
    assert caught.value.exit_code == 2
    assert len(str(caught.value).splitlines()) <= 2
    return caught.value


def test_a_class_of_a_file_that_imports_from_beside_it() -> None:
    network = resolve(f"{NETS}:Digits")
    assert (network.name, network.input_shape) == (f"{NETS}:Digits", (1, 1, 28, 28))
    assert network.shapes["fc"] == (1, 10)


def test_arguments_are_literals() -> None:
    network = resolve(f"{NETS}:Digits(num_classes=3, width=4)")
    assert network.shapes["fc"] == (1, 3)
    assert network.shapes["conv"] == (1, 4, 28, 28)
    assert len(resolve(f"{NETS}:stacked(3)").nodes) == 3
    error = refused(f"{NETS}:Digits(num_classes=open('x'))")
    assert error.problem == "the arguments (num_classes=open('x')) are not literals"


def test_a_module_by_its_dotted_name() -> None:
    assert ops(resolve("tests.models.nets:stacked")) == ["Conv2d", "Conv2d"]


def test_a_module_that_is_there_already() -> None:
    assert ops(resolve(f"{NETS}:ready")) == ["Conv2d", "ReLU"]
    assert refused(f"{NETS}:ready(1)").problem == "ready is a module already, it takes no arguments"


def test_classes_are_handed_on_where_they_are_taken() -> None:
    assert resolve(f"{NETS}:Digits", BuildOptions(num_classes=5)).shapes["fc"] == (1, 5)
    with pytest.raises(OptionError, match="num_classes: stacked has no argument num_classes"):
        resolve(f"{NETS}:stacked", BuildOptions(num_classes=5))
    with pytest.raises(OptionError, match="head and batch_norm"):
        resolve(f"{NETS}:Digits", BuildOptions(head="dense", batch_norm=True))


def test_a_word_gives_the_module_itself_with_weights() -> None:
    module = resolve_module(f"{NETS}:Digits(width=2)")
    assert [tuple(p.shape) for p in module.parameters()][:2] == [(2, 1, 3, 3), (2,)]
    assert not any(p.is_meta for p in module.parameters())


def test_lazy_layers_take_the_input_that_is_given() -> None:
    for side in (8, 12):
        network = resolve(f"{NETS}:Lazy", BuildOptions(input=(3, side, side)))
        assert network.shapes["fc"] == (1, 5)
        assert sum(p.shape[-1] for p in network.parameters() if p.name == "fc.weight") == 4 * (side - 2) ** 2


def test_a_missing_name_is_answered_with_those_that_there_are() -> None:
    error = refused(f"{NETS}:Digit")
    assert error.problem == f"{NETS} has no 'Digit'"
    assert error.remedy.startswith("it has Digits, ")
    assert "Settings" not in error.remedy
    assert refused(NETS).problem == f"{NETS} names no class"
    assert f"{NETS}:Digits or " in refused(NETS).remedy


ONE = """
import torch
from torch import nn
from torch.nn import Linear

print("once")

class Net(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.fc = nn.Linear(8, width)

    def forward(self, x):
        return self.fc(x)

def shifted(x):
    return x + 1
"""

OTHER = """
class Other(Net):
    pass
"""

MAKER = """
def make():
    return Net(5)
"""


@pytest.mark.parametrize(
    ("text", "name", "width"),
    [
        (ONE, "Net", 4),
        (ONE + MAKER, "Net", 4),
        (ONE.replace("width=4", "width") + MAKER, "make", 5),
        (ONE + "\nclass Config:\n    pass\n", "Net", 4),
        ("from torch import nn\n\ndef make():\n    return nn.Linear(8, 3)\n", "make", 3),
        ("from torch import nn\n\nnet = nn.Linear(8, 3)\n", "net", 3),
    ],
)
def test_the_only_model_of_a_file_needs_no_name(tmp_path: Path, capfd, text: str, name: str, width: int) -> None:
    word = written(tmp_path, text)
    network = resolve(word, BuildOptions())
    assert network.outputs[0].shape == (1, width)
    assert f"{word} names no class: its only one, {name}, was taken" in network.warnings
    assert capfd.readouterr().err.count("once") == text.count("once")


@pytest.mark.parametrize(
    ("text", "names"),
    [(ONE + OTHER, ("Net", "Other")), (ONE.replace("width=4", "width"), ("Net",)), ("x = 1\n", ())],
)
def test_a_file_of_several_models_names_them(tmp_path: Path, text: str, names: tuple[str, ...]) -> None:
    word = written(tmp_path, text)
    words = " or ".join(f"{word}:{name}" for name in names)
    assert refused(word).remedy == (f"write {words}" if words else "it has no nn.Module")


def test_what_is_no_module_is_refused() -> None:
    assert refused(f"{NETS}:Settings").problem == f"Settings in {NETS} is not an nn.Module"


def test_a_factory_of_something_else_is_refused(tmp_path: Path) -> None:
    assert (
        refused(written(tmp_path, "def make(): return 5\n") + ":make").problem == "make returns int, not an nn.Module"
    )


def test_arguments_that_are_needed_are_named(tmp_path: Path) -> None:
    path = written(tmp_path, HEAD + "class Net(nn.Module):\n    def __init__(self, depth, width=4): ...\n")
    error = refused(f"{path}:Net")
    assert error.problem == "Net(depth, width=4): missing a required argument: 'depth'"
    assert error.remedy == f'give its arguments in the word, in quotes for the shell: "{path}:Net(...)"'


@pytest.mark.parametrize(
    ("text", "problem", "line"),
    [
        ("x = [\n", "SyntaxError: '[' was never closed", "line 1: x = ["),
        (
            "import torch\nimport not_there\n",
            "ModuleNotFoundError: No module named 'not_there'",
            "line 2: import not_there",
        ),
        ("import sys\nsys.exit(0)\n", "it calls sys.exit", "line 2: sys.exit(0)"),
        ("def f():\n    return 1 / 0\nf()\n", "ZeroDivisionError: division by zero", "line 2: return 1 / 0"),
    ],
)
def test_an_error_while_importing_has_its_line(tmp_path: Path, text: str, problem: str, line: str) -> None:
    path = written(tmp_path, text)
    error = refused(f"{path}:Net")
    assert error.problem == f"cannot import {path}: {problem}"
    assert error.remedy.partition("; ")[0] == f"{path}, {line}"
    assert ("__main__" in error.remedy) is ("sys.exit" in text)


def test_an_error_while_building_has_its_line(tmp_path: Path) -> None:
    text = HEAD + "class Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
    text += "        self.fc = nn.Linear(width, 2)\n"
    path = written(tmp_path, text)
    error = refused(f"{path}:Net")
    assert error.problem == "Net cannot be built: NameError: name 'width' is not defined"
    assert error.remedy == f"{path}, line 5: self.fc = nn.Linear(width, 2)"
    assert isinstance(error.__cause__, NameError)


def test_an_error_in_torch_has_the_users_line(tmp_path: Path) -> None:
    path = written(tmp_path, HEAD + "def make():\n    return nn.Conv2d(3, 4, 3, groups=2)\n")
    error = refused(f"{path}:make")
    assert error.problem == "make cannot be built: ValueError: in_channels must be divisible by groups"
    assert error.remedy == f"{path}, line 3: return nn.Conv2d(3, 4, 3, groups=2)"


def test_a_forward_that_never_starts_is_an_error(tmp_path: Path) -> None:
    path = written(tmp_path, HEAD + "class Net(nn.Module):\n    def forward(self, x, *, y):\n        return x + y[3]\n")
    error = refused(f"{path}:Net")
    assert "fails before its first layer" in error.problem
    path = written(tmp_path, HEAD + "class Net(nn.Module):\n    def forward(self, x):\n        x + 1\n")
    error = refused(f"{path}:Net")
    assert ":Net returns None (" in error.problem
    assert error.problem.endswith("net.py, line 3)")
    assert error.remedy == "add a return statement"


def test_a_file_or_a_module_that_is_not_there() -> None:
    assert refused("nowhere/net.py:Net").problem == "there is no file nowhere/net.py"
    assert refused("not.there:Net").problem == "cannot import not.there: ModuleNotFoundError: No module named 'not'"
    assert refused(f"{NETS}:1").problem == "'1' is not the name of a class or a function"


def test_a_file_whose_name_is_taken_is_imported_all_the_same(tmp_path: Path) -> None:
    path = written(tmp_path, HEAD + "net = nn.Linear(4, 2)\n", "json.py")
    assert ops(resolve(f"{path}:net")) == ["Linear"]
    assert json.loads("[1]") == [1]
    assert str(tmp_path) not in sys.path


def width(word: str) -> int:
    """The channels of a model's output."""
    return list(resolve(word).shapes.values())[-1][1]


def test_each_file_imports_its_own_module_of_a_name_that_others_have(tmp_path: Path) -> None:
    words = []
    for channels in (8, 16):
        folder = tmp_path / str(channels)
        (folder / "parts").mkdir(parents=True)
        written(folder, f"WIDTH = {channels}\n", "width_of_it.py")
        written(folder / "parts", "", "__init__.py")
        written(folder / "parts", HEAD + "from width_of_it import WIDTH\ndef make(): return nn.Conv2d(3, WIDTH, 1)\n")
        words += [written(folder, "from parts.net import make\n", "main.py") + ":make", f"{folder}/parts/net.py:make"]
    assert [width(word) for word in (*words, words[0])] == [8, 8, 16, 16, 8]


def test_a_module_in_the_current_folder_hides_none_beside_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other").mkdir()
    for folder, channels in ((tmp_path, 8), (tmp_path / "other", 16)):
        written(folder, HEAD + f"def make(): return nn.Conv2d(3, {channels}, 1)\n", "named_twice.py")
    other = written(tmp_path / "other", "from named_twice import make\n")
    assert [width(word) for word in ("named_twice:make", f"{other}:make", "named_twice:make")] == [8, 16, 8]


def test_a_package_imports_its_own_parts(tmp_path: Path) -> None:
    package = tmp_path / "mine"
    (package / "sub").mkdir(parents=True)
    written(package, "", "__init__.py")
    written(package / "sub", "", "__init__.py")
    written(package, "width = 6\n", "settings.py")
    path = written(package / "sub", HEAD + "from ..settings import width\ndef make(): return nn.Linear(4, width)\n")
    assert resolve(f"{path}:make").shapes["linear"] == (1, 6)
    assert not list(tmp_path.rglob("*.pyc"))


NOISY = """
import os, subprocess, sys, warnings
print("importing")
from torch import nn
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        print("building")
        warnings.warn("odd")
        self.fc = nn.Linear(4, 2)
        subprocess.run([sys.executable, "-c", "print('a program')"])
    def forward(self, x):
        print("running")
        os.write(1, b"by descriptor\\n")
        return self.fc(x.mean(1)[..., :4])
"""


@pytest.mark.slow
def test_what_user_code_prints_stays_out_of_stdout(tmp_path: Path) -> None:
    path = written(tmp_path, NOISY)
    words = ["summary", f"{path}:Net", "--input", "3x4x4", "--format", "json"]
    done = subprocess.run([sys.executable, "-m", "vggscope", *words], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["totals"]["params"] == 10
    for heard in ("importing", "building", "odd", "a program", "running", "by descriptor"):
        assert heard in done.stderr


def test_an_exit_in_forward_is_a_failure(tmp_path: Path) -> None:
    text = HEAD + "import sys\nclass Net(nn.Sequential):\n    def forward(self, x):\n        x = self[0](x)\n"
    path = written(tmp_path, text + "        sys.exit(0)\ndef make(): return Net(nn.Conv2d(3, 4, 3))\n")
    network = resolve(f"{path}:make")
    assert ops(network) == ["Conv2d"]
    assert network.failure is not None
    assert "forward calls sys.exit" in network.failure


def test_a_model_that_cannot_be_built_without_data_is_built_with_it(tmp_path: Path) -> None:
    text = HEAD + "import torch\nclass Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
    text += "        self.fc = nn.Linear(100, 100)\n        assert self.fc.weight.abs().sum().item() > 0\n"
    path = written(tmp_path, text + "    def forward(self, x):\n        return self.fc(x)\n")
    network = resolve(f"{path}:Net", BuildOptions(input=(3, 8, 100)))
    assert ops(network) == ["Linear"]
    assert network.warnings == ("the model reads values while it is built: it was built with its weights",)


def test_nothing_in_a_word_is_evaluated() -> None:
    assert refused(f"{NETS}:Digits(__import__('os').getpid())").problem.endswith("are not literals")
