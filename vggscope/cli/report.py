"""`vggscope report MODEL... -o FILE.html`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from vggscope import api
from vggscope.cli.options import CHECKPOINT_FILES, IMAGE_FILES, OUTPUT, ModelFlags, Models, option
from vggscope.cli.output import note_written
from vggscope.errors import OptionError
from vggscope.files import is_special


def report(
    models: Models,
    build: ModelFlags,
    output: Annotated[str, option("FILE", "The page: FILE.html.", "written", ".html", names=OUTPUT)],
    ref: Annotated[
        str | None,
        option(
            "REF",
            "Compare each model with torchvision, timm, paper or any MODEL. Left out, several models are compared"
            " with the first, and somebody else's VGG with the paper's.",
            "references",
        ),
    ] = None,
    image: Annotated[
        list[str] | None,
        option("FILE", "Your own image for the receptive fields; may be given several times.", *IMAGE_FILES),
    ] = None,
    weights: Annotated[
        str | None, option("FILE", "Weights of the model, to show the images' feature maps.", *CHECKPOINT_FILES)
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
