"""`vggscope inspect FILE`."""

from __future__ import annotations

from typing import Annotated

import typer

from vggscope.cli.options import OutputOptions, completed
from vggscope.cli.output import check_format, emit
from vggscope.vgg.options import CHECKPOINTS


def inspect(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="A .pth, .pt or .safetensors file.",
            show_default=False,
            autocompletion=completed("paths", *CHECKPOINTS),
        ),
    ],
    output: OutputOptions,
) -> None:
    """Which network a checkpoint belongs to, read from its names and shapes: its data is not read, no code in it runs.

    Example: vggscope inspect vgg16_bn.pth

    Example: vggscope inspect weights.safetensors --format json
    """
    check_format(output.format)
    from vggscope.checkpoint import inspect as examine

    emit(examine(file), output.format, output.output)
