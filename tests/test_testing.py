"""The pytest plugin, the pre-commit hook and the GitHub Action, each run as a user's repository runs it."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from torch import nn

from tests.pages import ROOT
from vggscope import testing
from vggscope.cli.app import run
from vggscope.testing import assert_architecture

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

pytest_plugins = ["pytester"]

NET = """\
from torch import nn


class Net(nn.Module):
    def __init__(self, kernel=3):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, kernel, padding=kernel // 2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(8, 10)

    def forward(self, x):
        return self.fc(self.pool(self.conv(x)).flatten(1))
"""

TEST = """\
from net import Net
from vggscope.testing import assert_architecture


def test_it():
    assert_architecture(Net(), "arch.json"{more})
"""


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A project with a model and a test of its architecture."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    pytester.makepyfile(net=NET, test_net=TEST.format(more=", input_size=(3, 20, 24)"))
    return pytester


def ran(project: pytest.Pytester, *options: str) -> pytest.RunResult:
    """Run the project's tests in a process of their own: torch cannot be imported twice in one."""
    return project.runpytest_subprocess("-p", "vggscope.testing", "-p", "no:cacheprovider", *options)


def test_the_plugin_is_registered_under_the_name_of_its_module() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["entry-points"]["pytest11"] == {"vggscope.testing": "vggscope.testing"}
    assert not any("pytest" in text for text in project["dependencies"])


@pytest.mark.slow
def test_a_file_is_written_on_request_and_a_mismatch_shows_the_differences(project: pytest.Pytester) -> None:
    updated = ran(project, "--update-architectures")
    updated.assert_outcomes(passed=1)
    updated.stdout.fnmatch_lines(["*architectures*", "wrote arch.json"])
    ran(project).assert_outcomes(passed=1)
    Path("net.py").write_text(NET.replace("kernel=3", "kernel=5"))
    failed = ran(project)
    failed.assert_outcomes(failed=1)
    failed.stdout.fnmatch_lines(
        [
            "*the architecture is not that of arch.json; if it should be, pytest --update-architectures*",
            "*different: 1 difference that changes what is computed*",
            "*~ conv (conv1_1): kernel_size 5, the reference has 3*",
        ]
    )
    assert "vggscope/testing.py" not in failed.stdout.str()


def test_an_update_keeps_the_input_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
    with pytest.raises(AssertionError, match="is not there: pytest --update-architectures writes it"):
        assert_architecture(model, tmp_path / "arch.json")
    run = testing.PytestRun(str(tmp_path), updates=True)
    monkeypatch.setattr(testing, "_runs", [run])
    assert_architecture(model, "arch.json", input_size=(3, 20, 24))
    text = (tmp_path / "arch.json").read_text()
    assert '"shape": [1, 3, 20, 24]' in text
    assert_architecture(model, "arch.json")
    assert (tmp_path / "arch.json").read_text() == text
    assert run.written == ["arch.json", "arch.json"]
    monkeypatch.setattr(testing, "_runs", [testing.PytestRun(str(tmp_path), updates=False)])
    assert_architecture(model, "arch.json")
    model[0] = nn.Conv2d(3, 8, 5)
    with pytest.raises(AssertionError, match="kernel_size 5, the reference has 3"):
        assert_architecture(model, "arch.json")


def test_strict_refuses_other_names(tmp_path: Path) -> None:
    import vggscope

    vggscope.lock("conv3-8 FC-10", input_size=(3, 8, 8)).save(tmp_path / "arch.json")
    other = Path(tmp_path / "arch.json").read_text().replace("features.0", "conv")
    (tmp_path / "other.json").write_text(other)
    assert_architecture("conv3-8 FC-10", tmp_path / "other.json")
    with pytest.raises(AssertionError, match="conv"):
        assert_architecture("conv3-8 FC-10", tmp_path / "other.json", strict=True)


def test_pytest_is_not_imported_by_the_package() -> None:
    code = "import sys, vggscope.testing; sys.exit('pytest' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# The hook and the action


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A git repository with a model and its lock, and `vggscope` on PATH."""
    folder = tmp_path / "repository"
    folder.mkdir()
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "vggscope"
    program.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m vggscope "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    for name, value in {"AUTHOR": "a", "COMMITTER": "a"}.items():
        monkeypatch.setenv(f"GIT_{name}_NAME", value)
        monkeypatch.setenv(f"GIT_{name}_EMAIL", "a@example.org")
    monkeypatch.chdir(folder)
    (folder / "net.py").write_text(NET)
    assert run(["lock", "net.py:Net", "--input", "3x16x16", "-o", "arch.json"]) == 0
    subprocess.run(["git", "init", "-q"], check=True)
    return folder


def commit() -> subprocess.CompletedProcess[str]:
    subprocess.run(["git", "add", "net.py", "arch.json"], check=True)
    return subprocess.run(["git", "commit", "-q", "-m", "x"], capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_hook_lets_a_commit_through_until_the_model_drifts(repository: Path) -> None:
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
    assert {"id", "name", "entry", "language"} <= hook.keys()
    assert hook["pass_filenames"] is False
    entry = shlex.join([*shlex.split(hook["entry"]), "net.py:Net", "--ref", "arch.json"])
    script = repository / ".git" / "hooks" / "pre-commit"
    script.parent.mkdir(exist_ok=True)
    script.write_text(f"#!/bin/sh\nexec {entry}\n")
    script.chmod(0o755)
    assert commit().returncode == 0
    (repository / "net.py").write_text(NET.replace("kernel=3", "kernel=5"))
    refused = commit()
    assert refused.returncode == 1
    assert "~ conv (conv1_1): kernel_size 5, the reference has 3" in refused.stdout + refused.stderr


def step(inputs: dict[str, str], **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the last step of the action with these inputs, as a runner does."""
    action = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
    given = {name: value.get("default", "") for name, value in action["inputs"].items()} | inputs
    *_, compare = action["runs"]["steps"]
    env = {}
    for name, value in compare["env"].items():
        assert value.startswith("${{ inputs."), value
        env[name] = given[value.removeprefix("${{ inputs.").removesuffix(" }}")]
    bash = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", compare["run"]]
    return subprocess.run(bash, env={**os.environ, **env, **variables}, capture_output=True, text=True, check=False)


def test_the_action_is_composite_and_its_shell_quotes_no_input() -> None:
    action = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
    assert action["runs"]["using"] == "composite"
    assert action["inputs"]["model"]["required"] is True
    install, compare = action["runs"]["steps"]
    assert install["run"] == 'python -m pip install "$GITHUB_ACTION_PATH"'
    assert all(each["shell"] == "bash" and "${{" not in each["run"] for each in (install, compare))


@pytest.mark.slow
def test_the_action_fails_where_the_model_drifts_and_says_so_in_the_jobs_summary(repository: Path) -> None:
    summary = repository / "summary.md"
    same = step({"model": "net.py:Net", "options": "--strict"}, GITHUB_STEP_SUMMARY=str(summary))
    assert (same.returncode, summary.exists()) == (0, False), same.stderr
    drifted = step({"model": "net.py:Net(kernel=5)"}, GITHUB_STEP_SUMMARY=str(summary))
    assert drifted.returncode == 1
    assert "~ conv (conv1_1): kernel_size 5" in drifted.stdout
    assert "1 difference that changes what is computed" in summary.read_text()
    wrong = step({"model": "$(touch ran); net.py:Nat", "ref": "arch.json"})
    assert wrong.returncode == 2
    assert not (repository / "ran").exists()
