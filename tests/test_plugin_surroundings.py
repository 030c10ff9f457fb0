import gc
import subprocess
import sys

import pytest

TWO_RUNS = """
import gc

gc.freeze = lambda: print("frozen")
from pytest_touchstone.plugin.surroundings import leave_quickly

leave_quickly()
leave_quickly()
print("left")
"""


def test_the_end_of_a_process_is_shortened_once_however_many_runs_it_held():
    done = subprocess.run([sys.executable, "-c", TWO_RUNS], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["left", "frozen"]


class TestFewerCollections:
    @pytest.fixture(autouse=True)
    def _threshold(self):
        before = gc.get_threshold()
        yield
        gc.set_threshold(*before)

    def seen_in(self, pytester, *options):
        pytester.makeconftest("import gc\nprint('conftest', gc.get_threshold())")
        pytester.makepyfile("def test_it(): pass")
        result = pytester.runpytest_inprocess("-s", "-p", "no:randomly", *options)
        result.assert_outcomes(passed=1)
        return result.outlines

    def test_an_evaluation_looks_for_cycles_less_often_from_its_start_and_gives_that_back(self, pytester):
        gc.set_threshold(700, 11, 12)
        assert "conftest (20000, 11, 12)" in self.seen_in(pytester, "--llm-eval")
        assert gc.get_threshold() == (700, 11, 12)

    def test_nothing_changes_in_any_other_run(self, pytester):
        gc.set_threshold(700, 11, 12)
        assert "conftest (700, 11, 12)" in self.seen_in(pytester)

    @pytest.mark.parametrize("own", [0, 50_000])
    def test_what_looks_even_less_often_stays(self, pytester, own):
        gc.set_threshold(own, 11, 12)
        assert f"conftest ({own}, 11, 12)" in self.seen_in(pytester, "--llm-eval")
