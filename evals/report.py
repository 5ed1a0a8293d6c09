"""One HTML file that tells a run: figures with intervals, plots, and the cases where it went worst.

It needs nothing but itself: no script, no font, no address. Everything that came from documents or models is
escaped. Light and dark follow the reader's system.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

import jinja2

from evals import plots
from evals.results import CaseResult, SuiteResult, measure_of, system_of

WORST = 12
"""Cases shown whole."""


def render(result: SuiteResult, subtitle: str = "") -> str:
    """The report of one run."""
    measures = list(dict.fromkeys(measure_of(name) for name in result.metrics))
    systems = list(dict.fromkeys(system_of(name) for name in result.metrics))
    values = [case.values[result.headline] for case in result.per_case if result.headline in case.values]
    compared = [c for c in result.comparisons if c.metric == measure_of(result.headline)]
    return _template().render(
        result=result,
        subtitle=subtitle,
        measures=measures,
        systems=systems,
        cells={name: _cell(interval, name) for name, interval in result.metrics.items()},
        intervals=[
            (measure, _trusted(svg))
            for measure, svg in plots.all_intervals(result)
            if measure in {measure_of(result.headline), *measures[:2]}
        ],
        differences=_trusted(plots.differences(compared)) if compared else None,
        distribution=_trusted(plots.distribution(result.headline, values)) if values else None,
        worst=worst(result),
        meta=[(name, _plain(value)) for name, value in result.meta.items()],
        number=number,
    )


def worst(result: SuiteResult) -> list[CaseResult]:
    """The cases with the lowest headline; equal ones in order of their id."""
    measured = [case for case in result.per_case if result.headline in case.values]
    return sorted(measured, key=lambda c: (c.values[result.headline], c.id))[:WORST]


def number(value: float, measure: str = "") -> str:
    """With the digits that mean something for this measure."""
    return f"{value:.1f}" if measure in {"bleu", "words"} else f"{value:.4f}"


def _cell(interval: Any, name: str) -> str:
    measure = measure_of(name)
    low, high = number(interval.low, measure), number(interval.high, measure)
    return f"{number(interval.mean, measure)} [{low}, {high}]"


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(inner)}" for key, inner in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(_plain, value))
    return str(value)


def _trusted(svg: str) -> Any:
    from markupsafe import Markup

    return Markup(svg)  # noqa: S704


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    source = files("evals").joinpath("templates/report.html.j2").read_text(encoding="utf-8")
    return environment.from_string(source)
