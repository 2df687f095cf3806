"""Multiply-accumulates of every way to write a product, held to torch.utils.flop_counter or to a formula by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import vggscope
from vggscope.analysis.cost import backward_macs, costs, total_macs
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
