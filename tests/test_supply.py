"""What is published: bounded versions, and packages that install with their templates and types."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

import vggscope

pytest.importorskip("packaging")
from packaging.requirements import Requirement
from packaging.version import Version

yaml = pytest.importorskip("yaml")

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def claimed() -> list[Requirement]:
    """What a user installs: the dependencies and the extras that are for users."""
    extras = PROJECT["optional-dependencies"]
    named = ("onnx", "onnxruntime", "timm", "keras", "mcp")
    return [Requirement(text) for text in (*PROJECT["dependencies"], *(text for key in named for text in extras[key]))]


def bound(requirement: Requirement, operator: str) -> str | None:
    return next((spec.version for spec in requirement.specifier if spec.operator == operator), None)


@pytest.mark.parametrize("requirement", claimed(), ids=lambda requirement: requirement.name)
def test_every_version_has_a_lower_and_an_upper_bound(requirement: Requirement) -> None:
    low, high = bound(requirement, ">="), bound(requirement, "<")
    assert low is not None
    assert high is not None
    assert Version(low) < Version(high)


def test_the_constraints_are_the_lowest_versions_that_are_claimed() -> None:
    lines = (ROOT / "constraints-lowest.txt").read_text(encoding="utf-8").splitlines()
    pinned = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    # Of what reads results, a user has any version, and pip would take one that needs a newer numpy.
    tests = map(Requirement, PROJECT["optional-dependencies"]["test"])
    readers = [requirement for requirement in tests if requirement.name in ("pandas", "pyarrow")]
    assert pinned == {requirement.name: bound(requirement, ">=") for requirement in (*claimed(), *readers)}


def test_what_is_installed_here_is_within_the_bounds() -> None:
    from importlib.metadata import PackageNotFoundError, version

    for requirement in claimed():
        try:
            installed = version(requirement.name)
        except PackageNotFoundError:
            continue
        assert requirement.specifier.contains(installed, prereleases=True), f"{requirement.name} {installed}"


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (citation["title"], citation["version"]) == (PROJECT["name"], vggscope.__version__)
    assert citation["license"] == PROJECT["license"]
    assert citation["references"][0]["identifiers"] == [{"type": "other", "value": "arXiv:1409.1556"}]


def workflow(name: str) -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load((ROOT / ".github" / "workflows" / name).read_text(encoding="utf-8"))
    return read


def test_a_release_publishes_what_was_built_and_checked() -> None:
    release = workflow("release.yml")
    jobs = release["jobs"]
    assert release["permissions"] == {"contents": "read"}
    assert jobs["publish"]["needs"] == "build"
    # Only the last job may ask for the token, and it runs no code of the repository.
    assert jobs["publish"]["permissions"] == {"id-token": "write"}
    assert "permissions" not in jobs["build"]
    assert all(step.keys() <= {"uses", "with"} for step in jobs["publish"]["steps"])
    assert not re.search(r"\$\{\{.*\}\}", "".join(step.get("run", "") for step in jobs["build"]["steps"]))


def test_the_matrix_has_each_system_and_the_oldest_python() -> None:
    matrix = workflow("check.yml")["jobs"]["quick"]["strategy"]["matrix"]
    assert matrix["os"] == ["ubuntu-latest", "macos-latest", "windows-latest"]
    assert PROJECT["requires-python"] == f">={matrix['python'][0]}"


def test_security_says_what_runs_code() -> None:
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    for word in ("path/file.py:Net", "weights_only=True", ".safetensors", "Content-Security-Policy"):
        assert word in text


def files_of_the_package() -> set[str]:
    """Every file of ours that a user needs: code, types, templates, styles, scripts."""
    listed = subprocess.run(["git", "ls-files", "vggscope"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("no git here")
    return {name for name in listed.stdout.split("\n") if name and (ROOT / name).exists()}


@pytest.mark.slow
def test_sdist_and_wheel_hold_everything_and_the_wheel_runs(tmp_path: Path) -> None:
    pytest.importorskip("hatchling")
    build = "import sys; from hatchling import build; build.build_sdist(sys.argv[1]); build.build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, tmp_path], cwd=ROOT, check=True, capture_output=True)
    (wheel,), (sdist,) = tmp_path.glob("*.whl"), tmp_path.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = archive.read(next(name for name in names if name.endswith("/METADATA"))).decode()
        entries = archive.read(next(name for name in names if name.endswith("/entry_points.txt"))).decode()
    expected = files_of_the_package()
    assert expected <= names
    assert "vggscope/py.typed" in names
    assert any(name.endswith(".html.j2") for name in expected)
    assert any(name.endswith(".data/data/share/man/man1/vggscope.1") for name in names)
    assert not [name for name in names if name.startswith(("tests/", "docs/", "benchmarks/"))]
    assert "Requires-Python: >=3.10" in metadata
    assert "[pytest11]\nvggscope.testing = vggscope.testing\n" in entries
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    beside = {"README.md", "CHANGELOG.md", "LICENSE", "SECURITY.md", "pyproject.toml", "man/vggscope.1"}
    assert expected | beside <= inside
    _check_installed(wheel, tmp_path)


def _check_installed(wheel: Path, folder: Path) -> None:
    """The wheel alone, unpacked as pip does it, away from the sources."""
    target = folder / "site"
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", target, wheel]
    subprocess.run(install, check=True, capture_output=True)
    script = (
        f"import sys; sys.path.insert(0, {str(target)!r}); import vggscope; print(vggscope.__file__);"
        " from vggscope.cli.app import run; sys.exit(run(['report', 'A', '-o', 'x.html']) or run(['summary', 'D']))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(str(target))
    assert "138,357,544" in done.stdout
    assert re.search(r"<script>.+</script>", (folder / "x.html").read_text(encoding="utf-8"), re.DOTALL)
