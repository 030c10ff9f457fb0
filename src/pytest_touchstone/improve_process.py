"""The processes of an improvement: each writes a log, is watched, and is ended with everything that it started."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Self

from pytest_touchstone.text import visible

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

POLL_S = 0.05
# How long a process may take to end by itself; a run of tests stores its recordings then.
PATIENCE_S = 30.0
TAIL = 15
MAX_LINE = 4_000


class Process:
    """A command in a process group of its own; its output goes to `log`, and line by line to `tell`.

    As a context manager it has ended when the block is left, however that happens: first it is asked to (SIGINT, then SIGTERM), then it is
    made to. Ctrl-C while it is asked moves on to the harsher signal. If this process is killed, the command is ended all the same.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        log: Path,
        folder: Path,
        environ: Mapping[str, str],
        tell: Callable[[str], None] | None = None,
    ) -> None:
        """Start it."""
        self.log = log
        self._tell = tell
        self._read = 0
        self._rest = b""
        keeper = [sys.executable, "-m", "pytest_touchstone.improve_keeper"]
        with log.open("wb") as output:
            self._process = subprocess.Popen(  # noqa: S603 - the commands are our own and the user's
                [*keeper, *command],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env={**environ, "PYTHONUNBUFFERED": "1"},
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def running(self) -> bool:
        """Whether it has not ended; it is not reaped here, so its group stays its own until it is stopped."""
        if self._process.returncode is not None:
            return False
        return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def wait(self) -> int:
        """Wait until it ends by itself; its exit status."""
        while self.running:
            self._pass_on()
            time.sleep(POLL_S)
        self.stop()
        return self._process.returncode

    def stop(self) -> None:
        """End it, and whatever it has started; nothing happens where that is done."""
        if self._process.returncode is not None:
            return
        for number in (signal.SIGINT, signal.SIGTERM):
            with contextlib.suppress(KeyboardInterrupt):
                if self._ends_by(number):
                    break
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._pass_on(last=True)

    def _ends_by(self, number: int) -> bool:
        if self.running:
            os.killpg(self._process.pid, number)
        until = time.monotonic() + PATIENCE_S
        while self.running:
            if time.monotonic() > until:
                return False
            self._pass_on()
            time.sleep(POLL_S)
        return True

    def tail(self) -> str:
        """The last lines of the log, safe to show."""
        with self.log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL * MAX_LINE))
            lines = file.read().decode("utf-8", "replace").splitlines()
        return "\n".join(f"  | {visible(line)[:MAX_LINE]}" for line in [line for line in lines if line.strip()][-TAIL:])

    def _pass_on(self, *, last: bool = False) -> None:
        """Tell the lines that are whole; a progress bar that goes back to the start of its line begins another."""
        if self._tell is None:
            return
        with self.log.open("rb") as file:
            file.seek(self._read)
            new = file.read()
        self._read += len(new)
        *lines, self._rest = (self._rest + new).replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        if last and self._rest:
            lines.append(self._rest)
        for line in lines:
            self._tell(visible(line.decode("utf-8", "replace")))
