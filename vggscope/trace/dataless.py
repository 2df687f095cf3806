"""Run torch's operators on tensors without data, and compute the form of each kind of result once per process.

FakeTensorMode finds the shape, the strides and the dtype of a result in Python, which takes tenths of a millisecond a
call. A step calls the same operators on tensors of the same forms again and again. FakeTensorMode computes the first
result of a kind; the others are made from what is remembered of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, Union

from vggscope.trace.dataless_tensors import (
    FORM,
    DatalessTensors,
    Form,
    StandIns,
    ViewForm,
    forget_forms,
    form_of,
    storage_id,
    whole_form,
)
from vggscope.trace.parts import parts_of
from vggscope.trace.tensors import tensors_in

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from torch._subclasses.fake_tensor import FakeTensorMode

MOST_FORMS = 50_000
"""How many kinds of calls are remembered. A training step of ViT-B has some 150, of Swin-T 350."""

IN_PLACE = "in place"
"""The result is the first argument, whose form does not change."""

VIEW = "view"
"""The results are views of the arguments that torch's own kernel makes."""

PART = "part"
"""A result is a part of new memory, of which FakeTensorMode's own cache loses the rest."""

Remembered = Union[Form, ViewForm, "tuple[Form | None, ...]", str, None]
"""The form of a result, or of each of several; IN_PLACE; VIEW; PART; None for a call that always runs in
FakeTensorMode.
"""

_remembered: dict[object, Remembered] = {}

_UNSEEN = object()

_operators: dict[int, object] = {}
"""The operators in the keys of `_remembered`, by the numbers that stand for them there. They are never freed."""

_WRITE_FIRST_ALONE: set[int] = set()
"""The operators, by number, that write to no argument but the first."""

_ALONE = frozenset({int, str, type(None)})
"""The types of which a key needs no more than the value."""


def tensors_without_data(module: nn.Module) -> FakeTensorMode:
    """Return a mode in which torch makes tensors without data, for a run of the module."""
    mode: FakeTensorMode = _mode_class()(allow_non_fake_inputs=True)
    if _is_recurrent(module):
        # Their backward returns one gradient for both biases. The mode's cache makes two tensors of it.
        mode.cache_enabled = False
    return mode


@cache
def _mode_class() -> Any:
    from torch._subclasses.fake_tensor import FakeTensorMode

    class DatalessMode(FakeTensorMode):  # type: ignore[no-untyped-call]
        """FakeTensorMode that refuses tensors for which it would read memory that they do not have.

        It gets them from where `DatalessOperators` is not active: another thread, or the time after the run, to which a
        hook may keep a gradient.
        """

        def dispatch(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if any(FORM in vars(tensor) for tensor in tensors_in((args, kwargs))):
                raise RuntimeError(f"{func} on a tensor of a recorded step, which has no data")
            return super().dispatch(func, types, args, kwargs)

    return DatalessMode


def _is_recurrent(module: nn.Module) -> bool:
    from torch import nn

    return any(isinstance(part, nn.RNNBase) for part in parts_of(module))


class DatalessOperators:
    """Runs operators on tensors without data, which claim to be on the CPU. It is entered for the run of a module."""

    def __init__(self, module: nn.Module) -> None:
        import torch
        from torch._subclasses.fake_tensor import FakeTensor

        self.mode: Any = tensors_without_data(module)
        self.tensors = DatalessTensors(self.mode)
        self._new, self._view = self.tensors.new, self.tensors.view
        self._remembers = not _is_recurrent(module)
        self._kind: Any = FakeTensor
        self._tensor, self._device, self._strided = torch.Tensor, torch.device("cpu"), torch.strided
        self._as_strided, self._lift = torch.ops.aten.as_strided.default, torch.ops.aten.lift_fresh.default
        self._resize = torch.ops.aten.resize_.default
        self._default_dtype, self._is_inference = torch.get_default_dtype, torch.is_inference_mode_enabled

    def empty_strided(self, shape: torch.Size, strides: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Return what torch.empty_strided does. FakeTensorMode is active."""
        import torch

        if self._remembers:
            return self.tensors.empty_strided(shape, strides, dtype)
        return torch.empty_strided(shape, strides, dtype=dtype, device=self._device)

    def run(
        self, operator: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[Any, tuple[Tensor | None, ...] | None]:
        """Return the result of an operator, and the tensors in it that have new memory: None if they are not known.

        FakeTensorMode is active.
        """
        try:
            key = self._key(operator, args, kwargs)
            remembered: Any = _remembered.get(key, _UNSEEN)
        except (TypeError, RuntimeError):  # a sparse tensor has no strides
            remembered = None
        if remembered is _UNSEEN:
            remembered = self._first(operator, args, kwargs)
        kind = type(remembered)
        if kind is Form:
            result = self._new(remembered)
            return result, (result,)
        if kind is ViewForm:
            return self._view(remembered, args[0]), ()
        if remembered is IN_PLACE:
            return args[0], ()
        if remembered is VIEW:
            return self.tensors.views(operator, args, kwargs), ()
        if kind is tuple:
            results = tuple([None if form is None else self._new(form) for form in remembered])
            return results, results
        return self._in_mode(operator, args, kwargs, cached=remembered is not PART), None

    def _key(self, operator: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> object:
        """Return what determines the forms of an operator's results.

        Raises TypeError if more does than the arguments' forms. The number of an operator, which is never freed, stands
        for it, because its hash is computed in Python.
        """
        if not self._remembers:
            raise TypeError
        number = _number(operator)
        parts = [number, self._default_dtype(), self._is_inference()]
        fake, part = self._kind, self._part
        for value in args:
            kind = type(value)
            if kind is fake:
                parts.append(vars(value).get(FORM) or part(value))
                if len(parts) == 4 and number in _WRITE_FIRST_ALONE:
                    part = self._part_or_constant  # the result has known data only if all arguments do
            else:
                parts.append(value if kind in _ALONE else part(value))
        if kwargs:
            parts.append((*kwargs, *map(part, kwargs.values())))
        return tuple(parts)

    def _part(self, value: Any) -> object:
        """Return what matters of an argument. Raises TypeError for one of which the data matter, or more."""
        kind = type(value)
        if kind is self._kind:
            if value.constant is not None or value.fake_device != self._device or value.is_neg():
                raise TypeError
            return form_of(value)
        if kind is list or kind is tuple:
            return (kind, *(value if _ALONE.issuperset(map(type, value)) else map(self._part, value)))
        if kind is bool or kind is float:  # 1 == True == 1.0
            return kind, value
        if isinstance(value, self._tensor):
            raise TypeError
        return value

    def _part_or_constant(self, value: Any) -> object:
        """Return what matters of an argument whose data may be known, such as the number in `x[0] = 1`."""
        if type(value) is self._kind and value.fake_device == self._device:
            return form_of(value)
        if type(value) is self._tensor and value.device == self._device:
            return self._tensor, form_of(value)
        return self._part(value)

    def _first(self, operator: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Remembered:
        """Return the form of an operator's results, which FakeTensorMode computes, and remember it."""
        if len(_remembered) >= MOST_FORMS:
            _remembered.clear()
            forget_forms()
        for tensor in tensors_in((args, kwargs)):
            self.tensors.refresh(tensor)
        key, remembered = self._key(operator, args, kwargs), None
        if not _changes_form(operator):
            args, kwargs = StandIns(self.mode).of((args, kwargs))
            remembered = self._to_remember(operator, args, kwargs, self._by_mode(operator, args, kwargs, cached=False))
        _remembered[key] = remembered
        return remembered

    def _to_remember(self, operator: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], result: Any) -> Remembered:
        if args and result is args[0]:
            return IN_PLACE
        results = result if isinstance(result, (tuple, list)) else (result,)
        tensors = [tensor for tensor in results if tensor is not None]
        if not tensors or not all(map(self._is_plain, tensors)):
            return None
        if any(tensor is other for tensor in tensors for other in tensors_in((args, kwargs))):
            return None  # an argument that is not the first, as `out` is
        given = {storage_id(tensor) for tensor in tensors_in((args, kwargs))}
        storages = {storage_id(tensor) for tensor in tensors}
        if storages <= given and len(tensors) == len(results):
            return self._view_form(operator, args, result)
        if not storages.isdisjoint(given) or len(storages) < len(tensors) or isinstance(result, list):
            return None
        return self._new_forms(result)

    def _new_forms(self, result: Any) -> Remembered:
        """Return the forms of results that share no memory."""
        results = result if isinstance(result, tuple) else (result,)
        if not all(tensor is None or _is_whole(tensor) for tensor in results):
            return PART
        forms = tuple(None if tensor is None else form_of(tensor) for tensor in results)
        return forms if isinstance(result, tuple) else forms[0]

    def _in_mode(self, operator: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], *, cached: bool) -> Any:
        """Run an operator in FakeTensorMode, with its cache or without."""
        if _changes_form(operator) and FORM in vars(args[0]):
            return self.tensors.changed(operator, args, kwargs)
        if operator is self._lift and type(args[0]) is self._tensor and args[0].numel() == 1:
            return self.tensors.known_number(args[0])
        stand_ins = StandIns(self.mode)
        own, named = stand_ins.of((args, kwargs))
        result = self._by_mode(operator, own, named, cached=cached)
        for given, shape in stand_ins.resized():
            self.tensors.changed(self._resize, (given, shape), {})
        if any(stand_ins.has_memory_of(tensor) for tensor in tensors_in(result)):
            return self.tensors.views(operator, args, kwargs)
        return stand_ins.replaced(result)

    def _by_mode(self, operator: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], *, cached: bool) -> Any:
        before = self.mode.cache_enabled
        self.mode.cache_enabled = before and cached
        try:
            return operator(*args, **kwargs)
        finally:
            self.mode.cache_enabled = before

    def _is_plain(self, value: object) -> bool:
        """Whether a result is a tensor without data of which the form tells all."""
        if type(value) is not self._kind:
            return False
        fake: Any = value
        is_known = fake.constant is None and fake.fake_device == self._device and fake.layout is self._strided
        return is_known and not fake.requires_grad and whole_form(fake) is not None

    def _view_form(self, operator: Any, args: tuple[Any, ...], result: Any) -> Remembered:
        """Return the form of a view of the first argument that differs in its axes only; VIEW for any other."""
        base: Any = args[0] if args else None
        if type(base) is not self._kind or type(result) is not self._kind or operator is self._as_strided:
            return VIEW
        if storage_id(result) != storage_id(base) or result.dtype != base.dtype:
            return VIEW
        return ViewForm(form_of(result), int(result.storage_offset()) - int(base.storage_offset()))

    @contextmanager
    def active(self) -> Iterator[None]:
        """Run all operators within the block."""
        with operator_mode(lambda *call: self.run(*call)[0]):
            yield


def operator_mode(run: Callable[[Any, tuple[Any, ...], Mapping[str, Any]], Any]) -> Any:
    """Return a mode in which `run` is called in place of each operator, with its arguments."""
    from torch import ops
    from torch.utils._python_dispatch import TorchDispatchMode

    device_query = ops.prim.device.default

    class OperatorMode(TorchDispatchMode):  # type: ignore[no-untyped-call]
        @classmethod
        def _should_skip_dynamo(cls) -> bool:
            # Torch would import its compiler, to keep it from a function that is not compiled.
            return False

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func is device_query:  # by tensors of FakeTensorMode
                return args[0].fake_device
            return run(func, args, kwargs or {})

    return OperatorMode()  # type: ignore[no-untyped-call]


def _number(operator: Any) -> int:
    """Return the number that stands for an operator."""
    number = id(operator)
    if number not in _operators:
        _operators[number] = operator
        if not any(argument.is_write for argument in operator._schema.arguments[1:]):
            _WRITE_FIRST_ALONE.add(number)
    return number


def _changes_form(operator: Any) -> bool:
    """Whether an operator changes the form of its first argument."""
    import torch

    return torch.Tag.inplace_view in operator.tags


def _is_whole(tensor: Tensor) -> bool:
    """Whether a tensor begins with its storage, which is no larger than the tensor needs."""
    reach = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride())) + 1
    needed = reach * tensor.element_size() if tensor.numel() else 0
    return bool(tensor.storage_offset() == 0 and tensor.untyped_storage().nbytes() == needed)
