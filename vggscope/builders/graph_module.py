"""A Network of any shape as an nn.Module that runs its ops one after the other.

`builders.module` makes the modules of a chain, as people write them. Here an op is the class of its name in torch.nn or
its `torch_call`, and its weights are the module's own, under the keys of the network's parameters.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from vggscope.errors import ModelError, printable
from vggscope.graph import ConstantValue, Network, Node
from vggscope.ops.base import DtypeArgument, Op, TensorArgument, TorchCall
from vggscope.record import record

if TYPE_CHECKING:
    from torch import Tensor, nn

REMEDY = "what can be run are ops that are a class of torch.nn or a function of torch's"


@record
class GraphStep:
    """One call: `op`, or `call` where the op does not tell it, on the tensors in the slots `operands`.

    Its results go to the slots `results`. `nodes` are the names of the nodes that these are, empty for constants.
    `weights` is the number of operands at the end that are the op's own weights. `dtype` is that of the result, and
    `function` the name of the function in the file.
    """

    title: str
    op: Op | None
    call: TorchCall | None
    operands: tuple[int, ...]
    results: tuple[int, ...]
    nodes: tuple[str, ...]
    weights: int = 0
    dtype: str = "float32"
    function: str = ""


@record
class GraphTape:
    """The calls of a network in order, and where their tensors come from.

    `inputs` are the slots of the network's inputs. `keys` are the slots of the state dict's tensors, with the keys,
    `numbers` those of constants of one number. `shapes` and `dtypes` are those of the state dict's tensors, by key, and
    `trainable` the keys of parameters. `outputs` are the slots of the tensors that are returned.
    """

    network: Network
    inputs: tuple[int, ...]
    keys: Mapping[int, str]
    numbers: Mapping[int, float]
    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, str]
    trainable: frozenset[str]
    steps: tuple[GraphStep, ...]
    outputs: tuple[int, ...]


def tape_of(network: Network) -> GraphTape:
    """The calls of a network whose nodes tell all that they read.

    Raises ModelError, with the layer's name, where a node reads a constant of which only the shape is known.
    """
    slots: dict[str, int] = {given.name: place for place, given in enumerate(network.inputs)}
    keys: dict[str, int] = {}
    numbers: dict[int, float] = {}
    free = iter(range(len(slots), 2**62))
    steps = []
    for node in network.nodes:
        constants = iter([_slot(network, node, value, keys, numbers, free) for value in _constants(node)])
        inputs = node.op.with_constants([slots[source] for source in node.inputs], constants)
        weights = list(constants)
        slots[node.name] = result = next(free)
        dtype = node.dtype or network.dtype
        operands = (*inputs, *weights)
        steps.append(GraphStep(node.title, node.op, None, operands, (result,), (node.name,), len(weights), dtype))
    shapes, dtypes = _state(network)
    returned = [slots[output.source] for output in network.outputs if output.source in slots]
    trainable = frozenset(parameter.name for parameter in network.parameters())
    held = {slot: key for key, slot in keys.items()}
    outputs = tuple(returned) or (slots[network.end],)
    return GraphTape(
        network, tuple(range(len(network.inputs))), held, numbers, shapes, dtypes, trainable, tuple(steps), outputs
    )


def _constants(node: Node) -> tuple[ConstantValue, ...]:
    """The constants that a node reads, in the order of its call, the weights last."""
    if node.constants:
        return node.constants
    given = [(parameter.name, parameter.shape) for parameter in node.parameters]
    if node.module is not None:
        given += [(f"{node.module}.{leaf}", shape) for leaf, shape in node.op.buffers().items() if shape]
    return tuple(ConstantValue("{}", (name,), (shape,)) for name, shape in given)


def _slot(
    network: Network,
    node: Node,
    value: ConstantValue,
    keys: dict[str, int],
    numbers: dict[int, float],
    free: Iterator[int],
) -> int:
    if value.text == "{}":
        name = value.names[0]
        if name not in keys:
            keys[name] = next(free)
        return keys[name]
    if value.number is None or value.shapes:
        raise refusal(network, node.title, "reads a constant whose values are not kept")
    slot = next(free)
    numbers[slot] = value.number
    return slot


def _state(network: Network) -> tuple[dict[str, tuple[int, ...]], dict[str, str]]:
    """The shapes and the dtypes of the parameters and buffers, by key."""
    named = [(parameter.name, parameter.shape, parameter.dtype) for parameter in network.parameters()]
    named += [(buffer.name, buffer.shape, buffer.dtype) for buffer in network.tables]
    for node in network.nodes:
        if node.module is not None:
            held = node.op.buffers().items()
            named += [(f"{node.module}.{leaf}", shape, "" if shape else "int64") for leaf, shape in held]
    shapes = {name: shape for name, shape, _ in named}
    return shapes, {name: dtype or network.dtype for name, _, dtype in named}


def refusal(network: Network, title: str, problem: str) -> ModelError:
    """The error for a step that cannot be run, with its name."""
    return ModelError(f"{printable(network.name)} cannot be run: {printable(title)} {problem}", REMEDY)


def graph_module(tape: GraphTape) -> nn.Module:
    """The module that runs a tape, at evaluation, on the caller's default device, with torch's own initialisation.

    Its state dict has the network's own keys. `outputs_of(inputs, names)` returns what forward does, and the outputs of
    the nodes `names`. Raises ModelError, with the layer's name, for an op that is neither a class of torch.nn nor a
    call of one of torch's functions.
    """
    try:
        built: nn.Module = _class()(tape)
    except KeyError as error:  # torch refuses a tensor named like an attribute of nn.Module
        raise ModelError(f"{printable(tape.network.name)} cannot be run: {printable(error.args[0])}", REMEDY) from None
    return built.eval()


def has_steps(module: nn.Module) -> bool:
    """Whether a module runs the steps of a tape."""
    return isinstance(module, _class())


@cache
def _class() -> type[nn.Module]:
    from torch import nn

    class GraphModule(nn.Module):
        """The calls of a network, one after the other, on tensors in numbered slots."""

        def __init__(self, tape: GraphTape) -> None:
            super().__init__()
            self._tape = tape
            # They are no submodules: the state dict has the weights under the network's keys alone.
            self._runs = tuple(_run_of(tape.network, step) for step in tape.steps)
            own = dict(_own_weights(tape, self._runs))
            self._held = {key: _registered(self, tape, key, own.get(key)) for key in tape.shapes}
            _tie(tape, self._runs, self._held)

        def forward(self, *inputs: Tensor) -> Any:
            return self.outputs_of(inputs, ())[0]

        def outputs_of(self, inputs: Sequence[Tensor], names: Iterable[str]) -> tuple[Any, dict[str, Tensor]]:
            """What forward returns, and copies of the outputs of the nodes `names`."""
            return _outputs(self._tape, self._runs, self._held, inputs, frozenset(names))

    return GraphModule


def _registered(module: nn.Module, tape: GraphTape, key: str, own: Tensor | None) -> Tensor:
    """A tensor of the state dict, added to the module: a layer's own, or else small numbers."""
    import torch
    from torch import nn

    kind: torch.dtype = getattr(torch, tape.dtypes[key])
    shape, trains = tape.shapes[key], key in tape.trainable and (kind.is_floating_point or kind.is_complex)
    if own is None or own.shape != shape:
        own = torch.randn(shape, dtype=kind) * 0.02 if trains else torch.zeros(shape, dtype=kind)
    *path, leaf = key.split(".")
    for name in path:
        if name not in module._modules:
            module.add_module(name, nn.Module())
        module = module.get_submodule(name)
    if trains:
        module.register_parameter(leaf, nn.Parameter(own.detach().to(kind)))
    else:
        module.register_buffer(leaf, own.detach().to(kind))
    tensor: Tensor = getattr(module, leaf)
    return tensor


def _tie(tape: GraphTape, runs: Sequence[Any], held: Mapping[str, Tensor]) -> None:
    """Let the modules of torch.nn read the tensors of the state dict.

    Raises ModelError where a step does not tell all weights of its module.
    """
    from torch import nn

    for step, run in zip(tape.steps, runs):
        named = list(_weights_of(step, run))
        if isinstance(run, nn.Module) and step.op is not None:
            needed = len(step.op.parameters()) + sum(map(bool, step.op.buffers().values()))
            if len(named) != needed:
                raise refusal(tape.network, step.title, f"reads {len(named)} weights, {step.op.name} has {needed}")
        for leaf, slot in named:
            if slot in tape.keys:
                *path, name = leaf.split(".")
                owner = run.get_submodule(".".join(path))
                if owner._parameters.get(name) is None and owner._buffers.get(name) is None:
                    raise refusal(tape.network, step.title, f"has no {leaf} in torch.nn")
                _set(owner, name, held[tape.keys[slot]])


def _set(module: nn.Module, name: str, tensor: Tensor) -> None:
    """Set a weight, as a parameter whatever the file has it for."""
    from torch import nn

    if name in module._parameters and not isinstance(tensor, nn.Parameter):
        tensor = nn.Parameter(tensor, requires_grad=False)
    setattr(module, name, tensor)


def _outputs(
    tape: GraphTape, runs: Sequence[Any], held: Mapping[str, Tensor], inputs: Sequence[Tensor], wanted: frozenset[str]
) -> tuple[Any, dict[str, Tensor]]:
    found: dict[str, Tensor] = {}
    slots: dict[int, Any] = {slot: held[key] for slot, key in tape.keys.items()}
    if any(step.call is not None and step.call.in_place and not any(step.nodes) for step in tape.steps):
        slots = {slot: tensor.clone() for slot, tensor in slots.items()}
    slots.update(tape.numbers)
    slots.update(zip(tape.inputs, inputs))
    whole: dict[int, tuple[Any, ...]] = {}
    for step, run in zip(tape.steps, runs):
        further = step.op.further_result if step.op is not None else None
        if further is None:
            results = _made(tape.network, step, run, [slots[slot] for slot in step.operands])
        else:
            results = whole[step.operands[0]][further:]
        whole[step.results[0]] = results
        for slot, name, result in zip(step.results, step.nodes, results):
            slots[slot] = result
            if name in wanted:
                found[name] = result.detach().clone()  # a later step may write to it
    returned = tuple(slots[slot] for slot in tape.outputs)
    return returned[0] if len(returned) == 1 else returned, found


def _own_weights(tape: GraphTape, runs: Sequence[Any]) -> Iterator[tuple[str, Tensor]]:
    """The weights that the modules of torch.nn drew, by the keys of the state dict."""
    for step, run in zip(tape.steps, runs):
        for leaf, slot in _weights_of(step, run):
            if slot in tape.keys:
                yield tape.keys[slot], run.state_dict()[leaf]


def _weights_of(step: GraphStep, run: Any) -> Iterator[tuple[str, int]]:
    """The names of the weights of a module of torch.nn, with the slots that they come from."""
    from torch import nn

    if isinstance(run, nn.Module) and step.op is not None:
        leaves = (*step.op.parameters(), *(leaf for leaf, shape in step.op.buffers().items() if shape))
        yield from zip(leaves, step.operands[len(step.operands) - step.weights :])


def _run_of(network: Network, step: GraphStep) -> Any:
    """What runs a step: a module of torch.nn, or a call. Raises ModelError where there is neither."""
    op = step.op
    call = step.call if op is None else op.torch_call(len(step.operands))
    if call is not None and _function(call) is not None:
        return call
    if op is None or op.further_result is None:
        return _layer_of(network, step, op)
    return None


def _layer_of(network: Network, step: GraphStep, op: Op | None) -> nn.Module:
    """The module of an op that is a class of torch.nn. Raises ModelError for any other."""
    from torch import nn

    kind = None if op is None or op.is_unknown or op.compares_inputs else getattr(nn, op.name, None)
    if op is None or not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        named = printable(_called(step), 60)
        raise refusal(network, step.title, f"is a call of {named}, for which there is no call of torch's to run")
    try:
        made: nn.Module = kind(**op.arguments())
    except (TypeError, ValueError, RuntimeError) as error:
        problem = f"is no {printable(op.name, 60)} of torch.nn: {printable(str(error), 120)}"
        raise refusal(network, step.title, problem) from None
    return made.eval()


def _called(step: GraphStep) -> str:
    if step.op is not None:
        return step.op.name
    return step.call.function.removeprefix(OPERATOR) if step.call is not None else step.function or step.title


def _made(network: Network, step: GraphStep, run: Any, operands: list[Any]) -> tuple[Any, ...]:
    """The results of a step. Raises ModelError, with its name, where torch does not compute it."""
    from torch import nn
    from torch.func import functional_call

    try:
        if isinstance(run, nn.Module):
            given, *states = operands[: len(operands) - step.weights]
            states = [tuple(states)] if len(states) > 1 else states
            made = functional_call(run, _computed(step, run, operands), (given, *states))
        else:
            made = _result(run, step, operands)
    except (RuntimeError, TypeError, ValueError, LookupError, NotImplementedError) as error:
        reason = printable(str(error).partition("\n")[0], 200)
        raise refusal(network, step.title, f"is not computed by torch: {reason}") from None
    results = tuple(tensors_in(made))
    needed = [name for name in step.nodes if name in network.by_name]
    if len(results) < len(needed):
        problem = f"returns {len(needed)} tensors, of which torch's {_called(step)} returns {len(results)}"
        raise refusal(network, step.title, problem)
    return results


def _computed(step: GraphStep, run: nn.Module, operands: Sequence[Any]) -> dict[str, Tensor]:
    """The weights of a module of torch.nn that other steps compute, by their names in it."""
    values = operands[len(operands) - step.weights :] if step.weights else ()
    tied = {**dict(run.named_parameters()), **dict(run.named_buffers())}
    named = zip((leaf for leaf, _ in _weights_of(step, run)), values)
    return {leaf: value for leaf, value in named if tied.get(leaf) is not value}


def tensors_in(value: Any) -> Iterator[Any]:
    """The tensors that a call returns, from left to right: an LSTM returns its states in a tuple of their own."""
    if isinstance(value, (tuple, list)):
        for item in value:
            yield from tensors_in(item)
    else:
        yield value


def _result(call: TorchCall, step: GraphStep, operands: Sequence[Any]) -> Any:
    import torch

    def given(value: object) -> Any:
        if isinstance(value, TensorArgument):
            return operands[value.place]
        if isinstance(value, DtypeArgument):
            return getattr(torch, value.name or step.dtype)
        if isinstance(value, (tuple, list)):
            return type(value)(map(given, value))
        return value

    function = _function(call)
    assert function is not None  # else the step has no call
    made = function(*map(given, call.args), **{name: given(value) for name, value in call.kwargs})
    return made if call.piece is None else made[call.piece]


_SPECIAL: Mapping[str, Callable[..., Any]] = {
    "getitem": operator.getitem,
    "and": operator.and_,
    "or": operator.or_,
    "xor": operator.xor,
    "invert": operator.invert,
    "rdiv": lambda value, other: other / value,
    "rpow": lambda value, other: other**value,
    "alias": lambda value: value,
}
"""Functions of other names in torch, or of none."""

OPERATOR = "aten."
"""What the name of a function begins with that is an operator of torch.ops.aten."""

_IN_TORCH = {
    "view": "reshape",
    "unfold": "Tensor.unfold",
    "vector_norm": "linalg.vector_norm",
    "log_sigmoid": "nn.functional.logsigmoid",
    "to": "Tensor.to",
    "norm": "norm",
    "T": "t",
}
"""Names below torch of functions that their own name does not lead to, or not to this one."""


def _function(call: TorchCall) -> Callable[..., Any] | None:
    """The function that a call names; None if torch has none of this name."""
    import torch

    name = call.function
    if name in _SPECIAL and not call.in_place:
        return _SPECIAL[name]
    if name in _IN_TORCH and not call.in_place:
        found: Callable[..., Any] = operator.attrgetter(_IN_TORCH[name])(torch)
        return found
    homes: tuple[Any, ...] = (torch.nn.functional, torch, torch.Tensor)
    if name.startswith(OPERATOR):
        name, homes = name.removeprefix(OPERATOR), (torch.ops.aten,)
    if call.in_place:
        name, homes = f"{name}_", (torch.Tensor, *homes)
    return next((getattr(home, name) for home in homes if callable(getattr(home, name, None))), None)
