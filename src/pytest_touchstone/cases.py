"""The case: one golden example, frozen, with a content hash that is its identity over time."""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    PlainValidator,
    ValidationError,
    model_validator,
)

from pytest_touchstone.settings import Split

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydantic_core import ErrorDetails

HOLDOUT_PERCENT = 20
MAX_DEPTH = 100  # levels of lists and objects in one value; real examples stay below 20, and json.dumps recurses
MAX_INT_BITS = 3_300  # about 1,000 digits; Python refuses to print integers of more than 4,300
SHOWN_CHARACTERS = 80
SHOWN_PATH = 200

_SURROGATE = re.compile("[\ud800-\udfff]")
# Control characters, line separators and bidirectional overrides: in an id they would act on terminals, node ids and reports.
_DATE = re.compile("[0-9]{4}-[0-9]{2}-[0-9]{2}")
_UNSAFE_IN_ID = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing wrong with a value: `at` is the path to it (`input[1].role`), empty for the value itself."""

    at: str = ""
    problem: str
    fix: str

    def __str__(self) -> str:
        """Render as `at: problem; fix`."""
        return f"{self.at}: {self.problem}; {self.fix}" if self.at else f"{self.problem}; {self.fix}"


class ValueFault(ValueError):
    """A value that no case may hold; `problems` says each thing wrong with it."""

    def __init__(self, *problems: Problem) -> None:
        """Keep the problems; the message joins them."""
        self.problems = problems
        super().__init__("; ".join(map(str, problems)))


def shown(value: object) -> str:
    """The `repr` of a text, cut to 80 characters: safe and short enough to stand in a message.

    >>> shown("x" * 1000)[-10:]
    'xxxxxxx...'
    """
    text = value if isinstance(value, str) else str(value)
    quoted = repr(text[:SHOWN_CHARACTERS])
    return quoted if len(text) <= SHOWN_CHARACTERS and len(quoted) <= SHOWN_CHARACTERS + 2 else quoted[:SHOWN_CHARACTERS] + "..."


def describe(value: object) -> str:
    """What a value is, in the words of the file formats rather than Python's.

    >>> describe(42), describe("hi"), describe([1]), describe(None)
    ('the number 42', "text 'hi'", 'a list', 'null')
    """
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int):
        return f"the number {value}" if value.bit_length() <= 64 else "a huge number"
    if isinstance(value, float):
        return f"the number {value}"
    if isinstance(value, str):
        return f"text {shown(value)}"
    return "a list" if isinstance(value, list) else "an object" if isinstance(value, Mapping) else f"a Python {type(value).__name__}"


def did_you_mean(name: str, names: Iterable[str]) -> str | None:
    """The one of `names` that is closest to `name`, None where none is close.

    >>> did_you_mean("expcted", ["input", "expected"])
    'expected'
    """
    close = difflib.get_close_matches(name[:SHOWN_CHARACTERS].lower(), list(names), n=1)
    return close[0] if close else None


def shown_name(name: str) -> str:
    """A field's name as a message shows it: as it is where it is a plain one, else as `shown` does.

    >>> shown_name("untill"), shown_name("un til")
    ('untill', "'un til'")
    """
    return name if name.isidentifier() and len(name) <= SHOWN_CHARACTERS else shown(name)


def _check_text(value: str) -> str:
    if not value.isascii() and (found := _SURROGATE.search(value)):
        problem = f"holds half a character (the surrogate U+{ord(found[0]):04X} at position {found.start()})"
        raise ValueFault(Problem(problem=problem, fix="write the whole character, or remove it"))
    return value


def _check_id(value: str) -> str:
    if found := _UNSAFE_IN_ID.search(value):
        problem = f"holds the control character U+{ord(found[0]):04X} at position {found.start()}"
        raise ValueFault(Problem(problem=problem, fix="use letters, digits, spaces and punctuation"))
    return value


def _check_json(value: Any, at: str = "", depth: int = 0) -> Any:  # noqa: ANN401 - a validator sees whatever stood in the file
    """A copy of the value, lists and objects included, if JSON can hold it."""
    if isinstance(value, str):
        return _check_text_at(value, at)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, (list, dict)):
        if depth == MAX_DEPTH:
            raise ValueFault(Problem(problem=f"is nested more than {MAX_DEPTH} levels deep", fix="flatten it, or keep it as text"))
        if isinstance(value, list):
            return [_check_json(item, f"{at}[{index}]", depth + 1) for index, item in enumerate(cast("list[object]", value))]
        fields = cast("dict[object, object]", value)
        return {_check_key(key, at): _check_json(item, f"{at}.{key}"[:SHOWN_PATH], depth + 1) for key, item in fields.items()}
    return _check_other(value, at)


def _check_text_at(value: str, at: str) -> str:
    if value.isascii():
        return value
    try:
        return _check_text(value)
    except ValueFault as fault:
        raise ValueFault(replace(fault.problems[0], at=at)) from None


def _check_key(key: object, at: str) -> str:
    if not isinstance(key, str):
        raise ValueFault(Problem(at=at, problem=f"has the key {describe(key)}", fix="keys are text; quote it"))
    try:
        return _check_text(key)
    except ValueFault as fault:
        raise ValueFault(Problem(at=at, problem=f"has a key that {fault.problems[0].problem}", fix=fault.problems[0].fix)) from None


def _check_other(value: object, at: str) -> int | float:
    if isinstance(value, int) and value.bit_length() <= MAX_INT_BITS:
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, int):
        raise ValueFault(Problem(at=at, problem="is an integer of more than 990 digits", fix="write it as text"))
    if isinstance(value, float):
        fix = "use null for a missing number, or write it as text"
        raise ValueFault(Problem(at=at, problem=f"is {value}, which is no JSON number", fix=fix))
    raise ValueFault(Problem(at=at, problem=f"is {describe(value)}", fix="use text, numbers, true/false, null, lists and objects (dict)"))


def _check_content(value: Any) -> Any:  # noqa: ANN401 - as above
    if value is None or isinstance(value, (str, list)):
        return cast("object", value)
    raise ValueFault(Problem(problem=f"is {describe(value)}", fix="give text (quote it) or a list of content parts"))


class Message(BaseModel):
    """One chat message of a multi-turn input; further keys (`name`, `tool_calls`, ...) are kept as they are.

    `content` is text, a list of content parts, or None (as beside tool calls).
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Annotated[JsonValue, BeforeValidator(_check_content)] = None


def _check_input(value: Any) -> Any:  # noqa: ANN401 - as above
    if not isinstance(value, (str, dict, list)):
        raise ValueFault(Problem(problem=f"is {describe(value)}", fix="give text (quote it), an object, or a list of messages"))
    if not isinstance(value, list):
        return _check_json(value)
    if not value:
        raise ValueFault(Problem(problem="is an empty list", fix="give text, an object, or at least one message"))
    items = cast("list[object]", value)
    messages = [message.model_dump(exclude_unset=True) if isinstance(message, Message) else message for message in items]
    messages = _check_json(messages)
    problems = [problem for index, message in enumerate(messages) for problem in _message_problems(message, f"[{index}]")]
    if problems:
        raise ValueFault(*problems)
    return messages


def _check_object(value: Any) -> Any:  # noqa: ANN401 - as above
    if not isinstance(value, dict):
        raise ValueFault(Problem(problem=f"is {describe(value)}", fix="give an object"))
    return _check_json(value)


def _check_reason(value: str) -> str:
    line = " ".join(value.split())
    if not line:
        raise ValueFault(Problem(problem="is empty", fix="say why the case is flaky"))
    return line


def _check_date(value: Any) -> date:  # noqa: ANN401 - as above
    if isinstance(value, date) and not isinstance(value, datetime):
        return value
    if isinstance(value, str) and _DATE.fullmatch(value):
        with contextlib.suppress(ValueError):
            return date.fromisoformat(value)
    raise ValueFault(Problem(problem=f"is {describe(value)}", fix="give a day as year-month-day, such as 2026-12-31"))


def _check_quarantine(value: Any) -> Quarantine:  # noqa: ANN401 - as above
    if isinstance(value, Quarantine):
        return value
    if not isinstance(value, Mapping):
        raise ValueFault(Problem(problem=f"is {describe(value)}", fix="give an object with 'reason' and 'until'"))
    fields = {name: item for name, item in cast("Mapping[object, object]", value).items() if item is not None}
    problems = [_no_part(name) for name in fields if name not in Quarantine.model_fields]
    try:
        quarantine = Quarantine.model_validate({name: fields[name] for name in Quarantine.model_fields if name in fields})
    except ValidationError as error:
        raise ValueFault(*problems, *problems_of(error)) from None
    if problems:
        raise ValueFault(*problems)
    return quarantine


def _no_part(name: object) -> Problem:
    known = tuple(Quarantine.model_fields)
    close = did_you_mean(name, known) if isinstance(name, str) else None
    fix = f"did you mean {close!r}?" if close else f"keep only {' and '.join(map(repr, known))}"
    return Problem(at=shown_name(name) if isinstance(name, str) else shown(name), problem="is no field of a quarantine", fix=fix)


def _message_problems(message: Any, at: str) -> list[Problem]:  # noqa: ANN401 - as above
    try:
        Message.model_validate(message)
    except ValidationError as error:
        return [Problem(at=_join(at, found.at), problem=found.problem, fix=found.fix) for found in problems_of(error)]
    return []


Text = Annotated[str, AfterValidator(_check_text)]


class Quarantine(BaseModel):
    """Why a flaky case is reported but not gated, and the last day (local time) on which that holds.

    `reason` is one line: white space in it becomes single spaces, and it holds no control characters. `until` may be given as text, too.

    >>> Quarantine(reason="the vendor answers at random", until="2026-12-31").until
    datetime.date(2026, 12, 31)
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    reason: Annotated[str, AfterValidator(_check_text), AfterValidator(_check_reason), AfterValidator(_check_id)]
    until: Annotated[date, BeforeValidator(_check_date)]

    def is_over(self, today: date) -> bool:
        """Whether `today` is past the last day."""
        return today > self.until


Tag = Annotated[str, Field(min_length=1), AfterValidator(_check_text)]


class Case(BaseModel):
    """One golden example.

    `input` is text, a list of chat messages, or any JSON object. At least one of `expected`, `reference` and `rubric`
    may say what a good output is; a case with none of them is legal, for tests that assert in their body.
    `split` is `train` or `holdout`; holdout cases are never exported. Cases of one `group` belong together, as near-twins do: those
    that name no split have that of their group. A case with `quarantine` is reported but not gated.
    `source` is where the case stands (`support.yaml:14`).

    Values are JSON values: finite numbers, whole characters, at most 100 levels deep. An `id` holds no control characters.

    >>> case = Case(id="gift", input="Can I swap it?", expected="Yes.")
    >>> case.split, case.content_hash[:8]
    ('train', 'c3de6927')
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    id: Annotated[str, Field(min_length=1, max_length=512), AfterValidator(_check_id)]
    input: Annotated[JsonValue, PlainValidator(_check_input)]
    expected: Annotated[JsonValue, PlainValidator(_check_json)] = None
    reference: Text | None = None
    rubric: Text | None = None
    tags: Annotated[tuple[Tag, ...], Field(strict=False)] = ()
    metadata: Annotated[dict[str, JsonValue], PlainValidator(_check_object)] = Field(default_factory=dict)
    split: Split = "train"
    group: Tag | None = None
    must_pass: bool = False
    quarantine: Annotated[Quarantine, BeforeValidator(_check_quarantine)] | None = None
    source: str = "<python>"

    @model_validator(mode="before")
    @classmethod
    def _fill_split(cls, data: Any) -> Any:  # noqa: ANN401 - as above
        if isinstance(data, dict):
            fields = cast("dict[str, object]", data)
            name = fields.get("id") if fields.get("group") is None else fields["group"]
            if fields.get("split") is None and isinstance(name, str):
                return {**fields, "split": default_split(name)}
        return cast("object", data)

    @property
    def content_hash(self) -> str:
        """The sha256 (hex) of what defines the case's meaning: input, expected, reference and rubric."""
        return content_hash(input=self.input, expected=self.expected, reference=self.reference, rubric=self.rubric)


def canonical_json(value: JsonValue) -> str:
    """The one text of a JSON value that hashes are taken of: sorted keys, no spaces, plain Unicode."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def content_hash(**fields: JsonValue) -> str:
    """The sha256 (hex) of the canonical JSON of the fields that are not None."""
    present: dict[str, JsonValue] = {name: value for name, value in fields.items() if value is not None}
    return hashlib.sha256(canonical_json(present).encode("utf-8", "surrogatepass")).hexdigest()


def default_split(name: str) -> Split:
    """The split of a case that names none: a stable hash of its group, or else of its id, puts 20 % of these names into `holdout`."""
    return "holdout" if stable_number(name) % 100 < HOLDOUT_PERCENT else "train"


def stable_number(text: str) -> int:
    """A number below 2**64 that depends on nothing but the text: for choices that are made again the same way on any machine."""
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "big")


def problems_of(error: ValidationError) -> list[Problem]:
    """What a validation of a Case or Message found, in our own words; `at` starts with the field's name.

    >>> try:
    ...     Case(id="a", input="Hi", split="tset")
    ... except ValidationError as error:
    ...     print(problems_of(error)[0])
    split: is text 'tset'; use 'train' or 'holdout'
    """
    return [problem for details in error.errors(include_url=False) for problem in _problems(details)]


def _problems(details: ErrorDetails) -> list[Problem]:
    at = ""
    for part in details["loc"]:
        at = _join(at, f"[{part}]" if isinstance(part, int) else part)
    raised = details.get("ctx", {}).get("error")
    if isinstance(raised, ValueFault):
        return [Problem(at=_join(at, inner.at), problem=inner.problem, fix=inner.fix) for inner in raised.problems]
    problem, fix = _in_words(details)
    return [Problem(at=at, problem=problem, fix=fix)]


_FIXES = {
    "string_type": "give text (quote it)",
    "bool_type": "use true or false",
    "tuple_type": "give a list of texts",
    "model_type": "give an object with 'role' and 'content'",
}


def _join(path: str, step: str) -> str:
    return f"{path}.{step}" if path and step and step[0] not in "[." else path + step


def _in_words(details: ErrorDetails) -> tuple[str, str]:  # noqa: PLR0911 - one line for each kind of error
    value, context = details["input"], details.get("ctx", {})
    match details["type"]:
        case "missing":
            return "is missing", "add it"
        case "extra_forbidden":
            return "is no field of a case", "correct its name, or put it under 'metadata'"
        case "literal_error":
            return f"is {describe(value)}", f"use {context['expected']}"
        case "string_unicode":
            return "holds half a character (a lone surrogate)", "write the whole character, or remove it"
        case "string_too_short":
            return "is empty", "give at least one character"
        case "string_too_long":
            return f"has {len(value):,} characters", f"use at most {context['max_length']}"
        case kind:
            return f"is {describe(value)}", _FIXES.get(kind, details["msg"])
