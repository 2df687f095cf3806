"""Pages that are written from the program: docs/cli.md, what `--help` shows of each command, and docs/results.md, the
classes that the functions return.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, get_args, get_type_hints

from typer import Context
from typer.main import get_command

import vggscope
from vggscope import api
from vggscope.cli.app import GROUPS, app
from vggscope.cli.help import groups_of, parted
from vggscope.graph import Buffer, Network, Parameter
from vggscope.result import Result

sys.path.insert(0, str(Path(__file__).parent))

from manual import ENVIRONMENT, EXIT_STATUS

HEAD = """# Commands

This page is written from the program: it is what `vggscope COMMAND --help` shows. MODEL is [any word that names a
model](words.md).
"""


def commands() -> str:
    """The page."""
    tables = (_table("Exit codes", "code", EXIT_STATUS), _table("Variables", "variable", ENVIRONMENT))
    return "\n".join([HEAD, *_contents(), *_commands(), *tables])


def _table(title: str, key: str, meanings: Mapping[str, str]) -> str:
    rows = (f"| `{name}` | {meaning} |" for name, meaning in meanings.items())
    return "\n".join([f"## {title}\n", f"| {key} | meaning |", "|---|---|", *rows, ""])


def _contents() -> Iterator[str]:
    yield "| to | command | what it does |\n|---|---|---|"
    for title, group in GROUPS.items():
        for number, (name, about) in enumerate(group.items()):
            yield f"| {'' if number else title} | [{name}](#{name}) | {_prose(about)} |"
    yield ""


def _commands() -> Iterator[str]:
    root: Any = get_command(app)
    for group in GROUPS.values():
        for name in group:
            ctx = Context(root.get_command(None, name), info_name=f"vggscope {name}")
            text, examples = parted(ctx.command.help or "")
            usage = " ".join(ctx.command.collect_usage_pieces(ctx))
            yield f"## {name}\n\n```text\nvggscope {name} {usage}\n```\n\n{text}\n"
            yield "```sh\n" + "\n".join(examples) + "\n```\n"
            for heading, params in groups_of(ctx.command, ctx):
                yield f"**{heading}**\n\n| {'argument' if heading == 'Arguments' else 'option'} | meaning |\n|---|---|"
                for param in params:
                    shown, about = (text.replace("|", "\\|") for text in param.get_help_record(ctx))
                    yield f"| `{shown}` | {_prose(about)} |"
                yield ""


def _prose(text: str) -> str:
    """Text in which nothing is marked up."""
    return text.replace("*", "\\*").replace("<", "&lt;")


RESULTS = """# Results

What the functions of [the Python interface](api.md) return, and the classes of its fields. All results are frozen
data. The docstring of a class explains its fields, and [the JSON](json.md) explains them one by one.

```{eval-rst}
.. autoclass:: vggscope.result.Result
   :members:
   :undoc-members:

.. autoclass:: vggscope.result.Drawn
   :members:
   :undoc-members:
```
"""


def type_names() -> dict[str, str]:
    """The full names of the types that the top level of vggscope/api.py imports, for type checkers too."""
    tree = ast.parse(Path(api.__file__).read_text(encoding="utf-8"))
    guarded = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    return {
        alias.name: f"{node.module}.{alias.name}"
        for node in (*tree.body, *(node for block in guarded for node in block.body))
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("vggscope")
        for alias in node.names
    }


def results() -> str:
    """A page with every class that a function returns, followed by the classes of its fields.

    A Network and its parts have a place on the page of the API.
    """
    parts, seen = [RESULTS], {Result, Network, Parameter, Buffer}
    for name in vggscope.__all__:
        function = getattr(vggscope, name)
        if not inspect.isfunction(function):
            continue
        returned = re.findall(r"\w+", function.__annotations__["return"])
        classes = [_load(type_names()[word]) for word in returned if word in type_names()]
        found = [each for cls in classes for each in _made_of(cls, seen)]
        if found:
            parts += [f"## {name}\n", "```{eval-rst}", *map(_autoclass, found), "```\n"]
    return "\n".join(parts)


def _made_of(cls: type, seen: set[type]) -> Iterator[type]:
    """A class, those of its fields, and those that its methods return, each once."""
    if cls in seen:
        return
    seen.add(cls)
    yield cls
    given = [get_type_hints(method)["return"] for method in vars(cls).values() if _is_public_method(method)]
    fields = get_type_hints(cls).values() if is_dataclass(cls) and not _is_drawing(cls) else ()
    for hint in (*fields, *given):
        for inner in _classes(hint):
            yield from _made_of(inner, seen)


def _is_drawing(cls: type) -> bool:
    """Whether it is a picture or a page, whose parts are private."""
    return cls.__module__.startswith(("vggscope.drawing", "vggscope.explorer"))


def _is_public_method(member: object) -> bool:
    """Whether it is one that may return another class; `Self` is known to type checkers alone."""
    return (
        inspect.isfunction(member)
        and not member.__name__.startswith("_")
        and member.__annotations__.get("return") != "Self"
    )


def _classes(hint: Any) -> Iterator[type]:
    if isinstance(hint, type) and is_dataclass(hint):
        yield hint
    for inner in get_args(hint):
        yield from _classes(inner)


def _load(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)


def _autoclass(cls: type) -> str:
    options = "   :show-inheritance:\n   :members:\n" + ("" if _is_drawing(cls) else "   :undoc-members:\n")
    return f".. autoclass:: {cls.__module__}.{cls.__qualname__}\n{options}"
