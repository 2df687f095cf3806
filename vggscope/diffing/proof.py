"""The proof that two networks compute the same output of the same input at evaluation, with the same weights.

Each network is written in its normal form. The proof follows both from the output to the inputs: each value of ours
must be the same function of the same values as the reference's. The weights must correspond one to one over all their
uses, so that a weight that one network shares is shared in the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from vggscope.graph import Network, Node, Parameter
from vggscope.ops.base import Op, Shape, numel
from vggscope.ops.normal_form import CAST, FILL, RESHAPE, NormalTerm, NormalTerms, PrimitiveStep, Weight
from vggscope.record import record


@record
class Mismatch:
    """Where a proof fails: a layer of ours, its counterpart, and the reason. Empty names are inputs.

    `known` is false where the two may be equal.
    """

    ours: str
    reference: str
    reason: str
    known: bool = True


@record
class Proof:
    """Whether two networks are proven equal.

    `mismatch` is the first place, in execution order, where they are not; None if they are equal. `reasons` are for
    each network, by the names of layers, why a layer is the same function only together with others.
    """

    mismatch: Mismatch | None
    reasons: tuple[Mapping[str, str], Mapping[str, str]] = ({}, {})


def proof(ours: Network, reference: Network) -> Proof:
    """The proof that two networks are equal, or where it fails."""
    if ours.nodes is reference.nodes or _are_equal_one_by_one(ours, reference):
        return Proof(None)
    if _has_batch(ours) != _has_batch(reference):
        return Proof(Mismatch(ours.end, reference.end, "the outputs differ in the batch axis"))
    outputs = _output_pairs(ours, reference)
    reasons: tuple[Mapping[str, str], Mapping[str, str]] = ({}, {})
    for samples in (1, SEVERAL) if _may_mix_samples(ours) or _may_mix_samples(reference) else (1,):
        left, right = _NetworkTerms(ours, samples), _NetworkTerms(reference, samples)
        pairs = [(left.places[mine], right.places[other]) for mine, other in outputs]
        once = ours.written_once, reference.written_once
        failure = _Matching(left.terms.terms, right.terms.terms, once).failure(pairs)
        if failure is not None:
            return Proof(failure)
        reasons = left.terms.reasons, right.terms.reasons
    return Proof(None, reasons)


SEVERAL = 3
"""A batch on which a reshape that mixes samples is none that drops axes of size 1."""


def _may_mix_samples(network: Network) -> bool:
    """Whether a node has the batch elsewhere than in the first axis, and other batches are known."""
    has_batches = network.single is None and any(given.batch_axis is not None for given in network.inputs)
    return has_batches and any(node.batch_growth is not None for node in network.nodes)


def _has_batch(network: Network) -> bool:
    """Whether the output has a batch axis; true of a network whose inputs have none."""
    is_batched = any(given.batch_axis is not None for given in network.inputs)
    return not is_batched or network.batch_axis_of(network.end) is not None


def _output_pairs(ours: Network, reference: Network) -> list[tuple[str, str]]:
    """The nodes whose outputs must be equal: those of all returned tensors if both return as many, else the last.

    Tensors at the same place correspond, such as `output[1]` or `logits`; without common places, those in the same
    order.
    """
    theirs = {output.name: output.source for output in reference.outputs}
    if len(ours.outputs) != len(theirs) or not all(o.source for o in (*ours.outputs, *reference.outputs)):
        return [(ours.end, reference.end)]
    if {output.name for output in ours.outputs} == theirs.keys():
        return [(output.source, theirs[output.name]) for output in ours.outputs]
    return [(mine.source, other) for mine, other in zip(ours.outputs, theirs.values())]


def _are_equal_one_by_one(ours: Network, reference: Network) -> bool:
    """Whether the nodes are equal in execution order, with the weights one to one: a proof without a normal form."""
    if len(ours.nodes) != len(reference.nodes) or len(ours.inputs) != len(reference.inputs):
        return False
    nodes = {mine.name: other.name for mine, other in zip(ours.inputs, reference.inputs)}
    nodes.update((mine.name, other.name) for mine, other in zip(ours.nodes, reference.nodes))
    same_inputs = all(mine.shape == other.shape for mine, other in zip(ours.inputs, reference.inputs))
    if not same_inputs or any(nodes[mine] != other for mine, other in _output_pairs(ours, reference)):
        return False
    names: dict[str, str] = {}
    for mine, other in zip(ours.nodes, reference.nodes):
        if not _are_equal_nodes(mine, other, tuple(nodes[name] for name in mine.inputs)):
            return False
        for one, another in zip(_tensor_names(mine), _tensor_names(other)):
            if names.setdefault(one, another) != another:
                return False
    return len(set(names.values())) == len(names)


def _are_equal_nodes(mine: Node, other: Node, inputs: tuple[str, ...]) -> bool:
    """Whether two nodes compute the same of `inputs`, if their weights correspond."""
    if mine.op != other.op or inputs != other.inputs or (mine.module is None) != (other.module is None):
        return False
    if mine.constants or other.constants or mine.op.reads_numbers or not mine.op.is_determined:
        return False
    if mine.reads_computed_weight or other.reads_computed_weight:
        return False
    shapes = [[parameter.shape for parameter in node.parameters] for node in (mine, other)]
    return shapes[0] == shapes[1] and (mine.dtype, mine.batch_growth) == (other.dtype, other.batch_growth)


def _tensor_names(node: Node) -> list[str]:
    """The names of a layer's parameters, and one for its running statistics."""
    names = [parameter.name for parameter in node.parameters]
    return [*names, f"the statistics of {node.module}"] if node.op.buffers() else names


def may_be_equal(ours: Network, reference: Network) -> bool:
    """Whether as many weights of each size are used, without which no proof is possible.

    A file that may hold one tensor for several layers does not tell how many there are.
    """
    if ours.written_once or reference.written_once:
        return True
    return _sizes(ours) == _sizes(reference)


def same_normal_form(ours: Op, reference: Op, shape: Shape, outputs: tuple[Shape | None, Shape]) -> bool:
    """Whether two ops of one input of this shape, with the same weights, have the same output, sizes of 1 apart.

    `outputs` are their shapes, None for an op that does not take the input.
    """
    is_certain = all(op.is_determined and not op.is_random and not op.reads_numbers for op in (ours, reference))
    if outputs[0] is None or not is_certain:
        return False
    left, right = _OneNode(ours, shape, outputs[0]), _OneNode(reference, shape, outputs[1])
    return _Matching(left.terms.terms, right.terms.terms).failure([(left.end, right.end)]) is None


def returns_input(op: Op, shape: Shape, output: Shape) -> bool:
    """Whether the output of an op on an input of this shape is its input."""
    is_certain = op.is_determined and not op.is_random and not op.reads_numbers
    return is_certain and _OneNode(op, shape, output).end == 0


def _sizes(network: Network) -> list[int]:
    used = {parameter.name: parameter for node in network.nodes for parameter in node.parameters}
    return sorted(numel(parameter.shape) for parameter in used.values())


BUFFER = "buffer {}"
"""The text of a running statistic, for which no parameter may stand: training changes them differently."""

COMPUTED = "computed"
"""Begins the text of a weight that a parametrization or a hook computes from the parameters."""


class _OneNode:
    """The terms of one op with weights of its own."""

    def __init__(self, op: Op, shape: Shape, output: Shape) -> None:
        self.terms = NormalTerms()
        self.terms.input("", 0, shape, None)
        weights = tuple(Weight("{}", (name,), (size,)) for name, size in op.parameters().items())
        weights += tuple(Weight(BUFFER, (name,), (size,)) for name, size in op.buffers().items() if size)
        form = op.normal_form((shape,), output)
        self.end = _add(self.terms, form.steps, [0], weights, NormalTerm(PrimitiveStep("", (), output), ()))


class _NetworkTerms:
    """The terms of a network on a batch of this size. `places` are the numbers of the inputs' and nodes' tensors."""

    def __init__(self, network: Network, samples: int) -> None:
        self.network, self.samples, self.terms = network, samples, NormalTerms()
        self._parameters = {parameter.name for parameter in network.parameters()}
        self.places: dict[str, int] = {}
        for position, given in enumerate(network.inputs):
            shape = self._shape(given.name)
            self.places[given.name] = self.terms.input(given.name, position, shape, given.batch_growth)
        left_out = network.side_outputs if len(network.outputs) == 1 else frozenset()
        for node in network.nodes:
            if node.name not in left_out:
                self.places[node.name] = self._place(node)

    def _shape(self, name: str) -> Shape:
        """The shape of an input or of a node's output on the batch."""
        shape, further = self.network.shapes[name], self.samples - 1
        if not further:
            return shape
        growth = self.network.growth_of(name)
        if growth is None:
            return (shape[0] * self.samples, *shape[1:])
        return tuple(size + added * further for size, added in zip(shape, growth))

    def _place(self, node: Node) -> int:
        if node.op.further_result is not None:
            return self._further_result(node, node.op.further_result)
        inputs, output = tuple(map(self._shape, node.inputs)), self._shape(node.name)
        places = [self.places[name] for name in node.inputs]
        weights = tuple(self._weights(node))
        template = self._template(node, node, weights)
        if node.op.converts and self._changes_dtype(node):
            step = PrimitiveStep(f"{CAST}{self.network.dtype_of(node.name)}", (), output)
            return _add(self.terms, (step,), places[:1], (), template)
        if template.draw or not template.is_known or self._changes_dtype(node):
            step = node.op.step(output)
            step = replace(step, arguments=(*step.arguments, node.dtype), is_pointwise=False, is_monotone=False)
            return _add(self.terms, (step,), places, weights, template)
        numbers = tuple(value.number for value in node.constants) or tuple(map(self._number, places))
        steps = node.op.normal_form(inputs, output, numbers).steps
        return _add(self.terms, steps, places, weights, template)

    def _number(self, place: int) -> float | None:
        """The number that a value holds everywhere, if it is such a constant."""
        step = self.terms.terms[place].step
        return step.arguments[0] if step.function == FILL else None

    def _template(self, node: Node, call: Node, weights: tuple[Weight, ...]) -> NormalTerm:
        """What all terms of a node have in common, for a result of `call`."""
        has_all = bool(call.constants) or not call.op.reads_numbers
        is_known = call.op.is_determined and has_all and all(weight.text for weight in weights)
        draw = call.name if call.op.is_random else ""
        step = PrimitiveStep("", (), self._shape(node.name))
        return NormalTerm(step, (), growth=node.batch_growth, draw=draw, is_known=is_known, origin=node.name)

    def _further_result(self, node: Node, position: int) -> int:
        """A further result of a call depends on the inputs of the call, not on its first result."""
        call = self.network.by_name[node.inputs[0]]
        step = call.op.step(self._shape(node.name))
        step = replace(step, arguments=(*step.arguments, "result", position), is_pointwise=False, is_monotone=False)
        weights = tuple(self._weights(call))
        template = self._template(node, call, weights)
        return _add(self.terms, (step,), [self.places[name] for name in call.inputs], weights, template)

    def _changes_dtype(self, node: Node) -> bool:
        """Whether a node mixes or changes dtypes, apart from comparing values, and from choosing values by a mask."""
        dtypes = {self.network.dtype_of(name) for name in node.inputs}
        if node.op.selects and len(dtypes) > 1:
            dtypes -= {"bool"}
        return not node.op.compares and not dtypes <= {self.network.dtype_of(node.name)}

    def _weights(self, node: Node) -> Iterator[Weight]:
        if node.constants:
            for value in node.constants:
                weight = Weight(value.text, value.names, value.shapes).in_order
                is_buffer = weight.text == "{}" and self._parameters.isdisjoint(weight.names)
                yield replace(weight, text=BUFFER) if is_buffer else weight
            return
        text = self._computation(node)
        for parameter in _in_order(node):
            yield Weight(text, (parameter.name,), (parameter.shape,))
        if node.module is not None:
            for name, shape in node.op.buffers().items():
                if shape:
                    yield Weight(BUFFER, (f"{node.module}.{name}".lstrip("."),), (shape,))

    def _computation(self, node: Node) -> str:
        """How a layer's weights follow from its parameters: `{}` if they are these."""
        if not node.reads_computed_weight:
            return "{}"
        start = f"{node.module}.parametrizations."
        functions = [other.op.name for other in self.network.nodes if other.name.startswith(start)]
        parameters = [parameter.name.removeprefix(f"{node.module}.") for parameter in node.parameters]
        return f"{COMPUTED} by {functions} from {{}} among {sorted(parameters)}"


def _in_order(node: Node) -> list[Parameter]:
    """The parameters of a layer in the order of its op, also if it computes its weights from tensors of other names."""
    if node.module is None or not node.reads_computed_weight:
        return list(node.parameters)
    names = list(node.op.parameters())

    def place(parameter: Parameter) -> int:
        parts = parameter.name.split(".")
        return next((i for i, name in enumerate(names) if any(p.startswith(name) for p in parts)), len(names))

    return sorted(node.parameters, key=place)


def _add(
    terms: NormalTerms,
    steps: tuple[PrimitiveStep, ...],
    places: list[int],
    weights: tuple[Weight, ...],
    template: NormalTerm,
) -> int:
    """Add the steps of an op on the values at `places`. `template` has what all its terms have in common."""
    values = list(places)
    for number, step in enumerate(steps):
        is_last = number == len(steps) - 1
        inputs = tuple(values[place] for place in step.inputs) if step.inputs else tuple(places)
        inputs = () if step.function == FILL else inputs
        term = replace(
            template,
            step=step,
            inputs=inputs,
            weights=_weights_of(step, weights),
            growth=template.growth if is_last else None,
        )
        values.append(terms.add(term))
    return values[-1]


def _weights_of(step: PrimitiveStep, weights: tuple[Weight, ...]) -> tuple[Weight, ...]:
    """The weights that a step reads."""
    if not step.reads_weights:
        return ()
    read = weights if step.weights is None else tuple(weights[place] for place in step.weights if place < len(weights))
    return tuple(weight.transposed for weight in read) if step.turns_weights else read


class _Matching:
    """The correspondence of the terms and weights of two networks, as far as it is found.

    `once` are the weights of each that may be shared or not: they correspond to any.
    """

    def __init__(
        self,
        left: list[NormalTerm],
        right: list[NormalTerm],
        once: tuple[frozenset[str], frozenset[str]] = (frozenset(), frozenset()),
    ) -> None:
        self.left, self.right, self.once = left, right, once
        self.hashes = _hashes(left), _hashes(right)
        self.reference_of: dict[str, str] = {}
        self.ours_of: dict[str, str] = {}
        self.failed: list[tuple[int, int, str]] = []

    def failure(self, outputs: list[tuple[int, int]]) -> Mismatch | None:
        """Why the terms of a pair of outputs are not equal, sizes of 1 in the shapes of the outputs apart."""
        reached: set[tuple[int, int]] = set()
        for left, right in outputs:
            shapes = [_without_ones(term.step.shape) for term in (self.left[left], self.right[right])]
            if shapes[0] != shapes[1]:
                return self._at(left, right, "the outputs differ in shape")
            reached |= self._reached(_below_reshape(self.left, left), _below_reshape(self.right, right))
        if self.failed:
            return self._at(*min(self.failed))
        for left, right in sorted(reached):
            reason = self._different_weights(self.left[left], self.right[right])
            if reason:
                return self._at(left, right, reason)
        return None

    def _at(self, left: int, right: int, reason: str) -> Mismatch:
        return Mismatch(self.left[left].origin, self.right[right].origin, reason, reason != NOT_KNOWN)

    def _reached(self, left: int, right: int) -> set[tuple[int, int]]:
        """All pairs of terms that must be equal, and in `failed` those that are not, weights left aside."""
        pending, seen = [(left, right)], {(left, right)}
        while pending:
            pair = pending.pop()
            one, other = self.left[pair[0]], self.right[pair[1]]
            reason = _different_ops(one, other)
            if reason:
                self.failed.append((*pair, reason))
                continue
            for inputs in zip(*self._ordered(one, other)):
                if inputs not in seen:
                    seen.add(inputs)
                    pending.append(inputs)
        return seen

    def _ordered(self, one: NormalTerm, other: NormalTerm) -> tuple[list[int], list[int]]:
        """The inputs of both, in an order in which they may be equal if they may be swapped."""
        sides = [list(one.inputs), list(other.inputs)]
        if one.step.commutes:
            for side, hashes in zip(sides, self.hashes):
                side.sort(key=hashes.__getitem__)
        return sides[0], sides[1]

    def _different_weights(self, one: NormalTerm, other: NormalTerm) -> str:
        """Match the weights of two equal terms; return why that contradicts other uses, else an empty text."""
        pairs = [(one.draw, other.draw)] if one.draw else []
        for mine, theirs in zip(one.weights, other.weights):
            pairs += zip(mine.names, theirs.names)
        for ours, reference in pairs:
            if ours in self.once[0] or reference in self.once[1]:
                continue
            if self.reference_of.setdefault(ours, reference) != reference:
                return (
                    f"it shares {ours} with an earlier layer, the reference has {reference} there, a tensor of its own"
                )
            if self.ours_of.setdefault(reference, ours) != ours:
                return f"it has {ours}, a tensor of its own, the reference shares {reference} with an earlier layer"
        return ""


def _hashes(terms: list[NormalTerm]) -> list[int]:
    """A number for each term that is equal for equal functions of equal inputs, whatever the weights are called."""
    hashes: list[int] = []
    for term in terms:
        inputs = [hashes[place] for place in term.inputs]
        weights = tuple((weight.text, tuple(map(numel, weight.shapes))) for weight in term.weights)
        hashes.append(hash((term.step, tuple(sorted(inputs) if term.step.commutes else inputs), weights)))
    return hashes


NOT_KNOWN = "not all that it computes with is known"
"""Why two terms are not proved equal that may be equal."""


def _different_ops(one: NormalTerm, other: NormalTerm) -> str:
    """Why two terms are different functions of their inputs, else an empty text."""
    if not (one.is_known and other.is_known):
        return NOT_KNOWN
    if one.step != other.step or one.growth != other.growth or len(one.inputs) != len(other.inputs):
        return "it computes something else"
    if len(one.weights) != len(other.weights):
        return "it reads other tensors"
    for mine, theirs in zip(one.weights, other.weights):
        if mine.text != theirs.text:
            computes = [weight.text.startswith(COMPUTED) for weight in (mine, theirs)]
            return _COMPUTES.get((computes[0], computes[1]), "it computes with other values")
        is_plain = mine.text in ("{}", BUFFER)
        sizes = [tuple(map(numel, weight.shapes)) if is_plain else weight.shapes for weight in (mine, theirs)]
        if sizes[0] != sizes[1]:
            return "its weights have other shapes"
    return ""


_COMPUTES = {
    (True, False): "it computes its weight from a parameter, the reference reads it as it is",
    (False, True): "it reads its weight as it is, the reference computes it from a parameter",
    (True, True): "it computes its weight otherwise",
}
"""Reasons by whether ours and the reference compute a weight, as a parametrization or pruning does."""


def _without_ones(shape: Shape) -> Shape:
    return tuple(size for size in shape if size != 1)


def _below_reshape(terms: list[NormalTerm], place: int) -> int:
    return terms[place].inputs[0] if terms[place].step.function == RESHAPE else place
