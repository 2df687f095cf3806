"""What torch allocated in one step of a module, as data that a Network carries beside its rules."""

from __future__ import annotations

from typing import NamedTuple

from vggscope.record import record

BEFORE = "start"
"""The event of a storage that an earlier step made and kept."""

BY_RULES = "by the rules of each op"
"""How a peak is found for which torch was not recorded."""


class StorageEvent(NamedTuple):
    """An allocation of a numbered storage, or its free, for which `kind` is empty.

    `event` is BEFORE, forward, loss or backward, and `layer` the node that runs. An allocation has `fixed`
    bytes, and `per_sample` more for each sample. `scales` is true if they are floating-point values of the step's
    dtype.
    """

    event: str
    layer: str
    storage: int
    kind: str = ""
    fixed: int = 0
    per_sample: int = 0
    scales: bool = False


@record
class StepRequest:
    """The step that a caller needs to know: in training or at inference, for a number of samples or for every one.

    `dtype` is that of floating-point tensors, None for their own. `samples` is None for the batch of the given inputs.
    `for_any_batch` asks for sizes that are linear in the batch. `passes` is 2 if gradients of two micro-batches are
    summed. `on_gpu` asks for the kernels that torch takes on a GPU, otherwise for those under its memory tracker.
    """

    trains: bool
    dtype: str | None = None
    samples: int | None = None
    for_any_batch: bool = False
    passes: int = 1
    on_gpu: bool = True


@record
class RecordedStep:
    """The storages of one step in order. `samples` is the only batch that it holds for; None: two samples and more.

    `dtype` is the floating-point type of the values that scale. `trained` are the names of the parameters that get a
    gradient, `replaced` those of the buffers in whose place forward puts another tensor, which the storages include.
    """

    request: StepRequest
    samples: int | None
    dtype: str
    events: tuple[StorageEvent, ...]
    trained: tuple[str, ...] = ()
    replaced: frozenset[str] = frozenset()

    def serves(self, request: StepRequest) -> bool:
        """Whether the step is the requested one, but for its batch and its floating-point dtype."""
        mine = self.request
        return (mine.trains, mine.passes, mine.on_gpu) == (request.trains, request.passes, request.on_gpu)
