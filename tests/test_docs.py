"""The documentation is true: each command and each block of code in it is run, and gives what is shown.

`tests/pages.py` says how. Run pytest with --update-golden to fill in what is printed now; read it before you commit.
"""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest

from tests.pages import DOCS, MARKDOWN, PAGES, ROOT, WRITTEN, Block, Player, blocks, codes, links, options

FROM_NOTHING = {"quickstart.md", "tutorial.md", "checkpoint.md", "values.md", "onnx.md", "words.md"}
"""Pages whose readers begin in an empty folder: they bring all that they need."""

MY_VGG = '''\
"""A VGG-16 as a reader has one."""

import torch
from torch import nn


class VGG(nn.Module):
    def __init__(self, num_classes=1000):
        super().__init__()
        layers, channels = [], 3
        for width in (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(True)] if width else [nn.MaxPool2d(2)]
            channels = width or channels
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(7)
        self.classifier = nn.Sequential(
            nn.Linear(25088, 4096), nn.ReLU(True), nn.Dropout(),
            nn.Linear(4096, 4096), nn.ReLU(True), nn.Dropout(),
            nn.Linear(4096, num_classes),
        )

    def forward(self, x):
        return self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))
'''

LAID_OUT = "resnet|densenet|googlenet"
"""Pictures of branched networks: Graphviz lays them out, and another version of it otherwise."""

COLUMNS_TOML = '[columns]\nNAME = "conv3-8 maxpool conv3-16 maxpool FC-10"\n'


def furnish(folder: Path) -> None:
    """What a reader has at hand: a model of his own, a file of columns, weights and a photo."""
    (folder / "my_vgg.py").write_text(MY_VGG, encoding="utf-8")
    (folder / "columns.toml").write_text(COLUMNS_TOML, encoding="utf-8")
    _write_weights(folder)
    _write_photo(folder / "photo.jpg")


def _write_weights(folder: Path) -> None:
    """VGG-16's names and shapes; all values of a tensor are one number, so that the file is small."""
    import torch

    from vggscope.sources.resolve import resolve

    named = {p.name: torch.zeros(1).expand(p.shape) for p in resolve("D").parameters()}
    for name in ("weights.pth", "vgg16.pth"):
        torch.save(named, folder / name)


def _write_photo(path: Path) -> None:
    from PIL import Image

    Image.linear_gradient("L").convert("RGB").resize((320, 256)).save(path)


QUICK = {"README.md", "conventions.md"}
"""Pages that run in a second or two; the others run torch, Graphviz or torchvision."""


@pytest.mark.parametrize(
    "page",
    [page if page.name in QUICK else pytest.param(page, marks=pytest.mark.slow) for page in PAGES],
    ids=lambda page: page.name,
)
def test_what_a_page_shows_is_what_happens(page: Path, vggscope, tmp_path, monkeypatch, request) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    if page.name not in FROM_NOTHING:
        furnish(tmp_path)
    played = Player(vggscope).play(page)
    sys.modules.pop("my_vgg", None)
    drawn = {shown: tmp_path / shown.name for shown in pictures(page) if (tmp_path / shown.name).exists()}
    drawn = {shown: made for shown, made in drawn.items() if not re.search(LAID_OUT, shown.name)}
    if request.config.getoption("--update-golden"):
        page.write_text(played, encoding="utf-8")
        for shown, made in drawn.items():
            shown.write_bytes(made.read_bytes())
    assert played == page.read_text(encoding="utf-8")
    for shown, made in drawn.items():
        assert made.read_bytes() == shown.read_bytes(), f"{shown.name} is drawn otherwise now"


def pictures(page: Path) -> list[Path]:
    """The pictures that a page shows. One whose name a command of the page writes is held to that."""
    return [page.parent / target for target, _ in links(page) if target.startswith("images/") and "svg" in target]


def test_a_page_that_shows_something_else_is_found_out(vggscope, tmp_path, monkeypatch) -> None:
    """Every kind of block: a wrong one is either put right, or refused."""
    monkeypatch.chdir(tmp_path)

    def played(text: str) -> str:
        page = Path("page.md")
        page.write_text(text, encoding="utf-8")
        return Player(vggscope).play(page)

    wrong = "```python\nx = 6 * 7\nx  # 41\nprint(x)\n```\n\n```text\n43\n```\n"
    assert played(wrong) == wrong.replace("41", "42").replace("43", "42")
    assert "138,357,544" in played("```console\n$ vggscope summary D --depth stage\n138,357,545\n```\n")
    assert played("```console\n$ vggscope summary nothing\n$ echo $?\n0\n```\n").endswith("\n2\n```\n")
    for refused in (
        "```sh\nvggscope summary nothing\n```",
        "```sh\nmake nothing\n```",
        "```sh\npip install vggscope[nothing]\n```",
        "```console\n$ rm x\n```",
        "```text\nanything\n```",
        "```rust\nanything\n```",
        "    anything",
        "`vggscope summary nothing`",
        "`vggscope summary MODEL --nothing`",
        "```yaml\nsteps: [{run: vggscope diff A --ref B}]\n```",
        '```console\n$ vggscope list -f json\n...\n```\n\n```json\n{"schema": "nothing"}\n```',
    ):
        with pytest.raises(AssertionError):
            played(refused)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_options_that_a_page_names_are_there(page: Path) -> None:
    """Also those that stand alone in a sentence."""
    of_others = {
        "--update-golden",
        "--update-reference",
        "--update-architectures",
        "--quick",
        "--parameter-sets",
        "--hypothesis-profile",
        "--check",
        "--dry-run",
        "--sample",
        "--extra",
        "--option",
    }
    named = {word for code in codes(page) for word in re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", code)}
    assert named - of_others <= options()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings_and_pictures_say_what_they_show(page: Path) -> None:
    for target, words in links(page):
        assert words.strip(), f"{target} has no words"
        if re.match(r"https?:|mailto:", target):
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        assert file.exists(), target
        assert file.name not in WRITTEN, f"{target} is there after make docs alone"
        if anchor and file.suffix == ".md":
            assert anchor in anchors(file), target


def anchors(page: Path) -> set[str]:
    """What the headings of a page are linked by."""
    tokens = MARKDOWN.parse(page.read_text(encoding="utf-8"))
    titles = [tokens[place + 1].content for place, token in enumerate(tokens) if token.type == "heading_open"]
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_every_page_is_in_the_sites_contents() -> None:
    trees = [block for block in blocks(DOCS / "index.md") if isinstance(block, Block) and block.language == "{toctree}"]
    listed = {line for tree in trees for line in tree.text.splitlines() if line and not line.startswith(":")}
    assert listed == {page.stem for page in PAGES if page.parent == DOCS} - {"index"} | {
        page.removesuffix(".md") for page in WRITTEN
    }


def test_the_reference_has_every_option_of_every_command() -> None:
    from vggscope.cli.app import COMMANDS

    text = runpy.run_path(str(DOCS / "reference.py"))["commands"]()
    sections = {part.partition("\n")[0]: part for part in text.split("\n## ")}
    for command in COMMANDS:
        named = {word for line in sections[command].splitlines() for word in re.findall(r"--?[a-z][a-z0-9-]*", line)}
        assert options(command) - {"-h", "--debug", "--version", "--install-completion", "--show-completion"} <= named


def test_the_picture_of_the_floors_is_of_these_floors() -> None:
    drawn = runpy.run_path(str(DOCS / "floors.py"))["picture"]()
    assert drawn == (DOCS / "images" / "floors.svg").read_text(encoding="utf-8"), "draw it: python docs/floors.py"


def test_the_readme_shows_the_main_commands() -> None:
    shown = [block.text.partition("\n")[0] for block in blocks(ROOT / "README.md") if isinstance(block, Block)]
    assert {"$ vggscope summary D", "$ vggscope diff A --ref torchvision", "$ vggscope diff C --ref torchvision"} <= {
        *shown
    }


def test_a_picture_has_a_description_for_screen_readers() -> None:
    pictures = [found for page in PAGES for found in re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", page.read_text("utf-8"))]
    assert len(pictures) > 20
    dull = [path for alt, path in pictures if len(alt.split()) < 4 or alt.startswith("vggscope ")]
    assert not dull
