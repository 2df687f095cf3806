"""Training on several GPUs, held to torch's own DistributedDataParallel, ZeroRedundancyOptimizer and FSDP2.

Each rank runs alone, in a process group whose collectives leave their tensors as they are. torch's memory tracker
counts its tensors.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import vggscope
from tests.sharded import Peaks, fullest_rank, peaks_of_rank
from vggscope.analysis.memory.allocation_log import KINDS
from vggscope.analysis.memory.report import assumptions
from vggscope.analysis.memory.sharding import ROOT, units_of
from vggscope.analysis.memory.simulate import is_predicted, simulate_step
from vggscope.analysis.memory.step_config import PARALLEL, StepConfig
from vggscope.graph import Network
from vggscope.inputs import InputSize
from vggscope.ops.base import numel
from vggscope.trace.inputs import from_sizes
from vggscope.trace.network import network_of

SAMPLES, SIZE = 4, (3, 16, 16)
COLUMN = "conv3-8 maxpool conv3-47 BN conv3-50 maxpool FC-101 FC-10"

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")


def frozen() -> nn.Module:
    module = column()
    module.features.requires_grad_(False)
    return module


def column(line: str = COLUMN) -> nn.Module:
    return vggscope.build(line, SIZE)


class Residual(nn.Module):
    """A residual block; 9 channels are not a multiple of the GPUs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 9, 3, padding=1, bias=False), nn.BatchNorm2d(9)
        self.conv, self.norm2 = nn.Conv2d(9, 9, 3, padding=1), nn.BatchNorm2d(9)
        self.relu, self.pool, self.fc = nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Linear(9, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm(self.stem(x)))
        x = self.relu(self.norm2(self.conv(x)) + x)
        return self.fc(torch.flatten(self.pool(x), 1))


class Wide(nn.Module):
    """Convolutions without a bias: the peak is where the gradient of one is reduced."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, 62, 3, 4, bias=False), nn.Conv2d(62, 63, 3, bias=False)
        self.fc = nn.Linear(63 * 4, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.flatten(self.conv(self.stem(x)), 1))


class Block(nn.Module):
    """A block of a transformer, with a scale of its own beside the parameters of its layers."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.GroupNorm(1, 16)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.act, self.down = nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        self.scale, self.heads = nn.Parameter(torch.ones(width)), heads

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        attended = nn.functional.scaled_dot_product_attention(q, k, v)
        x = x + self.proj(attended.transpose(1, 2).reshape(batch, tokens, width))
        return x + self.scale * self.down(self.act(self.up(self.norm2(x))))


class Transformer(nn.Module):
    """A vision transformer whose network has a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.position = nn.Conv2d(3, 18, 4, 4), nn.Parameter(torch.zeros(1, 16, 18))
        self.blocks = nn.Sequential(Block(18, 3), Block(18, 3))
        self.head = nn.Linear(18, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2) + self.position
        return self.head(self.blocks(x).mean(1))


class Reversed(nn.Module):
    """Its layers are listed in another order than they run: the largest weight follows the smallest one."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.last = nn.Linear(40, 10), nn.Linear(90, 40)
        self.first = nn.Linear(3 * 16 * 16, 90)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.last(self.first(x.flatten(1))))


class Tied(nn.Module):
    """Two layers share a weight, and one runs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.out = nn.Linear(16, 24, bias=False), nn.Linear(16, 24, bias=False)
        self.norm, self.twice, self.head = nn.GroupNorm(4, 24), nn.Linear(24, 24), nn.Linear(24, 10)
        self.narrow = nn.Linear(24, 16)
        self.out.weight = self.into.weight

    def forward(self, x: Tensor) -> Tensor:
        x = self.twice(self.norm(self.into(x[:, 0, 0])))
        return self.head(self.out(self.narrow(self.twice(x).relu())))


class Plain(nn.Module):
    """The column, as a part of a module."""

    def __init__(self) -> None:
        super().__init__()
        self.vgg = column()

    def forward(self, x: Tensor) -> Tensor:
        return self.vgg(x)


class Stages(nn.Module):
    """The column, in whose backward pass each stage is recomputed. A stage ends after a pool."""

    def __init__(self) -> None:
        super().__init__()
        self.vgg = column()

    def forward(self, x: Tensor) -> Tensor:
        for stage in (self.vgg.features[:3], self.vgg.features[3:]):
            x = checkpoint(stage, x, use_reentrant=False)
        return self.vgg.classifier(torch.flatten(self.vgg.avgpool(x), 1))


def network_in(make: Callable[[], nn.Module], config: StepConfig) -> Network:
    """The network for SAMPLES, with a recording of torch if its rules are not complete."""
    request = config.request
    steps = () if request is None else (replace(request, samples=SAMPLES),)
    module = make()
    return network_of(module, "m", from_sizes(module, [InputSize(SIZE)]), steps=steps).for_batch(SAMPLES)


def peaks(network: Network, config: StepConfig) -> Peaks:
    """vggscope's peaks of the same parts of a step."""
    assert is_predicted(network, config)
    sizes: dict[str, int] = {}
    for moment in simulate_step(network, config).moments:
        size = moment.total.at(SAMPLES) - moment.alive[KINDS.index("input")].at(SAMPLES)
        event = "backward" if moment.event == "recompute" else moment.event
        sizes[event] = max(size, sizes.get(event, 0))
    return Peaks(sizes["forward"], sizes["backward"], sizes["optimizer step"])


def agree(make: Callable[[], nn.Module], config: StepConfig, wrapped: Callable[[], nn.Module] | None = None) -> None:
    """Compare the peaks with those of torch, on the rank with the most optimizer states."""
    config = replace(config, runtime="tracker")
    network = network_in(make, config)
    rank = fullest_rank(network, config.gpus) if config.parallel == "zero1" else 0
    assert peaks(network, config) == peaks_of_rank(wrapped or make, network, config, torch.zeros(SAMPLES, *SIZE), rank)


@pytest.mark.parametrize("parallel", PARALLEL)
@pytest.mark.parametrize(
    ("make", "config"),
    [
        (column, StepConfig(gpus=2)),
        (column, StepConfig(gpus=4, optimizer="adam", clip_grad_norm=True)),
        (column, StepConfig(gpus=8, accumulate=2, optimizer="adam", foreach=True)),
        (Residual, StepConfig(gpus=2, optimizer="adam")),
        (Residual, StepConfig(gpus=4, accumulate=2)),
        (Wide, StepConfig(gpus=4, optimizer="sgd")),
        (Transformer, StepConfig(gpus=2, optimizer="adam")),
        (Transformer, StepConfig(gpus=4, accumulate=2, clip_grad_norm=True)),
        (Tied, StepConfig(gpus=4)),
        (Reversed, StepConfig(gpus=2, optimizer="adam")),
        (frozen, StepConfig(gpus=2)),
    ],
)
def test_a_rank_equals_torch(make: Callable[[], nn.Module], config: StepConfig, parallel: str) -> None:
    """Byte for byte. DistributedDataParallel and FSDP2 run themselves; ZeRO-2 is FSDP2 with weights that stay whole."""
    agree(make, replace(config, parallel=parallel))


@pytest.mark.parametrize("parallel", ["zero2", "fsdp"])
def test_autocast_and_checkpointed_stages_on_several_gpus(parallel: str) -> None:
    # On tensors with data, CPU kernels save the statistics of a batch norm in float32, unlike on fake ones.
    agree(partial(column, COLUMN.replace("BN ", "")), StepConfig(gpus=2, parallel=parallel, dtype="amp"))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Module is None")
        agree(Plain, StepConfig(gpus=2, parallel=parallel, checkpoint=True), Stages)


def test_the_last_rank_has_less() -> None:
    """The last part of a tensor is shorter. Only the optimizer's states are: weights and gradients are padded."""
    config = StepConfig(gpus=4, parallel="fsdp", runtime="tracker")
    network = network_in(column, config)
    rows = [(p.shape[0], numel(p.shape[1:])) for p in network.parameters()]
    missing = sum((-(-n // 4) - max(0, n - 3 * -(-n // 4))) * rest for n, rest in rows) * 4
    first = peaks(network, config)
    last = peaks_of_rank(column, network, config, torch.zeros(SAMPLES, *SIZE), rank=3)
    assert missing > 0
    assert {mine - torchs for mine, torchs in zip(first, last)} == {missing}


class Attention(nn.Module):
    """Self-attention on rows of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.rows, self.attention, self.head = nn.Linear(16, 24), nn.MultiheadAttention(24, 3), nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.rows(x[:, 0])
        return self.head(self.attention(x, x, x, need_weights=False)[0].mean(1))


def test_attention_as_a_unit_takes_other_memory_in_torch() -> None:
    """FSDP2 makes three tensors of one that is query, key and value, and torch projects each. The report says so."""
    config = StepConfig(gpus=2, parallel="fsdp", runtime="tracker")
    network = network_in(Attention, config)
    torchs = peaks_of_rank(Attention, network, config, torch.zeros(SAMPLES, *SIZE))
    assert peaks(network, config).forward != torchs.forward
    assert peaks(network, config).step == torchs.step
    note = "attention projects query, key and value at once"
    assert note in " ".join(assumptions(network, config, SAMPLES))
    assert note not in " ".join(assumptions(network, replace(config, parallel="zero2"), SAMPLES))


def test_which_modules_are_units() -> None:
    """A module with parameters, the network for its own parameters and for those of several modules."""
    network = network_in(Transformer, StepConfig())
    units = units_of(network, [p.name for p in network.parameters()])
    layers = ("norm1", "norm2", "qkv", "proj", "up", "down")
    blocks = {f"blocks.{i}{name}" for i in (0, 1) for name in ("", *(f".{layer}" for layer in layers))}
    assert units.keys() == {ROOT, "patch", "head", *blocks}
    assert [p.name for p in units[ROOT].parameters] == ["position"]
    assert [p.name for p in units["blocks.0"].parameters] == ["blocks.0.scale"]
    assert {path for path, unit in units.items() if not unit.has_gradient} == {ROOT, "patch"}
    tied = units_of(network_in(Tied, StepConfig()), ())
    assert tied.keys() == {ROOT, "norm", "twice", "narrow", "head"}
