"""The modules and the tensors of a TorchScript archive, from its pickle and the text of its classes."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Iterator, Sequence

from vggscope.checkpoint.contents import StoredModule, StoredTensor
from vggscope.checkpoint.formats.bounded_file import BoundedFile
from vggscope.checkpoint.formats.module_tree import joined, plain_settings
from vggscope.checkpoint.formats.pickle_objects import LARGEST_COUNT, Instance, Tensor
from vggscope.errors import CheckpointError, printable
from vggscope.graph import Buffer, Parameter

LARGEST_MEMBER = 2**20
"""Bytes of one file of code in an archive. The largest of torchvision's scripted models has 120,000."""

_MOST_MODULES, _MOST_ATTRIBUTES, _DEEPEST = 20_000, 500_000, 100
"""Bounds of a tree, of the attributes of its modules together, and of modules in one another."""

_LISTED = re.compile(r"^class (\w+)\(Module\):\n  __parameters__ = \[([^\]\n]*)\]", re.MULTILINE)

_LARGEST_CODE = 4 * 2**20
"""Bytes of all code that is searched for the names of parameters."""


def script_text(file: BoundedFile, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> str:
    """A member of code as text. Raises CheckpointError where it is larger than any."""
    if member.file_size > LARGEST_MEMBER or member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise CheckpointError(f"its {printable(member.filename, 80)} has {member.file_size} bytes, code has fewer")
    file.allow(LARGEST_MEMBER + 2**16)
    with archive.open(member) as stream:
        data = stream.read(LARGEST_MEMBER + 1)
    file.bytes_inflated += len(data)
    return data.decode()


def script_modules(root: object, text_of: Callable[[str], str]) -> tuple[StoredModule, ...]:
    """The modules, each before its parts. `text_of` gives the text of the file in which a class is.

    Raises CheckpointError for more of them than any model has.
    """
    if not isinstance(root, Instance):
        raise CheckpointError("its data.pkl holds no module")
    listed = _Listed(text_of)
    modules: list[StoredModule] = []
    names: dict[int, str] = {}
    paths: dict[int, str] = {}
    attributes = 0
    waiting: list[tuple[str, int, Instance]] = [("", 0, root)]
    while waiting:
        path, depth, module = waiting.pop()
        held = module.attributes.named()
        attributes += len(held)
        is_large = len(modules) >= _MOST_MODULES or len(waiting) > _MOST_MODULES or len(names) > LARGEST_COUNT
        if is_large or attributes > _MOST_ATTRIBUTES or depth > _DEEPEST:
            raise CheckpointError("its modules are more, or deeper in one another, than those of any model")
        first = paths.setdefault(id(module), path)
        modules.append(_stored(path, module, first if first != path else None, listed.of(module.kind), names))
        parts = [(name, value) for name, value in held.items() if isinstance(value, Instance)]
        waiting += [(joined(path, name), depth + 1, part) for name, part in reversed(parts)]
    return tuple(modules)


def class_name(kind: str) -> str:
    """The name of a class before TorchScript compiled it.

    >>> class_name("__torch__.torch.nn.modules.conv.___torch_mangle_3.Conv2d")
    'torch.nn.modules.conv.Conv2d'
    """
    return re.sub(r"___torch_mangle_\d+\.", "", kind.removeprefix("__torch__."))


class _Listed:
    """The names of the parameters that classes list, each file of code read once."""

    def __init__(self, text_of: Callable[[str], str]) -> None:
        self._text_of = text_of
        self._files: dict[str, dict[str, frozenset[str]]] = {}
        self._size = 0

    def of(self, kind: str) -> frozenset[str]:
        """The names of a class's parameters. Raises CheckpointError where the code is larger than any."""
        file, _, own = kind.rpartition(".")
        if file not in self._files:
            text = self._text_of(kind)
            self._size += len(text)
            if self._size > _LARGEST_CODE:
                raise CheckpointError("its code is larger than that of any model")
            found = _LISTED.finditer(text)
            self._files[file] = {m[1]: frozenset(re.findall(r'"([^"\\]*)"', m[2])) for m in found}
        return self._files[file].get(own, frozenset())


def _stored(
    path: str, module: Instance, first: str | None, listed: frozenset[str], names: dict[int, str]
) -> StoredModule:
    held = module.attributes.named()
    tensors = [(name, value) for name, value in held.items() if isinstance(value, Tensor)]
    keyed = [(names.setdefault(id(tensor), joined(path, name)), name, tensor) for name, tensor in tensors]
    return StoredModule(
        path,
        class_name(module.kind),
        tuple(plain_settings(held)),
        tuple(Parameter(key, t.shape, t.trainable, t.dtype) for key, name, t in keyed if name in listed),
        tuple(Buffer(key, t.shape, t.dtype) for key, name, t in keyed if name not in listed),
        first,
    )


def script_tensors(root: object, modules: Sequence[StoredModule]) -> Iterator[StoredTensor]:
    """The tensors of the modules, as in their state dict."""
    buffers = {buffer.name for module in modules for buffer in module.buffers}
    waiting = [("", root)]
    count = 0
    while waiting:
        path, module = waiting.pop()
        assert isinstance(module, Instance)
        held = module.attributes.named()
        for name, value in held.items():
            if isinstance(value, Tensor):
                count += 1
                key = joined(path, name)
                if count > LARGEST_COUNT:
                    raise CheckpointError(f"it holds more than {LARGEST_COUNT} tensors")
                yield StoredTensor(key, value.shape, value.dtype, value.place, is_buffer=key in buffers)
        parts = [(joined(path, name), value) for name, value in held.items() if isinstance(value, Instance)]
        waiting += reversed(parts)
