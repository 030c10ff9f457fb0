"""Personal data: who looks for it, and which kinds of it a text holds by rules. Rules find what has a form; names and places have none."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

KINDS: Final = ("email", "phone", "iban", "card", "ip")
MAX_TEXT: Final = 1_000_000  # characters of one text that are looked at

_EMAIL: Final = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.){1,8}[^\W\d_]{2,24}(?![\w-])")
# International, or with a group of digits in parentheses or after a leading 0: other rows of digits are orders and amounts.
_PHONE: Final = re.compile(
    r"(?<![\w+.,-])(?<!\d )(?:\+|00)[1-9]\d{0,2}(?:[ ./-]?\(?\d{1,5}\)?){2,6}(?!\w)"
    r"|(?<![\w+.,-])(?<!\d )\(?0\d{1,5}\)?[ /-]\d[\d -]{4,12}\d(?!\w)"
)
_NORTH_AMERICAN: Final = re.compile(r"(?<![\w+.,-])(?:\([2-9]\d{2}\) ?|[2-9]\d{2}[.-])[2-9]\d{2}[.-]\d{4}(?![\w-])")
_IBAN: Final = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?![A-Za-z0-9])")
# Characters of an IBAN by country: SWIFT's IBAN Registry.
_IBAN_LENGTHS: Final = {
    country: int(length)
    for country, length in re.findall(
        r"([A-Z]{2})(\d{2})",
        "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 DK18 DO28 EE20 EG29 "
        "ES24 FI18 FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HN28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 "
        "LB28 LC32 LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MN20 MR27 MT31 MU30 NI28 NL18 NO15 OM23 PK24 PL28 PS29 "
        "PT25 QA29 RO24 RS22 RU33 SA24 SC31 SD18 SE24 SI19 SK24 SM27 SO23 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20 "
        "YE30",
    )
}
_CARD: Final = re.compile(r"(?<![\d.,-])(?:\d[ -]?){12,18}\d(?![\d-])")
_IP: Final = re.compile(r"(?<![\w.:])(?:\d{1,3}(?:\.\d{1,3}){3}|[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7})(?![\w:]|\.\d)")


@dataclass(frozen=True, kw_only=True)
class PersonalFinder:
    """Who looks for personal data.

    `find` says which of `kinds` a text holds; these are all that it looks for. `unknown` are kinds that it cannot look for, and why: nobody
    knows whether they are there. `by` names it, with versions. `fault` says why another one that was asked for is not used.
    """

    find: Callable[[str], tuple[str, ...]]
    kinds: tuple[str, ...]
    by: str
    unknown: Mapping[str, str] = field(default_factory=dict[str, str])
    fault: str = ""


def personal_data(text: str) -> tuple[str, ...]:
    """Which of `KINDS` the text holds: an IBAN and a card with right check digits, an IP address that is one beyond loopback.

    >>> personal_data("Write to ann@example.org or call +49 30 901820."), personal_data("Order 4711, 19.99 EUR")
    (('email', 'phone'), ())
    """
    text = text[:MAX_TEXT]
    return tuple(kind for kind in KINDS if _FINDERS[kind](text))


def _is_phone(text: str) -> bool:
    return any(7 <= sum(map(str.isdigit, found[0])) <= 15 for found in _PHONE.finditer(text)) or bool(_NORTH_AMERICAN.search(text))


def _is_iban(text: str) -> bool:
    """ISO 13616: as long as its country has them, and the number that the characters make leaves 1, divided by 97."""
    for found in _IBAN.finditer(text):
        plain = found[0].replace(" ", "")
        length = _IBAN_LENGTHS.get(plain[:2])
        if length is None or length > len(plain):
            continue
        number = plain[4:length] + plain[:4]  # what follows in capitals may have been taken for a part of it
        if int("".join(str(int(character, 36)) for character in number)) % 97 == 1:
            return True
    return False


def _is_card(text: str) -> bool:
    return any(_luhn([int(digit) for digit in found[0] if digit.isdigit()]) for found in _CARD.finditer(text))


def _luhn(digits: list[int]) -> bool:
    """ISO/IEC 7812-1: every second digit from the right doubled, the sum of all digits is a multiple of 10."""
    doubled = (sum(divmod(2 * digit, 10)) for digit in digits[-2::-2])
    return any(digits) and (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def _is_ip(text: str) -> bool:
    return any(_is_address(found[0]) for found in _IP.finditer(text))


def _is_address(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return not (address.is_loopback or address.is_unspecified)


_FINDERS: Final[dict[str, Callable[[str], bool]]] = {
    "email": lambda text: "@" in text and _EMAIL.search(text) is not None,
    "phone": _is_phone,
    "iban": _is_iban,
    "card": _is_card,
    "ip": _is_ip,
}

_NO_FORM: Final = "has no form that rules could know; --llm-personal-data presidio:MODEL looks for it"
RULES: Final = PersonalFinder(find=personal_data, kinds=KINDS, by="rules", unknown={"person": _NO_FORM, "location": _NO_FORM})
