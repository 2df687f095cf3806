"""Columns in the user's own TOML file: a table `[columns]` of NAME = "notation"."""

from __future__ import annotations

import os
import sys

from vggscope.errors import ModelError, nearest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


LARGEST = 10**6
"""The largest file in bytes; a file of columns has a few thousand."""

EXAMPLE = 'NAME = "conv3-64 maxpool FC-10"'


def read_config(path: str, name: str) -> str:
    """The notation under `name` in the file's `[columns]`.

    Raises ModelError where the file cannot be read, is not TOML, or has no such column.
    """
    columns = _columns(path)
    if not name:
        first = next(iter(columns), "NAME")
        raise ModelError(f"{path} holds columns: {', '.join(columns) or 'none'}", f"name one, as in {path}:{first}")
    if name not in columns:
        near = nearest(name, columns)
        raise ModelError(f"{path} has no column {name!r}{near}", f"it has {', '.join(columns) or 'none'}")
    line = columns[name]
    if not isinstance(line, str):
        raise ModelError(f"column {name!r} of {path} is not text", f"write: {EXAMPLE}")
    return line


def config_names(path: str) -> tuple[str, ...]:
    """The names in the file's `[columns]`; raises as `read_config` does."""
    return tuple(name for name, line in _columns(path).items() if isinstance(line, str))


def _columns(path: str) -> dict[str, object]:
    if os.path.exists(path) and not (os.path.isfile(path) and os.path.getsize(path) <= LARGEST):
        raise ModelError(
            f"{path} is not a file of columns", f"a pipe, a device or more than {LARGEST:,} bytes is not read"
        )
    try:
        with open(path, "rb") as file:
            columns = tomllib.load(file).get("columns")
    except OSError as error:
        from vggscope.files import near_file

        near = near_file(path) if isinstance(error, FileNotFoundError) else ""
        raise ModelError(f"cannot read {path}: {error.strerror}{near}", "write the word as columns.toml:NAME") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"{path} is not TOML: {error}", f"write: [columns], then {EXAMPLE}") from None
    except RecursionError:
        raise ModelError(f"{path} is nested too deeply", f"write: [columns], then {EXAMPLE}") from None
    if not isinstance(columns, dict):
        raise ModelError(f"{path} has no table [columns] of notation", f"write: [columns], then {EXAMPLE}")
    return columns
