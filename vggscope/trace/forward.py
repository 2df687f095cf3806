"""Call a module's forward once, with its tensors replaced, and record what it calls."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from vggscope.errors import ModelError, OptionError
from vggscope.record import record
from vggscope.trace.batch_size import NeedsPlainSizes
from vggscope.trace.constants import ConstantValues, value_of_parameter
from vggscope.trace.inputs import CallInputs, computed_copies, copied_with
from vggscope.trace.kept_outside import note_run, note_sizes
from vggscope.trace.other_batches import MANY, OtherBatches
from vggscope.trace.parts import buffers_of, has_usual_parts, parts_of, registered_tensors
from vggscope.trace.recorder import Constant, Recorder
from vggscope.trace.tensor_map import TensorMap
from vggscope.trace.tensors import meta_copy, meta_weight, plain_kinds
from vggscope.trace.unseen import unwatched
from vggscope.trace.watch import Watch
from vggscope.trace.weight_calls import WeightCalls
from vggscope.trace.writes import Writes

if TYPE_CHECKING:
    from torch import Tensor, nn

META = "meta"
"""torch's name for the device whose tensors have a shape and no data."""


@record
class Forward:
    """A module with its parameters and packed weights as constants, on the device of a run, and its own dtype.

    `restore` undoes what forward has changed. `gradients`: the parameters require gradients.
    `training`: the module is in training mode. `samples` is the batch whose figures are wanted. `compares`, `describes`
    and `memory` are as a Recorder's. `paths` are the paths of the module's parts by id. `follows_batches`: a run on one
    sample finds what other batches would do.
    """

    module: nn.Module
    owned: Mapping[str, Constant]
    paths: Mapping[int, str]
    packed: Mapping[str, Tensor]
    device: str
    dtype: str
    restore: Callable[[], None]
    gradients: bool = False
    compares: bool = True
    describes: bool = True
    training: bool = False
    samples: int = 1
    memory: bool = True
    follows_batches: bool = True

    def __call__(self, inputs: CallInputs) -> tuple[Watch, Exception | None]:
        """Return the watched run of forward on these inputs, with the error that it raised."""
        import torch

        module, device = self.module, self.device
        state = replacement_tensors(module, lambda tensor: _for_run(tensor, device, self.gradients))
        constants = self._constants(state)
        recorder = Recorder(
            TensorMap(self._owned(state)),
            constants,
            Writes(TensorMap()),
            frozenset(self.paths.values()),
            WeightCalls(constants.buffers, self.dtype),
            dtype=self.dtype,
            compares=self.compares,
            describes=self.describes,
            memory=self.memory,
        )
        if device == META:
            note_run(partial(list, recorder.origins))
        watch = Watch(
            recorder,
            self.paths,
            device == META,
            self.gradients,
            packed=_by_layer(self.packed),
            compares=self.compares,
        )
        inputs = inputs.map(meta_copy) if device == META else inputs.to(device).map(lambda t: t.detach().clone())
        watch.recorder.begin(inputs.named(module))
        if self.follows_batches and inputs.has_batch and inputs.batch == 1:
            watch.others = OtherBatches(recorder, (*dict.fromkeys((2, self.samples, MANY)),))
            watch.others.begin(inputs.tensors(), [*map(inputs.batch_axis_of, inputs.tensors())])
        try:
            with (
                layers_of_training(module) if self.training else module_mode(module, False),
                _plain_execution(watch),
                torch.device(device),
                watch.watching(),
            ):
                _end(recorder, called(module, state, inputs))
            watch.keeps_tensors = recorder.has_kept()
        except NeedsPlainSizes:
            assert watch.others is not None
            watch.others.want_plain_sizes()
        except OptionError:
            raise  # of a rule that the user has registered
        except (Exception, SystemExit) as error:
            return watch, error if isinstance(error, Exception) else RuntimeError("forward calls sys.exit")
        finally:
            self.restore()
            _require_one_thread(watch)
            if watch.others is not None:
                watch.others.end()
                if watch.others.are_read:
                    note_sizes()
        return watch, None

    def _owned(self, state: Mapping[str, Tensor]) -> list[tuple[Tensor, Constant]]:
        """Return the tensors of a run that are parameters, or packed weights, with their origins."""
        tensors = {**state, **self.packed}
        return [(tensors[key], constant) for key, constant in self.owned.items() if key in tensors]

    def _constants(self, state: Mapping[str, Tensor]) -> ConstantValues:
        """Return what is known of the parameters and buffers in a run, if it describes constants."""
        if not self.describes:
            return ConstantValues(TensorMap(), TensorMap())
        known = [(tensor, value_of_parameter(*constant.parameters)) for tensor, constant in self._owned(state)]
        buffers = [(key, buffer) for key, buffer in with_shape(buffers_of(self.module)) if key in state]
        constants = ConstantValues(TensorMap(known), TensorMap((state[key], key) for key, _ in buffers))
        for key, buffer in buffers:
            constants.keep(state[key], buffer)
        return constants


def _by_layer(packed: Mapping[str, Tensor]) -> dict[str, list[Tensor]]:
    """Return packed weights by the paths of their layers."""
    by_layer: dict[str, list[Tensor]] = {}
    for key, weight in packed.items():
        by_layer.setdefault(key.rpartition(".")[0], []).append(weight)
    return by_layer


def _end(recorder: Recorder, result: object) -> None:
    """Record what forward returns, without watching how its tensors are read. Nothing may keep them alive."""
    with unwatched():
        recorder.end(result)


def _require_one_thread(watch: Watch) -> None:
    """Raise ModelError if forward has called torch in a thread of its own, where calls are not recorded."""
    if watch.thread_call:
        raise ModelError(
            f"forward calls {watch.thread_call} of torch in a thread of its own, where no call is recorded",
            "call it in forward itself, or by a ThreadPoolExecutor",
        )


def called(module: nn.Module, state: dict[str, Tensor], inputs: CallInputs) -> object:
    """Return what forward returns with these parameters and buffers."""
    with replaced_tensors(module, state):
        return inputs.call(module)


def replaced_tensors(module: nn.Module, state: dict[str, Tensor]) -> AbstractContextManager[None]:
    """Replace the parameters and buffers of a module within the block, as torch.func.functional_call does."""
    import torch

    if isinstance(module, torch.jit.ScriptModule):
        # torch replaces the tensors of a TorchScript module only inside another module.
        module = torch.nn.Sequential(module)
        state = {f"0.{key}": tensor for key, tensor in state.items()}
    if has_usual_parts(module) and {type(part._parameters) for part in parts_of(module)} == {dict}:
        return _exchanged(module, state)
    # With tie_weights, torch ties shared tensors by name and does not restore a module that has two names.
    return torch.nn.utils.stateless._reparametrize_module(module, state, tie_weights=False)


@contextmanager
def _exchanged(module: nn.Module, state: Mapping[str, Tensor]) -> Iterator[None]:
    """Replace tensors in the dicts that hold them within the block: torch looks up each one by its path."""
    replaced = [registered for registered in registered_tensors(module) if registered[0] in state]
    for path, _, holder, name in replaced:
        holder[name] = state[path]
    try:
        yield
    finally:
        for _, tensor, holder, name in replaced:
            holder[name] = tensor


def with_shape(named: Iterable[tuple[str, Tensor]]) -> list[tuple[str, Tensor]]:
    """Return the tensors that have a shape: those of a lazy layer have none before its first call."""
    from torch.nn.parameter import is_lazy

    return [(key, tensor) for key, tensor in named if not is_lazy(tensor)]


def replacement_tensors(module: nn.Module, replacement: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    """Return a replacement for each parameter and buffer by name, with the sharing of the module's own."""
    replaced: dict[int, Tensor] = {}
    state = with_shape((path, tensor) for path, tensor, *_ in registered_tensors(module))
    for _, tensor in state:
        if id(tensor) not in replaced:
            replaced[id(tensor)] = replacement(tensor)
    return {key: replaced[id(tensor)] for key, tensor in state}


def _for_run(tensor: Tensor, device: str, gradients: bool) -> Tensor:
    """Return a meta tensor or, on another device, a parameter's data or a copy of a buffer."""
    _, parameter = plain_kinds()
    if isinstance(tensor, parameter):
        values = meta_weight(tensor) if device == META else tensor.detach()
        return parameter(values, gradients and tensor.requires_grad)
    return meta_weight(tensor) if device == META else tensor.clone()


@contextmanager
def module_mode(module: nn.Module, training: bool) -> Iterator[None]:
    """Set the module to training or evaluation mode within the block, then restore the mode of each submodule."""
    before = {part: part.training for part in parts_of(module)}
    modes = modes_after_train(module) if training else dict.fromkeys(before, False)
    _set_modes(modes)
    try:
        yield
    finally:
        _set_modes(before)


def _set_modes(modes: Mapping[nn.Module, bool]) -> None:
    """Set the mode of each module that has another one: nn.Module takes long to set an attribute."""
    for part, mode in modes.items():
        if part.training is not mode:
            part.training = mode


def modes_after_train(module: nn.Module) -> dict[nn.Module, bool]:
    """Return the mode of each submodule after `module.train()`, which a class may override to freeze norms.

    An override may also change weights, or raise. It runs on a copy without data: of the parts with an override alone,
    if they share no part with the others.
    """
    parts = parts_of(module)
    modes = dict.fromkeys(parts, True)
    owners = _owners_of_modes(parts)
    if not owners:
        return modes
    with suppress(Exception):
        apart = _modes_apart(parts, owners) if has_usual_parts(module) else None
        modes.update(_modes_of_copy(module)[0] if apart is None else apart)
    return modes


def _owners_of_modes(parts: Sequence[nn.Module]) -> dict[nn.Module, nn.Module]:
    """Return the parts of those that override `train`, each with the outermost one that it is in."""
    from torch import nn

    owners: dict[nn.Module, nn.Module] = {}
    for part in parts:
        if part not in owners and type(part).train is not nn.Module.train and not isinstance(part, _script_module()):
            owners.update(dict.fromkeys(parts_of(part), part))
    return owners


def _modes_apart(parts: Sequence[nn.Module], owners: Mapping[nn.Module, nn.Module]) -> dict[nn.Module, bool] | None:
    """Return the modes after `train` of the parts with an owner; None if an owner or another part may set others.

    It may if a part is in several others, or if an owner refers to a part that is not in it.
    """
    entered = [
        child
        for part in parts
        for child in part._modules.values()
        if child is not None and owners.get(child) not in (None, owners.get(part))
    ]
    if len(entered) > len(set(entered)) or any(owners[part] is not part for part in entered):
        return None
    modes: dict[nn.Module, bool] = {}
    for owner in dict.fromkeys(owners.values()):
        own, copied = _modes_of_copy(owner)
        if any(id(part) in copied and owners.get(part) is not owner for part in parts):
            return None
        modes.update(own)
    return modes


def _modes_of_copy(module: nn.Module) -> tuple[dict[nn.Module, bool], Container[int]]:
    """Return the modes of the parts of a copy without data after its `train`, and the ids of all that was copied."""
    from torch import nn

    memo = computed_copies(module)
    for parameter in module.parameters():
        memo[id(parameter)] = nn.Parameter(parameter.detach().to(META), parameter.requires_grad)
    memo.update((id(buffer), buffer.detach().to(META)) for buffer in module.buffers())
    copy = copied_with(module, memo)
    copy.train()
    return dict(zip(parts_of(module), (part.training for part in copy.modules()))), memo


def _script_module() -> type[nn.Module]:
    from torch.jit import ScriptModule

    return ScriptModule


@contextmanager
def random_state() -> Iterator[list[bool]]:
    """Restore the states of torch's, Python's and NumPy's random number generators when the block ends.

    Afterwards the yielded list says whether the block has drawn numbers of Python or NumPy, by which a forward may
    choose among layers.
    """
    import torch

    python, numpy = _random_states()
    drawn: list[bool] = []
    try:
        with torch.random.fork_rng(devices=[]):
            yield drawn
    finally:
        drawn.append(_comparable(*_random_states()) != _comparable(python, numpy))
        if drawn[0]:
            random.setstate(python)
            if numpy:
                sys.modules["numpy"].random.set_state(numpy)


def random_numbers_drawn() -> tuple[object, ...]:
    """Return the states of the random number generators of Python and NumPy, to compare them."""
    return _comparable(*_random_states())


def _random_states() -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Return the states of the random number generators of Python and NumPy; that of NumPy is empty without it."""
    numpy = sys.modules.get("numpy")
    return random.getstate(), numpy.random.get_state() if numpy else ()


def _comparable(python: tuple[Any, ...], numpy: tuple[Any, ...]) -> tuple[object, ...]:
    return python, *(part.tobytes() if hasattr(part, "tobytes") else part for part in numpy)


@contextmanager
def layers_of_training(module: nn.Module) -> Iterator[None]:
    """Set a module to training mode within the block, in which it runs the layers of a training step.

    Batch norms stay in evaluation mode, because in training torch refuses one value per channel.
    """
    from torch.nn.modules.batchnorm import _BatchNorm

    with module_mode(module, True):
        for part in module.modules():
            if isinstance(part, _BatchNorm):
                part.training = False
        yield


@contextmanager
def _plain_execution(watch: Watch) -> Iterator[None]:
    """Run the block with gradients, without torch's fast path for Transformer layers, and restore the random state.

    Gradients are on to record where forward turns them off. The fast path would run a layer as one function.
    """
    import torch

    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    drawn: list[bool] = []
    try:
        with torch.enable_grad(), random_state() as drawn:
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
        watch.draws = True in drawn
