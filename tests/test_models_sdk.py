"""Models behind the official SDKs, asked over real HTTP: both providers, sync and async."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import re
import ssl
import sys
import threading
import traceback
import warnings
from dataclasses import dataclass
from typing import Any

import pytest
from providers import FakeProvider, Reply

from pytest_touchstone.errors import ModelError, NetworkBlocked, RecordingMiss
from pytest_touchstone.models import sdk as sdk_module
from pytest_touchstone.models.anthropic_messages import AnthropicMessages
from pytest_touchstone.models.client import Answer, Ask, AskFailed
from pytest_touchstone.models.openai_chat import OpenAIChat
from pytest_touchstone.models.sdk import CLIENTS, MAX_ANSWER_BYTES, NO_KEY, Clients

SCHEMA = {"type": "object", "properties": {"verdict": {"type": "string"}}, "required": ["verdict"], "additionalProperties": False}
ASK = Ask(system="Judge.", messages=({"role": "user", "content": "Data"},), max_tokens=50, timeout_s=20)
STRUCTURED = Ask(system="Judge.", messages=ASK.messages, schema=SCHEMA, schema_name="verdict", max_tokens=50, timeout_s=20)
MODELS = {"openai": OpenAIChat, "anthropic": AnthropicMessages}


@dataclass
class World:
    """One provider asked in one way, behind a loopback server."""

    provider: str
    asynchronous: bool
    server: FakeProvider
    clients: Clients

    @property
    def base_url(self):
        return self.server.openai_url if self.provider == "openai" else self.server.anthropic_url

    def model(self, **options):
        return MODELS[self.provider]("m", **{"base_url": self.base_url, "clients": self.clients, **options})

    def ask(self, ask=ASK, **options) -> Answer:
        model = self.model(**options)
        return asyncio.run(model.aask(ask)) if self.asynchronous else model.ask(ask)

    @property
    def sent(self) -> list[Any]:
        return [seen.json for seen in self.server.requests]


SSL_CONTEXT = ssl.create_default_context()


@pytest.fixture(autouse=True)
def plain_surroundings(monkeypatch, tmp_path):
    """No profile of the SDK in the home folder, and certificates that nobody uses read once instead of for every client."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(ssl, "create_default_context", lambda *_, **__: SSL_CONTEXT)


@pytest.fixture
def clients():
    clients = Clients()
    yield clients
    clients.close()


@pytest.fixture(params=["openai", "anthropic"])
def provider(request):
    return request.param


@pytest.fixture(params=[False, True], ids=["sync", "async"])
def world(request, provider, clients):
    with FakeProvider() as server:
        yield World(provider, request.param, server, clients)


def test_text_is_asked_for_and_given(world):
    world.server.script(Reply(text="Fine."))
    assert world.ask() == Answer(text="Fine.", stop="end", model="m")
    user = {"role": "user", "content": "Data"}
    assert world.sent == [
        {"model": "m", "messages": [{"role": "system", "content": "Judge."}, user], "max_completion_tokens": 50}
        if world.provider == "openai"
        else {"model": "m", "system": "Judge.", "messages": [user], "max_tokens": 50}
    ]


def test_a_schema_is_asked_for_in_the_providers_own_structured_form(world):
    given = '{"verdict": "pass"}'
    world.server.script(Reply(text=given) if world.provider == "openai" else Reply(tool_calls=(("verdict", given),)))
    answer = world.ask(STRUCTURED)
    (request,) = world.sent
    if world.provider == "openai":
        assert answer == Answer(text=given, model="m")
        assert request["response_format"] == {"type": "json_schema", "json_schema": {"name": "verdict", "schema": SCHEMA, "strict": True}}
    else:
        assert answer == Answer(data={"verdict": "pass"}, model="m")
        assert request["tools"] == [{"name": "verdict", "description": "Hand in the verdict.", "input_schema": SCHEMA}]
        assert request["tool_choice"] == {"type": "tool", "name": "verdict", "disable_parallel_tool_use": True}
    assert "temperature" not in request


@pytest.mark.parametrize(
    ("calls", "others"), [((("other", "{}"),), True), ((("verdict", "{}"), ("verdict", "{}")), False)], ids=["another tool", "twice"]
)
def test_only_one_call_of_the_tool_asked_for_is_an_answer(clients, calls, others):
    with FakeProvider(Reply(tool_calls=calls)) as server:
        answer = AnthropicMessages("m", base_url=server.anthropic_url, clients=clients).ask(STRUCTURED)
    assert answer == Answer(model="m", calls_tools=others)


@pytest.mark.parametrize(
    ("reply", "stop", "text", "detail"),
    [
        (Reply(text="Fi", finish="length"), "length", "Fi", ""),
        (Reply(refusal="I cannot."), "refusal", {"openai": "", "anthropic": "I cannot."}, {"openai": "I cannot.", "anthropic": ""}),
        (Reply(text="", finish="content_filter"), {"openai": "content_filter", "anthropic": "refusal"}, "", ""),
    ],
    ids=["length", "refusal", "filter"],
)
def test_why_a_model_stopped(world, reply, stop, text, detail):
    def of(value):
        return value[world.provider] if isinstance(value, dict) else value

    world.server.script(reply)
    assert world.ask() == Answer(text=of(text), stop=of(stop), detail=of(detail), model="m")


def test_a_stop_that_is_not_known_is_another(clients):
    body = {"content": [], "stop_reason": "pause_turn", "model": None}
    with FakeProvider(Reply(body=body)) as server:
        assert AnthropicMessages("m", base_url=server.anthropic_url, clients=clients).ask(ASK) == Answer(stop="other")
    body = {"choices": [{"message": {"content": "x"}, "finish_reason": None}], "model": None}
    with FakeProvider(Reply(body=body)) as server:
        assert OpenAIChat("m", base_url=server.openai_url, clients=clients).ask(ASK) == Answer(text="x", stop="other")


def test_anthropics_word_on_a_refusal_is_kept(clients):
    body = {"content": [], "stop_reason": "refusal", "stop_details": {"type": "refusal", "category": None, "explanation": "Not this."}}
    with FakeProvider(Reply(body=body)) as server:
        assert AnthropicMessages("m", base_url=server.anthropic_url, clients=clients).ask(ASK).detail == "Not this."


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        ("<html>Sign in\x1b[31m</html>", r"<html>Sign in\x1b[31m</html>"),
        ("", ""),
        ('{"error": {"message": "upstream failed"}}', '{"error": {"message": "upstream failed"}}'),
        (b"\xff\xfe", "\ufffd\ufffd"),
        ('{"choices": [], "content": {}}', '{"choices": [], "content": {}}'),
    ],
)
def test_a_body_of_another_shape_is_a_failed_ask(world, body, shown):
    world.server.script(Reply(body=body))
    what = {"openai": "a chat completion", "anthropic": "an Anthropic message"}[world.provider]
    with pytest.raises(AskFailed, match=f"^{re.escape(f'sent something that is not {what}: {shown}')}$") as caught:
        world.ask()
    assert caught.value.retry


@pytest.mark.parametrize("gzip", [False, True])
def test_an_endless_answer_is_not_read_to_its_end(world, gzip):
    world.server.script(Reply(body=b" " * (MAX_ANSWER_BYTES + 1), gzip=gzip))
    with pytest.raises(AskFailed, match=r"^sent more than 8 MiB$") as caught:
        world.ask()
    assert not caught.value.retry


def test_failures_of_the_server_are_told_apart_and_not_retried_by_the_sdk(world):
    world.server.script(
        Reply(status=429, retry_after="7", error="slow down"),
        Reply(status=529, error="busy"),
        Reply(status=401, error="sk-1"),
        Reply(status=404, error="no m"),
    )
    with pytest.raises(AskFailed, match=r"^is rate limited \(HTTP 429: slow down\)$") as limited:
        world.ask()
    assert limited.value.retry_after_s == 7
    with pytest.raises(AskFailed, match=r"^is not available \(HTTP 529: busy\)$"):
        world.ask()
    variable = f"{world.provider.upper()}_API_KEY"
    with pytest.raises(ModelError, match=rf"^the server refused the key \(HTTP 401\); check {variable}$") as refused:
        world.ask()
    assert "sk-1" not in "".join(traceback.format_exception(refused.value))
    with pytest.raises(ModelError, match=r"^the server knows no such model or address \(HTTP 404: no m\); check"):
        world.ask()
    assert len(world.server.requests) == 4


def test_a_connection_that_breaks_is_a_failed_ask(world):
    world.server.script(Reply(drop_after=0))
    with pytest.raises(AskFailed, match=r"^could not be reached \(RemoteProtocolError: Server disconnected without sending a response.\)$"):
        world.ask()


def test_an_answer_that_breaks_off_is_a_failed_ask(world):
    world.server.script(Reply(body=b"{}", headers={"content-length": "100"}))
    with pytest.raises(AskFailed, match=r"^could not be reached \(RemoteProtocolError: "):
        world.ask()


def test_a_server_that_is_not_there_is_a_failed_ask(world):
    world.server.stop()
    with pytest.raises(AskFailed, match=r"^could not be reached \(ConnectError: .*\)$"):
        world.ask()


def test_a_server_that_says_nothing_gets_only_its_time(world):
    hold = threading.Event()
    world.server.script(Reply(wait=hold))
    ask = Ask(system="", messages=ASK.messages, max_tokens=1, timeout_s=0.05)
    try:
        with pytest.raises(AskFailed, match=r"^gave no answer within 0.05 s$"):
            world.ask(ask, monotonic=lambda: 0.0)
    finally:
        hold.set()


def test_an_answer_that_trickles_in_gets_only_its_time(provider, clients):
    times = iter([0.0, 0.0, 20.5])
    with FakeProvider() as server, pytest.raises(AskFailed, match=r"^gave no answer within 20 s$"):
        World(provider, False, server, clients).ask(monotonic=lambda: next(times))


def test_a_second_form_is_not_begun_when_the_time_is_over(world):
    times = iter([0.0, *([20.0] * 5)])
    with pytest.raises(AskFailed, match=r"^gave no answer within 20 s$"):
        world.ask(monotonic=lambda: next(times))
    assert world.sent == []


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("status", [400, 422, 501])
def test_a_server_that_knows_no_response_format_is_asked_once_in_words(clients, asynchronous, status):
    with FakeProvider() as server:
        world = World("openai", asynchronous, server, clients)
        server.script(Reply(status=status, error="response_format is unsupported"), Reply(text='{"verdict": "pass"}'))
        assert world.ask(STRUCTURED).text == '{"verdict": "pass"}'
        words = f"Answer with one JSON object and nothing else, no prose and no code fence. It must match this JSON schema:\n{json.dumps(SCHEMA)}"
        assert world.sent[1] == {
            "model": "m",
            "messages": [{"role": "system", "content": f"Judge.\n\n{words}"}, {"role": "user", "content": "Data"}],
            "max_tokens": 50,
        }
        server.script(Reply(status=status, error="first"), Reply(status=status, error="second"))
        with pytest.raises(ModelError, match=rf"^the server refused the request \(HTTP {status}: first\)$"):
            world.ask(STRUCTURED)
        assert len(world.sent) == 4


def test_a_rejected_request_without_another_form_is_a_model_error(world):
    world.server.script(Reply(status=400, error="no"))
    with pytest.raises(ModelError, match=r"^the server refused the request \(HTTP 400: no\)$"):
        world.ask()


def test_a_server_of_the_users_own_needs_no_key(world):
    world.ask()
    assert world.server.requests[0].headers["authorization"] == f"Bearer {NO_KEY}"


def test_the_key_and_the_address_come_from_the_environment_as_for_the_sdk(world, monkeypatch):
    prefix = world.provider.upper()
    monkeypatch.setenv(f"{prefix}_API_KEY", "first-key")
    monkeypatch.setenv(f"{prefix}_BASE_URL", world.base_url)
    world.ask(base_url=None)
    monkeypatch.setenv(f"{prefix}_API_KEY", "second-key")
    world.ask(base_url=None)
    assert [seen.headers["authorization"] for seen in world.server.requests] == ["Bearer first-key", "Bearer second-key"]


def test_anthropic_takes_a_token_in_place_of_a_key(clients, monkeypatch):
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "token-1")
    with FakeProvider() as server:
        AnthropicMessages("m", base_url=server.anthropic_url, clients=clients).ask(ASK)
        assert server.requests[0].headers["authorization"] == "Bearer token-1"


@pytest.mark.parametrize("address", [None, "default", "regional"])
def test_the_provider_itself_wants_a_key(world, monkeypatch, address):
    urls = {None: None, "default": f"https://api.{world.provider}.com/v1", "regional": f"https://eu.api.{world.provider}.com/v1"}
    message = f"{world.provider.upper()}_API_KEY is not set; export it, or give the base URL of a server that needs no key"
    with pytest.raises(ModelError, match=f"^{re.escape(message)}$"):
        world.ask(base_url=urls[address])


def test_a_missing_sdk_names_the_extra(world, monkeypatch):
    monkeypatch.setitem(sys.modules, world.provider, None)
    message = f"the {world.provider} SDK is not installed; run pip install 'pytest-touchstone[{world.provider}]'"
    with pytest.raises(ModelError, match=f"^{re.escape(message)}$"):
        world.ask()


def test_a_bad_base_url_is_a_model_error(world):
    with pytest.raises(ModelError, match=r"^the base URL is not one; write it as http://localhost:8000/v1$"):
        world.ask(base_url="localhost:8000")


def test_what_else_the_sdk_says_is_a_model_error(world, monkeypatch, tmp_path):
    if world.provider == "anthropic":
        monkeypatch.setenv("ANTHROPIC_PROFILE", "nowhere")
        message = r"^the anthropic SDK says: .*nowhere.*"
    else:
        import openai

        def fail(**_):
            msg = "mutually\nexclusive"
            raise openai.OpenAIError(msg)

        monkeypatch.setattr(openai, "AsyncOpenAI" if world.asynchronous else "OpenAI", fail)
        message = r"^the openai SDK says: mutually exclusive$"
    with pytest.raises(ModelError, match=message):
        world.ask()


def test_an_sdk_error_while_asking_is_a_model_error(world, monkeypatch):
    import importlib

    package = importlib.import_module(world.provider)
    error = getattr(package, MODELS[world.provider].sdk_error)

    def fail(self, body, ask):
        msg = "no token"
        raise error(msg)

    monkeypatch.setattr(MODELS[world.provider], "read", fail)
    with pytest.raises(ModelError, match=rf"^the {world.provider} SDK says: no token$"):
        world.ask()


@pytest.mark.parametrize("error", [RecordingMiss, NetworkBlocked, KeyboardInterrupt])
def test_what_must_stop_the_test_is_not_caught(world, monkeypatch, error):
    import httpx2

    def stop(*_):
        raise error

    async def astop(*_):
        raise error

    monkeypatch.setattr(httpx2.HTTPTransport, "handle_request", stop)
    monkeypatch.setattr(httpx2.AsyncHTTPTransport, "handle_async_request", astop)
    with pytest.raises(error):
        world.ask()


def test_a_cancelled_question_stays_cancelled(provider, clients):
    hold = threading.Event()

    async def cancel():
        loop, arrived = asyncio.get_running_loop(), asyncio.Event()

        def answer(_):
            loop.call_soon_threadsafe(arrived.set)
            return Reply(wait=hold)

        with FakeProvider(answer) as server:
            task = asyncio.create_task(World(provider, True, server, clients).model().aask(ASK))
            await arrived.wait()
            task.cancel()
            try:
                await task
            finally:
                hold.set()

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(cancel())


def test_sync_clients_are_made_once_for_each_server_and_closed_together(provider):
    clients = Clients()
    with FakeProvider() as server:
        world = World(provider, False, server, clients)
        for _ in range(3):
            world.ask()
        (client,) = clients._sync.values()
        clients.close()
        assert client.is_closed()
        assert not clients._sync
        clients.close()


def test_async_clients_are_made_once_for_each_loop_and_closed_with_it(provider, clients):
    with FakeProvider() as server:
        model = World(provider, True, server, clients).model()
        kept = []

        async def twice():
            await asyncio.gather(model.aask(ASK), model.aask(ASK))
            await model.aask(ASK)
            (entry,) = [entry for loop, entry in clients._async.items() if loop is asyncio.get_running_loop()]
            ((client, _),) = entry.values()
            assert not client.is_closed()
            kept.append(client)

        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for _ in range(2):
                asyncio.run(twice())
            gc.collect()
        assert [client.is_closed() for client in kept] == [True, True]
        assert kept[0] is not kept[1]
        assert len(clients._async) == 0


def test_a_loop_that_was_closed_without_a_shutdown_is_forgotten(clients):
    class Client:
        async def close(self):
            pass

    loop = asyncio.new_event_loop()
    loop.run_until_complete(clients.aget("k", Client))
    loop.close()
    asyncio.run(clients.aget("k", Client))
    assert len(clients._async) == 0


def test_threads_share_a_client(provider, clients):
    with FakeProvider() as server:
        world = World(provider, False, server, clients)
        threads = [threading.Thread(target=world.ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(server.requests) == 8
    assert len(clients._sync) == 1


@pytest.mark.parametrize("key", [None, "k"])
def test_anthropics_spans_are_off(clients, monkeypatch, key):
    if key:
        monkeypatch.setenv("ANTHROPIC_API_KEY", key)
    with FakeProvider() as server:
        AnthropicMessages("m", base_url=server.anthropic_url, clients=clients).ask(ASK)
    (client,) = clients._sync.values()
    assert client.open_telemetry["traces"]["enabled"] is False


def test_no_key_stands_in_the_holder_or_the_log(world, monkeypatch, caplog):
    monkeypatch.setenv(f"{world.provider.upper()}_API_KEY", "sk-very-secret")
    with caplog.at_level(logging.INFO):
        world.ask()
    assert "sk-very-secret" not in caplog.text
    assert "sk-very-secret" not in repr((vars(world.clients), vars(world.model())))


def test_the_process_has_one_holder_of_clients():
    assert MODELS["openai"]("m")._clients is CLIENTS is sdk_module.CLIENTS
