"""Ops that act during training alone, and the one that never does anything."""

from __future__ import annotations

from vggscope.ops.base import NOTHING, Op, SavedTensors, Shape
from vggscope.record import record


@record
class Dropout(Op):
    """Each value set to 0 with probability `p` during training, the rest scaled by 1/(1-p); nothing at evaluation."""

    p: float = 0.5
    inplace: bool = False

    @property
    def allocates(self) -> bool:
        return not self.inplace and self.p > 0

    @property
    def gradient(self) -> str:
        return "new" if self.p > 0 else "same"

    @property
    def active_in(self) -> str:
        return "training"

    def saved_for_backward(self, inputs: tuple[Shape, ...], output: Shape) -> SavedTensors:
        if self.p == 0:
            return NOTHING
        # In place torch multiplies by a tensor of 0 and 1/(1-p) instead of masking.
        return SavedTensors(extra=((output, None),)) if self.inplace else SavedTensors(masks=(output,))


@record
class Dropout2d(Dropout):
    """Dropout of whole channels (torch's Dropout1d to Dropout3d)."""

    def saved_for_backward(self, inputs: tuple[Shape, ...], output: Shape) -> SavedTensors:
        if self.p == 0:
            return NOTHING
        # The noise is one value a channel.
        return SavedTensors(extra=((output[:2], None),))


@record
class Identity(Op):
    """The input, untouched."""

    @property
    def gradient(self) -> str:
        return "same"

    @property
    def allocates(self) -> bool:
        return False


@record
class Detach(Op):
    """The input, from which no gradient goes back (torch.Tensor.detach and .data)."""

    @property
    def name(self) -> str:
        return "detach"

    @property
    def gradient(self) -> str:
        return "none"

    @property
    def allocates(self) -> bool:
        return False

    @property
    def active_in(self) -> str:
        return "training"


@record
class AlwaysDropout(Dropout):
    """Dropout that forgot to ask whether the model is in training: it acts at evaluation too."""

    @property
    def name(self) -> str:
        return "Dropout"

    @property
    def active_in(self) -> str:
        return "always"


@record
class StochasticDepth(Op):
    """A whole branch set to 0 with probability `p` during training, for each sample (`mode` row) or for all (batch);
    nothing at evaluation (Huang et al. 2016). It is torchvision's class.
    """

    p: float
    mode: str

    @property
    def allocates(self) -> bool:
        return self.p > 0

    @property
    def gradient(self) -> str:
        return "new" if self.p > 0 else "same"

    @property
    def active_in(self) -> str:
        return "training"

    def saved_for_backward(self, inputs: tuple[Shape, ...], output: Shape) -> SavedTensors:
        return SavedTensors(extra=(((output[0], *(1,) * (len(output) - 1)), None),)) if self.p > 0 else NOTHING
