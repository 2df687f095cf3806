"""Memory against torch's memory tracker, byte for byte, against a real run, and against hand counts."""

from __future__ import annotations

import csv
import itertools
import runpy
import subprocess
import sys
import warnings
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import vggscope
from tests.counting import calls
from tests.strategies import SIDE, columns, examples
from tests.tracker import recorded_peaks
from vggscope.analysis.cards import CARDS, USABLE, find_gpu, gpu_memory
from vggscope.analysis.cost import backward_macs
from vggscope.analysis.memory.allocation_log import KINDS, BatchLinear, LogEntry
from vggscope.analysis.memory.allocator import SMALLEST, Allocator, replay
from vggscope.analysis.memory.calls import head_parameters, stages
from vggscope.analysis.memory.fit import MARGIN, Fit, GpuBudget
from vggscope.analysis.memory.optimizers import OPTIMIZERS
from vggscope.analysis.memory.report import memory
from vggscope.analysis.memory.simulate import inference_peak, peaks, simulate_step, training_peak
from vggscope.analysis.memory.step_config import PARALLEL, Shards, StepConfig
from vggscope.analysis.memory.workspace import workspaces
from vggscope.analysis.summary import summarize
from vggscope.builders.module import module
from vggscope.choices import Recipe
from vggscope.cross_checks.measured_step import MeasuredStep, Measurement, measure
from vggscope.dtypes import converted
from vggscope.errors import OptionError
from vggscope.graph import Network, Parameter
from vggscope.sources.resolve import resolve, resolve_module
from vggscope.trace.build import without_data
from vggscope.trace.run import trace as trace_module
from vggscope.vgg.options import BuildOptions

MIB = 2**20
ROOT = Path(__file__).parent.parent
INPUT = KINDS.index("input")

FACTS = {
    ("vgg16", 1, "sgd-momentum"): 1642.60,
    ("vgg16", 64, "sgd-momentum"): 6013.25,
    ("vgg16", 256, "sgd-momentum"): 19390.25,
    ("vgg16", 64, "adam"): 6541.04,
    ("vgg11", 64, "sgd-momentum"): 4492.33,
    ("vgg16_bn", 64, "sgd-momentum"): 9293.87,
}
"""MiB at the peak of a step on 224x224 in float32 by torch's tracker, without the input batch."""

BRANCHED = ("torchvision:resnet50", "torchvision:mobilenet_v2", "torchvision:densenet121")


@cache
def network(word: str, side: int = 224) -> Network:
    return resolve(word, BuildOptions(input=(3, side, side)))


def maker(word: str, side: int = 224) -> Callable[[], nn.Module]:
    return partial(without_data, partial(resolve_module, word, BuildOptions(input=(3, side, side))))


def compared(word: str, batch: int, config: StepConfig, side: int = 224) -> Measurement:
    """The predicted bytes beside the tracker's, which are recorded."""
    with recorded_peaks(f"{word} {side} {batch}"):
        return measure(network(word, side), maker(word, side), batch, config)


def difference(word: str, batch: int, config: StepConfig, side: int = 224) -> int:
    """The predicted bytes minus the tracker's, measured on every run."""
    return measure(network(word, side), maker(word, side), batch, config).difference_bytes


@pytest.mark.parametrize(("case", "mib"), FACTS.items(), ids=str)
def test_the_six_facts(case: tuple[str, int, str], mib: float) -> None:
    word, batch, optimizer = case
    report = memory(network(word), batch, StepConfig(optimizer=optimizer))
    assert (report.peak_bytes - report.input_bytes) / MIB == pytest.approx(mib, abs=0.005)
    assert report.input_bytes == batch * (3 * 224 * 224 * 4 + 8)
    assert difference(word, batch, StepConfig(optimizer=optimizer)) == 0


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "amp"])
@pytest.mark.parametrize("mode", ["train", "inference", "finetune-head"])
@pytest.mark.parametrize("word", ["A-LRN", "C_bn"])
def test_equals_the_tracker(word: str, mode: str, dtype: str) -> None:
    assert difference(word, 3, StepConfig(mode=mode, dtype=dtype, optimizer="rmsprop"), side=96) == 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("mode", ["train", "inference"])
def test_amp_casts_no_weights_of_another_dtype_than_float32(mode: Any, dtype: torch.dtype) -> None:
    """Autocast leaves float64 alone, and weights that are in half precision already are not copied."""
    layers = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 6 * 6, 5)
    model, x = nn.Sequential(*layers).to(dtype), torch.zeros(2, 3, 8, 8, dtype=dtype)
    measured = vggscope.measure(model, input_data=(x,), dtype="amp", optimizer="sgd", mode=mode, device="cpu")
    assert measured.difference_bytes == 0


def test_a_mask_that_is_a_parameter_has_a_half_copy_under_amp() -> None:
    class Biased(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.values, self.bias = nn.Linear(16, 48), nn.Parameter(torch.zeros(2, 8, 8))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            query, key, value = self.values(x).view(-1, 8, 3, 2, 8).permute(2, 0, 3, 1, 4)
            return nn.functional.scaled_dot_product_attention(query, key, value, self.bias).flatten(1)

    given = torch.zeros(4, 8, 16)
    peaks = [vggscope.memory(Biased(), input_data=given, dtype=dtype).peak_bytes for dtype in ("amp", "float32")]
    assert None not in peaks
    assert peaks[0] != peaks[1]


@pytest.mark.parametrize("dtype", [None, "amp"])
@pytest.mark.parametrize("frozen", ["", "0.weight", "1", "1.weight"])
def test_a_linear_layer_saves_what_the_gradients_need(frozen: str, dtype: Any) -> None:
    """The input for the gradient of the weight, the weight's half copy for that of the input."""
    model = nn.Sequential(nn.Linear(64, 50), nn.Linear(50, 70), nn.Linear(70, 10))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not frozen or not name.startswith(frozen))
    measured = vggscope.measure(model, (64,), batch=100, dtype=dtype, optimizer="sgd", device="cpu")
    assert measured.difference_bytes == 0


@pytest.mark.parametrize("pool", [nn.MaxPool3d(2), nn.AvgPool3d(2), nn.AdaptiveAvgPool3d(4)])
def test_autocast_on_a_cpu_pools_volumes_in_float32(pool: nn.Module) -> None:
    """CUDA's autocast does not."""
    model = nn.Sequential(nn.Conv3d(3, 4, 3, padding=1), pool, nn.Flatten(), nn.Linear(4 * 4**3, 3))
    given = (torch.zeros(2, 3, 8, 8, 8),)
    measured = vggscope.measure(model, input_data=given, dtype="amp", optimizer="sgd", device="cpu")
    assert measured.difference_bytes == 0


@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize("optimizer", ["sgd", "sgd-momentum", "adam", "adamw", "rmsprop"])
def test_optimizers_equal_the_tracker(optimizer: str, foreach: bool) -> None:
    assert difference("A", 1, StepConfig(optimizer=optimizer, foreach=foreach), side=32) == 0


@pytest.mark.parametrize("accumulate", [2, 5])
def test_micro_batches_equal_the_tracker(accumulate: int) -> None:
    assert difference("B", 20, StepConfig(accumulate=accumulate), side=64) == 0


@pytest.mark.parametrize("word", BRANCHED[:2])
def test_branched_networks_equal_the_tracker(word: str) -> None:
    assert difference(word, 2, StepConfig(optimizer="sgd"), side=64) == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("word", "dtype"),
    [
        ("vit_b_16", "float32"),
        ("vit_b_16", "amp"),
        ("swin_t", "float32"),
        ("swin_v2_t", "amp"),
        ("convnext_tiny", "float32"),
        ("convnext_tiny", "amp"),
        ("maxvit_t", "float32"),
    ],
)
def test_networks_with_attention_are_close_to_the_tracker(word: str, dtype: str) -> None:
    """They differ in index tables of relative positions, and in the order in which a few gradients are reduced."""
    measured = compared(f"torchvision:{word}", 4, StepConfig(dtype=dtype))
    assert abs(measured.difference_bytes) < 0.004 * measured.measured_bytes
    if word in ("vit_b_16", "swin_v2_t") or (word, dtype) == ("convnext_tiny", "float32"):
        assert measured.difference_bytes == 0


class Written(nn.Module):
    """Attention written out, with a learned bias and scale that are applied to half-precision values under autocast."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.out = nn.Linear(16, 3 * 32), nn.Linear(32, 10)
        self.bias, self.scale = nn.Parameter(torch.zeros(2, 50, 50)), nn.Parameter(torch.ones(32))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # tanh, because the tracker counts an input that is viewed first.
        q, k, v = self.into(x.tanh()).reshape(-1, 50, 3, 2, 16).permute(2, 0, 3, 1, 4)
        k = nn.functional.normalize(k, dim=-1)
        weights = (q @ k.transpose(-2, -1) + self.bias).softmax(-1)
        weights = weights.masked_fill(weights > 0.5, 0.0)
        read = torch.einsum("bhij,bhjd->bhid", weights, v)
        return self.out((read.transpose(1, 2).reshape(-1, 50, 32) * self.scale).mean(1))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "amp"])
@pytest.mark.parametrize("mode", ["train", "inference"])
def test_attention_written_out_equals_the_tracker(mode: str, dtype: str) -> None:
    written = trace_module(Written(), (50, 16), "Written")
    assert measure(written, Written, 8, StepConfig(mode=mode, dtype=dtype)).difference_bytes == 0


def classified(channels: int, *layers: nn.Module) -> nn.Module:
    """The layers between a convolution and a head."""
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LazyLinear(10))
    built = nn.Sequential(nn.Conv2d(3, channels, 3, padding=1), *layers, *head)
    built(torch.zeros(2, 3, 16, 16))
    return built


BETWEEN: dict[str, Callable[[], tuple[nn.Module, ...]]] = {
    "pools of a norm": lambda: (nn.LPPool2d(2, 2), nn.PixelUnshuffle(2), nn.Conv2d(64, 8, 1), nn.LPPool2d(3, 2, 1)),
    "pools at random steps": lambda: (nn.FractionalMaxPool2d(2, output_ratio=0.6), nn.Conv2d(16, 8, 3)),
    "instance norm": lambda: (nn.InstanceNorm2d(16, affine=True), nn.LeakyReLU()),
    "instance norm without parameters": lambda: (nn.InstanceNorm2d(16), nn.LeakyReLU()),
    "learned slope": lambda: (nn.BatchNorm2d(16), nn.PReLU()),
    "channel dropout": lambda: (nn.SiLU(), nn.Dropout2d(0.1)),
    "reflection padding": lambda: (nn.PixelShuffle(2), nn.ReflectionPad2d(1), nn.Conv2d(4, 4, 3)),
}


@pytest.mark.parametrize("mode", ["train", "inference"])
@pytest.mark.parametrize("between", BETWEEN)
def test_layers_that_torch_writes_out_equal_the_tracker(between: str, mode: str) -> None:
    def make() -> nn.Module:
        return classified(16, *BETWEEN[between]())

    assert measure(trace_module(make(), (3, 16, 16), between), make, 2, StepConfig(mode=mode)).difference_bytes == 0


class Attends(nn.Module):
    """Attention with merged heads, tables of positions, and a linear layer across the tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.out, self.across = nn.Linear(16, 48), nn.Linear(16, 16), nn.Linear(50, 50)
        self.head = nn.Linear(16, 10)
        self.register_buffer("places", torch.arange(2500), persistent=False)
        self.register_buffer("scale", torch.ones(40, 50))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.into(x.tanh()).reshape(-1, 50, 3, 2, 8).permute(2, 0, 3, 1, 4)
        read = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(-1, 50, 16)
        x = self.out(read)
        return self.head(self.across(x.transpose(1, 2)).transpose(1, 2)[:, :1]).squeeze(1)


@pytest.mark.parametrize("mode", ["train", "inference"])
@pytest.mark.parametrize("batch", [1, 8])
def test_memory_layouts_equal_torchs(mode: str, batch: int) -> None:
    traced = trace_module(Attends(), (50, 16), "Attends")
    assert measure(traced, Attends, batch, StepConfig(mode=mode)).difference_bytes == 0
    buffers = memory(traced, batch, StepConfig(mode=mode)).buffers_bytes
    assert buffers == 2500 * 8 + 40 * 50 * 4


class ChannelsLast(nn.Module):
    """A norm over the channels, as in ConvNeXt, and after it a convolution of a channels-last tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.second = nn.Conv2d(3, 16, 3), nn.LayerNorm(16), nn.Conv2d(16, 128, 3, 2)
        self.head = nn.Linear(128, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.first(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return self.head(self.second(x).mean((2, 3)))


@pytest.mark.parametrize("accumulate", [1, 2])
def test_weight_gradients_have_the_layout_of_the_input(accumulate: int) -> None:
    traced = trace_module(ChannelsLast(), (3, 12, 12), "ChannelsLast")
    config = StepConfig(optimizer="sgd", accumulate=accumulate)
    assert measure(traced, ChannelsLast, 2 * accumulate, config).difference_bytes == 0
    weight = 4 * 128 * 16 * 9
    backward = [entry for entry in memory(traced, 2, StepConfig(optimizer="sgd")).timeline if entry.event == "backward"]
    assert max(entry.gradients_bytes + entry.temporary_bytes for entry in backward) >= 2 * weight


class Joined(nn.Module):
    """A submodule that reads two maps, one computed from the other."""

    class Join(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other = nn.Conv2d(16, 8, 1), nn.Conv2d(32, 8, 1)

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return self.one(x) + self.other(y)

    def __init__(self) -> None:
        super().__init__()
        self.first, self.join, self.head = nn.Conv2d(3, 16, 3), self.Join(), nn.Linear(8, 10)
        self.second = nn.Sequential(nn.Conv2d(16, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 32, 3, padding=1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x).sigmoid()
        return self.head(self.join(x, self.second(x)).mean((2, 3)))


def test_the_tracker_holds_no_gradient_longer_than_torch() -> None:
    traced = trace_module(Joined(), (3, 32, 32), "Joined")
    assert measure(traced, Joined, 2, StepConfig(optimizer="sgd")).difference_bytes == 0


class Frozen(nn.Module):
    """Features that forward runs under no_grad, and a trained head."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.neck, self.head = nn.Conv2d(16, 16, 3, padding=1), nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            x = self.features(x)
        return self.head(self.neck(x).mean((2, 3)))


def test_no_gradient_reaches_layers_under_no_grad() -> None:
    traced = trace_module(Frozen(), (3, 16, 16), "Frozen")
    assert [node.name for node in traced.nodes if node.detached] == ["features.0", "features.1", "features.2"]
    assert backward_macs(traced) == 16 * 16 * 9 * 256 + 2 * 16 * 10
    for optimizer in ("sgd-momentum", "adam"):
        assert measure(traced, Frozen, 4, StepConfig(optimizer=optimizer)).difference_bytes == 0


class Several(nn.Module):
    """Returns another output before or after its logits, computed before or after them."""

    def __init__(self, beside: str) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
        self.fc = nn.Linear(8 * 8 * 8, 1000)
        self.beside = beside

    def forward(self, x: torch.Tensor) -> object:
        maps = self.features(x)
        logits = self.fc(maps.flatten(1))
        if self.beside == "maps":
            return {"logits": logits, "maps": maps}
        if self.beside == "maps first":
            return [maps], logits
        return logits, logits.softmax(1)


@pytest.mark.parametrize("mode", ["train", "inference"])
@pytest.mark.parametrize("beside", ["maps", "maps first", "probabilities"])
def test_the_loss_reads_the_output_with_the_most_weights(beside: str, mode: str) -> None:
    traced = trace_module(Several(beside), (3, 16, 16), "Several")
    assert traced.end == "fc"
    assert measure(traced, lambda: Several(beside), 8, StepConfig(mode=mode)).difference_bytes == 0


@given(
    columns(),
    st.sampled_from(["train", "inference"]),
    st.sampled_from(["sgd", "adam", "rmsprop"]),
    st.sampled_from(["float32", "bfloat16", "amp"]),
    st.integers(1, 9),
    st.integers(1, 3),
)
@examples(40)
def test_generated_columns_equal_the_tracker(
    line: str, mode: str, optimizer: str, dtype: str, batch: int, accumulate: int
) -> None:
    config = StepConfig(mode=mode, optimizer=optimizer, dtype=dtype, accumulate=accumulate)
    assert difference(line, batch, config, side=SIDE) == 0


@pytest.mark.slow
@pytest.mark.parametrize("word", [f"{c}{norm}" for c in ("A", "A-LRN", "B", "C", "D", "E") for norm in ("", "_bn")])
def test_the_grid_of_columns(word: str) -> None:
    runs = (("train", "sgd"), ("train", "sgd-momentum"), ("train", "adam"), ("train", "rmsprop"), ("inference", "sgd"))
    for side, batch, (mode, optimizer) in itertools.product((64, 384), (1, 256), runs):
        dtype = "bfloat16" if batch == 1 else "float32"
        config = StepConfig(mode=mode, optimizer=optimizer, dtype=dtype)
        assert compared(word, batch, config, side).difference_bytes == 0


@pytest.mark.slow
@pytest.mark.parametrize("word", BRANCHED)
def test_the_grid_of_branched_networks(word: str) -> None:
    for side, batch, mode in ((64, 256, "train"), (224, 1, "train"), (64, 256, "inference")):
        assert compared(word, batch, StepConfig(mode=mode, optimizer="adam"), side).difference_bytes == 0


class Staged(nn.Module):
    """A VGG whose stages are recomputed in the backward pass."""

    def __init__(self, vgg: nn.Module, ends: list[int]) -> None:
        super().__init__()
        self.vgg, self.ends = vgg, ends

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        from torch.utils.checkpoint import checkpoint

        for start, end in zip([0, *self.ends], self.ends):
            x = checkpoint(self.vgg.features[start:end], x, use_reentrant=False)
        return self.vgg.classifier(torch.flatten(self.vgg.avgpool(x), 1))


@pytest.mark.parametrize("dtype", ["float32", "amp"])
def test_checkpointed_stages_equal_the_tracker(dtype: str) -> None:
    net = network("D_bn", 96)
    ends = [7, 14, 24, 34, 44]  # after each pool
    config = StepConfig(checkpoint=True, dtype=dtype)
    with warnings.catch_warnings():
        # The tracker warns when a hook fires after a stage's module is gone.
        warnings.filterwarnings("ignore", "Module is None")
        make = partial(without_data, lambda: Staged(module(net), ends))
        tracked = MeasuredStep(make, net, 8, config).tracked_peak()
    peak = simulate_step(net, replace(config, runtime="tracker")).peak(8)
    assert peak.total.at(8) - peak.alive[INPUT].at(8) == tracked
    assert tracked < MeasuredStep(maker("D_bn", 96), net, 8, StepConfig(dtype=dtype)).tracked_peak()


class Residual(nn.Module):
    """h is read twice, so that two gradients are summed at the peak."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.within, self.out = nn.Linear(20, 200), nn.Linear(200, 200), nn.Linear(200, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.sigmoid(self.into(x))
        return self.out(h + self.within(h))


def real_peak(batch: int) -> int:
    """The peak of a second step on the CPU by torch's profiler, without a dispatch mode."""
    from torch.profiler import ProfilerActivity, profile

    model, x, y = Residual(), torch.zeros(batch, 20), torch.zeros(batch, dtype=torch.long)

    def step() -> None:
        model.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(model(x), y).backward()

    step()
    model.zero_grad(set_to_none=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
            step()
    events = [e for e in profiled.profiler.kineto_results.events() if e.name() == "[memory]"]
    events.sort(key=lambda event: event.start_ns())
    return max(itertools.accumulate(event.nbytes() for event in events))


def test_a_real_run_sums_gradients_in_place_where_the_tracker_does_not() -> None:
    net = trace_module(Residual(), (20,), "Residual")
    peaks = {}
    for runtime in ("cuda", "tracker"):
        timeline = simulate_step(net, StepConfig(optimizer="sgd", runtime=runtime))
        peaks[runtime] = timeline.peak_bytes(1000) - timeline.moments[0].total.at(1000)
    assert peaks["cuda"] == real_peak(1000)
    assert peaks["tracker"] - peaks["cuda"] == 1000 * 200 * 4  # the sum, a third tensor
    parameters = 4 * (20 * 200 + 200 + 200 * 200 + 200 + 200 * 10 + 10)
    tracked = MeasuredStep(Residual, net, 1000, StepConfig(optimizer="sgd")).tracked_peak()
    assert tracked == peaks["tracker"] + parameters


def test_parts_and_layers_add_up_and_the_timeline_holds_the_peak() -> None:
    report = memory(network("D"), 64, StepConfig(optimizer="adam"))
    parts = [getattr(report, f"{kind}_bytes") for kind in KINDS]
    assert sum(parts) == report.peak_bytes == max(entry.bytes for entry in report.timeline)
    assert all(sum(getattr(e, f"{kind}_bytes") for kind in KINDS) == e.bytes for e in report.timeline)
    # The loss and its gradient, two floats, belong to no layer.
    assert sum(share.bytes for share in report.layers) == report.peak_bytes - report.input_bytes - 8
    assert [share.bytes for share in report.layers] == sorted((s.bytes for s in report.layers), reverse=True)
    assert (report.parameters_bytes, report.optimizer_bytes) == (138357544 * 4, 2 * 138357544 * 4)
    assert report.peak_at == "backward of features.22 (relu4_3)"
    assert [entry.event for entry in report.timeline[:2]] == ["start", "forward"]
    assert report.timeline[-1].event == "optimizer step"


@given(columns(), st.sampled_from(["train", "inference", "finetune-head"]), st.booleans(), st.integers(1, 10**7))
def test_the_peak_grows_with_the_batch_and_the_largest_batch_is_exact(
    line: str, mode: str, checkpoint: bool, batch: int
) -> None:
    timeline = simulate_step(network(line, SIDE), StepConfig(mode=mode, checkpoint=checkpoint))
    peak = timeline.peak_bytes(batch)
    assert peak == max(moment.total.at(batch) for moment in timeline.moments)
    assert timeline.peak_bytes(batch + 1) > peak
    assert timeline.largest_batch(peak) == batch
    assert timeline.largest_batch(peak - 1) == batch - 1


@given(columns(), st.integers(1, 10**7))
def test_the_peaks_of_a_summary_are_those_of_the_timelines(line: str, batch: int) -> None:
    net = network(line, SIDE)
    configs = StepConfig(mode="inference"), StepConfig()
    of_timelines = {config.trains: simulate_step(net, config).peak_bytes(batch) for config in configs}
    assert peaks(net, batch) == (of_timelines, ())


def test_a_batch_of_ten_million_takes_the_work_of_one() -> None:
    net = network("D")
    assert net.shapes
    for batch in (1, 10**7):
        assert memory(net, batch).timeline[-1].input_bytes == batch * (3 * 224 * 224 * 4 + 8)
    assert calls(memory, net, 10**7) < 1.1 * calls(memory, net, 1)
    # On a card too: what is tried as a remedy depends on the verdict, not on how far the batch is from fitting.
    on_card = partial(memory, net, config=StepConfig(), budget=GpuBudget("T4"))
    assert calls(on_card, 10**9) < 1.1 * calls(on_card, 10**4)


def test_summary_and_memory_give_the_same_numbers() -> None:
    net = network("C", 128)
    known = summarize(net, 16, "bfloat16").memory
    assert (
        known.training_peak_bytes
        == memory(net, 16, StepConfig(dtype="bfloat16")).peak_bytes
        == training_peak(converted(net, "bfloat16"), 16)
    )
    inference = memory(net, 16, StepConfig(mode="inference", dtype="bfloat16"))
    assert known.inference_peak_bytes == inference.peak_bytes == inference_peak(converted(net, "bfloat16"), 16)
    assert inference.optimizer is None
    assert inference.gradients_bytes == inference.optimizer_bytes == 0


def test_adam_names_the_last_result_while_it_makes_the_next() -> None:
    net = network("FC-10 FC-20", 8)
    assert [p.shape for p in net.parameters()] == [(10, 3 * 7 * 7), (10,), (20, 10), (20,)]
    config = StepConfig(optimizer="adam", foreach=False)
    moments = [m for m in simulate_step(net, config).moments if m.event == "optimizer step"]
    temporary = [m.alive[KINDS.index("temporary")].fixed for m in moments if m.layer]
    # The square root and the denominator of this parameter, and the denominator of the one before.
    assert temporary == [4 * (2 * 1470), 4 * (1470 + 2 * 10), 4 * (10 + 2 * 200), 4 * (200 + 2 * 20)]
    whole = simulate_step(net, StepConfig(optimizer="adam", foreach=True)).moments[-1]
    assert whole.alive[KINDS.index("temporary")].fixed == 4 * (1470 + 10 + 200 + 20)


def test_a_frozen_network_saves_nothing_and_trains_its_head() -> None:
    net = network("D")
    assert {name.split(".")[0] for name in head_parameters(net)} == {"classifier"}
    assert head_parameters(network("torchvision:resnet50")) == {"fc.weight", "fc.bias"}
    report = memory(net, 32, StepConfig(mode="finetune-head"))
    head = 4096 * 25088 + 4096 + 4096 * 4096 + 4096 + 1000 * 4096 + 1000
    assert report.optimizer_bytes == head * 4
    assert report.peak_bytes < memory(net, 32).peak_bytes / 1.4


def test_stages_end_where_the_map_shrinks_and_one_tensor_is_read_later() -> None:
    from vggscope.analysis.memory.calls import forward_pass
    from vggscope.analysis.memory.step_config import CUDA

    def ends(word: str) -> list[str]:
        net = network(word)
        calls = forward_pass(net, CUDA, training=True, autocast=False).calls
        return [calls[stage.stop - 1].layer for stage in stages(net, calls)]

    assert ends("D") == [f"features.{pool}" for pool in (4, 9, 16, 23, 30)]
    # A residual block ends after its sum: before it, two tensors are read later.
    blocks = [f"layer{stage}.0.relu:3" for stage in (2, 3, 4)]
    assert ends("torchvision:resnet50") == ["conv1", "maxpool", *blocks, "avgpool"]


def test_the_allocator_rounds_splits_and_merges() -> None:
    def run(*sizes: int) -> Allocator:
        allocator = Allocator()
        entries = [LogEntry(n, BatchLinear(size, 0), "activations", "") for n, size in enumerate(sizes)]
        assert allocator.run(entries, 1, 1)
        return allocator

    small = run(1, 513)
    assert (small.max_allocated, small.max_reserved) == (512 + 1024, 2 * MIB)
    assert run(MIB, MIB, MIB).max_reserved == 4 * MIB
    assert run(MIB + 1).max_reserved == 20 * MIB
    # A remainder of 1 MiB or less is not split off a large block and counts as allocated.
    unsplit = run(11 * MIB)
    assert (unsplit.max_allocated, unsplit.max_reserved) == (12 * MIB, 12 * MIB)
    assert run(9 * MIB, 9 * MIB, 2 * MIB).max_reserved == 20 * MIB
    assert run(10 * MIB - 512, 11 * MIB).max_reserved == 20 * MIB + 12 * MIB


def test_the_allocator_takes_the_best_fit_and_returns_segments_when_full() -> None:
    allocations = [LogEntry(n, BatchLinear(size * MIB, 0), "activations", "") for n, size in enumerate((40, 30, 30))]
    frees = [LogEntry(entry.tensor, None, "activations", "") for entry in allocations]
    allocator = Allocator()
    assert allocator.run([allocations[0], allocations[1], frees[0], frees[1], allocations[2]], 1, 1)
    assert allocator.max_reserved == 70 * MIB  # the third took the 30, not a part of the 40
    merged = Allocator()
    assert merged.run([allocations[0], frees[0], allocations[1], frees[1], allocations[0]], 1, 1)
    assert merged.max_reserved == 40 * MIB  # the 30 and the 10 after it are merged
    tight = Allocator(capacity=60 * MIB)
    assert tight.run(
        [allocations[1], frees[1], allocations[0]], 1, 1
    )  # the free 30 cannot hold 40: its segment is returned
    assert tight.max_reserved == 40 * MIB
    assert not Allocator(capacity=60 * MIB).run([allocations[1], allocations[0]], 1, 1)


def test_reserved_is_at_least_what_is_alive() -> None:
    timeline = simulate_step(network("D"), StepConfig())
    reserve = replay(timeline, 64)
    assert timeline.peak_bytes(64) <= reserve.allocated_bytes <= reserve.reserved_bytes
    assert reserve.allocated_bytes < 1.005 * timeline.peak_bytes(64)
    assert not replay(timeline, 64, capacity=timeline.peak_bytes(64) - 1).fits
    assert replay(timeline, 64, capacity=reserve.reserved_bytes).fits


def test_whether_a_step_fits_a_card() -> None:
    net = network("D")
    report = memory(net, 96, StepConfig(optimizer="adam"), GpuBudget("24GiB"))
    assert report.fit is not None
    assert report.fit.fits
    assert report.fit.missing_bytes == 0
    largest = report.max_batch
    assert largest is not None
    assert memory(net, largest, StepConfig(optimizer="adam")).peak_bytes <= 24 * 2**30
    assert memory(net, largest + 1, StepConfig(optimizer="adam")).peak_bytes > 24 * 2**30
    assert 96 < report.fit.max_batch_reserved <= largest
    assert report.fit.verdict == "fits"
    aside = memory(
        net, 96, StepConfig(optimizer="adam"), GpuBudget("24GiB", context_bytes=500 * MIB, workspace_bytes=2**30)
    )
    assert aside.max_batch is not None
    assert aside.max_batch < largest
    assert aside.peak_bytes == report.peak_bytes


def test_the_verdict_rests_on_the_replay_on_the_card() -> None:
    """Each batch gets the verdict that the largest batches promise, and none whose tensors fit alone is said to fit."""
    net, config = network("D"), StepConfig(optimizer="adamw")

    def fit_of(batch: int, gpu: str = "RTX 3060", **given: int) -> Fit:
        found = memory(net, batch, config, GpuBudget(gpu, **given)).fit
        assert found is not None
        return found

    first = fit_of(145)
    assert (first.verdict, first.fits) == ("no", False)
    assert memory(net, 145, config).peak_bytes < 12288 * MIB  # by the tensors alone
    assert 0 < first.max_batch_fits < first.max_batch_tight < first.max_batch
    for batch, verdict in (
        (first.max_batch_fits, "fits"),
        (first.max_batch_tight, "tight"),
        (145, "no"),
    ):
        found = fit_of(batch)
        assert found.verdict == verdict
        assert found.nvidia_smi_bytes == found.reserved_bytes + 512 * MIB
        assert (found.nvidia_smi_bytes <= 12037 * MIB) == (found.missing_bytes == 0) == (verdict != "no")
    # The conv1_2's workspace is a copy of its input and its output: no other convolution has a larger one.
    assert fit_of(64).workspace_bytes == 64 * 2 * 64 * 224 * 224 * 4
    assert fit_of(64, "V100").workspace_bytes == 0
    given = fit_of(64, context_bytes=0, workspace_bytes=MIB)
    assert given.nvidia_smi_bytes == given.reserved_bytes + MIB
    assert given.max_batch_fits > first.max_batch_fits


def published_steps(*, ran: bool) -> Iterator[tuple[str, int, StepConfig, str]]:
    """The steps of benchmarks/gpu_rows.csv that ran, on a known card at the model's own size, or ran out of memory."""
    with (ROOT / "benchmarks" / "gpu_rows.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            is_known = row["use"] == "1" and row["gpu"].removesuffix("-16GB") in {card.name for card in CARDS}
            if is_known if ran else "out of memory" in row["measured_what"]:
                config = StepConfig(mode=row["mode"], optimizer=row["optimizer"], dtype=row["dtype"])
                yield row["vggscope_model"], int(row["batch"]), config, row["gpu"]


@pytest.mark.parametrize(("word", "batch", "config", "gpu"), [*published_steps(ran=True)], ids=str)
def test_what_has_run_is_not_said_to_be_too_large(word: str, batch: int, config: StepConfig, gpu: str) -> None:
    found = memory(network(word), batch, config, GpuBudget(gpu)).fit
    assert found is not None
    assert found.verdict != "no"


OUT_OF_MEMORY = (
    *published_steps(ran=False),
    ("D", 145, StepConfig(optimizer="adamw", foreach=True), "RTX 3060"),
)


@pytest.mark.parametrize(("word", "batch", "config", "gpu"), OUT_OF_MEMORY, ids=str)
def test_what_ran_out_of_memory_does_not_fit(word: str, batch: int, config: StepConfig, gpu: str) -> None:
    assert len(OUT_OF_MEMORY) >= 2
    found = memory(network(word), batch, config, GpuBudget(gpu)).fit
    assert found is not None
    assert found.verdict == "no"


def test_the_first_sentence_is_the_verdict() -> None:
    """With the figure that nvidia-smi would show, and why a batch fits that nearly fills the card."""

    def said(batch: int, gpu: str) -> list[str]:
        return str(memory(network("D"), batch, StepConfig(optimizer="adam"), GpuBudget(gpu))).splitlines()[2:7]

    fits = said(160, "4090")
    assert fits[0] == "= batch 160 fits RTX 4090: nvidia-smi would show 24,148.00 MiB of 24,210.00 MiB"
    assert fits[1] == "    the largest batches: 236 fits, 260 is tight; above 315 not even the tensors fit"
    assert fits[3] == "    freed segments stay until the card is full; the batch also fits 20,692.31 MiB"
    assert not any("freed segments" in line for line in said(96, "4090"))
    assert said(260, "4090")[0].endswith(", and may take 17% more")
    assert said(512, "t4")[0] == (
        "! batch 512 does not fit T4: nvidia-smi would show 61,316.00 MiB, the card has 14,904.00 MiB"
    )
    apple = str(memory(network("D"), 8, StepConfig(), GpuBudget("m2 max 32gb")))
    assert "cuDNN's workspaces (replayed)" not in apple
    assert "torch.mps has another allocator" in apple


def test_no_larger_batch_fits_than_is_known() -> None:
    """A network without a batch axis is known for one batch, whatever the card has room for."""
    given = (torch.zeros(3, 32, 32),)
    report = vggscope.memory(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(0)), input_data=given, gpu="24GiB")
    assert report.fit is not None
    assert (report.fit.max_batch, report.fit.max_batch_tight, report.fit.max_batch_fits) == (1, 1, 1)
    assert "    the largest batches: 1 fits\n" in str(report)
    assert any("no larger one is known" in text for text in report.assumptions)


def test_cudnns_workspaces() -> None:
    """A copy of input and output for dense convolutions with a window, on large maps, in a backward pass."""
    net = network("conv3-8 conv1-8 maxpool conv3-16 maxpool conv3-16 FC-10", 96)
    side = {"features.0": (3 + 8) * 96 * 96 * 4, "features.5": (8 + 16) * 48 * 48 * 4}
    config = StepConfig()
    found = workspaces(net, config, "heuristic", converts_layout=True)
    assert {layer: size.at(1) for layer, size in found.items()} == side
    assert workspaces(net, replace(config, dtype="float64"), "heuristic", converts_layout=True) == {}
    halves = workspaces(net, replace(config, dtype="amp"), "heuristic", converts_layout=True)
    assert {layer: 2 * size.at(1) for layer, size in halves.items()} == side
    assert workspaces(net, config, "heuristic", converts_layout=False) == {}
    assert workspaces(net, config, "benchmark", converts_layout=False) == found
    assert workspaces(net, config, "none", converts_layout=True) == {}
    assert workspaces(net, StepConfig(mode="inference"), "heuristic", converts_layout=True) == {}
    plain = simulate_step(net, config)
    with_them = plain.with_workspaces(found)
    assert [m.total for m in with_them.moments] == [m.total for m in plain.moments]
    assert len(with_them.entries) == len(plain.entries) + 4
    assert with_them.entries[with_them.optimizer_start :] == plain.entries[plain.optimizer_start :]
    assert replay(with_them, 64).allocated_bytes > replay(plain, 64).allocated_bytes
    with pytest.raises(OptionError, match="heuristic, benchmark, none"):
        GpuBudget("T4", cudnn="fast")


def test_the_published_figures_of_vgg16() -> None:
    """Three runs on an A100: cudnn's workspaces grow with the batch, and the margin covers what they leave."""
    for batch, measured in ((32, 8621391872), (64, 14304673792), (128, 25593643008)):
        found = memory(network("D"), batch, StepConfig(optimizer="adam", foreach=True), GpuBudget("A100")).fit
        assert found is not None
        assert 0.85 < found.nvidia_smi_bytes / measured < 1
        assert found.nvidia_smi_bytes * (1 + MARGIN / 100) > measured


@pytest.mark.slow
def test_the_published_measurements() -> None:
    """What nvidia-smi would show is within 3% in the median, the margin covers the rest, and docs/memory.md says so."""
    pytest.importorskip("timm")
    script = runpy.run_path(str(ROOT / "benchmarks" / "gpu_rows.py"))
    runs, shown = script["rows"]("GPUMemNet"), script["nvidia_smi"]()
    assert len(runs) == 18
    assert median(abs(ours - row.measured) / row.measured for ours, row in zip(shown, runs)) < 0.03
    assert all(row.measured < ours * (1 + MARGIN / 100) for ours, row in zip(shown, runs))
    rules = {name: median(map(abs, errors)) for name, errors in script["cross_validated"]().items()}
    assert rules["input and output, windows above 1x1, maps above 32x32 (taken)"] < 0.6 * rules["none"]
    assert "\n".join(script["page"]()) in (ROOT / "docs" / "memory.md").read_text(encoding="utf-8")


def test_the_remedies_make_it_fit() -> None:
    report = memory(network("D"), 512, StepConfig(optimizer="adam"), GpuBudget("T4"))
    assert report.fit is not None
    assert (report.fit.fits, report.fit.verdict) == (False, "no")
    assert report.fit.missing_bytes == report.fit.nvidia_smi_bytes - 14904 * MIB
    changes = {remedy.change: remedy for remedy in report.fit.remedies}
    assert "--accumulate 4" in changes
    assert "--accumulate 2" not in changes
    assert all(remedy.peak_bytes <= 14904 * MIB and remedy.max_batch >= 512 for remedy in changes.values())
    assert all(remedy.nvidia_smi_bytes <= 14904 * MIB and remedy.verdict != "no" for remedy in changes.values())
    small = memory(network("D"), 1, StepConfig(optimizer="adam"), GpuBudget("1GiB")).fit
    assert small is not None
    assert (small.max_batch, small.max_batch_reserved) == (0, 0)
    assert small.missing_for_one_bytes == small.missing_bytes > 1600 * MIB
    assert small.remedies
    assert all(remedy.max_batch == 0 for remedy in small.remedies)


def test_a_fused_optimizer_is_a_remedy_where_its_step_is_the_peak() -> None:
    found = memory(network("D"), 1, StepConfig(weight_decay=5e-4), GpuBudget("2600MiB")).fit
    assert found is not None
    remedies = {remedy.change: remedy for remedy in found.remedies}
    assert found.verdict == "no"
    assert remedies["--fused"].verdict == "tight"
    assert found.nvidia_smi_bytes - remedies["--fused"].nvidia_smi_bytes > 400 * MIB


def test_several_gpus_by_hand() -> None:
    net, weights = network("D"), 138357544 * 4
    one_gpu = memory(net, 64)
    ddp = memory(net, 256, StepConfig(gpus=4))
    assert ddp.parallel == "ddp"
    assert ddp.peak_bytes - one_gpu.peak_bytes == weights  # the buckets
    assert ddp.input_bytes == one_gpu.input_bytes
    whole = [numel * 4 for numel in Shards(PARALLEL["zero1"], 4).states(tuple(net.parameters()))]
    assert max(whole) == sum(whole) == 4096 * 25088 * 4  # fc6's weights alone outweigh the other GPUs' shares
    assert memory(net, 256, StepConfig(gpus=4, parallel="zero1")).optimizer_bytes == sum(whole)
    cut = memory(net, 256, StepConfig(gpus=4, parallel="fsdp"))
    assert cut.optimizer_bytes == sum(-(-p // 4) * 4 for p in map(_numel, net.parameters()))
    start = cut.timeline[0]
    assert start.parameters_bytes == cut.optimizer_bytes
    assert max(e.parameters_bytes for e in cut.timeline) == start.parameters_bytes + (4096 * 25088 + 4096) * 4
    ends = memory(net, 256, StepConfig(gpus=4, parallel="zero2")).timeline[-1]
    assert ends.gradients_bytes == cut.optimizer_bytes
    assert StepConfig(gpus=4, accumulate=2).samples(100) == 13
    assert StepConfig(gpus=4, accumulate=2).batch(13) == 104


def _numel(parameter: Parameter) -> int:
    return torch.Size(parameter.shape).numel()


def test_cards_are_known_by_the_names_that_people_write() -> None:
    assert gpu_memory("T4") == gpu_memory("NVIDIA Tesla T4") == 15360 * MIB
    assert gpu_memory("geforce rtx 4090") == gpu_memory("RTX-4090") == 24564 * MIB
    assert gpu_memory("16GB") == 16 * 10**9
    assert all(0.9 < card.memory_mib / (card.sold_gb * 1024) <= 1 for card in CARDS)
    spoken = {
        **{"3060": "RTX 3060", "4070 ti": "RTX 4070 Ti", "RTX 3060 12GB": "RTX 3060", "7900 xtx": "RX 7900 XTX"},
        **{"4060 Ti": "RTX 4060 Ti", "rtx 4060ti 16gb": "RTX 4060 Ti-16GB", "h100": "H100", "mi300x": "MI300X"},
        **{"a100": "A100-40GB", "A100 80g": "A100-80GB", "NVIDIA A100-SXM4-80GB": "A100-80GB", "v100": "V100-16GB"},
        **{"m2 max 32GB": "M2 Max 32GB", "Apple M1 16 GB": "M1 16GB", "m1pro-16gb": "M1 Pro 16GB"},
        **{"24": "24GiB", "7.5": "7.5GiB", "24GB VRAM": "24GB", "H100 PCIe": "H100", "A100 80GB PCIe": "A100-80GB"},
    }
    assert {word: find_gpu(word).name for word in spoken} == spoken
    assert find_gpu("24").usable_bytes == 24 * 2**30


def test_what_cuda_offers_of_a_card_is_less_than_its_size() -> None:
    """The figures of tests/figures.json, and those of torch's messages for Apple: 1.7 times the recommended set."""
    offered = {"RTX 3060": 12037, "RTX 4060": 7933, "RTX 4090": 24210, "A100-40GB": 40450, "A100-80GB": 81150}
    assert {name: find_gpu(name).usable_bytes // MIB for name in offered} == offered
    assert {card.name for card in CARDS} >= USABLE.keys()
    for card in CARDS:
        assert 0.966 * card.memory_bytes < card.usable_bytes < card.memory_bytes, card.name
        assert ("estimate" in card.source) == (card.name not in USABLE), card.name
    for size, allowed in ((8, 9.07), (16, 18.13), (32, 36.27), (64, 81.60)):
        assert find_gpu(f"M1 Max {size}GB").usable_bytes * 1.7 / 2**30 == pytest.approx(allowed, abs=0.006)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        *(
            ("4091", "RTX 4090"),
            ("RTX 409", "RTX 4090"),
            ("A1000", "RTX A4000, A100-80GB"),
            ("M2 Max", "'M2 Max 32GB'"),
        ),
        *(("2x 3090", "gpu='RTX-3090' and gpus=2"), ("t4 x2", "gpu='T4' and gpus=2")),
        *(
            ("google colab", "T4, L4 and A100"),
            ("Jetson Orin", "is free of it"),
            ("tpu v3", "without CUDA's allocator"),
        ),
        *(("RTX 4090 Laptop GPU", "less memory than the desktop's"), ("m60", "unknown GPU 'm60'")),
    ],
)
def test_what_to_write_in_place_of_an_unknown_gpu(text: str, named: str) -> None:
    with pytest.raises(OptionError) as raised:
        find_gpu(text)
    assert named in str(raised.value)


@pytest.mark.parametrize("text", ["", "lots", "0", "0GiB", "4091", "RTX 9999", "-1GiB"])
def test_an_unknown_gpu_is_refused(text: str) -> None:
    with pytest.raises(OptionError, match="24GiB"):
        gpu_memory(text)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: StepConfig(optimizer="lion"), "optimizer is one of sgd, sgd-momentum, adam, adamw, rmsprop, adagrad"),
        (lambda: StepConfig(optimizer="rmsprop", fused=True), r"no fused rmsprop on CUDA\s.*sgd, sgd-momentum, adam"),
        (lambda: StepConfig(foreach=True, fused=True), "fused or foreach, not both"),
        (lambda: StepConfig(optimizer="adam", nesterov=True), r"adam has no Nesterov momentum\s.*sgd-momentum"),
        (lambda: StepConfig(weight_decay=-1), r"weight decay of -1 makes no sense\s.*0 or more"),
        (lambda: StepConfig(weight_decay=float("nan")), "weight decay of nan"),
        (lambda: vggscope.memory("A", recipe="mine"), "recipe is one of paper, torchvision, timm"),
        (lambda: StepConfig(mode="eval"), "mode is one of train, inference, finetune-head"),
        (lambda: StepConfig(dtype="int8"), "dtype is one of .*amp"),
        (lambda: StepConfig(parallel="tp"), "parallel is one of ddp, zero1, zero2, fsdp"),
        (lambda: StepConfig(gpus=0), "gpus is 1 to"),
        (lambda: StepConfig(accumulate=0), "accumulate is 1 to"),
        (lambda: GpuBudget("24GiB", context_bytes=-1), "500MiB"),
        (lambda: memory(network("A"), 0), "batch is 1 to"),
        (
            lambda: vggscope.memory("A", batch="8"),
            "batch of 8 makes no sense\nbatch is 1 to 1000000000, a whole number",
        ),
        (lambda: vggscope.memory("A", gpus=2.5), "2.5 GPUs make no sense\ngpus is 1 to 1000000, a whole number"),
        (lambda: vggscope.memory("A", accumulate="2"), "cut into 2 makes no sense"),
        (lambda: vggscope.memory("A", weight_decay="1e-4"), "weight decay of 1e-4"),
        (lambda: vggscope.summary("A", batch=0), "a batch of 0 makes no sense"),
        (lambda: vggscope.summary("A", batch=2.5), "a batch of 2.5 makes no sense"),
        (lambda: vggscope.grid("A", batches=[1, 0]), "a batch of 0 makes no sense"),
        (lambda: GpuBudget("24GiB", workspace_bytes=1, cudnn="none"), "no cuDNN sets no workspace aside"),
    ],
)
def test_options_out_of_range_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(OptionError, match=message) as raised:
        make()
    assert raised.value.exit_code == 2


def test_a_network_without_weights_has_no_backward_pass() -> None:
    report = memory(network("maxpool avgpool", 32), 4)
    assert report.gradients_bytes == 0
    assert "optimizer" not in " ".join(report.assumptions)
    assert {entry.event for entry in report.timeline} == {"start", "forward", "loss", "optimizer step"}


@pytest.mark.parametrize(
    ("batch", "options", "said"),
    [
        (8, {"gpus": 4}, "per GPU: 4 GPUs share the batch, 2 samples at once on each"),
        (2, {"gpus": 4}, "per GPU: 4 GPUs share the batch, 1 sample at once; 2 of them get none"),
        (3, {"parallel": "ddp"}, "per GPU: one GPU has the whole batch, 3 samples at once"),
        (1, {"mode": "inference", "optimizer": "adam"}, "nothing is trained: the optimizer and its options"),
        (1, {"mode": "inference", "accumulate": 2}, "nothing is trained: the optimizer and its options"),
    ],
)
def test_an_option_without_an_effect_is_said(batch: int, options: dict[str, Any], said: str) -> None:
    assert any(line.startswith(said) for line in vggscope.memory("A", batch=batch, **options).assumptions)
    if options.get("mode") == "inference":
        assert not any(said in line for line in vggscope.memory("A", mode="inference").assumptions)


def test_inference_on_several_gpus_fills_no_buckets() -> None:
    assert not any("buckets" in line for line in vggscope.memory("A", mode="inference", gpus=2).assumptions)


def test_assumptions_follow_the_config() -> None:
    plain = " ".join(memory(network("A"), 8, StepConfig(optimizer="adam")).assumptions)
    assert "without the CUDA context" in plain
    assert "over all parameters at once (foreach" in plain
    assert "not measured on a GPU" in plain
    shared = " ".join(memory(network("A"), 10, StepConfig(gpus=4, dtype="amp", checkpoint=True)).assumptions)
    assert "4 GPUs share the batch, 3 samples at once on each" in shared
    assert "autocast" in shared
    assert "recomputed" in shared


def test_measure_names_its_tool() -> None:
    measurement = measure(network("A", 64), maker("A", 64), 4, StepConfig())
    assert measurement.measured_bytes == measurement.predicted_bytes
    assert "mem_tracker" in measurement.witness
    for config, names in (
        (StepConfig(checkpoint=True), "checkpoint"),
        (StepConfig(gpus=2, parallel="ddp"), "gpus and parallel"),
    ):
        with pytest.raises(OptionError, match=f"leave out {names}"):
            measure(network("A", 64), maker("A", 64), 4, config)


def test_no_torch_is_needed() -> None:
    script = (
        "import sys; from vggscope.analysis.memory.report import memory;"
        "from vggscope.analysis.memory.fit import GpuBudget;"
        "from vggscope.sources.resolve import resolve; memory(resolve('D'), 8, None, GpuBudget('T4'));"
        "print(sorted({'torch', 'numpy', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("theme", ["light", "dark", "paper"])
def test_the_plot_marks_the_peak(theme: str) -> None:
    from vggscope.render.memory_plot import plot

    report = memory(network("D"), 64, StepConfig(checkpoint=True), GpuBudget("6GiB"))
    svg = plot(report, theme).render("svg").decode()
    for words in ("peak ", "backward", "optimizer step", "gradients of weights", "6GiB: 6,144.00 MiB", report.peak_at):
        assert words in svg
    assert svg == plot(report, theme).render("svg").decode()
    assert plot(report).render("png", dpi=40).startswith(b"\x89PNG")


def test_no_line_between_phases_runs_through_a_text_of_the_plot() -> None:
    from matplotlib.colors import to_hex
    from matplotlib.figure import Figure

    from vggscope.drawing.themes import theme_named
    from vggscope.render.memory_plot import plot

    figure, theme = Figure(), theme_named("dark")
    plot(memory(network("D"), 64, budget=GpuBudget("8GiB")), "dark").paint(figure, theme)
    (axes,) = figure.axes
    over_lines = [text for text in axes.texts if text.get_text().startswith(("peak ", "8GiB"))]
    assert len(over_lines) == 2
    for text in over_lines:
        ground = text.get_bbox_patch()
        assert ground is not None
        assert to_hex(ground.get_facecolor()) == theme.card


def test_a_plot_refuses_unknown_formats_and_themes() -> None:
    from vggscope.render.memory_plot import plot

    report = memory(network("A", 64), 1)
    with pytest.raises(OptionError, match="svg, png, pdf"):
        plot(report).render("gif")
    with pytest.raises(OptionError, match="light, dark, paper"):
        plot(report, "neon")


# The optimizer's step.

TINY = "conv3-8 FC-200"
"""A fully connected layer larger than all activations: the peak is in the optimizer's step if that allocates."""

EXTRAS: tuple[dict[str, bool], ...] = ({}, {"nesterov": True}, {"clip_grad_norm": True}, {"ema": True})


def optimizer_steps() -> Iterator[StepConfig]:
    """Every optimizer with each kernel, with and without weight decay, and with each extra that it has."""
    kernels: tuple[dict[str, bool | None], ...] = ({}, {"foreach": False}, {"foreach": True}, {"fused": True})
    for optimizer, kernel, decay, extra in itertools.product(OPTIMIZERS.values(), kernels, (0.0, 5e-4), EXTRAS):
        if (optimizer.has_fused or "fused" not in kernel) and (
            optimizer.name == "sgd-momentum" or "nesterov" not in extra
        ):
            yield StepConfig(optimizer=optimizer.name, weight_decay=decay, **kernel, **extra)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", ["", "bfloat16"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_step_of_an_optimizer_equals_the_tracker(optimizer: str, dtype: str) -> None:
    steps = [replace(step, dtype=dtype) for step in optimizer_steps() if step.optimizer == optimizer]
    assert {step: difference(TINY, 1, step, side=16) for step in steps} == dict.fromkeys(steps, 0)


def test_the_optimizer_steps_as_torch_chooses() -> None:
    """Foreach on CUDA, a loop on a CPU and on an Apple chip."""
    net = network("D")
    cuda = memory(net, 1, StepConfig(optimizer="adam"))
    assert cuda == memory(net, 1, StepConfig(optimizer="adam", foreach=True))
    assert cuda.update is not None
    assert cuda.update.kernel == "foreach"
    loop = memory(net, 1, StepConfig(optimizer="adam", foreach=False))
    assert (cuda.reserved_bytes // MIB, loop.reserved_bytes // MIB) == (2694, 3342)
    tracked = StepConfig(optimizer="adam", runtime="tracker")
    assert simulate_step(net, tracked) == simulate_step(net, replace(tracked, foreach=False))
    apple = memory(net, 1, StepConfig(optimizer="adam"), GpuBudget("M2 Max 32GB")).update
    assert apple is not None
    assert apple.kernel == "for-loop"


def test_what_weight_decay_clipping_and_an_average_add() -> None:
    net, weights = network("D"), 138357544 * 4
    plain = StepConfig()

    def step_bytes(config: StepConfig) -> int:
        moments = simulate_step(net, config).moments
        return max(moment.total.at(1) for moment in moments if moment.event == "optimizer step")

    before = step_bytes(plain)
    assert step_bytes(replace(plain, weight_decay=5e-4)) - before == weights
    assert step_bytes(replace(plain, weight_decay=5e-4, foreach=False)) - before == 4096 * 25088 * 4
    assert step_bytes(replace(plain, weight_decay=5e-4, fused=True)) == before
    assert step_bytes(replace(plain, optimizer="adamw", weight_decay=0.01)) == step_bytes(
        replace(plain, optimizer="adamw")
    )
    assert step_bytes(replace(plain, ema=True)) - before == weights
    # 4-byte sums of each 65,536 elements of the largest of the 32 tensors.
    clipped, sums = replace(plain, clip_grad_norm=True), 32 * 4096 * 25088 // 65536 * 4
    assert step_bytes(clipped) - before == step_bytes(replace(clipped, fused=True)) - before == sums
    assert step_bytes(replace(clipped, foreach=False)) - before < 1000


@pytest.mark.parametrize(
    ("name", "batch", "decay", "nesterov"),
    [("paper", 256, 5e-4, False), ("torchvision", 32, 1e-4, False), ("timm", 128, 2e-5, True)],
)
def test_recipes(name: Recipe, batch: int, decay: float, nesterov: bool) -> None:
    report = vggscope.memory("A", recipe=name)
    given = vggscope.memory("A", batch=batch, weight_decay=decay, nesterov=nesterov, dtype="float32")
    assert replace(report, recipe=None, assumptions=()) == replace(given, assumptions=())
    assert report.assumptions[0].startswith(f"what is not given is as in the recipe {name}: ")
    changed = vggscope.memory("A", recipe=name, batch=8, optimizer="adam", dtype="amp")
    assert (changed.batch, changed.optimizer, changed.dtype) == (8, "adam", "amp")
    assert changed.update is not None
    assert (changed.update.weight_decay, changed.update.nesterov) == (0, False)


@pytest.mark.parametrize("given", [{"context": "1GiB"}, {"workspace": "1GiB"}, {"cudnn": "none"}], ids=str)
def test_options_of_a_card_need_a_card(given: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=r"is about a card, and none is named\sgpu names one"):
        vggscope.memory("A", **given)


class Allocated(TorchDispatchMode):
    """Counts the tensors that operators allocate, and the most of them that exist at once."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: list[weakref.ref[torch.Tensor]] = []
        self.most = self.bytes = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        given = {tensor.data_ptr() for tensor in tree_leaves((args, kwargs)) if isinstance(tensor, torch.Tensor)}
        new = [t for t in tree_leaves(result) if isinstance(t, torch.Tensor) and t.data_ptr() not in given]
        self.alive = [ref for ref in self.alive if ref() is not None] + [weakref.ref(tensor) for tensor in new]
        self.most = max(self.most, len(self.alive))
        self.bytes = max(self.bytes, *(tensor.nbytes for tensor in new), 0)
        return result


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("layers", [1, 20])
def test_a_gradient_scaler_takes_less_than_four_kibibytes(layers: int, fused: bool) -> None:
    """A few scalars, each in a block of 512 bytes, whatever the number of parameters: docs/memory.md says so."""
    model = nn.Sequential(*(nn.Linear(8, 8) for _ in range(layers)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, fused=fused)
    scaler, allocated = torch.amp.GradScaler("cpu"), Allocated()
    for _ in range(2):
        optimizer.zero_grad()
        loss = model(torch.ones(2, 8)).sum()
        with allocated:
            scaled = scaler.scale(loss)
        scaled.backward()
        with allocated:
            scaler.unscale_(optimizer)
            scaler.step(optimizer)
            scaler.update()
    assert allocated.bytes == 8  # a float64
    assert allocated.most * SMALLEST < 4096


def test_a_fused_optimizer_counts_its_steps_on_the_gpu() -> None:
    net = network("D")
    fused = memory(net, 64, StepConfig(optimizer="adam", fused=True))
    assert fused.optimizer_bytes - memory(net, 64, StepConfig(optimizer="adam")).optimizer_bytes == 32 * 4
    assert any("step counters on the GPU" in assumption for assumption in fused.assumptions)
