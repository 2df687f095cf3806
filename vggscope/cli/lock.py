"""`vggscope lock MODEL`."""

from __future__ import annotations

from vggscope import api
from vggscope.cli.options import Model, ModelFlags, OutputOptions
from vggscope.cli.output import check_format, emit


def lock(model: Model, build: ModelFlags, output: OutputOptions) -> None:
    """The architecture as a file to commit: a line for each layer, with what defines it. The file is a MODEL too, and
    `vggscope diff MODEL --ref arch.json` exits with 1 where the model has drifted from it.

    Example: vggscope lock D -o arch.json

    Example: vggscope lock my_vgg.py:VGG --input 3x32x32 -o arch.json
    """
    check_format(output.format, output.output, "lock")
    emit(api.lock(model, **build.keywords()), output.format, output.output)
