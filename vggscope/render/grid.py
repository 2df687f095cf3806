"""The estimates of a grid as CSV or JSON lines. The functions are generators: a grid may have millions of lines."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import groupby
from operator import itemgetter
from types import MappingProxyType

from vggscope.analysis.memory.grid import Estimate
from vggscope.render.csv import cell

SCHEMA = "vggscope/grid@1"

_POINT = itemgetter(slice(Estimate._fields.index("batch")))
"""The fields before `batch`: equal for estimates that differ only in the batch size."""


def csv_lines(estimates: Iterable[Estimate]) -> Iterator[str]:
    """Comma-separated values below a header with the names of the fields.

    >>> list(csv_lines([Estimate("A", (3, 64, 64), "train", "sgd", "amp", 8, 1000)]))[1].strip()
    'A,3x64x64,train,sgd,amp,8,1000'
    """
    import csv
    from io import StringIO

    yield ",".join(Estimate._fields) + "\n"
    for point, group in groupby(estimates, _POINT):
        out = StringIO()
        csv.writer(out, lineterminator="").writerow([cell(value) for value in point])
        start = out.getvalue()
        for *_, batch, peak in group:
            yield f"{start},{batch},{peak}\n"


def json_lines(estimates: Iterable[Estimate]) -> Iterator[str]:
    """JSON lines: one object per line.

    >>> "".join(json_lines([Estimate("A", (3, 64, 64), "inference", None, "amp", 8, 1000)])).count("null")
    1
    """
    for point, group in groupby(estimates, _POINT):
        start = json.dumps({"schema": SCHEMA, **dict(zip(Estimate._fields, point))})[:-1]
        for *_, batch, peak in group:
            yield f'{start}, "batch": {batch}, "peak_bytes": {peak}}}\n'


LINES: Mapping[str, Callable[[Iterable[Estimate]], Iterator[str]]] = MappingProxyType(
    {"csv": csv_lines, "json": json_lines}
)
"""The formats that can write a row before the next is computed."""
