"""Makes a Network of the layers in another framework's file, whose shapes follow from the rules of the ops.

Each layer is added under its own name, with the tensors that the file has for it. The batch is the first axis of every
tensor.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from vggscope.errors import CheckpointError, ModelError, OptionError, ShapeError, option, printable
from vggscope.foreign.program import output_of
from vggscope.graph import INPUT, OUTPUT, Failure, Input, Network, Node, Output, Parameter, SamePadding
from vggscope.ops.base import Op, Shape, infer_output_shape, numel
from vggscope.ops.recorded import Recorded, Uncounted, Unknown
from vggscope.record import record
from vggscope.trace.node_names import cost_warnings, unique_name
from vggscope.units import kernel_text, shape_text
from vggscope.vgg.labels import labelled
from vggscope.vgg.options import BuildOptions

LONGEST_NAME = 200
"""The most characters of a layer's name."""

MOST_NODES = 20_000
"""The most nodes of a graph, as of one of ONNX."""

MOST_ELEMENTS = 2**50
"""The most elements of a tensor: no machine holds one of a PiB, and larger numbers in a file are damage."""


@record
class FailedLayer:
    """Why a layer is the first that cannot be described, and what would help."""

    problem: str
    remedy: str = ""


class Incomplete(Exception):
    """Ends the walk through the layers at the first one that cannot be described. It is no error of the user's."""

    def __init__(self, failed: FailedLayer) -> None:
        super().__init__(failed.problem)
        self.failed = failed


@dataclass
class LayerGraph:
    """The nodes and shapes that were added, in execution order.

    `sources` has the node, or the input, that writes each of the file's tensors, by the file's name of it. `dtype` is
    the network's own.
    """

    dtype: str = "float32"
    inputs: dict[str, Shape] = field(default_factory=dict)
    nodes: dict[str, Node] = field(default_factory=dict)
    shapes: dict[str, Shape] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    failure: Failure | None = None
    unknown: dict[str, list[str]] = field(default_factory=dict)
    input_dtypes: dict[str, str] = field(default_factory=dict)
    same_paddings: list[SamePadding] = field(default_factory=list)
    _repeats: dict[str, int] = field(default_factory=dict)

    def give(self, name: str, shape: Shape, dtype: str = "") -> None:
        """Add an input, `shape` with the batch axis."""
        self.inputs[name] = self.shapes[name] = shape
        self.sources[name] = name
        self.input_dtypes[name] = dtype

    def add(
        self,
        name: str,
        op: Op,
        inputs: Sequence[str],
        parameters: Sequence[Parameter] | None = None,
        *,
        is_module: bool = True,
        is_named: bool = False,
    ) -> str:
        """Add a layer that reads the nodes or inputs `inputs`, and return the name of its node.

        Its parameters are those of the op under the layer's name, unless `parameters` has others. `is_named`: layers of
        one name are calls of one module. Raises Incomplete if the op does not take its inputs.
        """
        if len(self.nodes) == MOST_NODES:
            raise CheckpointError(f"it has more than {MOST_NODES:,} layers", "it is damaged or malicious")
        shapes = tuple(self.shapes[source] for source in inputs)
        try:
            shape = infer_output_shape(op, *shapes)
        except ShapeError as error:
            raise Incomplete(FailedLayer(f"{printable(name)}: {error.problem}", error.remedy)) from None
        if numel(shape) > MOST_ELEMENTS or any(numel(own) > MOST_ELEMENTS for own in op.parameters().values()):
            raise Incomplete(FailedLayer(f"{printable(name)}: its {shape_text(shape)} are more than any machine holds"))
        path = unique_name(name[:LONGEST_NAME] or op.name.lower(), self.shapes, (INPUT,), self._repeats)
        own = tuple(Parameter(f"{path}.{leaf}", sides) for leaf, sides in op.parameters().items())
        if op.is_unknown:
            self.unknown.setdefault(op.name, []).append(path)
        module = (name[:LONGEST_NAME] or path if is_named else path) if is_module else None
        self.nodes[path] = Node(path, op, tuple(inputs), module, "", own if parameters is None else tuple(parameters))
        self.shapes[path] = shape
        return path

    def add_unknown(
        self,
        name: str,
        kind: str,
        inputs: Sequence[str],
        shape: Shape,
        *,
        is_free: bool = False,
        is_function: bool = False,
    ) -> str:
        """Add a layer without a rule whose output shape the file tells, and whose parameters are not known.

        `is_function`: it has no parameters. `is_free`: nor has it multiply-accumulates.
        """
        shapes = tuple(self.shapes[source] for source in inputs)
        # Two unknown layers are equal only if they are the same call.
        op = (Recorded if is_free else Unknown if is_function else Uncounted)(printable(kind), shapes, shape)
        return self.add(name, op, inputs)

    def fail(self, failed: FailedLayer) -> None:
        """Note why the layers end here."""
        self.failure = Failure(failed.problem, "size", failed.remedy, hides_rest=True)

    def network(self, name: str, outputs: Mapping[str, str], warnings: Iterable[str] = ()) -> Network:
        """The Network, whose outputs are those nodes by the file's names of them."""
        renamed = {next(iter(self.inputs)): INPUT} if len(self.inputs) == 1 else {}
        nodes = {node.name: _reading(node, renamed) for node in self.nodes.values()}
        failure = self.failure
        places = [renamed.get(source, source) for source in outputs.values()]
        output, place = output_of(nodes, places) if failure is None else (None, 0)
        last = next(reversed(nodes), "")
        is_plain = places == [last]
        returned = () if is_plain or failure is not None else tuple(self._outputs(outputs, renamed))
        network = Network(
            name,
            tuple(Input(renamed.get(key, key), shape, self.input_dtypes[key]) for key, shape in self.inputs.items()),
            tuple(nodes.values()),
            warnings=(*self.warnings, *warnings, *cost_warnings(self.unknown)),
            failure=failure,
            output=None if is_plain else output,
            output_place=0 if is_plain else place,
            returned=returned,
            dtype=self.dtype,
            same_paddings=tuple(replace(one, source=renamed.get(one.source, one.source)) for one in self.same_paddings),
        )
        return labelled(network)

    def _outputs(self, outputs: Mapping[str, str], renamed: Mapping[str, str]) -> Iterable[Output]:
        for label, source in outputs.items():
            shape = self.shapes[source]
            yield Output(label if len(outputs) > 1 else OUTPUT, shape, source=renamed.get(source, source))


def _reading(node: Node, renamed: Mapping[str, str]) -> Node:
    """A node with its inputs renamed."""
    return replace(node, inputs=tuple(renamed.get(source, source) for source in node.inputs)) if renamed else node


def overwriting(network: Network) -> Network:
    """The network, with those activations in place that cost training nothing so.

    Keras does not say what is in place. An activation overwrites its input if nothing else reads that, as in a model
    that somebody writes in torch.
    """
    readers = Counter(source for node in network.nodes for source in node.inputs)
    returned = network.returned_nodes
    by_name = network.by_name
    nodes = []
    for node in network.nodes:
        source = by_name.get(node.inputs[0]) if len(node.inputs) == 1 else None
        can_overwrite = getattr(node.op, "keeps_in_place", "") == "output"
        if source is not None and can_overwrite and source.op.allocates and source.name not in returned:
            saved = source.op.saved_for_backward(network.input_shapes(source), network.shapes[source.name])
            if readers[source.name] == 1 and not saved.output:
                nodes.append(replace(node, op=replace(node.op, inplace=True)))  # type: ignore[call-arg]
                continue
        nodes.append(node)
    return replace(network, nodes=tuple(nodes))


def given_shapes(options: BuildOptions) -> dict[str | int, Shape]:
    """The shapes that the options give, without the batch, by the input's name or its place.

    Raises OptionError for inputs without a batch as the first axis.
    """
    inputs = options.inputs
    if options.input is not None:
        return {0: options.input}
    if inputs is None:
        return {}
    if inputs.batch_axis != 0:
        raise OptionError(f"{option('batch_axis')}: the first axis is the batch in this file", "leave it out")
    if inputs.data is not None:
        from vggscope.trace.inputs import from_data

        tensors = from_data(inputs.data, 0).for_samples(1).tensors()
        return {place: tuple(tensor.shape[1:]) for place, tensor in enumerate(tensors)}
    shapes = [size.shape[1:] if size.batched else size.shape for size in inputs.sizes]
    return {size.name or place: shape for place, (size, shape) in enumerate(zip(inputs.sizes, shapes))}


def check_given(given: Mapping[str | int, Any], names: Sequence[str]) -> None:
    """Raise ShapeError for a given shape that belongs to no input."""
    unknown = next((key for key in given if key not in names and not (isinstance(key, int) and key < len(names))), None)
    if unknown is not None:
        listed = ", ".join(printable(name, 40) for name in names[:8])
        problem = f"{len(given)} inputs are given" if isinstance(unknown, int) else f"there is no input {unknown!r}"
        raise ShapeError(f"{problem}; the file has {listed}", f"give {option('input_size')} for those")


def given_for(
    given: Mapping[str | int, Shape], place: int, name: str, stated: Sequence[int | None] | None
) -> Shape | None:
    """The shape given for an input, of which a single number is the side of an image; None if none is given.

    `stated` are the axes in the file, without the batch, and the channels first.
    """
    shape = given.get(name, given.get(place))
    if shape is not None and len(shape) == 1 and stated is not None and len(stated) == 3:
        return (stated[0] or 3, shape[0], shape[0])
    if shape is not None and stated is not None and shape[:1] == (1,) and len(shape) == len(stated) + 1:
        return shape[1:]  # with the batch
    if shape is not None and stated is not None and len(shape) != len(stated):
        raise ShapeError(
            f"the file's input {printable(name)} has {len(stated)} axes beside the batch, {kernel_text(shape)} has "
            f"{len(shape)}",
            f"leave {option('input_size')} out",
        )
    return shape


@contextmanager
def naming_file(word: str) -> Iterator[None]:
    """Raise the errors of a file's network with the file: ShapeError with its name, and what is wrong with the file as
    ModelError with the path.
    """
    try:
        yield
    except ShapeError as error:
        raise ShapeError(f"{printable(os.path.basename(word))}: {error.problem}", error.remedy) from None
    except CheckpointError as error:
        raise ModelError(f"{printable(word, 200)}: {error.problem}", error.remedy) from None


def check_classes(network: Network, options: BuildOptions) -> Network:
    """The network itself. Raises OptionError for a number of classes that it does not have."""
    if options.num_classes is not None and network.failure is None:
        have = network.shapes[network.end][-1:]
        if have != (options.num_classes,):
            raise OptionError(f"{option('num_classes', options.num_classes)}: the file has its own", "leave it out")
    return network
