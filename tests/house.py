"""The rules of docs/architecture.md, as functions that list what breaks them in a package.

Each takes the package's folder, so that tests/test_house.py can also ask it about a package made to break the rule.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

FLOORS = (
    ("errors", "record", "_version", "choices"),
    ("units", "suppress", "files", "progress", "photo", "workers", "plain_data"),
    ("result", "document", "recorded_step", "inputs"),
    ("ops",),
    ("graph",),
    ("graph_json", "dtypes", "vgg"),
    ("trace", "builders"),
    ("checkpoint", "analysis", "lock_file"),
    ("diffing", "cross_checks", "execution", "foreign"),
    ("sources",),
    ("tutorials",),
    ("drawing",),
    ("render",),
    ("explorer",),
    ("api",),
    ("mcp_server",),
    ("cli", "testing"),
    ("__init__", "__main__"),
)
"""The rooms, from the lowest floor to the highest. Two rooms on one floor do not import each other."""

HEAVY = (
    "torch",
    "torchvision",
    "torchinfo",
    "fvcore",
    "timm",
    "h5py",
    "matplotlib",
    "graphviz",
    "pygraphviz",
    "jinja2",
    "numpy",
    "IPython",
    "onnx",
    "onnxruntime",
    "safetensors",
    "PIL",
    "pandas",
    "polars",
    "pyarrow",
    "mcp",
    "mcp_types",
    "anyio",
)
"""Packages that are slow to import."""


class Import(NamedTuple):
    """One file's import of another: by a statement, or by the dotted name in a string of a table."""

    line: int
    target: Path


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def files(root: Path) -> list[Path]:
    return sorted(root.rglob("*.py"))


def room(root: Path, path: Path) -> str:
    return path.relative_to(root).parts[0].removesuffix(".py")


def imports(root: Path, path: Path) -> list[Import]:
    """The files of the package that a file imports, at its top, in a function, for type checkers, or by a string."""
    package = [root.name, *path.relative_to(root).parent.parts]
    found = []
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ImportFrom):
            parents = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            names = [f"{base}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            # Also the first part of an f-string: f"vggscope.ops.{family}" imports from ops.
            named = re.fullmatch(rf"({root.name}(?:\.\w+)+)(?::\w+|\.)?", node.value)
            names = [named[1]] if named else []
        else:
            continue
        targets = (file_of(root, name) for name in names if name.split(".")[0] == root.name)
        found += [Import(node.lineno, target) for target in targets if target not in (None, path)]
    return found


def file_of(root: Path, name: str) -> Path:
    """The file that a dotted name is imported from: its module, or the module that defines the name."""
    path = root
    for part in name.split(".")[1:]:
        if not (path / part).is_dir():
            module = path / f"{part}.py"
            return module if module.is_file() else path / "__init__.py"
        path /= part
    return path / "__init__.py"


def circles(root: Path) -> list[str]:
    """Files that import each other, directly or by way of others, `TYPE_CHECKING` included."""
    graph = {path: [target for _, target in imports(root, path)] for path in files(root)}
    below = {path: reached(graph, path) for path in graph}
    return [
        f"{path.relative_to(root)} imports itself by way of {', '.join(sorted(str(p.relative_to(root)) for p in loop))}"
        for path in graph
        if (loop := [other for other in below[path] if path in below.get(other, ())])
    ]


def reached(graph: Mapping[Path, list[Path]], start: Path) -> set[Path]:
    """The files that importing a file loads in the end."""
    known: set[Path] = set()
    waiting = list(graph[start])
    while waiting:
        path = waiting.pop()
        if path not in known:
            known.add(path)
            waiting += graph.get(path, [])
    return known


def arrows_up(root: Path) -> list[str]:
    """Imports from a floor that is not below, and rooms that FLOORS leaves out."""
    floors = {name: number for number, names in enumerate(FLOORS) for name in names}
    breaches = []
    for path in files(root):
        here = room(root, path)
        if here not in floors:
            breaches.append(f"{path.relative_to(root)} is on no floor")
            continue
        for line, target in imports(root, path):
            there = room(root, target)
            if there != here and floors.get(there, -1) >= floors[here]:
                breaches.append(f"{path.relative_to(root)}:{line} imports {target.relative_to(root)}")
    return breaches


def calls(root: Path, allowed: tuple[str, ...], is_breach: Callable[[ast.Call], bool]) -> list[str]:
    """The calls that break a rule outside the rooms that are allowed to."""
    return [
        f"{path.relative_to(root)}:{node.lineno} calls {ast.unparse(node.func)}"
        for path in files(root)
        if room(root, path) not in allowed
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call) and is_breach(node)
    ]


def printing(root: Path) -> list[str]:
    """Code outside cli/ that prints or exits; only progress.py has a console too, for its progress bar."""

    def prints(call: ast.Call) -> bool:
        return bool(re.fullmatch(PRINTS, ast.unparse(call.func)))

    def opens_console(call: ast.Call) -> bool:
        is_console = ast.unparse(call.func).endswith("Console")
        return is_console and not any(keyword.arg == "file" for keyword in call.keywords)

    return calls(root, ("cli",), prints) + calls(root, ("cli", "progress"), opens_console)


PRINTS = (
    r"print|input|exit|quit|sys\.exit|os\._exit|SystemExit|sys\.(stdout|stderr)\.write|typer\.(echo|Exit)|.*\.secho"
)


def writing(root: Path) -> list[str]:
    """Code outside files.py that writes, replaces or removes a file or a folder."""

    def is_breach(call: ast.Call) -> bool:
        name = ast.unparse(call.func)
        if name == "open" or name.endswith((".open", ".FileIO")):
            given = ast.unparse(ast.Tuple([*call.args[:2], *(keyword.value for keyword in call.keywords)], ast.Load()))
            return (
                bool(re.search(r"['\"]\w*[wax+]\w*\+?['\"]|O_(WRONLY|RDWR|CREAT)", given)) and "os.devnull" not in given
            )
        return bool(re.fullmatch(WRITES, name))

    return calls(root, ("files",), is_breach)


WRITES = (
    r"os\.(replace|rename|renames|remove|unlink|mkdir|makedirs|rmdir|link|symlink|truncate|chmod)"
    r"|shutil\.(copy\w*|move|rmtree|make_archive)|tempfile\.\w+"
    r"|(?!formatter).*\.(write_text|write_bytes|mkdir|touch|unlink|rmdir|symlink_to|hardlink_to)"
)


def heavy_at_the_top(root: Path) -> list[str]:
    """Heavy packages that are imported as soon as a file is: outside functions and `if TYPE_CHECKING`."""
    return [
        f"{path.relative_to(root)}:{node.lineno} imports {name} at the top"
        for path in files(root)
        for node in at_the_top(tree(path))
        for name in top_packages(node)
        if name in HEAVY
    ]


def at_the_top(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that run when a module is imported."""
    for child in ast.iter_child_nodes(node):
        is_for_types = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
        if not is_for_types and not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            yield child
            yield from at_the_top(child)


def top_packages(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name.partition(".")[0] for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        return [node.module.partition(".")[0]]
    return []


def heavy_in_pure_rooms(root: Path) -> list[str]:
    """Heavy packages in the rooms that need none, wherever in a file they are imported."""
    rooms = ("ops", "graph", "graph_json", "vgg", "analysis", "document", "result")
    return [
        f"{path.relative_to(root)} imports {name}"
        for path in files(root)
        if room(root, path) in rooms
        for node in ast.walk(tree(path))
        for name in top_packages(node)
        if name in HEAVY
    ]


def known_sources(root: Path) -> list[str]:
    """Imports of a source's file, which defines `claims`, by any file but catalogue.py; resolve.py has its name."""
    defined = {path: {getattr(node, "name", "") for node in tree(path).body} for path in files(root / "sources")}
    sources = {path for path, names in defined.items() if "claims" in names}
    missing = [] if sources else ["sources/ has no file that defines `claims`"]
    return missing + known_only_to(root, sources, ("sources/catalogue.py",))


def known_commands(root: Path) -> list[str]:
    """Imports of a command's file by any other; cli/app.py imports it by the name of the command."""
    app = next(node for node in tree(root / "cli" / "app.py").body if ast.unparse(node).startswith("GROUPS"))
    assert isinstance(app, ast.AnnAssign)
    assert app.value is not None
    names = [name for group in ast.literal_eval(app.value).values() for name in group]
    commands = {root / "cli" / f"{'list_' if name == 'list' else name}.py" for name in names}
    missing = [f"there is no {path.relative_to(root)}" for path in sorted(commands) if not path.is_file()]
    return missing + known_only_to(root, commands, ())


def known_only_to(root: Path, targets: set[Path], allowed: tuple[str, ...]) -> list[str]:
    return [
        f"{path.relative_to(root)}:{line} imports {target.relative_to(root)}"
        for path in files(root)
        if path.relative_to(root).as_posix() not in allowed
        for line, target in imports(root, path)
        if target in targets
    ]


def computing_renderers(root: Path) -> list[str]:
    """Files of render/, drawing/ and explorer/ that resolve a model or run one. `list` has the catalogue as result."""
    rooms, results = ("render", "drawing", "explorer"), ("sources/catalogue.py",)
    breaches = []
    for path in (path for path in files(root) if room(root, path) in rooms):
        where = path.relative_to(root)
        breaches += [
            f"{where}:{line} imports {target.relative_to(root)}"
            for line, target in imports(root, path)
            if room(root, target) in ("sources", "trace", "builders")
            and target.relative_to(root).as_posix() not in results
        ]
        breaches += [
            f"{where}:{node.lineno} imports {name}"
            for node in ast.walk(tree(path))
            for name in top_packages(node)
            if name in ("torch", "torchvision", "timm")
        ]
    return breaches


OPS_BY_NAME = {
    "analysis/memory/calls.py": "autocast's lists name torch's functions",
    "analysis/receptive_field/stacks.py": "reads the fields of a convolution",
    "builders/module.py": "tells what can be written as a module, and calls a Flatten that is none",
    "builders/source.py": "writes a Flatten that is no module as a call",
    "checkpoint/network.py": "constructs ops from the tensors of a file",
    "cross_checks/flop_counter.py": "reads the fields of a convolution",
    "cross_checks/fvcore.py": "states what another tool counts, by torch's names",
    "cross_checks/memory_tracker.py": "states what another tool measures, by torch's names",
    "cross_checks/torchinfo.py": "states what another tool counts, by torch's names",
    "execution/inner_product.py": "reads the fields of a convolution",
    "foreign/program.py": "makes ops of the calls in a file, with the memory layout of their tensors",
    "tutorials/layer.py": "reads the fields of a convolution and of a Linear",
}
"""The files that may name ops, and why."""


def ops_by_name(root: Path) -> list[str]:
    """Code outside ops/ and trace/ that depends on an op's name or class instead of asking the op."""
    breaches = []
    for path in files(root):
        where = path.relative_to(root).as_posix()
        if room(root, path) not in ("ops", "trace") and where not in OPS_BY_NAME:
            classes = op_classes(path, root.name)
            breaches += [
                f"{where}:{node.lineno} names an op: {ast.unparse(node)}"
                for node in ast.walk(tree(path))
                if isinstance(node, (ast.Call, ast.Compare, ast.Subscript)) and names_op(node, classes)
            ]
    return breaches


def op_classes(path: Path, package: str) -> set[str]:
    """The op classes that a file imports from a family of ops; WithConstants is any op with constant inputs."""
    families = rf"({package}\.|\.+)ops\.(?!base|axis_maps|normal_form)\w+"
    return {
        alias.asname or alias.name
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ImportFrom) and re.fullmatch(families, "." * node.level + (node.module or ""))
        for alias in node.names
        if alias.name[0].isupper() and alias.name != "WithConstants"
    }


def names_op(node: ast.Call | ast.Compare | ast.Subscript, classes: set[str]) -> bool:
    if isinstance(node, ast.Subscript):  # NAMES[node.op.name]
        return isinstance(node.value, ast.Name) and node.value.id.strip("_").isupper() and has_op_name(node.slice)
    if isinstance(node, ast.Compare):  # node.op.name == "Conv2d", node.op.name in NAMES
        sides = [node.left, *node.comparators]
        return any(map(has_op_name, sides)) and any(map(is_constant, sides))
    function = ast.unparse(node.func)
    if function == "isinstance":  # isinstance(node.op, (Convolution, Linear))
        return any(isinstance(part, ast.Name) and part.id in classes for part in ast.walk(node.args[1]))
    if re.search(r"(^|\.)op\.name(\.lower\(\))?\.(startswith|endswith)$", function):
        return True
    # NAMES.get(node.op.name)
    is_table = bool(re.fullmatch(r"_?[A-Z][A-Z_0-9]*\.get", function))
    return is_table and any(map(has_op_name, node.args))


def has_op_name(node: ast.AST) -> bool:
    return bool(re.search(r"(^|[^\w.]|\.)op\.name\b", ast.unparse(node)))


def is_constant(node: ast.AST) -> bool:
    """Whether an expression holds a string, or is a constant of the module."""
    is_name = isinstance(node, ast.Name) and node.id.strip("_").isupper()
    return is_name or any(isinstance(part, ast.Constant) and isinstance(part.value, str) for part in ast.walk(node))


NAMES_OPTIONS = {
    "analysis/memory/fit.py": "a remedy is data, which the JSON documents as options",
    "explorer/drawing.py": "names variables of CSS",
    "errors.py": "writes the option of an argument",
}
"""The files that may name an option of the command line, and why."""


def options_by_name(root: Path) -> list[str]:
    """Texts outside cli/ with an option of the command line, which a caller from Python does not have.

    `errors.option` names an argument as its caller writes it. A whole command line, which begins with `vggscope`, may
    hold options, and so may docstrings.
    """
    breaches = []
    for path in files(root):
        where = path.relative_to(root).as_posix()
        if room(root, path) in ("cli", "testing") or where in NAMES_OPTIONS:
            continue
        breaches += [
            f"{where}:{line} names an option: {text}"
            for line, text in texts(path)
            if re.search(r"(?<![\w-])--[a-z]", text.partition("vggscope ")[0])
        ]
    return breaches


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """The strings of a file with their lines, without docstrings; an f-string has `x` in place of each value."""
    nodes = list(ast.walk(tree(path)))
    docstrings = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    formatted = [node for node in nodes if isinstance(node, ast.JoinedStr)]
    parts = {id(part) for node in formatted for part in node.values}
    for node in nodes:
        if isinstance(node, ast.JoinedStr):
            values = (part.value if isinstance(part, ast.Constant) else "x" for part in node.values)
            yield node.lineno, "".join(map(str, values))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings | parts:
            yield node.lineno, node.value


RULES: Mapping[str, Callable[[Path], list[str]]] = {
    rule.__name__: rule
    for rule in (
        circles,
        arrows_up,
        printing,
        writing,
        heavy_at_the_top,
        heavy_in_pure_rooms,
        known_sources,
        known_commands,
        computing_renderers,
        ops_by_name,
        options_by_name,
    )
}
