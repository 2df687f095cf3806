"""A run on more samples repeats what it can of the run on one, and says what it would say by itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.test_zoo import call_inputs
from tests.zoo import ZOO
from vggscope.graph import Network
from vggscope.trace import run, sample_runs
from vggscope.trace.earlier_run import Calls
from vggscope.trace.forward import Forward
from vggscope.trace.network import network_of
from vggscope.trace.watch import Watch

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")


def all_fields(network: Network) -> list[object]:
    """What a Network holds, fields that are not compared included."""
    fields = {name: value for name, value in vars(network).items() if name in Network.__dataclass_fields__}  # type: ignore[attr-defined]
    return [*(vars(node) for node in fields.pop("nodes")), fields, [vars(tensor) for tensor in network.outputs]]


def both_ways(make: Callable[[], Network], monkeypatch: pytest.MonkeyPatch) -> tuple[Network, Network, int]:
    """The Network of runs that follow the first one, that of runs of their own, and how many calls were repeated."""
    repeated: list[bool] = []
    repeat, following = Calls.repeat, sample_runs.following

    def noted(self: Calls, *args: Any) -> bool:
        repeated.append(repeat(self, *args))
        return repeated[-1]

    def by_itself(forward: Forward, earlier: Watch) -> Forward:
        return replace(following(forward, earlier), earlier=None)

    with monkeypatch.context() as patch:
        patch.setattr(sample_runs, "is_sample_wise", lambda *_: False)
        patch.setattr(Calls, "repeat", noted)
        network = make()
        patch.setattr(sample_runs, "following", by_itself)
        patch.setattr(run, "following", by_itself)
        return network, make(), sum(repeated)


@pytest.mark.parametrize("name", ZOO)
def test_a_run_that_follows_says_what_it_would_say_by_itself(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, inputs = ZOO[name]()
    found, truth, _ = both_ways(lambda: network_of(module.eval(), name, call_inputs(name, inputs)), monkeypatch)
    assert all_fields(found) == all_fields(truth)


class Odd(nn.Module):
    """A forward that does something else with two samples."""

    def __init__(self, forward: Callable[[Any, Tensor], Tensor]) -> None:
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


ODD: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "another function": lambda self, x: self.conv(x.relu() if len(x) == 1 else x.sigmoid()),
    "another argument": lambda self, x: self.conv(x).clamp(0, len(x)),
    "one more call": lambda self, x: self.conv(x if len(x) == 1 else x.relu()).relu(),
    "one call less": lambda self, x: self.conv(x.relu() if len(x) == 1 else x).relu(),
    "another order": lambda self, x: torch.cat([x.relu(), x.neg()][:: 1 if len(x) == 1 else -1], 1),
    "another source": lambda self, x: self.conv(x) + (x if len(x) == 1 else self.conv(x)),
    "another module": lambda self, x: self.conv(x).relu() if len(x) == 1 else self.pool(x).relu(),
    "another setting": _set_stride,
    "another weight": lambda self, x: x + self.weights[: len(x)],
    "a slice": lambda self, x: self.linear(x[:, 1:3]).relu_() + 1,
    "a slice of a layer": lambda self, x: self.conv(torch.cat([self.conv(x)[:, :2], x[:, 2:]], 1)),
    "contiguous": lambda self, x: self.linear(x[:, :2].contiguous()),
    "permuted": lambda self, x: self.linear(x.permute(0, 2, 3, 1).reshape(len(x), -1, 8)),
    "each with each": lambda self, x: x.flatten(1) @ x.flatten(1).T,
    "written": lambda self, x: self.linear(x.clone().index_fill_(1, torch.tensor([0]), 0.0)[:, :1].mul_(2)),
    "batch in another axis": lambda self, x: self.linear(x.transpose(0, 1)).transpose(0, 1),
    "unbound": lambda self, x: torch.stack([self.linear(sample) for sample in x]),
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("samples", [None, 1, 5])
def test_what_differs_with_the_samples_is_seen(name: str, samples: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    module = Odd(ODD[name]).eval()
    found, truth, _ = both_ways(lambda: network_of(module, name, (4, 8, 8), batch=samples), monkeypatch)
    assert all_fields(found) == all_fields(truth)


def test_the_calls_of_a_network_are_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    module = Odd(lambda self, x: self.linear(self.conv(x).relu().view(len(x), -1, 8))).eval()
    found, truth, repeated = both_ways(lambda: network_of(module, "net", (4, 8, 8), batch=1), monkeypatch)
    assert found == truth
    assert repeated == 4 + 4  # on two samples, and in training for the weights that no layer reads
