"""Every way in which vggscope says no.

    VggscopeError
    ├── ModelError        a MODEL word that names nothing, or names it wrongly
    │   ├── NotationError a line of Table 1 notation with a word that cannot be read
    │   └── CheckpointError a checkpoint that cannot be read, or that holds code
    ├── ShapeError        a layer that does not fit the tensor it meets
    ├── OptionError       an option's value that makes no sense
    ├── OutputError       a file that cannot be written
    └── MissingTool       a package or a program that is not installed

An error's text is one or two lines: what was wrong, then what would work. Only `cli/` prints it and exits, with
`exit_code`.
"""

from __future__ import annotations

from collections.abc import Iterable


class VggscopeError(Exception):
    """The root: catch it to catch whatever vggscope raises on purpose."""

    exit_code = 2

    def __init__(self, problem: str, remedy: str = "") -> None:
        super().__init__(problem, remedy)
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        return "\n".join(filter(None, (self.problem, self.remedy)))


class ModelError(VggscopeError):
    """The word for the model names nothing that can be found, or not a model."""


class NotationError(ModelError):
    """A line of Table 1 notation has a word that cannot be read there."""


class CheckpointError(ModelError):
    """A checkpoint that is no such file, is damaged, holds code, or is not what it says."""


class ShapeError(VggscopeError):
    """A layer does not fit the tensor that it meets."""


class OptionError(VggscopeError):
    """An option's value makes no sense, alone or with this model."""


class OutputError(VggscopeError):
    """A result cannot be written where it was asked for."""


class MissingTool(VggscopeError):
    """A package or a program that this needs is not installed."""


def nearest(word: str, known: Iterable[str]) -> str:
    """What to add to a message on an unknown word: the known one that it is nearest to, if any is.

    >>> nearest("ligth", ["light", "dark"]), nearest("blue", ["light", "dark"])
    (', did you mean light?', '')
    """
    from difflib import get_close_matches

    by_case = {name.lower(): name for name in known}
    found = get_close_matches(word.lower(), by_case, n=1)
    return f", did you mean {by_case[found[0]]}?" if found else ""


def printable(text: str, longest: int = 80) -> str:
    r"""A text from a file that we do not trust, as a message may show it: one line, no control characters, not long.

    >>> printable("conv1\x1b[31m"), printable("a" * 100, longest=8)
    ('conv1\\x1b[31m', 'aaaaa...')
    """
    text = text if len(text) <= longest else text[: longest - 3] + "..."
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)
