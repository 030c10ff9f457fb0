"""Two sides held against each other, as lines of text and as plain data; nothing in them acts on a terminal."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from pytest_touchstone.gate_text import explain
from pytest_touchstone.report.terminal import Line, table
from pytest_touchstone.text import shorten, visible

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_touchstone.gate import Decision, Evidence, Result, SuiteDecision
    from pytest_touchstone.report.terminal import Style

MAX_CASES = 20
MAX_VALUES = 4
_COLUMNS = ("suite", "cases", "before", "after", "difference", "95 % interval", "worse", "better", "p", "decision")
RESULT_STYLES: Mapping[Result, Style] = {"passed": "green", "regressed": "red", "undecided": "yellow"}


def comparison_lines(
    decision: Decision,
    *,
    before: str,
    after: str,
    by_tag: Mapping[str, Decision],
    differing: Mapping[str, tuple[Sequence[str], Sequence[str]]],
    all_cases: bool = False,
) -> list[Line]:
    """The paired table, what stands behind the decisions, the cases that got worse (the first 20 unless `all_cases`), and the provenance.

    `by_tag` holds a decision for each suite, whose own suites are the tags.
    """
    lines = [Line("", f"before: {visible(before)}"), Line("", f"after:  {visible(after)}"), Line("", "")]
    rows: list[tuple[Style, tuple[str, ...]]] = [("bold", _COLUMNS)]
    for suite in decision.suites:
        rows.append((RESULT_STYLES[suite.result], _row(visible(suite.suite), suite, suite.result)))
        if suite.suite in by_tag:
            rows.extend(("dim", _row(f"  {visible(tag.suite)}", tag, "")) for tag in by_tag[suite.suite].suites)
    lines += [Line(style, text) for (style, _), text in zip(rows, table([row for _, row in rows]), strict=True)]
    lines += [Line("", ""), *(Line("", text) for text in explain(decision, worst=sys.maxsize if all_cases else MAX_CASES))]
    lines += _difference_lines(differing)
    return [*lines, Line("", ""), Line(RESULT_STYLES[decision.result], f"decision: {decision.result}")]


def differences(before: Mapping[str, Sequence[str]], after: Mapping[str, Sequence[str]]) -> dict[str, tuple[Sequence[str], Sequence[str]]]:
    """What is known on both sides, and is not the same there.

    >>> differences({"models": ["a"], "judges": []}, {"models": ["b"], "judges": [], "commit": ["3b4f"]})
    {'models': (['a'], ['b'])}
    """
    return {name: (before[name], after[name]) for name in before if name in after and list(before[name]) != list(after[name])}


def comparison_data(
    decision: Decision,
    *,
    before: str,
    after: str,
    by_tag: Mapping[str, Decision],
    differing: Mapping[str, tuple[Sequence[str], Sequence[str]]],
) -> dict[str, Any]:
    """The same as plain data."""
    return {
        "before": before,
        "after": after,
        "decision": decision.to_dict(),
        "by_tag": {suite: [tag.to_dict() for tag in tags.suites] for suite, tags in by_tag.items()},
        "differences": {name: {"before": list(one), "after": list(other)} for name, (one, other) in differing.items()},
    }


def tags_of(suite: Mapping[str, Evidence]) -> list[str]:
    """Every tag of a suite's cases, sorted."""
    return sorted({tag for case in suite.values() for tag in case.tags})


def _row(name: str, suite: SuiteDecision, result: str) -> tuple[str, ...]:
    rates = ["-" if rate is None else f"{rate.rate:.1%}" for rate in (suite.baseline_rate, suite.run_rate)]
    interval = "-" if suite.interval is None else f"{_points(suite.interval.low)} to {_points(suite.interval.high)}"
    counts = suite.counts
    return (
        name,
        f"{suite.compared:,}",
        *rates,
        "-" if suite.difference is None else f"{_points(suite.difference)} points",
        interval,
        f"{counts['worse']:,}",
        f"{counts['better']:,}",
        "-" if suite.p_adjusted is None else f"{suite.p_adjusted:.2g}",
        result,
    )


def _points(share: float) -> str:
    return f"{100 * share:+.1f}"


def _difference_lines(differing: Mapping[str, tuple[Sequence[str], Sequence[str]]]) -> list[Line]:
    if not differing:
        return []
    lines = [Line("", ""), Line("bold", "what else differs")]
    for name, (before, after) in differing.items():
        # Of lists, what both have in common says nothing.
        gone, come = [value for value in before if value not in after], [value for value in after if value not in before]
        lines.append(Line("", f"  {visible(name)}: {_values(gone)} -> {_values(come)}"))
    return lines


def _values(values: Sequence[str]) -> str:
    shown = [shorten(value) for value in values[:MAX_VALUES]]
    return ", ".join([*shown, f"and {len(values) - MAX_VALUES} more"] if len(values) > MAX_VALUES else shown) or "(none)"
