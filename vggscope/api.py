"""The commands as functions: the same words, the same results.

`model` is a MODEL word (`"D"`, `"torchvision:resnet50"`, `"my_vgg.py:Net"`), an nn.Module, or a Network that
`network` gave. Every function raises a VggscopeError that says what was wrong and what would work.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from vggscope.errors import ModelError, OptionError
from vggscope.graph import Network
from vggscope.sources.options import Options

if TYPE_CHECKING:
    from torch import nn

    from vggscope.analysis.inspection.inspect import Inspection
    from vggscope.analysis.memory.report import MemoryReport
    from vggscope.analysis.operations.result import Operations
    from vggscope.analysis.receptive_field.result import ReceptiveFields
    from vggscope.analysis.report import Report
    from vggscope.diffing.result import Diff
    from vggscope.oracles.verification import Verification
    from vggscope.render.diagram import Diagram

    Model = str | nn.Module | Network


def network(model: Model, input_size: tuple[int, ...] | None = None, **options: object) -> Network:
    """The Network of a model. `input_size` is (channels, height, width), or the same with a batch before it, whose size
    does not matter here. `options` are those of the command line: head, batch_norm, num_classes, soft_max.

    >>> network("vgg16").name
    'D'
    """
    size = _without_batch(input_size)
    if isinstance(model, Network):
        return model if size is None else model.with_input(size)
    if isinstance(model, str):
        from vggscope.sources.resolve import resolve

        return resolve(model, _options(size, options))
    from vggscope.sources.module import network_of

    if not hasattr(model, "named_parameters"):
        raise ModelError(f"{type(model).__name__} is no model", "a model is a word, an nn.Module or a Network")
    if options:
        raise OptionError(f"{', '.join(options)}: a module is taken as it is", "options build a model from a word")
    return network_of(model, type(model).__name__, size)


def summary(
    model: Model, input_size: tuple[int, ...] | None = None, *, dtype: str = "float32", **options: object
) -> Report:
    """Shapes, costs, memory and receptive fields, layer by layer. `input_size` may have a batch before it: (N, C, H,
    W).

    >>> summary("D", input_size=(1, 3, 224, 224)).totals.params
    138357544
    """
    from vggscope.analysis.report import summarize

    batch = input_size[0] if input_size is not None and len(input_size) == 4 else 1
    return summarize(network(model, input_size, **options), batch, dtype)


def diff(
    model: Model,
    ref: Model = "torchvision",
    input_size: tuple[int, ...] | None = None,
    *,
    cache: bool = True,
    **options: object,
) -> Diff:
    """Where a model differs from a reference: `"torchvision"` or `"timm"` for its counterpart there, `"paper"`, or any
    model. A library's model is remembered in the user's cache folder, unless `cache` is off.

    >>> [difference.label for difference in diff("C", ref="D").differences]
    ['conv3_3', 'conv4_3', 'conv5_3']
    """
    from vggscope.diffing.compare import compare

    ours = network(model, input_size, **options)
    if not isinstance(ref, str):
        return compare(ours, network(ref, ours.input_shape))
    from vggscope.sources.reference import reference_for

    word = model if isinstance(model, str) else ""
    reference = reference_for(ref, word, ours, _options(ours.input_shape[1:], options), cache=cache)
    return compare(ours, reference.network, reference.notes)


def diagram(*models: Model, style: str = "blocks", theme: str = "light", **look: object) -> Diagram:
    """A picture of a model, or of several: `.save("vgg16.svg")`, `.source` (DOT), and shown by itself in a notebook.

    >>> diagram("D").source.startswith("digraph")
    True
    """
    from vggscope.render.diagram import diagram as draw

    return draw([network(model) for model in models], style, theme, **look)  # type: ignore[arg-type]


def build(model: Model, **options: object) -> nn.Module:
    """The nn.Module of a model, with weights, on the device that the caller's context says."""
    if isinstance(model, str):
        from vggscope.sources.resolve import resolve_module

        return resolve_module(model, _options(None, options))
    if isinstance(model, Network):
        from vggscope.builders.module import module

        return module(model)
    return model


def receptive_fields(
    model: Model,
    input_size: tuple[int, ...] | None = None,
    *,
    at: str | Sequence[str] = (),
    unit: tuple[int, ...] | None = None,
    **options: object,
) -> ReceptiveFields:
    """Which pixels each layer's units see. `at` names layers of which one unit's region is given too: `unit`, (row,
    column), or the middle one.

    >>> receptive_fields("D", at="conv5_3", unit=(6, 6)).units[0].box
    Box(first=(6, 6), last=(201, 201))
    """
    from vggscope.analysis.receptive_field.result import describe

    return describe(network(model, input_size, **options), (at,) if isinstance(at, str) else at, unit)


def operations(
    model: Model,
    input_size: tuple[int, ...] | None = None,
    *,
    dtype: str = "float32",
    count: str = "macs",
    card: str | None = None,
    **options: object,
) -> Operations:
    """MACs and FLOPs of each layer, forward and backward, with the bytes that it moves. `count="all"` takes in what is
    no multiply-accumulate; `card` gives the least time that each layer takes on it.

    >>> operations("D", count="all").totals.other
    31728616
    """
    from vggscope.analysis.operations.result import operations as count_operations

    batch = input_size[0] if input_size is not None and len(input_size) == 4 else 1
    return count_operations(network(model, input_size, **options), batch, dtype, count=count, card=card)


def verify(model: Model, input_size: tuple[int, ...] | None = None, **options: object) -> Verification:
    """Our numbers beside those of torch's FLOP counter, torchinfo, fvcore, torchvision and the paper."""
    from vggscope.oracles.verification import verify as hear

    found = network(model, input_size, **options)
    return hear(found, None if isinstance(model, Network) else build(model, **options))


def memory(
    model: Model,
    batch: int = 1,
    input_size: tuple[int, ...] | None = None,
    *,
    gpu: str | None = None,
    **options: object,
) -> MemoryReport:
    """What a step of training or inference takes, and with `gpu` (an amount or a card) whether it fits. `options` are
    the command line's: mode, optimizer, dtype, foreach, accumulate, checkpoint, gpus, parallel, and those of the
    model.

    >>> memory("D", batch=64, optimizer="adam", gpu="24GiB").max_batch >= 64
    True
    """
    from vggscope.analysis.memory.fit import Room
    from vggscope.analysis.memory.report import memory as analyse
    from vggscope.analysis.memory.setup import Setup

    of_setup = {key: options.pop(key) for key in list(options) if key in Setup.__dataclass_fields__}
    setup = Setup(**of_setup)  # type: ignore[arg-type]
    return analyse(network(model, input_size, **options), batch, setup, Room(gpu) if gpu is not None else None)


def inspect(path: str) -> Inspection:
    """Which network a checkpoint belongs to, read from its names and shapes; no code in it runs."""
    from vggscope.sources.checkpoint import inspect as examine

    return examine(path)


def _without_batch(size: tuple[int, ...] | None) -> tuple[int, ...] | None:
    if size is None:
        return None
    if len(size) not in (3, 4) or not all(isinstance(side, int) and side > 0 for side in size):
        raise OptionError(
            f"input_size {size!r} is no size", "it is (channels, height, width) or (batch, channels, height, width)"
        )
    return tuple(size[-3:])


def _options(size: tuple[int, ...] | None, given: dict[str, object]) -> Options:
    try:
        return replace(Options(input=size), **given)  # type: ignore[arg-type]
    except TypeError as error:
        raise OptionError(
            str(error).partition(") ")[2] or str(error), "options are head, batch_norm, num_classes, soft_max"
        ) from None
