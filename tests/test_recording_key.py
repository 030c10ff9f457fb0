from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_touchstone.errors import RecordingError, SettingsError
from pytest_touchstone.recording.key import KeyRules, WireRequest, ask, canonical_url, parse_path, request_key
from pytest_touchstone.recording.redact import Redactor

URL = "https://api.openai.com/v1/chat/completions"
PLAIN = Redactor()


def asked(body=None, *, url=URL, method="POST", headers=None, raw=None, redactor=PLAIN, rules=None):
    content = raw if raw is not None else b"" if body is None else json.dumps(body).encode()
    headers = {"content-type": "application/json", **(headers or {})}
    return ask(WireRequest(method=method, url=url, headers=headers, body=content), redactor, rules)


class TestKey:
    def test_layout_and_order_of_json_do_not_matter(self):
        one = asked(raw=b'{"a": 1, "b": {"c": [1, 2], "d": "x"}}')
        assert one.key == asked(raw=b'{\n"b":{"d":"x","c":[1,2]},"a":1}').key
        assert one.key != asked(raw=b'{"a": 1, "b": {"c": [2, 1], "d": "x"}}').key

    def test_who_asks_does_not_matter(self):
        named = {"user": "me", "metadata": {"run": 1}, "safety_identifier": "s", "prompt_cache_key": "p"}
        assert asked({"input": "x", **named}).key == asked({"input": "x"}).key
        assert asked({"input": {"user": "me"}}).key != asked({"input": {"user": "you"}}).key

    def test_method_url_and_body_matter(self):
        one = asked({"a": 1})
        different = [
            asked({"a": 2}),
            asked({"a": 1}, method="PUT"),
            asked({"a": 1}, url=URL + "/x"),
            asked({"a": 1}, url=URL + "?v=2"),
            asked(),
        ]
        assert len({one.key, *(other.key for other in different)}) == 6

    def test_headers_do_not_matter(self):
        assert asked({"a": 1}, headers={"authorization": "Bearer x", "x-run": "1"}).key == asked({"a": 1}).key

    def test_numbers_are_told_from_texts(self):
        assert asked({"a": 1}).key != asked({"a": "1"}).key

    @given(st.binary(max_size=60))
    def test_any_body_has_a_key(self, raw):
        assert len(asked(raw=raw).key) == 64
        assert asked(raw=raw) == asked(raw=raw)

    def test_deep_json_is_text(self):
        raw = b"[" * 5000 + b"]" * 5000
        assert asked(raw=raw).body == {"text": raw.decode()}
        assert asked(raw=raw).json is None


class TestUrl:
    @pytest.mark.parametrize(
        ("url", "canonical"),
        [
            ("https://API.openai.com:443/v1?b=2&a=1", "https://api.openai.com/v1?a=1&b=2"),
            ("http://127.0.0.1:8123/v1", "http://localhost/v1"),
            ("http://localhost/v1", "http://localhost/v1"),
            ("http://[::1]:8123/v1", "http://localhost/v1"),
            ("https://[2001:db8::1]:8443/v1", "https://[2001:db8::1]:8443/v1"),
            ("https://x.example:8443/v1#part", "https://x.example:8443/v1"),
            (
                "https://x.example/v1?key=abc&empty=&api-version=2025-01-01",
                "https://x.example/v1?api-version=2025-01-01&empty=&key=[redacted]",
            ),
            ("https://x.example/sk-abcdefghijklmnop1234/v1", "https://x.example/[redacted]/v1"),
        ],
    )
    def test_canonical(self, url, canonical):
        assert canonical_url(url, PLAIN)[0] == canonical

    def test_a_password_in_the_url_is_dropped_and_learnt(self):
        redactor = Redactor()
        assert canonical_url("https://me:hunter22hunter@x.example/", redactor) == ("https://x.example/", "x.example")
        assert redactor.redact("hunter22hunter") == "[redacted]"


class TestSecrets:
    def test_bodies_are_redacted_before_the_key_is_made(self):
        redactor = Redactor({"SHOP_TOKEN": "hunter22hunter"})
        one = asked({"messages": [{"content": "it is hunter22hunter"}]}, redactor=redactor)
        assert one.json == {"messages": [{"content": "it is [redacted]"}]}
        assert one.key == asked({"messages": [{"content": "it is [redacted]"}]}).key

    def test_credentials_in_a_body(self):
        assert asked({"model": "m", "api_key": "zzz", "password": "b"}).json == {
            "model": "m",
            "api_key": "[redacted]",
            "password": "[redacted]",
        }

    def test_text_bodies(self):
        assert asked(raw=b"key=sk-abcdefghijklmnop1234").body == {"text": "key=[redacted]"}


class TestOtherBodies:
    def test_multipart_without_its_boundary(self):
        def form(boundary, content):
            part = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\n{content}\r\n--{boundary}--\r\n'
            return asked(raw=part.encode(), headers={"content-type": f"multipart/form-data; boundary={boundary}"})

        one = form("abc", "hello")
        assert one == form("xyz", "hello")
        assert one.key != form("abc", "other").key
        [part] = one.body["multipart"]
        assert part["part"] == 'Content-Disposition: form-data; name="file"; filename="a.txt"'
        assert part["bytes"] == 5

    def test_a_part_without_a_name(self):
        one = asked(raw=b"--b\r\nX-Odd: 1\r\n\r\nhello\r\n--b--", headers={"content-type": "multipart/mixed; boundary=b"})
        assert one.body["multipart"][0]["part"] == "X-Odd: 1"

    def test_binary(self):
        assert asked(raw=b"\xff\x00").body.keys() == {"sha256", "bytes"}

    def test_empty(self):
        assert asked().body == {}
        assert asked(method="GET").stored() == {"method": "GET", "url": URL}


class TestStored:
    def test_names_are_sorted_and_images_folded(self):
        image = "data:image/png;base64," + "iVBORw0KGgo=" * 400
        stored = asked({"b": [image], "a": "x" * 5000 + " words stay"}).stored()
        assert list(stored["body"]["json"]) == ["a", "b"]
        assert stored["body"]["json"]["a"].endswith("words stay")
        assert stored["body"]["json"]["b"][0].startswith("sha256:")
        assert stored["body"]["json"]["b"][0].endswith(f" ({len(image)} characters of base64)")

    def test_folding_does_not_change_the_key(self):
        assert asked({"a": "A" * 5000}).key != asked({"a": "A" * 5001}).key


def ignoring(*paths):
    return KeyRules(ignore=tuple(parse_path(path) for path in paths))


class TestIgnoredFields:
    @pytest.mark.parametrize(
        ("path", "left"),
        [
            ("a", {"b": [{"c": 1, "d": 2}, {"c": 3}]}),
            ("b.*.c", {"a": {"x": 1, "y": 2}, "b": [{"d": 2}, {}]}),
            ("b.1", {"a": {"x": 1, "y": 2}, "b": [{"c": 1, "d": 2}]}),
            ("b.*", {"a": {"x": 1, "y": 2}, "b": []}),
            ("/a/x", {"a": {"y": 2}, "b": [{"c": 1, "d": 2}, {"c": 3}]}),
            ("a.*", {"a": {}, "b": [{"c": 1, "d": 2}, {"c": 3}]}),
            ("*", {}),
            ("b.x.c", {"a": {"x": 1, "y": 2}, "b": [{"c": 1, "d": 2}, {"c": 3}]}),
            ("a.x.deeper", {"a": {"x": 1, "y": 2}, "b": [{"c": 1, "d": 2}, {"c": 3}]}),
            ("z.y", {"a": {"x": 1, "y": 2}, "b": [{"c": 1, "d": 2}, {"c": 3}]}),
        ],
    )
    def test_do_not_count(self, path, left):
        body = {"a": {"x": 1, "y": 2}, "b": [{"c": 1, "d": 2}, {"c": 3}]}
        one = asked(body, rules=ignoring(path))
        assert one.body == {"json": left}
        assert one.key == asked(left).key
        assert one.json == body

    def test_several(self):
        assert asked({"a": 1, "b": 2, "c": 3}, rules=ignoring("a", "c")).body == {"json": {"b": 2}}

    def test_names_with_dots_and_slashes_are_written_as_json_pointers(self):
        assert asked({"a.b": {"c/d": 1, "~": 2}}, rules=ignoring("/a.b/c~1d", "/a.b/~0")).body == {"json": {"a.b": {}}}

    @pytest.mark.parametrize("path", ["", "/", "a..b", ".a", "/a//b"])
    def test_no_path(self, path):
        with pytest.raises(SettingsError) as caught:
            parse_path(path)
        assert str(caught.value) == (
            f"{path!r} is not a path to a field of a JSON body; write it as metadata.session, messages.*.name or /metadata/session"
        )

    def test_other_bodies_have_no_fields(self):
        assert asked(raw=b"plain", rules=ignoring("a")) == asked(raw=b"plain")
        assert asked(rules=ignoring("a")) == asked()


class TestHook:
    def test_changes_a_copy(self):
        def change(request):
            seen.append({**request})
            request.update(method="PUT", url="https://x.example/v2")
            request["body"]["messages"][0]["content"] = "it is (some day)"

        seen = []
        body = {"messages": [{"content": "it is Monday"}]}
        one = asked(body, rules=KeyRules(change=change))
        assert one.json == body
        assert one.key == asked({"messages": [{"content": "it is (some day)"}]}, url="https://x.example/v2", method="PUT").key
        assert [(request["method"], request["url"]) for request in seen] == [("POST", URL)]

    def test_sees_no_secret_and_cannot_bring_one_in(self):
        redactor = Redactor({"SHOP_TOKEN": "hunter22hunter"})

        def change(request):
            seen.append(request["body"]["a"])
            request["url"] += "?x=hunter22hunter"
            request["body"]["b"] = "hunter22hunter"

        seen = []
        one = asked({"a": "hunter22hunter"}, redactor=redactor, rules=KeyRules(change=change))
        assert seen == ["[redacted]"]
        assert (one.url, one.body) == (f"{URL}?x=[redacted]", {"json": {"a": "[redacted]", "b": "[redacted]"}})

    @pytest.mark.parametrize(
        ("raw", "seen"), [(b"text", "text"), (b"\xff", None), (b"", None), (b'{"a": 1}', {"a": 1})], ids=["text", "bytes", "empty", "json"]
    )
    def test_is_given_json_or_text_or_none(self, raw, seen):
        found = []
        one = asked(raw=raw, rules=KeyRules(change=lambda request: found.append(request["body"])))
        assert found == [seen]
        assert one.key == asked(raw=raw).key

    @pytest.mark.parametrize(
        ("left", "body"),
        [
            ("redacted: sk-abcdefghijklmnop1234", {"text": "redacted: [redacted]"}),
            (None, {}),
            ([1], {"json": [1]}),
            ({"b": 1}, {"json": {"b": 1}}),
        ],
    )
    def test_may_leave_another_body(self, left, body):
        assert asked({"a": 1}, rules=KeyRules(change=lambda request: request.update(body=left))).body == body

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda request: 1 / 0, "a pytest_llm_request hook raised ZeroDivisionError: division by zero"),
            (
                lambda request: request.pop("url"),
                "a pytest_llm_request hook left a request whose method or url is no text; change them to text, or leave them",
            ),
            (
                lambda request: request.update(body={1, 2}),
                "a pytest_llm_request hook left a body that is not JSON; leave a dict, a list, a text or None",
            ),
            (
                lambda request: request.update(body=5),
                "a pytest_llm_request hook left a body that is not JSON; leave a dict, a list, a text or None",
            ),
        ],
    )
    def test_mistakes(self, change, message):
        with pytest.raises(RecordingError) as caught:
            asked({"a": 1}, rules=KeyRules(change=change))
        assert str(caught.value) == message

    def test_without_rules_nothing_is_copied(self):
        assert asked({"a": 1}, rules=KeyRules()).sent is None


class TestRequestKey:
    @given(st.dictionaries(st.text(max_size=5), st.text(max_size=5) | st.integers() | st.none(), max_size=4))
    def test_is_that_of_the_request_that_was_stored(self, body):
        one = asked(body)
        assert request_key(one.stored()) == one.key

    def test_unless_data_was_folded(self):
        one = asked({"a": "A" * 5000})
        assert request_key(one.stored()) != one.key
