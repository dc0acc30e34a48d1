"""The build machine's libraries make no connection: checkpoints are local folders.

What murank loads, it loads from local files. The switches are for what libraries look up beside
that: transformers whether a tokenizer needs a patch, PEFT what the base model of an adapter is,
Hugging Face's hub client its own users. They are read when those libraries are imported.
"""

import os

SWITCHES = (
    "HF_HUB_OFFLINE",
    "TRANSFORMERS_OFFLINE",
    "HF_HUB_DISABLE_TELEMETRY",
    "DISABLE_TELEMETRY",
)


def stay_offline() -> None:
    """Set what is not set already; children inherit it."""
    for name in SWITCHES:
        os.environ.setdefault(name, "1")
