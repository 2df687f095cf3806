"""Run a module's forward and return its Network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from vggscope.graph import (
    ONLY_IN_TRAINING,
    Buffer,
    CodePosition,
    Network,
    Node,
    Parameter,
    TorchCount,
    module_node,
)
from vggscope.inputs import InputSize
from vggscope.ops.base import numel
from vggscope.ops.regularization import AlwaysDropout, Dropout
from vggscope.record import changed, record
from vggscope.trace.failure import explain, failing_layer, lost_batch, mixed_batch
from vggscope.trace.forward import META, Forward, modes_after_train, with_shape
from vggscope.trace.gradient_layouts import with_copied_gradients
from vggscope.trace.inputs import CallInputs, Reader, from_sizes
from vggscope.trace.node_names import cost_warnings
from vggscope.trace.parts import buffers_of, named_parts, parameters_of
from vggscope.trace.preserve import preserved
from vggscope.trace.quantized import has_quantized_tensors, packed_weights
from vggscope.trace.recorder import Constant, Recorder
from vggscope.trace.sample_runs import SampleRuns, following, on_samples, with_known_axes
from vggscope.trace.source_line import built_positions, error_positions
from vggscope.trace.tensors import dtype_name, meta_copy, name_of_dtype, storage_of
from vggscope.trace.unseen import without_disabling
from vggscope.trace.watch import Watch
from vggscope.units import count_text
from vggscope.vgg.labels import labelled

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

MOST_DISAGREEMENTS = 3
"""How many layers whose figures differ from torch's are named."""


@record
class Run:
    """The result of a forward pass: its Network, the error that it raised, and the kind of value that it returned.

    `returns` is "tensors", "constants", "no tensor", "a generator", "None" or, after an error, "nothing". `wants_data`:
    a call failed because it reads values, which meta tensors do not have. `module` and `inputs` are what ran, and
    `has_data` is whether it ran on its own weights. `autocast` is the device for which forward turns autocast on, empty
    for none. `failed_reader` is the layer or the function that raised, with the position of the input that it read, and
    `signal` the position of an input that torch.stft reads. `reads_mode`: the model's own code reads `training`.
    `draws`: it draws random numbers of Python or NumPy. `reads_sizes`: it reads sizes of tensors.
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
    reads_mode: bool = False
    draws: bool = False
    reads_sizes: bool = False


def trace(module: nn.Module, input_shape: tuple[int, ...], name: str, device: str = META) -> Network:
    """Return the Network of a module in evaluation mode, for one input of this shape without the batch dimension.

    On the meta device, the run replaces the weights by meta tensors and computes nothing. Any other `device` must be
    the module's own. The run does not change the module. If forward raises, the Network ends there, and its `failure`
    is the reason.
    """
    return run(module, from_sizes(module, [InputSize(input_shape)]), name, device).network


def run(
    module: nn.Module,
    inputs: CallInputs,
    name: str,
    device: str = META,
    samples: int = 1,
    *,
    training: bool = False,
    memory: bool = True,
) -> Run:
    """Run forward on one sample and on two. Return the Network with the error that the first run raised.

    If forward fails on one sample of a larger batch, it runs on the whole batch. `samples` is the batch whose figures
    are wanted: a forward that reads sizes runs on it too, because it may take another way. `training` runs the module
    in training mode, whose Network is for the backward costs alone. Without `memory`, the Network predicts no memory.
    """
    dtype = own_dtype(module, inputs)
    packed = packed_weights(module) if has_quantized_tensors(module) else {}
    owned = {**_parameters(parameters_of(module), dtype), **_parameters(packed.items(), dtype, is_trained=False)}
    with preserved(module, with_data=device != META) as restore, without_disabling():
        constants = {key: Constant((parameter,)) for key, parameter in owned.items()}
        paths = {id(part): path for path, part in named_parts(module)}
        forward = Forward(
            module,
            constants,
            paths,
            packed,
            device,
            dtype,
            restore,
            compares=not training,
            training=training,
            samples=samples,
            memory=memory,
        )
        # On the meta device, no values are repeated for several samples.
        run_on = inputs.map(meta_copy) if device == META else inputs
        result = with_known_axes(on_samples(forward, run_on), inputs)
        network = changed(_network(name, forward, result, inputs), other_backward=result.watch.hook_products)
        if training:
            network = _with_leaves(network, result.watch)
        else:
            network = _with_torch_count(network, forward, result)
            network = _with_notes(_with_certainty(network, forward, result), result, inputs)
    network = with_positions(network, built_positions(module))
    watch, error = result.watch, result.error
    return Run(
        labelled(network),
        module,
        inputs.for_samples(result.ran_on.batch) if result.single else inputs,
        device != META,
        error,
        watch.recorder.returns,
        watch.wants_data(error),
        watch.autocast,
        watch.failed_reader,
        watch.signal,
        watch.training_reads.branches or watch.training_reads.passes_on,
        watch.draws,
        watch.reads_sizes,
    )


def _network(name: str, forward: Forward, result: SampleRuns, inputs: CallInputs) -> Network:
    """Return the Network of what ran."""
    watch, error, nodes, recorder = result.watch, result.error, result.nodes, result.watch.recorder
    read = {parameter.name for node in nodes for parameter in node.parameters}
    owned = [parameter for constant in forward.owned.values() for parameter in constant.parameters]
    missing = [parameter for parameter in owned if parameter.name not in read]
    reasons = _reasons(forward, result, inputs, missing)
    return Network(
        name,
        result.inputs,
        nodes,
        tuple((parameter, reasons[parameter.name]) for parameter in missing),
        (*recorder.warnings, *cost_warnings(recorder.unknown)),
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


def _with_torch_count(network: Network, forward: Forward, result: SampleRuns) -> Network:
    """Return the network with torch's count in the run, which a warning names where ours differs."""
    parameters = (*(tensor for _, tensor in parameters_of(forward.module)), *forward.packed.values())
    count = _torch_count(network, result.watch.recorder, parameters)
    return changed(network, torch_count=count, warnings=(*count.disagreements, *network.warnings))


def _with_certainty(network: Network, forward: Forward, result: SampleRuns) -> Network:
    """Return the network with what stands in the way of predicting a step from its ops."""
    watch = result.watch
    if result.error is not None:
        return network
    if forward.memory and result.single is None:
        network = with_copied_gradients(network, watch.recorder, result.pair)
    follows = forward.memory and _follows_rules(network, forward, result)
    sparse = tuple(sorted(watch.recorder.sparse_gradients))
    order = _registered(network, forward.module)
    return changed(_with_leaves(network, watch), follows_rules=follows, sparse_gradients=sparse, registered=order)


def _follows_rules(network: Network, forward: Forward, result: SampleRuns) -> bool:
    """Return whether the module does no more than its ops tell, at evaluation and in training."""
    watch, count = result.watch, network.torch_count
    if watch.autocast or watch.unregistered or watch.keeps_tensors or watch.transforms:
        return False
    if count is None or count.disagreements:
        return False
    # Training mode is run only if rules would predict its memory.
    is_predicted = network.predicts_memory or network.for_batch(2).predicts_memory
    return not (is_predicted and _trains_otherwise(forward, result.ran_on, watch))


def _registered(network: Network, module: nn.Module) -> tuple[str, ...]:
    """Return the names of the parameters in the order of the module; empty if it is that of first use."""
    used = [parameter.name for parameter in network.parameters()]
    names = set(used)
    listed = [name for name in dict.fromkeys(name for name, _ in parameters_of(module)) if name in names]
    return () if listed == used else tuple(listed)


def _with_leaves(network: Network, watch: Watch) -> Network:
    """Return the network with whether autograd differentiates by what is no parameter of it."""
    leaves = changed(network, registers_all=not watch.unregistered, makes_leaf=watch.makes_leaf)
    return changed(leaves, without_gradient=watch.without_gradient, sparse_call=watch.sparse_call)


def _with_notes(network: Network, result: SampleRuns, inputs: CallInputs) -> Network:
    """Return the network with notes on autocast and on what forward does to the batch."""
    watch, notes = result.watch, list(network.warnings)
    if watch.autocast == "cpu" and not watch.autocast_unknown:
        notes.append("forward turns on autocast for cpu: the dtypes and bytes of layers are those that it gives")
    elif watch.autocast:
        left_out = "bytes of layers" if watch.autocast == "cpu" else "bytes of layers, and the memory,"
        notes.append(f"forward turns on autocast for {watch.autocast}: the dtypes and {left_out} are those without it")
    if result.error is None and inputs.has_batch and watch.recorder.returns == "tensors":
        samples = inputs.batch if result.single else 1
        mixed = mixed_batch(network, watch.recorder.shapes, samples, watch.recorder.lines)
        network = changed(network, mixed_batch=mixed)
        notes += filter(None, (lost_batch(network), _whole_batch(inputs.batch, result)))
    return changed(network, warnings=tuple(notes))


def _trains_otherwise(forward: Forward, inputs: CallInputs, watch: Watch) -> bool:
    """Return whether the model's own code runs otherwise in training mode, as far as it reads or sets the mode.

    A condition may do what no op tells, such as keep a tensor. A flag that is passed on may make no difference: then
    a run in training mode has the same nodes.
    """
    if watch.training_reads.branches or not all(modes_after_train(forward.module).values()):
        return True
    if not watch.training_reads.passes_on:
        return False
    training, error = replace(following(forward), training=True)(inputs)
    ours, other = (tuple(map(_as_trained, w.recorder.finished())) for w in (watch, training))
    return error is not None or ours != other or not watch.recorder.weights.equals(training.recorder.weights)


def _as_trained(node: Node) -> Node:
    """Return a node with its op in training, where each dropout is active."""
    return replace(node, op=Dropout(node.op.p, node.op.inplace)) if isinstance(node.op, AlwaysDropout) else node


def _whole_batch(samples: int, result: SampleRuns) -> str | None:
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


def _failed_layer(watch: Watch, error: Exception, nodes: tuple[Node, ...]) -> Node | None:
    """Return the layer that raised as a node, with the last recorded node as its input."""
    frame = failing_layer(watch, error)
    if frame is None or frame.op is None:
        return None
    node = module_node(frame.path, frame.op, nodes[-1].name if nodes else watch.recorder.inputs[0].name)
    return replace(node, called_at=error_positions(error))


def _reasons(forward: Forward, result: SampleRuns, inputs: CallInputs, missing: list[Parameter]) -> dict[str, str]:
    """Return for each parameter why no node reads it, by another pass in training mode."""
    if not missing:
        return {}
    if result.error is not None:
        return dict.fromkeys((p.name for p in missing), "after the layer that failed, or not used")
    device = "cpu" if has_quantized_tensors(forward.module) else META
    in_training = replace(following(forward), device=device, training=True, gradients=False)
    watch, _ = in_training(result.ran_on if result.single else inputs.for_samples(2))
    trained = {parameter.name for node in watch.recorder.nodes.values() for parameter in node.parameters}
    reasons = {p.name: ONLY_IN_TRAINING if p.name in trained else "not used by forward" for p in missing}
    returned = result.watch.recorder.returned_parameters & reasons.keys()
    return {**reasons, **dict.fromkeys(returned, "returned by forward")}


def own_dtype(module: nn.Module, inputs: CallInputs) -> str:
    """Return the floating-point dtype of most parameters' elements, else of the buffers' or the inputs'.

    Returns a complex dtype if there is no other, and torch's default without any.
    """
    import torch

    named = (parameters_of(module), buffers_of(module))
    groups = [_elements(tensor for _, tensor in with_shape(pairs)) for pairs in named]
    groups.append(_elements(inputs.tensors()))
    for kind in ("is_floating_point", "is_complex"):
        for elements in groups:
            wanted = [dtype for dtype in elements if getattr(dtype, kind)]
            if wanted:
                return name_of_dtype(max(wanted, key=elements.__getitem__))
    return name_of_dtype(torch.get_default_dtype())


def _elements(tensors: Iterable[Tensor]) -> dict[torch.dtype, int]:
    """Return the number of elements of each dtype."""
    elements: dict[torch.dtype, int] = {}
    for tensor in tensors:
        elements[tensor.dtype] = elements.get(tensor.dtype, 0) + tensor.numel()
    return elements


def _parameters(named: Iterable[tuple[str, Tensor]], dtype: str, *, is_trained: bool = True) -> dict[str, Parameter]:
    return {
        key: Parameter(key, tuple(p.shape), is_trained and p.requires_grad, dtype_name(p, dtype), *storage_of(p))
        for key, p in with_shape(named)
    }


def _tables(module: nn.Module, nodes: tuple[Node, ...], dtype: str) -> tuple[Buffer, ...]:
    """Return the buffers that belong to no layer: those outside the modules whose op declares them."""
    layers = [node for node in nodes if node.module is not None]
    read_by_nodes = {f"{node.module}.{name}".lstrip(".") for node in layers for name in node.op.buffers()}
    return tuple(
        Buffer(key, tuple(b.shape), dtype_name(b, dtype), *storage_of(b))
        for key, b in with_shape(buffers_of(module))
        if key not in read_by_nodes
    )
