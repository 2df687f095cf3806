"""Work counted in calls: the same number on every machine, where a time would depend on what else runs."""

from __future__ import annotations

import cProfile
from collections.abc import Callable


def calls(work: Callable[..., object], *arguments: object) -> int:
    """How many functions `work(*arguments)` calls, Python's and C's."""
    profile = cProfile.Profile(subcalls=False)  # the callers of a function are not asked for, and cost time
    profile.enable()
    try:
        work(*arguments)
    finally:
        profile.disable()
    return sum(entry.callcount for entry in profile.getstats())


def growth(work: Callable[..., object], small: object, large: object, factor: float) -> float:
    """Calls for `large` over `factor` times those for `small`: 1 where work is in proportion, `factor` if quadratic."""
    return calls(work, large) / calls(work, small) / factor
