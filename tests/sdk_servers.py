"""What the client libraries of tests/sdks ask for beyond OpenAI's and Anthropic's model APIs: Google's, file uploads, embeddings.

`sdk_answers(seen)` is an `answer` for a `FakeProvider`: it knows those, and leaves the rest to the provider's own wire formats.
"""

from __future__ import annotations

import json
from typing import Any

from providers import Reply

TEXT = "Within 30 days, grüße."
GOOGLE_USAGE = {"promptTokenCount": 11, "candidatesTokenCount": 7, "totalTokenCount": 18}


def sdk_answers(seen) -> Reply:
    """The reply to a request of any of the client libraries."""
    path = seen.path.split("?", maxsplit=1)[0]
    if path.endswith(":generateContent"):
        return Reply(body=google_answer(TEXT), headers=SECRET_HEADERS)
    if path.endswith(":streamGenerateContent"):
        return Reply(body=google_stream(), headers={"content-type": "text/event-stream"})
    if path.endswith("/files"):
        return Reply(body={"id": "file-1", "object": "file", "bytes": 5, "created_at": 1, "filename": "a.jsonl", "purpose": "batch"})
    if path.endswith("/embeddings"):
        return Reply(body={"object": "list", "model": "e", "data": [{"object": "embedding", "index": 0, "embedding": [0.5, 0.25]}]})
    return model_answer(seen.json or {})


def model_answer(asked) -> Reply:
    """A tool call where tools are offered, JSON where a schema asks for it, else a text."""
    if asked.get("tools"):
        return Reply(tool_calls=(("refund", '{"order": 17}'),))
    if "response_format" in asked or "text" in asked:
        return Reply(text='{"approved": true, "days": 30}')
    return Reply(text=TEXT)


SECRET_HEADERS = {"set-cookie": "session=planted-cookie-0123456789"}


def google_answer(text: str, finish: str | None = "STOP") -> dict[str, Any]:
    candidate = {"content": {"role": "model", "parts": [{"text": text}]}, "index": 0, **({"finishReason": finish} if finish else {})}
    return {"candidates": [candidate], "usageMetadata": GOOGLE_USAGE, "modelVersion": "gemini-test", "responseId": "r1"}


def google_stream() -> str:
    """Google's events carry a bare `data:` line and end with CR LF; none of them says that it is the last."""
    pieces = [TEXT[:8], TEXT[8:]]
    answers = [google_answer(piece, "STOP" if piece == pieces[-1] else None) for piece in pieces]
    return "".join(f"data: {json.dumps(answer)}\r\n\r\n" for answer in answers)
