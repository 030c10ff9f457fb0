"""The case: one golden example, frozen, with a content hash that is its identity over time."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, model_validator

from pytest_touchstone.settings import Split

HOLDOUT_PERCENT = 20


class Message(BaseModel):
    """One chat message of a multi-turn input; further keys (`name`, `tool_calls`, ...) are kept as they are."""

    model_config = ConfigDict(frozen=True, extra="allow")

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: JsonValue = None


def _check_input(value: Any) -> Any:  # noqa: ANN401 - a validator sees whatever stood in the file
    if isinstance(value, list):
        if not value:
            msg = "is an empty list; give text, an object, or at least one message"
            raise ValueError(msg)
        for message in value:
            Message.model_validate(message)
    elif not isinstance(value, (str, dict)):
        msg = f"is {type(value).__name__}; give text (quote it), an object, or a list of messages"
        raise ValueError(msg)  # noqa: TRY004 - pydantic collects ValueErrors
    return value


class Case(BaseModel):
    """One golden example.

    `input` is text, a list of chat messages, or any JSON object. At least one of `expected`, `reference` and `rubric`
    may say what a good output is; a case with none of them is legal, for tests that assert in their body.
    `split` is `train` or `holdout`; holdout cases are never exported. `source` is where the case stands (`support.yaml:14`).

    >>> case = Case(id="gift", input="Can I swap it?", expected="Yes.")
    >>> case.split, case.content_hash[:8]
    ('train', 'c3de6927')
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    id: Annotated[str, Field(min_length=1, max_length=512)]
    input: Annotated[JsonValue, BeforeValidator(_check_input)]
    expected: JsonValue = None
    reference: str | None = None
    rubric: str | None = None
    tags: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(strict=False)] = ()
    metadata: dict[str, JsonValue] = Field(default_factory=dict)
    split: Split = "train"
    must_pass: bool = False
    source: str = "<python>"

    @model_validator(mode="before")
    @classmethod
    def _fill_split(cls, data: Any) -> Any:  # noqa: ANN401 - as above
        if isinstance(data, dict) and data.get("split") is None and isinstance(data.get("id"), str):
            return {**data, "split": default_split(data["id"])}
        return data

    @property
    def content_hash(self) -> str:
        """The sha256 (hex) of what defines the case's meaning: input, expected, reference and rubric."""
        return content_hash(input=self.input, expected=self.expected, reference=self.reference, rubric=self.rubric)


def canonical_json(value: JsonValue) -> str:
    """The one text of a JSON value that hashes are taken of: sorted keys, no spaces, plain Unicode."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def content_hash(**fields: JsonValue) -> str:
    """The sha256 (hex) of the canonical JSON of the fields that are not None."""
    present = {name: value for name, value in fields.items() if value is not None}
    return hashlib.sha256(canonical_json(present).encode("utf-8", "surrogatepass")).hexdigest()


def default_split(case_id: str) -> Split:
    """The split of a case that names none: a stable hash of its id puts 20 % into `holdout`."""
    bucket = int.from_bytes(hashlib.sha256(case_id.encode("utf-8", "surrogatepass")).digest()[:8], "big") % 100
    return "holdout" if bucket < HOLDOUT_PERCENT else "train"
