"""`explain backward`: what autograd keeps of the forward pass, layer by layer."""

from __future__ import annotations

from vggscope.record import record
from vggscope.sources.resolve import resolve
from vggscope.tutorials.layer import saved_bytes, saved_names
from vggscope.tutorials.tutorial import Tutorial, code, facts, listing, text, tutorial
from vggscope.units import bytes_text
from vggscope.vgg.options import BuildOptions

WORDS, SIDE = "conv3-8 conv3-8 maxpool FC-16 dropout FC-10", 8


@record
class KeptTensors:
    """A layer, what autograd keeps of its call, and the bytes for one image in float32 on a GPU."""

    label: str
    op: str
    keeps: str
    kept_bytes: int


@record
class Backward:
    """The layers of a small network."""

    model: str
    layers: tuple[KeptTensors, ...]


def explain() -> Tutorial:
    """The tensors that each layer of a small network keeps for the backward pass."""
    network = resolve(WORDS, BuildOptions(input=(3, SIDE, SIDE), head="flatten"))
    layers = []
    for node in network.nodes:
        inputs, output = network.input_shapes(node), network.output_shape(node)
        saved = node.op.saved_for_backward(inputs, output)
        keeps, size = saved_names(saved) or "nothing", saved_bytes(saved, inputs, output)
        layers.append(KeptTensors(node.label or node.name, node.op.name, keeps, size))
    return tutorial(
        "backward",
        "backward: what autograd keeps of the forward pass",
        Backward(network.name, tuple(layers)),
        text(f"The layers of {WORDS}, one image of 3x{SIDE}x{SIDE}:"),
        listing(
            ("layer", "op", "it keeps", "bytes"),
            tuple((layer.label, layer.op, layer.keeps, bytes_text(layer.kept_bytes)) for layer in layers),
        ),
        facts(
            {
                "convolution, linear": "dL/dw = (dL/dy) x: the gradient of the weights needs the input",
                "ReLU": "dL/dx = dL/dy where y > 0: the output is enough, so it can overwrite its input",
                "max pooling": "its input, and where each maximum was: an index of 8 bytes for each output",
                "dropout": "the mask: one byte for each value on a GPU",
                "shared": "the input of a layer is the output of the one before: it is in memory once",
                "inference": "under torch.no_grad nothing is kept, so memory does not grow with the depth",
                "in training": "these tensors grow with the batch, and are most of the memory: vggscope explain memory",
            }
        ),
        code(SOURCE, ([[True, False], [False, True]])),
    )


SOURCE = """\
import torch
import torch.nn.functional as F

def keeps(function, x):
    kept = []

    def note(tensor):
        kept.append(tensor.data_ptr())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, note):
        result = function(x)
    return [x.data_ptr() in kept, result.data_ptr() in kept]

w = torch.ones(8, 3, 3, 3, requires_grad=True)
y = [
    keeps(lambda x: F.conv2d(x, w), torch.ones(1, 3, 8, 8)),
    keeps(torch.relu, torch.ones(4, requires_grad=True)),
]
print(y)
"""
