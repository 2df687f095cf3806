"""The code in a TorchScript archive, parsed as the Python that it is printed as, within bounds. It is never run."""

from __future__ import annotations

import ast
import re
import zipfile

from vggscope.checkpoint.formats.bounded_file import BoundedFile
from vggscope.checkpoint.formats.script_tree import script_text
from vggscope.errors import CheckpointError, printable

LONGEST_STATEMENT = 20_000
"""Characters of a statement. In torchvision's models the longest has a thousand."""

LARGEST_PARSED = 3 * 2**20
"""Characters of all files that are parsed."""

MOST_TOKENS = 60_000
"""Names, numbers and signs of one file: a syntax tree takes about 300 bytes for each."""

_STRING = re.compile(r'"(?:[^"\\\n]|\\.)*"')

_TOKEN = re.compile(r"\w+|[^\w\s]")

Definition = ast.FunctionDef | ast.ClassDef


class ScriptCode:
    """The classes and functions of an archive, each file parsed when the first of them is asked for."""

    def __init__(self, file: BoundedFile, archive: zipfile.ZipFile, folder: str) -> None:
        self._file, self._archive, self._folder = file, archive, folder
        self._files: dict[str, dict[str, Definition]] = {}
        self._methods: dict[str, dict[str, ast.FunctionDef]] = {}
        self._parsed = 0

    def text_of(self, kind: str) -> str:
        """The text of the file in which a class is; empty if there is none."""
        info = self._archive.NameToInfo.get(self._member(kind.rpartition(".")[0]))
        return "" if info is None else script_text(self._file, self._archive, info)

    def _member(self, place: str) -> str:
        return f"{self._folder}code/{place.replace('.', '/')}.py"

    def function(self, name: str) -> ast.FunctionDef | None:
        """The function of a dotted name such as `__torch__.torch.nn.functional.relu`."""
        found = self._definition(name)
        return found if isinstance(found, ast.FunctionDef) else None

    def method(self, kind: str, name: str) -> ast.FunctionDef | None:
        """The method of a class."""
        if kind not in self._methods:
            found = self._definition(kind)
            body = found.body if isinstance(found, ast.ClassDef) else []
            self._methods[kind] = {part.name: part for part in body if isinstance(part, ast.FunctionDef)}
        return self._methods[kind].get(name)

    def constant(self, kind: str, name: str) -> ast.expr | None:
        """The value of an attribute that the text of a class gives: `stride : Final[int] = 2`."""
        found = self._definition(kind)
        for part in found.body if isinstance(found, ast.ClassDef) else ():
            if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name) and part.target.id == name:
                return part.value
        return None

    def fields(self, kind: str) -> list[str]:
        """The fields of a NamedTuple; empty for any other class."""
        found = self._definition(kind)
        bases = (
            [base.id for base in found.bases if isinstance(base, ast.Name)] if isinstance(found, ast.ClassDef) else []
        )
        if not isinstance(found, ast.ClassDef) or bases != ["NamedTuple"]:
            return []
        targets = [part.target for part in found.body if isinstance(part, ast.AnnAssign)]
        return [target.id for target in targets if isinstance(target, ast.Name)]

    def _definition(self, name: str) -> Definition | None:
        place, _, own = name.rpartition(".")
        if place not in self._files:
            self._files[place] = self._read(self._member(place))
        return self._files[place].get(own)

    def _read(self, member: str) -> dict[str, Definition]:
        info = self._archive.NameToInfo.get(member)
        if info is None:
            return {}
        text = script_text(self._file, self._archive, info)
        self._parsed += len(text)
        if self._parsed > LARGEST_PARSED:
            raise CheckpointError("its code is larger than that of any model")
        body = parsed(text, member)
        return {part.name: part for part in body if isinstance(part, (ast.FunctionDef, ast.ClassDef))}


def parsed(text: str, member: str) -> list[ast.stmt]:
    """The statements of a file.

    Raises CheckpointError where it is not what TorchScript prints: a very long statement, or one that is no Python.
    """
    shown = printable(member, 80)
    plain = _STRING.sub('""', text)
    if "'" in plain or "\\" in plain or '"""' in plain or len(_TOKEN.findall(plain)) > MOST_TOKENS:
        raise CheckpointError(f"its {shown} is not as TorchScript prints code, or larger than any", "is it damaged?")
    depth = length = 0
    for line in plain.split("\n"):
        depth += sum(map(line.count, "([{")) - sum(map(line.count, ")]}"))
        length += len(line)
        if length > LONGEST_STATEMENT:
            raise CheckpointError(f"its {shown} has a statement of more than {LONGEST_STATEMENT} characters")
        length = length if depth > 0 else 0
    try:
        return ast.parse(text).body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise CheckpointError(f"its {shown} is not valid code", "copy or download it again") from None
