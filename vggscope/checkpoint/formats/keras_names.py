"""The names of a model's layers in an archive of Keras, whose groups are numbered by class: `layers/conv2d_1`.

The file states them with the groups, or else in the model's configuration, which lists the layers in the same order.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

CONTAINER = "layers"
"""The group that holds the layers of a model."""

_DEEPEST = 16
"""Models in one another; Keras nests them four deep."""


def configured_names(model: Any, path: str = "", depth: int = 0) -> Iterator[tuple[str, str]]:
    """The group of each layer and its name, by a model's configuration; those of models within the model too.

    >>> layers = [{"class_name": "Conv2D", "config": {"name": name}} for name in ("stem", "second")]
    >>> list(configured_names({"config": {"layers": layers}}))
    [('layers/conv2d', 'stem'), ('layers/conv2d_1', 'second')]
    """
    config = model.get("config") if isinstance(model, dict) else None
    layers = config.get(CONTAINER) if isinstance(config, dict) else None
    counts: Counter[str] = Counter()
    for entry in layers if isinstance(layers, list) and depth < _DEEPEST else ():
        settings = entry.get("config") if isinstance(entry, dict) else None
        if not isinstance(settings, dict) or not isinstance(entry.get("class_name"), str):
            continue
        kind = _snake_case(entry["class_name"])
        group = f"{path}{CONTAINER}/{kind}" + (f"_{counts[kind]}" if counts[kind] else "")
        counts[kind] += 1
        if isinstance(settings.get("name"), str):
            yield group, settings["name"]
        yield from configured_names(entry, f"{group}/", depth + 1)


def _snake_case(name: str) -> str:
    """The name of a class as Keras writes it in a group.

    >>> _snake_case("SeparableConv2D"), _snake_case("LSTM"), _snake_case("BatchNormalization")
    ('separable_conv2d', 'lstm', 'batch_normalization')
    """
    words = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", words).lower()


def named_path(path: str, names: Mapping[str, str]) -> str:
    """The path of a tensor with the names of layers in place of their groups, and without the containers.

    >>> names = {"layers/sequential": "inner", "layers/sequential/layers/conv2d": "deep"}
    >>> named_path("layers/sequential/layers/conv2d/kernel", names)
    'inner/deep/kernel'
    """
    parts = path.split("/")
    groups = ("/".join(parts[:end]) for end in range(1, len(parts) + 1))
    return "/".join(names.get(group, part) for part, group in zip(parts, groups) if part != CONTAINER)


def is_unnamed(path: str, names: Mapping[str, str]) -> bool:
    """Whether a tensor belongs to a layer that is numbered by class and whose name is not known.

    >>> is_unnamed("layers/conv2d/vars/0", {}), is_unnamed("layers/conv2d/vars/0", {"layers/conv2d": "stem"})
    (True, False)
    """
    container, _, below = path.partition("/")
    return container == CONTAINER and f"{container}/{below.partition('/')[0]}" not in names
