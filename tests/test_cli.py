from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from test_recording_store import AT, entry

from pytest_touchstone.cli import main
from pytest_touchstone.recording.evidence import Evidence, ModuleRun, digest, write_evidence
from pytest_touchstone.recording.store import HEADER, encode_entry, read_recording, recording_path, write_recording

ROOT = Path(__file__).parents[1]
LINE = "**/__recordings__/*.jsonl -text merge=union linguist-generated"
CHAT = {"method": "POST", "url": "https://api.openai.com/v1/chat/completions"}


def chat(text="hi", answer="hello", model="gpt-4o", usage=(11, 7), **changes):
    body = {"model": model, "messages": [{"role": "user", "content": text}]}
    reply = {"choices": [{"message": {"role": "assistant", "content": answer}}]}
    if usage:
        reply["usage"] = {"prompt_tokens": usage[0], "completion_tokens": usage[1]}
    return entry(**{"request": {**CHAT, "body": {"json": body}}, "body": {"json": reply}, **changes})


class Project:
    def __init__(self, root, capsys):
        self.root = root
        self.capsys = capsys
        self.file = self.module("evals/test_shop.py")

    def module(self, name):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
        os.utime(path, (50, 50))
        return recording_path(path)

    def record(self, *entries, file=None):
        path = file or self.file
        write_recording(path, entries)
        os.utime(path, (150, 150))
        return path

    def run(self, *arguments):
        """The exit status, what was printed, and what was complained about."""
        status = main([str(argument) for argument in arguments])
        printed = self.capsys.readouterr()
        return status, printed.out.splitlines(), printed.err.splitlines()


@pytest.fixture
def project(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    return Project(tmp_path, capsys)


class TestList:
    def test_a_row_for_each_file_and_one_for_all(self, project):
        project.record(chat(), chat(model="gpt-5-mini", occurrence=2, at=AT.replace("01-02", "01-09"), cost_usd=None))
        project.record(chat(), file=project.module("test_other.py"))
        status, out, err = project.run("recordings", "list")
        assert (status, err) == (0, [])
        assert [line.split("  ")[0] for line in out] == [
            "recordings",
            "__recordings__/test_other.jsonl",
            "evals/__recordings__/test_shop.jsonl",
            "all",
        ]
        shop = [cell.strip() for cell in out[2].split("  ") if cell.strip()]
        assert shop[1:6] == ["2", "gpt-4o, gpt-5-mini", "22", "14", ">= $0.0010"]
        assert shop[6] == f"{project.file.stat().st_size:,} B"
        assert shop[7].startswith("2026-01-02 to 2026-01-09 (")

    def test_nothing_there(self, project):
        assert project.run("recordings", "list") == (0, ["there are no recordings here"], [])

    def test_paths_choose(self, project):
        project.record(chat())
        project.record(chat(), file=project.module("test_other.py"))
        for path in ("evals", "evals/test_shop.py", "evals/__recordings__", "evals/__recordings__/test_shop.jsonl"):
            assert [line.split()[0] for line in project.run("recordings", "list", path)[1][1:]] == ["evals/__recordings__/test_shop.jsonl"]

    @pytest.mark.parametrize(
        ("path", "why"),
        [
            ("evals/test_shop.py", "has no recordings"),
            ("nowhere", "is no folder, test module or recording file"),
            ("nowhere.py", "is no folder, test module or recording file"),
        ],
    )
    def test_a_path_that_means_nothing(self, project, path, why):
        assert project.run("recordings", "list", path) == (
            2,
            [],
            [f"touchstone: {path}: {why}; give one of those, or nothing for all below this folder"],
        )


class TestShow:
    def test_a_call_to_be_read(self, project):
        project.record(chat("Can I\nreturn?", "Yes \x1b[31m", note="by hand", cost_usd=None, cost_reason="no price"), chat(test="test_b"))
        status, out, err = project.run("recordings", "show", "--test", "test_a")
        assert (status, err) == (0, [])
        assert out == [
            "evals/__recordings__/test_shop.jsonl:2: test_a, trial 1, time 1",
            f"  recorded {AT}, answered in 0.50 s, cost unknown (no price)",
            "  note: by hand",
            "  asked: POST https://api.openai.com/v1/chat/completions",
            "    user: Can I",
            "    return?",
            "  answered: status 200",
            "    Yes \\x1b[31m",
            "",
        ]

    def test_one_line_of_a_file(self, project):
        project.record(chat(), chat(test="test_b"))
        _, out, _ = project.run("recordings", "show", "--line", "3")
        assert [line for line in out if ".jsonl" in line] == ["evals/__recordings__/test_shop.jsonl:3: test_b, trial 1, time 1"]

    def test_no_such_call(self, project):
        project.record(chat())
        assert project.run("recordings", "show", "--test", "test_x") == (
            2,
            [],
            ["touchstone: no recorded call is meant by that; `touchstone recordings list` says what there is"],
        )


class TestVerify:
    def test_nothing_wrong(self, project):
        project.record(chat())
        assert project.run("recordings", "verify") == (0, ["1 recording file, 0 faults"], [])

    def test_every_fault_is_told_with_file_line_and_advice(self, project, monkeypatch):
        monkeypatch.setenv("SHOP_TOKEN", "hunter22hunter22")
        good = encode_entry(chat())
        leaking = encode_entry(chat(answer="sk-abcdefghijklmnop1234", test="test_b"))
        known = encode_entry(chat(answer="hunter22hunter22", test="test_c"))
        odd = encode_entry(chat(body={"base64": "!"}, test="test_d"))
        lines = [HEADER, good, good.replace("hello", "hullo"), good[:-9], "=======", leaking, known, odd]
        project.file.parent.mkdir()
        project.file.write_text("\n".join(lines), encoding="utf-8")
        newer = project.module("test_newer.py")
        newer.parent.mkdir()
        newer.write_text(json.dumps({"format": "touchstone-recording", "version": 2}))
        status, out, err = project.run("recordings", "verify")
        name, again = "evals/__recordings__/test_shop.jsonl", "delete the line and record the call again with --llm-record missing"
        secret = "holds what looks like a secret; make it invalid where it came from, delete the line, and record the call again"
        assert (status, err) == (1, [])
        assert out == [
            (
                "__recordings__/test_newer.jsonl:1: was written by a newer pytest-touchstone (format 2; this one reads 1); "
                "upgrade pytest-touchstone"
            ),
            f"{name}:3: was changed after it was recorded (its checksum does not match); restore it, or {again}",
            f"{name}:4: is cut off or is not JSON; {again}",
            f"{name}:5: is a merge conflict marker; keep the lines of both sides, delete the markers (or set merge=union in .gitattributes)",
            f"{name}:8: cannot be replayed: the stored response body cannot be decoded (Only base64 data is allowed); {again}",
            f"{name}:6: {secret}",
            f"{name}:7: {secret}",
            "2 recording files, 7 faults",
        ]


def ran(project, *tests, **changes):
    """Evidence that the module ran these tests in full, and that `test_a` asked for its call."""
    run = ModuleRun(module="evals/test_shop.py", tests=frozenset(tests or {"test_a"}), **changes)
    asked = {"evals/__recordings__/test_shop.jsonl": frozenset({digest(chat().id)})}
    write_evidence(project.root / ".touchstone" / "used.jsonl", Evidence(began=100.0, ended=200.0, modules=(run,), asked=asked))


class TestPrune:
    def test_what_no_test_asked_for_is_dropped(self, project, monkeypatch):
        project.record(chat(), chat(test="test_gone"))
        ran(project)
        name = "evals/__recordings__/test_shop.jsonl"
        would = f"1 recording that no test asked for would be dropped from {name}"
        assert project.run("recordings", "prune", "--dry-run") == (0, [would], [])
        assert len(read_recording(project.file)) == 2
        monkeypatch.chdir(project.root / "evals")
        assert project.run("recordings", "prune") == (0, [f"1 recording that no test asked for dropped from {name}"], [])
        assert [one.test for one in read_recording(project.file)] == ["test_a"]

    def test_nothing_to_drop(self, project):
        project.record(chat())
        ran(project)
        assert project.run("recordings", "prune") == (0, ["every recording was asked for in the last run"], [])

    def test_a_partial_run_is_refused_and_others_are_pruned(self, project):
        project.record(chat(), chat(test="test_gone"))
        ran(project, partial="some of its golden tests were deselected")
        before = project.file.read_bytes()
        status, out, err = project.run("recordings", "prune")
        assert (status, out) == (2, [])
        assert err == [
            (
                "touchstone: not pruned: evals/__recordings__/test_shop.jsonl: evals/test_shop.py did not run in full in the last run "
                "(some of its golden tests were deselected); run pytest --llm-eval evals/test_shop.py"
            )
        ]
        assert project.file.read_bytes() == before

    def test_without_any_run(self, project):
        project.record(chat())
        assert project.run("recordings", "prune") == (
            2,
            [],
            [f"touchstone: no run of the tests has left word in {project.root} or above of what it asked for; run pytest --llm-eval first"],
        )
        (project.root / ".touchstone").mkdir()
        assert project.run("recordings", "prune")[2] == [
            (
                f"touchstone: {project.root}/.touchstone/used.jsonl: no run of the tests has left word here of what it asked for; "
                "run pytest --llm-eval first"
            )
        ]


class TestInit:
    ADDED = (
        "--- .gitattributes (now)",
        "+++ .gitattributes (then)",
        "@@ -0,0 +1 @@",
        f"+{LINE}",
        "--- .gitignore (now)",
        "+++ .gitignore (then)",
        "@@ -0,0 +1 @@",
        "+.touchstone/",
    )

    def files(self, project):
        return {path.name: path.read_text() for path in project.root.iterdir() if path.name.startswith(".git")}

    def test_without_a_terminal_it_only_prints(self, project):
        assert project.run("init") == (0, [*self.ADDED, "nothing was written; --yes adds the lines"], [])
        assert self.files(project) == {}

    def test_yes_adds_the_lines_once_and_touches_no_other(self, project):
        (project.root / ".gitattributes").write_bytes(b"*.png binary\r\n# no end of line")
        status, out, err = project.run("init", "--yes")
        assert (status, err, out[-2:]) == (0, [], [".gitattributes: written", ".gitignore: written"])
        assert (project.root / ".gitattributes").read_bytes() == f"*.png binary\r\n# no end of line\n{LINE}\n".encode()
        assert (project.root / ".gitignore").read_text() == ".touchstone/\n"
        before = self.files(project)
        assert project.run("init", "--yes") == (0, ["nothing to add: .gitattributes and .gitignore have every line"], [])
        assert self.files(project) == before

    @pytest.mark.parametrize(("said", "written"), [("y", True), ("Yes ", True), ("n", False), ("", False), (EOFError, False)])
    def test_at_a_terminal_it_asks(self, project, monkeypatch, said, written):
        asked = []

        def answer(question):
            asked.append(question)
            if said is EOFError:
                raise EOFError
            return said

        monkeypatch.setattr("builtins.input", answer)
        for stream in (sys.stdin, sys.stdout):
            monkeypatch.setattr(stream, "isatty", lambda: True, raising=False)
        assert project.run("init")[0] == 0
        assert asked == ["Add these lines? [y/N] "]
        assert bool(self.files(project)) is written

    def test_a_link_stays_a_link(self, project):
        (project.root / "real").write_text("x\n")
        (project.root / ".gitignore").symlink_to("real")
        project.run("init", "--yes")
        assert (project.root / ".gitignore").is_symlink()
        assert (project.root / "real").read_text() == "x\n.touchstone/\n"

    def test_no_folder(self, project):
        assert project.run("init", "nowhere") == (2, [], ["touchstone: nowhere: is no folder; give that of the project"])

    def test_git_takes_the_lines_as_they_are_meant(self, project):
        project.run("init", "--yes")
        subprocess.run(["git", "init", "-q"], cwd=project.root, check=True)
        paths = ["__recordings__/test_a.jsonl", "evals/deep/__recordings__/test_a.jsonl", "evals/cases.jsonl"]
        told = subprocess.run(
            ["git", "check-attr", "merge", "--", *paths], cwd=project.root, check=True, capture_output=True, text=True
        ).stdout
        assert [line.rpartition(" ")[2] for line in told.splitlines()] == ["union", "union", "unspecified"]


class TestCommand:
    def test_version_and_help(self, project):
        version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
        for argument, printed in (("--version", f"pytest-touchstone {version}"), ("--help", "usage: touchstone")):
            with pytest.raises(SystemExit) as ended:
                main([argument])
            assert ended.value.code == 0
            assert project.capsys.readouterr().out.startswith(printed)

    @pytest.mark.parametrize("arguments", [[], ["recordings"], ["recordings", "list", "--nonsense"]])
    def test_a_mistake_in_the_command_is_told_without_a_traceback(self, project, arguments):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 2
        assert "usage: touchstone" in project.capsys.readouterr().err

    def test_a_disk_that_fails_is_told_without_a_traceback(self, project, monkeypatch):
        monkeypatch.setattr(Path, "read_bytes", lambda self: (_ for _ in ()).throw(PermissionError(13, "Permission denied", str(self))))
        (project.root / ".gitignore").write_text("")
        status, _, err = project.run("init", "--yes")
        assert (status, err) == (2, [f"touchstone: {project.root}/.gitignore: Permission denied"])

    def test_whatever_stands_for_a_terminal(self, project, monkeypatch):
        monkeypatch.setattr(sys, "stderr", printed := io.StringIO())
        assert main(["recordings", "list", "nowhere"]) == 2
        assert printed.getvalue().startswith("touchstone: nowhere: is no folder")

    def test_being_interrupted(self, project, monkeypatch):
        monkeypatch.setattr("pytest_touchstone.cli._files", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        assert project.run("recordings", "list") == (2, [], ["touchstone: interrupted"])

    def test_whoever_reads_may_stop_early_and_know_only_ascii(self, project):
        project.record(*(chat("é" * 9000, occurrence=number) for number in range(1, 20)))
        script = "import sys; from pytest_touchstone.cli import main; sys.exit(main(['recordings', 'show']))"
        environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
        with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as command:
            assert b"user: \\xe9\\xe9" in command.stdout.read(500)
            command.stdout.close()
            assert (command.stderr.read(), command.wait()) == (b"", 0)

    def test_help_loads_nothing_heavy(self):
        script = "import sys; from pytest_touchstone.cli import main\ntry: main(['--help'])\nexcept SystemExit: print(sorted(sys.modules))"
        printed = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
        assert "pytest_touchstone.cli" in printed
        assert not {name for name in ("pytest", "pydantic", "yaml", "httpx", "openai", "importlib.metadata") if f"'{name}'" in printed}
