"""The normal form of networks: terms over few primitive functions, in which equal functions are often equal terms.

An op writes itself as a chain of steps (`Op.normal_form`). `NormalTerms` adds them one by one and simplifies each by
rules that keep every value at evaluation, up to rounding.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import field, replace
from itertools import accumulate
from math import inf, prod
from typing import Any

from vggscope.record import record

Shape = tuple[int, ...]

RESHAPE, PERMUTE, PAD, SLICE, CAT = "reshape", "permute", "pad", "slice", "cat"
CLIP, ADD, MUL, FILL, SLOPES = "clip", "add number", "multiply by number", "fill", "slopes"
MAX_POOL, MEAN_POOL, LINEAR, BATCH_NORM, BIAS = "max pool", "mean pool", "linear", "batch norm", "bias"
MEAN, SUM, PRODUCT, MAXIMUM, MINIMUM, COMPARE, CHOOSE = (
    *("mean", "sum", "product", "maximum", "minimum"),
    *("compare with number", "choose"),
)

_LAYOUTS = (RESHAPE, PERMUTE, SLICE)
"""Steps that move values and compute none, so that functions of single values may be applied before them."""


@record
class PrimitiveStep:
    """One primitive of an op's normal form.

    - `arguments` tell everything that the values depend on beside the inputs and the weights.
    - `inputs` numbers the values that it reads: first the op's inputs, then the results of the steps before. Empty
      means all inputs of the op.
    - `reads_weights`: it reads weights and constant tensors of the op: those at the places `weights`, None for all.
    - `turns_weights`: it reads them transposed.
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
    weights: tuple[int, ...] | None = field(default=None, compare=False)
    turns_weights: bool = field(default=False, compare=False)


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


def slopes(below: float, above: float, shape: Shape, source: int = 0) -> PrimitiveStep:
    """Multiply each value below 0 by a number and each value above 0 by another, in the simplest form."""
    below, above = rounded(below), rounded(above)
    if below == above:
        return multiply(above, shape, source)
    if (below, above) in ((0, 1), (1, 0)):
        return clip(0 if above else -inf, inf if above else 0, shape, source)
    is_monotone = min(below, above) >= 0
    return PrimitiveStep(SLOPES, (below, above), shape, (source,), is_pointwise=True, is_monotone=is_monotone)


def rounded(number: float) -> float:
    """A number to 12 digits, so that products of numbers do not depend on their order."""
    return float(f"{number:.12g}")


def compare(function: str, number: float, shape: Shape, source: int = 0) -> PrimitiveStep:
    """Whether each value is above or below a number, by torch's `function`: gt, ge, lt or le."""
    return PrimitiveStep(COMPARE, (function, float(number)), shape, (source,), is_pointwise=True)


def choose(shape: Shape, inputs: tuple[int, int, int]) -> PrimitiveStep:
    """The values of the second input where the first holds, else those of the third."""
    return PrimitiveStep(CHOOSE, (), shape, inputs, is_pointwise=True)


def total(shape: Shape, inputs: tuple[int, int]) -> PrimitiveStep:
    """The sum of two values, which may be broadcast."""
    return PrimitiveStep(SUM, (), shape, inputs, commutes=True, is_pointwise=True)


def extreme(function: str, shape: Shape, inputs: tuple[int, int]) -> PrimitiveStep:
    """The `maximum` or the `minimum` of two values."""
    return PrimitiveStep(function, (), shape, inputs, commutes=True, is_pointwise=True)


def product(shape: Shape, inputs: tuple[int, int]) -> PrimitiveStep:
    """The product of two values, which may be broadcast."""
    return PrimitiveStep(PRODUCT, (), shape, inputs, commutes=True, is_pointwise=True)


def linear(rows: int, width: int, source: int = 0, weight: int = 0, turned: bool = False) -> PrimitiveStep:
    """The inner products of each row with the rows of a weight, or with its columns if `turned`."""
    return PrimitiveStep(
        LINEAR, (width,), (rows, width), (source,), reads_weights=True, weights=(weight,), turns_weights=turned
    )


def bias(axis: int, shape: Shape, source: int = 0, weight: int = 1) -> PrimitiveStep:
    """Add a number of its own, the weight's, at each position of an axis."""
    return PrimitiveStep(BIAS, (axis,), shape, (source,), reads_weights=True, weights=(weight,))


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
    if step.function == SLOPES:
        below, above = (_multiple_text(number) for number in step.arguments)
        return f"{above} above 0 and {below} below"
    if step.function == COMPARE:
        return f"x {_SIGNS[step.arguments[0]]} {step.arguments[1]:g}"
    sign = {ADD: "+", MUL: "*"}.get(step.function)
    return step.function if sign is None else f"x {sign} {step.arguments[0]:g}"


_SIGNS: Mapping[str, str] = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}


def _multiple_text(number: float) -> str:
    return {0.0: "0", 1.0: "x", -1.0: "-x"}.get(number, f"{number:g} x")


@record
class Weight:
    """A weight or a constant that a term reads.

    `text` says how it is computed, with {} for each tensor of the state dict. It is empty if that is not known.
    `names` are those tensors, and `shapes` theirs.
    """

    text: str
    names: tuple[str, ...] = ()
    shapes: tuple[Shape, ...] = ()

    @property
    def in_order(self) -> Weight:
        """The weight without views that keep the order of its elements, which are all that a step depends on."""
        text = self.text
        while (match := _IN_ORDER.fullmatch(text)) is not None:
            text = match["inner"]
        return replace(self, text=text)

    @property
    def transposed(self) -> Weight:
        """The transpose of a matrix."""
        match = _TRANSPOSED.fullmatch(self.text)
        return replace(self, text=match["inner"] if match else f"t (('x',), [])({self.text})" if self.text else "")


_NUMBERS = r"(?:, (?:-?\d+|\((?:-?\d+(?:, )?,?)*\)))*"
_FULL_SLICES = r", \((?:(?:slice\(None, None, None\)|None|Ellipsis)(?:, )?)*\)"
_IN_ORDER = re.compile(
    rf"(?:(?:view|reshape|flatten|unsqueeze|squeeze|contiguous) \(\('x',?{_NUMBERS}\)"
    rf"|getitem \(\('x'{_FULL_SLICES}\)), \[\]\)\((?P<inner>.*)\)"
)
"""The text of a tensor whose elements are those of another one in their order."""

_TRANSPOSED = re.compile(
    r"(?:(?:t|T|mT) \(\('x',\)|(?:transpose|swapaxes) \(\('x', (?:0, 1|1, 0|-1, -2|-2, -1)\)"
    r"|permute \(\('x', (?:1, 0|\(1, 0\))\)), \[\]\)\((?P<inner>.*)\)"
)
"""The text of a transposed matrix."""


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
    """The terms of one network in execution order, each once.

    `reasons` are the rules, in words, by which layers are the same only together with others.
    """

    def __init__(self) -> None:
        self.terms: list[NormalTerm] = []
        self.reasons: dict[str, str] = {}
        self._places: dict[object, int] = {}

    def input(self, name: str, position: int, shape: Shape, growth: Shape | None) -> int:
        """Add an input of the network."""
        return self._new(NormalTerm(PrimitiveStep("input", (position,), shape, ()), (), growth=growth, origin=name))

    def add(self, term: NormalTerm) -> int:
        """Add a term in its simplest form and return its number, which may be that of an earlier term."""
        if not term.inputs or term.draw or not term.is_known:
            return self._new(term)
        if len(term.inputs) == 1 and self._source(term).step.function == FILL:
            term = self._of_one_number(term)
        rule = _RULES.get(term.step.function)
        place = rule(self, term) if rule is not None and term.inputs else None
        if place is None and term.step.is_pointwise and not term.weights:
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

    def _of_one_number(self, term: NormalTerm) -> NormalTerm:
        """A step on a value that holds one number everywhere as another such number, if it is known."""
        (number,) = self._source(term).step.arguments
        if term.step.function in (*_LAYOUTS, MAX_POOL, MEAN):
            made = number
        elif term.step.function == CLIP:
            made = min(max(number, term.step.arguments[0]), term.step.arguments[1])
        elif term.step.function == MUL:
            made = number * term.step.arguments[0]
        elif term.step.function == ADD:
            made = number + term.step.arguments[0]
        elif term.step.function == MEAN_POOL and term.step.arguments[3] == prod(term.step.arguments[0]):
            made = number
        elif term.step.function == "Softmax Softmax":
            made = 1 / term.step.shape[1]
        else:
            return term
        return replace(term, step=fill(made, term.step.shape), inputs=())

    def _because(self, term: NormalTerm, reason: str) -> None:
        self.reasons.setdefault(term.origin, reason)

    def _below_layout(self, term: NormalTerm) -> int | None:
        """Apply a function of single values before a layout step that all of its inputs have."""
        source = self._source(term)
        if source.step.function == CAT and len(term.inputs) == 1:
            return self._below_joining(term)
        if source.step.function not in _LAYOUTS:
            return None
        inner = self.terms[source.inputs[0]]
        for place in term.inputs[1:]:
            other = self.terms[place]
            if (other.step, other.growth) != (source.step, source.growth):
                return None
            below = self.terms[other.inputs[0]]
            if (below.step.shape, below.growth) != (inner.step.shape, inner.growth):
                return None
        step = replace(term.step, shape=inner.step.shape)
        inputs = tuple(self.terms[place].inputs[0] for place in term.inputs)
        moved = self.add(replace(term, step=step, inputs=inputs, growth=inner.growth))
        return self.add(replace(source, inputs=(moved,)))

    def _below_joining(self, term: NormalTerm) -> int:
        """Apply a function of single values to each of the pieces that are joined."""
        source = self._source(term)
        pieces = ((place, self.terms[place]) for place in source.inputs)
        moved = [
            self.add(
                replace(term, step=replace(term.step, shape=piece.step.shape), inputs=(place,), growth=piece.growth)
            )
            for place, piece in pieces
        ]
        return self.add(replace(source, inputs=tuple(moved)))

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
        return self._permuted_together(term)

    def _permuted_together(self, term: NormalTerm) -> int | None:
        """Join the axes that stay next to each other, the batch apart."""
        source, dims = self._source(term), term.step.arguments
        groups: list[list[int]] = []
        for axis in dims:
            if groups and axis == groups[-1][-1] + 1 and axis > 1:
                groups[-1].append(axis)
            else:
                groups.append([axis])
        if len(groups) == len(dims) or source.growth is not None or term.growth is not None:
            return None
        ordered = sorted(groups)
        sizes = tuple(prod(source.step.shape[axis] for axis in group) for group in ordered)
        order = tuple(ordered.index(group) for group in groups)
        joined = self.add(replace(term, step=reshape(sizes), inputs=term.inputs))
        moved = permute(order, tuple(sizes[place] for place in order))
        inner = self.add(replace(term, step=moved, inputs=(joined,)))
        return self.add(replace(term, step=reshape(term.step.shape), inputs=(inner,)))

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
        if source.step.function == PAD:
            return self._cut_before_padding(term)
        if source.step.function != SLICE:
            return None
        outer = source.step.arguments
        if outer[0] > axis:
            return self._cut_in_order(term)
        if outer[0] < axis:
            return None
        positions = range(*outer[1:])[start : None if stop < 0 else stop : step]
        stride = positions.step if len(positions) > 1 else 1
        begin = positions.start
        return self._instead(term, cut(axis, begin, begin + stride * len(positions), stride, term.step.shape))

    def _cut_in_order(self, term: NormalTerm) -> int | None:
        """Cut the first axis first."""
        source = self._source(term)
        if source.growth is not None or term.growth is not None:
            return None
        axis, shape = term.step.arguments[0], self.terms[source.inputs[0]].step.shape
        first = (*shape[:axis], term.step.shape[axis], *shape[axis + 1 :])
        inner = self.add(replace(term, step=replace(term.step, shape=first), inputs=source.inputs))
        return self.add(replace(source, step=replace(source.step, shape=term.step.shape), inputs=(inner,)))

    def _cut_before_padding(self, term: NormalTerm) -> int | None:
        """Cut the values first, then pad by what is left of the padding."""
        source = self._source(term)
        (axis, start, stop, step), (amounts, mode, value) = term.step.arguments, source.step.arguments
        before, have = amounts[axis][0], self.terms[source.inputs[0]].step.shape
        first, last = max(start - before, 0), min(stop - before, have[axis])
        is_plain = mode == "constant" and step == 1 and min(amounts[axis]) >= 0 and first < last
        if not is_plain or source.growth is not None or term.growth is not None:
            return None
        kept = cut(axis, first, last, 1, (*have[:axis], last - first, *have[axis + 1 :]))
        inner = self.add(replace(term, step=kept, inputs=source.inputs))
        around = max(before - start, 0), max(stop - before - have[axis], 0)
        padding = pad((*amounts[:axis], around, *amounts[axis + 1 :]), term.step.shape, mode, value)
        return self.add(replace(source, step=padding, inputs=(inner,)))

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
        if low == 0 and high == inf and self._is_nonnegative(term.inputs[0]):
            self._because(term, "its input is never below 0")
            return term.inputs[0]
        if source.step.function == CLIP:
            first, second = (min(max(bound, low), high) for bound in source.step.arguments)
            return self._instead(term, clip(first, second, term.step.shape))
        return self.bent(term)

    def shifted(self, term: NormalTerm) -> int | None:
        source, (number,) = self._source(term), term.step.arguments
        if number == 0:
            return term.inputs[0]
        if source.step.function == ADD:
            sum_of_both = rounded(number + source.step.arguments[0])
            return self._instead(term, add_number(sum_of_both, term.step.shape))
        return None

    def scaled(self, term: NormalTerm) -> int | None:
        source, (number,) = self._source(term), term.step.arguments
        if number == 1:
            return term.inputs[0]
        if source.step.function == ADD:
            inner = self._instead(term, multiply(number, term.step.shape))
            shift = add_number(rounded(number * source.step.arguments[0]), term.step.shape)
            return self.add(replace(term, step=shift, inputs=(inner,)))
        return self.bent(term)

    def _slopes(self, place: int) -> tuple[int, float, float]:
        """A value as a number times another one: the place of that one, the number below 0, and the number above."""
        term = self.terms[place]
        if term.draw or not term.is_known:
            return place, 1, 1
        if term.step.function == MUL:
            return term.inputs[0], term.step.arguments[0], term.step.arguments[0]
        if term.step.function == SLOPES:
            return term.inputs[0], *term.step.arguments
        clipped = {(0, inf): (0, 1), (-inf, 0): (1, 0)}
        if term.step.function == CLIP and term.step.arguments in clipped:
            return term.inputs[0], *clipped[term.step.arguments]
        return place, 1, 1

    def bent(self, term: NormalTerm) -> int | None:
        """Write a multiple on each side of 0 of such a multiple as one."""
        own = {CLIP: {(0, inf): (0, 1), (-inf, 0): (1, 0)}.get(term.step.arguments)}
        outer = own.get(term.step.function, term.step.arguments * (2 if term.step.function == MUL else 1))
        base, below, above = self._slopes(term.inputs[0])
        if outer is None or base == term.inputs[0]:
            return None
        # A negative number turns the side on which the outer function reads the value.
        both = below * outer[below < 0], above * outer[above >= 0]
        return self._of_slopes(term, base, *both)

    def _of_slopes(self, term: NormalTerm, base: int, below: float, above: float) -> int:
        step = slopes(below, above, term.step.shape)
        if below == above == 0:
            return self.add(replace(term, step=fill(0, term.step.shape), inputs=()))
        self._because(term, f"with the layers around it, it is {step_text(step)}")
        return self.add(replace(term, step=step, inputs=(base,)))

    def _of_one_value(self, term: NormalTerm) -> list[tuple[int, float, float]]:
        """The inputs of a term as multiples of one value on each side of 0; empty if they are not."""
        shape = term.step.shape
        if any(self.terms[place].step.shape != shape for place in term.inputs):
            return []
        zero = [self.terms[place].step == fill(0, shape) for place in term.inputs]
        found = [self._slopes(place) for place in term.inputs]
        bases = {base for (base, _, _), is_zero in zip(found, zero) if not is_zero}
        if len(bases) != 1:
            return []
        (base,) = bases
        return [(base, 0, 0) if is_zero else one for one, is_zero in zip(found, zero)]

    def summed(self, term: NormalTerm) -> int | None:
        """Add multiples of one value."""
        parts = self._of_one_value(term)
        if not parts:
            return None
        return self._of_slopes(term, parts[0][0], sum(below for _, below, _ in parts), sum(a for _, _, a in parts))

    def extreme(self, term: NormalTerm) -> int | None:
        """The larger or the smaller of two multiples of one value."""
        parts = self._of_one_value(term)
        if not parts:
            return None
        pick, other = (max, min) if term.step.function == MAXIMUM else (min, max)
        # The larger of two multiples of a negative value has the smaller factor.
        return self._of_slopes(term, parts[0][0], other(b for _, b, _ in parts), pick(a for _, _, a in parts))

    def multiplied(self, term: NormalTerm) -> int | None:
        """Take numbers out of a product, and write the product of a value and a mask of its sign as its multiples."""
        factors = [self.terms[place] for place in term.inputs]
        for place, factor in enumerate(factors):
            if factor.step.function == MUL:
                inputs = (*term.inputs[:place], factor.inputs[0], *term.inputs[place + 1 :])
                inner = self.add(replace(term, inputs=inputs))
                return self.add(
                    replace(term, step=multiply(factor.step.arguments[0], term.step.shape), inputs=(inner,))
                )
        for mask, value in (term.inputs, term.inputs[::-1]):
            zero = self.add(replace(term, step=fill(0, term.step.shape), inputs=()))
            chosen = self._chosen(term, self._without_cast(mask), value, zero)
            if chosen is not None:
                return chosen
        return None

    def _without_cast(self, place: int) -> int:
        """A mask, for one that was converted to numbers."""
        term = self.terms[place]
        return term.inputs[0] if term.step.function.startswith(CAST) and term.inputs else place

    def chosen(self, term: NormalTerm) -> int | None:
        return self._chosen(term, *term.inputs)

    def _chosen(self, term: NormalTerm, mask: int, value: int, other: int) -> int | None:
        """One of two multiples of a value, chosen by the sign of that value or of a multiple."""
        compared = self.terms[mask]
        if compared.step.function != COMPARE or compared.step.arguments[1] != 0:
            return None
        parts = self._of_one_value(replace(term, inputs=(compared.inputs[0], value, other)))
        if not parts:
            return None
        (base, *signs), *branches = parts
        # The value at 0 is 0 on both branches. Below 0 a positive factor gives a negative value.
        holds = getattr(operator, compared.step.arguments[0])
        sides = [
            branches[not holds(sign * side, 0)][number] for number, side, sign in ((1, -1, signs[0]), (2, 1, signs[1]))
        ]
        return self._of_slopes(term, base, *sides)

    def softened(self, term: NormalTerm) -> int | None:
        """Leave out a number that is added to all values along the axis of a soft-max."""
        source = self._source(term)
        added = self.terms[source.inputs[0]] if source.step.function == RESHAPE else source
        if added.step.function not in (ADD, "Elementwise add", "Elementwise sub") or len(added.inputs) != 1:
            return None
        shape, axis = added.step.shape, _same_axis(added.step.shape, term.step.shape, 1)
        constants: tuple[Any, ...] = added.step.arguments[-1] if "constants" in added.step.arguments else ()
        is_along = axis is not None and added.step.function == ADD
        if axis is not None and len(constants) == 2 and constants[0] is None and constants[1] is not None:
            is_along = ((1,) * (len(shape) - len(constants[1])) + constants[1])[axis] == 1
        inner = self.terms[added.inputs[0]]
        if not is_along or (inner.step.shape, inner.growth) != (shape, added.growth):
            return None
        self._because(term, "a soft-max does not depend on what is added to all of its values")
        if source is added:
            return self.add(replace(term, inputs=added.inputs))
        return self.add(replace(term, inputs=(self.add(replace(source, inputs=added.inputs)),)))

    def biased(self, term: NormalTerm) -> int | None:
        """Add a number to each position of an axis before a layout step that keeps the axis."""
        source, (axis,) = self._source(term), term.step.arguments
        if source.step.function not in (RESHAPE, PERMUTE):
            return None
        inner = self.terms[source.inputs[0]]
        if source.step.function == PERMUTE:
            kept: int | None = source.step.arguments[axis]
        else:
            kept = _same_axis(inner.step.shape, source.step.shape, axis)
        if kept is None:
            return None
        step = replace(term.step, arguments=(kept,), shape=inner.step.shape)
        moved = self.add(replace(term, step=step, inputs=source.inputs, growth=inner.growth))
        return self.add(replace(source, inputs=(moved,)))

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
        function = term.step.function
        if function in (*_LAYOUTS, MAX_POOL, MEAN_POOL, MEAN):
            return self._is_nonnegative(term.inputs[0])
        if function == SLOPES:
            return bool(term.step.arguments[0] <= 0 <= term.step.arguments[1])
        if function == MUL:
            return bool(term.step.arguments[0] >= 0) and self._is_nonnegative(term.inputs[0])
        return function in _NONNEGATIVE or (function == CLIP and bool(term.step.arguments[0] >= 0))

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
        source = self._source(term)
        if source.step.function in (MUL, ADD):
            # The mean of multiples, or of values with a number added, is that of the mean.
            inner = self._instead(term, term.step)
            return self.add(replace(term, step=replace(source.step, shape=term.step.shape), inputs=(inner,)))
        merged = self._merged_mean(term)
        merged = self._mean_before_joining(term) if merged is None else merged
        if merged is not None:
            return merged
        shape, axes = self._source(term).step.shape, term.step.arguments
        if len(shape) < 3 or axes != tuple(range(2, len(shape))):
            return None
        ones = (1,) * len(axes)
        arguments = (shape[2:], ones, ones, prod(shape[2:]))
        return self.add(replace(term, step=PrimitiveStep(MEAN_POOL, arguments, term.step.shape)))

    def _mean_before_joining(self, term: NormalTerm) -> int | None:
        """The mean over axes that a reshape joins, if none is the batch axis."""
        source = self._source(term)
        if source.step.function != RESHAPE or 0 in term.step.arguments:
            return None
        inner = self.terms[source.inputs[0]]
        if not term.growth is source.growth is inner.growth is None:
            return None
        shape, axes = inner.step.shape, list[int]()
        for axis in term.step.arguments:
            joined = _joined_axes(shape, source.step.shape, axis)
            if joined is None or 0 in joined:
                return None
            axes += joined
        kept = tuple(1 if axis in axes else size for axis, size in enumerate(shape))
        mean = self.add(replace(term, step=mean_of_axes(tuple(axes), kept), inputs=source.inputs))
        return self.add(replace(term, step=reshape(term.step.shape), inputs=(mean,)))

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


def _joined_axes(inner: Shape, outer: Shape, axis: int) -> tuple[int, ...] | None:
    """The successive axes that a reshape from `inner` to `outer` joins in this one; None if there are none."""
    after, size = prod(outer[axis + 1 :]), outer[axis]
    axes = [place for place in range(len(inner)) if after <= prod(inner[place + 1 :]) < after * size]
    return tuple(axes) if axes and prod(inner[place] for place in axes) == size else None


CAST = "cast to "
"""Begins the function of a step that converts a mask to numbers."""

_NONNEGATIVE = frozenset({"Sigmoid Sigmoid", "Softmax Softmax", "Elementwise exp"})
"""The functions whose values are never below 0."""


def _same_axis(inner: Shape, outer: Shape, axis: int) -> int | None:
    """The axis that a reshape from `inner` to `outer` keeps as this one."""
    after = prod(outer[axis + 1 :])
    ends = (place for place, size in enumerate(inner) if (size, prod(inner[place + 1 :])) == (outer[axis], after))
    return next(ends, None)


_RULES: Mapping[str, Callable[[NormalTerms, NormalTerm], int | None]] = {
    RESHAPE: NormalTerms.reshaped,
    PERMUTE: NormalTerms.permuted,
    PAD: NormalTerms.padded,
    SLICE: NormalTerms.cut,
    CAT: NormalTerms.joined,
    CLIP: NormalTerms.clipped,
    ADD: NormalTerms.shifted,
    MUL: NormalTerms.scaled,
    SLOPES: NormalTerms.bent,
    SUM: NormalTerms.summed,
    MAXIMUM: NormalTerms.extreme,
    MINIMUM: NormalTerms.extreme,
    CHOOSE: NormalTerms.chosen,
    BIAS: NormalTerms.biased,
    "Softmax Softmax": NormalTerms.softened,
    MAX_POOL: NormalTerms.pooled,
    MEAN_POOL: NormalTerms.window_means,
    MEAN: NormalTerms.averaged,
    PRODUCT: NormalTerms.multiplied,
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
