"""A weights file: `weights.pth`, `weights.safetensors`, or a folder as Hugging Face keeps it. No code in it runs.

The layers of a whole module (`torch.save(model, path)`) are read too.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from vggscope.checkpoint import SUFFIXES, folder
from vggscope.errors import CheckpointError, printable
from vggscope.graph import Network
from vggscope.vgg.options import BuildOptions

if TYPE_CHECKING:
    from vggscope.checkpoint.contents import Checkpoint
    from vggscope.checkpoint.inspection import Inspection
    from vggscope.foreign.torch.program_run import ProgramRunner


def claims(word: str) -> bool:
    """Whether the word has a checkpoint's suffix, names an existing file that is neither Python nor TOML, or a folder
    as Hugging Face keeps it.
    """
    name = word.lower()
    is_file = os.path.isfile(word) and not name.endswith((".py", ".ipynb", ".toml"))
    return name.endswith(SUFFIXES) or is_file or folder.claims(word)


def load(word: str, options: BuildOptions) -> Network:
    """The Network of the file's weights, under the file's own names.

    Raises CheckpointError where the file or its network cannot be read, OptionError for an option that contradicts it.
    """
    from vggscope.checkpoint.inspection import inspect_checkpoint
    from vggscope.checkpoint.network import network_of_inspection
    from vggscope.checkpoint.reader import read, weights_path

    path = weights_path(word)
    checkpoint = read(path)
    in_full = _network_in(checkpoint, path, options)
    if in_full is not None:
        return in_full
    inspection = inspect_checkpoint(checkpoint)
    try:
        network = network_of_inspection(inspection, options)
    except CheckpointError as error:
        is_module = bool(checkpoint.modules)
        found = _whole_module(checkpoint, inspection, options) if is_module else _library_network(inspection, options)
        if found is None:
            raise error from None
        return found
    return _with_own_layers(checkpoint, path, network) if checkpoint.modules else network


def _with_own_layers(checkpoint: Checkpoint, path: str, network: Network) -> Network:
    """A VGG of somebody's own class, with the settings of the layers in its file."""
    from vggscope.checkpoint.reader import explained
    from vggscope.foreign.torch.module import with_layers_of

    with explained(path):
        return with_layers_of(checkpoint.modules, network)


def _network_in(checkpoint: Checkpoint, path: str, options: BuildOptions) -> Network | None:
    """The network that the file holds beside its weights, in the order of its layers; None where it holds none."""
    from vggscope.checkpoint.formats.torch7 import FORMAT as TORCH7
    from vggscope.checkpoint.formats.torch_save import TORCH_SCRIPT
    from vggscope.checkpoint.reader import explained
    from vggscope.foreign.torch.module import network_of_module, obstacle

    name = printable(os.path.basename(path))
    if checkpoint.format == TORCH7:
        from vggscope.foreign.torch7.network import network_of_torch7_file

        return network_of_torch7_file(path, name, options)
    with explained(path):
        if checkpoint.format == TORCH_SCRIPT:
            from vggscope.foreign.torch.script import network_of_script

            return network_of_script(path, name, options)
        if checkpoint.modules and not obstacle(checkpoint.modules):
            return network_of_module(checkpoint, name, options)
    return None


def _whole_module(checkpoint: Checkpoint, inspection: Inspection, options: BuildOptions) -> Network:
    """The network of a whole module whose file does not tell the order of its layers: that of a library's model.

    Raises CheckpointError, which names the class, for any other.
    """
    from vggscope.checkpoint.reader import explained
    from vggscope.foreign.torch.module import network_of_module

    with suppress(CheckpointError):
        network = _library_network(inspection, options)
        if network is not None:
            return network
    path = inspection.path
    with explained(path):
        return network_of_module(checkpoint, printable(os.path.basename(path)), options)


def _library_network(inspection: Inspection, options: BuildOptions) -> Network | None:
    """The Network of the library's model that the file's keys and shapes are those of; None for another file."""
    from vggscope.sources.recognition import library_network

    return library_network(inspection, options)


def library_model(word: str) -> tuple[str, int | None] | None:
    """The library's model that the file has the keys and shapes of, and the number of its classes if not its own."""
    from vggscope.checkpoint.reader import weights_path
    from vggscope.sources.recognition import library_word

    with suppress(CheckpointError):
        return library_word(weights_path(word))
    return None


def runner(word: str, options: BuildOptions) -> ProgramRunner | None:
    """The program in an archive of TorchScript as torch runs it by vggscope's calls; None for any other file.

    Raises as `load` does, and ModelError for an op that is not run, or a weight that is not read.
    """
    from vggscope.checkpoint.formats.torch_save import TORCH_SCRIPT
    from vggscope.checkpoint.reader import explained, read, weights_path

    path = weights_path(word)
    if read(path).format != TORCH_SCRIPT:
        return None
    from vggscope.foreign.file_runner import given_data
    from vggscope.foreign.torch.program_run import ProgramRunner
    from vggscope.foreign.torch.script import tape_of_script

    with explained(path):
        tape, checkpoint = tape_of_script(path, printable(os.path.basename(path)), options)
    return ProgramRunner(tape, checkpoint, given_data(options))
