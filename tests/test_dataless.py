"""Steps on tensors without data whose forms are remembered, held to the same steps in torch's FakeTensorMode alone."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.test_zoo import call_inputs
from tests.zoo import ZOO
from vggscope.recorded_step import RecordedStep, StepRequest
from vggscope.trace import dataless
from vggscope.trace.dataless import DatalessOperators
from vggscope.trace.network import network_of
from vggscope.trace.tensors import tensors_in

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # torch: odd padding, nested tensors

REQUESTS = tuple(
    StepRequest(trains=trains, samples=2, on_gpu=on_gpu) for trains in (False, True) for on_gpu in (False, True)
)

CHANGES = {"script_function": "torch runs a TorchScript function otherwise after its first calls"}
"""Modules of the zoo that two calls run otherwise."""


def steps(name: str) -> tuple[tuple[RecordedStep, ...], tuple[str, ...]]:
    module, inputs = ZOO[name]()
    network = network_of(module, name, call_inputs(name, inputs), steps=REQUESTS)
    return network.steps, network.warnings


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in ZOO if name not in CHANGES])
def test_remembered_forms_give_the_recording_of_fake_tensor_mode(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    steps(name)
    remembered = steps(name)
    monkeypatch.setattr(DatalessOperators, "run", _in_fake_tensor_mode)
    assert remembered == steps(name)


def _in_fake_tensor_mode(operators: DatalessOperators, operator: Any, args: Any, kwargs: Any) -> Any:
    operators.mode.cache_enabled = False  # of a tensor in a larger memory, as of hann_window, it forgets the memory
    return operator(*args, **kwargs)


OPERATORS: dict[str, Callable[[Tensor, Tensor], object]] = {
    "sum": torch.add,
    "product of types": lambda x, y: x * y.double(),
    "number": lambda x, y: x.long() * 2,
    "number that equals it": lambda x, y: x.long() * 2.0,
    "truth that equals it": lambda x, y: x.long() * True,
    "view": lambda x, y: x.view(-1),
    "view of a part": lambda x, y: x[1:].t()[2:],
    "view at another place": lambda x, y: (x[1:].t(), x[:2].t()),
    "strided view": lambda x, y: x[1:].as_strided((2, 2), (1, 2), 1),
    "pieces": lambda x, y: x.split(2, 1),
    "several results": lambda x, y: x.max(1),
    "in place": lambda x, y: x.clone().add_(y),
    "in place on another shape": lambda x, y: x.clone().unsqueeze_(0),
    "memory of the argument": lambda x, y: torch.ops.aten._unsafe_view(x, [12]),
    "transposed": lambda x, y: x.t() + x.t(),
    "number in a tensor": lambda x, y: x + torch.tensor(2.0),
    "known number": lambda x, y: (torch.tensor(2.0) * torch.tensor(3.0)).item() * x,
    "complex": lambda x, y: torch.complex(x, y).conj() * x,
    "sparse": lambda x, y: x.to_sparse(),
}
"""Functions of two matrices of 3 x 4, each of which another rule of what is remembered covers."""


@pytest.mark.parametrize("function", OPERATORS.values(), ids=list(OPERATORS))
def test_a_remembered_result_is_that_of_fake_tensor_mode(function: Callable[[Tensor, Tensor], object]) -> None:
    def results(active: AbstractContextManager[Any]) -> list[object]:
        with operators.mode:
            x, y = torch.zeros(3, 4), torch.zeros(3, 4)
            with active:
                made = tensors_in(function(x, y))
            kept = {storage(x): "x", storage(y): "y"}
            return [(*form(tensor), kept.get(storage(tensor), "its own")) for tensor in made]

    operators = DatalessOperators(nn.Identity())
    first, remembered = (results(operators.active()) for _ in range(2))
    assert first == remembered == results(nullcontext())


def form(tensor: Tensor) -> tuple[object, ...]:
    strided = tensor.layout == torch.strided
    return (
        type(tensor),
        tensor.shape,
        tensor.dtype,
        tensor.device,
        (strided and (tensor.stride(), tensor.storage_offset())),
    )


def storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata if tensor.layout == torch.strided else 0


def test_the_forms_are_those_of_the_default_dtype() -> None:
    operators = DatalessOperators(nn.Identity())
    dtypes = []
    for dtype in (torch.float32, torch.float64, torch.float32):
        torch.set_default_dtype(dtype)
        try:
            with operators.mode, operators.active():
                dtypes.append((torch.ones(3).dtype, (torch.ones(3, dtype=torch.long) * 0.5).dtype))
        finally:
            torch.set_default_dtype(torch.float32)
    assert dtypes == [(torch.float32,) * 2, (torch.float64,) * 2, (torch.float32,) * 2]


def test_only_so_many_forms_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataless, "MOST_FORMS", 10)
    operators = DatalessOperators(nn.Identity())
    with operators.mode, operators.active():
        for size in range(1, 40):
            assert torch.relu(torch.zeros(size)).shape == (size,)
    assert len(dataless._remembered) <= 10
