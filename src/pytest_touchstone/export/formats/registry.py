"""From a format's name, as users write it, to the format."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_touchstone.export.formats.bedrock import Bedrock, BedrockClaude
from pytest_touchstone.export.formats.hf_datasets import HFDatasets
from pytest_touchstone.export.formats.llamafactory import ShareGPT, ShareGPTPreference
from pytest_touchstone.export.formats.openai_chat import OpenAIChat, OpenAIPreference
from pytest_touchstone.export.formats.trl import Messages, Preference

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_touchstone.export.format import Format

# Those of `settings.EXPORT_FORMATS`, but for `trl`, whose file is always written and stands in the folder itself.
FORMATS: Mapping[str, Format] = {
    "messages": Messages(),
    "preference": Preference(),
    "openai": OpenAIChat(),
    "openai-preference": OpenAIPreference(),
    "llamafactory": ShareGPT(),
    "llamafactory-preference": ShareGPTPreference(),
    "bedrock": Bedrock(),
    "bedrock-claude": BedrockClaude(),
    "datasets": HFDatasets(),
}
