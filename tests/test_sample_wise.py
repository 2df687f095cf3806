"""Networks of which one run is enough: what a run on two samples would say is known."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tests.test_zoo import call_inputs
from tests.zoo import ZOO, Calls
from vggscope.graph import Network
from vggscope.sources.resolve import resolve
from vggscope.trace import run
from vggscope.trace.network import network_of

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")


def once_and_twice(make: Callable[[], Network], monkeypatch: pytest.MonkeyPatch) -> tuple[Network | None, Network]:
    """The Network of one run, None if a second one was needed, and that of two runs."""
    answers: list[bool] = []

    def noted(*args: object) -> bool:
        answers.append(is_sample_wise(*args))  # type: ignore[arg-type]
        return answers[-1]

    is_sample_wise = run.is_sample_wise
    with monkeypatch.context() as patch:
        patch.setattr(run, "is_sample_wise", noted)
        once = make()
        patch.setattr(run, "is_sample_wise", lambda *_: False)
        return (once if any(answers) else None), make()


@pytest.mark.parametrize("name", ZOO)
def test_one_run_says_what_two_say(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, inputs = ZOO[name]()
    once, twice = once_and_twice(lambda: network_of(module.eval(), name, call_inputs(name, inputs)), monkeypatch)
    assert once in (None, twice)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vgg16_bn", "resnet18", "densenet121", "googlenet", "efficientnet_b0"])
def test_a_convolutional_network_takes_one_run(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    once, twice = once_and_twice(lambda: resolve(f"torchvision:{name}"), monkeypatch)
    assert once == twice


FORWARDS: dict[str, Callable[[nn.Module, Tensor], object]] = {
    "shape": lambda self, x: x * x.shape[0],
    "size": lambda self, x: x * x.size(0),
    "len": lambda self, x: x * len(x),
    "numel": lambda self, x: x * x.numel(),
    "loop": lambda self, x: sum(x),
    "unbind": lambda self, x: x.unbind(0)[0],
    "first": lambda self, x: x[0],
    "first two": lambda self, x: x[:2],
    "view": lambda self, x: x.view(1, -1),
    "squeeze": lambda self, x: x.squeeze(),
    "mean": lambda self, x: x.mean(0),
    "total": lambda self, x: x.sum(),
    "each with each": lambda self, x: x.flatten(1) @ x.flatten(1).T,
    "permuted": lambda self, x: x.permute(2, 0, 1, 3),
    "tokens": lambda self, x: self.linear(x.flatten(2).transpose(1, 2)),
    "half of the channels": lambda self, x: x[:, :2].flatten(1),
    "expanded": lambda self, x: x.expand(3, -1, -1, -1),
    "made like it": lambda self, x: torch.zeros_like(x).flatten(1),
    "stride": lambda self, x: x * x.stride(0),
    "under vmap": lambda self, x: torch.vmap(lambda row: row * row.shape[0])(x),
    "a value": lambda self, x: x if x.sum() > 0 else -x,
    "a constant": lambda self, x: self.linear.weight,
}


@pytest.mark.parametrize("name", FORWARDS)
def test_what_may_depend_on_the_batch_is_run_twice(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = Calls(FORWARDS[name], conv=nn.Conv2d(3, 4, 3), linear=nn.Linear(4, 4))
    forward = module.function
    module.function = lambda self, x: forward(self, self.conv(x)) if name != "a constant" else (x, forward(self, x))
    once, _ = once_and_twice(lambda: network_of(module, name, call_inputs(name, torch.zeros(1, 3, 8, 8))), monkeypatch)
    assert once is None


def test_an_input_with_its_channels_last_is_run_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    image = torch.zeros(1, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten())
    once, _ = once_and_twice(lambda: network_of(module, "net", call_inputs("net", image)), monkeypatch)
    assert once is None
