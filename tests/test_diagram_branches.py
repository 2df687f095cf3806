"""Pictures of networks that branch: folded modules, layouts by either Graphviz, arrows that skip cards."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from itertools import pairwise

import pytest

from tests.test_diagram import assert_tidy, frame_of, svg_texts
from vggscope.drawing import Diagram, diagram
from vggscope.drawing.picture import Line, Polygon, Rectangle, Text
from vggscope.drawing.stages import LONGEST, Stage
from vggscope.drawing.subject import Subject
from vggscope.errors import MissingTool, OptionError
from vggscope.graph import INPUT, Network, Node, module_node, one_input
from vggscope.ops.activation import ReLU
from vggscope.ops.convolution import conv2d
from vggscope.ops.elementwise import Elementwise
from vggscope.ops.merge import Concatenation
from vggscope.ops.normalization import BatchNorm2d
from vggscope.sources.resolve import resolve


def block(path: str, source: str, channels: int) -> list[Node]:
    """A residual block: conv, batch norm, ReLU, conv, and its input added."""
    nodes = [
        module_node(f"{path}.conv1", conv2d(channels, channels, 3, padding=1), source),
        module_node(f"{path}.bn1", BatchNorm2d(channels), f"{path}.conv1"),
        module_node(f"{path}.relu", ReLU(), f"{path}.bn1"),
        module_node(f"{path}.conv2", conv2d(channels, channels, 3, padding=1), f"{path}.relu"),
    ]
    return [*nodes, Node(f"{path}.add", Elementwise("add"), (f"{path}.conv2", source))]


def residual(*lengths: int) -> Network:
    """A network of residual blocks, `lengths[i]` of them in the module `layer{i+1}`."""
    nodes = [module_node("stem", conv2d(3, 8, 3, padding=1), INPUT)]
    for number, length in enumerate(lengths, 1):
        for index in range(length):
            nodes += block(f"layer{number}.{index}", nodes[-1].name, 8)
    return Network(
        "residual", one_input((1, 3, 32, 32)), (*nodes, module_node("head", conv2d(8, 10, 1), nodes[-1].name))
    )


def skipping() -> Network:
    """An encoder and a decoder: the last two modules read the outputs of the first two again."""
    nodes: list[Node] = []
    for number in range(6):
        source = nodes[-1].name if nodes else INPUT
        channels = 3 if not nodes else 8
        if number > 3:
            past = f"m{5 - number}.relu"
            nodes.append(Node(f"m{number}.cat", Concatenation(1), (source, past)))
            source, channels = nodes[-1].name, 16
        nodes.append(module_node(f"m{number}.conv1", conv2d(channels, 8, 3, padding=1), source))
        nodes.append(module_node(f"m{number}.conv2", conv2d(8, 8 + number, 3, padding=1), nodes[-1].name))
        nodes.append(module_node(f"m{number}.conv3", conv2d(8 + number, 8, 3, padding=1), nodes[-1].name))
        nodes.append(module_node(f"m{number}.relu", ReLU(), nodes[-1].name))
    return Network("skipping", one_input((1, 3, 32, 32)), tuple(nodes))


def titles(network: Network, fold: bool = True) -> list[tuple[str, list[tuple[str, int]]]]:
    stages: tuple[Stage, ...] = Subject(network, fold).stages
    return [(stage.name, [(block.title, block.count) for block in stage.blocks]) for stage in stages]


def test_equal_blocks_in_a_row_are_one() -> None:
    stages = titles(residual(4, 3))
    assert stages[1:3] == [("layer1", [("layer1.0–3", 4)]), ("layer2", [("layer2.0–2", 3)])]
    assert {"×4", "×3", "layer1.0–3"} <= set(svg_texts(diagram(residual(4, 3))))


def test_no_fold_draws_each() -> None:
    texts = svg_texts(diagram(residual(4, 3), "layers", fold=False))
    assert texts.count("conv1") == 7
    assert not any(text.startswith("×") for text in texts)


def test_parallel_modules_are_not_folded() -> None:
    sides = [node for path in ("left", "right") for node in block(path, INPUT, 3)]
    join = Node("add", Elementwise("add"), ("left.add", "right.add"))
    network = Network("two", one_input((1, 3, 8, 8)), (*sides, join))
    assert [name for name, _ in titles(network)] == ["left", "right", "add"]


def test_a_module_may_be_called_input() -> None:
    inside = block("input", INPUT, 3)
    network = Network("n", one_input((1, 3, 8, 8)), (*inside, module_node("head", conv2d(3, 8, 1), inside[-1].name)))
    assert [name for name, _ in titles(network)] == ["input [2]", "head"]
    assert_tidy(diagram(network))


def test_every_node_is_in_one_stage() -> None:
    for network in (residual(4, 3), skipping()):
        for fold in (True, False):
            subject = Subject(network, fold)
            names = [layer.node.name for stage in subject.stages for layer in stage.layers]
            assert names == [node.name for node in network.nodes]


@pytest.mark.parametrize("style", ["blocks", "layers", "volumes"])
@pytest.mark.parametrize("network", [residual(4, 3), residual(1), skipping()], ids=["residual", "single", "skipping"])
@pytest.mark.parametrize("fold", [True, False])
def test_branches_are_tidy(style: str, network: Network, fold: bool) -> None:
    assert_tidy(diagram(network, style, fold=fold))
    assert_tidy(diagram(network, style, fold=fold, annotate=("params", "macs", "rule"), heat="macs"))


@pytest.mark.parametrize("width", [200, 420, 2000])
def test_arrows_that_skip_cards_run_around_them(width: int) -> None:
    drawn = diagram(skipping(), width=width)
    cards = [frame for part in drawn.picture.parts if (frame := frame_of(part))]
    assert {(link.source, link.target) for link in drawn.picture.links} >= {("m0", "m5"), ("m1", "m4")}
    for link in drawn.picture.links:
        for line in (shape for shape in link.shapes if isinstance(shape, Line)):
            for (x1, y1), (x2, y2) in pairwise(line.points):
                for left, top, right, bottom in cards:
                    beside = max(x1, x2) <= left + 0.01 or min(x1, x2) >= right - 0.01
                    above = max(y1, y2) <= top + 0.01 or min(y1, y2) >= bottom - 0.01
                    assert beside or above, (link.source, link.target)


def arcs(network: Network) -> list[tuple[str, str]]:
    """The names of the solids where each drawn connection starts and ends, by the middles of their upper back edges."""
    picture = diagram(network, "volumes", fold=False).picture
    ends = {}
    for part in picture.parts:
        top = part.shapes[0]
        assert isinstance(top, Polygon)
        ends[part.lines[0]] = (top.points[1][0] + top.points[2][0]) / 2

    def nearest(x: float) -> str:
        return min(ends, key=lambda name: abs(ends[name] - x))

    lines = [shape for link in picture.links for shape in link.shapes if isinstance(shape, Line)]
    return sorted((nearest(line.points[0][0]), nearest(line.points[-1][0])) for line in lines)


def test_volumes_draw_the_connections_that_skip_solids() -> None:
    assert arcs(residual(2)) == [("layer1.0", "layer1.1"), ("stem", "layer1.0")]
    # A concatenation is drawn with the map before it.
    assert arcs(skipping()) == [("m0.conv3", "m4.conv3"), ("m1.conv3", "m3.conv3")]


def test_a_volume_of_another_size_or_of_another_group_has_its_channels() -> None:
    drawn = diagram(resolve("torchvision:resnet50"), "volumes")
    texts = svg_texts(drawn)
    # Above a height and a width stand the channels, also where the map before has as many.
    areas = [place for place, text in enumerate(texts) if re.fullmatch(r"[\d,]+ × [\d,]+", text)]
    assert len(areas) == 7
    assert all(re.fullmatch(r"[\d,]+", texts[place - 1]) for place in areas)
    # The pool before has 64 channels too, the first block 256.
    start = texts.index("56 × 56")
    assert texts[start - 1 : start + 2] == ["64", "56 × 56", "256"]
    # The input has 3 channels, the stem 8, and so have the blocks.
    assert svg_texts(diagram(residual(2), "volumes")).count("8") == 2
    assert not any(re.search(r"\w…\w", text) for text in texts)


def test_a_join_names_the_sources_of_its_inputs() -> None:
    texts = svg_texts(diagram(skipping(), "layers"))
    assert {"m0: 8 × 32 × 32", "m4: 8 × 32 × 32"} <= set(texts)


def test_dot_of_a_folded_network_is_closed() -> None:
    from tests.test_diagram import ends_and_nodes

    for style in ("blocks", "layers", "volumes"):
        ends, nodes = ends_and_nodes(diagram(residual(4, 3), style))
        assert ends
        assert ends <= nodes, style


def same_texts(one: Diagram, other: Diagram) -> bool:
    return sorted(svg_texts(one)) == sorted(svg_texts(other))


@pytest.mark.skipif(shutil.which("dot") is None, reason="Graphviz is not installed")
def test_either_engine_draws_the_same_graph() -> None:
    bundled, system = diagram(residual(2), "layers"), diagram(residual(2), "layers", engine="system")
    assert same_texts(bundled, system)
    assert_tidy(system)


def test_the_svg_states_which_graphviz_laid_it_out() -> None:
    import pygraphviz

    written = diagram(residual(2), "layers").render("svg").decode()
    assert f"Graphviz {pygraphviz.__graphviz_version__} -->" in written
    assert "Graphviz" not in diagram(residual(2), "blocks").render("svg").decode()


def test_a_missing_engine_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pygraphviz", None)
    with pytest.raises(MissingTool, match="engine='system'"):
        diagram(residual(2), "layers")
    assert diagram(residual(2), "blocks").render("svg")


def test_a_table_needs_the_papers_stages() -> None:
    with pytest.raises(OptionError, match="residual has no such stages"):
        diagram(residual(2), "table")


def test_stderr_stays_empty() -> None:
    code = """if True:
        from tests.test_diagram_branches import residual
        from vggscope.drawing import diagram
        drawn = diagram(residual(3), "layers")
        for form in ("svg", "png", "pdf", "dot", "tex"):
            drawn.render(form)
    """
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert (run.stdout, run.stderr) == (b"", b"")


def test_a_thousand_layers_are_counted_not_listed() -> None:
    nodes = [module_node("c0", conv2d(3, 8, 3, padding=1), INPUT)]
    for index in range(1, 500):
        nodes.append(module_node(f"r{index}", ReLU(), nodes[-1].name))
        nodes.append(module_node(f"c{index}", conv2d(8, 8, 3, padding=1), nodes[-1].name))
    from vggscope.vgg.labels import labelled

    network = labelled(Network("deep", one_input((1, 3, 16, 16)), tuple(nodes)))
    folded = diagram(network, "layers")
    assert "×499" in svg_texts(folded)
    unfolded = diagram(network, "blocks", fold=False)
    assert_tidy(unfolded)
    assert svg_texts(unfolded).count("conv1_400") == 1


def test_a_long_stage_is_split_where_one_tensor_passes() -> None:
    stages = Subject(residual(30), fold=False).stages
    assert all(len(list(stage.rows)) <= LONGEST for stage in stages)
    assert len(stages) > 3


def test_every_box_has_a_label() -> None:
    for style in ("blocks", "layers"):
        for part in diagram(residual(2), style).picture.parts:
            assert any(isinstance(shape, Rectangle) for shape in part.shapes)
            assert any(isinstance(shape, Text) and shape.text for shape in part.shapes), part.name


@pytest.mark.slow
@pytest.mark.parametrize("style", ["blocks", "layers", "volumes"])
@pytest.mark.parametrize("name", ["resnet50", "densenet121", "googlenet"])
def test_well_known_models(name: str, style: str) -> None:
    drawn = diagram(resolve(f"torchvision:{name}"), style)
    assert_tidy(drawn)
    wanted = {"resnet50": "layer3.1–5", "densenet121": "denselayer1–24", "googlenet": "inception5b"}[name]
    assert any(wanted in text for text in svg_texts(drawn)) or name == "googlenet"
    assert drawn.picture.height <= 1.8 * drawn.picture.width
