"""The costs of the backward pass where training runs other layers than evaluation, or torch has no derivative."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import vggscope
from vggscope.errors import ModelError, ShapeError
from vggscope.trace.tensors import tensors_in


class Base(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 5)

    def end(self, x: Tensor) -> Tensor:
        return self.head(x.mean((2, 3)))


class Auxiliary(Base):
    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        x = self.first(x)
        return (self.end(x), self.second(x)) if self.training else self.end(x)


class SkipsInTraining(Base):
    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.end(x if self.training else self.second(x))


class DetachesInTraining(Base):
    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.end(self.second(x.detach() if self.training else x))


class NormalizesOneValue(Base):
    """A batch norm that torch refuses to train on a single sample."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.norm(self.end(self.second(x) if self.training else x))


def torch_backward(module: nn.Module, samples: int = 2) -> int:
    """Half the FLOPs that torch counts per sample in the backward pass of training."""
    results = tensors_in(module.train()(torch.randn(samples, 3, 16, 16)))
    with FlopCounterMode(display=False) as counter:
        torch.stack([result.sum() for result in results]).sum().backward()
    return int(counter.get_total_flops()) // 2 // samples


@pytest.mark.parametrize("kind", [Auxiliary, SkipsInTraining, DetachesInTraining, NormalizesOneValue])
def test_the_backward_pass_is_that_of_training(kind: Callable[[], nn.Module]) -> None:
    counted = vggscope.operations(kind(), input_size=(3, 16, 16))
    assert counted.totals.backward_macs == torch_backward(kind())
    (warning,) = counted.warnings
    assert warning.startswith("in training, forward ")
    in_rows = sum(layer.backward_macs or 0 for layer in counted.layers)
    extra = counted.totals.backward_macs - in_rows
    assert (f"{extra:,} MACs per sample in the total and in no row" in warning) == (extra > 0)
    assert vggscope.verify(kind(), input_size=(3, 16, 16)).agrees


def test_the_layers_of_one_mode_are_named() -> None:
    (warning,) = vggscope.operations(Auxiliary(), input_size=(3, 16, 16)).warnings
    assert "also runs second" in warning
    (warning,) = vggscope.operations(SkipsInTraining(), input_size=(3, 16, 16)).warnings
    assert "does not run second" in warning


class DropsAtRandom(Base):
    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.end(x if self.training and random.random() < 0.5 else self.second(x))


class DropsByTensor(Base):
    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.end(x if self.training and torch.rand(1) < 2 else self.second(x))


@pytest.mark.parametrize("kind", [DropsAtRandom, DropsByTensor])
def test_layers_that_training_chooses_at_random_withhold_the_backward_pass(kind: Callable[[], nn.Module]) -> None:
    counted = vggscope.operations(kind(), input_size=(3, 16, 16))
    assert counted.totals.backward_macs is None
    assert counted.totals.macs is not None
    assert "may run other layers in each call" in counted.warnings[0]
    assert any("is that of one call" in text for text in vggscope.summary(kind(), input_size=(3, 16, 16)).warnings)
    assert vggscope.verify(kind(), input_size=(3, 16, 16)).agrees


class NeedsTargets(Base):
    def forward(self, x: Tensor, targets: Tensor | None = None) -> Tensor:
        if self.training and targets is None:
            raise ValueError("no targets")
        return self.end(self.first(x))


def test_a_forward_that_fails_in_training_withholds_the_backward_pass() -> None:
    counted = vggscope.operations(NeedsTargets(), input_size=(3, 16, 16))
    assert counted.totals.backward_macs is None
    assert counted.warnings[0].endswith("no targets")


class Dropping(Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.end(nn.functional.dropout(self.first(x), 0.5, self.training))


def test_training_that_multiplies_as_evaluation_does_has_no_note() -> None:
    counted = vggscope.operations(Dropping(), input_size=(3, 16, 16))
    assert counted.totals.backward_macs == torch_backward(Dropping())
    assert counted.warnings == ()


class Hooked(Base):
    def __init__(self, hook: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.hook = hook

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        if x.requires_grad:
            x.register_hook(self.hook)
        return self.end(x)


def test_a_hook_on_a_gradient_is_free_unless_it_multiplies() -> None:
    scaled = vggscope.operations(Hooked(lambda gradient: gradient * 2), input_size=(3, 16, 16))
    assert scaled.totals.backward_macs == torch_backward(Hooked(lambda gradient: gradient * 2))
    multiplied = vggscope.operations(Hooked(lambda gradient: gradient @ torch.ones(16, 16)), input_size=(3, 16, 16))
    assert multiplied.totals.backward_macs is None
    assert "the hook that forward sets on the gradient of first computes products" in multiplied.warnings[0]


def with_backward_hook(register: str, multiplies: bool) -> nn.Module:
    def hook(module: nn.Module, *gradients: tuple[Tensor]) -> None:
        gradients[-1][0] @ torch.ones(16, 16) if multiplies else gradients[-1][0].sum()

    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1))
    getattr(module[0], register)(hook)
    return module


@pytest.mark.parametrize("register", ["register_full_backward_hook", "register_full_backward_pre_hook"])
def test_a_hook_on_a_modules_backward_pass_is_free_unless_it_multiplies(register: str) -> None:
    summed = vggscope.operations(with_backward_hook(register, False), input_size=(3, 16, 16))
    assert summed.totals.backward_macs == (3 * 4 + 2 * 4 * 4) * 16 * 16
    multiplied = vggscope.operations(with_backward_hook(register, True), input_size=(3, 16, 16))
    assert multiplied.totals.backward_macs is None
    assert "the hook on the backward pass of 0 computes products" in multiplied.warnings[0]


@torch.library.custom_op("vggscope_tests::product", mutates_args=())
def product(one: Tensor, other: Tensor) -> Tensor:
    return one @ other


@torch.library.custom_op("vggscope_tests::learned", mutates_args=())
def learned(one: Tensor, other: Tensor) -> Tensor:
    return one @ other


@product.register_fake
@learned.register_fake
def _(one: Tensor, other: Tensor) -> Tensor:
    return one.new_empty(one.shape[0], other.shape[1])


learned.register_autograd(
    lambda context, gradient: (gradient @ context.other.T, None),
    setup_context=lambda context, inputs, output: setattr(context, "other", inputs[1]),
)

LIBRARY = torch.library.Library("vggscope_tests", "FRAGMENT")
LIBRARY.define("explicit(Tensor one, Tensor other) -> Tensor")
torch.library.impl(LIBRARY, "explicit", "CompositeExplicitAutograd")(torch.matmul)


class Custom(Base):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, x: Tensor) -> Tensor:
        return getattr(torch.ops.vggscope_tests, self.name)(self.first(x).mean((2, 3)), self.head.weight.T)


@pytest.mark.parametrize("name", ["product", "learned", "explicit"])
def test_a_custom_operator_of_unknown_cost_withholds_the_backward_pass(name: str) -> None:
    counted = vggscope.operations(Custom(name), input_size=(3, 16, 16))
    assert counted.totals.backward_macs is None
    assert "is not known" in counted.warnings[0]
    assert "backward_macs" in vggscope.verify(Custom(name), input_size=(3, 16, 16)).unchecked


def test_an_operator_without_a_registered_gradient_withholds_the_memory_of_training() -> None:
    report = vggscope.summary(Custom("explicit"), input_size=(3, 16, 16))
    assert report.memory.inference_peak_bytes is not None
    assert report.memory.training_peak_bytes is None
    assert any("no gradient is registered for vggscope_tests::explicit" in text for text in report.warnings)
    with pytest.raises(ModelError, match="no gradient is registered") as raised:
        vggscope.memory(Custom("explicit"), input_size=(3, 16, 16))
    assert "register_autograd" in raised.value.remedy


class Branches(Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.end(torch.cond(x.sum() > 0, lambda y: y.relu(), lambda y: y.sin(), (self.first(x),)))


class Flexible(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(16, 48)

    def forward(self, x: Tensor) -> Tensor:
        from torch.nn.attention.flex_attention import flex_attention

        return flex_attention(*self.project(x).chunk(3, -1))


class Nested(nn.Module):
    def __init__(self, layout: torch.layout) -> None:
        super().__init__()
        self.project, self.layout = nn.Linear(16, 16), layout

    def forward(self, x: Tensor) -> Tensor:
        rows = torch.nested.as_nested_tensor(list(self.project(x).unbind(0)), layout=self.layout)
        return (rows * 2).to_padded_tensor(0.0)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("layout", [torch.jagged, torch.strided])
def test_a_nested_tensor_ends_a_trace_with_a_reason(layout: torch.layout) -> None:
    with pytest.raises(ShapeError, match="the shape of a nested tensor is not known; use a padded one in its place"):
        vggscope.verify(Nested(layout), input_size=(3, 16))


@pytest.mark.parametrize(
    ("kind", "reason", "remedy"),
    [
        (Branches, "torch.cond has two branches", "call the function of one branch"),
        (Flexible, "flex_attention runs only on tensors with values", "scaled_dot_product_attention"),
    ],
)
def test_a_function_that_cannot_be_traced_has_a_remedy(kind: Callable[[], nn.Module], reason: str, remedy: str) -> None:
    with pytest.raises(ShapeError, match=reason) as raised:
        vggscope.verify(kind(), input_size=(3, 16, 16))
    assert remedy in str(raised.value)
