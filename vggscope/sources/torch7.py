"""A file of Lua Torch, `model.t7`: a module of nn, or the weights in tables. No data of tensors is read."""

from __future__ import annotations

import os

from vggscope.errors import printable
from vggscope.graph import Network
from vggscope.vgg.options import BuildOptions


def claims(word: str) -> bool:
    """Whether the word has the suffix of Lua Torch's files."""
    return word.lower().endswith(".t7")


def load(word: str, options: BuildOptions) -> Network:
    """The Network of the file's module, named after the file; of its weights where it holds no module.

    Raises ModelError where the file cannot be read, OptionError for an option that contradicts it, and ShapeError where
    the module does not take the inputs in `options`.
    """
    from vggscope.checkpoint.formats.bounded_file import BoundedFile
    from vggscope.checkpoint.formats.torch7 import model_in, read_objects
    from vggscope.checkpoint.network import network_of_checkpoint
    from vggscope.checkpoint.reader import explained
    from vggscope.foreign.layer_graph import check_classes, given_shapes, naming_file
    from vggscope.foreign.torch7.network import network_of_torch7

    with explained(word), BoundedFile(word) as file:
        model = model_in(read_objects(file).value)
    if model is None:
        return network_of_checkpoint(word, options)
    options.refuse_column_options(f"{word} has its layers", takes_soft_max=True)
    name = printable(os.path.basename(word))
    with naming_file(word):
        network = network_of_torch7(model.module, name, given_shapes(options), soft_max=options.soft_max)
    return check_classes(network, options)
