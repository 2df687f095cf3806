"""The peaks of torch's memory tracker, recorded in tests/reference/: one of a large network takes up to a minute."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytest

from tests.recorded import Recorded
from vggscope.cross_checks.measured_step import MeasuredStep

RECORDED = Recorded("memory_tracker", "torch", "torchvision")

measure_peak = MeasuredStep.tracked_peak


@contextmanager
def recorded_peaks(model: str) -> Iterator[None]:
    """Take the tracker's peaks from the file within the block. `model` names a module, its input size and its batch."""

    def peak(step: MeasuredStep) -> int:
        config = step.config
        key = f"{model} {config.mode} {config.optimizer} {config.dtype}"
        return RECORDED.measured(key, partial(measure_peak, step))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MeasuredStep, "tracked_peak", peak)
        yield
