"""Watching a run: each step into `progress.jsonl`, and to whoever looks on."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from pytest_touchstone.files import replace_file
from pytest_touchstone.text import shorten, visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path
    from typing import TextIO

PROGRESS_FILE: Final = "progress.jsonl"
TOLD: Final = 20  # how many lines a run prints where there is no terminal
_LIVE_WIDTH: Final = 110


@dataclass(frozen=True, kw_only=True)
class Step:
    """What is known after a step; `epoch` counts passes over the data, and what was not measured at this step is None."""

    step: int
    epoch: float | None = None
    loss: float | None = None
    learning_rate: float | None = None
    eval_loss: float | None = None

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Step | None:
        """The step of a trainer's log entry; None where it is none, such as the summary at the end.

        >>> Step.of({"step": 3, "loss": 0.5, "grad_norm": 1.0})
        Step(step=3, epoch=None, loss=0.5, learning_rate=None, eval_loss=None)
        """
        numbers = {field.name: _number(values.get(field.name)) for field in dataclasses.fields(cls) if field.name != "step"}
        step = values.get("step")
        if not isinstance(step, int) or (numbers["loss"] is None and numbers["eval_loss"] is None):
            return None
        return cls(step=step, **numbers)

    def encode(self) -> bytes:
        """One line of `progress.jsonl`."""
        return json.dumps(dataclasses.asdict(self)).encode() + b"\n"


def _number(value: object) -> float | None:
    """A finite number; anything else is not known."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value or value in {float("inf"), float("-inf")}:  # noqa: PLR0124 - NaN
        return None
    return float(value)


def read_steps(folder: Path) -> list[Step]:
    """The steps of a run, in order; empty where none was logged. A torn last line is left out."""
    try:
        lines = (folder / PROGRESS_FILE).read_bytes().splitlines()
    except FileNotFoundError:
        return []
    steps: list[Step] = []
    for line in lines:
        try:
            values: object = json.loads(line)
        except ValueError:
            continue
        step = Step.of(cast("Mapping[str, Any]", values)) if isinstance(values, dict) else None
        if step is not None:
            steps.append(step)
    return steps


class Watch:
    """Keeps the steps of one run and shows where it is: on a terminal one line that changes, elsewhere about twenty lines.

    What is shown comes from a training process or a provider, so it is made harmless first.
    """

    def __init__(self, folder: Path, out: TextIO, *, before: Iterable[Step] = (), clock: Callable[[], float] = time.monotonic) -> None:
        """Start `progress.jsonl` in the folder with the steps `before`, which a resumed run has made already."""
        self._out = out
        self._clock = clock
        self._live = out.isatty()
        self._drawn = False
        self._total: int | None = None
        self._first: tuple[int, float] | None = None
        self._told = -1
        self.steps: list[Step] = list(before)
        path = folder / PROGRESS_FILE
        replace_file(path, b"".join(step.encode() for step in self.steps))
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND)

    def close(self) -> None:
        """Close the file and leave the terminal on a line of its own."""
        self._clear()
        os.close(self._file)

    def note(self, text: str) -> None:
        """Print a line."""
        self._clear()
        print(visible(text), file=self._out, flush=True)

    def phase(self, text: str) -> None:
        """Say what is being done now; where there is no terminal, as a line."""
        if self._live:
            self._draw(f"{text} ...")
        else:
            self.note(f"{text} ...")

    def total(self, steps: int) -> None:
        """Say how many steps the run has; from now on the time left can be told."""
        self._total = steps
        self._first = (self.steps[-1].step if self.steps else 0, self._clock())

    def step(self, step: Step) -> None:
        """Keep a step: written before it is shown, whole or not at all."""
        os.write(self._file, step.encode())
        self.steps.append(step)
        line = self._line(step)
        if self._live:
            self._draw(line)
        elif self._due(step):
            self.note(line)

    def _due(self, step: Step) -> bool:
        if step.eval_loss is not None or not self._total:
            return True
        part = step.step * TOLD // self._total
        due = part > self._told or step.step >= self._total
        self._told = max(part, self._told)
        return due

    def _line(self, step: Step) -> str:
        parts = [f"step {step.step}" + (f"/{self._total}" if self._total else "")]
        parts += [f"epoch {step.epoch:.2f}"] if step.epoch is not None else []
        parts += [f"loss {step.loss:.4f}"] if step.loss is not None else []
        parts += [f"eval loss {step.eval_loss:.4f}"] if step.eval_loss is not None else []
        parts += [f"lr {step.learning_rate:.2e}"] if step.learning_rate is not None else []
        left = self._seconds_left(step)
        return "  ".join([*parts, *([f"{duration(left)} left"] if left else [])])

    def _seconds_left(self, step: Step) -> float | None:
        if not self._total or self._first is None or step.step <= self._first[0]:
            return None
        return (self._clock() - self._first[1]) / (step.step - self._first[0]) * (self._total - step.step)

    def _draw(self, text: str) -> None:
        self._out.write(f"\r\x1b[K{shorten(text, _LIVE_WIDTH)}")
        self._out.flush()
        self._drawn = True

    def _clear(self) -> None:
        if self._drawn:
            self._out.write("\r\x1b[K")
            self._out.flush()
            self._drawn = False


def duration(seconds: float) -> str:
    """A time for people, never shorter than a second.

    >>> duration(0.2), duration(75), duration(7500)
    ('1 s', '1 min 15 s', '2 h 5 min')
    """
    whole = max(round(seconds), 1)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
