"""What a call cost, by the published prices that come with genai-prices."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pytest_touchstone.recording.guard import is_loopback
from pytest_touchstone.recording.wire import read_usage

if TYPE_CHECKING:
    from pytest_touchstone.recording.wire import Api

_FLAVOURS = {"chat": "chat", "responses": "responses", "messages": "default"}


def price(api: Api, *, url: str, host: str, answer: dict[str, Any], model: str, at: datetime | None = None) -> tuple[float | None, str]:
    """The cost of an answer in US dollars, or None and the reason why it is not known.

    The host decides whose prices hold: a server of another name has none of its own, whatever it calls its models. Prices are those
    published for the time `at` (default: now); nothing is fetched.

    >>> usage = {"usage": {"prompt_tokens": 1000, "completion_tokens": 100}}
    >>> price("chat", url="http://localhost/v1/chat/completions", host="localhost", answer=usage, model="gpt-4o")
    (None, 'no price is known for a server on this machine')
    """
    if is_loopback(host):
        return None, "no price is known for a server on this machine"
    usage = read_usage(api, answer)
    if usage.input_tokens is None or usage.output_tokens is None:
        hint = " (openai streams report them with stream_options={'include_usage': True})" if api == "chat" else ""
        return None, f"the answer does not report its tokens{hint}"
    from genai_prices import extract_usage

    try:
        found = extract_usage({"model": model, **answer}, provider_api_url=url, api_flavor=_FLAVOURS[api])
        cost = float(found.calc_price(genai_request_timestamp=at or datetime.now(UTC)).total_price)
    except (LookupError, ValueError, TypeError, ArithmeticError):
        cost = math.nan
    if not math.isfinite(cost):
        return None, f"no price is known for {model or 'a model without a name'} at {host}"
    return cost, ""
