"""The trial and its parts: what one attempt at one case said, asked, cost and scored."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import copy
import dataclasses
import inspect
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from pytest_touchstone.errors import CheckFailed, ScorerError, TouchstoneError, Unscored
from pytest_touchstone.settings import JudgeSettings, Split

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence

    from pydantic import JsonValue

    from pytest_touchstone.cases import Case

Outcome = Literal["passed", "failed", "error", "unscored", "not_run"]
Role = Literal["app", "judge"]

DEFAULT_THRESHOLD = 0.5

_asking_as: contextvars.ContextVar[Role] = contextvars.ContextVar("touchstone_asking_as", default="app")


@contextlib.contextmanager
def asking_as(role: Role) -> Iterator[None]:
    """Attribute the model calls made inside the block to `role`, so that judges and the app are told apart."""
    token = _asking_as.set(role)
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

    Raises:
        ScorerError: the value is outside [0, 1], or only one of `value` and `passed` is None.

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


ScorerResult: TypeAlias = bool | float | Score
Scorer: TypeAlias = "Callable[[Trial], ScorerResult | Awaitable[ScorerResult]]"


def scorer_name(scorer: Scorer) -> str:
    """The name a scorer's scores carry: its `name`, or its function's or class' name."""
    name = getattr(scorer, "name", None) or getattr(scorer, "__name__", None)
    return name if isinstance(name, str) else type(scorer).__name__


def asks_model(scorer: Scorer) -> bool:
    """Whether the scorer says that it asks a model (attribute `asks_model`), or is a coroutine function."""
    return bool(getattr(scorer, "asks_model", False)) or inspect.iscoroutinefunction(scorer)


def as_score(scorer: Scorer, result: object) -> Score:
    """Turn what a scorer returned into a Score.

    True and False are 1 and 0; a number in [0, 1] passes from the scorer's `threshold` (0.5 unless it has one).

    Raises:
        ScorerError: the scorer returned something else.
    """
    name = scorer_name(scorer)
    if isinstance(result, Score):
        return result
    if isinstance(result, bool):
        return Score(name=name, value=float(result), passed=result)
    if isinstance(result, (int, float)):
        threshold = float(getattr(scorer, "threshold", DEFAULT_THRESHOLD))
        passed = result >= threshold
        return Score(name=name, value=float(result), passed=passed, reason=f"{result:g} {'>=' if passed else '<'} {threshold:g}")
    msg = f"scorer {name!r} returned {type(result).__name__}; return a bool, a number from 0 to 1, or a Score"
    raise ScorerError(msg)


class Trial:
    """One attempt at one case: what the `case` fixture hands to a test.

    The case's fields are read-only copies, so that a body that changes `case.input` changes nobody else's.
    Set `output`, then `check` it.

    >>> from pytest_touchstone.cases import Case
    >>> trial = Trial(Case(id="greet", input="Say hi", expected="hi"))
    >>> trial.output = "hi"
    >>> trial.score(lambda trial: trial.output == trial.expected).passed
    True
    """

    def __init__(self, case: Case, *, number: int = 1, judge_settings: JudgeSettings | None = None) -> None:
        """Start a trial; `number` counts the trials of one case from 1."""
        self.case = case
        self.number = number
        self.judge_settings = judge_settings or JudgeSettings()
        self.scores: list[Score] = []
        self.calls: list[Call] = []
        self.judge_calls: list[Call] = []
        self.misses: list[str] = []
        self.scorers: list[Scorer] = []
        self.has_output = False
        self._output: Any = None
        self._input: JsonValue = copy.deepcopy(case.input)
        self._expected: JsonValue = copy.deepcopy(case.expected)

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
        return copy.deepcopy(self.case.metadata)

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

    def add_call(self, call: Call) -> None:
        """Note a call seen on the wire; judges' calls are kept apart."""
        (self.judge_calls if call.role == "judge" else self.calls).append(call)

    def score(self, scorer: Scorer) -> Score:
        """Evaluate one scorer, record its score and return it, without raising when it did not pass.

        Raises:
            ScorerError: the output is not set, the scorer misbehaves, or it is async (use `acheck`).
        """
        __tracebackhide__ = True
        return self._record([scorer], _evaluate_all(self, [scorer]))[0]

    def check(self, *scorers: Scorer) -> None:
        """Evaluate every scorer, model-asking ones side by side, and record every score.

        Raises:
            CheckFailed: at least one score did not pass; the message lists all of them.
            Unscored: none failed, but at least one has no verdict.
            ScorerError: a scorer cannot work on this case, or the output is not set.
        """
        __tracebackhide__ = True
        raise_unless_passed(self._record(scorers, _evaluate_all(self, scorers)))

    async def acheck(self, *scorers: Scorer) -> None:
        """As `check`, for async bodies: scorers that wait do not block the loop."""
        __tracebackhide__ = True
        raise_unless_passed(self._record(scorers, await _aevaluate_all(self, scorers)))

    def _record(self, scorers: Sequence[Scorer], results: Sequence[Score | BaseException]) -> list[Score]:
        scores = [
            result if isinstance(result, Score) else Score.unscored(scorer_name(scorer), f"scorer raised {type(result).__name__}: {result}")
            for scorer, result in zip(scorers, results, strict=True)
        ]
        self.scorers.extend(scorers)
        self.scores.extend(scores)
        for result in results:
            if isinstance(result, TouchstoneError) or (isinstance(result, BaseException) and not isinstance(result, Exception)):
                raise result
        return scores


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
    """One score on one line: verdict, name, value and reason."""
    verdict = {True: "passed", False: "failed", None: "unscored"}[score.passed]
    value = "" if score.value is None else f" {score.value:.2f}"
    return f"{verdict} {score.name}{value}" + (f": {score.reason}" if score.reason else "")


def _require_output(trial: Trial) -> None:
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
    _require_output(trial)
    waiting = [scorer for scorer in scorers if asks_model(scorer)]
    if waiting and _in_event_loop():
        msg = f"scorer {scorer_name(waiting[0])!r} waits for a model, and this body is async; use `await case.acheck(...)`"
        raise ScorerError(msg)
    if len(waiting) <= 1:
        return [_evaluate(trial, scorer) for scorer in scorers]
    with ThreadPoolExecutor(len(waiting), thread_name_prefix="touchstone-scorer") as pool:
        futures = {id(scorer): pool.submit(contextvars.copy_context().run, _evaluate, trial, scorer) for scorer in waiting}
        return [futures[id(scorer)].result() if id(scorer) in futures else _evaluate(trial, scorer) for scorer in scorers]


def _evaluate(trial: Trial, scorer: Scorer) -> Score | BaseException:
    try:
        result = scorer(trial)
        return as_score(scorer, _run_awaitable(scorer, result) if inspect.isawaitable(result) else result)
    except BaseException as error:  # noqa: BLE001 - the other scorers still count; _record raises what must be raised
        return error


def _run_awaitable(scorer: Scorer, result: Awaitable[ScorerResult]) -> ScorerResult:
    if _in_event_loop():
        if inspect.iscoroutine(result):
            result.close()
        msg = f"scorer {scorer_name(scorer)!r} is async; use `await case.acheck(...)`"
        raise ScorerError(msg)
    return asyncio.run(_awaited(result))


async def _aevaluate_all(trial: Trial, scorers: Sequence[Scorer]) -> list[Score | BaseException]:
    _require_output(trial)
    return await asyncio.gather(*(_aevaluate(trial, scorer) for scorer in scorers))


async def _aevaluate(trial: Trial, scorer: Scorer) -> Score | BaseException:
    try:
        if (ascore := getattr(scorer, "ascore", None)) is not None:
            result = await ascore(trial)
        elif asks_model(scorer) and not inspect.iscoroutinefunction(scorer):
            result = await asyncio.to_thread(scorer, trial)
        else:
            result = scorer(trial)
        if inspect.isawaitable(result):
            result = await result
        return as_score(scorer, result)
    except asyncio.CancelledError:
        raise
    except BaseException as error:  # noqa: BLE001 - as in _evaluate
        return error


async def _awaited(result: Awaitable[ScorerResult]) -> ScorerResult:
    return await result


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """A finished trial as plain data: what reports, gates and stores see of it, in this process or another.

    `reason` says why the outcome is not `passed`. `duration_s` is the body's, in seconds. `example` is a training example
    that this trial offers, None with `example_reason` where it offers none.
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

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, lists and scalars, safe to send to another process."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TrialRecord:
        """The inverse of `to_dict`."""
        scores = tuple(Score(**score) for score in data["scores"])
        calls = tuple(Call(**{**call, "usage": Usage(**call["usage"])}) for call in data["calls"])
        return cls(**{**data, "tags": tuple(data["tags"]), "scores": scores, "calls": calls})
