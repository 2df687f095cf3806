"""Ops that act in training only, and the identity."""

from __future__ import annotations

from vggscope.ops.base import NOTHING, Op, SavedTensors, Shape, TorchCall, call_of
from vggscope.record import record

IDLE = "none at evaluation"


@record
class _Random(Op):
    """An op that sets random values to 0 with probability `p`, and does nothing if `p` is 0."""

    other_formula = IDLE

    p: float

    @property
    def allocates(self) -> bool:
        return self.p > 0

    @property
    def returns_input(self) -> bool:
        return self.p == 0

    @property
    def gradient(self) -> str:
        return "new" if self.p > 0 else "same"

    @property
    def active_in(self) -> str:
        return "training"


@record
class Dropout(_Random):
    """In training, sets values to 0 with probability `p` and scales the rest by 1/(1-p). The identity at evaluation."""

    predicts_memory = True
    word = notation = "dropout"
    label_prefix = "drop"
    alignment_cost = 1.0
    exchanges = (("dropout", 1.0),)
    training_fields = frozenset({"p"})
    follows_a_layer = True
    is_affine = True
    is_dropout = True
    gradient_layout = "dropout"

    p: float = 0.5
    inplace: bool = False

    @property
    def allocates(self) -> bool:
        return not self.inplace and self.p > 0

    def saved_for_backward(self, inputs: tuple[Shape, ...], output: Shape) -> SavedTensors:
        if self.p == 0:
            return NOTHING
        # In place torch multiplies by a tensor of 0 and 1/(1-p) instead of masking.
        return SavedTensors(extra=((output, None),)) if self.inplace else SavedTensors(masks=(output,))


@record
class Dropout2d(Dropout):
    """Dropout of whole channels (torch's Dropout1d to Dropout3d)."""

    word = notation = label_prefix = ""
    alignment_cost = 2.0
    follows_a_layer = False

    def saved_for_backward(self, inputs: tuple[Shape, ...], output: Shape) -> SavedTensors:
        if self.p == 0:
            return NOTHING
        # The noise is one value per channel.
        return SavedTensors(extra=((output[:2], None),))


@record
class Identity(Op):
    """The input, unchanged."""

    predicts_memory = True
    word = "identity"
    other_formula = IDLE
    returns_input = True
    is_affine = True
    gradient = "same"
    allocates = False
    gradient_layout = "same"


@record
class Detach(Op):
    """The input without a gradient (torch.Tensor.detach and .data)."""

    other_formula = IDLE
    name = "detach"
    gradient = "none"
    allocates = False
    active_in = "training"

    def torch_call(self, count: int) -> TorchCall:
        return call_of("detach")


@record
class AlphaDropout(Dropout):
    """Dropout that keeps mean and variance, for SELU (Klambauer et al. 2017). The identity at evaluation."""

    predicts_memory = False
    word = notation = label_prefix = ""


@record
class AlwaysDropout(Dropout):
    """Dropout that acts at evaluation too, because the call does not pass `training`."""

    name = "Dropout"
    active_in = "always"
    training_fields = frozenset()
    is_random = True

    def torch_call(self, count: int) -> TorchCall:
        return call_of("dropout", self.p, True)


@record
class StochasticDepth(_Random):
    """In training, sets a whole branch to 0 with probability `p`. At evaluation, the identity.

    `mode` is `row` (for each sample) or `batch` (for all). It is torchvision's class. (Huang et al. 2016)
    """

    gradient_layout = "elementwise"

    mode: str

    def torch_call(self, count: int) -> TorchCall:
        return call_of("alias")

    @property
    def predicts_memory(self) -> bool:
        # The noise of `batch` is one value for any number of samples.
        return self.mode == "row" or self.p == 0

    def saved_for_backward(self, inputs: tuple[Shape, ...], output: Shape) -> SavedTensors:
        return SavedTensors(extra=(((output[0], *(1,) * (len(output) - 1)), None),)) if self.p > 0 else NOTHING
