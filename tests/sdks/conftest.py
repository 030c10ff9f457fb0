from __future__ import annotations

import gc
import warnings

import pytest
from providers import FakeProvider
from sdk_kit import Suite
from sdk_servers import sdk_answers


@pytest.fixture
def left_open():
    """For libraries that leave their clients to the garbage collector: they go with their own test, not as an error of a later one."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gc.collect()


@pytest.fixture
def suite(tmp_path, monkeypatch):
    """A folder to record into, and a provider that speaks every wire format, at the URLs that the clients read from the environment."""
    with FakeProvider(sdk_answers) as provider:
        monkeypatch.setenv("OPENAI_BASE_URL", provider.openai_url)
        monkeypatch.setenv("ANTHROPIC_BASE_URL", provider.anthropic_url)
        yield Suite(tmp_path, provider, monkeypatch)
