"""A net of Caffe: `deploy.prototxt`, or weights that hold theirs, `model.caffemodel`. No data of weights is read.

Caffe keeps a net in text and its weights in two files. The other one, beside the file that is named, is read too.
"""

from __future__ import annotations

import os
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING

from vggscope.errors import CheckpointError, printable
from vggscope.graph import Network
from vggscope.vgg.options import BuildOptions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vggscope.foreign.caffe.net import CaffeNet

_TEXT, _WEIGHTS = ".prototxt", ".caffemodel"

_MOST_FILES = 1000
"""Files of a folder that are looked at."""


def claims(word: str) -> bool:
    """Whether the word has a suffix of Caffe's files."""
    return word.lower().endswith((_TEXT, _WEIGHTS))


def load(word: str, options: BuildOptions) -> Network:
    """The Network of the file's net, named after the file; of its weights where there is no net.

    A net in text is read with the shapes of the weights beside it, and weights without a net with the net in text
    beside them. Raises ModelError where the file cannot be read, OptionError for an option that contradicts it, and
    ShapeError where the net does not take the inputs in `options`.
    """
    network = graph(word, options)
    if network is None:
        from vggscope.checkpoint.network import network_of_checkpoint

        return network_of_checkpoint(word, options)
    return network


def graph(word: str, options: BuildOptions) -> Network | None:
    """The Network of the file's net, or of the one beside it; None for weights without one. Raises as `load` does."""
    from vggscope.foreign.caffe.network import network_of_caffe
    from vggscope.foreign.layer_graph import check_classes, given_shapes, naming_file

    net = _read(word)
    if word.lower().endswith(_TEXT):
        net, note = _with_weights_beside(word, net)
    elif any(layer.bottoms for layer in net.layers):
        note = ""
    else:
        found = _net_beside(word, net)
        if found is None:
            return None
        net, note = found
    options.refuse_column_options(f"{word} has its layers", takes_soft_max=True)
    name = printable(os.path.basename(word))
    with naming_file(word):
        network = network_of_caffe(net, name, given_shapes(options), soft_max=options.soft_max)
    if note:
        network = replace(network, warnings=(*network.warnings, note))
    return check_classes(network, options)


def _read(path: str) -> CaffeNet:
    from vggscope.checkpoint.formats.bounded_file import BoundedFile
    from vggscope.checkpoint.reader import explained
    from vggscope.foreign.caffe.net import read_binary, read_text

    with explained(path), BoundedFile(path) as file:
        return read_text(file) if path.lower().endswith(_TEXT) else read_binary(file)


def _with_weights_beside(word: str, net: CaffeNet) -> tuple[CaffeNet, str]:
    """The net with the shapes of the weights beside it, and a note on them; as it is where they are not its own."""
    from vggscope.foreign.caffe.net import with_weights

    path = _beside(word, _WEIGHTS)
    if path is None:
        return net, ""
    shown = f"{_shown(path)}, beside it,"
    try:
        joined, missing = with_weights(net, _read(path))
    except CheckpointError as error:
        return net, f"{shown} is not read: {error.problem}"
    if joined is net:
        return net, ""
    return joined, f"{shown} has {_what(missing)}"


def _net_beside(word: str, weights: CaffeNet) -> tuple[CaffeNet, str] | None:
    """The net beside weights without one, with their shapes, and a note on it; None where no net is theirs."""
    from vggscope.foreign.caffe.net import with_weights

    path = _beside(word, _TEXT)
    if path is None:
        return None
    net = _read(path)
    joined, missing = with_weights(net, weights)
    if joined is net:
        return None
    return joined, f"the layers are those of {_shown(path)}, beside it, and the file has {_what(missing)}"


def _what(missing: Sequence[str]) -> str:
    if not missing:
        return "the weights of all its layers"
    more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
    return f"no weights of {printable(missing[0], 60)}{more}"


def _beside(word: str, suffix: str) -> str | None:
    """The file with this suffix that belongs to a file: of its name, of a name that begins with it or the other way
    round (`VGG_16.caffemodel`, `VGG_16_deploy.prototxt`), or the only one in the folder; None for several.
    """
    folder, name = os.path.split(word)
    stem = os.path.splitext(name)[0].lower()
    try:
        with os.scandir(folder or ".") as entries:
            names = [entry.name for entry in islice(entries, _MOST_FILES) if entry.name.lower().endswith(suffix)]
    except OSError:
        return None
    # A solver is no net, and a deploy file is the one of a folder's nets that is meant for use.
    names = sorted(each for each in names if "solver" not in each.lower())
    stems = {each: os.path.splitext(each)[0].lower() for each in names}
    same = [each for each in names if stems[each] == stem]
    near = [each for each in names if stems[each].startswith(stem) or stem.startswith(stems[each])]
    deploys = [each for each in names if "deploy" in stems[each]]
    chosen = next((each for each in (same, near, deploys, names) if len(each) == 1), None)
    return os.path.join(folder, chosen[0]) if chosen else None


def _shown(path: str) -> str:
    return printable(os.path.basename(path), 60)
