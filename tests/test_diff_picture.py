"""The picture of a diff: it draws and lists every difference, and every text fits its place."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from tests.test_diagram import SVG, assert_tidy, ends_and_nodes, frame_of, svg_texts
from tests.test_replicas import MISTAKES, RIGHT, against_its_column
from vggscope.cli.app import run
from vggscope.diffing.compare import compare
from vggscope.diffing.result import Diff
from vggscope.diffing.wording import is_style
from vggscope.drawing import Diagram
from vggscope.drawing.diff import diagram
from vggscope.drawing.diff.legend import listed_indices
from vggscope.drawing.diff.marks import MOST_LISTED, marks, ranked, short_names
from vggscope.drawing.diff.rows import MarkedRow, shown_rows
from vggscope.drawing.fonts import wrapped
from vggscope.drawing.picture import Polygon, Rectangle, Text
from vggscope.drawing.theme import READABLE, SIGNS, SMALL, contrast
from vggscope.drawing.themes import THEMES
from vggscope.errors import OptionError
from vggscope.graph import Network, module_node, one_input
from vggscope.ops.activation import ReLU, Sigmoid
from vggscope.render.formats import PICTURES, draw
from vggscope.sources.reference import reference_for
from vggscope.sources.resolve import resolve
from vggscope.vgg.options import BuildOptions

REPLICAS = Path(__file__).parent / "replicas"


def diff(ours: str, reference: str, **options: object) -> Diff:
    network = resolve(ours, BuildOptions(**options))  # type: ignore[arg-type]
    chosen = reference_for(reference, ours, network, BuildOptions())
    return compare(network, chosen.network, chosen.notes)


def failing(folder: Path) -> Diff:
    """A VGG-11 whose first linear layer does not fit its input."""
    source = (REPLICAS / "by_hand.py").read_text()
    (folder / "net.py").write_text(source.replace("nn.Linear(512 * 7 * 7", "nn.Linear(512 * 6 * 6"))
    return diff(f"{folder}/net.py:VGG11", "A")


def diff_of(name: str, folder: Path) -> Diff:
    if name == "fails":
        return failing(folder)
    words = {
        "C": ("C", "torchvision"),
        "A-LRN": ("A-LRN", "torchvision:vgg11"),
        "bn": ("vgg16", "vgg16_bn"),
        "by hand": (f"{REPLICAS}/cfg_loop.py:VGG", "D"),
        "resnet": ("torchvision:resnet18", "torchvision:resnet34"),
        "far": ("torchvision:resnet18", "torchvision:googlenet"),
    }
    return diff("D", "D", head="dense") if name == "dense" else diff(*words[name])


CASES = ("C", "A-LRN", "dense", "fails", "bn", "by hand", "resnet", "far")


def parts_named(drawn: Diagram) -> set[str]:
    return {part.name for part in drawn.picture.parts}


@pytest.mark.parametrize("name", CASES)
def test_the_gravest_differences_are_listed_and_drawn(name: str, tmp_path: Path) -> None:
    result = diff_of(name, tmp_path)
    drawn = diagram(result)
    assert_tidy(drawn)
    texts = svg_texts(drawn)
    content = " ".join(texts)
    numbers = {index: number for number, index in enumerate(ranked(result), 1)}
    for index in listed_indices(result, fold=True)[:MOST_LISTED]:
        assert " ".join(result.differences[index].message.split())[:60] in content
        found = [text for text in texts if text[:1] in "+−~!" and text[2:] == str(numbers[index])]
        # Once in the list and at one row or more.
        assert len(found) >= 2, result.differences[index]
    assert f"{result.params.ours:,} parameters" in texts
    assert f"{result.params.reference:,} parameters" in texts
    assert any(text.startswith(f"{result.verdict}: ") for text in texts)


@pytest.mark.parametrize("name", CASES)
def test_every_row_is_drawn_or_counted_once(name: str, tmp_path: Path) -> None:
    result = diff_of(name, tmp_path)
    rows = shown_rows(result, marks(result), listed_indices(result, fold=True), fold=True)
    held = [held for row in rows for held in ((row.row,) if isinstance(row, MarkedRow) else row.rows)]
    assert tuple(held) == result.rows
    for row in rows:
        if not isinstance(row, MarkedRow):
            assert sum(int(text.split()[0].replace(",", "")) for text in row.texts) == len(row.rows)
    names = parts_named(diagram(result, fold=False))
    assert {f"ours: {row.our_layer.name}" for row in result.rows if row.our_layer} <= names
    assert {f"reference: {row.reference_layer.name}" for row in result.rows if row.reference_layer} <= names


def test_differences_are_listed_by_effect_and_above_the_drawing() -> None:
    first = "conv3-8 conv3-8 maxpool dropout FC-10"
    result = compare(resolve("conv3-16 conv3-8/p0 FC-10 FC-10"), resolve(first))
    drawn = diagram(result)
    effects = [result.differences[index].effect for index in ranked(result)]
    assert effects == sorted(effects, key=["shape", "function", "training_only", "none"].index)
    numbered = [shape for shape in drawn.picture.shapes() if isinstance(shape, Text) and shape.text[:1] in "+−~!"]
    listed = [shape for shape in numbered if shape.y < min(frame_of(part)[1] for part in drawn.picture.parts)]  # type: ignore[index]
    assert [int(shape.text[2:]) for shape in listed] == list(range(1, len(effects) + 1))


def test_harmless_differences_are_one_line() -> None:
    result = diff(f"{REPLICAS}/conv_units.py:VGG13", "torchvision:vgg16_bn")
    assert {"function", "none"} <= {difference.effect for difference in result.differences}
    harmless = [difference for difference in result.differences if difference.effect == "none"]
    texts = svg_texts(diagram(result))
    (line,) = [text for text in texts if "harmless difference" in text]
    assert re.match(r"\d+ harmless differences: \d+ in name, \d+ ", line)
    renamed = sum(difference.kind == "renamed" for difference in harmless)
    assert f"{renamed} in name" in line
    drawn = diagram(result).picture.frame
    hollow = [shape for shape in drawn if isinstance(shape, Polygon) and shape.fill == THEMES["light"].page]
    assert hollow == []


LARGEST = {3: 720, 1000: 820}
"""The largest height of a folded picture in points, by the most differences that change the output."""


def largest(result: Diff) -> int:
    count = sum(difference.changes_output for difference in result.differences)
    return next(height for most, height in LARGEST.items() if count <= most)


@pytest.mark.parametrize(("word", "old", "new", "expected"), [(word, "", "", "") for word, _, _ in RIGHT] + MISTAKES)
def test_the_picture_of_a_file_has_a_bounded_height(
    tmp_path: Path, word: str, old: str, new: str, expected: str
) -> None:
    file, _, name = word.partition(":")
    (tmp_path / file).write_text((REPLICAS / file).read_text().replace(old, new, 1))
    result = against_its_column(f"{tmp_path / file}:{name}")
    drawn = diagram(result)
    assert_tidy(drawn)
    assert drawn.picture.height <= largest(result)
    assert drawn.picture.width <= 1700


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ours", "reference"),
    [
        ("resnet18", "resnet34"),
        ("resnet50", "resnet101"),
        ("resnet50", "resnext50_32x4d"),
        ("resnet50", "wide_resnet50_2"),
        ("resnet152", "resnet18"),
        ("densenet121", "densenet169"),
        ("densenet201", "densenet121"),
        ("densenet121", "resnet50"),
        ("vgg19", "resnet50"),
    ],
)
def test_the_picture_of_a_deep_pair_has_a_bounded_height(ours: str, reference: str) -> None:
    result = diff(f"torchvision:{ours}", f"torchvision:{reference}")
    drawn = diagram(result)
    assert_tidy(drawn)
    assert drawn.picture.height <= largest(result)
    assert drawn.picture.width <= 1700


@pytest.mark.parametrize("theme", THEMES)
def test_every_text_is_readable_on_its_ground(theme: str) -> None:
    for words in (("C", "D"), ("A-LRN", "A"), ("torchvision:resnet18", "torchvision:resnet34")):
        picture = diagram(diff(*words), theme).picture
        grounds: list[tuple[tuple[float, ...], str]] = []
        for shape in picture.shapes():
            if isinstance(shape, Text):
                left, top, right, bottom = shape.bounds
                x, y = (left + right) / 2, (top + bottom) / 2
                held = [fill for (x0, y0, x1, y1), fill in grounds if x0 <= x <= x1 and y0 <= y <= y1]
                assert contrast(shape.color, [picture.background, *held][-1]) >= READABLE, shape
            elif isinstance(shape, Rectangle) and shape.fill:
                box = (shape.x, shape.y, shape.x + shape.width, shape.y + shape.height)
                grounds.append((box, shape.fill))
            elif isinstance(shape, Polygon) and shape.fill:
                xs, ys = zip(*shape.points)
                grounds.append(((min(xs), min(ys), max(xs), max(ys)), shape.fill))


def test_a_file_is_headed_by_its_name() -> None:
    texts = svg_texts(diagram(diff(f"{REPLICAS}/cfg_loop.py:VGG", "D")))
    assert texts[0] == "cfg_loop.py:VGG against D"
    assert short_names(replace(diff("A", "A"), model="a/net.py:VGG", reference="b/net.py:VGG")) == (
        "a/net.py:VGG",
        "b/net.py:VGG",
    )
    line = "conv11-64/s4p2 maxpool"
    assert short_names(replace(diff("A", "A"), model=line)) == (line, "A")


def test_three_kernels_of_column_c() -> None:
    drawn = diagram(diff("C", "D"))
    texts = svg_texts(drawn)
    for label in ("conv3_3", "conv4_3", "conv5_3"):
        assert texts.count(label) == 2
    assert texts.count("kernel_size") == texts.count("padding") == 3
    # Between the sides: a 1x1 kernel and no padding here, 3x3 and 1 there, three times.
    values = [
        shape.text for shape in drawn.picture.frame if isinstance(shape, Text) and shape.bold and shape.size == SMALL
    ]
    assert [value for value in values if value.isdigit()] == ["1", "3", "0", "1"] * 3
    assert [text for text in texts if text.endswith("alike")] == ["13 alike", "4 alike", "4 alike", "10 alike"]
    assert texts.count("conv1_1 … conv3_2") == 2
    assert [text for text in texts if text.startswith("~ ")] == ["~ 1", "~ 2", "~ 3"] * 2


def test_an_inserted_layer_faces_a_gap() -> None:
    drawn = diagram(diff("A-LRN", "A"))
    texts = svg_texts(drawn)
    assert texts.count("norm1_1") == texts.count("not in the reference") == 1
    assert texts.count("+ 1") == 2
    gaps = [shape for shape in drawn.picture.frame if isinstance(shape, Rectangle) and shape.dashed]
    (norm,) = [part for part in drawn.picture.parts if part.name == "ours: features.2"]
    frame = norm.shapes[0]
    assert isinstance(frame, Rectangle)
    assert [(gap.y, gap.width) for gap in gaps] == [(frame.y, frame.width)]
    assert gaps[0].x > frame.x + frame.width


def test_thirteen_batch_norms_are_missing_for_one_reason() -> None:
    texts = svg_texts(diagram(diff("vgg16", "vgg16_bn")))
    # Three of them are drawn, with one layer before and after; ten are counted.
    assert texts.count("missing here") == 3
    assert texts.count("− 1") == 5
    assert {"33 alike", "10 differ"} <= set(texts)
    whole = svg_texts(diagram(diff("vgg16", "vgg16_bn"), fold=False))
    assert whole.count("missing here") == 13
    assert whole.count("− 1") == 14


@pytest.mark.slow
def test_a_model_whose_forward_pass_fails(tmp_path: Path) -> None:
    texts = svg_texts(diagram(failing(tmp_path)))
    assert texts.count("! 1") == 2
    assert {"does not run", "in_features", "18,432", "25,088", "not reached", "5 not reached"} <= set(texts)


def test_a_layer_that_fails_because_of_another_shows_no_change_of_it(tmp_path: Path) -> None:
    source = (REPLICAS / "by_hand.py").read_text()
    right = "nn.Conv2d(64, 128, kernel_size=3, padding=1),"
    wrong = source.replace(right, "nn.Conv2d(64, 128, kernel_size=3),", 1).replace(
        "nn.AdaptiveAvgPool2d((7, 7))", "nn.Identity()"
    )
    (tmp_path / "net.py").write_text(wrong)
    found = diff(f"{tmp_path}/net.py:VGG11", "A")
    rows = [r for r in shown_rows(found, marks(found), [], fold=False) if isinstance(r, MarkedRow)]
    (fails,) = (row for row in rows if row.row.sign == "!")
    (cause,) = (row for row in rows if row.row.sign == "~" and row.notes)
    assert fails.row.difference == cause.row.difference
    assert (fails.notes, [note[1] for note in cause.notes]) == ((), ["padding"])


def test_quiet_differences_have_thin_outlines() -> None:
    result = diff("D", "D", head="dense")
    assert result.verdict == "equivalent"
    badges = [shape for shape in diagram(result).picture.frame if isinstance(shape, Polygon)]
    assert {badge.fill for badge in badges} == {THEMES["light"].page}
    strong = [shape for shape in diagram(diff("C", "D")).picture.frame if isinstance(shape, Polygon)]
    assert {badge.fill for badge in strong} == {THEMES["light"].signs["~"]}


def test_signs_differ_in_outline_too() -> None:
    """In the paper theme all signs are black, and each badge has a different outline."""
    outlines = []
    for text, words in (("+ 1", ("A-LRN", "A")), ("− 1", ("A", "A-LRN")), ("~ 1", ("C", "D"))):
        frame = diagram(diff(*words), "paper").picture.frame
        badge = next(shape for shape, after in pairwise(frame) if isinstance(after, Text) and after.text == text)
        outlines.append((type(badge), isinstance(badge, Rectangle) and badge.radius > 0))
    assert outlines == [(Rectangle, True), (Rectangle, False), (Polygon, False)]
    assert set(THEMES["paper"].signs.values()) == {"#000000"}


def test_signs_are_readable_in_every_theme() -> None:
    for theme in THEMES.values():
        assert set(theme.signs) == set(SIGNS)
        for color in theme.signs.values():
            assert contrast(color, theme.page) >= READABLE, (theme.name, color)
            assert contrast(theme.ink_on(color), color) >= READABLE, (theme.name, color)


def test_without_folding_every_layer_is_drawn() -> None:
    result = diff("E", "D")
    drawn = diagram(result, fold=False)
    assert_tidy(drawn)
    names = parts_named(drawn)
    assert {f"ours: {row.our_layer.name}" for row in result.rows if row.our_layer} <= names
    assert {f"reference: {row.reference_layer.name}" for row in result.rows if row.reference_layer} <= names
    assert not any(text.endswith("alike") for text in svg_texts(drawn))
    same = diagram(diff("A", "A"))
    assert svg_texts(same).count("conv1_1 … fc8") == 2
    assert_tidy(same)


def test_a_long_diff_continues_to_the_right() -> None:
    result = diff("vgg19", "vgg19_bn")
    twice = replace(result, rows=result.rows * 4)
    picture = diagram(twice).picture
    assert 0.5 < picture.height / picture.width < 2.5
    assert_tidy(diagram(result, "dark", fold=False))


def test_an_input_of_another_width_is_marked() -> None:
    result = compare(resolve("A", BuildOptions(input=(1, 224, 224))), resolve("A"))
    assert [row.sign for row in result.rows[:2]] == ["~", "="]
    assert {"in_channels", "~ 1"} <= set(svg_texts(diagram(result)))


def test_a_row_names_its_layers_and_its_difference() -> None:
    row = next(row for row in diff("C", "D").rows if row.sign == "~")
    assert row.our_layer is not None
    assert (row.our_layer.name, row.our_layer.label, row.our_layer.family) == ("features.14", "conv3_3", "convolution")
    assert row.our_layer.output_shape == (1, 256, 56, 56)
    assert row.our_layer.inputs == ("features.13",)
    assert row.difference == 0


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("suffix", PICTURES["diff"].suffixes)
def test_the_same_bytes_on_every_run(theme: str, suffix: str) -> None:
    result = diff("C", "D")
    assert draw(result, suffix, theme=theme) == draw(result, suffix, theme=theme)


def test_png_and_pdf_show_something() -> None:
    from matplotlib.image import imread

    drawn = diagram(diff("C", "D"))
    pixels = imread(io.BytesIO(drawn.render("png", dpi=72)))
    assert pixels.shape[:2] == (int(drawn.picture.height), int(drawn.picture.width))
    assert len({tuple(pixel) for pixel in pixels.reshape(-1, pixels.shape[2])}) > 100
    # No line of the legend runs into the margin.
    assert (pixels[:, -10:, :3] == 1.0).all()
    pdf = drawn.render("pdf")
    assert pdf.startswith(b"%PDF-")
    assert b"/FontFile2" in pdf


@pytest.mark.skipif(shutil.which("dot") is None, reason="Graphviz is not installed")
def test_graphviz_takes_the_dot() -> None:
    drawn = diagram(diff("C", "D"))
    ends, nodes = ends_and_nodes(drawn)
    assert '"ours: features.14"' in ends
    assert ends <= nodes
    done = subprocess.run(["dot", "-Tplain"], input=drawn.source.encode(), capture_output=True, check=True)
    assert done.stdout.startswith(b"graph ")


def test_hostile_names_stay_text() -> None:
    hostile = 'a"><script>alert(1)</script>&#0;\\N\x00\x1b[31m\u202e\ud800$x^2$'
    ours = Network(hostile, one_input((1, 3, 8, 8)), (module_node(hostile, ReLU(), "input"),))
    theirs = Network("b", one_input((1, 3, 8, 8)), (module_node("b", Sigmoid(), "input"),))
    drawn = diagram(compare(ours, theirs))
    root = ElementTree.fromstring(drawn.render("svg"))
    assert {element.tag.removeprefix(SVG) for element in root.iter()} <= {
        "svg", "title", "desc", "g", "rect", "path", "polygon", "text",
    }  # fmt: skip
    assert "<script>" in (root.findtext(f"{SVG}title") or "")
    assert_tidy(drawn)
    for form in ("png", "pdf", "tex", "dot"):
        assert drawn.render(form)
    assert "\x1b" not in drawn.source


@pytest.mark.parametrize("text", ["", "a", "padding 0, the reference has 1", "x" * 200, "ab " * 50 + "y" * 90 + " z"])
def test_wrapped_lines_fit_and_keep_every_word(text: str) -> None:
    from vggscope.drawing.fonts import text_width

    lines = wrapped(text, 8, 50)
    assert all(text_width(line, 8) <= 50 for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")


def test_the_command_writes_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "diff.svg"
    assert run(["diff", "C", "--ref", "D", "-o", str(target), "--theme", "dark", "--no-fold"]) == 1
    assert f'fill="{THEMES["dark"].page}"' in target.read_text()
    assert "conv1_1" in target.read_text()
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith(f"wrote {target} (")
    assert run(["diff", "D", "--ref", "D", "-o", str(tmp_path / "same.PNG"), "--dpi", "50"]) == 0
    assert (tmp_path / "same.PNG").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-o", "x.jpg"], "-o takes .txt, .json, .csv, .md, .html, .svg, .png, .pdf, .dot, .tex"),
        (["-o", "x.svg", "--theme", "pink"], "--theme is one of light, dark, paper"),
        (["-o", "x.png", "--dpi", "0"], "--dpi is 1 to"),
    ],
)
def test_an_unknown_option_is_named(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["diff", "C", "--ref", "D", *words]) == 2
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(OptionError, match="unknown theme 'pink'"):
        diagram(diff("A", "A"), "pink")


def test_an_svg_loads_no_heavy_package(tmp_path: Path) -> None:
    program = (
        "import sys; from vggscope.cli.app import run;"
        f"run(['diff', 'C', '--ref', 'D', '-o', {str(tmp_path / 'x.svg')!r}]); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert not loaded & {"torch", "torchvision", "timm", "matplotlib", "pygraphviz", "jinja2"}


@pytest.mark.parametrize(
    ("ours", "reference", "attribute"),
    [
        ("conv3-128", "conv3-256", "out_channels"),
        ("conv3-8 FC-4069 FC-10", "conv3-8 FC-4096 FC-10", "out_features"),
        ("conv11-8/p5", "conv21-8/p10", "kernel_size"),
        ("conv3-8/p10", "conv3-8/p64", "padding"),
    ],
)
def test_the_attribute_of_a_change_is_written_in_full(ours: str, reference: str, attribute: str) -> None:
    assert attribute in svg_texts(diagram(diff(ours, reference)))


@pytest.mark.parametrize("word", ["functional.py:Net", "written_otherwise.py:Resized", "blocks.py:vgg"])
def test_folds_count_the_harmless_differences_of_the_list(tmp_path: Path, word: str) -> None:
    """Beside one that matters, so that the others are folded; other names and layers in place or not are alike."""
    file, _, name = word.partition(":")
    source = (REPLICAS / file).read_text()
    (tmp_path / file).write_text(source.replace("max_pool2d", "avg_pool2d").replace("MaxPool2d", "AvgPool2d"))
    result = against_its_column(f"{tmp_path / file}:{name}")
    assert result.verdict == "different"
    rows = shown_rows(result, marks(result), listed_indices(result, fold=True), fold=True)
    counted = Counter[str]()
    for row in rows:
        texts = row.texts if not isinstance(row, MarkedRow) else ()
        counted.update({text.partition(" ")[2]: int(text.partition(" ")[0].replace(",", "")) for text in texts})
    shown = [row.row for row in rows if isinstance(row, MarkedRow)]
    (line,) = [text for text in svg_texts(diagram(result)) if "harmless difference" in text]
    listed = {what: int(count) for count, what in re.findall(r"(\d+) ([a-z][a-z ]*)", line.partition(": ")[2])}
    of_list = sum(count for what, count in listed.items() if what not in ("in name", "in inplace"))
    harmless = {i for i, d in enumerate(result.differences) if d.effect == "none" and not is_style(d)}
    assert counted["harmless"] + sum(row.difference in harmless for row in shown) == of_list > 0
