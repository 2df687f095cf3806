"""Compare the memory that vggscope predicts for a GPU with published measurements: the tables of docs/memory.md.

    python benchmarks/gpu_rows.py [--write]

gpu_rows.csv has the measurements, each with its source. Nothing runs on a GPU. Three things are compared: what
nvidia-smi shows (GPUMemNet's runs on an A100), torch.cuda.max_memory_allocated (MONeT) and memory_reserved
(MODel_opt). The workspaces of cuDNN and the context are cross-validated: each model's rows are predicted with a context
fitted to the rows of the other models.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from statistics import mean, median
from typing import NamedTuple

import vggscope
from vggscope.analysis.memory.allocation_log import BatchLinear
from vggscope.analysis.memory.allocator import replay
from vggscope.analysis.memory.fit import GpuBudget, fit
from vggscope.analysis.memory.simulate import simulate_step
from vggscope.analysis.memory.step_config import StepConfig
from vggscope.analysis.memory.workspace import workspaces
from vggscope.graph import Network
from vggscope.ops.base import numel

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "memory.md"
BEGIN, END = "<!-- gpu_rows.py begins -->", "<!-- gpu_rows.py ends -->"
MIB = 2**20
A100 = GpuBudget("A100-40GB")


class Row(NamedTuple):
    """A published measurement, with the network that was measured and its step."""

    source: str
    model: str
    batch: int
    what: str
    measured: int
    others: dict[str, int]
    network: Network
    config: StepConfig


@cache
def network(word: str, size: str) -> Network:
    """The network of a row, without a batch."""
    return vggscope.network(word, input_size=(2, *map(int, size.split("x"))))


@cache
def rows(source: str) -> tuple[Row, ...]:
    """The rows of a source that can be used, in the order of the file."""
    return tuple(_rows(source))


def _rows(source: str) -> Iterator[Row]:
    with (HERE / "gpu_rows.csv").open() as file:
        for row in csv.DictReader(file):
            if row["source"].startswith(source) and row["use"] == "1":
                batch = int(row["batch"])
                yield Row(
                    source=row["source"],
                    model=row["model"],
                    batch=batch,
                    what=row["measured_what"],
                    measured=int(row["measured_bytes"]),
                    others={tool: int(float(row[tool])) for tool in ("faketensor", "horus") if row[tool]},
                    network=network(row["vggscope_model"], row["input"]).for_batch(batch),
                    config=StepConfig(optimizer=row["optimizer"], foreach=True),
                )


@cache
def nvidia_smi() -> tuple[int, ...]:
    """What nvidia-smi would show of each of GPUMemNet's rows on an A100 with 40 GB, by default."""
    return tuple(fit(row.network, row.config, row.batch, A100).nvidia_smi_bytes for row in rows("GPUMemNet"))


def candidates(row: Row) -> dict[str, dict[str, BatchLinear]]:
    """The workspaces by each rule that was considered."""
    rule = workspaces(row.network, row.config, "heuristic", converts_layout=True)
    every: dict[str, tuple[int, BatchLinear]] = {}
    for node in row.network.nodes:
        if node.op.family == "convolution" and getattr(node.op, "groups", 1) == 1:
            copies = numel(row.network.input_shapes(node)[0]) + numel(row.network.output_shape(node))
            every[node.name] = (numel(getattr(node.op, "kernel_size", ())), BatchLinear(0, 4 * copies))
    windows = {name: size for name, (window, size) in every.items() if window > 1}
    return {
        "none": {},
        "input and output, windows above 1x1, maps above 32x32 (taken)": rule,
        "the same on every map": windows,
        "the same for 1x1 too": {name: size for name, (_, size) in every.items()},
        "half of it": {name: BatchLinear(0, size.per_sample // 2) for name, size in rule.items()},
        "one and a half times it": {name: BatchLinear(0, size.per_sample * 3 // 2) for name, size in rule.items()},
    }


@cache
def cross_validated() -> Mapping[str, list[float]]:
    """The errors of each rule, in per cent, of GPUMemNet's rows, predicted from the other models' rows."""
    runs = rows("GPUMemNet")
    reserved = [reserved_bytes(row) for row in runs]
    errors: dict[str, list[float]] = {name: [] for name in reserved[0]}
    for name, of_rule in errors.items():
        for row, by_rule in zip(runs, reserved):
            pairs = zip(runs, reserved)
            context = median(other.measured - own[name] for other, own in pairs if other.model != row.model)
            of_rule.append(error(by_rule[name] + context, row.measured))
    return errors


def reserved_bytes(row: Row) -> dict[str, int]:
    """What a row reserves on an unlimited card, with the workspaces of each rule."""
    step = simulate_step(row.network, row.config)
    return {
        name: replay(step.with_workspaces(sizes), row.batch).reserved_bytes for name, sizes in candidates(row).items()
    }


def error(predicted: float, measured: int) -> float:
    """The error in per cent."""
    return 100 * (predicted - measured) / measured


def summary(errors: Sequence[float]) -> str:
    """The median size of the errors and the worst one, as cells of a table."""
    return f"{median(map(abs, errors)):.1f}% | {max(errors, key=abs):+.1f}%"


def page() -> Iterator[str]:
    """The lines of the section of docs/memory.md."""
    runs, ours = rows("GPUMemNet"), nvidia_smi()
    yield "| model | batch | measured, MiB | vggscope | error | FakeTensor | Horus |"
    yield "|---|---:|---:|---:|---:|---:|---:|"
    for row, predicted in zip(runs, ours):
        others = [
            f"{error(row.others[t], row.measured):+.0f}%" if t in row.others else "" for t in ("faketensor", "horus")
        ]
        figures = f"{row.measured // MIB:,} | {predicted // MIB:,} | {error(predicted, row.measured):+.1f}%"
        yield f"| {row.model} | {row.batch} | {figures} | {' | '.join(others)} |"
    yield ""
    yield "| tool | rows | median error | worst |"
    yield "|---|---:|---:|---:|"
    yield f"| vggscope | {len(runs)} | {summary([error(p, row.measured) for p, row in zip(ours, runs)])} |"
    for tool, title in (("faketensor", "FakeTensor (tensors alone)"), ("horus", "Horus")):
        errors = [error(row.others[tool], row.measured) for row in runs if tool in row.others]
        yield f"| {title} | {len(errors)} | {summary(errors)} |"
    yield ""
    yield "| rule for workspaces | median error | worst | mean |"
    yield "|---|---:|---:|---:|"
    for name, errors in cross_validated().items():
        yield f"| {name} | {summary(errors)} | {mean(map(abs, errors)):.1f}% |"
    yield ""
    yield "| source | model | batch | figure | measured, MiB | vggscope | error |"
    yield "|---|---|---:|---|---:|---:|---:|"
    for row in (*rows("MONeT"), *rows("MODel_opt")):
        found = replay(simulate_step(row.network, row.config), row.batch)
        is_reserved = "reserved" in row.what.partition("after")[0]
        predicted = found.reserved_bytes if is_reserved else found.allocated_bytes
        figure = "reserved" if is_reserved else "allocated"
        figures = f"{row.measured // MIB:,} | {predicted // MIB:,} | {error(predicted, row.measured):+.1f}%"
        yield f"| {row.source} | {row.model} | {row.batch} | {figure} | {figures} |"


def main() -> None:
    """Print the section, or write it into the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the tables into docs/memory.md")
    section = "\n".join(page())
    if not parser.parse_args().write:
        print(section)
        return
    before, _, rest = PAGE.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    PAGE.write_text(f"{before}{BEGIN}\n\n{section}\n\n{END}{after}")


if __name__ == "__main__":
    main()
