"""The file of a further export format, as the export wrote it, with the case that each of its lines comes from."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from pytest_touchstone.cases import stable_number
from pytest_touchstone.errors import Fault, JobError
from pytest_touchstone.export.format import TRAIN_FILE
from pytest_touchstone.export.write import MANIFEST_FILE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_PLACE: Final = ("suite", "case_id", "nodeid", "trial", "call")


@dataclass(frozen=True, kw_only=True)
class FormatData:
    """One format's training file: its lines without their ends, and for each the names of its suite and case.

    `sha256` (hex) is that of the file.
    """

    file: Path
    sha256: str
    lines: tuple[bytes, ...]
    cases: tuple[tuple[str, str], ...]

    def parts(self, eval_part: float) -> tuple[bytes, bytes]:
        """The file in two: to train on, and the `eval_part` (0 to 1) of the cases to measure the loss on; empty where there is none.

        The cases are those that the other backends take out, chosen by a stable hash, so all examples of a case are on one side.
        """
        trained, measured = bytearray(), bytearray()
        for line, case in zip(self.lines, self.cases, strict=True):
            side = measured if stable_number(f"eval {json.dumps(case)}") < eval_part * 2**64 else trained
            side += line + b"\n"
        return bytes(trained), bytes(measured)


def read_format(folder: Path, name: str) -> FormatData:
    """The training file of the format `name` in an export's folder.

    Raises:
        JobError: the export does not hold the format, or the file is not as the export wrote it.
        OSError: a file cannot be read.
    """
    again = f"export again with --llm-export-format {name}"
    manifest: object = json.loads((folder / MANIFEST_FILE).read_bytes())
    report = _get(_get(manifest, "formats"), name)
    file = folder / name / TRAIN_FILE
    known = listed_files(manifest).get(f"{name}/{TRAIN_FILE}")
    if known is None:
        raise JobError([Fault(file=str(file), problem=_why_missing(name, report), fix=again)])
    if not file.is_file():
        raise JobError([Fault(file=str(file), problem="is not there, though the manifest lists it", fix=again)])
    raw = file.read_bytes()
    digest = hashlib.sha256(raw).hexdigest()
    cases = _cases(manifest, report)
    lines = tuple(raw.removesuffix(b"\n").split(b"\n"))
    if digest != known or len(lines) != len(cases):
        problem = "is not as the export wrote it, so the guard against holdout cases did not see it"
        raise JobError([Fault(file=str(file), problem=problem, fix=again)])
    return FormatData(file=file, sha256=digest, lines=lines, cases=cases)


def listed_files(manifest: object) -> dict[str, str]:
    """The sha256 (hex) of each file of a further format, by its path in the export's folder, as the manifest lists it."""
    formats = _get(manifest, "formats")
    reports = cast("Mapping[str, object]", formats).values() if isinstance(formats, Mapping) else ()
    return {str(_get(entry, "path")): str(_get(entry, "sha256")) for report in reports for entry in _list(report, "files")}


def _why_missing(name: str, report: object) -> str:
    reasons = _get(report, "left_out_by_reason")
    if isinstance(reasons, Mapping) and reasons:
        return f"holds no example ({', '.join(map(str, cast('Mapping[str, object]', reasons)))})"
    return f"is not there: the export was made without the format {name!r}"


def _cases(manifest: object, report: object) -> tuple[tuple[str, str], ...]:
    """Suite and case of every line: those of the export's examples, in their order, without those that the format could not hold."""
    missing = Counter(_place(entry) for entry in _list(report, "not_written"))
    cases: list[tuple[str, str]] = []
    for entry in _list(manifest, "examples"):
        place = _place(entry)
        if missing[place]:
            missing[place] -= 1
        else:
            cases.append((str(_get(entry, "suite")), str(_get(entry, "case_id"))))
    return tuple(cases)


def _place(entry: object) -> tuple[object, ...]:
    return tuple(_get(entry, name) for name in _PLACE)


def _get(value: object, name: str) -> Any:  # noqa: ANN401 - any JSON value
    return cast("Mapping[str, Any]", value).get(name) if isinstance(value, Mapping) else None


def _list(value: object, name: str) -> Sequence[object]:
    found = _get(value, name)
    return cast("Sequence[object]", found) if isinstance(found, list) else ()
