"""The trial and its parts: what one attempt at one case said, asked, cost and scored."""

from __future__ import annotations

import asyncio
import collections.abc
import contextlib
import contextvars
import copy
import dataclasses
import functools
import hashlib
import inspect
import json
import math
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeGuard, TypeVar

from pytest_touchstone.errors import BudgetSpent, NetworkBlocked, RecordingMiss, ScorerError, TouchstoneError
from pytest_touchstone.settings import JudgeSettings, Split
from pytest_touchstone.text import visible

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping, Sequence

    from pydantic import JsonValue

    from pytest_touchstone.cases import Case

Outcome = Literal["passed", "failed", "error", "unscored", "not_run"]
Role = Literal["app", "judge", "teacher"]

DEFAULT_THRESHOLD = 0.5

# Raised inside a scorer, these wait until the other scorers have had their say; every other BaseException that is no Exception
# (Ctrl-C, a timeout, pytest.skip) stops the check at once.
_HELD_BACK = (Exception, RecordingMiss, NetworkBlocked, BudgetSpent)

_asking_as: contextvars.ContextVar[Role] = contextvars.ContextVar("touchstone_asking_as", default="app")


@contextlib.contextmanager
def asking_as(role: Role, *, exactly: bool = False) -> Generator[None]:
    """Attribute the model calls made inside the block to `role`, so that app, judges and teacher are told apart.

    Whatever a teacher causes is the teacher's, also what judges are asked about its answer: it is what a target costs, not the evaluation.
    `exactly` says that `role` is taken from elsewhere, and has nothing to do with who asks here.
    """
    token = _asking_as.set("teacher" if _asking_as.get() == "teacher" and not exactly else role)
    try:
        yield
    finally:
        _asking_as.reset(token)


def current_role() -> Role:
    """Who is asking right now: `app` unless inside `asking_as`."""
    return _asking_as.get()


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Tokens of one call as the provider reported them; None where it did not say.

    `input_tokens` counts everything that was read, cached parts included; `cached_tokens` is the part read from a cache.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None


@dataclass(frozen=True, kw_only=True)
class Call:
    """One model request seen on the wire.

    `messages` and `tools` are what was sent, in OpenAI chat shape (a system prompt is a `system` message); `answer` is the
    assistant message that came back, None where there was none. `latency_s` is in seconds, `cost_usd` in US dollars, None
    with `cost_reason` where the price or the tokens are not known. `replayed` calls took time and money when they were recorded, not now.
    `prompt_hash` is that of the system prompt in `messages`, and stays when the messages are left out. `host` is where the request went,
    with the port where the URL names one: `api.openai.com`, `127.0.0.1:8000`; "" where that is not known. `finish_reason` is why the
    answer ended, in the provider's word (`stop`, `length`, `max_tokens`), empty where it did not say.
    """

    role: Role = "app"
    provider: str
    model: str
    messages: tuple[Mapping[str, Any], ...] = ()
    tools: tuple[Mapping[str, Any], ...] = ()
    answer: Mapping[str, Any] | None = None
    usage: Usage = Usage()
    cost_usd: float | None = None
    cost_reason: str = ""
    latency_s: float | None = None
    status: int | None = None
    error: str | None = None
    replayed: bool = False
    prompt_hash: str = ""
    host: str = ""
    finish_reason: str = ""

    def __post_init__(self) -> None:
        """Hash the system prompt while it is here."""
        if self.messages and not self.prompt_hash:
            object.__setattr__(self, "prompt_hash", prompt_hash(self.messages))

    @property
    def text(self) -> str | None:
        """The text of the answer, None where it holds none."""
        content = None if self.answer is None else self.answer.get("content")
        return content if isinstance(content, str) else None


@dataclass(frozen=True, kw_only=True)
class Score:
    """What one scorer said of a trial.

    `value` is in [0, 1], or None when the trial could not be scored; `passed` is None exactly then.
    `judge` names the model and prompt that judged, None for a deterministic scorer.
    Scalars of numpy and torch are taken for the Python values they hold.

    Raises:
        ScorerError: the value is not a number from 0 to 1, `passed` is not a bool, or only one of the two is None.

    >>> Score(name="exact_match", value=1.0, passed=True)
    Score(name='exact_match', value=1.0, passed=True, reason='', judge=None)
    """

    name: str
    value: float | None
    passed: bool | None
    reason: str = ""
    judge: str | None = None

    def __post_init__(self) -> None:
        """Hold the invariants that reports and statistics build on."""
        value, passed = _plain_scalar(self.value), _plain_scalar(self.passed)
        if not isinstance(value, (int, float, type(None))) or not isinstance(passed, (bool, type(None))):
            msg = (
                f"score {self.name!r}: value is {value!r} and passed is {passed!r}; give a number from 0 to 1 and a bool, or None for both"
            )
            raise ScorerError(msg)
        # Plain built-in types only: a Score travels between processes.
        object.__setattr__(self, "value", None if value is None else float(value))
        object.__setattr__(self, "passed", passed)
        if (self.value is None) != (self.passed is None):
            msg = f"score {self.name!r}: value is {self.value} and passed is {self.passed}; an unscored trial has None for both"
            raise ScorerError(msg)
        if self.value is not None and not (math.isfinite(self.value) and 0 <= self.value <= 1):
            msg = f"score {self.name!r}: value is {self.value}; return a number from 0 to 1, or Score(value=None, passed=None, reason=...)"
            raise ScorerError(msg)

    @classmethod
    def unscored(cls, name: str, reason: str, *, judge: str | None = None) -> Score:
        """A score without a verdict; the reason says why there is none."""
        return cls(name=name, value=None, passed=None, reason=reason, judge=judge)


class CheckFailed(AssertionError):
    """At least one score of a `check` did not pass; `scores` holds all of that check's scores."""

    def __init__(self, message: str, scores: Sequence[Score] = ()) -> None:
        """Keep the scores beside the message."""
        self.scores = tuple(scores)
        super().__init__(message)


class Unscored(CheckFailed):
    """No score of a `check` failed, but at least one gave no usable verdict: not a pass."""


ScorerResult: TypeAlias = bool | float | Score
Scorer: TypeAlias = "Callable[[Trial], ScorerResult | Awaitable[ScorerResult]]"


def scorer_name(scorer: Scorer) -> str:
    """The name a scorer's scores carry: its `name`, or its function's or class' name."""
    target = _without_partials(scorer)
    for name in (getattr(scorer, "name", None), getattr(target, "name", None), getattr(target, "__name__", None)):
        if isinstance(name, str) and name:
            return name
    return type(target).__name__


def asks_model(scorer: Scorer) -> bool:
    """Whether the scorer says that it asks a model (attribute `asks_model`), or is async."""
    return bool(getattr(scorer, "asks_model", False) or getattr(_without_partials(scorer), "asks_model", False)) or is_async(scorer)


def is_async(scorer: Scorer) -> bool:
    """Whether calling the scorer gives a coroutine: an async function, a partial of one, or an object with an async `__call__`."""
    target = _without_partials(scorer)
    return inspect.iscoroutinefunction(target) or inspect.iscoroutinefunction(target.__class__.__call__)


def _without_partials(scorer: Scorer) -> Any:  # noqa: ANN401 - a callable of any kind
    target: Any = scorer
    while _is_partial(target):
        target = target.func
    return target


def _is_partial(value: object) -> TypeGuard[functools.partial[Any]]:
    return isinstance(value, functools.partial)


def _plain_scalar(value: object) -> object:
    """What a numpy or torch scalar holds; anything else as it is."""
    item = None if value is None or isinstance(value, (bool, int, str)) else getattr(value, "item", None)
    return item() if callable(item) else value


def as_score(scorer: Scorer, result: object) -> Score:
    """Turn what a scorer returned into a Score.

    True and False are 1 and 0; a number in [0, 1] passes from the scorer's `threshold` (0.5 unless it has one).

    Raises:
        ScorerError: the scorer returned something else.
    """
    name = scorer_name(scorer)
    if isinstance(result, Score):
        return result
    result = _plain_scalar(result)
    if isinstance(result, bool):
        return Score(name=name, value=float(result), passed=result)
    if isinstance(result, (int, float)):
        threshold = float(getattr(scorer, "threshold", getattr(_without_partials(scorer), "threshold", DEFAULT_THRESHOLD)))
        passed = result >= threshold
        # Shortened to six digits, a value just under the threshold would look equal to it.
        shown = f"{result:g}" if f"{result:g}" != f"{threshold:g}" else f"{result!r}"
        return Score(name=name, value=float(result), passed=passed, reason=f"{shown} {'>=' if passed else '<'} {threshold:g}")
    hint = ": did you forget the parentheses?" if callable(result) else ""
    msg = f"scorer {name!r} returned {type(result).__name__}{hint or '; return a bool, a number from 0 to 1, or a Score'}"
    raise ScorerError(msg)


class Trial:
    """One attempt at one case: what the `case` fixture hands to a test.

    The case's fields are copies that belong to this trial, so that a body that changes `case.input` changes nobody else's.
    Set `output`, then `check` it. Model calls made while scoring are the judges', never the app's.

    >>> from pytest_touchstone.cases import Case
    >>> trial = Trial(Case(id="greet", input="Say hi", expected="hi"))
    >>> trial.output = "hi"
    >>> trial.score(lambda trial: trial.output == trial.expected).passed
    True
    """

    def __init__(
        self,
        case: Case,
        *,
        number: int = 1,
        judge_settings: JudgeSettings | None = None,
        registry: Mapping[str, Scorer] | None = None,
        redact: Callable[[str], str] = str,
    ) -> None:
        """Start a trial; `number` counts the trials of one case from 1, `registry` holds the scorers that go by name.

        `redact` gives a text as it would be recorded, without its secrets.
        """
        self.case = case
        self.number = number
        self.judge_settings = judge_settings or JudgeSettings()
        self.registry = registry or {}
        self.redact = redact
        self.scores: list[Score] = []
        self.calls: list[Call] = []
        self.judge_calls: list[Call] = []
        self.teacher_calls: list[Call] = []
        self.misses: list[str] = []
        self.scorers: list[Scorer] = []
        self.has_output = False
        self._output: Any = None
        self._input: JsonValue = copy.deepcopy(case.input)
        self._expected: JsonValue = copy.deepcopy(case.expected)
        self._metadata: Mapping[str, JsonValue] = copy.deepcopy(case.metadata)
        # `scores` and `scorers` stay parallel even when threads of one body score side by side.
        self._recording = threading.Lock()

    @property
    def id(self) -> str:
        """The id of the case."""
        return self.case.id

    @property
    def input(self) -> Any:  # noqa: ANN401 - the shape is the golden file's
        """The input of the case: text, a list of messages, or an object."""
        return self._input

    @property
    def expected(self) -> Any:  # noqa: ANN401 - the shape is the golden file's
        """What a good output equals, None where the case does not say."""
        return self._expected

    @property
    def reference(self) -> str | None:
        """A good answer for a judge to compare with."""
        return self.case.reference

    @property
    def rubric(self) -> str | None:
        """What a judge is to look for in this case."""
        return self.case.rubric

    @property
    def tags(self) -> tuple[str, ...]:
        """The tags of the case."""
        return self.case.tags

    @property
    def metadata(self) -> Mapping[str, JsonValue]:
        """Whatever else the golden file says about the case."""
        return self._metadata

    @property
    def split(self) -> Split:
        """`train` or `holdout`."""
        return self.case.split

    @property
    def output(self) -> Any:  # noqa: ANN401 - whatever the app under test returns
        """What the app under test returned; None until set."""
        return self._output

    @output.setter
    def output(self, value: Any) -> None:  # noqa: ANN401 - as above
        self.has_output = True
        self._output = value

    def fresh(self, case: Case | None = None) -> Trial:
        """Another trial with the same settings and nothing done yet, of the same case or of `case`; what it does is not this one's."""
        return Trial(case or self.case, number=self.number, judge_settings=self.judge_settings, registry=self.registry, redact=self.redact)

    def add_call(self, call: Call) -> None:
        """Note a call seen on the wire; those of judges and teacher are kept apart."""
        {"app": self.calls, "judge": self.judge_calls, "teacher": self.teacher_calls}[call.role].append(call)

    def score(self, scorer: Scorer | str) -> Score:
        """Evaluate one scorer, record its score and return it, without raising when it did not pass.

        Raises:
            ScorerError: the output is not set, the scorer misbehaves, or it is async (use `acheck`).
        """
        __tracebackhide__ = True
        chosen = self._named([scorer])
        return self._record(chosen, _evaluate_all(self, chosen))[0]

    def check(self, *scorers: Scorer | str) -> None:
        """Evaluate every scorer, model-asking ones side by side, and record every score.

        A text names a scorer that a `pytest_llm_scorers` hook registered.

        Raises:
            CheckFailed: at least one score did not pass; the message lists all of them.
            Unscored: none failed, but at least one has no verdict.
            ScorerError: a scorer cannot work on this case, no scorer was given, or the output is not set.
        """
        __tracebackhide__ = True
        chosen = self._named(scorers)
        raise_unless_passed(self._record(chosen, _evaluate_all(self, chosen)))

    async def acheck(self, *scorers: Scorer | str) -> None:
        """As `check`, for async bodies: scorers that wait do not block the loop."""
        __tracebackhide__ = True
        chosen = self._named(scorers)
        raise_unless_passed(self._record(chosen, await _aevaluate_all(self, chosen)))

    def _named(self, scorers: Sequence[Scorer | str]) -> list[Scorer]:
        unknown = [name for name in scorers if isinstance(name, str) and name not in self.registry]
        if unknown:
            known = ", ".join(sorted(self.registry)) or "none"
            msg = f"no scorer is registered as {unknown[0]!r} (registered: {known}); return it from a pytest_llm_scorers hook"
            raise ScorerError(msg)
        return [self.registry[scorer] if isinstance(scorer, str) else scorer for scorer in scorers]

    def _record(self, scorers: Sequence[Scorer], results: Sequence[Score | BaseException]) -> list[Score]:
        scores = [
            result if isinstance(result, Score) else _score_of_error(scorer_name(scorer), result)
            for scorer, result in zip(scorers, results, strict=True)
        ]
        with self._recording:
            self.scorers.extend(scorers)
            self.scores.extend(scores)
        # What was refused explains more than the errors that may follow from it, so it goes first.
        for kinds in ((RecordingMiss, NetworkBlocked, BudgetSpent), TouchstoneError):
            for result in results:
                if isinstance(result, kinds):
                    raise result
        return scores


def _score_of_error(name: str, error: BaseException) -> Score:
    said = visible(f"{type(error).__name__}: {error}")
    place = _raised_at(error)
    if isinstance(error, AssertionError) and not isinstance(error, Unscored):
        return Score(name=name, value=0.0, passed=False, reason=f"{said}{place}")
    return Score.unscored(name, f"scorer raised {said}{place}")


def _raised_at(error: BaseException) -> str:
    """Where in the scorer: the frame that `_call` or an await entered, not the library that it called in turn."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [index for index, frame in enumerate(frames) if frame.filename == __file__]
    entered = frames[ours[-1] + 1 :] if ours else frames
    return f" ({visible(PurePath(entered[0].filename).name)}:{entered[0].lineno})" if entered else ""


def raise_unless_passed(scores: Sequence[Score]) -> None:
    """Raise one CheckFailed or Unscored that lists every score, unless all passed."""
    __tracebackhide__ = True
    if all(score.passed for score in scores):
        return
    failed = [score for score in scores if score.passed is False]
    unscored = [score for score in scores if score.passed is None]
    headline = f"{len(failed)} of {len(scores)} scores failed" if failed else f"{len(unscored)} of {len(scores)} scores have no verdict"
    lines = [headline, *(score_line(score) for score in scores)]
    raise (CheckFailed if failed else Unscored)("\n".join(lines), scores)


def score_line(score: Score) -> str:
    """One score: verdict, name, value and reason; further lines of the reason are indented, and nothing in it acts on a terminal."""
    verdict = {True: "passed", False: "failed", None: "unscored"}[score.passed]
    value = "" if score.value is None else f" {score.value:.2f}"
    reason = f": {score.reason}" if score.reason else ""
    return visible(f"{verdict} {score.name}{value}{reason}").replace("\n", "\n    ")


def _require(trial: Trial, scorers: Sequence[Scorer]) -> None:
    if not scorers:
        msg = f"case {trial.id!r}: check() got no scorer, so nothing would be checked; give it one, such as exact_match()"
        raise ScorerError(msg)
    for scorer in scorers:
        if not callable(scorer):
            msg = f"case {trial.id!r}: {type(scorer).__name__} is no scorer; give a callable `(trial) -> bool | float | Score`"
            raise ScorerError(msg)
    if not trial.has_output:
        msg = f"case {trial.id!r}: there is no output to score; set case.output before case.check(...)"
        raise ScorerError(msg)


def _in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _evaluate_all(trial: Trial, scorers: Sequence[Scorer]) -> list[Score | BaseException]:
    _require(trial, scorers)
    waiting = [index for index, scorer in enumerate(scorers) if asks_model(scorer)]
    if waiting and _in_event_loop():
        msg = f"scorer {scorer_name(scorers[waiting[0]])!r} waits for a model, and this body is async; use `await case.acheck(...)`"
        raise ScorerError(msg)
    if len(waiting) <= 1:
        return [_evaluate(trial, scorer) for scorer in scorers]
    pool = ThreadPoolExecutor(len(waiting), thread_name_prefix="touchstone-scorer")
    try:
        futures = {index: pool.submit(contextvars.copy_context().run, _evaluate, trial, scorers[index]) for index in waiting}
        at_once = {index: _evaluate(trial, scorer) for index, scorer in enumerate(scorers) if index not in futures}
        return [futures[index].result() if index in futures else at_once[index] for index in range(len(scorers))]
    finally:
        # Everything is done by now, unless something stops the run: then nobody waits for the judges.
        pool.shutdown(wait=False, cancel_futures=True)


def _evaluate(trial: Trial, scorer: Scorer) -> Score | BaseException:
    try:
        result = _call(scorer, trial)
        return as_score(scorer, _run_awaitable(scorer, result) if inspect.isawaitable(result) else result)
    except _HELD_BACK as error:
        return error


def _call(scorer: Scorer, trial: Trial) -> ScorerResult | Awaitable[ScorerResult]:
    with asking_as("judge"):
        return scorer(trial)


def _run_awaitable(scorer: Scorer, result: Awaitable[ScorerResult]) -> ScorerResult:
    if _in_event_loop():
        if inspect.iscoroutine(result):
            result.close()
        msg = f"scorer {scorer_name(scorer)!r} is async; use `await case.acheck(...)`"
        raise ScorerError(msg)
    return asyncio.run(_awaited(result))


async def _aevaluate_all(trial: Trial, scorers: Sequence[Scorer]) -> list[Score | BaseException]:
    _require(trial, scorers)
    if len(scorers) == 1:
        return [await _aevaluate(trial, scorers[0])]
    tasks = [asyncio.ensure_future(_aevaluate(trial, scorer)) for scorer in scorers]
    try:
        return await asyncio.gather(*tasks)
    finally:
        # gather leaves the others running when one is stopped.
        for task in tasks:
            task.cancel()


async def _aevaluate(trial: Trial, scorer: Scorer) -> Score | BaseException:
    try:
        if (ascore := getattr(scorer, "ascore", None)) is not None:
            result = ascore(trial)
        elif asks_model(scorer) and not is_async(scorer):
            result = await _call_in_thread(scorer, trial)
        else:
            result = _call(scorer, trial)
        return as_score(scorer, await _awaited(result) if inspect.isawaitable(result) else result)
    except _HELD_BACK as error:
        return error


async def _call_in_thread(scorer: Scorer, trial: Trial) -> ScorerResult | Awaitable[ScorerResult]:
    # A thread of its own: the loop's default pool is a handful of threads that every trial would share.
    pool = ThreadPoolExecutor(1, thread_name_prefix="touchstone-scorer")
    try:
        call = functools.partial(_call, scorer, trial)
        return await asyncio.get_running_loop().run_in_executor(pool, contextvars.copy_context().run, call)
    finally:
        pool.shutdown(wait=False)


async def _awaited(result: Awaitable[ScorerResult]) -> ScorerResult:
    with asking_as("judge"):
        return await result


_FREE = ("example", "uncorrected")


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """A finished trial as plain data: what reports, gates and stores see of it, in this process or another.

    `reason` says why the outcome is not `passed`. `duration_s` is the body's, in seconds. `example` is a training example
    that this trial offers, None with `example_reason` where it offers none; `uncorrected` is then what the list of cases that need a
    correction would say of it, None where it is not to be on it. `input_fingerprint` is that of the case's input in a run
    that exports, empty in others. `earlier_examples` are what earlier calls of the trial offer where more than the last one is trained on:
    mappings of `call` (from 1), `example` and `example_reason`. `quarantine` is the reason why the case is reported but not gated, empty
    where it is gated. `input` is the case's input, shortened to a line.
    """

    nodeid: str
    suite: str
    case_id: str
    source: str
    content_hash: str
    split: Split
    tags: tuple[str, ...] = ()
    must_pass: bool = False
    number: int = 1
    outcome: Outcome
    reason: str = ""
    output: str | None = None
    scores: tuple[Score, ...] = ()
    calls: tuple[Call, ...] = ()
    duration_s: float | None = None
    example: Mapping[str, Any] | None = None
    example_reason: str = ""
    uncorrected: Mapping[str, Any] | None = None
    input_fingerprint: str = ""
    quarantine: str = ""
    earlier_examples: tuple[Mapping[str, Any], ...] = ()
    input: str = ""

    def to_dict(self) -> dict[str, Any]:
        r"""Plain dicts, lists and scalars, safe to send to another process.

        What is free in shape (messages, tools, answers, the example) travels as JSON text. Lone surrogates, which no file or channel
        can hold, travel as escapes such as `\udc80`.
        """
        data = _flat(self, TrialRecord)
        data["tags"] = [_sendable(tag) for tag in self.tags]
        data["scores"] = [_flat(score, Score) for score in self.scores]
        data["calls"] = [_call_to_dict(call) for call in self.calls]
        data.update({name: _to_json(data[name]) for name in _FREE if data[name] is not None})
        data["earlier_examples"] = [_to_json(each) for each in self.earlier_examples]
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TrialRecord:
        """The inverse of `to_dict`."""
        scores = tuple(Score(**score) for score in data["scores"])
        calls = tuple(_call_from_dict(call) for call in data["calls"])
        free = {name: None if data.get(name) is None else json.loads(data[name]) for name in _FREE}
        plain = {"tags": tuple(data["tags"]), "scores": scores, "calls": calls}
        plain["earlier_examples"] = tuple(json.loads(each) for each in data["earlier_examples"])
        fields: dict[str, Any] = {**data, **plain, **free}
        return cls(**fields)


Record = TypeVar("Record", TrialRecord, Call)


def changed(record: Record, **fields: object) -> Record:
    """As `dataclasses.replace`, which costs many times as much, for records that hold whatever they are given; names are not checked.

    >>> call = Call(provider="openai", model="gpt-4o", answer={"role": "assistant", "content": "Hi."})
    >>> changed(call, answer=None) == Call(provider="openai", model="gpt-4o")
    True
    """
    copied = object.__new__(type(record))
    vars(copied).update(vars(record), **fields)
    return copied


def prompt_hash(messages: Iterable[Mapping[str, Any]]) -> str:
    """The sha256 (hex) of the system and developer messages, a line break between two; empty where there are none.

    >>> prompt_hash([{"role": "system", "content": "Be brief."}])[:12]
    '213c22ed7234'
    """
    contents = [message.get("content") for message in messages if message.get("role") in {"system", "developer"}]
    if not contents:
        return ""
    texts = (content if isinstance(content, str) else _to_json(content) for content in contents)
    return hashlib.sha256("\n".join(texts).encode("utf-8", "surrogatepass")).hexdigest()


def _call_to_dict(call: Call) -> dict[str, Any]:
    data = _flat(call, Call)
    data.update({name: _to_json(data[name]) for name in ("messages", "tools", "answer")})
    data["usage"] = _flat(call.usage, Usage)
    return data


def _call_from_dict(data: Mapping[str, Any]) -> Call:
    answer = json.loads(data["answer"])
    messages, tools = (tuple(json.loads(data[name]) or ()) for name in ("messages", "tools"))
    fields: dict[str, Any] = {**data, "messages": messages, "tools": tools, "answer": answer, "usage": Usage(**data["usage"])}
    return Call(**fields)


def _to_json(value: object) -> str:
    """ASCII JSON text, which keeps lone surrogates and numbers of any size; what JSON cannot say travels as text."""
    if value is None or (isinstance(value, tuple) and not value):  # of most calls there is no more
        return "null" if value is None else "[]"
    try:
        return json.dumps(value, default=_json_default)
    except (RecursionError, ValueError):  # nested too deeply, or in itself
        return "null"


def _json_default(value: object) -> object:
    return dict(value) if _is_mapping(value) else str(value)


def _is_mapping(value: object) -> TypeGuard[Mapping[Any, Any]]:
    return isinstance(value, collections.abc.Mapping)


def _flat(record: TrialRecord | Score | Call | Usage, kind: type) -> dict[str, Any]:
    """The fields by name, texts as they can be sent; `dataclasses.asdict` would copy what is in the fields too."""
    values = vars(record)
    return {name: _sendable(value) if isinstance(value := values[name], str) else value for name in _names(kind)}


@functools.cache
def _names(kind: Any) -> tuple[str, ...]:  # noqa: ANN401 - a dataclass
    return tuple(field.name for field in dataclasses.fields(kind))


def _sendable(text: str) -> str:
    # Subclasses (a StrEnum, a str that carries marks) would not pass a channel that knows built-in types only.
    return text if type(text) is str and text.isascii() else text.encode("utf-8", "backslashreplace").decode()
