"""How the model that a word names is to be built."""

from __future__ import annotations

from vggscope.errors import OptionError
from vggscope.record import record

HEADS = ("adaptive", "flatten", "dense")

CHECKPOINTS = (".pth", ".pt", ".safetensors", ".ckpt", ".pth.tar", ".bin", ".th")
"""Suffixes by which a word names a checkpoint."""


@record
class Options:
    """What may be asked of a model beside its name; None and False leave it as the source has it.

    `input` is channels, height, width. `head` is one of HEADS: `adaptive` pools the features to 7x7 before the FC
    layers (torchvision's), `flatten` fits the first FC layer to the input size (the paper's at training), `dense`
    makes the FC layers convolutions (the paper's at test time, section 3.2).
    """

    input: tuple[int, ...] | None = None
    head: str | None = None
    batch_norm: bool = False
    num_classes: int | None = None
    soft_max: bool = False

    def refuse_column_options(self, why: str) -> None:
        """Raise OptionError where an option is set that builds a column and nothing else."""
        given = {"--head": self.head is not None, "--batch-norm": self.batch_norm, "--soft-max": self.soft_max}
        refused = [option for option, is_given in given.items() if is_given]
        if refused:
            raise OptionError(f"{' and '.join(refused)}: {why}", "these options build a column of Table 1")
