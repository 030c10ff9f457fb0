"""Record the triage suite anew from the model in models/triage-base: `python -m recordings.record_triage`, from the folder above this one.

Starts `transformers serve` on a free port of this machine, runs the suite against it with each of the two prompts, and stops it; the old
recordings are deleted first.
The server's log is models/serve.log. Where torch lives in an environment of
its own, name its command: `--serve ~/torch/bin/transformers`.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

PROJECT = Path(__file__).parent.parent
MODEL = "models/triage-base"
PROMPTS = ("", "careless")
LOG = PROJECT / "models" / "serve.log"
RECORDING = PROJECT / "evals" / "__recordings__" / "test_triage.jsonl"
STARTS_WITHIN_S = 120.0
TESTS_FAILED = 1


@contextlib.contextmanager
def serving(command: str, model: str) -> Iterator[str]:
    """A server for the model, as the base URL of its OpenAI-compatible API; gone when the block ends."""
    port = _free_port()
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    options = ("--host", "127.0.0.1", "--port", str(port), "--device", "cpu", "--log-level", "error")
    log = LOG.open("wb")
    server = subprocess.Popen([command, "serve", model, *options], cwd=PROJECT, env=environment, stdout=log, stderr=log)  # noqa: S603 - the developer's command
    try:
        _wait_for(server, port)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        server.wait()
        log.close()


def main() -> int:
    """Record the suite with both prompts; failing cases are expected and recorded like any other."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--serve", default="transformers", metavar="COMMAND", help="the transformers command (default: %(default)s)")
    command = parser.parse_args().serve
    with serving(command, MODEL) as url:
        RECORDING.unlink(missing_ok=True)
        statuses = [_record(url, prompt) for prompt in PROMPTS]
    return next((status for status in statuses if status not in {0, TESTS_FAILED}), 0)


def _record(url: str, prompt: str) -> int:
    pytest = [sys.executable, "-m", "pytest", "--llm-eval", "--llm-record", "missing", "-q", "--tb=no", "evals/test_triage.py"]
    environment = {**os.environ, "SUPPORT_BASE_URL": url, "SUPPORT_TRIAGE_PROMPT": prompt}
    return subprocess.run(pytest, cwd=PROJECT, env=environment, check=False).returncode  # noqa: S603 - as above


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(server: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + STARTS_WITHIN_S
    while time.monotonic() < deadline:
        if server.poll() is not None:
            msg = f"the server ended with status {server.returncode}; see {LOG} (python -m model.make_model makes the model)"
            raise SystemExit(msg)
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.2)
    msg = f"the server did not listen within {STARTS_WITHIN_S:g} s"
    raise SystemExit(msg)


if __name__ == "__main__":
    sys.exit(main())
