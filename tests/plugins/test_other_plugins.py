"""The window beside the plugins that people use with pytest: each keeps its own meaning, and no trial is lost."""

from __future__ import annotations

import importlib.util
import os
import re

import pytest

MODULES = {
    "asyncio": "pytest_asyncio",
    "anyio": "anyio",
    "cov": "pytest_cov",
    "html": "pytest_html",
    "mock": "pytest_mock",
    "randomly": "pytest_randomly",
    "rerunfailures": "pytest_rerunfailures",
    "sugar": "pytest_sugar",
    "timeout": "pytest_timeout",
    "xdist": "xdist",
}
WITH_ALL = os.environ.get("TOUCHSTONE_TEST_ALL_PLUGINS") == "1"


def needs(*names):
    missing = [name for name in names if importlib.util.find_spec(MODULES[name]) is None]
    return pytest.mark.skipif(bool(missing) and not WITH_ALL, reason=f"not installed: {', '.join(missing)}")


SUITE = """
import asyncio, threading, pytest
from pytest_touchstone import exact_match

CASES = [{"id": f"c{i}", "input": str(i), "expected": str(i), "split": "train"} for i in range(6)]
barrier = threading.Barrier(2, timeout=20)

@pytest.fixture
def mine(request):
    yield request.node.name

@pytest.mark.golden(CASES)
def test_sync(case, mine, request):
    barrier.wait()
    assert mine == request.node.name
    case.output = case.input if case.id != "c3" else "wrong"
    case.check(exact_match())

@pytest.mark.golden(CASES)
async def test_async(case, mine):
    await asyncio.sleep(0)
    case.output = case.input
    await case.acheck(exact_match())
"""


@pytest.fixture
def run(pytester):
    # Processes of their own: these plugins hold on to the process that they are first loaded in.
    def run(source, *args):
        pytester.makepyfile(test_suite=source)
        return pytester.runpytest_subprocess("--llm-eval", "--llm-concurrency", "2", "-p", "no:cacheprovider", *args)

    return run


def table(result):
    rows = re.findall(r"^test_suite\.py::(\w+) +(\d+) +(\d+) +(\d+) +(\d+) +(\d+) +(\d+) ", result.stdout.str(), re.MULTILINE)
    return {name: tuple(map(int, counts)) for name, *counts in rows}


def as_ever(result):
    assert table(result) == {"test_sync": (6, 5, 1, 0, 0, 0), "test_async": (6, 6, 0, 0, 0, 0)}
    assert result.ret == 1


@needs("rerunfailures")
class TestRerunfailures:
    def test_a_failing_trial_is_tried_again_and_counts_once(self, run):
        result = run(SUITE.replace("barrier.wait()", ""), "-p", "no:randomly", "-p", "no:sugar", "--reruns", "2")
        as_ever(result)
        result.stdout.fnmatch_lines(["*1 failed, 11 passed, 2 rerun*"])

    def test_one_that_passes_the_second_time_passes(self, run):
        source = SUITE.replace("barrier.wait()", "").replace('else "wrong"', "else tried()")
        source += "\ntries = []\n\ndef tried():\n    tries.append(1)\n    return '3' if len(tries) > 1 else 'wrong'\n"
        result = run(source, "-p", "no:sugar", "--reruns", "2")
        assert result.ret == 0
        assert table(result) == {"test_sync": (6, 6, 0, 0, 0, 0), "test_async": (6, 6, 0, 0, 0, 0)}


@needs("timeout")
class TestTimeout:
    @pytest.mark.parametrize("method", ["signal", "thread"])
    def test_tests_in_time_are_left_alone(self, run, method):
        as_ever(run(SUITE, "-p", "no:randomly", "-p", "no:sugar", "--timeout=60", f"--timeout-method={method}"))

    @pytest.mark.parametrize("method", ["signal", "thread"])
    def test_a_body_that_hangs_is_an_error(self, run, only_c1_is_timed, method):
        source = SUITE.replace("barrier.wait()", "case.id == 'c1' and threading.Event().wait(60)")
        result = run(source, "-p", "no:randomly", "-p", "no:sugar", f"--timeout-method={method}")
        assert table(result) == {"test_sync": (6, 4, 1, 1, 0, 0), "test_async": (6, 6, 0, 0, 0, 0)}
        result.stdout.fnmatch_lines(["*the body did not end within 1 s (--llm-timeout, or pytest-timeout's)*"])

    def test_a_fixture_that_hangs_is_an_error(self, run, only_c1_is_timed):
        source = SUITE.replace("barrier.wait()", "").replace(
            "    yield request", "    request.node.name == 'test_sync[c1]' and threading.Event().wait(60)\n    yield request"
        )
        result = run(source, "-p", "no:randomly", "-p", "no:sugar")
        assert table(result) == {"test_sync": (6, 4, 1, 1, 0, 0), "test_async": (6, 6, 0, 0, 0, 0)}

    @pytest.fixture
    def only_c1_is_timed(self, pytester):
        """Give one second to the test that hangs, and no limit to any other, which a busy machine may slow down."""
        pytester.makeconftest(
            """
import pytest

def pytest_collection_modifyitems(items):
    for item in items:
        if item.name == "test_sync[c1]":
            item.add_marker(pytest.mark.timeout(1))
"""
        )

    def test_the_option_bounds_every_test(self, run):
        result = run(SUITE.replace("barrier.wait()", "threading.Event().wait(60)"), "-p", "no:randomly", "-p", "no:sugar", "--timeout=1")
        assert table(result)["test_sync"] == (6, 0, 0, 6, 0, 0)


@needs("xdist")
@pytest.mark.parametrize("dist", ["load", "worksteal", "loadfile", "loadscope", "each"])
def test_xdist(run, dist):
    result = run(SUITE.replace("barrier.wait()", ""), "-p", "no:randomly", "-p", "no:sugar", "-n", "2", f"--dist={dist}")
    as_ever(result)


@needs("cov")
def test_cov_sees_what_bodies_run(run, pytester):
    pytester.makepyfile(app="def answer(text):\n    return text\n")
    source = SUITE.replace("case.output = case.input", "from app import answer\n    case.output = answer(case.input)")
    as_ever(result := run(source, "-p", "no:randomly", "-p", "no:sugar", "--cov=app", "--cov-report=term"))
    result.stdout.re_match_lines([r"app\.py +2 +0 +100%"])


@needs("randomly")
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_randomly(run, seed):
    as_ever(run(SUITE.replace("barrier.wait()", ""), "-p", "no:sugar", f"--randomly-seed={seed}"))


@needs("asyncio")
@pytest.mark.parametrize("mode", ["strict", "auto"])
def test_asyncio_runs_its_own(run, mode):
    source = SUITE + (
        "\nimport pytest_asyncio\n\n@pytest_asyncio.fixture\nasync def late():\n    await asyncio.sleep(0)\n    return 'late'\n\n"
        "@pytest.mark.asyncio\n@pytest.mark.golden(CASES)\nasync def test_theirs(case, late):\n    case.output = case.input\n"
        "    assert late == 'late'\n    await case.acheck(exact_match())\n"
    )
    result = run(source, "-p", "no:randomly", "-p", "no:sugar", "-o", f"asyncio_mode={mode}", "-v")
    assert table(result) == {"test_sync": (6, 5, 1, 0, 0, 0), "test_async": (6, 6, 0, 0, 0, 0), "test_theirs": (6, 6, 0, 0, 0, 0)}
    result.stdout.fnmatch_lines(["*ran alone: test_suite.py::test_theirs (6 trials): run by pytest-asyncio*"])


@needs("anyio")
def test_anyio_runs_its_own(run):
    source = SUITE + (
        "\n@pytest.fixture\ndef anyio_backend():\n    return 'asyncio'\n\n@pytest.mark.anyio\n@pytest.mark.golden(CASES)\n"
        "async def test_theirs(case):\n    case.output = case.input\n    await case.acheck(exact_match())\n"
    )
    result = run(source, "-p", "no:randomly", "-p", "no:sugar", "-v")
    assert table(result) == {"test_sync": (6, 5, 1, 0, 0, 0), "test_async": (6, 6, 0, 0, 0, 0), "test_theirs": (6, 6, 0, 0, 0, 0)}
    result.stdout.fnmatch_lines(["*ran alone: test_suite.py::test_theirs (6 trials): run by anyio*"])


@needs("mock")
def test_mock_runs_alone(run):
    source = SUITE + (
        "\nimport os\n\n@pytest.mark.golden(CASES)\ndef test_mocked(case, mocker):\n    mocker.patch('os.getcwd', return_value=case.id)\n"
        "    assert os.getcwd() == case.id\n"
    )
    result = run(source, "-p", "no:randomly", "-p", "no:sugar", "-v")
    assert table(result)["test_mocked"] == (6, 6, 0, 0, 0, 0)
    result.stdout.fnmatch_lines(["*ran alone: test_suite.py::test_mocked (6 trials): asks for mocker*"])


@needs("html")
def test_html(run, pytester):
    as_ever(run(SUITE, "-p", "no:randomly", "-p", "no:sugar", "--html=out.html", "--self-contained-html"))
    page = (pytester.path / "out.html").read_text(encoding="utf-8")
    assert page.count("test_suite.py::test_sync[") >= 6
    assert "1 Failed" in page


@needs("sugar")
def test_sugar(run):
    result = run(SUITE, "-p", "no:randomly", "--force-sugar")
    as_ever(result)


@needs(*MODULES)
@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["inline", "xdist"])
def test_all_together(run, workers):
    source = SUITE.replace("barrier.wait()", "")
    result = run(source, "--reruns", "1", "--timeout=60", "--cov=test_suite", "--html=out.html", *workers)
    as_ever(result)
