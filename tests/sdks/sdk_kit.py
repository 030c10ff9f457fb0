"""Record through a real client library, replay without server and key: the same answers, and no key in any file."""

from __future__ import annotations

import contextlib
import importlib
import os
from dataclasses import replace

import pytest

from pytest_touchstone.recording.recorder import Owner, Recorder
from pytest_touchstone.recording.store import read_recording

HI = [{"role": "user", "content": "May I return it?"}]
KEY = "planted-key-0123456789-abcdefghij"
KEYS = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY", "MISTRAL_API_KEY")


def need(*names):
    """The modules of a test, which is skipped where one is absent; `tox run -e sdks` allows no absence."""
    if os.environ.get("TOUCHSTONE_TEST_ALL_SDKS"):
        found = [importlib.import_module(name) for name in names]
    else:
        found = [pytest.importorskip(name) for name in names]
    return found[0] if len(found) == 1 else found


class Suite:
    """A folder with one test module, a server, and sessions that record into the folder."""

    def __init__(self, root, provider, monkeypatch):
        self.root = root
        self.provider = provider
        self.module = root / "test_shop.py"
        self.module.write_text("")
        self.calls = []
        self.misses = []
        self._monkeypatch = monkeypatch

    @contextlib.contextmanager
    def session(self, mode):
        self.calls.clear()
        recorder = Recorder(mode=mode, journal_dir=self.root / ".touchstone" / "journals", rootdir=self.root, environ=dict(os.environ))
        owner = Owner(module=self.module, test="test_a", trial=1, on_call=self.calls.append, on_miss=self.misses.append)
        recorder.start()
        try:
            with recorder.own(owner):
                yield
            recorder.settle(owner)
        finally:
            recorder.stop()
            recorder.merge()

    def record(self, app):
        """What the app says with the provider there, and keys in the environment."""
        for name in KEYS:
            self._monkeypatch.setenv(name, KEY)
        with self.session("missing"):
            return app(self.provider)

    def replay(self, app):
        """What the app says with neither."""
        self.provider.stop()
        for name in KEYS:
            self._monkeypatch.delenv(name, raising=False)
        with self.session("none"):
            return app(self.provider)

    def check(self, app, *others, requests=1):
        """Record with the app, then replay with it and with the others, which make the same requests another way."""
        live = self.record(app)
        assert len(self.provider.requests) == requests
        told = self.told()
        assert not any(call.replayed for call in self.calls)
        for other in (app, *others):
            assert self.replay(other) == live
            assert self.told() == told
            assert all(call.replayed for call in self.calls)
        assert self.misses == []
        self.check_files()
        return live

    def told(self):
        """What was told of the calls, without what differs between a live answer and its replay."""
        return sorted(repr(replace(call, latency_s=None, replayed=False)) for call in self.calls)

    def check_files(self):
        written = "\n".join(path.read_text() for path in self.root.rglob("*") if path.is_file())
        assert KEY not in written
        assert "planted-cookie" not in written

    def entries(self):
        return read_recording(self.root / "__recordings__" / "test_shop.jsonl")
