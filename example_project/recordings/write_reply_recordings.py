"""Record the reply suite with answers and verdicts that were written BY HAND: `python -m recordings.write_reply_recordings`.

No provider wrote a word of what this file holds, and no model judged it. The texts below stand in for Anthropic's API, in its wire
format, so that the example shows every outcome without a key; ids and model names in the recorded bodies say so, too.

The suite runs as always, and the plugin's own recorder stores what comes back. Only the last step, sending a request over the network, is
replaced: a request to api.anthropic.com is answered from here, and every other request is refused.
With a key, `pytest --llm-eval --llm-record all evals/test_reply.py` records what the real models say.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

PROJECT = Path(__file__).parent.parent
HOST = "api.anthropic.com"
MODEL = "written-by-hand"
RECORDING = PROJECT / "evals" / "__recordings__" / "test_reply.jsonl"


@dataclass(frozen=True, kw_only=True)
class Script:
    """What is said about one ticket: the drafted answer, and the judge's verdict on it; no verdict means that the judge refuses."""

    answer: str
    verdict: str | None
    reason: str


# By a piece of the ticket that names it.
SCRIPTS = {
    "delivered 40 days ago": Script(
        answer="I am sorry, but we cannot take the kettle back. Is there anything else that I can do for you?",
        verdict="fail",
        reason="The answer is polite, but it refuses the return without naming the 30-day window.",
    ),
    "does not suit our flat": Script(
        answer="Thank you for writing to us. Of course the lamp can go back: unused items are accepted within 30 days of delivery.",
        verdict="pass",
        reason="It thanks the customer and names the window of 30 days.",
    ),
    "opened the box of the toaster": Script(
        answer="Yes, you may return the toaster within 30 days of delivery, as long as it is unused. An opened box is no problem.",
        verdict="pass",
        reason="It is friendly and cites the 30 days.",
    ),
    "bought in the sale": Script(
        answer="I am sorry that the rug is too small. We have refunded the full price to your card today.",
        verdict="fail",
        reason="It grants a refund, although sale items are exchanged and not refunded.",
    ),
    "before Friday": Script(
        answer="What a nice occasion! Delivery takes 3 to 5 working days, so I cannot promise that the desk is with you before Friday.",
        verdict="pass",
        reason="It states 3 to 5 working days and makes no promise for Friday.",
    ),
    "my card number again": Script(
        answer="Please do not send us your card number. A colleague will look into the payment and get back to you.",
        verdict="pass",
        reason="It tells the customer not to send the number and hands over to a colleague.",
    ),
    "rash from the pillow": Script(
        answer="I am sorry to hear that, and I hope that your son is better soon. A colleague will tell you what the pillow is made of.",
        verdict=None,
        reason="I cannot assess an answer about a medical matter.",
    ),
}


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """The body that answers one request of the suite: a drafted reply, or the verdict where a tool for verdicts is offered."""
    said = json.dumps(request["messages"], ensure_ascii=False)
    script = next(script for piece, script in SCRIPTS.items() if piece in said)
    if "tools" not in request:
        return _message(request, [{"type": "text", "text": script.answer}], "end_turn")
    if script.verdict is None:
        return _message(request, [{"type": "text", "text": script.reason}], "refusal")
    verdict = {"reason": script.reason, "verdict": script.verdict}
    call = {"type": "tool_use", "id": "toolu_written_by_hand", "name": request["tools"][0]["name"], "input": verdict}
    return _message(request, [call], "tool_use")


def main() -> int:
    """Run the reply suite once, recording it anew."""
    os.environ["ANTHROPIC_API_KEY"] = "no-key-is-needed-here"
    httpx2.HTTPTransport.handle_request = _handle_request
    RECORDING.unlink(missing_ok=True)
    command = ["--llm-eval", "--llm-record", "all", "-q", "--rootdir", str(PROJECT), str(PROJECT / "evals" / "test_reply.py")]
    status = pytest.main(command)
    return 0 if status == pytest.ExitCode.TESTS_FAILED else 1  # some of the answers fail, and are written to


def _handle_request(_transport: httpx2.HTTPTransport, request: httpx2.Request) -> httpx2.Response:
    if request.url.host != HOST:
        msg = f"a request to {request.url.host}, which nobody here answers"
        raise httpx2.ConnectError(msg, request=request)
    body = json.dumps(answer(json.loads(request.read()))).encode()
    return httpx2.Response(200, headers={"content-type": "application/json"}, stream=httpx2.ByteStream(body))


def _message(request: dict[str, Any], content: list[dict[str, Any]], stop_reason: str) -> dict[str, Any]:
    """A message in Anthropic's format; tokens are counted as words, which is near enough for a text that cost nothing."""
    digest = hashlib.sha256(json.dumps([request, content], sort_keys=True).encode()).hexdigest()
    return {
        "id": f"msg_written_by_hand_{digest[:12]}",
        "type": "message",
        "role": "assistant",
        "model": MODEL,
        "content": content,
        "stop_reason": stop_reason,
        "stop_sequence": None,
        "usage": {"input_tokens": _words(request["messages"]) + _words(request["system"]), "output_tokens": _words(content)},
    }


def _words(value: object) -> int:
    return len(json.dumps(value).split())


if __name__ == "__main__":
    sys.exit(main())
