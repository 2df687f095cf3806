"""The modes that `train` gives to the parts of a module, which it may override, equal those of torch on a copy."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any, NoReturn

import pytest
from torch import nn

from vggscope.trace.forward import modes_after_train


class Freezes(nn.Module):
    """Keeps its part, and another that it is not registered with, in evaluation mode."""

    def __init__(self, part: nn.Module, *others: nn.Module) -> None:
        super().__init__()
        self.part, self.others = part, others

    def train(self, mode: bool = True) -> Freezes:
        super().train(mode)
        for part in (self.part, *self.others):
            part.eval()
        return self


class Thaws(nn.Sequential):
    """Sets all its parts to training, whatever they say."""

    def train(self, mode: bool = True) -> Thaws:
        for part in self.modules():
            part.training = mode
        return self


def before_its_owner() -> nn.Module:
    norm = nn.BatchNorm2d(2)
    return nn.Sequential(norm, Freezes(norm))


def after_its_owner() -> nn.Module:
    norm = nn.BatchNorm2d(2)
    return nn.Sequential(Freezes(norm), nn.Sequential(norm))


def of_two_owners() -> nn.Module:
    norm = nn.BatchNorm2d(2)
    return nn.Sequential(Freezes(norm), Thaws(norm))


def registered_twice() -> nn.Module:
    part = Freezes(nn.Dropout())
    return nn.Sequential(part, nn.Sequential(part), nn.ReLU())


def before_what_holds_it() -> nn.Module:
    part = Freezes(nn.Dropout())
    return nn.Sequential(part, Thaws(part, nn.ReLU()))


def of_another(*, first: bool) -> nn.Module:
    norm = nn.BatchNorm2d(2)
    freezes = Freezes(nn.Dropout(), norm)
    return nn.Sequential(*(norm, freezes) if first else (freezes, norm))


MODULES: dict[str, Callable[[], nn.Module]] = {
    "the module itself": lambda: Freezes(nn.Sequential(nn.Linear(2, 2), nn.Dropout())),
    "two parts": lambda: nn.Sequential(Freezes(nn.Linear(2, 2)), nn.Sequential(nn.ReLU(), Freezes(nn.Dropout()))),
    "a part in another": lambda: nn.Sequential(nn.ReLU(), Thaws(Freezes(nn.BatchNorm2d(2)), nn.ReLU())),
    "a part that is used before": before_its_owner,
    "a part that is used after": after_its_owner,
    "a part of two": of_two_owners,
    "a part twice": registered_twice,
    "a part before what holds it": before_what_holds_it,
    "a part elsewhere, before": lambda: of_another(first=True),
    "a part elsewhere, after": lambda: of_another(first=False),
}


@pytest.mark.parametrize("kind", MODULES)
def test_modes_equal_torch(kind: str) -> None:
    module = MODULES[kind]().eval()
    expected = [part.training for part in deepcopy(module).train().modules()]
    assert [modes_after_train(module)[part] for part in module.modules()] == expected
    assert not any(part.training for part in module.modules())


class RefusesCopies(nn.ReLU):
    def __deepcopy__(self, memo: dict[int, Any]) -> NoReturn:
        raise TypeError("no copies")


def test_parts_without_an_override_are_not_copied() -> None:
    module = nn.Sequential(RefusesCopies(), Freezes(nn.Dropout())).eval()
    assert [modes_after_train(module)[part] for part in module.modules()] == [True, True, True, False]
