"""Embeddings: rows of a learned table."""

from __future__ import annotations

from vggscope.ops.axis_maps import SAME, AxisMaps
from vggscope.ops.base import MOVES_VALUES, Op, SavedTensors, Shape
from vggscope.record import record


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
