"""Whether a new answer only repeats the old one: then the old line stays, and recording anew leaves no noise in a diff.

What does not count, in answers of model APIs: times (`created`, `created_at`, ...), durations, `system_fingerprint`, `obfuscation`, and
ids, as long as each new id stands wherever the old one stood. A later request of the trial that names an id (the result of a tool call, a
previous response) is then stored with the old one, as the replayed application will send it. Everywhere: `at`, latency, cost, and ids and
dates in headers. Answers of other servers count as they are, since nobody knows what their ids mean.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from pytest_touchstone.recording.body import body_events
from pytest_touchstone.recording.key import request_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pytest_touchstone.recording.store import Entry, EntryId

MODEL_ENDPOINTS = (
    "/chat/completions", "/completions", "/responses", "/messages", "/embeddings", "/api/chat", "/api/generate",
    ":generateContent", ":streamGenerateContent",
)  # fmt: skip
ID_FIELDS = frozenset({"id", "call_id", "item_id", "message_id", "request_id", "responseId", "response_id", "tool_call_id", "tool_use_id"})
IGNORED_FIELDS = frozenset(
    {
        "created", "created_at", "createTime", "completed_at", "system_fingerprint", "obfuscation",
        "queue_time", "prompt_time", "completion_time", "total_time",
        "total_duration", "load_duration", "prompt_eval_duration", "eval_duration", "timings",
    }
)  # fmt: skip
IGNORED_HEADERS = frozenset({"request-id", "x-request-id", "apim-request-id", "x-amzn-requestid", "date", "retry-after"})
# Shorter ones ("1") also stand in texts by chance.
MIN_ID = 6


@dataclass(frozen=True, kw_only=True)
class Settled:
    """The entries that are to be written, and the identities under which the file then holds what was asked."""

    news: tuple[Entry, ...]
    ids: frozenset[EntryId]


def settle(fresh: Iterable[Entry], known: Mapping[EntryId, Entry], *, since: str = "") -> Settled:
    """Leave out of `fresh` what only repeats what is known, and what is older; `ids` are those of what was asked from `since` on."""
    trials: dict[tuple[str, int], list[Entry]] = {}
    for entry in sorted(fresh, key=lambda entry: entry.at):
        trials.setdefault((entry.test, entry.trial), []).append(entry)
    news: list[Entry] = []
    ids: set[EntryId] = set()
    for (test, _), entries in trials.items():
        # What a shared fixture learns is asked about by tests that are not seen here, so its ids count.
        settled = None if test.startswith("fixture:") else _settle_trial(entries, known, Renaming())
        settled = settled or _settle_trial(entries, known, None)
        assert settled is not None
        news += [entry for entry in settled if entry.id not in known or known[entry.id].at < entry.at]
        ids |= {entry.id for asked, entry in zip(entries, settled, strict=True) if asked.at >= since}
    return Settled(news=tuple(news), ids=frozenset(ids))


class Renaming:
    """Which new id stands for which old one: one to one, in one trial."""

    def __init__(self) -> None:
        self.old: dict[str, str] = {}
        self.new: dict[str, str] = {}

    def pairs(self, old: str, new: str) -> bool:
        """Whether the two can be the same id; noted where they can."""
        return self.old.setdefault(new, old) == old and self.new.setdefault(old, new) == new

    def copy(self) -> Renaming:
        """One that can be thrown away."""
        made = Renaming()
        made.old, made.new = dict(self.old), dict(self.new)
        return made


def _settle_trial(entries: list[Entry], known: Mapping[EntryId, Entry], names: Renaming | None) -> list[Entry] | None:
    """The entries of a trial, the old one for each that repeats it; None where an id cannot be followed through the trial."""
    settled: list[Entry] = []
    for entry in entries:
        renamed = entry if names is None else _renamed(entry, names)
        if renamed is None:
            return None
        old = known.get(renamed.id)
        tried = None if names is None else names.copy()
        if old is not None and old.at < renamed.at and _same(old, renamed, tried):
            names = tried
            settled.append(old)
        else:
            settled.append(renamed)
    return settled


def _renamed(entry: Entry, names: Renaming) -> Entry | None:
    """The entry as the old ids would have it; None where its request names a new id in a way that cannot be changed."""
    changed = {new: old for new, old in names.old.items() if new != old}
    text = json.dumps(entry.request, ensure_ascii=False)
    if not any(new in text for new in changed):
        return entry
    if request_key(entry.request) != entry.key or any(len(new) < MIN_ID for new in changed):
        return None
    request = cast("dict[str, Any]", _replaced(dict(entry.request), changed))
    if any(new in json.dumps(request, ensure_ascii=False) for new in changed):
        return None
    return replace(entry, request=request, key=request_key(request))


def _replaced(value: Any, names: Mapping[str, str]) -> Any:  # noqa: ANN401 - any JSON value
    if isinstance(value, dict):
        return {key: _replaced(child, names) for key, child in cast("dict[str, Any]", value).items()}
    if isinstance(value, list):
        return [_replaced(child, names) for child in cast("Any", value)]
    return names.get(value, value) if isinstance(value, str) else value


def _same(old: Entry, new: Entry, names: Renaming | None) -> bool:
    if (old.status, old.incomplete, _headers(old)) != (new.status, new.incomplete, _headers(new)):
        return False
    if not is_model_endpoint(str(new.request.get("url", ""))):
        return old.body == new.body
    return _alike(_answer(old), _answer(new), names)


def is_model_endpoint(url: str) -> bool:
    """Whether answers from there are read as those of a model API."""
    return urlsplit(url).path.rstrip("/").endswith(MODEL_ENDPOINTS)


def _headers(entry: Entry) -> dict[str, str]:
    return {name: value for name, value in entry.headers.items() if name not in IGNORED_HEADERS}


def _answer(entry: Entry) -> Any:  # noqa: ANN401 - any JSON value
    """The answer as JSON: that of the body, the list of a stream's events, or the stored form of anything else."""
    if "sse" in entry.body:
        return body_events(entry.body)
    return entry.body.get("json", entry.body)


def _alike(old: object, new: object, names: Renaming | None, field: str = "") -> bool:
    if isinstance(old, dict) and isinstance(new, dict):
        before, after = _counting(cast("dict[str, Any]", old)), _counting(cast("dict[str, Any]", new))
        return before.keys() == after.keys() and all(_alike(before[name], after[name], names, name) for name in before)
    if isinstance(old, list) and isinstance(new, list):
        one, other = _items(old), _items(new)
        return len(one) == len(other) and all(_alike(before, after, names, field) for before, after in zip(one, other, strict=True))
    if names is not None and field in ID_FIELDS and isinstance(old, str) and isinstance(new, str):
        return names.pairs(old, new)
    return old == new and isinstance(old, bool) == isinstance(new, bool) and isinstance(old, float) == isinstance(new, float)


def _items(value: Any) -> list[Any]:  # noqa: ANN401 - a JSON list
    return value  # type: ignore[no-any-return]


def _counting(value: dict[str, Any]) -> dict[str, Any]:
    return {name: item for name, item in value.items() if name not in IGNORED_FIELDS}
