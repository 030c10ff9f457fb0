from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from pytest_touchstone import files
from pytest_touchstone.files import keep_out_of_git, replace_file


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_made_and_replaced_and_nothing_else_stays(tmp_path):
    path = tmp_path / "a.txt"
    replace_file(path, b"one")
    assert path.read_bytes() == b"one"
    replace_file(path, b"two")
    assert path.read_bytes() == b"two"
    assert names(tmp_path) == ["a.txt"]


def test_an_existing_file_keeps_its_permissions(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"one")
    path.chmod(0o640)
    replace_file(path, b"two")
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_link_is_replaced_and_its_target_stays(tmp_path):
    (tmp_path / "target").write_bytes(b"one")
    (tmp_path / "link").symlink_to("target")
    replace_file(tmp_path / "link", b"two")
    assert ((tmp_path / "target").read_bytes(), (tmp_path / "link").read_bytes()) == (b"one", b"two")
    assert not (tmp_path / "link").is_symlink()


@pytest.mark.parametrize(("owner", "step"), [(os, "fsync"), (Path, "replace"), (os, "fchmod")])
def test_a_disk_that_fails_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, owner, step):
    path = tmp_path / "a.txt"
    path.write_bytes(b"one")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(owner, step, fail)
    with pytest.raises(OSError, match="No space left on device"):
        replace_file(path, b"two")
    assert path.read_bytes() == b"one"
    assert names(tmp_path) == ["a.txt"]


def test_what_a_killed_writer_left_is_removed_and_what_others_write_stays(tmp_path):
    path = tmp_path / "a.txt"
    for name in (".a.txt.dead.tmp", ".a.txt.live.tmp", ".b.txt.dead.tmp", ".a.txt.keep", "a.txt.dead.tmp"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / ".a.txt.link.tmp").symlink_to("a.txt.dead.tmp")
    with (tmp_path / ".a.txt.live.tmp").open("rb") as live:
        fcntl.flock(live, fcntl.LOCK_EX)
        replace_file(path, b"one")
    assert names(tmp_path) == [".a.txt.keep", ".a.txt.link.tmp", ".a.txt.live.tmp", ".b.txt.dead.tmp", "a.txt", "a.txt.dead.tmp"]


def test_a_writer_whose_file_was_taken_for_a_left_over_starts_again(tmp_path, monkeypatch):
    path, taken = tmp_path / "a.txt", []
    real = fcntl.flock

    def flock(file, operation):
        if not taken:
            taken.append(file.name)
            Path(file.name).unlink()
        real(file, operation)

    monkeypatch.setattr(files.fcntl, "flock", flock)
    replace_file(path, b"one")
    assert path.read_bytes() == b"one"
    assert len(taken) == 1


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        replace_file(tmp_path / "no" / "a.txt", b"one")


def test_a_folder_ignores_itself_once(tmp_path):
    keep_out_of_git(tmp_path / "none")
    assert list(tmp_path.iterdir()) == []
    keep_out_of_git(tmp_path)
    assert (tmp_path / ".gitignore").read_text() == "*\n"
    (tmp_path / ".gitignore").write_text("mine")
    keep_out_of_git(tmp_path)
    assert (tmp_path / ".gitignore").read_text() == "mine"
