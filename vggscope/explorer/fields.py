"""Receptive fields as the page takes them: what every unit of every layer covers, in few numbers."""

from __future__ import annotations

from vggscope.analysis.receptive_field.ranges import Extent, Flattened, Regular, spans
from vggscope.analysis.receptive_field.result import LayerField, describe
from vggscope.analysis.receptive_field.view import UnknownView, View, views
from vggscope.graph import Network

MOST_SPANS = 20_000
"""More than this many single units are not put into a page: their layers show their figures and no box."""


def fields_of(network: Network) -> dict[str, object]:
    """`layers`: each layer's figures with its `sides`, for height and width [whether the side has units of its own, the
    number of its extent]. `extents`: {n, size, stride, padding} where all units follow the rule, else {n, spans}.
    """
    seen = views(network)
    extents = _Extents()
    layers = [_layer(field, seen[field.name], extents) for field in describe(network).layers]
    return {"layers": layers, "extents": extents.found}


class _Extents:
    """Each extent once: layers share them."""

    def __init__(self) -> None:
        self.found: list[dict[str, object]] = []
        self._places: dict[str, int] = {}
        self._spans = 0

    def place(self, extent: Extent) -> int | None:
        base = extent.base if isinstance(extent, Flattened) else extent
        data: dict[str, object] = {"n": base.units}
        if isinstance(base, Regular):
            data.update(size=base.size, stride=base.stride, padding=base.padding)
        else:
            data["spans"] = spans(base)
        key = repr(data)
        if key not in self._places:
            self._spans += 0 if isinstance(base, Regular) else base.units
            if self._spans > MOST_SPANS:
                return None
            self._places[key] = len(self.found)
            self.found.append(data)
        return self._places[key]


def _layer(field: LayerField, view: View | UnknownView, extents: _Extents) -> dict[str, object]:
    sides: list[tuple[bool, int | None]] = []
    if isinstance(view, View):
        sides = [(side.axis is not None, extents.place(side.extent)) for side in view.sides]
    whole = len(sides) > 0 and all(place is not None for _, place in sides)
    return {
        "size": field.size,
        "stride": field.stride,
        "padding": field.padding,
        "map": field.map,
        "note": field.note,
        "sides": sides if whole else None,
    }
