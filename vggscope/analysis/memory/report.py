"""The result of `memory`: the peak of a step, what is alive there, and the timeline of the step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import groupby

from vggscope.analysis.memory.allocation_log import KINDS, Moment, StepTimeline
from vggscope.analysis.memory.allocator import replay
from vggscope.analysis.memory.calls import head_parameters
from vggscope.analysis.memory.fit import Fit, GpuBudget, fit
from vggscope.analysis.memory.optimizers import Recipe
from vggscope.analysis.memory.simulate import is_predicted, refused_layer, simulate_step, unknown_memory
from vggscope.analysis.memory.step_config import AMP, CUDA, StepConfig
from vggscope.analysis.tensors import TensorSummary, summarize_tensors
from vggscope.dtypes import converted, dtype_of
from vggscope.graph import Network
from vggscope.record import record, uncollected
from vggscope.result import TableResult
from vggscope.units import check_batch, count_text


@record
class TimelineEntry:
    """The peak of one event of one layer: `bytes` in total, and its parts, which add up to the total.

    `event` is start, forward, loss, recompute, backward or optimizer step. `layer` is empty outside of layers, `label`
    if the literature has no name for the layer.
    """

    event: str
    layer: str
    label: str
    bytes: int
    parameters_bytes: int
    buffers_bytes: int
    gradients_bytes: int
    optimizer_bytes: int
    activations_bytes: int
    temporary_bytes: int
    input_bytes: int


@record
class LayerShare:
    """The bytes alive at the peak that belong to a layer: its parameters, and what its calls allocated."""

    layer: str
    label: str
    bytes: int


@record
class Update:
    """How a step updates the weights. `kernel` is foreach, for-loop or fused; the other fields are StepConfig's."""

    kernel: str
    weight_decay: float
    nesterov: bool
    clip_grad_norm: bool
    ema: bool


@record
class MemoryReport(TableResult[LayerShare]):
    """A step's memory on one GPU, in bytes. The seven parts are those at the peak and add up to `peak_bytes`.

    `optimizer` is None at inference. `allocated_bytes` and `reserved_bytes` are torch's max_memory_allocated and
    max_memory_reserved: tensors rounded up to the caching allocator's blocks, and the segments that it reserves, on an
    unlimited card, or on the GPU that is named with cuDNN's workspaces.
    `layers` has the largest first. `max_batch` and `fit` are None unless a GPU is named. `update` is None at inference.
    """

    named_by = ("label", "layer")

    schema: str
    model: str
    mode: str
    batch: int
    dtype: str
    optimizer: str | None
    input_shape: tuple[int, ...]
    gpus: int
    parallel: str | None
    peak_bytes: int
    peak_at: str
    parameters_bytes: int
    buffers_bytes: int
    gradients_bytes: int
    optimizer_bytes: int
    activations_bytes: int
    temporary_bytes: int
    input_bytes: int
    allocated_bytes: int
    reserved_bytes: int
    layers: tuple[LayerShare, ...]
    timeline: tuple[TimelineEntry, ...]
    assumptions: tuple[str, ...]
    max_batch: int | None = None
    fit: Fit | None = None
    inputs: tuple[TensorSummary, ...] = ()
    update: Update | None = None
    recipe: str | None = None


@uncollected()
def memory(
    network: Network,
    batch: int = 1,
    config: StepConfig | None = None,
    budget: GpuBudget | None = None,
    recipe: Recipe | None = None,
) -> MemoryReport:
    """The memory of a step and, with a `budget`, whether it fits the card. The config is already that of the `recipe`.

    Raises OptionError for a batch out of range, and ShapeError if the network is known for one sample only.

    >>> from vggscope.sources.resolve import resolve
    >>> report = memory(resolve("A"), batch=64)
    >>> report.peak_bytes, report.peak_at
    (4749085928, 'backward of features.14 (relu4_2)')
    """
    config = config or StepConfig()
    if budget is not None and config.foreach is None and not budget.card.has_foreach:
        config = replace(config, foreach=False)
    check_batch(batch)
    samples = config.samples(batch)
    network.require_batch(samples)
    network = converted(network.for_batch(samples), config.converts_to)
    labels = {node.name: node.label for node in network.nodes}
    timeline = simulate_step(network, config)
    peak = timeline.peak(samples)
    reserve = replay(timeline, samples)
    fits = fit(network, config, batch, budget, timeline) if budget else None
    return MemoryReport(
        schema="vggscope/memory@1",
        model=network.name,
        mode=config.mode,
        batch=batch,
        dtype=config.dtype or dtype_of(network),
        optimizer=config.optimizer if config.trains else None,
        input_shape=network.batched(network.inputs[0].name, batch),
        gpus=config.gpus,
        parallel=config.shards.parallel.name or None,
        peak_bytes=peak.total.at(samples),
        peak_at=_place(network, peak),
        **_parts(peak, samples),
        allocated_bytes=reserve.allocated_bytes,
        reserved_bytes=fits.reserved_bytes if fits else reserve.reserved_bytes,
        layers=tuple(
            LayerShare(layer, labels.get(layer, ""), size)
            for layer, size in timeline.bytes_by_layer(peak, samples).items()
        ),
        timeline=tuple(timeline_entries(timeline, samples, labels)),
        assumptions=(
            *_assumptions_of(recipe),
            *assumptions(network, config, batch),
            *(_assumptions_of_card(budget) if budget else ()),
        ),
        max_batch=fits.max_batch if fits else None,
        fit=fits,
        inputs=summarize_tensors(network.inputs, batch, network.dtype),
        update=_update(config) if config.trains else None,
        recipe=recipe.name if recipe else None,
    )


def _update(config: StepConfig) -> Update:
    return Update(config.kernel, config.weight_decay, config.nesterov, config.clip_grad_norm, config.ema)


def _assumptions_of(recipe: Recipe | None) -> Iterator[str]:
    if recipe is not None:
        yield f"what is not given is as in the recipe {recipe.name}: {recipe.source}"


def _assumptions_of_card(budget: GpuBudget) -> Iterator[str]:
    if not budget.card.has_foreach:
        yield f"segments as CUDA's allocator takes them: {budget.card.tool} has another allocator, with other blocks"


def _parts(moment: Moment, samples: int) -> dict[str, int]:
    return {f"{kind}_bytes": size.at(samples) for kind, size in zip(KINDS, moment.alive)}


def _place(network: Network, moment: Moment) -> str:
    node = network.by_name.get(moment.layer)
    return f"{moment.event} of {node.title if node else moment.layer}" if moment.layer else moment.event


def timeline_entries(timeline: StepTimeline, samples: int, labels: Mapping[str, str]) -> Iterator[TimelineEntry]:
    """The peak of each event of each layer, in order of time; `labels` are the layers' names in the literature."""
    for (event, layer), moments in groupby(timeline.moments, key=lambda moment: (moment.event, moment.layer)):
        peak = max(moments, key=lambda moment: moment.total.at(samples))
        yield TimelineEntry(event, layer, labels.get(layer, ""), peak.total.at(samples), **_parts(peak, samples))


def assumptions(network: Network, config: StepConfig, batch: int) -> Iterator[str]:
    """The assumptions behind the figures, one sentence each."""
    if network.mixed_batch is not None:
        yield f"rows as forward makes them: {network.mixed_batch}"
    if network.single is not None:
        yield f"the batch of its inputs alone, so that no larger one is known: {network.single}"
    yield "tensors exactly, without the CUDA context, cuDNN's workspace and the caching allocator's rounding"
    if not config.trains:
        yield "one forward pass at evaluation under torch.no_grad(); the input batch counts"
        if config != replace(config.without_optimizer, optimizer=StepConfig.optimizer) or config.accumulate > 1:
            yield "nothing is trained: the optimizer and its options, and micro-batches, make no difference"
    else:
        yield from _assumptions_of_training(network, config)
    yield from _assumptions_of_sharing(network, config, batch)
    if config.runtime == CUDA.name:
        place = "GPU" if config.fused else "CPU"
        yield f"CUDA's tensors: dropout masks of one byte a value, step counters on the {place}; not measured on a GPU"
    else:
        yield "torch's CPU path under the memory tracker: dropout masks as wide as the values"
    if layer := refused_layer(network, config, config.samples(batch)):
        yield f"as on larger batches: torch refuses to train on this one, where {layer} has one value per channel"
    if not is_predicted(network, config):
        yield "by vggscope's rules for each op: torch was not recorded in this step, and may allocate otherwise"
    if unknown := sorted({node.op.name for node in network.nodes if node.op.is_unknown}):
        yield f"only the output of {', '.join(unknown)} counts: what autograd saves of it is not known"


def _assumptions_of_training(network: Network, config: StepConfig) -> Iterator[str]:
    reason = unknown_memory(network, config)
    if reason:
        yield f"a forward pass in training mode, without a backward pass: {reason}"
    else:
        yield "a step after the first: gradients set to None before it, the optimizer's states in place"
    yield "the loss is cross_entropy(model(x), y), nothing else names the logits; batch and int64 labels count"
    if not reason:
        yield from _assumptions_of_the_optimizer(config)
    if config.dtype == AMP:
        yield "autocast to half precision: weights and gradients in float32, the weights' half copies as temporary"
    if config.mode == "finetune-head":
        head = head_parameters(network)
        names = [node.title for node in network.nodes if not head.isdisjoint(p.name for p in node.parameters)]
        yield f"trained are {', '.join(names)}; the rest is frozen, in training mode" if names else "nothing is trained"
    if config.checkpoint:
        yield "each stage is recomputed in the backward pass (torch.utils.checkpoint, use_reentrant=False)"


_KERNELS = {
    "fused": "in one kernel (fused=True)",
    "foreach": "over all parameters at once (foreach, torch's default on CUDA)",
    "for-loop": "parameter by parameter (foreach=False; torch's default on CUDA is foreach)",
}


def _assumptions_of_the_optimizer(config: StepConfig) -> Iterator[str]:
    decay = f"weight decay {config.weight_decay:g}" if config.weight_decay else "no weight decay"
    nesterov = ", Nesterov momentum" if config.nesterov else ""
    yield f"the optimizer steps {_KERNELS[config.kernel]}; {decay}{nesterov}"
    if config.clip_grad_norm:
        yield "gradients are clipped by their norm before the step (torch.nn.utils.clip_grad_norm_)"
    if config.ema:
        yield "a moving average of the weights and a copy of the buffers (torch.optim.swa_utils.AveragedModel)"


def _share(config: StepConfig, batch: int) -> str:
    """What part of the batch one GPU has."""
    samples = config.samples(batch)
    at_once = f"{count_text(samples)} sample{'s' if samples > 1 else ''} at once"
    if config.gpus == 1:
        return f"one GPU has the whole batch, {at_once}"
    idle = f"; {count_text(config.gpus - batch)} of them get none" if batch < config.gpus else " on each"
    return f"{count_text(config.gpus)} GPUs share the batch, {at_once}{idle}"


def _assumptions_of_sharing(network: Network, config: StepConfig, batch: int) -> Iterator[str]:
    if config.accumulate > 1 and config.trains:
        yield f"the batch is cut into {config.accumulate} micro-batches whose gradients are summed"
    if assumption := config.shards.parallel.assumption:
        yield f"per GPU: {_share(config, batch)}"
        if config.trains or config.shards.parallel.weights:
            yield assumption
            yield "the buffers of NCCL do not count, nor what streams free later than the host asks for"
    attention = next((node for node in network.nodes if node.op.compares_inputs and node.module is not None), None)
    if config.shards.parallel.weights and config.trains and attention is not None:
        yield (
            f"{attention.title} projects query, key and value at once; as a unit of FSDP2, torch projects them one by "
            "one, which takes other memory (fully_shard the block around it instead)"
        )
