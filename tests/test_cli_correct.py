"""`touchstone correct`: with a terminal, without one, and stopped half-way."""

from __future__ import annotations

import json
import os
import pty
import stat
import subprocess
import sys

import pytest
from test_export_corrections import HASH, correction, need

from pytest_touchstone.cli import main
from pytest_touchstone.cli_correct import Correcting
from pytest_touchstone.export.corrections import CORRECTIONS_FILE, NEEDS_FILE, Corrections, accept, read_needed, write_needed


def run(capsys, *arguments):
    status = main(["correct", *map(str, arguments)])
    printed = capsys.readouterr()
    return status, printed.out.splitlines(), printed.err.splitlines()


def accepted(folder):
    return {key[1]: entry.correction for key, (_, entry) in Corrections.read(folder / CORRECTIONS_FILE).entries.items()}


def open_cases(folder):
    return [key[1] for key in read_needed(folder / NEEDS_FILE)]


class Person:
    """Answers one prompt after the other, and goes away (Ctrl-D) when it has nothing more to say."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.prompts = []

    def __call__(self, prompt):
        self.prompts.append(prompt)
        if not self.answers:
            raise EOFError
        return self.answers.pop(0)


def sit(folder, *answers, editor=""):
    person = Person(*answers)
    sitting = Correcting(folder=folder, accepted=folder / CORRECTIONS_FILE, editor=editor, ask=person)
    sitting.run(list(read_needed(folder / NEEDS_FILE).values()))
    return person


def editor(tmp_path, code):
    """An editor that runs `code` on the text of the file it is given."""
    path = tmp_path / "editor.py"
    path.write_text(f"import pathlib, sys\npath = pathlib.Path(sys.argv[-1])\ntext = path.read_text()\n{code}\n")
    return f"{sys.executable} {path}"


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "training"
    made.mkdir()
    write_needed(made, [need("a"), need("b", rubric="Say no."), need("c", input={"q": 1})])
    return made


class TestWithoutATerminal:
    def test_what_is_filled_in_is_accepted(self, folder, capsys):
        write_needed(folder, [need("a", "No."), need("b")])
        status, out, err = run(capsys, folder)
        assert (status, err) == (0, [])
        assert out == [
            f"1 correction accepted from {folder / NEEDS_FILE} into {folder / CORRECTIONS_FILE}",
            f"1 case to correct; fill in {folder / NEEDS_FILE} and run this again, or run it at a terminal",
        ]
        assert accepted(folder) == {"a": "No."}
        assert open_cases(folder) == ["b"]

    def test_nothing_may_be_left(self, tmp_path, capsys):
        assert run(capsys, tmp_path) == (0, ["no case needs a correction"], [])

    def test_another_file_may_be_meant(self, folder, capsys, tmp_path):
        write_needed(folder, [need("a", "No.")])
        run(capsys, folder, "--corrections", tmp_path / "mine.jsonl")
        assert len(Corrections.read(tmp_path / "mine.jsonl").entries) == 1

    def test_no_folder(self, tmp_path, capsys):
        path = tmp_path / "none"
        fault = f"touchstone: {path}: is no folder; give the one that pytest --llm-eval --llm-export wrote to"
        assert run(capsys, path) == (2, [], [fault])

    def test_faults_of_the_list_are_told(self, folder, capsys):
        (folder / NEEDS_FILE).write_text("{\n")
        status, _, err = run(capsys, folder)
        assert status == 2
        assert err == [
            f"touchstone: {folder / NEEDS_FILE}:1: is no JSON; write one JSON object a line; in a merge, keep the lines of both sides"
        ]


class TestLineByLine:
    def test_a_correction_is_typed_seen_and_accepted(self, folder, capsys):
        person = sit(folder, "l", "No.", "", "Never.", ".", "a", "q")
        assert accepted(folder) == {"a": "No.\n\nNever."}
        assert open_cases(folder) == ["b", "c"]
        assert person.prompts[0] == "l: line by line, s: skip, q: quit > "
        assert person.prompts[5] == "a: accept, n: not yet, s: skip, q: quit > "
        out = capsys.readouterr().out.splitlines()
        assert out[:8] == ["", "case 1 of 3", "a (a.yaml:3) of s", "input", "  Hi", "output that failed", "  Yes.", "why"]
        assert out[-1] == f"1 correction accepted into {folder / CORRECTIONS_FILE}; 2 cases left"

    def test_a_second_start_goes_on_where_it_stopped(self, folder):
        sit(folder, "l", "one", ".", "a")
        sit(folder, "s", "l", "three", ".", "a")
        assert accepted(folder) == {"a": "one", "c": "three"}
        assert open_cases(folder) == ["b"]

    def test_what_was_not_accepted_is_not_stored(self, folder):
        sit(folder, "l", "draft", ".", "n", "l", "better", ".", "a", "l", "other", ".", "s", "l", "third", ".", "q")
        assert accepted(folder) == {"a": "better"}

    def test_nothing_is_no_correction(self, folder, capsys):
        sit(folder, "x", "", "l", " ", ".", "l", "\udc80", ".")
        assert accepted(folder) == {}
        out = capsys.readouterr().out
        assert "type one of l, s, q" in out
        assert "nothing was written, so nothing was taken" in out
        assert "the correction holds half a character, so nothing was taken; is the terminal's encoding UTF-8?" in out

    def test_what_a_model_said_cannot_act_on_the_terminal(self, folder, capsys):
        write_needed(folder, [need("a", output="\x1b[2Jgone\u202e", why="\x1b]0;title\x07", rubric="\x9b31m", input="\r", source="\x1b[A")])
        sit(folder, "q")
        out = capsys.readouterr().out
        assert not any(character in out for character in "\x1b\u202e\x07\x9b\r")
        assert "\\x1b[2Jgone\\u202e" in out

    def test_long_outputs_are_cut(self, folder, capsys):
        write_needed(folder, [need("a", output="\n".join(map(str, range(300)))), need("b", output="")])
        sit(folder, "s", "q")
        out = capsys.readouterr().out
        assert "  ... (100 more lines)" in out
        assert "output that failed\n  (nothing)" in out

    def test_the_correction_so_far_is_shown(self, folder, capsys):
        accept(folder / CORRECTIONS_FILE, [correction("a", {"old": 1}, content_hash="d" * 64)])
        sit(folder, "l", "new", ".", "a", "q")
        assert 'the correction so far, which is not used\n  {\n    "old": 1\n  }' in capsys.readouterr().out
        [(_, entry)] = Corrections.read(folder / CORRECTIONS_FILE).entries.values()
        assert (entry.correction, entry.content_hash) == ("new", HASH)


class TestEditor:
    def test_writes_the_correction(self, folder, tmp_path):
        person = sit(folder, "e", "a", "o", "a", editor=editor(tmp_path, "path.write_text(f'<{text}>\\n')"))
        assert person.prompts[0] == "e: editor, o: editor with the output, l: line by line, s: skip, q: quit > "
        assert accepted(folder) == {"a": "<>", "b": "<Yes.>"}

    @pytest.mark.parametrize(
        ("code", "said"),
        [
            ("pass", "nothing was changed, so nothing was taken"),
            ("path.write_text(' ')", "nothing was written, so nothing was taken"),
            ("path.write_text('x'); sys.exit(3)", "the editor ended with status 3, so nothing was taken"),
            ("path.write_bytes(b'\\xff')", "cannot be used: 'utf-8' codec can't decode"),
        ],
    )
    def test_what_it_did_not_write_is_not_taken(self, folder, tmp_path, capsys, code, said):
        sit(folder, "o", editor=editor(tmp_path, code))
        assert accepted(folder) == {}
        assert said in capsys.readouterr().out

    def test_nothing_may_be_written_into_an_empty_one(self, folder, tmp_path, capsys):
        sit(folder, "e", editor=editor(tmp_path, "pass"))
        assert "nothing was written, so nothing was taken" in capsys.readouterr().out

    @pytest.mark.parametrize("command", ["/nowhere/ed", "'"])
    def test_one_that_is_none_is_told(self, folder, capsys, command):
        sit(folder, "e", editor=command)
        out = capsys.readouterr().out
        assert f"the editor {command!r} cannot be used: " in out
        assert "set EDITOR, or type the correction line by line" in out

    def test_leaves_no_file(self, folder, tmp_path, monkeypatch):
        scratch = tmp_path / "scratch"
        scratch.mkdir()
        monkeypatch.setattr("tempfile.tempdir", str(scratch))
        seen = editor(tmp_path, f"pathlib.Path({str(tmp_path / 'mode')!r}).write_text(str(path.stat().st_mode))")
        sit(folder, "e", editor=seen)
        assert list(scratch.iterdir()) == []
        assert stat.S_IMODE(int((tmp_path / "mode").read_text())) == 0o600


def test_at_a_real_terminal(folder, tmp_path):
    ours, theirs = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if name not in {"VISUAL", "EDITOR"}}
    environment["EDITOR"] = editor(tmp_path, "path.write_text('from the editor')")
    command = [sys.executable, "-c", "import sys; from pytest_touchstone.cli import main; sys.exit(main())", "correct", str(folder)]
    os.write(ours, b"e\na\nl\nsecond\n.\na\nq\n")
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        shown = b""
        try:
            while piece := os.read(ours, 4096):
                shown += piece
        except OSError:  # Linux says so when the other end is closed
            pass
        assert process.wait() == 0
    os.close(ours)
    assert accepted(folder) == {"a": "from the editor", "b": "second"}
    assert b"2 corrections accepted into " in shown
    assert json.loads((folder / NEEDS_FILE).read_text())["id"] == "c"
