"""A verdict in words: for a terminal, and for the page of evidence; nothing in them acts on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_touchstone.gate import decide
from pytest_touchstone.improve import gain_text, kept_text
from pytest_touchstone.report.terminal import table
from pytest_touchstone.text import counted, shorten, visible

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pytest_touchstone.gate import CaseChange, Evidence, SuiteDecision
    from pytest_touchstone.improve import RefusalRule, Verdict

NAMED = 10
_SHORT: Mapping[RefusalRule, str] = {
    "cases": "the holdout cases cannot tell whether a model is better",
    "gain": "no significant gain on the holdout cases",
    "loss": "some of it got worse",
    "forgetting": "it forgot too much of what passed before",
    "must_pass": "a case that must pass failed",
    "verdicts": "too many cases have no verdict",
}
COLUMNS = ("", "cases", "before", "after", "difference", "95 % interval", "fixed", "broken")


def headline(verdict: Verdict) -> str:
    """The verdict in a sentence."""
    if not verdict.reasons:
        return "promoted: the tuned model is better on cases that it never saw, and lost nothing that counts"
    first, *others = verdict.reasons
    more = f", and {counted(len(others), 'more reason')}" if others else ""
    return f"refused: {_SHORT[first.rule]}{more}"


def verdict_lines(verdict: Verdict) -> Iterator[str]:
    """What a terminal shows: the table, each number that decided, and in the end the verdict with every reason."""
    yield from table([COLUMNS, *(row(visible(part.suite), part) for part in verdict.parts.suites)])
    yield ""
    if verdict.after:
        yield "holdout:"
        yield from (f"  {gain_text(gain)} (alpha {verdict.policy.alpha:g})" for gain in verdict.gains)
        yield f"of what passed before (up to {verdict.policy.max_forgetting:g} in 100 may be lost):"
        yield from (f"  {kept_text(kept)}" for kept in verdict.kept)
        yield from _named("fixed", verdict.fixed)
        yield from _named("broken", verdict.broken)
    yield from (f"note: {visible(note)}" for note in verdict.notes)
    yield ""
    yield visible(headline(verdict))
    yield from (f"  {visible(reason.text)}" for reason in verdict.reasons)


def row(name: str, part: SuiteDecision) -> tuple[str, ...]:
    """The row of a part or a tag: counts, rates, difference."""
    before, after = ("-" if rate is None else f"{rate.rate:.1%}" for rate in (part.baseline_rate, part.run_rate))
    return (
        name,
        f"{part.compared or len(part.cases):,}",
        before,
        after,
        "-" if part.difference is None else f"{part.difference * 100:+.1f}",
        "-" if part.interval is None else f"{part.interval.low * 100:+.1f} to {part.interval.high * 100:+.1f}",
        f"{part.rose:,}",
        f"{part.fell:,}",
    )


def by_tag(part: SuiteDecision) -> tuple[SuiteDecision, ...]:
    """The part's cases by tag, sorted; a case has the tags that it has now."""
    sides: tuple[dict[str, dict[str, Evidence]], dict[str, dict[str, Evidence]]] = ({}, {})
    for case in part.cases:
        for tag in _tags(case):
            for side, found in zip(sides, (case.before, case.after), strict=True):
                if found is not None:
                    side.setdefault(tag, {})[case.case_id] = found
    decided = decide(*sides, part.policy)
    return tuple(sorted(decided.suites, key=lambda tag: tag.suite))


def _tags(case: CaseChange) -> Sequence[str]:
    now = case.after or case.before
    return now.tags if now is not None else ()


def _named(title: str, cases: Sequence[tuple[str, CaseChange]]) -> Iterator[str]:
    shown = [shorten(case.case_id) for _, case in cases[:NAMED]]
    more = len(cases) - len(shown)
    yield (f"{title}: {counted(len(cases), 'case')}" + (f": {', '.join(shown)}" if shown else "") + (f" and {more:,} more" if more else ""))


def outcomes_text(outcomes: Mapping[Any, int]) -> str:
    """What became of the trials of a side.

    >>> outcomes_text({"passed": 3, "error": 1})
    '4 trials: 3 passed, 1 error'
    """
    return f"{sum(outcomes.values()):,} trials: {', '.join(f'{count:,} {name}' for name, count in outcomes.items())}"
