"""Small networks as lists of words, and the rewriting of one into another, for the proofs of diff.

A word is an operation, with the key of its weights if it has some: `conv a`, `relu`, `flip`. Two words with one key
share the weights. The image has CHANNELS channels and SIDE x SIDE pixels. Most words keep that shape, so that they can
be inserted, removed, exchanged and swapped freely.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from random import Random

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - as everybody writes it

CHANNELS, SIDE = 4, 4

MEAN = [0.4, 0.5, 0.6, 0.5]


class Constant(nn.Module):
    """The input times, or less, a registered buffer whose values stay as they are."""

    def __init__(self, values: list[float], *, is_factor: bool = False, persistent: bool = True) -> None:
        super().__init__()
        self.is_factor = is_factor
        self.register_buffer("constant", torch.tensor(values)[:, None, None], persistent)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.constant if self.is_factor else x - self.constant


class Scale(nn.Module):
    """The input times a learned factor of each channel, and plus a learned number if `shifts`."""

    def __init__(self, *, shifts: bool = False, axis: int = 1) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones([CHANNELS if i == axis else 1 for i in range(1, 4)]))
        self.shift = nn.Parameter(torch.zeros(1)) if shifts else None

    def forward(self, x: Tensor) -> Tensor:
        x = x * self.factor
        return x if self.shift is None else x + self.shift


def _conv(**options: object) -> Callable[[], nn.Module]:
    return lambda: nn.Conv2d(CHANNELS, CHANNELS, **options)  # type: ignore[arg-type]


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "conv": _conv(kernel_size=3, padding=1),
    "conv_same": _conv(kernel_size=3, padding="same"),
    "conv_no_bias": _conv(kernel_size=3, padding=1, bias=False),
    "conv_reflect": _conv(kernel_size=3, padding=1, padding_mode="reflect"),
    "conv_circular": _conv(kernel_size=3, padding=1, padding_mode="circular"),
    "conv_dilated": _conv(kernel_size=3, padding=2, dilation=2),
    "conv_grouped": _conv(kernel_size=3, padding=1, groups=2),
    "conv_bare": _conv(kernel_size=3),
    "conv1x1": _conv(kernel_size=1),
    "linear_of_channels": partial(nn.Linear, CHANNELS, CHANNELS),
    "bn": lambda: nn.BatchNorm2d(CHANNELS),
    "bn_eps": lambda: nn.BatchNorm2d(CHANNELS, eps=0.1),
    "bn_momentum": lambda: nn.BatchNorm2d(CHANNELS, momentum=0.3),
    "bn_plain": lambda: nn.BatchNorm2d(CHANNELS, affine=False),
    "bn_of_batch": lambda: nn.BatchNorm2d(CHANNELS, track_running_stats=False),
    "group_norm": lambda: nn.GroupNorm(2, CHANNELS),
    "group_norm_4": lambda: nn.GroupNorm(4, CHANNELS),
    "layer_norm": lambda: nn.LayerNorm((CHANNELS, SIDE, SIDE)),
    "prelu": nn.PReLU,
    "prelu_of_channels": lambda: nn.PReLU(CHANNELS),
    "relu": nn.ReLU,
    "relu_in_place": lambda: nn.ReLU(inplace=True),
    "relu6": nn.ReLU6,
    "leaky_0": lambda: nn.LeakyReLU(0),
    "leaky": nn.LeakyReLU,
    "leaky_2": lambda: nn.LeakyReLU(0.2),
    "leaky_1": lambda: nn.LeakyReLU(1.0),
    "hardtanh_6": lambda: nn.Hardtanh(0, 6),
    "hardtanh": nn.Hardtanh,
    "threshold_0": lambda: nn.Threshold(0, 0),
    "threshold": lambda: nn.Threshold(0.1, 0),
    "elu": nn.ELU,
    "elu_2": lambda: nn.ELU(2.0),
    "gelu": nn.GELU,
    "gelu_tanh": lambda: nn.GELU(approximate="tanh"),
    "dropout": nn.Dropout,
    "dropout_2": lambda: nn.Dropout(0.2),
    "dropout2d": nn.Dropout2d,
    "alpha_dropout": nn.AlphaDropout,
    "identity": nn.Identity,
    "max_pool_3": lambda: nn.MaxPool2d(3, 1, 1),
    "avg_pool_3": lambda: nn.AvgPool2d(3, 1, 1),
    "avg_pool_3_inside": lambda: nn.AvgPool2d(3, 1, 1, count_include_pad=False),
    "lrn": lambda: nn.LocalResponseNorm(2),
    "lrn_k": lambda: nn.LocalResponseNorm(2, k=2.0),
    "softmax": lambda: nn.Softmax(1),
    "softmax_2": lambda: nn.Softmax(2),
    "upsample_same": lambda: nn.Upsample(size=SIDE),
    "adaptive_same": lambda: nn.AdaptiveAvgPool2d(SIDE),
    "instance_norm": lambda: nn.InstanceNorm2d(CHANNELS),
    "scale": Scale,
    "scale_of_rows": lambda: Scale(axis=2),
    "scale_and_shift": lambda: Scale(shifts=True),
    "mean_buffer": lambda: Constant(MEAN),
    "mean_buffer_kept_out": lambda: Constant(MEAN, persistent=False),
    "mean_buffer_otherwise": lambda: Constant(MEAN[::-1]),
    "factor_buffer": lambda: Constant(MEAN, is_factor=True),
    "ones_buffer": lambda: Constant([1.0] * CHANNELS, is_factor=True),
    "zeros_buffer": lambda: Constant([0.0] * CHANNELS),
    "rnn": lambda: nn.RNN(CHANNELS, CHANNELS, batch_first=True),
    "rnn_relu": lambda: nn.RNN(CHANNELS, CHANNELS, batch_first=True, nonlinearity="relu"),
    "attention": lambda: nn.MultiheadAttention(CHANNELS, 2, batch_first=True),
    "one_head": lambda: nn.MultiheadAttention(CHANNELS, 1, batch_first=True),
    # words that end the maps
    "max_pool": lambda: nn.MaxPool2d(2),
    "avg_pool": lambda: nn.AvgPool2d(2),
    "avg_pool_divisor": lambda: nn.AvgPool2d(2, divisor_override=3),
    "adaptive_max": lambda: nn.AdaptiveMaxPool2d(SIDE // 2),
    "adaptive_avg": lambda: nn.AdaptiveAvgPool2d(SIDE // 2),
    "lp_pool": lambda: nn.LPPool2d(2, 2),
    "flatten": nn.Flatten,
    "fc": lambda: nn.Linear(CHANNELS * (SIDE // 2) ** 2, 5),
    "fc_as_conv": lambda: nn.Conv2d(CHANNELS, 5, SIDE // 2),
    "fc_2": lambda: nn.Linear(5, 5),
    "fc_2_no_bias": lambda: nn.Linear(5, 5, bias=False),
    "fc_2_as_conv": lambda: nn.Conv2d(5, 5, 1),
}
"""Words that are modules. Those with weights have a key."""


def _with_zeros(x: Tensor) -> Tensor:
    x = x.clone()
    x[x < 0] = 0
    return x


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "f_relu": F.relu,
    "clamp_0": lambda x: x.clamp(min=0),
    "clamp_0_6": lambda x: torch.clamp(x, 0, 6),
    "clamp_0_1": lambda x: x.clamp(0, 1),
    "clamp_max": lambda x: x.clamp(max=0),
    "maximum_0": lambda x: torch.maximum(x, torch.zeros_like(x)),
    "maximum_number": lambda x: torch.maximum(x, torch.tensor(0.0, dtype=x.dtype)),
    "minimum_number": lambda x: torch.minimum(x, torch.tensor(0.0, dtype=x.dtype)),
    "maximum_1": lambda x: torch.maximum(x, torch.ones_like(x)),
    "where_0": lambda x: torch.where(x > 0, x, 0),
    "where_below_0": lambda x: torch.where(x <= 0, torch.zeros_like(x), x),
    "times_mask": lambda x: x * (x > 0),
    "times_float_mask": lambda x: (x >= 0).to(x.dtype) * x,
    "filled_below_0": lambda x: x.masked_fill(x < 0, 0),
    "set_below_0": _with_zeros,
    "half_with_absolute": lambda x: (x + x.abs()) / 2,
    "minus_clamped": lambda x: -(-x).clamp(max=0),
    "where_tenth": lambda x: torch.where(x > 0, x, 0.1 * x),
    "largest_of_tenth": lambda x: torch.max(x, 0.1 * x),
    "f_leaky_tenth": lambda x: F.leaky_relu(x, 0.1),
    "relu_minus_relu": lambda x: x.relu() - 0.1 * (-x).relu(),
    "where_above_1": lambda x: torch.where(x > 1, x, 0),
    "where_0_else_1": lambda x: torch.where(x > 0, x, 1),
    "times_mask_of_transposed": lambda x: x * (x.transpose(2, 3) > 0),
    "hardsigmoid": F.hardsigmoid,
    "hardsigmoid_by_hand": lambda x: F.relu6(x + 3) / 6,
    "hardswish_by_hand": lambda x: x * F.relu6(x + 3) / 6,
    "mish": F.mish,
    "mish_by_hand": lambda x: x * F.softplus(x).tanh(),
    "mean_of_flat": lambda x: x - x.flatten(2).mean(2)[:, :, None, None],
    "sum_of_map": lambda x: x - x.sum((2, 3), keepdim=True) / SIDE**2,
    "flip_twice": lambda x: x.flip(2).flip(2),
    "times_itself": lambda x: x * x,
    "scaled_then_shifted": lambda x: x / 0.225 - 2,
    "shifted_then_scaled": lambda x: (x - 0.45) / 0.225,
    "f_leaky": lambda x: F.leaky_relu(x, 0.01),
    "f_threshold_0": lambda x: F.threshold(x, 0.0, 0.0),
    "f_dropout": F.dropout,
    "f_dropout_2": lambda x: F.dropout(x, 0.2),
    "f_dropout_off": lambda x: F.dropout(x, training=False),
    "times_1": lambda x: x * 1.0,
    "times_2": lambda x: x * 2.0,
    "times_3": lambda x: x * 3.0,
    "half": lambda x: x / 2,
    "times_half": lambda x: x * 0.5,
    "plus_0": lambda x: x + 0,
    "plus_1": lambda x: x + 1,
    "minus_half": lambda x: x - 0.5,
    "plus_minus_half": lambda x: x + -0.5,
    "half_minus": lambda x: 0.5 - x,
    "negated": lambda x: -x,
    "divided": lambda x: x / 0.224,
    "normalised": lambda x: (x - torch.tensor(MEAN, dtype=x.dtype).view(1, -1, 1, 1)) / 0.225,
    "normalised_otherwise": lambda x: (x - torch.tensor(MEAN[::-1], dtype=x.dtype).view(1, -1, 1, 1)) / 0.225,
    "normalised_last": lambda x: (x - torch.tensor(MEAN, dtype=x.dtype).view(1, 1, 1, -1)) / 0.225,
    "weighted": lambda x: x * torch.arange(CHANNELS, dtype=x.dtype)[:, None, None],
    "weighted_rows": lambda x: x * torch.arange(CHANNELS, dtype=x.dtype)[:, None],
    "masked": lambda x: x * torch.ones(SIDE, SIDE, dtype=x.dtype).tril(),
    "masked_above": lambda x: x * torch.ones(SIDE, SIDE, dtype=x.dtype).triu(),
    "flip": lambda x: x.flip(2),
    "flip_back": lambda x: x.flip(3),
    "flip_channels": lambda x: x[:, [3, 2, 1, 0]],
    "flip_channels_2": lambda x: torch.flip(x, [1]),
    "roll": lambda x: x.roll(1, 2),
    "roll_2": lambda x: torch.roll(x, 2, 2),
    "transposed": lambda x: x.transpose(2, 3),
    "transposed_twice": lambda x: x.transpose(2, 3).transpose(2, 3),
    "permuted": lambda x: x.permute(0, 2, 3, 1),
    "permuted_back": lambda x: x.permute(0, 2, 3, 1).permute(0, 3, 1, 2),
    "viewed": lambda x: x.reshape(x.shape[0], x.shape[2], x.shape[1], *x.shape[3:]),
    "flat_and_back": lambda x: x.flatten(1).view(x.shape),
    "squeezed": lambda x: x.unsqueeze(1).squeeze(1),
    "chunks": lambda x: torch.cat(x.chunk(2, 1), 1),
    "chunks_swapped": lambda x: torch.cat(x.chunk(2, 1)[::-1], 1),
    "chunks_of_rows": lambda x: torch.cat(x.split(1, 2), 2),
    "chunks_along_others": lambda x: torch.cat(x.chunk(2, 1), 1).transpose(1, 2),
    "first_repeated": lambda x: torch.cat([x[:, :2], x[:, :2]], 1),
    "sliced": lambda x: torch.cat([x[:, :1], x[:, 1:]], 1),
    "stacked": lambda x: torch.stack(x.unbind(1), 1),
    "stacked_swapped": lambda x: torch.stack(x.unbind(1)[::-1], 1),
    "padded_and_cut": lambda x: F.pad(x, (1, 1, 1, 1))[:, :, 1:-1, 1:-1],
    "shifted": lambda x: F.pad(x, (1, 1, 1, 1))[:, :, :-2, :-2],
    "shifted_ones": lambda x: F.pad(x, (1, 1, 1, 1), value=1.0)[:, :, :-2, :-2],
    "cloned": lambda x: x.clone(),
    "samples_as_channels": lambda x: x.reshape(CHANNELS, -1, *x.shape[2:]).transpose(0, 1),
    "channels_as_samples": lambda x: x.transpose(0, 1).reshape(-1, *x.shape[1:]),
    "cast": lambda x: x.half().to(x.dtype),
    "f_softmax": lambda x: F.softmax(x, 1),
    "f_softmax_3": lambda x: F.softmax(x, 3),
    "softmax_of_negative_axis": lambda x: x.softmax(-3),
    "log_softmax": lambda x: F.log_softmax(x, 1),
    "interpolated": lambda x: F.interpolate(x, size=SIDE, mode="bilinear"),
    "interpolated_nearly": lambda x: F.interpolate(x, scale_factor=1.1, mode="bilinear"),
    "doubled_and_pooled": lambda x: F.avg_pool2d(F.interpolate(x, scale_factor=2), 2),
    "without_mean": lambda x: x - x.mean((2, 3), keepdim=True),
    "mean_minus": lambda x: x.mean((2, 3), keepdim=True) - x,
    "without_mean_of_rows": lambda x: x - x.mean(2, keepdim=True),
    "by_deviation": lambda x: x / x.std(1, keepdim=True),
    "by_deviation_of_all": lambda x: x / x.std(1, keepdim=True, unbiased=False),
    "norm": F.normalize,
    "norm_of_rows": lambda x: F.normalize(x, dim=2),
    "squared": lambda x: x**2,
    "cubed": lambda x: x**3,
    "absolute": lambda x: x.abs(),
    "doubled": lambda x: x + x,
    "scaled_in_place": lambda x: x.clone().mul_(2),
    "row_set": lambda x: _with_row(x, 0),
    "last_row_set": lambda x: _with_row(x, 3),
    "row_set_to_one": lambda x: _with_row(x, 0, 1.0),
    "batch_norm_of_batch": lambda x: F.batch_norm(x, None, None, training=True),
    "sorted": lambda x: x.sort(2)[0],
    "sorted_down": lambda x: x.sort(2, descending=True)[0],
    "cumulated": lambda x: x.cumsum(2),
    "cumulated_columns": lambda x: x.cumsum(3),
    "silu": F.silu,
    "times_sigmoid": lambda x: x * torch.sigmoid(x),
    "sigmoid_times": lambda x: x.sigmoid() * x,
    "times_sigmoid_flat": lambda x: (x.flatten(1) * x.flatten(1).sigmoid()).view(x.shape),
    "times_sigmoid_of_transposed": lambda x: x * x.transpose(2, 3).sigmoid(),
    "hardswish": F.hardswish,
    "times_hardsigmoid": lambda x: x * F.hardsigmoid(x),
    "relu_max_pool": lambda x: F.max_pool2d(x.relu(), 3, 1, 1),
    "relu_pad_max_pool": lambda x: F.max_pool2d(F.pad(x.relu(), (1, 1, 1, 1)), 3, 1),
    "pad_max_pool": lambda x: F.max_pool2d(F.pad(x, (1, 1, 1, 1)), 3, 1),
    "relu_pad_one_max_pool": lambda x: F.max_pool2d(F.pad(x.relu(), (1, 1, 1, 1), value=1.0), 3, 1),
    "f_avg_pool_3": lambda x: F.avg_pool2d(x, 3, 1, 1),
    "pad_avg_pool": lambda x: F.avg_pool2d(F.pad(x, (1, 1, 1, 1)), 3, 1),
    "mean_of_map": lambda x: x - x.mean((2, 3))[:, :, None, None],
    "mean_of_means": lambda x: x - x.mean(-1).mean(-1)[:, :, None, None],
    "mean_of_means_kept": lambda x: x - x.mean(2, keepdim=True).mean(3, keepdim=True),
    "mean_of_pool": lambda x: x - F.adaptive_avg_pool2d(x, 1),
    "mean_of_means_otherwise": lambda x: x - x.mean(-1).mean(1)[:, None, :, None],
    "strided_avg_pool": lambda x: F.avg_pool2d(x, 3, 2, 1),
    "pad_strided_avg_pool": lambda x: F.avg_pool2d(F.pad(x, (1, 1, 1, 1)), 3, 2),
    "strided_max_pool": lambda x: F.max_pool2d(x.relu(), 3, 2, 1),
    "pad_strided_max_pool": lambda x: F.max_pool2d(F.pad(x.relu(), (1, 1, 1, 1)), 3, 2),
    "pad_wide_max_pool": lambda x: F.max_pool2d(F.pad(x.relu(), (0, 1, 0, 1)), 3, 2),
    "f_max_pool": lambda x: F.max_pool2d(x, 2),
    "f_avg_pool": lambda x: F.avg_pool2d(x, 2),
    "f_max_pool_ceil": lambda x: F.max_pool2d(x, 2, ceil_mode=True),
    "every_second": lambda x: x[:, :, ::2, ::2],
    "every_second_from_1": lambda x: x[:, :, 1::2, 1::2],
    "f_flatten": lambda x: torch.flatten(x, 1),
    "view": lambda x: x.view(x.shape[0], -1),
    "flatten_permuted": lambda x: x.permute(0, 2, 3, 1).flatten(1),
    "f_softmax_of_row": lambda x: x.softmax(-1),
}
"""Words that are functions."""


def _with_row(x: Tensor, row: int, value: float = 0.0) -> Tensor:
    x = x.clone()
    x[:, :, row] = value
    return x


def _pad_first(mode: str, value: float = 0.0) -> Callable[[nn.Module, Tensor], Tensor]:
    def run(layer: nn.Module, x: Tensor) -> Tensor:
        return layer(F.pad(x, (1, 1, 1, 1), mode, value if mode == "constant" else None))

    return run


def _on_tokens(
    name: str, run: Callable[[nn.Module, Tensor], Tensor]
) -> tuple[str, Callable[[nn.Module, Tensor], Tensor]]:
    """A call of a layer on the pixels as a sequence."""

    def call(layer: nn.Module, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        return run(layer, tokens).transpose(1, 2).reshape(x.shape)

    return name, call


def _masked(layer: nn.Module, x: Tensor) -> Tensor:
    mask = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
    return layer(x, x, x, attn_mask=mask)[0]


CALLS: dict[str, tuple[str, Callable[[nn.Module, Tensor], Tensor]]] = {
    "padded_conv": ("conv_bare", _pad_first("constant")),
    "conv_padded_with_one": ("conv_bare", _pad_first("constant", 1.0)),
    "conv_padded_by_reflection": ("conv_bare", _pad_first("reflect")),
    "conv_padded_by_copies": ("conv_bare", _pad_first("replicate")),
    "rnn_of_pixels": _on_tokens("rnn", lambda layer, x: layer(x)[0]),
    "rnn_relu_of_pixels": _on_tokens("rnn_relu", lambda layer, x: layer(x)[0]),
    "rnn_backwards": _on_tokens("rnn", lambda layer, x: layer(x.flip(1))[0].flip(1)),
    "attention_of_pixels": _on_tokens("attention", lambda layer, x: layer(x, x, x)[0]),
    "attention_without_weights": _on_tokens("attention", lambda layer, x: layer(x, x, x, need_weights=False)[0]),
    "attention_to_half": _on_tokens("attention", lambda layer, x: layer(x, x * 0.5, x)[0]),
    "attention_of_half": _on_tokens("attention", lambda layer, x: layer(x, x, x * 0.5)[0]),
    "attention_masked": _on_tokens("attention", _masked),
    "attention_of_one_head": _on_tokens("one_head", lambda layer, x: layer(x, x, x)[0]),
    "f_conv": ("conv", lambda layer, x: F.conv2d(x, layer.weight, layer.bias, padding=1)),
    "conv_and_bias": (
        "conv",
        lambda layer, x: F.conv2d(x, layer.weight, padding=1) + layer.bias.view(1, -1, 1, 1),
    ),
    "conv_of_matrix": ("linear_of_channels", lambda layer, x: F.conv2d(x, layer.weight[:, :, None, None], layer.bias)),
    "linear_of_pixels": (
        "linear_of_channels",
        lambda layer, x: layer(x.flatten(2).transpose(1, 2)).transpose(1, 2).reshape(x.shape),
    ),
    "linear_of_last": ("linear_of_channels", lambda layer, x: layer(x)),
    "f_conv_doubled": ("conv", lambda layer, x: F.conv2d(x, layer.weight * 2, layer.bias, padding=1)),
    "f_conv_flipped": ("conv", lambda layer, x: F.conv2d(x, layer.weight.flip(2), layer.bias, padding=1)),
    "f_conv_transposed": ("conv", lambda layer, x: F.conv2d(x, layer.weight.transpose(0, 1), layer.bias, padding=1)),
    "f_bn": (
        "bn",
        lambda layer, x: F.batch_norm(x, layer.running_mean, layer.running_var, layer.weight, layer.bias),
    ),
    "f_bn_of_batch": (
        "bn",
        lambda layer, x: F.batch_norm(
            x, layer.running_mean, layer.running_var, layer.weight, layer.bias, training=True
        ),
    ),
    "residual_conv": ("conv", lambda layer, x: x + layer(x)),
    "residual_conv_swapped": ("conv", lambda layer, x: layer(x) + x),
    "conv_minus": ("conv", lambda layer, x: layer(x) - x),
    "minus_conv": ("conv", lambda layer, x: x - layer(x)),
    "conv_twice": ("conv", lambda layer, x: layer(layer(x))),
    "conv_of_half": ("conv", lambda layer, x: layer(torch.cat([x[:, 2:], x[:, :2]], 1))),
    "conv_gated": ("conv", lambda layer, x: layer(x) * x.sigmoid()),
    "linear_last": ("linear_of_channels", lambda layer, x: layer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)),
    "fc_conv": ("fc_as_conv", lambda layer, x: layer(x.view(x.shape[0], CHANNELS, SIDE // 2, SIDE // 2)).flatten(1)),
    "fc_2_conv": ("fc_2_as_conv", lambda layer, x: layer(x[:, :, None, None]).flatten(1)),
    "f_fc_2": ("fc_2", lambda layer, x: F.linear(x, layer.weight, layer.bias)),
    "fc_2_matmul_and_bias": ("fc_2", lambda layer, x: x @ layer.weight.t() + layer.bias),
    "fc_2_addmm": ("fc_2", lambda layer, x: torch.addmm(layer.bias, x, layer.weight.T)),
    "fc_2_addmm_half": ("fc_2", lambda layer, x: torch.addmm(layer.bias, x, layer.weight.T, beta=0.5)),
    "fc_2_linear_and_bias": ("fc_2", lambda layer, x: layer.bias + F.linear(x, layer.weight)),
    "fc_2_tied": ("fc_2_no_bias", lambda layer, x: F.linear(layer(x), layer.weight.t())),
    "fc_2_twice": ("fc_2_no_bias", lambda layer, x: F.linear(layer(x), layer.weight)),
    "fc_2_matmul": ("fc_2_no_bias", lambda layer, x: x @ layer.weight.t()),
    "fc_2_matmul_wrong": ("fc_2_no_bias", lambda layer, x: x @ layer.weight),
}
"""Words that call a layer in another way: the layer, and the call."""

POOLS = (
    *("max_pool", "avg_pool", "avg_pool_divisor", "adaptive_max", "adaptive_avg", "lp_pool", "f_max_pool"),
    *("strided_avg_pool", "pad_strided_avg_pool", "strided_max_pool", "pad_strided_max_pool", "pad_wide_max_pool"),
    *("f_avg_pool", "f_max_pool_ceil", "every_second", "every_second_from_1"),
)

FLATTENS = ("flatten", "f_flatten", "view", "flatten_permuted")

CLASSIFIERS = ("fc", "fc_conv")

ON_ROWS = (
    *(word for word in (*LAYERS, *CALLS) if "fc_2" in word and word != "fc_2_as_conv"),
    *("f_softmax_of_row", "f_softmax", "relu", "leaky_0", "dropout", "f_dropout", "times_1", "times_2"),
)

_NOT_ON_MAPS = {
    *POOLS,
    *FLATTENS,
    "rnn",
    "rnn_relu",
    "attention",
    "one_head",
    "fc_as_conv",
    "fc_2_as_conv",
    "linear_of_channels",
    "conv_bare",
    "f_softmax_of_row",
}

ON_MAPS = tuple(
    word for word in (*LAYERS, *FUNCTIONS, *CALLS) if word not in _NOT_ON_MAPS | set(CLASSIFIERS) and "fc_2" not in word
)

STAGES = (ON_MAPS, POOLS, FLATTENS, CLASSIFIERS, ON_ROWS)
"""The words that may stand in each part of a network."""

SIMILAR = (
    ("conv", "f_conv", "padded_conv", "conv_same", "residual_conv", "conv_reflect", "conv_padded_by_reflection"),
    ("residual_conv", "residual_conv_swapped", "conv_minus", "minus_conv", "conv_twice"),
    ("conv1x1", "linear_last"),
    ("relu", "f_relu", "leaky_0", "clamp_0", "threshold_0", "f_threshold_0", "maximum_0", "maximum_number"),
    ("relu", "where_0", "where_below_0", "times_mask", "times_float_mask", "filled_below_0", "set_below_0"),
    ("relu", "half_with_absolute", "minus_clamped", "where_above_1", "where_0_else_1", "times_mask_of_transposed"),
    ("leaky", "where_tenth", "largest_of_tenth", "f_leaky_tenth", "relu_minus_relu"),
    ("hardsigmoid", "hardsigmoid_by_hand", "hardswish", "hardswish_by_hand", "mish", "mish_by_hand"),
    ("mean_of_map", "mean_of_flat", "sum_of_map"),
    ("identity", "flip_twice"),
    ("squared", "times_itself"),
    ("scaled_then_shifted", "shifted_then_scaled"),
    ("conv", "conv_and_bias"),
    ("linear_last", "conv_of_matrix", "linear_of_pixels", "linear_of_last"),
    ("fc_2", "fc_2_matmul_and_bias", "fc_2_addmm", "fc_2_addmm_half", "fc_2_linear_and_bias"),
    ("relu", "leaky", "leaky_2", "clamp_0_1", "clamp_max", "threshold", "minimum_number", "maximum_1", "relu_in_place"),
    ("relu6", "clamp_0_6", "hardtanh_6", "hardtanh"),
    ("dropout", "dropout_2", "dropout2d", "alpha_dropout", "identity", "f_dropout", "f_dropout_off", "f_dropout_2"),
    ("identity", "times_1", "plus_0", "chunks", "sliced", "stacked", "squeezed", "flat_and_back", "permuted_back"),
    ("identity", "upsample_same", "adaptive_same", "interpolated", "transposed_twice", "padded_and_cut", "cloned"),
    ("identity", "chunks_swapped", "stacked_swapped", "cast", "interpolated_nearly", "leaky_1", "shifted", "viewed"),
    ("minus_half", "plus_minus_half", "half_minus", "half", "times_half", "divided", "doubled", "times_2"),
    ("bn", "f_bn", "bn_eps", "bn_momentum", "bn_plain", "bn_of_batch", "f_bn_of_batch", "group_norm", "instance_norm"),
    ("softmax", "softmax_2", "f_softmax", "f_softmax_3", "softmax_of_negative_axis", "log_softmax"),
    ("normalised", "normalised_otherwise", "normalised_last", "weighted", "weighted_rows", "masked", "masked_above"),
    ("flip", "flip_back", "flip_channels", "flip_channels_2", "roll", "roll_2", "transposed", "permuted"),
    ("roll", "shifted", "shifted_ones"),
    ("without_mean", "mean_minus", "without_mean_of_rows"),
    ("by_deviation", "by_deviation_of_all", "norm", "norm_of_rows"),
    ("row_set", "last_row_set", "row_set_to_one", "sorted", "sorted_down", "cumulated", "cumulated_columns"),
    ("f_conv_doubled", "f_conv_flipped", "f_conv_transposed", "conv", "conv_of_half", "conv_gated"),
    ("max_pool", "adaptive_max", "f_max_pool", "f_max_pool_ceil", "avg_pool", "adaptive_avg", "f_avg_pool", "lp_pool"),
    ("strided_avg_pool", "pad_strided_avg_pool", "strided_max_pool", "pad_strided_max_pool", "pad_wide_max_pool"),
    ("silu", "times_sigmoid", "sigmoid_times", "times_sigmoid_flat", "times_sigmoid_of_transposed", "hardswish"),
    ("hardswish", "times_hardsigmoid"),
    ("relu_max_pool", "relu_pad_max_pool", "pad_max_pool", "relu_pad_one_max_pool", "max_pool_3"),
    ("f_avg_pool_3", "pad_avg_pool", "avg_pool_3", "avg_pool_3_inside"),
    ("mean_of_map", "mean_of_means", "mean_of_means_kept", "mean_of_pool", "mean_of_means_otherwise", "without_mean"),
    ("fc_2", "f_fc_2", "fc_2_conv", "fc_2_no_bias", "fc_2_matmul", "fc_2_matmul_wrong"),
    ("fc_2_tied", "fc_2_twice"),
    ("scale", "scale_of_rows", "scale_and_shift", "factor_buffer", "weighted"),
    ("mean_buffer", "mean_buffer_kept_out", "mean_buffer_otherwise", "zeros_buffer", "ones_buffer", "identity"),
    ("rnn_of_pixels", "rnn_relu_of_pixels", "rnn_backwards"),
    ("attention_of_pixels", "attention_without_weights", "attention_masked", "attention_of_one_head"),
    ("attention_of_pixels", "attention_to_half", "attention_of_half"),
)  # fmt: skip
"""Words that one may write for another, rightly or not."""

Words = tuple[str, ...]


class Net(nn.Module):
    """A network of words."""

    def __init__(self, words: Words) -> None:
        super().__init__()
        self.words = words
        self.layers = nn.ModuleDict()
        for word in words:
            name, _, key = word.partition(" ")
            kind = CALLS[name][0] if name in CALLS else name
            if kind in LAYERS and self._path(kind, key) not in self.layers:
                self.layers[self._path(kind, key)] = LAYERS[kind]()

    @staticmethod
    def _path(kind: str, key: str) -> str:
        return f"{kind}_{key}" if key else kind

    def forward(self, x: Tensor) -> Tensor:
        for word in self.words:
            x = self._applied(word, x)
        return x

    def _applied(self, word: str, x: Tensor) -> Tensor:
        name, _, key = word.partition(" ")
        if name in FUNCTIONS:
            return FUNCTIONS[name](x)
        kind, call = CALLS.get(name, (name, lambda layer, x: layer(x)))
        return call(self.layers[self._path(kind, key)], x)

    def keys(self) -> list[str]:
        """The layers in the order of their first call."""
        paths = []
        for word in self.words:
            name, _, key = word.partition(" ")
            kind = CALLS[name][0] if name in CALLS else name
            paths += [self._path(kind, key)] if kind in LAYERS else []
        return list(dict.fromkeys(paths))


def has_weights(word: str) -> bool:
    """Whether a word has weights, and so a key."""
    name = word.partition(" ")[0]
    kind = CALLS[name][0] if name in CALLS else name
    return kind in LAYERS and any(True for _ in LAYERS[kind]().parameters())


def _keyed(random: Random, word: str) -> str:
    return f"{word} {random.choice('abc')}" if word in WEIGHTED else word


WEIGHTED = frozenset(word for word in (*LAYERS, *CALLS) if has_weights(word) or word.startswith(("bn", "f_bn")))


def network(random: Random) -> list[Words]:
    """Words for each stage of a network."""
    common = [word for group in SIMILAR for word in group if word in ON_MAPS]
    maps = [
        _keyed(random, random.choice(common if random.random() < 0.8 else ON_MAPS)) for _ in range(random.randint(1, 5))
    ]
    rows = [_keyed(random, random.choice(ON_ROWS)) for _ in range(random.randint(0, 3))]
    middle = [(_keyed(random, random.choice(stage)),) for stage in STAGES[1:4]]
    return [tuple(maps), *middle, tuple(rows)]


def rewritten(random: Random, stages: list[Words]) -> list[Words]:
    """The same network with one or two of its words changed."""
    stages = list(stages)
    for _ in range(random.choice((1, 1, 1, 2))):
        place = random.randrange(len(STAGES))
        stages[place] = _changed(random, stages[place], STAGES[place], is_fixed=place in (1, 2, 3))
    return stages


def _changed(random: Random, words: Words, stage: Words, *, is_fixed: bool) -> Words:
    ways = [_similar, _similar, _similar, _other_key] if is_fixed else [_similar, _similar, _similar, *_FREE]
    changed = list(words)
    random.choice(ways)(random, changed, stage)
    return tuple(changed)


def _similar(random: Random, words: list[str], stage: Words) -> None:
    """Replace a word by one that is similar."""
    places = [i for i, word in enumerate(words) if any(word.partition(" ")[0] in group for group in SIMILAR)]
    if not places:
        return
    place = random.choice(places)
    name, _, key = words[place].partition(" ")
    group = random.choice([group for group in SIMILAR if name in group])
    other = random.choice([word for word in group if word in stage] or [name])
    words[place] = f"{other} {key or 'a'}" if other in WEIGHTED else other


def _other_key(random: Random, words: list[str], stage: Words) -> None:
    """Share the weights of a word with another, or no longer."""
    places = [i for i, word in enumerate(words) if " " in word]
    if places:
        place = random.choice(places)
        words[place] = f"{words[place].partition(' ')[0]} {random.choice('abc')}"


def _swap(random: Random, words: list[str], stage: Words) -> None:
    """Swap two successive words."""
    if len(words) > 1:
        place = random.randrange(len(words) - 1)
        words[place : place + 2] = words[place : place + 2][::-1]


def _insert(random: Random, words: list[str], stage: Words) -> None:
    """Insert a word."""
    words.insert(random.randint(0, len(words)), _keyed(random, random.choice(stage)))


def _remove(random: Random, words: list[str], stage: Words) -> None:
    """Remove a word."""
    if words:
        words.pop(random.randrange(len(words)))


def _repeat(random: Random, words: list[str], stage: Words) -> None:
    """Repeat a word, with the same weights."""
    if words:
        place = random.randrange(len(words))
        words.insert(place, words[place])


_FREE = (_other_key, _other_key, _swap, _swap, _insert, _remove, _repeat)


REWRITES = 6
"""How often each network is rewritten."""


_WIDE_POOLS = frozenset(word for word in ON_MAPS if "max_pool" in word)


def has_one_number(words: Words) -> bool:
    """Whether three pools of 3 x 3 see the whole map, so that it holds one number, of which any pool is that number."""
    return sum(word in _WIDE_POOLS for word in words) > 2


def networks(seed: int, count: int) -> Iterator[tuple[Words, list[Words]]]:
    """Networks, each with rewritten ones, which are `count` altogether."""
    random = Random(seed)
    for first in range(0, count, REWRITES):
        stages = network(random)
        others = [rewritten(random, stages) for _ in range(min(REWRITES, count - first))]
        if not has_one_number(_joined(stages)):
            yield _joined(stages), [_joined(other) for other in others]


def _joined(stages: list[Words]) -> Words:
    return tuple(word for stage in stages for word in stage)
