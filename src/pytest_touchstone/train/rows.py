"""From an exported row to the tokens that are trained: what the chat template makes of it, and what goes wrong on the way.

Pure: it is handed what renders and what makes tokens. Runs in the training process, so it needs nothing but Python.

Only the completion is trained. Prompt and completion become tokens one by one, because that is what the model will see: a prompt
that somebody else wrote, and then its own tokens. Nothing is ever cut.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

IGNORED: Final = -100  # the label of a token that is not trained; torch's cross entropy leaves it out
_PROBE: Final = '{"touchstone": "probe"}'
MAX_NAMED: Final = 10


class Render(Protocol):
    """The chat template: `tokenizer.apply_chat_template` with `tokenize=False`."""

    def __call__(self, messages: Sequence[Mapping[str, Any]], *, tools: Sequence[Any] | None, add_generation_prompt: bool) -> str:
        """The conversation as the model reads it."""
        ...


@dataclass(frozen=True, kw_only=True)
class Template:
    """What turns messages into tokens: the template, the tokenizer without special tokens of its own, and where answers end.

    `stops` are the tokens at which generation ends; `eos` is the one that is added where the template ends an answer without one.
    `objects`: the template wants the arguments of tool calls as objects, not as JSON text (`wants_objects`).
    """

    render: Render
    tokenize: Callable[[str], list[int]]
    stops: Collection[int]
    eos: int
    objects: bool = False


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """One prompt and one answer to it. `ended` says that the template did not end the answer, so `eos` was added."""

    prompt: tuple[int, ...]
    completion: tuple[int, ...]
    ended: bool = False

    def __len__(self) -> int:
        """How many tokens both have together."""
        return len(self.prompt) + len(self.completion)


class Unusable(ValueError):
    """A row cannot be trained under this template; says why and what to do."""


def wants_objects(render: Render) -> bool:
    """Whether a template needs the arguments of tool calls as objects: Qwen2.5's and Llama 3's quote a text once more, Qwen3.5's fails.

    Where it reads the text as it is, the text is better: it is exactly what was on the wire.
    """
    call = {"id": "c1", "type": "function", "function": {"name": "probe", "arguments": _PROBE}}
    messages: list[dict[str, Any]] = [{"role": "user", "content": "probe"}, {"role": "assistant", "content": "", "tool_calls": [call]}]
    try:
        return _PROBE not in render(messages, tools=None, add_generation_prompt=False)
    except Exception:  # noqa: BLE001 - a template may raise anything
        return True


def encode(row: Mapping[str, Any], answer: str, template: Template) -> Tokens:
    """The tokens of a row's prompt and of the messages in its column `answer`.

    Raises:
        Unusable: the template cannot show it, or what it shows is not prompt and then answer.
    """
    prompt, completion = (_messages(row[column], objects=template.objects) for column in ("prompt", answer))
    tools = _tools(row.get("tools"))
    try:
        before = template.render(prompt, tools=tools, add_generation_prompt=True)
        whole = template.render([*prompt, *completion], tools=tools, add_generation_prompt=False)
        bare = template.render(prompt, tools=None, add_generation_prompt=True) if tools else None
    except Exception as error:
        msg = f"the chat template refuses it: {str(error).strip() or type(error).__name__}; use another model, or give chat_template"
        raise Unusable(msg) from error
    if bare == before:
        msg = "has tools, and the chat template does not show them; use a model that knows tools, or give chat_template"
        raise Unusable(msg)
    if not whole.startswith(before):
        msg = "the chat template shows the prompt otherwise once it is answered, so the model would learn from what it never sees"
        msg += "; give a chat_template that does not"
        raise Unusable(msg)
    answered = template.tokenize(whole[len(before) :])
    return _ended(template.tokenize(before), answered, template)


def _ended(prompt: Sequence[int], answered: Sequence[int], template: Template) -> Tokens:
    stop = next((index for index in reversed(range(len(answered))) if answered[index] in template.stops), None)
    # What a template puts behind the end of an answer, such as a newline, is never generated, so it is not trained.
    kept = answered if stop is None else answered[: stop + 1]
    if not kept or (stop is not None and len(kept) == 1):
        msg = "the chat template shows nothing of the answer, so there is nothing to learn; use another model, or give chat_template"
        raise Unusable(msg)
    if any(token in template.stops for token in kept[:-1]):
        msg = "the answer holds the mark that ends it; correct the target"
        raise Unusable(msg)
    return Tokens(prompt=tuple(prompt), completion=tuple(kept if stop is not None else [*kept, template.eos]), ended=stop is None)


def _messages(messages: Iterable[Mapping[str, Any]], *, objects: bool) -> list[dict[str, Any]]:
    """Messages as templates expect them: without the export's anchor, and text where there is none."""
    shown: list[dict[str, Any]] = []
    for message in messages:
        kept = {name: value for name, value in message.items() if value is not None}
        kept.setdefault("content", "")
        if objects and "tool_calls" in kept:
            kept["tool_calls"] = [_with_object(call) for call in kept["tool_calls"]]
        shown.append(kept)
    return shown


def _with_object(call: Mapping[str, Any]) -> dict[str, Any]:
    function = call["function"]
    try:
        arguments = json.loads(function["arguments"])
    except ValueError:
        arguments = None
    if not isinstance(arguments, dict):
        msg = f"calls {function['name']!r} with arguments that are no JSON object, which this chat template needs; correct the target"
        raise Unusable(msg)
    return {**call, "function": {**function, "arguments": arguments}}


def _tools(value: object) -> list[Any] | None:
    parsed: Any = json.loads(value) if isinstance(value, str) else value
    if not isinstance(parsed, list) or not parsed:
        return None
    return cast("Any", parsed)


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """The rows that are trained, by their line, and what became of the others: each line is in one of the two."""

    rows: tuple[tuple[int, tuple[Tokens, ...]], ...]
    dropped: tuple[int, ...]
    problems: tuple[str, ...]
    longest: int
    ended: int


def prepare(
    rows: Sequence[tuple[int, Mapping[str, Any]]],
    *,
    answers: Sequence[str],
    template: Template,
    max_length: int,
    too_long: Literal["refuse", "drop"],
) -> Prepared:
    """The tokens of all rows, each with its line (from 1), for each of the columns `answers`; `longest` is in tokens, of what is kept."""
    kept: list[tuple[int, tuple[Tokens, ...]]] = []
    over: list[tuple[int, int]] = []
    problems: list[str] = []
    for number, row in rows:
        try:
            made = tuple(encode(row, answer, template) for answer in answers)
        except Unusable as error:
            problems.append(f"line {number}: {error}")
            continue
        length = max(map(len, made))
        if length > max_length:
            over.append((number, length))
        else:
            kept.append((number, made))
    if len(problems) > MAX_NAMED:
        problems[MAX_NAMED:] = [f"and {len(problems) - MAX_NAMED:,} more lines like these"]
    if over and too_long == "refuse":
        problems.append(_over(over, max_length))
    return Prepared(
        rows=tuple(kept),
        dropped=tuple(number for number, _ in over),
        problems=tuple(problems),
        longest=max((len(tokens) for _, made in kept for tokens in made), default=0),
        ended=sum(tokens.ended for _, made in kept for tokens in made),
    )


def _over(over: Sequence[tuple[int, int]], max_length: int) -> str:
    worst = max(length for _, length in over)
    lines = ", ".join(str(number) for number, _ in over[:MAX_NAMED]) + (" and more" if len(over) > MAX_NAMED else "")
    have = "1 example has" if len(over) == 1 else f"{len(over)} examples have"
    what = f"{have} more than max_length {max_length} tokens (line {lines}; the longest {worst})"
    return f"{what}; set max_length to {worst}, or too_long: drop to train without them"


def batch_problems(labels: Sequence[Sequence[int]], expected: Sequence[Tokens], stops: Collection[int]) -> list[str]:
    """What is wrong with a batch that is about to be trained: its labels, a row for each example, padded with -100 at either side.

    Each example has to train its whole completion, its end included, and nothing else.
    """
    problems: list[str] = []
    for row, (given, tokens) in enumerate(zip(labels, expected, strict=True), 1):
        trained = [label for label in given if label != IGNORED]
        if not trained:
            problems.append(f"example {row} of the first batch trains no token")
        elif trained[-1] not in stops:
            problems.append(f"example {row} of the first batch does not train the end of its answer")
        elif len(trained) > len(tokens.completion):
            problems.append(f"example {row} of the first batch trains {len(trained) - len(tokens.completion)} tokens beyond its answer")
        elif tuple(trained) != tokens.completion:
            problems.append(f"example {row} of the first batch trains other tokens than its answer")
    return problems
