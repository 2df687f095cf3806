"""The rules that keep the code in order: floors, heavy packages, who may print."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "vggscope"

FLOORS = (
    ("errors", "record", "_version"),
    ("units", "suppress", "files", "progress"),
    ("result", "document"),
    ("ops",),
    ("graph",),
    ("graph_json", "vgg"),
    ("trace", "builders"),
    ("checkpoint", "analysis"),
    ("diffing", "cross_checks"),
    ("sources",),
    ("tutorials",),
    ("drawing",),
    ("render",),
    ("explorer",),
    ("api",),
    ("cli",),
    ("__init__", "__main__"),
)
"""From the ground up: a file imports from its own floor's folder and from the floors below."""

HEAVY = (
    "torch",
    "torchvision",
    "torchinfo",
    "fvcore",
    "timm",
    "matplotlib",
    "graphviz",
    "pygraphviz",
    "jinja2",
    "numpy",
    "IPython",
)


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def place(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def floor_of(name: str) -> int:
    return next(number for number, names in enumerate(FLOORS) if name in names)


def imported(path: Path) -> list[str]:
    """The parts of vggscope that a file imports anywhere: `ops`, `units`."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "vggscope":
            parts = node.module.split(".")
            found += [parts[1]] if len(parts) > 1 else [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            found += [alias.name.split(".")[1] for alias in node.names if alias.name.startswith("vggscope.")]
    return [name for name in found if not name.startswith("__")]


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_imports_only_from_below(path: Path) -> None:
    here = place(path)
    for name in imported(path):
        assert name == here or floor_of(name) < floor_of(here), f"{here} imports {name}"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_a_result_looks_up_by_name(path: Path) -> None:
    here = place(path)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            named = re.match(r"vggscope\.(\w+)[.:\w]*$", node.value)
            above = named is not None and floor_of(named[1]) > floor_of(here)
            assert not above or here == "result", f"line {node.lineno}: {node.value}"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_the_command_line_prints_and_exits(path: Path) -> None:
    if place(path) in ("cli", "__main__"):
        return
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in ("print", "exit", "sys.exit", "quit", "os._exit"), f"line {node.lineno}: {called}"


def loaded_by(*words: str) -> set[str]:
    """The top-level packages that are loaded when a command has run."""
    program = "import sys; from vggscope.cli.app import run"
    code = f"{program}; code = run({list(words)!r}); print(*sys.modules); sys.exit(code)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return {name.partition(".")[0] for name in done.stdout.split("\n")[-2].split(" ")}


def test_a_summary_loads_no_heavy_package() -> None:
    assert not loaded_by("summary", "D") & set(HEAVY)


def test_a_summary_loads_typer_and_what_it_needs_itself() -> None:
    """Of other people's packages a summary loads three, of our own files those on its way."""
    code = "import sys; from vggscope.cli.app import run; run(['summary', 'D']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    names = done.stdout.split("\n")[-2].split(" ")
    packages = {name.partition(".")[0] for name in names if not name.startswith("_")} - set(sys.stdlib_module_names)
    assert packages <= {"vggscope", "typer", "annotated_doc", "shellingham"}
    assert sum(name.startswith("vggscope") for name in names) <= 60


def test_a_diagram_loads_no_torch(tmp_path: Path) -> None:
    loaded = loaded_by("diagram", "E", "-o", str(tmp_path / "x.svg"))
    assert not loaded & {"torch", "torchvision", "matplotlib", "torchinfo", "fvcore"}
    assert (tmp_path / "x.svg").stat().st_size > 1000


def test_the_help_loads_no_heavy_package() -> None:
    assert not loaded_by("--help") & set(HEAVY)


def test_python_m_runs_the_same_program() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "vggscope", "summary", "A", "-f", "json"], capture_output=True, text=True, check=True
    )
    assert '"model": "A"' in done.stdout
    assert done.stderr == ""
