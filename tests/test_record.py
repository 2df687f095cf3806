"""`record` against the standard library's frozen dataclass."""

from __future__ import annotations

import copy
import gc
import pickle
from dataclasses import FrozenInstanceError, field, fields, replace
from functools import cached_property

import pytest

from vggscope.analysis.summary import summarize
from vggscope.record import changed, record, uncollected
from vggscope.sources.resolve import resolve


@record
class Point:
    x: int
    y: int = 0
    tags: list[str] = field(default_factory=list, compare=False, repr=False)

    @cached_property
    def double(self) -> int:
        return 2 * self.x


@record
class Named(Point):
    name: str = field(default="", kw_only=True)

    def __post_init__(self) -> None:
        if self.x < 0:
            raise ValueError(self.x)


def test_values_come_by_position_by_name_and_by_default() -> None:
    assert (Point(1, 2).x, Point(1, y=2).y, Point(x=1).y, Point(1).tags) == (1, 2, 0, [])
    assert Named(1, 2, name="a").name == "a"
    assert Point(1).tags is not Point(1).tags


@pytest.mark.parametrize(
    ("values", "named", "said"),
    [
        ((), {}, "needs a value for 'x'"),
        ((1, 2, [], 4), {}, "takes 3 values, 4 were given"),
        ((1,), {"x": 1}, "got 'x' twice"),
        ((1,), {"z": 1}, "has no field 'z'"),
    ],
)
def test_what_does_not_fit_is_refused(values: tuple[object, ...], named: dict[str, object], said: str) -> None:
    with pytest.raises(TypeError, match=said):
        Point(*values, **named)


def test_equality_and_hash_go_by_class_and_compared_fields() -> None:
    assert Point(1, 2, ["a"]) == Point(1, 2, ["b"])
    assert hash(Point(1, 2, ["a"])) == hash(Point(1, 2, ["b"]))
    assert Point(1, 2) != Named(1, 2)
    assert Point(1) != Point(2)
    assert Point(1, 0) != (1, 0)


def test_it_is_frozen_and_can_cache() -> None:
    point = Point(3)
    with pytest.raises(FrozenInstanceError):
        point.x = 4
    with pytest.raises(FrozenInstanceError):
        del point.x
    assert point.double == 6
    assert point == Point(3)


def test_what_knows_dataclasses_knows_it() -> None:
    assert [f.name for f in fields(Named)] == ["x", "y", "tags", "name"]
    assert replace(Named(1, name="a"), y=5) == Named(1, 5, name="a")
    assert pickle.loads(pickle.dumps(Named(1, 2, name="a"))) == Named(1, 2, name="a")
    assert copy.deepcopy(Point(1, 2)) == Point(1, 2)
    assert repr(Named(1, 2, name="a")) == "Named(x=1, y=2, name='a')"
    with pytest.raises(ValueError, match="-1"):
        Named(-1)


def test_nothing_is_collected_until_the_outermost_context_ends() -> None:
    assert gc.isenabled()
    with uncollected():
        with uncollected():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()


def test_the_collector_is_as_it_was_before() -> None:
    @uncollected()
    def fails() -> None:
        raise ValueError(gc.isenabled())

    with pytest.raises(ValueError, match="False"):
        fails()
    assert gc.isenabled()
    gc.disable()
    try:
        with pytest.raises(ValueError, match="False"):
            fails()
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_a_summary_of_many_layers_starts_no_collection() -> None:
    network = resolve(" ".join(["conv3-8"] * 200))
    summarize(network)  # imports
    started: list[int] = []
    before = gc.get_threshold()
    gc.callbacks.append(lambda phase, info: started.append(info["generation"]))
    try:
        gc.set_threshold(100)
        summary = summarize(network)
    finally:
        gc.set_threshold(*before)
        gc.callbacks.pop()
    assert len(summary.layers) == 400
    # Each collection starts and stops: those before and after the analysis.
    assert len(started) <= 2 * 4


def test_changed_does_what_replace_does() -> None:
    point = Named(3, 4, tags=["a"], name="b")
    assert point.double == 6  # what is cached is of the old values
    moved = changed(point, x=5)
    assert (moved, moved.double, moved.tags) == (replace(point, x=5), 10, ["a"])
    assert changed(point, name="b") is point
    with pytest.raises(ValueError, match="-1"):
        changed(point, x=-1)
