"""What the benchmarks share: commands run in turn, so that a machine whose speed drifts treats them alike."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

MEGABYTE = 1024 * 1024
# The unit of ru_maxrss: kilobytes, but on macOS bytes.
RSS_UNIT = 1 if sys.platform == "darwin" else 1024


@dataclass(frozen=True, kw_only=True)
class Used:
    """What one process used: seconds on the clock, seconds of CPU (user and system), the peak of its resident memory; its last line."""

    wall_s: float
    cpu_s: float
    peak_bytes: int
    last_line: str


def run(command: Sequence[str], *, cwd: Path, env: Mapping[str, str] | None = None, expected: Collection[int] = (0,)) -> Used:
    """Run a command to its end, whose status must be one of `expected`."""
    # Compiled modules are kept between runs, as on most machines.
    environ = {**os.environ, "PYTHONDONTWRITEBYTECODE": "", **(env or {})}
    with tempfile.TemporaryFile("w+") as printed:
        started = time.perf_counter()
        with subprocess.Popen(command, cwd=cwd, env=environ, stdout=printed) as process:
            _, status, used = os.wait4(process.pid, 0)
            wall_s = time.perf_counter() - started
            process.returncode = os.waitstatus_to_exitcode(status)
        printed.seek(0)
        text = printed.read()
    if process.returncode not in expected:
        msg = f"{command} ended with {process.returncode}:\n{text}"
        raise RuntimeError(msg)
    return Used(
        wall_s=wall_s,
        cpu_s=used.ru_utime + used.ru_stime,
        peak_bytes=used.ru_maxrss * RSS_UNIT,
        last_line=text.rstrip().rpartition("\n")[2],
    )


def run_in_turn(
    commands: Mapping[str, Sequence[str]], *, cwd: Path, rounds: int, env: Mapping[str, str] | None = None
) -> dict[str, list[Used]]:
    """Run every command once unmeasured, then `rounds` times in turn; what each run used, by name."""
    used: dict[str, list[Used]] = {name: [] for name in commands}
    for number in range(rounds + 1):
        for name, command in commands.items():
            each = run(command, cwd=cwd, env=env)
            if number:
                used[name].append(each)
    return used


def wall(used: Mapping[str, Sequence[Used]]) -> dict[str, list[float]]:
    """The seconds on the clock of each run, by name."""
    return {name: [each.wall_s for each in runs] for name, runs in used.items()}


def cpu(used: Mapping[str, Sequence[Used]]) -> dict[str, list[float]]:
    """The seconds of CPU of each run, by name."""
    return {name: [each.cpu_s for each in runs] for name, runs in used.items()}


def print_medians(seconds: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Print one line for each name (minimum, median, maximum) and return the medians."""
    for name, values in seconds.items():
        print(f"{name:32} min {min(values):7.3f} s   median {statistics.median(values):7.3f} s   max {max(values):7.3f} s")
    return {name: statistics.median(values) for name, values in seconds.items()}
