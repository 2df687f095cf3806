"""`vggscope list`."""

from __future__ import annotations

from typing import Annotated

import typer

from vggscope.cli.options import OutputOptions
from vggscope.cli.output import check_format, emit
from vggscope.drawing import FORMATS as PICTURES
from vggscope.drawing import STYLES
from vggscope.render.formats import FORMATS
from vggscope.sources.catalogue import Catalogue, Choice, all_ops, all_references, columns, packages, references


def list_(
    output: OutputOptions,
    refs: Annotated[
        bool, typer.Option("--refs", help="All references with their parameters; this imports the libraries.")
    ] = False,
) -> None:
    """What there is to choose from: columns, references, ops, formats, styles, and what is installed.

    Example: vggscope list --refs

    Example: vggscope list --format json
    """
    check_format(output.format)
    catalogue = Catalogue(
        schema="vggscope/list@1",
        columns=columns(),
        references=all_references() if refs else references(),
        ops=all_ops(),
        formats=(
            *(Choice(form.name, form.suffix) for form in FORMATS),
            *(Choice(form, f".{form}") for form in PICTURES),
        ),
        styles=tuple(Choice(name, about) for name, about in STYLES.items()),
        packages=packages(),
    )
    emit(catalogue, output.format, output.output)
