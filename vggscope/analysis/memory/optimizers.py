"""What an optimizer keeps for each parameter, and what it takes while it steps (torch.optim, foreach off and on)."""

from __future__ import annotations

from types import MappingProxyType

from vggscope.errors import unknown
from vggscope.record import record


@record
class Optimizer:
    """`states` are the tensors of a parameter's size kept between steps, `counter` tells of a float32 step counter.

    `fresh` and `old` describe a step that takes the parameters one by one: how many tensors of the parameter's size it
    makes, and whether the previous parameter's result is still named then. `foreach` counts the tensors of a
    parameter's size that a step over all parameters at once has alive for every one of them.
    """

    name: str
    states: int
    counter: bool = False
    fresh: int = 0
    foreach: int = 0


OPTIMIZERS = MappingProxyType(
    {
        optimizer.name: optimizer
        for optimizer in (
            Optimizer("sgd", states=0),
            Optimizer("sgd-momentum", states=1),
            # The square root of the second moment, and that divided by the bias correction.
            Optimizer("adam", states=2, counter=True, fresh=2, foreach=1),
            Optimizer("adamw", states=2, counter=True, fresh=2, foreach=1),
            # The square root of the mean square.
            Optimizer("rmsprop", states=1, counter=True, fresh=1, foreach=1),
        )
    }
)


def optimizer_named(name: str) -> Optimizer:
    """The optimizer of this name; raises OptionError where there is none."""
    if name not in OPTIMIZERS:
        raise unknown("optimizer", name, OPTIMIZERS)
    return OPTIMIZERS[name]
