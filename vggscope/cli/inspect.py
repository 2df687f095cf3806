"""`vggscope inspect FILE`."""

from __future__ import annotations

from typing import Annotated

from vggscope import api
from vggscope.cli.options import CHECKPOINT_FILES, OutputOptions, argument
from vggscope.cli.output import check_format, emit


def inspect(
    file: Annotated[str, argument("FILE", "A .pth, .pt or .safetensors file.", *CHECKPOINT_FILES)],
    output: OutputOptions,
) -> None:
    """Which network a checkpoint belongs to, by its names and shapes. Its data is not read, and no code in it runs.

    Example: vggscope inspect vgg16_bn.pth

    Example: vggscope inspect weights.safetensors --format json
    """
    check_format(output.format)
    emit(api.inspect(file), output.format, output.output)
