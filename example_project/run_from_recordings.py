"""Run both suites from their recordings, held against their baselines, and export training data; further arguments go to pytest.

Many cases fail: that is what the example is there to show. The baseline knows them, so they fail nothing, and the gate says `passed`. One
reply is unscored, so pytest ends with the status for that, and every other status is a mistake. Then the triage suite runs once more with
a careless prompt, and the gate has to say `regressed`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parent
GATED = ("--llm-eval", "--llm-record", "none", "--llm-gate", "regression")
UNSCORED = 11
REGRESSED = 13


def main(arguments: list[str]) -> int:
    """Run pytest twice in this folder."""
    status = _run(*GATED, "--llm-export", "training", *arguments)
    if status != UNSCORED:
        print(f"expected nothing worse than an unscored case, which is status {UNSCORED}; pytest ended with status {status}")
        return status or 1
    status = _run(*GATED, "--llm-show", "0", "evals/test_triage.py", SUPPORT_TRIAGE_PROMPT="careless")
    if status != REGRESSED:
        print(f"expected the careless prompt to be a regression, which is status {REGRESSED}; pytest ended with status {status}")
        return status or 1
    print("Failing cases, an unscored one and the regression are part of this example: see example_project/README.md.")
    return 0


def _run(*arguments: str, **environment: str) -> int:
    print("$", *(f"{name}={value}" for name, value in environment.items()), "pytest", *arguments, flush=True)
    command = [sys.executable, "-m", "pytest", *arguments]
    return subprocess.run(command, cwd=PROJECT, env={**os.environ, **environment}, check=False).returncode  # noqa: S603 - the developer's own arguments


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
