from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from providers import Reply, Seen, events

from pytest_touchstone.errors import RecordingError
from pytest_touchstone.recording.body import (
    MAX_BODY,
    body_events,
    body_json,
    body_text,
    decode_body,
    encode_body,
    is_event_stream,
    parse_json,
)
from pytest_touchstone.recording.redact import Redactor

JSON = "application/json"
SSE = "text/event-stream; charset=utf-8"
PLAIN = Redactor()

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=5), children, max_size=4),
    max_leaves=12,
)
objects = st.dictionaries(st.text(max_size=5), values, max_size=4) | st.lists(values, max_size=4)
layouts = st.sampled_from(
    [{}, {"separators": (",", ":")}, {"indent": 2}, {"ensure_ascii": False}, {"ensure_ascii": False, "separators": (",", ":")}]
)


def round_trip(data, content_type=SSE, redactor=PLAIN):
    body = encode_body(data, content_type, redactor)
    # A recording is a line of JSON: what does not survive that is not stored.
    return decode_body(json.loads(json.dumps(body)))


class TestRoundTrip:
    @given(st.binary(max_size=200), st.sampled_from([JSON, SSE, "text/plain", ""]))
    def test_any_bytes(self, data, content_type):
        if content_type == SSE or parse_json(data) is None:
            assert round_trip(data, content_type) == data

    @given(objects, layouts)
    def test_json_in_the_usual_layouts(self, value, layout):
        data = json.dumps(value, **layout).encode("utf-8", "surrogatepass")
        assert round_trip(data, JSON) == data

    @given(objects)
    def test_json_in_an_unusual_layout_means_the_same(self, value):
        data = json.dumps(value, indent=7).encode()
        assert json.loads(round_trip(data, JSON)) == value

    @given(st.text())
    def test_any_stream(self, text):
        assert round_trip(text.encode("utf-8", "surrogatepass")) == text.encode("utf-8", "surrogatepass")

    @given(
        st.lists(st.tuples(st.none() | st.text(st.characters(exclude_characters="\r\n"), max_size=9), objects), max_size=8),
        layouts,
        st.text(max_size=5),
    )
    def test_streams_of_json(self, rows, layout, tail):
        layout = {name: value for name, value in layout.items() if name != "indent"}
        parts = [(f"event: {name}\n" if name is not None else "") + f"data: {json.dumps(value, **layout)}\n\n" for name, value in rows]
        data = ("".join(parts) + tail).encode("utf-8", "surrogatepass")
        assert round_trip(data) == data

    @pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses", "/v1/messages"])
    def test_providers_streams_by_column(self, path):
        request = {"model": "m", "stream": True}
        seen = Seen(method="POST", path=path, headers={}, body=b"", json=request)
        data = b"".join(events(seen, Reply(text="word " * 300)))
        body = encode_body(data, SSE, PLAIN)
        assert decode_body(body) == data
        assert len(json.dumps(body, separators=(",", ":"))) < len(data) / 5
        assert len(body_events(body)) == data.count(b"data: {")

    def test_scalars_that_compare_equal_are_told_apart(self):
        data = b'data: {"a":1}\n\ndata: {"a":true}\n\ndata: {"a":1.0}\n\ndata: {"a":0.0}\n\ndata: {"a":-0.0}\n\n'
        assert round_trip(data) == data
        assert "sse" in encode_body(data, SSE, PLAIN)

    def test_names_with_slashes(self):
        data = b'data: {"a/b":1,"a":{"b":2},"~1":3}\n\ndata: {"a/b":4,"a":{"b":5},"~1":6}\n\n'
        assert round_trip(data) == data


class TestForms:
    def test_json_is_stored_as_json(self):
        assert encode_body(b'{"a":[1]}', JSON, PLAIN) == {"json": {"a": [1]}}
        assert encode_body(b'{"a": [1]}', JSON, PLAIN) == {"json": {"a": [1]}, "layout": 2}

    @pytest.mark.parametrize(
        "data",
        [b'{"a":1,"a":2}', b"[NaN]", b"[" * 150 + b"]" * 150, b"[" * 100_000, b'"text"', b"{", b'["\\ud800"]'],
        ids=lambda data: data[:8].decode(),
    )
    def test_what_json_would_not_keep_is_stored_as_text(self, data):
        assert encode_body(data, JSON, PLAIN) == {"text": data.decode()}

    def test_bytes_are_stored_in_base64(self):
        body = encode_body(b"\xff\x00", "audio/mpeg", PLAIN)
        assert body == {"base64": base64.b64encode(b"\xff\x00").decode()}
        assert body_text(body) == ""

    def test_readers(self):
        assert body_json({"json": {"a": 1}}) == {"a": 1}
        assert body_json({"text": "x"}) is None
        assert body_text({"text": "x"}) == "x"
        assert body_events({"json": 1}) == []
        assert body_events({"text": 'data: {"a":1}\r\ndata: nonsense\ndata: 5\n'}) == [{"a": 1}]
        assert is_event_stream("Text/Event-Stream;charset=utf-8")
        assert not is_event_stream("application/json")


class TestUntrusted:
    @pytest.mark.parametrize(
        "body",
        [
            {"json": 1, "layout": 99},
            {"json": 1, "layout": "x"},
            {"base64": "!"},
            {"base64": 5},
            {"text": 5},
            {"sse": []},
            {"sse": {"layout": 0, "shapes": [], "order": [0], "tail": ""}},
            {"sse": {"layout": 0, "shapes": [{"raw": "x"}], "order": [[0]], "tail": ""}},
            {"sse": {"layout": 0, "shapes": [{"data": {"a": None}, "vary": {"/a": []}}], "order": [0], "tail": ""}},
            {"sse": {"layout": 0, "shapes": [{"raw": "x" * 1000}], "order": [[0, MAX_BODY]], "tail": ""}},
            {"sse": {"layout": 0, "shapes": [{"raw": ""}], "order": [[0, MAX_BODY + 1]], "tail": ""}},
            {"sse": {"layout": 0, "shapes": [{}], "order": [0], "tail": ""}},
            {"sse": {"layout": 0, "shapes": [7], "order": [0], "tail": ""}},
        ],
    )
    def test_bodies_that_cannot_be_decoded(self, body):
        with pytest.raises(RecordingError, match="the stored response body cannot be decoded"):
            decode_body(body)

    def test_bodies_of_no_known_form(self):
        with pytest.raises(RecordingError, match=r"the stored response body is in no known form \(json, sse, text, base64\)"):
            decode_body({"xml": "x"})


SECRET = "hunter2-hunter2"
HIDING = Redactor({"SHOP_TOKEN": SECRET})


class TestSecrets:
    def test_in_json(self):
        assert encode_body(json.dumps({"a": SECRET}).encode(), JSON, HIDING) == {"json": {"a": "[redacted]"}, "layout": 2}

    def test_in_text(self):
        assert encode_body(f"<{SECRET}>".encode(), "text/html", HIDING) == {"text": "<[redacted]>"}

    def test_in_json_that_is_stored_as_text(self):
        data = f'["\\ud800", "{SECRET}"]'.encode()
        assert encode_body(data, JSON, HIDING) == {"text": '["\\ud800", "[redacted]"]'}

    def test_in_binary_data(self):
        with pytest.raises(RecordingError, match="the response body holds a secret inside binary data, which cannot be redacted"):
            encode_body(b"\xff" + SECRET.encode(), "", HIDING)

    @given(st.lists(st.integers(min_value=1, max_value=6), min_size=1, max_size=9))
    def test_split_over_events(self, cuts):
        text, pieces = f"so {SECRET} it is", []
        for size in cuts:
            pieces.append(text[:size])
            text = text[size:]
        data = "".join(f"data: {json.dumps({'delta': piece, 'n': n})}\n\n" for n, piece in enumerate([*pieces, text])).encode()
        body = encode_body(data, SSE, HIDING)
        assert "".join(event["delta"] for event in body_events(body)) == "so [redacted] it is"

    def test_split_over_events_in_an_unusual_layout(self):
        data = b'data:{"a": "hunter2-"}\n\ndata:{"a":   "hunter2"}\n\n'
        with pytest.raises(RecordingError, match="holds a secret that is split over stream events in a layout that cannot be redacted"):
            encode_body(data, SSE, HIDING)


def test_streams_that_utf8_cannot_hold_are_stored_as_text():
    data = b'data: {"a":"\\ud800"}\n\ndata: {"a":"hunter2-hunter2"}\n\n'
    assert round_trip(data) == data
    assert encode_body(data, SSE, HIDING) == {"text": 'data: {"a":"\\ud800"}\n\ndata: {"a":"[redacted]"}\n\n'}
