"""`vggscope list`."""

from __future__ import annotations

from vggscope.cli.options import OutputOptions
from vggscope.cli.output import check_format, emit
from vggscope.render.diagram import STYLES
from vggscope.render.formats import FORMATS
from vggscope.sources.catalogue import Catalogue, Choice, all_ops, columns, packages, references


def list_(output: OutputOptions) -> None:
    """What there is to choose from: columns, references, ops, formats, styles, and what is installed.

    Example: vggscope list --format json
    """
    check_format(output.format)
    catalogue = Catalogue(
        schema="vggscope/list@1",
        columns=columns(),
        references=references(),
        ops=all_ops(),
        formats=tuple(Choice(form.name, form.suffix) for form in FORMATS),
        styles=tuple(Choice(name, about) for name, about in STYLES.items()),
        packages=packages(),
    )
    emit(catalogue, output.format, output.output)
