"""`explain paper`: Tables 1 and 2 and the training, beside computed values."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

from vggscope.analysis.compare import Published, has_weights
from vggscope.analysis.memory.report import memory
from vggscope.analysis.memory.step_config import StepConfig
from vggscope.cross_checks.paper import MILLION
from vggscope.diffing.result import TRAINING
from vggscope.document import Block, Table
from vggscope.ops.base import numel
from vggscope.record import record
from vggscope.sources.resolve import resolve
from vggscope.tutorials.image import PAPER_MEAN
from vggscope.tutorials.tutorial import Tutorial, facts, listing, text, tutorial
from vggscope.units import bytes_text, count_text
from vggscope.vgg.configs import CONFIGS, PaperFigures
from vggscope.vgg.notation import Word, parse, write

IMAGES, EPOCHS, BATCH, GPUS = 1_281_167, 74, 256, 4
"""The training images of ILSVRC-2012; the paper's epochs, batch size and GPUs (sections 3.1 and 3.3)."""

PAPER_ITERATIONS = 370_000


@record
class TrainingRow:
    """One aspect of the training: the paper's statement, and what follows from it."""

    matter: str
    paper: str
    computed: str


@record
class Paper:
    """The paper's columns with the paper's figures and the computed ones, and the training."""

    columns: tuple[Published, ...]
    training: tuple[TrainingRow, ...]


def published() -> tuple[Published, ...]:
    """The paper's columns with its figures and the computed ones."""
    return tuple(_compared(column, c.words, c.published) for column, c in CONFIGS.items() if c.published)


def _compared(column: str, words: tuple[Word, ...], figures: PaperFigures) -> Published:
    network = resolve(column)
    layers = sum(has_weights(network, node) for node in network.nodes)
    params = sum(numel(parameter.shape) for parameter in network.parameters())
    rounded = (params + MILLION // 2) // MILLION
    agrees = (layers, rounded) == (figures.weight_layers, figures.params_millions)
    return Published(column, write(words), figures.weight_layers, layers, figures.params_millions, params, agrees)


def explain() -> Tutorial:
    """Table 1 in its own notation, Table 2 beside the exact counts, and the arithmetic of the training."""
    columns, training = published(), _training()
    return tutorial(
        "paper",
        "paper: Simonyan and Zisserman 2014, arXiv 1409.1556",
        Paper(columns, training),
        *tables(columns),
        text("The training (section 3.1), and what follows from it."),
        listing(("matter", "the paper", "computed"), tuple((t.matter, t.paper, t.computed) for t in training)),
        facts(
            {
                "the paper": "https://arxiv.org/abs/1409.1556",
                "as a picture": "vggscope diagram A A-LRN B C D E --style table -o table1.svg",
            }
        ),
    )


def tables(columns: Sequence[Published]) -> tuple[Block, ...]:
    """Tables 1 and 2 of the paper with their captions."""
    return (
        text(
            "Table 1, the configurations for a 224x224 RGB image, as the paper prints them. * marks a layer that the"
            " column to the left does not have there (bold in print)."
        ),
        _table_1(columns),
        text("Table 2, the parameters in millions, beside the exact numbers."),
        _table_2(columns),
    )


def _table_1(columns: Sequence[Published]) -> Table:
    """The columns side by side, stage by stage, with each layer in the paper's notation."""
    stages = [_stages(parse(column.notation)) for column in columns]
    rows: list[tuple[object, ...]] = [tuple(f"{column.paper_weight_layers} layers" for column in columns)]
    breaks = []
    for number in range(max(map(len, stages))):
        breaks.append(len(rows))
        side_by_side = [_marked(stages, column, number) for column in range(len(stages))]
        rows += zip_longest(*side_by_side, fillvalue="")
    return listing(tuple(column.column for column in columns), tuple(rows), tuple(breaks))


def _stages(words: tuple[Word, ...]) -> list[list[str]]:
    """The words by rows of the table: the layers of a stage, one pool, or the FC layers and the soft-max."""
    stages: list[list[str]] = [[]]
    for word in words:
        alone = word.kind == "maxpool"
        if stages[-1] and (alone or stages[-1] == ["maxpool"]):
            stages.append([])
        stages[-1].append(write((word,)))
    return stages


def _marked(columns: list[list[list[str]]], column: int, stage: int) -> list[str]:
    """A stage's words, with a star where the column to the left has another word or none."""
    words = columns[column][stage]
    before = columns[column - 1][stage] if column else words
    return [word if before[i : i + 1] == [word] else f"{word}*" for i, word in enumerate(words)]


def _table_2(columns: Sequence[Published]) -> Table:
    """The paper's millions, the computed parameters, and whether the two agree when rounded."""
    return listing(
        ("column", "the paper", "computed", "rounded", "agrees"),
        tuple(
            (
                column.column,
                f"{column.paper_params_millions} M",
                column.params,
                f"{(column.params + MILLION // 2) // MILLION} M",
                "yes" if column.agrees else "no",
            )
            for column in columns
        ),
    )


def _training() -> tuple[TrainingRow, ...]:
    paper = {fact.matter: fact.paper for fact in TRAINING}
    network = resolve("D")
    drops = [node.label or node.name for node in network.nodes if node.op.label_prefix == "drop"]
    scaled = ", ".join(f"{mean / 255:.4f}" for mean in PAPER_MEAN)
    peak = memory(network, BATCH, StepConfig(gpus=GPUS, parallel="ddp")).peak_bytes
    norm = "batch normalisation"
    iterations = IMAGES * EPOCHS // BATCH
    return (
        TrainingRow("initialisation", paper["initialisation"], f"a variance of 0.01 is a deviation of {0.01**0.5:g}"),
        TrainingRow("dropout", paper["dropout"], f"in the module: {', '.join(drops)}"),
        TrainingRow("preprocessing", paper["preprocessing"], f"on a scale of 0..1 the mean is {scaled}"),
        TrainingRow("optimiser", paper["optimiser"], f"rates {', '.join(f'{10.0**-e:.{e}f}' for e in range(2, 6))}"),
        TrainingRow(
            "length",
            f"{PAPER_ITERATIONS // 1000} thousand iterations, {EPOCHS} epochs",
            f"{count_text(IMAGES)} images x {EPOCHS} / {BATCH} = {count_text(iterations)} iterations",
        ),
        TrainingRow(
            "hardware",
            f"{GPUS} GPUs, each with its part of the batch",
            f"{BATCH // GPUS} images a GPU; D in torch today takes {bytes_text(peak)} on each (DDP)",
        ),
        TrainingRow(norm, paper[norm], "Table 1's columns build without it; vggscope summary D --batch-norm adds it"),
    )
