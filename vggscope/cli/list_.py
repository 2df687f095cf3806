"""`vggscope list`."""

from __future__ import annotations

from typing import Annotated

from vggscope import api
from vggscope.cli.options import OutputOptions, flag
from vggscope.cli.output import check_format, emit


def list_(
    output: OutputOptions,
    refs: Annotated[bool, flag("--refs", "All references with their parameters; this imports the libraries.")] = False,
) -> None:
    """What there is to choose from: columns, references, ops, formats, styles, and what is installed.

    Example: vggscope list --refs

    Example: vggscope list --format json
    """
    check_format(output.format)
    emit(api.catalogue(refs=refs), output.format, output.output)
