"""The recurrent layers of torch.nn in an ONNX graph.

ONNX has the axes of a sequence as steps, batch, features, and a node runs one layer. So torch's exporters write an
nn.LSTM, GRU or RNN as a node for each of its layers, with nodes between that only lay out their outputs. Its gates are
in another order, and the two biases of a layer are one tensor.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from vggscope.checkpoint.formats.onnx_model import STANDARD, OnnxModel, OnnxNode, OnnxTensor, names_parameter
from vggscope.ops.base import Shape
from vggscope.record import record

JOINED = MappingProxyType({"LSTM": "nn.LSTM", "GRU": "nn.GRU", "RNN": "nn.RNN"})
"""The op of the one node that stands for all nodes of a layer of torch."""

GATES = MappingProxyType({"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)})
"""For each gate of torch, its place among ONNX's: an LSTM has i, f, g, o there and i, o, f, c here, a GRU r, z, n
and z, r, h."""

PER_LAYER = 5
"""The inputs of a joined node for each layer: the weights W, R and B, and the first states h and c."""

_FILLS = frozenset(
    {"Expand", "Slice", "Identity", "Reshape", "Unsqueeze", "Squeeze", "Transpose", "Tile", "Gather", "Cast"}
)
"""The ops whose output has zeros alone if their first input has."""

_DEEPEST = 16
"""The most nodes between a first state and the zeros that it is made of."""


@record
class RecurrentWeight:
    """One of torch's weights of a recurrent layer in a tensor of the file.

    `start` is its first element there, and `gates` are the places in the file of its gates, equal parts of its rows.
    """

    leaf: str
    tensor: OnnxTensor
    shape: Shape
    start: int
    gates: tuple[int, ...]


def recurrent_weights(node: OnnxNode, initializers: Mapping[str, OnnxTensor]) -> Iterator[RecurrentWeight]:
    """The weights of a joined node, in the order of torch's parameters."""
    gates = GATES[node.op_type.removeprefix("nn.")]
    for layer in range((len(node.inputs) - 1) // PER_LAYER):
        names = node.inputs[1 + layer * PER_LAYER :][:3]
        wide, back, bias = (initializers.get(name) for name in names)
        if wide is None or back is None:
            return
        directions, rows, width = wide.shape
        for direction in range(directions):
            end = f"_l{layer}" + "_reverse" * direction
            hidden = back.shape[2]
            yield RecurrentWeight(f"weight_ih{end}", wide, (rows, width), direction * rows * width, gates)
            yield RecurrentWeight(f"weight_hh{end}", back, (rows, hidden), direction * rows * hidden, gates)
            if bias is not None:
                start = direction * 2 * rows
                yield RecurrentWeight(f"bias_ih{end}", bias, (rows,), start, gates)
                yield RecurrentWeight(f"bias_hh{end}", bias, (rows,), start + rows, gates)


def joined(nodes: Sequence[OnnxNode], model: OnnxModel) -> tuple[OnnxNode, ...]:
    """The nodes with one node, of an op in JOINED, for those of each recurrent layer of torch.

    Its inputs are the sequence and, for each layer, W, R, B, and h and c if they are not zero. Its outputs are those of
    torch's layer: the sequence and the last states. The attributes `num_layers` and `batch_first` are torch's, and
    `unread` is the file of first states that are taken for zeros.
    """
    if not any(node.op_type in JOINED for node in nodes):
        return tuple(nodes)
    joining = _Joining(nodes, model)
    made, gone = {}, set[int]()
    for node in nodes:
        if node.op_type in JOINED and id(node) not in gone:
            found = joining.layer(node)
            if found is not None:
                last, one, consumed = found
                made[id(last)] = one
                gone.update(map(id, consumed))
    kept = [made.get(id(node), node) for node in nodes if id(node) not in gone or id(node) in made]
    return _without_dead(kept, model) or tuple(nodes)


def _without_dead(nodes: Sequence[OnnxNode], model: OnnxModel) -> tuple[OnnxNode, ...]:
    """The nodes without those that read what no node writes any more, as the shape of what a joined node replaces.

    Empty where an output of the graph needs one of them.
    """
    known = {*model.initializers, *(info.name for info in model.inputs), ""}
    kept, lost = [], set[str]()
    for node in nodes:
        if any(name not in known for name in (*node.inputs, *node.reads)):
            lost.update(node.outputs)
        else:
            known.update(node.outputs)
            kept.append(node)
    is_needed = any(info.name in lost for info in model.outputs)
    return () if is_needed else tuple(kept)


@record
class _LayerChain:
    """The nodes of consecutive layers, the nodes that lay out their outputs, and the name of the last output."""

    layers: tuple[OnnxNode, ...]
    views: tuple[OnnxNode, ...]
    output: str


class _Joining:
    """Finds the nodes of a layer in a graph."""

    def __init__(self, nodes: Sequence[OnnxNode], model: OnnxModel) -> None:
        self._model = model
        self._writers = {output: node for node in nodes for output in node.outputs if output}
        self._readers: dict[str, list[OnnxNode | None]] = {}
        for node in nodes:
            if node.op_type not in ("Shape", "Size"):
                for name in filter(None, {*node.inputs, *node.reads}):
                    self._readers.setdefault(name, []).append(node)
        for info in model.outputs:
            self._readers.setdefault(info.name, []).append(None)

    def layer(self, first: OnnxNode) -> tuple[OnnxNode, OnnxNode, tuple[OnnxNode, ...]] | None:
        """The node in whose place the joined one stands, that one, and all nodes that it replaces.

        None for a node that is no layer of torch.
        """
        chain = self._chain(first)
        states = self._states(chain.layers) if chain is not None else None
        if states is None:
            chain, states = self._extended(None, first), self._states((first,))
        if chain is None or states is None:
            return None
        names, merged = states
        begin, output, around = self._batch_first(chain)
        inputs, unread = [begin], ""
        for node in chain.layers:
            given = (*node.inputs, *[""] * 7)
            kept = [self._first_state(name) for name in given[5:7]]
            unread = unread or next((place for name, place in kept if place), "")
            inputs += [*given[1:4], *(name for name, _ in kept)]
        last = chain.layers[-1]
        own = {"num_layers": len(chain.layers), "batch_first": int(bool(around)), "unread": unread}
        one = replace(
            last,
            op_type=JOINED[first.op_type],
            inputs=tuple(inputs),
            outputs=(output, *names),
            attributes={**first.attributes, **own},
            scope=first.scope,
        )
        return last, one, (*chain.layers, *chain.views, *around, *merged)

    def _chain(self, first: OnnxNode) -> _LayerChain | None:
        """The layers from this one on, each of which reads the output of the one before alone."""
        chain = self._extended(None, first)
        while chain is not None:
            after = self._only_reader(chain.output)
            more = self._extended(chain, after) if after is not None and after.inputs[0] == chain.output else None
            if more is None:
                return chain
            chain = more
        return None

    def _extended(self, chain: _LayerChain | None, node: OnnxNode) -> _LayerChain | None:
        """The chain with a further layer; None if that is none of the same layer of torch."""
        if node.op_type not in JOINED or node.domain not in STANDARD or not self._is_plain(node):
            return None
        if chain is not None:
            before = chain.layers[-1]
            same = all(
                _setting(before, key) == _setting(node, key) for key in ("hidden_size", "direction", "activations")
            )
            wide, back = self._weight(node, 1), self._weight(before, 2)
            fits = wide is not None and back is not None and wide.shape[2] == back.shape[0] * back.shape[2]
            zero = all(not name or self._is_zero(name) for layer in (before, node) for name in layer.inputs[5:7])
            alike = node.op_type == before.op_type and node.scope == before.scope
            if not (same and fits and zero and alike and _has_bias(before) == _has_bias(node)):
                return None
        found = self._laid_out(node)
        if found is None:
            return None
        views, output = found
        return _LayerChain((*(chain.layers if chain else ()), node), (*(chain.views if chain else ()), *views), output)

    def _is_plain(self, node: OnnxNode) -> bool:
        """Whether a node computes what one layer of torch does, with weights that the file holds."""
        gates = len(GATES[node.op_type])
        wide, back, bias = (self._weight(node, place) for place in (1, 2, 3))
        if wide is None or back is None or len(wide.shape) != 3 or len(back.shape) != 3:
            return False
        directions, rows, hidden = back.shape
        fits = rows == gates * hidden and wide.shape[:2] == (directions, rows) and hidden > 0
        has_bias = bias is not None and bias.shape == (directions, 2 * rows)
        direction = {1: "forward", 2: "bidirectional"}.get(directions)
        kinds = {"LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh"), "RNN": ("Tanh",)}[node.op_type]
        given = tuple(node.attributes.get("activations") or kinds * directions)
        is_usual = given == kinds * directions or (node.op_type == "RNN" and given == ("Relu",) * directions)
        is_torchs = node.op_type != "GRU" or node.attributes.get("linear_before_reset") == 1
        left_out = all(not node.attributes.get(key) for key in ("clip", "layout", "input_forget"))
        beyond = any(node.inputs[4:5]) or any(node.inputs[7:])  # lengths of the sequences, peepholes
        return all(
            (
                fits,
                has_bias or not _has_bias(node),
                node.attributes.get("direction", "forward") == direction,
                is_usual and is_torchs and left_out,
                not beyond,
            )
        )

    def _weight(self, node: OnnxNode, place: int) -> OnnxTensor | None:
        return self._model.initializers.get(node.inputs[place]) if place < len(node.inputs) else None

    def _laid_out(self, node: OnnxNode) -> tuple[tuple[OnnxNode, ...], str] | None:
        """The nodes that give a layer's output the axes of torch's, and the result; None for any others.

        ONNX has an axis for the direction between those of the steps and of the batch.
        """
        name = node.outputs[0] if node.outputs else ""
        if not name or not self._readers.get(name):
            return (), name
        view, directions = self._only_reader(name), (self._weight(node, 2) or self._weight(node, 1))
        if view is None or directions is None:
            return None
        count = directions.shape[0]
        if view.op_type == "Squeeze" and count == 1 and self._integers(view, "axes") in ((1,), (-3,)):
            return (view,), view.outputs[0]
        reshape = self._only_reader(view.outputs[0]) if view.op_type == "Transpose" else None
        if reshape is None or reshape.op_type != "Reshape" or view.attributes.get("perm") != (0, 2, 1, 3):
            return None
        return ((view, reshape), reshape.outputs[0]) if self._joins_last(reshape, count, node) else None

    def _joins_last(self, reshape: OnnxNode, directions: int, node: OnnxNode) -> bool:
        """Whether a Reshape joins the last two of four axes."""
        weight = self._weight(node, 2)
        width = directions * weight.shape[2] if weight is not None else 0
        target = self._integers(reshape, "shape")
        if target is not None:
            return len(target) == 3 and target[2] in (-1, width)
        # dynamo computes the target of a dynamic batch from the Shape of the input.
        writer = self._writers.get(reshape.inputs[1]) if len(reshape.inputs) > 1 else None
        return writer is not None and writer.op_type == "Concat" and len(writer.inputs) == 3

    def _integers(self, node: OnnxNode, name: str) -> tuple[int, ...] | None:
        """A list that is an attribute in old opsets and the second input, a constant, in new ones."""
        if name in node.attributes:
            value = node.attributes[name]
            return value if isinstance(value, tuple) else None
        tensor = self._tensor(node.inputs[1]) if len(node.inputs) > 1 else None
        numbers = self._model.numbers(tensor) if tensor is not None else None
        return None if numbers is None else tuple(map(int, numbers))

    def _tensor(self, name: str) -> OnnxTensor | None:
        """The tensor that a value is, if it is an initializer or a Constant."""
        writer = self._writers.get(name)
        if writer is not None and writer.op_type == "Constant":
            value = writer.attributes.get("value")
            return value if isinstance(value, OnnxTensor) else None
        return self._model.initializers.get(name)

    def _only_reader(self, name: str) -> OnnxNode | None:
        readers = self._readers.get(name, [])
        return readers[0] if len(readers) == 1 else None

    def _states(self, layers: tuple[OnnxNode, ...]) -> tuple[tuple[str, ...], tuple[OnnxNode, ...]] | None:
        """The names of the last states of all layers, and the nodes that join them; None if they are read otherwise."""
        names, merged = [], []
        for place in (1, 2):
            own = tuple(node.outputs[place] if place < len(node.outputs) else "" for node in layers)
            if len(layers) == 1 or not any(self._readers.get(name) for name in own if name):
                names.append(own[0] if len(layers) == 1 and self._readers.get(own[0]) else "")
                continue
            join = self._only_reader(own[0])
            is_join = join is not None and join.op_type == "Concat" and not join.attributes.get("axis")
            if not is_join or join is None or join.inputs != own or any(self._only_reader(n) is not join for n in own):
                return None
            names.append(join.outputs[0])
            merged.append(join)
        return tuple(names), tuple(merged)

    def _batch_first(self, chain: _LayerChain) -> tuple[str, str, tuple[OnnxNode, ...]]:
        """The sequence that is read, the result, and the permutations before and after it that put the batch first."""
        begin, output = chain.layers[0].inputs[0], chain.output
        before = self._writers.get(begin)
        if before is None or before.op_type != "Transpose" or before.attributes.get("perm") != (1, 0, 2):
            return begin, output, ()
        kept = (before,) if self._only_reader(begin) is chain.layers[0] else ()
        if not self._readers.get(output):
            return (before.inputs[0], output, kept) if kept else (begin, output, ())
        after = self._only_reader(output)
        if after is None or after.op_type != "Transpose" or after.attributes.get("perm") != (1, 0, 2):
            return begin, output, ()
        return before.inputs[0], after.outputs[0], (*kept, after)

    def _first_state(self, name: str) -> tuple[str, str]:
        """The name of a first state, empty for zeros, and the file in which it is taken for zeros unread."""
        if not name or not self._is_zero(name):
            return name, ""
        tensor = self._model.initializers.get(name)
        is_unread = tensor is not None and self._model.numbers(tensor) is None
        return "", (tensor.location or "the file" if tensor is not None and is_unread else "")

    def _is_zero(self, name: str) -> bool:
        """Whether a value is zeros alone. A constant of a name that an exporter made up, which is not read, is."""
        for _ in range(_DEEPEST):
            writer = self._writers.get(name)
            if writer is None or writer.op_type == "Constant":
                tensor = self._tensor(name)
                numbers = self._model.numbers(tensor) if tensor is not None else ()
                return not names_parameter(name) if numbers is None else bool(numbers) and not any(numbers)
            if writer.op_type == "ConstantOfShape":
                value = writer.attributes.get("value")
                filled = (self._model.numbers(value) if isinstance(value, OnnxTensor) else (0,)) or (1,)
                return not any(filled)
            if writer.op_type not in _FILLS or not writer.inputs:
                return False
            name = writer.inputs[0]
        return False


def _setting(node: OnnxNode, key: str) -> object:
    return node.attributes.get(key)


def _has_bias(node: OnnxNode) -> bool:
    return len(node.inputs) > 3 and bool(node.inputs[3])
