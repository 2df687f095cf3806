"""Run a module's forward and return its Network."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from vggscope.errors import ModelError
from vggscope.graph import (
    ONLY_IN_TRAINING,
    Buffer,
    CodePosition,
    Input,
    Network,
    Node,
    Output,
    Parameter,
    TorchCount,
    module_node,
)
from vggscope.inputs import InputSize
from vggscope.ops.base import Shape, numel
from vggscope.ops.regularization import AlwaysDropout, Dropout
from vggscope.record import record
from vggscope.trace.constants import ConstantValues
from vggscope.trace.failure import explain, failing_layer, lost_batch, mixed_batch
from vggscope.trace.inputs import CallInputs, Reader, from_sizes
from vggscope.trace.layout import with_layout_of
from vggscope.trace.preserve import preserved
from vggscope.trace.quantized import has_quantized_tensors, packed_weights
from vggscope.trace.recorder import Constant, Recorder
from vggscope.trace.sample_wise import follows_rule, is_sample_wise
from vggscope.trace.source_line import built_positions
from vggscope.trace.tensors import dtype_name, storage_of
from vggscope.trace.watch import Watch
from vggscope.trace.writes import Writes
from vggscope.units import count_text
from vggscope.vgg.labels import labelled

if TYPE_CHECKING:
    from torch import Tensor, nn

TensorT = TypeVar("TensorT", Input, Output)

MOST_DISAGREEMENTS = 3
"""How many layers whose figures differ from torch's are named."""

META = "meta"
"""torch's name for the device whose tensors have a shape and no data."""


@record
class Run:
    """The result of a forward pass: its Network, the error that it raised, and the kind of value that it returned.

    `returns` is "tensors", "constants", "no tensor", "a generator", "None" or, after an error, "nothing". `wants_data`:
    a call failed because it reads values, which meta tensors do not have. `module` and `inputs` are what ran, and
    `has_data` is whether it ran on its own weights. `autocast` is the device for which forward turns autocast on, empty
    for none. `failed_reader` is the layer or the function that raised, with the position of the input that it read, and
    `signal` the position of an input that torch.stft reads.
    """

    network: Network
    module: nn.Module
    inputs: CallInputs
    has_data: bool
    error: Exception | None = None
    returns: str = "tensors"
    wants_data: bool = False
    autocast: str = ""
    failed_reader: tuple[int, Reader] | None = None
    signal: int | None = None


def trace(module: nn.Module, input_shape: tuple[int, ...], name: str, device: str = META) -> Network:
    """Return the Network of a module in evaluation mode, for one input of this shape without the batch dimension.

    On the meta device, the run replaces the weights by meta tensors and computes nothing. Any other `device` must be
    the module's own. The run does not change the module. If forward raises, the Network ends there, and its `failure`
    is the reason.
    """
    return run(module, from_sizes(module, [InputSize(input_shape)]), name, device).network


def run(module: nn.Module, inputs: CallInputs, name: str, device: str = META, samples: int = 1) -> Run:
    """Run forward on one sample and on two. Return the Network with the error that the first run raised.

    If forward fails on one sample of a larger batch, it runs on the whole batch. `samples` is the batch whose figures
    are wanted: a forward that reads sizes runs on it too, because it may take another way.
    """
    dtype = own_dtype(module, inputs)
    packed = packed_weights(module) if has_quantized_tensors(module) else {}
    owned = {**_parameters(module.named_parameters(), dtype), **_parameters(packed.items(), dtype, is_trained=False)}
    with preserved(module, with_data=device != META) as restore:
        forward = _Forward(module, owned, packed, device, dtype, restore, samples=samples)
        result = _with_known_axes(_on_samples(forward, inputs), inputs)
        network = _with_torch_count(_network(name, forward, result, inputs), forward, result)
        network = _with_notes(_with_certainty(network, forward, result), result, inputs)
    network = with_positions(network, built_positions(module))
    watch, error = result.watch, result.error
    return Run(
        labelled(network),
        module,
        result.ran_on if result.single else inputs,
        device != META,
        error,
        watch.recorder.returns,
        watch.wants_data(error),
        watch.autocast,
        watch.failed_reader,
        watch.signal,
    )


def _network(name: str, forward: _Forward, result: _OnSamples, inputs: CallInputs) -> Network:
    """Return the Network of what ran."""
    watch, error, nodes, recorder = result.watch, result.error, result.nodes, result.watch.recorder
    read = {parameter.name for node in nodes for parameter in node.parameters}
    missing = [parameter for parameter in forward.owned.values() if parameter.name not in read]
    reasons = _reasons(forward, result, inputs, missing)
    return Network(
        name,
        result.inputs,
        nodes,
        tuple((parameter, reasons[parameter.name]) for parameter in missing),
        (*recorder.warnings, *recorder.cost_warnings()),
        None if error is None else explain(watch, error),
        None if error is None else _failed_layer(watch, error, nodes),
        result.single,
        recorder.output if nodes and recorder.output != nodes[-1].name else None,
        recorder.output_place,
        result.outputs,
        _tables(forward.module, nodes, forward.dtype),
        1 if result.single else inputs.batch,
        forward.dtype,
    )


def with_positions(network: Network, built_at: Mapping[str, tuple[CodePosition, ...]]) -> Network:
    """Return the network with where its modules were built, by their paths."""

    def with_position(node: Node) -> Node:
        positions = built_at.get(node.module, ()) if node.module is not None else ()
        return replace(node, built_at=positions) if positions else node

    if not built_at:
        return network
    failed = network.failed and with_position(network.failed)
    return replace(network, nodes=tuple(map(with_position, network.nodes)), failed=failed)


def _with_torch_count(network: Network, forward: _Forward, result: _OnSamples) -> Network:
    """Return the network with torch's count in the run, which a warning names where ours differs."""
    parameters = (*forward.module.parameters(), *forward.packed.values())
    count = _torch_count(network, result.watch.recorder, parameters)
    return replace(network, torch_count=count, warnings=(*count.disagreements, *network.warnings))


def _with_certainty(network: Network, forward: _Forward, result: _OnSamples) -> Network:
    """Return the network with what stands in the way of predicting a step from its ops."""
    watch = result.watch
    if result.error is not None or network.torch_count is None:
        return network
    is_plain = not (watch.autocast or watch.unregistered or watch.keeps_tensors)
    agrees = is_plain and not network.torch_count.disagreements
    # Training mode is run only if rules would predict its memory.
    is_predicted = agrees and (network.predicts_memory or network.for_batch(2).predicts_memory)
    follows = agrees and not (is_predicted and _trains_otherwise(forward, result.ran_on, watch))
    return replace(
        network,
        follows_rules=follows,
        registers_all=not watch.unregistered,
        makes_leaf=watch.makes_leaf,
        sparse_gradients=tuple(sorted(watch.recorder.sparse_gradients)),
    )


def _with_notes(network: Network, result: _OnSamples, inputs: CallInputs) -> Network:
    """Return the network with notes on autocast and on what forward does to the batch."""
    watch, notes = result.watch, list(network.warnings)
    if watch.autocast == "cpu" and not watch.autocast_unknown:
        notes.append("forward turns on autocast for cpu: the dtypes and bytes of layers are those that it gives")
    elif watch.autocast:
        left_out = "bytes of layers" if watch.autocast == "cpu" else "bytes of layers, and the memory,"
        notes.append(f"forward turns on autocast for {watch.autocast}: the dtypes and {left_out} are those without it")
    if result.error is None and inputs.has_batch and watch.recorder.returns == "tensors":
        mixed = mixed_batch(network, inputs.batch if result.single else 1, watch.recorder.lines)
        network = replace(network, mixed_batch=mixed)
        notes += filter(None, (lost_batch(network), _whole_batch(inputs.batch, result)))
    return replace(network, warnings=tuple(notes))


def _trains_otherwise(forward: _Forward, inputs: CallInputs, watch: Watch) -> bool:
    """Return whether the model's own code runs otherwise in training mode, as far as it reads the mode.

    A condition may do what no op tells, such as keep a tensor. A flag that is passed on may make no difference: then
    a run in training mode has the same nodes.
    """
    if watch.training_reads.branches:
        return True
    if not watch.training_reads.passes_on:
        return False
    training, error = replace(forward, training=True, compares=False)(inputs)
    ours, other = (tuple(map(_as_trained, w.recorder.finished())) for w in (watch, training))
    return error is not None or ours != other


def _as_trained(node: Node) -> Node:
    """Return a node with its op in training, where each dropout is active."""
    return replace(node, op=Dropout(node.op.p, node.op.inplace)) if isinstance(node.op, AlwaysDropout) else node


def _whole_batch(samples: int, result: _OnSamples) -> str | None:
    """Return a sentence if the figures are those of a whole batch, and of no other one."""
    if result.single is None or result.ran_on.batch != samples or samples == 1:
        return None
    return f"the figures are those of the whole batch of {count_text(samples)}: {result.single}"


def _torch_count(network: Network, recorder: Recorder, parameters: Iterable[Tensor]) -> TorchCount:
    """Return torch's count in the run, and where ours differs."""
    from torch.nn.parameter import is_lazy

    params = sum(parameter.numel() for parameter in parameters if not is_lazy(parameter))
    ours = sum(numel(parameter.shape) for parameter in network.parameters())
    texts = recorder.disagreements[:MOST_DISAGREEMENTS]
    more = len(recorder.disagreements) - len(texts)
    if more:
        texts.append(f"{more} more layers differ from torch")
    if ours != params:
        texts.append(f"vggscope counts {count_text(ours)} parameters, torch {count_text(params)}")
    return TorchCount(recorder.torch_macs, params, tuple(f"the figures disagree: {text}" for text in texts))


@record
class _Forward:
    """A module with its parameters and packed weights, on the device of a run, and its own dtype.

    `restore` undoes what forward has changed. `gradients`: the parameters require gradients.
    `training`: the module is in training mode. `samples` is the batch whose figures are wanted.
    """

    module: nn.Module
    owned: Mapping[str, Parameter]
    packed: Mapping[str, Tensor]
    device: str
    dtype: str
    restore: Callable[[], None]
    gradients: bool = False
    compares: bool = True
    training: bool = False
    samples: int = 1

    def __call__(self, inputs: CallInputs) -> tuple[Watch, Exception | None]:
        """Return the watched run of forward on these inputs, with the error that it raised."""
        import torch
        from torch.utils.weak import WeakTensorKeyDictionary

        module, owned, device = self.module, self.owned, self.device
        state = replacement_tensors(module, lambda tensor: _for_run(tensor, device, self.gradients))
        origins: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
        constants = ConstantValues(WeakTensorKeyDictionary(), WeakTensorKeyDictionary())
        for key in owned.keys() & state.keys():
            origins[state[key]] = Constant((owned[key],))
            constants.leaf(state[key], owned[key])
        for key, buffer in _with_shape(module.named_buffers()):
            if key in state:
                constants.buffers[state[key]] = key
                constants.keep(state[key], buffer)
        by_layer: dict[str, list[Tensor]] = {}
        for key, weight in self.packed.items():
            origins[weight] = Constant((owned[key],))
            constants.leaf(weight, owned[key])
            by_layer.setdefault(key.rpartition(".")[0], []).append(weight)
        paths = {id(m): path for path, m in reversed(list(module.named_modules(remove_duplicate=False)))}
        recorder = Recorder(
            origins, constants, Writes(WeakTensorKeyDictionary()), frozenset(paths.values()), dtype=self.dtype
        )
        watch = Watch(recorder, paths, device == META, self.gradients, packed=by_layer, compares=self.compares)
        inputs = inputs.map(lambda t: t.detach().to(META) if device == META else t.detach().clone().to(device))
        watch.recorder.begin(inputs.named(module))
        try:
            with (
                module_mode(module, self.training),
                _plain_execution(),
                torch.device(device),
                watch.watching(),
            ):
                watch.recorder.end(called(module, state, inputs))
            watch.keeps_tensors = recorder.has_kept()
        except (Exception, SystemExit) as error:
            return watch, error if isinstance(error, Exception) else RuntimeError("forward calls sys.exit")
        finally:
            self.restore()
            _require_one_thread(watch)
        return watch, None


def _require_one_thread(watch: Watch) -> None:
    """Raise ModelError if forward has called torch in a thread of its own, where calls are not recorded."""
    if watch.thread_call:
        raise ModelError(
            f"forward calls {watch.thread_call} of torch in a thread of its own, where no call is recorded",
            "call it in forward itself, or by a ThreadPoolExecutor",
        )


@record
class _OnSamples:
    """The nodes, inputs and outputs for one sample with their growth, or without growth if `single` is a reason."""

    watch: Watch
    error: Exception | None
    nodes: tuple[Node, ...]
    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...]
    ran_on: CallInputs
    single: str | None = None


def _on_samples(forward: _Forward, inputs: CallInputs) -> _OnSamples:
    """Run forward on one sample, on two, and on a given batch that may not be proportional to them."""
    first = inputs.for_samples(1)
    alone, error = forward(first)
    if error is not None and alone.differentiates and not forward.gradients:
        return _on_samples(replace(forward, gradients=True), inputs)
    if error is None and alone.asks_gradient and not forward.gradients:
        differentiable = _on_samples(replace(forward, gradients=True), inputs)
        if differentiable.error is None:  # in-place code may fail on parameters that require gradients
            return differentiable
    if error is not None:
        reason = f"forward fails on one sample: {explain(alone, error)}"
        one_sample = _OnSamples(alone, error, *alone.recorded, first)
        return one_sample if inputs.batch == 1 else _on_whole_batch(forward, inputs, reason) or one_sample
    if not inputs.has_batch:
        return _OnSamples(alone, None, *alone.recorded, first, "the inputs have no batch axis")
    if is_sample_wise(alone, first):
        return _OnSamples(alone, None, *alone.recorded, first)
    return _with_growth(forward, inputs, alone, first)


def _with_growth(forward: _Forward, inputs: CallInputs, alone: Watch, first: CallInputs) -> _OnSamples:
    """Return the run on one sample with the growth by a second one, or the run on the whole batch if it differs."""
    pair, error = replace(forward, compares=False)(inputs.for_samples(2))
    nodes, single = _nodes_with_growth(alone.recorder.finished(), alone.recorder, pair, error)
    if single is None and alone.reads_sizes:
        single = _other_way(forward, inputs, nodes, alone.recorder, pair.recorder)
    batch = inputs.batch
    if batch > 1:
        irregular = single or _not_proportional(nodes)
        checked = batch > 2 or forward.device != META
        whole = _on_whole_batch(forward, inputs, irregular) if irregular or checked else None
        if whole and (irregular or not _is_extrapolated(alone.recorder, pair.recorder, whole.watch.recorder, batch)):
            return whole
    outputs = alone.recorder.outputs
    outputs = _tensors_with_growth(outputs, pair.recorder.outputs) if single is None else outputs
    inputs_grown = _tensors_with_growth(alone.recorder.inputs, pair.recorder.inputs)
    return _OnSamples(alone, None, nodes, inputs_grown, outputs, first, single)


def _with_known_axes(result: _OnSamples, inputs: CallInputs) -> _OnSamples:
    """Return a result without a batch axis in its nodes if only one batch is known and its axis is not the first."""
    if inputs.batch_axis == 0 or (result.error is None and result.single is None):
        return result
    shapes = result.watch.recorder.shapes
    nodes = tuple(replace(node, batch_growth=(0,) * len(shapes[node.name])) for node in result.nodes)
    axes = map(inputs.batch_axis_of, inputs.tensors())
    given = tuple(
        replace(tensor, batch_growth=tuple(int(place == axis) for place in range(len(tensor.shape))))
        for tensor, axis in zip(result.inputs, axes)
    )
    return replace(result, nodes=nodes, inputs=given, outputs=_fixed(result.outputs))


def _not_proportional(nodes: tuple[Node, ...]) -> str | None:
    """Return a sentence on the first node whose cost is not proportional to the batch; None if there is none."""
    irregular = next((node.title for node in nodes if node.irregular), None)
    return irregular and f"the cost of {irregular} is not proportional to the batch"


def _other_way(
    forward: _Forward, inputs: CallInputs, nodes: tuple[Node, ...], one: Recorder, two: Recorder
) -> str | None:
    """Return a sentence if forward runs otherwise on the batch whose figures are wanted than on one and two samples."""
    samples = forward.samples
    if samples <= 2 or samples == inputs.batch or forward.device != META:
        return None
    watch, error = replace(forward, compares=False)(inputs.for_samples(samples))
    if error is not None:
        return f"forward fails on {count_text(samples)} samples: {explain(watch, error)}"
    irregular = frozenset(node.name for node in nodes if node.irregular)
    if _is_extrapolated(one, two, watch.recorder, samples, irregular):
        return None
    return f"forward takes another way for {count_text(samples)} samples"


def _is_extrapolated(
    one: Recorder, two: Recorder, whole: Recorder, samples: int, irregular: frozenset[str] = frozenset()
) -> bool:
    """Return whether each further sample of the batch adds what the second one adds: to all shapes and costs.

    The costs of `irregular` nodes are not compared.
    """
    if whole.nodes.keys() != one.nodes.keys():
        return False
    further = samples - 1
    for name in one.nodes:
        sizes = zip(one.shapes[name], two.shapes[name], whole.shapes[name])
        if any(first + (second - first) * further != size for first, second, size in sizes):
            return False
        costs = one.macs(name), two.macs(name), whole.macs(name)
        if name not in irregular and None not in costs and costs[0] + (costs[1] - costs[0]) * further != costs[2]:  # type: ignore[operator]
            return False
    return True


def _fixed(tensors: tuple[TensorT, ...]) -> tuple[TensorT, ...]:
    """Return inputs or outputs without a batch axis: none of their axes grows."""
    return tuple(replace(tensor, batch_growth=(0,) * len(tensor.shape)) for tensor in tensors)


def _tensors_with_growth(one: tuple[TensorT, ...], two: tuple[TensorT, ...]) -> tuple[TensorT, ...]:
    """Return the inputs or outputs of a run on one sample with their growth in the run on two."""
    return tuple(replace(x, batch_growth=_growth(x.shape, y.shape)) for x, y in zip(one, two))


def _on_whole_batch(forward: _Forward, inputs: CallInputs, reason: str | None) -> _OnSamples | None:
    """Return the run on the given batch; None if it fails."""
    watch, error = forward(inputs)
    if error is not None:
        return None
    reason = reason or "the samples of the batch differ in their shapes or costs"
    return _OnSamples(watch, None, *watch.recorded, inputs, reason)


def _nodes_with_growth(
    nodes: tuple[Node, ...], alone: Recorder, pair: Watch, error: Exception | None
) -> tuple[tuple[Node, ...], str | None]:
    """Return the nodes with their growth from one sample to two, or the reason why it is unknown."""
    if error is not None:
        return nodes, f"forward fails on two samples: {explain(pair, error)}"
    two = pair.recorder
    for node in nodes:
        other = two.nodes.get(node.name)
        if other is None or other.op.name != node.op.name or len(two.shapes[node.name]) != len(alone.shapes[node.name]):
            return nodes, f"forward takes another way for two samples, from {node.title} on"
    added = next((name for name in two.nodes if name not in alone.nodes), None)
    if added is not None:
        return nodes, f"forward takes another way for two samples: only they need {added}"
    uneven = next((node.title for node in nodes if not follows_rule(node, alone, two)), None)
    if uneven is not None:
        return nodes, f"the output of {uneven} does not grow in proportion to the batch"
    return tuple(_node_with_growth(node, alone, two) for node in nodes), None


def _node_with_growth(node: Node, alone: Recorder, pair: Recorder) -> Node:
    """Return a node with the growth of its output and cost by a second sample."""
    one, two = alone.shapes[node.name], pair.shapes[node.name]
    growth = _growth(one, two)
    cost, both = alone.macs(node.name), pair.macs(node.name)
    expected = cost if one == two or cost is None else 2 * cost
    batched_op = with_layout_of(node.op, pair.nodes[node.name].op)
    if growth is None and both == expected and batched_op is None:
        return node
    return replace(node, batch_growth=growth, irregular=both != expected, batched_op=batched_op)


def _growth(one: Shape, two: Shape) -> Shape | None:
    """Return by how much a second sample extends each axis; None if it doubles the first axis alone."""
    growth = tuple(more - size for size, more in zip(one, two))
    return None if growth == (*one[:1], *(0,) * (len(one) - 1)) and one else growth


def _failed_layer(watch: Watch, error: Exception, nodes: tuple[Node, ...]) -> Node | None:
    """Return the layer that raised as a node, with the last recorded node as its input."""
    frame = failing_layer(watch, error)
    if frame is None or frame.op is None:
        return None
    return module_node(frame.path, frame.op, nodes[-1].name if nodes else watch.recorder.inputs[0].name)


def _reasons(forward: _Forward, result: _OnSamples, inputs: CallInputs, missing: list[Parameter]) -> dict[str, str]:
    """Return for each parameter why no node reads it, by another pass in training mode."""
    if not missing:
        return {}
    if result.error is not None:
        return dict.fromkeys((p.name for p in missing), "after the layer that failed, or not used")
    device = "cpu" if has_quantized_tensors(forward.module) else META
    in_training = replace(forward, device=device, training=True, gradients=False)
    watch, _ = in_training(result.ran_on if result.single else inputs.for_samples(2))
    trained = {parameter.name for node in watch.recorder.nodes.values() for parameter in node.parameters}
    reasons = {p.name: ONLY_IN_TRAINING if p.name in trained else "not used by forward" for p in missing}
    returned = result.watch.recorder.returned_parameters & reasons.keys()
    return {**reasons, **dict.fromkeys(returned, "returned by forward")}


def called(module: nn.Module, state: dict[str, Tensor], inputs: CallInputs) -> object:
    """Return what forward returns with these parameters and buffers."""
    with replaced_tensors(module, state):
        return inputs.call(module)


def replaced_tensors(module: nn.Module, state: dict[str, Tensor]) -> AbstractContextManager[None]:
    """Replace the parameters and buffers of a module within the block, as torch.func.functional_call does."""
    import torch

    if isinstance(module, torch.jit.ScriptModule):
        # torch replaces the tensors of a TorchScript module only inside another module.
        module = torch.nn.Sequential(module)
        state = {f"0.{key}": tensor for key, tensor in state.items()}
    # With tie_weights, torch ties shared tensors by name and does not restore a module that has two names.
    return torch.nn.utils.stateless._reparametrize_module(module, state, tie_weights=False)


def own_dtype(module: nn.Module, inputs: CallInputs) -> str:
    """Return the floating-point dtype of most parameters' elements, else of the buffers' or the inputs'.

    Returns a complex dtype if there is no other, and torch's default without any.
    """
    import torch

    tensors = [tensor for _, tensor in _with_shape(module.named_parameters())]
    groups = (tensors, [tensor for _, tensor in _with_shape(module.named_buffers())], inputs.tensors())
    for is_wanted in (torch.is_floating_point, torch.is_complex):
        for group in groups:
            elements: dict[str, int] = {}
            for tensor in filter(is_wanted, group):
                elements[dtype_name(tensor)] = elements.get(dtype_name(tensor), 0) + tensor.numel()
            if elements:
                return max(elements, key=elements.__getitem__)
    return str(torch.get_default_dtype()).removeprefix("torch.")


def _parameters(named: Iterable[tuple[str, Tensor]], dtype: str, *, is_trained: bool = True) -> dict[str, Parameter]:
    return {
        key: Parameter(key, tuple(p.shape), is_trained and p.requires_grad, dtype_name(p, dtype), *storage_of(p))
        for key, p in _with_shape(named)
    }


def _tables(module: nn.Module, nodes: tuple[Node, ...], dtype: str) -> tuple[Buffer, ...]:
    """Return the buffers that belong to no layer: those outside the modules whose op declares them."""
    layers = [node for node in nodes if node.module is not None]
    read_by_nodes = {f"{node.module}.{name}".lstrip(".") for node in layers for name in node.op.buffers()}
    return tuple(
        Buffer(key, tuple(b.shape), dtype_name(b, dtype), *storage_of(b))
        for key, b in _with_shape(module.named_buffers())
        if key not in read_by_nodes
    )


def _with_shape(named: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors that have a shape: those of a lazy layer have none before its first call."""
    from torch.nn.parameter import is_lazy

    return ((key, tensor) for key, tensor in named if not is_lazy(tensor))


def replacement_tensors(module: nn.Module, replacement: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    """Return a replacement for each parameter and buffer by name, with the sharing of the module's own."""
    state: dict[str, Tensor] = {}
    replaced: dict[int, Tensor] = {}
    for path, part in module.named_modules():
        own = (*part.named_parameters(path, recurse=False), *part.named_buffers(path, recurse=False))
        for key, tensor in _with_shape(own):
            if id(tensor) not in replaced:
                replaced[id(tensor)] = replacement(tensor)
            state[key] = replaced[id(tensor)]
    return state


def _for_run(tensor: Tensor, device: str, gradients: bool) -> Tensor:
    """Return a meta tensor or, on another device, a parameter's data or a copy of a buffer."""
    import torch

    if isinstance(tensor, torch.nn.Parameter):
        values = tensor.detach().to(META) if device == META else tensor.detach()
        return torch.nn.Parameter(values, requires_grad=gradients and tensor.requires_grad)
    return tensor.detach().to(META) if device == META else tensor.clone()


@contextmanager
def module_mode(module: nn.Module, training: bool) -> Iterator[None]:
    """Set the module to training or evaluation mode within the block, then restore the mode of each submodule."""
    before = {part: part.training for part in module.modules()}
    # A class may override `train`: to change weights, or to raise.
    for part in before:
        part.training = training
    try:
        yield
    finally:
        for part, mode in before.items():
            part.training = mode


@contextmanager
def random_state() -> Iterator[None]:
    """Restore the states of torch's, Python's and NumPy's random number generators when the block ends."""
    import torch

    numpy = sys.modules.get("numpy")
    python_state, numpy_state = random.getstate(), numpy.random.get_state() if numpy else None
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(python_state)
        if numpy:
            numpy.random.set_state(numpy_state)


@contextmanager
def _plain_execution() -> Iterator[None]:
    """Run the block with gradients, without torch's fast path for Transformer layers, and restore the random state.

    Gradients are on to record where forward turns them off. The fast path would run a layer as one function.
    """
    import torch

    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.enable_grad(), random_state():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
