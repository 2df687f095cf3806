"""The rules of docs/architecture.md hold in vggscope, and each is noticed where it is broken."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.house import HEAVY, RULES, files, tree

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "vggscope"


@pytest.mark.parametrize("rule", RULES)
def test_the_package_keeps_the_rule(rule: str) -> None:
    assert RULES[rule](PACKAGE) == []


BREACHES = (
    ("circles", {"ops/a.py": "from vggscope.ops import b", "ops/b.py": "def f():\n    from .a import g"}, "ops/a.py"),
    ("circles", {"ops/a.py": "from .b import B", "ops/b.py": "TABLE = ['vggscope.ops.a:make']"}, "ops/b.py"),
    (
        "circles",
        {"ops/a.py": "import vggscope.ops.b", "ops/b.py": "if TYPE_CHECKING:\n    from . import a"},
        "ops/a.py",
    ),
    ("arrows_up", {"graph.py": "def f():\n    from vggscope.render import text", "render/text.py": ""}, "graph.py:2"),
    ("arrows_up", {"graph.py": "from . import api", "api.py": ""}, "graph.py:1 imports api.py"),
    ("arrows_up", {"graph.py": "FORMS = {'svg': 'vggscope.drawing.svg:write'}", "drawing/svg.py": ""}, "graph.py:1"),
    ("arrows_up", {"graph.py": "import_module(f'vggscope.cli.{name}')", "cli/app.py": ""}, "graph.py:1"),
    ("arrows_up", {"trace/run.py": "import vggscope.builders", "builders/__init__.py": ""}, "trace/run.py:1"),
    ("arrows_up", {"attic.py": ""}, "attic.py is on no floor"),
    ("printing", {"units.py": "print('x')"}, "units.py:1 calls print"),
    ("printing", {"render/text.py": "import sys\nsys.exit(2)"}, "render/text.py:2"),
    ("printing", {"api.py": "raise SystemExit(1)"}, "api.py:1"),
    ("printing", {"progress.py": "sys.stderr.write('x')"}, "progress.py:1"),
    ("printing", {"render/text.py": "Console(stderr=True).print('x')"}, "render/text.py:1"),
    ("writing", {"cli/output.py": "open(path, 'w')"}, "cli/output.py:1 calls open"),
    ("writing", {"cli/output.py": "open(path, mode='ab')"}, "cli/output.py:1 calls open"),
    ("writing", {"cli/shells.py": "Path(name).write_text('x')"}, "cli/shells.py:1"),
    ("writing", {"sources/cache.py": "os.open(path, os.O_WRONLY | os.O_CREAT)"}, "sources/cache.py:1"),
    ("writing", {"sources/cache.py": "os.makedirs(folder)"}, "sources/cache.py:1 calls os.makedirs"),
    ("writing", {"render/svg.py": "shutil.copyfile(a, b)"}, "render/svg.py:1"),
    ("heavy_at_the_top", {"trace/run.py": "import torch.nn"}, "trace/run.py:1 imports torch"),
    ("heavy_at_the_top", {"render/plot.py": "try:\n    from numpy import array\nexcept E: ..."}, "render/plot.py:2"),
    ("heavy_in_pure_rooms", {"analysis/cost.py": "def f():\n    import torch"}, "analysis/cost.py imports torch"),
    ("heavy_in_pure_rooms", {"graph.py": "if TYPE_CHECKING:\n    from torch import Tensor"}, "graph.py imports torch"),
    ("known_sources", {"sources/code.py": "from vggscope.sources.timm import names"}, "sources/code.py:1"),
    ("known_sources", {"api.py": "from vggscope.sources import timm"}, "api.py:1"),
    ("known_sources", {"sources/timm.py": ""}, "sources/ has no file that defines `claims`"),
    ("known_commands", {"cli/app.py": "GROUPS: Mapping = {'Look': {'diff': ''}}"}, "there is no cli/diff.py"),
    ("known_commands", {"cli/diff.py": "from vggscope.cli.summary import summary"}, "cli/diff.py:1"),
    ("known_commands", {"api.py": "from vggscope.cli import list_"}, "api.py:1"),
    ("computing_renderers", {"explorer/maps.py": "def f():\n    import torch"}, "explorer/maps.py:2 imports torch"),
    ("ops_by_name", {"diffing/a.py": "is_conv = node.op.name == 'Conv2d'"}, "diffing/a.py:1 names an op"),
    ("ops_by_name", {"diffing/a.py": "if op.name in _POOLS: ..."}, "diffing/a.py:1"),
    ("ops_by_name", {"diffing/a.py": "'Conv' in node.op.name.lower()"}, "diffing/a.py:1"),
    ("ops_by_name", {"diffing/a.py": "any(n.op.name.startswith('Dropout') for n in nodes)"}, "diffing/a.py:1"),
    ("ops_by_name", {"drawing/layer.py": "_WORDS.get(self.node.op.name, '')"}, "drawing/layer.py:1"),
    ("ops_by_name", {"drawing/layer.py": "COSTS[op.name]"}, "drawing/layer.py:1"),
    (
        "ops_by_name",
        {"analysis/a.py": "from vggscope.ops.linear import Linear\nisinstance(op, (Linear, int))"},
        "analysis/a.py:2",
    ),
    (
        "ops_by_name",
        {"analysis/a.py": "from ..ops.linear import Linear as L\nisinstance(op, L)", "ops/linear.py": ""},
        "analysis/a.py:2",
    ),
    ("options_by_name", {"graph.py": "raise OptionError('a batch of 0', 'leave --batch out')"}, "graph.py:1"),
    ("options_by_name", {"graph.py": "f'a {n}: --{name} is 1 to {most}'"}, "graph.py:1"),
    ("options_by_name", {"graph.py": "warn(f'--input {size} does not fit')"}, "graph.py:1"),
    ("computing_renderers", {"render/x.py": "from vggscope.sources.resolve import resolve"}, "render/x.py:1"),
)
"""A rule, files that break it, and the beginning of what it says."""

FRAME = {
    "sources/resolve.py": "def load(name):\n    return import_module(f'vggscope.sources.{name}')",
    "sources/timm.py": "def claims(word): ...\n\n\ndef names():\n    import timm",
    "cli/app.py": "GROUPS: Mapping = {'Look': {'summary': '', 'list': ''}}",
    "cli/summary.py": "print('x')",
    "cli/list_.py": "",
    "files.py": "open(path, 'wb')",
}
"""A package that breaks no rule."""


def package(folder: Path, files: dict[str, str]) -> Path:
    root = folder / "vggscope"
    for name, text in {**FRAME, **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return root


@pytest.mark.parametrize("rule", RULES)
def test_a_package_that_breaks_no_rule_passes(rule: str, tmp_path: Path) -> None:
    assert RULES[rule](package(tmp_path, {})) == []


@pytest.mark.parametrize(("rule", "files", "message"), BREACHES)
def test_a_breach_is_noticed(rule: str, files: dict[str, str], message: str, tmp_path: Path) -> None:
    assert [line for line in RULES[rule](package(tmp_path, files)) if line.startswith(message)]


def test_each_class_has_a_name_of_its_own() -> None:
    classes = Counter(
        node.name for path in files(PACKAGE) for node in ast.walk(tree(path)) if isinstance(node, ast.ClassDef)
    )
    assert [name for name, count in classes.items() if count > 1] == []


def test_each_rule_is_shown_to_be_broken_and_is_named_in_the_documentation() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert {rule for rule, _, _ in BREACHES} == set(RULES)
    assert [rule for rule in RULES if f"`{rule}`" not in page] == []


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/architecture.md"])
def test_each_file_and_each_table_that_a_page_names_exists(page: str) -> None:
    quoted = set(re.findall(r"`([^`\s]+)`", (ROOT / page).read_text(encoding="utf-8")))
    paths = {name for name in quoted if re.fullmatch(r"[\w./]+(\.(py|md|json)|/)", name)}
    known = [path.as_posix() for path in ROOT.glob("[!.]*/**/*")] + [path.as_posix() for path in ROOT.glob("*")]
    assert [name for name in paths if not any(path.endswith(f"/{name.rstrip('/')}") for path in known)] == []
    source = "".join(path.read_text(encoding="utf-8") for path in sorted(PACKAGE.rglob("*.py")))
    tables = {name for name in quoted if re.fullmatch(r"[A-Z_]{4,}", name)}
    assert [name for name in tables if not re.search(rf"\b{name}\b", source)] == []


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
    assert sum(name.startswith("vggscope") for name in names) <= 63


def test_a_comparison_loads_the_rooms_on_its_way() -> None:
    """No picture, no trace and no other tool, unless they are asked for."""
    code = "import sys; from vggscope.cli.app import run; run(['compare', 'A', 'E']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    rooms = {name.split(".")[1] for name in done.stdout.split("\n")[-2].split(" ") if name.startswith("vggscope.")}
    assert rooms.isdisjoint({"drawing", "trace", "cross_checks", "diffing", "tutorials", "builders", "workers"})


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


@pytest.mark.slow
def test_a_first_summary_of_a_module_does_not_import_torchs_compiler() -> None:
    """It takes a second, and kernels of the meta device import it."""
    code = """
import sys
from torch import nn
import vggscope

maps = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.SiLU(), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1)
model = nn.Sequential(*maps, nn.Flatten(), nn.Dropout(), nn.Linear(8, 8), nn.Sigmoid(), nn.Linear(8, 200_000))
report = vggscope.summary(model, (3, 32, 32))
assert report.memory.training_peak_bytes
print(*sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert "torch" in done.stdout.split()
    assert not {"torch._dynamo", "torchvision", "torch._inductor"}.intersection(done.stdout.split())
