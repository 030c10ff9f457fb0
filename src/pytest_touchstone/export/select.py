"""Which example a trial offers for training: a failed case with a verified target, or a passing case to replay."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import json
from typing import TYPE_CHECKING, Any, Final, cast

from pytest_touchstone.cases import canonical_json
from pytest_touchstone.export.answer import is_answer, missing_fields, only_field
from pytest_touchstone.export.example import Example, LeftOut, plain, problem_of, text_of
from pytest_touchstone.export.leak import input_fingerprint, input_text
from pytest_touchstone.text import listed
from pytest_touchstone.trial import Trial, as_score, asks_model, scorer_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic import JsonValue

    from pytest_touchstone.export.example import Kind, Lesson, TargetSource
    from pytest_touchstone.settings import ExportCall
    from pytest_touchstone.trial import Call, Outcome, Scorer

MAX_REASON: Final = 300
_NO_TARGET: Final = "no verified target"
_ONLY_THE_LAST: Final = "the trial failed, and only its last answer has a target"
_NOT_THE_ANSWER: Final = (
    "not the model's answer: the app's output is not what its model answered, so it is not known what the model should say; "
    "make that answer the output, and let a scorer look for the part that matters"
)
_NO_OFFER: Final = {
    "error": "error: the app or a provider broke",
    "unscored": "unscored: a judge gave no usable verdict, so it is not known whether the case failed",
    "not_run": "not run",
}


def offers_of(
    trial: Trial, outcome: Outcome, *, suite: str, call: ExportCall = "last", correction: JsonValue = None, lesson: Lesson | None = None
) -> tuple[Example | LeftOut, ...]:
    """What a finished trial offers for training: one example or reason, and with `call="all"` one for each of its answered calls.

    `last` takes the last answered call and `first` the first. A target is what the app should have answered in the end, so only the last
    call has one: with `first`, a failed trial of several calls offers nothing, and with `all` its earlier calls do not. A trial that
    passed vouches for all its calls, as what led to an answer that is good. `correction` and `lesson` are as in `example_of`.
    """
    last = example_of(trial, outcome, suite=suite, correction=correction, lesson=lesson)
    answered = answered_calls(trial)
    if call == "last" or len(answered) < 2 or trial.split == "holdout" or outcome not in {"passed", "failed"} or trial.case.quarantine:
        return (last,)
    earlier = answered[:1] if call == "first" else answered[:-1]
    if outcome == "failed":
        offers: list[Example | LeftOut] = [LeftOut(reason=f"earlier call: {_ONLY_THE_LAST}") for _ in earlier]
    else:
        replayed = [(number, each, _replayed(trial, each)) for number, each in enumerate(earlier, 1)]
        offers = [
            completion if isinstance(completion, LeftOut) else _example(trial, each, completion, suite=suite, number=number)
            for number, each, completion in replayed
        ]
    return tuple(offers) if call == "first" else (*offers, last)


def example_of(
    trial: Trial, outcome: Outcome, *, suite: str, correction: JsonValue = None, lesson: Lesson | None = None
) -> Example | LeftOut:
    """The training example that a finished trial offers, of its last call, or why it offers none.

    A failed trial offers a `fix`: its target is an accepted `correction`, else the case's `expected` (text as it is, anything else as JSON
    on one line, laid out as the model's own JSON answer was), else `reference`, the first of them that passes every deterministic scorer
    that the trial was checked with. No judge is asked about these: a person stands behind each. Else it is what a teacher answered, if
    the `lesson` came to a good end. The output that failed is never a target. A passed trial offers a `replay` of what the model answered.

    Targets are outputs. Where the app's output is the only field of the model's JSON answer, the target is put into that field; where it
    is anything else that the model did not answer, nothing is offered.

    The prompt is that of the last model call that was answered, else the case's input. A last answer that calls tools is no
    place for a text target (it would teach the model not to call them), so such a failed trial offers nothing.
    The verdict on a case in quarantine is not trusted, so its trials offer nothing.
    The scorers run once more, so call this where a run of them is not recorded as part of the trial.
    """
    if trial.split == "holdout":
        return LeftOut(reason="holdout")
    if outcome not in {"passed", "failed"}:
        return LeftOut(reason=_NO_OFFER[outcome])
    if trial.case.quarantine is not None:
        return LeftOut(reason=_brief(f"quarantined as flaky: {trial.case.quarantine.reason}"))
    call = answered_call(trial)
    if call is None and any(call.messages for call in trial.calls):
        return LeftOut(reason="no answered call: the app called a model, but no call was answered")
    completion = _replayed(trial, call) if outcome == "passed" else _fixed(trial, call, correction, lesson)
    if not isinstance(completion, LeftOut):
        return _example(trial, call, completion, suite=suite, number=len(answered_calls(trial)) or None)
    is_open = completion.category == _NO_TARGET
    return dataclasses.replace(completion, unanswered=_unanswered(trial, call, suite=suite)) if is_open else completion


def answered_calls(trial: Trial) -> list[Call]:
    """The chat calls of a trial that were answered, in their order; a place in this list, from 1, is an example's `call`."""
    return [call for call in trial.calls if call.messages and call.answer is not None and call.error is None and (call.status or 200) < 400]


def answered_call(trial: Trial) -> Call | None:
    """The last call that was answered, which targets are of; None where there was none."""
    return next(reversed(answered_calls(trial)), None)


def _unanswered(trial: Trial, call: Call | None, *, suite: str) -> Example | None:
    """The example that a right answer would complete, None where none could; its completion is the output that failed."""
    number = len(answered_calls(trial)) or None
    asked = _example(trial, call, _Completion({"role": "assistant", "content": "?"}, "output"), suite=suite, number=number)
    if isinstance(asked, LeftOut):
        return None
    output = _json_text(trial.output, {})
    failed = repr(trial.output) if output is None and trial.has_output else output or ""
    return dataclasses.replace(asked, completion=({"role": "assistant", "content": failed},), kind="fix")


class _Completion:
    """The message to learn, where it comes from, and the checks that it passed."""

    def __init__(self, message: Mapping[str, Any], source: TargetSource, checks: Sequence[str] = ()) -> None:
        self.message = message
        self.source: TargetSource = source
        self.checks = tuple(checks)


def _example(trial: Trial, call: Call | None, completion: _Completion, *, suite: str, number: int | None) -> Example | LeftOut:
    case = trial.case
    kind: Kind = "replay" if completion.source in {"wire", "output"} else "fix"
    prompt = _input_messages(case.input) if call is None else call.messages
    try:
        example = Example(
            prompt=tuple(plain(list(prompt))),
            completion=(plain(completion.message),),
            tools=() if call is None else tuple(plain(list(call.tools))),
            rejected=_failed_answer(trial, call) if kind == "fix" else (),
            case_id=case.id,
            content_hash=case.content_hash,
            input_fingerprint=input_fingerprint(case.input),
            input_text=input_text(case.input),
            suite=suite,
            source=case.source,
            kind=kind,
            tags=case.tags,
            trial=trial.number,
            call=number,
            target_source=completion.source,
            checks=completion.checks,
            finish_reason=call.finish_reason if call is not None and completion.source == "wire" else "",
        )
    except (TypeError, ValueError, RecursionError) as error:
        return LeftOut(reason=_brief(f"not exportable: what was sent is not JSON: {error}"))
    problem = problem_of(example)
    return example if problem is None else LeftOut(reason=_brief(f"not exportable: {problem}"))


def _input_messages(value: JsonValue) -> list[Mapping[str, Any]]:
    if isinstance(value, list):
        return cast("list[Mapping[str, Any]]", value)
    return [{"role": "user", "content": value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}]


def _failed_answer(trial: Trial, call: Call | None) -> tuple[dict[str, Any], ...]:
    """What the model answered, as a message, else the output; none where neither is a text, as that of a call of tools."""
    answer = _json_text(trial.output, _json_style("")) if call is None else text_of((call.answer or {}).get("content"))
    return ({"role": "assistant", "content": answer},) if answer and answer.strip() else ()


def _replayed(trial: Trial, call: Call | None) -> _Completion | LeftOut:
    if call is not None:
        return _Completion({"role": "assistant", **(call.answer or {})}, "wire")
    text = _json_text(trial.output, {})
    if text is None:
        return LeftOut(reason=f"no text to learn: no model call was seen, and the output is {type(trial.output).__name__}")
    return _Completion({"role": "assistant", "content": text}, "output")


def _json_text(value: object, style: Mapping[str, Any]) -> str | None:
    if value is None or isinstance(value, str):
        return value
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, **style)
    except (TypeError, ValueError, RecursionError):
        return None


def _fixed(trial: Trial, call: Call | None, correction: JsonValue, lesson: Lesson | None) -> _Completion | LeftOut:
    if call is not None and call.answer is not None and call.answer.get("tool_calls"):
        return LeftOut(reason="tool calls: the last answer calls tools, and a text target would teach the model not to call them")
    targets: list[tuple[TargetSource, JsonValue]] = [
        ("correction", correction),
        ("expected", trial.case.expected),
        ("reference", trial.case.reference),
    ]
    answer = "" if call is None or call.answer is None else text_of(call.answer.get("content"))
    field = None
    if call is not None and trial.has_output and not is_answer(trial.output, answer):
        field = only_field(trial.output, answer)
        if field is None:
            return LeftOut(reason=_NOT_THE_ANSWER)
    style = _json_style(answer)
    problems: list[str] = []
    for source, value in targets:
        text = _json_text(value, style)
        content = text if field is None else _json_text({field: value}, style)
        if value is None or text is None or content is None:
            continue
        verified = _verified(trial, source, value, text, answer)
        if not isinstance(verified, str):
            return _Completion({"role": "assistant", "content": content}, source, verified)
        problems.append(verified)
    if lesson is not None and lesson.text is not None:
        return _Completion({"role": "assistant", "content": lesson.text}, "teacher", lesson.checks)
    problems = problems or ["the case has neither expected nor reference"]
    reason = "; ".join([*problems, *([] if lesson is None else [lesson.reason])])
    return LeftOut(reason=_brief(f"{_NO_TARGET}: {reason}"))


def _json_style(answer: str) -> dict[str, Any]:
    """The layout that reproduces a JSON answer, so that fixes and replays teach one layout; compact where there is none."""
    styles: list[dict[str, Any]] = [{"separators": (",", ":")}, {}, {"indent": 2}, {"indent": 4}]
    try:
        parsed = json.loads(answer)
    except (ValueError, RecursionError):
        return styles[0]
    return next((style for style in styles if _json_text(parsed, style) == answer.strip()), styles[0])


def _verified(trial: Trial, source: TargetSource, value: JsonValue, text: str, answer: str) -> list[str] | str:
    """The deterministic checks that a target passed as the app's output, or why it cannot be one."""
    if not text.strip():
        return f"{source} is empty"
    if text.strip() == answer.strip() or _same(trial.output, value, text):
        return f"{source} is the output that failed"
    scorers = [scorer for scorer in {id(scorer): scorer for scorer in trial.scorers}.values() if not asks_model(scorer)]
    checks: list[str] = []
    if scorers:
        try:
            output = _as_output(trial, value, text)
        except ValueError as error:
            return f"{source} cannot be checked: {error}"
        for scorer in scorers:
            problem = _check(trial, scorer, output)
            if problem:
                return f"{source} does not pass {scorer_name(scorer)}: {problem}"
            checks += [scorer_name(scorer)] if problem is not None else []
        missing = _unnoticed(trial, scorers, output if isinstance(output, dict) else value, answer)
        if missing:
            return f"{source} lacks what else the model answers, and the checks would not notice: {listed(missing, 5)}"
    return checks


def _unnoticed(trial: Trial, scorers: Sequence[Scorer], target: JsonValue, answer: str) -> list[str]:
    """The fields that the model answers and a target lacks, if the scorers pass both with and without them: it is no whole answer then."""
    if not isinstance(target, dict):
        return []
    missing = missing_fields(target, answer)
    if not missing:
        return []
    whole: JsonValue = missing | target
    output = _as_output(trial, whole, _json_text(whole, _json_style(answer)) or "")
    return [] if any(_check(trial, scorer, output) for scorer in scorers) else list(missing)


def _same(output: object, value: JsonValue, text: str) -> bool:
    if isinstance(output, str):
        return output.strip() == text.strip()
    try:
        return output is not None and canonical_json(cast("JsonValue", output)) == canonical_json(value)
    except (TypeError, ValueError, RecursionError):
        return False


def _as_output(trial: Trial, value: JsonValue, text: str) -> JsonValue:
    """The target in the shape in which the app hands its output to the scorers."""
    output: object = trial.output
    if output is None or isinstance(output, str):
        return text
    if not isinstance(output, (dict, list, int, float)):
        msg = f"the app's output is of type {type(trial.output).__name__}, which a target cannot be turned into"
        raise ValueError(msg)  # noqa: TRY004 - one kind of refusal for the caller
    if not isinstance(value, str):
        return value
    try:
        return cast("JsonValue", json.loads(value))
    except (ValueError, RecursionError):
        msg = f"the app's output is of type {type(trial.output).__name__}, and the target is not JSON"
        raise ValueError(msg) from None


def _check(trial: Trial, scorer: Scorer, output: JsonValue) -> str | None:
    """An empty text where the target passes, why it does not pass, or None for a scorer that turns out to be async."""
    fresh = trial.fresh()
    fresh.output = copy.deepcopy(output)
    try:
        result = scorer(fresh)
        if inspect.isawaitable(result):
            _discard(result)
            return None
        score = as_score(scorer, result)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # noqa: BLE001 - a missing recording and pytest's own failures are no ordinary exceptions
        return f"it raised {type(error).__name__}: {error}"
    return "" if score.passed else score.reason or "no reason given"


def _discard(awaitable: object) -> None:
    end = getattr(awaitable, "close", None) or getattr(awaitable, "cancel", None)
    if callable(end):
        end()


def _brief(reason: str) -> str:
    line = " ".join(reason.split())
    return line if len(line) <= MAX_REASON else line[: MAX_REASON - 3] + "..."
