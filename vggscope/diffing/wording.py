"""The words of a comparison: what its table, its other texts and its picture all say."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields, replace
from itertools import groupby

from vggscope.diffing.result import EFFECTS, Diff, Difference, Numeric, Row
from vggscope.document import Item
from vggscope.errors import option
from vggscope.ops.base import Op, Shape
from vggscope.ops.constant import WithConstants
from vggscope.ops.recorded import Recorded
from vggscope.record import record
from vggscope.units import count_text, pair_text, shape_text

SIGNS = {"inserted": "+", "missing": "-", "changed": "~", "renamed": "="}
"""The sign of each kind of difference, so that no colour is needed."""

_TRACED_FIELDS = frozenset(field.name for field in fields(Recorded)) - {"arguments_given"}
"""Fields of ops that only a run of the module shows; nobody writes them."""

_KNOWN_VALUES = re.compile(r"(?P<type>\w+ \([\d, ]*\)) (?P<values>\[.*\]|[0-9a-f]{32,64})")
"""The text of a constant whose values are known: its dtype and shape, then its few values or their digest."""

CONTEXT = 1
"""How many identical layers are shown before and after a difference."""


def verdict_text(diff: Diff) -> str:
    """The verdict in a sentence."""
    if not diff.compared and diff.likeness is not None:
        return f"no VGG: {diff.reference} is the nearest, with {diff.likeness.text}; {option('ref')} names a reference"
    if diff.verdict == "alike":
        return "the same layers in the same order, with the same shapes and parameters: a summary tells no more"
    if diff.verdict == "identical":
        return "the same layers in the same order, with the same attributes, paths and state-dict keys"
    if diff.verdict == "equivalent":
        return "written differently, the same function of this input at evaluation"
    if not all(difference.known for difference in diff.differences):
        return "it is not known whether they compute the same"
    count = sum(difference.changes_output for difference in diff.differences)
    which = "1 difference that changes" if count == 1 else f"{count} differences that change"
    return f"{which} what is computed"


def difference_items(differences: Iterable[Difference]) -> tuple[Item, ...]:
    """An item of each difference. A remedy that stands at one before is not written out again."""
    given: set[tuple[str, str]] = set()
    items = []
    for difference in differences:
        place = (difference.line, difference.remedy)
        is_again = difference.remedy != "" and place in given
        given.add(place)
        items.append(difference_item(replace(difference, remedy="the same, as above") if is_again else difference))
    return tuple(items)


def difference_item(difference: Difference) -> Item:
    """One difference: its message and effect, then the user's line with the remedy, what results, and what follows."""
    consequences = ("; ".join(difference.consequences),) if difference.consequences else ()
    where = (": ".join(filter(None, (difference.line, difference.remedy))),) if difference.line else ()
    follows = _shortened(difference.follows, 3 if difference.changes_output else 1)
    return Item(
        SIGNS[difference.kind],
        f"{difference.message}  [{difference.effect_text}]",
        (*where, *consequences, *(f"with it: {text}" for text in follows)),
        quiet=not difference.changes_output,
    )


def is_style(difference: Difference) -> bool:
    """Whether a difference is about names alone, or about whether a layer works in place."""
    attributes = {change.attribute for change in difference.changes}
    return difference.effect == "none" and (difference.kind == "renamed" or attributes == {"inplace"})


def style_item(styles: Sequence[Difference], layers: int) -> Item:
    """The differences of style, of so many layers, as one closing line."""
    renamed = sum(difference.kind == "renamed" for difference in styles)
    counts = [(renamed, "named differently"), (layers - renamed, "in place or not")]
    shown = [f"{count} layer{'s' * (count > 1)} {text}" for count, text in counts if count]
    how = f"{option('list_all', True)} lists them"
    return Item("=", f"{' and '.join(shown)}  [{EFFECTS['none']}; {how}]", quiet=True)


def renamed_item(renamed: Sequence[Difference], most: int | None = 3) -> Item:
    """All layers that differ in their names alone, as one item with at most so many examples; None for all."""
    count = f"{len(renamed)} layers are" if len(renamed) > 1 else "1 layer is"
    lines = tuple(
        d.message if d.ours == d.reference else f"{d.ours} is {d.reference} in the reference" for d in renamed
    )
    return Item(
        "=",
        f"{count} named differently  [{EFFECTS['none']}]",
        lines if most is None else _shortened(lines, most),
        quiet=True,
    )


def _shortened(texts: tuple[str, ...], most: int = 3) -> tuple[str, ...]:
    return texts if len(texts) <= most + 1 else (*texts[:most], f"and {len(texts) - most} more")


def totals(diff: Diff) -> list[tuple[str, str]]:
    """The parameters of both networks and, if measured, the numeric error, each with its name."""
    ours, reference = diff.params.ours, diff.params.reference
    if ours is None or reference is None:
        text = "{}, the reference {}".format(*diff.params.texts)
    elif ours == reference:
        text = f"{count_text(ours)} on both sides"
    else:
        more = f"{count_text(abs(ours - reference))} {'more' if ours > reference else 'fewer'}"
        text = f"{count_text(ours)}, the reference {count_text(reference)}: {more}"
    return [
        ("parameters", f"{text}{_not_explained(diff)}"),
        *([("numeric", _numeric_text(diff.numeric))] if diff.numeric else []),
    ]


def _not_explained(diff: Diff) -> str:
    """What of the difference in parameters does not result from the differences one by one; empty for nothing.

    Of a model that fails, a note says up to which layer it is compared.
    """
    params = diff.params
    if params.ours is None or params.reference is None or diff.failure is not None:
        return ""
    explained = sum(difference.params or 0 for difference in diff.differences)
    if params.ours - params.reference == explained:
        return ""
    unused = (("ours has", params.ours_unused), ("the reference has", params.reference_unused))
    texts = [f"{who} {count_text(count)} in modules that forward does not use" for who, count in unused if count]
    if params.ours - params.reference != explained + params.ours_unused - params.reference_unused:
        more = f"{count_text(abs(explained))} {'more' if explained > 0 else 'fewer'}" if explained else "none"
        texts.append(f"the differences one by one give {more}")
    return f"; {'; '.join(texts)}"


def _numeric_text(numeric: Numeric) -> str:
    first = f"; the first mismatch is at {numeric.parts_at}" if numeric.parts_at else ""
    if numeric.parts_error is not None and numeric.engines:
        first += f": relative error {numeric.parts_error:.3g}, rounding gives up to {numeric.tolerance:g}"
    how = f", {' beside '.join(dict.fromkeys(numeric.engines))}" if numeric.engines else ""
    if numeric.max_abs_error == float("inf"):
        return f"undefined: the outputs differ in size{how}{first}{_unmatched_text(numeric)}"
    return (
        f"largest error {numeric.max_abs_error:.3g} (relative {numeric.max_rel_error:.3g})"
        f" on one seeded {shape_text(numeric.input_shape)} input, seed {numeric.seed}, {numeric.dtype}{how}"
        f"{_weights_text(numeric)}{first}{_unmatched_text(numeric)}"
    )


def _weights_text(numeric: Numeric) -> str:
    """Whose weights the two had, if one of them is a file; empty for two modules."""
    if not numeric.engines:
        return ""
    if numeric.changed_weights is None:
        return "; each with its own weights"
    count = numeric.changed_weights
    changed = f"which replaced {count} other tensors" if count != 1 else "which replaced another tensor"
    return f"; with the file's weights, {changed if count else 'which are those of the module'}"


def _unmatched_text(numeric: Numeric) -> str:
    """The layers that kept weights of their own; empty for none."""
    sides = (("ours", numeric.our_unmatched), ("the reference", numeric.reference_unmatched))
    named = [f"{', '.join(_shortened(titles))} of {side}" for side, titles in sides if titles]
    return f"; weights without a counterpart, kept as they were: {'; '.join(named)}" if named else ""


@record
class FoldedRows:
    """Successive rows that are counted instead of shown; `word` says what they have in common."""

    rows: tuple[Row, ...]
    word: str

    @property
    def text(self) -> str:
        """The count with the word, such as `12 alike`."""
        return f"{len(self.rows)} {self.word}"


def folded(rows: Sequence[Row], word: Callable[[Row], str]) -> Iterator[Row | FoldedRows]:
    """The rows, with long runs of the same `word` folded. A row whose word is empty is always shown."""
    groups = [(kind, tuple(run)) for kind, run in groupby(rows, key=word)]
    for place, (kind, run) in enumerate(groups):
        first = CONTEXT if place else 0
        last = len(run) - (CONTEXT if place < len(groups) - 1 else 0)
        if not kind or last - first < 2:
            yield from run
            continue
        yield from run[:first]
        yield FoldedRows(run[first:last], kind)
        yield from run[last:]


def value_text(value: object) -> str:
    """An attribute's value as a message shows it."""
    if isinstance(value, tuple):
        if any(isinstance(item, str) for item in value):
            return " and ".join(map(str, value))
        return pair_text(value) if value else "none"
    return count_text(value) if type(value) is int else str(value)


def arguments_text(value: object) -> str:
    """The arguments of a call, `x` for each tensor: `(x, 255.0)`."""
    return f"({_argument('arguments_given', value)})" if isinstance(value, tuple) else str(value)


def constants_text(ours: str, reference: str) -> str:
    """How two different constants differ; each text is that of a ConstantValue."""
    mine, other = (_KNOWN_VALUES.fullmatch(text) for text in (ours, reference))
    if mine is None or other is None:
        return "forward computes the constant in another way than the reference"
    if mine["type"] != other["type"]:
        return f"the constant is {mine['type']}, the reference's {other['type']}"
    if not (mine["values"].startswith("[") and other["values"].startswith("[")):
        return f"the constant {mine['type']} has other values than the reference's"
    sides = (match["values"].strip("[]").split(", ") for match in (mine, other))
    different = [(place, a, b) for place, (a, b) in enumerate(zip(*sides)) if a != b]
    place, first, there = different[0]
    count = len(different) - 1
    more = f"; {count} more value{' differs' if count == 1 else 's differ'}" if count else ""
    return f"the constant {mine['type']} has {first} at position {place}, the reference has {there}{more}"


def tensors_text(shapes: tuple[Shape | None, ...]) -> str:
    """The tensors that a call reads, `x` for each that depends on the input: `(x, a tensor of 1x64x128)`.

    No shapes are those of a call that reads nothing else.
    """
    if not shapes:
        return "only what it computes from the input"
    return f"({', '.join(map(_tensor_text, shapes))})"


def _tensor_text(shape: Shape | None) -> str:
    if shape is None:
        return "x"
    return f"a tensor of {'x'.join(map(str, shape))}" if shape else "a number"


def op_text(op: Op) -> str:
    """An op as torch code: `Conv2d(64, 128, kernel_size=3, padding=1)`, `div(x, 255.0)`.

    >>> from vggscope.ops.constant import WithConstants
    >>> from vggscope.ops.elementwise import Elementwise
    >>> op_text(WithConstants(Elementwise("add"), (None, (1, 64, 128))))
    'add(x, a tensor of 1x64x128)'
    """
    arguments = {k: v for k, v in op.arguments().items() if v != op.name and k not in _TRACED_FIELDS}
    if isinstance(op, WithConstants) and not arguments:
        return f"{op.name}{tensors_text(op.constants)}"
    return f"{op.name}({', '.join(_argument(name, value) for name, value in arguments.items())})"


def _argument(name: str, value: object) -> str:
    if name == "arguments_given" and isinstance(value, tuple):
        return ", ".join("x" if argument is None else repr(argument) for argument in value)
    return repr(value) if name.endswith(("_channels", "_features")) else f"{name}={value!r}"
