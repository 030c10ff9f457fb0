"""What the plugin costs a pytest that does not evaluate: `python benchmarks/startup.py [ROUNDS]`."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from timing import print_medians, run_in_turn, wall

HEAVY = ("pydantic", "httpx", "httpx2", "openai", "anthropic", "yaml", "sqlite3", "sqlalchemy", "torch", "genai_prices")


def main(rounds: int = 20) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "test_one.py").write_text("def test_one():\n    pass\n")
        pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_one.py"]
        commands = {"without the plugin": [*pytest, "-p", "no:touchstone"], "with it": pytest}
        medians = print_medians(wall(run_in_turn(commands, cwd=root, rounds=rounds)))
        traced = subprocess.run([sys.executable, "-X", "importtime", *pytest[1:]], cwd=root, check=True, capture_output=True, text=True)
    names = [line.rpartition("|")[2].strip() for line in traced.stderr.splitlines() if line.startswith("import time:")]
    print(f"difference of the medians: {(medians['with it'] - medians['without the plugin']) * 1000:.1f} ms")
    print("modules of ours:", ", ".join(name for name in names if name.startswith("pytest_touchstone")))
    print("heavy modules:", ", ".join(name for name in names if name.partition(".")[0] in HEAVY) or "none")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
