"""The optimizers of torch.optim, by the tensors that they allocate, and recipes of well-known training scripts."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from vggscope.record import record


@record
class Optimizer:
    """The tensors of an optimizer of torch.optim, each of its parameter's size.

    `states` counts those kept between steps; `counter` adds a float32 step counter for each parameter.

    `loop` and `foreach` are what a step allocates for one parameter after the other, and for all at once: variables of
    torch's code in order. A variable that is assigned again frees its former tensor afterwards, and `-name` frees it at
    once. `grad` is freed before the next parameter. `decayed` is `foreach` with weight decay, which adds `grad` to a
    loop. `decays_in_place`: weight decay allocates nothing. `has_fused`: torch has a kernel on CUDA without
    temporaries.
    """

    name: str
    states: int
    counter: bool = False
    loop: str = ""
    foreach: str = ""
    decayed: str = ""
    decays_in_place: bool = False
    has_fused: bool = False

    def temporaries(self, *, foreach: bool, decays: bool, nesterov: bool) -> tuple[str, ...]:
        """The variables that a step assigns and frees."""
        decays = decays and not self.decays_in_place
        if foreach:
            return tuple((self.decayed if decays else self.foreach).split())
        return ("grad",) * (decays + nesterov) + tuple(self.loop.split())


_ADAM = "root denominator -root"

OPTIMIZERS = MappingProxyType(
    {
        optimizer.name: optimizer
        for optimizer in (
            Optimizer("sgd", 0, decayed="grad", has_fused=True),
            Optimizer("sgd-momentum", 1, decayed="grad", has_fused=True),
            Optimizer("adam", 2, True, _ADAM, "root", "grad -grad root", has_fused=True),
            Optimizer("adamw", 2, True, _ADAM, "root", decays_in_place=True, has_fused=True),
            Optimizer("rmsprop", 1, True, "average", "average", "grad average"),
            Optimizer("adagrad", 1, True, "root", "root numerator", "grad root"),
            Optimizer("adadelta", 2, True, "root delta", "root delta", "grad root delta"),
            Optimizer("adamax", 2, True, "magnitude -magnitude", "magnitude", "grad"),
        )
    }
)
"""The order of the variables is that of torch 2.14; the tests compare every optimizer with the memory tracker."""


@record
class Recipe:
    """How a paper or a script trains. `source` says where the values are from, and what the figures leave out."""

    name: str
    batch: int
    weight_decay: float
    source: str
    optimizer: str = "sgd-momentum"
    nesterov: bool = False
    dtype: str = "float32"

    def options(self, given: Mapping[str, object]) -> dict[str, object]:
        """The options of a step; without the optimizer's where another optimizer is given."""
        if given.get("optimizer", self.optimizer) != self.optimizer:
            return {"dtype": self.dtype}
        keys = ("optimizer", "weight_decay", "nesterov", "dtype")
        return {key: getattr(self, key) for key in keys}


RECIPES = MappingProxyType(
    {
        recipe.name: recipe
        for recipe in (
            Recipe("paper", 256, 5e-4, "Simonyan and Zisserman, section 3.1; they split the batch over four GPUs"),
            Recipe("torchvision", 32, 1e-4, "torchvision's references/classification, for each GPU"),
            Recipe(
                "timm",
                128,
                2e-5,
                "the defaults of timm's train.py, which decays no biases and norms; here all parameters are decayed",
                nesterov=True,
            ),
        )
    }
)
