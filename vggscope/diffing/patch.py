"""The patch of the user's file after which two networks agree: a search among the candidates, and its text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from difflib import unified_diff
from os import fsencode
from os import path as os_path

from vggscope.diffing.candidates import candidates, direct_candidates
from vggscope.diffing.code_edits import CodeFile, Edit, source_text, without_overlap
from vggscope.diffing.result import Diff
from vggscope.diffing.user_code import Compared, UserCode, read_sources
from vggscope.errors import OptionError
from vggscope.graph import shown_path

MOST_RUNS = 20
"""How many candidates are tried for a patch: each traces the model again. The tested mistakes take 11 at most."""

MOST_DIRECT = 6
"""How many times all first candidates are applied, one after the other: a change of a width needs a second one."""

State = tuple[Compared, CodeFile]
"""A comparison with the text of our file."""


def mended_text(start: Compared, file: str, rerun: Callable[[Mapping[str, str]], Compared | None]) -> str | None:
    """The text of `file` after which the two networks agree; None if no candidate leads there.

    `rerun` compares the networks with files of these texts in place of their own. It returns None for code that does
    not run.
    """
    sources = read_sources(start[1])
    if file not in sources:
        return None
    return _Search(file, rerun).from_state(start, sources[file])


def without_edit(compared: Compared, file: str) -> str:
    """The message of the first difference for which no edit of the file is known; empty if there is one for each."""
    sources = read_sources(compared[1])
    code = UserCode(compared, {file: sources[file]} if file in sources else {})
    places = _counting(compared[0], "shape", "function")
    none = (place for place in places if next(candidates(code, place), None) is None)
    return next((compared[0].differences[place].message for place in none), "")


class _Search:
    """The search for a text of one file."""

    def __init__(self, file: str, rerun: Callable[[Mapping[str, str]], Compared | None]) -> None:
        self.file, self.rerun, self.runs = file, rerun, 0
        self.seen: set[str] = set()

    def from_state(self, compared: Compared, source: CodeFile) -> str | None:
        """The text after which the networks agree at evaluation, and in training as far as that can be reached."""
        while _counting(compared[0], "shape", "function"):
            mended = self._direct(compared, source, "shape", "function") or self._better(compared, source)
            if mended is None:
                return None
            compared, source = mended
        trained = self._direct(compared, source, "training_only")
        return source.text if trained is None else trained[1].text

    def _direct(self, compared: Compared, source: CodeFile, *effects: str) -> State | None:
        """The state after the first candidates of all differences, again and again, if no such effect is left then."""
        for _ in range(MOST_DIRECT):
            code = UserCode(compared, {self.file: source})
            firsts = (next(direct_candidates(code, place), None) for place in _counting(compared[0], *effects))
            edits = [edit for first in firsts if first is not None for edit in first.edits]
            state = self._run(source, without_overlap(edits))
            if state is None:
                return None
            compared, source = state
            if not _counting(compared[0], "shape", "function", *effects):
                return state
        return None

    def _better(self, compared: Compared, source: CodeFile) -> State | None:
        """The state after the first candidate of a single difference that leaves fewer of them."""
        code = UserCode(compared, {self.file: source})
        for place in _counting(compared[0], "shape", "function"):
            for edits in candidates(code, place):
                state = self._run(source, edits)
                if state is not None and _cost(state[0][0]) < _cost(compared[0]):
                    return state
        return None

    def _run(self, source: CodeFile, edits: Sequence[Edit]) -> State | None:
        """The comparison after edits; None for none, for a text that was tried, and for code that does not run."""
        if not edits or any(edit.file != self.file for edit in edits) or self.runs >= MOST_RUNS:
            return None
        try:
            changed = CodeFile(self.file, source.applied(edits))
        except (SyntaxError, ValueError):
            return None
        if changed.text in self.seen or changed.text == source.text:
            return None
        self.seen.add(changed.text)
        self.runs += 1
        compared = self.rerun({self.file: changed.text})
        return None if compared is None else (compared, changed)


def _counting(diff: Diff, *effects: str) -> list[int]:
    """The places of the differences with one of these effects."""
    return [i for i, difference in enumerate(diff.differences) if difference.effect in effects]


def _cost(diff: Diff) -> tuple[int, int, int]:
    """What is left to mend: whether it fails, rows that differ or are not reached, and differences."""
    counting = _counting(diff, "shape", "function")
    rows = sum(row.sign in "!?" or row.difference in counting for row in diff.rows)
    return rows, len(counting), int(diff.failure is not None)


def patch_text(file: str, text: str) -> str:
    """The unified patch from a file to a text, for `git apply` in the current folder; empty for the same text.

    Raises OptionError if the patch quotes a character that the file stores otherwise than a patch, which is UTF-8.
    """
    before, encoding = source_text(file)
    name = shown_path(file).replace(os_path.sep, "/").lstrip("/")
    names = _quoted(f"a/{name}"), _quoted(f"b/{name}")
    # A byte order mark is no part of the code, but of the first line.
    mark = "\ufeff" if encoding == "utf-8-sig" else ""
    patch = "".join(_with_line_ends(unified_diff(_lines(mark + before), _lines(mark + text), *names)))
    if not encoding.startswith("utf-8") and not patch.isascii():
        raise OptionError(f"{shown_path(file)} is encoded in {encoding}, a patch in UTF-8", "save the file as UTF-8")
    return patch


def _quoted(name: str) -> str:
    """A path as `git` writes it in a patch: in quotes with octal bytes, if it is no UTF-8 or has special characters."""
    is_text = not any("\ud800" <= character <= "\udfff" for character in name)
    if is_text and name.isprintable() and not set(name) & {'"', "\\"}:
        return name
    escaped = (
        f"\\{chr(byte)}" if byte in b'"\\' else chr(byte) if 32 <= byte < 127 else f"\\{byte:03o}"
        for byte in fsencode(name)
    )
    return f'"{"".join(escaped)}"'


def _lines(text: str) -> list[str]:
    """The lines with their ends. Other characters that Python takes for the end of a line are part of it."""
    return [f"{line}\n" for line in text.split("\n")[:-1]] + [line for line in text.split("\n")[-1:] if line]


def _with_line_ends(lines: Iterable[str]) -> Iterator[str]:
    """The lines of a patch; one without an end is marked as `git` marks it."""
    for line in lines:
        yield line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"
