"""An amount of memory as a line over the batch: what is there once, and what is there for each sample.

Every tensor of a step is one or the other, so a step is walked once and its figures hold for all batches.
"""

from __future__ import annotations

from typing import NamedTuple


class BatchLinear(NamedTuple):
    """Bytes: `fixed` + `per_sample` for each sample of the batch."""

    fixed: int
    per_sample: int

    def at(self, batch: int) -> int:
        """Bytes for a batch of that many.

        >>> BatchLinear(1000, 4).at(32)
        1128
        """
        return self.fixed + self.per_sample * batch


NO_BYTES = BatchLinear(0, 0)
