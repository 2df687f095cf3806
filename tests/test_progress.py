"""What is being done, as terminals, logs and Python show it."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from threading import Event

import pytest

import vggscope
from vggscope import progress
from vggscope.cli.app import run
from vggscope.suppress import suppress_output


class Terminal(io.StringIO):
    """A stream that says it is a terminal. `drawn` is set when something is written."""

    def __init__(self) -> None:
        super().__init__()
        self.drawn = Event()

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        written = super().write(text)
        self.drawn.set()
        return written

    @property
    def screen(self) -> str:
        """The line as it stands: a text after a carriage return covers what was there."""
        shown = ""
        for part in self.getvalue().split("\r"):
            shown = part + shown[len(part) :]
        return shown.rstrip()


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A terminal, which shows at once what is being done."""
    monkeypatch.setattr(progress, "DELAY", 0.0)
    monkeypatch.setattr(progress, "INTERVAL", 0.001)
    return Terminal()


@contextmanager
def on(terminal: Terminal) -> Iterator[None]:
    """Have it as stderr. pytest sets its own between a fixture and a test."""
    with redirect_stderr(terminal), progress.on_terminal():
        yield


@pytest.fixture
def records() -> Iterator[list[logging.LogRecord]]:
    """What the logger has, at any level."""
    found: list[logging.LogRecord] = []
    handler, logger = logging.Handler(), logging.getLogger("vggscope")
    handler.emit = found.append  # type: ignore[assignment]
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield found
    logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)


def shows(terminal: Terminal, text: str) -> bool:
    """Whether the line comes to show a text. It is waited for, since a thread writes it."""
    for _ in range(1000):
        terminal.drawn.wait(5)
        terminal.drawn.clear()
        if text in terminal.screen:
            return True
    return False


def test_a_terminal_shows_the_innermost_step_and_in_the_end_nothing(terminal: Terminal) -> None:
    with on(terminal), progress.step("reading resnet18"):
        assert shows(terminal, "reading resnet18 ...")
        with progress.step("running"):
            assert shows(terminal, "running ...")
            assert "resnet18" not in terminal.screen
        assert shows(terminal, "reading resnet18 ...")
    assert terminal.screen == ""


def test_a_bar_takes_the_place_of_the_line(terminal: Terminal) -> None:
    with on(terminal), progress.step("measuring a model"):
        assert shows(terminal, "measuring a model ...")
        with progress.progress("sampling", 2) as advance:
            written = terminal.getvalue()
            advance("image 1")
            with progress.step("running"):
                assert "sampling" in terminal.getvalue()[len(written) - 200 :]
                assert not shows_within(terminal, "running ...")
        assert shows(terminal, "measuring a model ...")


def shows_within(terminal: Terminal, text: str, looks: int = 20) -> bool:
    """Whether a text is written while a thread has had that many intervals."""
    Event().wait(looks * progress.INTERVAL)
    return text in terminal.getvalue()


def test_a_name_cannot_draw_on_the_terminal(terminal: Terminal) -> None:
    with on(terminal), progress.step("reading \x1b[2Jnet.py\n" + "x" * 500):
        assert shows(terminal, "reading \\x1b[2Jnet.py\\n")
    assert max(map(len, terminal.getvalue().split("\r"))) < 80


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_error_takes_the_line_away(terminal: Terminal, error: type[BaseException]) -> None:
    def fails() -> None:
        with on(terminal), progress.step("reading"):
            assert shows(terminal, "reading ...")
            raise error

    with pytest.raises(error):
        fails()
    assert terminal.screen == ""


def test_nothing_is_shown_in_a_pipe_or_beside_lines(terminal: Terminal, capsys: pytest.CaptureFixture[str]) -> None:
    with on(terminal), progress.nowhere(), progress.step("reading"):
        assert not shows_within(terminal, "reading")
    assert run(["summary", "D"]) == 0
    assert capsys.readouterr().err == ""


def test_verbose_says_what_is_done_and_leaves_the_rest_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["diff", "C", "D"]) == 1
    quiet = capsys.readouterr()
    for words in (["-v", "diff", "C", "D"], ["diff", "C", "D", "--verbose"]):
        assert run(words) == 1
        out, err = capsys.readouterr()
        assert out == quiet.out
        done = re.findall(r"^vggscope: (.*): \d+\.\d{3} s$", err, re.MULTILINE)
        assert done == ["reading C", "reading D", "comparing C with D", "writing table"]
    assert quiet.err == ""
    assert run(["diff", "C", "D"]) == 1
    assert capsys.readouterr().err == ""


def test_python_has_the_steps_by_the_logger(records: list[logging.LogRecord]) -> None:
    from torch import nn

    class Net(nn.Sequential):
        pass

    vggscope.summary(Net(nn.Conv2d(3, 8, 3)), (3, 8, 8))
    said = [(record.levelname, re.sub(r": \d+\.\d+ s$", "", record.getMessage())) for record in records]
    assert said[:2] == [("DEBUG", "running Net"), ("INFO", "running Net")]
    assert said[-1] == ("INFO", "adding up Net")
    assert {record.name for record in records} == {"vggscope"}


def test_a_name_in_the_log_is_text_and_nothing_more(records: list[logging.LogRecord]) -> None:
    with progress.step("reading \x1b[31m\udcff.pth"):
        pass
    assert records[0].getMessage() == r"reading \x1b[31m\udcff.pth"


def test_what_is_suppressed_of_other_tools_does_not_suppress_ours(records: list[logging.LogRecord]) -> None:
    with suppress_output(), progress.step("reading a library's model"):
        logging.getLogger("other").critical("dropped")
    assert len(records) == 2


def test_an_interrupted_command_ends_with_130_and_says_nothing(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vggscope.errors import Stopped

    def stops(*_: object, **__: object) -> None:
        with progress.step("reading"):
            assert shows(terminal, "reading ...")
            raise Stopped(2)

    monkeypatch.setattr("vggscope.api.summary", stops)
    with redirect_stderr(terminal):
        assert run(["summary", "D"]) == 130
    assert terminal.screen == ""
