"""A network of MatConvNet's SimpleNN: `imagenet-vgg-verydeep-16.mat`. No data of weights is read."""

from __future__ import annotations

import os

from vggscope.errors import OptionError, option, printable
from vggscope.graph import Network
from vggscope.vgg.options import BuildOptions


def claims(word: str) -> bool:
    """Whether the word has the suffix of MATLAB's files."""
    return word.lower().endswith(".mat")


def load(word: str, options: BuildOptions) -> Network:
    """The Network of the file's net, named after the file.

    Raises ModelError where the file cannot be read, OptionError for an option that contradicts it, and ShapeError where
    the net does not take the inputs in `options`.
    """
    from vggscope.checkpoint.formats.bounded_file import BoundedFile
    from vggscope.checkpoint.formats.matconvnet import read_net
    from vggscope.checkpoint.reader import explained
    from vggscope.foreign.layer_graph import given_shapes, naming_file
    from vggscope.foreign.matconvnet.network import network_of_matconvnet

    name = printable(os.path.basename(word))
    with explained(word), BoundedFile(word) as file:
        net = read_net(file)
    options.refuse_column_options(f"{word} has its layers", takes_soft_max=True)
    with naming_file(word):
        network = network_of_matconvnet(net, name, given_shapes(options), soft_max=options.soft_max)
    # Classes are channels: the last layer is a convolution.
    wanted = options.num_classes
    if wanted is not None and network.failure is None and network.shapes[network.end][1:2] != (wanted,):
        raise OptionError(f"{option('num_classes', wanted)}: the file has its own", "leave it out")
    return network


def graph(word: str, options: BuildOptions) -> Network:
    """The Network of the file's net. Raises as `load` does."""
    return load(word, options)
