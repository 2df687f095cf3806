"""Figures that no rule predicts: they are recorded from torch, withheld, or said to be by rule."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import vggscope
from vggscope.graph import Network

BY_RULES = "the peak memory is by the rules of each op"


def holds(module: nn.Module, mode: str = "train", **given: object) -> None:
    """Hold the predicted peak to torch's memory tracker."""
    result = vggscope.measure(module, mode=mode, optimizer="sgd", **given)  # type: ignore[arg-type]
    assert result.predicted_bytes == result.measured_bytes


class Attends(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(32, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x)[0]


def test_a_summary_says_that_a_peak_is_by_rule() -> None:
    module = Attends()
    network = vggscope.network(module, input_size=(16, 32))
    assert [text.partition(",")[0] for text in vggscope.summary(network).warnings] == [BY_RULES]
    assert vggscope.compare(network).models[0].warnings == vggscope.summary(network).warnings
    assert not vggscope.summary(module, input_size=(16, 32)).warnings
    assert not vggscope.summary(vggscope.network("D")).warnings


def test_a_diff_compares_training_memory_by_rule_only_where_rules_hold() -> None:
    def texts(ours: nn.Module | Network, ref: nn.Module) -> str:
        differences = vggscope.diff(ours, ref, input_size=(16, 32)).differences
        return " ".join(text for difference in differences for text in difference.consequences)

    plain, wider = (nn.Sequential(nn.Linear(32, n), nn.ReLU(), nn.Linear(n, 4)) for n in (8, 16))
    assert "to train" in texts(wider, plain)
    attending = (nn.Sequential(Attends(), *layers) for layers in (wider, plain))
    assert "to train" not in texts(*attending)


def widened(x: Tensor, linear: nn.Linear) -> Tensor:
    """Read the mode in a function outside the class."""
    return functional.relu(linear(functional.relu(x))) if linear.training else x


def spread(x: Tensor, *, training: bool) -> Tensor:
    return torch.cat([x, x, x], 1)[:, : x.shape[1]] * x if training else x


class InAFunction(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 64)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(widened(x, self.linear))


class PassesItOn(InAFunction):
    def forward(self, x: Tensor) -> Tensor:
        return self.linear(spread(x, training=self.training))


class Hooked(nn.Sequential):
    """A hook reads the mode."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 4))
        self[0].register_forward_hook(lambda module, _, y: y.repeat(3, 1)[: len(y)] * y if module.training else y)


@pytest.mark.parametrize("kind", [InAFunction, PassesItOn, Hooked])
def test_a_mode_that_is_read_anywhere_changes_the_step(kind: type[nn.Module]) -> None:
    network = vggscope.network(kind(), input_size=(64,))
    assert not network.follows_rules
    holds(kind(), input_size=(64,))


class DropsOut(nn.Module):
    """Passes its mode on to torch, where it makes no difference to the operations."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 64)

    def forward(self, x: Tensor) -> Tensor:
        return functional.dropout(self.linear(x), 0.5, self.training)


def test_a_mode_that_torch_gets_follows_the_rules() -> None:
    network = vggscope.network(DropsOut(), input_size=(64,))
    assert network.follows_rules
    assert not network.warnings
    assert "training" not in vars(nn.Module)
    holds(DropsOut(), input_size=(64,))
