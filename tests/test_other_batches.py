"""Networks of which one run is enough: it says what a run on two samples would say."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from threading import Thread
from typing import Any
from weakref import ref

import pytest
import torch
from torch import Tensor, nn
from torch._C import DisableTorchFunction
from torch.utils._python_dispatch import TorchDispatchMode

import vggscope
from tests.test_zoo import call_inputs
from tests.zoo import ZOO, Calls
from vggscope.errors import ModelError, ShapeError
from vggscope.graph import Network, Node
from vggscope.ops.base import Op
from vggscope.sources.resolve import resolve
from vggscope.trace.network import network_of
from vggscope.trace.other_batches import Grown, OtherBatches

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")


def all_fields(network: Network) -> list[object]:
    """What a Network holds, fields that are not compared included."""
    fields = {name: value for name, value in vars(network).items() if name in Network.__dataclass_fields__}  # type: ignore[attr-defined]
    return [*map(_described, fields.pop("nodes")), _described(fields), [vars(tensor) for tensor in network.outputs]]


def _described(value: object) -> object:
    """A value with the fields of its ops, of which those of the layout in memory are not compared."""
    if isinstance(value, (Op, Node)):
        return {"": type(value), **{name: _described(item) for name, item in vars(value).items()}}
    return {name: _described(item) for name, item in value.items()} if isinstance(value, dict) else value


def once_and_twice(make: Callable[[], Network], monkeypatch: pytest.MonkeyPatch) -> tuple[Network | None, Network]:
    """The Network of one run, None if a second one was needed, and that of two runs."""
    answers: list[bool] = []

    def noted(self: OtherBatches, nodes: Sequence[Node]) -> Grown | None:
        found = grown(self, nodes)
        answers.append(found is not None)
        return found

    grown = OtherBatches.grown
    with monkeypatch.context() as patch:
        patch.setattr(OtherBatches, "grown", noted)
        once = make()
        patch.setattr(OtherBatches, "grown", lambda *_: None)
        return (once if any(answers) else None), make()


def fields_of(network: Network | None) -> list[object] | None:
    return None if network is None else all_fields(network)


@pytest.mark.parametrize("name", ZOO)
def test_one_run_says_what_two_say(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, inputs = ZOO[name]()
    once, twice = once_and_twice(lambda: network_of(module.eval(), name, call_inputs(name, inputs)), monkeypatch)
    assert fields_of(once) in (None, all_fields(twice))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vgg16_bn", "resnet18", "densenet121", "googlenet", "efficientnet_b0"])
def test_a_convolutional_network_takes_one_run(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    once, twice = once_and_twice(lambda: resolve(f"torchvision:{name}"), monkeypatch)
    assert once == twice


KNOWN: dict[str, Callable[[Any, Tensor], object]] = {
    "shape": lambda self, x: x * x.shape[0],
    "size": lambda self, x: x * x.size(0),
    "numel": lambda self, x: x / x.numel(),
    "unpacked": lambda self, x: self.linear(x.permute(0, 2, 3, 1).reshape(x.size()[0] * 6, 6, -1)),
    "a view of sizes": lambda self, x: x.view(x.shape[0], -1),
    "windows": lambda self, x: _windows(x, 3) + 1,
    "negative axis": lambda self, x: x.view(x.size(dim=-4), x.size(-3), -1),
    "unflattened": lambda self, x: x.unflatten(1, (2, 2)).transpose(1, 2).flatten(1, 2),
    "first": lambda self, x: x[0],
    "view": lambda self, x: x.view(1, -1),
    "mean": lambda self, x: x.mean(0),
    "total": lambda self, x: x.sum(),
    "permuted": lambda self, x: x.permute(2, 0, 1, 3),
    "written after a permutation": lambda self, x: x.permute(0, 2, 3, 1).add_(x.permute(0, 2, 3, 1)).contiguous(),
    "tokens": lambda self, x: self.linear(x.flatten(2).transpose(1, 2)),
    "tokens beside a parameter": lambda self, x: torch.cat((self.token.expand(x.shape[0], -1, -1), x.flatten(2)), 1),
    "attention": lambda self, x: self.attention(*[x.flatten(2).transpose(1, 2)] * 3)[0],
    "attention alone": lambda self, x: self.attention(*[x.flatten(2).mT] * 3, need_weights=False)[0].relu(),
    "the largest": lambda self, x: x.max(1)[0],
    "a product of heads": lambda self, x: _heads(x) @ _heads(x).transpose(-2, -1),
    "a product by letters": lambda self, x: torch.einsum("nchw,ncij->nhcij", x, x),
    "half of the channels": lambda self, x: x[:, :2].flatten(1),
    "made like it": lambda self, x: torch.zeros_like(x).flatten(1),
    "made of sizes": lambda self, x: torch.cat((x, torch.zeros(x.shape[0], 1, 6, 6)), 1),
    "made by a tensor": lambda self, x: x + x.new_zeros(x.shape[0], 4, 1, 1),
    "squared": lambda self, x: torch.zeros(x.shape[0], x.shape[0]) + x.sum(),
    "counted": lambda self, x: x + torch.arange(x.shape[0]).view(-1, 1, 1, 1),
    "written in part": lambda self, x: _written(x),
    "stride": lambda self, x: x * x.stride(0),
    "contiguous": lambda self, x: x if x.is_contiguous() else -x,
    "an int": lambda self, x: x if isinstance(x.shape[0], int) else -x,
    "a comparison": lambda self, x: x if x.shape[0] > 0 and x.shape[0] != 0 and x.shape[1:] == (4, 6, 6) else -x,
    "a slice": lambda self, x: torch.cat((x, x))[: x.shape[0]],
    "rounded": lambda self, x: x.view(max(x.shape[0], 1), -(-x.shape[0] * 4 // x.shape[0]), -1),
}
"""What forward computes from a map of 1x4x6x6. What other batches do follows from one run."""

if sys.version_info >= (3, 11):  # from which on code knows its columns
    KNOWN["an assertion"] = lambda self, x: _asserted(x)

UNKNOWN: dict[str, Callable[[Any, Tensor], object]] = {
    "len": lambda self, x: x * len(x),
    "loop": lambda self, x: sum(x),
    "unbind": lambda self, x: x.unbind(0)[0],
    "first two": lambda self, x: x[:2],
    "as many": lambda self, x: torch.cat([x for _ in range(x.shape[0])], 1),
    "repeated": lambda self, x: torch.cat([x] * x.shape[0], 1),
    "split": lambda self, x: torch.cat(x.chunk(2), 1),
    "odd": lambda self, x: x if x.shape[0] % 2 else -x,
    "many": lambda self, x: x if x.shape[0] > 512 else -x,
    "half": lambda self, x: x[: max(x.shape[0] // 2, 1)],
    "true": lambda self, x: x if x.shape[0] - 1 else -x,
    "a key": lambda self, x: {1: x, 2: -x}[x.shape[0]],
    "a number": lambda self, x: x * int(x.shape[0]),
    "a float": lambda self, x: x * float(x.shape[0] / 2),
    "squeeze": lambda self, x: x.squeeze(),
    "each with each": lambda self, x: x.flatten(1) @ x.flatten(1).T,
    "each with each, by F.linear": lambda self, x: nn.functional.linear(x.flatten(1), x.flatten(1)),
    "groups": lambda self, x: nn.functional.conv2d(x.view(1, -1, 6, 6), torch.ones(x.shape[0], 4, 1, 1), groups=len(x)),
    "expanded": lambda self, x: x.expand(3, -1, -1, -1),
    "copied": lambda self, x: x.transpose(0, 1).contiguous().view(4, -1),
    "the last axis but one": lambda self, x: x * x.size(x.shape[0]),
    "a name": lambda self, x: getattr(self, {"1": "conv", "2": "pool"}.get(f"{x.shape[0]}", "linear")).training * x,
    "a text": lambda self, x: x if str(x.shape).startswith("torch.Size([1,") else -x,
    "digits": lambda self, x: sum(x for _ in range(int("%s" % x.shape[0]))),  # noqa: UP031 - not the same
    "a message that is kept": lambda self, x: x if torch._assert(True, "") or f"{x.shape[0]}" == "1" else -x,
    "bits": lambda self, x: x if x.shape[0] & 3 == 1 else -x,
    "bytes": lambda self, x: x * x.shape[0].to_bytes(2, "little")[0],
    "a symbolic number": lambda self, x: x.view(torch.sym_int(x.shape[0]), -1),
    "a class": lambda self, x: x if type(x.shape[0]) is int else -x,
    "a base class": lambda self, x: x if issubclass(type(x.shape[0]), int) else -x,
    "a symbol": lambda self, x: -x if isinstance(x.shape[0], torch.SymInt) else x,
    "a method": lambda self, x: x if hasattr(x.shape[0], "to_bytes") else -x,
    "a key that is missing": lambda self, x: {1: x}.get(x.shape[0], -x),
    "written by way of a view": lambda self, x: _written_by_view(x),
    "a key in an assertion": lambda self, x: _asserted_by_key(x),
    "the place in memory": lambda self, x: x if x[-1:].storage_offset() == 0 else -x,
    "kept": lambda self, x: x.view(_kept(x.shape[0]), -1),
    "under vmap": lambda self, x: torch.vmap(lambda row: row * row.shape[0])(x),
    "a value": lambda self, x: x if x.sum() > 0 else -x,
    "a setting": lambda *args: _with_setting(*args),  # noqa: PLW0108 - it is defined below
    "a constant": lambda self, x: (x, self.linear.weight),
}
"""What forward computes otherwise, or may, for other batches, or what one run does not tell."""


def _windows(x: Tensor, side: int) -> Tensor:
    batch, channels, height, width = x.shape
    x = x.view(batch, channels, height // side, side, width // side, side)
    return x.permute(0, 2, 4, 3, 5, 1).reshape(batch * height * width // side**2, side * side, channels)


def _heads(x: Tensor) -> Tensor:
    return x.view(x.shape[0], 2, 2, -1).transpose(2, 3)


def _written(x: Tensor) -> Tensor:
    mask = x.new_zeros(x.shape[0], 6, 6)
    mask[:, 1:3] = 1
    return x * mask.unsqueeze(1)


def _asserted(x: Tensor) -> Tensor:
    batch = x.shape[0]
    torch._assert(x.shape[1] == 4, f"four channels are wanted, not those of {x.shape}, {batch:03} {x.shape!r}")
    return x.relu()


def _asserted_by_key(x: Tensor) -> Tensor:
    torch._assert({"1": 1}.get(f"{x.shape[0]}", 1), "one of two")
    return x


def _written_by_view(x: Tensor) -> Tensor:
    result = torch.zeros(x.shape[0], 4, 6, 6)
    result[:, :2].add_(x[:, :2])
    return result


KEPT: list[int] = []


def _kept(size: int) -> int:
    KEPT[:] = [size]
    return KEPT[0]


def _with_setting(self: Any, x: Tensor) -> Tensor:
    self.pool.stride = x.shape[0] + 1
    result: Tensor = self.pool(x)
    return result


def _net(forward: Callable[[Any, Tensor], object]) -> nn.Module:
    parts = {"conv": nn.Conv2d(3, 4, 3), "linear": nn.Linear(4, 4), "pool": nn.MaxPool2d(2)}
    attention = nn.MultiheadAttention(4, 2, batch_first=True)
    token = nn.Parameter(torch.ones(1, 1, 36))
    return Calls(lambda self, x: forward(self, self.conv(x)), **parts, attention=attention, token=token)


@pytest.mark.parametrize("batch", [None, 1, 5])
@pytest.mark.parametrize("name", [*KNOWN, *UNKNOWN])
def test_one_run_of_a_forward_says_what_two_say(name: str, batch: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    module = _net((KNOWN | UNKNOWN)[name]).eval()
    once, twice = once_and_twice(lambda: network_of(module, name, (3, 8, 8), batch=batch), monkeypatch)
    assert (once is not None) == (name in KNOWN)
    assert fields_of(once) in (None, all_fields(twice))


PLAIN = ("a class", "a base class", "a symbol", "a method", "a key", "a key that is missing", "a name", "bytes")


@pytest.mark.parametrize("name", PLAIN)
def test_one_sample_takes_the_way_that_plain_sizes_take(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = _net(UNKNOWN[name]).eval()
    ours = network_of(module, name, (3, 8, 8))
    monkeypatch.setattr(OtherBatches, "_number", lambda self, values: values[0])
    plain = network_of(module, name, (3, 8, 8), batch=1)
    assert [node.name for node in ours.nodes] == [node.name for node in plain.nodes]


def test_no_size_of_a_trace_is_left_in_what_forward_keeps() -> None:
    TABLES.clear()
    TABLES[7], KEPT[:] = 7, [7]
    vggscope.summary(_net(lambda self, x: x + TABLES.setdefault(x.shape[0], x.shape[0])), (3, 8, 8))
    vggscope.summary(_net(UNKNOWN["kept"]), (3, 8, 8))
    assert (TABLES, KEPT) == ({7: 7}, [7])


TABLES: dict[int, int] = {}


@pytest.mark.parametrize("name", KNOWN)
def test_sizes_that_forward_reads_hold_for_a_batch(name: str) -> None:
    module = _net(KNOWN[name]).eval()
    given = torch.zeros(5, 3, 8, 8)
    network = network_of(module, name, (3, 8, 8))
    assert network.outputs[0].batched(5) == tuple(module(given).shape)


def test_an_input_with_its_channels_last_is_run_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    image = torch.zeros(1, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten())
    once, _ = once_and_twice(lambda: network_of(module, "net", call_inputs("net", image)), monkeypatch)
    assert once is None


def test_a_hook_before_a_layer_may_read_the_batch() -> None:
    module = Calls(lambda self, x: self.second(self.first(x)), first=nn.Conv2d(3, 4, 1), second=nn.Conv2d(4, 4, 1))
    module.second.register_forward_pre_hook(lambda layer, args: args[0] if len(args[0]) == 1 else args[0].sin().cos())
    with pytest.raises(ShapeError, match="forward takes another way for two samples"):
        vggscope.summary(module, input_size=(3, 8, 8), batch=64)


OTHERWISE: dict[str, tuple[Callable[[nn.Module, Tensor], object], str]] = {
    "more work for a large batch": (lambda self, x: self.conv(x) if len(x) > 2 else x, "another way for 64 samples"),
    "half of the batch": (lambda self, x: self.conv(x[: max(len(x) // 2, 1)]), "another way for 64 samples"),
    "no large batch": (lambda self, x: self.conv(x) if len(x) < 9 else x.missing, "forward fails on 64 samples"),
    "first two": (lambda self, x: self.conv(x[:2]), "getitem does not grow in proportion to the batch"),
    "first forty": (lambda self, x: self.conv(x[:40]), "getitem does not grow in proportion to the batch"),
    "diagonal": (lambda self, x: self.conv(x).diagonal(0, 0, 1), "another way for 64 samples"),
    "each second": (lambda self, x: self.conv(x[::2]), "getitem does not grow in proportion to the batch"),
}


@pytest.mark.parametrize("name", OTHERWISE)
def test_a_large_batch_is_refused_that_takes_another_way(name: str) -> None:
    forward, reason = OTHERWISE[name]
    module = Calls(lambda self, x: forward(self, self.conv(x)), conv=nn.Conv2d(3, 3, 1))
    assert vggscope.summary(module, input_size=(3, 8, 8)).totals.macs is not None
    with pytest.raises(ShapeError, match=reason):
        vggscope.summary(module, input_size=(3, 8, 8), batch=64)


def test_the_samples_of_a_slice_that_forward_counts_grow_with_the_batch() -> None:
    module = Calls(lambda self, x: self.conv(torch.cat((x, x)))[: len(x)], conv=nn.Conv2d(3, 3, 1))
    report = vggscope.summary(module, input_size=(3, 8, 8), batch=64)
    assert report.outputs[0].shape == (64, 3, 8, 8)
    assert report.totals.macs == 2 * 64 * 8 * 8 * 3 * 3


def in_a_new_thread(x: Tensor) -> int:
    sizes: list[int] = []
    thread = Thread(target=lambda: sizes.append(len(x)))
    thread.start()
    thread.join()
    return sizes[0]


POOL = ThreadPoolExecutor(1)
POOL.submit(int).result()  # its worker runs from now on


def in_a_new_pool(x: Tensor) -> int:
    with ThreadPoolExecutor() as pool:
        return pool.submit(len, x).result()


def with_functions_disabled(x: Tensor) -> int:
    with torch._C.DisableTorchFunction():
        return len(x)


def with_functions_disabled_by_an_imported_name(x: Tensor) -> int:
    with DisableTorchFunction():
        return len(x)


def with_subclasses_disabled(x: Tensor) -> int:
    with torch._C.DisableTorchFunctionSubclass():
        return len(x)


class Sized(TorchDispatchMode):
    """Keeps the size of the last tensor that an operator reads."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.size = len(args[0])
        return func(*args, **(kwargs or {}))


def by_a_dispatch_mode(x: Tensor) -> int:
    with (mode := Sized()):
        x.relu()
    return mode.size


class SizedTensor(Tensor):
    """Keeps the size of the last tensor that a function reads."""

    samples = 0

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with DISABLED():
            cls.samples = len(args[0])
            return func(*args, **(kwargs or {}))


DISABLED = torch._C.DisableTorchFunctionSubclass


def by_a_subclass(x: Tensor) -> int:
    x.as_subclass(SizedTensor).relu()
    return SizedTensor.samples


@torch.library.custom_op("vggscope_tests::sized", mutates_args=())
def sized(x: Tensor) -> Tensor:
    SIZES.append(len(x))
    return x.clone()


@sized.register_fake
def _(x: Tensor) -> Tensor:
    SIZES.append(len(x))
    return torch.empty_like(x)


SIZES: list[int] = []


def by_a_custom_operator(x: Tensor) -> int:
    sized(x)
    return SIZES[-1]


def by_an_error(x: Tensor) -> int:
    try:
        x[5]
    except IndexError:
        return 1
    return 6


UNSEEN = (
    *(in_a_new_thread, in_a_new_pool, lambda x: POOL.submit(len, x).result()),
    *(with_functions_disabled, with_functions_disabled_by_an_imported_name, with_subclasses_disabled),
    *(by_a_dispatch_mode, by_a_subclass, by_a_custom_operator, by_an_error),
)


@pytest.mark.parametrize("size_of", UNSEEN, ids=lambda f: f.__name__)
def test_a_size_that_is_read_unseen_is_run_on_the_large_batch(size_of: Callable[[Tensor], int]) -> None:
    module = Calls(lambda self, x: self.conv(x) if size_of(x) < 6 else x + 0, conv=nn.Conv2d(3, 3, 1))
    assert vggscope.summary(module, (3, 8, 8)).totals.macs_known == 8 * 8 * 3 * 3
    for inspected in (vggscope.summary, vggscope.operations, vggscope.memory):
        with pytest.raises(ShapeError, match="forward takes another way for 64 samples"):
            inspected(module, (3, 8, 8), batch=64)


HELD: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "padding": lambda self, x: nn.functional.pad(self.conv(x), (0, x.shape[0])),
    "a size": lambda self, x: nn.functional.interpolate(self.conv(x), size=(x.shape[0] + 3, 4)),
    "bins": lambda self, x: nn.functional.adaptive_avg_pool2d(self.conv(x), x.shape[0]),
}


@pytest.mark.parametrize("name", HELD)
@pytest.mark.parametrize("is_one_run", [True, False])
def test_no_rule_predicts_the_memory_of_an_op_that_holds_a_size(
    name: str, is_one_run: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = Calls(HELD[name], conv=nn.Conv2d(3, 4, 1))
    if not is_one_run:
        monkeypatch.setattr(OtherBatches, "grown", lambda *_: None)
    assert not vggscope.network(module, (3, 8, 8)).predicts_memory
    ours = vggscope.memory(module, (3, 8, 8), batch=7).peak_bytes
    monkeypatch.setattr(Network, "predicts_step", lambda *_: False)
    assert ours == vggscope.memory(module, (3, 8, 8), batch=7).peak_bytes


def test_a_network_that_reads_sizes_is_run_on_a_large_batch() -> None:
    module = Calls(lambda self, x: self.conv(x) if len(x) < 6 else x + 0, conv=nn.Conv2d(3, 3, 1))
    network = vggscope.network(module, (3, 8, 8))
    with pytest.raises(ShapeError, match="forward takes another way for 64 samples"):
        vggscope.summary(network, batch=8)


@pytest.mark.parametrize("batch", [1, 64])
def test_what_forward_submits_to_a_pool_is_counted(batch: int) -> None:
    def forward(self: nn.Module, x: Tensor) -> Tensor:
        with ThreadPoolExecutor() as pool:
            half, whole = pool.map(lambda part: nn.functional.relu(self.conv(part)), (x[:, :, :4], x))
        return half.sum() + whole.sum()

    summary = vggscope.summary(Calls(forward, conv=nn.Conv2d(3, 3, 1)), (3, 8, 8), batch=batch)
    assert summary.totals.macs == batch * (4 + 8) * 8 * 3 * 3
    assert sum(layer.op == "ReLU" for layer in summary.layers) == 2
    assert not summary.warnings


def test_a_thread_that_computes_is_refused() -> None:
    def forward(self: nn.Module, x: Tensor) -> Tensor:
        results: list[Tensor] = []
        thread = Thread(target=lambda: results.append(self.conv(x)))
        thread.start()
        thread.join()
        return results[0]

    with pytest.raises(ModelError, match="in a thread of its own") as raised:
        vggscope.summary(Calls(forward, conv=nn.Conv2d(3, 3, 1)), (3, 8, 8))
    assert "ThreadPoolExecutor" in raised.value.remedy


def test_the_functions_that_are_watched_are_restored() -> None:
    names = (Thread, "start"), (ThreadPoolExecutor, "submit"), (torch._C, "DisableTorchFunction")
    before = [vars(owner)[name] for owner, name in names]
    vggscope.summary(nn.Conv2d(3, 3, 1), (3, 8, 8))
    assert [vars(owner)[name] for owner, name in names] == before


SLICED: dict[str, Callable[[nn.Module, Tensor], object]] = {
    "a slice": lambda self, x: self.conv(x[:, :3]),
    "pieces": lambda self, x: torch.cat([part.relu() for part in x.split(2, 1)], 1),
    "a sum of pieces": lambda self, x: torch.add(*x.chunk(2, 1)),
    "a slice of a slice": lambda self, x: nn.functional.max_pool2d(x[:, 1:][:, ::1], 2),
}


@pytest.mark.parametrize("name", SLICED)
def test_slices_of_channels_take_one_run(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = Calls(lambda self, x: SLICED[name](self, self.first(x)), first=nn.Conv2d(3, 4, 1), conv=nn.Conv2d(3, 4, 1))
    once, twice = once_and_twice(lambda: network_of(module, name, (3, 8, 8)), monkeypatch)
    assert once is not None
    assert [vars(node) for node in once.nodes] == [vars(node) for node in twice.nodes]


COPIED: dict[str, Callable[[Any, Tensor], object]] = {
    "a view": lambda self, x: x[:, :2].reshape(-1, 8, 8),
    "rows": lambda self, x: self.linear(x[:, :2, 0]),
    "a sum over the batch's neighbours": lambda self, x: x[:, :1] + x,
    "in place": lambda self, x: x[:, :2].relu_() + 1,
    "a part of each map": lambda self, x: x[:, :, 2:].relu(),
    "contiguous": lambda self, x: x[:, :2].contiguous().relu(),
}


@pytest.mark.parametrize("name", COPIED)
def test_slices_that_more_samples_copy_are_copied(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = Calls(lambda self, x: COPIED[name](self, self.first(x)), first=nn.Conv2d(3, 4, 1), linear=nn.Linear(8, 8))
    once, twice = once_and_twice(lambda: network_of(module, name, (3, 8, 8)), monkeypatch)
    assert (once is None) == (name == "contiguous")  # which is a call that one sample does not need
    assert fields_of(once) in (None, all_fields(twice))


def test_the_size_of_a_weight_does_not_depend_on_the_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    module = Calls(lambda self, x: self.conv(x) * self.conv.weight.shape[0], conv=nn.Conv2d(3, 4, 1))
    once, twice = once_and_twice(lambda: network_of(module, "weight", (3, 8, 8)), monkeypatch)
    assert once == twice


@pytest.mark.parametrize("operation", ["conv", "batch_norm", "max_pool", "avg_pool", "relu", "silu", "cat", "add"])
@pytest.mark.parametrize("samples", [1, 3])
def test_torch_gives_results_of_slices_in_the_usual_order(operation: str, samples: int) -> None:
    slices = torch.zeros(samples, 8, 6, 5, device="meta")[:, 2:6]
    weight, channels = torch.zeros(3, 4, 3, 3, device="meta"), torch.zeros(4, device="meta")
    functional = nn.functional
    results: dict[str, Callable[[], Tensor]] = {
        "conv": lambda: functional.conv2d(slices, weight),
        "batch_norm": lambda: functional.batch_norm(slices, channels, channels),
        "max_pool": lambda: functional.max_pool2d(slices, 2),
        "avg_pool": lambda: functional.avg_pool2d(slices, 2),
        "relu": slices.relu,
        "silu": lambda: functional.silu(slices),
        "cat": lambda: torch.cat([slices, slices], 1),
        "add": lambda: slices + torch.zeros_like(slices, memory_format=torch.contiguous_format),
    }
    result = results[operation]()
    assert result.is_contiguous()
    assert result.stride()[0] == result[0].numel()


def test_a_size_that_a_module_keeps_holds_nothing_of_the_trace() -> None:
    place: ContextVar[tuple[int, ...]] = ContextVar("place", default=())  # which is not restored
    module = _net(lambda self, x: (place.set((*place.get(), x.shape[0])), x.relu())[1])
    network = network_of(module, "net", (3, 8, 8))
    nodes, kept = ref(network.nodes[0]), place.get()[0]
    assert isinstance(kept, int)
    assert (kept + 1, f"{kept}", [*range(kept)]) == (2, "1", [0])
    del network
    gc.collect()
    assert nodes() is None
