from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_touchstone.errors import RecordingError
from pytest_touchstone.recording import store
from pytest_touchstone.recording.store import (
    HEADER,
    Entry,
    decode_entry,
    encode_entry,
    kept_headers,
    module_inside,
    newest,
    read_recording,
    recording_path,
    scan_recording,
    write_recording,
)

AT = "2026-01-02T03:04:05.000006Z"
AGAIN = "delete the line and record the call again with --llm-record missing"


def entry(**changes):
    plain = Entry(
        key="k1",
        test="test_a",
        trial=1,
        occurrence=1,
        at=AT,
        request={"method": "POST", "url": "http://localhost/v1/chat/completions"},
        status=200,
        headers={"content-type": "application/json"},
        body={"json": {"id": "1", "text": "hi"}},
        latency_s=0.5,
        cost_usd=0.001,
    )
    return replace(plain, **changes)


json_text = st.text(max_size=20)
entries = st.builds(
    Entry,
    key=st.text("0123456789abcdef", min_size=1, max_size=4),
    test=json_text,
    trial=st.integers(1, 3),
    occurrence=st.integers(1, 3),
    at=st.just(AT),
    request=st.dictionaries(json_text, json_text, max_size=2),
    status=st.integers(200, 599),
    headers=st.just({"content-type": "text/plain"}),
    body=st.dictionaries(json_text, json_text, max_size=2),
    incomplete=st.booleans(),
    latency_s=st.none() | st.floats(0, 100),
    cost_usd=st.none() | st.floats(0, 1),
    cost_reason=json_text,
    note=json_text,
    module=st.none() | json_text,
)


class TestLines:
    @given(entries)
    def test_an_entry_survives_its_line(self, one):
        line = encode_entry(one)
        assert "\n" not in line
        assert decode_entry(line.encode().decode()) == one

    def test_lone_surrogates_are_written_as_escapes(self):
        one = entry(body={"text": "\ud800"})
        assert decode_entry(encode_entry(one).encode().decode()) == one

    def test_a_line_can_be_read_by_people(self):
        fields = json.loads(encode_entry(entry(note="written by hand", incomplete=True, cost_usd=None, cost_reason="why")))
        assert list(fields) == [
            "check",
            "test",
            "trial",
            "occurrence",
            "key",
            "at",
            "latency_s",
            "cost_reason",
            "note",
            "request",
            "response",
        ]
        assert fields["response"]["incomplete"] is True

    @pytest.mark.parametrize(
        ("line", "problem"),
        [
            ("{", f"is cut off or is not JSON; {AGAIN}"),
            ("[" * 100_000, f"is cut off or is not JSON; {AGAIN}"),
            ("[]", f"is not an entry of a recording; {AGAIN}"),
            ("{}", f"is not an entry of a recording; {AGAIN}"),
            ('{"test":"t","check":"x"}', f"was changed after it was recorded (its checksum does not match); restore it, or {AGAIN}"),
        ],
    )
    def test_lines_that_are_no_entries(self, line, problem):
        with pytest.raises(ValueError) as caught:
            decode_entry(line)
        assert str(caught.value) == problem

    def test_an_edited_answer_is_noticed(self):
        with pytest.raises(ValueError, match="was changed after it was recorded"):
            decode_entry(encode_entry(entry()).replace("hi", "ho"))

    @pytest.mark.parametrize(
        ("change", "named"),
        [
            ({"trial": 0}, "trial"),
            ({"trial": True}, "trial"),
            ({"occurrence": 1.0}, "occurrence"),
            ({"key": 5}, "key"),
            ({"test": None}, "test"),
            ({"at": "yesterday"}, "at"),
            ({"latency_s": "fast"}, "latency_s"),
            ({"latency_s": -1}, "latency_s"),
            ({"cost_usd": True}, "cost_usd"),
            ({"request": []}, "request"),
            ({"body": []}, "body"),
            ({"status": 99}, "status"),
            ({"status": 600}, "status"),
            ({"module": 3}, "module"),
        ],
    )
    def test_fields_of_the_wrong_type(self, change, named):
        with pytest.raises(ValueError) as caught:
            decode_entry(encode_entry(entry(**change)))
        assert str(caught.value) == f"lacks a field or has one of the wrong type ({named}); {AGAIN}"

    def test_only_harmless_headers_are_kept_and_read(self):
        sent = {"Content-Type": "a/b", "set-cookie": "x", "x-request-id": "r\r\nset-cookie: y", "retry-after": "é", "location": "/x"}
        assert kept_headers(sent) == {"content-type": "a/b", "location": "/x"}
        line = encode_entry(entry(headers={"content-type": "a/b", "set-cookie": "x", "x-request-id": "r\nx"}))
        assert decode_entry(line).headers == {"content-type": "a/b"}


class TestFile:
    def test_written_sorted_and_read_back(self, tmp_path):
        path = recording_path(tmp_path / "test_shop.py")
        assert path == tmp_path / "__recordings__" / "test_shop.jsonl"
        assert read_recording(path) == ()
        mixed = [
            entry(test="b"),
            entry(test="a", trial=2),
            entry(test="a"),
            entry(test="a", occurrence=2),
            entry(test="a", key="k0", module="m.py"),
        ]
        assert write_recording(path, mixed)
        ids = [(one.test, one.trial, one.key, one.occurrence) for one in read_recording(path)]
        assert ids == [("a", 1, "k0", 1), ("a", 1, "k1", 1), ("a", 1, "k1", 2), ("a", 2, "k1", 1), ("b", 1, "k1", 1)]
        assert path.read_text().splitlines()[0] == HEADER
        assert "m.py" not in path.read_text()
        assert not write_recording(path, reversed(mixed))

    def test_left_over_temporary_files_are_removed(self, tmp_path):
        path = recording_path(tmp_path / "test_shop.py")
        path.parent.mkdir()
        (path.parent / ".test_shop.jsonl.dead.tmp").write_text("x")
        write_recording(path, [entry()])
        assert [found.name for found in path.parent.iterdir()] == ["test_shop.jsonl"]

    def test_of_duplicates_the_newest_wins_the_later_of_equals(self, tmp_path):
        old, new = entry(body={"text": "old"}), entry(body={"text": "new"}, at=AT.replace("2026", "2027"))
        same = entry(body={"text": "same"})
        assert newest([new, old]) == newest([old, new]) == (new,)
        assert newest([old, same]) == (same,)

    def test_a_union_merge_of_two_new_files_can_be_read(self, tmp_path):
        path = tmp_path / "x.jsonl"
        lines = [HEADER, encode_entry(entry(test="a")), HEADER, encode_entry(entry(test="b")), ""]
        path.write_text("\r\n".join(lines))
        assert [one.test for one in read_recording(path)] == ["a", "b"]

    def test_all_faults_are_told_at_once(self, tmp_path):
        path = tmp_path / "x.jsonl"
        good = encode_entry(entry()).encode()
        lines = [
            HEADER.encode(),
            b"<<<<<<< HEAD",
            good,
            b"=======",
            good.replace(b"hi", b"ho"),
            b">>>>>>> theirs",
            b"\xff\xfe",
            b'{"check":"0123456789abcdef","test":',
        ]
        path.write_bytes(b"\n".join(lines))
        with pytest.raises(RecordingError) as caught:
            read_recording(path)
        marker = "is a merge conflict marker; keep the lines of both sides, delete the markers (or set merge=union in .gitattributes)"
        assert str(caught.value).splitlines() == [
            f"{path}:2: {marker}",
            f"{path}:4: {marker}",
            f"{path}:5: was changed after it was recorded (its checksum does not match); restore it, or {AGAIN}",
            f"{path}:6: {marker}",
            f"{path}:7: is not UTF-8; {AGAIN}",
            f"{path}:8: is cut off or is not JSON; {AGAIN}",
        ]

    @pytest.mark.parametrize(
        ("first", "problem"),
        [
            ("", f"is not the first line of a recording ({HEADER}); restore the file, or delete it and record again with --llm-record all"),
            (
                "[" * 100_000,
                f"is not the first line of a recording ({HEADER}); restore the file, or delete it and record again with --llm-record all",
            ),
            (
                '{"format":"touchstone-recording","version":0}',
                f"is not the first line of a recording ({HEADER}); restore the file, or delete it and record again with --llm-record all",
            ),
            (
                '{"format":"touchstone-recording","version":2}',
                "was written by a newer pytest-touchstone (format 2; this one reads 1); upgrade pytest-touchstone",
            ),
            (
                "<<<<<<< HEAD",
                "is a merge conflict marker; keep the lines of both sides, delete the markers (or set merge=union in .gitattributes)",
            ),
        ],
    )
    def test_a_wrong_first_line(self, tmp_path, first, problem):
        path = tmp_path / "x.jsonl"
        path.write_text(f"{first}\n{encode_entry(entry())}\n")
        with pytest.raises(RecordingError) as caught:
            read_recording(path)
        assert str(caught.value) == f"{path}:1: {problem}"

    def test_too_much(self, tmp_path, monkeypatch):
        path = tmp_path / "x.jsonl"
        write_recording(path, [entry()])
        monkeypatch.setattr(store, "MAX_LINE", 100)
        with pytest.raises(RecordingError, match=r"x.jsonl:2: is longer than 100 bytes; delete the line"):
            read_recording(path)
        monkeypatch.setattr(store, "MAX_FILE", 10)
        with pytest.raises(RecordingError, match=r"x.jsonl: is larger than 10 bytes; delete it and record again with --llm-record all"):
            read_recording(path)

    def test_messages_show_paths_relative_to_the_root_where_possible(self, tmp_path):
        path = recording_path(tmp_path / "evals" / "test_shop.py")
        path.parent.mkdir(parents=True)
        path.write_text(f"{HEADER}\n{{\n")
        with pytest.raises(RecordingError) as caught:
            read_recording(path, root=tmp_path)
        assert str(caught.value) == f"evals/__recordings__/test_shop.jsonl:2: is cut off or is not JSON; {AGAIN}"
        assert scan_recording(path, root=tmp_path / "elsewhere").faults == (f"{path}:2: is cut off or is not JSON; {AGAIN}",)

    def test_a_scan_gives_what_is_usable_with_its_line(self, tmp_path):
        path = tmp_path / "x.jsonl"
        path.write_text(f"{HEADER}\n{{\n{encode_entry(entry())}\n")
        scan = scan_recording(path)
        assert scan.entries == ((3, entry()),)
        assert len(scan.faults) == 1

    def test_a_link_to_nowhere_is_told(self, tmp_path):
        path = tmp_path / "x.jsonl"
        path.symlink_to("gone")
        with pytest.raises(RecordingError, match=r"x.jsonl: cannot be read \(No such file or directory\); make it readable"):
            read_recording(path)

    def test_a_file_that_cannot_be_read(self, tmp_path):
        with pytest.raises(RecordingError, match=r"cannot be read \(Is a directory\); make it readable, or delete it and record again"):
            read_recording(tmp_path)


class TestModules:
    def test_a_module_in_the_rootdir(self, tmp_path):
        (tmp_path / "evals").mkdir()
        assert module_inside(tmp_path, "evals/test_x.py") == tmp_path / "evals" / "test_x.py"

    @pytest.mark.parametrize(
        "module",
        [
            "/etc/test_x.py",
            "../test_x.py",
            "evals/../../test_x.py",
            "gone/test_x.py",
            "test_x.txt",
            "",
            "a\0.py",
            "link/test_x.py",
            "out/test_x.py",
        ],
    )
    def test_others_are_refused(self, tmp_path, module):
        root = tmp_path / "root"
        (root / "out").mkdir(parents=True)
        (tmp_path / "elsewhere").mkdir()
        (root / "link").symlink_to(tmp_path / "elsewhere")
        (root / "out" / "__recordings__").symlink_to(tmp_path / "elsewhere")
        with pytest.raises(RecordingError) as caught:
            module_inside(root, module)
        assert str(caught.value) == (
            f"a journal names the test module {module!r}, which is not a module in a folder inside {Path(root)}; its calls are not stored"
        )
