"""Weights that one network shares between layers and the other does not, beside other differences."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.explained import assert_explained
from vggscope.api import diff
from vggscope.errors import ModelError
from vggscope.render.formats import draw, write

STACK = "conv3-8 conv3-8 conv3-8 maxpool FC-10"
"""The reference; its avgpool makes 7x7 of 7x7."""

NETS = """
from torch import nn


class Twice(nn.Module):
    pool = nn.AvgPool2d

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.body = self.make(); self.down = self.pool(2)
        self.head = nn.Linear(392, 10)

    def make(self):
        return nn.Conv2d(8, 8, 3, padding=1)

    def features(self, x):
        x = self.body(x).relu(); x = self.body(x).relu()
        return x

    def forward(self, x):
        return self.head(self.down(self.features(self.stem(x).relu())).flatten(1))


class Alone(Twice):
    pool = nn.MaxPool2d


class Wide(Alone):
    def make(self):
        return nn.Conv2d(8, 8, 5, padding=2)


class Loop(Twice):
    def features(self, x):
        for _ in range(2):
            x = self.body(x).relu()
        return x


class Once(Alone):
    def features(self, x):
        return self.body(x).relu()


class Idle(Alone):
    def __init__(self):
        super().__init__()
        self.idle = nn.Conv2d(8, 8, 3, padding=1)
        self.last = nn.Conv2d(8, 8, 1)

    def features(self, x):
        return self.idle(self.body(x).relu()).relu()


class Block(Alone):
    \"\"\"A block that is called twice, with its batch norm after the ReLU.\"\"\"

    def make(self):
        return nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(8))

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.ReLU(), nn.BatchNorm2d(8))

    def features(self, x):
        return self.body(self.body(self.first(x)))

    def forward(self, x):
        return self.head(self.down(self.features(self.stem(x))).flatten(1))


class Apart(Alone):
    \"\"\"The reference of Block: blocks of their own, each with its batch norm before the ReLU.\"\"\"

    def __init__(self):
        super().__init__()
        self.norms = nn.ModuleList(nn.BatchNorm2d(8) for _ in range(3))
        self.other = self.make()

    def features(self, x):
        x = self.norms[0](x).relu()
        x = self.norms[1](self.body(x)).relu()
        return self.norms[2](self.other(x)).relu()

    def forward(self, x):
        return self.head(self.down(self.features(self.stem(x))).flatten(1))
"""

CONV = 8 * 8 * 3 * 3 + 8
"""The parameters of one convolution of the body."""


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nets.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)


def counting(result):
    return [difference for difference in result.differences if difference.changes_output]


@pytest.mark.usefixtures("nets")
def test_sharing_is_a_difference_beside_another_one() -> None:
    result = diff("nets.py:Twice", ref=STACK, input_size=(3, 14, 14))
    shared, pool = counting(result)
    assert (shared.ours, shared.reference, shared.params, pool.params) == ("body:2", "features.4", -CONV, 0)
    assert "it shares body.weight with an earlier layer" in shared.message
    assert "AvgPool2d" in pool.message
    assert_explained(result)
    data = json.loads(write(result, "json"))
    assert {"attribute": "weights", "ours": "shared", "reference": "own"} in data["differences"][0]["changes"]
    assert "it shares body.weight" in write(result, "html")
    picture = draw(result, "svg").decode()
    assert "it shares body.weight" in picture
    assert ">weights<" in picture


@pytest.mark.usefixtures("nets")
def test_sharing_alone_is_one_difference() -> None:
    (shared,) = counting(diff("nets.py:Alone", ref=STACK, input_size=(3, 14, 14)))
    assert shared.params == -CONV


@pytest.mark.usefixtures("nets")
def test_a_layer_may_share_and_differ() -> None:
    """Each difference counts alone, and the line of totals says that both together give something else."""
    result = diff("nets.py:Wide", ref=STACK, input_size=(3, 14, 14))
    kernel, shared = counting(result)
    assert (kernel.params, shared.params) == (2 * 8 * 8 * (25 - 9), -CONV)
    assert "it shares body.weight" in shared.message
    assert f"the differences one by one give {kernel.params + shared.params:,} more" in write(result, "table")
    assert_explained(result)


@pytest.mark.usefixtures("nets")
def test_the_reference_may_share() -> None:
    result = diff("nets.py:Apart", ref="nets.py:Block", input_size=(3, 14, 14))
    (shared,) = (difference for difference in counting(result) if "the reference shares" in difference.message)
    assert shared.params == CONV + 2 * 8
    assert shared.remedy == ""
    assert_explained(result)


@pytest.mark.usefixtures("nets")
def test_a_block_that_is_called_twice_is_one_difference() -> None:
    """Its batch norms are relocated too: they have their counterparts all the same."""
    result = diff("nets.py:Block", ref="nets.py:Apart", input_size=(3, 14, 14))
    order, shared = counting(result)
    assert "comes after" in order.message
    assert shared.message.endswith("so in 2 layers")
    assert (order.params, shared.params) == (0, -CONV - 2 * 8)
    assert_explained(result)


@pytest.mark.usefixtures("nets")
def test_an_inserted_call_of_a_shared_layer_adds_no_parameters() -> None:
    result = diff("nets.py:Alone", ref="nets.py:Once", input_size=(3, 14, 14))
    (inserted,) = counting(result)
    assert (inserted.kind, inserted.params) == ("inserted", 0)
    assert not any("parameters" in text for text in inserted.consequences)
    assert_explained(result)


@pytest.mark.usefixtures("nets")
def test_parameters_that_forward_does_not_use_are_named() -> None:
    result = diff("nets.py:Idle", ref=STACK, input_size=(3, 14, 14))
    assert result.verdict == "equivalent"
    assert result.params.ours_unused == 8 * 8 + 8
    assert "72 more; ours has 72 in modules that forward does not use\n" in write(result, "table")


@pytest.mark.usefixtures("nets")
def test_a_patch_gives_a_call_a_module_of_its_own() -> None:
    """The line that builds the module holds another statement."""
    result = diff("nets.py:Alone", ref=STACK, input_size=(3, 14, 14), patch=True)
    assert "self.body = self.make(); self.conv1_3 = self.make(); self.down" in (result.patch or "")
    assert "x = self.body(x).relu(); x = self.conv1_3(x).relu()" in (result.patch or "")


@pytest.mark.usefixtures("nets")
def test_no_patch_says_what_it_cannot_mend() -> None:
    with pytest.raises(ModelError, match=r"no change of the code is known for body:2 .*it shares body.weight"):
        diff("nets.py:Loop", ref=STACK, input_size=(3, 14, 14), patch=True)
