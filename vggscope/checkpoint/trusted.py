"""Classes that training scripts save beside the weights, and how torch.load is told to take them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

FILLED = frozenset(
    {
        *("collections.defaultdict", "collections.deque", "easydict.EasyDict", "yacs.config.CfgNode"),
        *("addict.addict.Dict", "pytorch_lightning.utilities.parsing.AttributeDict"),
        *("lightning_fabric.utilities.data.AttributeDict", "lightning.fabric.utilities.data.AttributeDict"),
        "lightning.pytorch.utilities.parsing.AttributeDict",
    }
)
"""Those that a pickle fills item by item: with weights_only=True a torch of today does so for plain dicts and lists
alone, whatever it is told to trust.
"""

_WIDTH = 100
"""The longest line that is written as one, in characters."""


def loading(call: str, guarded: Iterable[str]) -> Iterator[str]:
    """The lines that give `state` what `call` loads with weights_only=True, though the file asks for these names."""
    names = tuple(guarded)
    if not FILLED.isdisjoint(names):
        loose = call.replace("weights_only=True", "weights_only=False")
        yield "# this runs what the file asks for: only if you trust who made it"
        yield f"state = {loose}"
        return
    if names:
        trusted = [expression(name) for name in names]
        line = f"with torch.serialization.safe_globals([{', '.join(trusted)}]):"
        if len(line) > _WIDTH:
            yield from ("trusted = [", *(f"    {found}," for found in trusted), "]")
            line = "with torch.serialization.safe_globals(trusted):"
        yield line
    yield f"{'    ' if names else ''}state = {call}"


def imports(guarded: Iterable[str]) -> set[str]:
    """The modules that `loading` needs beside torch."""
    names = set(guarded)
    return {module_of(name) for name in names} - {"builtins"} if FILLED.isdisjoint(names) else set()


def expression(name: str) -> str:
    """The object that a pickle calls by that name, as Python source: with the name, where today's may differ.

    >>> expression("builtins.list"), expression("pathlib._local.PosixPath")
    ('list', "(pathlib.PosixPath, 'pathlib._local.PosixPath')")
    """
    found = f"{module_of(name)}.{name.rpartition('.')[2]}".removeprefix("builtins.")
    return f"({found}, {name!r})" if name.startswith(("numpy.core.", "numpy._core.", "pathlib.")) else found


def module_of(name: str) -> str:
    """The module that has the object here: numpy 2 calls its core otherwise than numpy 1, Python 3.13 its paths."""
    module = name.rpartition(".")[0]
    if module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        return _core_of_numpy()
    return {"pathlib._local": "pathlib"}.get(module, module)


def _core_of_numpy() -> str:
    from importlib.metadata import PackageNotFoundError, version  # a third of an inspection's time

    try:
        is_old = version("numpy").startswith("1.")
    except PackageNotFoundError:
        is_old = False
    return "numpy.core.multiarray" if is_old else "numpy._core.multiarray"
