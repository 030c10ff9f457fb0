"""Counting tokens as training will: with the tokenizer and the chat template of the model to train, from a folder on this disk."""

from __future__ import annotations

import importlib
import json
from typing import TYPE_CHECKING, Any

from pytest_touchstone.errors import ExportError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pytest_touchstone.export.example import Example
    from pytest_touchstone.export.quality import CountTokens


def check_tokenizer(path: Path) -> None:
    """Refuse what is no folder with a tokenizer; cheap, so it can be asked before a run is paid for.

    Raises:
        ExportError: there is no folder at `path`, or it holds no tokenizer.
    """
    if not path.is_dir():
        msg = f"{path}: is no folder; give --llm-tokenizer the folder of a model, which holds its tokenizer"
        raise ExportError(msg)
    if not any((path / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json")):
        msg = (
            f"{path}: holds neither tokenizer.json nor tokenizer_config.json; give --llm-tokenizer the folder of a model with its tokenizer"
        )
        raise ExportError(msg)


def token_counter(path: Path) -> tuple[CountTokens | None, str]:
    """What counts the tokens of an example's prompt and of the whole example, or None and why; nothing is downloaded, no code of it run."""
    try:
        transformers: Any = importlib.import_module("transformers")
    except ImportError:
        return None, "transformers is not installed (pip install 'pytest-touchstone[train]')"
    try:
        tokenizer: Any = transformers.AutoTokenizer.from_pretrained(str(path), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # noqa: BLE001 - whatever a broken file makes of the library
        return None, f"the tokenizer cannot be loaded: {type(error).__name__}: {error}"
    if not getattr(tokenizer, "chat_template", None):
        return None, "the tokenizer has no chat template"

    def count(example: Example) -> tuple[int, int]:
        tools = [json.loads(json.dumps(tool, default=dict)) for tool in example.tools] or None
        prompt, whole = _plain(example.prompt), _plain((*example.prompt, *example.completion))
        asked = tokenizer.apply_chat_template(prompt, tools=tools, add_generation_prompt=True, tokenize=False)
        said = tokenizer.apply_chat_template(whole, tools=tools, tokenize=False)
        return tuple(len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in (asked, said))  # type: ignore[return-value]

    return count, ""


def _plain(messages: Sequence[Any]) -> list[dict[str, Any]]:
    return [dict(message) for message in messages]
