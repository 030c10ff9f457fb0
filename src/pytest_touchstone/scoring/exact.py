"""`exact_match`: the output is the expected value, after normalisation that the test asks for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_touchstone.errors import ScorerError
from pytest_touchstone.scoring.patterns import Extract, Pattern, PatternTimeoutError, compile_pattern, extracted, nothing_extracted
from pytest_touchstone.scoring.scorer import failed, passed
from pytest_touchstone.scoring.values import (
    NotJsonError,
    UnicodeForm,
    check_unicode_form,
    expected_of,
    json_equal,
    json_value,
    kind,
    normalize,
    place,
)
from pytest_touchstone.text import quote
from pytest_touchstone.trial import Score

if TYPE_CHECKING:
    import re
    from collections.abc import Callable

    from pytest_touchstone.trial import Trial


@dataclass(frozen=True, kw_only=True)
class ExactMatch:
    """The scorer that `exact_match` makes."""

    name: str = "exact_match"
    strip: bool = True
    casefold: bool = False
    normalize_whitespace: bool = False
    unicode: UnicodeForm | None = None
    extract: Extract | None = None
    remove: Pattern | None = None

    def __call__(self, trial: Trial) -> Score:
        """Compare `trial.output` with `trial.expected`.

        Raises:
            ScorerError: the case has no `expected`, or nothing of it is left after `remove`.
        """
        expected = expected_of(trial, "exact_match()")
        try:
            answer = extracted(self.extract, trial.output)
            if answer is None and self.extract is not None:
                return failed(self.name, nothing_extracted(self.extract, trial.output))
            return self._compare(trial, expected, answer)
        except PatternTimeoutError as error:
            return Score.unscored(self.name, str(error))
        except NotJsonError as error:
            return failed(self.name, f"the output {error}")

    def _compare(self, trial: Trial, expected: object, answer: object) -> Score:
        if isinstance(expected, str) and isinstance(answer, str):
            return self._compare_texts(trial, expected, answer)
        value = json_value(answer)
        if json_equal(expected, value):
            return passed(self.name)
        reason = f"expected {quote(expected)}, got {quote(value)}"
        if kind(expected) != kind(value):
            reason += f": {kind(value)} is never {kind(expected)}{_advice(expected, value)}"
        return failed(self.name, reason)

    def _compare_texts(self, trial: Trial, expected: str, answer: str) -> Score:
        wanted, got = self._normalized(expected), self._normalized(answer)
        if self.remove is not None and not wanted and expected.strip():
            left = f"nothing of `expected` {quote(expected)} is left after remove={quote(self.remove.source)}"
            msg = f"{place(trial)}: {left}; narrow the pattern"
            raise ScorerError(msg)
        if wanted == got:
            return passed(self.name)
        unlike = "" if wanted == expected and got == answer else f" (compared as {quote(wanted)} and {quote(got)})"
        return failed(self.name, f"expected {quote(expected)}, got {quote(answer)}{unlike}")

    def _normalized(self, text: str) -> str:
        if self.remove is not None:
            text = self.remove.removed(text.strip() if self.strip else text)
        return normalize(
            text, strip=self.strip, casefold=self.casefold, normalize_whitespace=self.normalize_whitespace, unicode=self.unicode
        )


def exact_match(
    *,
    strip: bool = True,
    casefold: bool = False,
    normalize_whitespace: bool = False,
    unicode: UnicodeForm | None = None,
    extract: str | re.Pattern[str] | Callable[[Any], object] | None = None,
    remove: str | re.Pattern[str] | None = None,
) -> ExactMatch:
    r"""Pass when the output is `case.expected`, 1.0 or 0.0.

    Texts are equal character by character after, in this order: `extract` (output only), `remove`, `unicode` (None, "NFC", "NFKC"),
    `casefold`, `normalize_whitespace` (runs of white space count as one space), `strip` (outer white space, also before `remove`).

    Args:
        strip: ignore white space around the answer.
        casefold: ignore case.
        normalize_whitespace: count every run of white space as one space, and none at the ends.
        unicode: bring both sides to this Unicode form first.
        extract: what to take out of the output as its answer. A regular expression: group 1 of its last match, or the whole match
            where it has no group; no match fails. A callable: given the output as it is; None means that there was no answer.
        remove: matches of this regular expression are dropped from both sides.

    Other values are equal as JSON: objects in any order of keys, lists in their order, 1 equals 1.0, True is not 1, and text is
    never a number. Pydantic models and dataclasses are compared by their fields. A list in `expected` is a value, not a choice of
    alternatives. A pattern that takes longer than two seconds leaves the trial unscored.

    Raises:
        ScorerError: a pattern or form cannot be used; or, when scoring, the case has no `expected`.

    The final line of a worked answer, without thousands separators, dollar signs and a closing full stop:

    >>> final_answer = exact_match(extract=r"(?m)^A:\s*(.*)$", remove=r"[,$]|\.$")
    >>> from pytest_touchstone import Case, Trial
    >>> trial = Trial(Case(id="sum", input="600 * 2?", expected="1200"))
    >>> trial.output = "600 and 600 are 1200.\nA: $1,200."
    >>> trial.score(final_answer).passed
    True
    """
    check_unicode_form("exact_match()", unicode)
    return ExactMatch(
        strip=strip,
        casefold=casefold,
        normalize_whitespace=normalize_whitespace,
        unicode=unicode,
        extract=extract if extract is None or callable(extract) else compile_pattern(extract, "exact_match(extract=...)"),
        remove=None if remove is None else compile_pattern(remove, "exact_match(remove=...)"),
    )


def _advice(expected: object, value: object) -> str:
    if not isinstance(value, str):
        return ""
    if isinstance(expected, (dict, list)):
        return "; json_match() reads JSON out of text"
    return "; quote `expected` in the golden file, or use numeric_match()"
