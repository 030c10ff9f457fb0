"""What a teacher is asked, and what becomes of its answer."""

from __future__ import annotations

import asyncio
import json
import sys

import pytest
from export_samples import WEATHER, assistant, call, example, tool_call, trial, user
from providers import FakeProvider, Reply

from pytest_touchstone.export.example import LeftOut
from pytest_touchstone.export.select import example_of
from pytest_touchstone.export.teacher import Teacher, checks_more, why_not_asked, why_not_checkable
from pytest_touchstone.judging.asking import Clock
from pytest_touchstone.models.client import Ask
from pytest_touchstone.models.registry import open_model
from pytest_touchstone.settings import TeacherSettings
from pytest_touchstone.trial import CheckFailed, Score, current_role

SYSTEM = {"role": "system", "content": "You triage."}
PROMPT = (SYSTEM, user("Can I?"))
roles = []


def right(checked):
    roles.append(current_role())
    return Score(name="right", value=float(checked.output in {"yes", '{"a": 1}'}), passed=checked.output in ("yes", {"a": 1}), reason="no")


async def aright(checked):
    return checked.output == "yes"


def one_call(checked):
    return [each.answer["content"] for each in checked.calls] == [checked.output]


def failed(made, *scorers):
    """What ends a body that checks the trial with these scorers."""
    try:
        made.check(*scorers)
    except CheckFailed as error:
        return error
    raise AssertionError


def unanswered(made):
    left = example_of(made, "failed", suite="s")
    assert isinstance(left, LeftOut)
    assert left.unanswered is not None
    return left.unanswered


def no_time(_):
    raise AssertionError


@pytest.fixture
def provider(monkeypatch):
    with FakeProvider() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.openai_url)
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.anthropic_url)
        yield server


@pytest.fixture(params=["sync", "async"])
def teach(request, provider):
    def teach(made, *scorers, model="openai:big"):
        teacher = Teacher(settings=TeacherSettings(model=model), clock=Clock(sleep=no_time))
        error, asked = failed(made, *scorers), unanswered(made)
        if request.param == "async":
            return asyncio.run(teacher.ateach(made, error, asked, module=__file__))
        return teacher.teach(made, error, asked, module=__file__)

    return teach


def answered_trial(output="no", answer=None, prompt=PROMPT, **fields):
    return trial(output, calls=[call(*prompt, answer=assistant(output if answer is None else answer), **fields)])


class TestAnswer:
    def test_passes_where_every_scorer_says_so(self, teach, provider):
        provider.answer = Reply(text="yes")
        roles.clear()
        made = answered_trial()
        lesson = teach(made, right, aright)
        assert (lesson.outcome, lesson.text, lesson.checks, lesson.reason) == ("passed", "yes", ("right", "aright"), "")
        assert roles[-1] == "teacher"
        assert made.scores[0].passed is False
        assert made.output == "no"

    def test_is_handed_over_as_the_app_does(self, teach, provider):
        provider.answer = Reply(text='{"a": 1}')
        lesson = teach(answered_trial({"a": 2}, answer='{"a":2}'), right)
        assert (lesson.outcome, lesson.text) == ("passed", '{"a": 1}')

    def test_that_is_no_json_where_the_app_hands_json_over(self, teach, provider):
        provider.answer = Reply(text="yes")
        lesson = teach(answered_trial({"a": 2}, answer='{"a":2}'), right)
        assert (lesson.outcome, lesson.reason) == (
            "did not pass",
            "the teacher openai:big gave no JSON, and the app's output is of type dict",
        )

    def test_stands_in_the_call_that_it_answers(self, teach, provider):
        provider.answer = Reply(text="yes")
        made = answered_trial()
        made.scorers.append(one_call)
        assert teach(made, right).outcome == "passed"

    def test_that_a_scorer_breaks_on_is_none(self, teach, provider):
        def breaks(checked):
            return checked.output == "no" and False if checked.output == "no" else 1 / 0

        provider.answer = Reply(text="yes")
        lesson = teach(answered_trial(), breaks)
        assert lesson.outcome == "did not pass"
        assert "has no verdict of breaks: scorer raised ZeroDivisionError: division by zero" in lesson.reason

    def test_is_asked_for_without_a_call(self, teach, provider):
        provider.answer = Reply(text="yes")
        assert teach(trial("no"), right).text == "yes"
        assert provider.requests[0].json["messages"] == [user("Where is my order?")]


class TestPrompt:
    MESSAGES = (
        SYSTEM,
        user("Weather in Oslo and Rome?"),
        assistant(None, tool_calls=[tool_call(), tool_call('{"city": "Rome"}', call_id="call_2")]),
        {"role": "tool", "tool_call_id": "call_1", "content": "cold"},
        {"role": "tool", "tool_call_id": "call_2", "content": "warm"},
        {"role": "developer", "content": [{"type": "text", "text": "Be brief."}]},
    )

    def test_goes_to_openai_as_it_was_sent(self, teach, provider):
        provider.answer = Reply(text="yes")
        made = answered_trial(prompt=self.MESSAGES, tools=(WEATHER,))
        assert teach(made, right).outcome == "passed"
        sent = provider.requests[0].json
        assert sent["model"] == "big"
        assert sent["messages"] == [*self.MESSAGES[:5], {"role": "developer", "content": "Be brief."}]
        assert sent["tools"] == [WEATHER]
        assert sent["max_completion_tokens"] == 8192

    def test_goes_to_anthropic_in_its_own_shape(self, teach, provider):
        provider.answer = Reply(text="yes")
        made = answered_trial(prompt=self.MESSAGES, tools=(WEATHER,))
        assert teach(made, right, model="anthropic:big").outcome == "passed"
        sent = provider.requests[0].json
        assert sent["system"] == "You triage.\n\nBe brief."
        assert sent["messages"] == [
            {"role": "user", "content": "Weather in Oslo and Rome?"},
            {
                "role": "assistant",
                "content": [
                    {"type": "tool_use", "id": "call_1", "name": "weather", "input": {"city": "Oslo"}},
                    {"type": "tool_use", "id": "call_2", "name": "weather", "input": {"city": "Rome"}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "call_1", "content": "cold"},
                    {"type": "tool_result", "tool_use_id": "call_2", "content": "warm"},
                ],
            },
        ]
        assert sent["tools"] == [{"name": "weather", "input_schema": WEATHER["function"]["parameters"]}]

    def test_of_anthropic_keeps_what_is_said_beside_calls_and_describes_tools(self):
        prompt = (user("Hi"), assistant("Looking.", tool_calls=[tool_call()]), {"role": "tool", "tool_call_id": "call_1", "content": None})
        ask = Ask(system="", messages=prompt, tools=({"function": {"name": "t", "description": "d"}},), max_tokens=1, timeout_s=1)
        [request] = open_model("anthropic:big").requests(ask)
        assert "system" not in request
        assert request["messages"][1]["content"][0] == {"type": "text", "text": "Looking."}
        assert request["messages"][2]["content"] == [{"type": "tool_result", "tool_use_id": "call_1", "content": ""}]
        assert request["tools"] == [{"name": "t", "description": "d", "input_schema": {"type": "object", "properties": {}}}]

    @pytest.mark.parametrize(
        ("fields", "why"),
        [
            (
                {"prompt": (user([{"type": "image_url", "image_url": {"url": "x"}}]),)},
                "prompt[0] holds a part of type 'image_url', and only text can be asked",
            ),
            ({"prompt": ({"role": "tool", "content": "x"},)}, "prompt[0] is the result of a tool call that it does not name"),
            (
                {"prompt": (user("x"), assistant(None, tool_calls=[tool_call("[")]))},
                "prompt[1] calls a tool without an id, a name, or arguments that are a JSON object",
            ),
            (
                {"prompt": (user("x"), assistant(None, tool_calls=[{"type": "custom"}]))},
                "prompt[1] calls a tool without an id, a name, or arguments that are a JSON object",
            ),
            ({"tools": ({"type": "web_search"},)}, "the prompt offers a tool of type 'web_search', which only its own provider knows"),
            ({"tools": (WEATHER,)}, None),
        ],
    )
    def test_may_be_one_that_cannot_be_put_to_another_model(self, fields, why):
        assert why_not_asked(example(**fields)) == why


class TestCheckable:
    def reason(self, made, *scorers):
        return why_not_checkable(made, failed(made, *(scorers or (right,))), __file__)

    def test_needs_a_check_that_failed(self):
        assert why_not_checkable(trial("no"), AssertionError("no"), __file__) == (
            "the test failed by something other than case.check(...), which cannot be run on another answer"
        )

    @pytest.mark.parametrize(("output", "answer"), [("no", " no\n"), ({"a": 2}, '{ "a": 2 }'), ([1], "[1]")])
    def test_needs_the_answer_as_it_stands(self, output, answer):
        assert self.reason(answered_trial(output, answer=answer)) is None

    @pytest.mark.parametrize(("output", "answer"), [("billing", '{"team": "billing"}'), ({"a": 2}, "a is 2"), (b"no", "no"), ((1,), "[1]")])
    def test_is_not_where_the_app_made_something_else_of_it(self, output, answer):
        assert self.reason(answered_trial(output, answer=answer)) == (
            "the app's output is not its model's answer as it stands, so it is not known what it would make of another"
        )

    def test_needs_an_output_that_an_answer_can_be_turned_into(self):
        assert self.reason(trial(b"no")) == "the app's output is of type bytes, which an answer cannot be turned into"


BODIES = {
    "case.check(fails)": False,
    "case.check(fails)\ncase.tags": False,
    "assert case\ncase.check(fails)": False,
    "case.check(fails)\nassert case": True,
    "case.check(fails)\ncase.score(fails)": True,
    "if case:\n    case.check(fails)\nelse:\n    assert case": False,
    "if case:\n    case.check(fails)\nassert case": True,
    "for _ in range(2):\n    assert case\n    case.check(fails)": True,
    "try:\n    case.check(fails)\nfinally:\n    assert case": True,
    "try:\n    case.check(fails)\nexcept KeyError:\n    assert case": False,
    "try:\n    1 / 0\nexcept ZeroDivisionError:\n    case.check(fails)\n    assert case": True,
    "with open(__file__):\n    case.check(fails)\n    assert case": True,
    "match case:\n    case _:\n        case.check(fails)\n        assert case": True,
    "helper(case)": True,
    "for _ in range(2):\n    case.check(fails)": True,
}


class TestMore:
    @pytest.mark.parametrize("body", BODIES)
    def test_is_found_in_the_source(self, body, tmp_path):
        path = tmp_path / "test_body.py"
        indented = "".join(f"    {line}\n" for line in body.splitlines())
        path.write_text(
            f"def fails(trial):\n    return False\n\n\ndef helper(case):\n    case.check(fails)\n    assert case\n\n\ndef test(case):\n{indented}"
        )
        namespace = {"__file__": str(path)}
        exec(compile(path.read_text(), str(path), "exec"), namespace)
        with pytest.raises(CheckFailed) as caught:
            namespace["test"](trial("no"))
        assert checks_more(caught.value.__traceback__, str(path)) is BODIES[body]

    def test_may_be_there_where_the_source_is_not(self):
        namespace = {}
        exec(compile("def test(case):\n    case.check(lambda trial: False)", "<made up>", "exec"), namespace)
        with pytest.raises(CheckFailed) as caught:
            namespace["test"](trial("no"))
        assert checks_more(caught.value.__traceback__, "<made up>")
        assert checks_more(caught.value.__traceback__, "elsewhere.py")
        assert checks_more(None, __file__)


def test_a_teacher_that_cannot_be_asked_is_told(teach, provider, monkeypatch):
    monkeypatch.delenv("OPENAI_BASE_URL")
    lesson = teach(answered_trial(), right)
    said = "the teacher openai:big was not asked: OPENAI_API_KEY is not set; export it, or give the base URL of a server that needs no key"
    assert (lesson.outcome, lesson.reason) == ("no answer", said)


def test_a_teacher_that_breaks_is_told():
    teacher = Teacher(settings=TeacherSettings(model="openai:big"))
    assert teacher.stopped(OSError("gone")).reason == "the teacher openai:big was stopped: OSError: gone"


def test_what_a_teacher_was_asked_is_json(provider, teach):
    provider.answer = Reply(text="yes")
    teach(answered_trial(), right)
    assert json.loads(provider.requests[0].body) == provider.requests[0].json
    assert sys.modules["openai"]
