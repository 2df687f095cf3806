"""Recurrent layers, which read a sequence step by step."""

from __future__ import annotations

from dataclasses import field

from vggscope.errors import ShapeError
from vggscope.ops.axis_maps import SAME, WHOLE, AxisMaps, Ranges
from vggscope.ops.base import Op, SavedTensors, Shape, numel
from vggscope.record import record
from vggscope.units import shape_text

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
"""The gates of each step, each with a product of the input and one of the last state."""


def _of_class(arguments: dict[str, object], mode: str) -> dict[str, object]:
    """The arguments of torch's class for a mode, of which the RNN alone has a nonlinearity."""
    others = {"mode"} if mode == "RNN" else {"mode", "nonlinearity"}
    return {name: value for name, value in arguments.items() if name not in others}


@record
class Recurrent(Op):
    """torch's RNN, GRU or LSTM, by `mode`. Its inputs are the sequence and optionally the first states.

    MACs: at each step, for each gate, the products of the input and of the last state with their weights, and the
    projection of an LSTM's state to `proj_size` values (Sak et al. 2014, section 2). `sequences` is the number of
    packed sequences, 0 for an input that is not packed.
    """

    has_gates = True

    mode: str
    input_size: int
    hidden_size: int
    num_layers: int = 1
    bias: bool = True
    batch_first: bool = False
    dropout: float = 0.0
    bidirectional: bool = False
    proj_size: int = 0
    nonlinearity: str = "tanh"
    roles: tuple[int, ...] = field(default=(), kw_only=True, repr=False)
    """For a call that gets one tensor several times, the place of each argument among the inputs."""
    sequences: int = field(default=0, kw_only=True, compare=False, repr=False)

    @property
    def name(self) -> str:
        return self.mode

    def arguments(self) -> dict[str, object]:
        return _of_class(super().arguments(), self.mode)

    @property
    def features_axis(self) -> int:
        return -1

    def steps_axis(self, shape: Shape) -> int:
        return 1 if self.batch_first and len(shape) == 3 else 0

    def reads(self, inputs: tuple[Shape, ...], output: Shape) -> tuple[AxisMaps, ...]:
        steps = self.steps_axis(output)
        length = output[steps]
        up_to_own = WHOLE if self.bidirectional else Ranges(tuple((0, step + 1) for step in range(length)))
        others = {1 - steps: (1 - steps, SAME)} if len(output) == 3 else {}
        return ({steps: (steps, up_to_own), **others}, *({} for _ in inputs[1:]))

    @property
    def _directions(self) -> int:
        return 2 if self.bidirectional else 1

    @property
    def _state_size(self) -> int:
        """The width of the output of one direction."""
        return self.proj_size or self.hidden_size

    def _widths(self) -> list[int]:
        """The input size of each layer."""
        return [self.input_size, *[self._state_size * self._directions] * (self.num_layers - 1)]

    def output_shape(self, *inputs: Shape) -> Shape:
        if len(inputs[0]) not in (2, 3):
            raise ShapeError(f"a sequence of 2 or 3 axes is expected, the input is {shape_text(inputs[0])}")
        if inputs[0][-1] != self.input_size:
            raise ShapeError(f"{self.input_size} features are expected, the input is {shape_text(inputs[0])}")
        return (*inputs[0][:-1], self._state_size * self._directions)

    def parameters(self) -> dict[str, Shape]:
        rows = GATES[self.mode] * self.hidden_size
        shapes: dict[str, Shape] = {}
        for layer, width in enumerate(self._widths()):
            for end in ("", "_reverse")[: self._directions]:
                shapes[f"weight_ih_l{layer}{end}"] = (rows, width)
                shapes[f"weight_hh_l{layer}{end}"] = (rows, self._state_size)
                if self.bias:
                    shapes |= {f"bias_ih_l{layer}{end}": (rows,), f"bias_hh_l{layer}{end}": (rows,)}
                if self.proj_size:
                    shapes[f"weight_hr_l{layer}{end}"] = (self.proj_size, self.hidden_size)
        return shapes

    def macs(self, inputs: tuple[Shape, ...], output: Shape) -> int:
        steps = numel(inputs[0][:-1])
        return steps * sum(numel(shape) for shape in self.parameters().values() if len(shape) == 2)

    def backward_macs(self, inputs: tuple[Shape, ...], output: Shape, needed: tuple[bool, ...], trained: bool) -> int:
        # Gradients go back through steps and layers, to the sequence and the first states only if those need one.
        if not (trained or any(needed)):
            return 0
        steps = numel(inputs[0][:-1])
        firsts = 0 if any(needed[1:]) else self.sequences or steps // self._length(inputs[0])
        macs = 0
        for name, shape in self.parameters().items():
            if name.startswith("weight_hh"):
                macs += numel(shape) * (steps * trained + steps - firsts)
            elif name.startswith("weight_ih"):
                goes_on = needed[0] or not name.startswith("weight_ih_l0")
                macs += numel(shape) * steps * (trained + goes_on)
            elif name.startswith("weight_hr"):
                macs += numel(shape) * steps * (trained + 1)
        return macs

    def _length(self, sequence: Shape) -> int:
        """The number of steps of one sample."""
        return sequence[self.steps_axis(sequence)]

    def saved_for_backward(self, inputs: tuple[Shape, ...], output: Shape) -> SavedTensors:
        # The input, and the states and gates of each layer.
        states = (*output[:-1], self.hidden_size * self._directions)
        gates = (*output[:-1], states[-1] * GATES[self.mode])
        return SavedTensors(inputs=(0,), output=True, extra=((gates, None), (states, None)) * self.num_layers)


@record
class RecurrentCell(Op):
    """One step of torch's RNNCell, GRUCell or LSTMCell, by `mode`. Its inputs are the step's input and the last states.

    MACs: for each gate, the products of the input and of the last state with their weights.
    """

    has_gates = True

    mode: str
    input_size: int
    hidden_size: int
    bias: bool = True
    nonlinearity: str = "tanh"
    roles: tuple[int, ...] = field(default=(), kw_only=True, repr=False)
    """For a call that gets one tensor several times, the place of each argument among the inputs."""

    @property
    def name(self) -> str:
        return f"{self.mode}Cell"

    def arguments(self) -> dict[str, object]:
        return _of_class(super().arguments(), self.mode)

    def reads(self, inputs: tuple[Shape, ...], output: Shape) -> None:
        return None

    def output_shape(self, *inputs: Shape) -> Shape:
        if inputs[0][-1] != self.input_size:
            raise ShapeError(f"{self.input_size} features are expected, the input is {shape_text(inputs[0])}")
        return (*inputs[0][:-1], self.hidden_size)

    def parameters(self) -> dict[str, Shape]:
        rows = GATES[self.mode] * self.hidden_size
        shapes: dict[str, Shape] = {"weight_ih": (rows, self.input_size), "weight_hh": (rows, self.hidden_size)}
        return {**shapes, "bias_ih": (rows,), "bias_hh": (rows,)} if self.bias else shapes

    def macs(self, inputs: tuple[Shape, ...], output: Shape) -> int:
        return numel(inputs[0][:-1]) * GATES[self.mode] * self.hidden_size * (self.input_size + self.hidden_size)

    def backward_macs(self, inputs: tuple[Shape, ...], output: Shape, needed: tuple[bool, ...], trained: bool) -> int:
        # The second input is the state that the weights multiply. An LSTM's third input has no product.
        of_input, of_state = (trained + bool(any(part)) for part in (needed[:1], needed[1:2]))
        products = self.input_size * of_input + self.hidden_size * of_state
        return numel(inputs[0][:-1]) * GATES[self.mode] * self.hidden_size * products

    def saved_for_backward(self, inputs: tuple[Shape, ...], output: Shape) -> SavedTensors:
        gates = (*output[:-1], output[-1] * GATES[self.mode])
        return SavedTensors(inputs=tuple(range(len(inputs))), extra=((gates, None), (output, None)))
