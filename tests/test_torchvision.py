"""All of torchvision's classification models and timm's VGGs, beside torch's own counts and shapes."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from functools import cache

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from tests.recorded import Recorded
from vggscope.analysis.cost import costs, total_macs
from vggscope.analysis.summary import summarize
from vggscope.api import summary
from vggscope.errors import ModelError, OptionError
from vggscope.graph import Network
from vggscope.ops.base import Shape, numel
from vggscope.sources import libraries
from vggscope.sources.resolve import resolve
from vggscope.suppress import suppress_output
from vggscope.trace.build import without_data
from vggscope.vgg.options import BuildOptions

RECORDED = Recorded("torchvision", "torch", "torchvision", "timm")

counts = cache(libraries.parameter_counts)
"""The published parameter counts of a library's models, by name."""


def seen(module: nn.Module, shape: Shape) -> tuple[int, dict[str, list[Shape]]]:
    """What torch counts, and the shapes that hooks on every module see, call by call."""
    shapes: dict[str, list[Shape]] = defaultdict(list)

    def hook(path: str) -> Callable[[nn.Module, object, object], None]:
        def see(part: nn.Module, args: object, result: object) -> None:
            first = result[0] if isinstance(result, tuple) else result
            assert isinstance(first, Tensor)
            shapes[path].append(tuple(first.shape))

        return see

    for path, part in module.named_modules():
        part.register_forward_hook(hook(path))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(torch.empty(shape, device="meta"))
    return counter.get_total_flops(), shapes


def check(word: str, *batches: int) -> Network:
    """Hold a word's network to torch, for each of the batches, and return it."""
    network = resolve(word)
    assert network.warnings == ()
    assert network.failure is None

    def measure() -> None:
        with suppress_output():
            module = without_data(lambda: libraries.build(word, BuildOptions())).to("meta").eval()
        for batch in batches:
            check_batch(network, module, batch)

    RECORDED.confirm(f"{word} for {batches}", figures(network, batches), measure)
    return network


def figures(network: Network, batches: tuple[int, ...]) -> dict[str, object]:
    """All that `check_batch` holds to torch, with a digest of the shapes and of what reads the parameters."""
    shapes = [(node.module, [network.batched(node.name, batch) for batch in batches]) for node in network.nodes]
    read = [(node.name, [parameter.name for parameter in node.parameters]) for node in network.nodes]
    return {
        "params": sum(numel(p.shape) for p in network.parameters()),
        "macs": [total_macs(costs(network, batch)) for batch in batches],
        "digest": hashlib.sha256(repr((network.input_shape, shapes, read)).encode()).hexdigest()[:16],
    }


def check_batch(network: Network, module: nn.Module, batch: int) -> None:
    with suppress_output():
        flops, shapes = seen(module, (batch, *network.input_shape[1:]))
    assert total_macs(costs(network, batch)) == flops // 2
    assert sum(numel(p.shape) for p in network.parameters()) == sum(p.numel() for p in module.parameters())
    ours: dict[str, list[Shape]] = defaultdict(list)
    for node in network.nodes:
        if node.module is not None:
            ours[node.module].append(network.batched(node.name, batch))
    assert ours == {path: shapes[path] for path in ours}
    # Every module that holds parameters and ran belongs to a node, itself or by the parameters that a node reads.
    read = {p.name.rpartition(".")[0] for node in network.nodes for p in node.parameters}
    ran = {path for path in shapes if next(module.get_submodule(path).parameters(recurse=False), None) is not None}
    assert ran <= read | set(ours)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in libraries.names("torchvision") if not libraries.task(name)])
def test_a_torchvision_model_agrees_with_torch(name: str) -> None:
    network = check(f"torchvision:{name}", 1, 4)
    assert sum(numel(p.shape) for p in network.parameters()) == counts("torchvision")[name]


@pytest.mark.parametrize("name", ["alexnet", "resnet18", "googlenet", "mobilenet_v3_small", "swin_v2_t", "vit_b_32"])
def test_a_batch_costs_what_torch_counts(name: str) -> None:
    check(f"torchvision:{name}", 1, 3)


@pytest.mark.parametrize("name", libraries.names("timm", "vgg*"))
def test_timms_vgg_agrees_with_torch(name: str) -> None:
    network = check(f"timm:{name}", 1)
    assert (network.nodes[-2].label, network.nodes[-2].op.name) == ("fc8", "Linear")
    assert counts("timm")[name] == counts("torchvision")[name]


def test_heads_that_run_only_in_training_are_listed() -> None:
    network = resolve("torchvision:googlenet")
    assert {parameter.name.split(".")[0] for parameter, _ in network.unused} == {"aux1", "aux2"}
    assert {why for _, why in network.unused} == {"runs only in training"}


def test_parameters_of_no_layer_are_listed_and_add_up() -> None:
    """ViT's class token stands before 14x14 patches, and each of the 197 has a learned position."""
    report = summarize(resolve("torchvision:vit_b_16"))
    others = {other.name: other.params for other in report.totals.other_params}
    assert others == {"class_token": 768, "encoder.pos_embedding": (1 + 14 * 14) * 768}
    assert all("no layer's own" in other.why for other in report.totals.other_params)
    published = 86_567_656  # torchvision's own, in ViT_B_16_Weights.IMAGENET1K_V1.meta
    assert sum(layer.params for layer in report.layers) + sum(others.values()) == published == report.totals.params


def test_weights_that_a_function_multiplies_with_stand_in_its_row() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.shift = nn.Parameter(torch.ones(48, 5)), nn.Parameter(torch.ones(5))
            self.last = nn.Linear(5, 5)

        def forward(self, x: Tensor) -> Tensor:
            x = x.flatten(1) @ self.weight + self.shift
            return self.last(x) @ self.last.weight

    report = summary(Net(), (3, 4, 4))
    assert [(layer.op, layer.params) for layer in report.layers if layer.params] == [("matmul", 240), ("Linear", 30)]
    assert [(other.name, other.params) for other in report.totals.other_params] == [("shift", 5)]
    assert report.totals.params == 240 + 5 + 30


@pytest.mark.parametrize(("name", "side"), [("vgg16", 224), ("inception_v3", 299), ("efficientnet_b7", 600)])
def test_a_model_is_shown_at_its_own_input_size(name: str, side: int) -> None:
    assert libraries.input_shape(name) == (3, side, side)


def test_classes_are_handed_on_and_a_columns_options_are_not() -> None:
    network = resolve("torchvision:vgg11", BuildOptions(num_classes=7, input=(3, 64, 64)))
    assert network.shapes["classifier.6"] == (1, 7)
    assert network.shapes["features.20"] == (1, 512, 2, 2)
    for word in ("torchvision:vgg16", "timm:vgg16"):
        with pytest.raises(OptionError, match="head: "):
            resolve(word, BuildOptions(head="dense"))


@pytest.mark.parametrize("library", ["torchvision", "timm"])
def test_an_unknown_name_has_its_neighbours_named(library: str) -> None:
    with pytest.raises(ModelError, match="vgg16"):
        resolve(f"{library}:vgg61")


def test_an_input_that_is_too_small_is_reported_up_to_there() -> None:
    network = resolve("torchvision:vgg16", BuildOptions(input=(3, 16, 16)))
    assert network.nodes[-1].label == "relu5_3"
    assert network.failure is not None
    assert network.failure.startswith("features.30 (MaxPool2d): a window of 2x2 does not fit its input of 1x1")


WEIGHED = """
import os, resource, sys
import torch, torchvision, vggscope
from vggscope.sources.resolve import resolve

def megabytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)

for word in sys.argv[1:]:
    if os.fork() == 0:
        before = megabytes()
        assert resolve(word).shapes
        print(megabytes() - before, flush=True)
        os._exit(0)
    os.wait()
"""
"""The memory that it takes to make a Network of each word, in a process of its own; benchmarks/ has the time."""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no resource module")
def test_tracing_takes_a_hundred_megabytes_at_most() -> None:
    names = ("efficientnet_v2_l", "swin_v2_b", "regnet_y_128gf", "vit_h_14")
    words = [sys.executable, "-c", WEIGHED, *(f"torchvision:{name}" for name in names)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    taken = dict(zip(names, map(float, done.stdout.split())))
    assert taken.keys() == {*names}
    assert max(taken.values()) <= 100, taken
