"""How far something has come that takes its time: shown to a person who is looking, in a notebook or on a terminal.

A script sees nothing of it. The command line shows it on a terminal by `on_terminal`; a notebook's kernel is known by
itself. What is shown is taken away when it is done.
"""

from __future__ import annotations

import html
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib import import_module

Advance = Callable[[str], None]
"""Called before each step, with what it is."""

_terminal: ContextVar[bool] = ContextVar("terminal", default=False)


@contextmanager
def on_terminal() -> Iterator[None]:
    """Within, progress is shown on stderr, if that is a terminal."""
    token = _terminal.set(sys.stderr is not None and sys.stderr.isatty())
    try:
        yield
    finally:
        _terminal.reset(token)


@contextmanager
def progress(what: str, steps: int) -> Iterator[Advance]:
    """Show how many of the steps are done while the context is open.

    >>> with progress("measuring", 2) as advance:
    ...     advance("image 1")
    """
    if _in_notebook():
        shown = _notebook(what, steps)
    elif _terminal.get():
        shown = _bar(what, steps)
    else:
        shown = _nothing()
    with shown as advance:
        yield advance


@contextmanager
def _nothing() -> Iterator[Advance]:
    yield lambda step: None


def _in_notebook() -> bool:
    """Whether a Jupyter kernel runs this; IPython on a terminal has none."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None


@contextmanager
def _notebook(what: str, steps: int) -> Iterator[Advance]:
    """The browser's own progress bar, in a display that is made at the first step and emptied in the end: it needs no
    widgets.
    """
    handle, done = import_module("IPython.display").DisplayHandle(), 0

    def advance(step: str) -> None:
        nonlocal done
        text = f"{what}: {step}"
        bar = f'<progress value="{done}" max="{steps}"></progress> {html.escape(text)}'
        show = handle.update if done else handle.display
        show({"text/html": bar, "text/plain": text}, raw=True)
        done += 1

    try:
        yield advance
    finally:
        if done:
            handle.update({"text/html": "", "text/plain": ""}, raw=True)


@contextmanager
def _bar(what: str, steps: int) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (TextColumn(what), BarColumn(), TextColumn("{task.fields[step]}", markup=False))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=steps, step="")

        def advance(step: str) -> None:
            bar.update(task, step=step, advance=1)

        yield advance
