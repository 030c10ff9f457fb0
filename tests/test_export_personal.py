"""Personal data: what has its form is found, and what only looks like it is not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_touchstone.export.personal import KINDS, personal_data


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("email", "write to ann.o'neil+x@mail.example.co.uk, please"),
        ("email", "<jörg@müller.de>"),
        ("phone", "call +49 30 901820 today"),
        ("phone", "(030) 90 18 20"),
        ("phone", "00 44 20 7946 0958".replace("00 44", "0044")),
        ("phone", "call 555-867-5309"),
        ("phone", "call (555) 867-5309"),
        ("iban", "DE89 3704 0044 0532 0130 00"),
        ("iban", "to GB82WEST12345698765432 by May"),
        ("iban", "NO93 8601 1117 947 OR ELSE"),
        ("iban", "MT84 MALT 0110 0001 2345 MTLC AST0 01S"),
        ("card", "4111 1111 1111 1111"),
        ("card", "378282246310005"),
        ("ip", "from 203.0.113.7."),
        ("ip", "2001:db8::8a2e:370:7334"),
    ],
)
def test_is_found(kind, text):
    assert kind in personal_data(text)


@pytest.mark.parametrize(
    "text",
    [
        "", "a@b", "@handle", "order 4711 of 2026-11-29", "19.99 EUR, 1,234,567 items", "version 1.2.3", "at 12:30:45", "127.0.0.1 and ::1",
        "4111 1111 1111 1112", "DE88 3704 0044 0532 0130 00", "parcel JD014600003828392811", "0000 0000 0000 0000", "999.999.999.999", "ratio 3:4", "invoice 20261129123456",
    ],
)  # fmt: skip
def test_is_not_found(text):
    assert personal_data(text) == ()


@given(st.text())
def test_takes_any_text(text):
    assert set(personal_data(text)) <= set(KINDS)
