"""Recording files for people: what is in them, and what is wrong with them. Everything that comes from a file is made safe to print."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

from pytest_touchstone.errors import RecordingError
from pytest_touchstone.recording.body import body_text, decode_body
from pytest_touchstone.recording.key import Asked
from pytest_touchstone.recording.store import MAX_FILE, module_of, newest, scan_recording, shown_path
from pytest_touchstone.recording.wire import api_of, read_call
from pytest_touchstone.text import counted, visible

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from pytest_touchstone.recording.redact import Redactor
    from pytest_touchstone.recording.store import Entry
    from pytest_touchstone.trial import Call

_HEADS = ("recordings", "calls", "models", "tokens in", "out", "cost", "size", "recorded")
_RIGHT = frozenset({"calls", "tokens in", "out", "cost", "size"})


def call_of(entry: Entry) -> Call | None:
    """The model call that an entry recorded, None where it is no call of a model API that is known."""
    body: Any = entry.request.get("body", {})
    url, method = str(entry.request.get("url", "")), str(entry.request.get("method", ""))
    asked = Asked(method=method, url=url, host="", body=cast("dict[str, Any]", body) if isinstance(body, dict) else {}, key=entry.key)
    api = api_of(asked)
    if api is None:
        return None
    return read_call(
        asked,
        api=api,
        role="app",
        status=entry.status,
        body=entry.body,
        latency_s=entry.latency_s,
        cost=(entry.cost_usd, entry.cost_reason),
        replayed=True,
    )


@dataclass(frozen=True, kw_only=True)
class _Tally:
    calls: int
    models: Counter[str]
    tokens: tuple[int, int]
    uncounted: int
    cost_usd: float
    unpriced: int
    size: int
    first: str
    last: str


def list_lines(files: Sequence[Path], root: Path, *, now: datetime | None = None) -> list[str]:
    """A table with a row for each recording file, and one for all; ages are those at `now` (default: the present)."""
    tallies: list[tuple[str, _Tally]] = []
    remarks: list[str] = []
    for path in files:
        scan = scan_recording(path, root=root)
        name = _one_line(shown_path(path, root))
        if scan.faults:
            remarks.append(f"{name}: {counted(len(scan.faults), 'fault')}; `touchstone recordings verify` says which")
        elif not module_of(path).exists():
            remarks.append(f"{name}: its test module is gone")
        tallies.append((name, _tally(newest(entry for _, entry in scan.entries), path)))
    if not tallies:
        return ["there are no recordings here"]
    if len(tallies) > 1:
        tallies.append(("all", _sum([tally for _, tally in tallies])))
    moment = now or datetime.now(UTC)
    return [*_table([_HEADS, *(_row(name, tally, moment) for name, tally in tallies)]), *remarks]


def _tally(entries: Sequence[Entry], path: Path) -> _Tally:
    calls = [call_of(entry) for entry in entries]
    usages = [call.usage for call in calls if call is not None]
    costs = [entry.cost_usd for entry in entries]
    dates = sorted(entry.at for entry in entries)
    return _Tally(
        calls=len(entries),
        models=Counter(call.model for call in calls if call is not None),
        tokens=(sum(usage.input_tokens or 0 for usage in usages), sum(usage.output_tokens or 0 for usage in usages)),
        uncounted=sum(usage.input_tokens is None or usage.output_tokens is None for usage in usages),
        cost_usd=sum(cost or 0.0 for cost in costs),
        unpriced=sum(cost is None and call is not None for cost, call in zip(costs, calls, strict=True)),
        size=path.stat().st_size if path.is_file() else 0,
        first=dates[0] if dates else "",
        last=dates[-1] if dates else "",
    )


def _sum(tallies: Sequence[_Tally]) -> _Tally:
    dates = sorted(date for tally in tallies for date in (tally.first, tally.last) if date)
    return _Tally(
        calls=sum(tally.calls for tally in tallies),
        models=sum((tally.models for tally in tallies), Counter[str]()),
        tokens=(sum(tally.tokens[0] for tally in tallies), sum(tally.tokens[1] for tally in tallies)),
        uncounted=sum(tally.uncounted for tally in tallies),
        cost_usd=sum(tally.cost_usd for tally in tallies),
        unpriced=sum(tally.unpriced for tally in tallies),
        size=sum(tally.size for tally in tallies),
        first=dates[0] if dates else "",
        last=dates[-1] if dates else "",
    )


def _row(name: str, tally: _Tally, now: datetime) -> tuple[str, ...]:
    at_least = ">= " if tally.uncounted else ""
    counted = any(tally.tokens) or not tally.uncounted
    models = ", ".join(_one_line(model) or "(no name)" for model, _ in tally.models.most_common(3))
    return (
        name,
        f"{tally.calls:,}",
        f"{models}, ..." if len(tally.models) > 3 else models or "-",
        *(f"{at_least}{count:,}" if counted else "unknown" for count in tally.tokens),
        _cost(tally),
        _size(tally.size),
        _dated(tally, now),
    )


def _cost(tally: _Tally) -> str:
    if tally.unpriced and not tally.cost_usd:
        return "unknown"
    return f"{'>= ' if tally.unpriced else ''}${tally.cost_usd:.4f}"


def _size(size: int) -> str:
    return f"{size:,} B" if size < 10_000 else f"{size / 1000:,.0f} KB" if size < 10_000_000 else f"{size / 1_000_000:,.0f} MB"


def _dated(tally: _Tally, now: datetime) -> str:
    if not tally.last:
        return "-"
    first, last = tally.first[:10], tally.last[:10]
    try:
        age = (now - datetime.fromisoformat(tally.last)).days
    except ValueError:
        return last
    days = "today" if age <= 0 else f"{counted(age, 'day')} ago"
    return f"{last} ({days})" if first == last else f"{first} to {last} ({days})"


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADS))]
    return [
        "  ".join(
            cell.rjust(width) if head in _RIGHT else cell.ljust(width) for cell, width, head in zip(row, widths, _HEADS, strict=True)
        ).rstrip()
        for row in rows
    ]


def show_lines(path: Path, root: Path, *, test: str | None = None, number: int | None = None) -> Iterator[str]:
    """The entries of a file to be read: those of a test (or of all whose name begins so), that of a line, or all."""
    for line, entry in scan_recording(path, root=root).entries:
        if (number is None or line == number) and (test is None or entry.test.startswith(test)):
            yield from (_one_line(text) for text in _entry_lines(f"{shown_path(path, root)}:{line}", entry))


def _one_line(text: str) -> str:
    return visible(text).replace("\n", r"\n")


def _entry_lines(place: str, entry: Entry) -> Iterator[str]:
    yield f"{place}: {entry.test}, trial {entry.trial}, time {entry.occurrence}"
    took = "" if entry.latency_s is None else f", answered in {entry.latency_s:.2f} s"
    why = f" ({entry.cost_reason})" if entry.cost_reason else ""
    cost = f"cost ${entry.cost_usd:.4f}" if entry.cost_usd is not None else f"cost unknown{why}"
    yield f"  recorded {entry.at}{took}, {cost}"
    if entry.note:
        yield f"  note: {entry.note}"
    yield f"  asked: {entry.request.get('method')} {entry.request.get('url')}"
    call = call_of(entry)
    messages = () if call is None else call.messages
    for message in messages:
        yield from _indented(f"{message.get('role')}: {_content(message)}")
    if not messages and "body" in entry.request:
        yield from _indented(json.dumps(entry.request["body"], ensure_ascii=False, indent=2))
    cut = ", closed by the application before its end" if entry.incomplete else ""
    yield f"  answered: status {entry.status}{cut}"
    answer = None if call is None else call.answer
    yield from _indented(_body(entry) if answer is None else _content(answer))
    yield ""


def _content(message: Any) -> str:  # noqa: ANN401 - a message of any shape
    content = message.get("content")
    text = content if isinstance(content, str) else "" if content is None else json.dumps(content, ensure_ascii=False)
    rest = {name: value for name, value in message.items() if name not in {"role", "content"} and value}
    return "\n".join(part for part in (text, json.dumps(rest, ensure_ascii=False) if rest else "") if part)


def _body(entry: Entry) -> str:
    if "json" in entry.body:
        return json.dumps(entry.body["json"], ensure_ascii=False, indent=2)
    try:
        return body_text(entry.body) or "(binary data)"
    except RecordingError as error:
        return f"({error})"


def _indented(text: str) -> Iterator[str]:
    yield from (f"    {line}" for line in text.splitlines())


def faults_of(path: Path, root: Path, *, redactor: Redactor) -> list[str]:
    """A message with file, line and advice for everything that is wrong with a recording file."""
    scan = scan_recording(path, root=root)
    shown = shown_path(path, root)
    found = list(scan.faults)
    for line, entry in scan.entries:
        try:
            decode_body(entry.body)
        except RecordingError as error:
            found.append(
                f"{shown}:{line}: cannot be replayed: {error}; delete the line and record the call again with --llm-record missing"
            )
    found += [
        f"{shown}:{line}: holds what looks like a secret; make it invalid where it came from, delete the line, and record the call again"
        for line in _lines_with_secrets(path, redactor)
    ]
    return [visible(fault) for fault in found]


def _lines_with_secrets(path: Path, redactor: Redactor) -> Iterator[int]:
    try:
        data = path.read_bytes() if path.stat().st_size <= MAX_FILE else b""
    except OSError:  # told as a fault already
        return
    for number, line in enumerate(data.split(b"\n"), start=1):
        if redactor.leaks(line.decode("utf-8", "replace")):
            yield number
