"""The judge with a rubric: a scorer that asks a model."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from pytest_touchstone.errors import JudgeError, ModelError, ScorerError
from pytest_touchstone.judging.asking import Clock, apursue, course, pursue
from pytest_touchstone.judging.prompt import NotPlain, PromptTooLong, data_prompt, identity, system_prompt
from pytest_touchstone.judging.verdict import Grading, Scale, Unusable, Verdict
from pytest_touchstone.models.client import Ask
from pytest_touchstone.models.registry import open_model, split_spec
from pytest_touchstone.trial import Score, asking_as

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from pytest_touchstone.judging.asking import Course
    from pytest_touchstone.models.client import ModelClient
    from pytest_touchstone.settings import JudgeSettings
    from pytest_touchstone.trial import Trial

MAX_VOTES = 25


@dataclass(frozen=True, kw_only=True)
class Judge:
    """A scorer that asks a model whether the output meets a rubric; `judge` makes one and documents the fields.

    Calling it blocks; `ascore` does not. Either gives a Score whose `judge` is `provider:model#` and a hash of the wording.
    """

    asks_model: ClassVar[bool] = True

    rubric: str | None = None
    model: str | None = None
    reference: str | bool | None = None
    scale: Scale = "binary"
    threshold: float | None = None
    votes: int = 1
    name: str = "judge"
    base_url: str | None = field(default=None, repr=False)  # may hold a password
    instructions: str | None = None
    max_tokens: int = 4096
    clock: Clock = field(default_factory=Clock, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuse what could never give a score."""
        grading = Grading(scale=self.scale, threshold=self.threshold)
        object.__setattr__(self, "threshold", grading.threshold)
        if self.rubric is not None and not _is_filled(self.rubric):
            msg = f"judge rubric is {self.rubric!r}; say what to look for, or leave it out to use the case's own"
            raise ScorerError(msg)
        if type(self.votes) is not int or not 1 <= self.votes <= MAX_VOTES or self.votes % 2 == 0:
            msg = f"judge votes is {self.votes!r}; give an odd number from 1 to {MAX_VOTES}, so that a majority decides"
            raise ScorerError(msg)
        if type(self.max_tokens) is not int or self.max_tokens < 1:
            msg = f"judge max_tokens is {self.max_tokens!r}; give a whole number from 1"
            raise ScorerError(msg)

    def __call__(self, trial: Trial) -> Score:
        """Score the trial's output, asking all votes side by side.

        Raises:
            JudgeError: the judge cannot be asked before something is set up.
            ScorerError: there is no rubric, no reference although one is required, or the output has no certain form as JSON.
        """
        question = self._question(trial)
        if isinstance(question, Score):
            return question
        with _explained(question.client):
            if self.votes == 1:
                return self._score(question, [self._vote(question)])
            with ThreadPoolExecutor(self.votes, thread_name_prefix="touchstone-vote") as pool:
                pending = [pool.submit(contextvars.copy_context().run, self._vote, question) for _ in range(self.votes)]
                return self._score(question, [future.result() for future in pending])

    async def ascore(self, trial: Trial) -> Score:
        """As a call, without blocking the event loop."""
        question = self._question(trial)
        if isinstance(question, Score):
            return question
        with _explained(question.client):
            # Every vote is awaited before the first error is raised, so that none goes on alone.
            votes = await asyncio.gather(*(self._avote(question) for _ in range(self.votes)), return_exceptions=True)
            for vote in votes:
                if isinstance(vote, BaseException):
                    raise vote
            return self._score(question, [vote for vote in votes if not isinstance(vote, BaseException)])

    def _vote(self, question: _Question) -> Verdict | Unusable:
        with asking_as("judge"):
            return pursue(question.client, self._course(question), self.clock)

    async def _avote(self, question: _Question) -> Verdict | Unusable:
        with asking_as("judge"):
            return await apursue(question.client, self._course(question), self.clock)

    def _course(self, question: _Question) -> Course[Verdict]:
        read = partial(self._grading.read, max_tokens=self.max_tokens)
        return course(question.ask, read, attempts=question.attempts, monotonic=self.clock.monotonic)

    def _score(self, question: _Question, votes: Sequence[Verdict | Unusable]) -> Score:
        said = self._grading.settle(votes)
        if isinstance(said, Unusable):
            return Score.unscored(self.name, f"judge {question.client.spec} {said.reason}", judge=question.judge)
        return Score(name=self.name, value=said.value, passed=said.passed, reason=said.reason, judge=question.judge)

    @property
    def _grading(self) -> Grading:
        return Grading(scale=self.scale, threshold=self.threshold)

    def _question(self, trial: Trial) -> _Question | Score:
        settings = trial.judge_settings
        spec = self._spec(settings)
        rubric = self._rubric(trial)
        judge = identity(spec, rubric, self.scale, self.instructions)
        try:
            data = data_prompt(trial.redact, **self._data(trial))
        except PromptTooLong as error:
            return Score.unscored(self.name, f"judge {spec} was not asked: {error}", judge=judge)
        except NotPlain as error:
            msg = f"{_place(trial)}: {error}"
            raise ScorerError(msg) from None
        ask = Ask(
            system=system_prompt(rubric, self.scale, self.instructions),
            messages=({"role": "user", "content": data},),
            schema=self._grading.schema,
            schema_name="verdict",
            max_tokens=self.max_tokens,
            timeout_s=settings.timeout_s,
        )
        client = open_model(spec, base_url=self._base_url(spec, settings))
        return _Question(client=client, ask=ask, attempts=max(settings.attempts, 1), judge=judge)

    def _spec(self, settings: JudgeSettings) -> str:
        spec = self.model or settings.model
        if not spec:
            msg = (
                "no judge is configured; use --llm-judge openai:MODEL, set llm_judge = openai:MODEL in the ini file, "
                'or write judge(model="openai:MODEL") (anthropic:MODEL works as well)'
            )
            raise JudgeError(msg)
        try:
            split_spec(spec)
        except ModelError as error:
            msg = f"judge: {error}"
            raise JudgeError(msg) from None
        return spec

    def _base_url(self, spec: str, settings: JudgeSettings) -> str | None:
        """The configured server speaks one provider's format, so a judge of the other provider does not go there."""
        same = settings.model is None or settings.model.partition(":")[0] == split_spec(spec)[0]
        return self.base_url or (settings.base_url if same else None)

    def _rubric(self, trial: Trial) -> str:
        rubric = self.rubric or (trial.rubric or "").strip()
        if not rubric:
            msg = f'{_place(trial)} has no rubric; add one, or write judge("...")'
            raise ScorerError(msg)
        return rubric

    def _data(self, trial: Trial) -> dict[str, object]:
        data: dict[str, object] = {"input": trial.input}
        reference = self._reference(trial)
        if reference is not None:
            data["reference"] = reference
        return {**data, "output": trial.output}

    def _reference(self, trial: Trial) -> object:
        if isinstance(self.reference, str):
            return self.reference
        if self.reference is False:
            return None
        reference = trial.expected if trial.reference is None else trial.reference
        if reference is None and self.reference is True:
            msg = f"{_place(trial)} has neither a reference nor an expected output to show the judge; add one, or leave reference=True out"
            raise ScorerError(msg)
        return reference


def judge(
    rubric: str | None = None,
    *,
    model: str | None = None,
    reference: str | bool | None = None,
    scale: Scale = "binary",
    threshold: float | None = None,
    votes: int = 1,
    name: str = "judge",
    base_url: str | None = None,
    instructions: str | None = None,
    max_tokens: int = 4096,
) -> Judge:
    """A scorer that asks a model whether the output meets a rubric.

    Args:
        rubric: What to look for. Given, it is the one used; left out, the case's own rubric is.
        model: `openai:MODEL` or `anthropic:MODEL`; left out, the configured judge (`--llm-judge`, ini `llm_judge`).
        reference: A good answer to show to the judge. Left out, it is the case's `reference`, else its `expected`, else none; True demands
            one of them, False shows none, a text is shown as it is.
        scale: `"binary"` (pass or fail: 1 or 0), or the lowest and highest grade as in `(1, 5)`: the value is then
            `(grade - low) / (high - low)`.
        threshold: The grade from which an output passes, `low < threshold <= high`. Left out, the lowest grade that is worth 0.75 or more:
            4 on `(1, 5)`, 8 on `(1, 10)`.
        votes: How many times to ask, an odd number from 1 to 25. More than half of all votes must agree on passing or failing; the value is
            the majority's, or the median of the grades.
        name: What the score is called.
        base_url: A server that speaks the provider's format; left out, the configured one. A server of your own needs no key.
        instructions: Further instructions to the judge, added to the rubric, such as the language of its reasons.
        max_tokens: Bounds one answer, thinking included.

    An answer that is no verdict (refused, cut off, filtered, not the JSON asked for) and a server that fails are asked again, within the
    configured attempts and time; then the trial is unscored, with the reason, and never a pass. An input, reference or output of more than
    200,000 characters is unscored too: nothing is cut off.

    Raises:
        ScorerError: an argument is out of range.

    >>> judge("Polite.", scale=(1, 5)).threshold
    4
    """
    return Judge(
        rubric=rubric,
        model=model,
        reference=reference,
        scale=scale,
        threshold=threshold,
        votes=votes,
        name=name,
        base_url=base_url,
        instructions=instructions,
        max_tokens=max_tokens,
    )


@dataclass(frozen=True, kw_only=True)
class _Question:
    """What every vote asks, and whom."""

    client: ModelClient
    ask: Ask
    attempts: int
    judge: str


@contextlib.contextmanager
def _explained(client: ModelClient) -> Generator[None]:
    """What stops a model from being asked stops the judge, by name."""
    try:
        yield
    except ModelError as error:
        msg = f"judge {client.spec}: {error}"
        raise JudgeError(msg) from None


def _is_filled(text: object) -> bool:
    return isinstance(text, str) and bool(text.strip())


def _place(trial: Trial) -> str:
    return f"case {trial.id!r} ({trial.case.source})"
