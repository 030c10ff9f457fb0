"""What went wrong on the wire, in words that are safe to show: no key, no control characters, no page of text."""

from __future__ import annotations

import email.utils
import math
import os
import re
import time
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit

from pytest_touchstone.errors import ModelError
from pytest_touchstone.models.client import AskFailed
from pytest_touchstone.text import shorten

if TYPE_CHECKING:
    from collections.abc import Mapping

MESSAGE_WIDTH = 300

_SECRET_NAME = re.compile(r"(?:KEY|TOKEN|SECRET|PASSWORD|HEADERS)$")
_TOO_LONG = ("context length", "context window", "context_length_exceeded", "prompt is too long", "request_too_large")


class Rejected(ModelError):
    """The server understood the request and will not serve it in this form; another form may do."""


def status_fault(
    status: int, body: object, headers: Mapping[str, str], *, key_variable: str, now: float | None = None
) -> AskFailed | ModelError:
    """The error for a response with a status of 400 or more; `now` is the Unix time that a retry date is held against."""
    message = _message(body)
    said = f"(HTTP {status}: {message})" if message else f"(HTTP {status})"
    marks = _marks(body)
    if status in {401, 403}:
        # The server's own words may repeat the key.
        return ModelError(f"the server refused the key (HTTP {status}); check {key_variable}")
    if status == 404:
        return ModelError(f"the server knows no such model or address {said}; check the model's name and the base URL")
    if status == 402 or (status == 429 and "insufficient_quota" in marks):
        return ModelError(f"the account has no credit left {said}; add some, or use another key in {key_variable}")
    fault = _passing_fault(status, marks, said, retry_after_s(headers, now=now))
    return fault or Rejected(f"the server refused the request {said}")


def _passing_fault(status: int, marks: str, said: str, after_s: float | None) -> AskFailed | None:
    """A fault of this moment or of this one question, None if it is neither."""
    if status == 413 or (status == 400 and any(mark in marks for mark in _TOO_LONG)):
        return AskFailed(f"was asked more than it can read {said}", retry=False)
    if status == 400 and "content_filter" in marks:
        return AskFailed(f"was stopped by the provider's content filter {said}")
    if status == 429:
        return AskFailed(f"is rate limited {said}", retry_after_s=after_s)
    if status in {408, 409, 425} or (status >= 500 and status != 501):
        return AskFailed(f"is not available {said}", retry_after_s=after_s)
    return None


def retry_after_s(headers: Mapping[str, str], *, now: float | None = None) -> float | None:
    """The seconds that a server asks to wait before the next request, None where it does not say; never negative.

    >>> retry_after_s({"retry-after": "2"})
    2.0
    >>> retry_after_s({"retry-after": "Thu, 01 Jan 1970 00:01:00 GMT"}, now=30.0)
    30.0
    """
    for name, divisor in (("retry-after-ms", 1000), ("retry-after", 1)):
        try:
            seconds = float(headers.get(name, "")) / divisor
        except ValueError:
            continue
        return max(seconds, 0.0) if math.isfinite(seconds) else None
    try:
        date = email.utils.parsedate_to_datetime(headers.get("retry-after", ""))
    except ValueError:
        return None
    return max(date.timestamp() - (time.time() if now is None else now), 0.0)


def safe(text: str, width: int = MESSAGE_WIDTH) -> str:
    """Foreign text fit for a reason or an error: on one line, secrets of the environment taken out, control characters visible."""
    for name, value in os.environ.items():
        if len(value) >= 8 and _SECRET_NAME.search(name.upper()):
            text = text.replace(value, f"[{name}]")
    return shorten(" ".join(text.split()), width)


def check_base_url(base_url: str | None) -> None:
    """Hold a base URL to being one.

    Raises:
        ModelError: it is not an http or https URL with a host.
    """
    if base_url is None:
        return
    try:
        parts = urlsplit(base_url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    if not usable:
        msg = "the base URL is not one; write it as http://localhost:8000/v1"
        raise ModelError(msg)


def _message(body: object) -> str:
    """The words of an error body: `{"error": {"message": ...}}`, `{"message": ...}`, `{"detail": ...}`, or text."""
    for _ in range(3):
        fields = _fields(body)
        body = next((fields[name] for name in ("error", "message", "detail") if fields.get(name)), body)
    return safe(body) if isinstance(body, str) else ""


def _marks(body: object) -> str:
    """The code, type and message of an error body in one lower-case text, for telling errors apart that share a status."""
    fields = _fields(body)
    inner = fields.get("error", fields)
    marks = [str(_fields(inner).get(name) or "") for name in ("code", "type", "message")]
    return " ".join([*marks, str(body) if isinstance(body, str) else ""]).lower()


def _fields(value: object) -> dict[str, object]:
    return cast("dict[str, object]", value) if isinstance(value, dict) else {}
