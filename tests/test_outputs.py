"""What forward returns: the outputs of a summary, and the totals where a cost is unknown."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

import vggscope
from vggscope.graph_json import from_json, to_json

Pair = namedtuple("Pair", "mean std")


@dataclass
class Result:
    logits: Tensor
    features: list[Tensor]
    loss: Tensor | None = None


class Returns(nn.Module):
    """A convolution, and what `make` makes of its output and the input."""

    def __init__(self, make: Callable[[Tensor, Tensor], object]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.make = make

    def forward(self, x: Tensor) -> object:
        return self.make(self.conv(x), x)


MAP, ROW = (2, 4, 6, 6), (2, 4)

OUTPUTS: dict[str, tuple[Callable[[Tensor, Tensor], object], list[tuple[str, tuple[int, ...], str]]]] = {
    "tensor": (lambda y, x: y, [("output", MAP, "float32")]),
    "tuple": (lambda y, x: (y, x), [("output[0]", MAP, "float32"), ("output[1]", (2, 3, 8, 8), "float32")]),
    "namedtuple": (
        lambda y, x: Pair(y.mean((2, 3)), y.std((2, 3))),
        [("mean", ROW, "float32"), ("std", ROW, "float32")],
    ),
    "dict": (lambda y, x: OrderedDict(out=y, aux={"a": y}), [("out", MAP, "float32"), ("aux.a", MAP, "float32")]),
    "dataclass": (
        lambda y, x: Result(y.flatten(1), [y, y.argmax(1)]),
        [("logits", (2, 144), "float32"), ("features[0]", MAP, "float32"), ("features[1]", (2, 6, 6), "int64")],
    ),
    "distribution": (
        lambda y, x: torch.distributions.Normal(y, y.exp(), validate_args=False),
        [("loc", MAP, "float32"), ("scale", MAP, "float32")],
    ),
    "batch on another axis": (lambda y, x: y.permute(1, 0, 2, 3), [("output", (4, 2, 6, 6), "float32")]),
    "batch twice": (lambda y, x: (y.flatten(1) @ y.flatten(1).T, y), [("output[0]", (2, 2), "float32")]),
}


@pytest.mark.parametrize("kind", OUTPUTS)
def test_each_returned_tensor_is_an_output(kind: str) -> None:
    make, expected = OUTPUTS[kind]
    report = vggscope.summary(Returns(make), input_size=(2, 3, 8, 8))
    outputs = [(tensor.name, tensor.shape, tensor.dtype) for tensor in report.outputs]
    assert outputs[: len(expected)] == expected
    returned = Returns(make)(torch.zeros(2, 3, 8, 8))
    if isinstance(returned, tuple):
        assert [tuple(tensor.shape) for tensor in returned] == [shape for _, shape, _ in outputs]


def test_the_outputs_of_a_column() -> None:
    report = vggscope.summary("D", batch=4)
    assert [(tensor.name, tensor.shape, tensor.dtype) for tensor in report.outputs] == [
        ("output", (4, 1000), "float32")
    ]


def test_several_outputs_are_listed_in_the_table() -> None:
    make, _ = OUTPUTS["dataclass"]
    table = str(vggscope.summary(Returns(make), input_size=(3, 8, 8)))
    assert "outputs      logits 144 and features[0] 4x6x6 and features[1] 6x6 int64" in table
    assert "outputs" not in str(vggscope.summary("A"))


def test_a_forward_that_fails_has_no_outputs() -> None:
    report = vggscope.summary(Returns(lambda y, x: y.view(-1, 7)), input_size=(3, 8, 8))
    assert report.outputs == ()
    assert report.memory.training_peak_bytes is None


def test_a_network_with_outputs_reads_back_from_json() -> None:
    network = vggscope.network(Returns(OUTPUTS["dataclass"][0]), input_size=(3, 8, 8))
    assert len(network.outputs) == 3
    assert from_json(to_json(network)) == network


@torch.library.custom_op("vggscope_tests::twice", mutates_args=())
def twice(x: Tensor) -> Tensor:
    return 2 * x


@twice.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


def test_an_unknown_cost_leaves_the_known_part() -> None:
    module = Returns(lambda y, x: twice(twice(y)))
    report = vggscope.summary(module, input_size=(2, 3, 8, 8))
    known = 2 * 4 * 6 * 6 * 3 * 9
    assert (report.totals.macs, report.totals.flops) == (None, None)
    assert (report.totals.macs_known, report.totals.flops_known) == (known, 2 * known)
    assert f"MACs         at least {known:,}  (FLOPs at least {2 * known:,} = 2 x MACs; bias left out)" in str(report)
    assert len([warning for warning in report.warnings if "the cost of twice" in warning]) == 1
