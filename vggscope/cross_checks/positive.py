"""Replacements for torch's functions that increase with each of their inputs and map ones to ones.

The gradient of torch's maximum is zero but for one unit of its window, that of an activation is zero where it is flat,
and differences cancel. A replacement has a non-zero gradient wherever its function depends on its input. Backward, each
non-zero gradient becomes 1, so that none underflows.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from torch import Tensor

Function = Callable[..., Any]

_POINTWISE = (
    *("relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish", "hardtanh", "hardswish"),
    *("hardsigmoid", "sigmoid", "logsigmoid", "softplus", "tanh", "prelu", "rrelu", "clamp", "exp", "log", "sqrt"),
    *("rsqrt", "abs", "neg", "pow", "square", "dropout", "dropout2d", "dropout3d", "feature_dropout"),
    *("local_response_norm", "alpha_dropout"),
)
"""Functions of each position by itself; LRN reads neighbouring channels only. Their replacement is the identity."""

_SUMS = ("add", "iadd", "radd", "sub", "isub", "rsub", "div", "truediv", "rdiv", "rtruediv", "idiv", "itruediv")
_PRODUCTS = ("mul", "imul", "rmul", "multiply")

_CONVOLUTION = ("bias", "stride", "padding", "dilation", "groups")
_TRANSPOSED = ("bias", "stride", "padding", "output_padding", "groups", "dilation")
"""The parameters of torch's convolutions after input and weight."""

_POOLING = {"kernel_size": 1, "stride": None, "padding": 0, "dilation": 1, "ceil_mode": False}
"""The parameters of torch's max pooling after the input, with their defaults."""

_SHARED_CHANNEL = "_vggscope_shared_channel"
"""The attribute of a tensor that holds the one channel of which all its channels are copies."""


@cache
def functions() -> dict[str, Function]:
    """The replacements by the name of torch's function, without leading or trailing underscores."""
    from torch.nn import functional

    return {
        **dict.fromkeys(_POINTWISE, lambda x, *_, **__: x),
        **dict.fromkeys(_SUMS, _sum),
        **dict.fromkeys(_PRODUCTS, _product),
        **{f"conv{n}d": _convolution(getattr(functional, f"conv{n}d"), _CONVOLUTION, False) for n in (1, 2, 3)},
        **{
            f"conv_transpose{n}d": _convolution(getattr(functional, f"conv_transpose{n}d"), _TRANSPOSED, True)
            for n in (1, 2, 3)
        },
        "linear": lambda x, weight, bias=None: _one(x.mean(-1, keepdim=True)).expand(*x.shape[:-1], weight.shape[0]),
        **{f"max_pool{n}d": _max_pool(n) for n in (1, 2, 3)},
        **{f"avg_pool{n}d": _pool(getattr(functional, f"avg_pool{n}d")) for n in (1, 2, 3)},
        **{f"adaptive_avg_pool{n}d": _pool(getattr(functional, f"adaptive_avg_pool{n}d")) for n in (1, 2, 3)},
        **{
            f"adaptive_max_pool{n}d": _adaptive_max_pool(getattr(functional, f"adaptive_avg_pool{n}d"))
            for n in (1, 2, 3)
        },
        "matmul": lambda x, y: _one(x @ y),
        "softmax": lambda x, dim=-1, *_, **__: _spread(x, (dim,)),
        "layer_norm": lambda x, shape, *_, **__: _spread(x, tuple(range(-len(shape), 0))),
        "rms_norm": lambda x, shape, *_, **__: _spread(x, tuple(range(-len(shape), 0))),
        "group_norm": lambda x, *_, **__: _spread(x, tuple(range(1, x.dim()))),
        "instance_norm": _over_maps("use_input_stats", True),
        "batch_norm": _over_maps("training", False),
        "scaled_dot_product_attention": _attention,
        "multi_head_attention_forward": _multi_head,
        "set_grad_enabled": lambda *_: None,  # an output computed under torch.no_grad depends on its input too
        "detach": lambda x: x,
    }


def ones(value: object) -> object:
    """The argument with its tensors on the meta device replaced by ones."""
    import torch

    if isinstance(value, torch.Tensor):
        dtype = None if value.is_floating_point() else value.dtype
        return torch.ones((), dtype=dtype).expand(value.shape) if value.is_meta else value
    if isinstance(value, (list, tuple)) and type(value) in (list, tuple):
        return type(value)([ones(item) for item in value])
    return value


def shared_channel(x: Tensor) -> Tensor | None:
    """The channel that all channels of a tensor are copies of; None unless that is known."""
    return cast("Tensor | None", getattr(x, _SHARED_CHANNEL, None))


def _one(y: Tensor) -> Tensor:
    """The tensor with all values 1 and the same dependences; its non-zero gradients become 1."""
    if not y.requires_grad:
        return y
    y = y + (1 - y).detach()
    hook: Function = y.register_hook
    hook(lambda gradient: gradient.ne(0).to(gradient.dtype))
    return y


def _channels(x: Tensor, groups: int = 1) -> Tensor:
    """One channel for each group, or one for all if they are copies."""
    single = shared_channel(x)
    if single is not None:
        return single
    return x.reshape(len(x), groups, x.shape[1] // groups, *x.shape[2:]).mean(2)


def _expanded(y: Tensor, channels: int) -> Tensor:
    """This many channels, as copies of those that were computed."""
    y = _one(y)
    if y.shape[1] > 1:
        return y.repeat_interleave(channels // y.shape[1], 1)
    copies = y.expand(-1, channels, *y.shape[2:])
    setattr(copies, _SHARED_CHANNEL, y)
    return copies


def _convolution(convolve: Function, parameters: tuple[str, ...], transposed: bool) -> Function:
    def run(x: Tensor, weight: Tensor, *args: object, **named: Any) -> Tensor:
        options: dict[str, Any] = {**dict(zip(parameters, args)), **named}
        options.pop("bias", None)
        groups = options.pop("groups", 1)
        sums = _window_sums(convolve, _channels(x, groups), weight.shape[2:], **options)
        return _expanded(sums, weight.shape[1] * groups if transposed else weight.shape[0])

    return run


def _window_sums(convolve: Function, x: Tensor, kernel: tuple[int, ...], **options: object) -> Tensor:
    """The sums over the windows of each image and channel. They run as channels of one image, which is fastest."""
    maps = x.shape[0] * x.shape[1]
    weight = x.new_ones((maps, 1, *kernel))
    y: Tensor = convolve(x.reshape(1, maps, *x.shape[2:]), weight, groups=maps, **options)
    return y.reshape(*x.shape[:2], *y.shape[2:])


def _pool(pool: Function) -> Function:
    def run(x: Tensor, *args: object, **options: object) -> Tensor:
        return _expanded(pool(each_channel(x), *args, **options), x.shape[1])

    return run


def each_channel(x: Tensor) -> Tensor:
    """All channels, or one if they are copies."""
    single = shared_channel(x)
    return x if single is None else single


def _adaptive_max_pool(mean: Function) -> Function:
    return lambda x, size, *_, **__: _pool(mean)(x, size)


def _max_pool(sides: int) -> Function:
    """The sum over each window; the shape of torch's maximum gives the number of windows."""
    from torch.nn import functional

    maximum, convolve = getattr(functional, f"max_pool{sides}d"), getattr(functional, f"conv{sides}d")

    def run(x: Tensor, *args: object, **named: object) -> Tensor:
        options: dict[str, Any] = {**_POOLING, **dict(zip(_POOLING, args)), **named}
        kernel_size, stride, padding, dilation, ceil_mode = (options[name] for name in _POOLING)
        read = each_channel(x)
        size = maximum(read.detach(), kernel_size, stride, padding, dilation, ceil_mode).shape[2:]
        kernel, step, pad, spread = (
            (side,) * sides if isinstance(side, int) else tuple(side)
            for side in (kernel_size, stride or kernel_size, padding, dilation)
        )
        # After the end it pads at least what ceil_mode adds; the surplus is cut off below.
        around = [amount for p, s in zip(reversed(pad), reversed(step)) for amount in (p, p + s)]
        y = _window_sums(convolve, functional.pad(read, around), kernel, stride=step, dilation=spread)
        return _expanded(y[(slice(None), slice(None), *(slice(0, side) for side in size))], x.shape[1])

    return run


def _sum(x: object, y: object = None, *_: object, **__: object) -> object:
    from torch import Tensor

    if isinstance(x, Tensor) and isinstance(y, Tensor):
        one, other = shared_channel(x), shared_channel(y)
        if one is not None and other is not None and x.shape == y.shape:
            return _expanded(one + other, x.shape[1])
        return _one(x + y)
    return x if isinstance(x, Tensor) else y


def _product(x: object, y: object) -> object:
    from torch import Tensor

    return x * y if isinstance(x, Tensor) and isinstance(y, Tensor) else x if isinstance(x, Tensor) else y


def _spread(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Each value plus all values along these axes."""
    return _one(x + x.mean(axes, keepdim=True))


def _over_maps(flag: str, default: bool) -> Function:
    """A norm over whole maps, unless its argument `flag` asks for the running mean and variance."""

    def norm(x: Tensor, *args: object, **kwargs: object) -> Tensor:
        of_input = args[4] if len(args) > 4 else kwargs.get(flag, default)
        return _spread(x, tuple(range(2, x.dim()))) if of_input and x.dim() > 2 else x

    return norm


def _attention(query: Tensor, key: Tensor, value: Tensor, *_: object, **__: object) -> Tensor:
    return _one(query.mean(-1, keepdim=True) + key.mean((-2, -1), keepdim=True) + value.mean(-2, keepdim=True))


def _multi_head(query: Tensor, key: Tensor, value: Tensor, *_: object, **__: object) -> tuple[Tensor, None]:
    read = query.mean(-1, keepdim=True) + key.mean((0, -1), keepdim=True) + value.mean((0, -1), keepdim=True)
    return _one(read).expand_as(query), None
