"""Runs a module's forward once under the watch, and gives the Network."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from vggscope.graph import INPUT, Buffer, Network, Node, Parameter, module_node
from vggscope.record import record
from vggscope.trace.failure import explain, failing_layer
from vggscope.trace.layout import laid_out
from vggscope.trace.recorder import Constant, Recorder
from vggscope.trace.watch import Watch
from vggscope.vgg.labels import labelled

if TYPE_CHECKING:
    from torch import Tensor, nn

META = "meta"
"""torch's name for the device whose tensors have a shape and no data."""


@record
class Run:
    """A forward pass: its nodes as a Network, and the error that broke it off, if one did."""

    network: Network
    error: Exception | None = None

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
    return run(module, input_shape, name, device).network


def run(module: nn.Module, input_shape: tuple[int, ...], name: str, device: str = META) -> Run:
    """As `trace`, with the error itself."""
    owned = _parameters(module)
    watch, error = _watched(module, owned, (1, *input_shape), device, training=False)
    recorder = watch.recorder
    nodes = recorder.finished()
    single = None
    if error is None:
        nodes, single = _growing(nodes, recorder, *_watched(module, owned, (2, *input_shape), device, training=False))
    read = {parameter.name for node in nodes for parameter in node.parameters}
    missing = [parameter for parameter in owned.values() if parameter.name not in read]
    if error is not None:
        why = dict.fromkeys((p.name for p in missing), "after the layer that failed, or not used")
    else:
        why = _reasons(module, owned, (2, *input_shape), missing)
    unused = tuple((parameter, why[parameter.name]) for parameter in missing)
    failure = None if error is None else explain(watch, error)
    failed = None if error is None else _failed(watch, error, nodes)
    output = recorder.output if nodes and recorder.output != nodes[-1].name else None
    network = Network(
        name,
        (1, *input_shape),
        nodes,
        unused,
        tuple(recorder.warnings),
        failure,
        failed,
        single,
        output,
        recorder.output_place,
        _tables(module, nodes),
    )
    return Run(labelled(network), error)


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
    growth = tuple(more - size for size, more in zip(one, two))
    usual = (*one[:1], *(0,) * (len(one) - 1))
    cost, both = alone.macs(node.name), pair.macs(node.name)
    expected = cost if one == two or cost is None else 2 * cost
    several = laid_out(node.op, pair.nodes[node.name].op)
    if growth == usual and both == expected and several is None:
        return node
    return replace(
        node, batch_growth=None if growth == usual else growth, irregular=both != expected, batched_op=several
    )


def _failed(watch: Watch, error: Exception, nodes: tuple[Node, ...]) -> Node | None:
    """The layer that was running when a forward broke off, as if it had read what ran before it."""
    frame = failing_layer(watch, error)
    if frame is None or frame.op is None:
        return None
    return module_node(frame.path, frame.op, nodes[-1].name if nodes else INPUT)


def _reasons(
    module: nn.Module, owned: Mapping[str, Parameter], shape: tuple[int, ...], missing: list[Parameter]
) -> dict[str, str]:
    """Why each parameter belongs to no node: a pass in training mode tells."""
    if not missing:
        return {}
    watch, _ = _watched(module, owned, shape, META, training=True)
    trained = {parameter.name for node in watch.recorder.nodes.values() for parameter in node.parameters}
    return {p.name: "runs only in training" if p.name in trained else "not used by forward" for p in missing}


def _watched(
    module: nn.Module, owned: Mapping[str, Parameter], shape: tuple[int, ...], device: str, *, training: bool
) -> tuple[Watch, Exception | None]:
    import torch
    from torch.utils.weak import WeakTensorKeyDictionary

    state = _state(module, device)
    origins: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
    for key in owned.keys() & state.keys():
        origins[state[key]] = Constant((owned[key],))
    paths = {id(m): path for path, m in reversed(list(module.named_modules(remove_duplicate=False)))}
    watch = Watch(Recorder(origins, frozenset(paths.values())), paths, device == META)
    floating = (tensor.dtype for tensor in state.values() if tensor.is_floating_point())
    batch = torch.zeros(shape, dtype=next(floating, None), device=device)
    watch.recorder.begin(batch)
    try:
        with module_mode(module, training), _as_written(), torch.device(device), watch.watching():
            # torch would tie what is shared by names, and not put back a module that has two.
            watch.recorder.end(torch.func.functional_call(module, state, (batch,), tie_weights=False))
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
    module.train(training)
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
