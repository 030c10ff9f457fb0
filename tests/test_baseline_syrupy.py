"""The baseline's syrupy extension, apart from a run: what it reads, writes and calls unused."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest

from pytest_touchstone.baseline import BaselineEntry, baseline_path, read_baseline, write_baseline
from pytest_touchstone.baseline_syrupy import BaselineExtension, BaselineFiles

ENTRY = BaselineEntry(test="test_it", case_id="a", content_hash="ab" * 32, trials=1, passes=1)
OTHER = BaselineEntry(test="test_it", case_id="b", content_hash="ab" * 32, trials=1, passes=0)


@pytest.fixture
def files(tmp_path):
    return BaselineFiles(tmp_path)


@pytest.fixture
def extension(files):
    return BaselineExtension.of(files)()


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "__snapshots__" / "test_x.touchstone"
    write_baseline(path, [ENTRY, OTHER])
    return path


def test_a_file_lies_where_syrupy_keeps_snapshots(extension, path):
    module = path.parents[1] / "test_x.py"
    location = SimpleNamespace(filepath=str(module), basename="test_x")
    assert extension.get_location(test_location=location, index="a") == str(baseline_path(module)) == str(path)


def names(collections):
    return {collection.location: [snapshot.name for snapshot in collection] for collection in collections}


def test_syrupy_learns_which_entries_there_are_and_which_change(extension, files, path):
    collection = extension.read_snapshot_collection(snapshot_location=str(path))
    assert [snapshot.name for snapshot in collection] == [ENTRY.name, OTHER.name]
    read = extension.read_snapshot_data_from_location
    stored = read(snapshot_location=str(path), snapshot_name="test_it[a]", session_id="")
    assert extension.serialize(files.offer(path, ENTRY)) == stored
    assert extension.serialize(files.offer(path, dataclasses.replace(ENTRY, passes=0))) != stored
    assert read(snapshot_location=str(path), snapshot_name="test_it[c]", session_id="") is None


def test_what_was_offered_is_written_beside_what_others_wrote_meanwhile(extension, files, path):
    files.entries(path)
    better = BaselineEntry(test="test_it", case_id="b", content_hash="ab" * 32, trials=1, passes=1)
    third = BaselineEntry(test="test_it", case_id="c", content_hash="ab" * 32, trials=1, passes=1)
    text = files.offer(path, better)
    write_baseline(path, [ENTRY, OTHER, third])
    location = SimpleNamespace(snapshot_name="test_it", filepath=str(path.parents[1] / "test_x.py"), basename="test_x")
    location.matches_snapshot_location = location.matches_snapshot_name = lambda _: True
    extension.write_snapshot(snapshot_location=str(path), snapshots=[(text, location, "b")], name_order={"test_it[b]": 0})
    assert read_baseline(path) == {each.name: each for each in (ENTRY, better, third)}
    assert files.entries(path) == {each.name: each for each in (ENTRY, OTHER)}


def test_a_file_that_broke_meanwhile_is_told_and_stays(extension, files, path):
    files.entries(path)
    path.write_text("broken", encoding="utf-8")
    extension.delete_snapshots(snapshot_location=str(path), snapshot_names={"test_it[a]"})
    fix = "restore it from git, or delete the file and accept the cases again with --snapshot-update"
    assert files.failed == [f"__snapshots__/test_x.touchstone:1: is not the first line of a baseline (touchstone-baseline: 1); {fix}"]
    assert path.read_text(encoding="utf-8") == "broken"


def test_a_file_whose_last_entry_goes_is_removed(extension, path):
    extension.delete_snapshots(snapshot_location=str(path), snapshot_names={"test_it[a]"})
    assert list(read_baseline(path)) == ["test_it[b]"]
    extension.delete_snapshots(snapshot_location=str(path), snapshot_names={"test_it[b]"})
    assert not path.exists()


def test_only_what_the_run_knows_to_be_without_a_case_is_discovered(extension, files, path):
    orphan = path.with_name("test_gone.touchstone")
    faulty = path.with_name("test_odd.touchstone")
    write_baseline(orphan, [OTHER])
    faulty.write_text("odd", encoding="utf-8")
    path.with_name("test_x.ambr").write_text("# serializer version: 1\n", encoding="utf-8")
    location = SimpleNamespace(filepath=str(path.parents[1] / "test_x.py"))
    assert names(extension.discover_snapshots(test_location=location)) == {}
    files.unused[path] = frozenset({"test_it[b]"})
    assert names(extension.discover_snapshots(test_location=location)) == {str(path): ["test_it[b]"]}
    files.others_unused = True
    found = names(extension.discover_snapshots(test_location=location, ignore_extensions=["touchstone"]))
    assert found == {str(path): ["test_it[b]"], str(orphan): ["test_it[b]"]}
    assert list(files.faults) == [faulty]
