"""Run torch's operators on tensors without data, and compute the form of each kind of result once per process.

FakeTensorMode finds the shape, the strides and the dtype of a result in Python, which takes tenths of a millisecond a
call. A step calls the same operators on tensors of the same forms again and again. FakeTensorMode computes the first
result of a kind; the others are made from what is remembered of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple, Union

from vggscope.trace.parts import parts_of
from vggscope.trace.tensors import tensors_in

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from torch._subclasses.fake_tensor import FakeTensorMode

MOST_FORMS = 50_000
"""How many kinds of calls are remembered. A training step of ViT-B has some 150, of Swin-T 350."""


class Form(NamedTuple):
    """What a tensor is made from. A view of the first argument begins `offset` elements after it."""

    shape: torch.Size
    strides: tuple[int, ...]
    dtype: torch.dtype
    offset: int | None = None


IN_PLACE = "in place"
"""The result is the first argument, whose form does not change."""

VIEW = "view"
"""The results are views of the arguments that torch's own kernel makes."""

PART = "part"
"""A result is a part of new memory, of which FakeTensorMode's own cache loses the rest."""

Remembered = Union[Form, "tuple[Form | None, ...]", str, None]
"""The form of a result, or of each of several; IN_PLACE; VIEW; PART; None for a call that always runs in
FakeTensorMode.
"""

_remembered: dict[object, Remembered] = {}

_UNSEEN = object()

_operators: dict[int, object] = {}
"""The operators in the keys of `_remembered`, by the numbers that stand for them there. They are never freed."""


def tensors_without_data(module: nn.Module) -> FakeTensorMode:
    """Return a mode in which torch makes tensors without data, for a run of the module."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    mode = FakeTensorMode(allow_non_fake_inputs=True)
    if _is_recurrent(module):
        # Their backward returns one gradient for both biases. The mode's cache makes two tensors of it.
        mode.cache_enabled = False
    return mode


def _is_recurrent(module: nn.Module) -> bool:
    from torch import nn

    return any(isinstance(part, nn.RNNBase) for part in parts_of(module))


class DatalessOperators:
    """Runs operators on tensors without data, which claim to be on the CPU. It is entered for the run of a module."""

    def __init__(self, module: nn.Module) -> None:
        import torch
        from torch._subclasses.fake_tensor import FakeTensor

        self.mode: Any = tensors_without_data(module)
        self._remembers = not _is_recurrent(module)
        self._kind, self._tensor = FakeTensor, torch.Tensor
        self._device, self._meta, self._strided = torch.device("cpu"), torch.device("meta"), torch.strided
        self._as_strided = torch.ops.aten.as_strided.default
        # `unseen.without_disabling` replaces the name while a module runs.
        self._without_functions = torch._C.DisableTorchFunction
        self._without_dispatch = torch._C._DisableTorchDispatch
        self._empty_strided, self._view_of = torch.empty_strided, torch.as_strided
        self._default_dtype, self._is_inference = torch.get_default_dtype, torch.is_inference_mode_enabled
        self._attributes: dict[str, object] = {}

    def run(self, operator: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Return the result of an operator. FakeTensorMode is active."""
        key, remembered = self._known(operator, args, kwargs)
        if remembered is _UNSEEN:
            return self._first(key, operator, args, kwargs)
        if remembered is None:
            return operator(*args, **kwargs)
        if type(remembered) is Form:
            return self._one(remembered, args)
        if remembered is IN_PLACE:
            return args[0]
        if type(remembered) is str:
            return (self._view if remembered is VIEW else self._uncached)(operator, args, kwargs)
        return self._made(remembered, args)

    def _known(self, operator: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[object, Any]:
        """Return what determines the forms of an operator's results, and what is remembered of them: _UNSEEN if it is
        the first call, None if more determines them.
        """
        if not self._remembers:
            return None, None
        try:
            key = self._key(operator, args, kwargs)
            return key, _remembered.get(key, _UNSEEN)
        except (TypeError, RuntimeError):  # a sparse tensor has no strides
            return None, None

    def _key(self, operator: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> object:
        """Return what determines the forms of an operator's results.

        Raises TypeError if more does than the arguments' forms. The number of an operator, which is never freed, stands
        for it, because its hash is computed in Python.
        """
        # The result has known data only if all arguments do.
        computes = bool(args) and type(args[0]) is self._kind and _writes_first_alone(operator)
        part = self._part_or_constant if computes else self._part
        named = tuple((name, part(value)) for name, value in kwargs.items()) if kwargs else ()
        settings = self._default_dtype(), self._is_inference()
        return _number(operator), settings, named, *map(self._part, args[:1]), *map(part, args[1:])

    def _part(self, value: Any) -> object:
        """Return what matters of an argument. Raises TypeError for one of which the data matter, or more."""
        kind = type(value)
        if kind is self._kind:
            if value.constant is not None or value.fake_device != self._device:
                raise TypeError
            return value.shape, value.stride(), value.dtype
        if kind in (list, tuple):
            return kind, *map(self._part, value)
        if kind in (bool, float):  # 1 == True == 1.0
            return kind, value
        if isinstance(value, self._tensor):
            raise TypeError
        return value

    def _part_or_constant(self, value: Any) -> object:
        """Return what matters of an argument whose data may be known, such as the number in `x[0] = 1`."""
        if type(value) is self._kind and value.fake_device == self._device:
            return value.shape, value.stride(), value.dtype
        return self._part(value)

    def _first(self, key: object, operator: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Run an operator in FakeTensorMode, and remember the forms of its results."""
        result = operator(*args, **kwargs)
        if len(_remembered) >= MOST_FORMS:
            _remembered.clear()
        _remembered[key] = self._to_remember(operator, args, kwargs, result)
        return result

    def _to_remember(self, operator: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], result: Any) -> Remembered:
        import torch

        if torch.Tag.inplace_view in operator.tags:
            return None
        if args and result is args[0]:
            return IN_PLACE
        results = result if isinstance(result, (tuple, list)) else (result,)
        tensors = [tensor for tensor in results if tensor is not None]
        if not tensors or not all(map(self._is_plain, tensors)):
            return None
        given = {_storage(tensor) for tensor in tensors_in((args, kwargs))}
        storages = {_storage(tensor) for tensor in tensors}
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
        forms = tuple(None if tensor is None else _form(tensor) for tensor in results)
        return forms if isinstance(result, tuple) else forms[0]

    def _uncached(self, operator: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Run an operator in FakeTensorMode without its cache."""
        before, self.mode.cache_enabled = self.mode.cache_enabled, False
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
        # A complex view may be the conjugate of its base.
        return is_known and not fake.requires_grad and not fake.dtype.is_complex

    def _view_form(self, operator: Any, args: tuple[Any, ...], result: Any) -> Remembered:
        """Return the form of a view of the first argument that differs in its axes only; VIEW for any other."""
        base = args[0] if args else None
        if type(base) is not self._kind or type(result) is not self._kind or operator is self._as_strided:
            return VIEW
        if _storage(result) != _storage(base) or result.dtype != base.dtype:
            return VIEW
        return _form(result, int(result.storage_offset()) - int(base.storage_offset()))

    def _made(self, remembered: Any, args: tuple[Any, ...]) -> Any:
        """Return tensors of these forms."""
        return tuple(None if form is None else self._one(form, args) for form in remembered)

    def _one(self, form: Form, args: tuple[Any, ...]) -> Tensor:
        """Return a tensor of a form."""
        shape, strides, dtype, offset = form
        with self._without_dispatch(), self._without_functions():
            if offset is None:
                made = self._empty_strided(shape, strides, dtype=dtype, device=self._meta)
            else:
                made = self._view_of(args[0], shape, strides, args[0].storage_offset() + offset)
        return self._without_data(made)

    def _view(self, operator: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Return the results of an operator that makes views."""
        from torch._subclasses.fake_tensor import in_kernel_invocation_manager

        with in_kernel_invocation_manager(self.mode):
            result = operator(*args, **kwargs)
        if isinstance(result, self._tensor):
            return self._without_data(result)
        return type(result)(map(self._without_data, result))

    def _without_data(self, tensor: Tensor) -> Tensor:
        """Return a tensor of FakeTensorMode on the memory of a meta tensor, as its constructor does, in less time."""
        if not self._attributes:
            fake: Any = self._kind
            self._attributes.update(vars(fake(self.mode, tensor, self._device)))
        result = self._tensor._make_subclass(
            self._kind, tensor, False, dispatch_device=True, device_for_backend_keys=self._device
        )
        vars(result).update(self._attributes)
        return result

    @contextmanager
    def active(self) -> Iterator[None]:
        """Run all operators within the block."""
        with operator_mode(self.run):
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
            if func is device_query:  # more than half of the calls
                return args[0].fake_device
            return run(func, args, kwargs or {})

    return OperatorMode()  # type: ignore[no-untyped-call]


def _number(operator: object) -> int:
    """Return the number that stands for an operator."""
    number = id(operator)
    if number not in _operators:
        _operators[number] = operator
    return number


@cache
def _writes_first_alone(operator: Any) -> bool:
    """Whether an operator writes to no argument but the first."""
    return not any(argument.is_write for argument in operator._schema.arguments[1:])


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _form(tensor: Tensor, offset: int | None = None) -> Form:
    return Form(tensor.shape, tensor.stride(), tensor.dtype, offset)


def _is_whole(tensor: Tensor) -> bool:
    """Whether a tensor begins with its storage, which is no larger than the tensor needs."""
    reach = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride())) + 1
    needed = reach * tensor.element_size() if tensor.numel() else 0
    return bool(tensor.storage_offset() == 0 and tensor.untyped_storage().nbytes() == needed)
