"""What makes two requests the same: method, URL and canonical body, without headers and without secrets."""

from __future__ import annotations

import copy
import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from pytest_touchstone.cases import canonical_json
from pytest_touchstone.errors import RecordingError, SettingsError
from pytest_touchstone.recording.body import parse_json
from pytest_touchstone.recording.guard import is_loopback
from pytest_touchstone.recording.redact import REDACTED, Redactor, is_secret_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from pydantic import JsonValue

# Fields of model APIs that say who asks, not what is asked.
IGNORED_FIELDS = frozenset({"user", "metadata", "safety_identifier", "prompt_cache_key"})
_SECRET_FIELDS = frozenset({"api_key", "apikey", "access_token", "refresh_token", "client_secret", "authorization", "password"})
_DEFAULT_PORTS = {"http": 80, "https": 443}
_BASE64_DATA = re.compile(r"(?:data:[^,]{0,200},)?[A-Za-z0-9+/_=\r\n-]{4096,}")
_PARAMETER = re.compile(r"([?&]([^?&=#]+)=)[^&#]*")
_BOUNDARY = re.compile(r'boundary="?([^";,\s]+)', re.IGNORECASE)
_PART_NAME = re.compile(rb"content-disposition:[^\r\n]*", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class WireRequest:
    """A request as a transport sees it; header names are lower-case."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A request in its canonical, redacted form: what its key is made of, what is stored of it, and what a diff shows.

    `body` is `{"json": ...}`, `{"text": ...}`, `{"multipart": ...}`, `{"sha256": ..., "bytes": ...}`, or empty.
    `host` is the real host name; the URL of a server on this machine is stored as `localhost` without its port, which changes from
    run to run. `sent` is the redacted JSON body as it was sent, where rules of the project changed what counts of it.
    """

    method: str
    url: str
    host: str
    body: Mapping[str, JsonValue]
    key: str
    sent: JsonValue = None

    @property
    def json(self) -> JsonValue:
        """The JSON body as it was sent, None where the body is something else."""
        return self.body.get("json") if self.sent is None else self.sent

    def stored(self) -> dict[str, JsonValue]:
        """What a recording keeps of the request: names sorted, long base64 data replaced by its hash."""
        return {"method": self.method, "url": self.url, **({"body": _fold(dict(self.body))} if self.body else {})}


@dataclass(frozen=True, kw_only=True)
class KeyRules:
    """What a project says about its requests: fields of JSON bodies that do not count, and a hook.

    `ignore` are paths from `parse_path`. `change` is called with `{"method": ..., "url": ..., "body": ...}`, a redacted copy in its
    canonical form, and changes it in place; while it is false, it is not called. `body` is the JSON value or the text, None for any other
    body.
    """

    ignore: tuple[tuple[str, ...], ...] = ()
    change: Callable[[dict[str, Any]], None] | None = None


def parse_path(text: str) -> tuple[str, ...]:
    """The steps of a path into a JSON body: `metadata.session`, `messages.*.name`, or a JSON pointer such as `/a.b/0`; `*` is any.

    >>> parse_path("messages.*.name"), parse_path("/a.b/c~1d")
    (('messages', '*', 'name'), ('a.b', 'c/d'))

    Raises:
        SettingsError: it has no step, or an empty one.
    """
    if text.startswith("/"):
        steps = tuple(step.replace("~1", "/").replace("~0", "~") for step in text[1:].split("/"))
    else:
        steps = tuple(text.split("."))
    if not all(steps):
        msg = f"{text!r} is not a path to a field of a JSON body; write it as metadata.session, messages.*.name or /metadata/session"
        raise SettingsError(msg)
    return steps


def ask(request: WireRequest, redactor: Redactor, rules: KeyRules | None = None) -> Asked:
    """The canonical form of a request.

    Raises:
        RecordingError: the hook of the rules raised, or left something that is no request.

    >>> url, body = "http://127.0.0.1:8000/v1/responses?b=1&a=2", b'{"user": "me", "input": 1}'
    >>> asked = ask(WireRequest(method="POST", url=url, headers={"content-type": "application/json"}, body=body), Redactor())
    >>> asked.url, asked.body
    ('http://localhost/v1/responses?a=2&b=1', {'json': {'input': 1}})
    """
    redactor.learn_headers(request.headers)
    url, host = canonical_url(request.url, redactor)
    body = _canonical_body(request, redactor)
    if rules is None or not (rules.ignore or rules.change):
        return Asked(method=request.method, url=url, host=host, body=body, key=_key(request.method, url, body))
    method, url, counted = _apply(rules, request.method, url, body, redactor)
    return Asked(method=method, url=url, host=host, body=counted, key=_key(method, url, counted), sent=body.get("json"))


def _key(method: str, url: str, body: Mapping[str, JsonValue]) -> str:
    text = canonical_json([method, url, cast("JsonValue", body)])
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def request_key(stored: Mapping[str, Any]) -> str:
    """The key of a request as a recording keeps it; that of another request where long base64 data was replaced by its hash."""
    return _key(stored.get("method", ""), stored.get("url", ""), stored.get("body", {}))


def _apply(rules: KeyRules, method: str, url: str, body: dict[str, JsonValue], redactor: Redactor) -> tuple[str, str, dict[str, JsonValue]]:
    kind = "json" if "json" in body else "text"
    counted = {**body, kind: _without(body[kind], rules.ignore)} if kind == "json" else body
    if not rules.change:
        return method, url, counted
    request: dict[str, Any] = {"method": method, "url": url, "body": copy.deepcopy(counted.get(kind))}
    try:
        rules.change(request)
    except Exception as error:
        msg = f"a pytest_llm_request hook raised {type(error).__name__}: {error}"
        raise RecordingError(msg) from error
    return _changed(request, counted, kind, redactor)


def _changed(request: dict[str, Any], body: dict[str, JsonValue], kind: str, redactor: Redactor) -> tuple[str, str, dict[str, JsonValue]]:
    method, url, value = request.get("method"), request.get("url"), request.get("body")
    if not (isinstance(method, str) and isinstance(url, str)):
        msg = "a pytest_llm_request hook left a request whose method or url is no text; change them to text, or leave them"
        raise RecordingError(msg)
    url = redactor.redact(url)
    if value is None:
        return method, url, {name: part for name, part in body.items() if name != kind}
    if isinstance(value, str):
        return method, url, {"text": redactor.redact(value)}
    try:
        plain = parse_json(canonical_json(value))
    except (TypeError, ValueError, RecursionError):
        plain = None
    if not isinstance(plain, (dict, list)):
        msg = "a pytest_llm_request hook left a body that is not JSON; leave a dict, a list, a text or None"
        raise RecordingError(msg)
    return method, url, {"json": redactor.redact_json(plain)}


def _without(value: JsonValue, paths: Iterable[tuple[str, ...]]) -> JsonValue:
    """The value without the fields at these paths; what is not on a path is shared, not copied."""
    for path in paths:
        value = _without_one(value, path)
    return value


def _without_one(value: JsonValue, path: tuple[str, ...]) -> JsonValue:
    step, rest = path[0], path[1:]
    if isinstance(value, dict):
        names = list(value) if step == "*" else [step] if step in value else []
        if not names:
            return value
        changes = {name: _without_one(value[name], rest) for name in names} if rest else {}
        return {name: changes.get(name, child) for name, child in value.items() if rest or name not in names}
    if isinstance(value, list):
        numbers = set(range(len(value))) if step == "*" else {int(step)} if step.isdecimal() else set[int]()
        if not rest:
            return [child for number, child in enumerate(value) if number not in numbers]
        return [_without_one(child, rest) if number in numbers else child for number, child in enumerate(value)]
    return value


def canonical_url(url: str, redactor: Redactor) -> tuple[str, str]:
    """The URL by which requests are the same, and the real host name."""
    parts = urlsplit(url)
    host = (parts.hostname or "").rstrip(".")
    if parts.password:
        redactor.learn(parts.password)
    place = f"[{host}]" if ":" in host else host
    if is_loopback(host):
        place = "localhost"
    elif parts.port is not None and parts.port != _DEFAULT_PORTS.get(parts.scheme):
        place = f"{place}:{parts.port}"
    if not parts.query:
        return redactor.redact(f"{parts.scheme}://{place}{parts.path}"), host
    pairs = [(name, REDACTED if is_secret_name(name) else value) for name, value in parse_qsl(parts.query, keep_blank_values=True)]
    query = urlencode(sorted(pairs), quote_via=quote, safe="[]/:,")
    return redactor.redact(f"{parts.scheme}://{place}{parts.path}?{query}"), host


def redact_query(url: str) -> str:
    """The URL as it is, with the values of secret query parameters replaced.

    >>> redact_query("/files/1?part=2&X-Amz-Signature=abc")
    '/files/1?part=2&X-Amz-Signature=[redacted]'
    """
    return _PARAMETER.sub(lambda found: f"{found.group(1)}{REDACTED}" if is_secret_name(found.group(2)) else found.group(), url)


def _canonical_body(request: WireRequest, redactor: Redactor) -> dict[str, JsonValue]:
    if not request.body:
        return {}
    content_type = request.headers.get("content-type", "")
    boundary = _BOUNDARY.search(content_type) if content_type.lower().startswith("multipart/") else None
    if boundary is not None:
        return {"multipart": _multipart(request.body, boundary.group(1).encode("latin-1", "replace"), redactor)}
    try:
        text = request.body.decode()
    except UnicodeDecodeError:
        return _digest(request.body)
    value = parse_json(text)
    if isinstance(value, (dict, list)):
        return {"json": _canonical_value(value, text, redactor)}
    return {"text": redactor.redact(text)}


def _canonical_value(value: dict[str, Any] | list[Any], text: str, redactor: Redactor) -> JsonValue:
    if isinstance(value, dict):
        value = {name: field for name, field in value.items() if name not in IGNORED_FIELDS}
        for name in _SECRET_FIELDS & value.keys():
            value[name] = REDACTED
    # Any character may be written as an escape, which hides a secret from a look at the text.
    return redactor.redact_json(value) if "\\u" in text or redactor.leaks(text) else value


def _multipart(body: bytes, boundary: bytes, redactor: Redactor) -> JsonValue:
    """The parts by name and content; the boundary, which is random, is left out."""
    parts: list[JsonValue] = []
    for part in body.split(b"--" + boundary)[1:-1]:
        head, _, content = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        name = _PART_NAME.search(head)
        shown = redactor.redact((name.group() if name else head).decode("utf-8", "replace"))
        parts.append({"part": shown, **_digest(content.removesuffix(b"\r\n"))})
    return parts


def _digest(content: bytes) -> dict[str, JsonValue]:
    return {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}


def _fold(value: Any) -> JsonValue:  # noqa: ANN401 - any JSON value
    if isinstance(value, dict):
        return {key: _fold(child) for key, child in sorted(cast("dict[str, Any]", value).items())}
    if isinstance(value, list):
        return [_fold(child) for child in cast("Any", value)]
    if isinstance(value, str) and len(value) >= 4096 and _BASE64_DATA.fullmatch(value):
        return f"sha256:{hashlib.sha256(value.encode()).hexdigest()} ({len(value)} characters of base64)"
    return cast("JsonValue", value)
