"""The lists of a module's parts and tensors are those of torch's own methods."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from vggscope.trace.parts import buffers_of, named_parts, parameters_of, parts_of, tensors_of


class Renaming(nn.Linear):
    """A wrapper that lists its parameters under other names, as those of sharded models do."""

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Parameter]]:
        for name, parameter in super().named_parameters(prefix, recurse, remove_duplicate):
            yield f"own_{name}", parameter


def shared() -> nn.Module:
    norm = nn.BatchNorm2d(3)
    inner = nn.Sequential(norm, nn.ModuleDict({"a": nn.Conv2d(3, 3, 1), "b": norm}))
    module = nn.Sequential(inner, nn.Conv2d(3, 3, 1, bias=False), inner)
    module.register_module("missing", None)
    module[1].weight = inner[1]["a"].weight
    module.register_buffer("twice", norm.running_mean)
    return module


MODULES = {
    "shared": shared,
    "parametrized": lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(2, 3))),
    "lazy": lambda: nn.Sequential(nn.LazyLinear(3), nn.ReLU()),
    "attention": lambda: nn.TransformerEncoderLayer(4, 2),
    "scripted part": lambda: nn.Sequential(nn.ReLU(), torch.jit.script(nn.Sequential(nn.BatchNorm1d(2)))),
    "renaming": lambda: Renaming(2, 3),
    "renaming part": lambda: nn.Sequential(Renaming(2, 3)),
}


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*")
@pytest.mark.parametrize("name", MODULES)
def test_lists_are_those_of_torch(name: str) -> None:
    module = MODULES[name]()
    assert named_parts(module) == list(module.named_modules())
    assert parts_of(module) == list(module.modules())
    for ours, theirs in (
        (parameters_of(module), module.named_parameters()),
        (buffers_of(module), module.named_buffers()),
    ):
        expected = list(theirs)
        assert [name for name, _ in ours] == [name for name, _ in expected]
        assert all(one is other for (_, one), (_, other) in zip(ours, expected, strict=True))
    tensors = [*module.parameters(), *module.buffers()]
    assert {*map(id, tensors_of(module))} == {*map(id, tensors)}
