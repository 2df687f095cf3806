"""The result of comparing two networks, and the differences that it may ignore."""

from __future__ import annotations

from dataclasses import field

from vggscope.ops.base import Shape
from vggscope.record import record
from vggscope.result import TableResult
from vggscope.units import at_least, count_text
from vggscope.vgg.likeness import Likeness

IGNORABLE = {
    "names": "layers that differ in their names alone",
    "dropout": "dropout that is missing, extra or of another rate",
    "inplace": "whether a layer overwrites its input",
    "bias": "whether a layer has a bias",
    "classes": "how many classes the last layer has",
}
"""What `--ignore` takes."""

EFFECTS = {
    "none": "no effect on this input",
    "training_only": "acts in training only",
    "function": "another function",
    "shape": "other shapes",
}
"""The effects of a difference in words, from the least to the gravest."""


SHARING = "weights"
"""The attribute of a change that is about weights that one network shares between layers and the other does not."""


@record
class Change:
    """An attribute with its value in our layer and in the reference's."""

    attribute: str
    ours: object
    reference: object


@record
class Difference:
    """One root cause, and what follows from it.

    `kind` is inserted, missing, changed or renamed. `ours` and `reference` name the layer in either network, None if
    it has none; `label` is the literature's name. `effect` is `none` (proved for this input), `training_only`,
    `shape` or `function`. `consequences` result from making this one change to the reference. `follows` are the
    messages of further differences that this one explains. `line` is where the user's own code builds the layer, or
    calls it, as `net.py:14`; of a missing layer, where the layer before it is. `remedy` is that line, or what to write
    there, after the change that mends the difference. Both are empty for a model without Python code. `known` is false
    where it is not known whether the layer computes the same, such as of data that the file lacks. `params` is how many
    parameters this one change adds to the reference, below 0 if it takes some away; None if that is not known.
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
    line: str = ""
    remedy: str = ""
    known: bool = True
    params: int | None = None

    @property
    def changes_output(self) -> bool:
        """Whether the network computes something else at evaluation, or may do so."""
        return self.effect in ("shape", "function")

    @property
    def effect_text(self) -> str:
        """The effect in words.

        >>> Difference("changed", "fc", "fc", "function", "").effect_text
        'another function'
        """
        return EFFECTS[self.effect] if self.known else "may be another function"


@record
class ParameterCounts:
    """The number of parameters of either network, None if those of a layer are not known.

    `ours_known` and `reference_known` are the numbers of those that are, `ours_unused` and `reference_unused` those of
    modules that forward does not use.
    """

    ours: int | None
    reference: int | None
    ours_known: int
    reference_known: int
    ours_unused: int = 0
    reference_unused: int = 0

    @property
    def texts(self) -> tuple[str, ...]:
        """Both as text, `at least` the known ones where others are not.

        >>> ParameterCounts(None, 4154, 12, 4154).texts
        ('at least 12', '4,154')
        """
        sides = ((self.ours, self.ours_known), (self.reference, self.reference_known))
        return tuple(f"{at_least(total)}{count_text(known)}" for total, known in sides)


@record
class Numeric:
    """The largest errors between the outputs of two networks with the same weights on the same input.

    `parts_at` is the first layer whose outputs differ, and `parts_error` their relative error; None if none does. A
    relative error up to `tolerance` is rounding. Where another runtime runs a file, `engines` is what ran each of the
    two, else empty, and `changed_weights` how many tensors of the module had other values than the file's, which they
    were given; None where none were copied. `our_unmatched` and `reference_unmatched` are the layers that kept weights
    of their own, since they have no counterpart or one with other parameters; empty where none were copied.
    """

    max_abs_error: float
    max_rel_error: float
    seed: int
    input_shape: Shape
    dtype: str = "float32"
    parts_at: str | None = None
    parts_error: float | None = None
    tolerance: float = 0.0
    engines: tuple[str, ...] = ()
    changed_weights: int | None = None
    our_unmatched: tuple[str, ...] = ()
    reference_unmatched: tuple[str, ...] = ()


@record
class RowLayer:
    """A layer in a row. `family` is the file in ops/ that holds its op, `inputs` are the layers that it reads.

    `output_shape` is None for a layer that does not run. `batch_axis` is its axis that grows with the batch, None if
    there is none.
    """

    name: str
    label: str
    op: str
    family: str
    output_shape: Shape | None
    inputs: tuple[str, ...]
    batch_axis: int | None = field(default=0, metadata={"json": False})


@record
class Row:
    """One line of the side-by-side listing.

    `sign` is `=` (alike), `~` (changed), `+` (ours only), `-` (the reference's only), `!` (ours fails here) or `?`
    (ours never reaches it). `ours` and `reference` describe the two layers in words, `our_layer` and `reference_layer`
    are their data, None on a side without one. `difference` is the index of the row's difference in the Diff.
    """

    sign: str
    ours: str
    reference: str
    our_layer: RowLayer | None = None
    reference_layer: RowLayer | None = None
    difference: int | None = None


@record
class TrainingFact:
    """One aspect of training, in the paper (section 3.1) and in torchvision."""

    matter: str
    paper: str
    torchvision: str


TRAINING = (
    TrainingFact(
        "initialisation",
        "weights normal with mean 0 and variance 0.01, biases 0; the deeper columns start from A's layers",
        "convolutions by Kaiming's rule over the fan-out, linear layers normal with deviation 0.01, biases 0",
    ),
    TrainingFact("dropout", "0.5 after the first two FC layers", "the same"),
    TrainingFact(
        "preprocessing",
        "the training set's mean RGB value is subtracted, nothing else (in Caffe's scale 123.68, 116.779, 103.939)",
        "pixels scaled to 0..1, the mean subtracted and divided by a standard deviation",
    ),
    TrainingFact(
        "optimiser",
        "SGD, batch 256, momentum 0.9, weight decay 5e-4, learning rate 0.01 divided by 10 three times",
        "SGD with momentum 0.9; batch, rate and schedule are those of its own recipe",
    ),
    TrainingFact("batch normalisation", "none: it came later", "in the _bn models only"),
)
"""The differences that the structure of a network cannot show."""


@record
class Diff(TableResult[Difference]):
    """Two networks compared. `verdict` is identical (same ops, attributes, paths and keys), equivalent (written
    differently, the same function of this input at evaluation) or different. It is alike if the reference is the JSON
    of a summary, and its layers are the same as far as that tells. `failure` says where and why our forward pass fails:
    the networks are then compared up to that layer.

    `likeness` counts the equal weight layers if the reference was chosen by them. `compared` is false if no reference
    was named and no VGG is like the model: it is different, and `differences` and `rows` are empty.

    `patch` is a unified patch of the user's file after which the two agree, empty if they do without it. It is None if
    none was asked for. `lists_all` makes the table list each layer that differs in its name alone, or in whether it
    works in place, instead of counting them in one line.
    """

    rows_field = "differences"
    named_by = ("label", "ours", "reference")

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
    failure: str | None = None
    likeness: Likeness | None = None
    compared: bool = True
    patch: str | None = None
    lists_all: bool = field(default=False, metadata={"json": False})
