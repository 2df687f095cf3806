"""Where torch runs, as far as it changes what is in memory: the same Python line takes other tensors on a GPU."""

from __future__ import annotations

from vggscope.errors import OptionError
from vggscope.record import record


@record
class Runtime:
    """One of RUNTIMES.

    `mask_width` is the bytes of one value of a dropout mask, None: as wide as the values it masks. `sums_in_place`
    tells whether a second gradient of the same tensor is added into the first; torch makes a third tensor of the two
    where a dispatch mode watches, as the memory tracker does. There it also makes a further tensor where a linear layer
    adds its bias in a step of its own: `adds_in_place` is false. `counts_on_device` tells whether an optimizer's step
    counters lie there. `statistics_width` is the least width of a batch's saved statistics. `float32_ops` are the
    operations that autocast runs in float32, `widened_ops` those before which it makes all inputs as wide as the
    widest.
    """

    name: str
    mask_width: int | None
    sums_in_place: bool
    adds_in_place: bool
    counts_on_device: bool
    statistics_width: int
    float32_ops: frozenset[str]
    widened_ops: frozenset[str] = frozenset()


_FLOAT32 = frozenset(
    {
        *("Softmax", "LogSoftmax", "LayerNorm", "GroupNorm", "RMSNorm", "Softplus", "cross_entropy", "pow", "exp"),
        *("expm1", "log", "log2", "log10", "log1p", "rsqrt", "reciprocal", "tan", "acos", "asin", "sum", "prod"),
        *("norm", "vector_norm", "logsumexp", "cumsum", "cumprod", "cosine_similarity"),
    }
)
"""Of the operations that have a name here, those of the list in torch's autocast_mode.h."""

CUDA = Runtime("cuda", 1, True, True, False, 4, _FLOAT32)
"""A GPU, by torch's CUDA sources."""

TRACKER = Runtime(
    "tracker", None, False, False, True, 0, frozenset({"cross_entropy", "avg_pool3d"}), frozenset({"cat", "stack"})
)
"""torch.distributed._tools.mem_tracker over CPU tensors: the witness that the tests hold the walk to, byte for byte."""

RUNTIMES = {runtime.name: runtime for runtime in (CUDA, TRACKER)}


def runtime_named(name: str) -> Runtime:
    """The runtime of this name; raises OptionError where there is none."""
    if name not in RUNTIMES:
        raise OptionError(f"unknown runtime {name!r}", f"it is one of {', '.join(RUNTIMES)}")
    return RUNTIMES[name]
