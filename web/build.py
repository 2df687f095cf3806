"""Make the site: `make web`, or `python web/build.py` after `npm ci` in this folder. It is written to web/_site.

The site holds everything that it loads: Python and Graphviz as WebAssembly from npm, this tree's vggscope with the pure
Python packages that it imports there, and the architectures of torchvision's classifiers as `vggscope lock` writes
them. See docs/web.md.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import io
import json
import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import vggscope
from vggscope.explorer import script
from vggscope.render.html.policy import source_hash
from vggscope.sources import libraries

HERE = Path(__file__).parent
SITE = HERE / "_site"
MODULES = HERE / "node_modules"

PYODIDE = ("pyodide.mjs", "pyodide.asm.mjs", "pyodide.asm.wasm", "python_stdlib.zip")
"""The files of Python as WebAssembly."""

PACKAGES = ("vggscope", "typing_extensions", "jinja2", "markupsafe", "platformdirs")
"""The packages of the site. markupsafe has a part in C, and does the same without it."""

DATE = (1980, 1, 1, 0, 0, 0)
"""The time of every file in an archive, so that the same tree gives the same site."""


def build() -> None:
    """Write the site whole: into a folder of its own, which then takes the place of the old one."""
    with tempfile.TemporaryDirectory(dir=HERE, prefix="_site-") as folder:
        site = Path(folder) / "site"
        site.mkdir()
        _copy_packages(site)
        (site / "python.zip").write_bytes(_zipped(sorted(_sources())))
        (site / "references.zip").write_bytes(_zipped(sorted(_references())))
        _copy_page(site)
        shutil.rmtree(SITE, ignore_errors=True)
        site.rename(SITE)
    sizes = [len(gzip.compress(path.read_bytes())) for path in SITE.iterdir()]
    print(f"wrote {SITE}: a first visit transfers {sum(sizes) / 1e6:.1f} MB, compressed")


def _copy_packages(site: Path) -> None:
    for name in PYODIDE:
        shutil.copy(MODULES / "pyodide" / name, site / name)
    # The list of packages names where others than these could be loaded from.
    lock = json.loads((MODULES / "pyodide" / "pyodide-lock.json").read_text(encoding="utf-8"))
    (site / "pyodide-lock.json").write_text(json.dumps({**lock, "packages": {}}), encoding="utf-8")
    shutil.copy(MODULES / "@viz-js/viz/dist/viz.js", site / "viz.mjs")


def _sources() -> Iterator[tuple[str, bytes]]:
    for path in (HERE / "python").glob("*.py"):
        yield path.name, path.read_bytes()
    for package in PACKAGES:
        spec = importlib.util.find_spec(package)
        assert spec is not None
        origin = Path(spec.origin or "")
        is_folder = origin.name == "__init__.py"
        root = origin.parent.parent if is_folder else origin.parent
        for path in origin.parent.rglob("*") if is_folder else (origin,):
            if path.is_file() and path.suffix not in (".pyc", ".so", ".pyd", ".c", ".pyi"):
                yield path.relative_to(root).as_posix(), path.read_bytes()


def _references() -> Iterator[tuple[str, bytes]]:
    """The locks of torchvision's classifiers."""
    for name in libraries.names("torchvision"):
        if not libraries.task(name):
            yield f"torchvision/{name}.json", vggscope.lock(f"torchvision:{name}").json_text.encode()


def _copy_page(site: Path) -> None:
    """Write the page, with what it may load and run, and the service worker, with the files that it keeps."""
    tokens = Path(vggscope.__file__).parent / "explorer/css/tokens.css"
    for path in (*(HERE / "page").iterdir(), tokens):
        shutil.copy(path, site)
    files = sorted(path.name for path in site.iterdir() if path.name != "service-worker.js")
    digest = hashlib.sha256(b"".join(hashlib.sha256((site / name).read_bytes()).digest() for name in files))
    version = digest.hexdigest()[:16]
    _fill(site / "index.html", {"EXPLORER": source_hash(script()), "VERSION": version})
    _fill(site / "service-worker.js", {"VERSION": version, "FILES": json.dumps(files)})


def _fill(path: Path, values: dict[str, str]) -> None:
    """Replace the places `{{NAME}}` of a file."""
    text = path.read_text(encoding="utf-8")
    path.write_text(re.sub(r"\{\{(\w+)\}\}", lambda match: values[match[1]], text), encoding="utf-8")


def _zipped(files: list[tuple[str, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, data in files:
            archive.writestr(zipfile.ZipInfo(name, DATE), data, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


if __name__ == "__main__":
    build()
