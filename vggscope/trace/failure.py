"""Explain why a forward pass failed: the layer, its input shapes and the line of the user's own code."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from traceback import walk_tb
from typing import TYPE_CHECKING

from vggscope.graph import Failure, FailureKind, Network
from vggscope.ops.base import Shape, numel
from vggscope.ops.normal_form import RESHAPE
from vggscope.trace.functions import first_line, problem
from vggscope.trace.source_line import Stack, line_in, own_line
from vggscope.units import count_text, kernel_text, shape_text

if TYPE_CHECKING:
    from vggscope.trace.watch import RunningModule, Watch


_DTYPES = re.compile("dtype|scalar types?")

_OF_CODE = (NameError, AttributeError, TypeError, KeyError, ZeroDivisionError, ImportError, RecursionError)
"""Errors that no other size mends."""


def explain(watch: Watch, error: Exception) -> Failure:
    """Describe an error: `fc1 (Linear): 25,088 features are expected, the input has 512 (net.py, line 14: ...)`."""
    running = watch.running(error)
    layer = failing_layer(watch, error)
    if layer is not None:
        reason, advice = problem(layer.op, layer.input_shapes, error)
    elif watch.function_error is not None and watch.function_error[0] is error:
        _, reason, advice = watch.function_error
    else:
        reason, advice = first_line(error), ""
    untraced = next((name for name in _raised_in(error) if name in _UNTRACED), "")
    if untraced:
        reason, advice = _UNTRACED[untraced]
    frame = layer or (running[-1] if running else None)
    place = f"{frame.path or 'forward'} ({type(frame.module).__name__})" if frame else "forward"
    line = own_line(error)
    is_by_function = watch.function_error is not None and watch.function_error[0] is error
    is_by_forward = layer is None and not is_by_function and (frame is None or not frame.path)
    text = f"{place}: {reason}" + (f" ({line})" if line else "")
    if untraced:
        return Failure(text, "code", advice)
    kind = _kind(reason, error, is_by_forward)
    # Of what reads the input itself, the input's size is known that fits.
    return Failure(text, kind, advice if kind == "size" and watch.failed_reader is None else "")


_UNTRACED = {
    "cond.py": ("torch.cond has two branches, and vggscope traces one", "call the function of one branch in its place"),
    "flex_attention.py": (
        "flex_attention runs only on tensors with values",
        "call torch.nn.functional.scaled_dot_product_attention in its place",
    ),
}
"""What cannot be traced, and the remedy, by the file of torch whose function raised."""


def _raised_in(error: Exception) -> Iterator[str]:
    """Yield the names of torch's files through which an error passed."""
    for frame, _ in walk_tb(error.__traceback__):
        path = Path(frame.f_code.co_filename)
        if "torch" in path.parts:
            yield path.name


def _kind(reason: str, error: Exception, is_raised_by_forward: bool) -> FailureKind:
    """Return what mends a failure. torch has no error of its own for dtypes: its message tells them."""
    if isinstance(error, _OF_CODE):
        return "code"
    if "must have the same dtype" in reason:
        return "mixed dtypes"
    if _DTYPES.search(reason):
        return "dtype"
    if is_raised_by_forward and isinstance(error, (ValueError, RuntimeError, AssertionError)):
        return "arguments"
    return "size"


def failing_layer(watch: Watch, error: Exception) -> RunningModule | None:
    """Return the running module that raised, if it is a single node; None otherwise."""
    return next((frame for frame in watch.running(error) if frame.op is not None), None)


def mixed_batch(network: Network, shapes: Mapping[str, Shape], samples: int, lines: Mapping[str, Stack]) -> str | None:
    """Return where a sample becomes several rows of the output, or several samples become one; None if they do not.

    That is a reshape that sizes its rows by a number of features that the samples do not have. A reshape that only
    makes each position a row keeps the last axis, and is left out. `shapes` are those of all nodes, and `lines` has the
    running lines at each reshape.
    """
    output = shapes[network.end]
    if len(output) == 1:
        return _flattened_batch(network, samples, lines)
    if len(output) != 2 or output[0] == samples:
        return None
    node = network.by_name.get(network.end)
    while node is not None and node.inputs and shapes[node.inputs[0]][:1] == output[:1]:
        node = network.by_name.get(node.inputs[0])
    if node is None or node.name not in lines:
        return None
    before, after = shapes[node.inputs[0]], shapes[node.name]
    if before[0] != samples or len(after) != 2:
        return None
    had, rows = f"{samples} sample{'s become' if samples > 1 else ' becomes'}", f"row{'s' if after[0] > 1 else ''}"
    size = shape_text(before) + (f" = {count_text(numel(before[1:]))}" if len(before) > 2 else "")
    line = _in_brackets(line_in(lines[node.name]))
    return (
        f"{node.name}: {had} {after[0]} {rows} of {count_text(after[1])} values, since a sample has {size}"
        f"{line}: write x.flatten(1), and {count_text(numel(before[1:]))} as the in_features after it"
    )


def _in_brackets(text: str) -> str:
    return f" ({text})" if text else ""


def _flattened_batch(network: Network, samples: int, lines: Mapping[str, Stack]) -> str | None:
    """Return where a reshape joins the batch and the features of each sample in one axis; None if none does."""
    node = network.by_name.get(network.end)
    while node is not None and node.inputs and len(network.shapes[node.inputs[0]]) == 1:
        node = network.by_name.get(node.inputs[0])
    if node is None or not node.inputs or network.batch_axis_of(node.inputs[0]) is None:
        return None
    before, after = network.shapes[node.inputs[0]], network.shapes[node.name]
    if numel(before) != numel(after) or after == (samples,):
        return None
    if any(step.function != RESHAPE for step in node.op.normal_form((before,), after).steps):
        return None  # other values, such as the positions that nonzero finds
    line = _in_brackets(line_in(lines.get(node.name, ())))
    size = shape_text(before) + (f" = {count_text(numel(before[1:]))}" if len(before) > 2 else "")
    return f"{node.name}: the batch and the {size} values of a sample become one axis{line}: write x.flatten(1)"


def lost_batch(network: Network) -> str | None:
    """Return a sentence if what forward returns has axes, and none of them grows with the batch; None otherwise."""
    outputs = [tensor for tensor in network.outputs if tensor.source]
    if network.single is not None or not outputs or any(t.batch_growth is None or any(t.batch_growth) for t in outputs):
        return None
    if not any(tensor.shape for tensor in outputs):
        return None  # a loss
    node = network.by_name.get(network.end)
    while node is not None and node.inputs and node.inputs[0] in network.batchless:
        node = network.by_name[node.inputs[0]]
    where = f", since {node.title} drops its axis" if node is not None else ""
    return f"the batch is not in the output{where}: it is {kernel_text(outputs[0].shape)} for every batch"
