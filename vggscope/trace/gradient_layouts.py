"""Follow the memory layout of gradients backward, to find where torch copies one before it can use it.

The backward of a reshape, and that of a product of more than two axes, gives the gradient another shape. Where its
layout does not allow a view, torch copies it. The layouts of the forward pass are those of a trace. Those of gradients
follow from them by the rules of this file, which state what torch's kernels return: each op names its own in
`gradient_layout`. Without a rule for what happens, nothing is said.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import replace
from math import prod
from types import MappingProxyType
from typing import Any, NamedTuple

from vggscope.graph import Network, Node, differentiable, with_weight_calls
from vggscope.ops.base import Op, Shape
from vggscope.ops.constant import WithConstants
from vggscope.record import changed
from vggscope.trace.recorder import Recorder
from vggscope.trace.weight_calls import WeightCalls

Strides = tuple[int, ...]


class StridedLayout(NamedTuple):
    """The shape of a tensor, and the distance in memory between its elements along each axis."""

    shape: Shape
    strides: Strides

    @property
    def is_contiguous(self) -> bool:
        """Whether the elements fill a block of memory in the order of the axes."""
        return _is_dense(self, range(len(self.shape)))

    @property
    def is_channels_last(self) -> bool:
        """Whether the elements of maps fill a block of memory, those of all channels at a position together."""
        return len(self.shape) == 4 and _is_dense(self, (0, 2, 3, 1))


LINES = 3
"""The axes of a sequence of rows."""


class UnknownLayout(Exception):
    """No rule tells the layout of a gradient."""


class InputGradients(NamedTuple):
    """The layout of each input's gradient, and whether torch first copies the gradient of the output.

    `is_kernels` is false for the layouts of tensors without data alone: torch's kernels return contiguous ones.
    """

    layouts: tuple[StridedLayout, ...]
    copies: bool = False
    is_kernels: bool = True


def contiguous(shape: Shape) -> StridedLayout:
    """Return the layout of a tensor whose elements are in the order of its axes."""
    return in_order(shape, range(len(shape)))


def in_order(shape: Shape, axes: Sequence[int]) -> StridedLayout:
    """Return the layout of a dense tensor whose axes lie in memory in this order, the outermost first."""
    strides, step = [0] * len(shape), 1
    for axis in reversed(axes):
        strides[axis] = step
        step *= max(shape[axis], 1)
    return StridedLayout(shape, tuple(strides))


def _is_dense(layout: StridedLayout, axes: Iterable[int]) -> bool:
    expected = in_order(layout.shape, tuple(axes)).strides
    return all(size == 1 or a == b for size, a, b in zip(layout.shape, layout.strides, expected))


def viewed(layout: StridedLayout, shape: Shape) -> StridedLayout | None:
    """Return the layout of a view of this shape; None if torch copies the tensor first (ATen's computeStride)."""
    strides: list[int] = []
    wanted = list(reversed(shape))
    place = 0
    step, elements = (layout.strides[-1], 1) if layout.shape else (1, 1)
    for axis in range(len(layout.shape) - 1, -1, -1):
        elements *= layout.shape[axis]
        is_chunk_end = axis == 0 or (layout.shape[axis - 1] != 1 and layout.strides[axis - 1] != elements * step)
        if not is_chunk_end:
            continue
        taken = 1
        while place < len(wanted) and (taken < elements or wanted[place] == 1):
            strides.append(taken * step)
            taken *= wanted[place]
            place += 1
        if taken != elements:
            return None
        if axis:
            step, elements = layout.strides[axis - 1], 1
    if place != len(wanted) and prod(wanted[place:]) != 1:
        return None
    strides += [1] * (len(wanted) - len(strides))
    return StridedLayout(shape, tuple(reversed(strides)))


def elementwise(shape: Shape, operands: Sequence[Strides]) -> StridedLayout:
    """Return the layout of what a kernel computes for each value, given the strides of its operands.

    torch sorts the axes by the strides of the first operand that tells two of them apart (TensorIterator).
    """
    axes = list(range(len(shape) - 1, -1, -1))  # the innermost first

    def is_before(one: int, other: int) -> bool | None:
        for strides in operands:
            if not strides[one] or not strides[other]:
                continue
            if strides[one] != strides[other]:
                return strides[one] < strides[other]
            if shape[one] > shape[other]:
                return False
        return None

    for start in range(1, len(axes)):
        place = start
        for other in range(start - 1, -1, -1):
            order = is_before(axes[other], axes[place])
            if order is False:
                axes[other], axes[place] = axes[place], axes[other]
                place = other
            elif order:
                break
    return in_order(shape, axes[::-1])


def with_copied_gradients(
    network: Network,
    one: Recorder,
    two: Mapping[str, StridedLayout] | None,
    named_until: Mapping[str, str] | None,
    *,
    has_data: bool = False,
) -> Network:
    """Return the network with the nodes that copy gradients, if they are known.

    `one`, `two` and `has_data` are as below. `named_until` is a node's on two samples, None if it is the same as on
    one.
    """
    copies = copied_gradients(network.nodes, one, two, has_data=has_data)
    if copies is None:
        return network
    nodes = tuple(_copying(node, *copies) for node in network.nodes)
    if named_until is not None:
        nodes = tuple(_with_name(node, named_until.get(node.name, "")) for node in nodes)
    knows = any(node.op.needs_layout for node in with_weight_calls(nodes))
    return replace(network, nodes=nodes, knows_layouts=knows)


def with_summed_gradients(network: Network) -> Network:
    """Return the network with the nodes that combine samples with what is the same for all of them, such as a bias.

    The gradient of that is summed over several samples. For one sample it may be that of the output, which then goes on
    to what computes it.
    """
    same = network.batchless and network.batchless & network.differentiable

    def keeps(node: Node) -> bool:
        if node.name in network.batchless or same.isdisjoint(node.inputs):
            return node.name in same
        return node.op.broadcasts or node.op.expands_last_input(network.input_shapes(node))

    if not same:
        return network
    nodes = tuple(changed(node, keeps_gradient=True) if keeps(node) else node for node in network.nodes)
    return replace(network, nodes=nodes)


def has_other_views(nodes: Iterable[Node]) -> bool:
    """Whether a view is a copy for two samples. Then the run on one does not tell how long its source is needed."""
    return any(node.batched_op and node.batched_op.allocates != node.op.allocates for node in nodes)


def _with_name(node: Node, until: str) -> Node:
    """Return a node with the last one that runs while a variable refers to its output, on several samples."""
    return changed(node, batched_until=None if until == node.named_until else until)


def _copying(node: Node, alone: Set[str], several: Set[str]) -> Node:
    """Return a node with whether it copies its gradient, given the nodes that do on one sample and on several."""
    if node.weight_calls:
        node = changed(node, weight_calls=tuple(_copying(call, alone, several) for call in node.weight_calls))
    if node.name not in alone and node.name not in several:
        return node
    return changed(node, copies_gradient=node.name in alone, copies_batched_gradient=node.name in several)


def copied_gradients(
    nodes: Sequence[Node], one: Recorder, two: Mapping[str, StridedLayout] | None, *, has_data: bool = False
) -> tuple[frozenset[str], frozenset[str]] | None:
    """Return the nodes whose backward first copies the gradient of their output, on one sample and on several.

    None if a layout is not known. `one` is the recorder of a run on one sample, and `two` are the layouts for two
    samples; without them, all tensors grow along their first axis, and are contiguous or have contiguous samples.
    `has_data`: the module runs on its weights, and so a step that torch is recorded in.
    """
    nodes = with_weight_calls(nodes)
    shapes = {**one.shapes, **one.weights.shapes}
    if two is None and not any(node.op.needs_layout or len(shapes[node.name]) == LINES for node in nodes):
        return frozenset(), frozenset()
    layouts = layouts_of(one)
    larger = {name: _doubled(layout) for name, layout in layouts.items()} if two is None else dict(two)
    weights = layouts_of(one.weights)
    layouts.update(weights)
    larger.update(weights)
    output = one.output or nodes[-1].name
    alone, several = (_copied_gradients(nodes, output, given) for given in (layouts, larger))
    if has_data and (alone, several) != tuple(
        _copied_gradients(nodes, output, given, as_kernels=True) for given in (layouts, larger)
    ):
        return None
    return None if alone is None or several is None else (alone, several)


def layouts_of(run: Recorder | WeightCalls) -> dict[str, StridedLayout]:
    """Return the shape and strides of the inputs and the nodes' outputs of a run, or of its calls on weights."""
    return {name: StridedLayout(run.shapes[name], strides) for name, strides in run.strides.items()}


def _doubled(layout: StridedLayout) -> StridedLayout:
    """Return the layout of a tensor with a second sample, if each sample is contiguous."""
    return StridedLayout((2 * layout.shape[0], *layout.shape[1:]), layout.strides) if layout.shape else layout


def _copied_gradients(
    nodes: Sequence[Node], output: str, layouts: Mapping[str, StridedLayout], *, as_kernels: bool = False
) -> frozenset[str] | None:
    """Return the nodes whose backward first copies the gradient of their output; None if a layout is not known.

    `layouts` are those of the inputs and the outputs of all nodes, and `output` is the value that the loss reads.
    `as_kernels` asks for the layouts of tensors with data, where these differ.
    """
    if output not in layouts or not layouts[output].is_contiguous:
        return None
    gradients = {output: contiguous(layouts[output].shape)}
    copies: set[str] = set()
    have_gradients = differentiable(nodes)
    try:
        bases = _bases(nodes, layouts)
        for node in reversed(nodes):
            gradient = gradients.pop(node.name, None)
            if gradient is None or node.name not in have_gradients:
                continue
            op, operands, places = _operands(node, layouts)
            found = _input_gradients(node, op, gradient, operands, layouts, bases)
            if as_kernels and not found.is_kernels:
                found = found._replace(layouts=tuple(contiguous(layout.shape) for layout in found.layouts))
            if found.copies:
                copies.add(node.name)
            for name, place in places:
                before, after = gradients.get(name), found.layouts[place]
                gradients[name] = after if before is None else _sum(before, after)
    except (UnknownLayout, LookupError, ValueError):  # sparse tensors have no layout, and those of vmap other axes
        return None
    return frozenset(copies)


def _input_gradients(
    node: Node,
    op: Op,
    gradient: StridedLayout,
    operands: Sequence[StridedLayout],
    layouts: Mapping[str, StridedLayout],
    bases: Mapping[str, StridedLayout],
) -> InputGradients:
    """Return the gradients of a node's inputs. `bases` are the layouts of the tensors whose memory views show."""
    if _has_whole_parameter(node.op, layouts[node.name].shape):
        raise UnknownLayout
    found = _RULES[op.gradient_layout](op, gradient, operands, layouts[node.name])
    if op.overwrites and node.name in bases:
        return _of_overwritten(found, gradient, layouts[node.inputs[0]], bases[node.name])
    return found


def _of_overwritten(
    found: InputGradients, gradient: StridedLayout, part: StridedLayout, base: StridedLayout
) -> InputGradients:
    """Return the gradients of an op that overwrites a view: autograd copies that of the base into the base's layout.

    It first shows the gradient of the view in the shape of the base.
    """
    if not base.is_contiguous:
        raise UnknownLayout
    is_whole = part.is_contiguous and prod(part.shape) == prod(base.shape)
    return InputGradients((part, *found.layouts[1:]), copies=is_whole and viewed(gradient, base.shape) is None)


def _bases(nodes: Sequence[Node], layouts: Mapping[str, StridedLayout]) -> dict[str, StridedLayout]:
    """Return for each view, or what a layer writes into one, the layout of the tensor whose memory it shows.

    Some layers return a view of what a kernel returns.
    """
    bases: dict[str, StridedLayout] = {}
    for node in nodes:
        own = layouts[node.name]
        shown = node.op.kernel_shape(tuple([layouts[name].shape for name in node.inputs]), own.shape)
        if shown is not None:
            bases[node.name] = contiguous(shown) if own.is_contiguous else own
        elif node.inputs and not node.op.allocates:
            first = node.inputs[0]
            is_itself = node.op.overwrites or node.op.returns_input or node.op.active_in == "training"
            if not is_itself or first in bases:
                bases[node.name] = bases.get(first, layouts[first])
    return bases


def _operands(
    node: Node, layouts: Mapping[str, StridedLayout]
) -> tuple[Op, list[StridedLayout], list[tuple[str, int]]]:
    """Return a node's op, the layouts of its inputs with those of constants, and each value that it reads by place."""
    if not isinstance(node.op, WithConstants):
        return node.op, [layouts[name] for name in node.inputs], [(name, i) for i, name in enumerate(node.inputs)]
    names = iter(node.inputs)
    operands, places = [], []
    for place, shape in enumerate(node.op.constants):
        if shape is None:
            name = next(names)
            places.append((name, place))
            operands.append(layouts[name])
        else:
            operands.append(contiguous(shape))
    return node.op.op, operands, places


def _has_whole_parameter(op: Op, output: Shape) -> bool:
    """Whether a factor is a parameter as large as the output, so that no gradient of it is summed."""
    constants = op.constants if isinstance(op, WithConstants) and op.sums_gradients else ()
    return any(shape is not None and prod(shape) == prod(output) for shape in constants)


def _sum(one: StridedLayout, other: StridedLayout) -> StridedLayout:
    """Return the layout of the sum of two gradients of a value."""
    return elementwise(one.shape, (one.strides, other.strides))


def _usual(op: Op, gradient: StridedLayout, inputs: Sequence[StridedLayout], output: StridedLayout) -> InputGradients:
    """Most kernels return a contiguous gradient if all tensors are contiguous, and one with the channels last alike."""
    layouts = (gradient, *inputs, output)
    if all(layout.is_contiguous for layout in layouts):
        return _contiguous(op, gradient, inputs, output)
    if all(layout.is_channels_last for layout in layouts):
        return InputGradients(tuple(_channels_last(layout.shape) for layout in inputs))
    raise UnknownLayout


def _channels_last(shape: Shape) -> StridedLayout:
    return in_order(shape, (0, 2, 3, 1))


def _same(op: Op, gradient: StridedLayout, inputs: Sequence[StridedLayout], output: StridedLayout) -> InputGradients:
    return InputGradients((gradient,))


def _reshaped(
    op: Op, gradient: StridedLayout, inputs: Sequence[StridedLayout], output: StridedLayout
) -> InputGradients:
    shape = inputs[0].shape
    view = viewed(gradient, shape)
    return InputGradients((view or contiguous(shape),), copies=view is None)


def _cut(op: Op, gradient: StridedLayout, inputs: Sequence[StridedLayout], output: StridedLayout) -> InputGradients:
    """A new tensor with zeros around the gradient of the part."""
    if inputs[0].shape == output.shape:
        return InputGradients((gradient,))
    return _contiguous(op, gradient, inputs, output)


def _cut_up(op: Op, gradient: StridedLayout, inputs: Sequence[StridedLayout], output: StridedLayout) -> InputGradients:
    """The gradients of all pieces, joined: with the channels last if those of all pieces are laid out so."""
    if gradient.is_channels_last and not gradient.is_contiguous:
        raise UnknownLayout
    return _contiguous(op, gradient, inputs, output)


def _permuted(
    op: Any, gradient: StridedLayout, inputs: Sequence[StridedLayout], output: StridedLayout
) -> InputGradients:
    axes = len(output.shape)
    places = [[axis % axes for axis in op.dims].index(axis) for axis in range(axes)]
    return InputGradients((StridedLayout(inputs[0].shape, tuple(gradient.strides[place] for place in places)),))


def _contiguous(
    op: Op, gradient: StridedLayout, inputs: Sequence[StridedLayout], output: StridedLayout
) -> InputGradients:
    return InputGradients(tuple(contiguous(layout.shape) for layout in inputs))


def _following(
    op: Op, gradient: StridedLayout, inputs: Sequence[StridedLayout], output: StridedLayout
) -> InputGradients:
    """The gradient of a function of each value, computed from that of the output and what autograd saves."""
    if op.gradient == "same":
        return InputGradients((gradient,))
    return InputGradients((elementwise(output.shape, (gradient.strides, inputs[0].strides)),))


def _dropped(op: Op, gradient: StridedLayout, inputs: Sequence[StridedLayout], output: StridedLayout) -> InputGradients:
    """The kernel of a GPU returns a contiguous gradient, or one with the channels last; the CPU's keeps its layout."""
    if op.gradient != "same" and not (gradient.is_contiguous or gradient.is_channels_last):
        raise UnknownLayout
    return _following(op, gradient, inputs, output)


def _rectified(
    op: Op, gradient: StridedLayout, inputs: Sequence[StridedLayout], output: StridedLayout
) -> InputGradients:
    return InputGradients((elementwise(output.shape, (output.strides, gradient.strides)),))


def _normalized_rows(
    op: Any, gradient: StridedLayout, inputs: Sequence[StridedLayout], output: StridedLayout
) -> InputGradients:
    """That of a dense gradient keeps its layout, wherever its features lie, but for the order of the rows."""
    if output.shape[-1] <= 1 or gradient.strides[-1] == 1:
        return _contiguous(op, gradient, inputs, output)
    wide = [axis for axis, size in enumerate(output.shape) if size > 1]
    order = sorted(wide, key=lambda axis: -gradient.strides[axis])
    rows = [axis for axis in order if axis != len(output.shape) - 1]
    single = [axis for axis, size in enumerate(output.shape) if size <= 1]
    if not _is_dense(gradient, (*single, *order)) or len(op.normalized_shape) > 1:
        raise UnknownLayout
    if rows != sorted(rows):
        if order[0] != len(output.shape) - 1:
            raise UnknownLayout
        gradient = in_order(output.shape, (*single, order[0], *sorted(rows)))
    return InputGradients((gradient,), is_kernels=False)


def _divided_by_lengths(
    op: Any, gradient: StridedLayout, inputs: Sequence[StridedLayout], output: StridedLayout
) -> InputGradients:
    """The sum of the gradients of the quotient and of the lengths, which are contiguous."""
    shape = output.shape
    if 0 in gradient.strides:
        raise UnknownLayout
    lengths = _expanded(contiguous(op.lengths(shape)), shape)
    quotient = elementwise(shape, (gradient.strides, lengths))
    turned = elementwise(shape, (inputs[0].strides, lengths))
    return InputGradients((_sum(quotient, elementwise(shape, (lengths, turned.strides))),))


def _normalized_groups(
    op: Op, gradient: StridedLayout, inputs: Sequence[StridedLayout], output: StridedLayout
) -> InputGradients:
    if gradient.is_contiguous:
        return _contiguous(op, gradient, inputs, output)
    if gradient.is_channels_last:
        return InputGradients((_channels_last(inputs[0].shape),))
    raise UnknownLayout


def _convolved(
    op: Any, gradient: StridedLayout, inputs: Sequence[StridedLayout], output: StridedLayout
) -> InputGradients:
    shape = inputs[0].shape
    return InputGradients((_channels_last(shape) if op.channels_last else contiguous(shape),))


def _pooled(op: Op, gradient: StridedLayout, inputs: Sequence[StridedLayout], output: StridedLayout) -> InputGradients:
    shape = inputs[0].shape
    return InputGradients((_channels_last(shape) if inputs[0].is_channels_last else contiguous(shape),))


def _averaged(
    op: Op, gradient: StridedLayout, inputs: Sequence[StridedLayout], output: StridedLayout
) -> InputGradients:
    """The average of a whole map is a mean, which torch shows as a map with the channels last if it is one."""
    (maps,) = inputs
    if len(maps.shape) != len("NCHW") or set(output.shape[2:]) != {1}:
        return _usual(op, gradient, inputs, output)
    is_shown = maps.is_channels_last and not maps.is_contiguous
    return InputGradients((elementwise(maps.shape, ((*gradient.strides[:2], 0, 0),)),), copies=is_shown)


def _linear(op: Op, gradient: StridedLayout, inputs: Sequence[StridedLayout], output: StridedLayout) -> InputGradients:
    """The product of more than two axes is one of the rows of all of them."""
    given = inputs[0].shape
    matrix = viewed(inputs[0], (prod(given[:-1]), given[-1]))
    # The gradient of a matrix that lies by columns lies so too.
    is_by_columns = matrix is not None and matrix.strides == (1, matrix.shape[0]) and matrix.shape[1] > 1
    made = inputs[0] if is_by_columns else contiguous(given)
    is_copied = len(output.shape) > 2 and viewed(gradient, (prod(output.shape[:-1]), output.shape[-1])) is None
    return InputGradients((made,), copies=is_copied)


def _product(op: Op, gradient: StridedLayout, inputs: Sequence[StridedLayout], output: StridedLayout) -> InputGradients:
    if len(inputs) > 2:
        raise UnknownLayout
    left, right = (layout.shape for layout in inputs)
    if len(left) < LINES or left[:-2] != right[:-2]:
        raise UnknownLayout
    batch = (prod(output.shape[:-2]), *output.shape[-2:])
    return InputGradients((contiguous(left), contiguous(right)), copies=viewed(gradient, batch) is None)


def _contracted(
    op: Any, gradient: StridedLayout, inputs: Sequence[StridedLayout], output: StridedLayout
) -> InputGradients:
    """The product of batches of matrices that torch.einsum makes of two factors."""
    if len(op.copied) != len(inputs):
        raise UnknownLayout
    batch, rows, columns, summed = op.groups
    terms, _, made = op.equation.replace(" ", "").partition("->")
    sizes = {letter: size for term, each in zip(terms.split(","), inputs) for letter, size in zip(term, each.shape)}
    if any(sizes[letter] == 1 for letter in summed):
        raise UnknownLayout
    turned = StridedLayout(
        tuple(sizes[letter] for letter in batch + rows + columns),
        tuple(gradient.strides[made.index(letter)] for letter in batch + rows + columns),
    )
    matrices = tuple(prod(sizes[letter] for letter in group) for group in (batch, rows, columns))
    orders = batch + rows + summed, batch + summed + columns
    layouts = (
        in_order(each.shape, [term.index(letter) for letter in order])
        for term, order, each in zip(terms.split(","), orders, inputs)
    )
    return InputGradients(tuple(layouts), copies=viewed(turned, matrices) is None)


def _calculated(
    op: Any, gradient: StridedLayout, inputs: Sequence[StridedLayout], output: StridedLayout
) -> InputGradients:
    """The gradients of an addition, a product, ... of tensors that are broadcast."""
    if op.function in ("contiguous", "clone"):
        return InputGradients((gradient,))
    factors: list[Strides | None]
    if op.function == "mul" and len(inputs) == 2:
        factors = [_expanded(inputs[1], output.shape), _expanded(inputs[0], output.shape)]
    elif (
        op.function in ("add", "sub", "mul", "div") and len(inputs) <= 2 and (op.function != "div" or len(inputs) == 1)
    ):
        factors = [None] * len(inputs)
    else:
        return _usual(op, gradient, inputs, output)
    layouts = []
    for layout, factor in zip(inputs, factors):
        if layout.shape != output.shape:
            layouts.append(contiguous(layout.shape))
        elif op.function in ("add", "sub"):
            layouts.append(gradient)
        else:
            layouts.append(elementwise(output.shape, (gradient.strides, *([factor] if factor else ()))))
    return InputGradients(tuple(layouts))


def _expanded(layout: StridedLayout, shape: Shape) -> Strides:
    """The strides of a tensor that is broadcast to a shape."""
    more = len(shape) - len(layout.shape)
    own = zip(layout.shape, layout.strides, shape[more:])
    return (*(0,) * more, *(0 if size == 1 != whole else stride for size, stride, whole in own))


def _reduced(
    op: Any, gradient: StridedLayout, inputs: Sequence[StridedLayout], output: StridedLayout
) -> InputGradients:
    """The gradient of a sum is expanded, that of a mean then divided."""
    if not op.dim or op.function not in ("mean", "sum"):
        return _usual(op, gradient, inputs, output)
    shape = inputs[0].shape
    axes = {axis % len(shape) for axis in op.dim}
    given = iter(gradient.strides)
    strides = []
    for axis in range(len(shape)):
        own = next(given) if op.keepdim or axis not in axes else 0
        strides.append(0 if axis in axes and shape[axis] > 1 else own)
    expanded = StridedLayout(shape, tuple(strides))
    return InputGradients((expanded if op.function == "sum" else elementwise(shape, (expanded.strides,)),))


def _of_joined(
    op: Op, gradient: StridedLayout, inputs: Sequence[StridedLayout], output: StridedLayout
) -> InputGradients:
    return InputGradients(tuple(StridedLayout(layout.shape, gradient.strides) for layout in inputs))


def _of_stacked(
    op: Any, gradient: StridedLayout, inputs: Sequence[StridedLayout], output: StridedLayout
) -> InputGradients:
    axis = op.dim % len(output.shape)
    strides = gradient.strides[:axis] + gradient.strides[axis + 1 :]
    return InputGradients(tuple(StridedLayout(layout.shape, strides) for layout in inputs))


def _attended(
    op: Any, gradient: StridedLayout, inputs: Sequence[StridedLayout], output: StridedLayout
) -> InputGradients:
    """Attention's kernels return (batch, token, head, feature) for queries that are laid out so.

    The one that takes a mask does for all queries.
    """
    vectors, masks = inputs[:3], inputs[3:]
    if not all(map(_has_fused_kernel, vectors)) if masks else not all(map(_is_by_token, vectors)):
        raise UnknownLayout
    if len({layout.shape[:2] for layout in vectors}) > 1 or len({layout.shape[3] for layout in vectors}) > 1:
        raise UnknownLayout
    layouts = [in_order(layout.shape, (0, 2, 1, 3)) for layout in vectors]
    layouts += [_of_mask(mask, op.gradient_shapes([v.shape for v in inputs], output.shape)[-1]) for mask in masks]
    return InputGradients(tuple(layouts))


def _of_mask(mask: StridedLayout, made: Shape) -> StridedLayout:
    """The gradient of a mask is summed over the samples; that of one sample is a part of what the kernel returns."""
    batch, heads, queries, _ = made
    if mask.shape[1:3] != (heads, queries) or mask.shape[0] not in (1, batch) or not mask.is_contiguous:
        raise UnknownLayout
    return StridedLayout(mask.shape, contiguous(made).strides) if mask.shape[0] == batch else contiguous(mask.shape)


def _has_fused_kernel(layout: StridedLayout) -> bool:
    return len(layout.shape) == 4 and not layout.shape[-1] % FUSED_FEATURES


def _is_by_token(layout: StridedLayout) -> bool:
    if len(layout.shape) != 4:
        return False
    _, heads, tokens, features = layout.shape
    _, head, token, feature = layout.strides
    return feature == 1 and 1 < features <= WIDEST_HEAD and (heads == 1 or tokens == 1 or head < token)


def _of_weights(
    op: Any, gradient: StridedLayout, inputs: Sequence[StridedLayout], output: StridedLayout
) -> InputGradients:
    """Those of the layer's own inputs, and of weights that are inputs too."""
    own = len(inputs) - len(op.matrices)
    weights = inputs[own:]
    if getattr(op.op, "channels_last", False) or not all(layout.is_contiguous for layout in weights):
        raise UnknownLayout
    found = _RULES[op.op.gradient_layout](op.op, gradient, inputs[:own], output)
    return InputGradients((*found.layouts, *(contiguous(layout.shape) for layout in weights)), found.copies)


def _rewritten(
    op: Op, gradient: StridedLayout, inputs: Sequence[StridedLayout], output: StridedLayout
) -> InputGradients:
    """Autograd copies the gradient of a tensor of which a view is overwritten into the tensor's own layout."""
    if not output.is_contiguous:
        raise UnknownLayout
    return _contiguous(op, gradient, inputs, output)


def _stored(op: Op, gradient: StridedLayout, inputs: Sequence[StridedLayout], output: StridedLayout) -> InputGradients:
    """A parameter keeps its gradient in its own layout."""
    own = zip(output.shape, output.strides, gradient.strides)
    return InputGradients((), copies=any(size != 1 and one != other for size, one, other in own))


FUSED_FEATURES = 8
"""The fused kernels of attention take a mask for heads whose width is a multiple of this."""

WIDEST_HEAD = 256
"""The most features of a head for which a GPU has fused kernels in every dtype."""


Rule = Callable[[Any, StridedLayout, Sequence[StridedLayout], StridedLayout], InputGradients]

_RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "usual": _usual,
        "same": _same,
        "contiguous": _contiguous,
        "elementwise": _following,
        "dropout": _dropped,
        "elementwise of the output": _rectified,
        "broadcast": _calculated,
        "expanded": _reduced,
        "reshaped": _reshaped,
        "permuted": _permuted,
        "zero-padded": _cut,
        "joined": _cut_up,
        "part": _of_joined,
        "part along an axis": _of_stacked,
        "convolved": _convolved,
        "pooled": _pooled,
        "averaged": _averaged,
        "product of rows": _linear,
        "batched product": _product,
        "contraction": _contracted,
        "attention": _attended,
        "normalized rows": _normalized_rows,
        "normalized groups": _normalized_groups,
        "divided by lengths": _divided_by_lengths,
        "weight inputs": _of_weights,
        "stored": _stored,
        "rewritten": _rewritten,
    }
)
"""The rules, by what an op says in `gradient_layout`."""
