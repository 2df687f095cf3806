"""Which code is remembered: only what makes its model from its own files and the libraries alone."""

from __future__ import annotations

import os
import py_compile
import subprocess
import sys
from collections.abc import Callable
from importlib.machinery import EXTENSION_SUFFIXES, SourceFileLoader
from pathlib import Path

import pytest

from tests.test_cache import OPTIONS, STORED, Loads, commands_in_a_process, differences, on_each_command
from vggscope.graph import Network
from vggscope.sources import cache, closed_code, code, installed
from vggscope.sources.closed_code import Sources, sources_of
from vggscope.sources.user_import import replaced_sources
from vggscope.vgg.options import BuildOptions

REPLICAS = Path(__file__).parent / "replicas"


IMPORTS = """
import math
import torch
import torch.nn as nn
import torch.nn.functional as F
import torchvision
from torch import Tensor
"""

IN_A_MODEL = """
class Net(nn.Module):
    def __init__(self, name="ReLU", depth=4):
        super().__init__()
        {0}

    def forward(self, x):
        {1}
        return x
"""

CLOSED = {
    "layers": "self.a = nn.Conv2d(3, 8, 3)",
    "layers by name": "self.a = getattr(nn, name)()",
    "layers by a known name": "self.a = getattr(torch.nn, 'ReLU')()",
    "attributes by name": "setattr(self, f'a{depth}', nn.Identity()); self.b = getattr(self, f'a{depth}')",
    "parameters": "self.a = nn.Parameter(torch.randn(1, 8) * 0.02 / math.sqrt(depth))",
    "parameters of a type": "self.a: torch.Tensor = nn.Parameter(torch.Tensor(depth, 3))",
    "buffers": "self.register_buffer('a', torch.empty(8))",
    "initial values": "self.a = nn.Linear(3, 3); nn.init.trunc_normal_(self.a.weight, std=0.02)",
    "rates": "self.rates = [x.item() for x in torch.linspace(0, 0.1, depth)]",
    "list of rates": "self.rates = torch.linspace(0, 0.1, depth).tolist()",
    "backbone": "self.a = torchvision.models.resnet18(weights=None).layer1",
    "membership": "self.a = nn.ReLU() if name in {'ReLU', 'relu'} else nn.GELU()",
    "types": "self.a = torch.zeros(3, dtype=torch.float64, device=torch.device('cpu'))",
    "checkpointing": "self.a = torch.utils.checkpoint.checkpoint",
    "optimiser": "self.a = torch.optim.SGD",
    "a parameter with a name of Python's": "self.a = (lambda input, id: input + id)(1, 2)",
    "own class": "self.a = type(self).__name__ + self.__class__.__name__",
}

CLOSED_IN_FORWARD = {
    "functions": "x = F.relu(torch.cat([x, x], 1)).flatten(1) @ torch.ones(2)",
    "random numbers": "x = x * torch.rand(1)",
    "no gradient": "with torch.no_grad(): x = x + 1",
    "attention": "x = F.scaled_dot_product_attention(x, x, x)",
}

OPEN = {
    "open": "self.a = nn.Linear(3, int(open('width').read()))",
    "open under another name": "read = open; self.a = nn.Linear(3, int(read('width').read()))",
    "import": "import os; self.a = nn.Linear(3, int(os.environ['WIDTH']))",
    "import of a name": "from os import environ as e; self.a = nn.Linear(3, int(e['WIDTH']))",
    "import of all": "from os import *",
    "import by name": "self.a = nn.Linear(3, int(__import__('os').environ['WIDTH']))",
    "import of an installed package": "import pytest",
    "import of a notebook's magic": "from pathlib import Path; self.a = Path('width').read_text()",
    "exec": "exec('import os')",
    "eval": "self.a = nn.Linear(3, eval('__import__(\"time\").time_ns() % 9'))",
    "namespace": "self.a = globals()['nn']",
    "own file": "self.a = nn.Linear(3, len(__file__))",
    "hash of a text": "self.a = nn.Linear(3, hash(name) % 9)",
    "identity": "self.a = nn.Linear(3, id(self) % 9)",
    "order of a set": "self.a = [getattr(nn, kind)() for kind in {'ReLU', 'GELU'}]",
    "order of a set by name": "self.a = list(set(['ReLU', 'GELU']))",
    "order of a computed set": "self.a = list({kind for kind in ('ReLU', 'GELU')})",
    "order of named keys": "keys = {'ReLU': 1}.keys(); self.a = [getattr(nn, kind)() for kind in keys & {'ReLU': 1}]",
    "order of keys of an argument": "self.a = self.kinds({'ReLU': 1}.keys())",
    "order of keys": "self.a = [getattr(nn, kind)() for kind in {'ReLU': 1}.keys() - {'GELU': 1}.keys()]",
    "a default of Python's": "self.a = (lambda input=input: input)('width')",
    "a changed library": "nn.Conv2d = nn.Linear",
    "a changed class": "nn.Conv2d.forward = nn.Linear.forward",
    "a changed class by name": "setattr(nn.Conv2d, 'forward', nn.Linear.forward)",
    "a changed library by name": "setattr(nn, name, nn.Linear)",
    "a changed class of a layer": "nn.Conv2d(3, 3, 1).__class__.forward = nn.Linear.forward",
    "a changed type of a layer": "type(nn.Conv2d(3, 3, 1)).forward = nn.Linear.forward",
    "a changed type by name": "setattr(type(nn.Conv2d(3, 3, 1)), 'forward', nn.Linear.forward)",
    "a shown warning": "self.a = torch.range(0, 3)",
    "the machine's GPU": "self.a = nn.Linear(3, 8 if torch.cuda.is_available() else 4)",
    "a GPU under another name": "cuda = torch.cuda; self.a = nn.Linear(3, 4 + cuda.device_count())",
    "torch as a value": "t = torch; self.a = nn.Linear(3, t.get_num_threads())",
    "torch's attribute by name": "self.a = getattr(torch, name)",
    "torch's attribute by a known name": "self.a = getattr(torch, 'get_num_threads')()",
    "getattr as a value": "read = getattr; self.a = read(torch, name)",
    "all GPUs": "self.a = nn.DataParallel(nn.ReLU())",
    "an address": "self.a = nn.Linear(3, len(repr(self)))",
    "a backend": "self.a = nn.Linear(3, 4 + torch.backends.mps.is_available())",
    "a thread count": "self.a = nn.Linear(3, torch.get_num_threads())",
    "a checkpoint": "self.load_state_dict(torch.load('weights.pth'))",
    "a repository": "self.a = torch.hub.load('pytorch/vision', 'resnet18')",
    "a random width": "self.a = nn.Linear(3, int(torch.randint(1, 9, (1,))))",
    "a random choice": "self.a = nn.ReLU() if torch.rand(1) < 0.5 else nn.GELU()",
    "uninitialised memory": "self.a = nn.ReLU() if torch.empty(1) < 0.5 else nn.GELU()",
    "a random weight": "self.a = nn.Linear(3, 3); self.b = self.a.weight.sum().item()",
    "random weights beside rates": "self.a = torch.linspace(0, self.weight.sum(), depth).tolist()",
    "globals of a function": "self.a = nn.Linear.forward.__globals__['warnings']",
    "a module within a module": "self.a = nn.modules.module.sys",
    "a module that a module imports": "from enum import sys; self.a = nn.Linear(3, len(sys.argv))",
    "a module that a library imports": "from torch.nn.parallel.distributed import os; self.a = len(os.environ)",
    "torch within a module": "self.a = nn.Linear(3, nn.functional.torch.get_num_threads())",
    "a width from random memory": "self.a = nn.Linear(3, int(torch.Tensor(1).uniform_(1, 60)))",
    "a width from memory": "self.a = nn.Linear(3, int(Tensor(1)))",
    "default dtype": "torch.set_default_dtype(torch.float64)",
    "a shown text": "print(name)",
    "a compiled function": "self.a = torch.compile(nn.ReLU())",
    "data": "self.a = torchvision.datasets.MNIST('data')",
    "numpy": "self.a = nn.Linear(3, 3); self.b = self.a.weight.numpy()",
}


def text(in_constructor: str = "pass", in_forward: str = "pass") -> str:
    return IMPORTS + IN_A_MODEL.format(in_constructor, in_forward)


def written(folder: Path, **texts: str) -> str:
    """Write Python files, in the folders that their names have, and return the path of net.py."""
    for name, content in texts.items():
        path = folder / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return str(folder / "net.py")


def of(path: str, root: Path | None = None) -> set[str] | None:
    """Return the files below the folder of a file on which its code depends; None if it depends on more."""
    root = root or Path(path).parent
    found = sources_of(path, str(root))
    return None if found is None else {Path(file).relative_to(root.resolve()).as_posix() for file in found.texts}


@pytest.mark.parametrize("path", sorted(REPLICAS.glob("*.py")), ids=lambda path: path.stem)
def test_what_readers_of_a_tutorial_write_is_closed(path: Path) -> None:
    assert of(str(path)) == {path.name}


@pytest.mark.parametrize("line", CLOSED.values(), ids=list(CLOSED))
def test_code_of_layers_and_numbers_is_closed(line: str, tmp_path: Path) -> None:
    assert of(written(tmp_path, net=text(line))) == {"net.py"}


@pytest.mark.parametrize("line", CLOSED_IN_FORWARD.values(), ids=list(CLOSED_IN_FORWARD))
def test_a_forward_of_torchs_functions_is_closed(line: str, tmp_path: Path) -> None:
    assert of(written(tmp_path, net=text(in_forward=line))) == {"net.py"}


@pytest.mark.parametrize("line", OPEN.values(), ids=list(OPEN))
def test_code_that_may_read_more_is_open(line: str, tmp_path: Path) -> None:
    assert of(written(tmp_path, net=text(line))) is None
    assert of(written(tmp_path, net="from blocks import Net", blocks=text(line))) is None


def test_what_runs_as_a_program_alone_may_read_anything(tmp_path: Path) -> None:
    program = "\nif __name__ == '__main__':\n    import sys\n    print(open(sys.argv[1]).read())\n"
    assert of(written(tmp_path, net=text() + program)) == {"net.py"}
    assert of(written(tmp_path, net=text() + program + "else:\n    import sys\n")) is None
    assert of(written(tmp_path, net=text() + program.replace("==", "!="))) is None


IMPORTED: dict[str, tuple[dict[str, str], set[str] | None]] = {
    "a file beside it": ({"net": "from blocks import Net", "blocks": text()}, {"net.py", "blocks.py"}),
    "a module beside it": ({"net": "import blocks\nNet = blocks.Net", "blocks": text()}, {"net.py", "blocks.py"}),
    "one of one": (
        {"net": "from a import Net", "a": "from b import Net", "b": text()},
        {"net.py", "a.py", "b.py"},
    ),
    "a circle": ({"net": "import a\n" + text(), "a": "import net\n"}, {"net.py", "a.py"}),
    "a package": (
        {"net": "from a.b import Net", "a/__init__": "", "a/b": text()},
        {"net.py", "a/__init__.py", "a/b.py"},
    ),
    "a module of a package": (
        {"net": "from a import b\nNet = b.Net", "a/__init__": "", "a/b": text()},
        {"net.py", "a/__init__.py", "a/b.py"},
    ),
    "a package's own file": ({"net": "from a import Net", "a/__init__": text()}, {"net.py", "a/__init__.py"}),
    "a folder": ({"net": "from a.b import Net", "a/b": text()}, {"net.py", "a/b.py"}),
    "a module of a folder": ({"net": "from a import b\nNet = b.Net", "a/b": text()}, {"net.py", "a/b.py"}),
    "a folder alone": ({"net": "import a\n", "a/b": text()}, None),
    "a dotted name": ({"net": "import a.b\n", "a/__init__": "", "a/b": text()}, None),
    "relative": ({"net": "from .blocks import Net", "blocks": text()}, {"net.py", "blocks.py"}),
    "relative within a package": (
        {"net": "from a.b import Net", "a/__init__": "", "a/b": "from . import c\nNet = c.Net", "a/c": text()},
        {"net.py", "a/__init__.py", "a/b.py", "a/c.py"},
    ),
    "relative and missing": ({"net": "from .blocks import Net"}, None),
    "torch by way of a file": (
        {"net": "from common import torch\nn = torch.get_num_threads()", "common": IMPORTS},
        None,
    ),
    "torch in a file": ({"net": "import common\nn = common.torch.get_num_threads()", "common": IMPORTS}, None),
    "a function of torch by way of a file": (
        {"net": "from common import torch\nn = torch.zeros(3)", "common": IMPORTS},
        {"net.py", "common.py"},
    ),
    "a file as a value": ({"net": "import common\nn = vars", "common": IMPORTS}, None),
    "a file passed on": ({"net": "import common\nn = [common]", "common": IMPORTS}, None),
    "a name of Python's": ({"net": "import math\n", "math": ""}, None),
    "a name of torch's": ({"net": "import torch\n", "torch": "x = 1"}, None),
    "a name of an installed package": ({"net": "import pytest\n", "pytest": "x = 1"}, None),
    "a file with an error": ({"net": "import blocks", "blocks": "def"}, None),
}
"""Files by name, and those on which net.py depends."""


@pytest.mark.parametrize(("texts", "expected"), IMPORTED.values(), ids=list(IMPORTED))
def test_the_files_that_are_imported_are_found(
    texts: dict[str, str], expected: set[str] | None, tmp_path: Path
) -> None:
    assert of(written(tmp_path, **texts)) == expected


def test_the_packages_that_a_file_is_in_run_before_it(tmp_path: Path) -> None:
    texts = {"a/__init__": "", "a/common": text(), "a/b/__init__": "", "a/b/net": "from ..common import Net"}
    written(tmp_path, **texts)
    found = {"a/__init__.py", "a/common.py", "a/b/__init__.py", "a/b/net.py"}
    assert of(str(tmp_path / "a/b/net.py"), tmp_path) == found
    (tmp_path / "a/__init__.py").write_text("import torch\ntorch.set_default_dtype(torch.float64)\n")
    assert of(str(tmp_path / "a/b/net.py"), tmp_path) is None


def test_a_package_of_the_same_name_in_the_current_folder_is_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path / "mine", **{"net": "from a.b import Net", "a/b": text()})
    written(tmp_path, **{"a/__init__": "", "a/b": text()})
    assert of(path) == {"net.py", "a/b.py"}
    monkeypatch.chdir(tmp_path)
    assert of(path) is None


def test_a_linked_file_imports_beside_the_link(tmp_path: Path) -> None:
    path = written(
        tmp_path, **{"net": "from a.b import Net", "a/c": text(), "x/b": "from .c import Net", "x/c": text()}
    )
    (tmp_path / "a" / "b.py").symlink_to(tmp_path / "x" / "b.py")
    assert of(path) == {"net.py", "a/b.py", "a/c.py"}


def test_a_compiled_module_is_open(tmp_path: Path) -> None:
    path = written(tmp_path, net="import blocks", blocks="")
    assert of(path) == {"net.py", "blocks.py"}
    (tmp_path / f"blocks{EXTENSION_SUFFIXES[0]}").write_bytes(b"")
    assert of(path) is None


def test_a_file_of_which_python_may_run_an_older_text_is_open(tmp_path: Path) -> None:
    path, second = written(tmp_path, net="import blocks", blocks="x = 1"), 1_700_000_000
    blocks = tmp_path / "blocks.py"
    os.utime(blocks, (second + 0.2, second + 0.2))
    compiled = py_compile.compile(str(blocks))
    blocks.write_text("x = 2")
    os.utime(blocks, (second + 0.4, second + 0.4))
    code = SourceFileLoader("blocks", str(blocks)).get_code("blocks")
    assert code is not None
    assert 1 in code.co_consts
    for after, is_stale in ((0.3, True), (0.8, False), (3600, False), (-3600, False)):
        os.utime(compiled, (second + after, second + after))
        assert of(path) == (None if is_stale else {"net.py", "blocks.py"})


def test_large_and_many_files_are_not_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, net="import blocks", blocks="x = 1\n" * 100)
    assert of(path) == {"net.py", "blocks.py"}
    monkeypatch.setattr(closed_code, "LARGEST_FILE", 500)
    assert of(path) is None
    monkeypatch.setattr(closed_code, "LARGEST_FILE", 5000)
    monkeypatch.setattr(closed_code, "MOST_FILES", 1)
    assert of(path) is None


@pytest.mark.parametrize("content", [b"\0", b"\xff", b"(" * 100_000, b"x = " + b"1" * 10_000])
def test_a_strange_file_is_open(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_bytes(content)
    assert of(str(tmp_path / "net.py")) in (None, {"net.py"})
    assert of(str(tmp_path / "none.py")) is None


# Remembered


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VGGSCOPE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def remembered(word: str, options: BuildOptions, load: Callable[[], Network]) -> Network:
    return cache.remembered(word, options, load, code.origin)


BLOCKS = """from torch import nn

WIDTH = 8


def block(i, o):
    return nn.Sequential(nn.Conv2d(i, o, 3, padding=1), nn.ReLU())
"""

NET = """from torch import nn
from blocks import WIDTH, block


class Net(nn.Module):
    def __init__(self, num_classes=10):
        super().__init__()
        self.features = nn.Sequential(block(3, WIDTH), block(WIDTH, 2 * WIDTH))
        self.fc = nn.Linear(2 * WIDTH, num_classes)

    def forward(self, x):
        return self.fc(self.features(x).mean((2, 3)))
"""


@pytest.fixture
def word(tmp_path: Path) -> str:
    return written(tmp_path / "mine", net=NET, blocks=BLOCKS) + ":Net"


def test_a_users_model_is_read_back_with_its_lines(folder: Path, word: str) -> None:
    load = Loads(word)
    first, second = remembered(word, STORED, load), remembered(word, STORED, load)
    assert load.count == 1
    assert differences(first, second) == differences(second, load.network) == []
    assert [node.position for node in second.nodes] == [node.position for node in load.network.nodes]
    assert {node.position.line for node in second.nodes if node.position} == {7, 9, 12}


@pytest.mark.parametrize(
    "change",
    [
        lambda mine: (mine / "net.py").write_text(NET.replace("2 * WIDTH", "4 * WIDTH")),
        lambda mine: (mine / "blocks.py").write_text(BLOCKS.replace("WIDTH = 8", "WIDTH = 9")),
        lambda mine: (mine / "blocks.py").write_text(BLOCKS + "\n"),
        lambda mine: (mine / "blocks.py").rename(mine / "other.py"),
        lambda mine: (mine / "blocks").mkdir() or (mine / "blocks" / "__init__.py").write_text(BLOCKS),
        lambda mine: (mine / "blocks.py").write_text(f"import os\n{BLOCKS}"),
    ],
)
def test_a_change_in_any_file_asks_again(folder: Path, word: str, change: Callable[[Path], object]) -> None:
    load = Loads(word)
    remembered(word, STORED, load)
    change(Path(word).parent)
    remembered(word, STORED, load)
    assert load.count == 2


def test_another_folder_or_search_path_asks_again(
    folder: Path, word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = Loads(word)
    remembered(word, STORED, load)
    monkeypatch.chdir(tmp_path)
    remembered(word, STORED, load)
    monkeypatch.syspath_prepend(tmp_path / "searched")
    remembered(word, STORED, load)
    remembered(word.replace("Net", "Net(num_classes=5)"), STORED, load)
    assert load.count == 4


def test_a_file_that_changes_while_it_is_run_is_not_remembered(folder: Path, word: str) -> None:
    load = Loads(word)

    def changing() -> Network:
        (Path(word).parent / "blocks.py").write_text(BLOCKS + "\n")
        return load()

    remembered(word, STORED, changing)
    assert not folder.exists()


def test_a_text_in_place_of_a_files_is_not_remembered(folder: Path, word: str) -> None:
    with replaced_sources({word.removesuffix(":Net"): NET.replace("2 * WIDTH", "4 * WIDTH")}):
        remembered(word, STORED, Loads(word))
    assert not folder.exists()


def test_code_is_not_remembered_with_a_torchvision_under_development(
    folder: Path, word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = installed.identity
    monkeypatch.setattr(installed, "folder_of", lambda package: package)
    monkeypatch.setattr(installed, "identity", lambda package: None if package == "torchvision" else known(package))
    remembered(word, STORED, Loads(word))
    assert not folder.exists()


VECTOR = BuildOptions(input=(3,))

RANDOM_READS = {
    "signs of weights": "int(nn.Linear(9, 9).weight.gt(0).sum())",
    "number of positive weights": "nn.Linear(9, 9).weight.gt(0).nonzero().size(0)",
    "chosen weights": "(w := nn.Linear(9, 9).weight)[w > 0].numel()",
    "a condition on a weight": "3 if nn.Linear(9, 9).weight[0, 0] > 0 else 4",
    "dropped values": "int(nn.Dropout(0.5)(torch.ones(60)).sum())",
    "random values in place": "int(torch.zeros(1).uniform_(1, 60))",
    "random values in a parameter": "int(nn.init.uniform_(nn.Parameter(torch.zeros(1)), 1, 60))",
    "random values written to a part": "(t := torch.zeros(2), t[:1].uniform_(1, 60), int(t[0]))[2] + 1",
    "a library's weights": "1 + int(torchvision.models.squeezenet1_0().features[3].squeeze.weight.gt(0).sum()) % 9",
}
"""Widths that are others in each run."""

FIXED_READS = {
    "a number": "int(torch.tensor(7.0))",
    "a sum of a range": "int(torch.arange(4).sum())",
    "a list": "len(torch.linspace(0, 1, 5).tolist())",
    "one of several": "int([x for x in torch.linspace(1, 4, 4)][2])",
    "initial values": "nn.init.trunc_normal_(nn.Linear(9, 8).weight, std=0.02).shape[0]",
    "a library's model": "len(torchvision.models.swin_t().features)",
    "a shape": "nn.Linear(9, 8).weight.shape[0]",
    "a size": "nn.Linear(9, 8).weight.size(0) + nn.Linear(9, 8).weight.numel()",
}


def with_width(folder: Path, width: str) -> str:
    body = f"class Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n        w = {width}\n"
    body += "        self.fc = nn.Linear(3, w)\n    def forward(self, x):\n        return self.fc(x)\n"
    return written(folder / "mine", net=IMPORTS + body) + ":Net"


@pytest.mark.parametrize("at_import", [False, True])
@pytest.mark.parametrize("width", RANDOM_READS.values(), ids=list(RANDOM_READS))
def test_what_reads_random_values_is_not_remembered(
    folder: Path, tmp_path: Path, width: str, at_import: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        closed_code, "sources_of", lambda path, *_: Sources({path: b""})
    )  # some of these are open anyway
    word = with_width(tmp_path, "W" if at_import else width)
    if at_import:
        path = Path(word.removesuffix(":Net"))
        path.write_text(path.read_text().replace("class Net", f"W = {width}\n\nclass Net"))
    remembered(word, VECTOR, lambda: code.load(word, VECTOR))
    assert not folder.exists()


@pytest.mark.parametrize("width", FIXED_READS.values(), ids=list(FIXED_READS))
def test_what_reads_numbers_that_are_always_the_same_is_remembered(
    folder: Path, tmp_path: Path, width: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(closed_code, "sources_of", lambda path, *_: Sources({path: b""}))
    word = with_width(tmp_path, width)
    remembered(word, VECTOR, lambda: code.load(word, VECTOR))
    assert len(list(folder.iterdir())) == 1


def test_without_the_cache_code_is_not_remembered(folder: Path, word: str) -> None:
    remembered(word, OPTIONS, Loads(word))
    assert not folder.exists()


@pytest.mark.slow
def test_second_commands_on_code_load_no_torch_and_write_the_same(folder: Path, tmp_path: Path, word: str) -> None:
    commands = on_each_command(word, "--input", "3x32x32")
    for number in (0, 1, 6, 10, 11, 13, 15, 17, 18):
        (tmp_path / f"{number}").mkdir()
        first, loaded = commands_in_a_process(tmp_path / f"{number}" / "first", {0: commands[number]})
        second, again = commands_in_a_process(tmp_path / f"{number}" / "second", {0: commands[number]})
        assert first == second
        assert "torch" not in again
        assert "torch" in loaded or number
    (tmp_path / "mine" / "blocks.py").write_text(BLOCKS.replace("WIDTH = 8", "WIDTH = 16"))
    command = [sys.executable, "-m", "vggscope", "summary", word]
    for shown in ("16x", "16x"):
        assert f"{shown}224x224" in subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert os.listdir(folder)
