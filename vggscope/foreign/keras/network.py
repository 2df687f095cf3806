"""A model of Keras as a Network in torch's layout, under the file's own names.

Keras keeps the channels last: its maps are height x width x channels, its kernels height x width x inputs x outputs,
and a Flatten goes pixel by pixel. The Network has the same function with the channels first. Each permutation of a
weight that this takes is a warning of the Network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from vggscope.errors import CheckpointError, ShapeError, option, printable
from vggscope.foreign.keras.layers import run
from vggscope.foreign.keras.model import KerasModel, Stated, dtype_name, special_policy
from vggscope.foreign.keras.step import TRANSPOSES, KerasGraph, KerasStep, KerasTensor
from vggscope.foreign.layer_graph import Incomplete, LayerGraph, check_given, given_for, overwriting
from vggscope.graph import Network
from vggscope.ops.base import Shape
from vggscope.units import kernel_text

SIDE, LENGTH = 224, 32
"""The size of a side of an image, and of any other axis, that the file leaves open."""

_MANY = 4
"""The most layers that a warning names."""


def network_of_keras(
    model: KerasModel, name: str, given: Mapping[str | int, Shape] | None = None, *, soft_max: bool = False
) -> Network:
    """Return the Network of a model, under the model's own names.

    `given` are shapes of inputs without the batch, channels first, by name or by place. A softmax that ends the model
    is left out unless `soft_max`. Raises CheckpointError, without the path, for a model that is none, and ShapeError
    for inputs that it does not take.
    """
    formats = [call.config.get("data_format") for call in model.calls]
    channels_first = next((each for each in formats if each), "") == "channels_first"
    return _KerasWalk(model, given or {}, KerasGraph(soft_max, channels_first)).network(name)


@dataclass
class _KerasWalk:
    """The walk through the calls of a model."""

    model: KerasModel
    given: Mapping[str | int, Shape]
    keras: KerasGraph

    @property
    def graph(self) -> LayerGraph:
        return self.keras.graph

    def network(self, name: str) -> Network:
        """Walk, and return the Network."""
        self.graph.dtype = _main_dtype(self.model)
        self._give_inputs()
        ends = {key for _, key in self.model.outputs}
        try:
            for call in self.model.calls:
                run(KerasStep(self.keras, call, [self.keras.tensors[key] for key in call.inputs], call.output in ends))
            outputs = {
                label: self.keras.plain(label, self.keras.tensors[key], keeps_map=True).source
                for label, key in self._ends()
            }
        except Incomplete as error:
            self.graph.fail(error.failed)
            outputs = {}
        if self.graph.failure is None and not set(outputs.values()) & self.graph.nodes.keys():
            raise CheckpointError("it has no layers that compute anything", "give a model with its layers")
        network = self.graph.network(name, outputs, self._notes())
        return network if network.failure is not None else overwriting(network)

    def _ends(self) -> list[tuple[str, str]]:
        """The outputs under names of their own."""
        names: dict[str, str] = {}
        for label, key in self.model.outputs:
            own = label if label not in names else f"{label}:{len(names)}"
            names[own] = key
        return list(names.items())

    def _notes(self) -> list[str]:
        """What differs between the file's layout and torch's, and what was left out."""
        notes = []
        if self.keras.dropped:
            listed = ", ".join(printable(name, 60) for name in self.keras.dropped[:_MANY])
            why = f"the loss computes the softmax at the end; {option('soft_max')} keeps it"
            notes.append(f"{listed} {'is' if len(self.keras.dropped) == 1 else 'are'} left out: {why}")
        if self.keras.uncounted:
            names = list(dict.fromkeys(self.keras.uncounted))
            listed = ", ".join(printable(name, 60) for name in names[:_MANY])
            more = f" and {len(names) - _MANY} more layers" if len(names) > _MANY else ""
            notes.append(f"the parameters of {listed}{more} are not counted: there is no rule for such a layer")
        found = dict.fromkeys(special_policy(call.config.get("dtype")) for call in self.model.calls)
        if policies := [printable(policy, 60) for policy in found if policy][:_MANY]:
            what = (
                f"has the dtype policy {' and '.join(policies)}: the figures are those of {self.graph.dtype} throughout"
            )
            notes.append(f"the model {what}")
        if any(tensor.is_first for tensor in self.keras.tensors.values()):
            notes.append("its maps have the channels last, shown with the channels first: numpy.moveaxis(x, -1, 1)")
        if self.keras.kernels:
            theirs = " and ".join(self.keras.kernels)
            ours = " and ".join(f"kernel.{TRANSPOSES[axes]}" for axes in self.keras.kernels)
            notes.append(f"its kernels are {theirs}, shown as torch's: {ours}")
        for name, (sides, units) in list(self.keras.reordered.items())[:_MANY]:
            channels, *rest = sides
            shape = ", ".join(map(str, (*rest, channels, units)))
            axes = ", ".join(map(str, (len(sides), len(sides) - 1, *range(len(rest)))))
            notes.append(
                f"{printable(name, 60)} reads a flattened map pixel by pixel, shown channel by channel: "
                f"kernel.reshape({shape}).transpose({axes}).reshape({units}, -1)"
            )
        return notes

    # inputs

    def _give_inputs(self) -> None:
        names = [name for name, _, _ in self.model.inputs]
        if not names:
            raise CheckpointError("it has no inputs", "the file is damaged")
        check_given(self.given, names)
        for place, (name, stated, dtype) in enumerate(self.model.inputs):
            is_first = self._moves(name, stated)
            axes = None if stated is None else _first(stated[1:]) if is_first else stated[1:]
            shape = given_for(self.given, place, name, axes)
            if shape is None:
                if axes is None:
                    raise ShapeError(
                        f"the file states no shape of {printable(name, 60)}", f"give {option('input_size')}"
                    )
                shape = self._chosen(name, axes, is_first)
            elif axes is not None and any(own not in (None, size) for own, size in zip(axes[:1], shape[:1])):
                raise ShapeError(
                    f"the file fixes the {'channels' if is_first else 'first axis'} of {printable(name, 60)} as "
                    f"{axes[0]}, {kernel_text(shape)} has {shape[0]}",
                    f"leave {option('input_size')} out",
                )
            if any(side < 1 for side in shape):
                raise ShapeError(f"the file's input {printable(name, 60)} has an empty side")
            if stated is None and len(shape) >= 3 and not self.keras.channels_first:
                is_first = True
            self.graph.give(name, (1, *shape), "" if dtype == self.graph.dtype or dtype.startswith("mixed") else dtype)
            self.keras.tensors[name] = KerasTensor(name, is_first)

    def _moves(self, name: str, stated: Stated | None) -> bool:
        """Whether an input gets its channels first: maps, and sequences that a convolution reads first."""
        if stated is None or self.keras.channels_first:
            return False
        first = next((call.type for call in self.model.calls if name in call.inputs), "")
        return len(stated) >= 4 or (len(stated) == 3 and first.endswith("1D"))

    def _chosen(self, name: str, axes: Stated, is_first: bool) -> Shape:
        """The shape that the file states, with a note on the axes that it leaves open."""
        usual = SIDE if len(axes) == 3 else LENGTH
        is_channels = [is_first and place == 0 for place in range(len(axes))]
        shape = tuple((3 if c else usual) if size is None else size for size, c in zip(axes, is_channels))
        if shape != axes:
            self.graph.warnings.append(
                f"the file leaves sizes of {printable(name, 60)} open, {kernel_text(shape)} is taken; "
                f"{option('input_size')} gives another"
            )
        return shape


def _main_dtype(model: KerasModel) -> str:
    """The dtype of the variables: that of the first layer that names one."""
    for call in model.calls:
        if "dtype" in call.config and ("units" in call.config or "filters" in call.config):
            name = dtype_name(call.config["dtype"])
            return name if name in ("float16", "bfloat16", "float64") else "float32"
    return "float32"


def _first(axes: Stated) -> Stated:
    return (axes[-1], *axes[:-1])
