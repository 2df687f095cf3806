"""A diff as one HTML page: the verdict, the differences in order of their effect, and both networks side by side.

The file holds everything and loads nothing. Without its script, which only adds keys and buttons, it shows the same.

    Diff -> head, differences, drawing -> HTML with page.css and page.js
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from vggscope._version import __version__
from vggscope.diffing.result import Diff
from vggscope.diffing.wording import totals, verdict_text
from vggscope.drawing.diff.marks import harmless_text, is_harmless, short_names
from vggscope.drawing.theme import SIGNS, Theme
from vggscope.drawing.themes import DARK, LIGHT
from vggscope.render.diff_page.differences import listed
from vggscope.render.diff_page.drawing import drawn
from vggscope.render.html import escaped
from vggscope.render.html.policy import policy

SIGN_NAMES = dict(zip(SIGNS, ("plus", "minus", "changed", "wrong", "unreached", "same")))
"""The name of each sign's colour in the style."""


_VARIABLE = "--"
"""The beginning of a CSS variable's name."""

_SKIP = '<a class="skip" href="#differences">Skip to the differences</a>\n'


def page(diff: Diff) -> str:
    """Return the page's HTML."""
    ours, reference = short_names(diff)
    title = escaped(f"{ours} against {reference}")
    style, script = f"{_colors()}\n{_read('page.css')}", _read("page.js")
    parts = [_head(diff, title), *([listed(diff), drawn(diff)] if diff.rows else []), _patch(diff), _training(diff)]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy(style, script)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{title}</title>\n"
        '<link rel="icon" href="data:,">\n'
        f"<style>{style}</style>\n</head>\n<body>\n"
        f"{_SKIP if diff.rows else ''}"
        f"<main>\n{''.join(parts)}</main>\n"
        f"<footer><p>Made by vggscope {__version__}.</p></footer>\n"
        f"<script>{script}</script>\n</body>\n</html>\n"
    )


@cache
def _read(name: str) -> str:
    return (files(__package__) / name).read_text(encoding="utf-8").strip()


def _colors() -> str:
    """The colours of both themes as CSS variables. Paper is light, whatever the theme of the screen."""
    light, dark = _variables(LIGHT), f"color-scheme: dark; {_variables(DARK)}"
    return (
        f":root {{ color-scheme: light; {light} }}\n"
        f"@media screen and (prefers-color-scheme: dark) {{ :root:not([data-theme]) {{ {dark} }} }}\n"
        f'@media screen {{ :root[data-theme="dark"] {{ {dark} }} }}'
    )


def _variables(theme: Theme) -> str:
    plain = {name: getattr(theme, name) for name in ("page", "card", "border", "ink", "muted", "track", "bar")}
    fills = {f"{kind}-fill": color for kind, color in theme.fills.items()}
    accents = {f"{kind}-accent": color for kind, color in theme.accents.items()}
    signs = {name: theme.signs[sign] for sign, name in SIGN_NAMES.items()}
    on_signs = {f"on-{name}": theme.ink_on(theme.signs[sign]) for sign, name in SIGN_NAMES.items()}
    every = plain | fills | accents | signs | on_signs
    return " ".join(f"{_VARIABLE}{name}: {color};" for name, color in every.items())


def _head(diff: Diff, title: str) -> str:
    """The verdict, the figures of both networks, and the notes."""
    facts = "".join(f"<div><dt>{escaped(name)}</dt><dd>{escaped(text)}</dd></div>\n" for name, text in _facts(diff))
    notes = "".join(f'<p class="note">note: {escaped(note)}</p>\n' for note in diff.notes)
    names = [f"<code>{escaped(name)}</code>" for name in (diff.model, diff.reference)]
    paths = f'<p class="paths">{names[0]} against {names[1]}</p>\n'
    return (
        f'<header>\n<h1>{title}</h1>\n<p class="verdict {escaped(diff.verdict)}"><b>{escaped(diff.verdict)}</b> '
        f"{escaped(verdict_text(diff))}</p>\n"
        f"{paths if short_names(diff) != (diff.model, diff.reference) else ''}"
        f'<dl class="facts">\n{facts}</dl>\n{notes}</header>\n'
    )


def _facts(diff: Diff) -> list[tuple[str, str]]:
    found = totals(diff) if diff.compared else []
    if diff.rows:
        ours, reference = (sum(getattr(row, side) is not None for row in diff.rows) for side in _SIDES)
        same = sum(row.sign == "=" for row in diff.rows)
        found.append(("layers", f"{ours:,}, the reference {reference:,}: {same:,} alike"))
    harmless = [index for index, difference in enumerate(diff.differences) if is_harmless(difference)]
    if harmless:
        count, _, matters = harmless_text(diff, harmless).partition(" harmless")
        noun = "difference" if len(harmless) == 1 else "differences"
        found.append(("harmless", f"{count} {noun}{matters.partition(':')[1]}{matters.partition(':')[2]}"))
    if diff.failure is not None:
        found.append(("does not run", diff.failure))
    return found


_SIDES = ("our_layer", "reference_layer")


def _patch(diff: Diff) -> str:
    """The patch of the model's file, if one was asked for."""
    if not diff.patch:
        return ""
    lines = "\n".join(map(escaped, diff.patch.splitlines()))
    return (
        '<section aria-labelledby="patch"><h2 id="patch">Patch</h2>\n'
        f'<pre class="scroll" tabindex="0"><code>{lines}</code></pre></section>\n'
    )


def _training(diff: Diff) -> str:
    """What the structure of a network does not show."""
    if not diff.training:
        return ""
    rows = "".join(
        f'<tr><th scope="row">{escaped(fact.matter)}</th><td>{escaped(fact.paper)}</td>'
        f"<td>{escaped(fact.torchvision)}</td></tr>\n"
        for fact in diff.training
    )
    head = "".join(f'<th scope="col">{name}</th>' for name in ("training", "the paper", "torchvision"))
    return (
        '<section aria-labelledby="training"><h2 id="training">Training</h2>\n<div class="scroll" tabindex="0">'
        f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}</tbody></table></div></section>\n"
    )
