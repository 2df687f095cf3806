"""Every command as a function, with the same words and the same results.

`model` is a MODEL word (`"D"`, `"torchvision:resnet50"`, `"my_vgg.py:Net"`), an nn.Module, or a Network that
`network` returned. `input_size` is (channels, height, width), or the same with a batch dimension before it. `options`
are those of `ModelOptions`, which build a model from a word: head, batch_norm, num_classes, soft_max. Memory is in
bytes.

Results are frozen data. `print(result)` shows what the command shows, a notebook shows a table, `.save("x.csv")` writes
what `-o` writes, `.picture()` draws it where it can be drawn, and `.to_json()` returns what `--format json` prints.
Every error is a VggscopeError: it states the problem and the remedy.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import replace
from functools import partial
from operator import index
from typing import TYPE_CHECKING, Any, get_args

from vggscope.choices import Depth, ModelOptions, StepOptions, WordOptions
from vggscope.errors import (
    ModelError,
    OptionError,
    OutputError,
    ShapeError,
    Stopped,
    VggscopeError,
    check_count,
    names_options,
    naming_options,
    nearest,
    option,
    printable,
    received,
    unknown,
)
from vggscope.graph import Network, input_sizes
from vggscope.inputs import Inputs, InputSize, check_batch_axis, parse_dtype
from vggscope.progress import progress, step
from vggscope.record import record
from vggscope.recorded_step import StepRequest
from vggscope.sources.resolve import claim_process, own_process
from vggscope.vgg.options import BuildOptions

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import nn
    from typing_extensions import Unpack

    from vggscope.analysis.compare import Compared as ComparedModel
    from vggscope.analysis.compare import Comparison, Published, Ranking, Uncompared
    from vggscope.analysis.fleet import Fleet
    from vggscope.analysis.memory.fit import GpuBudget
    from vggscope.analysis.memory.grid import Estimate, Grid
    from vggscope.analysis.memory.optimizers import Recipe as TrainingRecipe
    from vggscope.analysis.memory.report import MemoryReport
    from vggscope.analysis.memory.step_config import StepConfig
    from vggscope.analysis.operations import Operations
    from vggscope.analysis.receptive_field.result import ReceptiveFields
    from vggscope.analysis.summary import Summary
    from vggscope.checkpoint.inspection import Inspection
    from vggscope.checkpoint.statistics import Statistics
    from vggscope.choices import (
        Annotation,
        ComparedColumn,
        ComparedFigure,
        Count,
        Cudnn,
        Device,
        Direction,
        Dtype,
        Engine,
        Heat,
        Ignorable,
        Init,
        Mode,
        ModelAndStepOptions,
        Optimizer,
        Order,
        Recipe,
        StepDtype,
        Style,
        Theme,
        Topic,
    )
    from vggscope.cross_checks.measured_step import MeasuredGpu, Measurement
    from vggscope.cross_checks.verification import Verification
    from vggscope.diffing.numeric import Build, Runner
    from vggscope.diffing.result import Diff, Numeric
    from vggscope.diffing.user_code import Compared
    from vggscope.diffing.values import ValueDiff
    from vggscope.diffing.weight_check import WeightCheck
    from vggscope.drawing import Diagram
    from vggscope.execution.activations import Activations
    from vggscope.explorer import Exhibit
    from vggscope.explorer.result import Page
    from vggscope.lock_file import Lock
    from vggscope.sources.catalogue import Catalogue
    from vggscope.sources.reference import Reference
    from vggscope.trace.registered import MacsRule, Registration, SavedRule, ShapeRule
    from vggscope.tutorials.tutorial import Tutorial

    Model = str | nn.Module | Network
    InputSizes = Sequence[int] | Sequence[Sequence[int]] | Sequence[InputSize]


def register_op(
    kind: type[nn.Module] | Callable[..., object],
    *,
    macs: MacsRule,
    saved: SavedRule | None = None,
    shape: ShapeRule | None = None,
) -> Registration:
    """State the figures of a module or an operator of your own, and return the handle that takes them back.

    `kind` is a class of modules, each of which is then one layer, or an operator of torch.library.custom_op. `macs` is
    the number of multiply-accumulates, or a function of an OpCall that returns it: it has the shapes `inputs` and
    `output`, and the `module`. `saved` lists what autograd saves for backward: `"input"`, `"output"`, and the shapes of
    further tensors, which forward allocates; without it, torch is asked. `shape` returns the output's shape: forward is
    then not run, for code that needs data or a GPU.

    The summary shows the figure, says in a note that it was stated, and has `macs_from: "register_op"` in its JSON.

    Raises OptionError for a `kind` that has a rule already or is neither.

    >>> from torch import nn
    >>> class Gate(nn.Module):
    ...     def forward(self, x):
    ...         return x * x.mean((2, 3), keepdim=True)
    >>> with register_op(Gate, macs=lambda call: 2 * call.output[1], saved=["input"]):
    ...     summary(nn.Sequential(nn.Conv2d(3, 8, 3), Gate()), (3, 8, 8))["1"].macs
    16
    """
    from vggscope.sources.resolve import note_other_code
    from vggscope.trace.registered import register

    note_other_code()
    return register(kind, macs, saved, shape)


DEPTHS: tuple[str, ...] = get_args(Depth)


def network(model: Model, input_size: InputSizes | None = None, **options: Unpack[ModelOptions]) -> Network:
    """Return the Network of a model: its operations in execution order, with their shapes.

    Raises ModelError for a word or an object that is not a model, and OptionError for an unknown option.

    >>> network("vgg16"), network("vgg16", input_size=(3, 64, 64)).shapes["features.30"]
    (<Network D at 3x224x224: 40 layers, 138,357,544 parameters>, (1, 512, 2, 2))
    """
    return _network(model, _inputs(input_size, options), options, backward=True)


def _network(
    model: Model,
    inputs: Inputs | None,
    options: ModelOptions,
    steps: tuple[StepRequest, ...] = (),
    batch: int | None = None,
    *,
    backward: bool = False,
    memory: bool = True,
) -> Network:
    """The Network of a model, with a recording of torch in the `steps` whose memory the rules do not predict.

    `batch` is the one whose figures are wanted, None for any. `backward` asks for the costs of the backward pass.
    Without `memory`, that of a module lacks what the memory analysis alone reads.
    """
    if isinstance(model, Network):
        return model if inputs is None else _with_inputs(model, inputs)
    if isinstance(model, str):
        from vggscope.sources.resolve import resolve

        resolved = resolve(
            model, replace(_source_options(inputs, options), steps=steps, batch=batch, backward=backward)
        )
        return resolved if inputs is None else replace(resolved, given_batch=_batch_of(resolved, inputs))
    from vggscope.trace.network import network_of

    if isinstance(model, type):
        raise ModelError(f"{model.__name__} is a class, not a model", f"make one: {model.__name__}(...)")
    if not hasattr(model, "named_parameters"):
        several = "; compare(*models) takes several" if isinstance(model, (list, tuple)) else ""
        raise ModelError(
            f"{type(model).__name__} is not a model", f"a model is a word, an nn.Module or a Network{several}"
        )
    _refuse_unknown(options)
    building = [name for name in options if name not in (*INPUT_OPTIONS, "cache")]
    if building:
        raise OptionError(f"{', '.join(building)}: a module is taken as it is", "options build a model from a word")
    name = type(model).__name__
    return network_of(model, name, inputs, steps=steps, batch=batch, backward=backward, memory=memory)


def _peaks(dtype: str | None, samples: int | None = None, *, for_any_batch: bool = False) -> tuple[StepRequest, ...]:
    """A forward pass and a training step, whose peaks a summary shows."""
    return tuple(StepRequest(trains, dtype, samples, for_any_batch) for trains in (False, True))


def summary(
    model: Model,
    input_size: InputSizes | None = None,
    *,
    batch: int | None = None,
    dtype: Dtype | None = None,
    count: Count = "macs",
    depth: Depth | int = "layer",
    **options: Unpack[ModelOptions],
) -> Summary:
    """Return shapes by the (W-K+2P)/S+1 rule, parameters, MACs, memory and receptive fields, layer by layer.

    `batch` is that of the input if left out. `dtype` converts what is floating-point; left out, each tensor keeps its
    own. `count="all"` adds the operations other than multiply-accumulates to the FLOPs. `depth="stage"` returns a row
    per stage; a number returns a row per module at that depth, and the sums of the modules around them as `modules`.

    Raises ModelError, OptionError, and ShapeError where a layer does not fit its input.

    >>> report = summary("D", input_size=(1, 3, 224, 224))
    >>> report, report.layers[0].rule
    (<Summary of D at 3x224x224: 40 layers, 138,357,544 parameters, 15.47 GMACs>, '(224-3+2*1)/1+1 = 224')
    >>> summary("D", depth="stage").layers[2].label
    'conv3_1 - pool3'
    >>> [(row.name, row.params) for row in summary("D", depth=1)]
    [('features', 14714688), ('avgpool', 0), ('flatten', 0), ('classifier', 123642856)]
    """
    from vggscope.analysis.summary import by_stage, summarize, to_depth
    from vggscope.units import check_batch

    if isinstance(depth, str) and depth not in DEPTHS:
        raise unknown("depth", depth, (*DEPTHS, "a number from 1"))
    check_batch(batch, dtype)
    shown = _network(model, _inputs(input_size, options), options, _peaks(dtype, batch))
    size = shown.given_batch if batch is None else batch
    with step(f"adding up {shown.name}"):
        result = summarize(shown, size, dtype)
        if count != "macs":
            from vggscope.analysis.operations import operations, with_all

            result = with_all(result, operations(shown, size, dtype, count=count))
        if isinstance(depth, int):
            return to_depth(result, depth)
        return by_stage(result) if depth == "stage" else result


def activations(
    model: Model,
    image: str | os.PathLike[str],
    input_size: InputSizes | None = None,
    *,
    weights: str | None = None,
    **options: Unpack[ModelOptions],
) -> Activations:
    """Run a model on an image and return the strongest channels of each layer, and how the strongest unit of each is
    computed.

    `image` is a JPEG or PNG file, whose centre is scaled to the input and normalised as torchvision's weights expect.
    `weights` is a checkpoint of the model. Without it a module keeps its own weights, and a word has random ones.
    `options` are those of the model.

    Raises ModelError, CheckpointError for weights that are not the model's, and OptionError for a file that is no image
    or a model that takes none.

    >>> import tempfile
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Image.new("RGB", (64, 64), (200, 120, 40)).save(f"{folder}/orange.png")
    ...     activations("conv3-8 maxpool FC-10", f"{folder}/orange.png", input_size=(3, 32, 32)).layers[0].op
    'Conv2d'
    """
    from vggscope.execution.activations import activations as run
    from vggscope.photo import open_photo

    photo = open_photo(os.fspath(image))
    described = network(model, input_size, **options).require_runnable()
    make = _module_factory(model, input_size, options, weights)
    return run(described, _in_float32(make, described.name), photo)


def operations(
    model: Model,
    input_size: InputSizes | None = None,
    *,
    batch: int | None = None,
    dtype: Dtype | None = None,
    count: Count = "macs",
    card: str | None = None,
    **options: Unpack[ModelOptions],
) -> Operations:
    """Return MACs and FLOPs of each layer, forward and backward, with the bytes that it moves.

    `batch` and `dtype` are as in `summary`. `count="all"` adds the
    operations other than multiply-accumulates. `card` adds the least time, in nanoseconds, that each layer takes on
    that GPU.

    Raises OptionError for an unknown count, card or dtype.

    >>> operations("D", count="all").totals.other
    31728616
    """
    from vggscope.analysis.operations import operations as count_operations
    from vggscope.units import check_batch

    check_batch(batch, dtype)
    shown = _network(model, _inputs(input_size, options), options, batch=batch, backward=True, memory=False)
    size = shown.given_batch if batch is None else batch
    return count_operations(shown, size, dtype, count=count, card=card)


@own_process()
def diff(
    model: Model,
    ref: Model | None = None,
    input_size: InputSizes | None = None,
    *,
    numeric: bool = False,
    seed: int = 0,
    float64: bool = False,
    weights: str | None = None,
    ignore: Ignorable | Sequence[Ignorable] = (),
    training: bool = False,
    patch: bool = False,
    list_all: bool = False,
    **options: Unpack[ModelOptions],
) -> Diff:
    """Return where a model differs from a reference model, and what each difference does.

    `ref` is `"torchvision"` or `"timm"` for the model's counterpart there, `"paper"`, or any model. Without it the
    model is compared with the published VGG that it is most like; the result is `different` and not `compared` if it
    is like none. `ignore` names kinds of difference to leave out. `training` adds how the paper and torchvision train.

    `patch` adds a unified patch of the model's file, `net.py` of the word `net.py:Net`, after which the two agree. To
    find it, the file's code runs with one change after the other. `list_all` makes the table list each layer that
    differs in its name alone, or in whether it works in place.

    `numeric` copies the weights to the reference, runs both on one random input drawn with `seed`, in double precision
    with `float64`, and compares the outputs. An ONNX file is run by onnxruntime, a program of torch.export or
    TorchScript by torch, and its weights are copied to a module beside it. `weights` is a checkpoint of the model, or
    of the module beside such a file, to run with. A module
    passed in stays as it is. Against a locked architecture (`ref="arch.json"`), an ONNX file or a `.pt2` the
    inputs are those that the file fixes unless given.

    Raises ModelError, also where no patch is found, OptionError, CheckpointError for weights that are not the model's,
    and ShapeError where the reference does not run on the input.

    >>> [difference.label for difference in diff("C", ref="D").differences]
    ['conv3_3', 'conv4_3', 'conv5_3']
    """
    from vggscope.diffing.compare import compare, not_compared
    from vggscope.diffing.mending import with_code

    if isinstance(ref, str) and ref.strip().lower().endswith(".json") and (found := _summary_named(ref)) is not None:
        run = {"numeric": numeric, "weights": weights, "ignore": ignore, "patch": patch}
        _refuse_with_summary(ref, {name: value for name, value in run.items() if value})
        return replace(_compared_with_summary(model, ref, found, input_size, options), lists_all=list_all)
    ours, input_size, options = _on_fixed_inputs(model, ref, input_size, options)
    ours = ours.truncated_at_failure()
    reference = _reference(ref, model, ours, _inputs(input_size, options), options)
    if _inputs(input_size, options) is None and not isinstance(model, Network):
        ours, reference = _on_usual_image(ref, model, ours, reference, options)
    if ref is None and reference.likeness is not None and not reference.likeness.is_same_family:
        return replace(not_compared(ours, reference.network, ours.warnings), likeness=reference.likeness)
    if _is_same_file(model, ref):
        reference = replace(reference, network=replace(ours, name=reference.network.name))
    ignored = frozenset([ignore] if isinstance(ignore, str) else ignore)
    with step(f"comparing {ours.name} with {reference.network.name}"):
        result = compare(ours, reference.network, (*reference.notes, *ours.warnings), ignored)
        result = replace(result, likeness=reference.likeness, lists_all=list_all)
        result = with_code(result, _with_definitions(model, ours), reference.network)
    if patch:
        size = _size_to_patch(ours, reference.network) if _inputs(input_size, options) is None else input_size
        again = partial(_compared_again, _word(model), reference.network, ignored, size, options)
        with step("looking for a patch"):
            result = replace(result, patch=_patch(model, (result, ours, reference.network), again))
    if (numeric or weights is not None) and ours.failure is None:
        given = (input_size, options, weights)
        numbers = _compare_outputs((model, ref), (ours, reference), given, seed, float64)
        result = replace(result, numeric=numbers)
    if training:
        from vggscope.diffing.result import TRAINING

        result = replace(result, training=TRAINING)
    return result


@own_process()
def compare(
    *models: Model,
    input_size: InputSizes | None = None,
    batch: int = 1,
    dtype: Dtype | None = None,
    paper: bool = False,
    sort: ComparedFigure | None = None,
    order: Order | None = None,
    top: int | None = None,
    columns: Sequence[ComparedColumn] | None = None,
    jobs: int | None = 1,
    **options: Unpack[ModelOptions],
) -> Comparison:
    """Return `models` side by side: parameters, MACs, bytes, depth and receptive field, for a `batch` and a `dtype`,
    each model's own if left out.

    A word may be a shell-style pattern of library models, such as `timm:resnet*`. `paper` adds the paper's Tables 1 and
    2 beside the computed values, of all its columns if no model is named. `sort` orders the models by a figure, in the
    `order` descending if left out (names ascending), and `top` keeps the first ones. `columns` are those of the table.
    `jobs` is how many processes work on words that run code, None for the cores if that is worthwhile; with 1 all is
    done in this process, which knows what your program registered or changed.

    Of several modules of one class, or Networks of one name, the second is called `ResNet 2`, and so on.

    A model that cannot be built does not stop the rest: it is among the result's `failures`. If only one model is
    named, its error is raised. Raises ModelError for a word that names no model, and OptionError where there is nothing
    to compare.

    >>> comparison = compare("A", "E")
    >>> comparison, [model.depth for model in comparison.models]
    (<Comparison of A, E at 3x224x224, batch 1>, [11, 19])
    >>> [model.model for model in compare("A", "D", "E", "B", sort="macs", top=2).models]
    ['E', 'D']
    """
    models_one_by_one = fleet(
        *models,
        input_size=input_size,
        batch=batch,
        dtype=dtype,
        paper=paper,
        sort=sort,
        order=order,
        top=top,
        columns=columns,
        jobs=jobs,
        **options,
    )
    for _ in models_one_by_one:
        pass
    return models_one_by_one.comparison()


def fleet(
    *models: Model,
    input_size: InputSizes | None = None,
    batch: int = 1,
    dtype: Dtype | None = None,
    paper: bool = False,
    sort: ComparedFigure | None = None,
    order: Order | None = None,
    top: int | None = None,
    columns: Sequence[ComparedColumn] | None = None,
    jobs: int | None = 1,
    **options: Unpack[ModelOptions],
) -> Fleet:
    """Return the figures of many `models`, each as soon as it is done: what `compare` shows, one by one.

    The arguments are those of `compare`: `input_size`, `batch`, `dtype`, `paper`, `sort`, `order`, `top`, `columns` and
    `jobs`. Raises ModelError and OptionError as `compare` does; the error of a single model is raised when it is read.

    >>> for row in fleet("A", "conv3-8 maxpool FC-10"):
    ...     print(row.model, row.params)
    A 132863336
    conv3-8 maxpool FC-10 4154
    """
    from vggscope.analysis.fleet import Fleet
    from vggscope.units import check_batch

    check_batch(batch, dtype)
    ranking, shown = _ranking(sort, order, top), _shown_columns(columns)
    if jobs is not None:
        check_count("jobs", jobs, f"{jobs} processes make no sense", 1000)
    inputs = _inputs(input_size, options)
    building = _source_options(inputs, options)
    paper_columns = _paper_columns() if paper else ()
    named = _expanded(models, building.cache) or [column.column for column in paper_columns]
    if not named:
        raise OptionError(
            "no model to compare", f"name one, such as torchvision:resnet18, or add {option('paper', True)}"
        )
    names = _names(named)
    tasks = [_Task(model, name, inputs, options, batch, dtype, names_options()) for model, name in zip(named, names)]
    rows = _rows(tasks, _run_apart(named, building, jobs), jobs)
    return Fleet(names, rows, batch, paper_columns, ranking, shown)


def grid(
    *models: Model,
    sizes: Sequence[int | tuple[int, ...]] = (),
    batches: Sequence[int] = (),
    modes: Sequence[Mode] = ("train",),
    optimizers: Sequence[Optimizer] = ("sgd-momentum",),
    dtypes: Sequence[StepDtype | None] = (None,),
    **options: Unpack[WordOptions],
) -> Grid:
    """Return the peak memory of a step, in bytes, at every point of a grid: what `memory` returns there.

    `models` are all configurations of Table 1 if none is named. `sizes` are sides of an RGB image or (channels, height,
    width). `batches` are powers of two up to 256 if left out. `modes`, `optimizers` and `dtypes` are those of `memory`,
    with None for a model's own dtype.

    The result is read like a list of named tuples, as often as needed; the points are computed as they are read. With
    `columns = vggscope.grid("A", "D").columns()`, `pandas.DataFrame(columns)`, `polars.DataFrame(columns)` and
    `pyarrow.table(columns)` are tables. Raises OptionError for an unknown word or a batch out of range and, when it is
    read, ShapeError where a model does not run on a size.

    >>> [point.peak_bytes for point in grid("A", batches=[1, 64])]
    [1637681904, 4749085928]
    """
    from vggscope.analysis.memory.grid import BATCHES, Grid, step_configs
    from vggscope.analysis.memory.grid import grid as estimate
    from vggscope.units import check_batch
    from vggscope.vgg.configs import CONFIGS

    for batch in batches:
        check_batch(batch)
    steps = step_configs(modes, optimizers, [dtype or "" for dtype in dtypes])
    requests = tuple(dict.fromkeys(replace(r, for_any_batch=True) for s in steps if (r := s.request) is not None))
    given: Any = options
    inputs = [(3, size, size) if isinstance(size, int) else size for size in sizes]
    pairs = [(model, size) for model in models or tuple(CONFIGS) for size in inputs or (None,)]

    def networks(advance: Callable[[str], None]) -> Iterator[Network]:
        for model, size in pairs:
            advance(_name(model))
            sized = _network(model, _inputs(size, given), given, requests)
            if sized.failure is not None:
                raise ShapeError(
                    f"{_name(model)} does not run: {sized.failure}", f"{option('sizes')} gives other inputs"
                )
            yield sized

    def estimates() -> Iterator[Estimate]:
        with progress("estimating", len(pairs)) as advance:
            yield from estimate(networks(advance), batches or BATCHES, steps)

    return Grid(estimates)


@own_process()
def diagram(
    *models: Model,
    input_size: InputSizes | None = None,
    style: Style | None = None,
    theme: Theme = "light",
    annotate: Sequence[Annotation] | None = None,
    heat: Heat | None = None,
    fold: bool = True,
    direction: Direction | None = None,
    width: float | None = None,
    engine: Engine = "bundled",
    href: Callable[[str], str] | None = None,
    title: str | None = None,
    caption: str | None = None,
    legend: bool = True,
    crop: bool = False,
    only: str | None = None,
    font: str | None = None,
    depth: int | None = None,
    **options: Unpack[ModelOptions],
) -> Diagram:
    """Draw a model, in the style `blocks` unless set, or several `models` side by side in the style `table`.

    `.save("vgg16.svg")` writes the picture, `.source` is its DOT, and a notebook shows it. `theme` names its colours.
    `annotate` names the figures beside the layers, `heat` the one that their colour shows. `fold` draws equal blocks in
    a row once. `direction` is LR unless set. `width` is the most that the picture may take, in points. `engine` lays
    out networks that branch. `href` returns the address that a layer of an SVG links to, by the layer's name. `title`
    and `caption` replace the text above the picture, `"none"` leaves one out. Without `legend` nothing stands below it;
    with `crop` the page has no margin. `only` draws a part, with the figures that it has in the whole network: a stage,
    module or layer by its name, or from one to another (`stage3..stage5`). `font` names a font that is installed here:
    the text is measured in it, and a picture in vectors names it, with others for a viewer that lacks it. `depth`
    frames modules within modules down to that depth, with `style="layers"`.

    Raises OptionError for an unknown word, and MissingTool where Graphviz is needed and not installed.

    >>> diagram("E"), diagram("D", style="layers").source.startswith("digraph")  # doctest: +ELLIPSIS
    (<Diagram of E (VGG-19), ...x... pt>, True)
    """
    from vggscope.drawing import diagram as draw

    drawn = [network(model, input_size, **options) for model in models]
    with step("drawing"):
        return draw(
            drawn,
            style,
            theme,
            annotate=annotate,
            heat=heat,
            fold=fold,
            direction=direction,
            width=width,
            engine=engine,
            href=href,
            title=title,
            caption=caption,
            legend=legend,
            crop=crop,
            only=only,
            font=font,
            depth=depth,
        )


def build(
    model: Model,
    input_size: InputSizes | None = None,
    *,
    at: str | None = None,
    weights: str | None = None,
    **options: Unpack[ModelOptions],
) -> nn.Module:
    """Return the nn.Module of a model, with weights, on torch's default device; a module is returned as it is.

    `weights` is a checkpoint of any format, whose weights are loaded: by key, or into the layer of the same label, in
    torch's layout. `at` returns one part, by its path (`features.0`) or its label (`conv1_1`).

    Raises ModelError for a model that torch's modules cannot express, ShapeError where its layers do not fit the input,
    CheckpointError for weights that are not the model's, and OptionError for an unknown option or part.

    >>> model = build("D", num_classes=10)
    >>> sum(parameter.numel() for parameter in model.parameters())
    134301514
    """
    if isinstance(model, str):
        from vggscope.sources.resolve import resolve_module

        built = resolve_module(model, _source_options(_inputs(input_size, options), options))
    elif isinstance(model, Network):
        from vggscope.builders.module import module

        built = module(network(model, input_size))
    else:
        built = model
    if weights is not None:
        from vggscope.checkpoint.load_weights import load_weights

        built = load_weights(built, weights, network=lambda: network(model, input_size, **options))
    if at is None:
        return built
    from vggscope.builders.module import submodule

    return submodule(built, at, network(model, input_size, **options) if isinstance(model, (str, Network)) else None)


def export(
    model: Model,
    path: str | os.PathLike[str],
    input_size: InputSizes | None = None,
    *,
    init: Init = "torchvision",
    seed: int = 0,
    weights: str | None = None,
    rgb: bool = False,
    force: bool = True,
    check: bool = False,
    **options: Unpack[ModelOptions],
) -> WeightCheck | None:
    """Write a model's source (.py), state dict (.pth, .pt, .safetensors) or ONNX graph to the file `path`.

    The weights are those of the checkpoint `weights`, of any format, in torch's layout and under the model's keys.
    A module, and a word that runs code, is written as it is, with these weights. `rgb` reverses the input channels of
    the first convolution, for weights that expect BGR. Without `weights` they are random: `init` draws them as the
    paper or torchvision does, from `seed`.

    A file that is there is overwritten, with `force=False` it is kept.

    `check` runs the file of the weights and the model with them on one random input and returns how their outputs
    differ: an ONNX file by onnxruntime, the network in a file of torch.export, TorchScript, Caffe, Keras, MatConvNet or
    Lua Torch by torch, as vggscope reads it.

    Raises ModelError for a network that is not a chain of torch.nn modules, except for a module of its own with
    `weights`, and for a module that torch does not export. Raises CheckpointError for weights that are not the model's,
    OptionError for another suffix, for `rgb` without weights or `check` of a file that nothing runs, and OutputError
    where the file cannot be written, or is there and kept.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     export("vgg11", f"{folder}/vgg11.safetensors", input_size=(3, 32, 32), head="flatten", num_classes=10)
    ...     inspect(f"{folder}/vgg11.safetensors").num_classes
    10
    """
    from vggscope.builders.initialisation import check_draw, initialised
    from vggscope.builders.save import save
    from vggscope.files import is_special

    check_draw(init, seed)
    if not force and os.path.isfile(path) and not is_special(os.fspath(path)):
        raise OutputError(
            f"{os.fspath(path)} is there already", f"{option('force', True)} overwrites it, or name another file"
        )
    if rgb and weights is None:
        raise OptionError(f"{option('rgb')} without weights", f"it is for {option('weights', 'FILE')}")
    if weights is not None and os.fspath(path).lower().endswith(".py"):
        raise OptionError(f"{option('weights', weights)}: a .py holds no weights", "write .pth, .safetensors or .onnx")
    shown = network(model, input_size, **options).require_runnable()
    source = _source_of_weights(weights, shown, rgb=rgb) if check else None
    made: list[nn.Module] = []
    make_own = None if weights is None else _own_module_factory(model, input_size, options)

    def make() -> nn.Module:
        module = initialised(shown, init, seed) if make_own is None else make_own()
        if weights is not None:
            from vggscope.checkpoint.load_weights import load_weights

            module = load_weights(module, weights, rgb=rgb, network=lambda: shown)
        if check:
            made.append(module)
        return module

    with step(f"writing {os.fspath(path)}"):
        save(shown, os.fspath(path), make)
    if source is None or weights is None or not made:
        return None
    from vggscope.diffing.weight_check import check_weights

    with step(f"running {os.path.basename(weights)} and the model with its weights"):
        return check_weights((shown, made[0]), source, os.path.basename(weights), rgb=rgb)


def _own_module_factory(
    model: Model, input_size: InputSizes | None, options: ModelOptions
) -> Callable[[], nn.Module] | None:
    """A function that makes the module of a model that has code of its own; None for a Network and for other words."""
    from vggscope.sources.resolve import runs_code

    if isinstance(model, Network) or (isinstance(model, str) and not runs_code(model)):
        return None
    return _module_factory(model, input_size, options)


def _source_of_weights(path: str | None, shown: Network, *, rgb: bool) -> tuple[Network, Build]:
    """The network in a file of weights at a model's input size, and a function that returns what runs it.

    Raises OptionError where nothing runs the file, and MissingTool where its runtime is not installed.
    """
    from vggscope.sources.resolve import graph_in

    if path is None:
        raise OptionError(f"{option('check')} without weights", f"it is for {option('weights', 'FILE')}")
    sizes = _source_options(input_sizes(shown), {})
    runner = _runner(path, sizes)
    if runner is not None:
        return runner().network, runner
    held = graph_in(path, sizes)
    if held is None:
        raise OptionError(
            f"{option('check')}: no network is run from {path}",
            f"leave out {option('check')}: it runs programs of torch.export and TorchScript, and networks of ONNX,"
            " Caffe, Keras, MatConvNet and Lua Torch",
        )

    def make() -> nn.Module:
        from vggscope.checkpoint.load_weights import load_weights

        return load_weights(_run_as_graph(held, None, {}), path, rgb=rgb, network=lambda: held)

    return held.require_runnable(), make


def receptive_fields(
    model: Model,
    input_size: InputSizes | None = None,
    *,
    at: str | Sequence[str] = (),
    unit: tuple[int, ...] | None = None,
    of: str | None = None,
    effective: bool = False,
    samples: int = 4,
    seed: int = 0,
    weights: str | None = None,
    **options: Unpack[ModelOptions],
) -> ReceptiveFields:
    """Return the receptive field of each layer's units (Araujo, Norris and Sim, Distill 2019).

    Unit i covers the input pixels [-padding + i*stride, -padding + i*stride + size - 1].

    `of` names the input in which the fields lie, by the argument of forward; the first with spatial axes by default.
    `at` names layers, of which the region of one `unit` is returned too: (row, column), or the middle one. `effective`
    measures where the unit's gradient is (Luo et al. 2016), on `samples` images of noise, with the `weights` of a
    checkpoint or random ones. `seed` is that of the noise and of random weights.

    Raises OptionError for an unknown layer, unit or input, with the names there are.

    >>> fields = receptive_fields("D", at="conv5_3", unit=(6, 6))
    >>> fields.units[0].box
    Box(first=(6, 6), last=(201, 201))
    """
    from vggscope.analysis.receptive_field.result import describe

    described = _network(model, _inputs(input_size, options), options, memory=False)
    layers = (at,) if isinstance(at, str) else tuple(at)
    result = describe(described, layers, unit, of)
    if not effective:
        if weights is not None:
            raise OptionError(f"{option('weights')} is for {option('effective', True)}", "the rule needs no weights")
        return result
    from vggscope.execution.effective_field import effective_field

    if len(layers) != 1:
        raise OptionError(f"{len(layers)} layers cannot be measured at once", "name one with at")
    make = _module_factory(model, input_size, options, weights)
    module = _build_seeded(lambda: _in_float32(make, described.name), seed)
    with progress("measuring", samples) as advance:
        measured = effective_field(
            described,
            module,
            layers[0],
            unit,
            samples=samples,
            seed=seed,
            of=of,
            progress=lambda n: advance(f"sample {n + 1}"),
        )
    return replace(result, effective=measured.field, heat=measured.heat)


def verify(model: Model, input_size: InputSizes | None = None, **options: Unpack[ModelOptions]) -> Verification:
    """Return our figures beside those of torch's FLOP counter, memory tracker and autograd, torchinfo, fvcore,
    torchvision and the paper, each difference explained. A module passed in stays as it is. The network of a file that
    is no chain of torch.nn's modules is run op by op, which tells its MACs; tools that need a module are skipped.

    Raises ModelError where the module cannot be built or copied, and ShapeError for a model that does not run.

    >>> verification = verify("conv3-8 maxpool FC-10", input_size=(3, 32, 32))
    >>> verification.agrees, [figure.name for figure in verification.figures][:2]
    (True, ['params', 'macs'])
    """
    from vggscope.cross_checks.verification import REFERENCE_TOOLS
    from vggscope.cross_checks.verification import verify as ask_tools
    from vggscope.sources.resolve import runs_code

    steps = tuple(replace(step, on_gpu=on_gpu) for step in _peaks(None, 1) for on_gpu in (True, False))
    given = _inputs(input_size, options)
    runnable = _network(model, given, options, steps, backward=True).require_runnable()
    with _preserved(model, runs_fakes=True), progress("asking", len(REFERENCE_TOOLS)) as advance:
        is_read = isinstance(model, Network) or (isinstance(model, str) and not runs_code(model))
        module = None if is_read else build(model, input_size, **options)
        data = given if given is not None and given.data is not None else None
        return ask_tools(runnable, module, advance, data, partial(_program_of, model, given, options))


def _program_of(model: Model, given: Inputs | None, options: ModelOptions) -> nn.Module | None:
    """The module that runs the program in a file call by call; None for any other model."""
    from vggscope.sources.resolve import runner_of

    if not isinstance(model, str) or model.lower().endswith(".onnx"):  # which another runtime runs
        return None
    return getattr(runner_of(model, _source_options(given, options)), "module", None)


def memory(
    model: Model,
    input_size: InputSizes | None = None,
    *,
    batch: int | None = None,
    recipe: Recipe | None = None,
    gpu: str | None = None,
    context: str | None = None,
    workspace: str | None = None,
    cudnn: Cudnn | None = None,
    **options: Unpack[ModelAndStepOptions],
) -> MemoryReport:
    """Return what a step of training or inference allocates, in bytes, and its peak.

    `batch` is that of the input if left out. `recipe` gives the batch, the optimizer, its weight decay and the dtype
    with which the paper, torchvision or timm train, where they are left out. `gpu` is an amount (`"24GiB"`) or a card,
    and adds whether the step fits and the largest batch that does. `context` is the size of the CUDA context, the
    card's own if left out. `workspace` is an amount set aside for cuDNN, in place of the workspaces that a model finds
    for each convolution; `cudnn` says how cuDNN chooses its algorithms, by heuristic if left out. `options` are also
    those of `StepOptions`: mode, optimizer, dtype, foreach, fused, weight_decay, nesterov, clip_grad_norm, ema,
    accumulate, checkpoint, gpus, parallel.

    Raises OptionError for a batch out of range, an unknown word or card, and `context`, `workspace` or `cudnn` without
    a `gpu`; ShapeError for a model that does not run; and ModelError for one whose memory is not known, because it has
    parameters that are not registered.

    >>> memory("D", batch=64, optimizer="adam", gpu="24GiB").max_batch >= 64
    True
    """
    from vggscope.analysis.memory.report import memory as simulate
    from vggscope.analysis.memory.simulate import require_known_memory

    trained = _recipe(recipe)
    config, model_options = _step_config(options, trained)
    budget = _budget(gpu, context, workspace, cudnn)
    batch = _checked_batch(batch, trained)
    steps = _requests(config, batch, for_any_batch=budget is not None)
    inputs, samples = _inputs(input_size, model_options), batch and config.samples(batch)
    runnable = _network(model, inputs, model_options, steps, samples).require_runnable()
    require_known_memory(runnable, config)
    with step(f"replaying a step of {runnable.name}"):
        return simulate(runnable, runnable.given_batch if batch is None else batch, config, budget, trained)


def measure(
    model: Model,
    input_size: InputSizes | None = None,
    *,
    batch: int | None = None,
    recipe: Recipe | None = None,
    device: Device | None = None,
    gpu: str | None = None,
    context: str | None = None,
    workspace: str | None = None,
    cudnn: Cudnn | None = None,
    **options: Unpack[ModelAndStepOptions],
) -> Measurement:
    """Return the memory that `memory` predicts beside the measured memory, in bytes.

    `device` is `"cuda"` or `"cpu"`; if left out, a GPU where torch sees one. On a GPU, real steps run, and the result
    has what torch's allocator and the driver show. On a CPU, torch's memory tracker measures the peak on tensors
    without data. The predictions are for this GPU, or for the card that `gpu` names; `context` and `workspace` are as
    in `memory`, and `cudnn="benchmark"` also sets torch.backends.cudnn.benchmark. `batch`, `recipe` and `options` are
    those of `memory`.

    Raises OptionError for `checkpoint`, for several `gpus`, for `cuda` where there is none, and for options of a card
    on a CPU; ShapeError for a model that does not run; and ModelError for a step that fails or does not fit the GPU.

    >>> measure("conv3-8 maxpool FC-10", input_size=(3, 32, 32), batch=8, device="cpu").difference_bytes
    0
    """
    from vggscope.cross_checks.measured_step import measure as run
    from vggscope.cross_checks.measured_step import step_measured

    trained = _recipe(recipe)
    config, model_options = _step_config(options, trained)
    measured = _measured_gpu(device, gpu, context, workspace, cudnn)
    batch = _checked_batch(batch, trained)
    steps = _requests(step_measured(config, on_gpu=measured is not None), batch)
    runnable = _network(model, _inputs(input_size, model_options), model_options, steps).require_runnable()
    size = runnable.given_batch if batch is None else batch
    with _preserved(model, runs_fakes=measured is None), step(f"measuring a step of {runnable.name}"):
        return run(runnable, _module_factory(model, input_size, model_options), size, config, measured)


def lock(
    model: Model,
    input_size: InputSizes | None = None,
    *,
    like: str | os.PathLike[str] | None = None,
    **options: Unpack[ModelOptions],
) -> Lock:
    """Return the architecture of a model as a file to commit: `.save("arch.json")` writes it, a line for each layer.

    The file is a MODEL word: `diff(model, ref="arch.json")` finds what has changed since. `like` is such a file, whose
    inputs are taken if none are given.

    Raises ModelError for a network that cannot be written, and ShapeError for a model that does not run.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     lock("D").save(path := f"{folder}/arch.json")
    ...     diff("D", ref=path).verdict, [difference.label for difference in diff("C", ref=path).differences]
    ('identical', ['conv3_3', 'conv4_3', 'conv5_3'])
    """
    from vggscope.lock_file import lock as lock_network

    before = None if like is None else os.fspath(like)
    return lock_network(_on_fixed_inputs(model, before, input_size, options)[0])


@own_process()
def inspect(path: str | os.PathLike[str]) -> Inspection:
    """Return which network a checkpoint belongs to, by its names and shapes. No code in the file runs.

    A network that is no VGG is compared with the models of torchvision and timm that are installed: with those that the
    file's name or its `config.json` names, with those of torchvision that have about as many parameters, and with those
    of timm that were compared before.

    The file may also be an ONNX file or a program of torch.export, whose data is not read either.

    Raises CheckpointError for a file that cannot be read, and OptionError for a `path` that is not a path.

    >>> import tempfile, torch
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     torch.save(build("vgg11", num_classes=10).features.state_dict(), path := f"{folder}/x.pth")
    ...     inspect(path).column, inspect(path).params
    ('A', 9220480)
    """
    from vggscope.checkpoint.inspection import inspect as inspect_file
    from vggscope.sources.recognition import recognise

    name = os.fspath(_checked_path(path))
    with step(f"reading {name}"):
        found = inspect_file(name, _graph_of)
    return recognise(found)


def stats(*paths: str | os.PathLike[str]) -> Statistics:
    """Return statistics of the values in checkpoints: range, mean, standard deviation, zeros, NaN and dead channels of
    each tensor, the SHA-256 of each file, and which published weights have it. No code in the files runs.

    `paths` are .pth, .pt or .safetensors files. The memory is that of a file's largest tensor at most. `.picture()`
    plots the ranges and draws the filters of conv1_1.

    Raises CheckpointError for a file that cannot be read, and OptionError without a path.

    >>> import tempfile, torch
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     torch.save({"conv1_1.weight": torch.zeros(2, 3, 3, 3)}, path := f"{folder}/x.pth")
    ...     stats(path).files[0].tensors[0].zero_channels
    (0, 1)
    """
    from vggscope.checkpoint.statistics import statistics

    if not paths:
        raise OptionError("no file to read", "give the paths of .pth, .pt or .safetensors files")
    return statistics([_checked_path(path) for path in paths], _graph_of)


def values(path: str | os.PathLike[str], ref: str | os.PathLike[str]) -> ValueDiff:
    """Return how the values of the checkpoint `path` differ from those of the checkpoint `ref`, tensor by tensor.

    A tensor is equal, cast, transposed, in BGR, or trained, with its distance. Keys and formats may differ. No code in
    the files runs.

    Raises CheckpointError for a file that cannot be read, and OptionError where the two have no tensor in common.

    >>> import tempfile, torch
    >>> weight = torch.rand(4, 3, 3, 3)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     torch.save({"conv1_1.weight": weight}, f"{folder}/a.pth")
    ...     torch.save({"conv1_1.weight": weight.half()}, f"{folder}/b.pth")
    ...     result = values(f"{folder}/b.pth", f"{folder}/a.pth")
    >>> result.verdict, result.tensors[0].relation
    ('equivalent', 'cast')
    """
    from vggscope.diffing.values import compare_values

    return compare_values(_checked_path(path), _checked_path(ref), _graph_of)


def _graph_of(path: str) -> Network | None:
    """The network in a file of weights, if it is known to its end; None for any other file."""
    from vggscope.sources.resolve import graph_in

    try:
        found = graph_in(path, _source_options(None, {}))
    except VggscopeError:
        return None
    return found if found is not None and found.failure is None else None


def _checked_path(path: object) -> str | os.PathLike[str]:
    """The path. Raises OptionError for any other object."""
    if not isinstance(path, (str, os.PathLike)):
        raise OptionError(f"{type(path).__name__} is not a path", "give the path of a .pth, .pt or .safetensors file")
    return path


def explain(
    topic: Topic | Model | None = None,
    layer: Model | None = None,
    input_size: InputSizes | None = None,
    *,
    size: int | None = None,
    kernel: int | None = None,
    stride: int | None = None,
    padding: int | None = None,
    channels: int | None = None,
    image: str | None = None,
    shape: str | None = None,
    torch: bool = False,
    **options: Unpack[ModelOptions],
) -> Tutorial:
    """Return a topic, or a model's layer, worked with its numbers.

    `explain("conv", size=6, kernel=3)` explains a topic, `explain("D", "conv3_2")` a layer. After a topic, `layer` is
    the model to explain it with: `explain("why-tools-disagree", "D")`. Without arguments it lists the topics. `torch`
    runs the code that is shown and compares the numbers.

    Topics take some of size, kernel, stride, padding and channels, in pixels; `image` is a file and `shape` an array's
    shape such as `"224x224x3"`.

    Raises OptionError for an unknown topic or layer, and for an option that it does not take.

    >>> explain("D", "conv3_2").data.layer.params
    590080
    """
    from vggscope.tutorials import tutorial_for

    def load(model: Model) -> Network:
        return network(model, input_size, **options)

    topic_options = {"size": size, "kernel": kernel, "stride": stride, "padding": padding, "channels": channels}
    tutorial = tutorial_for(topic, layer, {**topic_options, "image": image, "shape": shape}, load)
    if torch:
        from vggscope.tutorials.tutorial import with_torch

        with step("running the code that is shown"):
            tutorial = with_torch(tutorial)
    return tutorial


@own_process()
def report(
    *models: Model,
    input_size: InputSizes | None = None,
    ref: str | None = None,
    image: str | Sequence[str] | None = None,
    weights: str | None = None,
    **options: Unpack[ModelOptions],
) -> Page:
    """Return one HTML page to explore `models` with. It holds all its data and works offline.

    `.save("vgg16.html")` writes it, `.html` is its text, and a notebook shows it. `ref` compares each model with
    torchvision, timm, paper or any MODEL; left out, several models are compared with the first, and somebody else's VGG
    with the paper's. `image` is a photo for the receptive fields, or several. `weights` is a checkpoint of the model,
    with which the page shows the photos' feature maps, the probabilities of the classes, and the weights.

    Raises ModelError, OptionError, CheckpointError, and ShapeError for a model that does not run on its input.

    >>> report("D")  # doctest: +ELLIPSIS
    <Page about D (VGG-16), ... KiB>
    """
    from vggscope.drawing.subject import Subject
    from vggscope.explorer import Exhibit, PageImage, page
    from vggscope.explorer.embed import photo_uri
    from vggscope.explorer.result import Page
    from vggscope.photo import open_photo

    if not models:
        raise OptionError("no model to show", "for example vggscope report D -o vgg16.html")
    paths = [image] if isinstance(image, str) else list(image or ())
    if weights is not None and (not paths or len(models) > 1):
        problem = f"{option('weights')} shows what one model makes of an image"
        raise OptionError(problem, f"name one model, and {option('image', 'photo.jpg')}")
    inputs, steps = _inputs(input_size, options), _peaks(None, for_any_batch=True)
    networks = [_network(model, inputs, options, steps).require_runnable() for model in models]
    photos = [open_photo(path) for path in paths]
    exhibits = [
        Exhibit(shown, Subject(shown).title, _comparisons(model, shown, networks[0], ref, options))
        for model, shown in zip(models, networks)
    ]
    if weights is not None:
        module = _in_float32(_module_factory(models[0], input_size, options, weights), networks[0].name)
        exhibits = [_with_images(exhibits[0], module, photos)]
    shown_images = [
        PageImage(os.path.basename(path), photo_uri(photo, networks[0].input_shape))
        for path, photo in zip(paths, photos)
    ]
    with step("laying out the page"):
        text = page(exhibits, shown_images)
    return Page(", ".join(exhibit.title for exhibit in exhibits), text)


def _with_images(exhibit: Exhibit, module: nn.Module, photos: Sequence[Image]) -> Exhibit:
    """The exhibit with what the module makes of each photo, and its weights."""
    from vggscope.execution.activations import activations as run
    from vggscope.execution.channel_sheets import image_channels, image_kernels, layer_kernels, weight_histograms

    network = exhibit.network
    kernels = layer_kernels(network, module, len(photos))
    return replace(
        exhibit,
        activations=tuple(run(network, module, photo, len(photos)) for photo in photos),
        channels=tuple(image_channels(network, module, photo, kernels, len(photos)) for photo in photos),
        weights=weight_histograms(network, module),
        first=image_kernels(network, module),
        kernels=kernels,
    )


def catalogue(*, refs: bool = False) -> Catalogue:
    """Return what there is to choose from: configurations, reference models, ops, formats, styles, and which packages
    are installed. `refs` adds every reference model with its parameters, and imports the libraries for that.

    Raises nothing: a library that is not installed has no entries.

    >>> [column.name for column in catalogue().columns]
    ['A', 'A-LRN', 'B', 'C', 'D', 'E']
    """
    from vggscope.drawing import FORMATS as PICTURE_FORMATS
    from vggscope.drawing import STYLES
    from vggscope.render.formats import FORMATS
    from vggscope.sources.catalogue import (
        Catalogue,
        Choice,
        all_ops,
        all_references,
        columns,
        families,
        packages,
        references,
    )

    return Catalogue(
        schema="vggscope/list@1",
        columns=columns(),
        families=families(),
        references=all_references() if refs else references(),
        ops=all_ops(),
        formats=(
            *(Choice(form.name, form.suffix) for form in FORMATS),
            *(Choice(form, f".{form}") for form in PICTURE_FORMATS),
        ),
        styles=tuple(Choice(name, about) for name, about in STYLES.items()),
        packages=packages(),
    )


def _comparisons(
    model: Model, ours: Network, first: Network, ref: str | None, options: ModelOptions
) -> tuple[Diff, ...]:
    """The comparison of one of a page's models: with the reference if there is one, else with the first model. If the
    first model is not a column of Table 1 but has a VGG's stages, it is compared with the paper's.
    """
    from vggscope.diffing.compare import compare
    from vggscope.vgg.configs import config_named

    if ref is None and ours is first:
        # One of the two labels is enough: a model from which a pool is missing is compared too.
        is_vgg = any(node.label in ("pool5", "conv4_1") for node in ours.nodes)
        ref = "paper" if is_vgg and config_named(_word(model)) is None else None
    if ref is not None:
        reference = _reference(ref, model, ours, None, options)
        return (compare(ours, reference.network, reference.notes),)
    return () if ours is first else (compare(ours, first),)


MODELS_PER_PROCESS = 4
"""A process is started for at least as many models: to import torch takes as long as to trace two of them."""


@record
class _Task:
    """A model to compare, for `_row`. `names_options` is whether messages name options of the command line."""

    model: Model
    name: str
    inputs: Inputs | None
    options: ModelOptions
    batch: int
    dtype: str | None
    names_options: bool


def _paper_columns() -> tuple[Published, ...]:
    """The paper's columns, whose module imports the cross-checks."""
    from vggscope.tutorials.paper import published

    return published()


def _ranking(sort: str | None, order: str | None, top: int | None) -> Ranking | None:
    """The order of the models; None for the one given. Raises OptionError for an unknown one."""
    from vggscope.analysis.compare import ORDERS, SORTS, Ranking
    from vggscope.document import typed
    from vggscope.render.compare import ALIASES, COLUMNS

    if sort is None:
        useless = _first_given(order=order, top=top)
        if useless is not None:
            raise OptionError(f"{option(useless)} without {option('sort')}", f"for example {option('sort', 'macs')}")
        return None
    key = ALIASES.get(sort.strip().lower(), sort)
    if key not in SORTS:
        raise unknown("figure to sort by", sort, [typed(column) for column in COLUMNS if column.key in SORTS], "sort")
    if order is not None and order not in ORDERS:
        raise unknown("order", order, ORDERS)
    if top is not None:
        check_count("top", top, f"the first {top} models make no sense", 10**6)
    return Ranking(key, order or ("ascending" if key == "model" else "descending"), top)


def _shown_columns(columns: Sequence[str] | None) -> tuple[str, ...]:
    """The keys of the columns of a comparison; none for the usual ones. Raises OptionError for an unknown one."""
    if columns is None:
        return ()
    from vggscope.render.compare import column_keys

    return column_keys(columns.split(",") if isinstance(columns, str) else columns)


def _expanded(models: Sequence[Model], cache: bool) -> list[Model]:
    """The models, with those that a pattern matches in its place, but for those that are named already.

    Raises ModelError for a pattern that matches none.
    """
    named: list[Model] = []
    for model in models:
        found = None
        if isinstance(model, str) and ":" in model and any(sign in model for sign in "*?["):
            from vggscope.sources.library_names import matching

            found = matching(model, cache=cache)
        if found is None:
            named.append(model)
        else:
            known = {name for name in named if isinstance(name, str)}
            named += [word for word in found if word not in known]
    return named


def _run_apart(models: Sequence[Model], options: BuildOptions, jobs: int | None) -> list[int]:
    """Which models other processes may work on: none if one process is enough.

    Raises ModelError for a word that no source claims, and OptionError for options that no model has.
    """
    from vggscope.sources.resolve import runs_code

    apart = [place for place, model in enumerate(models) if isinstance(model, str) and runs_code(model, options)]
    has_data = options.inputs is not None and options.inputs.data is not None
    return [] if has_data or _processes(len(apart), jobs) == 1 else apart


def _processes(models: int, jobs: int | None) -> int:
    """How many processes work on so many models; 1 for this one alone."""
    most = min(models // MODELS_PER_PROCESS if jobs is None else jobs, models)
    if jobs is not None or most <= 1:
        return max(most, 1)
    from vggscope.workers import available

    return min(available(), most)


def _rows(
    tasks: Sequence[_Task], apart: Sequence[int], jobs: int | None
) -> Generator[tuple[int, ComparedModel | Uncompared], None, None]:
    """The index and the row of each model as they are done: those of this process, then those of the others."""
    if len(tasks) == 1:
        yield 0, _compared_model(tasks[0])
        return
    elsewhere, left = frozenset(apart), list[int]()
    # The bar goes before the processes end, which takes seconds after an interruption.
    with ExitStack() as processes, progress("comparing", len(tasks)) as advance:
        for place, task in enumerate(tasks):
            recalled = _recalled_row(task) if place in elsewhere else None
            if place in elsewhere and recalled is None:
                left.append(place)
            else:
                advance(printable(task.name))
                yield place, recalled or _row(task)
        yield from _rest(tasks, left, _processes(len(left), jobs), processes, advance)


def _rest(
    tasks: Sequence[_Task], left: Sequence[int], jobs: int, processes: ExitStack, advance: Callable[[str], None]
) -> Iterator[tuple[int, ComparedModel | Uncompared]]:
    """The index and the row of each model that is left, from `jobs` other processes, which end with `processes`, unless
    one is enough.
    """
    if jobs == 1:
        for place in left:
            advance(printable(tasks[place].name))
            yield place, _row(tasks[place])
        return
    from vggscope.workers import Died

    apart = [tasks[place] for place in left]
    for number, row in processes.enter_context(_rows_apart(apart, jobs)):
        name = tasks[left[number]].name
        advance(printable(name))
        yield left[number], _uncompared(name, ModelError(row.reason)) if isinstance(row, Died) else row


@contextmanager
def _rows_apart(tasks: Sequence[_Task], jobs: int) -> Iterator[Iterator[tuple[int, Any]]]:
    """A context with the results of `_row_apart` from other processes, whose end is a step of its own."""
    from vggscope.workers import results

    processes = ExitStack()
    try:
        yield processes.enter_context(results(f"{__name__}:_row_apart", tasks, jobs))
    finally:
        with step("ending the processes"):
            processes.close()


def _row(task: _Task) -> ComparedModel | Uncompared:
    """The figures of a model, or why it has none."""
    try:
        with _naming_as(task):
            return _compared_model(task)
    except Exception as error:  # the model's own code may raise anything
        signal = received()
        if signal is not None:
            raise Stopped(signal) from None
        return _uncompared(task.name, error)


def _naming_as(task: _Task) -> AbstractContextManager[None]:
    """A context in which messages name options as the task wants them to."""
    return naming_options() if task.names_options else nullcontext()


def _row_apart(task: _Task) -> ComparedModel | Uncompared:
    """The figures of a model, in a process that does nothing else."""
    claim_process()
    return _row(task)


def _compared_model(task: _Task) -> ComparedModel:
    from vggscope.analysis.compare import compared
    from vggscope.sources.resolve import figures

    def compute() -> ComparedModel:
        network = _network(task.model, task.inputs, task.options, _peaks(task.dtype, task.batch))
        row = compared(network, task.batch, task.dtype)
        return row if isinstance(task.model, str) else replace(row, model=task.name)

    if isinstance(task.model, str):
        return figures(task.model, _building(task), task.batch, task.dtype, compute)
    return compute()


def _recalled_row(task: _Task) -> ComparedModel | None:
    """The figures of a library's model, if they are remembered."""
    from vggscope.sources.resolve import recalled_figures

    with _naming_as(task):
        return recalled_figures(_word(task.model), _building(task), task.batch, task.dtype)


def _building(task: _Task) -> BuildOptions:
    """The options of the Network that a task compares: two tasks with equal ones have equal figures."""
    options = _source_options(task.inputs, task.options)
    return replace(options, steps=_peaks(task.dtype, task.batch))


def _uncompared(name: str, error: Exception) -> Uncompared:
    from vggscope.analysis.compare import Uncompared

    if isinstance(error, VggscopeError):
        return Uncompared(name, error.problem, error.remedy)
    text = f"{type(error).__name__}: {' '.join(str(error).split())}"
    return Uncompared(name, text, "this is a defect of vggscope; a summary of the model shows where")


def _names(models: Sequence[Model]) -> list[str]:
    """The names of models. Modules and Networks with a name that another model has get a number: `ResNet 2`."""
    names: list[str] = []
    taken = {model for model in models if isinstance(model, str)}
    for model in models:
        name, number = _name(model), 1
        while name in taken and not isinstance(model, str):
            number += 1
            name = f"{_name(model)} {number}"
        taken.add(name)
        names.append(name)
    return names


def _word(model: Model) -> str:
    return model if isinstance(model, str) else ""


def _name(model: Model) -> str:
    return model if isinstance(model, str) else model.name if isinstance(model, Network) else type(model).__name__


INPUT_OPTIONS = ("input_data", "dtypes", "batch_axis")
"""The options that belong to `input_size`."""


def _inputs(input_size: InputSizes | None, options: ModelOptions) -> Inputs | None:
    """The inputs of forward that the caller gives, None without any. Raises OptionError for an invalid size."""
    batch_axis, data = options.get("batch_axis", 0), options.get("input_data")
    is_axis = isinstance(batch_axis, int) and not isinstance(batch_axis, bool) and batch_axis >= 0
    if batch_axis is not None and not is_axis:
        raise OptionError(f"batch_axis {batch_axis!r} is not an axis", "it is 0, 1, ..., or None without a batch")
    if data is not None:
        if input_size is not None:
            raise OptionError("input_size and input_data", "give one of them")
        return Inputs((), batch_axis, data)
    if input_size is None:
        if batch_axis != 0:
            named = option("batch_axis", "none" if batch_axis is None and names_options() else batch_axis)
            raise OptionError(f"{named} without a size of the input", f"add {option('input_size')}")
        return None
    sizes = _sizes(input_size)
    if all(size.batched is not None for size in sizes):
        check_batch_axis(batch_axis, [len(size.shape) + (not size.batched) for size in sizes])
    given: object = options.get("dtypes") or ()
    dtypes = [parse_dtype(dtype) for dtype in (given if isinstance(given, (tuple, list)) else (given,))]
    if dtypes and len(dtypes) != len(sizes):
        several = f"{len(dtypes)} dtype{'s' * (len(dtypes) > 1)} for {len(sizes)} size{'s' * (len(sizes) > 1)}"
        raise OptionError(several, "give one dtype for each size")
    return Inputs(tuple(replace(s, dtype=d) for s, d in zip(sizes, dtypes)) if dtypes else sizes, batch_axis)


def _sizes(input_size: InputSizes) -> tuple[InputSize, ...]:
    """One size, or several, as InputSize. Raises OptionError for anything else."""
    items: tuple[Any, ...] = tuple(input_size) if isinstance(input_size, (tuple, list)) else ()
    if items and all(isinstance(item, InputSize) for item in items):
        return items
    shapes = items if items and all(isinstance(item, (tuple, list)) for item in items) else (items,)
    has_sides = len(shapes) > 1 or bool(shapes[0])
    if not has_sides or not all(hasattr(side, "__index__") and side > 0 for shape in shapes for side in shape):
        raise OptionError(
            f"input_size {input_size!r} is not a size", "it is (channels, height, width), or a list of sizes"
        )
    return tuple(InputSize(tuple(map(index, shape)), batched=None) for shape in shapes)


def _with_inputs(shown: Network, inputs: Inputs) -> Network:
    """A Network on one input of another size, with or without the batch axis."""
    size = inputs.sizes[0] if len(inputs.sizes) == 1 else None
    if size is None or len(shown.inputs) > 1:
        raise OptionError("a Network keeps its inputs", "give the module, with input_data or input_size")
    shape = size.shape[1:] if size.batched is None and len(size.shape) == len(shown.input_shape) else size.shape
    if shape == shown.input_shape[1:]:
        return replace(shown, given_batch=_batch_of(shown, inputs))
    return replace(shown.with_input(shape), given_batch=_batch_of(shown, inputs))


def _batch_of(shown: Network, inputs: Inputs) -> int:
    """The batch in the caller's size, or that of the network's own inputs if the size has none."""
    size = inputs.sizes[0] if len(inputs.sizes) == 1 else None
    is_batch = size is not None and size.batched is None and len(size.shape) == len(shown.input_shape)
    return size.shape[0] if size is not None and is_batch else shown.given_batch


def _refuse_unknown(options: ModelOptions) -> None:
    """Raise OptionError for an option that no model has. It names the nearest one."""
    known = (*WordOptions.__annotations__, *INPUT_OPTIONS)
    unknown_option = next((name for name in options if name not in known), None)
    if unknown_option is not None:
        near = nearest(unknown_option, ("input_size", *known))
        raise OptionError(f"unknown option {unknown_option!r}{near}", f"options are input_size, {', '.join(known)}")


def _source_options(inputs: Inputs | None, options: ModelOptions) -> BuildOptions:
    """The options of a model as `sources` takes them. Raises OptionError for an unknown one."""
    _refuse_unknown(options)
    building: dict[str, Any] = {name: value for name, value in options.items() if name not in INPUT_OPTIONS}
    built = replace(BuildOptions(), **building)
    size = inputs.image_shape(3) if inputs is not None and inputs.is_one_image else None
    return replace(built, input=size, inputs=inputs)


def _budget(gpu: str | None, context: str | None, workspace: str | None, cudnn: str | None) -> GpuBudget | None:
    """The card that the options describe; None if none is named. Raises OptionError for other options without one."""
    from vggscope.analysis.memory.fit import GpuBudget
    from vggscope.units import parse_bytes

    if gpu is None:
        useless = _first_given(context=context, workspace=workspace, cudnn=cudnn)
        if useless is not None:
            raise OptionError(f"{option(useless)} is about a card, and none is named", f"{option('gpu')} names one")
        return None
    given = (parse_bytes(context) if context else None, parse_bytes(workspace) if workspace else None)
    return GpuBudget(gpu, *given, cudnn or "heuristic")


def _measured_gpu(
    device: str | None, gpu: str | None, context: str | None, workspace: str | None, cudnn: str | None
) -> MeasuredGpu | None:
    """The GPU that a step is measured on, and the card it is compared with; None for a CPU.

    Raises OptionError for the options of a card on a CPU.
    """
    from vggscope.cross_checks.gpu_counters import gpu_counters
    from vggscope.cross_checks.measured_step import MeasuredGpu

    counters = gpu_counters(device)
    if counters is None:
        useless = _first_given(gpu=gpu, context=context, workspace=workspace, cudnn=cudnn)
        if useless is not None:
            raise OptionError(
                "on a CPU the memory tracker counts tensors, which are the same for every card",
                f"leave out {option(useless)}",
            )
        return None
    budget = _budget(gpu or counters.card, context, workspace, cudnn)
    return MeasuredGpu(counters, budget) if budget else None


def _first_given(**options: object) -> str | None:
    """The name of the first option that is not None."""
    return next((name for name, value in options.items() if value is not None), None)


def _recipe(name: str | None) -> TrainingRecipe | None:
    """The recipe of a name. Raises OptionError for an unknown one."""
    from vggscope.analysis.memory.optimizers import RECIPES

    if name is not None and name not in RECIPES:
        raise unknown("recipe", name, RECIPES)
    return None if name is None else RECIPES[name]


def _step_config(options: ModelAndStepOptions, recipe: TrainingRecipe | None = None) -> tuple[StepConfig, Any]:
    """The options of a step, with the recipe's where they are left out, and those of the model."""
    from vggscope.analysis.memory.step_config import StepConfig

    names = StepOptions.__annotations__
    given: dict[str, Any] = {name: value for name, value in options.items() if name in names and value is not None}
    model: dict[str, Any] = {name: value for name, value in options.items() if name not in names}
    return StepConfig(**{**(recipe.options(given) if recipe else {}), **given}), model


def _checked_batch(batch: int | None, recipe: TrainingRecipe | None) -> int | None:
    """The batch that is given, or the recipe's; None for the model's own. Raises OptionError for one out of range."""
    from vggscope.units import check_batch

    check_batch(batch)
    return recipe.batch if recipe is not None and batch is None else batch


def _requests(config: StepConfig, batch: int | None, *, for_any_batch: bool = False) -> tuple[StepRequest, ...]:
    """The step in which torch is recorded for a config; none if only the rules know such a step."""
    request = config.request
    if request is None:
        return ()
    samples = None if batch is None else config.samples(batch)
    splits = config.samples(2) != 2  # into micro-batches or over GPUs
    return (replace(request, samples=samples, for_any_batch=for_any_batch or (batch is None and splits)),)


def _module_factory(
    model: Model,
    input_size: InputSizes | None,
    options: ModelOptions,
    weights: str | None = None,
    *,
    any_graph: bool = False,
) -> Callable[[], nn.Module]:
    """A function that makes a module of the model, on the CPU, that the caller may change.

    It holds the weights of the checkpoint `weights`, if there is one. `any_graph`: the module runs at evaluation alone,
    so that it may be that of a Network that is no chain of modules.
    """
    inputs = _inputs(input_size, options)

    def make() -> nn.Module:
        if not isinstance(model, (str, Network)):
            module = _copied(model)
        elif any_graph:
            module = _run_as_graph(model, input_size, options)
        else:
            module = build(model, input_size, **options)
        if weights is not None:
            from vggscope.checkpoint.load_weights import load_weights

            module = load_weights(module, weights, network=lambda: network(model, input_size, **options))
        if inputs is None:
            return module
        from vggscope.trace.inputs import attach

        return attach(module, inputs)

    return make


def _run_as_graph(model: str | Network, input_size: InputSizes | None, options: ModelOptions) -> nn.Module:
    """The module of a word or a Network, which runs at evaluation alone."""
    from vggscope.sources.resolve import module_of, resolve_module

    if isinstance(model, Network):
        return module_of(network(model, input_size), any_graph=True)
    return resolve_module(model, _source_options(_inputs(input_size, options), options), any_graph=True)


@contextmanager
def _preserved(*models: Model, runs_fakes: bool = False) -> Iterator[None]:
    """Restore modules passed in when the block ends: the hooks of a copy may write to the module copied.

    `runs_fakes`: the block runs it on tensors without data.
    """
    with ExitStack() as stack:
        for model in models:
            if not isinstance(model, (str, Network)):
                from vggscope.trace.kept_outside import restoring_outside
                from vggscope.trace.preserve import copy_containers, preserved

                if runs_fakes:
                    stack.enter_context(restoring_outside(model, always=True))
                stack.enter_context(preserved(model, with_data=False))
                copy_containers(model)
        yield


def _copied(module: nn.Module) -> nn.Module:
    """A copy of a module on the CPU, without a wrapper such as torch.compile's.

    Raises ModelError if it cannot be copied.
    """
    from vggscope.trace.functions import first_line
    from vggscope.trace.inputs import copied
    from vggscope.trace.network import unwrapped

    try:
        return copied(unwrapped(module, type(module).__name__)).cpu()
    except Exception as error:  # the module's own code may raise anything
        name = type(module).__name__
        raise ModelError(
            f"{name} cannot be copied: {first_line(error)}", "a word such as file.py:make builds it anew"
        ) from error


def _in_float32(make: Callable[[], nn.Module], name: str) -> nn.Module:
    """The module that `make` returns, with its floating-point tensors in float32, the dtype of images and noise.

    Raises ModelError for quantised or complex weights.
    """
    import torch

    from vggscope.trace.quantized import has_quantized_tensors

    module = make().float()
    if has_quantized_tensors(module) or any(map(torch.is_complex, module.parameters())):
        raise ModelError(f"{name} has quantised or complex weights", "only floating-point models are run on an image")
    return module


def _build_seeded(make: Callable[[], nn.Module], seed: int) -> nn.Module:
    """The module with weights drawn from the seed; torch's own generator keeps its state."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return make()


def _reference(
    ref: Model | None, model: Model, ours: Network, inputs: Inputs | None, options: ModelOptions
) -> Reference:
    """The reference model of a diff, and how to build its module, on the inputs of ours if it runs on them."""
    if inputs is None and ours.takes_one_image:
        inputs = input_sizes(ours)
    reference = _reference_on(inputs, ref, model, ours, options)
    network, sizes = reference.network, input_sizes(ours)
    same = [(t.shape, t.dtype) for t in network.inputs] == [(t.shape, t.dtype) for t in ours.inputs]
    if same or inputs is not None or sizes is None or isinstance(ref, Network) or ours.failure is not None:
        return reference
    with suppress(VggscopeError):
        on_ours = _reference_on(sizes, ref, model, ours, options)
        return reference if on_ours.network.failure is not None else on_ours
    return reference


def _is_same_file(model: Model, ref: Model | None) -> bool:
    """Whether two words name one file, which computes the same even where not all that it computes with is known."""
    from vggscope.sources.resolve import is_same_file

    return isinstance(model, str) and isinstance(ref, str) and is_same_file(model, ref)


def _on_usual_image(
    ref: Model | None, model: Model, ours: Network, reference: Reference, options: ModelOptions
) -> tuple[Network, Reference]:
    """Both on an image of the usual size, where the reference does not run on the one that was chosen for the model: a
    model with fewer pools may run on a small image alone. It is then compared up to the layer that fails. Unchanged
    where that does not help.
    """
    runs = reference.network.truncated_at_failure().failure is None
    if runs or ours.failure is not None or not (ours.takes_one_image and reference.network.takes_one_image):
        return ours, reference
    from vggscope.vgg.network import INPUT_SHAPE

    usual = network(model, (ours.input_shape[1], *INPUT_SHAPE[1:]), **options).truncated_at_failure()
    on_usual = _reference(ref, model, usual, input_sizes(usual), options)
    failure = on_usual.network.truncated_at_failure().failure
    return (ours, reference) if failure is not None else (usual, on_usual)


def _reference_on(
    inputs: Inputs | None, ref: Model | None, model: Model, ours: Network, options: ModelOptions
) -> Reference:
    """The reference model of a diff on these inputs, on its own ones if they are None."""
    from vggscope.sources.reference import Reference, reference_for

    if ref is None or isinstance(ref, str):
        return reference_for(ref, _word(model), ours, _source_options(inputs, options))
    same = isinstance(ref, Network) and ref.inputs == ours.inputs
    size = ours.input_shape[1:] if ours.takes_one_image else None
    build_theirs = _module_factory(ref, size, {}, any_graph=True)
    if same or inputs is None or inputs.is_one_image:
        return Reference(_network(ref, None if same else inputs, {}), build_theirs)
    from vggscope.trace.inputs import attach

    return Reference(_network(ref, inputs, {}), lambda: attach(build_theirs(), inputs))


def _on_fixed_inputs(
    model: Model, ref: Model | None, input_size: InputSizes | None, options: ModelOptions
) -> tuple[Network, InputSizes | None, ModelOptions]:
    """The Network of a model, with its inputs and options: those that a file `ref` fixes, a locked architecture, an
    ONNX file or a program of torch.export, if it is one and the caller gives none.
    """
    ours = network(model, input_size, **options)
    has_inputs = isinstance(model, Network) or _inputs(input_size, options) is not None
    if has_inputs or not isinstance(ref, str) or not ref.strip().lower().endswith((".json", ".onnx", ".pt2")):
        return ours, input_size, options
    from vggscope.sources.resolve import inputs_of, resolve

    sizes, locked = ([(t.shape, t.dtype) for t in net.inputs] for net in (ours, resolve(ref)))
    inputs = inputs_of(ref) if sizes != locked else None
    if inputs is None:
        return ours, input_size, options
    options = {**options, "batch_axis": inputs.batch_axis}
    return network(model, inputs.sizes, **options), inputs.sizes, options


def _summary_named(ref: str) -> dict[str, Any] | None:
    """The JSON of a summary that a reference names; None for a locked architecture."""
    from vggscope.sources.resolve import summary_of

    return summary_of(ref)


def _refuse_with_summary(ref: str, given: Mapping[str, object]) -> None:
    """Raise OptionError for an argument that needs more of the reference than a summary holds."""
    for name in given:
        raise OptionError(
            f"{option(name)} needs a reference that runs, {ref} is a summary", f"leave out {option(name)}"
        )


def _compared_with_summary(
    model: Model, ref: str, values: dict[str, Any], input_size: InputSizes | None, options: ModelOptions
) -> Diff:
    """The Diff with the layers of a summary's JSON, on its input unless the caller gives another."""
    from vggscope.diffing.with_summary import compare_with_summary, layers_of

    try:
        layers = layers_of(values)
    except ValueError as error:
        raise ModelError(
            f"{ref} is no summary: {error}", "write it again: vggscope summary MODEL --format json"
        ) from None
    shape = layers[0].input_shape
    has_inputs = isinstance(model, Network) or _inputs(input_size, options) is not None
    if not has_inputs and len(shape) == 4 and shape[0] == 1:
        input_size = shape[1:]
    ours = network(model, input_size, **options).require_runnable()
    return compare_with_summary(ours, os.path.basename(ref), layers, ours.warnings)


def _with_definitions(model: Model, network: Network) -> Network:
    """The Network of a module that is passed in, with where its classes define its layers."""
    if isinstance(model, (str, Network)):
        return network
    from vggscope.trace.network import unwrapped
    from vggscope.trace.run import with_positions
    from vggscope.trace.source_line import defined_positions

    return with_positions(network, defined_positions(unwrapped(model, network.name)))


def _patch(model: Model, compared: Compared, again: Callable[[Mapping[str, str]], Compared | None]) -> str:
    """The patch of a model's file after which the networks agree. Raises OptionError for a model that is no such file,
    and ModelError where no patch is found.
    """
    from vggscope.diffing.patch import mended_text, patch_text, without_edit
    from vggscope.sources.user_import import file_of

    file = file_of(model) if isinstance(model, str) else None
    if file is None:
        raise OptionError("a patch changes one file of Python code", "name the model as my_net.py:Net")
    text = mended_text(compared, file, again)
    if text is None:
        count = sum(difference.changes_output for difference in compared[0].differences)
        which = "the difference" if count == 1 else f"all {count} differences"
        unknown = without_edit(compared, file)
        why = f": no change of the code is known for {unknown}" if unknown else ""
        raise ModelError(f"no patch was found that mends {which}{why}", "the diff itself shows each line")
    return patch_text(file, text)


def _size_to_patch(ours: Network, reference: Network) -> InputSizes | None:
    """The reference's image for a model whose code changes: without a size, code that fails is tried at several."""
    if not (ours.takes_one_image and reference.takes_one_image) or ours.input_shape[1] != reference.input_shape[1]:
        return None
    return reference.input_shape[1:]


def _compared_again(
    model: str,
    reference: Network,
    ignored: frozenset[str],
    input_size: InputSizes | None,
    options: ModelOptions,
    texts: Mapping[str, str],
) -> Compared | None:
    """The comparison of a model whose files have these texts; None if it does not run."""
    from vggscope.diffing.compare import compare
    from vggscope.sources.user_import import replaced_sources

    try:
        with replaced_sources(texts):
            ours = network(model, input_size, **options).truncated_at_failure()
        return compare(ours, reference, (), ignored), ours, reference
    except VggscopeError:
        return None


def _compare_outputs(
    models: tuple[Model, Model | None],
    networks: tuple[Network, Reference],
    given: tuple[InputSizes | None, ModelOptions, str | None],
    seed: int,
    float64: bool,
) -> Numeric:
    """The largest difference between the outputs of the model and of its reference, run on the same random input."""
    from vggscope.diffing.numeric import STEPS, measure
    from vggscope.units import shape_text

    (model, ref), (ours, reference), (input_size, options, weights) = models, networks, given
    shapes, theirs = ([tensor.shape for tensor in network.inputs] for network in (ours, reference.network))
    if ours.takes_one_image and reference.network.takes_one_image:
        shapes, theirs = [shapes[0][2:]], [theirs[0][2:]]  # channels are fitted
    if shapes != theirs:
        sizes = " and ".join(shape_text(tensor.shape) or "scalar" for tensor in ours.inputs)
        raise ShapeError(f"{reference.network.name} does not run on {sizes}", f"leave out {option('numeric')}")
    inputs = _inputs(input_size, options) or input_sizes(ours)
    our_file = _runner(model, _source_options(inputs, options))
    their_file = _runner(ref, _source_options(inputs, {}))
    if our_file is not None and their_file is not None and weights is not None:
        raise OptionError(f"{option('weights', weights)}: both files have their own weights", "leave it out")
    build_ours: Build = our_file or _module_factory(model, input_size, options, weights, any_graph=True)
    build_theirs: Build = their_file or reference.build
    if our_file is not None and weights is not None:
        build_theirs = _loaded(reference.build, weights, reference.network)
    is_file = our_file is not None or their_file is not None
    with _preserved(model, *([] if ref is None else [ref])), progress("comparing", len(STEPS)) as advance:
        dtype = "float64" if float64 else "float32"
        copies = weights is None or not is_file
        return measure(ours, reference.network, build_ours, build_theirs, seed, dtype, advance, copies=copies)


def _runner(model: Model | None, options: BuildOptions) -> Callable[[], Runner] | None:
    """A function that returns what runs a file in another runtime; None for a model that torch runs."""
    from vggscope.sources.resolve import runner_of

    runner = runner_of(model, options) if isinstance(model, str) else None
    return None if runner is None else lambda: runner


def _loaded(build_module: Callable[[], nn.Module], weights: str, shown: Network) -> Callable[[], nn.Module]:
    from vggscope.checkpoint.load_weights import load_weights

    return lambda: load_weights(build_module(), weights, network=lambda: shown)
