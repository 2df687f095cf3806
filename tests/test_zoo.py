"""Modules of every kind of input and output, each held to what torch itself tells of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from math import prod
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import vggscope
from tests.zoo import ZOO, Calls, Inputs, LanguageModelHead
from vggscope.analysis.cost import backward_macs, costs, total_macs
from vggscope.errors import ModelError, OptionError
from vggscope.explorer.result import Page
from vggscope.graph import Network
from vggscope.render.formats import write
from vggscope.result import Result
from vggscope.trace.inputs import CallInputs, from_data
from vggscope.trace.network import network_of
from vggscope.trace.tensors import tensors_in

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # torch: odd padding, no oneDNN

NO_BATCH = {"unbatched_image", "unbatched_row", "lstm_unbatched", "graph_convolution", "bag_of_words"}
BATCH_SECOND = {"lstm_length_first", "functional_multi_head_attention"}

BY_HAND: dict[str, int | None] = {
    # 4 encoder and decoder projections of width 16 each way, two cross projections, both feed-forwards of width 32:
    # encoder 6x16x48 + 2x6x6x16 + 6x16x16 + 2x6x16x32, decoder self 5x16x48 + 2x5x5x16 + 5x16x16, cross
    # 5x16x16 + 6x16x32 + 2x5x6x16 + 5x16x16, feed-forward 2x5x16x32.
    "transformer": 13_440 + 5_920 + 6_592 + 5_120,
    # An LSTM multiplies 4 x 6 x (4 + 6) at each of 5 steps, the head 5 x 6 x 2.
    "packed_lstm": 5 * 240 + 60,
    # The layer forward, and the gradient of its input.
    "gradient_per_sample": 2 * 2 * 24,
    "gradient_of_the_input": 2 * 36 * 4 * 27,
    # The offsets, and as many products as a convolution.
    "deformable_convolution": 36 * 18 * 27 + 36 * 4 * 27,
    # torch has no formula for products with a vector: x1 W x2, and the norm u W v of a weight.
    "bilinear_pair": 3 * 5 * 7,
    "spectral_norm": 6 * 4 + 6 * 4 + 4,
    "quantized_dynamically": 6 * 5 + 5 * 4,
    "quantized_convolution": 36 * 4 * 27 + 16 * 4 * 36,
    # It depends on the number of stored elements.
    "sparse_weight": None,
}
"""MACs where torch's counter fails, or sees a fused kernel that it has no formula for; None for an unknown cost."""


def call_inputs(name: str, inputs: Inputs) -> CallInputs:
    return from_data(inputs, None if name in NO_BATCH else 1 if name in BATCH_SECOND else 0)


@cache
def network_in_zoo(name: str) -> Network:
    """The Network of a module of the zoo, traced once for the tests that only read it."""
    module, inputs = ZOO[name]()
    return network_of(module.eval(), name, call_inputs(name, inputs))


@pytest.mark.parametrize("name", ZOO)
def test_the_shapes_of_a_trace_are_those_that_the_rules_of_its_ops_infer(name: str) -> None:
    module, inputs = ZOO[name]()
    network = network_of(module.eval(), name, call_inputs(name, inputs), memory=False)
    assert list(network.shapes.items()) == list(replace(network).shapes.items())


def run(module: nn.Module, inputs: CallInputs) -> object:
    torch.manual_seed(0)
    with torch.no_grad():
        return module(*inputs.args, **inputs.kwargs)


def counted(name: str, inputs: CallInputs) -> int:
    """torch's own count, without data where the module runs so: the CPU's fused kernels have no formula."""
    module = ZOO[name]()[0].eval()
    on_meta = inputs.map(lambda tensor: tensor.to("meta"))
    try:
        with FlopCounterMode(display=False) as counter, torch.device("meta"):
            module.to("meta")(*on_meta.args, **on_meta.kwargs)
    except Exception:
        module = ZOO[name]()[0].eval()
        with FlopCounterMode(display=False) as counter:
            run(module, inputs)
    return int(counter.get_total_flops()) // 2


def weights_of(module: nn.Module) -> list[Tensor]:
    """The parameters, and the packed weights of quantised layers."""
    layers = [part for part in module.modules() if "quantized" in type(part).__module__]
    packed = [part._weight_bias() for part in layers if hasattr(part, "_weight_bias") and hasattr(part, "scale")]
    return [*module.parameters(), *(tensor for pair in packed for tensor in pair)]


@pytest.mark.parametrize("name", ZOO)
def test_parameters_and_macs_equal_torch(name: str) -> None:
    module, inputs = ZOO[name]()
    call, network = call_inputs(name, inputs), network_in_zoo(name)
    assert network.failure is None
    assert sum(prod(p.shape) for p in network.parameters()) == sum(p.numel() for p in weights_of(module))
    batch = 1 if network.single else call.batch
    assert total_macs(costs(network, batch)) == (BY_HAND[name] if name in BY_HAND else counted(name, call))


BACKWARD_BY_HAND: dict[str, int | None] = {
    # torch's counter multiplies the weights' gradient of a grouped convolution by its groups. The depthwise
    # convolution needs no gradient of its input, the pointwise one both.
    "depthwise_separable": 225 * 8 * 9 + 2 * 225 * 8 * 16,
    "bilinear_pair": 3 * 5 * 7,
    # torch counts what the backward pass computes again.
    "checkpointed": 30 + 2 * 15,
}


def backward_counted(name: str, inputs: CallInputs) -> int | None:
    """torch's own count of a backward pass from all outputs; None where it cannot run without data."""
    if name in BACKWARD_BY_HAND:
        return BACKWARD_BY_HAND[name]
    on_meta = inputs.map(lambda tensor: tensor.to("meta"))
    try:
        module = ZOO[name]()[0].eval().to("meta")
        with torch.device("meta"):
            outputs = [t for t in tensors_in(module(*on_meta.args, **on_meta.kwargs)) if t.requires_grad]
            with FlopCounterMode(display=False) as counter:
                torch.autograd.backward([output.abs().sum() for output in outputs])
    except Exception:
        return None
    return int(counter.get_total_flops()) // 2


@pytest.mark.parametrize("name", ZOO)
def test_backward_macs_equal_torch_or_are_unknown(name: str) -> None:
    call, network = call_inputs(name, ZOO[name]()[1]), network_in_zoo(name)
    ours = backward_macs(network, 1 if network.single else call.batch)
    theirs = backward_counted(name, call)
    assert ours is None or theirs is None or ours == theirs


@pytest.mark.parametrize("name", ZOO)
def test_inputs_and_outputs_have_torchs_shapes(name: str) -> None:
    module, inputs = ZOO[name]()
    call, network = call_inputs(name, inputs), network_in_zoo(name)
    batch = 1 if network.single else call.batch
    assert [shape_of(network, tensor.name, batch) for tensor in network.inputs] == [t.shape for t in call.tensors()]
    outputs = tensors_in(run(module.eval(), call))
    assert [tensor.batched(batch) for tensor in network.outputs] == [tensor.shape for tensor in outputs]
    assert shape_of(network, network.end, batch) == outputs[network.output_place].shape


COMMANDS: dict[str, Callable[[Network], Result | Page]] = {
    "summary": vggscope.summary,
    "summary --count all": partial(vggscope.summary, count="all"),
    "summary --backward --count all": partial(vggscope.operations, count="all"),
    "memory": vggscope.memory,
    "rf": vggscope.receptive_fields,
    "compare": lambda network: vggscope.compare(network, "A"),
    "diff": lambda network: vggscope.diff(network, ref="conv3-8 FC-10"),
}


@pytest.mark.parametrize("name", ZOO)
def test_every_command_reads_it(name: str) -> None:
    network = network_in_zoo(name)
    for command in COMMANDS.values():
        result = command(network)
        assert str(result)
        assert json.loads(write(result, "json"))
    for style in ("blocks", "layers"):
        assert vggscope.diagram(network, style=style).render("svg").startswith(b"<")
    assert "<html" in vggscope.report(network).html
    assert vggscope.diff(network, ref=network).verdict == "identical"


SEVERAL_RESULTS: dict[str, Callable[[Tensor], object]] = {
    "topk": lambda x: torch.topk(x, 2),
    "max": lambda x: torch.max(x, 1),
    "sort": lambda x: x.sort(1),
    "split": lambda x: x.split(2, 1),
    "unbind": lambda x: x.unbind(1),
    "var_mean": lambda x: torch.var_mean(x, 1),
    "aminmax": lambda x: torch.aminmax(x, dim=1),
    "svd": torch.linalg.svd,
    "native_layer_norm": lambda x: torch.native_layer_norm(x, (6,), None, None, 1e-5),
    "max_pool1d": lambda x: F.max_pool1d(x, 2, return_indices=True),
    "adaptive_max_pool1d": lambda x: F.adaptive_max_pool1d(x, 2, return_indices=True),
}


@pytest.mark.parametrize("name", SEVERAL_RESULTS)
def test_all_operations_of_a_call_with_several_results(name: str) -> None:
    net = Calls(lambda self, x: SEVERAL_RESULTS[name](self.layer(x)), layer=nn.Linear(6, 6))
    network = vggscope.network(net, input_data=torch.rand(4, 6))
    for result in (vggscope.summary(network, count="all"), vggscope.operations(network, count="all")):
        assert str(result)
        assert result.totals.macs == 4 * 36
        first, *others = result.layers
        assert first.flops == 2 * 4 * 36 + 4 * 6
        # The other results of one call cost nothing beside the first.
        assert len(others) == len(network.nodes) - 1


def test_a_model_of_transformers_is_run_on_its_dummy_inputs() -> None:
    model = LanguageModelHead()
    report = vggscope.summary(model)
    # 15 tokens times the weights of four matrices and the head, and two products for each of two heads.
    assert report.totals.macs == 15 * (16 * 48 + 16 * 16 + 2 * 16 * 64 + 16 * 50) + 3 * 2 * 2 * 5 * 5 * 8
    assert report.warnings == ("the input is the model's own dummy_inputs",)


def test_macs_of_a_model_that_fails_are_unknown() -> None:
    report = vggscope.summary(LanguageModelHead(), (3, 8, 8))
    assert report.failure is not None
    assert (report.totals.macs, report.totals.flops, report.totals.macs_known) == (None, None, 0)
    assert "MACs         at least 0" in str(report)
    assert vggscope.operations(LanguageModelHead(), (3, 8, 8)).totals.macs is None


@pytest.mark.parametrize("name", ["keyword_only", "dict_input", "nested_input", "list_input"])
def test_a_numeric_diff_passes_the_inputs_as_they_are_nested(name: str) -> None:
    module, inputs = ZOO[name]()
    result = vggscope.diff(module.eval(), ref=module, input_data=inputs, numeric=True)
    assert result.numeric is not None
    assert result.numeric.max_abs_error == 0


@pytest.mark.parametrize("name", ["half_precision", "double_precision"])
def test_a_step_is_measured_in_its_own_dtype(name: str) -> None:
    module, inputs = ZOO[name]()
    assert vggscope.measure(module, input_data=inputs).difference_bytes == 0


def test_a_step_that_reads_values_is_measured_on_values() -> None:
    class Chosen(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.masked_select(x, x > 0)

    assert vggscope.measure(Chosen(), input_data=(torch.ones(1, 4),), mode="inference").difference_bytes == 0


def test_a_sparse_input_is_refused() -> None:
    with pytest.raises(OptionError, match="input_data holds a sparse tensor"):
        vggscope.summary(nn.Linear(4, 2), input_data=torch.eye(4).to_sparse())


def shape_of(network: Network, name: str, batch: int) -> tuple[int, ...]:
    return network.batched(name, batch)


@pytest.mark.parametrize("name", ZOO)
def test_a_module_computes_the_same_after_inspection(name: str) -> None:
    torch.manual_seed(0)
    module, inputs = ZOO[name]()
    call = call_inputs(name, inputs)
    before = tensors_in(run(module.eval(), call))
    random, modes = torch.get_rng_state(), [part.training for part in module.modules()]
    network_of(module, name, call)
    assert torch.equal(torch.get_rng_state(), random)
    assert [part.training for part in module.modules()] == modes
    after = tensors_in(run(module, call))
    assert all(tensor.device.type == "cpu" for tensor in after)
    assert len(before) == len(after)
    assert all(torch.equal(one, other) for one, other in zip(before, after))


class Keeps(nn.Module):
    """Keeps tensors in an attribute, a list, a dict and an object of its own."""

    class Cache:
        mask: Tensor | None = None

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.mask: Tensor | None = None
        self.seen: list[Tensor] = []
        self.by_size: dict[int, Tensor] = {}
        self.cache = self.Cache()

    def forward(self, x: Tensor) -> Tensor:
        if self.mask is None:
            self.mask = torch.ones_like(x)
            self.cache.mask = torch.ones(x.shape[1])
        self.seen.append(x)
        mask = self.by_size.setdefault(len(self.by_size), self.mask)
        return self.layer(x * mask * self.cache.mask)


def test_tensors_that_a_module_keeps_are_as_before() -> None:
    module = Keeps()
    network_of(module, "Keeps", (4,))
    assert (module.mask, module.seen, module.by_size, module.cache.mask) == (None, [], {}, None)
    module(torch.ones(2, 4))
    kept = module.mask
    network_of(module, "Keeps", CallInputs((torch.zeros(2, 4),)))
    assert module.mask is kept
    assert len(module.seen) == 1
    assert module(torch.ones(2, 4)).shape == (2, 4)


class Recomputed(torch.autograd.Function):
    """Runs a module again in the backward pass, as reversible networks do."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, part: nn.Module) -> Tensor:
        ctx.x, ctx.part = x.detach(), part
        return part(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None]:
        with torch.enable_grad():
            x = ctx.x.requires_grad_()
            ctx.part(x).backward(gradient)
        return x.grad, None


def test_no_gradient_is_left_in_a_module() -> None:
    module = Calls(
        lambda self, x: Recomputed.apply(self.first(x), self.part), first=nn.Linear(4, 4), part=nn.Linear(4, 4)
    )
    vggscope.summary(module, (4,))
    assert all(parameter.grad is None for parameter in module.parameters())


def test_an_input_that_a_hook_replaces_keeps_its_origin() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3))
    module[2].register_forward_pre_hook(lambda part, inputs: (inputs[0] + 1,))
    network = network_of(module, "hooked", (3, 16, 16))
    assert network.by_name["2"].inputs == ("2.forward_pre_hook",)
    # Two gradients of the second layer's product, one of the first's.
    assert backward_macs(network) == 2 * 144 * 4 * 36 + 196 * 4 * 27


def test_random_numbers_and_booleans_are_compared() -> None:
    class Noise(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + torch.randn_like(x) > 0

    numeric = vggscope.diff(Noise(), ref=Noise(), input_data=torch.rand(2, 8), numeric=True).numeric
    assert numeric is not None
    assert numeric.max_abs_error == 0


def test_a_module_that_cannot_be_copied_is_refused() -> None:
    class Single(nn.Linear):
        def __deepcopy__(self, memo: object) -> nn.Module:
            raise RuntimeError("there is one only")

    with pytest.raises(ModelError, match="Single cannot be copied: there is one only"):
        vggscope.diff(Single(4, 2), ref=nn.Linear(4, 2), input_data=torch.rand(2, 4), numeric=True)


def test_a_grouped_convolution_with_computed_weights_is_verified() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        kernels = self.kernels(x.mean((2, 3))).view(-1, 1, 3, 3)
        return F.conv2d(x.flatten(0, 1)[None], kernels, padding=1, groups=len(kernels)).view_as(x)

    assert vggscope.verify(Calls(forward, kernels=nn.Linear(3, 27)), (3, 8, 8)).agrees
