"""Trials and tallies as styled lines of text; whoever prints them knows the terminal, this module does not.

Everything that came from a model or a golden file is made visible here: no control character passes.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

from pytest_touchstone.text import visible

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from pytest_touchstone.report.model import SuiteTally, Tally, Totals
    from pytest_touchstone.trial import Call, Score, Trial

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
COLUMNS = ("suite", "cases", "passed", "failed", "error", "unscored", "not run", "pass rate", "calls", "tokens", "cost")


def trial_block(trial: Trial, *, full: bool = False) -> list[Line]:
    """Everything a person needs to judge one trial: where the case stands, what went in and came out, scores and calls.

    Long texts are folded unless `full`.
    """
    case = trial.case
    facts = [f"split {case.split}", *([f"tags {', '.join(case.tags)}"] if case.tags else []), *(["must pass"] if case.must_pass else [])]
    lines = [Line("bold", f"case {visible(case.id)} ({visible(case.source)})"), Line("dim", f"  {visible('; '.join(facts))}")]
    lines += _section("input", [Line("", line) for line in _text_lines(_shown(case.input))], full=full)
    lines += _output_sections(trial, full=full)
    lines += _section("scores", list(_score_lines(trial.scores)), full=True)
    lines += _section("calls", list(_call_lines([*trial.calls, *trial.judge_calls], full=full)), full=True)
    return lines


def summary_table(suites: Sequence[SuiteTally], *, all_tags: bool = False) -> list[Line]:
    """The table of suites and tags; tags beyond the twentieth of a suite are counted, not shown, unless `all_tags`."""
    rows: list[tuple[Style, list[str]]] = [("bold", list(COLUMNS))]
    notes: dict[int, str] = {}
    for suite in suites:
        rows.append((_tally_style(suite.suite), _tally_row(suite.suite)))
        shown = suite.tags if all_tags else suite.tags[:MAX_TAGS]
        rows.extend(("dim", _tally_row(dataclasses.replace(tag, name=f"  {tag.name}"))) for tag in shown)
        if len(shown) < len(suite.tags):
            notes[len(rows) - 1] = f"  and {len(suite.tags) - len(shown)} more tags (-v shows them)"
    widths = [max(len(row[column]) for _, row in rows) for column in range(len(rows[0][1]))]
    lines: list[Line] = []
    for number, (style, row) in enumerate(rows):
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        lines.append(Line(style, "  ".join(cells).rstrip()))
        if number in notes:
            lines.append(Line("dim", notes[number]))
    return lines


def judge_line(suites: Sequence[SuiteTally]) -> Line | None:
    """What the judges asked and cost in the whole run, None where none was asked."""
    judged = [suite.suite.judge for suite in suites if suite.suite.judge.calls]
    if not judged:
        return None
    calls = sum(totals.calls for totals in judged)
    tokens = [totals.tokens for totals in judged if totals.tokens is not None]
    costs = [totals.cost_usd for totals in judged if totals.cost_usd is not None]
    cost = _cost(sum(costs) if costs else None, sum(totals.unpriced for totals in judged))
    counted = _tokens(sum(tokens) if tokens else None, sum(totals.uncounted for totals in judged))
    return Line("", f"judges: {calls:,} {'call' if calls == 1 else 'calls'}, {counted} tokens, cost {cost}")


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
            f"{'judge ' if call.role == 'judge' else ''}{visible(call.provider)} {visible(call.model)}",
            "latency unknown" if call.latency_s is None else f"{call.latency_s * 1000:,.0f} ms{' (replayed)' if call.replayed else ''}",
            f"{_tokens(call.usage.input_tokens)} + {_tokens(call.usage.output_tokens)} tokens",
            f"cost {_cost(call.cost_usd, 0)}" + (f" ({visible(call.cost_reason)})" if call.cost_usd is None and call.cost_reason else ""),
        ]
        yield Line("red" if call.error else "", ", ".join(facts))
        if call.error:
            first, *_ = _text_lines(call.error)
            yield Line("red", f"  {first}")


def _tally_row(tally: Tally) -> list[str]:
    rate = "-" if tally.pass_rate is None else f"{tally.pass_rate:.1%}"
    counts = (tally.trials, tally.passed, tally.failed, tally.error, tally.unscored, tally.not_run)
    app: Totals = tally.app
    money = _cost(app.cost_usd, app.unpriced) if app.calls else "-"
    tokens = "-" if not app.calls else _tokens(app.tokens, app.uncounted)
    return [visible(tally.name), *(f"{count:,}" for count in counts), rate, f"{app.calls:,}", tokens, money]


def _tally_style(tally: Tally) -> Style:
    if tally.failed or tally.error:
        return "red"
    return "yellow" if tally.unscored or tally.not_run else "green"


def _tokens(count: int | None, uncounted: int = 0) -> str:
    if count is None:
        return "unknown"
    return f"{count:,}" + (f" + {uncounted} uncounted" if uncounted else "")


def _cost(usd: float | None, unpriced: int) -> str:
    if usd is None:
        return "unknown"
    return f"${usd:.4f}" + (f" + {unpriced} unpriced" if unpriced else "")


def as_pairs(lines: Iterable[Line]) -> list[list[str]]:
    """The lines as plain lists, which travel between processes."""
    return [[style, text] for style, text in lines]


def from_pairs(pairs: Iterable[Sequence[str]]) -> list[Line]:
    """The inverse of `as_pairs`; a style that is not known is dropped."""
    return [Line(_STYLES.get(style, ""), text) for style, text in pairs]


_VERDICTS: Mapping[bool | None, tuple[Style, str]] = {True: ("green", "passed"), False: ("red", "failed"), None: ("yellow", "unscored")}
_STYLES: Mapping[str, Style] = {"bold": "bold", "dim": "dim", "green": "green", "red": "red", "yellow": "yellow"}
