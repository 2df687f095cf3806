"""The types of the functions, and the command line's options beside them."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import get_args

import pytest
from typer.main import get_command

from vggscope import api, choices
from vggscope.analysis.compare import ORDERS, SORTS
from vggscope.analysis.memory.optimizers import OPTIMIZERS, RECIPES
from vggscope.analysis.memory.step_config import DTYPES, MODES, PARALLEL, RUNTIMES, StepConfig
from vggscope.analysis.memory.workspace import CUDNN
from vggscope.analysis.operations import COUNTS
from vggscope.builders.initialisation import INITS
from vggscope.cli.app import COMMANDS, app
from vggscope.cross_checks.gpu_counters import DEVICES
from vggscope.diffing.result import IGNORABLE
from vggscope.drawing import DIRECTIONS, FORMATS, STYLES
from vggscope.drawing.engine import ENGINES
from vggscope.drawing.look import FACTS, HEATS
from vggscope.drawing.themes import THEMES
from vggscope.render.compare import COLUMNS
from vggscope.render.compare_plot import CHARTS
from vggscope.tutorials import TOPICS
from vggscope.units import DTYPE_BYTES
from vggscope.vgg.options import HEADS, BuildOptions

CLI = Path(inspect.getfile(import_module("vggscope.cli"))).parent

TABLES: dict[str, Iterable[str]] = {
    "Annotation": FACTS,
    "Chart": CHARTS,
    "ComparedColumn": [column.key for column in COLUMNS],
    "ComparedFigure": SORTS,
    "Count": COUNTS,
    "Depth": api.DEPTHS,
    "Device": DEVICES,
    "Direction": DIRECTIONS,
    "Dtype": DTYPE_BYTES,
    "Engine": ENGINES,
    "Head": HEADS,
    "Heat": HEATS,
    "Ignorable": IGNORABLE,
    "Init": INITS,
    "Mode": MODES,
    "Optimizer": OPTIMIZERS,
    "Order": ORDERS,
    "Cudnn": CUDNN,
    "Parallel": PARALLEL,
    "PictureFormat": FORMATS,
    "Recipe": RECIPES,
    "Runtime": RUNTIMES,
    "StepDtype": DTYPES,
    "Style": STYLES,
    "Theme": THEMES,
    "Topic": TOPICS,
}
"""The table that each type of choices.py has its words from."""


def test_the_words_of_a_type_are_those_of_its_table() -> None:
    literals = {name: get_args(value) for name, value in vars(choices).items() if hasattr(value, "__args__")}
    assert literals == {name: tuple(table) for name, table in TABLES.items()}


def test_keyword_arguments_are_those_of_the_classes_that_take_them() -> None:
    assert {"input", "inputs", "steps", "batch", "backward", *choices.WordOptions.__annotations__} == set(
        BuildOptions.__dataclass_fields__
    )
    assert set(choices.ModelOptions.__annotations__) == {*choices.WordOptions.__annotations__, *api.INPUT_OPTIONS}
    assert set(choices.StepOptions.__annotations__) == set(StepConfig.__dataclass_fields__)


# The command line.

FUNCTIONS = {
    "summary": (api.summary, api.operations),
    "rf": (api.receptive_fields,),
    "memory": (api.memory, api.measure),
    "compare": (api.compare, api.fleet, api.grid),
    "build": (api.build, api.export),
    "list": (api.catalogue,),
    "inspect": (api.inspect, api.stats),
    "mcp": (),
}
"""The functions of the commands that have another name or several."""

NAMES = {
    "input": "input_size",
    "files": "paths",
    "words": "topic",
    ("summary", "gpu"): "card",
    ("rf", "models"): "model",
    ("build", "output"): "path",
}
"""Options that Python calls otherwise."""

NOT_IN_PYTHON = {
    "output": "result.save(path)",
    "format": "result.save(path), str(result), result.to_json()",
    "columns": "the fields of the result",
    "theme": "result.picture(theme=...)",
    "dpi": "result.save(path, dpi=...)",
    "strict": "an exit code; result.verdict",
    "grid": "the function grid",
    "measure": "the function measure",
    "backward": "the function operations",
    "stats": "the function stats",
    "values": "the function values",
    ("compare", "chart"): "result.picture(chart=...)",
    ("explain", "animate"): "result.picture(animate=...)",
    ("diff", "fold"): "result.picture(fold=...)",
    ("diff", "reference"): "the parameter ref",
    ("rf", "image"): "result.picture(image=...)",
    ("mcp", "allow_code"): "a server for programs, which call the functions themselves in Python",
    ("mcp", "folder"): "a server for programs",
}
"""Options that only say how a result is shown, or which function is called, with what does that in Python."""


def options() -> list[tuple[str, str]]:
    root = get_command(app)
    commands = {name: root.get_command(None, name) for name in COMMANDS}  # type: ignore[attr-defined]
    return [(name, param.name) for name, command in commands.items() for param in command.params]


@pytest.mark.parametrize(("command", "option"), options())
def test_every_option_is_a_parameter_in_python(command: str, option: str) -> None:
    functions = FUNCTIONS[command] if command in FUNCTIONS else (getattr(api, command),)
    name = NAMES.get((command, option)) or NAMES.get(option) or option
    taken = {parameter for function in functions for parameter in parameters(function)}
    assert name in taken or (command, option) in NOT_IN_PYTHON or option in NOT_IN_PYTHON


def parameters(function: object) -> set[str]:
    """The names of a function's parameters, those of its keyword arguments among them."""
    names = set()
    for parameter in inspect.signature(function).parameters.values():  # type: ignore[arg-type]
        unpacked = re.fullmatch(r"Unpack\[(\w+)\]", str(parameter.annotation))
        names |= set(getattr(choices, unpacked[1]).__annotations__) if unpacked else {parameter.name}
    return names


TAKEN = ("api", "choices", "cli", "errors", "files", "photo", "progress", "record", "render", "units")
"""What a command's file may import: the functions, the words they take, how text is read and how results are shown."""

REASONS = {
    (
        "build",
        "builders.initialisation",
    ): "checks --init and --seed where the module is only printed",
    ("compare", "analysis.compare"): "names results for the type checker",
    ("compare", "analysis.fleet"): "names results for the type checker",
    ("compare", "drawing.themes"): "checks --theme before anything is computed",
    ("diff", "vgg.notation"): "recognises a line of notation that the shell has split",
    ("explain", "drawing.themes"): "checks --theme before anything is computed",
    ("mcp", "mcp_server.server"): "answers an assistant, whose calls are those of api",
    ("mcp", "mcp_server.tools"): "the permissions that the person gives",
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_calls_the_functions_and_nothing_below_them(command: str) -> None:
    file = CLI / f"{'list_' if command == 'list' else command}.py"
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "vggscope":
            for name in [node.module.removeprefix("vggscope.")] if "." in node.module else [a.name for a in node.names]:
                assert name.partition(".")[0] in TAKEN or (command, name) in REASONS, f"{file.name} imports {name}"
