"""docs/benchmarks.md, from what was measured."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version

from programs import LONGEST_REMEMBERED, PLAIN, WANTED, WARM, Wanted, bound, work
from startup import Run

PACKAGES = ("torch", "torchvision", "torchinfo", "fvcore", "torchview", "torchscan", "ptflops", "torchlens", "typer")

MOST_READ = 10**6
"""Bytes that inspect may read of a large file."""

Warm = dict[str, dict[str, dict[str, float]]]
"""By tool and model: seconds of `cpu` and of `wall`."""

REASONS: Mapping[str, str] = {
    "inspect against torch.load": "an inspection is the start of the program and little else, a load is the import of"
    " torch and a copy of the file; the ratio moves with both, around the bound.",
}
"""Why a bound is missed, by what it is about."""

PAGE = """# Benchmarks

Written by `make bench`: medians of {runs} runs of each program in turn, three times as many of those that load no
torch, after one that fills the caches. Ratios are the result. The times depend on the machine, which others may use
meanwhile, so CPU time decides whether a bound is met. torch runs on one thread.

{machine}. {packages}.

## What must hold

| work | wanted | CPU time | wall time | |
|---|---|---:|---:|---|
{wanted}
{reasons}
## Whole programs

![CPU seconds of every program, ours and the others, on a logarithmic scale](images/benchmarks.svg)

| program | CPU s | wall s | peak memory, MiB |
|---|---:|---:|---:|
{programs}

The others describe vgg16 where nothing else is said. They initialise its weights and, but for torchview, run it.

## In a warm process

Milliseconds of CPU time to analyse a model that is already there, everything loaded: our Network, or the others'
module, on the meta device where the tool takes it so.

| tool | vgg16 | resnet50 | swin_v2_b |
|---|---:|---:|---:|
{warm}

The bound above is about the same content: shapes, parameters and MACs. `summary` shows more, the peak of a training
step and of inference and the receptive fields, and most of its time goes there. A module runs twice on the meta
device, with one sample and with two, since shapes and costs shall hold for every batch; torch's counter runs it once.

## Growth

![CPU seconds of a summary over layers, input size, batch and models](images/growth.svg)

{growth}

The cost is linear in the layers and in the models, and depends neither on the size of the input nor on the batch:
every tensor is a line over the batch, and a step is walked once for all batches. What rises above the line from some
thousand layers on is Python's garbage collector; without it a layer costs the same throughout. A grid of networks,
sizes, batches, optimizers and dtypes therefore walks each network once for each width of its numbers: {estimates}
estimates of a training step's memory took {seconds:.1f} s on one core.
"""


@dataclass(frozen=True)
class Measured:
    """All that the page shows. `read` are the bytes that inspect read of a file of `size`, None where unknown."""

    runs: int
    medians: dict[str, Run]
    warm: Warm
    curves: dict[str, dict[str, float]]
    estimates: int
    estimates_seconds: float
    read: int | None
    size: int


def page(found: Measured) -> str:
    """The page's text."""
    missed = [work(wanted) for wanted in WANTED if not wanted.is_met(found.medians)]
    return PAGE.format(
        runs=found.runs,
        machine=machine(),
        packages=", ".join(f"{name} {version(name)}" for name in PACKAGES),
        wanted="\n".join(bounds(found)),
        reasons="".join(f"\n{name[0].upper() + name[1:]}: {REASONS[name]}\n" for name in missed if name in REASONS),
        programs="\n".join(programs(found.medians)),
        warm="\n".join(_row(title, *(_ms(time) for time in found.warm[tool].values())) for tool, title in WARM.items()),
        growth="\n\n".join(growth(found.curves)),
        estimates=f"{found.estimates:,}",
        seconds=found.estimates_seconds,
    )


def machine() -> str:
    """The machine in general words."""
    cores = f"{os.cpu_count()} cores" if os.cpu_count() else "an unknown number of cores"
    return f"{platform.system()} on {platform.machine()}, {cores}, Python {platform.python_version()}"


def bounds(found: Measured) -> Iterator[str]:
    """A row for each bound."""
    for wanted in WANTED:
        yield _row(work(wanted), bound(wanted), *ratios(wanted, found.medians), _met(wanted.is_met(found.medians)))
    remembered = found.medians["diff A, remembered"]
    times = (f"{remembered.cpu:.2f} s", f"{remembered.wall:.2f} s")
    met = _met(remembered.cpu < LONGEST_REMEMBERED)
    yield _row("diff A, remembered, no torch loaded", f"below {LONGEST_REMEMBERED} s", *times, met)
    if found.read is not None:
        yield _row(
            f"inspect reads of a file of {found.size / 2**20:.0f} MiB",
            f"below {MOST_READ:,} bytes",
            f"{found.read:,} bytes",
            "",
            _met(found.read < MOST_READ),
        )


def ratios(wanted: Wanted, medians: dict[str, Run]) -> tuple[str, str]:
    """The ratio in CPU and in wall time; of memory there is one."""
    measured = f"{wanted.ratio(medians):.2f}"
    if wanted.measure == "peak":
        return f"{measured} in memory", ""
    return measured, f"{replace(wanted, measure='wall').ratio(medians):.2f}"


def programs(medians: dict[str, Run]) -> Iterator[str]:
    """A row for each whole program."""
    for name, done in medians.items():
        if done.peak:
            title = f"`vggscope {name}`" if name in PLAIN else name
            yield _row(title, f"{done.cpu:.2f}", f"{done.wall:.2f}", f"{done.peak / 2**20:.0f}")


def growth(curves: dict[str, dict[str, float]]) -> Iterator[str]:
    """Each curve in numbers, a table of one row."""
    for name, curve in curves.items():
        head = _row(name, *(f"{int(value):,}" for value in curve))
        times = _row("CPU ms", *(f"{seconds * 1e3:.1f}" for seconds in curve.values()))
        yield f"{head}\n|---|{'---:|' * len(curve)}\n{times}"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _ms(time: dict[str, float]) -> str:
    return f"{time['cpu'] * 1e3:.2f}"


def _met(is_met: bool) -> str:
    return "met" if is_met else "missed"
