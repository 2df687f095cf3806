"""What there is to choose from: columns, references, ops, and which packages are installed."""

from __future__ import annotations

import ast
import importlib.util
import pkgutil
import re
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from vggscope import ops
from vggscope.errors import MissingTool
from vggscope.ops.base import Op
from vggscope.record import record
from vggscope.result import Result
from vggscope.vgg.configs import CONFIGS, LITERATURE
from vggscope.vgg.notation import parse, write

PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "torchinfo",
    "fvcore",
    "pygraphviz",
    "graphviz",
    "matplotlib",
    "jinja2",
    "safetensors",
    "onnx",
)
"""What the commands use beside typer and rich, each only where it is needed."""


@record
class ColumnEntry:
    """A column of Table 1: the literature's name, if it has one, its layers with weights, and its notation."""

    name: str
    literature: str | None
    weight_layers: int
    notation: str


@record
class Reference:
    """A model to compare with, as a MODEL word; its parameters where they are known without building it."""

    name: str
    params: int | None


@record
class Choice:
    """Something to choose, with a line on what it is."""

    name: str
    about: str


@record
class Installed:
    """A package and its version, None where it is not installed."""

    name: str
    version: str | None


@record
class Catalogue(Result):
    """Everything that `vggscope list` shows."""

    schema: str
    columns: tuple[ColumnEntry, ...]
    references: tuple[Reference, ...]
    ops: tuple[Choice, ...]
    formats: tuple[Choice, ...]
    styles: tuple[Choice, ...]
    packages: tuple[Installed, ...]


def columns() -> tuple[ColumnEntry, ...]:
    """The six columns of Table 1."""
    named = {column: name for name, column in LITERATURE.items()}
    return tuple(_column(name, line, named.get(name)) for name, line in CONFIGS.items())


def _column(name: str, line: str, literature: str | None) -> ColumnEntry:
    words = parse(line)
    return ColumnEntry(name, literature, sum(word.kind in ("conv", "fc") for word in words), write(words))


def references() -> tuple[Reference, ...]:
    """The VGGs of the installed torchvision, read off its source so that nothing of it has to run."""
    found = importlib.util.find_spec("torchvision")
    if found is None or found.origin is None:
        return ()
    source = Path(found.origin).parent / "models" / "vgg.py"
    if not source.is_file():
        return ()
    defined = [node.name for node in ast.parse(source.read_text()).body if isinstance(node, ast.FunctionDef)]
    names = [f"{name}{suffix}" for name in LITERATURE for suffix in ("", "_bn")]
    return tuple(Reference(f"torchvision:{name}", None) for name in names if name in defined)


def names_in(library: str) -> tuple[str, ...]:
    """Every model that the installed torchvision (classification) or timm registers, read off its source; nothing of it
    runs. Empty where it is not installed.
    """
    found = importlib.util.find_spec(library)
    if found is None or found.origin is None:
        return ()
    names: set[str] = set()
    for path in (Path(found.origin).parent / "models").glob("*.py"):
        names.update(match.decode() for match in _REGISTERED.findall(path.read_bytes()))
    return tuple(sorted(names))


_REGISTERED = re.compile(rb"^@register_model\b.*\r?\n(?:@.*\r?\n)*def (\w+)", re.MULTILINE)


def all_references() -> tuple[Reference, ...]:
    """Every classification model of the installed torchvision, and timm's VGGs, with their parameters."""
    from vggscope.sources import timm, torchvision

    found: list[Reference] = []
    for library, module in (("torchvision", torchvision), ("timm", timm)):
        try:
            counts = module.parameter_counts()
        except MissingTool:
            continue
        found += (Reference(f"{library}:{name}", params) for name, params in counts.items())
    return tuple(found)


def all_ops() -> tuple[Choice, ...]:
    """Every op that there is, by name, with the first sentence that it says of itself."""
    kinds = set()
    for module in pkgutil.iter_modules(ops.__path__):
        for found in vars(import_module(f"{ops.__name__}.{module.name}")).values():
            if isinstance(found, type) and issubclass(found, Op) and found is not Op:
                kinds.add(found)
    described = {
        name: _first_sentence(kind.__doc__ or "")
        for kind in kinds
        for name in _SEVERAL.get(kind.__name__, (kind.__name__,))
    }
    return tuple(Choice(name, described[name]) for name in sorted(described) if not name.startswith("_"))


_SEVERAL = {
    "Convolution": ("Conv1d", "Conv2d", "Conv3d"),
    "TransposedConvolution": ("ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d"),
}
"""Ops that torch has under several names, one for each number of sides."""


def _first_sentence(text: str) -> str:
    """Up to the first full stop (of "et al." none is), or to a colon that what follows was to explain."""
    paragraph = " ".join(text.partition("\n\n")[0].split())
    sentence = re.split(r"(?<=\.)(?<!et al\.)\s(?=[^a-z0-9])", paragraph)[0]
    return re.split(r":\s(?![^(]*\))", sentence)[0].rstrip(":.") + "."


def packages() -> tuple[Installed, ...]:
    """PACKAGES with their versions."""
    return tuple(Installed(name, _version(name)) for name in PACKAGES)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
