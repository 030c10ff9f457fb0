"""What a training format is: examples in, and the files out that one consumer reads as they are."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pytest_touchstone.export.example import Example, LeftOut

Row = dict[str, Any]

TRAIN_FILE: Final = "train.jsonl"
_LINE_ENDS: Final = {ord(end): f"\\u{ord(end):04x}" for end in "\x85\u2028\u2029"}  # `str.splitlines` breaks a line at these, too


class NotHeldError(Exception):
    """An example holds what a format has no place for; the message is the reason, with details after a colon."""


@dataclass(frozen=True, kw_only=True)
class Files:
    """The content of each file of a format, by its name in the format's folder; `anchored` are columns that `formats.trl` explains."""

    content: Mapping[str, bytes]
    anchored: tuple[str, ...] = ()


class Format(Protocol):
    """One consumer's format. What it writes keeps every rule of that consumer, and what it cannot hold is left out with the reason."""

    @property
    def files(self) -> tuple[str, ...]:
        """The names of all files that it may write, in the order in which they are written."""
        ...

    def row(self, example: Example) -> Row:
        """The example as the consumer reads it.

        Raises:
            NotHeldError: the consumer cannot read it.
        """
        ...

    def encode(self, rows: Sequence[Row]) -> Files | LeftOut:
        """The files of at least one row, the same bytes for the same rows, or why the consumer would not take these rows together."""
        ...


def json_text(value: object) -> str:
    """JSON on one line, characters as they are."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def json_lines(values: Iterable[object]) -> bytes:
    """One JSON value a line, whatever a reader takes for the end of a line."""
    return b"".join(json_line(value) + b"\n" for value in values)


def json_line(value: object) -> bytes:
    """One line of `json_lines`, without its end."""
    return json_text(value).translate(_LINE_ENDS).encode()
