from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_recording_store import AT, entry

from pytest_touchstone.recording.body import encode_body
from pytest_touchstone.recording.key import WireRequest, ask, request_key
from pytest_touchstone.recording.redact import Redactor
from pytest_touchstone.recording.unchanged import Settled, is_model_endpoint, settle

URL = "https://api.openai.com/v1/chat/completions"
LATER = AT.replace("2026", "2027")


def asked(*messages, url=URL, **fields):
    content = json.dumps({"messages": messages, **fields}).encode()
    return ask(WireRequest(method="POST", url=url, headers={"content-type": "application/json"}, body=content), Redactor())


def call(body, *messages, url=URL, at=AT, fields=None, **changes):
    """An entry whose key is that of its request."""
    question = asked(*messages, url=url, **(fields or {}))
    return entry(key=question.key, request=question.stored(), body=body, at=at, **changes)


def news(old, new):
    return settle(new, {one.id: one for one in old}).news


def is_kept(before, after, url=URL, **changes):
    """Whether the old line stays when the same call is answered by `after`."""
    return not news([call(before, url=url)], [call(after, url=url, at=LATER, **changes)])


def completion(identity, text="hi", tool=None, **fields):
    message = {"content": text, **({} if tool is None else {"tool_calls": [{"id": tool, "function": {"name": "refund"}}]})}
    return {"json": {"id": identity, "choices": [{"message": message}], **fields}}


class TestOneAnswer:
    @pytest.mark.parametrize(
        "fields",
        [
            {"created": 6},
            {"system_fingerprint": "fp_2"},
            {"usage": {"total_tokens": 3, "total_time": 0.2}},
            {"timings": {"predicted_ms": 4}},
        ],
    )
    def test_ids_times_and_durations_do_not_count(self, fields):
        before = completion("chatcmpl-1", created=5, usage={"total_tokens": 3, "total_time": 0.1})
        after = completion("chatcmpl-2", **{"usage": {"total_tokens": 3}, **fields})
        assert is_kept(before, after)

    @pytest.mark.parametrize(
        "after",
        [
            completion("chatcmpl-1", text="ho"),
            completion("chatcmpl-1", model="other"),
            completion("chatcmpl-1", usage={"total_tokens": 4}),
            {"json": {"id": "chatcmpl-1", "choices": []}},
            {"json": {"id": "chatcmpl-1", "choices": [{"message": {"content": "hi"}}] * 2}},
            {"json": {"id": 5, "choices": [{"message": {"content": "hi"}}]}},
            {"text": "hi"},
        ],
    )
    def test_all_else_counts(self, after):
        assert not is_kept(completion("chatcmpl-1"), after)

    def test_numbers_are_told_from_truth(self):
        assert not is_kept({"json": {"n": 1}}, {"json": {"n": True}})
        assert not is_kept({"json": {"n": 1}}, {"json": {"n": 1.0}})

    def test_status_end_and_headers_count_but_not_ids_and_dates_in_headers(self):
        one = completion("chatcmpl-1")
        assert not is_kept(one, one, status=400)
        assert not is_kept(one, one, incomplete=True)
        assert not is_kept(one, one, headers={"content-type": "text/plain"})
        assert is_kept(one, one, headers={"content-type": "application/json", "x-request-id": "r2", "retry-after": "1"})

    def test_what_the_same_id_stands_for_must_stand_for_the_same(self):
        both = {"json": {"output": [{"id": "call_aaaa"}, {"id": "call_aaaa"}]}}
        two = {"json": {"output": [{"id": "call_bbbb"}, {"id": "call_cccc"}]}}
        assert not is_kept(both, two)
        assert not is_kept(two, both)
        assert is_kept(both, {"json": {"output": [{"id": "call_bbbb"}, {"id": "call_bbbb"}]}})

    def test_answers_of_other_servers_count_as_they_are(self):
        url = "https://shop.example/orders"
        assert not is_kept({"json": {"id": "order-1"}}, {"json": {"id": "order-2"}}, url=url)
        assert is_kept({"json": {"id": "order-1"}}, {"json": {"id": "order-1"}}, url=url)

    def test_bodies_that_are_not_json(self):
        assert is_kept({"text": "hi"}, {"text": "hi"})
        assert not is_kept({"text": "hi"}, {"text": "ho"})

    def test_streams_are_compared_by_their_events(self):
        def stream(identity, *texts):
            events = [{"id": identity, "created": len(identity), "delta": text} for text in texts]
            text = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
            return encode_body(text.encode(), "text/event-stream", Redactor())

        assert is_kept(stream("chatcmpl-1", "hi", "you"), stream("chatcmpl-22", "hi", "you"))
        assert not is_kept(stream("chatcmpl-1", "hi", "you"), stream("chatcmpl-1", "hi", "there"))
        assert not is_kept(stream("chatcmpl-1", "hi", "you"), stream("chatcmpl-1", "hiyou"))

    def test_what_is_older_changes_nothing(self):
        assert news([call(completion("1"), at=LATER)], [call(completion("2", "older"), at=AT)]) == ()

    @pytest.mark.parametrize(
        ("path", "is_one"), [("/v1/messages/", True), ("/v1beta/models/g:generateContent", True), ("/v1/files", False)]
    )
    def test_which_servers_are_models(self, path, is_one):
        assert is_model_endpoint(f"https://x.example{path}") is is_one


class TestTrial:
    """A conversation in which the second request names an id of the first answer."""

    def conversation(self, tool, *, at, identity="chatcmpl-1", last="done", text="hi", **changes):
        first = call(completion(identity, text, tool=tool), {"content": "q"}, at=at, **changes)
        result = {"role": "tool", "tool_call_id": tool, "content": "refunded"}
        second = call(
            completion(f"{identity}b", last), {"content": "q"}, {"tool_calls": [{"id": tool}]}, result, at=f"{at[:-2]}9Z", **changes
        )
        return [first, second]

    def test_a_conversation_with_new_ids_stays_as_it_is(self):
        old, new = self.conversation("call_old1", at=AT), self.conversation("call_new1", at=LATER, identity="chatcmpl-2")
        assert settle(new, {one.id: one for one in old}) == Settled(news=(), ids=frozenset(one.id for one in old))

    def test_what_an_earlier_session_asked_is_stored_but_not_asked_now(self):
        earlier, now = call(completion("c"), {"content": "x"}, at=AT), call(completion("c"), {"content": "y"}, at=LATER)
        assert settle([earlier, now], {}, since=LATER) == Settled(news=(earlier, now), ids=frozenset({now.id}))

    def test_a_later_answer_that_differs_is_stored_for_what_the_replayed_application_will_ask(self):
        old = self.conversation("call_old1", at=AT)
        new = self.conversation("call_new1", at=LATER, identity="chatcmpl-2", last="changed")
        settled = settle(new, {one.id: one for one in old})
        [only] = settled.news
        assert only.key == old[1].key == request_key(only.request)
        assert "call_new1" not in json.dumps(only.request)
        assert only.body == completion("chatcmpl-2b", "changed")
        assert settled.ids == {one.id for one in old}

    def test_a_first_answer_that_differs_keeps_its_own_ids(self):
        old = self.conversation("call_old1", at=AT)
        new = self.conversation("call_new1", at=LATER, text="other")
        assert news(old, new) == tuple(new)

    def test_an_id_that_stands_inside_of_a_text_cannot_be_followed(self):
        old, new = self.conversation("call_old1", at=AT), self.conversation("call_new1", at=LATER)
        told = call(completion("c"), {"content": "the id is call_new1"}, at=f"{LATER[:-2]}9Z")
        assert news(old, [*new, told]) == (new[0], new[1], told)

    def test_nor_one_in_a_request_whose_key_cannot_be_made_again(self):
        old, new = self.conversation("call_old1", at=AT), self.conversation("call_new1", at=LATER)
        image = call(completion("c"), {"content": "A" * 5000, "tool_call_id": "call_new1"}, at=f"{LATER[:-2]}9Z")
        assert news(old, [*new, image]) == (new[0], new[1], image)

    def test_nor_one_that_is_too_short_to_be_told_from_text(self):
        old, new = self.conversation("c1", at=AT), self.conversation("c2", at=LATER)
        assert news(old, new) == tuple(new)

    def test_trials_and_tests_do_not_mix(self):
        old = [*self.conversation("call_old1", at=AT), *self.conversation("call_old2", at=AT, trial=2)]
        new = [*self.conversation("call_new2", at=LATER, trial=2), *self.conversation("call_new1", at=LATER)]
        assert news(old, new) == ()

    def test_what_shared_fixtures_learn_counts_since_any_test_may_ask_about_it(self):
        old = self.conversation("call_old1", at=AT, test="fixture:app")
        new = self.conversation("call_new1", at=LATER, test="fixture:app")
        assert news(old, new) == tuple(new)
        assert news(old, self.conversation("call_old1", at=LATER, test="fixture:app")) == ()

    @given(st.dictionaries(st.integers(0, 5), st.sampled_from(["chatcmpl-a", "chatcmpl-b", "call_cccc"]), max_size=4))
    def test_whatever_is_new_is_either_stored_or_already_there(self, ids):
        old = [call(completion(f"chatcmpl-{number}"), {"n": number}) for number in range(6)]
        new = [call(completion(identity), {"n": number}, at=LATER) for number, identity in ids.items()]
        settled = settle(new, {one.id: one for one in old})
        assert settled.ids == {one.id for one in new}
        # One id that stood for two before cannot stand for both, so then the new lines are taken.
        assert bool(settled.news) == (len(set(ids.values())) < len(ids))
