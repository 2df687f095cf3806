"""What is being done: progress on terminals and in notebooks, and records of the logger `vggscope`.

`step` names a piece of work. On a terminal, a line on stderr shows the one that is being done, once a second has
passed. `progress` is work in a known number of steps: a bar, in notebooks too. The command line turns both on for
terminals with `on_terminal`; scripts show none. What is shown disappears when the work is done.

Both log: at DEBUG when a piece of work begins, at INFO with its seconds when it has ended.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from importlib import import_module
from threading import Event, Lock, Thread
from time import perf_counter
from typing import TextIO

from vggscope.errors import printable

MANY = 20
"""Of as many steps or more, a bar on a terminal shows the time that remains."""

Advance = Callable[[str], None]
"""Called before each step, with its name."""

LOGGER = "vggscope"
"""The name of the logger."""

DELAY = 1.0
"""Seconds that work takes before a terminal shows it."""

INTERVAL = 0.2
"""Seconds between two looks at what is being done."""


class _Line:
    """The line on a terminal that shows the innermost step, while there is one and no bar is shown.

    A thread writes it, since the steps do not return to us. It is started with the first step.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._steps: list[tuple[str, float]] = []
        self._lock = Lock()
        self._ended = Event()
        self._is_started = False
        self._shown = 0
        self._bars = 0

    def begin(self, what: str) -> None:
        """Note that a step begins."""
        with self._lock:
            self._steps.append((what, perf_counter()))
        if not self._is_started:
            self._is_started = True
            Thread(target=self._work, daemon=True).start()

    def end(self) -> None:
        """Note that the innermost step has ended."""
        with self._lock:
            self._steps.pop()
            if not self._steps:
                self._clear()

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """Leave the terminal to a bar within the context."""
        with self._lock:
            self._bars += 1
            self._clear()
        try:
            yield
        finally:
            with self._lock:
                self._bars -= 1

    def close(self) -> None:
        """Take the line away, for good."""
        self._ended.set()
        with self._lock:
            self._clear()

    def _work(self) -> None:
        while not self._ended.wait(INTERVAL):
            with self._lock, suppress(OSError, ValueError):
                if self._steps and not self._bars and not self._ended.is_set():
                    self._show()

    def _show(self) -> None:
        now, (what, begun) = perf_counter(), self._steps[-1]
        if now - self._steps[0][1] < DELAY:
            return
        seconds = f" {now - begun:.0f} s" if now - begun >= DELAY else ""
        text = f"{printable(what)[: max(_width(self._stream) - 12, 8)]} ...{seconds}"
        self._write(f"\r{text.ljust(self._shown)}", len(text))

    def _clear(self) -> None:
        if self._shown:
            with suppress(OSError, ValueError):
                self._write(f"\r{' ' * self._shown}\r", 0)

    def _write(self, text: str, shown: int) -> None:
        encoding = self._stream.encoding or "ascii"
        self._stream.write(text.encode(encoding, "replace").decode(encoding))
        self._stream.flush()
        self._shown = shown


def _width(stream: TextIO) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


_line: ContextVar[_Line | None] = ContextVar("line", default=None)
"""Where a terminal shows what is being done; None elsewhere."""


@contextmanager
def on_terminal() -> Iterator[None]:
    """Show progress on stderr within the context, if stderr is a terminal."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield
        return
    line = _Line(sys.stderr)
    token = _line.set(line)
    try:
        yield
    finally:
        _line.reset(token)
        line.close()


@contextmanager
def nowhere() -> Iterator[None]:
    """Show no progress within the context: the terminal shows results as they are computed."""
    token = _line.set(None)
    try:
        yield
    finally:
        _line.reset(token)


@contextmanager
def step(what: str) -> Iterator[None]:
    """Show, and log, that a piece of work is being done until the context ends.

    >>> with step("measuring"):
    ...     pass
    """
    line, begun = _line.get(), perf_counter()
    _log("DEBUG", what)
    if line is not None:
        line.begin(what)
    try:
        yield
    finally:
        if line is not None:
            line.end()
        _log("INFO", f"{what}: {perf_counter() - begun:.3f} s")


def remark(text: str) -> None:
    """Log a line at INFO."""
    _log("INFO", text)


def _log(level: str, text: str) -> None:
    """Log a line. Where nobody has imported logging, nobody reads it.

    `suppress_output` disables the loggers of other packages: ours goes on.
    """
    logging = sys.modules.get("logging")
    if logging is None:
        return
    logger, number = logging.getLogger(LOGGER), getattr(logging, level)
    if number >= logger.getEffectiveLevel():
        logger.handle(logger.makeRecord(LOGGER, number, "", 0, printable(text, 200), (), None))


@contextmanager
def progress(what: str, steps: int) -> Iterator[Advance]:
    """Show how many of the steps are done, until the context ends.

    >>> with progress("measuring", 2) as advance:
    ...     advance("image 1")
    """
    line = _line.get()
    if _in_notebook():
        shown = _notebook(what, steps)
    elif line is not None:
        shown = _bar(what, steps, line)
    else:
        shown = _nothing()
    begun = perf_counter()
    with shown as advance:

        def advance_and_log(name: str) -> None:
            _log("DEBUG", f"{what}: {name}")
            advance(name)

        yield advance_and_log
    _log("INFO", f"{what}: {perf_counter() - begun:.3f} s")


@contextmanager
def _nothing() -> Iterator[Advance]:
    yield lambda name: None


def _in_notebook() -> bool:
    """Whether this process is a Jupyter kernel; IPython on a terminal is none."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None


@contextmanager
def _notebook(what: str, steps: int) -> Iterator[Advance]:
    """Show the browser's progress bar, which needs no widgets, in a display that is emptied at the end."""
    from html import escape

    handle, done = import_module("IPython.display").DisplayHandle(), 0

    def advance(name: str) -> None:
        nonlocal done
        text = f"{what}: {name}"
        bar = f'<progress value="{done}" max="{steps}"></progress> {escape(text)}'
        show = handle.update if done else handle.display
        show({"text/html": bar, "text/plain": text}, raw=True)
        done += 1

    try:
        yield advance
    finally:
        if done:
            handle.update({"text/html": "", "text/plain": ""}, raw=True)


@contextmanager
def _bar(what: str, steps: int, line: _Line) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn

    columns: list[ProgressColumn] = [TextColumn(what), BarColumn(), MofNCompleteColumn()]
    if steps >= MANY:
        columns.append(TimeRemainingColumn(compact=True))
    columns.append(TextColumn("{task.fields[step]}", markup=False))
    # The bar keeps its stream where code below redirects stderr, and leaves stdout, which may be a file, alone.
    # A terminal echoes Ctrl-C at the cursor: where that wrapped, the bar would stay on the line above.
    console = Console(file=sys.stderr, width=max(Console(file=sys.stderr).width - len("^C^C"), 20))
    bar = Progress(*columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False)
    with line.hidden(), bar:
        task = bar.add_task(what, total=steps, step="")

        def advance(name: str) -> None:
            bar.update(task, step=name, advance=1)

        yield advance
