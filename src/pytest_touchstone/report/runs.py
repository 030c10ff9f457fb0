"""Stored runs as lines of text and as plain data; nothing in them acts on a terminal."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from pytest_touchstone.report.model import summarize
from pytest_touchstone.report.terminal import Line, call_lines, dollars, summary_table, table
from pytest_touchstone.text import shorten, visible

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pytest_touchstone.git import Checkout
    from pytest_touchstone.runs import Figures, Run
    from pytest_touchstone.trial import TrialRecord

Metric = Literal["pass_rate", "cost", "latency_p95"]
METRICS: tuple[Metric, ...] = get_args(Metric)

HASH_LENGTH = 10
MAX_FAILURES = 20
REASON_WIDTH = 100
AXIS_WIDTH = 40
MAX_BRANCH = 24

_COLUMNS = ("run", "commit", "branch", "trials", "passed", "failed", "no verdict", "pass rate", "cost", "")
_WHAT: Mapping[Metric, str] = {
    "pass_rate": "pass rate",
    "cost": "cost of all calls, whenever they were paid",
    "latency_p95": "seconds within which 95 % of the trials had their answers",
}


def commit_text(checkout: Checkout) -> str:
    """The commit in short, `+` behind it where files differed from it.

    >>> from pytest_touchstone.git import Checkout
    >>> commit_text(Checkout(commit="3b4f2aa9c01d55e0", dirty=True)), commit_text(Checkout())
    ('3b4f2aa9c0+', '-')
    """
    return "-" if checkout.short is None else visible(checkout.short)


def runs_table(runs: Sequence[Run], figures: Mapping[str, Figures]) -> list[Line]:
    """A row for each run, in the order given."""
    rows = [_COLUMNS, *(_row(run, figures[run.id]) for run in runs)]
    lines = table(rows, left=range(3))
    return [Line("bold", lines[0]), *(Line("" if run.complete else "yellow", line) for run, line in zip(runs, lines[1:], strict=True))]


def run_lines(run: Run, records: Sequence[TrialRecord], *, all_failures: bool = False) -> list[Line]:
    """One run in full: where it comes from, its tables, and a line for each trial that did not pass, the first 20 unless `all_failures`."""
    suites = summarize(records)
    lines = [Line("bold", f"run {run.id}"), *(Line("", f"  {line}") for line in provenance_lines(run))]
    lines += [Line("", ""), *summary_table(suites, all_tags=True), *call_lines(suites)]
    if run.gate is not None:
        lines += [Line("", ""), Line("bold", "gate"), *(Line("", f"  {visible(line)}") for line in run.gate.lines)]
    failures = [record for record in records if record.outcome != "passed"]
    shown = failures if all_failures else failures[:MAX_FAILURES]
    if shown:
        rows = [(record.outcome.replace("_", " "), _trial_name(record, records), shorten(record.reason, REASON_WIDTH)) for record in shown]
        lines += [Line("", ""), *(Line("", line) for line in table(rows, left=range(3)))]
    if len(shown) < len(failures):
        lines.append(Line("dim", f"and {len(failures) - len(shown):,} more that did not pass (--all shows them)"))
    return lines


def provenance_lines(run: Run) -> list[str]:
    """Where a run comes from, in a few lines."""
    checkout = run.checkout
    place = "unknown to git" if checkout.commit is None else f"commit {visible(checkout.commit)}"
    state = {True: ", files changed since", False: "", None: ""}[checkout.dirty]
    branch = "" if checkout.branch is None else f" on {visible(checkout.branch)}"
    when = f"{run.started[:10]} {run.started[11:19]} to {run.ended[11:19]} UTC"
    facts = [
        f"{when}, {'complete' if run.complete else 'ended before every trial was made'}, exit status {run.exit_status}",
        place + branch + state,
    ]
    listed = {
        "options": [f"{name} {value_text(value)}" for name, value in run.options.items()],
        "models": run.models,
        "judges": run.judges,
        "system prompts": [prompt[:HASH_LENGTH] for prompt in run.prompts],
        "versions": [f"{name} {value_text(value)}" for name, value in run.versions.items()],
    }
    return facts + [f"{name}: {visible(', '.join(values))}" for name, values in listed.items() if values]


def run_data(run: Run, figures: Figures) -> dict[str, Any]:
    """The run as plain data."""
    data = asdict(run)
    checkout = data.pop("checkout")
    return {
        **data,
        **checkout,
        "outcomes": dict(figures.outcomes),
        "pass_rate": figures.pass_rate,
        "calls": figures.calls,
        "cost_usd": figures.cost_usd,
        "unpriced_calls": figures.unpriced,
        "latency_p95_s": figures.latency_p95,
    }


def measure(metric: Metric, figures: Figures) -> float | None:
    """A run's value of the metric: a share in [0, 1], US dollars, or seconds; None where it is not known, or only in part."""
    if metric == "cost":
        return None if figures.unpriced else figures.cost_usd
    return figures.pass_rate if metric == "pass_rate" else figures.latency_p95


def history_lines(metric: Metric, runs: Sequence[Run], values: Mapping[str, float | None], *, suite: str | None = None) -> list[Line]:
    """A line for each run, its value as a number and as a mark on an axis from the lowest value to the highest."""
    known = [value for value in values.values() if value is not None]
    shown = _FORMATS[metric]
    low, high = (min(known), max(known)) if known else (0.0, 0.0)
    rows = [
        (run.id, commit_text(run.checkout), shown(values[run.id]), _mark(values[run.id], low, high), "" if run.complete else "interrupted")
        for run in runs
    ]
    of = "all suites" if suite is None else visible(suite)
    lines = [Line("bold", f"{_WHAT[metric]}, {of}, from {shown(low)} to {shown(high)}" if known else f"{_WHAT[metric]}, {of}: not known")]
    return lines + [Line("", line) for line in table(rows, left=(0, 1, 3, 4))]


def _mark(value: float | None, low: float, high: float) -> str:
    if value is None:
        return f"|{' ' * AXIS_WIDTH}|"
    place = round((AXIS_WIDTH - 1) * (value - low) / (high - low)) if high > low else AXIS_WIDTH // 2
    return f"|{' ' * place}o{' ' * (AXIS_WIDTH - 1 - place)}|"


def _row(run: Run, figures: Figures) -> tuple[str, ...]:
    outcomes = figures.outcomes
    known = outcomes.get("passed", 0) + outcomes.get("failed", 0)
    cost = "-" if not figures.calls else f"{'>= ' if figures.unpriced and figures.cost_usd is not None else ''}{dollars(figures.cost_usd)}"
    return (
        run.id,
        commit_text(run.checkout),
        "-" if run.checkout.branch is None else shorten(run.checkout.branch, MAX_BRANCH),
        f"{figures.trials:,}",
        f"{outcomes.get('passed', 0):,}",
        f"{outcomes.get('failed', 0):,}",
        f"{figures.trials - known:,}",
        _percent(figures.pass_rate),
        cost,
        _ending(run),
    )


def _ending(run: Run) -> str:
    if not run.complete:
        return "interrupted"
    return visible(run.gate.result or "no decision") if run.gate else ""


def _trial_name(record: TrialRecord, records: Sequence[TrialRecord]) -> str:
    repeated = any(other.number > 1 for other in records)
    return visible(f"{record.suite}[{record.case_id}]") + (f" trial {record.number}" if repeated else "")


def value_text(value: object) -> str:
    """An option's or a version's value as one text.

    >>> value_text("none"), value_text(["evals", "more"])
    ('none', 'evals, more')
    """
    return ", ".join(map(str, cast("list[object]", value))) if isinstance(value, list) else str(value)


def _percent(rate: float | None) -> str:
    return "-" if rate is None else f"{rate:.1%}"


def _seconds(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f} s"


_FORMATS: Mapping[Metric, Callable[[float | None], str]] = {"pass_rate": _percent, "cost": dollars, "latency_p95": _seconds}
