"""`contains` and `regex_match`: what a text must hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_touchstone.errors import ScorerError
from pytest_touchstone.scoring.patterns import Pattern, PatternTimeoutError, compile_pattern
from pytest_touchstone.scoring.scorer import failed, passed
from pytest_touchstone.scoring.values import UnicodeForm, check_unicode_form, expected_of, is_list, kind, normalize, place
from pytest_touchstone.text import quote
from pytest_touchstone.trial import Score

if TYPE_CHECKING:
    import re

    from pytest_touchstone.trial import Trial

MAX_NAMED = 10


@dataclass(frozen=True, kw_only=True)
class Contains:
    """The scorer that `contains` makes."""

    name: str = "contains"
    needles: tuple[str, ...] = ()
    any: bool = False
    casefold: bool = False
    normalize_whitespace: bool = False
    unicode: UnicodeForm | None = None

    def __call__(self, trial: Trial) -> Score:
        """Look for the needles, or for `trial.expected` where there are none.

        Raises:
            ScorerError: the case's `expected` is needed and is not text or a list of texts.
        """
        needles = self.needles or _expected_needles(trial)
        if not isinstance(trial.output, str):
            return failed(self.name, f"the output is {kind(trial.output)}, not text")
        text = self._normalized(trial.output)
        missing = [needle for needle in needles if self._normalized(needle) not in text]
        if not missing or (self.any and len(missing) < len(needles)):
            return passed(self.name)
        lacking = "holds none of" if self.any and len(needles) > 1 else "lacks"
        return failed(self.name, f"the output {lacking} {_listed(missing)}: {quote(trial.output)}")

    def _normalized(self, text: str) -> str:
        return normalize(text, casefold=self.casefold, normalize_whitespace=self.normalize_whitespace, unicode=self.unicode)


def contains(
    *needles: str,
    any: bool = False,  # noqa: A002 - reads as English where it is called
    casefold: bool = False,
    normalize_whitespace: bool = False,
    unicode: UnicodeForm | None = None,
) -> Contains:
    """Pass when the output holds every needle (with `any=True`: at least one), 1.0 or 0.0.

    Without needles, `case.expected` is looked for: a text, or a list of texts. `casefold` ignores case, `normalize_whitespace`
    counts every run of white space as one space, `unicode` brings both sides to "NFC" or "NFKC".

    Raises:
        ScorerError: a needle is empty or not text; or, when scoring, there are no needles and `expected` gives none.

    >>> from pytest_touchstone import Case, Trial
    >>> trial = Trial(Case(id="late", input="After 40 days?", expected="30 days"))
    >>> trial.output = "We take returns for 30 days."
    >>> trial.score(contains()).passed, trial.score(contains("refund", "30 days")).reason
    (True, 'the output lacks "refund": "We take returns for 30 days."')
    """
    check_unicode_form("contains()", unicode)
    for needle in needles:
        _check_needle(needle, "contains()")
    return Contains(needles=needles, any=any, casefold=casefold, normalize_whitespace=normalize_whitespace, unicode=unicode)


@dataclass(frozen=True, kw_only=True)
class RegexMatch:
    """The scorer that `regex_match` makes."""

    name: str = "regex_match"
    pattern: Pattern | None = None
    flags: int = 0
    full: bool = False

    def __call__(self, trial: Trial) -> Score:
        """Match the pattern, or `trial.expected` where there is none.

        Raises:
            ScorerError: the case's `expected` is needed and is not a regular expression.
        """
        pattern = self.pattern or self._expected_pattern(trial)
        if not isinstance(trial.output, str):
            return failed(self.name, f"the output is {kind(trial.output)}, not text")
        try:
            found = pattern.found(trial.output, full=self.full)
        except PatternTimeoutError as error:
            return Score.unscored(self.name, str(error))
        if found:
            return passed(self.name)
        how = "does not match as a whole" if self.full else "does not match anywhere in"
        return failed(self.name, f"{quote(pattern.source)} {how}: {quote(trial.output)}")

    def _expected_pattern(self, trial: Trial) -> Pattern:
        expected = expected_of(trial, "regex_match()")
        if not isinstance(expected, str):
            msg = f"{place(trial)}: `expected` is {kind(expected)}; regex_match() needs a regular expression there, or one of its own"
            raise ScorerError(msg)
        return compile_pattern(expected, f"{place(trial)}: regex_match()", flags=self.flags)


def regex_match(pattern: str | re.Pattern[str] | None = None, *, flags: int = 0, full: bool = False) -> RegexMatch:
    r"""Pass when the pattern matches somewhere in the output (with `full=True`: matches the whole output), 1.0 or 0.0.

    Without a pattern, `case.expected` is the regular expression. `flags` are those of `re` (I, M, S, X, A).
    Matching ends after two seconds, whatever pattern and output are; the trial is then unscored, not failed.

    Raises:
        ScorerError: the pattern is not a regular expression; or, when scoring, `expected` is not one.

    >>> regex_match(r"order (\d+")
    Traceback (most recent call last):
        ...
    pytest_touchstone.errors.ScorerError: regex_match(): "order (\d+" is not a regular expression: missing ), ...
    """
    return RegexMatch(pattern=None if pattern is None else compile_pattern(pattern, "regex_match()", flags=flags), flags=flags, full=full)


def _check_needle(needle: object, where: str) -> None:
    if not isinstance(needle, str):
        msg = f"{where}: {kind(needle)} cannot be looked for in text; give texts"
        raise ScorerError(msg)
    if not needle.strip():
        msg = f"{where}: the needle {quote(needle)} is blank, and nearly every text holds it; give text to look for"
        raise ScorerError(msg)


def _expected_needles(trial: Trial) -> tuple[str, ...]:
    expected = expected_of(trial, "contains()")
    needles: tuple[Any, ...] = tuple(expected) if is_list(expected) else (expected,)
    if not needles:
        msg = f"{place(trial)}: `expected` is an empty list; contains() needs at least one text"
        raise ScorerError(msg)
    for needle in needles:
        _check_needle(needle, f"{place(trial)}: contains()")
    return needles


def _listed(needles: list[str]) -> str:
    named = ", ".join(quote(needle, 60) for needle in needles[:MAX_NAMED])
    return named + (f" and {len(needles) - MAX_NAMED} more" if len(needles) > MAX_NAMED else "")
