"""Run both suites from their recordings and export training data; further arguments go to pytest.

Some cases fail, and one is unscored: that is what the example is there to show. So pytest's status for failed tests is a success here, and
every other status is not.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parent
OPTIONS = ("--llm-eval", "--llm-record", "none", "--llm-export", "training")
TESTS_FAILED = 1


def main(arguments: list[str]) -> int:
    """Run pytest in this folder."""
    command = [sys.executable, "-m", "pytest", *OPTIONS, *arguments]
    print("$ pytest", *OPTIONS, *arguments, flush=True)
    status = subprocess.run(command, cwd=PROJECT, check=False).returncode  # noqa: S603 - the developer's own arguments
    if status != TESTS_FAILED:
        print(f"expected some failing cases, which is status {TESTS_FAILED}; pytest ended with status {status}")
        return status or 1
    print("Failing cases are part of this example: see example_project/README.md.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
