"""Processes write logs, are told of, and end with all that they started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pytest_touchstone import improve_process
from pytest_touchstone.improve_process import Process

LINES = r"import sys; sys.stdout.write('one\r\n50 %\r100 %\n\x1b[31mred\nlast')"
STUBBORN = """
import signal, subprocess
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda *_: print("no", flush=True))
subprocess.Popen(["sh", "-c", "trap '' INT TERM; echo $$; exec sleep 600"])
while True:
    signal.pause()
"""


def start(tmp_path, script, tell=None):
    return Process([sys.executable, "-c", script], log=tmp_path / "x.log", folder=tmp_path, environ=dict(os.environ), tell=tell)


def first_line(process):
    while b"\n" not in process.log.read_bytes():
        assert process.running
    return process.log.read_text().splitlines()[0]


def is_gone(pid):
    status = Path(f"/proc/{pid}/status")
    return not status.exists() or "zombie" in status.read_text()


def wait_until_gone(pid):
    while not is_gone(pid):
        time.sleep(0.01)


def test_lines_are_told_as_they_come_and_nothing_in_them_acts(tmp_path):
    told = []
    with start(tmp_path, LINES, told.append) as process:
        assert process.wait() == 0
        process.stop()
    assert told == ["one", "50 %", "100 %", r"\x1b[31mred", "last"]
    assert process.log.read_bytes() == b"one\r\n50 %\r100 %\n\x1b[31mred\nlast"
    assert process.tail().splitlines()[-2:] == [r"  | \x1b[31mred", "  | last"]


@pytest.mark.parametrize(
    ("script", "status"), [("raise SystemExit(7)", 7), ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", 137)]
)
def test_the_exit_status_is_that_of_the_command(tmp_path, script, status):
    with start(tmp_path, script) as process:
        assert process.wait() == status
        assert not process.running


def test_what_does_not_end_when_asked_is_ended_with_what_it_started(tmp_path, monkeypatch):
    monkeypatch.setattr(improve_process, "PATIENCE_S", 0.2)
    with start(tmp_path, STUBBORN) as process:
        child = first_line(process)
    assert process.log.read_text().splitlines() == [child, "no", "no"]
    wait_until_gone(child)


def test_a_second_ctrl_c_moves_on_to_the_harsher_signal(tmp_path, monkeypatch):
    sent = []

    def impatient(process, number):
        sent.append(number)
        raise KeyboardInterrupt

    process = start(tmp_path, STUBBORN)
    child = first_line(process)
    monkeypatch.setattr(Process, "_ends_by", impatient)
    process.stop()
    assert sent == [signal.SIGINT, signal.SIGTERM]
    wait_until_gone(child)


def test_a_command_ends_when_whoever_asked_for_it_is_gone(tmp_path):
    script = f"""
import os, sys
from pathlib import Path
from pytest_touchstone.improve_process import Process
Process([sys.executable, "-c", "import os, time; print(os.getpid(), flush=True); time.sleep(600)"],
        log=Path({str(tmp_path / "x.log")!r}), folder=Path({str(tmp_path)!r}), environ=dict(os.environ))
print("started", flush=True)
sys.stdin.read()
"""
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout.readline() == "started\n"
        while not (pid := (tmp_path / "x.log").read_text().strip()):
            pass
        assert not is_gone(pid)
        parent.kill()
    wait_until_gone(pid)
