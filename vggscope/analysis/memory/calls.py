"""A network's forward pass as the operator calls that torch makes: what each allocates and what autograd saves.

Most nodes are one call. A node that torch writes out in several kernels (local response normalisation) is several, and
under autocast the casts of weights and activations are calls of their own.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from vggscope.analysis.memory.allocation_log import BatchLinear
from vggscope.analysis.memory.step_config import Runtime
from vggscope.graph import Input, Network, Node, Parameter
from vggscope.ops.base import NOTHING, KernelCall, Op, SavedTensors, Shape, numel
from vggscope.record import record
from vggscope.units import ELEMENT_BYTES

LOSS = "(loss)"
LOG_SOFTMAX = "(log-softmax)"
"""Names of values that no module has. The calls of the loss belong to no layer."""

HALF_OPS = frozenset(
    {
        *("Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d", "Linear"),
        *("matmul", "mm", "bmm", "addmm", "baddbmm", "einsum", "scaled_dot_product_attention", "MultiheadAttention"),
    }
)
"""The ops that autocast runs in half precision."""

HALF_COPY = "@half"
"""Suffix of the name of a weight's copy in half precision."""

HALF = 2
SINGLE = 4
LABEL = 8
"""Bytes of a class label, an int64."""


class OperatorCall(NamedTuple):
    """One call: `inputs` and `output` are names of values, `size` is the output's size.

    What it allocates:
    `shares_memory`: the output uses the memory of the first input.
    `saves`: the values that autograd saves for backward.
    `extra`: further tensors that the call allocates and autograd saves; `copies`: those allocated only if there is a
    backward pass; `temporaries`: those freed within the call.
    `named`: values that a Python variable names during the call, beside the inputs. `named_until`: the layer up to
    which a variable names the output, where known.

    How its backward computes the gradient of an input from that of the output:
    `gradient`: in `new` memory, in the `same` memory, in a `part` of it, or `none`; `input_gradients` for each input,
    as Op.input_gradients.
    `returns_input`: it returns its input itself, which autograd does not see.
    `scratch`: for each input, how many tensors of the output's size are alive meanwhile; `backward_temporaries`: the
    sizes of further ones, for any input.
    `last_input_first`: the gradient of the last input comes first.
    `broadcasts`: inputs are broadcast and type-promoted. The gradient has the output's size and is then reduced to the
    input's.
    `drops_axes`: for each input, whether it has fewer axes than the output. The gradient is then always summed, and is
    a view, to which autograd adds no other gradient in place.
    `sums_gradients`: so does the gradient of a parameter.
    `factors`: the parameters among the factors of a product; None if the call is no product. A product saves each
    factor for the gradients of the others, and only if one of them has one.
    `relays_gradients`: the gradient of a weight has another memory layout and is then copied.
    `first_piece`: the output of the first of several calls that are one in torch, as the pieces of a `chunk` are. The
    gradients of all pieces together make the input's.
    `copies_gradient`: it first copies the gradient of the output, into another memory layout.
    `keeps_gradient`: the gradient of a parameter is a part of that of the output.
    `is_single`: the call is that of one sample alone, so that the gradient of a weight is not summed over samples.
    `gradient_sizes`: the size in which the gradient of each input is computed, as Op.gradient_shapes.
    `base`: the value that the call overwrites by way of its first input, a view of it. The output is then the base
    after the call.
    """

    layer: str
    inputs: tuple[str, ...]
    output: str
    size: BatchLinear
    shares_memory: bool = False
    saves: tuple[str, ...] = ()
    extra: tuple[BatchLinear, ...] = ()
    copies: tuple[BatchLinear, ...] = ()
    temporaries: tuple[BatchLinear, ...] = ()
    named: tuple[str, ...] = ()
    named_until: str = ""
    gradient: str = "new"
    input_gradients: tuple[str, ...] = ()
    returns_input: bool = False
    scratch: tuple[int, ...] = ()
    backward_temporaries: tuple[BatchLinear, ...] = ()
    last_input_first: bool = False
    broadcasts: bool = False
    drops_axes: tuple[bool, ...] = ()
    sums_gradients: bool = False
    factors: tuple[Parameter, ...] | None = None
    relays_gradients: bool = False
    first_piece: str = ""
    parameters: tuple[Parameter, ...] = ()
    copies_gradient: bool = False
    keeps_gradient: bool = False
    is_single: bool = False
    gradient_sizes: tuple[BatchLinear, ...] = ()
    base: str = ""


FLASH_STATE = 16, 8
EFFICIENT_STATE = 8, 8
"""Bytes of the seed and the offset that the flash kernel of attention saves, and the memory-efficient one."""

FUSED_FEATURES = 8
"""The fused kernels of a GPU take heads whose width is a multiple of this."""

EFFICIENT_ROWS = 32
"""The memory-efficient kernel of attention saves its sums for a multiple of so many rows."""


class Leaf(NamedTuple):
    """A tensor that calls on weights read: its name in the state dict, and the parameter if it is one.

    `copies_gradient`: its gradient has another memory layout, and is copied into that of the parameter.
    """

    key: str
    parameter: Parameter | None
    copies_gradient: bool


@record
class ForwardPass:
    """The calls in order, the size of each value, the half-precision copies of weights that autocast caches, and the
    parameters and buffers that calls on weights read.
    """

    calls: tuple[OperatorCall, ...]
    sizes: dict[str, BatchLinear]
    half_copies: tuple[str, ...]
    leaves: dict[str, Leaf]


def forward_pass(network: Network, runtime: Runtime, *, training: bool, autocast: bool) -> ForwardPass:
    """The calls of a forward pass and, in training, of the loss."""
    # Autocast leaves float64 tensors alone.
    builder = _CallBuilder(network, runtime, training, autocast and network.dtype != "float64")
    for node in network.nodes:
        builder.add_node(node)
    if training:
        builder.add_loss()
    return ForwardPass(tuple(builder.calls), builder.sizes, tuple(builder.half_copies.values()), builder.leaves)


class _CallBuilder:
    """`widths` has the bytes of one element of each value, `bases` the value whose memory a view shows: itself if it is
    a view of what a kernel returns. `integers` are the buffers of integers, to which autocast widens nothing.
    """

    def __init__(self, network: Network, runtime: Runtime, training: bool, autocast: bool) -> None:
        self.network, self.runtime, self.shapes = network, runtime, network.shapes
        self.training, self.autocast = training, autocast
        self.calls: list[OperatorCall] = []
        self.sizes = {tensor.name: input_size(network, tensor) for tensor in network.inputs}
        self.widths = {tensor.name: network.element_bytes(tensor.name) for tensor in network.inputs}
        self.half_copies: dict[str, str] = {}
        self.bases: dict[str, str] = {}
        self.leaves: dict[str, Leaf] = {}
        self.integers: set[str] = set()
        self.first_pieces = _first_pieces(network)

    def add(self, call: OperatorCall, width: int) -> None:
        self.calls.append(call)
        self.sizes[call.output] = call.size
        self.widths[call.output] = width

    def add_node(self, node: Node) -> None:
        shapes, shape = tuple([self.shapes[name] for name in node.inputs]), self.shapes[node.name]
        kernels = node.op.kernel_calls(shapes, shape)
        if node.op.stored_as:
            self._add_leaf(node, shape)
        elif node.op.is_rewritten:
            self._add_rewritten(node)
        elif kernels:
            self._add_kernels(node, kernels)
        else:
            self._add_single(node, shapes, shape)

    def _add_leaf(self, node: Node, shape: Shape) -> None:
        """Note a parameter or buffer that calls on weights read. It exists before the step."""
        width = self.widths[node.name] = self._own_width(node)
        self.sizes[node.name] = self._size(node, shape, width)
        if node.dtype.startswith(("int", "uint", "bool")):
            self.integers.add(node.name)
        parameter = next(iter(node.parameters), None)
        self.leaves[node.name] = Leaf(node.op.stored_as, parameter, node.copies_gradient)

    def _add_rewritten(self, node: Node) -> None:
        """Add another name for a weight of which a view has been overwritten."""
        written = self.bases[node.inputs[1]]
        call = OperatorCall(
            node.name,
            (written,),
            node.name,
            self.sizes[written],
            shares_memory=True,
            gradient="same",
            returns_input=True,
            named=node.inputs,
            named_until=node.named_until,
        )
        self.add(call, self.widths[written])

    def _add_kernels(self, node: Node, kernels: Sequence[KernelCall]) -> None:
        """Add the calls of an op that torch writes out in several kernels."""
        names = [*node.inputs]
        for position, kernel in enumerate(kernels, 1):
            is_last = position == len(kernels)
            output = node.name if is_last else f"{node.name}#{position}"
            read = tuple(names[i] for i in kernel.inputs)
            inputs, width = self._cast_inputs(kernel.function, read, node.name, self._own_width(node))
            call = OperatorCall(
                node.name,
                inputs,
                output,
                self._size(node, kernel.shape, width),
                shares_memory=kernel.shares,
                saves=(*[inputs[i] for i in kernel.keeps], *[output] * kernel.keeps_result),
                # The caller names the tensors that it passed, not autocast's casts of them.
                named=tuple(names[i] for i in (*kernel.inputs, *kernel.holds)),
                named_until=node.named_until if is_last else "",
                gradient="none" if node.detached else "same" if kernel.passes_gradient else "new",
                scratch=kernel.scratch,
                backward_temporaries=self._sizes(node, kernel.backward_temporaries, width),
                last_input_first=True,
            )
            self.add(call, width)
            if kernel.shares:
                self.bases[output] = self.bases.get(inputs[0], inputs[0])
            names.append(output)

    def _add_single(self, node: Node, shapes: tuple[Shape, ...], shape: Shape) -> None:
        """Add the one call of a node, after autocast's casts. `shapes` are those of its inputs."""
        op, parameters = node.op, node.parameters
        idle = op.active_in == "training" and not self.training
        saved = NOTHING if idle else op.saved_for_backward(shapes, shape)
        half_copies: tuple[str, ...] = ()
        own_width = self._own_width(node)
        inputs, width = node.inputs, own_width
        if self.autocast:
            if op.name in HALF_OPS and own_width != HALF:
                half_copies = tuple(self._half_copy(node.name, parameter) for parameter in reversed(parameters))
                parameters = ()
            # A parameter among the inputs is in float32.
            reads_parameter = op is not op.without_constants and len(parameters) > len(op.parameters())
            inputs, width = self._cast_inputs(
                op.name, node.inputs, node.name, own_width, SINGLE if reads_parameter else 0
            )
            width = own_width if node.dtype or op.fixed_dtype else width
        size = self._size(node, shape, width)
        if op.expands_last_input(shapes):
            expanded = (*op.gradient_shapes(shapes, shape)[-1][:-1], shapes[-1][-1])
            inputs = (*inputs[:-1], self._expanded(node, inputs[-1], expanded))
        # The matrix product of a linear layer that adds its bias separately.
        adds_bias = op.adds_bias_separately
        biases = tuple(p for p in parameters if len(p.shape) == 1) if adds_bias else ()
        product = f"{node.name}#products" if adds_bias else node.name
        call = OperatorCall(
            node.name,
            (*inputs, *reversed(half_copies)) if half_copies else inputs,
            product,
            size,
            shares_memory=idle or not op.allocates,
            extra=() if saved is NOTHING else tuple(self._extra(node, saved, width)),
            temporaries=tuple([self._size(node, shape, width) for shape in saved.passing]),
            named=node.inputs,
            named_until="" if adds_bias else node.named_until,
            gradient="none" if node.detached else "same" if idle else op.gradient,
            parameters=tuple(p for p in parameters if p not in biases) if biases else parameters,
            **self._backward(node, saved, inputs, half_copies, parameters, width) if self.training else {},
        )
        if call.shares_memory and call.inputs:
            call = self._of_view(call, overwrites=op.overwrites and not idle, is_input=idle or op.returns_input)
        elif op.kernel_shape(shapes, shape) is not None:
            self.bases[product] = product
        self.add(call, width)
        if adds_bias:
            addition = OperatorCall(
                node.name,
                (product,),
                node.name,
                size,
                shares_memory=self.runtime.adds_in_place,
                named=node.inputs,
                named_until=node.named_until,
                gradient="none" if node.detached else "same",
                parameters=biases,
            )
            self.add(addition, width)

    def _backward(
        self,
        node: Node,
        saved: SavedTensors,
        inputs: tuple[str, ...],
        half_copies: tuple[str, ...],
        parameters: tuple[Parameter, ...],
        width: int,
    ) -> dict[str, Any]:
        """What only a backward pass needs to know of a node's call, by field."""
        op, shape = node.op, self.shapes[node.name]
        shapes = tuple([self.shapes[name] for name in node.inputs])
        saves = [inputs[i] for i in saved.inputs]
        if half_copies:
            saves += [copy for copy, p in zip(half_copies, reversed(node.parameters)) if len(p.shape) > 1]
        if saved.output:
            saves.append(node.name)
        return {
            "saves": tuple(saves),
            "copies": tuple([self._size(node, shape, width) for shape in saved.copies]),
            "backward_temporaries": self._sizes(node, op.backward_temporaries(shapes, shape), width),
            "input_gradients": () if node.detached else op.input_gradients(shapes, shape),
            "returns_input": op.returns_input and not op.allocates,
            "last_input_first": op.broadcasts,
            "broadcasts": op.broadcasts,
            "drops_axes": tuple([len(given) < len(shape) for given in shapes]) if op.broadcasts else (),
            "sums_gradients": op.sums_gradients,
            "factors": _factors(op, parameters),
            "relays_gradients": op.relays_gradients,
            "first_piece": self.first_pieces.get(node.name, ""),
            "copies_gradient": node.copies_gradient,
            "keeps_gradient": node.keeps_gradient and op.gradient == "part",
            "is_single": node.keeps_gradient,
            "gradient_sizes": tuple([self._size(node, shape, width) for shape in op.gradient_shapes(shapes, shape)]),
        }

    def _expanded(self, node: Node, name: str, shape: Shape) -> str:
        """Expand a tensor that is the same for all samples to one for each, which takes no memory."""
        width = self.widths[name]
        is_single = node.keeps_gradient and numel(shape) * width == self.sizes[name].at(1)
        call = OperatorCall(
            node.name,
            (name,),
            f"{node.name}#mask",
            self._size(node, shape, width),
            shares_memory=True,
            gradient="same" if is_single else "new",
            broadcasts=is_single,
            is_single=is_single,
        )
        self.add(call, width)
        return call.output

    def _of_view(self, call: OperatorCall, *, overwrites: bool, is_input: bool) -> OperatorCall:
        """Return a call whose output shares the memory of its first input, as autograd records it.

        A view that is overwritten becomes a view of its base, which autograd takes for overwritten (CopySlices).
        """
        first, output = call.inputs[0], call.output
        base = self.bases.get(first, "" if overwrites or is_input else first)
        if not base:
            return call
        self.bases[output] = base
        if not overwrites or not self.training:
            return call
        written = f"{output}#base"
        saves = tuple(first if name == output else name for name in call.saves)
        size = self.sizes[base]
        written_call = call._replace(
            output=written, size=size, saves=saves, named_until="", base=base, copies_gradient=False
        )
        self.add(written_call, self.widths[base])
        self.bases[output] = written
        gradient = "same" if size == call.size else "new"
        return OperatorCall(
            call.layer,
            (written,),
            output,
            call.size,
            shares_memory=True,
            named=call.named,
            named_until=call.named_until,
            gradient=gradient,
            copies_gradient=call.copies_gradient,
            is_single=call.is_single,
        )

    def _size(self, node: Node, shape: Shape, width: int) -> BatchLinear:
        """The size of a tensor that a node allocates, once or for each sample."""
        if not shape or node.name in self.network.batchless:  # a single number is not one of each sample
            return BatchLinear(numel(shape) * width, 0)
        return size_per_sample(shape, width)

    def _sizes(self, node: Node, tensors: Iterable[tuple[Shape, int | None]], width: int) -> tuple[BatchLinear, ...]:
        """The sizes of tensors, each with its shape and the bytes of one element if they are not `width`."""
        return tuple([self._size(node, shape, own or width) for shape, own in tensors])

    def _extra(self, node: Node, saved: SavedTensors, width: int) -> Iterator[BatchLinear]:
        """The sizes of the tensors that a call allocates for backward beside its output."""
        yield from self._sizes(node, saved.extra, width)
        for shape in saved.masks:
            yield self._size(node, shape, self.runtime.mask_width or width)
        for shape in saved.sums:
            yield from self._attention_sums(node, shape, width)
        for shape in (*saved.batch_statistics, *(saved.statistics if self.training else ())):
            yield BatchLinear(numel(shape) * max(width, self.runtime.statistics_width), 0)

    def _attention_sums(self, node: Node, shape: Shape, width: int) -> Iterator[BatchLinear]:
        """The sizes of the sums that attention saves, and of the state of random numbers beside them."""
        features = self.network.input_shapes(node)[0][-1]
        has_mask = len(node.inputs) > len(("query", "key", "value"))
        if not self.runtime.fuses_attention or features % FUSED_FEATURES:
            yield self._size(node, shape, max(width, SINGLE))
        elif width == HALF and not has_mask:
            yield self._size(node, shape, SINGLE)
            yield from (BatchLinear(size, 0) for size in FLASH_STATE)
        else:
            yield from (BatchLinear(size, 0) for size in EFFICIENT_STATE)
            rows = -(-shape[-1] // EFFICIENT_ROWS) * EFFICIENT_ROWS
            if self.training:  # the memory-efficient kernel computes no sums for inference
                yield self._size(node, (*shape[:-1], rows), SINGLE)

    def _own_width(self, node: Node) -> int:
        """The width of a node's output without autocast."""
        return ELEMENT_BYTES[node.dtype or self.network.dtype]

    def _cast_inputs(
        self, function: str, names: tuple[str, ...], layer: str, own_width: int, least: int = 0
    ) -> tuple[tuple[str, ...], int]:
        """The inputs after autocast's casts, and the width of the output: `own_width` without autocast, and at least
        `least` for a promoting op.
        """
        if not self.autocast:
            return names, own_width
        widest = max((least, *(self.widths[name] for name in names if name not in self.integers))) or SINGLE
        if function in HALF_OPS:
            width = HALF
        elif function in self.runtime.float32_ops:
            width = SINGLE
        elif function in self.runtime.widened_ops:
            width = widest
        else:
            return names, widest
        return tuple(self._cast(name, width, layer) for name in names), width

    def _cast(self, name: str, width: int, layer: str) -> str:
        """Cast an activation to another width, anew for each layer that reads it."""
        before = self.widths[name]
        if before == width:
            return name
        fixed, per_sample = self.sizes[name]
        cast = f"{name}@{layer}"
        size = BatchLinear(fixed * width // before, per_sample * width // before)
        self.add(OperatorCall(layer, (name,), cast, size), width)
        return cast

    def _half_copy(self, layer: str, parameter: Parameter) -> str:
        """Copy a weight to half precision, once: autocast caches the copy until it ends."""
        name = parameter.name + HALF_COPY
        if parameter.name not in self.half_copies:
            size = BatchLinear(numel(parameter.shape) * HALF, 0)
            self.add(OperatorCall(layer, (), name, size, parameters=(parameter,)), HALF)
            self.half_copies[parameter.name] = name
        return name

    def add_loss(self) -> None:
        """Add the cross-entropy of the network's output with int64 labels: a log-softmax and the mean over labels.

        Of an output without an axis of classes, it is the sum of absolute values; a scalar is the loss itself.
        """
        scores = self.network.end
        axes = len(self.network.shapes[scores])
        if axes > 1:
            self._add_cross_entropy(scores)
            return
        summed, width = scores, self.widths[scores]
        if axes:
            summed = f"{LOSS} magnitude"
            self.add(OperatorCall("", (scores,), summed, self.sizes[scores], saves=(scores,)), width)
        scalar = BatchLinear(width, 0)
        loss = OperatorCall("", (summed,), LOSS, scalar, shares_memory=not axes, gradient="same", named=(scores,))
        self.add(loss, width)

    def _add_cross_entropy(self, logits: str) -> None:
        (scores,), width = self._cast_inputs("cross_entropy", (logits,), "", self.widths[logits])
        self.add(OperatorCall("", (scores,), LOG_SOFTMAX, self.sizes[scores], saves=(LOG_SOFTMAX,)), width)
        scalar = BatchLinear(width, 0)
        named = (logits, scores)
        mean = OperatorCall("", (LOG_SOFTMAX,), LOSS, scalar, saves=(LOG_SOFTMAX,), extra=(scalar,), named=named)
        self.add(mean, width)


def _factors(op: Op, parameters: tuple[Parameter, ...]) -> tuple[Parameter, ...] | None:
    """The parameters that an op multiplies; None if it saves its inputs whatever has a gradient."""
    if op.saves_weight_by_need:
        return tuple(parameter for parameter in parameters if len(parameter.shape) > 1)
    return parameters if op.saves_factors else None


def _first_pieces(network: Network) -> dict[str, str]:
    """For each piece of a tensor that one torch call cuts up, the first of the pieces that is read."""
    first_pieces: dict[str, str] = {}
    before: Node | None = None
    for node in network.nodes:
        if node.op.piece is not None and not node.name.rpartition(".")[2].startswith("select"):
            same_call = before is not None and before.inputs == node.inputs and (before.op.piece or 0) < node.op.piece
            first_pieces[node.name] = first_pieces[before.name] if same_call and before is not None else node.name
            before = node
        else:
            before = None
    return first_pieces


def size_per_sample(shape: Shape, width: int) -> BatchLinear:
    """The size of a tensor with this shape for each sample."""
    return BatchLinear(0, numel(shape) * width)


def input_size(network: Network, tensor: Input) -> BatchLinear:
    """The size of an input."""
    width = network.element_bytes(tensor.name)
    if tensor.batch_growth is None:
        return size_per_sample(tensor.shape, width)
    one = numel(tensor.shape)
    more = numel(tuple(size + growth for size, growth in zip(tensor.shape, tensor.batch_growth))) - one
    return BatchLinear((one - more) * width, more * width)


def label_size(network: Network) -> BatchLinear:
    """The size of the class labels: one for each position of the output, whose axis 1 is the classes, if it has one."""
    shape = network.shapes[network.end]
    return BatchLinear(0, numel(shape) // shape[1] * LABEL if len(shape) > 1 else 0)


def last_reads(calls: Sequence[OperatorCall]) -> dict[str, int]:
    """For each value that these calls compute, the position of the call after which no Python variable names it.

    That is `named_until` where tracing found it. Otherwise it is the last call that reads the value, or the last call
    of a module that the value was passed to: the caller holds its arguments until the module returns. The last value
    is returned and not listed.
    """
    last: dict[str, int] = {}
    computed: dict[str, int] = {}
    frames: list[tuple[str, int, set[str]]] = []
    before = ""
    for position, call in enumerate(calls):
        path = call.layer.partition(":")[0].rpartition(".")[0]  # a node's name has :2, :3... for further calls
        if path != before:
            before, parts = path, path.split(".") if path else []
            _return_from(frames, parts, position - 1, last)
            frames += [(part, position, set()) for part in parts[len(frames) :]]
        computed[call.output] = last[call.output] = position
        for name in call.inputs if call.named == call.inputs else (*call.inputs, *call.named):
            if name in computed:
                last[name] = position
                for _, start, arguments in reversed(frames):
                    if computed[name] >= start:
                        break
                    arguments.add(name)
    _return_from(frames, [], len(calls) - 1, last)
    ends = {call.layer: position for position, call in enumerate(calls) if call.layer}
    start_of_loss = max(ends.values(), default=-1) + 1
    last.update(
        {
            call.output: ends[call.named_until]
            for call in calls
            if call.named_until in ends and last[call.output] < start_of_loss
        }
    )
    if calls:
        last.pop(calls[-1].output)
    return last


def _return_from(frames: list[tuple[str, int, set[str]]], path: list[str], position: int, last: dict[str, int]) -> None:
    """Return from the modules that the next call is not in: their arguments are named until this position."""
    inside = 0
    while inside < min(len(frames), len(path)) and frames[inside][0] == path[inside]:
        inside += 1
    while len(frames) > inside:
        for name in frames.pop()[2]:
            last[name] = position


def head_parameters(network: Network) -> frozenset[str]:
    """The names of the parameters after the last layer that reduces the map: VGG's FC layers, a ResNet's `fc`.

    If there are none after it, those of the last layer with parameters.
    """
    start = 0
    for position, node in enumerate(network.nodes):
        areas = [_area(shape) for shape in network.input_shapes(node)]
        if areas and 0 < _area(network.output_shape(node)) < max(areas):
            start = position + 1
    owned = [node.parameters for node in network.nodes[start:] if node.parameters]
    if not owned:
        owned = [node.parameters for node in network.nodes if node.parameters][-1:]
    return frozenset(p.name for parameters in owned for p in parameters)


def stages(network: Network, calls: Sequence[OperatorCall]) -> tuple[range, ...]:
    """The positions of the calls of each stage that checkpointing recomputes from one tensor.

    A stage ends at the first call that reduces the map and whose output alone later calls read. The calls after the
    last such call are the head, which is not a stage.
    """
    ranges: list[range] = []
    start, area = 0, _area(network.input_shape)
    for position in _cut_points(calls, network.input_names):
        reduced = _area(network.shapes.get(calls[position].output, ()))
        if 0 < reduced < area:
            ranges.append(range(start, position + 1))
            start, area = position + 1, reduced
    return tuple(ranges)


def _area(shape: Shape) -> int:
    """The pixels of a map; 0 for any other tensor."""
    return numel(shape[2:]) if len(shape) == 4 else 0


def _cut_points(calls: Sequence[OperatorCall], inputs: Collection[str]) -> Iterator[int]:
    """The positions of calls whose output is all that later calls read, and is not overwritten."""
    last = {name: position for position, call in enumerate(calls) for name in call.inputs}
    needed_until = max((last.get(name, -1) for name in inputs), default=-1)
    for position, (call, following) in enumerate(pairwise(calls)):
        overwritten = following.shares_memory and following.gradient == "new"
        if needed_until <= position and not overwritten:
            yield position
        needed_until = max(needed_until, last.get(call.output, -1))
