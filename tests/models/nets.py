"""Models as people write them, each with one thing that a tracer must see."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from .parts import Residual


class Digits(nn.Module):
    """Functional calls, one layer called twice, an input that only 1x28x28 fits."""

    def __init__(self, num_classes: int = 10, width: int = 8) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, width, 3, padding=1)
        self.residual = Residual(width)
        self.fc = nn.Linear(width * 14 * 14, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv(x)), 2)
        x = self.residual(x)
        x = x.view(x.size(0), -1)
        return F.log_softmax(self.fc(F.dropout(x, 0.3, self.training)), dim=1)


class Mixed(nn.Module):
    """Parameters of its own, a tied weight, a split, a table that no input touches, a head for training alone."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1, 1, 6))
        self.scale = nn.Parameter(torch.ones(6))
        self.table = nn.Linear(2, 6)
        self.register_buffer("grid", torch.ones(1, 2))
        self.first = nn.Linear(6, 6, bias=False)
        self.second = nn.Linear(6, 6, bias=False)
        self.second.weight = self.first.weight
        self.auxiliary = nn.Linear(6, 3)
        self.spare = nn.Parameter(torch.zeros(5))

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.size(0), -1, -1), x], dim=1)
        left, _, right = self.second(self.first(x) * self.scale).chunk(3, dim=2)
        y = torch.cat([left, right, left], dim=2) + self.table(self.grid)
        return y + self.auxiliary(y).sum() if self.training else y


class Listed(nn.Module):
    """Its convolution stands in a plain list."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = [nn.Conv2d(3, 4, 3), nn.ReLU()]
        self.fc = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        for part in self.hidden:
            x = part(x)
        return self.fc(x.mean([2, 3]))


class Values(nn.Module):
    """Its forward reads a value."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x * 2 if x.sum() > 1e9 else x


class Misfit(nn.Module):
    """Its second convolution expects a channel too many."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 8, 3)
        self.b = nn.Conv2d(9, 8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        return self.b(x)


class Lazy(nn.Module):
    """Layers that take their width from the first input."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.ReLU(), nn.Flatten())
        self.fc = nn.LazyLinear(5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.features(x))


def stacked(depth: int = 2) -> nn.Module:
    """A factory."""
    return nn.Sequential(*(nn.Conv2d(3, 3, 3, padding=1) for _ in range(depth)))


ready = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())


class Settings:
    """No module."""
