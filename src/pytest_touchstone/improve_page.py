"""The page of evidence, and the same as plain data: one static file that runs nothing and loads nothing."""

from __future__ import annotations

import base64
import html
import json
from typing import TYPE_CHECKING, Any, Final, cast

from pytest_touchstone.improve import gain_text, kept_text
from pytest_touchstone.improve_text import COLUMNS, by_tag, headline, outcomes_text, row
from pytest_touchstone.report.runs import commit_text
from pytest_touchstone.text import counted, shorten, visible

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from pytest_touchstone.gate import CaseChange, Rate, SuiteDecision
    from pytest_touchstone.improve_steps import Improved, Tried
    from pytest_touchstone.trial import TrialRecord

FORMAT: Final = "pytest-touchstone evidence 1"
MAX_CASES: Final = 100
MAX_TEXT: Final = 200
MAX_FILE: Final = 2_000_000  # bytes of a picture or job that the page takes in
_BAR: Final = 300
_STYLE: Final = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #1b1f24; background: #fff; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; padding: .7rem 1rem; border-left: .5rem solid; border-radius: .2rem; }
h1.promoted { background: #e6f4ea; border-color: #1e7d34; }
h1.refused { background: #fdeaea; border-color: #b3261e; }
h2 { font-size: 1.1rem; margin-top: 2rem; border-bottom: 1px solid #d0d7de; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .25rem .6rem; border-bottom: 1px solid #e4e8ec; vertical-align: top; overflow-wrap: anywhere; }
.numbers td:not(:first-child), .numbers th:not(:first-child) { text-align: right; white-space: nowrap; }
.tag td:first-child { padding-left: 1.8rem; color: #57606a; }
.cases { table-layout: fixed; font-size: .87rem; }
.cases th:nth-child(1) { width: 16%; }
.cases th:nth-child(2) { width: 8%; }
.facts td:nth-child(1) { width: 25%; color: #57606a; }
pre, code { font: .85rem/1.4 ui-monospace, monospace; }
pre { background: #f6f8fa; padding: .7rem; white-space: pre-wrap; overflow-wrap: anywhere; }
img, svg { max-width: 100%; height: auto; }
.key { color: #57606a; font-size: .87rem; }
@media print { body { margin: 0; max-width: none; } h2 { break-after: avoid; } tr, svg, img { break-inside: avoid; } }
""".strip()


def evidence_data(improved: Improved) -> dict[str, Any]:
    """Everything that the page says, and the cases in full; ready for JSON."""
    return {
        "format": FORMAT,
        **improved.verdict.to_dict(),
        "by_tag": {part.suite: [tag.to_dict() for tag in by_tag(part)] for part in improved.verdict.parts.suites},
        "runs": {"before": _run_data(improved.before), "after": None if improved.after is None else _run_data(improved.after)},
        "data": {name: improved.manifest.get(name) for name in ("written", "by_kind", "train_sha256", "holdout_inputs")},
        "training": improved.result,
        "commands": dict(improved.commands),
    }


def evidence_page(improved: Improved, model: Path | None) -> str:
    """The page, as HTML; `model` is the folder of the training, of which the job and the curves are shown.

    All that comes from models, tests and files stands there as text.
    """
    verdict = improved.verdict
    parts = verdict.parts.suites
    body = [
        f'<h1 class="{verdict.result}">{_text(headline(verdict))}</h1>',
        _list(reason.text for reason in verdict.reasons),
        _list(f"Note: {note}" for note in verdict.notes),
        "<h2>Before and after</h2>",
        _chart(parts),
        _table(parts),
        _holdout(improved),
        *_cases("Broken", verdict.broken, improved),
        *_cases("Fixed", verdict.fixed, improved),
        *_training(model),
        *_provenance(improved, model),
    ]
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    head = f'<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{policy}">'
    head += f'<meta name="viewport" content="width=device-width"><title>{verdict.result}: evidence</title><style>{_STYLE}</style>'
    content = "\n".join(part for part in body if part)
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n{content}\n</body></html>\n'


def _text(value: object) -> str:
    return html.escape(visible(str(value)))


def _list(texts: Iterable[str]) -> str:
    items = "".join(f"<li>{_text(text)}</li>" for text in texts)
    return f"<ul>{items}</ul>" if items else ""


def _rows(rows: Iterable[tuple[str, Sequence[str]]], heads: Sequence[str], kind: str) -> str:
    head = "".join(f"<th>{_text(name)}</th>" for name in heads)
    lines = "\n".join(f'<tr class="{of}">{"".join(f"<td>{_text(cell)}</td>" for cell in cells)}</tr>' for of, cells in rows)
    return f'<table class="{kind}"><thead><tr>{head}</tr></thead><tbody>\n{lines}\n</tbody></table>'


def _table(parts: Sequence[SuiteDecision]) -> str:
    rows: list[tuple[str, Sequence[str]]] = []
    for part in parts:
        rows.append(("part", row(part.suite, part)))
        rows += [("tag", row(tag.suite, tag)) for tag in by_tag(part)]
    return _rows(rows, COLUMNS, "numbers")


def _chart(parts: Sequence[SuiteDecision]) -> str:
    """Both pass rates of each part with their 95 % intervals, on an axis from 0 to 100 %."""
    lines: list[str] = []
    height = 24
    for part in parts:
        if part.baseline_rate is None or part.run_rate is None:
            continue
        lines.append(f'<text x="0" y="{height + 12}">{_text(shorten(part.suite, 52))}</text>')
        lines += [_bar(height, part.baseline_rate, "#8c959f"), _bar(height + 14, part.run_rate, "#1f6feb")]
        height += 40
    if not lines:
        return ""
    axis = "".join(
        f'<line x1="{_x(tenth / 4)}" x2="{_x(tenth / 4)}" y1="16" y2="{height}" stroke="#e4e8ec"/>'
        f'<text x="{_x(tenth / 4)}" y="11" text-anchor="middle">{tenth * 25}%</text>'
        for tenth in range(5)
    )
    key = '<p class="key">Pass rates: grey before, blue after; the lines are 95 % intervals (Wilson).</p>'
    return f'<svg viewBox="0 0 720 {height}" width="720" height="{height}" font-size="11" role="img">{axis}{"".join(lines)}</svg>{key}'


def _x(rate: float) -> float:
    return round(360 + rate * _BAR, 1)


def _bar(top: int, rate: Rate, colour: str) -> str:
    low, high, middle = _x(rate.interval.low), _x(rate.interval.high), top + 6
    return (
        f'<line x1="{low}" x2="{high}" y1="{middle}" y2="{middle}" stroke="{colour}" stroke-width="2"/>'
        f'<circle cx="{_x(rate.rate)}" cy="{middle}" r="5" fill="{colour}"/>'
        f'<text x="{min(high + 6, 672)}" y="{middle + 4}" fill="#1b1f24">{rate.rate:.1%}</text>'
    )


def _holdout(improved: Improved) -> str:
    verdict = improved.verdict
    if improved.after is None:
        return ""
    gains = _list(f"{gain_text(gain)}; alpha {verdict.policy.alpha:g}" for gain in verdict.gains)
    kept = _list(kept_text(kept) for kept in verdict.kept)
    allowed = f"{verdict.policy.max_forgetting:g} in 100"
    sides = [f"before: {outcomes_text(verdict.before)}", f"after: {outcomes_text(verdict.after)}"]
    return (
        f"<h2>Is it better on what it never saw?</h2>{gains}<h2>Did it forget?</h2>"
        f"<p>Of the cases that passed before, up to {allowed} may fail now.</p>{kept}<h2>What became of every trial</h2>{_list(sides)}"
    )


def _cases(title: str, cases: Sequence[tuple[str, CaseChange]], improved: Improved) -> Iterator[str]:
    yield f"<h2>{title}: {counted(len(cases), 'case')}</h2>"
    if not cases:
        return
    old = _by_case(improved.before)
    new: Mapping[tuple[str, str], TrialRecord] = {} if improved.after is None else _by_case(improved.after)
    rows: list[tuple[str, Sequence[str]]] = []
    for part, case in cases[:MAX_CASES]:
        suite, _, split = part.rpartition(" ")
        before, after = old.get((suite, case.case_id)), new.get((suite, case.case_id))
        given = next((record.input for record in (after, before) if record is not None and record.input), "")
        rows.append(("case", (case.case_id, split, given, _output(before), _output(after))))
    yield _rows(rows, ("case", "split", "input", "before", "after"), "cases")
    if len(cases) > MAX_CASES:
        yield f"<p>And {len(cases) - MAX_CASES:,} more; evidence.json has them all.</p>"


def _by_case(tried: Tried) -> Mapping[tuple[str, str], TrialRecord]:
    """One trial of each case, of several the first that did not pass."""
    found: dict[tuple[str, str], TrialRecord] = {}
    for record in tried.records:
        known = found.get((record.suite, record.case_id))
        if known is None or (known.outcome == "passed" and record.outcome != "passed"):
            found[record.suite, record.case_id] = record
    return found


def _output(record: TrialRecord | None) -> str:
    if record is None:
        return "(not tried)"
    return f"{record.outcome}: {shorten(record.output or record.reason, MAX_TEXT)}"


def _training(model: Path | None) -> Iterator[str]:
    curves = None if model is None else _read(model / "curves.svg")
    if curves:
        # In an image, nothing of a picture can run or load anything.
        yield f'<h2>Training</h2><img alt="loss and learning rate" src="data:image/svg+xml;base64,{base64.b64encode(curves).decode()}">'


def _provenance(improved: Improved, model: Path | None) -> Iterator[str]:
    run = improved.before.run
    facts: list[tuple[str, object]] = [
        ("commit", commit_text(run.checkout)),
        ("model before", ", ".join(run.models) or "not seen"),
        ("run before", run.id),
    ]
    if improved.after is not None:
        facts += [("model after", ", ".join(improved.after.run.models) or "not seen"), ("run after", improved.after.run.id)]
    facts += [("judges", ", ".join(run.judges) or "none"), ("training data (sha256)", improved.manifest.get("train_sha256"))]
    facts += [("examples", json.dumps({"written": improved.manifest.get("written"), **improved.manifest.get("by_kind", {})}))]
    facts += [(name, value) for name, value in (improved.result or {}).items() if isinstance(value, (str, int, float)) and name != "format"]
    facts += [("versions", ", ".join(f"{name} {value}" for name, value in {**run.versions, **_versions(improved)}.items()))]
    yield "<h2>Where it comes from</h2>"
    yield _rows([("fact", (name, str(value))) for name, value in facts], ("", ""), "facts")
    yield f"<pre>{_text(chr(10).join(f'$ {command}' for command in improved.commands.values()))}</pre>"
    job = None if model is None else _read(model / "job.yaml")
    if job:
        yield f"<p>The job:</p><pre>{_text(job.decode('utf-8', 'replace'))}</pre>"


def _versions(improved: Improved) -> Mapping[str, Any]:
    versions: object = (improved.result or {}).get("versions")
    return cast("dict[str, Any]", versions) if isinstance(versions, dict) else {}


def _read(path: Path) -> bytes | None:
    """The file, None where there is none or it is too large to be shown."""
    try:
        return path.read_bytes() if path.stat().st_size <= MAX_FILE else None
    except OSError:
        return None


def _run_data(tried: Tried) -> dict[str, Any]:
    run = tried.run
    return {
        "id": run.id,
        "started": run.started,
        "commit": run.checkout.commit,
        "dirty": run.checkout.dirty,
        "models": list(run.models),
        "judges": list(run.judges),
        "options": dict(run.options),
        "versions": dict(run.versions),
    }
