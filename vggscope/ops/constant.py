"""An op with constant inputs: parameters, buffers or numbers that are the same for every batch."""

from __future__ import annotations

from dataclasses import replace
from operator import attrgetter

from vggscope.ops.axis_maps import AxisMaps
from vggscope.ops.base import KernelCall, Op, SavedTensors, Shape, Window
from vggscope.record import record


@record
class WithConstants(Op):
    """`op` with the shapes of its constant inputs filled in.

    `constants` has one entry for each input of `op`, which is None for an activation. `fixed` are the positions of the
    constants that depend on no parameter.
    """

    op: Op
    constants: tuple[Shape | None, ...]
    fixed: tuple[int, ...] = ()

    @property
    def without_constants(self) -> Op:
        return self.op

    def all_inputs(self, inputs: tuple[Shape, ...]) -> tuple[Shape, ...]:
        """The shapes of all inputs of `op`, constants included."""
        rest = iter(inputs)
        return tuple(next(rest) if constant is None else constant for constant in self.constants)

    def output_shape(self, *inputs: Shape) -> Shape:
        return self.op.output_shape(*self.all_inputs(inputs))

    def parameters(self) -> dict[str, Shape]:
        return self.op.parameters()

    def buffers(self) -> dict[str, Shape]:
        return self.op.buffers()

    def macs(self, inputs: tuple[Shape, ...], output: Shape) -> int | None:
        return self.op.macs(self.all_inputs(inputs), output)

    def other_operations(self, inputs: tuple[Shape, ...], output: Shape) -> int | None:
        return self.op.other_operations(self.all_inputs(inputs), output)

    def whole_input(self, inputs: tuple[Shape, ...], output: Shape) -> int:
        return self.op.whole_input(self.all_inputs(inputs), output)

    def is_identity(self, size: tuple[int, ...]) -> bool:
        return self.op.is_identity(size)

    def is_regular(self, size: tuple[int, ...]) -> bool:
        return self.op.is_regular(size)

    def backward_macs(
        self, inputs: tuple[Shape, ...], output: Shape, needed: tuple[bool, ...], trained: bool
    ) -> int | None:
        return self.op.backward_macs(self.all_inputs(inputs), output, needed, trained)

    def window(self, size: tuple[int, ...]) -> Window | None:
        return self.op.window(size)

    def saved_for_backward(self, inputs: tuple[Shape, ...], output: Shape) -> SavedTensors:
        saved = self.op.saved_for_backward(self.all_inputs(inputs), output)
        activations = [position for position, constant in enumerate(self.constants) if constant is None]
        return replace(saved, inputs=tuple(activations.index(i) for i in saved.inputs if i in activations))

    def kernel_calls(self, inputs: tuple[Shape, ...], output: Shape) -> tuple[KernelCall, ...]:
        return self.op.kernel_calls(self.all_inputs(inputs), output)

    def fitted(self, shape: Shape) -> WithConstants:
        return replace(self, op=self.op.fitted(shape))

    def reads(self, inputs: tuple[Shape, ...], output: Shape) -> tuple[AxisMaps, ...] | None:
        reads = self.op.reads(self.all_inputs(inputs), output)
        return reads and tuple(read for read, constant in zip(reads, self.constants) if constant is None)

    def arguments(self) -> dict[str, object]:
        return self.op.arguments()


def _delegate_properties() -> None:
    """Give WithConstants the properties and the class attributes of its op."""
    own = {*vars(WithConstants), "width_field", "width_axis"}  # its fields are not those of the op
    for name, member in vars(Op).items():
        if not name.startswith("_") and not callable(member) and name not in own:
            setattr(WithConstants, name, property(attrgetter(f"op.{name}")))


_delegate_properties()
