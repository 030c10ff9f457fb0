"""`touchstone correct`: a person at a terminal says what failed cases should have answered."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pytest_touchstone.errors import SettingsError
from pytest_touchstone.text import counted, visible

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

    from pytest_touchstone.export.corrections import Needed

MAX_LINES: Final = 200
END: Final = "."
CHOICES: Final = "e: editor, o: editor with the output, l: line by line, s: skip, q: quit"
CHOICES_WITHOUT_EDITOR: Final = "l: line by line, s: skip, q: quit"
VERDICTS: Final = "a: accept, n: not yet, s: skip, q: quit"


def add_command(commands: Any) -> None:  # noqa: ANN401 - argparse's action has no public name
    """Add the command to those of `touchstone`."""
    parser = commands.add_parser(
        "correct",
        help="Say what failing cases should have answered.",
        description="Go through the cases that an export lists as in need of a correction, and accept one for each. Every accepted "
        "correction is stored at once, so stop when you like. Without a terminal: accept what was filled into needs_correction.jsonl.",
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="The folder of the export.")
    parser.add_argument(
        "--corrections",
        type=Path,
        metavar="FILE",
        help="Where accepted corrections are, as pytest --llm-corrections. Default: corrections.jsonl in DIR.",
    )
    parser.set_defaults(run=_correct)


def _correct(options: argparse.Namespace) -> int:
    from pytest_touchstone.export.corrections import CORRECTIONS_FILE, NEEDS_FILE, accept_filled, read_needed

    folder: Path = options.folder
    if not folder.is_dir():
        msg = f"{folder}: is no folder; give the one that pytest --llm-eval --llm-export wrote to"
        raise SettingsError(msg)
    accepted: Path = options.corrections or folder / CORRECTIONS_FILE
    count = accept_filled(folder, accepted)
    if count:
        print(visible(f"{counted(count, 'correction')} accepted from {folder / NEEDS_FILE} into {accepted}"))
    needed = list(read_needed(folder / NEEDS_FILE).values())
    if not needed:
        print("no case needs a correction")
    elif sys.stdin.isatty() and sys.stdout.isatty():
        Correcting(folder=folder, accepted=accepted, editor=os.environ.get("VISUAL") or os.environ.get("EDITOR") or "").run(needed)
    else:
        how = f"fill in {folder / NEEDS_FILE} and run this again, or run it at a terminal"
        print(visible(f"{counted(len(needed), 'case')} to correct; {how}"))
    return 0


class _Quit(Exception):
    """The person has had enough for now."""


@dataclass(kw_only=True)
class Correcting:
    """One sitting: the cases of `folder`, one after the other; `ask` shows a prompt and returns the line that was typed."""

    folder: Path
    accepted: Path
    editor: str = ""
    ask: Callable[[str], str] = input
    done: int = field(default=0, init=False)

    def run(self, needed: list[Needed]) -> None:
        """Go through the cases, and say in the end where things stand."""
        left = len(needed)
        try:
            for number, case in enumerate(needed, 1):
                print(f"\ncase {number} of {len(needed)}")
                for line in _shown(case, self._earlier(case)):
                    print(line)
                left -= self._is_corrected(case)
        except (_Quit, EOFError):
            print()
        print(visible(f"{counted(self.done, 'correction')} accepted into {self.accepted}; {counted(left, 'case')} left"))

    def _is_corrected(self, case: Needed) -> bool:
        choices = CHOICES if self.editor else CHOICES_WITHOUT_EDITOR
        while True:
            match self._choice(choices):
                case "s":
                    return False
                case "l":
                    text = self._typed()
                case "e":
                    text = self._edited("")
                case _:
                    text = self._edited(case.output)
            if text is None:
                continue
            print("correction")
            for line in _block(text):
                print(line)
            verdict = self._choice(VERDICTS)
            if verdict == "a":
                self._accept(case, text)
                return True
            if verdict == "s":
                return False

    def _choice(self, choices: str) -> str:
        """The letter that was typed, one of those before the colons."""
        letters = [part[0] for part in choices.split(", ")]
        while True:
            typed = self.ask(f"{choices} > ").strip().lower()[:1]
            if typed == "q":
                raise _Quit
            if typed in letters:
                return typed
            print(f"type one of {', '.join(letters)}")

    def _typed(self) -> str | None:
        print(f"type the correction; a line with nothing but {END!r} ends it")
        lines: list[str] = []
        while (line := self.ask("")) != END:
            lines.append(line)
        return _given("\n".join(lines))

    def _edited(self, start: str) -> str | None:
        descriptor, name = tempfile.mkstemp(prefix="correction-", suffix=".txt")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(start)
            done = subprocess.run([*shlex.split(self.editor), name], check=False)  # noqa: S603 - the editor that the person chose
            if done.returncode:
                print(f"the editor ended with status {done.returncode}, so nothing was taken")
                return None
            text = Path(name).read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            print(visible(f"the editor {self.editor!r} cannot be used: {error}; set EDITOR, or type the correction line by line"))
            return None
        finally:
            Path(name).unlink(missing_ok=True)
        if text.strip() == start.strip():
            print("nothing was changed, so nothing was taken" if start else "nothing was written, so nothing was taken")
            return None
        return _given(text.removesuffix("\n"))

    def _accept(self, case: Needed, text: str) -> None:
        from pytest_touchstone.export.corrections import Correction, accept, take_off

        accept(self.accepted, [Correction(suite=case.suite, id=case.id, content_hash=case.content_hash, correction=text)])
        take_off(self.folder, [case])
        self.done += 1

    def _earlier(self, case: Needed) -> str:
        """What was accepted for the case before, and is not enough by now."""
        from pytest_touchstone.export.corrections import Corrections

        found = Corrections.read(self.accepted).entries.get(case.key)
        return "" if found is None else _text(found[1].correction)


def _given(text: str) -> str | None:
    if not text.strip():
        print("nothing was written, so nothing was taken")
        return None
    try:
        text.encode()
    except UnicodeEncodeError:
        print("the correction holds half a character, so nothing was taken; is the terminal's encoding UTF-8?")
        return None
    return text


def _shown(case: Needed, earlier: str) -> Iterator[str]:
    yield visible(f"{case.id} ({case.source}) of {case.suite}")
    for title, text in (
        ("input", _text(case.input)),
        ("output that failed", case.output),
        ("why", case.why),
        ("rubric", case.rubric),
        ("the correction so far, which is not used", earlier),
    ):
        if text or title == "output that failed":
            yield title
            yield from _block(text)


def _block(text: str) -> Iterator[str]:
    lines = [visible(line) for line in (text or "(nothing)").split("\n")]
    yield from (f"  {line}" for line in lines[:MAX_LINES])
    if len(lines) > MAX_LINES:
        yield f"  ... ({len(lines) - MAX_LINES:,} more lines)"


def _text(value: Any) -> str:  # noqa: ANN401 - a JSON value
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2)
