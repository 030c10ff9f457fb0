"""Runs what the documentation and the docstrings show; CONTRIBUTING.md says how a page is written so that it can be run."""

from __future__ import annotations

import contextlib
import doctest
import importlib
import io
import pkgutil
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from providers import FakeProvider, Reply

import pytest_touchstone
from pytest_touchstone import cli

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *(path for path in (ROOT / "docs").rglob("*.md") if "_build" not in path.parts)])
MODULES = [module.name for module in pkgutil.walk_packages(pytest_touchstone.__path__, "pytest_touchstone.")]
FILE_NAME = re.compile(r"[\w./-]+\.\w+")
ENVIRONMENT = re.compile(r"(\w+)=(.*)")
# Blocks in these languages are files of the page's project, so that they are really used.
FILES_ONLY = {"ini", "toml", "yaml"}
DOCTEST_FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@dataclass(frozen=True, kw_only=True)
class Block:
    """One fenced block: its language, what stands behind the language, its text, and the line it starts on."""

    language: str
    title: str
    text: str
    line: int

    @property
    def file_name(self):
        """The file of the page's project that this block is: from the title, or from a first line that is a comment with just a name."""
        first = self.text.partition("\n")[0]
        name = self.title or (first[2:].strip() if first.startswith("# ") else "")
        return name if FILE_NAME.fullmatch(name) else None


@dataclass(frozen=True, kw_only=True)
class Command:
    """One `$ ...` line of a console block, and the output shown below it."""

    line: int
    words: list[str]
    shown: str


def blocks(text, offset=0):
    """The fenced blocks of a page, in order; those inside an HTML comment count too, and are how a page hides what it needs."""
    for token in MarkdownIt().parse(text):
        if token.type == "fence":
            language, _, title = token.info.strip().partition(" ")
            yield Block(language=language, title=title.strip(), text=token.content, line=offset + token.map[0] + 1)
        elif token.type == "html_block" and token.content.lstrip().startswith("<!--"):
            yield from blocks(token.content.replace("<!--", "", 1).replace("-->", ""), offset + token.map[0])


def commands(block):
    """The commands of a console block; a backslash at the end continues the line, as in a shell."""
    found = []
    for number, line in enumerate(block.text.replace("\\\n", " ").splitlines(), start=block.line + 1):
        if line.startswith("$ "):
            found.append(Command(line=number, words=shlex.split(line[2:], comments=True), shown=""))
        elif found:
            last = found[-1]
            found[-1] = Command(line=last.line, words=last.words, shown=f"{last.shown}{line}\n")
    return found


class Page:
    """A page being followed: its files are written, its Python is run, its commands print what it shows; `provider` answers its models."""

    def __init__(self, name, provider, pytester, monkeypatch):
        self.name = name
        self.pytester = pytester
        self.monkeypatch = monkeypatch
        self.namespace = {"__name__": "__page__", "provider": provider, "Reply": Reply}

    def follow(self, text):
        for block in blocks(text):
            if block.language == "console":
                for command in commands(block):
                    self.run(command)
            elif block.file_name:
                self.write(block)
            elif block.language in {"python", "pycon"}:
                self.execute(block)
            else:
                assert block.language not in FILES_ONLY, f"{self.name}:{block.line}: a {block.language} block needs a file name"

    def write(self, block):
        target = self.pytester.path / block.file_name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(block.text, encoding="utf-8")

    def execute(self, block):
        if not block.text.startswith(">>> "):
            exec(compile("\n" * block.line + block.text, self.name, "exec", dont_inherit=True), self.namespace)
            return
        examples = doctest.DocTestParser().get_doctest(block.text, self.namespace, self.name, self.name, block.line)
        report = []
        doctest.DocTestRunner(optionflags=DOCTEST_FLAGS).run(examples, out=report.append, clear_globs=False)
        self.namespace = examples.globs
        assert not report, "".join(report)

    def run(self, command):
        words = list(command.words)
        with self.monkeypatch.context() as environment:
            while match := ENVIRONMENT.fullmatch(words[0]):
                environment.setenv(*match.groups())
                del words[0]
            if words[0] == "cat":
                status, got = 0, (self.pytester.path / words[1]).read_text(encoding="utf-8")
            elif words[0] == "pytest":
                result = self.pytester.runpytest_inprocess("-p", "no:randomly", *words[1:])
                status, got = result.ret, f"{result.stdout.str()}\n{result.stderr.str()}"
            elif words[0] == "touchstone":
                status, got = touchstone(words[1:])
            else:
                return
        where = f"{self.name}:{command.line}"
        if command.shown.strip():
            assert prints(got, command.shown), f"{where}: shown is\n{command.shown}\nbut printed was\n{got}"
        else:
            assert status == 0, f"{where}: the page shows no output, but the command ended with {status}\n{got}"


def touchstone(words):
    """The exit status of the command, and all that it printed."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            status = cli.main(words)
        except SystemExit as ended:
            status = ended.code
    return status, printed.getvalue()


def prints(got, shown):
    """Whether the lines shown stand together in the output; `...` stands for any text."""
    return doctest.OutputChecker().check_output(f"... {comparable(shown)} ...", f"start {comparable(got)} end", DOCTEST_FLAGS)


def comparable(text):
    """The output without what differs from run to run and from terminal to terminal: the seconds, and how long a rule is."""
    return re.sub(r"([=_-])\1{2,}", r"\1\1\1", re.sub(r"\b\d+\.\d+ ?s\b", "0.00s", text))


@pytest.fixture
def provider(monkeypatch):
    """The models of a page: what the SDKs find at the addresses that they read from the environment."""
    with FakeProvider() as provider:
        for name, url in (("OPENAI", provider.openai_url), ("ANTHROPIC", provider.anthropic_url)):
            monkeypatch.setenv(f"{name}_BASE_URL", url)
            monkeypatch.setenv(f"{name}_API_KEY", "a-key-for-tests-only")
        yield provider


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_page(path, provider, pytester, monkeypatch):
    Page(str(path.relative_to(ROOT)), provider, pytester, monkeypatch).follow(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name):
    report = []
    finder, runner = doctest.DocTestFinder(exclude_empty=True), doctest.DocTestRunner(optionflags=DOCTEST_FLAGS)
    for examples in finder.find(importlib.import_module(name)):
        runner.run(examples, out=report.append)
    assert not report, "".join(report)


@pytest.fixture
def page(provider, pytester, monkeypatch):
    return Page("page.md", provider, pytester, monkeypatch)


PROJECT = """
```python
# evals/test_sum.py
def test_sum():
    assert 1 + 1 == 3
```
"""


def test_a_page_passes_when_its_command_prints_what_it_shows(page):
    page.follow(f"""{PROJECT}
```console
$ pytest evals
evals/test_sum.py F ...
E       assert (1 + 1) == 3
...
=== 1 failed in 0.31s ===
```
""")


@pytest.mark.parametrize("shown", ["=== 1 passed in 0.31s ===", "evals/test_sum.py F\nE       assert 2 == 4"])
def test_a_page_fails_when_its_command_prints_something_else(page, shown):
    with pytest.raises(AssertionError, match=r"page\.md:9: shown is"):
        page.follow(f"{PROJECT}\n```console\n$ pytest evals\n{shown}\n```\n")


def test_a_page_that_shows_no_output_needs_a_passing_command(page):
    with pytest.raises(AssertionError, match=r"page\.md:9: the page shows no output, but the command ended with 1"):
        page.follow(f"{PROJECT}\n```console\n$ pytest evals\n```\n")


def test_commands_see_their_environment_and_others_are_not_run(page):
    page.follow("""
<!--
```python
# test_word.py
import os

def test_word():
    assert os.environ["WORD"] == "gold"
```
-->
```console
$ rm -rf /
$ WORD=gold pytest \\
    -q
1 passed in 0.00s
$ cat test_word.py
import os
...
```
""")


def test_python_blocks_share_names_and_run_as_doctests(page):
    page.follow("```python\nx = 2\n```\n\n```python\n>>> x + 1\n3\n```\n")
    with pytest.raises(AssertionError, match=r"Expected:\s+4\s+Got:\s+3"):
        page.follow("```python\n>>> x + 1\n4\n```\n")
    with pytest.raises(NameError, match="name 'y' is not defined"):
        page.follow("```python\ny\n```\n")


def test_a_golden_block_without_a_name_is_a_fault_of_the_page(page):
    with pytest.raises(AssertionError, match=r"page\.md:3: a yaml block needs a file name"):
        page.follow("\n\n```yaml\ncases: []\n```\n")
    page.follow("```yaml golden/empty.yaml\ncases: []\n```\n")
    assert (page.pytester.path / "golden" / "empty.yaml").read_text() == "cases: []\n"
