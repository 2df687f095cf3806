"""Weights that a state dict stores in parts, from which the module computes them in each forward.

torch.nn.utils                   weight_norm     weight_g, weight_v
                                 spectral_norm   weight_orig, weight_u, weight_v
                                 prune           weight_orig, weight_mask
torch.nn.utils.parametrizations  weight_norm     parametrizations.weight.original0, parametrizations.weight.original1
                                 spectral_norm   parametrizations.weight.original, parametrizations.weight.0._u, ._v
"""

from __future__ import annotations

from collections.abc import Collection

_NEW = "parametrizations"

_PARTS = {f"{leaf}_{part}": leaf for leaf in ("weight", "bias") for part in ("g", "u", "v", "mask")}
"""The parts beside the one of the weight's own shape, and the tensor that each belongs to."""

_CALLS = {
    ("weight_g", "weight_v"): "torch.nn.utils.weight_norm(layer)",
    ("weight_orig", "weight_u"): "torch.nn.utils.spectral_norm(layer)",
    ("weight_mask", "weight_orig"): "torch.nn.utils.prune.identity(layer, 'weight')",
    (f"{_NEW}.weight.original0",): "torch.nn.utils.parametrizations.weight_norm(layer)",
    (f"{_NEW}.weight.0._u",): "torch.nn.utils.parametrizations.spectral_norm(layer)",
}
"""The call that parametrizes a layer, by the keys that it leaves in the state dict."""


def split(key: str, rank: int) -> tuple[str, str]:
    """The path of a key's layer, and the name of the tensor within it.

    The name is `weight` for the part of the weight's own shape, whatever it is called, and `weight_g`, `weight_mask`
    and so on for the others. `rank` is the tensor's number of dimensions.

    >>> split("conv1.weight_orig", 4), split("conv1.weight_mask", 4)
    (('conv1', 'weight'), ('conv1', 'weight_mask'))
    >>> split("conv1.parametrizations.weight.original0", 4)
    ('conv1', 'weight_g')
    """
    path, dot, rest = key.partition(f"{_NEW}.")
    if dot and (not path or path.endswith(".")) and "." in rest:
        leaf, _, part = rest.partition(".")
        part = {"original": "", "original0": "_g", "original1": ""}.get(part, part.rpartition(".")[2])
        return path[:-1], leaf + part
    path, _, leaf = key.rpartition(".")
    if leaf in ("weight_orig", "bias_orig") or (leaf == "weight_v" and rank > 1):
        leaf = leaf.partition("_")[0]
    return path, leaf


def whole(leaf: str) -> str:
    """The tensor that a part belongs to: `weight` for `weight_g`; any other leaf unchanged."""
    return _PARTS.get(leaf, leaf)


def is_buffer(leaf: str) -> bool:
    """Whether a leaf is a part that the module keeps but does not learn."""
    return leaf in _PARTS and not leaf.endswith("_g")


def parametrizing_call(path: str, keys: Collection[str]) -> str | None:
    """The call on `layer` that makes it accept these keys; empty for a plain weight, None for unknown parts."""
    leaves = {key[len(path) :].lstrip(".") for key in keys}
    known = next((call for names, call in _CALLS.items() if leaves.issuperset(names)), None)
    is_plain = all(split(key, 2)[1] == key.rpartition(".")[2] for key in keys)
    return known or ("" if is_plain else None)
