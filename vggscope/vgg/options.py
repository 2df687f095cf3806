"""The options that say how to build the model that a word names."""

from __future__ import annotations

from vggscope.errors import OptionError, unknown
from vggscope.record import record

HEADS = ("adaptive", "flatten", "dense")


@record
class BuildOptions:
    """Options beside a model's name; None and False leave the source's own default.

    `input` is (channels, height, width). `head` is one of HEADS: `adaptive` pools the features to 7x7 before the FC
    layers (torchvision's), `flatten` fits the first FC layer to the input size (the paper's at training), `dense`
    makes the FC layers convolutions (the paper's at test time, section 3.2).
    """

    input: tuple[int, ...] | None = None
    head: str | None = None
    batch_norm: bool = False
    num_classes: int | None = None
    soft_max: bool = False

    def check(self) -> None:
        """Raise OptionError for an unknown head or a number of classes out of range."""
        if self.head is not None and self.head not in HEADS:
            raise unknown("head", self.head, HEADS)
        if self.num_classes is not None and not 1 <= self.num_classes <= 10**6:
            raise OptionError(f"{self.num_classes} classes make no sense", "--num-classes is 1 to 1000000")

    def refuse_column_options(self, why: str) -> None:
        """Raise OptionError, with the reason `why`, if an option is set that only columns of Table 1 take."""
        options = {"--head": self.head is not None, "--batch-norm": self.batch_norm, "--soft-max": self.soft_max}
        refused = [option for option, is_set in options.items() if is_set]
        if refused:
            raise OptionError(f"{' and '.join(refused)}: {why}", "these options build a column of Table 1")
