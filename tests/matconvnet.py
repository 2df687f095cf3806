"""Networks of MatConvNet, written by SciPy as MatConvNet's importer of Caffe's nets writes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

MEAN = (123.68, 116.779, 103.939)


def cells(values: Sequence[Any]) -> Any:
    """A cell array."""
    array = np.empty(len(values), object)
    for place, value in enumerate(values):
        array[place] = value
    return array


def numbers(*values: float) -> Any:
    return np.array(values, "f8")


def conv(
    name: str, shape: Sequence[int], pad: float | tuple[float, ...] = 0, *, old: bool = False, **settings: Any
) -> dict[str, Any]:
    """A convolution with filters of this shape, height x width x inputs x outputs, and biases."""
    draw = np.random.default_rng(sum(shape))
    filters = (draw.standard_normal(shape) / np.sqrt(np.prod(shape[:3]))).astype("f4")
    biases = draw.standard_normal(shape[3]).astype("f4")
    weights = {"filters": filters, "biases": biases} if old else {"weights": cells([filters, biases])}
    sides = pad if isinstance(pad, tuple) else (pad,) * 4
    return {"type": "conv", "name": name, "stride": numbers(1, 1), "pad": numbers(*sides), **weights, **settings}


def relu(name: str) -> dict[str, Any]:
    return {"type": "relu", "name": name}


def pool(name: str, **settings: Any) -> dict[str, Any]:
    plain = {"method": "max", "pool": numbers(2, 2), "stride": numbers(2, 2), "pad": numbers(0, 0, 0, 0)}
    return {"type": "pool", "name": name, **plain, **settings}


def small(*, old: bool = False) -> list[dict[str, Any]]:
    """The layers of `conv3-8 maxpool conv3-16 maxpool FC-32 FC-10` for images of 28x28, with the softmax."""
    return [
        conv("conv1_1", (3, 3, 3, 8), 1, old=old),
        relu("relu1_1"),
        pool("pool1"),
        conv("conv2_1", (3, 3, 8, 16), 1, old=old),
        relu("relu2_1"),
        pool("pool2"),
        conv("fc6", (7, 7, 16, 32), old=old),
        relu("relu6"),
        conv("fc7", (1, 1, 32, 10), old=old),
        {"type": "softmax", "name": "prob"},
    ]


def write(
    path: Path, layers: Sequence[Mapping[str, Any]], *, side: int = 28, compressed: bool = False, **variables: Any
) -> str:
    """Write the net to a file, and return its path."""
    from scipy.io import savemat

    mean = np.array(MEAN).reshape(1, 1, 3)
    about = {"normalization": {"imageSize": numbers(side, side, 3), "averageImage": mean}}
    content = {"layers": cells(layers), "meta": about, **variables}
    savemat(path, content, do_compression=compressed, oned_as="row")
    return str(path)
