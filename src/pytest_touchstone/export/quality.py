"""The quality of a training set: what to look at before a model learns it. Pure: examples in, findings out; nothing is changed."""

from __future__ import annotations

import dataclasses
import json
import re
import statistics
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from pytest_touchstone.export.example import text_of
from pytest_touchstone.export.leak import normal_text
from pytest_touchstone.export.personal import RULES
from pytest_touchstone.recording.redact import REDACTED
from pytest_touchstone.text import counted, listed, quote

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from pytest_touchstone.export.example import Example
    from pytest_touchstone.export.personal import PersonalFinder

    Row = Mapping[str, Any]
    CountTokens = Callable[[Example], tuple[int, int]]

NO_TOKENIZER: Final = "no tokenizer was given"
SMALL: Final = 500  # examples; below, what is learned is often the set itself
THIN: Final = 10  # examples of a tag
MOST: Final = 0.8
FEW: Final = 0.2
ENOUGH: Final = 10  # fixes, to say anything about what they have in common
NAMED: Final = 5

# Why an answer ended, in the words of the providers: it reached the limit of its length.
CUT: Final = frozenset({"length", "max_tokens", "max_output_tokens", "model_context_window_exceeded"})
_ENDS: Final = tuple(".!?\u2026:;)]}\"'`*\u201d\u2019\u00bb\u3002\uff01\uff1f\u0964")
_OPEN_END: Final = re.compile(r"(?:[,(\[{\u2013\u2014-]|\b(?:and|or|but|the|a|an|of|to|in|with|for|because|that|which))\s*$", re.IGNORECASE)
_PROSE_WORDS: Final = 8


@dataclass(frozen=True, kw_only=True)
class Lengths:
    """How long things are, in tokens or characters: the shortest, the middle one, the 95th percentile and the longest."""

    shortest: int
    median: int
    p95: int
    longest: int

    @classmethod
    def of(cls, values: Sequence[int]) -> Lengths:
        """Of at least one value; percentiles are values that occur (nearest rank)."""
        ordered = sorted(values)
        rank = -(-95 * len(ordered) // 100) - 1
        return cls(shortest=ordered[0], median=statistics.median_low(ordered), p95=ordered[rank], longest=ordered[-1])


@dataclass(frozen=True, kw_only=True)
class Quality:
    """What was found in a training set; every number in a list is that of a line of `train.jsonl`, from 1.

    `characters` and `tokens` measure the `prompt`, the `completion` and the whole `example`; `tokens` is None with `tokens_reason` where no
    tokenizer was given or it could not be used. `tags` counts, for each tag, its examples by kind. `duplicates` are lines of one prompt
    and one target, but for case and white space; `contradictions` lines of one prompt and several targets. `empty` and `truncated`
    are lines with the reason. `redacted` are lines in which a secret was replaced; `personal_data` lines by kind, for each kind that
    `personal_by` looks for; `personal_unknown` are kinds that were not looked for, with the reason, and `personal_unread` lines at which it
    failed, so that only rules looked there. `advice` is in plain words, the weightiest first.
    """

    examples: int
    by_kind: Mapping[str, int]
    characters: Mapping[str, Lengths] | None
    tokens: Mapping[str, Lengths] | None
    tokens_reason: str
    tags: Mapping[str, Mapping[str, int]]
    duplicates: tuple[tuple[int, ...], ...]
    contradictions: tuple[tuple[int, ...], ...]
    empty: Mapping[int, str]
    truncated: Mapping[int, str]
    redacted: tuple[int, ...]
    personal_data: Mapping[str, tuple[int, ...]]
    personal_by: str
    personal_unknown: Mapping[str, str]
    personal_unread: tuple[int, ...]
    advice: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, lists and scalars; the keys of `empty` and `truncated` become texts in JSON."""
        return dataclasses.asdict(self)


def assess(
    examples: Sequence[Example],
    *,
    count_tokens: CountTokens | None = None,
    tokens_reason: str = NO_TOKENIZER,
    finder: PersonalFinder = RULES,
) -> Quality:
    """What is to be said of these examples, which stand in the order of the file's lines.

    `count_tokens` gives the tokens of an example's prompt and of the whole example under the chat template of the model to train; `finder`
    looks for personal data.
    """
    lines = list(enumerate(examples, 1))
    groups: defaultdict[str, defaultdict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for line, example in lines:
        groups[_normal(example.prompt, example.tools)][_normal(example.completion)].append(line)
    characters = [(_size(example.prompt) + _size(example.tools), _size(example.completion)) for example in examples]
    tokens, tokens_reason = _tokens(examples, count_tokens, tokens_reason)
    found, unread = _personal(lines, finder)
    quality = Quality(
        examples=len(examples),
        by_kind=dict(sorted(Counter(example.kind for example in examples).items())),
        characters=_lengths([(prompt, prompt + completion) for prompt, completion in characters]),
        tokens=tokens,
        tokens_reason=tokens_reason,
        tags=_tags(examples),
        duplicates=tuple(tuple(same) for targets in groups.values() for same in targets.values() if len(same) > 1),
        contradictions=tuple(
            tuple(sorted(line for same in targets.values() for line in same)) for targets in groups.values() if len(targets) > 1
        ),
        empty={line: "says nothing: no letter and no digit" for line, example in lines if _says_nothing(example)},
        truncated=_truncated(lines),
        redacted=tuple(line for line, example in lines if any(REDACTED in text for text in _texts(example))),
        personal_data={kind: tuple(line for line, kinds in found.items() if kind in kinds) for kind in finder.kinds},
        personal_by=finder.by,
        personal_unknown=dict(finder.unknown),
        personal_unread=unread,
        advice=(),
    )
    return dataclasses.replace(quality, advice=tuple(_advice(quality, finder.fault)))


def _normal(*values: object) -> str:
    return normal_text(json.dumps(values, ensure_ascii=False, sort_keys=True))


def _size(messages: Sequence[Row]) -> int:
    return sum(len(text) for message in messages for text in _strings(message))


def _texts(example: Example) -> Iterator[str]:
    for message in (*example.prompt, *example.completion, *example.tools, *example.rejected):
        yield from _strings(message)


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, part in cast("Mapping[str, object]", value).items():
            if name not in {"role", "type"}:
                yield from _strings(part)
    elif isinstance(value, (list, tuple)):
        for part in cast("Sequence[object]", value):
            yield from _strings(part)


def _personal(lines: Sequence[tuple[int, Example]], finder: PersonalFinder) -> tuple[dict[int, set[str]], tuple[int, ...]]:
    """The kinds that each line holds, and the lines that the finder failed at."""
    read: dict[str, tuple[str, ...]] = {}  # a system prompt stands in every example, and a model takes its time over each
    failed: set[str] = set()
    found: dict[int, set[str]] = {}
    unread: list[int] = []
    for line, example in lines:
        texts = set(_texts(example))
        for text in texts - read.keys():
            try:
                read[text] = finder.find(text)
            except Exception:  # noqa: BLE001 - a model is a program of somebody else's; what it says may quote the text, so it is not told
                read[text] = RULES.find(text)
                failed.add(text)
        found[line] = {kind for text in texts for kind in read[text]}
        if texts & failed:
            unread.append(line)
    return found, tuple(unread)


def _lengths(sizes: Sequence[tuple[int, int]]) -> dict[str, Lengths] | None:
    """Of pairs (prompt, whole example)."""
    if not sizes:
        return None
    columns = {
        "prompt": [one for one, _ in sizes],
        "completion": [both - one for one, both in sizes],
        "example": [both for _, both in sizes],
    }
    return {name: Lengths.of(values) for name, values in columns.items()}


def _tokens(examples: Sequence[Example], count: CountTokens | None, reason: str) -> tuple[dict[str, Lengths] | None, str]:
    if count is None:
        return None, reason
    try:
        return _lengths([count(example) for example in examples]), ""
    except Exception as error:  # noqa: BLE001 - a template is a program of somebody else's
        return None, f"the chat template cannot be applied: {type(error).__name__}: {error}"


def _tags(examples: Sequence[Example]) -> dict[str, dict[str, int]]:
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for example in examples:
        for tag in dict.fromkeys(example.tags):
            counts[tag][example.kind] += 1
    return {tag: dict(sorted(counts[tag].items())) for tag in sorted(counts)}


def _target(example: Example) -> str:
    return "\n".join(text_of(message.get("content")) for message in example.completion)


def _arguments(example: Example) -> Iterator[str]:
    for message in example.completion:
        for call in message.get("tool_calls") or ():
            function: object = call.get("function")
            arguments = cast("Mapping[str, object]", function).get("arguments") if isinstance(function, Mapping) else None
            if isinstance(arguments, str):
                yield arguments


def _says_nothing(example: Example) -> bool:
    if any(message.get("tool_calls") for message in example.completion):
        return False
    return not any(character.isalnum() for character in _target(example))


def _truncated(lines: Sequence[tuple[int, Example]]) -> dict[int, str]:
    targets = {line: _target(example).rstrip() for line, example in lines}
    prose = [text for text in targets.values() if _is_prose(text)]
    # Where most of a set's sentences end in a full stop, one that does not was cut; where they do not, that is their style.
    is_closed = len(prose) >= ENOUGH and sum(text.endswith(_ENDS) for text in prose) >= MOST * len(prose)
    found: dict[int, str] = {}
    for line, example in lines:
        why = _cut(example, targets[line], is_closed=is_closed)
        if why:
            found[line] = why
    return found


def _is_prose(text: str) -> bool:
    return len(text.split()) >= _PROSE_WORDS and not text.lstrip().startswith(("{", "["))


def _cut(example: Example, text: str, *, is_closed: bool) -> str:
    if example.finish_reason in CUT:
        return f"the provider ended it at the limit of its length ({example.finish_reason})"
    if any(_is_open_json(part) for part in (text, *_arguments(example))):
        return "JSON that does not close"
    if text.count("```") % 2:
        return "a code block that does not close"
    if _is_prose(text) and (_OPEN_END.search(text) or (is_closed and not text.endswith(_ENDS))):
        return "stops in the middle of a sentence"
    return ""


def _is_open_json(text: str) -> bool:
    """Whether the text starts as a JSON object or list, and ends before that does."""
    text = text.strip()
    if not text.startswith(("{", '["', "[{", "[[")):
        return False
    depth, in_text, escaped = 0, False, False
    for character in text:
        if in_text:
            in_text = escaped or character != '"'
            escaped = character == "\\" and not escaped
        elif character == '"':
            in_text = True
        else:
            depth += (character in "{[") - (character in "}]")
            if depth == 0:
                return False
    return True


def _advice(quality: Quality, fault: str) -> Iterator[str]:
    if not quality.examples:
        return
    if fault:
        yield f"personal data was looked for by rules alone: {fault}"
    yield from _about_targets(quality)
    fixes, replays = quality.by_kind.get("fix", 0), quality.by_kind.get("replay", 0)
    if fixes and not replays:
        yield "only failures: a model that sees nothing that it got right forgets it; let passing cases in (--llm-replay)"
    yield from _about_prompts(quality.tags, fixes, replays)
    if quality.examples < SMALL:
        yield (
            f"{counted(quality.examples, 'example')} is a small set, under {SMALL}: expect a narrow gain, watch for forgetting, "
            "and see whether a better prompt does as much"
        )
    thin = [tag for tag, kinds in quality.tags.items() if sum(kinds.values()) < THIN]
    if thin:
        yield f"fewer than {THIN} examples of {listed([quote(tag, 40) for tag in thin], NAMED)}: hardly enough to learn from"


def _about_targets(quality: Quality) -> Iterator[str]:
    if quality.contradictions:
        yield (
            f"{counted(len(quality.contradictions), 'prompt')} with more than one target ({_lines(quality.contradictions)}): "
            "the model cannot learn both; correct the cases, or have them sent what tells them apart"
        )
    if quality.empty:
        yield f"{counted(len(quality.empty), 'target')} without a letter or digit ({_lines([quality.empty])}): correct `expected`"
    if quality.truncated:
        yield (
            f"{counted(len(quality.truncated), 'target')} cut off, as it looks ({_lines([quality.truncated])}): "
            "the model would learn to stop there; raise the app's limit of tokens, or correct the cases"
        )
    if quality.duplicates:
        yield f"{counted(len(quality.duplicates), 'example')} said more than once ({_lines(quality.duplicates)}): it weighs as often"
    personal = {kind: lines for kind, lines in quality.personal_data.items() if lines}
    if personal:
        kinds = ", ".join(f"{kind} in {counted(len(lines), 'example')}" for kind, lines in personal.items())
        yield f"what looks like personal data: {kinds}; a model may repeat it word for word"
    if quality.personal_unread:
        yield (
            f"personal data was looked for by rules alone in {counted(len(quality.personal_unread), 'example')} "
            f"({_lines([quality.personal_unread])}), where {quality.personal_by} failed"
        )
    if quality.redacted:
        yield f"a secret was replaced in {counted(len(quality.redacted), 'example')}; the model would learn to say {REDACTED}"


def _about_prompts(tags: Mapping[str, Mapping[str, int]], fixes: int, replays: int) -> Iterator[str]:
    """Where one instruction would mend most of it: nearly everything fails, or nearly all of one tag and little else."""
    if fixes < ENOUGH:
        return
    if fixes >= MOST * (fixes + replays) and replays:
        yield "nearly everything fails: that is seldom what a model lacks and often what it is asked; try a better prompt first"
        return
    for tag, kinds in tags.items():
        failed, passed = kinds.get("fix", 0), kinds.get("replay", 0)
        others = (fixes - failed, replays - passed)
        if failed >= MOST * fixes and failed >= MOST * (failed + passed) and others[0] <= FEW * max(1, sum(others)):
            yield f"nearly all failures are of {quote(tag, 40)}, and nearly all of that fails: one line in the prompt may be cheaper"
            return


def _lines(groups: Iterable[Iterable[int]]) -> str:
    names = [str(line) for group in groups for line in group]
    return f"line{'' if len(names) == 1 else 's'} {listed(names, NAMED)}"
