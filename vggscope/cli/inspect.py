"""`vggscope inspect FILE...`."""

from __future__ import annotations

from typing import Annotated

from vggscope import api
from vggscope.cli.options import CHECKPOINT_FILES, OutputOptions, PictureFlags, argument, flag
from vggscope.cli.output import check_format, emit
from vggscope.errors import OptionError


def inspect(
    files: Annotated[
        list[str],
        argument(
            "FILE...",
            "A .pth, .safetensors, .npz, .h5, .caffemodel, .mat or .onnx file, an index of shards, or a folder.",
            *CHECKPOINT_FILES,
        ),
    ],
    output: OutputOptions,
    picture: PictureFlags,
    stats: Annotated[
        bool, flag("--stats", "Read the values: range, mean, zeros, NaN, dead channels; which published weights.")
    ] = False,
) -> None:
    """Which network a checkpoint belongs to, by its names and shapes. No code in it runs, and without --stats its data
    is not read.

    --stats takes several files, and -o FILE.svg, .png or .pdf plots them, with the filters of conv1_1 as pictures.

    Example: vggscope inspect vgg16_bn.pth

    Example: vggscope inspect weights.safetensors --format json

    Example: vggscope inspect before.pth after.pth --stats -o values.svg
    """
    check_format(output.format, output.output, "stats" if stats else "inspect")
    if stats:
        result = api.stats(*files)
        emit(result, output.format, output.output, theme=picture.theme, dpi=picture.dpi)
        return
    if len(files) > 1:
        raise OptionError(f"{len(files)} files without --stats", "add --stats, or inspect one file at a time")
    emit(api.inspect(files[0]), output.format, output.output)
