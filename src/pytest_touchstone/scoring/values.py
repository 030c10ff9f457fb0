"""What scorers compare: the expected value of a case, and outputs as text or JSON values."""

from __future__ import annotations

import enum
import math
import unicodedata
from typing import TYPE_CHECKING, Any, Final, Literal, TypeGuard

from pytest_touchstone.errors import ScorerError
from pytest_touchstone.text import quote, visible

if TYPE_CHECKING:
    from pydantic import JsonValue

    from pytest_touchstone.trial import Trial

UnicodeForm = Literal["NFC", "NFKC"]


class Unset(enum.Enum):
    """The type of `UNSET`."""

    UNSET = "unset"


UNSET: Final = Unset.UNSET


class NotJsonError(ValueError):
    """A value or text is not JSON; the message says why, without a subject."""


def place(trial: Trial) -> str:
    """Which case an error is about: `case 'id' (support.yaml:14)`."""
    return f"case {visible(repr(trial.id))} ({visible(trial.case.source)})"


def expected_of(trial: Trial, scorer: str) -> Any:  # noqa: ANN401 - any JSON value
    """The case's `expected`.

    Raises:
        ScorerError: the case has none.
    """
    if trial.expected is None:
        msg = f"{place(trial)} has no `expected`, which {scorer} compares with; add one, or use judge()"
        raise ScorerError(msg)
    return trial.expected


def kind(value: object) -> str:
    """What a value is called in a reason: text, number, list, ..."""
    if isinstance(value, bool):
        return "true or false"
    named: dict[type, str] = {str: "text", int: "a number", float: "a number", list: "a list", dict: "an object", type(None): "None"}
    return named.get(type(value), visible(type(value).__name__))


def is_object(value: object) -> TypeGuard[dict[str, Any]]:
    """Whether a JSON value is an object."""
    return isinstance(value, dict)


def is_list(value: object) -> TypeGuard[list[Any]]:
    """Whether a JSON value is a list."""
    return isinstance(value, list)


def json_value(value: object) -> JsonValue:
    """A JSON value of what an app returned; pydantic models, dataclasses, tuples, enums and the like are converted as pydantic does.

    Raises:
        NotJsonError: it has no JSON form.
    """
    if value is None or type(value) in {str, bool, int, float}:
        return value  # type: ignore[return-value] # the set lookup does not narrow
    import pydantic_core

    try:
        return pydantic_core.to_jsonable_python(value)  # type: ignore[no-any-return] # typed as Any
    except (ValueError, TypeError, RecursionError) as error:  # PydanticSerializationError is a ValueError
        msg = f"{quote(value)} has no JSON form: {visible(str(error))}"
        raise NotJsonError(msg) from error


def normalize(
    text: str,
    *,
    strip: bool = False,
    casefold: bool = False,
    normalize_whitespace: bool = False,
    unicode: UnicodeForm | None = None,
) -> str:
    """The text as two texts are compared: Unicode form, case, runs of white space as one space, outer white space, in this order."""
    if unicode is not None:
        text = unicodedata.normalize(unicode, text)
    if casefold:
        text = text.casefold()
        # Folding can leave the form: "İ" becomes two characters.
        text = text if unicode is None else unicodedata.normalize(unicode, text)
    if normalize_whitespace:
        text = " ".join(text.split())
    return text.strip() if strip else text


def check_unicode_form(scorer: str, unicode: object) -> None:
    """Refuse an unknown Unicode form when the scorer is built.

    Raises:
        ScorerError: it is neither None, "NFC" nor "NFKC".
    """
    if unicode not in {None, "NFC", "NFKC"}:
        msg = f'{scorer}: unicode is {unicode!r}; use None, "NFC" or "NFKC"'
        raise ScorerError(msg)


def check_tolerance(scorer: str, option: str, tolerance: object) -> None:
    """Refuse a tolerance that could not bound anything.

    Raises:
        ScorerError: it is not a finite number of at least 0.
    """
    number = tolerance if isinstance(tolerance, (int, float)) and not isinstance(tolerance, bool) else math.nan
    if not (math.isfinite(number) and number >= 0):
        msg = f"{scorer}: {option} is {quote(tolerance)}; give a number of at least 0"
        raise ScorerError(msg)


def json_equal(left: object, right: object) -> bool:
    """Whether two JSON values are the same: objects in any order, lists in theirs; 1 equals 1.0, but True is not 1.

    >>> json_equal({"a": 1, "b": [True]}, {"b": [True], "a": 1.0}), json_equal(True, 1)
    (True, False)
    """
    # A stack of our own: a deeply nested output must not end in a RecursionError.
    pending: list[tuple[Any, Any]] = [(left, right)]
    while pending:
        one, other = pending.pop()
        if is_object(one) and is_object(other):
            if one.keys() != other.keys():
                return False
            pending.extend((one[key], other[key]) for key in one)
        elif is_list(one) and is_list(other):
            if len(one) != len(other):
                return False
            pending.extend(zip(one, other, strict=True))
        elif isinstance(one, bool) is not isinstance(other, bool) or one != other:
            return False
    return True
