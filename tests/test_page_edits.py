"""The page's rules for a changed network, run in a browser, beside Python's ops and analyses."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.resources import files
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from vggscope.analysis.summary import summarize
from vggscope.errors import ShapeError
from vggscope.explorer.edit import editable
from vggscope.graph import Network, Parameter, one_input
from vggscope.ops.base import infer_output_shape
from vggscope.sources.resolve import resolve
from vggscope.units import bytes_text, percent_text, short_count
from vggscope.vgg.options import BuildOptions

if TYPE_CHECKING:
    from playwright.sync_api import Browser

EDITS = 200

SMALL = BuildOptions(input=(3, 40, 56))

NETWORKS = (
    ("A", BuildOptions()),
    ("A-LRN", BuildOptions()),
    ("vgg13_bn", BuildOptions(input=(3, 96, 80))),
    ("D", BuildOptions(head="dense")),
    ("E", BuildOptions(head="flatten", num_classes=10)),
    ("conv7-16/s2 BN maxpool3/s2 conv5-24/p0 avgpool LRN conv3-32 FC-20 FC-5 soft-max", SMALL),
    ("conv3-8 avgpool conv3-8 maxpool conv1-12", SMALL),
    ("torchvision:alexnet", BuildOptions()),
    ("torchvision:vgg11_bn", BuildOptions(input=(3, 64, 64))),
)

FIELDS = {"kernel_size": (1, 9), "stride": (1, 9), "padding": (0, 4), "out_channels": (1, 96), "out_features": (1, 300)}


def drawn_edit(random: Random, layers: list[dict[str, Any]], sides: tuple[int, ...]) -> dict[str, Any]:
    """Up to four changed fields, at times another input, a layer left out, and widths that stay as they were."""
    changes: dict[int, dict[str, object]] = {}
    for _ in range(random.randrange(4)):
        place = random.randrange(len(layers))
        fields = [name for name in FIELDS if name in layers[place]]
        if fields:
            name = random.choice(fields)
            value = random.randint(*FIELDS[name])
            is_pair = isinstance(layers[place][name], (list, tuple))
            changes.setdefault(place, {})[name] = [value, value] if is_pair else value
        elif layers[place]["form"] == "adaptive":
            changes[place] = {"output_size": [random.randint(1, 9)] * 2}
    can_drop = [place for place, layer in enumerate(layers) if layer["form"] != "flatten"]
    dropped = random.sample(can_drop, random.choice((0, 0, 1, 2)))
    size = [random.choice((1, 3, 4)), *(random.randint(24, 260) for _ in sides[1:])] if random.random() < 0.4 else sides
    return {"changes": changes, "dropped": dropped, "input": list(size), "adapt": random.random() < 0.8}


def by_python(network: Network, edit: dict[str, Any]) -> dict[str, Any]:
    """The same edit of the Network, and its figures; or the layer that does not fit its input, and why."""
    shape, before, nodes = (1, *edit["input"]), network.inputs[0].name, []
    for place, node in enumerate(network.nodes):
        if place in edit["dropped"]:
            continue
        fields = edit["changes"].get(place, {})
        op = replace(node.op, **{k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()})
        op = op.fitted(shape) if edit["adapt"] else op
        try:
            shape = infer_output_shape(op, shape)
        except ShapeError as error:
            return {"broken": place, "error": error.problem}
        parameters = tuple(Parameter(f"{node.name}.{name}", size) for name, size in op.parameters().items())
        nodes.append(replace(node, op=op, inputs=(before,), parameters=parameters))
        before = node.name
    summary = summarize(Network(network.name, one_input((1, *edit["input"])), tuple(nodes)))
    totals = summary.totals
    return {
        "layers": [
            [
                list(layer.output_shape),
                layer.rule,
                layer.params,
                layer.macs,
                layer.activation_bytes,
                list(layer.receptive_field.size) if layer.receptive_field else None,
            ]
            for layer in summary.layers
        ],
        "totals": [totals.params, totals.macs, totals.param_bytes, totals.activation_bytes],
        "peaks": [summary.memory.inference_peak_bytes, summary.memory.training_peak_bytes],
    }


IN_PAGE = """({ networks, edits }) => {
  %s
  return edits.map(([at, edit]) => {
    const { layers, width, names } = networks[at];
    const changed = changedLayers(layers, names, edit);
    const { rows, totals, broken } = evaluateChain(changed, edit.input, { width, adapt: edit.adapt });
    const last = rows[rows.length - 1];
    if (broken) return { broken: last.layer.place, error: last.error };
    return {
      layers: rows.map(({ output, rule, params, macs, bytes, field }) => [output, rule, params, macs, bytes, field]),
      totals: [totals.params, totals.macs, totals.paramBytes, totals.activationBytes],
      peaks: [totals.inferencePeak, totals.trainingPeak],
    };
  });
}"""


def script(*names: str) -> str:
    return "\n".join((files("vggscope.explorer") / "js" / f"{name}.js").read_text("utf-8") for name in names)


def test_changed_networks_have_the_figures_that_python_gives(browser: Browser) -> None:
    networks = [resolve(word, options) for word, options in NETWORKS]
    rules = [editable(network) for network in networks]
    random = Random(22)
    edits: list[tuple[int, dict[str, Any]]] = []
    for at, network in enumerate(networks):
        edits.append((at, {"changes": {}, "dropped": [], "input": list(network.input_shape[1:]), "adapt": True}))
    while len(edits) < EDITS:
        at = random.randrange(len(networks))
        edits.append((at, drawn_edit(random, rules[at]["layers"], networks[at].input_shape[1:])))
    given = {
        "networks": [{**rule, "names": [n.name for n in network.nodes]} for rule, network in zip(rules, networks)],
        "edits": edits,
    }
    page = browser.new_page()
    made = page.evaluate(IN_PAGE % script("text", "rules", "step"), json.loads(json.dumps(given)))
    page.close()
    expected = [by_python(networks[at], edit) for at, edit in edits]
    differing = [
        (NETWORKS[at][0], edit, ours, pythons)
        for (at, edit), ours, pythons in zip(edits, made, expected)
        if ours != pythons
    ]
    assert differing == []
    broken = sum("broken" in figures for figures in expected)
    assert 20 < broken < EDITS - 50  # both kinds are drawn


@pytest.mark.parametrize(
    ("word", "why"),
    [
        ("torchvision:resnet18", "layer1.0.add does not read the layer before it alone"),
        ("torchvision:mobilenet_v3_small", "does not read the layer before it alone"),
    ],
)
def test_networks_that_branch_are_not_changed(word: str, why: str) -> None:
    assert why in editable(resolve(word))["why"]


ROUNDED = """([counts, shares, values]) => {
  %s
  return [
    counts.map(bytesText),
    counts.map((count) => shortCount(count, 'MACs')),
    shares.map(([part, whole]) => share(part, whole)),
    values.map((value) => [0, 1, 2].map((decimals) => fixed(value, decimals))),
    values.map(significant),
  ];
}"""


def test_numbers_are_rounded_as_python_rounds_them(browser: Browser) -> None:
    """On exact halves of the last digit too, such as the 6.125 MiB of a layer of VGG, and beside them."""
    random = Random(23)
    halves = [scale * n // 8 for scale in (2**10, 10**3, 2**20, 10**6, 10**9) for n in range(8, 1200)]
    around = [n + step for n in halves for step in (-1, 0, 1)]
    counts = [*range(1100), *around, *(int(10 ** random.uniform(3, 14)) for _ in range(2000))]
    shares = [(part, whole) for whole in (16, 400, 800, 2000) for part in range(1, whole + 1) if part * 1000 >= whole]
    values = [n * 2.0**power for n in range(-70, 1100) for power in (-8, -3, -2, -1, 0)]
    values += [5e-324, 1e-120, 1.7e308, 99.95, 12345.0, 12350.0, 2.5e20 + 0.5e18]
    values += [random.uniform(-1, 1) * 10 ** random.uniform(-9, 9) for _ in range(2000)]
    page = browser.new_page()
    made = page.evaluate(ROUNDED % script("text"), [counts, shares, values])
    page.close()
    assert made[0] == [bytes_text(count) for count in counts]
    assert made[1] == [short_count(count, "MACs") for count in counts]
    assert made[2] == [percent_text(part, whole) for part, whole in shares]
    for value, texts in zip(values, made[3]):
        # toFixed writes larger numbers with an exponent.
        assert abs(value) >= 1e21 or texts == [f"{value:.{decimals}f}" for decimals in (0, 1, 2)]
    assert made[4] == [float(f"{value:.3g}") for value in values]
