"""A call in Python source, broken over lines where a formatter would break it.

The rule is that of ruff and black: what fits stands on one line; else the arguments move to a line of their own; else
each argument has its own line and ends with a comma.
"""

from __future__ import annotations

from vggscope.record import record

WIDTH = 100
"""The longest line that is written, in characters, as far as names allow."""


@record
class Call:
    """`function(arguments)`: an argument is source text or a call. `spread` gives each argument its own line in any
    case.
    """

    function: str
    arguments: tuple[str | Call, ...] = ()
    comment: str = ""
    spread: bool = False

    @property
    def text(self) -> str | None:
        """The call on one line, its comment left out; None where a call in it is spread."""
        arguments = self._arguments
        return None if self.spread or arguments is None else f"{self.function}({arguments})"

    @property
    def _arguments(self) -> str | None:
        texts = [argument.text if isinstance(argument, Call) else argument for argument in self.arguments]
        known = [text for text in texts if text is not None]
        return ", ".join(known) if len(known) == len(texts) else None

    def lines(self, indent: int, before: str = "", after: str = "") -> list[str]:
        """The call's lines, `before` and `after` standing on the first and the last of them.

        >>> Call("f", ("a", "b=2"), comment="why").lines(4, "x = ")
        ['    x = f(a, b=2)  # why']
        """
        ending = after + (f"  # {self.comment}" if self.comment else "")
        if self.text is not None and _fits(whole := " " * indent + before + self.text + ending):
            return [whole]
        inner = indent + 4
        body = None if self.spread else self._arguments
        if body is not None and _fits(alone := " " * inner + body):
            arguments = [alone]
        else:
            arguments = [line for argument in self.arguments for line in _lines(argument, inner)]
        return [f"{' ' * indent}{before}{self.function}(", *arguments, f"{' ' * indent}){ending}"]


def _lines(argument: str | Call, indent: int) -> list[str]:
    return [f"{' ' * indent}{argument},"] if isinstance(argument, str) else argument.lines(indent, after=",")


def _fits(line: str) -> bool:
    return len(line) <= WIDTH
