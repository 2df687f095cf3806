"""`vggscope explain TOPIC` and `vggscope explain MODEL LAYER`."""

from __future__ import annotations

from typing import Annotated, get_args

import typer

from vggscope import api
from vggscope.choices import Theme, Topic
from vggscope.cli.options import IMAGES, THEMES, ModelOptions, OutputOptions, completed
from vggscope.cli.output import check_format, emit
from vggscope.drawing.theme import theme_named
from vggscope.errors import OptionError


def explain(
    build: ModelOptions,
    output: OutputOptions,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="TOPIC | MODEL LAYER",
            help=f"{', '.join(get_args(Topic))}; or a model and one of its layers, as D conv3_2.",
            autocompletion=completed("topics"),
        ),
    ] = None,
    size: Annotated[int | None, typer.Option(metavar="N", help="conv, pool: the picture's side.")] = None,
    kernel: Annotated[int | None, typer.Option(metavar="N", help="conv, pool, depth: the window's side.")] = None,
    stride: Annotated[int | None, typer.Option(metavar="N", help="conv, pool: the window's step.")] = None,
    padding: Annotated[int | None, typer.Option(metavar="N", help="conv, pool: pixels around the picture.")] = None,
    channels: Annotated[int | None, typer.Option(metavar="N", help="depth: the convolutions' channels.")] = None,
    image: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="input: an image, or its array (.npy).",
            autocompletion=completed("paths", *IMAGES, ".npy"),
        ),
    ] = None,
    shape: Annotated[str | None, typer.Option(metavar="HxWxC", help="input: an array's shape.")] = None,
    torch: Annotated[bool, typer.Option("--torch", help="Run the code that is shown, and compare.")] = False,
    theme: Annotated[
        Theme,
        typer.Option(
            metavar="THEME",
            help="A picture's theme: light, dark or paper.",
            autocompletion=completed("one_of", THEMES),
        ),
    ] = "light",
) -> int:
    """A layer or an idea worked with its numbers; -o FILE.svg, .png or .pdf draws conv, pool, relu, dense and depth.

    Example: vggscope explain D conv3_2

    Example: vggscope explain conv --size 6 --kernel 3 --stride 2 --padding 1
    """
    check_format(output.format, output.output, "explain")
    theme_named(theme)
    given = words or []
    if len(given) > 2:
        what = f"topic {given[0]} takes one model" if given[0] in get_args(Topic) else "one layer at a time"
        raise OptionError(f"{what}, {len(given) - 1} were given", f"vggscope explain {' '.join(given[:2])}")
    topic, layer = (*given, None, None)[:2]
    tutorial = api.explain(
        topic,
        layer,
        size=size,
        kernel=kernel,
        stride=stride,
        padding=padding,
        channels=channels,
        image=image,
        shape=shape,
        torch=torch,
        **build.keywords(),
    )
    emit(tutorial, output.format, output.output, theme=theme)
    return 0 if tutorial.torch is None or tutorial.torch.agrees else 1
