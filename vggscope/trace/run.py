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
from vggscope.trace.gradient_layouts import with_copied_gradients, with_summed_gradients
from vggscope.trace.inputs import CallInputs, Reader, from_sizes
from vggscope.trace.node_names import cost_warnings
from vggscope.trace.parts import buffers_of, named_parts, parameters_of
from vggscope.trace.preserve import preserved
from vggscope.trace.quantized import has_quantized_tensors, packed_weights
from vggscope.trace.recorder import Constant, Recorder
from vggscope.trace.sample_runs import SampleRuns, following, on_samples, with_known_axes
from vggscope.trace.source_line import built_positions, error_positions
from vggscope.trace.tensors import dtype_name, meta_copy, name_of_dtype, storage_of
from vggscope.trace.training_mode import has_own_norms
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
    `draws`: it draws random numbers of Python or NumPy. `reads_sizes`: it reads sizes of tensors. `training_error` is
    what forward raises in training mode, whatever the batch is.
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
    training_error: Exception | None = None


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
    training_error: Exception | None = None
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
            network = _with_reasons(_with_leaves(network, result.watch), _reasons(forward, result, inputs, network))
        else:
            network = _with_torch_count(network, forward, result)
            network = _with_certainty(network, forward, result)
            network, training_error = _with_training(network, forward, result, run_on)
            network = _with_notes(network, result, inputs)
    network = labelled(with_positions(network, built_positions(module)))
    watch, error = result.watch, result.error
    return Run(
        _with_shapes(network, watch.recorder),
        module,
        inputs.for_samples(result.ran_on.batch) if result.single else inputs,
        device != META,
        error,
        watch.recorder.returns,
        watch.wants_data(error),
        watch.autocast,
        watch.failed_reader,
        watch.signal,
        watch.training_reads.any,
        watch.draws,
        watch.reads_sizes,
        training_error and training_error.with_traceback(None),  # whose frames hold the tensors of the run
    )


def _with_shapes(network: Network, recorder: Recorder) -> Network:
    """Return the network with its shapes: those of torch, as the recorder has held the rule of each op to them."""
    names = (*(given.name for given in network.inputs), *(node.name for node in network.nodes))
    vars(network)["_inferred"] = {name: recorder.shapes[name] for name in names}, None
    return network


def _network(name: str, forward: Forward, result: SampleRuns, inputs: CallInputs) -> Network:
    """Return the Network of what ran."""
    watch, error, nodes, recorder = result.watch, result.error, result.nodes, result.watch.recorder
    read = {parameter.name for node in nodes for parameter in node.parameters}
    owned = [parameter for constant in forward.owned.values() for parameter in constant.parameters]
    return Network(
        name,
        result.inputs,
        nodes,
        tuple((parameter, "not used by forward") for parameter in owned if parameter.name not in read),
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
        network = _with_copied_gradients(network, forward, result)
    sparse = tuple(sorted(watch.recorder.sparse_gradients))
    order = _registered(network, forward.module)
    is_counted = network.torch_count is not None and not network.torch_count.disagreements
    follows = forward.memory and is_counted and _follows_rules(watch)
    return changed(_with_leaves(network, watch), follows_rules=follows, sparse_gradients=sparse, registered=order)


def _with_copied_gradients(network: Network, forward: Forward, result: SampleRuns) -> Network:
    """Return the network with the nodes that copy gradients, or sum them over several samples, if they are known."""
    network = with_summed_gradients(network)
    layouts, has_data = None if result.layouts is None else result.layouts(), forward.device != META
    return with_copied_gradients(network, result.watch.recorder, layouts, result.named_until, has_data=has_data)


def _follows_rules(watch: Watch) -> bool:
    """Return whether forward does no more in a run than its ops tell."""
    if watch.autocast or watch.unregistered or watch.keeps_tensors or watch.transforms or watch.changes_saved:
        return False
    return not (watch.ops_hold_sizes or watch.recorder.disagreements)


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


def _with_training(
    network: Network, forward: Forward, result: SampleRuns, inputs: CallInputs
) -> tuple[Network, Exception | None]:
    """Return the network with why parameters are not used, and with whether its rules hold in training.

    The model's own code may read or set the mode. If rules predict the memory of a forward pass, it is run in training
    mode too, and its network there is that of a training step if rules predict its memory. So is a forward that keeps
    what it computes from weights, as it may do so at evaluation alone. The second value is what forward raises in
    training mode, whatever the batch is.
    """
    reads, is_same = result.watch.training_reads, True
    runs: SampleRuns | None = None
    error: Exception | None = None
    is_followed = result.error is None and network.follows_rules
    keeps = result.watch.recorder.weights.are_kept and reads.branches
    keeps = keeps and all(node.op.predicts_memory for node in network.nodes)
    if is_followed and (keeps or network.predicts_memory or network.for_batch(2).predicts_memory):
        sets = reads.sets or not all(modes_after_train(forward.module).values())
        is_same = not (sets or reads.branches or (reads.passes_on and _trains_otherwise(forward, result)))
        if not (is_same or sets or has_own_norms(forward.module)) and forward.device == META:
            runs = on_samples(replace(forward, training=True), inputs)
            error = runs.error and _error_of_any_batch(forward, inputs, runs)
    is_usable = runs is not None and (runs.error is None or error is not None)
    network = _with_reasons(network, _reasons(forward, result, inputs, network, runs if is_usable else None))
    if is_same:
        return network, None
    if runs is not None and runs.error is None and (step := _training_step(network, forward, runs)) is not None:
        return replace(network, training_step=step), None
    has_heads = any(why == ONLY_IN_TRAINING for _, why in network.unused)
    return replace(network, follows_rules=has_heads), error


def _error_of_any_batch(forward: Forward, inputs: CallInputs, runs: SampleRuns) -> Exception | None:
    """Return the error of a run in training mode if two samples raise the same, and values would make no difference."""
    pair, error = replace(following(forward), training=True)(inputs.for_samples(2))
    is_same = type(error) is type(runs.error) and str(error) == str(runs.error)
    wants_data = runs.watch.wants_data(runs.error) or pair.wants_data(error)
    return runs.error if is_same and not wants_data else None


def _training_step(network: Network, forward: Forward, runs: SampleRuns) -> Network | None:
    """Return the network of runs in training mode; None if its rules do not predict memory."""
    watch = runs.watch
    step = _with_leaves(_network(network.name, forward, runs, runs.ran_on), watch)
    if runs.single is None:
        step = _with_copied_gradients(step, forward, runs)
    order, sparse = _registered(step, forward.module), tuple(sorted(watch.recorder.sparse_gradients))
    follows = _follows_rules(watch) and not (watch.draws or watch.training_reads.sets)
    step = replace(step, follows_rules=follows, registered=order, sparse_gradients=sparse)
    is_predicted = step.predicts_memory or step.for_batch(2).predicts_memory
    return step if is_predicted and step.output_place == network.output_place else None


def _trains_otherwise(forward: Forward, result: SampleRuns) -> bool:
    """Return whether a run in training mode has other nodes: a flag that is passed on may make no difference."""
    training, error = replace(following(forward), training=True)(result.ran_on)
    ours, other = (tuple(map(_as_trained, w.recorder.finished())) for w in (result.watch, training))
    is_same = error is None and ours == other and result.watch.recorder.weights.equals(training.recorder.weights)
    return not is_same


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


def _with_reasons(network: Network, reasons: Mapping[str, str]) -> Network:
    """Return the network with the reasons why no node reads its unused parameters."""
    if not network.unused:
        return network
    return replace(network, unused=tuple((parameter, reasons[parameter.name]) for parameter, _ in network.unused))


def _reasons(
    forward: Forward, result: SampleRuns, inputs: CallInputs, network: Network, runs: SampleRuns | None = None
) -> dict[str, str]:
    """Return for each unused parameter why no node reads it, as far as one pass tells if the memory is not asked for.

    `runs` are those in training mode, if there were any.
    """
    missing = [parameter.name for parameter, _ in network.unused]
    if not missing:
        return {}
    if result.error is not None:
        return dict.fromkeys(missing, "after the layer that failed, or not used")
    reasons = dict.fromkeys(missing, "not used at evaluation")
    if forward.memory:
        trained = _used_in_training(forward, result, inputs, runs)
        reasons = {name: ONLY_IN_TRAINING if name in trained else "not used by forward" for name in missing}
    returned = result.watch.recorder.returned_parameters & reasons.keys()
    return {**reasons, **dict.fromkeys(returned, "returned by forward")}


def _used_in_training(
    forward: Forward, result: SampleRuns, inputs: CallInputs, runs: SampleRuns | None
) -> frozenset[str]:
    """Return the parameters that nodes read in training mode, by `runs` in that mode or by another pass."""
    if runs is None:
        device = "cpu" if has_quantized_tensors(forward.module) else META
        in_training = replace(following(forward), device=device, training=True, gradients=False)
        watch, _ = in_training(result.ran_on if result.single else inputs.for_samples(2))
    else:
        watch = runs.watch
    return frozenset(parameter.name for node in watch.recorder.nodes.values() for parameter in node.parameters)


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
