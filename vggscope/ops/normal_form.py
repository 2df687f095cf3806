"""The normal form of networks: terms over few primitive functions, in which equal functions are often equal terms.

An op writes itself as a chain of steps (`Op.normal_form`). `NormalTerms` adds them one by one and simplifies each by
rules that keep every value at evaluation, up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field, replace
from itertools import accumulate
from math import inf
from typing import Any

from vggscope.record import record

Shape = tuple[int, ...]

RESHAPE, PERMUTE, PAD, SLICE, CAT = "reshape", "permute", "pad", "slice", "cat"
CLIP, ADD, MUL, FILL = "clip", "add number", "multiply by number", "fill"
MAX_POOL, MEAN_POOL, LINEAR, BATCH_NORM = "max pool", "mean pool", "linear", "batch norm"


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
        if not (source.step.is_monotone and source.step.is_pointwise) or len(source.inputs) > 1 or source.weights:
            return None
        inner = self.add(replace(term, inputs=source.inputs))
        return self.add(replace(source, step=replace(source.step, shape=term.step.shape), inputs=(inner,)))


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
