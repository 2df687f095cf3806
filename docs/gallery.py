"""Draw docs/gallery.md and its pictures: `make gallery`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import vggscope
from vggscope.render.formats import draw

DOCS = Path(__file__).parent

HEAD = """# Gallery

`make gallery` draws every picture with the command above it. The suffix selects the format: `.svg`, `.png` (`--dpi`),
`.pdf`, `.dot`, or `.tex` (TikZ that compiles alone with the standalone class).
"""

TAIL = """## Beside other tools

`make gallery-peers` draws VGG-16, ResNet-18, a U-Net of three levels and ViT-B/16 with vggscope and with
[torchview](https://github.com/mert-kurttutan/torchview), [visualtorch](https://github.com/willyfh/visualtorch) and
[torchvista](https://github.com/sachinhosmani/torchvista), as far as they are installed, and writes one local page with
all pictures, their size and time. chromium measures the text in each, with the picture fitted to 1200x800 pixels. On
one machine, with torchview 0.2.7, visualtorch 1.4.1 and torchvista 0.2.13:

| tool | smallest text, px | overlapping pairs of texts | size of the file | slowest of the four |
| --- | ---: | ---: | ---: | ---: |
| vggscope, blocks | 10.5 to 15.3 | 0 | 13 to 33 KiB | 0.4 s |
| vggscope, layers | 5.8 to 11.3 | 0 | 19 to 53 KiB | 0.1 s |
| vggscope, volumes | 15.9 to 16.9 | 0 | 7 to 19 KiB | 0.1 s |
| torchview | 1.6 to 4.6 | 0 to 8 | 33 to 108 KiB | 0.2 s |
| torchvista | 1.0 to 5.0 | 0 to 2 | 2.7 MiB | 1.0 s |
| visualtorch, graph | | | 0.5 to 2.1 MiB | 19 s |
| visualtorch, flow | | | 11 to 649 KiB | 18 s |

torchview draws one long column of all calls. torchvista's page zooms, pans and unfolds modules, so its first view need
not be readable. visualtorch draws pixels, 684 to 33,670 of them wide, whose text cannot be measured.

Two tools are described, not run. PlotNeuralNet draws no model: each solid is written by hand and compiled by LaTeX; the
nearest here is `--style volumes --theme warm` as `.tex`. netron shows a file in a browser as a column of operators,
such as the `.onnx` that `build` writes.
"""


@dataclass(frozen=True)
class Shown:
    """One diagram: its models and options, its caption, and its alternative text."""

    name: str
    models: tuple[str, ...]
    look: dict[str, object]
    says: str
    alt: str

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
    alt: str

    @property
    def command(self) -> str:
        words = [f"--{option} {value}" for option, value in self.look.items()]
        return " ".join(["vggscope diff", self.model, "--ref", self.reference, *words, f"-o {self.name}.svg"])

    def draw(self) -> None:
        diff = vggscope.diff(self.model, self.reference)
        (DOCS / "images" / f"{self.name}.svg").write_bytes(draw(diff, ".svg", **self.look))


SECTIONS: dict[str, tuple[Shown | Compared, ...]] = {
    "Stages as blocks": (
        Shown(
            "vgg19",
            ("E",),
            {},
            "One card per stage: its layers, output shape and cost. This is the default style.",
            "VGG-19 as six cards, five stages and the classifier, each with its layers, its output, its "
            "receptive field and its share of the parameters",
        ),
        Shown(
            "c-blocks-dark",
            ("C",),
            {"theme": "dark"},
            "For slides and dark pages.",
            "Column C as six cards on a dark page; the third convolutions of stages 3, 4 and 5 are 1x1",
        ),
        Shown(
            "a-lrn-blocks-paper",
            ("A-LRN",),
            {"theme": "paper"},
            "Black on white, for print.",
            "Column A-LRN as six cards in black, white and grey, with LRN after the first convolution",
        ),
        Shown(
            "d-blocks-heat",
            ("D",),
            {"heat": "macs", "annotate": ("macs", "memory", "rule")},
            "Color shows the MACs of each layer; the annotation shows the rule (W-K+2P)/S+1 with its numbers.",
            "VGG-16 as six cards; the convolutions of stages 2 to 4 are the darkest, with up to 1.85 G "
            "multiply-accumulates, and the FC layers almost white",
        ),
        Shown(
            "resnet50-blocks",
            ("torchvision:resnet50",),
            {},
            "Repeated blocks are drawn once and counted. Lines beside the rows are the shortcuts.",
            "ResNet-50 as six cards: stem, four layers whose repeated bottlenecks are drawn once and marked "
            "with their number, lines beside their rows for the shortcuts, and head",
        ),
        Shown(
            "densenet121-blocks",
            ("torchvision:densenet121",),
            {"theme": "dark"},
            "Dense blocks of 6, 12, 24 and 16 layers, each of which reads all those before it.",
            "DenseNet-121 as nine cards on a dark page: four dense blocks marked x6, x12, x24 and x16, with "
            "transitions between them",
        ),
    ),
    "Every layer": (
        Shown(
            "d-layers",
            ("D",),
            {"style": "layers"},
            "Paper label, module path, and the shape of the tensor on each arrow.",
            "VGG-16 layer by layer, from the input through five stages to the classifier, with the shape of "
            "the tensor on each arrow",
        ),
        Shown(
            "resnet50-layers",
            ("torchvision:resnet50",),
            {"style": "layers"},
            "Graphviz lays out the branches.",
            "ResNet-50 layer by layer; around each bottleneck a line leads past its three convolutions to the sum",
        ),
        Shown(
            "googlenet-layers",
            ("torchvision:googlenet",),
            {"style": "layers", "theme": "paper"},
            "Parallel branches.",
            "GoogLeNet layer by layer in black and white; nine inception modules, each with four branches "
            "that meet in a concatenation",
        ),
        Shown(
            "densenet121-layers",
            ("torchvision:densenet121",),
            {"style": "layers", "theme": "dark", "heat": "params"},
            "Channels that grow between repetitions are written as a range.",
            "DenseNet-121 layer by layer on a dark page; the last layer, with 1.02 M parameters, is by far "
            "the brightest",
        ),
        Shown(
            "vit-depth",
            ("torchvision:vit_b_16",),
            {"style": "layers", "depth": 5},
            "`--depth` frames modules within modules, down to that depth: the `mlp` within each block of the encoder.",
            "A vision transformer as three cards; in that of the encoder a frame holds a block, drawn once for twelve, "
            "with a frame for its multilayer perceptron",
        ),
    ),
    "Volumes": (
        Shown(
            "e-volumes",
            ("E",),
            {"style": "volumes"},
            "One solid per feature map, one slab per vector; the scale is written below.",
            "VGG-19 as solids in a row, with a bracket for each stage: maps of 224 pixels a side at the left get "
            "smaller and deeper, and end in three upright slabs for the FC layers",
        ),
        Shown(
            "resnet50-volumes",
            ("torchvision:resnet50",),
            {"style": "volumes", "theme": "paper"},
            "One solid per module; arrows skip what a residual block computes.",
            "ResNet-50 as solids in a row in greys, smaller and deeper from 224 pixels a side to a slab of 1,000 "
            "scores, with arrows over the residual blocks",
        ),
        Shown(
            "c-volumes-heat",
            ("C",),
            {"style": "volumes", "theme": "dark", "heat": "memory", "annotate": ("memory", "rf")},
            "Activation memory and receptive fields.",
            "Column C as solids on a dark page; the first two convolutions are the brightest, with 12.25 "
            "MiB of activations each",
        ),
    ),
    "House styles": (
        Shown(
            "d-volumes-warm",
            ("D",),
            {"style": "volumes", "theme": "warm"},
            "Yellow convolutions, red pools, violet layers, as many papers have them.",
            "VGG-16 as solids: yellow convolutions, red pools and three violet slabs",
        ),
        Shown(
            "b-blocks-slides",
            ("B",),
            {"theme": "slides"},
            "Strong colours for a projector.",
            "Column B as cards, its layers in strong blue, orange and green",
        ),
        Shown(
            "b-volumes-blueprint",
            ("B",),
            {"style": "volumes", "theme": "blueprint"},
            "Light lines on blue.",
            "Column B as solids in light lines on a dark blue page",
        ),
    ),
    "Side by side": (
        Shown(
            "table1",
            ("A", "A-LRN", "B", "C", "D", "E"),
            {"style": "table"},
            "Table 1 of the paper, generated from the networks; additions to the previous column are bold.",
            "The six columns A to E side by side as in the paper, from 11 to 19 weight layers and from "
            "132.86 M to 143.67 M parameters",
        ),
    ),
    "Two networks compared": (
        Compared(
            "diff-c",
            "C",
            "torchvision",
            {},
            "Equal layers are counted. Differing attributes are between the sides, consequences below.",
            "Column C beside VGG-16: three pairs of convolutions are framed, with kernel 1 and no padding "
            "on the left, 3 and 1 on the right",
        ),
        Compared(
            "diff-a-lrn-dark",
            "A-LRN",
            "torchvision:vgg11",
            {"theme": "dark"},
            "A layer that is missing in the reference.",
            "Column A-LRN beside VGG-11 on a dark page; the normalisation on the left has an empty place on the right",
        ),
        Compared(
            "diff-resnet-paper",
            "torchvision:resnet18",
            "torchvision:resnet34",
            {"theme": "paper"},
            "Eight missing blocks; a long picture continues on the right.",
            "ResNet-18 beside ResNet-34 in black and white; eight blocks on the right have empty places on the left",
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
            lines.append(f"{shown.says}\n\n    {shown.command}\n\n![{shown.alt}](images/{shown.name}.svg)\n")
    lines.append(TAIL)
    (DOCS / "gallery.md").write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
