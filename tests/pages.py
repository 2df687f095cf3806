"""Run the commands and code blocks of the documentation's pages as a reader would.

A page runs from top to bottom in one folder. The language of a block decides what happens:

    console   the text after `$ ` is a command, the lines below it are its output; a line `...` stands for any number of
              lines that the page leaves out
    sh        commands, one per line, without output; each must end with 0 or 1 (so must an indented block)
    python    a block that begins with `# name.py` is written to that file, which some command must use (the tests in a
              `test_name.py` run); other blocks run, all of a page in one namespace. `# ...` after an expression is its
              repr, or what it prints; a `text` block right below is the block's output
    toml      begins with `# name.toml` and is written to that file
    diff      begins with `--- name` and `+++ name` and edits that file
    yaml      is parsed, and the commands under `run` and `entry` must end with 0
    json      the output of the command above, or a part of it, or the servers of an assistant

A command in a sentence (`vggscope summary D` in backticks) runs too and must end with 0 or 1. One with a placeholder in
capitals (MODEL, FILE), or a command's name alone, must exist in the program.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from markdown_it import MarkdownIt
from markdown_it.token import Token

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
WRITTEN = {"cli.md", "results.md", "notebook.md", "contributing.md", "security.md", "changes.md"}
"""Pages that the build of the site writes."""

PAGES = sorted(page for page in DOCS.glob("*.md") if page.name not in WRITTEN) + [
    ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")
]

NOT_RUN = {
    "make": "it would make an environment of its own, or run these tests; the target has to be in the Makefile",
    "pip": "it would reach the network; the package has to be this one, with extras that it has",
    "python benchmarks/": "it takes minutes; the file has to be there",
}
"""Commands that a page may show but that do not run: the reason, and what is checked instead."""

DIRECTIVES = {"{toctree}", "{eval-rst}"}
"""Directives for Sphinx: `make docs` builds them, and a warning is an error."""

NAMED = {"benchmarks.md"}
"""Pages whose sentences name measured programs, not commands to type."""

PUT_IN = r"(?<![\w.:])[A-Z]{3,}(?![\w.])|\.\.\."
"""A placeholder in capitals."""

MARKDOWN = MarkdownIt("commonmark").enable("table")


@dataclass
class Block:
    """A block of code: its language, its text, and its range of lines in the page."""

    language: str
    text: str
    start: int
    end: int


def blocks(page: Path) -> list[Block | str]:
    """The page's code blocks, and the commands in its sentences (as strings), in order."""
    return list(_blocks(page.read_text(encoding="utf-8")))


def _blocks(text: str) -> Iterator[Block | str]:
    for token in MARKDOWN.parse(text):
        if token.type == "fence" and token.map:
            yield Block(token.info.strip(), token.content, token.map[0] + 1, token.map[1] - 1)
        elif token.type == "code_block" and token.map:
            yield Block("", token.content, *token.map)
        yield from (code for code in _codes(token) if code.startswith("vggscope "))


def _codes(token: Token) -> Iterator[str]:
    return (child.content for child in token.children or () if child.type == "code_inline")


def codes(page: Path) -> list[str]:
    """The text in backticks in the page's sentences and tables."""
    return [code for token in MARKDOWN.parse(page.read_text(encoding="utf-8")) for code in _codes(token)]


def links(page: Path) -> list[tuple[str, str]]:
    """The targets of the page's links and pictures, each with its text."""
    found = []
    for token in MARKDOWN.parse(page.read_text(encoding="utf-8")):
        children = token.children or []
        for place, child in enumerate(children):
            if child.type == "image":
                found.append((str(child.attrs["src"]), child.content))
            elif child.type == "link_open":
                found.append((str(child.attrs["href"]), children[place + 1].content))
    return found


def options(command: str | None = None) -> set[str]:
    """The options of a command, or of all of them, as the program itself has them."""
    from typer.main import get_command

    from vggscope.cli.app import COMMANDS, app

    group: Any = get_command(app)
    commands = [group.get_command(None, name) for name in ([command] if command else COMMANDS)]
    found = {"-h", "--help", "--debug", "--version", "--install-completion", "--show-completion"}
    for each in commands:
        for parameter in each.params:
            found.update((*parameter.opts, *parameter.secondary_opts))
    return {option for option in found if option.startswith("-")}


@dataclass
class Player:
    """Run one page in the current folder."""

    vggscope: Callable[..., Any]
    namespace: dict[str, Any] = field(default_factory=dict)
    code: int = 0
    printed: str = ""
    files: set[str] = field(default_factory=set)
    typed: str = ""

    def play(self, page: Path) -> str:
        """Return the page with the output that its blocks give now."""
        lines = page.read_text(encoding="utf-8").splitlines(keepends=True)
        found = blocks(page)
        replaced: list[tuple[Block, str]] = []
        for before, block in zip([None, *found], found):
            if isinstance(block, str):
                if page.name not in NAMED:
                    self.sentence(block)
            elif block.language == "text" and isinstance(before, Block) and before.language == "python":
                replaced.append((block, self.printed))
            else:
                replaced.append((block, self.block(block)))
        assert all(name in self.typed for name in self.files), f"not one command takes one of {self.files}"
        for block, text in reversed(replaced):
            lines[block.start : block.end] = [text] if block.language else lines[block.start : block.end]
        return "".join(lines)

    def block(self, block: Block) -> str:
        """Run one block and return its text as it should be."""
        if block.language in DIRECTIVES:
            return block.text
        play = {
            "": self.sh,
            "console": self.console,
            "sh": self.sh,
            "python": self.python,
            "toml": self.toml,
            "diff": self.diff,
            "yaml": self.yaml,
            "json": self.json,
        }.get(block.language)
        assert play, f"nothing here runs or checks a block of {block.language or 'no language'!r}: {block.text!r}"
        return play(block.text)

    def console(self, text: str) -> str:
        """The commands of a block, each with its output, or with the shown text if that matches."""
        assert text.startswith("$ "), f"a console block begins with a command after '$ ': {text!r}"
        parts = []
        for shown in re.split(r"^(?=\$ )", text, flags=re.MULTILINE)[1:]:
            command, _, output = shown.partition("\n")
            printed = self.command(command.removeprefix("$ "))
            parts.append(shown if stands_for(output, printed) else f"{command}\n{printed}")
        return "".join(parts)

    def sh(self, text: str) -> str:
        """Run commands whose output is not shown."""
        for line in text.splitlines():
            shown = self.command(line)
            assert self.code in (0, 1), f"{line}: {shown}"
        return text

    def command(self, line: str) -> str:
        """What a terminal shows of a command."""
        self.typed += line
        words = shlex.split(line, comments=True)
        if not_run(words):
            return ""
        if words[:2] == ["echo", "$?"]:
            return f"{self.code}\n"
        if words[0] == "python":
            return self.script(words[1])
        assert words[0] == "vggscope", f"no page runs {words[0]}"
        ran = self.vggscope(*words[1:])
        self.code, self.printed = ran.code, ran.out
        return str(ran.out + ran.err)

    def script(self, name: str) -> str:
        """What a file prints that is run by itself."""
        with contextlib.redirect_stdout(io.StringIO()) as out:
            runpy.run_path(name, run_name="__main__")
        self.code = 0
        return out.getvalue()

    def python(self, text: str) -> str:
        """Run a block, or write the file that it is."""
        if name := _written(text, "py"):
            sys.modules.pop(Path(name).stem, None)
            if name.startswith("test_"):
                run_tests(name)
            else:
                self.files.add(Path(name).stem)
            return text
        self.typed += text
        with contextlib.redirect_stdout(io.StringIO()) as out:
            lines = text.splitlines()
            for node in ast.parse(text).body:
                before = out.tell()
                value = self._statement(node)
                end = node.end_lineno or 0
                said = out.getvalue()[before:] or ("" if value is None else f"{value!r}\n")
                code, comment = _apart(lines[end - 1], node.end_col_offset or 0)
                if isinstance(node, ast.Expr) and comment:
                    lines[end - 1] = f"{code}# {said}".rstrip()
                    out.seek(before)
                    out.truncate()
        self.printed = out.getvalue()
        return "\n".join(lines) + "\n"

    def _statement(self, node: ast.stmt) -> object:
        if isinstance(node, ast.Expr):
            return eval(compile(ast.Expression(node.value), "page", "eval"), self.namespace)
        exec(compile(ast.Module([node], []), "page", "exec"), self.namespace)
        return None

    def toml(self, text: str) -> str:
        """Write the file that it is."""
        assert _written(text, "toml"), "a block of TOML begins with the name of its file"
        tomllib.loads(text)
        self.files.add(f"{_written(text, 'toml')}:")
        return text

    def diff(self, text: str) -> str:
        """Edit the file that the block names."""
        head = re.match(r"--- (\S+)\n\+\+\+ \1\n", text)
        assert head, f"a diff begins with the name of its file: {text!r}"
        file = Path(head[1])
        now = file.read_text(encoding="utf-8")
        for hunk in re.split(r"^@@.*\n", text[head.end() :], flags=re.MULTILINE):
            old, new = ("".join(line[1:] for line in hunk.splitlines(True) if line[0] in kept) for kept in (" -", " +"))
            assert now.count(old) == 1, f"{file} has this {now.count(old)} times: {old}"
            now = now.replace(old, new)
        file.write_text(now, encoding="utf-8")
        sys.modules.pop(file.stem, None)
        return text

    def yaml(self, text: str) -> str:
        """Run what the file would have run."""
        for line in _steps(yaml.safe_load(text)):
            words = shlex.split(line)
            if not not_run(words):
                self.command(line)
                assert self.code == 0, line
        return text

    def json(self, text: str) -> str:
        """Hold it to what the last command printed, or the servers in it to what the program takes."""
        for server in json.loads(text).get("mcpServers", {}).values():
            assert server["command"] == "vggscope"
            assert server["args"][0] == "mcp"
            assert {word for word in server["args"] if word.startswith("--")} <= options("mcp")
            return text
        assert is_part(json.loads(text), json.loads(self.printed))
        return text

    def sentence(self, command: str) -> None:
        """Run a command of a sentence, or hold it to what the program takes."""
        words = shlex.split(command)[1:]
        if words and not words[0].startswith("-") and words[0].islower():
            known = options(words[0])
            assert {word for word in words if re.match(r"--?[a-z]", word)} <= known, command
        if len(words) > 1 and not re.search(PUT_IN, command):
            ran = self.vggscope(*words)
            assert ran.code in (0, 1), f"{command}: {ran.err}"


def run_tests(name: str) -> None:
    """Run the tests of a file as a reader does: paths begin at the folder where pytest is called."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", ".", name]
    ran = subprocess.run(command, check=False, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout


def not_run(words: list[str]) -> str:
    """Why a command is not run, after a look at what it names; empty if it is to run."""
    if words[0] == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        assert {word for word in words[1:] if "=" not in word} <= set(targets), words
        return NOT_RUN["make"]
    if words[:2] == ["pip", "install"] or words[:4] == ["python", "-m", "pip", "install"]:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        name, _, extras = words[-1].partition("[")
        assert name.rpartition("/")[2] in (project["name"], "."), words  # by name, or a clone of the repository
        assert set(filter(None, extras.rstrip("]").split(","))) <= project["optional-dependencies"].keys(), words
        return NOT_RUN["pip"]
    if words[0] == "python" and words[1].startswith("benchmarks/"):
        assert (ROOT / words[1]).is_file(), words
        return NOT_RUN["python benchmarks/"]
    return ""


def stands_for(shown: str, printed: str) -> bool:
    """Whether a text that is shown is what is printed, where a line `...` of it may be any number of lines.

    >>> stands_for("a\\n...\\nd\\n", "a\\nb\\nc\\nd\\n"), stands_for("a\\n...\\n", "b\\n")
    (True, False)
    """
    pieces = re.split(r"^\.\.\.\n", shown, flags=re.MULTILINE)
    return re.fullmatch("(?:.*\n)*?".join(map(re.escape, pieces)), printed) is not None


def is_part(part: object, whole: object) -> bool:
    """Whether a piece of JSON is a part of another: of an object some fields, of a list its beginning."""
    if isinstance(part, dict) and isinstance(whole, dict):
        return all(key in whole and is_part(value, whole[key]) for key, value in part.items())
    if isinstance(part, list) and isinstance(whole, list):
        return len(part) <= len(whole) and all(map(is_part, part, whole))
    return part == whole


def _written(text: str, suffix: str) -> str:
    """The name of the file that a block is, once it is written; empty if it is none."""
    named = re.match(rf"# (\w+\.{suffix})\n", text)
    if named is None:
        return ""
    Path(named[1]).write_text(text, encoding="utf-8")
    return named[1]


def _apart(line: str, column: int) -> tuple[str, str]:
    """A line's code, with the space behind it, and its comment. `column` counts the bytes of the code."""
    code = line.encode()[:column].decode()
    rest = line[len(code) :]
    return line[: len(line) - len(rest.lstrip())], rest.strip()


def _steps(tree: object) -> Iterator[str]:
    """The commands in a workflow."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from value.splitlines() if key in ("run", "entry") else _steps(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _steps(value)
