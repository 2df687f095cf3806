"""What the README shows is what the commands print."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")

SHOWN = re.findall(r"`(vggscope [^`]+)`\n\n```text\n(.*?)```", README, re.DOTALL)
"""Each command that stands before a block of output, with that output."""


@pytest.mark.parametrize(("command", "output"), SHOWN, ids=[command for command, _ in SHOWN])
def test_the_output_shown_is_the_output(vggscope, command: str, output: str) -> None:
    assert vggscope(*shlex.split(command)[1:]).out == output


def test_the_main_commands_are_shown() -> None:
    assert [command for command, _ in SHOWN] == [
        "vggscope summary D",
        "vggscope diff A --ref torchvision",
        "vggscope diff C --ref torchvision",
    ]


def test_the_files_it_links_to_are_there() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
