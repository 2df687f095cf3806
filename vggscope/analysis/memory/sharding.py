"""What FSDP2 allocates beside the tensors of a step: whole weights, and the buffers of its collectives.

torch.distributed.fsdp.fully_shard makes a unit of each module with parameters, and one of the whole network. The order
of allocations is that of torch/distributed/fsdp/_fully_shard, `_fsdp_param_group.py` and `_fsdp_collectives.py`.
"""

from __future__ import annotations

from collections.abc import Iterable

from vggscope.analysis.memory.allocation_log import BatchLinear, StepLog
from vggscope.analysis.memory.step_config import Shards
from vggscope.graph import Network, Node, Parameter
from vggscope.record import record

ROOT = ""
"""The path of the unit of the network itself, with its own parameters and those that several modules share."""


@record
class Unit:
    """The parameters that are gathered and reduced together. `path` is the module that is wrapped.

    `has_gradient`: an input of the module gets a gradient. If none does, torch reduces the unit's gradients after the
    backward pass.
    """

    path: str
    parameters: tuple[Parameter, ...]
    has_gradient: bool


def units_of(network: Network, trained: Iterable[str]) -> dict[str, Unit]:
    """The units of a network by their paths, in the order of their first calls."""
    paths: dict[str, str] = {}
    for node in network.nodes:
        for p in node.parameters:
            path = _common(_owner(p), node.name) if node.module is None else node.module
            paths[p.name] = path if paths.get(p.name, path) == path else ROOT
    called = set(paths.values())
    members: dict[str, list[Parameter]] = {}
    for p in network.parameters():
        if (path := paths.get(p.name, _owner(p))) in called:
            members.setdefault(path, []).append(p)
    fed = _fed_by_gradients(network, frozenset(trained), frozenset(members))
    return {path: Unit(path, tuple(parameters), path in fed) for path, parameters in members.items()}


def _common(module: str, layer: str) -> str:
    """The innermost module that both are in: a function that reads the parameters of a module may be outside of it."""
    around = [one for one, other in zip(_path_to(module), _path_to(layer)) if one == other]
    return around[-1]


def _owner(parameter: Parameter) -> str:
    return parameter.name.rpartition(".")[0]


def _fed_by_gradients(network: Network, trained: frozenset[str], paths: frozenset[str]) -> set[str]:
    """The paths of the modules of which an input from outside requires a gradient."""
    differentiable: dict[str, Node] = {}
    fed = set()
    for node in network.nodes:
        inputs = [differentiable[name] for name in node.inputs if name in differentiable]
        for path in _around(node.name, paths):
            if any(path not in _around(other.name, paths) for other in inputs):
                fed.add(path)
        if not node.detached and (inputs or any(p.name in trained for p in node.parameters)):
            differentiable[node.name] = node
    return fed


def _around(layer: str, paths: Iterable[str]) -> list[str]:
    """The given modules that a layer is, or is in, the outermost first."""
    return [path for path in _path_to(layer) if path in paths]


def _path_to(layer: str) -> list[str]:
    """The modules from the network's own to a layer."""
    parts = layer.partition(":")[0].split(".")
    return [ROOT, *(".".join(parts[:end]) for end in range(1, len(parts) + 1))]


class ShardedUnits:
    """The whole weights of the units and the buffers of their collectives, as the layers of a step run.

    The caller names the layer before its calls: `leave` ends the units that the layer is not in, `enter` begins those
    that it is in. An empty layer is in none. `paths` are the units of parameters. `gradients` are the tensors of the
    whole gradients by unit and name, until they are reduced. Without sharded gradients there are no units.
    """

    def __init__(self, log: StepLog, network: Network, shards: Shards, trained: Iterable[str]) -> None:
        self.log, self.network, self.shards = log, network, shards
        self.trained = frozenset(trained)
        self.units = units_of(network, self.trained) if shards.parallel.gradients else {}
        self.paths = {p.name: unit.path for unit in self.units.values() for p in unit.parameters}
        self.gradients: dict[str, dict[str, int]] = {path: {} for path in self.units}
        self._open: list[tuple[str, str]] = []
        self._whole: dict[str, int] = {}
        self._gathered: dict[str, int] = {}
        self._last_gathered: int | None = None
        self._forward_order: list[str] = []
        self._positions: dict[str, list[int]] = {}
        self._reduced: dict[str, int] = {}
        self._reduce_input: int | None = None
        self._is_done: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self.units)

    def leave(self, event: str, layer: str) -> None:
        """End the units that run in the event and that this next layer is not in."""
        wanted = self._chain(layer)
        while self._open and self._open != wanted[: len(self._open)]:
            path, _ = self._open.pop()
            if event != "backward":
                self._end_forward_of(path, event)
            elif self.units[path].has_gradient:
                self._reduce(path)
        if event == "forward" and not layer:
            self._release_last_gathered()

    def enter(self, event: str, layer: str) -> None:
        """Begin the units that a layer is in."""
        for path, call in self._chain(layer)[len(self._open) :]:
            self._open.append((path, call))
            self._gather(path)
            self._wait(path, event)
            if event == "backward" and self._positions.get(path):
                self._prefetch(self._positions[path].pop())

    def keep_gradient(self, layer: str, size: int, tensor: int) -> None:
        """Keep a whole gradient that a layer allocated, with that of a parameter of this size, until it is reduced."""
        paths = [path for path, _ in reversed(self._chain(layer))]
        for path in (*paths, *(path for path in self.units if path not in paths)):
            waiting = self.trained.difference(self.gradients[path])
            for p in self.units[path].parameters:
                if p.name in waiting and self.network.bytes_of(p) == size:
                    self.gradients[path][p.name] = tensor
                    return

    def end_backward(self) -> None:
        """End the units at the end of the backward pass, and reduce the gradients that were not."""
        self._positions.clear()
        self._open, remaining = [], [path for path in self.units if path not in self._is_done]
        for path in sorted(remaining, key=lambda path: path != ROOT):
            self._reduce(path)
        self._is_done.clear()
        self._forward_order.clear()
        self.log.release(*self._gathered.values())
        self._gathered.clear()
        self._release_reduce_input()

    def _chain(self, layer: str) -> list[tuple[str, str]]:
        """The units that a layer is in, outermost first, with the call if the layer is the unit's module itself."""
        if not layer or not self.units:
            return []
        base = layer.partition(":")[0]
        return [(path, layer if path == base else "") for path in _around(layer, self.units)]

    def _size(self, path: str, *, trained: bool = False) -> int:
        """The bytes of a GPU's part of a unit's parameters, or of the gradients of those that are trained."""
        parameters = self.units[path].parameters
        return sum(
            self.shards.part(p.shape) * self.network.element_bytes_of(p)
            for p in parameters
            if not trained or p.name in self.trained
        )

    def _allocate(self, kind: str, path: str, size: int) -> int:
        return self.log.allocate(kind, BatchLinear(size, 0), path)

    def _gather(self, path: str) -> None:
        """Allocate the output of a unit's all-gather."""
        if self.shards.parallel.weights and path not in self._whole and path not in self._gathered:
            size = self._size(path) * self.shards.gpus if self.shards.gpus > 1 else 0
            self._gathered[path] = self._allocate("temporary", path, size)

    def _wait(self, path: str, event: str) -> None:
        """Copy the gathered weights. In a forward pass the buffer stays until those of the next unit are copied."""
        if path not in self._gathered:
            return
        self._whole[path] = self._allocate("parameters", path, self._size(path) * self.shards.gpus)
        gathered = self._gathered.pop(path)
        if event == "backward":
            self.log.release(gathered)
        else:
            self._release_last_gathered()
            self._last_gathered = gathered

    def _prefetch(self, position: int) -> None:
        """Gather the unit that ran before the one at this position of the forward pass."""
        if position:
            self._gather(self._forward_order[position - 1])

    def _end_forward_of(self, path: str, event: str) -> None:
        """Free the whole weights of a unit, but for the network's own, and for those that a backward pass needs."""
        if event == "recompute":
            self._release_last_gathered()
            return
        self._positions.setdefault(path, []).append(len(self._forward_order))
        self._forward_order.append(path)
        if path != ROOT:
            self._free_whole(path)

    def _free_whole(self, path: str) -> None:
        if path in self._whole:
            self.log.release(self._whole.pop(path))

    def _release_last_gathered(self) -> None:
        if self._last_gathered is not None:
            self.log.release(self._last_gathered)
            self._last_gathered = None

    def _release_reduce_input(self) -> None:
        if self._reduce_input is not None:
            self.log.release(self._reduce_input)
            self._reduce_input = None

    def _reduce(self, path: str) -> None:
        """Copy a unit's gradients into the input of a reduce-scatter, which stays until the next one's, and keep a part
        of their sum.
        """
        self._free_whole(path)
        self._release_reduce_input()
        if self._positions.get(path):
            return  # an earlier call of the module adds to the gradients
        self._is_done.add(path)
        size = self._size(path, trained=True)
        if not size:
            return
        self._reduce_input = self._allocate("temporary", path, size * self.shards.gpus)
        gradients = [
            self.gradients[path].pop(p.name) for p in self.units[path].parameters if p.name in self.gradients[path]
        ]
        # A loop variable of torch's foreach_reduce names the last gradient until it returns.
        named = gradients[-1:] if self.shards.gpus > 1 else []
        self.log.release(*gradients[: len(gradients) - len(named)])
        reduced = self._allocate("gradients", path, size)
        if path in self._reduced:
            self.log.release(reduced)  # it is added to that of an earlier micro-batch
        else:
            self._reduced[path] = reduced
        self.log.release(*named)
