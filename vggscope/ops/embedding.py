"""Rows of a learned table, looked up."""

from __future__ import annotations

from vggscope.ops.base import Kept, Op, Shape
from vggscope.ops.reading import SAME, Reads
from vggscope.record import record


@record
class Embedding(Op):
    """For each index in the input, that row of a table of `num_embeddings` rows."""

    num_embeddings: int
    embedding_dim: int

    def output_shape(self, *inputs: Shape) -> Shape:
        return (*inputs[0], self.embedding_dim)

    def parameters(self) -> dict[str, Shape]:
        return {"weight": (self.num_embeddings, self.embedding_dim)}

    def kept(self, inputs: tuple[Shape, ...], output: Shape) -> Kept:
        return Kept(inputs=(0,))

    def reads(self, inputs: tuple[Shape, ...], output: Shape) -> tuple[Reads, ...]:
        return ({axis: (axis, SAME) for axis in range(len(inputs[0]))},)
