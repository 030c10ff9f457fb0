"""What a judge decides: the schema it is asked to fill, how its answer is read, and how several votes make one score."""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from pytest_touchstone.errors import ScorerError
from pytest_touchstone.models.faults import safe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic import JsonValue

    from pytest_touchstone.models.client import Answer

Scale: TypeAlias = Literal["binary"] | tuple[int, int]

MAX_GRADES = 101
DEFAULT_SHARE = 0.75
REASON_WIDTH = 500


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One usable vote. `value` is in [0, 1]; `grade` is on the scale asked for, None on the binary one. `reason` is safe to show."""

    passed: bool
    value: float
    grade: int | None = None
    reason: str


@dataclass(frozen=True, kw_only=True)
class Unusable:
    """A vote that gave no verdict; `reason` says why and is safe to show."""

    reason: str


@dataclass(frozen=True, kw_only=True)
class Grading:
    """A scale with the grade from which an output passes.

    On the scale `(low, high)` a grade's value is `(grade - low) / (high - low)`. `threshold` is a grade, low < threshold <= high; the
    default is the lowest grade worth at least 0.75, such as 4 of (1, 5). The binary scale takes none.

    Raises:
        ScorerError: the scale or the threshold is out of range.

    >>> Grading(scale=(1, 5)).threshold
    4
    """

    scale: Scale = "binary"
    threshold: float | None = None

    def __post_init__(self) -> None:
        """Check both, and fill in the default threshold."""
        if self.scale == "binary":
            if self.threshold is not None:
                msg = f"judge threshold is {self.threshold!r}, but the binary scale has none; leave it out, or give a scale such as (1, 5)"
                raise ScorerError(msg)
            return
        low, high = _check_range(self.scale)
        if self.threshold is None:
            default = next(grade for grade in range(low, high + 1) if grade - low >= DEFAULT_SHARE * (high - low))
            object.__setattr__(self, "threshold", default)
        elif not _is_number(self.threshold) or not low < self.threshold <= high:
            msg = f"judge threshold is {self.threshold!r}; on the scale ({low}, {high}) give a grade above {low}, and {high} at most"
            raise ScorerError(msg)

    @property
    def schema(self) -> dict[str, JsonValue]:
        """The JSON schema of a verdict: the reason first, so that the model thinks before it decides."""
        if self.scale == "binary":
            decision: dict[str, JsonValue] = {"verdict": {"type": "string", "enum": ["pass", "fail"]}}
        else:
            low, high = self.scale
            decision = {"grade": {"type": "integer", "enum": list(range(low, high + 1))}}
        properties: dict[str, JsonValue] = {"reason": {"type": "string"}, **decision}
        return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}

    def verdict(self, data: JsonValue) -> Verdict | Unusable:
        """The verdict in a JSON value; whatever the value is, this never raises."""
        try:
            if self.scale == "binary":
                said = _Binary.model_validate(data)
                passed = said.verdict == "pass"
                return Verdict(passed=passed, value=float(passed), reason=safe(said.reason, REASON_WIDTH))
            graded = _Graded.model_validate(data)
        except ValidationError as error:
            fault = error.errors(include_url=False, include_input=False)[0]
            wrong = f"{fault['loc'][0]}: {safe(fault['msg'])}" if fault["loc"] else "not an object"
            return Unusable(reason=f"answered with JSON of another shape: {wrong}")
        low, high = self.scale
        assert self.threshold is not None
        if not low <= graded.grade <= high:
            return Unusable(reason=f"answered with a grade off the scale ({low}, {high}): {safe(str(graded.grade), 40)}")
        value = (graded.grade - low) / (high - low)
        return Verdict(passed=graded.grade >= self.threshold, value=value, grade=graded.grade, reason=safe(graded.reason, REASON_WIDTH))

    def read(self, answer: Answer, *, max_tokens: int) -> Verdict | Unusable:
        """The verdict in a model's answer; only a whole answer counts, however well its beginning reads."""
        if answer.stop in {"refusal", "content_filter", "length"}:
            return Unusable(reason=_stopped(answer, max_tokens))
        if answer.data is not None:
            return self.verdict(answer.data)
        if not answer.text.strip():
            return Unusable(reason="answered with nothing")
        try:
            data = _parse(answer.text)
        except (ValueError, RecursionError):
            return Unusable(reason=f"answered with something other than one JSON object: {safe(answer.text, 120)}")
        return self.verdict(data)

    def settle(self, votes: Sequence[Verdict | Unusable]) -> Verdict | Unusable:
        """The decision of all votes asked for: what a strict majority of them says, else none.

        A vote without a verdict counts for neither side. The value is the median of the grades, or the majority's 0 or 1.
        """
        decided = [vote for vote in votes if isinstance(vote, Verdict)]
        unusable = [vote for vote in votes if isinstance(vote, Unusable)]
        passing = [vote for vote in decided if vote.passed]
        failing = [vote for vote in decided if not vote.passed]
        winners = next((side for side in (passing, failing) if 2 * len(side) > len(votes)), None)
        if winners is None:
            if len(votes) == 1:
                return unusable[0]
            return Unusable(reason=f"{_count(votes, passing, failing, unusable)}: {unusable[0].reason}")
        value = winners[0].value if self.scale == "binary" else statistics.median(vote.value for vote in decided)
        return Verdict(
            passed=winners[0].passed, value=value, reason=self._reason(votes, winners, _count(votes, passing, failing, unusable))
        )

    def _reason(self, votes: Sequence[Verdict | Unusable], winners: Sequence[Verdict], count: str) -> str:
        said = winners[0].reason or "no reason given"
        if self.scale == "binary":
            return said if len(votes) == 1 else f"{count}: {said}"
        low, high = self.scale
        grades = ", ".join(str(vote.grade) if isinstance(vote, Verdict) else "none" for vote in votes)
        on_scale = f"on {low} to {high}, passing from {self.threshold:g}"
        return f"grade {grades} {on_scale}: {said}" if len(votes) == 1 else f"{count}, grades {grades} {on_scale}: {said}"


def _count(votes: Sequence[object], passing: Sequence[object], failing: Sequence[object], unusable: Sequence[object]) -> str:
    """`2 of 3 votes pass`, and what the others did unless they plainly failed."""
    if not unusable:
        return f"{len(passing)} of {len(votes)} votes pass"
    return f"{len(passing)} of {len(votes)} votes pass, {len(failing)} fail, {len(unusable)} gave no verdict"


def _stopped(answer: Answer, max_tokens: int) -> str:
    if answer.stop == "length":
        return f"was cut off at {max_tokens} tokens"
    if answer.stop == "content_filter":
        return "was stopped by the provider's content filter"
    said = safe(answer.detail or answer.text, REASON_WIDTH)
    return f"refused: {said}" if said else "refused"


def _check_range(scale: Any) -> tuple[int, int]:  # noqa: ANN401 - annotations hold nobody to them
    if isinstance(scale, tuple):
        ends = cast("tuple[object, ...]", scale)
        if len(ends) == 2 and type(ends[0]) is int and type(ends[1]) is int and ends[0] < ends[1] < ends[0] + MAX_GRADES:
            return ends[0], ends[1]
    msg = f"judge scale is {scale!r}; give 'binary', or the lowest and highest grade, at most {MAX_GRADES} grades, as in scale=(1, 5)"
    raise ScorerError(msg)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _lowered(value: object) -> object:
    return value.strip().lower() if isinstance(value, str) else value


class _Binary(BaseModel):
    model_config = ConfigDict(strict=True)

    reason: str
    verdict: Annotated[Literal["pass", "fail"], BeforeValidator(_lowered)]


class _Graded(BaseModel):
    model_config = ConfigDict(strict=True)

    reason: str
    grade: int


def _parse(text: str) -> JsonValue:
    """The JSON value that the text consists of.

    Only thinking before it and a code fence around it are forgiven. JSON found within prose is not taken: it may be a quotation of the
    output under judgement.
    """
    text = text.strip()
    if text.startswith("<think>"):
        text = text.partition("</think>")[2].strip()
    if text.startswith("```") and text.endswith("```"):
        text = text.removesuffix("```").partition("\n")[2]
    value: JsonValue = json.loads(text, object_pairs_hook=_unique)
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object that says one thing twice says nothing."""
    value = dict(pairs)
    if len(value) != len(pairs):
        msg = "a name occurs twice"
        raise ValueError(msg)
    return value
