"""Replay mode's two guards: no connection beyond loopback, and no need for a key."""

from __future__ import annotations

import functools
import ipaddress
import os
import socket
import sys
import threading
from typing import TYPE_CHECKING, Any

from pytest_touchstone.errors import NetworkBlocked
from pytest_touchstone.recording.redact import PLACEHOLDER_KEY

if TYPE_CHECKING:
    from collections.abc import Iterable

# Each inner tuple holds names of which one is enough; the last of them receives the placeholder.
_KEY_NAMES = (
    ("OPENAI_API_KEY",),
    ("ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_API_KEY"),
    ("AZURE_OPENAI_AD_TOKEN", "AZURE_OPENAI_API_KEY"),
    ("GOOGLE_API_KEY", "GEMINI_API_KEY"),
    ("MISTRAL_API_KEY",),
    ("CO_API_KEY", "COHERE_API_KEY"),
    ("GROQ_API_KEY",),
    ("TOGETHER_API_KEY",),
    ("OPENROUTER_API_KEY",),
    ("DEEPSEEK_API_KEY",),
    ("XAI_API_KEY",),
    ("FIREWORKS_API_KEY",),
)


@functools.lru_cache(maxsize=256)
def is_loopback(host: str) -> bool:
    """Whether the host is this machine.

    >>> is_loopback("127.0.0.1"), is_loopback("::ffff:127.0.0.1"), is_loopback("api.openai.com")
    (True, True, False)
    """
    name = host.strip("[]").rstrip(".").lower()
    if name in {"localhost", ""} or name.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(name.split("%", maxsplit=1)[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None) or address
    return bool(mapped.is_loopback or mapped.is_unspecified)


class PlaceholderKeys:
    """Sets the environment variables of absent API keys, so that SDK clients can be built; `stop` removes exactly those."""

    def __init__(self) -> None:
        """Nothing is set yet."""
        self._set: list[str] = []

    def start(self) -> None:
        """Set a placeholder for every provider that has no key."""
        for names in _KEY_NAMES:
            if not any(os.environ.get(name) for name in names):
                # An empty value is left as it is: somebody set it so.
                if names[-1] in os.environ:
                    continue
                os.environ[names[-1]] = PLACEHOLDER_KEY
                self._set.append(names[-1])

    def stop(self) -> None:
        """Remove the placeholders that are still in place."""
        for name in self._set:
            if os.environ.get(name) == PLACEHOLDER_KEY:
                del os.environ[name]
        self._set.clear()


class NetworkGuard:
    """Blocks connections and look-ups beyond loopback in this process while started, whatever library makes them.

    `allow_hosts` are host names or addresses that stay reachable. Subprocesses are not covered.
    """

    def __init__(self, allow_hosts: Iterable[str] = ()) -> None:
        """Block nothing yet."""
        self._allowed = {host.strip().strip("[]").rstrip(".").lower() for host in allow_hosts}
        self._resolving = threading.local()

    def start(self) -> None:
        """Block from now on."""
        _install_audit_hook()
        _guards.append(self)

    def stop(self) -> None:
        """Block no longer."""
        if self in _guards:
            _guards.remove(self)

    def allows(self, host: str) -> bool:
        """Whether a connection to this host may be made."""
        return is_loopback(host) or self.names(host)

    def names(self, host: str) -> bool:
        """Whether the host is on the list of allowed ones."""
        return host.strip("[]").rstrip(".").lower() in self._allowed

    def check(self, host: object, port: object = None) -> None:
        """Raise NetworkBlocked unless a connection to this host may be made."""
        name = host.decode("utf-8", "replace") if isinstance(host, bytes) else host
        if not isinstance(name, str) or self.allows(name):
            return
        msg = (
            f"recordings are only replayed (--llm-record none), and something tried to reach {_place(name, port)}. "
            f"Calls of httpx-based SDKs inside a golden test are replayed; this one came from elsewhere or from another library. "
            f"Run with --llm-record missing, or allow the host: --llm-allow-host {name}"
        )
        raise NetworkBlocked(msg)

    def admit(self, host: object) -> None:
        """Resolve an allowed name, so that connections to its addresses are allowed as well."""
        if not isinstance(host, str) or is_loopback(host) or not self.names(host) or getattr(self._resolving, "now", False):
            return
        self._resolving.now = True
        try:
            self._allowed |= {str(found[4][0]).lower() for found in socket.getaddrinfo(host, None)}
        except OSError:
            return  # the caller's own look-up fails in the same way and says so
        finally:
            self._resolving.now = False


# An audit hook cannot be removed: it is installed once per process and looks at this list.
_guards: list[NetworkGuard] = []
_installed: list[bool] = []


def _install_audit_hook() -> None:
    if not _installed:
        _installed.append(True)
        sys.addaudithook(_audit)


def _audit(event: str, args: tuple[Any, ...]) -> None:
    if not _guards or not event.startswith("socket."):
        return
    for guard in tuple(_guards):
        if event in {"socket.connect", "socket.sendto", "socket.sendmsg"}:
            _check_socket(guard, args)
        elif event == "socket.getaddrinfo":
            guard.check(args[0], args[1])
            guard.admit(args[0])
        elif event in {"socket.gethostbyname", "socket.gethostbyaddr"}:
            guard.check(args[0])


def _check_socket(guard: NetworkGuard, args: Any) -> None:  # noqa: ANN401 - whatever the event carries
    if getattr(args[0], "family", None) in {socket.AF_INET, socket.AF_INET6} and isinstance(args[1], tuple):
        guard.check(*args[1][:2])


def _place(host: str, port: object) -> str:
    return host if port is None else f"{host}:{port.decode() if isinstance(port, bytes) else port}"
