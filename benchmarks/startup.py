"""Compare `vggscope summary D` with importing the libraries that it prints with.

    python benchmarks/startup.py [--runs 15]

Prints medians of wall time, CPU time and peak memory, and their ratios. The ratio must stay at or below 1.6, and the
peak below 45 MB.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from dataclasses import dataclass

COMMANDS = {
    "vggscope summary D": [sys.executable, "-m", "vggscope", "summary", "D"],
    "import typer, rich": [sys.executable, "-c", "import typer, rich.table, rich.console"],
}


@dataclass(frozen=True)
class Run:
    """One finished process: seconds, and peak memory in bytes."""

    wall: float
    cpu: float
    peak: int


def run(command: list[str]) -> Run:
    """Run a command without its output, and return its time and memory."""
    started = time.perf_counter()
    pid = os.posix_spawn(
        command[0],
        command,
        os.environ,
        file_actions=[(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)],
    )
    _, status, usage = os.wait4(pid, 0)
    wall = time.perf_counter() - started
    if os.waitstatus_to_exitcode(status):
        raise SystemExit(f"{' '.join(command)} failed")
    peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return Run(wall, usage.ru_utime + usage.ru_stime, peak)


def main() -> None:
    """Run both in turn, print the medians and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=15)
    runs: dict[str, list[Run]] = {name: [] for name in COMMANDS}
    for number in range(parser.parse_args().runs + 1):
        for name, command in COMMANDS.items():
            done = run(command)
            if number:  # the first fills the caches
                runs[name].append(done)
    print(f"{'':22}{'wall s':>10}{'cpu s':>10}{'peak MB':>10}")
    medians = {}
    for name, done in runs.items():
        medians[name] = [statistics.median(getattr(r, key) for r in done) for key in ("wall", "cpu", "peak")]
        wall, cpu, peak = medians[name]
        print(f"{name:22}{wall:10.3f}{cpu:10.3f}{peak / 1e6:10.1f}")
    ours, bare = medians.values()
    print(f"{'ratio':22}{ours[0] / bare[0]:10.2f}{ours[1] / bare[1]:10.2f}{ours[2] / bare[2]:10.2f}")


if __name__ == "__main__":
    main()
