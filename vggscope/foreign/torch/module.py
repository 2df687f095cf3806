"""A whole module that torch.save wrote, as a Network, where its classes tell the order of its layers.

A pickle holds the attributes of modules, not the code of forward. A Sequential calls its parts one after another, and
the forward of a few classes of torchvision is known. Nothing is imported or run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType, SimpleNamespace
from typing import Any

from vggscope.checkpoint.contents import Checkpoint, StoredModule
from vggscope.errors import CheckpointError, OptionError, ShapeError, option, printable
from vggscope.foreign.growth import growth
from vggscope.foreign.layer_graph import check_classes
from vggscope.graph import INPUT, Buffer, Network, Node, Parameter, one_input
from vggscope.graph_json import decode, encode
from vggscope.ops.base import Op, Shape, infer_output_shape, numel
from vggscope.ops.shape import Flatten
from vggscope.record import record
from vggscope.trace.inputs import SIDES
from vggscope.trace.modules import MODULES
from vggscope.trace.node_names import unique_name
from vggscope.units import DTYPE_BYTES, kernel_text, shape_text
from vggscope.vgg.labels import labelled
from vggscope.vgg.options import BuildOptions

MOST_LAYERS = 5000
"""The most calls of layers; a module may stand in a tree many times."""

_REMEDY = (
    "name its code instead, path/file.py:Net, or export it: torch.export.save(torch.export.export(model, (x,)), FILE)"
)

SEQUENTIALS = frozenset(
    {
        "torch.nn.modules.container.Sequential",
        *(f"torchvision.ops.misc.{name}" for name in ("ConvNormActivation", "Conv2dNormActivation")),
        *(f"torchvision.ops.misc.{name}" for name in ("Conv3dNormActivation", "MLP")),
        *("torchvision.models.mobilenet.ConvBNReLU", "torchvision.models.mobilenetv2.ConvBNReLU"),
    }
)
"""Classes whose forward calls their parts one after another."""

FLATTENED = "flatten"
"""In a known forward: torch.flatten(x, 1), in place of the name of a part."""

FORWARDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "torchvision.models.vgg.VGG": ("features", "avgpool", FLATTENED, "classifier"),
        "torchvision.models.alexnet.AlexNet": ("features", "avgpool", FLATTENED, "classifier"),
        "torch.nn.parallel.data_parallel.DataParallel": ("module",),
    }
)
"""What forward of each class calls, in order. torchvision 0.2 had no avgpool in a VGG; a part that is not there is left
out.
"""

VGG_FORWARD = FORWARDS["torchvision.models.vgg.VGG"]

ASSUMED = (
    "the code of forward is not in the file: features and classifier are taken to follow one another, with a flatten"
    " between them"
)
"""Of somebody's own class with the parts of torchvision's VGG."""

_SEVERAL = frozenset({"RNN", "GRU", "LSTM", "RNNCell", "GRUCell", "LSTMCell", "MultiheadAttention"})
"""Layers that take or return several tensors, so that a Sequential of them does not run."""


def obstacle(modules: Sequence[StoredModule]) -> str:
    """Why the order of a tree's layers is not known; empty if it is.

    >>> obstacle([StoredModule("", "net.Net")])
    'its class net.Net is not in the file, and so the order in which forward calls its layers is unknown'
    """
    try:
        _ModuleCalls(modules).calls()
    except CheckpointError as error:
        return error.problem
    return ""


def network_of_module(checkpoint: Checkpoint, name: str, options: BuildOptions) -> Network:
    """The Network of a whole module, under its own paths.

    Raises CheckpointError, without the path, where the order of its layers is not known, ShapeError for an input that
    they do not take, and OptionError for an option that the file contradicts.
    """
    options.refuse_column_options(f"{name} has its layers")
    chain = _ModuleCalls(checkpoint.modules)
    calls = chain.calls()
    dtype = _own_dtype(checkpoint.modules)
    nodes = tuple(_nodes(calls, dtype))
    shape, note = _input_shape(nodes, options)
    owned = {parameter.name for node in nodes for parameter in node.parameters}
    every = dict.fromkeys(parameter for module in checkpoint.modules for parameter in module.parameters)
    unused = ((_told(parameter, dtype), "not used by forward") for parameter in every if parameter.name not in owned)
    paths = {call.module.path for call in calls if call.module}
    tables = (buffer for module in checkpoint.modules if module.path not in paths for buffer in module.buffers)
    network = Network(
        name,
        one_input(shape),
        _with_growth(nodes, shape),
        tuple(unused),
        tuple(filter(None, (note, ASSUMED if any(map(chain.is_assumed, checkpoint.modules)) else ""))),
        dtype=dtype,
        tables=tuple(Buffer(b.name, b.shape, "" if b.dtype == dtype else b.dtype) for b in tables),
    )
    return labelled(check_classes(network, options))


def has_settings_of(modules: Sequence[StoredModule], network: Network) -> bool:
    """Whether no module of a tree is changed, and each layer has the settings of the network's node of its path."""
    nodes = {node.module: node.op for node in network.nodes if node.module is not None}
    for module in modules:
        op = nodes.get(module.path)
        if module.changed or (op is not None and (not _is_layer(module) or _op_of(module) != op)):
            return False
    return True


def with_layers_of(modules: Sequence[StoredModule], network: Network) -> Network:
    """A network that was concluded from the keys of a whole module, with the module's own layers in their places.

    Raises CheckpointError, without the path, where the module is changed, or has other layers than the network.
    """
    if any(module.changed for module in modules):
        raise CheckpointError(obstacle(modules), _REMEDY)
    layers = {module.path: _op_of(module) for module in modules if _is_layer(module)}
    nodes = tuple(replace(node, op=layers.get(node.module or "", node.op)) for node in network.nodes)
    # What is no part of a Sequential may be called at many places, as self.relu and self.pool are.
    called = {_told_in_place(node.op) for node in nodes}
    idle = {path for path, op in layers.items() if op.is_dropout or op.returns_input or _told_in_place(op) in called}
    placed = {node.module for node in nodes if node.module in layers}
    parents = {module.path.rpartition(".")[0] for module in modules}
    chains = {module.path for module in modules if module.kind in SEQUENTIALS}
    for module in modules:
        is_free = module.path.rpartition(".")[0] not in chains and (
            module.path in idle or module.kind.startswith("torch.nn.modules.loss.")
        )
        if not is_free and module.path not in parents | placed and not module.parameters:
            raise CheckpointError(f"{_unknown(modules[0])}, and {_named(module)} has no place in it", _REMEDY)
    absent = next((node for node in nodes if node.module not in layers and _parent(node) in chains), None)
    if absent is not None:
        raise CheckpointError(f"{_unknown(modules[0])}, and {printable(absent.name, 100)} is no part of it", _REMEDY)
    return replace(network, nodes=nodes)


def _parent(node: Node) -> str | None:
    return None if node.module is None else node.module.rpartition(".")[0]


def _told_in_place(op: Op) -> Op:
    """The op as it is in place, if it can be."""
    changes: dict[str, Any] = {"inplace": True} if hasattr(op, "inplace") else {}
    return replace(op, **changes)


@record
class _ModuleCall:
    """A call of a layer of torch.nn, or of a function, which has no module."""

    op: Op
    module: StoredModule | None = None


@dataclass
class _ModuleCalls:
    """The calls of a tree whose order is known."""

    modules: Sequence[StoredModule]
    parts: dict[str, list[StoredModule]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for module in self.modules[1:]:
            self.parts.setdefault(module.path.rpartition(".")[0], []).append(module)

    def calls(self) -> list[_ModuleCall]:
        """The layers in the order in which forward calls them. Raises CheckpointError where that is not known."""
        calls = list(self._calls(self.modules[0]))
        if not calls:
            raise CheckpointError("it has no layers", _REMEDY)
        return calls

    def _calls(self, root: StoredModule) -> Iterator[_ModuleCall]:
        waiting: list[StoredModule | Op] = [root]
        count = 0
        while waiting:
            module = waiting.pop()
            count += 1
            if count > MOST_LAYERS:
                raise CheckpointError(f"it calls more than {MOST_LAYERS} layers")
            if isinstance(module, Op):
                yield _ModuleCall(module)
                continue
            if module.changed:
                raise CheckpointError(
                    f"{_named(module)} has {module.changed}, which are code that is not read", _REMEDY
                )
            parts = self._parts(module)
            if parts is None:
                yield _ModuleCall(_op_of(module), module)
            else:
                waiting += reversed(parts)

    def _parts(self, module: StoredModule) -> list[StoredModule | Op] | None:
        """What forward of a module calls; None for a layer, which calls none."""
        parts = self.parts.get(module.path, [])
        if module.kind in SEQUENTIALS:
            return list(parts)
        forward = VGG_FORWARD if self.is_assumed(module) else FORWARDS.get(module.kind)
        if forward is not None:
            by_name: dict[str, StoredModule | Op] = {part.path.rpartition(".")[2]: part for part in parts}
            by_name[FLATTENED] = Flatten()
            return [by_name[name] for name in forward if name in by_name]
        if parts or not _is_layer(module):
            raise CheckpointError(_unknown(module), _REMEDY)
        return None

    def is_assumed(self, module: StoredModule) -> bool:
        """Whether a module of a class that is not known has the parts of torchvision's VGG, and none but these."""
        names = {part.path.rpartition(".")[2] for part in self.parts.get(module.path, [])}
        is_own = module.kind not in FORWARDS and not module.kind.startswith(("torch.", "torchvision.", "timm."))
        return is_own and {"features", "classifier"} <= names <= {*VGG_FORWARD} and not module.parameters


def _named(module: StoredModule) -> str:
    kind = printable(module.kind, 100)
    return f"{printable(module.path, 100)} ({kind})" if module.path else f"its class {kind}"


def _unknown(module: StoredModule) -> str:
    name = _named(module)
    if module.kind.startswith("torch.nn.modules."):
        return f"{name} has no rule, and the code of forward is not in the file"
    where = " of" if module.path else ""
    what = f"the class{where} {name}" if module.path else name
    return f"{what} is not in the file, and so the order in which forward calls its layers is unknown"


def _is_layer(module: StoredModule) -> bool:
    name = module.kind.rpartition(".")[2]
    is_torch = module.kind.startswith(("torch.nn.modules.", "torchvision.ops.stochastic_depth."))
    returns_one = name not in _SEVERAL and not dict(module.settings).get("return_indices")
    return is_torch and name in MODULES and returns_one


class _Attributes(SimpleNamespace):
    """What the table of modules reads of a layer."""


def _op_of(module: StoredModule) -> Op:
    """The op of a layer. Raises CheckpointError where its settings are not those of one, or not of its weights."""
    own = {parameter.name.rpartition(".")[2]: parameter for parameter in module.parameters}
    absent = {"bias": None}
    attributes: Any = _Attributes(**{**absent, **dict(module.settings), **own})
    try:
        op = MODULES[module.kind.rpartition(".")[2]](attributes)
        assert op is not None
        checked = decode(Op, encode(op))
        assert isinstance(checked, Op)
        assert _has_a_window(checked)
        expected = checked.parameters()
    except (TypeError, ValueError, AttributeError, ArithmeticError, LookupError, AssertionError):
        raise CheckpointError(f"{_named(module)} has settings that no such layer has", "it is damaged") from None
    shapes = {name: parameter.shape for name, parameter in own.items()}
    if shapes != dict(expected):
        problem = f"{_named(module)} has settings for the weights {_texts(expected)}, and the weights {_texts(shapes)}"
        raise CheckpointError(problem, "it is damaged, or was changed after it was built")
    return checked


def _has_a_window(op: Op) -> bool:
    """Whether the numbers of a window are as many as its sides, and in range; true for an op without one."""
    kernel = getattr(op, "kernel_size", ())
    least = {"stride": 0, "padding": 0, "output_padding": 0, "dilation": 1}
    sides = [(getattr(op, name, None), lowest) for name, lowest in least.items()]
    rows = [(kernel, 1), *((row, lowest) for row, lowest in sides if isinstance(row, tuple))]
    return all(len(row) == len(kernel) and all(lowest <= side < 2**31 for side in row) for row, lowest in rows)


def _texts(shapes: Mapping[str, Shape]) -> str:
    return ", ".join(f"{printable(name, 40)} {kernel_text(shape)}" for name, shape in shapes.items()) or "none"


def _own_dtype(modules: Sequence[StoredModule]) -> str:
    """The floating-point dtype of most parameters."""
    elements: dict[str, int] = {}
    for module in modules:
        for parameter in module.parameters:
            elements[parameter.dtype] = elements.get(parameter.dtype, 0) + numel(parameter.shape)
    known = (dtype for dtype in sorted(elements, key=elements.__getitem__, reverse=True) if dtype in DTYPE_BYTES)
    return next(known, "float32")


def _told(parameter: Parameter, dtype: str) -> Parameter:
    """The parameter of a network of this dtype."""
    return replace(parameter, dtype="" if parameter.dtype == dtype else parameter.dtype)


def _nodes(calls: Sequence[_ModuleCall], dtype: str) -> Iterator[Node]:
    """The calls as a chain of nodes."""
    taken: set[str] = set()
    repeats: dict[str, int] = {}
    reserved = {call.module.path for call in calls if call.module}
    last = INPUT
    for call in calls:
        module = call.module
        path = None if module is None else module.path if module.first is None else module.first
        base = path or (FLATTENED if module is None else call.op.name.lower())
        name = unique_name(base, taken, reserved if module is None else (), repeats)
        taken.add(name)
        order = list(call.op.parameters())
        parameters = sorted(module.parameters if module else (), key=_placed(order))
        yield Node(name, call.op, (last,), path, "", tuple(_told(parameter, dtype) for parameter in parameters))
        last = name


def _placed(order: Sequence[str]) -> Callable[[Parameter], int]:
    """The place of a parameter among those of its op; one that is shared has the name that it has elsewhere."""
    return lambda parameter: order.index(parameter.name.rpartition(".")[2])


def _input_shape(nodes: Sequence[Node], options: BuildOptions) -> tuple[Shape, str]:
    """The shape of the input for one sample, and a note if it was chosen.

    Raises ShapeError if the file does not tell it and the caller does not give it.
    """
    first = next((node.op for node in nodes if node.op.is_convolution or node.op.is_weight_layer), None)
    width = getattr(first, first.width_field) if first is not None else 0
    is_image = first is not None and first.is_convolution and len(first.parameters()["weight"]) == 4
    if options.input is not None or options.inputs is not None:
        return _given_shape(options, width if is_image else None), ""
    if is_image:
        tried: list[Shape] = [(1, width, side, side) for side in SIDES]
        shape = next((shape for shape in tried if _fits(nodes, shape)), tried[0])
    elif first is not None and not first.is_convolution:
        shape = (1, width)
    else:
        raise ShapeError("the file does not tell the size of its input", f"give {option('input_size')}")
    text = shape_text(shape)
    note = f"no input was given: {text} was taken; {option('input_size')} gives another"
    return shape, "" if is_image and shape[-1] == SIDES[0] else note


def _given_shape(options: BuildOptions, channels: int | None) -> Shape:
    if options.input is not None:
        return (1, *options.input)
    inputs = options.inputs
    assert inputs is not None
    if inputs.data is None and (len(inputs.sizes) != 1 or inputs.batch_axis != 0 or inputs.sizes[0].name):
        raise OptionError("a Sequential takes one input, with the batch first", f"give {option('input_size')} once")
    if inputs.data is not None:
        from vggscope.trace.inputs import from_data

        tensors = from_data(inputs.data, inputs.batch_axis).for_samples(1).tensors()
        if len(tensors) != 1:
            raise OptionError("a Sequential takes one input", f"give {option('input_data')} as one tensor")
        return tuple(tensors[0].shape)
    size = inputs.sizes[0]
    if channels is not None and len(size.shape) == 1:
        return (1, channels, *size.shape * 2)
    is_whole = size.batched or (size.batched is None and channels is not None and len(size.shape) == 4)
    return (1, *size.shape[1:]) if is_whole else (1, *size.shape)


def _fits(nodes: Sequence[Node], shape: Shape) -> bool:
    try:
        return bool(_shapes(nodes, shape))
    except ShapeError:
        return False


def _shapes(nodes: Sequence[Node], shape: Shape) -> dict[str, Shape]:
    shapes = {INPUT: shape}
    for node in nodes:
        shapes[node.name] = infer_output_shape(node.op, *(shapes[name] for name in node.inputs))
    return shapes


def _with_growth(nodes: tuple[Node, ...], shape: Shape) -> tuple[Node, ...]:
    """The nodes with the growth of their shapes by a second sample; as they are if one of the two does not run."""
    try:
        one, two = _shapes(nodes, shape), _shapes(nodes, (2, *shape[1:]))
    except ShapeError:
        return nodes
    return tuple(replace(node, batch_growth=growth(one[node.name], two[node.name])) for node in nodes)
