"""The configuration that Keras writes into a model's file, as calls of layers in an order in which they can run.

Sequential and functional models of Keras 2 and 3 are read, models in models included. The configuration is data: code
in it, such as that of a Lambda, is never read. The formats: keras.io/guides/serialization_and_saving.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from heapq import heapify, heappop, heappush
from typing import Any

from vggscope.errors import CheckpointError, printable
from vggscope.record import record

MOST_CALLS = 10_000
"""The most calls of layers of one model, those of the models in it included."""

DEEPEST = 16
"""The most models in each other, and the most lists and objects in each other among a call's arguments."""

MODELS = frozenset({"Sequential", "Functional", "Model"})

Stated = tuple[int | None, ...]
"""A shape with its batch axis, None for a size that the file leaves open."""

DAMAGED = "it is damaged, or no configuration of Keras"


@record
class KerasCall:
    """A call of a layer.

    - `name` is the layer's, after the names of the models that hold it, and `type` its class.
    - `config` are its settings, and `is_function` says that it is a function of keras.ops.
    - `inputs` and `output` are keys of tensors. `numbers` are those among its arguments, by their places.
    - `stated` is the shape of its output, and `stated_input` that of its input, where the file tells them.
    - `dialect` is 2 or 3, the version of Keras.
    """

    name: str
    type: str
    config: Mapping[str, Any]
    inputs: tuple[str, ...]
    output: str
    is_function: bool = False
    numbers: tuple[tuple[int, float], ...] = ()
    stated: Stated | None = None
    stated_input: Stated | None = None
    dialect: int = 3


@record
class KerasModel:
    """The calls of a model, its inputs with their shapes and dtypes, and the keys of its outputs by name."""

    name: str
    inputs: tuple[tuple[str, Stated | None, str], ...]
    calls: tuple[KerasCall, ...]
    outputs: tuple[tuple[str, str], ...]


def model_of(config: Mapping[str, Any]) -> KerasModel:
    """The model in a configuration. Raises CheckpointError, without the path, for any other object.

    >>> layer = {"class_name": "Dense", "config": {"name": "fc", "units": 2, "batch_input_shape": [None, 3]}}
    >>> model = model_of({"class_name": "Sequential", "config": {"name": "net", "layers": [layer]}})
    >>> [call.name for call in model.calls], model.inputs
    (['fc'], (('input', (None, 3), 'float32'),))
    """
    if config.get("class_name") not in MODELS:
        raise CheckpointError(
            f"its configuration is of a {printable(str(config.get('class_name')), 60)}, which has code of its own",
            "Sequential and functional models of Keras can be read; export another one to ONNX",
        )
    walk = _CallCollector(_is_new(config))
    outputs = walk.model(config, "", None, 0)
    stated = walk.stated
    calls = tuple(replace(call, stated=stated.get(call.output)) for call in walk.calls)
    return KerasModel(_name_of(config), tuple(walk.inputs), calls, tuple(outputs))


def _is_new(config: Mapping[str, Any]) -> bool:
    """Whether Keras 3 wrote a configuration: it has other words for shapes and dtypes than Keras 2."""
    inner = config.get("config")
    layers = inner.get("layers") if isinstance(inner, Mapping) else None
    settings = (
        [layer.get("config") for layer in layers if isinstance(layer, Mapping)] if isinstance(layers, list) else []
    )
    known = [each for each in settings if isinstance(each, Mapping)]
    policies = [each["dtype"].get("class_name") for each in known if isinstance(each.get("dtype"), Mapping)]
    return any("batch_shape" in each for each in known) or "DTypePolicy" in policies


def _name_of(entry: Mapping[str, Any]) -> str:
    inner = entry.get("config")
    name = entry.get("name") or (inner.get("name") if isinstance(inner, Mapping) else None)
    return name if isinstance(name, str) else ""


@dataclass
class _CallCollector:
    """The calls found so far. `stated` are the shapes of tensors that the file tells, by key."""

    is_new: bool
    calls: list[KerasCall] = field(default_factory=list)
    inputs: list[tuple[str, Stated | None, str]] = field(default_factory=list)
    stated: dict[str, Stated] = field(default_factory=dict)

    def model(
        self, entry: Mapping[str, Any], prefix: str, given: Sequence[str] | None, depth: int
    ) -> list[tuple[str, str]]:
        """Add the calls of a model, and return the names and keys of its outputs.

        `given` are the tensors that it is called on, None for the file's own model.
        """
        if depth > DEEPEST:
            raise CheckpointError("its models are nested too deep", "it is damaged or malicious")
        config = entry.get("config")
        if isinstance(config, list):  # the first versions of Keras wrote a Sequential so
            config = {"layers": config}
        layers = config.get("layers") if isinstance(config, Mapping) else None
        if not isinstance(config, Mapping) or not isinstance(layers, list) or not all(map(_is_layer, layers)):
            raise CheckpointError("its configuration has no list of layers", DAMAGED)
        if entry["class_name"] == "Sequential":
            return self._sequential(entry, config, layers, prefix, given, depth)
        return self._functional(config, layers, prefix, given, depth)

    def _sequential(
        self,
        entry: Mapping[str, Any],
        config: Mapping[str, Any],
        layers: Sequence[Mapping[str, Any]],
        prefix: str,
        given: Sequence[str] | None,
        depth: int,
    ) -> list[tuple[str, str]]:
        names = [name for name in map(_name_of, layers) if name]
        if len(set(names)) < len(names):
            raise CheckpointError("two layers of a model have the same name", DAMAGED)
        last = given[0] if given else ""
        if given is None:
            first = _first_layer(layers)
            shape = _stated_shape(first.get("config", {}) if first else {})
            built = entry.get("build_config") if isinstance(entry.get("build_config"), Mapping) else {}
            shape = shape or _shape(config.get("build_input_shape")) or _shape((built or {}).get("input_shape"))
            named = first is not None and first.get("class_name") == "InputLayer"
            last = self._give(_name_of(first) if named and first else "input", shape, first or {})
        for place, layer in enumerate(layers):
            if layer["class_name"] == "InputLayer":
                continue
            (last,) = self._call(layer, prefix, f"{prefix}{place}", [last], (), depth) or (last,)
        return [(_name_of(layers[-1]) if layers else "output", last)]

    def _give(self, name: str, shape: Stated | None, entry: Mapping[str, Any]) -> str:
        config = entry.get("config")
        dtype = config.get("dtype") if isinstance(config, Mapping) else None
        known = name or "input"
        if any(known == other for other, _, _ in self.inputs):
            raise CheckpointError("two of its inputs have the same name", DAMAGED)
        self.inputs.append((known, shape, dtype_name(dtype)))
        return known

    def _functional(
        self,
        config: Mapping[str, Any],
        layers: Sequence[Mapping[str, Any]],
        prefix: str,
        given: Sequence[str] | None,
        depth: int,
    ) -> list[tuple[str, str]]:
        by_name = {_name_of(layer): layer for layer in layers}
        if len(by_name) < len(layers):
            raise CheckpointError("two layers of a model have the same name", DAMAGED)
        entries = [name for name, _, _ in _ends(config.get("input_layers"))]
        ends = list(_ends(config.get("output_layers")))
        if not entries or not ends or any(name not in by_name for name in (*entries, *(end[0] for end in ends))):
            raise CheckpointError("its model has no inputs or outputs among its layers", DAMAGED)
        if given is not None and len(given) != len(entries):
            raise CheckpointError("a model in it is called on another number of tensors than it has", DAMAGED)
        known: dict[tuple[str, int, int], str] = {}
        for place, name in enumerate(entries):
            shape = _stated_shape(by_name[name].get("config", {}))
            known[name, 0, 0] = self._give(name, shape, by_name[name]) if given is None else given[place]
        self._run(by_name, known, prefix, depth)
        return [(name, _found(known, (name, node, tensor))) for name, node, tensor in ends]

    def _run(
        self,
        layers: Mapping[str, Mapping[str, Any]],
        known: dict[tuple[str, int, int], str],
        prefix: str,
        depth: int,
    ) -> None:
        """Add the calls of a functional model, each after those whose results it reads."""
        sizes = {name: len(_nodes(layer)) for name, layer in layers.items()}
        pending: dict[tuple[str, int], _Arguments] = {}
        for name, layer in layers.items():
            for number, node in enumerate(_nodes(layer)):
                pending[name, number] = arguments = _Arguments()
                arguments.collect(node, 0)
                arguments.tensors = [(one, _node(sizes, one, index), place) for one, index, place in arguments.tensors]
        for name, number in _in_order(pending, {name for name, _, _ in known}):
            arguments = pending[name, number]
            inputs = [_found(known, tensor) for tensor in arguments.tensors]
            for key, shape in zip(inputs, arguments.shapes):
                if shape is not None:
                    self.stated.setdefault(key, shape)
            results = self._call(layers[name], prefix, f"{prefix}{name}/{number}", inputs, arguments.numbers, depth)
            known.update({(name, number, place): key for place, key in enumerate(results)})

    def _call(
        self,
        entry: Mapping[str, Any],
        prefix: str,
        key: str,
        inputs: Sequence[str],
        numbers: Sequence[tuple[int, float]],
        depth: int,
    ) -> list[str]:
        """Add a call of a layer or of a model, and return the keys of its results."""
        kind = str(entry["class_name"])
        name = prefix + (_name_of(entry) or kind.lower())
        config = entry.get("config")
        config = config if isinstance(config, Mapping) else {}
        # A function of keras.ops has no settings that every layer has. Its module is not in all files.
        is_function = self.is_new and not {"trainable", "dtype", "layers"} & config.keys()
        if kind in MODELS and not is_function:
            return [own for _, own in self.model(entry, f"{name}.", inputs, depth + 1)]
        if len(self.calls) == MOST_CALLS:
            raise CheckpointError(f"it has more than {MOST_CALLS:,} calls of layers", "it is damaged or malicious")
        built = entry.get("build_config")
        shape = _shape(built.get("input_shape")) if isinstance(built, Mapping) else None
        output = f"{key}:out"
        if len(inputs) == 1 and shape is not None:
            self.stated.setdefault(inputs[0], shape)
        self.calls.append(
            KerasCall(
                *(name, kind, config, tuple(inputs), output),
                is_function=is_function,
                numbers=tuple(numbers),
                stated_input=shape,
                dialect=3 if self.is_new else 2,
            )
        )
        return [output]


@dataclass
class _Arguments:
    """The tensors among the arguments of a call, with their shapes, and the numbers beside them."""

    tensors: list[tuple[str, int, int]] = field(default_factory=list)
    shapes: list[Stated | None] = field(default_factory=list)
    numbers: list[tuple[int, float]] = field(default_factory=list)
    place: int = 0

    def collect(self, node: Any, depth: int) -> None:
        """Take the tensors of a call, as Keras 2 or 3 writes it."""
        if depth > DEEPEST:
            raise CheckpointError("the arguments of a call are nested too deep", "it is damaged or malicious")
        if isinstance(node, Mapping):
            if node.get("class_name") == "__keras_tensor__":
                inner = node.get("config")
                history = inner.get("keras_history") if isinstance(inner, Mapping) else None
                self._tensor(history, _shape(inner.get("shape")) if isinstance(inner, Mapping) else None)
                return
            for key in ("args", "kwargs") if "args" in node else node:
                self.collect(node.get(key), depth + 1)
        elif isinstance(node, list):
            if _is_reference(node):
                self._tensor(node, None)
                if len(node) == 4:
                    self.collect(node[3], depth + 1)
                return
            for item in node:
                self.collect(item, depth + 1)
        elif isinstance(node, (int, float)) and not isinstance(node, bool):
            self.numbers.append((self.place, float(node)))
            self.place += 1

    def _tensor(self, history: Any, shape: Stated | None) -> None:
        if not _is_reference(history):
            raise CheckpointError("a call of a layer does not tell what it reads", DAMAGED)
        self.tensors.append((history[0], history[1], history[2]))
        self.shapes.append(shape)
        self.place += 1
        if len(self.tensors) > MOST_CALLS:
            raise CheckpointError("a call of a layer reads more tensors than any", "it is damaged or malicious")


def _in_order(calls: Mapping[tuple[str, int], _Arguments], given: Set[str]) -> Iterator[tuple[str, int]]:
    """Yield calls in the order of the file, as far as each comes after those whose results it reads.

    `given` are the layers that are inputs. Raises CheckpointError where there is no such order.
    """
    order = {key: place for place, key in enumerate(calls)}
    readers: dict[tuple[str, int], list[tuple[str, int]]] = {}
    missing: dict[tuple[str, int], int] = {}
    for key, arguments in calls.items():
        needed = {(name, number) for name, number, _ in arguments.tensors if name not in given}
        missing[key] = len(needed)
        for source in needed:
            readers.setdefault(source, []).append(key)
    heap = [(order[key], key) for key, count in missing.items() if not count]
    heapify(heap)
    left = len(calls)
    while heap:
        _, key = heappop(heap)
        left -= 1
        yield key
        for reader in readers.get(key, ()):
            missing[reader] -= 1
            if not missing[reader]:
                heappush(heap, (order[reader], reader))
    if left:
        raise CheckpointError("a layer of it reads what no layer before it computes", "it has a circle, or is damaged")


def _is_reference(node: Any) -> bool:
    """Whether a list names a tensor: a layer, the number of its call, and that of the result."""
    is_listed = isinstance(node, list) and len(node) in (3, 4) and isinstance(node[0], str)
    return is_listed and all(type(number) is int for number in node[1:3])


def _is_layer(entry: Any) -> bool:
    return isinstance(entry, Mapping) and isinstance(entry.get("class_name"), str)


def _nodes(layer: Mapping[str, Any]) -> list[Any]:
    nodes = layer.get("inbound_nodes")
    return nodes if isinstance(nodes, list) else []


def _node(sizes: Mapping[str, int], name: str, index: int) -> int:
    """The number of a call, which some versions count from the first call outside of this model."""
    return 0 if sizes.get(name) == 1 else index


def _found(known: Mapping[tuple[str, int, int], str], key: tuple[str, int, int]) -> str:
    found = known.get(key) or known.get((key[0], 0, key[2]))
    if found is None:
        raise CheckpointError(f"nothing computes what is read of {printable(key[0], 60)}", DAMAGED)
    return found


def _ends(value: Any, depth: int = 0) -> Iterator[tuple[str, int, int]]:
    """The references in a list, or in a nest of lists."""
    if depth > DEEPEST:
        raise CheckpointError("its outputs are nested too deep", "it is damaged or malicious")
    if _is_reference(value):
        yield value[0], value[1], value[2]
    elif isinstance(value, (list, Mapping)):
        items: Iterable[Any] = value.values() if isinstance(value, Mapping) else value
        for item in items:
            yield from _ends(item, depth + 1)


def _first_layer(layers: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The layer that tells the input's shape: the first one, or the first one of a model there."""
    for _ in range(DEEPEST):
        first = layers[0] if layers else None
        if first is None or first["class_name"] not in MODELS or _stated_shape(first.get("config", {})):
            return first
        inner = first.get("config")
        inner = inner.get("layers") if isinstance(inner, Mapping) else inner
        if not isinstance(inner, list) or not all(map(_is_layer, inner)):
            return None
        layers = inner
    return None


def _stated_shape(config: Any) -> Stated | None:
    """The shape of the input that a layer's settings have."""
    if not isinstance(config, Mapping):
        return None
    return _shape(config.get("batch_shape")) or _shape(config.get("batch_input_shape"))


def _shape(value: Any) -> Stated | None:
    if not isinstance(value, list) or not value or len(value) > 16:
        return None
    if not all(size is None or (type(size) is int and 0 <= size < 2**40) for size in value):
        return None
    return tuple(value)


def special_policy(value: Any) -> str:
    """The policy of a layer that computes in another dtype than its variables' or stores them quantised; else empty.

    >>> special_policy("mixed_float16"), special_policy("float32")
    ('mixed_float16', '')
    >>> special_policy({"class_name": "QuantizedDTypePolicy", "config": {"mode": "int8", "source_name": "float32"}})
    'int8'
    """
    config = value.get("config") if isinstance(value, Mapping) else None
    mode = config.get("mode") if isinstance(config, Mapping) else None
    name = mode if isinstance(mode, str) else dtype_name(value)
    is_special = isinstance(mode, str) or name.startswith("mixed_")
    return name[:40] if is_special else ""


def dtype_name(value: Any) -> str:
    """The dtype of an input, or the variables' of a policy, as Keras 2 and 3 write them."""
    for _ in range(3):
        if isinstance(value, Mapping):
            inner = value.get("config")
            value = inner.get("name") if isinstance(inner, Mapping) else None
    return value if isinstance(value, str) and len(value) < 40 else "float32"
