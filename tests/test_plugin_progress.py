"""The live line: drawn below pytest's own output, never in its way, and only where there is a terminal."""

from __future__ import annotations

import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
from fcntl import ioctl
from types import SimpleNamespace

import pytest

from pytest_touchstone.plugin.progress import ERASE, LiveLine, ProgressLine, TerminalScreen, WatchedFile, _can_draw
from pytest_touchstone.trial import Call

ROWS, COLUMNS = 12, 60
SUITE = """
import pytest

@pytest.mark.golden([{"id": f"case-{number}", "input": "x", "expected": str(number)} for number in range(70)])
def test_it(case):
    case.output = "6"
    case.check(lambda trial: "6" not in trial.expected or trial.expected == "6")

@pytest.mark.parametrize("name", ["x" * 50, "y" * 130])
def test_plain(name):
    print("captured")
"""


class Terminal:
    """The few things that a terminal does with what is written here; what has scrolled away stays in `lines`."""

    def __init__(self, rows=ROWS, columns=COLUMNS):
        self.rows, self.width = rows, columns
        self.lines = [""]
        self.top, self.row, self.column = 0, 0, 0

    def write(self, text):
        for piece in re.findall(r"\x1b\[\d*[A-Za-z]|.", text, re.DOTALL):
            self.act(piece)

    def columns(self):
        return self.width

    def act(self, piece):
        if piece == "\r":
            self.column = 0
        elif piece == "\n":
            self.column = 0
            self.down()
        elif piece == ERASE:
            self.lines[self.row] = self.lines[self.row][: self.column]
            del self.lines[self.row + 1 :]
        elif len(piece) == 1:
            self.put(piece)
        elif piece == "\x1b[A":
            self.row = max(self.top, self.row - 1)
        else:
            assert piece.endswith("C"), f"this terminal does not know {piece!r}"
            self.column = min(self.width - 1, self.column + int(piece[2:-1]))

    def put(self, character):
        if self.column == self.width:
            self.column = 0
            self.down()
        line = self.lines[self.row].ljust(self.column)
        self.lines[self.row] = line[: self.column] + character + line[self.column + 1 :]
        self.column += 1

    def down(self):
        self.row += 1
        if self.row == len(self.lines):
            self.lines.append("")
        self.top = max(self.top, self.row - self.rows + 1)

    @property
    def text(self):
        return "\n".join(line.rstrip() for line in self.lines).rstrip()


class Writer:
    """Writes as pytest's terminal writer does, and knows how wide its line is."""

    def __init__(self, terminal):
        self.line = LiveLine(terminal, lambda: self.column)
        self.file = WatchedFile(SimpleNamespace(write=terminal.write, flush=lambda: None, encoding="utf-8"), self.line)
        self.column = 0

    def write(self, text):
        self.column = len(text.rpartition("\n")[2]) + (0 if "\n" in text else self.column)
        self.file.write(text)


@pytest.mark.parametrize("rows", [2, 3, 50])
def test_pytest_writes_as_if_there_were_no_line(rows):
    terminal, alone = Terminal(rows), Terminal(rows)
    writer = Writer(terminal)
    for number, text in enumerate(["test_a.py ", ".", ".", "F  [ 50%]\n", "long " * 13, "PASSED", "\n", "\n\nb", "\rc", "\n", "end"]):
        writer.line.draw(f"{number} done")
        writer.write(text)
        alone.write(text)
        assert (terminal.row, terminal.column) == (alone.row, alone.column)
        assert [line.rstrip() for line in terminal.lines][: alone.row + 1] == [line.rstrip() for line in alone.lines]
    assert terminal.lines[-1] == "10 done"
    writer.line.erase()
    assert terminal.text == alone.text


def test_the_line_is_drawn_below_pytests_own_and_only_when_it_changes():
    written = []
    line = LiveLine(SimpleNamespace(write=written.append, columns=lambda: 80), lambda: 7)
    line.draw("1 done")
    line.draw("1 done")
    line.erase()
    line.erase()
    assert written == ["\x1b[J\n1 done\x1b[A\r\x1b[7C", "\x1b[J"]


def test_it_is_not_drawn_below_a_line_that_is_wider_than_the_screen():
    written = []
    LiveLine(SimpleNamespace(write=written.append, columns=lambda: 80), lambda: 80).draw("1 done")
    assert written == []


def test_a_watched_file_is_the_file_in_everything_else():
    file = Writer(Terminal()).file
    assert file.encoding == "utf-8"


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def progress(clock):
    return ProgressLine({}, clock=clock)


@pytest.fixture
def drawn():
    """What is drawn."""
    return []


@pytest.fixture
def drawing(progress, drawn):
    screen = SimpleNamespace(columns=lambda: 80)
    with progress.drawn_on(screen, SimpleNamespace(draw=drawn.append, erase=lambda: drawn.append("erased")), total=lambda: 10):
        yield


def report(nodeid="a", *, failed=False):
    return SimpleNamespace(nodeid=nodeid, failed=failed)


@pytest.mark.usefixtures("drawing")
def test_tests_are_counted_as_they_end(progress, drawn, clock):
    progress.pytest_runtest_logstart()
    progress.pytest_runtest_logreport(report(failed=True))
    progress.pytest_runtest_logreport(report(failed=True))
    clock.now = 2.0
    progress.pytest_runtest_logfinish("a")
    assert drawn == ["0/10 done", "0/10 done", "0/10 done", "1/10 done, 1 failed, 18 s left"]


@pytest.mark.usefixtures("drawing")
def test_the_text_changes_ten_times_a_second_at_most(progress, drawn, clock):
    progress.tick()
    clock.now = 0.09
    progress.pytest_runtest_logfinish("a")
    clock.now = 0.1
    progress.tick()
    assert drawn == ["0/10 done", "0/10 done", "1/10 done"]


@pytest.mark.usefixtures("drawing")
def test_bodies_in_flight_are_counted_from_any_thread(progress, drawn, clock):
    threads = [threading.Thread(target=progress.started, args=(f"test-{number}",)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    progress.tick()
    progress.ended("test-0")
    progress.ended("test-1")
    progress.ended("of another kind")
    clock.now = 0.1
    progress.pytest_runtest_logfinish("test-0")
    assert drawn == ["0/10 done, 5 in flight", "2/10 done, 3 in flight"]


@pytest.mark.parametrize(
    ("calls", "text"),
    [
        ([Call(provider="p", model="m", cost_usd=0.5), Call(provider="p", model="m", cost_usd=9.0, replayed=True)], "$0.5000 so far"),
        ([Call(provider="p", model="m", cost_usd=0.5), Call(provider="p", model="m")], "at least $0.5000 so far"),
        ([Call(provider="p", model="m"), Call(provider="p", model="m")], "cost unknown"),
        ([Call(provider="p", model="m", replayed=True), Call(provider="p", model="m", replayed=True)], "$0.00 so far"),
    ],
)
@pytest.mark.usefixtures("drawing")
def test_calls_are_counted_with_what_is_paid_now(progress, drawn, clock, calls, text):
    progress.tick()
    progress.called(calls)
    clock.now = 4.0
    progress.tick()
    assert drawn[1] == f"0/10 done, 0.5 calls/s, {text}"


def test_how_many_tests_there_are_may_be_known_late(progress, drawn, clock):
    totals = [0, 5]
    with progress.drawn_on(
        SimpleNamespace(columns=lambda: 80), SimpleNamespace(draw=drawn.append, erase=lambda: None), total=lambda: totals.pop(0)
    ):
        progress.tick()
        clock.now = 1.0
        progress.tick()
    assert drawn == ["0 done", "0/5 done"]


def test_nothing_is_drawn_where_there_is_no_terminal(progress, drawn):
    progress.tick()
    with progress.drawn_on(SimpleNamespace(columns=lambda: 80), SimpleNamespace(draw=drawn.append, erase=lambda: None), total=lambda: 1):
        progress.tick()
    progress.tick()
    assert drawn == ["0/1 done"]


@pytest.mark.usefixtures("drawing")
def test_a_debugger_has_the_terminal_to_itself(progress, drawn):
    progress.pytest_enter_pdb()
    progress.pytest_enter_pdb()
    progress.tick()
    assert drawn == ["erased"]


def make_reporter(pytester, *args, isatty=True):
    return pytest.TerminalReporter(pytester.parseconfig(*args), SimpleNamespace(isatty=lambda: isatty, write=len, flush=lambda: None))


@pytest.mark.parametrize(
    ("args", "environ", "drawn"),
    [
        ([], {}, True),
        (["-v"], {"CI": "false", "TERM": "xterm"}, True),
        (["--capture=sys"], {}, True),
        ([], {"CI": "true"}, False),
        ([], {"TERM": "dumb"}, False),
        (["-q"], {}, False),
        (["-s"], {}, False),
        (["--capture=no"], {}, False),
        (["--capture=tee-sys"], {}, False),
        (["--pdb"], {}, False),
        (["--trace"], {}, False),
        (["--collect-only"], {}, False),
    ],
)
def test_where_the_line_is_drawn(pytester, args, environ, drawn):
    reporter = make_reporter(pytester, *args)
    assert _can_draw(reporter.config, reporter, environ) is drawn


def test_other_places_get_no_line(pytester):
    reporter = make_reporter(pytester, isatty=False)
    assert not _can_draw(reporter.config, reporter, {})
    assert not _can_draw(reporter.config, None, {})
    another = type("Sugar", (pytest.TerminalReporter,), {})(reporter.config, SimpleNamespace(isatty=lambda: True, write=len))
    assert not _can_draw(reporter.config, another, {})
    reporter = make_reporter(pytester)
    reporter._tw = object()
    assert not _can_draw(reporter.config, reporter, {})


@pytest.fixture
def terminal_size():
    """The two ends of a pseudo-terminal; the first is where its output is read."""
    ends = pty.openpty()
    yield ends
    for end in ends:
        os.close(end)


def test_a_terminal_is_asked_how_wide_it_is(terminal_size):
    master, slave = terminal_size
    screen = TerminalScreen(slave)
    assert screen.columns() == 80
    ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, 33, 0, 0))
    assert screen.columns() == 33
    screen.write("1 \u2026")
    assert os.read(master, 10) == b"1 ?"
    screen.close()


def test_a_terminal_that_is_gone_stops_nothing(tmp_path):
    (tmp_path / "file").touch()
    with (tmp_path / "file").open("rb") as file:
        screen = TerminalScreen(file.fileno())
        screen.write("x")
        assert screen.columns() == 80
        screen.close()


def in_terminal(folder, *args):
    """What pytest writes to a terminal, in a process of its own."""
    master, slave = pty.openpty()
    ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    command = [sys.executable, "-m", "pytest", "--color=no", "--llm-eval", "--llm-show=1", "--llm-store=off", "-p", "no:randomly", *args]
    with subprocess.Popen(command, cwd=folder, stdin=slave, stdout=slave, env={**environment, "TERM": "xterm"}):
        os.close(slave)
        received = bytearray()
        # Linux says EIO, others nothing, when the last process has closed the other end.
        try:
            while data := os.read(master, 65536):
                received += data
        except OSError:
            pass
        os.close(master)
    return received.decode().replace("\r\n", "\n")


def on_screen(written):
    terminal = Terminal()
    terminal.write(written)
    return re.sub(r"\d+\.\d+s", "0.00s", terminal.text)


@pytest.mark.parametrize("args", [(), ("-v",)], ids=["dots", "verbose"])
def test_a_terminal_ends_up_as_if_there_had_been_no_line(pytester, args):
    pytester.makepyfile(test_suite=SUITE)
    drawn = in_terminal(pytester.path, *args)
    plain = in_terminal(pytester.path, "--llm-no-progress", *args)
    assert re.search(r"\x1b\[J\n\d+/72 done", drawn)
    assert "\x1b" not in plain
    assert on_screen(drawn) == on_screen(plain)
    assert "15 failed" in plain


def test_the_controller_of_xdist_draws_too(pytester):
    pytester.makepyfile(test_suite=SUITE)
    written = in_terminal(pytester.path, "-n", "2")
    assert re.search(r"\x1b\[J\n\d+/72 done", written)
    assert " done" not in on_screen(written)
    assert re.search("15 failed, 57 passed", on_screen(written))


def test_the_line_can_be_switched_off_for_good(pytester):
    pytester.makepyfile(test_suite=SUITE)
    pytester.makeini("[pytest]\nllm_progress = false\n")
    assert "\x1b" not in in_terminal(pytester.path)
