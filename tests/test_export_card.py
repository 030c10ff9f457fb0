"""The dataset card: what it says, and that nothing of a case acts in it."""

from __future__ import annotations

import pytest
import yaml
from export_samples import assistant, example, offer, unseen, user
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from pytest_touchstone.errors import ExportError
from pytest_touchstone.export.card import MARK, card, code, code_less
from pytest_touchstone.export.quality import Lengths, assess
from pytest_touchstone.export.write import write_export

MARKDOWN = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])


def made(folder, *offers, **options):
    write_export(folder, offers=offers, held_out=unseen("f"), run=options.pop("run", {}), **options)
    return (folder / "README.md").read_text(encoding="utf-8")


def front_matter(text):
    _, head, body = text.split("---\n", 2)
    return yaml.safe_load(head), body


def test_says_what_the_hub_reads_and_people_want_to_know(tmp_path):
    text = made(
        tmp_path, offer(example()), offer(case_id="b", reason="error: the app broke"), license_="CC-BY-4.0",
        run={"commit": "abc123", "judge": None, "models": ["openai:gpt-test"]},
    )  # fmt: skip
    head, body = front_matter(text)
    assert head == {
        "license": "cc-by-4.0",
        "task_categories": ["text-generation"],
        "size_categories": ["n<1K"],
        "tags": ["pytest-touchstone"],
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "train.jsonl"}]}],
    }
    assert MARK in body
    for line in (
        "1 examples of prompt and completion, one JSON object a line, from 2 trials of golden cases.",
        "Licence: `CC-BY-4.0`.",
        "- `commit`: `abc123`",
        "- `judge`: unknown",
        "- `models`: `openai:gpt-test`",
        "- Kinds: `fix` 1",
        "- 1 trial: `error`",
        "- Each example was compared with 1 inputs of holdout cases: one that says the same was left out, and one that is 80 % like it or more would have refused the export.",
        "- Tokens: unknown (`no tokenizer was given`)",
        "- Targets that look cut off: 0",
        "- Personal data was looked for by `rules`: `email`, `phone`, `iban`, `card`, `ip`",
        "- Personal data of other kinds, `person`, `location`: unknown (`has no form that rules could know; --llm-personal-data presidio:MODEL looks for it`)",
    ):
        assert line in body.splitlines()


def test_without_licence_and_without_examples(tmp_path):
    head, body = front_matter(made(tmp_path, offer(case_id="b", reason="not run")))
    assert head["license"] == "unknown"
    assert "configs" not in head
    assert "Licence: unknown, since nobody has said it." in body
    assert "- No training file: no trial offered an example." in body


def test_a_licence_in_words(tmp_path):
    head, body = front_matter(made(tmp_path, offer(example()), license_="Ours: <b>all</b> of it\n---"))
    assert (head["license"], head["license_name"]) == ("other", r"Ours: <b>all</b> of it\n---")
    assert "Licence: `Ours: <b>all</b> of it\\n---`." in body


@pytest.mark.parametrize(
    ("count", "size"), [(999, "n<1K"), (1_000, "1K<n<10K"), (99_999, "10K<n<100K"), (100_000, "100K<n<1M"), (1_000_000, "n>1M")]
)
def test_sizes_are_those_of_the_hub(tmp_path, count, size):
    from pytest_touchstone.export.write import Manifest

    fields = dict.fromkeys(Manifest.__dataclass_fields__, 0) | {
        name: {} for name in ("by_kind", "by_suite", "by_tag", "by_source", "by_target_source", "left_out_by_reason", "formats", "run")
    }
    text = card({**fields, "written": count, "train_file": None, "plugin_version": "1", "holdout_taught": [1]}, assess([]))
    assert front_matter(text)[0]["size_categories"] == [size]
    assert "- 1 inputs of earlier exports are holdout by now" in text


def test_tokens_are_shown(tmp_path):
    text = made(tmp_path, offer(example()), count_tokens=lambda _: (7, 1_009))
    assert (
        "- Tokens: prompt 7 to 7, median 7, 95 % up to 7; completion 1,002 to 1,002, median 1,002, 95 % up to 1,002; example 1,009 to 1,009"
        in text
    )
    assert Lengths.of([7]).p95 == 7


def inline(text):
    [_, token, *_] = MARKDOWN.parse(text)
    return token.children


@pytest.mark.parametrize(
    "text", ["`", "``", " ` ", "a`", "`a", " a ", "<b>", "[a](b)", "x\n# y", "\x1b[31m", "a | b", "![x](javascript:1)", "a\\", "---"]
)
def test_code_shows_the_text_and_nothing_of_it_acts(text):
    [shown] = inline(code(text))
    assert shown.type == "code_inline"


@given(st.text())
def test_code_never_acts(text):
    tokens = MARKDOWN.parse(f"- {code(text)}: 1")
    children = next(token for token in tokens if token.type == "inline").children
    assert [child.type for child in children] in (["code_inline", "text"], ["text"])
    assert {token.type for token in tokens} == {
        "bullet_list_open", "list_item_open", "paragraph_open", "inline", "paragraph_close", "list_item_close", "bullet_list_close",
    }  # fmt: skip


@given(st.text())
def test_advice_that_quotes_a_tag_never_acts(text):
    tokens = MARKDOWN.parse(f"- Advice: {code_less(text)}")
    children = next(token for token in tokens if token.type == "inline").children
    assert {child.type for child in children} <= {"text", "text_special"}


HOSTILE = st.sampled_from(
    [
        "<script>alert(1)</script>",
        "[x](javascript:1)",
        "# big",
        "```",
        "`a``b",
        "---\nlicense: mit",
        "| a |\n|---|",
        "<!-- x",
        "{{x}}",
        "a\n\n- b",
        "https://evil.example",
    ]
) | st.text(min_size=1).filter(str.strip)


@given(name=HOSTILE, tag=HOSTILE, reason=HOSTILE, run=HOSTILE, licence=HOSTILE)
def test_nothing_of_a_case_acts_in_a_card(tmp_path_factory, name, tag, reason, run, licence):
    folder = tmp_path_factory.mktemp("card")
    hostile = example(
        case_id=name, suite=f"s {name}", source=f"{name}:3", tags=(tag,), prompt=(user(name),), completion=(assistant(f"a {reason}"),)
    )
    try:
        hostile_offer = offer(hostile, nodeid="n")
        text = made(folder, hostile_offer, offer(case_id="b", reason=reason), run={run: [run, None]}, license_=licence)
    except ExportError as error:
        assert "surrogate" in str(error) or "empty" in str(error)  # what no example may hold
        return
    head, body = front_matter(text)
    assert set(head) <= {"license", "license_name", "task_categories", "size_categories", "tags", "configs"}
    tokens = MARKDOWN.parse(body)
    assert {token.type for token in tokens if token.type.startswith(("html", "table", "fence", "code_block", "blockquote", "hr"))} == {
        "html_block"
    }
    assert [token.content.strip() for token in tokens if token.type == "html_block"] == [MARK]
    titles = [tokens[at + 1].content for at, token in enumerate(tokens) if token.type == "heading_open"]
    assert titles == [
        "Training data from golden cases",
        "How it was made",
        "What it holds",
        "What is left out",
        "Splits and guard",
        "Quality",
        "Files",
    ]
    kinds = {child.type for token in tokens if token.type == "inline" for child in token.children}
    assert kinds <= {"text", "text_special", "code_inline", "em_open", "em_close", "softbreak"}
