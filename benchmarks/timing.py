"""What the benchmarks share: commands run in turn, so that a machine whose speed drifts treats them alike."""

from __future__ import annotations

import statistics
import subprocess
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


def run_in_turn(commands: Mapping[str, Sequence[str]], *, cwd: Path, rounds: int) -> dict[str, list[float]]:
    """Run every command once unmeasured, then `rounds` times in turn; the wall-clock seconds of each run, by name."""
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(rounds + 1):
        for name, command in commands.items():
            started = time.perf_counter()
            subprocess.run(command, cwd=cwd, check=True, stdout=subprocess.DEVNULL)
            if number:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def print_medians(seconds: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Print one line for each name (minimum, median, maximum) and return the medians."""
    for name, values in seconds.items():
        print(f"{name:32} min {min(values):7.3f} s   median {statistics.median(values):7.3f} s   max {max(values):7.3f} s")
    return {name: statistics.median(values) for name, values in seconds.items()}
