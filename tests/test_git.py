from __future__ import annotations

import os
import subprocess

import pytest

from pytest_touchstone import git
from pytest_touchstone.git import Checkout, CheckoutQuestion, checkout, commit_of, file_at, files_at


class Repository:
    def __init__(self, root):
        self.root = root
        self.git("init", "-q", "-b", "main")

    def git(self, *arguments):
        identity = ("-c", "user.name=n", "-c", "user.email=e@example.invalid", "-c", "commit.gpgsign=false")
        done = subprocess.run(["git", *identity, *arguments], cwd=self.root, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def commit(self, **files):
        for name, text in files.items():
            (self.root / name).write_text(text)
        self.git("add", "-A")
        self.git("commit", "-q", "-m", "work")
        return self.git("rev-parse", "HEAD")


@pytest.fixture
def repository(tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    (tmp_path / "work").mkdir()
    return Repository(tmp_path / "work")


def fake_git(tmp_path, monkeypatch, script):
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "git").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


class TestCheckout:
    def test_a_clean_branch(self, repository):
        commit = repository.commit(a="1")
        assert checkout(repository.root) == Checkout(commit=commit, dirty=False, branch="main")

    def test_only_files_that_git_knows_make_it_dirty(self, repository):
        commit = repository.commit(a="1")
        (repository.root / "new").write_text("x")
        assert checkout(repository.root).dirty is False
        (repository.root / "a").write_text("2")
        assert checkout(repository.root) == Checkout(commit=commit, dirty=True, branch="main")

    def test_a_folder_inside_and_no_branch(self, repository):
        commit = repository.commit(a="1")
        repository.git("checkout", "-q", "--detach")
        (repository.root / "inside").mkdir()
        assert checkout(repository.root / "inside") == Checkout(commit=commit, dirty=False, branch=None)

    def test_before_the_first_commit(self, repository):
        assert checkout(repository.root) == Checkout(commit=None, dirty=False, branch="main")

    def test_a_branch_of_odd_bytes(self, repository):
        repository.commit(a="1")
        repository.git("checkout", "-q", "-b", os.fsdecode(b"odd-\xff"))
        assert checkout(repository.root).branch == "odd-\\xff"

    def test_no_repository(self, tmp_path, monkeypatch):
        monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
        assert checkout(tmp_path) == Checkout()

    def test_no_git(self, tmp_path, monkeypatch):
        monkeypatch.setenv("PATH", str(tmp_path))
        assert checkout(tmp_path) == Checkout()
        assert commit_of("main", tmp_path) is None

    def test_a_git_that_is_silent_is_ended(self, tmp_path, monkeypatch):
        fake_git(tmp_path, monkeypatch, "exec cat /dev/zero > /dev/null")
        question = CheckoutQuestion(tmp_path)
        process = question._process
        assert question.answer(patience_s=0) == Checkout()
        assert process.returncode == -9
        assert question.answer() == Checkout()

    def test_nobody_waits_for_an_answer_that_is_not_wanted(self, tmp_path, monkeypatch):
        fake_git(tmp_path, monkeypatch, "exec cat /dev/zero > /dev/null")
        question = CheckoutQuestion(tmp_path)
        process = question._process
        question.drop()
        assert process.returncode == -9

    def test_it_takes_no_lock(self, tmp_path, monkeypatch):
        fake_git(tmp_path, monkeypatch, f'echo "$@" > {tmp_path}/asked')
        checkout(tmp_path)
        assert (tmp_path / "asked").read_text().startswith("--no-optional-locks ")


class TestCommits:
    def test_names_of_a_commit(self, repository):
        first = repository.commit(a="1")
        repository.git("tag", "v1")
        second = repository.commit(a="2")
        names = {"main": second, "v1": first, "HEAD~1": first, first[:8]: first, "nope": None, "": None, "--all": None, "a\0b": None}
        assert {name: commit_of(name, repository.root) for name in names} == names

    def test_files_of_a_commit(self, repository):
        (repository.root / "evals").mkdir()
        first = repository.commit(**{"evals/b": "old", "a": "1"})
        repository.commit(**{"evals/b": "new"})
        assert files_at(first, repository.root) == ["a", "evals/b"]
        assert files_at(first, repository.root / "evals") == ["b"]
        assert file_at(first, "b", repository.root / "evals") == b"old"
        assert file_at(first, "none", repository.root) is None
        assert files_at("0" * 40, repository.root) is None

    def test_patience_ends(self, tmp_path, monkeypatch):
        monkeypatch.setattr(git, "PATIENCE_S", 0)
        fake_git(tmp_path, monkeypatch, "exec cat /dev/zero > /dev/null")
        assert commit_of("main", tmp_path) is None
