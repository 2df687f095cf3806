"""Reductions: means, sums and maxima along axes."""

from __future__ import annotations

from vggscope.ops.axis_maps import AxisMaps, without
from vggscope.ops.base import (
    NOTHING,
    Op,
    SavedTensors,
    Shape,
    TensorArgument,
    TorchCall,
    Window,
    named_arguments,
    numel,
)
from vggscope.ops.normal_form import NormalForm, mean_of_axes, multiply, reshape
from vggscope.ops.pooling import maximum_of_windows
from vggscope.record import record

KEEPS_NOTHING = frozenset({"mean", "sum", "argmax", "argmin", "any", "all"})
"""Reductions whose backward needs no saved values."""

REDUCTIONS = KEEPS_NOTHING | {"amax", "amin", "prod", "std", "var", "logsumexp", "norm", "vector_norm"}

_COUNTED = KEEPS_NOTHING | {"amax", "amin", "prod"}
"""Those whose operations have a rule."""


@record
class Reduction(Op):
    """`function` over the axes `dim` (None: all), which remain with size 1 if `keepdim` is set."""

    gradient_layout = "expanded"

    function: str
    dim: tuple[int, ...] | None = None
    keepdim: bool = False
    options: tuple[str, ...] = ()
    """torch's other arguments, such as `correction=0`."""

    def torch_call(self, count: int) -> TorchCall | None:
        if self.function not in REDUCTIONS:
            return None
        named = {**self._where(), **named_arguments(self.options)}
        return TorchCall(self.function, (TensorArgument(0),), tuple(named.items()))

    @property
    def name(self) -> str:
        return self.function

    def _where(self) -> dict[str, object]:
        """The axes as the function takes them: some take one alone, and some none for all."""
        if self.dim is None:
            return {"dim": (), "keepdim": self.keepdim} if self.function in ("amax", "amin") else {}
        return {"dim": self.dim[0] if len(self.dim) == 1 else self.dim, "keepdim": self.keepdim}

    @property
    def other_formula(self) -> str:
        return "n values into one: n-1, a mean one more" if self.function in _COUNTED else ""

    def other_operations(self, inputs: tuple[Shape, ...], output: Shape) -> int | None:
        if self.function not in _COUNTED:
            return None
        return numel(inputs[0]) - (0 if self.function == "mean" else numel(output))

    @property
    def fixed_dtype(self) -> str:
        return {"argmax": "int64", "argmin": "int64", "any": "bool", "all": "bool"}.get(self.function, "")

    @property
    def gradient(self) -> str:
        if self.fixed_dtype:
            return "none"
        return "part" if self.function == "sum" else "new"  # that of a sum is expanded without a copy

    @property
    def predicts_memory(self) -> bool:
        # A mean of all values may have no axis of samples, and one with a dtype converts its input.
        return self.function in ("mean", "sum") and bool(self.dim) and not self.options

    def _axes(self, shape: Shape) -> set[int]:
        return {axis % len(shape) for axis in (range(len(shape)) if self.dim is None else self.dim)}

    def window(self, size: tuple[int, ...]) -> Window | None:
        """The whole map, if exactly its height and width are reduced."""
        spatial = set(range(2, 2 + len(size)))
        if self.dim is None or {axis % (2 + len(size)) for axis in self.dim} != spatial:
            return None
        return Window(size, (1,) * len(size), (0,) * len(size), (1,) * len(size))

    def normal_form(
        self, inputs: tuple[Shape, ...], output: Shape, numbers: tuple[float | None, ...] = ()
    ) -> NormalForm:
        shape = inputs[0]
        axes = self._axes(shape) if shape else set()
        kept = tuple(1 if axis in axes else size for axis, size in enumerate(shape))
        window = self.window(shape[2:]) if len(shape) > 2 and not self.options else None
        if window is not None and self.function == "mean":
            steps = (mean_of_axes(tuple(sorted(axes)), kept), reshape(output, 1))
            return NormalForm(steps, "it is the mean of the whole map")
        if window is not None and self.function == "amax":
            step = maximum_of_windows(window, shape, kept)
            return NormalForm((step, reshape(output, 1)), "it is the maximum of the whole map")
        if self.function == "mean" and axes and not self.options:
            return NormalForm((mean_of_axes(tuple(sorted(axes)), kept), reshape(output, 1)))
        if self.function == "sum" and axes and not self.options and numel(shape):
            count = numel(shape) // numel(kept)
            return NormalForm((mean_of_axes(tuple(sorted(axes)), kept), multiply(count, kept, 1), reshape(output, 2)))
        step = self.step(kept, 0, function=self.function, axes=tuple(sorted(axes)), options=self.options)
        return NormalForm((step, reshape(output, 1)))

    def output_shape(self, *inputs: Shape) -> Shape:
        (shape,) = inputs
        axes = self._axes(shape)
        if self.keepdim:
            return tuple(1 if axis in axes else size for axis, size in enumerate(shape))
        return tuple(size for axis, size in enumerate(shape) if axis not in axes)

    def saved_for_backward(self, inputs: tuple[Shape, ...], output: Shape) -> SavedTensors:
        if self.function in KEEPS_NOTHING:
            return NOTHING
        return SavedTensors(inputs=(0,), output=self.function != "var")

    def reads(self, inputs: tuple[Shape, ...], output: Shape) -> tuple[AxisMaps, ...]:
        return (without(inputs[0], self._axes(inputs[0]), self.keepdim),)
