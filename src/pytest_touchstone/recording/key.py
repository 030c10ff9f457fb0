"""What makes two requests the same: method, URL and canonical body, without headers and without secrets."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from pytest_touchstone.cases import canonical_json
from pytest_touchstone.recording.body import parse_json
from pytest_touchstone.recording.guard import is_loopback
from pytest_touchstone.recording.redact import REDACTED, Redactor, is_secret_name

if TYPE_CHECKING:
    from collections.abc import Mapping

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
    run to run.
    """

    method: str
    url: str
    host: str
    body: Mapping[str, JsonValue]
    key: str

    @property
    def json(self) -> JsonValue:
        """The JSON body, None where the body is something else."""
        return self.body.get("json")

    def stored(self) -> dict[str, JsonValue]:
        """What a recording keeps of the request: names sorted, long base64 data replaced by its hash."""
        return {"method": self.method, "url": self.url, **({"body": _fold(dict(self.body))} if self.body else {})}


def ask(request: WireRequest, redactor: Redactor) -> Asked:
    """The canonical form of a request.

    >>> url, body = "http://127.0.0.1:8000/v1/responses?b=1&a=2", b'{"user": "me", "input": 1}'
    >>> asked = ask(WireRequest(method="POST", url=url, headers={"content-type": "application/json"}, body=body), Redactor())
    >>> asked.url, asked.body
    ('http://localhost/v1/responses?a=2&b=1', {'json': {'input': 1}})
    """
    redactor.learn_headers(request.headers)
    url, host = canonical_url(request.url, redactor)
    body = _canonical_body(request, redactor)
    text = canonical_json([request.method, url, cast("JsonValue", body)])
    key = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return Asked(method=request.method, url=url, host=host, body=body, key=key)


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
    return redactor.redact_json(value) if redactor.leaks(text) else value


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
