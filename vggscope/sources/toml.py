"""A column from the user's own file: a TOML table `[columns]` of NAME = "notation"."""

from __future__ import annotations

import os
import sys

from vggscope.errors import ModelError, nearest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


LARGEST = 10**6
"""Bytes: a file of columns has a few thousand."""


def read_column(path: str, name: str) -> str:
    """The notation under `name` in the file's `[columns]`.

    Raises ModelError where the file cannot be read, is no TOML, or has no such column (naming those that it has).
    """
    columns = _columns(path)
    if name not in columns:
        near = nearest(name, columns)
        raise ModelError(f"{path} has no column {name!r}{near}", f"it has {', '.join(columns) or 'none'}")
    return columns[name]


def column_names(path: str) -> tuple[str, ...]:
    """The names in the file's `[columns]`; raises as `read_column`."""
    return tuple(_columns(path))


def _columns(path: str) -> dict[str, str]:
    if os.path.exists(path) and not (os.path.isfile(path) and os.path.getsize(path) <= LARGEST):
        raise ModelError(
            f"{path} is no file of columns", f"a pipe, a device or more than {LARGEST:,} bytes is not read"
        )
    try:
        with open(path, "rb") as file:
            columns = tomllib.load(file).get("columns")
    except OSError as error:
        from vggscope.files import near_file

        near = near_file(path) if isinstance(error, FileNotFoundError) else ""
        raise ModelError(f"cannot read {path}: {error.strerror}{near}", "write the word as columns.toml:NAME") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"{path} is not TOML: {error}") from None
    except RecursionError:
        raise ModelError(f"{path} is nested too deeply", 'write: [columns], then NAME = "conv3-64 FC-10"') from None
    if not isinstance(columns, dict) or not all(isinstance(line, str) for line in columns.values()):
        raise ModelError(
            f"{path} has no table [columns] of notation", 'write: [columns], then NAME = "conv3-64 maxpool FC-10"'
        )
    return columns
