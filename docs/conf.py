"""The documentation as a site: `make docs` builds it into docs/_build/html, a warning is an error."""

from __future__ import annotations

import builtins
import re
import sys
from pathlib import Path
from typing import Any

from sphinx.addnodes import pending_xref

from vggscope._version import __version__

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from reference import commands, results, type_names  # noqa: E402
from tour import tour  # noqa: E402

project = "vggscope"
author = "The vggscope authors"
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
source_suffix = {".md": "markdown"}
myst_heading_anchors = 3

html_theme = "furo"
html_title = f"vggscope {__version__}"
html_show_copyright = False
html_static_path = ["static"]
html_css_files = ["site.css"]

add_module_names = False
default_role = "code"
"""What stands in single backticks in a docstring is code."""

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
NAMES = {
    **type_names(),
    "Model": "vggscope.api.Model",
    "InputSizes": "vggscope.api.InputSizes",
    "Network": "vggscope.graph.Network",
    "Shape": "vggscope.ops.base.Shape",
    "PictureOptions": "vggscope.choices.PictureOptions",
    "SaveOptions": "vggscope.choices.SaveOptions",
}
"""Where the names lead that signatures have for short."""

# A name in a signature leads to what it names, or the build fails. Other people's names would lead to their sites:
# their inventories are on the network, where no build goes. Private base classes have no page.
nitpick_ignore_regex = [
    ("py:.*", r"(collections\.abc|os|torch|nn|types)\..*|Unpack|DataFrame|\w+Rule|(.*\.)?Row|vggscope\..*\._\w+")
]

ROOT_PAGES = {"CONTRIBUTING.md": "contributing.md", "SECURITY.md": "security.md", "CHANGELOG.md": "changes.md"}
"""Pages of the repository that the site has as well."""

SITE_PAGES = {
    **ROOT_PAGES,
    "man/vggscope.1": "cli.md",
    "vggscope/__init__.py": "results.md",
    "notebook.ipynb": "notebook.md",
}
"""Where a link to a file of the repository leads in the site, which has a page about the same."""

WRITTEN = "<!-- written by conf.py whenever the site is built -->\n"


def _write_pages() -> None:
    """The pages that are made of the program and of the repository."""
    (HERE / "cli.md").write_text(commands(), encoding="utf-8")
    (HERE / "results.md").write_text(results(), encoding="utf-8")
    (HERE / "notebook.md").write_text(tour(), encoding="utf-8")
    for source, target in ROOT_PAGES.items():
        text = (HERE.parent / source).read_text(encoding="utf-8")
        (HERE / target).write_text(WRITTEN + _moved(text.replace("](docs/", "](")), encoding="utf-8")


def _moved(text: str) -> str:
    """A page whose links to files of the repository lead to SITE_PAGES."""
    return re.sub(
        r"\]\((?:\.\./)?([\w./]+)",
        lambda found: f"]({SITE_PAGES[found[1]]}" if found[1] in SITE_PAGES else found[0],
        text,
    )


def _read(app: Any, docname: str, source: list[str]) -> None:
    if docname != "notebook":  # which has the link to its own file
        source[0] = _moved(source[0])


def _resolve(app: Any, env: Any, node: Any, words: Any) -> Any:
    """What a short name in a signature leads to; None if it is none of NAMES."""
    full = NAMES.get(node.get("reftarget", ""))
    if full is None or node["refdomain"] != "py":
        return None
    return env.get_domain("py").resolve_xref(env, node["refdoc"], app.builder, "class", full, node, words)


def _unlink_builtins(app: Any, doctree: Any) -> None:
    """The type bytes is not the field bytes of some class."""
    for node in list(doctree.findall(pending_xref)):
        if node["refdomain"] == "py" and hasattr(builtins, node["reftarget"]):
            node.replace_self(node.children)


def _leave_out_init(app: Any, what: str, name: str, obj: object, options: Any, signature: str, returns: str) -> Any:
    """Results are given, not made: their fields stand below."""
    return ("", None) if what == "class" else None


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("source-read", _read)
    app.connect("missing-reference", _resolve)
    app.connect("doctree-read", _unlink_builtins)
    app.connect("autodoc-process-signature", _leave_out_init)


_write_pages()
