"""Write the tables of docs/memory.md and docs/models.md from the results of memory_truth.py."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

DOCS = Path(__file__).parent.parent / "docs"
BEGIN, END = "<!-- memory_truth.py begins -->", "<!-- memory_truth.py ends -->"

MACS = ("macs", "backward MACs")
PEAKS = ("inference", "training")

TITLES = {"torchvision": "torchvision", "timm": "timm", "zoo": "small modules of `tests/zoo.py`"}

REASONS = {
    "zoo:class_activation_map": "the tracker counts gradients that were there before the step",
    "zoo:perceptual_distance": "torch's counter runs a copy, and forward refers to the module itself",
    "zoo:checkpointed": "torch's counter also counts the forward pass that backward repeats",
    "zoo:causal_language_model": "torch's counter has no formula for the CPU's fused attention, the whole difference",
    **dict.fromkeys(
        ("zoo:packed_lstm", "zoo:quantized_convolution", "zoo:quantized_dynamically"),
        "torch's counter has no formula for the kernel; the tests hold the MACs to a calculation by hand",
    ),
}
"""Why torch's figure is not that of the step: of its counter, or else of its tracker."""

PACKED = ("zoo:quantized_convolution", "zoo:quantized_dynamically")
"""Models whose weights the tracker does not see."""

LONGEST_REASON = 140
"""The longest part of torch's message that is shown."""

EQUAL, EXPLAINED, WITHHELD, NOT_COMPARED, DIFFERS = "equal", "explained", "withheld", "not compared", "differs"


class Figure(NamedTuple):
    """A figure of a model: ours, torch's, how they compare, and why they may differ."""

    model: str
    name: str
    ours: int | None
    torchs: int | None
    outcome: str
    reason: str

    @property
    def difference(self) -> float:
        """Ours minus torch's as a share of torch's."""
        assert self.ours is not None
        assert self.torchs is not None
        return (self.ours - self.torchs) / self.torchs if self.torchs else float(self.ours != self.torchs)

    @property
    def text(self) -> str:
        """The cell of a table."""
        if self.outcome == EQUAL:
            return f"{self.ours:,}"
        if self.outcome == DIFFERS:
            return f"{self.ours:,} ({self.difference:+.2%})"
        shown = "" if self.ours is None else f"{self.ours:,}, "
        return f"{shown}{self.outcome}"


def figures(results: Mapping[str, Any]) -> Iterator[Figure]:
    """Yield the figures of all models that have any."""
    for model, row in results.items():
        for name in () if model == "versions" or "failure" in row else (*MACS, *PEAKS):
            ours, torchs, reason = row[name]
            yield Figure(model, name, ours, torchs, *_outcome(model, name, ours, torchs, reason))


def _outcome(model: str, name: str, ours: int | None, torchs: int | None, reason: str) -> tuple[str, str]:
    if torchs is None and (ours is not None or name in PEAKS):
        return NOT_COMPARED, reason
    if ours is None or "by the rules" in reason:
        return WITHHELD, reason
    if ours == torchs:
        return EQUAL, ""
    if reason:
        return EXPLAINED, reason
    if model in PACKED and name in PEAKS:
        return NOT_COMPARED, "the tracker does not see packed weights"
    is_known = model in REASONS and (name in PEAKS) != (REASONS[model].startswith("torch's counter"))
    return (NOT_COMPARED, REASONS[model]) if is_known else (DIFFERS, "")


def write_pages(results: Mapping[str, Any], known: Sequence[str]) -> None:
    """Replace what stands between the markers of both pages. `known` are the words of all models."""
    found = list(figures(results))
    failed = {model: row["failure"] for model, row in results.items() if "failure" in row}
    _replace(DOCS / "memory.md", "\n".join((*_summary(found, failed), *_missing(results, known))))
    _replace(DOCS / "models.md", "\n".join(_models(found, failed)))


def _missing(results: Mapping[str, Any], known: Sequence[str]) -> Iterator[str]:
    missing = [f"`{word}`" for word in known if word not in results]
    if missing:
        yield f"\nModels of the list without results, which take minutes: {', '.join(missing)}."


def _replace(page: Path, text: str) -> None:
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    page.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.partition(END)[2]}", encoding="utf-8")


def _summary(found: list[Figure], failed: Mapping[str, str]) -> Iterator[str]:
    """The sentence over all models, a row for each library, and what is not equal."""
    peaks = [figure for figure in found if figure.name in PEAKS]
    compared = [figure for figure in peaks if figure.outcome in (EQUAL, DIFFERS)]
    shares = sorted(abs(figure.difference) for figure in compared)
    models = {figure.model for figure in found}
    within = [sum(share <= limit for share in shares) for limit in (0, 0.001, 0.01)]
    yield (
        f"{len(models)} models, {len(compared)} peaks compared: {within[0]} are equal to the byte,\n"
        f"{within[1]} ({within[1] / len(compared):.1%}) within 0.1%, {within[2]} ({within[2] / len(compared):.1%})"
        f" within 1%; the median difference is {median(shares):.2%}, the largest {shares[-1]:.3%}."
    )
    yield "\n| models | | peaks compared | equal to the byte | within 0.1% | within 1% | withheld | not compared |"
    yield "|---|---:|---:|---:|---:|---:|---:|---:|"
    for library, title in TITLES.items():
        mine = [figure for figure in peaks if figure.model.startswith(f"{library}:")]
        if not mine:
            continue
        own = [abs(figure.difference) for figure in mine if figure.outcome in (EQUAL, DIFFERS)]
        counts = Counter(figure.outcome for figure in mine)
        limits = (sum(share <= limit for share in own) for limit in (0, 0.001, 0.01))
        number = len({figure.model for figure in mine})
        yield _row(title, number, len(own), *limits, counts[WITHHELD], counts[NOT_COMPARED])
    differing = [figure for figure in compared if figure.outcome == DIFFERS]
    if differing:
        yield "\nThe peaks that are not equal, in bytes:\n\n| model | step | vggscope | tracker | difference |"
        yield "|---|---|---:|---:|---:|"
        for figure in sorted(differing, key=lambda figure: -abs(figure.difference)):
            cells = (f"{figure.ours:,}", f"{figure.torchs:,}", f"{figure.difference:+.3%}")
            yield _row(f"`{figure.model}`", figure.name, *cells)
    yield "\nWithheld, or not compared:\n"
    yield from _reasons([figure for figure in peaks if figure.outcome in (WITHHELD, NOT_COMPARED)])
    if failed:
        yield "\nWithout figures:\n"
        yield from (f"- `{model}`: {reason}" for model, reason in failed.items())


def _models(found: list[Figure], failed: Mapping[str, str]) -> Iterator[str]:
    """The counts of MACs, and a row for each model of the libraries."""
    for name, title in zip(MACS, ("Forward", "Backward")):
        counts = Counter(figure.outcome for figure in found if figure.name == name)
        yield (
            f"{title} MACs of {sum(counts.values())} models: {counts[EQUAL]} equal torch's counter,"
            f" {counts[EXPLAINED]} differ by an\namount that is known to the last digit, {counts[WITHHELD]} are"
            f" withheld, {counts[NOT_COMPARED]} are not compared, {counts[DIFFERS]} differ.\n"
        )
    explained = [f for f in found if f.name in MACS and f.outcome == EXPLAINED]
    yield "Differences that are known, with the number of figures, and figures without a comparison:\n"
    kinds: dict[str, list[str]] = defaultdict(list)
    for figure in explained:
        kinds[figure.reason.partition("(")[2].rstrip(")")].append(f"`{figure.model}`")
    yield from (f"- {reason}: {len(models)}" for reason, models in kinds.items())
    rest = [f for f in found if f.name in MACS and f.outcome in (NOT_COMPARED, WITHHELD, DIFFERS)]
    yield from _reasons(rest)
    yield "\n| model | MACs | backward MACs | inference, bytes | training, bytes |"
    yield "|---|---:|---:|---:|---:|"
    rows: dict[str, list[Figure]] = defaultdict(list)
    for figure in found:
        rows[figure.model].append(figure)
    for model, row in rows.items():
        if not model.startswith("zoo:"):
            yield _row(model, *(figure.text for figure in row))
    yield from (_row(model, reason, "", "", "") for model, reason in failed.items())


def _reasons(listed: list[Figure]) -> Iterator[str]:
    """A line for each reason, with its models."""
    models: dict[str, list[str]] = defaultdict(list)
    for figure in listed:
        name = figure.model.removeprefix("zoo:")
        reason = figure.reason.replace(f"{name} has", "it has").replace(f"of {name} ", "")[:LONGEST_REASON]
        if "targets should not be none" in figure.reason:
            reason = "forward takes targets too in training, and is given images alone"
        if figure.outcome == DIFFERS:
            reason = f"{figure.name}: {figure.ours:,}, torch {figure.torchs:,}"
        elif reason == "withheld" or not reason:
            reason = f"{figure.name} withheld"
        if f"`{figure.model}`" not in models[reason]:
            models[reason].append(f"`{figure.model}`")
    yield from (f"- {reason}: {', '.join(names)}" for reason, names in models.items())


def _row(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"
