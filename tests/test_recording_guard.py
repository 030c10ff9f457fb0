from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import textwrap

import pytest
from providers import FakeProvider

from pytest_touchstone.errors import NetworkBlocked
from pytest_touchstone.recording import guard as guard_module
from pytest_touchstone.recording.guard import NetworkGuard, PlaceholderKeys, is_loopback


@pytest.fixture
def guard():
    guard = NetworkGuard()
    guard.start()
    yield guard
    guard.stop()


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST.", "127.0.0.1", "127.9.9.9", "::1", "[::1]", "::ffff:127.0.0.1", "a.localhost", "0.0.0.0", "fe80::1%eth0"],
)
def test_loopback(host):
    assert is_loopback(host) is (host != "fe80::1%eth0")


@pytest.mark.parametrize("host", ["api.openai.com", "192.0.2.1", "localhost.example.com", "::ffff:192.0.2.1", "127.0.0.1.example.com"])
def test_not_loopback(host):
    assert not is_loopback(host)


class TestGuard:
    @pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
    def test_connections_are_blocked(self, guard, family):
        address = "192.0.2.1" if family == socket.AF_INET else "2001:db8::1"
        with socket.socket(family) as connection, pytest.raises(NetworkBlocked) as caught:
            connection.connect((address, 443))
        assert str(caught.value) == (
            f"recordings are only replayed (--llm-record none), and something tried to reach {address}:443. "
            "Calls of httpx-based SDKs inside a golden test are replayed; this one came from elsewhere or from another library. "
            f"Run with --llm-record missing, or allow the host: --llm-allow-host {address}"
        )

    def test_all_other_ways_out_are_blocked(self, guard):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagram:
            with pytest.raises(NetworkBlocked, match=r"192.0.2.1:53\."):
                datagram.sendto(b"x", ("192.0.2.1", 53))
            with pytest.raises(NetworkBlocked, match=r"192.0.2.1:53\."):
                datagram.sendmsg([b"x"], [], 0, ("192.0.2.1", 53))
            with pytest.raises(NetworkBlocked, match=r"192.0.2.1:53\."):
                datagram.connect_ex(("192.0.2.1", 53))
        with pytest.raises(NetworkBlocked, match=r"reach example.com:443\."):
            socket.getaddrinfo("example.com", 443)
        with pytest.raises(NetworkBlocked, match=r"reach example.com:https\."):
            socket.getaddrinfo(b"example.com", b"https")
        with pytest.raises(NetworkBlocked, match=r"reach example.com\."):
            socket.gethostbyname("example.com")

    def test_event_loops_are_blocked_too(self, guard):
        async def connect():
            await asyncio.open_connection("example.com", 443)

        with pytest.raises(NetworkBlocked, match=r"example\.com:443"):
            asyncio.run(connect())

    def test_loopback_and_local_sockets_are_not(self, guard, tmp_path):
        with FakeProvider() as provider, socket.create_connection(("localhost", provider.port)) as connection:
            assert connection.getpeername()[1] == provider.port
        with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
            server.bind(str(tmp_path / "s"))
            server.listen()
            client.connect(str(tmp_path / "s"))
        first, second = socket.socketpair()
        with first, second:
            first.sendmsg([b"x"])
        assert socket.getaddrinfo(None, 80)

    def test_nothing_is_blocked_before_and_after(self):
        guard = NetworkGuard()
        guard.stop()
        guard.start()
        guard.stop()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagram:
            datagram.setblocking(False)
            datagram.connect(("127.0.0.1", 9))
        assert guard_module._guards == []

    def test_allowed_hosts_and_their_addresses(self, monkeypatch):
        guard = NetworkGuard(["Models.Internal.", "192.0.2.7"])
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.9", 0))]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_: found)
        assert guard.names("models.internal")
        assert guard.allows("192.0.2.7")
        assert not guard.allows("192.0.2.9")
        guard.admit("models.internal")
        guard.check("192.0.2.9", 80)
        guard.admit(b"bytes")
        guard.admit("elsewhere.example")
        assert not guard.allows("elsewhere.example")

    def test_an_allowed_host_that_cannot_be_found(self, monkeypatch):
        def fail(*_):
            msg = "unknown"
            raise socket.gaierror(msg)

        guard = NetworkGuard(["gone.internal"])
        monkeypatch.setattr(socket, "getaddrinfo", fail)
        guard.admit("gone.internal")
        assert guard.allows("gone.internal")

    def test_allowing_a_host_resolves_it_once_through_the_hook(self):
        script = """
        import socket
        from pytest_touchstone.recording.guard import NetworkGuard
        guard = NetworkGuard(["nowhere.invalid"])
        guard.start()
        try:
            socket.getaddrinfo("nowhere.invalid", 80)
        except OSError as error:
            print("looked up")
        """
        done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True)
        assert done.stdout == "looked up\n"


class TestPlaceholders:
    def test_only_absent_keys_are_set_and_only_those_removed(self, monkeypatch):
        monkeypatch.setenv("OPENAI_API_KEY", "mine")
        monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "mine too")
        monkeypatch.setenv("MISTRAL_API_KEY", "")
        monkeypatch.delenv("GROQ_API_KEY", raising=False)
        monkeypatch.delenv("XAI_API_KEY", raising=False)
        before = dict(os.environ)
        keys = PlaceholderKeys()
        keys.start()
        assert os.environ["OPENAI_API_KEY"] == "mine"
        assert "ANTHROPIC_API_KEY" not in os.environ
        assert os.environ["MISTRAL_API_KEY"] == ""
        assert os.environ["GROQ_API_KEY"] == "touchstone-replays-without-a-key"
        os.environ["XAI_API_KEY"] = "set by the app"
        keys.stop()
        assert os.environ.pop("XAI_API_KEY") == "set by the app"
        assert dict(os.environ) == before


class TestAuditHook:
    """Coverage cannot follow audit hooks, so what the tests above run through is called by name here."""

    def test_events(self, guard):
        with socket.socket() as inet, socket.socket(socket.AF_UNIX) as local:
            for event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
                with pytest.raises(NetworkBlocked, match=r"192\.0\.2\.1:9"):
                    guard_module._audit(event, (inet, ("192.0.2.1", 9)))
                guard_module._audit(event, (inet, ("127.0.0.1", 9)))
                guard_module._audit(event, (local, "/tmp/x"))
                guard_module._audit(event, (inet, None))
        guard_module._audit("socket.getaddrinfo", ("localhost", 80, 0, 0, 0))
        guard_module._audit("socket.bind", (None, ("192.0.2.1", 9)))
        guard_module._audit("open", ("x",))
        for event in ("socket.gethostbyname", "socket.gethostbyaddr"):
            with pytest.raises(NetworkBlocked, match=r"reach 192.0.2.1\."):
                guard_module._audit(event, ("192.0.2.1",))
