"""A trace beside other threads that trace or run models: it replaces functions that all threads share."""

from __future__ import annotations

from collections.abc import Callable
from threading import Event, Thread

import torch
from torch import Tensor, nn

from tests.zoo import Calls
from vggscope.trace.network import network_of

SIZE = (3, 8, 8)


def network_beside(work: Callable[[Event, Event], None]) -> list[str]:
    """The nodes of a trace whose forward waits for what another thread does meanwhile."""
    inside, done = Event(), Event()
    worker = Thread(target=work, args=(inside, done))

    def forward(self: nn.Module, x: Tensor) -> Tensor:
        inside.set()
        done.wait(0.5)
        result: Tensor = self.conv(x).relu()
        return result

    worker.start()
    try:
        return [node.name for node in network_of(Calls(forward, conv=nn.Conv2d(3, 4, 3)), "net", SIZE).nodes]
    finally:
        worker.join()


def test_what_another_thread_runs_is_no_part_of_a_trace() -> None:
    layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.TransformerEncoderLayer(6, 2, 8)).eval()
    results: list[Tensor] = []

    class Double(torch.autograd.Function):
        @staticmethod
        def forward(context: object, x: Tensor) -> Tensor:
            return x * 2

    def run(inside: Event, done: Event) -> None:
        inside.wait()
        image = torch.from_numpy(torch.zeros(1, *SIZE).numpy())
        results.append(torch.vmap(lambda row: row * 2)(Double.apply(layers[:3](image))))
        starter = Thread(target=lambda: results.append(layers[0](image)))
        starter.start()
        starter.join()
        done.set()

    assert network_beside(run) == ["conv", "relu"]
    assert [(tuple(result.shape), str(result.device)) for result in results] == [((1, 4, 6, 6), "cpu")] * 2


def test_another_trace_waits() -> None:
    others: list[list[str]] = []

    def trace(inside: Event, done: Event) -> None:
        inside.wait()
        module = Calls(lambda self, x: self.norm(x).sin(), norm=nn.BatchNorm2d(3))
        others.append([node.name for node in network_of(module, "other", SIZE).nodes])
        done.set()

    assert network_beside(trace) == ["conv", "relu"]
    assert others == [["norm", "sin"]]
    assert nn.Module._call_impl.__qualname__ == "Module._call_impl"  # which is restored
