"""The live line of progress below pytest's own output on a terminal.

It is drawn on the line below the one that pytest writes, and the cursor goes back to where pytest left it, so that whatever pytest
writes next stands where it would stand anyway. Before a line of pytest's ends, which would run into it, it is erased.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from pytest_touchstone.report.progress import Pace, Progress, progress_line
from pytest_touchstone.settings import in_ci

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Mapping

    from pytest_touchstone.trial import Call

PROGRESS = "touchstone-progress"
REDRAW_S = 0.1
DEFAULT_COLUMNS = 80
ERASE = "\x1b[J"  # from the cursor to the end of the screen: the rest of pytest's line, which is empty, and ours
UP = "\x1b[A"


class Screen(Protocol):
    """A terminal, as much of it as the live line needs."""

    def write(self, text: str) -> None:
        """Send text, at once."""

    def columns(self) -> int:
        """How many columns it has."""
        ...


class TerminalScreen:
    """The terminal behind a file, through a descriptor of its own, since pytest redirects the file's while it captures."""

    def __init__(self, fileno: int) -> None:
        """Take a copy of the descriptor; `close` gives it back."""
        self._fd = os.dup(fileno)

    def write(self, text: str) -> None:
        """Send text, at once; a terminal that is gone is no reason to stop a run."""
        with contextlib.suppress(OSError):
            os.write(self._fd, text.encode("ascii", "replace"))

    def columns(self) -> int:
        """How many columns it has now; 80 where it does not say."""
        try:
            return os.get_terminal_size(self._fd).columns or DEFAULT_COLUMNS
        except OSError:
            return DEFAULT_COLUMNS

    def close(self) -> None:
        """Close the copy."""
        os.close(self._fd)


class LiveLine:
    """A line of text below the line on which pytest's cursor is."""

    def __init__(self, screen: Screen, column: Callable[[], int]) -> None:
        """`column` tells how wide pytest's current line is."""
        self._screen = screen
        self._column = column
        self.shown = ""

    def draw(self, text: str) -> None:
        """Show the text, which is shorter than a line of the screen, in place of what was shown."""
        column = self._column()
        if text == self.shown or column >= self._screen.columns():  # past the edge, the way back is not known
            return
        # A line feed makes room at the lower end of the screen, where moving down would not.
        self._screen.write(f"{ERASE}\n{text}{UP}\r" + (f"\x1b[{column}C" if column else ""))
        self.shown = text

    def erase(self) -> None:
        """Show nothing."""
        if self.shown:
            self._screen.write(ERASE)
            self.shown = ""

    def make_way(self, text: str) -> None:
        """Erase the line if pytest is about to write text that reaches it."""
        if "\n" in text or "\r" in text or self._column() >= self._screen.columns():
            self.erase()


class WatchedFile:
    """The file that pytest's terminal writer writes to: the live line makes way for what is written."""

    def __init__(self, file: Any, line: LiveLine) -> None:  # noqa: ANN401 - any text file
        """`file` receives everything as it is."""
        self._file = file
        self._line = line

    def write(self, text: str) -> None:
        """Write, at once: what stayed in a buffer would come after the live line that is drawn next."""
        self._line.make_way(text)
        self._file.write(text)
        self._file.flush()

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the file has
        return getattr(self._file, name)


class ProgressLine:
    """Keeps count of a run and, on a terminal, draws it: ten times a second at most, when something happens or `tick` is called.

    `started` and `ended` may be called from any thread; everything else is for the main thread.
    """

    def __init__(self, environ: Mapping[str, str], *, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` tells the time in seconds."""
        self._environ = environ
        self._clock = clock
        self._lock = threading.Lock()
        self._running: set[str] = set()
        self._ended: set[str] = set()
        self._has_window = False
        self._total: Callable[[], int] = int
        self._reported = 0
        self._failed: set[str] = set()
        self._calls = 0
        self._paid_usd = 0.0
        self._priced = 0
        self._unpriced = 0
        self._pace = Pace()
        self._screen: Screen | None = None
        self._line: LiveLine | None = None
        self._text = ""
        self._next_text = 0.0

    def started(self, nodeid: str) -> None:
        """A test's body has started."""
        with self._lock:
            self._has_window = True
            self._running.add(nodeid)

    def ended(self, nodeid: str) -> None:
        """A test's body has ended; its report may come later."""
        with self._lock:
            if nodeid in self._running:
                self._running.discard(nodeid)
                self._ended.add(nodeid)

    def called(self, calls: Iterable[Call]) -> None:
        """Model calls were made."""
        for call in calls:
            self._calls += 1
            if call.replayed or call.cost_usd is not None:
                self._priced += 1
                self._paid_usd += 0.0 if call.replayed else call.cost_usd or 0.0
            else:
                self._unpriced += 1

    def tick(self) -> None:
        """Draw, if there is something new to draw and it is time."""
        if self._line is None or self._screen is None:
            return
        now = self._clock()
        if now >= self._next_text:
            self._next_text = now + REDRAW_S
            # A line that fills the screen's last column would leave the cursor where no sequence brings it back from.
            self._text = progress_line(self._progress(now), self._screen.columns() - 1)
        self._line.draw(self._text)

    @contextlib.contextmanager
    def drawn_on(self, screen: Screen, line: LiveLine, *, total: Callable[[], int]) -> Generator[None]:
        """Draw inside the block, and leave nothing behind; `total` tells how many tests the run holds, 0 while that is not known."""
        self._screen, self._line, self._total = screen, line, total
        try:
            yield
        finally:
            line.erase()
            self._screen = self._line = None

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Generator[None, object, object]:
        """Draw while tests run, where there is a terminal that nobody else writes to."""
        reporter: Any = session.config.pluginmanager.get_plugin("terminalreporter")
        if not _can_draw(session.config, reporter, self._environ):
            return (yield)
        writer = reporter._tw  # noqa: SLF001 - pytest's writer has no public name
        file = writer._file  # noqa: SLF001 - as above
        screen = TerminalScreen(file.fileno())
        line = LiveLine(screen, lambda: int(writer.width_of_current_line))
        writer._file = WatchedFile(file, line)  # noqa: SLF001 - as above
        try:
            with self.drawn_on(screen, line, total=lambda: session.testscollected):  # the controller of xdist learns it late
                return (yield)
        finally:
            writer._file = file  # noqa: SLF001 - as above
            screen.close()

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logstart(self) -> None:
        """Draw after pytest has said which test starts."""
        self.tick()

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count what did not pass, and draw after pytest has printed its letter."""
        if report.failed:
            self._failed.add(report.nodeid)
        self.tick()

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """Count the test as done."""
        with self._lock:
            self._running.discard(nodeid)
            self._ended.discard(nodeid)
        self._reported += 1
        self.tick()

    def pytest_enter_pdb(self) -> None:
        """Leave the terminal to the debugger for the rest of the run."""
        if self._line is not None:
            self._line.erase()
            self._line = None

    def _progress(self, now: float) -> Progress:
        with self._lock:
            done, in_flight = self._reported + len(self._ended), len(self._running)
        total = self._total()
        self._pace.note(now, done=done, calls=self._calls)
        return Progress(
            done=done,
            total=total,
            in_flight=in_flight if self._has_window else None,
            failed=len(self._failed),
            calls_per_s=self._pace.calls_per_s() if self._calls else None,
            cost_usd=self._paid_usd if self._priced else None,
            unpriced=self._unpriced,
            left_s=self._pace.left_s(total - done) if total > done else None,
        )


def _can_draw(config: pytest.Config, reporter: object, environ: Mapping[str, str]) -> bool:
    """Whether stdout is a terminal that only pytest's own reporter writes to while tests run."""
    if type(reporter) is not pytest.TerminalReporter or in_ci(environ) or environ.get("TERM") == "dumb":
        return False
    alone = config.getoption("capture") in {"fd", "sys"} and not (config.getoption("usepdb") or config.getoption("trace"))
    writer: Any = getattr(reporter, "_tw", None)
    file: Any = getattr(writer, "_file", None)
    return (
        alone
        and config.get_verbosity() >= 0
        and not config.getoption("collectonly")
        and hasattr(writer, "width_of_current_line")
        and bool(getattr(file, "isatty", bool)())
    )
