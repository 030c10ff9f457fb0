"""Secrets planted wherever a test run meets them are in nothing that the run leaves behind: no file, no report, no output.

Whole runs are tried with secrets of each place at once; the parts that encode and cut are tried with any secret that hypothesis draws.
"""

from __future__ import annotations

import base64
import itertools
import json
import random
from urllib.parse import quote

import anthropic  # noqa: F401 - as openai
import httpcore2  # noqa: F401 - as openai
import openai  # noqa: F401 - kept across the sessions inside this process, which forget what they import themselves
import pytest
from hypothesis import given
from hypothesis import strategies as st
from providers import FakeProvider, Reply

from pytest_touchstone.errors import RecordingError
from pytest_touchstone.recording.body import body_text, encode_body
from pytest_touchstone.recording.key import WireRequest, ask
from pytest_touchstone.recording.redact import Redactor

# What a random secret is made of: characters that JSON, URLs and base64 write in other ways. The letter and the digit tell it from
# plain words and numbers, which are too common to be hidden.
SECRETS = st.text(
    st.characters(min_codepoint=0x21, max_codepoint=0x17F, exclude_categories=["Cc", "Cs", "Zs"]), min_size=12, max_size=40
).map("k3{}".format)


def unicode_escaped(secret):
    return "".join(f"\\u{ord(character):04x}" for character in secret)


ENCODINGS = {
    "raw": lambda secret: secret,
    "json": lambda secret: json.dumps(secret)[1:-1],
    "json in json": lambda secret: json.dumps(json.dumps(secret))[1:-1],
    "base64": lambda secret: base64.b64encode(secret.encode()).decode(),
    "base64 inside": lambda secret: base64.b64encode(b"user:" + secret.encode() + b":x").decode(),
    "base64url": lambda secret: base64.urlsafe_b64encode(secret.encode()).decode().rstrip("="),
    "url": lambda secret: quote(secret, safe=""),
    "codes": unicode_escaped,
    "hex": lambda secret: secret.encode().hex(),
}


def traces(secret):
    """The texts that would give the secret away; of base64, what does not depend on what stands around it."""
    inner = base64.b64encode(secret.encode()).decode().rstrip("=")[: len(secret.encode()) * 8 // 6]
    return {
        secret,
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
        quote(secret, safe=""),
        inner,
        secret.encode().hex(),
        unicode_escaped(secret),
    }


def holds(text, secret):
    return sorted(trace for trace in traces(secret) if trace in text)


class TestRequests:
    @pytest.mark.parametrize("encoding", ENCODINGS)
    @given(secret=SECRETS)
    def test_no_place_of_a_request_keeps_a_secret(self, encoding, secret):
        redactor = Redactor({"SHOP_TOKEN": secret})
        planted = ENCODINGS[encoding](secret)
        body = json.dumps({"messages": [{"role": "user", "content": f"say {planted} twice: {planted}"}], planted: {"deep": [planted]}})
        request = WireRequest(
            method="POST",
            url=f"https://user:{quote(secret, safe='')}@api.example/v1/{quote(planted, safe='')}?q={quote(planted, safe='')}&api_key=abc",
            headers={"content-type": "application/json", "authorization": f"Bearer {secret}", "cookie": f"session={secret}"},
            body=body.encode(),
        )
        stored = json.dumps(ask(request, redactor).stored())
        assert holds(stored, secret) == []

    @given(secret=SECRETS)
    def test_unicode_escapes_hide_nothing(self, secret):
        body = '{"messages": [{"content": "' + unicode_escaped(secret) + '"}]}'
        request = WireRequest(method="POST", url="https://api.example/v1", headers={}, body=body.encode())
        assert holds(json.dumps(ask(request, Redactor({"SHOP_TOKEN": secret})).stored()), secret) == []

    @given(secret=SECRETS)
    def test_what_only_a_header_says_is_secret_is_taken_out_of_the_body(self, secret):
        headers = {"authorization": f"Bearer {secret}"}
        request = WireRequest(method="POST", url="https://api.example/v1", headers=headers, body=json.dumps({"a": secret}).encode())
        assert holds(json.dumps(ask(request, Redactor({})).stored()), secret) == []

    @given(secret=SECRETS)
    def test_forms_and_multipart(self, secret):
        redactor = Redactor({"SHOP_TOKEN": secret})
        form = WireRequest(method="POST", url="https://x/", headers={}, body=f"a=1&key={quote(secret, safe='')}".encode())
        part = f'--b\r\nContent-Disposition: form-data; name="{quote(secret)}"\r\n\r\n{secret}\r\n--b--\r\n'
        upload = WireRequest(
            method="POST", url="https://x/", headers={"content-type": "multipart/form-data; boundary=b"}, body=part.encode()
        )
        for request in (form, upload):
            assert holds(json.dumps(ask(request, redactor).stored()), secret) == []


class TestAnswers:
    @pytest.mark.parametrize("encoding", ENCODINGS)
    @given(secret=SECRETS)
    def test_no_answer_keeps_a_secret(self, encoding, secret):
        redactor = Redactor({"SHOP_TOKEN": secret})
        planted = ENCODINGS[encoding](secret)
        for content_type, text in (
            ("application/json", json.dumps({"choices": [{"message": {"content": planted}}], planted: 1})),
            ("application/json", json.dumps({"choices": [planted]}, ensure_ascii=False, indent=2)),
            ("text/plain", f"the key is {planted}."),
            ("text/event-stream", f"data: {json.dumps({'delta': planted})}\n\ndata: [DONE]\n\n"),
        ):
            stored = json.dumps(encode_body(text.encode(), content_type, redactor), ensure_ascii=False)
            assert holds(stored, secret) == []

    @given(secret=SECRETS, cuts=st.lists(st.integers(1, 200), max_size=8), layout=st.sampled_from([",", ", "]))
    def test_no_stream_keeps_a_secret_wherever_it_is_cut(self, secret, cuts, layout):
        text = f"the key is {secret}, again {secret}"
        borders = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
        pieces = [text[start:end] for start, end in itertools.pairwise(borders)]
        colon = ":" if layout == "," else ": "
        events = "".join(f"data: {json.dumps({'i': 1, 'd': {'c': piece}}, separators=(layout, colon))}\n\n" for piece in pieces)
        try:
            stored = encode_body(events.encode(), "text/event-stream", Redactor({"SHOP_TOKEN": secret}))
        except RecordingError:
            return  # refused, which is as good
        values = [json.loads(line[5:]) for line in body_text(stored).splitlines() if line.startswith("data:")]
        assert holds("".join(value["d"]["c"] for value in values), secret) == []
        assert holds(json.dumps(stored, ensure_ascii=False), secret) == []

    @given(secret=SECRETS.map(lambda secret: secret.encode()), around=st.binary(max_size=20))
    def test_binary_answers_with_a_secret_are_refused(self, secret, around):
        data = b"\xff\xfe" + around + secret + around
        redactor = Redactor({"SHOP_TOKEN": secret.decode()})
        try:
            stored = encode_body(data, "application/octet-stream", redactor)
        except RecordingError:
            return
        assert secret not in base64.b64decode(stored.get("base64", ""))
        assert holds(json.dumps(stored, ensure_ascii=False), secret.decode()) == []

    def test_credentials_that_an_answer_hands_out_are_not_kept(self):
        answer = {
            "access_token": "planted-handed-out-1",
            "refresh_token": "planted-handed-out-2",
            "id_token": "planted-handed-out-3",
            "expires_in": 3599,
        }
        stored = encode_body(json.dumps(answer).encode(), "application/json", Redactor({}))
        assert stored["json"] == {"access_token": "[redacted]", "refresh_token": "[redacted]", "id_token": "[redacted]", "expires_in": 3599}


# Whole runs. Each secret stands in one place, so that a leak tells where it comes from.
PLACES = (
    "environment", "authorization", "cookie", "api-key-header", "query", "userinfo", "body", "nested", "escaped", "base64", "answer",
    "stream", "set-cookie", "answer-header", "error-body", "exception", "assertion", "printed", "logged", "judge",
)  # fmt: skip


def planted(place):
    """A secret of this place: an environment variable of the run, which is how the plugin knows it, unless a header says so too."""
    return f"planted/{place}-{random.Random(place).getrandbits(64):x}+="


APP = r"""
import base64
import itertools
import json
import logging
import os

import openai

SECRET = {place: os.environ[f"PLANTED_{place.upper().replace('-', '_')}_TOKEN"] for place in os.environ["PLACES"].split()}
URL = os.environ["OPENAI_BASE_URL"].replace("http://", f"http://user:{SECRET['userinfo'].replace('/', '%2F')}@")
client = openai.OpenAI(
    api_key=SECRET["authorization"],
    base_url=URL,
    max_retries=0,
    default_headers={"cookie": f"session={SECRET['cookie']}", "x-api-key": SECRET["api-key-header"]},
    default_query={"token": SECRET["query"], "q": SECRET["query"]},
)


def answer(text, **kwargs):
    escaped = "".join(f"\\\\u{ord(character):04x}" for character in SECRET["escaped"])
    content = [text, SECRET["body"], json.dumps({"a": SECRET["nested"]}), escaped, base64.b64encode(SECRET["base64"].encode()).decode()]
    messages = [{"role": "user", "content": " ".join(content)}]
    reply = client.chat.completions.create(model="gpt-test", messages=messages, **kwargs)
    if "stream" in kwargs:
        return "".join(chunk.choices[0].delta.content or "" for chunk in reply)
    return reply.choices[0].message.content
"""

TEST = """
import logging

import pytest
from app import SECRET, answer


@pytest.mark.golden("cases.yaml")
def test_app(case, judge):
    print("printed", SECRET["printed"])
    logging.getLogger("app").warning("logged %s", SECRET["logged"])
    if case.id == "stream":
        case.output = answer(case.input, stream=True)
        case.check(judge("Polite."))
    else:
        case.output = answer(case.input)
    if case.id == "exception":
        raise ValueError(f"cannot {SECRET['exception']}")
    assert case.output == SECRET["assertion"]
"""

CASES = """
cases:
  - {id: plain, input: one, expected: fine, split: train}
  - {id: stream, input: two, expected: fine, split: train}
  - {id: exception, input: three, expected: fine, split: train}
  - {id: error, input: four, expected: fine, split: train}
"""


def replies(seen):
    text = seen.body.decode()
    if "Polite." in text:
        return Reply(text=json.dumps({"reason": f"as {planted('judge')} says", "verdict": "fail"}))
    headers = {"set-cookie": f"session={planted('set-cookie')}", "x-request-id": planted("answer-header")}
    if "four" in text:
        return Reply(status=400, error=f"no {planted('error-body')}", headers=headers)
    if seen.json.get("stream"):
        return Reply(text=f"the key {planted('stream')} goes on", chunk=11)
    return Reply(text=f"the key is {planted('answer')}", headers=headers)


@pytest.fixture
def run(pytester, runner, monkeypatch):
    """Run the suite, and look for every secret in all that there is afterwards."""
    for name, text in {"app.py": APP, "cases.yaml": CASES}.items():
        (pytester.path / name).write_text(text, encoding="utf-8")
    pytester.makepyfile(test_suite=TEST)
    pytester.syspathinsert()
    monkeypatch.setenv("PLACES", " ".join(PLACES))
    for place in PLACES:
        monkeypatch.setenv(f"PLANTED_{place.upper().replace('-', '_')}_TOKEN", planted(place))

    def run_and_look(*arguments):
        result = runner.run("--llm-eval", "--llm-judge", "openai:judge", "--junitxml=out.xml", "--llm-export=training", *arguments)
        outcomes = result.parseoutcomes()
        assert outcomes.get("failed", 0) + outcomes["errors"] == 4
        look(pytester.path, result.stdout.str() + result.stderr.str())
        return result

    with FakeProvider(replies) as provider:
        monkeypatch.setenv("OPENAI_BASE_URL", provider.openai_url)
        monkeypatch.setenv("OPENAI_API_KEY", planted("environment"))
        yield run_and_look, provider


def look(root, output):
    texts = {"the output": output}
    for path in root.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts and path.name != "app.py":
            texts[str(path)] = path.read_text(encoding="utf-8", errors="replace")  # the run store is no text, but what it holds is
    assert any(name.endswith("runs.db") for name in texts)
    found = [(place, name) for place in PLACES for name, text in texts.items() if holds(text, planted(place))]
    assert found == []


@pytest.mark.parametrize("verbosity", [(), ("-vv", "--showlocals", "-rA")], ids=["default", "verbose"])
def test_no_secret_survives_a_run(run, verbosity):
    go, provider = run
    go(*verbosity)
    provider.stop()
    go("--llm-record", "none", *verbosity)


def test_no_secret_survives_a_miss(run, pytester):
    go, _ = run
    go()
    (pytester.path / "cases.yaml").write_text(CASES.replace("one", "another one"), encoding="utf-8")
    result = go("--llm-record", "none")
    result.stdout.fnmatch_lines(["*the nearest recording is of*"])
