"""`vggscope explain TOPIC` and `vggscope explain MODEL LAYER`."""

from __future__ import annotations

from typing import Annotated

import typer

from vggscope.cli.options import IMAGES, THEMES, ModelOptions, OutputOptions, completed
from vggscope.cli.output import check_format, emit
from vggscope.cli.picture import picture_form, write_picture
from vggscope.errors import ModelError, OptionError
from vggscope.lessons import TOPICS, contents, unknown_topic
from vggscope.lessons import explain as explain_topic
from vggscope.lessons.lesson import Lesson
from vggscope.sources.options import Options
from vggscope.sources.resolve import resolve


def explain(
    build: ModelOptions,
    output: OutputOptions,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="TOPIC | MODEL LAYER",
            help=f"{', '.join(TOPICS)}; or a model and one of its layers, as D conv3_2.",
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
        str,
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
    check_format(output.format)
    form = picture_form(output.output, output.format, theme)
    given = words or []
    options = {"size": size, "kernel": kernel, "stride": stride, "padding": padding, "channels": channels}
    found = _lesson(given, {**options, "image": image, "shape": shape}, build.source_options())
    if torch:
        from vggscope.lessons.agreement import with_torch

        found = with_torch(found)
    if form is not None and output.output is not None:
        from vggscope.render.explain.picture import picture

        write_picture(output.output, picture(found, theme).render(form))
    else:
        emit(found, output.format, output.output)
    return 0 if found.torch is None or found.torch.agrees else 1


def _lesson(words: list[str], options: dict[str, int | str | None], build: Options) -> Lesson:
    """The lesson that the words ask for: a topic, a topic about a model, or a model's layer."""
    if not words:
        return contents()
    first, *rest = words
    if first in TOPICS:
        if len(rest) > 1:
            raise OptionError(f"topic {first} takes one model, {len(rest)} were given", f"vggscope explain {first}")
        return explain_topic(first, **options, network=resolve(rest[0], build) if rest else None)
    if not rest:
        raise _no_layer(first)
    if len(rest) > 1:
        raise OptionError(f"one layer at a time, {len(rest)} were given", f"vggscope explain {first} {rest[0]}")
    refused = next((name for name, value in options.items() if value is not None), None)
    if refused is not None:
        raise OptionError(f"--{refused} is for topics, not for a layer", f"vggscope explain {first} {rest[0]}")
    from vggscope.lessons.layer import explain_layer

    return explain_layer(resolve(first, build), rest[0])


def _no_layer(word: str) -> OptionError:
    """What to say of one word that is no topic: a model without a layer, or nothing that is known."""
    try:
        network = resolve(word)
    except ModelError:
        return unknown_topic(word)
    node = next((node for node in network.nodes if node.parameters), network.nodes[0])
    return OptionError(f"which layer of {word}?", f"for example vggscope explain {word} {node.label or node.name}")
