"""Us and other tools, on the same models in turn: writes docs/benchmarks.md and its plots.

    python benchmarks/peers.py [--runs 5]     the whole table, some ten minutes
    python benchmarks/peers.py --check        a minute: fails where a ratio is twice as bad as what is wanted

Ratios are the result: the tools run in turn, in the same minutes on the same machine. CPU time decides whether one is
met, since others may use the machine; wall time and peak memory stand beside it.
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

from page import Measured, Warm, page
from programs import (
    BYTES_READ,
    CHECKPOINT,
    LIGHT,
    LONGEST_REMEMBERED,
    PLAIN,
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
"""The short form fails where a ratio is this many times worse than wanted."""


@dataclass
class Bench:
    """Runs commands in a folder of its own and keeps what the system said of each run."""

    folder: str
    runs: dict[str, list[Run]] = field(default_factory=dict)

    def command(self, name: str) -> list[str]:
        """The command line of a name in PLAIN or SCRIPTS."""
        words = ["-m", "vggscope", *PLAIN[name]] if name in PLAIN else ["-c", SCRIPTS[name]]
        return [sys.executable, *(word.replace("{folder}", self.folder) for word in words)]

    def once(self, name: str) -> None:
        """One run, kept."""
        fresh = name == "diff A, nothing remembered"
        with tempfile.TemporaryDirectory(dir=self.folder) as empty:
            os.environ["VGGSCOPE_CACHE"] = empty if fresh else f"{self.folder}/cache"
            self.runs.setdefault(name, []).append(run(self.command(name)))

    def all(self, names: list[str], rounds: int) -> None:
        """Every command in turn, that many times, after one round that fills the caches and does not count."""
        for number in range(rounds + 1):
            for name in names:
                print(f"{number}/{rounds} {name}", file=sys.stderr)
                for _ in range(3 if name in LIGHT and number else 1):
                    self.once(name)
            if not number:
                self.runs.clear()

    def medians(self) -> dict[str, Run]:
        """Of each command the median of wall time, CPU time and peak memory, each by itself."""
        return {
            name: Run(*(statistics.median(getattr(done, key) for done in runs) for key in ("wall", "cpu", "peak")))
            for name, runs in self.runs.items()
        }


def script(text: str, folder: str) -> str:
    """What a script prints."""
    code = text.replace("{folder}", folder)
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def program(name: str, *words: str) -> str:
    """What one of the programs beside this one prints."""
    return subprocess.run([sys.executable, str(HERE / name), *words], check=True, capture_output=True, text=True).stdout


def warm(tools: list[str], models: list[str]) -> Warm:
    """Seconds in a warm process, by tool and model."""
    found = {}
    for tool in tools:
        print(f"warm {tool}", file=sys.stderr)
        found[tool] = json.loads(program("warm.py", tool, *models))
    return found


def with_warm(medians: dict[str, Run], found: Warm) -> dict[str, Run]:
    """The medians, and those of the warm process that a bound is about; their memory does not count."""
    warm_runs = {name: Run(**found[tool][model], peak=0) for name, (tool, model) in WARM_WANTED.items()}
    return {**medians, **warm_runs}


def check() -> int:
    """The short form: each bound once, with slack. How many are missed by more than that."""
    with tempfile.TemporaryDirectory() as folder:
        script(CHECKPOINT, folder)
        bench = Bench(folder)
        names = {name for wanted in WANTED for name in (wanted.ours, wanted.theirs) if not name.startswith("warm")}
        bench.once("diff A, remembered")
        bench.runs.clear()
        for name in [*sorted(names), "diff A, remembered"]:
            for _ in range(3 if name in LIGHT else 1):
                bench.once(name)
        medians = with_warm(bench.medians(), warm([tool for tool, _ in WARM_WANTED.values()], ["vgg16", "swin_v2_b"]))
    missed = 0
    for wanted in WANTED:
        met = wanted.is_met(medians, SLACK)
        missed += not met
        print(f"{'ok' if met else 'TOO SLOW':9}{work(wanted)}: {wanted.ratio(medians):.2f}, wanted {bound(wanted)}")
    seconds = medians["diff A, remembered"].cpu
    met = seconds <= SLACK * LONGEST_REMEMBERED
    print(f"{'ok' if met else 'TOO SLOW':9}diff A, remembered: {seconds:.2f} s, wanted {LONGEST_REMEMBERED} s")
    return missed + (not met)


def main() -> int:
    """Measure and write, or check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--check", action="store_true", help="the short form")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    if arguments.check:
        return int(check() > 0)
    found = measure(arguments.runs)
    from plots import growth_plot, time_plot

    (DOCS / "images" / "benchmarks.svg").write_text(time_plot(process_times(found.medians)), encoding="utf-8")
    (DOCS / "images" / "growth.svg").write_text(growth_plot(found.curves), encoding="utf-8")
    (DOCS / "benchmarks.md").write_text(page(found), encoding="utf-8")
    return 0


def measure(runs: int) -> Measured:
    """Everything that the page shows."""
    with tempfile.TemporaryDirectory() as folder:
        script(CHECKPOINT, folder)
        bench = Bench(folder)
        bench.all([*PLAIN, *SCRIPTS], runs)
        read = int(script(BYTES_READ, folder)) if sys.platform == "linux" else None
        size = os.path.getsize(f"{folder}/vgg16.safetensors")
    warm_times = warm(list(WARM), [])
    growth = json.loads(program("growth.py"))
    return Measured(runs, with_warm(bench.medians(), warm_times), warm_times, **growth, read=read, size=size)


def process_times(medians: dict[str, Run]) -> dict[str, float]:
    """CPU seconds of every whole program, ours named so."""
    return {f"vggscope {name}" if name in PLAIN else name: done.cpu for name, done in medians.items() if done.peak}


if __name__ == "__main__":
    sys.exit(main())
