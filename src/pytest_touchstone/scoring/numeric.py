"""`numeric_match`: the output's number is the expected one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from pytest_touchstone.errors import ScorerError
from pytest_touchstone.scoring.patterns import Extract, PatternTimeoutError, compile_pattern, extracted, nothing_extracted
from pytest_touchstone.scoring.scorer import failed, passed
from pytest_touchstone.scoring.values import UNSET, Unset, check_tolerance, expected_of, place
from pytest_touchstone.text import quote, shorten
from pytest_touchstone.trial import Score

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_touchstone.trial import Trial

DecimalMark: TypeAlias = Literal[".", ","]
Pick: TypeAlias = Literal["only", "first", "last"]

MAX_NAMED = 5
SHOWN_WIDTH = 40

_MINUS = r"\-\u2212\ufe63\uff0d"
_SIGNS = f"+{_MINUS}"
_GROUPS = "'\u2019\u00a0\u202f\u2009"  # apostrophes, and the spaces that do not break; the other mark is added to them
_CODES = "USD|EUR|GBP|JPY|CNY|INR|AUD|CAD|NZD|HKD|SGD|CHF|SEK|NOK|DKK|PLN|CZK|HUF|KRW|BRL|MXN|ZAR|TRY|ILS|THB"
_SYMBOLS = "$\u00a2\u00a3\u00a4\u00a5\u20a0-\u20c0"
_CURRENCY = rf"(?:(?:US|CA|AU|A|C|NZ|HK|S|R)?\\?[{_SYMBOLS}]|(?:{_CODES})(?![A-Za-z]))"
_LETTER = "A-Za-z\u00aa\u00b5\u00ba\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\u0370-\u052f"

# Every part is matched once, from left to right, without going back: the time grows with the text's length only.
_TOKEN = re.compile(
    rf"""
    (?P<word>(?<![{_LETTER}_])(?!(?:{_CODES}|US|CA|AU|A|C|NZ|HK|S|R)\\?[{_SYMBOLS}\d])[{_LETTER}][{_LETTER}_]*+\d[\w.,]*+)
    | (?:(?<![\w)\]}}])(?P<sign>[{_SIGNS}\u2013\u00b1]))?
      (?:(?<![{_LETTER}])(?P<before>{_CURRENCY})[ ]?(?P<sign2>[{_SIGNS}])?)?
      (?P<digits>(?:\d++|(?<![\d.,])[.,]\d++)(?:[.,_{_GROUPS}]\d++)*+)
      (?P<power>[eE][{_SIGNS}]?\d{{1,4}}(?!\w)
        |[ ]?(?:\u00d7|x|\*|\\times|\\cdot|\u00b7)[ ]?10(?:\^|\*\*)[{{(]?(?P<ten>[{_SIGNS}]?\d{{1,4}})[}})]?(?!\d))?
      (?:(?P<scale>[ ]?(?:thousand|million|billion|trillion)\b|[ ]?bn\b|[ ]?mn\b|[kKMB](?![\w])|(?<=\d)[mbt](?!\w))
      |[ ]?(?P<percent>\\?[%\u066a\uff05\ufe6a\u2030]|per[ ]?cent\b))?
      (?:[ ]?(?P<after>{_CURRENCY}))?
    """,
    re.VERBOSE,
)
# What joins two numbers to something that is not one: an operation, a fraction, a range, a time, a date, a version.
_JOINED = re.compile(
    rf"""
    [ \t]* (?: [/*\u00d7\u00f7\u00b7^+\u2044] | \*\* | \\times | \\cdot | \\div | [{_MINUS}\u2010-\u2015~] ) [ \t]*
    | [:.,'\u2019\u066b\u066c]+
    | \}}\{{
    """,
    re.VERBOSE,
)
_TAIL = re.compile(rf"[{_LETTER}_]+\d|[\u00b2\u00b3\u00b9\u00bc-\u00be\u2070-\u209c\u2150-\u215f!]|[.,]?\d")
_LONE_DASH = re.compile(rf"[^\s][ \t]+[{_MINUS}\u2010-\u2015][ \t]$|(?:^|\s)\u2212[ \t]$")

_SCALES = {"k": 3, "thousand": 3, "m": 6, "mn": 6, "million": 6, "b": 9, "bn": 9, "billion": 9, "t": 12, "trillion": 12}
_CODES_OF = {
    "$": {"USD", "AUD", "CAD", "NZD", "HKD", "SGD", "MXN", "BRL"},
    "\u20ac": {"EUR"},
    "\u00a3": {"GBP"},
    "\u00a5": {"JPY", "CNY"},
    "\u20b9": {"INR"},
    "\u20a9": {"KRW"},
    "\u20ba": {"TRY"},
    "\u20aa": {"ILS"},
    "\u0e3f": {"THB"},
}


@dataclass(frozen=True, kw_only=True)
class Number:
    """A number as it was read: `value` is None where `text` could mean more than one."""

    text: str
    value: Decimal | None
    currency: str = ""


@dataclass(frozen=True, kw_only=True)
class NumericMatch:
    """The scorer that `numeric_match` makes."""

    name: str = "numeric_match"
    expected: Any = UNSET
    abs_tol: float = 0.0
    rel_tol: float = 0.0
    extract: Extract | None = None
    decimal: DecimalMark = "."
    pick: Pick = "only"

    def __call__(self, trial: Trial) -> Score:
        """Compare the number in `trial.output` with the expected one.

        Raises:
            ScorerError: there is no expected value, or it is not one number.
        """
        expected = self._expected(trial)
        try:
            answer = extracted(self.extract, trial.output)
        except PatternTimeoutError as error:
            return Score.unscored(self.name, str(error))
        if answer is None and self.extract is not None:
            return failed(self.name, nothing_extracted(self.extract, trial.output))
        number = self._read(answer)
        return failed(self.name, number) if isinstance(number, str) else self._compare(expected, number)

    def _expected(self, trial: Trial) -> Number:
        given = expected_of(trial, "numeric_match()") if isinstance(self.expected, Unset) else self.expected
        number = _given_number(given, self.decimal)
        if number is None or number.value is None:
            where = f"{place(trial)}: `expected`" if isinstance(self.expected, Unset) else "numeric_match(expected=...):"
            fix = f'give one such as 1234.5 or "12 %", with {self.decimal!r} as its decimal mark if it is text'
            msg = f"{where} {quote(given)} is not one finite number; {fix}"
            raise ScorerError(msg)
        return number

    def _read(self, answer: object) -> Number | str:
        """The number meant, or why there is none."""
        if not isinstance(answer, str):
            number = _given_number(answer, self.decimal)
            return number or f"the output is {quote(answer)}; numeric_match() reads finite numbers and text"
        numbers = list(read_numbers(answer, self.decimal))
        if not numbers:
            return f"found no number in {quote(answer)}"
        number = numbers[0 if self.pick == "first" else -1]
        values = {other.value for other in numbers}
        if self.pick == "only" and (len(values) > 1 or len({other.currency for other in numbers if other.currency}) > 1):
            named = _named(numbers)
            return f"found more than one number ({named}); say which by extract=... or pick='last': {quote(answer)}"
        if number.value is None:
            return f"cannot tell which number {quote(number.text, SHOWN_WIDTH)} is (decimal={self.decimal!r}): {quote(answer)}"
        return number

    def _compare(self, expected: Number, number: Number) -> Score:
        assert expected.value is not None
        assert number.value is not None
        if not _same_currency(expected.currency, number.currency):
            return failed(self.name, f"expected {_shown(expected)}, got {_shown(number)}: the currencies differ")
        tolerance = max(Decimal(repr(self.abs_tol)), Decimal(repr(self.rel_tol)) * expected.value.copy_abs())
        # Without a tolerance nothing is subtracted, so nothing is rounded.
        if expected.value == number.value or (tolerance and abs(expected.value - number.value) <= tolerance):
            return passed(self.name, f"got {_shown(number)}")
        allowed = f", which differ by more than {tolerance:g}" if tolerance else ""
        return failed(self.name, f"expected {_shown(expected)}, got {_shown(number)}{allowed}")


def numeric_match(
    expected: Any = UNSET,  # noqa: ANN401 - a number or the text of one
    *,
    abs_tol: float = 0.0,
    rel_tol: float = 0.0,
    extract: str | re.Pattern[str] | Callable[[Any], object] | None = None,
    decimal: DecimalMark = ".",
    pick: Pick = "only",
) -> NumericMatch:
    r"""Pass when the number in the output is the expected one, 1.0 or 0.0.

    `expected` (else `case.expected`) is a number, or the text of exactly one. What could be read in two ways never passes:
    `1,5` (with `decimal="."`), `3/4`, `10-12`, `10:30`, `5 300`, `2024-05-06`, `- 4` inside a line.

    What counts as one number: thousands separators `1,234.5`, `1'234.5`, `1_234.5` and spaces that do not break (`decimal=","`
    turns `.` and `,` around); signs, U+2212 too; exponents `1.5e3` and `1.5 * 10^3`; `2k`, `1.5 million`, `3bn`. A percent sign
    divides by 100: `12 %` equals `0.12` and `12%`, not `12`. Currency signs and codes may stand before or after; they only matter
    where both sides have one, and then have to agree. Other units are not looked at, parentheses are no minus, and number words
    are not read.

    Args:
        expected: what to compare with. Default: `case.expected`.
        abs_tol: the numbers may differ by this much (>= 0; 0.01 is one percentage point where percent signs are used) ...
        rel_tol: ... or by this share (>= 0) of the expected number, whichever is more. Without tolerance they are compared exactly.
        extract: what to take out of the output before reading it, as for `exact_match`.
        decimal: the decimal mark of both texts, "." or ",".
        pick: which number counts where the text holds several: "only" (the default) fails unless all are the same, "first", "last".

    Raises:
        ScorerError: an option cannot be used; or, when scoring, the expected value is missing or not one number.

    >>> from pytest_touchstone import Case, Trial
    >>> trial = Trial(Case(id="sum", input="617 * 2?", expected=1234))
    >>> trial.output = "The answer is $1,234."
    >>> trial.score(numeric_match()).passed
    True
    >>> trial.output = "617 * 2 = 1234, so the answer is 1,234."
    >>> trial.score(numeric_match()).reason  # doctest: +ELLIPSIS
    'found more than one number ("617 * 2", "1234", "1,234"); say which by extract=... or pick=\'last\': ...'
    >>> trial.score(numeric_match(pick="last")).passed
    True
    """
    check_tolerance("numeric_match()", "abs_tol", abs_tol)
    check_tolerance("numeric_match()", "rel_tol", rel_tol)
    if decimal not in get_args(DecimalMark):
        msg = f"numeric_match(): decimal is {decimal!r}; use '.' or ','"
        raise ScorerError(msg)
    if pick not in get_args(Pick):
        msg = f"numeric_match(): pick is {pick!r}; use 'only', 'first' or 'last'"
        raise ScorerError(msg)
    return NumericMatch(
        expected=expected,
        abs_tol=abs_tol,
        rel_tol=rel_tol,
        extract=extract if extract is None or callable(extract) else compile_pattern(extract, "numeric_match(extract=...)"),
        decimal=decimal,
        pick=pick,
    )


def read_numbers(text: str, decimal: DecimalMark = ".") -> Iterator[Number]:
    """Every number in a text, in order; what could be read in several ways comes as one Number without a value.

    >>> [(number.text, number.value) for number in read_numbers("3/4 of $1,200 is 900")]
    [('3/4', None), ('$1,200', Decimal('1200')), ('900', Decimal('900'))]
    """
    text = text.replace("{,}", ",")  # LaTeX's thousands separator
    started: int | None = None
    last: re.Match[str] | None = None
    number: Number | None = None
    for match in _TOKEN.finditer(text):
        if match["word"] is not None:
            continue
        if last is not None and number is not None and started is not None:
            if _joined(text, last, match):
                number = Number(text=text[started : match.end()], value=None)
                last = match
                continue
            yield number
        started, last, number = match.start(), match, _number(text, match, decimal)
    if number is not None:
        yield number


def _joined(text: str, one: re.Match[str], other: re.Match[str]) -> bool:
    between = text[one.end() : other.start()]
    if other["sign"] and not between.strip(" \t"):
        return True
    # "5 300" may be one number, or two.
    grouped = (
        between == " " and one["digits"][-3:].isdecimal() and len(one["digits"]) <= 3 and re.match(r"\d{3}(?!\d)", other[0]) is not None
    )
    return grouped or not between or _JOINED.fullmatch(between) is not None


def _number(text: str, match: re.Match[str], decimal: DecimalMark) -> Number:
    currency = (match["before"] or match["after"] or "").lstrip("\\").replace("\\", "")
    value = None if _is_unclear(text, match) else _value(match, decimal)
    return Number(text=match[0].strip(), value=value, currency=currency)


def _is_unclear(text: str, match: re.Match[str]) -> bool:
    twice = bool(match["before"] and match["after"]) or bool(match["sign"] and match["sign2"])
    return (
        twice
        or match["sign"] in {"\u2013", "\u00b1"}
        or _TAIL.match(text, match.end()) is not None
        or (not match["sign"] and _LONE_DASH.search(text[max(0, match.start() - 8) : match.start()]) is not None)
    )


def _value(match: re.Match[str], decimal: DecimalMark) -> Decimal | None:
    digits = _plain_digits(match["digits"], decimal)
    if digits is None:
        return None
    exponent = _exponent(match)
    scale = (match["scale"] or "").strip()
    if scale in {"m", "b", "t"} and not (match["before"] or match["after"]):
        scale = ""  # 5m is five metres or minutes; $5m are five million
    exponent += _SCALES.get(scale.lower(), 0)
    if match["percent"] is not None:
        exponent -= 3 if match["percent"] == "\u2030" else 2
    value = Decimal(f"{digits}e{exponent}")  # exact, which arithmetic is not
    negative = (match["sign"] or match["sign2"] or "+") != "+"
    return value.copy_negate() if negative else value


def _exponent(match: re.Match[str]) -> int:
    power = match["ten"] if match["ten"] is not None else (match["power"] or "e0")[1:]
    return int(re.sub(f"[{_MINUS}]", "-", power))


def _plain_digits(digits: str, decimal: DecimalMark) -> str | None:
    """The digits as Decimal reads them, None where the separators do not fit the decimal mark."""
    whole, mark, fraction = digits.partition(decimal)
    if mark and not fraction.isdecimal():
        return None
    grouping = "," if decimal == "." else "."
    for separator in (grouping, "_", *_GROUPS):
        if separator in whole:
            if not _is_grouped(whole.split(separator), indian=separator == ","):
                return None
            whole = whole.replace(separator, "")
            break
    if whole and not whole.isdecimal():
        return None
    return f"{whole or '0'}.{fraction}" if mark else whole


def _is_grouped(groups: list[str], *, indian: bool) -> bool:
    """Whether the groups are three digits each; or, with commas, two each but for the last three (12,34,567)."""
    first, *rest = groups
    if not (first.isdecimal() and first[0] != "0" and all(group.isdecimal() for group in rest)):
        return False
    threes = len(first) <= 3 and all(len(group) == 3 for group in rest)
    twos = len(first) <= 2 and len(rest[-1]) == 3 and all(len(group) == 2 for group in rest[:-1])
    return threes or (indian and twos)


def _given_number(given: object, decimal: DecimalMark) -> Number | None:
    """The number that a test, a golden file or an app gave; None where it is not exactly one finite number."""
    if isinstance(given, str):
        numbers = list(read_numbers(given, decimal))
        return numbers[0] if len(numbers) == 1 and numbers[0].text == given.strip().replace("{,}", ",") else None
    if isinstance(given, bool) or not isinstance(given, (int, float, Decimal)):
        return None
    try:
        value = Decimal(repr(given)) if isinstance(given, float) else Decimal(given)
    except InvalidOperation:  # pragma: no cover - a float subclass with a repr of its own
        return None
    return Number(text=shorten(str(value), SHOWN_WIDTH), value=value) if value.is_finite() else None


def _same_currency(one: str, other: str) -> bool:
    if not (one and other) or one == other:
        return True
    codes = [_CODES_OF.get(currency[-1], {currency} if currency.isascii() else set()) for currency in (one, other)]
    return bool(codes[0] & codes[1])


def _shown(number: Number) -> str:
    """What was written, and what it was read as where that differs."""
    assert number.value is not None
    read = f"{number.value:f}" if abs(number.value.adjusted()) < 30 else str(number.value)
    read = read.rstrip("0").rstrip(".") if "." in read else read
    written = shorten(number.text, SHOWN_WIDTH)
    return written if written == read else f"{written} (read as {shorten(read, SHOWN_WIDTH)})"


def _named(numbers: list[Number]) -> str:
    texts = list(dict.fromkeys(number.text for number in numbers))
    named = ", ".join(quote(text, SHOWN_WIDTH) for text in texts[:MAX_NAMED])
    return named + (f" and {len(texts) - MAX_NAMED} more" if len(texts) > MAX_NAMED else "")
