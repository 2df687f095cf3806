"""The Document of a summary: the layers and the totals."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from operator import attrgetter

from vggscope.analysis.operations import Operations
from vggscope.analysis.summary import LayerSummary, OtherParameters, Summary, Totals
from vggscope.analysis.tensors import sizes_text
from vggscope.document import Block, Column, Document, Facts, Note, Table, keys_of
from vggscope.dtypes import MIXED
from vggscope.units import (
    BINARY,
    BatchShape,
    at_least,
    bytes_text,
    count_text,
    pair_text,
    positions_word,
    short_count,
)


def known_pair(pair: tuple[int, ...] | None) -> str:
    """A pair as text; nothing for a layer without one."""
    return pair_text(pair) if pair else ""


class TreePath(str):
    """The path of a row in a tree of modules. Text shows its depth as indentation, data the path alone."""

    depth: int

    def __new__(cls, path: str, depth: int) -> TreePath:
        row = super().__new__(cls, path)
        row.depth = depth
        return row


def path_text(path: str) -> str:
    """A path as text, indented in a tree."""
    return "  " * (path.depth - 1) + path if isinstance(path, TreePath) else path


COLUMNS = (
    Column("name", "layer", path_text),
    Column("label", "label", priority=4),
    Column("op", "op", priority=5),
    Column("input_shape", "input", BatchShape.text, priority=20),
    Column("output_shape", "output", BatchShape.text, right=True, priority=1),
    Column("dtype", "dtype", priority=4),
    Column("kernel_size", "kernel", known_pair, right=True, priority=20),
    Column("stride", "stride", known_pair, right=True, priority=20),
    Column("padding", "padding", known_pair, right=True, priority=20),
    Column("rule", "(W-K+2P)/S+1", lambda rule: rule or "", priority=8),
    Column("params", "params", count_text, right=True, priority=2),
    Column("macs", "MACs", short_count, right=True, priority=3),
    Column("flops", "FLOPs", short_count, right=True, priority=20),
    Column("activation_bytes", "memory", bytes_text, right=True, priority=6),
    Column("receptive_field", "field", pair_text, right=True, priority=7),
    Column("line", "line", priority=20),
)

MOST_OTHERS = 3
"""How many parameters outside the layers are named for one reason."""

SHOWN = (
    *("name", "label", "op", "output_shape", "dtype", "rule"),
    *("params", "macs", "activation_bytes", "receptive_field"),
)
"""The columns that are shown by default."""


def document(report: Summary, columns: tuple[str, ...] | None = None) -> Document:
    """The table with these columns, then the totals. Without `columns`, empty columns are left out."""
    usual = usual_dtype(report)
    rows = tuple(zip(*(_values(report.layers, column.key, usual) for column in COLUMNS)))
    is_quiet = [layer.params == 0 and layer.kernel_size is None for layer in report.layers]
    total = {
        "name": "total",
        "params": report.totals.params,
        "macs": report.totals.macs,
        "flops": report.totals.flops,
        "activation_bytes": report.totals.activation_bytes,
    }
    sums = tuple(total.get(column.key, "") for column in COLUMNS)
    table = Table(COLUMNS, rows, frozenset(place for place, quiet in enumerate(is_quiet) if quiet), total=sums)
    title = f"{report.title or report.model}   input {inputs_text(report)}, {report.dtype}"
    chosen = columns or tuple(key for key in SHOWN if table.holds(key))
    others = (warning for warning in report.warnings if warning not in report.alerts)
    table = table.choose(chosen)
    shown: tuple[Block, ...] = (table,)
    if report.modules:
        # Rows that sum up others do not belong into data that programs add up.
        shown = (_tree(report, table, is_quiet), replace(table, data=True))
    return Document(title, (*_notes(report.alerts), *shown, _totals(report), *_notes(others)))


def _tree(report: Summary, table: Table, is_quiet: list[bool]) -> Table:
    """The table with a row for each module above the rows that it sums up, and paths indented by depth."""
    keys = [column.key for column in table.columns]
    rows, quiet = list[tuple[object, ...]](), set[int]()
    heads = list(report.modules)
    for number, (layer, row) in enumerate(zip(report.layers, table.rows)):
        while heads and heads[0].first == number:
            module = heads.pop(0)
            path = TreePath(module.name, module.depth)
            rows.append(tuple(path if key == "name" else getattr(module, key, "") for key in keys))
        quiet |= {len(rows)} if is_quiet[number] else set()
        path = TreePath(layer.name, 1 + layer.name.count("."))
        rows.append(tuple(path if key == "name" else value for key, value in zip(keys, row)))
    return replace(table, rows=tuple(rows), quiet=frozenset(quiet))


def _notes(warnings: Iterable[str]) -> tuple[Block, ...]:
    return tuple(Note(f"note: {warning}", "warning") for warning in warnings)


def line(report: Summary) -> str:
    """The number of layers, the parameters and the MACs."""
    totals = report.totals
    return (
        f"{report.model} at {inputs_text(report)}: {len(report.layers)} layers,"
        f" {at_least(totals.params)}{count_text(totals.params_known)} parameters,"
        f" {at_least(totals.macs)}{short_count(totals.macs_known, 'MACs')}"
    )


def inputs_text(report: Summary | Operations) -> str:
    """The sizes of the inputs, with the batch if that is not 1."""
    return sizes_text(report.inputs, report.dtype) + (f" x {report.batch}" if report.batch != 1 else "")


def column_keys(names: str | None, count: str = "macs") -> tuple[str, ...] | None:
    """The keys of the columns in a comma-separated list of keys or headings; None for the usual ones.

    Without `names`, FLOPs take the place of MACs if all operations `count`. Raises OptionError for an unknown column.
    """
    if names is None:
        return None if count == "macs" else tuple("flops" if key == "macs" else key for key in SHOWN)
    aliases = {"rf": "receptive_field", "field": "receptive_field", "shape": "output_shape"}
    return keys_of(COLUMNS, names.split(","), aliases, SHOWN[:4])


def usual_dtype(report: Summary | Operations) -> str:
    """The dtype that the title states, which the rows leave out."""
    return "float32" if report.dtype == MIXED else report.dtype


def _values(layers: Sequence[LayerSummary], key: str, usual: str) -> list[object]:
    """The values in a column. The dtype is shown where it is not the `usual` one."""
    values = list(map(attrgetter(key), layers))
    if key == "dtype":
        return ["" if value == usual else value for value in values]
    if key in ("input_shape", "output_shape"):
        axes = [layer.batch_axes[key == "output_shape"] for layer in layers]
        shapes = {pair: BatchShape(*pair) for pair in dict.fromkeys(zip(values, axes))}
        return [shapes[pair] for pair in zip(values, axes)]
    if key == "receptive_field":
        sizes = [field.size if field else None for field in values]
        shared = dict(zip(sizes, sizes))
        return [shared[size] for size in sizes]
    if key in ("rule", "kernel_size", "stride", "padding"):
        return ["" if value is None else value for value in values]
    return values


def _totals(report: Summary) -> Facts:
    totals, memory = report.totals, report.memory
    items = [("outputs", sizes_text(report.outputs, report.dtype))] if len(report.outputs) > 1 else []
    items += [
        ("parameters", _parameters(report)),
        ("MACs", f"{at_least(totals.macs)}{count_text(totals.macs_known)}  ({_flops(totals)})"),
        (
            "activations",
            f"{bytes_text(totals.activation_bytes)}, each output once; 0 where it shares its input's memory",
        ),
    ]
    if memory.inference_peak_bytes is not None:
        items += [
            ("peak memory", f"{bytes_text(memory.inference_peak_bytes)} for inference, batch {report.batch}"),
        ]
    if memory.training_peak_bytes is not None:
        items += [
            ("", f"{bytes_text(memory.training_peak_bytes)} for training with SGD and momentum, batch {report.batch}"),
        ]
    sides = next((len(row.receptive_field.size) for row in report.layers if row.receptive_field), 2)
    units = ("units", f"{BINARY}; field: the receptive field's side, in {positions_word(sides)} of the input")
    tree = (
        [("modules", "the row of a module is the sum of the rows that are indented below it")] if report.modules else []
    )
    return Facts((*items, *_others(totals.other_params), *tree, units))


def _parameters(report: Summary) -> str:
    """The number of parameters, of those that are frozen, and their memory."""
    totals = report.totals
    if totals.params is None or totals.trainable_params is None:
        return f"at least {count_text(totals.params_known)}"
    frozen = totals.params - totals.trainable_params
    trainable = f", {'all' if frozen == totals.params else count_text(frozen)} of them frozen" if frozen else ""
    return f"{count_text(totals.params)}{trainable}  ({bytes_text(totals.param_bytes)}{_dtypes(report)})"


def _dtypes(report: Summary) -> str:
    """The parameters by dtype, if they are not all of the title's."""
    dtypes = report.totals.dtypes
    if [entry.dtype for entry in dtypes] in ([], [report.dtype]):
        return ""
    return ": " + ", ".join(f"{count_text(entry.params)} {entry.dtype}" for entry in dtypes)


def _flops(totals: Totals) -> str:
    if totals.macs is not None and totals.flops not in (None, 2 * totals.macs):
        more = count_text(totals.flops - 2 * totals.macs)
        return f"FLOPs {count_text(totals.flops)} = 2 x MACs + {more} other operations"
    return f"FLOPs {at_least(totals.flops)}{count_text(totals.flops_known)} = 2 x MACs; bias left out"


def _others(others: tuple[OtherParameters, ...]) -> Iterator[tuple[str, str]]:
    """The parameters outside the layers, grouped by the reason."""
    for why in dict.fromkeys(other.why for other in others):
        group = [other for other in others if other.why == why]
        names = ", ".join(other.name for other in group[:MOST_OTHERS])
        more = f" and {len(group) - MOST_OTHERS} more" if len(group) > MOST_OTHERS else ""
        yield "other", f"{count_text(sum(other.params for other in group))} parameters, {why}: {names}{more}"
