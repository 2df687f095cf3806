"""Find where a model's own code reads `module.training`, so that its training step may be another than its forward."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from dis import get_instructions
from functools import cache
from itertools import pairwise, takewhile
from threading import get_ident
from types import CodeType, FrameType
from typing import TYPE_CHECKING

from vggscope.trace.modules import module_op

if TYPE_CHECKING:
    from torch import nn

NOT_THE_MODEL = ("torch", "vggscope")
"""Packages whose reads of `module.training` are known: those of torch's layers, and our own."""


_WITH_LAYERS = ("torchvision", "timm")
"""Packages that have layers with an op of their own, which tells what they do in training."""


_AS_TORCH = frozenset(
    {
        ("timm.layers.norm_act", "BatchNormAct2d.forward"),
        ("torchvision.models.swin_transformer", "ShiftedWindowAttention.forward"),
        ("torchvision.models.swin_transformer", "ShiftedWindowAttentionV2.forward"),
    }
)
"""Code of layers without an op of their own that does in training what torch's own layers do. The norm takes the
statistics of the batch, which the op of its call tells, and counts the batches in place. The attention hands the mode
to torch's dropout alone.
"""


def has_own_norms(module: nn.Module) -> bool:
    """Return whether a batch norm of the module has a forward of its own, which may do in training what no op tells."""
    from torch.nn.modules.batchnorm import _BatchNorm

    forwards = {type(part).forward for part in module.modules() if isinstance(part, _BatchNorm)}
    named = ((getattr(forward, "__module__", ""), forward.__qualname__) for forward in forwards)
    return any(not place.startswith("torch.") and (place, name) not in _AS_TORCH for place, name in named)


@dataclass
class TrainingReads:
    """How a model's own code reads `module.training` in a run.

    `branches`: a condition depends on it. `passes_on`: it becomes an argument or a variable. `sets`: the code sets a
    mode.
    """

    branches: bool = False
    passes_on: bool = False
    sets: bool = False

    @property
    def any(self) -> bool:
        """Whether the code reads or sets a mode."""
        return self.branches or self.passes_on or self.sets

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Note the reads within the block, in whatever class, function or hook they are.

        A property of nn.Module hides the attribute of each module and reads and writes it.
        """
        from torch import nn

        reads, thread = self, get_ident()

        def read(module: nn.Module) -> object:
            frame = sys._getframe(1)
            library = frame.f_globals.get("__name__", "").partition(".")[0]
            is_known = (
                get_ident() != thread
                or library in NOT_THE_MODEL
                or (library in _WITH_LAYERS and _is_known(module, frame))
            )
            if not is_known and not _makes_no_difference(module, frame):
                reads._add(frame.f_code, frame.f_lasti)
            own = vars(module)
            return own["training"] if "training" in own else type(module).__getattr__(module, "training")

        def write(module: nn.Module, value: object) -> None:
            reads.sets |= get_ident() == thread and _is_by_model(sys._getframe(1))
            vars(module)["training"] = value

        before = vars(nn.Module).get("training")
        nn.Module.training = property(read, write)  # type: ignore[assignment]
        try:
            yield
        finally:
            if before is None:
                del nn.Module.training
            else:
                nn.Module.training = before

    def _add(self, code: CodeType, offset: int) -> None:
        if _is_condition(code, offset):
            self.branches = True
        else:
            self.passes_on = True


def _is_known(module: nn.Module, frame: FrameType) -> bool:
    """Return whether code of a library is known to do nothing in training that the ops of a trace do not tell.

    That is a layer which is one node by its class, such as StochasticDepth, or one of _AS_TORCH.
    """
    code = frame.f_code
    forward = getattr(type(module), "forward", None)
    if forward is not None and (frame.f_globals.get("__name__"), forward.__qualname__) in _AS_TORCH:
        return getattr(forward, "__code__", None) is code
    return getattr(forward, "__code__", None) is code and module_op(module) is not None


def _makes_no_difference(module: nn.Module, frame: FrameType) -> bool:
    """Return whether the value is the condition of an expression with equal values.

    It is in `self.attn_drop.p if self.training else 0.0` for a dropout of 0.
    """
    choice = _choice(frame.f_code, frame.f_lasti)
    if choice is None:
        return False
    attributes, other = choice
    value: object = module
    for attribute in attributes:
        value = getattr(value, attribute, None)
    return type(value) in (int, float) and value == other


_LOADS = ("LOAD_FAST", "LOAD_FAST_BORROW")
"""Instructions that load a local variable."""

_SKIPPED = ("TO_BOOL", "CACHE", "NOT_TAKEN", "EXTENDED_ARG")
"""Instructions that choose nothing."""


@cache
def _choice(code: CodeType, offset: int) -> tuple[tuple[str, ...], object] | None:
    """Return the two values of a conditional expression whose condition is the instruction at an offset.

    They are an attribute of the same variable as the condition, by the names of attributes, and a constant. None for
    any other code. The variable is not looked up: f_locals would keep the tensors of the frame alive.
    """
    instructions = [i for i in get_instructions(code) if i.opname not in _SKIPPED]
    place = next(place for place, i in enumerate(instructions) if i.offset == offset)
    if place == 0 or len(instructions) < place + len(("read", "jump", "variable", "attribute", "jump", "constant")):
        return None
    source, (jump, variable, *rest) = instructions[place - 1], instructions[place + 1 :]
    if not (jump.opname.startswith("POP_JUMP") and jump.opname.endswith("IF_FALSE")):
        return None
    if not (source.opname == variable.opname in _LOADS and source.argval == variable.argval):
        return None
    attributes = tuple(takewhile(lambda i: i.opname == "LOAD_ATTR", rest))
    leave, constant = rest[len(attributes) :][:2]
    is_choice = leave.opname == "JUMP_FORWARD" and constant.opname == "LOAD_CONST" and constant.offset == jump.argval
    return (tuple(i.argval for i in attributes), constant.argval) if is_choice and attributes else None


def _is_by_model(frame: FrameType | None) -> bool:
    """Return whether the model's code runs in a frame, or calls torch's code that runs in it, such as `eval`."""
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "torch":
        frame = frame.f_back
    return frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] != "vggscope"


@cache
def _is_condition(code: CodeType, offset: int) -> bool:
    """Return whether the value of the instruction at an offset is the condition of a jump."""
    # A jump over a long block has its distance in an EXTENDED_ARG before it.
    instructions = (i for i in get_instructions(code) if i.opname != "EXTENDED_ARG")
    return any(
        read.offset == offset and ("JUMP" in then.opname or then.opname in ("TO_BOOL", "UNARY_NOT"))
        for read, then in pairwise(instructions)
    )
