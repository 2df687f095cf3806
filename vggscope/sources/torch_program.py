"""A program in a file of torch.export: `model.pt2`. Its graph is read, and no code in the file runs."""

from __future__ import annotations

from vggscope.graph import Network
from vggscope.vgg.options import BuildOptions


def claims(word: str) -> bool:
    """Whether the word has the suffix of torch.export's archives."""
    return word.lower().endswith(".pt2")


def load(word: str, options: BuildOptions) -> Network:
    """The Network of the program's graph, named after the file.

    Raises CheckpointError where the file cannot be read, and ShapeError or OptionError for inputs that the program does
    not take.
    """
    from vggscope.foreign.torch.export import network_of

    return network_of(word, options)
