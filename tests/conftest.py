"""What every test gets: no keys, no CI, repeatable random data, and pytest inside pytest."""

from __future__ import annotations

import contextlib
import importlib
import os
import pkgutil
import signal

import pytest
from hypothesis import settings
from running import Runner

import pytest_touchstone

pytest_plugins = ["pytester"]

settings.register_profile("repeatable", derandomize=True, deadline=None, print_blob=True)
settings.load_profile("repeatable")

# A pytest inside pytest forgets the modules that it was the first to import. Ours and the SDKs hold what exists once in a process
# (hooks on the wire, compiled models), so they are imported here, before any of them. What is not installed is not missed.
OURS = [module.name for module in pkgutil.walk_packages(pytest_touchstone.__path__, "pytest_touchstone.")]
for one_copy in (
    *OURS,
    "anthropic",
    "asyncio",
    "genai_prices",
    "httpx",
    "httpx2",
    "numpy",
    "openai",
    "pyarrow",
    "rapidfuzz.process",
    "scipy.sparse",
    "yaml",
):
    with contextlib.suppress(ImportError):
        importlib.import_module(one_copy)

# A shell starts what runs in its background with Ctrl-C ignored, which every process below would inherit; the tests press it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

SCRUBBED = ("BUILD_NUMBER", "CI", "COLUMNS", "FORCE_COLOR", "GITHUB_ACTIONS", "NO_COLOR", "PYTEST_ADDOPTS", "TOUCHSTONE_STORE")
SCRUBBED_PREFIXES = ("ANTHROPIC_", "OPENAI_", "PYTEST_XDIST_")


@pytest.fixture(autouse=True)
def scrubbed_environment(monkeypatch):
    """Whoever runs the tests, and wherever: a test sees none of their keys and does not know that it runs in CI."""
    for name in list(os.environ):
        if name in SCRUBBED or name.startswith(SCRUBBED_PREFIXES):
            monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture(params=[(), ("-n", "2")], ids=["inline", "xdist"])
def runner(request, pytester):
    """The `Runner` of plugin tests: each runs twice, once in one process and once with two xdist workers."""
    return Runner(pytester=pytester, arguments=request.param)
