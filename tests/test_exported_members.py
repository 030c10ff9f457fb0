from __future__ import annotations

import ast
from pathlib import Path

import pytest

import pytest_touchstone

PACKAGE = "pytest_touchstone"


def typed_imports():
    """Where the `if TYPE_CHECKING` block of the package says that each public name lives."""
    tree = ast.parse(Path(pytest_touchstone.__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    return {alias.asname or alias.name: node.module for node in block.body for alias in node.names}


@pytest.mark.parametrize("name", pytest_touchstone.__all__)
def test_every_public_name_resolves_to_what_its_home_defines(name):
    public = getattr(pytest_touchstone, name)
    assert public.__name__ == name
    assert public.__module__ == f"{PACKAGE}.{pytest_touchstone._HOMES[name]}"
    assert public.__doc__


def test_all_is_sorted_and_complete():
    assert sorted(set(pytest_touchstone.__all__)) == pytest_touchstone.__all__
    assert set(pytest_touchstone._HOMES) == set(pytest_touchstone.__all__)


def test_type_checkers_are_told_the_same_homes():
    homes = {name: f"{PACKAGE}.{home}" for name, home in pytest_touchstone._HOMES.items()}
    assert typed_imports() == homes


def test_star_import_gives_exactly_the_public_names():
    namespace = {}
    exec(f"from {PACKAGE} import *", namespace)
    assert set(namespace) - {"__builtins__"} == set(pytest_touchstone.__all__)


def test_dir_lists_the_public_names_before_they_are_used():
    assert set(pytest_touchstone.__all__) <= set(dir(pytest_touchstone))


def test_an_unknown_name_is_an_ordinary_attribute_error():
    with pytest.raises(AttributeError, match=r"^module 'pytest_touchstone' has no attribute 'judgement'$"):
        _ = pytest_touchstone.judgement
