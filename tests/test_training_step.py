"""Networks that run otherwise in training, return several tensors or drop some: their memory is held to torch."""

from __future__ import annotations

from collections.abc import Callable
from dis import get_instructions
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from torchvision.models.swin_transformer import ShiftedWindowAttention, ShiftedWindowAttentionV2
from torchvision.ops import Permute

import vggscope
from tests.local_maxima import require_equal_maxima
from tests.test_cache import differences
from vggscope.graph import Network
from vggscope.sources.entry import packed, unpacked
from vggscope.trace import run, training_mode

SIZE = (3, 16, 16)


def convolution(inputs: int, outputs: int) -> nn.Sequential:
    layers = nn.Conv2d(inputs, outputs, 3, 2, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    return nn.Sequential(*layers)


def pooled(x: Tensor) -> Tensor:
    return functional.adaptive_avg_pool2d(x, 1).flatten(1)


class Trunk(nn.Module):
    """A network whose forward is given, with a second head and two more stages."""

    def __init__(self, run: Callable[[Any, Tensor], Any]) -> None:
        super().__init__()
        self.first, self.second, self.third = convolution(3, 16), convolution(16, 24), convolution(24, 32)
        self.head, self.run = nn.Linear(32, 10), run
        self.auxiliary = nn.Sequential(nn.Flatten(), nn.Linear(16 * 64, 20), nn.ReLU(), nn.Dropout(), nn.Linear(20, 10))

    def forward(self, x: Tensor) -> Any:
        return self.run(self, x)

    def rest(self, x: Tensor) -> Tensor:
        return self.head(pooled(self.third(self.second(x))))


def with_head(net: Trunk, x: Tensor) -> Any:
    x = net.first(x)
    other = net.auxiliary(x) if net.training else None
    x = net.rest(x)
    return x if other is None else (x, other)


def with_named_heads(net: Trunk, x: Tensor) -> Any:
    x = net.first(x)
    other = net.auxiliary(x) if net.training else None
    x = net.rest(x)
    return {"out": x, "other": other} if net.training else x


def with_head_at_the_end(net: Trunk, x: Tensor) -> Any:
    x = net.first(x)
    scores = net.rest(x)
    return (scores, net.auxiliary(x)) if net.training else scores


def with_other_layers(net: Trunk, x: Tensor) -> Tensor:
    x = net.first(x)
    return net.rest(functional.dropout(x, 0.2) * 2 + 1 if net.training else x)


@pytest.mark.parametrize("run", [with_head, with_named_heads, with_head_at_the_end, with_other_layers])
def test_rules_give_the_memory_of_the_layers_of_training(run: Callable[[Any, Tensor], Any]) -> None:
    module = Trunk(run)
    network = vggscope.network(module, SIZE)
    assert network.training_step is not None
    assert (network.predicts_training, network.predicts_inference, network.predicts_memory) == (True, True, False)
    require_equal_maxima(module, network, SIZE)
    summary = vggscope.summary(module, (1, *SIZE))
    assert not any("recorded" in text for text in summary.warnings)
    assert vggscope.measure(module, SIZE, batch=3, device="cpu").difference_bytes == 0


def two(net: Trunk, x: Tensor) -> Any:
    x = net.first(x)
    return net.rest(x), x


def three_of_one(net: Trunk, x: Tensor) -> Any:
    x = net.first(x)
    scores = net.rest(x)
    return {"maps": x, "scores": scores, "probabilities": functional.softmax(scores, 1)}


def a_view(net: Trunk, x: Tensor) -> Any:
    x = net.first(x)
    return net.rest(x), x.flatten(1)


@pytest.mark.parametrize("run", [two, three_of_one, a_view])
def test_rules_give_the_memory_of_several_outputs(run: Callable[[Any, Tensor], Any]) -> None:
    module = Trunk(run)
    network = vggscope.network(module, SIZE)
    assert network.predicts_memory
    require_equal_maxima(module, network, SIZE)


def dropped(net: Trunk, x: Tensor) -> Tensor:
    x = net.first(x)
    net.auxiliary(x)
    return net.rest(x)


def dropped_in_training(net: Trunk, x: Tensor) -> Tensor:
    x = net.first(x)
    if net.training:
        net.auxiliary(x)
    return net.rest(x)


def detached(net: Trunk, x: Tensor) -> Any:
    x = net.first(x)
    return net.rest(x), net.auxiliary(x).argmax(1)


def the_same_twice(net: Trunk, x: Tensor) -> Any:
    scores = net.rest(net.first(x))
    return scores, scores


def kept(net: Trunk, x: Tensor) -> Tensor:
    x = net.first(x)
    if net.training:
        net.kept = x
    return net.rest(x)


def frozen(net: Trunk, x: Tensor) -> Tensor:
    if net.training:
        net.second.eval()
    return net.rest(net.first(x))


def by_batch(net: Trunk, x: Tensor) -> Tensor:
    x = net.first(x)
    return net.rest(x * 2 if net.training and len(x) > 1 else x)


def checkpointed(net: Trunk, x: Tensor) -> Tensor:
    return net.rest(checkpoint(net.first, x, use_reentrant=False))


def checkpointed_in_training(net: Trunk, x: Tensor) -> Tensor:
    return net.rest(checkpoint(net.first, x, use_reentrant=False) if net.training else net.first(x))


@pytest.mark.parametrize(
    "run",
    [
        *(dropped, dropped_in_training, detached, the_same_twice, kept, frozen, by_batch),
        *(checkpointed, checkpointed_in_training),
    ],
)
def test_what_no_rule_gives_is_recorded(run: Callable[[Any, Tensor], Any]) -> None:
    module = Trunk(run)
    assert not vggscope.network(module, SIZE).for_batch(2).predicts_training
    for batch in (1, 2):
        assert vggscope.measure(module, SIZE, batch=batch, device="cpu").difference_bytes == 0


def long_condition(net: Trunk, x: Tensor) -> Tensor:
    """The jump over the block is so long that its distance takes two instructions."""
    if net.training:
        net.second.eval()
        x = x * 1 + 0 if x is None else x
        x = x * 2 + 0 if x is None else x
        x = x * 3 + 0 if x is None else x
        x = x * 4 + 0 if x is None else x
        x = x * 5 + 0 if x is None else x
        x = functional.dropout(x, 0.1) if x is None else x
        x = functional.dropout(x, 0.2) if x is None else x
        x = functional.dropout(x, 0.3) if x is None else x
        x = functional.dropout(x, 0.4) if x is None else x
        x = functional.dropout(x, 0.5) if x is None else x
        x = functional.dropout(x, 0.6) if x is None else x
        x = functional.dropout(x, 0.7) if x is None else x
        x = functional.dropout(x, 0.8) if x is None else x
        x = functional.dropout(x, 0.9) if x is None else x
    return net.rest(net.first(x))


def test_a_condition_with_a_long_block_is_one() -> None:
    assert "EXTENDED_ARG" in {instruction.opname for instruction in get_instructions(long_condition)}
    module = Trunk(long_condition)
    assert not vggscope.network(module, SIZE).predicts_training
    assert vggscope.measure(module, SIZE, device="cpu").difference_bytes == 0


class CentersInTraining(nn.BatchNorm2d):
    """A batch norm with a training step of its own."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            return x - x.mean((0, 2, 3), keepdim=True)
        return super().forward(x)


@pytest.mark.parametrize("kind", [ShiftedWindowAttention, ShiftedWindowAttentionV2])
def test_attention_that_hands_the_mode_to_dropout_need_not_run_in_training(
    kind: type[nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    attention = kind(8, [4, 4], [2, 2], 2, attention_dropout=0.3, dropout=0.2)
    module = nn.Sequential(nn.Conv2d(3, 8, 1), Permute([0, 2, 3, 1]), attention, Permute([0, 3, 1, 2]), nn.Flatten())
    monkeypatch.setattr(Network, "predicts_memory", property(lambda network: True))  # else no mode is asked about
    known = vggscope.network(module, SIZE)
    monkeypatch.setattr(training_mode, "_AS_TORCH", frozenset())
    trained: list[bool] = []
    compare = run._trains_otherwise
    monkeypatch.setattr(run, "_trains_otherwise", lambda *given: trained.append(compare(*given)) or trained[-1])
    assert differences(vggscope.network(module, SIZE), known) == []
    assert trained == [False]


def test_a_norm_with_code_of_its_own_is_recorded() -> None:
    module = nn.Sequential(nn.Conv2d(3, 8, 3), CentersInTraining(8), nn.Flatten(), nn.Linear(8 * 14 * 14, 4))
    assert not vggscope.network(module, SIZE).predicts_training
    assert vggscope.measure(module, SIZE, batch=2, device="cpu").difference_bytes == 0


def test_a_layer_that_torch_refuses_to_train_is_named() -> None:
    module = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Flatten())
    with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
        module.train()(torch.zeros(1, *SIZE))
    module(torch.zeros(2, *SIZE))
    one, pair = (vggscope.summary(module, (batch, *SIZE)).warnings for batch in (1, 2))
    assert one == (
        "a training step on one sample fails in torch: 2 (bn1_1) has one value per channel; its memory is that of"
        " larger batches, extended",
    )
    assert pair == ()
    refused = "as on larger batches: torch refuses to train on this one, where 2 (bn1_1) has one value per channel"
    assert [refused in vggscope.memory(module, batch=n, input_size=SIZE).assumptions for n in (1, 2)] == [True, False]


def too_small(net: Trunk, x: Tensor) -> Tensor:
    return net.rest(net.first(functional.max_pool2d(x, 32) if net.training else x))


def test_a_training_step_that_fails_on_every_batch_is_not_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    module = Trunk(too_small)
    with pytest.raises(RuntimeError) as raised:
        module.train()(torch.zeros(1, *SIZE))
    warnings = vggscope.summary(module, (1, *SIZE)).warnings
    monkeypatch.setattr("vggscope.trace.run._error_of_any_batch", lambda *_: None)
    recorded = vggscope.summary(module, (1, *SIZE)).warnings
    assert warnings == recorded
    assert str(raised.value).splitlines()[0] in warnings[0]


def test_a_cache_entry_holds_the_layers_of_training() -> None:
    network = vggscope.network("torchvision:googlenet")
    assert network.training_step is not None
    back = unpacked(packed(network))
    assert back.training_step == network.training_step
    assert back.predicts_training
    assert vggscope.summary(back) == vggscope.summary(network)
