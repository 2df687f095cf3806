"""Steps that torch is recorded in, held to torch's memory tracker, which other people wrote."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torchvision.models import resnet18
from torchvision.ops import StochasticDepth

import vggscope
from tests.test_zoo import call_inputs
from tests.zoo import ZOO, Swish
from vggscope.analysis.memory.report import memory
from vggscope.analysis.memory.simulate import inference_peak, training_peak
from vggscope.analysis.memory.step_config import StepConfig
from vggscope.cli.app import run
from vggscope.errors import VggscopeError
from vggscope.graph import Network
from vggscope.inputs import InputSize
from vggscope.recorded_step import RecordedStep, StepRequest
from vggscope.trace.dataless import DatalessOperators
from vggscope.trace.inputs import from_sizes
from vggscope.trace.network import network_of
from vggscope.trace.step import StorageChange, class_labels, in_order, loss_of, recorded_steps

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # torch: odd padding, nested tensors

NOT_TRACKED = {
    "packed_lstm": "on zeros the lengths that it reads are zero",
    "perceptual_distance": "its forward refers to the module itself, not to the copy that is measured",
    "sparse_weight": "torch cannot copy it",
    "quantized_dynamically": "the tracker does not see packed weights",
    "quantized_convolution": "the tracker does not see packed weights",
    "class_activation_map": "the tracker counts gradients that were there before the step",
}
"""Modules of the zoo for which the tracker's figure is not that of the step."""

NOT_TRAINED = {
    **dict.fromkeys(("rows_batch_norm", "face_embedding"), "more than 1 value"),
    **dict.fromkeys(("adaptive_pools", "structural_similarity", "int8_weights_in_buffers"), "nothing to train"),
    **dict.fromkeys(("quantized_parameter",), "nothing to train"),
    **dict.fromkeys(("sorted_and_gathered",), "no gradient"),
}
"""Modules that torch cannot train on one sample, with the words of the error."""

CLOSE = {"spectrogram", "complex_linear"}
"""Modules whose figure is within a percent: a scalar more is alive the first time that torch runs their operators."""


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in ZOO if name not in NOT_TRACKED])
def test_the_zoo_equals_the_tracker(name: str) -> None:
    module, inputs = ZOO[name]()
    axis = call_inputs(name, inputs).batch_axis
    for mode in ("inference", "train"):
        if mode == "train" and name in NOT_TRAINED:
            with pytest.raises(VggscopeError, match=NOT_TRAINED[name]):
                vggscope.measure(module, input_data=inputs, batch_axis=axis, mode=mode)
            continue
        result = vggscope.measure(module, input_data=inputs, batch_axis=axis, mode=mode, optimizer="adam")
        limit = 0.01 * result.measured_bytes if name in CLOSE else 0
        assert abs(result.difference_bytes) <= limit, mode


@pytest.mark.parametrize("accumulate", [2, 3])
@pytest.mark.parametrize("dtype", [None, "bfloat16"])
def test_micro_batches_of_a_recorded_step_equal_the_tracker(accumulate: int, dtype: Any) -> None:
    """The peak is in a backward pass, when no variable names the loss of the micro-batch before."""
    model = nn.Sequential(nn.Linear(4, 8), nn.RMSNorm(8), nn.Linear(8, 3))
    measured = vggscope.measure(model, (4,), batch=6, accumulate=accumulate, dtype=dtype, device="cpu")
    assert measured.difference_bytes == 0


class DropsBranch(nn.Module):
    """A residual block whose branch torchvision's StochasticDepth drops, as in EfficientNet."""

    def __init__(self, p: float, mode: str) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.norm, self.depth = nn.BatchNorm2d(6), StochasticDepth(p, mode)
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        x = x + self.depth(self.norm(self.last(x)))
        return self.head(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))


@pytest.mark.parametrize("dtype", [None, "float16", "bfloat16", "amp"])
@pytest.mark.parametrize("batch", [1, 5])
@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_the_rule_of_stochastic_depth_equals_the_tracker(p: float, batch: int, dtype: Any) -> None:
    model = DropsBranch(p, "row")
    network = vggscope.network(model, (3, 9, 7))
    assert network.predicts_memory
    for mode in ("train", "inference"):
        measured = vggscope.measure(model, (3, 9, 7), batch=batch, dtype=dtype, mode=mode, device="cpu")
        assert measured.difference_bytes == 0, mode


def test_a_layer_that_reads_its_mode_needs_no_run_in_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """The op of StochasticDepth tells what it does in training; a condition of the model's own does not."""
    runs: list[bool] = []
    forward = DropsBranch.forward

    def noted(self: DropsBranch, x: Tensor) -> Tensor:
        runs.append(vars(self)["training"])  # not as an attribute, a read of which is noted
        return forward(self, x)

    def passes_on(self: DropsBranch, x: Tensor) -> Tensor:
        return nn.functional.dropout(noted(self, x), 0.5, self.training)

    monkeypatch.setattr(DropsBranch, "forward", noted)
    assert vggscope.network(DropsBranch(0.3, "row"), (3, 9, 7)).predicts_memory
    assert runs == [False]
    monkeypatch.setattr(DropsBranch, "forward", passes_on)
    assert vggscope.network(DropsBranch(0.3, "row"), (3, 9, 7)).predicts_memory
    assert set(runs[1:]) == {False, True}


@pytest.mark.parametrize("batch", [1, 5])
def test_stochastic_depth_of_whole_batches_is_recorded(batch: int) -> None:
    model = DropsBranch(0.3, "batch")
    assert not vggscope.network(model, (3, 9, 7)).predicts_memory
    assert vggscope.measure(model, (3, 9, 7), batch=batch, device="cpu").difference_bytes == 0


class Averages(nn.Module):
    """A network that takes means over axes, as MNASNet does in place of a pool."""

    def __init__(self, dim: tuple[int, ...], keepdim: bool) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3), nn.Sequential(nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.dim, self.keepdim = dim, keepdim
        self.head = nn.Linear({(2, 3): 8, (1,): 35, (-1,): 56}[dim], 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.stem(x)).mean(self.dim, keepdim=self.keepdim).flatten(1))


@pytest.mark.parametrize("dtype", [None, "bfloat16", "amp"])
@pytest.mark.parametrize("batch", [1, 5])
@pytest.mark.parametrize(("dim", "keepdim"), [((2, 3), False), ((2, 3), True), ((1,), False), ((-1,), True)])
def test_the_rule_of_a_mean_equals_the_tracker(dim: tuple[int, ...], keepdim: bool, batch: int, dtype: Any) -> None:
    model = Averages(dim, keepdim)
    assert vggscope.network(model, (3, 9, 7)).predicts_memory
    for mode in ("train", "inference"):
        measured = vggscope.measure(model, (3, 9, 7), batch=batch, dtype=dtype, mode=mode, device="cpu")
        assert measured.difference_bytes == 0, mode


def with_unread_piece(x: Tensor) -> Tensor:
    first, _, last = x.split([2, 3, 3], 1)
    return torch.cat([last, first * first], 1)


CUT: dict[str, Callable[[Tensor], Tensor]] = {
    "chunks": lambda x: torch.cat(tuple(reversed(x.chunk(3, 1))), 1),
    "a piece that is not read": with_unread_piece,
    "a slice": lambda x: x[:, 2:5] * 2,
    "a slice of everything": lambda x: x[:, :8] * x,
    "a position": lambda x: x[..., 0] * x[..., 1],
    "a difference": lambda x: x - x.mean((2, 3), keepdim=True),
    "a larger map": lambda x: nn.functional.interpolate(x, scale_factor=2.0, mode="bilinear") * 2,
    "a sum over axes": lambda x: x * torch.stack([x, x * x], 1).sum(1).sum((2, 3), keepdim=True),
}


@pytest.mark.parametrize("dtype", [None, "bfloat16", "amp"])
@pytest.mark.parametrize("name", CUT)
def test_the_rules_of_cut_and_resized_maps_equal_the_tracker(name: str, dtype: Any) -> None:
    model = nn.Sequential(Calls(CUT[name], nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)), nn.Flatten())
    model.append(nn.Linear(model(torch.zeros(2, 3, 8, 8)).shape[1], 4))
    assert vggscope.network(model, (3, 8, 8)).predicts_memory
    for mode, batch in (("train", 1), ("train", 5), ("inference", 5)):
        measured = vggscope.measure(model, (3, 8, 8), batch=batch, dtype=dtype, mode=mode, device="cpu")
        assert measured.difference_bytes == 0, (mode, batch)


def with_sum_in_slice(x: Tensor) -> Tensor:
    y = torch.cat([x, x * x], 1)[:, :5]
    y += x[:, 3:]
    return y * x[:, :5]


OVERWRITTEN: dict[str, Callable[[], nn.Module]] = {
    "a flattened map": lambda: nn.Sequential(nn.Flatten(), nn.Dropout(0.5, inplace=True)),
    "twice": lambda: nn.Sequential(nn.Flatten(), nn.Dropout(0.5, inplace=True), nn.SiLU(inplace=True)),
    "a slice": lambda: Calls(lambda x: torch.relu_(x[:, 2:7])),
    "a slice, by a sum": lambda: Calls(with_sum_in_slice),
    "a slice of everything": lambda: Calls(lambda x: x[:, :8].add_(x.mean((2, 3), keepdim=True))),
}


@pytest.mark.parametrize("dtype", [None, "bfloat16"])
@pytest.mark.parametrize("name", OVERWRITTEN)
def test_the_rule_of_an_overwritten_view_equals_the_tracker(name: str, dtype: Any) -> None:
    """Its backward copies the gradient of the whole tensor, and that of the view once more."""
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), OVERWRITTEN[name](), nn.Flatten(), nn.LazyLinear(4))
    model(torch.zeros(2, 3, 8, 8))
    for mode, batch in (("train", 1), ("train", 5), ("inference", 5)):
        measured = vggscope.measure(model, (3, 8, 8), batch=batch, dtype=dtype, mode=mode, device="cpu")
        assert measured.difference_bytes == 0, (mode, batch)
    assert vggscope.network(model, (3, 8, 8)).predicts_memory


class HasAuxiliaryHead(nn.Module):
    """A network with a second head in training, as GoogLeNet."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.last = nn.Conv2d(3, 8, 3), nn.Sequential(nn.ReLU(), nn.Conv2d(8, 6, 3), nn.BatchNorm2d(6))
        self.auxiliary, self.head = nn.Linear(8, 4), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor] | Tensor:
        x = self.stem(x)
        first = self.auxiliary(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1)) if self.training else None
        output = self.head(nn.functional.adaptive_avg_pool2d(self.last(x), 1).flatten(1))
        return output if first is None else (output, first)


@pytest.mark.parametrize("dtype", [None, "bfloat16", "amp"])
@pytest.mark.parametrize("batch", [1, 5])
def test_the_rules_give_the_steps_of_a_network_with_an_auxiliary_head(batch: int, dtype: Any) -> None:
    model = HasAuxiliaryHead()
    requests = [StepRequest(trains=trains, samples=batch, for_any_batch=True) for trains in (False, True)]
    network = network_of(model, "m", from_sizes(model, [InputSize((3, 9, 7))]), steps=requests)
    assert (network.predicts_inference, network.predicts_training, network.steps) == (True, True, ())
    for mode, optimizer in (("inference", "sgd"), ("train", "sgd"), ("train", "adam")):
        measured = vggscope.measure(
            model, (3, 9, 7), batch=batch, dtype=dtype, mode=mode, optimizer=optimizer, device="cpu"
        )
        assert measured.difference_bytes == 0, (mode, optimizer)


class Calls(nn.Sequential):
    """Layers, and a function after them."""

    def __init__(self, function: Callable[[Tensor], Tensor], *layers: nn.Module) -> None:
        super().__init__(*layers)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(super().forward(x))


class Attends(nn.Module):
    """Self-attention whose weights are returned, which is the default, or not."""

    def __init__(self, need_weights: bool) -> None:
        super().__init__()
        self.attention, self.need_weights = nn.MultiheadAttention(32, 4, batch_first=True), need_weights

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x, need_weights=self.need_weights)[0]


class KeepsTable(nn.Module):
    """A table of positions that the first call makes and later calls read, as in ConViT."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", None)
        self.norm = nn.LayerNorm(32)

    def forward(self, x: Tensor) -> Tensor:
        if self.table is None:
            steps = torch.arange(x.shape[1], dtype=x.dtype)
            self.table = (steps - steps.unsqueeze(1)).repeat(2, 1)[: x.shape[1]].clone()
        return self.norm(self.table @ x)


class KeepsTableByDevice(nn.Module):
    """A table that is kept in an attribute, at evaluation alone, as in LeViT and TinyViT."""

    def __init__(self) -> None:
        super().__init__()
        self.tables: dict[torch.device, Tensor] = {}
        self.biases, self.norm = nn.Parameter(torch.zeros(24)), nn.LayerNorm(32)
        self.register_buffer("steps", torch.arange(24).repeat(24, 1))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            return self.norm(self.biases[self.steps] @ x)
        if x.device not in self.tables:
            self.tables[x.device] = self.biases[self.steps]
        return self.norm(self.tables[x.device] @ x)


def resized(x: Tensor) -> Tensor:
    out = torch.ones(4)
    out.resize_(x.shape).copy_(x)
    return torch.special.bessel_j0(out.detach()) + out


def padded(mode: str, padding: int | str = 1, kernel: int = 3) -> nn.Module:
    layers = (nn.Conv2d(3, 8, kernel, padding=padding, padding_mode=mode), nn.ReLU())
    return nn.Sequential(*layers, nn.Conv2d(8, 8, kernel, padding=padding, padding_mode=mode), nn.Flatten())


KINDS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int]] = {
    "a custom function": (lambda: Calls(Swish.apply, nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)), (3, 16, 16), 0),
    "attention with weights": (lambda: Attends(True), (64, 32), 0),
    "attention without weights": (lambda: Attends(False), (64, 32), 0),
    "an encoder, whose fast path is one kernel": (
        lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(32, 4, 64, batch_first=True), 2),
        (24, 32),
        0,
    ),
    "an encoder, length first": (lambda: nn.TransformerEncoderLayer(32, 4, 64), (24, 32), 1),
    "a table that is kept": (KeepsTable, (24, 32), 0),
    "a table that is kept by device": (KeepsTableByDevice, (24, 32), 0),
    "batch norm without running statistics": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False), nn.Flatten()),
        (3, 8, 8),
        0,
    ),
    "a tensor that is resized": (lambda: Calls(resized, nn.Conv2d(3, 8, 3)), (3, 16, 16), 0),
    "reflected": (lambda: padded("reflect"), (3, 16, 16), 0),
    "wrapped": (lambda: padded("circular"), (3, 16, 16), 0),
    "replicated": (lambda: padded("replicate"), (3, 16, 16), 0),
    "same, even kernel": (lambda: padded("zeros", "same", 4), (3, 16, 16), 0),
}


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("mode", ["inference", "train"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_no_rule_predicts_equals_the_tracker(kind: str, mode: str, batch: int) -> None:
    make, size, axis = KINDS[kind]
    sample = torch.zeros(size).unsqueeze(axis)
    result = vggscope.measure(make(), input_data=sample, batch_axis=axis, mode=mode, batch=batch)
    assert result.difference_bytes == 0


class AppliesFunction(nn.Module):
    """Calls a function of Python on each element, which torch does without an operator."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.register_buffer("scale", torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) * self.scale.clone().apply_(lambda value: value + 1) + self.scale.clone().map_(
            self.scale, lambda mine, other: mine * other
        )


def test_a_function_of_each_element_reads_values() -> None:
    network = recorded(AppliesFunction(), (4,), StepRequest(trains=True, samples=2))
    assert len(network.steps) == 1
    assert "forward reads values in training" in network.warnings[0]


def test_storages_that_are_freed_at_once_are_in_order() -> None:
    def freed(number: int, layer: str = "a") -> StorageChange:
        return StorageChange("forward", layer, number, is_free=True)

    made = [StorageChange("forward", "a", number, is_free=False) for number in range(4)]
    changes = [*made[:3], freed(2), freed(0), made[3], freed(3), freed(1), freed(1, "b"), freed(0, "b")]
    assert in_order(changes) == [
        *(*made[:3], freed(0), freed(2), made[3], freed(1), freed(3), freed(0, "b"), freed(1, "b")),
    ]


def recorded(module: nn.Module, size: tuple[int, ...], *requests: StepRequest) -> Network:
    return network_of(module, "m", from_sizes(module, [InputSize(size)]), steps=requests)


def allocated(step: RecordedStep, kernel_bytes: int) -> int:
    return sum(event.fixed == kernel_bytes for event in step.events if event.kind)


def test_usual_layers_are_not_recorded() -> None:
    layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten())
    network = recorded(layers, (3, 8, 8), StepRequest(trains=True))
    assert network.predicts_memory
    assert network.steps == ()


def test_a_gpu_takes_kernels_of_its_own() -> None:
    layers = nn.Sequential(nn.Linear(8, 32), nn.RMSNorm(32), nn.Dropout())
    on_gpu, tracked = (StepRequest(trains=True, on_gpu=on_gpu) for on_gpu in (True, False))
    gpu, cpu = recorded(layers, (8,), on_gpu, tracked).steps
    assert allocated(gpu, 32) == 1  # the mask of the dropout: a byte for each of 32 values
    assert allocated(cpu, 32) == 0


def test_attention_on_a_gpu_stores_no_weights() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.into = nn.Linear(16, 48)

        def forward(self, x: Tensor) -> Tensor:
            q, k, v = self.into(x).unflatten(-1, (3, 2, 8)).permute(2, 0, 3, 1, 4)
            return nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2).sin()

    (step,) = recorded(Scaled(), (40, 16), StepRequest(trains=True)).steps
    assert allocated(step, 2 * 40 * 40 * 4) == 0
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        (step,) = recorded(Scaled(), (40, 16), StepRequest(trains=True, on_gpu=False)).steps
    assert allocated(step, 2 * 40 * 40 * 4) > 0


class Residual(nn.Module):
    """Layers around a sum of a map and what `branch` makes of it; `both` sums two maps of which one is read again."""

    def __init__(self, branch: Callable[[Tensor], Tensor] | None = None, both: bool = False) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.third, self.head = nn.Conv2d(8, 8, 1), nn.Linear(8, 4)
        self.branch, self.both = branch, both

    def forward(self, x: Tensor) -> Tensor:
        if self.both:  # the first gradient of `again` is also that of `once`, so that nothing may be added to it
            once, again = self.first(x), self.first(x)
            x = self.second(again) + (once + again)
        elif self.branch is not None:
            x = self.first(x)
            x = x + self.branch(x)
        else:
            x = self.first(x)
            x = torch.relu(self.second(x)) + self.third(x) + x
        return self.head(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))


class AddsInBackward(torch.autograd.Function):
    """The double of a value, whose backward adds the incoming gradient to itself."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return gradient + gradient


def permuted(x: Tensor) -> Tensor:
    rows = x.permute(0, 2, 3, 1)
    return (rows + rows.tanh()).permute(0, 3, 1, 2)


class Flat(Residual):
    """The gradient of a sum is a view, to which autograd adds no other one in place."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return (x + self.second(x)).flatten(1)


SUMS: dict[str, Callable[[], nn.Module]] = {
    "a flattened sum": Flat,
    "three branches": Residual,
    "two branches": lambda: Residual(torch.sigmoid),
    "a gradient of two maps": lambda: Residual(both=True),
    "a permuted map": lambda: Residual(permuted),
    "an autograd.Function": lambda: Residual(Swish.apply),
    "an autograd.Function that adds": lambda: Residual(AddsInBackward.apply),
}


def sums_without_a_dispatch_mode(module: nn.Module, x: Tensor) -> tuple[int, int]:
    """How many sums of gradients torch's profiler sees in a backward pass, and how many of them in place."""
    output = module(x)
    loss = loss_of(output, class_labels(output))
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        loss.backward()
    parents: dict[str, list[str]] = {"aten::add": [], "aten::add_": []}
    for event in profile.events():
        if event.name in parents and event.cpu_parent is not None:
            parents[event.name].append(event.cpu_parent.name)
    new, in_place = (
        sum("evaluate_function" in parent for parent in parents[name]) for name in ("aten::add", "aten::add_")
    )
    return new + in_place, in_place


@pytest.mark.parametrize("name", SUMS)
def test_gradients_are_summed_in_place_where_torch_does_so(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = SUMS[name]()
    operators: list[Any] = []
    execute = DatalessOperators.run

    def noted(self: DatalessOperators, operator: Any, args: Any, kwargs: Any) -> Any:
        operators.append(operator)
        return execute(self, operator, args, kwargs)

    monkeypatch.setattr(DatalessOperators, "run", noted)
    monkeypatch.setattr(Network, "predicts_memory", property(lambda network: False))
    recorded(module, (3, 8, 8), StepRequest(trains=True, samples=2))
    sums, in_place = sums_without_a_dispatch_mode(module, torch.zeros(2, 3, 8, 8))
    assert sums > 0
    assert operators.count(torch.ops.aten.add_.Tensor) == in_place


@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize("name", ["three branches", "two branches", "a flattened sum", "resnet18"])
def test_a_recorded_step_on_a_gpu_equals_the_rules(name: str, batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rules equal published measurements on GPUs."""
    makers = {"resnet18": resnet18, **SUMS}
    module = makers[name]()
    rules = network_of(module, "m", from_sizes(module, [InputSize((3, 64, 64))]))
    assert rules.predicts_memory
    by_rules = {gpu: memory(rules, batch, StepConfig(runtime="cuda" if gpu else "tracker")) for gpu in (True, False)}
    monkeypatch.setattr(Network, "predicts_memory", property(lambda network: False))
    for on_gpu, report in by_rules.items():
        network = recorded(module, (3, 64, 64), StepRequest(trains=True, samples=batch, on_gpu=on_gpu))
        assert len(network.steps) == 1
        assert (
            memory(network, batch, StepConfig(runtime="cuda" if on_gpu else "tracker")).peak_bytes == report.peak_bytes
        )


def test_one_recording_serves_every_batch_and_dtype() -> None:
    def make() -> nn.Module:
        return nn.Sequential(nn.Linear(8, 16), nn.LayerNorm(16), nn.RMSNorm(16), nn.Linear(16, 3))

    some = recorded(make(), (5, 8), StepRequest(trains=True, for_any_batch=True))
    for batch in (2, 7, 64):
        alone = recorded(make(), (5, 8), StepRequest(trains=True, samples=batch))
        assert training_peak(some, batch) == training_peak(alone, batch)
    alone = recorded(make(), (5, 8), StepRequest(trains=True, samples=4, dtype="float64"))
    config = StepConfig(dtype="float64")
    assert memory(some, 4, config).peak_bytes == memory(alone, 4, config).peak_bytes


def test_events_name_the_layers() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.head = nn.Linear(4, 4), nn.Linear(2, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(nn.functional.glu(self.layer(self.layer(x).tanh())))

    network = recorded(Twice(), (4,), StepRequest(trains=True))
    (step,) = network.steps
    places = list(dict.fromkeys((event.event, event.layer) for event in step.events if event.kind))
    assert places == [
        *(("forward", layer) for layer in ("layer", "tanh", "layer:2", "glu", "head")),
        ("loss", ""),
        *(("backward", layer) for layer in ("head", "glu", "layer:2", "tanh", "layer")),
    ]
    assert {layer for _, layer in places} <= {"", *network.by_name}


def test_the_module_is_left_as_it_was() -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.RMSNorm(4), nn.BatchNorm1d(4), nn.Dropout()).eval()
    module[0].bias.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    parameters, seed = list(module.parameters()), torch.get_rng_state()
    recorded(module, (4,), StepRequest(trains=True, samples=3), StepRequest(trains=False))
    assert all(now is then for now, then in zip(module.parameters(), parameters, strict=True))
    assert all(parameter.grad is None for parameter in parameters)
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert not any(part.training for part in module.modules())
    assert torch.equal(torch.get_rng_state(), seed)


def test_a_step_that_fails_in_torch_is_said() -> None:
    norm = nn.Sequential(Calls(torch.sin, nn.Linear(4, 6)), nn.BatchNorm1d(6))
    summary = vggscope.summary(norm, input_size=(1, 4))
    (warning,) = summary.warnings
    assert warning.startswith("a training step on one sample fails in torch: ValueError: Expected more than 1 value")
    assert "extended" in warning
    assert summary.memory.training_peak_bytes == training_peak(recorded(norm, (4,), StepRequest(True, samples=2)), 1)


class OnAnotherDevice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        if not x.is_meta:
            raise RuntimeError("no kernel for this device")
        return self.fc(x).sort(-1).values


def test_steps_that_fail_alike_have_one_note() -> None:
    (warning,) = vggscope.summary(OnAnotherDevice(), (4,)).warnings
    assert warning == (
        "a forward pass and a training step on one sample fail in torch: no kernel for this device;"
        " their memory is by the rules of each op"
    )


def test_a_setting_that_is_not_recorded_is_said() -> None:
    layers = nn.Sequential(nn.Linear(4, 6), nn.RMSNorm(6), nn.Linear(6, 2))
    note = "by vggscope's rules for each op: torch was not recorded in this step, and may allocate otherwise"
    assert note not in vggscope.memory(layers, input_size=(1, 4)).assumptions
    assert note in vggscope.memory(layers, input_size=(1, 4), dtype="amp").assumptions
    assert note not in vggscope.memory("D", dtype="amp").assumptions


def test_a_forward_that_reads_values_is_run_on_its_weights() -> None:
    class Decides(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x) if x.sum().item() <= 0 else x

    network = recorded(Decides(), (4,), StepRequest(trains=False))
    assert [step.request.trains for step in network.steps] == [False]
    # The input, ten parameters, the sum and the two outputs.
    assert inference_peak(network, 1) == 4 * (4 + 10 + 2)


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_a_checkpoint_inside_is_run_again_in_the_backward_pass(use_reentrant: bool) -> None:
    part = nn.Sequential(nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU())
    again = partial(checkpoint, part, use_reentrant=use_reentrant)
    module = nn.Sequential(nn.Conv2d(3, 8, 3), Calls(again), nn.Conv2d(8, 2, 1))
    module[1].part = part
    assert vggscope.measure(module, (3, 16, 16), optimizer="adam").difference_bytes == 0


class ChecksPoint(nn.Sequential):
    """Keeps the activations of its layers at evaluation only."""

    def forward(self, x: Tensor) -> Tensor:
        for layer in self:
            x = checkpoint(layer, x, use_reentrant=False) if self.training else layer(x)
        return x


def test_a_forward_that_runs_otherwise_in_training_is_recorded() -> None:
    layers = (nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.GELU()) for _ in range(3))
    assert vggscope.measure(ChecksPoint(*layers), (3, 16, 16)).difference_bytes == 0


class Autocasts(nn.Sequential):
    """Runs its layers in half precision."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return super().forward(x).float()


def test_a_forward_with_autocast_is_recorded_and_said_so() -> None:
    module = Autocasts(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 3))
    assert vggscope.measure(module, (3, 16, 16)).difference_bytes == 0
    assert "autocast for cpu" in " ".join(vggscope.summary(module, (3, 16, 16)).warnings)


ATTENDING_FILE = """
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.attention = nn.Conv2d(3, 32, 8, 8), nn.MultiheadAttention(32, 4, batch_first=True)

    def forward(self, x):
        x = self.embed(x).flatten(2).transpose(1, 2)
        return self.attention(x, x, x)[0].mean(1)
"""


def test_every_command_has_the_recorded_peak(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "net.py").write_text(ATTENDING_FILE)
    monkeypatch.chdir(tmp_path)

    def printed(*words: str) -> dict[str, Any]:
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            assert run([*words, "--input", "3x64x64", "--format", "json"]) == 0
        return json.loads(out.getvalue())

    peak = printed("memory", "net.py:Net")["peak_bytes"]
    by_rule = training_peak(vggscope.network("net.py:Net", input_size=(3, 64, 64)), 1)
    assert peak > by_rule  # the weights of the attention, which no rule foresees
    assert printed("summary", "net.py:Net")["memory"]["training_peak_bytes"] == peak
    assert printed("compare", "net.py:Net")["models"][0]["training_peak_bytes"] == peak
    assert vggscope.summary("net.py:Net", input_size=(3, 64, 64)).memory.training_peak_bytes == peak
    (point,) = vggscope.grid("net.py:Net", sizes=[64], batches=[1])
    assert point.peak_bytes == peak


class KeepsLast(nn.Module):
    """Appends each feature map to a plain list, then replaces the list by one of the last map."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.log: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        self.log.append(x)
        x = self.second(x.sin())
        self.log.append(x)
        self.log = self.log[-1:]
        return self.second(self.second(x).sin())


def test_a_list_that_forward_replaces_frees_its_tensors() -> None:
    module = KeepsLast().eval()
    log = module.log
    peak = vggscope.memory(module, input_size=(3, 32, 32), mode="inference").peak_bytes
    # The last map of the call before, the two maps of this call in the list, and the sine between them.
    maps, weights, image = 4 * 8 * 32 * 32, 3 * 8 * 9 + 8 + 8 * 8 * 9 + 8, 3 * 32 * 32
    assert peak == 4 * (maps + weights + image)
    assert module.log is log
    assert log == []
    assert vggscope.measure(module, input_size=(3, 32, 32), mode="inference").difference_bytes == 0


def test_a_gradient_that_a_hook_keeps_has_no_data(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[Tensor] = []

    class Keeps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(6, 4)

        def forward(self, x: Tensor) -> Tensor:
            y = self.layer(x)
            if y.requires_grad:
                y.register_hook(kept.append)
            return y * 2

    monkeypatch.setattr(Network, "predicts_memory", property(lambda network: False))
    module = Keeps()
    inputs, network = from_sizes(module, [InputSize((6,))]), recorded(module, (6,))
    recorded_steps(module, network, inputs, StepRequest(trains=True, samples=3), False)
    gradient = kept[-1]
    uses: tuple[Callable[[], object], ...] = (
        gradient.clone,
        gradient.share_memory_,
        lambda: gradient.untyped_storage().copy_(torch.zeros(12).untyped_storage()),
        lambda: torch.empty(0).set_(gradient.untyped_storage(), 0, (12,), (1,)).sum(),
    )
    for use in uses:
        with pytest.raises(RuntimeError, match="a recorded step"):
            use()
