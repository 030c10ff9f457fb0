"""Near copies: what a copy may differ in and still be one, and which texts that look alike are none."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_touchstone.export.leak import normal_text
from pytest_touchstone.export.near import Match, Said, near_copies, words_of

HELD = "The parcel from Bergen never arrived although I paid for express delivery, so who pays me back?"
OTHERS = (
    "How do I change the address of an order that has not been sent yet?",
    "The kettle leaks at the bottom since last week, and I want a new one.",
    "Do you sell gift cards, and may I pay with two of them at once?",
    "Somebody ordered a sofa in my name, please stop it at once.",
    "Why was my card charged twice for the same lamp in March?",
)


def said(*texts, suite="s"):
    return Said(suite=suite, texts=tuple(map(normal_text, texts)))


def similarity(one, two, *, others=OTHERS):
    """How near two texts are among others, 0 where nothing at all is shared."""
    train = [said(one), *map(said, others)]
    found = [match.similarity for match in near_copies(train, [said(two)], threshold=0.01) if match.train == 0]
    return found[0] if found else 0.0


@pytest.mark.parametrize(
    "copy",
    [
        pytest.param(HELD.upper(), id="case"),
        pytest.param(HELD.replace(",", "").replace("?", " !!"), id="punctuation"),
        pytest.param(HELD.replace("express", "fast"), id="one word"),
        pytest.param(HELD.replace("parcel", "package"), id="a synonym"),
        pytest.param(HELD.replace("arrived", "arived").replace("delivery", "delievery"), id="typos"),
        pytest.param(f"Hello there, dear team! {HELD} Thank you so much in advance, and have a very nice day.", id="politeness"),
        pytest.param("So who pays me back? The parcel from Bergen never arrived although I paid for express delivery.", id="order"),
        pytest.param(HELD.replace("The parcel", "Our parcels"), id="inflection"),
        pytest.param(f"Answer this ticket like the ones before.\n<ticket>{HELD.replace('never', 'has not')}</ticket>\nBe brief. " * 3, id="template"),
    ],
)  # fmt: skip
def test_a_near_copy_is_one(copy):
    assert similarity(copy, HELD) >= 0.8
    assert similarity(HELD, copy) >= 0.8


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("What is the capital of France?", "What is the capital of Spain?"),
        ("The parcel from Bergen never arrived.", "The parcel to Bergen was sent back by the customs office."),
        ("What is 17 + 25?", "What is 81 + 3?"),
        ("Question 1", "Question 2"),
        ("Hello", "Hello, where is the lamp that I ordered in May?"),
        ("", ""),
        ("?!", "!?"),
    ],
)
def test_another_input_is_none(one, two):
    capitals = [f"What is the capital of {name}?" for name in ("Norway", "Italy", "Peru", "Chad")]
    assert similarity(one, two, others=(*OTHERS, *capitals, "What is 3 + 4?", "What is 99 + 1?", "Question 3")) < 0.8


def test_what_a_suite_shares_is_stripped_however_long_it_is():
    template = (
        "You are given the mail of a customer. Read it with care, decide what it is about and answer in one friendly sentence. Mail: {}"
    )
    train = [said(template.format(text)) for text in OTHERS[1:]]
    held = [said(template.format(OTHERS[0]))]
    assert near_copies(train, held) == []
    copy = said(template.format(OTHERS[0].replace("address", "adress").replace("sent", "shipped")))
    assert [match.train for match in near_copies([*train, copy], held)] == [len(train)]


def test_a_template_of_one_suite_counts_as_one_beside_many_other_suites():
    template = "Sort the following review of a product of ours into good, bad or neutral and give no reason for your choice: {}"
    one = [said(template.format(text), suite="reviews") for text in ("It is blue", "It broke", "I love it", "Never again")]
    many = [said(f"{text} {word}", suite=f"suite {index}") for index, text in enumerate(OTHERS) for word in ("please", "now", "or else")]
    assert near_copies([*one[1:], *many], [one[0]]) == []


def test_numbers_are_half_alike():
    text = "Order {} was to come on {} but the driver left it in the rain in front of the neighbour's door."
    assert 0.8 <= similarity(text.format(4711, 12), text.format(98, 7)) < 1


def test_the_nearest_text_of_an_example_is_told_once():
    train = [said("Nothing of the sort is said here.", HELD.replace("express", "fast"), HELD)]
    [match] = near_copies(train, [said(HELD), said("Where are you?")])
    assert (match.train, match.text, match.holdout) == (0, 2, 0)
    assert match.similarity == pytest.approx(1)


def test_every_place_of_a_text_counts():
    found = near_copies([said(HELD), said("Hi."), said("x", HELD)], [said(HELD, suite="other"), said(HELD)])
    assert [(match.train, match.text, match.holdout) for match in found] == [(0, 0, 0), (0, 0, 1), (2, 1, 0), (2, 1, 1)]


def test_short_texts_count_as_a_whole_only():
    assert similarity("Where is it? I have been waiting for the lamp and the table for weeks.", "Where is it?") < 0.8


def test_scripts_without_spaces_are_compared_by_pairs_of_characters():
    held = "東京から送った荷物がまだ届いていません。送料は誰が払いますか。"
    assert similarity(held.replace("東京", "大阪"), held) >= 0.8
    assert similarity("返品したい商品の色が違いました。交換できますか。", held) < 0.5
    assert words_of("ok 東 ไทย") == ["ok", "東", "ไท", "ทย"]


def test_nothing_to_compare():
    assert near_copies([], [said(HELD)]) == near_copies([said(HELD)], []) == near_copies([said()], [said(HELD)]) == []


@settings(max_examples=60)
@given(st.lists(st.text("abc 1.é", max_size=40), max_size=6), st.lists(st.text("abc 1.é", max_size=40), max_size=4), st.randoms())
def test_similarities_are_numbers_from_0_to_1_and_do_not_depend_on_order(taught, held, random):
    train, holdout = [said(text) for text in taught], [said(text) for text in held]
    found = near_copies(train, holdout, threshold=0.3)
    assert all(isinstance(match, Match) and 0.3 <= match.similarity <= 1 for match in found)
    order = list(range(len(train)))
    random.shuffle(order)
    again = near_copies([train[index] for index in order], holdout, threshold=0.3)
    assert {(order[match.train], match.holdout, match.similarity) for match in again} == {
        (match.train, match.holdout, match.similarity) for match in found
    }
    for one, text in enumerate(taught):
        for two, other in enumerate(held):
            if sorted(words_of(normal_text(text))) == sorted(words_of(normal_text(other))) != []:
                assert (one, two) in {(match.train, match.holdout) for match in found if match.similarity > 0.999}
