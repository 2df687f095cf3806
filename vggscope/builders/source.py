"""A Network as a PyTorch source file that needs torch alone.

The file is formatted as ruff formats it. Names in a network may come from an untrusted file. They enter the source only
as plain identifiers, as quoted strings or, in comments, with unprintable characters escaped.
"""

from __future__ import annotations

import json
import keyword
import math
import textwrap
from collections.abc import Iterator
from dataclasses import replace

from vggscope.builders.module import REMEDY, ModuleCall, module_calls
from vggscope.errors import ModelError, printable
from vggscope.graph import Network, Node
from vggscope.ops.base import Shape, numel
from vggscope.ops.shape import Flatten
from vggscope.record import record
from vggscope.units import count_text, shape_text

LONGEST_NAME = 2000
"""Characters after which a network's name is cut; a line of notation fits."""

WIDTH = 100
"""The longest line that is written, in characters, unless a name alone is longer."""

BODY = 8
"""Spaces before a statement of a method."""


@record
class SourceCall:
    """A call `function(arguments)` in Python source. An argument is source text or a call.

    `lines` breaks it as ruff and black do: on one line if it fits, else the arguments on a line of their own, else each
    argument on its own line with a comma. `spread` always gives each argument its own line.
    """

    function: str
    arguments: tuple[str | SourceCall, ...] = ()
    comment: str = ""
    spread: bool = False

    @property
    def text(self) -> str | None:
        """The call on one line without its comment; None where a call in it is spread."""
        arguments = self._arguments
        return None if self.spread or arguments is None else f"{self.function}({arguments})"

    @property
    def _arguments(self) -> str | None:
        texts = [argument.text if isinstance(argument, SourceCall) else argument for argument in self.arguments]
        known = [text for text in texts if text is not None]
        return ", ".join(known) if len(known) == len(texts) else None

    def lines(self, indent: int, before: str = "", after: str = "") -> list[str]:
        """The call's lines, with `before` on the first and `after` on the last.

        >>> SourceCall("f", ("a", "b=2"), comment="why").lines(4, "x = ")
        ['    x = f(a, b=2)  # why']
        """
        ending = after + (f"  # {self.comment}" if self.comment else "")
        if self.text is not None and len(line := " " * indent + before + self.text + ending) <= WIDTH:
            return [line]
        inner = indent + 4
        body = None if self.spread else self._arguments
        if body is not None and len(line := " " * inner + body) <= WIDTH:
            arguments = [line]
        else:
            arguments = [line for argument in self.arguments for line in _lines(argument, inner)]
        return [f"{' ' * indent}{before}{self.function}(", *arguments, f"{' ' * indent}){ending}"]


def _lines(argument: str | SourceCall, indent: int) -> list[str]:
    return [f"{' ' * indent}{argument},"] if isinstance(argument, str) else argument.lines(indent, after=",")


def source(network: Network) -> str:
    """The file's text: a class VGG with the network's modules, and a main block that runs it.

    Raises ModelError for a network that is not a chain of torch.nn modules.
    """
    calls = module_calls(network)
    # The docstring goes first: a comment in the first two lines, as the one with the name, may declare an encoding.
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


def _definition(owner: str, call: ModuleCall) -> Iterator[str]:
    """The statements that make the module an attribute of `owner`.

    A Sequential with numbered children is one expression; one with named children is filled child by child.
    """
    if call.is_numbered:
        yield from _assignment(owner, call.name, _expression(call))
        return
    yield from _assignment(owner, call.name, SourceCall("nn.Sequential"))
    for child in call.children:
        yield from _definition(_access(owner, call.name), child)


def _assignment(owner: str, name: str, value: SourceCall) -> list[str]:
    if _is_plain(name):
        return value.lines(BODY, f"{owner}.{name} = ")
    return SourceCall(f"{owner}.add_module", (json.dumps(name), replace(value, comment="")), value.comment).lines(BODY)


def _access(owner: str, name: str) -> str:
    return f"{owner}.{name}" if _is_plain(name) else f"{owner}.get_submodule({json.dumps(name)})"


def _expression(call: ModuleCall) -> SourceCall:
    if call.node is None:
        return SourceCall("nn.Sequential", tuple(map(_expression, call.children)), spread=True)
    op = call.node.op
    if not _is_plain(op.name):
        raise _unwritable(call.node, op.name)
    arguments = (_argument(call.node, name, value) for name, value in op.arguments().items())
    return SourceCall(f"nn.{op.name}", tuple(arguments), printable(call.node.label))


def _argument(node: Node, name: str, value: object) -> str:
    """A keyword argument such as `kernel_size=3`; channels and features are positional, as is usual."""
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


def _forward(calls: tuple[ModuleCall, ...]) -> Iterator[str]:
    if not calls:
        yield f"{' ' * BODY}return x"
    for call in calls:
        yield f"{' ' * BODY}{'return' if call is calls[-1] else 'x ='} {_invocation(call)}"


def _invocation(call: ModuleCall) -> str:
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
    """Whether a name can be an attribute in code: Python mangles a leading `__` and normalises letters beyond ASCII."""
    return name.isascii() and name.isidentifier() and not keyword.iskeyword(name) and not name.startswith("__")


def _unwritable(node: Node, what: object) -> ModelError:
    return ModelError(f"{printable(node.title)} cannot be written as source: {what!r} is not a literal", REMEDY)
