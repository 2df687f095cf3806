"""What diff calls the same is the same: torch decides on networks that are rewritten in many ways."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain

import pytest
import torch
from torch import Tensor, nn

import vggscope
from tests.rewrites import CHANNELS, POOLS, SIDE, Net, Words, networks
from vggscope.diffing.compare import compare
from vggscope.diffing.result import Diff
from vggscope.trace.run import trace

SHAPE = (CHANNELS, SIDE, SIDE)


def filled(module: nn.Module, seed: int) -> nn.Module:
    """The module in float64 with random weights, and running variances above 0."""
    generator = torch.Generator().manual_seed(seed)
    module.double().eval()
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point() and not name.endswith("constant"):
            tensor.copy_(torch.randn(tensor.shape, generator=generator, dtype=torch.float64))
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
    for a, b in zip(ours, theirs):
        b.copy_(a.reshape(b.shape))
    for seed in (0, 1):
        x = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 4
        outputs = [_output(net.train(training), x) for net in (one, other)]
        if outputs[0].numel() != outputs[1].numel():
            return False
        if not torch.allclose(outputs[0].flatten(), outputs[1].flatten(), rtol=1e-6, atol=1e-9, equal_nan=True):
            return False
    return True


def _output(net: Net, x: Tensor) -> Tensor:
    torch.manual_seed(0)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    try:
        return net(x.clone())
    finally:
        net.load_state_dict(before)  # running statistics


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
            if not runs(reference):
                continue
            network = trace(reference, SHAPE, "reference", device)
            for other in others:
                ours = filled(Net(other), 1)
                if runs(ours):
                    result.checked += 1
                    _judge(result, ours, reference, compare(trace(ours, SHAPE, "ours", device), network))
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
    result = verdicts(0, 100, "cpu")
    assert result.checked > 80
    assert result.same == []


EQUAL = (
    ("conv a", "f_conv a", "padded_conv a", "conv_same a"),
    ("conv1x1 a", "linear_last a"),
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
    ("hardswish", "times_hardsigmoid"),
    ("relu_max_pool", "relu_pad_max_pool"),
    ("f_avg_pool_3", "pad_avg_pool", "avg_pool_3"),
    ("mean_of_map", "mean_of_means", "mean_of_pool"),
    ("without_mean", "mean_of_means_kept"),
)
"""Words on maps that are the same function."""

EQUAL_ENDS = (
    ("max_pool", "adaptive_max", "f_max_pool", "f_max_pool_ceil"),
    ("avg_pool", "adaptive_avg", "f_avg_pool"),
    ("strided_avg_pool", "pad_strided_avg_pool"),
    ("strided_max_pool", "pad_strided_max_pool"),
    ("flatten", "f_flatten", "view"),
    ("fc a", "fc_conv a"),
    ("fc_2 a", "f_fc_2 a", "fc_2_conv a"),
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


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 5))
def test_what_is_called_the_same_is_the_same_to_torch_in_thousands(seed: int) -> None:
    result = verdicts(seed, 500, "meta" if seed % 4 == 0 else "cpu")
    assert result.checked > 400
    assert result.same == []


UNEQUAL = [
    ("silu", "times_sigmoid_of_transposed"),
    ("relu_max_pool", "relu_pad_one_max_pool"),
    ("pad_max_pool", "max_pool_3"),
    ("strided_max_pool", "pad_wide_max_pool"),
    ("mean_of_means", "mean_of_means_otherwise"),
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


def test_a_normalised_weight_is_not_the_weight() -> None:
    plain, normalised, other, unit = (nn.Sequential(nn.Conv2d(3, 3, 3), nn.ReLU()) for _ in range(4))
    nn.utils.parametrizations.spectral_norm(normalised[0])
    nn.utils.parametrizations.spectral_norm(other[0])
    nn.utils.parametrizations.orthogonal(unit[0])
    assert vggscope.diff(normalised, ref=other, input_size=(1, 3, 8, 8)).verdict == "identical"
    for model, reference in ((normalised, plain), (plain, normalised), (normalised, unit)):
        assert vggscope.diff(model, ref=reference, input_size=(1, 3, 8, 8)).verdict == "different"
