from __future__ import annotations

import json
from dataclasses import replace

import pytest
from test_recording_store import AT, entry

from pytest_touchstone.errors import RecordingError
from pytest_touchstone.recording import library as module_under_test
from pytest_touchstone.recording.key import WireRequest, ask
from pytest_touchstone.recording.library import Library
from pytest_touchstone.recording.redact import Redactor
from pytest_touchstone.recording.store import recording_path, write_recording

URL = "https://api.openai.com/v1/chat/completions"


def asked(content="hi", url=URL):
    body = json.dumps({"messages": [{"content": content}]}).encode()
    return ask(WireRequest(method="POST", url=url, headers={}, body=body), Redactor())


def recorded(content="hi", **changes):
    one = asked(content)
    return entry(key=one.key, request=one.stored(), **changes)


@pytest.fixture
def shop(tmp_path):
    return tmp_path / "test_shop.py"


def save(module, *entries):
    module.parent.mkdir(parents=True, exist_ok=True)
    write_recording(recording_path(module), entries)


def answer(library, module, test="test_a", trial=1, occurrence=1, content="hi"):
    found = library.find(module, asked(content).key, test, trial, occurrence)
    return None if found is None else found.body["text"]


class TestFind:
    def test_its_own_answer_comes_first(self, tmp_path, shop):
        save(shop, recorded(body={"text": "a"}), recorded(test="test_b", body={"text": "b"}))
        library = Library(tmp_path)
        assert [answer(library, shop, test) for test in ("test_a", "test_b")] == ["a", "b"]

    def test_then_that_of_the_first_test_of_the_module(self, tmp_path, shop):
        save(shop, recorded(test="test_z", body={"text": "z"}), recorded(test="test_b", body={"text": "b"}))
        save(tmp_path / "test_aa.py", recorded(test="test_a", body={"text": "elsewhere"}))
        assert answer(Library(tmp_path), shop) == "b"

    def test_then_that_of_another_module(self, tmp_path, shop):
        save(tmp_path / "old" / "test_shop.py", recorded(body={"text": "moved"}))
        assert answer(Library(tmp_path), shop) == "moved"

    def test_always_of_the_same_trial_and_occurrence(self, tmp_path, shop):
        save(shop, recorded(body={"text": "1"}), recorded(trial=2, occurrence=2, body={"text": "2"}))
        library = Library(tmp_path)
        assert answer(library, shop, "test_b", 2, 2) == "2"
        assert answer(library, shop, "test_b", 2, 1) is None

    def test_what_is_recorded_later_changes_nothing(self, tmp_path, shop):
        library = Library(tmp_path)
        library.load(shop)
        save(shop, recorded(body={"text": "late"}))
        assert answer(library, tmp_path / "test_none.py") == "late"
        assert library.find(shop, asked().key, "test_a", 1, 1).body == {"text": "late"}
        save(tmp_path / "new" / "test_x.py", recorded("other", body={"text": "later still"}))
        assert answer(library, shop, content="other") is None

    def test_calls_of_killed_sessions_count_where_the_file_has_none(self, tmp_path, shop):
        save(shop, recorded(body={"text": "file"}))
        saved = [
            recorded(body={"text": "saved"}, module="test_shop.py"),
            recorded(trial=2, body={"text": "saved 2"}, module="test_shop.py"),
        ]
        library = Library(tmp_path, saved)
        assert [answer(library, shop, trial=trial) for trial in (1, 2)] == ["file", "saved 2"]
        assert answer(library, tmp_path / "test_moved.py", trial=2) == "saved 2"

    def test_unusable_files_of_others_are_skipped_and_its_own_is_told(self, tmp_path, shop):
        other = recording_path(tmp_path / "test_other.py")
        other.parent.mkdir()
        other.write_text("nonsense")
        library = Library(tmp_path)
        assert answer(library, shop) is None
        with pytest.raises(RecordingError, match=r"test_other.jsonl:1: is not the first line of a recording"):
            library.load(tmp_path / "test_other.py")

    @pytest.mark.parametrize("hidden", [".venv/x", "node_modules/x", "build", "env"])
    def test_other_peoples_folders_are_not_searched(self, tmp_path, shop, hidden):
        folder = tmp_path / hidden
        save(folder / "test_x.py", recorded(body={"text": "theirs"}))
        if hidden == "env":
            (folder / "pyvenv.cfg").touch()
        assert answer(Library(tmp_path), shop) is None


class TestAsked:
    def test_what_was_asked_and_what_was_lent_by_others(self, tmp_path, shop):
        save(shop, recorded(test="test_z"), recorded("own"))
        save(tmp_path / "old" / "test_moved.py", recorded("moved"))
        library = Library(tmp_path)
        assert library.asked() == {}
        for content in ("hi", "own", "moved", "nothing"):
            library.note(shop, (asked(content).key, "test_a", 1, 1))
            library.find(shop, asked(content).key, "test_a", 1, 1)
        own = {(asked(content).key, "test_a", 1, 1) for content in ("hi", "own", "moved", "nothing")}
        assert library.asked() == {
            "__recordings__/test_shop.jsonl": own | {(asked().key, "test_z", 1, 1)},
            "old/__recordings__/test_moved.jsonl": {(asked("moved").key, "test_a", 1, 1)},
        }

    def test_calls_of_killed_sessions_are_lent_by_the_file_that_will_hold_them(self, tmp_path, shop):
        library = Library(tmp_path, [recorded(module="evals/test_old.py")])
        assert library.find(shop, asked().key, "test_a", 1, 1) is not None
        assert list(library.asked()) == ["evals/__recordings__/test_old.jsonl"]


class TestMiss:
    def explain(self, tmp_path, module, test="test_a", trial=1, occurrence=1, **question):
        return Library(tmp_path).explain_miss(module, asked(**question), test, trial, occurrence).splitlines()

    def test_nothing_near(self, tmp_path, shop):
        assert self.explain(tmp_path, shop) == [
            f"no recording answers a call of test_shop.py::test_a (trial 1): POST {URL}",
            "there is no recording of this URL",
            "record it: pytest --llm-eval --llm-record missing test_shop.py::test_a",
        ]

    def test_of_one_test_the_entry_that_shares_most_words_and_of_equals_the_newest(self, tmp_path, shop):
        save(
            shop,
            recorded("refund my red shoes", at=AT),
            recorded("refund my red boots", at=AT.replace("2026", "2027")),
            recorded("something else", at=AT.replace("2026", "2028")),
            recorded("refund my red hats and shoes", test="test_other", at=AT.replace("2026", "2029")),
        )
        lines = self.explain(tmp_path, shop, content="refund my red hats")
        assert lines[1] == "the nearest recording is of test_a, from 2027-01-02:"
        assert "the nearest recording is of test_other, from 2029-01-02:" in self.explain(
            tmp_path, shop, "test_new", content="refund my red hats"
        )

    def test_the_words_of_an_entry_are_looked_for_once(self, tmp_path, shop, monkeypatch):
        save(shop, recorded("refund my red shoes"))
        one, library, looked = asked("refund my red hats"), Library(tmp_path), []
        real = module_under_test._words
        monkeypatch.setattr(module_under_test, "_words", lambda request: looked.append(request) or real(request))
        assert len({library.explain_miss(shop, one, "test_a", 1, 1) for _ in range(2)}) == 1
        assert len(looked) == 3  # the request's each time, the entry's once

    def test_an_entry_that_cannot_share_as_many_words_is_not_counted(self, tmp_path, shop, monkeypatch):
        save(shop, recorded("refund my red shoes"), recorded(" ".join(f"word{number}" for number in range(200)), test="test_b"))
        library = Library(tmp_path)
        counted = []
        real = library._words_of
        monkeypatch.setattr(library, "_words_of", lambda entry: counted.append(entry.test) or real(entry))
        assert "the nearest recording is of test_a" in library.explain_miss(shop, asked("refund my red hats"), "test_x", 1, 1)
        assert counted == ["test_a", "test_b"]

    def test_a_request_without_words(self, tmp_path, shop):
        library = Library(tmp_path)
        one = asked()
        save(shop, replace(recorded(), key="k", request={"url": one.url}))
        assert "the nearest recording is of test_a" in library.explain_miss(shop, one, "test_x", 1, 1)

    def test_a_fixture_is_no_node(self, tmp_path, shop):
        assert self.explain(tmp_path, shop, "fixture:app")[-1] == "record it: pytest --llm-eval --llm-record missing test_shop.py"

    def test_a_module_outside_of_the_rootdir_is_named_in_full(self, tmp_path, shop):
        assert f"{shop.as_posix()}::test_a" in self.explain(tmp_path / "inner", shop)[0]

    def test_the_same_request_in_another_module(self, tmp_path, shop):
        save(tmp_path / "test_other.py", recorded())
        assert self.explain(tmp_path, shop, occurrence=2)[1] == (
            "this very request is recorded for trial 1, at most 1 time in a trial; this is trial 1, time 2"
        )

    def test_the_nearest_is_found_elsewhere_and_of_equals_the_own_tests(self, tmp_path, shop):
        save(tmp_path / "test_other.py", recorded("return shoes", test="test_a"), recorded("return boots", test="test_b"))
        assert self.explain(tmp_path, shop, content="return hats")[1] == f"the nearest recording is of test_a, from {AT[:10]}:"

    def test_long_diffs_are_cut_and_control_characters_cannot_act(self, tmp_path, shop):
        save(shop, recorded("x" * 900))
        lines = self.explain(tmp_path, shop, content="\x1b[31m\u202e red")
        assert max(map(len, lines)) <= 400
        assert [line.strip() for line in lines if line.startswith("+ ")] == ['+     "content": "\\u001b[31m\\u202e red"']
        many = [{"content": str(number)} for number in range(100)]
        question = ask(WireRequest(method="POST", url=URL, headers={}, body=json.dumps(many).encode()), Redactor())
        told = Library(tmp_path).explain_miss(shop, question, "test_a", 1, 1).splitlines()
        assert len(told) == 64
        assert told[-2].startswith("... ")
        assert told[-2].endswith(" more lines")
