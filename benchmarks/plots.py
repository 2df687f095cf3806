"""The plots of docs/benchmarks.md."""

from __future__ import annotations

from io import StringIO

OURS, OTHERS = "#1b6ca8", "#9aa5b1"


def time_plot(seconds: dict[str, float]) -> str:
    """Bars of CPU seconds on a logarithmic scale, the shortest first; ours in colour."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    names = sorted(seconds, key=lambda name: -seconds[name])
    colors = [OURS if name.startswith("vggscope") else OTHERS for name in names]
    bars = axes.barh(names, [seconds[name] for name in names], color=colors)
    axes.bar_label(bars, fmt="%.2f", padding=3, fontsize=8)
    axes.set_xscale("log")
    axes.set_xlabel("CPU seconds of the whole program, logarithmic")
    axes.margins(x=0.1)
    axes.spines[["top", "right"]].set_visible(False)
    return _svg(figure)


def growth_plot(curves: dict[str, dict[str, float]]) -> str:
    """A curve for each quantity, both axes logarithmic, with a line of slope one to hold them against."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 2.8), layout="constrained")
    for axes, (name, curve) in zip(figure.subplots(1, len(curves), sharey=True), curves.items()):
        values = [int(value) for value in curve]
        axes.loglog(values, list(curve.values()), "o-", color=OURS, markersize=4)
        if name in ("layers", "models"):
            first = curve[str(values[0])]
            axes.loglog(values, [first * v / values[0] for v in values], "--", color=OTHERS, label="linear")
            axes.legend(frameon=False)
        axes.set_xlabel(name)
        axes.spines[["top", "right"]].set_visible(False)
        if name == "layers":
            axes.set_ylabel("CPU seconds")
    return _svg(figure)


def _svg(figure: object) -> str:
    """The same text for the same figures."""
    import matplotlib as mpl

    out = StringIO()
    with mpl.rc_context({"svg.hashsalt": "vggscope", "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})  # type: ignore[attr-defined]
    return out.getvalue()
