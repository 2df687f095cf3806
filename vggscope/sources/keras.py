"""A model of Keras: `model.keras`, or `vgg16.h5` with its configuration. Its code is never run, nor its data read."""

from __future__ import annotations

import os

from vggscope.errors import printable
from vggscope.graph import Network
from vggscope.vgg.options import BuildOptions

_SUFFIXES = (".keras", ".h5", ".hdf5")


def claims(word: str) -> bool:
    """Whether the word has a suffix of Keras's files."""
    return word.lower().endswith(_SUFFIXES)


def load(word: str, options: BuildOptions) -> Network:
    """The Network of the file's configuration, named after the file; of its weights where it holds these alone.

    Raises ModelError where the file cannot be read, MissingTool without h5py, OptionError for an option that
    contradicts the file, and ShapeError where the model does not take the inputs in `options`.
    """
    network = graph(word, options)
    if network is None:
        from vggscope.checkpoint.network import network_of_checkpoint

        return network_of_checkpoint(word, options)
    return network


def graph(word: str, options: BuildOptions) -> Network | None:
    """The Network of the file's configuration; None for a file of weights alone. Raises as `load` does."""
    from vggscope.checkpoint.formats.archive import json_of
    from vggscope.checkpoint.formats.bounded_file import BoundedFile
    from vggscope.checkpoint.formats.hdf5 import model_configuration
    from vggscope.checkpoint.reader import explained
    from vggscope.foreign.keras.model import model_of
    from vggscope.foreign.keras.network import network_of_keras
    from vggscope.foreign.layer_graph import check_classes, given_shapes, naming_file

    with explained(word), BoundedFile(word) as file:
        text = model_configuration(file)
    if not text:
        return None
    name = printable(os.path.basename(word))
    options.refuse_column_options(f"{word} has its layers", takes_soft_max=True)
    with naming_file(word):
        model = model_of(json_of(text, "configuration"))
        network = network_of_keras(model, name, given_shapes(options), soft_max=options.soft_max)
    return check_classes(network, options)
