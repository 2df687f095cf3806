"""What diff calls the same is the same: torch decides on networks that are rewritten in many ways."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain

import pytest
import torch
from hypothesis import settings
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - as everybody writes it

import vggscope
from tests.rewrites import CALLS, CHANNELS, POOLS, SIDE, Net, Words, networks
from vggscope.diffing.compare import compare
from vggscope.diffing.result import Diff
from vggscope.trace.run import trace

SHAPE = (CHANNELS, SIDE, SIDE)


DRAWS = ((1.0, 4.0), (0.5, 1.0), (0.2, 0.5), (1.0, 0.1))
"""The scales of weights and inputs on which torch decides.

With one scale, different functions may agree: a soft-max or a clamp saturates, or a ReLU is 0 throughout.
"""


def filled(module: nn.Module, seed: int, scale: float = 1.0) -> nn.Module:
    """The module in float64 with random weights, and running variances above 0."""
    generator = torch.Generator().manual_seed(seed)
    module.double().eval()
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point() and not name.endswith("constant"):
            tensor.copy_(torch.randn(tensor.shape, generator=generator, dtype=torch.float64) * scale)
            if name.endswith("running_var"):
                tensor.abs_().add_(0.5)
    return module


def state(net: Net, keys: list[str]) -> list[Tensor]:
    named = (item for key in keys for item in net.layers[key].state_dict().items())
    return [tensor for name, tensor in named if tensor.is_floating_point() and name != "constant"]


def same_to_torch(one: Net, other: Net, *, training: bool = False) -> bool:
    """Whether both networks have the same output with the same weights, in the order of their use or by their names."""
    ours, theirs = state(one, one.keys()), state(other, other.keys())
    orders = [theirs]
    if set(one.keys()) == set(other.keys()):
        orders.append(state(other, one.keys()))
    return any(len(ours) == len(order) and _same_output(one, other, ours, order, training) for order in orders)


def _same_output(one: Net, other: Net, ours: list[Tensor], theirs: list[Tensor], training: bool) -> bool:
    if any(a.numel() != b.numel() for a, b in zip(ours, theirs)):
        return False
    for seed, (scale, size) in enumerate(DRAWS):
        filled(one, seed, scale)
        for a, b in zip(ours, theirs):
            b.copy_(a.reshape(b.shape))
        x = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * size
        outputs = [_output(net.train(training), x) for net in (one, other)]
        if outputs[0].numel() != outputs[1].numel():
            return False
        if not torch.allclose(outputs[0].flatten(), outputs[1].flatten(), rtol=1e-6, atol=1e-9, equal_nan=True):
            return False
    return True


def _output(net: Net, x: Tensor) -> Tensor:
    torch.default_generator.manual_seed(0)  # torch.manual_seed seeds devices too, and takes longer than the network
    before = {name: buffer.clone() for name, buffer in net.named_buffers()}
    try:
        return net(x.clone())
    finally:
        for name, buffer in before.items():
            net.get_buffer(name).copy_(buffer)  # running statistics


def reads_its_input(net: Net) -> bool:
    """Whether the output depends on the input: else it holds numbers of which any pool is the same."""
    outputs = [_output(net, torch.full((1, *SHAPE), size, dtype=torch.float64).cumsum(3)) for size in (-2.0, 0.1, 2.0)]
    return not all(torch.allclose(outputs[0], output, equal_nan=True) for output in outputs[1:])


def runs(net: Net) -> bool:
    """Whether it runs on one sample and on two: a view may depend on strides, which torch chooses by the batch."""
    try:
        return all(bool(net(torch.zeros(n, *SHAPE, dtype=torch.float64)).isfinite().any()) for n in (1, 2))
    except RuntimeError:
        return False


@dataclass
class Verdicts:
    """How many pairs were compared, those that are wrongly called the same, and those wrongly called different."""

    checked: int = 0
    same: list[tuple[Words, Words]] = field(default_factory=list)
    different: list[tuple[Words, Words]] = field(default_factory=list)


def verdicts(seed: int, count: int, device: str = "meta") -> Verdicts:
    result = Verdicts()
    with torch.no_grad():
        for words, others in networks(seed, count):
            reference = filled(Net(words), 2)
            if not runs(reference) or not reads_its_input(reference):
                continue
            network = trace(reference, SHAPE, "reference", device)
            for other in others:
                ours = filled(Net(other), 1)
                traced = trace(ours, SHAPE, "ours", device) if runs(ours) else None
                # A view may need strides that torch gives on the CPU only.
                if traced is not None and traced.failure is None and network.failure is None:
                    result.checked += 1
                    _judge(result, ours, reference, compare(traced, network))
    return result


def _judge(result: Verdicts, ours: Net, reference: Net, diff: Diff) -> None:
    pair, is_same = (ours.words, reference.words), same_to_torch(ours, reference)
    if diff.verdict == "different":
        result.different += [pair] if is_same else []
        return
    is_random = any("dropout" in word for word in chain(*pair))
    in_training = diff.verdict == "equivalent" or is_random or same_to_torch(ours, reference, training=True)
    result.same += [] if is_same and in_training else [pair]


def test_what_is_called_the_same_is_the_same_to_torch() -> None:
    result = verdicts(0, 114, "cpu")
    assert result.checked > 80
    assert result.same == []


EQUAL = (
    ("conv a", "f_conv a", "padded_conv a", "conv_same a"),
    ("conv1x1 a", "linear_last a"),
    ("linear_last a", "conv_of_matrix a", "linear_of_pixels a"),
    ("conv a", "conv_and_bias a"),
    ("relu", "where_0", "where_below_0", "times_mask", "times_float_mask", "filled_below_0", "set_below_0"),
    ("relu", "half_with_absolute", "minus_clamped"),
    ("f_leaky_tenth", "where_tenth", "largest_of_tenth", "relu_minus_relu"),
    ("hardsigmoid", "hardsigmoid_by_hand"),
    ("mish", "mish_by_hand"),
    ("squared", "times_itself"),
    ("shifted_then_scaled", "scaled_then_shifted"),
    ("flip_channels", "flip_channels_2"),
    ("identity", "flip_twice", "padded_and_cut"),
    ("residual_conv a", "residual_conv_swapped a"),
    ("bn a", "f_bn a", "bn_momentum a"),
    ("relu", "f_relu", "leaky_0", "clamp_0", "threshold_0", "f_threshold_0", "maximum_0", "maximum_number"),
    ("relu6", "clamp_0_6", "hardtanh_6"),
    ("dropout", "dropout_2", "dropout2d", "alpha_dropout", "identity", "f_dropout_off"),
    ("identity", "times_1", "plus_0", "chunks", "chunks_of_rows", "sliced", "stacked", "squeezed", "flat_and_back"),
    ("identity", "permuted_back", "upsample_same", "adaptive_same", "interpolated", "transposed_twice", "cloned"),
    ("identity", "leaky_1"),
    ("identity", "ones_buffer", "zeros_buffer"),
    ("mean_buffer", "mean_buffer_kept_out"),
    ("attention_of_pixels a", "attention_without_weights a"),
    ("minus_half", "plus_minus_half"),
    ("half", "times_half"),
    ("softmax", "f_softmax", "softmax_of_negative_axis"),
    ("silu", "times_sigmoid", "sigmoid_times", "times_sigmoid_flat"),
    ("hardswish", "times_hardsigmoid", "hardswish_by_hand"),
    ("relu_max_pool", "relu_pad_max_pool"),
    ("f_avg_pool_3", "pad_avg_pool", "avg_pool_3"),
    ("mean_of_map", "mean_of_means", "mean_of_pool", "mean_of_flat"),
    ("without_mean", "mean_of_means_kept", "sum_of_map"),
)
"""Words on maps that are the same function."""

EQUAL_ENDS = (
    ("max_pool", "adaptive_max", "f_max_pool", "f_max_pool_ceil"),
    ("avg_pool", "adaptive_avg", "f_avg_pool"),
    ("strided_avg_pool", "pad_strided_avg_pool"),
    ("strided_max_pool", "pad_strided_max_pool"),
    ("flatten", "f_flatten", "view"),
    ("fc a", "fc_conv a"),
    ("fc_2 a", "f_fc_2 a", "fc_2_conv a", "fc_2_matmul_and_bias a", "fc_2_addmm a", "fc_2_linear_and_bias a"),
)
"""The same for words after the maps; the first word of each stands where another stage is not compared."""


def _ends(word: str) -> Words:
    ends = [word if word in group else group[0] for group in EQUAL_ENDS[-3:]]
    return (word if word in POOLS else "max_pool", *ends)


def _equal_pairs() -> Iterator[tuple[Words, Words]]:
    for first, *others in EQUAL:
        for other in others:
            yield ("conv b", first, "conv c", *_ends("")), ("conv b", other, "conv c", *_ends(""))
    for first, *others in EQUAL_ENDS:
        for other in others:
            yield ("conv b", *_ends(first)), ("conv b", *_ends(other))


@pytest.mark.parametrize(("words", "other"), [pytest.param(*pair, id=" ".join(pair[1])) for pair in _equal_pairs()])
def test_what_is_the_same_is_called_the_same(words: Words, other: Words) -> None:
    with torch.no_grad():
        reference, ours = filled(Net(words), 1), filled(Net(other), 2)
        assert same_to_torch(ours, reference)
        diff = compare(trace(ours, SHAPE, "ours"), trace(reference, SHAPE, "reference"))
    assert diff.verdict != "different", diff.differences


KINDS = frozenset({"functions that commute", "a function that is applied twice"})
"""What is the same and called different: two kinds of pairs.

- Functions that commute, such as a normalised row and a flip, or a factor and a linear layer without a bias. The normal
  form has one order for functions of single values, layouts, numbers and biases only.
- Functions that are the same when they are applied twice, such as a mask or x - mean(x). That is known of clamps only.
"""


def kind_of(pair: tuple[Words, Words]) -> str:
    """The kind of a pair that is wrongly called different; all of its words if it is of no known kind."""
    one, other = (list(filter(None, map(_plain, _renamed(words)))) for words in pair)
    if sorted(one) == sorted(other):
        return "functions that commute"
    if set(one) == set(other):
        return "a function that is applied twice"
    return f"{pair}"


def _renamed(words: Words) -> Iterator[str]:
    """The words with the keys of their weights in the order of their first use."""
    keys: dict[tuple[str, str], int] = {}
    for word in words:
        name, _, key = word.partition(" ")
        kind = CALLS[name][0] if name in CALLS else name
        used = sum(other == kind for other, _ in keys if key)
        yield f"{name} {keys.setdefault((kind, key), used)}" if key else name


def _plain(word: str) -> str:
    """The first word of those that are the same function, in all groups; empty for the identity."""
    name, _, key = word.partition(" ")
    for group in (*EQUAL, *EQUAL_ENDS):
        if name in [other.partition(" ")[0] for other in group]:
            name = group[0].partition(" ")[0]
    return "" if name == "identity" else f"{name} {key}"


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 6))
def test_verdicts_are_those_of_torch_in_thousands(seed: int) -> None:
    """No pair is wrongly called the same, and two kinds of pairs at most are wrongly called different.

    A thousand pairs; `make fuzz` draws five thousand.
    """
    pairs = 1000 if settings.get_current_profile_name() == "fuzz" else 200
    result = verdicts(seed, pairs, "meta" if seed % 4 == 0 else "cpu")
    assert result.checked > 0.7 * pairs
    assert result.same == []
    assert {kind_of(pair) for pair in result.different} <= KINDS


UNEQUAL = [
    ("silu", "times_sigmoid_of_transposed"),
    ("relu_max_pool", "relu_pad_one_max_pool"),
    ("pad_max_pool", "max_pool_3"),
    ("strided_max_pool", "pad_wide_max_pool"),
    ("mean_of_means", "mean_of_means_otherwise"),
    ("where_0", "where_above_1"),
    ("where_0", "where_0_else_1"),
    ("where_0", "where_tenth"),
    ("times_mask", "times_mask_of_transposed"),
    ("linear_last a", "linear_of_last a"),
    ("conv a", "conv a", "conv b"),
    ("attention_to_half a", "attention_of_half a"),
    ("attention_of_pixels a", "attention_masked a"),
    ("rnn_of_pixels a", "rnn_relu_of_pixels a"),
    ("minus_conv a", "conv_minus a"),
    ("f_bn a", "f_bn_of_batch a"),
    ("by_deviation", "by_deviation_of_all"),
    ("flip", "flip_back"),
    ("mean_buffer", "mean_buffer_otherwise"),
    ("f_conv a", "f_conv_doubled a"),
    ("f_dropout", "f_dropout_2"),
    ("samples_as_channels", "identity"),
    ("channels_as_samples", "identity"),
    ("samples_as_channels", "channels_as_samples"),
]


@pytest.mark.parametrize("words", UNEQUAL, ids=" ".join)
def test_what_differs_is_called_different(words: Words) -> None:
    """The first entry stands for one convolution that is called twice."""
    one, other = ((words[0], word) for word in words[1:]) if len(words) == 3 else ((word,) for word in words)
    with torch.no_grad():
        ours, reference = filled(Net(one), 1), filled(Net(other), 2)
        assert not same_to_torch(ours, reference)
        assert compare(trace(ours, SHAPE, "ours"), trace(reference, SHAPE, "reference")).verdict == "different"


class Calls(nn.Module):
    """A function of the module and of a convolution's output, and a convolution after it."""

    def __init__(self, function: Callable[[Calls, Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.last = (nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1) for _ in range(2))
        self.linear, self.norm = nn.Linear(CHANNELS, CHANNELS), nn.BatchNorm2d(CHANNELS)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.function(self, self.first(x)))


def _written(x: Tensor, value: float) -> Tensor:
    x = x.clone()
    x[x < 0] = value
    return x


def _bn(net: Calls, x: Tensor, *, weight: bool = True, training: bool = False, eps: float = 1e-5) -> Tensor:
    norm = net.norm
    parameters = (norm.weight, norm.bias) if weight else (None, norm.bias)
    return F.batch_norm(x, norm.running_mean, norm.running_var, *parameters, training=training, eps=eps)


def _in_place(x: Tensor, *, copied: bool) -> Tensor:
    before = x.clone() if copied else x
    F.relu_(x)
    return before + x


def _rows(net: Calls, x: Tensor, **scales: float) -> Tensor:
    rows = x.permute(0, 2, 3, 1).reshape(-1, CHANNELS)
    return torch.addmm(net.linear.bias, rows, net.linear.weight.t(), **scales).view(x.shape)


DIFFERENT: dict[str, tuple[Callable[[Calls, Tensor], Tensor], ...]] = {
    "slopes": (
        lambda net, x: x.relu(),
        lambda net, x: torch.where(x > 0, 0, x),
        lambda net, x: torch.where(x > 0.5, x, 0),
        lambda net, x: torch.where(x > 0, x, -0.5),
        lambda net, x: torch.where(x > 0, x, 0.1 * x),
        lambda net, x: torch.where(x > 0, 0.1 * x, x),
        lambda net, x: torch.where(x.transpose(2, 3) > 0, x, 0),
        lambda net, x: torch.where(x[:, :1] > 0, x, 0),
        lambda net, x: torch.where(x > 0, x + 1, x),
        lambda net, x: torch.where(x.abs() > 0.3, x, 0),
        lambda net, x: (x > 0).to(x.dtype),
        lambda net, x: x * x * (x > 0),
        lambda net, x: x * (x.roll(1, 2) > 0),
        lambda net, x: x * (x.long() > 0),
        lambda net, x: x * (x > 0) * 2,
        lambda net, x: x.masked_fill(x < 0, 1),
        lambda net, x: torch.max(x, 2 * x),
        lambda net, x: torch.min(x, 2 * x) * 2,
        lambda net, x: (x + x.abs()) / 3,
        lambda net, x: x.relu() + (-x).relu(),
        lambda net, x: _written(x, 2),
        lambda net, x: F.threshold(x, 2, 0),
        lambda net, x: F.leaky_relu(x, -1.0) * 2,
    ),
    "pools": (
        lambda net, x: F.max_pool2d(x, 3, 2, 1),
        lambda net, x: F.max_pool2d(x.relu(), 3, 2, 1),
        lambda net, x: F.max_pool2d(F.pad(x.relu(), (0, 1, 0, 1)), 3, 2),
        lambda net, x: F.max_pool2d(-x, 3, 2, 1),
        lambda net, x: -F.max_pool2d(-x, 3, 2, 1),
        lambda net, x: F.leaky_relu(F.max_pool2d(x, 3, 2, 1), -1.0),
        lambda net, x: F.max_pool2d(F.leaky_relu(x, -1.0), 3, 2, 1) + 1,
        lambda net, x: F.avg_pool2d(x, 3, 2, 1),
        lambda net, x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
        lambda net, x: F.avg_pool2d(x, 3, 2, 1, divisor_override=4),
        lambda net, x: F.avg_pool2d(x[:, :, :3, :3], 2, 2, ceil_mode=True),
        lambda net, x: F.avg_pool2d(F.pad(x[:, :, :3, :3], (0, 1, 0, 1)), 2, 2),
        lambda net, x: x[:, :, ::2, ::2],
        lambda net, x: x[:, :, ::2, ::2].flip(2),
        lambda net, x: x.flip(2)[:, :, ::2, ::2],
    ),
    "products": (
        _rows,
        lambda net, x: _rows(net, x, beta=0.5),
        lambda net, x: _rows(net, x, alpha=0.5),
        lambda net, x: net.linear(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2),
        lambda net, x: net.linear(x.permute(0, 3, 2, 1)).permute(0, 3, 1, 2),
        lambda net, x: net.linear(x),
        lambda net, x: F.conv2d(x, net.linear.weight.t()[:, :, None, None], net.linear.bias),
        lambda net, x: F.conv2d(x, net.linear.weight[:, :, None, None], net.linear.bias.flip(0)),
        lambda net, x: F.conv2d(x, net.linear.weight.view(4, 4, 1, 1)),
        lambda net, x: F.conv2d(x, net.linear.weight.view(4, 4, 1, 1)) + net.linear.bias,
        lambda net, x: F.conv2d(x, net.linear.weight.view(4, 4, 1, 1)) - net.linear.bias.view(-1, 1, 1),
        lambda net, x: F.conv2d(x + net.linear.bias.view(-1, 1, 1), net.linear.weight.view(4, 4, 1, 1)),
        lambda net, x: F.conv2d(x, net.linear.weight.view(4, 4, 1, 1)) + net.linear.bias.view(-1, 1, 1) * 2,
    ),
    "numbers": (
        lambda net, x: torch.add(x, x.sigmoid(), alpha=2),
        lambda net, x: x + x.sigmoid(),
        lambda net, x: x - x.sigmoid(),
        lambda net, x: x.sigmoid() - x,
        lambda net, x: x * x.sigmoid(),
        lambda net, x: x * (2 * x).sigmoid(),
        lambda net, x: x * F.relu6(x + 3) / 6,
        lambda net, x: x * F.relu6(x + 2) / 6,
        lambda net, x: F.mish(x),
        lambda net, x: x * x,
        lambda net, x: x * x.abs(),
        lambda net, x: (x - 0.5) / 0.25,
        lambda net, x: x / 0.25 - 0.5,
        lambda net, x: x.half().to(x.dtype),
        lambda net, x: x.bfloat16().to(x.dtype),
        lambda net, x: x.int().to(x.dtype),
        lambda net, x: x - x.sum((2, 3), keepdim=True),
        lambda net, x: x - x.mean((2, 3), keepdim=True),
        lambda net, x: x - x.transpose(1, 2).flatten(2).mean(2)[:, :, None, None],
    ),
    "layouts": (
        lambda net, x: x.flip(1),
        lambda net, x: x.flip(1, 2),
        lambda net, x: x[:, [3, 2, 0, 1]],
        lambda net, x: x[:, :, [3, 2, 1, 0]],
        lambda net, x: x[:, [0, 1, 2, 3]],
        lambda net, x: x.roll(1, 1),
        lambda net, x: F.pad(x, (1, 1, 1, 1))[:, :, :-2, 1:-1],
        lambda net, x: F.pad(x, (1, 1, 1, 1), value=1.0)[:, :, :-2, 1:-1],
        lambda net, x: F.pad(x, (1, 1, 1, 1), mode="reflect")[:, :, :-2, 1:-1],
        lambda net, x: torch.cat([x[:, :2].relu(), x[:, 2:]], 1),
        lambda net, x: torch.cat([x[:, 2:], x[:, :2]], 1).relu(),
        lambda net, x: torch.cat([x[:, :2], x[:, 2:].relu()], 1),
    ),
    "state": (
        _bn,
        lambda net, x: _bn(net, x, eps=0.1),
        lambda net, x: _bn(net, x, weight=False),
        lambda net, x: _bn(net, x, training=True),
        lambda net, x: _in_place(x, copied=True),
        lambda net, x: _in_place(x, copied=False),
        lambda net, x: net.last(x),
        lambda net, x: net.first(x),
        lambda net, x: F.dropout(x),
        lambda net, x: F.dropout(x, 0.2),
    ),
}
"""Functions of which no two are the same."""


@pytest.mark.parametrize(
    "group", [pytest.param(name, marks=[] if name == "products" else [pytest.mark.slow]) for name in DIFFERENT]
)
def test_no_two_functions_of_a_group_are_called_the_same(group: str) -> None:
    functions = DIFFERENT[group]
    with torch.no_grad():
        outputs = [_outputs(function) for function in functions]
        networks = [trace(filled(Calls(function), 0), SHAPE, "net") for function in functions]
    for place, ours in enumerate(networks):
        for other in range(place):
            is_same = all(a.shape == b.shape and torch.allclose(a, b) for a, b in zip(outputs[place], outputs[other]))
            assert not is_same, (place, other)
            assert compare(ours, networks[other]).verdict == "different", (place, other)


def _outputs(function: Callable[[Calls, Tensor], Tensor]) -> list[Tensor]:
    outputs = []
    for seed, (scale, size) in enumerate(DRAWS):
        x = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * size
        net = filled(Calls(function), seed, scale)
        torch.manual_seed(0)
        outputs.append(net(x))
    return outputs


class Masked(nn.Module):
    """Attention with a mask that is a buffer, or with one that is computed from an input."""

    def __init__(self, mask: Tensor | None, padding: int = 0) -> None:
        super().__init__()
        self.attention, self.padding = nn.MultiheadAttention(8, 2, batch_first=True), padding
        self.register_buffer("mask", mask)

    def forward(self, x: Tensor, ids: Tensor) -> Tensor:
        padded = ids == self.padding
        attended: Tensor = self.attention(x, x, x, attn_mask=self.mask, key_padding_mask=padded)[0]
        return attended


CAUSAL = torch.ones(4, 4, dtype=torch.bool).triu(1)


@pytest.mark.parametrize(
    ("reference", "is_same"),
    [
        (Masked(CAUSAL), True),
        (Masked(torch.zeros(4, 4, dtype=torch.bool)), False),
        (Masked(None), False),
        (Masked(CAUSAL, 1), False),
    ],
)
def test_masks_of_attention_are_compared(reference: nn.Module, is_same: bool) -> None:
    inputs = (torch.zeros(2, 4, 8), torch.zeros(2, 4, dtype=torch.int64))
    network = vggscope.network(Masked(CAUSAL), input_data=inputs)
    assert network.by_name["attention"].inputs == ("x", "eq")
    verdict = vggscope.diff(Masked(CAUSAL), ref=reference, input_data=inputs).verdict
    assert (verdict == "identical") is is_same


class Returns(nn.Module):
    """Two convolutions whose outputs a function returns."""

    def __init__(self, function: Callable[[Tensor, Tensor], object]) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
        self.function = function

    def forward(self, x: Tensor) -> object:
        y = self.first(x)
        return self.function(y, self.second(y))


RETURNED: list[tuple[Callable[[Tensor, Tensor], object], Callable[[Tensor, Tensor], object]]] = [
    (lambda y, z: (y, z), lambda y, z: (z, y)),
    (lambda y, z: (y, z), lambda y, z: (y, y)),
    (lambda y, z: {"image": y.sin(), "mask": z.cos()}, lambda y, z: {"image": z.cos(), "mask": y.sin()}),
]


@pytest.mark.parametrize(("ours", "reference"), RETURNED)
def test_every_returned_tensor_is_compared(ours: Callable[..., object], reference: Callable[..., object]) -> None:
    first, second, again = (Returns(function) for function in (ours, reference, ours))
    assert vggscope.diff(first, ref=second, input_size=(1, 3, 8, 8)).verdict == "different"
    assert vggscope.diff(first, ref=again, input_size=(1, 3, 8, 8)).verdict == "identical"


def test_a_parameter_does_not_stand_for_a_running_statistic() -> None:
    class Norm(nn.Module):
        def __init__(self, *, trains_mean: bool) -> None:
            super().__init__()
            mean, self.var = torch.zeros(CHANNELS), nn.Buffer(torch.ones(CHANNELS))
            self.mean = nn.Parameter(mean) if trains_mean else nn.Buffer(mean)
            self.weight, self.bias = (nn.Parameter(torch.ones(CHANNELS)) for _ in range(2))

        def forward(self, x: Tensor) -> Tensor:
            return F.batch_norm(x, self.mean, self.var, self.weight, self.bias)

    size = (CHANNELS, 4, 4)
    buffered, trained = Norm(trains_mean=False), Norm(trains_mean=True)
    assert vggscope.diff(buffered, ref=Norm(trains_mean=False), input_size=size).verdict != "different"
    assert vggscope.diff(buffered, ref=nn.BatchNorm2d(CHANNELS), input_size=size).verdict != "different"
    assert vggscope.diff(trained, ref=buffered, input_size=size).verdict == "different"
    assert vggscope.diff(buffered, ref=trained, input_size=size).verdict == "different"


def test_a_normalised_weight_is_not_the_weight() -> None:
    plain, normalised, other, unit = (nn.Sequential(nn.Conv2d(3, 3, 3), nn.ReLU()) for _ in range(4))
    nn.utils.parametrizations.spectral_norm(normalised[0])
    nn.utils.parametrizations.spectral_norm(other[0])
    nn.utils.parametrizations.orthogonal(unit[0])
    assert vggscope.diff(normalised, ref=other, input_size=(1, 3, 8, 8)).verdict == "identical"
    for model, reference in ((normalised, plain), (plain, normalised), (normalised, unit)):
        assert vggscope.diff(model, ref=reference, input_size=(1, 3, 8, 8)).verdict == "different"
