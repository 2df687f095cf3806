"""A call that is equal to an earlier one has its result and its op, and a trace notes the same of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.module import register_module_forward_hook
from torch.nn.utils import parametrize
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.ops import StochasticDepth

import vggscope
from tests.test_zoo import call_inputs
from tests.zoo import ZOO, Calls
from vggscope.ops.activation import ReLU
from vggscope.ops.base import NOTHING
from vggscope.ops.linear import Linear
from vggscope.trace import known_results
from vggscope.trace.flops import OperatorMacs
from vggscope.trace.known_results import (
    KnownResult,
    Signature,
    known_call,
    layer_signature,
    places_of,
    remember,
    result_to_know,
    signature_of,
    told_once,
)
from vggscope.trace.network import network_of
from vggscope.trace.recorder import Recorder
from vggscope.trace.saved import Saved

Call = tuple[Callable[..., object], tuple[object, ...], dict[str, object]]


def meta(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


SELF = meta(1, 5, 8)
WEIGHTS = (meta(24, 8), meta(24), None, None, False, 0.0, meta(8, 8), meta(8))

CALLS: dict[str, Call] = {
    "conv2d": (torch.conv2d, (meta(2, 3, 9, 9), meta(4, 3, 3, 3), None, 2, 1), {}),
    "conv2d channels last": (
        torch.conv2d,
        (meta(2, 3, 9, 9).to(memory_format=torch.channels_last), meta(4, 3, 3, 3)),
        {},
    ),
    "linear of a permuted tensor": (F.linear, (meta(4, 6, 8).transpose(0, 1), meta(5, 8)), {}),
    "matmul": (torch.matmul, (meta(2, 3, 4), meta(4, 5)), {}),
    "matmul of transposed": (torch.matmul, (meta(4, 3).t(), meta(4, 5)), {}),
    "broadcast": (torch.add, (meta(2, 1, 4), meta(3, 4)), {}),
    "permuted sum": (torch.add, (meta(2, 3, 4).permute(2, 0, 1), meta(4, 2, 3)), {}),
    "promotion": (torch.mul, (meta(3, dtype=torch.int64), 2.0), {}),
    "no promotion": (torch.mul, (meta(3, dtype=torch.int64), 2), {}),
    "bool": (torch.mul, (meta(3, dtype=torch.bool), True), {}),
    "division": (torch.div, (meta(3, dtype=torch.int64), 2), {}),
    "floor division": (torch.div, (meta(3), 2), {"rounding_mode": "floor"}),
    "softmax": (F.softmax, (meta(2, 3),), {"dim": -1}),
    "softmax in double": (F.softmax, (meta(2, 3),), {"dim": -1, "dtype": torch.float64}),
    "pool": (F.max_pool2d, (meta(1, 2, 9, 9), 3), {"stride": 2}),
    "mean": (torch.mean, (meta(2, 3, 4),), {"dim": (1, 2), "keepdim": True}),
    "cat": (torch.cat, ([meta(2, 3), meta(4, 3)],), {"dim": 0}),
    "pad": (F.pad, (meta(2, 3), (0, 1)), {}),
    "roll": (torch.roll, (meta(2, 3), 1), {}),
    "index": (Tensor.__getitem__, (meta(5, 3), meta(7, dtype=torch.int64)), {}),
    "copying reshape": (torch.reshape, (meta(3, 4).t(), (12,)), {}),
    "inactive dropout": (F.dropout, (meta(3, 4), 0.5, False), {}),
    "dropout": (F.dropout, (meta(3, 4), 0.5, True), {}),
    "sum in place": (Tensor.add_, (meta(3, 4), meta(3, 1)), {}),
    "relu in place": (F.relu, (meta(3, 4),), {"inplace": True}),
    "scaled dot product": (F.scaled_dot_product_attention, (meta(1, 2, 5, 4),) * 3, {}),
    "attention": (F.multi_head_attention_forward, (SELF, SELF, SELF, 8, 2, *WEIGHTS), {"need_weights": False}),
}


@pytest.fixture(autouse=True)
def _nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_results, "_KNOWN", {})
    monkeypatch.setattr(known_results, "_TOLD", {})


def layout(tensor: object) -> tuple[object, ...]:
    assert isinstance(tensor, Tensor)
    size = tensor.untyped_storage().nbytes()
    return tensor.shape, tensor.stride(), tensor.dtype, tensor.device, tensor.storage_offset(), size


def made(function: Callable[..., object], args: tuple[object, ...], kwargs: dict[str, object]) -> tuple[object, object]:
    """What torch returns for a call, and its signature, under which it is remembered."""
    signature = signature_of(function, args, kwargs, counts=True)
    result = function(*args, **kwargs)
    if signature is not None and signature_of(function, args, kwargs, counts=True) == signature:
        remember(signature, result_to_know(args, kwargs, result, OperatorMacs()))
    return result, signature


def known_result(signature: Signature | None) -> KnownResult | None:
    known = known_call(signature)
    return None if known is None else known.result


@pytest.mark.parametrize("name", CALLS)
def test_a_known_result_is_the_one_that_torch_returns_again(name: str) -> None:
    function, args, kwargs = CALLS[name]
    made(function, args, kwargs)
    known = known_result(signature_of(function, args, kwargs, counts=True))
    assert known is not None
    found, truth = known.again(args), function(*args, **kwargs)
    if isinstance(truth, tuple):
        assert isinstance(found, tuple)
        assert found[1:] == truth[1:] == (None,)
        found, truth = found[0], truth[0]
    assert layout(found) == layout(truth)
    assert (found is args[0]) == (truth is args[0])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (CALLS["promotion"], CALLS["no promotion"]),
        (CALLS["no promotion"], (torch.mul, (meta(3, dtype=torch.int64), True), {})),
        (CALLS["conv2d"], (torch.conv2d, (meta(2, 3, 9, 9), meta(4, 3, 3, 3), None, 1, 1), {})),
        (CALLS["softmax"], (F.log_softmax, (meta(2, 3),), {"dim": -1})),
        (CALLS["softmax"], (F.softmax, (meta(2, 3, dtype=torch.float64),), {"dim": -1})),
        (CALLS["softmax"], (F.softmax, (meta(3, 2).t(),), {"dim": -1})),
        (
            CALLS["attention"],
            (F.multi_head_attention_forward, (SELF, meta(1, 5, 8), SELF, 8, 2, *WEIGHTS), {"need_weights": False}),
        ),
        ((torch.sum, (meta(3, dtype=torch.complex64),), {}), (torch.sum, (meta(3, dtype=torch.complex64).conj(),), {})),
    ],
)
def test_calls_that_differ_have_other_signatures(one: Call, other: Call) -> None:
    signatures = [signature_of(*call, counts=True) for call in (one, other)]
    assert None not in signatures
    assert signatures[0] != signatures[1]


def test_a_signature_includes_what_decides_outside_of_the_call() -> None:
    call = CALLS["division"]
    attention = CALLS["scaled dot product"]
    plain, kernels = signature_of(*call, counts=True), signature_of(*attention, counts=True)
    assert signature_of(*call, counts=False) != plain
    with sdpa_kernel(SDPBackend.MATH):
        assert signature_of(*attention, counts=True) != kernels
    torch.set_default_dtype(torch.float64)
    try:
        assert signature_of(*call, counts=True) != plain
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(
    ("function", "args", "kwargs"),
    [
        (torch.transpose, (meta(2, 3), 0, 1), {}),
        (torch.chunk, (meta(2, 3), 2), {}),
        (torch.reshape, (meta(2, 3), (6,)), {}),
        (torch.add, (meta(3), 1), {"out": meta(3)}),
        (torch.sort, (meta(3),), {}),
        (torch.zeros_like, (meta(3),), {}),
        (Tensor.t_, (meta(3, 3),), {}),
        (Tensor.__setitem__, (meta(3), 0, 1.0), {}),
        (torch.add, (torch.zeros(3), 1), {}),
        (torch.add, (meta(3), object), {}),
        (lambda tensor: tensor + 1, (meta(3),), {}),
        (torch.narrow_copy, (meta(3), 0, 0, 2), {}),
    ],
)
def test_other_calls_are_left_to_torch(function, args, kwargs) -> None:
    signature = signature_of(function, args, kwargs, counts=True)
    if signature is not None:
        made(function, args, kwargs)
    assert known_result(signature) is None


def test_the_oldest_results_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_results, "MOST_KNOWN", 2)
    for size in range(1, 6):
        made(torch.softmax, (meta(size),), {"dim": 0})
    assert len(known_results._KNOWN) <= 2


def linear(**settings: object) -> nn.Module:
    layer = nn.Linear(8, 8, device="meta")
    for name, value in settings.items():
        setattr(layer, name, value)
    return layer


def hooked() -> nn.Module:
    layer = linear()
    layer.register_forward_hook(lambda *_: None)
    return layer


class Own(nn.Linear):
    pass


def test_equal_layers_have_equal_signatures() -> None:
    signature = layer_signature(linear(), (meta(2, 8),), {})
    assert signature == layer_signature(linear(), (meta(2, 8),), {})
    others = [(linear(), (meta(3, 8),)), (nn.Linear(8, 8, bias=False, device="meta"), (meta(2, 8),))]
    others += [(linear(in_features=9), (meta(2, 8),)), (linear(factor=True), (meta(2, 8),))]
    others += [(linear(factor=1), (meta(2, 8),)), (linear(factor=(1, True)), (meta(2, 8),))]
    others += [(linear(factor=(1, 1)), (meta(2, 8),)), (linear().double(), (meta(2, 8, dtype=torch.float64),))]
    others += [(linear(), (meta(8, 2).t(),)), (linear().eval(), (meta(2, 8),))]
    found = {signature, *(layer_signature(layer, args, {}) for layer, args in others)}
    assert None not in found
    assert len(found) == 1 + len(others)


@pytest.mark.parametrize(
    "layer",
    [
        hooked(),
        Own(8, 8, device="meta"),
        linear(table={"a": 1}),
        linear(forward=torch.relu),
        linear(forward=lambda x: x),
        linear(in_features=torch.tensor(8)),
        parametrize.register_parametrization(linear(), "weight", nn.Identity()),
        nn.Linear(8, 8),
        nn.MultiheadAttention(8, 2, device="meta"),
    ],
)
def test_a_layer_that_may_do_more_than_its_settings_say_has_no_signature(layer: nn.Module) -> None:
    assert layer_signature(layer, (meta(2, 8),), {}) is None


def test_torch_is_asked_once_what_autograd_saves_of_equal_calls() -> None:
    asked = []

    def tell() -> Saved | None:
        asked.append(1)
        return None

    signature = layer_signature(linear(), (meta(2, 8),), {})
    assert told_once(signature, tell) is told_once(signature, tell) is None
    assert len(asked) == 1
    told_once(None, tell)
    assert len(asked) == 2
    one, other = meta(2, 8), meta(2, 8)
    assert places_of((other, meta(1), one), (one, 1), {"other": [other]}) == (1, -1, 0)


def everything(value: object) -> object:
    """All fields of a network, those that `==` leaves out among them."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return type(value), [everything(getattr(value, f.name)) for f in dataclasses.fields(value)]
    return [everything(item) for item in value] if isinstance(value, tuple) else value


class Mixed(nn.Module):
    """Layers and functions of all kinds of results: new memory, views, in place, and the input itself."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1) for _ in range(3))
        self.norm = nn.BatchNorm2d(8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.dropout = nn.Dropout()
        self.shared = nn.Linear(8, 8)
        self.scale = nn.Parameter(torch.ones(8))

    def forward(self, x: Tensor) -> Tensor:
        for convolution in self.convolutions:
            x = F.relu(self.norm(convolution(x)), inplace=True)
            x = x + F.dropout(x, training=self.training)
        x = x.flatten(2).transpose(1, 2)
        for _ in range(2):
            x = self.dropout(self.shared(self.attention(x, x, x, need_weights=False)[0]))
            x = F.layer_norm(x, (8,), self.scale) * self.scale
        first, second = x.chunk(2, dim=1)
        first[:, 1:] += second[:, 1:]
        return F.scaled_dot_product_attention(first, second, second).transpose(0, 1).reshape(-1, 8)


class Sparse(nn.Module):
    """What a trace notes of its calls besides nodes: a sparse gradient, and dropout that is always on."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.others = nn.Embedding(10, 4, sparse=True), nn.Embedding(10, 4, sparse=True)

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(self.words(x), 0.1, True) + F.embedding(x, self.others.weight, sparse=True)


@pytest.mark.parametrize(
    ("make", "inputs"), [(Mixed, (torch.zeros(1, 8, 6, 6),)), (Sparse, (torch.zeros(1, 5, dtype=torch.int64),))]
)
def test_a_trace_is_the_same_whether_its_results_are_known_or_not(
    make: Callable[[], nn.Module], inputs: tuple[Tensor, ...]
) -> None:
    module = make()
    first = vggscope.network(module, input_data=inputs)
    assert known_results._KNOWN
    again, other = (vggscope.network(m, input_data=inputs) for m in (module, make()))
    assert everything(again) == everything(other) == everything(first)
    known_results._KNOWN.clear()
    assert everything(vggscope.network(module, input_data=inputs)) == everything(first)
    if make is Sparse:
        assert first.sparse_gradients == ("others.weight", "words.weight")


class Counting(TorchDispatchMode):
    calls = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        Counting.calls += 1
        return func(*args, **(kwargs or {}))


class Watched(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        with Counting():
            return self.layer(x)


def test_torch_runs_what_a_mode_of_the_user_sees() -> None:
    counts = []
    for _ in range(2):
        vggscope.network(nn.Conv2d(3, 3, 1), input_size=(1, 3, 8, 8))
        Counting.calls = 0
        vggscope.network(Watched(), input_size=(1, 3, 8, 8))
        counts.append(Counting.calls)
    assert counts[0] == counts[1] > 0
    with Counting():
        Counting.calls = 0
        vggscope.network(nn.Conv2d(3, 3, 1), input_size=(1, 3, 8, 8))
    assert Counting.calls > 0


class Forgetful(dict[Signature, object]):
    """Keeps nothing."""

    def __setitem__(self, signature: Signature, known: object) -> None:
        pass


def assert_known_calls_change_nothing(make: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(known_results, "_KNOWN", Forgetful())
        truth = everything(make())
    assert everything(make()) == truth
    assert everything(make()) == truth


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("name", ZOO)
def test_known_calls_change_no_trace(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, inputs = ZOO[name]()
    module.eval()
    assert_known_calls_change_nothing(lambda: network_of(module, name, call_inputs(name, inputs)), monkeypatch)


class Odd(nn.Module):
    """A forward that may do something else with other samples, or with its layers."""

    def __init__(self, forward: Callable[..., Tensor]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.linear = nn.Linear(8, 8)
        self.weights = nn.Parameter(torch.ones(2, 4, 8, 8))
        self.code = forward

    def forward(self, x: Tensor) -> Tensor:
        return self.code(self, x)


def _set_stride(self: Odd, x: Tensor) -> Tensor:
    self.pool.stride = len(x) + 1
    return self.pool(self.conv(x))


def _replace_weight(self: Odd, x: Tensor) -> Tensor:
    self.linear.weight.data = self.linear.weight.data.t()
    return self.linear(x)


ODD: dict[str, Callable[..., Tensor]] = {
    "another function": lambda self, x: self.conv(x.relu() if len(x) == 1 else x.sigmoid()),
    "another argument": lambda self, x: self.conv(x).clamp(0, len(x)),
    "one more call": lambda self, x: self.conv(x if len(x) == 1 else x.relu()).relu(),
    "one call less": lambda self, x: self.conv(x.relu() if len(x) == 1 else x).relu(),
    "another order": lambda self, x: torch.cat([x.relu(), x.neg()][:: 1 if len(x) == 1 else -1], 1),
    "another source": lambda self, x: self.conv(x) + (x if len(x) == 1 else self.conv(x)),
    "another module": lambda self, x: self.conv(x).relu() if len(x) == 1 else self.pool(x).relu(),
    "another setting": _set_stride,
    "another weight": lambda self, x: x + self.weights[: len(x)],
    "a transposed weight": _replace_weight,
    "a slice": lambda self, x: self.linear(x[:, 1:3]).relu_() + 1,
    "a slice of a layer": lambda self, x: self.conv(torch.cat([self.conv(x)[:, :2], x[:, 2:]], 1)),
    "contiguous": lambda self, x: self.linear(x[:, :2].contiguous()),
    "permuted": lambda self, x: self.linear(x.permute(0, 2, 3, 1).reshape(len(x), -1, 8)),
    "each with each": lambda self, x: x.flatten(1) @ x.flatten(1).T,
    "written": lambda self, x: self.linear(x.clone().index_fill_(1, torch.tensor([0]), 0.0)[:, :1].mul_(2)),
    "written by way of a view": lambda self, x: (y := self.conv(x), y[:, :1].mul_(2), self.conv(y) + y)[-1],
    "batch in another axis": lambda self, x: self.linear(x.transpose(0, 1)).transpose(0, 1),
    "in place": lambda self, x: (y := self.conv(x), y.add_(x), y.mul_(2), y.relu_(), self.conv(y) + y)[-1],
    "in place on a parameter": lambda self, x: (
        self.weights.data[:1].add_(x).add_(1) + self.weights[:1] + self.conv(x).add_(x).add_(1)
    ),
    "in place on a constant": lambda self, x: (
        torch.ones(1, 4, 8, 8).add_(1) + torch.ones(1, 4, 8, 8).add_(x) + self.conv(x).add_(1) + self.conv(x).add_(x)
    ),
    "pieces": lambda self, x: (
        y := self.conv(x),
        sum(y.unbind(3)).mean() + y.chunk(2, 1)[1].sum() + y.split([1, 2, 1], 1)[1] + x.chunk(4, 1)[0],
    )[-1],
    "pieces of a parameter": lambda self, x: x + self.weights.chunk(2)[0] + (x * self.weights).chunk(2)[0],
    "copied": lambda self, x: x.transpose(2, 3).contiguous() + x.contiguous() + x[:, :, 1:].contiguous().mean(),
    "in place on a view": lambda self, x: (y := self.conv(x), y[:, 1:].add_(x[:, 1:]), y.transpose(2, 3).neg_() + y)[
        -1
    ],
    "in place on a part of itself": lambda self, x: (y := self.conv(x), y[:, 1:].add_(y[:, :-1]), y)[-1],
    "in place with another shape": lambda self, x: self.conv(x).transpose_(2, 3).transpose_(2, 3).squeeze_(0),
    "unbound": lambda self, x: torch.stack([self.linear(sample) for sample in x]),
    "constants": lambda self, x: x + self.weights[:1] + self.weights[:1] * 2 + torch.ones(1, 4, 8, 8) + x,
    "a layer of constants": lambda self, x: self.conv(x) + self.conv(self.weights[:1]) + self.conv(x),
    "a computed weight": lambda self, x: F.linear(F.linear(x, self.linear.weight), self.linear(x[0, 0])),
    "without gradients": lambda self, x: self.conv(torch.no_grad()(self.conv)(x)) + self.conv(x).detach(),
    "equal inputs": lambda self, x: (x + x) + (x + self.conv(x)),
    "a dead end": lambda self, x: (self.conv(x).flatten(1), self.pool(x), self.conv(x))[-1],
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("samples", [None, 1, 5])
def test_known_calls_change_no_odd_trace(name: str, samples: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    module = Odd(ODD[name]).eval()
    assert_known_calls_change_nothing(lambda: network_of(module, name, (4, 8, 8), batch=samples), monkeypatch)


def usual(x_channels: int = 4) -> nn.Module:
    return nn.Sequential(nn.Conv2d(x_channels, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 6 * 6, 8))


def trace(module: nn.Module, **options: bool) -> vggscope.Network:
    return network_of(module, "net", (4, 8, 8), batch=1, **options)


class Usual(nn.Module):
    """Calls of the kinds that networks are made of."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.relu, self.pool = nn.ReLU(inplace=True), nn.MaxPool2d(2)
        self.linear, self.layer_norm = nn.Linear(4, 4), nn.LayerNorm(4)
        self.depth, self.dropout = StochasticDepth(0.2, "row"), nn.Dropout()

    def forward(self, x: Tensor) -> Tensor:
        x = self.depth(self.relu(self.norm(self.conv(x)))) + x
        x += self.pool(x).mean()
        tokens = self.layer_norm(x.flatten(2).transpose(1, 2).contiguous())
        query, key, value = self.linear(tokens).repeat(1, 1, 3).chunk(3, dim=-1)
        weights = (query @ key.transpose(-2, -1)).softmax(-1)
        return torch.cat([self.dropout(weights @ value), tokens[:, 1:]], 1)


def test_the_second_trace_looks_at_no_call_again(monkeypatch: pytest.MonkeyPatch) -> None:
    module = Usual().eval()
    first = trace(module)
    looked_at: list[str] = []
    look = Recorder._add

    def counted(self: Recorder, base: str, *more: Any) -> object:
        looked_at.append(base)
        return look(self, base, *more)

    monkeypatch.setattr(Recorder, "_add", counted)
    assert everything(trace(module)) == everything(first)
    assert looked_at == []
    trace(Usual().double().eval())
    assert looked_at


SEEN: list[str] = []


def noted(x: Tensor) -> Tensor:
    SEEN.append("code")
    return x


class OwnForward(nn.ReLU):
    def forward(self, x: Tensor) -> Tensor:
        return noted(x)


class OwnParametrization(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return noted(weight)


def _with_hook(net: nn.Sequential) -> None:
    net[1].register_forward_hook(lambda module, args, result: noted(result))


def _with_pre_hook(net: nn.Sequential) -> None:
    net[0].register_forward_pre_hook(lambda module, args: noted(args[0]))


def _with_own_forward(net: nn.Sequential) -> None:
    net[1].forward = noted  # type: ignore[method-assign]


def _with_own_class(net: nn.Sequential) -> None:
    net[1] = OwnForward()


def _with_parametrization(net: nn.Sequential) -> None:
    parametrize.register_parametrization(net[0], "weight", OwnParametrization())


@pytest.mark.parametrize(
    "change", [_with_hook, _with_pre_hook, _with_own_forward, _with_own_class, _with_parametrization]
)
def test_the_code_of_the_user_runs_in_each_trace(change: Callable[[nn.Sequential], None]) -> None:
    trace(usual())
    net = usual()
    assert isinstance(net, nn.Sequential)
    change(net)
    for _ in range(2):
        SEEN.clear()
        trace(net)
        assert SEEN


def test_a_hook_on_all_modules_sees_each_layer() -> None:
    trace(usual())
    names: list[str] = []
    handle = register_module_forward_hook(lambda module, args, result: names.append(type(module).__name__))
    try:
        trace(usual())
    finally:
        handle.remove()
    assert names == 2 * ["Conv2d", "ReLU", "Flatten", "Linear", "Sequential"]  # for one sample and for two


def test_a_function_that_replaces_one_of_torch_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    trace(usual())
    monkeypatch.setattr(F, "relu", lambda x, inplace=False: noted(x)[:, :2].repeat(1, 2, 1, 1))
    SEEN.clear()
    trace(usual())
    assert SEEN


def test_a_method_that_replaces_one_of_a_layer_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1))
    assert vggscope.summary(module, (3, 8, 8)).totals.macs == 36 * 4 * (27 + 4)
    monkeypatch.setattr(nn.Conv2d, "_conv_forward", lambda self, x, weight, bias: F.conv2d(x, weight, bias, 2))
    assert vggscope.summary(module, (3, 8, 8)).outputs[0].shape == (1, 4, 2, 2)


def test_a_single_piece_is_a_piece_again() -> None:
    module = Calls(lambda self, x: self.conv(x).tensor_split(1)[0] + 1, conv=nn.Conv2d(3, 4, 3))
    networks = [network_of(module, "pieces", (3, 8, 8)) for _ in range(2)]
    assert networks[0] == networks[1]
    assert networks[1].failure is None


def test_what_disagrees_with_torch_is_said_in_each_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Linear, "macs", lambda self, inputs, output: 5)
    texts = [trace(usual()).torch_count for _ in range(2)]
    assert texts[0] == texts[1]
    assert texts[0] is not None
    assert "5 MACs of Linear" in " ".join(texts[0].disagreements)


def test_what_is_saved_is_compared_where_memory_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ReLU, "saved_for_backward", lambda self, inputs, output: NOTHING)
    for memory in (False, True, True, False):
        count = trace(usual(), memory=memory).torch_count
        assert count is not None
        assert any("ReLU saves nothing for backward" in text for text in count.disagreements) is memory


def test_torch_is_asked_once_in_a_trace_about_each_kind_of_op(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = nn.Sequential(nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 5)), nn.Conv2d(4, 4, 5)
    trace(one)
    asked: list[object] = []
    monkeypatch.setattr(known_results, "_TOLD", {})
    monkeypatch.setattr("vggscope.trace.watch.saved_in_training", lambda op, *_: asked.append(op))
    network_of(other, "net", (4, 6, 6), batch=1)  # as the second one of the trace before, about which no one has asked
    assert len(asked) == 1
    network_of(other, "net", (4, 6, 6), batch=1)
    trace(one)
    assert len(asked) == 1
