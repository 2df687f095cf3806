"""What a comparison of two networks says."""

from __future__ import annotations

from vggscope.diffing.training import TrainingFact
from vggscope.ops.base import Shape
from vggscope.record import record
from vggscope.result import Result


@record
class Change:
    """One attribute of a layer that is not what the reference has."""

    attribute: str
    ours: object
    reference: object


@record
class Difference:
    """One cause, and what follows from it.

    `kind` is inserted, missing, changed or renamed. `ours` and `reference` name the layer in either network, None
    where it has none; `label` is the literature's name. `effect` is `none` (proved for this input), `training_only`,
    `shape` or `function`. `consequences` are worked out by making this one change to the reference; `follows` are
    further differences that only follow from this one.
    """

    kind: str
    ours: str | None
    reference: str | None
    effect: str
    message: str
    label: str = ""
    changes: tuple[Change, ...] = ()
    consequences: tuple[str, ...] = ()
    follows: tuple[str, ...] = ()

    @property
    def changes_output(self) -> bool:
        """Whether the network computes something else at evaluation."""
        return self.effect in ("shape", "function")


@record
class ParameterCounts:
    """How many parameters either network has."""

    ours: int
    reference: int


@record
class Numeric:
    """How far apart two networks with the same weights are on the same input."""

    max_abs_error: float
    max_rel_error: float
    seed: int
    input_shape: Shape
    dtype: str = "float32"
    parts_at: str | None = None


@record
class RowLayer:
    """A layer as a row has it. `family` is the file in ops/ that has its op, `inputs` are the layers that it reads;
    `output_shape` is None for one that does not run.
    """

    name: str
    label: str
    op: str
    family: str
    output_shape: Shape | None
    inputs: tuple[str, ...]


@record
class Row:
    """One line of the two networks side by side: a layer of either, and the sign of how they stand to each other.

    `ours` and `reference` say the layers in words; `our_layer` and `reference_layer` are what is said of them, None
    where that side has none. `difference` is the place among the differences of the one that this row belongs to.
    """

    sign: str
    ours: str
    reference: str
    our_layer: RowLayer | None = None
    reference_layer: RowLayer | None = None
    difference: int | None = None


@record
class Diff(Result):
    """Two networks compared. `verdict` is identical (same ops, attributes, paths and keys), equivalent (written
    otherwise, the same function of this input at evaluation) or different.
    """

    schema: str
    model: str
    reference: str
    verdict: str
    differences: tuple[Difference, ...]
    params: ParameterCounts
    numeric: Numeric | None
    notes: tuple[str, ...]
    rows: tuple[Row, ...]
    training: tuple[TrainingFact, ...] = ()
