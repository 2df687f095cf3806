"""A net of Caffe: `deploy.prototxt`, or weights that hold theirs, `model.caffemodel`. No data of weights is read."""

from __future__ import annotations

import os

from vggscope.errors import printable
from vggscope.graph import Network
from vggscope.vgg.options import BuildOptions

_TEXT, _WEIGHTS = ".prototxt", ".caffemodel"


def claims(word: str) -> bool:
    """Whether the word has a suffix of Caffe's files."""
    return word.lower().endswith((_TEXT, _WEIGHTS))


def load(word: str, options: BuildOptions) -> Network:
    """The Network of the file's net, named after the file; of its weights where it holds them without a net.

    Raises ModelError where the file cannot be read, OptionError for an option that contradicts it, and ShapeError where
    the net does not take the inputs in `options`.
    """
    from vggscope.checkpoint.formats.bounded_file import BoundedFile
    from vggscope.checkpoint.reader import explained
    from vggscope.foreign.caffe.net import read_binary, read_text
    from vggscope.foreign.caffe.network import network_of_caffe
    from vggscope.foreign.layer_graph import check_classes, given_shapes, naming_file

    name = printable(os.path.basename(word))
    is_text = word.lower().endswith(_TEXT)
    with explained(word), BoundedFile(word) as file:
        net = read_text(file) if is_text else read_binary(file)
    if not is_text and not any(layer.bottoms for layer in net.layers):
        from vggscope.checkpoint.network import network_of_checkpoint

        return network_of_checkpoint(word, options)
    options.refuse_column_options(f"{word} has its layers", takes_soft_max=True)
    with naming_file(word):
        network = network_of_caffe(net, name, given_shapes(options), soft_max=options.soft_max)
    return check_classes(network, options)
