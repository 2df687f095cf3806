"""`vggscope verify MODEL`."""

from __future__ import annotations

from vggscope import api
from vggscope.cli.options import Model, ModelFlags, OutputOptions
from vggscope.cli.output import check_format, emit


def verify(model: Model, build: ModelFlags, output: OutputOptions) -> int:
    """Our figures beside those of other tools: torch's FLOP counter, memory tracker and autograd, torchinfo, fvcore,
    torchvision, the paper.

    Exits with 0 when all agree or the difference is explained, with 1 on a disagreement.

    Example: vggscope verify D

    Example: vggscope verify torchvision:resnet18 --format json
    """
    check_format(output.format)
    result = api.verify(model, **build.keywords())
    emit(result, output.format, output.output)
    return 0 if result.agrees else 1
