"""Steps on tensors without data whose forms are remembered, held to the same steps in torch's FakeTensorMode alone."""

from __future__ import annotations

import copy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from tests.test_zoo import call_inputs
from tests.zoo import ZOO
from vggscope.recorded_step import RecordedStep, StepRequest
from vggscope.trace import dataless
from vggscope.trace.dataless import DatalessOperators, tensors_without_data
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
    monkeypatch.setattr(DatalessOperators, "empty_strided", _empty_strided)
    assert remembered == steps(name)


def _in_fake_tensor_mode(operators: DatalessOperators, operator: Any, args: Any, kwargs: Any) -> tuple[Any, None]:
    operators.mode.cache_enabled = False  # of a tensor in a larger memory, as of hann_window, it forgets the memory
    return operator(*args, **kwargs), None


def _empty_strided(operators: DatalessOperators, shape: Any, strides: Any, dtype: torch.dtype) -> Tensor:
    return torch.empty_strided(shape, strides, dtype=dtype, device="cpu")


def known_number_written(x: Tensor, y: Tensor) -> Tensor:
    number = torch.tensor([2.0])
    number.add_(x[0, :1])
    return x * number.item()


def item_set(x: Tensor, y: Tensor) -> Tensor:
    x = x.clone()
    x[0, 1:3] = 3.0
    return x


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
    "view of another type": lambda x, y: x.view(torch.int32),
    "pieces": lambda x, y: x.split(2, 1),
    "uneven pieces": lambda x, y: x.split([1, 3], 1),
    "rows": lambda x, y: x.unbind(0),
    "several results": lambda x, y: x.max(1),
    "list of results": lambda x, y: torch._foreach_add([x, y], 1.0),
    "in place": lambda x, y: x.clone().add_(y),
    "into another": lambda x, y: torch.div(x, y, out=x.clone()),
    "into several": lambda x, y: torch.max(x, 1, out=(x[:, 0].clone(), x[:, 0].long())),
    "into a smaller one": lambda x, y: torch.mul(x, 2, out=x[:0].clone()),
    "list in place": lambda x, y: torch._foreach_mul_([x.clone(), y.clone()], 2.0),
    "in place on another shape": lambda x, y: x.clone().unsqueeze_(0),
    "transposed in place": lambda x, y: x.clone().t_() + 1,
    "strides in place": lambda x, y: x.clone().as_strided_((2, 2), (1, 2)),
    "memory in place": lambda x, y: x.clone().set_(y),
    "part of a storage": lambda x, y: x.clone().set_(y.untyped_storage(), 0, (2, 2), (2, 1)) + 1,
    "smaller in place": lambda x, y: x.clone().resize_(2, 2),
    "larger in place": lambda x, y: x.clone().resize_(5, 5),
    "memory of the argument": lambda x, y: torch.ops.aten._unsafe_view(x, [12]),
    "transposed": lambda x, y: x.t() + x.t(),
    "part of a memory": lambda x, y: torch.hann_window(10) * x[:1, :1],
    "nothing": lambda x, y: x[:0] * 1,
    "data": lambda x, y: (x.data, x.detach(), x.real),
    "copy": lambda x, y: copy.deepcopy(x),
    "number in a tensor": lambda x, y: x + torch.tensor(2.0),
    "number in a matrix": lambda x, y: x + torch.tensor([[2.0]]),
    "known number": lambda x, y: (torch.tensor(2.0) * torch.tensor(3.0)).item() * x,
    "known number on one side": lambda x, y: torch.where(torch.tensor(True), x, y),
    "numbers": lambda x, y: x.clone().copy_(torch.ones(3, 4)) + torch.ones(3, 4),
    "item set": item_set,
    "complex": lambda x, y: torch.complex(x, y).conj() * x,
    "complex view": lambda x, y: torch.view_as_complex(x.view(3, 2, 2)).conj(),
    "negative view": lambda x, y: torch.view_as_complex(x.view(3, 2, 2)).conj().imag,
    "resolved": lambda x, y: torch.view_as_real(torch.view_as_complex(x.view(3, 2, 2)).conj().resolve_conj()),
    "transform": lambda x, y: torch.fft.rfft2(x).real,
    "sparse": lambda x, y: x.to_sparse(),
    "meta": lambda x, y: x.to("meta"),
}
"""Functions of two matrices of 3 x 4, each of which another rule of what is remembered covers."""

NEED_DATA: dict[str, Callable[[Tensor, Tensor], object]] = {
    "item": lambda x, y: x.sum().item(),
    "list": lambda x, y: x.tolist(),
    "array": lambda x, y: x.numpy(),
    "truth": lambda x, y: bool(x.isnan().any()),
    "number of results": lambda x, y: x.nonzero(),
    "chosen": lambda x, y: x[x > 0],
    "packed": lambda x, y: nn.utils.rnn.pack_padded_sequence(x[:, :, None], torch.tensor([4, 4, 3]), True).data,
    "number that is written": known_number_written,
}


@pytest.mark.parametrize("function", OPERATORS.values(), ids=list(OPERATORS))
def test_a_remembered_result_is_that_of_fake_tensor_mode(function: Callable[[Tensor, Tensor], object]) -> None:
    operators = DatalessOperators(nn.Identity())
    first, remembered = (results(function, operators) for _ in range(2))
    assert first == remembered == results(function)


@pytest.mark.parametrize("function", NEED_DATA.values(), ids=list(NEED_DATA))
def test_what_reads_data_fails(function: Callable[[Tensor, Tensor], object]) -> None:
    errors = []
    for operators in (DatalessOperators(nn.Identity()), None):
        with pytest.raises(Exception) as failed:  # noqa: PT011 - FakeTensorMode tells which
            results(function, operators)
        errors.append(failed.type)
    assert errors[0] is errors[1]


def results(
    function: Callable[[Tensor, Tensor], object], operators: DatalessOperators | None = None
) -> list[tuple[object, ...]]:
    """Return the forms of a function's results, and whose memory they have; without operators, in FakeTensorMode."""
    mode = tensors_without_data(nn.Identity()) if operators is None else operators.mode
    mode.cache_enabled = operators is not None
    with mode:
        x, y = (
            torch.zeros(3, 4) if operators is None else operators.empty_strided(torch.Size((3, 4)), (4, 1), torch.float)
            for _ in range(2)
        )
        with nullcontext() if operators is None else operators.active():
            made = tensors_in(function(x, y))
        kept = {storage(x): "x", storage(y): "y"}
        return [(*form(tensor), kept.get(storage(tensor), "its own")) for tensor in made]


def test_a_tensor_whose_data_are_set_has_another_form() -> None:
    operators = DatalessOperators(nn.Identity())

    class Refreshed(TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = function(*args, **(kwargs or {}))
            if result is None:
                operators.tensors.refresh(args[0])
            return result

    def set_data(x: Tensor, y: Tensor) -> object:
        x.data = y[1:]
        return x + 1, x.t()

    with Refreshed():
        assert results(set_data, operators) == results(set_data, operators) == results(set_data)


def form(tensor: Tensor) -> tuple[object, ...]:
    strided = tensor.layout == torch.strided
    return (
        type(tensor),
        tensor.shape,
        tensor.dtype,
        tensor.device,
        (strided and (tensor.stride(), tensor.storage_offset(), tensor.untyped_storage().nbytes())),
        tensor.is_conj(),
        tensor.is_neg(),
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


def test_a_tensor_that_outlives_its_run_is_refused() -> None:
    operators = DatalessOperators(nn.Identity())
    with operators.mode, operators.active():
        kept = operators.empty_strided(torch.Size((3, 4)), (4, 1), torch.float) * 2
    for use in (Tensor.clone, lambda x: torch.ones(3, 4).add_(x), Tensor.numpy):
        with pytest.raises(RuntimeError, match=r"a recorded step, which has no data|not supported"):
            use(kept)


def test_a_tensor_is_refused_in_another_thread() -> None:
    operators = DatalessOperators(nn.Identity())
    with operators.mode, operators.active(), ThreadPoolExecutor() as pool:
        x = operators.empty_strided(torch.Size((3, 4)), (4, 1), torch.float)
        assert "has no data" in str(pool.submit(x.clone).exception())
