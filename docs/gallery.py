"""Draw docs/gallery.md and its pictures anew: `make gallery`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import vggscope
from vggscope.render.formats import draw

DOCS = Path(__file__).parent

HEAD = """# Gallery

Every picture here is drawn by `make gallery` with the command above it. The suffix picks the format: `.svg`, `.png`
(`--dpi`), `.pdf`, `.dot`, and `.tex`, TikZ that compiles alone with the standalone class.
"""


@dataclass(frozen=True)
class Shown:
    """One picture: the words of its command line, and what they ask for in Python."""

    name: str
    models: tuple[str, ...]
    look: dict[str, object]
    says: str

    @property
    def command(self) -> str:
        words = []
        for option, value in self.look.items():
            words.append(f"--{option} {','.join(value) if isinstance(value, tuple) else value}")
        return " ".join(["vggscope diagram", *self.models, *words, f"-o {self.name}.svg"])

    def draw(self) -> None:
        drawn = vggscope.diagram(*self.models, **self.look)
        (DOCS / "images" / f"{self.name}.svg").write_bytes(drawn.render("svg"))


@dataclass(frozen=True)
class Compared:
    """The picture of a diff."""

    name: str
    model: str
    reference: str
    look: dict[str, object]
    says: str

    @property
    def command(self) -> str:
        words = [f"--{option} {value}" for option, value in self.look.items()]
        return " ".join(["vggscope diff", self.model, "--ref", self.reference, *words, f"-o {self.name}.svg"])

    def draw(self) -> None:
        found = vggscope.diff(self.model, self.reference)
        (DOCS / "images" / f"{self.name}.svg").write_bytes(draw(found, ".svg", **self.look))


SECTIONS: dict[str, tuple[Shown | Compared, ...]] = {
    "Stages as blocks": (
        Shown(
            "vgg19",
            ("E",),
            {},
            "A stage a card: its layers, what comes out, what it costs. The style if none is named.",
        ),
        Shown("c-blocks-dark", ("C",), {"theme": "dark"}, "For slides and dark pages."),
        Shown("a-lrn-blocks-paper", ("A-LRN",), {"theme": "paper"}, "Black on white, for print."),
        Shown(
            "d-blocks-heat",
            ("D",),
            {"heat": "macs", "annotate": ("macs", "memory", "rule")},
            "The strength of the colour tells a layer's MACs; the rule (W-K+2P)/S+1 with its numbers.",
        ),
        Shown("resnet50-blocks", ("torchvision:resnet50",), {}, "What repeats is drawn once and counted."),
        Shown(
            "densenet121-blocks",
            ("torchvision:densenet121",),
            {"theme": "dark"},
            "Dense blocks of 6, 12, 24 and 16 layers.",
        ),
    ),
    "Every layer": (
        Shown(
            "d-layers", ("D",), {"style": "layers"}, "Paper label, module path, and the shape where each arrow starts."
        ),
        Shown("resnet50-layers", ("torchvision:resnet50",), {"style": "layers"}, "Branches laid out by Graphviz."),
        Shown(
            "googlenet-layers", ("torchvision:googlenet",), {"style": "layers", "theme": "paper"}, "Parallel branches."
        ),
        Shown(
            "densenet121-layers",
            ("torchvision:densenet121",),
            {"style": "layers", "theme": "dark", "heat": "params"},
            "Channels that grow from one repetition to the next are written as a range.",
        ),
    ),
    "Volumes": (
        Shown("e-volumes", ("E",), {"style": "volumes"}, "Each feature map a solid; the scale is written below."),
        Shown(
            "resnet50-volumes", ("torchvision:resnet50",), {"style": "volumes", "theme": "paper"}, "A module a solid."
        ),
        Shown(
            "c-volumes-heat",
            ("C",),
            {"style": "volumes", "theme": "dark", "heat": "memory", "annotate": ("memory", "rf")},
            "The memory of each activation, and receptive fields.",
        ),
    ),
    "Side by side": (
        Shown(
            "table1",
            ("A", "A-LRN", "B", "C", "D", "E"),
            {"style": "table"},
            "Table 1 of the paper, made from the networks; what a column adds to the one before is bold.",
        ),
    ),
    "Two networks compared": (
        Compared(
            "diff-c",
            "C",
            "torchvision",
            {},
            "What is alike is counted; the attributes that differ stand between the sides, what follows below.",
        ),
        Compared(
            "diff-a-lrn-dark", "A-LRN", "torchvision:vgg11", {"theme": "dark"}, "A layer that the reference has not."
        ),
        Compared(
            "diff-resnet-paper",
            "torchvision:resnet18",
            "torchvision:resnet34",
            {"theme": "paper"},
            "Eight blocks are missing; a long picture goes on to the right.",
        ),
    ),
}


def main() -> None:
    """Write the pictures, and the page that shows them."""
    lines = [HEAD]
    for title, pictures in SECTIONS.items():
        lines.append(f"## {title}\n")
        for shown in pictures:
            shown.draw()
            lines.append(f"{shown.says}\n\n    {shown.command}\n\n![{shown.command}](images/{shown.name}.svg)\n")
    (DOCS / "gallery.md").write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
