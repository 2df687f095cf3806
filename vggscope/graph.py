"""The Network: a frozen graph of named operations in execution order.

Every source returns a Network and every analysis reads one. It holds no tensors and needs no torch. Its shapes are
those of a batch of one; analyses scale them to other batches.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set
from dataclasses import field, replace
from functools import cached_property, lru_cache
from os import getcwd, path
from types import MappingProxyType
from typing import Literal, NamedTuple

from vggscope import result
from vggscope.errors import ShapeError, VggscopeError, names_options, option, printable
from vggscope.inputs import Inputs, InputSize
from vggscope.ops.base import NOTHING, Op, Shape, infer_output_shape, numel
from vggscope.ops.constant import with_weight_inputs
from vggscope.record import changed, record
from vggscope.recorded_step import RecordedStep, StepRequest
from vggscope.units import ELEMENT_BYTES, at_least, count_text, image_option, kernel_text, shape_text

INPUT = "input"
"""The name of a network's only input, by which nodes refer to it."""

OUTPUT = "output"
"""The name of the only tensor that forward returns, and of the nest that it returns."""

INPUT_MARK = " (input)"
"""What follows the name of an input that a module's path is too."""

MOST_DRAWN = 500
"""The most layers that a notebook draws by itself."""

ONLY_IN_TRAINING = "runs only in training"
"""Why no node reads a parameter of a head that runs in training alone."""

NOT_WRITTEN = MappingProxyType({"written": False})
"""The metadata of a field that belongs to one run and is left out of files."""

LARGEST_SIDE = 1024
"""The largest side, in pixels, that the search for the smallest input tries."""

LARGEST_SEARCH = 10**6
"""The most layers that this search visits in total: it tries fewer sizes of a deep network."""


@record
class Parameter:
    """A learned tensor. `name` is its key in the state dict; nodes with the same key share the parameter.

    `dtype` is torch's name of the type, empty for the network's own. `stored` is the number of elements in memory if it
    is not that of the shape: of a sparse tensor, and of one that packs two elements into a byte. `index_bytes` is the
    memory of a sparse tensor's indices.
    """

    name: str
    shape: Shape
    trainable: bool = True
    dtype: str = field(default="", repr=False)
    stored: int | None = field(default=None, repr=False)
    index_bytes: int = field(default=0, repr=False)


@record
class Buffer:
    """A tensor of a module that is not learned. `name` is its key in the state dict. The other fields are as a
    Parameter's.
    """

    name: str
    shape: Shape
    dtype: str = field(default="", repr=False)
    stored: int | None = field(default=None, repr=False)
    index_bytes: int = field(default=0, repr=False)


@record
class ConstantValue:
    """A tensor that a node reads beside its inputs: a weight, or a constant.

    - `text` says how forward computes it, with {} for each tensor of the state dict. `{}` alone is that tensor itself.
      The text of a tensor with known values holds these, or their digest. It is empty if the values are not known.
    - `names` are those tensors, and `shapes` theirs.
    - `number` is the value of all its elements, if they are equal and known.
    """

    text: str
    names: tuple[str, ...] = ()
    shapes: tuple[Shape, ...] = ()
    number: float | None = None


class CodePosition(NamedTuple):
    """A call in the user's own code: the file's full path, and the first and last line and column, from 1 and from 0.

    Columns count bytes, as in `ast`. They are -1 on Python 3.10, which does not tell them.
    """

    file: str
    line: int
    column: int = -1
    end_line: int = -1
    end_column: int = -1

    @property
    def text(self) -> str:
        """The line as `net.py:14`: its path relative to the current folder if it is below that.

        >>> CodePosition("/elsewhere/net.py", 14).text
        '/elsewhere/net.py:14'
        """
        return f"{shown_path(self.file)}:{self.line}"


def shown_path(file: str) -> str:
    """A path relative to the current folder if it is below that, else the full path."""
    return _shown_from(getcwd(), file)


@lru_cache(maxsize=256)
def _shown_from(here: str, file: str) -> str:
    # A summary asks for the same few files once for each layer.
    relative = path.relpath(file, here) if path.splitdrive(file)[0] == path.splitdrive(here)[0] else file
    return file if relative.startswith(path.pardir) else relative


@record
class Node:
    """One call of one operation.

    - `name` is unique in the network. For a call of a module it is the module's path.
    - `module` is that path, or None for a call of a function.
    - `label` is the name in the literature (conv1_1), or empty.
    - `inputs` are the names of earlier nodes, or INPUT.
    - `named_until` is the last node that runs while a Python variable refers to this node's output, if known. Only the
      memory analysis reads it.
    - `batch_growth` is how much each axis of the output grows with each further sample of a batch. None is the usual
      case: the first axis is the batch dimension.
    - `irregular` nodes have MACs that are not proportional to the batch.
    - `batched_op` is the op for batches above 1, if torch picks another memory layout for them. `batched_until` is then
      what `named_until` is for them, None if it is the same. Only the memory analysis reads them.
    - `copies_gradient` is whether the backward first copies the gradient of the output into another memory layout, and
      `copies_batched_gradient` whether it does for batches above 1. `keeps_gradient` is whether, for one sample, the
      gradient of a parameter is a part of that of the output, or that of a computed weight is not summed. Only the
      memory analysis reads them.
    - `detached` nodes run under torch.no_grad.
    - `custom_backward` is true in a torch.autograd.Function, whose backward is the user's code.
    - `reads_computed_weight` is true if the node reads a tensor that forward computes from weights alone.
    - `weight_calls` are the calls on weights alone that run between the node before and this one, as nodes, with a node
      for each parameter or buffer that they read. `weight_inputs` has the name of the one that computes it for each of
      the op's constants, then for each of the layer's weights; it is empty for a parameter, and for all of them if the
      calls are not known. Only the memory analysis reads them.
    - `dtype` is torch's name of the output's type, empty for the network's own.
    - `constants` are the tensors that it reads beside its inputs, in the order of the call. It is empty if they are the
      layer's parameters, or none.
    - `folded_norm` is true of a convolution into whose weights an exporter has folded the batch norm after it.
    - `built_at` are the calls in the user's own code that built the module, the innermost first: a call of its class,
      then the call of the function that holds it. `called_at` are those that ran the node. They are not written to
      files.
    """

    name: str
    op: Op
    inputs: tuple[str, ...]
    module: str | None = None
    label: str = ""
    parameters: tuple[Parameter, ...] = ()
    named_until: str = field(default="", compare=False, repr=False)
    batch_growth: Shape | None = field(default=None, compare=False, repr=False)
    irregular: bool = field(default=False, compare=False, repr=False)
    batched_op: Op | None = field(default=None, compare=False, repr=False)
    batched_until: str | None = field(default=None, compare=False, repr=False)
    copies_gradient: bool = field(default=False, compare=False, repr=False)
    copies_batched_gradient: bool = field(default=False, compare=False, repr=False)
    keeps_gradient: bool = field(default=False, compare=False, repr=False)
    detached: bool = field(default=False, repr=False)
    custom_backward: bool = field(default=False, compare=False, repr=False)
    reads_computed_weight: bool = field(default=False, compare=False, repr=False)
    weight_calls: tuple[Node, ...] = field(default=(), compare=False, repr=False)
    weight_inputs: tuple[str, ...] = field(default=(), compare=False, repr=False)
    dtype: str = field(default="", compare=False, repr=False)
    constants: tuple[ConstantValue, ...] = field(default=(), compare=False, repr=False)
    folded_norm: bool = field(default=False, compare=False, repr=False)
    built_at: tuple[CodePosition, ...] = field(default=(), compare=False, repr=False, metadata=NOT_WRITTEN)
    called_at: tuple[CodePosition, ...] = field(default=(), compare=False, repr=False, metadata=NOT_WRITTEN)

    @property
    def position(self) -> CodePosition | None:
        """Where the user's own code builds the layer, or else where it calls it; None if it is not known.

        >>> import vggscope
        >>> vggscope.network("D").nodes[0].position is None
        True
        """
        return next(iter((*self.built_at, *self.called_at)), None)

    @property
    def grows(self) -> bool:
        """Whether further samples extend the output."""
        return self.batch_growth is None or any(self.batch_growth)

    @property
    def passes_gradient(self) -> bool:
        """Whether the backward pass computes gradients of the node's inputs and weights."""
        return not self.detached and self.op.gradient != "none"

    @property
    def title(self) -> str:
        """The name of the layer in a message: `features.0 (conv1_1)`, or the path alone if there is no other label."""
        return f"{self.name} ({self.label})" if self.label not in ("", self.name) else self.name


def _predicts_memory(node: Node, *, has_gradient: bool) -> bool:
    """Whether the rules of a node's op give to the byte what torch allocates, for each batch."""
    if node.reads_computed_weight or node.custom_backward or (node.detached and not node.dtype):
        return False
    ops = (node.op, node.batched_op or node.op)
    return all(op.predicts_memory if has_gradient else op.predicts_without_gradient for op in ops)


def _differs_batched(node: Node) -> bool:
    """Whether a node is another for batches above 1."""
    is_same_gradient = node.copies_gradient == node.copies_batched_gradient
    is_same_gradient = is_same_gradient and not (node.keeps_gradient and node.grows)
    is_same = node.batched_op is None and node.batched_until is None and is_same_gradient
    return not is_same or any(map(_differs_batched, node.weight_calls))


def _batched(node: Node) -> Node:
    """Return a node as it is for batches above 1."""
    if not _differs_batched(node):
        return node
    return changed(
        node,
        op=node.batched_op or node.op,
        named_until=node.named_until if node.batched_until is None else node.batched_until,
        copies_gradient=node.copies_batched_gradient,
        keeps_gradient=node.keeps_gradient and not node.grows,
        weight_calls=tuple(map(_batched, node.weight_calls)),
    )


def differentiable(nodes: Iterable[Node]) -> frozenset[str]:
    """Return the names of the nodes whose output has a gradient in training."""
    names: set[str] = set()
    for node in nodes:
        is_trained = True in [parameter.trainable for parameter in node.parameters]
        if node.passes_gradient and (is_trained or not names.isdisjoint(node.inputs)):
            names.add(node.name)
    return frozenset(names)


def with_weight_calls(nodes: Iterable[Node]) -> tuple[Node, ...]:
    """Return the nodes with the calls that compute their weights as nodes of their own, which they read."""
    every: list[Node] = []
    owned: set[str] = set()
    for node in nodes:
        every += node.weight_calls
        owned.update(parameter.name for call in node.weight_calls for parameter in call.parameters)
        every.append(_with_weight_inputs(node, owned) if node.weight_calls or node.weight_inputs else node)
    return tuple(every)


def _with_weight_inputs(node: Node, owned: Set[str]) -> Node:
    """Return a node that reads its weights as inputs. `owned` are the parameters that calls on weights read."""
    if not node.weight_inputs:
        return changed(node, weight_calls=())
    op, inputs, count = with_weight_inputs(node.op, node.inputs, node.weight_inputs)
    parameters = tuple(parameter for parameter in node.parameters if parameter.name not in owned)
    return changed(
        node,
        op=op,
        inputs=inputs,
        parameters=parameters,
        reads_computed_weight=len(parameters) != count,
        weight_calls=(),
        weight_inputs=(),
    )


def module_node(path: str, op: Op, source: str, label: str = "") -> Node:
    """Return a node for the module at `path`, which reads the node `source`."""
    parameters = tuple(Parameter(f"{path}.{name}", shape) for name, shape in op.parameters().items())
    return Node(path, op, (source,), path, label, parameters)


def channels_first(shape: Shape) -> str | None:
    """Return the remedy for an input in the order height x width x channels, as in image files, else None.

    >>> channels_first((1, 224, 200, 3))
    'input_size is channels x height x width: (3, 224, 200)'
    """
    _, *sides, channels = shape
    if len(shape) != 4 or channels not in (1, 3) or min(sides) <= channels:
        return None
    moved = (channels, *sides)
    return f"{option('input_size')} is channels x height x width: {kernel_text(moved) if names_options() else moved}"


@record
class NamedTensor:
    """A tensor that forward receives or returns.

    `shape` has the batch axis. `dtype` is torch's name of the type, empty for the network's own.
    `batch_growth` is as a Node's: by how much each axis grows with each further sample.
    """

    name: str
    shape: Shape
    dtype: str = ""
    batch_growth: Shape | None = None

    def batched(self, batch: int) -> Shape:
        """Return the shape at a batch.

        >>> NamedTensor("x", (1, 3, 8, 8)).batched(32)
        (32, 3, 8, 8)
        """
        return _grown(self.shape, self.batch_growth, batch)

    @property
    def batch_axis(self) -> int | None:
        """The axis that grows with the batch, None if there is none.

        >>> NamedTensor("x", (5, 1, 8), batch_growth=(0, 1, 0)).batch_axis
        1
        """
        return _growing_axis(self.batch_growth, self.shape)

    @property
    def label(self) -> str:
        """The name without the mark that distinguishes an input from a module of the same name."""
        return self.name.removesuffix(INPUT_MARK)


FailureKind = Literal["size", "dtype", "mixed dtypes", "arguments", "code"]
"""What mends a forward pass that fails: an input of another size or dtype, a module of one dtype, other arguments, or
another code.
"""


class Failure(str):
    """Where and why a forward pass fails, with its kind and, if an input is known that fits, how to give it.

    `hides_rest`: the layers of a file end there, and what parameters the others have is not known.
    """

    kind: FailureKind
    advice: str
    hides_rest: bool

    def __new__(cls, text: str, kind: FailureKind = "size", advice: str = "", *, hides_rest: bool = False) -> Failure:
        failure = super().__new__(cls, text)
        failure.kind, failure.advice, failure.hides_rest = kind, advice, hides_rest
        return failure


def failure_remedy(failure: str) -> str:
    """Return the remedy for a forward pass that fails. That of a text of no kind is another input size.

    >>> failure_remedy("fc: 10 features are expected, the input has 3")
    'input_size gives another size'
    >>> failure_remedy(Failure("forward: NameError: x", "code"))
    'call the model on the same input to see the traceback'
    """
    if not isinstance(failure, Failure):
        failure = Failure(failure)
    if failure.advice:
        return failure.advice
    if failure.kind == "code":
        return "call the model on the same input to see the traceback"
    if failure.kind == "mixed dtypes":
        return "convert the module to one dtype in its code, as module.float() does"
    if failure.kind == "dtype":
        return dtype_remedy()
    if failure.kind == "arguments":
        once = f"{option('input_size')}, once for each argument of forward,"
        each = once if names_options() else "input_data, a tuple or a dict,"
        return f"{each} gives other inputs"
    return f"{option('input_size')} gives another size"


def dtype_remedy() -> str:
    """Return how to give inputs of another dtype.

    >>> dtype_remedy()
    'dtypes, one for each size in input_size, gives another dtype'
    """
    given = option("input_size")
    how = f"{given} SIZE:DTYPE" if names_options() else f"dtypes, one for each size in {given},"
    return f"{how} gives another dtype"


def _growing_axis(growth: Shape | None, shape: Shape) -> int | None:
    """Return the batch axis of a tensor; None if there is none, or if it holds the features of each sample too."""
    if len(shape) == 1:
        return 0 if (shape if growth is None else growth) == (1,) else None
    if growth is None:
        return 0 if shape else None
    return next((axis for axis, more in enumerate(growth) if more), None)


def _grown(shape: Shape, growth: Shape | None, batch: int) -> Shape:
    if batch == 1 or not shape:
        return shape
    if growth is None:
        return (shape[0] * batch, *shape[1:])
    return tuple(size + (batch - 1) * more for size, more in zip(shape, growth))


@record
class Output(NamedTensor):
    """A tensor that forward returns. Its name is its place: `output`, `output[1]` of a tuple, `logits` of a dict.

    `source` is the node or input whose tensor it is, empty if it does not depend on the inputs or is not known.
    """

    source: str = field(default="", kw_only=True, compare=False, repr=False)


@record
class Input(NamedTensor):
    """A tensor that forward receives, by the name that nodes refer to it by."""


def one_input(shape: Shape) -> tuple[Input, ...]:
    """The inputs of a network with one input of this shape, the batch axis first."""
    return (Input(INPUT, shape),)


@record
class TorchCount:
    """What torch itself tells of the run from which a network was traced.

    - `macs` are the multiply-accumulates of the operators that it dispatched; None if an operator has no formula.
    - `params` is the number of elements of the module's parameters.
    - `disagreements` are sentences on figures of vggscope that differ from them without a known reason.
    """

    macs: int | None
    params: int
    disagreements: tuple[str, ...] = ()


@record
class SamePadding:
    """A padding that a file computes from the size of what is padded, so that a layer has ceil(size / stride) outputs.

    `source` is the node or the input that is padded, `span` and `stride` are the layer's for each side.
    """

    source: str
    span: tuple[int, ...]
    stride: tuple[int, ...]

    def totals(self, size: tuple[int, ...]) -> tuple[int, ...]:
        """Return the padding at both ends of each side together.

        >>> SamePadding("input", (3,), (2,)).totals((224,)), SamePadding("input", (3,), (2,)).totals((225,))
        ((1,), (2,))
        """
        sides = zip(size, self.span, self.stride)
        return tuple(max((-(-width // stride) - 1) * stride + span - width, 0) for width, span, stride in sides)


@record
class Network:
    """A graph of nodes in execution order: the inputs of a node come before it.

    - `title` is the name with the one of the literature, for headings: `D (VGG-16)`; empty where there is no other.
    - `inputs` are the tensors that forward receives, for one sample, and `returned` are those that it returns; empty if
      it returns the tensor of the last node.
    - `unused` are the parameters that no executed node owns, each with the reason.
    - `warnings` are sentences for the reader of any result.
    - `failure` says where and why the forward pass fails. `nodes` are then those before the failure, and `failed` is
      the layer that fails, if it is one.
    - `mixed_batch` says where a sample becomes several rows of the output, or several samples become one, if forward
      reshapes the batch so.
    - `single` says why only a batch of one is known, if that is so.
    - `output` is the node whose tensor is the network's output, if it is not the last one. Of several tensors that
      forward returns it is the one that depends on the most weights, and the first of those. `output_place` is its
      index among them.
    - `given_batch` is how many samples the caller's inputs held; the shapes are those of one.
    - `tables` are the buffers that belong to no node: those of layers that do not run, and lookup tables.
    - `dtype` is the network's own floating-point type: that of most of its weights. A tensor whose `dtype` is empty has
      this type.
    - `steps` are the steps that torch was recorded in, for a module whose memory the rules do not predict.
    - `follows_rules` is false if the traced module does more than its ops tell: torch counts otherwise, forward turns
      autocast on, or its training step runs other code. It is false too if the trace was not asked for the memory.
    - `knows_layouts` is true if `copies_gradient` of the nodes is known, from the memory layouts of a trace.
    - `registers_all` is false if modules with parameters ran that are not registered: autograd computes gradients of
      parameters that the network does not have.
    - `makes_leaf` is true if forward makes a tensor require a gradient, which no parameter needs.
    - `without_gradient` is an operator of another library that forward calls and for which no gradient is registered;
      empty if there is none.
    - `sparse_call` is the first function of forward that reads or returns a sparse matrix, empty if there is none.
    - `sparse_gradients` are the parameters whose gradient torch stores as the rows that the batch reads.
    - `registered` are the names of the parameters in the order in which the module lists them, and an optimizer steps;
      empty if that is the order of first use.
    - `reads_values` is true if forward reads the values of tensors: on others it may run otherwise.
    - `other_backward` says why the backward pass of training is not that of the nodes, empty if it is. `in_training` is
      then the network that forward runs in training mode, if that is known. It is not written to files.
    - `training_step` is the network that forward runs in a training step where it has other nodes than at evaluation,
      such as auxiliary heads, and where rules predict its memory. It is not written to files.
    - `same_paddings` are the paddings that depend on the size of the input. They are not written to files.
    - `written_once` are the parameters that a file holds in one tensor for several layers: it does not tell whether the
      layers share it. They are not written to files.
    - `torch_count` is torch's own count in the run that was traced; None for a network without a module.
    - `answers_any` is true if the trace depends on its inputs alone: for another batch, for other steps and for the
      backward pass it would be the same. It is not written to files.
    """

    name: str
    inputs: tuple[Input, ...]
    nodes: tuple[Node, ...]
    unused: tuple[tuple[Parameter, str], ...] = ()
    warnings: tuple[str, ...] = ()
    failure: str | None = None
    failed: Node | None = None
    single: str | None = None
    output: str | None = None
    output_place: int = 0
    returned: tuple[Output, ...] = ()
    tables: tuple[Buffer, ...] = field(default=(), compare=False, repr=False)
    given_batch: int = field(default=1, compare=False, repr=False)
    dtype: str = field(default="float32", repr=False)
    mixed_batch: str | None = field(default=None, compare=False, repr=False)
    steps: tuple[RecordedStep, ...] = field(default=(), compare=False, repr=False)
    torch_count: TorchCount | None = field(default=None, compare=False, repr=False)
    follows_rules: bool = field(default=True, compare=False, repr=False)
    knows_layouts: bool = field(default=False, compare=False, repr=False)
    registers_all: bool = field(default=True, compare=False, repr=False)
    reads_values: bool = field(default=False, compare=False, repr=False)
    makes_leaf: bool = field(default=False, compare=False, repr=False)
    without_gradient: str = field(default="", compare=False, repr=False)
    sparse_call: str = field(default="", compare=False, repr=False)
    sparse_gradients: tuple[str, ...] = field(default=(), compare=False, repr=False)
    registered: tuple[str, ...] = field(default=(), compare=False, repr=False)
    other_backward: str = field(default="", compare=False, repr=False)
    in_training: Network | None = field(default=None, compare=False, repr=False, metadata=NOT_WRITTEN)
    training_step: Network | None = field(default=None, compare=False, repr=False, metadata=NOT_WRITTEN)
    answers_any: bool = field(default=False, compare=False, repr=False, metadata=NOT_WRITTEN)
    title: str = field(default="", compare=False, repr=False, metadata=NOT_WRITTEN)
    same_paddings: tuple[SamePadding, ...] = field(default=(), compare=False, repr=False, metadata=NOT_WRITTEN)
    written_once: frozenset[str] = field(default=frozenset(), compare=False, repr=False, metadata=NOT_WRITTEN)

    def __repr__(self) -> str:
        params = f"{at_least(self.parameter_count)}{count_text(self.parameters_known)}"
        layers = f"{len(self.nodes)} layers" + (", then it fails" if self.failure is not None else "")
        return f"<Network {printable(self.name)} at {shape_text(self.input_shape)}: {layers}, {params} parameters>"

    def _repr_svg_(self) -> str | None:
        """Return the diagram for a notebook. None, if it is too large or cannot be drawn, makes it print the repr."""
        if len(self.nodes) > MOST_DRAWN:
            return None
        try:
            return result.presentation().diagram(self)._repr_svg_()
        except VggscopeError:
            return None

    @property
    def input_shape(self) -> Shape:
        """The shape of the first input.

        >>> import vggscope
        >>> vggscope.network("D").input_shape
        (1, 3, 224, 224)
        """
        return self.inputs[0].shape

    @cached_property
    def input_names(self) -> frozenset[str]:
        """The names by which nodes refer to inputs.

        >>> import vggscope
        >>> vggscope.network("D").input_names
        frozenset({'input'})
        """
        return frozenset(given.name for given in self.inputs)

    @property
    def outputs(self) -> tuple[Output, ...]:
        """The tensors that forward returns; empty if its forward pass fails.

        >>> import vggscope
        >>> vggscope.network("D").outputs
        (Output(name='output', shape=(1, 1000), dtype='', batch_growth=None),)
        """
        if self.failure is not None:
            return ()
        if self.returned:
            return self.returned
        end, dtype = self.end, self.by_name[self.end].dtype if self.nodes else self.inputs[0].dtype
        return (Output(OUTPUT, self.shapes[end], dtype, self.growth_of(end), source=end),)

    @cached_property
    def shapes(self) -> dict[str, Shape]:
        """The output shape of each node, by name, and the shape of the input.

        Raises ShapeError, with the layer and an input size that fits, if a layer does not accept its input shape.

        >>> import vggscope
        >>> vggscope.network("D").shapes["features.0"]
        (1, 64, 224, 224)
        """
        shapes, problem = self._inferred
        if problem is not None:
            raise ShapeError(f"{problem}; the network's input is {shape_text(self.input_shape)}", self._remedy())
        return shapes

    @cached_property
    def _inferred(self) -> tuple[dict[str, Shape], str | None]:
        return self._infer({given.name: given.shape for given in self.inputs})

    def _infer(self, shapes: dict[str, Shape]) -> tuple[dict[str, Shape], str | None]:
        """Return the shapes before the first layer that does not accept its input, and the message about that layer.

        `shapes` are those of the inputs.
        """
        for node in self.nodes:
            try:
                shapes[node.name] = infer_output_shape(node.op, *(shapes[name] for name in node.inputs))
            except ShapeError as error:
                return shapes, f"{node.title}: {error.problem}"
        return shapes, None

    def _remedy(self) -> str:
        turned = channels_first(self.input_shape)
        if turned is not None and any(node.op.is_convolution for node in self.nodes):
            return turned
        if not self.takes_one_image:
            return f"{option('input_size')} gives another size"
        channels = self.input_shape[1]
        side = self.smallest_side()
        if side is None:
            return f"no square input up to {channels}x{self._largest_tried()}x{self._largest_tried()} fits this network"
        return f"the smallest square input that fits is {image_option((channels, side, side))}"

    def smallest_side(self) -> int | None:
        """Return the side in pixels of the smallest square input that every layer accepts, or None if none is found.

        >>> import vggscope
        >>> vggscope.network("D").smallest_side()
        32
        """
        return next((side for side in range(1, self._largest_tried() + 1) if self._fits(side)), None)

    def _largest_tried(self) -> int:
        return min(LARGEST_SIDE, LARGEST_SEARCH // (len(self.nodes) + 1))

    def _fits(self, side: int) -> bool:
        return self._infer({INPUT: (*self.input_shape[:2], side, side)})[1] is None

    def alerts(self) -> tuple[str, ...]:
        """Return the warnings that come before any figure: where the forward pass fails, or mixes the batch.

        >>> import vggscope
        >>> vggscope.network("D").alerts()
        ()
        """
        if self.failure is not None:
            return (f"it fails here: {self.failure}",)
        return (self.mixed_batch,) if self.mixed_batch is not None else ()

    def require_runnable(self) -> Network:
        """Return the network itself. Raises ShapeError, with the layer, if its forward pass fails.

        >>> import vggscope
        >>> vggscope.network("D").require_runnable().failure is None
        True
        """
        if self.failure is not None:
            raise ShapeError(f"{self.name} fails: {self.failure}", failure_remedy(self.failure))
        return self

    def truncated_at_failure(self) -> Network:
        """Return the network up to the first layer that does not accept its input, with that as its `failure`; the
        network itself if there is none.

        >>> import vggscope
        >>> vggscope.network("D", (3, 8, 8)).truncated_at_failure().failure
        'features.23 (pool4): a window of 2x2 does not fit its input of 1x1'
        """
        shapes, failure = self._inferred
        if failure is None:
            return self
        ran = len(shapes) - len(self.inputs)
        nodes, rest = self.nodes[:ran], self.nodes[ran:]
        owned = {parameter.name for node in nodes for parameter in node.parameters}
        left = {p.name: p for node in rest for p in node.parameters if p.name not in owned}
        unused = (*((parameter, "after the layer that failed") for parameter in left.values()), *self.unused)
        return replace(self, nodes=nodes, unused=unused, failure=failure, failed=rest[0], output=None, returned=())

    def with_input(self, shape: tuple[int, ...]) -> Network:
        """Return the same layers on an input of channels x height x width.

        Raises ShapeError if a layer of a file would have another padding on it.

        >>> import vggscope
        >>> vggscope.network("D").with_input((3, 64, 64)).shapes["features.30"]
        (1, 512, 2, 2)
        """
        sized = replace(self, inputs=one_input((1, *shape)), steps=(), training_step=None)
        ours, theirs = self._inferred[0], sized._inferred[0]
        for padding in self.same_paddings:
            if padding.source not in theirs:
                break
            before, after = (padding.totals(shapes[padding.source][2:]) for shapes in (ours, theirs))
            if before != after:
                where = f"{kernel_text(padding.span)} windows on the output of {padding.source}"
                change = f"{kernel_text(after)} and not {kernel_text(before)} pixels"
                raise ShapeError(
                    f"{self.name} has other padding on {kernel_text(shape)}: {change} for {where}",
                    f"give the file itself, with {option('input_size')}",
                )
        return sized

    def input_shapes(self, node: Node) -> tuple[Shape, ...]:
        """Return the input shapes of a node.

        >>> import vggscope
        >>> network = vggscope.network("D")
        >>> network.input_shapes(network.nodes[0])
        ((1, 3, 224, 224),)
        """
        shapes = self.shapes
        return tuple([shapes[name] for name in node.inputs])

    def output_shape(self, node: Node) -> Shape:
        """Return the output shape of a node.

        >>> import vggscope
        >>> network = vggscope.network("D")
        >>> network.output_shape(network.nodes[0])
        (1, 64, 224, 224)
        """
        return self.shapes[node.name]

    def batched(self, name: str, batch: int) -> Shape:
        """Return the output shape of a node, or of the input, at a batch. Raises ShapeError as `require_batch`.

        >>> import vggscope
        >>> vggscope.network("D").batched("features.0", 32)
        (32, 64, 224, 224)
        """
        self.require_batch(batch)
        return _grown(self.shapes[name], self.growth_of(name), batch)

    def batched_shapes(self, batch: int) -> dict[str, Shape]:
        """Return the output shape of each node, and of the inputs, at a batch. Raises ShapeError as `require_batch`.

        >>> import vggscope
        >>> vggscope.network("D").batched_shapes(32)["features.0"]
        (32, 64, 224, 224)
        """
        self.require_batch(batch)
        if batch == 1:
            return self.shapes
        growths = {given.name: given.batch_growth for given in self.inputs}
        growths.update({node.name: node.batch_growth for node in self.nodes})
        return {name: _grown(shape, growths[name], batch) for name, shape in self.shapes.items()}

    def growth_of(self, name: str) -> Shape | None:
        """By how much each axis of an input or of a node's output grows with each further sample; None where the first
        axis grows by its own size.

        >>> import vggscope
        >>> vggscope.network("D").growth_of("features.0") is None
        True
        """
        node = self.by_name.get(name)
        if node is not None:
            return node.batch_growth
        return next(given.batch_growth for given in self.inputs if given.name == name)

    def batch_axis_of(self, name: str) -> int | None:
        """Return the axis of an input or of a node's output that grows with the batch; None if there is none.

        >>> import vggscope
        >>> vggscope.network("D").batch_axis_of("features.0")
        0
        """
        return _growing_axis(self.growth_of(name), self.shapes[name])

    def dtype_of(self, name: str) -> str:
        """Return the dtype of an input or of a node's output.

        >>> import vggscope
        >>> vggscope.network("D").dtype_of("features.0")
        'float32'
        """
        node = self.by_name.get(name)
        if node is not None:
            return node.dtype or self.dtype
        return next(given.dtype for given in self.inputs if given.name == name) or self.dtype

    def element_bytes(self, name: str) -> int:
        """Return the bytes of one element of an input or of a node's output.

        >>> import vggscope
        >>> vggscope.network("D").element_bytes("features.0")
        4
        """
        return ELEMENT_BYTES[self.dtype_of(name)]

    def element_bytes_of(self, tensor: Parameter | Buffer) -> int:
        """Return the bytes of one element of a parameter or a buffer.

        >>> import vggscope
        >>> network = vggscope.network("D")
        >>> network.element_bytes_of(next(network.parameters()))
        4
        """
        return ELEMENT_BYTES[tensor.dtype or self.dtype]

    def bytes_of(self, tensor: Parameter | Buffer) -> int:
        """Return the memory of a parameter or a buffer.

        >>> import vggscope
        >>> network = vggscope.network("D")
        >>> network.bytes_of(next(network.parameters()))
        6912
        """
        elements = numel(tensor.shape) if tensor.stored is None else tensor.stored
        return elements * ELEMENT_BYTES[tensor.dtype or self.dtype] + tensor.index_bytes

    def for_batch(self, batch: int) -> Network:
        """Return the network with the ops that torch uses at a batch of this size.

        >>> import vggscope
        >>> network = vggscope.network("D")
        >>> network.for_batch(32) == network
        True
        """
        if self.steps:
            steps = tuple(step for step in self.steps if step.samples in (batch, None))
            return replace(self, steps=steps)._for_batch(batch)
        return self._for_batch(batch)

    def _for_batch(self, batch: int) -> Network:
        if batch == 1:
            return self
        network, training = self, self.training_step
        if training is not None:
            network = replace(self, training_step=training._for_batch(batch))
        if not any(map(_differs_batched, self.nodes)):
            return network
        return replace(network, nodes=tuple(map(_batched, self.nodes)))

    def recorded_step(self, request: StepRequest) -> RecordedStep | None:
        """Return the recorded step that answers a request, in its dtype if there is one, else in another.

        >>> import vggscope
        >>> vggscope.network("D").recorded_step(StepRequest(trains=True)) is None
        True
        """
        steps = [step for step in self.steps if step.serves(request)]
        return min(steps, key=lambda step: (step.request.dtype != request.dtype, step.samples is None), default=None)

    @cached_property
    def predicts_memory(self) -> bool:
        """Whether the rules of its ops give to the byte what torch allocates, at evaluation and in training.

        They do for the usual layers on one float input, if each layer has weights of its own and `follows_rules` holds.

        >>> import vggscope
        >>> vggscope.network("D").predicts_memory
        True
        """
        if self.training_step is not None or not self.follows_rules:
            return False
        calls, names = self.with_weight_calls.nodes, self.with_weight_calls.differentiable
        if any(not _predicts_memory(n, has_gradient=n.name in names) for n in calls):
            return False
        if not self.knows_layouts and any(n.op.needs_layout for n in self.with_weight_calls.nodes):
            return False
        if any(why == ONLY_IN_TRAINING for _, why in self.unused):
            return False
        return self._has_usual_tensors

    @property
    def _has_usual_tensors(self) -> bool:
        """Whether it is a network on one float input, with weights of its own for each layer, and returns all that its
        nodes compute.
        """
        if len(self.inputs) > 1 or self.inputs[0].batch_axis != 0 or self.single is not None:
            return False
        if not self._keeps_all_saved:
            return False
        calls = self.with_weight_calls.nodes
        parameters = [parameter for node in calls for parameter in node.parameters]
        dtypes = {t.dtype for t in self.inputs} | {p.dtype for p in parameters}
        dtypes |= {node.dtype for node in calls if not (node.detached and node.dtype.startswith(("int", "bool")))}
        is_real = not self.dtype.startswith("complex")
        return dtypes == {""} and is_real and len(parameters) == len({parameter.name for parameter in parameters})

    @cached_property
    def with_weight_calls(self) -> Network:
        """The network with the calls that compute weights as nodes of their own, whose outputs the layers read.

        >>> import vggscope
        >>> network = vggscope.network("D")
        >>> network.with_weight_calls is network
        True
        """
        if not any(node.weight_calls for node in self.nodes):
            return self
        return replace(self, nodes=with_weight_calls(self.nodes))

    @cached_property
    def differentiable(self) -> frozenset[str]:
        """The names of the nodes whose output has a gradient in training.

        >>> import vggscope
        >>> len(vggscope.network("A").differentiable) == len(vggscope.network("A").nodes)
        True
        """
        return differentiable(self.nodes)

    @cached_property
    def needs_gpu(self) -> bool:
        """Whether the rules of its ops predict the memory of a step for the kernels of a GPU alone.

        >>> import vggscope
        >>> vggscope.network("D").needs_gpu
        False
        """
        return any(node.op.needs_gpu(len(node.inputs)) for node in self.with_weight_calls.nodes)

    @property
    def _keeps_all_saved(self) -> bool:
        """Whether autograd keeps for the backward pass, or until forward returns, all that the nodes save.

        It frees at once what a node saves on which no returned tensor depends. Several returned tensors must be those
        of different nodes, and depend on all by operations that pass gradients.
        """
        sources = [tensor.source for tensor in self.returned] if len(self.returned) > 1 else [self.end]
        if len(sources) > 1 and (len(set(sources)) < len(sources) or not self.by_name.keys() >= set(sources)):
            return False
        if len(sources) > 1 and self.with_weight_calls is not self:
            return False
        ahead = set(sources)
        for node in reversed(self.nodes):
            if node.name in ahead and (len(sources) == 1 or node.passes_gradient):
                ahead.update(node.inputs)
            elif not self._saves_nothing(node):
                return False
        return True

    def _saves_nothing(self, node: Node) -> bool:
        """Whether autograd saves nothing of a node without weights."""
        inputs, output = self.input_shapes(node), self.output_shape(node)
        if node.parameters or node.weight_calls or node.weight_inputs or node.op.kernel_calls(inputs, output):
            return False
        return node.op.saved_for_backward(inputs, output)._replace(passing=()) == NOTHING

    @cached_property
    def predicts_training(self) -> bool:
        """Whether rules give to the byte what torch allocates in a training step.

        Those of its own ops do if it runs the same ones in training, else those of its `training_step`.

        >>> import vggscope
        >>> vggscope.network("D").predicts_training
        True
        """
        return (self.training_step or self).predicts_memory

    @property
    def uncounted(self) -> tuple[str, ...]:
        """The nodes that may have parameters that are not known, as a layer without a rule in a file.

        >>> import vggscope
        >>> vggscope.network("D").uncounted
        ()
        """
        return tuple(node.name for node in self.nodes if node.op.hides_parameters)

    @property
    def parameter_count(self) -> int | None:
        """The number of elements of all parameters; None if those of a layer are not known, or if a file is not read to
        its end.

        >>> import vggscope
        >>> vggscope.network("D").parameter_count
        138357544
        """
        ends_early = isinstance(self.failure, Failure) and self.failure.hides_rest
        return None if self.uncounted or ends_early else self.parameters_known

    @property
    def parameters_known(self) -> int:
        """The number of elements of the parameters that are known: all, unless `uncounted` names a layer.

        >>> import vggscope
        >>> vggscope.network("D").parameters_known
        138357544
        """
        return sum([numel(parameter.shape) for parameter in self._parameters])

    @cached_property
    def predicts_inference(self) -> bool:
        """Whether the rules of its ops give to the byte what torch allocates in a forward pass at evaluation.

        They do not need those layers that run only in training, such as the auxiliary heads of GoogLeNet.

        >>> import vggscope
        >>> vggscope.network("D").predicts_inference
        True
        """
        if self.predicts_memory:
            return True
        others = tuple((parameter, why) for parameter, why in self.unused if why != ONLY_IN_TRAINING)
        if others == self.unused and self.training_step is None:
            return False
        return replace(self, unused=others, training_step=None).predicts_memory

    def predicts_step(self, request: StepRequest) -> bool:
        """Whether the rules of its ops give to the byte what torch allocates in a step.

        >>> import vggscope
        >>> vggscope.network("D").predicts_step(StepRequest(trains=True))
        True
        """
        network = self if self.training_step is None or not request.trains else self.training_step
        is_known = self.predicts_training if request.trains else self.predicts_inference
        return is_known and (request.on_gpu or not network.needs_gpu)

    def require_batch(self, batch: int) -> None:
        """Raise ShapeError if the batch is above 1 and the network is known for one sample only.

        >>> import vggscope
        >>> vggscope.network("D").require_batch(256)
        """
        if batch > 1 and self.single is not None:
            raise ShapeError(
                f"{self.name} is known for the batch of its inputs alone: {self.single}", f"leave out {option('batch')}"
            )

    @cached_property
    def by_name(self) -> dict[str, Node]:
        """The nodes by name.

        >>> import vggscope
        >>> vggscope.network("D").by_name["features.0"].label
        'conv1_1'
        """
        return {node.name: node for node in self.nodes}

    @cached_property
    def consumers(self) -> dict[str, tuple[str, ...]]:
        """The names of the nodes that read the output of each node, by name.

        >>> import vggscope
        >>> vggscope.network("torchvision:resnet18").consumers["maxpool"]
        ('layer1.0.conv1', 'layer1.0.add')
        """
        readers: dict[str, list[str]] = {name: [] for name in (*self.input_names, *self.by_name)}
        for node in self.nodes:
            for name in node.inputs:
                readers[name].append(node.name)
        return {name: tuple(names) for name, names in readers.items()}

    @property
    def end(self) -> str:
        """The name of the node whose tensor is the network's output; INPUT if there are no nodes.

        >>> import vggscope
        >>> vggscope.network("D").end
        'classifier.6'
        """
        return self.output or (self.nodes[-1].name if self.nodes else self.inputs[0].name)

    @cached_property
    def returned_nodes(self) -> frozenset[str]:
        """The names of the nodes whose tensors forward returns; those that no node reads if its forward pass fails.

        >>> import vggscope
        >>> vggscope.network("D").returned_nodes
        frozenset({'classifier.6'})
        """
        sources = frozenset(tensor.source for tensor in self.outputs) - {""}
        return sources or frozenset(name for name, readers in self.consumers.items() if not readers)

    @cached_property
    def differentiated(self) -> frozenset[str]:
        """The names of the values of which a loss of the output may have a gradient, of inputs too.

        >>> import vggscope
        >>> network = vggscope.network("D")
        >>> len(network.differentiated) == len(network.nodes) + 1
        True
        """
        reached = {self.end}
        for node in reversed(self.nodes):
            if node.name in reached and node.passes_gradient:
                reached.update(node.inputs)
        return frozenset(reached)

    @cached_property
    def side_outputs(self) -> frozenset[str]:
        """The names of the nodes that the output does not depend on, as of a second tensor that forward returns.

        >>> import vggscope
        >>> vggscope.network("D").side_outputs
        frozenset()
        """
        ahead = {self.end}
        for node in reversed(self.nodes):
            if node.name in ahead:
                ahead.update(node.inputs)
        return frozenset(node.name for node in self.nodes if node.name not in ahead)

    @cached_property
    def batchless(self) -> frozenset[str]:
        """The names of the nodes whose output is the same for every batch.

        >>> import vggscope
        >>> vggscope.network("D").batchless
        frozenset()
        """
        return frozenset([node.name for node in self.nodes if not node.grows])

    @property
    def takes_one_image(self) -> bool:
        """Whether the only input is a batch of maps: batch x channels x height x width.

        >>> import vggscope
        >>> vggscope.network("D").takes_one_image
        True
        """
        return len(self.inputs) == 1 and len(self.input_shape) == 4 and self.inputs[0].batch_growth is None

    @property
    def is_chain(self) -> bool:
        """Whether each node reads the node before it, and nothing else.

        >>> import vggscope
        >>> vggscope.network("D").is_chain, vggscope.network("torchvision:resnet18").is_chain
        (True, False)
        """
        previous = self.inputs[0].name
        for node in self.nodes:
            if node.inputs != (previous,):
                return False
            previous = node.name
        return True

    def parameters(self) -> Iterator[Parameter]:
        """Yield every parameter once, in the order of first use; those that no executed node owns come last.

        >>> import vggscope
        >>> next(vggscope.network("D").parameters())
        Parameter(name='features.0.weight', shape=(64, 3, 3, 3), trainable=True)
        """
        return iter(self._parameters)

    @cached_property
    def _parameters(self) -> tuple[Parameter, ...]:
        first: dict[str, Parameter] = {}
        for node in self.nodes:
            for parameter in node.parameters:
                first.setdefault(parameter.name, parameter)
        return (*first.values(), *(parameter for parameter, _ in self.unused))

    def registered_parameters(self) -> list[Parameter]:
        """Return every parameter once, in the order in which an optimizer steps: that of the module's `parameters()`.

        >>> import vggscope
        >>> vggscope.network("D").registered_parameters()[0].name
        'features.0.weight'
        """
        places = {name: place for place, name in enumerate(self.registered)}
        return sorted(self.parameters(), key=lambda parameter: places.get(parameter.name, len(places)))


def input_sizes(network: Network, *, named: bool = False) -> Inputs | None:
    """Return the sizes of a network's inputs, to run another model on; with names if `named` and there are several.

    None if sizes do not describe them, such as those of a nest of tensors.
    """
    if network.takes_one_image:
        return Inputs((InputSize(network.input_shape[1:]),))
    names = [given.label for given in network.inputs]
    if not all(name.isidentifier() for name in names):
        return None
    has_names = named and len(names) > 1
    axes = [given.batch_axis for given in network.inputs if given.batch_axis is not None]
    sizes = (InputSize(t.shape, t.label if has_names else "", t.dtype, batched=True) for t in network.inputs)
    return Inputs(tuple(sizes), axes[0] if axes else None)
