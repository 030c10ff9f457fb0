"""Runs one command, and ends it with everything that it started when whoever asked for it is gone, even by kill -9.

`python -m pytest_touchstone.improve_keeper COMMAND ...`, as the leader of a process group of its own, with a pipe as its standard input:
the pipe ends when the process at its other end does.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

GRACE_S = 10.0


def main(command: Sequence[str]) -> int:
    """Run the command; the result is its exit status, that of a shell where a signal ended it."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave_it_to_the_command)  # a handler, since an ignored signal would be ignored by the command too
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)  # noqa: S603 - the command is the caller's own
    orphaned = threading.Event()
    threading.Thread(target=_watch, args=(orphaned,), daemon=True).start()
    status = process.wait()
    if orphaned.is_set():
        os.killpg(0, signal.SIGKILL)  # pragma: no cover - it ends this process too
    return status if status >= 0 else 128 - status


def _leave_it_to_the_command(*_: object) -> None:
    """The whole group gets the signal."""


def _watch(orphaned: threading.Event) -> None:  # pragma: no cover - ends with the whole group, before anything could be measured
    while os.read(sys.stdin.fileno(), 1 << 10):
        pass
    orphaned.set()
    os.killpg(0, signal.SIGINT)
    time.sleep(GRACE_S)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
