"""What makes a checkpoint a VGG: its convolutions, its FC layers, and both as a chain of words."""

from __future__ import annotations

from vggscope.checkpoint.chain import Link, column_chain, custom_chain, notation
from vggscope.checkpoint.configs import Found, find
from vggscope.checkpoint.head import Head, find_head
from vggscope.checkpoint.runs import TORCHVISION, Run, runs
from vggscope.checkpoint.stored import StoredLayer
from vggscope.ops.base import numel
from vggscope.record import record


@record
class VGG:
    """`found` is the run beside a column of Table 1, or None for a column of another make."""

    run: Run
    head: Head
    links: tuple[Link, ...]
    found: Found | None = None

    @property
    def column(self) -> str | None:
        """The column of Table 1 that it is or comes nearest to."""
        return self.found.column if self.found else None

    @property
    def convs(self) -> tuple[StoredLayer | None, ...]:
        """The file's layer for each convolution that there should be."""
        return self.found.convs if self.found else self.run.convs

    @property
    def num_classes(self) -> int | None:
        """What the last layer gives; None where the FC layers, or the last of them, are missing."""
        last = self.head.layers[-1] if self.head.layers else None
        return last.shape[0] if last else None

    @property
    def input_channels(self) -> int | None:
        """What the first convolution reads; None where it is missing."""
        first = self.convs[0]
        return first.shape[1] if first else None

    @property
    def style(self) -> str:
        """How the keys are named: the features', unless the FC layers are timm's."""
        is_timm = any(layer and "pre_logits" in layer.path for layer in self.head.layers)
        return "timm" if is_timm and self.run.style == TORCHVISION else self.run.style

    @property
    def notation(self) -> str:
        """The chain in Table 1's words."""
        return notation(self.links)


def find_vgg(layers: tuple[StoredLayer, ...]) -> VGG | None:
    """The VGG in a file, or None."""
    candidates = tuple(runs(layers))
    for run in candidates:
        found = find(run)
        if found:
            channels = next(conv.shape[0] for conv in reversed(found.convs) if conv)
            head = find_head(_others(layers, (*found.convs, found.before)), channels, run, found.column is not None)
            own = None if head.layers or found.convs[-1] else _custom(layers, run)
            # One that begins as a column does and ends with FC layers of its own is no column that is cut.
            return own if own and own.head.layers else VGG(run, head, column_chain(found, head), found)
    return next((vgg for run in candidates if (vgg := _custom(layers, run))), None)


def _custom(layers: tuple[StoredLayer, ...], run: Run) -> VGG | None:
    """A column of another make: a chain of square convolutions and FC layers, and nothing else with a weight."""
    square = all(conv.shape[2] == conv.shape[3] and numel(conv.shape) for conv in run.convs)
    if len(run.convs) < 2 or not run.is_chain or not square:
        return None
    if sum(layer.is_norm for layer in layers) != sum(norm is not None for norm in run.norms):
        return None
    rest = _others(layers, run.convs)
    head = find_head(rest, run.convs[-1].shape[0], run, False)
    return VGG(run, head, custom_chain(run, head)) if len(rest) == len(head.layers) else None


def _others(layers: tuple[StoredLayer, ...], convs: tuple[StoredLayer | None, ...]) -> list[StoredLayer]:
    used = {conv.name for conv in convs if conv}
    return [layer for layer in layers if layer.name not in used and not layer.is_norm]
