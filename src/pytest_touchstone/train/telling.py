"""How a training process and the one that started it understand each other; runs in both, so it needs nothing but Python.

The process tells on its standard output: a line is an event where it holds a record separator (RFC 7464) and JSON behind it, anything
else is what its libraries print. It reads its standard input only for its end: when that comes, whoever started it wants it to stop, or
is gone, so it writes a checkpoint and ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
from typing import Any, Final, cast

MARK: Final = b"\x1e"
REFUSED: Final = 3  # exit status: the job cannot be trained as it is; the event `problems` says why
STOPPED: Final = 4  # exit status: told to stop, and a checkpoint is written


def tell(event: str, **fields: Any) -> None:  # noqa: ANN401 - JSON values
    """Say something to whoever started this process, in one piece; nothing happens where nobody is there any more."""
    line = MARK + json.dumps({"event": event, **fields}).encode() + b"\n"
    with contextlib.suppress(OSError):
        while line:
            line = line[os.write(1, line) :]


def told(line: bytes) -> tuple[bytes, dict[str, Any] | None]:
    r"""What a library printed on a line, and the event behind it, None where there is none.

    >>> told(b'33%\r\x1e{"event": "total", "steps": 3}\n')
    (b'33%\r', {'event': 'total', 'steps': 3})
    """
    printed, mark, text = line.partition(MARK)
    if not mark:
        return line, None
    try:
        event = json.loads(text)
    except (ValueError, RecursionError):
        return line, None
    known = isinstance(event, dict) and isinstance(cast("dict[str, object]", event).get("event"), str)
    return (printed, cast("dict[str, Any]", event)) if known else (line, None)


def stop_wanted() -> threading.Event:
    """Set once the standard input of this process has ended."""
    wanted = threading.Event()

    def wait() -> None:
        with contextlib.suppress(OSError, ValueError):
            while os.read(sys.stdin.fileno(), 1 << 10):
                pass
        wanted.set()

    threading.Thread(target=wait, daemon=True).start()
    return wanted
