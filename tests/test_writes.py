"""In-place writes: what reads the memory afterwards depends on the node that wrote, by whatever view it reads."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

import vggscope
from vggscope.graph import Network
from vggscope.trace.writes import Region, region_of


class Writing(nn.Module):
    """Two linear layers: the first computes a tensor, `write` changes it, and the second reads the result."""

    def __init__(self, write: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.write, self.first, self.other, self.last = write, nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.write(self, x))


def to_a_slice(net: Writing, x: Tensor) -> Tensor:
    kept = x.clone()
    kept[:, 0] = net.other(x)[:, 1]
    return kept


def to_a_view(net: Writing, x: Tensor) -> Tensor:
    kept = x.clone()
    kept[:, :3].mul_(net.other(x)[:, :3])
    return kept


def copied_to_a_view(net: Writing, x: Tensor) -> Tensor:
    kept = x.clone()
    kept[:, 1:3].copy_(net.other(x)[:, 1:3])
    return kept


def copied_to_zeros(net: Writing, x: Tensor) -> Tensor:
    kept = torch.zeros(x.shape[0], 4)
    kept[:, :4].copy_(net.other(x))
    return kept


def to_a_view_of_a_view(net: Writing, x: Tensor) -> Tensor:
    kept = x.clone()
    kept.view(-1, 2, 2).transpose(1, 2).add_(net.other(x).view(-1, 2, 2))
    return kept


def seen_by_an_older_view(net: Writing, x: Tensor) -> Tensor:
    kept = x.clone()
    view = kept.view(-1, 2, 2)
    kept += net.other(x)
    return view.flatten(1)


def by_index(net: Writing, x: Tensor) -> Tensor:
    kept = x.clone()
    kept.index_put_((torch.tensor([0]),), net.other(x)[0])
    return kept


def scattered(net: Writing, x: Tensor) -> Tensor:
    kept = x.clone()
    kept[:, :2].scatter_(1, torch.zeros(1, 1, dtype=torch.int64), net.other(x))
    return kept


def to_out(net: Writing, x: Tensor) -> Tensor:
    kept = torch.empty_like(x)
    torch.add(net.other(x), 1, out=kept)
    return kept


def to_data(net: Writing, x: Tensor) -> Tensor:
    kept = x.clone()
    kept.data.add_(net.other(x))
    return kept


def augmented(net: Writing, x: Tensor) -> Tensor:
    kept = x.clone()
    kept[..., :2] += net.other(x)[..., :2]
    return kept


def by_an_activation(net: Writing, x: Tensor) -> Tensor:
    kept = net.other(x)
    F.relu(kept[:, :2], inplace=True)
    return kept


def by_a_module(net: Writing, x: Tensor) -> Tensor:
    kept = net.other(x)
    nn.ReLU(inplace=True)(kept.chunk(2, 1)[0])
    return kept


WRITES = [
    *(to_a_slice, to_a_view, copied_to_a_view, copied_to_zeros, to_a_view_of_a_view, seen_by_an_older_view),
    *(by_index, scattered, to_out, to_data, augmented, by_an_activation, by_a_module),
]


def ancestors(network: Network, name: str) -> set[str]:
    """The nodes that a node depends on."""
    seen, pending = set(), [name]
    while pending:
        node = network.by_name.get(pending.pop())
        if node is not None and node.name not in seen:
            seen.add(node.name)
            pending += node.inputs
    return seen


@pytest.mark.parametrize("write", WRITES, ids=lambda write: write.__name__)
def test_a_reader_depends_on_the_writer(write: Callable[[nn.Module, Tensor], Tensor]) -> None:
    network = vggscope.network(Writing(write), input_data=torch.zeros(1, 4))
    before = ancestors(network, "last")
    assert "other" in before
    assert {name for name in network.by_name if name.lower().startswith("relu")} <= before
    assert network.shapes == {"input": (1, 4), **{node.name: network.output_shape(node) for node in network.nodes}}
    assert vggscope.summary(network, batch=8).totals.macs == 8 * 2 * 16


def test_a_write_to_another_slice_is_no_dependence() -> None:
    def halves(net: Writing, x: Tensor) -> Tensor:
        left, right = net.first(x).chunk(2, 1)
        left.add_(net.other(x)[:, :2])
        return right.repeat(1, 2)

    network = vggscope.network(Writing(halves), input_data=torch.zeros(1, 4))
    assert "first" in ancestors(network, "last")
    assert "other" not in ancestors(network, "last")


def test_an_augmented_assignment_is_written_once() -> None:
    network = vggscope.network(Writing(augmented), input_data=torch.zeros(1, 4))
    assert [node.op.name for node in network.nodes].count("setitem") == 1


def test_a_residual_block_with_an_activation_in_place_has_no_more_nodes() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.relu = nn.Conv2d(3, 3, 3, padding=1), nn.ReLU(inplace=True)

        def forward(self, x: Tensor) -> Tensor:
            y = self.relu(self.conv(x))
            y += x
            return self.relu(y)

    nodes = vggscope.network(Block(), input_data=torch.zeros(1, 3, 8, 8)).nodes
    assert [(node.name, node.inputs) for node in nodes] == [
        ("conv", ("input",)),
        ("relu", ("conv",)),
        ("add", ("relu", "input")),
        ("relu:2", ("add",)),
    ]


def test_regions_overlap_where_their_elements_do() -> None:
    """Compared with the sets of elements, for slices of a tensor of 4 x 6 x 2 elements and a folded view of it."""
    base = torch.arange(48).view(4, 6, 2)
    views = [base, base[:2], base[2:], base[:, :3], base[:, 3:], base[:, 2:4, 1:], base[1:3, ..., 0], base[3], base[:0]]
    for one in views:
        for other in views:
            expected = bool(set(one.flatten().tolist()) & set(other.flatten().tolist()))
            assert region_of(one).overlaps(region_of(other)) == expected
    assert region_of(base.view(4, 12)).overlaps(region_of(base[:, 3:]))  # folded axes may overlap
    assert not Region(0, (0,), (1,)).overlaps(Region(0, (4,), (1,)))
