"""Failures of a server, told apart and said safely."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_touchstone.errors import ModelError
from pytest_touchstone.models.client import AskFailed
from pytest_touchstone.models.faults import Rejected, check_base_url, retry_after_s, safe, status_fault
from pytest_touchstone.text import visible


def fault(status, body=None, **headers):
    return status_fault(status, body, {name.replace("_", "-"): value for name, value in headers.items()}, key_variable="OPENAI_API_KEY")


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (401, {"message": "Incorrect API key provided: sk-1234"}, "the server refused the key (HTTP 401); check OPENAI_API_KEY"),
        (403, "no", "the server refused the key (HTTP 403); check OPENAI_API_KEY"),
        (
            404,
            {"message": "The model `x` does not exist"},
            "the server knows no such model or address (HTTP 404: The model `x` does not exist); check the model's name and the base URL",
        ),
        (402, None, "the account has no credit left (HTTP 402); add some, or use another key in OPENAI_API_KEY"),
        (
            429,
            {"message": "You exceeded your quota", "code": "insufficient_quota"},
            "the account has no credit left (HTTP 429: You exceeded your quota); add some, or use another key in OPENAI_API_KEY",
        ),
    ],
)
def test_what_the_user_must_change_is_a_model_error(status, body, message):
    error = fault(status, body)
    assert type(error) is ModelError
    assert str(error) == message


@pytest.mark.parametrize("status", [400, 422, 501, 418])
def test_a_request_in_a_form_that_the_server_does_not_serve_is_rejected(status):
    error = fault(status, {"error": {"message": "response_format is unavailable"}})
    assert type(error) is Rejected
    assert str(error) == f"the server refused the request (HTTP {status}: response_format is unavailable)"


@pytest.mark.parametrize(
    ("status", "body", "reason", "retry"),
    [
        (413, None, "was asked more than it can read (HTTP 413)", False),
        (400, {"code": "context_length_exceeded"}, "was asked more than it can read (HTTP 400)", False),
        (
            400,
            {"error": {"type": "invalid_request_error", "message": "prompt is too long: 9 tokens > 8 maximum"}},
            "was asked more than it can read (HTTP 400: prompt is too long: 9 tokens > 8 maximum)",
            False,
        ),
        (
            400,
            "This model's maximum context length is 8 tokens",
            "was asked more than it can read (HTTP 400: This model's maximum context length is 8 tokens)",
            False,
        ),
        (
            400,
            {"code": "content_filter", "message": "The response was filtered"},
            "was stopped by the provider's content filter (HTTP 400: The response was filtered)",
            True,
        ),
        (429, {"message": "slow down"}, "is rate limited (HTTP 429: slow down)", True),
        (408, None, "is not available (HTTP 408)", True),
        (409, None, "is not available (HTTP 409)", True),
        (425, None, "is not available (HTTP 425)", True),
        (500, {"detail": "oops"}, "is not available (HTTP 500: oops)", True),
        (503, None, "is not available (HTTP 503)", True),
        (529, {"error": {"type": "overloaded_error", "message": "Overloaded"}}, "is not available (HTTP 529: Overloaded)", True),
    ],
)
def test_what_passes_or_concerns_one_question_is_a_failed_ask(status, body, reason, retry):
    error = fault(status, body)
    assert isinstance(error, AskFailed)
    assert (str(error), error.reason, error.retry, error.retry_after_s) == (reason, reason, retry, None)


def test_the_wait_that_a_server_asks_for_is_kept():
    assert fault(429, retry_after="7").retry_after_s == 7
    assert fault(503, retry_after="7").retry_after_s == 7
    assert fault(529, retry_after_ms="250").retry_after_s == 0.25


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after-ms": "x", "retry-after": "9"}, 9.0),
        ({"retry-after": "Thu, 01 Jan 1970 00:01:00 GMT"}, 50.0),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:01 GMT"}, 0.0),
    ],
)
def test_retry_after_is_read_in_every_form(headers, seconds):
    assert retry_after_s(headers, now=10.0) == seconds


def test_a_retry_date_is_held_against_the_clock_where_none_is_given():
    assert retry_after_s({"retry-after": "Thu, 01 Jan 1970 00:01:00 GMT"}) == 0


@given(st.text())
def test_no_retry_after_header_raises(value):
    seconds = retry_after_s({"retry-after": value}, now=0.0)
    assert seconds is None or seconds >= 0


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["error", "message", "detail", "code"]), inner),
)


@given(st.integers(min_value=400, max_value=599), json_values)
def test_no_error_body_raises_or_can_act(status, body):
    error = fault(status, body)
    assert isinstance(error, AskFailed | ModelError)
    assert visible(str(error)) == str(error)
    assert "\n" not in str(error)


def test_secrets_of_the_environment_and_control_characters_do_not_get_through(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    monkeypatch.setenv("TINY_TOKEN", "a")
    assert safe("Bad key\n sk-very-secret \x1b[31m a") == r"Bad key [OPENAI_API_KEY] \x1b[31m a"


def test_long_messages_are_shortened():
    assert len(safe("x" * 10_000)) == 300


@pytest.mark.parametrize("url", [None, "http://localhost:8000/v1", "https://user:pw@example.org/v1", "http://[::1]:80"])
def test_base_urls(url):
    check_base_url(url)


@pytest.mark.parametrize(
    "url", ["", "localhost:8000", "ftp://example.org", "http://", "http://[::1", "http://x:0", "http://x:99999", "/v1"]
)
def test_what_is_no_base_url_says_how_to_write_one_and_does_not_repeat_it(url):
    with pytest.raises(ModelError, match=r"^the base URL is not one; write it as http://localhost:8000/v1$"):
        check_base_url(url)
