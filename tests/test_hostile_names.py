"""A layer may be called anything: whatever its name holds, each format shows it as text and nothing more.

The kinds of result and the formats come from the program's own tables, so that a new one is tested by itself; it is
told below how a result of that kind is made of a name (MAKERS), or what escaping means in that format (CHECKS).
"""

from __future__ import annotations

import csv
import html
import io
import json
import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from vggscope.analysis.summary import summarize
from vggscope.document import Style
from vggscope.drawing import FORMATS as PICTURE_FORMATS
from vggscope.drawing import STYLES, diagram
from vggscope.errors import visible
from vggscope.graph import INPUT, Network, Node, Parameter, one_input
from vggscope.ops.activation import ReLU
from vggscope.ops.convolution import conv2d
from vggscope.ops.elementwise import Elementwise
from vggscope.ops.recorded import Unknown
from vggscope.render import formats
from vggscope.result import Result

NAMES = {
    "html": "<img src=x onerror=alert(1)><b>",
    "svg script": "</text></title><script>alert(1)</script>",
    "svg attribute": '" onload="alert(1)" x="',
    "entity": "&lt;script&gt; &#60; &amp;",
    "xml": "]]><!--<![CDATA[",
    "template": "{{ 7*7 }}{% raw %}${7*7}",
    "dot": '"]; evil [label="x"]; } digraph y { "',
    "dot escape": "\\N\\G\\E\\l\\",
    "rich": "[red]x[/red][link=https://example.org]y[/link]",
    "colour": "\x1b[31mred\x1b[0m",
    "title": "\x1b]0;owned\x07",
    "c1": "\x9b31mred\x9b0m\x90q\x9c",
    "controls": "a\x00\x07\x08\x0b\x0c\x7f\x85b",
    "carriage": "shown\rhidden",
    "right to left": "\u202ecba\u2066x\u2069\u200f\u061c",
    "invisible": "a\u200bb\u2060c\ufeffd\u00ade\u180ef\u3164",
    "tags": "a\U000e0041\U000e0042b",
    "formula": "=cmd|' /C calc'!A0",
    "formula at": "@SUM(1+1)*cmd",
    "formula plus": "+1+1",
    "formula minus": "-2+3",
    "formula behind space": " =1+1",
    "formula behind newline": "\n=1+1",
    "formula wide": "\uff1d1+1",
    "markdown table": "a|b\\|c||",
    "markdown code": "`x` ``` ~~~",
    "markdown link": "[x](javascript:alert(1)) ![y](z) <https://example.org>",
    "markdown heading": "# x\n## y\n---\n- z",
    "newline": "one\ntwo\r\nthree\n\nfour",
    "separators": "a\u2028b\u2029c",
    "tex": "\\input{/etc/passwd}%$^^4d~#&_}",
    "math": "$\\frac{1}{0}$ \\$x$ $",
    "long": "a" * 10_000,
    "wide": "漢" * 300,
    "combining": "e" + "\u0301" * 500,
    "surrogate": "a\ud800b\udfff",
    "noncharacter": "a\uffff\ufffe\ufdd0b",
    "empty": "",
    "space": " ",
    "input": INPUT,
    "dots": "...",
    "quotes": "'\"`",
    "path": "../../../etc/passwd",
    # Graphviz keeps names that begin with % for itself, and pygraphviz does not show them.
    "format": "a%s%n{0}{name}",
    "null": "null",
    "digits": "9" * 5000,
    "other digits": "features.\u0661\u00b2",
}
"""What each of them attacks, and the name."""

PLAIN = "plain"
"""A name that attacks nothing: what a document looks like when nobody does."""


def network(name: str) -> Network:
    """A small network with the name wherever one can stand: layers, ops, parameters, warnings, the network itself."""
    own = name if name not in ("", INPUT) else "x"
    first = Node(f"x.{name}", conv2d(3, 8, 3, padding=1), (INPUT,), f"x.{name}")
    first = replace(first, parameters=(Parameter(f"x.{name}.weight", (8, 3, 3, 3)), Parameter(f"x.{name}.bias", (8,))))
    shape = (1, 8, 8, 8)
    layers = (
        first,
        Node(own, ReLU(), (first.name,), own),
        Node(f"{name}.y", Unknown(name, (shape,), shape), (own,)),
        Node(f"{name}.z", Elementwise("add"), (f"{name}.y", first.name)),
    )
    unused = ((Parameter(f"u.{name}.unused", (5,)), f"why: {name}"),)
    return Network(name, one_input((1, 3, 8, 8)), layers, unused, (f"warning: {name}",))


def _summary(name: str, folder: Path) -> Result:
    return summarize(network(name))


def _sums(name: str, folder: Path) -> Result:
    return replace(summarize(network(name)), model=name).by_module()


def _diff(name: str, folder: Path) -> Result:
    from vggscope.diffing.compare import compare

    other = network(name)
    changed = replace(other.nodes[0], op=conv2d(3, 8, 5, padding=2))
    return compare(replace(other, nodes=(changed, *other.nodes[1:])), network(f"{name}2"), (f"note: {name}",))


def _memory(name: str, folder: Path) -> Result:
    from vggscope.analysis.memory.report import memory

    return memory(network(name))


def _operations(name: str, folder: Path) -> Result:
    from vggscope.analysis.operations import operations

    return operations(network(name))


def _measure(name: str, folder: Path) -> Result:
    from vggscope.cross_checks.measured_step import MeasuredFigure, Measurement

    figures = (MeasuredFigure("tensors", f"counts {name}", 3, 4),)
    return Measurement("vggscope/measure@1", name, 1, f"by {name}", f"counts {name}", 3, 4, name, figures)


def _rf(name: str, folder: Path) -> Result:
    from vggscope.analysis.receptive_field.result import describe

    return describe(network(name))


def _activations(name: str, folder: Path) -> Result:
    from vggscope.execution import activations as of

    channel = of.ChannelActivation(0, 0.5, (1, 2), 3.0, None, of.ActivationMap(0.0, 1.0, ((0, 255),)))
    last = of.LayerActivations("fc", "", "Linear", (), (of.UnitActivation(0, 0.5),))
    layers = (of.LayerActivations(name, name, name, (channel,), ()), last)
    return of.Activations("vggscope/activations@1", name, (1, 3, 8, 8), layers, (name,))


def _compare(name: str, folder: Path) -> Result:
    from vggscope.analysis.compare import Uncompared, compare

    failed = Uncompared(name, f"why {name}", f"as {name}")
    return replace(compare([network(name), network(f"{name}2")]), failures=(failed,), missing=(name,))


def _verify(name: str, folder: Path) -> Result:
    from vggscope.cross_checks.verification import REFERENCE_TOOLS, Answer, Figure, Skipped, Verification

    witness = REFERENCE_TOOLS[0].name
    figures = (
        Figure("params", 3, (Answer(witness, 4, 1, 1, False, (), f"because {name}", "disagrees"),), "disagrees"),
    )
    skipped = (Skipped(witness, "macs", f"it says {name}"),)
    return Verification("vggscope/verify@1", name, (1, 3, 8, 8), figures, skipped, False)


def _lock(name: str, folder: Path) -> Result:
    from vggscope.lock_file import SCHEMA, Lock

    return Lock(SCHEMA, name, network(name))


def _inspect(name: str, folder: Path) -> Result:
    from safetensors.numpy import save_file

    import vggscope

    path = folder / "x.safetensors"
    save_file(_tensors(name.encode("utf-8", "replace").decode()), path)
    return vggscope.inspect(str(path))


def _stats(name: str, folder: Path) -> Result:
    from vggscope.checkpoint.statistics import FileStatistics, Statistics, TensorStatistics

    dead = TensorStatistics(name, name, (2, 3), "float32", 0.0, 1.0, 0.5, 0.5, 3, 1, 1, 2, (0,), (1,))
    unread = TensorStatistics(f"x.{name}", "", (2,), name, reason=f"why: {name}")
    filters = ((((0.0, 1.0),),),)
    file = FileStatistics(name, name, None, 6, "00", None, f"claim: {name}", (dead, unread), filters, name)
    return Statistics("vggscope/stats@1", (file, replace(file, path=f"{name}2", filters=())))


def _values(name: str, folder: Path) -> Result:
    from vggscope.diffing.values import RELATIONS, RelationCount, TensorDifference, ValueDiff

    sides = ((3, 2), (2, 3), "float32", "float32")
    tensors = tuple(
        TensorDifference(f"{relation}.{name}", f"{name}2", name, name, *sides, relation, ("cast",), reason=name)
        for relation in RELATIONS
    )
    counts = tuple(RelationCount(relation, 1, 6) for relation in RELATIONS)
    layers, notes = (f"layer {name}",), (f"note: {name}",)
    schema = "vggscope/values@1"
    return ValueDiff(schema, name, f"{name}2", "different", "keys", counts, layers, layers, tensors, notes)


def _tensors(name: str) -> dict:
    import numpy as np

    shapes = {f"{name}.weight": (8, 3, 3, 3), f"{name}.bias": (8,), f"x.{name}.y": (4, 8), f"{name}.z.weight": (3, 2)}
    return {key: np.zeros(shape, np.float32) for key, shape in shapes.items()}


def _list(name: str, folder: Path) -> Result:
    from vggscope.sources.catalogue import Catalogue, Choice, FamilyEntry, Installed, ReferenceModel

    choices, families = (Choice(name, name),), (FamilyEntry(name, name, name, 3, name),)
    references, packages = (ReferenceModel(name, 3),), (Installed(name, name),)
    return Catalogue("vggscope/list@1", (), families, references, choices, choices, choices, packages)


def _explain(name: str, folder: Path) -> Result:
    from vggscope.document import Facts
    from vggscope.tutorials.tutorial import code, listing, text, tutorial

    blocks = (text(name), Facts(((name, name),)), listing(("heading",), ((name,),)), code(name, None))
    return tutorial(name, name, {name: name}, *blocks)


def _drawn_tutorial(name: str, folder: Path) -> Result:
    from vggscope.tutorials import explain

    return replace(explain("conv"), title=name)


MAKERS: dict[str, Callable[[str, Path], Result]] = {
    "summary": _summary,
    "sums": _sums,
    "diff": _diff,
    "memory": _memory,
    "operations": _operations,
    "measure": _measure,
    "rf": _rf,
    "activations": _activations,
    "compare": _compare,
    "verify": _verify,
    "inspect": _inspect,
    "stats": _stats,
    "values": _values,
    "lock": _lock,
    "explain": _explain,
    "list": _list,
}
"""A result of each kind with a name in it."""


DRAWN = {**MAKERS, "explain": _drawn_tutorial}
"""The same for results to be drawn: only a few tutorials have a picture."""


def steering(text: str) -> list[str]:
    """The characters of a text that do more than show: all controls but the line's end, marks that turn the direction
    or cannot be seen, separators, surrogates.
    """
    return [char for char in text if char != "\n" and unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp", "Cf")]


def check_table(text: str, plain: str, name: str) -> None:
    from vggscope.render.text import display_width

    assert steering(text) == []
    assert max(display_width(line) for line in text.split("\n")) <= 120


def check_json(text: str, plain: str, name: str) -> None:
    assert text.isascii()
    assert list(walk(json.loads(text))) != list(walk(json.loads(plain)))
    assert any(name in found for found in walk(json.loads(text)))


def walk(value: object) -> Iterator[str]:
    """Every text in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from walk(item)
    elif isinstance(value, list):
        for item in value:
            yield from walk(item)


def check_csv(text: str, plain: str, name: str) -> None:
    assert steering(text) == []
    csv.field_size_limit(10**6)
    rows, expected = (list(csv.reader(io.StringIO(found))) for found in (text, plain))
    assert [len(row) for row in rows] == [len(row) for row in expected]
    for cell in (cell for row in rows for cell in row):
        is_number = re.fullmatch(r"-?\d+(\.\d+)?", cell)
        assert is_number or not cell.lstrip().startswith(("=", "+", "-", "@", "＝", "＋", "－", "＠")), cell


def check_markdown(text: str, plain: str, name: str) -> None:
    assert steering(text) == []
    outside = re.sub(r"(?ms)^(`{3,})[a-z]*$.*?^\1$", "", text)
    lines, expected = outside.split("\n"), plain.split("\n")
    assert [bars(line) for line in lines if line.startswith("|")] == [
        bars(line) for line in expected if line.startswith("|")
    ]
    assert [line for line in lines if line.startswith("#")][1:] == []
    assert not re.search(r"(?<!\\)(<|\]\()", outside), "an open tag or a link"


def bars(line: str) -> int:
    """The display_width' borders in a line of a table."""
    return len(re.findall(r"(?<!\\)(?:\\\\)*\|", line))


class _Tags(HTMLParser):
    """The elements of a page, with their attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, tuple[str, ...]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, tuple(name for name, _ in attrs)))


def tags(text: str) -> list[tuple[str, tuple[str, ...]]]:
    parser = _Tags()
    parser.feed(text)
    return parser.found


def check_html(text: str, plain: str, name: str) -> None:
    """No element and no attribute but those that a plain name gives, and no address."""
    assert steering(text) == []
    wrapped = {("th", ("scope", "class")), ("td", ("class",))}
    assert set(tags(text)) <= set(tags(plain)) | wrapped | {("br", ()), ("small", ()), ("span", ("class",))}
    assert {name for _, names in tags(text) for name in names} <= {
        *("lang", "charset", "name", "content", "class", "scope", "align", "tabindex"),
        *("http-equiv", "rel", "href", "id", "aria-labelledby", "aria-label", "type", "checked", "open"),
    }
    assert set(re.findall(r'href="([^"]*)"', text)) <= set(re.findall(r'href="([^"]*)"', plain))
    assert not re.search(r' (id|href|aria-\w+)="[^"]*[<>&\n]', text)
    shown = visible(name).split("\n")[0].strip()
    assert not shown or html.escape(shown) in text


CHECKS: dict[str, Callable[[str, str, str], None]] = {
    "table": check_table,
    "json": check_json,
    "csv": check_csv,
    "markdown": check_markdown,
    "html": check_html,
}
"""What escaping means in each text format, of the text, what a plain name gives, and the name."""


def test_each_format_has_a_check() -> None:
    assert [form.name for form in formats.FORMATS] == list(CHECKS), "tell in CHECKS what escaping means in a format"


@pytest.mark.parametrize("kind", formats.DOCUMENTS)
def test_a_name_stays_text_in_every_format(kind: str, tmp_path: Path) -> None:
    assert kind in MAKERS, f"tell in MAKERS how a result of kind {kind} is made"
    plain = MAKERS[kind](PLAIN, tmp_path)
    written = {form: formats.write(plain, form) for form in CHECKS}
    for attack, name in NAMES.items():
        result = MAKERS[kind](name, tmp_path)
        stored = name.encode("utf-8", "replace").decode() if kind == "inspect" else name
        for form, check in CHECKS.items():
            text = formats.write(result, form)
            try:
                check(text, written[form], stored)
                text.encode()
            except AssertionError as error:
                raise AssertionError(f"{attack}, {form}: {error}\n{text[:3000]!r}") from None
        assert steering(repr(result)) == [], attack
        assert "\n" not in repr(result), attack
        assert len(repr(result)) < 500, attack
        check_colours(attack, formats.write(result, "table", Style(200, color=True)))
    assert "\x1b" not in repr(network(NAMES["colour"]))


def check_colours(attack: str, text: str) -> None:
    """No escape sequence but those of the table itself."""
    bare = re.sub(r"\x1b\[[0-9;]*m", "", text)
    assert steering(bare) == [], attack
    assert not re.search(r"\x1b\[[0-9;]*31mred", text.replace("\x1b[1;31m", "")), attack
    if attack == "rich":
        assert "[red]x[/red]" in bare


@pytest.fixture(scope="module")
def everything() -> Network:
    """A network that branches, with each of the names."""
    nodes = [Node("stem", conv2d(3, 8, 3, padding=1), (INPUT,), "stem")]
    for name in dict.fromkeys(NAMES.values()):
        before = nodes[-1].name
        first = Node(f"x.{name}.conv", conv2d(8, 8, 3, padding=1), (before,), f"x.{name}.conv")
        shape = (1, 8, 8, 8)
        last = Node(f"{name}.odd", Unknown(name, (shape,), shape), (first.name,))
        nodes += [first, last, Node(f"{name}.add", Elementwise("add"), (last.name, before))]
    title = "".join(NAMES[key] for key in ("svg script", "dot", "tex", "surrogate", "newline", "colour"))
    return Network(title, one_input((1, 3, 8, 8)), tuple(nodes), warnings=tuple(NAMES.values()))


@pytest.fixture(scope="module")
def harmless(everything: Network) -> Network:
    """The same network with names that attack nothing."""
    names = {INPUT: INPUT}

    def of(name: str) -> str:
        return names.setdefault(name, f"n{len(names)}")

    nodes = tuple(
        replace(
            node,
            name=of(node.name),
            inputs=tuple(map(of, node.inputs)),
            module=node.module and of(node.name),
            op=Unknown("odd", node.op.recorded_inputs, node.op.recorded_output)
            if isinstance(node.op, Unknown)
            else node.op,
        )
        for node in everything.nodes
    )
    return Network("harmless", one_input(everything.input_shape), nodes)


def elements(svg: str) -> Iterator[ElementTree.Element]:
    """The elements of an SVG, by a strict parser."""
    return ElementTree.fromstring(svg).iter()


SVG = {
    *("svg", "title", "desc", "rect", "g", "a", "text", "path", "polygon", "line", "circle", "image", "defs"),
    *("clipPath", "use", "style", "metadata", "RDF", "Work", "type", "date", "format", "creator", "Agent"),
}
"""Elements that a picture may have; matplotlib says what made it in RDF."""


def check_svg(data: bytes) -> None:
    for element in elements(data.decode()):
        tag = element.tag.rpartition("}")[2]
        assert tag in SVG, tag
        for attribute, value in element.attrib.items():
            assert not attribute.lower().rpartition("}")[2].startswith("on"), attribute
            assert "javascript:" not in value.lower()


def check_png(data: bytes) -> None:
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    assert b"IEND" in data[-12:]


def check_pdf(data: bytes) -> None:
    assert data.startswith(b"%PDF-")
    assert b"/JavaScript" not in data
    assert b"/URI" not in data


def check_gif(data: bytes) -> None:
    assert data.startswith(b"GIF89a")
    assert b"evil" not in data


def check_dot(data: bytes) -> None:
    pygraphviz = pytest.importorskip("pygraphviz")
    text = data.decode()
    assert [char for char in steering(text) if char != "\t"] == []
    graph = pygraphviz.AGraph(string=text)
    try:
        assert "evil" not in graph.nodes()
        assert all(node.attr["label"] for node in graph.nodes())
    finally:
        graph.close()


def check_tex(data: bytes) -> None:
    text = data.decode()
    assert steering(text) == []
    body = text.split(r"\begin{document}")[1]
    for argument in re.findall(r"\\node\[.*?\] at \([^)]*\) \{(.*)\};$", body, re.MULTILINE):
        assert active(argument) == "", argument


def active(argument: str) -> str:
    """What TeX would obey in a text, beside the commands that stand for single signs."""
    signs = r"\\(text[a-z]+|ldots)\{\}|\\[{}$&#%_]|\$\\rightarrow\$|\$-\$|\{-\}"
    return "".join(re.findall(r"[\\{}$&#%_^~]", re.sub(signs, "", argument)))


PICTURE_CHECKS: dict[str, Callable[[bytes], None]] = {
    "svg": check_svg,
    "png": check_png,
    "pdf": check_pdf,
    "gif": check_gif,
    "dot": check_dot,
    "tex": check_tex,
}
"""What escaping means in each format of a picture."""


@pytest.mark.parametrize("style", [style for style in STYLES if style != "table"])
def test_a_name_stays_text_in_every_picture(style: str, everything: Network, harmless: Network) -> None:
    drawn = diagram(everything, style)
    for form in PICTURE_FORMATS:
        assert form in PICTURE_CHECKS, f"tell in PICTURE_CHECKS what escaping means in {form}"
        if form in ("png", "pdf") and style != "blocks":
            continue  # matplotlib takes its time, and writes every style alike
        PICTURE_CHECKS[form](drawn.render(form, 36))


@pytest.mark.parametrize(
    ("kind", "suffix"), [(kind, suffix) for kind, found in formats.PICTURES.items() for suffix in found.suffixes]
)
def test_a_name_stays_text_in_every_picture_of_a_result(kind: str, suffix: str, tmp_path: Path) -> None:
    attacks = ("svg script", "svg attribute", "dot", "dot escape", "tex", "math", "surrogate", "controls")
    names = ("".join(map(NAMES.__getitem__, attacks)), NAMES["math"], NAMES["long"][:1000])
    for name in names[: 1 if suffix in (".png", ".pdf") else 3]:
        PICTURE_CHECKS[suffix.removeprefix(".")](formats.draw(DRAWN[kind](name, tmp_path), suffix, 36))


def test_a_column_called_anything_is_a_table(tmp_path: Path) -> None:
    """The table's style takes a chain with the paper's stages alone."""
    from vggscope.sources.resolve import resolve

    for name in NAMES.values():
        drawn = diagram([replace(resolve("A"), name=name), resolve("B")], "table")
        for form in ("svg", "dot", "tex"):
            PICTURE_CHECKS[form](drawn.render(form))


def test_a_picture_of_hostile_names_has_the_nodes_of_a_harmless_one(everything: Network, harmless: Network) -> None:
    pygraphviz = pytest.importorskip("pygraphviz")
    counts = []
    for network in (everything, harmless):
        graph = pygraphviz.AGraph(string=diagram(network, "layers", fold=False).source)
        counts.append((len(graph.nodes()), len(graph.edges())))
        graph.close()
    assert counts[0] == counts[1]


def test_a_name_stays_text_in_the_page(everything: Network) -> None:
    from vggscope.explorer import Exhibit, page

    def active(text: str) -> tuple[int, set[str], set[str]]:
        """How many scripts there are, which elements, and which attributes."""
        found = [tag for tag, _ in tags(text)]
        return found.count("script"), set(found), {name for _, names in tags(text) for name in names}

    text, harmless = page([Exhibit(everything, everything.name)]), page([Exhibit(network(PLAIN), PLAIN)])
    scripts, elements, attributes = active(text)
    assert (scripts, elements) == active(harmless)[:2]
    assert not [name for name in attributes if name.startswith("on")]
    assert steering(text) == []
    text.encode()


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_names_in_a_checkpoint_reach_no_terminal(suffix: str, vggscope, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    tensors = {
        f"{name}.weight": torch.zeros(4, 8) for name in NAMES.values() if name.isprintable() or "\ud800" not in name
    }
    path = tmp_path / f"x\x1b[31m{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(tensors, path)
    for form in formats.FORMATS:
        ran = vggscope("inspect", str(path), "-f", form.name)
        assert ran.code == 0
        assert steering(ran.out + ran.err) == []
    refused = vggscope("summary", str(path))
    assert refused.code == 2
    assert steering(refused.err) == []
    assert refused.err.count("\n") <= 2


@pytest.mark.slow
def test_names_in_a_users_file_reach_no_terminal(vggscope, tmp_path: Path) -> None:
    """torch takes any name for a module but one with a dot, or none."""
    path = tmp_path / "net.py"
    names = [name for name in NAMES.values() if name not in ("", INPUT) and "." not in name]
    path.write_text(
        "from torch import nn\n"
        f"NAMES = {names!r}\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        for name in NAMES:\n"
        "            self.add_module(name, nn.Conv2d(3, 3, 1))\n"
        "    def forward(self, x):\n"
        "        for name in NAMES:\n"
        "            x = getattr(self, name)(x)\n"
        "        return x\n"
        "def fails():\n"
        "    raise ValueError(''.join(NAMES))\n",
        encoding="utf-8",
    )
    for form in formats.FORMATS:
        ran = vggscope("summary", f"{path}:Net", "-f", form.name, "--input", "3x8x8")
        assert (ran.code, ran.err) == (0, "")
        assert steering(ran.out) == []
        assert ran.out.count("\n") > len(names)
    found = json.loads(vggscope("summary", f"{path}:Net", "-f", "json", "--input", "3x8x8").out)
    assert [layer["name"] for layer in found["layers"]] == names
    for words in (("summary", f"{path}:fails"), ("summary", f"{path}:\x1b[31m"), ("summary", "\x1b]0;x\x07")):
        ran = vggscope(*words)
        assert ran.code == 2
        assert steering(ran.err) == []
        assert ran.err.count("\n") <= 2
