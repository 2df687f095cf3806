"""`vggscope rf MODEL...`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from vggscope import api
from vggscope.cli.options import (
    CHECKPOINT_FILES,
    IMAGE_FILES,
    ModelFlags,
    Models,
    OutputOptions,
    PictureFlags,
    flag,
    option,
    words,
)
from vggscope.cli.output import check_format, emit, is_read, note_failures
from vggscope.errors import OptionError
from vggscope.render.formats import PICTURE, name_for


def rf(
    models: Models,
    build: ModelFlags,
    output: OutputOptions,
    picture: PictureFlags,
    at: Annotated[
        str | None, option("LAYERS", "Layers, by label or path: one unit's region, e.g. conv5_3.", "layers")
    ] = None,
    unit: Annotated[str | None, option("ROW,COLUMN", "The unit of --at; the middle one by default.")] = None,
    of: Annotated[
        str | None,
        option("NAME", "The input that the fields lie in; the first with spatial axes by default.", "inputs"),
    ] = None,
    image: Annotated[
        str | None, option("FILE", "A photo under the regions of --at or the heat map, with -o.", *IMAGE_FILES)
    ] = None,
    effective: Annotated[
        bool, flag("--effective", "Measure where the unit's gradient lies (Luo et al. 2016).")
    ] = False,
    samples: Annotated[int, option("N", "Images of noise for --effective.")] = 4,
    seed: Annotated[int, option("N", "Seed of the noise, and of the model's random weights.")] = 0,
    weights: Annotated[
        str | None, option("FILE", "Weights for --effective, from a checkpoint of the model.", *CHECKPOINT_FILES)
    ] = None,
) -> int:
    """Receptive fields: size, stride and padding of each layer, or the pixels that one unit sees.

    -o growth.svg (or .png, .pdf) draws how the field grows over depth, for several models too; with --at the regions on
    the image, with --effective a heat map.

    Example: vggscope rf D --at conv5_3 --unit 6,6

    Example: vggscope rf A D E -o growth.svg
    """
    check_format(output.format, output.output, "rf")
    layers = words(at or "")
    _check(layers, models, {"unit": unit, "image": image, "effective": effective, "weights": weights})
    if len(models) > 1 and (output.format or output.output is None or name_for(output.output, "rf") != PICTURE):
        drawn = "several are drawn: -o growth.svg, .png or .pdf"
        raise OptionError("a table shows the fields of one model", f"{drawn}; one layer of a model is --at conv5_3")
    place = _place(unit)
    given = {
        "of": of,
        "effective": effective,
        "samples": samples,
        "seed": seed,
        "weights": weights,
        **build.keywords(),
    }
    first, *others = (api.receptive_fields(model, at=layers, unit=place, **given) for model in models)
    photo = None
    if image is not None:
        from vggscope.photo import open_photo

        photo = open_photo(image)
    to = output.format, output.output
    emit(first, *to, theme=picture.theme, dpi=picture.dpi, beside=tuple(others), image=photo)
    return note_failures(*(fields.failure for fields in (first, *others)), told=is_read(*to))


def _check(layers: list[str], models: list[str], options: Mapping[str, object]) -> None:
    """Raise OptionError for options that need another one, or exclude each other."""
    for name, value in options.items():
        if value and not layers:
            raise OptionError(f"--{name} needs a layer", f"name one with --at; vggscope rf {models[0]} lists them")
    if options["weights"] and not options["effective"]:
        raise OptionError("--weights is for --effective", "the rule needs no weights")
    if options["effective"] and len(layers) > 1:
        raise OptionError("--effective measures one layer", f"name one: --at {layers[0]}")
    if len(models) > 1 and layers:
        raise OptionError("--at looks into one model", "several models are drawn by their growth: leave out --at")


def _place(text: str | None) -> tuple[int, ...] | None:
    """A unit's row and column. Raises OptionError for anything but numbers."""
    if text is None:
        return None
    parts = text.split(",")
    if not all(part.strip().isdecimal() and len(part) <= 18 for part in parts):
        raise OptionError(f"--unit {text!r} is not a position in a map", "write row,column: --unit 6,6")
    return tuple(int(part) for part in parts)
