"""The diff: verdicts against torchvision, one difference for one mistake, consequences by hand."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import prune

from tests.counting import calls
from tests.strategies import columns
from vggscope.api import build as vggscope_build
from vggscope.api import diff as vggscope_diff
from vggscope.diffing.align import align
from vggscope.diffing.compare import compare
from vggscope.diffing.result import IGNORABLE, Change
from vggscope.diffing.wording import constants_text, value_text
from vggscope.drawing.subject import Subject
from vggscope.graph import Network
from vggscope.render.formats import write
from vggscope.sources.resolve import resolve
from vggscope.trace.run import trace
from vggscope.vgg.configs import CONFIGS
from vggscope.vgg.options import BuildOptions

TORCHVISION = {"A": "vgg11", "B": "vgg13", "D": "vgg16", "E": "vgg19"}


def mistaken(column: str, *changes: tuple[str, str], head: str | None = None) -> Network:
    """A configuration in which words of its notation are replaced, each once."""
    line = " ".join(CONFIGS[column].notation.split())
    for old, new in changes:
        assert old in line
        line = line.replace(old, new, 1)
    return resolve(line, BuildOptions(head=head))


@pytest.mark.parametrize("suffix", ["", "_bn"])
@pytest.mark.parametrize("column", TORCHVISION)
def test_identical_to_torchvision(vggscope, column: str, suffix: str) -> None:
    ran = vggscope("diff", column + suffix, "--ref", "torchvision", "--strict", "-f", "json")
    result = json.loads(ran.out)
    assert (ran.code, result["verdict"], result["differences"]) == (0, "identical", [])
    assert result["reference"] == f"torchvision:{TORCHVISION[column]}{suffix}"
    assert result["params"]["ours"] == result["params"]["reference"]


def test_c_against_the_nearest(vggscope) -> None:
    """Three convolutions are 1x1. By hand: 8 * C * C weights and C * C * 8 * side^2 MACs fewer each."""
    ran = vggscope("diff", "C", "--ref", "torchvision", "-f", "json")
    result = json.loads(ran.out)
    assert (ran.code, result["verdict"], result["reference"]) == (1, "different", "torchvision:vgg16")
    assert "column C of Table 1 has no counterpart" in result["notes"][0]
    assert [d["label"] for d in result["differences"]] == ["conv3_3", "conv4_3", "conv5_3"]
    for difference, width, field in zip(result["differences"], (256, 512, 512), (204, 196, 180)):
        assert (difference["kind"], difference["effect"]) == ("changed", "function")
        assert [(c["attribute"], c["ours"], c["reference"]) for c in difference["changes"]] == [
            ("kernel_size", [1, 1], [3, 3]),
            ("padding", [0, 0], [1, 1]),
        ]
        consequences = " ".join(difference["consequences"])
        assert f"{8 * width * width:,} parameters fewer" in consequences
        assert f"a receptive field of {field} instead of 212 pixels at pool5" in consequences
    assert (result["params"]["ours"], result["params"]["reference"]) == (133638952, 138357544)


def test_a_lrn_has_one_more_layer(vggscope) -> None:
    ran = vggscope("diff", "A-LRN", "--ref", "torchvision", "-f", "json")
    result = json.loads(ran.out)
    assert (ran.code, result["reference"]) == (1, "torchvision:vgg11")
    (difference,) = result["differences"]
    assert (difference["kind"], difference["ours"], difference["reference"]) == ("inserted", "features.2", None)
    assert "LocalResponseNorm" in difference["message"]
    assert "renumbered" in difference["follows"][0]


@given(columns())
def test_a_network_is_identical_to_itself(line: str) -> None:
    network = resolve(line)
    assert compare(network, network).verdict == "identical"


@given(columns(), columns())
def test_an_alignment_keeps_the_order_and_every_layer(one: str, other: str) -> None:
    ours, reference = resolve(one, BuildOptions(input=(3, 64, 64))), resolve(other, BuildOptions(input=(3, 64, 64)))
    pairs = align(ours, reference).pairs
    assert [i for i, _ in pairs if i is not None] == list(range(len(ours.nodes)))
    assert [j for _, j in pairs if j is not None] == list(range(len(reference.nodes)))


def test_a_dense_head_is_equivalent() -> None:
    diff = compare(resolve("D", BuildOptions(head="dense")), resolve("D"))
    assert diff.verdict == "equivalent"
    assert {d.effect for d in diff.differences} == {"none"}


def test_a_flat_head_is_equivalent_where_the_pool_is_the_identity() -> None:
    assert compare(resolve("D", BuildOptions(head="flatten")), resolve("D")).verdict == "equivalent"
    small = BuildOptions(input=(3, 32, 32))
    diff = compare(resolve("D", replace(small, head="flatten")), resolve("D", small))
    assert diff.verdict == "different"
    assert [(d.kind, d.reference, d.effect) for d in diff.differences] == [("missing", "avgpool", "shape")]


MISTAKES = [
    (("conv3-128", "conv3-128/p0"), "changed", "conv2_1", "padding", "shape"),
    (("conv3-128", "conv5-128/p1"), "changed", "conv2_1", "kernel_size", "shape"),
    (("conv3-128", "conv3-96"), "changed", "conv2_1", "out_channels", "shape"),
    (("conv3-128", "conv3-128/s2"), "changed", "conv2_1", "stride", "shape"),
    (("conv3-64 maxpool", "conv3-64 avgpool"), "changed", "pool1", "op", "function"),
    (("conv3-64 maxpool", "conv3-64 maxpool3"), "changed", "pool1", "kernel_size", "shape"),
    (("FC-1000", "FC-10"), "changed", "fc8", "out_features", "shape"),
    (("conv3-256 conv3-256", "conv3-256"), "missing", "conv3_2", None, "function"),
    (("conv3-256 conv3-256", "conv3-256 conv3-256 conv3-256"), "inserted", "conv3_3", None, "function"),
    (("conv3-512 conv3-512 maxpool", "conv3-512 conv3-512"), "missing", "pool4", None, "shape"),
    (("FC-4096 FC-4096", "FC-4096"), "missing", "fc7", None, "function"),
]


@pytest.mark.parametrize(("change", "kind", "label", "attribute", "effect"), MISTAKES)
def test_one_mistake_is_one_difference(change, kind: str, label: str, attribute: str | None, effect: str) -> None:
    diff = compare(mistaken("A", change), resolve("A"))
    causes = [d for d in diff.differences if d.effect not in ("none", "training_only")]
    assert [(d.kind, d.label, d.effect) for d in causes] == [(kind, label, effect)]
    if attribute:
        assert causes[0].changes[0].attribute == attribute
        assert attribute in causes[0].message or causes[0].changes[0].attribute == "op"
    assert diff.verdict == "different"


def test_the_consequences_of_a_missing_padding() -> None:
    """By hand: 110 instead of 112 after conv2_1, then 55, 27, 13 and 6 instead of 7; 6 * 6 * 512 = 18,432 features."""
    (difference,) = compare(mistaken("A", ("conv3-128", "conv3-128/p0")), resolve("A")).differences
    consequences = difference.consequences
    assert consequences[0] == "each side is 110 instead of 112"
    assert consequences[1] == "each side is 6 instead of 7 after pool5"
    assert consequences[2].startswith("avgpool hides it")
    flat = compare(mistaken("A", ("conv3-128", "conv3-128/p0"), head="flatten"), resolve("A"))
    cause = next(d for d in flat.differences if d.kind == "changed")
    assert "classifier.0 (fc6) gets 18,432 features instead of 25,088" in cause.consequences


def test_a_mistake_made_everywhere_is_one_mistake() -> None:
    (difference,) = compare(resolve("D"), resolve("D_bn")).differences
    assert "so in 13 BatchNorm2d layers" in difference.message
    assert f"{2 * (2 * 64 + 2 * 128 + 3 * 256 + 6 * 512):,} parameters fewer" in difference.consequences


def test_a_grayscale_input() -> None:
    (difference,) = compare(resolve("A", BuildOptions(input=(1, 224, 224))), resolve("A")).differences
    assert (difference.label, difference.effect) == ("conv1_1", "shape")
    assert difference.changes[0].attribute == "in_channels"
    assert f"{64 * 9 * 2:,} parameters fewer" in difference.consequences


class TwoImages(nn.Module):
    """One of its two inputs has the name that a single one has in a Network."""

    def __init__(self, channels: int = 8, inplace: bool = True) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, channels, 3), nn.Conv2d(3, 8, 3)
        self.relu = nn.ReLU(inplace)

    def forward(self, other: torch.Tensor, input: torch.Tensor) -> torch.Tensor:
        return self.relu(self.left(input)).sum() + self.right(other)


def test_one_of_several_inputs_may_be_called_input() -> None:
    sizes = [(1, 3, 8, 8)] * 2
    assert vggscope_diff(TwoImages(), ref=TwoImages(inplace=False), input_size=sizes).verdict == "equivalent"
    (change,) = (
        d for d in vggscope_diff(TwoImages(4), ref=TwoImages(), input_size=sizes).differences if d.changes_output
    )
    assert "out_channels 4, the reference has 8" in change.message
    assert any("112 parameters fewer" in text for text in change.consequences)


def test_two_thousand_layers_are_aligned_pair_by_pair() -> None:
    """A few calls for each of the four million pairs at most."""
    words = [f"conv3-{4 + i % 3}" for i in range(1000)]
    other = [f"conv{1 + 2 * (i % 2)}-{4 + i % 5}" for i in range(1000)]
    ours, reference = (resolve(" ".join(line), BuildOptions(input=(3, 8, 8))) for line in (words, other))
    assert calls(align, ours, reference) < 2 * len(ours.nodes) * len(reference.nodes)


@pytest.mark.parametrize("words", [("C", "--ref", "paper"), ("D", "--head", "dense", "--ref", "D")])
def test_exit_code_0_for_equivalent_networks(vggscope, words) -> None:
    assert vggscope("diff", *words).code == 0


def test_strict_accepts_only_identical_networks(vggscope) -> None:
    assert vggscope("diff", "D", "--head", "dense", "--ref", "D", "--strict").code == 1


def test_the_terminal_view(vggscope, golden) -> None:
    golden("diff-C.txt", vggscope("diff", "C", "--ref", "torchvision").out)
    golden("diff-C.md", vggscope("diff", "C", "--ref", "torchvision", "-f", "markdown").out)
    golden("diff-A.txt", vggscope("diff", "A", "--ref", "torchvision").out)


@given(st.sampled_from(["table", "json", "csv", "markdown"]))
def test_every_format_takes_a_diff(form: str) -> None:
    assert "conv3_3" in write(compare(resolve("C"), resolve("D")), form)


def test_the_same_weights_give_the_same_output(vggscope) -> None:
    """A dense head computes what the Linear layers compute, up to the order of the sums."""
    words = ("diff", "conv3-8 maxpool FC-16 FC-10", "--ref", "conv3-8 maxpool FC-16 FC-10", "--input", "3x14x14")
    result = json.loads(vggscope(*words, "--head", "dense", "--numeric", "--float64", "-f", "json").out)
    assert result["verdict"] == "equivalent"
    assert result["numeric"]["max_abs_error"] < 1e-12
    assert (result["numeric"]["seed"], result["numeric"]["dtype"]) == (0, "float64")
    assert result["numeric"]["parts_at"] is None


def test_the_first_mismatch_is_named(vggscope) -> None:
    words = (
        "diff",
        "conv3-8 maxpool conv3-8 FC-10",
        "--ref",
        "conv3-8 avgpool conv3-8 FC-10",
        "--numeric",
        "-f",
        "json",
    )
    ran = vggscope(*words, "--input", "3x16x16")
    result = json.loads(ran.out)
    assert ran.code == 1
    assert result["numeric"]["parts_at"] == "features.2 (pool1)"
    assert result["numeric"]["max_rel_error"] > 1e-3


def test_each_call_of_a_module_is_compared_with_its_own_counterpart(vggscope, tmp_path) -> None:
    """The pool is called twice; its first call must not be compared with the output of its last."""
    (tmp_path / "net.py").write_text(
        "import torch\n"
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.one, self.two = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)\n"
        "        self.pool, self.fc = nn.MaxPool2d(2), nn.Linear(128, 10)\n"
        "    def forward(self, x):\n"
        "        x = self.pool(torch.relu(self.one(x)))\n"
        "        x = self.again()(torch.relu(self.two(x)))\n"
        "        return self.fc(torch.flatten(self.turned(x), 1))\n"
        "    def again(self):\n"
        "        return self.pool\n"
        "    def turned(self, x):\n"
        "        return x.permute(0, 2, 3, 1)\n"
        "class Right(Net):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.last = nn.MaxPool2d(2)\n"
        "    def again(self):\n"
        "        return self.last\n"
        "    def turned(self, x):\n"
        "        return x\n"
    )
    words = ("--ref", f"{tmp_path}/net.py:Right", "--numeric", "-f", "json", "--input", "3x16x16")
    ran = vggscope("diff", f"{tmp_path}/net.py:Net", *words)
    assert json.loads(ran.out)["numeric"]["parts_at"] == "fc (fc3)"


def test_outputs_of_different_sizes_have_no_finite_error(vggscope) -> None:
    words = ("diff", "conv3-8 FC-10", "--ref", "conv3-8 FC-12", "--numeric", "-f", "json", "--input", "3x16x16")
    assert json.loads(vggscope(*words).out)["numeric"]["max_abs_error"] is None


@pytest.mark.slow
def test_weights_come_from_a_checkpoint(vggscope, tmp_path) -> None:
    model, path = "conv3-8 maxpool FC-10", str(tmp_path / "x.safetensors")
    assert vggscope("build", model, "-o", path).code == 0
    ran = vggscope("diff", model, "--ref", model, "--weights", path, "--input", "3x16x16", "-f", "json")
    assert (ran.code, json.loads(ran.out)["numeric"]["max_abs_error"]) == (0, 0.0)
    other = vggscope("diff", "conv3-9 FC-10", "--ref", model, "--weights", path)
    assert (other.code, other.out) == (2, "")
    assert "does not hold the weights of this model" in other.err
    # The convolutions and FC layers are the same, but what ran with batch norms between them is another network.
    assert vggscope("build", "vgg11_bn", "--num-classes", "10", "-o", path, "--force").code == 0
    for model in ("vgg11", "vgg13"):
        without = vggscope("diff", model, "--ref", model, "--num-classes", "10", "--weights", path)
        assert (without.code, without.out) == (2, "")
        assert "does not hold the weights of this model" in without.err


@pytest.mark.parametrize(
    ("ignored", "verdict"), [("", "different"), ("bias", "equivalent"), ("bias,inplace,names", "identical")]
)
def test_what_is_ignored_does_not_count(tmp_path, ignored: str, verdict: str) -> None:
    path = tmp_path / "net.py"
    path.write_text(
        "from torch import nn\n"
        "def net():\n"
        "    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.ReLU(), nn.MaxPool2d(2, 2))\n"
    )
    ours, reference = resolve(f"{path}:net"), resolve("conv3-8 maxpool")
    chosen = frozenset(filter(None, ignored.split(",")))
    assert chosen <= IGNORABLE.keys()
    assert compare(ours, reference, ignore=chosen).verdict == verdict


def test_an_ignored_attribute_does_not_hide_a_rename(tmp_path) -> None:
    """After a missing ReLU come a pool, two convolutions and two ReLU: five are renumbered."""
    path = tmp_path / "net.py"
    path.write_text(
        "from torch import nn\n"
        "def net(lost=0, inplace=True):\n"
        "    layers = []\n"
        "    for width in (8, 0, 8, 8):\n"
        "        layers += [nn.Conv2d(8, 8, 3), nn.ReLU(inplace)] if width else [nn.MaxPool2d(2)]\n"
        "    return nn.Sequential(nn.Conv2d(3, 8, 1), *layers[:1], *layers[1 + lost:])\n"
        "def named(name, inplace=True):\n"
        "    net = nn.Sequential(nn.Conv2d(3, 8, 3))\n"
        "    net.add_module(name, nn.ReLU(inplace))\n"
        "    return net\n"
    )
    (missing,) = compare(
        resolve(f"{path}:net(lost=1, inplace=False)"), resolve(f"{path}:net()"), ignore=frozenset({"inplace"})
    ).differences
    assert missing.follows == ("5 later layers are renumbered: 2 is 3 in the reference",)
    ours, reference = resolve(f"{path}:named('act', inplace=False)"), resolve(f"{path}:named('relu')")
    result = compare(ours, reference, ignore=frozenset({"inplace"}))
    assert (result.verdict, [d.kind for d in result.differences]) == ("equivalent", ["renamed"])
    assert compare(ours, reference, ignore=frozenset({"inplace", "names"})).verdict == "identical"


def test_training_facts_are_added_on_request(vggscope) -> None:
    result = json.loads(vggscope("diff", "A", "--ref", "A", "--training", "-f", "json").out)
    assert [fact["matter"] for fact in result["training"]][:3] == ["initialisation", "dropout", "preprocessing"]


def test_a_missing_block_is_one_difference() -> None:
    """ResNet-18 has 8 blocks of the 16 that ResNet-34 has."""
    diff = compare(resolve("torchvision:resnet18"), resolve("torchvision:resnet34"))
    assert [d.message.split(":")[0] for d in diff.differences] == [
        *("layer1.2", "layer2.2", "layer2.3", "layer3.2", "layer3.3", "layer3.4", "layer3.5", "layer4.2"),
    ]
    assert {d.kind for d in diff.differences} == {"missing"}
    assert diff.params.reference - diff.params.ours == sum(
        int(d.consequences[0].split(" ")[0].replace(",", "")) for d in diff.differences
    )


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("ReLU()", "MaxPool2d(2)", True),
        ("Sigmoid()", "MaxPool2d(3, 2, 1)", True),
        ("ReLU()", "AvgPool2d(2)", False),
        ("GELU()", "MaxPool2d(2)", False),
        ("GELU()", "Flatten()", True),
        ("ReLU()", "BatchNorm2d(4)", False),
        ("Softmax(1)", "Flatten()", False),
        ("Dropout()", "BatchNorm2d(4)", True),
    ],
)
def test_two_swapped_layers_are_one_difference(one: str, other: str, same: bool) -> None:
    """torch tells whether both orders are the same function."""
    torch.manual_seed(0)
    first, second = (eval(f"nn.{text}", {"nn": nn}) for text in (one, other))
    for layer in (first, second):
        for tensor in layer.state_dict().values():
            if tensor.is_floating_point():
                tensor.uniform_(0.5, 1.5)
    x = torch.randn(2, 4, 12, 12)
    conv = nn.Conv2d(4, 4, 3, padding=1)
    ours = nn.Sequential(conv, second, first).eval()
    reference = nn.Sequential(conv, first, second).eval()
    with torch.no_grad():
        assert torch.equal(ours(x), reference(x)) == same
    diff = vggscope_diff(ours, reference, (4, 12, 12))
    (moved,) = [difference for difference in diff.differences if difference.kind != "renamed"]
    assert moved.changes[0].attribute == "order"
    assert moved.changes[0].ours == moved.changes[0].reference[::-1]
    assert diff.verdict == ("equivalent" if same else "different")


def test_a_layer_that_is_read_twice_is_not_relocated() -> None:
    """A ReLU before the branch and one within it are two layers."""

    class Net(nn.Module):
        def __init__(self, early: bool) -> None:
            super().__init__()
            self.conv, self.relu, self.pool = nn.Conv2d(3, 3, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 1, 1)
            self.early = early

        def forward(self, x):
            x = self.conv(x)
            if self.early:
                x = self.relu(x)
                return self.pool(x) + x
            y = self.pool(x)
            return self.relu(y) + x

    diff = vggscope_diff(Net(True), Net(False), (3, 8, 8))
    assert diff.verdict == "different"
    assert {"inserted", "missing"} <= {difference.kind for difference in diff.differences}


def test_another_number_of_classes_can_be_ignored_as_the_advice_says(vggscope, tmp_path) -> None:
    path = tmp_path / "net.py"
    path.write_text("from torchvision.models import vgg11\ndef net():\n    return vgg11(num_classes=10)\n")
    result = vggscope("diff", f"{path}:net", "--ref", "A")
    assert result.code == 1
    assert "out_features 10, the reference has 1,000" in result.out
    assert "--ignore classes" in result.out
    ignored = vggscope("diff", f"{path}:net", "--ref", "A", "--ignore", "classes", "--strict")
    assert ignored.code == 0
    assert "out_features" not in ignored.out
    # The width of any other layer still counts.
    other = vggscope(
        "diff", "conv3-8 maxpool FC-20 FC-10", "--ref", "conv3-8 maxpool FC-30 FC-5", "--ignore", "classes"
    )
    assert other.code == 1
    assert "out_features 20, the reference has 30" in other.out


def test_a_pruned_weight_is_not_the_weight() -> None:
    """With the weights copied, it computes something else."""
    model = vggscope_build("A")
    prune.l1_unstructured(model.features[0], "weight", 0.5)
    result = vggscope_diff(model, ref="A")
    assert result.verdict == "different"
    (difference,) = result.differences
    assert difference.message == (
        "features.0 (conv1_1): it computes its weight from a parameter, the reference reads it as it is"
    )


@pytest.mark.parametrize(
    ("pool", "spec"),
    [(nn.LPPool2d(2, 2), "2×2, /2"), (nn.FractionalMaxPool2d(2, output_size=4), "max pool")],
    ids=["LPPool2d", "FractionalMaxPool2d"],
)
def test_a_pool_is_compared_with_another_kind_of_pool(pool: nn.Module, spec: str) -> None:
    def network(pool: nn.Module) -> Network:
        return trace(nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), pool, nn.Conv2d(8, 8, 3)), (3, 8, 8), "x")

    ours = network(pool)
    (difference,) = vggscope_diff(ours, network(nn.MaxPool2d(2))).differences
    assert (difference.kind, difference.effect, difference.label) == ("changed", "function", "pool1")
    assert difference.changes == (Change("op", type(pool).__name__, "MaxPool2d"),)
    layer = Subject(ours).layers[2]
    assert (layer.kind, layer.spec) == ("pool", spec)


@pytest.mark.parametrize(
    "activation",
    [
        *(nn.ReLU6, nn.Hardtanh, nn.LeakyReLU, nn.ELU, nn.SELU, nn.SiLU, nn.Mish, nn.Hardswish, nn.Hardsigmoid),
        *(nn.GELU, nn.Softplus, nn.Sigmoid, nn.Tanh, nn.PReLU),
    ],
)
def test_an_activation_is_compared_with_another(activation: type[nn.Module]) -> None:
    def network(activation: nn.Module) -> Network:
        return trace(nn.Sequential(nn.Conv2d(3, 8, 3), activation, nn.Conv2d(8, 8, 3)), (3, 8, 8), "x")

    (difference,) = vggscope_diff(network(activation()), network(nn.ReLU())).differences
    assert difference.kind == "changed"
    assert difference.changes[0] == Change("op", activation.__name__, "ReLU")


def test_a_missing_layer_has_its_own_parameters() -> None:
    """By hand: fc6 has 25,088 * 4,096 + 4,096 parameters, and fc7 reads 25,088 - 4,096 features more without it."""
    without = mistaken("D", ("FC-4096", ""), ("FC-4096", ""), head="flatten")
    first, second = compare(without, resolve("D", BuildOptions(head="flatten"))).differences
    assert first.consequences[0] == "102,764,544 parameters are missing"
    assert f"layers after it read another width and have {(25_088 - 4_096) * 4_096:,} more" in first.consequences
    assert second.consequences[0] == "16,781,312 parameters fewer"


@pytest.mark.parametrize(
    ("ours", "reference", "text"),
    [
        (
            "float32 (3,) [1.0, 2.0, nan]",
            "float32 (3,) [1.0, 3.0, nan]",
            "the constant float32 (3,) has 2.0 at position 1, the reference has 3.0",
        ),
        (
            "int64 (3,) [1, 2, 3]",
            "int64 (3,) [4, 5, 6]",
            "the constant int64 (3,) has 1 at position 0, the reference has 4; 2 more values differ",
        ),
        (
            f"float32 (8, 8) {'9f' * 16}",
            f"float32 (8, 8) {'53' * 16}",
            "the constant float32 (8, 8) has other values than the reference's",
        ),
        (
            "bool () [True]",
            f"float32 (8, 8) {'53' * 16}",
            "the constant is bool (), the reference's float32 (8, 8)",
        ),
        ("mul x({}, {})", "add x({}, {})", "forward computes the constant in another way than the reference"),
    ],
)
def test_other_constants_are_said_in_words(ours: str, reference: str, text: str) -> None:
    assert constants_text(ours, reference) == text
    assert value_text(()) == "none"


class Attention(nn.Module):
    """Reads a parameter and a mask beside its input, if they are asked for."""

    def __init__(self, samples: int = 1, mask: bool = False, position: bool = True) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 8)
        self.position = nn.Parameter(torch.zeros(samples, 4, 8))
        self.mask, self.has_position = mask, position

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.fc(x)
        x = x + self.position if self.has_position else x + x
        mask = torch.ones(4, 4).tril().bool() if self.mask else None
        return nn.functional.scaled_dot_product_attention(x, x, x, attn_mask=mask)


ALONE = "only what it computes from the input"

CONSTANTS = [
    ({"samples": 5}, "shape", "reads (x, a tensor of 5x4x8), the reference reads (x, a tensor of 1x4x8)"),
    ({"mask": True}, "function", f"reads (x, x, x, a tensor of 4x4), the reference reads {ALONE}"),
    ({"position": False}, "function", f"reads {ALONE}, the reference reads (x, a tensor of 1x4x8)"),
]


@pytest.mark.parametrize(("arguments", "effect", "message"), CONSTANTS)
def test_tensors_that_a_call_reads_beside_its_input(arguments, effect: str, message: str) -> None:
    for turned in (False, True):
        pair = Attention(**arguments), Attention()
        found = vggscope_diff(pair[turned], ref=pair[not turned], input_data=torch.zeros(1, 4, 8))
        first = next(d for d in found.differences if d.changes and d.changes[0].attribute == "constants")
        assert first.effect == effect
        assert turned or message in first.message


def test_a_flatten_that_joins_the_batch_is_a_difference() -> None:
    """At a batch of one the values are the same; at two, the layer after it does not run."""

    def net(start: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(start), nn.Linear(4 * 6 * 6, 5))

    found = vggscope_diff(net(0), ref=net(1), input_size=(3, 8, 8))
    assert [(d.ours, d.effect) for d in found.differences] == [("1", "shape")]
    assert found.verdict == "different"


def test_differences_of_a_module_that_is_passed_in_have_the_line_that_defines_them() -> None:
    found = vggscope_diff(Attention(position=False), ref=Attention(), input_data=torch.zeros(1, 4, 8))
    (difference,) = found.differences
    file, _, line = difference.line.partition(":")
    assert file == "tests/test_diff.py"
    assert "self.position if self.has_position else x + x" in lines_of(__file__)[int(line) - 1]

    class Classes(nn.Module):
        def __init__(self, classes: int) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Flatten(), nn.Linear(4, 8), nn.Linear(8, classes))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layers(x)

    (difference,) = vggscope_diff(Classes(5), ref=Classes(6), input_data=torch.zeros(1, 4)).differences
    assert "nn.Linear(8, classes)" in lines_of(__file__)[int(difference.line.partition(":")[2]) - 1]
    assert difference.remedy == "write self.layers = nn.Sequential(nn.Flatten(), nn.Linear(4, 8), nn.Linear(8, 6))"


def lines_of(file: str) -> list[str]:
    with open(file, encoding="utf-8") as text:
        return text.read().splitlines()


class Rows(nn.Module):
    """Reads its features in one row, or in several."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.rows = rows
        self.fc1, self.fc2 = nn.Linear(16, 8), nn.Linear(8 // rows, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.fc1(x)
        return self.fc2(x.unflatten(1, (self.rows, -1)) if self.rows > 1 else x)


def test_a_harmless_difference_is_checked_against_the_size_of_the_output() -> None:
    """A layout op moves no values, but the linear layer after it gives 10 values for each of two rows."""
    found = vggscope_diff(Rows(2), ref=Rows(1), input_data=torch.zeros(1, 16))
    first = found.differences[0]
    assert (first.kind, first.ours, first.effect) == ("inserted", "unflatten", "shape")


class Patches(nn.Module):
    """Patches of an image as tokens, laid out by numbers."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side
        self.embed = nn.Conv2d(3, 8, side, side)
        self.head = nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        count = (32 // self.side) ** 2
        return self.head(self.embed(x).reshape(len(x), 8, count).permute(0, 2, 1).mean(1))


def test_a_reshape_of_the_reference_that_does_not_take_our_input_is_another_shape() -> None:
    result = compare(*(trace(Patches(side), (3, 32, 32), "x") for side in (4, 8)))
    assert result.verdict == "different"
    assert next(d.changes[0].attribute for d in result.differences if d.changes_output) == "kernel_size"
