"""Networks as they are found in the wild: what they return, what their files do beside, what others took for a VGG."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from vggscope.api import build, diff, network
from vggscope.errors import ModelError


class Stages(nn.Module):
    """VGG-11's features as a perceptual loss takes them: a map of each stage."""

    def __init__(self, give: str) -> None:
        super().__init__()
        self.features = build("A").features
        self.give = give

    def forward(self, x: torch.Tensor) -> object:
        maps = []
        for layer in self.features:
            x = layer(x.clone() if self.give == "copies" else x)
            if isinstance(layer, nn.MaxPool2d):
                maps.append(x)
        if self.give == "dict":
            return {f"pool{stage}": found for stage, found in enumerate(maps, 1)}
        return maps if x.data.dim() == 4 and self.give == "list" else x


@pytest.mark.parametrize("give", ["list", "dict", "copies"])
def test_what_is_returned_beside_and_what_only_copies_makes_no_other_function(give: str) -> None:
    found = diff(Stages(give), Stages("last"), (3, 64, 64), numeric=True)
    assert found.verdict in ("identical", "equivalent")
    assert found.numeric is not None
    assert found.numeric.max_abs_error == 0
    traced = network(Stages(give), (3, 64, 64))
    assert traced.by_name[traced.end].label == "pool5"
    assert not any(node.op.name == "detach" for node in traced.nodes)


HEAD = """import torch
from torch import nn
from torch.hub import load_state_dict_from_url
from torchvision import models
"""


def file_of(tmp_path: Path, text: str) -> str:
    path = tmp_path / "net.py"
    path.write_text(HEAD + text)
    return str(path)


PUBLISHED = """
class ByLibrary(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = models.vgg11(weights="DEFAULT").features

    def forward(self, x):
        return self.features(x)


def by_hand():
    net = models.vgg11().features
    net.load_state_dict(load_state_dict_from_url("https://example.org/vgg11.pth", progress=False))
    return net


def by_key():
    net = models.vgg11().features
    net[0].weight.data = load_state_dict_from_url("https://example.org/vgg11.pth")["features.0.weight"]
    return net
"""


def test_published_weights_are_not_fetched_to_look_at_a_network(tmp_path: Path, monkeypatch) -> None:
    fetched = []
    weights = {"features.0.weight": torch.zeros(64, 3, 3, 3)}

    def fetch(url: str, path: str, *_args: object, **_options: object) -> None:
        fetched.append(url)
        torch.save(weights, path)

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    path = file_of(tmp_path, PUBLISHED)
    features = network(build("A").features, (3, 224, 224))
    for name in ("ByLibrary", "by_hand"):
        assert [node.op for node in network(f"{path}:{name}").nodes] == [node.op for node in features.nodes]
    assert not fetched
    # Whose values are read while it is built is fetched: another network might come out without.
    assert len(network(f"{path}:by_key").nodes) == len(features.nodes)
    assert fetched == ["https://example.org/vgg11.pth"]
    # Where weights are asked for they are.
    with pytest.raises(ModelError, match=r"by_hand cannot be built: .*Error.* loading state_dict"):
        build(f"{path}:by_hand")


ON_A_GPU = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = models.vgg11().features.cuda()
        self.fc = nn.Linear(512, 10).to(torch.device("cuda:0"))
        self.mean = torch.zeros(1, 3, 1, 1, device="cuda")
        self.register_buffer("std", torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1, 1).to("cuda"))

    def forward(self, x):
        x = (x.cuda() - self.mean) / self.std - torch.ones(1, 3, 1, 1, device="cuda")
        return self.fc(self.features(x.to(device="cuda", non_blocking=True)).mean((2, 3)))
"""


def test_a_network_that_moves_itself_to_a_gpu_is_looked_at_without_one(tmp_path: Path) -> None:
    found = network(f"{file_of(tmp_path, ON_A_GPU)}:Net", (3, 32, 32))
    assert found.failure is None
    assert [node.op.name for node in found.nodes][:4] == ["sub", "div", "sub", "Conv2d"]
    assert found.shapes[found.end] == (1, 10)


def test_options_that_a_file_reads_as_it_is_imported_are_not_ours(tmp_path: Path, vggscope) -> None:
    text = "import argparse\nparser = argparse.ArgumentParser()\nparser.add_argument('--width', type=int, default=7)\n"
    path = file_of(tmp_path, text + "net = nn.Linear(parser.parse_args().width, 2)\n")
    shown = vggscope("summary", f"{path}:net", "--format", "json")
    assert shown.code == 0
    assert '"params": 16' in shown.out
    path = file_of(tmp_path, text.replace("default=7", "required=True") + "args = parser.parse_args()\n")
    assert 'args = parser.parse_args(); what only a run needs stands better under if __name__ == "__main__":' in (
        vggscope("summary", f"{path}:net").err
    )


def test_imports_are_looked_for_from_the_current_folder_too(tmp_path: Path, monkeypatch) -> None:
    for folder in ("models", "layers"):
        (tmp_path / folder).mkdir()
    (tmp_path / "layers" / "mine.py").write_text("from torch import nn\nclass Mine(nn.Conv2d): pass\n")
    (tmp_path / "models" / "vgg.py").write_text("from layers.mine import Mine\ndef net(): return Mine(3, 8, 3)\n")
    monkeypatch.chdir(tmp_path)
    assert [node.op.name for node in network("models/vgg.py:net").nodes] == ["Conv2d"]
    assert str(tmp_path) not in sys.path


def test_what_a_library_warns_the_author_of_is_not_shown(tmp_path: Path, vggscope) -> None:
    path = file_of(tmp_path, "def net():\n    return models.vgg11(pretrained=False)\n")
    assert vggscope("summary", f"{path}:net").err == ""


def test_a_class_that_is_given_its_layers_is_told_with_what_makes_it(tmp_path: Path) -> None:
    text = "class VGG(nn.Module):\n    def __init__(self, features): ...\n"
    path = file_of(tmp_path, text + "def vgg11(): ...\ndef make_layers(cfg): ...\ndef vgg13(**kwargs): ...\n")
    with pytest.raises(ModelError) as told:
        network(f"{path}:VGG")
    assert told.value.remedy == f"give its arguments in the word: {path}:VGG(...), or name what makes it: vgg11, vgg13"
