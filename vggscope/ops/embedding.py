"""Embeddings: rows of a learned table."""

from __future__ import annotations

from vggscope.errors import ShapeError
from vggscope.ops.axis_maps import SAME, AxisMaps
from vggscope.ops.base import MOVES_VALUES, Op, SavedTensors, Shape
from vggscope.record import record
from vggscope.units import kernel_text


@record
class Embedding(Op):
    """For each index in the input, the row of a table of `num_embeddings` rows."""

    other_formula = MOVES_VALUES
    is_lookup = True

    num_embeddings: int
    embedding_dim: int
    max_norm: float | None = None
    norm_type: float = 2.0

    def output_shape(self, *inputs: Shape) -> Shape:
        return (*inputs[0], self.embedding_dim)

    def parameters(self) -> dict[str, Shape]:
        return {"weight": (self.num_embeddings, self.embedding_dim)}

    def saved_for_backward(self, inputs: tuple[Shape, ...], output: Shape) -> SavedTensors:
        return SavedTensors(inputs=(0,))

    def reads(self, inputs: tuple[Shape, ...], output: Shape) -> tuple[AxisMaps, ...]:
        return ({axis: (axis, SAME) for axis in range(len(inputs[0]))},)


@record
class Lookup(Op):
    """Positions of an axis, named by a tensor of integers, as in `table[index]`: its inputs are both."""

    predicts_memory = True
    other_formula = MOVES_VALUES
    name = "getitem"
    gradient_layout = "contiguous"

    axis: int = 0

    def output_shape(self, *inputs: Shape) -> Shape:
        table, index = inputs
        if len(table) <= self.axis:
            raise ShapeError(f"there is no axis {self.axis} in {kernel_text(table)}")
        return (*table[: self.axis], *index, *table[self.axis + 1 :])

    def saved_for_backward(self, inputs: tuple[Shape, ...], output: Shape) -> SavedTensors:
        return SavedTensors(inputs=(1,))

    def input_gradients(self, inputs: tuple[Shape, ...], output: Shape) -> tuple[str, ...]:
        return ("copied", "none")
