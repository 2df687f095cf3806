"""An op some of whose inputs are no activations: learned tensors, buffers or numbers that are the same for every
batch.
"""

from __future__ import annotations

from dataclasses import replace

from vggscope.ops.axis_maps import AxisMaps
from vggscope.ops.base import KernelCall, Op, SavedTensors, Shape, Window
from vggscope.record import record


@record
class WithConstants(Op):
    """`op` with the shapes of its constant inputs filled in: `constants` has one entry for each input of `op`, None
    where an activation comes in. `fixed` are the positions of those that no parameter went into.
    """

    op: Op
    constants: tuple[Shape | None, ...]
    fixed: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        return self.op.name

    @property
    def family(self) -> str:
        return self.op.family

    def all_inputs(self, inputs: tuple[Shape, ...]) -> tuple[Shape, ...]:
        """The shapes of all that `op` reads, the constants among them."""
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

    def backward_macs(
        self, inputs: tuple[Shape, ...], output: Shape, needed: tuple[bool, ...], trained: bool
    ) -> int | None:
        return self.op.backward_macs(self.all_inputs(inputs), output, needed, trained)

    def window(self, size: tuple[int, ...]) -> Window | None:
        return self.op.window(size)

    def saved_for_backward(self, inputs: tuple[Shape, ...], output: Shape) -> SavedTensors:
        kept = self.op.saved_for_backward(self.all_inputs(inputs), output)
        places = [position for position, constant in enumerate(self.constants) if constant is None]
        return replace(kept, inputs=tuple(places.index(i) for i in kept.inputs if i in places))

    @property
    def gradient(self) -> str:
        return self.op.gradient

    @property
    def sums_gradients(self) -> bool:
        return self.op.sums_gradients

    @property
    def relays_gradients(self) -> bool:
        return self.op.relays_gradients

    def kernel_calls(self, output: Shape) -> tuple[KernelCall, ...]:
        return self.op.kernel_calls(output)

    def fitted(self, shape: Shape) -> WithConstants:
        return replace(self, op=self.op.fitted(shape))

    @property
    def allocates(self) -> bool:
        return self.op.allocates

    @property
    def element_bytes(self) -> int | None:
        return self.op.element_bytes

    @property
    def active_in(self) -> str:
        return self.op.active_in

    def reads(self, inputs: tuple[Shape, ...], output: Shape) -> tuple[AxisMaps, ...] | None:
        reads = self.op.reads(self.all_inputs(inputs), output)
        return reads and tuple(read for read, constant in zip(reads, self.constants) if constant is None)

    def arguments(self) -> dict[str, object]:
        return self.op.arguments()
