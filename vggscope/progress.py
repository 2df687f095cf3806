"""Progress bars, in notebooks and on terminals; scripts show none.

A Jupyter kernel is detected, and the command line turns them on for terminals with `on_terminal`. A bar disappears when
its work is done.
"""

from __future__ import annotations

import html
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib import import_module

MANY = 20
"""Of as many steps or more, a bar on a terminal shows the time that remains."""

Advance = Callable[[str], None]
"""Called before each step, with its name."""

_terminal: ContextVar[bool] = ContextVar("terminal", default=False)


@contextmanager
def on_terminal() -> Iterator[None]:
    """Show progress on stderr within the context, if stderr is a terminal."""
    token = _terminal.set(sys.stderr is not None and sys.stderr.isatty())
    try:
        yield
    finally:
        _terminal.reset(token)


@contextmanager
def progress(what: str, steps: int) -> Iterator[Advance]:
    """Show how many of the steps are done, until the context ends.

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
    """Whether this process is a Jupyter kernel; IPython on a terminal is none."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None


@contextmanager
def _notebook(what: str, steps: int) -> Iterator[Advance]:
    """Show the browser's progress bar, which needs no widgets, in a display that is emptied at the end."""
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
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn

    columns: list[ProgressColumn] = [TextColumn(what), BarColumn(), MofNCompleteColumn()]
    if steps >= MANY:
        columns.append(TimeRemainingColumn(compact=True))
    columns.append(TextColumn("{task.fields[step]}", markup=False))
    # The bar keeps its stream where code below redirects stderr, and leaves stdout, which may be a file, alone.
    console = Console(file=sys.stderr)
    with Progress(*columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False) as bar:
        task = bar.add_task(what, total=steps, step="")

        def advance(step: str) -> None:
            bar.update(task, step=step, advance=1)

        yield advance
