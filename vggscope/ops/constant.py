"""Ops some of whose inputs are constants, or whose weights are computed by other nodes."""

from __future__ import annotations

from dataclasses import replace
from operator import attrgetter

from vggscope.ops.axis_maps import AxisMaps
from vggscope.ops.base import KernelCall, Op, SavedTensors, Shape
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

    @property
    def predicts_memory(self) -> bool:
        return False

    def all_inputs(self, inputs: tuple[Shape, ...]) -> tuple[Shape, ...]:
        """The shapes of all inputs of `op`, constants included."""
        rest = iter(inputs)
        return tuple(next(rest) if constant is None else constant for constant in self.constants)

    def output_shape(self, *inputs: Shape) -> Shape:
        return self.op.output_shape(*self.all_inputs(inputs))

    def macs(self, inputs: tuple[Shape, ...], output: Shape) -> int | None:
        return self.op.macs(self.all_inputs(inputs), output)

    def other_operations(self, inputs: tuple[Shape, ...], output: Shape) -> int | None:
        return self.op.other_operations(self.all_inputs(inputs), output)

    def whole_input(self, inputs: tuple[Shape, ...], output: Shape) -> int:
        return self.op.whole_input(self.all_inputs(inputs), output)

    def backward_macs(
        self, inputs: tuple[Shape, ...], output: Shape, needed: tuple[bool, ...], trained: bool
    ) -> int | None:
        return self.op.backward_macs(self.all_inputs(inputs), output, needed, trained)

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


@record
class WithComputedWeights(Op):
    """`op`, of which the last inputs are weights that other nodes compute, as in F.conv2d(x, weight * style).

    `matrices` has one entry for each of these inputs: whether it is a factor of the op's products, as a bias is not.
    """

    op: Op
    matrices: tuple[bool, ...]

    @property
    def without_constants(self) -> Op:
        return self.op

    @property
    def predicts_memory(self) -> bool:
        return False

    def own_inputs(self, inputs: tuple[Shape, ...]) -> tuple[Shape, ...]:
        """The shapes of the inputs of `op`, without the weights."""
        return inputs[: len(inputs) - len(self.matrices)]

    def output_shape(self, *inputs: Shape) -> Shape:
        return self.op.output_shape(*self.own_inputs(inputs))

    def macs(self, inputs: tuple[Shape, ...], output: Shape) -> int | None:
        return self.op.macs(self.own_inputs(inputs), output)

    def other_operations(self, inputs: tuple[Shape, ...], output: Shape) -> int | None:
        return self.op.other_operations(self.own_inputs(inputs), output)

    def whole_input(self, inputs: tuple[Shape, ...], output: Shape) -> int:
        return self.op.whole_input(self.own_inputs(inputs), output)

    def backward_macs(
        self, inputs: tuple[Shape, ...], output: Shape, needed: tuple[bool, ...], trained: bool
    ) -> int | None:
        own = len(needed) - len(self.matrices)
        trained = trained or any(need and matrix for need, matrix in zip(needed[own:], self.matrices))
        return self.op.backward_macs(self.own_inputs(inputs), output, needed[:own], trained)

    def saved_for_backward(self, inputs: tuple[Shape, ...], output: Shape) -> SavedTensors:
        own = self.own_inputs(inputs)
        saved = self.op.saved_for_backward(own, output)
        weights = (len(own) + place for place, matrix in enumerate(self.matrices) if matrix)
        return replace(saved, inputs=(*saved.inputs, *weights))

    def kernel_calls(self, inputs: tuple[Shape, ...], output: Shape) -> tuple[KernelCall, ...]:
        return self.op.kernel_calls(self.own_inputs(inputs), output)

    def fitted(self, shape: Shape) -> WithComputedWeights:
        return replace(self, op=self.op.fitted(shape))

    def reads(self, inputs: tuple[Shape, ...], output: Shape) -> tuple[AxisMaps, ...] | None:
        # Every position of the output reads all of each weight.
        reads = self.op.reads(self.own_inputs(inputs), output)
        return reads and (*reads, *({} for _ in self.matrices))


def _delegate(wrapper: type[Op]) -> None:
    """Give a wrapper the methods, properties and class attributes of its op that it does not define itself."""
    own = {*vars(wrapper), "width_field", "width_axis"}  # its fields are not those of the op
    for name in vars(Op):
        if not name.startswith("_") and name not in own:
            setattr(wrapper, name, property(attrgetter(f"op.{name}")))


_delegate(WithConstants)
_delegate(WithComputedWeights)
