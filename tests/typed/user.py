"""A user's project. `make types` runs mypy --strict and, where node is installed, pyright on it.

A comment that ignores an error fails where there is none: so the mistakes in `wrong` are found too.
"""

from __future__ import annotations

from torch import nn

import vggscope


class Gate(nn.Module):
    """A module with figures of its own."""


def gate_macs(call: vggscope.OpCall) -> int:
    return 2 * call.output[1]


def right() -> None:
    report: vggscope.Summary = vggscope.summary("D", input_size=(1, 3, 224, 224))
    macs: int | None = report["conv3_2"].macs
    names: list[str] = [layer.name for layer in report]
    first: str = report[0].op
    sums: vggscope.CostSums = report.by_operator()
    params: int | None = sums["Conv2d"].params
    peak: int = vggscope.memory("D", batch=64, optimizer="adam").peak_bytes
    kinds: list[str] = [difference.kind for difference in vggscope.diff("C", ref="D")]
    points: list[int] = [point.peak_bytes for point in vggscope.grid("A", batches=[1, 2])]
    fields: dict[str, object] = report.to_dict()
    frame = report.to_df(columns=["label", "params"])
    handle: vggscope.Registration = vggscope.register_op(Gate, macs=gate_macs, saved=["input", (1, 8)])
    handle.remove()
    with vggscope.register_op(Gate, macs=lambda call: call.inputs[0][1], shape=lambda call: call.inputs[0]):
        pass
    vggscope.diagram("D", style="blocks", head="dense").save("d.svg")
    memory: vggscope.MemoryReport = vggscope.memory("D", (8, 3, 224, 224), optimizer="adam", batch_norm=True)
    try:
        verdict: str = vggscope.diff("D", ignore=["names"]).verdict
    except vggscope.ShapeError as error:
        verdict = error.remedy
    print(memory, verdict, macs, names, first, params, peak, kinds, points, fields, frame)


def wrong() -> None:
    report = vggscope.summary("D", depth="stages")  # type: ignore[arg-type]
    text: str = report["conv3_2"].params  # type: ignore[assignment]
    vggscope.register_op(Gate, macs="many")  # type: ignore[arg-type]
    vggscope.summary("D", inputsize=(3, 8, 8))  # type: ignore[call-arg]
    vggscope.diagram("D", style="blok")  # type: ignore[arg-type]
    vggscope.memory("D", optimiser="adam")  # type: ignore[call-arg]
    vggscope.memory("D", mode="trian")  # type: ignore[arg-type]
    vggscope.summary("D", num_classes="ten")  # type: ignore[arg-type]
    vggscope.diff("D", ignore=["name"])  # type: ignore[list-item]
    vggscope.compare("D", head="round")  # type: ignore[arg-type]
    vggscope.memory("D").save("x.svg", theme="ligth")  # type: ignore[arg-type]
    vggscope.memory("D").picture(dpi="72")  # type: ignore[call-arg]
    vggscope.compare("D", sort="mcas")  # type: ignore[arg-type]
    vggscope.fleet("D", columns=["parms"])  # type: ignore[list-item]
    print(text)
