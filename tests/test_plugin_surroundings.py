import subprocess
import sys

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
