from __future__ import annotations

from datetime import UTC, datetime

import pytest
from test_cli import chat
from test_recording_store import AT, entry

from pytest_touchstone.recording.listing import call_of, faults_of, list_lines, show_lines
from pytest_touchstone.recording.redact import Redactor
from pytest_touchstone.recording.store import HEADER, recording_path, write_recording

NOW = datetime(2026, 1, 3, 12, tzinfo=UTC)


@pytest.fixture
def path(tmp_path):
    module = tmp_path / "test_shop.py"
    module.touch()
    return recording_path(module)


def row(path, *entries):
    """The cells of the one row of a table."""
    write_recording(path, entries)
    head, line = list_lines([path], path.parents[1], now=NOW)
    assert head.split() == ["recordings", "calls", "models", "tokens", "in", "out", "cost", "size", "recorded"]
    return [cell.strip() for cell in line.split("  ") if cell.strip()]


class TestList:
    def test_what_is_known(self, path):
        cells = row(path, chat())
        assert cells == [
            "__recordings__/test_shop.jsonl",
            "1",
            "gpt-4o",
            "11",
            "7",
            "$0.0010",
            f"{path.stat().st_size} B",
            "2026-01-02 (1 day ago)",
        ]

    def test_what_is_not_known_is_not_zero(self, path):
        unknown = chat(usage=None, cost_usd=None, test="test_b")
        assert row(path, unknown)[3:6] == ["unknown", "unknown", "unknown"]
        assert row(path, unknown, chat())[3:6] == [">= 11", ">= 7", ">= $0.0010"]

    def test_calls_of_no_known_model(self, path):
        assert row(path, entry(request={"method": "GET", "url": "https://x.example", "body": 5}, cost_usd=None))[1:6] == [
            "1",
            "-",
            "0",
            "0",
            "$0.0000",
        ]

    def test_many_models_and_hostile_names(self, path):
        models = ["\x1b[31m", "", "b", "c"]
        assert row(path, *(chat(model=model, occurrence=number) for number, model in enumerate(models, start=1)))[2] == (
            "\\x1b[31m, (no name), b, ..."
        )

    def test_dates(self, path):
        assert row(path, chat(at=AT.replace("01-02", "01-03")))[-1] == "2026-01-03 (today)"
        assert row(path, chat(at=AT.replace("01-02", "99-99")))[-1] == "2026-99-99"

    def test_sizes(self, path):
        assert row(path, chat("x " * 25_000))[-2] == f"{path.stat().st_size / 1000:.0f} KB" == "51 KB"
        assert row(path, chat("x " * 6_000_000))[-2] == "12 MB"

    def test_an_empty_file_and_faulty_ones(self, path):
        path.parent.mkdir()
        path.write_text(f"{HEADER}\n")
        lines = list_lines([path, path.parent / "gone.jsonl"], path.parents[1], now=NOW)
        assert lines[1].endswith("-")
        assert lines[3].split()[:2] == ["all", "0"]
        assert lines[4:] == ["__recordings__/gone.jsonl: 1 fault; `touchstone recordings verify` says which"]

    def test_a_file_without_its_module(self, tmp_path):
        path = recording_path(tmp_path / "test_gone.py")
        write_recording(path, [chat()])
        assert list_lines([path], tmp_path, now=NOW)[2:] == ["__recordings__/test_gone.jsonl: its test module is gone"]


class TestShow:
    def shown(self, path, one):
        write_recording(path, [one])
        return [line.strip() for line in show_lines(path, path.parents[1])]

    def test_a_tool_call_and_structured_content(self, path):
        request = {
            "method": "POST",
            "url": "https://api.openai.com/v1/chat/completions",
            "body": {"json": {"model": "m", "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]}},
        }
        calls = [{"id": "call_1", "type": "function", "function": {"name": "refund", "arguments": "{}"}}]
        body = {"json": {"choices": [{"message": {"role": "assistant", "content": None, "tool_calls": calls}}]}}
        lines = self.shown(path, entry(request=request, body=body, incomplete=True, latency_s=None))
        assert lines[1:3] == [f"recorded {AT}, cost $0.0010", "asked: POST https://api.openai.com/v1/chat/completions"]
        assert lines[3].startswith("user: ")
        assert "hi" in lines[3]
        assert lines[4] == "answered: status 200, closed by the application before its end"
        assert '"refund"' in lines[5]

    def test_nothing_passes_for_a_line_of_its_own(self, path):
        lines = self.shown(path, chat(test="test_a\nfake.jsonl:9", note="a\nb"))
        assert lines[0] == "__recordings__/test_shop.jsonl:2: test_a\\nfake.jsonl:9, trial 1, time 1"
        assert lines[2] == "note: a\\nb"

    def test_other_calls_as_they_are(self, path):
        request = {"method": "POST", "url": "https://x.example", "body": {"json": {"q": 1}}}
        lines = self.shown(path, entry(request=request, body={"json": {"found": True}}, status=400))
        assert lines[3:] == ["{", '"json": {', '"q": 1', "}", "}", "answered: status 400", "{", '"found": true', "}", ""]

    @pytest.mark.parametrize(
        ("body", "told"),
        [
            ({"text": "plain"}, "plain"),
            ({"base64": "/w=="}, "(binary data)"),
            ({"odd": 1}, "(the stored response body is in no known form (json, sse, text, base64))"),
        ],
    )
    def test_answers_of_every_kind(self, path, body, told):
        assert self.shown(path, entry(request={"method": "GET", "url": "https://x.example"}, body=body))[-2] == told

    def test_no_call_is_made_of_a_body_that_is_none(self):
        assert call_of(entry(request={"method": "POST", "url": "https://api.openai.com/v1/chat/completions", "body": []})) is None


def test_a_file_that_cannot_be_read_is_one_fault(tmp_path):
    folder = tmp_path / "x.jsonl"
    folder.mkdir()
    assert faults_of(folder, tmp_path, redactor=Redactor()) == [
        "x.jsonl: cannot be read (Is a directory); make it readable, or delete it and record again"
    ]
