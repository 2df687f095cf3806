"""Inputs that are data: dtypes that torch does not mix, nests of tensors, and what is refused."""

from __future__ import annotations

import warnings
from collections import OrderedDict, UserDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

import vggscope
from vggscope.errors import ModelError, OptionError


class Product(nn.Module):
    """A function of the input and weights in float32."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.function, self.weight = function, nn.Parameter(torch.zeros(8, 8))

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, self.weight)


MODULES = [
    *((nn.Linear(8, 4), (2, 8)), (nn.LSTMCell(8, 4), (1, 8)), (nn.GRU(8, 4), (5, 1, 8)), (nn.LayerNorm(8), (2, 8))),
    *((nn.Conv2d(3, 4, 3), (1, 3, 8, 8)), (nn.ConvTranspose2d(3, 4, 3), (1, 3, 8, 8)), (nn.PReLU(), (2, 8))),
    *((nn.BatchNorm2d(3), (1, 3, 8, 8)), (nn.TransformerEncoderLayer(8, 2, 16), (3, 1, 8))),
    (Product(torch.matmul), (8, 8)),
    (Product(lambda x, weight: x[0] @ weight), (8, 8)),
    (Product(torch.mm), (8, 8)),
    (Product(lambda x, weight: torch.bmm(x[None], weight[None])), (8, 8)),
    (Product(lambda x, weight: torch.addmm(weight[0], x, weight)), (8, 8)),
    (Product(F.linear), (8, 8)),
    (Product(torch.add), (8, 8)),
]
"""Modules with float32 weights, and the shape of their input."""


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64, torch.int64], ids=str)
@pytest.mark.parametrize(("module", "shape"), MODULES)
def test_mixed_dtypes_are_refused_where_torch_refuses_them(
    module: nn.Module, shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    given = torch.zeros(shape, dtype=dtype)
    module.eval()
    try:
        module(given)
        runs = True
    except (RuntimeError, ValueError):
        runs = False
    try:
        accepted = vggscope.network(module, input_data=given).failure is None
    except ModelError:
        accepted = False
    assert accepted == runs


def test_autocast_mixes_dtypes() -> None:
    def cast(x: Tensor, weight: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return x.bfloat16() @ weight

    assert vggscope.network(Product(cast), input_data=torch.zeros(2, 8)).failure is None


def test_the_error_for_a_mixed_dtype_names_the_option(vggscope, tmp_path) -> None:
    (tmp_path / "net.py").write_text("from torch import nn\n\n\ndef net():\n    return nn.Linear(8, 4)\n")
    ran = vggscope("summary", f"{tmp_path / 'net.py'}:net", "--input", "8:float16")
    assert ran.code == 2
    assert "the tensors must have the same dtype, but are float16 and float32" in ran.err
    assert ran.err.endswith("--input SIZE:DTYPE gives another dtype\n")


@dataclass(frozen=True)
class Batch:
    """The argument of a forward."""

    image: Tensor
    label: Tensor


class OfABatch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, batch: Batch) -> Batch:
        return Batch(self.conv(batch.image), batch.label)


def test_a_dataclass_has_its_batch() -> None:
    """4 x 3 x 3 x 3 x 6 x 6 MACs for each of eight samples."""
    data = Batch(torch.zeros(2, 3, 8, 8), torch.zeros(2, dtype=torch.int64))
    for given in (data, (data,), {"batch": data}):
        summary = vggscope.summary(OfABatch(), input_data=given, batch=8)
        assert [tensor.shape for tensor in summary.inputs] == [(8, 3, 8, 8), (8,)]
        assert summary.totals.macs == 8 * 4 * 3 * 3 * 3 * 6 * 6
    assert data.image.device.type == "cpu"  # the caller's own is as it was


class Pair(NamedTuple):
    """The argument of a forward, or its arguments."""

    image: Tensor
    label: Tensor


class OfTwo(OfABatch):
    def forward(self, image: Tensor, label: Tensor) -> Tensor:  # type: ignore[override]
        return self.conv(image).mean((2, 3)) + label[:, None]


def test_a_named_tuple_is_one_argument_if_forward_takes_one() -> None:
    data = Pair(torch.zeros(2, 3, 8, 8), torch.zeros(2))
    names = {kind: [t.name for t in vggscope.summary(kind(), input_data=data).inputs] for kind in (OfABatch, OfTwo)}
    assert names == {OfABatch: ["batch.image", "batch.label"], OfTwo: ["image", "label"]}


class OfKeywords(OfABatch):
    def forward(self, **given: Tensor) -> Tensor:  # type: ignore[override]
        return self.conv(given["image"])


class OfMixedKeys(OfABatch):
    def forward(self, batch: dict[str, object]) -> Tensor:  # type: ignore[override]
        assert batch["name"] == "a"
        return self.conv(batch["image"])  # type: ignore[arg-type]


class OfAnArray(OfABatch):
    def forward(self, x: object) -> Tensor:  # type: ignore[override]
        return self.conv(torch.from_numpy(x))


@pytest.mark.parametrize(
    ("kind", "remedy"),
    [
        (OfABatch, "if forward reads .image of its argument, give it as input_data"),
        (OfKeywords, "give input_data in Python"),
        (OfMixedKeys, "forward takes a dict with name: give it as input_data"),
        (OfAnArray, "call the model on the same input to see the traceback"),
    ],
)
def test_an_argument_that_is_no_tensor_is_advised(kind: type[nn.Module], remedy: str) -> None:
    with pytest.raises(ModelError) as raised:
        vggscope.summary(kind())
    assert remedy in raised.value.remedy


@pytest.mark.parametrize("kind", [dict, OrderedDict, UserDict])
def test_a_mapping_has_its_batch(kind: Callable[..., object]) -> None:
    class OfAMapping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 2)

        def forward(self, batch: dict[str, Tensor]) -> Tensor:
            return self.fc(batch["x"])

    assert vggscope.summary(OfAMapping(), input_data=(kind(x=torch.zeros(1, 4)),), batch=3).totals.macs == 3 * 8


ARRAYS: dict[str, Callable[[], object]] = {
    "array": lambda: np.zeros((2, 3, 8, 8), np.float32),
    "tuple": lambda: (np.zeros((2, 3, 8, 8), np.float32),),
    "dict": lambda: {"input": np.zeros((2, 3, 8, 8), np.float32)},
    "read-only": lambda: np.broadcast_to(np.float32(0), (2, 3, 8, 8)),
    "reversed": lambda: np.zeros((2, 3, 8, 8), np.float32)[..., ::-1],
    "channels last": lambda: np.zeros((2, 8, 8, 3), np.float32).transpose(0, 3, 1, 2),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_stands_for_its_tensor(name: str) -> None:
    summary = vggscope.summary(nn.Conv2d(3, 4, 3), input_data=ARRAYS[name]())
    assert summary.totals.macs == 2 * 4 * 3 * 3 * 3 * 6 * 6
    assert summary.inputs[0].dtype == "float32"


def test_nested_arrays_keep_their_dtypes_beside_tensors() -> None:
    ids = np.zeros(2, np.int64)
    data = (Batch(np.zeros((2, 3, 8, 8), np.float32), ids), [torch.zeros(2), {"mask": np.zeros((2, 5), bool)}])

    class OfANest(OfABatch):
        def forward(self, batch: Batch, more: list[object]) -> Tensor:  # type: ignore[override]
            return self.conv(batch.image)

    inputs = vggscope.summary(OfANest(), input_data=data).inputs
    assert [(t.name, t.dtype) for t in inputs] == [
        *(("batch.image", "float32"), ("batch.label", "int64"), ("more[0]", "float32"), ("more[1].mask", "bool")),
    ]
    assert data[0].label is ids  # the caller's own is as it was


def test_an_array_of_float64_is_refused_where_torch_refuses_it() -> None:
    with pytest.raises(ModelError, match="must have the same dtype"):
        vggscope.summary(nn.Conv2d(3, 4, 3), input_data=np.zeros((1, 3, 8, 8)))


@pytest.mark.parametrize("array", [np.array(["a"]), np.array([object()]), np.zeros(2, ">f4")])
def test_an_array_that_torch_does_not_take_is_refused(array: object) -> None:
    with pytest.raises(OptionError, match=f"NumPy array of dtype {array.dtype}, which torch does not take"):  # type: ignore[attr-defined]
        vggscope.summary(nn.Linear(4, 2), input_data={"input": array})


def nested(layout: torch.layout) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.nested.nested_tensor([torch.zeros(2, 4), torch.zeros(3, 4)], layout=layout)


def rows() -> Iterator[Tensor]:
    yield torch.zeros(1, 4)


@pytest.mark.parametrize(
    ("data", "problem", "remedy"),
    [
        (lambda: nested(torch.strided), "nested tensor", "x.to_padded_tensor(0.0)"),
        (lambda: nested(torch.jagged), "nested tensor", "x.to_padded_tensor(0.0)"),
        (lambda: torch.zeros(1, 4).to_sparse(), "sparse tensor", "x.to_dense()"),
        (lambda: (rows(),), "holds a generator", "give a list"),
        (lambda: {"input": rows()}, "holds a generator", "give a list"),
        (lambda: (object(),), "holds no tensor", "give a tensor"),
    ],
)
def test_other_data_are_refused_with_a_remedy(data: Callable[[], object], problem: str, remedy: str) -> None:
    with pytest.raises(OptionError) as error:
        vggscope.summary(nn.Linear(4, 2), input_data=data())
    assert problem in error.value.problem
    assert remedy in (error.value.remedy or "")


def test_a_generator_that_forward_returns_is_refused() -> None:
    class Yields(nn.Linear):
        def forward(self, x: Tensor) -> Iterator[Tensor]:
            yield super().forward(x)

    with pytest.raises(ModelError, match="returns a generator") as error:
        vggscope.summary(Yields(4, 2), input_data=torch.zeros(1, 4))
    assert (error.value.remedy or "").startswith("return a list")


@pytest.mark.parametrize("data", [torch.zeros(2, 3, 8, 8), {"input": torch.zeros(2, 3, 8, 8)}])
def test_lazy_layers_are_initialised_on_the_data(data: object) -> None:
    """4 x 6 x 6 features come out of the convolution; the caller's module stays lazy."""
    module = nn.Sequential(nn.LazyConv2d(4, 3), nn.Flatten(), nn.LazyLinear(5))
    summary = vggscope.summary(module, input_data=data)
    assert summary.totals.params == (4 * 3 * 9 + 4) + (5 * 144 + 5)
    assert isinstance(module[2], nn.LazyLinear)


def test_lazy_layers_leave_the_random_state() -> None:
    module = nn.Sequential(nn.LazyConv2d(4, 3), nn.Flatten(), nn.LazyLinear(5))
    for inspected in (vggscope.summary, vggscope.memory, vggscope.operations, vggscope.receptive_fields):
        before = torch.get_rng_state()
        inspected(module, (3, 8, 8))
        assert torch.equal(torch.get_rng_state(), before)
