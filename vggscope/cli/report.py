"""`vggscope report MODEL... -o FILE.html`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from vggscope.cli.options import CHECKPOINTS, IMAGES, ModelOptions, Models, completed
from vggscope.cli.output import note
from vggscope.diffing.compare import compare
from vggscope.diffing.result import Diff
from vggscope.errors import OptionError, ShapeError
from vggscope.files import write_file
from vggscope.graph import Network
from vggscope.render.diagram.subject import Subject
from vggscope.render.page import Exhibit, page
from vggscope.render.page.photo import data_uri, open_photo
from vggscope.sources.options import Options
from vggscope.sources.reference import reference_for
from vggscope.sources.resolve import column_named, resolve, resolve_module
from vggscope.sources.weights import with_weights
from vggscope.units import bytes_text

PAPER = "paper"
"""The reference that needs no other package: the column of Table 1."""


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
            autocompletion=completed("paths", *IMAGES),
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Weights of the model: shows the image's feature maps.",
            show_default=False,
            autocompletion=completed("paths", *CHECKPOINTS),
        ),
    ] = None,
) -> None:
    """Write one page to explore models with: everything is in the file, and it works offline.

    Example: vggscope report D -o vgg16.html

    Example: vggscope report A D E -o family.html
    """
    if Path(output).suffix.lower() not in (".html", ".htm"):
        raise OptionError(f"no page ends in {Path(output).suffix or Path(output).name!r}", "-o takes .html")
    if weights is not None and (image is None or len(models) > 1):
        raise OptionError("--weights shows what one model makes of an image", "name one model, and --image photo.jpg")
    options = build.source_options()
    networks = [_running(resolve(word, options)) for word in models]
    photo = open_photo(image) if image is not None else None
    shown = data_uri(photo, networks[0].input_shape) if photo is not None else None
    exhibits = [
        Exhibit(network, Subject(network).title, tuple(_diffs(word, network, networks[0], ref, options)))
        for word, network in zip(models, networks)
    ]
    if weights is not None and photo is not None:
        from vggscope.render.page.activations import activations

        module = with_weights(resolve_module(models[0], options), weights)
        exhibits = [replace(exhibits[0], maps=activations(networks[0], module, photo))]
    data = page(exhibits, shown).encode()
    write_file(output, data)
    note(f"wrote {output} ({bytes_text(len(data))})")


def _running(network: Network) -> Network:
    if network.failure is not None:
        raise ShapeError(f"{network.name} breaks off: {network.failure}", "--input gives another size")
    return network


def _diffs(word: str, network: Network, first: Network, ref: str | None, options: Options) -> list[Diff]:
    """With the reference, if one is named or at hand; else with the first of several models."""
    ref = ref or (PAPER if network is first and _is_meant_as_column(word, network) else None)
    if ref is not None:
        reference = reference_for(ref, word, network, options)
        return [compare(network, reference.network, reference.notes)]
    return [] if network is first else [compare(network, first)]


def _is_meant_as_column(word: str, network: Network) -> bool:
    """Whether somebody else's network has the paper's five stages, so that one asks how it differs from the paper."""
    return column_named(word) is None and any(node.label == "pool5" for node in network.nodes)
