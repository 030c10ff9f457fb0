"""What an improvement was asked for, and which of its steps are done: `state.json`, from which it goes on after any interruption."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pytest_touchstone.errors import ImproveError
from pytest_touchstone.files import replace_file

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

StepName: TypeAlias = Literal["before", "train", "after"]

STATE_FILE: Final = "state.json"
LOCK_FILE: Final = "lock"
STATE_FORMAT: Final = "pytest-touchstone improvement 1"


class Inputs(BaseModel):
    """What the command was given. Paths are absolute; `app_env` has its placeholders still; times are in seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: str
    pytest_args: tuple[str, ...] = ()
    model: str
    backend: str | None = None
    config: str | None = None
    python: str | None = None
    train_args: tuple[str, ...] = ()
    export: str | None = None
    app_env: tuple[str, ...] = ()
    name: str | None = None
    alpha: float = 0.01
    max_forgetting: float = 5.0
    serve_timeout_s: float = 600.0


class Done(BaseModel):
    """A step that is done: the hash of all that it depends on, and what later steps need of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fingerprint: str
    result: dict[str, Any]


class State(BaseModel):
    """The file as a whole."""

    model_config = ConfigDict(extra="forbid")

    format: Literal["pytest-touchstone improvement 1"] = STATE_FORMAT
    inputs: Inputs
    steps: dict[StepName, Done] = Field(default_factory=dict[StepName, Done])

    def result(self, step: StepName, fingerprint: str) -> dict[str, Any] | None:
        """What a step left, None where it is not done, or was done with something else than now."""
        done = self.steps.get(step)
        return None if done is None or done.fingerprint != fingerprint else done.result

    def save(self, folder: Path) -> None:
        """Write it; a reader sees the old file or the new one."""
        replace_file(folder / STATE_FILE, self.model_dump_json(indent=2).encode() + b"\n")

    @classmethod
    def load(cls, folder: Path) -> State:
        """Read it.

        Raises:
            ImproveError: there is none, or it is not one of ours.
        """
        path = folder / STATE_FILE
        try:
            return cls.model_validate_json(path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            msg = f"{folder}: holds no improvement that could be resumed (no {STATE_FILE}); leave --resume out"
            raise ImproveError(msg) from None
        except ValidationError:
            msg = f"{path}: cannot be read as the state of an improvement; start anew with another --output"
            raise ImproveError(msg) from None


def fingerprint(*values: object) -> str:
    """The sha256 (hex) of plain values.

    >>> fingerprint("a", ["b"]) == fingerprint("a", ("b",)), fingerprint("a", "b") == fingerprint("ab")
    (True, False)
    """
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def file_hash(path: Path) -> str | None:
    """The sha256 (hex) of a file, None where there is none."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except (FileNotFoundError, NotADirectoryError):
        return None


@contextlib.contextmanager
def locked(folder: Path) -> Generator[None]:
    """Inside, no other process works in the folder.

    Raises:
        ImproveError: another one does.
    """
    with (folder / LOCK_FILE).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            msg = f"{folder}: another touchstone improve works there; wait for it, or give another --output"
            raise ImproveError(msg) from None
        yield
