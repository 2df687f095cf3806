"""A Network as a PyTorch source file that stands alone: it needs torch, not us.

The file is laid out as ruff formats it. A name in a network may come from a file that nobody trusts: it enters the
source as a plain identifier, as a quoted string or, in a comment, with what cannot be printed escaped.
"""

from __future__ import annotations

import json
import keyword
import math
import textwrap
from collections.abc import Iterator
from dataclasses import replace

from vggscope.builders.layout import WIDTH, Call
from vggscope.builders.tree import REMEDY, Part, parts
from vggscope.errors import ModelError, printable
from vggscope.graph import Network, Node
from vggscope.ops.base import Shape, numel
from vggscope.ops.shape import Flatten
from vggscope.units import count_text, shape_text

LONGEST_NAME = 2000
"""A network's name is cut there: a column's notation fits."""

BODY = 8
"""How far the statements of a method are indented."""


def source(network: Network) -> str:
    """The file's text: a class VGG with the network's modules, and a main part that builds it and prints what comes
    out.

    Raises ModelError for a network that is no chain of torch.nn modules.
    """
    calls = parts(network)
    # A comment in the first two lines can declare an encoding, and the name is not ours: the docstring goes first.
    return "\n".join(
        [
            '"""A convolutional network in PyTorch, written by vggscope. It needs torch alone."""',
            "",
            *_heading(network),
            "",
            "import torch",
            "from torch import nn",
            "",
            "",
            "class VGG(nn.Module):",
            f'    """{_summary(network)}"""',
            "",
            "    def __init__(self) -> None:",
            "        super().__init__()",
            *(line for call in calls if call.name for line in _definition("self", call)),
            "",
            "    def forward(self, x: torch.Tensor) -> torch.Tensor:",
            *_forward(calls),
            "",
            "",
            *_main(network.input_shape),
            "",
        ]
    )


def _heading(network: Network) -> list[str]:
    text = f"{network.name}, for an input of {shape_text(network.input_shape)}"
    return textwrap.wrap(printable(text, LONGEST_NAME), WIDTH, initial_indent="# ", subsequent_indent="# ")


def _summary(network: Network) -> str:
    parameters = count_text(sum(numel(parameter.shape) for parameter in network.parameters()))
    labelled = any(node.label for node in network.nodes)
    return f"{parameters} parameters." + (" The comments are the literature's names of the layers." if labelled else "")


def _definition(owner: str, part: Part) -> Iterator[str]:
    """The statements that make `part` an attribute of `owner`.

    A Sequential whose parts are numbered is one expression; one whose parts have names is filled part by part.
    """
    if part.is_numbered:
        yield from _assignment(owner, part.name, _expression(part))
        return
    yield from _assignment(owner, part.name, Call("nn.Sequential"))
    for child in part.parts:
        yield from _definition(_access(owner, part.name), child)


def _assignment(owner: str, name: str, value: Call) -> list[str]:
    if _is_plain(name):
        return value.lines(BODY, f"{owner}.{name} = ")
    return Call(f"{owner}.add_module", (json.dumps(name), replace(value, comment="")), value.comment).lines(BODY)


def _access(owner: str, name: str) -> str:
    return f"{owner}.{name}" if _is_plain(name) else f"{owner}.get_submodule({json.dumps(name)})"


def _expression(part: Part) -> Call:
    if part.node is None:
        return Call("nn.Sequential", tuple(map(_expression, part.parts)), spread=True)
    op = part.node.op
    if not _is_plain(op.name):
        raise _unwritable(part.node, op.name)
    arguments = (_argument(part.node, name, value) for name, value in op.arguments().items())
    return Call(f"nn.{op.name}", tuple(arguments), printable(part.node.label))


def _argument(node: Node, name: str, value: object) -> str:
    """`kernel_size=3`; how many channels or features go in and out is written without its name, as people do."""
    text = _literal(node, value)
    return text if name.endswith(("_channels", "_features")) else f"{name}={text}"


def _literal(node: Node, value: object) -> str:
    if isinstance(value, str):
        return json.dumps(value)
    if isinstance(value, tuple):
        return f"({', '.join(_literal(node, item) for item in value)}{',' if len(value) == 1 else ''})"
    if value is None or type(value) in (bool, int) or (type(value) is float and math.isfinite(value)):
        return repr(value)
    raise _unwritable(node, value)


def _forward(calls: tuple[Part, ...]) -> Iterator[str]:
    if not calls:
        yield f"{' ' * BODY}return x"
    for call in calls:
        yield f"{' ' * BODY}{'return' if call is calls[-1] else 'x ='} {_called(call)}"


def _called(call: Part) -> str:
    if call.node and not call.name:
        assert isinstance(call.node.op, Flatten)
        start, end = call.node.op.start_dim, call.node.op.end_dim
        return f"torch.flatten(x, {start})" if end == -1 else f"torch.flatten(x, {start}, {end})"
    return f"{_access('self', call.name)}(x)"


def _main(shape: Shape) -> list[str]:
    return [
        'if __name__ == "__main__":',
        "    model = VGG().eval()",
        "    with torch.no_grad():",
        f"        output = model(torch.zeros({', '.join(map(str, shape))}))",
        "    parameters = sum(parameter.numel() for parameter in model.parameters())",
        '    print(f"output {tuple(output.shape)}, {parameters:,} parameters")',
    ]


def _is_plain(name: str) -> bool:
    """Whether a name can stand in code as it is: a leading `__` would be mangled, a letter beyond ASCII normalised."""
    return name.isascii() and name.isidentifier() and not keyword.iskeyword(name) and not name.startswith("__")


def _unwritable(node: Node, what: object) -> ModelError:
    return ModelError(f"{printable(node.title)} cannot be written as source: {what!r} is no literal", REMEDY)
