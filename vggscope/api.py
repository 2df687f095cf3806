"""The commands as functions: the same words, the same results.

`model` is a MODEL word (`"D"`, `"torchvision:resnet50"`, `"my_vgg.py:Net"`), an nn.Module, or a Network that
`network` gave. `input_size` is (channels, height, width), or the same with a batch before it. `options` are those with
which the command line builds a model from a word: head, batch_norm, num_classes, soft_max. Sizes in memory are bytes.

What a function gives is frozen data: `print` shows it as the command does, a notebook as a table, `.save("x.csv")`
writes it as `-o` does, `.picture()` draws it where it can be drawn, `.to_json()` is what `--format json` gives. Every
function raises a VggscopeError that says what was wrong and what would work.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from vggscope.errors import ModelError, OptionError, ShapeError
from vggscope.graph import Network
from vggscope.progress import progress
from vggscope.vgg.options import Options

if TYPE_CHECKING:
    from torch import nn

    from vggscope.analysis.compare import Comparison
    from vggscope.analysis.memory.grid import Estimate
    from vggscope.analysis.memory.report import MemoryReport
    from vggscope.analysis.memory.step_config import StepConfig
    from vggscope.analysis.operations.result import Operations
    from vggscope.analysis.receptive_field.result import ReceptiveFields
    from vggscope.analysis.summary import Summary
    from vggscope.checkpoint.inspection import Inspection
    from vggscope.cross_checks.measured_step import Measurement
    from vggscope.cross_checks.verification import Verification
    from vggscope.diffing.result import Diff
    from vggscope.drawing import Diagram
    from vggscope.explorer.result import Page
    from vggscope.tutorials.tutorial import Tutorial

    Model = str | nn.Module | Network

OPTIONS = ("head", "batch_norm", "num_classes", "soft_max")
"""How a model is built from a word."""

LOOKS = ("annotate", "heat", "fold", "direction", "width", "engine", "href")
"""How a diagram looks, beside its style and its theme."""


def network(model: Model, input_size: tuple[int, ...] | None = None, **options: object) -> Network:
    """The Network of a model: its operations in the order in which they run, with their shapes.

    Raises ModelError for what is no model, OptionError for an option that is not there.

    >>> network("vgg16"), network("vgg16", input_size=(3, 64, 64)).shapes["features.30"]
    (<Network D at 3x224x224: 40 layers, 138,357,544 parameters>, (1, 512, 2, 2))
    """
    size = _without_batch(input_size)
    if isinstance(model, Network):
        return model if size is None else model.with_input(size)
    if isinstance(model, str):
        from vggscope.sources.resolve import resolve

        return resolve(model, _options(size, options))
    from vggscope.trace.network import network_of

    if not hasattr(model, "named_parameters"):
        raise ModelError(f"{type(model).__name__} is no model", "a model is a word, an nn.Module or a Network")
    if options:
        raise OptionError(f"{', '.join(options)}: a module is taken as it is", "options build a model from a word")
    return network_of(model, type(model).__name__, size)


def summary(
    model: Model,
    input_size: tuple[int, ...] | None = None,
    *,
    batch: int | None = None,
    dtype: str = "float32",
    **options: object,
) -> Summary:
    """Shapes by the (W-K+2P)/S+1 rule, parameters, MACs, memory and receptive fields, layer by layer, for numbers of
    `dtype` and a `batch`: that of `input_size` if it is left out.

    Raises ModelError, OptionError, and ShapeError where a layer does not fit.

    >>> report = summary("D", input_size=(1, 3, 224, 224))
    >>> report, report.layers[0].rule
    (<Summary of D at 3x224x224: 40 layers, 138,357,544 parameters, 15.47 GMACs>, '(224-3+2*1)/1+1 = 224')
    """
    from vggscope.analysis.summary import summarize
    from vggscope.units import check_batch

    size = _batch(batch, input_size)
    check_batch(size, dtype)
    return summarize(network(model, input_size, **options), size, dtype)


def diff(
    model: Model,
    ref: Model = "torchvision",
    input_size: tuple[int, ...] | None = None,
    *,
    numeric: bool = False,
    seed: int = 0,
    float64: bool = False,
    weights: str | None = None,
    ignore: Sequence[str] = (),
    training: bool = False,
    cache: bool = True,
    **options: object,
) -> Diff:
    """Where a model differs from a reference: `"torchvision"` or `"timm"` for its counterpart there, `"paper"`, or any
    model. A library's model is remembered in the user's cache folder, unless `cache` is off.

    `numeric` copies the weights across, runs both on one input drawn with `seed`, in double precision with `float64`,
    and compares the outputs, where both run; `weights` is a checkpoint of the model for that. `ignore` names what does
    not count: names, dropout, inplace, bias, classes. `training` adds how the paper and torchvision train. A module
    that is given stays as it is.

    Raises ModelError, OptionError, CheckpointError for weights that are not the model's, and ShapeError where the
    reference does not run on the input.

    >>> [difference.label for difference in diff("C", ref="D").differences]
    ['conv3_3', 'conv4_3', 'conv5_3']
    """
    from vggscope.diffing.compare import compare

    ours = network(model, input_size, **options).truncated_at_failure()
    if isinstance(ref, str):
        from vggscope.sources.reference import reference_for

        found = reference_for(ref, _word(model), ours, _options(ours.input_shape[1:], options), cache=cache)
        reference, notes, build_reference = found.network, found.notes, found.build
    else:
        reference, notes, build_reference = network(ref, ours.input_shape), (), _maker(ref, ours.input_shape[1:], {})
    result = compare(
        ours, reference, (*notes, *ours.warnings), frozenset([ignore] if isinstance(ignore, str) else ignore)
    )
    if (numeric or weights is not None) and ours.failure is None:
        from vggscope.diffing.numeric import STEPS, measure
        from vggscope.units import shape_text

        if ours.input_shape[2:] != reference.input_shape[2:]:
            raise ShapeError(f"{reference.name} does not run on {shape_text(ours.input_shape)}", "leave out --numeric")
        build_ours = _maker(model, input_size, options, weights)
        dtype = "float64" if float64 else "float32"
        with progress("comparing", len(STEPS)) as step:
            measured = measure(ours, reference, build_ours, build_reference, seed, dtype, step)
        result = replace(result, numeric=measured)
    if training:
        from vggscope.diffing.training import TRAINING

        result = replace(result, training=TRAINING)
    return result


def compare(
    *models: Model,
    input_size: tuple[int, ...] | None = None,
    batch: int = 1,
    dtype: str = "float32",
    paper: bool = False,
    **options: object,
) -> Comparison:
    """`models` side by side: parameters, MACs, bytes, depth, receptive field, for a `batch` of numbers of `dtype`.
    `paper` adds the paper's Tables 1 and 2 beside what is computed, of all six columns where no model is named.

    Raises ModelError, and OptionError where there is nothing to compare.

    >>> found = compare("A", "E")
    >>> found, [model.depth for model in found.models]
    (<Comparison of A, E at 3x224x224, batch 1>, [11, 19])
    """
    from vggscope.analysis.compare import compare as analyse
    from vggscope.tutorials.paper import published
    from vggscope.units import check_batch
    from vggscope.vgg.configs import CONFIGS

    check_batch(batch, dtype)
    named = models or (tuple(CONFIGS) if paper else ())
    if not named:
        raise OptionError("no model to compare", "for example vggscope compare A D E torchvision:resnet18, or --paper")
    networks = [network(model, input_size, **options) for model in named]
    return analyse(networks, batch, dtype, published() if paper else ())


def grid(
    *models: Model,
    sizes: Sequence[int | tuple[int, ...]] = (),
    batches: Sequence[int] = (),
    modes: Sequence[str] = ("train",),
    optimizers: Sequence[str] = ("sgd-momentum",),
    dtypes: Sequence[str] = ("float32",),
    **options: object,
) -> Iterator[Estimate]:
    """The peak memory of a step, in bytes, at every point of a grid, one at a time; what `memory` gives there. `sizes`
    are sides of an RGB image or (channels, height, width); `batches` are powers of two up to 256 if none are given, the
    `models` all six columns. `modes`, `optimizers` and `dtypes` are those of `memory`.

    Each point is a named tuple: `pandas.DataFrame(vggscope.grid("A", "D"))` is a table. Raises OptionError for a word
    that is not there, and ShapeError where a model does not run on a size.

    >>> [point.peak_bytes for point in grid("A", batches=[1, 64])]
    [1637681904, 4749085928]
    """
    from vggscope.analysis.memory.grid import BATCHES, setups
    from vggscope.analysis.memory.grid import grid as estimate
    from vggscope.errors import ShapeError
    from vggscope.vgg.configs import CONFIGS

    runs = setups(modes, optimizers, dtypes)
    inputs = [(3, size, size) if isinstance(size, int) else size for size in sizes]
    points = [(model, size) for model in models or tuple(CONFIGS) for size in inputs or (None,)]

    def networks(advance: Callable[[str], None]) -> Iterator[Network]:
        for model, size in points:
            advance(_name(model))
            found = network(model, size, **options)
            if found.failure is not None:
                raise ShapeError(f"{_name(model)} does not run: {found.failure}", "--sizes gives other inputs")
            yield found

    def estimates() -> Iterator[Estimate]:
        with progress("estimating", len(points)) as advance:
            yield from estimate(networks(advance), batches or BATCHES, runs)

    return estimates()


def diagram(
    *models: Model,
    input_size: tuple[int, ...] | None = None,
    style: str = "blocks",
    theme: str = "light",
    **look: object,
) -> Diagram:
    """A picture of a model, or of several `models` (`style="table"`): `.save("vgg16.svg")`, `.source` (DOT); a notebook
    shows it. `style` is blocks, layers, volumes or table, `theme` light, dark or paper.

    `look` are the command line's annotate, heat, fold, direction, width (points) and engine, and the options of the
    model. Raises OptionError for a word that is not there, and MissingTool where Graphviz is needed and not installed.

    >>> diagram("E"), diagram("D", style="layers").source.startswith("digraph")  # doctest: +ELLIPSIS
    (<Diagram of E (VGG-19), ...x... pt>, True)
    """
    from vggscope.drawing import diagram as draw

    options = {name: look.pop(name) for name in list(look) if name not in LOOKS}
    return draw([network(model, input_size, **options) for model in models], style, theme, **look)  # type: ignore[arg-type]


def build(model: Model, input_size: tuple[int, ...] | None = None, **options: object) -> nn.Module:
    """The nn.Module of a model, with weights, on the device that the caller's context says; a module as it is.

    Raises ModelError and OptionError.

    >>> model = build("D", num_classes=10)
    >>> sum(parameter.numel() for parameter in model.parameters())
    134301514
    """
    if isinstance(model, str):
        from vggscope.sources.resolve import resolve_module

        return resolve_module(model, _options(_without_batch(input_size), options))
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
    effective: bool = False,
    samples: int = 4,
    seed: int = 0,
    weights: str | None = None,
    **options: object,
) -> ReceptiveFields:
    """Which pixels each layer's units see (Araujo, Norris and Sim, Distill 2019): unit i of a side covers
    [-padding + i*stride, -padding + i*stride + size - 1].

    `at` names layers of which one unit's region is given too: `unit`, (row, column), or the middle one. `effective`
    measures where the unit's gradient lies (Luo et al. 2016), on `samples` images of noise, with the `weights` of a
    checkpoint or those that the model begins with; `seed` is that of the noise and of those.

    Raises OptionError for a layer or a unit that is not there, with the nearest names.

    >>> fields = receptive_fields("D", at="conv5_3", unit=(6, 6))
    >>> fields.units[0].box
    Box(first=(6, 6), last=(201, 201))
    """
    from vggscope.analysis.receptive_field.result import describe

    found = network(model, input_size, **options)
    layers = (at,) if isinstance(at, str) else tuple(at)
    result = describe(found, layers, unit)
    if not effective:
        if weights is not None:
            raise OptionError("--weights is for --effective", "the rule needs no weights")
        return result
    from vggscope.execution.effective_field import effective_field

    if len(layers) != 1:
        raise OptionError(f"{len(layers)} layers cannot be measured at once", "name one with at")
    module = _seeded(_maker(model, input_size, options, weights), seed)
    with progress("measuring", samples) as step:
        measured = effective_field(
            found, module, layers[0], unit, samples=samples, seed=seed, progress=lambda n: step(f"image {n + 1}")
        )
    return replace(result, effective=measured.field, heat=measured.heat)


def operations(
    model: Model,
    input_size: tuple[int, ...] | None = None,
    *,
    batch: int | None = None,
    dtype: str = "float32",
    count: str = "macs",
    card: str | None = None,
    **options: object,
) -> Operations:
    """MACs and FLOPs of each layer, forward and backward, with the bytes that it moves, for a `batch`: that of
    `input_size` if it is left out. `count="all"` takes in what is no multiply-accumulate; `card` gives the least time
    in nanoseconds that each layer takes on it.

    Raises OptionError for a count, a card or a dtype that is not there.

    >>> operations("D", count="all").totals.other
    31728616
    """
    from vggscope.analysis.operations.result import operations as count_operations
    from vggscope.units import check_batch

    size = _batch(batch, input_size)
    check_batch(size, dtype)
    return count_operations(network(model, input_size, **options), size, dtype, count=count, card=card)


def verify(model: Model, input_size: tuple[int, ...] | None = None, **options: object) -> Verification:
    """Our numbers beside those of torch's FLOP counter, memory tracker and autograd, torchinfo, fvcore, torchvision and
    the paper, each difference as a sum. A module that is given stays as it is.

    Raises ModelError where there is no module and none can be built, and ShapeError for a model that does not run.

    >>> found = verify("conv3-8 maxpool FC-10", input_size=(3, 32, 32))
    >>> found.agrees, [figure.name for figure in found.figures][:2]
    (True, ['params', 'macs'])
    """
    from vggscope.cross_checks.verification import REFERENCE_TOOLS
    from vggscope.cross_checks.verification import verify as hear

    found = network(model, input_size, **options).require_runnable()
    with progress("asking", len(REFERENCE_TOOLS)) as advance:
        return hear(found, None if isinstance(model, Network) else build(model, input_size, **options), advance)


def memory(
    model: Model,
    input_size: tuple[int, ...] | None = None,
    *,
    batch: int | None = None,
    gpu: str | None = None,
    context: str | None = None,
    workspace: str | None = None,
    **options: object,
) -> MemoryReport:
    """What a step of training or inference takes, in bytes, for a `batch`, that of `input_size` if it is left out, and
    with `gpu` (an amount or a card) whether it fits, with so much set aside for the CUDA `context` and for cuDNN's
    `workspace`. `options` are the command line's: mode, optimizer, dtype, foreach, accumulate, checkpoint, gpus,
    parallel, and those of the model.

    Raises OptionError for a batch, a word or a card that makes no sense, and ShapeError for a model that does not run.

    >>> memory("D", batch=64, optimizer="adam", gpu="24GiB").max_batch >= 64
    True
    """
    from vggscope.analysis.memory.fit import GpuBudget
    from vggscope.analysis.memory.report import memory as analyse
    from vggscope.units import parse_bytes

    setup = _setup(options)
    aside = (parse_bytes(context) if context else 0, parse_bytes(workspace) if workspace else 0)
    room = GpuBudget(gpu, *aside) if gpu is not None else None
    return analyse(network(model, input_size, **options).require_runnable(), _batch(batch, input_size), setup, room)


def measure(
    model: Model, input_size: tuple[int, ...] | None = None, *, batch: int | None = None, **options: object
) -> Measurement:
    """The peak that `memory` foretells beside the one measured, in bytes: by torch's memory tracker on tensors without
    data, or by CUDA's allocator where there is a GPU. `options` are those of `memory`.

    Raises OptionError for what one device does not run by itself, and ShapeError for a model that does not run.

    >>> measure("conv3-8 maxpool FC-10", input_size=(3, 32, 32), batch=8).difference_bytes
    0
    """
    from vggscope.cross_checks.measured_step import measure as run

    setup = _setup(options)
    found = network(model, input_size, **options).require_runnable()
    return run(found, _maker(model, input_size, options), _batch(batch, input_size), setup)


def inspect(path: str | os.PathLike[str]) -> Inspection:
    """Which network a checkpoint belongs to, read from its names and shapes; no code in it runs.

    Raises CheckpointError for a file that cannot be read, and OptionError for what is no path.

    >>> import tempfile, torch
    >>> path = f"{tempfile.mkdtemp()}/x.pth"
    >>> torch.save(build("vgg11", num_classes=10).features.state_dict(), path)
    >>> inspect(path).column, inspect(path).params
    ('A', 9220480)
    """
    from vggscope.checkpoint import inspect as examine

    if not isinstance(path, (str, os.PathLike)):
        raise OptionError(f"{type(path).__name__} is no path", "give the path of a .pth, .pt or .safetensors file")
    return examine(path)


def explain(
    topic: Model | None = None,
    layer: Model | None = None,
    input_size: tuple[int, ...] | None = None,
    *,
    torch: bool = False,
    **options: object,
) -> Tutorial:
    """Explain a topic, `explain("conv", size=6, kernel=3)`, or a model's layer, `explain("D", "conv3_2")`, with its
    numbers. After a topic, `layer` may be the model that it is about: `explain("why-tools-disagree", "D")`. Without
    arguments, list the topics. With `torch`, run the code that is shown and compare the results.

    `options` are those of the topic (size, kernel, stride, padding, channels, image, shape) and of the model. Raises
    OptionError for a topic, a layer or an option that is not there.

    >>> explain("D", "conv3_2").data.layer.params
    590080
    """
    from vggscope.tutorials import tutorial_for

    of_model = {name: options.pop(name) for name in OPTIONS if name in options}

    def load(model: Model) -> Network:
        return network(model, input_size, **of_model)

    tutorial = tutorial_for(topic, layer, options, load)
    if torch:
        from vggscope.tutorials.tutorial import with_torch

        tutorial = with_torch(tutorial)
    return tutorial


def report(
    *models: Model,
    input_size: tuple[int, ...] | None = None,
    ref: str | None = None,
    image: str | None = None,
    weights: str | None = None,
    **options: object,
) -> Page:
    """One page to explore `models` with; everything is in it, and it works offline: `.save("vgg16.html")`, `.html`, and
    a notebook shows it.

    `ref` compares each model with torchvision, timm, paper or any MODEL; left out, several models are compared with the
    first, and somebody else's VGG with the paper's. `image` is a photo for the receptive fields, `weights` a checkpoint
    of the model that shows the photo's feature maps.

    Raises ModelError, OptionError, CheckpointError, and ShapeError for a model that does not run on its input.

    >>> report("D")  # doctest: +ELLIPSIS
    <Page about D (VGG-16), ... KiB>
    """
    from vggscope.drawing.subject import Subject
    from vggscope.explorer import Exhibit, page
    from vggscope.explorer.comparisons import comparisons
    from vggscope.explorer.embed import photo_uri
    from vggscope.explorer.result import Page
    from vggscope.photo import open_photo

    if not models:
        raise OptionError("no model to show", "for example vggscope report D -o vgg16.html")
    if weights is not None and (image is None or len(models) > 1):
        raise OptionError("--weights shows what one model makes of an image", "name one model, and --image photo.jpg")
    networks = [network(model, input_size, **options).require_runnable() for model in models]
    photo = open_photo(image) if image is not None else None
    given = _options(_without_batch(input_size), options)
    exhibits = [
        Exhibit(shown, Subject(shown).title, comparisons(_word(model), shown, networks[0], ref, given))
        for model, shown in zip(models, networks)
    ]
    if weights is not None and photo is not None:
        from vggscope.explorer.activations import activations

        module = _maker(models[0], input_size, options, weights)()
        exhibits = [replace(exhibits[0], maps=activations(networks[0], module, photo))]
    text = page(exhibits, photo_uri(photo, networks[0].input_shape) if photo is not None else None)
    return Page(", ".join(exhibit.title for exhibit in exhibits), text)


def _word(model: Model) -> str:
    return model if isinstance(model, str) else ""


def _name(model: Model) -> str:
    return model if isinstance(model, str) else model.name if isinstance(model, Network) else type(model).__name__


def _maker(
    model: Model, input_size: tuple[int, ...] | None, options: dict[str, object], weights: str | None = None
) -> Callable[[], nn.Module]:
    """What makes a module of the model that may be changed, on the CPU, with the weights of a file if there is one."""

    def make() -> nn.Module:
        if isinstance(model, (str, Network)):
            module = build(model, input_size, **options)
        else:
            from copy import deepcopy

            module = deepcopy(model).cpu()
        if weights is not None:
            from vggscope.checkpoint.weights import with_weights

            module = with_weights(module, weights)
        return module

    return make


def _seeded(make: Callable[[], nn.Module], seed: int) -> nn.Module:
    """The module with the weights that the seed gives, torch's own generator left as it was."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return make()


def _batch(given: int | None, size: tuple[int, ...] | None) -> int:
    if given is not None:
        return given
    return size[0] if isinstance(size, (tuple, list)) and len(size) == 4 else 1


def _without_batch(size: tuple[int, ...] | None) -> tuple[int, ...] | None:
    if size is None:
        return None
    sides = tuple(size) if isinstance(size, (tuple, list)) else ()
    if len(sides) not in (3, 4) or not all(isinstance(side, int) and side > 0 for side in sides):
        raise OptionError(
            f"input_size {size!r} is no size", "it is (channels, height, width) or (batch, channels, height, width)"
        )
    return sides[-3:]


def _setup(options: dict[str, object]) -> StepConfig:
    """What options say of the step; they are taken out."""
    from vggscope.analysis.memory.step_config import StepConfig

    given = {key: options.pop(key) for key in list(options) if key in StepConfig.__dataclass_fields__}
    return StepConfig(**given)  # type: ignore[arg-type]


def _options(size: tuple[int, ...] | None, given: dict[str, object]) -> Options:
    unknown = [name for name in given if name not in OPTIONS]
    if unknown:
        raise OptionError(f"unknown option {unknown[0]!r}", f"options are {', '.join(OPTIONS)}")
    return replace(Options(input=size), **given)  # type: ignore[arg-type]
