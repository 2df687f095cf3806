"""A call that is equal to an earlier one has torch's result, and a trace notes the same of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

import vggscope
from vggscope.trace import known_results
from vggscope.trace.flops import OperatorMacs
from vggscope.trace.known_results import known_result, known_saved, layer_signature, places_of, remember, signature_of
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
    "relu in place": (F.relu, (meta(3, 4),), {"inplace": True}),
    "scaled dot product": (F.scaled_dot_product_attention, (meta(1, 2, 5, 4),) * 3, {}),
    "attention": (F.multi_head_attention_forward, (SELF, SELF, SELF, 8, 2, *WEIGHTS), {"need_weights": False}),
}


@pytest.fixture(autouse=True)
def _nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_results, "_KNOWN", {})
    monkeypatch.setattr(known_results, "_SAVED", {})


def layout(tensor: object) -> tuple[object, ...]:
    assert isinstance(tensor, Tensor)
    size = tensor.untyped_storage().nbytes()
    return tensor.shape, tensor.stride(), tensor.dtype, tensor.device, tensor.storage_offset(), size


def made(function: Callable[..., object], args: tuple[object, ...], kwargs: dict[str, object]) -> tuple[object, object]:
    """What torch returns for a call, and its signature, under which it is remembered."""
    signature = signature_of(function, args, kwargs, counts=True)
    result = function(*args, **kwargs)
    if signature is not None:
        remember(signature, function, args, kwargs, result, OperatorMacs())
    return result, signature


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
        (torch.reshape, (meta(2, 3), (6,)), {}),
        (torch.add, (meta(3), 1), {"out": meta(3)}),
        (torch.sort, (meta(3),), {}),
        (torch.zeros_like, (meta(3),), {}),
        (Tensor.t_, (meta(3, 3),), {}),
        (Tensor.add_, (meta(3), 1), {}),
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
    assert known_saved(signature, tell) is known_saved(signature, tell) is None
    assert len(asked) == 1
    known_saved(None, tell)
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
