"""The base class of all ops, and the records that its methods return."""

from __future__ import annotations

from ast import literal_eval
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields, replace
from functools import cached_property, lru_cache
from math import prod
from typing import TYPE_CHECKING, ClassVar, NamedTuple, TypeVar

from vggscope.errors import ShapeError
from vggscope.ops.axis_maps import SAME, AxisMaps, StridedWindow, pointwise
from vggscope.ops.normal_form import IDENTITY, NormalForm, PrimitiveStep
from vggscope.record import record
from vggscope.units import count_text, kernel_text, shape_text

if TYPE_CHECKING:
    from typing_extensions import Self

Item = TypeVar("Item")

Shape = tuple[int, ...]
"""A tensor's shape in torch's order, batch dimension first. A Network has the shapes for a batch of one."""


@record
class Window:
    """The part of a layer's input that one unit of its output reads, for each axis (height, width).

    The output size is (W-K+2P)/S+1, rounded down, or up with `ceil_mode`. A dilated kernel spans dilation*(K-1)+1
    pixels. torch.nn.Conv2d and torch.nn.MaxPool2d state the formula.
    """

    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    ceil_mode: bool = False

    @cached_property
    def span(self) -> tuple[int, ...]:
        """The number of pixels from the first to the last one under the kernel."""
        return tuple(d * (k - 1) + 1 for k, d in zip(self.kernel_size, self.dilation))

    @property
    def is_one_value(self) -> bool:
        """Whether each output value reads the one input value at its own position."""
        return set(self.span) | set(self.stride) == {1} and not any(self.padding)

    def output_size(self, size: tuple[int, ...]) -> tuple[int, ...]:
        """The output's height and width for an input of this height and width.

        Raises ShapeError if the kernel spans more than the padded input, or a stride is not positive.
        """
        return _window_output(size, self.span, self.stride, self.padding, self.ceil_mode)


@lru_cache(maxsize=4096)
def _window_output(
    size: tuple[int, ...], spans: tuple[int, ...], strides: tuple[int, ...], paddings: tuple[int, ...], ceil_mode: bool
) -> tuple[int, ...]:
    """Return the number of positions of a window along each axis. A network repeats its layers."""
    if any(stride < 1 for stride in strides):
        raise ShapeError(f"a window cannot move by a stride of {kernel_text(strides)}")
    for have, span, padding in zip(size, spans, paddings):
        if have + 2 * padding < span:
            padded = f", padded by {padding} on each side" if padding else ""
            raise ShapeError(f"a window of {kernel_text(spans)} does not fit its input of {kernel_text(size)}{padded}")
    return tuple(_side(*side, ceil_mode) for side in zip(size, spans, paddings, strides))


def _side(size: int, span: int, padding: int, stride: int, ceil_mode: bool) -> int:
    room = size - span + 2 * padding
    if not ceil_mode:
        return room // stride + 1
    result = -(-room // stride) + 1
    # torch drops a last window that would start in the padding after the input.
    return result - 1 if (result - 1) * stride >= size + padding else result


@lru_cache(maxsize=4096)
def window_of(
    kernel_size: tuple[int, ...], stride: tuple[int, ...], padding: tuple[int, ...], dilation: tuple[int, ...]
) -> Window:
    """The window with these fields. A network repeats its layers."""
    return Window(kernel_size, stride, padding, dilation)


def windowed(window: Window) -> AxisMaps:
    """The axis maps of a window that slides over the axes after batch and channels."""
    return _windowed(window.kernel_size, window.stride, window.padding, window.dilation)


@lru_cache(maxsize=4096)
def _windowed(*fields: tuple[int, ...]) -> AxisMaps:
    sides = zip(*fields)
    return {0: (0, SAME), **{axis: (axis, StridedWindow(*side)) for axis, side in enumerate(sides, 2)}}


class SavedTensors(NamedTuple):
    """The tensors that autograd saves for backward in one forward call, and those allocated on the way.

    `inputs`: the positions of the call's inputs that are saved. `output`: whether the output is saved.
    `extra`: further saved tensors, each with its shape and the bytes of one element (None: those of the network's
    dtype).
    `masks`: saved boolean tensors, of one byte per value on a GPU and as wide as the dtype on a CPU.
    `statistics`: tensors saved in training only, whose size does not grow with the batch.
    `batch_statistics`: those that the call computes at evaluation too.
    `copies`: copies of an input that the call overwrites, made only if there is a backward pass.
    `passing`: temporary tensors that are freed within the call.
    `sums`: the logarithms of the sums of attention's weights, in single precision at least. On a GPU their layout
    depends on the kernel.
    """

    inputs: tuple[int, ...] = ()
    output: bool = False
    extra: tuple[tuple[Shape, int | None], ...] = ()
    masks: tuple[Shape, ...] = ()
    statistics: tuple[Shape, ...] = ()
    batch_statistics: tuple[Shape, ...] = ()
    copies: tuple[Shape, ...] = ()
    passing: tuple[Shape, ...] = ()
    sums: tuple[Shape, ...] = ()


NOTHING = SavedTensors()

MOVES_VALUES = "none, it moves values"
"""The `other_formula` of ops that compute nothing."""

LAYOUT_EXCHANGES = (("layout", 0.5),)
"""The `exchanges` of ops that only change the shape."""


@record
class TensorArgument:
    """A tensor among the arguments of a call: the one at `place` of those that it reads, weights last."""

    place: int


@record
class DtypeArgument:
    """A dtype among the arguments of a call, by torch's name; that of the result if the name is empty."""

    name: str = ""


@record
class TorchCall:
    """A call of one of torch's functions, by its name in torch.nn.functional, in torch or as a method of a tensor.

    `args` and `kwargs` have a TensorArgument for each tensor, which may be in a list. `piece` is the place of the
    result among several. An `in_place` call writes to its first argument.
    """

    function: str
    args: tuple[object, ...]
    kwargs: tuple[tuple[str, object], ...] = ()
    piece: int | None = None
    in_place: bool = False


def call_of(function: str, *others: object, piece: int | None = None, **named: object) -> TorchCall:
    """Return the call of a function of one tensor and other arguments.

    >>> call_of("relu").args
    (TensorArgument(place=0),)
    """
    return TorchCall(function, (TensorArgument(0), *others), tuple(named.items()), piece)


@record
class KernelCall:
    """One of the kernels that torch runs for an op that is not a single kernel.

    `inputs` numbers the values that it reads: first the op's inputs, then the results of the kernels before.
    `holds` numbers, likewise, further values that a Python variable names meanwhile.
    `keeps` are the positions in `inputs` of the values that autograd saves for backward, and `keeps_result` is whether
    it saves the result too.
    `shares`: the result is a view of the first input.
    `passes_gradient`: the gradient of an input is that of the result, and no new memory.
    `scratch`: for each input, how many temporary tensors of the result's size its gradient takes. The gradient of the
    last input is computed first.
    `backward_temporaries`: as Op.backward_temporaries.
    """

    function: str
    inputs: tuple[int, ...]
    shape: Shape
    keeps: tuple[int, ...] = ()
    keeps_result: bool = False
    shares: bool = False
    passes_gradient: bool = False
    scratch: tuple[int, ...] = ()
    holds: tuple[int, ...] = ()
    backward_temporaries: tuple[tuple[Shape, int | None], ...] = ()


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
    `is_padding`: it adds values around its input.
    `is_adaptive`: its window follows from the sizes of input and output.
    `is_dropout`: it sets random values to 0.
    `is_lookup`: it reads only the rows of its weight that its input names.
    `takes_maximum`, `takes_mean`: each output value is the maximum or the mean of a window.
    `is_recorded`: it knows its output for the shapes of one call alone.
    `is_unknown`: it is a function or a module without a rule.
    `hides_parameters`: it may have parameters that are not known.
    `broadcasts`: its inputs are broadcast and type-promoted.
    `has_gates`: it is recurrent, and its gates saturate.
    `differentiates`: forward computes gradients by it.
    `commutes`: its inputs may be swapped.
    `further_result`: the place of its output among the results of a call, of which its input is the first one.
    `reads_numbers`: it has constant inputs that depend on no parameter.
    `compares`: its output is whether each value is above or below a number or another value.
    `selects`: an input of another dtype that is boolean chooses among the values of the others.
    `converts`: it copies its first input to its dtype.
    `least_inputs`: the number of tensors among its arguments, 0 if they do not tell.
    `takes_parameters`: its rules of memory hold if some of its inputs are parameters.
    `is_rewritten`: its output is its first input after its second one, a view of that, has been overwritten.
    `is_random`: it draws numbers at evaluation too.
    `gradient_layout`: the rule in trace/gradient_layouts.py for how the gradients of its inputs lie in memory.
    `notes`: its fields that say how torch runs it, on which no value depends.
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
    is_padding: ClassVar[bool] = False
    is_adaptive: ClassVar[bool] = False
    is_dropout: ClassVar[bool] = False
    is_lookup: ClassVar[bool] = False
    takes_maximum: ClassVar[bool] = False
    takes_mean: ClassVar[bool] = False
    gradient_layout: ClassVar[str] = "usual"
    is_recorded: ClassVar[bool] = False
    is_unknown: ClassVar[bool] = False
    hides_parameters: ClassVar[bool] = False
    broadcasts: ClassVar[bool] = False
    has_gates: ClassVar[bool] = False
    differentiates: ClassVar[bool] = False
    commutes: ClassVar[bool] = False
    further_result: ClassVar[int | None] = None
    reads_numbers: ClassVar[bool] = False
    compares: ClassVar[bool] = False
    selects: ClassVar[bool] = False
    converts: ClassVar[bool] = False
    least_inputs: ClassVar[int] = 0
    takes_parameters: ClassVar[bool] = False
    is_rewritten: ClassVar[bool] = False
    is_random: ClassVar[bool] = False
    notes: ClassVar[frozenset[str]] = frozenset({"inplace"})

    @property
    def name(self) -> str:
        """The name of its class in torch.nn, or of torch's function if it has no class."""
        return type(self).__name__

    @property
    def predicts_memory(self) -> bool:
        """Whether its rules give to the byte what torch allocates for it, in training and at inference."""
        return False

    @property
    def predicts_without_gradient(self) -> bool:
        """Whether its rules do for tensors that have no gradient."""
        return self.predicts_memory

    @property
    def needs_layout(self) -> bool:
        """Whether `predicts_memory` holds only if the memory layouts of the tensors around it are known."""
        return False

    @property
    def family(self) -> str:
        """Its role, which is the file in ops/ that defines it: convolution, pooling, activation, ..."""
        return type(self).__module__.rpartition(".")[2]

    @property
    def without_constants(self) -> Op:
        """The op itself; for an op with constants, masks or computed weights, the op without them."""
        return self

    def unwrapped(self, inputs: tuple[Shape, ...]) -> tuple[Op, tuple[Shape, ...]]:
        """The op without its constants, masks and computed weights, and the shapes of its own inputs.

        The shapes of constants are among them, those of masks and computed weights are not.
        """
        return self, inputs

    @property
    def counted_by(self) -> str:
        """Where its MACs are from: `rule`, its own formula; `torch`, torch's counter; or `register_op`, the user."""
        return "rule"

    @property
    def features_axis(self) -> int | None:
        """The axis of its first input that its weights combine, negative if counted from the end; None without one."""
        return self.width_axis if self.width_field else None

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
        """Whether torch adds the bias in a separate kernel."""
        return False

    def steps_axis(self, shape: Shape) -> int | None:
        """The axis of its first input that a recurrent layer reads step by step; None for any other op."""
        return None

    @property
    def compares_inputs(self) -> bool:
        """Whether torch projects a tensor at once that is given as several inputs, which are the same object."""
        return False

    def output_shape(self, *inputs: Shape) -> Shape:
        """The output's shape. Raises ShapeError if an input does not fit."""
        return inputs[0]

    def parameters(self) -> dict[str, Shape]:
        """The shapes of its learned tensors, by their names in the module's state dict."""
        return {}

    def buffers(self) -> dict[str, Shape]:
        """The shapes of its other tensors in the state dict, by name."""
        return {}

    def macs(self, inputs: tuple[Shape, ...], output: Shape) -> int | None:
        """Multiply-accumulates for a batch of one, without the bias; None if they are not known."""
        return 0

    @property
    def other_formula(self) -> str:
        """How `other_operations` counts, in words; empty if no rule is known."""
        return ""

    def other_operations(self, inputs: tuple[Shape, ...], output: Shape) -> int | None:
        """Operations other than multiply-accumulates, for a batch of one at evaluation; None if they are not known.

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
        """Multiply-accumulates of the backward pass, for a batch of one; None if they are not known.

        `needed` is, for each input, whether its gradient is computed, and `trained` whether that of the weights is. A
        product costs its MACs again for the gradient of each of its two factors.
        """
        macs = self.macs(inputs, output) if any(needed) or trained else 0
        return None if macs is None else macs * (sum(needed) + trained)

    def window(self, size: tuple[int, ...]) -> Window | None:
        """The window of one unit of the output, for an input of this height and width; None if it has none."""
        return None

    def reads(self, inputs: tuple[Shape, ...], output: Shape) -> tuple[AxisMaps, ...] | None:
        """For each input, the positions that a position of the output depends on; None if no rule is known."""
        window = self.window(inputs[0][2:]) if inputs else None
        if window is not None:
            return (windowed(window),)
        return tuple(pointwise(shape, output) for shape in inputs)

    def saved_for_backward(self, inputs: tuple[Shape, ...], output: Shape) -> SavedTensors:
        """The tensors that autograd saves for backward."""
        return NOTHING

    @property
    def gradient(self) -> str:
        """The memory of an input's gradient: `new`, the `same` as the output's gradient (of a view or a sum), a `part`
        of that (of a concatenation), or `none` if there is no gradient.
        """
        return "new"

    def input_gradients(self, inputs: tuple[Shape, ...], output: Shape) -> tuple[str, ...]:
        """`gradient` for each input, where it depends on the sizes or differs between the inputs.

        `view`: a view of the output's gradient, to which autograd adds no other gradient in place; `new view`: a view
        of new memory; `copied`: new memory that is copied into other new memory.
        """
        return (self.gradient,) * len(inputs)

    def gradient_shapes(self, inputs: tuple[Shape, ...], output: Shape) -> tuple[Shape, ...]:
        """The shape in which the gradient of each input is computed before it is summed to the input's; empty if it is
        the usual one.
        """
        return ()

    def backward_temporaries(self, inputs: tuple[Shape, ...], output: Shape) -> tuple[tuple[Shape, int | None], ...]:
        """Further tensors that the gradient of an input takes meanwhile, each with its shape and the bytes of one
        element (None: those of the network's dtype).
        """
        return ()

    def kernel_shape(self, inputs: tuple[Shape, ...], output: Shape) -> Shape | None:
        """The shape of what torch's kernel returns if the output is a view of it for autograd, else None."""
        return None

    def expands_last_input(self, inputs: tuple[Shape, ...]) -> bool:
        """Whether torch first expands the last input, a mask, to one for each sample."""
        return False

    def needs_gpu(self, inputs: int) -> bool:
        """Whether its rules of memory hold for the kernels of a GPU alone, with so many inputs."""
        return False

    def trains_on(self, shape: Shape) -> bool:
        """Whether torch runs it in training on an input of this shape, of a whole batch."""
        return True

    @property
    def sums_gradients(self) -> bool:
        """Whether the gradient of a weight is computed in the output's size and then summed up."""
        return False

    @property
    def saves_factors(self) -> bool:
        """Whether an input is saved for the gradients of the others, and only if one of them has a gradient."""
        return False

    @property
    def saves_weight_by_need(self) -> bool:
        """Whether the input is saved only if the weight has a gradient, and the weight only if the input has one."""
        return False

    @property
    def relays_gradients(self) -> bool:
        """Whether the gradient of the weights has another memory layout than the weights, so that torch copies it."""
        return False

    def kernel_calls(self, inputs: tuple[Shape, ...], output: Shape) -> tuple[KernelCall, ...]:
        """The kernels that torch runs one after another for an op that is not a single kernel, else empty."""
        return ()

    @property
    def allocates(self) -> bool:
        """Whether the output is new memory. It is not for an op in place, a view, or an op that does nothing."""
        return True

    @property
    def overwrites(self) -> bool:
        """Whether it writes its output into the memory of its input."""
        return bool(getattr(self, "inplace", False))

    @property
    def fixed_dtype(self) -> str:
        """The output's dtype if it is the same for inputs of every dtype, else empty."""
        return ""

    @property
    def stored_as(self) -> str:
        """The name in the state dict of the parameter or buffer that it stands for; empty for any other op."""
        return ""

    @property
    def active_in(self) -> str:
        """`always`, or `training` for an op that does nothing at evaluation."""
        return "always"

    def fitted(self, shape: Shape) -> Self:
        """The op with `width_field` set to fit an input of this shape; unchanged if the shape has no such axis."""
        if not self.width_field or len(shape) <= max(self.width_axis, 0):
            return self
        width = shape[self.width_axis]
        return self if getattr(self, self.width_field) == width else replace(self, **{self.width_field: width})

    @property
    def is_determined(self) -> bool:
        """Whether its fields and weights tell all that its values depend on."""
        return not self.is_unknown

    @property
    def folding(self) -> str:
        """How a convolution before it can do its work at evaluation, in words; empty if none can."""
        return ""

    def normal_form(
        self, inputs: tuple[Shape, ...], output: Shape, numbers: tuple[float | None, ...] = ()
    ) -> NormalForm:
        """The op as a chain of primitive steps, by which a diff proves that two networks compute the same.

        `numbers` has for each input the number that it holds everywhere, if it is such a constant.
        """
        if self.returns_input or self.active_in == "training":
            return IDENTITY
        return NormalForm((self.step(output),))

    def form_with_constants(
        self, constants: tuple[Shape | None, ...], inputs: tuple[Shape, ...], output: Shape
    ) -> NormalForm | None:
        """The op as steps if `constants` has the shapes of inputs that are weights or constants; None without a rule.

        `inputs` are the shapes of all inputs.
        """
        return None

    @property
    def described(self) -> str:
        """All fields that distinguish the op from another."""
        return f"{type(self).__name__} {[(f.name, getattr(self, f.name)) for f in fields(self) if f.compare]}"

    def step(self, output: Shape, source: int | None = None, **arguments: object) -> PrimitiveStep:
        """Return the op as one step on the value `source`, or on all its inputs. `arguments` replace its fields."""
        values = arguments or {
            f.name: getattr(self, f.name)
            for f in fields(self)
            if f.compare and f.name not in self.notes | self.training_fields and f.name != self.width_field
        }
        return PrimitiveStep(
            f"{type(self).__name__} {self.name}",
            tuple(values.items()),
            output,
            () if source is None else (source,),
            reads_weights=True,
            commutes=self.commutes,
            is_pointwise=self.is_pointwise,
            is_monotone=self.is_monotone,
        )

    def torch_call(self, count: int) -> TorchCall | None:
        """The call of torch's function that computes the op from `count` tensors, its weights last.

        None if the op has none: it is then the class of its name in torch.nn, which `arguments` build, or unknown.
        """
        return None

    def with_constants(self, sources: Sequence[Item], constants: Iterator[Item]) -> list[Item]:
        """All inputs in the order of the call: those of the node, and the next constants where it reads some."""
        return list(sources)

    def arguments(self) -> dict[str, object]:
        """The arguments that build torch's module of this name, without those that are torch's defaults.

        Fields with `repr=False` are not arguments of torch.
        """
        return {
            field.name: scalar(getattr(self, field.name))
            for field in fields(self)
            if field.repr and getattr(self, field.name) != field.default
        }


def named_arguments(given: Iterable[object]) -> dict[str, object]:
    """Return the arguments among these that a text such as `correction=0` names; those that are None are left out.

    >>> named_arguments([None, 2, "alpha=0.5", "rounding_mode=floor", "dtype=None"])
    {'alpha': 0.5, 'rounding_mode': 'floor'}
    """
    texts = (value.split("=", 1) for value in given if isinstance(value, str) and "=" in value)
    return {name: _literal(text) for name, text in texts if text != "None"}


def _literal(text: str) -> object:
    try:
        return literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def scalar(value: object) -> object:
    """(3, 3) as 3, which torch takes too and people write.

    >>> scalar((3, 3)), scalar((3, 1))
    (3, (3, 1))
    """
    return value[0] if isinstance(value, tuple) and value and len(set(value)) == 1 else value


def infer_output_shape(op: Op, *inputs: Shape) -> Shape:
    """The output shape of an op, also for inputs of unexpected rank, such as those of a convolution after a mean.

    Raises ShapeError if the op does not take the inputs.
    """
    try:
        return op.output_shape(*inputs)
    except (ValueError, IndexError, TypeError, ArithmeticError):
        inputs_text = " and ".join(shape_text(shape) or "one number" for shape in inputs)
        raise ShapeError(f"{op.name} does not take {inputs_text}") from None


def shape_by_rule(op: Op, inputs: tuple[Shape, ...]) -> Shape | None:
    """The output shape by the rule of an op; None if it does not accept these input shapes."""
    try:
        return op.output_shape(*inputs)
    except (ShapeError, ValueError, IndexError, TypeError):
        return None


def numel(shape: Shape) -> int:
    """The number of elements of a tensor of this shape."""
    return prod(shape)


MAKE_EQUAL = "kernel, stride and padding of the layers before it make them equal, or for some models another {}"
"""The remedy for shapes that do not fit each other, with the name of the option for the input's size."""


def expect_channels(expected: int, shape: Shape, spatial: int) -> None:
    """Raise ShapeError unless the input is batch x `expected` channels x `spatial` sides."""
    if len(shape) != spatial + 2:
        raise ShapeError(
            f"a tensor of {spatial + 2} dimensions is expected, this one has {len(shape)}: {shape_text(shape)}"
        )
    if shape[1] != expected:
        raise ShapeError(
            f"{count_text(expected)} channels are expected, the input has {count_text(shape[1])}: {shape_text(shape)}",
            f"{count_text(shape[1])} in place of {count_text(expected)} would fit: no input size changes it",
        )
