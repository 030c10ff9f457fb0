from __future__ import annotations

import importlib
import sys
import types

import httpx2
import pytest

from pytest_touchstone.recording import transport
from pytest_touchstone.recording.transport import TransportHooks


class Passive:
    """A handler that owns nothing and counts what passes."""

    def __init__(self):
        self.seen = []

    def owned(self):
        return False

    def check_unowned(self, url):
        self.seen.append(url)


@pytest.fixture
def target(monkeypatch, tmp_path):
    """A module of its own that stands in for a client library not imported yet."""
    (tmp_path / "fakeclient.py").write_text("class HTTPTransport:\n    def handle_request(self, request):\n        return request.url\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(
        transport, "TARGETS", {"fakeclient": (("HTTPTransport", "handle_request"), ("Missing", "handle_request")), "gone": ()}
    )
    yield "fakeclient"
    sys.modules.pop("fakeclient", None)


class Request:
    url = "http://x"


def test_a_module_imported_later_is_hooked(target):
    handler = Passive()
    hooks = TransportHooks(handler)
    hooks.start()
    try:
        module = importlib.import_module(target)
        assert module.HTTPTransport().handle_request(Request()) == "http://x"
        assert handler.seen == ["http://x"]
        assert type(module.__loader__).__name__ == type(module.__spec__.loader).__name__ == "SourceFileLoader"
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module("gone")
    finally:
        hooks.stop()
    assert module.HTTPTransport().handle_request(Request()) == "http://x"
    assert handler.seen == ["http://x"]


def test_what_the_import_hook_did_not_see_is_caught_up(target):
    handler = Passive()
    hooks = TransportHooks(handler)
    hooks.start()
    try:
        sys.meta_path.remove(hooks._finder)
        module = importlib.import_module(target)
        hooks.catch_up()
        hooks.catch_up()
        module.HTTPTransport().handle_request(Request())
        assert handler.seen == ["http://x"]
    finally:
        hooks.stop()


def test_a_class_under_two_names_is_hooked_once(monkeypatch):
    module = types.ModuleType("alias")
    module.HTTPTransport = httpx2.HTTPTransport
    monkeypatch.setattr(
        transport, "TARGETS", {"httpx2": (("HTTPTransport", "handle_request"),), "alias": (("HTTPTransport", "handle_request"),)}
    )
    monkeypatch.setitem(sys.modules, "alias", module)
    original = httpx2.HTTPTransport.handle_request
    hooks = TransportHooks(Passive())
    hooks.start()
    assert httpx2.HTTPTransport.handle_request.__wrapped__ is original
    hooks.stop()
    assert httpx2.HTTPTransport.handle_request is original


def test_a_wrapper_over_ours_is_left_in_place(monkeypatch):
    original = httpx2.HTTPTransport.handle_request
    hooks = TransportHooks(Passive())
    hooks.start()
    monkeypatch.setattr(httpx2.HTTPTransport, "handle_request", lambda *_: "theirs")
    hooks.stop()
    assert httpx2.HTTPTransport.handle_request() == "theirs"
    httpx2.HTTPTransport.handle_request = original


def test_the_import_hook_minds_its_own_modules_only():
    hooks = TransportHooks(Passive())
    assert hooks._finder.find_spec("json", None) is None


def test_loaders_that_only_know_the_old_protocol_are_left_alone(target, monkeypatch):
    class Finder:
        @staticmethod
        def find_spec(name, path, module):
            return types.SimpleNamespace(loader=None, name=name)

    monkeypatch.setattr(sys, "meta_path", [Finder])
    assert TransportHooks(Passive())._finder.find_spec(target, None).loader is None


def test_the_loader_answers_for_the_original(target):
    hooks = TransportHooks(Passive())
    spec = hooks._finder.find_spec(target, None)
    assert spec.loader.is_package(target) is False
    module = types.ModuleType(target)
    spec.loader.exec_module(module)
    hooks.stop()
    assert module.HTTPTransport
