"""What a run would ask, going by what is recorded: calls, tokens and cost, and what of them would be live."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pytest_touchstone.recording.key import Asked
from pytest_touchstone.recording.wire import answer_body, api_of, read_usage
from pytest_touchstone.report.terminal import Line, dollars, table
from pytest_touchstone.text import counted, visible

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pytest_touchstone.recording.store import Entry
    from pytest_touchstone.settings import RecordMode
    from pytest_touchstone.trial import Role

COLUMNS = ("suite", "cases", "trials", "calls", "judge calls", "tokens in", "out", "cost", "estimated", "live calls", "live cost")
UNKNOWN = "unknown"
AT_LEAST = ">= "
TOTAL = "in all"
MAX_REASONS = 3


@dataclass(frozen=True, kw_only=True)
class Load:
    """Calls, their tokens and what they cost, in US dollars; means where cases are estimated, so not always whole numbers.

    `uncounted` calls are not in the tokens, and `unpriced` ones not in the cost, for the `reasons`, each once.
    """

    app_calls: float = 0.0
    judge_calls: float = 0.0
    input_tokens: float = 0.0
    output_tokens: float = 0.0
    uncounted: float = 0.0
    cost_usd: float = 0.0
    unpriced: float = 0.0
    reasons: tuple[str, ...] = ()

    @property
    def calls(self) -> float:
        """The calls of the app and of judges."""
        return self.app_calls + self.judge_calls

    def __add__(self, other: Load) -> Load:
        """Both together."""
        return Load(
            app_calls=self.app_calls + other.app_calls,
            judge_calls=self.judge_calls + other.judge_calls,
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            uncounted=self.uncounted + other.uncounted,
            cost_usd=self.cost_usd + other.cost_usd,
            unpriced=self.unpriced + other.unpriced,
            reasons=tuple(dict.fromkeys(self.reasons + other.reasons)),
        )

    def times(self, factor: float) -> Load:
        """As many times over."""
        return Load(
            app_calls=self.app_calls * factor,
            judge_calls=self.judge_calls * factor,
            input_tokens=self.input_tokens * factor,
            output_tokens=self.output_tokens * factor,
            uncounted=self.uncounted * factor,
            cost_usd=self.cost_usd * factor,
            unpriced=self.unpriced * factor,
            reasons=self.reasons,
        )


@dataclass(frozen=True, kw_only=True)
class PlannedCase:
    """A case that a run would try: the numbers of its trials, and what is recorded of it, by trial; or a shared fixture's calls."""

    suite: str
    trials: tuple[int, ...]
    recorded: Mapping[int, Load]
    is_shared: bool = False


@dataclass(frozen=True, kw_only=True)
class PlannedSuite:
    """What a suite would ask; `total` and `live` are None where nothing of it is recorded. `unrecorded` counts trials."""

    name: str
    cases: int
    trials: int
    estimated: int
    unrecorded: int
    total: Load | None
    live: Load | None


def load_of(role: Role, entry: Entry) -> Load | None:
    """One recorded call, None where the entry is no model call."""
    request = entry.request
    method, url, body = request.get("method"), request.get("url"), request.get("body")
    if not (isinstance(method, str) and isinstance(url, str)):
        return None
    host = urlsplit(url).hostname or ""
    asked = Asked(method=method, url=url, host=host, body=body if isinstance(body, dict) else {}, key=entry.key)
    api = api_of(asked)
    if api is None:
        return None
    usage = read_usage(api, answer_body(api, entry.body))
    load = Load(judge_calls=1.0) if role == "judge" else Load(app_calls=1.0)
    if usage.input_tokens is None or usage.output_tokens is None:
        load = replace(load, uncounted=1.0)
    else:
        load = replace(load, input_tokens=float(usage.input_tokens), output_tokens=float(usage.output_tokens))
    if entry.cost_usd is None:
        return replace(load, unpriced=1.0, reasons=(entry.cost_reason or "the recording does not say why",))
    return replace(load, cost_usd=entry.cost_usd)


def plan_suites(cases: Iterable[PlannedCase], mode: RecordMode) -> list[PlannedSuite]:
    """What each suite would ask in a recording mode, in order of first appearance.

    A trial that is not recorded is taken for the mean of its case's recorded trials; one of a case that is not recorded at all, for
    the mean of its suite's recorded cases.
    """
    suites: defaultdict[str, list[PlannedCase]] = defaultdict(list)
    for case in cases:
        suites[case.suite].append(case)
    return [_plan_suite(name, members, mode) for name, members in suites.items()]


def _plan_suite(name: str, cases: Sequence[PlannedCase], mode: RecordMode) -> PlannedSuite:
    means = [_mean(case.recorded.values()) for case in cases if case.recorded]
    known, missing = Load(), Load()
    for case in cases:
        mean = _mean(case.recorded.values() or means)
        for number in case.trials:
            if number in case.recorded:
                known += case.recorded[number]
            else:
                missing += mean
    total = known + missing if means else None
    live: Load | None = Load()
    if mode != "none":
        live = missing if total is not None and mode == "missing" else total
    return PlannedSuite(
        name=name,
        cases=sum(not case.is_shared for case in cases),
        trials=sum(len(case.trials) for case in cases if not case.is_shared),
        estimated=sum(not case.recorded for case in cases) if means else 0,
        unrecorded=sum(number not in case.recorded for case in cases for number in case.trials),
        total=total,
        live=live,
    )


def _mean(loads: Iterable[Load]) -> Load:
    found = list(loads)
    return sum(found, Load()).times(1 / len(found)) if found else Load()


def plan_lines(suites: Sequence[PlannedSuite], mode: RecordMode) -> list[Line]:
    """The table of a plan, and what has to be known to read it."""
    totals = _in_all(suites)
    is_partial = any(suite.total is None for suite in suites)
    rows = [list(COLUMNS), *(_row(suite) for suite in suites), _row(totals, is_partial=is_partial)]
    lines = [Line("bold" if number in {0, len(rows) - 1} else "", text) for number, text in enumerate(table(rows))]
    return [*lines, *_notes(suites, totals), Line("", _mode_note(totals.unrecorded, mode))]


def _in_all(suites: Sequence[PlannedSuite]) -> PlannedSuite:
    return PlannedSuite(
        name=TOTAL,
        cases=sum(suite.cases for suite in suites),
        trials=sum(suite.trials for suite in suites),
        estimated=sum(suite.estimated for suite in suites),
        unrecorded=sum(suite.unrecorded for suite in suites),
        total=_known_sum([suite.total for suite in suites]),
        live=_known_sum([suite.live for suite in suites]),
    )


def _known_sum(loads: Sequence[Load | None]) -> Load | None:
    known = [load for load in loads if load is not None]
    return sum(known, Load()) if known or not loads else None


def _row(suite: PlannedSuite, *, is_partial: bool = False) -> list[str]:
    total, live = suite.total, suite.live
    # Where no call may be live, what is not known does not matter.
    live_is_partial = is_partial and live != Load()
    return [
        visible(suite.name),
        f"{suite.cases:,}",
        f"{suite.trials:,}",
        _number(None if total is None else total.app_calls, is_partial=is_partial),
        _number(None if total is None else total.judge_calls, is_partial=is_partial),
        *_token_cells(total, is_partial=is_partial),
        _cost_cell(total, is_partial=is_partial),
        f"{suite.estimated:,}",
        _number(None if live is None else live.calls, is_partial=live_is_partial),
        _cost_cell(live, is_partial=live_is_partial),
    ]


def _number(value: float | None, *, is_partial: bool) -> str:
    return UNKNOWN if value is None else f"{AT_LEAST if is_partial else ''}{round(value):,}"


def _token_cells(load: Load | None, *, is_partial: bool) -> list[str]:
    if load is None or (load.calls and load.uncounted >= load.calls):
        return [UNKNOWN, UNKNOWN]
    return [_number(tokens, is_partial=is_partial or load.uncounted > 0) for tokens in (load.input_tokens, load.output_tokens)]


def _cost_cell(load: Load | None, *, is_partial: bool) -> str:
    if load is None or (load.calls and load.unpriced >= load.calls):
        return UNKNOWN
    return f"{AT_LEAST if is_partial or load.unpriced else ''}{dollars(load.cost_usd)}"


def _notes(suites: Sequence[PlannedSuite], totals: PlannedSuite) -> list[Line]:
    notes: list[Line] = []
    if totals.estimated:
        cases = counted(totals.estimated, "case")
        notes.append(Line("", f"estimated: nothing is recorded of {cases}; the mean of the suite's recorded cases stands for each"))
    unknown = [suite.name for suite in suites if suite.total is None]
    notes += [
        Line("yellow", f"{UNKNOWN}: nothing is recorded of {visible(name)}; a run with --llm-limit 5 records some") for name in unknown
    ]
    reasons = totals.total.reasons if totals.total is not None else ()
    return [*notes, *(Line("yellow", f"without a price: {visible(reason)}") for reason in reasons[:MAX_REASONS])]


def _mode_note(unrecorded: int, mode: RecordMode) -> str:
    trials = f"{unrecorded:,} {'trial that is' if unrecorded == 1 else 'trials that are'} not recorded"
    if mode == "none":
        return "--llm-record none: no call is live" + (f", and {trials} would be errors" if unrecorded else "")
    if mode == "missing":
        return f"--llm-record missing: live are the calls of {trials}, and those whose request has changed since it was recorded"
    return f"--llm-record {mode}: every call is live"
