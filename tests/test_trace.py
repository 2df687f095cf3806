"""What a tracer sees: each call a node, each tensor from the node that gave it, nothing allocated, nothing changed."""

from __future__ import annotations

import copy
import math
import random
import warnings
from collections.abc import Callable
from functools import partial
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from tests.models.nets import Digits, Listed, Misfit, Mixed, Values
from vggscope.analysis.cost import costs, total_macs
from vggscope.analysis.summary import summarize
from vggscope.errors import MissingTool, ShapeError
from vggscope.graph import INPUT, ConstantValue, Network, failure_remedy
from vggscope.inputs import Inputs, InputSize
from vggscope.ops.attention import MultiheadAttention
from vggscope.ops.base import Op, numel
from vggscope.ops.constant import WithComputedWeights, WithConstants, WithMasks
from vggscope.ops.recorded import Unknown
from vggscope.sources.resolve import resolve
from vggscope.trace.build import without_data
from vggscope.trace.constants import described_when_built
from vggscope.trace.flops import OperatorMacs, with_macs
from vggscope.trace.inputs import CallInputs
from vggscope.trace.layout import is_copied, shares_memory
from vggscope.trace.meta_shortcuts import shortcut_result
from vggscope.trace.network import OLDEST_TORCH, network_of
from vggscope.trace.recurrent_steps import RECURRENT, result_of_steps
from vggscope.trace.run import trace


class Function(nn.Module):
    """A module whose forward is one function."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def owned(network: Network, name: str) -> list[str]:
    return [p.name for node in network.nodes if node.name == name for p in node.parameters]


def inputs(network: Network) -> dict[str, tuple[str, ...]]:
    return {node.name: node.inputs for node in network.nodes}


@pytest.mark.parametrize(
    ("column", "name"),
    [("A", "vgg11"), ("B", "vgg13"), ("D", "vgg16"), ("E", "vgg19"), ("A_bn", "vgg11_bn"), ("E_bn", "vgg19_bn")],
)
def test_a_traced_vgg_is_the_column(column: str, name: str) -> None:
    traced, built = resolve(f"torchvision:{name}"), resolve(column)
    assert traced.nodes == built.nodes
    assert (traced.input_shape, traced.unused, traced.warnings) == (built.input_shape, (), ())


def test_calls_become_nodes_in_order_of_execution() -> None:
    network = trace(Digits(), (1, 28, 28), "Digits")
    assert inputs(network) == {
        "conv": (INPUT,),
        "relu": ("conv",),
        "max_pool2d": ("relu",),
        "residual.conv": ("max_pool2d",),
        "residual.relu": ("residual.conv",),
        "residual.conv:2": ("residual.relu",),
        "residual.relu:2": ("residual.conv:2",),
        "residual.add": ("residual.relu:2", "max_pool2d"),
        "view": ("residual.add",),
        "dropout": ("view",),
        "fc": ("dropout",),
        "log_softmax": ("fc",),
    }
    modules = {node.name: node.module for node in network.nodes if node.module is not None}
    assert modules == {
        "conv": "conv",
        "residual.conv": "residual.conv",
        "residual.relu": "residual.relu",
        "residual.conv:2": "residual.conv",
        "residual.relu:2": "residual.relu",
        "fc": "fc",
    }


def test_a_shared_layer_costs_its_parameters_once_and_its_macs_each_time() -> None:
    network = trace(Digits(), (1, 28, 28), "Digits")
    found = costs(network)
    first, second = found["residual.conv"], found["residual.conv:2"]
    assert (first.params, second.params) == (8 * 8 * 9 + 8, 0)
    assert first.macs == second.macs == 8 * 8 * 9 * 14 * 14


def test_parameters_belong_to_the_node_that_reads_them() -> None:
    network = trace(Mixed(), (6, 3, 3), "Mixed")
    assert owned(network, "cat") == ["token"]
    assert owned(network, "mul") == ["scale"]
    assert owned(network, "table") == ["table.weight", "table.bias"]
    # A tied weight is one parameter, under the first of its names.
    assert owned(network, "first") == owned(network, "second") == ["first.weight"]
    assert {p.name: why for p, why in network.unused} == {
        "auxiliary.weight": "runs only in training",
        "auxiliary.bias": "runs only in training",
        "spare": "not used by forward",
    }
    assert sum(numel(p.shape) for p in network.parameters()) == sum(p.numel() for p in Mixed().parameters())


def test_what_the_input_does_not_reach_is_counted_once() -> None:
    network = trace(Mixed(), (6, 3, 3), "Mixed")
    assert network.batchless == {"table"}
    assert inputs(network)["table"] == ()
    assert (costs(network, 1)["table"].macs, costs(network, 8)["table"].macs) == (12, 12)
    assert costs(network, 8)["first"].macs == 8 * 10 * 6 * 6


def test_only_the_pieces_that_are_read_are_nodes() -> None:
    network = trace(Mixed(), (6, 3, 3), "Mixed")
    pieces = [node for node in network.nodes if node.op.name == "chunk"]
    assert [getattr(node.op, "position", None) for node in pieces] == [0, 2]
    assert inputs(network)["cat:2"] == (pieces[0].name, pieces[1].name, pieces[0].name)


def test_frozen_parameters_are_not_trainable() -> None:
    module = Digits()
    module.conv.requires_grad_(False)
    trainable = {p.name: p.trainable for p in trace(module, (1, 28, 28), "Digits").parameters()}
    assert not trainable["conv.weight"]
    assert trainable["fc.weight"]


def test_a_residual_around_dropout_reads_what_stands_before_it() -> None:
    class Around(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop = nn.Dropout()

        def forward(self, x: Tensor) -> Tensor:
            y = x * 2
            return y + self.drop(y)

    assert inputs(trace(Around(), (3, 4, 4), "Around"))["add"] == ("mul", "drop")


def test_a_module_comes_back_as_it_was() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), Mixed())
    module[2].eval()
    modes = [part.training for part in module.modules()]
    state = {key: (tensor.clone(), tensor.data_ptr()) for key, tensor in module.state_dict().items()}
    random = torch.get_rng_state()
    network_of(module, "m", (3, 8, 8))
    assert [part.training for part in module.modules()] == modes
    assert all(torch.equal(t, state[k][0]) and t.data_ptr() == state[k][1] for k, t in module.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert not torch.nn.modules.module._global_forward_hooks
    assert torch.overrides._get_current_function_mode() is None


def test_nothing_is_allocated() -> None:
    made = without_data(lambda: nn.Sequential(nn.Flatten(), nn.Linear(10**6, 10**6)))
    assert made[1].weight.is_meta
    assert total_macs(costs(trace(made, (1, 1000, 1000), "large"))) == 10**12


def test_settings_are_read_while_a_module_is_built_without_data() -> None:
    made = without_data(lambda: nn.Conv2d(3, int(torch.linspace(1, 9, 5)[2].item()), 3))
    assert made.out_channels == 5


def test_a_module_in_a_plain_list_is_traced_with_a_warning() -> None:
    network = trace(Listed(), (3, 8, 8), "Listed")
    assert [node.op.name for node in network.nodes] == ["Conv2d", "ReLU", "mean", "Linear"]
    assert [p.name for p in network.parameters()] == ["fc.weight", "fc.bias"]
    (warning,) = network.warnings
    assert warning.startswith("Conv2d is not registered")


def test_an_unknown_function_keeps_its_shape_and_has_no_known_cost() -> None:
    @torch.library.custom_op("vggscope_tests::twice", mutates_args=())
    def twice(x: Tensor) -> Tensor:
        return x * 2

    twice.register_fake(torch.empty_like)
    network = trace(Function(lambda x: twice(twice(x))), (3, 8, 8), "custom")
    assert isinstance(network.nodes[0].op, Unknown)
    assert total_macs(costs(network)) is None
    assert len(network.warnings) == 1
    assert network.warnings[0].endswith("is unknown, and of 1 more call of it")


def test_a_function_without_a_rule_is_counted_by_torch() -> None:
    network = trace(Function(lambda x: torch.fft.rfft2(x).abs()), (3, 8, 8), "fft")
    assert network.shapes["fft_rfft2"] == (1, 3, 8, 5)
    assert total_macs(costs(network)) == 0
    assert network.warnings == ()
    with pytest.raises(ShapeError, match="traced on 3x8x8"):
        _ = network.with_input((3, 16, 16)).shapes


def test_dropout_that_is_on_at_evaluation_gives_a_warning() -> None:
    network = trace(Function(F.dropout), (3, 8, 8), "x")
    assert network.nodes[0].op.active_in == "always"
    assert network.warnings == ("dropout is on at evaluation too: F.dropout needs training=self.training",)


def test_a_forward_that_reads_values_is_run_for_real() -> None:
    network = network_of(Values(), "Values", (3, 8, 8))
    assert [node.op.name for node in network.nodes] == ["Conv2d", "sum", "gt"]
    assert network.failure is None
    assert len(network.warnings) == 1
    assert "forward reads values (tests/models/nets.py, line" in network.warnings[0]


def test_a_forward_that_fails_is_known_up_to_there() -> None:
    network = trace(Misfit(), (3, 8, 8), "Misfit")
    assert [node.name for node in network.nodes] == ["a"]
    assert network.shapes["a"] == (1, 8, 6, 6)
    assert network.failure is not None
    assert network.failure.startswith(
        "b (Conv2d): 9 channels are expected, the input has 8: 8x6x6 (tests/models/nets.py, line"
    )
    assert network.failure.endswith(": return self.b(x))")


def test_a_misfit_of_two_tensors_names_both() -> None:
    network = trace(Function(lambda x: x + x[..., 1:]), (3, 8, 8), "x")
    assert network.failure is not None
    assert network.failure.startswith("forward (Function): add: the shapes 1x3x8x8 and 1x3x8x7 do not go together")


def test_an_input_size_is_found() -> None:
    assert network_of(Digits(), "Digits").input_shape == (1, 1, 28, 28)
    assert network_of(nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10)), "m").input_shape == (1, 3, 32, 32)
    assert network_of(nn.Linear(10, 3), "m").input_shape == (1, 10)
    none = network_of(Misfit(), "Misfit")
    assert none.input_shape == (1, 3, 224, 224)
    assert none.warnings[-1].startswith(
        "it fails in the same way at every input size that was tried (3x224x224, 3x32x32"
    )


def test_another_input_size_is_not_advised_where_none_can_help() -> None:
    """Of each model the layer that fails gets the same number of channels or features at every size."""
    pooled = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    for last in (nn.Sequential(pooled, nn.Linear(25, 2)), nn.Sequential(pooled[0], nn.Conv2d(9, 9, 3))):
        network = network_of(last, "m")
        assert network.warnings[-1].startswith("it fails in the same way at every input size that was tried")
        said = (*network.warnings, failure_remedy(network.failure or ""))
        assert not any("gives another" in text for text in said)
    by_size = network_of(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(25, 2)), "m")
    assert by_size.warnings[-1].endswith("input_size gives another")


def test_a_call_that_raises_in_a_forward_that_goes_on() -> None:
    class Tries(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            try:
                x = self.conv(torch.cat([x, x], 1))
            except RuntimeError:
                x = self.conv(x)
            return x * 2

    network = trace(Tries(), (3, 8, 8), "Tries")
    assert network.failure is None
    assert inputs(network) == {"cat": (INPUT, INPUT), "conv": (INPUT,), "mul": ("conv",)}


def test_a_model_in_half_precision_gets_an_input_in_half_precision() -> None:
    assert trace(nn.Conv2d(3, 4, 3).half(), (3, 8, 8), "half").failure is None


def test_wrappers_are_taken_off_and_torchscript_is_one_row() -> None:
    conv = nn.Sequential(nn.Conv2d(3, 4, 3))
    bare = network_of(conv, "m", (3, 8, 8))
    assert network_of(nn.DataParallel(conv), "m", (3, 8, 8)) == bare
    assert network_of(torch.compile(conv), "m", (3, 8, 8)) == bare
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is on its way out
        scripted = torch.jit.script(conv)
    network = network_of(scripted, "m", (3, 8, 8))
    assert [(node.name, node.op.macs(((1, 3, 8, 8),), (1, 4, 6, 6))) for node in network.nodes] == [
        ("sequential", 36 * 4 * 27)
    ]
    assert network.warnings == ("the model is compiled by TorchScript: its layers are one row",)
    (node,) = trace(nn.Sequential(scripted), (3, 8, 8), "m").nodes
    assert node.op.macs(((1, 3, 8, 8),), (1, 4, 6, 6)) == 36 * 4 * 27
    assert [p.name for p in node.parameters] == ["0.0.weight", "0.0.bias"]


def _never_compiled(graph: object, inputs: object) -> Callable[..., object]:
    raise AssertionError("compiled")


def test_compiled_parts_are_looked_through_and_not_compiled() -> None:
    class Parts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.compile(nn.Sequential(nn.Conv2d(3, 4, 3)), backend=_never_compiled)
            self.norm = nn.BatchNorm2d(4)
            self.norm.compile(backend=_never_compiled)
            self.relu = torch.compile(F.relu, backend=_never_compiled)

        def forward(self, x: Tensor) -> Tensor:
            return self.relu(self.norm(self.conv(x)))

    network = trace(Parts(), (3, 8, 8), "parts")
    assert [node.op.name for node in network.nodes] == ["Conv2d", "BatchNorm2d", "ReLU"]
    assert network.nodes[0].op.macs(((1, 3, 8, 8),), (1, 4, 6, 6)) == 36 * 4 * 27


@pytest.mark.slow
def test_an_exported_program_is_taken_with_its_functions() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2)).eval()
    batch = torch.export.Dim("batch")
    exported = torch.export.export(net, (torch.zeros(2, 3, 8, 8),), dynamic_shapes=({0: batch},)).module()
    network = trace(exported, (3, 8, 8), "exported")
    assert [node.op.name for node in network.nodes] == ["Conv2d", "ReLU", "Flatten", "Linear"]
    assert sum(cost.macs or 0 for cost in costs(network).values()) == 36 * 4 * 27 + 144 * 2


def test_a_model_of_real_and_complex_layers_gets_a_real_input() -> None:
    class RealAndComplex(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.second = nn.Linear(3, 2, dtype=torch.complex64)
            self.first = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.second(self.first(x).to(torch.complex64)).abs()

    assert trace(RealAndComplex(), (4,), "mixed").failure is None
    assert trace(nn.Linear(4, 3, dtype=torch.complex64), (4,), "complex").failure is None


def test_an_orthogonal_layer_built_without_data_runs() -> None:
    layer = without_data(lambda: nn.utils.parametrizations.orthogonal(nn.Linear(320, 50)))
    network = trace(layer, (320,), "orthogonal")
    assert network.failure is None
    assert total_macs(costs(network)) == 320 * 320 * 50 + 320 * 50


def test_an_unknown_operation_gives_one_warning() -> None:
    with torch.library._scoped_library("vggscope_test", "FRAGMENT") as library:
        library.define("twice(Tensor x) -> Tensor")
        library.impl("twice", lambda x: x * 2, "Meta")
        unknown = torch.ops.vggscope_test.twice

        class Calls(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.layer = nn.Linear(4, 4)

            def forward(self, x: Tensor) -> Tensor:
                for _ in range(20):
                    x = unknown(self.layer(x))
                return x

        network = trace(Calls(), (4,), "calls")
    (warning,) = network.warnings
    assert "twice" in warning
    assert "19 more calls" in warning
    assert total_macs(costs(network)) is None


def test_the_random_states_of_python_and_numpy_are_restored() -> None:
    class Draws(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * random.random() * float(numpy.random.rand())

    before = random.getstate(), str(numpy.random.get_state())
    trace(Draws(), (4,), "draws")
    assert (random.getstate(), str(numpy.random.get_state())) == before


def test_samples_that_differ_in_cost_fix_the_batch() -> None:
    class Packs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.GRU(4, 6, batch_first=True)

        def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
            packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
            return self.rnn(packed)[1]

    inputs = CallInputs((torch.zeros(3, 5, 4), torch.tensor([2, 5, 3])))
    network = network_of(Packs(), "packs", inputs)
    assert network.single == "the samples of the batch differ in their shapes or costs"
    assert total_macs(costs(network)) == (2 + 5 + 3) * 3 * 6 * (4 + 6)


SIDE = 8

FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "same padding": lambda x: F.conv2d(x, torch.ones(4, 2, 4, 2), padding="same", groups=4),
    "dilated": lambda x: F.conv2d(x, torch.ones(6, 8, 3, 3), stride=2, padding=2, dilation=2),
    "transposed": lambda x: F.conv_transpose2d(x, torch.ones(8, 3, 3, 3), stride=2, padding=1, output_padding=1),
    "sequence": lambda x: F.conv1d(x.flatten(2), torch.ones(5, 8, 3), padding=1),
    "linear": lambda x: F.linear(x.mean((2, 3)), torch.ones(5, 8)),
    "max pool": lambda x: F.max_pool2d(x, 3, 2, 1, ceil_mode=True),
    "average pool": lambda x: F.avg_pool2d(x, (3, 2), ceil_mode=True),
    "adaptive pool": lambda x: F.adaptive_avg_pool2d(x, (3, None)),
    "uneven pad": lambda x: F.pad(x, (0, 1, 2, 0, 1, 1)),
    "interpolate": lambda x: F.interpolate(x, scale_factor=1.5),
    "shuffle": lambda x: F.pixel_shuffle(x, 2),
    "attention": lambda x: F.scaled_dot_product_attention(x, x[..., :5, :], x[..., :5, :]),
    "matmul": lambda x: x.transpose(-2, -1) @ x,
    "matrix by batch": lambda x: torch.matmul(x.mean(1), x.flatten(2).mT[:, :8]),
    "bmm": lambda x: torch.bmm(x[:, 0], x[:, 1]),
    "einsum": lambda x: torch.einsum("bchw,bcvw->bchv", x, x),
    "einsum without a product": lambda x: torch.einsum("bchw,bchw->bchw", x, x),
    "addmm": lambda x: torch.addmm(x[0, 0], x[0, 1], x[0, 2]),
    "weights alone": lambda x: x + torch.ones(SIDE, 3) @ torch.ones(3, 1),
    "normalise": lambda x: F.group_norm(F.layer_norm(x, x.shape[1:]), 4),
    "glu": lambda x: F.glu(x, 1),
    "arithmetic": lambda x: 1 / (2 - x * x.sigmoid().mean(1, keepdim=True)).clamp(min=0.5) ** 2,
    "in place": lambda x: F.relu(x.clone().mul_(2).add_(1), inplace=True),
    "views": lambda x: x.unsqueeze(1).expand(-1, 3, -1, -1, -1).reshape(-1, 8, x.shape[-1]).movedim(0, 2).squeeze(),
    "slices": lambda x: x[:, ::2, 1:-1, None, ..., -3:],
    "split": lambda x: torch.cat([*x.split(3, 1)[::2], x.unbind(1)[2][:, None]], 1),
    "stack": lambda x: torch.stack(x.chunk(3, dim=-1)[:2], dim=-1),
    "reduction": lambda x: x.sum(-1).amax((1, 2), keepdim=True) + x.norm(),
    "softmax": lambda x: F.log_softmax(x, 1).softmax(-1).roll(1, 2),
    "masked": lambda x: torch.where(x > 0, x, 0).masked_fill(x < 1, 2.0),
    "gather": lambda x: x.topk(3, dim=1)[1].sort().values,
    "set": lambda x: x.clone().index_fill_(1, torch.tensor([0]), 0.0),
}


EVEN = "ignore:Using padding='same' with even kernel lengths"
"""torch's remark on what the first function does."""


def _is_on_the_batch(note: str) -> bool:
    """Whether a note says that what a function returns has no batch axis."""
    return note.startswith("the batch is not in the output")


@pytest.mark.filterwarnings(EVEN)
@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_a_function_gives_torchs_shape_and_macs(function: Callable[[Tensor], Tensor]) -> None:
    module = Function(function)
    network = trace(module, (8, SIDE, SIDE), "f")
    assert network.failure is None
    assert all(map(_is_on_the_batch, network.warnings))
    with torch.no_grad(), torch.device("meta"), FlopCounterMode(display=False) as counter:
        result = module(torch.empty(1, 8, SIDE, SIDE))
    assert network.shapes[network.nodes[-1].name] == tuple(result.shape)
    assert total_macs(costs(network)) == counter.get_total_flops() // 2


RULED = [
    "same padding",
    "dilated",
    "transposed",
    "sequence",
    "max pool",
    "average pool",
    "adaptive pool",
    "interpolate",
]
RULED += ["uneven pad", "shuffle", "matmul", "einsum", "arithmetic", "slices", "split", "stack", "reduction", "softmax"]


@pytest.mark.filterwarnings(EVEN)
@pytest.mark.parametrize("function", RULED)
def test_a_rule_holds_at_other_sizes(function: str) -> None:
    traced = trace(Function(FUNCTIONS[function]), (8, SIDE, SIDE), "f")
    for height, width in ((9, 13), (12, 7)):
        anew = trace(Function(FUNCTIONS[function]), (8, height, width), "f")
        assert traced.with_input((8, height, width)).shapes == anew.shapes


LAYERS: list[tuple[nn.Module, tuple[int, ...]]] = [
    (nn.Conv3d(4, 6, 3, stride=2, groups=2), (4, 9, 9, 9)),
    (nn.Conv2d(4, 6, (4, 2), padding="same", bias=False), (4, 9, 9)),
    (nn.ConvTranspose1d(4, 6, 3, stride=2, groups=2), (4, 9)),
    (nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"), (4, 9, 9)),
    (nn.utils.parametrizations.weight_norm(nn.Linear(4, 6)), (9, 4)),
    (nn.MultiheadAttention(8, 2, batch_first=True, add_bias_kv=True), (5, 8)),
    (nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), (5, 8)),
    (nn.LSTM(4, 6, 2, bidirectional=True, batch_first=True), (5, 4)),
    (nn.GRU(4, 6, batch_first=True), (5, 4)),
    (nn.BatchNorm1d(4), (4,)),
    (nn.BatchNorm3d(4), (4, 3, 3, 3)),
    (nn.InstanceNorm2d(4, affine=True), (4, 9, 9)),
    (nn.PReLU(4), (4, 9, 9)),
    (nn.Softplus(), (4, 9, 9)),
    (nn.ZeroPad2d(2), (4, 9, 9)),
    (nn.Upsample(scale_factor=2, mode="bilinear"), (4, 9, 9)),
    (nn.Unflatten(1, (2, 2)), (4, 9)),
    (nn.RMSNorm(4), (9, 4)),
    (nn.LPPool1d(2, 3, 2, ceil_mode=True), (4, 12)),
    (nn.LPPool2d(3, (2, 3)), (4, 9, 9)),
    (nn.FractionalMaxPool2d((2, 3), output_ratio=(0.5, 0.7)), (4, 9, 9)),
    (nn.PixelUnshuffle(3), (4, 9, 9)),
    (nn.ConvTranspose3d(4, 6, 3, (1, 2, 2), output_padding=(0, 1, 0)), (4, 3, 5, 6)),
    (nn.MaxPool1d(3, 2, 1, ceil_mode=True), (4, 14)),
    (nn.MaxPool1d(2, dilation=3), (4, 14)),
    (nn.MaxPool3d((1, 2, 3), (1, 2, 2), (0, 1, 1)), (4, 5, 9, 10)),
    (nn.AvgPool1d(4, 3, 1), (4, 14)),
    (nn.AvgPool3d(2, ceil_mode=True), (4, 5, 9, 10)),
    (nn.AdaptiveAvgPool1d(5), (4, 14)),
    (nn.AdaptiveAvgPool3d((None, 4, 1)), (4, 5, 9, 10)),
    (nn.AdaptiveMaxPool1d(5), (4, 14)),
    (nn.AdaptiveMaxPool3d(3), (4, 5, 9, 10)),
    (nn.Upsample(scale_factor=3), (4, 14)),
    (nn.Upsample((7, 9, 12), mode="trilinear"), (4, 5, 9, 10)),
]


class SelfAttention(nn.Module):
    def __init__(self, attention: nn.MultiheadAttention) -> None:
        super().__init__()
        self.attention = attention

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x)[0]


@pytest.mark.filterwarnings(EVEN)
@pytest.mark.parametrize(("layer", "shape"), LAYERS, ids=lambda value: type(value).__name__)
def test_a_layer_gives_torchs_shape_macs_and_parameters(layer: nn.Module, shape: tuple[int, ...]) -> None:
    module = SelfAttention(layer) if isinstance(layer, nn.MultiheadAttention) else layer
    network = trace(module, shape, "layer")
    assert network.failure is None
    assert network.warnings == ()
    assert network.unused == ()
    bare = module.to("meta").eval()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            result = bare(torch.empty(1, *shape, device="meta"))
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    result = result[0] if isinstance(result, tuple) else result
    assert network.shapes[network.nodes[-1].name] == tuple(result.shape)
    assert total_macs(costs(network)) == counter.get_total_flops() // 2
    assert sum(numel(p.shape) for p in network.parameters()) == sum(p.numel() for p in module.parameters())


@pytest.mark.filterwarnings(EVEN)
def test_a_layers_op_names_its_own_parameters() -> None:
    for layer, shape in LAYERS:
        node = next((n for n in trace(layer, shape, "x").nodes if n.module is not None), None)
        if node is not None and not hasattr(layer, "parametrizations") and len(list(layer.children())) == 0:
            named = {name: tuple(p.shape) for name, p in layer.named_parameters()}
            assert node.op.parameters() == named, type(layer).__name__


def test_constants_pass_every_question_on() -> None:
    asked = {
        name
        for name, value in vars(Op).items()
        if not name.startswith("_") and (callable(value) or isinstance(value, property))
    }
    for wrapper in (WithConstants, WithComputedWeights, WithMasks):
        assert asked <= set(vars(wrapper))


def test_an_op_is_taken_out_of_all_its_wrappers() -> None:
    masked = WithConstants(WithMasks(MultiheadAttention(8, 2), 1), (None, (1, 5, 8), (1, 5, 8), None))
    op, shapes = masked.unwrapped(((1, 3, 8), (1, 5)))
    assert op is masked.without_constants
    assert op == MultiheadAttention(8, 2)
    assert shapes == ((1, 3, 8), (1, 5, 8), (1, 5, 8))


@pytest.mark.filterwarnings(EVEN)
@pytest.mark.parametrize("kind", ["Max", "Avg", "AdaptiveMax", "AdaptiveAvg"])
@pytest.mark.parametrize("sides", [1, 3])
def test_pools_of_sequences_and_volumes_have_rules(kind: str, sides: int) -> None:
    pool = getattr(nn, f"{kind}Pool{sides}d")(2)
    function = getattr(F, f"{kind.replace('Ada', 'ada').lower().replace('adaptive', 'adaptive_')}_pool{sides}d")
    written, plain = (trace(part, (4, *(9,) * sides), "pool") for part in (pool, Function(lambda x: function(x, 2))))
    assert [node.op.name for node in (*written.nodes, *plain.nodes)] == [f"{kind}Pool{sides}d"] * 2
    assert written.nodes[0].op == plain.nodes[0].op
    assert written.with_input((4, *(7,) * sides)).shapes == trace(pool, (4, *(7,) * sides), "pool").shapes


KEPT: dict[str, Callable[[Tensor], Tensor]] = {
    **{kind.__name__: kind() for kind in (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.SiLU, nn.Mish)},
    **{kind.__name__: kind() for kind in (nn.Hardswish, nn.Hardsigmoid, nn.GELU, nn.Softplus, nn.Sigmoid, nn.Tanh)},
    "ReLU in place": nn.ReLU(inplace=True),
    "SiLU in place": nn.SiLU(inplace=True),
    "ReLU6 in place": nn.ReLU6(inplace=True),
    "Conv2d": nn.Conv2d(8, 4, 3),
    "Linear": nn.Linear(6, 4),
    "LayerNorm": nn.LayerNorm(6),
    "GroupNorm": nn.GroupNorm(2, 8),
    "MaxPool2d": nn.MaxPool2d(2),
    "AdaptiveAvgPool2d": nn.AdaptiveAvgPool2d(2),
    "the mean": nn.AdaptiveAvgPool2d(1),
    **{f"{kind}Pool1d": getattr(nn, f"{kind}Pool1d")(2) for kind in ("Max", "Avg", "AdaptiveMax", "AdaptiveAvg")},
    "MaxPool3d": nn.MaxPool3d(2),
    "AvgPool3d": nn.AvgPool3d(2, 1),
    "AdaptiveAvgPool3d": nn.AdaptiveAvgPool3d((3, 2, 2)),
    "the mean of a volume": nn.AdaptiveAvgPool3d(1),
    "AdaptiveMaxPool3d": nn.AdaptiveMaxPool3d(2),
    "LPPool2d": nn.LPPool2d(3, 2),
    "LPPool2d, rounded up": nn.LPPool2d(2, (2, 3), 2, ceil_mode=True),
    "FractionalMaxPool2d": nn.FractionalMaxPool2d(2, output_size=3),
    "PixelUnshuffle": nn.PixelUnshuffle(2),
    "add": lambda x: x + x,
    "scale": lambda x: x * 2,
    "mul": lambda x: x * x,
    "div": lambda x: 1 / x,
    "exp": torch.exp,
    "power": lambda x: x**2,
    "concatenation": lambda x: torch.cat([x, x], 1),
    "sum": lambda x: x.sum(1),
    "largest": lambda x: x.amax(1),
    "matmul": lambda x: x @ x,
    "pad": lambda x: F.pad(x, (1, 1)),
    "permute": lambda x: x.permute(0, 2, 3, 1),
    "upsample": lambda x: F.interpolate(x, scale_factor=2),
}


@pytest.mark.parametrize("name", KEPT)
def test_an_op_keeps_what_autograd_keeps(name: str) -> None:
    function = KEPT[name]
    shape = (8, 6) if name.endswith("1d") else (8, 6, 6)
    module = function if isinstance(function, nn.Module) else Function(function)
    kept: dict[int, int] = {}
    weights = {p.untyped_storage()._cdata for p in module.parameters()}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage.nbytes()
        return tensor

    given = torch.rand(1, *shape, requires_grad=True) + torch.zeros(1)  # a sum keeps nothing, and may be overwritten
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = module(given)
    network = trace(module, shape, "kept")
    (node,) = network.nodes
    ours = node.op.saved_for_backward(network.input_shapes(node), network.output_shape(node))
    overwritten = result.untyped_storage()._cdata == given.untyped_storage()._cdata
    extra = sum(numel(shape) * (width or 4) for shape, width in ours.extra) + sum(4 * math.prod(s) for s in ours.copies)
    assert (given.untyped_storage()._cdata in kept) == (bool(ours.inputs) or (ours.output and overwritten))
    assert (result.untyped_storage()._cdata in kept) == (ours.output or (bool(ours.inputs) and not node.op.allocates))
    named = {given.untyped_storage()._cdata, result.untyped_storage()._cdata}
    assert sum(size for storage, size in kept.items() if storage not in named) == extra


class Wired(nn.Module):
    """Modules that a function of them and of the input puts together."""

    def __init__(self, wire: Callable[..., object], *modules: nn.Module) -> None:
        super().__init__()
        self.parts, self.wire = nn.ModuleList(modules), wire

    def forward(self, x: Tensor) -> object:
        return self.wire(x, *self.parts)


class Cut(nn.Module):
    """A module whose result is one piece, or all, of what it cuts."""

    def __init__(self, position: int | None = None) -> None:
        super().__init__()
        self.position = position

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        pieces = x.chunk(2, 1)
        return pieces if self.position is None else pieces[self.position]


def _sequence_first(x: Tensor, attention: nn.Module) -> Tensor:
    x = x.transpose(0, 1)
    return attention(x, x, x)[0]


PIECES: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "one piece": (Wired(lambda x: x.chunk(2, 1)[1]), (4, 6, 6)),
    "all pieces": (Wired(lambda x: x.chunk(2, 1)), (4, 6, 6)),
    "a module's piece at the end": (Wired(lambda x, a, b: b(a(x)), nn.Conv2d(4, 4, 1), Cut(0)), (4, 6, 6)),
    "a module's piece, read": (Wired(lambda x, a, b: b(a(x)), Cut(1), nn.Conv2d(2, 3, 1)), (4, 6, 6)),
    "a module's pieces, one read": (Wired(lambda x, a, b: b(a(x)[1]), Cut(), nn.Conv2d(2, 3, 1)), (4, 6, 6)),
    "split": (Wired(lambda x, a: torch.split(a(x), [1, 3], 1)[1], nn.Conv2d(4, 4, 1)), (4, 6, 6)),
    "tensor_split": (Wired(lambda x, a: a(x).tensor_split(2, 1)[1], nn.Conv2d(4, 4, 1)), (4, 6, 6)),
    "unbind": (Wired(lambda x, a: a(x).unbind(1)[2], nn.Conv2d(4, 4, 1)), (4, 6, 6)),
    "topk": (Wired(lambda x, a: a(x).topk(2)[1], nn.Linear(4, 5)), (4,)),
    "an LSTM's states": (Wired(lambda x, a: a(x)[1][0], nn.LSTM(4, 6, batch_first=True)), (5, 4)),
    "an LSTM's last state, read": (Wired(lambda x, a, b: b(a(x)[1][1][-1]), nn.LSTM(4, 6), nn.Linear(6, 2)), (5, 4)),
    "detach": (Wired(lambda x, a, b: b(a(x).detach()), nn.Linear(8, 4), nn.Linear(4, 3)), (8,)),
    "data": (Wired(lambda x, a, b: b(F.relu(a(x).data)), nn.Linear(8, 4), nn.Linear(4, 3)), (8,)),
    "attention, sequence first": (Wired(_sequence_first, nn.MultiheadAttention(8, 2)), (5, 8)),
    "attention's weights": (Wired(lambda x, a: a(x, x, x)[1], nn.MultiheadAttention(8, 2, batch_first=True)), (5, 8)),
    "a batch in one row": (Wired(lambda x, a: a(x.reshape(1, -1, 6, 6)), nn.AvgPool2d(2)), (4, 6, 6)),
    "a mean over the batch": (Wired(lambda x, a: a(x).mean(0), nn.Linear(4, 3)), (4,)),
    "behind a prefix": (Wired(lambda x: torch.cat([torch.zeros(3, 4, device=x.device), x])), (4,)),
    "each with each": (Wired(lambda x: x @ x.T), (4,)),
}


@pytest.mark.parametrize("name", PIECES)
@pytest.mark.parametrize("batch", [1, 4])
def test_the_result_is_torchs_for_every_batch(name: str, batch: int) -> None:
    module, shape = PIECES[name]
    network = trace(module, shape, "net")
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            result = module.to("meta")(torch.empty(batch, *shape, device="meta"))
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    first = result if isinstance(result, Tensor) else result[0]
    report = summarize(network, batch)
    assert all(map(_is_on_the_batch, network.warnings))
    assert len(network.warnings) == (name in ("an LSTM's last state, read", "a mean over the batch"))
    assert all(node.inputs for node in network.nodes)
    last = next(layer for layer in reversed(report.layers) if name != "all pieces" or layer.op == "chunk")
    assert last.output_shape == tuple(first.shape)
    assert report.totals.params == sum(p.numel() for p in module.parameters())
    quadratic = name == "each with each" and batch > 1
    assert report.totals.macs == (None if quadratic else counter.get_total_flops() // 2)


def test_a_forward_for_one_sample_is_refused_for_more() -> None:
    network = trace(Wired(lambda x, a: a(x.view(1, -1)), nn.Linear(4, 3)), (4,), "net")
    assert summarize(network).layers[-1].output_shape == (1, 3)
    with pytest.raises(ShapeError) as raised:
        summarize(network, 2)
    assert raised.value.problem.startswith(
        "net is known for the batch of its inputs alone: forward fails on two samples: "
        "parts.0 (Linear): 4 features are expected"
    )
    assert raised.value.remedy == "leave out batch"


def test_a_forward_that_branches_on_the_batch_gives_the_reason() -> None:
    network = trace(Wired(lambda x, a: a(x) if len(x) == 1 else x.exp(), nn.Linear(4, 3)), (4,), "net")
    assert network.single == "forward takes another way for two samples, from parts.0 on"


QUICK = {
    "batch_norm": (F.batch_norm, (torch.zeros(8), torch.ones(8)), {"training": False}),
    "layer_norm": (F.layer_norm, ((8, 8), torch.ones(8, 8)), {}),
    "layer_norm without weights": (F.layer_norm, ((8,),), {}),
    "linear": (F.linear, (torch.ones(5, 8), torch.ones(5)), {}),
    "linear without bias": (F.linear, (torch.ones(5, 8),), {}),
    "relu": (F.relu, (), {}),
    "gelu": (F.gelu, (), {"approximate": "tanh"}),
    "silu": (F.silu, (), {}),
    "hardswish": (F.hardswish, (), {}),
    "hardsigmoid": (F.hardsigmoid, (), {}),
    "sigmoid": (torch.sigmoid, (), {}),
    "neg": (torch.neg, (), {}),
    "exp": (torch.exp, (), {}),
    "clamp": (torch.clamp, (), {"min": -1, "max": 2.5}),
    "clamp from below": (Tensor.clamp, (0.0,), {}),
    "add a number": (torch.add, (2,), {}),
    "multiply by a number": (Tensor.mul, (2.5,), {}),
}

MEANS = {
    "average of the map": (F.adaptive_avg_pool2d, (1,), {}),
    "averages of parts": (F.adaptive_avg_pool2d, ((3, None),), {}),
    "mean of the map": (torch.mean, ((2, 3),), {}),
    "mean that keeps its axes": (Tensor.mean, ([-1, -2],), {"keepdim": True}),
    "mean of an axis": (torch.mean, (1,), {}),
}


@pytest.mark.parametrize("name", MEANS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("shape", [(2, 8, 6, 5), (1, 1, 1, 1)])
def test_a_mean_that_is_said_quickly_is_torchs(name: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    function, others, kwargs = MEANS[name]
    values = torch.empty(shape, dtype=dtype, device="meta")
    found, truth = shortcut_result(function, (values, *others), kwargs), function(values, *others, **kwargs)
    assert found is not None
    assert (found.shape, found.stride(), found.dtype) == (truth.shape, truth.stride(), truth.dtype)


def test_a_linear_function_may_take_its_bias_first() -> None:
    module = Wired(lambda x: F.linear(x, bias=torch.ones(5), weight=torch.ones(5, 8)))
    count = trace(module, (8,), "linear").torch_count
    assert count is not None
    assert count.macs == 5 * 8


@pytest.mark.parametrize("last_axes", [1, 2])
@pytest.mark.parametrize("order", list(permutations(range(4))))
@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (1, 3, 4, 5), (2, 1, 4, 5), (2, 3, 1, 5), (1, 1, 4, 5), (2, 3, 4, 1)])
def test_a_factor_is_copied_where_torch_folds_it_into_new_memory(
    shape: tuple[int, ...], order: tuple[int, ...], last_axes: int
) -> None:
    whole = torch.empty(shape, device="meta").permute(order)
    for factor in (whole, whole[..., ::2], whole[:, :1], whole[1:], whole.expand_as(whole)):
        if factor.numel():
            folded = factor.reshape(-1, *factor.shape[-last_axes:])
            assert is_copied(factor, last_axes) != shares_memory(factor, folded)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("window", [((1, 1), (0, 0), (1, 1)), ((2, 1), (3, 1), (1, 2)), ((2, 2), (1, 1), (1, 1))])
@pytest.mark.parametrize("kernel", [(3, 3), (1, 1), (2, 5)])
@pytest.mark.parametrize("shape", [(2, 4, 9, 8), (1, 4, 1, 1), (1, 2, 7, 1), (3, 2, 6, 6)])
def test_a_convolution_that_is_said_quickly_is_torchs(
    shape: tuple[int, ...], kernel: tuple[int, ...], window: tuple[tuple[int, ...], ...], groups: int
) -> None:
    values, weight = torch.empty(shape, device="meta"), torch.empty((6, shape[1] // groups, *kernel), device="meta")
    args = (values, weight, torch.empty(6, device="meta"), *window, groups)
    found = shortcut_result(F.conv2d, args, {})
    try:
        truth = F.conv2d(*args)
    except RuntimeError:
        truth = None
    if truth is None or not truth.numel():  # torch 2.9 gives nothing where later versions refuse the kernel
        assert found is None
    else:
        assert found is not None
        assert (found.shape, found.stride(), found.dtype) == (truth.shape, truth.stride(), truth.dtype)


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda values: values,
    "permuted": lambda values: values.transpose(1, -1),
    "every other": lambda values: values[..., ::2],
    "expanded": lambda values: values[:, :1].expand_as(values),
}


@pytest.mark.parametrize("name", QUICK)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("shape", [(2, 8, 8), (2, 8, 8, 8), (0, 8, 8)])
def test_what_is_said_quickly_is_what_torch_gives(name: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    function, others, kwargs = QUICK[name]
    with torch.device("meta"):
        values = torch.empty(shape, dtype=dtype)
    others = tuple(other.to("meta", dtype) if isinstance(other, Tensor) else other for other in others)
    found, truth = shortcut_result(function, (values, *others), kwargs), function(values, *others, **kwargs)
    assert found is not None
    assert (found.shape, found.stride(), found.dtype) == (truth.shape, truth.stride(), truth.dtype)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", [name for name in QUICK if not name.startswith("linear")])
def test_results_have_torchs_layout(name: str, layout: str) -> None:
    function, others, kwargs = QUICK[name]
    values = LAYOUTS[layout](torch.empty(8, 8, 8, 16 if layout == "every other" else 8, device="meta"))
    others = tuple(other.to("meta") if isinstance(other, Tensor) else other for other in others)
    found, truth = shortcut_result(function, (values, *others), kwargs), function(values, *others, **kwargs)
    assert found is not None
    assert (found.shape, found.stride(), found.dtype) == (truth.shape, truth.stride(), truth.dtype)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_sums_of_like_tensors_have_torchs_layout(layout: str) -> None:
    one, other = (LAYOUTS[layout](torch.empty(2, 4, 6, 8, device="meta")) for _ in range(2))
    for function in (torch.add, torch.sub, torch.mul):
        found, truth = shortcut_result(function, (one, other), {}), function(one, other)
        assert found is not None
        assert (found.shape, found.stride(), found.dtype) == (truth.shape, truth.stride(), truth.dtype)


@pytest.mark.parametrize(
    ("function", "values", "others", "kwargs"),
    [
        (F.batch_norm, torch.zeros(2, 8, 4, 4), (torch.zeros(7), torch.ones(7)), {"training": False}),
        (F.batch_norm, torch.zeros(2, 8, 4, 4), (torch.zeros(8), torch.ones(8)), {"training": True}),
        (F.batch_norm, torch.zeros(2, 8, 4, 4), (None, None), {"training": False}),
        (F.layer_norm, torch.zeros(2, 8), ((7,),), {}),
        (F.linear, torch.zeros(2, 8), (torch.zeros(5, 7),), {}),
        (F.linear, torch.zeros(2, 8), (torch.zeros(5, 8).double(),), {}),
        (F.conv2d, torch.zeros(1, 3, 8, 8), (torch.zeros(5, 3, 3, 3),), {}),
        (F.conv2d, torch.zeros(1, 3, 8, 8), (torch.zeros(5, 4, 3, 3), None, *((1, 1),) * 3), {}),
        (F.conv2d, torch.zeros(1, 3, 8, 8).double(), (torch.zeros(5, 3, 3, 3), None, *((1, 1),) * 3), {}),
        (F.conv2d, torch.zeros(1, 3, 8, 8), (torch.zeros(5, 3, 9, 9), None, (1, 1), (0, 0), (1, 1)), {}),
        (F.conv2d, torch.zeros(1, 3, 8, 8), (torch.zeros(5, 3, 3, 3), torch.zeros(4), *((1, 1),) * 3), {}),
        (
            F.conv2d,
            torch.zeros(1, 3, 8, 8).to(memory_format=torch.channels_last),
            (torch.zeros(5, 3, 3, 3), None, *((1, 1),) * 3),
            {},
        ),
        (F.relu, torch.zeros(2, 8), (), {"inplace": True}),
        (F.silu, torch.zeros(2, 8), (), {"inplace": True}),
        (F.linear, torch.zeros(8, 2).t(), (torch.zeros(5, 8),), {}),
        (torch.add, torch.zeros(2, 8), (torch.zeros(8),), {}),
        (torch.add, torch.zeros(2, 8), (torch.zeros(2, 8).double(),), {}),
        (torch.add, torch.zeros(2, 8).int(), (0.5,), {}),
        (torch.mul, torch.zeros(2, 8), (1j,), {}),
        (torch.mul, torch.zeros(2, 8), (2,), {"out": torch.zeros(2, 8)}),
        (torch.clamp, torch.zeros(2, 8), (), {}),
        (torch.clamp, torch.zeros(2, 8), (torch.zeros(8),), {}),
        (F.softmax, torch.zeros(2, 8), (), {"dim": 1}),
        (F.adaptive_avg_pool2d, torch.zeros(2, 3, 4, 5).transpose(2, 3), (1,), {}),
        (F.adaptive_avg_pool2d, torch.zeros(3, 4, 5), (1,), {}),
        (torch.mean, torch.zeros(2, 8), (), {}),
        (torch.mean, torch.zeros(2, 8), (2,), {}),
        (torch.mean, torch.zeros(2, 8), ((0, -2),), {}),
        (torch.mean, torch.zeros(2, 8), (1,), {"dtype": torch.float64}),
        (torch.mean, torch.zeros(2, 8).int(), (1,), {}),
    ],
)
def test_what_is_not_plain_is_left_to_torch(function, values, others, kwargs) -> None:
    assert shortcut_result(function, (values, *others), kwargs) is None


RECURRENT_LAYERS: dict[str, Callable[..., nn.Module]] = {
    "LSTM": nn.LSTM,
    "LSTM with projections": partial(nn.LSTM, proj_size=3),
    "GRU": nn.GRU,
    "RNN": nn.RNN,
    "RNN of ReLU": partial(nn.RNN, nonlinearity="relu"),
}


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("name", RECURRENT_LAYERS)
def test_two_steps_of_a_sequence_tell_what_torch_gives_for_all(
    name: str, bidirectional: bool, batch_first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = RECURRENT_LAYERS[name]
    layer = make(4, 5, num_layers=2, bias=not bidirectional, bidirectional=bidirectional, batch_first=batch_first)
    layer, macs = layer.to("meta").eval(), OperatorMacs()
    calls: list[object] = []

    def compared(function: Callable[..., object]) -> Callable[..., object]:
        def call(*args: Any) -> object:
            truth, counted = with_macs(lambda: function(*args))
            assert isinstance(truth, tuple)
            calls.append(None)
            found = result_of_steps(function, args, macs)
            assert found is not None
            assert macs.total == counted
            assert len(found) == len(truth)
            for ours, torchs in zip(found, truth):
                assert (ours.shape, ours.stride(), ours.dtype) == (torchs.shape, torchs.stride(), torchs.dtype)
            return truth

        call.__name__ = function.__name__
        return call

    for function in RECURRENT:
        monkeypatch.setattr(torch._VF, function, compared(getattr(torch, function)))
    layer(torch.empty(7, 7, 4, device="meta"))
    assert calls


def test_a_recurrent_layer_that_fails_raises_torchs_error() -> None:
    """Of sequences that are packed or short, and of wrong sizes, torch decides."""
    weights = [torch.empty(shape, device="meta") for shape in [(20, 4), (20, 5), (20,), (20,)]]
    states = (torch.empty(1, 2, 5, device="meta"),) * 2

    def result(*shape: int) -> object:
        args = (torch.empty(shape, device="meta"), states, weights, True, 1, 0.0, False, False, False)
        return result_of_steps(torch.lstm, args, OperatorMacs())

    assert result(3, 2, 4) is not None
    assert result(2, 2, 4) is None
    assert result(3, 2, 9) is None


class CompilesInForward(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        @torch.compile(dynamic=False)
        def activated(y: torch.Tensor) -> torch.Tensor:
            return y.relu()

        return torch.compile(lambda y: self.conv(y).sigmoid())(x) * activated(x).sum()


def test_a_forward_that_compiles_is_run_as_plain_python() -> None:
    compiler = torch.compile
    network = trace(CompilesInForward(), (3, 8, 8), "net")
    assert [node.op.name for node in network.nodes] == ["Conv2d", "Sigmoid", "ReLU", "sum", "mul"]
    assert torch.compile is compiler


def test_a_lazy_convolution_takes_the_side_of_an_image() -> None:
    net = nn.Sequential(nn.LazyConv2d(16, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LazyLinear(10))
    network = network_of(net, "net", Inputs((InputSize((32,)),)))
    assert network.input_shape == (1, 3, 32, 32)


class CountsItsValues(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(int(x[0, 0, 0, 0].item()) + 1):
            x = self.conv(x)
        return x


@pytest.mark.parametrize(("value", "said"), [(0.0, "zeros"), (2.0, "the given values")])
def test_the_values_on_which_forward_was_run_are_named(value: float, said: str) -> None:
    network = network_of(CountsItsValues(), "net", Inputs(data=torch.full((1, 3, 8, 8), value)))
    assert [node.op.name for node in network.nodes].count("Conv2d") == value + 1
    assert any(f"it was run on {said}, with its weights" in text for text in network.warnings)


def test_a_torch_that_is_too_old_is_named_with_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__version__", type(torch.__version__)("2.4.1+cu121"))
    with pytest.raises(MissingTool, match=r"^torch 2\.4\.1\+cu121 is too old: vggscope needs 2\.9 or newer"):
        network_of(nn.Linear(2, 2), "net")
    assert f"torch>={OLDEST_TORCH},<3" in (Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8")


def test_parameters_have_the_order_of_the_module_as_well() -> None:
    """In which an optimizer steps: a layer may run before another one that was registered first."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.conv = nn.Linear(4, 2), nn.Conv2d(3, 4, 3)
            self.scale = nn.Parameter(torch.ones(4))

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.conv(x).mean((2, 3)) * self.scale)

    module = Model()
    network = trace(module, (3, 8, 8), "m")
    assert [p.name for p in network.registered_parameters()] == [name for name, _ in module.named_parameters()]
    assert [p.name for p in network.parameters()] == ["conv.weight", "conv.bias", "scale", "fc.weight", "fc.bias"]
    assert trace(nn.Sequential(nn.Linear(8, 4), nn.Linear(4, 2)), (8,), "m").registered == ()


def test_a_constructor_may_copy_itself_half_built() -> None:
    class Copied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(100, 100)
            self.register_buffer("table", torch.ones(10_000) * 2)
            self.twin = copy.deepcopy(self)

    with_copy = without_data(Copied)
    table, copied = (described_when_built()[tensor] for tensor in (with_copy.table, with_copy.twin.table))
    assert with_copy.twin.table is not with_copy.table
    assert isinstance(table, ConstantValue)
    assert table.text
    assert isinstance(copied, ConstantValue)
    assert copied.text.startswith("clone")


@pytest.mark.parametrize("function", ["to", "type_as"])
def test_a_dtype_that_is_taken_from_an_input_makes_no_node_of_a_constant(function: str) -> None:
    class Shifted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(6, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x) + getattr(torch.tensor(1), function)(x) * getattr(self.layer.bias, function)(x)

    network = network_of(Shifted(), "shifted", Inputs((InputSize((6,)),)))
    assert [(node.op.name, node.inputs) for node in network.nodes] == [("Linear", (INPUT,)), ("add", ("layer",))]
    assert network.warnings == ()
    assert [parameter.name for parameter in network.nodes[1].parameters] == ["layer.bias"]
