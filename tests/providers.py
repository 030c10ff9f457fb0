"""A loopback server that speaks the wire formats of OpenAI (chat completions, responses) and Anthropic (messages).

Replies are scripted per request; every request is logged. Streaming (server-sent events) follows the request's `stream`.

    with FakeProvider() as provider:
        provider.script(Reply(status=429, retry_after="0"), Reply(text="hi"))
        client = openai.OpenAI(base_url=provider.openai_url, api_key="k")  # anthropic.Anthropic(base_url=provider.anthropic_url, ...)
        client.chat.completions.create(...)
        assert len(provider.requests) == 2

Once the script is used up, `provider.answer` decides: a Reply, or a callable that gets the `Seen` request and returns one.
`Reply` covers status codes, refusals, truncation, content filters, invalid JSON (`text="{"`, or `body` as sent), tool calls,
slow answers (`wait` for an event) and connections dropped in the middle (`drop_after`).
"""

from __future__ import annotations

import contextlib
import gzip
import json
import socket
import threading
from collections import deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

OPENAI_FINISH = {"stop": "stop", "length": "length", "content_filter": "content_filter", "refusal": "stop", "tool_calls": "tool_calls"}
ANTHROPIC_FINISH = {"stop": "end_turn", "length": "max_tokens", "content_filter": "refusal", "refusal": "refusal", "tool_calls": "tool_use"}


@dataclass(frozen=True, kw_only=True)
class Reply:
    """One scripted reply.

    `finish` is one of stop, length, content_filter, refusal, tool_calls (set by itself where `tool_calls` or `refusal` is given).
    `tool_calls` are (name, arguments text) pairs. `body` replaces the whole body, sent as it is with `status`.
    `drop_after` closes the connection after that many stream events; 0, or any number where nothing streams, before the answer.
    `wait` holds the reply back until the event is set; `pause_after` with `wait` holds it back after that many stream events instead.
    `usage` is (input, output, cached) tokens. `chunk` cuts the bytes of a stream into pieces of that size.
    """

    text: str = "ok"
    status: int = 200
    finish: str = "stop"
    refusal: str | None = None
    tool_calls: tuple[tuple[str, str], ...] = ()
    body: bytes | str | dict[str, Any] | None = None
    headers: dict[str, str] = field(default_factory=dict)
    retry_after: str | None = None
    error: str = "scripted failure"
    drop_after: int | None = None
    wait: threading.Event | None = None
    pause_after: int | None = None
    usage: tuple[int, int, int] = (11, 7, 0)
    gzip: bool = False
    chunk: int | None = None

    @property
    def ending(self) -> str:
        """The finish reason, derived where a field implies it."""
        if self.refusal is not None:
            return "refusal"
        return "tool_calls" if self.tool_calls and self.finish == "stop" else self.finish


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One request as the server saw it; `json` is its parsed body, None where it is not JSON."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    json: Any


class FakeProvider:
    """The server: a context manager on a port of its own."""

    def __init__(self, answer: Reply | Callable[[Seen], Reply] | None = None, *, port: int = 0) -> None:
        self.answer: Reply | Callable[[Seen], Reply] = answer or Reply()
        self.requests: list[Seen] = []
        self._script: deque[Reply] = deque()
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", port), _Handler)
        self._server.provider = self
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._stopped = False

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def port(self) -> int:
        return self._server.server_address[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def anthropic_url(self) -> str:
        return self.url

    @property
    def openai_url(self) -> str:
        return f"{self.url}/v1"

    def script(self, *replies: Reply) -> None:
        """Queue replies for the coming requests, in the order of their arrival."""
        with self._lock:
            self._script.extend(replies)

    def next_reply(self, seen: Seen) -> Reply:
        with self._lock:
            self.requests.append(seen)
            if self._script:
                return self._script.popleft()
        return self.answer if isinstance(self.answer, Reply) else self.answer(seen)

    def wait(self) -> None:
        """Serve until the process is interrupted."""
        with contextlib.suppress(KeyboardInterrupt):
            self._thread.join()

    def stop(self) -> None:
        """Close the server and every connection; a second call does nothing."""
        if self._stopped:
            return
        self._stopped = True
        self._server.shutdown()
        self._thread.join()
        self._server.close_connections()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # joined by server_close, so that no thread outlives its test
    request_queue_size = 256
    provider: FakeProvider

    def __init__(self, *args: Any) -> None:
        self._open: set[socket.socket] = set()
        self._open_lock = threading.Lock()
        super().__init__(*args)

    def process_request(self, request, client_address) -> None:
        with self._open_lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request) -> None:
        with self._open_lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def close_connections(self) -> None:
        with self._open_lock:
            for connection in self._open:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue

    def handle_error(self, request, client_address) -> None:
        """Clients that hang up are the subject of tests, not errors to print."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    server: _Server

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is the base class'
        pass

    def do_GET(self) -> None:
        self._reply(b"")

    def do_POST(self) -> None:
        length = self.headers.get("content-length")
        self._reply(self._chunked() if length is None else self.rfile.read(int(length)))

    def _chunked(self) -> bytes:
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _reply(self, body: bytes) -> None:
        try:
            data = json.loads(body)
        except ValueError:
            data = None
        headers = {name.lower(): value for name, value in self.headers.items()}
        seen = Seen(method=self.command, path=self.path, headers=headers, body=body, json=data)
        reply = self.server.provider.next_reply(seen)
        if reply.wait is not None and reply.pause_after is None:
            reply.wait.wait()
        if reply.drop_after == 0:
            self.close_connection = True
            return
        if reply.status == 200 and reply.body is None and isinstance(data, dict) and data.get("stream"):
            self._send_stream(reply, events(seen, reply))
        elif reply.drop_after is not None:
            self.close_connection = True
        else:
            self._send_body(reply, reply.body if reply.body is not None else whole(seen, reply))

    def _start(self, reply: Reply, content_type: str) -> None:
        self.send_response(reply.status)
        defaults = {"content-type": content_type, "x-request-id": f"req_{len(self.server.provider.requests)}"}
        if reply.retry_after is not None:
            defaults["retry-after"] = reply.retry_after
        for name, value in {**defaults, **reply.headers}.items():
            self.send_header(name, value)

    def _send_body(self, reply: Reply, body: bytes | str | dict[str, Any]) -> None:
        text = json.dumps(body) if isinstance(body, dict) else body
        content = text.encode() if isinstance(text, str) else text
        if reply.gzip:
            content = gzip.compress(content, mtime=0)
        self._start(reply, "application/json")
        if reply.gzip:
            self.send_header("content-encoding", "gzip")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _send_stream(self, reply: Reply, stream: Iterator[bytes]) -> None:
        self._start(reply, "text/event-stream; charset=utf-8")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        self.wfile.flush()
        for number, event in enumerate(stream):
            if reply.drop_after is not None and number >= reply.drop_after:
                self.close_connection = True
                return
            if reply.wait is not None and reply.pause_after == number:
                reply.wait.wait()
            size = reply.chunk or len(event)
            for start in range(0, len(event), size):
                piece = event[start : start + size]
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")


def whole(seen: Seen, reply: Reply) -> dict[str, Any]:
    """The body of an answer that is not streamed."""
    path = seen.path.split("?", maxsplit=1)[0]
    if reply.status != 200:
        return _error(path, reply)
    if path.endswith("/chat/completions"):
        return _chat(seen, reply)
    if path.endswith("/responses"):
        return _response(seen, reply)
    if path.endswith("/messages"):
        return _message(seen, reply)
    return {"object": "list", "data": [{"id": "fake-model", "object": "model", "created": 1, "owned_by": "tests"}]}


def events(seen: Seen, reply: Reply) -> Iterator[bytes]:
    """The server-sent events of a streamed answer."""
    path = seen.path.split("?", maxsplit=1)[0]
    if path.endswith("/chat/completions"):
        yield from (_data(chunk) for chunk in _chat_chunks(seen, reply))
        yield b"data: [DONE]\n\n"
    elif path.endswith("/responses"):
        yield from (_event(event) for event in _response_events(seen, reply))
    else:
        yield from (_event(event) for event in _message_events(seen, reply))


def _data(value: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(value, separators=(',', ':'))}\n\n".encode()


def _event(value: dict[str, Any]) -> bytes:
    return f"event: {value['type']}\n".encode() + _data(value)


def _error(path: str, reply: Reply) -> dict[str, Any]:
    if path.endswith("/messages"):
        return {"type": "error", "error": {"type": "invalid_request_error", "message": reply.error}}
    code = "content_filter" if reply.finish == "content_filter" else None
    return {"error": {"message": reply.error, "type": "invalid_request_error", "param": None, "code": code}}


def _pieces(text: str) -> list[str]:
    """The text in pieces of a few characters, as models send it."""
    return [text[start : start + 4] for start in range(0, len(text), 4)]


def _chat_usage(reply: Reply) -> dict[str, Any]:
    read, written, cached = reply.usage
    details = {"prompt_tokens_details": {"cached_tokens": cached}}
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written, **details}


def _chat_tools(reply: Reply) -> list[dict[str, Any]]:
    calls = enumerate(reply.tool_calls)
    return [{"id": f"call_{number}", "type": "function", "function": {"name": name, "arguments": args}} for number, (name, args) in calls]


def _chat(seen: Seen, reply: Reply) -> dict[str, Any]:
    silent = bool(reply.tool_calls) or reply.refusal is not None
    message: dict[str, Any] = {"role": "assistant", "content": None if silent else reply.text, "refusal": reply.refusal}
    if reply.tool_calls:
        message["tool_calls"] = _chat_tools(reply)
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": OPENAI_FINISH[reply.ending]}
    base = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1_700_000_000, "model": seen.json.get("model")}
    return {**base, "choices": [choice], "usage": _chat_usage(reply)}


def _chat_chunks(seen: Seen, reply: Reply) -> Iterator[dict[str, Any]]:
    base = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_700_000_000, "model": seen.json.get("model")}

    def chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        return {**base, "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]}

    yield chunk({"role": "assistant", "content": "", "refusal": None})
    if reply.refusal is not None:
        yield from (chunk({"refusal": piece}) for piece in _pieces(reply.refusal))
    elif reply.tool_calls:
        for number, (name, arguments) in enumerate(reply.tool_calls):
            yield chunk(
                {"tool_calls": [{"index": number, "id": f"call_{number}", "type": "function", "function": {"name": name, "arguments": ""}}]}
            )
            yield from (chunk({"tool_calls": [{"index": number, "function": {"arguments": piece}}]}) for piece in _pieces(arguments))
    else:
        yield from (chunk({"content": piece}) for piece in _pieces(reply.text))
    yield chunk({}, OPENAI_FINISH[reply.ending])
    if (seen.json.get("stream_options") or {}).get("include_usage"):
        yield {**base, "choices": [], "usage": _chat_usage(reply)}


def _response_output(reply: Reply) -> list[dict[str, Any]]:
    if reply.tool_calls:
        calls = enumerate(reply.tool_calls)
        return [
            {"type": "function_call", "id": f"fc_{n}", "call_id": f"call_{n}", "name": name, "arguments": args, "status": "completed"}
            for n, (name, args) in calls
        ]
    part: dict[str, Any] = {"type": "output_text", "text": reply.text, "annotations": [], "logprobs": []}
    if reply.refusal is not None:
        part = {"type": "refusal", "refusal": reply.refusal}
    status = "incomplete" if reply.ending in {"length", "content_filter"} else "completed"
    return [{"type": "message", "id": "msg_1", "status": status, "role": "assistant", "content": [part]}]


def _response(seen: Seen, reply: Reply, *, done: bool = True) -> dict[str, Any]:
    reason = {"length": "max_output_tokens", "content_filter": "content_filter"}.get(reply.ending)
    read, written, cached = reply.usage
    usage = {
        "input_tokens": read,
        "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": 0},
        "output_tokens": written,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": read + written,
    }
    finished = {
        "status": "incomplete" if reason else "completed",
        "incomplete_details": {"reason": reason} if reason else None,
        "output": _response_output(reply),
        "usage": usage,
    }
    started = {"status": "in_progress", "incomplete_details": None, "output": [], "usage": None}
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1_700_000_000,
        "model": seen.json.get("model"),
        "error": None,
        "instructions": seen.json.get("instructions"),
        "metadata": {},
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": seen.json.get("tools") or [],
        "top_p": 1.0,
        **(finished if done else started),
    }


def _response_events(seen: Seen, reply: Reply) -> Iterator[dict[str, Any]]:
    for number, event in enumerate(_response_events_unnumbered(seen, reply)):
        yield {**event, "sequence_number": number}


def _response_events_unnumbered(seen: Seen, reply: Reply) -> Iterator[dict[str, Any]]:
    final = _response(seen, reply)
    started = _response(seen, reply, done=False)
    yield {"type": "response.created", "response": started}
    yield {"type": "response.in_progress", "response": started}
    for index, item in enumerate(final["output"]):
        yield from _item_events(index, item)
    yield {"type": "response.incomplete" if final["status"] == "incomplete" else "response.completed", "response": final}


def _item_events(index: int, item: dict[str, Any]) -> Iterator[dict[str, Any]]:
    where = {"item_id": item["id"], "output_index": index}
    if item["type"] == "function_call":
        yield {"type": "response.output_item.added", "output_index": index, "item": {**item, "arguments": "", "status": "in_progress"}}
        yield from ({"type": "response.function_call_arguments.delta", **where, "delta": piece} for piece in _pieces(item["arguments"]))
        yield {"type": "response.function_call_arguments.done", **where, "name": item["name"], "arguments": item["arguments"]}
    else:
        part = item["content"][0]
        kind = "text" if part["type"] == "output_text" else "refusal"
        name = "output_text" if kind == "text" else "refusal"
        yield {"type": "response.output_item.added", "output_index": index, "item": {**item, "content": [], "status": "in_progress"}}
        yield {"type": "response.content_part.added", **where, "content_index": 0, "part": {**part, kind: ""}}
        extra = {"logprobs": []} if kind == "text" else {}
        for piece in _pieces(part[kind]):
            yield {"type": f"response.{name}.delta", **where, "content_index": 0, "delta": piece, **extra}
        yield {"type": f"response.{name}.done", **where, "content_index": 0, kind: part[kind], **extra}
        yield {"type": "response.content_part.done", **where, "content_index": 0, "part": part}
    yield {"type": "response.output_item.done", "output_index": index, "item": item}


def _message_usage(reply: Reply) -> dict[str, Any]:
    """Anthropic's input_tokens leave out what was read from the cache."""
    read, written, cached = reply.usage
    return {
        "input_tokens": read - cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": written,
        "service_tier": "standard",
    }


def _message_content(reply: Reply) -> list[dict[str, Any]]:
    if reply.tool_calls:
        calls = enumerate(reply.tool_calls)
        return [{"type": "tool_use", "id": f"toolu_{number}", "name": name, "input": json.loads(args)} for number, (name, args) in calls]
    return [{"type": "text", "text": reply.text if reply.refusal is None else reply.refusal}]


def _message(seen: Seen, reply: Reply) -> dict[str, Any]:
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": seen.json.get("model"),
        "content": _message_content(reply),
        "stop_reason": ANTHROPIC_FINISH[reply.ending],
        "stop_sequence": None,
        "usage": _message_usage(reply),
    }


def _message_events(seen: Seen, reply: Reply) -> Iterator[dict[str, Any]]:
    final = _message(seen, reply)
    usage = final["usage"]
    yield {"type": "message_start", "message": {**final, "content": [], "stop_reason": None, "usage": {**usage, "output_tokens": 1}}}
    for index, block in enumerate(final["content"]):
        if block["type"] == "tool_use":
            yield {"type": "content_block_start", "index": index, "content_block": {**block, "input": {}}}
            pieces = [{"type": "input_json_delta", "partial_json": piece} for piece in ["", *_pieces(reply.tool_calls[index][1])]]
        else:
            yield {"type": "content_block_start", "index": index, "content_block": {"type": "text", "text": ""}}
            pieces = [{"type": "text_delta", "text": piece} for piece in _pieces(block["text"])]
        yield {"type": "ping"}
        yield from ({"type": "content_block_delta", "index": index, "delta": piece} for piece in pieces)
        yield {"type": "content_block_stop", "index": index}
    delta = {"stop_reason": final["stop_reason"], "stop_sequence": None}
    yield {"type": "message_delta", "delta": delta, "usage": {"output_tokens": usage["output_tokens"]}}
    yield {"type": "message_stop"}
