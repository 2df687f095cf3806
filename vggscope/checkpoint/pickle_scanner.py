"""A pickle read without unpickling: its opcodes are followed, but nothing is imported, called or built.

Only the opcodes that torch.save writes are known (pickle protocols 2 to 5), only the names of `records` are let
through, and what the pickle may cost is bounded: in bytes by its reader, in opcodes and containers here. Nothing that
comes from the file is hashed but short texts, compared, printed or followed recursively, so that neither a deep nor a
circular structure does harm.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from vggscope.checkpoint.records import (
    BYTES,
    GUARDED,
    Dictionary,
    Global,
    Opaque,
    call,
    known,
    storage,
    trusted_with,
)
from vggscope.errors import CheckpointError, printable

LARGEST_PICKLE = 16 * 2**20
"""Bytes: some 150,000 tensors, more than the opcodes below allow for."""

LARGEST_OPCODES = 2_000_000
LARGEST_CONTAINERS = 600_000
"""What a state dict of 50,000 tensors needs: a tensor takes some 38 opcodes and 9 tuples and records."""

_MAX_LONG = 64
"""Bytes of the largest integer that is taken: Python's own have no end."""

_MAX_NAME = 256
"""Characters of the longest name that is taken for a global's."""

_TOO_MUCH = ("its pickle holds more than any checkpoint", "it is damaged, or made to harm")

_MARKED = object()
"""Stands on the stack where MARK was."""


class PickleScanner:
    """AxisMaps the pickles that stand one after the other in `data`.

    `guarded` gathers the names that torch.load would not take without being asked to; `storages` what the tensors'
    data is kept in.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.position = 0
        self.guarded: set[str] = set()
        self.storages: dict[str, int] = {}
        self._stack: list[object] = []
        self._memo: dict[int, object] = {}
        self._containers = 0

    def load(self) -> object:
        """The next pickle's value.

        Raises CheckpointError where it asks for a name or an opcode that no state dict has, is damaged, or costs too
        much; EOFError where the data ends within it.
        """
        self._stack, self._memo = [], {}
        try:
            self._run()
            return self._pop()
        except (IndexError, KeyError, UnicodeDecodeError, struct.error):
            raise CheckpointError(f"its pickle is damaged at byte {self.position}") from None

    def _run(self) -> None:
        """Follow the opcodes up to STOP."""
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
        found = self._data[self.position : end]
        self.position = end
        return found

    def _byte(self) -> int:
        return self._take(1)[0]

    def _number(self, size: int) -> int:
        return int.from_bytes(self._take(size), "little")

    def _pop(self) -> object:
        value = self._stack.pop()
        if value is _MARKED:
            raise IndexError
        return value

    def _since_mark(self) -> list[object]:
        """What was pushed since the last mark."""
        stack = self._stack
        place = len(stack) - 1
        while stack[place] is not _MARKED:
            place -= 1
            if place < 0:
                raise IndexError
        found = stack[place + 1 :]
        del stack[place:]
        return found

    def _push(self, value: object) -> None:
        self._stack.append(value)

    def _contain(self, value: object) -> None:
        self._spend(1)
        self._stack.append(value)

    def _spend(self, count: int) -> None:
        self._containers += count
        if self._containers > LARGEST_CONTAINERS:
            raise CheckpointError(*_TOO_MUCH)

    def _long(self, size: int) -> None:
        if size > _MAX_LONG:
            raise CheckpointError(f"its pickle has an integer of {size} bytes")
        self._push(int.from_bytes(self._take(size), "little", signed=True))

    def _text(self, size: int) -> None:
        self._push(self._take(size).decode())

    def _old_text(self, size: int) -> None:
        self._push(self._take(size).decode("latin-1"))

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
        found = known(f"{module}.{name}") if len(module) + len(name) < _MAX_NAME else None
        if found is None:
            raise self._refusal(f"{module}.{name}")
        if found.name in GUARDED:
            self.guarded.add(found.name)
        self._push(found)

    def _refusal(self, name: str) -> CheckpointError:
        shown = printable(name)
        if b"torch.nn.modules" in self._data and name.partition(".")[0] not in ("os", "posix", "nt", "builtins"):
            return CheckpointError(
                f"it holds a whole pickled module ({shown}), which only its own code can read; nothing was run",
                "if you trust who made it, load it in Python and torch.save(model.state_dict(), 'weights.pth')",
            )
        return CheckpointError(
            f"its pickle asks for {shown}, which has no place in a state dict; nothing was run",
            "if you trust who made it, load it with weights_only=False and torch.save its state dict alone",
        )

    def _stack_global(self) -> None:
        name = self._pop()
        self._global(self._pop(), name)

    def _reduce(self) -> None:
        arguments = self._pop()
        function = self._pop()
        if not isinstance(function, Global) or not isinstance(arguments, tuple):
            raise CheckpointError("its pickle calls what is not a function")
        # A list may be passed over and over again: each time it is walked through counts.
        self._spend(sum(len(argument) for argument in arguments if isinstance(argument, list)))
        trusted = trusted_with(function, arguments)
        if trusted is not None:
            self.guarded.add(trusted)
        self._contain(call(function, arguments))

    def _new(self) -> None:
        self._pop()
        made = self._pop()
        if not isinstance(made, Global):
            raise CheckpointError("its pickle builds what is not a class")
        self._contain(call(made, ()))

    def _build(self) -> None:
        """The state of an object: an OrderedDict's attributes, a namespace's. We want none."""
        self._pop()
        if not isinstance(self._stack[-1], (Dictionary, Opaque)):
            raise CheckpointError("its pickle gives a state to what has none")

    def _persistent(self) -> None:
        found = storage(self._pop())
        self._contain(found)
        self.storages[found.key] = max(self.storages.get(found.key, 0), found.count * BYTES[found.dtype])

    def _remember(self, place: int) -> None:
        self._memo[place] = self._stack[-1]

    def _tuple(self, count: int) -> None:
        found = tuple(self._pop() for _ in range(count))[::-1]
        self._contain(found)

    def _append(self, values: list[object]) -> None:
        target = self._stack[-1]
        if isinstance(target, list):
            target.extend(values)
        elif not isinstance(target, Opaque):
            raise IndexError

    def _set(self, values: list[object]) -> None:
        target = self._stack[-1]
        if not isinstance(target, Dictionary | Opaque) or len(values) % 2:
            raise IndexError
        if isinstance(target, Dictionary):
            target.entries.extend(zip(values[::2], values[1::2]))

    def _set_item(self) -> None:
        value = self._pop()
        self._set([self._pop(), value])

    def _add(self) -> None:
        self._since_mark()
        if not isinstance(self._stack[-1], Opaque):
            raise IndexError

    def _frozen_set(self) -> None:
        self._since_mark()
        self._contain(Opaque("frozenset"))


_STOP = ord(".")

_STEPS: dict[int, Callable[[PickleScanner], object]] = {
    0x80: lambda m: m._take(1),  # PROTO
    0x95: lambda m: m._take(8),  # FRAME
    ord("("): lambda m: m._push(_MARKED),
    ord("0"): lambda m: m._stack.pop(),
    ord("1"): PickleScanner._since_mark,
    ord("2"): lambda m: m._push(m._stack[-1]),
    ord("N"): lambda m: m._push(None),
    0x88: lambda m: m._push(True),
    0x89: lambda m: m._push(False),
    ord("J"): lambda m: m._push(int.from_bytes(m._take(4), "little", signed=True)),
    ord("K"): lambda m: m._push(m._byte()),
    ord("M"): lambda m: m._push(m._number(2)),
    0x8A: lambda m: m._long(m._byte()),
    0x8B: lambda m: m._long(m._number(4)),
    ord("G"): lambda m: m._push(struct.unpack(">d", m._take(8))[0]),
    ord("X"): lambda m: m._text(m._number(4)),
    0x8C: lambda m: m._text(m._byte()),
    0x8D: lambda m: m._text(m._number(8)),
    ord("U"): lambda m: m._old_text(m._byte()),
    ord("T"): lambda m: m._old_text(m._number(4)),
    ord("C"): lambda m: m._push(m._take(m._byte())),
    ord("B"): lambda m: m._push(m._take(m._number(4))),
    0x8E: lambda m: m._push(m._take(m._number(8))),
    0x96: lambda m: m._push(m._take(m._number(8))),
    ord(")"): lambda m: m._push(()),
    ord("t"): lambda m: m._contain(tuple(m._since_mark())),
    0x85: lambda m: m._tuple(1),
    0x86: lambda m: m._tuple(2),
    0x87: lambda m: m._tuple(3),
    ord("]"): lambda m: m._contain([]),
    ord("a"): lambda m: m._append([m._pop()]),
    ord("e"): lambda m: m._append(m._since_mark()),
    ord("}"): lambda m: m._contain(Dictionary([])),
    ord("s"): PickleScanner._set_item,
    ord("u"): lambda m: m._set(m._since_mark()),
    0x8F: lambda m: m._contain(Opaque("set")),
    0x90: PickleScanner._add,
    0x91: PickleScanner._frozen_set,
    ord("q"): lambda m: m._remember(m._byte()),
    ord("r"): lambda m: m._remember(m._number(4)),
    0x94: lambda m: m._remember(len(m._memo)),
    ord("h"): lambda m: m._push(m._memo[m._byte()]),
    ord("j"): lambda m: m._push(m._memo[m._number(4)]),
    ord("c"): lambda m: m._global(m._line(), m._line()),
    0x93: PickleScanner._stack_global,
    ord("R"): PickleScanner._reduce,
    0x81: PickleScanner._new,
    ord("b"): PickleScanner._build,
    ord("Q"): PickleScanner._persistent,
}
"""What each opcode does; the names are those of the standard library's pickletools."""
