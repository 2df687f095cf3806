"""Runs a module's forward once under the watch, and gives the Network."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from vggscope.graph import Buffer, Input, Network, Node, Parameter, module_node
from vggscope.inputs import InputSize
from vggscope.ops.base import Shape
from vggscope.record import record
from vggscope.trace.failure import explain, failing_layer
from vggscope.trace.inputs import CallInputs, from_sizes
from vggscope.trace.layout import laid_out
from vggscope.trace.preserve import preserved
from vggscope.trace.recorder import Constant, Recorder
from vggscope.trace.watch import Watch
from vggscope.vgg.labels import labelled

if TYPE_CHECKING:
    from torch import Tensor, nn

META = "meta"
"""torch's name for the device whose tensors have a shape and no data."""


@record
class Run:
    """A forward pass: its nodes as a Network, the error that ended it, if one did, and what it returned (`returns` of
    the Recorder).
    """

    network: Network
    error: Exception | None = None
    returns: str = "tensors"

    @property
    def wants_data(self) -> bool:
        """Whether the forward broke off because it reads values, which tensors without data do not have."""
        return isinstance(self.error, NotImplementedError) or "meta" in str(self.error).lower()


def trace(module: nn.Module, input_shape: tuple[int, ...], name: str, device: str = META) -> Network:
    """The Network of a module at evaluation, for one input of this shape (without the batch).

    The weights are replaced by tensors without data for the run, and nothing is computed; with another `device`, the
    one on which the module is, it runs as it is. The module comes back as it was. Where its forward raises, the Network
    ends there and its `failure` tells why.
    """
    return run(module, from_sizes(module, [InputSize(input_shape)]), name, device).network


def run(module: nn.Module, inputs: CallInputs, name: str, device: str = META) -> Run:
    """Run forward on one sample and on two, and return the Network with the error that ended the first run.

    A forward that fails on one sample of a larger batch is run on the batch that was given.
    """
    owned = _parameters(module)
    first, single = inputs.for_samples(1), None
    watch, error = _watched(module, owned, first, device, training=False)
    if error is not None and inputs.batch > 1:
        batch, batch_error = _watched(module, owned, inputs, device, training=False)
        if batch_error is None:
            single = f"forward fails on one sample: {explain(watch, error)}"
            watch, error, first = batch, None, inputs
    recorder, nodes, given = watch.recorder, watch.recorder.finished(), watch.recorder.inputs
    if error is None and single is None:
        nodes, given, single = _with_growth(module, owned, inputs, device, watch)
    read = {parameter.name for node in nodes for parameter in node.parameters}
    missing = [parameter for parameter in owned.values() if parameter.name not in read]
    if error is not None:
        why = dict.fromkeys((p.name for p in missing), "after the layer that failed, or not used")
    else:
        why = _reasons(module, owned, first if single else inputs.for_samples(2), missing)
    output = recorder.output if nodes and recorder.output != nodes[-1].name else None
    network = Network(
        name,
        given,
        nodes,
        tuple((parameter, why[parameter.name]) for parameter in missing),
        (*recorder.warnings, *recorder.cost_warnings()),
        None if error is None else explain(watch, error),
        None if error is None else _failed(watch, error, nodes),
        single,
        output,
        recorder.output_place,
        _tables(module, nodes),
        1 if single else inputs.batch,
    )
    return Run(labelled(network), error, recorder.returns)


def _with_growth(
    module: nn.Module, owned: Mapping[str, Parameter], inputs: CallInputs, device: str, alone: Watch
) -> tuple[tuple[Node, ...], tuple[Input, ...], str | None]:
    """The nodes and the inputs with how they grow from one sample to two; and why that is not known, if so."""
    nodes, given = alone.recorder.finished(), alone.recorder.inputs
    if not inputs.has_batch:
        return nodes, given, "the inputs have no batch axis"
    pair, error = _watched(module, owned, inputs.for_samples(2), device, training=False)
    grown = tuple(
        replace(one, batch_growth=_growth(one.shape, two.shape)) for one, two in zip(given, pair.recorder.inputs)
    )
    nodes, single = _growing(nodes, alone.recorder, pair, error)
    return nodes, grown, single


def _growing(
    nodes: tuple[Node, ...], alone: Recorder, pair: Watch, error: Exception | None
) -> tuple[tuple[Node, ...], str | None]:
    """The nodes with how they grow from one sample to two; and why that is not known, if so."""
    if error is not None:
        return nodes, f"forward fails on two samples: {explain(pair, error)}"
    met = pair.recorder
    for node in nodes:
        other = met.nodes.get(node.name)
        if other is None or other.op.name != node.op.name or len(met.shapes[node.name]) != len(alone.shapes[node.name]):
            return nodes, f"forward takes another way for two samples, from {node.title} on"
    return tuple(_grown(node, alone, met) for node in nodes), None


def _grown(node: Node, alone: Recorder, pair: Recorder) -> Node:
    """A node with what its output and its cost are for a second sample, beside what they are for the first."""
    one, two = alone.shapes[node.name], pair.shapes[node.name]
    growth = _growth(one, two)
    cost, both = alone.macs(node.name), pair.macs(node.name)
    expected = cost if one == two or cost is None else 2 * cost
    several = laid_out(node.op, pair.nodes[node.name].op)
    if growth is None and both == expected and several is None:
        return node
    return replace(node, batch_growth=growth, irregular=both != expected, batched_op=several)


def _growth(one: Shape, two: Shape) -> Shape | None:
    """By how much each axis grows with a second sample; None where the first axis doubles."""
    growth = tuple(more - size for size, more in zip(one, two))
    return None if growth == (*one[:1], *(0,) * (len(one) - 1)) and one else growth


def _failed(watch: Watch, error: Exception, nodes: tuple[Node, ...]) -> Node | None:
    """The layer that was running when a forward broke off, as if it had read what ran before it."""
    frame = failing_layer(watch, error)
    if frame is None or frame.op is None:
        return None
    return module_node(frame.path, frame.op, nodes[-1].name if nodes else watch.recorder.inputs[0].name)


def _reasons(
    module: nn.Module, owned: Mapping[str, Parameter], inputs: CallInputs, missing: list[Parameter]
) -> dict[str, str]:
    """Why each parameter belongs to no node: a pass in training mode tells."""
    if not missing:
        return {}
    watch, _ = _watched(module, owned, inputs, META, training=True)
    trained = {parameter.name for node in watch.recorder.nodes.values() for parameter in node.parameters}
    return {p.name: "runs only in training" if p.name in trained else "not used by forward" for p in missing}


def _watched(
    module: nn.Module, owned: Mapping[str, Parameter], inputs: CallInputs, device: str, *, training: bool
) -> tuple[Watch, Exception | None]:
    import torch
    from torch.utils.weak import WeakTensorKeyDictionary

    state = _state(module, device)
    origins: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
    for key in owned.keys() & state.keys():
        origins[state[key]] = Constant((owned[key],))
    paths = {id(m): path for path, m in reversed(list(module.named_modules(remove_duplicate=False)))}
    watch = Watch(Recorder(origins, frozenset(paths.values())), paths, device == META)
    inputs = inputs.map(lambda tensor: tensor.detach().to(META) if device == META else tensor.detach().clone())
    inputs = inputs if device == META else inputs.map(lambda tensor: tensor.to(device))
    watch.recorder.begin(inputs.named(module))
    try:
        with (
            preserved(module, with_data=device != META),
            module_mode(module, training),
            _as_written(),
            torch.device(device),
            watch.watching(),
        ):
            # torch would tie what is shared by names, and not put back a module that has two.
            watch.recorder.end(
                torch.func.functional_call(module, state, inputs.args, dict(inputs.kwargs), tie_weights=False)
            )
    except (Exception, SystemExit) as error:
        return watch, error if isinstance(error, Exception) else RuntimeError("forward calls sys.exit")
    return watch, None


def _parameters(module: nn.Module) -> dict[str, Parameter]:
    return {key: Parameter(key, tuple(p.shape), p.requires_grad) for key, p in _made(module.named_parameters())}


def _tables(module: nn.Module, nodes: tuple[Node, ...]) -> tuple[Buffer, ...]:
    """The buffers that are no node's: a module's lie at its path, those that a function reads beside it."""
    paths = {node.name: node.name.rpartition(".")[0] if node.module is None else node.module for node in nodes}
    known = {f"{paths[node.name]}.{name}".lstrip(".") for node in nodes for name in node.op.buffers()}
    return tuple(
        Buffer(key, tuple(b.shape), None if b.is_floating_point() else b.element_size())
        for key, b in _made(module.named_buffers())
        if key not in known
    )


def _made(named: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """Without the tensors of a lazy layer that has met no input: they have no shape."""
    from torch.nn.parameter import is_lazy

    return ((key, tensor) for key, tensor in named if not is_lazy(tensor))


def _state(module: nn.Module, device: str) -> dict[str, Tensor]:
    """Each module's own parameters and buffers for the run, tied as they are: without data, or the parameters' data and
    the buffers' copies.
    """
    state: dict[str, Tensor] = {}
    replaced: dict[int, Tensor] = {}
    for path, part in module.named_modules():
        own = (*part.named_parameters(path, recurse=False), *part.named_buffers(path, recurse=False))
        for key, tensor in _made(own):
            if id(tensor) not in replaced:
                replaced[id(tensor)] = _for_run(tensor, device)
            state[key] = replaced[id(tensor)]
    return state


def _for_run(tensor: Tensor, device: str) -> Tensor:
    from torch.nn import Parameter

    if isinstance(tensor, Parameter):
        return Parameter(tensor.detach().to(META) if device == META else tensor.detach(), requires_grad=False)
    return tensor.detach().to(META) if device == META else tensor.clone()


@contextmanager
def module_mode(module: nn.Module, training: bool) -> Iterator[None]:
    """Within, the module is in training or evaluation mode; afterwards each of its parts has its own mode again."""
    before = {part: part.training for part in module.modules()}
    # Not by `train`, which a class may override to change weights, or to refuse.
    for part in before:
        part.training = training
    try:
        yield
    finally:
        for part, mode in before.items():
            part.training = mode


@contextmanager
def _as_written() -> Iterator[None]:
    """Gradients on, so that it is seen where forward turns them off; no random numbers used up, and no shortcut that
    runs a Transformer layer as one function.
    """
    import torch

    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.enable_grad(), torch.random.fork_rng(devices=[]):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
