"""Reading what options and ini keys say."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, TypeVar

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


def optional(config: pytest.Config, name: str, read: Callable[[str], T], example: str) -> T | None:
    """What an ini key says, None where it is empty.

    Raises:
        pytest.UsageError: it cannot be read.
    """
    text: str = config.getini(name)
    return read_value(name, text, read, example) if text else None


def read_value(name: str, text: str, read: Callable[[str], T], example: str) -> T:
    """The text of an ini key, read.

    Raises:
        pytest.UsageError: it cannot be read.
    """
    try:
        return read(text)
    except argparse.ArgumentTypeError as error:
        msg = f"ini {name}: {error}, for example {name} = {example}"
        raise pytest.UsageError(msg) from error


def part(text: str) -> float:
    """The number from 0 to 1 that the text says, for an option."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        msg = f"{text!r} is not a number from 0 to 1"
        raise argparse.ArgumentTypeError(msg)
    return value


def similarity(text: str) -> float:
    """The number above 0 and up to 1 that the text says, for an option or an ini key."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        msg = f"{text!r} is not a number above 0 and up to 1"
        raise argparse.ArgumentTypeError(msg)
    return value


def positive(text: str) -> int:
    """The whole number of at least 1 that the text says, for an option or an ini key."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        msg = f"{text!r} is not a whole number of at least 1"
        raise argparse.ArgumentTypeError(msg)
    return value
