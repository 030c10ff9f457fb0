"""The example: one exported training record, and the reason where a trial offers none."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, cast

from pytest_touchstone.errors import ExportError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Kind = Literal["fix", "replay"]
TargetSource = Literal["correction", "expected", "reference", "teacher", "output", "wire"]

ROLES: Final = frozenset({"system", "developer", "user", "assistant", "tool"})
KINDS: Final = frozenset({"fix", "replay"})
_CONVERSATION: Final = ("prompt", "completion", "tools", "rejected")
_TUPLES: Final = (*_CONVERSATION, "tags", "checks")
# What a hook may not change: an example that could pass for another case's would walk past the holdout guard.
_IDENTITY: Final = (
    "case_id",
    "suite",
    "source",
    "content_hash",
    "input_fingerprint",
    "input_text",
    "kind",
    "trial",
    "call",
    "finish_reason",
)


@dataclass(frozen=True, kw_only=True)
class Example:
    """One exported training record.

    `prompt` are the chat messages as they were really sent, `completion` is the one assistant message to learn, `tools` are the
    tool definitions that went with the prompt; all in OpenAI chat shape, plain JSON. `rejected` is the one assistant message that failed
    where the completion is right, empty where nothing failed or left a text. `kind` is `fix` (a failed case with a
    verified target) or `replay` (a case that passed). `target_source` says where the completion comes from: an accepted `correction`,
    the case's `expected` or `reference`, a `teacher`, the answer on the `wire`, or the app's `output` where no call was seen. `checks`
    names the scorers that the target passed: the deterministic ones, and of a teacher's answer all. `input_fingerprint` and `input_text`
    are those of the case's input (see `leak`), which the holdout guard compares; neither is training data. `trial` counts from 1. `call`
    counts the answered calls of the trial from 1, None where the prompt is the case's input. `finish_reason` is the provider's of an
    answer from the wire.
    """

    prompt: tuple[Mapping[str, Any], ...]
    completion: tuple[Mapping[str, Any], ...]
    tools: tuple[Mapping[str, Any], ...] = ()
    rejected: tuple[Mapping[str, Any], ...] = ()
    case_id: str
    content_hash: str
    input_fingerprint: str
    suite: str
    source: str
    kind: Kind
    tags: tuple[str, ...] = ()
    trial: int = 1
    call: int | None = None
    target_source: TargetSource
    checks: tuple[str, ...] = ()
    input_text: str = ""
    finish_reason: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, lists and scalars, safe to send to another process."""
        data = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return cast("dict[str, Any]", plain(data))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Example:
        """The inverse of `to_dict`.

        Raises:
            ExportError: a field is missing, unknown, or cannot hold what it is given.
        """
        try:
            example = cls.unchecked(data)
        except TypeError as error:
            msg = f"case {data.get('case_id')!r}: this is no example: {error}; build it with Example(...) or Example.to_dict()"
            raise ExportError(msg) from error
        return validate_example(example)

    @classmethod
    def unchecked(cls, data: Mapping[str, Any]) -> Example:
        """As `from_dict`, of what need not be fit for an export: an example that lacks its target."""
        fields: dict[str, Any] = {name: tuple(value) if name in _TUPLES else value for name, value in data.items()}
        return cls(**fields)


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """What came of asking a teacher about a failed case.

    `text` is its answer where it passed every scorer, by name in `checks`; else it is None, and `reason` says why.
    """

    outcome: Literal["passed", "did not pass", "no answer", "not asked"]
    text: str | None = None
    checks: tuple[str, ...] = ()
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """Why a trial offers no example: a short reason, with details after a colon where there are any.

    `unanswered` is the example that lacks nothing but a right answer, with the output that failed as its completion; None where an answer
    would not help.

    >>> LeftOut(reason="no verified target: the case has neither expected nor reference").category
    'no verified target'
    """

    reason: str
    unanswered: Example | None = None

    @property
    def category(self) -> str:
        """The reason without its details: what manifests count by."""
        return self.reason.partition(":")[0]


def validate_example(example: object, *, offered: Example | None = None) -> Example:
    """Return the example if it can be exported; `offered` is the one that a hook was given, whose identity must be kept.

    Raises:
        ExportError: it cannot be exported; the message names the case and what is wrong.
    """
    if not isinstance(example, Example):
        case_id = getattr(offered, "case_id", None)
        msg = f"case {case_id!r}: pytest_llm_example returned {type(example).__name__}; return an Example (dataclasses.replace makes one)"
        raise ExportError(msg)
    changed = [name for name in _IDENTITY if offered is not None and getattr(example, name) != getattr(offered, name)]
    if offered is not None and changed:
        msg = (
            f"case {offered.case_id!r}: pytest_llm_example changed {', '.join(changed)}; "
            "change prompt, completion, tools, rejected or tags only"
        )
        raise ExportError(msg)
    problem = problem_of(example)
    if problem is not None:
        msg = f"case {example.case_id!r}: the example cannot be exported: {problem}"
        raise ExportError(msg)
    return example


def problem_of(example: Example) -> str | None:
    """What keeps the example from being exported, None where nothing does."""
    return (
        _field_problem(example)
        or _json_problem({name: getattr(example, name) for name in _CONVERSATION})
        or _messages_problem("prompt", example.prompt)
        or _messages_problem("completion", example.completion)
        or _messages_problem("rejected", example.rejected)
        or _turns_problem(example)
    )


def plain(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """A deep copy of a JSON value in dicts, lists and scalars only.

    Raises:
        TypeError: it holds something that JSON cannot.
        ValueError: it holds a number that JSON cannot, or itself.
    """
    return json.loads(json.dumps(value, allow_nan=False, default=_as_dict))


def map_texts(value: object, change: Callable[[str], str]) -> Any:  # noqa: ANN401 - a JSON value
    """A copy of a JSON value with every text in it changed, keys included."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {change(key): map_texts(part, change) for key, part in cast("dict[str, object]", value).items()}
    if isinstance(value, (list, tuple)):
        return [map_texts(part, change) for part in cast("Sequence[object]", value)]
    return value


def text_of(content: object) -> str:
    """The text of a message's content; the text parts of a list are joined by newlines, other parts have none."""
    if isinstance(content, str):
        return content
    parts = cast("Sequence[object]", content) if isinstance(content, (list, tuple)) else ()
    texts = (cast("Mapping[str, object]", part).get("text") for part in parts if isinstance(part, Mapping))
    return "\n".join(text for text in texts if isinstance(text, str))


def _as_dict(value: object) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return dict(cast("Mapping[str, Any]", value))
    msg = f"{type(value).__name__} is no JSON value"
    raise TypeError(msg)


def _field_problem(example: Example) -> str | None:
    names = ("case_id", "content_hash", "input_fingerprint", "input_text", "finish_reason", "suite", "source", "kind", "target_source")
    wrong = next((name for name in names if not isinstance(getattr(example, name), str)), None)
    if wrong is not None:
        return f"{wrong} is {type(getattr(example, wrong)).__name__}; give text"
    if example.kind not in KINDS:
        return f"kind is {example.kind!r}; use 'fix' or 'replay'"
    if type(example.trial) is not int or example.trial < 1:
        return f"trial is {example.trial!r}; count from 1"
    if example.call is not None and (type(example.call) is not int or example.call < 1):
        return f"call is {example.call!r}; count from 1"
    if not all(isinstance(text, str) for text in (*example.tags, *example.checks)):  # pyright: ignore[reportUnnecessaryIsInstance] - a hook's
        return "tags and checks must be texts"
    return None


def _json_problem(value: object) -> str | None:
    try:
        json.dumps(plain(value), ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        return f"a text holds a lone surrogate (U+{ord(error.object[error.start]):04X}), which UTF-8 cannot"
    except (TypeError, ValueError, RecursionError) as error:
        return f"it is not JSON: {error}"
    return None


def _messages_problem(where: str, messages: tuple[Any, ...]) -> str | None:
    for index, message in enumerate(messages):
        problem = _message_problem(message)
        if problem is not None:
            return f"{where}[{index}] {problem}"
    return None


def _message_problem(message: object) -> str | None:
    if not isinstance(message, Mapping):
        return f"is {type(message).__name__}; give a chat message"
    fields = cast("Mapping[str, object]", message)
    role, content, tool_calls = fields.get("role"), fields.get("content"), fields.get("tool_calls") or None
    if role not in ROLES:
        return f"has the role {role!r}; use one of {', '.join(sorted(ROLES))}"
    if tool_calls is not None and not (role == "assistant" and _are_mappings(tool_calls)):
        return "has tool_calls that are no list of tool calls by the assistant"
    if content is None and tool_calls is None:
        return "has neither content nor tool_calls"
    if content is not None and not isinstance(content, str) and not _are_mappings(content):
        return f"has content of type {type(content).__name__}; give text or a list of parts"
    return None


def _are_mappings(value: object) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(part, Mapping) for part in cast("Sequence[object]", value))


def _turns_problem(example: Example) -> str | None:
    if not all(isinstance(tool, Mapping) for tool in example.tools):  # pyright: ignore[reportUnnecessaryIsInstance] - a hook's
        return "a tool is no object; give tool definitions as they are sent"
    if not example.prompt:
        return "the prompt is empty"
    if example.prompt[-1]["role"] == "assistant":
        return "the prompt ends with an assistant message, so the completion would not be an answer"
    return _answers_problem(example)


def _answers_problem(example: Example) -> str | None:
    if len(example.completion) != 1 or example.completion[0]["role"] != "assistant":
        return "the completion must be exactly one assistant message"
    if len(example.rejected) > 1 or any(message["role"] != "assistant" for message in example.rejected):
        return "rejected must be one assistant message, or none"
    answer = example.completion[0]
    if not answer.get("tool_calls") and not text_of(answer.get("content")).strip():
        return "the completion is empty"
    return None
