"""Text that shows what it holds and does nothing."""

from __future__ import annotations

from vggscope.errors import printable


def visible(text: str) -> str:
    r"""Text with each character that steers a terminal, or hides, shown as its code.

    >>> visible("conv\x1b[31m1")
    'conv\\x1b[31m1'
    """
    return printable(text, len(text))
