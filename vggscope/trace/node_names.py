"""The names of the nodes that calls are recorded as, and sentences on those whose cost is unknown."""

from __future__ import annotations

from collections.abc import Container, Mapping, MutableMapping, Sequence


def unique_name(base: str, taken: Container[str], reserved: Container[str], repeats: MutableMapping[str, int]) -> str:
    """Return the name, with :2, :3, ... if it is taken or reserved.

    `repeats` has the last number of each name, so that a thousand calls of one function need no thousand searches.

    >>> numbers = {}
    >>> unique_name("add", (), (), numbers), unique_name("add", {"add"}, (), numbers)
    ('add', 'add:2')
    """
    if base not in taken and base not in reserved:
        return base
    number = repeats.get(base, 1) + 1
    while f"{base}:{number}" in taken:
        number += 1
    repeats[base] = number
    return f"{base}:{number}"


def cost_warnings(unknown: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Return a sentence for each op whose cost is unknown, from the names of its nodes.

    >>> cost_warnings({"fft": ["fft", "fft:2"]})
    ('fft: the cost of fft is unknown, and of 1 more call of it',)
    """
    return tuple(
        f"{places[0]}: the cost of {op} is unknown"
        + (f", and of {len(places) - 1} more call{'s' * (len(places) > 2)} of it" if len(places) > 1 else "")
        for op, places in unknown.items()
    )
