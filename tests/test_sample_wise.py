"""Networks of which one run is enough: what a run on two samples would say is known."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import vggscope
from tests.test_zoo import call_inputs
from tests.zoo import ZOO, Calls
from vggscope.errors import ShapeError
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
    "each with each, by F.linear": lambda self, x: nn.functional.linear(x.flatten(1), x.flatten(1)),
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
