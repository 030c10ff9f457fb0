import atexit
import gc

from pytest_touchstone.plugin.surroundings import leave_quickly


def test_the_end_of_a_process_is_shortened_once_however_many_runs_it_held():
    atexit.unregister(gc.freeze)
    before = atexit._ncallbacks()
    leave_quickly()
    leave_quickly()
    assert atexit._ncallbacks() == before + 1
    atexit.unregister(gc.freeze)
