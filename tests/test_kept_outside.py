"""A trace leaves no tensor without data where forward keeps tensors outside its module."""

from __future__ import annotations

import gc
import sys
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from functools import cache, cached_property, lru_cache
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import vggscope
from vggscope.recorded_step import StepRequest
from vggscope.trace import kept_outside
from vggscope.trace.network import network_of

SIZE = 8
REQUESTS = (StepRequest(trains=True, on_gpu=False), StepRequest(trains=False, on_gpu=False))


@pytest.fixture(autouse=True)
def not_frozen() -> Iterator[None]:
    """Run as in most programs, where nobody has frozen objects."""
    gc.unfreeze()
    yield
    gc.freeze()


def made(n: int) -> Tensor:
    return torch.sin(torch.arange(n, dtype=torch.float32))


@lru_cache
def by_lru_cache(n: int) -> Tensor:
    return made(n)


@cache
def pair_by_cache(n: int) -> tuple[Tensor, Tensor]:
    return made(n), made(n)


@lru_cache
def dict_by_lru_cache(n: int) -> dict[str, Tensor]:
    return {"table": made(n)}


GLOBAL: dict[int, Tensor] = {}
OF_PAIRS: dict[int, tuple[Tensor, list[Tensor]]] = {}
OF_DICTS: dict[str, dict[int, Tensor]] = {"tables": {}}
ORDERED: OrderedDict[int, Tensor] = OrderedDict()
LISTED: list[Tensor] = []
LATEST: deque[Tensor] = deque(maxlen=2)
LAZY: Tensor | None = None


def in_global(n: int) -> Tensor:
    if n not in GLOBAL:
        GLOBAL[n] = made(n)
    return GLOBAL[n]


def in_pair(n: int) -> Tensor:
    if n not in OF_PAIRS:
        OF_PAIRS[n] = made(n), [made(n)]
    table, (other,) = OF_PAIRS[n]
    return table * other


def in_dict_of_dicts(n: int) -> Tensor:
    if n not in OF_DICTS["tables"]:
        OF_DICTS["tables"][n] = made(n)
    return OF_DICTS["tables"][n]


def in_ordered(n: int) -> Tensor:
    if n not in ORDERED:
        ORDERED[n] = made(n)
    return ORDERED[n]


def in_list(n: int) -> Tensor:
    LISTED[:] = LISTED or [made(n)]
    return LISTED[0]


def in_deque(n: int) -> Tensor:
    if not LATEST:
        LATEST.append(made(n))
    return LATEST[-1]


def by_global(n: int) -> Tensor:
    global LAZY  # noqa: PLW0603 - as users do
    if LAZY is None:
        LAZY = made(n)
    return LAZY


def by_new_global(n: int) -> Tensor:
    if "NEW" not in globals():
        globals()["NEW"] = made(n)
    return globals()["NEW"]  # type: ignore[no-any-return]


def in_default(n: int, known: dict[int, Tensor] = {}) -> Tensor:  # noqa: B006 - as users do
    if n not in known:
        known[n] = made(n)
    return known[n]


def in_own_attribute(n: int) -> Tensor:
    known: dict[int, Tensor] = vars(in_own_attribute).setdefault("known", {})
    return known.setdefault(n, made(n))


def _closure() -> Callable[[int], Tensor]:
    known: dict[int, Tensor] = {}
    lazy = None

    def table(n: int) -> Tensor:
        nonlocal lazy
        if lazy is None:
            lazy = made(n)
        if n not in known:
            known[n] = lazy + 1
        return known[n]

    return table


in_closure = _closure()


class Tables:
    def __init__(self) -> None:
        self.known: dict[int, Tensor] = {}
        self.lazy: Tensor | None = None

    def __call__(self, n: int) -> Tensor:
        if self.lazy is None:
            self.lazy = made(n)
        if n not in self.known:
            self.known[n] = self.lazy + 1
        return self.known[n]


TABLES = Tables()

OF_THREAD = threading.local()


def in_thread(n: int) -> Tensor:
    if not hasattr(OF_THREAD, "table"):
        OF_THREAD.table = made(n)
    return OF_THREAD.table  # type: ignore[no-any-return]


STATE: dict[str, Tensor | None] = {"mask": None}
PLACES: list[Tensor | None] = [None, None]
NAMESPACE = SimpleNamespace(mask=None)
SEEN: set[int] = set()
BY_SIZE: dict[int, Tensor] = {}
LENGTH, LONGEST = 0, torch.empty(0)


def in_place_of_none(n: int) -> Tensor:
    if STATE["mask"] is None:
        STATE["mask"] = made(n)
    return STATE["mask"]


def in_a_place(n: int) -> Tensor:
    if PLACES[1] is None:
        PLACES[1] = made(n)
    return PLACES[1]


def in_namespace(n: int) -> Tensor:
    if NAMESPACE.mask is None:
        NAMESPACE.mask = made(n)
    return NAMESPACE.mask  # type: ignore[no-any-return]


def as_long_as_needed(n: int) -> Tensor:
    global LENGTH, LONGEST
    if n > LENGTH:
        LENGTH, LONGEST = n, made(n)
    return LONGEST[:n]


def of_sizes_seen(n: int) -> Tensor:
    if n not in SEEN:
        SEEN.add(n)
        BY_SIZE[n] = made(n)
    return BY_SIZE[n]


def deep_in_default(n: int, known: dict[str, list[dict[int, Tensor]]] = {"tables": [{}]}) -> Tensor:  # noqa: B006
    tables = known["tables"][0]
    if n not in tables:
        tables[n] = made(n)
    return tables[n]


class PrivateSlot:
    __slots__ = ("__table",)

    def __init__(self) -> None:
        self.__table: Tensor | None = None

    def __call__(self, n: int) -> Tensor:
        if self.__table is None:
            self.__table = made(n)
        return self.__table


class Computed:
    @cached_property
    def table(self) -> Tensor:
        return made(SIZE)


class Beside(nn.Module):
    table: Tensor | None = None

    def __init__(self) -> None:
        super().__init__()
        self.cached: Tensor | None = None
        self.register_buffer("filled", None, persistent=False)

    def forward(self, n: int) -> Tensor:
        if self.cached is None or self.filled is None or Beside.table is None:
            self.cached, self.filled, Beside.table = made(n), made(n), made(n)
        return self.cached + self.filled + Beside.table


COMPUTED, BESIDE, OF_SLOT = Computed(), Beside(), PrivateSlot()

KEEPERS: dict[str, Callable[[int], Tensor]] = {
    "in place of None": in_place_of_none,
    "a place of a list": in_a_place,
    "a namespace": in_namespace,
    "as long as needed": as_long_as_needed,
    "of sizes seen": of_sizes_seen,
    "deep in a default": deep_in_default,
    "a private slot": OF_SLOT.__call__,
    "a cached property": lambda n: COMPUTED.table,
    "another module": BESIDE.forward,
    "lru_cache": by_lru_cache,
    "a pair by cache": lambda n: torch.mul(*pair_by_cache(n)),
    "a dict by lru_cache": lambda n: dict_by_lru_cache(n)["table"],
    "a dict": in_global,
    "a dict of pairs": in_pair,
    "a dict of dicts": in_dict_of_dicts,
    "an ordered dict": in_ordered,
    "a list": in_list,
    "a deque": in_deque,
    "a global": by_global,
    "a new global": by_new_global,
    "a default": in_default,
    "an attribute of a function": in_own_attribute,
    "a closure": in_closure,
    "an object": TABLES,
    "an object of the thread": in_thread,
}


class Keeps(nn.Module):
    """A convolution and a table that is kept. `reads` is what no rule predicts, so that a step is recorded."""

    known: dict[int, Tensor] = {}  # noqa: RUF012 - as users do
    lazy: Tensor | None = None

    def __init__(self, table: Callable[[int], Tensor], *, is_recorded: bool = False) -> None:
        super().__init__()
        self.table, self.is_recorded = table, is_recorded
        self.conv = nn.Conv2d(3, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if self.is_recorded:
            x = torch.special.bessel_j0(x.detach()) + x
        return x + self.table(x.shape[-1])


def in_class(n: int) -> Tensor:
    if n not in Keeps.known:
        Keeps.known[n] = made(n)
    if Keeps.lazy is None:
        Keeps.lazy = made(n)
    return Keeps.known[n] + Keeps.lazy


KEEPERS["a class"] = in_class


@pytest.mark.parametrize("is_recorded", [False, True], ids=["by rules", "recorded"])
@pytest.mark.parametrize("table", KEEPERS.values(), ids=KEEPERS)
def test_the_next_real_call_finds_no_tensor_without_data(table: Callable[[int], Tensor], is_recorded: bool) -> None:
    net, x = Keeps(table, is_recorded=is_recorded), torch.rand(2, 3, SIZE, SIZE)
    network = network_of(net, "net", (3, SIZE, SIZE), steps=REQUESTS, batch=2)
    assert network.steps or not is_recorded
    assert net(x).isfinite().all()
    first = net(x)
    network_of(net, "net", (3, SIZE, SIZE), steps=REQUESTS, batch=2)
    assert torch.equal(first, net(x))


@pytest.mark.parametrize("place", [0, "conv"])
def test_what_a_hook_has_kept_stays(place: int | str) -> None:
    features: dict[int | str, Tensor] = {}
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
    net[0].register_forward_hook(lambda module, inputs, output: features.update({place: output}))
    net(torch.rand(2, 3, SIZE, SIZE))
    before = features[place]
    network_of(net, "net", (3, SIZE, SIZE))
    assert features[place] is before


SIZES: list[int] = []


class NotesSizes(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        SIZES.append(x.shape[0])
        return super().forward(x)


def test_no_size_that_stands_for_any_batch_is_kept() -> None:
    net = NotesSizes(2, 3)
    net(torch.rand(5, 2))
    network_of(net, "net", (2,))
    assert SIZES == [5]
    assert list(map(type, SIZES)) == [int]


@pytest.mark.parametrize("command", [vggscope.measure, vggscope.verify])
def test_tensors_of_other_tools_are_not_kept(command: Callable[..., object]) -> None:
    by_lru_cache.cache_clear()
    net = Keeps(by_lru_cache)
    command(net, (3, SIZE, SIZE))
    assert type(net(torch.rand(2, 3, SIZE, SIZE))) is Tensor
    assert type(by_lru_cache(SIZE)) is Tensor


def test_a_cache_in_a_library_is_cleared(monkeypatch: pytest.MonkeyPatch) -> None:
    """A library's files are not looked at: a search finds the cache."""
    cached = lru_cache(lambda n: (made(n), made(n)))
    monkeypatch.setattr(kept_outside, "DEEPEST", -1)
    net = Keeps(lambda n: torch.add(*cached(n)))
    network_of(net, "net", (3, SIZE, SIZE))
    assert net(torch.rand(2, 3, SIZE, SIZE)).isfinite().all()


MANY_NUMBERS = [list(range(10_000 + n, 10_900 + n)) for n in range(30)]


def test_numbers_beside_a_table_are_not_counted() -> None:
    assert sum(map(len, MANY_NUMBERS)) > kept_outside.MOST
    known: dict[int, Tensor] = {}
    net = Keeps(lambda n, numbers=MANY_NUMBERS, known=known: known.setdefault(n, made(n)))
    network_of(net, "net", (3, SIZE, SIZE))
    assert not known


def test_a_thread_keeps_the_place_of_its_tables() -> None:
    net, of_thread = Keeps(in_thread), vars(OF_THREAD)
    for _ in range(2):
        network_of(net, "net", (3, SIZE, SIZE))
    assert vars(OF_THREAD) is of_thread


def test_an_object_in_place_of_the_file_of_a_class(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "apart", object())  # type: ignore[arg-type]
    kind = type("Apart", (nn.Linear,), {"__module__": "apart"})
    assert len(network_of(kind(2, 3), "net", (2,)).nodes) == 1


class FailsInTraining(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(nn.functional.max_pool2d(x, 2 * SIZE) if self.training else x)  # type: ignore[no-any-return]


def test_what_fails_in_training_is_not_searched_for(monkeypatch: pytest.MonkeyPatch) -> None:
    searches: list[object] = []
    monkeypatch.setattr(gc, "get_referrers", lambda *held: searches.append(held) or [])
    network = network_of(FailsInTraining(nn.Conv2d(3, 8, 3)), "net", (3, SIZE, SIZE))
    assert not searches
    assert network.failure is None


@pytest.mark.parametrize("freezes", [False, True])
def test_what_the_caller_has_made_since_freezing_stays(freezes: bool) -> None:
    if freezes:
        gc.freeze()
    kept: list[object] = [1]
    layer = nn.Linear(2, 3)
    layer.register_forward_hook(lambda module, inputs, output: kept.append(output))
    for _ in range(2):
        network_of(layer, "net", (2,))
        assert kept == [1]


def test_a_global_of_another_file_keeps_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    file: Any = ModuleType("tables")
    monkeypatch.setitem(sys.modules, "tables", file)
    vars(file).update(made=made, LAZY=None, KNOWN={})
    code = """
def table(n):
    global LAZY
    if LAZY is None:
        LAZY = made(n)
    if n not in KNOWN:
        KNOWN[n] = LAZY + 1
    return KNOWN[n]
"""
    exec(code, vars(file))
    net, x, known = Keeps(file.table), torch.rand(2, 3, SIZE, SIZE), file.KNOWN
    for _ in range(2):
        assert network_of(net, "net", (3, SIZE, SIZE)).failure is None
        assert file.LAZY is None
    assert net(x).isfinite().all()
    assert file.KNOWN is known
