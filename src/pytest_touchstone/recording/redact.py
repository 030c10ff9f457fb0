"""Secrets: which texts are secret, and how they are kept out of everything that is written."""

from __future__ import annotations

import base64
import binascii
import functools
import json
import re
import threading
from collections import deque
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pydantic import JsonValue

REDACTED = "[redacted]"
# What replay mode sets where a key is absent: not a secret.
PLACEHOLDER_KEY = "touchstone-replays-without-a-key"

MIN_SECRET = 8
MAX_WORD = 16
# What stands where a text was shortened, and how much of a secret beside it is worth hiding.
ELLIPSIS = "..."
MIN_REST = 6
MAX_HEADER_SECRETS = 64

_SECRET_NAME = re.compile(
    r"^(?!idempotency|sec-websocket).*?(?:key(?!board)|token(?!iz)|secret|passw|credential|^auth$|authorization|cookie|signature|^sig$)",
    re.IGNORECASE,
)
# What keys of known services look like, each with the texts of which one must occur: looking for those first is much faster.
_KEYS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"(?<![A-Za-z0-9])sk-[A-Za-z0-9_-]{16,}", ("sk-",)),  # OpenAI, Anthropic (sk-ant-), OpenRouter (sk-or-)
    (r"(?<![A-Za-z0-9])(?:gsk|xai|pplx|hf|r8|nvapi)[_-][A-Za-z0-9_-]{20,}", ("gsk_", "xai-", "pplx-", "hf_", "r8_", "nvapi-")),
    (r"AIza[0-9A-Za-z_-]{30,}", ("AIza",)),
    (r"gh[pousr]_[A-Za-z0-9]{20,}", ("ghp_", "gho_", "ghu_", "ghs_", "ghr_")),
    (r"github_pat_[A-Za-z0-9_]{20,}", ("github_pat_",)),
    (r"glpat-[A-Za-z0-9_-]{16,}", ("glpat-",)),
    (r"xox[a-z]-[A-Za-z0-9-]{10,}", ("xox",)),
    (r"(?<![A-Z0-9])A[KS]IA[0-9A-Z]{16}", ("AKIA", "ASIA")),
    (r"eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}", ("eyJ",)),  # JSON web token
    (r"[Bb](?:earer|EARER)(?:\s|%20|\\[tn])+[A-Za-z0-9._~+/-]{16,}=*", ("earer", "EARER")),
    (r"-----BEGIN [A-Z ]*PRIVATE KEY-----[A-Za-z0-9+/=\s\\]{16,}", ("PRIVATE KEY",)),
)
_HINTS = tuple((hint, re.compile(pattern)) for pattern, hints in _KEYS for hint in hints)
_SHORTEST_KEY = 15


@functools.lru_cache(maxsize=1024)
def is_secret_name(name: str) -> bool:
    """Whether a variable, header or query parameter of this name holds a secret.

    >>> is_secret_name("OPENAI_API_KEY"), is_secret_name("TOKENIZERS_PARALLELISM")
    (True, False)
    """
    return _SECRET_NAME.match(name) is not None


class Redactor:
    """Replaces secrets by `[redacted]`, also where they are escaped, URL-encoded or in base64.

    Secrets are the values of environment variables whose names look like KEY, TOKEN, SECRET or PASSWORD, what `learn` was told,
    and whatever looks like a provider's key. Values under 8 characters and short numbers are too common to be told from ordinary text.

    >>> Redactor({"SHOP_TOKEN": "hunter22hunter22"}).redact("send hunter22hunter22")
    'send [redacted]'
    """

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        """Take the secrets of the environment."""
        self._lock = threading.Lock()
        self._seen: set[str] = set()
        self._lasting: set[str] = set()
        self._recent: deque[frozenset[str]] = deque(maxlen=MAX_HEADER_SECRETS)
        self._literals: tuple[str, ...] = ()
        for name, value in (environ or {}).items():
            if is_secret_name(name):
                self.learn(value)

    def learn(self, secret: str) -> None:
        """Treat this text as secret from now on; too short ones are ignored."""
        with self._lock:
            self._lasting |= _all_forms(secret)
            self._sort()

    def learn_headers(self, headers: Mapping[str, str]) -> None:
        """Learn the credentials that a request carries; plain words ('anything', as local servers are given) are none."""
        for name, value in headers.items():
            if value in self._seen or not is_secret_name(name):
                continue
            with self._lock:
                found = frozenset[str]().union(*(_all_forms(secret) for secret in _credentials(value) if not _is_word(secret)))
                # Signed requests carry a new value each time, so only the latest ones are kept.
                self._recent.append(found)
                self._seen = {value, *self._seen} if len(self._seen) < MAX_HEADER_SECRETS else {value}
                self._sort()

    def _sort(self) -> None:
        forms = self._lasting.union(*self._recent)
        self._literals = tuple(sorted(forms, key=lambda form: (-len(form), form)))

    def leaks(self, text: str) -> bool:
        """Whether the text holds a secret."""
        for form in self._literals:  # loops, since this is asked of every text many times, and of most there is little
            if form in text:
                return True
        return any(pattern.search(text) for pattern in _likely(text))

    def redact(self, text: str) -> str:
        """The text with every secret replaced by `[redacted]`."""
        spans = self.spans(text) if self.leaks(text) else []
        for start, end in reversed(spans):
            text = text[:start] + REDACTED + text[end:]
        return text

    def redact_shown(self, text: str) -> str:
        """As `redact`, for a text that may have been shortened: what is left of a secret beside `...` is replaced as well."""
        if not text:
            return text
        before, *after = self.redact(text).split(ELLIPSIS)
        if not after:
            return before
        parts = [self._without_end(before), *(self._without_end(self._without_start(part)) for part in after[:-1])]
        return ELLIPSIS.join([*parts, self._without_start(after[-1])])

    def _without_end(self, part: str) -> str:
        """The part without the beginning of a secret, at least `MIN_REST` characters of it, that it ends with."""
        rests = (len(form) - cut for form in self._literals for cut in range(1, len(form) - MIN_REST + 1) if part.endswith(form[:-cut]))
        longest = max(rests, default=0)
        return part[:-longest] + REDACTED if longest else part

    def _without_start(self, part: str) -> str:
        """The part without the end of a secret, at least `MIN_REST` characters of it, that it starts with."""
        rests = (len(form) - cut for form in self._literals for cut in range(1, len(form) - MIN_REST + 1) if part.startswith(form[cut:]))
        longest = max(rests, default=0)
        return REDACTED + part[longest:] if longest else part

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Where secrets stand in the text: half-open, ascending, merged where they touch."""
        found = [match.span() for pattern in _likely(text) for match in pattern.finditer(text)]
        for form in self._literals:
            found += [(at, at + len(form)) for at in _occurrences(form, text)]
        merged: list[tuple[int, int]] = []
        for start, end in sorted(found):
            if merged and start <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
            else:
                merged.append((start, end))
        return merged

    def redact_json(self, value: JsonValue) -> JsonValue:
        """The value with every secret in its texts, keys and numbers replaced."""
        if isinstance(value, str):
            return self.redact(value)
        if isinstance(value, list):
            return [self.redact_json(item) for item in value]
        if isinstance(value, dict):
            return {self.redact(key): self.redact_json(item) for key, item in value.items()}
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return REDACTED if self.leaks(repr(value)) else value
        return value

    def redact_pieces(self, pieces: list[str]) -> list[str]:
        """Pieces of one text, as streams deliver it, with the secrets that run over their borders replaced as well."""
        whole = "".join(pieces)
        if not self.leaks(whole):
            return pieces
        return list(_cut(pieces, self.spans(whole)))


def _likely(text: str) -> list[re.Pattern[str]]:
    return [pattern for hint, pattern in _HINTS if hint in text] if len(text) >= _SHORTEST_KEY else []


def _cut(pieces: list[str], spans: list[tuple[int, int]]) -> Iterator[str]:
    offset = 0
    for piece in pieces:
        end = offset + len(piece)
        kept, at = "", offset
        for start, stop in spans:
            if start < end and stop > offset:
                kept += piece[at - offset : max(start - offset, at - offset)]
                kept += REDACTED if offset <= start else ""
                at = min(stop, end)
        yield kept + piece[at - offset :]
        offset = end


def _occurrences(form: str, text: str) -> Iterator[int]:
    at = text.find(form)
    while at >= 0:
        yield at
        at = text.find(form, at + 1)


def _is_worth_hiding(secret: str) -> bool:
    common = len(secret) < MIN_SECRET or (len(secret) < MAX_WORD and secret.isdigit())
    return not common and secret not in REDACTED and secret != PLACEHOLDER_KEY


def _is_word(secret: str) -> bool:
    return len(secret) < MAX_WORD and secret.replace("-", "").replace("_", "").isalpha()


def _all_forms(secret: str) -> frozenset[str]:
    parts = {secret, *(line.strip() for line in secret.splitlines() if len(line.strip()) >= MAX_WORD)}
    return frozenset(form for part in parts if _is_worth_hiding(part) for form in _forms(part))


def _credentials(header: str) -> Iterator[str]:
    """The secrets in the value of an authorization, API key or cookie header."""
    yield header
    scheme, _, rest = header.partition(" ")
    if rest:
        yield rest.strip()
    if scheme.lower() == "basic":
        try:
            yield from base64.b64decode(rest, validate=True).decode().split(":", maxsplit=1)
        except (binascii.Error, UnicodeDecodeError, ValueError):
            return
    for pair in header.split(";"):
        _, equals, value = pair.strip().partition("=")
        if equals and value.strip("="):
            yield value.strip('"')


def _forms(secret: str) -> Iterator[str]:
    """The texts a secret may stand in: as it is, JSON-escaped (twice, or every character, too), URL-encoded, in hexadecimal and base64."""
    raw = secret.encode("utf-8", "surrogatepass")
    escaped = {json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]}
    twice = {json.dumps(form)[1:-1] for form in escaped}
    slashed = {form.replace("/", "\\/") for form in escaped}
    quoted = {quote(raw), quote(raw, safe=""), quote_plus(raw)}
    lower = {re.sub("%[0-9A-F]{2}", lambda code: code.group().lower(), form) for form in quoted}
    codes = "".join(f"\\u{ord(character):04x}" for character in secret if ord(character) <= 0xFFFF)
    written_out = {codes, codes.replace("\\", "\\\\")}
    forms = {secret, *escaped, *twice, *slashed, *quoted, *lower, *written_out, raw.hex(), raw.hex().upper(), *_base64_forms(raw)}
    yield from (form for form in forms if len(form) >= MIN_SECRET)


def _base64_forms(raw: bytes) -> Iterator[str]:
    """The characters that the bytes alone decide, wherever they start inside a longer base64 text."""
    for offset in range(3):
        encoded = base64.b64encode(b"\0" * offset + raw).decode()
        first = -(-offset * 8 // 6)
        last = (offset + len(raw)) * 8 // 6
        certain = encoded[first:last]
        yield from {certain, certain.replace("+", "-").replace("/", "_"), certain.replace("/", "\\/"), quote(certain, safe="")}
