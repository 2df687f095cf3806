"""The list of differences in the page of a diff, each with links to its places in the drawing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby

from vggscope.diffing.result import EFFECTS, Diff, Difference
from vggscope.drawing.diff.marks import Mark, harmless_text, is_harmless, marks, ranked
from vggscope.drawing.diff.rows import name_text
from vggscope.render.html import escaped

MOST_PLACES, MOST_FOLLOWS = 12, 3
"""The most places and the most consequent differences that are shown unfolded."""

LOOKS = {"+": "plus", "-": "minus", "~": "changed", "!": "wrong", "=": "same", "?": "unreached"}
"""The CSS class of each sign."""


def listed(diff: Diff) -> str:
    """Return the section: the filters, the differences with an effect, then all others folded."""
    marked, places = marks(diff), _places(diff)
    order = ranked(diff)
    matter = [index for index in order if not is_harmless(diff.differences[index])]
    harmless = [index for index in order if is_harmless(diff.differences[index])]
    renamed = [difference for difference in diff.differences if difference.kind == "renamed"]
    items = "".join(_item(diff, index, marked[index], places.get(index, {})) for index in matter)
    folded = "".join(_item(diff, index, marked[index], places.get(index, {})) for index in harmless)
    folded += "".join(f'<li class="difference none">{_renamed(difference)}</li>\n' for difference in renamed)
    return (
        '<section aria-labelledby="differences">\n'
        '<div class="bar"><h2 id="differences" tabindex="-1">Differences</h2>\n'
        '<p class="tools" id="list-tools"></p></div>\n'
        f"{_filters(diff)}"
        f"{f'<ol class={chr(34)}list{chr(34)}>{chr(10)}{items}</ol>' if items else _nothing(diff)}\n"
        f"{_folded(diff, folded, is_open=not matter and bool(harmless)) if folded else ''}</section>\n"
    )


def _nothing(diff: Diff) -> str:
    same = "There are none." if not diff.differences else "None has an effect."
    return f'<p class="quiet">{same}</p>'


def _folded(diff: Diff, items: str, *, is_open: bool) -> str:
    """The harmless differences under a line that counts them."""
    indices = [index for index, difference in enumerate(diff.differences) if is_harmless(difference)]
    return (
        f'<details class="harmless"{" open" if is_open else ""}>\n<summary>{escaped(harmless_text(diff, indices))}'
        f'</summary>\n<ol class="list">\n{items}</ol>\n</details>\n'
    )


def _filters(diff: Diff) -> str:
    """A box for each effect that occurs, if there are several; the style hides what is not ticked. Differences without
    effect begin hidden in the drawing.
    """
    counts = {effect: sum(d.effect == effect for d in diff.differences) for effect in reversed(EFFECTS)}
    boxes = "".join(
        f'<label><input type="checkbox" id="show-{effect}"{"" if effect == "none" else " checked"}> '
        f"{EFFECTS[effect]} ({count:,})</label>\n"
        for effect, count in counts.items()
        if count
    )
    if sum(map(bool, counts.values())) < 2:
        return ""
    return f'<fieldset class="filters"><legend>Show</legend>\n{boxes}</fieldset>\n'


def badge(mark: Mark, target: str, label: str) -> str:
    """Return a mark as a link to `target`, the id of a place in the page."""
    look = f"badge {LOOKS[mark.sign]}{' hollow' if mark.quiet else ''}"
    return f'<a class="{look}" href="#{target}" aria-label="{label}">{escaped(mark.text)}</a>'


def _places(diff: Diff) -> dict[int, dict[int, str]]:
    """The places of each difference: the number of the first row of each run of rows, with the name of its layer."""
    found: dict[int, dict[int, str]] = {}
    for index, run in groupby(enumerate(diff.rows), key=lambda numbered: numbered[1].difference):
        if index is not None:
            number, row = next(run)
            layer = row.our_layer or row.reference_layer
            found.setdefault(index, {})[number] = name_text(layer) if layer else row.ours
    return found


def _item(diff: Diff, index: int, mark: Mark, places: Mapping[int, str]) -> str:
    difference = diff.differences[index]
    first = next(iter(places), None)
    number = mark.number or 0
    shown = (
        badge(mark, f"row-{first}", f"difference {number}: show it in the drawing")
        if first is not None
        else f'<span class="badge {LOOKS[mark.sign]}">{escaped(mark.text)}</span>'
    )
    return (
        f'<li class="difference {difference.effect}" id="difference-{number}" tabindex="-1">{shown}\n'
        f'<div><p class="message">{escaped(difference.message)} '
        f'<span class="effect">{difference.effect_text}</span></p>\n'
        f"{''.join(_details(difference))}{_links(places)}</div></li>\n"
    )


def _details(difference: Difference) -> Iterator[str]:
    """The line of code with its remedy, what follows from a difference, and the differences that it explains."""
    if difference.line:
        yield f'<p class="mend"><code>{escaped(difference.line)}</code>{_remedy(difference.remedy)}</p>\n'
    if difference.consequences:
        yield f"<p>{escaped('; '.join(difference.consequences))}</p>\n"
    texts = [f"<li>{escaped(text)}</li>" for text in difference.follows]
    if len(texts) > MOST_FOLLOWS:
        yield f"<details><summary>{len(texts):,} more with it</summary>\n<ul>\n{''.join(texts)}\n</ul></details>\n"
    elif texts:
        yield f"<p>With it:</p>\n<ul>\n{''.join(texts)}\n</ul>\n"


def _remedy(remedy: str) -> str:
    """What to do with the line; code to write is set as code."""
    verb, _, code = remedy.partition(" ")
    if verb == "write":
        return f": write <code>{escaped(code)}</code>"
    return f": {escaped(remedy)}" if remedy else ""


def _links(places: Mapping[int, str]) -> str:
    """Links to the places in the drawing."""
    links = [f'<a href="#row-{number}">{escaped(name)}</a>' for number, name in places.items()]
    if not links:
        return ""
    # A fold that hides a single place would save nothing.
    shown = len(links) if len(links) <= MOST_PLACES + 1 else MOST_PLACES
    first, more = ", ".join(links[:shown]), ", ".join(links[shown:])
    summary = f"<summary>{len(links) - shown:,} more places</summary>"
    folded = f'<details class="places">{summary}{more}</details>' if more else ""
    return f'<p class="places">In the drawing: {first}</p>{folded}\n'


def _renamed(difference: Difference) -> str:
    if difference.ours == difference.reference:
        text = escaped(difference.message)
    else:
        text = f"<code>{escaped(difference.ours or '')}</code> is <code>{escaped(difference.reference or '')}</code>"
        text += " in the reference"
    return f'<span class="badge same hollow">=</span>\n<div><p class="message">{text}</p></div>'
