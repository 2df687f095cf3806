"""What stands in for the objects that a pickle asks for: records that hold what was said and can do nothing.

A name that is not in these tables is not looked up anywhere: the file is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from vggscope.checkpoint.trusted import FILLED
from vggscope.errors import CheckpointError
from vggscope.ops.base import Shape

LARGEST_COUNT = 50_000
"""Tensors in one file; the largest language models have some thousand in each of theirs."""

LARGEST_SIDE = 2**63 - 1
"""What torch can count to."""

LARGEST_RANK = 64
"""The most dimensions that torch gives a tensor."""

BYTES = {
    **{"float32": 4, "float64": 8, "float16": 2, "bfloat16": 2, "complex32": 4, "complex64": 8, "complex128": 16},
    **{"uint8": 1, "int8": 1, "int16": 2, "int32": 4, "int64": 8, "bool": 1, "uint16": 2, "uint32": 4, "uint64": 8},
    **{"float8_e4m3fn": 1, "float8_e5m2": 1, "float8_e4m3fnuz": 1, "float8_e5m2fnuz": 1, "float8_e8m0fnu": 1},
    **{"qint8": 1, "quint8": 1, "qint32": 4, "quint4x2": 1, "quint2x4": 1, "float4_e2m1fn_x2": 1},
}
"""Bytes of one element, by torch's name of the dtype."""

_STORAGES = {
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
    "QInt8Storage": "qint8",
    "QUInt8Storage": "quint8",
    "QInt32Storage": "qint32",
    "UntypedStorage": "uint8",
}


@dataclass(frozen=True, slots=True)
class Global:
    """A name that the pickle would import. It stays a name."""

    name: str


@dataclass(frozen=True, slots=True)
class Opaque:
    """An object of no interest here, such as the options of a training run."""

    name: str


@dataclass(eq=False, slots=True)
class Dictionary:
    """A dict's entries in order. It hashes nothing, so that no choice of keys makes it slow."""

    entries: list[tuple[object, object]]
    _names: dict[str, object] | None = None

    def named(self) -> dict[str, object]:
        """The entries whose key is a text, the last of equal keys: to be asked for once nothing is added any more."""
        if self._names is None:
            self._names = {key: value for key, value in self.entries if isinstance(key, str)}
        return self._names


@dataclass(frozen=True, slots=True)
class Storage:
    """Memory that tensors share: `count` elements of `dtype`, kept in the file under `key`."""

    dtype: str
    key: str
    count: int


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor without its data."""

    dtype: str
    shape: Shape
    is_sparse: bool = False


def known(name: str) -> Global | None:
    """The record for a name, if state dicts use it; Python 2's names and CUDA's storages are taken for today's."""
    name = re.sub(r"^__builtin__\.", "builtins.", re.sub(r"^torch\.(cuda|storage)\.(?=\w+Storage$)", "torch.", name))
    name = {"builtins.long": "builtins.int", "builtins.unicode": "builtins.str"}.get(name, name)
    is_storage = name.startswith("torch.") and name[6:] in _STORAGES
    is_dtype = name.startswith("torch.") and name[6:] in BYTES
    return Global(name) if is_storage or is_dtype or name in _CALLS or name in OPAQUE or name in _TYPES else None


def storage(parts: object) -> Storage:
    """What a persistent id stands for: ("storage", type, key, location, elements, ...)."""
    if isinstance(parts, tuple) and len(parts) >= 5:
        kind, key, count = parts[1], parts[2], parts[4]
        if isinstance(kind, Global) and isinstance(key, str) and _is_size(count) and kind.name[6:] in _STORAGES:
            return Storage(_STORAGES[kind.name[6:]], key, count)
    raise CheckpointError("its pickle names a storage in no way that torch.save does")


def call(function: Global, arguments: tuple[object, ...]) -> object:
    """The record that stands for `function(*arguments)`."""
    made = _CALLS.get(function.name)
    if made is None and function.name in OPAQUE:
        return Opaque(function.name)
    if made is None:
        raise CheckpointError(f"its pickle calls {function.name}, which is not a function")
    return made(arguments)


def trusted_with(function: Global, arguments: tuple[object, ...]) -> str | None:
    """The class that torch.load must be told to trust beside a function, as a dtype's of numpy; None for none."""
    code = arguments[0] if arguments and function.name == "numpy.dtype" else None
    name = _NUMPY_DTYPES.get(code) if isinstance(code, str) else None
    return f"numpy.dtypes.{name}DType" if name else None


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LARGEST_SIDE


def _shape(value: object) -> Shape:
    if isinstance(value, tuple) and len(value) <= LARGEST_RANK and all(map(_is_size, value)):
        return value
    raise CheckpointError("a tensor in it has a shape or a stride that no tensor has")


def _dtype(value: object) -> str:
    if isinstance(value, Global) and value.name[6:] in BYTES:
        return value.name[6:]
    raise CheckpointError("a tensor in it has no known dtype")


def _tensor(arguments: tuple[object, ...]) -> Tensor:
    """(storage, offset, size, stride, ...), which must lie inside its storage."""
    if len(arguments) >= 4 and isinstance(arguments[0], Storage) and _is_size(arguments[1]):
        held, offset, shape, stride = arguments[0], arguments[1], _shape(arguments[2]), _shape(arguments[3])
        assert isinstance(offset, int)
        last = offset + sum((side - 1) * step for side, step in zip(shape, stride))
        if len(shape) != len(stride) or (0 not in shape and last >= held.count):
            raise CheckpointError(f"a tensor in it reaches beyond its storage of {held.count} elements")
        return Tensor(held.dtype, shape)
    raise CheckpointError("its pickle builds a tensor in no way that torch.save does")


def _typed_tensor(arguments: tuple[object, ...]) -> Tensor:
    """The same on untyped storage, the dtype at position 6: for dtypes without a storage class of their own."""
    if len(arguments) < 7 or not isinstance(arguments[0], Storage):
        raise CheckpointError("its pickle builds a tensor in no way that torch.save does")
    dtype, held = _dtype(arguments[6]), arguments[0]
    return _tensor((Storage(dtype, held.key, held.count // BYTES[dtype]), *arguments[1:]))


def _meta_tensor(arguments: tuple[object, ...]) -> Tensor:
    """(dtype, size, stride, requires_grad): a tensor that never had data."""
    if len(arguments) < 2:
        raise CheckpointError("its pickle builds a tensor in no way that torch.save does")
    return Tensor(_dtype(arguments[0]), _shape(arguments[1]))


def _sparse_tensor(arguments: tuple[object, ...]) -> Tensor:
    """(layout, (indices, values, size, ...)), or with two tensors of indices where rows are compressed."""
    parts = arguments[1] if len(arguments) == 2 and isinstance(arguments[1], tuple) else ()
    for values, size in pairwise(parts):
        if isinstance(values, Tensor) and isinstance(size, tuple):
            return Tensor(values.dtype, _shape(size), is_sparse=True)
    raise CheckpointError("its pickle builds a tensor in no way that torch.save does")


def _first(arguments: tuple[object, ...]) -> object:
    """A parameter is the tensor in it."""
    if not arguments:
        raise CheckpointError("its pickle builds a parameter of nothing")
    return arguments[0]


def _of_type(arguments: tuple[object, ...]) -> object:
    """(function, type, arguments, state): a tensor with attributes, or of a subclass."""
    function, inner = (arguments[0], arguments[2]) if len(arguments) == 4 else (None, None)
    if isinstance(function, Global) and function.name.startswith("torch._utils.") and isinstance(inner, tuple):
        return call(function, inner)
    raise CheckpointError("its pickle builds a tensor in no way that torch.save does")


def _dictionary(arguments: tuple[object, ...]) -> Dictionary:
    """An empty dict, or one of a list of pairs; a defaultdict's factory is left out."""
    pairs = arguments[-1] if arguments else []
    if isinstance(pairs, Dictionary):
        return Dictionary(pairs.entries)
    if not isinstance(pairs, list):
        return Dictionary([])
    entries = [(pair[0], pair[1]) for pair in pairs if isinstance(pair, (list, tuple)) and len(pair) == 2]
    return Dictionary(entries)


_CALLS: dict[str, Callable[[tuple[object, ...]], object]] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _typed_tensor,
    "torch._utils._rebuild_qtensor": _tensor,
    "torch._utils._rebuild_meta_tensor_no_storage": _meta_tensor,
    "torch._utils._rebuild_sparse_tensor": _sparse_tensor,
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
    "torch._tensor._rebuild_from_type_v2": _of_type,
    "torch.Size": lambda arguments: tuple(arguments[0]) if arguments and isinstance(arguments[0], tuple) else (),
    "collections.OrderedDict": _dictionary,
    "collections.defaultdict": _dictionary,
    "collections.Counter": _dictionary,
}

_GUARDED_OBJECTS = frozenset(
    {
        *("argparse.Namespace", "types.SimpleNamespace", "builtins.frozenset"),
        *("datetime.datetime", "datetime.date", "datetime.time", "datetime.timedelta", "datetime.timezone"),
        *("pathlib.PosixPath", "pathlib.WindowsPath", "pathlib._local.PosixPath", "pathlib._local.WindowsPath"),
        *("decimal.Decimal", "uuid.UUID", "torch.torch_version.TorchVersion"),
        *("numpy.dtype", "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar"),
        *("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct"),
        *("omegaconf.dictconfig.DictConfig", "omegaconf.listconfig.ListConfig", "omegaconf.nodes.AnyNode"),
        *("omegaconf.base.ContainerMetadata", "omegaconf.base.Metadata"),
        "mmengine.logging.history_buffer.HistoryBuffer",
    }
)

_GUARDED_TYPES = frozenset(
    {
        *("builtins.dict", "builtins.list", "builtins.int", "builtins.float", "builtins.str", "builtins.bool"),
        *("numpy.ndarray", "typing.Any"),
        "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
        "pytorch_lightning.callbacks.early_stopping.EarlyStopping",
    }
)

OPAQUE = (
    _GUARDED_OBJECTS
    | FILLED
    | {
        *("torch.device", "torch.serialization._get_layout", "_codecs.encode"),
        *("builtins.set", "builtins.bytearray", "builtins.complex"),
    }
)
"""Objects that training scripts save beside the weights: kept as a name."""

GUARDED = _GUARDED_OBJECTS | _GUARDED_TYPES | FILLED
"""Those that torch.load refuses with weights_only=True unless it is told to trust them."""

_NUMPY_DTYPES = {
    **{"b1": "Bool", "i1": "Int8", "i2": "Int16", "i4": "Int32", "i8": "Int64", "O8": "Object"},
    **{"u1": "UInt8", "u2": "UInt16", "u4": "UInt32", "u8": "UInt64"},
    **{"f2": "Float16", "f4": "Float32", "f8": "Float64", "c8": "Complex64", "c16": "Complex128"},
}
"""What numpy.dtypes calls the class of a dtype by its code: torch.load asks for it as well."""

_TYPES = _GUARDED_TYPES | {
    *("torch.Tensor", "torch._tensor.Tensor", "torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer"),
    *("torch.per_tensor_affine", "torch.per_tensor_symmetric", "torch.per_channel_affine"),
    *("torch.per_channel_symmetric", "torch.per_channel_affine_float_qparams"),
}
"""Types that are named but never called, as a default dict's factory is."""
