"""Trials and tallies as styled lines of text; whoever prints them knows the terminal, this module does not.

Everything that came from a model or a golden file is made visible here: no control character passes.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import shlex
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

from pytest_touchstone.report.model import combined, totals
from pytest_touchstone.text import shorten, visible

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Mapping, Sequence

    from pytest_touchstone.report.model import Cost, SuiteTally, Tally, Totals
    from pytest_touchstone.trial import Call, Score, Trial, TrialRecord

Style = Literal["", "bold", "dim", "green", "red", "yellow"]


class Line(NamedTuple):
    """One line of text, and how it stands out."""

    style: Style
    text: str


MAX_LINES = 30
MAX_WIDTH = 400
MAX_CALLS = 5
MAX_TAGS = 20
MAX_DIFF_LINES = 2_000
DIFF_CONTEXT = 2
MAX_REASONS = 2
MIN_REASON = 40
OUTCOME_COLUMNS = ("passed", "failed", "error", "unscored", "not run", "pass rate")
CALL_COLUMNS = ("calls", "tokens in", "out", "cost")
JUDGE_COLUMN = "judge cost"


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A failure that is told in one line."""

    nodeid: str
    case_id: str
    reason: str


def trial_block(trial: Trial, *, full: bool = False) -> list[Line]:
    """Everything a person needs to judge one trial: where the case stands, what went in and came out, scores and calls.

    Long texts are folded unless `full`.
    """
    case = trial.case
    facts = [f"split {case.split}", *([f"tags {', '.join(case.tags)}"] if case.tags else []), *(["must pass"] if case.must_pass else [])]
    if case.quarantine is not None:
        facts.append(f"quarantined until {case.quarantine.until}: {case.quarantine.reason}")
    lines = [Line("bold", f"case {visible(case.id)} ({visible(case.source)})"), Line("dim", f"  {visible('; '.join(facts))}")]
    lines += _section("input", [Line("", line) for line in _text_lines(_shown(case.input))], full=full)
    lines += _output_sections(trial, full=full)
    lines += _section("scores", list(_score_lines(trial.scores)), full=True)
    calls = [*trial.calls, *trial.judge_calls, *trial.teacher_calls]
    lines += _section("calls", [*_call_lines(calls, full=full), *_trial_totals(trial)], full=True)
    return lines


def table(rows: Sequence[Sequence[str]], *, left: Container[int] = (0,)) -> list[str]:
    """The rows in columns: those whose numbers are in `left`, counted from 0, to the left, the others to the right.

    >>> table([["a", "1"], ["bb", "22"]])
    ['a    1', 'bb  22']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if number in left else cell.rjust(width) for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def summary_table(suites: Sequence[SuiteTally], *, all_tags: bool = False, counted: str = "cases") -> list[Line]:
    """The table of suites and tags; tags beyond the twentieth of a suite are counted, not shown, unless `all_tags`.

    `counted` says what the numbers count: `trials` where cases were tried several times.
    """
    extra = _extra_columns(suites)
    rows: list[tuple[Style, list[str]]] = [("bold", ["suite", counted, *OUTCOME_COLUMNS, *extra])]
    notes: dict[int, str] = {}
    for suite in suites:
        rows.append((_tally_style(suite.suite), _tally_row(suite.suite, extra)))
        shown = suite.tags if all_tags else suite.tags[:MAX_TAGS]
        rows.extend(("dim", _tally_row(dataclasses.replace(tag, name=f"  {tag.name}"), extra)) for tag in shown)
        if len(shown) < len(suite.tags):
            notes[len(rows) - 1] = f"  and {len(suite.tags) - len(shown)} more tags (-v shows them)"
    lines: list[Line] = []
    for number, ((style, _), text) in enumerate(zip(rows, table([row for _, row in rows]), strict=True)):
        lines.append(Line(style, text))
        if number in notes:
            lines.append(Line("dim", notes[number]))
    return lines


def call_lines(suites: Sequence[SuiteTally]) -> list[Line]:
    """What the whole run asked and what that cost: app, judges, teacher, and all together; nothing where nothing was asked."""
    tallies = [suite.suite for suite in suites]
    sums = _sums(*(combined(parts) for parts in zip(*((tally.app, tally.judge, tally.teacher) for tally in tallies), strict=True)))
    lines = [Line("", _sum_text(name, part)) for name, part in sums]
    # The last line is the sum of all: there the reasons are given once.
    return [*lines[:-1], Line("", lines[-1].text + unpriced_note(sums[-1][1].cost))] if lines else []


def quarantine_lines(records: Iterable[TrialRecord], *, reasons: bool = False) -> list[Line]:
    """How many cases are in quarantine and how many of them did not pass, in one line; with `reasons` each of them in a line of its own.

    Nothing where no case is.
    """
    cases: defaultdict[tuple[str, str], list[TrialRecord]] = defaultdict(list)
    for record in records:
        if record.quarantine:
            cases[record.suite, record.case_id].append(record)
    if not cases:
        return []
    failed = sum(any(record.outcome != "passed" for record in of_case) for of_case in cases.values())
    count = f"{len(cases):,} {'case' if len(cases) == 1 else 'cases'}"
    more = "" if reasons else " (-v says why)"
    lines = [Line("", f"quarantined: {count}, {failed:,} of them did not pass{more}")]
    return [*lines, *(Line("dim", f"  {_quarantined(of_case)}") for of_case in cases.values())] if reasons else lines


def _quarantined(of_case: Sequence[TrialRecord]) -> str:
    outcomes = Counter(record.outcome for record in of_case)
    counted = ", ".join(f"{count:,} {outcome.replace('_', ' ')}" for outcome, count in sorted(outcomes.items()))
    first = of_case[0]
    return f"{shorten(first.suite, MAX_WIDTH)} {shorten(first.case_id)} ({counted}): {shorten(first.quarantine, MAX_WIDTH)}"


def further_failures(further: Mapping[str, Sequence[Failure]], *, width: int) -> list[Line]:
    """One line for each failure, by suite, at most `width` (columns) wide where that leaves room, and how to see them in full."""
    lines: list[Line] = []
    for suite, failures in further.items():
        names = [shorten(failure.case_id, MIN_REASON) for failure in failures]
        column = max(map(len, names))
        lines.append(Line("bold", f"{len(failures):,} more of {visible(suite)}, a line each"))
        for name, failure in zip(names, failures, strict=True):
            reason = shorten(failure.reason, max(MIN_REASON, width - column - 4))
            lines.append(Line("", f"  {name.ljust(column)}  {reason}".rstrip()))
    first = next(iter(further.values()))[0]
    one = f"pytest --llm-eval {shlex.quote(visible(first.nodeid))} -vv"
    return [*lines, Line("dim", f"one of them in full: {one}"), Line("dim", "all in full: --llm-show all")]


def plain(lines: Iterable[Line]) -> str:
    """The lines as one text, without styles."""
    return "\n".join(text for _, text in lines)


def _output_sections(trial: Trial, *, full: bool) -> list[Line]:
    expected = trial.case.expected
    if not trial.has_output:
        shown = [] if expected is None else _section("expected", [Line("", line) for line in _text_lines(_shown(expected))], full=full)
        return [*shown, Line("bold", "output"), Line("yellow", "  not set: the test ended before case.output was")]
    output = _parsed_like(expected, trial.output)
    if expected is None:
        return _section("output", [Line("", line) for line in _text_lines(_shown(output))], full=full)
    before, after = _text_lines(_shown(expected)), _text_lines(_shown(output))
    if before == after:
        return _section("output (equal to expected)", [Line("", line) for line in after], full=full)
    return _section("- expected, + output", _diff_lines(before, after), full=full)


def _parsed_like(expected: object, output: Any) -> Any:  # noqa: ANN401 - any output of any app
    # A JSON answer arrives as text; beside a structured expectation it reads best as structure.
    if isinstance(expected, (dict, list)) and isinstance(output, str):
        try:
            return json.loads(output)
        except (ValueError, RecursionError):
            return output
    return output


def _shown(value: Any) -> str:  # noqa: ANN401 - any output of any app
    if isinstance(value, str):
        return value
    if isinstance(value, list) and (conversation := _conversation(cast("list[object]", value))):
        return conversation
    try:
        return json.dumps(value, ensure_ascii=False, indent=2, sort_keys=True)
    except (TypeError, ValueError, RecursionError):
        return repr(cast("object", value))


def _conversation(messages: Sequence[object]) -> str:
    """The messages as a transcript, empty where these are no messages."""
    turns = [cast("Mapping[str, object]", message) for message in messages if isinstance(message, dict) and "role" in message]
    return "" if len(turns) != len(messages) else "\n".join(f"{turn['role']}: {turn.get('content', '')}" for turn in turns)


def _text_lines(text: str) -> list[str]:
    return [visible(line) for line in text.split("\n")] or [""]


def _diff_lines(before: Sequence[str], after: Sequence[str]) -> list[Line]:
    if max(len(before), len(after)) > MAX_DIFF_LINES:  # comparing lines takes time that grows with their square
        return [*(Line("red", f"- {line}") for line in before), *(Line("green", f"+ {line}") for line in after)]
    lines: list[Line] = []
    for group in difflib.SequenceMatcher(a=before, b=after, autojunk=False).get_grouped_opcodes(DIFF_CONTEXT):
        if lines or group[0][1]:
            lines.append(Line("dim", "  ..."))
        for tag, a_from, a_to, b_from, b_to in group:
            if tag == "equal":
                lines += [Line("", f"  {line}") for line in before[a_from:a_to]]
            else:
                lines += [Line("red", f"- {line}") for line in before[a_from:a_to]]
                lines += [Line("green", f"+ {line}") for line in after[b_from:b_to]]
    return lines


def _section(title: str, lines: Sequence[Line], *, full: bool) -> list[Line]:
    if not lines:
        return []
    return [Line("bold", title), *(Line(style if text else "", f"  {text}") for style, text in (lines if full else _folded(lines)))]


def _folded(lines: Sequence[Line]) -> list[Line]:
    short = [Line(style, _short(text)) for style, text in lines]
    if len(short) <= MAX_LINES:
        return short
    half = MAX_LINES // 2
    return [*short[:half], Line("dim", f"... ({len(short) - 2 * half:,} more lines, -vv shows them)"), *short[-half:]]


def _short(text: str) -> str:
    return text if len(text) <= MAX_WIDTH else f"{text[:MAX_WIDTH]}... ({len(text) - MAX_WIDTH:,} more characters, -vv shows them)"


def _score_lines(scores: Iterable[Score]) -> Iterator[Line]:
    for score in scores:
        style, verdict = _VERDICTS[score.passed]
        value = "    " if score.value is None else f"{score.value:.2f}"
        first, *rest = _text_lines(score.reason)
        yield Line(style, f"{verdict:8} {visible(score.name)} {value} {first}".rstrip())
        yield from (Line("", f"         {line}") for line in rest)
        if score.judge is not None:
            yield Line("dim", f"         judged by {visible(score.judge)}")


def _call_lines(calls: Sequence[Call], *, full: bool) -> Iterator[Line]:
    shown = calls if full else calls[-MAX_CALLS:]
    if len(shown) < len(calls):
        yield Line("dim", f"... ({len(calls) - len(shown)} earlier calls, -vv shows them)")
    for call in shown:
        facts = [
            f"{'' if call.role == 'app' else f'{call.role} '}{visible(call.provider)} {visible(call.model)}",
            "latency unknown" if call.latency_s is None else f"{call.latency_s * 1000:,.0f} ms{' (replayed)' if call.replayed else ''}",
            f"{_count(call.usage.input_tokens)} + {_count(call.usage.output_tokens)} tokens",
            f"cost {dollars(call.cost_usd)}" + (f" ({visible(call.cost_reason)})" if call.cost_usd is None and call.cost_reason else ""),
        ]
        yield Line("red" if call.error else "", ", ".join(facts))
        if call.error:
            first, *_ = _text_lines(call.error)
            yield Line("red", f"  {first}")


def _trial_totals(trial: Trial) -> list[Line]:
    """What the trial's calls add up to, where that is not what one of them says already."""
    sums = _sums(totals(trial.calls, "app"), totals(trial.judge_calls, "judge"), totals(trial.teacher_calls, "teacher"))
    return [Line("dim", _sum_text(name, part)) for name, part in sums if part.calls > 1]


def _sums(*parts: Totals) -> list[tuple[str, Totals]]:
    """The sums of app, judges and teacher, as far as they asked anything, and that of all where there are several."""
    asked = [(name, part) for name, part in zip(("app", "judges", "teacher"), parts, strict=False) if part.calls]
    return [*asked, ("in all", combined(parts))] if len(asked) > 1 else asked


def _sum_text(name: str, of: Totals) -> str:
    return f"{name}: {_calls_text(of)}, cost {cost_text(of)}"


def _calls_text(of: Totals) -> str:
    calls = f"{of.calls:,} {'call' if of.calls == 1 else 'calls'}"
    return f"{calls}, {_count(of.input_tokens, of.uncounted)} + {_count(of.output_tokens, of.uncounted)} tokens"


def cost_text(of: Totals) -> str:
    """What calls cost, paid now and when recorded told apart; a sum that leaves calls out says that it does.

    >>> from pytest_touchstone.report.model import Cost, Totals
    >>> cost_text(Totals(calls=2, replays=2, replayed=Cost(usd=1.2)))
    '$0.00 now, $1.20 when recorded'
    >>> cost_text(Totals(calls=4, paid=Cost(usd=0.12, unpriced=3)))
    'at least $0.1200'
    """
    paid = _at_least(of.paid)
    return f"{paid} now, {_at_least(of.replayed)} when recorded" if of.replays else paid


def unpriced_note(cost: Cost) -> str:
    """How many calls have no price, and why; empty where all have one.

    >>> from pytest_touchstone.report.model import Cost
    >>> unpriced_note(Cost(usd=0.12, unpriced=3, reasons=("no price is known for m at h",)))
    ' (3 calls without a price: no price is known for m at h)'
    """
    if not cost.unpriced:
        return ""
    reasons = [visible(reason) for reason in cost.reasons[:MAX_REASONS]]
    if len(cost.reasons) > MAX_REASONS:
        reasons.append(f"and {len(cost.reasons) - MAX_REASONS} more")
    why = f": {'; '.join(reasons)}" if reasons else ""
    return f" ({cost.unpriced:,} {'call' if cost.unpriced == 1 else 'calls'} without a price{why})"


def dollars(usd: float | None) -> str:
    """An amount of US dollars, to four digits below one dollar; `unknown` for None.

    >>> dollars(0.00123), dollars(12.3), dollars(0.0), dollars(0.00001), dollars(None)
    ('$0.0012', '$12.30', '$0.00', '<$0.0001', 'unknown')
    """
    if usd is None:
        return "unknown"
    if usd == 0 or usd >= 1:
        return f"${usd:,.2f}"
    return f"${usd:.4f}" if usd >= 0.0001 else "<$0.0001"


def _at_least(cost: Cost) -> str:
    return f"{'at least ' if cost.unpriced and cost.usd is not None else ''}{dollars(cost.usd)}"


def _extra_columns(suites: Sequence[SuiteTally]) -> tuple[str, ...]:
    """The columns that are worth their room: nothing on calls where nobody asked a model, nothing on judges where none was asked."""
    judged = any(suite.suite.judge.calls for suite in suites)
    asked = judged or any(suite.suite.app.calls for suite in suites)
    return (*(CALL_COLUMNS if asked else ()), *([JUDGE_COLUMN] if judged else []))


def _tally_row(tally: Tally, extra: Sequence[str]) -> list[str]:
    rate = "-" if tally.pass_rate is None else f"{tally.pass_rate:.1%}"
    counts = (tally.trials, tally.passed, tally.failed, tally.error, tally.unscored, tally.not_run)
    app = tally.app
    tokens = [_count(app.input_tokens, app.uncounted), _count(app.output_tokens, app.uncounted)] if app.calls else ["-", "-"]
    cells = [f"{app.calls:,}", *tokens, _cost_cell(app), _cost_cell(tally.judge)]
    return [visible(tally.name), *(f"{count:,}" for count in counts), rate, *cells[: len(extra)]]


def _cost_cell(of: Totals) -> str:
    if not of.calls:
        return "-"
    cost = of.cost
    return f"{'>= ' if cost.unpriced and cost.usd is not None else ''}{dollars(cost.usd)}"


def _tally_style(tally: Tally) -> Style:
    if tally.failed or tally.error:
        return "red"
    return "yellow" if tally.unscored or tally.not_run else "green"


def _count(tokens: int | None, uncounted: int = 0) -> str:
    """A sum of tokens; `>=` where it leaves calls out."""
    return "unknown" if tokens is None else f"{'>= ' if uncounted else ''}{tokens:,}"


def as_pairs(lines: Iterable[Line]) -> list[list[str]]:
    """The lines as plain lists, which travel between processes."""
    return [[style, text] for style, text in lines]


def from_pairs(pairs: Iterable[Sequence[str]]) -> list[Line]:
    """The inverse of `as_pairs`; a style that is not known is dropped."""
    return [Line(_STYLES.get(style, ""), text) for style, text in pairs]


_VERDICTS: Mapping[bool | None, tuple[Style, str]] = {True: ("green", "passed"), False: ("red", "failed"), None: ("yellow", "unscored")}
_STYLES: Mapping[str, Style] = {"bold": "bold", "dim": "dim", "green": "green", "red": "red", "yellow": "yellow"}
