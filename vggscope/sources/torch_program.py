"""A program in a file of torch.export: `model.pt2`. Its graph is read, and no code in the file runs."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from vggscope.errors import CheckpointError
from vggscope.graph import Network, input_sizes
from vggscope.vgg.options import BuildOptions

if TYPE_CHECKING:
    from vggscope.foreign.torch.program_run import ProgramRunner
    from vggscope.inputs import Inputs


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


def inputs(word: str) -> Inputs | None:
    """The sizes of the inputs, if the file fixes all but the batch."""
    from vggscope.foreign.torch.export import fixes_inputs

    return input_sizes(load(word, BuildOptions()), named=True) if fixes_inputs(word) else None


def library_model(word: str) -> tuple[str, int | None] | None:
    """The library's model that the file has the keys and shapes of, and the number of its classes if not its own."""
    from vggscope.sources.recognition import library_word

    with suppress(CheckpointError):
        return library_word(word)
    return None


def runner(word: str, options: BuildOptions) -> ProgramRunner:
    """The program as torch runs it, with the file's weights, on the data in `options` if they hold any.

    Raises as `load` does, and ModelError for an op that is not run, or a weight that is not read.
    """
    from vggscope.checkpoint.reader import read
    from vggscope.foreign.file_runner import given_data
    from vggscope.foreign.torch.export import tape_of
    from vggscope.foreign.torch.program_run import ProgramRunner

    return ProgramRunner(tape_of(word, options), read(word), given_data(options))
