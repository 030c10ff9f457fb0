"""The window: many bodies at once in one process, each with the semantics of a test that runs alone."""

from __future__ import annotations

import re
import warnings
import xml.etree.ElementTree as ET

import pytest

CASES = "[{'id': f'c{i}', 'input': str(i), 'split': 'train'} for i in range(%d)]"
# Passes only where as many bodies are in it at once; a body that comes alone breaks it after a while, and fails.
MEET = """
import asyncio
import threading

WIDTH = {width}
barrier = threading.Barrier(WIDTH, timeout=20)
abarrier = asyncio.Barrier(WIDTH)


def meet():
    barrier.wait()


async def ameet():
    async with asyncio.timeout(20):
        await abarrier.wait()
"""
JOURNAL = """
import os
import pathlib

def note(*words):
    with open(pathlib.Path(__file__).parent / f"journal-{os.environ.get('PYTEST_XDIST_WORKER', 'gw0')}.txt", "a") as file:
        print(*words, file=file)
"""


@pytest.fixture
def suite(pytester):
    """Writes test modules with the cases, the meeting point and the journal at hand."""

    def write(source, *, cases=8, width=4, name="test_suite"):
        (pytester.path / "meeting.py").write_text(MEET.format(width=width), encoding="utf-8")
        (pytester.path / "journal.py").write_text(JOURNAL, encoding="utf-8")
        head = f"import pytest\nfrom meeting import ameet, meet\nfrom journal import note\nCASES = {CASES % cases}\n"
        (pytester.path / f"{name}.py").write_text(head + source, encoding="utf-8")

    return write


def journal(pytester, worker="gw0"):
    path = pytester.path / f"journal-{worker}.txt"
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def whole_journal(pytester):
    return sorted(line for path in pytester.path.glob("journal-*.txt") for line in path.read_text(encoding="utf-8").splitlines())


def all_pass(result, count):
    result.assert_outcomes(passed=count)
    assert result.ret == 0


SYNC = """
@pytest.mark.golden(CASES)
def test_one(case):
    meet()
    case.output = case.input
    assert case.output
"""
ASYNC = SYNC.replace("def test_one", "async def test_one").replace("    meet()", "    await ameet()")


class TestSideBySide:
    @pytest.mark.parametrize("source", [SYNC, ASYNC], ids=["sync", "async"])
    def test_bodies_meet(self, pytester, suite, source):
        suite(source)
        all_pass(pytester.runpytest_inprocess("--llm-eval", "--llm-concurrency", "4"), 8)

    @pytest.mark.parametrize("source", [SYNC, ASYNC], ids=["sync", "async"])
    def test_in_each_worker_of_xdist(self, pytester, suite, source):
        suite(source, width=2)
        all_pass(pytester.runpytest_inprocess("--llm-eval", "--llm-concurrency", "4", "-n", "2"), 8)

    def test_sync_and_async_bodies_meet_each_other(self, pytester, suite):
        suite(
            """
import asyncio

@pytest.mark.golden(CASES[:2])
def test_sync(case):
    meet()

@pytest.mark.golden(CASES[:2])
async def test_async(case):
    await asyncio.to_thread(meet)
"""
        )
        all_pass(pytester.runpytest_inprocess("--llm-eval", "--llm-concurrency", "4"), 4)

    def test_across_functions_classes_and_modules(self, pytester, suite):
        suite(
            """
@pytest.mark.golden(CASES[:1])
def test_one(case):
    meet()

class TestGroup:
    @pytest.mark.golden(CASES[:1])
    def test_two(self, case):
        meet()
""",
            name="test_first",
        )
        suite(SYNC.replace("CASES", "CASES[:2]"), name="test_second")
        all_pass(pytester.runpytest_inprocess("--llm-eval", "--llm-concurrency", "4"), 4)

    def test_across_folders(self, pytester, suite):
        suite(SYNC.replace("CASES", "CASES[:2]"))
        for name in ("a", "b"):
            folder = pytester.mkpydir(name)
            (folder / "conftest.py").write_text(
                f"import pytest\n@pytest.fixture(scope='package')\ndef place():\n    return {name!r}\n", encoding="utf-8"
            )
            (folder / "test_in_folder.py").write_text(
                "import pytest\nfrom meeting import meet\n@pytest.mark.golden([{'id': 'x', 'input': 'x', 'split': 'train'}])\n"
                f"def test_there(case, place):\n    meet()\n    assert place == {name!r}\n",
                encoding="utf-8",
            )
        result = pytester.runpytest_inprocess("--llm-eval", "--llm-concurrency", "4", "-p", "no:cacheprovider", "--rootdir=.")
        all_pass(result, 4)

    @pytest.mark.parametrize("how", [["--llm-concurrency", "1"], ["-s"], ["--setup-show"]])
    def test_one_by_one_where_asked(self, pytester, suite, how):
        suite(
            """
running = []

@pytest.mark.golden(CASES)
def test_one(case):
    running.append(case.id)
    assert len(running) == 1
    running.clear()
"""
        )
        all_pass(pytester.runpytest_inprocess("--llm-eval", *how), 8)

    def test_the_ini_key_is_the_width(self, pytester, suite):
        suite(SYNC, width=2, cases=4)
        pytester.makeini("[pytest]\nllm_concurrency = 2\n")
        all_pass(pytester.runpytest_inprocess("--llm-eval"), 4)

    @pytest.mark.parametrize(
        ("key", "value", "said"),
        [
            (
                "llm_concurrency",
                "many",
                "ini llm_concurrency: 'many' is not a whole number of at least 1, for example llm_concurrency = 16",
            ),
            ("llm_timeout", "soon", "ini llm_timeout is 'soon'; give a number of seconds above 0, for example llm_timeout = 60"),
        ],
    )
    def test_wrong_ini_values(self, pytester, suite, key, value, said):
        suite(SYNC)
        pytester.makeini(f"[pytest]\n{key} = {value}\n")
        result = pytester.runpytest_inprocess("--llm-eval")
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        assert said in result.stderr.str()

    def test_a_timeout_that_is_none(self, pytester, suite):
        suite(SYNC)
        result = pytester.runpytest_inprocess("--llm-eval", "--llm-timeout", "0")
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        assert "--llm-timeout is 0; give a number of seconds above 0, for example --llm-timeout 120" in result.stderr.str()


FIXTURES = """
@pytest.fixture(scope="session")
def of_session():
    note("up session")
    yield "session"
    note("down session")

@pytest.fixture(scope="module")
def of_module(of_session, request):
    note("up module", request.module.__name__)
    yield request.module.__name__
    note("down module", request.module.__name__)

@pytest.fixture(scope="class")
def of_class(of_module, request):
    note("up class", request.cls.__name__)
    yield request.cls.__name__
    note("down class", request.cls.__name__)

@pytest.fixture
def of_function(of_module, request):
    note("up function", request.node.name)
    yield request.node.name
    note("down function", request.node.name)

@pytest.fixture(autouse=True)
def always(request):
    note("up always", request.node.name)
    yield
    note("down always", request.node.name)
"""


class TestFixtures:
    def test_each_test_has_its_own_and_shares_what_is_shared(self, pytester, runner, suite):
        (pytester.path / "conftest.py").write_text(f"import pytest\nfrom journal import note\n{FIXTURES}", encoding="utf-8")
        source = """
class TestGroup:
    @pytest.mark.golden(CASES)
    def test_in_class(self, case, of_class, of_function, of_session, tmp_path, request):
        note("body", request.node.name)
        assert (of_class, of_function, of_session) == ("TestGroup", request.node.name, "session")
        (tmp_path / "mine").write_text(case.id)
        assert [path.read_text() for path in tmp_path.iterdir()] == [case.id]

@pytest.mark.golden(CASES)
async def test_async(case, of_function, of_module, request):
    assert of_function == request.node.name
    assert of_module == __name__
"""
        suite(source, name="test_first", cases=3)
        suite(source, name="test_second", cases=3)
        all_pass(runner.run("--llm-eval", "--llm-concurrency", "6"), 12)
        lines = whole_journal(pytester)
        ups = [line.removeprefix("up ") for line in lines if line.startswith("up ")]
        downs = [line.removeprefix("down ") for line in lines if line.startswith("down ")]
        assert ups == downs
        assert ups.count("always test_async[c1]") == 2
        assert ups.count("function test_in_class[c1]") == 2

    def test_order_in_one_process(self, pytester, suite):
        (pytester.path / "conftest.py").write_text(f"import pytest\nfrom journal import note\n{FIXTURES}", encoding="utf-8")
        source = "@pytest.mark.golden(CASES)\ndef test_it(case, of_function):\n    pass\n"
        suite(source, name="test_first", cases=2)
        suite(source, name="test_second", cases=2)
        all_pass(pytester.runpytest_inprocess("--llm-eval", "--llm-concurrency", "4"), 4)
        lines = journal(pytester)
        assert lines[0] == "up session" or lines[0].startswith("up always")
        assert lines[-1] == "down session"
        assert lines.count("up session") == lines.count("up module test_first") == lines.count("down module test_second") == 1
        # A module is torn down when its last test's turn is over, and never under a test that still runs.
        after_first = lines[lines.index("down module test_first") :]
        assert not any("function" in line and line.startswith("up") for line in after_first[:1])

    def test_parametrized_fixtures_of_wider_scope_change_between_bodies_only(self, pytester, runner, suite):
        suite(
            """
live = []

@pytest.fixture(scope="module", params=["small", "large"])
def model(request):
    live.append(request.param)
    yield request.param
    live.remove(request.param)

@pytest.fixture
def client(model):
    return f"client of {model}"

@pytest.mark.golden(CASES)
def test_models(case, client, model, request):
    assert live == [model]
    assert client == f"client of {model}"
    assert request.node.callspec.params["model"] == model
"""
        )
        all_pass(runner.run("--llm-eval", "--llm-concurrency", "4"), 16)

    def test_parametrization_beside_golden(self, pytester, runner, suite):
        suite(
            """
@pytest.mark.parametrize("style", ["short", "long"])
@pytest.mark.golden(CASES)
def test_styles(case, style, request):
    assert style in request.node.name
"""
        )
        all_pass(runner.run("--llm-eval"), 16)

    def test_xunit_setup_and_usefixtures(self, pytester, runner, suite):
        suite(
            """
@pytest.fixture
def marked(request):
    request.node.marked = True

class TestGroup:
    @classmethod
    def setup_class(cls):
        cls.shared = "shared"

    def setup_method(self, method):
        self.name = method.__name__

    @pytest.mark.usefixtures("marked")
    @pytest.mark.golden(CASES)
    def test_it(self, case, request):
        assert (self.shared, self.name, request.node.marked) == ("shared", "test_it", True)
        self.name = None
"""
        )
        all_pass(runner.run("--llm-eval"), 8)

    @pytest.mark.parametrize("kind", ["def", "async def"])
    def test_asked_for_in_the_body(self, pytester, runner, suite, kind):
        suite(
            f"""
@pytest.fixture
def base(request):
    return request.node.name

@pytest.fixture
def late(base):
    note("up", base)
    yield f"late {{base}}"
    note("down", base)

@pytest.mark.golden(CASES)
{kind} test_late(case, base, request):
    assert request.getfixturevalue("base") == base
    assert request.getfixturevalue("late") == f"late {{request.node.name}}"
    assert request.getfixturevalue("late") == f"late {{base}}"
"""
        )
        all_pass(runner.run("--llm-eval", "--llm-concurrency", "4"), 8)
        lines = whole_journal(pytester)
        assert len(lines) == 16
        assert sorted(line.removeprefix("down ") for line in lines[:8]) == sorted(line.removeprefix("up ") for line in lines[8:])

    def test_finalizers_added_in_the_body(self, pytester, runner, suite):
        suite(
            """
@pytest.fixture
def make(request):
    def make(name):
        request.addfinalizer(lambda: note("closed", name))
        return name
    return make

@pytest.mark.golden(CASES)
def test_making(case, make, request):
    make(case.id)
    request.addfinalizer(lambda: note("done", case.id))
    request.node.addfinalizer(lambda: note("over", case.id))
"""
        )
        all_pass(runner.run("--llm-eval", "--llm-concurrency", "4"), 8)
        assert whole_journal(pytester) == sorted(f"{what} c{i}" for what in ("closed", "done", "over") for i in range(8))

    def test_a_process_global_fixture_asked_for_in_the_body_by_a_name_that_is_not_written_there(self, pytester, suite):
        suite(
            """
NAME = "monkeypatch"

@pytest.mark.golden(CASES[:2])
def test_late(case, request):
    request.getfixturevalue(NAME)
"""
        )
        result = pytester.runpytest_inprocess("--llm-eval")
        result.assert_outcomes(errors=2)
        said = (
            "*test_suite.py::test_late[[]c0[]] asks for the fixture 'monkeypatch', which changes the whole process, while other tests "
            "run; name it in the test's arguments, or mark the test with @pytest.mark.llm_alone*"
        )
        result.stdout.fnmatch_lines([said])


ALONE = {
    "monkeypatch": "case, monkeypatch",
    "capsys": "case, capsys",
    "caplog": "case, caplog",
    "recwarn": "case, recwarn",
    "subtests": "case, subtests",
    "by_fixture": "case, patched",
    "by_user": "case, of_user",
}


class TestAlone:
    @pytest.mark.parametrize("arguments", ALONE.values(), ids=ALONE.keys())
    @pytest.mark.parametrize("kind", ["def", "async def"])
    def test_process_global_fixtures(self, pytester, suite, arguments, kind):
        pytester.makeini("[pytest]\nllm_alone_fixtures = of_user\n")
        suite(
            f"""
running = []

@pytest.fixture
def patched(monkeypatch):
    return monkeypatch

@pytest.fixture
def of_user():
    return None

@pytest.mark.golden(CASES)
{kind} test_alone({arguments}):
    running.append(case.id)
    assert running == [case.id]
    running.clear()
""",
            cases=3,
        )
        all_pass(pytester.runpytest_inprocess("--llm-eval"), 3)

    def test_marked(self, pytester, suite):
        suite(
            """
running = []

@pytest.mark.llm_alone(reason="changes the clock")
@pytest.mark.golden(CASES)
def test_alone(case):
    running.append(case.id)
    assert running == [case.id]
    running.clear()

@pytest.mark.golden(CASES[:4])
def test_beside(case):
    meet()
"""
        )
        result = pytester.runpytest_inprocess("--llm-eval", "--llm-concurrency", "4", "-v")
        all_pass(result, 12)
        result.stdout.fnmatch_lines(["*ran alone: test_suite.py::test_alone (8 trials): changes the clock*"])
        assert "test_beside (" not in result.stdout.str()

    def test_named_in_the_body(self, pytester, suite):
        suite(
            """
import os

@pytest.mark.golden(CASES)
def test_alone(case, request):
    request.getfixturevalue("monkeypatch").setenv("WHO", case.id)
    assert os.environ["WHO"] == case.id
"""
        )
        all_pass(pytester.runpytest_inprocess("--llm-eval"), 8)

    def test_ordinary_tests_never_run_beside_golden_ones(self, pytester, suite):
        suite(
            """
running = []

@pytest.mark.golden(CASES)
def test_first(case):
    running.append(case.id)
    meet()
    running.remove(case.id)

def test_plain():
    assert not running

@pytest.mark.golden(CASES)
def test_last(case):
    running.append(case.id)
    meet()
    running.remove(case.id)
"""
        )
        all_pass(pytester.runpytest_inprocess("--llm-eval", "--llm-concurrency", "4"), 17)

    @pytest.mark.parametrize("kind", ["def", "async def"])
    def test_as_many_as_asked_for_run_at_once_where_the_processor_has_time(self, pytester, suite, kind):
        meet = "await ameet()" if kind == "async def" else "meet()"
        suite(f"@pytest.mark.golden(CASES)\n{kind} test_it(case):\n    {meet}\n", cases=48, width=24)
        pytester.runpytest_inprocess("--llm-eval", "--llm-concurrency", "24").assert_outcomes(passed=48)

    def test_warnings_from_one_place_are_shown_once_in_each_test(self, pytester, suite):
        suite(
            """
import warnings

@pytest.mark.golden(CASES[:4])
def test_it(case):
    meet()
    for _ in range(3):
        warnings.warn("once")
        warnings.warn("each time", DeprecationWarning)
    meet()
"""
        )
        result = pytester.runpytest_inprocess(
            "--llm-eval", "-Wdefault::UserWarning", "-Walways::DeprecationWarning", "--llm-concurrency", "4"
        )
        result.assert_outcomes(passed=4, warnings=16)

    def test_warning_filters_of_marks_hold_in_their_own_tests(self, pytester, suite):
        suite(
            """
import warnings

@pytest.mark.golden(CASES[:2])
def test_lenient(case):
    warnings.warn("oh")

@pytest.mark.filterwarnings("error")
@pytest.mark.golden(CASES[:2])
def test_strict(case):
    with pytest.raises(UserWarning):
        warnings.warn("oh")

@pytest.mark.golden(CASES[:2])
def test_lenient_again(case):
    warnings.warn("oh")
"""
        )
        result = pytester.runpytest_inprocess("--llm-eval", "-Wdefault")
        result.assert_outcomes(passed=6, warnings=4)


class TestUnknownPytest:
    """A pytest whose inner state has changed: tests run one by one, the run says so, and nothing fails."""

    ONE_BY_ONE = """
running = []

@pytest.mark.golden(CASES)
def test_one(case):
    running.append(case.id)
    assert len(running) == 1
    running.clear()
"""

    def test_the_chain_of_nodes(self, pytester, runner, suite):
        suite(self.ONE_BY_ONE)
        (pytester.path / "conftest.py").write_text(
            """
import collections, pytest
class Chain(collections.UserDict):
    pass

@pytest.hookimpl(trylast=True)
def pytest_sessionstart(session):
    session._setupstate.stack = Chain()
""",
            encoding="utf-8",
        )
        result = runner.run("--llm-eval")
        all_pass(result, 8)
        result.stdout.fnmatch_lines(
            ["golden tests ran one by one: the chain of set-up nodes is not as expected in pytest *; please report it"]
        )

    def test_the_state_of_fixtures(self, pytester, suite, monkeypatch):
        suite(self.ONE_BY_ONE)
        (pytester.path / "conftest.py").write_text(
            """
import collections

def pytest_collection_finish(session):
    for item in session.items:
        for fixturedefs in item._fixtureinfo.name2fixturedefs.values():
            for fixturedef in fixturedefs:
                if not fixturedef._finalizers:
                    fixturedef._finalizers = Finalizers()

class Finalizers(collections.UserList):
    pass
""",
            encoding="utf-8",
        )
        result = pytester.runpytest_inprocess("--llm-eval")
        all_pass(result, 8)
        result.stdout.fnmatch_lines(["golden tests ran one by one: the state of fixtures is not as expected in pytest *"])


class TestOutcomes:
    def test_skip_and_xfail(self, pytester, runner, suite):
        suite(
            """
@pytest.mark.golden(CASES)
def test_skipping(case):
    if case.id == "c1":
        pytest.skip("not today")

@pytest.mark.skip(reason="never")
@pytest.mark.golden(CASES)
def test_skipped(case):
    raise AssertionError

@pytest.mark.xfail(reason="known")
@pytest.mark.golden(CASES)
def test_known(case):
    assert case.id == "c2"

@pytest.mark.xfail(run=False, reason="hangs")
@pytest.mark.golden(CASES)
def test_not_even_run(case):
    raise AssertionError
""",
            cases=3,
        )
        result = runner.run("--llm-eval", "--llm-concurrency", "4")
        result.assert_outcomes(passed=2, skipped=4, xfailed=5, xpassed=1)
        assert result.ret == 0

    def test_an_expected_failure_of_a_check_keeps_its_traceback(self, pytester, suite):
        suite(
            """
@pytest.mark.xfail(reason="known")
@pytest.mark.golden(CASES[:1])
def test_known(case):
    case.output = "wrong"
    case.check(lambda trial: False)
"""
        )
        result = pytester.runpytest_inprocess("--llm-eval", "--xfail-tb")
        result.assert_outcomes(xfailed=1)
        result.stdout.fnmatch_lines([">*case.check(lambda trial: False)", "E *1 of 1 scores failed"])

    def test_fixtures_that_fail_or_skip(self, pytester, runner, suite):
        suite(
            """
@pytest.fixture
def picky(case):
    if case.id == "c1":
        pytest.skip("no c1")
    if case.id == "c2":
        raise OSError("no database")
    return None

@pytest.fixture
def untidy(case):
    yield
    if case.id == "c3":
        raise OSError("cannot clean up")

@pytest.mark.golden(CASES)
def test_picky(case, picky, untidy):
    note("body", case.id)
""",
            cases=5,
        )
        result = runner.run("--llm-eval", "--llm-concurrency", "4")
        result.assert_outcomes(passed=3, skipped=1, errors=2)
        assert whole_journal(pytester) == ["body c0", "body c3", "body c4"]
        result.stdout.fnmatch_lines(["*OSError: no database*", "*OSError: cannot clean up*"])

    def test_asserts_are_explained(self, pytester, runner, suite):
        suite(
            """
@pytest.mark.golden(CASES[:1])
def test_compared(case):
    assert {"a": 1, "b": 2} == {"a": 1, "b": 3}
"""
        )
        result = runner.run("--llm-eval")
        result.stdout.fnmatch_lines(["*Differing items:*", "*{'b': 2} != {'b': 3}*"])

    @pytest.mark.parametrize("way", ["sys.exit(3)", "_thread.exit()", "raise GeneratorExit"])
    def test_a_body_that_ends_its_thread_fails_alone(self, pytester, runner, suite, way):
        suite(
            f"""
import sys, _thread

@pytest.mark.golden(CASES)
def test_it(case):
    if case.id == "c1":
        {way}
""",
            cases=4,
        )
        result = runner.run("--llm-eval", "--llm-concurrency", "2")
        result.assert_outcomes(passed=3, errors=1)

    def test_a_test_that_returns_something(self, pytester, suite):
        suite(
            """
@pytest.mark.golden(CASES[:2])
def test_it(case):
    return case.id == "c0"
"""
        )
        result = pytester.runpytest_inprocess("--llm-eval", "-Wdefault")
        result.assert_outcomes(passed=2, warnings=2)
        result.stdout.fnmatch_lines(
            ["*test functions are to return None, but test_suite.py::test_it[[]c0[]] returned bool; did you mean `assert`?*"]
        )

    def test_a_sync_test_that_returns_a_coroutine(self, pytester, suite):
        suite(
            """
async def helper():
    pass

@pytest.mark.golden(CASES[:1])
def test_it(case):
    return helper()
"""
        )
        result = pytester.runpytest_inprocess("--llm-eval")
        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines(
            ["*test_suite.py::test_it[[]c0[]] returned an awaitable that nothing awaited; make the test function async*"]
        )

    def test_durations_are_the_bodies_own(self, pytester, suite):
        suite(
            """
import threading, time
ended = threading.Event()

@pytest.mark.golden(CASES[:2])
def test_it(case):
    meet()
    if case.id == "c0":
        started = time.perf_counter()
        while time.perf_counter() - started < 0.2:
            pass
        ended.set()
    else:
        assert ended.wait(20)
""",
            width=2,
        )
        result = pytester.runpytest_inprocess("--llm-eval", "--junitxml=out.xml")
        all_pass(result, 2)
        cases = ET.parse(pytester.path / "out.xml").getroot().iter("testcase")
        assert all(float(case.get("time")) >= 0.1 for case in cases)


class TestStreams:
    def test_what_a_body_writes_stands_under_its_own_test(self, pytester, runner, suite):
        suite(
            """
import logging, sys, threading, warnings

@pytest.mark.golden(CASES)
def test_noisy(case):
    meet()
    thread = threading.Thread(target=lambda: print("thread of", case.id))
    thread.start()
    thread.join()
    print("out of", case.id)
    sys.stdout.buffer.write(f"bytes of {case.id}\\n".encode())
    print("err of", case.id, file=sys.stderr)
    logging.getLogger("app").warning("log of %s", case.id)
    warnings.warn(f"warning of {case.id}")
    raise AssertionError("on purpose")
""",
            cases=4,
            width=2,
        )
        result = runner.run("--llm-eval", "--llm-concurrency", "4", "-Wdefault")
        result.assert_outcomes(failed=4, warnings=4)
        sections = re.split(r"_+ (test_noisy\[c\d\]) _+", result.stdout.str())[1:]
        for name, text in zip(sections[::2], sections[1::2], strict=True):
            case_id = name[-3:-1]
            captured = text.partition("warnings summary")[0]
            for what in ("thread", "out", "bytes", "err", "log"):
                assert re.findall(rf"{what} of (c\d)", captured) == [case_id], (name, what, captured)
        for i in range(4):
            result.stdout.fnmatch_lines([f"test_suite.py::test_noisy[[]c{i}[]]", f"*UserWarning: warning of c{i}*"])

    @pytest.mark.parametrize("capture", ["fd", "sys", "tee-sys"])
    def test_with_each_way_to_capture(self, pytester, suite, capture):
        suite(
            """
@pytest.mark.golden(CASES)
def test_noisy(case):
    meet()
    print("out of", case.id)
    assert case.id != "c2"
""",
            cases=4,
        )
        result = pytester.runpytest_inprocess("--llm-eval", "--llm-concurrency", "4", f"--capture={capture}")
        result.assert_outcomes(passed=3, failed=1)
        result.stdout.fnmatch_lines(["*Captured stdout call*", "out of c2"])
        assert "out of c1" not in result.stdout.str().partition("Captured stdout call")[2]

    def test_the_log_level_holds_in_bodies(self, pytester, suite):
        suite(
            """
import logging

@pytest.mark.golden(CASES[:2])
def test_noisy(case):
    logging.getLogger("app").info("info of %s", case.id)
    logging.getLogger("app").debug("debug of %s", case.id)
    raise AssertionError
"""
        )
        result = pytester.runpytest_inprocess("--llm-eval", "--log-level=INFO", "--log-file=all.log", "--log-file-level=INFO")
        assert result.stdout.str().count("info of c0") == 1
        assert "debug of c0" not in result.stdout.str()
        text = (pytester.path / "all.log").read_text(encoding="utf-8")
        assert [line.rpartition(" ")[2] for line in text.splitlines() if "info of" in line] == ["c0", "c1"]

    def test_context_variables_are_the_bodies_own(self, pytester, runner, suite):
        suite(
            """
import contextvars
who = contextvars.ContextVar("who", default="nobody")

@pytest.fixture
def named(request):
    who.set(request.node.name)

@pytest.mark.golden(CASES)
def test_it(case, named, request):
    assert who.get() == request.node.name
    who.set(case.id)
    meet()
    assert who.get() == case.id
""",
            width=2,
        )
        all_pass(runner.run("--llm-eval", "--llm-concurrency", "4"), 8)

    def test_streams_are_put_back(self, pytester, suite):
        suite(SYNC)
        (pytester.path / "conftest.py").write_text(
            """
import logging, sys, warnings

def pytest_configure(config):
    config.before = (warnings._showwarnmsg, sys.getswitchinterval(), list(logging.getLogger().handlers))

def pytest_unconfigure(config):
    assert config.before == (warnings._showwarnmsg, sys.getswitchinterval(), list(logging.getLogger().handlers))
    assert "_Routed" not in type(sys.stdout).__name__
""",
            encoding="utf-8",
        )
        all_pass(pytester.runpytest_inprocess("--llm-eval", "--llm-concurrency", "4"), 8)


STOPPING = """
@pytest.fixture(scope="module")
def of_module():
    note("up module")
    yield
    note("down module")

@pytest.fixture
def of_function(of_module, case, tmp_path):
    note("up", case.id)
    yield
    note("down", case.id)

@pytest.mark.golden(CASES)
def test_it(case, of_function):
    if case.id in {"c0", "c1", "c2", "c3"}:
        meet()
    %s
"""


def each_once(lines):
    ups = sorted(line.removeprefix("up ") for line in lines if line.startswith("up "))
    downs = sorted(line.removeprefix("down ") for line in lines if line.startswith("down "))
    return ups == downs and len(set(ups)) == len(ups)


def counts_of(result):
    line = next(line for line in result.outlines if line.startswith("test_suite.py::test_it "))
    return dict(zip(("cases", "passed", "failed", "error", "unscored", "not_run"), map(int, line.split()[1:7]), strict=True))


class TestStopping:
    @pytest.mark.parametrize("how", ["-x", "--maxfail=1"])
    def test_at_the_first_failure(self, pytester, suite, how):
        suite(STOPPING % "assert case.id != 'c2'", cases=12)
        result = pytester.runpytest_inprocess("--llm-eval", "--llm-concurrency", "4", how)
        result.assert_outcomes(passed=2, failed=1)
        assert counts_of(result) == {"cases": 12, "passed": 2, "failed": 1, "error": 0, "unscored": 0, "not_run": 9}
        lines = journal(pytester)
        assert each_once(lines)
        assert lines[-1] == "down module"
        assert result.ret == 1

    def test_the_warning_filters_of_marks_end_with_the_run(self, pytester, suite):
        suite(
            (STOPPING % "assert case.id != 'c2'").replace(
                "@pytest.mark.golden", '@pytest.mark.filterwarnings("error:only here")\n@pytest.mark.golden'
            )
        )
        before = list(warnings.filters)
        result = pytester.runpytest_inprocess("--llm-eval", "--llm-concurrency", "4", "-x")
        result.assert_outcomes(passed=2, failed=1)
        assert warnings.filters == before

    def test_at_the_first_failure_under_xdist(self, pytester, suite):
        suite(
            STOPPING.replace('note("up module")', "pass").replace('note("down module")', "pass").replace("meet()", "pass")
            % "assert case.id != 'c2'",
            cases=12,
        )
        result = pytester.runpytest_inprocess("--llm-eval", "--llm-concurrency", "4", "-x", "-n", "2")
        counts = counts_of(result)
        assert counts["failed"] == 1
        assert sum(counts.values()) == 24
        assert each_once(whole_journal(pytester))

    def test_while_others_hang(self, pytester, suite):
        suite(
            STOPPING % "assert case.id != 'c0'\n    import threading\n    for _ in range(2000):\n        threading.Event().wait(0.01)",
            cases=4,
        )
        result = pytester.runpytest_inprocess("--llm-eval", "--llm-concurrency", "4", "-x")
        result.assert_outcomes(failed=1)
        assert counts_of(result)["not_run"] == 3
        assert each_once(journal(pytester))

    @pytest.mark.parametrize(
        "body",
        [
            "if case.id == 'c2': raise KeyboardInterrupt",
            # Four meet, so nothing is being set up when the signal comes; the second meeting never takes place, so nothing is torn down.
            "meet()\n    if case.id == 'c2': os.kill(os.getpid(), signal.SIGINT)\n    meet()",
        ],
        ids=["raised", "signal"],
    )
    @pytest.mark.parametrize("kind", ["def", "async def"])
    def test_by_ctrl_c(self, pytester, suite, body, kind):
        source = (STOPPING % body).replace("def test_it", f"{kind} test_it")
        suite("import os, signal\n" + (source.replace("meet()", "await ameet()") if kind == "async def" else source), cases=12)
        result = pytester.runpytest_subprocess("--llm-eval", "--llm-concurrency", "4")
        assert result.ret == pytest.ExitCode.INTERRUPTED
        counts = counts_of(result)
        assert counts["cases"] == 12
        assert counts["not_run"] >= 9
        assert each_once(journal(pytester))
        assert journal(pytester)[-1] == "down module"

    def test_by_pytest_exit(self, pytester, suite):
        suite(STOPPING % "if case.id == 'c2':\n        pytest.exit('enough')", cases=12)
        result = pytester.runpytest_inprocess("--llm-eval", "--llm-concurrency", "4")
        assert result.ret == pytest.ExitCode.INTERRUPTED
        assert counts_of(result) == {"cases": 12, "passed": 2, "failed": 0, "error": 0, "unscored": 0, "not_run": 10}
        assert each_once(journal(pytester))

    def test_by_an_internal_error(self, pytester, suite):
        suite(STOPPING % "pass", cases=12)
        (pytester.path / "conftest.py").write_text(
            "def pytest_runtest_logreport(report):\n    if report.when == 'call' and 'c2' in report.nodeid:\n        raise OSError('hook')\n",
            encoding="utf-8",
        )
        result = pytester.runpytest_subprocess("--llm-eval", "--llm-concurrency", "4")
        assert result.ret == pytest.ExitCode.INTERNAL_ERROR
        assert each_once(journal(pytester))
        # The third was told before the hook raised.
        assert counts_of(result) == {"cases": 12, "passed": 3, "failed": 0, "error": 0, "unscored": 0, "not_run": 9}

    def test_when_a_teardown_fails_meanwhile(self, pytester, suite):
        suite(
            (STOPPING % "assert case.id != 'c0'").replace(
                'note("down", case.id)', 'note("down", case.id)\n    if case.id == "c2":\n        raise OSError("cannot clean up")'
            ),
            cases=4,
        )
        result = pytester.runpytest_inprocess("--llm-eval", "--llm-concurrency", "4", "-x")
        result.assert_outcomes(failed=1, errors=1)
        result.stdout.fnmatch_lines(["*ERROR at teardown of test_it[[]c2[]]*", "*OSError: cannot clean up*"])
        assert each_once(journal(pytester))
        assert counts_of(result)["cases"] == 4


HANGING = {
    "sync": ("def", "for _ in range(3000):\n            threading.Event().wait(0.01)"),
    "sync_that_waits": ("def", "threading.Event().wait(30)"),
    "async": ("async def", "await asyncio.sleep(30)"),
    "async_that_blocks_the_loop": ("async def", "for _ in range(3000):\n            threading.Event().wait(0.01)"),
}


class TestTimeout:
    @pytest.mark.parametrize(("kind", "hang"), HANGING.values(), ids=HANGING.keys())
    def test_a_body_that_hangs_is_an_error(self, pytester, suite, kind, hang):
        suite(
            f"""
import asyncio, threading

@pytest.mark.golden(CASES)
{kind} test_it(case):
    if case.id == "c1":
        {hang}
""",
            cases=4,
        )
        result = pytester.runpytest_inprocess("--llm-eval", "--llm-concurrency", "2", "--llm-timeout", "0.3")
        result.assert_outcomes(passed=3, errors=1)
        assert result.ret == 10
        result.stdout.fnmatch_lines(["*the body did not end within 0.3 s (--llm-timeout*"])

    @pytest.mark.parametrize(("kind", "hang"), HANGING.values(), ids=HANGING.keys())
    def test_alone(self, pytester, suite, kind, hang):
        suite(
            f"""
import asyncio, threading

@pytest.mark.golden(CASES)
{kind} test_it(case, monkeypatch):
    if case.id == "c1":
        {hang}
""",
            cases=2,
        )
        result = pytester.runpytest_inprocess("--llm-eval", "--llm-timeout", "0.3")
        result.assert_outcomes(passed=1, errors=1)
        result.stdout.fnmatch_lines(["*the body did not end within 0.3 s (--llm-timeout*"])

    def test_it_says_where_the_body_was(self, pytester, suite):
        suite(
            """
import threading

def wait_for_godot():
    threading.Event().wait(30)

@pytest.mark.golden(CASES[:1])
def test_it(case):
    wait_for_godot()
"""
        )
        result = pytester.runpytest_inprocess("--llm-eval", "--llm-timeout", "0.2")
        result.stdout.fnmatch_lines(["*; it was at *test_suite.py:9 in wait_for_godot*"])


class TestRepeat:
    def test_each_case_is_tried_n_times(self, pytester, runner, suite):
        suite(
            """
@pytest.mark.golden(CASES[:3])
def test_it(case):
    note(case.id, case.number)
"""
        )
        result = runner.run("--llm-eval", "--llm-repeat", "3", "--llm-limit", "2")
        all_pass(result, 6)
        assert whole_journal(pytester) == [f"c{i} {number}" for i in range(2) for number in (1, 2, 3)]
        said = "test_suite.py::test_it: 2 cases tried 3 times: pass@3 100.0%, pass^3 100.0%; none is flaky"
        result.stdout.fnmatch_lines(["suite * trials  passed *", "test_suite.py::test_it * 6 * 6 *", said])

    def test_names_tell_the_trials_apart(self, pytester, suite):
        suite("@pytest.mark.golden(CASES[:2])\ndef test_it(case):\n    pass\n")
        result = pytester.runpytest_inprocess("--llm-eval", "--llm-repeat", "2", "--collect-only", "-q")
        result.stdout.fnmatch_lines([f"test_suite.py::test_it[[]{name}[]]" for name in ("c0", "c1", "c0@2", "c1@2")], consecutive=True)

    def test_not_less_than_once(self, pytester, suite):
        suite(SYNC)
        result = pytester.runpytest_inprocess("--llm-eval", "--llm-repeat", "0")
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        result.stderr.fnmatch_lines(["*argument --llm-repeat: '0' is not a whole number of at least 1"])
