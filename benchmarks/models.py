"""Write docs/models.md: every classification model of torchvision and every VGG of timm, compared with torch's counter.

python benchmarks/models.py
"""

from __future__ import annotations

import sys
from pathlib import Path

from vggscope.analysis.cost import costs, total_macs
from vggscope.analysis.receptive_field.view import receptive_fields
from vggscope.cross_checks import flop_counter
from vggscope.cross_checks.reference_tool import MACS, without_data
from vggscope.graph import Network
from vggscope.ops.base import numel
from vggscope.sources import libraries
from vggscope.sources.resolve import resolve, resolve_module
from vggscope.units import count_text, pair_text, shape_text

PAGE = Path(__file__).parent.parent / "docs" / "models.md"

HEAD = """# Models

Every classification model of torchvision {torchvision} and every VGG of timm {timm}, traced without allocating
weights, at an input of {shape} unless the model has its own size. Written by `python benchmarks/models.py`.

Parameters are compared with `sum(p.numel())`, multiply-accumulates with half the FLOPs of `torch.utils.flop_counter`
(torch {torch}). The receptive field is that of the last convolution, in pixels, height by width where they differ.

Models of other tasks and libraries are read by the same words. `tests/test_libraries.py` compares the parameters, the
multiply-accumulates and the output shape of these with torch's:

- torchvision's models for segmentation, video and optical flow, and the unconverted ones of `quantization`, at the size
  of their published weights, or at one that vggscope chooses if those take any size (`raft_large` at 3x128x128);
- torchvision's detection models, which take a list of images, at 3x128x128 unless their size is fixed. Their
  multiply-accumulates depend on the number of boxes that the weights find. They are run on an image of zeros with
  random weights, so they are figures of that run;
- a small model of each file of `timm.models`.

| model | parameters | MACs | torch's counter | field at the last convolution |
| --- | ---: | ---: | --- | ---: |
"""


OTHER = "## MACs and memory compared with torch"
"""The section of the page that memory_truth.py writes."""


def main() -> None:
    """Write the page."""
    import timm as installed_timm
    import torch
    import torchvision as installed_torchvision

    words = [f"torchvision:{name}" for name in libraries.names("torchvision") if not libraries.task(name)]
    words += [f"timm:{name}" for name in libraries.names("timm", "vgg*")]
    rows = []
    for word in words:
        print(word, file=sys.stderr)
        rows.append(row(word))
    head = HEAD.format(
        torchvision=installed_torchvision.__version__.partition("+")[0],
        timm=installed_timm.__version__,
        torch=torch.__version__.partition("+")[0],
        shape="3x224x224",
    )
    _, heading, rest = PAGE.read_text(encoding="utf-8").partition(OTHER)
    PAGE.write_text(head + "\n".join(rows) + "\n\n" + heading + rest, encoding="utf-8")


def row(word: str) -> str:
    """One model's line of the table."""
    network = resolve(word)
    module = without_data(resolve_module(word))
    params = sum(numel(parameter.shape) for parameter in network.parameters())
    expected = sum(parameter.numel() for parameter in module.parameters())
    macs = total_macs(costs(network))
    figure = flop_counter.REFERENCE_TOOL.reports[MACS](network, module)
    verdict = "equal" if figure.value == macs else count_text(figure.value)
    size = shape_text(network.input_shape)
    name = word if size == "3x224x224" else f"{word} at {size}"
    shown = count_text(params) if params == expected else f"{count_text(params)}, torch {count_text(expected)}"
    return f"| {name} | {shown} | {count_text(macs)} | {verdict} | {field(network)} |"


def field(network: Network) -> str:
    """The receptive field of the last convolution."""
    last = next((node for node in reversed(network.nodes) if node.op.name.startswith("Conv")), None)
    result = receptive_fields(network)[last.name] if last else None
    return pair_text(result.size) if result else "-"


if __name__ == "__main__":
    main()
