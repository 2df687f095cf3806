"""A weights file: `weights.pth`, `weights.safetensors`, or a folder as Hugging Face keeps it. No code in it runs.

The layers of a whole module (`torch.save(model, path)`) are read too.
"""

from __future__ import annotations

import os
from contextlib import suppress

from vggscope.checkpoint import SUFFIXES, folder
from vggscope.errors import CheckpointError, printable
from vggscope.graph import Network
from vggscope.vgg.options import BuildOptions


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
    from vggscope.checkpoint.formats.torch_save import TORCH_SCRIPT
    from vggscope.checkpoint.network import network_of_checkpoint
    from vggscope.checkpoint.reader import explained, read, weights_path

    path = weights_path(word)
    checkpoint = read(path)
    name = printable(os.path.basename(path))
    if checkpoint.format == TORCH_SCRIPT:
        from vggscope.foreign.torch.script import network_of_script

        with explained(path):
            return network_of_script(path, name, options)
    if not checkpoint.modules:
        try:
            return network_of_checkpoint(word, options)
        except CheckpointError:
            network = _library_network(path, options)
            if network is None:
                raise
            return network
    from vggscope.foreign.torch.module import network_of_module, obstacle

    if obstacle(checkpoint.modules):
        with suppress(CheckpointError):
            return network_of_checkpoint(word, options)
        with suppress(CheckpointError):
            network = _library_network(path, options)
            if network is not None:
                return network
    with explained(path):
        return network_of_module(checkpoint, name, options)


def _library_network(path: str, options: BuildOptions) -> Network | None:
    """The Network of the library's model that the file's keys and shapes are those of; None for another file."""
    from vggscope.sources.recognition import library_network

    return library_network(path, options)


def library_model(word: str) -> tuple[str, int | None] | None:
    """The library's model that the file has the keys and shapes of, and the number of its classes if not its own."""
    from vggscope.checkpoint.reader import weights_path
    from vggscope.sources.recognition import library_word

    with suppress(CheckpointError):
        return library_word(weights_path(word))
    return None
