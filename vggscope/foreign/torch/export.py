"""A program that torch.export.save wrote (`.pt2`) as a Network.

The archive is a zip file with the graph and a list of the weights as JSON. Only these members are read: neither the
weights nor the pickled example inputs, and no code runs.
https://docs.pytorch.org/docs/stable/export/pt2_archive.html describes the archive, and
torch/_export/serde/schema.py the JSON.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from vggscope.builders.graph_module import GraphTape
from vggscope.checkpoint.formats.archive import DAMAGE, json_of, opened, text_of
from vggscope.checkpoint.formats.bounded_file import BoundedFile, stored_member
from vggscope.checkpoint.formats.export_archive import DTYPES, STATE_DICTS
from vggscope.checkpoint.formats.torch_save import LARGEST_DIRECTORY, places_in
from vggscope.checkpoint.reader import explained
from vggscope.errors import CheckpointError, OptionError, ShapeError, option, printable
from vggscope.foreign.aten import FunctionCall, translated
from vggscope.foreign.growth import (
    batch_axis_note,
    growth,
    has_batch,
    is_extrapolated,
    no_batch,
    nodes_with_growth,
    reads_by_steps,
)
from vggscope.foreign.program import Program, Scope, buffer_value, output_of, parameter_value, product
from vggscope.foreign.torch.program_tape import program_tape
from vggscope.foreign.torch.symbols import Sizes, hint_of, solved, symbol_of
from vggscope.foreign.values import ProgramValue
from vggscope.graph import INPUT, INPUT_MARK, OUTPUT, Buffer, Input, Network, Output, Parameter
from vggscope.ops.base import Shape
from vggscope.record import record
from vggscope.trace.node_names import cost_warnings
from vggscope.units import shape_text
from vggscope.vgg.labels import labelled
from vggscope.vgg.options import BuildOptions

MOST_NODES = 20_000
"""The most calls that are read. The graphs of the largest language models have half as many."""

MOST_ITEMS = 10_000
"""The most tensors that a call takes or returns."""

MOST_OUTPUTS = 100
"""The most tensors of which the network's output is chosen."""

DEEPEST = 32
"""The most containers in one another in what forward takes and returns."""

GRAPHS = ("models/model.json", "serialized_exported_program.json")
"""The ends of the name of the member with the graph: from torch 2.7 on, and before."""

WEIGHTS = "weights/model_weights_config.json"
"""The end of the name of the member with the list of the weights. Archives of older releases of torch lack it."""

UNTOLD_TIES = "the file does not tell which weights are the same tensor: one under several names counts several times"

REMEDY = "write it again: torch.export.save(torch.export.export(model, (x,)), FILE)"

SINGLE = "the program was exported for a fixed batch, and its shapes do not tell those of another"
"""Why only the batch in the file is known."""


@record
class TensorInput:
    """A tensor that the program takes: its name in the graph, and the name of forward's argument."""

    value: str
    label: str


@record
class Graph:
    """The parts of the JSON that make a Network: calls, and what is told of each tensor.

    `parameters` and `buffers` are the keys of weights by the names of their tensors in the graph. `outputs` are the
    places and the names of the tensors that the program returns. `modules` are the paths of all modules. `tells_ties`:
    a parameter with several keys has the first one.
    """

    calls: tuple[Mapping[str, Any], ...]
    tensors: Mapping[str, Any]
    numbers: Mapping[str, Any]
    inputs: tuple[TensorInput, ...]
    parameters: Mapping[str, str]
    buffers: Mapping[str, str]
    outputs: tuple[tuple[str, str], ...]
    modules: frozenset[str]
    tells_ties: bool = True

    @property
    def parents(self) -> frozenset[str]:
        """The paths of modules that hold others."""
        return frozenset(path.rpartition(".")[0] for path in self.modules)


def read(path: str) -> Graph:
    """The graph in an archive. Raises CheckpointError, with the path, where it is none or is damaged."""
    with explained(path), opened(path) as (file, archive):
        names = [name for name in archive.namelist() if name.endswith(GRAPHS)]
        if len(names) != 1:
            how_many = f"{len(names)} graphs" if names else "no graph"
            raise CheckpointError(f"it holds {how_many} of torch.export, which writes one", REMEDY)
        values = json_of(text_of(file, archive, names[0]), names[0])
        lists = [name for name in archive.namelist() if name.endswith(WEIGHTS)]
        if len(lists) == 1:
            weights = json_of(text_of(file, archive, lists[0]), lists[0]).get("config")
            first: dict[str, str] | None = _first_keys(weights) if isinstance(weights, dict) else {}
        else:
            first = _first_keys_of_checkpoint(file, archive)
        try:
            return replace(_graph(values, first or {}), tells_ties=first is not None)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise _lacking(error) from None


def _lacking(error: Exception) -> CheckpointError:
    lacks = f"lacks {printable(str(error), 60)}" if isinstance(error, KeyError) else "is not of a form that is known"
    return CheckpointError(f"its graph {lacks}", REMEDY)


def _first_keys_of_checkpoint(file: BoundedFile, archive: zipfile.ZipFile) -> dict[str, str] | None:
    """What `_first_keys` returns, of the checkpoint in an older archive; None where there is none that is read.

    Its pickle is scanned and its data is not read.
    """
    members = [info for info in archive.infolist() if info.filename.endswith(STATE_DICTS)]
    if len(members) != 1 or members[0].compress_type != zipfile.ZIP_STORED or members[0].flag_bits & 1:
        return None
    window = stored_member(file, archive, members[0])
    try:
        file.allow(LARGEST_DIRECTORY)
        with zipfile.ZipFile(window) as inner:
            places = places_in(file, inner)
    except (CheckpointError, *DAMAGE):
        return None
    return _first_keys(places)


def _first_keys(weights: Mapping[str, Any]) -> dict[str, str]:
    """The first key of each parameter that has several, by the others: of a table that is embedding and output, say."""
    first: dict[str, str] = {}
    keys: dict[str, str] = {}
    for key, entry in weights.items():
        # The description tells views of one storage apart.
        known = first.setdefault(json.dumps(entry, sort_keys=True), key)
        if known != key:
            keys[key] = known
    return keys


def _graph(values: Mapping[str, Any], first_keys: Mapping[str, str]) -> Graph:
    module = values["graph_module"]
    graph, signature = module["graph"], module["signature"]
    calls = tuple(graph["nodes"])
    if len(calls) > MOST_NODES:
        raise CheckpointError(f"its graph has {len(calls)} calls, at most {MOST_NODES} are read")
    entries = module.get("module_call_graph") or ()
    specs = [next(iter(spec.items())) for spec in signature["input_specs"]]
    named = {kind: _named_by(specs, kind) for kind in ("parameter", "buffer", "tensor_constant")}
    labels = _Labels(entries)
    outputs = [spec["user_output"]["arg"] for spec in signature["output_specs"] if "user_output" in spec]
    return Graph(
        calls,
        graph["tensor_values"],
        graph.get("sym_int_values") or {},
        labels.inputs([spec["arg"] for kind, spec in specs if kind in ("user_input", "constant_input")]),
        {name: first_keys.get(key, key) for name, key in named["parameter"].items()},
        {**named["buffer"], **named["tensor_constant"]},
        labels.outputs(outputs),
        frozenset(str(entry["fqn"]) for entry in entries),
    )


def _named_by(specs: Sequence[tuple[str, Any]], kind: str) -> dict[str, str]:
    """The keys of one kind of weights, by the names of their tensors in the graph."""
    return {str(spec["arg"]["name"]): str(spec[f"{kind}_name"]) for given, spec in specs if given == kind}


class _Labels:
    """Names of inputs by the arguments of forward, and of outputs by their place in what it returns."""

    def __init__(self, entries: Sequence[Mapping[str, Any]]) -> None:
        whole = next((entry.get("signature") for entry in entries if entry["fqn"] == ""), None) or {}
        self._arguments = whole.get("forward_arg_names") or []
        self._taken = _leaves(whole.get("in_spec"), self._arguments)
        self._returned = _leaves(whole.get("out_spec"), None)

    def inputs(self, arguments: Sequence[Any]) -> tuple[TensorInput, ...]:
        """The inputs that are tensors."""
        names = [_tensor_name(argument) for argument in arguments]
        labels = self._taken if len(self._taken) == len(names) else [name or "" for name in names]
        return tuple(TensorInput(name, label or name) for name, label in zip(names, labels) if name)

    def outputs(self, arguments: Sequence[Any]) -> tuple[tuple[str, str], ...]:
        """The places and the names of the outputs that are tensors."""
        names = [_tensor_name(argument) for argument in arguments]
        several = [f"[{place}]" for place in range(len(names))] if len(names) > 1 else [""]
        places = self._returned if len(self._returned) == len(names) else several
        return tuple((_output_name(place), name) for name, place in zip(names, places) if name)


def _output_name(place: str) -> str:
    """The name of an output at a place such as `[1]` or `.logits`; a dict's key is a name of its own."""
    return place[1:] if place.startswith(".") else OUTPUT + place


def _tensor_name(argument: Any) -> str:
    tensor = argument.get("as_tensor") if isinstance(argument, Mapping) else None
    return str(tensor["name"]) if isinstance(tensor, Mapping) else ""


def _leaves(text: Any, arguments: Sequence[str] | None) -> list[str]:
    """The places of the leaves of a tree specification of torch's pytree; empty for a text that is none.

    With the names of `arguments`, it is that of a call's arguments: a tuple, and a dict by keyword.
    """
    try:
        tree = json.loads(text)[1]
        if arguments is None:
            return list(_places(tree, ""))
        given, named = tree["children_spec"]
        names = [str(name) for name in (*arguments, *json.loads(named["context"]))]
        branches = (*given["children_spec"], *named["children_spec"])
        return [place for name, branch in zip(names, branches) for place in _places(branch, name)]
    except (ValueError, LookupError, TypeError, RecursionError):
        return []


def _places(tree: Mapping[str, Any], path: str, depth: int = 0) -> Iterator[str]:
    if tree["type"] is None:
        yield path
        return
    if depth > DEEPEST:
        raise ValueError(depth)
    children = tree["children_spec"]
    keys = _keys(tree, len(children))
    for place, child in enumerate(children):
        yield from _places(child, f"{path}.{keys[place]}" if keys else f"{path}[{place}]", depth + 1)


def _keys(tree: Mapping[str, Any], count: int) -> list[str]:
    """The keys of a dict or of a named result; empty for a tuple and a list."""
    try:
        keys = json.loads(tree["context"])
    except (ValueError, TypeError, RecursionError):
        return []
    keys = keys[1] if isinstance(keys, list) and len(keys) == 2 and isinstance(keys[1], list) else keys
    return [str(key) for key in keys] if isinstance(keys, list) and len(keys) == count else []


class _GraphRun:
    """The calls of a graph, recorded for one choice of sizes.

    `shapes` are those of the inputs, if they differ from those in the file.
    """

    def __init__(self, graph: Graph, dtype: str, sizes: Sizes, shapes: Sequence[Shape] | None = None) -> None:
        self.graph, self.sizes = graph, sizes
        self.program = Program(dtype, graph.modules, resized=shapes is not None)
        self.values: dict[str, ProgramValue] = {}
        self.parents = graph.parents
        for name, key in graph.parameters.items():
            tensor = self._tensor(name)
            own = "" if tensor.dtype == dtype else tensor.dtype
            trains = bool(graph.tensors[name].get("requires_grad"))
            self.values[name] = parameter_value(Parameter(key, tensor.shape, trains, own), tensor.dtype)
        for name, key in graph.buffers.items():
            tensor = self._tensor(name)
            self.values[name] = buffer_value(key, tensor.shape, tensor.dtype)
        self.inputs = self._inputs(shapes)
        for group in self._groups():
            self._record(group)

    def _inputs(self, shapes: Sequence[Shape] | None) -> tuple[Input, ...]:
        inputs = []
        is_one = len(self.graph.inputs) == 1
        for place, given in enumerate(self.graph.inputs):
            value = self._tensor(given.value)
            if shapes is not None:
                value.shape = shapes[place]
            label = given.label + INPUT_MARK if given.label in self.graph.modules else given.label
            name = INPUT if is_one else label
            self.program.given(name, value)
            self.values[given.value] = value
            dtype = "" if value.dtype == self.program.dtype else value.dtype
            inputs.append(Input(name, value.shape, dtype))
        return tuple(inputs)

    def _tensor(self, name: str) -> ProgramValue:
        """A tensor as the file describes it."""
        meta = self.graph.tensors[name]
        dtype = DTYPES.get(meta["dtype"])
        shape = tuple(self.sizes.of(size) for size in meta["sizes"])
        strides = tuple(self.sizes.of(size) for size in meta.get("strides") or ())
        if dtype is None or any(size is None for size in shape) or len(shape) > 64:
            raise CheckpointError(f"its tensor {printable(name, 60)} has no known dtype or shape", REMEDY)
        known = strides if len(strides) == len(shape) and None not in strides else None
        return ProgramValue(shape, dtype, filed=shape, strides=known)  # type: ignore[arg-type]

    def _groups(self) -> Iterator[list[Mapping[str, Any]]]:
        """The calls one by one, but those of a local response norm, which has no operator, together."""
        group: list[Mapping[str, Any]] = []
        for call in self.graph.calls:
            if group and not (_is_of_norm(call) and _stack(call) == _stack(group[0])):
                yield group
                group = []
            group.append(call)
            if not _is_of_norm(call):
                yield group
                group = []
        if group:
            yield group

    def _record(self, group: Sequence[Mapping[str, Any]]) -> None:
        norm = self._norm(group) if len(group) > 1 else None
        if norm is not None:
            return self._call(norm, group[-1])
        for call in group:
            target = str(call["target"])
            space, _, name = target.removeprefix("torch.ops.").partition(".")
            if not target.startswith("torch.ops.") or not any(map(_names_of, call["outputs"])):
                continue  # arithmetic of sizes, or a check
            args, kwargs = self._arguments(call)
            plain = name.partition(".")[0]
            foreign = FunctionCall(f"{space}::{plain}", False, args, kwargs)
            self._call(translated(plain, args, kwargs) if space in ("aten", "prims") else foreign, call)
        return None

    def _norm(self, group: Sequence[Mapping[str, Any]]) -> FunctionCall | None:
        """The calls of a local response norm as the one that they compute; None if they compute another."""
        given = [(str(call["target"]).split(".")[-2], self._literals(call)) for call in group]
        found = dict(given)
        try:
            size = found.get("avg_pool3d", found.get("avg_pool2d", []))[0][0]
            alpha = next(numbers[0] for name, numbers in given if name == "mul" and numbers)
            k, beta = found["add"][0], found["pow"][0]
            first = self.values[_tensor_name(group[0]["inputs"][0]["arg"])]
        except (LookupError, TypeError, StopIteration):
            return None
        return FunctionCall("local_response_norm", False, (first, size, alpha, beta, k), {})

    def _literals(self, call: Mapping[str, Any]) -> list[Any]:
        """The arguments of a call that are no tensors."""
        kinds = ("as_int", "as_float", "as_ints")
        return [next(iter(a["arg"].values())) for a in call["inputs"] if next(iter(a["arg"])) in kinds]

    def _arguments(self, call: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        args, kwargs = [], {}
        for given in call["inputs"]:
            value = self._argument(given["arg"])
            if given.get("kind") == 2 or (given.get("kind") is None and given["name"] in _KEYWORDS):
                kwargs[str(given["name"])] = value
            else:
                args.append(value)
        return tuple(args), kwargs

    def _argument(self, argument: Mapping[str, Any]) -> Any:
        kind, value = next(iter(argument.items()))
        readers: dict[str, Callable[[], Any]] = {
            "as_tensor": lambda: self.values[value["name"]],
            "as_tensors": lambda: [self.values[tensor["name"]] for tensor in value[:MOST_ITEMS]],
            "as_optional_tensors": lambda: [self._argument(tensor) for tensor in value[:MOST_ITEMS]],
            "as_optional_tensor": lambda: self._argument(value),
            "as_sym_int": lambda: self._number(value),
            "as_sym_ints": lambda: [self._number(number) for number in value[:MOST_ITEMS]],
            "as_scalar_type": lambda: DTYPES.get(value, "unknown"),
            "as_float": lambda: float(value),  # infinity is a text
            "as_none": lambda: None,
        }
        if kind in readers:
            return readers[kind]()
        return value if kind in _PLAIN else kind.removeprefix("as_")

    def _number(self, number: Mapping[str, Any]) -> int:
        if "as_int" in number:
            return int(number["as_int"])
        value = self.sizes.of(self.graph.numbers[number["as_name"]])
        if value is None:
            raise CheckpointError(f"its size {printable(str(number['as_name']), 60)} is not known", REMEDY)
        return value

    def _call(self, call: FunctionCall, written: Mapping[str, Any]) -> None:
        names = [name for output in written["outputs"] for name in _names_of(output)][:MOST_ITEMS]
        results = [self._tensor(name) for name in names]
        self.program.call(call, results, self._scope(written))
        self.values.update(zip(names, results))

    def _scope(self, call: Mapping[str, Any]) -> Scope:
        """The module that a call stands in: the innermost of its stack that the file lists."""
        stack = _stack(call)
        path, kind = _entry(stack.rpartition(";")[2])
        if path not in self.graph.modules:
            return Scope()
        is_layer = kind.startswith("torch.nn.modules.") and path not in self.parents and path
        return Scope(path, kind.rpartition(".")[2] if is_layer else "")

    def sources(self) -> list[str]:
        """The node or input of each tensor that the program returns, empty for a constant."""
        return [self.values[name].source for _, name in self.graph.outputs]


_PLAIN = frozenset({"as_int", "as_bool", "as_string", "as_ints", "as_floats", "as_bools", "as_strings"})
"""The kinds of arguments that JSON holds as they are."""

_KEYWORDS = frozenset({"dtype", "layout", "device", "pin_memory", "memory_format", "alpha", "beta", "rounding_mode"})
"""Arguments that operators take by name alone. Files of torch before 2.8 do not mark them."""


def _names_of(output: Any) -> list[str]:
    """The names of the tensors of one output of a call."""
    if not isinstance(output, Mapping):
        return []
    tensors = output.get("as_tensors") or [output.get("as_tensor")]
    return [str(tensor["name"]) for tensor in tensors if isinstance(tensor, Mapping)]


def _stack(call: Mapping[str, Any]) -> str:
    return str((call.get("metadata") or {}).get("nn_module_stack", ""))


def _entry(text: str) -> tuple[str, str]:
    """The path and the class of one entry of a stack: `key,path,class`. A second call of a module is `path@1`."""
    _, _, rest = text.partition(",")
    path, _, kind = rest.partition(",")
    return re.sub(r"@\d+$", "", path), kind


def _is_of_norm(call: Mapping[str, Any]) -> bool:
    return _stack(call).endswith(".LocalResponseNorm")


@dataclass
class _ProgramReader:
    """Makes the Network of a graph, for the sizes that the caller wants or for those of the file.

    `run` is the one whose calls are the Network's nodes.
    """

    graph: Graph
    options: BuildOptions
    name: str
    run: _GraphRun | None = None

    def __post_init__(self) -> None:
        self.dtype = _own_dtype(self.graph)
        metas = [self.graph.tensors[given.value]["sizes"] for given in self.graph.inputs]
        hints = {symbol_of(size): hint_of(size) for sizes in metas for size in sizes}
        self.hints = {symbol: hint for symbol, hint in hints.items() if symbol and hint is not None}
        self._solve([[hint_of(size) for size in sizes] for sizes in metas], metas)
        self.sizes = metas
        given = self.options.inputs
        opened = [axis for sizes in metas for axis, size in enumerate(sizes) if symbol_of(size)]
        self.axis = opened[0] if len({*opened}) == 1 and given is None else 0
        self._place(self.axis if given is None else given.batch_axis or 0)

    def network(self) -> Network:
        """The Network. Raises ShapeError or OptionError for inputs that the program does not take.

        The batch is the axis that the caller names, else one of an open size, else the first. Where that has the steps
        of a recurrent layer, it is the second.
        """
        inputs = self.options.inputs
        if inputs is not None and inputs.batch_axis is None:
            return replace(self._as_filed(), single="the program was read without a batch")
        # Sizes that are given without the batch are those for the first axis, where no other is named.
        axes = (self.axis,) if inputs is not None or self.axis else (0, 1)
        for axis in axes:
            self._place(axis)
            try:
                found, is_batch = self._read()
            except (ShapeError, CheckpointError, OptionError):
                if axis == axes[0]:
                    raise
                break
            if is_batch and axis == 0:
                return found
            if is_batch:
                note = () if inputs is not None else (batch_axis_note(axis),)
                return replace(found, warnings=(*found.warnings, *note))
            if not reads_by_steps(found):
                break
        self._place(0)
        return replace(self._as_filed(), single=no_batch())

    def _place(self, axis: int) -> None:
        """Take an axis of the inputs for the batch."""
        self.axis = axis
        self.symbol = next((symbol_of(sizes[axis]) for sizes in self.sizes if len(sizes) > axis), "")

    def _of(self, shape: Shape, batch: int, filed: int) -> Shape:
        """The shape of an input with another batch than `filed`; as it is if it has none."""
        if len(shape) <= self.axis or shape[self.axis] != filed:
            return shape
        return (*shape[: self.axis], batch, *shape[self.axis + 1 :])

    def _as_filed(self) -> Network:
        """The Network for the inputs that the caller names, else those in the file, whatever their batch is."""
        filed = self._filed()
        wanted, warnings = self._wanted(filed, -1)
        return self._network(_GraphRun(self.graph, self.dtype, Sizes(self.hints), wanted), warnings)

    def _read(self) -> tuple[Network, bool]:
        """The Network with the batch at its axis, and whether that axis may be one of a batch."""
        filed = self._filed()
        batch = next((shape[self.axis] for shape in filed if len(shape) > self.axis), 1)
        wanted, warnings = self._wanted(filed, batch)
        whole = None if self.symbol else self._run(1 if wanted is not None else batch, wanted, batch)
        try:
            one = whole if whole and batch == 1 else self._run(1, wanted, batch)
            two = self._run(2, wanted, batch)
        except (ShapeError, CheckpointError):
            if whole is None or wanted is not None:
                raise
            return replace(self._network(whole, warnings), single=SINGLE), self.axis == 0
        nodes = None
        if whole is None or wanted is not None or is_extrapolated(one.program, two.program, whole.program, batch):
            nodes = nodes_with_growth(one.program.finished(frozenset(one.sources())), one.program, two.program)
        if nodes is None:
            return replace(self._network(whole or one, warnings), single=SINGLE), self.axis == 0
        network = self._finished(one, two, replace(self._network(one, warnings), nodes=nodes))
        return network, has_batch(network)

    def _solve(self, shapes: Sequence[Sequence[int | None]], metas: Sequence[Sequence[Any]]) -> None:
        """Conclude symbols that are a part of a side, such as h where the program takes 2*h pixels."""
        for sides, sizes in zip(shapes, metas):
            for side, size in zip(sides, sizes):
                found = None if side is None else solved(size, side, self.hints)
                self.hints.update([found] if found else ())

    def _filed(self) -> list[Shape]:
        """The shapes of the inputs in the file."""
        sizes = Sizes({})
        shapes = [tuple(sizes.of(size) for size in meta) for meta in self.sizes]
        if not shapes or any(size is None for shape in shapes for size in shape):
            raise CheckpointError("it takes no tensor of a known shape", REMEDY)
        return shapes  # type: ignore[return-value]

    def _wanted(self, filed: list[Shape], batch: int) -> tuple[list[Shape] | None, tuple[str, ...]]:
        """The shapes that the caller wants if they are not the file's, with a note; sizes that are symbols are set."""
        shapes = _given_shapes(self.options, filed)
        ours = [self._of(shape, 1, batch) for shape in filed]
        if not shapes or shapes == ours:
            return None, ()
        if [len(shape) for shape in shapes] != [len(shape) for shape in ours]:
            raise OptionError(f"{self.name} takes {_texts(ours)}", f"leave out {option('input_size')}")
        self.hints = {}
        for sizes, shape in zip(self.sizes, shapes):
            self.hints.update((symbol_of(size), side) for size, side in zip(sizes, shape) if symbol_of(size))
        self._solve(shapes, self.sizes)
        sizes = Sizes(self.hints)
        told = [tuple(sizes.of(size) for size in meta) for meta in self.sizes]
        if any(None in shape for shape in told):
            problem = f"{self.name} was exported for sides such as those of {_texts(ours)}, not of {_texts(shapes)}"
            raise OptionError(problem, f"{option('input_size')} takes multiples of what its sides have in common")
        if self.symbol and told == shapes:
            return None, ()
        note = f"the program was exported at {_texts(ours)}: a size that it computes from its input is not that of"
        return shapes, (f"{note} {_texts(shapes)}",)

    def _run(self, batch: int, wanted: list[Shape] | None, filed: int) -> _GraphRun:
        hints = {**self.hints, self.symbol: batch} if self.symbol else self.hints
        if wanted is None and (self.symbol or batch == filed):
            return _GraphRun(self.graph, self.dtype, Sizes(hints))
        base = wanted if wanted is not None else self._filed()
        first = 1 if wanted is not None else filed
        shapes = [self._of(shape, batch, first) for shape in base]
        return _GraphRun(self.graph, self.dtype, Sizes(hints), shapes)

    def _network(self, run: _GraphRun, warnings: tuple[str, ...]) -> Network:
        self.run = run
        program, sources = run.program, run.sources()
        nodes = program.finished(frozenset(sources))
        output, place = output_of(program.nodes, sources[:MOST_OUTPUTS])
        returned = []
        for (label, name), source in zip(self.graph.outputs, sources):
            value = run.values[name]
            dtype = "" if value.dtype == self.dtype else value.dtype
            returned.append(Output(label, value.shape, dtype, source=source))
        unused = [p for value in run.values.values() for p in value.parameters if p.name not in program.read]
        if not nodes or output is None:
            raise CheckpointError("its graph computes nothing from its inputs", "is it a program of torch.export?")
        return Network(
            self.name,
            run.inputs,
            nodes,
            tuple((parameter, "not used by forward") for parameter in dict.fromkeys(unused)),
            (*warnings, *program.warnings, *cost_warnings(program.unknown), *self._untold_ties(run)),
            output=output if output != nodes[-1].name else None,
            output_place=place,
            returned=tuple(returned),
            tables=self._tables(run),
            dtype=self.dtype,
        )

    def _untold_ties(self, run: _GraphRun) -> tuple[str, ...]:
        """A note where weights that may be one tensor have several keys."""
        shapes = [run.values[name].shape for name in self.graph.parameters]
        may_share = any(len(shape) > 1 and shapes.count(shape) > 1 for shape in dict.fromkeys(shapes))
        return (UNTOLD_TIES,) if may_share and not self.graph.tells_ties else ()

    def _tables(self, run: _GraphRun) -> tuple[Buffer, ...]:
        """The buffers that belong to no layer."""
        layers = [node for node in run.program.nodes.values() if node.module is not None]
        owned = {f"{node.module}.{name}" for node in layers for name in node.op.buffers()}
        buffers = [run.values[name] for name in self.graph.buffers]
        return tuple(
            Buffer(value.buffer, value.shape, "" if value.dtype == self.dtype else value.dtype)
            for value in buffers
            if value.buffer not in owned
        )

    def _finished(self, one: _GraphRun, two: _GraphRun, network: Network) -> Network:
        """The network with the growth of its inputs and outputs, and with the literature's labels."""
        inputs = tuple(replace(x, batch_growth=growth(x.shape, y.shape)) for x, y in zip(one.inputs, two.inputs))
        values = [two.values[name] for _, name in self.graph.outputs]
        pairs = zip(network.returned, values)
        returned = tuple(replace(x, batch_growth=growth(x.shape, value.shape)) for x, value in pairs)
        return labelled(replace(network, inputs=inputs, returned=returned))


def _texts(shapes: Sequence[Shape]) -> str:
    return " and ".join(shape_text(shape) or "one number" for shape in shapes)


def _given_shapes(options: BuildOptions, filed: Sequence[Shape]) -> list[Shape]:
    """The shapes that the caller names, for a batch of one; empty without any. `filed` are those in the file."""
    inputs = options.inputs
    if inputs is None:
        return [] if options.input is None else [(1, *options.input)]
    axis = inputs.batch_axis
    if inputs.data is None:
        stated = [*filed, *((),) * len(inputs.sizes)]
        return [size.for_stated(shape, axis) for size, shape in zip(inputs.sizes, stated)]
    from vggscope.trace.inputs import from_data

    return [tuple(tensor.shape) for tensor in from_data(inputs.data, axis).for_samples(1).tensors()]


def _own_dtype(graph: Graph) -> str:
    """The floating-point dtype of most weights, else of the inputs."""
    elements: dict[str, int] = {}
    given = [given.value for given in graph.inputs]
    for name in (*graph.parameters, *graph.buffers, *given):
        dtype = DTYPES.get(graph.tensors[name]["dtype"], "")
        sizes = [size.get("as_int", 1) for size in graph.tensors[name]["sizes"]]
        if dtype.startswith(("float", "bfloat", "complex")) and all(type(size) is int for size in sizes):
            elements[dtype] = elements.get(dtype, 0) + product(sizes)
    return max(elements, key=elements.__getitem__, default="float32")


def fixes_inputs(path: str) -> bool:
    """Whether the program takes one size of each input, but for the batch. Raises as `read` does."""
    graph = read(path)
    sizes = [graph.tensors[given.value]["sizes"] for given in graph.inputs]
    return (
        len({symbol_of(size) for shape in sizes for size in shape} - {"", *(symbol_of(s[0]) for s in sizes if s)}) == 0
    )


def network_of(path: str, options: BuildOptions) -> Network:
    """The Network of the program in an archive.

    Raises CheckpointError where it cannot be read, ShapeError or OptionError for inputs that it does not take.
    """
    with _reading(path, options) as reader:
        return reader.network()


def tape_of(path: str, options: BuildOptions) -> GraphTape:
    """The calls of torch's functions that compute the program, with its Network. Raises as `network_of` does."""
    with _reading(path, options) as reader:
        network = reader.network()
        assert reader.run is not None
        graph, values = reader.graph, reader.run.values
        held = [(values[name], key) for name, key in (*graph.parameters.items(), *graph.buffers.items())]
        inputs = [values[given.value] for given in graph.inputs]
        return program_tape(network, reader.run.program, inputs, held, [values[name] for _, name in graph.outputs])


@contextmanager
def _reading(path: str, options: BuildOptions) -> Iterator[_ProgramReader]:
    graph = read(path)
    name = printable(re.split(r"[\\/]", path)[-1])
    options.refuse_column_options(f"{name} has its layers")
    with explained(path):
        try:
            yield _ProgramReader(graph, options, name)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise _lacking(error) from None
