"""What every op has, and the few shapes of an answer."""

from __future__ import annotations

from dataclasses import fields, replace
from math import prod
from typing import TYPE_CHECKING, ClassVar

from vggscope.errors import ShapeError
from vggscope.ops.axis_maps import SAME, AxisMaps, StridedWindow, pointwise
from vggscope.record import record
from vggscope.units import count_text, kernel_text, shape_text

if TYPE_CHECKING:
    from typing_extensions import Self

Shape = tuple[int, ...]
"""A tensor's shape as torch has it, batch first; a Network is worked out for a batch of one."""


@record
class Window:
    """What one unit of a layer's output sees of the layer's input, axis by axis (height, width).

    The output size is (W-K+2P)/S+1, rounded down as torch rounds it, or up with `ceil_mode`; a dilated kernel spans
    dilation*(K-1)+1 pixels. (The rule as the VGG paper's readers know it; torch.nn.Conv2d and MaxPool2d state it with
    dilation.)
    """

    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    ceil_mode: bool = False

    @property
    def span(self) -> tuple[int, ...]:
        """Pixels from the first to the last that the kernel touches."""
        return tuple(d * (k - 1) + 1 for k, d in zip(self.kernel_size, self.dilation))

    @property
    def is_one_value(self) -> bool:
        """Whether each output value reads the one input value at its own position."""
        return set(self.span) | set(self.stride) == {1} and not any(self.padding)

    def output_size(self, size: tuple[int, ...]) -> tuple[int, ...]:
        """The output's height and width for an input of this height and width.

        Raises ShapeError where the kernel spans more than the padded input.
        """
        for have, span, padding in zip(size, self.span, self.padding):
            if have + 2 * padding < span:
                padded = f", padded by {padding} on each side" if padding else ""
                raise ShapeError(
                    f"a window of {kernel_text(self.span)} does not fit its input of {kernel_text(size)}{padded}"
                )
        return tuple(self._side(w, k, p, s) for w, k, p, s in zip(size, self.span, self.padding, self.stride))

    def _side(self, size: int, span: int, padding: int, stride: int) -> int:
        room = size - span + 2 * padding
        if not self.ceil_mode:
            return room // stride + 1
        result = -(-room // stride) + 1
        # torch drops a last window that would start in the padding behind the input.
        return result - 1 if (result - 1) * stride >= size + padding else result


def windowed(window: Window) -> AxisMaps:
    """A window slides over the axes behind batch and channels."""
    sides = zip(window.kernel_size, window.stride, window.padding, window.dilation)
    return {0: (0, SAME), **{axis: (axis, StridedWindow(*side)) for axis, side in enumerate(sides, 2)}}


@record
class SavedTensors:
    """What autograd keeps of one forward call until its backward has run.

    `inputs` are positions among the call's inputs; `output` is whether the result is kept; `extra` are further
    tensors, each with its shape and the bytes of one element (None: as wide as the network's dtype). `masks` are
    tensors of true and false, one byte a value on a GPU and as wide as the dtype on a CPU. `statistics` are tensors
    made in training only, whose size does not grow with the batch; `copies` are made only where there is a backward
    pass, of an input that is overwritten; `passing` are made and gone with the call.
    """

    inputs: tuple[int, ...] = ()
    output: bool = False
    extra: tuple[tuple[Shape, int | None], ...] = ()
    masks: tuple[Shape, ...] = ()
    statistics: tuple[Shape, ...] = ()
    copies: tuple[Shape, ...] = ()
    passing: tuple[Shape, ...] = ()


NOTHING = SavedTensors()

MOVES_VALUES = "none, it moves values"
"""The `other_formula` of ops that compute nothing."""

LAYOUT_EXCHANGES = (("layout", 0.5),)
"""The `exchanges` of ops that only change the shape."""


@record
class KernelCall:
    """One of the kernels that torch runs for an op that it writes out.

    `inputs` count first the op's own inputs, then the results of the kernels before, as do `holds`: values that a
    variable still names while this runs. `keeps` are positions among `inputs`, `shares` tells that the result is a
    view of the first. The gradient of an input is new memory, unless it `passes_gradient` on; while it is made,
    `scratch` tensors of the result's size are alive, for each input. The last input's is made first.
    """

    function: str
    inputs: tuple[int, ...]
    shape: Shape
    keeps: tuple[int, ...] = ()
    shares: bool = False
    passes_gradient: bool = False
    scratch: tuple[int, ...] = ()
    holds: tuple[int, ...] = ()


@record
class Op:
    """One operation. A subclass overrides what differs from an op without weights, window or cost.

    `width_field` names the field that must equal the input's size along `width_axis`, if there is one. The layers
    before determine it.

    `word` is the op's word in a picture, or empty for its name. `per_value` is the number of operations beside MACs for
    each value of the output.

    What a diff needs to know:
    `exchanges`: the groups of ops that it may be aligned with, each with the cost; the cheapest comes first.
    `training_fields`: the fields that have no effect at evaluation.
    `follows_a_layer`: it is added and removed together with the layer before it.

    What kind of function it is:
    `is_pointwise`: each output value depends on one input value, by the same function everywhere.
    `is_monotone`: pointwise and nondecreasing, so that it commutes with a maximum.
    `is_idempotent`: applying it twice is applying it once.
    `is_affine`: at evaluation it scales, shifts or rearranges single values, and adds no nonlinearity.
    `is_layout`: it gives the same values in the same order another shape.
    `is_convolution`: it slides a kernel with weights over its input.
    `is_adaptive`: its window follows from the sizes of input and output.
    `is_dropout`: it sets random values to 0.
    `is_lookup`: it reads only the rows of its weight that its input names.
    `takes_maximum`, `takes_mean`: each output value is the maximum or the mean of a window.
    `is_unknown`: it is a function or a module without a rule.
    `broadcasts`: its inputs are broadcast and type-promoted.
    """

    width_field: ClassVar[str] = ""
    width_axis: ClassVar[int] = 1
    word: ClassVar[str] = ""
    per_value: ClassVar[int] = 0
    exchanges: ClassVar[tuple[tuple[str, float], ...]] = ()
    training_fields: ClassVar[frozenset[str]] = frozenset()
    follows_a_layer: ClassVar[bool] = False
    is_pointwise: ClassVar[bool] = False
    is_monotone: ClassVar[bool] = False
    is_idempotent: ClassVar[bool] = False
    is_affine: ClassVar[bool] = False
    is_layout: ClassVar[bool] = False
    is_convolution: ClassVar[bool] = False
    is_adaptive: ClassVar[bool] = False
    is_dropout: ClassVar[bool] = False
    is_lookup: ClassVar[bool] = False
    takes_maximum: ClassVar[bool] = False
    takes_mean: ClassVar[bool] = False
    is_unknown: ClassVar[bool] = False
    broadcasts: ClassVar[bool] = False

    @property
    def name(self) -> str:
        """The class that torch.nn has for it, or torch's function where there is no class."""
        return type(self).__name__

    @property
    def family(self) -> str:
        """Its role, which is the file in ops/ that defines it: convolution, pooling, activation, ..."""
        return type(self).__module__.rpartition(".")[2]

    @property
    def without_constants(self) -> Op:
        """The op itself; for WithConstants, the op that the constants are filled into."""
        return self

    @property
    def label_prefix(self) -> str:
        """The beginning of its label in the literature, as `conv` of conv1_1 and `prob`; empty if it has none."""
        return ""

    @property
    def notation(self) -> str:
        """Its word in the notation of the VGG paper's Table 1, empty if it has none."""
        return ""

    @property
    def alignment_cost(self) -> float:
        """The cost for a diff of finding no counterpart: high for layers with weights and for pools."""
        return 2.0

    @property
    def is_weight_layer(self) -> bool:
        """Whether it is one of a VGG's weight layers: a two-dimensional convolution or a fully connected layer."""
        return False

    @property
    def returns_input(self) -> bool:
        """Whether its output is its input, whatever that is."""
        return False

    def is_identity(self, size: tuple[int, ...]) -> bool:
        """Whether its output is its input, for an input of this height and width."""
        return self.returns_input

    def is_regular(self, size: tuple[int, ...]) -> bool:
        """Whether all windows are equally large and equally far apart, for an input of this height and width."""
        return True

    @property
    def permutation(self) -> tuple[int, ...]:
        """The axes of its input in the order of its output, if it only reorders them; else empty."""
        return ()

    @property
    def piece(self) -> int | None:
        """The position of its output among the results of one call that cuts up a tensor; None for any other op."""
        return None

    @property
    def adds_bias_separately(self) -> bool:
        """Whether torch adds the bias in a kernel of its own."""
        return False

    def output_shape(self, *inputs: Shape) -> Shape:
        """The output's shape. Raises ShapeError if an input does not fit."""
        return inputs[0]

    def parameters(self) -> dict[str, Shape]:
        """Learned tensors: the name that the state dict has below the module's path, and the shape."""
        return {}

    def buffers(self) -> dict[str, Shape]:
        """Tensors of the state dict that are not learned, named likewise."""
        return {}

    def macs(self, inputs: tuple[Shape, ...], output: Shape) -> int | None:
        """Multiply-accumulates for a batch of one, without the bias; None if they are not known."""
        return 0

    @property
    def other_formula(self) -> str:
        """How `other_operations` counts, in words; empty if no rule is known."""
        return ""

    def other_operations(self, inputs: tuple[Shape, ...], output: Shape) -> int | None:
        """Operations that are no multiply-accumulates, for a batch of one at evaluation; None if they are not known.

        An addition, a product, a division, a comparison and an elementary function (exp, log, a root, a power, erf,
        tanh) are one operation each. Moving values (views, concatenation, padding) costs none.
        """
        return self.per_value * numel(output) if self.other_formula else None

    def whole_input(self, inputs: tuple[Shape, ...], output: Shape) -> int:
        """The number of values of the input if weights combine all of them into each output value, else 0."""
        return 0

    def backward_macs(
        self, inputs: tuple[Shape, ...], output: Shape, needed: tuple[bool, ...], trained: bool
    ) -> int | None:
        """Multiply-accumulates of the backward pass: a product costs as much again for the gradient of each of its two
        factors. `needed` tells of each input whether a gradient goes on to it, `trained` whether the op's own weights
        get one.
        """
        macs = self.macs(inputs, output) if any(needed) or trained else 0
        return None if macs is None else macs * (sum(needed) + trained)

    def window(self, size: tuple[int, ...]) -> Window | None:
        """What one unit of the output sees of an input of this height and width; None: just the unit at its own
        place.
        """
        return None

    def reads(self, inputs: tuple[Shape, ...], output: Shape) -> tuple[AxisMaps, ...] | None:
        """For each input, which of its places a place of the output depends on; None where no rule tells."""
        window = self.window(inputs[0][2:]) if inputs else None
        if window is not None:
            return (windowed(window),)
        return tuple(pointwise(shape, output) for shape in inputs)

    def saved_for_backward(self, inputs: tuple[Shape, ...], output: Shape) -> SavedTensors:
        """What autograd keeps for the backward pass."""
        return NOTHING

    @property
    def gradient(self) -> str:
        """How an input's gradient is made of the output's: `new` memory, the `same` (as behind a view or a sum), a
        `part` of it (as behind a concatenation), or `none` where it goes no further.
        """
        return "new"

    @property
    def sums_gradients(self) -> bool:
        """Whether the gradient of a weight is made in the output's size and then summed up."""
        return False

    @property
    def relays_gradients(self) -> bool:
        """Whether the gradient of the weights comes in another layout than theirs, so that torch copies it."""
        return False

    def kernel_calls(self, inputs: tuple[Shape, ...], output: Shape) -> tuple[KernelCall, ...]:
        """The kernels that torch runs one after another, where it has no single one for the op."""
        return ()

    @property
    def allocates(self) -> bool:
        """Whether the output is new memory: not so in place, for a view, or where nothing is done."""
        return True

    @property
    def element_bytes(self) -> int | None:
        """The bytes of one value of the output; None where it is of the network's own type."""
        return None

    @property
    def active_in(self) -> str:
        """`always`, or `training` for an op that does nothing at evaluation."""
        return "always"

    def fitted(self, shape: Shape) -> Self:
        """The same op made to fit an input of this shape, as it is where the shape has no such axis."""
        if not self.width_field or len(shape) <= max(self.width_axis, 0):
            return self
        return replace(self, **{self.width_field: shape[self.width_axis]})

    def arguments(self) -> dict[str, object]:
        """The arguments that build torch's module of this name, those with torch's default left out."""
        return {
            field.name: _scalar(getattr(self, field.name))
            for field in fields(self)
            if getattr(self, field.name) != field.default
        }


def _scalar(value: object) -> object:
    """(3, 3) as 3: torch takes either, people write the second."""
    return value[0] if isinstance(value, tuple) and value and len(set(value)) == 1 else value


def infer_output_shape(op: Op, *inputs: Shape) -> Shape:
    """What `output_shape` gives, for inputs of any number of dimensions: raises ShapeError too for what no layer was
    written to meet, a convolution behind a mean.
    """
    try:
        return op.output_shape(*inputs)
    except (ValueError, IndexError, TypeError, ArithmeticError):
        met = " and ".join(shape_text(shape) or "one number" for shape in inputs)
        raise ShapeError(f"{op.name} does not take {met}") from None


def numel(shape: Shape) -> int:
    """How many elements a tensor of this shape has."""
    return prod(shape)


def expect_channels(expected: int, shape: Shape, spatial: int) -> None:
    """Raise ShapeError unless the input is batch x `expected` channels x `spatial` sides."""
    if len(shape) != spatial + 2:
        raise ShapeError(
            f"a tensor of {spatial + 2} dimensions is expected, this one has {len(shape)}: {shape_text(shape)}"
        )
    if shape[1] != expected:
        raise ShapeError(
            f"{count_text(expected)} channels are expected, the input has {count_text(shape[1])}: {shape_text(shape)}"
        )
