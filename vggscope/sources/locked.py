"""The Network in a file that `vggscope lock` wrote, for the sources that read one."""

from __future__ import annotations

import os
from dataclasses import replace

from vggscope.errors import ModelError, OptionError, ShapeError, option, printable
from vggscope.files import near_file
from vggscope.graph import Network
from vggscope.inputs import Inputs
from vggscope.lock_file import LARGEST_FILE, from_values, parse
from vggscope.units import bytes_text, shape_text
from vggscope.vgg.options import BuildOptions

SUMMARY = "vggscope/summary@"
"""How the schema of `summary --format json` begins."""

REMEDY = "write it again: vggscope lock MODEL -o arch.json"


def read(path: str) -> Network:
    """The Network of a file. Raises ModelError, with the place, where the file is none or cannot be read."""
    name, data = printable(os.path.basename(path)), read_bytes(path)
    try:
        values = parse(data.decode())
        if str(values.get("schema")).startswith(SUMMARY):
            raise ModelError(
                f"{name} is a summary: it lacks which layers a layer reads, its groups and its parameters' keys",
                REMEDY,
            )
        return replace(from_values(values), name=name)
    except ValueError as error:
        raise ModelError(f"{name} is no lock of an architecture: {printable(str(error), 300)}", REMEDY) from None


def read_bytes(path: str) -> bytes:
    """The bytes of a file. Raises ModelError where it cannot be read."""
    name = printable(os.path.basename(path))
    try:
        # To open a pipe would wait for its writer.
        if os.path.exists(path) and not os.path.isfile(path):
            raise ModelError(f"{name} is no file", REMEDY)
        with open(path, "rb") as file:
            data = file.read(LARGEST_FILE + 1)
    except FileNotFoundError:
        raise ModelError(f"{name}: there is no such file{near_file(path)}", REMEDY) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ModelError(f"{name}: {reason.lower()}", REMEDY) from None
    if len(data) > LARGEST_FILE:
        raise ModelError(f"{name} has more than {bytes_text(LARGEST_FILE)}, the most that is read", REMEDY)
    return data


def sized(network: Network, options: BuildOptions) -> Network:
    """The network on the input that the options name.

    Raises OptionError for an option that contradicts the file, and ShapeError where its layers do not fit the size.
    """
    options.refuse_column_options(f"{network.name} has its layers")
    network = _on_input(network, options)
    if options.num_classes is not None:
        have = network.shapes[network.end][-1:]
        if have != (options.num_classes,):
            raise OptionError(
                f"{option('num_classes', options.num_classes)}: the file's output is"
                f" {shape_text(network.shapes[network.end])}",
                "leave the option out",
            )
    return network


def _on_input(network: Network, options: BuildOptions) -> Network:
    shapes = [(1, *options.input)] if options.inputs is None and options.input else _shapes(network, options.inputs)
    if not shapes or shapes == [given.shape for given in network.inputs]:
        return network
    has_batch_first = options.inputs is None or options.inputs.batch_axis == 0
    if len(shapes) != 1 or not network.takes_one_image or not has_batch_first:
        raise OptionError(f"{network.name} keeps its inputs", f"leave out {option('input_size')}")
    sized = network.with_input(shapes[0][1:])
    locked, given = (shape_text(net.input_shape) for net in (network, sized))
    note = f"the layers were locked at {locked}: a size that forward computes from its input is not that of {given}"
    returned = tuple(replace(out, shape=sized.shapes[out.source]) for out in network.returned if out.source)
    if len(returned) < len(network.returned):
        raise ShapeError(f"{network.name} is known at {locked} alone", f"leave out {option('input_size')}")
    return replace(sized, returned=returned, warnings=(*network.warnings, note))


def _shapes(network: Network, inputs: Inputs | None) -> list[tuple[int, ...]]:
    """The shapes of inputs with a batch of one; empty for no inputs."""
    if inputs is None:
        return []
    if inputs.data is None:
        stated = [*(given.shape for given in network.inputs), *((),) * len(inputs.sizes)]
        return [size.for_stated(shape, inputs.batch_axis) for size, shape in zip(inputs.sizes, stated)]
    from vggscope.trace.inputs import from_data

    return [tuple(tensor.shape) for tensor in from_data(inputs.data, inputs.batch_axis).for_samples(1).tensors()]
