"""Edits of the calls of modules: one that is built and never called, called once too often, or called for another."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator, Sequence

from vggscope.diffing.align import chosen_attributes
from vggscope.diffing.code_edits import CodeFile, Edit, Edits, is_in_loop
from vggscope.diffing.user_code import UserCode
from vggscope.graph import Node
from vggscope.ops.base import Op, Shape

Both = Sequence[tuple[Node, Node]]
"""Our layers with the reference's."""


def unused_like(code: UserCode, other: Node, near: Node) -> list[str]:
    """The modules beside a node of ours that it does not run and that have the parameters of `other`, by name."""
    around = (near.module or near.name).rpartition(".")[0]
    shapes: dict[str, dict[str, Shape]] = {}
    for parameter, _ in code.ours.unused:
        path, _, leaf = parameter.name.rpartition(".")
        shapes.setdefault(path, {})[leaf] = parameter.shape
    wanted = dict(other.op.parameters())
    paths = [path for path, held in shapes.items() if wanted and held == wanted]
    return [path.rpartition(".")[2] for path in paths if path.rpartition(".")[0] == around]


def calls_of_unused(code: UserCode, both: Both) -> Iterator[Edits]:
    """The call of a module that runs a second time, of a module that does not run instead."""
    for mine, other in both:
        found = code.at(mine.called_at) if mine.module is not None else None
        if found is None or not isinstance(found[1], ast.Call):
            continue
        called = found[1].func
        for name in unused_like(code, other, mine) if isinstance(called, ast.Attribute) else ():
            yield (found[0].replaced(called, f"self.{name}"),)


def equal_module(code: UserCode, other: Node, source: CodeFile, near: ast.expr) -> str:
    """The module without weights that the class around an expression calls for a layer equal to `other`, by name."""
    around = source.around(near, ast.ClassDef)
    wanted = _chosen(other)
    for node in code.ours.nodes if around is not None and not other.op.parameters() else ():
        if node.module is None or _chosen(node) != wanted:
            continue
        found = code.at(node.called_at)
        name = own_name(found[1].func) if found and isinstance(found[1], ast.Call) else ""
        if found and name == node.module.rpartition(".")[2] and source.around(found[1], ast.ClassDef) is around:
            return name
    return ""


def _chosen(node: Node) -> tuple[object, ...]:
    """What a user chooses of a layer, whether it works in place left out."""
    return node.op.name, *(attribute for attribute in chosen_attributes(node.op) if attribute[0] != "inplace")


# A module that __init__ builds and nothing calls


def calls_instead(code: UserCode, mine: Node, op: Op | None = None) -> Iterator[Edits]:
    """The call of a module that nothing calls, in place of a later call of another one, which runs our layer `mine`.

    Its first weight has the shape of that of `op`, or else of the module that is called.
    """
    runs_again = mine.module != mine.name if mine is not code.ours.failed else code.runs[mine.module] > 0
    if mine.module is None or not runs_again:
        return
    for source, call in _calls(code, mine):
        called = own_name(call.func)
        shape = _weight_shape(op) if op is not None else _first_weight_in(code, called)
        for name in _uncalled_like(code, source, call, shape) if called and shape else ():
            yield (source.replaced(call.func, f"self.{name}"),)


def _first_weight_in(code: UserCode, name: str) -> Shape | None:
    """The shape of the first weight in a module that runs, by the module's name."""
    inside = (node for node in code.ours.nodes if node.module is not None and name in node.module.split("."))
    return next((shape for node in inside if (shape := _weight_shape(node.op))), None)


def calls_after(code: UserCode, before: Node, others: Sequence[Node]) -> Iterator[Edits]:
    """The call of a module that nothing calls, after the call that runs our layer `before`.

    Its first weight has the shape of the first one in `others`, the layers that are missing. If that call runs further
    layers after `before`, the new one comes before it: two equal layers may change places.
    """
    shape = next((shape for node in others if (shape := _weight_shape(node.op))), None)
    for place, (source, call) in zip(before.called_at, _calls(code, before)):
        runs = code.running_at.get(place, set())
        is_last = not any(before.name in code.ours.by_name[name].inputs for name in runs if name != before.name)
        for name in _uncalled_like(code, source, call, shape) if shape else ():
            if own_name(call.func) and not is_in_loop(source, call):
                yield (_called_after(source, call, name) if is_last else source.before_call(call, f"self.{name}"),)
            elif edit := _listed_after(source, call, before, name):
                yield (edit,)


def _calls(code: UserCode, node: Node) -> Iterator[tuple[CodeFile, ast.Call]]:
    """The calls that run a layer, the innermost first."""
    for depth in range(len(node.called_at)):
        found = code.at(node.called_at, depth)
        if found is not None and isinstance(found[1], ast.Call):
            yield found[0], found[1]


def own_name(node: ast.AST) -> str:
    """The `name` of `self.name`; empty for any other expression."""
    is_own = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"
    return node.attr if is_own and isinstance(node, ast.Attribute) else ""


def _uncalled_like(code: UserCode, source: CodeFile, call: ast.Call, shape: Shape) -> list[str]:
    """The modules that the class around a call assigns and never reads, whose first weight has this shape.

    Parameters that no layer reads tell their shapes. Of a model that fails, later layers have not been reached: what
    the code reads anywhere is left out.
    """
    around = source.around(call, ast.ClassDef)
    if around is None:
        return []
    own = [node for node in ast.walk(around) if isinstance(node, ast.Attribute) and own_name(node)]
    read = {node.attr for node in own if isinstance(node.ctx, ast.Load)}
    names = dict.fromkeys(node.attr for node in own if isinstance(node.ctx, ast.Store) and node.attr not in read)
    first: dict[str, Shape] = {}
    for parameter, _ in code.ours.unused:
        parts = parameter.name.split(".")[:-1]
        for name in names:
            if name in parts and len(parameter.shape) > 1:
                first.setdefault(name, parameter.shape)
    return [name for name in names if name in first and first[name] == shape]


def _weight_shape(op: Op) -> Shape | None:
    return next((shape for shape in op.parameters().values() if len(shape) > 1), None)


def _called_after(source: CodeFile, call: ast.Call, name: str) -> Edit:
    """Call a module of the model on the result of a call: in a line of its own, if the call is assigned to a name."""
    return source.after_call(call, f"self.{name}({source.assigned_to(call) or source.segment(call)})")


def _listed_after(source: CodeFile, call: ast.Call, before: Node, name: str) -> Edit | None:
    """A module of the model in the list over which a loop runs, after the module that holds our layer `before`."""
    around = source.around(call, ast.ClassDef)
    parts = (before.module or before.name).split(".")
    for node in ast.walk(around) if around is not None else ():
        if isinstance(node, ast.Attribute) and own_name(node) in parts and source.siblings(node):
            return source.inserted(node, [f"self.{name}"])
    return None


# A module that runs once too often


def without_call(code: UserCode, nodes: Sequence[Node]) -> Iterator[Edits]:
    """The value that a call of a module takes in place of the call, if it runs these layers and no others.

    A layer without weights may remain: where ours fails, one after the call counts as inserted too.
    """
    names = {node.name for node in nodes}
    for depth, place in enumerate(nodes[0].called_at):
        found = code.at(nodes[0].called_at, depth)
        if found is None or not isinstance(call := found[1], ast.Call) or len(call.args) != 1 or call.keywords:
            continue
        source = found[0]
        runs = code.running_at[place]
        left = (code.ours.by_name[name] for name in names - runs)
        if (
            runs <= names
            and not any(node.op.parameters() for node in left)
            and not isinstance(call.args[0], ast.Starred)
        ):
            yield (source.unwrapped(call, call.args[0]),)
            return


def has_run_elsewhere(code: UserCode, nodes: Sequence[Node]) -> bool:
    """Whether the module of each layer, if it is one, runs at another place too."""
    here = Counter(node.module for node in nodes if node.module is not None)
    return bool(here) and all(code.runs[module] > count for module, count in here.items())


# A module that is called twice where the reference has two


def shares_weights(code: UserCode, mine: Node, other: Node) -> bool:
    """Whether our layer has a parameter of an earlier one, and the reference's layer has none."""
    if all(code.owners.get(parameter.name, mine.name) == mine.name for parameter in mine.parameters):
        return False
    return not any(node is not other and {*node.parameters} & {*other.parameters} for node in code.reference.nodes)


def modules_of_own(code: UserCode, both: Both) -> Iterator[Edits]:
    """A copy of the line that builds a module that is called twice, under another name, which the later call uses."""
    edits: list[Edit] = []
    for mine, other in both:
        found = next(_own_calls(code, mine), None)
        if found is None:
            return
        edits += _with_own(code, *found, mine, other)
    yield tuple(dict.fromkeys(edits))


def _own_calls(code: UserCode, mine: Node) -> Iterator[tuple[CodeFile, ast.Call, ast.Assign]]:
    """The calls `self.name(x)` that run a layer, each with the line that builds the module."""
    for source, call in _calls(code, mine):
        around, name = source.around(call, ast.ClassDef), own_name(call.func)
        if around is None or not name or is_in_loop(source, call):
            continue
        built = [
            node
            for node in ast.walk(around)
            if isinstance(node, ast.Assign) and [own_name(target) for target in node.targets] == [name]
        ]
        if len(built) == 1 and not is_in_loop(source, built[0]) and isinstance(built[0].value, ast.Call):
            yield source, call, built[0]


def _with_own(
    code: UserCode, source: CodeFile, call: ast.Call, built: ast.Assign, mine: Node, other: Node
) -> list[Edit]:
    name = own_name(call.func)
    is_layer = mine.module is not None and mine.module.rpartition(".")[2] == name
    number = mine.name.rpartition(":")[2]
    new = other.label if is_layer and other.label else f"{name}_{number if number.isdigit() else 2}"
    while f"self.{new}" in source.text:
        new = f"{new}_2"
    made = source.statement_inserted(built, f"self.{new} = {source.segment(built.value)}")
    return [made, source.replaced(call.func, f"self.{new}")]


def unused_path(code: UserCode, other: Node) -> str:
    """The path of the outermost module that forward does not use, if its first weight has the shape of `other`'s."""
    wanted = _weight_shape(other.op)
    paths = (path.split(".") for path in code.runs if path is not None)
    used = {tuple(parts[:depth]) for parts in paths for depth in range(len(parts))}
    for parameter, _ in code.ours.unused:
        if len(parameter.shape) > 1 and parameter.shape == wanted:
            parts = parameter.name.split(".")[:-1]
            depth = next((d for d in range(1, len(parts)) if tuple(parts[:d]) not in used), len(parts))
            return ".".join(parts[:depth])
    return ""
