"""`vggscope explain TOPIC` and `vggscope explain MODEL LAYER`."""

from __future__ import annotations

from typing import Annotated, get_args

from vggscope import api
from vggscope.choices import Theme, Topic
from vggscope.cli.options import IMAGE_FILES, THEME_WORDS, THEMES, ModelFlags, OutputOptions, argument, flag, option
from vggscope.cli.output import check_format, check_theme, emit
from vggscope.errors import OptionError
from vggscope.record import record


@record
class _TopicOptions:
    """Options."""

    size: Annotated[int | None, option("N", "conv, pool: the picture's side.")] = None
    kernel: Annotated[int | None, option("N", "conv, pool, depth: the window's side.")] = None
    stride: Annotated[int | None, option("N", "conv, pool: the window's step.")] = None
    padding: Annotated[int | None, option("N", "conv, pool: pixels around the picture.")] = None
    channels: Annotated[int | None, option("N", "depth: the convolutions' channels.")] = None
    image: Annotated[str | None, option("FILE", "input: an image, or its array (.npy).", *IMAGE_FILES, ".npy")] = None
    shape: Annotated[str | None, option("HxWxC", "input: an array's shape.")] = None
    torch: Annotated[bool, flag("--torch", "Run the code that is shown, and compare.")] = False


def explain(
    build: ModelFlags,
    output: OutputOptions,
    options: _TopicOptions,
    words: Annotated[
        list[str] | None,
        argument(
            "TOPIC | MODEL LAYER",
            f"{', '.join(get_args(Topic))}; or a model and one of its layers, as D conv3_2.",
            "topics",
        ),
    ] = None,
    theme: Annotated[
        Theme,
        option("THEME", f"A picture's theme: {THEME_WORDS}", THEMES),
    ] = "light",
    animate: Annotated[bool, flag("--animate", "conv, pool: an SVG that slides the window, as a .gif does.")] = False,
) -> int:
    """A layer or an idea worked with its numbers; -o FILE.svg, .png or .pdf draws it, .gif slides a window.

    Example: vggscope explain D conv3_2

    Example: vggscope explain conv --size 6 --kernel 3 --stride 2 --padding 1
    """
    check_format(output.format, output.output, "explain")
    check_theme(theme)
    given = words or []
    if len(given) > 2:
        what = f"topic {given[0]} takes one model" if given[0] in get_args(Topic) else "one layer at a time"
        raise OptionError(f"{what}, {len(given) - 1} were given", f"vggscope explain {' '.join(given[:2])}")
    topic, layer = (*given, None, None)[:2]
    tutorial = api.explain(topic, layer, **vars(options), **build.keywords())
    emit(tutorial, output.format, output.output, theme=theme, animate=animate)
    return 0 if tutorial.torch is None or tutorial.torch.agrees else 1
