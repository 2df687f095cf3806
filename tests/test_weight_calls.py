"""Weights that forward computes from weights: their rules equal torch at every local peak of memory."""

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


def measured(model: nn.Module, size: tuple[int, ...]) -> None:
    """Hold the predicted peaks to torch's memory tracker."""
    for mode in ("train", "inference"):
        for batch in (1, 3):
            assert vggscope.measure(model, size, mode=mode, batch=batch, device="cpu").difference_bytes == 0


class PositionBias(nn.Module):
    """A table of biases, read at the relative positions of `side` x `side` tokens."""

    index: Tensor

    def __init__(self, side: int, heads: int, *, flat: bool) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros((2 * side - 1) ** 2, heads))
        places = torch.arange(side**2)
        rows, columns = (places[:, None] - places for places in (places // side, places % side))
        index = (rows + side - 1) * (2 * side - 1) + columns + side - 1
        self.register_buffer("index", index.flatten() if flat else index)
        self.tokens, self.heads = side**2, heads

    def forward(self) -> Tensor:
        bias = self.table[self.index.view(-1)].view(self.tokens, self.tokens, self.heads)
        return bias.permute(2, 0, 1).contiguous().unsqueeze(0)


class Attends(nn.Module):
    """Attention with a bias for each pair of tokens, whose projection adds biases to queries and values alone."""

    none: Tensor

    def __init__(
        self, side: int, width: int, *, fused: bool = True, joined: bool = False, shared: bool = False
    ) -> None:
        super().__init__()
        self.bias = None if shared else PositionBias(side, 2, flat=joined)
        self.qkv, self.proj = nn.Linear(8, 6 * width, bias=not joined), nn.Linear(2 * width, 8)
        if joined:
            self.first, self.last = (nn.Parameter(torch.zeros(2 * width)) for _ in range(2))
            self.register_buffer("none", torch.zeros(2 * width), persistent=False)
        self.is_fused, self.is_joined = fused, joined

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        b, n, _ = x.shape
        own = torch.cat((self.first, self.none, self.last)) if self.is_joined else self.qkv.bias
        q, k, v = functional.linear(x, self.qkv.weight, own).reshape(b, n, 3, 2, -1).permute(2, 0, 3, 1, 4).unbind(0)
        bias = self.bias() if self.bias is not None else bias
        if self.is_fused:
            x = functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        else:
            x = ((q @ k.transpose(-2, -1)) + bias).softmax(-1) @ v
        return self.proj(x.transpose(1, 2).reshape(b, n, -1))


class Tokens(nn.Module):
    """Patches of an image, two residual attentions in windows of `side` x `side` patches, and a head."""

    def __init__(self, side: int, width: int = 8, *, shared: bool = False, **given: bool) -> None:
        super().__init__()
        self.window = side**2
        self.patches, self.norms = nn.Conv2d(3, 8, 2, 2), nn.ModuleList(nn.LayerNorm(8) for _ in range(2))
        self.bias = PositionBias(side, 2, flat=False) if shared else None
        self.blocks = nn.ModuleList(Attends(side, width, shared=shared, **given) for _ in range(2))
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        bias = self.bias() if self.bias is not None else None
        for norm, block in zip(self.norms, self.blocks):
            windows = norm(x).reshape(-1, self.window, 8)
            x = x + block(windows, bias).reshape(x.shape)
        return self.head(x.mean(1))


TOKENS: dict[str, Callable[[], nn.Module]] = {
    "fused": lambda: Tokens(4),
    "rows that torch pads": lambda: Tokens(3),
    "joined biases": lambda: Tokens(3, joined=True),
    "one bias for all blocks": lambda: Tokens(3, shared=True),
    "plain": lambda: Tokens(4, fused=False),
    "plain, one bias": lambda: Tokens(3, fused=False, shared=True),
    "joined, plain": lambda: Tokens(4, fused=False, joined=True),
}


@pytest.mark.parametrize("kind", TOKENS)
def test_position_biases_equal_torch(kind: str) -> None:
    model = TOKENS[kind]()
    side = 8 if kind in ("fused", "plain", "joined, plain") else 6
    for windows in (1, 2):
        size = (3, side * windows, side)
        network = equals_torch(model, size)
        assert network.needs_gpu == ("plain" not in kind)
        measured(model, size)


def test_a_lock_has_the_calls_on_weights() -> None:
    network = vggscope.network(Tokens(3, joined=True), (3, 6, 6))
    text = vggscope.lock(network).json_text
    read = from_text(text)
    for mode in ("train", "inference"):
        ours, theirs = (vggscope.memory(one, mode=mode, batch=4).peak_bytes for one in (network, read))
        assert ours == theirs
    with pytest.raises(ValueError, match="reads one that does not come before it"):
        from_text(text.replace('"inputs": ["blocks.0.first (weight)", ', '"inputs": ["blocks.1.first (weight)", '))


def shifted(x: Tensor) -> Tensor:
    """Windows of rolled and padded rows with a mask that forward fills, as in Swin."""
    _, n, c = x.shape
    x = torch.roll(functional.pad(x, (0, 0, 0, 3)), (-1, 2), (1, 2))
    mask = x.new_zeros((n + 3, 4))
    for place, rows in enumerate((slice(0, -2), slice(-2, None))):
        mask[rows, 1:3] = place
    mask = mask.unsqueeze(1) - mask.unsqueeze(2)
    mask = mask.masked_fill(mask != 0, -100.0).masked_fill(mask == 0, 0.0)
    x = x + mask.flatten(1)[:, :c]
    return x[:, :n, : c - 2]


def split_axes(x: Tensor) -> Tensor:
    return x[:, 1:9:2, 2:7] * 2 + x[:, :4, :5]


def overwritten(x: Tensor) -> Tensor:
    y = x * 2
    functional.relu_(y[:, 1:9, 2:7])
    return y


MASKS: dict[str, Callable[[Tensor], Tensor]] = {
    "shifted": shifted,
    "two axes cut": split_axes,
    "a cut that is overwritten": overwritten,
    "a mask of values": lambda x: x * (x > 0),
    "zeros": lambda x: x + torch.zeros_like(x),
    "a mask of zeros": lambda x: x + torch.zeros_like(x).masked_fill(x < 0, 1),
    "padded below zero": lambda x: functional.pad(x, (-1, 2)),
    "filled where it has a gradient": lambda x: x.masked_fill(x > 0, 0),
    "a part that is set where it has a gradient": lambda x: torch.cat([x]).index_fill(1, torch.arange(2), 0),
}
RECORDED = {
    "a cut that is overwritten",
    "padded below zero",
    "filled where it has a gradient",
    "a part that is set where it has a gradient",
}


class Applied(nn.Module):
    """A function of the rows of a map."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.function = nn.Conv2d(3, 1, 1), function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.first(x).squeeze(1)).sum((1, 2), keepdim=True).flatten(1)


@pytest.mark.parametrize("kind", MASKS)
def test_masks_and_cuts_equal_torch(kind: str) -> None:
    model = Applied(MASKS[kind])
    if kind in RECORDED:
        assert not vggscope.network(model, (3, 9, 8)).predicts_memory
    else:
        equals_torch(model, (3, 9, 8))
    measured(model, (3, 9, 8))


class Standardized(nn.Conv2d):
    """A convolution whose weights have mean 0 and variance 1, as in ResNetV2 (BiT), or a learned gain, as in NFNet."""

    def __init__(self, channels: int, out: int, *, gains: bool = False, padded: bool = False) -> None:
        super().__init__(channels, out, 3, padding=0 if padded else 1, bias=gains)
        self.gain = nn.Parameter(torch.ones(out, 1, 1, 1)) if gains else None
        self.is_padded = padded

    def forward(self, x: Tensor) -> Tensor:
        gain = None if self.gain is None else (self.gain * 0.5).view(-1)
        flat = self.weight.reshape(1, self.out_channels, -1)
        weight = functional.batch_norm(flat, None, None, weight=gain, training=True).reshape_as(self.weight)
        x = functional.pad(x, (1, 1, 0, 2)) if self.is_padded else x
        return functional.conv2d(x, weight, self.bias, padding=self.padding)


class Gained(nn.Module):
    """An activation, or a layer, that a number or a learned number scales in place."""

    def __init__(self, layer: nn.Module, *, learned: bool) -> None:
        super().__init__()
        self.layer, self.gain = layer, nn.Parameter(torch.ones(())) if learned else 1.7

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x).mul_(self.gain)


CONVOLUTIONS: dict[str, Callable[[], nn.Module]] = {
    "standardized": lambda: Standardized(8, 8),
    "with gains": lambda: Standardized(8, 8, gains=True),
    "padded": lambda: Standardized(8, 8, padded=True),
    "scaled in place": lambda: Gained(nn.GELU(), learned=False),
    "scaled in place by a parameter": lambda: Gained(nn.Conv2d(8, 8, 1), learned=True),
    "of the batch": lambda: nn.BatchNorm2d(8, track_running_stats=False),
}


@pytest.mark.parametrize("trains", [True, False])
@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_standardized_convolutions_equal_torch(kind: str, trains: bool) -> None:
    layer = CONVOLUTIONS[kind]().requires_grad_(trains)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), layer, nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))
    equals_torch(model, (3, 9, 7))
    measured(model, (3, 9, 7))


class Alone(nn.Module):
    """A sum with what a function computes from a table of two rows."""

    def __init__(self, compute: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.table, self.first, self.last = nn.Parameter(torch.zeros(2, 8)), nn.Linear(4, 8), nn.Linear(8, 3)
        self.compute = compute

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x) + self.compute(self.table))


def test_the_parameters_of_a_network_are_those_without_the_calls() -> None:
    network = vggscope.network(Tokens(3, joined=True), (3, 6, 6))
    calls = network.with_weight_calls
    assert [*calls.parameters()] != [*network.parameters()]
    assert calls.registered_parameters() == network.registered_parameters()
    assert len(calls.nodes) == len(network.nodes) + sum(len(node.weight_calls) for node in network.nodes)


def with_part(table: Tensor, change: Callable[[Tensor], object]) -> Tensor:
    """A copy of the first row of which a part is changed in place, as are the biases of the keys in Swin V2."""
    row = table[0].clone()
    change(row[2:6])
    return row


def with_parts(table: Tensor, number: float) -> Tensor:
    """A copy of the first row of which two parts are changed in place, one after the other."""
    row = table[0].clone()
    row[2:6].fill_(number)
    torch.relu_(row[1:3])
    return row


def changed_view(table: Tensor) -> Tensor:
    """The first row after a change of both rows, as one, in place."""
    table.view(-1)[4:12].zero_()
    return table[0] * table[1]


WITH_RULES: dict[str, Callable[[Tensor], Tensor]] = {
    "both rows": lambda table: (table.unsqueeze(0) * 2).flatten(1)[:, 4:12],
    "a vector": lambda table: (table * 2)[0],
    "a sum": lambda table: table.sum(0) * 0.5,
    "a sum of rows": lambda table: (table[0] + table[1]) * 2,
    "a table and its half": lambda table: (table + table / 2).sum(0, keepdim=True),
    "gates": lambda table: torch.sigmoid(table).mean(0),
    "read twice": lambda table: (table * torch.tanh(table)).sum(0),
    "joined and turned": lambda table: torch.cat([table.t(), table.t() * 2], 1).sum(1),
    "rows": lambda table: table[1:].clone().sum(0),
    "a change in place": lambda table: (table * 2).add_(1)[0],
    "a part that is set to 0": lambda table: with_part(table, torch.zero_),
    "parts that are overwritten": lambda table: with_parts(table, 0.5),
    "a change by way of a view": lambda table: changed_view(table * 2),
}


@pytest.mark.parametrize("kind", WITH_RULES)
def test_calls_on_weights_equal_torch(kind: str) -> None:
    model = Alone(WITH_RULES[kind])
    equals_torch(model, (4,))
    measured(model, (4,))


EQUATIONS = (
    ("bnd,bmd->bnm", (0, 1, 2), (0, 1, 2)),
    ("bnd,bmd->bmn", (0, 2, 1), (0, 1, 2)),
    ("bhnd,bhmd->bhnm", (0, 2, 1, 3), (0, 2, 1, 3)),
    ("bhnd,bhmd->bnmh", (0, 2, 1, 3), (0, 1, 2, 3)),
    ("bhnm,bhmd->bhnd", (0, 1, 3, 2), (0, 2, 1, 3)),
    ("bnhd,bmhd->bhnm", (0, 1, 2, 3), (0, 3, 2, 1)),
    ("bchw,bdhw->bcd", (0, 1, 2, 3), (0, 1, 3, 2)),
    ("bnxd,bmyd->bnxmy", (0, 1, 2, 3), (0, 2, 1, 3)),
)
"""Contractions of two tensors, and how the axes of each are turned first."""


class Contracts(nn.Module):
    """A contraction of two projections."""

    def __init__(self, equation: str, *turns: tuple[int, ...]) -> None:
        super().__init__()
        self.equation, self.turns = equation, turns
        sides = dict(zip("nmhdcwxy", (3, 5, 2, 4, 3, 5, 2, 3)))
        self.shapes = [[sides[letter] for letter in term[1:]] for term in equation.partition("->")[0].split(",")]
        self.layers = nn.ModuleList(nn.Linear(6, torch.Size(shape).numel()) for shape in self.shapes)

    def forward(self, x: Tensor) -> Tensor:
        factors = []
        for layer, shape, turn in zip(self.layers, self.shapes, self.turns):
            laid = [(x.shape[0], *shape)[axis] for axis in turn]
            factors.append(layer(x).view(laid).permute([turn.index(axis) for axis in range(len(turn))]))
        return (torch.einsum(self.equation, *factors) * 2).flatten(1)


@pytest.mark.parametrize("equation", EQUATIONS)
def test_contractions_equal_torch(equation: tuple[str, tuple[int, ...], tuple[int, ...]]) -> None:
    model = Contracts(*equation)
    if equation[0].endswith(("bmn", "bnmh")):
        assert not vggscope.network(model, (6,)).predicts_memory
    else:
        equals_torch(model, (6,))
    measured(model, (6,))


WITHOUT_RULES: dict[str, Callable[[Tensor], Tensor]] = {
    "a function without a rule": lambda table: torch.fft.fft(table).real.sum(0),
    "a part that is set": lambda table: with_part(table, lambda part: part.copy_(table[1, 4:])),
    "a part of a part that is overwritten": lambda table: with_part(table, lambda part: part[2:].zero_()),
    "a part that is overwritten unseen": lambda table: with_part(table, torch.no_grad()(torch.zero_)),
    "a mask": lambda table: table[torch.tensor([True, False], device=table.device)][0],
}


@pytest.mark.parametrize("kind", WITHOUT_RULES)
def test_other_calls_on_weights_are_recorded(kind: str) -> None:
    model = Alone(WITHOUT_RULES[kind])
    assert not vggscope.network(model, (4,)).predicts_memory
    measured(model, (4,))


class Keeps(Alone):
    """A sum that computes its bias once at evaluation, and in each step of training unless `in_training` is given."""

    def __init__(self, compute: Callable[[Tensor], Tensor], *, in_training: bool = False) -> None:
        super().__init__(compute)
        self.in_training, self.kept = in_training, dict[str, Tensor]()

    def forward(self, x: Tensor) -> Tensor:
        if self.training and not self.in_training:
            return super().forward(x)
        if "bias" not in self.kept:
            self.kept["bias"] = self.compute(self.table).detach()
        return self.last(self.first(x) + self.kept["bias"])


@pytest.mark.parametrize("kind", WITH_RULES)
def test_rules_give_a_training_step_that_keeps_no_weights(kind: str) -> None:
    model = Keeps(WITH_RULES[kind])
    network = vggscope.network(model, (4,))
    assert (network.predicts_training, network.predicts_inference) == (True, False)
    require_equal_maxima(model, network, (4,), modes=("train",))
    measured(model, (4,))


def test_weights_that_a_training_step_keeps_are_recorded() -> None:
    model = Keeps(lambda table: (table * 2).sum(0), in_training=True)
    network = vggscope.network(model, (4,))
    assert (network.predicts_training, network.predicts_inference) == (False, False)
    measured(model, (4,))
