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


@pytest.mark.slow
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


@pytest.mark.slow
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


def test_weights_of_timm_are_not_fetched_either(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    text = "import timm\ndef net():\n    return timm.create_model('vgg11', pretrained=True, num_classes=10)\n"
    found = network(f"{file_of(tmp_path, text)}:net")
    assert found.shapes[found.end] == (1, 10)
    assert sum(bool(node.parameters) for node in found.nodes) == 11


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


def test_a_network_that_moves_itself_to_a_gpu_is_traced_without_one(tmp_path: Path) -> None:
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
    assert 'args = parser.parse_args(); code that only a run needs belongs under if __name__ == "__main__":' in (
        vggscope("summary", f"{path}:net").err
    )


def test_imports_are_looked_for_from_the_current_folder_too(tmp_path: Path, monkeypatch) -> None:
    for folder in ("models", "layers"):
        (tmp_path / folder).mkdir()
    (tmp_path / "layers" / "mine.py").write_text("from torch import nn\nclass Mine(nn.Conv2d): pass\n")
    (tmp_path / "models" / "vgg.py").write_text("from layers.mine import Mine\ndef net(): return Mine(3, 8, 3)\n")
    with pytest.raises(ModelError, match=r"from layers\.mine import Mine; run it from the folder that has it"):
        network(f"{tmp_path}/models/vgg.py:net")
    monkeypatch.chdir(tmp_path)
    assert [node.op.name for node in network("models/vgg.py:net").nodes] == ["Conv2d"]
    assert str(tmp_path) not in sys.path


def test_what_a_library_warns_the_author_of_is_not_shown(tmp_path: Path, vggscope) -> None:
    path = file_of(tmp_path, "def net():\n    return models.vgg11(pretrained=False)\n")
    assert vggscope("summary", f"{path}:net").err == ""


def test_the_error_for_a_class_with_layers_as_arguments_names_its_factory(tmp_path: Path) -> None:
    text = "class VGG(nn.Module):\n    def __init__(self, features): ...\n"
    path = file_of(tmp_path, text + "def vgg11(): ...\ndef make_layers(cfg): ...\ndef vgg13(**kwargs): ...\n")
    with pytest.raises(ModelError) as told:
        network(f"{path}:VGG")
    assert told.value.remedy == (
        f'give its arguments in the word, in quotes for the shell: "{path}:VGG(...)",'
        " or name what makes it: vgg11, vgg13"
    )


SMALL = """
def stage(count, before, width):
    layers = []
    for _ in range(count):
        layers += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU(inplace=True)]
        before = width
    return [*layers, nn.MaxPool2d(2, 2)]


class FourStages(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(*stage(2, 1, 64), *stage(2, 64, 128), *stage(2, 128, 256), *stage(2, 256, 512))
        self.classifier = nn.Sequential(
            nn.Linear(2048, 4096), nn.ReLU(True), nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU(True), nn.Dropout(),
            nn.Linear(4096, 10),
        )

    def forward(self, x):
        return self.classifier(torch.flatten(self.features(x), 1))


class Perceptual(nn.Module):
    def __init__(self):
        super().__init__()
        layers = models.vgg19(pretrained=True).features
        self.parts = nn.ModuleList(layers[a:b] for a, b in ((0, 2), (2, 7), (7, 12), (12, 21), (21, 30)))

    def forward(self, x):
        maps = []
        for part in self.parts:
            x = part(x)
            maps.append(x)
        return maps


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        layers = models.vgg11(weights="DEFAULT").features
        self.down = nn.ModuleList(layers[a:b] for a, b in ((0, 2), (2, 5), (5, 10), (10, 15), (15, 20)))
        widths = [(512, 512), (1024, 256), (512, 128), (256, 64)]
        self.up = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 3, padding=1), nn.ReLU(), nn.ConvTranspose2d(b, b, 2, stride=2))
            for a, b in widths
        )
        self.last = nn.Conv2d(128, 1, 1)

    def forward(self, x):
        maps = []
        for part in self.down:
            x = part(x)
            maps.append(x)
        for part, across in zip(self.up, maps[-2::-1]):
            x = torch.cat([part(x), across], 1)
        return self.last(x)


class Keras(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = models.vgg11().features
        self.fc = nn.Sequential(nn.Linear(512, 4096), nn.ReLU(), nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, 10))

    def forward(self, x):
        return self.fc(self.features(x).permute(0, 2, 3, 1).reshape(x.size(0), -1))
"""

FOUND = [
    ("Perceptual", "vgg19", ["the network ends before it, 16 layers from there to classifier.6 (fc8) are missing"]),
    (
        "UNet",
        "vgg11",
        [
            "the network ends before it, 10 layers from there to classifier.6 (fc8) are missing",
            "the network continues with 17 layers from here to last",
        ],
    ),
    ("FourStages", "vgg13", ["in_channels 1", "6 layers from there to avgpool are missing", "out_features 10"]),
    ("Keras", "vgg11", ["AdaptiveAvgPool2d(output_size=(7, 7)) is missing", "permute(dims=", "out_features 10"]),
]


@pytest.mark.parametrize(("name", "nearest", "causes"), FOUND)
def test_what_is_no_vgg_as_a_whole_is_held_against_the_one_that_it_was_made_of(
    tmp_path: Path, name: str, nearest: str, causes: list[str]
) -> None:
    found = diff(f"{file_of(tmp_path, SMALL)}:{name}", "torchvision")
    assert found.reference == f"torchvision:{nearest}"
    told = [difference for difference in found.differences if difference.effect in ("shape", "function")]
    assert len(told) == len(causes)
    assert all(cause in difference.message for cause, difference in zip(causes, told))
    said = " ".join(text for difference in told for text in difference.consequences)
    assert "(extra)" not in said
    assert "no longer runs" not in said
    assert "7 a side of 1x512" not in said


@pytest.mark.slow
def test_what_is_rather_another_network_is_said_to_be_one(tmp_path: Path) -> None:
    path = file_of(tmp_path, SMALL)
    (note,) = (note for note in diff(f"{path}:UNet").notes if "probably another" in note)
    # Eight convolutions are VGG-11's; the way up has four, each with a transposed one, and the last.
    assert note == "8 of its 17 layers with weights have a counterpart: it is probably another network"
    assert not any("probably another" in note for note in diff(f"{path}:FourStages").notes)


def test_a_decoder_costs_what_its_layers_cost(tmp_path: Path) -> None:
    found = diff(f"{file_of(tmp_path, SMALL)}:UNet", "torchvision", (3, 32, 32))
    (up,) = (d for d in found.differences if d.kind == "inserted")
    widths = [(512, 512), (1024, 256), (512, 128), (256, 64)]
    weights = sum(a * b * 9 + b + b * b * 4 + b for a, b in widths) + 128 + 1
    # The deepest map is 2x2; a transposed convolution of 2x2 with stride 2 multiplies each pixel by its four weights.
    macs = sum((a * b * 9 + b * b * 4) * (2 * 2**i) ** 2 for i, (a, b) in enumerate(widths)) + 128 * 32 * 32
    assert up.consequences == (f"{weights:,} parameters more", f"{macs / 1e6:.2f} MMACs more")


def test_a_relu_left_out_in_several_places_is_one_mistake() -> None:
    def net(left_out: bool) -> nn.Module:
        layers: list[nn.Module] = []
        for place in range(6):
            layers.append(nn.Linear(4, 4))
            layers += [] if left_out and place % 2 else [nn.ReLU()]
        return nn.Sequential(*layers)

    found = diff(net(True), net(False), (3, 4, 4))
    (only,) = (difference for difference in found.differences if difference.effect == "function")
    assert only.kind == "missing"
    assert "; so in 3 ReLU layers" in only.message


def test_what_ends_early_misses_the_weights_that_it_has_not(tmp_path: Path) -> None:
    found = diff(f"{file_of(tmp_path, SMALL)}:Perceptual")
    (cause,) = (difference for difference in found.differences if difference.effect == "shape")
    missing = 3 * (512 * 512 * 9 + 512) + (25088 * 4096 + 4096) + (4096 * 4096 + 4096) + (4096 * 1000 + 1000)
    assert f"{missing:,} parameters fewer" in cause.consequences
    assert found.params.reference - found.params.ours == missing


def test_a_pool_of_one_pixel_does_nothing_and_ends_no_stage() -> None:
    right = nn.Sequential(nn.Conv2d(3, 8, 3), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8 * 225, 10))
    wrong = nn.Sequential(*right[:2], nn.AvgPool2d(kernel_size=1, stride=1), *right[2:])
    found = diff(wrong, right, (3, 32, 32), numeric=True)
    (only,) = (difference for difference in found.differences if difference.kind != "renamed")
    assert (only.kind, only.ours, only.effect, found.verdict) == ("inserted", "2", "none", "equivalent")
    assert found.numeric is not None
    assert found.numeric.max_abs_error == 0
    assert [node.label for node in network(wrong, (3, 32, 32)).nodes] == ["conv1_1", "pool1", "", "", "fc2"]


def test_a_difference_without_effect_is_listed_once() -> None:
    def net(inplace: bool, rate: float) -> nn.Module:
        layers = [[nn.Linear(8, 8), nn.ReLU(inplace=inplace), nn.Linear(8, 8), nn.ReLU(), nn.Dropout(rate)]] * 2
        return nn.Sequential(*(layer for part in layers for layer in part))

    found = diff(net(True, 0.5), net(False, 0.2), (3, 8, 8))
    assert [(d.ours, d.changes[0].attribute, len(d.follows)) for d in found.differences] == [
        ("4", "p", 1),
        ("1", "inplace", 1),
    ]


def test_a_layer_goes_by_its_own_label(tmp_path: Path) -> None:
    found = diff(f"{file_of(tmp_path, SMALL)}:FourStages", "torchvision")
    (last,) = (d for d in found.differences if d.message.startswith("classifier.6 "))
    assert last.message.startswith(
        "classifier.6 (fc7): out_features 10, the reference has 1,000 (there classifier.6, fc8)"
    )
    assert last.label == "fc8"


def test_a_network_for_images_on_which_no_vgg_runs_is_held_against_one_at_32(tmp_path: Path, vggscope) -> None:
    line = "conv3-64 maxpool conv3-128 maxpool conv3-256 conv3-256 maxpool FC-10"
    for ref in ("torchvision", "paper"):
        found = diff(line, ref, (1, 28, 28))
        assert found.verdict == "different"
        assert any("does not run on 1x28x28" in n or "does not run on 3x28x28" in n for n in found.notes)
        if ref == "torchvision":
            first = next(difference for difference in found.differences if difference.changes)
            assert first.changes[0].attribute == "in_channels"
            # A kernel of 3x3 for each of 64 channels, for one color instead of three.
            assert f"{2 * 9 * 64:,} parameters fewer" in first.consequences
    told = vggscope("diff", line, "--input", "1x28x28", "--numeric")
    assert told.code == 2
    assert told.err.splitlines()[-1] == "leave out --numeric"


BATCHES = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = models.vgg11().features
        self.fc = nn.Linear(512, 10)

    def forward(self, x):
        return self.fc(self.features(x).view(-1, 512))
"""


def test_a_size_at_which_one_image_becomes_many_is_not_the_one_a_network_is_for(tmp_path: Path) -> None:
    path = f"{file_of(tmp_path, BATCHES)}:Net"
    found = network(path)
    assert (found.input_shape, found.shapes[found.end]) == ((1, 3, 32, 32), (1, 10))
    compared = diff(path)
    assert "3x224x224 does not fit, 3x32x32 was taken; input_size gives another" in compared.notes
    # What lays the values out is right: it is the pool before it that is missing.
    assert [d.effect for d in compared.differences if d.ours == "view"] == ["none"]
    assert network(path, (3, 224, 224)).shapes["fc"] == (49, 10)


def test_the_error_for_a_network_that_cannot_run_has_a_remedy(tmp_path: Path) -> None:
    text = """
class Loss(nn.Module):
    def forward(self, x, y):
        return x - y

def parts():
    return nn.ModuleList(models.vgg11().features)
"""
    path = file_of(tmp_path, text)
    with pytest.raises(ModelError, match="which has no forward\nname the module that calls it"):
        network(f"{path}:parts")
    loss = network(f"{path}:Loss")
    assert [tensor.name for tensor in loss.inputs] == ["x", "y"]
    assert loss.warnings == ("no input was given: 3x224x224, 3x224x224 were taken; input_size gives another",)


def test_a_file_that_imports_its_neighbour_as_a_part_of_a_package_is_one(tmp_path: Path) -> None:
    folder = tmp_path / "found_vgg"
    folder.mkdir()
    (folder / "sizes.py").write_text("WIDTH = 7\n")
    (folder / "net.py").write_text("from torch import nn\nfrom . import sizes\nnet = nn.Linear(sizes.WIDTH, 2)\n")
    assert [node.op.in_features for node in network(f"{folder}/net.py:net").nodes] == [7]
    assert str(tmp_path) not in sys.path


def test_json_of_an_op_has_no_field_of_its_run() -> None:
    class Net(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * x.sum(1, keepdim=True).expand_as(x)

    found = diff(Net(), nn.Sequential(nn.Identity()), (3, 4, 4))
    told = [difference.message for difference in found.differences]
    assert any(message.startswith("expand_as: expand_as() is inserted") for message in told), told


@pytest.mark.slow
def test_what_a_network_notes_of_itself_is_not_taken_for_its_input() -> None:
    class Masked(nn.Module):
        def __init__(self, before: int, width: int, size: int) -> None:
            super().__init__()
            self.in_channels, self.kernel_size = before, size
            self.conv = nn.Conv2d(before, width, size, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(x).relu()

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.in_channels = 3
            self.features = nn.Sequential(self.layer(8), self.layer(16))

        def layer(self, width: int) -> nn.Module:
            before, self.in_channels = self.in_channels, width
            return Masked(before, width, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.features(x)

    assert network(Net()).input_shape == (1, 3, 224, 224)
    assert network(Masked(1, 8, 3)).input_shape == (1, 1, 224, 224)


@pytest.mark.slow
def test_a_layer_with_the_name_of_another_in_the_reference_is_put_in_and_followed() -> None:
    """Conv, conv, ReLU, batch norm, as somebody remembered it: in a forward of one variable, layers of other names."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layers = (nn.Conv2d(3, 64, 3), nn.Conv2d(64, 128, 3), nn.ReLU(), nn.BatchNorm2d(128), nn.MaxPool2d(2))
            self.features = nn.Sequential(*layers, nn.Conv2d(128, 256, 3), nn.ReLU(), nn.MaxPool2d(2))
            self.classifier = nn.Sequential(nn.Linear(256 * 6 * 6, 10))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            size = x.size(0)
            x = self.features(x)
            x = x.view(size, -1)
            return self.classifier(x)

    found = diff(Net(), "torchvision", (3, 32, 32))
    (norm,) = (d for d in found.differences if d.message.startswith("features.3 "))
    assert (norm.kind, norm.effect) == ("inserted", "function")
    assert any(text.endswith("parameters more") for text in norm.consequences)


@pytest.mark.slow
def test_a_network_that_flattens_by_view_is_written_out(tmp_path: Path, vggscope) -> None:
    path = file_of(tmp_path, BATCHES)
    written = tmp_path / "written.py"
    assert vggscope("build", f"{path}:Net", "-o", str(written)).code == 0
    found = diff(f"{written}:VGG", f"{path}:Net", (3, 32, 32), numeric=True)
    assert found.verdict == "equivalent"
    assert found.numeric is not None
    assert found.numeric.max_abs_error == 0
    # Of a larger map view(-1, 512) makes many samples, which flatten does not.
    refused = vggscope("build", f"{path}:Net", "--input", "3x64x64", "-o", str(written), "--force")
    assert refused.code == 2
    assert "view is the call of a function" in refused.err


def test_a_mean_over_both_sides_is_put_in_where_there_are_sides() -> None:
    class Net(nn.Module):
        def __init__(self, by_mean: bool) -> None:
            super().__init__()
            self.conv, self.pool = nn.Conv2d(3, 8, 3, padding=1), nn.AdaptiveAvgPool2d(2)
            self.fc = nn.Linear(8 if by_mean else 32, 5)
            self.by_mean = by_mean

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.conv(x)
            return self.fc(x.mean(3).mean(2) if self.by_mean else torch.flatten(self.pool(x), 1))

    found = diff(Net(True), Net(False), (3, 8, 8))
    said = [text for difference in found.differences for text in difference.consequences]
    assert not any(text == "the output is 5 instead of 5" for text in said)
    assert found.verdict == "different"


@pytest.mark.slow
def test_layers_that_run_in_vain_are_named_as_well() -> None:
    """Some stop to collect maps and go on to the end."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features = build("A").features

        def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
            maps = []
            for place, layer in enumerate(self.features):
                x = layer(x)
                if place in (1, 4, 9):
                    maps.append(x)
            return maps

    found = network(Net(), (3, 32, 32))
    assert found.by_name[found.end].label == "relu3_2"
    assert found.nodes[-1].label == "pool5"


def test_outputs_of_different_sizes_are_described(tmp_path: Path, vggscope) -> None:
    shown = vggscope("diff", "conv3-8 maxpool FC-10", "--ref", "conv3-8 maxpool FC-20", "--numeric", "--input", "3x8x8")
    assert "the outputs differ in size; the first mismatch is at" in " ".join(shown.out.split())
    assert "inf" not in shown.out


def test_a_layer_that_goes_by_its_label_is_named_once() -> None:
    class Net(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.conv1_1, self.relu1_1 = nn.Conv2d(3, width, 3), nn.ReLU()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.relu1_1(self.conv1_1(x))

    (found,) = diff(Net(8), Net(4), (3, 8, 8)).differences
    assert found.message.startswith("conv1_1: out_channels 8")
