from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from providers import Reply, Seen, events, whole

from pytest_touchstone.recording.body import encode_body
from pytest_touchstone.recording.key import WireRequest, ask
from pytest_touchstone.recording.redact import Redactor
from pytest_touchstone.recording.wire import answer_body, api_of, is_terminal, provider_of, read_call, transient_error
from pytest_touchstone.trial import Usage

PLAIN = Redactor()
PATHS = {"chat": "/v1/chat/completions", "responses": "/v1/responses", "messages": "/v1/messages"}
APIS = list(PATHS)
TOOL = (("refund", '{"order": 17}'), ("close", '{"why": "late"}'))


def asked(api, body, host="api.openai.com"):
    return ask(WireRequest(method="POST", url=f"https://{host}{PATHS[api]}", headers={}, body=json.dumps(body).encode()), PLAIN)


def seen(api, **body):
    return Seen(method="POST", path=PATHS[api], headers={}, body=b"", json={"model": "m", **body})


def stored(api, reply, *, stream=False, **body):
    if not stream:
        return encode_body(json.dumps(whole(seen(api, **body), reply)).encode(), "application/json", PLAIN)
    return encode_body(b"".join(events(seen(api, stream=True, **body), reply)), "text/event-stream", PLAIN)


def call(api, body=None, answer=None, *, status=200, host="api.openai.com", error=None):
    return read_call(
        asked(api, {"model": "m"} if body is None else body, host),
        api=api,
        role="app",
        status=status,
        body=answer,
        latency_s=0.5,
        cost=(None, "?"),
        replayed=False,
        error=error,
    )


class TestAnswers:
    @pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
    @pytest.mark.parametrize("api", APIS)
    def test_text(self, api, stream):
        reply = Reply(text="It is late.", usage=(10, 5, 4))
        found = call(api, None, stored(api, reply, stream=stream, stream_options={"include_usage": True}))
        assert found.answer == {"role": "assistant", "content": "It is late."}
        assert found.text == "It is late."
        assert found.usage == Usage(input_tokens=10, output_tokens=5, cached_tokens=4)
        assert (found.provider, found.model, found.error, found.status) == ("openai", "m", None, 200)

    @pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
    @pytest.mark.parametrize("api", APIS)
    def test_tool_calls(self, api, stream):
        found = call(api, None, stored(api, Reply(tool_calls=TOOL), stream=stream)).answer
        identity = "toolu_" if api == "messages" else "call_"
        assert found == {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": f"{identity}{n}", "type": "function", "function": {"name": name, "arguments": text}}
                for n, (name, text) in enumerate(TOOL)
            ],
        }

    @pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
    @pytest.mark.parametrize("api", APIS)
    def test_refusals(self, api, stream):
        found = call(api, None, stored(api, Reply(refusal="No."), stream=stream))
        assert found.answer == {"role": "assistant", "content": None, "refusal": "No."}
        assert found.text is None

    @pytest.mark.parametrize("api", APIS)
    def test_a_stream_closed_early(self, api):
        data = b"".join(list(events(seen(api, stream=True), Reply(text="one two three")))[:6])
        body = encode_body(data, "text/event-stream", PLAIN)
        assert "one three".startswith(call(api, None, body).text[:3])
        assert call(api, None, body).usage.output_tokens in {None, 1}

    def test_a_chat_stream_without_usage(self):
        assert call("chat", None, stored("chat", Reply(), stream=True)).usage == Usage()

    def test_further_choices_are_left_out(self):
        chunks = [{"choices": [{"index": 1, "delta": {"content": "b"}}, {"index": 0, "delta": {"content": "a"}}]}]
        body = {"text": "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks)}
        assert call("chat", None, body).text == "a"

    def test_anthropics_cache_is_added(self):
        usage = {"input_tokens": 3, "cache_read_input_tokens": 8, "cache_creation_input_tokens": 5, "output_tokens": 7}
        assert call("messages", None, {"json": {"content": [], "usage": usage}}).usage == Usage(
            input_tokens=16, output_tokens=7, cached_tokens=8
        )

    def test_what_else_a_message_holds_is_kept(self):
        message = {"role": "assistant", "content": "x", "refusal": None, "annotations": [], "audio": {"id": 1}}
        assert call("chat", None, {"json": {"choices": [{"message": message}]}}).answer == {
            "role": "assistant",
            "content": "x",
            "audio": {"id": 1},
        }


class TestMessages:
    def test_chat_messages_are_as_they_are(self):
        messages = [{"role": "developer", "content": "d"}, {"role": "user", "content": [{"type": "text", "text": "x"}]}]
        tools = [{"type": "function", "function": {"name": "f"}}]
        found = call("chat", {"model": "m", "messages": messages, "tools": tools})
        assert (found.messages, found.tools) == (tuple(messages), tuple(tools))

    def test_anthropic(self):
        image = {"type": "image", "source": {}}
        body = {
            "model": "claude",
            "system": [{"type": "text", "text": "Be"}, {"type": "text", "text": "kind."}],
            "messages": [
                {"role": "user", "content": "hi"},
                {
                    "role": "assistant",
                    "content": [{"type": "text", "text": "I look."}, {"type": "tool_use", "id": "t1", "name": "look", "input": {"a": 1}}],
                },
                {
                    "role": "user",
                    "content": [{"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "17"}]}, image],
                },
                {"role": "assistant", "content": [{"type": "tool_use", "id": "t2", "name": "look", "input": {}}]},
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t2", "content": "18"}]},
                {"role": "user", "content": []},
            ],
            "tools": [
                {"name": "look", "description": "d", "input_schema": {"type": "object"}},
                {"type": "web_search_20250305", "name": "web_search"},
            ],
        }
        found = call("messages", body, host="api.anthropic.com")
        assert found.provider == "anthropic"
        assert list(found.messages) == [
            {"role": "system", "content": "Be\nkind."},
            {"role": "user", "content": "hi"},
            {
                "role": "assistant",
                "content": "I look.",
                "tool_calls": [{"id": "t1", "type": "function", "function": {"name": "look", "arguments": '{"a": 1}'}}],
            },
            {"role": "tool", "tool_call_id": "t1", "content": "17"},
            {"role": "user", "content": [image]},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "t2", "type": "function", "function": {"name": "look", "arguments": "{}"}}],
            },
            {"role": "tool", "tool_call_id": "t2", "content": "18"},
            {"role": "user", "content": ""},
        ]
        assert list(found.tools) == [
            {"type": "function", "function": {"name": "look", "description": "d", "parameters": {"type": "object"}}},
            {"type": "web_search_20250305", "name": "web_search"},
        ]

    def test_responses(self):
        function = {"type": "function_call", "call_id": "c1", "name": "look", "arguments": '{"a": 1}'}
        body = {
            "model": "m",
            "instructions": "Be kind.",
            "input": [
                {"role": "user", "content": [{"type": "input_text", "text": "hi"}]},
                {"type": "reasoning", "summary": []},
                function,
                {**function, "call_id": "c2"},
                {"type": "function_call_output", "call_id": "c1", "output": "17"},
                {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "17 it is"}]},
                {"type": "web_search_call", "id": "w"},
            ],
            "tools": [{"type": "function", "name": "look", "parameters": {}, "strict": True}, {"type": "web_search"}],
        }
        calls = [{"id": identity, "type": "function", "function": {"name": "look", "arguments": '{"a": 1}'}} for identity in ("c1", "c2")]
        found = call("responses", body)
        assert list(found.messages) == [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": None, "tool_calls": calls},
            {"role": "tool", "tool_call_id": "c1", "content": "17"},
            {"role": "assistant", "content": "17 it is"},
            {"role": "assistant", "content": [{"type": "web_search_call", "id": "w"}]},
        ]
        assert list(found.tools) == [
            {"type": "function", "function": {"name": "look", "strict": True, "parameters": {}}},
            {"type": "web_search"},
        ]

    def test_plain_responses_input(self):
        assert call("responses", {"model": "m", "input": "hi"}).messages == ({"role": "user", "content": "hi"},)


class TestErrors:
    @pytest.mark.parametrize(
        ("body", "error"),
        [
            ({"json": {"error": {"message": "too long"}}}, "too long"),
            ({"json": {"error": "plain"}}, "plain"),
            ({"text": "x" * 900}, "x" * 500),
            ({"base64": "AAAA"}, ""),
        ],
    )
    def test_statuses(self, body, error):
        found = call("chat", None, body, status=400)
        assert (found.error or "", found.answer) == (error, None)

    def test_no_answer_at_all(self):
        assert call("chat", None, None, status=None, error="ConnectError: no").error == "ConnectError: no"

    @pytest.mark.parametrize(
        ("event", "message", "transient"),
        [
            ({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, "Overloaded", True),
            ({"error": {"message": "slow down", "code": "rate_limit_exceeded"}}, "slow down", True),
            ({"type": "error", "code": "server_error", "message": "oops"}, "oops", True),
            ({"type": "response.failed", "response": {"error": {"code": "server_error", "message": "oops"}}}, "oops", True),
            ({"type": "response.failed", "response": {"error": {"code": "invalid_prompt", "message": "bad"}}}, "bad", False),
            ({"type": "error", "error": {"type": "invalid_request_error"}}, "the stream ended in an error", False),
            ({"error": "plain"}, "plain", False),
            ({"type": "message_stop"}, None, False),
        ],
    )
    def test_errors_inside_streams(self, event, message, transient):
        body = encode_body(f"data: {json.dumps(event)}\n\n".encode(), "text/event-stream", PLAIN)
        assert call("messages", None, body).error == message
        assert transient_error(body) is transient


class TestWhatIsWhat:
    @pytest.mark.parametrize(
        ("host", "provider"),
        [
            ("api.openai.com", "openai"),
            ("eu.api.openai.com", "openai"),
            ("api.anthropic.com", "anthropic"),
            ("127.0.0.1", "localhost"),
            ("notopenai.com", "notopenai.com"),
            ("openai.com.evil.example", "openai.com.evil.example"),
        ],
    )
    def test_providers(self, host, provider):
        assert provider_of(host) == provider

    def test_apis(self):
        assert [api_of(asked(api, {})) for api in APIS] == APIS
        odd = WireRequest(method="GET", url="https://x/v1/responses", headers={}, body=b"{}")
        assert api_of(ask(odd, PLAIN)) is None
        assert api_of(ask(WireRequest(method="POST", url="https://x/v1/responses", headers={}, body=b"x"), PLAIN)) is None
        assert api_of(ask(WireRequest(method="POST", url="https://x/v1/files", headers={}, body=b"{}"), PLAIN)) is None

    @pytest.mark.parametrize(
        ("event", "terminal"),
        [
            (b"data: [DONE]", True),
            (b'event: message_stop\ndata: {"type":"message_stop"}', True),
            (b'data:{"type":"response.completed","response":{}}', True),
            (b'data: {"type":"response.incomplete"}', True),
            (b'data: {"type":"response.failed"}', True),
            (b'data: {"type":"response.output_text.delta","delta":"response.completed"}', False),
            (b'data: {"choices":[{"delta":{"content":"[DONE]"}}]}', False),
            (b"data: message_stop", False),
            (b"event: message_stop", False),
            (b": ping", False),
        ],
    )
    def test_terminal_events(self, event, terminal):
        assert is_terminal(event) is terminal


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda children: (
        st.lists(children, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "model",
                    "messages",
                    "system",
                    "input",
                    "instructions",
                    "content",
                    "role",
                    "tools",
                    "type",
                    "tool_use",
                    "text",
                    "choices",
                    "message",
                    "delta",
                    "index",
                    "tool_calls",
                    "function",
                    "arguments",
                    "usage",
                    "prompt_tokens",
                    "input_tokens",
                    "error",
                    "response",
                    "output",
                    "item",
                    "output_index",
                    "partial_json",
                    "content_block",
                ]
            )
            | st.text(max_size=3),
            children,
            max_size=4,
        )
    ),
    max_leaves=20,
)
kinds = st.sampled_from(
    [
        "content_block_start",
        "content_block_delta",
        "message_start",
        "message_delta",
        "response.output_item.done",
        "response.output_text.delta",
        "error",
        "function_call",
        "function_call_output",
        "message",
        "tool_use",
        "tool_result",
        "text",
    ]
)


@given(st.sampled_from(APIS), st.dictionaries(st.sampled_from(["model", "messages", "system", "input", "tools"]), anything), anything)
def test_no_body_makes_it_raise(api, request, answer):
    found = call(api, request, {"json": answer})
    assert isinstance(found.model, str)
    call(api, request, {"json": answer}, status=400)


@given(
    st.sampled_from(APIS),
    st.lists(
        st.tuples(
            kinds,
            st.dictionaries(
                st.sampled_from(["delta", "index", "item", "usage", "content_block", "choices", "message", "response"]), anything
            ),
        )
    ),
)
def test_no_stream_makes_it_raise(api, rows):
    data = "".join(f"data: {json.dumps({**event, 'type': kind})}\n\n" for kind, event in rows).encode()
    body = encode_body(data, "text/event-stream", PLAIN)
    call(api, None, body)
    transient_error(body)


@given(st.sampled_from(APIS), kinds, anything)
def test_no_message_makes_it_raise(api, kind, value):
    blocks = [{"type": kind, **value}] if isinstance(value, dict) else [{"type": kind, "content": value, "text": value, "input": value}]
    call(api, {"messages": [{"role": "user", "content": blocks}], "input": blocks, "system": blocks, "tools": blocks})
    answer_body(api, {"json": {"content": blocks, "output": blocks, "choices": blocks}})
    call(api, None, {"json": {"content": blocks, "output": blocks, "choices": blocks}})
