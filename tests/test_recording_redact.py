from __future__ import annotations

import base64
import json
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_touchstone.recording.redact import PLACEHOLDER_KEY, REDACTED, Redactor, is_secret_name

# Secrets as people choose them: any printable text, quotes, slashes and other scripts included.
secrets = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Zl", "Zp", "Zs")), min_size=8, max_size=40).filter(
    lambda text: text not in REDACTED and not text.isdigit()
)
ordinary = st.text(st.sampled_from("abc XYZ.,-\n"), max_size=60)


def forms(secret):
    raw = secret.encode()
    return {
        "plain": secret,
        "JSON": json.dumps(secret)[1:-1],
        "JSON in Unicode": json.dumps(secret, ensure_ascii=False)[1:-1],
        "JSON in JSON": json.dumps(json.dumps({"key": secret})),
        "URL": quote(secret, safe=""),
        "form": quote_plus(secret),
        "hexadecimal": raw.hex(),
        "base64": base64.b64encode(raw).decode(),
        "base64 with a prefix": base64.b64encode(b"user:" + raw + b"!").decode(),
        "base64 for URLs": base64.urlsafe_b64encode(b"u:" + raw).decode(),
    }


class TestForms:
    @given(secrets, ordinary, ordinary)
    def test_no_form_of_a_secret_survives(self, secret, before, after):
        redactor = Redactor({"SHOP_TOKEN": secret})
        for name, form in forms(secret).items():
            text = redactor.redact(f"{before} {form} {after}")
            assert not redactor.leaks(text), name
            assert form not in text, name
            assert REDACTED in text, name

    @given(secrets, st.lists(st.integers(min_value=1, max_value=9), max_size=12), ordinary, ordinary)
    def test_nor_one_that_is_split_over_pieces(self, secret, cuts, before, after):
        redactor = Redactor({"SHOP_TOKEN": secret})
        text, pieces = f"{before}{secret}{after}", []
        for size in cuts:
            pieces.append(text[:size])
            text = text[size:]
        pieces.append(text)
        cleaned = redactor.redact_pieces(pieces)
        assert len(cleaned) == len(pieces)
        assert "".join(cleaned) == redactor.redact("".join(pieces))
        assert not redactor.leaks("".join(cleaned))

    @given(secrets.filter(lambda secret: "." not in secret), ordinary.filter(lambda text: "." not in text), st.data())
    def test_nor_what_shortening_leaves_of_one(self, secret, around, data):
        redactor = Redactor({"SHOP_TOKEN": secret})
        rest = data.draw(st.integers(min_value=6, max_value=len(secret) - 1))
        assert redactor.redact_shown(f"{around} {secret[:rest]}... {around}") == f"{around} {REDACTED}... {around}"
        assert redactor.redact_shown(f"{around} ...{secret[-rest:]} {around}") == f"{around} ...{REDACTED} {around}"
        assert redactor.redact_shown(f"{secret[:rest]}...{around}...{secret[-rest:]}") == f"{REDACTED}...{around}...{REDACTED}"

    def test_shortened_texts_keep_what_is_no_secret(self):
        redactor = Redactor({"SHOP_TOKEN": "hunter22hunter22"})
        for text in ("", "no dots", "hunte... and ...ter22", "...", "hunter22 and so on...", "......"):
            assert redactor.redact_shown(text) == text

    def test_pieces_without_secrets_are_left_alone(self):
        pieces = ["a", "b"]
        assert Redactor({"SHOP_TOKEN": "hunter22hunter"}).redact_pieces(pieces) is pieces

    def test_variables_of_other_names_are_no_secrets(self):
        assert Redactor({"HOME": "/home/somebody", "SHOP_TOKEN": "hunter22hunter"}).redact("/home/somebody") == "/home/somebody"

    @given(ordinary)
    def test_ordinary_text_is_left_alone(self, text):
        assert Redactor({"SHOP_TOKEN": "hunter22hunter"}).redact(text) == text

    def test_every_occurrence_is_found_and_touching_ones_become_one(self):
        redactor = Redactor({"A_KEY": "hunter22", "B_KEY": "swordfish"})
        assert redactor.redact("hunter22swordfish and hunter22") == "[redacted] and [redacted]"

    def test_json_values_keep_their_shape(self):
        redactor = Redactor({"A_KEY": "hunter22", "B_TOKEN": "1234567890123456"})
        value = {"hunter22": ["x hunter22", 1, 1234567890123456, 1.5, True, None]}
        assert redactor.redact_json(value) == {REDACTED: ["x [redacted]", 1, REDACTED, 1.5, True, None]}

    def test_the_lines_of_a_private_key_are_secrets_each(self):
        key = "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0\nx\n-----END KEY-----"
        assert Redactor({"SIGNING_KEY": key}).redact("MIIEvQIBADANBgkqhkiG9w0 x") == "[redacted] x"


class TestWhatIsSecret:
    @pytest.mark.parametrize(
        "name",
        [
            "OPENAI_API_KEY",
            "AWS_SECRET_ACCESS_KEY",
            "PGPASSWORD",
            "GITHUB_TOKEN",
            "GOOGLE_APPLICATION_CREDENTIALS",
            "x-api-key",
            "Cookie",
            "sig",
        ],
    )
    def test_names(self, name):
        assert is_secret_name(name)

    @pytest.mark.parametrize("name", ["HOME", "TOKENIZERS_PARALLELISM", "KEYBOARD", "Idempotency-Key", "Sec-WebSocket-Key", "design"])
    def test_other_names(self, name):
        assert not is_secret_name(name)

    @pytest.mark.parametrize("value", ["short", "12345678", "redacted", PLACEHOLDER_KEY, ""])
    def test_values_too_common_to_hide(self, value):
        redactor = Redactor({"SHOP_TOKEN": value})
        assert redactor.redact(f"a {value} b") == f"a {value} b"

    @pytest.mark.parametrize(
        "text",
        [
            "sk-abcdefghijklmnop1234",
            "sk-ant-api03-abcdefgh_ijkl-mnop",
            "AIzaSyA1234567890abcdefghijklmnopqrstuv",
            "ghp_abcdefghijklmnopqrstuvwxyz0123456789",
            "github_pat_11ABCDEFG0abcdefghijkl",
            "glpat-abcdefghijklmnop1234",
            "xoxb-1234567890-abcdef",
            "xoxb-123456789a",  # the shortest
            "AKIAIOSFODNN7EXAMPLE",
            "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.SflKxwRJSMeKKF2QT4",
            "Bearer abcdefghijklmnop",
            "bearer%20abcdefghijklmnop",
            "hf_abcdefghijklmnopqrstuv",
            "-----BEGIN RSA PRIVATE KEY-----\\nMIIEvQIBADANBgkqhkiG9w0",
        ],
    )
    def test_known_patterns(self, text):
        assert Redactor().redact(f"it is {text}.").startswith("it is [redacted]")

    @pytest.mark.parametrize(
        "text", ["ask-me-anything-about-it", "task-sk-12", "sk-SK", "the bearer of this", "eyJ.a.b", "AKIA is a prefix"]
    )
    def test_ordinary_words(self, text):
        assert Redactor().redact(text) == text


class TestHeaders:
    @pytest.mark.parametrize(
        ("name", "value", "secret"),
        [
            ("authorization", "Bearer tok-12345-abcdef", "tok-12345-abcdef"),
            ("authorization", "Basic " + base64.b64encode(b"me:pass word 1!").decode(), "pass word 1!"),
            ("x-api-key", "local-key-0123456789", "local-key-0123456789"),
            ("cookie", 'theme=dark; session="s3ss10n-abcdefgh"', "s3ss10n-abcdefgh"),
        ],
    )
    def test_credentials_are_learnt(self, name, value, secret):
        redactor = Redactor()
        redactor.learn_headers({name: value})
        redactor.learn_headers({name: value})
        assert redactor.redact(f"<{secret}>") == "<[redacted]>"

    @pytest.mark.parametrize("value", ["anything", "not-needed", "Basic !!!", "Basic /w=="])
    def test_what_local_servers_are_given_is_no_secret(self, value):
        redactor = Redactor()
        redactor.learn_headers({"authorization": value, "x-api-key": value, "accept": "hunter22hunter22"})
        assert redactor.redact("anything not-needed hunter22hunter22") == "anything not-needed hunter22hunter22"

    def test_only_the_latest_of_ever_new_ones_are_kept(self):
        redactor = Redactor({"SHOP_TOKEN": "hunter22hunter22"})
        for number in range(200):
            redactor.learn_headers({"authorization": f"signature-{number:010}"})
        assert not redactor.leaks("signature-0000000000")
        assert redactor.leaks("signature-0000000199")
        assert redactor.leaks("signature-0000000140")
        assert redactor.leaks("hunter22hunter22")
