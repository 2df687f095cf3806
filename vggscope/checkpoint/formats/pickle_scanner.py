"""Interprets a pickle's opcodes without importing, calling or building anything.

It knows only the opcodes that torch.save writes (pickle protocols 2 to 5) and only the globals of `pickle_objects`. In
the pickle of a whole module other names stand for classes, whose objects are a name and attributes. The
caller bounds the pickle's bytes; this file bounds its opcodes and containers. Values from the file are not hashed
(except short texts), compared, printed or walked recursively, so deep and circular structures do no harm.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from vggscope.checkpoint.formats.pickle_objects import (
    GUARDED,
    Dictionary,
    Global,
    Instance,
    Opaque,
    call,
    guarded_argument,
    is_class_name,
    known_global,
    own_class,
    storage,
)
from vggscope.errors import CheckpointError, printable
from vggscope.units import ELEMENT_BYTES

LARGEST_PICKLE = 16 * 2**20
"""Bytes of about 150,000 tensors, more than LARGEST_OPCODES allows."""

LARGEST_OPCODES = 2_000_000
LARGEST_CONTAINERS = 600_000
"""Limits that fit 50,000 tensors: a tensor takes about 38 opcodes and 9 tuples and objects."""

_MAX_LONG = 64
"""Bytes of the largest integer that is read; Python's integers have no limit."""

_MAX_NAME = 256
"""Characters of the longest module and class name."""

_TOO_MUCH = ("its pickle holds more than any checkpoint", "it is damaged or malicious")

_MARK = object()
"""What the MARK opcode pushes."""


class PickleScanner:
    """Scans the pickles that follow one another in `data`.

    `guarded` collects the classes that torch.load rejects unless they are allowed. `storages` collects the size in
    bytes of each storage, by its key. `classes` collects the names of a whole module's pickle that no state dict has.
    `is_script` allows the names that TorchScript's archives have.
    `persistent` returns the object of a persistent id in place of a storage's.
    """

    def __init__(
        self, data: bytes, persistent: Callable[[object], object] | None = None, *, is_script: bool = False
    ) -> None:
        self._data = data
        self._is_script = is_script
        self._other_persistent = persistent
        self.position = 0
        self.guarded: set[str] = set()
        self.storages: dict[str, int] = {}
        self.classes: set[str] = set()
        self._holds_modules = all(name in data for name in _MODULE_ATTRIBUTES)
        self._stack: list[object] = []
        self._memo: dict[int, object] = {}
        self._containers = 0

    def load(self) -> object:
        """Scan the next pickle and return the value that it describes.

        Raises CheckpointError where it is damaged, exceeds a limit, or has a global or an opcode that no state dict
        has; EOFError where the data ends within it.
        """
        self._stack, self._memo = [], {}
        try:
            self._run()
            return self._pop()
        except (IndexError, KeyError, UnicodeDecodeError, struct.error):
            raise CheckpointError(f"its pickle is damaged at byte {self.position}") from None

    def _run(self) -> None:
        """Interpret the opcodes up to STOP."""
        data, size = self._data, len(self._data)
        for _ in range(LARGEST_OPCODES):
            if self.position >= size:
                raise EOFError
            opcode = data[self.position]
            self.position += 1
            if opcode == _STOP:
                return
            step = _STEPS.get(opcode)
            if step is None:
                raise CheckpointError(f"its pickle has an opcode, 0x{opcode:02x}, that torch.save does not write")
            step(self)
        raise CheckpointError(*_TOO_MUCH)

    def _take(self, count: int) -> bytes:
        end = self.position + count
        if end > len(self._data):
            raise EOFError
        data = self._data[self.position : end]
        self.position = end
        return data

    def _number(self, size: int = 1) -> int:
        return int.from_bytes(self._take(size), "little")

    def _pop(self) -> object:
        value = self._stack.pop()
        if value is _MARK:
            raise IndexError
        return value

    def _pop_to_mark(self) -> list[object]:
        """Pop the values above the last MARK, and the MARK."""
        stack = self._stack
        place = len(stack) - 1
        while stack[place] is not _MARK:
            place -= 1
            if place < 0:
                raise IndexError
        values = stack[place + 1 :]
        del stack[place:]
        return values

    def _push(self, value: object) -> None:
        self._stack.append(value)

    def _push_container(self, value: object) -> None:
        self._count_containers(1)
        self._push(value)

    def _count_containers(self, count: int) -> None:
        self._containers += count
        if self._containers > LARGEST_CONTAINERS:
            raise CheckpointError(*_TOO_MUCH)

    def _long(self, size: int) -> None:
        if size > _MAX_LONG:
            raise CheckpointError(f"its pickle has an integer of {size} bytes")
        self._push(int.from_bytes(self._take(size), "little", signed=True))

    def _text(self, size: int, encoding: str = "utf-8") -> None:
        self._push(self._take(size).decode(encoding))

    def _line(self) -> str:
        end = self._data.find(b"\n", self.position, self.position + _MAX_NAME)
        if end < 0:
            raise CheckpointError(f"its pickle is damaged at byte {self.position}")
        line = self._data[self.position : end].decode()
        self.position = end + 1
        return line

    def _global(self, module: object, name: object) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise IndexError
        is_short = len(module) + len(name) < _MAX_NAME
        known = known_global(f"{module}.{name}") if is_short else None
        if known is None and is_short and self._holds_modules:
            known = own_class(f"{module}.{name}")
            self.classes.update(() if known is None else (known.name,))
        if known is None and is_short and self._is_script and module.startswith(SCRIPT_MODULES):
            known = Global(f"{module}.{name}")
            self.classes.add(known.name)
        if known is None:
            raise _refusal(f"{module}.{name}")
        if known.name in GUARDED:
            self.guarded.add(known.name)
        self._push(known)

    def _stack_global(self) -> None:
        name = self._pop()
        self._global(self._pop(), name)

    def _reduce(self) -> None:
        arguments = self._pop()
        function = self._pop()
        if not isinstance(function, Global) or not isinstance(arguments, tuple):
            raise CheckpointError("its pickle calls an object that is not a function")
        # A pickle may pass one list many times, and each call walks through it.
        self._count_containers(sum(len(argument) for argument in arguments if isinstance(argument, list)))
        guarded = guarded_argument(function, arguments)
        if guarded is not None:
            self.guarded.add(guarded)
        if function.name in self.classes and function.name.startswith(_TYPED_LISTS) and arguments:
            self._push(arguments[0])
            return
        if function.name in self.classes:
            if function.name != "functools.partial" and not is_class_name(function.name):
                raise _refusal(function.name)
            self._push_container(Opaque(function.name))
            return
        self._push_container(call(function, arguments))

    def _new(self) -> None:
        self._pop()
        cls = self._pop()
        if not isinstance(cls, Global):
            raise CheckpointError("its pickle instantiates an object that is not a class")
        self._push_container(Instance(cls.name, Dictionary([])) if cls.name in self.classes else call(cls, ()))

    def _build(self) -> None:
        """Set the attributes of an instance; drop the state of any other object, such as an OrderedDict's."""
        state = self._pop()
        target = self._stack[-1]
        if isinstance(target, Instance):
            target.attributes = state if isinstance(state, Dictionary) else target.attributes
        elif not isinstance(target, (Dictionary, Opaque)):
            raise CheckpointError("its pickle sets the state of an object that has none")

    def _persistent(self) -> None:
        identifier = self._pop()
        # Before version 1.6, torch wrote the class of a module with the source of its code.
        if self._holds_modules and isinstance(identifier, tuple) and identifier[:1] == ("module",):
            if len(identifier) != 4 or not isinstance(identifier[1], Global):
                raise IndexError
            self._push(identifier[1])
            return
        if self._other_persistent is not None:
            self._push(self._other_persistent(identifier))
            return
        held = storage(identifier)
        self._push_container(held)
        self.storages[held.key] = max(self.storages.get(held.key, 0), held.count * ELEMENT_BYTES[held.dtype])

    def _remember(self, place: int) -> None:
        self._memo[place] = self._stack[-1]

    def _tuple(self, count: int) -> None:
        self._push_container(tuple(self._pop() for _ in range(count))[::-1])

    def _append(self, values: list[object]) -> None:
        target = self._stack[-1]
        if isinstance(target, list):
            target.extend(values)
        elif not isinstance(target, (Opaque, Instance)):
            raise IndexError

    def _set(self, values: list[object]) -> None:
        target = self._stack[-1]
        if not isinstance(target, Dictionary | Opaque | Instance) or len(values) % 2:
            raise IndexError
        if isinstance(target, Dictionary):
            target.entries.extend(zip(values[::2], values[1::2]))

    def _set_item(self) -> None:
        value = self._pop()
        self._set([self._pop(), value])

    def _add(self) -> None:
        self._pop_to_mark()
        if not isinstance(self._stack[-1], (Opaque, Instance)):
            raise IndexError

    def _frozen_set(self) -> None:
        self._pop_to_mark()
        self._push_container(Opaque("frozenset"))


def _refusal(name: str) -> CheckpointError:
    return CheckpointError(
        f"its pickle asks for {printable(name)}, which has no place in a state dict; nothing was run",
        "if you trust who made it, load it with weights_only=False and torch.save its state dict alone",
    )


_STOP = ord(".")

SCRIPT_MODULES = ("__torch__", "torch.jit._pickle")
"""The beginnings of modules that TorchScript's archives name: those of classes in the archive, and one of torch's."""

_TYPED_LISTS = "torch.jit._pickle."
"""The functions of this module return a list, their first argument, as one of a given type."""

_MODULE_ATTRIBUTES = (b"_parameters", b"_buffers", b"_modules")
"""Names of attributes that each torch.nn.Module has, and so its pickle."""

_STEPS: dict[int, Callable[[PickleScanner], object]] = {
    0x80: lambda scanner: scanner._take(1),  # PROTO
    0x95: lambda scanner: scanner._take(8),  # FRAME
    ord("("): lambda scanner: scanner._push(_MARK),  # MARK
    ord("0"): lambda scanner: scanner._stack.pop(),  # POP
    ord("1"): PickleScanner._pop_to_mark,  # POP_MARK
    ord("2"): lambda scanner: scanner._push(scanner._stack[-1]),  # DUP
    ord("N"): lambda scanner: scanner._push(None),  # NONE
    0x88: lambda scanner: scanner._push(True),  # NEWTRUE
    0x89: lambda scanner: scanner._push(False),  # NEWFALSE
    ord("J"): lambda scanner: scanner._push(int.from_bytes(scanner._take(4), "little", signed=True)),  # BININT
    ord("K"): lambda scanner: scanner._push(scanner._number()),  # BININT1
    ord("M"): lambda scanner: scanner._push(scanner._number(2)),  # BININT2
    0x8A: lambda scanner: scanner._long(scanner._number()),  # LONG1
    0x8B: lambda scanner: scanner._long(scanner._number(4)),  # LONG4
    ord("G"): lambda scanner: scanner._push(struct.unpack(">d", scanner._take(8))[0]),  # BINFLOAT
    ord("X"): lambda scanner: scanner._text(scanner._number(4)),  # BINUNICODE
    0x8C: lambda scanner: scanner._text(scanner._number()),  # SHORT_BINUNICODE
    0x8D: lambda scanner: scanner._text(scanner._number(8)),  # BINUNICODE8
    ord("U"): lambda scanner: scanner._text(scanner._number(), "latin-1"),  # SHORT_BINSTRING
    ord("T"): lambda scanner: scanner._text(scanner._number(4), "latin-1"),  # BINSTRING
    ord("C"): lambda scanner: scanner._push(scanner._take(scanner._number())),  # SHORT_BINBYTES
    ord("B"): lambda scanner: scanner._push(scanner._take(scanner._number(4))),  # BINBYTES
    0x8E: lambda scanner: scanner._push(scanner._take(scanner._number(8))),  # BINBYTES8
    0x96: lambda scanner: scanner._push(scanner._take(scanner._number(8))),  # BYTEARRAY8
    ord(")"): lambda scanner: scanner._push(()),  # EMPTY_TUPLE
    ord("t"): lambda scanner: scanner._push_container(tuple(scanner._pop_to_mark())),  # TUPLE
    0x85: lambda scanner: scanner._tuple(1),  # TUPLE1
    0x86: lambda scanner: scanner._tuple(2),  # TUPLE2
    0x87: lambda scanner: scanner._tuple(3),  # TUPLE3
    ord("]"): lambda scanner: scanner._push_container([]),  # EMPTY_LIST
    ord("a"): lambda scanner: scanner._append([scanner._pop()]),  # APPEND
    ord("e"): lambda scanner: scanner._append(scanner._pop_to_mark()),  # APPENDS
    ord("}"): lambda scanner: scanner._push_container(Dictionary([])),  # EMPTY_DICT
    ord("s"): PickleScanner._set_item,  # SETITEM
    ord("u"): lambda scanner: scanner._set(scanner._pop_to_mark()),  # SETITEMS
    0x8F: lambda scanner: scanner._push_container(Opaque("set")),  # EMPTY_SET
    0x90: PickleScanner._add,  # ADDITEMS
    0x91: PickleScanner._frozen_set,  # FROZENSET
    ord("q"): lambda scanner: scanner._remember(scanner._number()),  # BINPUT
    ord("r"): lambda scanner: scanner._remember(scanner._number(4)),  # LONG_BINPUT
    0x94: lambda scanner: scanner._remember(len(scanner._memo)),  # MEMOIZE
    ord("h"): lambda scanner: scanner._push(scanner._memo[scanner._number()]),  # BINGET
    ord("j"): lambda scanner: scanner._push(scanner._memo[scanner._number(4)]),  # LONG_BINGET
    ord("c"): lambda scanner: scanner._global(scanner._line(), scanner._line()),  # GLOBAL
    0x93: PickleScanner._stack_global,  # STACK_GLOBAL
    ord("R"): PickleScanner._reduce,  # REDUCE
    0x81: PickleScanner._new,  # NEWOBJ
    ord("b"): PickleScanner._build,  # BUILD
    ord("Q"): PickleScanner._persistent,  # BINPERSID
}
"""The effect of each opcode; the comments have the opcodes' names in pickletools."""
