"""Model calls in what went over the wire: requests and responses of OpenAI's and Anthropic's APIs, in OpenAI chat shape.

Whatever stood on the wire may be malformed. Nothing here raises because of that: what cannot be read is None or left out.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal, cast
from urllib.parse import urlsplit

from pytest_touchstone.recording.body import body_events, body_json, body_text, parse_json
from pytest_touchstone.recording.guard import is_loopback
from pytest_touchstone.trial import Call, Usage

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pytest_touchstone.recording.key import Asked
    from pytest_touchstone.trial import Role

Api = Literal["chat", "responses", "messages"]
Object = dict[str, Any]

_ENDINGS: tuple[tuple[str, Api], ...] = (("/chat/completions", "chat"), ("/responses", "responses"), ("/messages", "messages"))
_PROVIDERS = (("openai.com", "openai"), ("anthropic.com", "anthropic"))
_TRANSIENT = frozenset({"overloaded_error", "api_error", "rate_limit_error", "timeout_error", "server_error", "rate_limit_exceeded"})
_TERMINAL = (b"[DONE]", b"message_stop", b"response.completed", b"response.failed", b"response.incomplete")
_TERMINAL_TYPES = frozenset(kind.decode() for kind in _TERMINAL[1:])
MAX_ERROR = 500


def api_of(asked: Asked) -> Api | None:
    """Which model API a request calls, None where it calls none."""
    if asked.method != "POST" or not isinstance(asked.json, dict):
        return None
    path = urlsplit(asked.url).path.rstrip("/")
    return next((api for ending, api in _ENDINGS if path.endswith(ending)), None)


def provider_of(host: str) -> str:
    """The provider's name: `openai`, `anthropic`, or the host; `localhost` for every server on this machine."""
    name = host.lower()
    known = next((provider for domain, provider in _PROVIDERS if name == domain or name.endswith(f".{domain}")), None)
    return known or ("localhost" if is_loopback(name) else name)


def is_terminal(event: bytes) -> bool:
    """Whether a server-sent event (without the blank line after it) is the last one of an answer."""
    # Most events are deltas: parsing only what can be terminal keeps long streams cheap.
    if not any(kind in event for kind in _TERMINAL):
        return False
    data = [line[5:].strip() for line in event.split(b"\n") if line.startswith(b"data:")]
    return any(text == b"[DONE]" or _kind(parse_json(text)) in _TERMINAL_TYPES for text in data)


def transient_error(body: Mapping[str, Any]) -> bool:
    """Whether a stream ended in an error that a retry may not see again: such an answer is never recorded."""
    return any(_transient(_object(event)) for event in body_events(body))


def _transient(event: Object) -> bool:
    error = _object(event.get("error"))
    if event.get("type") == "response.failed":
        error = _object(_object(event.get("response")).get("error"))
    elif event.get("type") == "error" and not error:
        error = event
    return _kind(error) in _TRANSIENT or _text(error.get("code")) in _TRANSIENT


def answer_body(api: Api, body: Mapping[str, Any]) -> Object:
    """The whole answer as the API gives it when it does not stream: streams are put together from their events."""
    events = [_object(event) for event in body_events(body)]
    if not events:
        return _object(body_json(body))
    if api == "chat":
        return _join_chat(events)
    return _join_messages(events) if api == "messages" else _join_response(events)


def read_call(
    asked: Asked,
    *,
    api: Api,
    role: Role,
    status: int | None,
    body: Mapping[str, Any] | None,
    latency_s: float | None,
    cost: tuple[float | None, str],
    replayed: bool,
    error: str | None = None,
    host: str = "",
) -> Call:
    """The call that a request and its (redacted, stored) response make; `error` is that of a request that got no response."""
    request = _object(asked.json)
    answer = answer_body(api, body) if body is not None and status == 200 else {}
    failed = error if body is None or status is None or status < 400 else _error_text(body)
    return Call(
        role=role,
        provider=provider_of(asked.host),
        model=_text(request.get("model")) or _text(answer.get("model")) or "",
        messages=tuple(_MESSAGES[api](request)),
        tools=tuple(_tools(request)),
        answer=_ANSWERS[api](answer),
        usage=read_usage(api, answer),
        cost_usd=cost[0],
        cost_reason=cost[1],
        latency_s=latency_s,
        status=status,
        error=failed or _stream_error(body, status),
        replayed=replayed,
        host=host,
        finish_reason=_finish_reason(api, answer),
    )


def _finish_reason(api: Api, answer: Object) -> str:
    if api == "chat":
        choices = _objects(answer.get("choices"))
        return _text(choices[0].get("finish_reason")) or "" if choices else ""
    if api == "messages":
        return _text(answer.get("stop_reason")) or ""
    return _text(_object(answer.get("incomplete_details")).get("reason")) or _text(answer.get("status")) or ""


def read_usage(api: Api, answer: Object) -> Usage:
    """The tokens that an answer reports; Anthropic counts what was read from the cache beside its input tokens, so it is added."""
    usage = _object(answer.get("usage"))
    if api == "chat":
        read, written = _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))
        cached = _count(_object(usage.get("prompt_tokens_details")).get("cached_tokens"))
        return Usage(input_tokens=read, output_tokens=written, cached_tokens=cached)
    read, written = _count(usage.get("input_tokens")), _count(usage.get("output_tokens"))
    if api == "responses":
        cached = _count(_object(usage.get("input_tokens_details")).get("cached_tokens"))
        return Usage(input_tokens=read, output_tokens=written, cached_tokens=cached)
    cached = _count(usage.get("cache_read_input_tokens"))
    if read is not None:
        read += (cached or 0) + (_count(usage.get("cache_creation_input_tokens")) or 0)
    return Usage(input_tokens=read, output_tokens=written, cached_tokens=cached)


# What was sent, in OpenAI chat shape


def _chat_messages(request: Object) -> Iterable[Object]:
    return _objects(request.get("messages"))


def _anthropic_messages(request: Object) -> Iterable[Object]:
    system = _flat(request.get("system"))
    if system:
        yield {"role": "system", "content": system}
    for message in _objects(request.get("messages")):
        yield from _anthropic_message(message)


def _anthropic_message(message: Object) -> Iterable[Object]:
    role, content = _text(message.get("role")) or "user", message.get("content")
    if not isinstance(content, list):
        yield {"role": role, "content": content}
        return
    blocks = _objects(cast("Any", content))
    yield from (_tool_result(block) for block in blocks if block.get("type") == "tool_result")
    calls = [_tool_use(block) for block in blocks if block.get("type") == "tool_use"]
    rest = [block for block in blocks if _kind(block) not in {"tool_result", "tool_use"}]
    if calls:
        yield {"role": role, "content": _flat(rest) if rest else None, "tool_calls": calls}
    elif rest or not blocks:
        yield {"role": role, "content": _flat(rest)}


def _tool_result(block: Object) -> Object:
    return {"role": "tool", "tool_call_id": block.get("tool_use_id"), "content": _flat(block.get("content"))}


def _tool_use(block: Object) -> Object:
    arguments = block.get("input")
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return _tool_call(block.get("id"), block.get("name"), text)


def _tool_call(identity: object, name: object, arguments: object) -> Object:
    return {"id": identity, "type": "function", "function": {"name": name, "arguments": arguments}}


def _response_messages(request: Object) -> Iterable[Object]:
    instructions = _text(request.get("instructions"))
    if instructions:
        yield {"role": "system", "content": instructions}
    asked = request.get("input")
    if isinstance(asked, str):
        yield {"role": "user", "content": asked}
    yield from _response_items(_objects(asked))


def _response_items(items: Sequence[Object]) -> list[Object]:
    messages: list[Object] = []
    for item in items:
        kind = item.get("type", "message")
        if kind == "function_call":
            call = _tool_call(item.get("call_id"), item.get("name"), item.get("arguments"))
            if messages and messages[-1]["role"] == "assistant":
                messages[-1].setdefault("tool_calls", []).append(call)
            else:
                messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
        elif kind == "function_call_output":
            messages.append({"role": "tool", "tool_call_id": item.get("call_id"), "content": _flat(item.get("output"))})
        elif kind == "message":
            messages.append({"role": _text(item.get("role")) or "user", "content": _flat(item.get("content"))})
        elif kind != "reasoning":
            messages.append({"role": "assistant", "content": [item]})
    return messages


_MESSAGES = {"chat": _chat_messages, "messages": _anthropic_messages, "responses": _response_messages}
_TEXT_TYPES = frozenset({"text", "input_text", "output_text"})


def _flat(content: object) -> object:
    """Blocks that are nothing but text become one text; any others stay as they are."""
    blocks = _list(content)
    if not isinstance(content, list):
        return content
    texts = [_object(block).get("text") for block in blocks if _kind(block) in _TEXT_TYPES]
    if len(texts) == len(blocks) and all(isinstance(text, str) for text in texts):
        return "\n".join(cast("list[str]", texts))
    return blocks


def _tools(request: Object) -> Iterable[Object]:
    for tool in _objects(request.get("tools")):
        if "input_schema" in tool:
            yield {"type": "function", "function": _described(tool, tool.get("input_schema"))}
        elif tool.get("type") == "function" and "function" not in tool:
            yield {"type": "function", "function": _described(tool, tool.get("parameters"))}
        else:
            yield tool


def _described(tool: Object, schema: object) -> Object:
    named = {name: tool[name] for name in ("name", "description", "strict") if tool.get(name) is not None}
    return {**named, "parameters": schema}


# What came back, as an assistant message


def _chat_answer(body: Object) -> Object | None:
    choices = _objects(body.get("choices"))
    message = _object(choices[0].get("message")) if choices else {}
    if not message:
        return None
    kept = {name: value for name, value in message.items() if value not in (None, [], {}) and name not in {"role", "content"}}
    return {"role": "assistant", "content": message.get("content"), **kept}


def _messages_answer(body: Object) -> Object | None:
    if not isinstance(body.get("content"), list):
        return None
    blocks = _objects(body.get("content"))
    texts = [text for block in blocks if block.get("type") == "text" and (text := _text(block.get("text"))) is not None]
    calls = [_tool_use(block) for block in blocks if block.get("type") == "tool_use"]
    content = "".join(texts) if texts else None
    refused = {"refusal": content} if body.get("stop_reason") == "refusal" and content is not None else {}
    return {"role": "assistant", "content": None if refused else content, **refused, **({"tool_calls": calls} if calls else {})}


def _response_answer(body: Object) -> Object | None:
    items = _objects(body.get("output"))
    parts = [part for item in items if item.get("type") == "message" for part in _objects(item.get("content"))]
    texts = [text for part in parts if part.get("type") == "output_text" and (text := _text(part.get("text"))) is not None]
    refusals = [text for part in parts if part.get("type") == "refusal" and (text := _text(part.get("refusal"))) is not None]
    functions = [item for item in items if item.get("type") == "function_call"]
    calls = [_tool_call(item.get("call_id"), item.get("name"), item.get("arguments")) for item in functions]
    if not (texts or refusals or calls):
        return None
    answer: Object = {"role": "assistant", "content": "".join(texts) if texts else None}
    if refusals:
        answer["refusal"] = "".join(refusals)
    return {**answer, "tool_calls": calls} if calls else answer


_ANSWERS = {"chat": _chat_answer, "messages": _messages_answer, "responses": _response_answer}


# Streams, put together


def _join_chat(events: list[Object]) -> Object:
    message: Object = {}
    calls: dict[int, Object] = {}
    finish: object = None
    last: Object = {}
    for event in events:
        last = {**last, **{name: value for name, value in event.items() if name in {"model", "usage"} and value is not None}}
        for choice in _objects(event.get("choices")):
            if choice.get("index", 0) != 0:
                continue
            delta = _object(choice.get("delta"))
            finish = choice.get("finish_reason") or finish
            for name in ("content", "refusal"):
                if isinstance(delta.get(name), str):
                    message[name] = message.get(name, "") + delta[name]
            _join_tool_calls(calls, _objects(delta.get("tool_calls")))
    if calls:
        message["tool_calls"] = [calls[index] for index in sorted(calls)]
        message["content"] = message.get("content") or None
    elif message.get("refusal"):
        message["content"] = message.get("content") or None
    return {**last, "choices": [{"index": 0, "message": message, "finish_reason": finish}]} if message else last


def _join_tool_calls(calls: dict[int, Object], deltas: Iterable[Object]) -> None:
    for delta in deltas:
        index = _count(delta.get("index")) or 0
        call = calls.setdefault(index, _tool_call(None, None, ""))
        function = _object(delta.get("function"))
        call["id"] = call["id"] or delta.get("id")
        call["function"]["name"] = call["function"]["name"] or function.get("name")
        call["function"]["arguments"] += _text(function.get("arguments")) or ""


def _join_messages(events: list[Object]) -> Object:
    message: Object = {}
    blocks: dict[int, Object] = {}
    arguments: dict[int, str] = {}
    for event in events:
        index = _count(event.get("index")) or 0
        delta = _object(event.get("delta"))
        match event.get("type"):
            case "message_start":
                message = {**_object(event.get("message"))}
            case "content_block_start":
                blocks[index] = {**_object(event.get("content_block"))}
            case "content_block_delta" if isinstance(delta.get("text"), str):
                block = blocks.setdefault(index, {"type": "text"})
                block["text"] = (_text(block.get("text")) or "") + delta["text"]
            case "content_block_delta" if isinstance(delta.get("partial_json"), str):
                arguments[index] = arguments.get(index, "") + delta["partial_json"]
            case "message_delta":
                usage = {**_object(message.get("usage")), **_known(_object(event.get("usage")))}
                message = {**message, **delta, "usage": usage}
            case _:
                continue
    for index, text in arguments.items():
        blocks.setdefault(index, {"type": "tool_use"})["input"] = text or "{}"
    return {**message, "content": [blocks[index] for index in sorted(blocks)]} if message or blocks else {}


def _known(usage: Object) -> Object:
    return {name: value for name, value in usage.items() if value is not None}


def _join_response(events: list[Object]) -> Object:
    body: Object = {}
    items: dict[int, Object] = {}
    texts: dict[int, str] = {}
    for event in events:
        index = _count(event.get("output_index")) or 0
        body = _object(event.get("response")) or body
        if event.get("type") == "response.output_item.done":
            items[index] = _object(event.get("item"))
        elif event.get("type") == "response.output_text.delta":
            texts[index] = texts.get(index, "") + (_text(event.get("delta")) or "")
    if body.get("output"):
        return body
    for index, text in texts.items():
        items.setdefault(index, {"type": "message", "content": [{"type": "output_text", "text": text}]})
    return {**body, "output": [items[index] for index in sorted(items)]}


# Errors


def _error_text(body: Mapping[str, Any]) -> str:
    error = _object(body_json(body)).get("error")
    message = _text(_object(error).get("message")) or _text(error) or body_text(body)
    return message[:MAX_ERROR]


def _stream_error(body: Mapping[str, Any] | None, status: int | None) -> str | None:
    if body is None or status != 200:
        return None
    for event in map(_object, body_events(body)):
        failed = _object(event.get("response")) if event.get("type") == "response.failed" else event
        error = failed.get("error")
        if error or event.get("type") == "error":
            message = _text(_object(error).get("message")) or _text(event.get("message")) or _text(error)
            return (message or "the stream ended in an error")[:MAX_ERROR]
    return None


# Untrusted values


def _object(value: object) -> Object:
    return cast("Object", value) if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:  # noqa: ANN401 - any JSON value
    return cast("Any", value) if isinstance(value, list) else []


def _objects(value: object) -> list[Object]:
    return [cast("Object", item) for item in _list(value) if isinstance(item, dict)]


def _kind(value: object) -> str | None:
    return _text(_object(value).get("type"))


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
