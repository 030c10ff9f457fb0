from __future__ import annotations

import os

# Before anything of Hugging Face is imported: nothing here may ask a hub.
os.environ.update({"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "WANDB_DISABLED": "true"})
