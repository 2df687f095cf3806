"""The mapping from tensors by identity, beside torch's own."""

from __future__ import annotations

import gc
import random
from weakref import WeakSet

import pytest
import torch
from torch.utils.weak import WeakTensorKeyDictionary

from vggscope.trace.tensor_map import FEWEST, TensorMap


def test_it_does_what_torchs_own_mapping_does() -> None:
    own, torchs = TensorMap[int](), WeakTensorKeyDictionary()
    draw, alive = random.Random(0), [torch.zeros(1) for _ in range(8)]
    for step in range(2000):
        place = draw.randrange(len(alive))
        tensor = alive[place]
        match draw.randrange(4):
            case 0:
                own[tensor] = torchs[tensor] = step
            case 1:
                assert own.pop(tensor, None) == torchs.pop(tensor, None)
            case 2:
                alive[place] = torch.zeros(1)  # often at the address of one that was freed
            case _:
                del tensor
        assert [own.get(t) for t in alive] == [torchs.get(t) for t in alive]
        assert {id(t) for t in own} == {id(t) for t in torchs}
        assert len(own) == len(torchs)


def test_equal_tensors_are_different_keys() -> None:
    one, other = torch.zeros(2), torch.zeros(2)
    names = TensorMap[str]()
    names[one] = "one"
    assert one in names
    assert other not in names
    with pytest.raises(KeyError):
        names[other]
    with pytest.raises(KeyError):
        del names[other]


def test_a_mapping_that_is_freed_before_its_tensors_leaves_them_alone() -> None:
    tensor = torch.zeros(2)
    names = TensorMap[str]()
    names[tensor] = "zeros"
    del names
    gc.collect()
    del tensor


def test_a_tensor_that_only_autograd_holds_is_found_as_in_torchs_own_mapping() -> None:
    own, torchs = TensorMap[str](), WeakTensorKeyDictionary()
    inner = torch.ones(2, requires_grad=True) * 2
    own[inner] = torchs[inner] = "inner"
    result = inner.exp() * inner
    del inner
    gc.collect()
    saved = result.grad_fn._saved_other
    assert own.get(saved) == torchs.get(saved)


def test_entries_of_freed_tensors_are_removed() -> None:
    class Value:
        pass

    names, values = TensorMap[Value](), WeakSet[Value]()
    alive = [torch.zeros(1) for _ in range(50)]
    for start in range(0, 1000, 10):
        for tensor in (*alive, *(torch.zeros(1) for _ in range(10))):  # ten at once have ten addresses
            names[tensor] = value = Value()
            values.add(value)
        alive[start % 50] = torch.zeros(1)
        names[alive[start % 50]] = Value()
    del tensor, value
    assert len(names) == len(alive)
    assert all(tensor in names for tensor in alive)
    assert len(values) < 2 * len(alive) + FEWEST
