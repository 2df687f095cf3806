"""The normal form of networks: terms over few primitive functions, in which equal functions are often equal terms.

An op writes itself as a chain of steps (`Op.normal_form`). `NormalTerms` adds them one by one and simplifies each by
rules that keep every value at evaluation, up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field, replace
from itertools import accumulate
from math import inf, prod
from typing import Any

from vggscope.record import record

Shape = tuple[int, ...]

RESHAPE, PERMUTE, PAD, SLICE, CAT = "reshape", "permute", "pad", "slice", "cat"
CLIP, ADD, MUL, FILL = "clip", "add number", "multiply by number", "fill"
MAX_POOL, MEAN_POOL, LINEAR, BATCH_NORM = "max pool", "mean pool", "linear", "batch norm"
MEAN, PRODUCT = "mean", "Elementwise mul"


@record
class PrimitiveStep:
    """One primitive of an op's normal form.

    - `arguments` tell everything that the values depend on beside the inputs and the weights.
    - `inputs` numbers the values that it reads: first the op's inputs, then the results of the steps before. Empty
      means all inputs of the op.
    - `reads_weights`: it reads all weights and constant tensors of the op.
    - `commutes`: its inputs may be swapped.
    - `is_pointwise` and `is_monotone` are as an Op's.
    """

    function: str
    arguments: tuple[Any, ...]
    shape: Shape
    inputs: tuple[int, ...] = field(default=(0,), compare=False)
    reads_weights: bool = False
    commutes: bool = False
    is_pointwise: bool = False
    is_monotone: bool = False


@record
class NormalForm:
    """An op as a chain of steps, of which the last one gives its output; no step for an op that returns its input.

    `proof` is the reason in words if that is not obvious.
    """

    steps: tuple[PrimitiveStep, ...]
    proof: str = ""


IDENTITY = NormalForm(())
"""The normal form of an op that returns its input."""


def reshape(shape: Shape, source: int = 0) -> PrimitiveStep:
    """The same elements in the same order."""
    return PrimitiveStep(RESHAPE, (), shape, (source,))


def permute(dims: Shape, shape: Shape, source: int = 0) -> PrimitiveStep:
    """The axes in another order: axis i of the result is axis `dims[i]`."""
    return PrimitiveStep(PERMUTE, dims, shape, (source,))


def pad(amounts: tuple[tuple[int, int], ...], shape: Shape, mode: str, value: float, source: int = 0) -> PrimitiveStep:
    """Padding before and after each axis."""
    return PrimitiveStep(PAD, (amounts, mode, value), shape, (source,))


def cut(axis: int, start: int, stop: int, step: int, shape: Shape, source: int = 0) -> PrimitiveStep:
    """The positions of range(start, stop, step) of an axis."""
    return PrimitiveStep(SLICE, (axis, start, stop, step), shape, (source,))


def join(axis: int, shape: Shape, inputs: tuple[int, ...]) -> PrimitiveStep:
    """The inputs one after another along an axis."""
    return PrimitiveStep(CAT, (axis,), shape, inputs)


def clip(low: float, high: float, shape: Shape, source: int = 0) -> PrimitiveStep:
    """Limit each value x to min(max(x, low), high)."""
    return PrimitiveStep(CLIP, (float(low), float(high)), shape, (source,), is_pointwise=True, is_monotone=True)


def add_number(number: float, shape: Shape, source: int = 0) -> PrimitiveStep:
    """Add a number to each value."""
    return PrimitiveStep(ADD, (float(number),), shape, (source,), is_pointwise=True, is_monotone=True)


def multiply(number: float, shape: Shape, source: int = 0) -> PrimitiveStep:
    """Multiply each value by a number."""
    return PrimitiveStep(MUL, (float(number),), shape, (source,), is_pointwise=True, is_monotone=number >= 0)


def mean_of_axes(axes: Shape, shape: Shape, source: int = 0) -> PrimitiveStep:
    """The mean over these axes, which keep size 1."""
    return PrimitiveStep(MEAN, axes, shape, (source,))


def fill(number: float, shape: Shape) -> PrimitiveStep:
    """The number everywhere, whatever the inputs are."""
    return PrimitiveStep(FILL, (float(number),), shape)


def step_text(step: PrimitiveStep) -> str:
    """A step with numbers as a formula."""
    if step.function == CLIP:
        low, high = step.arguments
        inner = "x" if low == -inf else f"max(x, {low:g})"
        return inner if high == inf else f"min({inner}, {high:g})"
    sign = {ADD: "+", MUL: "*"}.get(step.function)
    return step.function if sign is None else f"x {sign} {step.arguments[0]:g}"


@record
class Weight:
    """A weight or a constant that a term reads.

    `text` says how it is computed, with {} for each tensor of the state dict. It is empty if that is not known.
    `names` are those tensors, and `shapes` theirs.
    """

    text: str
    names: tuple[str, ...] = ()
    shapes: tuple[Shape, ...] = ()


@record
class NormalTerm:
    """A value: `step` of the terms `inputs` and of `weights`.

    `growth` is by how much each axis grows with the batch, None if the first one does. `origin` is the layer that it
    belongs to. `draw` names the call that draws random numbers for it. A term that is not `is_known` depends on more
    than is recorded.
    """

    step: PrimitiveStep
    inputs: tuple[int, ...]
    weights: tuple[Weight, ...] = ()
    growth: Shape | None = None
    draw: str = ""
    is_known: bool = True
    origin: str = ""


class NormalTerms:
    """The terms of one network in execution order, each once."""

    def __init__(self) -> None:
        self.terms: list[NormalTerm] = []
        self._places: dict[object, int] = {}

    def input(self, name: str, position: int, shape: Shape, growth: Shape | None) -> int:
        """Add an input of the network."""
        return self._new(NormalTerm(PrimitiveStep("input", (position,), shape, ()), (), growth=growth, origin=name))

    def add(self, term: NormalTerm) -> int:
        """Add a term in its simplest form and return its number, which may be that of an earlier term."""
        if not term.inputs or term.draw or not term.is_known:
            return self._new(term)
        rule = _RULES.get(term.step.function)
        place = rule(self, term) if rule is not None else None
        if place is None and term.step.is_pointwise and len(term.inputs) == 1 and not term.weights:
            place = self._below_layout(term)
        return self._new(term) if place is None else place

    def _new(self, term: NormalTerm) -> int:
        key = (term.step, term.inputs, term.weights, term.growth, term.draw, term.is_known)
        place = self._places.get(key) if term.is_known else None
        if place is None:
            place = self._places[key] = len(self.terms)
            self.terms.append(term)
        return place

    def _source(self, term: NormalTerm) -> NormalTerm:
        return self.terms[term.inputs[0]]

    def _instead(self, term: NormalTerm, step: PrimitiveStep) -> int:
        """Add another step on the input of the input of a term, in its place."""
        return self.add(replace(term, step=step, inputs=self._source(term).inputs))

    def _below_layout(self, term: NormalTerm) -> int | None:
        """Apply a function of single values before a reshape or a permutation."""
        source = self._source(term)
        if source.step.function not in (RESHAPE, PERMUTE):
            return None
        inner = self.terms[source.inputs[0]]
        step = replace(term.step, shape=inner.step.shape)
        moved = self.add(replace(term, step=step, inputs=source.inputs, growth=inner.growth))
        return self.add(replace(source, inputs=(moved,)))

    def reshaped(self, term: NormalTerm) -> int | None:
        source = self._source(term)
        if source.step.function == RESHAPE:
            return self._instead(term, term.step)
        is_same = (source.step.shape, source.growth) == (term.step.shape, term.growth)
        return term.inputs[0] if is_same else None

    def permuted(self, term: NormalTerm) -> int | None:
        source, dims = self._source(term), term.step.arguments
        moved = [axis for axis in dims if source.step.shape[axis] != 1]
        if moved == sorted(moved):
            return self.add(replace(term, step=reshape(term.step.shape)))
        if source.step.function == PERMUTE:
            both = tuple(source.step.arguments[axis] for axis in dims)
            return self._instead(term, permute(both, term.step.shape))
        return None

    def padded(self, term: NormalTerm) -> int | None:
        source = self._source(term)
        amounts, mode, value = term.step.arguments
        if not any(map(any, amounts)):
            return term.inputs[0]
        if source.step.function != PAD or mode != "constant" or source.step.arguments[1:] != (mode, value):
            return None
        inner = source.step.arguments[0]
        if min(min(sides) for sides in (*amounts, *inner)) < 0:
            return None
        both = tuple((a + c, b + d) for (a, b), (c, d) in zip(amounts, inner))
        return self._instead(term, pad(both, term.step.shape, mode, value))

    def cut(self, term: NormalTerm) -> int | None:
        source = self._source(term)
        axis, start, stop, step = term.step.arguments
        if (start, step) == (0, 1) and stop == source.step.shape[axis]:
            return term.inputs[0]
        outer = source.step.arguments
        if source.step.function == SLICE and outer[0] == axis and outer[3] == step == 1:
            begin = int(outer[1])
            return self._instead(term, cut(axis, begin + start, begin + stop, 1, term.step.shape))
        return None

    def joined(self, term: NormalTerm) -> int | None:
        (axis,) = term.step.arguments
        parts: list[int] = []
        for place in term.inputs:
            part = self.terms[place]
            parts += part.inputs if part.step == replace(part.step, function=CAT, arguments=(axis,)) else (place,)
        merged = parts[:1]
        for place in parts[1:]:
            both = self._adjacent(merged[-1], place, axis)
            merged[-1:] = [merged[-1], place] if both is None else [both]
        if len(merged) == 1:
            return merged[0]
        inputs = tuple(merged)
        if inputs == term.inputs:
            return None
        return self.add(replace(term, step=replace(term.step, inputs=tuple(range(len(inputs)))), inputs=inputs))

    def _adjacent(self, first: int, second: int, axis: int) -> int | None:
        """Two successive pieces of an axis as one."""
        one, other = self.terms[first], self.terms[second]
        if {one.step.function, other.step.function} != {SLICE} or one.inputs != other.inputs:
            return None
        (a, start, middle, step), (b, begin, stop, stride) = one.step.arguments, other.step.arguments
        if not (a == b == axis and step == stride == 1 and middle == begin):
            return None
        shape = one.step.shape
        length = stop - start
        whole = cut(axis, start, stop, 1, (*shape[:axis], length, *shape[axis + 1 :]))
        return self.add(replace(one, step=whole))

    def clipped(self, term: NormalTerm) -> int | None:
        source, (low, high) = self._source(term), term.step.arguments
        if (low, high) == (-inf, inf):
            return term.inputs[0]
        if source.step.function == CLIP:
            first, second = (min(max(bound, low), high) for bound in source.step.arguments)
            return self._instead(term, clip(first, second, term.step.shape))
        return None

    def shifted(self, term: NormalTerm) -> int | None:
        source, (number,) = self._source(term), term.step.arguments
        if number == 0:
            return term.inputs[0]
        if source.step.function == ADD:
            total = number + source.step.arguments[0]
            return self._instead(term, add_number(total, term.step.shape))
        return None

    def scaled(self, term: NormalTerm) -> int | None:
        source, (number,) = self._source(term), term.step.arguments
        if number == 1:
            return term.inputs[0]
        if source.step.function == MUL:
            product = number * source.step.arguments[0]
            return self._instead(term, multiply(product, term.step.shape))
        return None

    def pooled(self, term: NormalTerm) -> int | None:
        """Take the maximum before a nondecreasing function."""
        source = self._source(term)
        if source.step.function == PAD and (place := self._padded_maximum(term)) is not None:
            return place
        if not (source.step.is_monotone and source.step.is_pointwise) or len(source.inputs) > 1 or source.weights:
            return None
        inner = self.add(replace(term, inputs=source.inputs))
        return self.add(replace(source, step=replace(source.step, shape=term.step.shape), inputs=(inner,)))

    def _padded_maximum(self, term: NormalTerm) -> int | None:
        """Zeros around values that are never negative as the pool's own padding, if no window reads zeros alone."""
        padding = self._source(term)
        amounts, mode, value = padding.step.arguments
        kernel, strides, dilations, around = term.step.arguments
        sides = len(kernel)
        inner = self.terms[padding.inputs[0]]
        is_plain = mode == "constant" and value == 0 and min(map(min, amounts)) >= 0
        if not is_plain or any(map(any, amounts[:-sides])) or not self._is_nonnegative(padding.inputs[0]):
            return None
        merged = []
        for axis, (size, stride, dilation) in enumerate(zip(kernel, strides, dilations), -sides):
            have, made = inner.step.shape[axis], term.step.shape[axis]
            before = around[axis][0] + amounts[axis][0]
            starts = range(-before, made * stride - before, stride)
            if not all(any(0 <= start + dilation * i < have for i in range(size)) for start in starts):
                return None
            merged.append((before, max(starts[-1] + dilation * (size - 1) + 1 - have, 0)))
        step = replace(term.step, arguments=(kernel, strides, dilations, tuple(merged)))
        return self._instead(term, step)

    def _is_nonnegative(self, place: int) -> bool:
        """Whether a value is nowhere below 0."""
        term = self.terms[place]
        if term.step.function in (RESHAPE, PERMUTE, SLICE):
            return self._is_nonnegative(term.inputs[0])
        return term.step.function == CLIP and bool(term.step.arguments[0] >= 0)

    def window_means(self, term: NormalTerm) -> int | None:
        """Leave out the padding after the last window."""
        source = self._source(term)
        kernel, strides, dilations, _ = term.step.arguments
        if source.step.function != PAD or source.step.arguments[1] != "constant" or source.growth is not None:
            return None
        amounts, shape = list(source.step.arguments[0]), list(source.step.shape)
        for axis, (size, stride, dilation) in enumerate(zip(kernel, strides, dilations), -len(kernel)):
            end = (term.step.shape[axis] - 1) * stride + dilation * (size - 1) + 1
            unread = max(min(shape[axis] - end, amounts[axis][1]), 0)
            amounts[axis] = (amounts[axis][0], amounts[axis][1] - unread)
            shape[axis] -= unread
        if tuple(shape) == source.step.shape:
            return None
        step = replace(source.step, arguments=(tuple(amounts), *source.step.arguments[1:]), shape=tuple(shape))
        return self.add(replace(term, inputs=(self.add(replace(source, step=step)),)))

    def averaged(self, term: NormalTerm) -> int | None:
        """A mean of means over other axes is the mean over all of them; that of a whole map is a pool."""
        merged = self._merged_mean(term)
        if merged is not None:
            return merged
        shape, axes = self._source(term).step.shape, term.step.arguments
        if len(shape) < 3 or axes != tuple(range(2, len(shape))):
            return None
        ones = (1,) * len(axes)
        arguments = (shape[2:], ones, ones, prod(shape[2:]))
        return self.add(replace(term, step=PrimitiveStep(MEAN_POOL, arguments, term.step.shape)))

    def _merged_mean(self, term: NormalTerm) -> int | None:
        """The mean of a mean as one over the axes of both, if none is the batch axis."""
        source = self._source(term)
        inner = self.terms[source.inputs[0]] if source.step.function == RESHAPE else source
        if inner.step.function != MEAN or not term.growth is source.growth is inner.growth is None:
            return None
        shape, axes = inner.step.shape, inner.step.arguments
        left = [axis for axis in range(len(shape)) if inner is source or axis not in axes]
        if tuple(shape[axis] for axis in left) != source.step.shape:
            return None
        both = tuple(sorted({*axes, *(left[axis] for axis in term.step.arguments)}))
        if 0 in both:
            return None
        kept = tuple(1 if axis in both else size for axis, size in enumerate(shape))
        mean = self.add(replace(inner, step=mean_of_axes(both, kept), origin=term.origin))
        return self.add(replace(term, step=reshape(term.step.shape), inputs=(mean,)))

    def gated(self, term: NormalTerm) -> int | None:
        """Write x sigmoid(x) as SiLU(x), and x hardsigmoid(x) as Hardswish(x)."""
        is_plain = term.step.arguments == (("function", "mul"), ("arguments_given", ())) and not term.weights
        if not is_plain or len(term.inputs) != 2:
            return None
        for value, gate in (term.inputs, term.inputs[::-1]):
            outer = self.terms[gate]
            is_moved = outer.step.function in (RESHAPE, PERMUTE)
            gating = self.terms[outer.inputs[0]] if is_moved else outer
            name = _GATED.get(gating.step.function)
            if name is None or gating.step.arguments or self.terms[value].step.shape != term.step.shape:
                continue
            same = replace(
                gating, step=replace(gating.step, shape=term.step.shape), inputs=(value,), growth=term.growth
            )
            if self.add(same) == gate:
                step = replace(gating.step, function=name, shape=term.step.shape, is_monotone=False)
                return self.add(replace(term, step=step, inputs=(value,)))
        return None


_GATED: Mapping[str, str] = {"Sigmoid Sigmoid": "SiLU SiLU", "Hardsigmoid Hardsigmoid": "Hardswish Hardswish"}
"""The activation that is x times another one of x, by the steps of both."""


_RULES: Mapping[str, Callable[[NormalTerms, NormalTerm], int | None]] = {
    RESHAPE: NormalTerms.reshaped,
    PERMUTE: NormalTerms.permuted,
    PAD: NormalTerms.padded,
    SLICE: NormalTerms.cut,
    CAT: NormalTerms.joined,
    CLIP: NormalTerms.clipped,
    ADD: NormalTerms.shifted,
    MUL: NormalTerms.scaled,
    MAX_POOL: NormalTerms.pooled,
    MEAN_POOL: NormalTerms.window_means,
    MEAN: NormalTerms.averaged,
    PRODUCT: NormalTerms.gated,
}


def padding_of(rank: int, sides: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
    """The padding of all axes, for that of the last ones."""
    return (*((0, 0),) * (rank - len(sides)), *sides)


def padded_shape(shape: Shape, amounts: tuple[tuple[int, int], ...]) -> Shape:
    """The shape after padding."""
    return tuple(size + before + after for size, (before, after) in zip(shape, amounts))


def pieces(sizes: tuple[int, ...]) -> list[tuple[int, int]]:
    """The start and the end of successive pieces of these sizes."""
    ends = list(accumulate(sizes))
    return list(zip((0, *ends), ends))
