"""What an interpreter and its machine can do: `python child.py pytest_touchstone.train.probe MODEL`, told as the event `facts`.

Imports torch only, so that libraries which do not fit together are named before any of them breaks.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

from pytest_touchstone.train.telling import tell

LIBRARIES = (
    "accelerate", "bitsandbytes", "datasets", "fastapi", "llamafactory", "peft", "torch", "torchaudio", "torchvision", "transformers",
    "trl", "unsloth", "unsloth_zoo", "uvicorn", "vllm",
)  # fmt: skip


def facts(model: str) -> dict[str, Any]:
    """Versions (None: not installed), the memory of machine and GPUs in bytes, and what is known of the model."""
    return {
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in LIBRARIES},
        "memory": _memory(),
        **_devices(),
        "model": _model(model),
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _memory() -> int | None:
    """The bytes that a new program can have without swapping: what Linux says, within the limit of the control group."""
    found: list[int] = []
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        found += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
        used = Path("/sys/fs/cgroup/memory.current").read_text(encoding="ascii")
        found += [int(limit) - int(used)] if limit != "max" else []
    except (OSError, ValueError, IndexError):
        pass
    return min(found, default=None)


def _devices() -> dict[str, Any]:
    """The GPUs that torch can use, and why torch cannot be imported where it cannot."""
    try:
        torch: Any = importlib.import_module("torch")
    except Exception as error:  # noqa: BLE001 - a broken installation raises anything
        return {"torch_error": f"{type(error).__name__}: {error}", "gpus": [], "bf16": False}
    gpus: list[dict[str, Any]] = []
    for number in range(torch.cuda.device_count()) if torch.cuda.is_available() else ():
        free, total = torch.cuda.mem_get_info(number)
        gpus.append({"name": torch.cuda.get_device_name(number), "free": free, "total": total})
    return {"torch_error": None, "gpus": gpus, "bf16": bool(gpus) and torch.cuda.is_bf16_supported()}


def _model(name: str) -> dict[str, Any]:
    """Where the model lies on this machine (None: nowhere), its configuration and the bytes of its weights."""
    folder = Path(name) if Path(name).is_dir() else _cached(name)
    if folder is None:
        return {"folder": None}
    weights = [path.stat().st_size for path in folder.glob("*.safetensors")] or [path.stat().st_size for path in folder.glob("*.bin")]
    try:
        config = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError):
        config = None
    return {"folder": str(folder), "config": config, "weights": sum(weights), "parameters": _parameters(folder)}


def _cached(name: str) -> Path | None:
    try:
        hub: Any = importlib.import_module("huggingface_hub")
        return Path(hub.snapshot_download(name, local_files_only=True))
    except Exception:  # noqa: BLE001 - not installed, not a name, not there: all the same here
        return None


def _parameters(folder: Path) -> int | None:
    """How many numbers the weights hold, from the heads of the safetensors files; None where there are none or one is packed (4 bit)."""
    count = 0
    for path in folder.glob("*.safetensors"):
        try:
            with path.open("rb") as file:
                head = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        except (OSError, ValueError, MemoryError, OverflowError):
            return None
        for name, tensor in head.items():
            if name == "__metadata__":
                continue
            if tensor["dtype"] in {"U8", "I8"}:
                return None
            size = 1
            for length in tensor["shape"]:
                size *= length
            count += size
    return count or None


if __name__ == "__main__":
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    tell("facts", **facts(sys.argv[1]))
