"""What the project's own files promise each other."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
FRAGMENT_TYPES = {entry["directory"] for entry in PYPROJECT["tool"]["towncrier"]["type"]}
# Extras whose lowest versions need hardware or hours, or, as Presidio, newer versions than the lowest of the rest (pydantic 2.12.5): they
# are tried by hand, not by `oldest`.
UNTRIED_EXTRAS = {"train", "unsloth", "pii", "all"}


def requirement(text):
    """Split `name[extra]>=1,<2` into the name and the lowest version."""
    match = re.fullmatch(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?(?:[>=]=([0-9.]+))?.*", text)
    return match[1].lower(), match[2]


def floors():
    project, groups = PYPROJECT["project"], PYPROJECT["dependency-groups"]
    extras = [text for name, texts in project["optional-dependencies"].items() if name not in UNTRIED_EXTRAS for text in texts]
    return dict(requirement(text) for text in [*project["dependencies"], *extras, *groups["test"]])


def version(text):
    return [int(number) for number in text.split(".")]


def padded(text):
    return [*version(text), 0, 0][:3]


def test_the_oldest_environment_installs_the_lowest_versions_that_pyproject_allows():
    lines = (ROOT / "tests" / "oldest.txt").read_text(encoding="utf-8").splitlines()
    pinned = dict(requirement(line) for line in lines if not line.startswith("#"))
    assert {name: padded(floor) for name, floor in floors().items()} == {name: padded(pin) for name, pin in pinned.items()}


def test_pre_commit_runs_the_tools_that_lint_runs_in_the_same_versions():
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    hooks = [hook for repository in config["repos"] for hook in repository["hooks"]]
    assert {text for hook in hooks for text in hook["additional_dependencies"]} == set(PYPROJECT["dependency-groups"]["lint"])


@pytest.mark.parametrize("fragment", sorted((ROOT / "changelog.d").iterdir()), ids=lambda path: path.name)
def test_changelog_fragments_are_named_after_an_issue_and_a_known_type(fragment):
    if fragment.name == "README.md":
        return
    match = re.fullmatch(r"(?:\d+|\+[a-z0-9-]+)\.([a-z]+)\.md", fragment.name)
    assert match, "name it ISSUE.TYPE.md or +some-words.TYPE.md"
    assert match[1] in FRAGMENT_TYPES
    assert fragment.read_text(encoding="utf-8").strip()


def test_the_changelog_has_the_line_below_which_releases_are_written():
    assert PYPROJECT["tool"]["towncrier"]["start_string"] in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_a_group_never_names_the_package_which_an_index_would_be_asked_for():
    names = [text for texts in PYPROJECT["dependency-groups"].values() for text in texts if isinstance(text, str)]
    assert not [text for text in names if text.startswith(PYPROJECT["project"]["name"])]
