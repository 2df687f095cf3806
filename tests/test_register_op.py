"""Figures of modules and operators that the user states."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import vggscope
from vggscope.errors import OptionError


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(8, 24)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        return (q @ k.transpose(1, 2)).softmax(-1) @ v


class Opaque(nn.Module):
    """It leaves torch, so that nothing is known of it without its rules."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(8, 4))

    def forward(self, x: Tensor) -> Tensor:
        return torch.tensor((x.detach().numpy() @ self.weight.detach().numpy()).tolist())


class Act(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x)


def attention_macs(call: vggscope.OpCall) -> int:
    batch, tokens, width = call.inputs[0]
    return batch * (tokens * width * 24 + 2 * tokens * tokens * width)


def test_a_stated_module_is_one_layer_with_its_figures_for_each_batch() -> None:
    model = nn.Sequential(nn.Linear(8, 8), Attention())
    by_torch = vggscope.summary(model, (1, 5, 8))
    with vggscope.register_op(Attention, macs=attention_macs):
        for batch in (1, 7):
            report = vggscope.summary(model, (1, 5, 8), batch=batch)
            assert [row.op for row in report] == ["Linear", "Attention"]
            assert report.totals.macs == batch * by_torch.totals.macs
            assert report.totals.params == by_torch.totals.params
            assert report["1"].params == 8 * 24 + 24
        assert report.to_dict()["layers"][1]["macs_from"] == "register_op"
        assert any("those that register_op was given" in warning for warning in report.warnings)
        assert len(vggscope.lock(model, (1, 5, 8)).network.nodes) == 2
    assert len(vggscope.summary(model, (1, 5, 8))) == len(by_torch)
    assert {row.macs_from for row in by_torch} == {"rule"}


def test_a_rule_for_the_shape_stands_for_code_that_cannot_run() -> None:
    model = nn.Sequential(nn.Linear(8, 8), Opaque(), nn.Linear(4, 2))
    with vggscope.register_op(
        Opaque, macs=lambda c: c.inputs[0][0] * 32, saved=["input"], shape=lambda c: (c.inputs[0][0], 4)
    ):
        report = vggscope.summary(model, (1, 8), batch=3)
    assert [row.output_shape for row in report] == [(3, 8), (3, 4), (3, 2)]
    assert report.totals.macs == 3 * (64 + 32 + 8)
    assert "forward" in vars(Opaque)
    assert model(torch.zeros(1, 8)).shape == (1, 2)


def test_what_is_saved_gives_the_memory_of_the_same_op_by_its_rule() -> None:
    def net(act: nn.Module) -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 8, 3), act, nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(8 * 144, 4))

    usual = vggscope.summary(net(nn.ReLU()), (3, 16, 16), batch=8).memory
    with vggscope.register_op(Act, macs=0, saved=["output"]):
        assert vggscope.summary(net(Act()), (3, 16, 16), batch=8).memory == usual
    with vggscope.register_op(Act, macs=0, saved=["output", (1, 8, 14, 14)]):
        more = vggscope.summary(net(Act()), (3, 16, 16), batch=8).memory
    assert more.training_peak_bytes - usual.training_peak_bytes == 8 * 8 * 14 * 14 * 4
    assert more.inference_peak_bytes - usual.inference_peak_bytes == 8 * 8 * 14 * 14 * 4  # forward allocates it too


def test_an_operator_of_torch_library() -> None:
    @torch.library.custom_op("vggscope_tests::twice", mutates_args=())
    def twice(x: Tensor) -> Tensor:
        return x * 2

    twice.register_fake(torch.empty_like)

    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return twice(x)

    assert vggscope.summary(Net(), (1, 8)).totals.macs is None
    with vggscope.register_op(twice, macs=lambda call: 3 * call.output[1]):
        report = vggscope.summary(Net(), (1, 8))
        assert [(row.op, row.macs, row.macs_from) for row in report] == [("twice", 24, "register_op")]


def test_a_handle_takes_back_its_own_registration_only() -> None:
    first = vggscope.register_op(Act, macs=1)
    second = vggscope.register_op(Act, macs=2)
    first.remove()
    assert vggscope.summary(Act(), (1, 8)).totals.macs == 2
    second.remove()
    second.remove()
    assert vggscope.summary(Act(), (1, 8)).totals.macs == 0


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"macs": -1}, "macs of Act gives -1"),
        ({"macs": lambda call: "many"}, "macs of Act gives 'many'"),
        ({"macs": lambda call: 1 // 0}, "macs of Act raises ZeroDivisionError"),
        ({"macs": 1, "saved": ["inputs"]}, "saved of Act gives"),
        ({"macs": 1, "shape": lambda call: 5}, "shape of Act gives 5"),
    ],
)
def test_a_rule_that_gives_nonsense_is_named(rules: dict[str, Any], message: str) -> None:
    with vggscope.register_op(Act, **rules), pytest.raises(OptionError, match=message):
        vggscope.summary(Act(), (1, 8))


@pytest.mark.parametrize("kind", [nn.Conv2d, nn.Module, len])
def test_what_has_a_rule_or_is_no_module_is_refused(kind: Callable[..., object]) -> None:
    with pytest.raises(OptionError):
        vggscope.register_op(kind, macs=1)
