"""Tracebacks cut down to what the user wrote, and made safe to print."""

from __future__ import annotations

import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_touchstone.errors import TouchstoneError
from pytest_touchstone.text import visible

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

_OURS = Path(__file__).resolve().parents[1]
_LIBRARIES = tuple({Path(sysconfig.get_path(name)).resolve() for name in ("purelib", "platlib", "stdlib")})


def error_repr(excinfo: pytest.ExceptionInfo[BaseException], config: pytest.Config) -> Any:  # noqa: ANN401 - pytest's are private
    """The representation of an error, as pytest's own, but with the frames of libraries (SDKs, transports, the event loop) left out.

    An exception that a library raised is shown without its chain of causes, which is all library frames; its message stays.
    Where no frame is the user's, all are shown, unless the error is this package's own: its message says all there is to say.
    """
    if isinstance(excinfo.value, TouchstoneError) and not any(
        _is_users(Path(str(entry.path)), config.rootpath) for entry in excinfo.traceback
    ):
        return str(excinfo.value)
    style = config.getoption("tbstyle")
    raised_by_user = _is_users(Path(str(excinfo.traceback[-1].path)), config.rootpath)
    return excinfo.getrepr(
        style=style if style in {"short", "native"} else "long",
        showlocals=bool(config.getoption("showlocals")),
        tbfilter=lambda info: _user_frames(info, config.rootpath),
        chain=raised_by_user,
    )


def _user_frames(excinfo: pytest.ExceptionInfo[BaseException], rootdir: Path) -> Any:  # noqa: ANN401 - pytest's Traceback is private
    kept = excinfo.traceback.filter(excinfo).filter(lambda entry: _is_users(Path(str(entry.path)), rootdir))
    return kept or excinfo.traceback


def make_safe(longrepr: Any, redact: Callable[[str], str]) -> None:  # noqa: ANN401 - pytest's representations are private classes
    """Redact pytest's own representation of a failure and make control characters in it visible, in place.

    Assertion diffs and exception messages quote what a model said, line by line.
    """
    for traceback, crash, _ in getattr(longrepr, "chain", ()):
        for entry in traceback.reprentries:
            entry.lines[:] = [visible(redact(line)) for line in entry.lines]
            if (locals_ := getattr(entry, "reprlocals", None)) is not None:
                locals_.lines[:] = [visible(redact(line)) for line in locals_.lines]
        if crash is not None:
            crash.message = visible(redact(crash.message))


def _is_users(path: Path, rootdir: Path) -> bool:
    resolved = path.resolve()
    if resolved.is_relative_to(_OURS):
        return False
    in_library = any(resolved.is_relative_to(library) for library in _LIBRARIES)
    virtual = "site-packages" in resolved.parts
    return resolved.is_file() and not virtual and (resolved.is_relative_to(rootdir) or not in_library)
