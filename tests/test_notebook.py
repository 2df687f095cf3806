"""In a notebook: the tour in docs/notebook.ipynb is run in a kernel and shows what it stored; progress leaves nothing.

Run pytest with --update-golden to store the outputs anew.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import vggscope

if TYPE_CHECKING:
    from playwright.sync_api import Browser

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")
pytest.importorskip("ipykernel")

TOUR = Path(__file__).parent.parent / "docs" / "notebook.ipynb"

pytestmark = pytest.mark.filterwarnings("ignore")  # the kernel's client is not ours


def run(notebook: Any, folder: Path) -> Any:
    """The notebook with what its cells show now."""
    client = nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", record_timing=False, resources={"metadata": {"path": str(folder)}}
    )
    client.execute()
    return notebook


def cells(*sources: str) -> Any:
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])


@pytest.fixture(scope="module")
def tour(tmp_path_factory: pytest.TempPathFactory) -> Any:
    made = run(nbformat.read(TOUR, 4), tmp_path_factory.mktemp("tour"))
    made.metadata.language_info = {"name": "python"}
    for cell in made.cells:
        for output in cell.get("outputs", ()):
            if "data" in output:
                # HTML says the same to whoever reads a stored notebook.
                output.data.pop("text/markdown", None)
    return made


def shown(cell: Any) -> list[dict[str, str]]:
    """What a cell shows, as far as it is the same on every machine: of a plot by matplotlib, that there is one."""
    found = []
    for output in cell.get("outputs", ()):
        data = dict(output.get("data", {"stream": output.get("text", "")}))
        if "Matplotlib" in data.get("image/svg+xml", "") or "matplotlib" in data.get("image/svg+xml", ""):
            data["image/svg+xml"] = "a plot"
        found.append(data)
    return found


@pytest.mark.slow
def test_the_tour_shows_what_it_stored(tour: Any, request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--update-golden"):
        nbformat.write(tour, TOUR)
    stored = nbformat.read(TOUR, 4)
    for now, then in zip(tour.cells, stored.cells):
        assert shown(now) == shown(then), now.source
    assert not [output for cell in tour.cells for output in cell.get("outputs", ()) if output.output_type == "error"]


@pytest.mark.slow
def test_the_tour_leaves_no_warning_and_no_path_of_this_machine(tour: Any) -> None:
    for cell in tour.cells:
        for output in cell.get("outputs", ()):
            assert output.get("name") != "stderr", output
            assert not re.search(r"0x[0-9a-f]{6,}|/tmp/|/home/", str(output)), cell.source


@pytest.mark.slow
def test_progress_is_shown_and_taken_away(tmp_path: Path) -> None:
    """Every state of the display is seen by the client; the last one is empty, and nothing else is printed."""
    seen: list[str] = []

    class Client(nbclient.NotebookClient):  # type: ignore[misc, name-defined]
        def process_message(self, message: Any, cell: Any, index: int) -> Any:
            seen.extend([message["content"].get("data", {}).get("text/html", "")] * ("display" in message["msg_type"]))
            return super().process_message(message, cell, index)

    source = "import vggscope\nfound = vggscope.diff('conv3-8 FC-10', ref='conv3-8 FC-10', numeric=True)"
    notebook = cells(source, "found.numeric.max_abs_error")
    Client(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert [re.sub(r".* comparing: ", "", text) for text in seen] == [
        *("building ours", "building the reference", "running ours", "running the reference", "")
    ]
    assert '<progress value="0" max="4">' in seen[0]
    assert [output.data for output in notebook.cells[0].outputs] == [{"text/html": "", "text/plain": ""}]
    assert notebook.cells[1].outputs[0].data == {"text/plain": "0.0"}


def test_the_page_works_in_the_frame_of_a_cell(browser: Browser, tmp_path: Path) -> None:
    cell = tmp_path / "cell.html"
    shown = vggscope.report("conv3-8 maxpool FC-10", input_size=(3, 32, 32))._repr_html_()
    cell.write_text(f"<!doctype html><meta charset=utf-8>{shown}", encoding="utf-8")
    context = browser.new_context(viewport={"width": 900, "height": 800})
    page, wrong = context.new_page(), []
    page.on("console", lambda message: wrong.append(message.text) if message.type != "log" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(cell.as_uri())
    frame = page.frame_locator("iframe")
    frame.locator("html[data-ready]").wait_for()
    assert "conv1_1" in frame.locator("body").inner_text()
    # A frame has no address, so the inspector ends with what the layer reads: without the button that copies a link.
    assert frame.locator("#inspector").inner_text().splitlines()[-1].startswith("reads ")
    assert frame.locator("#copy-link").count() == 0
    context.close()
    assert wrong == []
