"""The teacher: a stronger model that is asked what the app asked, where the app's answer failed and nobody has said what is right.

What it answers is held to what the app's answer was held to, the judges included, and becomes a target only where it passes all of it.
"""

from __future__ import annotations

import ast
import functools
import json
import linecache
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, cast

from pytest_touchstone import trial as trials
from pytest_touchstone.errors import BudgetSpent, ModelError, NetworkBlocked, RecordingMiss
from pytest_touchstone.export.answer import is_answer
from pytest_touchstone.export.example import Lesson, text_of
from pytest_touchstone.export.select import answered_call
from pytest_touchstone.judging.asking import Clock, apursue, course, pursue
from pytest_touchstone.judging.verdict import Unusable
from pytest_touchstone.models.client import Ask
from pytest_touchstone.models.registry import open_model
from pytest_touchstone.trial import CheckFailed, asking_as, scorer_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType

    from pydantic import JsonValue

    from pytest_touchstone.export.example import Example
    from pytest_touchstone.models.client import Answer, ModelClient
    from pytest_touchstone.settings import TeacherSettings
    from pytest_touchstone.trial import Scorer, Trial

MAX_SAID: Final = 200
CHECKS: Final = frozenset({"check", "acheck", "score"})
# What stops a teacher, or what judges its answer, and is no business of the trial.
_STOPS: Final = (Exception, RecordingMiss, NetworkBlocked, BudgetSpent)
_TEXT_PARTS: Final = frozenset({"text", "input_text", "output_text"})


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """Asks one model for targets; `settings.model` is set."""

    settings: TeacherSettings
    clock: Clock = field(default_factory=Clock)

    def teach(self, trial: Trial, error: BaseException | None, unanswered: Example, *, module: str) -> Lesson:
        """Ask for the answer to a failed train case, and check it.

        `error` is what ended the test's body, in the file `module`; `unanswered` the example that lacks the answer. Model calls made
        here, those of judges too, are the teacher's. Nothing but Ctrl-C and its like is raised.
        """
        question = self._question(trial, error, unanswered, module)
        if isinstance(question, Lesson):
            return question
        with asking_as("teacher"):
            try:
                pupil = self._pupil(trial, question, pursue(question.client, question.course(self), self.clock))
            except _STOPS as problem:
                return self._not_answered(problem)
            if isinstance(pupil, Lesson):
                return pupil
            try:
                pupil.check(*question.scorers)
            except _STOPS as problem:
                return self._not_passed(problem)
        return self._passed(pupil, question)

    async def ateach(self, trial: Trial, error: BaseException | None, unanswered: Example, *, module: str) -> Lesson:
        """As `teach`, without blocking the event loop."""
        question = self._question(trial, error, unanswered, module)
        if isinstance(question, Lesson):
            return question
        with asking_as("teacher"):
            try:
                pupil = self._pupil(trial, question, await apursue(question.client, question.course(self), self.clock))
            except _STOPS as problem:
                return self._not_answered(problem)
            if isinstance(pupil, Lesson):
                return pupil
            try:
                await pupil.acheck(*question.scorers)
            except _STOPS as problem:
                return self._not_passed(problem)
        return self._passed(pupil, question)

    def stopped(self, problem: BaseException) -> Lesson:
        """The lesson that something else ended."""
        return Lesson(outcome="no answer", reason=_short(f"{self._name} was stopped: {type(problem).__name__}: {problem}"))

    @property
    def _name(self) -> str:
        return f"the teacher {self.settings.model}"

    def _question(self, trial: Trial, error: BaseException | None, unanswered: Example, module: str) -> _Question | Lesson:
        problem = why_not_checkable(trial, error, module) or why_not_asked(unanswered)
        if problem is not None:
            return Lesson(outcome="not asked", reason=f"{self._name} was not asked: {problem}")
        assert self.settings.model is not None
        return _Question(
            client=open_model(self.settings.model, base_url=self.settings.base_url),
            ask=Ask(
                system="",
                messages=tuple(map(_plain_message, unanswered.prompt)),
                tools=unanswered.tools,
                max_tokens=self.settings.max_tokens,
                timeout_s=self.settings.timeout_s,
            ),
            scorers=_scorers(trial),
        )

    def _pupil(self, trial: Trial, question: _Question, said: Answer | Unusable) -> _Pupil | Lesson:
        """A fresh trial with the answer as the app would have handed it over, or why there is none."""
        problem = said.reason if isinstance(said, Unusable) else _why_unusable(said, question.ask.max_tokens)
        if problem is not None or isinstance(said, Unusable):
            return Lesson(outcome="no answer", reason=f"{self._name} {problem}")
        call = answered_call(trial)
        failed = (
            text_of((call.answer or {}).get("content")) if call is not None else trial.output if isinstance(trial.output, str) else None
        )
        if failed is not None and failed.strip() == said.text.strip():
            return Lesson(outcome="did not pass", reason=f"{self._name} gave the answer that failed")
        try:
            output = _as_output(trial, said.text)
        except ValueError:
            kind = type(trial.output).__name__
            return Lesson(outcome="did not pass", reason=f"{self._name} gave no JSON, and the app's output is of type {kind}")
        fresh = trial.fresh()
        fresh.output = output
        for each in trial.calls:
            answer: Mapping[str, Any] = {"role": "assistant", "content": said.text}
            fresh.add_call(replace(each, answer=answer) if each is call else each)
        return _Pupil(trial=fresh, text=said.text)

    def _not_answered(self, problem: BaseException) -> Lesson:
        if isinstance(problem, RecordingMiss):
            reason = f"{self._name} was not asked: no recording holds its answer, and recordings are only replayed"
        elif isinstance(problem, (BudgetSpent, ModelError)):
            reason = f"{self._name} was not asked: {problem}"
        else:
            reason = f"{self._name} gave no answer: {type(problem).__name__}: {problem}"
        return Lesson(outcome="no answer", reason=reason)

    def _not_passed(self, problem: BaseException) -> Lesson:
        if isinstance(problem, CheckFailed):
            failed = next(score for score in problem.scores if not score.passed)
            word = "does not pass" if failed.passed is False else "has no verdict of"
            said = f"{word} {failed.name}" + (f": {failed.reason}" if failed.reason else "")
        elif isinstance(problem, RecordingMiss):
            said = "was not checked: no recording holds what a judge says of it, and recordings are only replayed"
        else:
            said = f"was not checked: {type(problem).__name__}: {problem}"
        reason = _short(f"the answer of {self._name} {said}")
        return Lesson(outcome="did not pass" if isinstance(problem, CheckFailed) else "no answer", reason=reason)

    def _passed(self, pupil: _Pupil, question: _Question) -> Lesson:
        return Lesson(outcome="passed", text=pupil.text, checks=tuple(dict.fromkeys(map(scorer_name, question.scorers))))


@dataclass(frozen=True, kw_only=True)
class _Pupil:
    """The trial of a teacher's answer."""

    trial: Trial
    text: str

    def check(self, *scorers: Scorer) -> None:
        self.trial.check(*scorers)

    async def acheck(self, *scorers: Scorer) -> None:
        await self.trial.acheck(*scorers)


@dataclass(frozen=True, kw_only=True)
class _Question:
    client: ModelClient
    ask: Ask
    scorers: tuple[Scorer, ...]

    def course(self, teacher: Teacher) -> Any:  # noqa: ANN401 - a Course of Answer
        """Whatever the model says is taken for its answer: asking again until it passes would be picking."""
        return course(self.ask, lambda answer: answer, attempts=max(teacher.settings.attempts, 1), monotonic=teacher.clock.monotonic)


def why_not_checkable(trial: Trial, error: BaseException | None, module: str) -> str | None:
    """Why another answer could not be held to what this trial was held to, None where it could.

    What a test asserts in its body, and whatever it would have checked after the check that failed, cannot be run on another answer; nor
    is it known what the app would have made of one, unless its output is the model's answer as it stands.
    """
    if not isinstance(error, CheckFailed):
        return "the test failed by something other than case.check(...), which cannot be run on another answer"
    if checks_more(error.__traceback__, module):
        return "the test checks more after what failed; give all scorers to one case.check(...)"
    call = answered_call(trial)
    is_plain = isinstance(trial.output, (str, dict, list, int, float))
    if call is not None and not (is_plain and is_answer(trial.output, text_of((call.answer or {}).get("content")), exactly=True)):
        return "the app's output is not its model's answer as it stands, so it is not known what it would make of another"
    if call is None and not is_plain:
        return f"the app's output is of type {type(trial.output).__name__}, which an answer cannot be turned into"
    return None


def why_not_asked(example: Example) -> str | None:
    """Why the prompt of an example cannot be put to another model, None where it can."""
    for index, message in enumerate(example.prompt):
        problem = _problem_of(message)
        if problem is not None:
            return f"prompt[{index}] {problem}"
    for tool in example.tools:
        function = tool.get("function")
        if not isinstance(function, Mapping) or not isinstance(cast("Mapping[str, object]", function).get("name"), str):
            return f"the prompt offers a tool of type {tool.get('type')!r}, which only its own provider knows"
    return None


def checks_more(traceback: TracebackType | None, module: str) -> bool:
    """Whether the test, in the file `module`, would have checked or asserted more, had the check that failed not ended it.

    True as well where that is not known.
    """
    began = False
    while traceback is not None:
        code = traceback.tb_frame.f_code
        if began and code.co_filename == trials.__file__:
            return False
        began = began or code.co_filename == module
        if began:
            function = _function(code.co_filename, code.co_firstlineno, code.co_name)
            if function is None or any(map(_checks, _later(function.body, traceback.tb_lineno))):
                return True
        traceback = traceback.tb_next
    return True


def _function(filename: str, line: int, name: str) -> ast.FunctionDef | ast.AsyncFunctionDef | None:
    try:
        tree = _parsed("".join(linecache.getlines(filename)))
    except (SyntaxError, ValueError, RecursionError):
        return None
    functions = (node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name == name)
    return next((node for node in functions if line in {node.lineno, *(decorator.lineno for decorator in node.decorator_list)}), None)


@functools.lru_cache(maxsize=16)
def _parsed(source: str) -> ast.Module:
    return ast.parse(source)


def _later(body: Sequence[ast.stmt], line: int) -> Iterator[ast.AST]:
    """The statements that may run after the one on `line`: those below it, not those of other branches, and those of loops around it."""
    for number, statement in enumerate(body):
        if not statement.lineno <= line <= (statement.end_lineno or 0):
            continue
        yield from body[number + 1 :]
        if isinstance(statement, (ast.For, ast.AsyncFor, ast.While)):
            yield statement
        for inner in (statement, *getattr(statement, "handlers", ()), *getattr(statement, "cases", ())):
            for name in ("body", "orelse"):
                yield from _later(getattr(inner, name, ()), line)
        yield from getattr(statement, "finalbody", ())
        return


def _checks(node: ast.AST) -> bool:
    return any(
        isinstance(each, ast.Assert) or (isinstance(each, ast.Call) and isinstance(each.func, ast.Attribute) and each.func.attr in CHECKS)
        for each in ast.walk(node)
    )


def _scorers(trial: Trial) -> tuple[Scorer, ...]:
    return tuple({id(scorer): scorer for scorer in trial.scorers}.values())


def _as_output(trial: Trial, text: str) -> JsonValue:
    """The text as the app hands an answer over.

    Raises:
        ValueError: the app's output is a JSON value, and the text is none.
    """
    if isinstance(trial.output, str):
        return text if trial.output != trial.output.strip() else text.strip()
    try:
        return cast("JsonValue", json.loads(text))
    except RecursionError as error:
        raise ValueError from error


def _why_unusable(answer: Answer, max_tokens: int) -> str | None:
    if answer.stop == "length":
        return f"was cut off at {max_tokens:,} tokens"
    if answer.stop == "content_filter":
        return "was stopped by the provider's content filter"
    if answer.stop == "refusal":
        return _short(f"refused: {answer.detail or answer.text}" if answer.detail or answer.text else "refused")
    if answer.calls_tools:
        return "called tools, and what the app would make of that is not known"
    if answer.stop != "end":
        return "did not end its answer"
    return None if answer.text.strip() else "answered with nothing"


def _problem_of(message: Mapping[str, Any]) -> str | None:
    content: object = message.get("content")
    for part in cast("Sequence[Mapping[str, object]]", content) if isinstance(content, (list, tuple)) else ():
        if part.get("type") not in _TEXT_PARTS or not isinstance(part.get("text"), str):
            return f"holds a part of type {part.get('type')!r}, and only text can be asked"
    if message["role"] == "tool" and not isinstance(message.get("tool_call_id"), str):
        return "is the result of a tool call that it does not name"
    for call in message.get("tool_calls") or ():
        function: Any = call.get("function")
        try:
            usable = (
                isinstance(call["id"], str) and isinstance(function["name"], str) and isinstance(json.loads(function["arguments"]), dict)
            )
        except (KeyError, TypeError, ValueError, RecursionError):
            usable = False
        if not usable:
            return "calls a tool without an id, a name, or arguments that are a JSON object"
    return None


def _plain_message(message: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: message[name] for name in ("name", "tool_call_id", "tool_calls") if message.get(name)}
    content = message.get("content")
    return {"role": message["role"], "content": None if content is None else text_of(content), **kept}


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MAX_SAID else f"{line[: MAX_SAID - 3]}..."
