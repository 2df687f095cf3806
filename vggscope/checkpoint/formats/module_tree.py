"""The module tree and the state dict of a torch.nn.Module that was saved whole, from the attributes in its pickle."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from vggscope.checkpoint.contents import StoredModule
from vggscope.checkpoint.formats.pickle_objects import LARGEST_COUNT, Dictionary, Instance, Opaque, Tensor
from vggscope.errors import CheckpointError
from vggscope.graph import Buffer, Parameter

_MOST_MODULES = 20_000
"""Modules of one tree; the largest models have some thousand."""

_DEEPEST = 100
"""Modules in one another."""

_MOST_ENTRIES = 2_000_000
"""Attributes, tensors and parts of all modules together, those of a shared module each time that it appears."""

_LONGEST_PATH = 1000
"""Characters of a path."""

_MOST_SETTINGS, _LONGEST_SETTING = 40, 16
"""Attributes of a module that are kept, and the items of one that is a tuple."""

_LONGEST_TEXT = 100
"""Characters of an attribute that is a text."""

_OWN = frozenset({"_parameters", "_buffers", "_modules", "_non_persistent_buffers_set"})

_NEW_FORWARD = {
    "forward": "its own forward",
    "_forward_hooks": "forward hooks",
    "_forward_pre_hooks": "forward hooks",
}
"""Attributes of an instance by which its forward is not its class's."""


@dataclass
class ModuleTree:
    """What is found in a module: the modules, each before its parts, and the entries of its state dict."""

    modules: list[StoredModule] = field(default_factory=list)
    state: Dictionary = field(default_factory=lambda: Dictionary([]))


def is_module(value: object) -> bool:
    """Whether a value is an instance with the attributes of a torch.nn.Module."""
    return isinstance(value, Instance) and {"_parameters", "_modules"} <= value.attributes.named().keys()


def tree_of(root: Instance) -> ModuleTree:
    """The tree below a module.

    Raises CheckpointError for more modules or tensors than any model has, and for a module that is a part of itself.
    """
    tree = ModuleTree()
    names: dict[int, str] = {}
    paths: dict[int, str] = {}
    waiting: list[tuple[str, int, Instance]] = [("", 0, root)]
    entries = 0
    while waiting:
        path, depth, module = waiting.pop()
        entries += _size(module)
        is_large = max(len(tree.modules), len(waiting)) >= _MOST_MODULES or len(tree.state.entries) > LARGEST_COUNT
        if depth > _DEEPEST or is_large or entries > _MOST_ENTRIES:
            raise CheckpointError("its modules are more, or deeper in one another, than those of any model")
        first = paths.setdefault(id(module), path)
        tree.modules.append(_stored(path, module, first if first != path else None, names, tree.state))
        children = [(name, child) for name, child in _entries(module, "_modules") if isinstance(child, Instance)]
        waiting += [(joined(path, name), depth + 1, child) for name, child in reversed(children)]
    return tree


def _stored(path: str, module: Instance, first: str | None, names: dict[int, str], state: Dictionary) -> StoredModule:
    """The module, whose tensors are added to the state dict. `names` has the first name of each tensor."""
    attributes = module.attributes.named()
    unsaved = attributes.get("_non_persistent_buffers_set")
    left_out = unsaved.texts if isinstance(unsaved, Opaque) else frozenset()
    parameters = list(_tensors(path, module, "_parameters"))
    buffers = list(_tensors(path, module, "_buffers"))
    saved = [entry for entry in buffers if entry[0].rpartition(".")[2] not in left_out]
    state.entries += [*parameters, *saved]
    named = [(names.setdefault(id(tensor), name), tensor) for name, tensor in (*parameters, *buffers)]
    learned, further = named[: len(parameters)], named[len(parameters) :]
    changes = (what for name, what in _NEW_FORWARD.items() if _is_set(attributes.get(name)))
    return StoredModule(
        path,
        module.kind,
        tuple(plain_settings(attributes)),
        tuple(Parameter(name, tensor.shape, tensor.trainable, tensor.dtype) for name, tensor in learned),
        tuple(Buffer(name, tensor.shape, tensor.dtype) for name, tensor in further),
        first,
        next(changes, ""),
    )


def _size(module: Instance) -> int:
    held = map(module.attributes.named().get, ("_parameters", "_buffers", "_modules"))
    return len(module.attributes.entries) + sum(len(part.entries) for part in held if isinstance(part, Dictionary))


def _is_set(value: object) -> bool:
    return bool(value.entries) if isinstance(value, Dictionary) else value is not None


def _entries(module: Instance, kind: str) -> Iterator[tuple[str, object]]:
    """The named parameters, buffers or parts of a module."""
    held = module.attributes.named().get(kind)
    return iter(held.named().items()) if isinstance(held, Dictionary) else iter(())


def _tensors(path: str, module: Instance, kind: str) -> Iterator[tuple[str, Tensor]]:
    for name, value in _entries(module, kind):
        if isinstance(value, Tensor):
            yield joined(path, name), value


def joined(path: str, name: str) -> str:
    """The path of a part. Raises CheckpointError where it is longer than any."""
    if len(path) + len(name) > _LONGEST_PATH:
        raise CheckpointError(f"it has a module whose path has more than {_LONGEST_PATH} characters")
    return f"{path}.{name}" if path else name


def plain_settings(attributes: dict[str, object]) -> Iterator[tuple[str, object]]:
    """The attributes that are plain values. A bias that a layer has not is one too."""
    kept = 0
    for name, value in attributes.items():
        if kept < _MOST_SETTINGS and name not in _OWN and len(name) <= _LONGEST_TEXT and not name.startswith("_"):
            plain = tuple(value[:_LONGEST_SETTING]) if isinstance(value, (list, tuple)) else value
            items = plain if isinstance(plain, tuple) else (plain,)
            if all(map(_is_plain, items)):
                kept += 1
                yield name, plain


def _is_plain(value: object) -> bool:
    if isinstance(value, str):
        return len(value) <= _LONGEST_TEXT
    is_number = value is None or isinstance(value, (bool, float))
    return is_number or (isinstance(value, int) and abs(value) < 2**63)
