"""Regular expressions over untrusted text, with a deadline: an output may make an innocent pattern run for ever.

The matching is done by the `regex` library, whose syntax and results are those of `re` for what `re` accepts; `re` itself has no
time limit.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeGuard, TypeVar

from pytest_touchstone.errors import ScorerError
from pytest_touchstone.scoring.values import kind
from pytest_touchstone.text import quote, visible

T = TypeVar("T")

MATCH_DEADLINE_S = 2.0

_FLAGS = (re.IGNORECASE, re.MULTILINE, re.DOTALL, re.VERBOSE, re.ASCII)


class PatternTimeoutError(Exception):
    """A pattern took longer than the deadline on one text; the message says which."""


@dataclass(frozen=True, kw_only=True)
class Pattern:
    """A compiled pattern whose matching ends after `deadline_s` seconds."""

    source: str
    flags: int = 0
    deadline_s: float = MATCH_DEADLINE_S
    compiled: Any

    def found(self, text: str, *, full: bool = False) -> bool:
        """Whether it matches somewhere, or, if `full`, the whole text.

        Raises:
            PatternTimeoutError: it took too long.
        """
        search = self.compiled.fullmatch if full else self.compiled.search
        return self._within_deadline(lambda: search(text, timeout=self.deadline_s) is not None)

    def last(self, text: str) -> str | None:
        """Group 1 (or the whole match where there is no group) of the last match in which it took part, None where nothing matched.

        Raises:
            PatternTimeoutError: it took too long.
        """
        group = 1 if self.compiled.groups else 0

        def find() -> str | None:
            last: str | None = None
            for match in self.compiled.finditer(text, timeout=self.deadline_s):
                last = last if match[group] is None else match[group]
            return last

        return self._within_deadline(find)

    def removed(self, text: str) -> str:
        """The text without its matches.

        Raises:
            PatternTimeoutError: it took too long.
        """
        return self._within_deadline(lambda: str(self.compiled.sub("", text, timeout=self.deadline_s)))

    def _within_deadline(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except TimeoutError as error:
            msg = f"the pattern {quote(self.source)} took longer than {self.deadline_s:g} s on this output; simplify it"
            raise PatternTimeoutError(msg) from error


Extract: TypeAlias = Pattern | Callable[[Any], object]


def extracted(extract: Extract | None, output: object) -> object:
    """The answer that `extract` takes out of an output, None where there is none; the output itself without `extract`.

    Raises:
        PatternTimeoutError: a pattern took too long.
    """
    if isinstance(extract, Pattern):
        return extract.last(output) if isinstance(output, str) else None
    return output if extract is None else extract(output)


def nothing_extracted(extract: Extract, output: object) -> str:
    """The reason of a score for which `extract` gave nothing."""
    if not isinstance(extract, Pattern):
        return f"`extract` found nothing in {quote(output)}"
    if not isinstance(output, str):
        return f"the output is {kind(output)}, and a pattern can only extract from text"
    return f"nothing matched the pattern {quote(extract.source)} in {quote(output)}"


def compile_pattern(pattern: object, scorer: str, *, flags: int = 0) -> Pattern:
    """Compile a text, or take over a compiled `re.Pattern`.

    Raises:
        ScorerError: it is neither, or not a regular expression; the message says where it goes wrong.
    """
    source: object = pattern
    if _is_compiled(pattern):
        if flags:
            msg = f"{scorer}: flags cannot be added to a compiled pattern; compile it with them"
            raise ScorerError(msg)
        source, flags = pattern.pattern, pattern.flags & ~re.UNICODE
    if not isinstance(source, str):
        msg = f"{scorer}: the pattern is {type(source).__name__}; give text or a pattern compiled from text"
        raise ScorerError(msg)
    try:
        re.compile(source, flags)  # the reference for what is accepted, and the better messages
        return _compiled(source, flags)
    except re.error as error:
        where = "" if error.pos is None else f" at position {error.pos}"
        msg = f"{scorer}: {quote(source)} is not a regular expression: {error.msg}{where}; correct it, or escape it with re.escape()"
    except (ValueError, OverflowError, RecursionError) as error:
        msg = f"{scorer}: {quote(source)} is not a regular expression: {visible(str(error))}"
    raise ScorerError(msg)


def _is_compiled(pattern: object) -> TypeGuard[re.Pattern[Any]]:
    return isinstance(pattern, re.Pattern)


def _compiled(source: str, flags: int) -> Pattern:
    import regex

    unsupported = flags & ~sum(_FLAGS)
    if unsupported:
        msg = f"flags {re.RegexFlag(unsupported)!r} are not supported"
        raise ValueError(msg)
    # The two libraries number their flags differently, so they are matched by name.
    translated = sum(int(getattr(regex, str(flag.name))) for flag in _FLAGS if flags & flag)
    try:
        compiled = regex.compile(source, translated | int(regex.VERSION0))
    except regex.error as error:
        raise ValueError(str(error)) from error
    return Pattern(source=source, flags=flags, compiled=compiled)
