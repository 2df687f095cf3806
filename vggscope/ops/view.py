"""Ops that rearrange or select elements: torch's views, and the copies that torch makes instead."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import field
from typing import ClassVar

from vggscope.errors import ShapeError, option
from vggscope.ops.axis_maps import SAME, AxisMaps, Ranges, StridedWindow, reshaped, throughout
from vggscope.ops.base import (
    LAYOUT_EXCHANGES,
    MOVES_VALUES,
    NOTHING,
    KernelCall,
    Op,
    SavedTensors,
    Shape,
    TorchCall,
    Window,
    call_of,
    numel,
)
from vggscope.ops.normal_form import (
    IDENTITY,
    NormalForm,
    PrimitiveStep,
    cut,
    pad,
    padded_shape,
    padding_of,
    permute,
    reshape,
)
from vggscope.record import record
from vggscope.units import count_text, kernel_text


@record
class View(Op):
    """The same elements in another arrangement. `shares`: the output uses the memory of its input.

    A reshape copies if the memory layout does not allow a view.
    """

    function: ClassVar[str] = "view"
    other_formula = MOVES_VALUES
    notes = frozenset({"shares"})

    shares: bool = field(default=True, kw_only=True)

    @property
    def name(self) -> str:
        return self.function

    def arguments(self) -> dict[str, object]:
        return {name: value for name, value in super().arguments().items() if name != "shares"}

    @property
    def allocates(self) -> bool:
        return not self.shares

    @property
    def gradient(self) -> str:
        return "same" if self.shares else "new"

    @property
    def needs_layout(self) -> bool:
        return self.predicts_memory

    def input_gradients(self, inputs: tuple[Shape, ...], output: Shape) -> tuple[str, ...]:
        return ("view" if self.gradient == "same" else self.gradient,) * len(inputs)


@record
class _SameOrder(View):
    """The same elements in the same order, in another shape."""

    predicts_memory = True
    gradient = "same"

    def normal_form(
        self, inputs: tuple[Shape, ...], output: Shape, numbers: tuple[float | None, ...] = ()
    ) -> NormalForm:
        return NormalForm((reshape(output),))

    def reads(self, inputs: tuple[Shape, ...], output: Shape) -> tuple[AxisMaps, ...]:
        return (reshaped(inputs[0], output),)


@record
class Reshape(_SameOrder):
    """The same elements in the same order, with the shape `target`, in which one -1 means the remaining size."""

    function = "reshape"
    exchanges = LAYOUT_EXCHANGES
    is_affine = is_layout = True
    gradient_layout = "reshaped"

    target: Shape

    def torch_call(self, count: int) -> TorchCall:
        return call_of("reshape", self.target)

    def output_shape(self, *inputs: Shape) -> Shape:
        (shape,) = inputs
        known = numel(tuple(size for size in self.target if size != -1))
        left = numel(shape) // known if known else 0
        result = tuple(left if size == -1 else size for size in self.target)
        if numel(result) != numel(shape):
            raise _no_layout(shape, self.target)
        return result


def _no_layout(shape: Shape, target: Shape) -> ShapeError:
    """The error of a reshape to another number of values. Of a matrix it names the length of a row that would fit."""
    values = count_text(numel(shape))
    if len(target) != 2 or target[1] < 1 or numel(shape) % max(shape[0], 1):
        remedy = f"make both equal, or {option('input_size')} gives another size"
        return ShapeError(f"{values} values cannot be laid out as {kernel_text(target)}", remedy)
    fitting = count_text(numel(shape[1:]))
    return ShapeError(
        f"{values} values cannot be laid out as rows of {count_text(target[1])}",
        f"{fitting} would fit, or {option('input_size')} gives another size",
    )


@record
class Permute(View):
    """The axes in another order: output axis i is input axis `dims[i]`."""

    predicts_memory = True
    function = "permute"
    gradient_layout = "permuted"

    dims: tuple[int, ...]

    def torch_call(self, count: int) -> TorchCall:
        return call_of("permute", self.dims)

    @property
    def permutation(self) -> tuple[int, ...]:
        return self.dims

    def output_shape(self, *inputs: Shape) -> Shape:
        (shape,) = inputs
        if len(shape) != len(self.dims):
            raise ShapeError(f"{len(self.dims)} axes are reordered, the input has {len(shape)}: {kernel_text(shape)}")
        return tuple(shape[axis] for axis in self.dims)

    def normal_form(
        self, inputs: tuple[Shape, ...], output: Shape, numbers: tuple[float | None, ...] = ()
    ) -> NormalForm:
        return NormalForm((permute(tuple(axis % len(output) for axis in self.dims), output),))

    def reads(self, inputs: tuple[Shape, ...], output: Shape) -> tuple[AxisMaps, ...]:
        return ({axis % len(output): (place, SAME) for place, axis in enumerate(self.dims)},)


@record
class Squeeze(_SameOrder):
    """Without those of the axes `dim` (None: all) that have size 1."""

    function = "squeeze"
    exchanges = LAYOUT_EXCHANGES
    is_affine = is_layout = True
    gradient_layout = "reshaped"

    dim: tuple[int, ...] | None = None

    def torch_call(self, count: int) -> TorchCall:
        return call_of("squeeze") if self.dim is None else call_of("squeeze", self.dim)

    def output_shape(self, *inputs: Shape) -> Shape:
        (shape,) = inputs
        axes = range(len(shape)) if self.dim is None else [axis % len(shape) for axis in self.dim]
        return tuple(size for axis, size in enumerate(shape) if size != 1 or axis not in axes)


@record
class Unsqueeze(_SameOrder):
    """With a new axis of size 1 at `dim`."""

    function = "unsqueeze"
    gradient_layout = "reshaped"

    dim: int

    def torch_call(self, count: int) -> TorchCall:
        return call_of("unsqueeze", self.dim)

    def output_shape(self, *inputs: Shape) -> Shape:
        (shape,) = inputs
        axis = self.dim % (len(shape) + 1)
        return (*shape[:axis], 1, *shape[axis:])


@record
class Expand(View):
    """Axes of size 1 repeated to the shape `target`, without a copy; -1 keeps an axis's size."""

    function = "expand"
    gradient = "new"

    target: Shape

    def torch_call(self, count: int) -> TorchCall:
        return call_of("expand", self.target)

    def output_shape(self, *inputs: Shape) -> Shape:
        (shape,) = inputs
        aligned = (1,) * (len(self.target) - len(shape)) + shape
        if any(want not in (-1, have) and have != 1 for have, want in zip(aligned, self.target)):
            raise ShapeError(f"{kernel_text(shape)} cannot be expanded to {kernel_text(self.target)}")
        return tuple(have if want == -1 else want for have, want in zip(aligned, self.target))

    def normal_form(
        self, inputs: tuple[Shape, ...], output: Shape, numbers: tuple[float | None, ...] = ()
    ) -> NormalForm:
        return IDENTITY if inputs[0] == output else NormalForm((self.step(output, 0, shape=output),))


Item = int | None | str | tuple[int | None, int | None, int | None]
"""One part of an index: a position, None for a new axis, "..." for all axes between, or start, stop and step."""

_FULL = (None, None, None)


@record
class Slice(View):
    """x[index], for an index of numbers and slices. `of_weight`: x has no axis of samples."""

    function = "getitem"
    needs_layout = False
    gradient = "new"
    gradient_layout = "zero-padded"

    index: tuple[Item, ...]
    of_weight: bool = field(default=False, kw_only=True, compare=False, repr=False)

    def torch_call(self, count: int) -> TorchCall:
        return call_of("getitem", tuple(map(_index, self.index)))

    @property
    def predicts_memory(self) -> bool:
        """Whether it cuts axes, that of the samples only to one, and adds none if it cuts several."""
        if not self.of_weight and self.index[0] not in (_FULL, "...") and type(self.index[0]) is not int:
            return False
        cuts = [item for item in self.index if item not in (_FULL, None, "...")]
        if not cuts or any(isinstance(cut, tuple) and (cut[0] or 0) < 0 for cut in cuts):
            return False
        return len(cuts) == 1 or (None not in self.index and all(isinstance(cut, tuple) for cut in cuts))

    def kernel_calls(self, inputs: tuple[Shape, ...], output: Shape) -> tuple[KernelCall, ...]:
        # torch makes a view, and later a gradient, for each axis that is cut.
        (shape,) = inputs
        cut = [axis for axis, (size, left) in enumerate(zip(shape, output)) if size != left]
        if len(cut) < 2 or len(shape) != len(output):
            return ()
        shapes = [(*output[: axis + 1], *shape[axis + 1 :]) for axis in cut]
        return tuple(KernelCall("slice", (place,), shape, shares=True) for place, shape in enumerate(shapes))

    def input_gradients(self, inputs: tuple[Shape, ...], output: Shape) -> tuple[str, ...]:
        # An index of everything is an alias.
        return ("same" if inputs[0] == output else "new",)

    def _items(self, shape: Shape) -> Iterator[tuple[int, Item]]:
        """Each part of the index with its input axis, and a full slice for each axis that "..." stands for."""
        used = sum(item is not None and item != "..." for item in self.index)
        if used > len(shape):
            raise ShapeError(f"{used} axes are indexed, the input has {len(shape)}: {kernel_text(shape)}")
        index = self.index if "..." in self.index else (*self.index, "...")
        between = index.index("...")
        axis = 0
        for item in (*index[:between], *[_FULL] * (len(shape) - used), *index[between + 1 :]):
            yield axis, item
            axis += item is not None

    def output_shape(self, *inputs: Shape) -> Shape:
        (shape,) = inputs
        result: list[int] = []
        for axis, item in self._items(shape):
            if item is None:
                result.append(1)
            elif isinstance(item, tuple):
                result.append(len(range(*slice(*item).indices(shape[axis]))))
            elif not -shape[axis] <= int(item) < shape[axis]:
                raise ShapeError(f"there is no position {item} in axis {axis} of {kernel_text(shape)}")
        return tuple(result)

    def normal_form(
        self, inputs: tuple[Shape, ...], output: Shape, numbers: tuple[float | None, ...] = ()
    ) -> NormalForm:
        shape, steps = inputs[0], list[PrimitiveStep]()
        for axis, item in self._items(inputs[0]):
            if item is None:
                continue
            if isinstance(item, tuple):
                positions = range(*slice(*item).indices(shape[axis]))
                start, step, length = positions.start, positions.step, len(positions)
            else:
                start, step, length = int(item) % shape[axis], 1, 1
            shape = (*shape[:axis], length, *shape[axis + 1 :])
            steps.append(cut(axis, start, start + step * length, step, shape, len(steps)))
        return NormalForm((*steps, reshape(output, len(steps))))

    def reads(self, inputs: tuple[Shape, ...], output: Shape) -> tuple[AxisMaps, ...]:
        (shape,) = inputs
        axes: dict[int, tuple[int | None, StridedWindow | Ranges]] = {}
        place = 0
        for axis, item in self._items(shape):
            if isinstance(item, tuple):
                start, _, step = slice(*item).indices(shape[axis])
                axes[axis] = (place, StridedWindow(stride=step, padding=-start))
            elif item is not None:
                position = int(item) % shape[axis]
                axes[axis] = (None, Ranges(((position, position + 1),)))
            place += item is None or isinstance(item, tuple)
        return (axes,)


def _index(item: Item) -> object:
    """A part of an index as Python writes it."""
    return slice(*item) if isinstance(item, tuple) else Ellipsis if item == "..." else item


@record
class _Piece(View):
    """Piece `position` of the axis `dim`: one of the results of a call that cuts a tensor up."""

    predicts_memory = True
    needs_layout = False
    gradient = "new"

    dim: int
    position: int

    @property
    def piece(self) -> int:
        return self.position

    def start(self, shape: Shape) -> int:
        """The first position of the piece along its axis."""
        return self.position

    def normal_form(
        self, inputs: tuple[Shape, ...], output: Shape, numbers: tuple[float | None, ...] = ()
    ) -> NormalForm:
        shape = inputs[0]
        axis, start = self.dim % len(shape), self.start(shape)
        length = output[axis] if len(output) == len(shape) else 1
        piece = (*shape[:axis], length, *shape[axis + 1 :])
        return NormalForm((cut(axis, start, start + length, 1, piece), reshape(output, 1)))


@record
class Chunk(_Piece):
    """Piece `position` of an axis that is cut in `chunks` equal pieces; the last may be smaller."""

    function = "chunk"
    gradient_layout = "joined"

    chunks: int

    def torch_call(self, count: int) -> TorchCall:
        return call_of("chunk", self.chunks, self.dim, piece=self.position)

    def output_shape(self, *inputs: Shape) -> Shape:
        (shape,) = inputs
        axis = self.dim % len(shape)
        return _cut(shape, axis, -(-shape[axis] // self.chunks), self.position, self.chunks)

    def start(self, shape: Shape) -> int:
        return -(-shape[self.dim % len(shape)] // self.chunks) * self.position

    def reads(self, inputs: tuple[Shape, ...], output: Shape) -> tuple[AxisMaps, ...]:
        (shape,) = inputs
        return (_from(shape, self.dim % len(shape), self.start(shape)),)


@record
class Split(_Piece):
    """Piece `position` of an axis that is cut in pieces of `size`, a number or one for each piece."""

    function = "split"
    gradient_layout = "joined"

    size: int | tuple[int, ...]

    def torch_call(self, count: int) -> TorchCall:
        return call_of("split", self.size, self.dim, piece=self.position)

    def output_shape(self, *inputs: Shape) -> Shape:
        (shape,) = inputs
        axis = self.dim % len(shape)
        if isinstance(self.size, int):
            return _cut(shape, axis, self.size, self.position, self.size)
        if sum(self.size) != shape[axis]:
            raise ShapeError(f"pieces of {self.size} do not make up axis {axis} of {kernel_text(shape)}")
        return (*shape[:axis], self.size[self.position], *shape[axis + 1 :])

    def start(self, shape: Shape) -> int:
        return sum(self.size[: self.position]) if isinstance(self.size, tuple) else self.size * self.position

    def reads(self, inputs: tuple[Shape, ...], output: Shape) -> tuple[AxisMaps, ...]:
        return (_from(inputs[0], self.dim % len(output), self.start(inputs[0])),)


@record
class TensorSplit(Split):
    """Piece `position` of an axis that is cut at given positions, or in pieces as equal as possible."""

    predicts_memory = False  # torch takes a view for each piece
    function = "tensor_split"


@record
class Select(_Piece):
    """Position `position` of the axis `dim`, without that axis: one result of `unbind`."""

    function = "unbind"
    gradient_layout = "zero-padded"

    def torch_call(self, count: int) -> TorchCall:
        return call_of("select", self.dim, self.position)

    def output_shape(self, *inputs: Shape) -> Shape:
        (shape,) = inputs
        axis = self.dim % len(shape)
        if self.position >= shape[axis]:
            raise ShapeError(f"there is no position {self.position} in axis {axis} of {kernel_text(shape)}")
        return (*shape[:axis], *shape[axis + 1 :])

    def reads(self, inputs: tuple[Shape, ...], output: Shape) -> tuple[AxisMaps, ...]:
        (shape,) = inputs
        gone = self.dim % len(shape)
        kept = {axis: (axis - (axis > gone), SAME) for axis in range(len(shape)) if axis != gone}
        return ({**kept, gone: (None, Ranges(((self.position, self.position + 1),)))},)


@record
class Pad(View):
    """Padding: `pad` has the positions added before and after each axis, the last axis first, as in torch."""

    function = "pad"
    is_padding = True
    needs_layout = False

    pad: tuple[int, ...]
    mode: str = "constant"
    value: float | None = None

    def torch_call(self, count: int) -> TorchCall:
        return call_of("pad", self.pad, self.mode, self.value)

    @property
    def predicts_memory(self) -> bool:
        return self.mode == "constant" and min(self.pad) >= 0

    def saved_for_backward(self, inputs: tuple[Shape, ...], output: Shape) -> SavedTensors:
        return SavedTensors(inputs=(0,)) if self.mode in ("reflect", "replicate") else NOTHING

    def window(self, size: tuple[int, ...]) -> Window | None:
        """A padded window of one pixel, if both ends of each axis have the same padding."""
        if self.pad[::2] != self.pad[1::2]:
            return None
        before = (*self.pad[::2], *(0,) * len(size))[: len(size)]
        return Window((1,) * len(size), (1,) * len(size), before[::-1], (1,) * len(size))

    def output_shape(self, *inputs: Shape) -> Shape:
        (shape,) = inputs
        added = [before + after for before, after in zip(self.pad[::2], self.pad[1::2])]
        if len(added) > len(shape):
            raise ShapeError(f"{len(added)} axes are padded, the input has {len(shape)}: {kernel_text(shape)}")
        sizes = [size + more for size, more in zip(shape, [*[0] * (len(shape) - len(added)), *reversed(added)])]
        if min(sizes) < 0:
            raise ShapeError(f"{kernel_text(shape)} is too small to cut {self.pad} off")
        return tuple(sizes)

    def normal_form(
        self, inputs: tuple[Shape, ...], output: Shape, numbers: tuple[float | None, ...] = ()
    ) -> NormalForm:
        amounts = padding_of(len(output), tuple(zip(self.pad[::2], self.pad[1::2]))[::-1])
        return NormalForm((pad(amounts, padded_shape(inputs[0], amounts), self.mode, float(self.value or 0)),))

    def reads(self, inputs: tuple[Shape, ...], output: Shape) -> tuple[AxisMaps, ...] | None:
        if self.mode not in ("constant", "replicate"):
            return None
        last = len(output) - 1
        padded = {last - i: (last - i, StridedWindow(padding=before)) for i, before in enumerate(self.pad[::2])}
        return ({**throughout(output, set()), **padded},)


@record
class Roll(View):
    """Each value moved by `shifts` positions along `dims`, from the end to the start."""

    function = "roll"
    needs_layout = False

    shifts: tuple[int, ...]
    dims: tuple[int, ...]

    def torch_call(self, count: int) -> TorchCall:
        return call_of("roll", self.shifts, self.dims)

    @property
    def predicts_memory(self) -> bool:
        return bool(self.dims)

    def reads(self, inputs: tuple[Shape, ...], output: Shape) -> tuple[AxisMaps, ...] | None:
        if not self.dims:
            return None
        axes = {axis % len(output): shift for axis, shift in zip(self.dims, self.shifts)}
        rolled = {axis: (axis, _rolled(output[axis], shift)) for axis, shift in axes.items()}
        return ({**throughout(output, set()), **rolled},)


@record
class PixelShuffle(View):
    """Each r*r channels as blocks of r x r pixels, where r is `upscale_factor`."""

    function = "PixelShuffle"

    upscale_factor: int

    def output_shape(self, *inputs: Shape) -> Shape:
        (shape,) = inputs
        r = self.upscale_factor
        channels, height, width = shape[-3:]
        if channels % r**2:
            raise ShapeError(f"{channels} channels are not a multiple of {r}*{r}")
        return (*shape[:-3], channels // r**2, height * r, width * r)

    def reads(self, inputs: tuple[Shape, ...], output: Shape) -> tuple[AxisMaps, ...]:
        last, r = len(output) - 1, self.upscale_factor
        widened = {
            axis: (axis, Ranges(tuple((i // r, i // r + 1) for i in range(output[axis])))) for axis in (last - 1, last)
        }
        return ({**throughout(output, set()), **widened},)


@record
class PixelUnshuffle(View):
    """Each block of r x r pixels as r*r channels, where r is `downscale_factor`."""

    function = "PixelUnshuffle"

    downscale_factor: int

    def output_shape(self, *inputs: Shape) -> Shape:
        (shape,) = inputs
        r = self.downscale_factor
        channels, height, width = shape[-3:]
        if height % r or width % r:
            raise ShapeError(f"the sides of {kernel_text((height, width))} are not multiples of {r}")
        return (*shape[:-3], channels * r**2, height // r, width // r)

    def reads(self, inputs: tuple[Shape, ...], output: Shape) -> tuple[AxisMaps, ...]:
        last, r = len(output) - 1, self.downscale_factor
        block = StridedWindow(kernel_size=r, stride=r)
        return ({**throughout(output, set()), last - 1: (last - 1, block), last: (last, block)},)


@record
class ChannelShuffle(View):
    """The channels of `groups` groups interleaved."""

    function = "ChannelShuffle"

    groups: int


def _cut(shape: Shape, axis: int, size: int, position: int, of: int) -> Shape:
    """The shape of a piece of an axis that is cut in pieces of `size`. `of` is the call's argument, for the error."""
    piece = min(size, shape[axis] - size * position)
    if piece <= 0:
        raise ShapeError(f"axis {axis} of {kernel_text(shape)} has no piece {position + 1} of {of}")
    return (*shape[:axis], piece, *shape[axis + 1 :])


def _from(shape: Shape, axis: int, start: int) -> AxisMaps:
    """The axis maps of a piece of an axis that begins at `start`."""
    return {**throughout(shape, set()), axis: (axis, StridedWindow(padding=-start))}


def _rolled(size: int, shift: int) -> Ranges:
    return Ranges(tuple(((i - shift) % size, (i - shift) % size + 1) for i in range(size)))
