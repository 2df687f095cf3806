"""A call of a layer of Keras, with its tensors in torch's layout: what the rules of layers read and add."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from vggscope.errors import printable
from vggscope.foreign.keras.model import KerasCall
from vggscope.foreign.layer_graph import FailedLayer, Incomplete, LayerGraph
from vggscope.graph import Parameter
from vggscope.ops import activation
from vggscope.ops.base import Op, Shape
from vggscope.ops.elementwise import Elementwise
from vggscope.ops.regularization import Identity
from vggscope.ops.shape import Flatten
from vggscope.ops.view import Permute, Reshape
from vggscope.record import record

CONVOLUTION = {1: "WIO", 2: "HWIO", 3: "DHWIO"}
TRANSPOSED = {1: "WOI", 2: "HWOI", 3: "DHWOI"}
DEPTHWISE, DENSE = "HWIM", "IO"
"""The axes of kernels in Keras: H, W and D are sides, I inputs, O outputs, M the outputs of each input."""

TRANSPOSES = {
    **dict.fromkeys(("WIO", "WOI"), "transpose(2, 1, 0)"),
    **dict.fromkeys(("HWIO", "HWOI"), "transpose(3, 2, 0, 1)"),
    **dict.fromkeys(("DHWIO", "DHWOI"), "transpose(4, 3, 0, 1, 2)"),
    **{DEPTHWISE: "transpose(2, 3, 0, 1) with I and M as one axis", DENSE: "T"},
}
"""What gives torch's order."""


@record
class KerasTensor:
    """A tensor of the model: the node or input that writes it, and how its axes are ordered.

    - `is_first`: the channels, last in Keras, come right after the batch here.
    - `map`: it is a map of these channels, height and width, flattened channel by channel where Keras goes pixel by
      pixel; empty if its features are in Keras's order.
    """

    source: str
    is_first: bool = False
    map: Shape = ()


@dataclass
class KerasGraph:
    """The graph of a model, and its tensors by their keys.

    - `channels_first`: Keras itself has the channels first in this model.
    - `reordered` are the layers whose weights are permuted because they read a flattened map, with the map and their
      units; `kernels` are the axes of weights that are shown in another order; `dropped` are softmaxes at the end;
      `uncounted` are layers without a rule, whose parameters are not known.
    """

    soft_max: bool
    channels_first: bool
    graph: LayerGraph = field(default_factory=LayerGraph)
    tensors: dict[str, KerasTensor] = field(default_factory=dict)
    reordered: dict[str, tuple[Shape, int]] = field(default_factory=dict)
    dropped: list[str] = field(default_factory=list)
    uncounted: list[str] = field(default_factory=list)
    kernels: dict[str, None] = field(default_factory=dict)

    def shape(self, tensor: KerasTensor) -> Shape:
        """The shape here, with the batch."""
        return self.graph.shapes[tensor.source]

    def keras_shape(self, tensor: KerasTensor) -> Shape:
        """The shape in Keras, with the batch."""
        shape = self.shape(tensor)
        return (shape[0], *shape[2:], shape[1]) if tensor.is_first else shape

    def first(self, name: str, tensor: KerasTensor) -> KerasTensor:
        """The tensor with its channels first, by a permutation if it is not."""
        tensor = self.unflattened(name, tensor)
        if tensor.is_first:
            return tensor
        rank = len(self.shape(tensor))
        return KerasTensor(self._step(name, Permute((0, rank - 1, *range(1, rank - 1))), tensor), is_first=True)

    def plain(self, name: str, tensor: KerasTensor, *, keeps_map: bool = False) -> KerasTensor:
        """The tensor with its axes in Keras's order, by a permutation if they are not. `keeps_map`: except a map's."""
        tensor = self.unflattened(name, tensor)
        if not tensor.is_first or keeps_map:
            return tensor
        rank = len(self.shape(tensor))
        if all(size == 1 for size in self.shape(tensor)[2:]):
            return KerasTensor(self._step(name, Reshape((-1, *self.keras_shape(tensor)[1:])), tensor))
        return KerasTensor(self._step(name, Permute((0, *range(2, rank), 1)), tensor))

    def unflattened(self, name: str, tensor: KerasTensor) -> KerasTensor:
        """The tensor with its features in Keras's order."""
        if not tensor.map:
            return tensor
        rank = len(tensor.map) + 1
        whole = self._step(name, Reshape((-1, *tensor.map)), tensor)
        turned = self._step(name, Permute((0, *range(2, rank), 1)), KerasTensor(whole))
        return KerasTensor(self._step(name, Flatten(), KerasTensor(turned)))

    def _step(self, name: str, op: Op, tensor: KerasTensor) -> str:
        return self.graph.add(f"{name}.{op.name.lower()}", op, [tensor.source], (), is_module=False)


@dataclass
class KerasStep:
    """A call of a layer with its tensors, in the walk that it is part of. `ends`: it is an output of the model."""

    walk: KerasGraph
    call: KerasCall
    inputs: Sequence[KerasTensor]
    ends: bool

    @property
    def config(self) -> Mapping[str, Any]:
        return self.call.config

    @property
    def name(self) -> str:
        return self.call.name.replace("/", ".")

    @property
    def is_channels_first(self) -> bool:
        """Whether Keras itself has the channels first in this layer."""
        own = self.config.get("data_format")
        return own == "channels_first" if own in ("channels_first", "channels_last") else self.walk.channels_first

    @property
    def tensor(self) -> KerasTensor:
        """The first input. Raises ValueError without one."""
        if not self.inputs:
            raise ValueError("it reads nothing")
        return self.inputs[0]

    def map(self, sides: int) -> KerasTensor:
        """The first input as maps of so many sides, with the channels first. Raises ValueError for any other."""
        rank = len(self.walk.shape(self.tensor))
        if rank != sides + 2:
            raise ValueError(f"it reads maps with {sides} sides, the input has {rank - 1} axes beside the batch")
        if self.is_channels_first:
            return self.walk.plain(self.name, self.tensor)
        return self.walk.first(self.name, self.tensor)

    def like(self, tensor: KerasTensor, source: str) -> KerasTensor:
        """A result with the layout of a tensor."""
        return replace(tensor, source=source)

    def add(
        self, op: Op, tensor: KerasTensor, *, leaf: str = "", names: Mapping[str, str] | None = None
    ) -> KerasTensor:
        """Add the layer itself, or a part of it named `leaf`. `names` are those of its tensors, if not the op's own."""
        base = f"{self.name}.{leaf}" if leaf else self.name
        is_trained = self.config.get("trainable", True) is not False
        parameters = [
            Parameter(f"{base}.{(names or {}).get(own, own)}", shape, trainable=is_trained)
            for own, shape in op.parameters().items()
        ]
        return self.like(tensor, self.walk.graph.add(base, op, [tensor.source], parameters, is_named=True))

    def step(self, op: Op, *tensors: KerasTensor, parameters: Sequence[Parameter] = ()) -> KerasTensor:
        """Add a function beside the layer itself, whose result has the layout of the first tensor."""
        sources = [tensor.source for tensor in tensors]
        name = f"{self.name}.{op.name.lower()}"
        return self.like(tensors[0], self.walk.graph.add(name, op, sources, parameters, is_module=False))

    def unknown(
        self,
        tensors: Sequence[KerasTensor],
        shape: Shape,
        *,
        is_first: bool,
        is_free: bool = False,
        is_function: bool = False,
    ) -> KerasTensor:
        """Add a layer without a rule. `shape` is that of its output here, the rest as in `LayerGraph.add_unknown`."""
        sources = [self.walk.unflattened(self.name, tensor).source for tensor in tensors]
        source = self.walk.graph.add_unknown(
            self.name, self.call.type, sources, shape, is_free=is_free, is_function=is_function
        )
        return KerasTensor(source, is_first)

    def finish(self, tensor: KerasTensor) -> None:
        """Note the layer's result."""
        self.walk.tensors[self.call.output] = tensor

    def activated(self, tensor: KerasTensor, kind: object, *, is_layer: bool = False) -> KerasTensor:
        """The result of an activation by its name in Keras; a softmax that ends the model is left out."""
        kind = _activation_name(kind)
        if kind in ("", "linear"):
            return self.add(Identity(), tensor) if is_layer else tensor
        if kind == "softmax":
            return self.softmax(tensor, -1, is_layer=is_layer)
        steps = _activation(kind, self.call.dialect)
        if kind == "glu":
            raise ValueError("there is no rule for the activation glu, which halves an axis")
        if steps is None:
            shape = self.walk.shape(tensor)
            name = f"{self.name}.{kind}"
            added = self.walk.graph.add_unknown(name, kind, [tensor.source], shape, is_function=True)
            return self.like(tensor, added)
        for op in steps:
            tensor = self.step(op, tensor) if len(steps) > 1 else self._activation(op, kind, tensor, is_layer=is_layer)
        return tensor

    def _activation(self, op: Op, kind: str, tensor: KerasTensor, *, is_layer: bool) -> KerasTensor:
        """Add an activation: the layer itself, or a module after the layer whose setting it is."""
        if is_layer:
            return self.add(op, tensor)
        return self.like(tensor, self.walk.graph.add(f"{self.name}_{kind}", op, [tensor.source], (), is_named=True))

    def softmax(self, tensor: KerasTensor, axis: int, *, is_layer: bool) -> KerasTensor:
        """The soft-max along an axis of Keras, unless it ends the model."""
        if self.ends and not self.walk.soft_max:
            self.walk.dropped.append(f"the softmax of {self.name}" if not is_layer else self.name)
            return tensor
        tensor = self.walk.unflattened(self.name, tensor)
        op = activation.Softmax(self.axis(tensor, axis))
        return self._activation(op, "softmax", tensor, is_layer=is_layer)

    def axis(self, tensor: KerasTensor, axis: object) -> int:
        """The axis here of an axis in Keras. Raises ValueError where there is none."""
        axis = axis[0] if isinstance(axis, (list, tuple)) and len(axis) == 1 else axis
        rank = len(self.walk.shape(tensor))
        if type(axis) is not int or not -rank <= axis < rank:
            raise ValueError(f"its input of {rank} axes has no axis {printable(str(axis), 40)}")
        axis %= rank
        if not tensor.is_first or axis == 0:
            return axis
        return 1 if axis == rank - 1 else axis + 1

    def alike(self) -> list[KerasTensor]:
        """The inputs in one layout: that of the first one."""
        if any(tensor.map != self.tensor.map for tensor in self.inputs):
            return [self.walk.unflattened(self.name, tensor) for tensor in self.inputs]
        turn = self.walk.first if self.tensor.is_first else self.walk.plain
        if self.tensor.map:
            return list(self.inputs)
        return [turn(self.name, tensor) for tensor in self.inputs]

    def fail(self, why: str) -> Incomplete:
        """The error that ends the layers here."""
        return Incomplete(FailedLayer(f"{printable(self.name)}: {why}", "the layers up to it are described"))


def _activation_name(kind: object) -> str:
    """The name of an activation, of which Keras writes a text or an object. A user's own is no known one."""
    if isinstance(kind, Mapping):
        inner = kind.get("config")
        name = inner if isinstance(inner, str) else inner.get("name") if isinstance(inner, Mapping) else None
        name = name if isinstance(name, str) else kind.get("class_name")
        is_own = kind.get("module") in (None, "builtins") and kind.get("registered_name") not in (None, "function")
        kind = f"own {name}" if is_own else name
    return kind[:60] if isinstance(kind, str) else "" if kind is None else "function"


def _activation(kind: str, dialect: int) -> tuple[Op, ...] | None:
    """The ops of an activation; None for one without a rule."""
    made = {
        "relu": activation.ReLU(),
        "relu6": activation.ReLU6(),
        "sigmoid": activation.Sigmoid(),
        "tanh": activation.Tanh(),
        "elu": activation.ELU(),
        "selu": activation.SELU(),
        "gelu": activation.GELU(),
        "mish": activation.Mish(),
        "softplus": activation.Softplus(),
        "softsign": Elementwise("softsign"),
        "exponential": Elementwise("exp"),
        "leaky_relu": activation.LeakyReLU(0.2),
        "log_softmax": activation.LogSoftmax(1),
        **dict.fromkeys(("swish", "silu"), activation.SiLU()),
        **dict.fromkeys(("hard_swish", "hard_silu"), activation.Hardswish()),
    }
    if kind == "hard_sigmoid":
        if dialect == 3:
            return (activation.Hardsigmoid(),)
        # Keras 2 has another slope.
        steps = (("mul", (None, 0.2)), ("add", (None, 0.5)), ("clamp", (None, 0.0, 1.0)))
        return tuple(Elementwise(function, given) for function, given in steps)
    found = made.get(kind)
    return None if found is None or kind == "log_softmax" else (found,)
