"""Runs the server of an inference engine: `python child.py pytest_touchstone.train.engine MODULE ARGUMENT...`.

The engine ends with the standard input of this process, so that it never outlives who started it.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading

from pytest_touchstone.train.telling import stop_wanted


def main() -> None:
    """Run the module that the first argument names as the main program, with the other arguments."""
    wanted = stop_wanted()

    def end() -> None:
        wanted.wait()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=end, daemon=True).start()
    sys.argv[:] = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
