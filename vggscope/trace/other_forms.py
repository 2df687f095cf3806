"""Find out which other form of input a forward takes that fails on a tensor: a list, a dict, or no batch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING
from warnings import catch_warnings, simplefilter

from vggscope.errors import names_options, option
from vggscope.trace.inputs import CallInputs, fits_signature
from vggscope.trace.run import Run, run

if TYPE_CHECKING:
    from torch import Tensor

LIST_LENGTHS = (2, 3, 1, 4)
"""Lengths of the lists to try, the likeliest first."""

NESTED_REMEDY = "give it as input_data, or name a function that returns (module, (argument,))"
"""How to give an argument that is no tensor."""

KEYWORDS_REMEDY = (
    "give input_data in Python, a dict by keyword, or name a function that returns (module, {keyword: tensor})"
)
"""How to give arguments that forward takes by keyword alone."""

MOST_KEYS = 16
"""The most keys of a dict to look for."""


def other_form(failed: Run) -> str:
    """Return the remedy for a run that failed on one tensor: another form of it, on which forward runs.

    Empty if there is none, or forward takes several arguments.
    """
    from torch import Tensor

    given = failed.inputs
    if given.kwargs or len(given.args) != 1 or not isinstance(given.args[0], Tensor):
        return ""
    with catch_warnings():
        simplefilter("ignore")
        for what, inputs in _forms(failed, given.args[0]):
            if _runs(failed, inputs):
                return f"forward takes {what}: {_how_to_give(inputs)}"
        keys = _missing_keys(failed, given.for_samples(1))
    return f"forward takes a dict with {', '.join(keys)}: {_how_to_give_dict(keys)}" if keys else ""


def argument_form(failed: Run, signature: str, likeliest: CallInputs) -> str:
    """Return the remedy for a call whose arguments forward does not have; empty if none is known to run.

    What was given may be the only argument, as a dict or a list. Else forward may take the `likeliest` inputs.
    """
    given = failed.inputs.for_samples(1)
    several = len(given.args) > 1 and not given.kwargs
    whole = dict(given.kwargs) if given.kwargs and not given.args else list(given.args) if several else None
    forms = (*((replace(given, args=(whole,), kwargs={}),) if whole else ()), likeliest)
    with catch_warnings():
        simplefilter("ignore")
        for inputs in forms:
            if fits_signature(failed.module, inputs) and _runs(failed, inputs):
                one = "the size" if inputs is likeliest else "it as one argument"
                return f"it takes {signature}: give {one}, as in {_how_to_give(inputs)}"
    return ""


def runs_with_numbers(failed: Run) -> bool:
    """Return whether a run that failed works with a number for each sample in place of one for all."""

    def with_sample(tensor: Tensor) -> Tensor:
        return tensor if tensor.dim() else tensor.reshape(1)

    with catch_warnings():
        simplefilter("ignore")
        return _error(failed, failed.inputs.map(with_sample)) is None


def _how_to_give_dict(keys: list[str]) -> str:
    """Return the remedy for a dict whose sizes are unknown."""
    if len(keys) > 1 and names_options():
        return f"give its sizes: {' '.join(option('input_size', f'{key}=SIZE') for key in keys)}"
    return NESTED_REMEDY


def _forms(failed: Run, tensor: object) -> Iterator[tuple[str, CallInputs]]:
    from torch import Tensor

    assert isinstance(tensor, Tensor)
    single = failed.inputs.for_samples(1)
    one = single.args[0]
    assert isinstance(one, Tensor)
    if single.batch_axis == 0 and one.dim() > 1:
        yield "an input without a batch", replace(single, args=(one[0],), batch_axis=None)
    if one.dim() == 4:
        yield "channels last", replace(single, args=(one.permute(0, 2, 3, 1),))
    for length in LIST_LENGTHS:
        yield f"a list of {length}", replace(single, args=([one] * length,))
    keys = _missing_keys(failed, single)
    if keys:
        yield "a dict", replace(single, args=(dict.fromkeys(keys, one),))


def _missing_keys(failed: Run, inputs: CallInputs) -> list[str]:
    """Return the keys that forward reads from a dict."""
    keys: list[str] = []
    while len(keys) < MOST_KEYS:
        data = dict.fromkeys(("", *keys), inputs.args[0])
        error = _error(failed, replace(inputs, args=(data,)))
        if not isinstance(error, KeyError) or not isinstance(error.args[0], str) or error.args[0] in data:
            break
        keys.append(error.args[0])
    return keys


def _error(failed: Run, inputs: CallInputs) -> Exception | None:
    return run(failed.module, inputs, failed.network.name).error


def _runs(failed: Run, inputs: CallInputs) -> bool:
    with suppress(Exception):
        result = run(failed.module, inputs, failed.network.name)
        return (
            result.error is None
            and result.returns == "tensors"
            and any(node.parameters for node in result.network.nodes)
        )
    return False


def _how_to_give(inputs: CallInputs) -> str:
    return inputs.options or f"name a function that returns (module, {inputs.literal})"
