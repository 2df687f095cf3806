"""Compare vggscope with other tools on the same models: write docs/benchmarks.md and its plots.

    python benchmarks/peers.py [--runs 5]     the whole page, about half an hour
    python benchmarks/peers.py --check        a minute: fails if a ratio is twice as bad as its bound

The ratios are the result: the tools run in turn on the same machine. CPU time decides whether a bound is met, because
the machine may be shared; wall time and peak memory are reported too.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from forty import measure as measure_forty
from page import Measured, Warm, growth_plot, page, time_plot
from programs import (
    BYTES_READ,
    CHECKPOINT,
    LIGHT,
    PLAIN,
    REMEMBERED,
    SCRIPTS,
    WANTED,
    WARM,
    WARM_WANTED,
    bound,
    work,
)
from startup import Run, run

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs"
SLACK = 2
"""The check fails if a ratio is this many times worse than its bound."""


@dataclass
class Bench:
    """Run commands in a separate folder and record time and memory of each run."""

    folder: str
    runs: dict[str, list[Run]] = field(default_factory=dict)

    def command(self, name: str) -> list[str]:
        """The command line of a name in PLAIN or SCRIPTS."""
        words = ["-m", "vggscope", *PLAIN[name]] if name in PLAIN else ["-c", SCRIPTS[name]]
        return [sys.executable, *(word.replace("{folder}", self.folder) for word in words)]

    def once(self, name: str) -> None:
        """Run a command once and record it."""
        fresh = name == "diff A, nothing remembered"
        with tempfile.TemporaryDirectory(dir=self.folder) as empty:
            os.environ["VGGSCOPE_CACHE"] = empty if fresh else f"{self.folder}/cache"
            self.runs.setdefault(name, []).append(run(self.command(name)))

    def all(self, names: list[str], rounds: int) -> None:
        """Run every command in turn, after one uncounted round that fills the caches."""
        for number in range(rounds + 1):
            for name in names:
                print(f"{number}/{rounds} {name}", file=sys.stderr)
                for _ in range(3 if name in LIGHT and number else 1):
                    self.once(name)
            if not number:
                self.runs.clear()

    def medians(self) -> dict[str, Run]:
        """The medians of wall time, CPU time and peak memory of each command."""
        return {
            name: Run(*(statistics.median(getattr(done, key) for done in runs) for key in ("wall", "cpu", "peak")))
            for name, runs in self.runs.items()
        }


def script(text: str, folder: str) -> str:
    """The output of a script."""
    code = text.replace("{folder}", folder)
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def program(name: str, *words: str) -> str:
    """The output of another program in this folder."""
    return subprocess.run([sys.executable, str(HERE / name), *words], check=True, capture_output=True, text=True).stdout


def warm(tools: dict[str, list[str]], most_runs: int = 30) -> Warm:
    """Seconds in a warm process, by tool and model; a tool without models runs on all of them."""
    times = {}
    for tool, models in tools.items():
        print(f"warm {tool}", file=sys.stderr)
        times[tool] = json.loads(program("warm.py", tool, str(most_runs), *models))
    return times


def with_warm(medians: dict[str, Run], times: Warm) -> dict[str, Run]:
    """The medians, and the warm times that have a bound; these have no memory."""
    found = {name: times[tool][model] for name, (tool, model) in WARM_WANTED.items()}
    warm_runs = {name: Run(wall=seconds["wall"], cpu=seconds["cpu"], peak=0) for name, seconds in found.items()}
    return {**medians, **warm_runs}


def check() -> int:
    """Check each bound once, with SLACK; return how many are missed."""
    with tempfile.TemporaryDirectory() as folder:
        script(CHECKPOINT, folder)
        bench = Bench(folder)
        names = {name for wanted in WANTED for name in (wanted.ours, wanted.theirs) if not name.startswith("warm")}
        for name in REMEMBERED:
            bench.once(name)
        bench.runs.clear()
        for name in sorted(names | REMEMBERED.keys()):
            for _ in range(3 if name in LIGHT else 1):
                bench.once(name)
        needed: dict[str, list[str]] = {}
        for tool, model in WARM_WANTED.values():
            needed.setdefault(tool, []).append(model)
        medians = with_warm(bench.medians(), warm(needed, most_runs=5))
    missed = 0
    for wanted in WANTED:
        met = wanted.is_met(medians, SLACK)
        missed += not met
        print(f"{'ok' if met else 'TOO SLOW':9}{work(wanted)}: {wanted.ratio(medians):.2f}, wanted {bound(wanted)}")
    for name, most in REMEMBERED.items():
        met = medians[name].cpu <= SLACK * most
        missed += not met
        print(f"{'ok' if met else 'TOO SLOW':9}{name}: {medians[name].cpu:.2f} s, wanted {most} s")
    return missed


def main() -> int:
    """Measure and write, or check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--check", action="store_true", help="the short form")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    if arguments.check:
        return int(check() > 0)
    measured = measure(arguments.runs)
    (DOCS / "images" / "benchmarks.svg").write_text(time_plot(process_times(measured.medians)), encoding="utf-8")
    (DOCS / "images" / "growth.svg").write_text(growth_plot(measured.curves), encoding="utf-8")
    (DOCS / "benchmarks.md").write_text(page(measured), encoding="utf-8")
    return 0


def measure(runs: int) -> Measured:
    """Take all measurements of the page."""
    with tempfile.TemporaryDirectory() as folder:
        script(CHECKPOINT, folder)
        bench = Bench(folder)
        bench.all([*PLAIN, *SCRIPTS], runs)
        read = int(script(BYTES_READ, folder)) if sys.platform == "linux" else None
        size = os.path.getsize(f"{folder}/vgg16.safetensors")
    warm_times = warm({tool: [] for tool in WARM})
    growth = json.loads(program("growth.py"))
    medians = with_warm(bench.medians(), warm_times)
    return Measured(runs, medians, warm_times, measure_forty(), **growth, read=read, size=size)


def process_times(medians: dict[str, Run]) -> dict[str, float]:
    """CPU seconds of every whole program, by its title."""
    return {f"vggscope {name}" if name in PLAIN else name: done.cpu for name, done in medians.items() if done.peak}


if __name__ == "__main__":
    sys.exit(main())
