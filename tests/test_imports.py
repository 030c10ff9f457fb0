"""The house rule: imports point one way, only the edge knows pytest, and starting pytest costs nothing."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import pytest_touchstone

PACKAGE = "pytest_touchstone"
ROOT = Path(pytest_touchstone.__file__).parent

# Each part may import the parts of the rows above its own, and itself. Parts in one row do not know each other.
LAYERS = (
    {"settings", "errors", "stats", "text", "files", "git"},
    {"cases"},
    {"golden", "trial"},
    {"scoring", "models", "recording"},
    {"judging"},
    {"gate"},
    {"baseline"},
    {"runs"},
    {"report", "export"},
    {"train"},
    {"improve"},
    {"plugin", "cli"},
)
MAY_IMPORT_PYTEST = {"plugin", "baseline"}
# What a plain run of pytest must not pay for.
FORBIDDEN_AT_START = {
    "aiohttp", "anthropic", "asyncio", "datasets", "genai_prices", "httpx", "httpx2", "numpy", "openai",
    "presidio_analyzer", "pyarrow", "pydantic", "rapidfuzz", "scipy", "spacy", "sqlalchemy", "sqlite3", "syrupy", "torch", "yaml",
}  # fmt: skip


def modules():
    """Every module of the package: dotted name inside it -> path."""
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in sorted(ROOT.rglob("*.py"))}


MODULES = modules()


def imported_names(path):
    """Every absolute dotted name that a file imports, lazily or for type checkers too; `from a import b` gives `a.b`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imported_modules(path):
    """The package's own modules that a file imports."""
    for name in imported_names(path):
        inside = name.removeprefix(f"{PACKAGE}.")
        if inside != name:
            module = inside if inside in MODULES else inside.rpartition(".")[0]
            assert module, f"{path}: imports {inside} from the public package; import it from its home"
            yield module


def part(module):
    """The part of the house that a module belongs to: a folder, or a top-level module together with those called after it (`golden_yaml`)."""
    return module.partition(".")[0].partition("_")[0] or module


def layer(module):
    rows = [number for number, parts in enumerate(LAYERS) if part(module) in parts]
    assert rows, f"{module} has no place in LAYERS"
    return rows[0]


INNER = sorted(set(MODULES) - {"__init__"})


@pytest.mark.parametrize("module", INNER)
def test_a_module_imports_only_from_the_layers_above_its_own(module):
    wrong = [
        imported for imported in imported_modules(MODULES[module]) if part(imported) != part(module) and layer(imported) >= layer(module)
    ]
    assert not wrong, f"{module} may not import {wrong}; see LAYERS"


def test_there_is_no_cycle_even_counting_lazy_and_type_only_imports():
    graph = {module: set(imported_modules(MODULES[module])) for module in INNER}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"modules import each other: {' -> '.join(error.args[1])}")


def test_only_the_edge_imports_pytest():
    knowing = {
        part(module) for module in INNER if any(name.partition(".")[0] in {"pytest", "_pytest"} for name in imported_names(MODULES[module]))
    }
    assert knowing <= MAY_IMPORT_PYTEST


def test_folders_have_empty_init_files():
    folders = {path.parent for path in MODULES.values()} - {ROOT}
    assert {folder.name: (folder / "__init__.py").read_bytes() for folder in folders} == {folder.name: b"" for folder in folders}


PROBE = """
import json, sys
import pytest
class Probe:
    def pytest_unconfigure(self):
        with open({target!r}, "w", encoding="utf-8") as file:
            json.dump(sorted(sys.modules), file)
sys.exit(pytest.main(["-p", "no:cacheprovider", {options}], plugins=[Probe()]))
"""


def start_pytest(folder, *options):
    """Run pytest in a process of its own in `folder`; returns what it printed, which modules it loaded and what files it left."""
    target = folder.with_suffix(".json")
    script = PROBE.format(target=str(target), options=", ".join(map(repr, options)))
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("COVERAGE_", "COV_"))}
    environment |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-c", script], cwd=folder, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
    return done, set(json.loads(target.read_text(encoding="utf-8"))), files


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    """The same small project, without the plugin and with it but without `--llm-eval`."""

    def project(name):
        folder = tmp_path_factory.mktemp(name, numbered=False)
        (folder / "test_plain.py").write_text("def test_plain():\n    pass\n", encoding="utf-8")
        return folder

    return start_pytest(project("bare")), start_pytest(project("loaded"), "-p", f"{PACKAGE}.plugin.entry")


def test_starting_pytest_without_llm_eval_loads_nothing_heavy(started):
    (_, bare, _), (_, loaded, _) = started
    added = {name.partition(".")[0] for name in loaded - bare}
    assert added & FORBIDDEN_AT_START == set()
    assert f"{PACKAGE}.plugin.entry" in loaded


def test_starting_pytest_without_llm_eval_prints_and_writes_nothing(started):
    (bare, _, bare_files), (loaded, _, loaded_files) = started
    assert loaded_files == bare_files == ["test_plain.py"]
    assert loaded.stderr == bare.stderr == ""
    assert shape(loaded.stdout) == shape(bare.stdout)


def shape(output):
    """The printed lines without what differs from run to run: the folder and the seconds."""
    return [line for line in output.splitlines() if not line.startswith(("rootdir:", "plugins:")) and " passed in " not in line]
