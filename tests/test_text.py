from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_touchstone.text import quote, shorten, visible

any_text = st.text(st.characters(exclude_categories=()), max_size=60) | st.text("\x1b\r\n\t\u202e\u200b\ud800\x85ab\\", max_size=60)


@pytest.mark.parametrize(
    ("hidden", "shown"),
    [
        ("\x1b[31m", r"\x1b[31m"),
        ("a\r\n", "a\\x0d\n"),
        ("\x00\x7f\x9b", r"\x00\x7f\x9b"),
        ("\u202eevil\u202c\u2066\u2069", r"\u202eevil\u202c\u2066\u2069"),
        ("a\u200bb\ufeff\u00ad", r"a\u200bb\ufeff\xad"),
        ("\u2028\x0b\x0c\x85", r"\u2028\x0b\x0c\x85"),
        ("\ud83d", r"\ud83d"),
        ("\U000e0041", r"\U000e0041"),
    ],
)
def test_what_acts_or_hides_is_shown(hidden, shown):
    assert visible(hidden) == shown


@pytest.mark.parametrize("safe", ["plain", "tab\tand\nnewline", "Zürich 東京 😀 א", r"a literal \x1b", ""])
def test_safe_text_stays(safe):
    assert visible(safe) == safe


@given(any_text)
def test_visible_never_acts_and_is_idempotent(text):
    shown = visible(text)
    assert visible(shown) == shown
    assert not any((ord(c) < 0x20 and c not in "\n\t") or 0x7F <= ord(c) <= 0x9F for c in shown)
    assert not set(shown) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200b")
    shown.encode("utf-8")


@given(any_text, st.integers(1, 80))
def test_shorten_is_one_line_within_the_width(text, width):
    short = shorten(text, width)
    assert len(short) <= width
    assert "\n" not in short
    assert "\t" not in short
    assert visible(short) == short


def test_shorten_keeps_both_ends_and_cuts_no_escape():
    assert shorten("a" * 200 + "42", 10) == "aaaaaa…a42"
    assert shorten("\x1b" * 9, 10) == r"\x1b…"
    assert shorten("one\ttwo\n", 20) == r"one\ttwo\n"
    assert shorten("x" * 20, 20) == "x" * 20


def test_quote_shows_what_kind_of_value_it_is():
    assert [quote("18"), quote(18), quote(None), quote([1, "é"])] == ['"18"', "18", "null", '[1, "é"]']
    assert quote(object()) == "<object>"
    nested: list = []
    nested.append(nested)
    assert quote(nested) == "<list>"
    assert len(quote("x" * 500)) == 122
