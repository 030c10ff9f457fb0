"""The backends that train on this machine, each by a module in a process of its own."""

from __future__ import annotations

from typing import Final

from pytest_touchstone.train.process import LocalBackend

TRL: Final = LocalBackend(module="pytest_touchstone.train.trl")
UNSLOTH: Final = LocalBackend(module="pytest_touchstone.train.unsloth")
