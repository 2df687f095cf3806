"""Summaries to a depth: the tree of modules and its sums."""

from __future__ import annotations

import csv
import io
import json

import pytest
import torch
from torch import nn
from torchinfo import summary as torchinfo_summary

import vggscope
from tests.test_diagram import assert_tidy
from vggscope.analysis.summary import Summary
from vggscope.drawing.picture import Rectangle
from vggscope.errors import OptionError
from vggscope.render.formats import write


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.second(self.first(x)) + x)


def model() -> nn.Module:
    stem = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    return nn.Sequential(stem, nn.Sequential(Block(), Block()), nn.Flatten(), nn.Linear(4 * 36, 5))


@pytest.fixture(scope="module")
def summaries() -> dict[int, Summary]:
    return {depth: vggscope.summary(model(), (1, 3, 8, 8), depth=depth) for depth in (1, 2, 3, 9)}


def test_every_module_has_the_sums_that_torchinfo_prints(summaries: dict[int, Summary]) -> None:
    info = torchinfo_summary(model(), input_size=(1, 3, 8, 8), verbose=0, depth=9, col_names=())
    params = {path(layer): layer.num_params for layer in info.summary_list if layer.depth}
    for depth, report in summaries.items():
        named = [(row.name, row.params) for row in (*report.layers, *report.modules)]
        assert [(name, params[name]) for name, _ in named if name in params] == [
            pair for pair in named if pair[0] in params
        ]
        assert {name for name in params if name.count(".") < depth} <= {name for name, _ in named}


def path(layer: object) -> str:
    """The path of a module in torchinfo's tree."""
    names = []
    while layer is not None:
        names.append(layer.var_name)  # type: ignore[attr-defined]
        layer = layer.parent_info  # type: ignore[attr-defined]
    return ".".join(reversed(names[:-1]))


def test_rows_add_up_to_the_totals_at_every_depth(summaries: dict[int, Summary]) -> None:
    for report in summaries.values():
        assert (
            sum(row.params or 0 for row in report) == report.totals.params == 3 * 9 * 4 + 4 + 2 * (168 - 20 + 20) + 725
        )
        assert sum(row.macs or 0 for row in report) == report.totals.macs
        for module in report.modules:
            rows = report.layers[module.first : module.first + module.rows]
            assert all(row.name.startswith(f"{module.name}.") for row in rows)
            assert module.macs == sum(row.macs or 0 for row in rows)
    assert [row.name for row in summaries[1]] == ["0", "1", "2", "3"]
    assert [(module.name, module.depth) for module in summaries[3].modules] == [
        ("0", 1),
        ("1", 1),
        ("1.0", 2),
        ("1.1", 2),
    ]
    assert summaries[9] == summaries[3]


def test_a_module_that_runs_twice_has_a_row_for_each_run() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.part, self.between = nn.Sequential(nn.Linear(4, 4), nn.ReLU()), nn.Tanh()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.part(self.between(self.part(x)))  # type: ignore[no-any-return]

    report = vggscope.summary(Twice(), (1, 4), depth=1)
    assert [(row.name, row.params, row.macs) for row in report] == [
        ("part", 20, 16),
        ("between", 0, 0),
        ("part", 0, 16),
    ]


def test_the_table_is_indented_and_data_is_not(summaries: dict[int, Summary]) -> None:
    lines = write(summaries[2], "table").splitlines()
    shown = [line[:5].rstrip() for line in lines[4:13]]
    assert shown == ["0", "  0.0", "  0.1", "1", "  1.0", "  1.1", "2", "3", "─" * 5]
    rows = list(csv.DictReader(io.StringIO(write(summaries[2], "csv"))))
    assert [row["name"] for row in rows] == ["0.0", "0.1", "1.0", "1.1", "2", "3"]
    data = json.loads(write(summaries[2], "json"))
    assert [row["name"] for row in data["layers"]] == [row["name"] for row in rows]
    assert data["modules"][0] == {
        **{"name": "0", "depth": 1, "first": 0, "rows": 2, "params": 112},
        **{"macs": 36 * 108, "flops": 72 * 108, "activation_bytes": 2 * 36 * 4 * 4},
    }


@pytest.mark.parametrize("depth", [0, -1, "layers"])
def test_a_depth_that_makes_no_sense_is_refused(depth: int) -> None:
    with pytest.raises(OptionError, match="depth"):
        vggscope.summary("A", depth=depth)


def test_a_diagram_frames_modules_within_modules() -> None:
    inner = nn.Sequential(nn.Sequential(nn.Linear(4, 8), nn.GELU()), nn.Sequential(nn.Linear(8, 4), nn.Dropout()))
    net = nn.Sequential(nn.Sequential(nn.Sequential(nn.LayerNorm(4), inner), nn.Linear(4, 4)), nn.Linear(4, 2))

    def frames(depth: int | None) -> list[Rectangle]:
        drawn = vggscope.diagram(net, input_size=(1, 4), style="layers", depth=depth)
        assert_tidy(drawn)
        return [shape for shape in drawn.picture.frame if isinstance(shape, Rectangle) and shape.dashed]

    assert [len(frames(depth)) for depth in (1, 2, 3, 4)] == [0, 1, 2, 4]
    outer, around, first, second = frames(4)
    for inside, outside in ((around, outer), (first, around), (second, around)):
        assert outside.x < inside.x
        assert inside.x + inside.width < outside.x + outside.width
        assert outside.y < inside.y
        assert inside.y + inside.height < outside.y + outside.height
    assert first.y + first.height <= second.y
    source = vggscope.diagram(net, input_size=(1, 4), style="layers", depth=4).source
    assert source.count("subgraph") >= 4


def test_only_the_style_layers_has_a_depth() -> None:
    with pytest.raises(OptionError, match="style blocks has no frames down to a depth\nstyle='layers'"):
        vggscope.diagram("A", depth=2)
    with pytest.raises(OptionError, match="a depth of 0 makes no sense"):
        vggscope.diagram("A", style="layers", depth=0)
