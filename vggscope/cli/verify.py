"""`vggscope verify MODEL`."""

from __future__ import annotations

from vggscope.cli.options import Model, ModelOptions, OutputOptions
from vggscope.cli.output import check_format, emit, progress
from vggscope.sources.resolve import resolve, resolve_module


def verify(model: Model, build: ModelOptions, output: OutputOptions) -> int:
    """Our numbers beside other people's: torch's FLOP counter, torchinfo, fvcore, torchvision, the paper.

    Exits with 0 when all agree or the difference is explained, with 1 on a disagreement.

    Example: vggscope verify D
    """
    check_format(output.format)
    options = build.source_options()
    network = resolve(model, options)
    from vggscope.oracles.verification import WITNESSES
    from vggscope.oracles.verification import verify as hear

    with progress("asking", len(WITNESSES)) as advance:
        result = hear(network, resolve_module(model, options), advance)
    emit(result, output.format, output.output)
    return 0 if result.agrees else 1
