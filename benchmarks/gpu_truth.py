"""Measure thirty cases on a GPU, beside what vggscope predicts for it.

    python benchmarks/gpu_truth.py --dry-run [--gpu A100] [--only 'D *']
    python benchmarks/gpu_truth.py [-o gpu_truth.csv] [--only 'D *'] [--again]

Each case runs in a process of its own: three steps, of which the third is measured. The rows have the columns of
gpu_rows.csv, then the case and the prediction. The file is written whole after each case. A later call runs the cases
for which it has no rows of this card, torch and cuDNN. --dry-run needs no GPU: it lists the cases with the predictions
for a card.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import date
from fnmatch import fnmatch
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

from vggscope.analysis.memory.fit import GpuBudget
from vggscope.analysis.memory.step_config import StepConfig
from vggscope.cross_checks.gpu_counters import GpuCounters, gpu_counters
from vggscope.cross_checks.measured_step import GPU_FIGURES, MeasuredStep, predictions
from vggscope.errors import VggscopeError
from vggscope.files import write_file
from vggscope.graph import Network
from vggscope.sources.resolve import resolve, resolve_module
from vggscope.vgg.options import BuildOptions

if TYPE_CHECKING:
    from torch import Tensor, nn

HERE = Path(__file__).parent
LIMIT = 600
"""The longest time for a case, in seconds."""

MIB = 2**20
WORDS = {
    "resnet50": "torchvision:resnet50",
    "mobilenet_v2": "torchvision:mobilenet_v2",
    "vit_b_16": "torchvision:vit_b_16",
}
OPTIONS = {
    "inference": {"mode": "inference"},
    "amp": {"dtype": "amp"},
    "bfloat16": {"dtype": "bfloat16"},
    "checkpoint": {"checkpoint": True},
    "fused": {"fused": True},
    "for-loop": {"foreach": False},
    "decay": {"weight_decay": 5e-4},
    "clip": {"clip_grad_norm": True},
    "ema": {"ema": True},
}
"""The words of a case that are options of a step. The others are `benchmark` and `channels_last`."""


class Case(NamedTuple):
    """A model, a batch, an optimizer, and words for what else differs from a plain training step in float32."""

    model: str
    batch: int
    optimizer: str
    words: tuple[str, ...]
    side: int = 224

    @property
    def name(self) -> str:
        """The words of the case."""
        return " ".join((self.model, str(self.batch), self.optimizer, *self.words))

    @property
    def config(self) -> StepConfig:
        """The settings of the step."""
        given: dict[str, Any] = {key: value for word in self.words for key, value in OPTIONS.get(word, {}).items()}
        return StepConfig(optimizer=self.optimizer, **given)

    @property
    def cudnn(self) -> str:
        """How cuDNN chooses its algorithms."""
        return "benchmark" if "benchmark" in self.words else "heuristic"

    def network(self) -> Network:
        """The network for the batch, with a recording of torch where its rules are not complete."""
        request = self.config.request
        steps = () if request is None else (replace(request, samples=self.batch),)
        word = WORDS.get(self.model, self.model)
        return resolve(word, BuildOptions(input=(3, self.side, self.side), steps=steps)).for_batch(self.batch)

    def module(self) -> nn.Module:
        """The module to run."""
        made = resolve_module(WORDS.get(self.model, self.model), BuildOptions(input=(3, self.side, self.side)))
        if "channels_last" in self.words:
            import torch

            made = made.to(memory_format=torch.channels_last)  # the first convolution converts the input
        return staged(made) if self.config.checkpoint else made


def staged(vgg: nn.Module) -> nn.Module:
    """A VGG whose stages, each up to a pool, are recomputed in the backward pass."""
    import torch
    from torch import nn
    from torch.utils.checkpoint import checkpoint

    layers = list(vgg.features)
    ends = [place for place, layer in enumerate(layers, 1) if isinstance(layer, nn.MaxPool2d)]

    class Staged(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.vgg = vgg

        def forward(self, x: Tensor) -> Tensor:
            for start, end in zip([0, *ends], ends):
                x = checkpoint(self.vgg.features[start:end], x, use_reentrant=False)
            return self.vgg.classifier(torch.flatten(self.vgg.avgpool(x), 1))

    return Staged()


CASES = tuple(
    Case(model, int(batch), optimizer, tuple(words))
    for model, batch, optimizer, *words in map(
        str.split,
        (
            "A 64 sgd-momentum",
            "B 64 sgd-momentum",
            "C 64 sgd-momentum",
            "E 64 sgd-momentum",
            "A_bn 64 sgd-momentum",
            "E_bn 32 adamw",
            "D 1 adam",
            "D 1 adam for-loop",
            "D 32 adam",
            "D 64 adam",
            "D 128 adam",
            "D 64 adam benchmark",
            "D 64 sgd-momentum decay clip",
            "D 64 adamw fused ema",
            "D 64 sgd-momentum amp",
            "D 64 sgd-momentum amp channels_last",
            "D 64 sgd-momentum checkpoint",
            "D 64 sgd inference",
            "D_bn 64 sgd-momentum channels_last",
            "resnet50 64 adam",
            "resnet50 128 adam",
            "resnet50 128 adam benchmark",
            "resnet50 128 sgd-momentum amp channels_last",
            "resnet50 256 sgd inference",
            "mobilenet_v2 64 adam",
            "mobilenet_v2 128 rmsprop",
            "mobilenet_v2 128 sgd-momentum amp",
            "vit_b_16 32 adamw",
            "vit_b_16 64 adamw amp",
            "vit_b_16 128 sgd inference",
        ),
    )
)
"""Those with Adam are cases of gpu_rows.csv too."""

CASE_COLUMNS = ("case", "predicted_bytes")
FIGURES = {
    "tensors": "requested_bytes.all.peak of torch.cuda.memory_stats",
    "allocated": "torch.cuda.max_memory_allocated",
    "reserved": "torch.cuda.max_memory_reserved",
    "driver": "memory that the driver shows",
}
"""The figures of GPU_FIGURES as gpu_rows.csv names them."""

Outcome = dict[str, Any]
"""What a case gave: its `failure` in words, or the `gpu`, the `versions`, and by figure the bytes."""


def measured(case: Case, counters: GpuCounters | None) -> Outcome:
    """Run a case on the GPU of the counters."""
    if counters is None:
        return {"failure": "torch sees no CUDA device here"}
    network, budget = case.network(), GpuBudget(counters.card, cudnn=case.cudnn)
    step = MeasuredStep(case.module, network, case.batch, case.config)
    try:
        peaks = asdict(step.peaks_on_gpu(counters, case.cudnn))
    except VggscopeError as error:
        return {"failure": str(error).splitlines()[0]}
    return {
        "gpu": counters.name,
        "versions": counters.versions,
        "predicted": predictions(network, case.config, case.batch, budget),
        "measured": {figure: peaks[counter] for figure, (counter, _) in GPU_FIGURES.items()},
        "whose": peaks["whose"],
        "ran_out": peaks["ran_out"],
    }


def in_a_process(case: Case) -> Outcome:
    """Run a case in a process of its own."""
    command = [sys.executable, __file__, "--case", case.name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LIMIT)
    except subprocess.TimeoutExpired:
        return {"failure": f"takes more than {LIMIT} s"}
    if done.returncode or not done.stdout.strip():
        lines = done.stderr.strip().splitlines()
        return {"failure": lines[-1] if lines else f"the process ended with {done.returncode}"}
    outcome: Outcome = json.loads(done.stdout.splitlines()[-1])
    return outcome


def rows_of(case: Case, outcome: Outcome) -> Iterator[dict[str, Any]]:
    """The rows of a case, one for each figure, in the form of gpu_rows.csv."""
    how = ["third step", f"cudnn.benchmark {'on' if case.cudnn == 'benchmark' else 'off'}", *case.words]
    why = "the card ran out of memory: the figure is that until then" if outcome["ran_out"] else ""
    for figure, what in FIGURES.items():
        whose = f", {outcome['whose']}" if figure == "driver" else ""
        yield {
            "source": "benchmarks/gpu_truth.py",
            "ref": f"{outcome['gpu']}, {outcome['versions']}, {date.today().isoformat()}",
            "gpu": outcome["gpu"],
            "torch": outcome["versions"],
            "model": case.model,
            "vggscope_model": WORDS.get(case.model, case.model),
            "num_classes": 1000,
            "input": f"3x{case.side}x{case.side}",
            "batch": case.batch,
            "optimizer": case.optimizer,
            "dtype": case.config.dtype or "float32",
            "mode": case.config.mode,
            "measured_bytes": outcome["measured"][figure],
            "measured_what": f"{what} ({', '.join(how)}{whose})",
            "faketensor": "",
            "horus": "",
            "use": 0 if why else 1,
            "why_not": why,
            "case": case.name,
            "predicted_bytes": outcome["predicted"][figure],
        }


Row = Mapping[str, Any]


def columns() -> list[str]:
    """The columns of gpu_rows.csv, and those of a case."""
    with (HERE / "gpu_rows.csv").open(encoding="utf-8") as file:
        return [*next(csv.reader(file)), *CASE_COLUMNS]


def read(path: Path) -> list[Row]:
    """The rows of a file, none if there is no file."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def write(path: Path, rows: Sequence[Row]) -> None:
    """Write all rows, or leave the file as it is."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_file(str(path), text.getvalue().encode())


def collect(
    cases: Sequence[Case], path: Path, run: Callable[[Case], Outcome], here: tuple[str, str], again: bool = False
) -> bool:
    """Run the cases that have no rows of this GPU and these versions, `here`, and write the rows of each.

    Returns whether each case gave rows.
    """
    rows, complete = read(path), True
    for number, case in enumerate(cases, 1):
        mine = [row for row in rows if (row["case"], row["gpu"], row["torch"]) == (case.name, *here)]
        if mine and not again:
            continue
        outcome = run(case)
        said = outcome.get("failure") or ("ran out of memory" if outcome["ran_out"] else "measured")
        print(f"{number}/{len(cases)} {case.name}: {said}", file=sys.stderr, flush=True)
        if "failure" in outcome:
            complete = False
            continue
        rows = [row for row in rows if row not in mine] + list(rows_of(case, outcome))
        write(path, rows)
    return complete


def tables(rows: Sequence[Row]) -> Iterator[str]:
    """The measurements in Markdown: every case, then the median and the worst error of each figure."""
    yield f"| case | GPU | {' | '.join(f'{figure}, MiB | error' for figure in FIGURES)} |"
    yield f"|---|---|{'---:|---:|' * len(FIGURES)}"
    errors: dict[str, list[float]] = {figure: [] for figure in FIGURES}
    by_case: dict[tuple[str, str], dict[str, Row]] = {}
    for row in rows:
        figure = next(name for name, what in FIGURES.items() if row["measured_what"].startswith(what))
        by_case.setdefault((row["case"], row["gpu"]), {})[figure] = row
    for (case, gpu), figures in by_case.items():
        cells = []
        for figure, row in figures.items():
            measured_bytes, predicted = int(row["measured_bytes"]), int(row["predicted_bytes"])
            if int(row["use"]):
                errors[figure].append(100 * (predicted - measured_bytes) / measured_bytes)
                cells.append(f"{measured_bytes // MIB:,} | {errors[figure][-1]:+.1f}%")
            else:
                cells.append(f"ran out | {predicted // MIB:,} predicted")
        yield f"| {case} | {gpu} | {' | '.join(cells)} |"
    yield ""
    yield "| figure | cases | median error | worst |"
    yield "|---|---:|---:|---:|"
    for figure, of_all in errors.items():
        if of_all:
            yield f"| {figure} | {len(of_all)} | {median(map(abs, of_all)):.1f}% | {max(of_all, key=abs):+.1f}% |"


def predicted_table(cases: Sequence[Case], gpu: str) -> Iterator[str]:
    """The predictions of the cases for a card in Markdown, in MiB."""
    yield f"| case | {' | '.join(f'{figure}, MiB' for figure in FIGURES)} |"
    yield f"|---|{'---:|' * len(FIGURES)}"
    for case in cases:
        found = predictions(case.network(), case.config, case.batch, GpuBudget(gpu, cudnn=case.cudnn))
        yield f"| {case.name} | {' | '.join(f'{found[figure] // MIB:,}' for figure in FIGURES)} |"


def main() -> int:
    """List the cases, or run them and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dry-run", action="store_true", help="list the cases with the predictions, without a GPU")
    parser.add_argument("--gpu", default="A100-40GB", help="the card of --dry-run")
    parser.add_argument("--only", nargs="+", default=["*"], metavar="PATTERN", help="only cases like these words")
    parser.add_argument("--again", action="store_true", help="run also the cases that have rows")
    parser.add_argument("-o", "--output", type=Path, default=Path(__file__).with_suffix(".csv"), metavar="FILE")
    parser.add_argument("--case", choices=[case.name for case in CASES], metavar="CASE", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    cases = [case for case in CASES if any(fnmatch(case.name, pattern) for pattern in arguments.only)]
    if arguments.case:
        case = next(case for case in CASES if case.name == arguments.case)
        print(json.dumps(measured(case, gpu_counters(None))))
        return 0
    if arguments.dry_run:
        for line in predicted_table(cases, arguments.gpu):
            print(line)
        return 0
    counters = gpu_counters(None)
    if counters is None:
        print("torch sees no CUDA device here; --dry-run lists the cases without one", file=sys.stderr)
        return 2
    complete = collect(cases, arguments.output, in_a_process, (counters.name, counters.versions), arguments.again)
    print("\n".join(tables(read(arguments.output))))
    return 0 if complete else 1


if __name__ == "__main__":
    sys.exit(main())
