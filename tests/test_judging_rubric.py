"""The judge as a scorer, asked over real HTTP: both providers, sync and async."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re
import ssl
import threading
from dataclasses import dataclass
from typing import Any

import pytest
from providers import FakeProvider, Reply
from test_judging_prompt import parsed

from pytest_touchstone import judge
from pytest_touchstone.cases import Case
from pytest_touchstone.errors import JudgeError, ScorerError
from pytest_touchstone.judging.asking import Clock
from pytest_touchstone.judging.prompt import identity, system_prompt
from pytest_touchstone.models.sdk import CLIENTS
from pytest_touchstone.settings import JudgeSettings
from pytest_touchstone.trial import CheckFailed, Score, Trial, Unscored, asks_model, current_role

RUBRIC = "Cites the 30-day window."


@dataclass
class World:
    """One provider, asked in one way."""

    provider: str
    asynchronous: bool
    server: FakeProvider

    @property
    def spec(self):
        return f"{self.provider}:m"

    @property
    def settings(self):
        base_url = self.server.openai_url if self.provider == "openai" else self.server.anthropic_url
        return JudgeSettings(model=self.spec, base_url=base_url, timeout_s=30, attempts=3)

    def trial(self, output: Any = "Within 30 days.", settings=None, **fields):
        trial = Trial(
            Case(**{"id": "late", "input": "Can I?", "source": "support.yaml:14", **fields}), judge_settings=settings or self.settings
        )
        trial.output = output
        return trial

    def reply(self, **said):
        text = json.dumps(said)
        return Reply(text=text) if self.provider == "openai" else Reply(tool_calls=(("verdict", text),))

    def passing(self, reason="Good."):
        return self.reply(reason=reason, verdict="pass")

    def failing(self, reason="Bad."):
        return self.reply(reason=reason, verdict="fail")

    def score(self, scorer, trial=None) -> Score:
        trial = trial or self.trial()
        scorer = dataclasses.replace(scorer, clock=Clock(sleep=lambda _: None, asleep=_no_sleep))
        return asyncio.run(scorer.ascore(trial)) if self.asynchronous else scorer(trial)

    @property
    def sent(self):
        return [seen.json for seen in self.server.requests]

    def prompts(self):
        """System prompt and data of each request."""
        for request in self.sent:
            system = request["messages"][0]["content"] if self.provider == "openai" else request["system"]
            yield system, request["messages"][-1]["content"]


async def _no_sleep(_):
    pass


SSL_CONTEXT = ssl.create_default_context()


@pytest.fixture(autouse=True)
def plain_surroundings(monkeypatch, tmp_path):
    """No profile of the SDK in the home folder, and certificates that nobody uses read once instead of for every client."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(ssl, "create_default_context", lambda *_, **__: SSL_CONTEXT)


@pytest.fixture(params=["openai", "anthropic"])
def provider(request):
    return request.param


@pytest.fixture(params=[False, True], ids=["sync", "async"])
def world(request, provider):
    with FakeProvider() as server:
        yield World(provider, request.param, server)
        CLIENTS.close()


def test_a_verdict_becomes_a_score(world):
    world.server.script(world.passing("Cites it."), world.failing("Does not."))
    name = identity(world.spec, RUBRIC, "binary")
    assert world.score(judge(RUBRIC)) == Score(name="judge", value=1.0, passed=True, reason="Cites it.", judge=name)
    assert world.score(judge(RUBRIC, name="window")) == Score(name="window", value=0.0, passed=False, reason="Does not.", judge=name)


def test_the_judge_reads_rubric_and_data_and_sends_no_temperature(world):
    world.server.answer = world.passing()
    world.score(judge(RUBRIC, instructions="In German."), world.trial(reference="30 days.", expected="x"))
    ((system, data),) = world.prompts()
    assert system == system_prompt(RUBRIC, "binary", "In German.")
    assert parsed(data) == {"input": "Can I?", "reference": "30 days.", "output": "Within 30 days."}
    (request,) = world.sent
    assert "temperature" not in request
    assert request.get("max_tokens", request.get("max_completion_tokens")) == 4096


@pytest.mark.parametrize(
    ("reference", "fields", "shown"),
    [
        (None, {"reference": "R", "expected": "E"}, "R"),
        (None, {"expected": {"a": 1}}, {"a": 1}),
        (None, {}, None),
        (True, {"expected": "E"}, "E"),
        (False, {"reference": "R", "expected": "E"}, None),
        ("mine", {"reference": "R"}, "mine"),
    ],
)
def test_which_reference_is_shown(world, reference, fields, shown):
    world.server.answer = world.passing()
    world.score(judge(RUBRIC, reference=reference), world.trial(**fields))
    ((_, data),) = world.prompts()
    assert parsed(data).get("reference") == shown


def test_a_required_reference_that_is_not_there_is_an_error(world):
    message = "case 'late' (support.yaml:14) has neither a reference nor an expected output to show the judge; add one, or leave reference=True out"
    with pytest.raises(ScorerError, match=f"^{re.escape(message)}$"):
        world.score(judge(RUBRIC, reference=True))


def test_the_cases_rubric_is_used_without_an_argument_only(world):
    world.server.answer = world.passing()
    trial = world.trial(rubric="The case's own.")
    own, given = world.score(judge(), trial), world.score(judge(RUBRIC), trial)
    assert [system.split("Rubric:\n")[1] for system, _ in world.prompts()] == ["The case's own.\n", f"{RUBRIC}\n"]
    assert own.judge != given.judge


@pytest.mark.parametrize("rubric", [None, " "])
def test_no_rubric_at_all_is_an_error(world, rubric):
    message = "case 'late' (support.yaml:14) has no rubric; add one, or write judge(\"...\")"
    with pytest.raises(ScorerError, match=f"^{re.escape(message)}$"):
        world.score(judge(), world.trial(rubric=rubric))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rubric": " "}, "judge rubric is ' '; say what to look for, or leave it out to use the case's own"),
        ({"rubric": 3}, "judge rubric is 3; say what to look for, or leave it out to use the case's own"),
        ({"votes": 2}, "judge votes is 2; give an odd number from 1 to 25, so that a majority decides"),
        ({"votes": 27}, "judge votes is 27; give an odd number from 1 to 25, so that a majority decides"),
        ({"votes": True}, "judge votes is True; give an odd number from 1 to 25, so that a majority decides"),
        ({"votes": -1}, "judge votes is -1; give an odd number from 1 to 25, so that a majority decides"),
        ({"max_tokens": 0}, "judge max_tokens is 0; give a whole number from 1"),
        ({"max_tokens": 1.5}, "judge max_tokens is 1.5; give a whole number from 1"),
        ({"scale": (1, 5), "threshold": 9}, "judge threshold is 9; on the scale (1, 5) give a grade above 1, and 5 at most"),
    ],
)
def test_arguments_out_of_range_are_refused_at_once(options, message):
    with pytest.raises(ScorerError, match=f"^{re.escape(message)}$"):
        judge(**options)


def test_a_judge_is_a_value_that_hides_its_address():
    scorer = judge(RUBRIC, base_url="http://user:secret@host/v1")
    assert scorer == judge(RUBRIC, base_url="http://user:secret@host/v1")
    assert asks_model(scorer)
    assert "secret" not in repr(scorer)
    with pytest.raises(dataclasses.FrozenInstanceError):
        scorer.votes = 3


def test_grades(world):
    world.server.answer = world.reply(reason="Nearly.", grade=3)
    scorer = judge(RUBRIC, scale=(1, 5), threshold=3)
    reason = "grade 3 on 1 to 5, passing from 3: Nearly."
    assert world.score(scorer) == Score(name="judge", value=0.5, passed=True, reason=reason, judge=identity(world.spec, RUBRIC, (1, 5)))
    assert world.score(judge(RUBRIC, scale=(1, 5))).passed is False


def test_votes_are_asked_side_by_side_with_identical_requests(world):
    together = threading.Barrier(3, timeout=20)
    replies = iter([world.passing(), world.failing(), world.passing()])
    lock = threading.Lock()

    def answer(_):
        together.wait()
        with lock:
            return next(replies)

    world.server.answer = answer
    score = world.score(judge(RUBRIC, votes=3))
    assert (score.value, score.passed, score.reason) == (1.0, True, "2 of 3 votes pass: Good.")
    assert world.sent[0] == world.sent[1] == world.sent[2]


def test_votes_that_settle_nothing_are_unscored(world):
    settings = dataclasses.replace(world.settings, attempts=1)
    world.server.script(world.passing(), world.failing(), Reply(text="", refusal="No."))
    score = world.score(judge(RUBRIC, votes=3), world.trial(settings=settings))
    assert score.passed is None
    assert re.fullmatch(rf"judge {world.spec} 1 of 3 votes pass, 1 fail, 1 gave no verdict: refused: No\.", score.reason)


UNUSABLE = {
    "refusal": (Reply(refusal="I cannot."), "refused: I cannot."),
    "truncation": (Reply(text='{"reason": "', finish="length"), "was cut off at 4096 tokens"),
    "filter": (
        Reply(text="", finish="content_filter"),
        {"openai": "was stopped by the provider's content filter", "anthropic": "refused"},
    ),
    "json": (Reply(text="{"), "answered with something other than one JSON object: {"),
    "empty": (Reply(text=""), "answered with nothing"),
    "rate limit": (Reply(status=429, retry_after="2", error="slow"), "is rate limited (HTTP 429: slow)"),
    "overload": (Reply(status=529, error="busy"), "is not available (HTTP 529: busy)"),
    "server error": (Reply(status=500, error="oops"), "is not available (HTTP 500: oops)"),
    "connection": (Reply(drop_after=0), "could not be reached (RemoteProtocolError: Server disconnected without sending a response.)"),
}


@pytest.mark.parametrize("kind", UNUSABLE)
def test_what_is_no_verdict_is_asked_for_again_and_then_unscored(world, kind):
    reply, reason = UNUSABLE[kind]
    reason = reason[world.provider] if isinstance(reason, dict) else reason
    world.server.script(reply, reply, world.passing())
    assert world.score(judge(RUBRIC)).passed is True
    assert len(world.sent) == 3
    world.server.script(reply, reply, reply)
    unscored = Score.unscored("judge", f"judge {world.spec} {reason} (asked 3 times)", judge=identity(world.spec, RUBRIC, "binary"))
    assert world.score(judge(RUBRIC)) == unscored
    assert len(world.sent) == 6


def test_another_shape_is_no_verdict(world):
    world.server.answer = world.reply(reason="x", verdict="perhaps")
    score = world.score(judge(RUBRIC))
    reason = "answered with JSON of another shape: verdict: Input should be 'pass' or 'fail'"
    assert score == Score.unscored("judge", f"judge {world.spec} {reason} (asked 3 times)", judge=score.judge)


def test_a_judge_that_says_nothing_is_unscored_after_its_time(world):
    hold = threading.Event()
    world.server.answer = Reply(wait=hold)
    settings = dataclasses.replace(world.settings, timeout_s=0.05)
    try:
        score = world.score(judge(RUBRIC), world.trial(settings=settings))
    finally:
        hold.set()
    assert score.passed is None
    assert re.match(
        rf"judge {world.spec} gave no answer within 0\.0\d+ s \(asked once; no time for another attempt within 0\.05 s\)", score.reason
    )


def test_a_very_long_output_is_unscored_and_not_sent(world):
    score = world.score(judge(RUBRIC), world.trial(output="x" * 300_000))
    reason = f"judge {world.spec} was not asked: output is 300,002 characters long as JSON, and a judge reads at most 200,000"
    assert score == Score.unscored("judge", reason, judge=identity(world.spec, RUBRIC, "binary"))
    assert world.sent == []


def test_an_output_without_a_certain_form_is_an_error(world):
    message = (
        "case 'late' (support.yaml:14): output is object, which has no certain form as JSON; give text, or dicts and lists of JSON values"
    )
    with pytest.raises(ScorerError, match=f"^{re.escape(message)}$"):
        world.score(judge(RUBRIC), world.trial(output=object()))


def test_the_judges_own_words_cannot_act(world):
    world.server.answer = world.failing("\x1b[2J\nsee \u202eabove " + "x" * 900)
    reason = world.score(judge(RUBRIC)).reason
    assert reason.startswith(r"\x1b[2J see \u202eabove xxx")
    assert len(reason) == 500


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (Reply(status=401, error="sk-1"), "the server refused the key (HTTP 401); check {VARIABLE}"),
        (
            Reply(status=404, error="no model"),
            "the server knows no such model or address (HTTP 404: no model); check the model's name and the base URL",
        ),
        (Reply(status=400, error="bad"), "the server refused the request (HTTP 400: bad)"),
    ],
)
@pytest.mark.parametrize("votes", [1, 3])
def test_what_the_user_must_change_is_a_judge_error(world, votes, reply, message):
    world.server.answer = reply
    message = f"judge {world.spec}: {message.format(VARIABLE=world.provider.upper() + '_API_KEY')}"
    with pytest.raises(JudgeError, match=f"^{re.escape(message)}$"):
        world.score(judge(RUBRIC, votes=votes))


def test_no_judge_configured_says_how(world):
    message = (
        "no judge is configured; use --llm-judge openai:MODEL, set llm_judge = openai:MODEL in the ini file, "
        'or write judge(model="openai:MODEL") (anthropic:MODEL works as well)'
    )
    with pytest.raises(JudgeError, match=f"^{re.escape(message)}$"):
        world.score(judge(RUBRIC), world.trial(settings=JudgeSettings()))


def test_a_judge_whose_name_cannot_be_read_says_what_is_known(world):
    message = "judge: the model 'gpt-5' names no provider; write one of anthropic:MODEL, openai:MODEL"
    with pytest.raises(JudgeError, match=f"^{re.escape(message)}$"):
        world.score(judge(RUBRIC, model="gpt-5"))


def test_a_missing_key_names_the_variable(world):
    message = (
        f"judge {world.spec}: {world.provider.upper()}_API_KEY is not set; export it, or give the base URL of a server that needs no key"
    )
    with pytest.raises(JudgeError, match=f"^{re.escape(message)}$"):
        world.score(judge(RUBRIC), world.trial(settings=JudgeSettings(model=world.spec)))


def test_arguments_win_over_settings(world):
    world.server.answer = world.passing()
    elsewhere = JudgeSettings(model="openai:other", base_url="http://127.0.0.1:1/v1")
    score = world.score(judge(RUBRIC, model=f"{world.provider}:n", base_url=world.settings.base_url), world.trial(settings=elsewhere))
    assert score.judge.startswith(f"{world.provider}:n#")
    assert world.sent[0]["model"] == "n"


def test_a_model_argument_keeps_the_configured_server_of_its_provider(world):
    world.server.answer = world.passing()
    world.score(judge(RUBRIC, model=f"{world.provider}:n"))
    world.score(judge(RUBRIC, model=f"{world.provider}:n"), world.trial(settings=dataclasses.replace(world.settings, model=None)))
    assert [request["model"] for request in world.sent] == ["n", "n"]


def test_a_judge_of_the_other_provider_does_not_go_to_the_configured_server(world):
    other = {"openai": "anthropic", "anthropic": "openai"}[world.provider]
    with pytest.raises(JudgeError, match=rf"^judge {other}:n: {other.upper()}_API_KEY is not set; "):
        world.score(judge(RUBRIC, model=f"{other}:n"))
    assert world.sent == []


@pytest.mark.parametrize("votes", [1, 3])
def test_every_request_is_made_in_the_judges_role(world, monkeypatch, votes):
    import httpx2

    roles = []
    handle, ahandle = httpx2.HTTPTransport.handle_request, httpx2.AsyncHTTPTransport.handle_async_request

    def note(transport, request):
        roles.append(current_role())
        return handle(transport, request)

    async def anote(transport, request):
        roles.append(current_role())
        return await ahandle(transport, request)

    monkeypatch.setattr(httpx2.HTTPTransport, "handle_request", note)
    monkeypatch.setattr(httpx2.AsyncHTTPTransport, "handle_async_request", anote)
    world.server.answer = world.passing()
    world.score(judge(RUBRIC, votes=votes))
    assert roles == ["judge"] * votes
    assert current_role() == "app"


def test_a_check_asks_judges_side_by_side(world):
    together = threading.Barrier(2, timeout=20)

    def answer(seen):
        together.wait()
        return world.passing() if "Polite." in json.dumps(seen.json) else world.failing()

    world.server.answer = answer
    trial = world.trial()
    with pytest.raises(CheckFailed) as caught:
        if world.asynchronous:
            asyncio.run(trial.acheck(judge("Polite."), judge("Brief.")))
        else:
            trial.check(judge("Polite."), judge("Brief."))
    assert str(caught.value).startswith("1 of 2 scores failed\n")
    assert [score.passed for score in trial.scores] == [True, False]


def test_an_unscored_judge_is_never_a_pass(world):
    world.server.answer = Reply(refusal="No.")
    trial = world.trial()
    with pytest.raises(Unscored, match=r"1 of 1 scores have no verdict"):
        if world.asynchronous:
            asyncio.run(trial.acheck(judge(RUBRIC)))
        else:
            trial.check(judge(RUBRIC))


def test_a_cancelled_judge_leaves_no_vote_behind(provider):
    hold = threading.Event()

    async def cancel():
        loop, arrived = asyncio.get_running_loop(), asyncio.Event()

        def answer(_):
            if len(server.requests) == 3:
                loop.call_soon_threadsafe(arrived.set)
            return Reply(wait=hold)

        with FakeProvider(answer) as server:
            task = asyncio.create_task(judge(RUBRIC, votes=3).ascore(World(provider, True, server).trial()))
            await arrived.wait()
            task.cancel()
            try:
                with pytest.raises(asyncio.CancelledError):
                    await task
                assert asyncio.all_tasks() == {asyncio.current_task()}
            finally:
                hold.set()

    asyncio.run(cancel())


def test_no_vote_goes_on_when_another_ends_in_an_error(provider):
    hold = threading.Event()

    async def ask():
        replies = iter([Reply(status=401), Reply(wait=hold), Reply(wait=hold)])
        lock = threading.Lock()

        def answer(_):
            with lock:
                return next(replies)

        with FakeProvider(answer) as server:
            world = World(provider, True, server)
            trial = world.trial(settings=dataclasses.replace(world.settings, timeout_s=0.3))
            try:
                with pytest.raises(JudgeError, match="refused the key"):
                    await judge(RUBRIC, votes=3).ascore(trial)
                assert asyncio.all_tasks() == {asyncio.current_task()}
            finally:
                hold.set()

    asyncio.run(ask())
