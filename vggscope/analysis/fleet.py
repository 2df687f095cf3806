"""Many models that are compared one by one."""

from __future__ import annotations

from collections.abc import Generator, Sequence

from vggscope.analysis.compare import Compared, Comparison, Published, Ranking, Uncompared, comparison


class Fleet:
    """The figures of models, each as soon as it is done; `vggscope.fleet` returns it.

    Iterate over it to compute them: in the order given, or as they are done by several processes. `comparison()` has
    those that are done so far, in the order given, so nothing is lost after an interruption.

    >>> import vggscope
    >>> fleet = vggscope.fleet("A", "E")
    >>> len(fleet), [row.model for row in fleet], fleet
    (2, ['A', 'E'], <Fleet of 2 models, 2 done>)
    """

    def __init__(
        self,
        names: Sequence[str],
        rows: Generator[tuple[int, Compared | Uncompared], None, None],
        batch: int,
        paper: tuple[Published, ...],
        ranking: Ranking | None,
        columns: tuple[str, ...],
    ) -> None:
        self.names = tuple(names)
        self._rows = rows
        self._done: dict[int, Compared | Uncompared] = {}
        self.columns = columns
        self._ranking, self._batch, self._paper = ranking, batch, paper

    def __iter__(self) -> Fleet:
        return self

    def __next__(self) -> Compared | Uncompared:
        index, row = next(self._rows)
        self._done[index] = row
        return row

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        return f"<Fleet of {'1 model' if len(self) == 1 else f'{len(self)} models'}, {len(self._done)} done>"

    @property
    def missing(self) -> tuple[str, ...]:
        """The models that are not done."""
        return tuple(name for index, name in enumerate(self.names) if index not in self._done)

    def comparison(self) -> Comparison:
        """Return the models that are done side by side, as `vggscope.compare` does.

        >>> import vggscope
        >>> fleet = vggscope.fleet("A", "E", "D", sort="params")
        >>> first, second = next(fleet), next(fleet)
        >>> fleet.comparison(), fleet.missing
        (<Comparison of E, A at 3x224x224, batch 1>, ('D',))
        """
        rows = [self._done[index] for index in sorted(self._done)]
        return comparison(rows, self._batch, self._paper, self.missing, self._ranking, self.columns)
