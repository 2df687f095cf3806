"""Which comparisons a page shows of a network."""

from __future__ import annotations

from vggscope.diffing.compare import compare
from vggscope.diffing.result import Diff
from vggscope.graph import Network
from vggscope.sources.reference import reference_for
from vggscope.sources.resolve import column_named
from vggscope.vgg.options import Options

PAPER = "paper"
"""The reference that needs no other package: the column of Table 1."""


def comparisons(
    word: str, network: Network, first: Network, ref: str | Network | None, options: Options
) -> tuple[Diff, ...]:
    """With the reference, if one is named or at hand; else with the first of several models. `word` is the MODEL word
    of the network, or empty.
    """
    if isinstance(ref, Network):
        return (compare(network, ref),)
    ref = ref or (PAPER if network is first and _is_meant_as_column(word, network) else None)
    if ref is not None:
        reference = reference_for(ref, word, network, options)
        return (compare(network, reference.network, reference.notes),)
    return () if network is first else (compare(network, first),)


def _is_meant_as_column(word: str, network: Network) -> bool:
    """Whether somebody else's network has the paper's stages, though one pool may be forgotten, so that one asks how
    it differs from the paper.
    """
    return column_named(word) is None and any(node.label in ("pool5", "conv4_1") for node in network.nodes)
