"""The layouts of gradients, and the memory of networks that reshape and permute: held to torch and its tracker."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import prod
from random import Random

import pytest
import torch
from torch import Tensor, nn

import vggscope
from tests.local_maxima import require_equal_maxima
from vggscope.analysis.memory.simulate import simulate_step
from vggscope.analysis.memory.step_config import StepConfig
from vggscope.inputs import InputSize
from vggscope.trace.gradient_layouts import StridedLayout, elementwise, viewed
from vggscope.trace.inputs import from_sizes
from vggscope.trace.network import network_of
from vggscope.trace.step import recorded_steps


def arranged(shape: tuple[int, ...], random: Random) -> Tensor:
    """A tensor of this shape whose axes lie in memory in another order, perhaps a part of a larger one or expanded."""
    order = random.sample(range(len(shape)), len(shape))
    gap = random.choice([0, 0, 1])
    sizes = [shape[axis] + gap * (axis == order[-1]) for axis in order]
    tensor = torch.empty(sizes, device="meta").permute([order.index(axis) for axis in range(len(shape))])
    tensor = tensor[tuple(slice(size) for size in shape)]
    single = [axis for axis, size in enumerate(shape) if size == 1]
    if single and random.random() < 0.3:
        tensor = tensor.expand([3 if axis == single[0] else size for axis, size in enumerate(shape)])
    return tensor


def factors(number: int, random: Random) -> tuple[int, ...]:
    """A shape with this number of elements."""
    shape = []
    while number > 1:
        shape.append(random.choice([d for d in range(1, number + 1) if number % d == 0]))
        number //= shape[-1]
    return tuple(shape) or (1,)


def equal_strides(layout: StridedLayout, tensor: Tensor) -> bool:
    """Whether the strides are equal but for axes of one element."""
    return all(size == 1 or a == b for size, a, b in zip(tensor.shape, layout.strides, tensor.stride()))


@pytest.mark.parametrize("seed", range(4))
def test_views_and_elementwise_results_are_laid_out_as_torch_does(seed: int) -> None:
    random = Random(seed)
    views = 0
    for _ in range(500):
        one = arranged(tuple(random.choice([1, 2, 3, 4]) for _ in range(random.randint(1, 5))), random)
        shape = tuple(one.shape)
        target = factors(prod(shape), random)
        try:
            view = one.view(target)
        except RuntimeError:
            view = None
        ours = viewed(StridedLayout(shape, one.stride()), target)
        assert (ours is None) == (view is None), (shape, one.stride(), target)
        if ours is not None and view is not None:
            assert equal_strides(ours, view)
            views += 1
        other = torch.empty_like(one, memory_format=torch.contiguous_format)
        for operands in ((one, other), (other, one), (one, one)):
            result = operands[0] * operands[1]
            assert equal_strides(elementwise(shape, [t.stride() for t in operands]), result)
    assert 50 < views < 450


class Scaled(nn.Module):
    """A sum with a product by a parameter of each feature, along the last axis or along that of channels."""

    def __init__(self, width: int, is_map: bool, adds: bool) -> None:
        super().__init__()
        self.scale, self.adds = nn.Parameter(torch.ones(width, 1, 1) if is_map else torch.ones(width)), adds

    def forward(self, x: Tensor) -> Tensor:
        return x + self.scale if self.adds else x * self.scale


class Residual(nn.Module):
    """The sum of a tensor and a function of it."""

    def __init__(self, *parts: nn.Module) -> None:
        super().__init__()
        self.parts = nn.Sequential(*parts)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.parts(x)


class Joined(nn.Module):
    """A tensor beside a function of it."""

    def __init__(self, part: nn.Module, dim: int) -> None:
        super().__init__()
        self.part, self.dim = part, dim

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.part(x), x], self.dim)


class Function(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def shuffled(x: Tensor) -> Tensor:
    b, c, h, w = x.shape
    return x.view(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, c, h, w)


def weighted(x: Tensor) -> Tensor:
    return x @ (x.transpose(1, 2) @ x / 3)


class Attends(nn.Module):
    """Attention as in timm, which reads its mode for a dropout of 0; or without the fused kernel."""

    def __init__(self, width: int, is_fused: bool) -> None:
        super().__init__()
        self.qkv, self.proj, self.attn_drop = nn.Linear(8, 6 * width), nn.Linear(2 * width, 8), nn.Dropout(0.0)
        self.is_fused = is_fused

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, 2, -1).permute(2, 0, 3, 1, 4).unbind(0)
        if self.is_fused:
            p = self.attn_drop.p if self.training else 0.0
            x = nn.functional.scaled_dot_product_attention(q, k, v, dropout_p=p)
        else:
            x = self.attn_drop(((q * 0.5) @ k.transpose(-2, -1)).softmax(-1)) @ v
        return self.proj(x.transpose(1, 2).reshape(b, n, -1))


class Token(nn.Module):
    """A token before the rows, and learned positions of all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.token, self.positions = nn.Parameter(torch.zeros(1, 1, 8)), nn.Parameter(torch.zeros(1, 17, 8))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.positions


class Drawn(nn.Module):
    """Random layers on maps, then on rows of features, and a linear head."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        random = Random(seed)
        self.stem = nn.Conv2d(3, 8, 2, 2)
        self.maps = nn.Sequential(*(self.on_maps(random) for _ in range(random.randint(2, 4))))
        self.rows = nn.Sequential(*(self.on_rows(random) for _ in range(random.randint(2, 4))))
        self.token = Token() if random.random() < 0.3 else nn.Identity()
        self.first_axis, self.norm = random.choice([True, False]), nn.LayerNorm(8)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maps(self.stem(x))
        x = x.flatten(2).transpose(1, 2) if self.first_axis else x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, 8)
        x = self.norm(self.token(self.rows(x)))
        return self.head(x.mean(1) if self.first_axis else x[:, 0])

    def on_maps(self, random: Random) -> nn.Module:
        drawn = random.randrange(9)
        if drawn < 3:
            return Residual(self.on_maps(random), *((Scaled(8, True, drawn == 1),) if drawn else ()))
        last = Function(lambda x: x.permute(0, 2, 3, 1)), Function(lambda x: x.permute(0, 3, 1, 2))
        made: list[Callable[[], nn.Module]] = [
            lambda: nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True)),
            lambda: nn.Sequential(last[0], nn.LayerNorm(8), nn.Linear(8, 12), nn.GELU(), nn.Linear(12, 8), last[1]),
            lambda: nn.Sequential(nn.GroupNorm(2, 8), nn.AvgPool2d(3, 1, 1)),
            lambda: Function(shuffled),
            lambda: nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.SiLU()),
            lambda: nn.Sequential(last[0], nn.LayerNorm(8), last[1], nn.Conv2d(8, 8, 1), nn.Sigmoid()),
        ]
        return made[drawn - 3]()

    def on_rows(self, random: Random) -> nn.Module:
        drawn = random.randrange(11)
        if drawn < 2:
            return Residual(nn.LayerNorm(8), self.on_rows(random), *((Scaled(8, False, False),) if drawn else ()))
        turned = Function(lambda x: x.transpose(1, 2))
        made: list[Callable[[], nn.Module]] = [
            lambda: nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Dropout(0.1), nn.Linear(16, 8)),
            lambda: nn.Sequential(Joined(nn.Linear(8, 8), 1), Function(lambda x: x.unflatten(1, (2, -1)).sum(1))),
            lambda: nn.Sequential(nn.Linear(8, 8), turned, nn.Softmax(2), turned, nn.Linear(8, 8)),
            lambda: nn.Sequential(nn.LayerNorm(8), Function(weighted), nn.Linear(8, 8)),
            lambda: nn.Sequential(turned, nn.Linear(16, 16), turned, nn.Linear(8, 8)),
            lambda: nn.Sequential(Function(lambda x: x.chunk(2, -1)[1]), nn.Linear(4, 8)),
            lambda: Attends(8, is_fused=True),
            lambda: Attends(6, is_fused=True),
            lambda: Attends(8, is_fused=False),
        ]
        return made[drawn - 2]()


@pytest.mark.parametrize("seed", range(24))
def test_the_rules_of_drawn_networks_equal_torch(seed: int) -> None:
    """The whole step equals the tracker, and on a GPU the recording of torch."""
    model = Drawn(seed)
    network = vggscope.network(model, (3, 8, 8))
    assert network.predicts_memory
    inputs = from_sizes(model, [InputSize((3, 8, 8))])
    for mode, batch, dtype in (
        ("train", 1, None),
        ("train", 3, None),
        ("inference", 3, None),
        ("train", 2, "bfloat16"),
    ):
        measured = vggscope.measure(model, (3, 8, 8), batch=batch, dtype=dtype, mode=mode, device="cpu")
        assert measured.difference_bytes == 0, (mode, batch, dtype)
        config = StepConfig(mode=mode, dtype=dtype or "")
        request = replace(config.request, samples=batch)  # type: ignore[type-var]
        steps, *_ = recorded_steps(model, network, inputs, request, has_data=False)
        known = network.for_batch(batch), replace(network, steps=steps).for_batch(batch)
        ours, torchs = (simulate_step(one, config).peak_bytes(batch) for one in known)
        # The tensors of batch norms in half precision are those of the CPU in a recording.
        assert ours == torchs or (dtype and ours > torchs), (mode, batch, dtype)


class Patches(nn.Module):
    """Layers over the patches of a map, as in MobileViT: a view of one sample is a copy of two."""

    def __init__(self, attends: bool) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 1)
        self.part = nn.Sequential(nn.LayerNorm(8), Attends(8, is_fused=True) if attends else nn.Linear(8, 8))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        batch, channels, height, width = x.shape
        high, wide = height // 2, width // 2
        x = x.reshape(batch * channels * high, 2, wide, 2).transpose(1, 2)
        x = x.reshape(batch, channels, high * wide, 4).transpose(1, 3).reshape(batch * 4, high * wide, channels)
        x = self.part(x)
        x = x.contiguous().view(batch, 4, high * wide, channels).transpose(1, 3)
        x = x.reshape(batch * channels * high, wide, 2, 2).transpose(1, 2).reshape(batch, channels, height, width)
        return self.last(x)


@pytest.mark.parametrize("attends", [False, True])
def test_a_view_of_one_sample_may_be_a_copy_of_several(attends: bool) -> None:
    module = Patches(attends)
    network = vggscope.network(module, (3, 8, 8))
    assert any(node.batched_op and node.batched_op.allocates and not node.op.allocates for node in network.nodes)
    assert any(node.batched_until is not None for node in network.nodes)
    assert network.predicts_memory
    require_equal_maxima(module, network, (3, 8, 8))


class Flattens(nn.Module):
    """Rows of features in another order, joined by a function or by a module."""

    def __init__(self, order: tuple[int, ...], start: int, *, scaled: bool, by_module: bool) -> None:
        super().__init__()
        self.first, self.order, self.start, self.is_scaled = nn.Linear(4, 6), order, start, scaled
        self.join: Callable[[Tensor], Tensor] = nn.Flatten(start) if by_module else lambda x: x.flatten(start)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        x = x.view(*x.shape[:2], 2, 3).permute(self.order)
        return self.join(x * 3 if self.is_scaled else x) * 2


@pytest.mark.parametrize("by_module", [False, True])
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize(("order", "start"), [((0, 2, 1, 3), 2), ((0, 3, 1, 2), 1), ((0, 2, 3, 1), 2)])
def test_a_flatten_copies_where_its_input_allows_no_view(
    order: tuple[int, ...], start: int, scaled: bool, by_module: bool
) -> None:
    model = Flattens(order, start, scaled=scaled, by_module=by_module)
    for rows in (5, 1):
        network = network_of(model, "net", from_sizes(model, [InputSize((rows, 4))]))
        assert network.predicts_memory
        is_view = rows == 1 and start == 2
        assert is_view != any(node.op.name == "Flatten" and node.op.allocates for node in network.nodes)
        require_equal_maxima(model, network, (rows, 4))
        assert vggscope.measure(model, input_data=torch.zeros(2, rows, 4), device="cpu").difference_bytes == 0


class Contracted(nn.Module):
    """The products of the rows of a tensor with those of its double."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("bnd,bmd->bnm", x, x * 2)


class Turned(nn.Module):
    """The tensor with its last axes turned, in the order of its axes."""

    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2).reshape(x.shape[0], -1)


SHOWN: dict[str, Callable[[], nn.Module]] = {
    "a product of rows": lambda: nn.Linear(6, 5),
    "a contraction": Contracted,
    "a maximum": lambda: nn.MaxPool1d(2),
    "a mean": lambda: nn.AvgPool1d(3, 1),
    "a mean of regions": lambda: nn.AdaptiveAvgPool1d(2),
    "a maximum of regions": lambda: nn.AdaptiveMaxPool1d(2),
}
"""Layers of which autograd takes the output for a view of what a kernel returns."""

NOT_SHOWN: dict[str, Callable[[], nn.Module]] = {
    "a product without a bias": lambda: nn.Linear(6, 5, bias=False),
    "a convolution": lambda: nn.Conv1d(4, 4, 3),
    "a norm of channels": lambda: nn.BatchNorm1d(4),
}


@pytest.mark.parametrize("ends", [nn.Flatten, Turned])
@pytest.mark.parametrize("activation", [nn.ReLU, nn.SiLU])
@pytest.mark.parametrize("kind", [*SHOWN, *NOT_SHOWN])
def test_an_activation_that_overwrites_a_view_copies_its_gradient(
    kind: str, activation: Callable[..., nn.Module], ends: Callable[[], nn.Module]
) -> None:
    layer = {**SHOWN, **NOT_SHOWN}[kind]()
    model = nn.Sequential(nn.Conv1d(3, 4, 3), layer, activation(inplace=True), ends())
    network = vggscope.network(model, (3, 8))
    assert network.predicts_memory
    overwritten = network.nodes[-3 if ends is nn.Flatten else -4]
    shapes = network.input_shapes(overwritten), network.output_shape(overwritten)
    assert (overwritten.op.kernel_shape(*shapes) is not None) == (kind in SHOWN)
    require_equal_maxima(model, network, (3, 8))
    assert vggscope.measure(model, (3, 8), batch=2, device="cpu").difference_bytes == 0


class FeaturesFirst(nn.Module):
    """Layers on maps with the features last, whose gradients have them first, as in Swin."""

    def __init__(self, *, reads: bool = False, drops: float = 0.0) -> None:
        super().__init__()
        self.patches, self.head, self.reads = nn.Conv2d(3, 8, 2, 2), nn.Linear(8, 3), reads
        self.part, self.norm = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 8), nn.Dropout(drops)), nn.LayerNorm(8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).permute(0, 2, 3, 1)
        if self.reads and x.flatten()[0].item() == 1:
            raise ValueError("the same value everywhere")
        x = self.norm(x + self.part(x)).permute(0, 3, 1, 2)
        return self.head(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))


def test_a_layer_norm_keeps_the_layout_of_a_gradient_without_data() -> None:
    """Its kernels do not: the step of a module that reads values, and so runs on its weights, is recorded."""
    module = FeaturesFirst()
    network = vggscope.network(module, (3, 8, 8))
    assert network.predicts_memory
    assert any(node.copies_batched_gradient for node in network.nodes if node.op.name == "Linear")
    require_equal_maxima(module, network, (3, 8, 8))
    assert not vggscope.network(FeaturesFirst(reads=True), (3, 8, 8)).predicts_memory


def test_a_dropout_lays_out_such_a_gradient_otherwise_on_a_gpu() -> None:
    module = FeaturesFirst(drops=0.1)
    assert not vggscope.network(module, (3, 8, 8)).predicts_memory
    assert vggscope.measure(module, (3, 8, 8), batch=3, device="cpu").difference_bytes == 0
