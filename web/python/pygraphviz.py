"""The two calls of pygraphviz that vggscope makes, answered by Graphviz compiled to WebAssembly.

The page's worker sets `render`, a function of the DOT source and a format.
"""

from collections.abc import Callable


def _not_loaded(source: str, form: str) -> str:
    raise RuntimeError("Graphviz is not loaded yet")


render: Callable[[str, str], str] = _not_loaded

__graphviz_version__ = ""


class AGraph:
    """A graph in DOT, as pygraphviz takes it."""

    def __init__(self, string: str) -> None:
        self._source = string

    def draw(self, format: str, prog: str) -> bytes:
        """Return the graph, laid out by `dot`, in one of Graphviz's formats."""
        return render(self._source, format).encode()

    def close(self) -> None:
        """Nothing is held."""
