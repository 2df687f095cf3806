"""The options that several commands share.

A command takes one of these dataclasses as a parameter. `spread` gives typer one option for each field, and passes the
filled dataclass to the command. So every command that takes an option takes it with the same help and the same
completion. The dataclass's docstring is the heading in `--help`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import wraps
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin, get_type_hints

import typer

from vggscope.checkpoint import SUFFIXES
from vggscope.choices import Dtype, Head, Theme
from vggscope.inputs import parse_batch_axis, parse_input
from vggscope.record import record
from vggscope.render.formats import FORMATS
from vggscope.sources.resolve import kinds
from vggscope.units import check_batch

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

CARDS = "vggscope.analysis.cards:CARDS"
MODES = "vggscope.analysis.memory.step_config:MODES"
OPTIMIZERS = "vggscope.analysis.memory.optimizers:OPTIMIZERS"
DTYPES = "vggscope.analysis.memory.step_config:DTYPES"
RECIPES = "vggscope.analysis.memory.optimizers:RECIPES"
THEMES = "vggscope.drawing.themes:THEMES"
THEME_WORDS = " or ".join(", ".join(get_args(Theme)).rsplit(", ", 1)) + "."
"""Tables of values, as `option` takes them."""

IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
"""Suffixes of image files."""

CHECKPOINT_FILES = ("paths", *SUFFIXES)
IMAGE_FILES = ("paths", *IMAGES)
"""Completions, as `option` takes them."""

OUTPUT = ("--output", "-o")


def option(metavar: str, help: str, *completion: str, names: tuple[str, ...] = ()) -> Any:
    """An option with a value. `names` are its names if they do not follow from the parameter's.

    `completion` says which values a shell offers: a table of them as `module:NAME`, or a function of
    completion/words.py and its arguments. They are imported when a shell asks.
    """
    return typer.Option(*names, metavar=metavar, help=help, autocompletion=_completed(completion))


def argument(metavar: str, help: str, *completion: str) -> Any:
    """An argument, completed as `option` says."""
    return typer.Argument(metavar=metavar, help=help, show_default=False, autocompletion=_completed(completion))


def flag(name: str, help: str) -> Any:
    """An option without a value, which has no negative form such as --no-strict."""
    return typer.Option(name, help=help)


def _completed(completion: tuple[str, ...]) -> Callable[[typer.Context, str], list[str]] | None:
    def complete(ctx: typer.Context, incomplete: str) -> list[str]:
        kind, *arguments = ("one_of", *completion) if ":" in completion[0] else completion
        words: list[str] = getattr(import_module("vggscope.cli.completion.words"), kind)(ctx, incomplete, *arguments)
        return words

    return complete if completion else None


Model = Annotated[str, argument("MODEL", f"A model: {kinds()}.", "models")]

Models = Annotated[list[str], argument("MODEL...", "Models, each a word as `summary` takes it.", "models")]


@record
class ModelFlags:
    """How the model is built."""

    input: Annotated[
        list[str] | None,
        option("SIZE", "Input size without the batch, e.g. 3x224x224; once for each input, as [NAME=]SIZE[:DTYPE]."),
    ] = None
    batch_axis: Annotated[str | None, option("N", "Where the batch stands in the inputs: 0, 1, ..., or none.")] = None
    head: Annotated[
        Head | None,
        option(
            "HEAD",
            "adaptive (torchvision's), flatten or dense (the paper's, section 3.2).",
            "vggscope.vgg.options:HEADS",
        ),
    ] = None
    batch_norm: Annotated[bool, flag("--batch-norm", "Batch norm after each convolution.")] = False
    num_classes: Annotated[int | None, option("N", "Width of the last FC layer.")] = None
    soft_max: Annotated[bool, flag("--soft-max", "End with the soft-max instead of the logits.")] = False
    cache: Annotated[
        bool, typer.Option("--cache/--no-cache", help="Remember a library's model, or yours, for the next command.")
    ] = True

    def keywords(self) -> dict[str, Any]:
        """The arguments of a function of `api`. Raises OptionError for an input that is not a size."""
        options = dict(vars(self))
        sizes, batch_axis = options.pop("input"), options.pop("batch_axis")
        if batch_axis is not None:
            options["batch_axis"] = parse_batch_axis(batch_axis)
        return {"input_size": tuple(map(parse_input, sizes)) if sizes else None, **options}


@record
class BatchOptions:
    """Batch and numbers."""

    batch: Annotated[int, option("N", "Inputs in a batch.")] = 1
    dtype: Annotated[
        Dtype | None,
        option("DTYPE", "float32, float64, float16 or bfloat16; else the model's own.", "vggscope.units:DTYPE_BYTES"),
    ] = None

    def check(self) -> None:
        """Raise OptionError for a batch out of range, or an unknown dtype."""
        check_batch(self.batch, self.dtype)


@record
class OutputOptions:
    """Where the result goes."""

    format: Annotated[
        str | None,
        option(
            "FORMAT",
            f"One of {', '.join(form.name for form in FORMATS)}.",
            "vggscope.render.formats:FORMATS",
            names=("--format", "-f"),
        ),
    ] = None
    output: Annotated[
        str | None, option("FILE", "Write to a file; its suffix picks the format.", "results", names=OUTPUT)
    ] = None


@record
class PictureFlags:
    """How a picture looks."""

    theme: Annotated[Theme, option("THEME", f"Of a picture: {THEME_WORDS}", THEMES)] = "light"
    dpi: Annotated[int, option("N", "Dots per inch of a PNG.")] = 144


def words(text: str) -> list[Any]:
    """The words of a list with commas; the function that takes them checks them."""
    return [word.strip() for word in text.split(",") if word.strip()]


def spread(command: Callable[..., int | None]) -> Callable[..., int | None]:
    """The command with each parameter of a dataclass type replaced by that dataclass's fields.

    An option of a `Literal` type takes any text: the function that it is for names the nearest word to a wrong one.
    """
    hints = {name: _as_text(hint) for name, hint in get_type_hints(command, include_extras=True).items()}
    groups = {name: hint for name, hint in hints.items() if isinstance(hint, type) and is_dataclass(hint)}

    @wraps(command)
    def spread_command(**arguments: Any) -> int | None:
        for name, group in groups.items():
            arguments[name] = group(**{field.name: arguments.pop(field.name) for field in fields(group)})
        return command(**arguments)

    parameters = []
    for parameter in inspect.signature(command).parameters.values():
        if parameter.name in groups:
            parameters += _fields_as_parameters(groups[parameter.name])
        else:
            parameters.append(parameter.replace(annotation=hints[parameter.name]))
    by_kind = sorted(parameters, key=lambda parameter: parameter.default is not inspect.Parameter.empty)
    spread_command.__signature__ = inspect.Signature(by_kind)  # type: ignore[attr-defined]
    spread_command.__annotations__ = {parameter.name: parameter.annotation for parameter in by_kind}
    return spread_command


def _fields_as_parameters(group: type[DataclassInstance]) -> list[inspect.Parameter]:
    hints = {name: _as_text(hint) for name, hint in get_type_hints(group, include_extras=True).items()}
    for hint in hints.values():
        hint.__metadata__[0].rich_help_panel = (group.__doc__ or "").rstrip(".") or None
    return [
        inspect.Parameter(
            field.name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=field.default, annotation=hints[field.name]
        )
        for field in fields(group)
    ]


def _as_text(hint: Any) -> Any:
    """The type of an option, with `str` for a `Literal`."""
    if get_origin(hint) is not Annotated:
        return hint
    taken = hint.__origin__
    if get_origin(taken) is Literal:
        return Annotated[(str, *hint.__metadata__)]
    if any(get_origin(part) is Literal for part in get_args(taken)):
        return Annotated[(str | None, *hint.__metadata__)]
    return hint
