"""Reads messages in protobuf's text format, as Caffe's `.prototxt` files hold them.

A schema names the fields that are kept, as `protobuf.ProtobufFile` uses it for the binary format: both give the same
message. The format: protobuf.dev/reference/protobuf/textformat-spec.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from vggscope.checkpoint.formats.protobuf import DEEPEST, LONGEST_TEXT, Message, Schema
from vggscope.errors import CheckpointError

LARGEST = 8 * 2**20
"""Bytes of one text. The longest published nets have a tenth of a MiB."""

MOST_TOKENS = 500_000
"""The most names, values, brackets, blanks and comments. A net of 1,000 layers has some 100,000."""

_TOKEN = re.compile(
    r"""
    (?P<space>\s+|\#[^\n]*)
  | (?P<text>"(?:[^"\\\n]|\\.){0,65000}"|'(?:[^'\\\n]|\\.){0,65000}')
  | (?P<number>[-+]?\s?(?:0[xX][0-9a-fA-F]+|(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)[fF]?)(?![\w.])
  | (?P<word>-?[A-Za-z_][\w.]*)
  | (?P<extension>\[[A-Za-z_][\w./]*\](?=\s*[:{<]))
  | (?P<mark>[:{}<>\[\],;])
    """,
    re.VERBOSE,
)

_ESCAPE = re.compile(r"\\([abfnrtv\\'\"?]|[0-7]{1,3}|x[0-9a-fA-F]{1,2}|.)", re.DOTALL)

_LETTERS = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}

_CLOSING = {"{": "}", "<": ">"}

_REMEDY = "it is damaged, or no text of protobuf"

_KINDS = {"int": "a whole number", "float": "a number", "text": "a text in quotes"}
"""What a field of each kind takes. The errors do not show what stands there: the file may be no net at all."""


class Token(NamedTuple):
    """A part of the text: `text`, `number`, `word`, `extension` or `mark`, with the number of its line."""

    kind: str
    value: str
    line: int


def parse(text: str, schema: Schema, enumerations: Mapping[str, Mapping[str, int]]) -> Message:
    """The message in a text, with the fields of a schema.

    `enumerations` has the numbers of the words that integer fields may have, by the field's key. Raises
    CheckpointError, with the line, for any other text.

    >>> from vggscope.checkpoint.formats.protobuf import Field
    >>> schema = {1: Field("name", "text"), 2: Field("dim", "int", repeated=True)}
    >>> parse('name: "VGG" dim: [1, 3] dim: 224 # the sides', schema, {})
    {'name': 'VGG', 'dim': [1, 3, 224]}
    """
    if len(text) > LARGEST:
        raise CheckpointError(f"it has {len(text):,} characters, at most {LARGEST:,} are read")
    return _Parser(_tokens(text), enumerations).message(schema, "", 0)


def _tokens(text: str) -> Iterator[Token]:
    place, line, count = 0, 1, 0
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            raise CheckpointError(f"line {line}: there is no word, number, text or mark", _REMEDY)
        kind = match.lastgroup or ""
        count += 1
        if count > MOST_TOKENS:
            raise CheckpointError("it holds more than any model's graph", "it is damaged or malicious")
        if kind != "space":
            yield Token(kind, match[0], line)
        line += match[0].count("\n")
        place = match.end()
    yield Token("end", "the end", line)


class _Parser:
    """Reads a message token by token, with one token ahead."""

    def __init__(self, tokens: Iterator[Token], enumerations: Mapping[str, Mapping[str, int]]) -> None:
        self._tokens = tokens
        self._enumerations = enumerations
        self._ahead = next(tokens)

    def _next(self) -> Token:
        token = self._ahead
        self._ahead = next(self._tokens, token)
        return token

    def _takes(self, *marks: str) -> bool:
        """Whether the next token is one of these marks; it is then passed."""
        is_taken = self._ahead.kind == "mark" and self._ahead.value in marks
        if is_taken:
            self._next()
        return is_taken

    def message(self, schema: Schema, closing: str, depth: int) -> Message:
        """The fields up to the closing mark, or to the end without one."""
        if depth > DEEPEST:
            raise CheckpointError("its messages are nested too deep", "it is damaged or malicious")
        by_name = {field.key: field for field in schema.values()}
        found: Message = {}
        while True:
            name = self._next()
            if name.kind == "end" and not closing:
                return found
            if name.kind == "mark" and name.value == closing:
                return found
            if name.kind not in ("word", "extension"):
                expected = f"{closing} or a field" if closing else "a field"
                raise CheckpointError(f"line {name.line}: {expected} is expected", _REMEDY)
            field = by_name.get(name.value)
            for value in self._values({} if field is None or isinstance(field.kind, str) else field.kind, depth):
                if field is None:
                    continue
                known = self._converted(name, field.kind, value)
                if field.repeated:
                    found.setdefault(field.key, []).append(known)
                else:
                    found[field.key] = known
            self._takes(",", ";")

    def _values(self, schema: Schema, depth: int) -> Iterator[Any]:
        """The values after a field's name: one, or those of a list."""
        has_colon = self._takes(":")
        if self._takes("["):
            while not self._takes("]"):
                yield self._value(schema, depth, has_colon)
                self._takes(",")
            return
        yield self._value(schema, depth, has_colon)

    def _value(self, schema: Schema, depth: int, has_colon: bool) -> Any:
        token = self._next()
        if token.kind == "mark" and token.value in _CLOSING:
            return self.message(schema, _CLOSING[token.value], depth + 1)
        if token.kind == "text" and has_colon:
            parts = [token.value]
            while self._ahead.kind == "text":
                parts.append(self._next().value)
            return _Text("".join(_unescaped(part[1:-1]) for part in parts)[:LONGEST_TEXT])
        if token.kind not in ("number", "word") or not has_colon:
            raise CheckpointError(f"line {token.line}: a value is expected", _REMEDY)
        return token

    def _converted(self, name: Token, kind: str | Schema, value: Any) -> Any:
        """A value as a field of the schema has it. Raises CheckpointError for one of another kind."""
        if isinstance(value, dict) and not isinstance(kind, str):
            return value
        if isinstance(value, _Text) and kind == "text":
            return str(value)
        known = None
        if isinstance(value, Token):
            known = _float(value) if kind == "float" else self._integer(name.value, value) if kind == "int" else None
        if known is None:
            what = _KINDS[kind] if isinstance(kind, str) else "a message"
            raise CheckpointError(f"line {name.line}: {name.value} takes {what}", _REMEDY)
        return known

    def _integer(self, field: str, token: Token) -> int | None:
        value = token.value.replace(" ", "")
        if token.kind == "word":
            own = self._enumerations.get(field, {}).get(value)
            return {"true": 1, "True": 1, "t": 1, "false": 0, "False": 0, "f": 0}.get(value) if own is None else own
        base = 16 if "x" in value.lower() else 8 if re.fullmatch(r"[-+]?0[0-7]+", value) else 10
        try:
            number = int(value, base) if len(value) <= 20 else None
        except ValueError:
            return None
        return number if number is not None and abs(number) < 2**63 else None


class _Text(str):
    """A quoted value."""

    __slots__ = ()


def _float(token: Token) -> float | None:
    """The number of a token; `inf` and `nan` are words.

    >>> _float(Token("number", "1.5f", 1)), _float(Token("word", "-inf", 1)), _float(Token("word", "MAX", 1))
    (1.5, -inf, None)
    """
    value = token.value.replace(" ", "").lower()
    if token.kind == "number" and "x" in value:
        return float(int(value, 16)) if len(value) <= 20 else None
    if token.kind == "word" and value.lstrip("-") not in ("inf", "infinity", "nan"):
        return None
    return float(value.rstrip("f") if token.kind == "number" else value)


def _unescaped(text: str) -> str:
    def character(match: re.Match[str]) -> str:
        code = match[1]
        if code[0] == "x" and len(code) > 1:
            return chr(int(code[1:], 16))
        return chr(int(code, 8) & 255) if code[0] in "01234567" else _LETTERS.get(code, code)

    return _ESCAPE.sub(character, text)
