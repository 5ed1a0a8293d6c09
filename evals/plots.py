"""Plots as SVG text for the report. Colours are CSS variables, so one figure serves light and dark pages."""

import io
import re
from collections.abc import Sequence
from typing import Any

from evals.results import Comparison, SuiteResult, measure_of, system_of
from evals.statistics import Interval

_COLOURS = {"#010101": "var(--ink)", "#020202": "var(--accent)", "#030303": "var(--quiet)"}
INK, ACCENT, QUIET = _COLOURS
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": QUIET,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
}


def intervals(measure: str, rows: Sequence[tuple[str, Interval]]) -> str:
    """One line per system: its mean and 95 % interval."""
    figure, axes = _figure(0.34 * len(rows) + 0.7)
    for place, (_, interval) in enumerate(rows):
        axes.plot([interval.low, interval.high], [place, place], color=ACCENT, linewidth=2)
        axes.plot([interval.mean], [place], "o", color=ACCENT, markersize=6)
    return _finished(figure, axes, [name for name, _ in rows], measure)


def differences(rows: Sequence[Comparison]) -> str:
    """One line per comparison: the mean difference, its interval, and the line of no difference."""
    figure, axes = _figure(0.34 * len(rows) + 0.7)
    axes.axvline(0, color=QUIET, linewidth=1, linestyle="--")
    for place, row in enumerate(rows):
        colour = QUIET if row.result.verdict == "cannot tell" else ACCENT
        axes.plot([row.result.low, row.result.high], [place, place], color=colour, linewidth=2)
        axes.plot([row.result.difference], [place], "o", color=colour, markersize=6)
    names = [f"{row.metric}: {short(row.first)} − {short(row.second)}" for row in rows]
    return _finished(figure, axes, names, "difference")


def distribution(metric: str, values: Sequence[float]) -> str:
    """How many cases have which value."""
    figure, axes = _figure(2.0)
    axes.hist(list(values), bins=20, color=ACCENT)
    axes.set_xlabel(metric)
    axes.set_ylabel("cases")
    return _svg(figure)


def all_intervals(result: SuiteResult) -> list[tuple[str, str]]:
    """(measure, plot) of every measure."""
    measures = list(dict.fromkeys(measure_of(name) for name in result.metrics))
    found = []
    for measure in measures:
        rows = [(system_of(n), i) for n, i in result.metrics.items() if measure_of(n) == measure]
        found.append((measure, intervals(measure, rows)))
    return found


def short(metric_or_system: str) -> str:
    return system_of(metric_or_system) or metric_or_system


def _figure(height: float) -> tuple[Any, Any]:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(_STYLE):
        figure = Figure(figsize=(7.2, height), layout="constrained")
        return figure, figure.add_subplot()


def _finished(figure: Any, axes: Any, names: Sequence[str], label: str) -> str:
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlabel(label)
    axes.tick_params(axis="y", length=0)
    return _svg(figure)


def _svg(figure: Any) -> str:
    from matplotlib import rc_context

    sink = io.StringIO()
    with rc_context(_STYLE):
        figure.savefig(sink, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = sink.getvalue()
    text = text[text.index("<svg") :]
    for colour, variable in _COLOURS.items():
        text = text.replace(colour, variable)
    used = set(re.findall(r"#(\w+)", text))
    text = re.sub(r' id="(\w+)"', lambda m: m[0] if m[1] in used else "", text)
    return re.sub(r'(<svg [^>]*?)width="[\d.]+pt"', r'\1width="100%"', text, count=1).replace(
        "<svg ", '<svg role="img" ', 1
    )
