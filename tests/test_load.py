"""Networks of thousands of layers: work grows in proportion to them, and many commands run at once."""

from __future__ import annotations

import json
import os
import random
import resource
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.counting import growth
from tests.strategies import examples
from vggscope.analysis.compare import compare as side_by_side
from vggscope.analysis.memory.report import memory
from vggscope.analysis.memory.step_config import StepConfig
from vggscope.analysis.operations import operations
from vggscope.analysis.receptive_field.result import describe
from vggscope.analysis.summary import by_stage, summarize
from vggscope.diffing import align as alignment
from vggscope.diffing.align import align
from vggscope.diffing.compare import compare
from vggscope.drawing import diagram
from vggscope.graph import INPUT, Network, Node, module_node, one_input
from vggscope.ops.activation import ReLU
from vggscope.ops.convolution import Convolution, conv2d
from vggscope.ops.elementwise import Elementwise
from vggscope.render.formats import FORMATS, write
from vggscope.result import Result
from vggscope.sources.resolve import resolve
from vggscope.vgg.options import BuildOptions

SHAPE = (1, 8, 32, 32)


def conv(path: str, source: str) -> Node:
    return module_node(path, conv2d(8, 8, 3, padding=1), source)


def chain(layers: int) -> Network:
    """A VGG that never pools."""
    return resolve(" ".join(["conv3-8"] * (layers // 2)), BuildOptions(input=SHAPE[1:]))


def residual(layers: int) -> Network:
    """Blocks of two convolutions that are added to what they read."""
    nodes: list[Node] = []
    source = INPUT
    for number in range(layers // 4):
        path = f"blocks.{number}"
        first = conv(f"{path}.conv1", source)
        relu = module_node(f"{path}.relu", ReLU(), first.name)
        second = conv(f"{path}.conv2", relu.name)
        nodes += [first, relu, second, Node(f"{path}.add", Elementwise("add"), (second.name, source))]
        source = nodes[-1].name
    return Network("residual", one_input(SHAPE), tuple(nodes))


def star(layers: int) -> Network:
    """One tensor that every convolution reads."""
    nodes = [conv("stem", INPUT)]
    total = "stem"
    for number in range(layers // 2):
        branch = conv(f"branches.{number}.conv", "stem")
        nodes += [branch, Node(f"branches.{number}.add", Elementwise("add"), (total, branch.name))]
        total = nodes[-1].name
    return Network("star", one_input(SHAPE), tuple(nodes))


def ladder(layers: int) -> Network:
    """Each tensor of the first half is read again in the second, the last one first."""
    nodes: list[Node] = []
    source = INPUT
    for number in range(layers // 2):
        nodes.append(conv(f"down.{number}", source))
        source = nodes[-1].name
    for number, other in enumerate([node.name for node in reversed(nodes)]):
        nodes.append(Node(f"up.{number}", Elementwise("add"), (source, other)))
        source = nodes[-1].name
    return Network("ladder", one_input(SHAPE), tuple(nodes))


NETWORKS: dict[str, Callable[[int], Network]] = {
    "chain": chain,
    "residual": residual,
    "star": star,
    "ladder": ladder,
}


def changed(network: Network, every: int) -> Network:
    """The network with another kernel in each so-many-th convolution."""
    wider = conv2d(8, 8, 5, padding=2)
    nodes = (
        replace(node, op=wider) if isinstance(node.op, Convolution) and place % every < 2 else node
        for place, node in enumerate(network.nodes)
    )
    return replace(network, nodes=tuple(nodes))


def renamed(network: Network) -> Network:
    names = {INPUT: INPUT, **{node.name: f"other.{node.name}" for node in network.nodes}}
    nodes = (
        replace(node, name=names[node.name], inputs=tuple(map(names.__getitem__, node.inputs)))
        for node in network.nodes
    )
    return replace(network, nodes=tuple(nodes))


def in_every_format(result: Callable[[Network], Result], network: Network) -> None:
    found = result(network)
    for form in FORMATS:
        assert write(found, form.name)


RESULTS: dict[str, Callable[[Network], Result]] = {
    "summary": summarize,
    "stages": lambda network: by_stage(summarize(network)),
    "memory": lambda network: memory(network, 4),
    "receptive fields": describe,
    "operations": operations,
    "compare": lambda network: side_by_side([network, network]),
    "diff, all changed": lambda network: compare(changed(network, 1), network),
}
"""Results, each of which is also written in every format."""

WORK: dict[str, Callable[[Network], object]] = {
    **{name: partial(in_every_format, result) for name, result in RESULTS.items()},
    "memory, checkpoints": lambda network: memory(network, 4, StepConfig(optimizer="adam", checkpoint=True)),
    "memory, sharded": lambda network: memory(network, 4, StepConfig(gpus=4, parallel="fsdp")),
    "memory, inference": lambda network: memory(network, 4, StepConfig(mode="inference")),
    "diff of the same": lambda network: compare(network, network),
    "diff, a few changed": lambda network: compare(changed(network, 997), network),
    "diff, renamed": lambda network: compare(renamed(network), network),
    "diff, half missing": lambda network: compare(
        network, replace(network, nodes=network.nodes[: len(network.nodes) // 2])
    ),
}
"""Everything that is worked out of a network."""

PICTURES: dict[str, Callable[[Network], object]] = {
    "blocks": lambda network: diagram(network, "blocks").render("svg"),
    "layers": lambda network: diagram(network, "layers").render("svg"),
    "volumes": lambda network: diagram(network, "volumes").render("svg"),
    "blocks, not folded": lambda network: diagram(network, "blocks", fold=False).render("svg"),
}


@pytest.mark.parametrize("name", WORK)
@pytest.mark.parametrize("kind", NETWORKS)
def test_work_grows_with_the_layers(kind: str, name: str) -> None:
    assert growth(WORK[name], NETWORKS[kind](100), NETWORKS[kind](600), 6) < 1.5


@pytest.mark.slow
@pytest.mark.parametrize("name", WORK)
def test_work_grows_with_thousands_of_layers(name: str) -> None:
    """`benchmarks/reliability.py` has the seconds, and 50,000 layers."""
    assert growth(WORK[name], residual(500), residual(3_000), 6) < 1.5


@pytest.mark.slow
@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("kind", ["chain", "residual"])
def test_pictures_grow_with_the_layers(kind: str, name: str) -> None:
    """Graphviz lays out the other kinds of network."""
    assert growth(PICTURES[name], NETWORKS[kind](300), NETWORKS[kind](1_800), 6) < 1.5


@pytest.mark.slow
def test_a_line_of_ten_thousand_layers() -> None:
    line = " ".join(["conv3-8"] * 10_000 + ["FC-10"])
    words = ["summary", line, "--input", "3x32x32", "-f", "json"]
    # VmHWM and not ru_maxrss, which begins with what the process had that started this one.
    program = (
        "import pathlib, sys; from vggscope.cli.app import run; code = run(sys.argv[1:]);"
        " status = pathlib.Path('/proc/self/status');"
        " print(status.read_text().split('VmHWM:')[1].split()[0] if status.exists() else 0, file=sys.stderr);"
        " sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert len(found["layers"]) == 20_000 + 3
    assert found["totals"]["params"] == (27 + 1) * 8 + 9_999 * (72 + 1) * 8 + (8 * 49 + 1) * 10
    assert int(done.stderr) < 400_000


@pytest.mark.slow
def test_very_long_and_very_different_networks_are_compared_in_bounded_memory() -> None:
    """A full table of them would take 800 MB."""
    draw = random.Random(1)
    ours, reference = (
        resolve(
            " ".join(f"conv{draw.choice('135')}-{draw.choice('48')}" for _ in range(5_000)),
            BuildOptions(input=(3, 8, 8)),
        )
        for _ in range(2)
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    diff = compare(ours, reference)
    assert diff.verdict == "different"
    assert sum("fewer differences may explain as much" in note for note in diff.notes) <= 1
    if sys.platform == "linux":
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000


def test_networks_too_different_to_be_aligned_for_sure_say_so(monkeypatch) -> None:
    ours = resolve(" ".join(["conv3-8"] * 60), BuildOptions(input=(3, 8, 8)))
    reference = resolve(" ".join(["conv5-4", "maxpool/s1p0"] * 60), BuildOptions(input=(3, 80, 80)))
    assert not any("fewer differences" in note for note in compare(ours, reference).notes)
    monkeypatch.setattr(alignment, "MOST_CELLS", 1000)
    assert any("fewer differences" in note for note in compare(ours, reference).notes)


WORDS = st.lists(st.sampled_from(["conv1-4", "conv3-4", "conv3-8", "conv5-8"]), min_size=5, max_size=50)
EDITS = st.lists(st.tuples(st.integers(0, 49), st.sampled_from(["", "conv1-4", "conv3-8", "conv5-8"])), max_size=6)


@examples(30)
@given(WORDS, EDITS)
def test_a_band_finds_what_the_whole_table_does(words: list[str], edits: list[tuple[int, str]]) -> None:
    """Where it says that nothing is cheaper, it has found the same alignment."""
    other = list(words)
    for place, word in edits:
        other[place % len(other) : place % len(other) + (word == "")] = [word] if word else []
        other = other or ["conv1-4"]
    ours, reference = (resolve(" ".join(line), BuildOptions(input=(3, 8, 8))) for line in (words, other))
    whole = align(ours, reference)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(alignment, "MOST_CELLS", 14 * len(ours.nodes))
        band = align(ours, reference)
    assert whole.is_cheapest
    assert [i for i, _ in band.pairs if i is not None] == list(range(len(ours.nodes)))
    assert [j for _, j in band.pairs if j is not None] == list(range(len(reference.nodes)))
    assert not band.is_cheapest or band.pairs == whole.pairs


@pytest.mark.slow
def test_sixty_four_commands_at_once(tmp_path) -> None:
    commands = [("summary", "D"), ("memory", "A"), ("diagram", "E", "-o", str(tmp_path / "x.svg")), ("rf", "B")]
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "vggscope", *commands[number % 4]],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for number in range(64)
    ]
    outputs: dict[int, set[bytes]] = {}
    for number, process in enumerate(running):
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        outputs.setdefault(number % 4, set()).add(out)
    assert [len(found) for found in outputs.values()] == [1, 1, 1, 1]
    assert [path.name for path in tmp_path.iterdir()] == ["x.svg"]
