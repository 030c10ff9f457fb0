from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import anthropic
import httpx2
import openai
import pytest
from providers import FakeProvider, Reply

from pytest_touchstone.errors import NetworkBlocked, RecordingError, RecordingMiss
from pytest_touchstone.recording.key import WireRequest
from pytest_touchstone.recording.recorder import Owner, Recorder
from pytest_touchstone.recording.store import encode_entry, read_recording, write_recording
from pytest_touchstone.trial import asking_as

HI = [{"role": "user", "content": "hi"}]
MODEL = "claude-sonnet-5-5"
TOOL = (("refund", '{"order": 17,  "why": "late"}'),)
# openai 3.0 passes the transport's error on where a stream breaks off; later ones wrap it.
BROKEN_OFF = (openai.APIConnectionError, httpx2.RemoteProtocolError)


class Work:
    """A folder with one test module, and sessions that record into it."""

    def __init__(self, root):
        self.root = root
        self.module = root / "evals" / "test_shop.py"
        self.module.parent.mkdir()
        self.module.write_text("")
        self.file = root / "evals" / "__recordings__" / "test_shop.jsonl"
        self.calls = []
        self.misses = []
        self.report = None

    def recorder(self, mode, **kwargs):
        kwargs = {"environ": {}, **kwargs}
        return Recorder(mode=mode, journal_dir=self.root / ".touchstone" / "journals", rootdir=self.root, **kwargs)

    def owner(self, test="test_a", trial=1, module=None):
        return Owner(module=module or self.module, test=test, trial=trial, on_call=self.calls.append, on_miss=self.misses.append)

    @contextlib.contextmanager
    def session(self, mode, *, test="test_a", trial=1, module=None, **kwargs):
        recorder = self.recorder(mode, **kwargs)
        recorder.start()
        try:
            with recorder.own(self.owner(test, trial, module)):
                yield recorder
        finally:
            recorder.stop()
            self.report = recorder.merge()

    def entries(self):
        return read_recording(self.file)

    def written(self):
        """All that lies in the folder, as one text."""
        return "\n".join(path.read_text() for path in sorted(self.root.rglob("*")) if path.is_file())


@pytest.fixture
def work(tmp_path):
    return Work(tmp_path)


@pytest.fixture
def provider():
    with FakeProvider() as server:
        yield server


def clients(provider, **kwargs):
    stack = contextlib.ExitStack()
    chat = stack.enter_context(openai.OpenAI(base_url=provider.openai_url, api_key="k", **kwargs))
    claude = stack.enter_context(anthropic.Anthropic(base_url=provider.anthropic_url, api_key="k", **kwargs))
    return stack, chat, claude


def ask_everything(provider):
    stack, chat, claude = clients(provider)
    with stack:
        said = [chat.chat.completions.create(model="gpt-4o", messages=HI).choices[0].message.model_dump()]
        with chat.chat.completions.create(model="gpt-4o", messages=HI, stream=True, stream_options={"include_usage": True}) as stream:
            said.append([chunk.model_dump() for chunk in stream])
        said.append(chat.responses.create(model="gpt-4o", input="hi").output[0].model_dump())
        with chat.responses.create(model="gpt-4o", input="hi", stream=True) as stream:
            said.append([event.model_dump() for event in stream])
        said.append(claude.messages.create(model=MODEL, max_tokens=9, messages=HI).content[0].model_dump())
        with claude.messages.stream(model=MODEL, max_tokens=9, messages=HI) as stream:
            said.append(stream.get_final_message().model_dump())
    return said


async def aask_everything(provider):
    async with openai.AsyncOpenAI(base_url=provider.openai_url, api_key="k") as chat:
        said = [(await chat.chat.completions.create(model="gpt-4o", messages=HI)).choices[0].message.model_dump()]
        stream = await chat.chat.completions.create(model="gpt-4o", messages=HI, stream=True, stream_options={"include_usage": True})
        said.append([chunk.model_dump() async for chunk in stream])
        said.append((await chat.responses.create(model="gpt-4o", input="hi")).output[0].model_dump())
        stream = await chat.responses.create(model="gpt-4o", input="hi", stream=True)
        said.append([event.model_dump() async for event in stream])
    async with anthropic.AsyncAnthropic(base_url=provider.anthropic_url, api_key="k") as claude:
        said.append((await claude.messages.create(model=MODEL, max_tokens=9, messages=HI)).content[0].model_dump())
        async with claude.messages.stream(model=MODEL, max_tokens=9, messages=HI) as stream:
            said.append((await stream.get_final_message()).model_dump())
    return said


def chat_once(provider, content="hi", **kwargs):
    with openai.OpenAI(base_url=provider.openai_url, api_key="k", **kwargs) as chat:
        return chat.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": content}]).choices[0].message.content


REPLIES = {
    "text": Reply(text="No. Returns end after 30 days, grüße \u2028 \U0001f642."),
    "tools": Reply(tool_calls=TOOL),
    "refusal": Reply(refusal="I cannot help with that."),
    "cached": Reply(text="yes", usage=(100, 7, 60)),
    "odd chunks": Reply(text="cut anywhere — even in a character", chunk=3),
    "gzip": Reply(text="packed", gzip=True),
}


class TestReplay:
    @pytest.mark.parametrize("reply", REPLIES.values(), ids=REPLIES)
    def test_the_apps_see_the_same_without_the_server_sync_and_async(self, work, provider, reply):
        provider.answer = reply
        with work.session("missing"):
            live = ask_everything(provider)
        assert work.report.lines() == ["6 calls recorded in evals/__recordings__/test_shop.jsonl"]
        provider.stop()
        with work.session("none"):
            assert ask_everything(provider) == live
        with work.session("none"):
            assert asyncio.run(aask_everything(provider)) == live
        assert len(provider.requests) == 6
        assert [call.replayed for call in work.calls] == [False] * 6 + [True] * 12
        first, *replays = (work.calls[start : start + 6] for start in (0, 6, 12))
        for replay in replays:
            assert [(call.answer, call.usage, call.messages, call.latency_s) for call in replay] == [
                (call.answer, call.usage, call.messages, call.latency_s) for call in first
            ]

    def test_async_recordings_answer_sync_apps(self, work, provider):
        provider.answer = Reply(text="recorded by tasks", chunk=5)
        with work.session("missing"):
            live = asyncio.run(aask_everything(provider))
        provider.stop()
        with work.session("none"):
            assert ask_everything(provider) == live

    def test_raw_responses(self, work, provider):
        def app():
            with openai.OpenAI(base_url=provider.openai_url, api_key="k") as chat:
                raw = chat.chat.completions.with_raw_response.create(model="gpt-4o", messages=HI)
                with chat.chat.completions.with_streaming_response.create(model="gpt-4o", messages=HI, stream=True) as streamed:
                    lines = list(streamed.iter_lines())
            return raw.status_code, raw.text, raw.headers["x-request-id"], raw.parse().choices[0].message.content, lines

        with work.session("missing"):
            live = app()
        provider.stop()
        with work.session("none"):
            assert app() == live

    def test_the_port_of_a_local_server_does_not_matter(self, work, provider):
        with work.session("missing"):
            chat_once(provider)
        with FakeProvider() as other, work.session("none"):
            assert chat_once(other) == "ok"
            assert other.requests == []

    def test_bad_requests_are_recorded(self, work, provider):
        provider.answer = Reply(status=400, finish="content_filter", error="filtered")
        with work.session("missing"), pytest.raises(openai.BadRequestError, match="filtered"):
            chat_once(provider)
        provider.stop()
        with work.session("none"), pytest.raises(openai.BadRequestError, match="filtered"):
            chat_once(provider)
        assert [(call.status, call.error, call.answer, call.cost_reason) for call in work.calls] == [
            (400, "filtered", None, "the provider answered with status 400")
        ] * 2

    def test_get_requests_are_replayed_but_are_no_calls(self, work, provider):
        def models():
            with openai.OpenAI(base_url=provider.openai_url, api_key="k") as chat:
                return [model.id for model in chat.models.list()]

        with work.session("missing"):
            assert models() == ["fake-model"]
        provider.stop()
        with work.session("none"):
            assert models() == ["fake-model"]
        assert work.calls == []

    def test_uploads_are_the_same_under_another_boundary(self, work, provider):
        def upload(content):
            with httpx2.Client() as client:
                return client.post(f"{provider.url}/v1/files", files={"file": ("a.txt", content)}).json()

        with work.session("missing"):
            live = upload(b"one")
        with work.session("none"):
            assert upload(b"one") == live
            with pytest.raises(RecordingMiss):
                upload(b"two")

    def test_streamed_request_bodies(self, work, provider):
        async def parts():
            yield b'{"model": "m", '
            yield b'"messages": []}'

        async def app():
            async with httpx2.AsyncClient() as client:
                return (await client.post(f"{provider.openai_url}/chat/completions", content=parts())).json()

        def sync_app():
            with httpx2.Client() as client:
                body = iter([b'{"messages": [], ', b'"model": "m"}'])
                return client.post(f"{provider.openai_url}/chat/completions", content=body).json()

        with work.session("missing"):
            live = asyncio.run(app())
        assert provider.requests[0].json == {"model": "m", "messages": []}
        with work.session("none"):
            assert sync_app() == live
        with work.session("all"):
            assert sync_app() == live
        assert provider.requests[1].json == {"model": "m", "messages": []}

    def test_httpx_is_recorded_as_httpx2_is(self, work, provider):
        httpx = pytest.importorskip("httpx")
        body = {"model": "gpt-4o", "messages": HI}
        with work.session("missing"):
            live = httpx.post(f"{provider.openai_url}/chat/completions", json=body).json()
        provider.stop()
        with work.session("none"):
            response = httpx2.post(f"{provider.openai_url}/chat/completions", json=body)
            assert response.json() == live
        with work.session("none"):
            replayed = httpx.post(f"{provider.openai_url}/chat/completions", json=body)
            assert isinstance(replayed, httpx.Response)
            assert replayed.json() == live

    @pytest.mark.parametrize("package", [openai, anthropic], ids=["openai", "anthropic"])
    def test_aiohttp_clients(self, work, provider, package):
        pytest.importorskip("aiohttp")

        async def app():
            async with package.DefaultAioHttpClient() as http:
                if package is openai:
                    client = openai.AsyncOpenAI(base_url=provider.openai_url, api_key="k", http_client=http)
                    return (await client.chat.completions.create(model="gpt-4o", messages=HI)).choices[0].message.content
                client = anthropic.AsyncAnthropic(base_url=provider.anthropic_url, api_key="k", http_client=http)
                return (await client.messages.create(model=MODEL, max_tokens=9, messages=HI)).content[0].text

        with work.session("missing"):
            assert asyncio.run(app()) == "ok"
        provider.stop()
        with work.session("none"):
            assert asyncio.run(app()) == "ok"
        assert len(provider.requests) == 1


class TestModes:
    def test_missing_records_only_what_is_new(self, work, provider):
        with work.session("missing"):
            chat_once(provider, "one")
        with work.session("missing"):
            chat_once(provider, "one")
            chat_once(provider, "two")
        assert [seen.json["messages"][0]["content"] for seen in provider.requests] == ["one", "two"]
        assert work.report.lines() == ["1 call recorded in evals/__recordings__/test_shop.jsonl"]
        assert len(work.entries()) == 2

    def test_all_records_anew_and_keeps_the_line_where_only_ids_differ(self, work, provider):
        with work.session("missing"):
            chat_once(provider)
        before = work.file.read_bytes()
        with work.session("all"):
            chat_once(provider)
        assert work.file.read_bytes() == before
        provider.answer = Reply(text="changed")
        with work.session("all"):
            chat_once(provider)
        assert len(provider.requests) == 3
        assert [entry.body["json"]["choices"][0]["message"]["content"] for entry in work.entries()] == ["changed"]

    def test_off_stores_nothing(self, work, provider):
        with work.session("off", module=Path("/nowhere/test_x.py")):
            assert chat_once(provider) == "ok"
        assert len(work.calls) == 1
        assert [path.name for path in work.root.rglob("*")] == ["evals", "test_shop.py"]

    def test_without_an_owner_nothing_is_recorded(self, work, provider):
        recorder = work.recorder("missing")
        recorder.start()
        try:
            assert chat_once(provider) == "ok"
        finally:
            recorder.stop()
        assert recorder.merge().lines() == []
        assert not work.file.exists()

    def test_after_stop_an_owner_means_nothing(self, work, provider):
        recorder = work.recorder("all")
        recorder.start()
        recorder.start()
        with recorder.own(work.owner()):
            recorder.stop()
            recorder.stop()
            assert chat_once(provider) == "ok"
        assert work.calls == []

    def test_a_recorder_leaves_the_owners_of_another_alone(self, work, provider):
        outer, inner = work.recorder("all"), work.recorder("none")
        outer.start()
        inner.start()
        try:
            with outer.own(work.owner()):
                assert chat_once(provider) == "ok"
        finally:
            inner.stop()
            outer.stop()
        assert outer.merge().lines() == ["1 call recorded in evals/__recordings__/test_shop.jsonl"]

    def test_a_module_outside_of_the_rootdir(self, work):
        problem = r"/nowhere/test_x.py is outside the rootdir .*; choose a --rootdir that holds it"
        with pytest.raises(RecordingError, match=problem), work.session("missing", module=Path("/nowhere/test_x.py")):
            pass


class TestIdentity:
    def test_each_trial_has_its_own_answers(self, work, provider):
        for trial in (1, 2, 3):
            provider.script(Reply(text=f"answer {trial}"))
            with work.session("missing", trial=trial):
                chat_once(provider)
        for trial in (3, 1, 2):
            with work.session("none", trial=trial):
                assert chat_once(provider) == f"answer {trial}"
        with (
            work.session("none", trial=4),
            pytest.raises(RecordingMiss, match="recorded for trial 1 to 3, at most 1 time in a trial; this is trial 4, time 1"),
        ):
            chat_once(provider)

    def test_each_occurrence_has_its_own_answer(self, work, provider):
        provider.script(*(Reply(text=f"answer {number}") for number in range(3)))
        with work.session("missing"):
            live = [chat_once(provider) for _ in range(3)]
        with work.session("none"):
            assert [chat_once(provider) for _ in range(3)] == live == ["answer 0", "answer 1", "answer 2"]
            with pytest.raises(RecordingMiss, match="recorded for trial 1, at most 3 times in a trial; this is trial 1, time 4"):
                chat_once(provider)

    def test_an_owner_entered_again_goes_on_counting(self, work, provider):
        provider.script(Reply(text="first"), Reply(text="second"))
        recorder, owner = work.recorder("missing"), work.owner()
        recorder.start()
        for _ in range(2):
            with recorder.own(owner):
                chat_once(provider)
        recorder.stop()
        recorder.merge()
        assert sorted(entry.occurrence for entry in work.entries()) == [1, 2]

    def test_answers_of_this_session_are_not_reused(self, work, provider):
        recorder = work.recorder("missing")
        recorder.start()
        for test in ("test_a", "test_b"):
            with recorder.own(work.owner(test)):
                chat_once(provider)
        recorder.stop()
        recorder.merge()
        assert len(provider.requests) == 2

    def test_renamed_and_moved_tests_keep_their_recordings(self, work, provider):
        with work.session("missing"):
            chat_once(provider)
        moved = work.root / "other" / "test_moved.py"
        moved.parent.mkdir()
        with work.session("none", test="test_renamed"):
            assert chat_once(provider) == "ok"
        with work.session("none", module=moved, test="test_moved"):
            assert chat_once(provider) == "ok"
        assert len(provider.requests) == 1

    def test_who_asks_does_not_matter(self, work, provider):
        with openai.OpenAI(base_url=provider.openai_url, api_key="k") as chat:
            with work.session("missing"):
                chat.chat.completions.create(model="gpt-4o", messages=HI, user="me", metadata={"run": "1"}, prompt_cache_key="a")
            with work.session("none"):
                chat.chat.completions.create(model="gpt-4o", messages=HI, safety_identifier="you", extra_headers={"x-run": "2"})
        assert "safety_identifier" not in work.written()
        assert '"me"' not in work.written()


class TestMisses:
    def test_the_message_shows_the_nearest_recording_and_the_command(self, work, provider):
        with work.session("missing"):
            chat_once(provider, "Can I return shoes?")
            chat_once(provider, "Something else entirely, with many other words")
        with work.session("none", test="test_a[late return]"), pytest.raises(RecordingMiss) as caught:
            chat_once(provider, "Can I return boots?")
        day = work.entries()[0].at[:10]
        assert str(caught.value).splitlines() == [
            "no recording answers a call of evals/test_shop.py::test_a[late return] (trial 1): POST http://localhost/v1/chat/completions",
            f"the nearest recording is of test_a, from {day}:",
            "--- recorded",
            "+++ asked",
            "@@ -5,3 +5,3 @@",
            "     {",
            '-     "content": "Can I return shoes?",',
            '+     "content": "Can I return boots?",',
            '      "role": "user"',
            "record it: pytest --llm-eval --llm-record missing 'evals/test_shop.py::test_a[late return]'",
        ]
        assert work.misses == [str(caught.value)]

    def test_a_bare_except_does_not_hide_it(self, work, provider):
        with work.session("none"):
            with contextlib.suppress(BaseException):
                chat_once(provider)
            with contextlib.suppress(BaseException):
                asyncio.run(aask_everything(provider))
        assert [message.splitlines()[1] for message in work.misses] == ["there is no recording of this URL"] * 2
        assert provider.requests == []

    def test_hosts_that_are_allowed_are_reached(self, work, provider):
        with work.session("none", allow_hosts=("127.0.0.1",)):
            assert chat_once(provider) == "ok"
        assert work.report.lines() == []
        assert not work.file.exists()

    def test_requests_without_an_owner_are_blocked_with_advice(self, work):
        recorder = work.recorder("none")
        recorder.start()
        try:
            with httpx2.Client() as client, pytest.raises(NetworkBlocked, match=r"api.example.com:8443.*--llm-allow-host api.example.com"):
                client.get("https://api.example.com:8443/x")
        finally:
            recorder.stop()

    def test_requests_of_async_apps_without_an_owner(self, work, provider):
        async def app():
            async with httpx2.AsyncClient() as client:
                with pytest.raises(NetworkBlocked, match=r"api\.example\.com"):
                    await client.get("https://api.example.com/x")
                return (await client.get(f"{provider.openai_url}/models")).status_code

        recorder = work.recorder("none")
        recorder.start()
        try:
            assert asyncio.run(app()) == 200
        finally:
            recorder.stop()

    def test_a_recording_that_cannot_be_decoded_is_a_miss(self, work, provider):
        with work.session("missing"):
            chat_once(provider)
        [entry] = work.entries()
        write_recording(work.file, [replace(entry, body={"json": {}, "layout": 99}, test="test_\x1b")])
        with work.session("missing"), pytest.raises(RecordingMiss) as caught:
            chat_once(provider)
        assert str(caught.value) == (
            "the recording of test_\\x1b cannot be replayed: the stored response body cannot be decoded (tuple index out of range); "
            "record it again: pytest --llm-eval --llm-record all evals/test_shop.py::test_a"
        )
        assert work.misses == [str(caught.value)]
        assert len(provider.requests) == 1

    def test_an_unusable_file_says_so_before_anything_is_asked(self, work):
        work.file.parent.mkdir()
        work.file.write_text("nonsense")
        with pytest.raises(RecordingError, match="is not the first line of a recording"), work.session("missing"):
            pass

    def test_an_unusable_file_is_read_once_for_all_trials(self, work):
        work.file.parent.mkdir()
        work.file.write_text("nonsense")
        recorder = work.recorder("missing")
        for trial in (1, 2):
            with pytest.raises(RecordingError, match="is not the first line of a recording"), recorder.own(work.owner("test_a", trial)):
                pass
            work.file.unlink(missing_ok=True)


class TestNeverRecorded:
    @pytest.mark.parametrize("status", [401, 403, 408, 409, 429, 500, 503])
    def test_the_retry_takes_the_place(self, work, provider, status):
        provider.script(Reply(status=status, retry_after="0"), Reply(text="at last"))
        with work.session("missing"), openai.OpenAI(base_url=provider.openai_url, api_key="k", max_retries=0) as chat:
            with pytest.raises(openai.APIStatusError):
                chat.chat.completions.create(model="gpt-4o", messages=HI)
            assert chat.chat.completions.create(model="gpt-4o", messages=HI).choices[0].message.content == "at last"
        assert [call.status for call in work.calls] == [status, 200]
        assert work.calls[0].error == "scripted failure"
        with work.session("none"):
            assert chat_once(provider) == "at last"
        assert [entry.occurrence for entry in work.entries()] == [1]

    def test_the_retries_of_the_sdk(self, work, provider):
        provider.script(Reply(status=429, retry_after="0"), Reply(status=500, headers={"retry-after-ms": "1"}), Reply(text="at last"))
        with work.session("missing"):
            assert chat_once(provider, max_retries=2) == "at last"
        with work.session("none"):
            assert chat_once(provider, max_retries=2) == "at last"
        assert len(provider.requests) == 3

    def test_broken_connections(self, work, provider):
        provider.script(Reply(drop_after=0), Reply(drop_after=2, text="never to its end"))
        with work.session("missing"), openai.OpenAI(base_url=provider.openai_url, api_key="k", max_retries=0) as chat:
            with pytest.raises(openai.APIConnectionError):
                chat.chat.completions.create(model="gpt-4o", messages=HI)
            with pytest.raises(BROKEN_OFF):
                list(chat.chat.completions.create(model="gpt-4o", messages=HI, stream=True))
        assert [(call.status, call.error.partition(":")[0]) for call in work.calls] == [
            (None, "RemoteProtocolError"),
            (200, "RemoteProtocolError"),
        ]
        assert not work.file.exists()

    def test_broken_connections_of_async_apps(self, work, provider):
        provider.script(Reply(drop_after=0), Reply(drop_after=2, text="never to its end"))

        async def app():
            async with openai.AsyncOpenAI(base_url=provider.openai_url, api_key="k", max_retries=0) as chat:
                with pytest.raises(openai.APIConnectionError):
                    await chat.chat.completions.create(model="gpt-4o", messages=HI)
                with pytest.raises(BROKEN_OFF):
                    [chunk async for chunk in await chat.chat.completions.create(model="gpt-4o", messages=HI, stream=True)]

        with work.session("missing"):
            asyncio.run(app())
        assert not work.file.exists()

    def test_streams_that_end_in_a_passing_error(self, work, provider):
        error = 'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}\n\n'
        provider.script(Reply(body=error, headers={"content-type": "text/event-stream"}))
        with (
            work.session("missing"),
            anthropic.Anthropic(base_url=provider.anthropic_url, api_key="k", max_retries=0) as claude,
            pytest.raises(anthropic.APIStatusError),
            claude.messages.stream(model=MODEL, max_tokens=9, messages=HI) as stream,
        ):
            stream.get_final_message()
        assert [call.error for call in work.calls] == ["Overloaded"]
        assert not work.file.exists()


class TestStreams:
    def test_a_stream_closed_before_its_last_event_is_incomplete(self, work, provider):
        recorder = work.recorder("missing")
        recorder.start()
        try:
            with recorder.own(work.owner()), openai.OpenAI(base_url=provider.openai_url, api_key="k") as chat:
                stream = chat.chat.completions.create(model="gpt-4o", messages=HI, stream=True)
                assert next(iter(stream)).choices[0].delta.content == ""
                assert work.calls == []
                stream.close()
                assert len(work.calls) == 1
        finally:
            recorder.stop()
            recorder.merge()
        assert [entry.incomplete for entry in work.entries()] == [True]

    def test_a_finished_stream_is_stored_before_the_app_closes_it(self, work, provider):
        recorder = work.recorder("missing")
        recorder.start()
        try:
            with recorder.own(work.owner()), httpx2.Client() as client:
                body = {"model": "gpt-4o", "messages": HI, "stream": True}
                with client.stream("POST", f"{provider.openai_url}/chat/completions", json=body) as response:
                    lines = response.iter_lines()
                    assert any(line == "data: [DONE]" for line in lines)
                    assert [call.text for call in work.calls] == ["ok"]
        finally:
            recorder.stop()
            recorder.merge()
        assert [entry.incomplete for entry in work.entries()] == [False]

    def test_closed_early_replays_as_far_as_it_was_read(self, work, provider):
        hold = threading.Event()
        provider.script(Reply(text="one two three four", wait=hold, pause_after=3))

        def app(events):
            with (
                openai.OpenAI(base_url=provider.openai_url, api_key="k") as chat,
                chat.chat.completions.create(model="gpt-4o", messages=HI, stream=True) as stream,
            ):
                return [chunk.choices[0].delta.content for chunk, _ in zip(stream, range(events), strict=False)]

        with work.session("missing"):
            live = app(2)
        hold.set()
        assert live == ["", "one "]
        assert [entry.incomplete for entry in work.entries()] == [True]
        assert work.calls[0].text == "one two "
        with work.session("none"):
            assert app(2) == live
            with pytest.raises(RecordingMiss, match="no recording answers"):
                app(2)
        with work.session("none"), pytest.raises(RecordingMiss, match="reads on where the app had closed the stream") as caught:
            app(9)
        assert work.misses[-1] == str(caught.value)
        assert str(caught.value).endswith("record it again: pytest --llm-eval --llm-record all evals/test_shop.py::test_a")

    def test_cancelled_tasks_leave_an_incomplete_recording(self, work, provider):
        hold = threading.Event()
        provider.script(Reply(text="one two three four", wait=hold, pause_after=3))

        async def app():
            async with openai.AsyncOpenAI(base_url=provider.openai_url, api_key="k") as chat:
                stream = await chat.chat.completions.create(model="gpt-4o", messages=HI, stream=True)
                return [(await anext(stream)).choices[0].delta.content for _ in range(3)], await stream.close()

        with work.session("missing"):
            live = asyncio.run(app())
        hold.set()
        with work.session("none"):
            assert asyncio.run(app()) == live
        assert [entry.incomplete for entry in work.entries()] == [True]

    def test_an_app_that_goes_on_after_a_broken_answer_is_told_once(self, work, provider):
        provider.script(Reply(body=b"not gzip", headers={"content-encoding": "gzip"}))

        def app():
            with (
                httpx2.Client() as client,
                client.stream("POST", f"{provider.openai_url}/chat/completions", json={"messages": []}) as response,
                pytest.raises(httpx2.DecodingError),
            ):
                response.read()

        with work.session("missing"):
            app()
        assert [call.error.partition(":")[0] for call in work.calls] == ["DecodingError"]
        assert not work.file.exists()

    def test_what_follows_the_last_event_is_left_out(self, work, provider):
        tail = 'data: {"choices":[]}\n\ndata: [DONE]\n\n: bye\n\n: bye again\n\n'
        provider.script(Reply(body=tail, headers={"content-type": "text/event-stream"}))

        def app():
            with httpx2.Client() as client:
                return client.post(f"{provider.openai_url}/chat/completions", json={"messages": []}).text

        with work.session("missing"):
            assert app() == tail
        assert len(work.calls) == 1
        with work.session("none"):
            assert app().startswith('data: {"choices":[]}\n\ndata: [DONE]\n\n')

    def test_answers_that_nobody_read_are_not_stored(self, work, provider):
        def app():
            with httpx2.Client() as client, client.stream("POST", f"{provider.openai_url}/chat/completions", json={"messages": []}):
                pass

        with work.session("missing"):
            app()
        assert [call.error for call in work.calls] == ["the app closed the answer before it was read"]
        assert not work.file.exists()

    def test_whatever_comes_after_the_last_event_changes_nothing(self, work):
        request = WireRequest(method="POST", url="http://localhost/v1/responses", headers={}, body=b"{}")
        with work.session("missing") as recorder:
            exchange = recorder.begin(request)
            exchange.answered(200, {"content-type": "text/event-stream"})
            exchange.feed(b"data: [DONE]\n\n")
            exchange.feed(b": bye\n\n")
            exchange.fail(OSError("reset"))
            exchange.close()
            exchange.end()
        assert [call.error for call in work.calls] == [None]
        assert [entry.body["sse"]["tail"] for entry in work.entries()] == [""]


class TestThreads:
    def test_calls_of_an_apps_threads_have_its_owner(self, work, provider):
        def app():
            found = []
            with ThreadPoolExecutor(4) as pool:
                found += pool.map(lambda number: chat_once(provider, f"pool {number}"), range(8))
            thread = threading.Thread(target=lambda: found.append(chat_once(provider, "thread")))
            thread.start()
            thread.join()
            found += asyncio.run(on_threads())
            return found

        async def on_threads():
            loop = asyncio.get_running_loop()
            return [
                await asyncio.to_thread(chat_once, provider, "to_thread"),
                await loop.run_in_executor(None, chat_once, provider, "executor"),
            ]

        provider.answer = lambda seen: Reply(text=seen.json["messages"][0]["content"])
        with work.session("missing"):
            live = app()
        assert len(work.entries()) == len(work.calls) == 11
        with work.session("none"):
            assert app() == live
        assert len(provider.requests) == 11

    def test_a_pool_shared_by_trials_keeps_them_apart(self, work, provider):
        recorder = work.recorder("missing")
        recorder.start()
        with ThreadPoolExecutor(1) as pool:
            for test in ("test_a", "test_b"):
                with recorder.own(work.owner(test)):
                    pool.submit(chat_once, provider, test).result()
            pool.submit(chat_once, provider, "nobody").result()
        recorder.stop()
        recorder.merge()
        assert [entry.test for entry in work.entries()] == ["test_a", "test_b"]

    def test_judges_and_apps_are_told_apart_in_threads(self, work, provider):
        with work.session("missing"), ThreadPoolExecutor(1) as pool:
            with asking_as("judge"):
                pool.submit(chat_once, provider, "a verdict").result()
            pool.submit(chat_once, provider, "an answer").result()
        assert [call.role for call in work.calls] == ["judge", "app"]

    def test_identical_concurrent_calls_get_a_number_each(self, work, provider):
        async def app():
            async with openai.AsyncOpenAI(base_url=provider.openai_url, api_key="k") as chat:
                answers = await asyncio.gather(*(chat.chat.completions.create(model="gpt-4o", messages=HI) for _ in range(5)))
            return sorted(answer.choices[0].message.content for answer in answers)

        provider.script(*(Reply(text=str(number)) for number in range(5)))
        with work.session("missing"):
            live = asyncio.run(app())
        with work.session("none"):
            assert asyncio.run(app()) == live == ["0", "1", "2", "3", "4"]


CHILD = """
import sys
from pathlib import Path

import openai

from pytest_touchstone.recording.recorder import Owner, Recorder

root, url, test, calls = Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
recorder = Recorder(mode="missing", journal_dir=root / ".touchstone" / "journals", rootdir=root, environ={})
recorder.start()
owner = Owner(module=root / "evals" / "test_shop.py", test=test, trial=1, on_call=lambda call: None, on_miss=print)
with recorder.own(owner), openai.OpenAI(base_url=url, api_key="k", max_retries=0) as chat:
    for number in range(calls):
        chat.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": f"{test} {number}"}])
        print(number, flush=True)
sys.stdin.readline()
recorder.stop()
"""


@contextlib.contextmanager
def child(work, provider, test, calls):
    command = [sys.executable, "-c", textwrap.dedent(CHILD), str(work.root), provider.openai_url, test, str(calls)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


class TestCrashes:
    def test_a_killed_run_is_not_paid_for_twice(self, work, provider):
        hold = threading.Event()
        provider.script(Reply(text="one"), Reply(text="two"), Reply(wait=hold))
        with child(work, provider, "test_a", 3) as process:
            assert [process.stdout.readline() for _ in range(2)] == ["0\n", "1\n"]
            os.kill(process.pid, signal.SIGKILL)
        hold.set()
        [journal] = (work.root / ".touchstone" / "journals").glob("*.jsonl")
        with journal.open("a") as file:
            file.write('{"check":"0123')
        paid = len(provider.requests)
        with work.session("missing"):
            assert [chat_once(provider, f"test_a {number}") for number in range(2)] == ["one", "two"]
            assert len(provider.requests) == paid
        assert work.report.lines() == [
            "2 calls recorded in evals/__recordings__/test_shop.jsonl",
            "2 of them saved from a session that was killed",
            f"the last line of the journal {journal.name} was cut off when its session was killed; that call is lost",
        ]
        assert not journal.exists()
        with work.session("none"):
            assert chat_once(provider, "test_a 1") == "two"

    def test_a_read_only_session_replays_what_a_killed_one_left(self, work, provider):
        with child(work, provider, "test_a", 1) as process:
            assert process.stdout.readline() == "0\n"
        with work.session("none"):
            assert chat_once(provider, "test_a 0") == "ok"
        assert work.report.lines() == []
        assert not work.file.exists()

    def test_processes_write_side_by_side_and_only_free_journals_are_merged(self, work, provider):
        with child(work, provider, "test_a", 5) as one, child(work, provider, "test_b", 5) as other:
            for process in (one, other):
                assert [process.stdout.readline() for _ in range(5)] == [f"{number}\n" for number in range(5)]
            assert work.recorder("missing").merge().lines() == []
            one.communicate("\n")
            assert work.recorder("missing").merge().written == (("evals/__recordings__/test_shop.jsonl", 5),)
            other.communicate("\n")
        assert work.recorder("missing").merge().written == (("evals/__recordings__/test_shop.jsonl", 5),)
        assert len(work.entries()) == 10
        assert list((work.root / ".touchstone" / "journals").glob("*.jsonl")) == []

    def test_a_forked_child_does_not_keep_the_journal(self, work, provider):
        recorder = work.recorder("missing")
        recorder.start()
        with recorder.own(work.owner()):
            chat_once(provider)
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(writer)
            os.read(reader, 1)
            os._exit(0)
        recorder.stop()
        try:
            assert recorder.merge().written == (("evals/__recordings__/test_shop.jsonl", 1),)
        finally:
            os.close(writer)
            os.close(reader)
            os.waitpid(child, 0)

    def test_a_journal_that_cannot_be_written_is_told_and_the_app_goes_on(self, work, provider):
        (work.root / ".touchstone").write_text("a file in the way")
        with work.session("missing"):
            assert chat_once(provider) == "ok"
        [line] = work.report.lines()
        assert line.startswith("not stored: the journal in ")
        assert "make room or check its permissions" in line


SECRET = 'hunter2/"quoted"+value=42'


class TestSecrets:
    def test_no_written_file_holds_one(self, work, provider):
        environ = {"SHOP_PASSWORD": SECRET}
        key = "sk-ant-REDACTME0123456789abcdef"
        provider.answer = Reply(
            text=f"you said {SECRET} and {key}", headers={"set-cookie": "session=abcdefgh12345678", "x-request-id": SECRET}
        )
        with (
            work.session("missing", environ=environ),
            openai.OpenAI(base_url=provider.openai_url, api_key="header-secret-0123456789") as chat,
        ):
            content = f"{SECRET} {json.dumps(SECRET)} header-secret-0123456789 {key}"
            answer = chat.chat.completions.create(
                model="gpt-4o", messages=[{"role": "user", "content": content}], extra_query={"api_key": "query-secret-123"}
            )
            list(chat.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": content}], stream=True))
        assert answer.choices[0].message.content == f"you said {SECRET} and {key}"
        written = work.written()
        for secret in (SECRET, json.dumps(SECRET)[1:-1], key, "header-secret", "query-secret", "abcdefgh12345678", "REDACTME"):
            assert secret not in written
        for entry in work.entries():
            for pieces in (shape.get("vary", {}) for shape in entry.body.get("sse", {}).get("shapes", [])):
                assert not any("hunter2" in "".join(map(str, column)) for column in pieces.values())
        assert all(SECRET not in repr(call) and key not in repr(call) for call in work.calls)
        assert [call.text for call in work.calls] == ["you said [redacted] and [redacted]"] * 2

    def test_redaction_does_not_break_replay(self, work, provider):
        environ = {"SHOP_PASSWORD": SECRET}
        with work.session("missing", environ=environ):
            chat_once(provider, f"log in with {SECRET}")
        with work.session("none", environ=environ):
            assert chat_once(provider, f"log in with {SECRET}") == "ok"

    def test_secrets_learnt_later_are_taken_out_at_the_end(self, work, provider):
        with work.session("missing"):
            chat_once(provider, "the key is late-secret-0123456789")
            with openai.OpenAI(base_url=provider.openai_url, api_key="late-secret-0123456789") as chat:
                chat.models.list()
        assert "late-secret" not in work.written()
        assert len(work.entries()) == 2
        with work.session("none"):
            assert chat_once(provider, "the key is late-secret-0123456789") == "ok"

    def test_what_cannot_be_redacted_is_refused_without_naming_the_secret(self, work, provider):
        provider.script(
            Reply(body=b"\xff\xfe binary " + b"hunter2-hunter2", headers={"content-type": "application/octet-stream"}),
            Reply(body='data:{"a":"hunter2-"}\r\n\r\ndata:{"a":"hunter2"}\r\n\r\n', headers={"content-type": "text/event-stream"}),
        )
        with work.session("missing", environ={"SHOP_TOKEN": "hunter2-hunter2"}), httpx2.Client() as client:
            client.get(f"{provider.url}/v1/files/1/content")
            client.get(f"{provider.url}/v1/events")
        assert work.report.lines() == [
            (
                "not stored: a call of test_a to http://localhost/v1/files/1/content: the response body holds a secret inside binary data, "
                "which cannot be redacted"
            ),
            (
                "not stored: a call of test_a to http://localhost/v1/events: the response holds a secret that is split over stream events in a "
                "layout that cannot be redacted"
            ),
        ]
        assert "hunter2" not in work.written()

    def test_nothing_is_refused_where_nothing_is_stored(self, work, provider):
        provider.script(Reply(body=b"\xff hunter2-hunter2", headers={"content-type": "application/octet-stream"}))
        with work.session("off", environ={"SHOP_TOKEN": "hunter2-hunter2"}), httpx2.Client() as client:
            assert client.get(f"{provider.url}/v1/files/1/content").content.startswith(b"\xff")
        assert work.report.lines() == []

    def test_signed_redirects_replay_without_their_signature(self, work, provider):
        def app():
            with httpx2.Client(follow_redirects=True) as client:
                return client.get(f"{provider.url}/v1/files/1/content").json()

        location = f"{provider.url}/v1/stored?X-Amz-Signature=0123456789abcdef0123"
        provider.script(Reply(status=302, body="", headers={"location": location}), Reply(body={"a": 1}))
        with work.session("missing"):
            assert app() == {"a": 1}
        assert "0123456789abcdef0123" not in work.written()
        with work.session("none"):
            assert app() == {"a": 1}

    def test_a_line_that_still_holds_one_is_refused(self, work, provider):
        with work.session("missing", test="test_a[hunter2-hunter2]", environ={"SHOP_TOKEN": "hunter2-hunter2"}):
            chat_once(provider)
        assert work.report.lines() == [
            "not stored: a call of test_a[[redacted]] to http://localhost/v1/chat/completions: its line would hold a secret"
        ]
        assert not work.file.exists()

    def test_errors_are_redacted(self, work, provider):
        provider.answer = Reply(status=500, error="bad key hunter2-hunter2")
        with work.session("missing", environ={"SHOP_TOKEN": "hunter2-hunter2"}) as recorder:
            with pytest.raises(openai.InternalServerError):
                chat_once(provider, max_retries=0)
            assert recorder.redact("hunter2-hunter2") == "[redacted]"
        assert work.calls[0].error == "bad key [redacted]"


def test_start_and_stop_leave_everything_as_it_was(work):
    def state():
        return (
            httpx2.HTTPTransport.handle_request,
            httpx2.AsyncHTTPTransport.handle_async_request,
            threading.Thread.start,
            ThreadPoolExecutor.submit,
            list(sys.meta_path),
            dict(os.environ),
        )

    before = state()
    recorder = work.recorder("none")
    recorder.start()
    assert all(now is not then for now, then in zip(state()[:4], before[:4], strict=True))
    assert os.environ["OPENAI_API_KEY"] == os.environ["ANTHROPIC_API_KEY"] == "touchstone-replays-without-a-key"
    recorder.stop()
    assert state() == before


def test_no_key_is_needed_to_replay(work, provider):
    with work.session("missing"):
        chat_once(provider)
    with work.session("none"), openai.OpenAI(base_url=provider.openai_url) as chat:
        assert chat.chat.completions.create(model="gpt-4o", messages=HI).choices[0].message.content == "ok"


def test_importing_and_starting_import_no_http_client():
    script = """
    import sys
    from pathlib import Path
    from pytest_touchstone.recording.recorder import Recorder
    recorder = Recorder(mode="none", journal_dir=Path("j"), rootdir=Path("."), environ={})
    recorder.start()
    print(sorted({"httpx", "httpx2", "openai", "anthropic", "genai_prices"} & sys.modules.keys()))
    import httpx2
    print(hasattr(httpx2.HTTPTransport.handle_request, "__wrapped__"), type(httpx2.__spec__.loader).__name__, type(httpx2.__loader__).__name__)
    recorder.stop()
    print(hasattr(httpx2.HTTPTransport.handle_request, "__wrapped__"))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "True SourceFileLoader SourceFileLoader", "False"]


def test_entries_name_the_module_in_journals_only(work, provider):
    with work.session("missing"):
        chat_once(provider)
    [entry] = work.entries()
    assert entry.module is None
    assert '"module"' not in encode_entry(entry)
