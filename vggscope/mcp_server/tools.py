"""The table of tools: what an assistant may ask for, with which arguments, and how a call is answered.

A tool calls a function of `api` and returns its result as the table that the command prints, as its JSON, or as a
picture. The arguments have the names and the words of that function's, so that the messages of errors name them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, get_args

from vggscope import api
from vggscope.choices import (
    Annotation,
    ComparedFigure,
    Count,
    Depth,
    Direction,
    Dtype,
    Head,
    Heat,
    Ignorable,
    Mode,
    Optimizer,
    Order,
    Parallel,
    PictureFormat,
    Recipe,
    StepDtype,
    Style,
    Theme,
    Topic,
)
from vggscope.document import Style as TextStyle
from vggscope.errors import OptionError, described, naming_arguments, option, unknown
from vggscope.files import write_file
from vggscope.inputs import InputSize, parse_input
from vggscope.record import record
from vggscope.render.formats import write
from vggscope.render.summary import COLUMNS, column_keys
from vggscope.result import Result
from vggscope.sources.resolve import kinds, without_user_code
from vggscope.units import bytes_text

LONGEST_TEXT = 60_000
"""Characters of a text, which is cut there: an assistant reads all of it."""

WIDTH = 140
"""Columns of a table."""

DPI = 96
"""Dots per inch of a PNG, if none are given."""

Schema = dict[str, Any]
Given = dict[str, Any]


@record
class ToolAnswer:
    """What a call returns: a text, and for some calls the JSON document that the text is, or a PNG."""

    text: str
    document: Mapping[str, Any] | None = None
    png: bytes | None = None
    is_error: bool = False


@record
class Permissions:
    """What the person who starts the server allows: the user's code to run, and a folder for pictures (None: none)."""

    code: bool = False
    folder: str | None = None


@record
class Tool:
    """A tool: its title, what it is for, the JSON Schema of each argument, those that are required, and the function
    that answers a call.
    """

    name: str
    title: str
    about: str
    arguments: Mapping[str, Schema]
    required: tuple[str, ...]
    answer: Callable[[Given, Permissions], ToolAnswer]

    @property
    def input_schema(self) -> Schema:
        """The JSON Schema of all arguments."""
        required, properties = list(self.required), dict(self.arguments)
        return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def answer(name: str, arguments: Mapping[str, Any], permissions: Permissions) -> ToolAnswer:
    r"""Answer a call of the tool `name`. An error is an answer too: what was wrong, and what would work.

    >>> text = answer("summary", {"model": "D", "depth": "stage", "columns": ["label", "field"]}, Permissions()).text
    >>> print(*text.splitlines()[:5], sep="\n")
    D (VGG-16)   input 3x224x224, float32
    <BLANKLINE>
    label            field
    ──────────────────────
    conv1_1 - pool1      6
    >>> print(answer("summary", {"model": "net.py:Net"}, Permissions()).text)
    net.py:Net is Python code, which this server does not run
    start it with allow_code=True
    """
    refusal = f"start it with {option('allow_code', True)}"
    with ExitStack() as context:
        context.enter_context(naming_arguments())
        if not permissions.code:
            context.enter_context(without_user_code("which this server does not run", refusal))
        try:
            tool = _named(name)
            return tool.answer(_checked(tool, arguments), permissions)
        except Exception as error:
            return ToolAnswer("\n".join(filter(None, described(error))), is_error=True)


def _named(name: str) -> Tool:
    for tool in TOOLS:
        if tool.name == name:
            return tool
    raise unknown("tool", name, [tool.name for tool in TOOLS])


def _checked(tool: Tool, arguments: Mapping[str, Any]) -> Given:
    """The arguments that are not null, one text as a list where a list is wanted.

    Raises OptionError for an argument that the tool does not have or that it needs, and for a value of another type.
    """
    given = {name: value for name, value in arguments.items() if value is not None}
    for name, value in given.items():
        if name not in tool.arguments:
            raise unknown("argument", name, tool.arguments)
        schema = tool.arguments[name]
        if schema.get("type") == "array" and isinstance(value, str):
            given[name] = [value]
        elif not _has_type(value, schema):
            raise OptionError(f"{name} is {str(value)[:60]!r}, which is no {schema['type']}", schema["description"])
    for name in tool.required:
        if name not in given:
            raise OptionError(f"{tool.name} needs the argument {name}", tool.arguments[name]["description"])
    return given


_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "string": str,
    "boolean": bool,
    "integer": int,
    "number": (int, float),
    "array": list,
}


def _has_type(value: object, schema: Schema) -> bool:
    """Whether a value, and each item of a list, has its schema's type. An item without a type may be any."""
    if "type" not in schema:
        return True
    if isinstance(value, bool) and schema["type"] != "boolean":
        return False
    is_one = isinstance(value, _TYPES[schema["type"]])
    return is_one and (not isinstance(value, list) or all(_has_type(item, schema["items"]) for item in value))


def _answer_result(function: Callable[[Given], Result], given: Given, _: Permissions) -> ToolAnswer:
    """The answer of a tool whose function of `api` returns a Result, as the `format` that was asked for."""
    form, theme = given.pop("format", "text"), given.pop("theme", "light")
    columns = ",".join(given.pop("columns")) if "columns" in given else None
    keys = column_keys(columns, given.get("count", "macs"))
    result = function(given)
    if form == "json":
        document = result.to_dict()
        return ToolAnswer(json.dumps(document), document)
    if form in ("png", "svg"):
        return _picture(result.picture(theme=theme).render(form, DPI), form)
    if form != "text":
        raise unknown("format", form, DRAWN_FORMATS)
    text = write(result, "table", TextStyle(WIDTH), keys)
    patch: str | None = getattr(result, "patch", None)
    return ToolAnswer(_cut(text if patch is None else f"{text}\n{patch}"))


def _picture(data: bytes, form: str) -> ToolAnswer:
    return ToolAnswer("", png=data) if form == "png" else ToolAnswer(data.decode())


def _cut(text: str) -> str:
    """A text as it is, or its first lines and how many more there are."""
    if len(text) <= LONGEST_TEXT:
        return text.rstrip("\n")
    shown = text[: text.rindex("\n", 0, LONGEST_TEXT)]
    left = text.count("\n") - shown.count("\n")
    return f"{shown}\n... {left} more lines: ask for fewer rows or columns, such as depth=stage in summary"


def _sizes(texts: Sequence[str | int]) -> tuple[InputSize, ...] | tuple[int, ...]:
    """The sizes of inputs: texts as `--input` takes them, or the numbers of one."""
    numbers = tuple(side for side in texts if isinstance(side, int))
    if len(numbers) == len(texts):
        return numbers
    return tuple(parse_input(str(text)) for text in texts)


def _called(function: Callable[..., Result], *positional: str) -> Callable[[Given], Result]:
    """The function that calls one of `api` with the given arguments. Those in `positional` are its first ones."""

    def call(given: Given) -> Result:
        if "input_size" in given:
            given["input_size"] = _sizes(given["input_size"])
        first: list[Any] = []
        for name in positional:
            value = given.pop(name, None)
            first += value if isinstance(value, list) else [value]
        return function(*first, **given)

    return call


def _receptive_fields(given: Given) -> Result:
    if "unit" in given:
        given["unit"] = tuple(given["unit"])
    return _called(api.receptive_fields, "model")(given)


def _diagram(given: Given, permissions: Permissions) -> ToolAnswer:
    """Draw models. With `file` the picture is written to the folder, else it is the answer."""
    file, form, dpi = given.pop("file", None), given.pop("format", "png"), given.pop("dpi", DPI)
    if "input_size" in given:
        given["input_size"] = _sizes(given["input_size"])
    path = None if file is None else _path_in(permissions.folder, file)
    if path is not None:
        form = Path(path).suffix.lower().removeprefix(".")
    known = get_args(PictureFormat) if path is not None else INLINE
    if form not in known:
        raise unknown("format", form, known)
    drawn = api.diagram(*given.pop("models"), **given)
    data = drawn.render(form, dpi)
    if path is None:
        return _picture(data, form)
    write_file(path, data)
    return ToolAnswer(f"wrote {path} ({bytes_text(len(data))})")


def _path_in(folder: str | None, file: str) -> str:
    """The path of a file in the folder for pictures. Raises OptionError for one that lies elsewhere."""
    if folder is None:
        raise OptionError("this server writes no files", "leave out file: the picture is then the answer")
    root = Path(os.path.realpath(folder))
    path = Path(os.path.realpath(root / file))
    if root not in path.parents:
        raise OptionError(f"{file} is not in {folder}, the folder for pictures", "give a name without a path")
    return str(path)


def _catalogue(given: Given) -> Result:
    return api.catalogue(refs=given.pop("refs", False))


def _text(about: str) -> Schema:
    return {"type": "string", "description": about}


def _texts(about: str) -> Schema:
    return {"type": "array", "items": {"type": "string"}, "description": about}


def _flag(about: str) -> Schema:
    return {"type": "boolean", "description": about}


def _whole(about: str) -> Schema:
    return {"type": "integer", "minimum": 0, "description": about}


def _one_of(words: object, about: str) -> Schema:
    """A word of a Literal, or of a sequence."""
    return {"type": "string", "enum": list(get_args(words) or words), "description": about}  # type: ignore[call-overload]


def _some_of(words: object, about: str) -> Schema:
    chosen = _one_of(words, about)
    return {"type": "array", "items": {"type": "string", "enum": chosen["enum"]}, "description": about}


INLINE = ("png", "svg", "dot", "tex")
"""The formats of a picture that a tool returns."""

FORMATS = ("text", "json")
DRAWN_FORMATS = (*FORMATS, "png", "svg")
"""The formats of a result, and of one that has a picture."""

_FORMAT = "text (the default) is a table; json has every field and raw numbers, and is long"
FORMAT = _one_of(FORMATS, f"{_FORMAT}.")
DRAWN = _one_of(DRAWN_FORMATS, f"{_FORMAT}; png and svg are a picture.")

MODEL = _text(
    "A model: vgg16, vgg19_bn, torchvision:resnet50, timm:convnext_tiny, a file (weights.pth, model.safetensors,"
    ' model.onnx, model.keras), notation ("conv3-64 maxpool FC-10"), or Python code (net.py:Net) where the server'
    " allows it."
)

MODELS = _texts(f"Models. {MODEL['description']}")

BUILD: Mapping[str, Schema] = {
    "input_size": {
        "type": "array",
        "items": {},
        "description": 'Sizes of the inputs without the batch: ["3x224x224"], or for several ["ids=128:int64"].',
    },
    "head": _one_of(Head, "Classifier of a VGG: torchvision's, or the paper's as linear layers or as convolutions."),
    "batch_norm": _flag("Batch norm after each convolution of a VGG."),
    "num_classes": _whole("Width of the last layer."),
    "soft_max": _flag("End with the soft-max instead of the logits."),
}

BATCH = _whole("Inputs in a batch, 1 if left out.")

TOOLS = (
    Tool(
        "summary",
        "Layers of a model",
        "Layer by layer: output shape, parameters, MACs (multiply-accumulates; FLOPs = 2 x MACs), activation memory and"
        " receptive field, and their totals. depth=stage has few rows: use it first for large models.",
        {
            "model": MODEL,
            "depth": {
                "anyOf": [{"type": "string", "enum": list(get_args(Depth))}, {"type": "integer", "minimum": 1}],
                "description": "A row for each layer (the default), each stage, or each module at a depth from 1.",
            },
            "columns": _some_of([column.key for column in COLUMNS], "Columns of the table."),
            "batch": BATCH,
            "dtype": _one_of(Dtype, "Convert to this dtype; the model's own if left out."),
            "count": _one_of(Count, "macs (the default), or all for bias, activations, pooling and the rest too."),
            **BUILD,
            "format": DRAWN,
        },
        ("model",),
        partial(_answer_result, _called(api.summary, "model")),
    ),
    Tool(
        "diff",
        "Differences between two models",
        "Compare a model with a reference and name each difference with its effect: another function, training only,"
        " or none. The verdict is identical, equivalent (the same function written otherwise) or different. Weights are"
        " not compared.",
        {
            "model": MODEL,
            "ref": _text("The reference: torchvision or timm (the counterpart there), paper, or any model."),
            "ignore": _some_of(Ignorable, "Kinds of difference that do not count."),
            "list_all": _flag("List each layer with another name instead of counting them."),
            "patch": _flag("Add a patch of the model's Python file after which the two agree."),
            **BUILD,
            "format": DRAWN,
            "theme": _one_of(Theme, "Colours of a picture."),
        },
        ("model",),
        partial(_answer_result, _called(api.diff, "model")),
    ),
    Tool(
        "memory",
        "GPU memory of a training or inference step",
        "Predict what a step allocates, in bytes, and where its peak is. With gpu: whether it fits and the largest"
        " batch that does.",
        {
            "model": MODEL,
            "batch": BATCH,
            "mode": _one_of(Mode, "What the step does; train if left out."),
            "optimizer": _one_of(Optimizer, "sgd-momentum if left out."),
            "dtype": _one_of(StepDtype, "The model's own if left out; amp is automatic mixed precision."),
            "recipe": _one_of(Recipe, "Batch, optimizer and dtype with which these train, where not given."),
            "gpu": _text("A card (RTX 4090, A100-80GB) or an amount (24GiB)."),
            "accumulate": _whole("Split the batch into this many micro-batches."),
            "checkpoint": _flag("Recompute each stage's activations in the backward pass."),
            "gpus": _whole("GPUs that share the batch."),
            "parallel": _one_of(Parallel, "How they share training."),
            **BUILD,
            "format": DRAWN,
            "theme": _one_of(Theme, "Colours of a picture."),
        },
        ("model",),
        partial(_answer_result, _called(api.memory, "model")),
    ),
    Tool(
        "receptive_fields",
        "Receptive fields",
        "Size, stride and padding of each layer's receptive field in input pixels, and with `at` the region that one"
        " unit sees.",
        {
            "model": MODEL,
            "at": _texts("Layers by label or path, e.g. conv5_3: the pixels that one unit sees."),
            "unit": {"type": "array", "items": {"type": "integer"}, "description": "[row, column]; else the middle."},
            "of": _text("The input in which the fields lie, if there are several."),
            **BUILD,
            "format": DRAWN,
            "theme": _one_of(Theme, "Colours of a picture."),
        },
        ("model",),
        partial(_answer_result, _receptive_fields),
    ),
    Tool(
        "inspect",
        "Which network a checkpoint belongs to",
        "Read names and shapes of a weights file (.pth, .safetensors, .npz, .h5, .caffemodel, .mat, .onnx, an index of"
        " shards, a folder) and say which network it belongs to, with what is missing or extra. No code in it runs.",
        {"path": _text("The file."), "format": FORMAT},
        ("path",),
        partial(_answer_result, _called(api.inspect, "path")),
    ),
    Tool(
        "compare",
        "Models side by side",
        "Parameters, MACs, memory, depth and receptive field of several models, a row for each.",
        {
            "models": _texts(f"Models, or patterns of library models such as timm:resnet*. {MODEL['description']}"),
            "batch": BATCH,
            "dtype": _one_of(Dtype, "Each model's own if left out."),
            "paper": _flag("Add the figures of the VGG paper's Tables 1 and 2."),
            "sort": _one_of(ComparedFigure, "Sort by this figure."),
            "order": _one_of(Order, "descending if left out."),
            "top": _whole("Only the first ones."),
            **BUILD,
            "format": DRAWN,
            "theme": _one_of(Theme, "Colours of a picture."),
        },
        ("models",),
        partial(_answer_result, _called(api.compare, "models")),
    ),
    Tool(
        "explain",
        "A layer or an idea with its numbers",
        "Work through a layer of a model (topic=D, layer=conv3_2) or a topic (topic=conv, size=6, kernel=3).",
        {
            "topic": _text(f"One of {', '.join(get_args(Topic))}; or a model, as summary takes it."),
            "layer": _text("The model's layer by label or path; after a topic, the model to explain it with."),
            "size": _whole("conv, pool: the picture's side."),
            "kernel": _whole("conv, pool, depth: the window's side."),
            "stride": _whole("conv, pool: the window's step."),
            "padding": _whole("conv, pool: pixels around the picture."),
            "channels": _whole("depth: the convolutions' channels."),
            **BUILD,
            "format": DRAWN,
            "theme": _one_of(Theme, "Colours of a picture."),
        },
        ("topic",),
        partial(_answer_result, _called(api.explain, "topic", "layer")),
    ),
    Tool(
        "diagram",
        "Picture of a model",
        "Draw a model as a PNG image (the default) or as the text of an SVG, DOT or TeX file. Several models are drawn"
        " with style=table, which is the one if left out.",
        {
            "models": MODELS,
            "style": _one_of(Style, "blocks if left out, table of several models."),
            "theme": _one_of(Theme, "light if left out."),
            "annotate": _some_of(Annotation, "Figures beside the layers."),
            "heat": _one_of(Heat, "The figure that the strength of the colour shows."),
            "only": _text("A part: a stage, module or layer, or from one to another, e.g. stage3..stage5."),
            "depth": _whole("With style=layers, frame modules within modules down to this depth."),
            "direction": _one_of(Direction, "Left to right (the default), or top to bottom."),
            "title": _text("The title, in place of the model's name."),
            "dpi": _whole(f"Dots per inch of a PNG, {DPI} if left out."),
            **BUILD,
            "format": _one_of(INLINE, "png if left out."),
            "file": _text("Write to this file in the server's folder instead: .svg, .png, .pdf, .dot or .tex."),
        },
        ("models",),
        _diagram,
    ),
    Tool(
        "catalogue",
        "What can be named",
        "List the VGG configurations, reference models, ops, formats, styles, and which packages are installed.",
        {"refs": _flag("Every model of torchvision and timm too."), "format": FORMAT},
        (),
        partial(_answer_result, _catalogue),
    ),
)

INSTRUCTIONS = (
    "vggscope computes the figures of neural networks exactly and from their architecture alone: it allocates no"
    " weights and needs no GPU. Ask it instead of estimating parameters, MACs, memory or receptive fields. A model is a"
    f" word: {kinds()}. MAC = one multiply-accumulate, bias left out; MiB = 2^20 bytes."
)
"""What an assistant is told about the server as a whole."""
