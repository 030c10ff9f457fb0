"""The ledger: which case went into an export of this folder, ever; so a case that becomes holdout later is known to have been taught."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pydantic import BaseModel, ConfigDict, ValidationError

from pytest_touchstone.errors import ExportError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from pathlib import Path

LEDGER_FILE: Final = "ledger.jsonl"
MAX_NAMED: Final = 10  # what a message lists one by one


class Taught(BaseModel):
    """One input that an export held; `export` is the sha256 (hex) of the first training file with it."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    suite: str
    case_id: str
    input_fingerprint: str
    content_hash: str
    export: str

    @property
    def key(self) -> tuple[str, str, str]:
        """By what the ledger is sorted; each stands there once."""
        return self.suite, self.case_id, self.input_fingerprint


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """What the exports of one folder have held so far."""

    entries: tuple[Taught, ...] = ()

    @classmethod
    def read(cls, path: Path) -> Ledger:
        """The ledger of a file; empty where there is none.

        Raises:
            ExportError: lines of it cannot be read; names each, at most ten.
            OSError: the disk failed.
        """
        try:
            lines = path.read_bytes().splitlines()
        except FileNotFoundError:
            return cls()
        entries: list[Taught] = []
        broken: list[int] = []
        for number, line in enumerate(lines, 1):
            try:
                entries.append(Taught.model_validate_json(line))
            except ValidationError:
                broken.append(number)
        if broken:
            which = ", ".join(map(str, broken[:MAX_NAMED])) + (" and more" if len(broken) > MAX_NAMED else "")
            fix = "restore the file, as from git; in a merge, keep the lines of both sides"
            msg = f"{path}:{broken[0]}: cannot be read as an entry of the ledger (lines at fault: {which}); {fix}"
            raise ExportError(msg)
        return cls(entries=tuple(entries))

    def with_(self, entries: Iterable[Taught]) -> Ledger:
        """The ledger with more entries, sorted; of an input that it knew, the first entry stays."""
        known: dict[tuple[str, str, str], Taught] = {}
        for entry in (*self.entries, *entries):
            known.setdefault(entry.key, entry)
        return Ledger(entries=tuple(known[key] for key in sorted(known)))

    def taught(self, cases: Collection[tuple[str, str]], inputs: Collection[str]) -> tuple[Taught, ...]:
        """The entries of these cases (suite and id) or of these input fingerprints."""
        return tuple(entry for entry in self.entries if entry.key[:2] in cases or entry.input_fingerprint in inputs)

    def encode(self) -> bytes:
        """What the file holds: a JSON object a line, so that git merges what two branches add."""
        return b"".join(json.dumps(entry.model_dump()).encode() + b"\n" for entry in self.entries)
