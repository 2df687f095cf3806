"""Text that shows what it holds and does nothing."""

from __future__ import annotations

import re

# C0 and C1 controls, and the marks that turn the direction of text or break its line.
_STEERING = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")


def visible(text: str) -> str:
    r"""Text with each character that steers a terminal, or hides, shown as its code.

    >>> visible("conv\x1b[31m1")
    'conv\\x1b[31m1'
    """
    return _STEERING.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)
