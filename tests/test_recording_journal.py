from __future__ import annotations

import fcntl
import os
from dataclasses import replace

import pytest
from test_recording_store import AT, entry

from pytest_touchstone.recording.journal import Journal, MergeReport, merge_journals, read_free_journals, refusal_line
from pytest_touchstone.recording.redact import Redactor
from pytest_touchstone.recording.store import encode_entry, read_recording, recording_path

PLAIN = Redactor()
MODULE = "test_shop.py"


@pytest.fixture
def folder(tmp_path):
    return tmp_path / ".touchstone" / "journals"


def write(folder, *lines, raw=b""):
    """A journal that nobody holds."""
    journal = Journal(folder)
    for line in lines:
        journal.write(line)
    journal.close()
    journal.close()
    path = max(folder.glob("*.jsonl"), key=lambda path: path.stat().st_mtime_ns)
    with path.open("ab") as file:
        file.write(raw)
    return path


def line(**changes):
    return encode_entry(entry(module=MODULE, **changes))


def merge(tmp_path, folder, redactor=PLAIN, started=AT):
    return merge_journals(folder, rootdir=tmp_path, redactor=redactor, started=started)


def test_journals_are_private_and_become_recordings(tmp_path, folder):
    path = write(folder, line(), line(test="test_b"))
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.name.startswith(f"{os.getpid()}-")
    report = merge(tmp_path, folder)
    assert report == MergeReport(written=(("__recordings__/test_shop.jsonl", 2),))
    assert not path.exists()
    assert [one.test for one in read_recording(recording_path(tmp_path / MODULE))] == ["test_a", "test_b"]
    assert merge(tmp_path, folder) == MergeReport()


def test_nothing_to_merge_creates_nothing(tmp_path, folder):
    assert merge(tmp_path, folder).lines() == []
    assert not folder.exists()


def test_a_journal_in_use_is_left_alone(tmp_path, folder):
    journal = Journal(folder)
    journal.write(line())
    assert merge(tmp_path, folder).lines() == []
    assert read_free_journals(folder, redactor=PLAIN) == ()
    journal.close()
    assert [one.test for one in read_free_journals(folder, redactor=PLAIN)] == ["test_a"]
    assert merge(tmp_path, folder).lines() == ["1 call recorded in __recordings__/test_shop.jsonl"]


def test_damage_is_noted_and_the_rest_is_saved(tmp_path, folder):
    no_module = encode_entry(entry())
    path = write(
        folder, line(), "{}", no_module, "", '{"refused": 5}', raw=b"\xff\n" + line(test="test_b").encode() + b"\n" + b'{"check":"01'
    )
    report = merge(tmp_path, folder, started="2027-01-01T00:00:00.000000Z")
    assert report.lines() == [
        "2 calls recorded in __recordings__/test_shop.jsonl",
        "2 of them saved from a session that was killed",
        f"the last line of the journal {path.name} was cut off when its session was killed; that call is lost",
        *(f"line {number} of the journal {path.name} is damaged; that call is lost" for number in (2, 3, 5, 6)),
    ]


def test_refusals_are_passed_on(tmp_path, folder):
    write(folder, refusal_line("it holds a secret"), refusal_line("it holds a secret"))
    assert merge(tmp_path, folder).lines() == ["not stored: it holds a secret"]
    assert not list(folder.glob("*.jsonl"))


def test_paths_out_of_the_rootdir_are_refused(tmp_path, folder):
    root = tmp_path / "root"
    root.mkdir()
    write(folder, encode_entry(entry(module="../test_shop.py")))
    [message] = merge(root, folder).lines()
    assert message.startswith("not stored: a journal names the test module '../test_shop.py', which is not a module in a folder inside")
    assert not list(tmp_path.rglob("__recordings__"))


def test_links_are_no_journals(tmp_path, folder):
    target = write(folder, line())
    target.rename(tmp_path / "elsewhere.jsonl")
    (folder / "1-a.jsonl").symlink_to(tmp_path / "elsewhere.jsonl")
    (folder / "2-b.jsonl").mkdir()
    assert merge(tmp_path, folder).lines() == []
    assert (tmp_path / "elsewhere.jsonl").exists()


def test_an_unusable_recording_keeps_its_journal_and_no_other(tmp_path, folder):
    bad = recording_path(tmp_path / MODULE)
    bad.parent.mkdir()
    bad.write_text("nonsense")
    stays = write(folder, line())
    goes = write(folder, encode_entry(entry(module="test_other.py")))
    report = merge(tmp_path, folder)
    assert report.written == (("__recordings__/test_other.jsonl", 1),)
    [message] = report.refused
    assert message.splitlines()[0] == "1 calls of test_shop.py stay in the journal, because the recording cannot be used:"
    assert "is not the first line of a recording" in message
    assert (stays.exists(), goes.exists()) == (True, False)
    bad.unlink()
    assert merge(tmp_path, folder).written == (("__recordings__/test_shop.jsonl", 1),)


def test_newer_answers_replace_older_ones_unless_only_ids_differ(tmp_path, folder):
    path = recording_path(tmp_path / MODULE)
    write(folder, line())
    merge(tmp_path, folder)
    before = path.read_bytes()
    later = AT.replace("2026", "2027")
    write(folder, line(at=later, body={"json": {"id": "2", "text": "hi"}}))
    assert merge(tmp_path, folder).lines() == []
    write(folder, line(at=AT.replace("2026", "2025"), body={"text": "older"}))
    assert merge(tmp_path, folder).lines() == []
    assert path.read_bytes() == before
    write(folder, line(at=later, body={"text": "newer"}))
    assert merge(tmp_path, folder).lines() == ["1 call recorded in __recordings__/test_shop.jsonl"]
    assert [one.body for one in read_recording(path)] == [{"text": "newer"}]


def test_the_last_gate_takes_secrets_out_and_refuses_what_it_cannot(tmp_path, folder):
    secret = "hunter2-hunter2"
    redactor = Redactor({"SHOP_TOKEN": secret})
    write(folder, line(body={"json": {"text": secret}}, request={"a": secret}, headers={"x-request-id": secret}), line(test=secret))
    assert read_free_journals(folder, redactor=redactor) == ()
    assert merge(tmp_path, folder, redactor).lines() == [
        "1 call recorded in __recordings__/test_shop.jsonl",
        "not stored: a call of [redacted] in test_shop.py: its line would hold a secret",
    ]
    assert secret not in "".join(path.read_text() for path in tmp_path.rglob("*") if path.is_file())


def test_a_partial_write_is_told_and_does_not_swallow_the_next_line(tmp_path, folder, monkeypatch):
    journal = Journal(folder)
    journal.write(line())
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:20]))
    with pytest.raises(OSError, match="the disk took only part of a journal line"):
        journal.write(line(test="test_b"))
    monkeypatch.undo()
    journal.write(line(test="test_c"))
    journal.close()
    assert [one.test for one in read_free_journals(folder, redactor=PLAIN)] == ["test_a", "test_c"]


def test_a_journal_that_another_merge_took_meanwhile(tmp_path, folder, monkeypatch):
    gone, taken = write(folder, line()), write(folder, line(test="test_b"))
    real = fcntl.flock

    def flock(descriptor, operation):
        real(descriptor, operation)
        if os.fstat(descriptor).st_ino == inode:
            taken.unlink(missing_ok=True)

    inode = taken.stat().st_ino
    monkeypatch.setattr(fcntl, "flock", flock)
    real_open = os.open

    def vanish(path, flags, *mode):
        if path == gone:
            raise FileNotFoundError(path)
        return real_open(path, flags, *mode)

    monkeypatch.setattr(os, "open", vanish)
    assert merge(tmp_path, folder).lines() == []


def test_a_fresh_journal_follows_a_closed_one(tmp_path, folder):
    journal = Journal(folder)
    journal.write(line())
    journal.close()
    journal.write(encode_entry(replace(entry(), test="test_b", module=MODULE)))
    journal.close()
    assert len(list(folder.glob("*.jsonl"))) == 2
