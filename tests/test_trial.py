from __future__ import annotations

import asyncio
import contextvars
import dataclasses
import enum
import functools
import hashlib
import json
import threading
import types

import execnet
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scoring_samples import any_text, json_values, trial_of

from pytest_touchstone.cases import Case
from pytest_touchstone.errors import JudgeError, NetworkBlocked, RecordingMiss, ScorerError
from pytest_touchstone.settings import JudgeSettings
from pytest_touchstone.trial import (
    Call,
    CheckFailed,
    Score,
    Trial,
    TrialRecord,
    Unscored,
    Usage,
    as_score,
    asking_as,
    asks_model,
    current_role,
    is_async,
    prompt_hash,
    score_line,
    scorer_name,
)


def yes(trial):
    return True


def no(trial):
    return False


def model(function):
    function.asks_model = True
    return function


class Judge:
    name = "judge"
    asks_model = True

    def __init__(self, result=1.0):
        self.result = result

    def __call__(self, trial):
        return self.result


class Lazy:
    """Does not show what it calls."""

    def __init__(self, function):
        self.function = function

    def __call__(self, trial):
        return self.function(trial)


class Scalar(float):
    """As numpy's: a subclass of float that holds a plain value."""

    def item(self):
        return float(self)


class TrueScalar:
    """As numpy's: true, but no bool."""

    def item(self):
        return True


def raising(error):
    def scorer(trial):
        raise error

    return scorer


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"value": 0.5, "passed": None}, "score 's': value is 0.5 and passed is None; an unscored trial has None for both"),
        ({"value": None, "passed": False}, "score 's': value is None and passed is False; an unscored trial has None for both"),
        (
            {"value": 1.5, "passed": True},
            "score 's': value is 1.5; return a number from 0 to 1, or Score(value=None, passed=None, reason=...)",
        ),
        (
            {"value": float("nan"), "passed": True},
            "score 's': value is nan; return a number from 0 to 1, or Score(value=None, passed=None, reason=...)",
        ),
        (
            {"value": "1", "passed": True},
            "score 's': value is '1' and passed is True; give a number from 0 to 1 and a bool, or None for both",
        ),
        ({"value": 1, "passed": "no"}, "score 's': value is 1 and passed is 'no'; give a number from 0 to 1 and a bool, or None for both"),
    ],
)
def test_a_score_holds_its_invariants(fields, message):
    with pytest.raises(ScorerError) as caught:
        Score(name="s", **fields)
    assert str(caught.value) == message


def test_a_score_holds_plain_types():
    score = Score(name="s", value=Scalar(0.25), passed=TrueScalar())
    assert (type(score.value), type(score.passed)) == (float, bool)
    assert type(Score(name="s", value=1, passed=True).value) is float


def test_results_become_scores():
    assert as_score(yes, True) == Score(name="yes", value=1.0, passed=True)
    assert as_score(yes, 0.5) == Score(name="yes", value=0.5, passed=True, reason="0.5 >= 0.5")
    assert as_score(yes, 0.49999999999) == Score(name="yes", value=0.49999999999, passed=False, reason="0.49999999999 < 0.5")
    assert as_score(yes, TrueScalar()).passed is True
    assert as_score(yes, Scalar(0.25)).reason == "0.25 < 0.5"
    with pytest.raises(ScorerError, match=r"^scorer 'yes' returned NoneType; return a bool, a number from 0 to 1, or a Score$"):
        as_score(yes, None)
    with pytest.raises(ScorerError, match=r"^scorer 'yes' returned function: did you forget the parentheses\?$"):
        as_score(yes, no)


def test_partials_answer_for_what_they_hold():
    async def slow(trial):
        return True

    judge = functools.partial(functools.partial(Judge()))
    assert (scorer_name(judge), asks_model(judge)) == ("judge", True)
    assert is_async(functools.partial(slow))
    assert not is_async(yes)
    assert scorer_name(functools.partial(yes)) == "yes"
    assert scorer_name(Judge) == "judge"
    assert scorer_name(types.SimpleNamespace(name=3)) == "SimpleNamespace"


def test_the_trial_has_copies_of_its_own():
    case = Case(id="c", input={"q": 1}, expected=[1], metadata={"m": [1]}, tags=["t"], reference="r", rubric="u", split="holdout")
    trial = Trial(case)
    trial.input["q"] = 2
    trial.expected.append(2)
    trial.metadata["m"].append(2)
    assert (case.input, case.expected, case.metadata) == ({"q": 1}, [1], {"m": [1]})
    assert (trial.id, trial.reference, trial.rubric, trial.tags, trial.split, trial.number) == ("c", "r", "u", ("t",), "holdout", 1)
    assert trial.metadata["m"] == [1, 2]


def test_a_fresh_trial_has_the_settings_and_nothing_that_was_done():
    settings, registry = JudgeSettings(model="openai:gpt-test"), {"mine": lambda trial: True}
    trial = Trial(Case(id="a", input="x"), number=3, judge_settings=settings, registry=registry, redact=str.upper)
    trial.output = "said"
    trial.score("mine")
    other = Case(id="b", input="y")
    for fresh, case in ((trial.fresh(), trial.case), (trial.fresh(other), other)):
        assert (fresh.case, fresh.number, fresh.judge_settings, fresh.registry, fresh.redact) == (case, 3, settings, registry, str.upper)
        assert (fresh.has_output, fresh.scores, fresh.calls, fresh.misses) == (False, [], [], [])


def test_check_lists_every_score_in_the_order_given():
    trial = trial_of("x")
    with pytest.raises(CheckFailed) as caught:
        trial.check(yes, Judge(0.2), no, Judge(True))
    assert str(caught.value) == "2 of 4 scores failed\npassed yes 1.00\nfailed judge 0.20: 0.2 < 0.5\nfailed no 0.00\npassed judge 1.00"
    assert caught.value.scores == tuple(trial.scores)
    assert [scorer_name(scorer) for scorer in trial.scorers] == ["yes", "judge", "no", "judge"]
    trial.check(yes)
    assert len(trial.scores) == 5


def test_no_verdict_is_no_pass():
    trial = trial_of("x")
    with pytest.raises(Unscored) as caught:
        trial.check(yes, lambda trial: Score.unscored("judge", "refused"))
    assert str(caught.value) == "1 of 2 scores have no verdict\npassed yes 1.00\nunscored judge: refused"
    with pytest.raises(CheckFailed, match="1 of 2 scores failed") as caught:
        trial.check(no, lambda trial: Score.unscored("judge", "refused"))
    assert not isinstance(caught.value, Unscored)


def test_score_records_and_does_not_raise():
    trial = trial_of("x")
    assert trial.score(no).passed is False
    assert trial.scores == [Score(name="no", value=0.0, passed=False)]


def test_a_score_line_cannot_act():
    assert (
        score_line(Score(name="a\x1b", value=None, passed=None, reason="one\r\ntwo\u202e")) == "unscored a\\x1b: one\\x0d\n    two\\u202e"
    )


@pytest.mark.parametrize(
    ("scorers", "message"),
    [
        ((), "case 'late': check() got no scorer, so nothing would be checked; give it one, such as exact_match()"),
        ((3,), "case 'late': int is no scorer; give a callable `(trial) -> bool | float | Score`"),
    ],
)
def test_what_checks_nothing_is_an_error(scorers, message):
    for call in (lambda: trial_of("x").check(*scorers), lambda: asyncio.run(trial_of("x").acheck(*scorers))):
        with pytest.raises(ScorerError) as caught:
            call()
        assert str(caught.value) == message


def test_without_output_there_is_nothing_to_score():
    trial = Trial(Case(id="late", input="x"))
    with pytest.raises(ScorerError, match=r"^case 'late': there is no output to score; set case.output before case.check\(\.\.\.\)$"):
        trial.check(yes)
    trial.output = None
    trial.check(yes)


def test_a_broken_scorer_leaves_the_trial_unscored_and_says_where():
    def broken(trial):
        return json.loads("{")

    async def abroken(trial):
        return json.loads("{")

    line = broken.__code__.co_firstlineno + 1
    aline = abroken.__code__.co_firstlineno + 1
    expected = (
        "scorer raised JSONDecodeError: Expecting property name enclosed in double quotes: line 1 column 2 (char 1) (test_trial.py:{})"
    )
    assert trial_of("x").score(broken) == Score.unscored("broken", expected.format(line))
    assert trial_of("x").score(abroken) == Score.unscored("abroken", expected.format(aline))
    trial = trial_of("x")
    with pytest.raises(Unscored):
        asyncio.run(trial.acheck(broken, model(broken), abroken))
    assert [score.reason for score in trial.scores] == [expected.format(line)] * 2 + [expected.format(aline)]


def test_an_error_without_a_frame_has_no_place():
    assert trial_of("x").score(int).reason.startswith("scorer raised TypeError: int() argument must be")
    assert not trial_of("x").score(int).reason.endswith(")")


def test_an_assert_in_a_scorer_is_a_failed_score():
    score = trial_of("x").score(raising(AssertionError("too long\x1b")))
    assert (score.passed, score.value) == (False, 0.0)
    assert score.reason.startswith("AssertionError: too long\\x1b (test_trial.py:")
    assert trial_of("x").score(raising(Unscored("no verdict"))).passed is None


@pytest.mark.parametrize("waiting", [False, True])
@pytest.mark.parametrize("error", [ScorerError("no expected"), JudgeError("no judge"), RecordingMiss("miss"), NetworkBlocked("blocked")])
def test_what_must_be_seen_is_raised_after_the_others_are_recorded(error, waiting):
    scorer = model(raising(error)) if waiting else raising(error)
    trial = trial_of("x")
    with pytest.raises(type(error), match=str(error)):
        trial.check(scorer, yes, Judge())
    with pytest.raises(type(error), match=str(error)):
        asyncio.run(trial.acheck(scorer, yes, Judge()))
    assert [score.passed for score in trial.scores] == [None, True, True] * 2


def test_a_replay_miss_comes_before_other_errors():
    with pytest.raises(RecordingMiss):
        trial_of("x").check(raising(ScorerError("first")), raising(RecordingMiss("the cause")))


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_what_stops_the_run_stops_the_check_at_once(error):
    seen = []
    trial = trial_of("x")
    with pytest.raises(error):
        trial.check(raising(error()), seen.append)
    with pytest.raises(error):
        trial.check(raising(error()), Judge(), Judge())
    assert (seen, trial.scores) == ([], [])


def test_scorers_that_wait_run_side_by_side():
    together = threading.Barrier(3, timeout=30)

    def waits(trial):
        together.wait()
        return True

    waits.asks_model = True
    # The same scorer three times: each is a vote of its own.
    trial_of("x").check(waits, yes, waits, waits)
    asyncio.run(trial_of("x").acheck(waits, yes, waits, waits))


def test_async_scorers_wait_side_by_side_in_order():
    async def run():
        first, second = asyncio.Event(), asyncio.Event()

        async def a(trial):
            first.set()
            await second.wait()
            return 0.9

        async def b(trial):
            await first.wait()
            second.set()
            return 0.8

        trial = trial_of("x")
        await trial.acheck(a, b, yes)
        return [score.value for score in trial.scores]

    assert asyncio.run(run()) == [0.9, 0.8, 1.0]


def test_acheck_prefers_ascore():
    class Both(Judge):
        async def ascore(self, trial):
            return False

    trial = trial_of("x")
    trial.check(Both())
    with pytest.raises(CheckFailed):
        asyncio.run(trial.acheck(Both()))


def test_a_stopped_acheck_stops_its_scorers():
    async def run():
        ended = asyncio.Event()

        async def endless(trial):
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        task = asyncio.ensure_future(trial_of("x").acheck(endless))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await ended.wait()

        async def cancels(trial):
            raise asyncio.CancelledError

        ended.clear()
        with pytest.raises(asyncio.CancelledError):
            await trial_of("x").acheck(endless, cancels)
        await ended.wait()

    asyncio.run(run())


def test_check_in_an_async_body_points_to_acheck():
    async def slow(trial):
        return True

    async def body(scorer):
        trial_of("x").check(scorer)

    with pytest.raises(ScorerError, match=r"^scorer 'slow' waits for a model, and this body is async; use `await case.acheck\(\.\.\.\)`$"):
        asyncio.run(body(slow))
    with pytest.raises(ScorerError, match=r"^scorer 'Lazy' is async; use `await case.acheck\(\.\.\.\)`$"):
        asyncio.run(body(Lazy(slow)))

    async def future_body():
        trial_of("x").check(lambda trial: asyncio.get_running_loop().create_future())

    with pytest.raises(ScorerError, match="is async"):
        asyncio.run(future_body())
    asyncio.run(body(yes))


def test_calls_made_while_scoring_are_the_judges():
    roles = []
    mark = contextvars.ContextVar("mark", default="")

    def note(trial):
        roles.append((current_role(), mark.get()))
        return True

    async def anote(trial):
        return note(trial)

    mark.set("mine")
    waiting = model(Lazy(note))
    trial_of("x").check(note, anote, waiting, waiting)
    asyncio.run(trial_of("x").acheck(note, anote, waiting))
    assert roles == [("judge", "mine")] * 7
    assert current_role() == "app"
    with asking_as("judge"):
        assert current_role() == "judge"


def test_calls_are_kept_apart_by_role():
    trial = trial_of("x")
    app = Call(provider="openai", model="m", answer={"role": "assistant", "content": "hi"})
    judge = Call(role="judge", provider="openai", model="m", answer={"content": [{"type": "text"}]})
    trial.add_call(app)
    trial.add_call(judge)
    assert (trial.calls, trial.judge_calls) == ([app], [judge])
    assert (app.text, judge.text, Call(provider="p", model="m").text) == ("hi", None, None)


def test_scores_from_many_threads_stay_beside_their_scorers():
    trial = trial_of("x")
    threads = [threading.Thread(target=trial.score, args=(scorer,)) for scorer in (yes, no) * 20]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [scorer_name(scorer) for scorer in trial.scorers] == [score.name for score in trial.scores]


def record(**fields):
    base = {
        "nodeid": "t.py::t[c]",
        "suite": "t",
        "case_id": "c",
        "source": "c.yaml:1",
        "content_hash": "0",
        "split": "train",
        "outcome": "passed",
    }
    return TrialRecord(**{**base, **fields})


objects = st.dictionaries(st.text(max_size=4), json_values, max_size=3)


@given(st.lists(objects, max_size=2), objects | st.none(), objects | st.none(), any_text)
def test_a_record_survives_the_way_to_another_process(messages, answer, example, output):
    output = output.encode("utf-8", "replace").decode()
    call = Call(
        provider="openai",
        model="m",
        messages=tuple(messages),
        tools=tuple(messages),
        answer=answer,
        usage=Usage(input_tokens=3),
        cost_usd=0.1,
    )
    score = Score(name="s", value=Scalar(0.5), passed=True, reason=output)
    sent = record(tags=("a", "b"), quarantine=output, output=output, scores=(score,), calls=(call,), example=example, duration_s=0.5)
    received = execnet.loads(execnet.dumps(sent.to_dict()))
    assert TrialRecord.from_dict(received) == sent
    assert TrialRecord.from_dict(json.loads(json.dumps(sent.to_dict()))) == sent


class MarkedScore(Score):
    def __init__(self, **fields):
        super().__init__(**fields)
        object.__setattr__(self, "mark", object())


def test_what_a_subclass_adds_to_a_score_stays_here():
    sent = record(scores=(MarkedScore(name="s", value=1.0, passed=True),))
    assert TrialRecord.from_dict(execnet.loads(execnet.dumps(sent.to_dict()))).scores == (Score(name="s", value=1.0, passed=True),)


class Color(enum.StrEnum):
    RED = "red"


def test_awkward_values_are_made_sendable():
    frozen = types.MappingProxyType({"role": "user", "content": "\ud83d", "min": -(2**60), "who": Color.RED})
    deep: list = []
    for _ in range(100_000):  # deeper than the JSON encoder of any Python follows
        deep = [deep]
    sent = record(
        output="half a pair: \ud83d",
        source=Color.RED,
        tags=("\udc80",),
        calls=(Call(provider="p", model="m", messages=(frozen, {"object": 1j}), tools=({"deep": deep},)),),
    )
    received = TrialRecord.from_dict(execnet.loads(execnet.dumps(sent.to_dict())))
    assert (received.output, received.source, received.tags) == ("half a pair: \\ud83d", "red", ("\\udc80",))
    (call,) = received.calls
    assert call.messages == ({"role": "user", "content": "\ud83d", "min": -(2**60), "who": "red"}, {"object": "1j"})
    assert call.tools == ()


def test_registered_scorers_go_by_name():
    trial = Trial(Case(id="c", input="x"), registry={"yes": yes})
    trial.output = "x"
    trial.check("yes")
    assert [scorer_name(scorer) for scorer in trial.scorers] == ["yes"]
    with pytest.raises(ScorerError) as caught:
        trial.check("no")
    assert str(caught.value) == "no scorer is registered as 'no' (registered: yes); return it from a pytest_llm_scorers hook"


class TestPromptHash:
    def test_it_is_that_of_the_system_prompt_alone(self):
        system = {"role": "system", "content": "Be brief."}
        one, other = (Call(provider="p", model="m", messages=({"role": "user", "content": text}, system)) for text in "ab")
        assert one.prompt_hash == other.prompt_hash == hashlib.sha256(b"Be brief.").hexdigest()

    def test_it_stays_when_the_messages_are_left_out(self):
        call = Call(provider="p", model="m", messages=({"role": "developer", "content": "Be brief."},))
        assert dataclasses.replace(call, messages=()).prompt_hash == call.prompt_hash

    def test_of_several_messages_and_of_content_that_is_no_text(self):
        messages = [{"role": "system", "content": "a"}, {"role": "developer", "content": [{"type": "image"}]}, {"role": "system"}]
        assert prompt_hash(messages) == hashlib.sha256(b'a\n[{"type": "image"}]\nnull').hexdigest()

    def test_without_one(self):
        assert Call(provider="p", model="m", messages=({"role": "user", "content": "a"},)).prompt_hash == ""
        assert Call(provider="p", model="m").prompt_hash == ""


def test_what_a_teacher_causes_is_the_teachers():
    with asking_as("teacher"), asking_as("judge"):
        assert current_role() == "teacher"
        with asking_as("app", exactly=True):
            assert current_role() == "app"
    assert current_role() == "app"
    made = Trial(Case(id="a", input="x"))
    for role in ("app", "judge", "teacher"):
        made.add_call(Call(role=role, provider="p", model=role))
    assert [[call.model for call in calls] for calls in (made.calls, made.judge_calls, made.teacher_calls)] == [
        ["app"],
        ["judge"],
        ["teacher"],
    ]
