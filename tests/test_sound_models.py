"""Sound models for which a reference tool cannot check a figure: `verify` says why, and does not disagree."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import vggscope
from vggscope.cross_checks import autograd


class Base(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x))


class Detaches(Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).detach())


class Inference(Base):
    def forward(self, x: Tensor) -> Tensor:
        with torch.inference_mode():
            return self.second(self.first(x))


class Disables(Base):
    def forward(self, x: Tensor) -> Tensor:
        with torch._C.DisableTorchFunction():
            x = self.first(x) @ torch.ones(16, 16)
        return self.second(x)


@pytest.mark.parametrize("kind", [Detaches, Inference])
def test_a_field_is_measured_through_what_stops_a_gradient(kind: Callable[[], nn.Module]) -> None:
    verification = vggscope.verify(kind(), input_size=(3, 16, 16))
    assert verification.agrees
    assert "receptive_fields" not in verification.unchecked


def test_calls_under_disabled_functions_are_recorded() -> None:
    report = vggscope.summary(Disables(), input_size=(3, 16, 16))
    assert [layer.op for layer in report.layers] == ["Conv2d", "matmul", "Conv2d"]
    assert report.warnings == ()
    verification = vggscope.verify(Disables(), input_size=(3, 16, 16))
    assert verification.agrees
    assert {"macs", "backward_macs", "training_peak_bytes"}.isdisjoint(verification.unchecked)


class InAList(Base):
    def __init__(self) -> None:
        super().__init__()
        self.more = [nn.Conv2d(8, 8, 3, padding=1)]

    def forward(self, x: Tensor) -> Tensor:
        return self.more[0](self.first(x))


class InALambda(Base):
    def __init__(self) -> None:
        super().__init__()
        more = nn.Conv2d(8, 8, 3, padding=1)
        self.function = lambda x: functional.relu(more(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.function(self.first(x)))


class Hooked(Base):
    def __init__(self) -> None:
        super().__init__()
        self.more = nn.Conv2d(8, 8, 1)
        self.first.register_forward_hook(lambda module, inputs, output: self.more(output))


class PreHooked(Base):
    def __init__(self) -> None:
        super().__init__()
        self.first.register_forward_pre_hook(
            lambda module, inputs: (functional.interpolate(inputs[0], scale_factor=2),)
        )


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (InAList, "forward calls a Conv2d of a list"),
        (InALambda, "forward calls a Conv2d of a list"),
        (Hooked, "forward calls a Conv2d of a list"),
        (PreHooked, "a forward pre-hook computes"),
    ],
)
def test_a_figure_that_a_tool_cannot_see_is_not_compared(kind: Callable[[], nn.Module], reason: str) -> None:
    verification = vggscope.verify(kind(), input_size=(3, 16, 16))
    assert verification.agrees
    assert any(reason in skipped.reason for skipped in verification.skipped)


def test_quantised_layers_have_no_fields_to_measure() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(768, 64), nn.ReLU(), nn.Linear(64, 4))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantized = torch.ao.quantization.quantize_dynamic(module, {nn.Linear}, dtype=torch.qint8)
    verification = vggscope.verify(quantized, input_size=(3, 16, 16))
    assert verification.agrees
    assert any("no gradient" in skipped.reason for skipped in verification.skipped)


class Unfolds(Base):
    """A product of a weight with an unfolded map, which torch folds into one only if the weight requires a gradient."""

    def forward(self, x: Tensor) -> Tensor:
        return self.first.weight.flatten(1) @ functional.unfold(x, 3, padding=1)


def test_the_memory_of_a_forward_pass_is_that_of_parameters_that_require_gradients() -> None:
    figures = vggscope.verify(Unfolds(), input_size=(3, 16, 16)).figures
    assert {figure.name: figure.outcome for figure in figures}["inference_peak_bytes"] == "explained"


def test_a_wrong_field_still_disagrees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autograd, "differences", lambda *_: ["first: wrong"])
    for kind in (Base, Detaches):
        assert not vggscope.verify(kind(), input_size=(3, 16, 16)).agrees
