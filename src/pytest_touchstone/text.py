"""Showing untrusted text: nothing in it may act on a terminal, hide, or reorder what stands around it."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

QUOTE_WIDTH = 120

# What acts or hides: C0 (but newline and tab), DEL, C1, soft hyphen, Arabic letter mark, Mongolian vowel separator, zero-width
# characters and marks, line separators, bidi overrides and isolates, invisible operators, byte order mark, interlinear marks,
# lone surrogates, noncharacters, tags and the variation selectors in which text can be smuggled.
_UNSAFE = (
    r"\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    r"\ud800-\udfff\ufffe\uffff\U000e0000-\U000e01ef"
)
_ACTS = re.compile(f"[{_UNSAFE}]")
_ACTS_OR_BREAKS = re.compile(f"[{_UNSAFE}\\n\\t]")


def visible(text: str) -> str:
    r"""The text with every character that acts or hides shown as an escape (`\x1b`, `\u202e`); newlines and tabs stay.

    Safe text comes back unchanged, so doing it twice does no harm. The result can always be encoded as UTF-8.

    >>> print(visible("\x1b[31mred\r"))
    \x1b[31mred\x0d
    """
    return _ACTS.sub(_escape, text)


def shorten(text: str, width: int = QUOTE_WIDTH) -> str:
    r"""One line of at most `width` (>= 1) characters: `visible`, newlines and tabs escaped too, the middle cut out where it is too long.

    >>> shorten("one\ntwo")
    'one\\ntwo'
    >>> shorten("a very long answer that ends in 42", 20)
    'a very long a… in 42'
    """
    # Escapes only lengthen, so `width` characters from each end are enough however long the text is.
    ends = text if len(text) <= 2 * width else text[:width] + text[-width:]
    pieces = [_ACTS_OR_BREAKS.sub(_escape, character) for character in ends] if _ACTS_OR_BREAKS.search(ends) else list(ends)
    if len(ends) == len(text) and sum(map(len, pieces)) <= width:
        return "".join(pieces)
    tail_width = (width - 1) // 3
    return f"{_fill(pieces, width - 1 - tail_width)}…{_fill(pieces[::-1], tail_width, backwards=True)}"


def quote(value: object, width: int = QUOTE_WIDTH) -> str:
    """How a reason shows a value: text in double quotes, anything else as JSON (or by its type), at most `width` + 2 characters.

    >>> quote("18"), quote(18), quote({"a": None})
    ('"18"', '18', '{"a": null}')
    """
    if isinstance(value, str):
        return f'"{shorten(value, width)}"'
    try:
        return shorten(json.dumps(value, ensure_ascii=False), width)
    except (TypeError, ValueError, RecursionError):
        return f"<{type(value).__name__}>"


def counted(count: int, noun: str) -> str:
    """So many of something, in the singular where it is one; for nouns that take an s.

    >>> counted(1, "case"), counted(1200, "case")
    ('1 case', '1,200 cases')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def listed(names: Sequence[str], most: int) -> str:
    """The first `most` (>= 1) names, and how many more there are; the names as they are.

    >>> listed(["a", "b", "c"], 2), listed(["a"], 2)
    ('a, b and 1 more', 'a')
    """
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    if character in "\n\t":
        return {"\n": r"\n", "\t": r"\t"}[character]
    code = ord(character)
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def _fill(pieces: list[str], width: int, *, backwards: bool = False) -> str:
    """As many whole pieces as fit, so that no escape is cut in two."""
    taken: list[str] = []
    for piece in pieces:
        width -= len(piece)
        if width < 0:
            break
        taken.append(piece)
    return "".join(taken[::-1] if backwards else taken)
