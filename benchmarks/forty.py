"""Measure vggscope and other tools on forty models of different families: a section of docs/benchmarks.md.

    python benchmarks/forty.py

Prints the section; `make bench` writes it into the page. It takes about twenty minutes.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from startup import run
from warm import word

TORCHVISION = (
    "alexnet",
    "convnext_tiny",
    "densenet121",
    "efficientnet_b0",
    "efficientnet_v2_s",
    "googlenet",
    "inception_v3",
    "maxvit_t",
    "mnasnet1_0",
    "mobilenet_v2",
    "mobilenet_v3_large",
    "regnet_y_400mf",
    "resnet50",
    "resnext50_32x4d",
    "shufflenet_v2_x1_0",
    "squeezenet1_1",
    "swin_t",
    "swin_v2_t",
    "vgg16",
    "vit_b_16",
)
TIMM = (
    "beit_base_patch16_224",
    "cait_xxs24_224",
    "coatnet_0_rw_224",
    "convmixer_768_32",
    "crossvit_9_240",
    "cspdarknet53",
    "deit_tiny_patch16_224",
    "dla34",
    "dm_nfnet_f0",
    "dpn68",
    "efficientformer_l1",
    "ghostnet_100",
    "hrnet_w18_small",
    "mixer_b16_224",
    "mobilevit_s",
    "pit_ti_224",
    "poolformer_s12",
    "res2net50_26w_4s",
    "skresnet18",
    "xception41",
)
FORTY = (*TORCHVISION, *(f"timm:{name}" for name in TIMM))

SAME, ALL = "trace", "trace_summary"
"""The tools of warm.py that are vggscope: with torchinfo's content, and with all that `summary` shows."""

TOOLS = {
    SAME: "vggscope, same content",
    ALL: "vggscope, all",
    "torchinfo": "torchinfo",
    "flop_counter": "torch's counter",
    "torchview": "torchview",
    "torchscan": "torchscan",
    "calflops": "calflops",
    "fvcore": "fvcore (real)",
    "ptflops": "ptflops (real)",
    "torchlens": "torchlens (real)",
}
REAL = ("fvcore", "ptflops", "torchlens")
"""The tools that need real tensors, which take seconds and are run once after the first."""

TORCHINFO = """import sys; sys.path.insert(0, {folder!r})
from warm import made, size; from torchinfo import summary
module = made({name!r}); print(summary(module, (1, *size(module)), device="meta"))"""

TEXT = """Milliseconds of CPU time to analyse an nn.Module in a warm process: torchvision's models, and timm's at the
size that they state. "Same content" is what torchinfo shows: shapes, parameters and MACs (a trace without memory and
receptive fields, which no public function returns alone). "All" is a whole `summary`, with the peak memory of
training and inference and receptive fields. "Faster" names the tools that take less time than vggscope for the same
content, with our time as a multiple of theirs. The times are medians of calls after a first one, in which vggscope
learns what torch returns for each kind of call; "first" is that of the first call for the same content, in a process
that has analysed other models. "Runs" is how often vggscope runs forward for it: more than once where the run on one
sample does not tell what other batches do. The other tools run it once, so their figures hold for one batch in
evaluation. "Cold" is the CPU seconds of the whole program, once for each model: vggscope's `summary` of a word the
first time and the second time, and a script that prints torchinfo's summary of the module on the meta device.
{failures}

{head}
{rows}

{verdict}
"""

Times = dict[str, dict[str, dict[str, float]]]
"""Seconds by tool and model; `error` instead of `cpu` where a tool failed."""


@dataclass(frozen=True)
class Forty:
    """The measurements: warm times, seconds of whole programs by model, and runs of forward by model."""

    warm: Times
    cold: dict[str, tuple[float, float, float]]
    runs: dict[str, int]


def measure() -> Forty:
    """Measure everything, in processes of their own."""
    os.environ["OMP_NUM_THREADS"] = "1"
    warm = {tool: _warm(tool, 1 if tool in REAL else 5) for tool in TOOLS}
    return Forty(warm, {name: _cold(name) for name in FORTY}, _runs())


def _program(*words: str) -> str:
    print(*words[:3], file=sys.stderr)
    command = [sys.executable, *words]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent)
    return done.stdout


def _warm(tool: str, most_runs: int) -> dict[str, dict[str, float]]:
    times: dict[str, dict[str, float]] = json.loads(_program("warm.py", tool, str(most_runs), *FORTY))
    return times


def _cold(name: str) -> tuple[float, float, float]:
    """CPU seconds of the first and second summary of a word, and of torchinfo's."""
    print("cold", name, file=sys.stderr)
    summary = [sys.executable, "-m", "vggscope", "summary", word(name)]
    script = TORCHINFO.format(folder=str(Path(__file__).parent), name=name)
    with tempfile.TemporaryDirectory() as empty:
        os.environ["VGGSCOPE_CACHE"] = empty
        first, second = run(summary).cpu, run(summary).cpu
        del os.environ["VGGSCOPE_CACHE"]
    return first, second, run([sys.executable, "-c", script]).cpu


def _runs() -> dict[str, int]:
    runs: dict[str, int] = json.loads(_program("-c", "import forty; forty.count_runs()"))
    return runs


def count_runs() -> None:
    """Print as JSON how often vggscope runs each model's forward for the same content."""
    from warm import made, trace

    warnings.simplefilter("ignore")
    counts = {}
    for name in FORTY:
        code = type(made(name)).forward.__code__
        calls = 0

        def count(frame: object, event: str, _: object, code: object = code) -> None:
            nonlocal calls
            calls += event == "call" and frame.f_code is code  # type: ignore[attr-defined]

        work = trace(name)
        sys.setprofile(count)
        try:
            work()
        finally:
            sys.setprofile(None)
        counts[name] = calls
    json.dump(counts, sys.stdout)


def section(data: Forty) -> str:
    """The section's text."""
    titles = ["model", "faster", "runs", "first", *TOOLS.values(), "cold: first", "second", "torchinfo"]
    head = f"{_row(*titles)}\n|---|---|{'---:|' * (len(titles) - 2)}"
    return TEXT.format(
        failures="".join(f"\n{line}" for line in _failures(data)),
        head=head,
        rows="\n".join(_model(name, data) for name in FORTY),
        verdict="\n".join(_verdict(data)),
    )


def _model(name: str, data: Forty) -> str:
    times = [data.warm[tool][name].get("cpu") for tool in TOOLS]
    cells = ["fails" if cpu is None else f"{cpu * 1e3:,.1f}" for cpu in times]
    cold = [f"{seconds:.2f}" for seconds in data.cold[name]]
    first = f"{data.warm[SAME][name]['first'] * 1e3:,.1f}"
    return _row(name, _faster(name, data), str(data.runs[name]), first, *cells, *cold)


def _faster(name: str, data: Forty) -> str:
    ours = data.warm[SAME][name]["cpu"]
    times = {title: data.warm[tool][name].get("cpu") for tool, title in TOOLS.items() if tool not in (SAME, ALL)}
    return ", ".join(f"{title} ({ours / cpu:.2f})" for title, cpu in times.items() if cpu is not None and cpu < ours)


def _failures(data: Forty) -> Iterator[str]:
    for tool, title in TOOLS.items():
        errors = {name: times["error"] for name, times in data.warm[tool].items() if "error" in times}
        if errors:
            name, error = next(iter(errors.items()))
            yield f"{title} fails on {len(errors)} of {len(FORTY)}; on {name}: `{str(error).splitlines()[0][:100]}`."


def _verdict(data: Forty) -> Iterator[str]:
    for tool in (SAME, ALL):
        ratios = sorted(data.warm[tool][name]["cpu"] / data.warm["torchinfo"][name]["cpu"] for name in FORTY)
        within = sum(ratio <= 1 for ratio in ratios)
        yield (
            f"{TOOLS[tool]}: at most torchinfo's time on {within} of {len(FORTY)}, {statistics.median(ratios):.2f} of"
            f" it in the median, {ratios[-1]:.2f} at most."
        )


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    print(section(measure()))
