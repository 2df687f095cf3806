"""The options that build a model from a word."""

from __future__ import annotations

from dataclasses import field, replace

from vggscope.errors import OptionError, check_count, option, unknown
from vggscope.inputs import Inputs
from vggscope.record import record
from vggscope.recorded_step import StepRequest

HEADS = ("adaptive", "flatten", "dense")


@record
class BuildOptions:
    """Options that accompany a model's name; None and False keep the default of its source.

    `input` is (channels, height, width). `head` is one of HEADS: `adaptive` pools the features to 7x7 before the FC
    layers (torchvision's), `flatten` fits the first FC layer to the input size (the paper's at training), `dense`
    makes the FC layers convolutions (the paper's at test time, section 3.2). `inputs` are what a module that is
    no VGG is called with. `steps` are those that torch is recorded in, for a module whose memory the rules do not
    predict. `batch` is the one whose figures are wanted, None for any. `backward` asks for the costs of the backward
    pass. `cache` allows a library's model to be read from the cache and written to it.
    """

    input: tuple[int, ...] | None = None
    head: str | None = None
    batch_norm: bool = False
    num_classes: int | None = None
    soft_max: bool = False
    inputs: Inputs | None = None
    steps: tuple[StepRequest, ...] = ()
    batch: int | None = None
    backward: bool = False
    cache: bool = field(default=True, repr=False)

    @property
    def given(self) -> Inputs | tuple[int, ...] | None:
        """The arguments of a module's forward, None if the caller named none."""
        return self.inputs or self.input

    def for_one_image(self, channels: int = 3) -> BuildOptions:
        """The options for a model that takes one image, its size in `input`.

        Raises OptionError for other inputs.
        """
        if self.inputs is None:
            return self
        return replace(self, input=self.input or self.inputs.image_shape(channels), inputs=None)

    def check(self) -> None:
        """Raise OptionError for an unknown head or a number of classes out of range."""
        if self.head is not None and self.head not in HEADS:
            raise unknown("head", self.head, HEADS)
        if self.num_classes is not None:
            check_count("num_classes", self.num_classes, f"{self.num_classes} classes make no sense", 10**6)

    def refuse_column_options(self, why: str, *, takes_soft_max: bool = False) -> None:
        """Raise OptionError, with the reason `why`, if an option is set that only columns of Table 1 take.

        `takes_soft_max`: the model can end with the soft-max or before it.
        """
        options = {"head": self.head is not None, "batch_norm": self.batch_norm}
        options["soft_max"] = self.soft_max and not takes_soft_max
        refused = [option(name) for name, is_set in options.items() if is_set]
        if refused:
            raise OptionError(f"{' and '.join(refused)}: {why}", "these options build a column of Table 1")
