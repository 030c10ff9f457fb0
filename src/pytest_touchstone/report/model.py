"""What a run's trials add up to: counts, rates, calls, tokens and cost, by suite and by tag."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pytest_touchstone.trial import Call, Outcome, Role, TrialRecord


@dataclass(frozen=True, kw_only=True)
class Totals:
    """Calls, tokens and cost summed.

    `tokens` and `cost_usd` (US dollars) sum what is known and are None where nothing is; `uncounted` and `unpriced` say
    how many calls they leave out.
    """

    calls: int = 0
    tokens: int | None = None
    cost_usd: float | None = None
    uncounted: int = 0
    unpriced: int = 0


@dataclass(frozen=True, kw_only=True)
class Tally:
    """The trials of one group (a suite, or a tag within it), counted by outcome; the counts add up to `trials`."""

    name: str
    trials: int
    passed: int
    failed: int
    error: int
    unscored: int
    not_run: int
    app: Totals
    judge: Totals

    @property
    def pass_rate(self) -> float | None:
        """Passed of those that passed or failed, in [0, 1]; None when there are none of either."""
        scored = self.passed + self.failed
        return self.passed / scored if scored else None


@dataclass(frozen=True, kw_only=True)
class SuiteTally:
    """One suite: all its trials, and those of each tag."""

    suite: Tally
    tags: tuple[Tally, ...]


def summarize(records: Sequence[TrialRecord]) -> list[SuiteTally]:
    """Tally the records by suite, in order of first appearance, and by tag within it, in alphabetical order."""
    suites: defaultdict[str, list[TrialRecord]] = defaultdict(list)
    for record in records:
        suites[record.suite].append(record)
    return [SuiteTally(suite=tally(name, members), tags=_by_tag(members)) for name, members in suites.items()]


def tally(name: str, records: Sequence[TrialRecord]) -> Tally:
    """Count records by outcome and sum up their calls."""
    calls = [call for record in records for call in record.calls]
    return Tally(
        name=name,
        trials=len(records),
        passed=_count(records, "passed"),
        failed=_count(records, "failed"),
        error=_count(records, "error"),
        unscored=_count(records, "unscored"),
        not_run=_count(records, "not_run"),
        app=totals(calls, "app"),
        judge=totals(calls, "judge"),
    )


def totals(calls: Iterable[Call], role: Role) -> Totals:
    """Sum the calls that one role made."""
    own = [call for call in calls if call.role == role]
    tokens = [count for call in own if (count := _tokens(call)) is not None]
    costs = [call.cost_usd for call in own if call.cost_usd is not None]
    return Totals(
        calls=len(own),
        tokens=sum(tokens) if tokens else None,
        cost_usd=sum(costs) if costs else None,
        uncounted=len(own) - len(tokens),
        unpriced=len(own) - len(costs),
    )


def _tokens(call: Call) -> int | None:
    read, written = call.usage.input_tokens, call.usage.output_tokens
    return None if read is None or written is None else read + written


def _by_tag(records: Sequence[TrialRecord]) -> tuple[Tally, ...]:
    tags = sorted({tag for record in records for tag in record.tags})
    return tuple(tally(tag, [record for record in records if tag in record.tags]) for tag in tags)


def _count(records: Iterable[TrialRecord], outcome: Outcome) -> int:
    return sum(record.outcome == outcome for record in records)
