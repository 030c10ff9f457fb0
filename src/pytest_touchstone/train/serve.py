"""Serving a tuned model behind an OpenAI-compatible endpoint, by an engine that exists: vLLM on a GPU, else `transformers serve`."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import socket
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from pytest_touchstone.errors import TrainingError
from pytest_touchstone.train.process import base_environment, child_command, run_child

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

Engine = Literal["vllm", "transformers"]

SERVED: Final = "served"
MERGED: Final = "merged"
LOG_FILE: Final = "serve.log"
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_RANKS: Final = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # those that vLLM takes for --max-lora-rank
_WAIT_S: Final = 0.25
_MODULES: Final[Mapping[Engine, str]] = {"vllm": "vllm.entrypoints.cli.main", "transformers": "transformers.cli.transformers"}


@dataclass(frozen=True, kw_only=True)
class Serving:
    """What is served and where: the folder of a finished run, its result, the name that requests ask for, host and port."""

    output: Path
    result: Mapping[str, Any]
    name: str
    host: str
    port: int
    python: str

    @property
    def base_url(self) -> str:
        """What an OpenAI client takes as its base URL."""
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}/v1"


def free_port(host: str, port: int) -> int:
    """The port if nobody listens there; one that is free for 0.

    Raises:
        TrainingError: it is taken, or the host is no address of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            return int(probe.getsockname()[1])
    except OSError as error:
        msg = f"{host}:{port}: cannot be listened on: {error.strerror or error}; give another --port (0 takes a free one) or --host"
        raise TrainingError(msg) from error


def choose_engine(facts: Mapping[str, Any], python: str) -> Engine:
    """The engine that an interpreter has and its machine can run.

    Raises:
        TrainingError: it has none; says what to install.
    """
    versions: Mapping[str, str | None] = facts["versions"]
    if facts["gpus"] and versions["vllm"]:
        return "vllm"
    missing = [name for name in ("torch", "transformers", "peft", "fastapi", "uvicorn") if not versions.get(name)]
    if missing:
        msg = f"{python} cannot serve a model: it lacks {', '.join(missing)}; pip install 'transformers[serving]' peft torch there, or name"
        raise TrainingError(f"{msg} another Python with --python")
    return "transformers"


def engine_command(engine: Engine, serving: Serving, *, gpu: bool) -> list[str]:
    """The command line of the engine's server, which runs in the folder `served/` of the run."""
    start = [*child_command(serving.python), "pytest_touchstone.train.engine", _MODULES[engine], "serve"]
    where = ["--host", serving.host, "--port", str(serving.port)]
    if engine == "transformers":  # it calls a model by the path that it is given
        return [*start, serving.name, *where, "--device", "auto" if gpu else "cpu"]
    if _is_merged(serving):
        return [*start, str(serving.output / MERGED), "--served-model-name", serving.name, *where]
    rank = next(rank for rank in (*_RANKS, _rank(serving)) if rank >= _rank(serving))
    adapter = f"{serving.name}={serving.output / serving.result['paths']['adapter']}"
    return [*start, str(serving.result["base_model"]), "--enable-lora", "--max-lora-rank", str(rank), "--lora-modules", adapter, *where]


def serve(serving: Serving, say: Callable[[str], None]) -> None:
    """Serve until the user stops it; `say` is told when it is ready, with its base URL.

    `transformers serve` takes no adapter, so the adapter is merged into its base first, once, into `merged/`.

    Raises:
        TrainingError: no engine is there, or it ended by itself; with its last lines.
        KeyboardInterrupt: the user stopped it.
    """
    facts = _facts(serving)
    engine = choose_engine(facts, serving.python)
    gpu = bool(facts["gpus"])
    if engine == "transformers":
        _merge(serving, say)
        _name(serving)
    environment = base_environment(download=False)
    if not gpu:
        environment["CUDA_VISIBLE_DEVICES"] = ""
    command = engine_command(engine, serving, gpu=gpu)
    say(f"starting {engine}; its output goes to {serving.output / LOG_FILE}")
    over = threading.Event()
    waiting = threading.Thread(target=_tell_ready, args=(serving, say, over), daemon=True)
    waiting.start()
    folder = serving.output / SERVED
    try:
        ended = run_child(command, environment, log=serving.output / LOG_FILE, folder=folder if folder.is_dir() else serving.output)
    finally:
        over.set()
        waiting.join()
    if ended.interrupted:
        raise KeyboardInterrupt
    raise TrainingError(f"{engine} {ended.describe()}\nall of its output is in {serving.output / LOG_FILE}")


def _facts(serving: Serving) -> Mapping[str, Any]:
    command = [*child_command(serving.python), "pytest_touchstone.train.probe", str(serving.result["base_model"])]
    ended = run_child(command, base_environment(download=False))
    if "facts" not in ended.events:
        raise TrainingError(f"{serving.python} cannot be used: it {ended.describe()}")
    return ended.events["facts"]


def _is_merged(serving: Serving) -> bool:
    return (serving.output / MERGED).is_dir()


def _merge(serving: Serving, say: Callable[[str], None]) -> None:
    if _is_merged(serving):
        return
    say(f"merging the adapter into {serving.result['base_model']}, once")
    adapter = serving.output / serving.result["paths"]["adapter"]
    command = [*child_command(serving.python), "pytest_touchstone.train.merge", str(serving.result["base_model"])]
    ended = run_child([*command, str(adapter), str(serving.output / MERGED)], base_environment(download=False))
    if ended.interrupted:
        raise KeyboardInterrupt
    if ended.status:
        raise TrainingError(f"the adapter cannot be merged into its base: the process {ended.describe()}")


def _name(serving: Serving) -> None:
    """Give the merged model the name that requests ask for."""
    folder = serving.output / SERVED
    folder.mkdir(exist_ok=True)
    link = folder / serving.name
    with contextlib.suppress(FileNotFoundError):
        link.unlink()
    link.symlink_to(os.path.join("..", MERGED), target_is_directory=True)  # noqa: PTH118 - Path would not keep the dots


def _rank(serving: Serving) -> int:
    rank = serving.result.get("lora_r")
    return rank if isinstance(rank, int) else _RANKS[-1]


def _tell_ready(serving: Serving, say: Callable[[str], None], over: threading.Event) -> None:
    """Ask until the server answers, then say where it is."""
    while not over.wait(_WAIT_S):
        if _answers(serving):
            say(f"ready: {serving.base_url} serves {serving.name}")
            return


def _answers(serving: Serving) -> bool:
    connection = http.client.HTTPConnection(serving.host, serving.port, timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
