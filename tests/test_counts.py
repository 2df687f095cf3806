"""Multiply-accumulates of every way to write a product, held to torch.utils.flop_counter or to a formula by hand."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import vggscope
from vggscope.analysis.cost import backward_macs, costs, total_macs
from vggscope.graph import Network
from vggscope.ops.activation import ReLU
from vggscope.ops.attention import Einsum, MatrixProduct, ScaledDotProductAttention
from vggscope.ops.base import Op, SavedTensors, Shape
from vggscope.ops.convolution import Convolution
from vggscope.ops.elementwise import Elementwise
from vggscope.ops.linear import Linear
from vggscope.ops.normalization import BatchNorm2d, LocalResponseNorm
from vggscope.ops.pooling import AvgPool2d, MaxPool2d
from vggscope.ops.recurrent import Recurrent
from vggscope.ops.regularization import Dropout
from vggscope.ops.shape import Flatten
from vggscope.trace import known_results
from vggscope.trace.inputs import CallInputs
from vggscope.trace.network import network_of

Function = Callable[..., Tensor]


class Weighted(nn.Module):
    """A function of an input and of weights of the given shapes."""

    def __init__(self, function: Function, *shapes: tuple[int, ...], dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.function = function
        self.weights = nn.ParameterList(nn.Parameter(torch.ones(shape, dtype=dtype)) for shape in shapes)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, *self.weights)


def ours(module: nn.Module, x: Tensor) -> tuple[int | None, int | None]:
    network = network_of(module, "product", CallInputs((x,), {}, None))
    return total_macs(costs(network)), backward_macs(network)


AS_TORCH_COUNTS: dict[str, tuple[Function, tuple[int, ...], tuple[tuple[int, ...], ...]]] = {
    "matrix_power": (lambda x, w: torch.matrix_power(w @ x, 3), (4, 4), ((4, 4),)),
    "multi_dot": (lambda x, a, b, c: torch.linalg.multi_dot([x, a, b, c]), (3, 4), ((4, 5), (5, 2), (2, 7))),
    "baddbmm": (lambda x, m, b: torch.baddbmm(m, x, b), (2, 3, 4), ((2, 3, 5), (2, 4, 5))),
    "vector_matrix": (lambda x, w: x @ w, (4,), ((4, 3),)),
    "inner": (torch.inner, (2, 4), ((3, 4),)),
    "outer": (torch.outer, (4,), ((3,),)),
    "kron": (torch.kron, (4, 3), ((3, 2),)),
    "tensordot": (lambda x, w: torch.tensordot(x, w, dims=([1, 2], [1, 0])), (2, 3, 4), ((4, 3, 5),)),
    "tensordot_without_a_common_axis": (lambda x, w: torch.tensordot(x, w, dims=0), (2, 3), ((4, 5),)),
    "cdist": (torch.cdist, (3, 4), ((5, 4),)),
    "broadcast_matmul": (lambda x, w: x[:, None] @ w, (2, 3, 4), ((5, 4, 3),)),
    "einsum_matrix_vector": (lambda x, w: torch.einsum("ij,j->i", w, x), (4,), ((3, 4),)),
    "einsum_inner": (lambda x, w: torch.einsum("i,i->", w, x), (4,), ((4,),)),
    "einsum_outer": (lambda x, w: torch.einsum("i,j->ij", w, x), (4,), ((3,),)),
    "einsum_implicit": (lambda x, w: torch.einsum("ij,jk", x, w), (3, 4), ((4, 3),)),
    "einsum_ellipsis": (lambda x, w: torch.einsum("...j,jk->...k", x, w), (2, 3, 4), ((4, 3),)),
    "einsum_three": (lambda x, w: torch.einsum("bi,ij,bj->b", x, w, x), (3, 4), ((4, 4),)),
    "einsum_sums_one_letter_first": (lambda x, w: torch.einsum("ijk,jl->il", x, w), (2, 4, 5), ((4, 3),)),
    "einsum_sums_two_letters_first": (lambda x, w: torch.einsum("ijk,jl->l", x, w), (2, 4, 5), ((4, 3),)),
    "einsum_trace": (lambda x, w: torch.einsum("ii,ij->j", x, w), (4, 4), ((4, 3),)),
    "einsum_sublists": (lambda x, w: torch.einsum(x, [0, 1], w, [1, 2], [0, 2]), (2, 4), ((4, 3),)),
    "covariance": (lambda x, w: (x * w) @ (x * w).T, (3, 4), ((4,),)),
}


@pytest.mark.parametrize("name", AS_TORCH_COUNTS)
def test_a_product_costs_what_torch_counts(name: str) -> None:
    function, shape, weights = AS_TORCH_COUNTS[name]
    module = Weighted(function, *weights)
    with FlopCounterMode(display=False) as forward:
        result = module(torch.ones(shape))
    with FlopCounterMode(display=False) as backward:
        result.sum().backward()
    assert ours(module, torch.ones(shape)) == (forward.get_total_flops() // 2, backward.get_total_flops() // 2)


BFLOAT16 = torch.bfloat16

WITHOUT_A_FORMULA: dict[str, tuple[Weighted, tuple[int, ...], int]] = {
    "mv": (Weighted(lambda x, w: torch.mv(w, x), (3, 4)), (4,), 3 * 4),
    "matmul_of_a_vector": (Weighted(lambda x, w: x @ w, (4,)), (2, 3, 4), 2 * 3 * 4),
    "addmv": (Weighted(lambda x, m, w: torch.addmv(m, w, x), (3,), (3, 4)), (4,), 3 * 4),
    "addr": (Weighted(lambda x, m, w: torch.addr(m, w, x), (3, 4), (3,)), (4,), 3 * 4),
    "dot": (Weighted(lambda x, w: torch.dot(w, x), (4,)), (4,), 4),
    "inner_of_vectors": (Weighted(lambda x, w: torch.inner(w, x), (4,)), (4,), 4),
    "addbmm": (Weighted(lambda x, m, b: torch.addbmm(m, x, b), (3, 5), (2, 4, 5)), (2, 3, 4), 2 * 3 * 4 * 5),
    "addmm_": (Weighted(lambda x, w: (x * 2).addmm_(x, w), (3, 3)), (2, 3), 2 * 3 * 3),
    "baddbmm_": (Weighted(lambda x, w: (x * 2).baddbmm_(x, w), (2, 3, 3)), (2, 4, 3), 2 * 4 * 3 * 3),
    "bilinear": (Weighted(lambda x, w, b: F.bilinear(x, x, w, b), (5, 3, 3), (5,)), (2, 3), 2 * 5 * 3 * 3),
    "conv_tbc": (Weighted(torch.conv_tbc, (3, 4, 5), (5,)), (6, 2, 4), 4 * 2 * 5 * 3 * 4),
    "cdist_of_many": (Weighted(torch.cdist, (30, 4)), (30, 4), 30 * 30 * 4),
    "grouped_mm": (Weighted(torch._grouped_mm, (2, 16, 24), dtype=BFLOAT16), (2, 8, 16), 2 * 8 * 16 * 24),
}
"""Products for which torch's counter has no formula, with their multiply-accumulates."""


@pytest.mark.parametrize("name", WITHOUT_A_FORMULA)
def test_a_product_without_a_formula_in_torch_is_counted(name: str) -> None:
    module, shape, macs = WITHOUT_A_FORMULA[name]
    assert ours(module, torch.ones(shape, dtype=module.weights[0].dtype))[0] == macs


@pytest.mark.parametrize("name", ["mv", "dot", "inner_of_vectors", "addmv", "addr"])
def test_the_gradient_of_the_vector_costs_as_much_as_the_product(name: str) -> None:
    module, shape, macs = WITHOUT_A_FORMULA[name]
    module.requires_grad_(False)
    frozen = ours(module, torch.ones(shape))
    module.requires_grad_()
    assert (frozen, ours(module, torch.ones(shape))) == ((macs, 0), (macs, macs))


def test_bilinear_has_its_bias_and_its_gradients() -> None:
    network = network_of(nn.Bilinear(3, 4, 5), "Bilinear", CallInputs((torch.ones(2, 3), torch.ones(2, 4))))
    (node,) = network.nodes
    assert node.op.name == "bilinear"
    assert node.op.other_operations(network.input_shapes(node), network.output_shape(node)) == 5
    assert backward_macs(network, batch=2) == 2 * 3 * 4 * 5


VECTORS = nn.Sequential(Weighted(lambda x, w: w @ x, (3, 4)), Weighted(lambda x, w: x @ w, (3,)))


@pytest.mark.parametrize("module", [VECTORS, Weighted(lambda x, w: (x * 2).addmm_(x, w), (4, 4))])
def test_verify_explains_products_that_torch_does_not_count(module: nn.Module) -> None:
    shape = (4,) if module is VECTORS else (2, 4)
    result = vggscope.verify(module, input_data=(torch.ones(shape),), batch_axis=None)
    answers = [a for figure in result.figures if "macs" in figure.name for a in figure.answers if a.witness == "torch"]
    assert [answer.agrees for answer in answers] == [True, True]
    assert "for which it has no formula" in answers[0].reason


class ReadsItem(nn.Module):
    """Forward reads the value of a layer that it does not return."""

    def __init__(self) -> None:
        super().__init__()
        self.score, self.layer = nn.Linear(4, 3), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        self.score(x).mean().item()
        return self.layer(x)


class Unreturned(ReadsItem):
    def forward(self, x: Tensor) -> Tensor:
        self.score(x)
        return self.layer(x)


class Returned(ReadsItem):
    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:  # type: ignore[override]
        return self.layer(x), {"score": self.score(x)}


@pytest.mark.parametrize(("kind", "expected"), [(ReadsItem, 8), (Unreturned, 8), (Returned, 20)])
def test_only_what_forward_returns_has_a_backward_pass(kind: type[nn.Module], expected: int) -> None:
    assert ours(kind(), torch.ones(1, 4)) == (20, expected)


def test_the_state_of_a_recurrent_layer_is_an_output_of_the_layer() -> None:
    network = network_of(nn.LSTM(3, 4), "LSTM", CallInputs((torch.ones(5, 1, 3),), {}, 1))
    assert [tensor.source for tensor in network.outputs] == ["lstm"] * 3


SMALL = nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4 * 3 * 3, 5))


def test_torch_counts_the_same_in_the_traced_run() -> None:
    report = vggscope.summary(SMALL, input_size=(1, 3, 8, 8))
    assert report.torch_count is not None
    assert report.torch_count.macs == report.totals.macs == 36 * 4 * 27 + 36 * 5
    assert report.torch_count.params == report.totals.params
    assert (report.torch_count.disagreements, report.warnings) == ((), ())


def test_a_configuration_has_no_run_of_torch() -> None:
    assert vggscope.summary("conv3-8 FC-10", input_size=(3, 8, 8)).torch_count is None


def set_rule(monkeypatch: pytest.MonkeyPatch, op: type[Op], name: str, rule: Callable[..., object]) -> None:
    """Give an op another rule, for a trace that knows nothing of earlier calls."""
    monkeypatch.setattr(op, name, rule)
    for table in ("_KNOWN", "_TOLD"):
        monkeypatch.setattr(known_results, table, {})


def test_a_wrong_rule_for_macs_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    set_rule(monkeypatch, Linear, "macs", lambda self, inputs, output: 7)
    report = vggscope.summary(SMALL, input_size=(1, 3, 8, 8))
    assert report.warnings == ("the figures disagree: 3: vggscope counts 7 MACs of Linear, torch's own operators 180",)
    assert report.torch_count is not None
    assert report.torch_count.disagreements == report.warnings
    assert "the figures disagree" in str(report)


@pytest.mark.parametrize("op", [Convolution, MatrixProduct, Einsum, ScaledDotProductAttention, Recurrent])
def test_every_op_with_macs_is_compared(monkeypatch: pytest.MonkeyPatch, op: type[Op]) -> None:
    right = op.macs
    set_rule(monkeypatch, op, "macs", lambda self, inputs, output: (right(self, inputs, output) or 0) + 1)
    modules = {
        Convolution: (nn.Conv2d(3, 4, 3), (1, 3, 8, 8)),
        MatrixProduct: (Weighted(lambda x, w: x @ w, (4, 3)), (1, 4)),
        Einsum: (Weighted(lambda x, w: torch.einsum("bi,ij->bj", x, w), (4, 3)), (1, 4)),
        ScaledDotProductAttention: (Weighted(lambda x: F.scaled_dot_product_attention(x, x, x)), (1, 2, 5, 4)),
        Recurrent: (nn.LSTM(3, 4), (1, 5, 3)),
    }
    module, shape = modules[op]
    report = vggscope.summary(module, input_data=(torch.ones(shape),))
    assert any(warning.startswith("the figures disagree") for warning in report.warnings)


def test_a_wrong_rule_for_the_shape_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    set_rule(monkeypatch, MaxPool2d, "output_shape", lambda self, *inputs: (1, 4, 9, 9))
    report = vggscope.summary(SMALL, input_size=(1, 3, 8, 8))
    assert report.warnings == (
        "the figures disagree: 1: vggscope computes the output shape of MaxPool2d as 4x9x9, torch as 4x3x3;"
        " torch's is used",
    )
    assert report.layers[1].output_shape == (1, 4, 3, 3)
    assert report.totals.macs == 36 * 4 * 27 + 36 * 5


SAVING = [
    Convolution,
    Linear,
    BatchNorm2d,
    ReLU,
    MaxPool2d,
    AvgPool2d,
    Dropout,
    LocalResponseNorm,
    Elementwise,
    Flatten,
]


class Residual(nn.Module):
    """A module with a layer of each kind whose memory the rules predict."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.Linear(12, 2)
        self.lrn, self.pool, self.mean = nn.LocalResponseNorm(2), nn.MaxPool2d(2), nn.AvgPool2d(2)
        self.relu, self.dropout = nn.ReLU(inplace=True), nn.Dropout()

    def forward(self, x: Tensor) -> Tensor:
        x = self.lrn(self.relu(self.norm(self.conv(x)))) * x
        return self.dropout(self.head(self.mean(self.pool(x)).flatten(1)))


def test_right_rules_save_what_torch_saves() -> None:
    network = network_of(Residual(), "m", (3, 8, 8))
    assert network.predicts_memory
    assert network.warnings == ()


@pytest.mark.parametrize("op", SAVING)
def test_a_wrong_rule_for_saved_tensors_is_told(monkeypatch: pytest.MonkeyPatch, op: type[Op]) -> None:
    right = op.saved_for_backward

    def wrong(self: Op, inputs: tuple[Shape, ...], output: Shape) -> SavedTensors:
        saved = right(self, inputs, output)
        return saved._replace(extra=(*saved.extra, (output, None)))

    before = vggscope.summary(Residual(), input_size=(1, 3, 8, 8)).memory
    set_rule(monkeypatch, op, "saved_for_backward", wrong)
    report = vggscope.summary(Residual(), input_size=(1, 3, 8, 8))
    (warning,) = report.warnings
    assert re.search(r"^the figures disagree: .* saves .* for backward, torch ", warning)
    assert report.memory == before  # torch was recorded instead


def test_a_parameter_that_is_lost_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Network, "parameters", lambda self: iter(()))
    network = network_of(SMALL, "small", (3, 8, 8))
    assert network.warnings == ("the figures disagree: vggscope counts 0 parameters, torch 297",)


def test_a_product_of_weights_alone_is_counted() -> None:
    module = Weighted(lambda x, a, b: x * torch.cov(a @ b).mean(), (3, 4), (4, 5))
    report = vggscope.summary(module, input_data=(torch.ones(1, 4),))
    assert report.torch_count is not None
    assert report.totals.macs == report.torch_count.macs == 3 * 4 * 5 + 3 * 3 * 5


def test_a_parameter_that_forward_returns_is_named_as_such() -> None:
    report = vggscope.summary(Weighted(lambda x, w: (x * 2, w), (4, 3)), input_data=(torch.ones(1, 4),))
    assert [(other.name, other.why) for other in report.totals.other_params] == [("weights.0", "returned by forward")]


SIZED_BY_VALUES: dict[str, Function] = {
    "where": lambda x, w: torch.where(x @ w > 0)[0],
    "where_of_two_axes": lambda x, w: torch.stack(torch.where(x @ w > 0), 1).sum(0),
    "nonzero": lambda x, w: (x @ w).nonzero(as_tuple=True)[0],
    "argwhere": lambda x, w: torch.argwhere(x @ w),
    "unique": lambda x, w: torch.unique(x @ w),
    "unique_consecutive": lambda x, w: torch.unique_consecutive(x @ w),
    "masked_select": lambda x, w: torch.masked_select(x @ w, x > -1),
    "mask": lambda x, w: (x @ w)[x > -1],
    "bincount": lambda x, w: torch.bincount((x @ w).long()[0]),
    "histc": lambda x, w: torch.histc(x @ w, 4),
    "one_hot": lambda x, w: F.one_hot((x @ w).argmax(-1)),
    "repeat_interleave": lambda x, w: torch.repeat_interleave(x @ w, torch.full((1,), 2), 0),
    "to_sparse": lambda x, w: (x @ w).to_sparse().to_dense(),
}
"""Functions whose output's size depends on values."""


@pytest.mark.parametrize("name", SIZED_BY_VALUES)
def test_a_function_whose_size_depends_on_values_costs_nothing(name: str) -> None:
    summary = vggscope.summary(Weighted(SIZED_BY_VALUES[name], (4, 4)), input_size=(1, 4))
    assert summary.totals.macs == 16
    assert [text for text in summary.warnings if "disagree" in text or "one axis" in text] == []


FACTORS: dict[str, Callable[[nn.Linear, Tensor], tuple[Tensor, Tensor]]] = {
    "mask_last": lambda layer, x: (layer(x), x > 0),
    "mask_first": lambda layer, x: (torch.isnan(x), layer(x)),
    "integers": lambda layer, x: (layer(x), x.argmax(-1, keepdim=True)),
    "an_input": lambda layer, x: (x, layer(x)),
    "detached": lambda layer, x: (layer(x), layer(x).detach()),
    "both": lambda layer, x: (layer(x), layer(x)),
}


class Multiplied(nn.Module):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.factors = FACTORS[name]
        self.first, self.last = nn.Linear(64, 64), nn.Linear(64, 64)

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.factors(self.first, x)
        y: Tensor = self.last(left * right)
        return y


@pytest.mark.parametrize("name", FACTORS)
def test_a_product_saves_the_factor_of_each_gradient(name: str) -> None:
    """Autograd saves a factor only if the other one has a gradient, which a mask and an input have not."""
    model = Multiplied(name)
    assert [text for text in vggscope.summary(model, input_size=(1, 64)).warnings if "disagree" in text] == []
    assert vggscope.measure(model, batch=32, input_size=(1, 64)).difference_bytes == 0
