"""`vggscope report MODEL... -o FILE.html`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vggscope import api
from vggscope.cli.options import CHECKPOINT_FILES, IMAGE_FILES, ModelOptions, Models, completed
from vggscope.cli.output import note_written
from vggscope.errors import OptionError
from vggscope.files import is_special


def report(
    models: Models,
    build: ModelOptions,
    output: Annotated[
        str,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="The page: FILE.html.",
            autocompletion=completed("written", ".html"),
        ),
    ],
    ref: Annotated[
        str | None,
        typer.Option(
            metavar="REF",
            help="Compare each model with torchvision, timm, paper or any MODEL. Left out, several models are compared"
            " with the first, and somebody else's VGG with the paper's.",
            show_default=False,
            autocompletion=completed("references"),
        ),
    ] = None,
    image: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Your own image for the receptive fields.",
            show_default=False,
            autocompletion=IMAGE_FILES,
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Weights of the model, to show the image's feature maps.",
            show_default=False,
            autocompletion=CHECKPOINT_FILES,
        ),
    ] = None,
) -> None:
    """Write one page to explore models. The file holds all its data and works offline.

    Example: vggscope report D -o vgg16.html

    Example: vggscope report A D E -o family.html
    """
    if Path(output).suffix.lower() not in (".html", ".htm") and not is_special(output):
        raise OptionError(f"no page ends in {Path(output).suffix or Path(output).name!r}", "-o takes .html")
    api.report(*models, ref=ref, image=image, weights=weights, **build.keywords()).save(output)
    note_written(output)
