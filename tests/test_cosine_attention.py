"""Cosine attention as in Swin V2, and its parts: their rules equal torch at every local peak of memory."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import vggscope
from tests.local_maxima import require_equal_maxima
from vggscope.graph import Network
from vggscope.lock_file import from_text


def equals_torch(model: nn.Module, size: tuple[int, ...]) -> Network:
    """Hold the rules to the recording of torch, and return the network, which is not recorded."""
    network = vggscope.network(model, size)
    assert network.predicts_memory
    assert not vggscope.summary(model, size).warnings
    require_equal_maxima(model, network, size)
    return network


class Between(nn.Module):
    """A function between two linear layers."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.function, self.last = nn.Linear(4, 6), function, nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.function(self.first(x)))


class OfTable(nn.Module):
    """A sum with a function of a table."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.table, self.first, self.last = nn.Parameter(torch.ones(1, 6)), nn.Linear(4, 6), nn.Linear(6, 3)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x) + self.function(self.table))


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "exp": torch.exp,
    "clamp to a maximum": lambda x: torch.clamp(x, max=4.6),
    "clamp to a minimum": lambda x: x.clamp(-1),
    "clamp to both": lambda x: x.clamp(-1, max=2.0),
    "clamp_min": lambda x: x.clamp_min(0.5),
    "clamp_max": lambda x: torch.clamp_max(x, 3),
    "a scale": lambda x: torch.clamp(x, max=4.6).exp(),
    "rows of length 1": lambda x: functional.normalize(x, dim=-1),
    "a product of rows": lambda x: functional.normalize(x * 2, dim=1, eps=1e-5) * x,
}


@pytest.mark.parametrize("kind", [Between, OfTable])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_equal_torch(name: str, kind: Callable[[Callable[[Tensor], Tensor]], nn.Module]) -> None:
    for size in ((2, 5, 4), (1, 1, 4)):
        model = kind(FUNCTIONS[name])
        equals_torch(model, size)


RECORDED: dict[str, Callable[[Tensor], Tensor]] = {
    "clamp between tensors": lambda x: x.clamp(x * 0, x * 2),
    "clamp in place": lambda x: (x * 2).clamp_(max=1),
    "exp in place": lambda x: (x * 2).exp_(),
    "rows over the batch": lambda x: functional.normalize(x, dim=0),
    "rows over the batch, from the end": lambda x: functional.normalize(x, dim=-4),
    "lengths of another norm": lambda x: functional.normalize(x, p=1.0, dim=-1),
    "lengths of matrices": lambda x: functional.normalize(x, dim=(1, 2)),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", RECORDED)
def test_functions_without_a_rule_are_recorded(name: str) -> None:
    model = Between(RECORDED[name])
    assert not vggscope.network(model, (2, 5, 4)).predicts_memory
    assert vggscope.measure(model, (2, 5, 4), device="cpu").difference_bytes == 0


class Normalizes(nn.Module):
    """Rows of a permuted tensor, whose layout another function reads."""

    def __init__(self, order: tuple[int, ...], dim: int, then: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.order, self.dim, self.then = nn.Linear(4, 12), order, dim, then

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).view(x.shape[0], -1, 2, 6).permute(self.order)
        return self.then(functional.normalize(x, dim=self.dim)).flatten(1) * 2


THEN: dict[str, Callable[[Tensor], Tensor]] = {
    "in rows": lambda x: x.reshape(x.shape[0], -1, 2) * 3,
    "by themselves": lambda x: x @ x.transpose(-2, -1),
    "turned": lambda x: x.permute(0, 3, 2, 1).reshape(x.shape[0], -1, 2) * 3,
}


@pytest.mark.parametrize("then", THEN)
@pytest.mark.parametrize("dim", [-1, 1, 2])
@pytest.mark.parametrize("order", [(0, 1, 2, 3), (0, 2, 1, 3), (0, 3, 1, 2), (0, 1, 3, 2)])
def test_layouts_of_rows_equal_torch(order: tuple[int, ...], dim: int, then: str) -> None:
    for rows in (5, 1):
        equals_torch(Normalizes(order, dim, THEN[then]), (rows, 1, 4))


class Combines(nn.Module):
    """Two projections of rows, which a function combines."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(4, 6), nn.Linear(4, 6), nn.Linear(6, 2)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.function(self.first(x), self.second(x)))


COMBINATIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "a sum of pairs that is summed": lambda a, b: (a.unsqueeze(1) + b.unsqueeze(2)).sum(1),
    "a sum of pairs": lambda a, b: a.unsqueeze(1) + b.unsqueeze(2) * 2,
    "products of pairs": lambda a, b: (a.unsqueeze(1) * b[:, :2].unsqueeze(2)).mean(2),
    "products of a few rows": lambda a, b: a[:, :2].unsqueeze(1) * b.unsqueeze(2),
    "a sum with the mean": lambda a, b: (a.mean(1, keepdim=True) + b).sum(1),
}


@pytest.mark.parametrize("kind", COMBINATIONS)
def test_gradients_of_broadcast_tensors_equal_torch(kind: str) -> None:
    equals_torch(Combines(COMBINATIONS[kind]), (3, 1, 4))
    model = Combines(lambda a, b: COMBINATIONS[kind](a.squeeze(2), b.squeeze(2)))
    equals_torch(model, (5, 1, 4))


class OfPositions(nn.Module):
    """Rows with what layers compute from a buffer, which is the same for all samples."""

    positions: Tensor
    index: Tensor

    def __init__(self, function: Callable[[OfPositions, Tensor], Tensor], rows: int) -> None:
        super().__init__()
        self.first, self.function, self.last = nn.Linear(3, 6), function, nn.Linear(6, 2)
        self.layers = nn.Sequential(nn.Linear(6, 8), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(8, 6))
        self.norm, self.more = nn.LayerNorm(6), nn.Parameter(torch.zeros(1, 2, 6))
        self.register_buffer("positions", torch.zeros(1, rows, 6))
        self.register_buffer("index", torch.arange(rows), persistent=False)
        self.plain = torch.ones(1, rows, 6)

    @property
    def bias(self) -> Tensor:
        return self.layers(self.positions)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.function(self, self.first(x.squeeze(2))))


def twice(x: Tensor, bias: Tensor) -> Tensor:
    return (x + bias) * bias


OF_POSITIONS: dict[str, Callable[[OfPositions, Tensor], Tensor]] = {
    "added": lambda net, x: x + net.bias,
    "subtracted": lambda net, x: x - net.bias,
    "subtracted from": lambda net, x: net.bias - x,
    "multiplied": lambda net, x: x * net.bias,
    "added in place": lambda net, x: x.add_(net.bias),
    "changed in place": lambda net, x: x + net.bias.mul_(2),
    "cut off in place": lambda net, x: x + torch.relu_(net.bias),
    "of less axes": lambda net, x: x * net.bias[0],
    "of one row": lambda net, x: x + net.bias.mean(1, keepdim=True),
    "of pairs": lambda net, x: (x.unsqueeze(1) + net.bias.unsqueeze(2)).sum(1),
    "of the mean row": lambda net, x: x.mean(1, keepdim=True) * net.bias,
    "normalised": lambda net, x: x + functional.normalize(net.norm(net.bias), dim=-1).softmax(-1),
    "read twice": lambda net, x: twice(x, net.bias),
    "looked up": lambda net, x: x + net.bias[:, net.index],
    "looked up in samples": lambda net, x: (x * 2)[:, net.index],
    "joined with a parameter": lambda net, x: x.unsqueeze(1) * torch.cat([net.more, net.bias], 1).unsqueeze(2),
    "a buffer added": lambda net, x: x + net.positions,
    "a buffer multiplied": lambda net, x: x * net.positions,
    "a buffer read twice": lambda net, x: (x + net.positions) * net.positions,
    "a buffer joined with a parameter": lambda net, x: x.unsqueeze(2) + torch.cat([net.more, net.positions], 1),
}


@pytest.mark.parametrize("rows", [4, 1])
@pytest.mark.parametrize("kind", OF_POSITIONS)
def test_what_is_the_same_for_all_samples_equals_torch(kind: str, rows: int) -> None:
    for trains in (True, False):
        model = OfPositions(OF_POSITIONS[kind], rows)
        model.layers.requires_grad_(trains)
        equals_torch(model, (rows, 1, 3))
        assert vggscope.measure(model, (rows, 1, 3), batch=3, device="cpu").difference_bytes == 0


OTHER_POSITIONS: dict[str, Callable[[OfPositions, Tensor], Tensor]] = {
    "a tensor that is no buffer": lambda net, x: x + net.layers(net.plain),
    "numbers": lambda net, x: x + net.layers(torch.arange(6, device=x.device).float()),
    "a mask of rows": lambda net, x: x[:, net.index > -1],
}


@pytest.mark.parametrize("kind", OTHER_POSITIONS)
def test_other_tensors_are_recorded(kind: str) -> None:
    model = OfPositions(OTHER_POSITIONS[kind], 4)
    assert not vggscope.network(model, (4, 1, 3)).predicts_memory


ADDED: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "twice": lambda x, row: (x + row) * (row * 2),
    "once as it is": lambda x, row: x * torch.tanh(row) + row,
    "to one row": lambda x, row: x + (row.unsqueeze(0) + row),
}


class AddsRow(nn.Module):
    """Rows with a function of a row, whose gradient is summed over more axes than it has."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.last, self.row = nn.Linear(4, 6), nn.Linear(6, 2), nn.Parameter(torch.ones(6))
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.function(self.first(x), self.row * 3))


@pytest.mark.parametrize("kind", ADDED)
def test_sums_over_more_axes_equal_torch(kind: str) -> None:
    equals_torch(AddsRow(ADDED[kind]), (3, 1, 4))


@pytest.mark.parametrize(("side", "window", "trains"), [(16, 4, True), (12, 3, False), (22, 5, True)])
def test_swin_v2_equals_torch(side: int, window: int, trains: bool) -> None:
    from torchvision.models import SwinTransformer
    from torchvision.models.swin_transformer import PatchMergingV2, SwinTransformerBlockV2

    model = SwinTransformer(
        patch_size=[2, 2],
        embed_dim=8,
        depths=[2, 2],
        num_heads=[2, 4],
        window_size=[window, window],
        stochastic_depth_prob=0.2,
        num_classes=3,
        block=SwinTransformerBlockV2,
        downsample_layer=PatchMergingV2,
    )
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(trains or "cpb_mlp" not in name)
    network = equals_torch(model, (3, side, side))
    read = from_text(vggscope.lock(network).json_text)
    for mode in ("train", "inference"):
        assert vggscope.memory(read, mode=mode).peak_bytes == vggscope.memory(network, mode=mode).peak_bytes
    measured = vggscope.measure(model, (3, side, side), batch=2, device="cpu")
    assert measured.difference_bytes == 0
