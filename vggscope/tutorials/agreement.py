"""A lesson's code run by torch, and what comes of it beside what was worked out."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from vggscope.errors import OptionError
from vggscope.suppress import suppress_output
from vggscope.tutorials.lesson import Agreement, Code, Lesson

TOLERANCE = 1e-5
"""How far apart two results may be, as a share of the larger: float32 carries seven digits."""


def with_torch(lesson: Lesson) -> Lesson:
    """The lesson with torch's word on it.

    Raises OptionError where nothing in it can be run.
    """
    codes = list(lesson.codes())
    if not codes:
        raise OptionError(f"topic {lesson.topic} has no code for torch to run", "leave --torch out")
    import torch

    errors = [error for code in codes for error in _errors(code)]
    found = Agreement(torch.__version__, max(error for error, _ in errors), all(fits for _, fits in errors))
    return replace(lesson, torch=found)


def run(code: Code) -> object:
    """What the code's variable `y` holds in the end."""
    names: dict[str, object] = {}
    with suppress_output():  # what the code prints would stand before the lesson, and make its JSON none
        exec(compile(code.text, "<lesson>", "exec"), names)  # noqa: S102  # our own text, the very one that is printed
    y = names["y"]
    return y.tolist() if hasattr(y, "tolist") else y


def _errors(code: Code) -> list[tuple[float, bool]]:
    """Each number's distance from the one that was worked out, and whether that is rounding."""
    theirs, ours = _flat(run(code)), _flat(code.gives)
    if len(theirs) != len(ours):
        return [(float("inf"), False)]
    return [(abs(a - b), abs(a - b) <= TOLERANCE * max(1.0, abs(a), abs(b))) for a, b in zip(theirs, ours)]


def _flat(value: object) -> list[float]:
    if isinstance(value, (list, tuple)):
        return [number for item in value for number in _flat(item)]
    return [float(cast("float", value))]
