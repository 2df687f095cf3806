"""Numbers of elements and tensors of timm's models, which tell candidates for a checkpoint without building a model.

To build all of them takes minutes, so the numbers come with vggscope, in `timm_sizes.txt`, for one version of timm.
They choose what is built and compared, and prove nothing: another version has the same models, but for a few.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from functools import cache
from pathlib import Path

from vggscope.record import record

INDEX = Path(__file__).with_name("timm_sizes.txt")


@record
class ModelSize:
    """A model: the elements and the number of the tensors of its state dict, without counters of batches.

    `classes` is the number of its classes; the `head_tensors` of its classifier have `head_elements` elements. All are
    0 for a model without a classifier.
    """

    name: str
    elements: int
    tensors: int
    classes: int
    head_elements: int
    head_tensors: int

    def fit(self, elements: int, tensors: int, rows: Container[int]) -> int | None:
        """How a state dict of these numbers may be the model's: 0 as it is, 1 without its classifier, 2 with as many
        classes as one of the tensors has rows. None if it is another's.

        >>> resnet18 = ModelSize("resnet18", 11_699_112, 102, 1000, 513_000, 2)
        >>> resnet18.fit(11_699_112 - 990 * 513, 102, {64, 10})
        2
        """
        if (elements, tensors) == (self.elements, self.tensors):
            return 0
        base = self.elements - self.head_elements
        if self.head_tensors and (elements, tensors) == (base, self.tensors - self.head_tensors):
            return 1
        if tensors != self.tensors or not self.classes or self.head_elements % self.classes:
            return None
        found, rest = divmod(elements - base, self.head_elements // self.classes or 1)
        return 2 if found > 0 and not rest and found in rows else None


@cache
def index() -> tuple[str, tuple[ModelSize, ...]]:
    """The version of timm that the numbers are of, and the models."""
    version, *rows = INDEX.read_text(encoding="utf-8").splitlines()
    models = (row.split() for row in rows)
    return version, tuple(ModelSize(name, *map(int, numbers)) for name, *numbers in models)


def fitting(elements: int, tensors: int, rows: Container[int]) -> Iterator[str]:
    """The names of the models whose state dict a file with these numbers may be, the best fits first.

    `rows` are the first sides of the file's tensors.
    """
    fits = ((model.fit(elements, tensors, rows), model.name) for model in index()[1])
    yield from (name for fit, name in sorted((fit, name) for fit, name in fits if fit is not None))
