"""Networks as they are found in the wild: what they return, what their files do beside, what others took for a VGG."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vggscope.api import build, diff, network


class Stages(nn.Module):
    """VGG-11's features as a perceptual loss takes them: a map of each stage."""

    def __init__(self, give: str) -> None:
        super().__init__()
        self.features = build("A").features
        self.give = give

    def forward(self, x: torch.Tensor) -> object:
        maps = []
        for layer in self.features:
            x = layer(x.clone() if self.give == "copies" else x)
            if isinstance(layer, nn.MaxPool2d):
                maps.append(x)
        if self.give == "dict":
            return {f"pool{stage}": found for stage, found in enumerate(maps, 1)}
        return maps if x.data.dim() == 4 and self.give == "list" else x


@pytest.mark.parametrize("give", ["list", "dict", "copies"])
def test_what_is_returned_beside_and_what_only_copies_makes_no_other_function(give: str) -> None:
    found = diff(Stages(give), Stages("last"), (3, 64, 64), numeric=True)
    assert found.verdict in ("identical", "equivalent")
    assert found.numeric is not None
    assert found.numeric.max_abs_error == 0
    traced = network(Stages(give), (3, 64, 64))
    assert traced.by_name[traced.end].label == "pool5"
    assert not any(node.op.name == "detach" for node in traced.nodes)
