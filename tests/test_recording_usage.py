from __future__ import annotations

import socket
from datetime import UTC, datetime

import pytest

from pytest_touchstone.errors import NetworkBlocked
from pytest_touchstone.recording.guard import NetworkGuard
from pytest_touchstone.recording.usage import price

AT = datetime(2026, 1, 1, tzinfo=UTC)
CHAT = {"usage": {"prompt_tokens": 1_000_000, "completion_tokens": 100_000, "prompt_tokens_details": {"cached_tokens": 0}}}
OPENAI = {"url": "https://api.openai.com/v1/chat/completions", "host": "api.openai.com"}
CLAUDE = {"url": "https://api.anthropic.com/v1/messages", "host": "api.anthropic.com"}


def test_published_prices():
    assert price("chat", **OPENAI, answer={"model": "gpt-4o", **CHAT}, model="gpt-4o", at=AT) == (pytest.approx(2.5 + 1.0), "")


def test_responses():
    answer = {"usage": {"input_tokens": 1_000_000, "output_tokens": 100_000, "input_tokens_details": {"cached_tokens": 0}}}
    url = "https://api.openai.com/v1/responses"
    assert price("responses", url=url, host="api.openai.com", answer=answer, model="gpt-4o", at=AT) == (pytest.approx(3.5), "")


def test_what_was_read_from_the_cache_is_cheaper():
    usage = {"input_tokens": 0, "cache_read_input_tokens": 1_000_000, "cache_creation_input_tokens": 0, "output_tokens": 0}
    cached, _ = price("messages", **CLAUDE, answer={"usage": usage}, model="claude-opus-4-5", at=AT)
    usage = {"input_tokens": 1_000_000, "output_tokens": 0}
    full, _ = price("messages", **CLAUDE, answer={"usage": usage}, model="claude-opus-4-5", at=AT)
    assert cached == pytest.approx(full / 10)


def test_a_model_that_is_not_known():
    assert price("chat", **OPENAI, answer=CHAT, model="gpt-none", at=AT) == (None, "no price is known for gpt-none at api.openai.com")
    assert price("chat", **OPENAI, answer=CHAT, model="", at=AT) == (None, "no price is known for a model without a name at api.openai.com")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_local_server_is_not_openai(host):
    answer = price("chat", url="http://localhost/v1/chat/completions", host=host, answer=CHAT, model="gpt-4o")
    assert answer == (None, "no price is known for a server on this machine")


def test_nor_is_a_server_of_another_name():
    found = price("chat", url="https://llm.example/v1/chat/completions", host="llm.example", answer=CHAT, model="gpt-4o")
    assert found == (None, "no price is known for gpt-4o at llm.example")


def test_tokens_that_are_not_known():
    assert price("chat", **OPENAI, answer={}, model="gpt-4o") == (
        None,
        "the answer does not report its tokens (openai streams report them with stream_options={'include_usage': True})",
    )
    assert price("messages", **CLAUDE, answer={"usage": {"input_tokens": 5}}, model="x") == (None, "the answer does not report its tokens")


@pytest.mark.parametrize(
    "strange", [{"prompt_tokens_details": {"cached_tokens": 50}}, {"prompt_tokens": 10**400}], ids=["more cached than read", "huge"]
)
def test_strange_usage_is_unknown(strange):
    usage = {"prompt_tokens": 5, "completion_tokens": 5, **strange}
    cost, reason = price("chat", **OPENAI, answer={"usage": usage}, model="gpt-4o", at=AT)
    assert (cost, reason) == (None, "no price is known for gpt-4o at api.openai.com")


def test_prices_come_without_network():
    guard = NetworkGuard()
    guard.start()
    try:
        assert price("chat", **OPENAI, answer=CHAT, model="gpt-4o")[0] is not None
        with pytest.raises(NetworkBlocked):
            socket.getaddrinfo("example.com", 80)
    finally:
        guard.stop()
