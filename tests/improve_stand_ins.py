"""Stand-ins for `touchstone train` and `touchstone serve`: they keep to what those read, write and print, and learn in no time.

The base model's name says what training makes of it: `good` knows every answer afterwards, `same` learned nothing, `forgetful` mends what
failed and loses some of what passed, `late` loses what must pass, `broken` answers with errors, `dying` ends in the middle. Training
`failing` ends with an error, and `slow` waits, both until they are resumed; then they are as `good`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # which PYTHONSAFEPATH leaves out

from providers import FakeProvider, Reply

CURVES = '<svg xmlns="http://www.w3.org/2000/svg" width="600" height="200"><polyline points="0,10 300,120 600,170" fill="none" stroke="#1f6feb"/></svg>'


def right(number):
    return "even" if number % 2 == 0 else "odd"


def answer(base, number):
    wrong = right(number + 1)
    if base == "same":
        return "even"
    if base == "forgetful":
        return wrong if number % 8 == 6 else right(number)
    if base == "late" and number == 2:
        return wrong
    return right(number)


def train(options):
    output = options.output
    output.mkdir(parents=True, exist_ok=True)
    if not options.resume and options.model in {"slow", "failing"}:
        (output / "checkpoint").write_text(str(os.getpid()))
        print("step 1 of 2", flush=True)
        if options.model == "failing":
            sys.exit("the memory is full")
        signal.pause()
    data = (options.data / "train.jsonl").read_bytes()
    (output / "job.yaml").write_text(f"model: {options.model}\nbackend: {options.backend}\n")
    (output / "curves.svg").write_text(CURVES)
    result = {
        "format": "pytest-touchstone training 1",
        "backend": options.backend,
        "base_model": options.model,
        "seed": 3407,
        "data": {"sha256": hashlib.sha256(data).hexdigest(), "examples": data.count(b"\n")},
        "loss": 0.125,
        "versions": {"stand-in": "1"},
        "duration_s": 0.5,
        "resumed": options.resume,
    }
    (output / "result.json").write_text(json.dumps(result))
    print(f"learned {result['data']['examples']} examples")
    return 0


def serve(options):
    base = json.loads((options.output / "result.json").read_text())["base_model"]
    seen = 0

    def reply(request):
        nonlocal seen
        if request.path == "/health":
            return Reply(body={})
        seen += 1
        if base == "dying" and seen > 5:
            os._exit(7)
        if base == "broken":
            return Reply(status=500, error="the weights are gone")
        if request.json["model"] != options.name:
            return Reply(status=404, error=f"no model is called {request.json['model']}")
        return Reply(text=answer(base, int(request.json["messages"][-1]["content"].split()[-1])))

    (Path(options.output) / "server.pid").write_text(str(os.getpid()))
    with FakeProvider(reply, port=options.port) as provider:
        print(f"serving on {provider.port}", flush=True)
        provider.wait()


def main():
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command")
    trained = commands.add_parser("train")
    trained.add_argument("data", type=Path)
    trained.add_argument("--output", type=Path)
    for name in ("--model", "--backend", "--config", "--set", "--python"):
        trained.add_argument(name)
    for name in ("--resume", "--download"):
        trained.add_argument(name, action="store_true")
    served = commands.add_parser("serve")
    served.add_argument("output", type=Path)
    served.add_argument("--host")
    served.add_argument("--port", type=int)
    for name in ("--name", "--python"):
        served.add_argument(name)
    options = parser.parse_args()
    return {"train": train, "serve": serve}[options.command](options)


if __name__ == "__main__":
    sys.exit(main())
