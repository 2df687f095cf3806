"""Write the text of docs/benchmarks.md from the measurements."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from io import StringIO

from forty import Forty, section
from programs import PLAIN, REMEMBERED, WANTED, WARM, Wanted, bound, work
from startup import Run

PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "torchinfo",
    "fvcore",
    "torchview",
    "torchscan",
    "ptflops",
    "torchlens",
    "calflops",
    "typer",
)

MOST_READ = 10**6
"""Bytes that inspect may read of a large file."""

Warm = dict[str, dict[str, dict[str, float]]]
"""Seconds of `cpu` and `wall`, by tool and model."""

REASONS: Mapping[str, str] = {
    "inspect against torch.load": "inspect mostly starts the program, torch.load mostly imports torch and copies the"
    " file; the ratio varies with both, around the bound.",
}
"""Why a bound may be missed."""

PAGE = """# Benchmarks

Written by `make bench`: medians of {runs} runs of each program in turn, three times as many for
programs that do not load torch, after one run to fill the caches. The ratios are the result. Times depend on the
machine, which may be shared, so CPU time decides whether a bound is met. torch runs on one thread.

{machine}. {packages}.

## Bounds

| work | bound | CPU time | wall time | |
|---|---|---:|---:|---|
{wanted}
{reasons}
## Whole programs

![CPU seconds of every program, vggscope and the others, on a logarithmic scale](images/benchmarks.svg)

| program | CPU s | wall s | peak memory, MiB |
|---|---:|---:|---:|
{programs}

The other tools analyse vgg16 unless their row names another model. They initialize its weights and, except torchview,
run it.

## In a warm process

Milliseconds of CPU time to analyse an existing model after all imports: a Network for vggscope, a module for the other
tools, on the meta device if the tool supports it.

| tool | vgg16 | resnet50 | swin_v2_b |
|---|---:|---:|---:|
{warm}

The bound above compares the same content: shapes, parameters and MACs. `summary` also computes the peak memory of
training and inference and the receptive fields, which takes most of its time.

## Forty models

{forty}
## Growth

![CPU seconds of a summary over layers, input size, batch and models](images/growth.svg)

{growth}

The cost is linear in the number of layers and models; a layer is a convolution with its ReLU, two rows. It depends
neither on the input size nor on the batch: the size of every tensor is a linear function of the batch, so a step is
simulated once for all batches. A layer costs somewhat more in a network of ten thousand than in one of a hundred. A
grid of networks, sizes, batches, optimizers and dtypes simulates each network once per element size: {estimates}
estimates of a training step's memory took {seconds:.1f} s on one core.
"""


@dataclass(frozen=True)
class Measured:
    """All measurements of the page. `read`: bytes that inspect read of a file of `size` bytes, None if unknown."""

    runs: int
    medians: dict[str, Run]
    warm: Warm
    forty: Forty
    curves: dict[str, dict[str, float]]
    estimates: int
    estimates_seconds: float
    read: int | None
    size: int


def page(data: Measured) -> str:
    """The page's text."""
    missed = [work(wanted) for wanted in WANTED if not wanted.is_met(data.medians)]
    return PAGE.format(
        runs=data.runs,
        machine=machine(),
        packages=", ".join(f"{name} {version(name)}" for name in PACKAGES),
        wanted="\n".join(bounds(data)),
        reasons="".join(f"\n{name[0].upper() + name[1:]}: {REASONS[name]}\n" for name in missed if name in REASONS),
        programs="\n".join(programs(data.medians)),
        warm="\n".join(_row(title, *(_ms(time) for time in data.warm[tool].values())) for tool, title in WARM.items()),
        forty=section(data.forty),
        growth="\n\n".join(growth(data.curves)),
        estimates=f"{data.estimates:,}",
        seconds=data.estimates_seconds,
    )


def machine() -> str:
    """The machine: system, architecture, cores, Python."""
    cores = f"{os.cpu_count()} cores" if os.cpu_count() else "an unknown number of cores"
    return f"{platform.system()} on {platform.machine()}, {cores}, Python {platform.python_version()}"


def bounds(data: Measured) -> Iterator[str]:
    """A row for each bound."""
    for wanted in WANTED:
        yield _row(work(wanted), bound(wanted), *ratios(wanted, data.medians), _met(wanted.is_met(data.medians)))
    for name, most in REMEMBERED.items():
        remembered = data.medians[name]
        times = (f"{remembered.cpu:.2f} s", f"{remembered.wall:.2f} s")
        yield _row(f"{name}, no torch loaded", f"below {most} s", *times, _met(remembered.cpu < most))
    if data.read is not None:
        yield _row(
            f"inspect reads of a file of {data.size / 2**20:.0f} MiB",
            f"below {MOST_READ:,} bytes",
            f"{data.read:,} bytes",
            "",
            _met(data.read < MOST_READ),
        )


def ratios(wanted: Wanted, medians: dict[str, Run]) -> tuple[str, str]:
    """The ratio in CPU time and in wall time; for memory a single one."""
    ratio = f"{wanted.ratio(medians):.2f}"
    if wanted.measure == "peak":
        return f"{ratio} in memory", ""
    return ratio, f"{replace(wanted, measure='wall').ratio(medians):.2f}"


def programs(medians: dict[str, Run]) -> Iterator[str]:
    """A row for each whole program."""
    for name, done in medians.items():
        if done.peak:
            title = f"`vggscope {name}`" if name in PLAIN else name
            yield _row(title, f"{done.cpu:.2f}", f"{done.wall:.2f}", f"{done.peak / 2**20:.0f}")


def growth(curves: dict[str, dict[str, float]]) -> Iterator[str]:
    """A table with one row for each curve."""
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


OURS, OTHERS = "#1b6ca8", "#9aa5b1"


def time_plot(seconds: dict[str, float]) -> str:
    """Bars of CPU seconds on a logarithmic scale, the shortest first; ours in colour."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    names = sorted(seconds, key=lambda name: -seconds[name])
    colors = [OURS if name.startswith("vggscope") else OTHERS for name in names]
    bars = axes.barh(names, [seconds[name] for name in names], color=colors)
    axes.bar_label(bars, fmt="%.2f", padding=3, fontsize=8)
    axes.set_xscale("log")
    axes.set_xlabel("CPU seconds of the whole program, logarithmic")
    axes.margins(x=0.1)
    axes.spines[["top", "right"]].set_visible(False)
    return _svg(figure)


def growth_plot(curves: dict[str, dict[str, float]]) -> str:
    """A curve for each quantity, both axes logarithmic, with a line of slope one for comparison."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 2.8), layout="constrained")
    for axes, (name, curve) in zip(figure.subplots(1, len(curves), sharey=True), curves.items()):
        values = [int(value) for value in curve]
        axes.loglog(values, list(curve.values()), "o-", color=OURS, markersize=4)
        if name in ("layers", "models"):
            first = curve[str(values[0])]
            axes.loglog(values, [first * v / values[0] for v in values], "--", color=OTHERS, label="linear")
            axes.legend(frameon=False)
        axes.set_xlabel(name)
        axes.spines[["top", "right"]].set_visible(False)
        if name == "layers":
            axes.set_ylabel("CPU seconds")
    return _svg(figure)


def _svg(figure: object) -> str:
    """Deterministic SVG text."""
    import matplotlib as mpl

    out = StringIO()
    with mpl.rc_context({"svg.hashsalt": "vggscope", "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})  # type: ignore[attr-defined]
    return out.getvalue()
