"""Results of recurrent layers without data, from their first two steps.

torch decomposes a recurrent layer on the meta device into some ten operators for each step, which takes milliseconds.
Each step does the same, so the second one tells what every further one adds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vggscope.trace.flops import OperatorMacs, operator_macs
from vggscope.trace.tensors import Function

if TYPE_CHECKING:
    from torch import Tensor

RECURRENT = frozenset({"lstm", "gru", "rnn_tanh", "rnn_relu"})
"""torch's functions of a whole sequence."""


def result_of_steps(function: Function, args: tuple[Any, ...], macs: OperatorMacs) -> tuple[Tensor, ...] | None:
    """Return empty tensors like a recurrent function's result, and add its multiply-accumulates to `macs`.

    The results are the output of the sequence and the last states. None if the function is another one, the sequence
    is packed or no longer than two steps, or torch would raise.
    """
    if getattr(function, "__name__", "") not in RECURRENT or len(args) != 9 or args[0].dim() != 3:
        return None
    sequence, *others, batch_first = args
    axis = 1 if batch_first else 0
    length = sequence.shape[axis]
    if length <= 2:
        return None
    try:
        with operator_macs() as one:
            function(sequence.narrow(axis, 0, 1), *others, batch_first)
        with operator_macs() as two:
            results: Any = function(sequence.narrow(axis, 0, 2), *others, batch_first)
    except RuntimeError:
        return None
    macs.add(one)
    macs.add(two.without(one.total), times=length - 1)
    return _with_length(results[0], axis, length), *results[1:]


def _with_length(output: Tensor, axis: int, length: int) -> Tensor:
    """Return an empty output of a longer sequence. torch computes the steps on the first axis."""
    by_step = output.transpose(0, axis)
    return by_step.new_empty((length, *by_step.shape[1:])).transpose(0, axis)
