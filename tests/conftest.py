"""What every test gets: no network, the same hypothesis examples on every run, its own cache, and the options
`--quick` (the loop of `make test`), `--update-golden` and `--update-reference`.
"""

from __future__ import annotations

import gc
import os
import shutil
import socket
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from tests.recorded import Recorded, write_all

if TYPE_CHECKING:
    from playwright.sync_api import Browser

GOLDEN = Path(__file__).parent / "golden"

# The code of users, without doctests: pytest would put its folders on the search path and import it at once.
collect_ignore = ["replicas", "typed"]

settings.register_profile("suite", max_examples=60, deadline=None, derandomize=True, database=None)
settings.register_profile("quick", settings.get_profile("suite"), max_examples=6)
settings.register_profile("fuzz", max_examples=5000, deadline=None)
settings.load_profile("suite")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--quick",
        action="store_true",
        help="leave out slow tests, run few parameter sets of each other test, and draw few examples",
    )
    parser.addoption(
        "--parameter-sets", type=int, default=1, metavar="N", help="how many parameter sets of a test --quick runs"
    )
    parser.addoption(
        "--update-golden", action="store_true", help="write the golden files anew; read them before you commit"
    )
    parser.addoption(
        "--update-reference", action="store_true", help="measure every figure in tests/reference/ again, and write it"
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--quick"):
        settings.load_profile("quick")
    if config.getoption("--update-reference"):
        if config.getoption("numprocesses", None):
            raise pytest.UsageError("--update-reference needs a single process: leave out --numprocesses")
        Recorded.updating = True


def pytest_sessionfinish() -> None:
    write_all()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if "browser" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)
    if not config.getoption("--quick"):
        return
    tests: dict[str, list[pytest.Item]] = {}
    for item in items:
        if item.get_closest_marker("slow") is None:
            tests.setdefault(item.nodeid.partition("[")[0], []).append(item)
    count = config.getoption("--parameter-sets")
    quick = {item for test, sets in tests.items() for item in spread(sets, count, zlib.crc32(test.encode()))}
    config.hook.pytest_deselected(items=[item for item in items if item not in quick])
    items[:] = [item for item in items if item in quick]


def pytest_collection_finish() -> None:
    """Collect garbage less often: each collection would walk through all of torch's and the libraries' objects."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def spread(items: list[pytest.Item], count: int, seed: int) -> list[pytest.Item]:
    """At most `count` of the items: the first, the last, and others at equal distances.

    A single one is that of the seed, so that the tests of one list of models do not all take the same.
    """
    if len(items) <= count:
        return items
    if count == 1:
        return [items[seed % len(items)]]
    return [items[number * (len(items) - 1) // (count - 1)] for number in range(count)]


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: socket.socket, address: object) -> None:
        raise AssertionError(f"a test reached for the network: {address}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)


@pytest.fixture(autouse=True)
def _plain_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("COLUMNS", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache folder for this run, so that the user's own is neither read nor written."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VGGSCOPE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@dataclass(frozen=True)
class Ran:
    """The exit code and the output of one command line."""

    code: int
    out: str
    err: str


@pytest.fixture
def vggscope(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Run a command line in this process."""
    from vggscope.cli.app import run

    def call(*words: str) -> Ran:
        capsys.readouterr()
        code = run(list(words))
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return call


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Compare a text with the file of that name in tests/golden."""

    def check(name: str, text: str) -> None:
        path = GOLDEN / name
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        assert text == path.read_text(encoding="utf-8")

    return check


def skip_or_fail(reason: str) -> None:
    """Skip the test; with CI=true fail it, since there the browser must be installed."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One browser per worker; a test opens its own context."""
    program = shutil.which("chromium")
    if program is None:
        skip_or_fail("there is no chromium on PATH")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        skip_or_fail("playwright is not installed")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--disable-background-networking"]
        )
        yield chromium
        chromium.close()
