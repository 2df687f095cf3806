"""Pictures: their content, its layout, and the agreement of all formats."""

from __future__ import annotations

import io
import re
import shlex
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from itertools import pairwise, product
from pathlib import Path

import pytest

from vggscope.drawing import FORMATS, THEMES, Diagram, diagram
from vggscope.drawing.engine import along, lay_out
from vggscope.drawing.look import FACTS
from vggscope.drawing.picture import Line, Part, Polygon, Rectangle, Text, bounds
from vggscope.drawing.theme import KINDS, READABLE, contrast
from vggscope.errors import MissingTool, OptionError, OutputError
from vggscope.graph import INPUT, Network, Node, module_node, one_input
from vggscope.ops.activation import ReLU, ReLU6
from vggscope.ops.base import Op
from vggscope.ops.convolution import conv2d
from vggscope.ops.normalization import BatchNorm2d
from vggscope.ops.regularization import Dropout, Identity
from vggscope.sources.resolve import resolve
from vggscope.vgg.configs import CONFIGS
from vggscope.vgg.options import BuildOptions

SVG = "{http://www.w3.org/2000/svg}"


def column(word: str, **options: object) -> Network:
    return resolve(word, BuildOptions(**options))  # type: ignore[arg-type]


def svg_texts(drawn: Diagram) -> list[str]:
    root = ElementTree.fromstring(drawn.render("svg"))
    return [element.text or "" for element in root.iter(f"{SVG}text")]


def within(inner: tuple[float, ...], outer: tuple[float, ...]) -> bool:
    return all(
        (
            inner[0] >= outer[0] - 0.01,
            inner[1] >= outer[1] - 0.01,
            inner[2] <= outer[2] + 0.01,
            inner[3] <= outer[3] + 0.01,
        )
    )


def frame_of(part: Part) -> tuple[float, float, float, float] | None:
    """The bounds of a part's boxes, or None for a part without boxes."""
    boxes = [shape for shape in part.shapes if isinstance(shape, Rectangle)]
    if not boxes:
        return None
    ends = [(box.x, box.y, box.x + box.width, box.y + box.height) for box in boxes]
    return min(e[0] for e in ends), min(e[1] for e in ends), max(e[2] for e in ends), max(e[3] for e in ends)


def assert_tidy(drawn: Diagram) -> None:
    """Every text lies within the page and its node, and no two texts overlap."""
    picture = drawn.picture
    texts = [(shape.bounds, shape.text) for shape in picture.shapes() if isinstance(shape, Text)]
    for outline, text in texts:
        assert within(outline, (0, 0, picture.width, picture.height)), text
    for part in picture.parts:
        frame = frame_of(part)
        for text in (shape for shape in part.shapes if isinstance(shape, Text)):
            assert frame is None or within(text.bounds, frame), (part.name, text)
    frames = [(frame, part.name) for part in picture.parts if (frame := frame_of(part))]
    loose = [(s.bounds, s.text) for s in (*picture.frame, *picture.labels) if isinstance(s, Text)]
    assert_apart(texts)
    assert_apart([*frames, *loose])


def assert_apart(named: list[tuple[tuple[float, ...], str]]) -> None:
    """No two of these overlap."""
    ordered = sorted(named, key=lambda pair: pair[0][1])
    for index, (one, text) in enumerate(ordered):
        for other, beside in ordered[index + 1 :]:
            if other[1] >= one[3] - 0.01:
                break
            assert one[2] <= other[0] + 0.01 or other[2] <= one[0] + 0.01, (text, beside)


@pytest.mark.parametrize("name", CONFIGS)
def test_blocks_show_every_layer_with_weights_once(name: str) -> None:
    network = column(name)
    drawn = diagram(network)
    texts = svg_texts(drawn)
    shown = [node.label for node in network.nodes if node.label.startswith(("conv", "pool", "norm", "fc", "prob"))]
    assert [text for text in texts if text in set(shown)] == shown
    assert_tidy(drawn)


def test_blocks_show_size_share_and_receptive_field_of_vgg19() -> None:
    texts = svg_texts(diagram(column("E")))
    assert "E (VGG-19)" in texts
    assert "143,667,240 parameters, 19.63 GMACs, input 3 × 224 × 224" in texts
    # The last pool leaves 512 maps of 7x7, with a receptive field of 268 pixels a side.
    assert {"512 × 7 × 7", "268×268 px"} <= set(texts)
    # fc6, fc7 and fc8: 25088*4096 + 4096*4096 + 4096*1000 weights and 9192 biases, of 143,667,240.
    assert "123.64 M (86.1%)" in texts


@pytest.mark.parametrize("head", ["adaptive", "flatten", "dense"])
def test_blocks_of_every_head(head: str) -> None:
    drawn = diagram(column("D", head=head, batch_norm=True))
    assert {"fc6", "fc7", "fc8"} <= set(svg_texts(drawn))
    assert "After each convolution: BN, ReLU." in svg_texts(drawn)
    assert_tidy(drawn)


@pytest.mark.parametrize(
    "line", ["conv3-64 maxpool", "conv3-8", "conv11-64/s4p2 LRN maxpool3 conv5-192 BN avgpool FC-10"]
)
def test_blocks_of_a_line_of_notation(line: str) -> None:
    drawn = diagram(resolve(line))
    assert "conv1_1" in svg_texts(drawn)
    assert_tidy(drawn)


def chain(*ops: Op) -> Network:
    """A network of ops in a row, on 8 maps."""
    names = [f"m.{number}" for number in range(len(ops))]
    return Network("net", one_input((1, 8, 16, 16)), tuple(map(module_node, names, ops, (INPUT, *names))))


def test_blocks_do_not_name_layers_that_do_nothing() -> None:
    first = (conv2d(8, 8, 3, padding=1), BatchNorm2d(8), Identity(), ReLU(), Dropout(0.0))
    network = chain(*first, conv2d(8, 8, 1), Identity(), Dropout(0.5))
    texts = svg_texts(diagram(network))
    assert texts[texts.index("0") + 1] == "3×3, 8, BN, ReLU"
    assert texts[texts.index("5") + 1] == "1×1, 8, dropout"
    assert {"m.2", "m.4", "m.6"} <= {part.name for part in diagram(network, "layers").picture.parts}
    # Where nothing else is on the row it is named.
    assert svg_texts(diagram(chain(Identity(), conv2d(8, 8, 1)))).count("identity") == 1
    assert "identity" not in svg_texts(diagram(chain(Identity(), ReLU(), conv2d(8, 8, 1))))


def test_modules_with_other_idle_layers_are_not_drawn_as_one() -> None:
    def block(number: int, source: str, *ops: Op) -> list[Node]:
        names = [f"m.{number}.{key}" for key in range(len(ops))]
        return list(map(module_node, names, ops, (source, *names)))

    nodes = block(0, INPUT, conv2d(8, 8, 1), Identity(), conv2d(8, 8, 1))
    nodes += block(1, "m.0.2", conv2d(8, 8, 1), conv2d(8, 8, 1))
    network = Network("net", one_input((1, 8, 16, 16)), tuple(nodes))
    assert not any(text.startswith("×") for text in svg_texts(diagram(network)))
    assert {part.name for part in diagram(network, "layers").picture.parts} >= {node.name for node in nodes}


def test_a_row_that_is_too_long_loses_whole_words_at_its_end() -> None:
    ops = (conv2d(8, 8, 3, padding=1), BatchNorm2d(8), *[ReLU6() for _ in range(12)])
    (text,) = (text for text in svg_texts(diagram(chain(*ops, conv2d(8, 8, 1)))) if text.startswith("3×3, "))
    assert re.fullmatch(r"3×3, 8, BN(, ReLU6)+, …", text)


@pytest.mark.parametrize(
    "annotate", [("macs", "params", "memory"), ("params", "macs"), ("shape", "params"), ("params",)]
)
def test_the_bar_of_the_parameters_is_below_them(annotate: tuple[str, ...]) -> None:
    drawn = diagram(column("D"), annotate=annotate)
    assert_tidy(drawn)
    theme = THEMES["light"]
    for part in drawn.picture.parts[1:]:
        texts = [shape for shape in part.shapes if isinstance(shape, Text)]
        (bar,) = (shape for shape in part.shapes if isinstance(shape, Rectangle) and shape.fill == theme.track)
        above = [text.text for text in texts if text.y < bar.y and text.text in {fact.title for fact in FACTS.values()}]
        assert above == [FACTS[key].title for key in annotate[: annotate.index("params") + 1]]


@pytest.mark.parametrize("style", ["blocks", "layers"])
def test_the_drawn_network_is_that_of_the_other_commands(style: str) -> None:
    for word in ("E", "vgg11_bn", "conv3-8 maxpool FC-10 soft-max"):
        assert "soft-max" not in svg_texts(diagram(resolve(word), style)), word
        assert svg_texts(diagram(resolve(word, BuildOptions(soft_max=True)), style)).count("soft-max") == 1, word


def test_the_table_ends_with_the_soft_max_of_the_paper() -> None:
    for word in ("E", "vgg11_bn"):
        assert svg_texts(diagram(resolve(word), "table")).count("soft-max") == 1, word
        assert svg_texts(diagram(resolve(word, BuildOptions(soft_max=True)), "table")).count("soft-max") == 1, word


@pytest.mark.parametrize("style", ["blocks", "layers", "volumes", "table"])
@pytest.mark.parametrize("width", [150, 330, 2000])
def test_a_picture_is_no_wider_than_asked(style: str, width: int) -> None:
    drawn = diagram(column("E"), style, width=width)
    assert_tidy(drawn)
    assert drawn.picture.width <= width + 0.01


@pytest.mark.parametrize("style", ["blocks", "layers", "volumes", "table"])
@pytest.mark.parametrize("name", CONFIGS)
def test_every_style_is_tidy_with_every_fact(style: str, name: str) -> None:
    network = column(name, batch_norm=True)
    assert_tidy(diagram(network, style))
    assert_tidy(diagram(network, style, annotate=tuple(FACTS), heat="params"))


def test_layers_show_every_op_once_with_its_path_and_shape() -> None:
    network = column("D")
    texts = svg_texts(diagram(network, "layers"))
    for node in network.nodes:
        assert texts.count(node.label or node.name) == 1, node.title
        assert not node.label or texts.count(node.name) == 1, node.title
    # Two convolutions leave 64 maps of 224x224; the inputs of a stage are written in it too.
    assert texts.count("64 × 224 × 224") == 2
    assert texts.count("64 × 112 × 112") == 2


def test_volumes_are_to_scale() -> None:
    heights = {}
    for part in diagram(column("D"), "volumes").picture.parts:
        front = part.shapes[2]
        assert isinstance(front, Polygon)
        heights[part.lines[0]] = front.points[2][1] - front.points[1][1]
    assert heights["conv1_1"] == pytest.approx(16 * heights["conv5_1"])
    assert heights["conv2_2"] == pytest.approx(2 * heights["pool2"])


def inside(point: tuple[float, float], face: Polygon) -> bool:
    """Whether a point lies within a convex face, not on its edge."""
    corners = [*face.points, face.points[0]]
    turns = [(x2 - x1) * (point[1] - y1) - (y2 - y1) * (point[0] - x1) for (x1, y1), (x2, y2) in pairwise(corners)]
    return all(turn > 0.01 for turn in turns) or all(turn < -0.01 for turn in turns)


@pytest.mark.parametrize("word", [*CONFIGS, "conv3-8 maxpool conv3-512 conv3-8 maxpool FC-10", "cnn-m", "vgg16-cifar"])
def test_no_solid_covers_a_text(word: str) -> None:
    picture = diagram(resolve(word), "volumes").picture
    faces = [shape for part in picture.parts for shape in part.shapes if isinstance(shape, Polygon)]
    for text in (shape for shape in picture.frame if isinstance(shape, Text)):
        left, top, right, bottom = text.bounds
        across = [left + (right - left) * step / 8 for step in range(9)]
        points = [(x, y) for x in across for y in (top, (top + bottom) / 2, bottom)]
        assert not any(inside(point, face) for point in points for face in faces), text.text


def test_a_vector_is_a_slab_as_high_as_its_units() -> None:
    fronts = {part.lines[0]: part.shapes[2] for part in diagram(column("D"), "volumes").picture.parts}
    heights = {name: front.points[2][1] - front.points[1][1] for name, front in fronts.items()}  # type: ignore[union-attr]
    assert heights["fc6"] == heights["fc7"] == pytest.approx(heights["fc8"] * 4096 / 1000)


def test_a_bracket_names_the_layers_of_a_stage() -> None:
    texts = svg_texts(diagram(column("D"), "volumes"))
    assert [text for text in texts if text.startswith("stage")] == [f"stage {number}" for number in range(1, 6)]
    assert {"conv3_1–3, pool3", "fc6–8", "224 × 224", "512", "4,096", "convolution", "fully connected"} <= set(texts)
    assert texts.count("14 × 14") == 1  # of the pool of stage 4; the convolutions of stage 5 have the same


def test_volumes_name_a_tensor_that_they_cannot_show() -> None:
    with pytest.raises(OptionError, match="from left to right"):
        diagram(column("A"), "volumes", direction="TB")


def test_the_table_has_the_bold_layers_of_the_paper() -> None:
    drawn = diagram([column(name) for name, config in CONFIGS.items() if config.published], "table")
    assert_tidy(drawn)
    bold = [
        (part.cluster[0].split()[1], shape.text)
        for part in drawn.picture.parts
        for shape in part.shapes
        if isinstance(shape, Text) and shape.bold and part.tooltip
    ]
    assert sorted(bold) == sorted(
        [("A-LRN", "LRN"), ("B", "conv3-64"), ("B", "conv3-128")]
        + [("C", "conv1-256"), ("C", "conv1-512"), ("C", "conv1-512")]
        + [(name, text) for name in "DE" for text in ("conv3-256", "conv3-512", "conv3-512")]
    )
    assert svg_texts(drawn).count("maxpool") == 5
    assert {"132.86 M", "133.05 M", "133.64 M", "138.36 M", "143.67 M"} <= set(svg_texts(drawn))


def test_the_table_marks_where_a_column_lacks_a_layer() -> None:
    words = "conv3-64 conv3-64 maxpool conv3-128 conv3-128 maxpool FC-10", "conv3-64 maxpool conv3-128 conv3-128 FC-10"
    drawn = diagram([resolve(word) for word in (*words, words[1])], "table")
    assert_tidy(drawn)
    cells = [
        (part.cluster[0][0], shape) for part in drawn.picture.parts for shape in part.shapes if isinstance(shape, Text)
    ]
    # One convolution of stage 1 and the pool of stage 2; the last column is that before it, and lacks nothing.
    assert [column for column, shape in cells if shape.text == "–"] == ["2", "2"]
    assert all(shape.bold for _, shape in cells if shape.text == "–")
    assert "Bold: differs from the column to the left; –: lacks a layer that it has." in svg_texts(drawn)
    more = svg_texts(diagram([resolve(word) for word in reversed(words)], "table"))
    assert "Bold: differs from the column to the left." in more
    assert "–" not in more


def test_the_table_heads_a_column_by_the_shortest_name_that_is_its_own() -> None:
    def named(*names: str) -> list[str]:
        return svg_texts(diagram([replace(column("A"), name=name, title="") for name in names], "table"))

    short = named("v1/net.py:VGG", "v1/net.py:Small", "runs/vgg.pth")
    assert short.count("VGG, Small, vgg.pth") == 1
    assert {"VGG", "Small", "vgg.pth"} <= set(short)
    both = named("v1/net.py:VGG", "v2/net.py:VGG")
    assert "v1/net.py:VGG, v2/net.py:VGG" in both
    assert {"v1/net.py:VGG", "v2/net.py:VGG"} <= set(both)


def test_heat_colours_the_largest_fully_and_states_the_scale() -> None:
    drawn = diagram(column("D"), "layers", heat="params")
    fills = {part.lines[0].split()[0]: part.shapes[0] for part in drawn.picture.parts}
    largest, least = fills["fc6"], fills["pool1"]
    assert isinstance(largest, Rectangle)
    assert isinstance(least, Rectangle)
    assert (least.fill, largest.fill) == THEMES["light"].heat
    assert {"parameters: 0", "102.76 M"} <= set(svg_texts(drawn))


def test_annotations_are_beside_their_layers() -> None:
    texts = svg_texts(diagram(column("D"), annotate=("rule", "macs", "memory")))
    assert "(224-3+2*1)/1+1 = 224" in texts
    assert "receptive field" not in texts
    # Stage 1: 224*224*(27*64 + 576*64) MACs of 15,470,264,320.
    assert "1.94 G (12.5%)" in texts


@pytest.mark.parametrize("style", ["blocks", "layers", "volumes", "table"])
def test_title_caption_and_legend_are_ones_own(style: str) -> None:
    plain = diagram(column("D"), style, heat="macs" if style == "volumes" else None)
    own = diagram(column("D"), style, title="My network", caption="in <my> words")
    assert_tidy(own)
    assert svg_texts(own)[:2] == ["My network", "in <my> words"]
    assert own.picture.title == plain.picture.title  # what a screen reader says
    bare = diagram(column("D"), style, title="none", caption="none", legend=False)
    assert_tidy(bare)
    texts = svg_texts(bare)
    assert not {"D (VGG-16)", plain.picture.title, "convolution"} & set(texts)
    assert not any(text.startswith(("Scale:", "After each")) for text in texts)
    assert bare.picture.height <= own.picture.height - 36
    for title, caption, words in (("none", None, 1), (None, "none", 1)):
        drawn = diagram(column("D"), style, title=title, caption=caption)
        assert_tidy(drawn)
        assert len(svg_texts(own)) - len(svg_texts(drawn)) == words
        assert drawn.picture.height < own.picture.height


@pytest.mark.parametrize("style", ["blocks", "layers", "volumes", "table"])
def test_a_cropped_page_ends_where_the_picture_does(style: str) -> None:
    drawn = diagram(column("A"), style, title="none", caption="none", legend=False, crop=True)
    assert_tidy(drawn)
    whole = diagram(column("A"), style, title="none", caption="none", legend=False).picture
    assert drawn.picture.width < whole.width
    boxes = [shape.bounds for shape in drawn.picture.shapes() if isinstance(shape, Text)]
    boxes += [(s.x, s.y, s.x + s.width, s.y + s.height) for s in drawn.picture.shapes() if isinstance(s, Rectangle)]
    points = [point for s in drawn.picture.shapes() if isinstance(s, (Line, Polygon)) for point in s.points]
    boxes += [(*point, *point) for point in points]
    assert [min(box[side] for box in boxes) for side in (0, 1)] == pytest.approx([1, 1])
    ends = [max(box[side] for box in boxes) + 1 for side in (2, 3)]
    assert ends == pytest.approx([drawn.picture.width, drawn.picture.height])


def test_top_to_bottom_is_one_column() -> None:
    frames = [frame_of(part) for part in diagram(column("A"), direction="TB").picture.parts]
    assert len({frame[0] for frame in frames if frame}) == 1


def test_a_theme_contrasts_with_its_text() -> None:
    for theme in THEMES.values():
        grounds = [theme.page, theme.card, *theme.fills.values()]
        assert set(theme.fills) == set(theme.accents) == set(KINDS)
        for ground in grounds:
            assert contrast(theme.ink, ground) >= READABLE, (theme.name, ground)
        for ground in grounds:
            assert contrast(theme.muted, ground) >= READABLE, (theme.name, ground)
        for step in range(11):
            fill = theme.heat_at(step / 10)
            assert contrast(theme.ink_on(fill), fill) >= READABLE, (theme.name, fill)


@pytest.mark.parametrize(("theme", "form"), [*product(THEMES, ("svg", "png", "pdf", "dot", "tex"))])
def test_the_same_bytes_on_every_run(theme: str, form: str) -> None:
    network = column("A")
    assert diagram(network, theme=theme).render(form) == diagram(network, theme=theme).render(form)


def test_png_has_the_pictures_size_and_its_colours() -> None:
    from matplotlib.image import imread

    drawn = diagram(column("E"))
    pixels = imread(io.BytesIO(drawn.render("png", dpi=72)))
    assert pixels.shape[:2] == (int(drawn.picture.height), int(drawn.picture.width))
    assert len({tuple(pixel) for pixel in pixels.reshape(-1, pixels.shape[2])}) > 100


def test_pdf_embeds_its_font() -> None:
    data = diagram(column("A")).render("pdf")
    assert data.startswith(b"%PDF-")
    assert b"/FontFile2" in data


def test_svg_has_a_title_and_the_details_of_each_node() -> None:
    root = ElementTree.fromstring(diagram(column("E")).render("svg"))
    assert root.findtext(f"{SVG}title") == "E (VGG-19)"
    ids = [element.get("id") for element in root.iter() if element.get("id")]
    assert ids[0] == "E-VGG-19-input"
    assert len(ids) == len(set(ids))
    (stage,) = [element for element in root.iter(f"{SVG}g") if element.get("id") == "E-VGG-19-stage-3"]
    assert "conv3_4: 3×3, 256" in (stage.findtext(f"{SVG}title") or "")


def test_hostile_names_stay_text() -> None:
    hostile = 'a"><script>alert(1)</script>&#0;\\N\x00\x1b[31m\u202e\ud800$x^2$'
    network = Network(hostile, one_input((1, 3, 8, 8)), (module_node(hostile, ReLU(), "input"),))
    drawn = diagram(network)
    root = ElementTree.fromstring(drawn.render("svg"))
    assert {element.tag.removeprefix(SVG) for element in root.iter()} <= {
        "svg", "title", "desc", "g", "rect", "path", "polygon", "text",
    }  # fmt: skip
    assert "<script>" in (root.findtext(f"{SVG}title") or "")
    for form in ("png", "pdf", "tex"):
        assert drawn.render(form)
    assert "\x1b" not in drawn.source
    assert '\\"><script>' in drawn.source


def ends_and_nodes(drawn: Diagram) -> tuple[set[str], set[str]]:
    """The names at the ends of a DOT graph's edges, and those of its nodes."""
    nodes = set(re.findall(r'^ *("[^"]+") \[label=', drawn.source, re.MULTILINE))
    edges = re.findall(r'^ *("[^"]+")(?::\w+)* -> ("[^"]+")', drawn.source, re.MULTILINE)
    return {end for pair in edges for end in pair}, nodes


@pytest.mark.parametrize("style", ["blocks", "layers", "volumes", "table"])
def test_dot_has_a_node_for_every_end_of_an_edge(style: str) -> None:
    ends, nodes = ends_and_nodes(diagram(column("E"), style))
    assert ends
    assert ends <= nodes


@pytest.mark.skipif(shutil.which("dot") is None, reason="Graphviz is not installed")
@pytest.mark.parametrize("style", ["blocks", "layers", "volumes", "table"])
def test_graphviz_takes_the_dot(style: str) -> None:
    source = diagram(column("E"), style).source
    run = subprocess.run(["dot", "-Tplain"], input=source.encode(), capture_output=True, check=True)
    assert run.stdout.startswith(b"graph ")


def test_dot_has_the_title_and_the_caption() -> None:
    """And escapes them; `none` leaves one out."""
    source = diagram(column("A"), title='<b>&"', caption="in my words").source
    assert "<b>&lt;b&gt;&amp;&quot;</b>" in source
    assert ">in my words<" in source
    assert "labelloc" not in diagram(column("A"), title="none", caption="none").source


def test_a_class_of_a_file_is_drawn_under_its_own_name() -> None:
    node = module_node("x", ReLU(), "input")
    for name, title in (
        ("/a b/net.py:Net(depth=2)", "Net(depth=2)"),
        (r"C:\runs\vgg.pth", "vgg.pth"),
        ("a:b/c", "a:b/c"),
    ):
        drawn = diagram(Network(name, one_input((1, 3, 8, 8)), (node,)))
        assert drawn.picture.title == svg_texts(drawn)[0] == title


def test_a_thin_volume_has_its_thickness_in_the_scale() -> None:
    drawn = diagram(Network("n", one_input((1, 3, 32, 32)), (module_node("x", ReLU(), "input"),)), "volumes")
    (scale,) = (text for text in svg_texts(drawn) if text.startswith("Scale"))
    assert re.search(r"3 channels are 0\.\d+ pt of thickness", scale)


def test_an_arrow_to_a_box_in_a_frame_stays_in_the_frame() -> None:
    sizes = {"above": (40.0, 10.0), "first": (90.0, 30.0), "second": (90.0, 30.0), "sum": (90.0, 30.0)}
    edges = [*pairwise(sizes), ("above", "sum")]
    layout = lay_out(sizes, edges, {"all": ["first", "second", "sum"], "two": ["second", "sum"]}, "bundled")
    for frame in layout.clusters.values():
        x = [x for x, y in along(layout.curves["above", "sum"]) if frame.y <= y <= frame.bottom]
        assert len(x) > 4
        assert frame.x + 3 < min(x) <= max(x) < frame.right - 3
    assert layout.clusters["two"].right < layout.clusters["all"].right


def test_a_card_is_a_table_in_dot() -> None:
    source = diagram(column("D")).source
    fill = THEMES["light"].fills["conv"]
    row = f'<td align="left" bgcolor="{fill}">conv3_1</td><td align="right" bgcolor="{fill}">3×3, 256</td>'
    assert row in source
    assert "<b>stage 1</b>" in source
    hostile = Network("n", one_input((1, 3, 8, 8)), (module_node('<b>"&amp;\x00x', ReLU(), "input"),))
    assert "&lt;b&gt;&quot;&amp;amp;\ufffdx" in diagram(hostile).source


def test_ops_without_an_arrow_in_between_are_one_table_in_dot() -> None:
    """As they are one stack of boxes in the picture, up to the length that Graphviz reads."""
    drawn = diagram(column("A"), "layers")
    ends, nodes = ends_and_nodes(drawn)
    assert ends <= nodes
    assert '"features.0"' in nodes
    assert '"features.1"' not in nodes
    table = next(line for line in drawn.source.splitlines() if line.lstrip().startswith('"features.0" ['))
    assert table.index(">conv1_1 3×3, 64<") < table.index(">relu1_1 ReLU<")
    names = [f"{place} {'&' * 1000}" for place in range(20)]
    ops = [module_node(name, ReLU(), source) for name, source in zip(names, ["input", *names])]
    long = diagram(Network("n", one_input((1, 3, 8, 8)), tuple(ops)), "layers")
    ends, nodes = ends_and_nodes(long)
    assert ends <= nodes
    assert len(nodes) == 3  # the input, and two tables of ten rows
    assert max(map(len, re.findall(r"<<table.*?</table>>", long.source))) < 16_384


def test_a_volume_is_the_front_of_its_solid_in_dot() -> None:
    drawn = diagram(column("A"), "volumes")
    fronts = {part.name: bounds(part.shapes[-1]) for part in drawn.picture.parts}
    sizes = re.findall(r'^ *"([^"]+)" .* fixedsize="true" width="(\d+)" height="(\d+)"', drawn.source, re.MULTILINE)
    assert len(sizes) == 1 + 8 + 5 + 3
    for name, width, height in sizes:
        left, top, right, bottom = fronts[name]
        assert (int(width), int(height)) == (round(right - left), round(bottom - top))
    assert "<td>conv1_1</td>" in drawn.source
    assert "<td>64</td></tr><tr><td>224 × 224</td>" in drawn.source
    long = Network("n", one_input((1, 3, 8, 8)), (module_node('<"&' * 9000, ReLU(), "input"),))
    assert max(map(len, re.findall(r"<<table.*</table>>", diagram(long, "volumes").source))) < 16_384


def laid_out(source: str) -> tuple[float, dict[str, tuple[float, float]]]:
    """The width that Graphviz gives a graph, in points, and where the middle of each node is."""
    plain = subprocess.run(["dot", "-Tplain"], input=source, capture_output=True, check=True, text=True)
    assert plain.stderr == ""
    lines = [shlex.split(line) for line in plain.stdout.splitlines()]
    places = {words[1]: (float(words[2]), -float(words[3])) for words in lines if words[0] == "node"}
    return 72 * float(lines[0][2]), places


@pytest.mark.skipif(shutil.which("dot") is None, reason="Graphviz is not installed")
def test_graphviz_lays_the_volumes_out_in_a_row_that_fits_a_page() -> None:
    drawn = diagram(column("A"), "volumes")
    width, places = laid_out(drawn.source)
    assert width < 1.5 * drawn.picture.width
    assert sorted(places, key=lambda name: places[name]) == [part.name for part in drawn.picture.parts]


@pytest.mark.skipif(shutil.which("dot") is None, reason="Graphviz is not installed")
def test_graphviz_lays_the_stages_out_in_the_rows_of_the_picture() -> None:
    """Each stage with the shapes that it reads at its top."""
    _, places = laid_out(diagram(column("A"), "layers").source)
    tops = [
        ["input in stage 1", "features.2 in stage 2", "features.5 in stage 3"],
        ["features.10 in stage 4", "features.15 in stage 5", "features.20 in classifier"],
    ]
    first, second = ([places[name] for name in row] for row in tops)
    for row in (first, second):
        assert [x for x, _ in row] == sorted(x for x, _ in row)
        assert len({y for _, y in row}) == 1
    assert all(second[0][1] > places[name][1] for name in ("features.2", "features.5", "features.10"))


def test_a_single_column_of_stages_is_left_to_graphviz() -> None:
    source = diagram(column("A"), "layers", direction="TB").source
    assert "newrank" not in source
    assert '"features.2" -> "features.3" [label="64 × 112 × 112"]' in source


@pytest.mark.skipif(shutil.which("dot") is None, reason="Graphviz is not installed")
def test_graphviz_lays_the_cards_out_in_the_rows_of_the_picture() -> None:
    drawn = diagram(column("E"))
    _, places = laid_out(drawn.source)
    ours = {part.name: frame for part in drawn.picture.parts if (frame := frame_of(part))}
    rows: dict[float, list[str]] = {}
    for name, frame in ours.items():
        rows.setdefault(frame[1], []).append(name)
    order = [name for _, row in sorted(rows.items()) for name in row]
    assert sorted(places, key=lambda name: (round(places[name][1], 1), places[name][0])) == order
    assert len({round(places[name][1], 1) for name in places}) == len(rows) == 3


def test_tex_names_every_layer_and_escapes_special_characters() -> None:
    source = diagram(column("E")).render("tex").decode()
    assert source.startswith(r"\documentclass[border=0pt]{standalone}")
    assert r"conv5\_4" in source
    hostile = Network(r"\input{/etc/passwd}%$&", one_input((1, 3, 8, 8)), (module_node("x", ReLU(), "input"),))
    assert r"{\textbackslash{}input\{/etc/passwd\}\%\$\&}" in diagram(hostile).render("tex").decode()


@pytest.mark.parametrize("style", ["blocks", "layers", "volumes", "table"])
def test_tex_defines_within_the_picture_what_an_author_may_edit(style: str) -> None:
    for theme in THEMES.values():
        source = diagram(column("A"), style, theme.name).render("tex").decode()
        preamble, begin, body = source.partition(r"\begin{tikzpicture}")
        assert begin
        assert "definecolor" not in preamble  # \input of the standalone package skips the preamble
        colors = dict(re.findall(r"\\definecolor\{(\w+)\}\{HTML\}\{(\w{6})\}", body))
        assert colors["ink"] == theme.ink[1:].upper()
        assert style == "table" or colors["conv"] == theme.fills["conv"][1:].upper()
        drawn = re.findall(r"^\\(?:node|path)\[(.*?)\] ", body, re.MULTILINE)
        used = {option for options in drawn for option in options.split(", ")}
        named = {name.partition("=")[2] for name in used if name.startswith(("fill=", "draw=", "text=", "front="))}
        assert named <= set(colors)
        styles = set(re.findall(r"^  ([\w ]+)/\.style=", body, re.MULTILINE))
        assert {option.partition("=")[0] for option in used if "=" not in option or option[:3] == "top"} <= styles
        assert body.count("{") - body.count(r"\{") == body.count("}") - body.count(r"\}")


def test_tex_gives_each_part_a_node_and_each_solid_the_colour_of_its_kind() -> None:
    drawn = diagram(column("A"), "volumes")
    source = drawn.render("tex").decode()
    for part in drawn.picture.parts:
        assert len(re.findall(rf"\({part.name.replace('.', '-')}\) at ", source)) == 1, part.name
        assert f"\\path[front={part.kind}]" in source
    assert source.count("front=conv]") == 8
    assert r"top/.style={fill=#1!55!page, draw=#1Line" in source


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="LaTeX is not installed")
@pytest.mark.parametrize("style", ["blocks", "volumes"])
def test_latex_compiles_the_tex(style: str, tmp_path: Path) -> None:
    if subprocess.run(["kpsewhich", "standalone.cls"], capture_output=True, check=False).returncode:
        pytest.skip("the standalone class is not installed")
    (tmp_path / "e.tex").write_bytes(diagram(column("E"), style).render("tex"))
    words = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "e.tex"]
    subprocess.run(words, cwd=tmp_path, capture_output=True, check=True)
    assert (tmp_path / "e.pdf").read_bytes().startswith(b"%PDF-")


def test_nodes_link_to_their_addresses() -> None:
    drawn = diagram(column("A"), href=lambda name: f"#{name}")
    root = ElementTree.fromstring(drawn.render("svg"))
    assert "#features.0" in {link.get("href") for link in root.iter(f"{SVG}a")}


def test_a_diagram_saves_itself(tmp_path: Path) -> None:
    drawn = diagram(column("A"))
    for form in FORMATS:
        drawn.save(tmp_path / f"a.{form}")
        assert (tmp_path / f"a.{form}").read_bytes() == drawn.render(form)
    with pytest.raises(OptionError, match=r"write one of \.svg"):
        drawn.save(tmp_path / "a.gif")
    with pytest.raises(OutputError):
        drawn.save(tmp_path / "missing" / "a.svg")


def test_an_unknown_option_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    network = column("A")
    with pytest.raises(OptionError, match="style is one of blocks"):
        diagram(network, style="cubes")
    with pytest.raises(OptionError, match="theme is one of light, dark, paper"):
        diagram(network, theme="pink")
    with pytest.raises(OptionError, match="format is one of svg"):
        diagram(network).render("gif")
    for dpi in (0, -1, 10**6):
        with pytest.raises(OptionError, match="\ndpi is 1 to"):
            diagram(network).render("png", dpi=dpi)
    with pytest.raises(OptionError, match="no layers"):
        diagram(Network("empty", one_input((1, 3, 8, 8)), ()))
    with pytest.raises(OptionError, match="one model at a time"):
        diagram([network, network], style="blocks")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(MissingTool, match="on PATH"):
        diagram(network, engine="system")


def test_an_svg_needs_no_heavy_package() -> None:
    code = """if True:
        import sys
        from vggscope.drawing import diagram
        from vggscope.sources.resolve import resolve
        diagram(resolve("E")).render("svg")
        print([name for name in sys.modules if name in ("torch", "torchvision", "matplotlib", "numpy", "pygraphviz")])
    """
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"


def test_the_table_of_one_network_cuts_no_text_and_names_it_once() -> None:
    texts = svg_texts(diagram([column("A")], "table"))
    assert "224 × 224 RGB image" in texts
    assert texts.count("A (VGG-11)") == 1
    assert "132,863,336 parameters, 7.61 GMACs, input 3 × 224 × 224" in texts


def test_several_models_are_a_table_unless_a_style_is_named(vggscope, tmp_path: Path) -> None:
    assert vggscope("diagram", "A", "B", "-o", str(tmp_path / "chosen.svg")).code == 0
    assert vggscope("diagram", "A", "B", "--style", "table", "-o", str(tmp_path / "named.svg")).code == 0
    assert (tmp_path / "chosen.svg").read_text() == (tmp_path / "named.svg").read_text()
    refused = vggscope("diagram", "A", "B", "--style", "blocks", "-o", str(tmp_path / "x.svg"))
    assert (refused.code, "style blocks draws one model at a time" in refused.err) == (2, True)
    assert vggscope("diagram", "A", "-o", str(tmp_path / "one.svg")).code == 0
    assert vggscope("diagram", "A", "--style", "blocks", "-o", str(tmp_path / "blocks.svg")).code == 0
    assert (tmp_path / "one.svg").read_text() == (tmp_path / "blocks.svg").read_text()
