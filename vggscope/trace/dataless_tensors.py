"""Tensors without data that are FakeTensors for every caller, made in a fraction of the time.

Those of FakeTensorMode are on the meta device, and autograd asks each in Python for the device that it claims to be on,
ten times for each of its nodes. The tensors of this file are on the CPU, and their storages have no memory. A kernel of
FakeTensorMode would take them for tensors with data, so it gets a stand-in for each.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from vggscope.trace.tensors import mapped_tensors

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch._subclasses.fake_tensor import FakeTensorMode

FORM = "vggscope_form"
"""The attribute that only tensors of this file have: their Form, None if it does not tell all."""


class Form:
    """What a tensor is made from. There is one for each shape, strides and dtype, which stands for them in keys."""

    __slots__ = ("dtype", "shape", "strides")

    def __init__(self, shape: torch.Size, strides: tuple[int, ...], dtype: torch.dtype) -> None:
        self.shape, self.strides, self.dtype = shape, strides, dtype


class ViewForm(NamedTuple):
    """What a view of a tensor is made from. It begins `offset` elements after that."""

    form: Form
    offset: int


_forms: dict[tuple[object, ...], Form] = {}
"""The forms by what they hold."""


def forget_forms() -> None:
    """Forget all forms. Those of later tensors are others."""
    _forms.clear()


def form_of(tensor: Tensor) -> Form:
    """Return the form of a tensor. Raises RuntimeError for a sparse one."""
    return _form(tensor.shape, tensor.stride(), tensor.dtype)


def whole_form(tensor: Any) -> Form | None:
    """Return the form of a tensor if it tells all: a complex view may be the conjugate of its base."""
    return None if tensor.is_complex() or tensor.is_neg() else form_of(tensor)


def _form(shape: torch.Size, strides: tuple[int, ...], dtype: torch.dtype) -> Form:
    key = shape, strides, dtype
    form = _forms.get(key)
    if form is None:
        form = _forms[key] = Form(shape, strides, dtype)
    return form


def storage_id(tensor: Tensor) -> int:
    """Return a number that only tensors which share memory have in common."""
    return int(tensor.untyped_storage()._cdata)


class DatalessTensors:
    """Makes tensors without data for a FakeTensorMode, which is active."""

    def __init__(self, mode: FakeTensorMode) -> None:
        import torch
        from torch._subclasses.fake_tensor import FakeTensor

        self._mode: Any = mode
        self._kind: Any = FakeTensor
        self._tensor, self._device = torch.Tensor, torch.device("cpu")
        # `unseen.without_disabling` replaces the name while a module runs.
        self._without_functions = torch._C.DisableTorchFunction
        self._without_dispatch = torch._C._DisableTorchDispatch
        self._view_of = torch.as_strided
        self._attributes = vars(FakeTensor(mode, torch.empty(0, device="meta"), self._device))

    def empty_strided(self, shape: torch.Size, strides: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Return what torch.empty_strided does."""
        import torch

        if dtype.is_complex:
            return torch.empty_strided(shape, strides, dtype=dtype, device=self._device)
        return self.new(_form(shape, strides, dtype))

    def new(self, form: Form) -> Tensor:
        """Return a tensor of a form."""
        made: Tensor = self._tensor._make_wrapper_subclass(
            self._kind, form.shape, strides=form.strides, dtype=form.dtype, device=self._device
        )
        attributes = vars(made)
        attributes.update(self._attributes)
        attributes[FORM] = form
        return made

    def view(self, view: ViewForm, base: Tensor) -> Tensor:
        """Return a view of a form."""
        form, offset = view
        place = (base.storage_offset() + offset,) if offset else ()
        with self._without_dispatch(), self._without_functions():
            made = self._view_of(base, form.shape, form.strides, *place)
        return self._on_cpu(made, form) if FORM in vars(base) else self._on_meta(made)

    def views(self, operator: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Return the results of an operator that makes views."""
        from torch._subclasses.fake_tensor import in_kernel_invocation_manager

        with in_kernel_invocation_manager(self._mode):
            result = operator(*args, **kwargs)
        if isinstance(result, self._tensor):
            return self._without_data(result)
        return type(result)(map(self._without_data, result))

    def changed(self, operator: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
        """Return the first argument of an operator that changes its form, as `x.t_()` does. It is of this file."""
        with self._without_dispatch(), self._without_functions():
            operator(*args, **kwargs)
        self.refresh(args[0])
        return args[0]  # type: ignore[no-any-return]

    def refresh(self, value: object) -> None:
        """Note the form of a tensor that may have changed without an operator, as by `x.data = y`."""
        if type(value) is self._kind and FORM in vars(value):
            vars(value)[FORM] = whole_form(value)

    def known_number(self, number: Tensor) -> Tensor:
        """Return a number with data as FakeTensorMode converts it, which knows the data then."""
        import torch

        with self._without_dispatch(), self._without_functions():
            memory = torch.empty_strided(number.shape, number.stride(), dtype=number.dtype, device="meta")
            constant = number.clone()
        known: Any = self._on_meta(memory)
        known.constant = constant
        self._mode.fake_tensor_converter.add_constant_storage_mapping(known)
        return known  # type: ignore[no-any-return]

    def _without_data(self, tensor: Tensor) -> Tensor:
        """Return the tensor that torch's kernel has made as one that the mode knows."""
        if tensor.device != self._device:
            return self._on_meta(tensor)
        return self._on_cpu(tensor, whole_form(tensor))

    def _on_cpu(self, tensor: Tensor, form: Form | None) -> Tensor:
        result: Tensor = self._tensor._make_subclass(self._kind, tensor, False)
        attributes = vars(result)
        attributes.update(self._attributes)
        attributes[FORM] = form
        return result

    def _on_meta(self, tensor: Tensor) -> Tensor:
        """Return a tensor of FakeTensorMode on the memory of a meta tensor, as its constructor does, in less time."""
        result: Tensor = self._tensor._make_subclass(
            self._kind, tensor, False, dispatch_device=True, device_for_backend_keys=self._device
        )
        vars(result).update(self._attributes)
        return result


class StandIns:
    """Tensors of FakeTensorMode in place of those of this file, for one call of an operator."""

    def __init__(self, mode: FakeTensorMode) -> None:
        self._mode = mode
        self._memory: dict[int, Any] = {}
        self._given: dict[int, tuple[Tensor, Tensor]] = {}

    def of(self, arguments: Any) -> Any:
        """Return arguments with stand-ins for the tensors in them."""
        return mapped_tensors(arguments, self._stand_in)

    def has_memory_of(self, tensor: Tensor) -> bool:
        """Whether a result that is no stand-in is a view of one."""
        import torch

        is_view = bool(self._given) and id(tensor) not in self._given and tensor.layout is torch.strided
        return is_view and storage_id(tensor) in {storage_id(stand_in) for stand_in, _ in self._given.values()}

    def resized(self) -> Iterator[tuple[Tensor, tuple[int, ...]]]:
        """Yield the tensors whose stand-ins have another shape after the call, as an `out` that did not fit, and it."""
        for stand_in, tensor in self._given.values():
            if stand_in.shape != tensor.shape:
                yield tensor, tuple(stand_in.shape)

    def replaced(self, result: Any) -> Any:
        """Return a result with the tensors for which the stand-ins in it stand."""
        if not self._given:
            return result
        return mapped_tensors(result, lambda tensor: self._given.get(id(tensor), (None, tensor))[1])

    def _stand_in(self, tensor: Tensor) -> Tensor:
        from torch._subclasses.fake_tensor import FakeTensor

        if FORM not in vars(tensor):
            return tensor
        stand_in: Tensor = FakeTensor(self._mode, self._on_meta(tensor), "cpu")
        self._given[id(stand_in)] = stand_in, tensor
        return stand_in

    def _on_meta(self, tensor: Tensor) -> Tensor:
        """Return a meta tensor. Those of tensors that share memory share it too."""
        import torch

        storage = tensor.untyped_storage()
        with torch._C._DisableTorchDispatch(), torch._C.DisableTorchFunction():
            memory = self._memory.get(storage._cdata)
            if memory is None:
                memory = torch.UntypedStorage(storage.nbytes(), device="meta")  # type: ignore[no-untyped-call]
                self._memory[storage._cdata] = memory
            made = torch.empty(0, dtype=tensor.dtype, device="meta")
            made.set_(memory, tensor.storage_offset(), tensor.shape, tensor.stride())
            made = made.conj() if tensor.is_conj() else made
            made = torch._neg_view(made) if tensor.is_neg() else made
            return made.requires_grad_(tensor.requires_grad)
