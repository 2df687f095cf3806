"""Inert objects in place of those that a pickle would build, and the only globals that a pickle may name.

A global that is not in these tables is never looked up: the file is refused.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

from vggscope.checkpoint.contents import Place
from vggscope.errors import CheckpointError
from vggscope.ops.base import Shape
from vggscope.units import ELEMENT_BYTES

LARGEST_COUNT = 50_000
"""Tensors in one file; the largest language models have some thousand per file."""

LARGEST_SIDE = 2**63 - 1
"""The largest size that torch can represent."""

LARGEST_RANK = 64
"""The most dimensions of a torch tensor."""

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


_UNKNOWN_TENSOR = "its pickle builds a tensor in a way that torch.save does not"


@dataclass(frozen=True, slots=True)
class Global:
    """The dotted name of an object that the pickle would import. Nothing is imported."""

    name: str


@dataclass(frozen=True, slots=True)
class Opaque:
    """An object that is not inspected, such as the options of a training run. `texts` are those in a set."""

    name: str
    texts: frozenset[str] = frozenset()


@dataclass(eq=False, slots=True)
class Dictionary:
    """A dict's entries in order. Its keys are not hashed, so hash collisions cannot slow it down."""

    entries: list[tuple[object, object]]
    _names: dict[str, object] | None = None

    def named(self) -> dict[str, object]:
        """The entries whose key is a str, the last one of equal keys. It is cached: call it once all are added."""
        if self._names is None:
            self._names = {key: value for key, value in self.entries if isinstance(key, str)}
        return self._names


@dataclass(eq=False, slots=True)
class Instance:
    """An object of a class that is not loaded: the class's dotted name, and the attributes that the pickle sets."""

    kind: str
    attributes: Dictionary


@dataclass(frozen=True, slots=True)
class Storage:
    """Memory that tensors share: `count` elements of `dtype`, stored in the file under `key`.

    `is_view`: it is a part of another storage, which torch wrote before version 0.4.
    """

    dtype: str
    key: str
    count: int
    is_view: bool = False


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor without its data. `place` is None where its elements are not stored one by one, or not at all.

    `trainable` is whether it requires a gradient.
    """

    dtype: str
    shape: Shape
    is_sparse: bool = False
    place: Place | None = None
    trainable: bool = True


def module_of(name: str) -> str:
    """The module that has a global in the installed versions: numpy 2 and Python 3.13 renamed some modules."""
    module = name.rpartition(".")[0]
    if module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        from importlib.metadata import PackageNotFoundError, version  # takes a third of an inspection's time

        try:
            is_old = version("numpy").startswith("1.")
        except PackageNotFoundError:
            is_old = False
        return "numpy.core.multiarray" if is_old else "numpy._core.multiarray"
    return {"pathlib._local": "pathlib"}.get(module, module)


def known_global(name: str) -> Global | None:
    """The Global of a dotted name, with Python 2's names and CUDA's storages translated; None if it is not allowed."""
    name = re.sub(
        r"^__builtin__\.", "builtins.", re.sub(r"^torch\.(cuda|storage)\.(?=\w+(Storage|Tensor)$)", "torch.", name)
    )
    name = {"builtins.long": "builtins.int", "builtins.unicode": "builtins.str"}.get(name, name)
    is_storage = name.startswith("torch.") and name[6:] in _STORAGES
    is_dtype = name.startswith("torch.") and name[6:] in ELEMENT_BYTES
    return Global(name) if is_storage or is_dtype or name in _CALLS or name in OPAQUE or name in _TYPES else None


def own_class(name: str) -> Global | None:
    """The Global of a class or a function that a pickled module refers to; None if it is not allowed.

    Of Python's own it may name only those that modules keep in attributes. None of them is looked up.
    """
    package = name.partition(".")[0]
    is_python = package in sys.stdlib_module_names or package in ("__builtin__", "nt")
    return None if is_python and name not in _PYTHON_ATTRIBUTES else Global(name)


def is_class_name(name: str) -> bool:
    """Whether the last part of a dotted name begins with a capital, as a class's does.

    >>> is_class_name("net.Mode"), is_class_name("torch.hub.load")
    (True, False)
    """
    return name.rpartition(".")[2][:1].isupper()


def storage_dtype(kind: object) -> str | None:
    """The dtype of a storage's class; None for any other object."""
    return _STORAGES.get(kind.name[6:]) if isinstance(kind, Global) and kind.name.startswith("torch.") else None


def storage(parts: object) -> Storage:
    """The storage of a persistent id, which is ("storage", type, key, location, elements, ...)."""
    if isinstance(parts, tuple) and len(parts) >= 5:
        kind, key, count = parts[1], parts[2], parts[4]
        if isinstance(kind, Global) and isinstance(key, str) and _is_size(count) and kind.name[6:] in _STORAGES:
            return Storage(_STORAGES[kind.name[6:]], key, count, any(part is not None for part in parts[5:]))
    raise CheckpointError("its pickle describes a storage in a way that torch.save does not")


def call(function: Global, arguments: tuple[object, ...]) -> object:
    """The inert result of `function(*arguments)`."""
    builder = _CALLS.get(function.name)
    if function.name == "builtins.set" and arguments and isinstance(arguments[0], list):
        return Opaque(function.name, frozenset(text for text in arguments[0][:_MOST_TEXTS] if isinstance(text, str)))
    if builder is None and function.name in OPAQUE:
        return Opaque(function.name)
    if builder is None:
        raise CheckpointError(f"its pickle calls {function.name}, which is not a function")
    return builder(arguments)


def guarded_argument(function: Global, arguments: tuple[object, ...]) -> str | None:
    """The class, such as a NumPy dtype's, that torch.load must be allowed to use for these arguments, if any."""
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
    if isinstance(value, Global) and value.name[6:] in ELEMENT_BYTES:
        return value.name[6:]
    raise CheckpointError("a tensor in it has no known dtype")


def _tensor(arguments: tuple[object, ...]) -> Tensor:
    """The tensor of (storage, offset, size, stride, ...), which must be inside its storage."""
    if len(arguments) >= 4 and isinstance(arguments[0], Storage) and _is_size(arguments[1]):
        held, offset, shape, stride = arguments[0], arguments[1], _shape(arguments[2]), _shape(arguments[3])
        assert isinstance(offset, int)
        last = offset + sum((side - 1) * step for side, step in zip(shape, stride))
        if len(shape) != len(stride) or (0 not in shape and last >= held.count):
            raise CheckpointError(f"a tensor in it reaches beyond its storage of {held.count} elements")
        requires_grad = arguments[4:5] == (True,)
        return Tensor(held.dtype, shape, False, _place(held, offset, stride, arguments[6:]), requires_grad)
    raise CheckpointError(_UNKNOWN_TENSOR)


def _place(held: Storage, offset: int, stride: Shape, further: tuple[object, ...]) -> Place | None:
    """Where the elements are; None for a quantised tensor, and for one with the conj or neg bit among `further`."""
    is_marked = any(isinstance(value, Dictionary) and value.entries for value in further)
    if held.is_view or is_marked or held.dtype.startswith(("qint", "quint")):
        return None
    return Place(held.key, offset * ELEMENT_BYTES[held.dtype], stride)


def _typed_tensor(arguments: tuple[object, ...]) -> Tensor:
    """`_tensor` for a dtype without a storage class: on untyped storage, with the dtype at position 6."""
    if len(arguments) < 7 or not isinstance(arguments[0], Storage):
        raise CheckpointError(_UNKNOWN_TENSOR)
    dtype, held = _dtype(arguments[6]), arguments[0]
    return _tensor((Storage(dtype, held.key, held.count // ELEMENT_BYTES[dtype], held.is_view), *arguments[1:]))


def _meta_tensor(arguments: tuple[object, ...]) -> Tensor:
    """The tensor of (dtype, size, stride, requires_grad), on the meta device."""
    if len(arguments) < 2:
        raise CheckpointError(_UNKNOWN_TENSOR)
    return Tensor(_dtype(arguments[0]), _shape(arguments[1]))


def _sparse_tensor(arguments: tuple[object, ...]) -> Tensor:
    """The tensor of (layout, (indices, values, size, ...)); compressed layouts have two tensors of indices."""
    parts = arguments[1] if len(arguments) == 2 and isinstance(arguments[1], tuple) else ()
    for values, size in pairwise(parts):
        if isinstance(values, Tensor) and isinstance(size, tuple):
            return Tensor(values.dtype, _shape(size), is_sparse=True)
    raise CheckpointError(_UNKNOWN_TENSOR)


def _parameter(arguments: tuple[object, ...]) -> object:
    """The tensor of a parameter, its first argument; the second is whether it requires a gradient."""
    if not arguments:
        raise CheckpointError("its pickle builds a parameter of nothing")
    tensor = arguments[0]
    return replace(tensor, trainable=arguments[1:2] != (False,)) if isinstance(tensor, Tensor) else tensor


def _of_type(arguments: tuple[object, ...]) -> object:
    """The tensor of (function, type, arguments, state), which has attributes or is of a subclass."""
    function, inner = (arguments[0], arguments[2]) if len(arguments) == 4 else (None, None)
    if isinstance(function, Global) and function.name.startswith("torch._utils.") and isinstance(inner, tuple):
        return call(function, inner)
    raise CheckpointError(_UNKNOWN_TENSOR)


def _dictionary(arguments: tuple[object, ...]) -> Dictionary:
    """An empty dict, or one of a list of pairs; a defaultdict's factory is dropped."""
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
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._tensor._rebuild_from_type_v2": _of_type,
    "torch.Size": lambda arguments: tuple(arguments[0]) if arguments and isinstance(arguments[0], tuple) else (),
    "collections.OrderedDict": _dictionary,
    "collections.defaultdict": _dictionary,
    "collections.Counter": _dictionary,
}

NEVER_WEIGHTS_ONLY = frozenset(
    {
        *("collections.defaultdict", "collections.deque", "easydict.EasyDict", "yacs.config.CfgNode"),
        *("addict.addict.Dict", "pytorch_lightning.utilities.parsing.AttributeDict"),
        *("lightning_fabric.utilities.data.AttributeDict", "lightning.fabric.utilities.data.AttributeDict"),
        "lightning.pytorch.utilities.parsing.AttributeDict",
    }
)
"""Classes that torch.load rejects with weights_only=True even if they are allowed.

A pickle fills them item by item, which torch permits for plain dicts and lists alone.
"""

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
    | NEVER_WEIGHTS_ONLY
    | {
        *("torch.device", "torch.serialization._get_layout", "_codecs.encode"),
        *("builtins.set", "builtins.bytearray", "builtins.complex"),
    }
)
"""Classes whose objects training scripts save beside the weights; each becomes an Opaque."""

GUARDED = _GUARDED_OBJECTS | _GUARDED_TYPES | NEVER_WEIGHTS_ONLY
"""Classes that torch.load rejects with weights_only=True unless they are allowed."""

_PYTHON_ATTRIBUTES = frozenset(
    {"functools.partial", "builtins.range", "builtins.slice", "builtins.object", "builtins.type", "builtins.tuple"}
)
"""Names of Python's own that a module keeps in an attribute, as torchvision's keep a partial of a norm's class."""

_MOST_TEXTS = 10_000
"""Texts of a set that are kept: the names of a module's buffers that are not in its state dict."""

_NUMPY_DTYPES = {
    **{"b1": "Bool", "i1": "Int8", "i2": "Int16", "i4": "Int32", "i8": "Int64", "O8": "Object"},
    **{"u1": "UInt8", "u2": "UInt16", "u4": "UInt32", "u8": "UInt64"},
    **{"f2": "Float16", "f4": "Float32", "f8": "Float64", "c8": "Complex64", "c16": "Complex128"},
}
"""The prefix of a dtype's class in numpy.dtypes, by the dtype's code; torch.load needs that class too."""

_TYPES = _GUARDED_TYPES | {
    *("torch.Tensor", "torch._tensor.Tensor", "torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer"),
    *("torch.per_tensor_affine", "torch.per_tensor_symmetric", "torch.per_channel_affine"),
    *("torch.per_channel_symmetric", "torch.per_channel_affine_float_qparams"),
    *(f"torch.{name.replace('Storage', 'Tensor')}" for name in _STORAGES),
}
"""Types that a pickle names but never calls, such as a default dict's factory."""
