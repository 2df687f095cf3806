"""Command lines as a beginner types them: each is answered with what was meant, or with a line that would work."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from vggscope.errors import ModelError
from vggscope.sources import library_names

MY_VGG = """
from torch import nn

class Net(nn.Module):
    def __init__(self, num_classes=10):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        self.fc = nn.Linear(8, num_classes)

    def forward(self, x):
        return self.fc(self.features(x).flatten(1))
"""

CELLS = (
    "%matplotlib inline\n!pip install torch\nimport a_package_that_is_not_here\nfrom torch import nn\nfiles = !ls",
    "%%bash\nrm -rf /tmp/nothing",
    "width = 8\nlarger = width + unknown\nmodel = train()",
    MY_VGG.replace("8, 3", "width, 3").replace("nn.Linear(8", "nn.Linear(width"),
    "class Other(nn.Module):\n    def __init__(self):\n        super().__init__()\n        self.fc = nn.Linear(d, 2)",
    "raise RuntimeError('this must not run')\nfor epoch in range(10**12):\n    pass",
)
"""The code cells of a notebook, most of which only a notebook runs."""


def notebook(*cells: str) -> str:
    """The text of a notebook with a title and these code cells."""
    title = {"cell_type": "markdown", "source": ["# My VGG"], "metadata": {}}
    code = [{"cell_type": "code", "source": cell.splitlines(keepends=True), "metadata": {}} for cell in cells]
    return json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [title, *code]})


@pytest.fixture(autouse=True)
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the files of a beginner, which is the current one. Its modules are forgotten afterwards."""
    (tmp_path / "my_vgg.py").write_text(MY_VGG)
    (tmp_path / "nb.ipynb").write_text(notebook(*CELLS))
    (tmp_path / "photo.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(40))
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8\xff\xe0" + bytes(40))
    (tmp_path / "paper.pdf").write_bytes(b"%PDF-1.5\n")
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "net.py").write_text(MY_VGG)
    (tmp_path / "code" / "vgg.pth").touch()
    (tmp_path / "empty").mkdir()
    header = b'{"fc.weight":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]}}'
    (tmp_path / "small.pth").write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    with zipfile.ZipFile(tmp_path / "code.zip", "w") as archive:
        archive.writestr("net.py", MY_VGG)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in ("my_vgg", "nb", "net"):
        sys.modules.pop(name, None)


def _id(value: tuple[str, ...] | str) -> str:
    return " ".join(value) if isinstance(value, tuple) else ""


MEANT = [
    (("summary", "vgg-16"), "D (VGG-16)   input 3x224x224"),
    (("summary", "VGG-16"), "D (VGG-16)   input"),
    (("summary", "VGG_16"), "D (VGG-16)   input"),
    (("summary", "VGG 16"), "D (VGG-16)   input"),
    (("summary", "vgg16bn"), "D_bn (VGG-16 with batch norm)   input"),
    (("summary", "VGG-16-BN"), "D_bn (VGG-16 with batch norm)   input"),
    (("summary", "D-bn"), "D_bn (VGG-16 with batch norm)   input"),
    (("summary", "VGG-D"), "D (VGG-16)   input"),
    (("summary", "config E"), "E (VGG-19)   input"),
    (("summary", "a_lrn"), "A-LRN   input"),
    (("summary", "c"), "C   input"),
    (("summary", "vgg-16-cifar"), "vgg16-cifar   input 3x32x32"),
    (("summary", "conv3-64, conv3-64, maxpool"), "conv3-64 conv3-64 maxpool   input"),
    (("summary", "64 64 M 128 128 M"), "conv3-64 conv3-64 maxpool conv3-128 conv3-128 maxpool   input"),
    (("summary", "[64, 'M', 128, 'M']"), "conv3-64 maxpool conv3-128 maxpool   input"),
    (("summary", "64, M, FC-10"), "conv3-64 maxpool FC-10   input"),
    (("summary", "64,M,128"), "add FC-4096 FC-4096 FC-1000"),
    (("summary", "alexnet"), "note: alexnet is taken as torchvision:alexnet"),
    (("memory", "alexnet"), "torchvision:alexnet"),
    (("rf", "squeezenet1_1"), "torchvision:squeezenet1_1"),
    (("summary", "my_vgg.py"), "its only one, Net, was taken"),
    (("summary", "my_vgg.py:Net"), "my_vgg.py:Net   input"),
    (("summary", "my_vgg:Net"), "my_vgg:Net   input"),
    (("summary", "my_vgg.py:Net(num_classes=3)"), "my_vgg.py:Net(num_classes=3)   input"),
    (("summary", "nb.ipynb:Net"), "nb.ipynb:Net   input"),
    (("summary", "nb.ipynb:Net(num_classes=3)"), "note: of nb.ipynb these were run: imports, classes"),
    (("D",), "D (VGG-16)   input"),
    (("vgg-16", "--input", "64"), "D (VGG-16)   input 3x64x64"),
    (("my_vgg.py",), "my_vgg.py   input"),
    (("conv3-8 FC-10", "--format", "markdown"), "conv1\\_1 | Conv2d"),
    (("summary", "D", "--input", "224"), "D (VGG-16)   input 3x224x224"),
    (("summary", " D "), "D (VGG-16)   input"),
]
"""Command lines with a part of what they print; they succeed."""


@pytest.mark.parametrize(("words", "printed"), MEANT, ids=_id)
def test_what_was_meant_is_shown(vggscope, words, printed) -> None:
    ran = vggscope(*words)
    assert (ran.code, ran.err) == (0, "")
    assert printed in ran.out


DIFFERENT = [
    (("diff", "D", "E"), "D against E"),
    (("diff", "my_vgg.py", "alexnet"), "my_vgg.py against torchvision:alexnet"),
    (("diff", "nb.ipynb:Net", "vgg-11"), "nb.ipynb, code cell 4:7: write nn.Conv2d(3, 64, "),
]


@pytest.mark.parametrize(("words", "printed"), DIFFERENT, ids=_id)
def test_two_models_are_compared(vggscope, words, printed) -> None:
    ran = vggscope(*words)
    assert (ran.code, ran.err) == (1, "")
    assert printed in ran.out


REFUSED = [
    (("summary", "vgg17"), "did you mean vgg19?"),
    (("summary", "resnet"), "did you mean resnet"),
    (("summary", "resnet50d"), "did you mean timm:resnet50d?"),
    (("summary", "models.resnet18()"), "did you mean torchvision:resnet18?"),
    (("summary", "torchvision/vgg16"), "did you mean torchvision:vgg16?"),
    (("summary", "timm.create_model('resnet50d')"), "did you mean timm:resnet50d?"),
    (("summary", "my_vgg.Net"), "did you mean my_vgg.py:Net?"),
    (("summary", "my_vgg.py:net"), "it has Net"),
    (("summary", "my_vgg.py:Net(num_classes=n)"), """for the shell: "net.py:Net(10, name='D')\""""),
    (("summary", "nb.ipynb"), "write nb.ipynb:Net or nb.ipynb:Other"),
    (("summary", "nb.ipynb:Other"), "nb.ipynb, code cell 5, line 4: self.fc = nn.Linear(d, 2); of a notebook"),
    (("summary", "n.ipynb:Net"), "did you mean nb.ipynb?"),
    (("summary", "code"), "code is a folder without weights\nname a file in it: code/net.py or code/vgg.pth"),
    (("summary", "empty"), "empty is a folder without weights\nname a file"),
    (("summary", "code.zip"), "zip archive with no data.pkl"),
    (("summary", "photo.png"), "photo.png: it is a PNG image\nname a model"),
    (("summary", "photo.jpg"), "photo.jpg: it is a JPEG image"),
    (("inspect", "paper.pdf"), "paper.pdf: it is a PDF file"),
    (("torchvision.models.vgg16",), "did you mean torchvision:vgg16?"),
    (("VGG16()",), "did you mean vgg16?"),
    (("models.resnet18()",), "did you mean torchvision:resnet18?"),
    (("D,E",), "'D,E' names 2 models\nwrite vggscope compare D E"),
    (("summary", "vgg16, vgg19"), "write vggscope compare vgg16 vgg19"),
    (("D", "E"), "several models: vggscope compare D E"),
    (("summary", "nb.ipynb:model"), "model in nb.ipynb is the value of a call, and of a notebook no call is run\nname"),
    (("xyzzy",), "'xyzzy' is neither a command nor a model\ncommands are summary"),
    (("summary", "xyzzy"), "unknown model 'xyzzy'\na model is a column or its name (D, vgg16), torchvision:resnet50"),
    (("compare", "*"), "did you mean torchvision:*?\nwrite vggscope compare 'torchvision:*'"),
    (("compare", "D", "--jobs", "x"), "vggscope: --jobs is a whole number, not 'x'\nsee vggscope compare --help\n"),
    (("summary", "D", "--batch", "1.5"), "vggscope: --batch is a whole number, not '1.5'\n"),
    (("memory", "D", "--weight-decay", "x"), "vggscope: --weight-decay is a number, not 'x'\n"),
    (("diagram", "D", "--width", "w: 'x'", "-o", "a.svg"), "vggscope: --width is a number, not \"w: 'x'\"\n"),
    (("summary", "conv3-64", "conv3-64"), "a line of notation is one word"),
    (("summary", "64", "64", "M"), "a line of notation is one word"),
    (("summary", "conv", "3-64"), 'one word: vggscope summary "conv3-64"'),
    (("summary", "conv 3-64"), '"conv3-64"'),
    (("summary", "conv 3-64 max pool fc10"), 'write "conv3-64 maxpool FC-10"'),
    (("summary", "Conv3x3-64, MaxPool2d, Linear 10"), 'write "conv3-64 maxpool FC-10"'),
    (("summary", "D", "--colour", "never"), "NO_COLOR=1 vggscope summary"),
    (("summary", "D", "--no-color"), "NO_COLOR=1 vggscope summary"),
    (("summary", "https://example.org/a/vgg16-397923af.pth"), "download it, and name vgg16-397923af.pth"),
    (("inspect", "https://example.org/model.safetensors"), "download it, and name model.safetensors"),
    (("summary", "https://example.org/models"), "download it"),
    (("summary", "file:///tmp/none.pth"), "write the path alone, /tmp/none.pth"),
    (("summary", "hf-hub:timm/vgg16.tv_in1k"), "hf download timm/vgg16.tv_in1k"),
    (("summary", "resnet-50"), "did you mean torchvision:resnet50?"),
    (("summary", "mobilenet-v2"), "did you mean torchvision:mobilenet_v2?"),
    (("help",), "did you mean --help?"),
    (("draw", "D"), "did you mean diagram?"),
    (("memory", "D", "--batch-size", "32"), "did you mean --batch?"),
    (("memory", "D", "--dtype", "fp16"), "did you mean float16?"),
    (("rf", "D", "--layer", "conv5_3"), "did you mean --at?"),
    (("rf", "D", "conv5_3"), "one layer of a model is --at conv5_3"),
    (("explain", "receptive-field"), "did you mean depth?"),
    (("explain", "maxpool"), "did you mean pool?"),
    (("summary", "my_vgg.py::Net"), 'write "path/file.py:Net(num_classes=10)", in quotes'),
    (("diff", "small.pth", "small.pth"), "no network can be built from it: it is not a VGG\n--values compares"),
    (("build", "A", "-o", "my_vgg.py"), "my_vgg.py is there already\n--force overwrites it, or name another file"),
]
"""Command lines with a part of the error; they exit with 2."""


@pytest.mark.parametrize(("words", "said"), REFUSED, ids=_id)
def test_a_refusal_says_what_would_work(vggscope, words, said) -> None:
    ran = vggscope(*words)
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err
    assert 1 <= ran.err.count("\n") <= 2
    assert max(map(len, ran.err.splitlines())) <= 3 * 80


WITHOUT_TORCH = [
    (("summary", "torchvision:resnet51"), "torchvision has no model 'resnet51'\nnear it: resnet50"),
    (("summary", "timm:vgg161"), "timm has no model 'vgg161'\nnear it: vgg16"),
    (("memory", "torchvision:resnet*"), "one model is needed\nwrite vggscope compare 'torchvision:resnet*'"),
    (("diagram", "timm:vgg1[16]", "-o", "a.svg"), "one model is needed\nwrite vggscope compare 'timm:vgg1[16]'"),
    (("summary", "torchvision:resnot*"), "no model of torchvision matches 'resnot*'\nnear it: torchvision:resnet"),
    (("summary", "torchvison:resnet50"), "No module named 'torchvison', did you mean torchvision?"),
    (("summary", "nofile.py:Net"), "there is no file nofile.py\n"),
    (("summary", "my_vgh.py:Net"), "there is no file my_vgh.py, did you mean my_vgg.py?\n"),
    (("build", "nofile.py:Net"), "there is no file nofile.py\n"),
    (("compare", "resnet*"), "did you mean torchvision:resnet*?\nwrite vggscope compare 'torchvision:resnet*'"),
    (("resnetv2*",), "did you mean timm:resnetv2*?\nwrite vggscope compare 'timm:resnetv2*'"),
]
"""Command lines whose error needs no torch, which takes seconds to import."""

_PRINTS_TORCH = """
import sys
from vggscope.cli.app import run
code = run(sys.argv[1:])
print("torch" in sys.modules, "torchvision" in sys.modules, "timm" in sys.modules)
sys.exit(code)
"""


@pytest.mark.parametrize(("words", "said"), WITHOUT_TORCH, ids=_id)
def test_a_model_that_is_not_there_is_refused_without_torch(words, said) -> None:
    done = subprocess.run([sys.executable, "-c", _PRINTS_TORCH, *words], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "False False False\n")
    assert said in done.stderr
    assert 1 <= done.stderr.count("\n") <= 2


def test_a_library_that_is_not_installed(vggscope, monkeypatch) -> None:
    monkeypatch.setattr("vggscope.sources.library_names.names_in", lambda library, *, cache=True: ())
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *others: None if name == "timm" else find(name, *others)
    )
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    for words in (("summary", "timm:vgg16"), ("compare", "timm:vgg16"), ("compare", "timm:vgg*")):
        assert vggscope(*words, "--no-cache").err == "vggscope: timm is not installed\npip install timm\n"


def test_a_former_name_of_a_model_is_taken(monkeypatch) -> None:
    """timm's `adv_inception_v3` stands in a table of renamed models alone."""
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    library_names.check("timm:adv_inception_v3", cache=False)
    library_names.check("timm:vgg16.tv_in1k", cache=False)
    with pytest.raises(ModelError, match="timm has no model 'adv_inception_v5'"):
        library_names.check("timm:adv_inception_v5", cache=False)


def test_the_table_has_at_least_fifty_lines() -> None:
    assert len(MEANT) + len(DIFFERENT) + len(REFUSED) >= 50


def test_build_keeps_a_file_unless_it_is_forced_to(vggscope, desk) -> None:
    assert vggscope("build", "A", "-o", "my_vgg.py").code == 2
    assert (desk / "my_vgg.py").read_text() == MY_VGG
    assert vggscope("build", "A", "-o", "my_vgg.py", "--force").code == 0
    assert "vggscope" in (desk / "my_vgg.py").read_text()
    assert vggscope("build", "A", "-o", os.devnull).code == 0


def test_a_notebook_that_is_none_is_refused(vggscope, desk) -> None:
    for text in ("", "[]", '{"cells": 1}', '{"worksheets": []}', "[" * 100_000):
        (desk / "nb.ipynb").write_text(text)
        ran = vggscope("summary", "nb.ipynb:Net")
        assert (ran.code, ran.out) == (2, "")
        assert "no notebook of format 4" in ran.err


def test_a_cell_that_is_not_python_is_named(vggscope, desk) -> None:
    (desk / "nb.ipynb").write_text(notebook("import torch", "class Net(:"))
    ran = vggscope("summary", "nb.ipynb:Net")
    assert ran.code == 2
    assert "nb.ipynb, code cell 2, line 1: class Net(:" in ran.err


@pytest.mark.parametrize("name", ["torch", "numpy", "queue"])
@pytest.mark.parametrize("start", [["-m", "vggscope"], [os.path.join(os.path.dirname(sys.executable), "vggscope")]])
def test_a_file_named_as_a_package_does_not_hide_it(desk, name, start) -> None:
    (desk / f"{name}.py").write_text("x = 1\n")
    words = [sys.executable, *start, "summary", "my_vgg.py:Net"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("my_vgg.py:Net   input")


def test_a_file_named_as_a_package_is_named_when_an_import_from_it_fails(vggscope, desk) -> None:
    (desk / "queue.py").write_text("mine = 1\n")
    (desk / "my_vgg.py").write_text(f"from queue import mine\n{MY_VGG}")
    ran = vggscope("summary", "my_vgg.py:Net")
    assert ran.code == 2
    assert "queue.py in its folder has the name of a package: rename it" in ran.err
