"""The result of `vggscope.report`."""

from __future__ import annotations

import html
import os

from vggscope.errors import visible
from vggscope.files import write_file
from vggscope.record import record
from vggscope.units import bytes_text

HEIGHT = 720
"""The height in pixels of the frame in which a notebook shows a page; the page scrolls in it."""


@record
class Page:
    """A page about one model or several. `html` is the whole page, a file that needs no other."""

    title: str
    html: str

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the page, whole or not at all. Raises OutputError if the file cannot be written.

        >>> import tempfile, pathlib
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Page("D", "<!doctype html>").save(path := pathlib.Path(folder, "x.html"))
        ...     path.read_text()
        '<!doctype html>'
        """
        write_file(os.fspath(path), self.html.encode())

    def __repr__(self) -> str:
        return f"<Page about {visible(self.title)}, {bytes_text(len(self.html.encode()))}>"

    def _repr_html_(self) -> str:
        """Return the page in a frame, whose script can reach nothing outside of it."""
        return (
            f'<iframe title="{html.escape(visible(self.title))}" sandbox="allow-scripts allow-downloads"'
            f' style="width:100%;height:{HEIGHT}px;border:0" srcdoc="{html.escape(self.html)}"></iframe>'
        )
