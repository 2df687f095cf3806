"""Compare `vggscope diff --values` and `inspect --stats` with reading the same files.

    python benchmarks/values.py [--runs 5]

Makes two checkpoints of 528 MB, one of which is the other after training, and prints medians of wall time, CPU time and
peak memory. Comparing the values must take no longer than reading both files twice, and less than 1 GB.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile

from startup import Run, run

FILES = """import torch
from torchvision.models import vgg16
torch.manual_seed(0)
state = vgg16().state_dict()
torch.save(state, "{0}/a.pth")
torch.save(state, "{0}/same.pth")
torch.save({{k: v + 1e-3 * torch.randn_like(v) for k, v in state.items()}}, "{0}/b.pth")"""

READ = "for path in 2 * ('{0}/a.pth', '{0}/b.pth'): open(path, 'rb').read()"
LOAD = "import torch\nfor path in 2 * ('{0}/a.pth', '{0}/b.pth'): torch.load(path, weights_only=True)"
VALUES = "import vggscope; vggscope.values('{0}/a.pth', '{0}/%s.pth')"
STATS = "import vggscope; vggscope.stats('{0}/a.pth')"

OURS, LIMIT = "values, all trained", "both read twice"
PROGRAMS = {
    LIMIT: READ,
    "both loaded twice by torch": LOAD,
    OURS: VALUES % "b",
    "values, all equal": VALUES % "same",
    "stats of one file": STATS,
}
"""Programs in Python; {0} is the folder."""

PEAK = 10**9
"""The most memory in bytes that a comparison may take."""


def main() -> None:
    """Run all in turn, print the medians, and fail if the comparison is slower or larger than it may be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    count = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-c", FILES.format(folder)], check=True)
        runs: dict[str, list[Run]] = {name: [] for name in PROGRAMS}
        for number in range(count + 1):
            for name, code in PROGRAMS.items():
                done = run([sys.executable, "-c", code.format(folder)])
                if number:  # the first fills the caches
                    runs[name].append(done)
    print(f"{'':28}{'wall s':>10}{'cpu s':>10}{'peak MB':>10}")
    for name, done_runs in runs.items():
        wall, cpu, peak = (statistics.median(getattr(r, key) for r in done_runs) for key in ("wall", "cpu", "peak"))
        print(f"{name:28}{wall:>10.2f}{cpu:>10.2f}{peak / 1e6:>10.0f}")
    cpu = {name: statistics.median(r.cpu for r in done_runs) for name, done_runs in runs.items()}
    largest = max(r.peak for r in runs[OURS])
    if cpu[OURS] > cpu[LIMIT] or largest > PEAK:
        raise SystemExit(f"{OURS}: {cpu[OURS] / cpu[LIMIT]:.2f} of the time of {LIMIT}, {largest / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
