"""Run forward on one sample, on two and on a given batch, and find how its nodes grow with the batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

from vggscope.graph import Input, Node, Output
from vggscope.ops.base import Shape, shape_by_rule
from vggscope.record import changed, record
from vggscope.trace.failure import explain
from vggscope.trace.forward import META, Forward
from vggscope.trace.gradient_layouts import StridedLayout, has_other_views, layouts_of
from vggscope.trace.inputs import CallInputs
from vggscope.trace.layout import with_layout_of
from vggscope.trace.other_batches import MANY, extended, growth_of, uses_own_numbers
from vggscope.trace.recorder import Recorder
from vggscope.trace.watch import Watch
from vggscope.units import count_text

TensorT = TypeVar("TensorT", Input, Output)


@record
class SampleRuns:
    """The nodes, inputs and outputs for one sample with their growth, or without growth if `single` is a reason.

    `layouts` returns those for two samples, None if each tensor just has a second sample. `named_until` are those for
    two samples, None if they are the same.
    """

    watch: Watch
    error: Exception | None
    nodes: tuple[Node, ...]
    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...]
    ran_on: CallInputs
    single: str | None = None
    layouts: Callable[[], Mapping[str, StridedLayout]] | None = None
    named_until: Mapping[str, str] | None = None


def on_samples(forward: Forward, inputs: CallInputs) -> SampleRuns:
    """Run forward on one sample, on two, and on a given batch that may not be proportional to them."""
    first = inputs.for_samples(1)
    alone, error = forward(first)
    if alone.others is not None and alone.others.are_read and (error is not None or alone.others.need_plain_sizes):
        alone, error = replace(forward, follows_batches=False)(first)  # what took these numbers may want plain ones
    if error is not None and alone.differentiates and not forward.gradients:
        return on_samples(replace(forward, gradients=True), inputs)
    if error is None and alone.asks_gradient and not forward.gradients:
        differentiable = on_samples(replace(forward, gradients=True), inputs)
        if differentiable.error is None:  # in-place code may fail on parameters that require gradients
            return differentiable
    if error is not None:
        reason = f"forward fails on one sample: {explain(alone, error)}"
        one_sample = SampleRuns(alone, error, *alone.recorded, first)
        return one_sample if inputs.batch == 1 else _on_whole_batch(forward, inputs, reason) or one_sample
    if not inputs.has_batch:
        return SampleRuns(alone, None, *alone.recorded, first, "the inputs have no batch axis")
    grown = None if alone.others is None else alone.others.grown(alone.recorder.finished())
    if grown is not None and alone.others is not None:
        alone.ops_hold_sizes = alone.others.ops_hold_sizes
        names = _named_until(forward, inputs, grown.nodes)
        runs = SampleRuns(alone, None, grown.nodes, grown.inputs, grown.outputs, first)
        return replace(runs, layouts=grown.layouts, named_until=names)
    alone.reads_sizes |= alone.others is not None and alone.others.are_irregular  # larger batches may be another case
    return _with_growth(forward, inputs, alone, first)


def _with_growth(forward: Forward, inputs: CallInputs, alone: Watch, first: CallInputs) -> SampleRuns:
    """Return the run on one sample with the growth by a second one, or the run on the whole batch if it differs."""
    pair, error = following(forward)(inputs.for_samples(2))
    alone.recorder.weights.compare(pair.recorder.weights)
    nodes, single = _nodes_with_growth(alone.recorder.finished(), alone.recorder, pair, error)
    alone.ops_hold_sizes = single is None and any(_holds_size(node, pair.recorder) for node in nodes)
    if single is None and alone.reads_sizes:
        single = _other_way(forward, inputs, nodes, alone, pair.recorder)
    batch = inputs.batch
    if batch > 1:
        irregular = single or _not_proportional(nodes)
        checked = batch > 2 or forward.device != META
        whole = _on_whole_batch(forward, inputs, irregular) if irregular or checked else None
        if whole and (irregular or not _is_extrapolated(alone.recorder, pair.recorder, whole.watch.recorder, batch)):
            return whole
    outputs = alone.recorder.outputs
    outputs = _tensors_with_growth(outputs, pair.recorder.outputs) if single is None else outputs
    inputs_grown = _tensors_with_growth(alone.recorder.inputs, pair.recorder.inputs)
    layouts, names = partial(layouts_of, pair.recorder), None if single else _named_until(forward, inputs, nodes)
    return SampleRuns(alone, None, nodes, inputs_grown, outputs, first, single, layouts, names)


def _named_until(forward: Forward, inputs: CallInputs, nodes: Sequence[Node]) -> Mapping[str, str] | None:
    """Return the last node that runs while a variable refers to each node's output, in a run on two samples; None if
    it is the same in the run on one.

    A view keeps the tensor alive that it shows, and a copy does not.
    """
    if not forward.memory or not has_other_views(nodes):
        return None
    pair, _ = replace(forward, follows_batches=False)(inputs.for_samples(2))
    return {node.name: node.named_until for node in pair.recorder.finished()}


def following(forward: Forward) -> Forward:
    """Return forward for a run after the first one, of which only nodes and sizes count."""
    return replace(forward, compares=False, describes=False, follows_batches=False)


def with_known_axes(result: SampleRuns, inputs: CallInputs) -> SampleRuns:
    """Return a result without a batch axis in its nodes if only one batch is known and its axis is not the first."""
    if inputs.batch_axis == 0 or (result.error is None and result.single is None):
        return result
    shapes = result.watch.recorder.shapes
    nodes = tuple(replace(node, batch_growth=(0,) * len(shapes[node.name])) for node in result.nodes)
    axes = map(inputs.batch_axis_of, inputs.tensors())
    given = tuple(
        replace(tensor, batch_growth=tuple(int(place == axis) for place in range(len(tensor.shape))))
        for tensor, axis in zip(result.inputs, axes)
    )
    return replace(result, nodes=nodes, inputs=given, outputs=_fixed(result.outputs))


def _not_proportional(nodes: tuple[Node, ...]) -> str | None:
    """Return a sentence on the first node whose cost is not proportional to the batch; None if there is none."""
    irregular = next((node.title for node in nodes if node.irregular), None)
    return irregular and f"the cost of {irregular} is not proportional to the batch"


def _other_way(
    forward: Forward, inputs: CallInputs, nodes: tuple[Node, ...], alone: Watch, two: Recorder
) -> str | None:
    """Return a sentence if forward runs otherwise on the batch whose figures are wanted than on one and two samples."""
    samples = forward.samples
    if samples <= 2 or samples == inputs.batch or forward.device != META:
        return None
    watch, error = following(forward)(inputs.for_samples(samples))
    if error is not None:
        return f"forward fails on {count_text(samples)} samples: {explain(watch, error)}"
    irregular = frozenset(node.name for node in nodes if node.irregular)
    if _is_extrapolated(alone.recorder, two, watch.recorder, samples, irregular):
        return None
    return f"forward takes another way for {count_text(samples)} samples"


def _is_extrapolated(
    one: Recorder, two: Recorder, whole: Recorder, samples: int, irregular: frozenset[str] = frozenset()
) -> bool:
    """Return whether each further sample of the batch adds what the second one adds: to all shapes and costs.

    The costs of `irregular` nodes are not compared.
    """
    if whole.nodes.keys() != one.nodes.keys():
        return False
    further = samples - 1
    for name in one.nodes:
        sizes = zip(one.shapes[name], two.shapes[name], whole.shapes[name])
        if any(first + (second - first) * further != size for first, second, size in sizes):
            return False
        costs = one.macs(name), two.macs(name), whole.macs(name)
        if name not in irregular and None not in costs and costs[0] + (costs[1] - costs[0]) * further != costs[2]:  # type: ignore[operator]
            return False
    return True


def _fixed(tensors: tuple[TensorT, ...]) -> tuple[TensorT, ...]:
    """Return inputs or outputs without a batch axis: none of their axes grows."""
    return tuple(replace(tensor, batch_growth=(0,) * len(tensor.shape)) for tensor in tensors)


def _tensors_with_growth(one: tuple[TensorT, ...], two: tuple[TensorT, ...]) -> tuple[TensorT, ...]:
    """Return the inputs or outputs of a run on one sample with their growth in the run on two."""
    return tuple(replace(x, batch_growth=growth_of(x.shape, y.shape)) for x, y in zip(one, two))


def _on_whole_batch(forward: Forward, inputs: CallInputs, reason: str | None) -> SampleRuns | None:
    """Return the run on the given batch; None if it fails."""
    watch, error = forward(inputs)
    if error is not None:
        return None
    reason = reason or "the samples of the batch differ in their shapes or costs"
    return SampleRuns(watch, None, *watch.recorded, inputs, reason)


def _nodes_with_growth(
    nodes: tuple[Node, ...], alone: Recorder, pair: Watch, error: Exception | None
) -> tuple[tuple[Node, ...], str | None]:
    """Return the nodes with their growth from one sample to two, or the reason why it is unknown."""
    if error is not None:
        return nodes, f"forward fails on two samples: {explain(pair, error)}"
    two = pair.recorder
    for node in nodes:
        other = two.nodes.get(node.name)
        if other is None or other.op.name != node.op.name or len(two.shapes[node.name]) != len(alone.shapes[node.name]):
            return nodes, f"forward takes another way for two samples, from {node.title} on"
    added = next((name for name in two.nodes if name not in alone.nodes), None)
    if added is not None:
        return nodes, f"forward takes another way for two samples: only they need {added}"
    growth = _Growth(alone, two)
    uneven = next((node.title for node in nodes if not growth.follows_rule(node)), None)
    if uneven is not None:
        return nodes, f"the output of {uneven} does not grow in proportion to the batch"
    return tuple(_node_with_growth(node, alone, two) for node in nodes), None


def _holds_size(node: Node, pair: Recorder) -> bool:
    """Return whether the op of a node has a size of one sample among its numbers, on which its memory may depend."""
    given = tuple([pair.shapes[source] for source in node.inputs])
    return uses_own_numbers(node.op) and shape_by_rule(node.op, given) != pair.shapes[node.name]


def _node_with_growth(node: Node, alone: Recorder, pair: Recorder) -> Node:
    """Return a node with the growth of its output and cost by a second sample."""
    one, two = alone.shapes[node.name], pair.shapes[node.name]
    growth = growth_of(one, two)
    cost, both = alone.macs(node.name), pair.macs(node.name)
    expected = cost if one == two or cost is None else 2 * cost
    batched_op = with_layout_of(node.op, pair.nodes[node.name].op)
    if growth is None and both == expected and batched_op is None:
        return node
    return changed(node, batch_growth=growth, irregular=both != expected, batched_op=batched_op)


_MORE_SAMPLES = (3, MANY)
"""The batches for which the rules are asked after a run on two samples."""


class _Growth:
    """The shapes of two runs, on one sample and on two, and those of larger batches if each sample adds as much."""

    def __init__(self, one: Recorder, two: Recorder) -> None:
        self._two = two
        self._shapes = [one.shapes, two.shapes, *(_extended(one.shapes, two.shapes, n) for n in _MORE_SAMPLES)]

    def follows_rule(self, node: Node) -> bool:
        """Return whether each further sample adds to a node's output what the second one adds, by the rule of its op.

        It does not for `x[:2]` and `x[::2]`. True if the rule of the op does not give the shapes of both runs.
        """
        if self._two.nodes[node.name].op != node.op:
            return True  # the op has a number that differs in each run, such as the size of a reshape

        def agrees(shapes: Mapping[str, Shape]) -> bool:
            return shape_by_rule(node.op, tuple([shapes[source] for source in node.inputs])) == shapes[node.name]

        one, two, *more = self._shapes
        return all(map(agrees, more)) or not (agrees(one) and agrees(two))


def _extended(one: Mapping[str, Shape], two: Mapping[str, Shape], samples: int) -> dict[str, Shape]:
    """Return the shapes for a larger batch than those of one sample and of two."""
    return {name: extended(shape, two[name], samples) for name, shape in one.items() if name in two}
