"""A module is after a run what it was before: containers, helper objects, gradients and random states."""

from __future__ import annotations

import random
import sys
from collections import OrderedDict, deque
from types import ModuleType
from typing import Any

import numpy
import pytest
import torch
from torch import nn
from torch._C import DisableTorchFunction, DisableTorchFunctionSubclass

from tests.test_gradient_layouts import arranged
from vggscope.trace.forward import random_state, replaced_tensors, replacement_tensors
from vggscope.trace.parts import buffers_of, listed_once, parameters_of
from vggscope.trace.preserve import preserved
from vggscope.trace.tensors import meta_weight
from vggscope.trace.unseen import without_disabling


class Helper:
    def __init__(self, value: object) -> None:
        self.value = value


class Slotted:
    __slots__ = ("value",)

    def __init__(self, value: object) -> None:
        self.value = value


def leaf(draw: random.Random) -> object:
    return draw.choice([1, "a", None, 2.5, True])


def drawn(draw: random.Random, depth: int) -> Any:
    """A nest of containers and objects, some of them empty."""
    if depth == 0 or draw.random() < 0.2:
        return leaf(draw)
    inside = [drawn(draw, depth - 1) for _ in range(draw.choice([0, 1, 2, 3]))]
    kinds = (list, deque, tuple, dict, OrderedDict, set, Helper, Slotted, nn.ReLU)
    kind: Any = draw.choice(kinds)
    if kind in (dict, OrderedDict):
        return kind((str(place), item) for place, item in enumerate(inside))
    if kind is set:
        return {leaf(draw) for _ in inside}
    if kind is nn.ReLU:
        module = nn.ReLU()
        module.held = inside
        return module
    return kind(inside)


def mutable(value: Any, found: list[Any]) -> list[Any]:
    """The containers and objects in a nest, the outermost first."""
    inside: Any = ()
    if isinstance(value, (list, deque, tuple)):
        inside = list(value)
    elif isinstance(value, dict):
        inside = list(value.values())
    elif isinstance(value, (Helper, Slotted)):
        inside = [value.value]
    elif isinstance(value, nn.Module):
        inside = list(vars(value).values())
    if isinstance(value, (list, deque, dict, set, Helper, Slotted, nn.Module)):
        found.append(value)
    for item in inside:
        mutable(item, found)
    return found


def contents(value: Any) -> list[Any]:
    """What a container or an object holds, to compare by identity."""
    if isinstance(value, nn.Module):
        value = vars(value)
    if isinstance(value, dict):
        return [part for item in value.items() for part in item]
    if isinstance(value, (Helper, Slotted)):
        return [value.value]
    return sorted(value, key=repr) if isinstance(value, set) else list(value)


def change(value: Any, draw: random.Random) -> None:
    """Add, remove, rename or replace something in a container or an object."""
    if isinstance(value, nn.Module):
        value = vars(value)
    if isinstance(value, dict):
        if value and draw.random() < 0.5:
            name, item = value.popitem()
            value[draw.choice([name, "renamed"])] = draw.choice([item, object()])
        else:
            value["new"] = torch.empty(1)
    elif isinstance(value, (Helper, Slotted)):
        value.value = object()
    elif isinstance(value, set):
        value.add("new")
    elif value and draw.random() < 0.5:
        value.pop()
    else:
        value.append(torch.empty(1))


@pytest.mark.parametrize("seed", range(40))
def test_every_container_and_object_is_restored(seed: int) -> None:
    draw = random.Random(seed)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    module.held, module[0].held = drawn(draw, 4), drawn(draw, 4)
    found = mutable(module, [])
    before = [contents(value) for value in found]
    with preserved(module, with_data=False):
        for value in draw.sample(found, draw.randint(1, len(found))):
            change(value, draw)
        assert any(
            len(a) != len(b) or any(x is not y for x, y in zip(a, b)) for a, b in zip(map(contents, found), before)
        )
    for value, was in zip(found, before):
        now = contents(value)
        assert len(now) == len(was)
        assert all(one is other for one, other in zip(now, was)), value


def test_values_and_gradients_are_restored() -> None:
    module = nn.Linear(2, 2)
    module.held = [torch.ones(3)]
    with preserved(module, with_data=True):
        module.held[0].zero_()
        module.weight.grad = torch.ones(2, 2)
    assert module.held[0].tolist() == [1, 1, 1]
    assert module.weight.grad is None


@pytest.mark.parametrize("seed", range(4))
def test_a_weight_without_data_has_the_strides_of_a_copy(seed: int) -> None:
    draw = random.Random(seed)
    for _ in range(100):
        on_meta = arranged(tuple(draw.choice([0, 1, 2, 3]) for _ in range(draw.randint(0, 5))), draw)
        on_cpu = torch.empty_strided(on_meta.shape, on_meta.stride(), dtype=torch.float16)
        expected = torch.empty_like(on_cpu)
        for weight in (torch.empty_strided(on_cpu.shape, on_cpu.stride(), dtype=torch.float16, device="meta"), on_cpu):
            copy = meta_weight(weight)
            assert (copy.shape, copy.stride(), copy.dtype) == (expected.shape, expected.stride(), expected.dtype)
            assert copy.is_meta
            assert copy.untyped_storage()._cdata != weight.untyped_storage()._cdata


def test_tensors_are_replaced_with_their_sharing_and_put_back() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 2, bias=False))
    module[2].weight = module[0].weight
    before = dict(module.state_dict(keep_vars=True))
    with listed_once(module):
        state = replacement_tensors(module, meta_weight)
        assert state.keys() == before.keys()
        assert state["2.weight"] is state["0.weight"]
        with replaced_tensors(module, state):
            replaced = module.state_dict(keep_vars=True)
            assert all(replaced[key] is tensor for key, tensor in state.items())
        listed = dict([*parameters_of(module), *buffers_of(module)])
    assert all(tensor is before[key] for key, tensor in module.state_dict(keep_vars=True).items())
    assert all(tensor is before[key] for key, tensor in listed.items())


def test_draws_are_noticed_and_undone() -> None:
    numpy.random.randn()  # keeps a second number for the next call
    draws = {
        "nothing": (lambda: None, False),
        "python": (random.random, True),
        "numpy": (numpy.random.rand, True),
        "numpy's second number": (numpy.random.randn, True),
        "torch": (lambda: torch.rand(1), False),
    }
    for draw, is_noticed in draws.values():
        before = random.getstate(), str(numpy.random.get_state()), torch.get_rng_state().tolist()
        with random_state() as noticed:
            draw()
        assert noticed == [is_noticed]
        assert (random.getstate(), str(numpy.random.get_state()), torch.get_rng_state().tolist()) == before


@pytest.mark.parametrize("file", [None, "/home/user/net.py", "/usr/lib/python3/site-packages/net.py"])
def test_the_name_that_a_module_has_imported_is_replaced(file: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    with without_disabling():
        pass
    module = ModuleType("net_of_a_test")
    module.__file__ = file
    module.DisableTorchFunction = DisableTorchFunction
    monkeypatch.setitem(sys.modules, module.__name__, module)
    with without_disabling():
        assert module.DisableTorchFunction is torch._C.DisableTorchFunction is DisableTorchFunctionSubclass
    assert module.DisableTorchFunction is torch._C.DisableTorchFunction is DisableTorchFunction


def test_a_module_of_the_user_may_import_the_name_later(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("notebook_of_a_test")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    with without_disabling():
        pass
    module.DisableTorchFunction = DisableTorchFunction
    with without_disabling():
        assert module.DisableTorchFunction is DisableTorchFunctionSubclass


def test_no_lazy_module_is_asked_for_an_attribute(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("lazy_module_of_a_test")
    asked: list[str] = []
    module.__getattr__ = asked.append
    monkeypatch.setitem(sys.modules, module.__name__, module)
    with without_disabling():
        assert not asked
