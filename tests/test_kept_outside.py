"""A trace leaves no tensor without data where forward keeps tensors outside its module."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from functools import cache, lru_cache

import pytest
import torch
from torch import Tensor, nn

from vggscope.recorded_step import StepRequest
from vggscope.trace.network import network_of

SIZE = 8
REQUESTS = (StepRequest(trains=True, on_gpu=False), StepRequest(trains=False, on_gpu=False))


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

KEEPERS: dict[str, Callable[[int], Tensor]] = {
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
