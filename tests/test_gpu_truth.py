"""benchmarks/gpu_truth.py without a GPU: its cases, their predictions, and the rows of one that runs on the CPU."""

from __future__ import annotations

import csv
import runpy
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import vggscope
from tests.test_measured_gpu import MIB, CpuCounters
from vggscope.cross_checks.gpu_counters import GpuPeaks

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "gpu_truth.py"
HERE = ("Tesla T4", "torch 2, cuDNN 9")


@pytest.fixture(scope="module")
def script() -> SimpleNamespace:
    return SimpleNamespace(**runpy.run_path(str(SCRIPT)))


def test_thirty_cases(script: SimpleNamespace) -> None:
    assert len({case.name for case in script.CASES}) == len(script.CASES) == 30
    assert {case.model for case in script.CASES} == {
        *("A", "A_bn", "B", "C", "D", "D_bn", "E", "E_bn", "resnet50", "mobilenet_v2", "vit_b_16")
    }
    words = {word for case in script.CASES for word in case.words}
    assert words == {*script.OPTIONS, "benchmark", "channels_last"} - {"bfloat16"}
    for case in script.CASES:
        assert set(case.words) <= {*script.OPTIONS, "benchmark", "channels_last"}
        assert case.config.optimizer == case.optimizer


def test_a_dry_run_lists_the_predictions() -> None:
    command = [sys.executable, str(SCRIPT), "--dry-run", "--gpu", "T4", "--only", "D 1 *"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = vggscope.memory("D", batch=1, optimizer="adam", gpu="T4")
    assert found.fit is not None
    sizes = (found.peak_bytes, found.allocated_bytes, found.reserved_bytes, found.fit.nvidia_smi_bytes)
    assert f"| D 1 adam | {' | '.join(f'{size // MIB:,}' for size in sizes)} |" in done.stdout.splitlines()
    assert [line.split("|")[1].strip() for line in done.stdout.splitlines()[2:]] == ["D 1 adam", "D 1 adam for-loop"]


def test_a_case_from_its_run_to_its_rows(script: SimpleNamespace, tmp_path: Path) -> None:
    path, counters = tmp_path / "rows.csv", CpuCounters()
    tiny = script.Case("conv3-8 maxpool FC-10", 2, "adam", ("checkpoint", "channels_last", "benchmark"), side=32)
    other = script.Case("conv3-8 FC-10", 1, "sgd", ("inference",), side=32)
    assert script.collect([tiny], path, partial(script.measured, counters=counters), HERE)
    assert counters.calls == ["start", "empty", "reset", "peaks"]
    with path.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    with (SCRIPT.parent / "gpu_rows.csv").open(encoding="utf-8") as file:
        assert list(rows[0]) == [*next(csv.reader(file)), "case", "predicted_bytes"]
    assert [int(row["measured_bytes"]) for row in rows] == [10 * MIB, 20 * MIB, 30 * MIB, 600 * MIB]
    predicted = [int(row["predicted_bytes"]) for row in rows]
    assert predicted[-1] == predicted[2] + 512 * MIB
    assert predicted == sorted(predicted)
    assert rows[2]["ref"].startswith("Tesla T4, torch 2, cuDNN 9, 20")
    assert rows[2]["measured_what"] == (
        "torch.cuda.max_memory_reserved (third step, cudnn.benchmark on, checkpoint, channels_last, benchmark)"
    )

    def run(case: Any) -> Any:
        assert case is other  # the first has its rows
        return script.measured(case, FullCounters())

    assert script.collect([tiny, other], path, run, HERE)
    assert [row["use"] for row in script.read(path)] == ["1"] * 4 + ["0"] * 4
    table = "\n".join(script.tables(script.read(path)))
    assert "| conv3-8 maxpool FC-10 2 adam checkpoint channels_last benchmark | Tesla T4 | 10 |" in table
    assert "| conv3-8 FC-10 1 sgd inference | Tesla T4 | ran out |" in table
    assert "| reserved | 1 |" in table


class FullCounters(CpuCounters):
    """Counters of a card that is full."""

    def peaks(self, *, ran_out: bool = False) -> GpuPeaks:
        return super().peaks(ran_out=True)


def test_a_case_that_fails_leaves_the_file_as_it_is(script: SimpleNamespace, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    case = script.Case("conv3-8 FC-10", 1, "sgd", (), side=32)
    assert not script.collect([case], path, lambda case: {"failure": "no driver"}, HERE)
    assert not path.exists()


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="it would run the case")
def test_a_process_tells_why_it_has_no_figures(script: SimpleNamespace) -> None:
    assert script.in_a_process(script.CASES[0]) == {"failure": "torch sees no CUDA device here"}
